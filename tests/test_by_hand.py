"""What a person meets at the keyboard: names complete on TAB, and objects say briefly what they are."""

from __future__ import annotations

from pathlib import Path

import jedi
import nbformat
import papermill
import pytest

from rfsq_robust import ActionRFSQAE, Checkpoint
from workbook.common.paths import NOTEBOOKS
from workbook.data.dataset import prepare_dataset

MODEL = ActionRFSQAE()
OBJECTS = {"model": MODEL, "checkpoint": Checkpoint(MODEL, 3), "prepared": prepare_dataset("sample")}


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("model.", "encode"),
        ("model.conditioning.", "upper"),
        ("checkpoint.model.", "decode_from_indices"),
        ("prepared.dataset.", "held_out_chunks"),
    ],
)
def test_names_complete(written: str, expected: str) -> None:
    assert expected in {found.name for found in jedi.Interpreter(written, [OBJECTS]).complete()}


def test_objects_say_briefly_what_they_are() -> None:
    dataset = OBJECTS["prepared"].dataset
    for one in (OBJECTS["checkpoint"], dataset, dataset.part("test")[0]):
        assert len(repr(one)) < 200
        assert "\n" not in repr(one)
    assert "190 episodes" in repr(dataset)
    assert "epoch 3" in repr(OBJECTS["checkpoint"])


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_papermill_tells_the_type_of_every_parameter(path: Path) -> None:
    told = papermill.inspect_notebook(str(path))
    assert told
    assert {each["inferred_type_name"] for each in told.values()} <= {"str", "int", "float", "bool"}
    assert all(each["help"] for each in told.values())


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_plumbing_is_folded_and_nothing_else(path: Path) -> None:
    """What a page leaves out, for it is no matter of the reader's, stands closed in JupyterLab."""
    for cell in nbformat.read(path, as_version=4).cells:
        folded = cell.metadata.get("jupyter", {}).get("source_hidden", False)
        assert folded == ("remove_cell" in cell.metadata.get("tags", [])), cell.id
