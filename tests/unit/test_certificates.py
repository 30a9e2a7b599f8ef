from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mkiso.config import Tls
from mkiso.dcmtk.storescp import Period, faults, periods, too_open, unusable
from tests.support.certificates import PAST, Authority, Pair

NOW = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki") / "hospital")


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.pair("mkiso")


def files(pair: Pair, **others: Path) -> Tls:
    return Tls(**{"key_file": pair.key, "cert_file": pair.certificate, "ca_file": pair.ca} | others)


def test_files_that_fit_have_no_faults_and_dates(pair: Pair) -> None:
    assert faults(files(pair)) == {}
    assert too_open(files(pair)) == {}
    assert [29 <= (life.end - datetime.now(UTC)).days <= 30 for life in periods(files(pair)).values()] == [True, True]


def test_a_certificate_out_of_date_is_told_with_its_day(authority: Authority) -> None:
    assert faults(files(authority.pair("old", valid=PAST))) == {"cert_file": "expired on 2020-02-01"}


@pytest.mark.parametrize(
    ("begin", "end", "fault"),
    [(-2, -1, "expired on 2026-04-30"), (1, 2, "is not valid before 2026-05-02"), (-1, 1, None)],
)
def test_a_period_is_over_or_not_yet_begun(begin: int, end: int, fault: str | None) -> None:
    assert Period(NOW + timedelta(begin), NOW + timedelta(end)).fault(NOW) == fault


def test_every_file_that_is_not_there_is_told(pair: Pair, tmp_path: Path) -> None:
    absent = files(pair, key_file=tmp_path / "key", ca_file=tmp_path / "ca")
    assert faults(absent) == {"key_file": "is missing", "ca_file": "is missing"}
    assert too_open(absent) == {}


def test_a_ca_file_with_an_old_and_a_new_ca_is_good_as_long_as_the_new_one(
    authority: Authority, pair: Pair, tmp_path: Path
) -> None:
    newer = Authority(tmp_path / "newer")
    both = tmp_path / "both.pem"
    both.write_bytes(authority.certificate.read_bytes() + newer.certificate.read_bytes())
    assert faults(files(pair, ca_file=both)) == {}


def test_a_certificate_that_only_clients_may_show_is_refused_by_peers(authority: Authority) -> None:
    client = authority.pair("client", usage="clientAuth")
    assert faults(files(client)) == {"cert_file": "is refused by peers (unsuitable certificate purpose)"}


@pytest.mark.parametrize(("name", "mode"), [("ca_file", 0o666), ("cert_file", 0o664), ("key_file", 0o604)])
def test_a_file_that_others_may_change_or_a_key_that_they_may_read_is_too_open(
    name: str, mode: int, pair: Pair, tmp_path: Path
) -> None:
    opened = tmp_path / "opened"
    opened.write_bytes(getattr(files(pair), name).read_bytes())
    opened.chmod(mode)
    assert too_open(files(pair, **{name: opened})) == {name: f"is open to others (mode {mode:04o})"}


def test_a_file_that_this_user_may_not_read_is_told(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refused)
    assert unusable(files(pair))["key_file"] == "cannot be read (Permission denied)"


def test_a_certificate_out_of_date_can_still_be_used(authority: Authority) -> None:
    assert unusable(files(authority.pair("stale", valid=PAST))) == {}
