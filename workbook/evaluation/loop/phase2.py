"""Phase 2 in miniature: a draft model of the coarse layers, and a main model of all layers that is given them.

Both have parallel heads, one a layer. In training the main model gets the demonstrator's coarse tokens, in use the
draft's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from workbook.common.targets import COARSE_LAYERS
from workbook.evaluation.policy.network import FEWEST_FEATURES, PolicyConfig, head_of, head_width, token_loss

EMBEDDING = 4  # numbers for each coarse token
PROJECTION = 128  # numbers for all coarse tokens of a chunk


class ParallelHeads(nn.Module):
    """A trunk and one head a layer; with `given`, a main model, whose trunk also gets the coarse tokens.

    Tokens are (N, G, S) a layer, as in `token_spaces`.
    """

    def __init__(
        self, inputs: int, groups: int, sizes: Sequence[tuple[int, int]], config: PolicyConfig, given: bool
    ) -> None:
        super().__init__()
        self.groups, self.sizes = groups, tuple(sizes)
        features = max(config.features // groups, FEWEST_FEATURES)
        self.observed = nn.Linear(inputs, config.width)
        self.embedding = self.projection = None
        if given:
            places, levels = sizes[0]
            self.embedding = nn.Embedding(levels, EMBEDDING)
            self.projection = nn.Linear(groups * places * COARSE_LAYERS * EMBEDDING, PROJECTION)
        self.rest = nn.Sequential(
            nn.GELU(),
            nn.Linear(config.width + (PROJECTION if given else 0), config.width),
            nn.LayerNorm(config.width),
            nn.GELU(),
            nn.Linear(config.width, groups * features),
        )
        heads = [(features, size) for size in sizes]
        hidden = head_width(heads, config.head_weights)
        self.heads = nn.ModuleList(head_of(known, size, hidden) for known, size in heads)

    def forward(self, inputs: Tensor, coarse: Sequence[Tensor] = ()) -> list[Tensor]:
        """(N, D), and of a main model the coarse tokens, -> logits (N, G, S, L) a layer."""
        seen = self.observed(inputs)
        if self.embedding is not None and self.projection is not None:
            tokens = torch.stack(list(coarse[:COARSE_LAYERS]), dim=-1)
            seen = torch.cat([seen, self.projection(self.embedding(tokens).flatten(1))], dim=1)
        features = self.rest(seen).unflatten(1, (self.groups, -1))
        return [head(features) for head in self.heads]

    def loss(self, inputs: Tensor, tokens: Sequence[Tensor]) -> Tensor:
        """Cross-entropy in nats a token, the mean over layers; a main model is given the true coarse tokens."""
        logits = self(inputs, tokens)
        return torch.stack([token_loss(*pair) for pair in zip(logits, tokens, strict=False)]).mean()
