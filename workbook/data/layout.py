"""What the numbers of an action are: groups of dimensions, with their names, units and range."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from workbook.common.errors import InputError

Kind = Literal["position", "rotation", "gripper", "joint", "opening"]
KINDS: tuple[Kind, ...] = get_args(Kind)
DELTAS: tuple[Kind, ...] = ("position", "rotation")  # motions from where the arm is
LIBERO_NAME = "libero"
LIBERO_SPEC = "position:3 rotation:3 gripper:1"
# OSC_POSE controller of LIBERO: what an action of 1.0 commands in one step.
POSITION_MM_PER_UNIT = 50.0
ROTATION_DEG_PER_UNIT = float(np.degrees(0.5))
CONTROLLER_LIMIT = 1.0  # to which it clips
UNCLIPPED: tuple[Kind, ...] = ("joint", "opening")  # these have units of their own
# How many numbers a group may have, where its physical unit asks for it: vectors, and one angle or an axis-angle.
SIZES: dict[Kind, tuple[int, ...]] = {"position": (1, 2, 3), "rotation": (1, 3)}
AXES: dict[Kind, tuple[str, ...]] = {"position": ("x", "y", "z"), "rotation": ("roll", "pitch", "yaw")}


@dataclass(frozen=True)
class Group:
    """Neighbouring dimensions of one kind: a position or rotation delta, a gripper command, joints.

    An opening is a gripper's, too, in units of its own: per cent, metres, ticks, radians.
    """

    kind: Kind
    start: int
    size: int

    @property
    def dimensions(self) -> slice:
        return slice(self.start, self.start + self.size)


@dataclass(frozen=True)
class ActionLayout:
    """The groups of an action, in order."""

    groups: tuple[Group, ...]

    @staticmethod
    def parse(spec: str) -> ActionLayout:
        """Read 'libero', which is 'position:3 rotation:3 gripper:1', or another such list of kind:size.

        Raises:
            InputError: an unknown kind, or a size that it cannot have.
        """
        spec = " ".join(spec.split())
        groups: list[Group] = []
        start = 0
        for word in (LIBERO_SPEC if spec == LIBERO_NAME else spec).split():
            found = re.fullmatch(r"([a-z]+):([1-9][0-9]{0,2})", word)
            if not found or found[1] not in KINDS:
                raise InputError(
                    f"layout '{spec}': cannot read '{word}'; write kind:size for each group, with kinds "
                    f"{', '.join(KINDS)}, for example '{LIBERO_SPEC}', or '{LIBERO_NAME}', which is the same"
                )
            kind: Kind = found[1]
            size = int(found[2])
            if size not in SIZES.get(kind, (size,)):
                allowed = " or ".join(map(str, SIZES[kind]))
                raise InputError(
                    f"layout '{spec}': {kind} has {size} numbers, and may have {allowed}; use joint:{size}"
                )
            groups.append(Group(kind, start, size))
            start += size
        if not groups:
            raise InputError(f"layout '{spec}' names no group; write for example '{LIBERO_SPEC}'")
        return ActionLayout(tuple(groups))

    @property
    def spec(self) -> str:
        return " ".join(f"{group.kind}:{group.size}" for group in self.groups)

    @property
    def is_libero(self) -> bool:
        return self.spec == LIBERO_SPEC

    @property
    def dim(self) -> int:
        return sum(group.size for group in self.groups)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """One name a dimension: x y z roll pitch yaw gripper; numbered where there are several arms."""
        names = [name for group in self.groups for name in _names(group)]
        return tuple(
            name if names.count(name) == 1 else f"{name} {names[: position + 1].count(name)}"
            for position, name in enumerate(names)
        )

    def of_kind(self, *kinds: Kind) -> list[slice]:
        """The dimensions of every group of these kinds."""
        return [group.dimensions for group in self.groups if group.kind in kinds]

    def indices(self, *kinds: Kind) -> NDArray[np.int64]:
        """Positions of all dimensions of these kinds."""
        everything = np.arange(self.dim)
        return np.concatenate([everything[:0], *(everything[part] for part in self.of_kind(*kinds))])

    @property
    def motion(self) -> NDArray[np.int64]:
        """Positions of all dimensions but the grippers'."""
        return self.indices("position", "rotation", "joint")

    @property
    def limit(self) -> NDArray[np.float64]:
        """(A,) the largest command that the controller takes; infinite for joints and openings."""
        limit = np.full(self.dim, CONTROLLER_LIMIT)
        limit[self.indices(*UNCLIPPED)] = np.inf
        return limit

    @property
    def grippers(self) -> NDArray[np.int64]:
        """Positions of all dimensions of grippers, openings included, in order."""
        return np.sort(self.indices("gripper", "opening"))

    def with_openings(self, dimensions: Collection[int]) -> ActionLayout:
        """The layout in which these grippers are openings."""
        groups: list[Group] = []
        for group in self.groups:
            at = range(self.dim)[group.dimensions]
            if set(at) & set(dimensions):
                groups += [Group("opening" if one in dimensions else group.kind, one, 1) for one in at]
            else:
                groups.append(group)
        return ActionLayout(tuple(groups))


def _names(group: Group) -> list[str]:
    if group.kind == "joint":
        return ["joint"] * group.size
    if group.kind == "rotation" and group.size == 1:
        return ["yaw"]
    axes = AXES.get(group.kind, ("gripper",) * group.size)  # an opening's name as well
    return list(axes[: group.size])


LIBERO = ActionLayout.parse(LIBERO_SPEC)
