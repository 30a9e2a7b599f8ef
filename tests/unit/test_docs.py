"""docs/errors.md has each code of `errors`, with its status, and no other; the pages' links lead somewhere."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mkiso import errors
from mkiso.errors import ConfigurationError, MkisoError
from mkiso.verify import dicomdir, instances, verify
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


def test_the_gallery_shows_each_picture_of_discs_before_and_after() -> None:
    drawn = {str(file.relative_to(ROOT / "docs")) for file in (ROOT / "docs/screenshots/discs").rglob("*.jpg")}
    rows = re.findall(r"!\[(.*), before\]\((\S+)\) \| !\[(.*), after\]\((\S+)\)", page("gallery"))
    assert len(rows) > 25
    for before, left, after, right in rows:
        assert (before, left.replace("/before/", "/after/")) == (after, right)
    assert drawn == {file for _, left, _, right in rows for file in (left, right)}
    assert sum((ROOT / "docs" / file).stat().st_size for file in drawn) < 3_000_000


DEMANDS = re.findall(r"^\| (.+) \| (.+) \| (.+) \|$", page("discs").partition("## Judges")[0], re.M)
CHECKS = (
    *(*dicomdir.CHECKS, *dicomdir.CHECKS_BY_TYPE),
    *(*instances.OF_MEDIUM, *instances.OF_INSTANCES, *verify.OF_PAGES),
)


def test_each_demand_on_a_disc_is_held_by_something() -> None:
    demands = [(demand, held) for demand, _, held in DEMANDS if demand != "Demand"]
    assert len(demands) > 30
    for demand, held in demands:
        assert re.search(r"`verify`: |`(unit|integration)/|^not mkiso's: ", held), demand


def test_each_test_that_is_said_to_hold_a_demand_is_there() -> None:
    named = set(re.findall(r"`((?:unit|integration)/test_\w+\.py)::(\w+)`", page("discs")))
    assert len(named) == len(set(re.findall(r"`[\w/.]+::\w+`", page("discs")))) > 15
    for file, name in named:
        assert re.search(rf"^def {name}\(", (ROOT / "tests" / file).read_text(), re.M), (file, name)


def test_each_check_that_is_said_to_hold_a_demand_is_one_of_verify() -> None:
    known = {"DICOMDIR", "PATIENT", *(name for name, _ in CHECKS)}
    for _, _, held in DEMANDS:
        for named in re.findall(r"`verify`: ([^;`]+?)(?:;|$)", held):
            left = named
            for name in sorted(known, key=len, reverse=True):
                left = left.replace(name, "")
            assert not left.strip(" ,"), named
