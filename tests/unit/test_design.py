"""docs/design.md tells of the code that there is."""

import re
from itertools import pairwise
from pathlib import Path

import mkiso

ROOT = Path(mkiso.__file__).parent
DESIGN = (ROOT.parent / "docs" / "design.md").read_text()
STEP = re.compile(r"^\| `([a-z_/]+\.py)` \| (\d+) \|", re.M)
ROW = re.compile(r"^\|.*\| (.*) \|$", re.M)
NAME = re.compile(r"`([A-Za-z_./]+)`")


def test_the_walk_from_a_url_to_genisoimage_is_as_long_as_it_is_told() -> None:
    walk = {name: int(lines) for name, lines in STEP.findall(DESIGN)}
    assert 3 <= len(walk) <= 6
    assert walk == {name: len((ROOT / name).read_text().splitlines()) for name in walk}


def test_each_module_of_the_walk_imports_the_next() -> None:
    walk = [name for name, _ in STEP.findall(DESIGN)]
    for before, after in pairwise(walk):
        module = "mkiso." + after.removesuffix(".py").replace("/", ".")
        room, _, leaf = module.rpartition(".")
        source = (ROOT / before).read_text()
        assert re.search(rf"from {re.escape(module)} import|from {re.escape(room)} import .*\b{leaf}\b", source), after


def test_who_keeps_an_invariant_is_there() -> None:
    """Each part of each name in the table of invariants stands in mkiso or in the files of a host."""
    table = DESIGN[DESIGN.index("| invariant |") :].partition("\n\n")[0]
    places = [*ROOT.rglob("*.py"), *ROOT.rglob("*.cfg"), *(ROOT.parent / "etc").rglob("*"), *ROOT.rglob("*.html")]
    known = "\n".join([*map(str, places), *(one.read_text() for one in places if one.is_file())])
    parts = {part for row in ROW.findall(table)[1:] for name in NAME.findall(row) for part in re.split("[./]", name)}
    assert len(parts) > 40
    assert [part for part in sorted(parts) if not re.search(rf"\b{re.escape(part)}\b", known)] == []
