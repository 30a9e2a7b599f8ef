"""One C-MOVE or C-GET as the misbehaving archive serves it: what a behaviour may do with it (PS3.4 C.4.2, C.4.3)."""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import build_context, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_GET, C_MOVE
from pynetdicom.dsutils import decode, encode
from pynetdicom.presentation import PresentationContext

from tests.support.holdings import Holdings, Instance

SUCCESS, PENDING, CANCELLED, SOME_FAILED = 0x0000, 0xFF00, 0xFE00, 0xB000
CANNOT_PERFORM, UNKNOWN_DESTINATION = 0xA702, 0xA801


@dataclass
class Options:
    """What the command line adds to a behaviour."""

    n: int = 3
    status: int = CANNOT_PERFORM
    delay: float = 0.2
    pace: float = 0.0  # seconds before each instance, whatever the behaviour


@dataclass
class Archive:
    """What all requests share."""

    holdings: Holdings
    destinations: dict[str, tuple[str, int]]
    options: Options
    scratch: Path
    kept: list[Any] = field(default_factory=list)


def send_at_once(event: evt.Event) -> None:
    """Turns Nagle's algorithm off, which costs 40 ms a message."""
    event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class Gate(threading.Event):
    """Holds an association's reactor, which pynetdicom lets run between two C-STOREs.

    On a busy machine it may still run when the second is answered, and take that answer, which the sender then awaits
    for ever.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reached = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        self.reached.set()
        return super().wait(timeout)

    def set(self) -> None:
        """Not between two C-STOREs."""

    def open(self) -> None:
        super().set()


class Unreachable(Exception):
    """The receiver does not take the association."""


class Move:
    """A C-MOVE request with its answers and its associations to the receiver."""

    _answer: type[C_GET | C_MOVE] = C_MOVE

    def __init__(self, archive: Archive, service: Any, request: C_GET | C_MOVE, context: PresentationContext) -> None:
        self.archive, self.options = archive, archive.options
        self.association: Association = service.assoc
        self.completed: int = 0
        self.failed: list[str] = []
        self._service, self._request, self._context = service, request, context
        self._syntax = context.transfer_syntax[0]
        self._query = decode(request.Identifier, self._syntax.is_implicit_VR, self._syntax.is_little_endian)
        self._was_cancelled = False

    @property
    def instances(self) -> list[Instance]:
        """The instances that are asked for, as the archive holds them at this moment."""
        return self.archive.holdings.matching(self._query)

    @property
    def level(self) -> str:
        return str(self._query.QueryRetrieveLevel)

    @property
    def of_whole_studies(self) -> list[Instance]:
        """As `instances`, whichever series is asked for."""
        return self.archive.holdings.matching(self._query, ignored=("SeriesInstanceUID",))

    @property
    def destination(self) -> str:
        return str(self._request.MoveDestination).strip()

    @property
    def peer(self) -> tuple[str, int]:
        """The receiver's address and port."""
        return self.archive.destinations[self.destination]

    @property
    def is_cancelled(self) -> bool:
        # pynetdicom forgets a C-CANCEL as soon as it has been asked about it.
        self._was_cancelled |= self._service.is_cancelled(self._request.MessageID)
        return self._was_cancelled

    @property
    def is_over(self) -> bool:
        """Whether the requestor has cancelled or gone away."""
        return self.is_cancelled or self.association.acse.is_aborted()

    @contextmanager
    def receiver(
        self, instances: Sequence[Instance], connected: Callable[[evt.Event], None] = send_at_once
    ) -> Iterator[Association]:
        """An association to the receiver, one presentation context a SOP class and transfer syntax.

        `connected` is called between the connection and the request.
        """
        kinds = sorted({(str(one.sop_class), str(one.transfer_syntax)) for one in instances})
        contexts = [build_context(sop_class, transfer_syntax) for sop_class, transfer_syntax in kinds]
        sender = self._service.ae.associate(
            *self.peer,
            contexts,
            ae_title=self.destination,
            evt_handlers=[(evt.EVT_CONN_OPEN, connected)],
        )
        if not sender.is_established:
            raise Unreachable(f"{self.destination} at {self.peer}")
        gate = sender._reactor_checkpoint = Gate()
        gate.reached.wait(10)
        try:
            yield sender
        finally:
            sender.release()
            gate.open()

    def store(self, sender: Association, instance: Instance, path: Path | None = None) -> None:
        """One C-STORE sub-operation; the bytes of `path` instead of the instance's own where it is given."""
        time.sleep(self.options.pace)
        try:
            response = sender.send_c_store(path or instance.path, **self._originator())
        except (ValueError, RuntimeError):
            response = Dataset()
        if response.get("Status") == SUCCESS:
            self.completed += 1
        else:
            self.failed.append(instance.sop_instance_uid)

    def _originator(self) -> dict[str, Any]:
        return {"originator_aet": self.association.requestor.ae_title, "originator_id": self._request.MessageID}

    def answer(self, status: int, remaining: int | None = None, failed_uids: Sequence[str] = ()) -> None:
        """A response with the counts so far."""
        response = self._answer()
        response.MessageID = response.MessageIDBeingRespondedTo = self._request.MessageID
        response.AffectedSOPClassUID = self._request.AffectedSOPClassUID
        response.Status = status
        response.NumberOfRemainingSuboperations = remaining
        response.NumberOfCompletedSuboperations = self.completed
        response.NumberOfFailedSuboperations = len(self.failed)
        response.NumberOfWarningSuboperations = 0
        response.Identifier = self._failed_list(failed_uids)
        self._service.dimse.send_msg(response, self._context.context_id)

    def _failed_list(self, uids: Sequence[str]) -> BytesIO | None:
        if not uids:
            return None
        identifier = Dataset()
        identifier.FailedSOPInstanceUIDList = list(uids)
        return BytesIO(encode(identifier, self._syntax.is_implicit_VR, self._syntax.is_little_endian) or b"")

    def finish(self) -> None:
        """The final response: success, or a warning that names the instances which failed."""
        status = CANCELLED if self.is_cancelled else SOME_FAILED if self.failed else SUCCESS
        self.answer(status, failed_uids=self.failed)


class Get(Move):
    """A C-GET: the receiver is who asks, on the very association on which it asks."""

    _answer = C_GET

    @contextmanager
    def receiver(self, *_of_a_move: object) -> Iterator[Association]:
        yield self.association

    def _originator(self) -> dict[str, Any]:
        return {}
