"""The notebooks as a person runs them in JupyterLab, from any folder, and as papermill does: to the same figures.

Each notebook runs in a real kernel in both ways, on a few episodes and with next to no training. With another number
of threads fits would differ in their last bits, so the notebooks set it, and nothing here does.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient

from workbook import run
from workbook.common import terminal
from workbook.common.paths import NOTEBOOKS, OutputFolder
from workbook.common.progress import read_progress

# Notebook -> what is changed in its parameters; dropped steps keep the simulator out, which has tests of its own.
QUICK: dict[str, dict[str, Any]] = {
    "01_data": {"num_episodes": 12, "drop_noops": True},
    "02_train_robust": {"epochs": 1, "seeds": 2},
    "03_compare": {"baseline_steps": 2},
    "04_residual_analysis": {"policy_steps": 2},
    "05_policy_in_the_loop": {"replay_seeds": 1},
}
# The folder that the kernel starts in: JupyterLab takes the notebook's, other programs another.
IN_NOTEBOOKS = {"01_data", "04_residual_analysis", "05_policy_in_the_loop"}
# What two runs of the same code may differ in: how long it took and when it was, with what is computed from that, as
# the hashes of tables that tell times; the tables themselves are compared without.
TIMES = {
    "seconds",
    "total_seconds",
    "train_seconds",
    "encode_ms",
    "decode_ms",
    "run_seconds",
    "overhead",
    "written",
    "made_from",
    "command",
}
TIMED_TABLES = {"models", "token_costs"}
TIMED = {"overhead", "training_time"}  # criteria and claims


def edited(source: str, values: dict[str, Any]) -> str:
    """A parameters cell with some values replaced, and the comments behind them kept."""
    for name, value in values.items():
        source, changed = re.subn(rf"(?m)^({name}(?:: \w+)?) = .+?(?=  #)", rf"\1 = {value!r}", source)
        assert changed == 1, name
    return source


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        if value.get("key") in TIMED:
            return None
        hashes = TIMED_TABLES if "scores" in value else set()
        return {name: without_times(item) for name, item in value.items() if name not in TIMES | hashes}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def figures(out: Path) -> dict[str, Any]:
    """The content of every JSON file and table without times, and the bytes of every other file, by name."""
    readers = {".json": lambda path: without_times(json.loads(path.read_text())), ".parquet": table_without_times}
    files = [path for path in sorted(out.rglob("*")) if path.is_file()]
    return {str(path.relative_to(out)): readers.get(path.suffix, Path.read_bytes)(path) for path in files}


def table_without_times(path: Path) -> bytes:
    return pd.read_parquet(path).drop(columns=list(TIMES), errors="ignore").to_csv().encode()


class BothWays:
    """Runs the notebooks in their order, each once in each way."""

    def __init__(self, root: Path) -> None:
        self.headless, self.by_hand, self.elsewhere = (root / name for name in ("headless", "by hand", "elsewhere"))
        self.executed = root / "executed"
        self.done: list[str] = []
        self.told: dict[str, dict[str, Any] | None] = {}  # of progress in the end
        self.elsewhere.mkdir()
        self.executed.mkdir()

    def run_until(self, stem: str) -> None:
        for each in list(QUICK)[len(self.done) : list(QUICK).index(stem) + 1]:
            parameters = QUICK[each] | {"out": str(self.headless)}
            with terminal.live_line(OutputFolder(self.executed), each):
                assert run._execute(each, self.executed / f"{each}.ipynb", parameters) is None
            self.told[each] = read_progress(self.executed / "progress.json")
            self._run_by_hand(each)
            self.done.append(each)

    def _run_by_hand(self, stem: str) -> None:
        """All cells from the top in one kernel, after its parameters were edited; `out` is typed as seen from there."""
        cwd = NOTEBOOKS if stem in IN_NOTEBOOKS else self.elsewhere
        notebook = nbformat.read(NOTEBOOKS / f"{stem}.ipynb", as_version=4)
        cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
        cell.source = edited(cell.source, QUICK[stem] | {"out": os.path.relpath(self.by_hand, cwd)})
        resources = {"metadata": {"path": str(cwd)}}
        options = {"kernel_name": "python3", "extra_arguments": ["--log-level=50"], "timeout": 300}
        NotebookClient(notebook, resources=resources, **options).execute()


@pytest.fixture(scope="module")
def both_ways(tmp_path_factory: pytest.TempPathFactory) -> BothWays:
    return BothWays(tmp_path_factory.mktemp("both"))


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a person: without what only the runner sets."""
    for name in list(os.environ):
        if name.startswith("WORKBOOK_"):
            monkeypatch.delenv(name)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@pytest.mark.parametrize(
    "stem",
    [*list(QUICK)[:2], *(pytest.param(stem, marks=pytest.mark.slow) for stem in list(QUICK)[2:])],
)
def test_by_hand_and_headless_a_notebook_comes_to_the_same(both_ways: BothWays, stem: str) -> None:
    beside = set(NOTEBOOKS.iterdir())
    both_ways.run_until(stem)
    headless, by_hand = figures(both_ways.headless), figures(both_ways.by_hand)
    assert list(by_hand) == list(headless)
    for name, content in headless.items():
        assert by_hand[name] == content, name
    assert set(NOTEBOOKS.iterdir()) == beside
    assert list(both_ways.elsewhere.iterdir()) == []
    assert_progress_ends_with_its_cell(both_ways.executed / f"{stem}.ipynb", both_ways.told[stem])


def assert_progress_ends_with_its_cell(executed: Path, told: dict[str, Any] | None) -> None:
    """All parts that were announced were done, and one line is left of them; none where nothing was counted."""
    outputs = [o for cell in nbformat.read(executed, as_version=4).cells for o in cell.get("outputs", [])]
    shown = [output.get("data", {}).get("text/markdown", "") for output in outputs]
    assert sum("done in " in text.lower() for text in shown) == (told is not None)
    assert not any(" s left" in text for text in shown)
    if told:
        assert told["done"] == told["total"]


def test_all_notebooks_are_run_in_both_ways() -> None:
    assert ["00_look_inside", *QUICK] == [path.stem for path in sorted(NOTEBOOKS.glob("*.ipynb"))]


def test_a_parameter_is_edited_in_place() -> None:
    cell = 'data: str = "sample"  # "a", "b"\nout: str = ""  # folder\nrate = 1e-3  # of it'
    changed = edited(cell, {"out": "here", "rate": 2})
    assert changed == 'data: str = "sample"  # "a", "b"\nout: str = \'here\'  # folder\nrate = 2  # of it'


def test_only_times_may_differ() -> None:
    """The guard of the comparison: a figure that differs is seen."""
    one = {"mse": 0.1, "seconds": 1.0, "runs": [{"overhead": 2, "n": 3}], "criteria": [{"key": "overhead", "n": 1}]}
    later = {"mse": 0.1, "seconds": 5.0, "runs": [{"overhead": 7, "n": 3}], "criteria": [{"key": "overhead", "n": 2}]}
    assert without_times(one) == without_times(later)
    assert without_times({"scores": "a", "models": "b"}) == without_times({"scores": "a", "models": "c"})
    assert without_times({"scores": "a", "models": "b"}) != without_times({"scores": "b", "models": "b"})
    assert without_times(one) != without_times(later | {"mse": 0.1 + 1e-16})
    assert without_times(one) != without_times(later | {"runs": [{"overhead": 7, "n": 4}]})
