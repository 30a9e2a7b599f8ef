"""`/api/studies` by patient, at an archive of 100,000 studies that answers at once: `make bench` runs it."""

import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.support.many import running_many
from tests.support.ports import free_ports
from tests.support.service import Service, running_service, settings

STUDIES, REPEAT = 100_000, 15
TARGET = 0.3
QUERIES = {
    "a patient's name, as the archive has it": "patient_name=KUSUMA",
    "the same, as a person types it": "patient_name=budi+kusuma",
    "a name that many have": "patient_name=SANTOSO",
    "a patient ID": "patient_id=P0012345",
    "a name and a date of birth": "patient_name=KUSUMA&birth_date=1970-01-01",
    "a day": "study_date=20220601",
    "a day's CTs": "study_date=20220601&modality=CT",
    "nobody": "patient_name=nobody",
}


def seconds(service: Service, query: str) -> tuple[float, int, bool]:
    """The median of several requests; how many studies were answered, and whether these were all."""
    taken = []
    for _ in range(REPEAT):
        began = time.monotonic()
        answer = service.get(f"/api/studies?{query}")
        taken.append(time.monotonic() - began)
    answer.raise_for_status()
    return statistics.median(taken), len(answer.json()["studies"]), "cut" in answer.json()


def main() -> int:
    archive, receiver, port = free_ports(3)
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/var/tmp") as name:
        directory = Path(name)
        configuration = settings(directory, archive, {"CDRECORD": receiver})
        with (
            running_many(directory, archive, STUDIES) as many,
            running_service(directory / "service", port, configuration) as service,
        ):
            within = True
            for words, query in QUERIES.items():
                before = len(many.levels())
                median, found, is_cut = seconds(service, query)
                queries = sum(level != "cancelled" for level in many.levels()[before:]) / REPEAT
                within &= median < TARGET or is_cut
                more = " of more" if is_cut else ""
                print(f"{words}: {median:.3f} s, {found} studies{more}, {queries:g} queries")
    print(f"each that was answered whole {'within' if within else 'NOT within'} {TARGET} s")
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
