"""What an archive holds malformed, and sends whole, is handed out as it came, and named."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mkiso import errors
from mkiso.cancellation import Cancellation
from mkiso.installation import Installation
from mkiso.job import Order, make_disc, relay
from mkiso.verify.verify import verify
from tests.support import tools
from tests.support.archive import running_archive
from tests.support.odd import ACCESSION, MALFORMED, WELL_FORMED, as_it_is, odd_study, sent
from tests.support.ports import free_ports
from tests.support.service import config, read_disc

ALL = MALFORMED | WELL_FORMED


@contextmanager
def holding(directory: Path, **sections: Any) -> Iterator[Installation]:
    port, receiver = free_ports(2)
    with running_archive(port, {"RECEIVER": receiver}, directory / "held"):
        installation = Installation(config(directory, port, {"RECEIVER": receiver}, **sections))
        yield installation
        installation.ledger.close()


def disc_of(installation: Installation, directory: Path, **wanted: Any) -> dict[str, Path]:
    disc = make_disc(installation, Order((ACCESSION,), "test", **wanted), Cancellation())
    (directory / "disc.iso").write_bytes(b"".join(disc))
    disc.close()
    return read_disc(directory / "disc.iso", directory / "disc")


def instances_on(disc: dict[str, Path]) -> dict[str, bytes]:
    return as_it_is(file for path, file in disc.items() if path.startswith(("DICOMDIR/", "IMAGES/", "OTHER/")))


@pytest.mark.parametrize("layout", ["legacy", "pdi"])
def test_a_disc_has_it_byte_for_byte_and_names_it(
    layout: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    study, uids = odd_study(tmp_path / "held", ALL)
    malformed = {uids[kind] for kind in MALFORMED}
    with holding(tmp_path) as installation:
        disc = disc_of(installation, tmp_path, layout=layout)
        assert instances_on(disc) == sent(study)
        (job,) = installation.ledger.list_jobs()
        assert (job["state"], job["received"], job["malformed"]) == ("done", len(study.files), len(MALFORMED))
        handed_out = installation.ledger.history.instances(job["id"], "", 100)
        assert {one["sop_instance_uid"] for one in handed_out if one["malformed"]} == malformed
    (warning,) = (one for one in caplog.records if "not well-formed" in one.message)
    assert (warning.levelname, warning.fields["count"]) == ("WARNING", len(MALFORMED))
    assert "ROE" not in str(vars(warning))
    told = re.findall(r"  (\S+)  (\S+)  \(malformed\)\r\n", disc["README.TXT"].read_bytes().decode())
    assert {uid for _, uid in told} == malformed
    assert as_it_is(disc[path] for path, _ in told) == {uid: sent(study)[uid] for uid in malformed}


@pytest.mark.parametrize("layout", ["legacy", "pdi"])
def test_a_disc_with_it_is_sound_where_it_is_named(layout: str, tmp_path: Path) -> None:
    odd_study(tmp_path / "held", ALL)
    with holding(tmp_path) as installation:
        disc = disc_of(installation, tmp_path, layout=layout)
    checks = verify(tmp_path / "disc.iso")
    assert [check for check in checks if not check.ok] == []
    assert any(f"{len(MALFORMED)} " in check.found and "not well-formed" in check.found for check in checks)
    readme = disc["README.TXT"].read_bytes()
    disc["README.TXT"].write_bytes(readme.replace(b"(malformed)", b"(torn)"))
    assert [check.name for check in verify(tmp_path / "disc") if not check.ok]


def test_a_study_of_one_kind_alone_is_a_disc(tmp_path: Path) -> None:
    kinds = {f"{number}": MALFORMED["a VR of ??"] for number in range(3)}
    study, _ = odd_study(tmp_path / "held", kinds)
    expected = {file.stem: sent(study)[file.stem] for file in study.files[:-1]}
    study.files[-1].unlink()
    with holding(tmp_path) as installation:
        disc = disc_of(installation, tmp_path, layout="pdi")
    assert instances_on(disc) == expected


def test_what_cannot_be_decompressed_stays_as_it_came(tmp_path: Path) -> None:
    study, _ = odd_study(tmp_path / "held", ALL)
    with holding(tmp_path, media={"uncompressed": True}) as installation:
        disc = disc_of(installation, tmp_path, layout="pdi")
    assert (
        instances_on(disc).items()
        >= {uid: data for uid, data in sent(study).items() if b"\3\4" * 50 not in data}.items()
    )
    assert len(instances_on(disc)) == len(study.files)
    assert [check for check in verify(tmp_path / "disc.iso") if not check.ok] == []


@pytest.mark.parametrize("tool", ["storescu", "dcmsend"])
def test_a_relay_sends_it_as_it_came_or_says_what_it_could_not_send(tool: str, tmp_path: Path) -> None:
    study, uids = odd_study(tmp_path / "held", ALL)
    (port,) = free_ports(1)
    to = {"relay": {"ae_title": "ANY-SCP", "host": "127.0.0.1", "port": port, "tool": tool}}
    arrived = tmp_path / "arrived"
    with (
        tools.running_storescp("ANY-SCP", port, arrived, tmp_path / "destination.log"),
        holding(tmp_path, destinations=to) as installation,
    ):
        try:
            sent_count = relay(installation, Order((ACCESSION,), "test"), "relay", Cancellation()).delivery.sent
        except errors.RelayFailed as failed:
            sent_count = failed.fields["files_sent"]
            assert any(uid in failed.detail for uid in uids.values())
        (job,) = installation.ledger.list_jobs()
        assert (job["malformed"], job["files_sent"]) == (len(MALFORMED), sent_count)
        assert job["files_sent"] + job["files_failed"] == len(study.files)
        print(tool, sent_count, [kind for kind, uid in uids.items() if uid not in as_it_is(arrived.iterdir())])
