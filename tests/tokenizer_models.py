"""Tokenizers of models that have been used, and sequences for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from made_up import Array
from models import ACTION_DIM, uniform, used_model
from numpy.typing import ArrayLike

from rfsq_robust import Checkpoint, Conditioning
from rfsq_tokenizer import RFSQTokenizer

CHUNK_LEN = 4
LOW = torch.tensor([-1.0, -0.9, -1 / 3, -0.7, -0.1, -2.5, -1.0], dtype=torch.float64)
HIGH = torch.tensor([0.95, 0.7, 0.5, np.pi, 0.3, 2.0, 1.0], dtype=torch.float64)
Sequences = list[list[int]]


def checkpoint_of(conditioning: Conditioning = "scale", **sizes: int) -> Checkpoint:
    """H = 6, K = 3, L = 5, where not said otherwise, with a range here and there wider than the controller's."""
    return Checkpoint(used_model(conditioning, **sizes), 7, 0.25, {"min": LOW, "max": HIGH})


def make_tokenizer(
    conditioning: Conditioning = "scale",
    layers: int | None = None,
    chunk_len: int = CHUNK_LEN,
    offset: int = 0,
    limit: ArrayLike = 1.0,
    **sizes: int,
) -> RFSQTokenizer:
    return RFSQTokenizer(checkpoint_of(conditioning, **sizes), layers, chunk_len, offset, limit)


def chunks_for(tokenizer: RFSQTokenizer, count: int = 5, seed: int = 0) -> Array:
    """(count, C, A) raw actions within the train range."""
    shares = uniform(count, tokenizer.chunk_len, ACTION_DIM, seed=seed).double() / 2 + 0.5
    return (LOW + shares * (HIGH - LOW)).numpy()


def random_sequences(rng: np.random.Generator, tokenizer: RFSQTokenizer, count: int) -> Sequences:
    """Lengths and ids uniform over all that a policy may say."""
    first, longest = tokenizer.offset, tokenizer.tokens_per_chunk
    ids = rng.integers(first, first + tokenizer.vocab_size, (count, longest)).tolist()
    lengths = rng.integers(1, longest + 1, count).tolist()
    return [row[:length] for row, length in zip(ids, lengths, strict=True)]


def refusal(attempt: Callable[[], Any]) -> str:
    """The message with which something is refused, checked to be one sentence on one line."""
    with pytest.raises(ValueError, match=r"\S") as raised:
        attempt()
    message = str(raised.value)
    assert "\n" not in message
    assert len(message) < 500
    return message
