"""What figures are called in sentences."""

from __future__ import annotations

import pytest

from workbook.common.intervals import Estimate
from workbook.report.text import words


@pytest.mark.parametrize(
    ("low", "high", "told"),
    [
        (0.055, 0.129, "(95 % interval 5.5% to 12.9% less)"),
        (-0.129, -0.055, "(95 % interval 5.5% to 12.9% more)"),
        (-0.05, 0.03, "(95 % interval 5.0% more to 3.0% less)"),
        (0.0, 0.1, "(95 % interval 0.0% to 10.0% less)"),
        (-3.0, -0.5, "(95 % interval 50.0% to 300.0% more)"),
        (-50.0, -30.0, "(95 % interval 30 times to 50 times more)"),
        (-3.0, 0.5, "(95 % interval 300.0% more to 50.0% less)"),
        (None, None, ""),
    ],
)
def test_an_interval_says_which_way_each_end_lies(low: float | None, high: float | None, told: str) -> None:
    assert words("phrases").signed_interval(Estimate(0.0, low, high)) == told


@pytest.mark.parametrize(
    ("gain", "told"),
    [
        (Estimate(None), "error that was not measured"),
        (Estimate(0.2), "20.0% less error"),
        (Estimate(0.2, 0.1, 0.3), "20.0% less error (95 % interval 10.0% to 30.0% less)"),
        (Estimate(-0.2, -0.3, -0.1), "20.0% more error (95 % interval 10.0% to 30.0% more)"),
        (
            Estimate(0.01, -0.02, 0.04),
            "error that is not shown to differ (1.0% less; 95 % interval 2.0% more to 4.0% less)",
        ),
    ],
)
def test_a_difference_is_told_with_its_direction(gain: Estimate, told: str) -> None:
    assert words("phrases").difference(gain) == told
