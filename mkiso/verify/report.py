"""What a check found, and how a person and a program are told."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable
from dataclasses import asdict

from mkiso.checks import Check
from mkiso.verify.trees import Unreadable

FIRST = 3
LONGEST = 200

# A check yields what is wrong, as often as it is, and returns what it found otherwise.
Findings = Generator[str, None, str]


def judged(name: str, look: Callable[[], Findings]) -> Check:
    """A check made: that something cannot be read is wrong with it, too."""
    faults: list[str] = []
    count, found = 0, ""
    try:
        findings = look()
        while True:
            faults.append(next(findings))
            count += 1
            del faults[FIRST:]
    except StopIteration as end:
        found = end.value
    except (Unreadable, OSError) as error:
        faults, count = [*faults[: FIRST - 1], str(error)], count + 1
    return Check(name, not count, printable(_told(faults, count) if count else found))


def _told(faults: Iterable[str], count: int) -> str:
    further = f" … and {count - FIRST} more" if count > FIRST else ""
    return "; ".join(_shortened(fault) for fault in faults) + further


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def printable(text: str) -> str:
    """Names come from strangers: nothing of them commands a terminal."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def as_lines(checks: Iterable[Check]) -> str:
    return "\n".join(map(as_line, checks))


def as_line(check: Check) -> str:
    return f"{'ok  ' if check.ok else 'FAIL'}  {check.name}: {printable(check.found)}"


def as_json(file: str, checks: Iterable[Check]) -> str:
    told = [asdict(one) for one in checks]
    return json.dumps({"file": file, "ok": all(one["ok"] for one in told), "checks": told}, indent=1)
