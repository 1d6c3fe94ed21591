"""What each RFSQ layer gets, says and is worth.

Rows: codec, seed, layer | residual_std (of what enters it, in latent units), entropy_bits (mean of its codes),
majority_share (`majority_share`). One row more, of the layer after the last, has the std of what is left over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rfsq_robust import Conditioning
from workbook.codecs.catalogue import CONDITIONED
from workbook.codecs.protocol import Tokens, code_entropy
from workbook.codecs.rfsq import DEAD_BELOW_BITS, RFSQCodec, enough
from workbook.common.array import Array
from workbook.common.intervals import Estimate
from workbook.evaluation.score import HeldOut, Scores

WITH_STATISTICS = {"layernorm": "layernorm_sent"}  # without them no prefix of these tokens would mean anything


def layer_rows(rfsq: Mapping[Conditioning, Sequence[RFSQCodec]], seeds: Sequence[int], test: HeldOut) -> pd.DataFrame:
    """Rows of every conditioning's models on held-out episodes."""
    frames = []
    for conditioning, codecs in rfsq.items():
        named = seeds if len(codecs) == len(seeds) else range(len(codecs))
        for codec, seed in zip(codecs, named, strict=True):
            frames.append(of_codec(codec, test).assign(codec=CONDITIONED[conditioning], seed=seed))
    return pd.concat(frames, ignore_index=True)


def of_codec(codec: RFSQCodec, test: HeldOut) -> pd.DataFrame:
    """The rows of one model, without its name and seed."""
    chunks, valid = test.chunks.actions, test.chunks.valid
    std = codec.residual_std(chunks[valid])
    codes = codec.encode(chunks).codes
    entropy = code_entropy(Tokens(codes), valid).mean(axis=0)
    nothing = [np.nan]
    return pd.DataFrame({
        "layer": range(len(std)),
        "residual_std": std,
        "entropy_bits": [*entropy, *nothing],
        "majority_share": [*majority_share(codes[valid]), *nothing],
    })  # fmt: skip


def code_rows(rfsq: Mapping[Conditioning, Sequence[RFSQCodec]], test: HeldOut) -> pd.DataFrame:
    """Codes of one held-out step by each conditioning's first model: codec, layer, latent | code."""
    chunk = test.chunks.actions[len(test.chunks.actions) // 2 :][:1]
    frames = []
    for conditioning, codecs in rfsq.items():
        codes = codecs[0].encode(chunk).codes[0, 0]  # (H, K)
        latent, layer = np.indices(codes.shape)
        named = {"codec": CONDITIONED[conditioning], "layer": layer.ravel(), "latent": latent.ravel()}
        frames.append(pd.DataFrame(named | {"code": codes.ravel()}))
    return pd.concat(frames, ignore_index=True)


def majority_share(codes: NDArray[np.int64]) -> Array:
    """Share of each layer's codes that are of the majority class at their place: (steps, H, K) -> (K,).

    What a policy scores as token accuracy if it always answers with the most common code.
    """
    shares = np.stack([(codes == symbol).mean(axis=0) for symbol in range(int(codes.max()) + 1)])
    return shares.max(axis=0).mean(axis=0)


@dataclass(frozen=True, eq=False)
class Layers:
    """The rows, with the errors of every prefix, and what follows from them. codes: `code_rows`."""

    rows: pd.DataFrame
    scores: Scores
    codes: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def count(self) -> int:
        return int(self.rows.layer.max())

    def per_seed(self, codec: str, column: str) -> Array:
        """(S, K) of one column, or (S, K + 1) of the residual's std."""
        rows = self.rows[self.rows.codec == codec].sort_values(["seed", "layer"])
        values = rows[column].to_numpy().reshape(rows.seed.nunique(), -1)
        return values if column == "residual_std" else values[:, :-1]

    def mean(self, codec: str, column: str) -> Array:
        return self.per_seed(codec, column).mean(axis=0)

    def dead(self, codec: str) -> list[int]:
        """Layers whose codes carry next to nothing, whatever the seed."""
        entropy = self.per_seed(codec, "entropy_bits")
        return [k for k in range(entropy.shape[1]) if entropy[:, k].max() < DEAD_BELOW_BITS]

    def of_one_step(self, codec: str) -> NDArray[np.int64]:
        """(K, H) codes of one held-out step, layer by layer."""
        rows = self.codes[self.codes.codec == codec]
        return rows.pivot(index="layer", columns="latent", values="code").to_numpy()

    def prefix_mse(self, codec: str) -> list[Estimate]:
        """MSE after 1, 2, ... K layers; LayerNorm's with the statistics sent."""
        name = WITH_STATISTICS.get(codec, codec)
        return [self.scores.estimate("mse", name, f"layers={k}") for k in range(1, self.count + 1)]

    def enough(self, codec: str) -> int:
        """The fewest first layers whose MSE is within 5 % of that of all layers."""
        return enough([float(estimate.mean or 0.0) for estimate in self.prefix_mse(codec)])
