"""Calls timed in turn within one process, so that what else the machine does meets all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

SHORTEST = 0.002  # seconds; a call that takes less is repeated until it comes to as much

Call = Callable[[], object]


@dataclass(frozen=True)
class Timed:
    """CPU seconds of one call: the median of the repetitions, and their quartiles."""

    seconds: float
    quartiles: tuple[float, float]


def time_in_turn(calls: Mapping[str, Call], repetitions: int) -> dict[str, Timed]:
    """Every call once, in order, as often as there are repetitions; a first round warms up and is not counted."""
    counts = {name: _count(call) for name, call in calls.items()}
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repetitions):
        for name, call in calls.items():
            found[name].append(_seconds(call, counts[name]))
    return {name: _summary(np.array(seconds)) for name, seconds in found.items()}


def _count(call: Call) -> int:
    """How often a call is made in a row to take long enough for the clock."""
    call()
    return max(1, round(SHORTEST / max(_seconds(call, 1), 1e-7)))


def _seconds(call: Call, count: int) -> float:
    started = time.process_time()
    for _ in range(count):
        call()
    return (time.process_time() - started) / count


def _summary(seconds: np.ndarray) -> Timed:
    low, middle, high = np.quantile(seconds, [0.25, 0.5, 0.75])
    return Timed(float(middle), (float(low), float(high)))
