"""What an archive holds malformed, and sends whole, is handed out as it came, and named."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mkiso import errors
from mkiso.installation import Installation
from mkiso.job import Order, make_disc, relay
from mkiso.verify.verify import verify
from mkiso.waiting import Cancellation
from tests.support import tools
from tests.support.archive import running_archive
from tests.support.odd import ACCESSION, MALFORMED, WELL_FORMED, as_it_is, odd_study, sent
from tests.support.ports import free_ports
from tests.support.service import config, read_disc, running_service, settings

ALL = MALFORMED | WELL_FORMED
FRAGMENTS = "fragments without a delimiter"


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
def test_a_relay_sends_it_as_it_came(tool: str, tmp_path: Path) -> None:
    study, uids = odd_study(tmp_path / "held", ALL)
    (port,) = free_ports(1)
    to = {"relay": {"ae_title": "ANY-SCP", "host": "127.0.0.1", "port": port, "tool": tool}}
    arrived = tmp_path / "arrived"
    with (
        tools.running_storescp("ANY-SCP", port, arrived, tmp_path / "destination.log"),
        holding(tmp_path, destinations=to) as installation,
    ):
        assert relay(installation, Order((ACCESSION,), "test"), "relay", Cancellation()).delivery.sent == len(
            study.files
        )
        (job,) = installation.ledger.list_jobs()
        assert (job["malformed"], job["files_sent"], job["files_failed"]) == (len(MALFORMED), len(study.files), 0)
    malformed = {uids[kind] for kind in MALFORMED}
    came = as_it_is(arrived.iterdir())
    assert came.keys() == sent(study).keys()
    assert {uid: came[uid] for uid in malformed} == {uid: sent(study)[uid] for uid in malformed}


def test_a_destination_that_takes_none_of_it_is_told_which(tmp_path: Path) -> None:
    study, uids = odd_study(tmp_path / "held", {"x": MALFORMED["a VR of ??"], "fragments": MALFORMED[FRAGMENTS]})
    (port,) = free_ports(1)
    to = {"relay": {"ae_title": "ANY-SCP", "host": "127.0.0.1", "port": port}}
    plain = ("/usr/bin/storescp", "-v", "--fork", "+B", "-od", tmp_path, str(port))
    with (
        tools.listening(plain, port, tmp_path / "destination.log"),
        holding(tmp_path, destinations=to) as installation,
        pytest.raises(errors.RelayFailed) as failed,
    ):
        relay(installation, Order((ACCESSION,), "test"), "relay", Cancellation())
    assert (failed.value.fields["files_sent"], failed.value.fields["files_failed"]) == (len(study.files) - 1, 1)
    assert uids["fragments"] in failed.value.detail


def test_the_jobs_page_and_the_api_tell_it(tmp_path: Path) -> None:
    study, uids = odd_study(tmp_path / "held", {"x": MALFORMED["a VR of ??"]})
    port, receiver, web = free_ports(3)
    configuration = settings(tmp_path, port, {"RECEIVER": receiver})
    job_id = "9d0f4cb9-8b5a-4b6a-8f0e-3a3f6c1f9d11"
    with (
        running_archive(port, {"RECEIVER": receiver}, tmp_path / "held"),
        running_service(tmp_path, web, configuration) as service,
    ):
        assert service.get(f"/mkiso.php?accession_number={ACCESSION}&job={job_id}").ok
        tools.wait_until(lambda: service.get(f"/api/jobs/{job_id}").json()["finished_at"] is not None, 10, str)
        assert service.get(f"/api/jobs/{job_id}").json()["malformed"] == 1
        page = service.get(f"/jobs/{job_id}", headers={"Accept": "text/html"}).text
    rows = [row for row in page.split("<tr>")[1:] if "not well-formed in the archive itself" in row]
    assert [uids["x"] in row for row in rows] == [True]
    assert all(file.stem in page for file in study.files)
