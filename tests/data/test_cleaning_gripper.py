"""The gripper, however it was recorded: recognised, brought to -1 open and +1 close, and said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from made_up import GRIPPER, TWO_ARMS, Array, episode, walks
from reading import about, said, said_of
from writers import write_libero

from workbook.common.errors import InputError
from workbook.data.config import DataConfig
from workbook.data.dataset import prepare_dataset
from workbook.data.episodes import Episode
from workbook.data.grippers import unify_grippers
from workbook.data.layout import LIBERO, ActionLayout
from workbook.report.text.data import gripper as said_of_gripper

HYPOTHESIS = settings(deadline=None, max_examples=60)
KEPT = "low of -1 and 1 is open"
# From -1 open, +1 close to what recordings have.
ENCODINGS: dict[str, Callable[[Array], Array]] = {
    KEPT: lambda gripper: gripper,
    "low of 0 and 1 is open": lambda gripper: (gripper + 1) / 2,
    "high of 0 and 1 is open": lambda gripper: (1 - gripper) / 2,  # OpenVLA's
    "high of -1 and 1 is open": lambda gripper: -gripper,
}


def gripping(*commands: Sequence[float]) -> list[Episode]:
    """Episodes with these gripper commands and no motion."""
    return gripping_in("a.hdf5", *commands)


def gripping_in(source: str, *commands: Sequence[float]) -> list[Episode]:
    return [
        episode(np.column_stack([np.zeros((len(one), 6)), one]), source=source, key=f"demo_{number}")
        for number, one in enumerate(commands)
    ]


def commands(episodes: Sequence[Episode], dimension: int = GRIPPER) -> list[float]:
    return np.concatenate([one.actions[:, dimension] for one in episodes]).tolist()


def encoded(actions: Array, encode: Callable[[Array], Array], dimension: int = GRIPPER) -> Array:
    changed = actions.copy()
    changed[:, dimension] = encode(actions[:, dimension])
    return changed


# Encodings


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


# Which end is open


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
    assert (reading.open_end, reading.starts_high, reading.episodes) == (None, 1.0, 3)
    assert commands(read) == [1.0, -1.0] * 3


def test_that_so_few_episodes_tell_nothing_is_said() -> None:
    for count, why in ((3, "too few episodes"), (4, "50% of the episodes begin at the high end")):
        recorded = gripping(*([float(number % 2), 1.0, 0.0] for number in range(count)))
        _, [reading] = unify_grippers(recorded, LIBERO)
        assert said_of_gripper(asdict(reading)) == (
            f"The gripper was recorded as {{0, 1}}; {why}, which does not tell; the low end is taken as open "
            "(--gripper-open high, if that is wrong). It was converted to -1 open, +1 close, which is what the "
            "codec takes and gives back."
        )


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
    assert "(--gripper-open high, if that is wrong)" in sentence


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


# What is no switch


def test_a_continuous_gripper_is_not_converted_and_that_is_said(tmp_path: Path) -> None:
    demos = {key: encoded(actions, lambda g: g * np.linspace(0.2, 1, len(g))) for key, actions in walks(0).items()}
    path = write_libero(tmp_path / "a.hdf5", demos)
    prepared = prepare_dataset(path)
    for read, actions in zip(prepared.dataset.episodes, demos.values(), strict=True):
        assert read.actions.tobytes() == actions.tobytes()
    assert not prepared.changes.grippers[0].switch
    least = min(commands(prepared.dataset.episodes))
    unconverted = (
        f"The gripper lies between {least:.3g} and 1 and is no switch between -1 and 1 or 0 and 1. It is not "
        "converted, and which end is open is not known"
    )
    assert about("gripper lies between", said(path)) == [f"{unconverted}."]
    assert about("gripper lies between", said(path, gripper_open="low")) == [
        f"{unconverted}. --gripper-open does not apply."
    ]


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
def test_a_gripper_of_two_other_values_is_no_switch(tmp_path: Path, values: tuple[float, float]) -> None:
    demos = {key: encoded(actions, lambda g: np.where(g < 0, *values)) for key, actions in walks(0).items()}
    [sentence] = about("The gripper", said_of(tmp_path, demos))
    assert f"lies between {values[0]:.3g} and {values[1]:.3g} and is no switch" in sentence


def test_a_gripper_of_three_values_is_accepted_and_that_is_said(tmp_path: Path) -> None:
    """-1, 0 and 1: episode for episode they look like switches between different values."""
    demos = walks(0, count=12)
    for number, actions in enumerate(demos.values()):
        low, high = ((-1, 0), (0, 1), (-1, 1))[number % 3]
        actions[:, GRIPPER] = np.where(np.arange(len(actions)) < 9, low, high)
    path = write_libero(tmp_path / "a.hdf5", demos)
    prepared = prepare_dataset(path)
    assert len(prepared.dataset.episodes) == 12
    for read, actions in zip(prepared.dataset.episodes, demos.values(), strict=True):
        assert read.actions.tobytes() == actions.tobytes()
    assert about("The gripper", said(path)) == [
        "The gripper lies between -1 and 1 and is no switch between -1 and 1 or 0 and 1. It is not converted, and "
        "which end is open is not known."
    ]


@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize("off", [-8e-6, 8e-6])
def test_what_is_nearly_at_an_end_is_put_there(name: str, off: float) -> None:
    demos = [[-1.0, 1.0, 1.0, -1.0]] * 6
    recorded = gripping(*(ENCODINGS[name](np.array(demo)) for demo in demos))
    for number, one in enumerate(recorded):
        one.actions[number % 3, GRIPPER] += off
    read, [reading] = unify_grippers(recorded, LIBERO)
    assert reading.switch
    assert (reading.low, reading.high) == ((0.0, 1.0) if " 0 " in name else (-1.0, 1.0))
    assert commands(read) == [-1.0, 1.0, 1.0, -1.0] * 6


@pytest.mark.parametrize("low", [0.0, -1.0])
def test_what_is_not_nearly_at_an_end_makes_it_no_switch(low: float) -> None:
    recorded = gripping(*[[low, 1.0 + 3e-3]] * 6)
    read, [reading] = unify_grippers(recorded, LIBERO)
    assert not reading.switch
    assert commands(read) == commands(recorded)


# Files that differ


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
    unsigned = gripping_in("b.hdf5", *[[0.0, 1.0]] * 4)
    with pytest.raises(InputError, match=r"^b\.hdf5, demo_0: gripper .* in a\.hdf5, demo_0; convert"):
        unify_grippers([*gripping(*[[-1.0, 1.0]] * 4), *unsigned], LIBERO, given_end)


def test_a_file_that_never_switches_tells_no_range_and_leaves_the_gripper_unconverted() -> None:
    recorded = [*gripping(*[[-1.0, -1.0]] * 4), *gripping_in("b.hdf5", *[[0.0, 1.0]] * 4)]
    read, [reading] = unify_grippers(recorded, LIBERO)
    assert not reading.switch
    assert commands(read) == commands(recorded)


def test_ranges_are_told_by_files_and_not_by_episodes() -> None:
    """In each of these files one episode has 0 and 1 alone, and another -1 and 1."""
    three = [[0.0, 1.0], [-1.0, 1.0], [-1.0, 0.0, 1.0]]
    recorded = [*gripping(*three), *gripping_in("b.hdf5", *three)]
    read, [reading] = unify_grippers(recorded, LIBERO)
    assert not reading.switch
    assert commands(read) == commands(recorded)


def opposite_files(folder: Path) -> Path:
    """Two files of which one begins with -1 and the other with 1."""
    write_libero(folder / "one.hdf5", walks(0))
    inverted = {key: encoded(actions, np.negative) for key, actions in walks(1).items()}
    write_libero(folder / "two.hdf5", inverted)
    return folder


def test_files_of_opposite_direction_are_refused_with_both_places(tmp_path: Path) -> None:
    with pytest.raises(InputError) as raised:
        prepare_dataset(opposite_files(tmp_path))
    assert str(raised.value) == (
        "two.hdf5, demo_0: gripper begins at the high end, and at the low end in one.hdf5, demo_0; convert one of "
        "them, or say with --gripper-open which end is open in both"
    )


@pytest.mark.parametrize(("given_end", "sign"), [("low", 1), ("high", -1)])
def test_files_of_opposite_direction_are_read_as_the_user_says(tmp_path: Path, given_end: str, sign: int) -> None:
    prepared = prepare_dataset(opposite_files(tmp_path), DataConfig(gripper_open=given_end))
    [reading] = prepared.changes.grippers
    assert (reading.open_end, reading.given, reading.starts_high, reading.episodes) == (given_end, True, 0.5, 12)
    recorded = [actions[:, GRIPPER] for actions in walks(0).values()]
    recorded += [-actions[:, GRIPPER] for actions in walks(1).values()]
    assert commands(prepared.dataset.episodes) == (sign * np.concatenate(recorded)).tolist()


@pytest.mark.parametrize("second", [[[1.0, 0.0]] * 3, [[1.0, 0.0], [0.0, 1.0]] * 2], ids=["three episodes", "either"])
def test_a_file_that_does_not_clearly_begin_at_the_other_end_is_accepted(second: list[list[float]]) -> None:
    recorded = [*gripping(*[[0.0, 1.0]] * 40), *gripping_in("b.hdf5", *second)]
    read, [reading] = unify_grippers(recorded, LIBERO)
    assert reading.open_end == "low"
    assert commands(read) == [2 * command - 1 for command in commands(recorded)]


def test_a_gripper_that_is_no_switch_may_begin_anywhere() -> None:
    recorded = [*gripping(*[[0.0, 0.5, 1.0]] * 4), *gripping_in("b.hdf5", *[[1.0, 0.5, 0.0]] * 4)]
    assert commands(unify_grippers(recorded, LIBERO)[0]) == commands(recorded)


def test_files_in_which_the_gripper_never_switches_are_no_mixture() -> None:
    closed = gripping_in("b.hdf5", *[[1.0, 1.0]] * 2)
    read, [reading] = unify_grippers([*gripping(*[[0.0, 1.0]] * 8), *closed], LIBERO)
    assert reading.switch
    assert commands(read) == [-1.0, 1.0] * 8 + [1.0] * 4


# Several grippers, and none


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


@pytest.mark.parametrize("stray", [1.7, 0.4, -3.0])
def test_a_stray_value_among_many_leaves_it_a_switch(stray: float) -> None:
    recorded = gripping(*[[1.0] * 50 + [-1.0] * 50] * 4, [1.0] * 50 + [stray] + [-1.0] * 49)
    read, [reading] = unify_grippers(recorded, LIBERO)
    assert (reading.switch, reading.low, reading.high, reading.open_end) == (True, -1.0, 1.0, "high")
    assert commands(read[:1]) == [-1.0] * 50 + [1.0] * 50
    assert read[4].actions[50, GRIPPER] == -stray
