"""The RFSQ autoencoder behind the codec protocol, and decoders that read its codes in its decoder's stead."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from rfsq_robust import ActionRFSQAE, Checkpoint, load_checkpoint
from workbook.codecs.protocol import SIDE_BITS, Tokens, code_entropy
from workbook.common.array import Array
from workbook.data.chunks import Chunks, Normaliser

DEAD_BELOW_BITS = 0.01  # mean entropy of a layer's codes; below it the layer says nothing
ENOUGH_WITHIN = 0.05  # the first prefix whose MSE is within 5 % of all layers' is enough


@dataclass(frozen=True, eq=False)
class RFSQCodec:
    """The RFSQ autoencoder behind the codec protocol.

    statistics, for `layernorm` alone, whose codes need each vector's mean and std:
        "assumed": tokens are the codes; the decoder, not knowing better, assumes mean 0 and std 1
        "sent": tokens are the codes and the statistics as float16, counted
    layers: how many of the first layers are sent, None for all.
    """

    name: str
    model: ActionRFSQAE
    normaliser: Normaliser
    statistics: Literal["assumed", "sent"] = "assumed"
    layers: int | None = None

    @property
    def vocabulary(self) -> int:
        return self.model.rfsq.num_levels

    def encode(self, chunks: Array) -> Tokens:
        codes, stats = self.model.encode(self._to_tensor(chunks), return_stats=True)
        side = None if stats is None or self.statistics == "assumed" else stats.half().numpy().view(np.uint16)
        return first_layers(Tokens(codes.numpy(), side), self.layers or codes.shape[-1])

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

    @property
    def vocabulary(self) -> int:
        return self.encoder.vocabulary

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
    if checkpoint.normalization is not None:
        normaliser = normaliser_of(checkpoint)
    return RFSQCodec(checkpoint.model.conditioning, checkpoint.model, normaliser)


def normaliser_of(checkpoint: Checkpoint) -> Normaliser:
    """Raises ValueError where the checkpoint carries none."""
    if checkpoint.normalization is None:
        raise ValueError("this checkpoint carries no normaliser")
    low, high = (checkpoint.normalization[name].double().numpy() for name in ("min", "max"))
    return Normaliser(low, high)


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


def dead_layers(codecs: Sequence[RFSQCodec], chunks: Array, valid: NDArray[np.bool_]) -> list[int]:
    """Layers whose codes carry next to nothing, whatever the seed."""
    entropy = np.array([code_entropy(Tokens(codec.encode(chunks).codes), valid).mean(axis=0) for codec in codecs])
    return [k for k in range(entropy.shape[1]) if entropy[:, k].max() < DEAD_BELOW_BITS]


def live_layers(codecs: Sequence[RFSQCodec], chunks: Array, valid: NDArray[np.bool_]) -> int:
    """How many first layers there are up to the last one that says something; one at least."""
    dead = dead_layers(codecs, chunks, valid)
    return 1 + max((k for k in range(codecs[0].model.rfsq.num_layers) if k not in dead), default=0)


def layers_enough(codecs: Sequence[RFSQCodec], chunks: Array, valid: NDArray[np.bool_]) -> int:
    """The fewest first layers whose MSE, the mean over seeds, is within 5 % of that of all layers."""
    return enough([_mse(codecs, chunks, valid, k + 1) for k in range(codecs[0].model.rfsq.num_layers)])


def enough(prefix_mse: Sequence[float]) -> int:
    """The fewest first layers whose MSE is within 5 % of that of all layers."""
    return next(k + 1 for k, mse in enumerate(prefix_mse) if mse <= prefix_mse[-1] * (1 + ENOUGH_WITHIN))


def _mse(codecs: Sequence[RFSQCodec], chunks: Array, valid: NDArray[np.bool_], layers: int) -> float:
    first = [replace(codec, statistics="sent", layers=layers) for codec in codecs]
    errors = [(codec.decode(codec.encode(chunks)) - chunks) / codec.normaliser.half_width for codec in first]
    return float(np.mean([(error[valid] ** 2).mean() for error in errors]))


@dataclass(frozen=True, eq=False)
class WholeChunkRFSQ:
    """The same autoencoder with a chunk as one vector (A = steps x dimensions), decoded from its first `layers`.

    codes: (N, layers * H), layer after layer, so that the beginning of a sequence is a prefix of layers.
    """

    model: ActionRFSQAE
    normaliser: Normaliser
    layers: int

    @property
    def name(self) -> str:
        return f"{self.model.conditioning}, whole chunk, {self.layers} layers"

    @property
    def vocabulary(self) -> int:
        return self.model.rfsq.num_levels

    def encode(self, chunks: Array) -> Tokens:
        vectors = torch.from_numpy(self.normaliser.normalise(chunks)).float().flatten(1)
        codes = self.model.encode(vectors)[..., : self.layers]
        return Tokens(codes.movedim(2, 1).flatten(1).numpy())

    def decode(self, tokens: Tokens) -> Array:
        codes = torch.from_numpy(tokens.codes).unflatten(1, (-1, self.model.hidden_dim)).movedim(1, 2)
        decoded = self.model.decode_from_indices(codes).double().numpy()
        return self.normaliser.denormalise(decoded.reshape(len(decoded), -1, len(self.normaliser.low)))

    def bits(self, tokens: Tokens) -> float:
        return float(tokens.codes.shape[1] * np.log2(self.vocabulary))
