"""Calls timed in turn within one process, so that what else the machine does meets all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from statistics import median
from typing import TypeVar

SHORTEST = 0.002  # seconds; a call that takes less is repeated until it comes to as much

Call = Callable[[], object]
Name = TypeVar("Name", bound=Hashable)


def time_in_turn(calls: Mapping[Name, Call], repetitions: int, most: float = float("inf")) -> dict[Name, float]:
    """CPU seconds of each call, the median: every one once, in turn, as often as there are repetitions.

    A first round warms up and is not counted. A call whose repetitions would take more than `most` seconds is made
    fewer times, but once.
    """
    counts = {name: _count(call) for name, call in calls.items()}
    found: dict[Name, list[float]] = {name: [] for name in calls}
    every = list(calls.items())
    for turn in range(repetitions):
        first = turn % max(len(every), 1)  # another each time, for what is first may find a colder machine
        for name, call in every[first:] + every[:first]:
            if sum(found[name]) * counts[name] < most:
                found[name].append(_seconds(call, counts[name]))
    return {name: median(seconds) for name, seconds in found.items()}


def _count(call: Call) -> int:
    """How often a call is made in a row to take long enough for the clock."""
    call()
    return max(1, round(SHORTEST / max(_seconds(call, 1), 1e-7)))


def _seconds(call: Call, count: int) -> float:
    started = time.process_time()
    for _ in range(count):
        call()
    return (time.process_time() - started) / count
