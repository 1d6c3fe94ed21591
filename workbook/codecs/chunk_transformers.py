"""Tokenizers in the manner of OAT and of QueST: small transformers around finite scalar quantization of a chunk.

OAT (arXiv 2602.04215): registers, each of which sees the chunk and the registers before it, become the tokens. Nested
dropout hides the later ones from the decoder in training, so that every prefix decodes, the better the longer.
QueST (arXiv 2407.15840): causal convolution and a causal transformer make a token of every few steps, and a causal
decoder gives the steps back.
Both take FSQ of levels 8, 5, 5, 5, so that a token has 1,000 values. Ours are narrower than theirs, and have no
dropout of weights; a token of QueST's manner here sees all of its own steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from workbook.codecs.protocol import Tokens
from workbook.common.array import Array
from workbook.data.chunks import Normaliser

Manner = Literal["oat", "quest"]
MANNERS: tuple[Manner, ...] = ("oat", "quest")
LEVELS = (8, 5, 5, 5)  # both papers'
REGISTERS = 8  # OAT's
WIDTH, HEADS, ENCODER_DEPTH, DECODER_DEPTH = 64, 4, 2, 2
SEEN_BEFORE = 2  # steps before its own that the convolution of a token sees


class RegisterEncoder(nn.Module):
    """Chunks (N, C, A) -> registers (N, R, WIDTH). Steps see steps; a register sees them and those before it."""

    def __init__(self, steps: int, action_dim: int) -> None:
        super().__init__()
        self.embed, self.places = nn.Linear(action_dim, WIDTH), _places(steps)
        self.registers = _places(REGISTERS)
        self.transformer = _encoder()
        hidden = torch.ones(steps + REGISTERS, steps + REGISTERS, dtype=torch.bool).triu(1)
        hidden[:steps, :steps] = False
        self.register_buffer("hidden", hidden, persistent=False)

    def forward(self, chunks: Tensor) -> Tensor:
        registers = self.registers.expand(len(chunks), -1, -1)
        seen = torch.cat([self.embed(chunks) + self.places, registers], dim=1)
        return self.transformer(seen, mask=self.hidden)[:, -REGISTERS:]


class CausalEncoder(nn.Module):
    """Chunks (N, C, A) -> a latent for every `stride` steps (N, ceil(C / stride), WIDTH), which sees none later."""

    def __init__(self, steps: int, action_dim: int, stride: int) -> None:
        super().__init__()
        self.beside = (SEEN_BEFORE, -steps % stride)
        self.convolution = nn.Conv1d(action_dim, WIDTH, stride + SEEN_BEFORE, stride)
        self.places = _places(-(-steps // stride))
        self.transformer = _encoder()
        self.register_buffer("hidden", _later(len(self.places)), persistent=False)

    def forward(self, chunks: Tensor) -> Tensor:
        seen = nn.functional.gelu(self.convolution(pad(chunks.movedim(1, 2), self.beside))).movedim(1, 2)
        return self.transformer(seen + self.places, mask=self.hidden)


class ChunkTransformer(nn.Module):
    """Normalised chunks as vectors (N, C * A) -> the same from their tokens.

    steps_a_token: in the manner of QueST.
    """

    def __init__(self, manner: Manner, steps: int, action_dim: int, steps_a_token: int = 1) -> None:
        super().__init__()
        self.ordered, self.steps = manner == "oat", steps
        self.encoder = (
            RegisterEncoder(steps, action_dim) if self.ordered else CausalEncoder(steps, action_dim, steps_a_token)
        )
        self.tokens = REGISTERS if self.ordered else -(-steps // steps_a_token)
        from vector_quantize_pytorch import FSQ  # as in `learned`

        self.bottleneck = FSQ(list(LEVELS), dim=WIDTH)
        self.token_places, self.not_sent = _places(self.tokens), _places(1)
        self.queries = _places(steps)
        layer = nn.TransformerDecoderLayer(WIDTH, HEADS, 4 * WIDTH, 0.0, "gelu", batch_first=True, norm_first=True)
        self.decoder = nn.TransformerDecoder(layer, DECODER_DEPTH)
        self.register_buffer("later", _later(steps), persistent=False)
        self.head = nn.Linear(WIDTH, action_dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C * A) -> reconstruction (N, C * A), of a random prefix each in training if ordered; tokens (N, J)."""
        quantized, tokens = self.bottleneck(self.encoder(x.unflatten(1, (self.steps, -1))))
        if self.ordered and self.training:
            sent = torch.randint(1, self.tokens + 1, (len(x), 1), device=x.device)
        else:
            sent = torch.full((len(x), 1), self.tokens, device=x.device)
        return self._steps(quantized, sent), tokens

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """(N, C * A) -> tokens (N, J)."""
        return self(x)[1].long()

    @torch.no_grad()
    def decode(self, tokens: Tensor) -> Tensor:
        """The first tokens (N, j) -> (N, C * A)."""
        return self._of_first(self.bottleneck.indices_to_codes(tokens))

    @torch.no_grad()
    def expected(self, probabilities: Tensor) -> Tensor:
        """Of the values of the first tokens (N, j, values) -> (N, C * A), of the mean of what they stand for."""
        every = torch.arange(probabilities.shape[-1])
        return self._of_first(probabilities @ self.bottleneck.indices_to_codes(every[None])[0])

    def _of_first(self, quantized: Tensor) -> Tensor:
        """(N, j, WIDTH) -> (N, C * A)"""
        sent = quantized.shape[1]
        return self._steps(pad(quantized, (0, 0, 0, self.tokens - sent)), torch.full((len(quantized), 1), sent))

    def _steps(self, quantized: Tensor, sent: Tensor) -> Tensor:
        """Quantized (N, J, WIDTH), of which the first `sent` (N, 1) are read."""
        known = torch.arange(self.tokens, device=quantized.device) < sent
        memory = torch.where(known[..., None], quantized + self.token_places, self.not_sent)
        hidden = None if self.ordered else self.later
        return self.head(self.decoder(self.queries.expand(len(memory), -1, -1), memory, tgt_mask=hidden)).flatten(1)


def _places(count: int) -> nn.Parameter:
    """What tells `count` places apart: (count, WIDTH)."""
    return nn.Parameter(torch.randn(count, WIDTH) / WIDTH**0.5)


def _later(count: int) -> Tensor:
    """Which of `count` places each must not see."""
    return torch.ones(count, count, dtype=torch.bool).triu(1)


def _encoder() -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, 0.0, "gelu", batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, ENCODER_DEPTH, enable_nested_tensor=False)


@dataclass(frozen=True, eq=False)
class ChunkTransformerCodec:
    """A trained model behind the codec protocol, decoded from its first `prefix` tokens: codes (N, prefix)."""

    model: ChunkTransformer
    normaliser: Normaliser
    prefix: int

    @property
    def name(self) -> str:
        return f"{'OAT' if self.model.ordered else 'QueST'}-style x {self.prefix}"

    @property
    def vocabulary(self) -> int:
        return int(np.prod(LEVELS))

    def encode(self, chunks: Array) -> Tokens:
        vectors = torch.from_numpy(self.normaliser.normalise(chunks)).float().flatten(1)
        return Tokens(self.model.encode(vectors)[:, : self.prefix].numpy())

    def decode(self, tokens: Tokens) -> Array:
        return self._to_actions(self.model.decode(torch.from_numpy(tokens.codes)))

    def expected(self, probabilities: Array) -> Array:
        """(N, prefix, values) -> (N, C, A) actions in controller units."""
        return self._to_actions(self.model.expected(torch.from_numpy(probabilities).float()))

    def _to_actions(self, vectors: Tensor) -> Array:
        return self.normaliser.denormalise(vectors.double().numpy().reshape(len(vectors), self.model.steps, -1))

    def bits(self, tokens: Tokens) -> float:
        return float(tokens.codes.shape[1] * np.log2(self.vocabulary))
