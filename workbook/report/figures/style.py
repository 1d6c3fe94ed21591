"""What all figures share: the frame, and a picture that carries its alternative text. Colours are the catalogue's."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from textwrap import wrap
from typing import Any
from unicodedata import east_asian_width

import matplotlib as mpl
import seaborn as sns
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from workbook.report.text import speaking, words

DPI = 110
WIDTH = 9.0  # inches; 990 pixels, a laptop's text column

logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # warns of a font that has no bold face
# Fonts with Chinese, Japanese and Korean characters, as systems have them; the first brings all three.
CJK_FONTS = (
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans CJK TC", "Noto Sans CJK KR", "Source Han Sans", "IPAexGothic",
    "IPAGothic", "TakaoGothic", "VL Gothic", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback",
    "NanumGothic", "Hiragino Sans", "PingFang SC", "Apple SD Gothic Neo", "Arial Unicode MS", "Yu Gothic", "MS Gothic",
    "Microsoft YaHei", "SimHei", "Malgun Gothic",
)  # fmt: skip

THRESHOLD: dict[str, Any] = {"color": "black", "linestyle": "--", "linewidth": 1.2}


class Shown(Figure):
    """A figure that a notebook shows whatever the backend, also after it was changed there."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=DPI, facecolor="white")
        return buffer.getvalue()


@dataclass(frozen=True, eq=False)
class Plot:
    """A finished picture: PNG bytes, a sentence for those who cannot see it, and names that stand in it as numbers.

    figure: as matplotlib has it, to be taken further; None where the picture comes from elsewhere.
    """

    png: bytes = field(repr=False)
    alt: str
    legend: str = ""
    figure: Shown | None = field(default=None, repr=False)

    @property
    def axes(self) -> list[Axes]:
        return self.figure.axes if self.figure else []

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, Any]]:
        data = {"image/png": base64.b64encode(self.png).decode("ascii")}
        beside = {"text/html": self.as_html()} if self.legend else {}
        return data | beside, {"image/png": {"alt": self.alt}}

    def as_html(self) -> str:
        encoded = base64.b64encode(self.png).decode("ascii")
        legend = f'<p class="note">{escape(self.legend)}</p>' if self.legend else ""
        return f'<img src="data:image/png;base64,{encoded}" alt="{escape(self.alt)}">{legend}'


def escape(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")


@dataclass(eq=False)
class Canvas:
    """A figure in the making. Its title becomes the alternative text, with `description` after it."""

    figure: Shown
    axes: list[Axes]
    title: str = ""
    description: str = ""

    def finish(self) -> Plot:
        self.figure.suptitle(self.title, x=0.01, ha="left", fontsize=12, fontweight="bold", wrap=True, parse_math=False)
        legend = self._number_what_no_font_has()
        return Plot(self.figure._repr_png_(), f"{self.title} {self.description}".strip(), legend, self.figure)

    def _number_what_no_font_has(self) -> str:
        """Put a number in the place of each name that would show as boxes; returns which number is which name."""
        numbers: dict[str, int] = {}
        for text in self.figure.findobj(Text):
            said = text.get_text()
            lacking = _lacking(text)
            if lacking:
                first, end = lacking[0], lacking[-1] + 1
                name = said[first:end].replace("\n", "")
                number = numbers.setdefault(name, len(numbers) + 1)
                text.set_text(f"{said[:first]}[{number}]{said[end:]}")
        return "; ".join(f"[{number}] {name}" for name, number in numbers.items())


def _lacking(text: Text) -> list[int]:
    """Places of the characters that none of a text's fonts has."""
    said = text.get_text()
    if said.isascii():
        return []
    fonts = []
    for family in text.get_fontfamily():
        properties = text.get_fontproperties().copy()
        properties.set_family(family)
        fonts.append(font_manager.get_font(font_manager.findfont(properties)))
    return [
        place
        for place, character in enumerate(said)
        if not character.isspace() and not any(font.get_char_index(ord(character)) for font in fonts)
    ]


def _families() -> list[str]:
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return ["sans-serif", "DejaVu Sans", *(name for name in CJK_FONTS if name in installed)]


def in_letters_at_hand() -> AbstractContextManager[None]:
    """English within the block, where no font of this machine has the letters of the language that is spoken."""
    lacking = _lacking(Text(text=words("pages").question, fontfamily=_families()))
    return speaking("en") if lacking else nullcontext()


def wrapped(text: str, width: int) -> str:
    """Lines of at most so many characters, of which Chinese, Japanese and Korean ones count for two; spaces stay."""
    wide = sum(east_asian_width(character) in "WF" for character in text)
    characters = width * max(len(text), 1) // max(len(text) + wide, 1)
    return "\n".join(wrap(text, characters, drop_whitespace=False))


@contextmanager
def canvas(rows: int = 1, columns: int = 1, height: float = 4.0, **subplots: Any) -> Iterator[Canvas]:
    """A white figure of the report's width with rows x columns axes; no global state, no backend."""
    style = sns.axes_style("whitegrid") | {"axes.edgecolor": "0.6", "grid.color": "0.9", "font.family": _families()}
    with mpl.rc_context(style):
        figure = Shown(figsize=(WIDTH, height), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, **subplots)
        yield Canvas(figure, list(axes.ravel()))
        for axis in axes.ravel():
            sns.despine(ax=axis)
