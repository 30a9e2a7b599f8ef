"""The files of a disc, wherever they lie: what every check looks at; and a directory or a ZIP archive as such a medium.

Of an archive (PKWARE APPNOTE 6.3.10) nothing is unpacked to a disk, and into memory no more than what is looked at: a
stored member is read where it lies, another as it is unpacked. No byte belongs to two members, so that whatever an
archive claims, to read it costs what its size allows. One with a password is read by pyzipper, which decrypts a member
from its beginning to what is looked at.

Names come from strangers: what could lead out of the disc, or lies there twice, is a fault and no file.
"""

from __future__ import annotations

import os
import stat
import struct
import sys
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from io import BufferedReader, FileIO
from itertools import islice
from pathlib import Path
from typing import IO, NamedTuple
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import pyzipper  # type: ignore[import-untyped]

# A check yields what is wrong, as often as it is, and returns what it found otherwise.
Findings = Generator[str, None, str]
# What lies where on a disc of the layout `pdi`.
ROOT_FILES = (DICOMDIR, README, INDEX, PHONE) = ("DICOMDIR", "README.TXT", "INDEX.HTM", "PHONE.HTM")
FOLDERS = (IMAGES, OTHER, WEB) = ("IMAGES", "OTHER", "IHE_PDI")
A_FOLDER = 1_000  # files and folders that may lie in one
MOVED = "RR_MOVED"  # the folder that genisoimage makes for what lies too deep; its content is seen where it was
DEEPEST = 64  # folders in folders
MOST_FILES = 250_000  # each has its names in memory; a disc of 100 GB of CT images has fewer
LOCAL_HEADER = struct.Struct("<4s2xHHxxxxLLLHH")  # 4.3.7
LOCAL, CENTRAL = b"PK\3\4", b"PK\1\2"
ENCRYPTED, SIZES_BEHIND, IN_UTF_8 = 1, 8, 1 << 11  # 4.4.4
IN_ZIP64 = 0xFFFFFFFF
# WinZip's AES: the method that stands for it, AES-256, and what salt, check and code add to a member's bytes.
AES, AES_256, AES_ADDS = 99, 3, 28
LARGEST_DIRECTORY = 1 << 26
PIECE = 1 << 18
# More than this, and it is a bomb: what it unpacks to would be read for hours.
MOST_UNPACKED, MOST_RATIO = 1 << 32, 100
# What zipfile and its decompressors raise on archives that are none.
DAMAGES = (
    *(BadZipFile, pyzipper.BadZipFile, zlib.error, struct.error),
    *(EOFError, ValueError, RuntimeError, NotImplementedError, OSError),
)


def is_ours(name: str) -> bool:
    """Whether a file is one of the layout's, and not of the viewer's."""
    root, slash, _ = name.upper().partition("/")
    return root in FOLDERS if slash else root in ROOT_FILES


class UnreadableDisc(Exception):
    """It cannot be read as a disc, or as a file of one; the text says why."""


class WrongPassword(UnreadableDisc):
    """The disc needs a password, another one, or none."""


@dataclass(frozen=True)
class Extent:
    """A file's bytes, and their `place`: what has the same one is the same file under another name."""

    size: int
    place: tuple[int, ...]
    piece: Callable[[int, int], bytes]

    def read(self, length: int, at: int = 0) -> bytes:
        """At most so many of its bytes, fewer at its end."""
        return self.piece(max(0, min(length, self.size - at)), at)


def lying(descriptor: int, begin: int, size: int, *place: int) -> Extent:
    """A file whose bytes lie within an open one."""
    return Extent(size, place or (begin, size), lambda length, at: os.pread(descriptor, length, begin + at))


@dataclass(frozen=True)
class Medium:
    """A disc's files with their sizes, by their names below its root, and what is wrong with the medium itself.

    `damages` are those of what it is made of, `strangers` names that a disc must not have. `packed` are the bytes of a
    medium whose files may unpack to more.
    """

    kind: str
    files: Mapping[str, int]
    folders: frozenset[str]
    opened: Callable[[str], AbstractContextManager[Extent]]
    strangers: tuple[str, ...] = ()
    damages: Callable[[], Iterable[str]] = field(default=tuple)
    volume_id: str | None = None
    packed: int = sys.maxsize

    @cached_property
    def _folded(self) -> dict[str, str]:
        return {name.upper(): name for name in self.files}

    def find(self, name: str) -> str | None:
        """The file of this name: in whatever case, since ISO 9660 knows capitals alone (ECMA-119 7.4.1)."""
        return name if name in self.files else self._folded.get(name.upper())

    def below(self, folder: str) -> list[str]:
        """The files of a folder of the root, and of those in it."""
        return [name for name in self.files if name.upper().startswith(f"{folder.upper()}/")]

    def roots(self) -> list[str]:
        """What lies at the root."""
        return list(dict.fromkeys(name.partition("/")[0] for name in (*self.files, *sorted(self.folders))))


def is_plain(name: str) -> bool:
    """Whether a name leads to a place within the disc, on any system."""
    parts = name.split("/")
    return not (set(parts) & {"", ".", ".."} or set(name) & set("\\\0") or name[1:2] == ":" or len(parts) > DEEPEST)


@contextmanager
def directory_medium(root: Path) -> Iterator[Medium]:
    """A mounted or unpacked disc; no link is followed. Raises UnreadableDisc, and OSError of a folder."""
    files: dict[str, int] = {}
    folders: list[str] = []
    strangers: list[str] = []
    todo = [""]
    while todo:
        folder = todo.pop()
        with os.scandir(root / folder) as entries:
            found = sorted(islice(entries, MOST_FILES + 1), key=lambda one: one.name)
            if len(files) + len(folders) + len(strangers) + len(found) > MOST_FILES:
                raise UnreadableDisc(f"it has more than {MOST_FILES} files and folders")
            for entry in found:
                name = f"{folder}/{entry.name}" if folder else entry.name
                mode = entry.stat(follow_symlinks=False)
                if not is_plain(name):
                    strangers.append(f"{name} is no name for every system")
                elif stat.S_ISDIR(mode.st_mode):
                    todo.append(name)
                    folders.append(name)
                elif stat.S_ISREG(mode.st_mode):
                    files[name] = mode.st_size
                else:
                    strangers.append(f"{name} is neither a file nor a folder")
    yield Medium("directory", files, frozenset(folders), lambda name: _opened(root / name), tuple(strangers))


@contextmanager
def _opened(path: Path) -> Iterator[Extent]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            raise UnreadableDisc(f"{path.name} is no file any more")
        yield lying(descriptor, 0, state.st_size, state.st_dev, state.st_ino)
    finally:
        os.close(descriptor)


class _BoundedArchive(BufferedReader):
    """A file of which no directory of members is read that has far too many."""

    def read(self, size: int | None = -1) -> bytes:
        size = LARGEST_DIRECTORY if size is None or size < 0 else size
        if size > LARGEST_DIRECTORY:
            raise UnreadableDisc("its directory of members is too large")
        data = super().read(size)
        if len(data) > MOST_FILES and data.count(CENTRAL) > MOST_FILES:
            raise UnreadableDisc(f"it has more than {MOST_FILES} members")
        return data


class _Member(NamedTuple):
    """A member, where its bytes begin, and why nobody can tell what it is: two programs would unpack two, or none."""

    info: ZipInfo
    begin: int
    fault: str | None


@contextmanager
def archive_medium(path: Path, password: str | None = None) -> Iterator[Medium]:
    """An archive's members, all of them encrypted where there is a password. Raises WrongPassword.

    Raises UnreadableDisc where it has no directory of them, is a bomb, or members overlap.
    """
    with _BoundedArchive(FileIO(path)) as file:
        try:
            archive = ZipFile(file) if password is None else pyzipper.AESZipFile(file)
        except (*DAMAGES, OverflowError, IndexError) as error:
            raise UnreadableDisc(f"its directory of members cannot be read ({error})") from error
        _refuse_bomb(archive.infolist(), os.fstat(file.fileno()).st_size)
        located = dict(_located(archive, file))
        if password is None:
            if any(info.compress_type == AES for info in archive.infolist()):
                raise WrongPassword("it needs a password. Give the file that has it: --password-file FILE")
        else:
            archive.setpassword(password.encode())
            _require_right_password(archive, located.values())
        yield _archive_medium(archive, file, located)


def _require_right_password(archive: ZipFile, members: Iterable[_Member]) -> None:
    """Raise WrongPassword where nothing is encrypted, or the first member that is tells that it is another one.

    What else is wrong with them, the check of the medium tells.
    """
    if not any(info.flag_bits & ENCRYPTED for info in archive.infolist()):
        raise WrongPassword("it is not protected: nothing in it needs a password")
    first = next((one.info for one in members if not one.fault), None)
    with suppress(*DAMAGES):
        try:
            if first is not None:
                archive.open(first).close()
        except RuntimeError as error:
            raise WrongPassword("the password does not open it") from error


def _is_aes(info: ZipInfo) -> bool:
    return getattr(info, "wz_aes_version", None) is not None


def _refuse_bomb(members: Iterable[ZipInfo], size: int) -> None:
    unpacked = sum(one.file_size for one in members if one.compress_type != ZIP_STORED)
    if unpacked > max(MOST_UNPACKED, MOST_RATIO * size):
        raise UnreadableDisc(f"it would unpack to {unpacked} bytes")


def _located(archive: ZipFile, file: IO[bytes]) -> Iterator[tuple[int, _Member]]:
    """The members by the places of their headers, in the order in which they lie; UnreadableDisc where two overlap."""
    end, before = 0, "the archive's beginning"
    for info in sorted(archive.infolist(), key=lambda one: one.header_offset):
        if info.header_offset < end:
            raise UnreadableDisc(f"its members overlap: {info.filename} begins within {before}")
        member = _member_of(info, file.fileno())
        end, before = member.begin + info.compress_size, info.filename
        yield info.header_offset, member
    if end > archive.start_dir:
        raise UnreadableDisc(f"its members overlap: {before} ends behind where the directory of members begins")


def _member_of(info: ZipInfo, descriptor: int) -> _Member:
    """A member by what the archive's directory says of it, and what it says of itself before its bytes."""
    head = os.pread(descriptor, LOCAL_HEADER.size, info.header_offset)
    if len(head) < LOCAL_HEADER.size:
        raise UnreadableDisc(f"{info.filename} does not begin where the archive's directory says")
    signature, flags, method, crc, packed, size, name_length, extra_length = LOCAL_HEADER.unpack(head)
    name_at = info.header_offset + LOCAL_HEADER.size
    name = info.orig_filename.encode("utf-8" if info.flag_bits & IN_UTF_8 else "cp437", "replace")
    same = (signature, os.pread(descriptor, name_length, name_at)) == (LOCAL, name)
    same &= (method, flags & ENCRYPTED) == (
        AES if _is_aes(info) else info.compress_type,
        info.flag_bits & ENCRYPTED,
    )
    sizes = ((packed, info.compress_size), (size, info.file_size), (crc, info.CRC))
    same &= bool(flags & SIZES_BEHIND) or all(own in {one, IN_ZIP64} for own, one in sizes)
    fault = _fault(info) if same else "says another thing of itself than the archive's directory"
    return _Member(info, name_at + name_length + extra_length, fault)


def _fault(info: ZipInfo) -> str | None:
    """Why not every system can unpack a member, or anybody could."""
    if fault := _fault_of_encryption(info):
        return fault
    if info.compress_type not in {ZIP_STORED, ZIP_DEFLATED}:
        return "is compressed in a way that not every system knows"
    adds = AES_ADDS if _is_aes(info) else 0
    if info.compress_size < adds or (info.compress_type == ZIP_STORED and info.compress_size != info.file_size + adds):
        return "is stored, and has two sizes"
    return None


def _fault_of_encryption(info: ZipInfo) -> str | None:
    is_encrypted = bool(info.flag_bits & ENCRYPTED)
    if isinstance(info, ZipInfo):
        return "is encrypted" if is_encrypted else None
    if not (is_encrypted and _is_aes(info)):
        return "is not encrypted with AES as the others are"
    return None if info.wz_aes_strength == AES_256 else "is encrypted with a shorter key than AES-256"


def _archive_medium(archive: ZipFile, file: IO[bytes], located: Mapping[int, _Member]) -> Medium:
    members: dict[str, _Member] = {}
    folders, strangers = set(), []
    for info in archive.infolist():
        name = info.filename
        if strange := _strange(info, name in members):
            strangers.append(f"{name} {strange}")
        elif info.is_dir():
            folders.add(name.rstrip("/"))
        else:
            members[name] = located[info.header_offset]
    folders |= {name[:end] for name in members for end, letter in enumerate(name) if letter == "/"}
    strangers += [f"{name} is a file and a folder" for name in members if name in folders]
    return Medium(
        "ZIP",
        {name: member.info.file_size for name, member in members.items()},
        frozenset(folders),
        lambda name: _member(archive, file, members[name]),
        tuple(strangers),
        partial(_archive_damages, archive, members),
        packed=os.fstat(file.fileno()).st_size,
    )


def _strange(member: ZipInfo, again: bool) -> str | None:
    if member.orig_filename.rstrip("/") != member.filename.rstrip("/") or not is_plain(member.filename.rstrip("/")):
        return "is no name for every system"
    if stat.S_IFMT(member.external_attr >> 16) not in {0, stat.S_IFREG, stat.S_IFDIR}:
        return "is neither a file nor a folder"
    return "is there twice" if again else None


def _archive_damages(archive: ZipFile, members: Mapping[str, _Member]) -> Iterator[str]:
    """Each member is read to its end: there zipfile compares its CRC-32."""
    for name, member in members.items():
        if member.fault:
            yield f"{name} {member.fault}"
            continue
        try:
            with archive.open(member.info) as content:
                while content.read(PIECE):
                    pass
        except DAMAGES as error:
            yield f"{name}: {error}"


@contextmanager
def _member(archive: ZipFile, file: IO[bytes], member: _Member) -> Iterator[Extent]:
    info = member.info
    if member.fault:
        raise UnreadableDisc(f"{info.filename} {member.fault}")
    if info.compress_type == ZIP_STORED and not _is_aes(info):
        yield lying(file.fileno(), member.begin, info.file_size)
        return
    with _readable(info):
        content = archive.open(info)

    def piece(length: int, at: int) -> bytes:
        """Forwards as it is unpacked, backwards from the beginning."""
        with _readable(info):
            content.seek(at)
            return content.read(length)

    with content:
        yield Extent(info.file_size, (member.begin, info.file_size), piece)


@contextmanager
def _readable(info: ZipInfo) -> Iterator[None]:
    try:
        yield
    except DAMAGES as error:
        raise UnreadableDisc(f"{info.filename}: {error}") from error
