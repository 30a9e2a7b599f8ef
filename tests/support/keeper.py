"""A destination that says what it has: it counts what comes, may lose some, and answers C-FIND and commitments."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pydicom import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind, Verification

from tests.support.anything import take_anything
from tests.support.tools import LOCALHOST

TITLE = "DESTINATION"
PUSH_MODEL, INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
NO_SUCH_INSTANCE = 0x0112
ALL, FAILED = 1, 2  # event types, PS3.4 J.3.3.1.1
Answers = Iterator[tuple[int, Dataset | None]]


@dataclass
class Keeper:
    """`loses` is how often it acknowledges the third instance and throws it away; at the instance `at` it hangs, once.

    `most` is how many instances of a study it lists at once, 0: it refuses to; `hides` to how many queries it lists
    nothing. It reports commitments `here`, on the association that asked, `elsewhere`, at `commit_port`, or never.
    Where it `forges`, a stranger calls there before, and it tells of a transaction that nobody asked for.
    """

    port: int
    loses: int = 0
    most: int | None = None
    hides: int = 0
    reports: str = "never"
    commit_port: int = 0
    forges: bool = False
    at: int = 0
    stored: Counter[str] = field(default_factory=Counter)
    kept: dict[str, Dataset] = field(default_factory=dict)
    refused: list[object] = field(default_factory=list)
    goes_on: threading.Event = field(default_factory=threading.Event)

    def store(self, event: evt.Event) -> int:
        if sum(self.stored.values()) + 1 == self.at:
            self.at = 0
            self.goes_on.wait(60)
        uid = str(event.request.AffectedSOPInstanceUID)
        self.stored[uid] += 1
        if list(self.stored).index(uid) != 2 or self.stored[uid] > self.loses:
            self.kept[uid] = event.dataset
        return 0x0000

    def find(self, event: evt.Event) -> Answers:
        asked = event.identifier
        self.hides -= 1
        if self.hides >= 0:
            return
        whole = asked.QueryRetrieveLevel == "IMAGE" and not asked.get("SeriesInstanceUID")
        if whole and self.most == 0:
            yield 0xA900, None
            return
        keys = [one.keyword for one in asked if one.keyword.endswith("InstanceUID")]
        told = set()
        for one in self.kept.values():
            values = tuple(str(one[key].value) for key in keys)
            if whole and len(told) == self.most:
                return
            if values not in told and all(not asked[key].value or asked[key].value == one[key].value for key in keys):
                told.add(values)
                yield (
                    0xFF00,
                    _dataset(QueryRetrieveLevel=asked.QueryRetrieveLevel, **dict(zip(keys, values, strict=True))),
                )

    def commit(self, event: evt.Event) -> tuple[int, None]:
        request = event.action_information
        report = _dataset(TransactionUID=request.TransactionUID, ReferencedSOPSequence=[], FailedSOPSequence=[])
        for one in request.ReferencedSOPSequence:
            if one.ReferencedSOPInstanceUID in self.kept:
                report.ReferencedSOPSequence.append(one)
            else:
                one.FailureReason = NO_SUCH_INSTANCE
                report.FailedSOPSequence.append(one)
        tell: dict[str, Callable[[], object]] = {
            "here": lambda: self._tell(event.assoc, report),
            "elsewhere": lambda: self._call(event.assoc.requestor.ae_title, report),
        }
        if self.reports in tell:
            threading.Thread(target=tell[self.reports], daemon=True).start()
        return 0x0000, None

    def _tell(self, association: object, report: Dataset) -> object:
        kind = FAILED if report.FailedSOPSequence else ALL
        return association.send_n_event_report(report, kind, PUSH_MODEL, INSTANCE)[0].get("Status")  # type: ignore[attr-defined]

    def _call(self, title: str, report: Dataset) -> None:
        if self.forges:
            stranger = self._associated("STRANGER", title)
            self.refused.append("stranger" if stranger.is_rejected else "taken")
        association = self._associated(TITLE, title)
        if self.forges:
            forgery = _dataset(
                TransactionUID="2.25.1", ReferencedSOPSequence=report.ReferencedSOPSequence, FailedSOPSequence=[]
            )
            self.refused.append(self._tell(association, forgery))
        self._tell(association, report)
        association.release()

    def _associated(self, calling: str, called: str):  # type: ignore[no-untyped-def]
        entity = AE(calling)
        entity.add_requested_context(PUSH_MODEL)
        role = [build_role(PUSH_MODEL, scp_role=True)]
        return entity.associate(LOCALHOST, self.commit_port, ae_title=called, ext_neg=role)


def _dataset(**values: object) -> Dataset:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


@contextmanager
def running_keeper(port: int, **behaviour: object) -> Iterator[Keeper]:
    """It listens in this process, and has forgotten all afterwards."""
    keeper, entity = Keeper(port, **behaviour), AE(TITLE)  # type: ignore[arg-type]
    for kind in (Verification, StudyRootQueryRetrieveInformationModelFind, PUSH_MODEL):
        entity.add_supported_context(kind)
    take_anything(entity)
    handlers = [(evt.EVT_C_STORE, keeper.store), (evt.EVT_C_FIND, keeper.find), (evt.EVT_N_ACTION, keeper.commit)]
    server = entity.start_server((LOCALHOST, port), block=False, evt_handlers=handlers)
    try:
        yield keeper
    finally:
        keeper.goes_on.set()
        server.shutdown()
