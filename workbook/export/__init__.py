"""Tokens of whole data sets, graphs for other runtimes, and a tokenizer, for Phase 2 and 3."""
