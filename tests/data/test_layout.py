"""What the numbers of an action are: layouts, their errors by hand, and recordings of another width."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from made_up import TWO_ARMS, Array
from writers import write_libero

from workbook.common.errors import InputError
from workbook.data.chunks import Normaliser
from workbook.data.config import DataConfig
from workbook.data.dataset import prepare_dataset
from workbook.data.layout import KINDS, LIBERO, LIBERO_NAME, LIBERO_SPEC, SIZES, ActionLayout, Kind
from workbook.evaluation.metrics import episode_metrics

HYPOTHESIS = settings(deadline=None, max_examples=60)
TWO_JOINT_ARMS = "joint:6 gripper:1 joint:6 gripper:1"
JOINTS = "joint:6"
SPACE = {"position_mm", "rotation_deg", "drift_mm", "drift_deg", "peak_drift_mm", "switch_drift_mm"}
HALF_RADIAN_IN_DEGREES = 28.64788975654116


# Parsing


def test_libero_is_a_name_for_its_spec() -> None:
    assert ActionLayout.parse(LIBERO_NAME) == ActionLayout.parse("position:3 rotation:3 gripper:1") == LIBERO
    assert LIBERO.spec == "position:3 rotation:3 gripper:1"
    assert LIBERO.is_libero
    assert not ActionLayout.parse("joint:7").is_libero
    assert not TWO_ARMS.is_libero


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        ("libero", "x y z roll pitch yaw gripper"),
        ("position:2 rotation:1", "x y yaw"),
        ("position:1 gripper:1", "x gripper"),
        ("joint:1", "joint"),
    ],
)
def test_names_of_one_arm_have_no_number(spec: str, names: str) -> None:
    assert ActionLayout.parse(spec).names == tuple(names.split())


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        ("joint:3 gripper:1", ["joint 1", "joint 2", "joint 3", "gripper"]),
        ("gripper:2", ["gripper 1", "gripper 2"]),
        ("joint:2 gripper:1 joint:2 gripper:1", ["joint 1", "joint 2", "gripper 1", "joint 3", "joint 4", "gripper 2"]),
        ("position:1 rotation:3 rotation:1", ["x", "roll", "pitch", "yaw 1", "yaw 2"]),
        (
            TWO_ARMS.spec,
            [f"{name} {arm}" for arm in (1, 2) for name in ("x", "y", "z", "roll", "pitch", "yaw", "gripper")],
        ),
    ],
)
def test_names_that_come_again_are_numbered(spec: str, names: list[str]) -> None:
    assert ActionLayout.parse(spec).names == tuple(names)


def test_groups_indices_motion_and_limit_by_hand() -> None:
    layout = ActionLayout.parse("joint:2 position:1 gripper:1 rotation:3 position:2")
    assert layout.dim == 9
    assert [(group.kind, group.start, group.size) for group in layout.groups] == [
        ("joint", 0, 2), ("position", 2, 1), ("gripper", 3, 1), ("rotation", 4, 3), ("position", 7, 2),
    ]  # fmt: skip
    assert layout.of_kind("position") == [slice(2, 3), slice(7, 9)]
    assert layout.of_kind("joint", "rotation") == [slice(0, 2), slice(4, 7)]
    assert layout.indices("position").tolist() == [2, 7, 8]
    assert layout.indices("gripper").tolist() == [3]
    assert sorted(layout.motion.tolist()) == [0, 1, 2, 4, 5, 6, 7, 8]
    assert layout.limit.tolist() == [np.inf, np.inf, 1, 1, 1, 1, 1, 1, 1]


def test_a_kind_that_is_not_there_has_no_dimensions() -> None:
    layout = ActionLayout.parse(JOINTS)
    assert layout.of_kind("gripper") == []
    assert layout.indices("position", "gripper").tolist() == []
    assert layout.indices("gripper").dtype == np.int64


def a_group(kind: Kind) -> st.SearchStrategy[str]:
    sizes = st.sampled_from(SIZES[kind]) if kind in SIZES else st.integers(1, 30) | st.just(999)
    return sizes.map(lambda size: f"{kind}:{size}")


some_specs = st.lists(st.sampled_from(KINDS).flatmap(a_group), min_size=1, max_size=6)


@HYPOTHESIS
@given(some_specs, st.sampled_from([" ", "  ", "\t", " \n "]))
def test_a_layout_reads_its_own_spec(groups: list[str], between: str) -> None:
    layout = ActionLayout.parse(between.join(groups))
    assert layout.spec == " ".join(groups)
    assert ActionLayout.parse(layout.spec) == layout


@HYPOTHESIS
@given(some_specs)
def test_every_dimension_has_one_kind_and_a_name_of_its_own(groups: list[str]) -> None:
    layout = ActionLayout.parse(" ".join(groups))
    assert layout.dim == sum(int(group.split(":")[1]) for group in groups)
    assert len(set(layout.names)) == layout.dim
    by_kind = np.concatenate([layout.indices(kind) for kind in KINDS])
    assert sorted(by_kind.tolist()) == layout.indices(*KINDS).tolist() == list(range(layout.dim))
    assert sorted([*layout.motion, *layout.grippers]) == list(range(layout.dim))
    assert np.isinf(layout.limit).nonzero()[0].tolist() == sorted(layout.indices("joint", "opening").tolist())


@pytest.mark.parametrize(
    "spec",
    [
        "", "  ", "position", "position:", ":3", "position:0", "position:4", "position:03", "position:3.0",
        "rotation:2", "rotation:4", "elbow:3", "Position:3", "LIBERO", "libero gripper:1", "joint:-1", "joint:+1",
        "joint:1000", "joint:1e2", "joint:1\u00b2", "joint:\u0663", "joint:1\u0663", "joint:\uff11", "joint: 6",
        "joint:6,gripper:1", "joint:6 gripper",
    ],
)  # fmt: skip
def test_a_spec_that_cannot_be_is_refused_in_one_sentence(spec: str) -> None:
    with pytest.raises(InputError) as raised:
        ActionLayout.parse(spec)
    message = str(raised.value)
    assert message.startswith(f"layout '{' '.join(spec.split())}'")
    assert "\n" not in message
    assert not message.endswith(".")


def test_the_message_says_what_to_write() -> None:
    with pytest.raises(InputError, match=r"cannot read 'elbow:3'.*position, rotation, gripper, joint.*'libero'"):
        ActionLayout.parse("joint:3 elbow:3")
    with pytest.raises(InputError, match="position has 6 numbers, and may have 1 or 2 or 3; use joint:6"):
        ActionLayout.parse("position:6")


# Errors by hand


def unit(layout: ActionLayout) -> Normaliser:
    return Normaliser(np.full(layout.dim, -1.0), np.full(layout.dim, 1.0))


def measure(spec: str, original: Array, decoded: Array) -> dict[str, float]:
    layout = ActionLayout.parse(spec)
    return dict(episode_metrics([original], [decoded], layout, unit(layout), np.full(layout.dim, 0.25)).iloc[0])


def without_figure(metrics: dict[str, float]) -> set[str]:
    return {name for name, value in metrics.items() if np.isnan(value)}


def one_arm() -> tuple[Array, Array]:
    """Four steps of LIBERO's layout and their decoded ones, with errors in position, rotation and gripper."""
    original, decoded = np.zeros((4, 7)), np.zeros((4, 7))
    original[:, 6] = [-1, -1, 1, 1]
    decoded[:, :3] = [0.03, -0.04, 0.0]
    decoded[:, 4] = [0.2, -0.2, 0.2, 0.2]
    decoded[:, 6] = [-1.5, -1, -0.5, 1]  # beyond the range, right, closes a step late, right
    return original, decoded


def test_errors_of_liberos_layout_by_hand() -> None:
    found = measure(LIBERO_SPEC, *one_arm())
    assert found["position_mm"] == pytest.approx(0.05 * 50)
    assert found["rotation_deg"] == pytest.approx(0.2 * HALF_RADIAN_IN_DEGREES)
    assert found["drift_mm"] == pytest.approx(4 * 0.05 * 50)
    assert found["drift_deg"] == pytest.approx(2 * 0.2 * HALF_RADIAN_IN_DEGREES)
    assert found["gripper_abs"] == pytest.approx(1.5 / 4)  # what was played is clipped to -1
    assert found["gripper_error_rate"] == pytest.approx(1 / 4)
    assert (found["gripper_on_time"], found["gripper_shift_steps"]) == (0.0, 1.0)
    assert found["max_abs"] == pytest.approx(1.5)
    assert found["zeros_kept"] == pytest.approx((4 * 3) / (4 * 6))
    squares = 4 * (0.03**2 + 0.04**2 + 0.2**2) + 0.5**2 + 1.5**2  # of the decoder's output, not clipped
    assert found["mse"] == pytest.approx(squares / 28)
    assert found["relative_mse"] == pytest.approx(squares / 28 / 0.25)
    assert found["mse_y"] == pytest.approx(0.04**2)
    assert found["mse_gripper"] == pytest.approx((0.5**2 + 1.5**2) / 4)
    assert without_figure(found) == {"joint_length"}


def test_errors_of_two_arms_are_means_over_them() -> None:
    first_original, first_decoded = one_arm()
    second_original = np.zeros((4, 7))
    second_original[:, 6] = [-1, 1, 1, -1]
    second_decoded = second_original.copy()
    second_decoded[:, 2] = [0.1, -0.1, 0.1, -0.1]
    found = measure(
        TWO_ARMS.spec,
        np.column_stack([first_original, second_original]),
        np.column_stack([first_decoded, second_decoded]),
    )
    assert found["position_mm"] == pytest.approx((0.05 + 0.1) / 2 * 50)
    assert found["rotation_deg"] == pytest.approx(0.2 / 2 * HALF_RADIAN_IN_DEGREES)
    assert found["drift_mm"] == pytest.approx(4 * 0.05 / 2 * 50)
    assert found["drift_deg"] == pytest.approx(2 * 0.2 / 2 * HALF_RADIAN_IN_DEGREES)
    assert found["gripper_abs"] == pytest.approx(1.5 / 8)
    assert found["gripper_error_rate"] == pytest.approx(1 / 8)
    assert found["gripper_on_time"] == pytest.approx(2 / 3)  # one switch of the first arm, two of the second
    assert found["gripper_shift_steps"] == pytest.approx(1 / 3)
    assert found["switches"] == 3.0
    squares = 4 * (0.03**2 + 0.04**2 + 0.2**2) + 0.5**2 + 1.5**2 + 4 * 0.1**2
    assert found["mse"] == pytest.approx(squares / 56)
    assert (found["mse_z 1"], found["mse_z 2"]) == (0.0, pytest.approx(0.01))
    assert without_figure(found) == {"joint_length"}


def test_two_equal_arms_have_the_errors_of_one() -> None:
    one, two = (measure(spec, *one_or_two) for spec, one_or_two in (
        (LIBERO_SPEC, one_arm()), (TWO_ARMS.spec, [np.column_stack([part, part]) for part in one_arm()]),
    ))  # fmt: skip
    for name in (set(one) & set(two)) - {"switches", "zeros"}:
        assert two[name] == pytest.approx(one[name], nan_ok=True), name
    assert "position_mm" in set(one) & set(two)


def test_joints_have_a_length_in_their_own_units_and_are_not_clipped() -> None:
    original = np.full((5, 7), 2.0)
    original[:, 6] = [-1, -1, -1, 1, 1]
    decoded = original.copy()
    decoded[:, 0] += 3.0
    decoded[:, 5] -= 4.0
    decoded[:, 6] *= 1.5
    found = measure("joint:6 gripper:1", original, decoded)
    assert found["joint_length"] == pytest.approx(5.0)
    assert found["max_abs"] == pytest.approx(4.0)
    assert found["gripper_abs"] == 0.0
    assert found["gripper_on_time"] == 1.0
    assert found["mse_joint 1"] == pytest.approx(9.0)
    assert without_figure(found) == SPACE | {"zeros_kept"}


def test_joints_of_two_arms_have_a_mean_length() -> None:
    original = np.zeros((3, 4))
    decoded = np.array([[3.0, 4.0, 0.0, 1.0]] * 3)
    found = measure("joint:2 joint:2", original, decoded)
    assert found["joint_length"] == pytest.approx((5.0 + 1.0) / 2)
    assert "zeros_kept" in without_figure(found)


def test_zeros_of_position_and_rotation_count_and_those_of_joints_do_not() -> None:
    original = np.zeros((4, 4))
    decoded = np.array([[0.0, 0.1, 0.0, 0.3]] * 4)
    found = measure("position:1 joint:1 rotation:1 gripper:1", original, decoded)
    assert (found["zeros_kept"], found["zeros"]) == (1.0, 8.0)


def test_without_a_gripper_it_has_no_figure() -> None:
    found = measure(JOINTS, np.ones((4, 6)), np.zeros((4, 6)))
    gripper = {"gripper_abs", "gripper_error_rate", "gripper_on_time", "gripper_shift_steps"}
    assert without_figure(found) == gripper | SPACE | {"zeros_kept"}
    assert (found["joint_length"], found["mse"]) == pytest.approx((6**0.5, 1.0))


# Recordings of another width


def test_another_width_than_the_layouts_names_the_option(tmp_path: Path, tiny_data: Path) -> None:
    rng = np.random.default_rng(0)
    path = write_libero(tmp_path / "two_arms.hdf5", {f"demo_{i}": rng.normal(size=(30, 14)) for i in range(6)})
    with pytest.raises(InputError, match=r"two_arms\.hdf5, demo_0: .*\(30, 14\), expected \(steps, 7\).*--layout"):
        prepare_dataset(path)
    with pytest.raises(InputError, match=r"expected \(steps, 14\) for the layout 'joint:6 gripper:1 .*--layout"):
        prepare_dataset(tiny_data, DataConfig(layout=TWO_JOINT_ARMS))
    with pytest.raises(InputError, match="layout 'joint:x'"):
        prepare_dataset(path, DataConfig(layout="joint:x"))


def test_a_value_that_is_no_number_is_named_by_the_layouts_name(tmp_path: Path) -> None:
    demos = {f"demo_{i}": np.full((10, 14), float(i)) for i in range(6)}
    demos["demo_2"][4, 9] = np.nan
    path = write_libero(tmp_path / "a.hdf5", demos)
    with pytest.raises(InputError, match=r"a\.hdf5, demo_2, step 4, joint 9: the action is nan"):
        prepare_dataset(path, DataConfig(layout=TWO_JOINT_ARMS))
