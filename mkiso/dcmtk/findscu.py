"""findscu: C-FIND in the Study Root model (PS3.4 C.4.1, C.6.2).

Its exit status is 0 for failure statuses, timeouts and aborts too: only the final response counts. The
answers to a query for names are read as data sets, which is right for every character set; lists
of UIDs as one XML file, which is fast.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from pydicom import Dataset, dcmread

from mkiso.dcmtk.association import Failure, Peer, association_argv, association_failure, attempts, words
from mkiso.dcmtk.pacs import PacsBusy, association_error, silent_error
from mkiso.errors import PacsRejected, PacsTimeout
from mkiso.process import ToolTimeout, run, said

FINAL = re.compile(r"^I: Received Final Find Response \((.*)\)", re.M)
PENDING = re.compile(r"^I: Received Find Response (\d+) \(", re.M)
TIMED_OUT = re.compile(r"^E: Find (?:Request|SCU) Failed: .*timeout", re.M)
STUDY_KEYS = (
    "AccessionNumber",
    "StudyInstanceUID",
    "PatientID",
    "IssuerOfPatientID",
    "PatientName",
    "PatientBirthDate",
    "StudyDate",
    "StudyDescription",
    "ModalitiesInStudy",
)
MOST_ANSWERS = 100_000
UID = re.compile(r"(?=.{1,64}$)[0-9]+(\.[0-9]+)*")


@dataclass(frozen=True)
class Finder:
    """A C-FIND SCU: where its program and its archive are; `timeout` in seconds for one query."""

    dcmtk_dir: Path
    pacs: Peer
    timeout: float
    directory: Path
    check: Callable[[], None] = lambda: None

    def studies(self, accession: str) -> list[Dataset]:
        """The answers at STUDY level with exactly this accession number: archives match loosely.

        Raises PacsUnreachable, PacsRejected, PacsTimeout; an empty list means that it knows none.
        """
        keys = tuple(f"{key}={accession}" if key == "AccessionNumber" else key for key in STUDY_KEYS)
        answers = self._datasets(("QueryRetrieveLevel=STUDY", *keys))
        return [answer for answer in answers if _accession(answer) == accession]

    def modalities(self, study_uid: str) -> set[str]:
        """The modalities of a study's series, for an archive that leaves ModalitiesInStudy empty."""
        return {str(one.get("Modality") or "") for one in self._series(study_uid)} - {""}

    def instances(self, study_uid: str) -> dict[str, str]:
        """The SOP Instance UIDs that the archive holds of a study, each with its Series Instance UID.

        Asked at once, which an archive need not answer: then series by series (PS3.4 C.4.1.3.1.1).
        Raises as `studies`, and PacsRejected where an answer's UIDs are none.
        """
        try:
            found = self._instances(study_uid)
        except PacsBusy:
            raise
        except PacsRejected:
            found = {}
        return found or self._series_by_series(study_uid)

    def _series_by_series(self, study_uid: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for series in self._series(study_uid):
            series_uid = str(series.get("SeriesInstanceUID") or "")
            if not UID.fullmatch(series_uid):
                raise PacsRejected("The PACS answered with a series that has no valid Series Instance UID.")
            found |= self._instances(study_uid, f"={series_uid}")
        return found

    def _series(self, study_uid: str) -> list[Dataset]:
        keys = ("QueryRetrieveLevel=SERIES", f"StudyInstanceUID={study_uid}", "SeriesInstanceUID", "Modality")
        return list(self._datasets(keys))

    def _instances(self, study_uid: str, series: str = "") -> dict[str, str]:
        answers = self.directory / "instances.xml"
        of_study = ("QueryRetrieveLevel=IMAGE", f"StudyInstanceUID={study_uid}")
        keys = (*of_study, f"SeriesInstanceUID{series}", "SOPInstanceUID")
        pending = self._ask(keys, ("-Xs", answers.name))
        found = instance_uids(answers.read_bytes(), study_uid) if pending else []
        answers.unlink(missing_ok=True)
        if len(found) != pending:  # findscu leaves answers out whose character set it cannot turn into UTF-8
            found = [uids for answer in self._datasets(keys) if (uids := _uids(answer, study_uid))]
        if len(found) != pending:
            raise PacsRejected(
                f"{pending - len(found)} of {pending} answers of the PACS at IMAGE level have no valid UIDs."
            )
        return dict(found)

    def _datasets(self, keys: tuple[str, ...]) -> Iterator[Dataset]:
        """The answers, each as its file is read; all are to be taken before the next query."""
        pending = self._ask(keys, ("-X",))
        files = sorted(self.directory.glob("rsp*.dcm"))
        if len(files) != pending:
            raise PacsRejected(f"{pending} answers of the PACS came, and {len(files)} of them could be read.")
        for file in files:
            self.check()
            answer = dcmread(file)
            file.unlink()
            yield answer

    def _ask(self, keys: tuple[str, ...], output: tuple[str, ...]) -> int:
        argv = find_argv(self.dcmtk_dir, self.pacs, self.timeout, keys, (*output, "-od", str(self.directory)))
        for _ in attempts(self.pacs, self.check):
            stderr = self._run(argv)
            if association_failure(stderr) is not Failure.BUSY:
                break
        return answered(self.pacs, self.timeout, stderr)

    def _run(self, argv: tuple[str, ...]) -> str:
        log, limit = self.directory / "findscu.log", self.pacs.connect_timeout + self.timeout
        try:
            return run(argv, timeout=limit, cwd=self.directory, log=log, check=lambda: self._check(log)).stderr
        except ToolTimeout:
            if "I: Association Accepted" not in said(log):
                raise silent_error(self.pacs) from None
            raise _too_late(self.pacs, self.timeout) from None
        finally:
            log.unlink(missing_ok=True)

    def _check(self, log: Path) -> None:
        self.check()
        if _answers_by_now(said(log)) > MOST_ANSWERS:
            raise PacsRejected(f"The PACS {self.pacs} gave more than {MOST_ANSWERS} answers to one query. Check it.")


def find_argv(
    dcmtk_dir: Path, pacs: Peer, timeout: float, keys: tuple[str, ...], output: tuple[str, ...]
) -> tuple[str, ...]:
    return (
        str(dcmtk_dir / "findscu"),
        "-v",
        "-S",
        *association_argv(pacs, timeout),
        *(part for key in keys for part in ("-k", key)),
        *output,
        pacs.host,
        str(pacs.port),
    )


def answered(pacs: Peer, timeout: float, stderr: str) -> int:
    """How many answers came, where the archive ended them with success; else raises what went wrong."""
    if error := association_error(pacs, stderr):
        raise error
    final = FINAL.search(stderr)
    if final is not None and final[1] == "Success":
        return _answers_by_now(stderr)
    if TIMED_OUT.search(stderr):
        raise _too_late(pacs, timeout)
    why = final[1] if final else words(stderr)
    raise PacsRejected(
        f"The PACS {pacs} did not answer the query: {why}."
        f" Its own log tells why; check that {pacs.calling} may query it."
    )


def _answers_by_now(stderr: str) -> int:
    """findscu numbers the answers, so that the last one tells how many came."""
    return max(map(int, PENDING.findall(stderr)), default=0)


def _accession(answer: Dataset) -> str:
    return str(answer.get("AccessionNumber") or "").strip(" \0")


def instance_uids(xml: bytes, study_uid: str) -> list[tuple[str, str]]:
    """(SOP Instance UID, Series Instance UID) of each answer that holds valid UIDs and is of that study."""
    try:
        answers = list(ElementTree.fromstring(xml))  # noqa: S314  (written by findscu; expat refuses entity bombs)
    except ElementTree.ParseError:
        return []
    values = [{element.get("name", ""): element.text for element in answer} for answer in answers]
    return [uids for value in values if (uids := _uids(value, study_uid))]


def _uids(answer: Dataset | Mapping[str, str | None], study_uid: str) -> tuple[str, str] | None:
    study, sop, series = (
        str(answer.get(key) or "").strip(" \0\n") for key in ("StudyInstanceUID", "SOPInstanceUID", "SeriesInstanceUID")
    )
    valid = UID.fullmatch(sop) and UID.fullmatch(series) and study in ("", study_uid)
    return (sop, series) if valid else None


def _too_late(pacs: Peer, timeout: float) -> PacsTimeout:
    return PacsTimeout(f"The PACS {pacs} did not finish a query in {timeout:g} s (retrieve.query_timeout).")
