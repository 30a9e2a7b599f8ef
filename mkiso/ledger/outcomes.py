"""What becomes of a queued relay when an attempt of it has ended: the rules, in the transaction that ends the attempt.

What is away is waited for, and not counted: the destination by its queue, for all its relays together; the archive, the
ledger and what else this host lacks by the relay. What fails is tried again a few times. What no time mends, and what
has had its time, waits for a person.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from mkiso.errors import (
    AccessionNotFound,
    BadRequest,
    Busy,
    Cancelled,
    DestinationUnreachable,
    DiskFull,
    Internal,
    LedgerUnavailable,
    NotConfigured,
    NotConfirmed,
    PacsRejected,
    PacsTimeout,
    PacsUnreachable,
    PatientApiUnavailable,
    PatientDbUnavailable,
    ReceiverUnavailable,
    SeriesNotFound,
    SeveralPatients,
    Stopping,
    StudyNotFound,
    WrongPatient,
)
from mkiso.ledger.database import clock
from mkiso.ledger.schema import now, relay_queues, relays

FIRST_PAUSE, LONGEST_AWAY, LONGEST_FAILED = 5, 300, 3600  # seconds
MOST_COUNTED = 10
DIED = {"code": Internal.code, "detail": "The process that ran this job died. Ask again."}
AWAY = {
    one.code
    for one in (
        *(PacsUnreachable, PacsRejected, PacsTimeout, PatientApiUnavailable, PatientDbUnavailable),
        *(Busy, LedgerUnavailable, Stopping, ReceiverUnavailable, DiskFull),
    )
}
AT_ONCE = {DestinationUnreachable.code, Cancelled.code}  # by its queue; as the service was stopped
NOT_FOUND = (AccessionNotFound, StudyNotFound, SeriesNotFound)
FOR_A_PERSON = {one.code for one in (WrongPatient, SeveralPatients, NotConfigured, BadRequest, *NOT_FOUND)}
ENDED = ("id", "relay_id", "state", "error", "cancel_requested", "confirmed", "finished_at")


def follow(connection: sa.Connection, job: Mapping[Any, Any]) -> None:
    """Have the relay of an attempt that has ended go on; `job` has the columns ENDED. What is no attempt is left alone.

    An attempt whose process was taken for dead is followed already: of its end nothing counts but that all has arrived.
    """
    if not (job["relay_id"] and job["finished_at"]):
        return
    query = sa.select(relays, clock(connection.dialect.name).label("moment"))
    query = query.where(relays.c.id == job["relay_id"], relays.c.job_id == job["id"]).with_for_update()
    relay = connection.execute(query).mappings().first()
    if relay is None or relay["state"] not in (("waiting", "running") if job["state"] == "done" else ("running",)):
        return
    values = _next(connection, relay, job)
    if values["state"] != "waiting":
        values["finished_at"] = now()
    connection.execute(relays.update().where(relays.c.id == relay["id"]).values(values))


def _next(connection: sa.Connection, relay: Mapping[Any, Any], job: Mapping[Any, Any]) -> dict[str, Any]:
    """The columns that say how a relay goes on after an attempt."""
    if job["state"] == "done":
        return {"state": "done", "error": None}
    code, moment, error = job["error"]["code"], relay["moment"], {"error": job["error"]}
    if code == Cancelled.code and job["cancel_requested"]:
        return {"state": "cancelled"} | error
    lacks = code == NotConfirmed.code and job["confirmed"] is not None  # else it did not tell what it has
    if lacks or code in FOR_A_PERSON or moment >= relay["give_up_at"]:
        return {"state": "quarantined"} | error
    if code == DestinationUnreachable.code:
        _rest(connection, relay["destination"], moment)
    if code in AT_ONCE or job["error"] == DIED:
        return {"state": "waiting", "next_at": moment} | error
    if code in AWAY:
        return _later(relay, LONGEST_AWAY) | error
    counted = relay["counted"] + 1
    again = _later(relay, LONGEST_FAILED) if counted < MOST_COUNTED else {"state": "quarantined"}
    return again | error | {"counted": counted}


def _later(relay: Mapping[Any, Any], longest: int) -> dict[str, Any]:
    pause = longer_pause(relay["pause"], longest)
    return {"state": "waiting", "next_at": relay["moment"] + pause, "pause": pause}


def _rest(connection: sa.Connection, destination: str, moment: int) -> None:
    """Have nothing more sent to a destination that is away, until it answers a C-ECHO."""
    answers = (relay_queues.c.destination == destination, relay_queues.c.pause == 0)
    values = {"pause": FIRST_PAUSE, "next_at": moment + FIRST_PAUSE}
    connection.execute(relay_queues.update().where(*answers).values(values))


def longer_pause(pause: int, longest: int) -> int:
    """Seconds to wait next."""
    return min(max(FIRST_PAUSE, 2 * pause), longest)
