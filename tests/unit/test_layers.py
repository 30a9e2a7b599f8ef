"""The house's order: who may import whom, and how long things may be."""

import ast
import importlib
from collections.abc import Iterator
from enum import Enum
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import mkiso

ROOT = Path(mkiso.__file__).parent
# From the bottom to the top; a module imports from its own row and from those before it.
LAYERS = (
    {"errors"},
    {"accession", "addresses", "config", "leash", "log", "password", "process", "texts", "values", "waiting"},
    {"dicom"},
    {"dcmtk", "workspace", "ledger", "patients"},
    {"retrieve"},
    {"browse"},
    {"disc", "confirm", "relay", "checks", "installation"},
    {"job", "verify"},
    {"web", "commands"},
)
ONLY = {
    "flask": {"web"},
    "prometheus_client": {"web"},
    "subprocess": {"leash", "process"},
    "yaml": {"config"},
    "alembic": {"ledger"},
    "sqlalchemy": {"ledger", "patients"},
    "psutil": {"retrieve", "workspace"},
    "PIL": {"browse"},
}
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
FILES = {str(file.relative_to(ROOT)): file for file in sorted(ROOT.rglob("*.py"))}
ROOMS = {name: Path(name).parts[0].removesuffix(".py") for name in FILES if name != "__init__.py"}


@cache
def trees() -> dict[str, ast.Module]:
    return {name: ast.parse(file.read_text()) for name, file in FILES.items()}


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            base = node.module or ""
            yield from (f"{base}.{alias.name}" if base == "mkiso" else base for alias in node.names)


def rooms_imported(name: str) -> set[str]:
    ours = (one.split(".")[1] for one in imports(trees()[name]) if one.startswith("mkiso."))
    return {room for room in ours if not room.startswith("__")} - {ROOMS[name]}


@pytest.mark.parametrize("name", ROOMS)
def test_a_module_imports_downwards_only(name: str) -> None:
    assert [room for room in rooms_imported(name) if RANK[room] > RANK[ROOMS[name]]] == []


def test_no_room_imports_itself_by_way_of_others() -> None:
    graph: dict[str, set[str]] = {}
    for name, room in ROOMS.items():
        graph.setdefault(room, set()).update(rooms_imported(name))
    TopologicalSorter(graph).prepare()


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Nor within a room."""
    modules = {("mkiso/" + name).removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in FILES}
    graph: dict[str, set[str]] = {}
    for name, tree in trees().items():
        module = ("mkiso/" + name).removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for node in (one for one in ast.walk(tree) if isinstance(one, ast.ImportFrom)):
            taken = {f"{node.module}.{alias.name}" for alias in node.names}
            graph.setdefault(module, set()).update(taken & modules or {node.module or ""} & modules)
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("library", ONLY)
def test_a_library_is_imported_only_where_it_belongs(library: str) -> None:
    users = {name for name in ROOMS if any(one.split(".")[0] == library for one in imports(trees()[name]))}
    assert {name for name in users if ROOMS[name] not in ONLY[library]} == set()


def test_no_module_exceeds_400_lines() -> None:
    assert [name for name, file in FILES.items() if len(file.read_text().splitlines()) > 400] == []


def test_no_function_exceeds_40_lines() -> None:
    functions = (
        (name, node)
        for name, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    assert [f"{name}: {one.name}" for name, one in functions if (one.end_lineno or 0) - one.lineno >= 40] == []


def test_the_value_of_an_enum_is_a_word_or_a_number() -> None:
    """A tuple's items are arguments of the class; Python 3.11.2 makes of an empty one a bare object()."""
    for name in (name for name in FILES if "enum" in imports(trees()[name])):
        importlib.import_module("mkiso." + name.removesuffix(".py").replace("/", "."))
    members = [member for one in enums(Enum) if one.__module__.startswith("mkiso.") for member in one]
    assert len(members) > 10
    assert [member for member in members if not isinstance(member.value, str | int)] == []


def enums(base: type[Enum]) -> Iterator[type[Enum]]:
    for one in base.__subclasses__():
        yield one
        yield from enums(one)
