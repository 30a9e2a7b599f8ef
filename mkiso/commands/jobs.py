"""`mkiso jobs` and `mkiso verify`, and what the commands have in common.

That is the configuration, the installation and who asks for what; how jobs and checks look on a terminal; and a job's
progress there: what its row in the ledger tells, and then the bytes as they are written.
"""

from __future__ import annotations

import getpass
import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm
from tqdm.utils import disp_len

from mkiso.accession import MOST_SERIES, parse_list, parse_one, parse_uids
from mkiso.checks import RELAYS, Check
from mkiso.config import SYSTEM_FILE, Config, find_file, load
from mkiso.errors import DiskFull, JobNotFound, LedgerUnavailable
from mkiso.installation import Installation
from mkiso.job import Order
from mkiso.ledger.ledger import STATES, Ledger
from mkiso.log import printable, set_up
from mkiso.verify.medium import UnreadableDisc, WrongPassword
from mkiso.verify.verify import verify as checks_of
from mkiso.waiting import start

config_option = click.option(
    "--config",
    "config_file",
    metavar="FILE",
    help=f"the configuration (YAML); default: $MKISO_CONFIG, else {SYSTEM_FILE}, else the checkout's etc/mkiso.yaml",
)
TICK = 0.2
INSTANCES = {"unit": " instances"}
BYTES = {"unit": "B", "unit_scale": True}
UNCOUNTED = {"bar_format": "{desc} [{elapsed}]"}
# Where the terminal is too narrow for a bar as well: how far, how long still, how fast.
NARROW, IN_SHORT = 70, {"bar_format": "{desc} {percentage:.0f}% {remaining} {rate_fmt}"}
COUNTS = {"retrieving": "received", "sending": "files_sent"}
# No thread that outlives a bar, and no lock that other processes would share.
tqdm.monitor_interval = 0
tqdm.set_lock(threading.RLock())
COLUMNS = (
    *("CREATED", "ID", "STATE", "KIND", "RECEIVED", "SENT", "BYTES"),
    *("ACCESSIONS", "PATIENT", "DESTINATION", "REQUESTER", "ERROR"),
)
CANCEL = "cancel"
LARGEST_PASSWORD_FILE = 4096
Job = dict[str, Any]


def read_config(config_file: str | None) -> Config:
    """The configuration of `--config`, or of where it is found without."""
    return load(find_file(config_file))


def installation_of(config_file: str | None) -> Installation:
    """What a command works with, which tells on standard error only what is a warning at least."""
    set_up(logging.WARNING)
    installation = Installation(read_config(config_file))
    with suppress(LedgerUnavailable, DiskFull):  # the command tells, where it needs the ledger
        installation.ledger.prepare()
    return installation


def chosen_options(command: Callable[..., None]) -> Callable[..., None]:
    """The arguments of a command that is told which studies it is about."""
    command = click.option(
        "--series-uid",
        "series_uids",
        multiple=True,
        metavar="UID",
        help="of its study this series alone; again for more",
    )(command)
    command = click.option(
        "--study-uid", "study_uids", multiple=True, metavar="UID", help="a study by its UID; again for more"
    )(command)
    return click.argument("accessions", nargs=-1, metavar="[A …]")(command)


def order_of(
    installation: Installation,
    accessions: Sequence[str],
    study_uids: Sequence[str],
    series_uids: Sequence[str],
    **asked: Any,
) -> Order:
    """An order of what was given as words, or as lists; BadRequest."""
    most = installation.config.retrieve.max_accessions
    studies = parse_uids(",".join(study_uids), "--study-uid", most)
    series = parse_uids(",".join(series_uids), "--series-uid", MOST_SERIES)
    has_uids = bool(studies or series)
    if not (accessions or has_uids):
        raise click.UsageError("Missing argument: give accession numbers, or --study-uid or --series-uid.")
    numbers = () if has_uids and not accessions else parse_list(",".join(accessions), most)
    return Order(numbers, study_uids=studies, series_uids=series, single=not has_uids and len(numbers) == 1, **asked)


def requester(command: str) -> str:
    """`PERSON@mkiso-COMMAND`: by `sudo -u mkiso` the one who typed it, and not the service's user."""
    person = "".join(filter(str.isprintable, os.environ.get("SUDO_USER", "")[:128]))
    return f"{person or _user()}@mkiso-{command}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


class ProgressLine:
    """One line on standard error that is drawn again and again, by one thread at a time, and gone at the end."""

    def __init__(self, ledger: Ledger, job_id: str) -> None:
        self._ledger, self._job_id = ledger, job_id
        self._written = self._size = 0
        self._bar: tqdm[Any] = tqdm(disable=True)
        self._drawn: tuple[str, int | None] | None = None

    def wrote(self, count: int, size: int) -> None:
        """Note that `count` further of `size` bytes were written."""
        self._written, self._size = self._written + count, size

    def draw(self) -> None:
        """Show what is written; until the first byte is, what the job's row tells, where it can be read."""
        if self._size:
            self._show("writing", self._written, self._size, BYTES)
            return
        with suppress(JobNotFound, LedgerUnavailable, DiskFull):
            job = self._ledger.job(self._job_id)
            total = job["expected"] if job["state"] in COUNTS else None
            self._show(job["state"], job[COUNTS[job["state"]]] if total else 0, total, INSTANCES)

    def end(self) -> None:
        self._bar.close()

    def _show(self, doing: str, count: int, total: int | None, units: dict[str, Any]) -> None:
        if self._drawn != (doing, total):
            self._bar.close()
            style = units | _shape() if total else UNCOUNTED
            self._bar = tqdm(desc=doing, total=total, initial=count, leave=False, dynamic_ncols=True, **style)
            self._drawn = doing, total
        self._bar.update(count - self._bar.n)
        self._bar.refresh()


def _shape() -> dict[str, str]:
    return IN_SHORT if 0 < os.get_terminal_size(sys.stderr.fileno()).columns < NARROW else {}


@contextmanager
def shown_progress(ledger: Ledger, job_id: str) -> Iterator[ProgressLine]:
    """Show how a job of this process goes on, until the block ends; nothing where standard error is no terminal."""
    progress = ProgressLine(ledger, job_id)
    if not sys.stderr.isatty():
        yield progress
        return
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(TICK):
            progress.draw()

    watcher = start(threading.Thread(target=watch, daemon=True))
    try:
        with logging_redirect_tqdm():
            yield progress
    finally:
        ended.set()
        watcher.join()
        progress.draw()
        progress.end()


def password_option(help_text: str) -> Callable[[Any], Any]:
    """`--password-file`: a command line is no place for a password, since whoever is on the host can read it."""
    return click.option("--password-file", metavar="FILE", help=f"{help_text}; - is standard input")


def password_of(file: str | None) -> str | None:
    """The only line of a file, or of standard input. Raises UsageError, which does not repeat it."""
    if file is None:
        return None
    try:
        with click.open_file(file, "rb") as opened:
            text: str = opened.read(LARGEST_PASSWORD_FILE).decode()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise click.UsageError(printable(f"--password-file {file}: {why}")) from None
    return text.removesuffix("\n").removesuffix("\r")


@click.command()
@click.option("--config", "_config", metavar="FILE", hidden=True, help="taken as by every command; unused")
@click.option("--json", "as_data", is_flag=True, help="as a program reads it")
@password_option("what has the password of a protected ZIP")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
def verify(file: Path, as_data: bool, password_file: str | None, _config: str | None) -> None:
    """Check a finished disc: an ISO image, a ZIP, or a directory where one is mounted or unpacked."""
    set_up(logging.WARNING)
    if not file.exists():
        raise click.UsageError(printable(f"{file}: there is no such file. Name an ISO image, a ZIP or a directory."))
    try:
        checks = checks_of(file, password_of(password_file))
    except WrongPassword as error:
        raise click.UsageError(printable(f"{file}: {error}.")) from None
    except UnreadableDisc as error:
        checks = [Check("medium", ok=False, found=printable(f"it cannot be read as a disc: {error}"))]
    ok = all(one.ok for one in checks)
    if as_data:
        click.echo(json.dumps({"file": str(file), "ok": ok, "checks": list(map(asdict, checks))}, indent=1))
    else:
        click.echo("\n".join(map(check_line, checks)))
    sys.exit(0 if ok else 1)


def check_line(check: Check) -> str:
    """A check as a person reads it."""
    bad = "warn" if check.name == RELAYS else "FAIL"
    return f"{'ok  ' if check.ok else bad}  {check.name}: {printable(check.found)}"


@click.command()
@config_option
@click.option("--json", "wants_json", is_flag=True, help="as /api/jobs and /api/jobs/ID answer")
@click.option("--accession", metavar="A", help="only jobs with this accession number")
@click.option("--state", type=click.Choice(STATES), help="only jobs in this state")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True)
@click.argument("words", nargs=-1, metavar="[ID | cancel ID]")
def jobs(
    config_file: str | None,
    wants_json: bool,
    accession: str | None,
    state: str | None,
    limit: int,
    words: tuple[str, ...],
) -> None:
    """The ledger, newest first; with ID that job alone; cancel ID stops it, whichever process runs it."""
    ledger = installation_of(config_file).ledger
    match words:
        case ():
            number = None if accession is None else parse_one(accession)
            found = ledger.list_jobs(accession=number, state=state, limit=limit)
            click.echo(as_json({"jobs": found}) if wants_json else table(found))
        case (str(job_id),) if job_id != CANCEL:
            job = ledger.job(job_id.lower())
            click.echo(as_json(job) if wants_json else details(job))
        case (str(word), str(job_id)) if word == CANCEL:
            _cancel(ledger, job_id.lower(), wants_json)
        case _:
            raise click.UsageError("Say nothing for the list, ID for one job, or cancel ID to stop it.")


def _cancel(ledger: Ledger, job_id: str, wants_json: bool) -> None:
    was_over = ledger.job(job_id)["finished_at"] is not None
    job = ledger.request_cancel(job_id, requester("jobs"))
    if wants_json:
        click.echo(as_json(job))
    elif was_over:
        click.echo(f"job {job_id} was over already: {job['state']}")
    else:
        click.echo(f"job {job_id} is cancelled" if job["finished_at"] else f"job {job_id} was told to stop")


def table(found: Sequence[Job]) -> str:
    """A line a job."""
    return columns([COLUMNS, *map(_row, found)])


def columns(rows: Sequence[Sequence[str | None]]) -> str:
    """A line a row, each column as wide as what is in it, and nothing that a terminal would take for a command."""
    shown = [[printable(cell or "") or "-" for cell in row] for row in rows]
    widths = [max(map(disp_len, column)) for column in zip(*shown, strict=True)]
    return "\n".join(_line(row, widths) for row in shown)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    padded = (cell + " " * (width - disp_len(cell)) for cell, width in zip(row, widths, strict=True))
    return "  ".join(padded).rstrip()


def _row(job: Job) -> list[str | None]:
    return [
        f"{job['created_at'][:19]}Z",
        job["id"],
        job["state"],
        job["kind"],
        of_all(job["received"], job),
        of_all(job["files_sent"], job) if job["kind"] == "relay" else "",
        f"{tqdm.format_sizeof(job['bytes'])}B",
        ",".join(job["accessions"]),
        job["patient_name"] or job["patient_id"],
        job["destination"],
        job["requester"],
        job["error"] and job["error"]["code"],
    ]


def of_all(count: int, job: Job) -> str:
    """So many instances of those that are expected."""
    return f"{count}/{'?' if job['expected'] is None else job['expected']}"


def details(job: Job) -> str:
    """Every field of a JOB, a line each."""
    width = max(map(len, job))
    return "\n".join(f"{name:<{width}}  {printable(_as_text(value))}" for name, value in job.items())


def _as_text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {one}" for name, one in value.items()) or "-"
    if isinstance(value, list):
        joint = "; " if any(isinstance(one, dict) for one in value) else ", "
        return joint.join(map(_as_text, value)) or "-"
    return "-" if value in (None, "") else str(value)


def as_json(value: object) -> str:
    """What a program reads."""
    return json.dumps(value, ensure_ascii=False, indent=1)
