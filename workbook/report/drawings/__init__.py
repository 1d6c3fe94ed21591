"""Drawings as SVG whose text stays its size at any width, readable by screen readers and, on hover, by the mouse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import jinja2

TEMPLATES = Path(__file__).parents[1] / "templates"
WIDTH = 900  # pixels, of a drawing that is a file
WITHOUT_TOKENS = "#777777"


@dataclass(frozen=True)
class Dot:
    """A row: an estimate with its interval; strong ones are those that the answer is read from."""

    label: str
    value: float
    low: float
    high: float
    shown: str
    colour: str
    strong: bool = False


@dataclass(frozen=True, eq=False)
class Drawing:
    """A finished drawing: SVG, a sentence for those who cannot see it, and its title, which stands above it."""

    svg: str = field(repr=False)
    alt: str
    title: str

    def as_html(self) -> str:
        return f'<figure class="drawing"><figcaption>{escape(self.title)}</figcaption>{self.svg}</figure>'

    @property
    def alone(self) -> str:
        """As a file of its own, which has a size."""
        return self.svg.replace('width="100%"', f'width="{WIDTH}"', 1)

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, Any]]:
        return {"text/html": self.as_html()}, {}


def dots(
    rows: Sequence[Dot], ticks: Sequence[tuple[float, str]], title: str, axis: str, reference: float | None = None
) -> Drawing:
    """A label, a dot and its interval a row, in their order.

    ticks: where the axis has lines, ascending, with how they read; the first and the last are its ends. reference: a
    value that all rows are read against.
    """
    first, last = ticks[0][0], ticks[-1][0]
    alt = f"{title}. " + "; ".join(f"{row.label} {row.shown}" for row in rows)

    def place(value: float) -> str:
        """Per cent of the width; a dot at either end stays whole, and what it says has a column of its own."""
        return f"{1 + 76 * min(max((value - first) / (last - first), 0), 1):.2f}%"

    svg = template("dots.svg.j2").render(rows=rows, ticks=ticks, alt=alt, axis=axis, place=place, reference=reference)
    return Drawing(svg, alt, title)


def template(name: str) -> jinja2.Template:
    """One of a drawing, from the folder of templates."""
    return _environment().get_template(name)


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
