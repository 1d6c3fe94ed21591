"""A policy that predicts tokens of variable length one after the other, as those of FAST: a small transformer.

What is seen stands before the sequence; each place is predicted from all before it. It is trained until its validation
stops falling, or it is NOT TRAINED, which is said and is no result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from workbook.codecs.protocol import NOT_SENT
from workbook.evaluation.policy.network import PolicyConfig, trunk

WIDTH, HEADS, BLOCKS = 128, 4, 2
ROUND = 250  # batches between two looks at validation
PATIENCE = 4  # rounds without a new least, after which it has stopped falling
MOST_ROUNDS = 80
NotTrained = Literal["", "still_falling", "no_better_than_the_mean"]


class SequencePolicy(nn.Module):
    """vocabulary: of the codec; one more token ends a sequence. longest: tokens of a sequence at most."""

    def __init__(self, inputs: int, vocabulary: int, longest: int, width: int) -> None:
        super().__init__()
        self.end, self.longest = vocabulary, longest
        self.observed = trunk(inputs, width, WIDTH)
        self.embedding = nn.Embedding(vocabulary + 1, WIDTH)
        self.place = nn.Parameter(torch.randn(longest + 1, WIDTH) * 0.02)
        block = nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, dropout=0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, BLOCKS, nn.LayerNorm(WIDTH), enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, vocabulary + 1)
        self.validation_losses: Tensor  # after each round of training, saved with the weights
        self.register_buffer("validation_losses", torch.full((MOST_ROUNDS,), torch.nan))

    def forward(self, inputs: Tensor, before: Tensor) -> Tensor:
        """(N, D) and the tokens so far (N, J) -> logits (N, J + 1, V + 1) of each token and of the next."""
        states = torch.cat([self.observed(inputs)[:, None], self.embedding(before)], dim=1)
        places = states.shape[1]
        mask = torch.ones(places, places, dtype=torch.bool).triu(1)  # True: may not be looked at
        return self.head(self.blocks(states + self.place[:places], mask=mask))

    def loss(self, inputs: Tensor, targets: Sequence[Tensor]) -> Tensor:
        """Cross-entropy in nats a token, ends included; targets: one (N, J), NOT_SENT where a sequence has ended."""
        tokens = targets[0]
        sent = tokens != NOT_SENT
        wanted = torch.cat([tokens, torch.full_like(tokens[:, :1], NOT_SENT)], dim=1)
        wanted.scatter_(1, sent.sum(dim=1, keepdim=True), self.end)
        logits = self(inputs, tokens.where(sent, self.end))
        return cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=NOT_SENT)

    @torch.no_grad()
    def greedy(self, inputs: Tensor) -> Tensor:
        """(N, D) -> the likeliest token after each other, (N, J), NOT_SENT from the end on."""
        tokens = torch.zeros(len(inputs), 0, dtype=torch.long)
        for _ in range(self.longest):
            tokens = torch.cat([tokens, self(inputs, tokens)[:, -1].argmax(-1, keepdim=True)], dim=1)
            if (tokens == self.end).any(dim=1).all():
                break
        ended = (tokens == self.end).cumsum(dim=1) > 0
        return tokens.masked_fill(ended, NOT_SENT)


def train_sequence(
    model: SequencePolicy,
    train: tuple[Tensor, Tensor],
    validation: tuple[Tensor, Tensor],
    config: PolicyConfig,
    seed: int,
) -> None:
    """AdamW until validation has stopped falling, in place; the weights of the least validation loss are kept.

    train, validation: what is seen (N, D), and tokens (N, J).
    """
    generator, (inputs, tokens) = torch.Generator().manual_seed(seed), train
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    losses: list[float] = []
    best = {name: value.clone() for name, value in model.state_dict().items()}
    while len(losses) < MOST_ROUNDS and not stopped_falling(losses):
        model.train()
        for _ in range(ROUND):
            batch = torch.randint(len(inputs), (config.batch_size,), generator=generator)
            noise = torch.randn(config.batch_size, inputs.shape[1], generator=generator) * config.noise
            loss = model.loss(inputs[batch] + noise, [tokens[batch]])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if config.clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), config.clip)
            optimizer.step()
        model.eval()
        with torch.no_grad():
            losses.append(float(model.loss(validation[0], [validation[1]])))
        if losses[-1] == min(losses):
            best = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(best)
    model.validation_losses[: len(losses)] = torch.tensor(losses)
    model.eval()


def stopped_falling(losses: Sequence[float]) -> bool:
    """Whether the least validation loss lies so many rounds back."""
    return len(losses) > PATIENCE and min(losses[-PATIENCE:]) > min(losses)


def why_not_trained(model: SequencePolicy, mse: float, mean_mse: float) -> NotTrained:
    """The rule, declared before any run. mse: of actions on validation, decoded greedily; mean_mse: of
    the mean chunk.
    """
    losses = model.validation_losses
    if not stopped_falling(losses[losses.isfinite()].tolist()):
        return "still_falling"
    return "" if mse < mean_mse else "no_better_than_the_mean"
