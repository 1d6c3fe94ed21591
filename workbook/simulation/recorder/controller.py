"""How the scripted expert moves: from where the hand should be to one action, in a manner drawn for each episode."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from workbook.common.array import Array
from workbook.data.layout import POSITION_MM_PER_UNIT, ROTATION_DEG_PER_UNIT
from workbook.data.plausibility import LATTICES, LEVELS_EACH_WAY, LIBERO_LATTICE

METRES, RADIANS = POSITION_MM_PER_UNIT / 1000, np.radians(ROTATION_DEG_PER_UNIT)  # that a 1 in an action commands
LATTICE = np.repeat(LATTICES[LIBERO_LATTICE], 3)  # of a SpaceMouse, for position and rotation: (6,)
REACH = LATTICE * LEVELS_EACH_WAY  # its largest values
OPEN, CLOSED = -1.0, 1.0
CAREFUL_GAIN, CAREFUL_SPEED, CAREFUL_NOISE = 1.3, 0.6, 0.5  # near what is to be touched
NOISE_KEPT = 0.85  # of the noise of the step before
NOISE = np.repeat([0.03, 0.012], 3)  # std of what is added to it, in controller units, before Style.noise
PAUSE_CHANCE, PAUSE_STEPS = 0.012, (1, 6)


@dataclass(frozen=True)
class Style:
    """How one episode is demonstrated. Speeds in controller units; lengths in metres, angles in radians.

    detour: offset of the way to the first grasp while still far away; tilt: of the hand about x and y while it is
    free; standoff: how far before a grasp the hand stops first; closing, opening: steps that the fingers are given.
    """

    gain: float
    turn_gain: float
    speed: float
    turn_speed: float
    smoothing: float
    noise: float
    detour: tuple[float, float, float]
    tilt: tuple[float, float]
    standoff: float
    closing: int
    opening: int

    @staticmethod
    def draw(rng: np.random.Generator) -> Style:
        detour, tilt = rng.normal(0, 0.02, 3), rng.normal(0, 0.06, 2)
        return Style(
            gain=float(rng.uniform(1.0, 1.9)),
            turn_gain=float(rng.uniform(0.8, 1.6)),
            speed=float(rng.uniform(0.65, REACH[0])),
            turn_speed=float(rng.uniform(0.18, REACH[3])),
            smoothing=float(rng.uniform(0.25, 0.65)),
            noise=float(rng.uniform(0.5, 1.5)),
            detour=(float(detour[0]), float(detour[1]), float(detour[2])),
            tilt=(float(tilt[0]), float(tilt[1])),
            standoff=float(rng.uniform(0.07, 0.12)),
            closing=int(rng.integers(9, 16)),
            opening=int(rng.integers(4, 9)),
        )


@dataclass(frozen=True, eq=False)
class Waypoint:
    """Where the hand should be: position (3,) in metres, rotation matrix (3, 3), fingers closed or open."""

    position: Array
    rotation: Array
    closed: bool
    careful: bool = False


class Controller:
    """Turns waypoints into actions, one a step. It remembers its noise, its last motion and the pause that it is in."""

    def __init__(self, style: Style, rng: np.random.Generator) -> None:
        self.style, self.rng = style, rng
        self.noise, self.previous = np.zeros(6), np.zeros(6)
        self.pause = 0

    def action(self, waypoint: Waypoint, position: Array, rotation: Array) -> Array:
        """The action (7,) that brings the hand from where it is towards the waypoint."""
        wanted = self._with_noise(self._towards(waypoint, position, rotation), waypoint.careful)
        motion = self.style.smoothing * self.previous + (1 - self.style.smoothing) * wanted
        self.previous = motion
        return np.append(on_lattice(self._unless_pausing(motion)), CLOSED if waypoint.closed else OPEN)

    def _towards(self, waypoint: Waypoint, position: Array, rotation: Array) -> Array:
        style = self.style
        gain, speed = (CAREFUL_GAIN, CAREFUL_SPEED) if waypoint.careful else (1.0, 1.0)
        turn = Rotation.from_matrix(waypoint.rotation @ rotation.T).as_rotvec()
        move = _limited(gain * style.gain * (waypoint.position - position) / METRES, speed * style.speed)
        return np.concatenate([move, _limited(style.turn_gain * turn / RADIANS, style.turn_speed)])

    def _with_noise(self, motion: Array, careful: bool) -> Array:
        share = self.style.noise * (CAREFUL_NOISE if careful else 1.0)
        self.noise = NOISE_KEPT * self.noise + self.rng.normal(0, 1, 6) * NOISE * share
        return motion + self.noise

    def _unless_pausing(self, motion: Array) -> Array:
        if self.pause > 0:
            self.pause -= 1
            self.previous = motion / 2
            return np.zeros(6)
        if self.rng.random() < PAUSE_CHANCE:
            self.pause = int(self.rng.integers(*PAUSE_STEPS))
        return motion


def on_lattice(motion: Array) -> Array:
    """Motion (..., 6) clipped and rounded to what a SpaceMouse can say."""
    return np.clip(np.round(motion / LATTICE), -LEVELS_EACH_WAY, LEVELS_EACH_WAY) * LATTICE


def _limited(vector: Array, largest: float) -> Array:
    """The vector, shortened where one of its components is larger."""
    size = float(np.abs(vector).max())
    return vector * (largest / size) if size > largest else vector
