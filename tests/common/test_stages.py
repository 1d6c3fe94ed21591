"""The files between notebooks, and the folder that they lie in."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from workbook.common.errors import InputError
from workbook.common.paths import OutputFolder, replacing
from workbook.common.stages import STAGES, read_document, read_stage, write_json, write_stage

# Stages


def test_a_stage_reads_back_what_was_written(out: OutputFolder) -> None:
    content = {"numbers": [1, 2.5], "task": "öffne die 箱", "nested": {"none": None, "yes": True}}
    assert write_stage(out, "data", {"chunk_len": 8}, content) == content
    assert read_stage(out, "data") == content
    document = read_document(out, "data")
    assert (document["stage"], document["parameters"], document["made_from"]) == ("data", {"chunk_len": 8}, None)
    assert {"code", "packages", "python"} <= set(document["provenance"])


def test_nan_and_infinities_become_null(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    write_json(path, {"a": [1.0, float("nan"), (np.float64("inf"),)], "b": {"c": float("-inf")}})
    assert json.loads(path.read_text()) == {"a": [1.0, None, [None]], "b": {"c": None}}


def write_all_stages(out: OutputFolder) -> None:
    for name in STAGES:
        write_stage(out, name, {}, {"of": name})


def test_stages_made_one_after_the_other_can_be_read(out: OutputFolder) -> None:
    write_all_stages(out)
    assert [read_stage(out, name)["of"] for name in STAGES] == list(STAGES)


@pytest.mark.parametrize(("before", "after"), list(pairwise(STAGES)))
def test_a_stage_made_from_an_older_one_is_refused(out: OutputFolder, before: str, after: str) -> None:
    write_all_stages(out)
    write_stage(out, before, {}, {"of": "another run"})
    for name in list(STAGES)[list(STAGES).index(after) :]:
        with pytest.raises(InputError, match=f"newest run of {STAGES[before]}; run {STAGES[after]} again"):
            read_stage(out, name)
    assert read_stage(out, before) == {"of": "another run"}


@pytest.mark.parametrize("name", STAGES)
def test_a_missing_stage_names_its_notebook(out: OutputFolder, name: str) -> None:
    write_all_stages(out)
    (out.stages / f"{name}.json").unlink()
    for later in list(STAGES)[list(STAGES).index(name) :]:
        with pytest.raises(InputError, match=f"run {STAGES[name]} "):
            read_stage(out, later)


def test_a_stage_that_cannot_be_written_leaves_the_old_one(out: OutputFolder) -> None:
    write_stage(out, "data", {}, {"of": "first"})
    with pytest.raises(TypeError):
        write_stage(out, "data", {}, {"of": object()})
    assert read_stage(out, "data") == {"of": "first"}
    assert [path.name for path in out.stages.iterdir()] == ["data.json"]


def test_a_damaged_stage_names_the_notebook_to_run_again(out: OutputFolder) -> None:
    write_stage(out, "data", {}, {})
    path = out.stages / "data.json"
    path.write_text(path.read_text()[:20])
    with pytest.raises(InputError, match="damaged; run 01_data again"):
        read_stage(out, "data")


# Files and folders


def test_replacing_puts_the_whole_file_in_place(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_replacing_keeps_the_old_file_when_writing_fails(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write_half() -> None:
        with replacing(path) as temporary:
            temporary.write_text("ne")
            raise error

    with pytest.raises(error):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_output_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    folder = OutputFolder.at(str(tmp_path / "a" / "b c"))
    assert folder.root == tmp_path / "a" / "b c"
    assert list(folder.root.iterdir()) == []


@pytest.mark.parametrize("where", ["file", "file/out", "file/deep/out"])
def test_an_output_folder_that_cannot_be_is_named(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError) as raised:
        OutputFolder.at(str(tmp_path / where))
    assert str(tmp_path / where) in str(raised.value)
    assert "--out" in str(raised.value)
