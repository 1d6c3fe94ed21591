"""The files between notebooks, and the folder that they lie in."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays

from workbook.common.errors import InputError
from workbook.common.paths import OutputFolder, replacing
from workbook.common.stages import (
    BESIDE,
    OPTIONAL,
    ROWS,
    STAGES,
    read_document,
    read_optional,
    read_stage,
    stage_path,
    table_path,
    write_json,
    write_stage,
    write_table,
)

CHAIN = [name for name in STAGES if name not in BESIDE]

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


def test_notebooks_of_an_earlier_run_go_from_the_first_stage_that_is_written_anew(out: OutputFolder) -> None:
    (out.root / "notebooks").mkdir()
    write_all_stages(out)
    for notebook in STAGES.values():
        (out.root / "notebooks" / f"{notebook}.ipynb").touch()
    write_stage(out, "comparison", {}, {})
    left = {path.stem for path in (out.root / "notebooks").iterdir()}
    assert left == {STAGES[name] for name in list(STAGES)[: list(STAGES).index("comparison")]}


@pytest.mark.parametrize("name", STAGES)
def test_notebooks_that_a_stage_does_not_follow_into_stay(out: OutputFolder, name: str) -> None:
    """Among them, as a run goes on, those that were just executed."""
    write_all_stages(out)
    (out.root / "notebooks").mkdir()
    order = sorted(set(STAGES.values()))
    for notebook in order:
        (out.root / "notebooks" / f"{notebook}.ipynb").touch()
    write_stage(out, name, {}, {})
    left = {path.stem for path in (out.root / "notebooks").iterdir()}
    assert {notebook for notebook in order if notebook < STAGES[name]} <= left
    assert STAGES[name] not in left


def write_all_stages(out: OutputFolder) -> None:
    for name in STAGES:
        write_stage(out, name, {}, {"of": name})


def test_stages_made_one_after_the_other_can_be_read(out: OutputFolder) -> None:
    write_all_stages(out)
    assert [read_stage(out, name)["of"] for name in STAGES] == list(STAGES)


@pytest.mark.parametrize(("before", "after"), list(pairwise(CHAIN)))
def test_a_stage_made_from_an_older_one_is_refused(out: OutputFolder, before: str, after: str) -> None:
    write_all_stages(out)
    write_stage(out, before, {}, {"of": "another run"})
    for name in CHAIN[CHAIN.index(after) :]:
        with pytest.raises(InputError, match=f"newest run of {STAGES[before]}; run {STAGES[after]} again"):
            read_stage(out, name)
    assert read_stage(out, before) == {"of": "another run"}


@pytest.mark.parametrize("name", STAGES)
def test_a_missing_stage_names_its_notebook(out: OutputFolder, name: str) -> None:
    write_all_stages(out)
    (out.stages / f"{name}.json").unlink()
    for later in [name] if name in BESIDE else CHAIN[CHAIN.index(name) :]:
        with pytest.raises(InputError, match=f"run {STAGES[name]} "):
            read_stage(out, later)


@pytest.mark.parametrize(("name", "before"), BESIDE.items())
def test_a_stage_beside_the_others_follows_from_one_and_none_from_it(out: OutputFolder, name: str, before: str) -> None:
    for change in CHAIN:
        write_all_stages(out)
        write_stage(out, change, {}, {"of": "another run"})
        if CHAIN.index(change) > CHAIN.index(before):
            assert read_stage(out, name) == {"of": name}
        else:
            with pytest.raises(InputError, match="was made before the newest run of"):
                read_stage(out, name)
    write_all_stages(out)
    write_stage(out, name, {}, {"of": "another run"})
    stage_path(out, name).unlink()
    assert [read_stage(out, other)["of"] for other in CHAIN] == CHAIN


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


def test_a_stage_that_is_not_json_any_more_is_damaged(out: OutputFolder) -> None:
    write_stage(out, "data", {}, {})
    stage_path(out, "data").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="damaged"):
        read_stage(out, "data")


@pytest.mark.parametrize("name", OPTIONAL)
def test_an_optional_stage_may_be_missing_but_not_old(out: OutputFolder, name: str) -> None:
    write_all_stages(out)
    found = read_optional(out, name)
    assert found is not None
    assert found["content"] == {"of": name}
    write_stage(out, "policy", {}, {"of": "another run"})
    with pytest.raises(InputError, match=f"run {STAGES[name]} again"):
        read_optional(out, name)
    stage_path(out, name).unlink()
    assert read_optional(out, name) is None


def test_results_and_reports_of_an_earlier_run_go(out: OutputFolder) -> None:
    out.reports.mkdir()
    (out.reports / "index.html").write_text("old")
    out.results.write_text("{}")
    write_stage(out, "data", {}, {})
    assert not out.reports.exists()
    assert not out.results.exists()


# Tables


ROWS_OF = pd.DataFrame({"codec": ["naive", "naive", "bins"], "seed": [0, 1, 0], "mse": [0.1, float("nan"), 1 / 3]})


def write_with_tables(out: OutputFolder, rows: pd.DataFrame = ROWS_OF) -> None:
    write_stage(out, "data", {}, {"of": "data"}, {"episodes": rows})
    write_stage(out, "training", {}, {"of": "training"}, {"training": rows, "scores": rows})


def test_tables_read_back_as_they_were(out: OutputFolder) -> None:
    write_with_tables(out)
    for name in ("episodes", "training", "scores"):
        pd.testing.assert_frame_equal(pd.read_parquet(table_path(out, name)), ROWS_OF, check_exact=True)
    assert read_stage(out, "training") == {"of": "training"}
    assert set(read_document(out, "training")["tables"]) == {"training", "scores"}


def test_rows_lie_beside_the_results_and_other_tables_in_a_folder(out: OutputFolder) -> None:
    assert {table_path(out, name).parent for name in ROWS} == {out.root}
    assert table_path(out, "models") == out.root / "tables" / "models.parquet"


@given(arrays(np.float64, st.integers(1, 20), elements=st.floats(allow_nan=False)), st.data())
def test_every_bit_of_every_figure_is_kept(
    tmp_path_factory: pytest.TempPathFactory, figures: np.ndarray, data: st.DataObject
) -> None:
    texts = data.draw(st.lists(st.text("abc é", max_size=4), min_size=len(figures), max_size=len(figures)))
    rows = pd.DataFrame({"figure": figures, "text": texts, "count": range(len(figures)), "yes": figures > 0})
    folder = OutputFolder.at(str(tmp_path_factory.mktemp("table")))
    write_table(folder, "any", rows)
    read = pd.read_parquet(table_path(folder, "any"))
    pd.testing.assert_frame_equal(read, rows, check_exact=True)
    assert read.figure.to_numpy().tobytes() == figures.tobytes()


def test_the_same_rows_have_the_same_hash_and_others_another(out: OutputFolder) -> None:
    first = write_table(out, "any", ROWS_OF)
    assert write_table(out, "any", ROWS_OF.copy()) == first
    assert write_table(out, "any", ROWS_OF.assign(seed=[0, 1, 1])) != first


@pytest.mark.parametrize("name", ["training", "scores"])
def test_a_table_that_is_missing_names_the_notebook_to_run_again(out: OutputFolder, name: str) -> None:
    write_with_tables(out)
    table_path(out, name).unlink()
    with pytest.raises(InputError, match=rf"{name}\.parquet: not there, .* run 02_train_robust again"):
        read_stage(out, "training")
    assert read_stage(out, "data") == {"of": "data"}


@pytest.mark.parametrize("change", ["rows", "bytes"])
def test_a_table_of_another_run_is_refused(out: OutputFolder, change: str) -> None:
    write_with_tables(out)
    path = table_path(out, "scores")
    if change == "rows":
        write_table(out, "scores", ROWS_OF.assign(mse=0.2))
    else:
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"scores\.parquet: .* not as 02_train_robust wrote it"):
        read_stage(out, "training")


def test_a_table_of_an_earlier_stage_counts_for_the_later_ones(out: OutputFolder) -> None:
    write_with_tables(out)
    table_path(out, "episodes").unlink()
    with pytest.raises(InputError, match=r"episodes\.parquet: .* run 01_data again"):
        read_stage(out, "training")


def test_other_rows_are_another_run_to_what_was_made_from_them(out: OutputFolder) -> None:
    """Though all values and parameters are the same."""
    write_with_tables(out)
    write_stage(out, "data", {}, {"of": "data"}, {"episodes": ROWS_OF.assign(mse=0.2)})
    with pytest.raises(InputError, match="newest run of 01_data"):
        read_stage(out, "training")


class Unwritable:
    """What no column of a table can hold."""


def test_a_table_that_cannot_be_written_leaves_no_half_and_no_stage_that_is_read(out: OutputFolder) -> None:
    """The old stage does not pass for that of the new tables."""
    write_with_tables(out)
    bad = pd.DataFrame({"mse": [Unwritable()]})
    with pytest.raises(Exception, match="Unwritable"):
        write_stage(out, "training", {}, {}, {"training": ROWS_OF.assign(mse=0.2), "scores": bad})
    pd.testing.assert_frame_equal(pd.read_parquet(table_path(out, "scores")), ROWS_OF, check_exact=True)
    assert sorted(path.name for path in out.root.iterdir()) == ["scores.parquet", "stages", "tables"]
    with pytest.raises(InputError, match=r"training\.parquet: .* run 02_train_robust again"):
        read_stage(out, "training")


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
