"""Sentences, made from values."""
