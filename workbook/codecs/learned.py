"""The field's learned residual quantizers, of vector-quantize-pytorch, in the guide's autoencoder."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn

from rfsq_robust import ENCODER_WIDTH
from workbook.codecs.protocol import Tokens
from workbook.common.array import Array
from workbook.common.mish import QuickMish
from workbook.data.chunks import Normaliser

if TYPE_CHECKING:
    from vector_quantize_pytorch import GroupedResidualFSQ, ResidualVQ

Quantizer = Literal["residual_vq", "grouped_residual_fsq"]
QUANTIZERS: tuple[Quantizer, ...] = ("residual_vq", "grouped_residual_fsq")
NUM_QUANTIZERS = 3
CODEBOOK_SIZE = 256  # of ResidualVQ: 8 bits, as in most of its uses
GROUPS, FSQ_LEVELS = 2, (7, 7, 7)


class LearnedAE(nn.Module):
    """The guide's encoder and decoder around a residual quantizer, for single actions (steps, A).

    The quantizers are trained with dropout of the later ones, so that a prefix of them decodes too.
    """

    def __init__(self, quantizer: Quantizer, action_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.quantizer = quantizer
        self.encoder = nn.Sequential(
            nn.Linear(action_dim, ENCODER_WIDTH), QuickMish(), nn.Linear(ENCODER_WIDTH, hidden_dim), nn.Tanh()
        )
        self.bottleneck: ResidualVQ | GroupedResidualFSQ = _build(quantizer, hidden_dim)
        self.decoder = nn.Sequential(
            nn.Linear(hidden_dim, ENCODER_WIDTH), QuickMish(), nn.Linear(ENCODER_WIDTH, action_dim)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(steps, A) -> reconstruction (steps, A), and the sum of the commitment losses, 0 where there are none."""
        quantized, _, *commitment = self.bottleneck(self.encoder(x)[None])
        loss = commitment[0].sum() if commitment else torch.zeros(())
        return self.decoder(quantized[0]), loss

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """(steps, A) -> codes (steps, groups, quantizers)."""
        _, codes, *_ = self.bottleneck(self.encoder(x)[None])
        return codes[0][:, None] if self.quantizer == "residual_vq" else codes[:, 0].movedim(0, 1)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Codes (steps, groups, k) of the first k quantizers -> (steps, A)."""
        arranged = codes[None, :, 0] if self.quantizer == "residual_vq" else codes.movedim(1, 0)[:, None]
        return self.decoder(self.bottleneck.get_output_from_indices(arranged)[0])


def _build(quantizer: Quantizer, hidden_dim: int) -> ResidualVQ | GroupedResidualFSQ:
    # Imported here, for it takes longer than torch, and most that imports the catalogue builds none of these.
    from vector_quantize_pytorch import GroupedResidualFSQ, ResidualVQ

    with suppress(ImportError):  # newer versions log through it that a codebook starts from few vectors
        from loguru import logger

        logger.disable("vector_quantize_pytorch")
    if quantizer == "residual_vq":
        return ResidualVQ(
            dim=hidden_dim,
            num_quantizers=NUM_QUANTIZERS,
            codebook_size=CODEBOOK_SIZE,
            kmeans_init=True,
            quantize_dropout=True,
        )
    return GroupedResidualFSQ(
        dim=hidden_dim, groups=GROUPS, levels=list(FSQ_LEVELS), num_quantizers=NUM_QUANTIZERS, quantize_dropout=True
    )


def training_loss(model: LearnedAE, actions: Tensor) -> Tensor:
    """Mean squared error and what holds the encoder to its codebook."""
    reconstruction, commitment = model(actions)
    return nn.functional.mse_loss(reconstruction, actions) + commitment


@dataclass(frozen=True, eq=False)
class LearnedCodec:
    """A trained model behind the codec protocol, decoded from its first `quantizers`: codes (N, C, groups, k)."""

    model: LearnedAE
    normaliser: Normaliser
    quantizers: int

    @property
    def name(self) -> str:
        return f"{self.model.quantizer} x {self.quantizers}"

    @property
    def vocabulary(self) -> int:
        return CODEBOOK_SIZE if self.model.quantizer == "residual_vq" else int(np.prod(FSQ_LEVELS))

    def encode(self, chunks: Array) -> Tokens:
        steps = torch.from_numpy(self.normaliser.normalise(chunks)).float().flatten(0, 1)
        codes = self.model.encode(steps)[..., : self.quantizers]
        return Tokens(codes.reshape(*chunks.shape[:2], *codes.shape[1:]).long().numpy())

    def decode(self, tokens: Tokens) -> Array:
        codes = torch.from_numpy(tokens.codes)
        decoded = self.model.decode(codes.flatten(0, 1)).reshape(*codes.shape[:2], -1)
        return self.normaliser.denormalise(decoded.double().numpy())

    def bits(self, tokens: Tokens) -> float:
        return float(np.prod(tokens.codes.shape[1:]) * np.log2(self.vocabulary))
