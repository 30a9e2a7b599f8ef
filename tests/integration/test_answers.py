"""Archives whose answers are odd: a disc where its instances can be proven, and else words that tell what is wrong."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mkiso import errors
from mkiso.installation import Installation
from mkiso.job import Order, make_disc
from mkiso.waiting import Cancellation
from tests.support.answers import LONG
from tests.support.archive import running_archive
from tests.support.datasets import Patient
from tests.support.ports import free_ports
from tests.support.service import config, instances_of, instances_on, read_disc
from tests.support.studies import RICHARD, Study, ct_study

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
SIX, UMLAUT = "SIX.001", "UML.001"


@dataclass(frozen=True)
class Held:
    root: Path
    six: Study
    umlaut: Study


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Held:
    root = tmp_path_factory.mktemp("held")
    umlaut = Patient("ÄÖ-7", "MÜLLER^JÖRG", character_set="ISO_IR 192")
    for number, (born, sex) in enumerate((("19500101", "M"), ("19900101", "M"), ("19500101", "F")), 1):
        ct_study(root, Patient("", "UNKNOWN^UNKNOWN", born, sex), f"UNK.{number}")
    return Held(root, ct_study(root, RICHARD, SIX, count=6), ct_study(root, umlaut, UMLAUT))


@dataclass(frozen=True)
class Before:
    """An installation before an archive of one behaviour."""

    installation: Installation
    directory: Path

    def disc(self, accession: str = SIX) -> tuple[str, dict[str, bytes]]:
        """Its file's name, and the instances on it."""
        disc = make_disc(self.installation, Order((accession,), "test"), Cancellation())
        iso = b"".join(disc)
        disc.close()
        return disc.file_name, instances_on(read_disc(iso, self.directory / "disc"))

    def refusal(self, *accessions: str) -> errors.MkisoError:
        with pytest.raises(errors.MkisoError) as caught:
            make_disc(self.installation, Order(accessions or (SIX,), "test"), Cancellation())
        return caught.value


Start = Callable[..., Any]


@pytest.fixture
def before(held: Held, tmp_path: Path) -> Start:
    @contextmanager
    def start(behaviour: str, **options: object) -> Iterator[Before]:
        port, receiver = free_ports(2)
        settings = config(tmp_path, port, {"RECEIVER": receiver})
        with running_archive(port, {"RECEIVER": receiver}, held.root, behaviour, **options):
            installation = Installation(settings)
            yield Before(installation, tmp_path)
            installation.ledger.close()

    return start


@pytest.mark.parametrize(
    "behaviour",
    [
        *("repeats", "each-twice", "each-twice-no-series", "counts-more", "counts-more-no-series"),
        *("series-missing", "series-empty", "series-long", "series-prefixed", "instance-spaced"),
        *("charset-nul", "charset-nonsense", "charset-undefined", "charset-utf-7", "name-garbled"),
    ],
)
def test_a_disc_is_whole_whatever_else_the_answers_hold(behaviour: str, before: Start, held: Held) -> None:
    with before(behaviour) as it:
        assert it.disc()[1] == instances_of([held.six])


def test_a_list_that_is_cut_at_once_and_not_by_series_is_whole(before: Start, held: Held) -> None:
    with before("cut-whole-studies", n=2) as it:
        assert it.disc()[1] == instances_of([held.six])


def test_names_are_right_where_an_archive_tells_its_character_set_only_if_it_is_asked(
    before: Start, held: Held
) -> None:
    with before("charset-if-asked") as it:
        assert it.disc(UMLAUT)[1] == instances_of([held.umlaut])
        (job,) = it.installation.ledger.list_jobs(limit=1)
        assert (job["patient_name"], job["patient_id"]) == ("JÖRG MÜLLER", "ÄÖ-7")


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        ("instance-long", f"SOP Instance UID '{LONG[:80]}'… has 84 characters, and 64 are allowed"),
        ("instance-prefixed", "SOP Instance UID 'LOCALIZER1.2.3' has 'LOCAIZER' in it"),
        ("study-prefixed", "Study Instance UID 'STUDY1.2.3' has 'STUDY' in it"),
    ],
)
def test_a_uid_that_cannot_be_used_is_named_with_the_reason(behaviour: str, said: str, before: Start) -> None:
    with before(behaviour) as it:
        refusal = it.refusal()
        assert refusal.code == "pacs_rejected"
        assert said in refusal.detail


@pytest.mark.parametrize("other", ["UNK.2", "UNK.3"])
def test_patients_without_an_id_are_told_apart_by_birth_date_and_sex(other: str, before: Start) -> None:
    with before("normal") as it:
        refusal = it.refusal("UNK.1", other)
        assert (refusal.code, refusal.fields) == ("several_patients", {"patients": 2})


def test_answers_that_are_no_data_sets_are_said_to_be(before: Start) -> None:
    with before("no-data-set") as it:
        refusal = it.refusal()
        assert refusal.code == "pacs_rejected"
        assert "An answer of the PACS ABPACS at 127.0.0.1" in refusal.detail
        assert "is no data set" in refusal.detail
