from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_subprocess import FakeProcess

from mkiso.dcmtk.converters import DECOMPRESSORS, Converter, decompress, decompress_argv

DCMTK = Path("/opt/dcmtk")


@pytest.mark.parametrize("program", sorted(set(DECOMPRESSORS.values())))
def test_the_argv_of_a_decompressor(program: str) -> None:
    assert decompress_argv(DCMTK, program, Path("/w/1.2"), Path("/w/1.2.raw")) == (
        *(f"/opt/dcmtk/{program}", "-q", "+te", "/w/1.2", "/w/1.2.raw"),
    )


@pytest.mark.parametrize(("rc", "writes", "done"), [(0, True, True), (0, False, False), (1, True, False)])
def test_it_has_decompressed_where_there_is_a_file(
    rc: int, writes: bool, done: bool, fake: FakeProcess, tmp_path: Path
) -> None:
    raw = tmp_path / "1.2.raw"
    callback: Callable[..., None] | None = (lambda _process: raw.write_bytes(b"DICM") and None) if writes else None
    fake.register(decompress_argv(DCMTK, "dcmdrle", Path("1.2"), raw), returncode=rc, callback=callback)
    assert decompress(Converter(DCMTK, tmp_path, lambda: None), "dcmdrle", Path("1.2"), raw) is done
