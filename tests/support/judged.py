"""Is every answer right? What a client got, held against the studies, the ledger, and whom nginx asked."""

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mkiso.verify.trees import Unreadable
from mkiso.verify.verify import verify
from tests.support.mixed import MOVING, Answer
from tests.support.service import instances_of, instances_on, read_disc
from tests.support.studies import Study

RIGHT = "right"
AWAY = "502 of nginx"
TORN = "broken off"
SILENT = "no answer"
# What mkiso tells of a host that is cut off and goes on.
CUT_OFF = {"pacs_unreachable", "pacs_timeout", "incomplete", "no_dicom_data", "ledger_unavailable", "destination_unreachable", "relay_failed"}
REFUSED = {"unknown": (404, "accession_not_found"), "bad": (400, "invalid_accession"), "several": (409, "several_patients")}
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
    """All that was seen: `asked` is whom nginx asked for a request, `other` the host that was away."""

    answers: Sequence[Answer]
    rows: Mapping[str, Mapping[str, Any]]
    asked: Mapping[str, Sequence[str]]
    other: str
    outage: Outage
    studies: Sequence[Study]

    @cached_property
    def verdicts(self) -> list[tuple[Answer, str]]:
        with tempfile.TemporaryDirectory(prefix="judged-") as directory:
            judge = Judge(self.studies, Path(directory))
            return [(answer, judge.verdict(answer)) for answer in self.answers]

    @property
    def excused(self) -> list[tuple[Answer, str]]:
        """What went wrong because the host was away."""
        return [(answer, verdict) for answer, verdict in self.verdicts if verdict != RIGHT and self._is_excused(answer, verdict)]

    def wrong(self) -> list[str]:
        """A line for each answer and each row that is not as it must be."""
        return [*self._wrong_answers(), *self._asked_twice(), *self._wrong_rows()]

    def served(self, since: float = 0.0) -> Counter[str]:
        """Discs and relays that each host did, of those asked for after that moment."""
        done = [answer for answer, verdict in self.verdicts if verdict == RIGHT and answer.began >= since]
        hosts = [self.asked[answer.ask.tag][0] for answer in done if answer.ask.kind in ("disc", "relay")]
        return Counter("second" if host == self.other else "first" for host in hosts)

    def _wrong_answers(self) -> Iterator[str]:
        for answer, verdict in self.verdicts:
            if verdict != RIGHT and not self._is_excused(answer, verdict):
                ask = answer.ask
                yield f"{ask.kind} {ask.path}: {verdict} after {answer.seconds:.1f} s, asked of {self.asked.get(ask.tag)}"

    def _is_excused(self, answer: Answer, verdict: str) -> bool:
        """What moves nothing has no excuse: the other host answers it. A host that is there has none."""
        was_away = self.other in self.asked.get(answer.ask.tag, ()) and self.outage.meets(answer)
        known = verdict in (AWAY, TORN, SILENT) or verdict.rpartition(" ")[2] in CUT_OFF
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
            states = _states(answer, verdict)
            if states and (state := self.rows.get(job_id, {}).get("state")) not in states:
                yield f"{answer.ask.kind} {answer.ask.path}: {verdict} ({answer.status}), and its row is {state}"


def _states(answer: Answer, verdict: str) -> tuple[str, ...]:
    """How the row of a job ends of which the client got this; nothing where it may have any end, or no row."""
    if verdict != RIGHT:
        return ()
    ends = {"disc": ("done",), "relay": ("done",), "unknown": ("failed",), "several": ("failed",)}
    if answer.ask.kind == "cancel":
        return ("done",) if answer.status == 200 and answer.is_whole else ("cancelled",)
    return ends.get(answer.ask.kind, ("cancelled", "done"))


class Judge:
    """Holds answers against the studies; discs are unpacked below `directory`."""

    def __init__(self, studies: Sequence[Study], directory: Path) -> None:
        self._studies, self._directory, self._count = studies, directory, 0

    def verdict(self, answer: Answer) -> str:
        """RIGHT, or what is wrong with it."""
        if answer.ask.kind == "cancel":
            return self._cancelled(answer)
        if answer.status is None:
            return SILENT if not answer.content else answer.content.decode()
        if not answer.is_whole:
            return TORN
        told = answer.json()
        if answer.status == 502 and told.items() >= AWAY_TOLD.items():
            return AWAY
        if (refused := REFUSED.get(answer.ask.kind)) is not None:
            return RIGHT if (answer.status, told.get("code")) == refused else _error(answer)
        if answer.status != 200:
            return _error(answer)
        right: dict[str, Callable[[Answer], str]] = {
            "disc": self._disc,
            "relay": self._relay,
            "lookup": lambda one: _is(one.json().get("accessions") == list(one.ask.accessions), "another job"),
            "page": _page,
            "cancelling": lambda one: _is("state" in one.json(), "no job"),
            "leave": lambda one: _is(len(one.content) > 0, "no disc"),
        }
        return right[answer.ask.kind](answer)

    def _cancelled(self, answer: Answer) -> str:
        """It may have been too late; a disc that is cancelled while it streams is broken off."""
        if answer.status == 410:
            return _is(answer.json().get("code") == "cancelled", _error(answer))
        if answer.status == 200:
            return self._disc(answer) if answer.is_whole else RIGHT
        if answer.status == 502 and answer.json().items() >= AWAY_TOLD.items():
            return AWAY
        return SILENT if answer.status is None else _error(answer)

    def _disc(self, answer: Answer) -> str:
        """All instances of the studies that were asked for, and no others, on a disc that `mkiso verify` passes.

        Of the layout legacy that says no more than that it can be read.
        """
        self._count += 1
        file = self._directory / f"{self._count}.disc"
        file.write_bytes(answer.content)
        try:
            failed = [check for check in verify(file) if not check.ok and "layout=legacy" not in answer.ask.path]
        except Unreadable as error:
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
    return f"{answer.status} {told['code']}" if whole else f"{answer.status} in no error's form: {answer.content[:200]!r}"


def _page(answer: Answer) -> str:
    if answer.ask.path.startswith("/api/"):
        return _is(isinstance(answer.json().get("jobs"), list), "no list of jobs")
    return _is(b"</html>" in answer.content or "csv" in answer.ask.path, "no page")
