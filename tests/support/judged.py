"""Is every answer right? What a client got, held against the studies, the ledger, and whom nginx asked."""

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mkiso.verify.medium import UnreadableDisc
from mkiso.verify.verify import verify
from tests.support.mixed import MOVING, Answer
from tests.support.service import instances_of, instances_on, read_disc
from tests.support.studies import Study

RIGHT = "right"
AWAY = "502 or 504 of nginx"
TORN = "broken off"
SILENT = "no answer"
# What mkiso tells of a host that is cut off and goes on.
CUT_OFF = {
    "pacs_unreachable",
    "pacs_timeout",
    "incomplete",
    "no_dicom_data",
    "ledger_unavailable",
    "destination_unreachable",
    "relay_failed",
}
ALWAYS_REFUSED = {
    "unknown": "404 accession_not_found",
    "bad": "400 invalid_accession",
    "several": "409 several_patients",
}
REFUSED = ALWAYS_REFUSED | {"cancel": "410 cancelled"}
AWAY_TOLD = {"error": "mkiso does not answer", "code": "internal", "job_id": None}


@dataclass(frozen=True)
class Outage:
    """When the host was away (monotonic): `ended` when it took connections again."""

    began: float
    ended: float

    def meets(self, answer: Answer) -> bool:
        return answer.began < self.ended and answer.ended > self.began


@dataclass(frozen=True)
class Trial:
    """All that was seen: `asked` is whom nginx asked for a request, `other` the host that was away.

    `stored` is how many instances the destination got.
    """

    answers: Sequence[Answer]
    rows: Mapping[str, Mapping[str, Any]]
    asked: Mapping[str, Sequence[str]]
    other: str
    outage: Outage
    studies: Sequence[Study]
    stored: int

    @cached_property
    def verdicts(self) -> list[tuple[Answer, str]]:
        with tempfile.TemporaryDirectory(prefix="judged-") as directory:
            judge = Judge(self.studies, Path(directory))
            return [(answer, judge.verdict(answer)) for answer in self.answers]

    @property
    def excused(self) -> list[tuple[Answer, str]]:
        """What went wrong because the host was away."""
        failed = ((answer, verdict) for answer, verdict in self.verdicts if verdict != RIGHT)
        return [(answer, verdict) for answer, verdict in failed if self._is_excused(answer, verdict)]

    def wrong(self) -> list[str]:
        """A line for each answer and each row that is not as it must be."""
        return [*self._wrong_answers(), *self._asked_twice(), *self._wrong_rows(), *self._wrong_relays()]

    def served(self, since: float = 0.0) -> Counter[str]:
        """Discs and relays that each host did, of those asked for after that moment."""
        done = [answer for answer, verdict in self.verdicts if verdict == RIGHT and answer.began >= since]
        hosts = [self.asked[answer.ask.tag][0] for answer in done if answer.ask.kind in ("disc", "relay")]
        return Counter("second" if host == self.other else "first" for host in hosts)

    def _wrong_answers(self) -> Iterator[str]:
        for answer, verdict in self.verdicts:
            if verdict != RIGHT and not self._is_excused(answer, verdict):
                yield self._told(answer, verdict)

    def _told(self, answer: Answer, verdict: str) -> str:
        ask, since = answer.ask, answer.began - self.outage.began
        row = self.rows.get(ask.tag)
        return (
            f"{ask.kind} {ask.path}: {verdict} after {answer.seconds:.1f} s, asked of {self.asked.get(ask.tag)}"
            f" {since:.1f} s after the outage had begun, row {row}"
        )

    def _is_excused(self, answer: Answer, verdict: str) -> bool:
        """Not what moves nothing, for the other host answers it; nor what a host did that was there; nor a wait."""
        was_away = self.other in self.asked.get(answer.ask.tag, ()) and self.outage.meets(answer)
        known = verdict in (AWAY, TORN) or verdict.rpartition(" ")[2] in CUT_OFF
        return was_away and known and answer.ask.kind not in ("lookup", "page")

    def _asked_twice(self) -> Iterator[str]:
        for answer in self.answers:
            asked = self.asked.get(answer.ask.tag, ())
            if answer.ask.kind in MOVING and len(asked) != 1:
                yield f"{answer.ask.kind} {answer.ask.path}: asked of {asked or 'nobody'}"

    def _wrong_rows(self) -> Iterator[str]:
        jobs = {answer.ask.tag: (answer, verdict) for answer, verdict in self.verdicts if answer.ask.kind in MOVING}
        for job_id, row in self.rows.items():
            if not row["finished_at"]:
                yield f"row {job_id} is unfinished: {row}"
            if job_id not in jobs:
                yield f"row {job_id} is of no request: {row}"
            elif row["accessions"] != list(jobs[job_id][0].ask.accessions):
                yield f"row {job_id} has other accession numbers: {row}"
        for job_id, (answer, verdict) in jobs.items():
            state = self.rows.get(job_id, {}).get("state")
            if verdict == RIGHT and state not in self._ends(answer):
                yield f"its row is {state}: {self._told(answer, verdict)}"

    def _ends(self, answer: Answer) -> tuple[str, ...]:
        """How the row may end of a job of which the client got what is right."""
        kind, on_other = answer.ask.kind, self.other in self.asked[answer.ask.tag]
        if kind in ALWAYS_REFUSED:
            return ("failed",)
        if kind in ("disc", "relay") or (kind == "cancel" and answer.status == 200 and answer.is_whole):
            return ("done",)
        # The client was gone, or the disc broken off, before the job ended: its host may have died meanwhile.
        return ("cancelled", *(("failed",) if on_other else ()), *(("done",) if kind == "leave" else ()))

    def _wrong_relays(self) -> Iterator[str]:
        """Each that was answered arrived once; of the others as much as may be."""
        relays = [(answer, verdict) for answer, verdict in self.verdicts if answer.ask.kind == "relay"]
        least = sum(self._instances(answer) for answer, verdict in relays if verdict == RIGHT)
        most = sum(self._instances(answer) for answer, _ in relays)
        if not least <= self.stored <= most:
            yield f"the destination got {self.stored} instances, not {least} to {most}"

    def _instances(self, answer: Answer) -> int:
        return sum(len(study.files) for study in self.studies if study.accession in answer.ask.accessions)


class Judge:
    """Holds answers against the studies; discs are unpacked below `directory`."""

    def __init__(self, studies: Sequence[Study], directory: Path) -> None:
        self._studies, self._directory, self._count = studies, directory, 0

    def verdict(self, answer: Answer) -> str:
        """RIGHT, or what is wrong with it."""
        kind = answer.ask.kind
        if answer.status is None:
            return answer.content.decode() or SILENT
        if not answer.is_whole:
            return RIGHT if kind == "cancel" else TORN
        if answer.status in (502, 504) and answer.json().items() >= AWAY_TOLD.items():
            return AWAY
        if answer.status != 200 or kind in ALWAYS_REFUSED:
            told = _error(answer)
            return _is(told == REFUSED.get(kind), told)
        return self._of_success(answer)

    def _of_success(self, answer: Answer) -> str:
        told = answer.json()
        right: dict[str, Callable[[], str]] = {
            "disc": lambda: self._disc(answer),
            "cancel": lambda: self._disc(answer),  # it came too late
            "relay": lambda: self._relay(answer),
            "lookup": lambda: _is((told["accessions"], told["state"]) == ([*answer.ask.accessions], "done"), f"{told}"),
            "page": lambda: _page(answer),
            "cancelling": lambda: _is(told.get("accessions") == [*answer.ask.accessions], f"{told}"),
            "leave": lambda: _is(len(answer.content) > 0, "no disc"),
        }
        return right[answer.ask.kind]()

    def _disc(self, answer: Answer) -> str:
        """All instances of the studies that were asked for, and no others, on a disc that `mkiso verify` passes.

        Of the layout legacy that says no more than that it can be read.
        """
        self._count += 1
        file = self._directory / f"{self._count}.disc"
        file.write_bytes(answer.content)
        try:
            failed = [check for check in verify(file) if not check.ok and "layout=legacy" not in answer.ask.path]
        except UnreadableDisc as error:
            return f"disc unreadable: {error}"
        found = instances_on(read_disc(file, self._directory / str(self._count)))
        if found != instances_of(self._of(answer)):
            return f"disc with other instances: {len(found)}"
        return f"disc fails {failed}" if failed else RIGHT

    def _relay(self, answer: Answer) -> str:
        told, count = answer.json(), sum(len(study.files) for study in self._of(answer))
        return _is((told.get("status"), told.get("files_sent")) == ("ok", count), f"relay of {told.get('files_sent')}")

    def _of(self, answer: Answer) -> list[Study]:
        return [study for study in self._studies if study.accession in answer.ask.accessions]


def _is(condition: bool, otherwise: str) -> str:
    return RIGHT if condition else otherwise


def _error(answer: Answer) -> str:
    told = answer.json()
    whole = told.keys() >= {"error", "code", "detail", "job_id"}
    return (
        f"{answer.status} {told['code']}" if whole else f"{answer.status} in no error's form: {answer.content[:200]!r}"
    )


def _page(answer: Answer) -> str:
    if answer.ask.path.startswith("/api/"):
        return _is(isinstance(answer.json().get("jobs"), list), "no list of jobs")
    return _is(b"</html>" in answer.content or "csv" in answer.ask.path, "no page")
