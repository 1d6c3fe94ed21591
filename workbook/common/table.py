"""Rows under a header, sentences and badges, as HTML for a notebook or a page and as Markdown for a document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape


@dataclass(frozen=True)
class Html:
    """A piece of HTML that a notebook shows, and what a document says in its stead, if it does."""

    html: str = field(repr=False)
    markdown: str = field(default="", repr=False)

    def _repr_html_(self) -> str:
        return self.html


@dataclass(frozen=True)
class Badge:
    """A status or verdict word, which its looks go by, and how it reads in another language."""

    word: str
    read: str = ""

    def __str__(self) -> str:
        return self.read or self.word

    @property
    def html(self) -> str:
        return f'<span class="badge {self.word.lower().replace(" ", "-")}">{escape(str(self))}</span>'


@dataclass(frozen=True)
class Table:
    """Rows under a header, with a note below; shown as HTML, or as Markdown in a document."""

    header: Sequence[str]
    rows: Sequence[Sequence[str | Badge]]
    note: str = ""

    @property
    def html(self) -> str:
        """Each cell carries its column's name, for a narrow screen on which a row is a block of lines."""
        head = "".join(f'<th scope="col">{escape(cell)}</th>' if cell else "<td></td>" for cell in self.header)
        body = "".join(self._html_row(row) for row in self.rows)
        below = f'<p class="note">{escape(self.note)}</p>' if self.note else ""
        return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{below}'

    def _html_row(self, row: Sequence[str | Badge]) -> str:
        cells = []
        for place, (name, cell) in enumerate(zip(self.header, row, strict=True)):
            kind, scope = ("td", "") if place else ("th", ' scope="row"')
            content = cell.html if isinstance(cell, Badge) else escape(cell)
            cells.append(f'<{kind} data-label="{escape(name)}"{scope}>{content}</{kind}>')
        return f"<tr>{''.join(cells)}</tr>"

    def _repr_html_(self) -> str:
        return self.html

    @property
    def markdown(self) -> str:
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        body = "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
        return f"{body}\n\n{self.note}" if self.note else body


@dataclass(frozen=True)
class Bullets:
    """Sentences, one a bullet."""

    sentences: Sequence[str]

    @property
    def html(self) -> str:
        return "<ul>" + "".join(f"<li>{escape(sentence)}</li>" for sentence in self.sentences) + "</ul>"

    def _repr_html_(self) -> str:
        return self.html

    @property
    def markdown(self) -> str:
        return "\n".join(f"- {sentence}" for sentence in self.sentences)
