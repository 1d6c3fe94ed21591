"""A policy in miniature: a small network that predicts the tokens of the next chunk, and its decode rules.

It sees what a policy without a camera has: the task, the chunk before, and where the commands since the start of the
episode have led, which stands for the robot's state, because every source has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, l1_loss, mse_loss

from workbook.common.array import Array
from workbook.data.chunks import Normaliser
from workbook.data.episodes import Episode

Rule = Literal["parallel_argmax", "autoregressive", "soft", "joint_argmax", "joint_soft"]
RULES: tuple[Rule, ...] = ("parallel_argmax", "autoregressive", "soft")
TOKEN_RULES: tuple[Rule, ...] = RULES[:2]  # soft decoding gives actions, and no tokens
JOINT_RULES: tuple[Rule, ...] = ("joint_argmax", "joint_soft")  # of one softmax a latent, where its codes are nested
FEATURES = 256
FEWEST_FEATURES = 16  # of a group
HEAD_WEIGHTS = 52_000
AVERAGED_EVERY = 5  # batches
FEW_VALUES = 16
RANK = 16  # numbers that say how likely each of many values is
HEAD_WIDTHS = (8, 512)  # hidden units of a head, at least and at most


@dataclass(frozen=True)
class PolicyConfig:
    """The same for every codec.

    steps: batches; width: of the trunk, features: what it gives to the heads, shared out over the groups of a chunk;
    head_weights: of all heads together; noise: on standardised observations; warm_up: share of the steps in which the
    learning rate grows; averaging: weight of the newest weights in the moving average that is kept, 1 for none;
    clip: largest norm of a gradient, None for any.
    """

    steps: int = 400
    batch_size: int = 64
    width: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    noise: float = 0.05
    features: int = FEATURES
    head_weights: int = HEAD_WEIGHTS
    warm_up: float = 0.3
    averaging: float = 1.0
    clip: float | None = None


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
    there is nothing before it. hidden: units of every head, None for as many as share out `head_weights`; chained:
    whether there are heads with that knowledge.
    """

    def __init__(
        self,
        inputs: int,
        groups: int,
        sizes: Sequence[tuple[int, int]],
        width: int,
        head_weights: int = HEAD_WEIGHTS,
        features: int = FEATURES,
        hidden: int | None = None,
        chained: bool = True,
    ) -> None:
        super().__init__()
        self.groups, self.sizes, self.chained = groups, tuple(sizes), chained
        features = max(features // groups, FEWEST_FEATURES)
        self.trunk = trunk(inputs, width, groups * features)
        before = np.concatenate([[0], np.cumsum([places for places, _ in sizes])])
        heads = [(features, size) for size in sizes]
        if chained:
            heads += [(features + int(known), size) for known, size in zip(before[1:], sizes[1:], strict=False)]
        self.hidden = hidden = hidden or head_width(heads, head_weights)
        self.alone = nn.ModuleList(head_of(known, size, hidden) for known, size in heads[: len(sizes)])
        self.given = nn.ModuleList(head_of(known, size, hidden) for known, size in heads[len(sizes) :])

    def features(self, inputs: Tensor) -> Tensor:
        """(N, D) -> (N, G, features)"""
        return self.trunk(inputs).unflatten(-1, (self.groups, -1))

    def logits_alone(self, features: Tensor, layer: int) -> Tensor:
        """(N, G, S, L) of one layer from the observation alone."""
        return self.alone[layer](features)

    def logits_given(self, features: Tensor, before: Sequence[Tensor]) -> Tensor:
        """(N, G, S, L) of the layer after those whose tokens (N, G, S) are given."""
        if not before:
            return self.logits_alone(features, 0)
        known = [2 * tokens / max(levels - 1, 1) - 1 for tokens, (_, levels) in zip(before, self.sizes, strict=False)]
        return self.given[len(before) - 1](torch.cat([features, *known], dim=-1))

    def loss(self, inputs: Tensor, tokens: Sequence[Tensor]) -> Tensor:
        """Cross-entropy of both kinds of heads, in nats a token, the mean over layers; of a stack (M,)."""
        features = self.features(inputs)
        losses = []
        for layer, target in enumerate(tokens):
            losses.append(token_loss(self.logits_alone(features, layer), target))
            if layer:
                losses.append(token_loss(self.logits_given(features, tokens[:layer]), target))
        return torch.stack(losses).mean(dim=0)


class ProbePolicy(TokenPolicy):
    """As the offline probe trains it: every token counts the same, in whatever layer it stands.

    Not chained it has one softmax a latent, over all values of nested codes together (`JointHead`). Of these a batch
    counts every other step, drawn anew, and for every seed alike: neighbours are much alike, and the mean over batches
    is the same.
    """

    def __init__(
        self,
        inputs: int,
        groups: int,
        sizes: Sequence[tuple[int, int]],
        width: int,
        hidden: int,
        features: int = FEATURES,
        chained: bool = True,
    ) -> None:
        super().__init__(inputs, groups, sizes, width, 0, features, hidden, chained)
        if not chained:
            known = max(features // groups, FEWEST_FEATURES)
            self.alone = nn.ModuleList(JointHead(known, size, hidden) for size in sizes)
        self.draws = torch.Generator().manual_seed(0)

    def loss(self, inputs: Tensor, tokens: Sequence[Tensor]) -> Tensor:
        """Cross-entropy in nats a token, the mean of what parallel heads say of a chunk and of what the chain does; of
        a stack (M,).
        """
        features = self.features(inputs)
        if not self.chained and self.groups > 1:
            steps = torch.randperm(self.groups, generator=self.draws)[: self.groups // 2]
            features, tokens = features[..., steps, :], [each[..., steps, :] for each in tokens]
        heads = [_summed(self.logits_alone(features, layer), target) for layer, target in enumerate(tokens)]
        chain = heads
        if self.chained:
            given = [_summed(self.logits_given(features, tokens[:k]), tokens[k]) for k in range(1, len(tokens))]
            chain = [heads[0], *given]
        return torch.stack([*heads, *chain]).sum(dim=0) / (2 * sum(each.shape[-3:].numel() for each in tokens))


def _summed(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy in nats, the sum over tokens: logits (..., N, G, S, L), target (..., N, G, S) -> (...).

    Of few values torch is ten times as quick along another dimension as along the last.
    """
    tokens, values = target.shape[-3:].numel(), logits.shape[-1]
    rows, wanted = logits.reshape(-1, tokens, values), target.reshape(-1, tokens).long()
    if values > FEW_VALUES:
        nats = cross_entropy(rows.flatten(0, 1), wanted.flatten(), reduction="none")
    else:
        nats = cross_entropy(rows.mT.contiguous(), wanted, reduction="none")
    return nats.view(*target.shape[:-3], tokens).sum(dim=-1)


class JointHead(nn.Module):
    """A head to many values of each place, as a product of few numbers a place with an embedding of the values that all
    places share: a matrix to hundreds of values for each would cost more than all else together.
    """

    def __init__(self, inputs: int, size: tuple[int, int], hidden: int) -> None:
        super().__init__()
        places, values = size
        self.numbers = head_of(inputs, (places, RANK), hidden)
        self.embedding = nn.Linear(RANK, values, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """(..., features) -> (..., S, L)"""
        return self.embedding(self.numbers(features))


class RegressionPolicy(nn.Module):
    """The same trunk with a head of the same kind to the normalised actions (N, C * A): no codec, the reference.

    absolute: learns by absolute error in place of squared error, by which the offline probe is judged.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        width: int,
        head_weights: int = HEAD_WEIGHTS,
        features: int = FEATURES,
        absolute: bool = False,
        hidden: int | None = None,
    ) -> None:
        super().__init__()
        self.absolute = absolute
        head = (features, (outputs, 1))
        self.hidden = hidden = hidden or head_width([head], head_weights)
        self.net = nn.Sequential(trunk(inputs, width, features), head_of(*head, hidden))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.net(inputs).flatten(-2)

    def loss(self, inputs: Tensor, targets: Sequence[Tensor]) -> Tensor:
        """The mean error; of a stack (M,)."""
        errors = (l1_loss if self.absolute else mse_loss)(self(inputs), targets[0], reduction="none")
        return errors.mean(dim=(-2, -1))


# What other policies in miniature are built of, too.


def trunk(inputs: int, width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, width),
        nn.GELU(),
        nn.Linear(width, width),
        nn.LayerNorm(width),
        nn.GELU(),
        nn.Linear(width, outputs),
    )


def head_of(inputs: int, size: tuple[int, int], hidden: int) -> nn.Sequential:
    """(..., inputs) -> (..., S, L)"""
    first, last = nn.Linear(inputs, hidden), nn.Linear(hidden, size[0] * size[1])
    return nn.Sequential(nn.GELU(), first, nn.GELU(), last, nn.Unflatten(-1, size))


def head_width(heads: Sequence[tuple[int, tuple[int, int]]], weights: int) -> int:
    """Hidden units with which heads of (inputs, size) have about so many weights together."""
    outputs = [places * levels for _, (places, levels) in heads]
    a_unit = sum(inputs + 1 + out for (inputs, _), out in zip(heads, outputs, strict=True))
    least, most = HEAD_WIDTHS
    return min(max(round((weights - sum(outputs)) / a_unit), least), most)


def token_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy in nats a token: logits (..., N, G, S, L), target (..., N, G, S)."""
    return _summed(logits, target) / target.shape[-3:].numel()


class Policy(Protocol):
    """What `train_policy` trains, a module."""

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def loss(self, inputs: Tensor, targets: Sequence[Tensor]) -> Tensor: ...

    def eval(self) -> Any: ...


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
    model: Policy,
    inputs: Tensor,
    targets: Sequence[Tensor],
    config: PolicyConfig,
    seed: int,
    on_step: Callable[[int], None],
) -> None:
    """AdamW with one cycle of the learning rate, a fixed number of batches, in place."""
    parameters = list(model.parameters())
    averages = [parameter.detach().clone() for parameter in parameters]
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, config.steps, pct_start=config.warm_up
    )
    for step in range(config.steps):
        batch = torch.randint(len(inputs), (config.batch_size,), generator=generator)
        noise = torch.randn(config.batch_size, inputs.shape[1], generator=generator) * config.noise
        loss = model.loss(inputs[batch] + noise, [target[batch] for target in targets])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if config.clip is not None:
            nn.utils.clip_grad_norm_(parameters, config.clip)
        optimizer.step()
        schedule.step()
        if config.averaging < 1 and (step + 1) % AVERAGED_EVERY == 0:
            torch._foreach_lerp_(averages, [parameter.detach() for parameter in parameters], config.averaging)
        on_step(step + 1)
    if config.averaging < 1:
        with torch.no_grad():
            for parameter, average in zip(parameters, averages, strict=True):
                parameter.copy_(average)
    model.eval()


@dataclass(frozen=True, eq=False)
class Prediction:
    """Of one rule: tokens (N, G, S) a layer, and the log2 probability of the demonstrator's tokens, (N, G, S) a layer,
    where it was asked for.

    autoregressive predicts from its own tokens, but is asked for the demonstrator's given the demonstrator's before, as
    the chain rule has it.
    """

    tokens: list[np.ndarray]
    log2: list[Array]


@torch.no_grad()
def predict(
    model: TokenPolicy, inputs: Tensor, truth: Sequence[np.ndarray] | None
) -> tuple[dict[str, Prediction], list[Array]]:
    """Both rules that give tokens, and the probabilities (N, G, S, L) of parallel heads for soft decoding.

    Without heads that are given layers before theirs there is the parallel rule alone. truth: the demonstrator's
    tokens, None where their likelihood is not asked for.
    """
    features = model.features(inputs)
    targets = [torch.from_numpy(layer) for layer in truth or ()]
    alone = [_log_softmax(model.logits_alone(features, layer)) for layer in range(len(model.sizes))]
    parallel = Prediction(
        [each.argmax(-1).numpy() for each in alone], [_of_truth(e, t) for e, t in zip(alone, targets, strict=False)]
    )
    predictions = {"parallel_argmax": parallel}
    if model.chained:
        chosen: list[Tensor] = []
        for _ in alone:
            chosen.append(model.logits_given(features, chosen).argmax(-1))
        given = [_log_softmax(model.logits_given(features, targets[:layer])) for layer in range(len(targets))]
        surprise = [_of_truth(*pair) for pair in zip(given, targets, strict=True)]
        predictions["autoregressive"] = Prediction([each.numpy() for each in chosen], surprise)
    return predictions, [each.exp().double().contiguous().numpy() for each in alone]


@torch.no_grad()
def draw(model: TokenPolicy, inputs: Tensor, count: int, generator: torch.Generator) -> dict[str, list[list[Tensor]]]:
    """Tokens (N, G, S) a layer, drawn `count` times from what parallel heads say, and from the chain of layers."""
    features = model.features(inputs)
    layers = range(len(model.sizes))
    alone = [_drawn(model.logits_alone(features, layer), count, generator) for layer in layers]
    found = {"parallel_argmax": [[layer[i] for layer in alone] for i in range(count)]}
    if model.chained:
        chains: list[list[Tensor]] = []
        for i in range(count):
            chains.append([alone[0][i]])
            for layer in layers[1:]:
                chains[i].append(_drawn(model.logits_given(features, chains[i][:layer]), 1, generator)[0])
        found["autoregressive"] = chains
    return found


def _drawn(logits: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """(N, G, S, L) -> (count, N, G, S)"""
    flat = _log_softmax(logits).exp().flatten(0, -2).contiguous()
    return torch.multinomial(flat, count, replacement=True, generator=generator).T.reshape(count, *logits.shape[:-1])


def _log_softmax(logits: Tensor) -> Tensor:
    """Over the last dimension, but not along it: see `_summed`."""
    if logits.shape[-1] > FEW_VALUES:
        return logits.log_softmax(-1)
    return logits.flatten(0, -2).mT.contiguous().log_softmax(0).mT.unflatten(0, logits.shape[:-1])


def _of_truth(log_probabilities: Tensor, target: Tensor) -> Array:
    """log2 probability of the target tokens."""
    picked = log_probabilities.gather(-1, target[..., None])[..., 0]
    return (picked / np.log(2)).double().numpy()
