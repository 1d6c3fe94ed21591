"""What the timestamps of an episode say: where steps are missing, and where another recording begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LAG = 8  # steps over which the length of one is measured: jitter of a single timestamp then counts an eighth
# Of a step. A frame that was dropped is late by a whole step, and timestamps that jitter by less than a quarter are
# never half a step apart from where they should be; LeRobot's own 1e-4 s would refuse any clock that was really read.
TOLERANCE = 0.5
CATCH_UP = 3  # steps within which a late one may be made up for, as by a process that was held up
NEARLY = 0.1  # so near to the rate that is said, the said one is the better measure
MOST = 0.5  # share of the steps in which a clock stands still, to say that it does
SOME = 0.2  # share of the steps from which a clock is a coarse one, whose ticks are no jumps
LATEST = 1e12  # seconds
FEWEST_TICKS = 3  # to know how coarse it is


@dataclass(frozen=True)
class Clock:
    """step: its usual step in seconds, None where it stands still; gaps, restarts: steps before which it jumps."""

    step: float | None
    gaps: tuple[int, ...]
    restarts: tuple[int, ...]
    stands_still: bool

    @property
    def jumps(self) -> list[int]:
        return sorted((*self.gaps, *self.restarts))


def read_clock(stamps: NDArray[np.floating[Any]], said: float | None) -> Clock | None:
    """Read the timestamps of one episode in seconds: (T,). said: steps a second, where that is known.

    None where they tell nothing: fewer than two, or not all of them numbers that seconds can be.
    """
    if len(stamps) < 2 or not (np.abs(stamps) < LATEST).all():
        return None
    smallest = float(np.spacing(np.abs(stamps).max()))  # what the file's own precision can tell apart
    times = stamps.astype(np.float64)
    change = np.diff(times)
    still = float((change == 0).mean())
    lag = max(1, min(LAG, len(times) // 4))  # so that no jump stands within most of them
    measured = float(np.median(times[lag:] - times[:-lag])) / lag
    expected = 1 / said if said else None
    step = measured if measured > 0 else expected
    if step is None:
        return Clock(None, (), (), still > MOST)
    if expected and abs(measured / expected - 1) < NEARLY:
        step = expected
    ticks = change[change > 0]
    coarse = float(np.median(ticks)) if still > SOME and len(ticks) >= FEWEST_TICKS else 0.0
    allowed = TOLERANCE * step + coarse + smallest
    back = np.flatnonzero(change < -allowed) + 1
    late = np.flatnonzero(_lateness(times, step) > allowed) + 1
    stopped = still > MOST
    return Clock(None if stopped else measured, tuple(late.tolist()), tuple(back.tolist()), stopped)


def _lateness(times: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    """How late each step comes after the one before it, and stays: in seconds, (T,) -> (T - 1,)."""
    before = np.arange(len(times) - 1)
    after = [np.minimum(before + ahead, len(times) - 1) for ahead in range(1, CATCH_UP + 2)]
    return np.min([times[at] - times[before] - (at - before) * step for at in after], axis=0)
