"""The commands of `mkiso`."""

from __future__ import annotations

import errno
import getpass
import json
import logging
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any

import click

from mkiso import __version__
from mkiso.accession import parse_list
from mkiso.cancellation import Cancellation
from mkiso.commands.check import checks
from mkiso.commands.progress import shown_progress
from mkiso.commands.verify import verify
from mkiso.config import Config, find_file, load
from mkiso.disc.product import medium
from mkiso.errors import Cancelled, ConfigurationError, MkisoError
from mkiso.installation import Installation
from mkiso.job import Order, make_disc
from mkiso.job import relay as run_relay
from mkiso.ledger.record import as_mkiso_error
from mkiso.log import set_up

INTERRUPTED = 130
INTERRUPTION = "The command was interrupted."
config_option = click.option("--config", "config_file", metavar="FILE", help="the configuration (YAML)")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """DICOM discs from a PACS: complete, proven, streamed."""


cli.add_command(verify)


@cli.command()
@config_option
def serve(config_file: str | None) -> None:
    """Run the web service in the foreground."""
    from mkiso.web.server import serve as run_server  # noqa: PLC0415  (gunicorn is for this command alone)

    set_up()
    run_server(_config(config_file))


@cli.command()
@config_option
@click.argument("accessions", nargs=-1, required=True, metavar="A [B …]")
@click.option("-o", "output", required=True, metavar="FILE", help="the ISO or ZIP; - is standard output")
@click.option("--layout", type=click.Choice(["legacy", "pdi"]), help="default: media.layout")
@click.option("--format", "chosen", type=click.Choice(["iso", "zip"]), help="default: zip where FILE ends in .zip")
def iso(config_file: str | None, accessions: tuple[str, ...], output: str, layout: Any, chosen: Any) -> None:
    """Write one disc with the studies of the accession numbers."""
    installation = _installation(config_file)
    numbers = _accessions(installation, accessions)
    layout = layout or installation.config.media.layout
    chosen = chosen or ("zip" if output.lower().endswith(".zip") else "iso")
    order = Order(numbers, _requester("iso"), layout, chosen, len(numbers) == 1)
    with (
        _written(output) as write,
        _interruptible() as cancellation,
        shown_progress(installation.ledger, order.job_id) as progress,
        closing(make_disc(installation, order, cancellation)) as disc,
    ):
        for chunk in disc:
            write(chunk)
            progress.wrote(len(chunk), disc.size)
    fits = medium(disc.size)
    click.echo(f"{output}: {disc.size} bytes, {f'for a {fits}' if fits else 'larger than any disc'}", err=True)


@cli.command()
@config_option
@click.argument("accessions", nargs=-1, required=True, metavar="A [B …]")
@click.option("--to", "destination", required=True, metavar="NAME", help="a name of destinations")
def relay(config_file: str | None, accessions: tuple[str, ...], destination: str) -> None:
    """Send the studies of the accession numbers to a destination."""
    installation = _installation(config_file)
    order = Order(_accessions(installation, accessions), _requester("relay"))
    with _interruptible() as cancellation, shown_progress(installation.ledger, order.job_id):
        done = run_relay(installation, order, destination, cancellation)
    for warning in done.delivery.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"{done.delivery.sent} instances sent to {done.destination}")


@cli.command()
@config_option
def check(config_file: str | None) -> None:
    """Look whether tools, directories, ports and peers are as they must be."""
    installation = _installation(config_file)
    all_ok = True
    for one in checks(installation):
        click.echo(f"{'ok  ' if one.ok else 'FAIL'}  {one.name}: {one.found}")
        all_ok = all_ok and one.ok
    sys.exit(0 if all_ok else 1)


@cli.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="as /api/jobs answers")
@click.option("--accession", metavar="A", help="only jobs with this accession number")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True)
def jobs(config_file: str | None, as_json: bool, accession: str | None, limit: int) -> None:
    """The ledger, newest first."""
    found = _installation(config_file).ledger.list_jobs(accession=accession, limit=limit)
    if as_json:
        click.echo(json.dumps({"jobs": found}, ensure_ascii=False, indent=1))
        return
    click.echo(_row("CREATED", "STATE", "KIND", "INSTANCES", "BYTES", "ACCESSIONS", "REQUESTER"))
    for job in found:
        click.echo(_job_row(job))


@cli.command()
@config_option
def sweep(config_file: str | None) -> None:
    """End what dead jobs left running, and remove their directories."""
    swept = _installation(config_file).clear_away()
    click.echo("\n".join(f"cleared away after job {job_id}" for job_id in swept) or "nothing to clear away")


def main() -> None:
    """The console script: every error as text on standard error, and the contract's exit status."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        cli(prog_name="mkiso", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        sys.exit(INTERRUPTED)
    except MkisoError as error:
        _fail(error)
    except Exception as error:  # the boundary
        _fail(as_mkiso_error(error, "(see the text above)"), error)


def _fail(error: MkisoError, cause: BaseException | None = None) -> None:
    if cause is not None:
        logging.getLogger("mkiso").error("the command failed", exc_info=cause)
    for note in getattr(error, "__notes__", ()):
        click.echo(f"mkiso: {note}", err=True)
    click.echo(f"mkiso: {error}", err=True)
    sys.exit(error.exit_code)


@contextmanager
def _interruptible() -> Iterator[Cancellation]:
    """A job that is interrupted cleans up in peace, and a relay writes down what had arrived by then.

    A second signal gets through to where the job waits and cannot ask: a reader that does not read.
    """
    cancellation = Cancellation()

    def interrupt(_number: int, _frame: object) -> None:
        if cancellation.reason:
            raise KeyboardInterrupt
        cancellation.cancel(INTERRUPTION)

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(one, interrupt) for one in signals]
    try:
        yield cancellation
    except Cancelled:
        if cancellation.reason == INTERRUPTION:
            raise KeyboardInterrupt from None
        raise
    finally:
        for one, handler in zip(signals, before, strict=True):
            signal.signal(one, handler)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _config(config_file: str | None) -> Config:
    return load(find_file(config_file))


def _installation(config_file: str | None) -> Installation:
    set_up(logging.WARNING)
    return Installation(_config(config_file))


def _accessions(installation: Installation, accessions: tuple[str, ...]) -> tuple[str, ...]:
    return parse_list(",".join(accessions), installation.config.retrieve.max_accessions)


def _requester(command: str) -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    return f"{user}@mkiso-{command}"


@contextmanager
def _written(output: str) -> Iterator[Callable[[bytes], object]]:
    """Write to a file that has its name only when it is whole, or straight to what is no file."""
    if output == "-":
        yield _telling(output, sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return
    path = Path(output).resolve()
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "It is a directory")
        special = path.exists() and not path.is_file()
        file = _opened(path, special)
    except OSError as error:
        raise ConfigurationError(f"{output} cannot be written: {error.strerror}.", error="usage error") from error
    try:
        with file:
            yield _telling(output, file)
        if not special:
            Path(file.name).replace(path)
    finally:
        if not special:
            Path(file.name).unlink(missing_ok=True)


def _opened(path: Path, special: bool) -> IO[bytes]:
    if special:
        return path.open("wb")
    return NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False)


def _telling(output: str, file: Any) -> Callable[[bytes], object]:
    def write(chunk: bytes) -> None:
        try:
            file.write(chunk)
        except OSError as error:
            raise MkisoError(f"{output} cannot be written: {error.strerror}.", error="the disc is not whole") from error

    return write


def _row(*cells: object) -> str:
    widths = (20, 10, 5, 11, 12, 24, 0)
    return "  ".join(str(cell).ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _job_row(job: dict[str, Any]) -> str:
    created = job["created_at"][:19] + "Z"
    count = f"{job['received']}/{job['expected'] if job['expected'] is not None else '?'}"
    why = f"  {job['error']['code']}" if job["error"] else ""
    accessions = ",".join(job["accessions"])
    return _row(created, job["state"], job["kind"], count, job["bytes"], accessions, job["requester"] + why)


if __name__ == "__main__":
    main()
