"""How the offline probe trains a small policy: until its error on validation stops falling.

The learning rate warms up and then stays. Judged and kept is a moving average of the weights (Polyak and Juditsky
1992). So no schedule has to know when training ends, and one training can be looked at after any number of batches.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workbook.evaluation.policy.network import ProbePolicy, RegressionPolicy

NOISES = (0.05, 0.2)  # on standardised observations, of which validation chooses one for each codec
AnyPolicy = ProbePolicy | RegressionPolicy


@dataclass(frozen=True)
class ProbeTraining:
    """The same for every codec.

    steps: batches at most; width: of the trunk, features: what it gives to the heads, shared out over the groups of a
    chunk, head_width: hidden units of every head; warm_up: batches in which the learning rate grows; averaging: weight
    of the newest weights in their moving average; judged_every: batches; patience: how often in a row the error may be
    judged not to have fallen.
    """

    steps: int = 1600
    batch_size: int = 64
    width: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    features: int = 256
    head_width: int = 128
    warm_up: int = 100
    averaging: float = 0.02
    judged_every: int = 200
    patience: int = 2


@dataclass(frozen=True)
class Kept:
    """What training came to. steps: batches after which the kept weights stood, error: theirs on validation."""

    steps: int
    error: float


def averages(
    model: AnyPolicy, inputs: Tensor, targets: Sequence[Tensor], config: ProbeTraining, noise: float, seed: int
) -> Iterator[AnyPolicy]:
    """Train a policy in place; after every batch the moving average of its weights, which later batches change."""
    average = copy.deepcopy(model).eval().requires_grad_(False)
    pairs = list(zip(average.parameters(), model.parameters(), strict=True))
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min((step + 1) / config.warm_up, 1.0))
    for step in range(config.steps):
        batch = torch.randint(len(inputs), (config.batch_size,), generator=generator)
        noises = torch.randn(config.batch_size, inputs.shape[1], generator=generator) * noise
        loss = model.loss(inputs[batch] + noises, [target[batch] for target in targets])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        weight = max(config.averaging, 1 / (step + 1))  # at first a plain mean
        torch._foreach_lerp_([old for old, _ in pairs], [new.detach() for _, new in pairs], weight)
        yield average


def train_until_best(
    model: AnyPolicy,
    inputs: Tensor,
    targets: Sequence[Tensor],
    config: ProbeTraining,
    noise: float,
    seed: int,
    error: Callable[[AnyPolicy], float],
    on_step: Callable[[int], None],
) -> Kept:
    """Train a policy in place and leave it with the averaged weights of the least error.

    error: of a policy on the validation part; on_step gets the batches done, all of them once training has stopped.
    """
    kept, best, failed = Kept(0, float("inf")), copy.deepcopy(model.state_dict()), 0
    for step, average in enumerate(averages(model, inputs, targets, config, noise, seed), start=1):
        if step % config.judged_every == 0 or step == config.steps:
            found = error(average)
            failed = 0 if found < kept.error else failed + 1
            if failed == 0:
                kept, best = Kept(step, found), copy.deepcopy(average.state_dict())
            if failed == config.patience:
                break
        on_step(step)
    on_step(config.steps)
    model.load_state_dict(best)
    model.eval()
    return kept
