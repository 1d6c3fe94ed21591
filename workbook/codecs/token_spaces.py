"""What a policy predicts of a codec: tokens in layers, and the ways back from predicted tokens to actions.

G groups of tokens share a head: the steps of a chunk, or one group where the chunk is coded as a whole. Layer k of a
group has S tokens of L values each: tokens (N, G, S), probabilities (N, G, S, L).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from workbook.codecs.bins import UniformBins
from workbook.codecs.klt_rfsq import BRANCHES, FixedLength
from workbook.codecs.protocol import NOT_SENT, Codec, Fallible, Tokens, Weighable
from workbook.codecs.rfsq import RFSQCodec
from workbook.common.array import Array

Codes = NDArray[np.int64]
PART = 4096  # chunks encoded at once, which keeps the memory of a large data set small
MOST_JOINT_VALUES = 2401  # of one softmax: 7^4


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

    def expected(self, probabilities: Sequence[Array]) -> Array | None:
        """The decode of the mean of what the tokens stand for, were they independent: (N, C, A).

        None where it is not known what a token stands for.
        """
        ...

    def joint(self) -> TokenSpace | None:
        """The same codec with the nested codes of a latent as one token; None where none are, or it has too many."""
        ...


def expected_of_even(space: TokenSpace) -> Array | None:
    """The expected value (1, C, A) where all tokens are as likely; None where there is none."""
    return space.expected([np.full((1, space.groups, *size), 1 / size[1]) for size in space.sizes])


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
        return self.of_latents(np.asarray(sum(map(np.matmul, probabilities, self._values))))

    @cached_property
    def _values(self) -> list[Array]:
        """What each code of a layer adds to a latent: (L,)."""
        found = []
        for layer in self.codec.model.rfsq.quantizers:
            indices = torch.arange(layer.num_levels)
            found.append(layer.to_values(indices, *layer.constants()).double().numpy())
        return found

    def joint(self) -> TokenSpace | None:
        joint = JointSteps(self)
        return joint if self.layers > 1 and joint.sizes[0][1] <= MOST_JOINT_VALUES else None

    def of_latents(self, latents: Array) -> Array:
        """(N, C, S) latents -> (N, C, A) actions in controller units."""
        with torch.no_grad():
            return self._to_actions(torch.from_numpy(latents).float())

    def sums(self) -> Array:
        """What the codes of all layers add to a latent together, the last layer's code running fastest: (L**K,)."""
        total = np.zeros(1)
        for values in self._values[: self.layers]:
            total = np.add.outer(total, values).ravel()
        return total

    def _to_actions(self, latents: torch.Tensor) -> Array:
        return self.codec.normaliser.denormalise(self.codec.model.decoder(latents).double().numpy())


@dataclass(frozen=True, eq=False)
class JointSteps:
    """All codes of a latent of an RFSQ of single steps as one token, the first layer its most significant digit."""

    space: StepRFSQ

    @property
    def groups(self) -> int:
        return self.space.groups

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        places, levels = self.space.sizes[0]
        return ((places, levels**self.space.layers),)

    def tokens(self, chunks: Array) -> list[Codes]:
        return self.join(self.space.tokens(chunks))

    def join(self, apart: Sequence[Codes]) -> list[Codes]:
        """Tokens of the space of codes apart -> the same as joint ones."""
        return [_as_one(apart, self.space.sizes[0][1])]

    def decode(self, tokens: Sequence[Codes]) -> Array:
        return self.space.decode(_digits(tokens[0], self.space.sizes[0][1], self.space.layers))

    def expected(self, probabilities: Sequence[Array]) -> Array:
        return self.space.of_latents(probabilities[0] @ self.space.sums())

    def joint(self) -> TokenSpace | None:
        return None


def _as_one(digits: Sequence[Codes], base: int) -> Codes:
    """Digits, the most significant first -> the number that they write."""
    number = np.zeros_like(digits[0])
    for digit in digits:
        number = number * base + digit
    return number


def _digits(number: Codes, base: int, count: int) -> list[Codes]:
    """Inverse of `_as_one`."""
    return [number // base ** (count - 1 - k) % base for k in range(count)]


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

    def joint(self) -> TokenSpace | None:
        return None


@dataclass(frozen=True, eq=False)
class SequenceTokens:
    """Tokens of a chunk as a whole, all of one vocabulary, each place by itself.

    places: tokens of the longest chunk; where chunks `vary` in length, one value more says that a chunk has ended. Of
    tokens that a policy cannot say, those outside the vocabulary become its last, and those past the places are cut.
    """

    codec: Codec
    places: int
    vary: bool = False

    @property
    def groups(self) -> int:
        return 1

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        return ((self.places, self.codec.vocabulary + self.vary),)

    def tokens(self, chunks: Array) -> list[Codes]:
        parts = [self._filled(self.codec.encode(chunks[i : i + PART])) for i in range(0, len(chunks), PART)]
        return [np.concatenate(parts)[:, None]]

    def _filled(self, tokens: Tokens) -> Codes:
        """(N, places)"""
        sent = tokens.codes[:, : self.places]
        missing = ((0, 0), (0, self.places - sent.shape[1]))
        codes = np.pad(sent, missing, constant_values=NOT_SENT)
        ended, last = self.codec.vocabulary if self.vary else 0, self.codec.vocabulary - 1
        return np.where(codes == NOT_SENT, ended, np.minimum(codes, last))

    def decode(self, tokens: Sequence[Codes]) -> Array:
        return self.codec.decode(self._sent(tokens))

    def malformed(self, tokens: Sequence[Codes]) -> NDArray[np.bool_]:
        """(N,) which chunks the codec does not decode."""
        sent = self._sent(tokens)
        return self.codec.malformed(sent) if isinstance(self.codec, Fallible) else np.zeros(len(sent.codes), dtype=bool)

    def _sent(self, tokens: Sequence[Codes]) -> Tokens:
        codes = tokens[0][:, 0]
        ended = (codes == self.codec.vocabulary).cumsum(axis=1) > 0
        return Tokens(np.where(ended, NOT_SENT, codes), shared_alphabet=True)

    def expected(self, probabilities: Sequence[Array]) -> Array | None:
        if self.vary or not isinstance(self.codec, Weighable):
            return None
        return self.codec.expected(probabilities[0][:, 0])

    def joint(self) -> TokenSpace | None:
        return None


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
        return (*first, *((len(columns), BRANCHES) for columns in self.columns))

    @cached_property
    def columns(self) -> list[list[int]]:
        """Places in the codec's sequence of the residual codes of layer 0, 1, ..."""
        codes = self.codec.residual_codes
        offset = len(self.codec.model.grippers)
        depth = 1 + max((layer for *_, layer in codes), default=-1)
        return [[offset + i for i, (*_, layer) in enumerate(codes) if layer == k] for k in range(depth)]

    def tokens(self, chunks: Array) -> list[Codes]:
        codes = self.codec.encode(chunks).codes
        grippers = [codes[:, None, : len(self.codec.model.grippers)]] if self.codec.model.grippers else []
        return [*grippers, *(codes[:, None, columns] for columns in self.columns)]

    def decode(self, tokens: Sequence[Codes]) -> Array:
        """Codes that only some grippers have become their last one."""
        grippers, by_layer = self._apart(tokens)
        shape = (len(tokens[0]), len(self.codec.model.grippers) + len(self.codec.residual_codes))
        codes = np.full(shape, NOT_SENT, dtype=np.int64)
        for i, book in enumerate(self.codec.model.grippers):
            codes[:, i] = grippers[:, 0, i].clip(max=len(book.trajectories) - 1)
        for columns, layer in zip(self.columns, by_layer, strict=False):
            codes[:, columns] = layer[:, 0]
        return self.codec.decode(Tokens(codes))

    def _apart(self, tokens: Sequence[Codes]) -> tuple[Codes, Sequence[Codes]]:
        if not self.codec.model.grippers:
            return np.zeros((len(tokens[0]), 1, 0), dtype=np.int64), tokens
        return tokens[0], tokens[1:]

    def expected(self, probabilities: Sequence[Array]) -> Array:
        by_layer = list(probabilities[1:] if self.codec.model.grippers else probabilities)
        chunks = len(probabilities[0])
        return self.of_means(probabilities, lambda stack, latent: self._mean(stack, latent, by_layer, chunks))

    def of_means(self, probabilities: Sequence[Array], mean: Callable[[int, int], Array]) -> Array:
        """Actions (N, C, A) of the mean (N,) of each stack's each latent, and of the mean trajectory of each gripper,
        whose probabilities stand first.
        """
        model = self.codec.model
        latents = [
            np.stack([mean(number, i) for i in range(stack.width)], axis=1) for number, stack in enumerate(model.stacks)
        ]
        trajectories = []
        for i, book in enumerate(model.grippers):
            every = np.minimum(np.arange(probabilities[0].shape[-1]), len(book.trajectories) - 1)
            trajectories.append(probabilities[0][:, 0, i] @ book.trajectories[every])
        return model.actions(trajectories, latents)

    def joint(self) -> TokenSpace | None:
        joint = JointChunk(self)
        most = max((values for _, values in joint.sizes), default=0)
        return joint if len(self.columns) > 1 and most <= MOST_JOINT_VALUES else None

    def _mean(self, stack: int, latent: int, by_layer: Sequence[Array], chunks: int) -> Array:
        """Mean over the cells of a latent, each as likely as its residual codes together: (chunks,)."""
        order = self.codec.model.residual_codes
        offset = len(self.codec.model.grippers)
        share = np.ones((chunks, 1))
        layers = 0
        for columns, layer in zip(self.columns, by_layer, strict=False):
            places = [i for i, column in enumerate(columns) if order[column - offset][:2] == (stack, latent)]
            if not places:
                break
            share = (share[:, :, None] * layer[:, 0, places[0]][:, None]).reshape(len(share), -1)
            layers += 1
        return share @ self.codec.model.stacks[stack].centroids[layers][latent]


@dataclass(frozen=True, eq=False)
class JointChunk:
    """The gripper codes, then all residual codes of a latent as one token; a layer holds latents of equally many."""

    space: ChunkCodes

    @property
    def groups(self) -> int:
        return 1

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        first = self.space.sizes[: self._grippers]
        return (*first, *((len(latents), BRANCHES**depth) for depth, latents in self._by_depth.items()))

    @property
    def _grippers(self) -> int:
        """Layers that hold gripper codes: one or none."""
        return int(bool(self.space.codec.model.grippers))

    @cached_property
    def _places(self) -> dict[tuple[int, int], list[tuple[int, int]]]:
        """(stack, latent) -> layer and place, in the space of codes apart, of its residual codes, coarse to fine."""
        order, offset = self.space.codec.residual_codes, len(self.space.codec.model.grippers)
        found: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for layer, columns in enumerate(self.space.columns):
            for place, column in enumerate(columns):
                found.setdefault(order[column - offset][:2], []).append((layer + self._grippers, place))
        return found

    @cached_property
    def _by_depth(self) -> dict[int, list[tuple[int, int]]]:
        """Number of residual codes -> the latents that have so many."""
        depths = {latent: len(places) for latent, places in self._places.items()}
        return {depth: [key for key, own in depths.items() if own == depth] for depth in sorted(set(depths.values()))}

    @cached_property
    def _at(self) -> dict[tuple[int, int], tuple[int, int]]:
        """(stack, latent) -> its layer and place among the joint tokens."""
        layers = enumerate(self._by_depth.values(), start=self._grippers)
        return {latent: (layer, place) for layer, latents in layers for place, latent in enumerate(latents)}

    def tokens(self, chunks: Array) -> list[Codes]:
        return self.join(self.space.tokens(chunks))

    def join(self, apart: Sequence[Codes]) -> list[Codes]:
        """Tokens of the space of codes apart -> the same as joint ones."""
        joint = [
            np.stack([self._joined(apart, latent) for latent in latents], axis=-1)
            for latents in self._by_depth.values()
        ]
        return [*apart[: self._grippers], *joint]

    def _joined(self, apart: Sequence[Codes], latent: tuple[int, int]) -> Codes:
        return _as_one([apart[layer][..., place] for layer, place in self._places[latent]], BRANCHES)

    def decode(self, tokens: Sequence[Codes]) -> Array:
        apart = [np.zeros((len(tokens[0]), 1, places), dtype=np.int64) for places, _ in self.space.sizes]
        apart[: self._grippers] = tokens[: self._grippers]
        for latent, (at_layer, at_place) in self._at.items():
            places = self._places[latent]
            digits = _digits(tokens[at_layer][..., at_place], BRANCHES, len(places))
            for (layer, place), digit in zip(places, digits, strict=True):
                apart[layer][..., place] = digit
        return self.space.decode(apart)

    def expected(self, probabilities: Sequence[Array]) -> Array:
        stacks, chunks = self.space.codec.model.stacks, len(probabilities[0])

        def mean(stack: int, latent: int) -> Array:
            if (stack, latent) not in self._at:
                return np.full(chunks, stacks[stack].centroids[0][latent, 0])
            layer, place = self._at[stack, latent]
            depth = len(self._places[stack, latent])
            return np.asarray(probabilities[layer][:, 0, place] @ stacks[stack].centroids[depth][latent])

        return self.space.of_means(probabilities, mean)

    def joint(self) -> TokenSpace | None:
        return None
