"""How every notebook begins: its parameters are checked, and it says where results go and what it keeps."""

from __future__ import annotations

import ast
import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, get_type_hints

from IPython.display import Markdown, display

from workbook.common.errors import InputError
from workbook.common.parallel import prepare
from workbook.common.paths import OutputFolder
from workbook.common.previous import Settings, keep_finished_run
from workbook.common.progress import FILE_VARIABLE

INJECTED = "# Parameters\n"  # how papermill begins a cell of its own
WANTED = {int: "a whole number", float: "a number", bool: "True or False", str: "text in quotes"}


def begin(notebook: str, variables: Mapping[str, Any], *configs: type, **others: type) -> OutputFolder:
    """Check the parameters of a notebook, and make and show the folder for results.

    variables: of the notebook; configs: dataclasses whose fields are parameters; others: parameter -> type.

    Raises:
        InputError: a parameter that does not exist was given, one is missing or of another type, or the folder cannot
            be written.
    """
    known = others | {name: kind for config in configs for name, kind in get_type_hints(config).items()}
    for name in _given(variables.get("In", ())):
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}" if near else "leave it out"
            raise InputError(f"{notebook}: has no parameter {name}; {hint} (known: {', '.join(sorted(known))})")
    for name, kind in known.items():
        if name not in variables:
            raise InputError(f"{notebook}: the parameter {name} is not set; run the cell of parameters first")
        if not _is_a(variables[name], kind):
            raise InputError(f"{notebook}: {name} is {variables[name]!r}; give {WANTED[kind]}")
    folder = OutputFolder.at(variables["out"], "`out`")
    if FILE_VARIABLE in os.environ:  # of the runner; by hand, code may change between two runs of a cell
        prepare(*(config.__module__ for config in configs))  # of the work that they are for
    display(Markdown(f"Results go to `{folder.root}`."))
    return folder


def make_room(folder: OutputFolder, **stages: Settings | None) -> None:
    """Keep a finished run that these stages would destroy, and say where; stages: their settings."""
    kept = keep_finished_run(folder, stages)
    if kept:
        display(Markdown(f"`{folder.root}` held a finished run with other settings. It is kept in `{kept}`."))


def _is_a(value: object, kind: type) -> bool:
    """Whether a parameter can be taken; a whole number is a number, and True is none."""
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _given(cells: Sequence[str]) -> list[str]:
    """The names that the newest cell of parameters sets, and papermill's after it; cells: sources in running order."""
    parsed = [(source, names) for source in cells if (names := _assigned(source))]
    last = max((place for place, (_, names) in enumerate(parsed) if "out" in names), default=len(parsed))
    given = [names for place, (source, names) in enumerate(parsed[last:]) if not place or source.startswith(INJECTED)]
    return [name for names in given for name in names]


def _assigned(source: str) -> list[str]:
    """The names that a cell sets, where it does nothing else."""
    try:
        lines = ast.parse(source).body
    except SyntaxError:  # a shell command
        return []
    targets = [line.targets[0] for line in lines if isinstance(line, ast.Assign) and len(line.targets) == 1]
    targets += [line.target for line in lines if isinstance(line, ast.AnnAssign)]  # as papermill tells types from
    names = [target.id for target in targets if isinstance(target, ast.Name)]
    return names if len(names) == len(lines) else []
