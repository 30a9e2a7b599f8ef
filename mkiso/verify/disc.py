"""A disc under examination: what several checks look at is read once, when the first of them asks."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from mkiso.disc.records import Malformed
from mkiso.disc.stage import A_FOLDER
from mkiso.pages.readme import ascii_name
from mkiso.retrieve.instances import Instance, instance_within
from mkiso.retrieve.windows import ReadBytes
from mkiso.verify import directory, readme
from mkiso.verify.layout import DICOMDIR, IMAGES, INDEX, OTHER, PHONE, README, WEB
from mkiso.verify.pages import Page, read_page
from mkiso.verify.trees import Tree, Unreadable

# What a hostile disc has read into memory is bounded by what these files tell of each instance: so many bytes at most,
# of records so many elements; and never more than an archive itself has.
LARGEST_DICOMDIR, LARGEST_README, LARGEST_PAGE, LARGEST_PAGES = 1 << 29, 1 << 26, 1 << 24, 1 << 28
LEAST, A_RECORD, A_LINE, ELEMENTS = 1 << 20, 1 << 12, 1 << 8, 64
LEAST_LINKS, LINKS = 10_000, 8


class Disc:
    """The files of a tree, and what they say."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self._walked: dict[tuple[int, ...], Instance | None] = {}

    def content(self, name: str, most: int) -> bytes:
        """A file of at most so many bytes. Raises Unreadable, OSError."""
        with self.tree.opened(name) as extent:
            if extent.size > most:
                raise Unreadable(f"{name} has {extent.size} bytes, and may have {most} on this disc")
            data = extent.read(most)
            if len(data) < extent.size:
                raise Unreadable(f"{name} is cut short")
        return data

    @cached_property
    def directory(self) -> directory.Directory:
        """The DICOMDIR. Raises Unreadable where there is none, or a torn one."""
        if (name := self.tree.find(DICOMDIR)) is None:
            raise Unreadable("there is no DICOMDIR at the root")
        try:
            count = len(self.tree.files)
            data = self.content(name, min(LARGEST_DICOMDIR, LEAST + min(A_RECORD * count, self.tree.packed)))
            return directory.parse(data, ELEMENTS * (count + A_FOLDER))
        except Malformed as error:
            raise Unreadable("the DICOMDIR is torn, or not of explicit little endian with lengths") from error

    @property
    def is_legacy(self) -> bool:
        """Whether it is of the other layout, whose instances lie in a folder of that name."""
        return self.tree.find(DICOMDIR) is None and DICOMDIR in map(str.upper, self.tree.folders)

    @cached_property
    def readme(self) -> readme.Readme:
        """README.TXT; one that says nothing where there is none."""
        name = self.tree.find(README)
        most = min(LARGEST_README, LEAST + min(A_LINE * len(self.tree.files), self.tree.packed))
        return readme.parse(self.content(name, most) if name else b"")

    @cached_property
    def images(self) -> dict[str, Instance | None]:
        """Below IMAGES, the instance in each file; None where there is none to be read."""
        return self._instances(IMAGES)

    @cached_property
    def others(self) -> dict[str, Instance | None]:
        """Below OTHER, as those below IMAGES."""
        return self._instances(OTHER)

    @cached_property
    def legacy(self) -> dict[str, Instance | None]:
        """Below the folder DICOMDIR of the other layout, as those below IMAGES."""
        return self._instances(DICOMDIR)

    @cached_property
    def pages(self) -> tuple[Page, ...]:
        """INDEX.HTM, PHONE.HTM and the pages among the web content."""
        roots = (name for one in (INDEX, PHONE) if (name := self.tree.find(one)))
        below = (name for name in self.tree.below(WEB) if name.upper().endswith(".HTM"))
        names = tuple(dict.fromkeys((*roots, *below)))
        if (size := sum(self.tree.files[name] for name in names)) > LARGEST_PAGES:
            raise Unreadable(f"its pages have {size} bytes")
        most = LEAST_LINKS + LINKS * len(self.tree.files)
        pages: list[Page] = []
        for name in names:
            pages.append(read_page(name, self.content(name, LARGEST_PAGE), most))
            most -= pages[-1].count
        return tuple(pages)

    @cached_property
    def is_in_capitals(self) -> bool:
        """Whether the medium knows no other names."""
        return all(name == name.upper() for name in self.tree.below(WEB))

    def is_viewers(self, root: str) -> bool:
        """Whether README.TXT names something at the root as the viewer's."""
        return ascii_name(root).upper() in self.readme.entries

    def _instances(self, folder: str) -> dict[str, Instance | None]:
        return {name: self._instance(name) for name in self.tree.below(folder)}

    def _instance(self, name: str) -> Instance | None:
        try:
            with self.tree.opened(name) as extent:
                if extent.place not in self._walked:
                    content = ReadBytes(extent.piece, extent.size)
                    self._walked[extent.place] = instance_within(Path(name), content, (extent.size, 0))
                return self._walked[extent.place]
        except (Unreadable, OSError):
            return None
