"""What all figures share: the frame, and a picture that carries its alternative text. Colours are the catalogue's."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

DPI = 110
WIDTH = 9.0  # inches; 990 pixels, a laptop's text column

THRESHOLD: dict[str, Any] = {"color": "black", "linestyle": "--", "linewidth": 1.2}


@dataclass(frozen=True, eq=False)
class Plot:
    """A finished picture: PNG bytes and a sentence for those who cannot see it."""

    png: bytes = field(repr=False)
    alt: str

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, Any]]:
        data = {"image/png": base64.b64encode(self.png).decode("ascii")}
        return data, {"image/png": {"alt": self.alt}}

    def as_html(self) -> str:
        encoded = base64.b64encode(self.png).decode("ascii")
        return f'<img src="data:image/png;base64,{encoded}" alt="{escape(self.alt)}">'


def escape(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")


@dataclass(eq=False)
class Canvas:
    """A figure in the making. Its title becomes the alternative text, with `description` after it."""

    figure: Figure
    axes: list[Axes]
    title: str = ""
    description: str = ""

    def finish(self) -> Plot:
        self.figure.suptitle(self.title, x=0.01, ha="left", fontsize=12, fontweight="bold", wrap=True)
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", dpi=DPI, facecolor="white")
        return Plot(buffer.getvalue(), f"{self.title} {self.description}".strip())


@contextmanager
def canvas(rows: int = 1, columns: int = 1, height: float = 4.0, **subplots: Any) -> Iterator[Canvas]:
    """A white figure of the report's width with rows x columns axes; no global state, no backend."""
    style = sns.axes_style("whitegrid") | {"axes.edgecolor": "0.6", "grid.color": "0.9"}
    with mpl.rc_context(style):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, **subplots)
        yield Canvas(figure, list(axes.ravel()))
        for axis in axes.ravel():
            sns.despine(ax=axis)
