"""C-STORE of files whose data sets are sent byte for byte: what no program of DCMTK does (PS3.7 9.1.1, PS3.8 9.3).

They read a data set and write it anew, and cannot where it is malformed. So this is a program of its own, beside them:
it proposes each instance's own transfer syntax and sends what the file holds. Its output is like storescu's, so that it
is read in the same way, and it knows nothing of mkiso: it is run by its file's name.
"""

import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

VERSION = b"\0\1\0\0"  # protocol version 1
APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
IMPLEMENTATION = "1.2.826.0.1.3680043.8.498.99.1"
CONTEXT, CONTEXT_ACCEPTED, USER, LARGEST_PDU = 0x20, 0x21, 0x50, 0x51
ASSOCIATE, ACCEPT, REJECT, DATA, RELEASE = 1, 2, 3, 4, 5
MOST = 131072
HEAD = 68  # bytes of an A-ASSOCIATE before its items
META = 132
SYNTAX, SOP_CLASS, SOP_INSTANCE = 0x0010, 0x0002, 0x0003
STATUS = 0x0900
TRANSIENT = 2  # PS3.8 9.3.4

ABORTED = "E: 0006:0317 Peer aborted Association (or never connected)"

Context = tuple[str, str]


class Refused(Exception):
    """There is no association, or none any more; its text is what storescu writes then."""


class Association:
    """An association that proposes these contexts, each a SOP class and a transfer syntax; `timeout` in seconds."""

    def __init__(self, peer: tuple[str, int], titles: tuple[str, str], contexts: list[Context], timeout: float) -> None:
        self._socket = socket.create_connection(peer, timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = self._socket.makefile("rb")
        self._most = MOST
        self._accepted: dict[Context, int] = {}
        self._write(ASSOCIATE, _request(titles, contexts))
        kind, body = self._read()
        if kind == REJECT:
            result = "Transient" if body[1] == TRANSIENT else "Permanent"
            raise Refused(f"F: Association Rejected:\nF: Result: Rejected {result}")
        if kind != ACCEPT:
            raise Refused("F: Association Request Failed: Peer aborted Association")
        self._take(body, contexts)
        if not self._accepted:
            raise Refused("F: No Acceptable Presentation Contexts")

    def set_timeout(self, seconds: float) -> None:
        self._socket.settimeout(seconds)

    def store(self, number: int, file: Path, meta: dict[int, str], begin: int) -> int | None:
        """The status of the answer; None where the instance's transfer syntax was not accepted."""
        context = self._accepted.get((meta[SOP_CLASS], meta[SYNTAX]))
        if context is None:
            return None
        self._send(context, 1, iter([_command(number, meta)]))
        with file.open("rb") as content:
            content.seek(begin)
            self._send(context, 0, iter(lambda: content.read(self._most), b""))
        return self._status()

    def release(self) -> None:
        self._write(RELEASE, bytes(4))
        self._read()
        self._socket.close()

    def _send(self, context: int, control: int, pieces: Iterator[bytes]) -> None:
        piece = next(pieces, b"")
        while piece:
            following = next(pieces, b"")
            last = control | (0 if following else 2)
            self._write(DATA, struct.pack(">LBB", len(piece) + 2, context, last) + piece)
            piece = following

    def _status(self) -> int:
        command, control = b"", 0
        while control & 2 == 0:
            kind, body = self._read()
            if kind != DATA:
                raise Refused(ABORTED)
            while body:
                length, _context, control = struct.unpack_from(">LBB", body)
                command += body[6 : length + 4]
                body = body[length + 4 :]
        return int.from_bytes(dict(_elements(command))[STATUS], "little")

    def _take(self, body: bytes, contexts: list[Context]) -> None:
        for kind, item in _items(body[HEAD:]):
            if kind == CONTEXT_ACCEPTED and item[2] == 0:
                self._accepted[contexts[item[0] // 2]] = item[0]
            if kind == USER:
                lengths = [struct.unpack(">L", value)[0] for sub, value in _items(item) if sub == LARGEST_PDU]
                self._most = min([MOST, *(length for length in lengths if length)]) // 2 * 2 - 6

    def _write(self, kind: int, body: bytes) -> None:
        self._socket.sendall(struct.pack(">BBL", kind, 0, len(body)) + body)

    def _read(self) -> tuple[int, bytes]:
        kind, _, length = struct.unpack(">BBL", self._exactly(6))
        if length > MOST:
            raise Refused("E: 0006:0302 Illegal PDU")
        return kind, self._exactly(length)

    def _exactly(self, size: int) -> bytes:
        read = self._received.read(size)
        if len(read) < size:
            raise Refused(ABORTED)
        return read


def _request(titles: tuple[str, str], contexts: list[Context]) -> bytes:
    called, calling = (title.encode("ascii").ljust(16) for title in titles)
    proposed = b"".join(
        _item(CONTEXT, bytes([2 * at + 1, 0, 0, 0]) + _item(0x30, sop_class) + _item(0x40, syntax))
        for at, (sop_class, syntax) in enumerate(contexts)
    )
    user = _item(LARGEST_PDU, struct.pack(">L", MOST)) + _item(0x52, IMPLEMENTATION)
    return VERSION + called + calling + bytes(32) + _item(0x10, APPLICATION_CONTEXT) + proposed + _item(USER, user)


def _item(kind: int, value: bytes | str) -> bytes:
    value = value.encode("ascii") if isinstance(value, str) else value
    return struct.pack(">BBH", kind, 0, len(value)) + value


def _items(body: bytes) -> Iterator[tuple[int, bytes]]:
    while body:
        kind, _, length = struct.unpack_from(">BBH", body)
        yield kind, body[4 : 4 + length]
        body = body[4 + length :]


def _command(number: int, meta: dict[int, str]) -> bytes:
    """A C-STORE request (PS3.7 9.3.1)."""
    elements = (
        (0x0002, _even(meta[SOP_CLASS])),
        (0x0100, struct.pack("<H", 1)),
        (0x0110, struct.pack("<H", number % 0xFFFF + 1)),
        (0x0700, bytes(2)),
        (0x0800, bytes(2)),
        (0x1000, _even(meta[SOP_INSTANCE])),
    )
    body = b"".join(struct.pack("<HHL", 0, element, len(value)) + value for element, value in elements)
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def _even(uid: str) -> bytes:
    return uid.encode("ascii") + b"\0" * (len(uid) % 2)


def _elements(command: bytes) -> Iterator[tuple[int, bytes]]:
    while command:
        _group, element, length = struct.unpack_from("<HHL", command)
        yield element, command[8 : 8 + length]
        command = command[8 + length :]


def _meta(file: Path) -> tuple[dict[int, str], int]:
    """What the receiver wrote of an instance before its data set (PS3.10 7.1), and where that begins."""
    with file.open("rb") as content:
        head = content.read(1 << 12)
    end, at, found = META + 12 + struct.unpack_from("<L", head, META + 8)[0], META, dict[int, str]()
    while at < end:
        _group, element, vr, length = struct.unpack_from("<HH2sH", head, at)
        start = at + 8
        if vr == b"OB":
            (length,), start = struct.unpack_from("<L", head, at + 8), at + 12
        found[element] = head[start : start + length].rstrip(b"\0 ").decode("ascii", "replace")
        at = start + length
    return found, end


def _write_line(text: str) -> None:
    print(text, flush=True)


def _outcome(status: int) -> str:
    if status == 0:
        return "Success"
    return f"{'Warning' if f'{status:04x}'.startswith('b') else 'Refused'}: 0x{status:04x}"


def _deliver(association: Association, files: dict[Path, tuple[dict[int, str], int]]) -> None:
    for number, (file, (meta, begin)) in enumerate(files.items()):
        _write_line(f"I: Sending file: {file}")
        status = association.store(number, file, meta, begin)
        if status is None:
            _write_line(f"E: No presentation context for: {meta[SOP_CLASS]} in {meta[SYNTAX]}")
        else:
            _write_line(f"I: Received Store Response ({_outcome(status)})")


def main(calling: str, called: str, host: str, port: str, connect: str, timeout: str, directory: str) -> int:
    """Send every file of a directory; what became of each is said."""
    files = {file: _meta(file) for file in sorted(Path(directory).iterdir())}
    contexts = sorted({(meta[SOP_CLASS], meta[SYNTAX]) for meta, _ in files.values()})
    try:
        association = Association((host, int(port)), (called, calling), contexts, float(connect))
    except (OSError, Refused, struct.error, LookupError) as error:
        _write_line(str(error) if isinstance(error, Refused) else f"F: Association Request Failed: {error}")
        return 1
    _write_line("I: Association Accepted")
    association.set_timeout(float(timeout))
    try:
        _deliver(association, files)
        association.release()
    except (OSError, Refused, struct.error, LookupError) as error:
        _write_line(str(error) if isinstance(error, Refused) else f"E: 0006:0317 {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
