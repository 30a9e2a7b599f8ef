"""An archive that holds all of pydicom's test files, and sends each as it is: also what is no instance at all.

It has as many AE titles as files, because some of the files have one UID: FILE0 holds the first, FILE1 the second, …
"""

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from threading import Event
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_files
from pydicom.filereader import _read_file_meta_info, read_preamble
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_MOVE, C_STORE
from pynetdicom.dsutils import encode
from pynetdicom.presentation import PresentationContext
from pynetdicom.service_class import QueryRetrieveServiceClass
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelMove,
)

from tests.support import datasets, tools
from tests.support.behaviours import Answers
from tests.support.datasets import Patient
from tests.support.moves import PENDING, SUCCESS, Archive, Move, Options, send_at_once
from tests.support.tools import LOCALHOST

KEYS = ["PatientID", "PatientName", "PatientBirthDate", "PatientSex", "SpecificCharacterSet", "StudyDate"]
UIDS = ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"]


@dataclass(frozen=True)
class Held:
    """An instance as the archive sends it."""

    sop_class: UID
    transfer_syntax: UID
    sop_instance_uid: str
    data_set: bytes


class StrangeFile:
    """A file, and what an archive would say of it: what can be read, or else what it is given here.

    It is of a study of two, beside a sound image.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            read_preamble(file, force=True)
            self._meta, self.data_set = _read_file_meta_info(file), file.read()
        self._header = Dataset()
        with suppress(Exception):
            self._header = dcmread(path, force=True, specific_tags=[*KEYS, *UIDS, "SOPClassUID"])
        self.sop_instance_uid = self._uid("SOPInstanceUID")
        self.accession = datasets.uid(str(path))[-16:]

    def _read(self, keyword: str) -> Any:
        with suppress(Exception):
            return self._header.get(keyword)
        return None

    def _uid(self, keyword: str) -> str:
        return str(self._read(keyword) or datasets.uid(self.path.name, keyword))

    @property
    def sound(self) -> Dataset:
        """The image beside it."""
        common = datasets.study(Patient(str(self._read("PatientID") or ""), "SOUND"), self.accession)
        common.StudyInstanceUID = self._uid("StudyInstanceUID")
        image = datasets.ct(common, 1, 1, side=16)
        image.SOPInstanceUID = datasets.uid(self.accession, "sound")
        image.SeriesInstanceUID = self._uid("SeriesInstanceUID")
        return image

    @property
    def instances(self) -> list[Held]:
        """What is sent, the sound one first."""
        return [
            self._sound_instance,
            Held(self._sop_class, self._transfer_syntax, self.sop_instance_uid, self.data_set),
        ]

    @property
    def _sound_instance(self) -> Held:
        sound = self.sound
        encoded = encode(sound, is_implicit_vr=False, is_little_endian=True) or b""
        return Held(sound.SOPClassUID, ExplicitVRLittleEndian, sound.SOPInstanceUID, encoded)

    @property
    def _sop_class(self) -> UID:
        return UID(self._read("SOPClassUID") or self._meta.get("MediaStorageSOPClassUID") or MRImageStorage)

    @property
    def _transfer_syntax(self) -> UID:
        """Where the file has no file meta information, as pydicom guesses."""
        guessed = {(False, False): ExplicitVRBigEndian, (False, True): ExplicitVRLittleEndian}
        encoding = getattr(self._header, "original_encoding", (True, True))
        return UID(self._meta.get("TransferSyntaxUID") or guessed.get(encoding, ImplicitVRLittleEndian))

    def answers(self, query: Dataset) -> Iterator[Dataset]:
        """To a C-FIND, whose keys match."""
        yield self._answer(query, self.sop_instance_uid)
        if query.QueryRetrieveLevel == "IMAGE":
            yield self._answer(query, self.sound.SOPInstanceUID)

    def _answer(self, query: Dataset, sop_instance_uid: str) -> Dataset:
        answer = Dataset()
        for keyword in (element.keyword for element in query):
            setattr(answer, keyword, self._uid(keyword) if keyword in UIDS else self._read(keyword))
        answer.AccessionNumber, answer.QueryRetrieveLevel = self.accession, query.QueryRetrieveLevel
        if query.QueryRetrieveLevel == "IMAGE":
            answer.SOPInstanceUID = sop_instance_uid
        return answer


def strange_files() -> list[StrangeFile]:
    return [StrangeFile(path) for path in map(Path, sorted(get_testdata_files())) if path.is_file()]


@contextmanager
def running_strange(port: int, destinations: Mapping[str, int]) -> Iterator[int]:
    """The archive, in a process of its own, which can move to these AE titles on 127.0.0.1; its port."""
    words = [f"{title}={to}" for title, to in destinations.items()]
    with tempfile.TemporaryDirectory(prefix="strange-") as name:
        argv = (sys.executable, "-m", "tests.support.strange", str(port), *words)
        with tools.listening(argv, port, Path(name, "log")):
            yield port


def _called(files: list[StrangeFile], association: Association) -> StrangeFile:
    return files[int(association.requestor.primitive.called_ae_title.removeprefix("FILE"))]


def _store(sender: Association, instance: Held) -> bool:
    """Whether it was taken; pynetdicom's own C-STORE takes a file apart first."""
    kind = instance.sop_class, instance.transfer_syntax
    accepted = [one for one in sender.accepted_contexts if (one.abstract_syntax, one.transfer_syntax[0]) == kind]
    if not accepted or not sender.is_established:
        return False
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = instance.sop_class, instance.sop_instance_uid
    # A data set's fragments are of even length (PS3.8 E.1).
    request.DataSet = BytesIO(instance.data_set + bytes(len(instance.data_set) % 2))
    sender.dimse.send_msg(request, accepted[0].context_id)
    _, response = sender.dimse.get_msg(block=True)
    return response is not None and response.Status == SUCCESS


def _move(move: Move, instances: Sequence[Held]) -> None:
    with move.receiver(instances) as sender:  # type: ignore[arg-type]
        for instance in instances:
            if _store(sender, instance):
                move.completed += 1
            else:
                move.failed.append(instance.sop_instance_uid)
    move.finish()


def main(port: str, *destinations: str) -> None:
    """Serves until it is ended."""
    logging.disable()
    warnings.simplefilter("ignore")
    files = strange_files()
    known = {title: (LOCALHOST, int(to)) for title, to in (one.split("=") for one in destinations)}
    archive = Archive(None, known, Options(), Path(os.devnull))  # type: ignore[arg-type]

    def move_scp(service: Any, request: C_MOVE, context: PresentationContext) -> None:
        _move(Move(archive, service, request, context), _called(files, service.assoc).instances)

    def find(event: evt.Event) -> Answers:
        for answer in _called(files, event.assoc).answers(event.identifier):
            yield PENDING, answer

    QueryRetrieveServiceClass._move_scp = move_scp
    application = AE("FILES")
    application.maximum_associations = 100
    application.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    application.add_supported_context(StudyRootQueryRetrieveInformationModelMove)
    handlers = [(evt.EVT_C_FIND, find), (evt.EVT_CONN_OPEN, send_at_once)]
    application.start_server((LOCALHOST, int(port)), block=False, evt_handlers=handlers)
    Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
