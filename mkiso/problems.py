"""What is wrong with a configuration, a line a key; never the value, which may be a secret."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

BEFORE = re.compile(r"Value error, |\w+ should (be|have) ")  # of pydantic's words


def told(error: ValidationError, model: type[BaseModel]) -> str:
    """Each key's path and what was expected there, and what a mistyped key or word was probably meant to be."""
    errors = error.errors(include_url=False)
    return "\n".join(_problem(one, model) for one in errors if not _is_echo(one, errors))


def _is_echo(error: Any, errors: Iterable[Any]) -> bool:
    """Whether a list is too short only because what is wrong within it was taken out."""
    within = (one["loc"][: len(error["loc"])] == error["loc"] for one in errors if one is not error)
    return error["type"] == "too_short" and any(within)


def _problem(error: Any, model: type[BaseModel]) -> str:
    path = ".".join(str(part) for part in error["loc"]) or "(top level)"
    if error["type"] == "extra_forbidden":
        *above, key = error["loc"]
        meant = _meant(key, _section_at(above, model).model_fields)
        return f"  {path}: unknown key{meant}; the commented mkiso.yaml lists the known ones"
    meant = _meant(error["input"], _words(error)) if error["type"] == "literal_error" else ""
    expected = "a value, and there is none" if error["type"] == "missing" else BEFORE.sub("", error["msg"])
    return f"  {path}: expected {expected}{meant}"


def _words(error: Any) -> list[str]:
    return re.findall(r"'([^']*)'", error["ctx"]["expected"])


def _meant(given: object, known: Collection[str]) -> str:
    close = get_close_matches(str(given).lower(), known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _section_at(path: Iterable[object], model: type[BaseModel]) -> type[BaseModel]:
    """The model of a path's section; the numbers of a list and the names in a mapping lead no further."""
    for part in path:
        if isinstance(part, str) and part in model.model_fields:
            model = _section_in(model.model_fields[part].annotation) or model
    return model


def _section_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_section_in, get_args(annotation))), None)
