"""A policy in miniature: a small network that predicts the tokens of the next chunk, and its decode rules.

It sees what a policy without a camera has: the task, the chunk before, and where the commands since the start of the
episode have led, which stands for the robot's state, because every source has it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from workbook.common.array import Array
from workbook.data.chunks import Normaliser
from workbook.data.episodes import Episode

Rule = Literal["parallel_argmax", "autoregressive", "soft"]
RULES: tuple[Rule, ...] = ("parallel_argmax", "autoregressive", "soft")
TOKEN_RULES: tuple[Rule, ...] = RULES[:2]  # soft decoding gives actions, and no tokens
FEATURES = 256  # what the trunk gives to the heads, shared out over the groups of a chunk
FEWEST_FEATURES = 16  # of a group
HEAD_WEIGHTS = 52_000  # of all heads together, whatever the codec
HEAD_WIDTHS = (8, 512)  # hidden units of a head, at least and at most


@dataclass(frozen=True)
class PolicyConfig:
    """The same for every codec. steps: batches; width: of the trunk; noise: on standardised observations."""

    steps: int = 400
    batch_size: int = 64
    width: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    noise: float = 0.05


@dataclass(frozen=True, eq=False)
class Observations:
    """inputs: (N, D) of what the policy sees before each chunk; chunks: (N, C, A) what comes next."""

    inputs: Array
    chunks: Array

    @staticmethod
    def of(
        episodes: Sequence[Episode], tasks: Sequence[str], normaliser: Normaliser, length: int, stride: int
    ) -> Observations:
        """Chunks that start every `stride` steps; the last ones are padded as in `cut_chunks`."""
        rows, chunks = [], []
        for episode in episodes:
            actions = normaliser.normalise(episode.actions)
            task = np.array([float(episode.task == name) for name in tasks])
            commands = episode.actions / normaliser.half_width
            led_to = np.concatenate([np.zeros((1, commands.shape[1])), np.cumsum(commands, axis=0)])
            before = np.concatenate([np.zeros((length, actions.shape[1])), actions])
            for start in range(0, max(len(actions) - length, 0) + stride, stride):
                steps = np.minimum(np.arange(start, start + length), len(actions) - 1)
                rows.append(np.concatenate([task, led_to[start], before[start : start + length].ravel()]))
                chunks.append(episode.actions[steps])
        return Observations(np.stack(rows), np.stack(chunks))


class TokenPolicy(nn.Module):
    """A trunk and, for each layer of tokens, one head without and one with knowledge of the layers before it.

    Both kinds of heads stand on one trunk, so that decode rules differ in nothing else. Layer 0 has one head, for
    there is nothing before it.
    """

    def __init__(
        self, inputs: int, groups: int, sizes: Sequence[tuple[int, int]], width: int, head_weights: int = HEAD_WEIGHTS
    ) -> None:
        super().__init__()
        self.groups, self.sizes = groups, tuple(sizes)
        features = max(FEATURES // groups, FEWEST_FEATURES)
        self.trunk = _trunk(inputs, width, groups * features)
        before = np.concatenate([[0], np.cumsum([places for places, _ in sizes])])
        heads = [(features, size) for size in sizes]
        heads += [(features + int(known), size) for known, size in zip(before[1:], sizes[1:], strict=False)]
        hidden = _head_width(heads, head_weights)
        self.alone = nn.ModuleList(_head(known, size, hidden) for known, size in heads[: len(sizes)])
        self.given = nn.ModuleList(_head(known, size, hidden) for known, size in heads[len(sizes) :])

    def features(self, inputs: Tensor) -> Tensor:
        """(N, D) -> (N, G, features)"""
        return self.trunk(inputs).unflatten(1, (self.groups, -1))

    def logits_alone(self, features: Tensor, layer: int) -> Tensor:
        """(N, G, S, L) of one layer from the observation alone."""
        return self.alone[layer](features).unflatten(-1, self.sizes[layer])

    def logits_given(self, features: Tensor, before: Sequence[Tensor]) -> Tensor:
        """(N, G, S, L) of the layer after those whose tokens (N, G, S) are given."""
        if not before:
            return self.logits_alone(features, 0)
        known = [2 * tokens / max(levels - 1, 1) - 1 for tokens, (_, levels) in zip(before, self.sizes, strict=False)]
        layer = len(before)
        return self.given[layer - 1](torch.cat([features, *known], dim=-1)).unflatten(-1, self.sizes[layer])

    def loss(self, inputs: Tensor, tokens: Sequence[Tensor]) -> Tensor:
        """Cross-entropy of both kinds of heads, in nats a token, the mean over layers."""
        features = self.features(inputs)
        losses = []
        for layer, target in enumerate(tokens):
            losses.append(_cross_entropy(self.logits_alone(features, layer), target))
            if layer:
                losses.append(_cross_entropy(self.logits_given(features, tokens[:layer]), target))
        return torch.stack(losses).mean()


class RegressionPolicy(nn.Module):
    """The same trunk with a head of the same kind to the normalised actions (N, C * A): no codec, the reference."""

    def __init__(self, inputs: int, outputs: int, width: int) -> None:
        super().__init__()
        head = (FEATURES, (outputs, 1))
        self.net = nn.Sequential(_trunk(inputs, width, FEATURES), _head(*head, _head_width([head], HEAD_WEIGHTS)))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.net(inputs)

    def loss(self, inputs: Tensor, targets: Sequence[Tensor]) -> Tensor:
        """Mean squared error, by which it is judged."""
        return mse_loss(self(inputs), targets[0])


def _trunk(inputs: int, width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, width),
        nn.GELU(),
        nn.Linear(width, width),
        nn.LayerNorm(width),
        nn.GELU(),
        nn.Linear(width, outputs),
    )


def _head(inputs: int, size: tuple[int, int], hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.GELU(), nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, size[0] * size[1]))


def _head_width(heads: Sequence[tuple[int, tuple[int, int]]], weights: int) -> int:
    """Hidden units with which heads of (inputs, size) have about so many weights together."""
    outputs = [places * levels for _, (places, levels) in heads]
    a_unit = sum(inputs + 1 + out for (inputs, _), out in zip(heads, outputs, strict=True))
    least, most = HEAD_WIDTHS
    return min(max(round((weights - sum(outputs)) / a_unit), least), most)


def _cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    return cross_entropy(logits.flatten(0, -2), target.flatten().long())


@dataclass(frozen=True, eq=False)
class Standardiser:
    """Zero mean and unit std of the train observations; what never varies stays 0."""

    mean: Array
    std: Array

    @staticmethod
    def fit(inputs: Array) -> Standardiser:
        return Standardiser(inputs.mean(axis=0), inputs.std(axis=0))

    def apply(self, inputs: Array) -> Tensor:
        return torch.from_numpy((inputs - self.mean) / np.where(self.std > 1e-6, self.std, 1.0)).float()


def train_policy(
    model: TokenPolicy | RegressionPolicy,
    inputs: Tensor,
    targets: Sequence[Tensor],
    config: PolicyConfig,
    seed: int,
    on_step: Callable[[int], None],
) -> None:
    """AdamW with one cycle of the learning rate, a fixed number of batches, in place."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, config.steps)
    for step in range(config.steps):
        batch = torch.randint(len(inputs), (config.batch_size,), generator=generator)
        noise = torch.randn(config.batch_size, inputs.shape[1], generator=generator) * config.noise
        loss = model.loss(inputs[batch] + noise, [target[batch] for target in targets])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        on_step(step + 1)
    model.eval()


@dataclass(frozen=True, eq=False)
class Prediction:
    """Of one rule: tokens (N, G, S) a layer, and the log2 probability of the demonstrator's tokens, (N, G, S) a layer.

    autoregressive predicts from its own tokens, but is asked for the demonstrator's given the demonstrator's before, as
    the chain rule has it.
    """

    tokens: list[np.ndarray]
    log2: list[Array]


@torch.no_grad()
def predict(
    model: TokenPolicy, inputs: Tensor, truth: Sequence[np.ndarray]
) -> tuple[dict[str, Prediction], list[Array]]:
    """Both rules that give tokens, and the probabilities (N, G, S, L) of parallel heads for soft decoding."""
    features = model.features(inputs)
    targets = [torch.from_numpy(layer) for layer in truth]
    alone = [model.logits_alone(features, layer).log_softmax(-1) for layer in range(len(targets))]
    parallel = Prediction(
        [each.argmax(-1).numpy() for each in alone], [_of_truth(e, t) for e, t in zip(alone, targets, strict=True)]
    )
    chosen: list[Tensor] = []
    surprise = []
    for layer, target in enumerate(targets):
        surprise.append(_of_truth(model.logits_given(features, targets[:layer]).log_softmax(-1), target))
        chosen.append(model.logits_given(features, chosen).argmax(-1))
    autoregressive = Prediction([each.numpy() for each in chosen], surprise)
    predictions = {"parallel_argmax": parallel, "autoregressive": autoregressive}
    return predictions, [each.exp().double().numpy() for each in alone]


def _of_truth(log_probabilities: Tensor, target: Tensor) -> Array:
    """log2 probability of the target tokens."""
    picked = log_probabilities.gather(-1, target[..., None])[..., 0]
    return (picked / np.log(2)).double().numpy()
