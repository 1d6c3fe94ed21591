"""Folders that a KltTokenizer saved import it from here."""

from workbook.export.klt_tokenizer import KltTokenizer

__all__ = ["KltTokenizer"]
