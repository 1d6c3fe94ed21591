"""How every notebook begins: with parameters that exist, and of the type that they are to have."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest

from workbook.common import notebook as module
from workbook.common.errors import InputError
from workbook.common.paths import NOTEBOOKS, OutputFolder
from workbook.common.stages import STAGES, write_json
from workbook.options import notebook_parameters, parse_arguments

STEMS = sorted(set(STAGES.values()))  # 00_look_inside writes nothing


def cells(stem: str) -> tuple[str, str]:
    """The cell of parameters, and that after it."""
    notebook = nbformat.read(NOTEBOOKS / f"{stem}.ipynb", as_version=4)
    tagged = [place for place, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])]
    return notebook.cells[tagged[0]].source, notebook.cells[tagged[0] + 1].source


def begin(stem: str, *executed: str, **injected: Any) -> dict[str, Any]:
    """Run a notebook's first cells as a kernel does, with papermill's cell between; executed: cells before them."""
    parameters, beginning = cells(stem)
    given = "# Parameters\n" + "\n".join(f"{name} = {value!r}" for name, value in injected.items())
    variables: dict[str, Any] = {"In": [""]}
    for source in (*executed, parameters, given, beginning):
        variables["In"].append(source)
        exec(source, variables)
    return variables


@pytest.fixture(autouse=True)
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the notebook shows."""
    found: list[str] = []
    monkeypatch.setattr(module, "display", lambda output: found.append(output.data))
    return found


def refusal(stem: str, *executed: str, **injected: Any) -> str:
    with pytest.raises(InputError) as raised:
        begin(stem, *executed, **injected)
    said = str(raised.value)
    assert said.startswith(f"{stem}: ")
    assert "\n" not in said
    return said


@pytest.mark.parametrize("stem", STEMS)
def test_a_notebook_says_where_its_results_go(
    stem: str, tmp_path: Path, shown: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert begin(stem, out="my results")["folder"] == OutputFolder(tmp_path / "my results")
    assert shown == [f"Results go to `{tmp_path / 'my results'}`."]


@pytest.mark.parametrize("stem", STEMS)
def test_a_notebook_takes_what_the_runner_gives_it(stem: str, tmp_path: Path) -> None:
    out = OutputFolder.at(str(tmp_path))
    options = parse_arguments(["--with-replay"])
    begin(stem, **notebook_parameters(options, "sample", out, out)[stem])


@pytest.mark.parametrize("stem", STEMS)
def test_every_parameter_has_a_type(stem: str, tmp_path: Path) -> None:
    """One that a notebook's first cell does not name is told as unknown, and one of another type is refused."""
    for name, about in papermill.inspect_notebook(str(NOTEBOOKS / f"{stem}.ipynb")).items():
        said = refusal(stem, **{"out": str(tmp_path), name: None})
        assert re.fullmatch(
            rf"{stem}: {name} is None; give (a whole number|a number|True or False|text in quotes)", said
        )
        assert ("text in quotes" in said) == about["default"].startswith('"')


@pytest.mark.parametrize("stem", STEMS)
def test_a_parameter_that_a_notebook_does_not_have(stem: str) -> None:
    said = refusal(stem, outt="")
    assert said.startswith(f"{stem}: has no parameter outt; did you mean out (known: ")
    known = set(re.findall(r"\w+", said.partition("known: ")[2]))
    assert known == set(papermill.inspect_notebook(str(NOTEBOOKS / f"{stem}.ipynb")))


def test_a_parameter_like_no_other_is_to_be_left_out() -> None:
    assert "has no parameter xyz; leave it out (known: " in refusal("03_compare", xyz=1)


@pytest.mark.parametrize(
    ("stem", "name", "value", "fix"),
    [
        ("01_data", "num_episodes", "8", "'8'; give a whole number"),
        ("01_data", "num_episodes", 8.0, "8.0; give a whole number"),
        ("01_data", "num_episodes", True, "True; give a whole number"),
        ("01_data", "drop_noops", 1, "1; give True or False"),
        ("01_data", "max_left_out", "0.5", "'0.5'; give a number"),
        ("02_train_robust", "learning_rate", False, "False; give a number"),
        ("02_train_robust", "device", 0, "0; give text in quotes"),
        ("03_compare", "baseline_steps", [10], "[10]; give a whole number"),
    ],
)
def test_a_value_of_another_type(stem: str, name: str, value: Any, fix: str) -> None:
    assert refusal(stem, **{name: value}) == f"{stem}: {name} is {fix}"


def test_a_whole_number_is_a_number(tmp_path: Path) -> None:
    assert begin("02_train_robust", out=str(tmp_path), learning_rate=1)["learning_rate"] == 1


def test_a_slip_that_was_mended_and_what_else_a_person_tries_count_for_nothing(tmp_path: Path) -> None:
    """In a kernel that ran other cells before: one with the slip, one of the person's own, and one for the shell."""
    slip = cells("01_data")[0].replace("num_episodes:", "num_episode:")
    assert "did you mean num_episodes" in refusal("01_data", num_episode=3)
    begin("01_data", slip, "# Parameters\nnum_episode = 3", "tries = 3", "a, b = 1, 2", out=str(tmp_path))


def test_a_slip_in_the_cell_of_parameters_itself() -> None:
    parameters, beginning = cells("01_data")
    slip = parameters.replace("num_episodes:", "num_episode:")
    variables: dict[str, Any] = {"In": ["", "!pip list", slip, beginning]}
    exec(slip, variables)
    with pytest.raises(InputError, match="did you mean num_episodes"):
        exec(beginning, variables)
    with pytest.raises(InputError, match="num_episodes is not set; run the cell of parameters first"):
        exec(beginning, {name: value for name, value in variables.items() if name != "In"})


@pytest.mark.parametrize(
    ("stem", "parameters", "said"),
    [
        ("01_data", {"num_episode": 8}, "01_data: has no parameter num_episode; did you mean num_episodes ("),
        ("01_data", {"data": "nowhere.hdf5"}, "nowhere.hdf5: no such file or directory"),
        ("03_compare", {}, "{out}/stages/training.json: not there yet; run 02_train_robust with the same `out` first"),
    ],
)
def test_a_notebook_stops_with_one_sentence_and_no_traceback(
    tmp_path: Path, stem: str, parameters: dict[str, Any], said: str
) -> None:
    """In a real kernel, and for papermill an error as any other."""
    source, out = NOTEBOOKS / f"{stem}.ipynb", tmp_path / "out"
    with pytest.raises(papermill.PapermillExecutionError) as raised:
        papermill.execute_notebook(
            str(source), str(tmp_path / "executed.ipynb"), parameters | {"out": str(out)}, kernel_name="python3",
            progress_bar=False,
        )  # fmt: skip
    assert raised.value.ename == "InputError"
    assert said.format(out=out) in raised.value.evalue
    assert raised.value.traceback == [f"InputError: {raised.value.evalue}"]
    assert not (out / "stages").exists()


def test_a_notebook_says_what_it_keeps(out: OutputFolder, shown: list[str]) -> None:
    provenance = {"parameters": {"data": {}, "training": {"seeds": 5}}, "dataset_sha256": ""}
    write_json(out.results, {"provenance": provenance})
    module.make_room(out, training={"seeds": 5})
    assert shown == []
    module.make_room(out, training={"seeds": 2})
    assert shown == [f"`{out.root}` held a finished run with other settings. It is kept in `{out.root}.previous`."]
