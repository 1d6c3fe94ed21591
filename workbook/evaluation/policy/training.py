"""How the offline probe trains a small policy: until its error on validation stops falling.

The learning rate warms up and then stays. Judged and kept is a moving average of the weights (Polyak and Juditsky
1992). So no schedule has to know when training ends, and one training can be looked at after any number of batches.

Policies of the same shape, which differ by seed or noise, are trained at once.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workbook.common.stacked import stacked, states_of
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


@dataclass(frozen=True, eq=False)
class Learner:
    """One policy, untrained, and what it learns from. noise: on its inputs; seed: of batches and of noise."""

    policy: AnyPolicy
    inputs: Tensor
    targets: Sequence[Tensor]
    noise: float
    seed: int


class Training:
    """Policies of the same shape in training at once, as a stack, each with the batches that it would get alone."""

    def __init__(self, learners: Sequence[Learner], config: ProbeTraining) -> None:
        self.config, self.steps = config, 0
        self._learners = list(learners)
        self._generators = [torch.Generator().manual_seed(learner.seed) for learner in learners]
        self._stack = stacked([learner.policy for learner in learners])
        self._weights = list(self._stack.parameters())
        self._averages = [weights.detach().clone() for weights in self._weights]
        self._optimizer = torch.optim.AdamW(
            self._weights, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda step: min((step + 1) / config.warm_up, 1.0)
        )

    def step(self) -> None:
        """One batch of each."""
        inputs, targets = self._batches()
        self._optimizer.zero_grad(set_to_none=True)
        self._stack.loss(inputs, targets).sum().backward()
        self._optimizer.step()
        self._schedule.step()
        self.steps += 1
        weight = max(self.config.averaging, 1 / self.steps)  # at first a plain mean
        torch._foreach_lerp_(self._averages, [weights.detach() for weights in self._weights], weight)

    def _batches(self) -> tuple[Tensor, list[Tensor]]:
        """(M, N, D) of what is seen, and the targets with a leading model dimension."""
        inputs, targets = [], []
        for learner, generator in zip(self._learners, self._generators, strict=True):
            batch = torch.randint(len(learner.inputs), (self.config.batch_size,), generator=generator)
            noise = torch.randn(len(batch), learner.inputs.shape[1], generator=generator) * learner.noise
            inputs.append(learner.inputs.index_select(0, batch) + noise)
            targets.append([target.index_select(0, batch) for target in learner.targets])
        return torch.stack(inputs), [torch.stack(of_one) for of_one in zip(*targets, strict=True)]

    @torch.no_grad()
    def averages(self) -> list[AnyPolicy]:
        """The policies that are still in training, with the moving average of their weights."""
        names = [name for name, _ in self._stack.named_parameters()]
        states = states_of(dict(zip(names, self._averages, strict=True)))
        for learner, state in zip(self._learners, states, strict=True):
            learner.policy.load_state_dict(state)
        return [learner.policy.eval() for learner in self._learners]

    def keep(self, places: Sequence[int]) -> None:
        """Go on with some of the policies alone, by their places among those in training."""
        self._learners = [self._learners[place] for place in places]
        self._generators = [self._generators[place] for place in places]
        self._averages = [average[places] for average in self._averages]
        for weights in self._weights:
            weights.data = weights.data[places]
            state = self._optimizer.state[weights]
            state.update({name: state[name][places] for name in ("exp_avg", "exp_avg_sq")})


def train_until_best(
    learners: Sequence[Learner],
    config: ProbeTraining,
    errors: Sequence[Callable[[AnyPolicy], float]],
    on_step: Callable[[int], None],
) -> list[Kept]:
    """Train policies of the same shape in place and leave each with its averaged weights of the least error.

    errors: of each policy on the validation part; on_step gets the batches done, all of them once the last has stopped.
    """
    training = Training(learners, config)
    kept = [Kept(0, float("inf")) for _ in learners]
    best = [copy.deepcopy(learner.policy.state_dict()) for learner in learners]
    failed, going = [0] * len(learners), list(range(len(learners)))
    while going and training.steps < config.steps:
        training.step()
        if training.steps % config.judged_every == 0 or training.steps == config.steps:
            for which, policy in zip(going, training.averages(), strict=True):
                found = errors[which](policy)
                failed[which] = 0 if found < kept[which].error else failed[which] + 1
                if failed[which] == 0:
                    kept[which], best[which] = Kept(training.steps, found), copy.deepcopy(policy.state_dict())
            stays = [place for place, which in enumerate(going) if failed[which] < config.patience]
            if len(stays) < len(going):
                training.keep(stays)
                going = [going[place] for place in stays]
        if going:
            on_step(training.steps)
    on_step(config.steps)
    for learner, weights in zip(learners, best, strict=True):
        learner.policy.load_state_dict(weights)
        learner.policy.eval()
    return kept
