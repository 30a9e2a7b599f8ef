"""A YAML file as data; the only import of yaml."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml

from mkiso.errors import ConfigurationError


def read_yaml(path: Path) -> object:
    """What the file holds, None where that is nothing; ConfigurationError, which names each key that is given twice.

    Of two values YAML's own reader silently takes the last.
    """
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        root = loader.get_single_node()
        if twice := list(_repeated(root, (), set())):
            raise ConfigurationError(f"{path} has keys more than once:\n" + "\n".join(twice))
        return None if root is None else loader.construct_document(root)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path} is not YAML{_place(error)}.") from None


def _repeated(node: yaml.Node | None, path: tuple[str, ...], seen: set[int]) -> Iterator[str]:
    """A line for each key that a mapping has twice; a node that several aliases name is looked at once."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        yield from _repeated_in(node, path)
        for key, value in node.value:
            yield from _repeated(value, (*path, str(key.value)), seen)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield from _repeated(value, (*path, str(number)), seen)


def _repeated_in(mapping: yaml.MappingNode, path: tuple[str, ...]) -> Iterator[str]:
    lines: dict[str, int] = {}
    for key in (key for key, _ in mapping.value if isinstance(key, yaml.ScalarNode)):
        line = key.start_mark.line + 1
        if key.value in lines:
            yield f"  {'.'.join((*path, key.value))}: line {line}, and before in line {lines[key.value]}; keep one"
        lines.setdefault(key.value, line)


def _place(error: yaml.YAMLError) -> str:
    """Where the mistake is; not the line itself, which may hold a secret."""
    mark = getattr(error, "problem_mark", None)
    return f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
