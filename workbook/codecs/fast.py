"""A tokenizer in the manner of FAST: cosine transform over time, rounding, byte-pair encoding.

FAST (arXiv 2501.09747): normalise, orthonormal DCT-II over the steps of a chunk, multiply by a scale, round, flatten
low frequencies first, and merge frequent pairs of symbols to tokens. Sequences vary in length.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, trainers

from workbook.codecs.protocol import NOT_SENT, Codec, Tokens
from workbook.common.array import Array
from workbook.data.chunks import Normaliser

VOCABULARY = 1024  # FAST's
SCALES = (0.1, 200.0)  # between which the scale of a rate is looked for
MOST_TRIES = 24
INTERPOLATED = 12  # of these tries
SAME_SCALE = 1.01  # a ratio below which two scales are not told apart
SCALES_AROUND = 21
WORTH_A_FIT = 0.97  # of the error
SHARES = (0.05, 0.95)  # of the way between two scales, so that a search never stands still
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
        return np.ascontiguousarray(symbols, np.uint32).view(f"U{symbols.shape[1]}")[:, 0].tolist()


Cost = Callable[[Codec, Tokens], float]  # of a chunk


def bits_of(codec: Codec, tokens: Tokens) -> float:
    return codec.bits(tokens)


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


def scales_around(spent: Mapping[float, float], wanted: float) -> tuple[float, float] | None:
    """Two neighbouring scales, of which one costs more than wanted and one does not: the nearest to each other.

    None where all cost more, or none does. A larger scale costs more by and large, not everywhere.
    """
    pairs = [each for each in pairwise(sorted(spent)) if len({spent[scale] > wanted for scale in each}) == 2]
    return min(pairs, key=lambda each: each[1] / each[0], default=None)


@dataclass(frozen=True, eq=False)
class FastScales:
    """FAST-style tokens, fitted on train chunks, at the scales at which validation chunks cost so and so much.

    On chunks that its merges were fitted to, a codec would seem to need fewer tokens than it does on others. Scales
    that were fitted are kept, and the next search begins between them: what it finds depends on those before.
    """

    train: Array
    validation: Array
    normaliser: Normaliser
    clips: bool = False
    _fitted: dict[float, tuple[FastCodec, Tokens]] = field(default_factory=dict)

    def codec(self, scale: float) -> FastCodec:
        if scale not in self._fitted:
            codec = FastCodec.fit(self.train, self.normaliser, scale, self.clips)
            self._fitted[scale] = codec, codec.encode(self.validation)
        return self._fitted[scale][0]

    def spent(self, cost: Cost) -> dict[float, float]:
        """Scale -> what a validation chunk costs."""
        return {scale: cost(*each) for scale, each in self._fitted.items()}

    def at(self, wanted: float, cost: Cost = bits_of, within: float = RATE_TOLERANCE) -> FastCodec:
        """Of the scales that are tried, that at which validation chunks cost nearest to what is wanted.

        The search ends within this share of it, or beside a jump of the cost, as where merges change: another scale
        farther off may cost what is wanted. Between two scales the cost is taken for a power of the scale, which it
        nearly is; after some tries the way is halved.
        """
        for end in SCALES:
            self.codec(end)
        for tries in range(MOST_TRIES):
            spent = self.spent(cost)
            around = scales_around(spent, wanted)
            if around is None or min(abs(each - wanted) for each in spent.values()) <= within * wanted:
                break
            low, high = around
            if high / low < SAME_SCALE:
                break
            share = np.log(wanted / spent[low]) / np.log(spent[high] / spent[low]) if tries < INTERPOLATED else 0.5
            self.codec(float(low * (high / low) ** np.clip(share, *SHARES)))
        spent = self.spent(cost)
        return self.codec(min(spent, key=lambda scale: abs(spent[scale] - wanted)))

    def best_at(self, wanted: float, cost: Cost, within: float) -> FastCodec | None:
        """Of the scales at which validation chunks cost what is wanted, to within a share, that of least error.

        Rounding is finer at a larger scale only by and large: a gripper that stands still is hit at some and missed
        between. None where no scale costs so much.
        """
        found = self.at(wanted, cost, within).scale
        around = map(float, found * np.linspace(1 - within, 1 + within, SCALES_AROUND))
        best = min(around, key=self.rounding_error)
        if self.rounding_error(best) < WORTH_A_FIT * self.rounding_error(found):
            self.codec(best)
        near = [scale for scale, spent in self.spent(cost).items() if abs(spent - wanted) <= within * wanted]
        return self.codec(min(near, key=self.rounding_error)) if near else None

    def rounding_error(self, scale: float) -> float:
        """MSE of validation chunks, whose tokens lose nothing but what rounding does; as the normaliser measures."""
        return float(((np.rint(self._frequencies * scale) / scale - self._frequencies) ** 2).mean())

    @cached_property
    def _frequencies(self) -> Array:
        normalised = self.normaliser.normalise(self.validation)
        return np.einsum("kt,nta->nka", cosines(normalised.shape[1]), normalised)
