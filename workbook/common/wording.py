"""Figures in words, the same in tables, sentences and titles."""

from __future__ import annotations

from typing import Any


def number(value: float | None, digits: int = 2) -> str:
    """A figure in `digits` significant digits; a dash where there is none."""
    if value is None:
        return "-"
    rounded = float(f"{value:.{digits}g}")
    if rounded != 0 and not 1e-3 <= abs(rounded) < 1e4:
        mantissa, exponent = f"{rounded:.{digits - 1}e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{rounded:.{digits}g}" if abs(rounded) < 10**digits else f"{value:,.0f}"


def with_interval(estimate: dict[str, Any], digits: int = 2) -> str:
    """'1.2 (1.1 to 1.3)', the bracket being the 95 % interval."""
    if estimate["mean"] is None:
        return "none in the data"
    if estimate["low"] is None:
        return number(estimate["mean"], digits)
    low, high = number(estimate["low"], digits), number(estimate["high"], digits)
    return f"{number(estimate['mean'], digits)} ({low} to {high})"


def share(value: float | None) -> str:
    """A share as per cent; a loss of more than all of it as a multiple of the error, which reads better."""
    if value is None:
        return "-"
    return f"{1 - value:,.0f} times the error" if value < -1 else f"{round(value, 3) + 0.0:.1%}"


def less_or_more(gain: float) -> str:
    """'97.5% less' for a gain of 0.975, '50.0% more' for one of -0.5, '30 times more' for one of -30."""
    if gain <= -10:
        return f"{-gain:,.0f} times more"
    return f"{gain:.1%} less" if gain >= 0 else f"{-gain:.1%} more"


def bins_label(name: str) -> str:
    """'bins64' -> '64 bins'."""
    return f"{name.removeprefix('bins')} bins"


def equal_bins(name: str) -> str:
    """'bins64' -> 'rounding each number to 64 equal bins'."""
    return f"rounding each number to {name.removeprefix('bins')} equal bins"


def signed_interval(gain: dict[str, Any]) -> str:
    """' (95 % interval 5.5% to 12.9% less)' of a gain; '' without an interval."""
    if gain["low"] is None or gain["high"] is None:
        return ""
    nearer, farther = sorted((gain["low"], gain["high"]), key=abs)
    first, last = less_or_more(nearer), less_or_more(farther)
    if (gain["low"] < 0) != (gain["high"] < 0):
        return f" (95 % interval {less_or_more(gain['low'])} to {less_or_more(gain['high'])})"
    return f" (95 % interval {first.rsplit(' ', 1)[0]} to {last})"


def difference(gain: dict[str, Any], what: str = "error") -> str:
    """'5.5% less error (95 % interval ...)', or, where the interval straddles 0, that none is shown."""
    if gain["mean"] is None:
        return f"{what} that was not measured"
    if gain["low"] is not None and gain["low"] < 0 < gain["high"]:
        return f"{what} that is not shown to differ ({less_or_more(gain['mean'])}; {signed_interval(gain)[2:]}"
    return f"{less_or_more(gain['mean'])} {what}{signed_interval(gain)}"


def count_of(number: int, noun: str) -> str:
    """'1 layer', '3 layers'."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
