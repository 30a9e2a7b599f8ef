"""What discs say to people: a TOML file a language, the same keys in each."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from importlib.resources import files

Texts = Mapping[str, Mapping[str, str]]


@functools.cache
def texts(language: str) -> Texts:
    """The texts of a language (`media.language`) by section and key; FileNotFoundError where there are none."""
    return tomllib.loads(files(__package__).joinpath(f"{language}.toml").read_text("utf-8"))
