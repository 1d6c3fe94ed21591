"""Grippers in units of their own, per cent, metres or ticks: kept as recorded, never clipped, and never a switch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from made_up import GRIPPER, Array, episode, walks
from reading import about, card_of, said, said_of
from writers import write_lerobot_v2, write_libero

from workbook.common.paths import OutputFolder
from workbook.data.chunks import Normaliser
from workbook.data.config import DataConfig
from workbook.data.dataset import Prepared, load_dataset, prepare_dataset, save_dataset
from workbook.data.grippers import find_openings, unify_grippers
from workbook.data.layout import LIBERO, ActionLayout
from workbook.evaluation.metrics import episode_metrics

HYPOTHESIS = settings(deadline=None, max_examples=60)
SO101 = "joint:5 gripper:1"
# Of an opening from 0 to 1.
UNITS: dict[str, Callable[[Array], Array]] = {
    "a third of per cent": lambda opening: 33 * opening,
    "per cent": lambda opening: 100 * opening,
    "metres": lambda opening: 0.08 * opening,
    "ticks": lambda opening: np.rint(2000 + 1000 * opening),
    "radians": lambda opening: 1.92 * opening - 0.17,
    "a share": lambda opening: opening,
}


def so101(units: Callable[[Array], Array], count: int = 12) -> list[Array]:
    """Five joints within 90 and a gripper that opens and closes smoothly."""
    rng = np.random.default_rng(1)
    time = np.arange(120)[:, None]
    waves = [np.sin(time * rng.uniform(0.03, 0.1, 6) + rng.uniform(0, 6, 6)) for _ in range(count)]
    return [np.column_stack([90 * wave[:, :5], units((1 + wave[:, 5]) / 2)]).astype(np.float32) for wave in waves]


def prepared_so101(folder: Path, units: str) -> Prepared:
    path = write_lerobot_v2(folder, [("pick up the cube", actions) for actions in so101(UNITS[units])])
    return prepare_dataset(path, DataConfig(layout=SO101))


@pytest.mark.parametrize("units", UNITS)
def test_beside_joints_a_continuous_gripper_is_used_as_it_was_recorded(tmp_path: Path, units: str) -> None:
    prepared = prepared_so101(tmp_path / "data", units)
    dataset = prepared.dataset
    for read, written in zip(dataset.episodes, so101(UNITS[units]), strict=True):
        assert read.actions.tobytes() == written.astype(float).tobytes()
    assert dataset.layout.spec == "joint:5 opening:1"
    assert dataset.layout.names == ("joint 1", "joint 2", "joint 3", "joint 4", "joint 5", "gripper")
    assert np.isinf(dataset.layout.limit).all()
    [reading] = prepared.changes.grippers
    assert (reading.switch, reading.own_units, reading.changed) == (False, True, False)
    out = OutputFolder.at(str(tmp_path / "out"))
    save_dataset(dataset, out)
    assert load_dataset(out).layout == dataset.layout


def test_what_is_kept_in_its_own_units_is_said(tmp_path: Path) -> None:
    prepared_so101(tmp_path, "per cent")
    found = said(tmp_path, layout=SO101)
    [sentence] = about("gripper lies between", found)
    assert sentence.endswith("which end is open is not known. It keeps its own units and is never clipped.")
    assert about("was clipped", found) == ["Nothing was clipped: joints and grippers are in units of their own."]


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0)])
def test_beside_joints_a_switch_is_a_switch(tmp_path: Path, low: float, high: float) -> None:
    recorded = so101(lambda opening: np.where(opening < 0.5, low, high))
    path = write_lerobot_v2(tmp_path, [("pick", actions) for actions in recorded])
    dataset = prepare_dataset(path, DataConfig(layout=SO101, gripper_open="low")).dataset
    assert dataset.layout.spec == SO101
    values = np.concatenate([one.actions[:, 5] for one in dataset.episodes])
    np.testing.assert_array_equal(values, np.where(np.concatenate(recorded)[:, 5] == high, 1.0, -1.0))


@pytest.mark.parametrize("closed", [100.0, 255.0, 0.08])
def test_beside_joints_two_other_values_keep_their_units(closed: float) -> None:
    """The 0.08 m of a hand that is open or not, too."""
    recorded = [episode(actions) for actions in so101(lambda opening: np.where(opening < 0.5, 0.0, closed))]
    layout = find_openings(recorded, ActionLayout.parse(SO101))
    assert layout.spec == "joint:5 opening:1"
    assert unify_grippers(recorded, layout)[0] is recorded


def test_of_two_hands_each_is_what_it_is() -> None:
    actions = np.column_stack([so101(UNITS["per cent"])[0], so101(lambda o: np.sign(o - 0.5))[0]])
    layout = ActionLayout.parse(f"{SO101} {SO101}")
    assert find_openings([episode(actions)], layout).spec == "joint:5 opening:1 joint:5 gripper:1"
    grouped = ActionLayout.parse("joint:5 gripper:2")
    assert find_openings([episode(actions[:, [0, 1, 2, 3, 4, 11, 5]])], grouped).spec == "joint:5 gripper:1 opening:1"


def gripping(values: Array) -> list[Array]:
    """Episodes in LIBERO's layout with these commands, cut in four."""
    motion = np.cumsum(np.random.default_rng(0).normal(0, 0.02, (len(values), 6)), axis=0)
    return np.array_split(np.column_stack([motion, values]), 4)


OPENING = (1 + np.sin(np.arange(400) / 15)) / 2
SWITCH = np.where(OPENING < 0.5, 0.0, 1.0)


@pytest.mark.parametrize(
    ("values", "spec"),
    [
        (2 * OPENING - 1, LIBERO.spec),  # the controller's own range
        (0.08 * OPENING, LIBERO.spec),
        (1.02 * OPENING, "position:3 rotation:3 opening:1"),
        (100 * OPENING, "position:3 rotation:3 opening:1"),
        (np.where(np.arange(400) % 100 == 7, 1.7, OPENING), LIBERO.spec),  # strays, which the controller clips
        (255 * SWITCH, LIBERO.spec),  # two values are no continuous signal
        (3 * np.sign(2 * OPENING - 1), LIBERO.spec),
        (3.0 * (np.arange(400) // 50 % 3 - 1), LIBERO.spec),
    ],
    ids=["own", "metres", "slightly beyond", "per cent", "strays", "255", "3", "three values"],
)
def test_beside_deltas_the_controllers_clip_holds_but_for_a_signal_beyond_it(values: Array, spec: str) -> None:
    assert find_openings([episode(actions) for actions in gripping(values)], LIBERO).spec == spec


@pytest.mark.parametrize("layout", [LIBERO.spec, "joint:6 gripper:1"])
@pytest.mark.parametrize("stray", [1.7, 40.0, -1.7])
def test_strays_do_not_keep_a_switch_from_being_one(tmp_path: Path, layout: str, stray: float) -> None:
    """Three per cent of them; a switch has one per cent of other values at most."""
    demos = walks(0, count=8)
    for actions in demos.values():
        strayed = np.arange(len(actions)) % 34 == 3 + 2 * (stray > 0)
        actions[:, GRIPPER] = np.where(strayed & (actions[:, GRIPPER] * stray > 0), stray, actions[:, GRIPPER])
    path = write_libero(tmp_path / "a.hdf5", demos)
    prepared = prepare_dataset(path, DataConfig(layout=layout))
    [reading] = prepared.changes.grippers
    assert (reading.switch, reading.low, reading.high) == (True, -1.0, 1.0)
    assert prepared.dataset.layout.spec == layout
    for read, plain in zip(prepared.dataset.episodes, walks(0, count=8).values(), strict=True):
        np.testing.assert_array_equal(read.actions[:, GRIPPER], plain[:, GRIPPER])
    assert prepared.changes.clipping.steps[GRIPPER] > 0


@pytest.mark.parametrize(("value", "own_units"), [(50.0, True), (1.0, False), (0.0, False)])
def test_a_gripper_that_never_moves_keeps_its_value(tmp_path: Path, value: float, own_units: bool) -> None:
    demos = {key: np.append(a[:, :6], np.full((len(a), 1), value), axis=1) for key, a in walks(0).items()}
    prepared = prepare_dataset(write_libero(tmp_path / "a.hdf5", demos), DataConfig(layout="joint:6 gripper:1"))
    assert prepared.changes.grippers[0].own_units == own_units
    assert {float(value) for one in prepared.dataset.episodes for value in one.actions[:, GRIPPER]} == {value}
    assert about("never move", said_of(tmp_path, demos, layout="joint:6 gripper:1")) == [
        "These dimensions never move: gripper."
    ]


def test_a_layout_may_name_an_opening_itself(tmp_path: Path) -> None:
    """A width that is 0 or 1 all the same."""
    demos = {f"demo_{number}": actions for number, actions in enumerate(so101(np.round))}
    prepared = prepare_dataset(write_libero(tmp_path / "a.hdf5", demos), DataConfig(layout="joint:5 opening:1"))
    assert set(np.concatenate([one.actions[:, 5] for one in prepared.dataset.episodes])) == {0.0, 1.0}
    assert card_of(prepared).data["grippers"][0]["own_units"]


@HYPOTHESIS
@given(
    st.integers(0, 2**32), st.floats(-1e4, 1e4), st.floats(1e-3, 1e4),
    st.sampled_from([SO101, "gripper:6", "joint:3 gripper:3"]),
)  # fmt: skip
def test_beside_joints_no_continuous_value_is_ever_changed(seed: int, least: float, width: float, spec: str) -> None:
    values = least + width * np.random.default_rng(seed).random((40, 6))
    recorded = [episode(values)]
    layout = find_openings(recorded, ActionLayout.parse(spec))
    assert np.isinf(layout.limit).all()
    assert unify_grippers(recorded, layout)[0] is recorded


def test_an_opening_has_an_error_in_its_units_and_no_sides() -> None:
    """Off by 20 per cent in one of four steps; never clipped; not on a wrong side, and no switch off its step."""
    original = np.array([[0.0, 10.0], [0.0, 90.0], [0.0, 10.0], [0.0, 90.0]])
    decoded = original + np.array([[0, 0], [0, 20.0], [0, 0], [0, 0]])
    normaliser = Normaliser(np.array([-1.0, 0.0]), np.array([1.0, 100.0]))
    found = episode_metrics([original], [decoded], ActionLayout.parse("joint:1 opening:1"), normaliser, np.ones(2))
    assert found.gripper_abs.tolist() == [5.0]
    assert found.mse_gripper.tolist() == [pytest.approx(0.4**2 / 4)]
    for metric in ("gripper_error_rate", "gripper_on_time", "gripper_shift_steps", "switch_drift_mm"):
        assert found[metric].isna().all(), metric
    assert found.switches.tolist() == [0.0]
