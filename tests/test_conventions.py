"""What is changed and what is said on the way from recordings to a data set: copies, gripper, no-ops, range, units."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import walks
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from writers import TASK, write_libero

from workbook.conventions import clip_episodes, drop_noops, leave_out_copies, noop_steps, unify_grippers
from workbook.data_card import describe
from workbook.data_remarks import remarks
from workbook.dataset import DataConfig, prepare_dataset
from workbook.episodes import Episode
from workbook.errors import InputError
from workbook.layout import LIBERO, LIBERO_SPEC, ActionLayout
from workbook.paths import SAMPLE, OutputFolder
from workbook.plausibility import LATTICES, fills_the_range, lattice_of, lattice_share, looks_absolute, step_ratio
from workbook.published import ALL_SUITES, distance, published_statistics
from workbook.sources.recordings import read_recordings
from workbook.stages import read_stage, write_stage

Array = NDArray[np.float64]
Demos = dict[str, Array]
HYPOTHESIS = settings(deadline=None, max_examples=60)
GRIPPER = 6
KEPT = "low of -1 and 1 is open"
TWO_ARMS = ActionLayout.parse(f"{LIBERO_SPEC} {LIBERO_SPEC}")
SUITES = [name for name in published_statistics() if name != ALL_SUITES]
# From -1 open, +1 close to what recordings have.
ENCODINGS: dict[str, Callable[[Array], Array]] = {
    KEPT: lambda gripper: gripper,
    "low of 0 and 1 is open": lambda gripper: (gripper + 1) / 2,
    "high of 0 and 1 is open": lambda gripper: (1 - gripper) / 2,  # OpenVLA's
    "high of -1 and 1 is open": lambda gripper: -gripper,
}


def episode(actions: Array, source: str = "a.hdf5", key: str = "demo_0", task: str = TASK) -> Episode:
    """An episode of a LIBERO file, which is a session."""
    return Episode(np.asarray(actions, dtype=np.float64), task, source, key, session=source)


def episodes_of(demos: Demos) -> list[Episode]:
    return [episode(actions, key=key) for key, actions in demos.items()]


def gripping(*commands: Sequence[float]) -> list[Episode]:
    """Episodes with these gripper commands and no motion."""
    return [
        episode(np.column_stack([np.zeros((len(one), 6)), one]), key=f"demo_{number}")
        for number, one in enumerate(commands)
    ]


def commands(episodes: Sequence[Episode], dimension: int = GRIPPER) -> list[float]:
    return np.concatenate([one.actions[:, dimension] for one in episodes]).tolist()


def encoded(actions: Array, encode: Callable[[Array], Array], dimension: int = GRIPPER) -> Array:
    changed = actions.copy()
    changed[:, dimension] = encode(actions[:, dimension])
    return changed


def scaled(factors: Sequence[float], seed: int = 0) -> Demos:
    """Random walks within 0.9, each dimension times its factor."""
    return {key: actions * np.asarray(factors) for key, actions in walks(seed).items()}


def said(data: Path, **parameters: object) -> list[str]:
    """The remarks of 01_data."""
    return remarks(describe(prepare_dataset(data, DataConfig(**parameters))))


def said_of(folder: Path, demos: Demos, **parameters: object) -> list[str]:
    return said(write_libero(folder / "a.hdf5", demos), **parameters)


def about(word: str, sentences: Sequence[str]) -> list[str]:
    return [sentence for sentence in sentences if word in sentence]


def assert_plain(sentences: Sequence[str]) -> None:
    for sentence in sentences:
        assert sentence[0].isupper() or sentence[0].isdigit()
        assert sentence.endswith(".")
        assert "nan" not in sentence
        assert "None" not in sentence


# Gripper


@pytest.mark.parametrize("name", ENCODINGS)
def test_a_gripper_of_any_encoding_becomes_minus_one_open(tmp_path: Path, name: str) -> None:
    recorded = {key: encoded(actions, ENCODINGS[name]) for key, actions in walks(0).items()}
    prepared = prepare_dataset(write_libero(tmp_path / "a.hdf5", recorded))
    for read, wanted in zip(prepared.dataset.episodes, walks(0).values(), strict=True):
        assert read.actions.tobytes() == wanted.tobytes()  # to the last bit, signs of zeros included
    [reading] = prepared.changes.grippers
    assert (reading.switch, reading.open_end, reading.given) == (True, name.split()[0], False)
    assert reading.changed == (name != KEPT)


@pytest.mark.parametrize("name", ENCODINGS)
def test_the_remarks_say_how_the_gripper_was_read(tmp_path: Path, name: str) -> None:
    found = said_of(tmp_path, {key: encoded(actions, ENCODINGS[name]) for key, actions in walks(0).items()})
    [sentence] = about("gripper was", found)
    assert sentence.startswith(f"The gripper was recorded as {{{'0' if ' 0 ' in name else '-1'}, 1}}")
    assert f"100% of the episodes begin at the {name.split()[0]} end, so that is open" in sentence
    assert ("converted" in sentence, "kept" in sentence) == ((False, True) if name == KEPT else (True, False))


begun_open = st.lists(
    st.lists(st.sampled_from([-1.0, 1.0]), min_size=7, max_size=20).map(lambda rest: [-1.0, *rest]),
    min_size=4,
    max_size=8,
).filter(lambda demos: any(1.0 in demo for demo in demos))


@HYPOTHESIS
@given(begun_open, st.integers(0, 2**32))
def test_all_encodings_of_episodes_that_begin_open_give_the_same(demos: list[list[float]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    recorded = [np.column_stack([rng.normal(0, 0.5, (len(demo), 6)), demo]) for demo in demos]
    for encode in ENCODINGS.values():
        read, _ = unify_grippers([episode(encoded(actions, encode)) for actions in recorded], LIBERO)
        assert [one.actions.tobytes() for one in read] == [actions.tobytes() for actions in recorded]


def test_all_encodings_make_one_data_set(tmp_path: Path) -> None:
    hashes = set()
    for name, encode in ENCODINGS.items():
        demos = {key: encoded(actions, encode).astype(np.float32) for key, actions in walks(3).items()}
        hashes.add(prepare_dataset(write_libero(tmp_path / f"{name}.hdf5", demos)).dataset.sha256)
    assert len(hashes) == 1


@pytest.mark.parametrize(
    ("begin_high", "expected"),
    [(0, "low"), (1, "low"), (2, None), (5, None), (8, None), (9, "high"), (10, "high")],
)
def test_the_end_at_which_nine_of_ten_episodes_begin_is_open(begin_high: int, expected: str | None) -> None:
    recorded = gripping(*([1.0, 0.0] if number < begin_high else [0.0, 1.0] for number in range(10)))
    _, [reading] = unify_grippers(recorded, LIBERO)
    assert reading.starts_high == begin_high / 10
    assert reading.open_end == expected


def test_three_episodes_tell_nothing() -> None:
    recorded = gripping(*[[1.0, 0.0]] * 3)
    read, [reading] = unify_grippers(recorded, LIBERO)
    assert reading.open_end is None
    assert commands(read) == [1.0, -1.0] * 3


@pytest.mark.parametrize(
    ("low", "recorded"), [(0.0, "was recorded as {0, 1}"), (-1.0, "was recorded as {-1, 1}")], ids=["0, 1", "-1, 1"]
)
def test_where_beginnings_do_not_tell_the_low_end_is_open_and_that_is_said(
    tmp_path: Path, low: float, recorded: str
) -> None:
    demos = walks(0)
    for number, actions in enumerate(demos.values()):
        actions[:, GRIPPER] = np.where((np.arange(len(actions)) < 9) == (number % 2 == 0), low, 1.0)
    path = write_libero(tmp_path / "a.hdf5", demos)
    for read, actions in zip(prepare_dataset(path).dataset.episodes, demos.values(), strict=True):
        np.testing.assert_array_equal(read.actions[:, GRIPPER], np.where(actions[:, GRIPPER] == low, -1.0, 1.0))
    [sentence] = about("gripper was", said(path))
    assert recorded in sentence
    assert "50% of the episodes begin at the high end, which does not tell; the low end is taken as open" in sentence


@pytest.mark.parametrize("low", [0.0, -1.0])
@pytest.mark.parametrize("given_end", ["low", "high"])
def test_the_user_can_say_which_end_is_open(tmp_path: Path, low: float, given_end: str) -> None:
    demos = {key: encoded(actions, lambda gripper: np.maximum(gripper, low)) for key, actions in walks(0).items()}
    path = write_libero(tmp_path / "a.hdf5", demos)
    prepared = prepare_dataset(path, DataConfig(gripper_open=given_end))
    open_value = low if given_end == "low" else 1.0
    for read, actions in zip(prepared.dataset.episodes, demos.values(), strict=True):
        wanted = np.where(actions[:, GRIPPER] == open_value, -1.0, 1.0)
        assert read.actions[:, GRIPPER].tobytes() == wanted.tobytes()
    [sentence] = about("gripper was", said(path, gripper_open=given_end))
    assert f"the {given_end} end was said to be open" in sentence


@pytest.mark.parametrize("value", ["", "Low", "closed", "1", "none"])
def test_another_word_for_the_open_end_is_refused(tiny_data: Path, value: str) -> None:
    with pytest.raises(InputError, match=rf"^gripper_open is '{value}'; give one of auto, low, high$"):
        prepare_dataset(tiny_data, DataConfig(gripper_open=value))


def test_a_continuous_gripper_is_kept_and_said(tmp_path: Path) -> None:
    demos = {key: encoded(actions, lambda g: g * np.linspace(0.2, 1, len(g))) for key, actions in walks(0).items()}
    path = write_libero(tmp_path / "a.hdf5", demos)
    prepared = prepare_dataset(path)
    for read, actions in zip(prepared.dataset.episodes, demos.values(), strict=True):
        assert read.actions.tobytes() == actions.tobytes()
    assert not prepared.changes.grippers[0].switch
    [sentence] = about("gripper lies between", said(path))
    assert "kept as recorded" in sentence
    assert "not known" in sentence


def test_a_few_values_between_the_ends_leave_it_a_switch() -> None:
    recorded = gripping(*[[0.0] * 50 + [1.0] * 50] * 3, [0.0] * 50 + [0.5] + [1.0] * 49)
    read, [reading] = unify_grippers(recorded, LIBERO)
    assert reading.switch
    assert set(commands(read)) == {-1.0, 0.0, 1.0}
    assert commands(read)[350] == 0.0


def test_many_values_between_the_ends_make_it_continuous() -> None:
    recorded = gripping(*[[0.0] * 50 + [0.5] * 2 + [1.0] * 48] * 4)
    read, [reading] = unify_grippers(recorded, LIBERO)
    assert not reading.switch
    assert commands(read) == commands(recorded)


@pytest.mark.parametrize("constant", [-1.0, 0.0, 1.0])
def test_a_gripper_that_never_switches_is_kept_and_said_to_be_constant(tmp_path: Path, constant: float) -> None:
    demos = {key: encoded(actions, lambda g: np.full(len(g), constant)) for key, actions in walks(0).items()}
    path = write_libero(tmp_path / "a.hdf5", demos)
    assert set(commands(prepare_dataset(path).dataset.episodes)) == {constant}
    found = said(path)
    assert about("never move", found) == ["These dimensions never move: gripper."]
    assert not [sentence for sentence in found if sentence.startswith("The gripper")]


@pytest.mark.parametrize("values", [(0.0, 0.04), (-1.0, 0.0), (0.0, 0.5)])
def test_a_gripper_of_two_other_values_is_not_said_to_have_more(tmp_path: Path, values: tuple[float, float]) -> None:
    demos = {key: encoded(actions, lambda g: np.where(g < 0, *values)) for key, actions in walks(0).items()}
    [sentence] = about("The gripper", said_of(tmp_path, demos))
    assert "not two" not in sentence


@pytest.mark.parametrize(("first", "second"), [(0.0, -1.0), (-1.0, 0.0)])
def test_a_mixture_between_files_is_refused_with_both_places(tmp_path: Path, first: float, second: float) -> None:
    for name, seed, low in (("one", 0, first), ("two", 1, second)):
        demos = {key: encoded(a, lambda g, low=low: np.maximum(g, low)) for key, a in walks(seed).items()}
        write_libero(tmp_path / f"{name}.hdf5", demos)
    unsigned, signed = ("one", "two") if first == 0 else ("two", "one")
    with pytest.raises(InputError, match=rf"^{unsigned}\.hdf5, demo_0: gripper .* in {signed}\.hdf5, demo_0; convert"):
        prepare_dataset(tmp_path)


@pytest.mark.parametrize("given_end", ["auto", "low", "high"])
def test_a_mixture_is_refused_whatever_end_is_said_to_be_open(given_end: str) -> None:
    unsigned = [episode(one.actions, source="b.hdf5") for one in gripping(*[[0.0, 1.0]] * 4)]
    with pytest.raises(InputError, match=r"^b\.hdf5, demo_0: gripper .* in a\.hdf5, demo_0; convert"):
        unify_grippers([*gripping(*[[-1.0, 1.0]] * 4), *unsigned], LIBERO, given_end)


def test_a_file_that_only_ever_opens_to_minus_one_makes_a_mixture() -> None:
    unsigned = [episode(one.actions, source="b.hdf5") for one in gripping(*[[0.0, 1.0]] * 4)]
    with pytest.raises(InputError, match=r"^b\.hdf5, demo_0: gripper .* in a\.hdf5, demo_0; convert"):
        unify_grippers([*gripping(*[[-1.0, -1.0]] * 4), *unsigned], LIBERO)


def test_files_in_which_the_gripper_never_switches_are_no_mixture() -> None:
    closed = [episode(one.actions, source="b.hdf5") for one in gripping(*[[1.0, 1.0]] * 2)]
    read, [reading] = unify_grippers([*gripping(*[[0.0, 1.0]] * 8), *closed], LIBERO)
    assert reading.switch
    assert commands(read) == [-1.0, 1.0] * 8 + [1.0] * 4


def test_two_grippers_of_one_action_are_read_separately(tmp_path: Path) -> None:
    demos = {
        key: np.column_stack([encoded(first, ENCODINGS["high of 0 and 1 is open"]), second])
        for (key, first), second in zip(walks(0).items(), walks(0).values(), strict=True)
    }
    path = write_libero(tmp_path / "a.hdf5", demos)
    prepared = prepare_dataset(path, DataConfig(layout=TWO_ARMS.spec))
    readings = [(one.name, one.low, one.open_end, one.changed) for one in prepared.changes.grippers]
    assert readings == [("gripper 1", 0.0, "high", True), ("gripper 2", -1.0, "low", False)]
    for read, arm in zip(prepared.dataset.episodes, walks(0).values(), strict=True):
        assert read.actions.tobytes() == np.column_stack([arm, arm]).tobytes()
    first, second = about(" was recorded as ", said(path, layout=TWO_ARMS.spec))
    assert first.startswith("The gripper 1 was recorded as {0, 1}")
    assert second.startswith("The gripper 2 was recorded as {-1, 1}")


def test_without_a_gripper_there_is_nothing_to_read() -> None:
    recorded = [episode(np.eye(6))]
    assert unify_grippers(recorded, ActionLayout.parse("joint:6"), "high") == (recorded, ())


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
    assert noop_steps(actions, ActionLayout.parse("joint:6")).tolist() == [True, False, True, True]


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
    assert prepared.changes.noops_dropped == 0
    assert [len(one.actions) for one in prepared.dataset.episodes] == [30] * 6
    [sentence] = about("Idle steps", said(with_idle_steps))
    assert "33.3%; they are kept" in sentence


def test_dropped_steps_are_counted_and_said(with_idle_steps: Path) -> None:
    prepared = prepare_dataset(with_idle_steps, DataConfig(drop_noops=True))
    assert prepared.changes.noops_dropped == 60
    assert [len(one.actions) for one in prepared.dataset.episodes] == [20] * 6
    found = said(with_idle_steps, drop_noops=True)
    assert about("commanded nothing", found) == [
        "60 of 180 steps commanded nothing and were left out, by OpenVLA's rule."
    ]
    assert not about("they are kept", found)


def test_what_remains_must_fill_a_chunk(with_idle_steps: Path) -> None:
    prepare_dataset(with_idle_steps, DataConfig(chunk_len=30, stride=30))
    with pytest.raises(InputError, match=r"demo_0: 20 steps that command something are fewer than one chunk of 21"):
        prepare_dataset(with_idle_steps, DataConfig(chunk_len=21, stride=21, drop_noops=True))


def test_recordings_of_noops_alone_are_refused(tmp_path: Path) -> None:
    path = write_libero(tmp_path / "a.hdf5", {f"demo_{i}": np.zeros((30 + i, 7)) for i in range(6)})
    with pytest.raises(InputError, match=r"demo_0: 0 steps that command something are fewer than one chunk of 8"):
        prepare_dataset(path, DataConfig(drop_noops=True))


# Copies


def test_copies_are_kept_once_named_and_counted(tmp_path: Path) -> None:
    write_libero(tmp_path / "first.hdf5", walks(0))
    write_libero(tmp_path / "second.hdf5", {**walks(1), "demo_6": walks(0)["demo_2"], "demo_7": walks(0)["demo_0"]})
    prepared = prepare_dataset(tmp_path)
    assert len(prepared.dataset.episodes) == 12
    assert prepared.changes.copies == (
        "second.hdf5, demo_6 is the same recording as first.hdf5, demo_2",
        "second.hdf5, demo_7 is the same recording as first.hdf5, demo_0",
    )
    [sentence] = about("there twice", said(tmp_path))
    assert sentence.startswith("2 episode(s)")
    assert "second.hdf5, demo_6 is the same recording as first.hdf5, demo_2" in sentence


def test_a_copy_of_another_number_type_is_a_copy(tmp_path: Path) -> None:
    demos = {key: actions.astype(np.float32) for key, actions in walks(0).items()}
    doubled = demos | {"demo_6": demos["demo_3"].astype(np.float64)}
    assert len(prepare_dataset(write_libero(tmp_path / "a.hdf5", doubled)).changes.copies) == 1


def test_three_equal_recordings_are_two_copies_of_the_first() -> None:
    kept, copies = leave_out_copies([episode(np.ones((8, 7)), key=f"demo_{i}") for i in range(3)])
    assert [one.key for one in kept] == ["demo_0"]
    assert [copy.endswith("same recording as a.hdf5, demo_0") for copy in copies] == [True, True]


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


# Clipping


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
    assert sentence.endswith("the largest value was 1.5.")


def test_where_much_is_clipped_other_units_are_suspected(tmp_path: Path) -> None:
    [much] = about("clipped", said_of(tmp_path, scaled([60.0] * 6 + [1.0])))
    assert "--layout joint:N" in much
    little = walks(0)
    little["demo_0"][:3, 0] = 2.0
    [sentence] = about("clipped", said_of(tmp_path, little))
    assert "--layout" not in sentence


# Plausibility


def on_lattice(lattice: str, count: int = 400) -> Array:
    """LIBERO's layout, whole multiples of the lattice's steps and a gripper."""
    position, rotation = LATTICES[lattice]
    whole = np.random.default_rng(0).integers(-200, 201, (count, 6))
    return np.column_stack([whole * np.repeat([position, rotation], 3), np.where(np.arange(count) % 50 < 25, -1, 1)])


def demos_on(lattice: str) -> Demos:
    return {f"demo_{number}": part for number, part in enumerate(np.split(on_lattice(lattice), 8))}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("lattice", LATTICES)
def test_every_known_lattice_is_recognised(lattice: str, dtype: type) -> None:
    assert lattice_of(on_lattice(lattice).astype(dtype).astype(np.float64), LIBERO) == lattice


@pytest.mark.parametrize("lattice", LATTICES)
def test_the_lattice_is_said(tmp_path: Path, lattice: str) -> None:
    [sentence] = about("lattice", said_of(tmp_path, demos_on(lattice)))
    if lattice == "LIBERO's SpaceMouse":
        assert sentence.endswith("position 100.0%, rotation 100.0%: recorded, or rounded, as LIBERO's are.")
    else:
        assert sentence.endswith(f"they lie on that of {lattice}.")


def test_a_lattice_of_position_or_rotation_alone_is_recognised() -> None:
    actions = on_lattice("LIBERO's SpaceMouse")
    assert lattice_of(actions[:, :3], ActionLayout.parse("position:3")) == "LIBERO's SpaceMouse"
    assert lattice_of(actions[:, 3:], ActionLayout.parse("rotation:3 gripper:1")) == "LIBERO's SpaceMouse"
    actions[:, 3:6] = np.random.default_rng(0).uniform(-0.3, 0.3, (len(actions), 3))
    assert lattice_of(actions, LIBERO) is None


def test_other_values_lie_on_no_lattice(tmp_path: Path) -> None:
    assert lattice_of(np.random.default_rng(0).uniform(-1, 1, (1000, 7)), LIBERO) is None
    assert lattice_of(np.zeros((100, 7)), LIBERO) is None
    [sentence] = about("lattice", said_of(tmp_path, walks(0)))
    assert sentence.endswith("rescaled, or recorded with another device than LIBERO's demonstrations.")


@pytest.mark.parametrize(("off", "expected"), [(0.0005, 1.0), (0.002, 0.0), (0.5, 0.0)])
def test_a_value_is_on_the_lattice_within_a_thousandth_of_a_step(off: float, expected: float) -> None:
    position, rotation = LATTICES["LIBERO's SpaceMouse"]
    steps = np.array([[3, -7, 100, 2, 9, -40]]) + off
    actions = np.column_stack([steps * np.repeat([position, rotation], 3), [1.0]])
    assert lattice_share(actions, LIBERO).tolist()[:6] == [expected] * 6


def min_max_normalised(demos: Demos) -> Demos:
    everything = np.concatenate(list(demos.values()))
    low, width = everything.min(axis=0), np.maximum(np.ptp(everything, axis=0), 1e-9)
    return {key: (actions - low) / width * 2 - 1 for key, actions in demos.items()}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("constant", [False, True])
def test_a_normalised_file_is_said(tmp_path: Path, dtype: type, constant: bool) -> None:
    recorded = scaled([0.3, 0.7, 0.5, 0.1, 0.2, 0.3, 1.0])
    for actions in recorded.values():
        actions[:, 4] *= not constant
    demos = {key: actions.astype(dtype) for key, actions in min_max_normalised(recorded).items()}
    [sentence] = about("were normalised", said_of(tmp_path, demos))
    assert "errors in mm and degrees are wrong" in sentence


def test_a_file_that_is_clipped_here_is_not_called_normalised(tmp_path: Path) -> None:
    demos = scaled([3.0] * 6 + [1.0])
    found = said_of(tmp_path, demos)
    actions = np.concatenate([one.actions for one in prepare_dataset(tmp_path / "a.hdf5").dataset.episodes])
    assert fills_the_range(actions, LIBERO)
    assert about("were clipped", found)
    assert not about("normalised", found)


def test_a_file_that_does_not_reach_both_ends_is_not_called_normalised(tmp_path: Path) -> None:
    demos = min_max_normalised(walks(0))
    for actions in demos.values():
        actions[:, 2] = np.maximum(actions[:, 2], -0.9999)
    assert not about("normalised", said_of(tmp_path, demos))


def test_positions_in_metres_are_said(tmp_path: Path) -> None:
    [sentence] = about("metres", said_of(tmp_path, scaled([0.05] * 3 + [0.5] * 3 + [1.0])))
    assert sentence.startswith("No position command is larger than 0.045")
    assert "divide by 0.05" in sentence
    assert not about("metres", said_of(tmp_path, scaled([0.5] * 3 + [0.05] * 3 + [1.0])))


@pytest.fixture(scope="module")
def sample() -> list[Episode]:
    return read_recordings("sample").episodes


def test_cumulated_deltas_look_like_poses(tmp_path: Path, sample: list[Episode]) -> None:
    poses = {}
    for number, one in enumerate(sample):
        poses[f"demo_{number}"] = one.actions.copy()
        poses[f"demo_{number}"][:, :3] = np.cumsum(one.actions[:, :3] * 0.05 / 3, axis=0) + 0.001
    assert about("poses", said_of(tmp_path, poses)) == [
        "Positions creep from step to step and are never zero: they look like poses, not like deltas. LIBERO's "
        "controller takes deltas; errors in mm and drift would be wrong."
    ]


def test_recorded_poses_look_like_poses() -> None:
    poses = []
    for path in sorted(SAMPLE.rglob("*.hdf5")):
        with h5py.File(path) as file:
            poses += [demo["robot_states"][:, 2:5] for demo in file["data"].values()]
    assert len(poses) == 140
    assert looks_absolute(poses, ActionLayout.parse("position:3"))
    assert looks_absolute(poses[:4], ActionLayout.parse("position:3"))


def test_poses_of_a_single_file_look_like_poses() -> None:
    for path in sorted(SAMPLE.rglob("*.hdf5")):
        with h5py.File(path) as file:
            assert looks_absolute(
                [demo["robot_states"][:, 2:5] for demo in file["data"].values()], ActionLayout.parse("position:3")
            )


def test_poses_in_a_plane_look_like_poses() -> None:
    planar = np.column_stack([np.linspace(0.1, 0.5, 50), np.zeros(50), np.linspace(0.7, 0.2, 50)])
    assert looks_absolute([planar], ActionLayout.parse("position:3"))


def test_step_ratio_by_hand() -> None:
    up_and_down = np.array([[0.0], [1.0], [0.0], [1.0]])
    assert step_ratio([up_and_down]) == pytest.approx(1 / 0.5)
    two = [up_and_down[:2], up_and_down[:2] + 1]  # the change between episodes does not count
    assert step_ratio(two) == pytest.approx(1 / np.std([0, 1, 1, 2]))
    assert step_ratio([np.column_stack([up_and_down, np.arange(4.0), 10 * up_and_down])]) == pytest.approx(1 / 0.5)


def test_what_stands_still_does_not_look_like_poses() -> None:
    assert not looks_absolute([np.ones((50, 3))], ActionLayout.parse("position:2 gripper:1"))


def test_deltas_that_creep_and_rest_or_jump_are_no_poses() -> None:
    layout = ActionLayout.parse("position:1")
    slow = np.sin(np.linspace(0.001, 9, 500))[:, None]
    assert looks_absolute([slow], layout)
    resting = np.concatenate([slow, np.zeros((50, 1))])
    assert not looks_absolute([resting], layout)
    jumping = slow * np.where(np.arange(500) % 2, 1, -1)[:, None]
    assert not looks_absolute([jumping], layout)


def test_where_positions_do_not_move_or_are_none_nothing_looks_absolute() -> None:
    assert not looks_absolute([np.ones((20, 3))], ActionLayout.parse("position:3"))
    assert not looks_absolute([np.cumsum(np.ones((20, 6)), axis=0)], ActionLayout.parse("joint:6"))


@pytest.mark.parametrize("recordings", ["sample", "spacemouse", "human_teleop"])
def test_real_recordings_raise_no_false_alarm(request: pytest.FixtureRequest, recordings: str) -> None:
    data = SAMPLE if recordings == "sample" else request.getfixturevalue(recordings)
    found = said(data)
    assert_plain(found)
    for word in ("poses", "normalised", "metres", "never move", "not known", "different rates", "--layout"):
        assert not about(word, [s for s in found if not s.startswith("Your ")]), word


@pytest.mark.parametrize("recordings", ["sample", "spacemouse", "human_teleop"])
def test_no_real_file_alone_looks_like_poses(request: pytest.FixtureRequest, recordings: str) -> None:
    episodes = read_recordings(SAMPLE if recordings == "sample" else request.getfixturevalue(recordings)).episodes
    for source in {one.source for one in episodes}:
        assert not looks_absolute([one.actions for one in episodes if one.source == source], LIBERO), source


def test_the_lattice_of_the_real_recordings(spacemouse: Path, human_teleop: Path, sample: list[Episode]) -> None:
    def lattice(data: Path | str) -> str | None:
        actions = np.concatenate([one.actions for one in read_recordings(data).episodes])
        return lattice_of(actions, LIBERO)

    assert lattice("sample") == "LIBERO's SpaceMouse"
    assert lattice(spacemouse) == "a SpaceMouse with robosuite's first sensitivity"
    assert lattice(human_teleop) is None


def test_recordings_without_rotation_are_named(human_teleop: Path) -> None:
    [sentence] = about("rotation is exactly zero", said(human_teleop))
    assert "97%" in sentence
    assert "1 of 5 recordings (164740_" in sentence
    assert "safe_demo.hdf5" in sentence


def test_one_file_of_three_without_rotation_is_said(tmp_path: Path) -> None:
    for number in range(3):
        demos = {key: actions * ([1] * 3 + [number != 1] * 3 + [1]) for key, actions in walks(number).items()}
        write_libero(tmp_path / f"{number}.hdf5", demos)
    [sentence] = about("Your ", said(tmp_path))
    assert sentence.startswith("Your rotation is exactly zero in 100%")
    assert "of 1 of 3 recordings (1.hdf5)" in sentence


def test_where_every_file_is_without_position_none_is_singled_out(tmp_path: Path) -> None:
    [sentence] = about("Your ", said_of(tmp_path, scaled([0.0] * 3 + [1.0] * 4)))
    assert sentence.startswith("Your position is exactly zero in 100%")
    assert "recordings" not in sentence


def test_dimensions_that_never_move_are_named(tmp_path: Path) -> None:
    demos = {key: actions * [1, 0, 1, 1, 1, 0, 1] + [0, 0.2, 0, 0, 0, 0, 0] for key, actions in walks(0).items()}
    assert about("never move", said_of(tmp_path, demos)) == ["These dimensions never move: y, yaw."]


def record_at(path: Path, rate: float) -> None:
    with h5py.File(path, "r+") as file:
        file["data"].attrs["env_args"] = json.dumps({"env_kwargs": {"control_freq": rate}})


@pytest.mark.parametrize(
    ("rates", "sentence"),
    [
        ((20, 20), None),
        ((10, 10), "Recorded at 10 steps a second; LIBERO's controller runs at 20."),
        ((20, 12.5), "Recorded at different rates, 12.5, 20 Hz: a delta means different speeds."),
    ],
)
def test_control_rates_are_said(tiny_data: Path, rates: tuple[float, float], sentence: str | None) -> None:
    for path, rate in zip(sorted(tiny_data.iterdir()), rates, strict=True):
        record_at(path, rate)
    assert about("Recorded at", said(tiny_data)) == ([sentence] if sentence else [])


@pytest.mark.parametrize("layout", ["joint:7", "joint:6 gripper:1"])
def test_of_other_layouts_nothing_is_said_that_holds_for_liberos_alone(tmp_path: Path, layout: str) -> None:
    found = said_of(tmp_path, scaled([2.0] * 6 + [1.0]), layout=layout)
    assert_plain(found)
    for word in ("lattice", "SpaceMouse", "published", " mm", "metres", "poses", "normalised", "nearest"):
        assert not about(word, found), word


def test_of_recordings_at_rest_all_sentences_are_whole(tmp_path: Path) -> None:
    at_rest = {f"demo_{i}": np.zeros((30 + i, 7)) for i in range(6)}
    for layout in ("libero", "joint:7", "joint:6 gripper:1"):
        assert_plain(said_of(tmp_path, at_rest, layout=layout))


# LIBERO's published statistics


def with_published(suite: str) -> Array:
    """Two steps with a suite's mean and std."""
    entry = published_statistics()[suite]
    mean, std = np.array(entry["mean"]), np.array(entry["std"])
    return np.stack([mean - std, mean + std])


def test_data_with_the_published_mean_and_std_have_no_distance() -> None:
    found = distance(with_published(ALL_SUITES))
    np.testing.assert_allclose(found["std_ratio"], np.ones(6), rtol=0, atol=1e-12)
    np.testing.assert_allclose(found["mean_shift"], np.zeros(6), rtol=0, atol=1e-12)
    assert found["outside"] == [0.0] * 6


@pytest.mark.parametrize("suite", SUITES)
def test_the_nearest_suite_of_a_suites_own_spread_is_that_suite(suite: str) -> None:
    assert distance(with_published(suite))["nearest_suite"] == suite


def test_distance_by_hand() -> None:
    entry = published_statistics()[ALL_SUITES]
    actions = with_published(ALL_SUITES).repeat(5, axis=0)
    actions[:, 0] = entry["mean"][0] + 3 * (actions[:, 0] - entry["mean"][0])
    actions[:, 1] += 2 * entry["std"][1]
    actions[0, 2] = entry["q99"][2] + 0.01
    actions[1, 2] = entry["q01"][2] - 0.01
    actions[2, 2] = entry["q99"][2]
    found = distance(actions)
    assert found["std_ratio"][:2] == pytest.approx([3.0, 1.0])
    assert found["mean_shift"][:2] == pytest.approx([0.0, 2.0])
    assert found["outside"][2:] == pytest.approx([0.2, 0.0, 0.0, 0.0])


def spread_like(factor: float, shift: float = 0.0) -> Demos:
    """Normal values with the published mean and std, times a factor, and shifted by so many std."""
    entry = published_statistics()[ALL_SUITES]
    mean, std = np.array(entry["mean"][:6]), np.array(entry["std"][:6])
    demos = walks(0, count=8)
    rng = np.random.default_rng(0)
    for actions in demos.values():
        actions[:, :6] = mean + shift * std + factor * std * rng.normal(size=(len(actions), 6))
    return demos


def test_recordings_near_libero_are_said_to_be(tmp_path: Path) -> None:
    found = said_of(tmp_path, spread_like(1.0))
    assert about("within a factor of 2", found)
    assert not about("shifted", found)
    assert not about("Std against", found)


@pytest.mark.parametrize(("factor", "outside"), [(0.1, False), (6.0, True)])
def test_another_spread_than_liberos_is_said(tmp_path: Path, factor: float, outside: bool) -> None:
    found = said_of(tmp_path, spread_like(factor))
    [sentence] = about("Std against", found)
    assert all(f"{name} " in sentence for name in ("roll", "pitch", "yaw"))
    assert bool(about("1 % to 99 % range", found)) == outside


def test_shifted_means_are_said_with_their_sign(tmp_path: Path) -> None:
    [sentence] = about("shifted", said_of(tmp_path, spread_like(0.5, shift=-1.0)))
    assert all(f"{name} by -" in sentence for name in LIBERO.names[:6])


def test_other_layouts_are_not_held_against_libero(tmp_path: Path) -> None:
    arms = {key: np.column_stack([actions, actions]) for key, actions in spread_like(6.0).items()}
    card = describe(prepare_dataset(write_libero(tmp_path / "a.hdf5", arms), DataConfig(layout=TWO_ARMS.spec)))
    assert card["published"] is None
    assert not about("published", remarks(card))


# Card and parameters


@pytest.mark.parametrize("layout", ["libero", "joint:7", "joint:3 position:3 gripper:1"])
def test_a_card_in_a_file_gives_the_same_remarks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str) -> None:
    monkeypatch.delenv("WORKBOOK_PREFIX", raising=False)
    out = OutputFolder.at(str(tmp_path / "out"))
    demos = scaled([1.0, 0.0, 1.0, 2.0, 2.0, 2.0, 1.0]) | {"demo_9": walks(0)["demo_0"] * [1, 0, 1, 2, 2, 2, 1]}
    card = describe(prepare_dataset(write_libero(tmp_path / "a.hdf5", demos), DataConfig(layout=layout)))
    json.dumps(card)
    write_stage(out, "data", {"layout": layout}, card)
    read = read_stage(out, "data")
    assert remarks(read) == remarks(card)
    assert read["layout"] == ActionLayout.parse(layout).spec
    assert len(read["copies"]) == 1
    assert list(read) == list(card)


def test_a_parameter_that_there_is_not_is_refused() -> None:
    with pytest.raises(TypeError, match="chunk_length"):
        DataConfig(chunk_length=8)
