"""`mkiso relays`: what waits for its turn, runs or needs a person, and what is done about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from mkiso.checks import is_taking
from mkiso.commands.jobs import as_json, columns, config_option, details, installation_of, of_all, requester
from mkiso.installation import Installation
from mkiso.ledger.relays import RELAY_STATES

COLUMNS = (
    *("CREATED", "ID", "STATE", "DESTINATION", "TRIES", "NEXT", "SENT"),
    *("ACCESSIONS", "PATIENT", "REQUESTER", "ERROR"),
)
QUEUES = ("DESTINATION", "SENDS", "WAITING", "RUNNING", "QUARANTINED", "NEXT")
USAGE = "Say nothing for the list, ID for one relay, again, cancel or forget with an ID, pause or resume with a NAME."
OF_RELAY, OF_DESTINATION = ("again", "cancel", "forget"), ("pause", "resume")


@click.command()
@config_option
@click.option("--json", "wants_json", is_flag=True, help="as /api/relays and /api/relays/ID answer")
@click.option("--state", type=click.Choice(RELAY_STATES), help="only relays in this state")
@click.option("--destination", metavar="NAME", help="only relays to this destination")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True)
@click.argument("words", nargs=-1, metavar="[ID | again|cancel|forget ID | pause|resume NAME]")
def relays(
    config_file: str | None,
    wants_json: bool,
    state: str | None,
    destination: str | None,
    limit: int,
    words: tuple[str, ...],
) -> None:
    """Queued relays, and their destinations; with ID that one alone. The service tries them again by itself.

    again tries one now, also one that was given up; cancel ends one; forget ends one that was given up. pause holds all
    that goes to a destination, and resume lets it go on.
    """
    installation = installation_of(config_file)
    match words:
        case ():
            states = RELAY_STATES if state is None else (state,)
            _list(installation, installation.ledger.relays.page(states, destination, limit), wants_json)
        case (str(relay_id),) if relay_id not in (*OF_RELAY, *OF_DESTINATION):
            relay = installation.ledger.relays.relay(relay_id.lower())
            click.echo(as_json(relay) if wants_json else details(relay))
        case (str(word), str(relay_id)) if word in OF_RELAY:
            _act(installation, word, relay_id.lower(), wants_json)
        case (str(word), str(name)) if word in OF_DESTINATION:
            _set(installation, word, name, wants_json)
        case _:
            raise click.UsageError(USAGE)


def _list(installation: Installation, found: Sequence[dict[str, Any]], wants_json: bool) -> None:
    queues = installation.ledger.relays.queues(installation.config.destinations)
    if wants_json:
        click.echo(as_json({"relays": found, "destinations": queues}))
    else:
        click.echo(columns([COLUMNS, *map(_row, found)]))
        click.echo("\n" + columns([QUEUES, *map(_queue_row, queues)]))


def _act(installation: Installation, word: str, relay_id: str, wants_json: bool) -> None:
    by, ledger = requester("relays"), installation.ledger.relays
    match word:
        case "again":
            ledger.again(relay_id, installation.config.relay.give_up)
        case "cancel":
            installation.cancel_relay(relay_id, by)
        case _:
            ledger.forget(relay_id, by)
    relay = ledger.relay(relay_id)
    stops = word == "cancel" and relay["state"] == "running"
    told = f"relay {relay_id} {'was told to stop' if stops else 'is ' + relay['state']}"
    click.echo(as_json(relay) if wants_json else told)


def _set(installation: Installation, word: str, name: str, wants_json: bool) -> None:
    installation.config.destination(name)
    ledger = installation.ledger.relays
    ledger.pause(name, requester("relays")) if word == "pause" else ledger.resume(name)
    (queue,) = (one for one in ledger.queues(installation.config.destinations) if one["destination"] == name)
    is_held = queue["paused_by"] is not None
    told = (
        f"{name} is paused: mkiso relays resume {name}" if is_held else f"{name} takes what waits: {queue['waiting']}"
    )
    click.echo(as_json(queue) if wants_json else told)


def _row(relay: dict[str, Any]) -> list[Any]:
    return [
        f"{relay['created_at'][:19]}Z",
        *(relay[name] for name in ("id", "state", "destination")),
        str(relay["attempts"]),
        relay["next_at"] and f"{relay['next_at'][:19]}Z",
        "" if relay["expected"] is None else of_all(relay["files_sent"], relay),
        ",".join(relay["accessions"]),
        relay["patient_name"] or relay["patient_id"],
        relay["requester"],
        relay["error"] and relay["error"]["code"],
    ]


def _queue_row(queue: dict[str, Any]) -> list[Any]:
    why = "paused" if queue["paused_by"] is not None else "away"
    counts = [str(queue[name]) for name in ("waiting", "running", "quarantined")]
    return [
        *(queue["destination"], "yes" if is_taking(queue) else why, *counts),
        queue["next_at"] and f"{queue['next_at'][:19]}Z",
    ]
