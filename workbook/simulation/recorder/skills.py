"""What the scripted expert can do with its hand, as small skills that follow one another.

A skill is a generator: each step it looks at the scene and yields where the hand should be, until it is done. It knows
the true poses of the objects, which no policy does.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator

import numpy as np
from scipy.spatial.transform import Rotation

from workbook.common.array import Array
from workbook.simulation.recorder.controller import Style, Waypoint
from workbook.simulation.scene import Scene

Waypoints = Iterator[Waypoint]
Place = Callable[[], Array]  # where something is now: (3,)

# The hand's z axis is where the fingers point, its x axis the way in which they open.
DOWN = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
UP = np.array([0.0, 0.0, 1.0])
ASIDE = 0.012  # metres off the way at which the hand does not go on towards what it is to grasp
REACHED, REACHED_TURN = 0.04, 0.3  # metres along the way and radians: near enough to go on
AT_PLACE, AT_DEPTH = 0.008, 0.006
LONGEST_APPROACH, LONGEST_LOWERING, LONGEST_USE = 60, 50, 90  # steps, of skills that can get stuck
LIFTED, SLIPPED = 0.05, 0.04  # metres: so far up, an object this far from where it was in the hand was lost
HEIGHT_LEFT, CARRY_BELOW = 0.06, 0.03  # metres below the height of a lift at which carrying begins, and is done
RELEASE_ABOVE = 0.008
RETREAT, RETREAT_STEPS = 0.08, 12


class Skills:
    """Skills of one episode; the rng is the one that all else in the episode is drawn from."""

    def __init__(self, scene: Scene, style: Style, rng: np.random.Generator) -> None:
        self.scene, self.style, self.rng = scene, style, rng
        self.tilt = Rotation.from_rotvec([*style.tilt, 0.0]).as_matrix()

    @property
    def hand(self) -> Array:
        return self.scene.hand[0]

    @property
    def moved(self) -> float:
        """How far the mechanism that the goal is about stands from where it was built, in metres or radians."""
        return float(np.abs(self.scene.mechanisms).max())

    def reach(self, place: Place, rotation: Array) -> Waypoints:
        """Go to the standoff before a place, fingers open, on a way that bends."""
        fingers = rotation[:, 2]
        detour = np.array(self.style.detour)
        while True:
            position, turned = self.scene.hand
            along, aside = _split(place() - position, fingers)
            off = _angle(rotation @ turned.T)
            if np.linalg.norm(aside) < ASIDE and abs(along - self.style.standoff) < REACHED and off < REACHED_TURN:
                return
            stop = place() - fingers * self.style.standoff
            bend = detour * min(1.0, float(np.linalg.norm(aside)) / 0.1)
            yield Waypoint(stop + bend, self.tilt @ rotation, closed=False)

    def approach(self, place: Place, rotation: Array) -> Waypoints:
        """From the standoff to the place, straight along the fingers."""
        for _ in range(LONGEST_APPROACH):
            along, aside = _split(place() - self.hand, rotation[:, 2])
            off = float(np.linalg.norm(aside))
            if abs(along) < AT_DEPTH and off < AT_PLACE:
                return
            wait = max(along, 0.0) if off > ASIDE else 0.0
            yield Waypoint(place() - rotation[:, 2] * wait, rotation, closed=False, careful=True)

    def close(self, rotation: Array) -> Waypoints:
        for _ in range(self.style.closing):
            yield Waypoint(self.hand, rotation, closed=True)

    def open(self, rotation: Array) -> Waypoints:
        for _ in range(self.style.opening):
            yield Waypoint(self.hand, rotation, closed=False)

    def retreat(self, rotation: Array) -> Waypoints:
        """Back out, against the way in which the fingers point."""
        for _ in range(RETREAT_STEPS):
            yield Waypoint(self.hand - rotation[:, 2] * RETREAT, rotation, closed=False)

    def let_go(self, rotation: Array) -> Waypoints:
        yield from self.open(rotation)
        yield from self.retreat(rotation)

    def grasp(self, place: Place, rotation: Array) -> Waypoints:
        yield from self.reach(place, rotation)
        yield from self.approach(place, rotation)
        yield from self.close(rotation)

    def lift(self, thing: Place, rotation: Array, height: float) -> Generator[Waypoint, None, bool]:
        """Straight up to a height; ends early, and returns False, where the thing has slipped out of the hand."""
        begin, held = self.hand, self.hand - thing()
        while self.hand[2] <= height - HEIGHT_LEFT:
            if self.hand[2] - begin[2] > LIFTED and np.linalg.norm(self.hand - thing() - held) > SLIPPED:
                return False
            yield Waypoint(np.array([begin[0], begin[1], height]), rotation, closed=True)
        return True

    def carry(self, thing: Place, target: Place, rotation: Array, height: float) -> Waypoints:
        """Until the thing is above the target, at a height."""
        while np.linalg.norm((ahead := target() - thing())[:2]) >= ASIDE:
            position = self.hand + ahead
            position[2] = height - CARRY_BELOW
            yield Waypoint(position, self.tilt @ rotation, closed=True)

    def lower(self, thing: Place, target: Place, rotation: Array, release: float) -> Waypoints:
        """Until the thing is `release` metres above the target."""
        for _ in range(LONGEST_LOWERING):
            ahead = target() - thing() + release * UP
            if ahead[2] > -RELEASE_ABOVE:
                return
            yield Waypoint(self.hand + ahead, self.tilt @ rotation, closed=True, careful=True)

    def turn(self, angle: float, rotation: Array, enough: float) -> Waypoints:
        """Turn what is held about the vertical by an angle, until the mechanism has moved enough."""
        begin, wanted = self.hand, Rotation.from_rotvec(angle * UP).as_matrix() @ rotation
        for _ in range(LONGEST_USE):
            if self.moved > enough:
                return
            yield Waypoint(begin, wanted, closed=True)

    def pull(self, way: Array, rotation: Array, enough: float) -> Waypoints:
        """Move what is held by `way` (3,) in a straight line, until the mechanism has moved enough."""
        begin = self.hand
        for _ in range(LONGEST_USE):
            if self.moved > enough:
                return
            yield Waypoint(begin + way, rotation, closed=True)


def pointing(yaw: float, lean: float = 0.0) -> Array:
    """Rotation of a hand that points down, leaned about x by an angle, then turned about the vertical by yaw."""
    return Rotation.from_euler("xz", [lean, yaw]).as_matrix() @ DOWN


def _split(way: Array, fingers: Array) -> tuple[float, Array]:
    """A way as what is along the fingers, and the rest."""
    along = float(way @ fingers)
    return along, way - along * fingers


def _angle(rotation: Array) -> float:
    return float(Rotation.from_matrix(rotation).magnitude())
