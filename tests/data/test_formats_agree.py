"""The same recordings give the same data set and results, whatever they are written in."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from made_up import TASKS, exact_demos, exact_walk
from reading import assert_same, assert_same_episodes, read
from small_runs import ignore_progress, quickly
from writers import Demos, write_chunk_file, write_lerobot_v2, write_lerobot_v3, write_libero_folder

from rfsq_robust import CONDITIONINGS
from workbook.codecs.catalogue import CONDITIONED
from workbook.common.paths import OutputFolder
from workbook.data.card import describe
from workbook.data.config import DataConfig
from workbook.data.dataset import Dataset, Prepared, load_dataset, prepare_dataset, save_dataset
from workbook.data.sources.read import read_recordings
from workbook.data.split import FRACTIONS
from workbook.evaluation.comparison import Comparison, compare
from workbook.evaluation.score import Scores
from workbook.training.baselines import BaselineConfig
from workbook.training.runs import train_variants
from workbook.training.trainer import TrainConfig

HYPOTHESIS = settings(deadline=None, max_examples=40)
TINY = TrainConfig(epochs=2, batch_size=16, learning_rate=5e-3, hidden_dim=4, num_layers=3)
TIMES = {"seconds", "total_seconds", "train_seconds", "encode_ms", "decode_ms", "overhead"}
WHERE = ["episode"]  # the name of a file, in a format of its own
FORMATS: dict[str, Callable[[Path, Demos], Path]] = {
    "LIBERO HDF5": write_libero_folder,
    "LeRobot v2": write_lerobot_v2,
    "LeRobot v3": write_lerobot_v3,
    "LeRobot v3, one episode a file": lambda folder, demos: write_lerobot_v3(folder, demos, episodes_a_file=1),
    "LeRobot v3, three episodes a file": lambda folder, demos: write_lerobot_v3(folder, demos, episodes_a_file=3),
    "normalised chunks": lambda folder, demos: write_chunk_file(folder.with_suffix(".pt"), demos),
}
OTHER_FORMATS = [name for name in FORMATS if name != "LIBERO HDF5"]


@dataclass(frozen=True, eq=False)
class Run:
    """A folder with 20 episodes in every format, and what the results are on each."""

    written: dict[str, Path]
    trained: dict[str, dict[str, Any]]
    compared: dict[str, Comparison]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("formats")
    written = {name: write(folder / name, exact_demos()) for name, write in FORMATS.items()}
    with quickly():
        results = {name: results_on(path, folder / f"out of {name}") for name, path in written.items()}
    trained, compared = ({name: found[part] for name, found in results.items()} for part in (0, 1))
    return Run(written, trained, compared)


def results_on(data: Path, out_folder: Path) -> tuple[dict[str, Any], Comparison]:
    """Of 02_train_robust and 03_compare."""
    dataset, out = prepare_dataset(data).dataset, OutputFolder.at(str(out_folder))
    trained, _ = train_variants(out, dataset, TINY, 2, "cpu")
    return trained, compare(out, dataset, trained, BaselineConfig(2), lambda label: ignore_progress)


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key not in TIMES}
    return [without_times(item) for item in value] if isinstance(value, (list, tuple)) else value


def as_text(value: Any) -> str:
    """Every bit of every float, and NaN equal to NaN."""
    return json.dumps(value, sort_keys=True)


def prepare_both(run: Run, name: str, config: DataConfig | None = None) -> tuple[Prepared, Prepared]:
    return prepare_dataset(run.written["LIBERO HDF5"], config), prepare_dataset(run.written[name], config)


def assert_same_dataset(one: Dataset, other: Dataset) -> None:
    assert one.sha256 == other.sha256
    assert one.split == other.split
    assert one.control_rate_hz == other.control_rate_hz
    for bound in ("low", "high"):
        np.testing.assert_array_equal(getattr(one.normaliser, bound), getattr(other.normaliser, bound))
    assert_same(list(one.episodes), [(episode.task, episode.actions) for episode in other.episodes])
    cut = [[d.train_chunks(), *(d.held_out_chunks(part) for part in FRACTIONS)] for d in (one, other)]
    for ours, theirs in zip(*cut, strict=True):
        for field in ("actions", "valid", "episode"):
            np.testing.assert_array_equal(getattr(ours, field), getattr(theirs, field))


def test_the_recordings_to_compare_are_exact_in_float32_and_partly_clipped() -> None:
    actions = np.concatenate([actions for _, actions in exact_demos()])
    np.testing.assert_array_equal(actions, actions.astype(np.float32))
    assert 0 < (np.abs(actions[:, :6]) > 1).mean() < 0.5


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_back_what_was_written(run: Run, name: str) -> None:
    assert_same(read(run.written[name]), exact_demos())


@pytest.mark.parametrize(
    "config",
    [
        DataConfig(),
        DataConfig(chunk_len=5, stride=2, split_seed=3),
        DataConfig(num_episodes=9),
        DataConfig(drop_noops=True, gripper_open="high"),
    ],
    ids=["default", "other chunks and split", "nine episodes", "no-ops dropped"],
)
@pytest.mark.parametrize("name", OTHER_FORMATS)
def test_every_format_gives_the_same_data_set(run: Run, name: str, config: DataConfig) -> None:
    one, other = prepare_both(run, name, config)
    assert_same_dataset(one.dataset, other.dataset)


@pytest.mark.parametrize("name", OTHER_FORMATS)
def test_every_format_gives_the_same_data_card(run: Run, name: str) -> None:
    (one, tables), (other, others) = map(describe, prepare_both(run, name))
    for of_format in ("origin", "files"):
        del one[of_format], other[of_format]
    assert as_text(one) == as_text(other)
    for table in tables:
        ours, theirs = (all_of[table].drop(columns="episode", errors="ignore") for all_of in (tables, others))
        pd.testing.assert_frame_equal(ours, theirs, check_exact=True)


@pytest.mark.parametrize("name", OTHER_FORMATS)
def test_every_format_trains_the_same_models(run: Run, name: str) -> None:
    one, other = (as_text(without_times(run.trained[each])) for each in ("LIBERO HDF5", name))
    assert one == other


@pytest.mark.parametrize("name", OTHER_FORMATS)
def test_every_format_gives_the_same_rows_to_the_last_bit(run: Run, name: str) -> None:
    one, other = (run.compared[each] for each in ("LIBERO HDF5", name))
    pd.testing.assert_frame_equal(one.scores.drop(columns=WHERE), other.scores.drop(columns=WHERE), check_exact=True)
    assert one.tables.keys() == other.tables.keys()
    for table, rows in one.tables.items():
        ours, theirs = (each.drop(columns=[*TIMES, *WHERE], errors="ignore") for each in (rows, other.tables[table]))
        pd.testing.assert_frame_equal(ours, theirs, check_exact=True)
    assert as_text(one.values) == as_text(other.values)


def test_the_results_that_are_compared_are_of_every_model_and_seed(run: Run) -> None:
    for name in CONDITIONINGS:
        runs = run.trained["LIBERO HDF5"]["conditionings"][name]["runs"]
        assert [model["seed"] for model in runs] == [0, 1]
        assert len({model["reconstruction_sha256"] for model in runs}) == 2
        scores = Scores(run.compared["LIBERO HDF5"].scores)
        estimate = scores.estimate("mse", CONDITIONED[name])
        assert len(estimate.per_seed) == 2
        assert 0 < (estimate.mean or 0.0) < 1
        assert scores.has(CONDITIONED[name], f"layers={TINY.num_layers}")


@settings(HYPOTHESIS, max_examples=12)
@given(
    st.lists(st.integers(2, 5), min_size=4, max_size=9),
    st.integers(1, 9),
    st.integers(0, 2**32 - 1),
)
def test_any_recordings_are_read_alike_in_every_format(lengths: list[int], a_file: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    tasks = sorted(TASKS[rng.integers(2)] for _ in lengths)
    demos = [(task, exact_walk(rng, 8 * steps)) for task, steps in zip(tasks, lengths, strict=True)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        one = prepare_dataset(write_libero_folder(folder / "libero", demos)).dataset
        for other in (
            write_lerobot_v2(folder / "v2", demos),
            write_lerobot_v3(folder / "v3", demos, a_file),
            write_chunk_file(folder / "a.pt", demos),
        ):
            assert_same_dataset(one, prepare_dataset(other).dataset)


# What is read can be saved


def test_every_format_can_be_saved(run: Run, tmp_path: Path) -> None:
    for path in run.written.values():
        assert_kept(prepare_dataset(path).dataset, OutputFolder.at(str(tmp_path / "out")))


def assert_kept(saved: Dataset, out: OutputFolder) -> None:
    """A data set that is saved and loaded is the same, labels included."""
    save_dataset(saved, out)
    loaded = load_dataset(out)
    assert_same_dataset(loaded, saved)
    assert_same_episodes(loaded, saved)


@pytest.mark.parametrize("character", ["\0", "\udcff"], ids=["NUL", "lone surrogate"])
@pytest.mark.parametrize("form", ["lerobot", "chunks", "file name"])
def test_a_task_with_odd_characters_can_be_saved(tmp_path: Path, form: str, character: str) -> None:
    task = f"open{character}it"
    demos = [(task, actions) for _, actions in exact_demos(2)]
    if form == "lerobot":
        data = write_lerobot_v2(tmp_path / "set", demos)
    elif form == "chunks":
        data = write_chunk_file(tmp_path / "a.pt", demos)
    else:
        data = write_chunk_file(tmp_path / f"{task}.pt".replace("\0", "_"), demos)
    dataset = prepare_dataset(data).dataset
    plain = {"\0": "open it", "\udcff": "open?it"}[character]
    assert {episode.task for episode in dataset.episodes} == {plain}
    assert_kept(dataset, OutputFolder.at(str(tmp_path / "out")))


def test_the_origin_is_json(run: Run) -> None:
    for path in run.written.values():
        assert json.loads(json.dumps(asdict(read_recordings(path).origin)))["name"] == str(path)
