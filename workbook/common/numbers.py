"""Figures as digits; the words around them stand in the templates of report/text."""

from __future__ import annotations


def number(value: float | None, digits: int = 2) -> str:
    """A figure in `digits` significant digits; a dash where there is none."""
    if value is None:
        return "-"
    rounded = float(f"{value:.{digits}g}")
    if rounded != 0 and not 1e-3 <= abs(rounded) < 1e4:
        mantissa, exponent = f"{rounded:.{digits - 1}e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{rounded:.{digits}g}" if abs(rounded) < 10**digits else f"{value:,.0f}"


def percent(value: float | None, decimals: int = 1) -> str:
    """A share as per cent; a dash where there is none."""
    return "-" if value is None else f"{round(value, 2 + decimals) + 0.0:.{decimals}%}"
