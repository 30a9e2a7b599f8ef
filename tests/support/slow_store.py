"""One C-STORE by hand with a pause inside its data set, which pynetdicom would not make (PS3.7 9.1.1)."""

from collections.abc import Callable
from io import BytesIO

from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import P_DATA

from tests.support.holdings import Instance
from tests.support.service import data_set

COMMAND, DATA, LAST = 0x01, 0x00, 0x02
PART = 16000
PIXEL_DATA = b"\xe0\x7f\x10\x00"


def store_with_pause(sender: Association, instance: Instance, pause: Callable[[], object]) -> None:
    """Send all up to the pixel data and the first half of their tag, pause, send the rest, wait for the answer."""
    data = data_set(instance.path)
    cut = data.rindex(PIXEL_DATA) + 2
    context = next(one.context_id for one in sender.accepted_contexts if one.abstract_syntax == instance.sop_class)
    assert context is not None
    _command(sender, instance, context)
    _send(sender, context, data[:cut], DATA)
    pause()
    rest = data[cut:]
    for start in range(0, len(rest), PART):
        _send(sender, context, rest[start : start + PART], LAST if start + PART >= len(rest) else DATA)
    sender.dimse.get_msg(block=True)


def _command(sender: Association, instance: Instance, context: int) -> None:
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = instance.sop_class, instance.sop_instance_uid
    request.DataSet = BytesIO(b"to follow")
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    for part in message.encode_msg(context, PART):
        if part.presentation_data_value_list[0][1][0] & COMMAND:
            sender.dul.send_pdu(part)


def _send(sender: Association, context: int, data: bytes, control: int) -> None:
    part = P_DATA()
    part.presentation_data_value_list = [[context, bytes([control]) + data]]
    sender.dul.send_pdu(part)
