"""Names of the numbers of an action: what each says, which layout they mean, and when they contradict one."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from workbook.common.errors import InputError
from workbook.data.layout import LIBERO, ActionLayout
from workbook.data.names import check_names, kind_of, layout_of

ALOHA = ["waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate", "gripper"]
SO100 = ["shoulder_pan.pos", "shoulder_lift.pos", "elbow_flex.pos", "wrist_flex.pos", "wrist_roll.pos", "gripper.pos"]
POSE = ["x", "y", "z", "roll", "pitch", "yaw"]
MEANT = {
    "joint": "joint_1 joint1.pos joint-0.vel j3 left_waist main_shoulder_pan wrist_roll forearm_roll RightElbow "
    "panda_joint7 shoulderPan wrist_yaw_joint",
    "position": "x delta_x dx ee_x eef.x pos_y position_z ee_pos_x left_z world_x d_x EEF_X tcp_y target_x x_0 px",
    "rotation": "roll yaw delta_pitch droll rx eef_rx axis_angle1 axis_angle_3 rot_x ori_z left_yaw euler_x rotvec_y",
    "gripper": "gripper gripper.pos gripper_open left_gripper gripperPosition jaw_1 gripper_joint",
}
IN_DOUBT = (
    "motor_0 motor_6 actions_0 rail.pos q1 qx quat_x ee_quat_w base_x x.vel theta.vel head_yaw camera_x hand_x wrist_x "
    "gripper_x gripper_roll rot6d_0 rotation_0 finger_1 dim_0 0 a vx w theta"
)


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for kind, names in MEANT.items() for name in names.split()])
def test_a_name_says_its_kind(name: str, kind: str) -> None:
    assert kind_of(name) == kind


@pytest.mark.parametrize("name", ["", " ", "打开", *IN_DOUBT.split()])
def test_a_doubtful_name_says_nothing(name: str) -> None:
    assert kind_of(name) is None


LAYOUTS = [
    ([*POSE, "gripper"], "position:3 rotation:3 gripper:1"),
    (["gripper", *POSE], "gripper:1 position:3 rotation:3"),
    ([*(f"joint_{n}.vel" for n in range(6)), "gripper"], "joint:6 gripper:1"),
    (["gripper", *(f"joint_{n}" for n in range(6))], "gripper:1 joint:6"),
    (ALOHA, "joint:6 gripper:1"),
    ([f"{side}_{name}" for side in ("left", "right") for name in ALOHA], "joint:6 gripper:1 joint:6 gripper:1"),
    (SO100, "joint:5 gripper:1"),
    (["x", "y", "yaw"], "position:2 rotation:1"),
    (["roll", "pitch"], "joint:2"),
    ([f"{side}_{axis}" for side in ("l", "r") for axis in "xyz"], "position:3 position:3"),
    ([*"xyz", "rx", "ry", "rz", "unknown"], "position:3 rotation:3 joint:1"),
]


@pytest.mark.parametrize(("names", "layout"), LAYOUTS)
def test_names_mean_a_layout_that_can_be_given(names: list[str], layout: str) -> None:
    assert layout_of(names) == layout == ActionLayout.parse(layout).spec
    check_names(names, ActionLayout.parse(layout), "a")


@pytest.mark.parametrize(
    ("names", "layout", "meant"),
    [
        ([*(f"joint_{n}" for n in range(6)), "gripper"], "libero", "joint:6 gripper:1"),
        (["gripper", *POSE], "libero", "gripper:1 position:3 rotation:3"),
        (["gripper", *(f"joint_{n}" for n in range(6))], "joint:6 gripper:1", "gripper:1 joint:6"),
        ([*POSE[3:], *POSE[:3], "gripper"], "libero", "rotation:3 position:3 gripper:1"),
        ([f"{side}_{name}" for side in "lr" for name in ALOHA], "libero", "joint:6 gripper:1 joint:6 gripper:1"),
        (SO100, "libero", "joint:5 gripper:1"),
        (["motor_0"] * 3 + ["wrist_roll"] + ["motor_0"] * 2 + ["gripper"], "libero", "joint:6 gripper:1"),
    ],
)  # fmt: skip
def test_a_contradiction_is_refused_with_the_layout_to_give(names: list[str], layout: str, meant: str) -> None:
    with pytest.raises(InputError) as raised:
        check_names(names, ActionLayout.parse(layout), "the_set")
    assert str(raised.value).startswith("the_set: names the numbers of an action ")
    assert str(raised.value).endswith(f"; give --layout '{meant}'")
    check_names(names, ActionLayout.parse(meant), "the_set")


@pytest.mark.parametrize(
    "names", [[], IN_DOUBT.split()[:7], [f"actions_{n}" for n in range(7)], [*POSE, "gripper"], ["motor_0"] * 14]
)
def test_names_that_agree_or_leave_a_doubt_pass(names: list[str]) -> None:
    check_names(names, LIBERO, "a")


@pytest.mark.parametrize("names", [names for names, _ in LAYOUTS])
def test_joints_may_be_called_anything(names: list[str]) -> None:
    """Poses are read as joints where they are not to be clipped."""
    check_names(names, ActionLayout.parse(f"joint:{len(names)}"), "a")


@given(
    st.lists(
        st.sampled_from([name for names in MEANT.values() for name in names.split()] + IN_DOUBT.split()), min_size=1
    )
)
def test_the_layout_that_names_mean_never_contradicts_them(names: list[str]) -> None:
    meant = ActionLayout.parse(layout_of(names))
    assert meant.dim == len(names)
    check_names(names, meant, "a")
