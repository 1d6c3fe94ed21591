"""From recordings to chunks: reading, clipping, splitting, normalising, describing, and the files in between."""

import json
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import random_walk, walks
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from writers import TASK, write_libero

from workbook.chunks import Normaliser, cut_chunks, join_chunks
from workbook.conventions import clip_episodes, noop_steps
from workbook.data_card import autocorrelation, describe
from workbook.data_remarks import remarks
from workbook.dataset import DataConfig, Dataset, load_dataset, prepare_dataset, save_dataset
from workbook.episodes import Episode, take_evenly
from workbook.errors import InputError
from workbook.layout import LIBERO
from workbook.paths import SAMPLE, OutputFolder, replacing
from workbook.plausibility import LIBERO_LATTICE, lattice_share
from workbook.sources.recordings import read_recordings
from workbook.split import FRACTIONS, Split, split_episodes
from workbook.stages import STAGES, read_document, read_stage, write_json, write_stage

Array = NDArray[np.float64]
HYPOTHESIS = settings(deadline=None, max_examples=60)
STEPS = np.zeros((8, 7))
LATTICE_STEP = np.array([0.9375 / 350] * 3 + [0.375 / 350] * 3)  # position, rotation


def episode(actions: Array = STEPS, task: str = TASK, source: str = "a.hdf5", key: str = "demo_0") -> Episode:
    """An episode of a LIBERO file, which is a session."""
    return Episode(np.asarray(actions, dtype=np.float64), task, source, key, session=source)


def read_episodes(path: Path) -> list[Episode]:
    return read_recordings(path).episodes


def recorded_alike(sizes: list[int]) -> list[Episode]:
    """Episodes of one file per entry of `sizes`, the files' episodes interleaved."""
    numbered = sorted((rank, stratum) for stratum, size in enumerate(sizes) for rank in range(size))
    return [episode(source=f"{stratum}.hdf5", key=f"demo_{rank}") for rank, stratum in numbered]


def overwrite(folder: Path, which: Episode, step: int, value: float) -> None:
    """Change one step of a recorded episode, gripper apart."""
    with h5py.File(folder / which.source, "r+") as file:
        file[f"data/{which.key}/actions"][step, :6] = value


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OutputFolder:
    monkeypatch.delenv("WORKBOOK_PREFIX", raising=False)
    return OutputFolder.at(str(tmp_path / "out"))


# Reading


def test_demos_are_read_in_numeric_order(tmp_path: Path) -> None:
    path = write_libero(tmp_path / "a.hdf5", {f"demo_{i}": np.full((8, 7), i / 100) for i in range(12)})
    episodes = read_episodes(path)
    assert [e.key for e in episodes] == [f"demo_{i}" for i in range(12)]
    assert [e.actions[0, 0] for e in episodes] == [i / 100 for i in range(12)]


def test_only_the_actions_are_read(tmp_path: Path) -> None:
    path = write_libero(tmp_path / "a.hdf5", walks(0))
    with h5py.File(path, "r+") as file:
        file["data/demo_1/obs/agentview_rgb"] = h5py.ExternalLink("images_left_behind.hdf5", "/rgb")
        damaged = file.create_dataset(
            "data/demo_2/obs/agentview_rgb", (4, 8, 8, 3), "u1", chunks=(4, 8, 8, 3), compression="gzip"
        )
        damaged.id.write_direct_chunk((0, 0, 0, 0), b"this does not decompress")
        with pytest.raises(OSError, match="filter returned failure"):
            damaged[()]
    for read, written in zip(read_episodes(path), walks(0).values(), strict=True):
        np.testing.assert_array_equal(read.actions, written)


def test_a_folder_is_read_recursively_in_sorted_order(tmp_path: Path) -> None:
    for name in ("b.hdf5", "a/z.hdf5", "a/deep/y.hdf5", "c/x.hdf5"):
        write_libero(tmp_path / name, walks(0, count=2))
    (tmp_path / "a" / "notes.txt").write_text("not a recording")
    sources = [e.source for e in read_episodes(tmp_path)]
    assert sources == [name for name in ("a/deep/y.hdf5", "a/z.hdf5", "b.hdf5", "c/x.hdf5") for _ in range(2)]


def test_a_single_file_is_read_and_named_without_its_folder(tiny_data: Path) -> None:
    episodes = read_episodes(tiny_data / "open_the_drawer_demo.hdf5")
    assert len(episodes) == 6
    assert {e.source for e in episodes} == {"open_the_drawer_demo.hdf5"}


def test_the_task_is_the_recorded_instruction(tiny_data: Path) -> None:
    tasks = {e.source: e.task for e in read_episodes(tiny_data)}
    assert tasks == {"open_the_drawer_demo.hdf5": "open the drawer", "put_the_bowl_on_the_plate_demo.hdf5": TASK}


@pytest.mark.parametrize("problem_info", [None, "no JSON", "{}", "[]"])
def test_without_an_instruction_the_task_is_the_file_name(tmp_path: Path, problem_info: str | None) -> None:
    path = write_libero(tmp_path / "turn_on_the_stove_demo.hdf5", walks(0), task=None)
    if problem_info is not None:
        with h5py.File(path, "r+") as file:
            file["data"].attrs["problem_info"] = problem_info
    assert {e.task for e in read_episodes(path)} == {"turn on the stove"}


@pytest.mark.parametrize("instruction", ['"open it"', ["open", "it"], "open it"])
def test_an_instruction_is_freed_of_quotes_and_lists(tmp_path: Path, instruction: str | list[str]) -> None:
    path = write_libero(tmp_path / "a.hdf5", walks(0))
    with h5py.File(path, "r+") as file:
        file["data"].attrs["problem_info"] = json.dumps({"language_instruction": instruction})
    assert {e.task for e in read_episodes(path)} == {"open it"}


@pytest.mark.parametrize("dtype", ["float16", "float32", ">f8", "int8", "int64", "uint8"])
def test_numbers_of_any_type_become_float64(tmp_path: Path, dtype: str) -> None:
    values = np.arange(56).reshape(8, 7) % 2
    [read] = read_episodes(write_libero(tmp_path / "a.hdf5", {"demo_0": values.astype(dtype)}))
    assert read.actions.dtype == np.float64
    np.testing.assert_array_equal(read.actions, values)


def test_float32_values_are_kept_as_they_are(tmp_path: Path) -> None:
    recorded = random_walk(np.random.default_rng(0), 30).astype(np.float32)
    [read] = read_episodes(write_libero(tmp_path / "a.hdf5", {"demo_0": recorded}))
    np.testing.assert_array_equal(read.actions, recorded.astype(np.float64))


# Clipping and choosing


def test_clipping_is_exact_and_counted() -> None:
    first, second = np.zeros((8, 7)), np.zeros((9, 7))
    first[0, :3] = 1.0, -1.0, 0.3  # the limits themselves are inside
    first[1, :2] = np.nextafter(1, 2), -69.3  # one step, two dimensions
    second[4, 1] = -2.5
    second[5, 6] = 1.5
    clipped, clipping = clip_episodes([episode(first), episode(second, key="demo_1")], LIBERO)

    np.testing.assert_array_equal(clipped[0].actions[:2, :3], [[1, -1, 0.3], [1, -1, 0]])
    assert (clipped[1].actions[4, 1], clipped[1].actions[5, 6]) == (-1, 1)
    assert [e.key for e in clipped] == ["demo_0", "demo_1"]
    assert clipping.steps.tolist() == [1, 2, 0, 0, 0, 0, 1]
    assert (clipping.steps_any, clipping.total_steps) == (3, 17)
    np.testing.assert_array_equal(clipping.largest, [np.nextafter(1, 2), 69.3, 0.3, 0, 0, 0, 1.5])


@HYPOTHESIS
@given(st.integers(0, 2**32), st.floats(0.1, 10))
def test_clipping_changes_what_lies_outside_and_nothing_else(seed: int, spread: float) -> None:
    recorded = np.random.default_rng(seed).normal(0, spread, (20, 7))
    [clipped], clipping = clip_episodes([episode(recorded)], LIBERO)
    np.testing.assert_array_equal(clipped.actions, np.clip(recorded, -1, 1))
    np.testing.assert_array_equal(clipping.steps, (clipped.actions != recorded).sum(axis=0))
    assert clipping.steps_any == (clipped.actions != recorded).any(axis=1).sum()


def test_take_evenly_takes_in_turn_and_keeps_the_order() -> None:
    files = "aaaabbc"
    episodes = [episode(source=name, key=f"demo_{i}") for i, name in enumerate(files)]
    assert ["".join(e.source for e in take_evenly(episodes, count)) for count in range(1, 8)] == [
        "a", "ab", "abc", "aabc", "aabbc", "aaabbc", "aaaabbc",
    ]  # fmt: skip
    assert [e.key for e in take_evenly(episodes, 4)] == ["demo_0", "demo_1", "demo_4", "demo_6"]


def test_episodes_of_one_file_with_two_tasks_are_two_strata() -> None:
    episodes = [episode(task=task, key=f"demo_{i}") for i, task in enumerate("aaab")]
    assert [e.task for e in take_evenly(episodes, 2)] == ["a", "b"]


@pytest.mark.parametrize("count", [0, 7, 99])
def test_take_evenly_can_take_all(count: int) -> None:
    episodes = recorded_alike([4, 2, 1])
    assert take_evenly(episodes, count) == episodes


def test_take_evenly_refuses_a_negative_count() -> None:
    with pytest.raises(InputError, match="-1"):
        take_evenly(recorded_alike([4]), -1)


@HYPOTHESIS
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 60))
def test_take_evenly_shortens_no_stratum_before_the_largest(sizes: list[int], count: int) -> None:
    episodes = recorded_alike(sizes)
    taken = take_evenly(episodes, count)
    counts = Counter(e.source for e in taken)
    assert len(taken) == min(count, sum(sizes))
    assert taken == [e for e in episodes if e in taken]
    assert all(
        counts[f"{i}.hdf5"] >= max(counts.values()) - 1 for i, size in enumerate(sizes) if counts[f"{i}.hdf5"] < size
    )


# Split

strata_sizes = st.lists(st.integers(1, 14), min_size=1, max_size=7).filter(lambda sizes: sum(sizes) >= 4)


@HYPOTHESIS
@given(strata_sizes, st.integers(0, 2**32))
def test_every_episode_is_in_one_part_and_every_stratum_in_proportion(sizes: list[int], seed: int) -> None:
    episodes = recorded_alike(sizes)
    parts = split_episodes(episodes, seed).parts()
    assert sorted(position for positions in parts.values() for position in positions) == list(range(len(episodes)))
    for name, share in FRACTIONS.items():
        assert parts[name]
        assert abs(len(parts[name]) - share * len(episodes)) < 1
        counts = Counter(episodes[position].source for position in parts[name])
        for stratum, size in enumerate(sizes):
            assert abs(counts[f"{stratum}.hdf5"] - share * size) < 1


def test_the_shares_are_60_20_20() -> None:
    split = split_episodes(recorded_alike([50, 30, 20]), seed=0)
    assert [len(split.train), len(split.validation), len(split.test)] == [60, 20, 20]


def test_a_split_depends_on_the_seed_alone() -> None:
    splits = [split_episodes(recorded_alike([10, 10]), seed) for seed in range(10)]
    assert splits == [split_episodes(recorded_alike([10, 10]), seed) for seed in range(10)]
    assert len({split.test for split in splits}) > 5


def test_a_split_does_not_depend_on_what_files_and_tasks_are_called() -> None:
    episodes = recorded_alike([10, 7, 5])
    names = {"0.hdf5": "z.hdf5", "1.hdf5": "m.hdf5", "2.hdf5": "a.hdf5"}
    renamed = [episode(task=names[e.source], source=names[e.source], key=e.key) for e in episodes]
    for seed in range(10):
        assert split_episodes(renamed, seed) == split_episodes(episodes, seed)


@pytest.mark.parametrize("count", range(4, 12))
@pytest.mark.parametrize("strata", [1, 3])
def test_from_four_episodes_on_no_part_is_empty(count: int, strata: int) -> None:
    sizes = [len(range(stratum, count, strata)) for stratum in range(strata)]
    assert all(split_episodes(recorded_alike(sizes), seed=0).parts().values())


@pytest.mark.parametrize("count", range(4))
def test_fewer_than_four_episodes_cannot_be_split(count: int) -> None:
    with pytest.raises(InputError, match=rf"^{count} episode.* at least 4"):
        split_episodes(recorded_alike([count]), seed=0)


# Chunks

lengths_of_episodes = st.lists(st.integers(1, 40), min_size=1, max_size=5)


def numbered_episodes(lengths: list[int]) -> list[Array]:
    """Episodes of width 2 in which every step is one of a kind: (episode, step)."""
    return [np.stack([np.full(n, i), np.arange(n)], axis=1).astype(float) for i, n in enumerate(lengths)]


def test_chunks_by_hand() -> None:
    chunks = cut_chunks(numbered_episodes([5, 3, 2]), length=3, stride=2)
    assert chunks.actions[..., 1].tolist() == [[0, 1, 2], [2, 3, 4], [0, 1, 2], [0, 1, 1]]
    assert chunks.valid.tolist() == [[True] * 3, [True] * 3, [True] * 3, [True, True, False]]
    assert chunks.episode.tolist() == chunks.actions[:, 0, 0].tolist() == [0, 0, 1, 2]


def test_the_tail_repeats_the_last_action_and_says_so() -> None:
    chunks = cut_chunks(numbered_episodes([10]), length=4, stride=4)
    assert chunks.actions[..., 1].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 9, 9]]
    assert chunks.valid.tolist() == [[True] * 4, [True] * 4, [True, True, False, False]]


@HYPOTHESIS
@given(lengths_of_episodes, st.integers(1, 12), st.data())
def test_no_step_is_skipped_whatever_the_stride(lengths: list[int], length: int, data: st.DataObject) -> None:
    episodes = numbered_episodes(lengths)
    chunks = cut_chunks(episodes, length, data.draw(st.integers(1, length)))
    seen = {tuple(step) for step in chunks.actions[chunks.valid]}
    assert seen == {tuple(step) for step in np.concatenate(episodes)}
    assert (chunks.actions[..., 0] == chunks.episode[:, None]).all()


@HYPOTHESIS
@given(lengths_of_episodes, st.integers(1, 12))
def test_stride_of_a_chunk_takes_every_step_once_and_can_be_joined(lengths: list[int], length: int) -> None:
    episodes = numbered_episodes(lengths)
    chunks = cut_chunks(episodes, length, length)
    np.testing.assert_array_equal(chunks.actions[chunks.valid], np.concatenate(episodes))
    for joined, cut in zip(join_chunks(chunks, chunks.actions), episodes, strict=True):
        np.testing.assert_array_equal(joined, cut)


def test_joining_takes_other_actions_for_the_same_chunks() -> None:
    episodes = numbered_episodes([10, 4])
    chunks = cut_chunks(episodes, 4, 4)
    for joined, cut in zip(join_chunks(chunks, -chunks.actions), episodes, strict=True):
        np.testing.assert_array_equal(joined, -cut)


@pytest.mark.parametrize(("length", "stride"), [(4, 0), (4, -1), (4, 5), (0, 0), (0, 1), (-2, -2)])
def test_a_stride_that_skips_steps_or_stands_still_is_refused(length: int, stride: int) -> None:
    with pytest.raises(InputError, match=f"{length} and stride {stride}"):
        cut_chunks(numbered_episodes([10]), length, stride)


# Normaliser


@HYPOTHESIS
@given(st.lists(st.lists(st.integers(-1000, 1000), min_size=3, max_size=3), min_size=1, max_size=30))
def test_the_normaliser_spans_minus_one_to_one_and_back(thousandths: list[list[int]]) -> None:
    actions = np.array(thousandths) / 1000
    normaliser = Normaliser.fit(actions)
    normalised = normaliser.normalise(actions)
    moves = np.ptp(actions, axis=0) > 0
    np.testing.assert_allclose(normalised.min(axis=0), np.where(moves, -1, 0), rtol=0, atol=1e-12)
    np.testing.assert_allclose(normalised.max(axis=0), np.where(moves, 1, 0), rtol=0, atol=1e-12)
    np.testing.assert_allclose(normaliser.denormalise(normalised), actions, rtol=0, atol=1e-12)


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


@pytest.mark.parametrize("constant", [0.0, 0.1, -1.0, 1 / 3])
def test_a_constant_dimension_stays_finite_and_decodes_to_its_constant(constant: float) -> None:
    actions = random_walk(np.random.default_rng(0), 40)
    actions[:, 3] = constant
    normaliser = Normaliser.fit(actions)
    normalised = normaliser.normalise(actions)
    assert np.isfinite(normalised).all()
    assert (normaliser.denormalise(normalised)[:, 3] == constant).all()
    assert (normaliser.denormalise(np.zeros(7)))[3] == constant


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


# Data set


def test_preparing_clips_before_it_fits_and_cuts_every_part(tiny_data: Path) -> None:
    [first, *_] = read_episodes(tiny_data)
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


def test_the_same_recording_twice_is_taken_once_and_named(tmp_path: Path) -> None:
    write_libero(tmp_path / "a.hdf5", walks(0))
    (tmp_path / "b.hdf5").symlink_to(tmp_path / "a.hdf5")
    prepared = prepare_dataset(tmp_path)
    copies = [f"b.hdf5, demo_{i} is the same recording as a.hdf5, demo_{i}" for i in range(6)]
    assert [e.place for e in prepared.dataset.episodes] == [f"a.hdf5, demo_{i}" for i in range(6)]
    assert prepared.changes.copies == tuple(copies)
    card = describe(prepared)
    assert card["copies"] == copies
    assert f"6 episode(s) were left out because they are there twice; the first: {copies[0]}." in remarks(card)


def test_preparing_twice_gives_the_same_and_another_split_seed_another_split(tiny_data: Path) -> None:
    first, second, other = (prepare_dataset(tiny_data, DataConfig(split_seed=seed)).dataset for seed in (0, 0, 1))
    assert (first.sha256, first.split) == (second.sha256, second.split)
    assert (first.sha256, first.split) != (other.sha256, other.split)
    assert first.sha256 == other.sha256


def test_saving_and_loading_changes_nothing(tmp_path: Path, out: OutputFolder) -> None:
    for number, task in enumerate(("öffne die Schublade", "把碗放在盘子上", "naïve 🤖 „task“")):
        path = write_libero(tmp_path / "data" / f"Datei_{task[:4]}.hdf5", walks(number), task)
        with h5py.File(path, "r+") as file:
            file["data"].attrs["env_args"] = json.dumps({"env_kwargs": {"control_freq": 10 + number}})
    config = DataConfig(chunk_len=5, stride=3, split_seed=4, layout="joint:6 gripper:1")
    saved = prepare_dataset(tmp_path / "data", config).dataset
    assert len({e.session for e in saved.episodes}) == len({e.control_rate_hz for e in saved.episodes}) == 3
    assert save_dataset(saved, out).parent == out.stages
    loaded = load_dataset(out)

    for a, b in zip(loaded.episodes, saved.episodes, strict=True):
        assert (a.task, a.source, a.key, a.stratum) == (b.task, b.source, b.key, b.stratum)
        assert a.control_rate_hz == b.control_rate_hz
        assert a.actions.dtype == b.actions.dtype
        np.testing.assert_array_equal(a.actions, b.actions)
    np.testing.assert_array_equal(loaded.normaliser.low, saved.normaliser.low)
    np.testing.assert_array_equal(loaded.normaliser.high, saved.normaliser.high)
    assert (loaded.split, loaded.sha256, loaded.chunk_len, loaded.stride) == (saved.split, saved.sha256, 5, 3)
    assert (loaded.layout, loaded.layout.spec) == (saved.layout, "joint:6 gripper:1")


def test_loading_before_01_data_was_run_names_it(out: OutputFolder) -> None:
    with pytest.raises(InputError, match="01_data"):
        load_dataset(out)


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


# Data card


def test_every_multiple_of_the_lattice_step_is_on_the_lattice() -> None:
    steps = np.random.default_rng(0).integers(-350, 351, (500, 6))
    actions = np.column_stack([steps * LATTICE_STEP, np.ones(500)])
    for recorded in (actions, actions.astype(np.float32).astype(float)):
        np.testing.assert_array_equal(lattice_share(recorded, LIBERO), [1.0] * 6 + [np.nan])


def test_other_values_are_off_the_lattice() -> None:
    rng = np.random.default_rng(0)
    between = (rng.integers(-350, 350, (500, 6)) + 0.5) * LATTICE_STEP
    share = lattice_share(np.column_stack([between, np.ones(500)]), LIBERO)
    np.testing.assert_array_equal(share, [0.0] * 6 + [np.nan])
    assert (lattice_share(rng.uniform(-0.3, 0.3, (2000, 7)), LIBERO)[:6] < 0.02).all()


def test_zero_proves_nothing_about_the_lattice() -> None:
    actions = np.zeros((10, 7))
    actions[:4, 1] = LATTICE_STEP[1] * np.array([3, 5, 1.5, 2.5])
    share = lattice_share(actions, LIBERO)
    assert share[1] == 0.5
    assert np.isnan(np.delete(share, 1)).all()


def test_noop_steps_by_hand() -> None:
    actions = np.zeros((8, 7))
    actions[:, 6] = [-1, 1, 1, 1, 1, 1, -1, -1]  # 1: closes before anything is kept, 6: opens
    actions[2, 2] = 0.5  # the first kept step
    actions[4, :2] = 6e-5  # a length of 8.5e-5
    actions[5, :2] = 8e-5  # a length of 1.1e-4
    assert noop_steps(actions, LIBERO).tolist() == [True, True, False, True, True, False, False, True]


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
    dataset, card = prepared.dataset, describe(prepared)
    actions = np.concatenate([e.actions for e in read_episodes(tiny_data)])
    assert (card["episodes"], card["steps"], sum(card["lengths"])) == (12, len(actions), len(actions))
    assert card["origin"] == {"kind": "LIBERO HDF5", "name": str(tiny_data), "notes": []}
    assert (card["layout"], card["control_rates_hz"], card["files"]) == ("position:3 rotation:3 gripper:1", [20.0], 2)
    assert (card["copies"], card["noops_dropped"]) == ([], 0)
    assert card["tasks"] == {"open the drawer": 6, TASK: 6}
    assert card["dataset_sha256"] == dataset.sha256
    assert sum(card["split"].values()) == 12
    assert card["constant_dimensions"] == []
    np.testing.assert_allclose(card["statistics"]["mean"], actions.mean(axis=0))
    np.testing.assert_allclose(card["statistics"]["std"], actions.std(axis=0))
    chunks = dataset.train_chunks()
    assert card["chunks"]["train"] == len(chunks.actions)
    assert card["chunks"]["padded_steps_train"] == chunks.valid.size - chunks.valid.sum()


def test_the_remarks_say_how_much_was_clipped(tiny_data: Path) -> None:
    [first, *_] = read_episodes(tiny_data)
    for step in (0, 5):
        overwrite(tiny_data, first, step, value=-12.34)
    card = describe(prepare_dataset(tiny_data))
    [remark] = [r for r in remarks(card) if "clipped" in r]
    assert remark.startswith(f"2 of {card['steps']:,} steps ({2 / card['steps']:.1%})")
    assert "12.3" in remark


def test_the_remarks_say_that_nothing_was_clipped(tiny_data: Path) -> None:
    found = remarks(describe(prepare_dataset(tiny_data)))
    assert [r for r in found if "clipped" in r] == ["No step left [-1, 1]; nothing was clipped."]


def test_the_remarks_name_a_dimension_that_never_moves(tmp_path: Path) -> None:
    demos = walks(0)
    for actions in demos.values():
        actions[:, 3] = 0.0
    card = describe(prepare_dataset(write_libero(tmp_path / "a.hdf5", demos)))
    assert card["constant_dimensions"] == ["roll"]
    assert "These dimensions never move: roll." in remarks(card)
    assert np.isnan(card["lattice_share"]).tolist() == [False, False, False, True, False, False, True]


def test_the_remarks_of_a_recording_at_rest_are_whole_sentences(tmp_path: Path) -> None:
    at_rest = {f"demo_{i}": np.zeros((30 + i, 7)) for i in range(6)}
    card = describe(prepare_dataset(write_libero(tmp_path / "a.hdf5", at_rest)))
    found = remarks(card)
    assert all(r.endswith(".") and "nan" not in r for r in found)
    assert any("Nothing moves" in r for r in found)


def test_a_card_read_back_gives_the_same_remarks(tmp_path: Path, out: OutputFolder) -> None:
    demos = walks(0)
    for actions in demos.values():
        actions[:, 3] = 0.0
    card = describe(prepare_dataset(write_libero(tmp_path / "a.hdf5", demos)))
    write_stage(out, "data", {}, card)
    assert read_stage(out, "data")["lattice_share"][3] is None
    assert remarks(read_stage(out, "data")) == remarks(card)


def test_the_embedded_sample_is_what_it_is_said_to_be() -> None:
    card = describe(prepare_dataset(SAMPLE))
    assert (card["episodes"], card["steps"], len(card["tasks"])) == (140, 19_278, 6)
    assert card["lattice"] == LIBERO_LATTICE
    np.testing.assert_array_equal(card["lattice_share"], [1.0] * 6 + [np.nan])
    assert card["clipping"]["steps_any"] == 0
    assert remarks(card)[0] == "140 episodes of 19,278 steps, read as LIBERO HDF5."
    assert any("nothing was clipped" in r for r in remarks(card))


def test_human_teleoperation_is_read_and_clipped(human_teleop: Path) -> None:
    card = describe(prepare_dataset(human_teleop))
    assert (card["episodes"], card["steps"]) == (50, 62_399)
    assert card["clipping"]["steps_any"] == 1_059
    assert f"{max(card['clipping']['largest']):.3g}" == "69.3"
    assert max(card["statistics"]["max"]) == -min(card["statistics"]["min"]) == 1.0
    assert max(card["lattice_share"][:6]) < 0.02
    assert card["lattice"] is None
    found = remarks(card)
    assert found[0] == "50 episodes of 62,399 steps, read as LIBERO HDF5."
    [clipped] = [r for r in found if "clipped" in r]
    assert clipped.startswith("1,059 of 62,399 steps (1.7%)")


def test_spacemouse_demonstrations_are_read(spacemouse: Path) -> None:
    card = describe(prepare_dataset(spacemouse))
    assert (card["episodes"], card["steps"]) == (5, 3_723)
    assert card["split"] == {"train": 3, "validation": 1, "test": 1}


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


def test_a_stage_that_cannot_be_written_leaves_the_old_one(out: OutputFolder) -> None:
    write_stage(out, "data", {}, {"of": "first"})
    with pytest.raises(TypeError):
        write_stage(out, "data", {}, {"of": object()})
    assert read_stage(out, "data") == {"of": "first"}
    assert [path.name for path in out.stages.iterdir()] == ["data.json"]


def test_saving_a_data_set_leaves_nothing_else_behind(tiny_data: Path, out: OutputFolder) -> None:
    dataset = prepare_dataset(tiny_data).dataset
    for written in (dataset, replace(dataset, stride=2)):
        path = save_dataset(written, out)
        assert list(out.stages.iterdir()) == [path]
        assert load_dataset(out).stride == written.stride


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


def test_data_named_sample_is_the_embedded_recordings() -> None:
    named, given = read_recordings("sample"), read_recordings(SAMPLE)
    assert [e.place for e in named.episodes] == [e.place for e in given.episodes]
    for one, other in zip(named.episodes, given.episodes, strict=True):
        np.testing.assert_array_equal(one.actions, other.actions)
    assert (named.origin.name, given.origin.name) == ("sample", str(SAMPLE))


def test_data_in_the_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_libero(tmp_path / "recordings" / "a.hdf5", walks(0))
    assert read_recordings("~/recordings").origin.name == str(tmp_path / "recordings")


def test_linked_folders_are_followed_once_and_capitals_are_read(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    write_libero(elsewhere / "A_demo.HDF5", walks(0))
    data = tmp_path / "data"
    data.mkdir()
    (data / "suite").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(data)
    assert len(read_episodes(data)) == len(walks(0))


def test_the_hash_tells_where_episodes_end() -> None:
    actions = random_walk(np.random.default_rng(0), 40)

    def sha256_of_cuts(*cuts: int) -> str:
        episodes = tuple(Episode(part, "task", "file", "demo") for part in np.split(actions, cuts))
        return Dataset(LIBERO, episodes, Split((0,), (1,), (2,)), Normaliser.fit(actions), 8, 8).sha256

    assert sha256_of_cuts(10, 20) == sha256_of_cuts(10, 20) != sha256_of_cuts(12, 20)


def test_a_card_does_not_outlive_its_data_set(tiny_data: Path, out: OutputFolder) -> None:
    prepared = prepare_dataset(tiny_data)
    write_stage(out, "data", {}, describe(prepared))
    save_dataset(prepared.dataset, out)
    with pytest.raises(InputError, match="run 01_data"):
        read_stage(out, "data")


def test_a_damaged_stage_names_the_notebook_to_run_again(out: OutputFolder) -> None:
    write_stage(out, "data", {}, {})
    path = out.stages / "data.json"
    path.write_text(path.read_text()[:20])
    with pytest.raises(InputError, match="damaged; run 01_data again"):
        read_stage(out, "data")
