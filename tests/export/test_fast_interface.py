"""A program that was written for FAST's tokenizer runs with those of RFSQ: only the line that makes them differs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fast_style import FastStyleTokenizer
from made_up import Array

from rfsq_tokenizer import RFSQTokenizer
from workbook.export.klt_tokenizer import KltTokenizer

STEPS, DIMENSIONS = 8, 7


def smooth_chunks(count: int, seed: int) -> Array:
    """(count, 8, 7) actions within -1 to 1 that turn slowly, each with a start and a speed of its own."""
    rng = np.random.default_rng(seed)
    phase, speed = rng.uniform(0, 6, (2, count, 1, DIMENSIONS))
    return np.sin(phase + speed / 8 * np.arange(STEPS)[:, None]) * np.linspace(0.3, 0.95, DIMENSIONS)


TRAIN, HELD_OUT = smooth_chunks(400, 0), smooth_chunks(30, 1)


def use(tokenizer: Any, folder: Path) -> tuple[float, list[list[int]]]:
    """What a trainer of policies does with a tokenizer: the error relative to the variance, and the tokens."""
    tokenizer = tokenizer.fit(TRAIN)
    tokens = tokenizer(HELD_OUT)
    assert isinstance(tokens, list)
    assert len(tokens) == len(HELD_OUT)
    assert all(type(id_) is int and 0 <= id_ < tokenizer.vocab_size for ids in tokens for id_ in ids)
    assert tokenizer(HELD_OUT[3]) == tokens[3:4]

    assert (tokenizer.time_horizon, tokenizer.action_dim) == (STEPS, DIMENSIONS)
    decoded = tokenizer.decode(tokens)
    assert decoded.shape == HELD_OUT.shape
    named = tokenizer.decode(tokens, time_horizon=STEPS, action_dim=DIMENSIONS)
    np.testing.assert_array_equal(named, decoded)
    np.testing.assert_allclose(tokenizer.decode(tokens[3:4])[0], decoded[3], rtol=0, atol=1e-6)

    tokenizer.save_pretrained(folder)
    loaded = type(tokenizer).from_pretrained(folder, trust_remote_code=True)
    assert loaded.vocab_size == tokenizer.vocab_size
    assert loaded(HELD_OUT) == tokens
    np.testing.assert_array_equal(loaded.decode(tokens), decoded)
    return float(((decoded - HELD_OUT) ** 2).mean() / HELD_OUT.var()), tokens


def test_a_fast_style_tokenizer(tmp_path: Path) -> None:
    tokenizer = FastStyleTokenizer.fit(TRAIN)
    error, tokens = use(tokenizer, tmp_path)
    assert error < 0.01
    assert len(set(map(len, tokens))) > 1


def test_the_rfsq_tokenizer(tmp_path: Path) -> None:
    tokenizer = RFSQTokenizer.fit(TRAIN, epochs=2)
    error, tokens = use(tokenizer, tmp_path)
    assert error < 0.01
    assert set(map(len, tokens)) == {tokenizer.tokens_per_chunk}


def test_the_klt_tokenizer(tmp_path: Path) -> None:
    """37 tokens where the autoencoder has 384; more than half of the error is of the seventh number, a gripper's."""
    tokenizer = KltTokenizer.fit(TRAIN)
    error, tokens = use(tokenizer, tmp_path)
    assert error < 0.06
    assert set(map(len, tokens)) == {tokenizer.tokens_per_chunk}


@pytest.mark.parametrize("chunks", [list(TRAIN[:40]), TRAIN[:40]])
def test_train_chunks_may_be_a_list_or_an_array(chunks: list[Array] | Array) -> None:
    assert FastStyleTokenizer.fit(chunks).time_horizon == STEPS
    assert RFSQTokenizer.fit(chunks, epochs=2).time_horizon == STEPS
    assert KltTokenizer.fit(chunks).time_horizon == STEPS


def test_a_broken_sequence_becomes_zeros_in_one_and_a_motion_in_the_others() -> None:
    """Half of a chunk's tokens: what a policy sends that stops early."""
    fast = FastStyleTokenizer.fit(TRAIN)
    [ids] = fast(HELD_OUT[0])
    nothing = fast.codec.normaliser.centre
    np.testing.assert_allclose(fast.decode([ids[: len(ids) // 2]])[0], np.tile(nothing, (STEPS, 1)), atol=1e-12)
    for residual in (RFSQTokenizer.fit(TRAIN, epochs=20), KltTokenizer.fit(TRAIN)):
        [ids] = residual(HELD_OUT[0])
        whole, half = residual.decode([ids])[0], residual.decode([ids[: len(ids) // 2]])[0]
        assert ((half - whole) ** 2).mean() < 0.1 * HELD_OUT.var()
