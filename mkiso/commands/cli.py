"""The commands of `mkiso`."""

from __future__ import annotations

import logging
import sys
from contextlib import closing
from itertools import chain
from typing import Any

import click

from mkiso import __version__
from mkiso.accession import parse_one
from mkiso.commands.check import checks
from mkiso.commands.interruption import INTERRUPTED, interruptible, stop_on_signals
from mkiso.commands.jobs import jobs
from mkiso.commands.options import accessions_of, config_option, installation_of, read_config, requester
from mkiso.commands.output import written
from mkiso.commands.progress import shown_progress
from mkiso.commands.trial import trial
from mkiso.commands.verify import verify
from mkiso.disc.product import medium
from mkiso.errors import MkisoError
from mkiso.job import Order, make_disc
from mkiso.job import relay as run_relay
from mkiso.ledger.record import as_mkiso_error
from mkiso.log import set_up
from mkiso.verify.report import as_line


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """DICOM discs from a PACS: complete, proven, streamed."""


cli.add_command(jobs)
cli.add_command(verify)


@cli.command()
@config_option
def serve(config_file: str | None) -> None:
    """Run the web service in the foreground."""
    from mkiso.web.server import serve as run_server  # noqa: PLC0415  (gunicorn is for this command alone)

    set_up()
    run_server(read_config(config_file))


@cli.command()
@config_option
@click.argument("accessions", nargs=-1, required=True, metavar="A [B …]")
@click.option("-o", "output", required=True, metavar="FILE", help="the ISO or ZIP; - is standard output")
@click.option("--layout", type=click.Choice(["legacy", "pdi"]), help="default: media.layout")
@click.option("--format", "chosen", type=click.Choice(["iso", "zip"]), help="default: zip where FILE ends in .zip")
@click.option("--force", is_flag=True, help="replace FILE where it exists")
def iso(
    config_file: str | None, accessions: tuple[str, ...], output: str, layout: Any, chosen: Any, force: bool
) -> None:
    """Write one disc with the studies of the accession numbers."""
    installation = installation_of(config_file)
    numbers = accessions_of(installation, accessions)
    layout = layout or installation.config.media.layout
    chosen = chosen or ("zip" if output.lower().endswith(".zip") else "iso")
    order = Order(numbers, requester("iso"), layout, chosen, len(numbers) == 1)
    with (
        written(output, force) as write,
        interruptible() as cancellation,
        shown_progress(installation.ledger, order.job_id) as progress,
        closing(make_disc(installation, order, cancellation)) as disc,
    ):
        for chunk in disc:
            write(chunk)
            progress.wrote(len(chunk), disc.size)
    fits = medium(disc.size)
    click.echo(f"{disc.size} bytes written, {f'for a {fits}' if fits else 'more than any disc holds'}", err=True)


@cli.command()
@config_option
@click.argument("accessions", nargs=-1, required=True, metavar="A [B …]")
@click.option("--to", "destination", required=True, metavar="NAME", help="a name of destinations")
def relay(config_file: str | None, accessions: tuple[str, ...], destination: str) -> None:
    """Send the studies of the accession numbers to a destination."""
    installation = installation_of(config_file)
    order = Order(accessions_of(installation, accessions), requester("relay"))
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
def check(config_file: str | None, accession: str | None) -> None:
    """Look whether tools, directories, ports and peers are as they must be."""
    set_up(logging.WARNING)
    config = read_config(config_file)
    tried = [] if accession is None else trial(config, parse_one(accession))
    all_ok = True
    for one in chain(checks(config), tried):
        click.echo(as_line(one))
        all_ok = all_ok and one.ok
    sys.exit(0 if all_ok else 1)


@cli.command()
@config_option
def sweep(config_file: str | None) -> None:
    """End what dead jobs left running, and remove their directories."""
    swept = installation_of(config_file).clear_away()
    click.echo("\n".join(f"cleared away after job {job_id}" for job_id in swept) or "nothing to clear away")


def main() -> None:
    """The console script: every error as text on standard error, and the contract's exit status."""
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
