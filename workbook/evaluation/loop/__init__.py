"""Policies in the loop: small state-based policies that act in LIBERO's simulator through a codec's tokens."""
