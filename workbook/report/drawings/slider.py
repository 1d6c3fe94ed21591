"""Lines of several settings, one shown at a time by a slider that needs no kernel; without scripts all stand below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from workbook.common.array import Array
from workbook.common.table import Html
from workbook.report.drawings import template

HEIGHT, WIDTH, EDGE = 220, 640, 12
PAIR = 2  # lines fewer than this have no width


def slider(name: str, frames: Mapping[str, Mapping[str, Array]], colours: Sequence[str], what: str) -> Html:
    """name: of the slider, unique on its page; frames: what a setting reads as -> label -> (T,) values, the same labels
    in each; what: is drawn, for those who cannot see it.

    Raises:
        ValueError: there are no frames, or a line has fewer than two values.
    """
    lines = [line for frame in frames.values() for line in frame.values()]
    if not lines or min(map(len, lines)) < PAIR:
        raise ValueError("a slider needs frames with lines of two values or more")
    low, high = min(float(np.min(line)) for line in lines), max(float(np.max(line)) for line in lines)

    def path(line: Array) -> str:
        x = EDGE + np.linspace(0, WIDTH - 2 * EDGE, len(line))
        y = HEIGHT - EDGE - (line - low) / max(high - low, 1e-12) * (HEIGHT - 2 * EDGE)
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))

    drawn = [
        (text, [(label, colour, path(line)) for (label, line), colour in zip(frame.items(), colours, strict=True)])
        for text, frame in frames.items()
    ]
    return Html(template("slider.html.j2").render(name=name, frames=drawn, what=what, width=WIDTH, height=HEIGHT))
