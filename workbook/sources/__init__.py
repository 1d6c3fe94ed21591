"""Readers, one a format, that all yield the same table of episodes; `recordings` chooses among them."""
