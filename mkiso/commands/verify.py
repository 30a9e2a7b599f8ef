"""`mkiso verify`: the checks of a finished disc as lines, or as JSON."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import click

from mkiso.checks import Check
from mkiso.log import set_up
from mkiso.verify.report import as_json, as_lines, printable
from mkiso.verify.trees import Unreadable
from mkiso.verify.verify import verify as checks_of


@click.command()
@click.option("--config", "_config", metavar="FILE", hidden=True, help="taken as by every command; unused")
@click.option("--json", "as_data", is_flag=True, help="as a program reads it")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
def verify(file: Path, as_data: bool, _config: str | None) -> None:
    """Check a finished disc: an ISO image, a ZIP, or a directory where one is mounted or unpacked."""
    set_up(logging.WARNING)
    if not file.exists():
        raise click.UsageError(printable(f"{file}: there is no such file. Name an ISO image, a ZIP or a directory."))
    try:
        checks = checks_of(file)
    except Unreadable as error:
        checks = [Check("medium", ok=False, found=printable(f"it cannot be read as a disc: {error}"))]
    click.echo(as_json(str(file), checks) if as_data else as_lines(checks))
    sys.exit(0 if all(one.ok for one in checks) else 1)
