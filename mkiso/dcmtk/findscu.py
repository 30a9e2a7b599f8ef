"""findscu: C-FIND in the Study Root model (PS3.4 C.4.1, C.6.2).

Its exit status is 0 for failure statuses, timeouts and aborts too: only the final response counts. The answers to a
query for names are read as data sets, which is right for every character set; lists of UIDs as one XML file, which is
fast.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from mkiso.accession import LONGEST_UID, SHOWN, uid_fault
from mkiso.dcmtk.association import (
    SMALL_DICTIONARY,
    Failure,
    Peer,
    association_argv,
    association_error,
    association_failure,
    attempts,
    error_text,
    silent_error,
)
from mkiso.dicom.datasets import PADDING, UTF8, Unreadable, read, texts
from mkiso.errors import PacsRejected, PacsTimeout
from mkiso.process import ToolTimeout, read_log, run

FINDSCU = "findscu"
FINAL = re.compile(r"^I: Received Final Find Response \((.*)\)", re.M)
PENDING = re.compile(r"^I: Received Find Response (\d+) \(", re.M)
TIMED_OUT = re.compile(r"^E: Find (?:Request|SCU) Failed: .*timeout", re.M)
# Asked for in every query: some archives tell how they encode an answer only where they are asked (PS3.4 C.2.2.2).
CHARACTER_SET = "SpecificCharacterSet"
STUDY_KEYS = (
    "AccessionNumber",
    "StudyInstanceUID",
    "PatientID",
    "IssuerOfPatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyDescription",
    "ModalitiesInStudy",
    "NumberOfStudyRelatedInstances",
)
SEARCH_KEYS = (*STUDY_KEYS, "NumberOfStudyRelatedSeries")
SERIES_KEYS = ("SeriesNumber", "Modality", "SeriesDescription", "NumberOfSeriesRelatedInstances")
NO_DATA_SET = "receiveDataSetInMemory: dset->read() Failed"
MOST_ANSWERS = 100_000
LARGEST_ANSWER, LARGEST_LISTED = 1 << 16, 1 << 11  # bytes of one, as a data set, and on the average in a list of UIDs
UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
SPACES = f"{PADDING}\n"


Answer = Mapping[str, str]  # the values of an answer, as texts, by their keywords


class QueryRefused(PacsRejected):
    """The association came about, and the query has no answer that can be used."""


class _Enough(Exception):
    """The archive goes on although it was told to end the query."""


@dataclass(frozen=True)
class Finder:
    """A C-FIND SCU: where its program and its archive are; `timeout` in seconds for one query."""

    dcmtk_dir: Path
    pacs: Peer
    timeout: float
    directory: Path
    checkpoint: Callable[[], None] = lambda: None

    def studies(self, accession: str) -> list[Answer]:
        """The answers at STUDY level with exactly this accession number: archives match loosely.

        Behind them others about the same studies, which tell of further patients.
        Raises PacsUnreachable, PacsRejected, PacsTimeout; an empty list means that it knows none.
        """
        answers = self._answers("STUDY", *_asking(STUDY_KEYS, AccessionNumber=accession))
        exact = [one for one in answers if one["AccessionNumber"] == accession]
        uids = {one["StudyInstanceUID"] for one in exact}
        return exact + [
            one for one in answers if one["AccessionNumber"] != accession and one["StudyInstanceUID"] in uids
        ]

    def of_study(self, study_uid: str) -> list[Answer]:
        """The answers at STUDY level about a study, under any accession number. Raises as `studies`."""
        answers = self._answers("STUDY", *_asking(STUDY_KEYS, StudyInstanceUID=study_uid))
        return [one for one in answers if one["StudyInstanceUID"] == study_uid]

    def search(self, most: int, **values: str) -> tuple[list[Answer], bool]:
        """The answers at STUDY level that match these keys, as the archive matches them; whether it had more.

        Of more than `most` it is told to end the query, and these are the first. Raises as `studies`.
        """
        keys = tuple(_asking(SEARCH_KEYS, **values))
        pending = self._ask(_of_level("STUDY", keys), ("-X", "--cancel", str(most + 1)), most)
        return self._read(keys, pending, most), pending > most

    def series(self, study_uid: str) -> list[Answer]:
        """The series of a study, and what the archive says of each. Raises as `studies`."""
        return [one for one in self._series(study_uid, SERIES_KEYS) if one["StudyInstanceUID"] in ("", study_uid)]

    def studies_of_series(self, series_uid: str) -> set[str]:
        """The Study Instance UIDs of a series, from an archive that answers without one (PS3.4 C.4.1.2.2.1)."""
        answers = self._answers("SERIES", "StudyInstanceUID", f"SeriesInstanceUID={series_uid}")
        return {one["StudyInstanceUID"] for one in answers if one["SeriesInstanceUID"] == series_uid}

    def modalities(self, study_uid: str) -> set[str]:
        """The modalities of a study's series, for an archive that leaves ModalitiesInStudy empty."""
        return {one["Modality"] for one in self._series(study_uid)} - {""}

    def instances_of(self, study_uid: str, series_uid: str) -> dict[str, str]:
        """As `instances`, those of one series; an archive may answer with others, too, and may not say whose."""
        answers = dict(self._instances(study_uid, series_uid))
        return {sop: series_uid for sop, series in answers.items() if series in ("", series_uid)}

    def instances(self, study_uid: str, by_series: bool = False) -> dict[str, str]:
        """The SOP Instance UIDs that the archive lists of a study, each with what its series is called.

        Asked at once, which an archive need not answer: then, as where the answers repeat a UID, series
        by series, too (PS3.4 C.4.1.3.1.1); what either lists counts, and counts once. Only the SOP Instance
        UIDs are checked. Raises as `studies`, and PacsRejected where one of them cannot be used.
        """
        try:
            answers = self._instances(study_uid)
        except QueryRefused:
            answers = []
        found = dict(answers)
        is_suspect = len(found) < len(answers)
        if by_series or is_suspect or not found:
            try:
                for sop, series in self._series_by_series(study_uid, bool(answers)):
                    found.setdefault(sop, series)
            except (QueryRefused, PacsTimeout):
                if not answers:
                    raise
        return found

    def sop_classes(self, study_uid: str, series_uids: Iterable[str]) -> dict[str, str]:
        """The SOP Class UID of each instance of these series, "" where the archive does not tell it; none by a query
        that it does not take.
        """
        try:
            images = self._images(study_uid, "", "SOPClassUID")
        except QueryRefused:
            try:
                images = [one for uid in series_uids for one in self._images(study_uid, uid, "SOPClassUID")]
            except QueryRefused:
                return {}
        classes = {one["SOPInstanceUID"]: one["SOPClassUID"] for one in images}
        return {sop: "" if uid_fault(uid) else uid for sop, uid in classes.items()}

    def _series_by_series(self, study_uid: str, is_listed_at_once: bool) -> Iterator[tuple[str, str]]:
        for series_uid in dict.fromkeys(one["SeriesInstanceUID"] for one in self._series(study_uid)):
            why = uid_fault(series_uid)
            if why is None:
                yield from self._instances(study_uid, series_uid)
            elif not is_listed_at_once:
                raise QueryRefused(
                    f"The PACS {self.pacs} does not list the instances of a study at once, and cannot be asked for"
                    f" those of one of its series: the Series Instance UID {named(series_uid)} {why}."
                    " Have the PACS correct it."
                )

    def _series(self, study_uid: str, keys: Sequence[str] = ("Modality",)) -> list[Answer]:
        return self._answers("SERIES", f"StudyInstanceUID={study_uid}", "SeriesInstanceUID", *keys)

    def _instances(self, study_uid: str, series_uid: str = "") -> list[tuple[str, str]]:
        """SOP Instance UID and series of each answer."""
        answers = self._images(study_uid, series_uid)
        return [(one["SOPInstanceUID"], one["SeriesInstanceUID"][:LONGEST_UID]) for one in answers]

    def _images(self, study_uid: str, series_uid: str, *further: str) -> list[Answer]:
        """The UIDs of each instance, and those of these further keys that are UIDs."""
        file = self.directory / "instances.xml"
        of_series = f"SeriesInstanceUID={series_uid}" if series_uid else "SeriesInstanceUID"
        keys = (f"StudyInstanceUID={study_uid}", of_series, "SOPInstanceUID", *further)
        pending = self._ask(_of_level("IMAGE", keys), ("-Xs", file.name))
        is_plain = pending and file.stat().st_size <= (1 + pending) * LARGEST_LISTED
        answers = listed(file.read_bytes()) if is_plain else []
        file.unlink(missing_ok=True)
        if len(answers) != pending or fault(answers, study_uid):  # findscu leaves out what it cannot turn into UTF-8
            answers = self._answers("IMAGE", *keys)
        if why := fault(answers, study_uid):
            raise QueryRefused(f"{why} Have the PACS {self.pacs} correct it: what is asked for and proven is named so.")
        return answers

    def _answers(self, level: str, *keys: str) -> list[Answer]:
        """The answers, each read from a file as a data set."""
        return self._read(keys, self._ask(_of_level(level, keys), ("-X",)))

    def _read(self, keys: Sequence[str], pending: int, most: int = MOST_ANSWERS) -> list[Answer]:
        files = sorted(self.directory.glob("rsp*.dcm"))
        if len(files) < min(pending, most):
            raise QueryRefused(
                f"{pending} answers of the PACS {self.pacs} came, and {len(files)} of them could be read."
                " The others are no data sets: its own log tells how it encodes them."
            )
        for file in files[most:]:
            file.unlink()
        return [self._answer(file, keys) for file in files[:most]]

    def _answer(self, file: Path, keys: Sequence[str]) -> Answer:
        self.checkpoint()
        try:
            if file.stat().st_size > LARGEST_ANSWER:
                raise Unreadable("it is too large")
            return texts(read(file), (key.partition("=")[0] for key in keys))
        except Unreadable as error:
            raise QueryRefused(
                f"An answer of the PACS {self.pacs} cannot be read ({error}). Its own log tells how it encodes it."
            ) from error
        finally:
            file.unlink()

    def _ask(self, keys: tuple[str, ...], output: tuple[str, ...], most: int = MOST_ANSWERS) -> int:
        """How many answers came; of more than `most` it does not matter how they ended."""
        argv = find_argv(self.dcmtk_dir, self.pacs, self.timeout, keys, (*output, "-od", str(self.directory)))
        for _ in attempts(self.pacs, self.checkpoint):
            log = self._run(argv, most)
            if association_failure(log) is not Failure.BUSY:
                break
        return answered(self.pacs, self.timeout, log, most)

    def _run(self, argv: tuple[str, ...], most: int) -> str:
        log, limit = self.directory / "findscu.log", self.pacs.connect_timeout + self.timeout
        try:
            return run(
                argv,
                timeout=limit,
                cwd=self.directory,
                log=log,
                checkpoint=lambda: self._checkpoint(log, most),
                environment=SMALL_DICTIONARY,
            ).stderr
        except ToolTimeout:
            if "I: Association Accepted" not in read_log(log):
                raise silent_error(self.pacs) from None
            raise _too_late(self.pacs, self.timeout) from None
        except _Enough:
            return read_log(log)
        finally:
            log.unlink(missing_ok=True)

    def _checkpoint(self, log: Path, most: int) -> None:
        self.checkpoint()
        came = _answers_by_now(read_log(log))
        if came > MOST_ANSWERS:
            raise PacsRejected(f"The PACS {self.pacs} gave more than {MOST_ANSWERS} answers to one query. Check it.")
        if came > 2 * most:
            raise _Enough


def find_argv(
    dcmtk_dir: Path, pacs: Peer, timeout: float, keys: tuple[str, ...], output: tuple[str, ...]
) -> tuple[str, ...]:
    return (
        *(str(dcmtk_dir / FINDSCU), "-v", "-S"),
        *association_argv(pacs, timeout),
        *(part for key in keys for part in ("-k", key)),
        *output,
        pacs.host,
        str(pacs.port),
    )


def answered(pacs: Peer, timeout: float, log: str, most: int = MOST_ANSWERS) -> int:
    """How many answers came, where the archive ended them with success, or they are more than `most`.

    Else raises what went wrong.
    """
    if error := association_error(pacs, log):
        raise error
    final, came = FINAL.search(log), _answers_by_now(log)
    if came > most or (final is not None and final[1] == "Success"):
        return came
    if TIMED_OUT.search(log):
        raise _too_late(pacs, timeout)
    why = final[1] if final else error_text(log)
    if NO_DATA_SET in log:
        raise QueryRefused(
            f"An answer of the PACS {pacs} is no data set: {why}. Have the PACS correct what it answers."
        )
    raise QueryRefused(
        f"The PACS {pacs} did not answer the query: {why}."
        f" Its own log tells why; check that {pacs.calling} may query it."
    )


def _answers_by_now(log: str) -> int:
    """findscu numbers the answers, so that the last one tells how many came."""
    return max(map(int, PENDING.findall(log)), default=0)


def _of_level(level: str, keys: Iterable[str]) -> tuple[str, ...]:
    """Where a key is not ASCII, all go in UTF-8, and the query says so (PS3.4 C.4.1.1.3)."""
    asked = (f"QueryRetrieveLevel={level}", *keys)
    return (CHARACTER_SET if all(map(str.isascii, asked)) else f"{CHARACTER_SET}={UTF8}", *asked)


def _asking(keys: Iterable[str], **values: str) -> Iterator[str]:
    return (f"{key}={values[key]}" if key in values else key for key in keys)


def listed(xml: bytes) -> list[Answer]:
    """The answers in findscu's list; none where it is not well-formed, which is by what the archive answered."""
    try:
        answers = list(ElementTree.fromstring(xml))  # noqa: S314  (written by findscu; expat refuses entity bombs)
    except (ElementTree.ParseError, LookupError, ValueError):
        return []
    values = [{element.get("name"): (element.text or "").strip(SPACES) for element in answer} for answer in answers]
    return [{key: value.get(key, "") for key in UIDS} for value in values]


def fault(answers: Sequence[Answer], study_uid: str) -> str | None:
    """Why these answers are no list of a study's instances; None where they are one, of whichever series."""
    for answer in answers:
        sop, study = answer["SOPInstanceUID"], answer["StudyInstanceUID"]
        if why := uid_fault(sop):
            return f"The PACS lists an instance whose SOP Instance UID {named(sop)} {why}."
        if study not in ("", study_uid):
            return f"The PACS, asked for the study {study_uid}, lists an instance of another: {named(study)}."
    return None


def named(uid: str) -> str:
    """A UID that may be none, as an error's text can hold it."""
    return ascii(uid[:SHOWN]) + ("…" if len(uid) > SHOWN else "")


def _too_late(pacs: Peer, timeout: float) -> PacsTimeout:
    return PacsTimeout(f"The PACS {pacs} did not finish a query in {timeout:g} s (retrieve.query_timeout).")
