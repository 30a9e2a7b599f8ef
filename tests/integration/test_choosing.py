"""Discs and relays of exactly the studies and series that somebody chose, and the searches by which they are chosen."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import requests
from pydicom import dcmread

from mkiso import errors
from mkiso.config import parse
from mkiso.installation import Installation
from mkiso.job import Order, Relayed, make_disc, relay
from mkiso.retrieve.search import PatientQuery, SearchResult
from mkiso.retrieve.studies import Series
from mkiso.retrieve.studies import Study as FoundStudy
from mkiso.verify.verify import verify
from mkiso.waiting import Cancellation
from tests.support import dcmqrscp, tools
from tests.support.archive import running_archive
from tests.support.datasets import Patient
from tests.support.destination import running_destination
from tests.support.many import running_many
from tests.support.ports import free_ports
from tests.support.service import data_set, instances_on, mkiso, read_disc, running_service, settings
from tests.support.studies import JANE, UTF8, Study, series_study

KUSUMA = Patient("KUS001", "KUSUMA^BUDI", "19710506", "M")
HERS = "OTHER.001"
RECEIVER = "RECEIVER"
# The contract's, and no others.
SERIES_FIELDS = frozenset(
    ("study_instance_uid", "series_instance_uid", "series_number", "modality", "series_description", "instances")
)
OF_PATIENT = ("accession_number", "study_instance_uid", "patient_id", "patient_name", "study_date")
STUDY_FIELDS = frozenset((*OF_PATIENT, "study_description", "modalities", "series", "instances"))


@dataclass(frozen=True)
class Held:
    """Five studies of one patient, of three series each, of which the last has no accession number; and two others."""

    root: Path
    his: tuple[Study, ...]
    hers: Study
    yamada: Study

    @property
    def all(self) -> tuple[Study, ...]:
        return (*self.his, self.hers, self.yamada)


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Held:
    root = tmp_path_factory.mktemp("held")
    his = [series_study(root, KUSUMA, f"KUS.{n}", number=n) for n in range(1, 5)]
    his.append(series_study(root, KUSUMA, "", number=5))
    return Held(root, tuple(his), series_study(root, JANE, HERS), series_study(root, UTF8, "YAMADA.1"))


def series_uids(study: Study) -> list[str]:
    """By their numbers."""
    found = {dcmread(file).SeriesNumber: str(dcmread(file).SeriesInstanceUID) for file in study.files}
    return [found[number] for number in sorted(found)]


def of_series(study: Study, *uids: str) -> dict[str, bytes]:
    """SOP Instance UID to data set of these series."""
    return {file.stem: data_set(file) for file in study.files if dcmread(file).SeriesInstanceUID in uids}


class Counter:
    """An installation in front of an archive, and what comes of an order."""

    def __init__(self, directory: Path, archive: int, receiver: int, **sections: Any) -> None:
        self.directory = directory
        self.configuration = settings(directory, archive, {RECEIVER: receiver}, **sections)
        self._installation = Installation(parse(self.configuration))

    def disc(self, layout: Any = "pdi", **chosen: Any) -> Path:
        """The disc's file, under its own name."""
        order = Order(chosen.pop("accessions", ()), "test", layout, **chosen)
        disc = make_disc(self._installation, order, Cancellation())
        file = self.directory / disc.file_name
        file.write_bytes(b"".join(disc))
        return file

    def relay(self, **chosen: Any) -> Relayed:
        return relay(self._installation, Order((), "test", **chosen), "relay", Cancellation())

    def refusal(self, kind: type[errors.MkisoError], **chosen: Any) -> errors.MkisoError:
        with pytest.raises(kind) as raised:
            self.disc(**chosen)
        assert (self.job()["state"], self.job()["error"]["code"]) == ("failed", kind.code)
        return raised.value

    def job(self) -> dict[str, Any]:
        return self._installation.ledger.list_jobs(limit=1)[0]

    def jobs_of(self, accession: str) -> int:
        return len(self._installation.ledger.list_jobs(accession=accession))

    def search(self, **known: str) -> SearchResult:
        return self._installation.search(PatientQuery.of(known), Cancellation(), str(uuid4()))

    def look_up(self, *numbers: str) -> dict[str, list[FoundStudy]]:
        return self._installation.look_up(numbers, Cancellation(), str(uuid4()))

    def series_of(self, study_uids: Sequence[str]) -> dict[str, list[Series]]:
        return self._installation.series_of(study_uids, Cancellation(), str(uuid4()))

    def close(self) -> None:
        self._installation.ledger.close()


@contextmanager
def counter(
    directory: Path, held: Held, behaviour: str = "normal", sections: dict[str, Any] | None = None, **options: object
) -> Iterator[Counter]:
    """In front of an archive that behaves so."""
    archive, receiver = free_ports(2)
    with running_archive(archive, {RECEIVER: receiver}, held.root, behaviour, **options):
        made = Counter(directory, archive, receiver, **(sections or {}))
        yield made
        made.close()


@pytest.fixture(scope="module")
def at_dcmqrscp(tmp_path_factory: pytest.TempPathFactory, held: Held) -> Iterator[Counter]:
    directory = tmp_path_factory.mktemp("dcmqrscp")
    archive, receiver = free_ports(2)
    argv = dcmqrscp.configure(directory / "pacs", archive, {RECEIVER: receiver})
    dcmqrscp.index(directory / "pacs", (file for study in held.all for file in study.files))
    process = dcmqrscp.start(argv, directory / "pacs", archive)
    try:
        made = Counter(directory, archive, receiver)
        yield made
        made.close()
    finally:
        tools.end(process)


@pytest.fixture(scope="module")
def at_pynetdicom(tmp_path_factory: pytest.TempPathFactory, held: Held) -> Iterator[Counter]:
    with counter(tmp_path_factory.mktemp("pynetdicom"), held) as made:
        yield made


@pytest.fixture(params=["dcmqrscp", "pynetdicom"])
def at_each(request: pytest.FixtureRequest, at_dcmqrscp: Counter, at_pynetdicom: Counter) -> Counter:
    return at_dcmqrscp if request.param == "dcmqrscp" else at_pynetdicom


def good(file: Path) -> bool:
    return all(check.ok for check in verify(file))


def test_two_series_of_a_patient_with_five_studies_are_a_disc_of_these(
    at_each: Counter, held: Held, tmp_path: Path
) -> None:
    first, second = series_uids(held.his[0])[1], series_uids(held.his[1])[2]
    studies = tuple(study.study_uid for study in held.his[:2])
    file = at_each.disc(study_uids=studies, series_uids=(second, first))
    assert good(file)
    assert file.name == "KUSUMABUDI-KUS1KUS2.iso"
    disc = read_disc(file, tmp_path / "disc")
    assert instances_on(disc) == of_series(held.his[0], first) | of_series(held.his[1], second)
    for page in ("INDEX.HTM", "PHONE.HTM", "README.TXT"):
        text = disc[page].read_text()
        assert text.count("1 of 3 series") == 2
        assert "1 of 3 series: 2024-03-01 Synthetic study KUS.1" in text.replace("<wbr/>", "")
    job = at_each.job()
    assert (job["state"], job["series"], job["expected"]) == ("done", sorted((first, second)), 3 + 4)
    assert (job["accessions"], job["studies"]) == (["KUS.1", "KUS.2"], list(studies))
    assert at_each.jobs_of("KUS.2") >= 1


def test_a_study_without_an_accession_number_is_had_by_its_uid_whole(
    at_each: Counter, held: Held, tmp_path: Path
) -> None:
    study = held.his[4]
    file = at_each.disc(study_uids=(study.study_uid,))
    assert good(file)
    assert file.name == "KUSUMABUDI-20240305.iso"
    disc = read_disc(file, tmp_path / "disc")
    assert instances_on(disc) == of_series(study, *series_uids(study))
    assert "of 3 series" not in disc["README.TXT"].read_text()
    assert (at_each.job()["accessions"], at_each.job()["series"]) == ([], None)


def test_a_study_of_which_no_series_is_chosen_is_whole_beside_a_part(
    at_each: Counter, held: Held, tmp_path: Path
) -> None:
    whole, part = held.his[4], held.his[2]
    chosen = series_uids(part)[:2]
    file = at_each.disc("legacy", accessions=("KUS.3",), study_uids=(whole.study_uid,), series_uids=tuple(chosen))
    assert good(file)
    disc = read_disc(file, tmp_path / "disc")
    assert instances_on(disc) == of_series(whole, *series_uids(whole)) | of_series(part, *chosen)
    readme = disc["README.TXT"].read_text()
    assert "2 of 3 series: 2024-03-03 Synthetic study KUS.3" in readme
    assert readme.count("of 3 series") == 1


def test_the_patient_source_is_asked_by_the_number_of_the_study_that_was_found(held: Held, tmp_path: Path) -> None:
    steps = [{"url": "sqlite://", "query": "SELECT 'SOURCE^OF ' || :accession_number AS patient_name"}]
    patients = {"source": "sql", "sql": {"steps": steps}}
    with counter(tmp_path, held, sections={"patients": patients}) as made:
        assert made.disc(study_uids=(held.his[1].study_uid,)).name == "SOURCEOFKUS2-KUS2.iso"
        assert made.disc(study_uids=(held.his[4].study_uid,)).name == "KUSUMABUDI-20240305.iso"


def test_every_series_of_a_study_is_no_part(at_pynetdicom: Counter, held: Held, tmp_path: Path) -> None:
    study = held.his[0]
    file = at_pynetdicom.disc(study_uids=(study.study_uid,), series_uids=tuple(series_uids(study)))
    disc = read_disc(file, tmp_path / "disc")
    assert instances_on(disc) == of_series(study, *series_uids(study))
    assert "of 3 series" not in disc["INDEX.HTM"].read_text()


def test_what_the_archive_does_not_know_is_named(at_each: Counter, held: Held) -> None:
    study, others = held.his[0].study_uid, series_uids(held.his[1])[0]
    refused = at_each.refusal(errors.SeriesNotFound, study_uids=(study,), series_uids=(others,))
    assert others in refused.detail
    assert "1.2.3.4" in at_each.refusal(errors.StudyNotFound, study_uids=(study, "1.2.3.4")).detail
    assert at_each.job()["expected"] is None


def test_series_alone_are_of_the_study_that_the_archive_names(at_each: Counter, held: Held, tmp_path: Path) -> None:
    chosen = series_uids(held.his[3])[0]
    disc = read_disc(at_each.disc(series_uids=(chosen,)), tmp_path / "disc")
    assert instances_on(disc) == of_series(held.his[3], chosen)


def test_an_archive_that_tells_no_study_of_a_series_needs_the_study_too(held: Held, tmp_path: Path) -> None:
    chosen = series_uids(held.his[3])[0]
    with counter(tmp_path, held, "no-relations") as made:
        assert "study_uids" in made.refusal(errors.SeriesNotFound, series_uids=(chosen,)).detail
        made.disc(study_uids=(held.his[3].study_uid,), series_uids=(chosen,))


def test_a_disc_is_for_one_patient_however_it_is_chosen(at_each: Counter, held: Held) -> None:
    both = (held.his[0].study_uid, held.hers.study_uid)
    chosen = (series_uids(held.his[0])[0], series_uids(held.hers)[0])
    at_each.refusal(errors.SeveralPatients, study_uids=both, series_uids=chosen)
    at_each.refusal(errors.SeveralPatients, accessions=(HERS,), study_uids=both[:1])


def test_an_archive_that_sends_whole_studies_brings_nothing_else_onto_the_disc(held: Held, tmp_path: Path) -> None:
    study = held.his[0]
    chosen = series_uids(study)[:2]
    with counter(tmp_path, held, "sends-whole-studies") as made:
        file = made.disc(study_uids=(study.study_uid,), series_uids=tuple(chosen))
    assert good(file)
    assert instances_on(read_disc(file, tmp_path / "disc")) == of_series(study, *chosen)


@pytest.mark.parametrize(
    "behaviour",
    [
        "early",
        "duplicate",
        "breaks-at-the-second",
        "refuses-whole-studies",
        "ignores-whole-studies",
        "cut-whole-studies",
    ],
)
def test_what_is_odd_and_complete_is_a_disc_of_the_series_too(held: Held, tmp_path: Path, behaviour: str) -> None:
    study = held.his[0]
    chosen = series_uids(study)[1:]
    with counter(tmp_path, held, behaviour, n=2) as made:
        file = made.disc(study_uids=(study.study_uid,), series_uids=tuple(chosen))
    assert instances_on(read_disc(file, tmp_path / "disc")) == of_series(study, *chosen)


@pytest.mark.parametrize(
    ("behaviour", "kind", "told"),
    [
        ("refuses-series", errors.PacsRejected, "take the whole study"),
        ("says-no-series", errors.Incomplete, "of another series by their own"),
        ("counts-two-more", errors.Incomplete, "and counted"),
        ("cut", errors.Incomplete, "Its list is cut"),
    ],
)
def test_what_cannot_be_proven_of_a_series_is_no_disc(
    held: Held, tmp_path: Path, behaviour: str, kind: type[errors.MkisoError], told: str
) -> None:
    """Also where another series of the study has come before."""
    study = held.his[0]
    with counter(tmp_path, held, behaviour, n=2) as made:
        refused = made.refusal(kind, study_uids=(study.study_uid,), series_uids=tuple(series_uids(study)[:2]))
    assert told in refused.detail


def test_a_relay_sends_the_chosen_series_alone(held: Held, tmp_path: Path) -> None:
    (port,), study = free_ports(1), held.his[1]
    chosen = series_uids(study)[1]
    to = {"relay": {"ae_title": "DESTINATION", "host": "127.0.0.1", "port": port}}
    with (
        running_destination(port) as destination,
        counter(tmp_path, held, sections={"destinations": to}) as made,
    ):
        done = made.relay(study_uids=(study.study_uid,), series_uids=(chosen,))
        assert (done.delivery.sent, done.accessions) == (3, ("KUS.2",))
        assert (made.job()["files_sent"], made.job()["series"]) == (3, [chosen])
        assert destination.received() == set(of_series(study, chosen))


NAMES: Sequence[tuple[str, Callable[[Held], set[str]]]] = (
    ("kusuma budi", lambda held: {study.study_uid for study in held.his}),
    ("Budi Kusuma", lambda held: {study.study_uid for study in held.his}),
    ("KUSUMA^BUDI", lambda held: {study.study_uid for study in held.his}),
    ("kus", lambda held: {study.study_uid for study in held.his}),
    ("山田", lambda held: {held.yamada.study_uid}),
    ("yamada taro", lambda held: {held.yamada.study_uid}),
    ("usuma", lambda _held: set()),
)


@pytest.mark.parametrize(("name", "found"), NAMES)
def test_a_patient_is_found_by_a_name_as_people_type_it(
    at_dcmqrscp: Counter, held: Held, name: str, found: Callable[[Held], set[str]]
) -> None:
    """dcmqrscp tells capitals apart, and compares the whole of a name."""
    result = at_dcmqrscp.search(patient_name=name)
    assert {study.study_uid for study in result.studies} == found(held)
    assert not result.is_cut


def test_each_study_that_is_found_has_its_modalities_and_counts(at_each: Counter) -> None:
    """dcmqrscp tells none of them at STUDY level."""
    found = at_each.search(patient_name="kusuma").public()
    assert {(*one["modalities"], one["series"], one["instances"]) for one in found} == {("CT", 3, 9)}
    assert len(at_each.search(patient_name="kusuma", modality="CT").studies) == len(found) == 5
    assert at_each.search(patient_name="kusuma", modality="MR").studies == []


def test_answers_that_do_not_meet_what_was_asked_are_left_out(held: Held, tmp_path: Path) -> None:
    with counter(tmp_path, held, "finds-all") as made:
        assert {one.patient_id for one in made.search(patient_name="kusuma").studies} == {"KUS001"}
        assert {one.patient_id for one in made.search(patient_id="pat002").studies} == {"PAT002"}
        assert {one.patient_id for one in made.search(birth_date="1948-08-09").studies} == {"PAT004"}
        days = made.search(**{"patient_name": "kusuma", "from": "20240302", "to": "2024-03-04"}).studies
        assert [one.study_date for one in days] == ["20240304", "20240303", "20240302"]
        assert made.search(**{"from": "20240301", "to": "20240302", "modality": "mr"}).studies == []


def test_a_search_is_one_query_and_of_very_many_answers_it_takes_the_first(tmp_path: Path) -> None:
    archive, receiver, port = free_ports(3)
    with running_many(tmp_path, archive, 8_000) as many:
        configuration = settings(tmp_path, archive, {RECEIVER: receiver})
        with running_service(tmp_path / "service", port, configuration) as service:
            found = service.get("/api/studies?patient_name=KUSUMA").json()
            assert (len(found["studies"]), found["patients"], "cut" in found) == (4, 1, False)
            assert many.levels() == ["STUDY"]
            found = service.get("/api/studies?patient_name=SANTOSO").json()
            assert (len(found["studies"]), found["cut"]) == (200, True)
            assert all(one["patient_name"].endswith("SANTOSO") for one in found["studies"])
            assert many.levels()[1] == "STUDY"
            assert many.levels().count("STUDY") == 2


@pytest.mark.parametrize("most", [3, 5, 6])
def test_an_archive_that_goes_on_is_left_and_a_search_that_just_fits_is_whole(
    at_each: Counter, held: Held, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mkiso.retrieve.search.MOST_FOUND", most)
    result = at_each.search(patient_id=KUSUMA.patient_id)
    assert (len(result.studies), result.is_cut) == (min(most, 5), most < 5)
    assert {one.study_uid for one in result.studies} <= {one.study_uid for one in held.his}


def test_an_archive_that_never_ends_its_answers_is_left(held: Held, tmp_path: Path) -> None:
    with counter(tmp_path, held, "endless-studies") as made:
        result = made.search(patient_name="kusuma")
        assert (len(result.studies), result.is_cut) == (5, True)


def test_a_number_in_small_letters_is_taken_as_the_archive_has_it(at_each: Counter, held: Held) -> None:
    found = at_each.look_up("kus.1", "KUS.2", "nobody.1", "kus.2")
    assert list(found) == ["KUS.1", "KUS.2", "nobody.1"]
    assert [[study.study_uid for study in studies] for studies in found.values()] == [
        [held.his[0].study_uid],
        [held.his[1].study_uid],
        [],
    ]


def test_the_series_of_studies_are_told_by_their_numbers(at_each: Counter, held: Held) -> None:
    uids = [held.his[4].study_uid, held.hers.study_uid]
    told = at_each.series_of(uids)
    assert list(told) == uids
    for study, series in zip((held.his[4], held.hers), told.values(), strict=True):
        assert [one.uid for one in series] == series_uids(study)
        assert [(one.number, one.modality, one.study_uid) for one in series] == [
            (number, "CT", study.study_uid) for number in ("1", "2", "3")
        ]


def test_the_api_tells_the_series_of_studies(at_each: Counter, held: Held, tmp_path: Path) -> None:
    """dcmqrscp counts no instances; what is listed is counted then."""
    studies = (held.his[4], held.hers)
    with running_service(tmp_path, free_ports(1)[0], at_each.configuration) as service:
        query = "/api/series?study_uids=" + ",".join(study.study_uid for study in studies)
        told = service.get(query).json()
        assert list(told) == ["series"]
        assert {frozenset(one) for one in told["series"]} == {SERIES_FIELDS}
        assert [
            (one["study_instance_uid"], one["series_instance_uid"], one["instances"]) for one in told["series"]
        ] == [
            (study.study_uid, series, len(of_series(study, series)))
            for study in studies
            for series in series_uids(study)
        ]
        assert [one["series_number"] for one in told["series"]] == ["1", "2", "3"] * 2
        unknown = service.get(f"{query},1.2.3")
        assert (unknown.status_code, unknown.json()["code"], unknown.json()["study"]) == (
            404,
            "study_not_found",
            "1.2.3",
        )
        head = requests.head(service.url + query + ",1.2.3", timeout=60)
        assert (head.status_code, head.content) == (200, b"")
        for wrong in ("", "?study_uids=", "?study_uids=+", "?study_uids=1..2", "?series_uids=1.2"):
            assert refused(service.get(f"/api/series{wrong}"))


def test_the_api_and_the_commands_take_the_same_choice(held: Held, tmp_path: Path) -> None:
    with counter(tmp_path, held) as made, running_service(tmp_path, free_ports(1)[0], made.configuration) as service:
        found = service.get("/api/studies?patient_name=kusuma").json()
        assert (len(found["studies"]), found["patients"], "cut" in found) == (5, 1, False)
        assert {(one["series"], one["instances"]) for one in found["studies"]} == {(3, 9)}
        study = held.his[4]
        (one,) = service.get(f"/api/studies?study_uids={study.study_uid}").json()["studies"]
        assert (one["accession_number"], one["series"], one["instances"]) == ("", 3, 9)
        for query in (
            "patient_name=ku",
            "patient_name=kus*",
            "patient_name=kus%5C",
            "modality=CT",
            "patient_name=kusuma&study_date=2024-02-30",
            "patient_name=kusuma&study_uids=1.2",
            "study_uids=1..2",
            "study_date=20240302-20240301",
            "study_date=20240301-20240401",
            "study_date=20240301-",
        ):
            assert refused(service.get(f"/api/studies?{query}"))
        assert service.get("/api/studies?patient_name=ku&birth_date=1971-05-06").json()["patients"] == 1
        days = service.get("/api/studies?study_date=2024-03-02-20240304").json()["studies"]
        assert {one["study_date"] for one in days} == {"20240302", "20240303", "20240304"}
        assert {frozenset(one) for one in days} == {STUDY_FIELDS}
        assert service.get("/api/studies?study_uids=1.2").json()["code"] == "study_not_found"
        chosen, file = series_uids(study)[2], tmp_path / "part.iso"
        words = ("--study-uid", study.study_uid, "--series-uid", chosen, "-o", file)
        done = mkiso("iso", "--config", service.config_file, *words)
    assert done.returncode == 0, done.stderr
    assert instances_on(read_disc(file, tmp_path / "disc")) == of_series(study, chosen)


def refused(answer: requests.Response) -> bool:
    return (answer.status_code, answer.json()["code"]) == (400, "bad_request")
