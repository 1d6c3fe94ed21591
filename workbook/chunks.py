"""Saved copies of rfsq_tokenizer.py import these names from here."""

from workbook.data.chunks import Normaliser, cut_chunks

__all__ = ["Normaliser", "cut_chunks"]
