"""What a codec, or one setting of it, is called."""

from __future__ import annotations

from workbook.codecs.catalogue import Setting, catalogue
from workbook.report.text import words


def title(codec: str, setting: str = "", briefly: bool = False) -> str:
    """'fixed scale', or with a setting 'fixed scale, 3 layers'."""
    said = words("codecs")
    called = said.briefly if briefly else said.title
    return called(codec, catalogue()[codec].title, dict(Setting.parse(setting).values))


def setting_text(setting: str) -> str:
    """'layers=3' -> '3 layers'."""
    return words("codecs").setting(dict(Setting.parse(setting).values))
