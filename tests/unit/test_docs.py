"""docs/errors.md has each code of `errors`, with its status, and no other; the pages' links lead somewhere."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mkiso import errors
from mkiso.errors import ConfigurationError, MkisoError
from tests.support.pages import page
from tests.support.tools import ROOT

CLASSES = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, MkisoError)]
PAGES = ["README.md", *(f"docs/{file.name}" for file in sorted((ROOT / "docs").glob("*.md")))]


def documented() -> Iterator[tuple[str, int | None]]:
    """Code and status of each row; a row of several codes has a status for all of them, or one for each."""
    for codes, statuses in re.findall(r"^\| ((?:`\w+`,? ?)+)\| ([\d, ]*)\|", page("errors"), re.M):
        names, numbers = re.findall(r"\w+", codes), [int(one) for one in re.findall(r"\d+", statuses)] or [None]
        yield from zip(names, numbers * len(names) if len(numbers) == 1 else numbers, strict=True)


def test_each_code_is_told_once_with_its_status() -> None:
    known = {one.code: None if one is ConfigurationError else one.http_status for one in CLASSES}
    told = list(documented())
    assert dict(told) == known
    assert len(told) == len(known)


def anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("name", PAGES)
def test_a_pages_links_lead_to_what_is_there(name: str) -> None:
    file = ROOT / name
    for link in re.findall(r"\]\(([^)#:]*(?:#[\w-]+)?)\)", file.read_text()):
        path, _, heading = link.partition("#")
        target = (file.parent / path) if path else file
        assert target.is_file(), link
        if heading:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.M)
            assert heading in map(anchor, headings), link


@pytest.mark.parametrize("name", PAGES)
def test_a_page_that_is_named_is_there(name: str) -> None:
    for path in re.findall(r"`((?:docs|etc|packaging|benchmarks|tests)/[\w./-]+\.\w+)`", (ROOT / name).read_text()):
        assert Path(ROOT, path).is_file(), path
