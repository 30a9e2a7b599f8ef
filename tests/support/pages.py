"""What the documentation prints: its pages, and their blocks by the words behind the fence."""

import re

from tests.support.tools import ROOT


def page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text()


def block(name: str, words: str) -> str:
    """The block of `docs/NAME.md` whose fence has these words, as it is printed."""
    found: list[str] = re.findall(rf"^```{re.escape(words)}\n(.*?)^```$", page(name), re.M | re.S)
    assert len(found) == 1, (name, words, len(found))
    return found[0]
