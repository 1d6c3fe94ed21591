"""What is no robot motion is told, and what is never is: noise, repetition, rest and copies, beside real recordings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from made_up import GRIPPER, Array, exact_demos, random_walk, walks
from reading import card_of, said
from small_runs import run_notebooks
from writers import write_chunk_file, write_lerobot_v2, write_libero

from workbook.common.note import Note
from workbook.common.paths import SAMPLE
from workbook.data import motion
from workbook.data.config import DataConfig
from workbook.data.dataset import prepare_dataset
from workbook.data.episodes import Episode
from workbook.data.layout import LIBERO, ActionLayout
from workbook.data.motion import autocorrelation, doubts
from workbook.report.pages import write_reports
from workbook.report.tables.verdict import verdict_lines
from workbook.report.text.data import remarks

HYPOTHESIS = settings(deadline=None, max_examples=60)
# Three to four times nearer to motion than those that are used, and real recordings still stand clear of them.
TIGHTER = {"UNCORRELATED": 0.9, "EVEN": 0.15, "NEARLY_EQUAL": 0.2}
JOINTS = ActionLayout.parse("joint:6")


def keys(found: Sequence[Note]) -> list[str]:
    return [one["key"] for one in found]


def told(data: Path | str, **parameters: object) -> list[str]:
    """The keys of what makes these recordings no motion, whose sentences come first."""
    card = card_of(prepare_dataset(data, DataConfig(**parameters)))  # type: ignore[arg-type]
    remarks = said(data, **parameters)
    count = len(card.data["doubts"])
    assert all(sentence.startswith("These ") for sentence in remarks[:count])
    assert f"{card.data['episodes']} episodes" in remarks[count]
    return keys(card.data["doubts"])


# Noise


def noise(seed: int, steps: int, count: int = 20) -> list[Array]:
    """Uniformly random actions, min-max normalised as the guide's collector saves them."""
    rng = np.random.default_rng(seed)
    recorded = rng.uniform(-1, 1, (count, steps, 7))
    low, high = recorded.min(axis=(0, 1)), recorded.max(axis=(0, 1))
    return list(2 * (recorded - low) / (high - low) - 1)


def test_random_actions_in_a_chunk_file_are_told(tmp_path: Path) -> None:
    chunks = np.concatenate(noise(42, 216, 100)).reshape(-1, 8, 7)
    content = {
        "actions": torch.from_numpy(chunks).float(),
        "normalization": {"min": torch.full((7,), -0.99), "max": torch.full((7,), 0.99)},
        "metadata": {"task_suite": "libero_spatial", "task_id": 0, "chunk_size": 8},
    }
    torch.save(content, tmp_path / "random.pt")
    assert told(tmp_path / "random.pt") == ["white_noise"]
    first = said(tmp_path / "random.pt")[0]
    assert "neighbouring steps are uncorrelated" in first
    assert "spread evenly over their range" in first


@pytest.mark.parametrize("layout", ["libero", "joint:7", "joint:6 gripper:1", "position:3 joint:4"])
def test_random_actions_in_episodes_are_told_whatever_the_layout(tmp_path: Path, layout: str) -> None:
    demos = {f"demo_{number}": actions for number, actions in enumerate(noise(1, 80))}
    assert told(write_libero(tmp_path / "a.hdf5", demos), layout=layout) == ["white_noise"]


def test_noise_that_is_not_uniform_is_told_without_that_it_were() -> None:
    found = doubts(list(np.random.default_rng(0).normal(0, 0.3, (10, 60, 7))), LIBERO, 8)
    assert keys(found) == ["white_noise"]
    assert not found[0]["values"]["even"]


def test_uniform_actions_that_are_held_for_a_while_are_told() -> None:
    """For five steps, so that neighbours are alike, and no chunk of eight repeats one."""
    held = [np.repeat(actions, 5, axis=0) for actions in noise(3, 80)]
    assert keys(doubts(held, LIBERO, 8)) == ["evenly_spread"]


def test_noise_on_the_gripper_alone_is_no_doubt(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    demos = walks(0, count=12)
    for actions in demos.values():
        actions[:, GRIPPER] = rng.choice([-1.0, 1.0], len(actions))
    assert told(write_libero(tmp_path / "a.hdf5", demos)) == []


def test_noise_in_all_dimensions_but_one_is_no_doubt() -> None:
    """One joint works, and five hold still within their encoders' noise."""
    rng = np.random.default_rng(0)
    recorded = [np.column_stack([np.sin(np.arange(90) / 9 + i), rng.normal(size=(90, 5))]) for i in range(9)]
    assert doubts(recorded, JOINTS, 8) == []


@pytest.mark.parametrize("every", [2, 4])
def test_slower_control_is_no_noise(sample: list[Episode], every: int) -> None:
    """At 10 and 5 steps a second; an arm still goes on where it went."""
    assert doubts([one.actions[::every] for one in sample], LIBERO, 8) == []


# Chunks that repeat one action


@pytest.mark.parametrize("length", [8, 16])
def test_tiled_chunks_are_told(tmp_path: Path, length: int) -> None:
    demos = [(task, np.repeat(actions[: 4 * (16 // length)], length, axis=0)) for task, actions in exact_demos()]
    path = write_chunk_file(tmp_path / "tiled.pt", demos)
    assert told(path, chunk_len=length, stride=length) == ["tiled"]


def test_tiles_of_the_guides_length_are_told_whatever_the_chunks() -> None:
    tiled = [np.repeat(actions, 8, axis=0) for actions in walks(0).values()]
    for chunk_len in (1, 4, 5, 8, 16, 20):
        assert keys(doubts(tiled, LIBERO, chunk_len)) == ["tiled"]


@pytest.mark.parametrize(("start", "is_tiled"), [(0, True), (1, False), (5, False)])
def test_one_step_elsewhere_is_enough_that_chunks_are_not_tiled(start: int, is_tiled: bool) -> None:
    tiled = [np.repeat(actions, 8, axis=0) for actions in walks(0).values()]
    tiled[3] = tiled[3][start:]
    assert bool(doubts(tiled, LIBERO, 8)) == is_tiled


@pytest.mark.parametrize("times", [2, 3, 5])
def test_actions_that_are_recorded_several_times_are_not_called_tiled(times: int) -> None:
    repeated = [np.repeat(actions, times, axis=0) for actions in walks(0).values()]
    assert doubts(repeated, LIBERO, 8) == []


def test_a_few_changes_at_round_steps_do_not_make_tiles() -> None:
    """A script that moves one joint at step 40 of 80, in every episode."""
    rng = np.random.default_rng(0)
    recorded = [np.where(np.arange(80)[:, None] < 40, rng.normal(size=6), rng.normal(size=6)) for _ in range(30)]
    assert doubts(recorded, JOINTS, 8) == []


def keyboard(rng: np.random.Generator, steps: int) -> Array:
    """Keys held for 2 to 24 steps: one axis at a time by -1 or 1, or none; the gripper now and then."""
    actions, step = np.zeros((steps, 7)), 0
    actions[:, GRIPPER] = -1
    while step < steps:
        held = int(rng.integers(2, 25))
        actions[step : step + held, rng.integers(0, 6)] = rng.choice([-1.0, 0.0, 1.0])
        if rng.random() < 0.1:
            actions[step:, GRIPPER] *= -1
        step += held
    return actions


@HYPOTHESIS
@given(st.integers(0, 2**32), st.sampled_from([4, 8, 16]))
def test_a_keyboard_is_neither_noise_nor_tiled(seed: int, chunk_len: int) -> None:
    rng = np.random.default_rng(seed)
    assert doubts([keyboard(rng, int(rng.integers(60, 200))) for _ in range(8)], LIBERO, chunk_len) == []


# Rest


@pytest.mark.parametrize("layout", ["libero", "joint:7", "gripper:7", "joint:6 gripper:1"])
@pytest.mark.parametrize("value", [0.0, 0.3])
def test_what_never_moves_is_told(tmp_path: Path, layout: str, value: float) -> None:
    demos = {f"demo_{i}": np.full((30 + i, 7), value) for i in range(6)}
    assert told(write_libero(tmp_path / "a.hdf5", demos), layout=layout) == ["still_stream"]


def test_an_arm_that_never_moves_is_told_though_its_gripper_does(tmp_path: Path) -> None:
    demos = {key: actions * [0, 0, 0, 0, 0, 0, 1] for key, actions in walks(0).items()}
    assert told(write_libero(tmp_path / "a.hdf5", demos)) == ["still_stream"]


def test_poses_that_differ_between_episodes_alone_never_move() -> None:
    assert keys(doubts([np.full((20, 6), float(number)) for number in range(6)], JOINTS, 8)) == ["still_stream"]


# One trajectory many times


def copies(count: int, spread: float, others: int = 0) -> list[Array]:
    """One random walk so many times with a little noise, and others."""
    rng = np.random.default_rng(0)
    one = random_walk(rng, 60)
    near = [one + spread * np.append(rng.normal(size=(60, 6)), np.zeros((60, 1)), axis=1) for _ in range(count)]
    return [*near, *(random_walk(rng, 60) for _ in range(others))]


@pytest.mark.parametrize(("count", "others", "near"), [(12, 0, 12), (12, 11, 12), (6, 6, None), (2, 10, None)])
def test_copies_with_a_little_noise_are_told_where_they_are_most(count: int, others: int, near: int | None) -> None:
    found = doubts(copies(count, 1e-4, others), LIBERO, 8)
    assert [one["values"] for one in found] == ([] if near is None else [{"near": near, "of": count + others}])


def test_of_several_trajectories_each_copy_is_found() -> None:
    rng = np.random.default_rng(1)
    recorded = [
        actions + 1e-4 * rng.normal(size=actions.shape) for actions in walks(0, count=5).values() for _ in range(4)
    ]
    assert [one["values"] for one in doubts(recorded, LIBERO, 8)] == [{"near": 20, "of": 20}]


@pytest.mark.parametrize("spread", [0.0, 1e-4])
def test_copies_that_end_earlier_or_later_are_told(spread: float) -> None:
    """Of 60 steps none to 23 cut off, so that no two are of one length."""
    recorded = [actions[: 60 - cut] for cut, actions in enumerate(copies(24, spread))]
    assert [one["values"] for one in doubts(recorded, LIBERO, 8)] == [{"near": 24, "of": 24}]


def test_recordings_that_begin_alike_are_no_copies() -> None:
    """Half of the way is the same, as of a script that first goes to its place."""
    pairs = zip(copies(24, 1e-4), copies(0, 0, others=24), strict=True)
    recorded = [np.concatenate([way[:30], other[30 : 60 - cut]]) for cut, (way, other) in enumerate(pairs)]
    assert doubts(recorded, LIBERO, 8) == []


def test_equal_copies_leave_too_few_and_near_ones_are_told(tmp_path: Path) -> None:
    demos = {f"demo_{number}": actions for number, actions in enumerate(copies(10, 1e-3))}
    assert told(write_libero(tmp_path / "a.hdf5", demos)) == ["copied"]


# Recordings that are what they seem


def stricter_doubts(episodes: Sequence[Array]) -> list[Note]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in TIGHTER.items():
            patch.setattr(motion, name, value)
        return doubts(episodes, LIBERO, 8)


SUBSETS = st.lists(st.integers(0, 189), min_size=1, max_size=40, unique=True)


@HYPOTHESIS
@given(SUBSETS)
def test_no_subset_of_the_sample_comes_near(chosen: list[int]) -> None:
    assert stricter_doubts([EPISODES()[number] for number in chosen]) == []


def read_once(data: Path | str) -> Callable[[], list[Array]]:
    found: list[Array] = []

    def read() -> list[Array]:
        if not found:
            found.extend(one.actions for one in prepare_dataset(data).dataset.episodes)
        return found

    return read


EPISODES = read_once(SAMPLE)


@pytest.mark.parametrize("recordings", ["human_teleop", "spacemouse"])
def test_no_subset_of_recordings_by_hand_comes_near(request: pytest.FixtureRequest, recordings: str) -> None:
    episodes = read_once(request.getfixturevalue(recordings))()
    rng = np.random.default_rng(0)
    subsets = [rng.choice(len(episodes), int(rng.integers(1, len(episodes) + 1)), False) for _ in range(20)]
    for chosen in ([[number] for number in range(len(episodes))], subsets):
        for subset in chosen:
            assert stricter_doubts([episodes[number] for number in subset]) == []


def test_recordings_in_every_format_raise_no_doubt(tmp_path: Path, tiny_data: Path) -> None:
    demos = exact_demos()
    assert told(tiny_data) == told(write_lerobot_v2(tmp_path / "lerobot", demos)) == []
    assert told(write_chunk_file(tmp_path / "chunks.pt", demos)) == []


def test_joints_that_swing_are_no_noise() -> None:
    time = np.arange(120)[:, None]
    recorded = [80 * np.sin(time / (9 + np.arange(6)) + number) for number in range(12)]
    assert doubts(recorded, JOINTS, 8) == []
    assert np.abs(autocorrelation(recorded, 1)[1]).min() > motion.UNCORRELATED


def test_single_steps_tell_nothing() -> None:
    assert doubts([np.full((1, 7), float(number)) for number in range(6)], LIBERO, 1) == []


# What a reader sees of them


@pytest.mark.parametrize("accepted", [False, True])
def test_the_pages_of_a_run_on_random_actions_say_so_first(tmp_path: Path, accepted: bool) -> None:
    path = write_libero(tmp_path / "a.hdf5", {f"demo_{i}": actions for i, actions in enumerate(noise(0, 24, 10))})
    run = run_notebooks(tmp_path / "out", prepare_dataset(path, DataConfig(accept_data=accepted)))
    write_reports(run.evidence)
    first, page = remarks(run.evidence)[0], (run.out.reports / "index.html").read_text(encoding="utf8")
    assert first.startswith("These are no robot motions: neighbouring steps are uncorrelated")
    banner = f'<p class="not-evidence">NOT EVIDENCE: {first}'
    assert (banner in page) == (not accepted)
    assert f"<li>{first}</li>" in page
    assert any(line.startswith(f"NOT EVIDENCE: {first}") for line in verdict_lines(run.evidence)) == (not accepted)
    assert [doubt["key"] for doubt in run.written["verdict"]["data_doubts"]] == ([] if accepted else ["white_noise"])
