"""`mkiso jobs`: the ledger as a table, one job of it, and the way to stop one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click
from tqdm import tqdm
from tqdm.utils import disp_len

from mkiso.accession import parse_one
from mkiso.commands.options import config_option, installation_of
from mkiso.ledger.ledger import STATES, Ledger
from mkiso.verify.report import printable

COLUMNS = (
    *("CREATED", "ID", "STATE", "KIND", "RECEIVED", "SENT", "BYTES"),
    *("ACCESSIONS", "PATIENT", "DESTINATION", "REQUESTER", "ERROR"),
)
CANCEL = "cancel"
Job = dict[str, Any]


@click.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="as /api/jobs and /api/jobs/ID answer")
@click.option("--accession", metavar="A", help="only jobs with this accession number")
@click.option("--state", type=click.Choice(STATES), help="only jobs in this state")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True)
@click.argument("words", nargs=-1, metavar="[ID | cancel ID]")
def jobs(
    config_file: str | None,
    as_json: bool,
    accession: str | None,
    state: str | None,
    limit: int,
    words: tuple[str, ...],
) -> None:
    """The ledger, newest first; with ID that job alone; cancel ID stops it, whichever process runs it."""
    ledger = installation_of(config_file).ledger
    match words:
        case ():
            asked = None if accession is None else parse_one(accession)
            found = ledger.list_jobs(accession=asked, state=state, limit=limit)
            click.echo(_json({"jobs": found}) if as_json else table(found))
        case (str(job_id),) if job_id != CANCEL:
            job = ledger.job(job_id.lower())
            click.echo(_json(job) if as_json else details(job))
        case (str(word), str(job_id)) if word == CANCEL:
            _cancel(ledger, job_id.lower(), as_json)
        case _:
            raise click.UsageError("Say nothing for the list, ID for one job, or cancel ID to stop it.")


def _cancel(ledger: Ledger, job_id: str, as_json: bool) -> None:
    was_over = ledger.job(job_id)["finished_at"] is not None
    job = ledger.request_cancel(job_id)
    if as_json:
        click.echo(_json(job))
    elif was_over:
        click.echo(f"job {job_id} was over already: {job['state']}")
    else:
        click.echo(f"job {job_id} is cancelled" if job["finished_at"] else f"job {job_id} was told to stop")


def table(found: Sequence[Job]) -> str:
    """A line a job, each column as wide as what is in it."""
    rows = [COLUMNS, *map(_row, found)]
    widths = [max(map(disp_len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(_line(row, widths) for row in rows)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    padded = (cell + " " * (width - disp_len(cell)) for cell, width in zip(row, widths, strict=True))
    return "  ".join(padded).rstrip()


def _row(job: Job) -> list[str]:
    cells = (
        f"{job['created_at'][:19]}Z",
        job["id"],
        job["state"],
        job["kind"],
        _of_all(job["received"], job),
        _of_all(job["files_sent"], job) if job["kind"] == "relay" else "",
        f"{tqdm.format_sizeof(job['bytes'])}B",
        ",".join(job["accessions"]),
        job["patient_name"] or job["patient_id"],
        job["destination"],
        job["requester"],
        job["error"] and job["error"]["code"],
    )
    return [printable(cell or "") or "-" for cell in cells]


def _of_all(count: int, job: Job) -> str:
    return f"{count}/{'?' if job['expected'] is None else job['expected']}"


def details(job: Job) -> str:
    """Every field of a JOB, a line each."""
    width = max(map(len, job))
    return "\n".join(f"{name:<{width}}  {printable(_told(value))}" for name, value in job.items())


def _told(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {one}" for name, one in value.items()) or "-"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return "-" if value in (None, "") else str(value)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1)
