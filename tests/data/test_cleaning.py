"""What is left out and clipped on the way from recordings to a data set: copies, no-ops, range."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from made_up import GRIPPER, TWO_ARMS, Array, episode, scaled, walks
from reading import about, card_of, said, said_of
from writers import write_libero

from workbook.common.errors import InputError
from workbook.data.cleaning import clip_episodes, drop_noops, noop_steps, noops_are_known
from workbook.data.config import DataConfig
from workbook.data.dataset import prepare_dataset
from workbook.data.layout import LIBERO, ActionLayout
from workbook.data.left_out import leave_out_copies
from workbook.report.text.data import remarks

HYPOTHESIS = settings(deadline=None, max_examples=60)


# No-ops


def by_openvlas_rule(actions: Array) -> list[bool]:
    """Which steps OpenVLA's regenerate_libero_dataset.py drops."""

    def is_noop(action: Array, prev_action: Array | None, threshold: float = 1e-4) -> bool:
        if prev_action is None:
            return bool(np.linalg.norm(action[:-1]) < threshold)
        return bool(np.linalg.norm(action[:-1]) < threshold and action[-1] == prev_action[-1])

    kept: list[Array] = []
    dropped = []
    for action in actions:
        dropped.append(is_noop(action, kept[-1] if kept else None))
        if not dropped[-1]:
            kept.append(action)
    return dropped


def steps(*rows: tuple[float, float]) -> Array:
    """Actions of LIBERO from (command in x, gripper)."""
    actions = np.zeros((len(rows), 7))
    actions[:, [0, GRIPPER]] = rows
    return actions


def test_noop_steps_by_hand() -> None:
    actions = steps(
        (0.0, -1),  # leading and still: dropped, whatever the gripper does
        (0.0, 1),
        (0.0, -1),
        (0.5, -1),  # moves
        (0.0, -1),  # still, gripper unchanged: dropped
        (0.0, 1),  # closes
        (0.0, 1),
        (0.2, -1),
        (0.0, -1),
        (0.0, 1),
    )
    wanted = [True, True, True, False, True, False, True, False, True, False]
    assert noop_steps(actions, LIBERO).tolist() == wanted == by_openvlas_rule(actions)


def test_the_threshold_is_on_the_length_of_the_whole_motion() -> None:
    actions = steps((0.5, -1), (0.99e-4, -1), (1.01e-4, -1), (-0.99e-4, -1), (0.0, -1))
    actions[4, :6] = 0.5e-4  # each below the threshold, their length above
    assert noop_steps(actions, LIBERO).tolist() == [False, True, False, True, False]


@HYPOTHESIS
@given(st.lists(st.tuples(st.sampled_from([0.0, 5e-5, -2e-4, 0.3]), st.sampled_from([-1.0, 1.0])), max_size=30))
def test_noop_steps_are_openvlas(rows: list[tuple[float, float]]) -> None:
    actions = steps(*rows) if rows else np.zeros((0, 7))
    assert noop_steps(actions, LIBERO).tolist() == by_openvlas_rule(actions)


def test_with_two_arms_a_step_is_kept_for_either() -> None:
    still = steps((0.0, -1)).repeat(6, axis=0)
    left, right = still.copy(), still.copy()
    left[0, 0] = right[2, 4] = 0.5
    left[4:, GRIPPER] = 1
    actions = np.column_stack([left, right])
    assert noop_steps(actions, TWO_ARMS).tolist() == [False, True, False, True, False, True]


def test_without_a_gripper_every_still_step_is_a_noop() -> None:
    actions = np.zeros((4, 6))
    actions[1, 5] = 0.1
    assert noop_steps(actions, ActionLayout.parse("position:3 rotation:3")).tolist() == [True, False, True, True]


@pytest.mark.parametrize(
    ("spec", "known"),
    [
        ("libero", True),
        (TWO_ARMS.spec, True),
        ("rotation:3", True),
        ("gripper:1", False),
        ("joint:6 gripper:1", False),
        ("position:3 rotation:3 joint:1 gripper:1", False),
    ],
)
def test_noops_are_known_of_deltas_alone(tmp_path: Path, spec: str, known: bool) -> None:
    layout = ActionLayout.parse(spec)
    assert noops_are_known(layout) == known
    demos = {key: np.resize(actions, (len(actions), layout.dim)) for key, actions in walks(0).items()}
    prepared = prepare_dataset(write_libero(tmp_path / "a.hdf5", demos), DataConfig(layout=spec))
    run = card_of(prepared)
    assert (run.data["idle_share"] is not None) == known
    assert bool(about("Idle steps", remarks(run))) == known


@pytest.mark.parametrize("layout", ["joint:7", "joint:6 gripper:1", "gripper:7"])
def test_where_noops_are_not_known_dropping_them_is_refused(tiny_data: Path, layout: str) -> None:
    with pytest.raises(InputError) as raised:
        prepare_dataset(tiny_data, DataConfig(layout=layout, drop_noops=True))
    assert str(raised.value) == (
        f"layout '{layout}': which steps command nothing is known for position and rotation deltas only; leave out "
        "--drop-noops"
    )


def test_demos_that_command_nothing_are_left_out_and_do_not_count_as_unusable(tmp_path: Path) -> None:
    """A third of all, as of a task of LIBERO-90 whose demonstrations the filter empties."""
    for number in range(3):
        demos = walks(number)
        if number == 1:
            demos = {key: np.where(np.arange(7) == GRIPPER, -1.0, 1e-6 * actions) for key, actions in demos.items()}
        write_libero(tmp_path / f"task{number}_demo.hdf5", demos)
    prepared = prepare_dataset(tmp_path, DataConfig(drop_noops=True))
    left_out = prepared.changes.left_out
    assert {one.why for one in left_out} == {"no_motion"}
    assert sorted(one.place for one in left_out) == [f"task1_demo.hdf5, demo_{at}" for at in range(6)]
    assert {episode.source for episode in prepared.dataset.episodes} == {"task0_demo.hdf5", "task2_demo.hdf5"}
    assert about("task1_demo.hdf5, demo_0", remarks(card_of(prepared)))
    assert not prepare_dataset(tmp_path).changes.left_out


def test_dropping_keeps_the_other_steps_as_they_are_and_counts() -> None:
    actions = np.random.default_rng(0).normal(0, 0.3, (10, 7))
    actions[:, GRIPPER] = -1
    actions[[0, 4, 5], :6] = 0
    kept, dropped = drop_noops([episode(actions), episode(actions[1:4], key="demo_1")], LIBERO)
    assert dropped == 3
    np.testing.assert_array_equal(kept[0].actions, np.delete(actions, [0, 4, 5], axis=0))
    np.testing.assert_array_equal(kept[1].actions, actions[1:4])
    assert [one.key for one in kept] == ["demo_0", "demo_1"]


@pytest.fixture
def with_idle_steps(tmp_path: Path) -> Path:
    """6 demos of 30 steps, of which the last 10 of each command nothing."""
    demos = {key: actions[:20].copy() for key, actions in walks(0).items()}
    idle = {key: np.vstack([a, np.tile([0.0] * 6 + [a[-1, GRIPPER]], (10, 1))]) for key, a in demos.items()}
    return write_libero(tmp_path / "idle.hdf5", idle)


def test_by_default_every_step_is_kept_and_idle_ones_are_said(with_idle_steps: Path) -> None:
    prepared = prepare_dataset(with_idle_steps)
    assert prepared.changes.noops_dropped is None
    assert [len(one.actions) for one in prepared.dataset.episodes] == [30] * 6
    assert about("Idle steps", said(with_idle_steps)) == [
        "Idle steps (no motion, gripper unchanged): 33.3%; they are kept."
    ]


def test_dropped_steps_are_counted_and_said(with_idle_steps: Path) -> None:
    prepared = prepare_dataset(with_idle_steps, DataConfig(drop_noops=True))
    assert prepared.changes.noops_dropped == 60
    assert [len(one.actions) for one in prepared.dataset.episodes] == [20] * 6
    found = said(with_idle_steps, drop_noops=True)
    assert about("commanded nothing", found) == [
        "60 of 180 steps commanded nothing and were left out, by OpenVLA's rule."
    ]
    assert not about("they are kept", found)


def test_that_there_was_nothing_to_drop_is_said(tmp_path: Path) -> None:
    path = write_libero(tmp_path / "a.hdf5", walks(0))
    assert prepare_dataset(path, DataConfig(drop_noops=True)).changes.noops_dropped == 0
    assert about("commanded nothing", said(path, drop_noops=True)) == [
        "0 of 281 steps commanded nothing and were left out, by OpenVLA's rule."
    ]


def test_what_remains_must_fill_a_chunk(with_idle_steps: Path) -> None:
    prepare_dataset(with_idle_steps, DataConfig(chunk_len=30, stride=30))
    with pytest.raises(InputError, match=r"demo_0: 20 steps that command something are fewer than one chunk of 21"):
        prepare_dataset(with_idle_steps, DataConfig(chunk_len=21, stride=21, drop_noops=True))


def test_recordings_of_noops_alone_are_refused(tmp_path: Path) -> None:
    path = write_libero(tmp_path / "a.hdf5", {f"demo_{i}": np.zeros((30 + i, 7)) for i in range(6)})
    with pytest.raises(InputError, match=r"demo_0: 0 steps that command something are fewer than one chunk of 8"):
        prepare_dataset(path, DataConfig(drop_noops=True))


# Copies


def test_a_copy_of_another_number_type_is_a_copy(tmp_path: Path) -> None:
    demos = {key: actions.astype(np.float32) for key, actions in walks(0).items()}
    doubled = demos | {"demo_6": demos["demo_3"].astype(np.float64)}
    assert len(prepare_dataset(write_libero(tmp_path / "a.hdf5", doubled)).changes.copies) == 1


def test_three_equal_recordings_are_two_copies_of_the_first() -> None:
    kept, copies = leave_out_copies([episode(np.ones((8, 7)), key=f"demo_{i}") for i in range(3)])
    assert [one.key for one in kept] == ["demo_0"]
    assert copies == (("a.hdf5, demo_1", "a.hdf5, demo_0"), ("a.hdf5, demo_2", "a.hdf5, demo_0"))


def test_the_same_values_in_another_shape_are_no_copy() -> None:
    values = np.arange(24.0)
    recorded = [episode(values.reshape(shape)) for shape in ((4, 6), (3, 8), (6, 4))]
    assert leave_out_copies(recorded) == (recorded, ())


def test_a_recording_that_differs_in_one_bit_is_no_copy() -> None:
    actions = np.full((8, 7), 0.3)
    other = actions.copy()
    other[7, 6] = np.nextafter(0.3, 1)
    assert leave_out_copies([episode(actions), episode(other)])[1] == ()


def test_what_is_there_twice_does_not_count_as_enough_episodes(tmp_path: Path) -> None:
    doubled = walks(0, count=3) | {f"demo_{i + 3}": actions for i, actions in enumerate(walks(0, count=3).values())}
    with pytest.raises(InputError, match=r"^3 episode\(s\) cannot be split"):
        prepare_dataset(write_libero(tmp_path / "a.hdf5", doubled))


def test_without_copies_nothing_is_said_of_them(tiny_data: Path) -> None:
    assert not about("twice", said(tiny_data))


def test_the_same_recording_twice_is_taken_once_and_named(tmp_path: Path) -> None:
    write_libero(tmp_path / "a.hdf5", walks(0))
    (tmp_path / "b.hdf5").symlink_to(tmp_path / "a.hdf5")
    prepared = prepare_dataset(tmp_path)
    copies = [(f"b.hdf5, demo_{i}", f"a.hdf5, demo_{i}") for i in range(6)]
    assert [e.place for e in prepared.dataset.episodes] == [f"a.hdf5, demo_{i}" for i in range(6)]
    assert prepared.changes.copies == tuple(copies)
    run = card_of(prepared)
    assert run.data["copies"] == list(map(list, copies))
    [sentence] = about("there twice", remarks(run))
    assert "the first: b.hdf5, demo_0 is the same recording as a.hdf5, demo_0." in sentence


# Clipping


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


def test_clipping_is_counted_by_dimension_and_step_and_leaves_joints() -> None:
    layout = ActionLayout.parse("joint:2 position:2 rotation:1 gripper:1")
    actions = np.zeros((5, 6))
    actions[0] = [3.0, -200.0, 1.0, -1.0, 0.5, 1.0]  # nothing outside
    actions[1] = [0.0, 0.0, 1.5, -1.5, 0.0, 0.0]
    actions[2] = [9.0, 0.0, 0.0, -7.0, -2.0, 1.25]
    [clipped], clipping = clip_episodes([episode(actions)], layout)
    np.testing.assert_array_equal(clipped.actions[:, :2], actions[:, :2])
    np.testing.assert_array_equal(clipped.actions[:, 2:], np.clip(actions[:, 2:], -1, 1))
    assert clipping.steps.tolist() == [0, 0, 1, 2, 1, 1]
    assert clipping.largest.tolist() == [9.0, 200.0, 1.5, 7.0, 2.0, 1.25]
    assert (clipping.steps_any, clipping.total_steps) == (2, 5)


def test_joints_alone_are_never_clipped_and_that_is_said(tmp_path: Path) -> None:
    found = said_of(tmp_path, scaled([180.0] * 7), layout="joint:7")
    assert about("clipped", found) == ["Nothing was clipped: joints are in units of their own."]


def test_the_largest_value_said_is_one_that_was_clipped(tmp_path: Path) -> None:
    demos = scaled([90.0] * 6 + [1.0])
    demos["demo_0"][3, GRIPPER] = 1.5
    [sentence] = about("clipped", said_of(tmp_path, demos, layout="joint:6 gripper:1"))
    assert sentence.startswith("1 of 281 steps (0.4%)")
    assert sentence.endswith("the largest value was 1.5, in gripper.")


def test_where_much_is_clipped_other_units_are_suspected(tmp_path: Path) -> None:
    [much] = about("clipped", said_of(tmp_path, scaled([60.0] * 6 + [1.0])))
    assert "--layout joint:N" in much
    little = walks(0)
    little["demo_0"][:3, 0] = 2.0
    [sentence] = about("clipped", said_of(tmp_path, little))
    assert "--layout" not in sentence


def test_the_remarks_say_that_nothing_was_clipped(tiny_data: Path) -> None:
    assert about("clipped", said(tiny_data)) == ["No step left [-1, 1]; nothing was clipped."]
