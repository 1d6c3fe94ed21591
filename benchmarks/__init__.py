"""What codecs cost in time: `python -m benchmarks`."""
