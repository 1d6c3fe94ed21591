"""What every codec does: chunks to tokens and back. Evaluation sees nothing but what `encode` returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from workbook.common.array import Array

SIDE_BITS = 16  # one transmitted statistic, as float16
NOT_SENT = -1  # in codes of variable length: nothing stands here, and nothing is paid
MOST_VALUES = 2**12  # of a code, that are counted at all places at once


@dataclass(frozen=True, eq=False)
class Tokens:
    """All that a decoder gets: N chunks of C steps.

    codes: integers, (N, C, ...) where each step has codes of its own, (N, J) where a chunk is coded as a whole; there
    the sequence of a chunk may end early, in NOT_SENT. side: (N, C, ...) side information as 16-bit words, or None.
    shared_alphabet: a code means the same wherever it stands, as in text.
    """

    codes: NDArray[np.int64]
    side: NDArray[np.uint16] | None = None
    shared_alphabet: bool = False

    @property
    def of_whole_chunks(self) -> bool:
        return self.codes.ndim == 2

    @property
    def sent(self) -> NDArray[np.bool_]:
        return self.codes != NOT_SENT

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each chunk: (N,)."""
        return self.sent.reshape(len(self.codes), -1).sum(axis=1)


class Codec(Protocol):
    """A fitted codec. Fitting is construction, from train episodes only; what it needs differs from codec to codec."""

    @property
    def name(self) -> str: ...

    @property
    def vocabulary(self) -> int:
        """How many values the largest of its tokens can take."""
        ...

    def encode(self, chunks: Array) -> Tokens:
        """(N, C, A) actions in controller units -> tokens."""
        ...

    def decode(self, tokens: Tokens) -> Array:
        """Tokens -> (N, C, A) actions in controller units."""
        ...

    def bits(self, tokens: Tokens) -> float:
        """Bits that one chunk costs, side information included; the mean over these chunks where length varies."""
        ...


@runtime_checkable
class Uneven(Protocol):
    """A codec whose tokens take unequally many values."""

    @property
    def levels(self) -> NDArray[np.int64]:
        """Values that the token at each place of a chunk can take, in the order in which they are sent: (J,)."""
        ...


@runtime_checkable
class Fallible(Protocol):
    """A codec that cannot decode every sequence of its tokens, and makes something of those that it cannot."""

    def malformed(self, tokens: Tokens) -> NDArray[np.bool_]:
        """Which sequences it cannot decode: (N,)."""
        ...


@runtime_checkable
class Weighable(Protocol):
    """A codec of which it may be known what each token stands for: numbers, of which there is a mean."""

    def expected(self, probabilities: Array) -> Array | None:
        """(N, J, values) of each token -> (N, C, A) the decode of the mean of what tokens stand for; None without."""
        ...


def levels_of(codec: Codec, tokens: Tokens) -> NDArray[np.int64]:
    """How many values each token of a chunk can take, in the order in which they are sent: (J,)."""
    places = int(np.prod(tokens.codes.shape[1:]))
    return codec.levels if isinstance(codec, Uneven) else np.full(places, codec.vocabulary)


def code_entropy(tokens: Tokens, valid: NDArray[np.bool_]) -> Array:
    """Empirical entropy in bits of each code of a step, over all valid (N, C) steps: codes (N, C, ...) -> (...).

    Of whole chunks, of each place in the sequence: codes (N, J) -> (J,). Each code taken for itself (order 0), so a
    sum over codes is an upper bound of their joint entropy. A code that is not always sent counts as often as it is;
    whether it is sent, an end before it has said.
    """
    codes = tokens.codes if tokens.of_whole_chunks else tokens.codes[valid]
    flat = codes.reshape(len(codes), -1)
    sent = flat != NOT_SENT
    if not sent.any():
        return np.zeros(codes.shape[1:])
    counts = _counts(flat, sent)
    share_sent = sent.mean(axis=0)
    shares = counts / len(codes) / np.where(share_sent > 0, share_sent, 1.0)
    entropy = -np.sum(shares * np.log2(np.where(shares > 0, shares, 1.0)), axis=0) * share_sent + 0.0
    return entropy.reshape(codes.shape[1:])


def _counts(flat: NDArray[np.int64], sent: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How often each value is sent at each place: (N, J) -> (values, J)."""
    least, greatest = int(flat[sent].min()), int(flat[sent].max())
    values = greatest - least + 1
    if values > MOST_VALUES:
        symbols = np.unique(flat[sent])
        return np.stack([(flat == symbol).sum(axis=0) for symbol in symbols])
    places = flat - least + values * np.arange(flat.shape[1])
    return np.bincount(places[sent], minlength=values * flat.shape[1]).reshape(-1, values).T.copy()


def entropy_bits(tokens: Tokens, valid: NDArray[np.bool_]) -> float:
    """Bits of one chunk if each code were stored at its empirical entropy; side information stays at full length."""
    steps = 1 if tokens.of_whole_chunks else tokens.codes.shape[1]
    side_bits = 0 if tokens.side is None else np.prod(tokens.side.shape[1:]) * SIDE_BITS
    if tokens.shared_alphabet:
        alike = Tokens(tokens.codes[tokens.sent][:, None])
        return float(code_entropy(alike, valid).sum() * tokens.lengths.mean() + side_bits)
    return float(code_entropy(tokens, valid).sum() * steps + side_bits)
