"""What a figure has to be, and whether an estimate of it is shown to be so."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

Status = Literal["met", "unmet", "not shown", "not run"]

KNIFE_EDGE = 0.1


@dataclass(frozen=True)
class Threshold:
    """Between low and high; the ends count where `inclusive`."""

    low: float = -math.inf
    high: float = math.inf
    inclusive: bool = False

    @staticmethod
    def below(limit: float) -> Threshold:
        return Threshold(high=limit)

    @staticmethod
    def up_to(limit: float) -> Threshold:
        return Threshold(high=limit, inclusive=True)

    @staticmethod
    def above(limit: float) -> Threshold:
        return Threshold(low=limit)

    @staticmethod
    def at_least(limit: float) -> Threshold:
        return Threshold(low=limit, inclusive=True)

    def meets(self, value: float) -> bool:
        if self.inclusive:
            return self.low <= value <= self.high
        return self.low < value < self.high

    def on_knife_edge(self, estimate: dict[str, Any]) -> bool:
        """Whether an end of the interval lies nearer to a limit than a tenth of the way from there to the figure."""
        ends = [end for end in (estimate["low"], estimate["high"]) if end is not None]
        limits = [limit for limit in (self.low, self.high) if math.isfinite(limit)]
        return any(abs(end - limit) <= KNIFE_EDGE * abs(estimate["mean"] - limit) for limit in limits for end in ends)

    def judge(self, estimate: dict[str, Any]) -> Status:
        """Met or unmet if the whole 95 % interval is; between the two, or without an interval, not shown."""
        if estimate["mean"] is None:
            return "not run"
        if estimate["low"] is None or estimate["high"] is None:
            return "not shown"
        ends = {self.meets(estimate["low"]), self.meets(estimate["high"])}
        if ends == {True}:
            return "met"
        return "unmet" if ends == {False} else "not shown"
