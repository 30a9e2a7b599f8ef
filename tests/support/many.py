"""An archive of very many studies that answers at once: an index in memory, and nothing that could be moved."""

import argparse
import os
import signal
import sys
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import islice
from pathlib import Path

from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind, Verification

from tests.support.moves import CANCELLED, PENDING, send_at_once
from tests.support.tools import LOCALHOST, listening

OF_ONE = 4  # studies of a patient
FIRST = date(2020, 1, 1)
DAYS = 2_000
LAST = chr(0x10FFFF)
GIVEN = ("BUDI", "DEWI", "SITI", "AGUS", "RINA", "JOKO", "SRI", "ANI", "HADI", "YUNI", "TONO", "WATI")
FAMILY = ("SANTOSO", "LESTARI", "WIJAYA", "SUSANTO", "PUTRI", "HIDAYAT", "NUGROHO", "SARI", "GUNAWAN", "UTAMI")
MODALITIES = ("CT", "MR", "US", "CR")
NOBODY_ELSE = ("KUSUMA^BUDI", "P0000000")  # has the first studies
Row = tuple[str, str, str, str, int]  # name, patient ID, date, modality, number


def rows(studies: int) -> Iterator[Row]:
    """A study each, whose patients have names of three parts, of which the last tells them apart."""
    for number in range(studies):
        patient = number // OF_ONE
        name = f"{FAMILY[patient % 10]}^{GIVEN[patient // 10 % 12]}^{patient:06}" if patient else NOBODY_ELSE[0]
        day = FIRST + timedelta(days=number * 7919 % DAYS)
        yield name, f"P{patient:07}", f"{day:%Y%m%d}", MODALITIES[number % 4], number


class Index:
    """Finds by the beginning of a name, whatever its capitals, by a patient ID or by days, and looks at no other."""

    def __init__(self, studies: int) -> None:
        self._rows = list(rows(studies))
        self._names = sorted((row[0].casefold(), row[4]) for row in self._rows)
        self._days = sorted((row[2], row[4]) for row in self._rows)
        self._ids: dict[str, list[int]] = {}
        for row in self._rows:
            self._ids.setdefault(row[1], []).append(row[4])

    def find(self, query: Dataset) -> Iterator[Row]:
        name = str(query.get("PatientName") or "").casefold().replace("?", "^")
        patient_id, days = str(query.get("PatientID") or ""), str(query.get("StudyDate") or "")
        modality, (since, _, until) = str(query.get("ModalitiesInStudy") or ""), days.partition("-")
        last = until if "-" in days else since
        for number in self._numbers(name.rstrip("*"), patient_id, since, last):
            row = self._rows[number]
            is_then = not days or since <= row[2] <= (last or LAST)
            is_named = row[0].casefold().startswith(name.rstrip("*"))
            if is_then and is_named and patient_id in ("", row[1]) and modality in ("", row[3]):
                yield row

    def _numbers(self, name: str, patient_id: str, since: str, until: str) -> Iterable[int]:
        if patient_id:
            return self._ids.get(patient_id, [])
        if name:
            return self._between(self._names, name, name + LAST)
        return self._between(self._days, since, (until or LAST) + LAST)

    @staticmethod
    def _between(pairs: Sequence[tuple[str, int]], first: str, last: str) -> Iterator[int]:
        start = bisect_left(pairs, (first, -1))
        return (number for _, number in islice(pairs, start, bisect_left(pairs, (last, -1))))


def _answer(row: Row) -> Dataset:
    name, patient_id, day, modality, number = row
    answer = Dataset()
    answer.SpecificCharacterSet = "ISO_IR 192"
    answer.QueryRetrieveLevel = "STUDY"
    answer.AccessionNumber = f"RAD.{number:06}"
    answer.StudyInstanceUID = f"1.2.826.0.1.3680043.8.498.{number + 1}"
    answer.PatientID, answer.PatientName = patient_id, name
    answer.PatientBirthDate, answer.PatientSex = "19700101", "O"
    answer.StudyDate, answer.StudyDescription = day, "Synthetic study"
    answer.ModalitiesInStudy = modality
    answer.NumberOfStudyRelatedSeries, answer.NumberOfStudyRelatedInstances = 2, 120
    return answer


@dataclass(frozen=True)
class Many:
    """Such an archive that listens."""

    port: int
    asked: Path

    def levels(self) -> list[str]:
        """The level of each query so far, and `cancelled` for each that the asker ended."""
        return self.asked.read_text().split()


@contextmanager
def running_many(directory: Path, port: int, studies: int) -> Iterator[Many]:
    """An archive of so many studies in a process of its own."""
    asked = directory / "asked"
    asked.touch()
    argv = (sys.executable, "-m", "tests.support.many", f"--port={port}", f"--studies={studies}", f"--asked={asked}")
    with listening(argv, port, directory / "many.log"):
        yield Many(port, asked)


def main() -> None:
    parser = argparse.ArgumentParser(prog="many", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--studies", type=int, required=True)
    parser.add_argument("--asked", type=Path, required=True)
    options = parser.parse_args()
    index = Index(options.studies)

    def find(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        with options.asked.open("a") as told:
            told.write(f"{event.identifier.QueryRetrieveLevel}\n")
        for row in index.find(event.identifier):
            if event.is_cancelled:
                with options.asked.open("a") as told:
                    told.write("cancelled\n")
                yield CANCELLED, None
                return
            yield PENDING, _answer(row)

    application = AE("ABPACS")
    for service in (Verification, StudyRootQueryRetrieveInformationModelFind):
        application.add_supported_context(service)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    handlers = [(evt.EVT_C_FIND, find), (evt.EVT_CONN_OPEN, send_at_once)]
    application.start_server((LOCALHOST, options.port), block=False, evt_handlers=handlers)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    main()
    os._exit(0)
