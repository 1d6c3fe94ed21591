"""What codecs and policies are worth, as rows: the one place that encodes, decodes and measures."""
