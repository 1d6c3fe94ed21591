"""Whether the names that a data set gives to the numbers of an action contradict the layout."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby

from workbook.common.errors import InputError
from workbook.data.layout import SIZES, ActionLayout, Kind
from workbook.data.sources.files import one_line

# Words of SO-100, ALOHA, ViperX, Franka and others; wrist_roll and forearm_roll are joints, too. 'motor_0' is none:
# LeRobot's converters filled it in where nothing was known, for end-effector deltas as well.
JOINTS = frozenset(("joint", "joints", "waist", "shoulder", "elbow", "forearm", "wrist", "hip", "knee", "ankle"))
GRIPPERS = frozenset(("gripper", "grippers", "jaw", "claw"))
STRAIGHT = frozenset(("x", "y", "z", "dx", "dy", "dz", "px", "py", "pz", "tx", "ty", "tz"))
ROUND = frozenset(("roll", "pitch", "yaw", "droll", "dpitch", "dyaw", "rx", "ry", "rz", "drx", "dry", "drz"))
TURNING = frozenset(("rot", "rotation", "rotvec", "orientation", "ori", "axis", "angle", "angular", "euler", "rpy"))
# Beside an axis these leave no doubt; any other word does, such as in base_x, x.vel or quat_x.
PLAIN = frozenset((
    "delta", "d", "ee", "eef", "tcp", "end", "effector", "pos", "position", "pose", "trans", "translation", "target",
    "goal", "cmd", "command", "left", "right", "l", "r", "arm", "robot", "action", "actions", "cartesian", "rel",
    "relative", "abs", "absolute", "world",
))  # fmt: skip


def kind_of(name: str) -> Kind | None:
    """What a number is by its name; None where that leaves a doubt."""
    words = re.findall(r"[a-z]+|\d+", re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower())
    said, axes = set(words), [word for word in words if word in STRAIGHT | ROUND]
    numbered = any(word.isdigit() for word in words)
    if said & GRIPPERS:
        return None if axes else "gripper"
    if said & JOINTS or (numbered and words[0] == "j"):
        return None if said & STRAIGHT else "joint"
    if {word for word in said if not word.isdigit()} - (PLAIN | STRAIGHT | ROUND | TURNING):
        return None
    if len(axes) == 1:
        return "rotation" if axes[0] in ROUND or said & TURNING else "position"
    return "rotation" if not axes and numbered and {"axis", "angle"} <= said else None


def layout_of(names: Sequence[str]) -> str:
    """The layout that names say; what they leave open is called a joint, which is taken as it is."""
    groups: list[tuple[Kind, int]] = []
    for kind, members in groupby(names, key=lambda name: kind_of(name) or "joint"):
        size = len(list(members))
        largest = max(SIZES.get(kind, (size,)))
        for part in (*(largest,) * (size // largest), *filter(None, [size % largest])):
            allowed: Kind = kind if part in SIZES.get(kind, (part,)) else "joint"
            groups.append((allowed, part))
    return " ".join(f"{kind}:{size}" for kind, size in groups)


def check_names(names: Sequence[str], layout: ActionLayout, place: str) -> None:
    """Refuse names that contradict a layout. Joints may be called anything: they are taken as they are.

    names: one a number, or none; place: which file says them.

    Raises:
        InputError: says which layout the names mean.
    """
    known = [kind_of(name) for name in names]
    if not any(known):
        return
    taken: list[Kind] = [group.kind for group in layout.groups for _ in range(group.size)]
    if len(taken) == len(known):
        pairs = zip(names, known, taken, strict=True)
        wrong = next((pair for pair in pairs if pair[1] and pair[2] not in ("joint", pair[1])), None)
        if wrong is None:
            return
        problem = f"the layout '{layout.spec}' takes {one_line(wrong[0])} for {wrong[2]}"
    else:
        problem = f"the layout '{layout.spec}' has {len(taken)} numbers and not {len(known)}"
    raise InputError(
        f"{place}: names the numbers of an action {one_line(', '.join(names))}, and {problem}; "
        f"give --layout '{layout_of(names)}'"
    )
