from pathlib import Path

from mkiso.config import Config
from mkiso.dicom.instances import Instance
from mkiso.disc.layout import Setting, Tree, legacy
from mkiso.workspace import Workspace


def received(path: Path, uid: str) -> Instance:
    path.write_text(f"instance {uid}")
    return Instance(path, uid, "1.2", "1.3", "1.4", "1.2.840.10008.1.2", 12, (12, 0))


def test_the_legacy_layout_names_every_file_by_its_uid_in_one_folder(tmp_path: Path) -> None:
    instances = [received(tmp_path / f"CT.{uid}", uid) for uid in ("1.5", "1.6")]
    stage = tmp_path / "disc"
    stage.mkdir()
    assert legacy(instances, Setting(Config(), Workspace(tmp_path), "iso", lambda: None)) == Tree(
        [("DICOMDIR", stage / "DICOMDIR")]
    )
    laid = {file.name: file.read_text() for file in (stage / "DICOMDIR").iterdir()}
    assert laid == {"1.5": "instance 1.5", "1.6": "instance 1.6"}
