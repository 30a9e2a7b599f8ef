"""What a hospital asks of mkiso in an hour, mixed, from several clients at once."""

import json
import queue
import random
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import requests

from tests.support.tools import wait_until

CLIENTS = 8
PATIENCE = 90.0  # s without a byte, after which a client gives up
FIRST_BYTES = 1 << 16
DISCS = (
    "/mkiso.php?accession_number={}",
    "/mkiso_multiple.php?accession_number={}",
    "/api/iso/download?accession_number={}",
    "/api/iso/download-multiple?accession_numbers={}",
)
RELAYS = (
    "/mkiso2.php?accession_number={}",
    "/send_rimage_multiple.php?accession_number={}",
    "/api/iso/relay?destination=cd_publisher&accession_numbers={}",
    "/api/iso/print?accession_number={}",
    "/api/iso/print-multiple?accession_numbers={}",
)
PAGES = ("/", "/history", "/history?state=done", "/history?format=csv", "/api/jobs?limit=50")
# Of two hundred; a cancel is two requests.
SHARES = {
    "disc": 92,
    "relay": 30,
    "lookup": 26,
    "page": 16,
    "unknown": 8,
    "bad": 8,
    "several": 4,
    "cancel": 4,
    "leave": 8,
}
MOVING = ("disc", "relay", "cancel", "leave", "unknown", "several")  # these have a row in the ledger


@dataclass(frozen=True)
class Ask:
    """A request: `tag` is its X-Request-Id, and the id of its job where it runs one."""

    kind: str
    path: str
    accessions: tuple[str, ...] = ()
    tag: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass(frozen=True)
class Answer:
    """What a client got: no `status` without an answer; `is_whole` where it came to its end. Times are monotonic."""

    ask: Ask
    began: float
    ended: float
    status: int | None
    is_whole: bool
    content: bytes = b""

    @property
    def seconds(self) -> float:
        return self.ended - self.began

    def json(self) -> dict[str, Any]:
        """What a program reads of it; nothing where it is no JSON object."""
        try:
            told = json.loads(self.content)
        except ValueError:
            return {}
        return told if isinstance(told, dict) else {}


def mixture(count: int, patients: Sequence[Sequence[str]], large: Sequence[str], seed: int = 1) -> list[Ask]:
    """So many requests in an order of their own; `patients` have accession numbers each, `large` are long to move."""
    chance = random.Random(seed)
    kinds = [kind for kind, share in SHARES.items() for _ in range(max(1, share * count // 200))]
    asks = [_ask(kind, chance, patients, large) for kind in (*kinds, *("disc",) * count)[:count]]
    chance.shuffle(asks)
    return asks


def _ask(kind: str, chance: random.Random, patients: Sequence[Sequence[str]], large: Sequence[str]) -> Ask:
    tag = str(uuid.UUID(int=chance.getrandbits(128)))
    if kind in ("disc", "relay"):
        template, numbers = chance.choice(DISCS if kind == "disc" else RELAYS), chance.choice(patients)
        several = "multiple" in template or "accession_numbers" in template
        accessions = tuple(chance.sample(numbers, chance.randint(1, len(numbers)) if several else 1))
        form = f"&layout={chance.choice(('legacy', 'pdi'))}&format={chance.choice(('iso', 'iso', 'zip'))}"
        return Ask(kind, template.format(",".join(accessions)) + (form if kind == "disc" else ""), accessions, tag)
    if kind in ("cancel", "leave"):
        return Ask(kind, DISCS[1].format(",".join(large)) + "&layout=pdi", tuple(large), tag)
    if kind == "several":
        accessions = tuple(numbers[0] for numbers in patients)
        return Ask(kind, DISCS[1].format(",".join(accessions)), accessions, tag)
    told = {"unknown": DISCS[0].format("NONE.001"), "bad": DISCS[0].format("A*"), "page": chance.choice(PAGES)}
    return Ask(kind, told.get(kind, ""), ("NONE.001",) if kind == "unknown" else (), tag)


class Clients:
    """Eight of them, which take the requests that they are given in order, each one at a time."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers: list[Answer] = []
        self._asks: queue.Queue[Ask | None] = queue.Queue()
        self._given = 0
        self._known: list[Ask] = []
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def give(self, asks: Sequence[Ask]) -> None:
        self._given += len(asks)
        for ask in asks:
            self._asks.put(ask)

    def wait_for(self, count: int, seconds: float = 300) -> None:
        """Until so many are answered."""
        wait_until(lambda: self._finished() >= count, seconds, lambda: f"{self._finished()} of {count} are answered")

    def wait_for_all(self) -> None:
        self.wait_for(self._given)

    def close(self) -> None:
        for _ in self._threads:
            self._asks.put(None)
        for thread in self._threads:
            thread.join(PATIENCE + 30)

    def _finished(self) -> int:
        return sum(answer.ask.kind != "cancelling" for answer in list(self.answers))

    def _work(self) -> None:
        while ask := self._asks.get():
            try:
                answer = self._cancelled(ask) if ask.kind == "cancel" else self._asked(self._chosen(ask))
            except Exception as problem:  # a client never ends unheard
                answer = Answer(ask, time.monotonic(), time.monotonic(), None, False, repr(problem).encode())
            self.answers.append(answer)
            if ask.kind in ("disc", "relay") and answer.status == 200 and answer.is_whole:
                self._known.append(ask)

    def _chosen(self, ask: Ask) -> Ask:
        """A job is looked up that was made before."""
        if ask.kind != "lookup":
            return ask
        wait_until(lambda: bool(self._known), PATIENCE, lambda: "no job is done that could be looked up")
        job = random.choice(self._known)
        return Ask("lookup", f"/api/jobs/{job.tag}", job.accessions, ask.tag)

    def _cancelled(self, ask: Ask) -> Answer:
        """The job is cancelled as soon as the ledger knows it, if its host lives to tell it."""
        answers: list[Answer] = []
        client = threading.Thread(target=lambda: answers.append(self._asked(ask)), daemon=True)
        client.start()
        wait_until(lambda: bool(answers) or self._is_known(ask.tag), 2 * PATIENCE, lambda: "the job is not known")
        if self._is_known(ask.tag):
            self.answers.append(self._asked(Ask("cancelling", f"/api/jobs/{ask.tag}/cancel", ask.accessions)))
        client.join(2 * PATIENCE)
        return answers[0]

    def _is_known(self, job_id: str) -> bool:
        try:
            return requests.get(f"{self.url}/api/jobs/{job_id}", timeout=PATIENCE).ok
        except requests.RequestException:
            return False

    def _asked(self, ask: Ask) -> Answer:
        began = time.monotonic()
        status, content, is_whole = None, bytearray(), False
        url = self.url + ask.path + (f"&job={ask.tag}" if ask.kind in MOVING else "")
        try:
            method = "POST" if ask.kind == "cancelling" else "GET"
            headers = {"X-Request-Id": ask.tag}
            with requests.request(method, url, headers=headers, timeout=PATIENCE, stream=True) as response:
                status = response.status_code
                for chunk in response.iter_content(FIRST_BYTES):
                    content += chunk
                    if ask.kind == "leave" and status == 200:
                        break
            is_whole = True
        except requests.RequestException:
            pass
        return Answer(ask, began, time.monotonic(), status, is_whole, bytes(content))
