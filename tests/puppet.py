"""A scene without a simulator: a hand that goes where it is told, and things that it can carry, turn and pull."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from workbook.simulation.recorder.controller import Aim
from workbook.simulation.recorder.skills import DOWN

Vector = NDArray[np.float64]
STRIDE = 0.02  # metres that the hand goes in a step
GRIP = 0.08  # metres from the hand at which something is held by closed fingers


class Puppet:
    """Stands in for `Scene` where skills look at it. `slips`: how many grasps fail."""

    def __init__(self, things: dict[str, Vector], slips: int = 0, turns: float = 0.0, slides: bool = False) -> None:
        self.places, self.slips = dict(things), slips
        self.turns, self.slides = turns, slides
        self.hand: tuple[Vector, Vector] = (np.array([0.0, 0.0, 0.3]), DOWN)
        self.mechanisms = np.zeros(1)
        self.held, self.was_closed = "", False
        self.log: list[Aim] = []

    @property
    def things(self) -> list[str]:
        return list(self.places)

    def position(self, name: str) -> Vector:
        return self.places[name]

    def follow(self, aims: Iterable[Aim], longest: int = 2000) -> bool:
        """Do as a plan says; whether it came to its end."""
        for aim in aims:
            if len(self.log) == longest:
                return False
            self._step(aim)
        return True

    def _step(self, aim: Aim) -> None:
        self.log.append(aim)
        before, _ = self.hand
        way = aim.position - before
        step = way * min(1.0, STRIDE / max(float(np.linalg.norm(way)), 1e-9))
        self.hand = (before + step, aim.rotation)
        if aim.closed and not self.was_closed:
            self.held = self._within_reach()
        self.held = self.held if aim.closed else ""
        self.was_closed = aim.closed
        if self.held:
            self.places[self.held] = self.places[self.held] + step
            self.mechanisms = self.mechanisms + (abs(step[1]) if self.slides else self.turns)

    def _within_reach(self) -> str:
        near = [name for name, place in self.places.items() if np.linalg.norm(place - self.hand[0]) < GRIP]
        if near and self.slips:
            self.slips -= 1
            return ""
        return near[0] if near else ""
