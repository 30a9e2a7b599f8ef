"""Two hosts with one ledger behind nginx: what clients notice when one goes away, and what a second host is worth.

`python -m benchmarks.hosts`, as root: it makes network namespaces of its own. `make bench` runs it.
"""

import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import requests

from tests.support import outages
from tests.support.hosts import why_not
from tests.support.judged import Trial
from tests.support.mixed import mixture
from tests.support.studies import JOHN, Study, ct_study
from tests.support.two_hosts import Hospital, running_hospital

REQUESTS = 200
KINDS = ("killed", "power lost", "unplugged")
ALONE = 40.0  # s that one user asks, one request after the other
LATE = 1.0
DISCS, IMAGES, REPEAT = 20, 50, 3  # nginx admits 20 discs at once from one address
DELAY = 0.02
HEADINGS = """\
| second host | away s | requests | went wrong | slowest of these s | slowest page s | rows | served after | not right |
|---|---:|---:|---|---:|---:|---:|---|---:|"""
OF_THROUGHPUT = """\
| the archive | one host s | two hosts s | times as many discs |
|---|---:|---:|---:|"""


def outage(hospital: Hospital, kind: str) -> bool:
    """Print what came of the requests; whether all is as it must be."""
    asks = mixture(REQUESTS, outages.PATIENTS, outages.LARGE, seed=KINDS.index(kind))
    trial = outages.run(hospital, asks, kind)
    wrong = [*trial.wrong(), *outages.left_behind(hospital)]
    counts = Counter(verdict for _, verdict in trial.excused)
    served = trial.served(since=trial.outage.ended)
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items()) or "none"
    print(
        f"| {kind} | {trial.outage.ended - trial.outage.began:.0f} | {len(trial.answers)} | {told}"
        f" | {_slowest(trial, moving=True)} | {_slowest(trial, moving=False)} | {len(trial.rows)}"
        f" | {served['first']}, {served['second']} | {len(wrong)} |",
        flush=True,
    )
    for line in wrong:
        print(f"wrong: {line}", file=sys.stderr)
    return not wrong


def _slowest(trial: Trial, moving: bool) -> str:
    """Seconds: of those that went wrong, or of the pages and lookups while the host was away."""
    if moving:
        seconds = [answer.seconds for answer, _ in trial.excused]
    else:
        pages = (answer for answer in trial.answers if answer.ask.kind in ("lookup", "page"))
        seconds = [answer.seconds for answer in pages if trial.outage.meets(answer)]
    return f"{max(seconds):.1f}" if seconds else ""


def one_user(hospital: Hospital) -> None:
    """Who is alone, and asks one page and one disc after the other while the second host is silent."""
    second, seconds = hospital.machines[1], defaultdict[tuple[str, int], list[float]](list)
    second.host.unplug()
    try:
        until = time.monotonic() + ALONE
        while time.monotonic() < until:
            for what, path in (("page", "/history"), ("disc", "/mkiso.php?accession_number=JOHN.1")):
                began = time.monotonic()
                status = requests.get(hospital.url + path, timeout=60).status_code
                seconds[what, status].append(time.monotonic() - began)
                time.sleep(LATE / 4)
    finally:
        second.host.plug_in()
    for (what, status), taken in sorted(seconds.items()):
        late = sum(one > LATE for one in taken)
        print(
            f"one user, a silent host, {what}s with {status}: {len(taken)}, {late} after more than {LATE:g} s,"
            f" the slowest after {max(taken):.1f} s"
        )


def discs(url: str) -> float:
    """Seconds until as many discs as nginx admits, asked for at once, are all there."""

    def one(number: int) -> int:
        answer = requests.get(f"{url}/mkiso.php?accession_number=CT.{number % 4}", timeout=600)
        if answer.status_code != requests.codes.ok or len(answer.content) != int(answer.headers["Content-Length"]):
            raise RuntimeError(f"disc {number}: {answer.status_code} {answer.text[:500]}")
        return len(answer.content)

    began = time.monotonic()
    with ThreadPoolExecutor(DISCS) as clients:
        list(clients.map(one, range(DISCS)))
    return time.monotonic() - began


def throughput(directory: Path, studies: Sequence[Study], delay: float) -> None:
    directory.mkdir()
    with running_hospital(directory, studies, receivers=1, delay=delay) as hospital:
        seconds: dict[str, list[float]] = {"one host": [], "two hosts": []}
        urls = {"one host": hospital.url_of_one, "two hosts": hospital.url}
        for url in urls.values():
            discs(url)
        for number in range(REPEAT):
            for name in list(urls)[:: -1 if number % 2 else 1]:
                seconds[name].append(discs(urls[name]))
    one, two = (median(seconds[name]) for name in urls)
    waits = f"waits {delay * 1000:g} ms before each instance" if delay else "as fast as it can"
    told = (f"{median(runs):.1f} ({min(runs):.1f} to {max(runs):.1f})" for runs in seconds.values())
    print(f"| {waits} | {' | '.join(told)} | {one / two:.2f} |", flush=True)


def main(_arguments: Sequence[str] = ()) -> int:
    if problem := why_not():
        print(f"hosts: {problem}: not run", file=sys.stderr)
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="mkiso-bench-", dir="/var/tmp") as name:
        directory = Path(name)
        (directory / "outages").mkdir()
        studies = outages.studies_for_outages(directory / "of-outages")
        print(HEADINGS)
        with running_hospital(directory / "outages", studies) as hospital:
            right = [outage(hospital, kind) for kind in KINDS]
            one_user(hospital)
        held = [ct_study(directory / "held", JOHN, f"CT.{number}", count=IMAGES) for number in range(4)]
        print(f"\n{DISCS} discs of {IMAGES} images at once, {REPEAT} runs:\n{OF_THROUGHPUT}")
        for delay in (DELAY, 0.0):
            throughput(directory / f"delay-{delay}", held, delay)
    return 0 if all(right) else 1


if __name__ == "__main__":
    sys.exit(main())
