"""What the commands have in common: the configuration, the installation, who asks for what."""

from __future__ import annotations

import getpass
import logging
import os
from contextlib import suppress

import click

from mkiso.accession import parse_list
from mkiso.config import SYSTEM_FILE, Config, find_file, load
from mkiso.errors import DiskFull, LedgerUnavailable
from mkiso.installation import Installation
from mkiso.log import set_up

config_option = click.option(
    "--config",
    "config_file",
    metavar="FILE",
    help=f"the configuration (YAML); default: $MKISO_CONFIG, else {SYSTEM_FILE}, else the checkout's etc/mkiso.yaml",
)


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


def accessions_of(installation: Installation, words: tuple[str, ...]) -> tuple[str, ...]:
    """The accession numbers that were given as words, or as lists; BadRequest."""
    return parse_list(",".join(words), installation.config.retrieve.max_accessions)


def requester(command: str) -> str:
    """`PERSON@mkiso-COMMAND`: by `sudo -u mkiso` the one who typed it, and not the service's user."""
    return f"{_plain(os.environ.get('SUDO_USER', '')) or _user()}@mkiso-{command}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _plain(text: str) -> str:
    return "".join(character for character in text[:128] if character.isprintable())
