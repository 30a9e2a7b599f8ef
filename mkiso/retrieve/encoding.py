"""How elements are written (PS3.5 7.1): byte order, and whether each tells its value representation (VR)."""

from __future__ import annotations

from struct import Struct
from typing import Literal

from mkiso.retrieve.windows import Unwalkable

HEADER, LONG_HEADER = 8, 12
ITEM, ITEM_END, SEQUENCE_END, PIXEL_DATA = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD, 0x7FE00010
LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
NO_VR = b""

TRANSFER_SYNTAX, MEDIA_SOP_CLASS, MEDIA_SOP_INSTANCE = 0x00020010, 0x00020002, 0x00020003
CHARACTER_SET, SOP_CLASS, SOP_INSTANCE = 0x00080005, 0x00080016, 0x00080018
PATIENT_ID, STUDY, SERIES = 0x00100020, 0x0020000D, 0x0020000E
SERIES_NUMBER, INSTANCE_NUMBER = 0x00200011, 0x00200013
OF_META = (TRANSFER_SYNTAX, MEDIA_SOP_CLASS, MEDIA_SOP_INSTANCE)
OF_DATA_SET = (CHARACTER_SET, SOP_CLASS, SOP_INSTANCE, PATIENT_ID, STUDY, SERIES, SERIES_NUMBER, INSTANCE_NUMBER)


class Encoding:
    """A byte order, and whether the VR is explicit.

    A tag is read as one number, in which little endian has the group below the element.
    """

    def __init__(self, order: str, implicit: bool) -> None:
        self.order: Literal["little", "big"] = "little" if order == "<" else "big"
        self.is_implicit = implicit
        self.header = Struct(f"{order}L0sL" if implicit else f"{order}L2sH").unpack_from
        self.length = Struct(f"{order}L").unpack_from
        self.item_header = Struct(f"{order}LL").unpack_from
        self.short = frozenset({NO_VR}) if implicit else SHORT_VRS
        self.long = frozenset() if implicit else LONG_VRS
        self.item, self.item_end, self.sequence_end, self.pixel_data = map(
            self.tag, (ITEM, ITEM_END, SEQUENCE_END, PIXEL_DATA)
        )
        self.delimiter = Struct(f"{order}L").pack(self.sequence_end)
        self.of_meta = {self.tag(tag): tag for tag in OF_META}
        self.of_item = {self.item_end: ITEM_END}
        self.of_data_set = self.of_item | {self.tag(tag): tag for tag in OF_DATA_SET}
        self.implicit = self if implicit else Encoding(order, implicit=True)

    def tag(self, tag: int) -> int:
        """A tag as it is read for one as it is told (PS3.6), and the other way round."""
        return (tag & 0xFFFF) << 16 | tag >> 16 if self.order == "little" else tag

    def element(self, window: bytes, at: int) -> tuple[int, bytes, int, int]:
        """Tag, VR, length and value's place of any element. A VR that cannot be one means an implicit one."""
        tag, vr, length = self.header(window, at)
        if vr in self.long:
            if len(window) < at + LONG_HEADER:
                raise Unwalkable
            return tag, vr, self.length(window, at + HEADER)[0], at + LONG_HEADER
        if vr in self.short or b"AA" <= vr <= b"ZZ":
            return tag, vr, length, at + HEADER
        return tag, NO_VR, self.length(window, at + 4)[0], at + HEADER

    def within_item(self, vr: bytes) -> Encoding:
        """That of an item whose first element has these bytes for a VR: a sequence may be implicit (PS3.5 6.2.2)."""
        return self if vr.isalpha() and vr.isupper() else self.implicit


EXPLICIT_LITTLE, EXPLICIT_BIG = Encoding("<", implicit=False), Encoding(">", implicit=False)
IMPLICIT_LITTLE = EXPLICIT_LITTLE.implicit
