"""A scene without a simulator: a hand that goes where it is told, and things that it can carry, turn and pull."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from workbook.simulation.recorder.controller import Waypoint
from workbook.simulation.recorder.skills import DOWN

Vector = NDArray[np.float64]
STRIDE = 0.02  # metres that the hand goes in a step
GRIP = 0.08  # metres from the hand at which something is held by closed fingers


class FakeScene:
    """Stands in for `Scene` where skills look at it. `slips`: how many grasps fail."""

    def __init__(self, things: dict[str, Vector], slips: int = 0, turns: float = 0.0, slides: bool = False) -> None:
        self.places, self.slips = dict(things), slips
        self.turns, self.slides = turns, slides
        self.hand: tuple[Vector, Vector] = (np.array([0.0, 0.0, 0.3]), DOWN)
        self.mechanisms = np.zeros(1)
        self.held, self.was_closed = "", False
        self.log: list[Waypoint] = []

    @property
    def things(self) -> list[str]:
        return list(self.places)

    def position(self, name: str) -> Vector:
        return self.places[name]

    def follow(self, waypoints: Iterable[Waypoint], longest: int = 2000) -> bool:
        """Do as a plan says; whether it came to its end."""
        for waypoint in waypoints:
            if len(self.log) == longest:
                return False
            self._step(waypoint)
        return True

    def _step(self, waypoint: Waypoint) -> None:
        self.log.append(waypoint)
        before, _ = self.hand
        way = waypoint.position - before
        step = way * min(1.0, STRIDE / max(float(np.linalg.norm(way)), 1e-9))
        self.hand = (before + step, waypoint.rotation)
        if waypoint.closed and not self.was_closed:
            self.held = self._within_reach()
        self.held = self.held if waypoint.closed else ""
        self.was_closed = waypoint.closed
        if self.held:
            self.places[self.held] = self.places[self.held] + step
            self.mechanisms = self.mechanisms + (abs(step[1]) if self.slides else self.turns)

    def _within_reach(self) -> str:
        near = [name for name, place in self.places.items() if np.linalg.norm(place - self.hand[0]) < GRIP]
        if near and self.slips:
            self.slips -= 1
            return ""
        return near[0] if near else ""
