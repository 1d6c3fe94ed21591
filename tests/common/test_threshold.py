"""What a figure has to be, and what an interval shows of it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, strategies as st

from workbook.common.intervals import Estimate
from workbook.common.threshold import Status, Threshold

KINDS = (Threshold.below, Threshold.up_to, Threshold.above, Threshold.at_least)


@pytest.mark.parametrize(
    ("threshold", "meets"),
    [
        (Threshold.below(2.0), [True, False, False]),
        (Threshold.up_to(2.0), [True, True, False]),
        (Threshold.above(2.0), [False, False, True]),
        (Threshold.at_least(2.0), [False, True, True]),
        (Threshold(1.0, 2.0), [False, False, False]),
        (Threshold(1.0, 2.0, inclusive=True), [True, True, False]),
    ],
)
def test_ends_count_where_they_are_said_to(threshold: Threshold, meets: list[bool]) -> None:
    assert [threshold.meets(value) for value in (1.0, 2.0, 3.0)] == meets


@pytest.mark.parametrize(
    ("low", "high", "status"),
    [
        (0.5, 0.9, "met"),
        (0.5, 1.0, "not shown"),  # an interval that reaches the limit
        (0.5, 1.1, "not shown"),
        (1.0, 1.1, "unmet"),
        (1.1, 1.2, "unmet"),
        (None, None, "not shown"),
        (0.5, None, "not shown"),
    ],
)
def test_the_whole_interval_has_to_be_on_one_side(low: float | None, high: float | None, status: Status) -> None:
    assert Threshold.below(1.0).judge(Estimate(0.5, low, high).as_json()) == status


def test_an_interval_around_a_range_that_it_does_not_lie_in_is_unmet() -> None:
    """Both of its ends are out of the range."""
    assert Threshold(1.0, 2.0).judge(Estimate(1.5, 0.0, 3.0).as_json()) == "unmet"


def test_what_was_not_measured_was_not_run() -> None:
    assert Threshold.below(1.0).judge(Estimate(None).as_json()) == "not run"


@given(
    st.sampled_from(KINDS), st.floats(-10, 10), st.lists(st.floats(-10, 10), min_size=2, max_size=2).map(sorted),
    st.floats(0, 1),
)  # fmt: skip
def test_what_is_met_is_met_all_over_the_interval(kind: type, limit: float, ends: list[float], share: float) -> None:
    threshold: Threshold = kind(limit)
    low, high = ends
    status = threshold.judge(Estimate(low, low, high).as_json())
    inside = min(max(low + share * (high - low), low), high)
    if status in ("met", "unmet"):
        assert threshold.meets(inside) == (status == "met")
    else:
        assert threshold.meets(low) != threshold.meets(high)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_below_and_at_least_are_opposites(value: float) -> None:
    assert Threshold.below(1.0).meets(value) != Threshold.at_least(1.0).meets(value)
    assert Threshold.above(1.0).meets(value) != Threshold.up_to(1.0).meets(value)


def test_nothing_meets_a_threshold_that_is_no_number() -> None:
    assert not any(kind(1.0).meets(math.nan) for kind in KINDS)
