"""The scripted expert and what records it."""
