"""C-STOREs by hand, as pynetdicom makes none: with a pause in the data set, or without its end (PS3.7 9.1.1)."""

import socket
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

from pydicom import dcmread
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.pdu_primitives import P_DATA

from tests.support.holdings import Instance
from tests.support.service import data_set

COMMAND, DATA, LAST = 0x01, 0x00, 0x02
PART = 16000
PIXEL_DATA = b"\xe0\x7f\x10\x00"
BUFFER = 4096  # bytes that storescp gathers before it writes them
STORESCP_META = 366  # with an instance UID of 64 characters, and the calling AE title ABPACS


def store_with_pause(sender: Association, instance: Instance, pause: Callable[[], object]) -> None:
    """Send all up to the pixel data and the first half of their tag, pause, send the rest, wait for the answer."""
    data = data_set(instance.path)
    cut = data.rindex(PIXEL_DATA) + 2
    begin_store(sender, instance)
    send(sender, instance, data[:cut], DATA)
    pause()
    send(sender, instance, data[cut:], LAST)
    sender.dimse.get_msg(block=True)


def begin_store(sender: Association, instance: Instance) -> None:
    """The C-STORE request, whose data set is to follow."""
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = instance.sop_class, instance.sop_instance_uid
    request.DataSet = BytesIO(b"to follow")
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    for part in message.encode_msg(_context(sender, instance), PART):
        if part.presentation_data_value_list[0][1][0] & COMMAND:
            write(sender, _encoded(part))


def send(sender: Association, instance: Instance, data: bytes, last: int, cut: int | None = None) -> None:
    """A part of a data set, or with LAST its end; of its last PDU only `cut` bytes of data, where they are told."""
    for start in range(0, len(data), PART):
        part, is_last = data[start : start + PART], start + PART >= len(data)
        fragment = P_DATA()
        control = last if is_last else DATA
        fragment.presentation_data_value_list = [[_context(sender, instance), bytes([control]) + part]]
        encoded = _encoded(fragment)
        write(sender, encoded[: len(encoded) - len(part) + cut] if is_last and cut is not None else encoded)


def write(sender: Association, pdu: bytes) -> None:
    """At once: what is sent after it comes after it."""
    sender.dul.socket.socket.sendall(pdu)  # type: ignore[union-attr]


def hang_up(sender: Association) -> None:
    """End the connection, as it ends where a process does."""
    sender.dul.socket.socket.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]


def pause_at_a_buffers_end(file: Path) -> None:
    """Let the pixel data begin where storescp's buffer ends: what is on disk then looks whole."""
    _pad(file, lambda data: data.rindex(PIXEL_DATA))


def end_at_a_buffers_end(file: Path) -> None:
    """Let the data set end there."""
    _pad(file, len)


def _pad(file: Path, at: Callable[[bytes], int]) -> None:
    dataset = dcmread(file)
    dataset.ImageComments = ""
    dataset.save_as(file)
    # What storescp writes before the data set: preamble, prefix, and its own file meta information.
    dataset.ImageComments = "x" * (-(STORESCP_META + at(data_set(file))) % BUFFER)
    dataset.save_as(file)


def _context(sender: Association, instance: Instance) -> int:
    context = next(one.context_id for one in sender.accepted_contexts if one.abstract_syntax == instance.sop_class)
    assert context is not None
    return context


def _encoded(fragment: P_DATA) -> bytes:
    pdu = P_DATA_TF()
    pdu.from_primitive(fragment)
    return pdu.encode()
