"""What a policy predicts of a codec: tokens in layers, and the ways back from predicted tokens to actions.

G groups of tokens share a head: the steps of a chunk, or one group where the chunk is coded as a whole. Layer k of a
group has S tokens of L values each: tokens (N, G, S), probabilities (N, G, S, L).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from workbook.codecs.bins import UniformBins
from workbook.codecs.klt_rfsq import BRANCHES, FixedLength
from workbook.codecs.protocol import NOT_SENT, Tokens
from workbook.codecs.rfsq import RFSQCodec
from workbook.common.array import Array

Codes = NDArray[np.int64]
PART = 4096  # chunks encoded at once, which keeps the memory of a large data set small


class TokenSpace(Protocol):
    """A codec as a policy sees it. sizes: (S, L) of each layer, coarse to fine."""

    @property
    def groups(self) -> int: ...

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]: ...

    def tokens(self, chunks: Array) -> list[Codes]:
        """(N, C, A) actions in controller units -> one (N, G, S) array a layer."""
        ...

    def decode(self, tokens: Sequence[Codes]) -> Array:
        """Tokens of the first layers -> (N, C, A) actions in controller units."""
        ...

    def expected(self, probabilities: Sequence[Array]) -> Array:
        """The decode of the mean of what the tokens stand for, were they independent: (N, C, A)."""
        ...


@dataclass(frozen=True, eq=False)
class StepRFSQ:
    """The first layers of an RFSQ of single steps. Statistics that it needs are assumed: a policy tells none."""

    codec: RFSQCodec
    steps: int
    layers: int

    @property
    def groups(self) -> int:
        return self.steps

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        model = self.codec.model
        return ((model.hidden_dim, model.rfsq.num_levels),) * self.layers

    def tokens(self, chunks: Array) -> list[Codes]:
        codec = replace(self.codec, layers=self.layers)
        parts = [codec.encode(chunks[i : i + PART]).codes for i in range(0, len(chunks), PART)]
        return [np.concatenate([part[..., k] for part in parts]) for k in range(self.layers)]

    def decode(self, tokens: Sequence[Codes]) -> Array:
        return self.codec.decode(Tokens(np.stack(tokens, axis=-1)))

    def expected(self, probabilities: Sequence[Array]) -> Array:
        latents = sum(each @ values for each, values in zip(probabilities, self._values, strict=False))
        with torch.no_grad():
            return self._to_actions(torch.from_numpy(np.asarray(latents)).float())

    @cached_property
    def _values(self) -> list[Array]:
        """What each code of a layer adds to a latent: (L,)."""
        found = []
        for layer in self.codec.model.rfsq.quantizers:
            indices = torch.arange(layer.num_levels)
            found.append(layer.to_values(indices, *layer.constants()).double().numpy())
        return found

    def _to_actions(self, latents: torch.Tensor) -> Array:
        return self.codec.normaliser.denormalise(self.codec.model.decoder(latents).double().numpy())


@dataclass(frozen=True, eq=False)
class Bins:
    """One token a number."""

    codec: UniformBins
    steps: int

    @property
    def groups(self) -> int:
        return self.steps

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        return ((len(self.codec.normaliser.low), self.codec.num_bins),)

    def tokens(self, chunks: Array) -> list[Codes]:
        return [self.codec.encode(chunks).codes]

    def decode(self, tokens: Sequence[Codes]) -> Array:
        return self.codec.decode(Tokens(tokens[0]))

    def expected(self, probabilities: Sequence[Array]) -> Array:
        every = np.arange(self.codec.num_bins)[:, None, None] * np.ones((1, 1, len(self.codec.normaliser.low)))
        values = self.codec.decode(Tokens(every.astype(np.int64)))[:, 0]  # (bins, A)
        return np.einsum("ngsl,ls->ngs", probabilities[0], values)


@dataclass(frozen=True, eq=False)
class ChunkCodes:
    """KLT-RFSQ at a fixed length: the gripper codes, then the first residual code of each latent, its second, ..."""

    codec: FixedLength

    @property
    def groups(self) -> int:
        return 1

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        grippers = self.codec.model.grippers
        first = ((len(grippers), max(len(book.trajectories) for book in grippers)),) if grippers else ()
        return (*first, *((len(columns), BRANCHES) for columns in self._columns))

    @cached_property
    def _columns(self) -> list[list[int]]:
        """Places in the codec's sequence of the residual codes of layer 0, 1, ..."""
        codes = self.codec.residual_codes
        offset = len(self.codec.model.grippers)
        depth = 1 + max((layer for *_, layer in codes), default=-1)
        return [[offset + i for i, (*_, layer) in enumerate(codes) if layer == k] for k in range(depth)]

    def tokens(self, chunks: Array) -> list[Codes]:
        codes = self.codec.encode(chunks).codes
        grippers = [codes[:, None, : len(self.codec.model.grippers)]] if self.codec.model.grippers else []
        return [*grippers, *(codes[:, None, columns] for columns in self._columns)]

    def decode(self, tokens: Sequence[Codes]) -> Array:
        """Codes that only some grippers have become their last one."""
        grippers, by_layer = self._apart(tokens)
        shape = (len(tokens[0]), len(self.codec.model.grippers) + len(self.codec.residual_codes))
        codes = np.full(shape, NOT_SENT, dtype=np.int64)
        for i, book in enumerate(self.codec.model.grippers):
            codes[:, i] = grippers[:, 0, i].clip(max=len(book.trajectories) - 1)
        for columns, layer in zip(self._columns, by_layer, strict=False):
            codes[:, columns] = layer[:, 0]
        return self.codec.decode(Tokens(codes))

    def _apart(self, tokens: Sequence[Codes]) -> tuple[Codes, Sequence[Codes]]:
        if not self.codec.model.grippers:
            return np.zeros((len(tokens[0]), 1, 0), dtype=np.int64), tokens
        return tokens[0], tokens[1:]

    def expected(self, probabilities: Sequence[Array]) -> Array:
        model = self.codec.model
        by_layer = list(probabilities[1:] if model.grippers else probabilities)
        latents = []
        for number, stack in enumerate(model.stacks):
            means = [self._mean(number, i, by_layer, len(probabilities[0])) for i in range(stack.width)]
            latents.append(np.stack(means, axis=1))
        trajectories = []
        for i, book in enumerate(model.grippers):
            every = np.minimum(np.arange(probabilities[0].shape[-1]), len(book.trajectories) - 1)
            trajectories.append(probabilities[0][:, 0, i] @ book.trajectories[every])
        return model.actions(trajectories, latents)

    def _mean(self, stack: int, latent: int, by_layer: Sequence[Array], chunks: int) -> Array:
        """Mean over the cells of a latent, each as likely as its residual codes together: (chunks,)."""
        order = self.codec.model.residual_codes
        offset = len(self.codec.model.grippers)
        share = np.ones((chunks, 1))
        layers = 0
        for columns, layer in zip(self._columns, by_layer, strict=False):
            places = [i for i, column in enumerate(columns) if order[column - offset][:2] == (stack, latent)]
            if not places:
                break
            share = (share[:, :, None] * layer[:, 0, places[0]][:, None]).reshape(len(share), -1)
            layers += 1
        return share @ self.codec.model.stacks[stack].centroids[layers][latent]
