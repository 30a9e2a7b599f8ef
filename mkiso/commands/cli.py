"""The commands of `mkiso`.

One that is told to stop, by Ctrl-C, by SIGTERM, or because its terminal is gone, cleans up first. A disc goes to a file
that has its name only when it is whole, to a device, or to standard output.
"""

from __future__ import annotations

import errno
import logging
import os
import resource
import signal
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import chain
from pathlib import Path
from typing import IO, Any

import click

from mkiso import __version__
from mkiso.accession import parse_one
from mkiso.checks import RELAYS
from mkiso.commands.check import checks, measure, trial
from mkiso.commands.jobs import (
    check_line,
    chosen_options,
    config_option,
    installation_of,
    jobs,
    order_of,
    password_of,
    password_option,
    read_config,
    requester,
    shown_progress,
    verify,
)
from mkiso.commands.relays import relays
from mkiso.disc.product import medium
from mkiso.errors import Cancelled, ConfigurationError, MkisoError
from mkiso.job import make_disc
from mkiso.job import relay as run_relay
from mkiso.ledger.record import as_mkiso_error
from mkiso.log import set_up
from mkiso.waiting import INTERRUPTION, Cancellation

INTERRUPTED = 130
STANDARD_OUTPUT = "-"


def stop_on_signals() -> None:
    """Have every signal that ends a command end it as Ctrl-C does."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)


@contextmanager
def interruptible() -> Iterator[Cancellation]:
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


@contextmanager
def written(output: str, force: bool) -> Iterator[Callable[[bytes], object]]:
    """Write to a new file, over one where `force`, or straight to what is no file.

    Raises UsageError for a terminal, and for a file that is there.
    """
    if output == STANDARD_OUTPUT:
        _refuse_a_terminal(output, sys.stdout)
        yield _writer(output, sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return
    path = Path(output).resolve()
    if path.is_file() and not force:
        raise click.UsageError(f"{output} exists. Give --force to replace it, or another name with -o.")
    is_device = path.exists() and not path.is_file()
    temporary = path.with_name(f".mkiso-{uuid.uuid4()}")
    file = _opened(output, path, None if is_device else temporary)
    try:
        with file:
            _refuse_a_terminal(output, file)
            yield _writer(output, file)
            if not is_device and not temporary.exists():
                os.link(f"/proc/self/fd/{file.fileno()}", temporary, src_dir_fd=file.fileno())  # linkat(2) follows it
        if not is_device:
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _refuse_a_terminal(output: str, file: IO[Any]) -> None:
    if file.isatty():
        raise click.UsageError(
            f"-o {output} is a terminal, and a disc is no text. Name a file with -o, or send it on:"
            " mkiso iso … -o - | PROGRAM."
        )


def _opened(output: str, path: Path, temporary: Path | None) -> IO[bytes]:
    """What is at the path, or a new file that is to replace it.

    That one has no name, so that nothing stays of it however this process ends; it is `temporary` where the file system
    has none without a name (open(2), O_TMPFILE). Raises ConfigurationError.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "It is a directory")
        if temporary is None:
            return path.open("wb")
        try:
            descriptor = os.open(path.parent, os.O_TMPFILE | os.O_WRONLY, 0o600)
        except OSError:
            descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        return os.fdopen(descriptor, "wb")
    except OSError as error:
        raise ConfigurationError(f"{output} cannot be written: {error.strerror}.", error="usage error") from error


def _writer(output: str, file: Any) -> Callable[[bytes], object]:
    def write(chunk: bytes) -> None:
        try:
            file.write(chunk)
        except OSError as error:
            raise MkisoError(f"{output} cannot be written: {error.strerror}.", error="the disc is not whole") from error

    return write


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """DICOM discs from a PACS: complete, proven, streamed."""


for command in (jobs, relays, verify):
    cli.add_command(command)


@cli.command()
@config_option
def serve(config_file: str | None) -> None:
    """Run the web service in the foreground."""
    from mkiso.web.server import serve as run_server  # noqa: PLC0415  (gunicorn is for this command alone)

    set_up()
    run_server(read_config(config_file))


@cli.command()
@config_option
@chosen_options
@click.option("-o", "output", required=True, metavar="FILE", help="the ISO or ZIP; - is standard output")
@click.option("--layout", type=click.Choice(["legacy", "pdi"]), help="default: media.layout")
@click.option("--format", "chosen", type=click.Choice(["iso", "zip"]), help="default: zip where FILE ends in .zip")
@click.option("--force", is_flag=True, help="replace FILE where it exists")
@password_option("what has the password that the ZIP is to have")
def iso(
    config_file: str | None,
    output: str,
    layout: Any,
    chosen: Any,
    force: bool,
    password_file: str | None,
    **what: tuple[str, ...],
) -> None:
    """Write one disc with the studies of the accession numbers, or of these UIDs and with these series alone."""
    installation = installation_of(config_file)
    layout = layout or installation.config.media.layout
    chosen = chosen or ("zip" if output.lower().endswith(".zip") else "iso")
    wanted = {"layout": layout, "format": chosen, "password": password_of(password_file)}
    order = order_of(installation, **what, requester=requester("iso"), **wanted)
    with (
        written(output, force) as write,
        interruptible() as cancellation,
        shown_progress(installation.ledger, order.job_id) as progress,
        closing(make_disc(installation, order, cancellation)) as disc,
    ):
        for chunk in disc:
            write(chunk)
            progress.wrote(len(chunk), disc.size)
    fits = f", {f'for a {needed}' if (needed := medium(disc.size)) else 'more than any disc holds'}"
    click.echo(f"{disc.size} bytes written{fits if chosen == 'iso' else ''}", err=True)


@cli.command()
@config_option
@chosen_options
@click.option("--to", "destination", required=True, metavar="NAME", help="a name of destinations")
@click.option("--queue", is_flag=True, help="have the service send it, and try again until it has arrived")
def relay(config_file: str | None, destination: str, queue: bool, **what: tuple[str, ...]) -> None:
    """Send the studies of the accession numbers, or of these UIDs and of these series alone, to a destination."""
    installation = installation_of(config_file)
    order = order_of(installation, **what, requester=requester("relay"))
    if queue:
        asked = (order.accessions, order.study_uids, order.series_uids)
        installation.queue_relay(order.job_id, destination, order.requester, asked)
        click.echo(f"relay {order.job_id} waits, and the service sends it: mkiso relays {order.job_id}")
        return
    with interruptible() as cancellation, shown_progress(installation.ledger, order.job_id):
        done = run_relay(installation, order, destination, cancellation)
    for warning in done.delivery.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"{done.delivery.sent} instances sent to {done.destination}")


@cli.command()
@config_option
@click.option(
    "--accession", metavar="A", help="a full trial: its query, a series moved, a disc made; nothing handed out"
)
@click.option("--measure", "is_measured", is_flag=True, help="how many series at once serve best, with that number")
def check(config_file: str | None, accession: str | None, is_measured: bool) -> None:
    """Look whether tools, directories, ports and peers are as they must be."""
    set_up(logging.WARNING)
    if is_measured and accession is None:
        raise click.UsageError("--measure moves studies: give their accession number, too, by --accession.")
    config = read_config(config_file)
    look = measure if is_measured else trial
    tried = [] if accession is None else look(config, parse_one(accession))
    all_ok = True
    for one in chain(checks(config), tried):
        click.echo(check_line(one))
        all_ok = all_ok and (one.ok or one.name == RELAYS)
    sys.exit(0 if all_ok else 1)


@cli.command()
@config_option
def sweep(config_file: str | None) -> None:
    """End what dead jobs left running, and remove their directories."""
    swept = installation_of(config_file).clear_away()
    click.echo("\n".join(f"cleared away after job {job_id}" for job_id in swept) or "nothing to clear away")


def main() -> None:
    """The console script: every error as text on standard error, and the contract's exit status."""
    resource.prlimit(0, resource.RLIMIT_CORE, (0, 0))  # in a core there would be patients' data, and passwords
    stop_on_signals()
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


if __name__ == "__main__":
    main()
