"""Codecs: chunks of actions to tokens and back. Evaluation sees nothing but what `encode` returns."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from rfsq_robust import ActionRFSQAE, load_checkpoint
from workbook.chunks import Array, Chunks, Normaliser

SIDE_BITS = 16  # one transmitted statistic, as float16


@dataclass(frozen=True, eq=False)
class Tokens:
    """All that a decoder gets: N chunks of C steps.

    codes: (N, C, ...) integers. side: (N, C, ...) side information as 16-bit words, or None.
    """

    codes: NDArray[np.int64]
    side: NDArray[np.uint16] | None = None


class Codec(Protocol):
    """A fitted codec. Fitting is construction, from train episodes only; what it needs differs from codec to codec."""

    @property
    def name(self) -> str: ...

    def encode(self, chunks: Array) -> Tokens:
        """(N, C, A) actions in controller units -> tokens."""
        ...

    def decode(self, tokens: Tokens) -> Array:
        """Tokens -> (N, C, A) actions in controller units."""
        ...

    def bits(self, tokens: Tokens) -> float:
        """Bits that one chunk costs at fixed length, side information included."""
        ...


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

    def encode(self, chunks: Array) -> Tokens:
        bins = np.floor((self.normaliser.normalise(chunks) + 1) / 2 * self.num_bins)
        return Tokens(np.clip(bins, 0, self.num_bins - 1).astype(np.int64))

    def decode(self, tokens: Tokens) -> Array:
        centres = (tokens.codes + 0.5) / self.num_bins * 2 - 1
        return self.normaliser.denormalise(np.where(self.normaliser.moves, centres, 0.0))

    def bits(self, tokens: Tokens) -> float:
        return float(np.prod(tokens.codes.shape[1:]) * np.log2(self.num_bins))


@dataclass(frozen=True, eq=False)
class RFSQCodec:
    """The RFSQ autoencoder behind the codec protocol.

    statistics, for `layernorm` alone, whose codes need each vector's mean and std:
        "assumed": tokens are the codes; the decoder, not knowing better, assumes mean 0 and std 1
        "sent": tokens are the codes and the statistics as float16, counted
    """

    name: str
    model: ActionRFSQAE
    normaliser: Normaliser
    statistics: Literal["assumed", "sent"] = "assumed"

    def encode(self, chunks: Array) -> Tokens:
        codes, stats = self.model.encode(self._to_tensor(chunks), return_stats=True)
        if stats is None or self.statistics == "assumed":
            return Tokens(codes.numpy())
        return Tokens(codes.numpy(), stats.half().numpy().view(np.uint16))

    def decode(self, tokens: Tokens) -> Array:
        codes = torch.from_numpy(tokens.codes)
        return self._to_actions(self.model.decode_from_indices(codes, self._statistics(tokens)))

    def bits(self, tokens: Tokens) -> float:
        code_bits = np.prod(tokens.codes.shape[1:]) * np.log2(self.model.rfsq.num_levels)
        side_bits = 0 if tokens.side is None else np.prod(tokens.side.shape[1:]) * SIDE_BITS
        return float(code_bits + side_bits)

    @torch.no_grad()
    def forward(self, chunks: Array) -> Array:
        """What the model's forward pass gives: the figure that training reports, and not a decode."""
        return self._to_actions(self.model(self._to_tensor(chunks))[0])

    @torch.no_grad()
    def decode_error(self, chunks: Array) -> float:
        """Largest |decode(codes alone) - forward| in normalised units; 0.0 means that tokens decode exactly."""
        x = self._to_tensor(chunks)
        codes = self.model.encode(x)
        decoded = self.model.decode_from_indices(codes, self._statistics(Tokens(codes.numpy())))
        return float((decoded - self.model(x)[0]).abs().max())

    def residual_std(self, chunks: Array) -> Array:
        """Std of the residual that enters each layer and of what the last one leaves: (K+1,)."""
        return self.model.residual_std(self._to_tensor(chunks)).double().numpy()

    def _statistics(self, tokens: Tokens) -> torch.Tensor | None:
        if self.model.conditioning != "layernorm":
            return None
        if tokens.side is not None:
            return torch.from_numpy(tokens.side.view(np.float16)).float()
        *lead, _, layers = tokens.codes.shape
        return torch.tensor([0.0, 1.0]).expand(*lead, layers, 2)

    def _to_tensor(self, chunks: Array) -> torch.Tensor:
        return torch.from_numpy(self.normaliser.normalise(chunks)).float()

    def _to_actions(self, normalised: torch.Tensor) -> Array:
        return self.normaliser.denormalise(normalised.double().numpy())


@dataclass(frozen=True, eq=False)
class RefittedDecoder:
    """The codes of an RFSQ encoder with another decoder: linear in their grid values, by least squares on train chunks.

    It shows what codes alone hold where the model's own decoder cannot read them. weights: (H * K + 1, A).
    """

    encoder: RFSQCodec
    weights: Array

    @property
    def name(self) -> str:
        return f"{self.encoder.name}, decoder refitted"

    @staticmethod
    def fit(encoder: RFSQCodec, train: Chunks) -> RefittedDecoder:
        codes = encoder.encode(train.actions).codes[train.valid]
        targets = encoder.normaliser.normalise(train.actions[train.valid])
        weights, *_ = np.linalg.lstsq(_grid_values(encoder, codes), targets, rcond=None)
        return RefittedDecoder(encoder, np.asarray(weights, dtype=np.float64))

    def encode(self, chunks: Array) -> Tokens:
        return Tokens(self.encoder.encode(chunks).codes)

    def decode(self, tokens: Tokens) -> Array:
        return self.encoder.normaliser.denormalise(_grid_values(self.encoder, tokens.codes) @ self.weights)

    def bits(self, tokens: Tokens) -> float:
        return self.encoder.bits(tokens)


def _grid_values(encoder: RFSQCodec, codes: NDArray[np.int64]) -> Array:
    """Codes (..., H, K) -> the grid values that they name and a 1: (..., H * K + 1)."""
    values = codes.reshape(*codes.shape[:-2], -1) / (encoder.model.rfsq.num_levels - 1) * 2 - 1
    return np.concatenate([values, np.ones((*values.shape[:-1], 1))], axis=-1)


def load_codec(path: Path, normaliser: Normaliser) -> RFSQCodec:
    """A checkpoint as a codec, with the normaliser it carries, or the given one where it carries none."""
    checkpoint = load_checkpoint(path)
    bounds = checkpoint.normalization
    if bounds:
        normaliser = Normaliser(bounds["min"].double().numpy(), bounds["max"].double().numpy())
    return RFSQCodec(checkpoint.model.conditioning, checkpoint.model, normaliser)


def reconstruction_sha256(codec: RFSQCodec, chunks: Chunks) -> str:
    """Hash of the actions decoded from a codec's tokens; equal hashes mean equal to the last bit.

    On one thread, because the order of sums, and with it the last bit, may depend on their number.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        decoded = codec.decode(codec.encode(chunks.actions))
    finally:
        torch.set_num_threads(threads)
    return hashlib.sha256(np.ascontiguousarray(decoded).tobytes()).hexdigest()


def first_layers(tokens: Tokens, count: int) -> Tokens:
    """The tokens of the first `count` RFSQ layers: codes (N, C, H, K) -> (N, C, H, count), side likewise."""
    side = None if tokens.side is None else tokens.side[..., :count, :]
    return replace(tokens, codes=tokens.codes[..., :count], side=side)


def code_entropy(tokens: Tokens, valid: NDArray[np.bool_]) -> Array:
    """Empirical entropy in bits of each code of a step, over all valid (N, C) steps: codes (N, C, ...) -> (...).

    Each code taken for itself (order 0), so a sum over codes is an upper bound of their joint entropy.
    """
    codes = tokens.codes[valid]
    shares = np.stack([(codes == symbol).mean(axis=0) for symbol in range(int(codes.max()) + 1)])
    return -np.sum(shares * np.log2(np.where(shares > 0, shares, 1.0)), axis=0) + 0.0


def entropy_bits(tokens: Tokens, valid: NDArray[np.bool_]) -> float:
    """Bits of one chunk if each code were stored at its empirical entropy; side information stays at full length."""
    steps = tokens.codes.shape[1]
    side_bits = 0 if tokens.side is None else np.prod(tokens.side.shape[1:]) * SIDE_BITS
    return float(code_entropy(tokens, valid).sum() * steps + side_bits)
