"""Tokenized demonstrations played again in the simulator: what the error of a codec does to the task's success."""
