"""gdcmconv, of GDCM: decodes what DCMTK cannot. It is not everywhere; its exit status says little."""

from __future__ import annotations

import shutil
from pathlib import Path

from mkiso.dcmtk.conversion import Converter


def installed() -> str | None:
    """The program, where this host has it."""
    return shutil.which("gdcmconv")


def raw_argv(program: str, instance: Path, raw: Path) -> tuple[str, ...]:
    return (program, "--raw", str(instance), str(raw))


def decode(converter: Converter, program: str, instance: Path, raw: Path) -> bool:
    """Write the instance with its pixels as they are; whether there is a file. Raises what `Converter.run` raises."""
    return converter.makes(raw_argv(program, instance, raw), raw)
