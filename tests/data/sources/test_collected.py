"""The pipeline's samples for Phase 2: which motion was played, by hand, and what is said of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from made_up import Array, numbered, random_walk
from reading import notes, read, refused, said
from spoiling import refusal
from test_nothing_is_executed import Trap

from workbook.common.note import note
from workbook.data.dataset import prepare_dataset
from workbook.data.episodes import ReadOptions
from workbook.data.sources.collected import motion_of
from workbook.data.sources.read import read_recordings

HYPOTHESIS = settings(deadline=None, max_examples=60)
Tasks = Sequence[str]


def windows(actions: Array, length: int = 8) -> Array:
    """The chunk that begins at every step, as long as there is a whole one."""
    return np.stack([actions[start : start + length] for start in range(len(actions) - length + 1)])


def tiled(actions: Array, length: int = 8) -> Array:
    return np.repeat(actions[:, None], length, axis=1)


def collected(path: Path, chunks: Array, tasks: Tasks | None = None, **more: object) -> Path:
    """As the collector writes it, with small hidden states."""
    samples = [
        {
            "hidden_state": torch.zeros(4),
            "rfsq_tokens": torch.zeros(8, 16, 8, dtype=torch.long),
            "raw_action": torch.from_numpy(chunk),
            "task_id": 0 if tasks is None else sorted(set(tasks)).index(tasks[number]),
            "task_description": "pick up the bowl" if tasks is None else tasks[number],
        }
        | more
        for number, chunk in enumerate(chunks)
    ]
    torch.save(samples, path)
    return path


# Windows of a recording


@HYPOTHESIS
@given(st.lists(st.integers(8, 40), min_size=1, max_size=6), st.integers(2, 8), st.integers(0, 1000))
def test_windows_of_recordings_are_joined_to_these(lengths: list[int], length: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    recordings = [rng.normal(size=(steps, 7)) for steps in lengths]
    chunks = [windows(actions, length) for actions in recordings]
    motion = motion_of(np.concatenate(chunks), [f"task {n}" for n, part in enumerate(chunks) for _ in part])
    if sum(map(len, chunks)) > len(chunks):  # else there is no pair of one task
        assert motion.overlap
        assert list(motion.pieces) == np.cumsum([0, *map(len, chunks[:-1])]).tolist()
        for found, written in zip(motion.pieces.values(), recordings, strict=True):
            np.testing.assert_array_equal(found, written)


def test_recordings_of_one_task_are_told_apart_where_chunks_do_not_continue(tmp_path: Path) -> None:
    demos = numbered([20, 15, 30, 9])
    path = collected(tmp_path / "a.pt", np.concatenate([windows(actions) for _, actions in demos]))
    episodes = read(path)
    assert [e.key for e in episodes] == ["from sample 0", "from sample 13", "from sample 21", "from sample 44"]
    for episode, (_, written) in zip(episodes, demos, strict=True):
        np.testing.assert_array_equal(episode.actions, written)
    assert [one["key"] for one in read_recordings(path).origin.notes] == ["without_normalization", "samples_overlap"]


def test_a_pause_does_not_cut_a_recording() -> None:
    actions = np.concatenate([np.arange(10), np.full(20, 9), np.arange(9, 20)])[:, None].astype(float)
    motion = motion_of(windows(actions), ["a"] * 34)
    np.testing.assert_array_equal(motion.pieces[0], actions)


# One action repeated for the whole chunk, and chunks planned anew


def test_of_repeated_actions_each_is_a_step(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    actions = np.concatenate([random_walk(rng, 120) for _ in range(5)])
    path = collected(tmp_path / "collected.pt", tiled(actions))
    recordings = read_recordings(path)
    assert [len(e.actions) for e in recordings.episodes] == [60] * 10  # 600 steps: a tenth is fewer than 160
    np.testing.assert_array_equal(np.concatenate([e.actions for e in recordings.episodes]), actions)
    assert recordings.origin.kind == "samples"
    assert recordings.origin.notes == (
        note("without_normalization"),
        note("first_actions", repeated=1.0),
        note("blocks_of_samples", block=60),
    )
    assert "In 100% of the chunks one action is repeated." in notes(path)
    assert len(prepare_dataset(path).dataset.episodes) == 10
    assert said(path)[0].startswith("In 100% of the chunks one action is repeated.")
    assert said(path)[1].startswith("10 episodes with 600 steps")


def test_a_change_of_task_begins_an_episode(tmp_path: Path) -> None:
    actions = numbered([500])[0][1]
    tasks = ["a"] * 130 + ["b"] * 40 + ["a"] * 330
    episodes = read(collected(tmp_path / "a.pt", tiled(actions), tasks))
    # A tenth of 500 steps is 50; what is left over goes to the last block of a task.
    assert [(e.task, len(e.actions)) for e in episodes] == [
        ("a", 50), ("a", 80), ("b", 40), *[("a", 50)] * 5, ("a", 80),
    ]  # fmt: skip
    np.testing.assert_array_equal(np.concatenate([e.actions for e in episodes]), actions)


def test_of_a_long_file_blocks_are_as_long_as_a_demonstration() -> None:
    motion = motion_of(tiled(np.random.default_rng(0).normal(size=(2000, 7))), ["a"] * 2000)
    assert (motion.block, [len(piece) for piece in motion.pieces.values()]) == (160, [160] * 11 + [240])


def test_of_chunks_planned_anew_the_first_action_was_played() -> None:
    chunks = np.random.default_rng(0).normal(size=(100, 8, 7))
    chunks[:20] = chunks[:20, :1]
    motion = motion_of(chunks, ["a"] * 100)
    assert (motion.overlap, motion.repeated) == (False, 0.2)
    np.testing.assert_array_equal(np.concatenate(list(motion.pieces.values())), chunks[:, 0])


@pytest.mark.parametrize("chunks", [np.zeros((30, 8, 7)), np.ones((30, 1, 7)), np.zeros((1, 8, 7))])
def test_what_never_moves_or_is_one_step_is_played_step_by_step(chunks: Array) -> None:
    motion = motion_of(chunks, ["a"] * len(chunks))
    assert not motion.overlap
    assert sum(map(len, motion.pieces.values())) == len(chunks)


# Forms of the file


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_actions_may_be_arrays_of_numpy(tmp_path: Path, kind: type) -> None:
    actions = numbered([40])[0][1].astype(kind)
    torch.save([{"raw_action": chunk} for chunk in tiled(actions)], tmp_path / "my_samples.pt")
    episodes = read(tmp_path / "my_samples.pt")
    np.testing.assert_array_equal(np.concatenate([e.actions for e in episodes]), actions)
    assert {e.task for e in episodes} == {"my samples"}


@pytest.mark.parametrize(
    ("said", "task"),
    [
        ({"task_id": 3}, "task 3"),
        ({"task_id": np.int64(3)}, "task 3"),
        ({"task_id": torch.tensor(3)}, "task 3"),
        ({"task_id": None, "task_description": ""}, "a"),
    ],
)
def test_without_a_description_the_number_names_the_task(tmp_path: Path, said: dict[str, object], task: str) -> None:
    torch.save([{"raw_action": torch.zeros(8, 7)} | said] * 9, tmp_path / "a.pt")
    assert {e.task for e in read(tmp_path / "a.pt")} == {task}


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (torch.zeros(8, 6), "has shape (8, 6), and (8, 7) in the first"),
        (torch.zeros(8), "has shape (8,), expected 2"),
        (torch.zeros(0, 7), "none empty"),
        (None, "is no tensor of numbers"),
        ("0.5", "is no tensor of numbers"),
    ],
)
def test_a_sample_without_its_chunk_is_named(tmp_path: Path, bad: object, said: str) -> None:
    samples = [{"raw_action": torch.zeros(8, 7)}] * 5 + [{"raw_action": bad}]
    torch.save(samples, tmp_path / "bad.pt")
    refusal(tmp_path / "bad.pt", f"{tmp_path / 'bad.pt'}, sample 5, 'raw_action'", said)


@pytest.mark.parametrize("content", [[], [{}], [torch.zeros(8, 7)], [{"raw_action": torch.zeros(8, 7)}, 3], [[1.0]]])
def test_a_list_of_other_things_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "bad.pt")
    refusal(tmp_path / "bad.pt", "has no 'actions'")


def test_code_in_a_sample_is_not_executed(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    torch.save([{"raw_action": torch.zeros(8, 7), "task_id": Trap(marker)}], tmp_path / "bad.pt")
    refusal(tmp_path / "bad.pt", "never loaded here")
    assert not marker.exists()


def test_options_that_say_nothing_of_a_pt_file(tmp_path: Path) -> None:
    path = collected(tmp_path / "a.pt", tiled(numbered([40])[0][1]))
    assert refused(lambda: read_recordings(path, ReadOptions("actions"))).endswith("leave out --action-column")
    assert read_recordings(path, ReadOptions(only_successful=True)).origin.notes[-1] == note("success_not_read")
