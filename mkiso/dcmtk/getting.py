"""C-GET of one study, or of one series of it (PS3.4 C.4.3), by a program of mkiso's own: DCMTK's getscu has an archive
convert what is compressed, or loses it.

What an archive stores, it stores by a presentation context that was accepted for the very SOP class and transfer syntax
(PS3.8 9.3.2.2): so each SOP class is offered in each, and where the archive's list does not tell which SOP classes
there are, those that are likely first, and then the others, until nothing is missing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import pydicom.uid

from mkiso.dcmtk.association import Failure, Peer, refusal
from mkiso.dcmtk.movescu import Ending, MoveResult
from mkiso.dicom import get
from mkiso.errors import PacsRejected
from mkiso.process import Limits

GET = Path(get.__file__)
LIMITS = Limits(memory=512 << 20)
REFUSALS = {"unreachable": Failure.UNREACHABLE, "busy": Failure.BUSY, "rejected": Failure.REJECTED}
# Neither by reference, nor SMPTE's streams; JPEG XL is younger than the library's list.
UNSTORED = ("1.2.840.10008.1.2.4.204", "1.2.840.10008.1.2.4.205", "1.2.840.10008.1.2.7.")
JPEG_XL = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (110, 111, 112))
UNCOMPRESSED = (
    pydicom.uid.ExplicitVRLittleEndian,  # dcmqrscp sends what is not compressed in the first
    pydicom.uid.ImplicitVRLittleEndian,
    pydicom.uid.DeflatedExplicitVRLittleEndian,
    pydicom.uid.ExplicitVRBigEndian,
)
STORED = (one for one in pydicom.uid.AllTransferSyntaxes if not one.startswith(UNSTORED))
SYNTAXES = tuple(dict.fromkeys([*UNCOMPRESSED, *STORED, *JPEG_XL]))
STORAGE = {str(uid): name for name, uid in vars(pydicom.uid).items() if "Storage" in name}
# What else may be compressed, beside what is called an image.
PICTURES = ("Image", "Video", "Segmentation", "ParametricMap", "EnhancedUSVolume", "ThicknessMap", "RTDose")
LIKELY = {  # of a modality: how the names of the SOP classes begin that its instances are likely to be of
    "CR": ("ComputedRadiographyImage",),
    "CT": ("CTImage", "EnhancedCTImage"),
    "DOC": ("EncapsulatedPDF",),
    "DX": ("DigitalXRayImage",),
    "ECG": ("TwelveLeadECG", "GeneralECG"),
    "KO": ("KeyObject",),
    "MG": ("DigitalMammographyXRayImage", "BreastTomosynthesisImage"),
    "MR": ("MRImage", "EnhancedMRImage"),
    "NM": ("NuclearMedicineImage",),
    "OT": ("SecondaryCaptureImage",),
    "PR": ("GrayscaleSoftcopy",),
    "PT": ("PositronEmission",),
    "RF": ("XRayRadiofluoroscopic",),
    "SC": ("SecondaryCaptureImage",),
    "SR": ("BasicTextSR", "EnhancedSR", "ComprehensiveSR", "XRayRadiationDoseSR"),
    "US": ("UltrasoundImage", "UltrasoundMultiFrameImage"),
    "XA": ("XRayAngiographicImage",),
}
Classes = Mapping[str, str]  # by SOP Instance UID, the SOP Class UID, "" where it is not known
Step = dict[str, Any]


def get_argv(plan: Path) -> tuple[str, ...]:
    return (sys.executable, "-I", str(GET), str(plan))


def steps(uids: Collection[str], classes: Classes, modalities: Iterable[str]) -> list[Step]:
    """The associations that instances need: the SOP classes that each is to offer, in which transfer syntaxes.

    `instances` are those that it is to bring; None: all, or, behind the first, all that have not come.
    """
    known = {classes.get(uid, "") for uid in uids}
    if "" not in known:
        parts = list(_associations(sorted(known)))
        if len(parts) == 1:
            return [_step(parts[0], None)]
        return [_step(part, sorted(uid for uid in uids if classes[uid] in part)) for part in parts]
    likely = [*sorted(known - {""}), *_likely(modalities)]
    return [_step(part, None) for part in _associations(dict.fromkeys([*likely, *_likely(LIKELY), *STORAGE]))]


def _step(classes: Sequence[str], instances: list[str] | None) -> Step:
    return {"classes": [(sop, _syntaxes(sop)) for sop in classes], "instances": instances}


def _likely(modalities: Iterable[str]) -> Iterator[str]:
    for modality in modalities:
        for word in LIKELY.get(modality, ()):
            yield from (uid for uid, name in STORAGE.items() if name.startswith(word))


def _associations(classes: Iterable[str]) -> Iterator[list[str]]:
    """As many SOP classes together as an association has presentation contexts for."""
    part: list[str] = []
    room = get.MOST
    for sop in classes:
        needed = len(_syntaxes(sop))
        if needed > room:
            yield part
            part, room = [], get.MOST
        part.append(sop)
        room -= needed
    yield part


def _syntaxes(sop: str) -> Sequence[str]:
    """A private SOP class may hold anything."""
    return SYNTAXES if sop not in STORAGE or any(word in STORAGE[sop] for word in PICTURES) else UNCOMPRESSED


def events(log: str) -> list[dict[str, Any]]:
    """What the program has told so far; what it was killed in the midst of is left out."""
    found = []
    for line in log.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        found.append(event if isinstance(event, dict) else {})
    return found


def failure(told: Sequence[dict[str, Any]]) -> Failure | None:
    """Why the archive took no association; None where it took one."""
    if any("status" in one for one in told):
        return None
    return next((REFUSALS.get(one["refused"], Failure.NO_CONTEXT) for one in told if "refused" in one), None)


def announced(told: Sequence[dict[str, Any]]) -> int | None:
    """How many sub-operations there are by the first response, done and to come; None where it does not tell."""
    first = next((one for one in told if "status" in one), {})
    return sum(first.get(name, 0) for name in get.COUNTS) if "remaining" in first else None


def unkept(told: Sequence[dict[str, Any]]) -> list[str]:
    """Of each instance that could not be kept, why."""
    return [one["why"] for one in told if "instance" in one]


def get_result(pacs: Peer, told: Sequence[dict[str, Any]]) -> MoveResult:
    """How the C-GETs for a part ended, as one (PS3.4 C.4.3.1.4): behind the first, of what that did not bring.

    Raises PacsUnreachable or PacsRejected where there was no association.
    """
    if why := failure(told):
        raise _refused(pacs, why, next(one["why"] for one in told if "refused" in one))
    asked = [list(group) for is_asked, group in groupby(told, lambda one: "asked" in one) if not is_asked]
    results = [_one(pacs, one) for one in asked if any("status" in event or "lost" in event for event in one)]
    if not results:
        return MoveResult(Ending.LOST)
    return _together(results, told)


def _together(results: Sequence[MoveResult], told: Sequence[dict[str, Any]]) -> MoveResult:
    first, *others = results
    brought = sum(one.completed + one.warning for one in others)
    is_whole = next((one["asked"] for one in told if "asked" in one), "") != "IMAGE"
    failed = max(0, first.failed - brought) if is_whole else sum(one.failed for one in results)
    remaining = max(0, sum(one.remaining for one in results) - (brought if is_whole else 0))
    worst = max(results, key=lambda one: list(Ending).index(one.ending))
    ending = first.ending if is_whole else worst.ending
    if is_whole and others and ending is not Ending.SUCCESS and not failed + remaining:
        ending = Ending.SUCCESS
    return MoveResult(
        ending,
        sum(one.completed for one in results),
        failed,
        sum(one.warning for one in results),
        frozenset().union(*(one.failed_uids for one in results)),
        "" if ending is Ending.SUCCESS else first.explanation or worst.explanation,
        remaining,
    )


def _one(pacs: Peer, told: Sequence[dict[str, Any]]) -> MoveResult:
    """How one C-GET ended, and the highest counts of its last two responses: the final one need not count."""
    responses = [one for one in told if "status" in one]
    counts = {name: max((one.get(name, 0) for one in responses[-2:]), default=0) for name in get.COUNTS}
    remaining = responses[-1].get("remaining", 0) if responses else 0
    uids = frozenset(uid for one in responses for uid in one.get("failed_uids", ()))
    ending, explanation = _ending(pacs, told, responses)
    return MoveResult(ending, counts["completed"], counts["failed"], counts["warning"], uids, explanation, remaining)


def _ending(pacs: Peer, told: Sequence[dict[str, Any]], responses: Sequence[dict[str, Any]]) -> tuple[Ending, str]:
    lost = next((one["lost"] for one in told if "lost" in one), None)
    if lost is not None or not responses or responses[-1]["status"] in get.PENDING:
        return Ending.LOST, lost or "the C-GET did not end"
    status, comment = responses[-1]["status"], responses[-1].get("comment", "")
    if status == get.SUCCESS:
        return Ending.SUCCESS, ""
    text = f"status {status:04X}" + (f" ({comment})" if comment else "")
    if status >> 12 == 0xB:  # noqa: PLR2004  (PS3.7 C.2)
        return Ending.WARNING, text
    if status == 0xFE00:  # noqa: PLR2004
        return Ending.LOST, f"{text}, though nothing was cancelled"
    return Ending.FAILURE, f"The PACS {pacs} ended the C-GET with {text}. Its own log tells why."


def _refused(pacs: Peer, why: Failure, text: str) -> Exception:
    if why is Failure.NO_CONTEXT:
        return PacsRejected(f"The PACS {pacs} takes no C-GET. Have it allowed there, or set pacs.retrieve: move.")
    return refusal(pacs, why, text, text == get.LIMIT)
