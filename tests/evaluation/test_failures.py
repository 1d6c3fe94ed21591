"""Where and why a replay failed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from traces import GRASP, NOT_GRASPED, RELEASE, STEPS, carried, failed, hand_path, moved_by, trace

from workbook.common.array import Array
from workbook.evaluation.replay.failures import IN_PLACE, explain, hand_drift


def test_an_object_that_stays_where_it_was_was_not_grasped() -> None:
    found = explain(trace(), moved_by(NOT_GRASPED, 0.03))
    assert found.reason == "not grasped"
    assert found.step == GRASP + 1  # where the ground-truth replay has it up and in the hand
    assert found.hand_mm == pytest.approx(30)


def test_an_object_that_leaves_the_hand_early_was_dropped() -> None:
    found = explain(trace(), failed(carried(hand_path(), let_go=RELEASE - 4)))
    assert (found.reason, found.hand_mm) == ("dropped", 0)
    assert found.step == RELEASE - 4


def test_an_object_that_is_let_go_on_time_at_another_place_was_placed_wrong() -> None:
    objects = carried(hand_path())
    objects[RELEASE:, :, 1] += IN_PLACE * 1.5
    found = explain(trace(), failed(objects))
    assert (found.reason, found.step) == ("placed wrong", RELEASE)


def test_an_object_that_is_never_let_go_was_placed_wrong() -> None:
    objects = carried(hand_path(), let_go=STEPS + 1)
    found = explain(trace(), failed(objects))
    assert (found.reason, found.step) == ("placed wrong", STEPS)


def test_the_first_object_that_is_not_in_place_is_the_one_told_of() -> None:
    good, low = carried(hand_path()), np.zeros((STEPS + 1, 1, 3))
    truth = trace(np.concatenate([good, good], axis=1))
    assert explain(truth, failed(np.concatenate([good, low], axis=1))).reason == "not grasped"
    early = carried(hand_path(), let_go=RELEASE - 4)
    assert explain(truth, failed(np.concatenate([early, low], axis=1))).reason == "dropped"


def test_an_object_that_ground_truth_leaves_alone_is_no_reason() -> None:
    """A plate on which something is put is named by the goal, and carried nowhere."""
    still = np.zeros((STEPS + 1, 1, 3))
    assert explain(trace(still), failed(still)).reason == "other"


def test_an_object_that_is_knocked_up_was_not_grasped() -> None:
    flies = np.zeros((STEPS + 1, 1, 3))
    flies[6:10, 0, :] = [0.5, 0.0, 0.1]
    assert explain(trace(), failed(flies)).reason == "not grasped"


def test_a_true_grasp_that_slips_and_is_tried_again_is_let_go_at_its_end() -> None:
    slips = carried(hand_path())
    slips[6, 0] = [0.5, 0.0, 0.0]
    dropped = explain(trace(slips), failed(carried(hand_path(), let_go=RELEASE - 4)))
    assert (dropped.reason, dropped.step) == ("dropped", RELEASE - 4)


def test_a_mechanism_that_ground_truth_hardly_moves_is_no_reason() -> None:
    nothing, ramp = np.zeros((STEPS + 1, 0, 3)), np.linspace(0, 1, STEPS + 1)[:, None]
    assert explain(trace(nothing, mechanisms=1e-4 * ramp), failed(nothing, mechanisms=0 * ramp)).reason == "other"


@pytest.mark.parametrize(
    ("share", "reason"), [(0.0, "part not moved"), (0.5, "part not moved far enough"), (-0.3, "part not moved")]
)
def test_a_mechanism_that_does_not_come_far_enough(share: float, reason: str) -> None:
    def opened(by: float) -> Array:
        return by * np.linspace(0, 1, STEPS + 1)[:, None]

    nothing = np.zeros((STEPS + 1, 0, 3))
    found = explain(trace(nothing, mechanisms=opened(-0.2)), failed(nothing, mechanisms=opened(-0.2 * share)))
    assert found.reason == reason


def test_of_several_joints_the_one_that_moved_most_counts() -> None:
    nothing, ramp = np.zeros((STEPS + 1, 0, 3)), np.linspace(0, 1, STEPS + 1)[:, None]
    truth = trace(nothing, mechanisms=np.concatenate([0.01 * ramp, 0.2 * ramp], axis=1))
    other = failed(nothing, mechanisms=np.concatenate([0.01 * ramp, 0.0 * ramp], axis=1))
    assert explain(truth, other).reason == "part not moved"


def test_drift_is_told_for_the_steps_that_both_replays_have() -> None:
    longer = replace(trace(), hand=np.concatenate([hand_path(), hand_path()[-1:]]))
    assert hand_drift(trace(), moved_by(longer, 0.02)) == pytest.approx([0.02] * (STEPS + 1))
