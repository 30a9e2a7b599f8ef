"""Where a command's disc goes: to a file that has its name only when it is whole, a device, or standard output."""

from __future__ import annotations

import errno
import os
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import click

from mkiso.errors import ConfigurationError, MkisoError

STANDARD_OUTPUT = "-"


@contextmanager
def written(output: str, force: bool) -> Iterator[Callable[[bytes], object]]:
    """Write to a new file, over one where `force`, or straight to what is no file.

    Raises UsageError for a terminal, and for a file that is there.
    """
    if output == STANDARD_OUTPUT:
        _refuse_a_terminal(output, sys.stdout)
        yield _telling(output, sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return
    path, special = _target(output, force)
    named = path.with_name(f".mkiso-{uuid.uuid4()}")
    file = _opened(output, path, None if special else named)
    try:
        with file:
            _refuse_a_terminal(output, file)
            yield _telling(output, file)
            if not special and not named.exists():
                os.link(f"/proc/self/fd/{file.fileno()}", named, src_dir_fd=file.fileno())  # linkat(2) follows it so
        if not special:
            named.replace(path)
    finally:
        named.unlink(missing_ok=True)


def _refuse_a_terminal(output: str, file: IO[Any]) -> None:
    if file.isatty():
        raise click.UsageError(
            f"-o {output} is a terminal, and a disc is no text. Name a file with -o, or send it on:"
            " mkiso iso … -o - | PROGRAM."
        )


def _target(output: str, force: bool) -> tuple[Path, bool]:
    """What is written to, and whether that is something else than a file."""
    path = Path(output).resolve()
    if path.is_file() and not force:
        raise click.UsageError(f"{output} exists. Give --force to replace it, or another name with -o.")
    return path, path.exists() and not path.is_file()


def _opened(output: str, path: Path, named: Path | None) -> IO[bytes]:
    """What is at the path, or a new file that is to replace it.

    That one has no name, so that nothing stays of it however this process ends; `named` where the file system has none
    without (open(2), O_TMPFILE).
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "It is a directory")
        if named is None:
            return path.open("wb")
        try:
            descriptor = os.open(path.parent, os.O_TMPFILE | os.O_WRONLY, 0o600)
        except OSError:
            descriptor = os.open(named, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        return os.fdopen(descriptor, "wb")
    except OSError as error:
        raise ConfigurationError(f"{output} cannot be written: {error.strerror}.", error="usage error") from error


def _telling(output: str, file: Any) -> Callable[[bytes], object]:
    def write(chunk: bytes) -> None:
        try:
            file.write(chunk)
        except OSError as error:
            raise MkisoError(f"{output} cannot be written: {error.strerror}.", error="the disc is not whole") from error

    return write
