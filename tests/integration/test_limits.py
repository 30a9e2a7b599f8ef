"""What the host or the configuration does not allow: receivers, disk, size, files that genisoimage leaves out."""

import os
import re
import socket
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from mkiso import errors
from mkiso.config import parse
from mkiso.disc.product import Format
from mkiso.errors import MkisoError
from mkiso.installation import Installation
from mkiso.job import Order, make_disc
from mkiso.ledger import experience
from mkiso.retrieve.receiver import lock_file
from mkiso.waiting import Cancellation
from mkiso.web.server import serve
from mkiso.workspace import held
from tests.integration.conftest import Site
from tests.support import service
from tests.support.archive import running_archive
from tests.support.ports import free_ports
from tests.support.studies import RICHARD, ct_study


def refusal(installation: Installation, kind: type[MkisoError], chosen: Format = "iso") -> Any:
    with pytest.raises(kind) as caught:
        make_disc(installation, Order(("CT.001",), "test", format=chosen), Cancellation())
    installation.ledger.close()
    return caught.value


def test_a_receivers_port_that_is_taken_is_told_in_storescps_words(site: Site) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("", site.pacs.ae_titles["CDRECORD"]))
        other.listen()
        error = refusal(Installation(site.config()), errors.ReceiverUnavailable)
    assert "Address already in use" in error.detail


def test_a_receiver_program_that_dies_at_once_is_told(site: Site, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("findscu", "movescu"):
        (tools / name).symlink_to(f"/usr/bin/{name}")
    (tools / "storescp").write_text("#!/bin/sh\necho 'F: cannot start today' >&2; exit 1\n")
    (tools / "storescp").chmod(0o755)
    error = refusal(Installation(site.config(tools={"dcmtk_dir": str(tools)})), errors.ReceiverUnavailable)
    assert "cannot start today" in error.detail


def test_a_missing_program_is_an_internal_error_that_names_it(site: Site, tmp_path: Path) -> None:
    error = refusal(Installation(site.config(tools={"dcmtk_dir": str(tmp_path)})), errors.Internal)
    assert "findscu" in error.detail
    assert str(tmp_path) not in error.detail


def test_waiting_for_a_receiver_has_an_end(site: Site) -> None:
    config = site.config(retrieve={"queue_timeout": 0.2})
    installation = Installation(config)
    config.storage.work_dir.mkdir(mode=0o700)
    with held(lock_file(config.storage.work_dir, config.receivers[0])):
        refusal(installation, errors.Busy)


def test_the_second_receiver_serves_while_the_first_is_taken(site: Site) -> None:
    settings = site.settings()
    settings["receivers"] = [{"ae_title": title, "port": port} for title, port in site.pacs.ae_titles.items()]
    config = parse(settings)
    installation = Installation(config)
    config.storage.work_dir.mkdir(mode=0o700)
    with held(lock_file(config.storage.work_dir, config.receivers[0])):
        disc = make_disc(installation, Order(("SR.001",), "test"), Cancellation())
        assert sum(map(len, disc)) == disc.size
    installation.ledger.close()


def test_a_disc_above_the_limit_is_refused_before_a_byte(site: Site) -> None:
    error = refusal(Installation(site.config(media={"max_size": "1MB"})), errors.DiscTooLarge)
    assert error.fields["limit"] == 1_000_000 < error.fields["size"]
    assert "Tick fewer studies or series, or ask for a ZIP" in error.detail


def test_a_disc_that_will_hardly_fit_is_refused_before_anything_is_moved(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experience, "ENOUGH", 1)
    first, order = Installation(site.config()), Order(("CT.001",), "test")
    disc = make_disc(first, order, Cancellation())
    assert sum(map(len, disc)) == disc.size
    made = first.ledger.history.instances(order.job_id, "", 1000)
    first.ledger.close()
    installation, again = Installation(site.config(media={"max_size": "1MB"})), Order(("CT.001",), "test")
    with pytest.raises(errors.DiscTooLarge, match=r"nothing was retrieved.*Tick fewer studies or series") as caught:
        make_disc(installation, again, Cancellation())
    assert caught.value.fields == {"size": sum(one["bytes"] for one in made), "limit": 1_000_000}
    assert {one["modality"] for one in made} == {"CT"}
    job = installation.ledger.job(again.job_id)
    assert (job["state"], job["received"], job["seconds"].get("verifying")) == ("failed", 0, None)
    make_disc(installation, Order(("CT.001",), "test", format="zip"), Cancellation()).close()
    installation.ledger.close()


def test_a_zip_has_no_limit_and_needs_no_medium(site: Site) -> None:
    installation = Installation(site.config(media={"max_size": "1MB"}))
    order = Order(("CT.001",), "test", format="zip")
    disc = make_disc(installation, order, Cancellation())
    assert sum(map(len, disc)) == disc.size > 1_000_000
    assert installation.ledger.job(order.job_id)["medium"] is None
    installation.ledger.close()


def test_too_little_free_space_is_told_before_anything_is_asked(site: Site) -> None:
    settings = site.settings()
    settings["storage"]["min_free"] = "900TB"
    assert "storage.min_free" in refusal(Installation(parse(settings)), errors.DiskFull).detail


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB, which needs root."""
    directory = tmp_path / "small"
    directory.mkdir()
    subprocess.run(("mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", directory), check=True)
    yield directory
    subprocess.run(("umount", directory), check=True)


@pytest.mark.parametrize("min_free", ["1MB", 0])
def test_a_disk_that_fills_while_the_instances_come_is_told(min_free: Any, site: Site, small_disk: Path) -> None:
    settings = site.settings()
    settings["storage"] |= {"work_dir": str(small_disk / "work"), "min_free": min_free}
    refusal(Installation(parse(settings)), errors.DiskFull)
    assert list((small_disk / "work").glob("dicomdir_*")) == []


@pytest.mark.parametrize("left", [0, 4, 8, 12, 20, 32, 40])
def test_a_disk_with_next_to_nothing_left_is_full(left: int, site: Site, small_disk: Path) -> None:
    settings = site.settings()
    settings["storage"] |= {"work_dir": str(small_disk / "work"), "min_free": 0}
    installation = Installation(parse(settings))
    installation.sweep()
    filled = os.statvfs(small_disk)
    (small_disk / "filled").write_bytes(bytes(filled.f_bavail * filled.f_frsize - left * 1024))
    refusal(installation, errors.DiskFull)
    assert list((small_disk / "work").glob("dicomdir_*")) == []


@pytest.mark.parametrize("behaviour", ["endless-studies", "endless-instances"])
def test_a_query_of_endless_answers_leaves_what_is_kept_free(behaviour: str, tmp_path: Path, small_disk: Path) -> None:
    port, receiver = free_ports(2)
    ct_study(tmp_path / "held", RICHARD, "CT.001")
    settings = service.settings(tmp_path, port, {"RECEIVER": receiver}, retrieve={"query_timeout": 3600})
    settings["storage"] |= {"work_dir": str(small_disk / "work"), "min_free": "2600kB"}
    with running_archive(port, {"RECEIVER": receiver}, tmp_path / "held", behaviour):
        assert "storage.min_free" in refusal(Installation(parse(settings)), errors.DiskFull).detail


@pytest.mark.parametrize("chosen", ["iso", "zip"])
def test_a_viewer_file_that_would_be_left_out_fails_the_disc(chosen: Format, site: Site, tmp_path: Path) -> None:
    viewer = tmp_path / "viewer"
    viewer.mkdir()
    (viewer / "gone.exe").symlink_to(tmp_path / "nowhere")
    error = refusal(Installation(site.config(media={"viewer_dir": str(viewer)})), errors.Internal, chosen)
    assert str(tmp_path) not in error.detail
    assert any("gone.exe" in note for note in error.__notes__)
    assert re.fullmatch(r".* This was job [0-9a-f-]{36}\.", error.detail)  # once, as the ledger and an answer have it


@pytest.fixture
def covering(tmp_path: Path) -> dict[str, str]:
    """A viewer that has a file where a disc with the layout pdi has its own."""
    (tmp_path / "viewer").mkdir()
    (tmp_path / "viewer" / "index.htm").touch()
    return {"viewer_dir": str(tmp_path / "viewer")}


def test_a_viewer_that_covers_a_file_of_ours_stops_the_start(site: Site, covering: dict[str, str]) -> None:
    with pytest.raises(errors.ConfigurationError, match=r"index\.htm"):
        serve(site.config(media={"layout": "pdi", **covering}))


def test_a_layout_that_the_viewer_would_cover_is_refused(site: Site, covering: dict[str, str]) -> None:
    installation = Installation(site.config(media=covering))
    with pytest.raises(errors.NotConfigured, match=r"index\.htm"):
        make_disc(installation, Order(("CT.001",), "test", "pdi"), Cancellation())
    installation.ledger.close()


def test_several_patients_share_a_disc_where_that_is_allowed(site: Site) -> None:
    installation = Installation(site.config(patients={"allow_mixed": True}))
    disc = make_disc(installation, Order(("SHARED.001",), "test"), Cancellation())
    assert sum(map(len, disc)) == disc.size
    installation.ledger.close()


def outcomes(directory: Path) -> set[str]:
    """What the ledger says became of the instances of all jobs."""
    with closing(sqlite3.connect(directory / "ledger.db")) as connection:
        return {outcome for (outcome,) in connection.execute("SELECT outcome FROM instances")}


@pytest.mark.parametrize(
    ("chunks", "left"), [(0, set()), (1, {"broken off"}), (None, {"on disc"})], ids=["nothing", "a part", "all"]
)
def test_the_ledger_has_what_left_the_house(chunks: int | None, left: set[str], site: Site) -> None:
    installation = Installation(site.config())
    disc = make_disc(installation, Order(("BENCH.200",), "test"), Cancellation())
    assert outcomes(site.directory) == set()
    assert sum(map(len, islice(disc, chunks))) <= disc.size
    disc.close()
    assert outcomes(site.directory) == left
    installation.ledger.close()


def test_a_disc_that_is_cancelled_while_it_leaves_has_left_in_part(site: Site) -> None:
    installation, cancellation = Installation(site.config()), Cancellation()
    disc = make_disc(installation, Order(("BENCH.200",), "test"), cancellation)
    next(iter(disc))
    cancellation.cancel("Somebody stopped it.")
    with pytest.raises(errors.Cancelled):
        list(disc)
    assert outcomes(site.directory) == {"broken off"}
    installation.ledger.close()
