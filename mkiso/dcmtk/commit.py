"""Storage Commitment by the Push Model as an SCU (PS3.4 J.3), what no program of DCMTK does.

It asks a peer to commit itself to the safekeeping of instances, and waits for its reports: on the association that
asked, and on those that the peer opens to a port of this host, as long as it waits. It writes a JSON object a line:
`uid` and `reason` of each instance that a report was about (null: the peer has it; 0: the report does not name it),
and at last `why` it has not heard of all, or "", and whether the peer is `busy`. It knows nothing of mkiso: it is run
by its file's name.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import UID, generate_uid
from pynetdicom import AE, evt
from pynetdicom.association import Association

PUSH_MODEL, INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"  # of which there is one, PS3.4 J.3.5
REQUEST = 1  # the action type, PS3.4 J.3.2.1
SUCCESS, INVALID_ARGUMENT = 0x0000, 0x0115
TRANSIENT = 2  # PS3.8 9.3.4
MOST = 10_000  # instances of one transaction
POLL = 0.02
UNNAMED = 0
ANY = "0.0.0.0"  # noqa: S104  (as storescp listens: a peer calls from wherever it is)
Waiting = dict[str, set[str]]  # the instances of each transaction of which there is no report yet


class Reports:
    """What is waited for, and what came of it; reports come in threads of their own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: Waiting = {}
        self.reasons: dict[str, int | None] = {}

    @property
    def are_all_there(self) -> bool:
        return not self._waiting

    def expect(self, transaction: str, uids: set[str]) -> None:
        with self._lock:
            self._waiting[transaction] = uids

    def take(self, event: evt.Event) -> tuple[int, None]:
        """The status for a report: one of a transaction that nobody waits for is refused."""
        information = event.event_information
        transaction = str(information.get("TransactionUID", ""))
        stored = {str(one.ReferencedSOPInstanceUID) for one in information.get("ReferencedSOPSequence") or ()}
        failed = {
            str(one.ReferencedSOPInstanceUID): int(one.get("FailureReason") or UNNAMED)
            for one in information.get("FailedSOPSequence") or ()
        }
        with self._lock:
            if transaction not in self._waiting:
                return INVALID_ARGUMENT, None
            for uid in self._waiting[transaction]:
                self.reasons[uid] = None if uid in stored - failed.keys() else failed.get(uid, UNNAMED)
            del self._waiting[transaction]
        return SUCCESS, None


def _request(transaction: str, instances: list[tuple[str, str]]) -> Dataset:
    request = Dataset()
    request.TransactionUID = transaction
    request.ReferencedSOPSequence = []
    for sop_class, uid in instances:
        item = Dataset()
        item.ReferencedSOPClassUID = UID(sop_class)
        item.ReferencedSOPInstanceUID = UID(uid)
        request.ReferencedSOPSequence.append(item)
    return request


def _ask(association: Association, instances: list[tuple[str, str]], reports: Reports) -> str:
    """Ask for these; why the peer refuses, or ""."""
    transaction = generate_uid(prefix=None)
    reports.expect(transaction, {uid for _, uid in instances})
    status, _ = association.send_n_action(_request(transaction, instances), REQUEST, PUSH_MODEL, INSTANCE)
    if "Status" not in status:
        return "it did not answer the request"
    if status.Status != SUCCESS:
        comment = status.get("ErrorComment", "")
        return f"it refused the request with status {status.Status:04x}" + (f" ({comment})" if comment else "")
    return ""


def _wait(association: Association, listens: bool, reports: Reports, end: float) -> str:
    """Wait for the report; why it does not come, or ""."""
    while not reports.are_all_there:
        if not (listens or association.is_established):
            time.sleep(POLL)  # a report that came just before is taken by a thread
            return "" if reports.are_all_there else "it ended the association without a report"
        if time.monotonic() > end:
            return "no report in time"
        time.sleep(POLL)
    return ""


def _committed(
    association: Association, listens: bool, instances: list[tuple[str, str]], reports: Reports, timeout: float
) -> str:
    """Ask for all, one transaction after the other; why not all are reported, or ""."""
    why, end = "", time.monotonic() + timeout
    for begin in range(0, len(instances), MOST):
        why = why or _ask(association, instances[begin : begin + MOST], reports)
        why = why or _wait(association, listens, reports, end)
    return why


def _entity(calling: str, connect: float, timeout: float) -> AE:
    entity = AE(calling)
    entity.acse_timeout = entity.connection_timeout = connect
    entity.dimse_timeout = timeout
    entity.network_timeout = None  # nothing may come for as long as it takes
    return entity


def _listen(entity: AE, called: str, port: int, handlers: list[Any]) -> None:
    """Take reports of this peer alone, for this AE title alone; a peer is the SCP on its own associations, too."""
    entity.require_called_aet = True
    entity.require_calling_aet = [called]
    entity.add_supported_context(PUSH_MODEL, scu_role=True, scp_role=True)
    entity.start_server((ANY, port), block=False, evt_handlers=handlers)


def _failure(association: Association) -> tuple[str, bool]:
    """Why there is no association, and whether the peer is busy."""
    answer = association.acceptor.primitive
    if association.is_rejected and answer is not None:
        return f"it rejected the association ({answer.reason_str})", answer.result == TRANSIENT
    if answer is not None and answer.result == 0:
        return "it takes no Storage Commitment", False
    return "there is no association with it", False


def main(
    calling: str, called: str, host: str, port: str, connect: str, timeout: str, commit_port: str, file: str
) -> None:
    """Ask, wait, and write what came; a `commit_port` of 0 is none."""
    instances = [(sop_class, uid) for uid, sop_class in json.loads(Path(file).read_text()).items()]
    reports, listens, association = Reports(), commit_port != "0", None
    handlers: list[Any] = [(evt.EVT_N_EVENT_REPORT, reports.take)]
    try:
        if listens:
            _listen(_entity(calling, float(connect), float(timeout)), called, int(commit_port), handlers)
        entity = _entity(calling, float(connect), float(timeout))
        entity.add_requested_context(PUSH_MODEL)
        association = entity.associate(host, int(port), ae_title=called, evt_handlers=handlers)
        why, busy = _failure(association)
        if association.is_established:
            why, busy = _committed(association, listens, instances, reports, float(timeout)), False
    except OSError as error:
        why, busy = f"the port {commit_port} of this host cannot be listened at ({error.strerror})", False
    for uid, reason in list(reports.reasons.items()):
        print(json.dumps({"uid": uid, "reason": reason}))
    print(json.dumps({"why": why, "busy": busy}), flush=True)
    if association is not None and association.is_established:
        association.release()
    os._exit(0)  # threads of associations that others hold open would go on


if __name__ == "__main__":
    main(*sys.argv[1:])
