"""Decoders that read the tokens of one codec in its own decoder's stead: option B."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from rfsq_robust import ActionRFSQAE
from workbook.codecs.protocol import Tokens
from workbook.codecs.rfsq import RFSQCodec
from workbook.common.array import Array
from workbook.data.chunks import Normaliser

CHUNK_WIDTH = 256  # hidden units of the decoder that sees a whole chunk


class ChunkDecoder(nn.Module):
    """A frozen naive model, and beside its decoder a small network that sees the tokens of all steps of a chunk.

    The network starts at zero, so that training starts from the naive decoder: (N, C * A) -> (N, C * A).
    """

    def __init__(self, naive: ActionRFSQAE, steps: int) -> None:
        super().__init__()
        self.naive, self.steps = copy.deepcopy(naive).requires_grad_(False), steps
        width = steps * naive.hidden_dim
        self.context = nn.Sequential(
            nn.Linear(width, CHUNK_WIDTH), nn.Mish(), nn.Linear(CHUNK_WIDTH, steps * naive.action_dim)
        )
        for parameter in self.context[2].parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised chunks (N, C * A) -> what is decoded from their tokens, and the tokens (N, C, H, K)."""
        codes = self.naive.encode(x.unflatten(1, (self.steps, -1)))
        return self.decode(codes), codes

    def decode(self, codes: Tensor) -> Tensor:
        latents = self.naive.rfsq.decode_from_indices(codes)
        return self.naive.decoder(latents).flatten(1) + self.context(latents.flatten(1))


class Reader(Protocol):
    """What turns tokens into actions."""

    @property
    def name(self) -> str: ...

    def decode(self, tokens: Tokens) -> Array: ...


@dataclass(frozen=True, eq=False)
class ChunkReader:
    """A decoder that sees all of a chunk, in controller units."""

    model: ChunkDecoder
    normaliser: Normaliser
    name: str = "whole chunks"

    @torch.no_grad()
    def decode(self, tokens: Tokens) -> Array:
        decoded = self.model.decode(torch.from_numpy(tokens.codes)).unflatten(1, (self.model.steps, -1))
        return self.normaliser.denormalise(decoded.double().numpy())


@dataclass(frozen=True, eq=False)
class OtherDecoder:
    """Tokens of one RFSQ, read by another decoder than its own."""

    encoder: RFSQCodec
    decoder: Reader

    @property
    def name(self) -> str:
        return f"tokens of {self.encoder.name}, decoder of {self.decoder.name}"

    @property
    def vocabulary(self) -> int:
        return self.encoder.vocabulary

    def encode(self, chunks: Array) -> Tokens:
        return self.encoder.encode(chunks)

    def decode(self, tokens: Tokens) -> Array:
        return self.decoder.decode(tokens)

    def bits(self, tokens: Tokens) -> float:
        return self.encoder.bits(tokens)
