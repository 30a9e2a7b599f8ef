"""A ZIP archive as a tree (PKWARE APPNOTE 6.3.10). A stored member is read where it lies, another is unpacked."""

from __future__ import annotations

import os
import stat
import struct
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from shutil import copyfileobj
from typing import IO
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from mkiso.verify.trees import Extent, Tree, Unreadable, is_plain

LOCAL_HEADER = struct.Struct("<4s22xHH")  # 4.3.7
ENCRYPTED = 1
PIECE = 1 << 18
# More than this, and it is a bomb: what it unpacks to would be read for hours.
MOST_UNPACKED, MOST_RATIO = 1 << 34, 100
# What zipfile and its decompressors raise on archives that are none.
DAMAGES = (BadZipFile, zlib.error, struct.error, EOFError, ValueError, RuntimeError, NotImplementedError, OSError)


@contextmanager
def archive_tree(path: Path) -> Iterator[Tree]:
    """The members of an archive. Raises Unreadable where it has no directory of them, or is a bomb."""
    with path.open("rb") as file:
        try:
            archive = ZipFile(file)
        except (*DAMAGES, OverflowError, IndexError) as error:
            raise Unreadable(f"its directory of members cannot be read ({error})") from error
        _require_modest(archive.infolist(), os.fstat(file.fileno()).st_size)
        yield _tree(archive, file)


def _require_modest(members: Iterable[ZipInfo], size: int) -> None:
    unpacked = sum(one.file_size for one in members if one.compress_type != ZIP_STORED)
    if unpacked > max(MOST_UNPACKED, MOST_RATIO * size):
        raise Unreadable(f"it would unpack to {unpacked} bytes")


def _tree(archive: ZipFile, file: IO[bytes]) -> Tree:
    members: dict[str, ZipInfo] = {}
    folders, strangers = set(), []
    for member in archive.infolist():
        name = member.filename
        if strange := _strange(member, name in members):
            strangers.append(f"{name} {strange}")
        elif member.is_dir():
            folders.add(name.rstrip("/"))
        else:
            members[name] = member
    folders |= {name[:end] for name in members for end, letter in enumerate(name) if letter == "/"}
    strangers += [f"{name} is a file and a folder" for name in members if name in folders]
    return Tree(
        "ZIP",
        {name: member.file_size for name, member in members.items()},
        frozenset(folders),
        lambda name: _opened(archive, file, members[name]),
        tuple(strangers),
        partial(_damages, archive, members),
    )


def _strange(member: ZipInfo, again: bool) -> str | None:
    if member.orig_filename.rstrip("/") != member.filename.rstrip("/") or not is_plain(member.filename.rstrip("/")):
        return "is no name for every system"
    if stat.S_IFMT(member.external_attr >> 16) not in {0, stat.S_IFREG, stat.S_IFDIR}:
        return "is neither a file nor a folder"
    return "is there twice" if again else None


def _damages(archive: ZipFile, members: dict[str, ZipInfo]) -> Iterator[str]:
    """Each member is read to its end: there zipfile compares its CRC-32."""
    for name, member in members.items():
        try:
            with archive.open(member) as content:
                while content.read(PIECE):
                    pass
        except DAMAGES as error:
            yield f"{name}: {error}"


@contextmanager
def _opened(archive: ZipFile, file: IO[bytes], member: ZipInfo) -> Iterator[Extent]:
    if member.compress_type == ZIP_STORED and not member.flag_bits & ENCRYPTED:
        yield _stored(file, member)
        return
    with tempfile.TemporaryFile() as unpacked:
        try:
            with archive.open(member) as content:
                copyfileobj(content, unpacked, PIECE)
        except DAMAGES as error:
            raise Unreadable(f"{member.filename}: {error}") from error
        unpacked.flush()
        yield Extent(unpacked.fileno(), 0, unpacked.tell())


def _stored(file: IO[bytes], member: ZipInfo) -> Extent:
    header = os.pread(file.fileno(), LOCAL_HEADER.size, member.header_offset)
    if len(header) < LOCAL_HEADER.size:
        raise Unreadable(f"{member.filename} does not begin where the archive's directory says")
    _signature, name, extra = LOCAL_HEADER.unpack(header)
    return Extent(file.fileno(), member.header_offset + LOCAL_HEADER.size + name + extra, member.file_size)
