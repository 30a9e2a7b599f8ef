"""Requests from eight clients to two hosts, of which the second is away for a while and returns."""

import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import requests

from tests.support.judged import Outage, Trial
from tests.support.mixed import Ask, Clients
from tests.support.studies import JANE, JOHN, MARY, RICHARD, Study, ct_study
from tests.support.tools import wait_until
from tests.support.two_hosts import Hospital

PATIENTS = (("JOHN.1", "JOHN.2", "JOHN.3"), ("JANE.1", "JANE.2"), ("MARY.1",))
LARGE = ("LARGE.1", "LARGE.2")
SILENCE = 180  # s at most until a host's rows are finished by the other: 120, a beat, and what the machine takes

Happening = Callable[[Hospital], None]


def studies_for_outages(root: Path) -> list[Study]:
    """Small ones of three patients, and two of 16 MB that take long enough to be left or cancelled."""
    of = {"JOHN": JOHN, "JANE": JANE, "MARY": MARY}
    small = [ct_study(root, of[name.partition(".")[0]], name, count=6) for names in PATIENTS for name in names]
    return small + [ct_study(root, RICHARD, name, count=30, side=512) for name in LARGE]


def killed(hospital: Hospital) -> None:
    """The service with all its programs; the host is there, and refuses connections."""
    hospital.machines[1].kill()


def started(hospital: Hospital) -> None:
    hospital.machines[1].start()


def power_lost(hospital: Hospital) -> None:
    hospital.machines[1].host.lose_power()
    hospital.machines[1].bury()


def power_back(hospital: Hospital) -> None:
    """The first host has finished the rows of the second by then."""
    wait_until(lambda: not hospital.unfinished(), SILENCE, lambda: f"rows are unfinished: {hospital.unfinished()}")
    power_back_soon(hospital)


def power_back_soon(hospital: Hospital) -> None:
    hospital.machines[1].host.plug_in()
    hospital.machines[1].start()


def unplugged(hospital: Hospital) -> None:
    hospital.machines[1].host.unplug()


def plugged_in(hospital: Hospital) -> None:
    hospital.machines[1].host.plug_in()


KINDS: dict[str, tuple[Happening, Happening]] = {
    "killed": (killed, started),
    "power lost": (power_lost, power_back),
    "power lost, back soon": (power_lost, power_back_soon),
    "unplugged": (unplugged, plugged_in),
}


def run(hospital: Hospital, asks: Sequence[Ask], kind: str) -> Trial:
    """A quarter of the requests before the outage, two fifths while it lasts, the others after it."""
    goes, returns = KINDS[kind]
    before, during = len(asks) // 4, len(asks) * 13 // 20
    rows_before, stored_before = set(hospital.rows()), hospital.stored()
    clients = Clients(hospital.url)
    try:
        clients.give(asks[:during])
        clients.wait_for(before)
        began = time.monotonic()
        goes(hospital)
        clients.wait_for(during)
        returns(hospital)
        ended = time.monotonic()
        wait_until(lambda: is_asked_again(hospital), 60, lambda: "nginx asks the second host no more")
        clients.give(asks[during:])
        clients.wait_for_all()
    finally:
        clients.close()
    wait_until(lambda: not hospital.unfinished(), SILENCE, lambda: f"rows are unfinished: {hospital.unfinished()}")
    rows = {job_id: row for job_id, row in hospital.rows().items() if job_id not in rows_before}
    other = hospital.machines[1].address
    outage = Outage(began, ended)
    return Trial(
        clients.answers, rows, hospital.asked(), other, outage, hospital.studies, hospital.stored() - stored_before
    )


def is_asked_again(hospital: Hospital) -> bool:
    """Whether nginx gives the second host requests, and it answers them."""
    tag = str(uuid.uuid4())
    with suppress(requests.RequestException):
        requests.get(f"{hospital.url}/healthz", headers={"X-Request-Id": tag}, timeout=30)
    return hospital.asked().get(tag) == [hospital.machines[1].address]


def left_behind(hospital: Hospital) -> list[str]:
    """Directories and programs of jobs, on both hosts."""
    left = [f"{path}" for machine in hospital.machines for path in machine.directories()]
    return left + [f"{name} on {machine.address}" for machine in hospital.machines for name in machine.programs()]
