"""C-GET as an SCU (PS3.4 C.4.3), what no program of DCMTK does without changing or losing compressed instances.

It asks for what its plan wants, a JSON file, and takes what the archive stores on the same association (PS3.7 9.1.3):
each data set is written as it comes, behind the file meta information, and has its name when it is there to the last
byte. Each SOP class is offered in each transfer syntax by a presentation context of its own, so that an archive need
not convert; where these are more than an association may have, there are several associations, one after the other.

It writes a JSON object a line: `refused` and `why` where there is no association; `asked`, the level of a C-GET;
`status` and the counts of the first response and of the last two; `instance`, which was not kept, and `why`; `lost`,
why the association ended early. It knows nothing of mkiso, and is run by its file's name, once for each series: with a
DICOM library it would take ten times as long to begin.
"""

import json
import os
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

GET = "1.2.840.10008.5.1.4.1.2.2.3"  # Study Root Query/Retrieve Information Model - GET
APPLICATION, IMPLICIT = "1.2.840.10008.3.1.1.1", "1.2.840.10008.1.2"
LIMIT = "it has as many associations as it takes"
# What the file meta information says of who wrote it (PS3.10 7.1): a UID of a UUID's number (PS3.5 B.2).
IMPLEMENTATION, VERSION = "2.25.146329849716043405514647331392051961700", "MKISO_GET"
REQUEST, ACCEPT, REJECT, DATA, RELEASE, RELEASED, ABORT = range(1, 8)  # types of PDUs, PS3.8 9.3
CONTEXT, ANSWER, ABSTRACT, TRANSFER, USER, LENGTH, CLASS, ROLE, NAME = (
    *(0x20, 0x21, 0x30, 0x40, 0x50, 0x51, 0x52, 0x54, 0x55),
)
TRANSIENT = 2  # result of a rejection, PS3.8 9.3.4
REASONS = {  # by its source, PS3.8 9.3.4
    (1, 2): "it does not know the application context",
    (1, 3): "it does not know the calling AE title",
    (1, 7): "it does not know the called AE title",
    (2, 2): "it does not know the protocol's version",
    (3, 1): "it is congested",
    (3, 2): LIMIT,
}
FRAGMENT = 2  # bytes of a fragment's context and header
COMMAND, LAST = 1, 2  # bits of a fragment's header, PS3.8 E.2
STORE, STORED, GOT, ASK = 0x0001, 0x8001, 0x8010, 0x0010  # command fields, PS3.7 E.1
NO_DATA = 0x0101
SUCCESS, NO_ROOM, NOT_UNDERSTOOD = 0x0000, 0xA700, 0xC000
PENDING = (0xFF00, 0xFF01)
COUNTS = {"remaining": 0x1020, "completed": 0x1021, "failed": 0x1022, "warning": 0x1023}
INSTANCE, LEVEL, FAILED_UIDS = (0x0008, 0x0018), (0x0008, 0x0052), (0x0008, 0x0058)
STUDY, SERIES = (0x0020, 0x000D), (0x0020, 0x000E)
HEADER = 8  # bytes of an element's tag and length
LARGEST_PDU, SMALLEST_PDU = 131072, 128  # bytes; the largest as storescp takes them
LARGEST_MESSAGE = 1 << 24  # of a command, or of a response's data set
BUFFER = 1 << 18
OWN, MOST = 1, 127  # the presentation context of C-GET, and how many others an association may have
LONGEST_UID = 64  # characters
UIDS_AT_ONCE = 100
Fields = dict[int, int | bytes]  # of a command, by the element's number
Elements = dict[tuple[int, int], bytes]
GOODBYE = 2.0  # seconds for the answer to a release


class Lost(Exception):
    """The association ended, or what came on it is not DICOM's upper layer."""


class Refused(Exception):
    """There is no association: in which way, and why."""


def tell(**event: object) -> None:
    print(json.dumps(event), flush=True)


def padded(value: str, pad: str = "\0") -> bytes:
    data = value.encode("latin-1", "replace")
    return data + pad.encode() * (len(data) % 2)


def item(kind: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">BBH", kind, 0, len(body)) + body


def pdu(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBL", kind, 0, len(body)) + body


def element(group: int, number: int, value: bytes) -> bytes:
    """In implicit VR little endian (PS3.5 7.1.3)."""
    return struct.pack("<HHL", group, number, len(value)) + value


def elements(data: bytes) -> Elements:
    """Of a data set in implicit VR little endian, without sequences. Raises Lost."""
    found: Elements = {}
    at = 0
    while at < len(data):
        if len(data) - at < HEADER:
            raise Lost("a message of it is cut")
        group, number, length = struct.unpack_from("<HHL", data, at)
        found[group, number] = data[at + 8 : at + 8 + length]
        at += 8 + length
    return found


def text(found: Elements, group: int, number: int) -> str:
    return found.get((group, number), b"").decode("latin-1").strip("\0 ")


def integer(found: Elements, number: int) -> int:
    value = found.get((0, number), b"")
    return int.from_bytes(value[:2], "little")


def request_pdu(calling: str, called: str, contexts: dict[int, tuple[str, str]]) -> bytes:
    """A-ASSOCIATE-RQ (PS3.8 9.3.2), in which this side is the SCP of whatever is to be stored (PS3.7 D.3.3.4)."""
    offered = (
        item(CONTEXT, bytes([number, 0, 0, 0]), item(ABSTRACT, sop.encode()), item(TRANSFER, syntax.encode()))
        for number, (sop, syntax) in contexts.items()
    )
    classes = dict.fromkeys(sop for sop, _ in contexts.values() if sop != GET)
    roles = (item(ROLE, struct.pack(">H", len(sop)), sop.encode(), b"\0\1") for sop in classes)
    user = item(
        USER,
        item(LENGTH, struct.pack(">L", LARGEST_PDU)),
        item(CLASS, IMPLEMENTATION.encode()),
        *roles,
        item(NAME, VERSION.encode()),
    )
    titles = struct.pack(">HH16s16s32x", 1, 0, called.ljust(16).encode(), calling.ljust(16).encode())
    return pdu(REQUEST, titles + item(0x10, APPLICATION.encode()) + b"".join(offered) + user)


def items(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(data):
        kind, _, length = struct.unpack_from(">BBH", data, at)
        yield kind, data[at + 4 : at + 4 + length]
        at += 4 + length


class Association:
    """An association with the archive, on which C-GET is accepted. Raises Refused, Lost, OSError."""

    def __init__(self, plan: dict[str, Any], classes: list[tuple[str, list[str]]]) -> None:
        self._plan = plan
        syntaxes = [(GET, IMPLICIT), *((sop, syntax) for sop, known in classes for syntax in known)]
        self._contexts = {2 * number + 1: context for number, context in enumerate(syntaxes)}
        self._buffer = memoryview(bytearray(BUFFER))
        self._left = 0  # bytes of the PDU that is being read
        self._largest = LARGEST_PDU
        limit = plan["connect_timeout"]
        try:
            self._socket = socket.create_connection((plan["host"], plan["port"]), limit)
        except OSError as error:
            raise Refused("unreachable", error.strerror or str(error)) from None
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader: Any = self._socket.makefile("rb", 1 << 16)
        try:
            self._negotiate()
        except (Lost, OSError) as error:
            raise Refused("unreachable", str(error)) from None
        self._socket.settimeout(plan["timeout"])

    def _negotiate(self) -> None:
        self._socket.sendall(request_pdu(self._plan["calling"], self._plan["called"], self._contexts))
        kind, length = self._header()
        body = bytes(self._exactly(min(length, LARGEST_MESSAGE)))
        if kind == REJECT and len(body) > 3:  # noqa: PLR2004  (its reason)
            why = REASONS.get((body[2], body[3]), "it gives no reason")
            raise Refused("busy" if body[1] == TRANSIENT else "rejected", why)
        if kind != ACCEPT:
            raise Lost("it answered no association")
        parts = list(items(body[68:]))
        accepted = {data[0] for part, data in parts if part == ANSWER and data[2:3] == b"\0"}
        self._contexts = {number: known for number, known in self._contexts.items() if number in accepted}
        if OWN not in accepted:
            raise Refused("no context", "it takes no C-GET")
        for part, data in items(b"".join(data for part, data in parts if part == USER)):
            if part == LENGTH:
                self._largest = max(SMALLEST_PDU, int.from_bytes(data, "big") or LARGEST_PDU)

    def get(self, level: str, keys: list[tuple[tuple[int, int], str]], keep: Callable[..., int]) -> None:
        """A C-GET of this level, to its final response; `keep` takes each instance, and gives its status."""
        tell(asked=level)
        fields: Fields = {0x0002: padded(GET), 0x0100: ASK, 0x0110: 1, 0x0700: 0, 0x0800: 1}
        self._send(OWN, COMMAND, message(fields))
        identifier = [(LEVEL, padded(level, " ")), *((tag, padded(one)) for tag, one in keys)]
        self._send(OWN, 0, b"".join(element(*tag, value) for tag, value in sorted(identifier)))
        untold: list[dict[str, Any]] = []  # of many responses, the first is told at once, and the last two
        try:
            for number, event in enumerate(self._responses(keep)):
                untold = [event] if event["status"] in PENDING else [*untold, event]
                if not number:
                    tell(**untold.pop())
        finally:
            for event in untold:
                tell(**event)

    def _responses(self, keep: Callable[..., int]) -> Iterator[dict[str, Any]]:
        """Each response to its final one, as it is told; what is stored between them is kept."""
        while True:
            context, command = self._message(COMMAND)
            field = integer(command, 0x0100)
            if field == STORE and context in self._contexts and context != OWN:
                self._store(context, command, keep)
            elif field == GOT:
                yield (event := self._response(command))
                if event["status"] not in PENDING:
                    return
            else:
                raise Lost(f"it sent a command that none was waiting for ({field:04x})")

    def release(self) -> None:
        """Part from the archive (PS3.8 7.2)."""
        self._socket.settimeout(GOODBYE)
        with suppress(Lost, OSError):
            self._socket.sendall(pdu(RELEASE, bytes(4)))
            while (header := self._header())[0] != RELEASED:
                self._exactly(min(header[1], LARGEST_MESSAGE))
        self._socket.close()

    def _store(self, context: int, command: Elements, keep: Callable[..., int]) -> None:
        sop, uid = text(command, 0, 0x0002), text(command, 0, 0x1000)
        pieces = self._pieces(context) if integer(command, 0x0800) != NO_DATA else iter(())
        status = NOT_UNDERSTOOD
        if integer(command, 0x0800) != NO_DATA and max(len(sop), len(uid)) <= LONGEST_UID:
            status = keep(sop, uid, self._contexts[context][1], pieces)
        for _ in pieces:
            pass
        fields: Fields = {0x0002: padded(sop), 0x0100: STORED, 0x0120: integer(command, 0x0110), 0x0800: NO_DATA}
        fields |= {0x0900: status, 0x1000: padded(uid)}
        self._send(context, COMMAND, message(fields))

    def _response(self, command: Elements) -> dict[str, Any]:
        event: dict[str, Any] = {"status": integer(command, 0x0900)}
        event |= {name: integer(command, number) for name, number in COUNTS.items() if (0, number) in command}
        event |= {"comment": comment} if (comment := text(command, 0, 0x0902)) else {}
        if integer(command, 0x0800) != NO_DATA:
            _, found = self._message(0)
            event["failed_uids"] = [uid for uid in text(found, *FAILED_UIDS).split("\\") if uid]
        return event

    def _send(self, context: int, kind: int, data: bytes) -> None:
        size = self._largest - 6
        for at in range(0, len(data), size):
            piece = data[at : at + size]
            header = kind | (LAST if at + size >= len(data) else 0)
            self._socket.sendall(pdu(DATA, struct.pack(">LBB", len(piece) + 2, context, header) + piece))

    def _message(self, kind: int) -> tuple[int, Elements]:
        """A command, or the data set of a response, and its context."""
        data, context = bytearray(), 0
        for context, piece in self._fragments(kind):  # noqa: B007  (all of them are of the last one's)
            data += piece
            if len(data) > LARGEST_MESSAGE:
                raise Lost("a message of it is too long")
        return context, elements(bytes(data))

    def _pieces(self, context: int) -> Iterator[memoryview]:
        """The bytes of a data set that is stored; each piece is to be used before the next is asked for."""
        for of, piece in self._fragments(0):
            if of != context:
                raise Lost("a data set of it is on two presentation contexts")
            yield piece
        if self._left:  # nothing may follow until it has the answer
            raise Lost("it sent more than a data set")

    def _fragments(self, kind: int) -> Iterator[tuple[int, memoryview]]:
        """The pieces of what comes next, which is to be of this kind, to its last."""
        while True:
            while not self._left:
                pdu_type, self._left = self._header()
                if pdu_type != DATA:
                    raise Lost("it aborted the association" if pdu_type == ABORT else "it ended the association")
            length, context, header = struct.unpack(">LBB", self._exactly(6))
            self._left -= 4 + length
            if length < FRAGMENT or self._left < 0 or header & COMMAND != kind:
                raise Lost("it sent a fragment that is none")
            length -= FRAGMENT
            while length:
                count = self._read(self._buffer[: min(length, BUFFER)])
                length -= count
                yield context, self._buffer[:count]
            if header & LAST:
                return

    def _header(self) -> tuple[int, int]:
        kind, _, length = struct.unpack(">BBL", self._exactly(6))
        return kind, length

    def _exactly(self, count: int) -> bytearray:
        data = bytearray(count)
        if count and self._read(memoryview(data)) < count:
            raise Lost("it hung up")
        return data

    def _read(self, buffer: memoryview) -> int:
        """Fill the buffer, as far as the archive sends. Raises Lost where it does not."""
        try:
            count: int = self._reader.readinto(buffer)
        except OSError as error:
            raise Lost(error.strerror or str(error)) from None
        if not count:
            raise Lost("it hung up")
        return count


def message(fields: Fields) -> bytes:
    """A command set (PS3.7 6.3.1)."""
    values = {number: struct.pack("<H", one) if isinstance(one, int) else one for number, one in fields.items()}
    body = b"".join(element(0, number, value) for number, value in sorted(values.items()))
    return element(0, 0, struct.pack("<L", len(body))) + body


class Kept:
    """What came, each under a name of its own in `directory` once it is whole."""

    def __init__(self, directory: str, unfinished: str, source: str) -> None:
        self.uids: set[str] = set()
        self._directory, self._unfinished, self._source = Path(directory), Path(unfinished), source
        self._begin = f"GET.{os.getpid()}.{time.time_ns()}"
        self._count = 0

    def keep(self, sop: str, uid: str, syntax: str, pieces: Iterator[memoryview]) -> int:
        """Write an instance to its end; the status that the archive is told (PS3.4 B.2.3)."""
        self._count += 1
        try:
            with open(self._unfinished, "wb", buffering=0) as file:
                file.write(self._beginning(sop, uid, syntax))
                for piece in pieces:
                    while piece := piece[file.write(piece) :]:
                        pass
            os.rename(self._unfinished, self._directory / f"{self._begin}.{self._count}")
        except OSError as error:
            self._unfinished.unlink(missing_ok=True)
            tell(instance=uid, why=error.strerror or str(error))
            return NO_ROOM
        self.uids.add(uid)
        return SUCCESS

    def _beginning(self, sop: str, uid: str, syntax: str) -> bytes:
        """Preamble and file meta information (PS3.10 7.1)."""
        values = (
            *((0x02, b"UI", padded(sop)), (0x03, b"UI", padded(uid)), (0x10, b"UI", padded(syntax))),
            *((0x12, b"UI", padded(IMPLEMENTATION)), (0x13, b"SH", padded(VERSION, " "))),
            (0x16, b"AE", padded(self._source, " ")),
        )
        body = struct.pack("<HH2sHL", 2, 1, b"OB", 0, 2) + b"\0\1"
        body += b"".join(struct.pack("<HH2sH", 2, number, vr, len(one)) + one for number, vr, one in values)
        return bytes(128) + b"DICM" + struct.pack("<HH2sHL", 2, 0, b"UL", 4, len(body)) + body


def requests(plan: dict[str, Any], wanted: dict[str, list[str]] | None) -> Iterator[tuple[str, list[Any]]]:
    """The level and the unique keys of each C-GET: of the plan's own part, or of these instances (PS3.4 C.4.3.1.3)."""
    study = (STUDY, plan["study"])
    if wanted is None:
        series = [(SERIES, plan["series"])] if plan["series"] else []
        yield ("SERIES" if series else "STUDY"), [study, *series]
        return
    for series_uid, uids in wanted.items():
        for at in range(0, len(uids), UIDS_AT_ONCE):
            some = "\\".join(uids[at : at + UIDS_AT_ONCE])
            yield "IMAGE", [study, (SERIES, series_uid), (INSTANCE, some)]


def missing(plan: dict[str, Any], step: dict[str, Any], kept: Kept) -> dict[str, list[str]]:
    """What this step may bring of what has not come, by series."""
    among = None if step["instances"] is None else set(step["instances"])
    return {
        series: left
        for series, uids in plan["wanted"].items()
        if (left := [uid for uid in uids if uid not in kept.uids and (among is None or uid in among)])
    }


def main(file: str) -> None:
    """Take the plan's steps, each an association, until everything wanted is there."""
    plan = json.loads(Path(file).read_text())
    kept = Kept(plan["directory"], plan["unfinished"], plan["called"])
    for number, step in enumerate(plan["steps"]):
        wanted = missing(plan, step, kept) if number or step["instances"] else None
        if wanted == {}:
            continue
        try:
            association = Association(plan, step["classes"])
            for level, keys in requests(plan, wanted):
                association.get(level, keys, kept.keep)
            association.release()
        except Refused as error:
            tell(refused=error.args[0], why=error.args[1])
            return
        except (Lost, OSError) as error:
            tell(lost=str(error))


if __name__ == "__main__":
    main(*sys.argv[1:])
