"""A tokenizer in the manner of FAST: cosine transform over time, rounding, byte-pair encoding.

FAST (arXiv 2501.09747): normalise, orthonormal DCT-II over the steps of a chunk, multiply by a scale, round, flatten
low frequencies first, and merge frequent pairs of symbols to tokens. Sequences vary in length.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, trainers

from workbook.codecs.protocol import NOT_SENT, Tokens
from workbook.common.array import Array
from workbook.data.chunks import Normaliser

VOCABULARY = 1024  # FAST's
SCALES = (0.1, 200.0)  # between which the scale of a rate is looked for
MOST_TRIES = 12
RATE_TOLERANCE = 0.01
FIRST_SYMBOL = 0x4E00  # of a run of characters without special meaning, one for each rounded coefficient


@dataclass(frozen=True, eq=False)
class FastCodec:
    """Fitted by `fit`. low, high: the least and greatest rounded coefficient of the train chunks."""

    normaliser: Normaliser
    scale: float
    shape: tuple[int, int]
    low: int
    high: int
    tokenizer: Tokenizer
    clips: bool

    @property
    def name(self) -> str:
        return f"fast{self.scale:g}" + (" q01-q99" if self.clips else "")

    @property
    def vocabulary(self) -> int:
        return self.tokenizer.get_vocab_size()

    @staticmethod
    def fit(train: Array, normaliser: Normaliser, scale: float, clips: bool = False) -> FastCodec:
        """Fit on (N, C, A) train chunks in controller units; `clips` to [-1, 1] after normalising, as FAST does."""
        empty = FastCodec(normaliser, scale, train.shape[1:], 0, 0, Tokenizer(models.BPE()), clips)
        coefficients = empty._coefficients(train)
        low, high = int(coefficients.min()), int(coefficients.max())
        codec = FastCodec(normaliser, scale, train.shape[1:], low, high, Tokenizer(models.BPE()), clips)
        alphabet = [chr(FIRST_SYMBOL + i) for i in range(high - low + 1)]
        trainer = trainers.BpeTrainer(
            vocab_size=max(VOCABULARY, len(alphabet)),
            initial_alphabet=alphabet,
            limit_alphabet=len(alphabet),
            show_progress=False,
        )
        codec.tokenizer.train_from_iterator(codec._texts(coefficients), trainer)
        return codec

    def encode(self, chunks: Array) -> Tokens:
        sequences = [found.ids for found in self.tokenizer.encode_batch(self._texts(self._coefficients(chunks)))]
        codes = np.full((len(chunks), max(map(len, sequences), default=0)), NOT_SENT, dtype=np.int64)
        for row, ids in zip(codes, sequences, strict=True):
            row[: len(ids)] = ids
        return Tokens(codes, shared_alphabet=True)

    def decode(self, tokens: Tokens) -> Array:
        """A sequence that does not hold one symbol a coefficient becomes zeros, as FAST's decoder makes it."""
        coefficients = np.zeros((len(tokens.codes), self.shape[0] * self.shape[1]))
        for row, symbols in zip(coefficients, self._symbols(tokens), strict=True):
            if len(symbols) == len(row):
                row[:] = np.array(symbols) - FIRST_SYMBOL + self.low
        frequencies = coefficients.reshape(-1, *self.shape) / self.scale
        return self.normaliser.denormalise(np.einsum("kt,nka->nta", cosines(self.shape[0]), frequencies))

    def malformed(self, tokens: Tokens) -> NDArray[np.bool_]:
        """(N,) which sequences do not hold one symbol a coefficient."""
        return np.array([len(each) != self.shape[0] * self.shape[1] for each in self._symbols(tokens)], dtype=bool)

    def _symbols(self, tokens: Tokens) -> list[list[int]]:
        """What each sequence spells."""
        spelled = {code: list(map(ord, token)) for token, code in self.tokenizer.get_vocab().items()}
        rows = zip(tokens.codes, tokens.sent, strict=True)
        return [[symbol for code in codes[sent] for symbol in spelled[code]] for codes, sent in rows]

    def bits(self, tokens: Tokens) -> float:
        """The mean; no end mark is counted, for a chunk is complete with its last coefficient."""
        return float(tokens.lengths.mean() * np.log2(self.vocabulary))

    def _coefficients(self, chunks: Array) -> NDArray[np.int64]:
        """(N, C, A) -> (N, C * A), low frequencies first."""
        normalised = self.normaliser.normalise(chunks)
        if self.clips:
            normalised = normalised.clip(-1, 1)
        frequencies = np.einsum("kt,nta->nka", cosines(self.shape[0]), normalised)
        return np.rint(frequencies * self.scale).astype(np.int64).reshape(len(chunks), -1)

    def _texts(self, coefficients: NDArray[np.int64]) -> list[str]:
        """One character a coefficient; those beyond the range of the train chunks become its ends."""
        symbols = coefficients.clip(self.low, self.high) - self.low + FIRST_SYMBOL
        return ["".join(map(chr, row)) for row in symbols]


def cosines(length: int) -> Array:
    """Orthonormal DCT-II: (frequencies, steps)."""
    frequency, step = np.arange(length)[:, None], np.arange(length)[None]
    basis = np.sqrt(2 / length) * np.cos(np.pi * (step + 0.5) * frequency / length)
    basis[0] /= np.sqrt(2)
    return basis


def quantile_normaliser(actions: Array) -> Normaliser:
    """FAST's own: the 1st and 99th percentile of (T, A) train actions to -1 and 1."""
    low, high = np.quantile(actions, [0.01, 0.99], axis=0)
    return Normaliser(low, high)


def fit_fast_at(train: Array, validation: Array, normaliser: Normaliser, bits: float) -> FastCodec:
    """FAST-style tokens, fitted on train chunks, at the scale at which a validation chunk costs about so many bits.

    On chunks that its merges were fitted to, it would seem to need fewer than it does on others.
    """
    low, high = SCALES
    for _ in range(MOST_TRIES):
        scale = float(np.sqrt(low * high))
        codec = FastCodec.fit(train, normaliser, scale)
        spent = codec.bits(codec.encode(validation))
        if abs(spent - bits) < RATE_TOLERANCE * bits:
            break
        low, high = (scale, high) if spent < bits else (low, scale)
    return codec
