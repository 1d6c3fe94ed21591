"""The prepared data set: what goes into it, its file, its hash and its card."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from made_up import TASK, Array, episode, random_walk, walks
from reading import about, card_of, read
from writers import write_libero

from workbook.common.errors import InputError
from workbook.common.paths import SAMPLE, OutputFolder
from workbook.common.stages import read_stage, write_stage
from workbook.data.card import describe
from workbook.data.chunks import Normaliser
from workbook.data.config import DataConfig
from workbook.data.dataset import Dataset, load_dataset, prepare_dataset, save_dataset
from workbook.data.episodes import Episode
from workbook.data.layout import LIBERO
from workbook.data.motion import autocorrelation
from workbook.data.plausibility import LIBERO_LATTICE
from workbook.data.split import Split
from workbook.report.text.data import remarks


def overwrite(folder: Path, which: Episode, step: int, value: float) -> None:
    """Change one step of a recorded episode, gripper apart."""
    with h5py.File(folder / which.source, "r+") as file:
        file[f"data/{which.key}/actions"][step, :6] = value


# Preparing


def test_preparing_clips_before_it_fits_and_cuts_every_part(tiny_data: Path) -> None:
    [first, *_] = read(tiny_data)
    overwrite(tiny_data, first, step=0, value=40.0)
    prepared = prepare_dataset(tiny_data, DataConfig(chunk_len=6, stride=2))
    dataset, clipping = prepared.dataset, prepared.changes.clipping
    actions = np.concatenate([e.actions for e in dataset.episodes])
    assert (len(dataset.episodes), dataset.chunk_len, dataset.stride) == (12, 6, 2)
    assert (np.abs(actions).max(), clipping.steps_any, clipping.largest[0]) == (1.0, 1, 40.0)
    assert (np.abs([dataset.normaliser.low, dataset.normaliser.high]) <= 1).all()
    for name in ("validation", "test"):
        chunks = dataset.held_out_chunks(name)
        assert chunks.valid.sum() == sum(len(e.actions) for e in dataset.part(name))
    assert dataset.train_chunks().valid.sum() > sum(len(e.actions) for e in dataset.part("train"))


def test_num_episodes_are_taken_from_every_file(tiny_data: Path) -> None:
    dataset = prepare_dataset(tiny_data, DataConfig(num_episodes=6)).dataset
    assert Counter(e.source for e in dataset.episodes).most_common() == [
        ("open_the_drawer_demo.hdf5", 3),
        ("put_the_bowl_on_the_plate_demo.hdf5", 3),
    ]


def test_preparing_twice_gives_the_same_and_another_split_seed_another_split(tiny_data: Path) -> None:
    first, second, other = (prepare_dataset(tiny_data, DataConfig(split_seed=seed)).dataset for seed in (0, 0, 1))
    assert (first.sha256, first.split) == (second.sha256, second.split)
    assert (first.sha256, first.split) != (other.sha256, other.split)
    assert first.sha256 == other.sha256


def test_the_train_part_touches_both_ends(tiny_data: Path) -> None:
    dataset = prepare_dataset(tiny_data).dataset
    train = dataset.normaliser.normalise(np.concatenate([e.actions for e in dataset.part("train")]))
    np.testing.assert_allclose(train.min(axis=0), -1, rtol=0, atol=1e-12)
    np.testing.assert_allclose(train.max(axis=0), 1, rtol=0, atol=1e-12)


def test_values_outside_the_train_range_come_back(tiny_data: Path) -> None:
    dataset = prepare_dataset(tiny_data).dataset
    actions = np.random.default_rng(0).uniform(-1, 1, (50, 7))
    back = dataset.normaliser.denormalise(dataset.normaliser.normalise(actions))
    np.testing.assert_allclose(back, actions, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("part", "changes"), [("train", True), ("validation", False), ("test", False)])
def test_the_normaliser_is_fitted_on_the_train_part_alone(tiny_data: Path, part: str, changes: bool) -> None:
    before = prepare_dataset(tiny_data).dataset
    for held in before.part(part):
        overwrite(tiny_data, held, step=3, value=0.99)
    after = prepare_dataset(tiny_data).dataset
    assert after.split == before.split
    assert after.sha256 != before.sha256
    np.testing.assert_array_equal(after.normaliser.low, before.normaliser.low)
    assert (after.normaliser.high[:6] != before.normaliser.high[:6]).all() == changes
    assert (after.normaliser.high == before.normaliser.high).all() != changes


# File and hash


def test_saving_and_loading_changes_nothing(tmp_path: Path, out: OutputFolder) -> None:
    tasks = ("öffne die Schublade", "把碗放在盘子上", "naïve 🤖 „task“")
    for number, (task, rate) in enumerate(zip(tasks, (10, 11, None), strict=True)):
        write_libero(tmp_path / "data" / f"Datei_{task[:4]}.hdf5", walks(number), task, rate)
    config = DataConfig(chunk_len=5, stride=3, split_seed=4, layout="joint:6 gripper:1")
    saved = prepare_dataset(tmp_path / "data", config).dataset
    assert len({e.session for e in saved.episodes}) == 3
    assert {e.control_rate_hz for e in saved.episodes} == {10.0, 11.0, None}
    assert save_dataset(saved, out).parent == out.stages
    loaded = load_dataset(out)

    for a, b in zip(loaded.episodes, saved.episodes, strict=True):
        assert (a.task, a.source, a.key, a.group) == (b.task, b.source, b.key, b.group)
        assert a.control_rate_hz == b.control_rate_hz
        assert a.actions.dtype == b.actions.dtype
        np.testing.assert_array_equal(a.actions, b.actions)
    np.testing.assert_array_equal(loaded.normaliser.low, saved.normaliser.low)
    np.testing.assert_array_equal(loaded.normaliser.high, saved.normaliser.high)
    assert (loaded.split, loaded.sha256, loaded.chunk_len, loaded.stride) == (saved.split, saved.sha256, 5, 3)
    assert (loaded.layout, loaded.layout.spec) == (saved.layout, "joint:6 gripper:1")


@pytest.mark.parametrize(("rates", "taken"), [((None, None), 20), ((None, 10), 10), ((12.5, 10), 12.5)])
def test_the_control_rate_is_the_first_that_is_said_and_else_liberos(
    tmp_path: Path, rates: tuple[float | None, ...], taken: float
) -> None:
    for number, rate in enumerate(rates):
        write_libero(tmp_path / f"{number}.hdf5", walks(number), control_freq=rate)
    assert prepare_dataset(tmp_path).dataset.control_rate_hz == taken


def test_saving_a_data_set_leaves_nothing_else_behind(tiny_data: Path, out: OutputFolder) -> None:
    dataset = prepare_dataset(tiny_data).dataset
    for written in (dataset, replace(dataset, stride=2)):
        path = save_dataset(written, out)
        assert list(out.stages.iterdir()) == [path]
        assert load_dataset(out).stride == written.stride


def test_loading_before_01_data_was_run_names_it(out: OutputFolder) -> None:
    with pytest.raises(InputError, match="01_data"):
        load_dataset(out)


def test_a_card_does_not_outlive_its_data_set(tiny_data: Path, out: OutputFolder) -> None:
    prepared = prepare_dataset(tiny_data)
    write_stage(out, "data", {}, *describe(prepared))
    save_dataset(prepared.dataset, out)
    with pytest.raises(InputError, match="run 01_data"):
        read_stage(out, "data")


def test_the_hash_changes_with_any_action() -> None:
    actions = [random_walk(np.random.default_rng(i), 8) for i in range(4)]

    def hash_of(actions: list[Array]) -> str:
        normaliser = Normaliser.fit(np.concatenate(actions))
        return Dataset(LIBERO, tuple(map(episode, actions)), Split((0, 1), (2,), (3,)), normaliser, 8, 8).sha256

    original = hash_of(actions)
    nudged = [a.copy() for a in actions]
    nudged[3][7, 5] = np.nextafter(nudged[3][7, 5], 2)
    assert hash_of([a.copy() for a in actions]) == original
    assert len({original, hash_of(nudged), hash_of(actions[::-1])}) == 3


def test_the_hash_tells_where_episodes_end() -> None:
    actions = random_walk(np.random.default_rng(0), 40)

    def sha256_of_cuts(*cuts: int) -> str:
        episodes = tuple(Episode(part, "task", "file", "demo") for part in np.split(actions, cuts))
        return Dataset(LIBERO, episodes, Split((0,), (1,), (2,)), Normaliser.fit(actions), 8, 8).sha256

    assert sha256_of_cuts(10, 20) == sha256_of_cuts(10, 20) != sha256_of_cuts(12, 20)


# Data card


def test_autocorrelation_is_numpys_on_one_episode() -> None:
    actions = random_walk(np.random.default_rng(0), 100)
    found = autocorrelation([actions], longest=20)
    assert found.shape == (21, 7)
    np.testing.assert_allclose(found[0], 1)
    for dimension, values in enumerate((actions - actions.mean(axis=0)).T):
        products = np.correlate(values, values, "full")[99:120] / (100 - np.arange(21))
        np.testing.assert_allclose(found[:, dimension], products / values.var(), atol=1e-12)


def test_autocorrelation_does_not_reach_into_the_next_episode() -> None:
    down = np.array([[1.0], [-1.0]])
    assert autocorrelation([down, -down], longest=1).tolist() == [[1.0], [-1.0]]  # joined, lag 1 would be -1/3


def test_autocorrelation_of_a_dimension_at_rest_is_nan() -> None:
    actions = random_walk(np.random.default_rng(0), 50)
    actions[:, 2] = 0.0
    found = autocorrelation([actions, actions], longest=3)
    assert np.isnan(found[:, 2]).all()
    assert np.isfinite(np.delete(found, 2, axis=1)).all()


def test_the_card_counts_what_is_there(tiny_data: Path) -> None:
    prepared = prepare_dataset(tiny_data)
    dataset, (card, tables) = prepared.dataset, describe(prepared)
    dimensions, episodes = tables["dimensions"], tables["episodes"]
    actions = np.concatenate([e.actions for e in read(tiny_data)])
    assert (card["episodes"], card["steps"], episodes.steps.sum()) == (12, len(actions), len(actions))
    assert card["origin"] == {"kind": "LIBERO HDF5", "name": str(tiny_data), "revision": "", "notes": []}
    assert (card["layout"], card["control_rates_hz"], card["files"]) == ("position:3 rotation:3 gripper:1", [], 2)
    assert (card["copies"], card["noops_dropped"]) == ([], None)
    assert dict(tables["tasks"].set_index("task").episodes) == {"open the drawer": 6, TASK: 6}
    assert tables["tasks"].steps.sum() == len(actions)
    assert dict(episodes.part.value_counts()) == card["split"]
    assert card["dataset_sha256"] == dataset.sha256
    assert sum(card["split"].values()) == 12
    assert list(dimensions.dimension) == list(LIBERO.names)
    assert not dimensions.constant.any()
    np.testing.assert_allclose(dimensions["mean"], actions.mean(axis=0))
    np.testing.assert_allclose(dimensions["std"], actions.std(axis=0))
    np.testing.assert_array_equal(dimensions[["low", "high"]].T, [dataset.normaliser.low, dataset.normaliser.high])
    assert card["normalised"]["train"] == [-1.0, 1.0]
    chunks = dataset.train_chunks()
    assert card["chunks"]["train"] == len(chunks.actions)
    assert card["chunks"]["padded_steps_train"] == chunks.valid.size - chunks.valid.sum()


# Recordings that are known


def test_the_embedded_sample_is_what_it_is_said_to_be() -> None:
    run = card_of(prepare_dataset(SAMPLE))
    assert (run.data["episodes"], run.data["steps"], len(run.table("tasks"))) == (190, 25_881, 8)
    assert run.data["lattice"] == LIBERO_LATTICE
    np.testing.assert_array_equal(run.table("dimensions").lattice_share, [1.0] * 6 + [np.nan])
    assert run.data["clipped"] == {"steps": 0, "share": 0.0}
    assert about("nothing was clipped", remarks(run))


def test_human_teleoperation_is_read_and_clipped(human_teleop: Path) -> None:
    run = card_of(prepare_dataset(human_teleop))
    dimensions = run.table("dimensions")
    assert (run.data["episodes"], run.data["steps"]) == (50, 62_399)
    assert run.data["clipped"]["steps"] == 1_059
    assert f"{dimensions.largest.max():.3g}" == "69.3"
    assert dimensions["max"].max() == -dimensions["min"].min() == 1.0
    assert dimensions.lattice_share[:6].max() < 0.02
    assert run.data["lattice"] is None
    found = remarks(run)
    [clipped] = [r for r in found if "clipped" in r]
    assert clipped.startswith("1,059 of 62,399 steps (1.7%)")


def test_spacemouse_demonstrations_are_read(spacemouse: Path) -> None:
    card, _ = describe(prepare_dataset(spacemouse))
    assert (card["episodes"], card["steps"]) == (5, 3_723)
    assert card["split"] == {"train": 3, "validation": 1, "test": 1}
