"""dcmmkdir: a DICOMDIR of the instances below a directory (PS3.10 8.6).

Its exit status is 0 also where it left files out, and not every one of them is listed: what is not
among the ReferencedFileIDs was left out. Its log tells why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mkiso.dcmtk.converters import public_dictionary
from mkiso.errors import Internal
from mkiso.process import Limits, run

DCMMKDIR = "dcmmkdir"
NO_GOOD_FILES = "E: no good files"
NO_RECORD = "invalid SOP class"  # said of one for which PS3.3 F.4 has no record
NO_MEMORY = "Virtual Memory exhausted"
# For a chunk: usual instances take 0.05 s, and 2 kB each of its DICOMDIR, which the worker reads. Of a file it keeps
# what is shorter than 4 kB, of a deflated one all; a report takes time by the square of its items.
LIMITS = Limits(memory=1 << 28, file=1 << 23, processor=10)
LIMIT = 600.0  # for a chunk; an instance of 4 GB is read in half a minute


class Crashed(Exception):
    """A signal ended dcmmkdir, or it was out of memory: one of its files is more than it can, or may, take."""


@dataclass(frozen=True)
class Indexer:
    """Where dcmmkdir is, and the file-set that it indexes: the directory and the file-set ID (PS3.3 F.3.2.1)."""

    dcmtk_dir: Path
    stage: Path
    file_set_id: str


def index_argv(indexer: Indexer, dicomdir: Path, listed: Path, invent: bool) -> tuple[str, ...]:
    """`listed` holds the files, a line each; it may invent what type 1 keys lack only where it is to `invent`."""
    return (
        str(indexer.dcmtk_dir / DCMMKDIR),
        *(("+I",) if invent else ()),
        *("-Pgp", "-Nxc", "-Nec", "-Nrc", "-nb"),
        *("+id", str(indexer.stage), "+D", str(dicomdir), "+F", indexer.file_set_id),
        f"@{listed}",
    )


def index(
    indexer: Indexer,
    files: Sequence[str],
    dicomdir: Path,
    *,
    invent: bool,
    directory: Path,
    checkpoint: Callable[[], None],
) -> dict[str, str]:
    """Write a DICOMDIR of those files that it takes, none where it takes none; why it took others not, by file.

    The program belongs to the job that has `directory`; its list and its log lie beside `dicomdir`. Raises
    Crashed, ToolTimeout, Internal where it could not do its work, and whatever `checkpoint` raises.
    """
    listed = dicomdir.with_suffix(".list")
    listed.write_text("".join(f"{file}\n" for file in files), encoding="ascii")
    argv = index_argv(indexer, dicomdir, listed, invent)
    result = run(
        argv,
        timeout=LIMIT,
        cwd=directory,
        log=dicomdir.with_suffix(".log"),
        checkpoint=checkpoint,
        limits=LIMITS,
        environment=public_dictionary(indexer.dcmtk_dir),  # no key of a record is private
    )
    if result.rc < 0 or (result.rc > 0 and NO_MEMORY.lower() in result.stderr.lower()):
        raise Crashed
    if result.rc > 0 and NO_GOOD_FILES not in result.stderr:
        error = Internal("The disc's DICOMDIR could not be made. The service's log says why.")
        error.add_note(f"dcmmkdir ended with status {result.rc}: {result.stderr.strip()}")
        raise error
    return complaints(result.stderr, indexer.stage, files)


def complaints(log: str, stage: Path, files: Iterable[str]) -> dict[str, str]:
    """What dcmmkdir's log says against files, the first of it about each."""
    found: dict[str, str] = {}
    known = set(files)
    for line in log.splitlines():
        what, _, last = line[len("E: ") :].rpartition(": ")
        file = what.removeprefix(f"file {stage}/")
        if line.startswith("E: ") and last in known:
            found.setdefault(last, what.removesuffix(" in file"))
        elif line.startswith("W: ") and file in known:
            found.setdefault(file, last)
    return found
