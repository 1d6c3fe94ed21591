"""Where and why a replay failed, told from the ground-truth replay of the same episode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from workbook.common.array import Array
from workbook.simulation.playback import Trace

Reason = Literal["not grasped", "dropped", "placed wrong", "part not moved", "part not moved far enough", "other"]
REASONS: tuple[Reason, ...] = get_args(Reason)

LIFTED = 0.02  # metres above the start: an object that rises so far in the hand is carried, not pushed
IN_HAND = 0.1  # metres from the end effector; an object that rises farther away was knocked up
IN_PLACE = 0.04  # metres from where the ground-truth replay left it
LET_GO = 0.04  # metres that an object is farther from the hand than while it was carried
TOUCHED = 0.1  # share of a mechanism's true motion, below which it was hardly met
MOVED = 0.02  # metres or radians: a mechanism that the ground-truth replay moves less was not what it was about


@dataclass(frozen=True)
class Failure:
    """step: of what the reason names, in the decoded replay, or in the ground-truth one where it did not come about.

    hand_mm: how far the hand then was from where it was in the ground-truth replay.
    """

    reason: Reason
    step: int
    hand_mm: float


def explain(truth: Trace, decoded: Trace) -> Failure:
    """The first object, in the order of the goal, that is not where it should be; else the mechanism; else 'other'."""
    for number in range(truth.objects.shape[1]):
        if not _held(truth, number).any():
            continue
        reason, step = _of_object(truth, decoded, number)
        if reason is not None:
            return _failure(truth, decoded, reason, step)
    reason, step = _of_mechanism(truth, decoded)
    return _failure(truth, decoded, reason or "other", step)


def _failure(truth: Trace, decoded: Trace, reason: Reason, step: int) -> Failure:
    return Failure(reason, step, float(1000 * hand_drift(truth, decoded)[min(step, len(truth.hand) - 1)]))


def hand_drift(truth: Trace, decoded: Trace) -> Array:
    """Distance in metres of the two hands at each step that both have: (T+1,)."""
    steps = min(len(truth.hand), len(decoded.hand))
    return np.linalg.norm(truth.hand[:steps] - decoded.hand[:steps], axis=1)


def _apart(trace: Trace, number: int) -> Array:
    return np.linalg.norm(trace.objects[:, number] - trace.hand, axis=1)


def _held(trace: Trace, number: int) -> NDArray[np.bool_]:
    """Whether an object is up and in the hand, at each step: (T+1,)."""
    height = trace.objects[:, number, 2]
    return (height - height[0] > LIFTED) & (_apart(trace, number) < IN_HAND)


def _of_object(truth: Trace, decoded: Trace, number: int) -> tuple[Reason | None, int]:
    if not _held(decoded, number).any():
        return "not grasped", int(np.argmax(_held(truth, number)))
    if np.linalg.norm(decoded.objects[-1, number] - truth.objects[-1, number]) < IN_PLACE:
        return None, 0
    left, should_leave = _let_go(decoded, number), _let_go(truth, number)
    return ("dropped" if left < should_leave - 1 else "placed wrong"), left


def _let_go(trace: Trace, number: int) -> int:
    """The step at which an object that was held has left the hand for good; the last one where it never does."""
    apart, lifted = _apart(trace, number), int(np.argmax(_held(trace, number)))
    near = np.flatnonzero(apart <= apart[lifted] + LET_GO)
    return min(int(near[-1]) + 1, len(apart) - 1)


def _of_mechanism(truth: Trace, decoded: Trace) -> tuple[Reason | None, int]:
    """The joint that moved most in the ground-truth replay."""
    last = len(truth.hand) - 1
    if truth.mechanisms.shape[1] == 0:
        return None, last
    wanted = truth.mechanisms - truth.mechanisms[0]
    joint = int(np.abs(wanted[-1]).argmax())
    if abs(wanted[-1, joint]) < MOVED:
        return None, last
    share = (decoded.mechanisms[:, joint] - truth.mechanisms[0, joint]) / wanted[-1, joint]
    begins = int(np.argmax(np.abs(wanted[:, joint]) > TOUCHED * abs(wanted[-1, joint])))
    if share.max() < TOUCHED:
        return "part not moved", begins
    return "part not moved far enough", int(share.argmax())
