"""Plain rounding of every number to equal bins: the baseline that any codec should beat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workbook.codecs.protocol import Tokens
from workbook.common.array import Array
from workbook.data.chunks import Normaliser


@dataclass(frozen=True, eq=False)
class UniformBins:
    """Each number of an action rounded to the centre of one of `num_bins` equal bins between train min and max.

    A dimension that never moved in training has no width, and all its bins decode to its one value.
    """

    num_bins: int
    normaliser: Normaliser

    @property
    def name(self) -> str:
        return f"bins{self.num_bins}"

    @property
    def vocabulary(self) -> int:
        return self.num_bins

    def encode(self, chunks: Array) -> Tokens:
        bins = np.floor((self.normaliser.normalise(chunks) + 1) / 2 * self.num_bins)
        return Tokens(np.clip(bins, 0, self.num_bins - 1).astype(np.int64))

    def decode(self, tokens: Tokens) -> Array:
        centres = (tokens.codes + 0.5) / self.num_bins * 2 - 1
        return self.normaliser.denormalise(np.where(self.normaliser.moves, centres, 0.0))

    def bits(self, tokens: Tokens) -> float:
        return float(np.prod(tokens.codes.shape[1:]) * np.log2(self.num_bins))
