"""The house: a folder imports only from those before it, and nothing goes round in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from workbook.common.paths import REPOSITORY

CHAIN = (
    "rfsq_robust", "common", "data", "codecs", "training", "evaluation", "verdict", "report",
    "options", "publish", "unfinished", "run",  # the runner
)  # fmt: skip
BEFORE = {room: set(CHAIN[:place]) for place, room in enumerate(CHAIN)}
BEFORE["simulation"] = {"common", "data"}
BEFORE["evaluation"] |= {"simulation"}
BEFORE["options"] |= {"simulation"}
BEFORE["rfsq_tokenizer"] = {"rfsq_robust", "data", "training"}  # workbook.* inside `fit` alone: the named exception
BEFORE["export"] = BEFORE["evaluation"] | {"evaluation", "rfsq_tokenizer"}
# One-line shims for saved copies of rfsq_tokenizer.py and saved folders, under the names that these import.
SHIMS = {"chunks": {"data"}, "klt_tokenizer": {"export"}}
ROOMS = BEFORE | SHIMS
FILES = [REPOSITORY / "rfsq_robust.py", REPOSITORY / "rfsq_tokenizer.py", *(REPOSITORY / "workbook").rglob("*.py")]


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in FILES}


def room_of(module: str) -> str:
    return module.removeprefix("workbook.").partition(".")[0]


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports, at the top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            for name in node.names:
                below = f"{node.module}.{name.name}"
                yield below if below in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


def own_imports(path: Path) -> set[str]:
    return {module for module in imports(path) if module in MODULES} - {"workbook"}


@pytest.mark.parametrize("module", [module for module in MODULES if module != "workbook"])
def test_a_folder_imports_only_from_those_before_it(module: str) -> None:
    own = room_of(module)
    others = {room_of(imported) for imported in own_imports(MODULES[module])} - {own}
    assert others <= ROOMS[own], f"{module} may not import from {', '.join(sorted(others - ROOMS[own]))}"


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {module: own_imports(path) - {module} for module, path in MODULES.items()}
    tuple(TopologicalSorter(graph).static_order())  # raises CycleError with the circle


def test_an_import_inside_a_function_counts(tmp_path: Path) -> None:
    (tmp_path / "early.py").write_text("def late():\n    from workbook.verdict import criteria\n    return criteria\n")
    assert own_imports(tmp_path / "early.py") == {"workbook.verdict.criteria"}
    assert "verdict" not in ROOMS["data"]


def test_nothing_but_its_commands_imports_what_exports() -> None:
    importers = {module for module, path in MODULES.items() if "export" in map(room_of, own_imports(path))}
    assert {room_of(module) for module in importers} <= {"export", "klt_tokenizer"}
