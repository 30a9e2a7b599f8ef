"""A disc for old readers: its instances decompressed, before they are laid out (PS3.11 D, STD-GEN-CD).

Each is replaced by its decompressed file where that is proven to be the same instance; what cannot be
decompressed stays as it is. Lossy ones grow tenfold: they are decompressed only while the disc has room.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pydicom import uid
from pydicom.uid import UID

from mkiso.browse.choice import Header
from mkiso.browse.pictures import GDCM_DECODES, LOSSLESS, RAW, SIZES, pixel_bytes
from mkiso.dcmtk import converters
from mkiso.dcmtk.converters import DECOMPRESSORS, MEMORY_FOR_ALL, Converter, TooLarge, decompress
from mkiso.dicom.instances import Instance, inflates_to, read_whole
from mkiso.disc.layout import Setting, viewer_bytes
from mkiso.errors import Internal
from mkiso.process import ToolTimeout
from mkiso.waiting import Checkpoint, pool_of
from mkiso.workspace import require_room

Decompressor = Callable[[Converter, str, Path, Path], bool]
PROCESSES = 2
LIMIT = 600.0
LARGEST = 1 << 30  # bytes of pixels; a program keeps them in memory, gdcmconv more than four times: see conversion
LARGEST_REST = 1 << 28  # bytes of a deflated instance beside its pixels
FOR_THE_REST = 1 << 25  # bytes of a disc's pages with their pictures, and of its directories
LOSSY, YES = "LossyImageCompression", "01"
KEYWORDS = (*SIZES, LOSSY)
SHAPE = ("Rows", "Columns", "SamplesPerPixel", "NumberOfFrames")
# Whatever their headers say; JPEG 2000 may be lossless also where its transfer syntax need not be.
ALWAYS_LOSSY = frozenset({uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLSNearLossless})


@dataclass(frozen=True)
class Uncompressed:
    """The instances of a disc in their order, how many were decompressed, and how many are still compressed."""

    instances: tuple[Instance, ...]
    decompressed: int = 0
    left_compressed: int = 0


def uncompressed(instances: Sequence[Instance], setting: Setting) -> Uncompressed:
    """Decompress what is compressed, in its place; lossy ones of an ISO image only as far as `media.max_size` has room.

    The job's checkpoint is called from two threads. Raises DiskFull, and what the checkpoint raises.
    """
    media, checkpoint = setting.config.media, setting.checkpoint
    limit = None
    if media.max_size is not None and setting.format == "iso":
        limit = media.max_size - viewer_bytes(media) - FOR_THE_REST
    converter = Converter(
        setting.config.tools.dcmtk_dir, setting.workspace.path, checkpoint, LIMIT, nice=False, memory=MEMORY_FOR_ALL
    )
    known = _each(converter, [(one, None) for one in instances if one.transfer_syntax in LOSSLESS])
    on_disc = [known.get(one.path, one) for one in instances]
    known |= _each(converter, _fitting(on_disc, limit, checkpoint))
    result = tuple(known.get(one.path, one) for one in instances)
    left = sum(one.transfer_syntax not in RAW for one in result)
    return Uncompressed(result, sum(one is not other for one, other in zip(instances, result, strict=True)), left)


def _fitting(
    instances: Sequence[Instance], limit: int | None, checkpoint: Checkpoint
) -> Iterator[tuple[Instance, int]]:
    """The lossy ones for which there is room, and the bytes that each has at most."""
    total = sum(one.bytes for one in instances)
    for one in instances:
        if one.transfer_syntax in RAW | LOSSLESS or not _programs(one):
            continue
        checkpoint()
        pixels = pixel_bytes(Header(one.path, SIZES))
        if limit is None or total + pixels <= limit:
            total += pixels
            yield one, one.bytes + pixels


def _each(converter: Converter, wanted: Iterable[tuple[Instance, int | None]]) -> dict[Path, Instance]:
    """The new instances by their files."""
    with pool_of(PROCESSES, converter.checkpoint) as pool:
        made = pool.map(lambda one: _replaced(converter, *one), wanted)
        return {one.path: one for one in made if one}


def _replaced(converter: Converter, instance: Instance, most: int | None) -> Instance | None:
    """The instance, decompressed, in the place of its file; None where it stays as it is."""
    beside = instance.path.with_name(f"{instance.path.name}.raw")
    try:
        new = _decompressed(converter, instance, beside, most)
        if new is None:
            return None
        os.replace(beside, instance.path)
        return replace(new, path=instance.path)
    finally:
        beside.unlink(missing_ok=True)


def _decompressed(converter: Converter, instance: Instance, beside: Path, most: int | None) -> Instance | None:
    """What the first program that can makes of it, proven."""
    header = Header(instance.path, KEYWORDS)
    if pixel_bytes(header) > LARGEST or (instance.is_deflated and _inflates_oddly(instance, header)):
        return None
    for write, program in _programs(instance):
        converter.checkpoint()
        with suppress(Internal, ToolTimeout, TooLarge):
            if write(converter, program, instance.path, beside):
                if (new := _proven(instance, header, beside)) and (most is None or new.bytes <= most):
                    return new
            else:
                require_room(beside.parent)
    return None


def _inflates_oddly(instance: Instance, header: Header) -> bool:
    """A megabyte may become a gigabyte (PS3.5 A.5), which the disc need not have."""
    return inflates_to(instance, pixel_bytes(header) + LARGEST_REST)


def _programs(instance: Instance) -> list[tuple[Decompressor, str]]:
    """Those that decompress its transfer syntax, DCMTK's before GDCM's."""
    syntax, found = UID(instance.transfer_syntax), list[tuple[Decompressor, str]]()
    if syntax in DECOMPRESSORS:
        found.append((decompress, DECOMPRESSORS[syntax]))
    if syntax in GDCM_DECODES and (program := converters.gdcmconv_installed()):
        found.append((converters.decode, program))
    return found


def _proven(instance: Instance, header: Header, file: Path) -> Instance | None:
    """The instance in the file, where it is whole, the same one, uncompressed, and tells that its pixels were lossy."""
    new, new_header = read_whole(file), Header(file, KEYWORDS)
    if new is None or new.transfer_syntax != uid.ExplicitVRLittleEndian or _identity(new) != _identity(instance):
        return None
    if _shape(new_header) != _shape(header) or (_was_lossy(instance, header) and new_header.text(LOSSY) != YES):
        return None
    inflated = instance.transfer_syntax == uid.DeflatedExplicitVRLittleEndian  # its pixels are what they were
    return new if inflated or new.bytes >= pixel_bytes(new_header) else None


def _identity(instance: Instance) -> tuple[str, ...]:
    uids = (instance.sop_instance_uid, instance.sop_class_uid, instance.series_uid, instance.study_uid)
    return *uids, instance.patient_id


def _shape(header: Header) -> list[int]:
    return [max(1, header.number(keyword)) for keyword in SHAPE]


def _was_lossy(instance: Instance, header: Header) -> bool:
    return instance.transfer_syntax in ALWAYS_LOSSY or header.text(LOSSY) == YES
