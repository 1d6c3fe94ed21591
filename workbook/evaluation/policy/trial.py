"""One small policy of the offline probe: what it is, what it learns from, and what its predictions come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from workbook.codecs.token_spaces import Codes, TokenSpace
from workbook.common.array import Array
from workbook.common.targets import COARSE_LAYERS
from workbook.data.dataset import Dataset
from workbook.data.episodes import Episode, take_evenly
from workbook.evaluation.policy.decoded import Decoded, Reader, decode_predictions
from workbook.evaluation.policy.evidence import OWN, REGRESSION, REGRESSION_RULE, PredictedCodec
from workbook.evaluation.policy.network import Observations, ProbePolicy, RegressionPolicy, Standardiser
from workbook.evaluation.policy.training import AnyPolicy, Learner, ProbeTraining
from workbook.evaluation.score import HeldOut

DRAFT_WIDTH = 64  # of its trunk, a quarter of the main model's
DRAFT_SEEDS = 1000  # added to the seed of a draft model
PARTS = ("validation", "test")
Heads = Literal["apart", "joint", "draft"]


@dataclass(frozen=True, eq=False)
class Target:
    """The tokens of one codec: a space for each seed, or one; readers: entry -> the same with its decoder."""

    spaces: Sequence[TokenSpace]
    readers: Mapping[str, Sequence[TokenSpace]]

    def space(self, seed: int) -> TokenSpace:
        return self.spaces[seed % len(self.spaces)]

    def joint(self) -> Target | None:
        """With one token for the nested codes of a latent; None where the codec has none."""
        spaces = [joint for space in self.spaces if (joint := space.joint())]
        return Target(spaces, {}) if spaces else None


class Predictor(NamedTuple):
    """A kind of policy: whose tokens it predicts, or a regression, and by which heads.

    apart: one softmax a token; joint: one for all nested codes of a latent; draft: apart, of the coarse layers alone.
    """

    codec: PredictedCodec
    heads: Heads = "apart"


@dataclass(frozen=True)
class PolicyJob:
    """One policy to train. noise: on its observations."""

    predictor: Predictor
    training_set_size: int
    seed: int
    noise: float

    @property
    def keys(self) -> dict[str, Any]:
        return {**self.predictor.codec._asdict(), "training_set_size": self.training_set_size, "seed": self.seed}


@dataclass(frozen=True, eq=False)
class Shared:
    """What every job needs. targets: the tokens of each kind of policy but the regression, as it predicts them."""

    dataset: Dataset
    config: ProbeTraining
    tasks: tuple[str, ...]
    targets: Mapping[Predictor, Target]
    held_out: Mapping[str, HeldOut]

    def layers(self, codec: PredictedCodec) -> int:
        """Of a codec's tokens; none of a regression."""
        return 0 if codec == REGRESSION else len(self.targets[Predictor(codec)].spaces[0].sizes)


@dataclass(frozen=True, eq=False)
class Trial:
    """A job with what its policy learns from and is judged by.

    inputs, chunks: of the train part; held_out: inputs by part; space: of its tokens, None of a regression; config:
    with as many batches as give few episodes the same passes as all of them get.
    """

    job: PolicyJob
    shared: Shared
    inputs: Tensor
    chunks: Array
    held_out: Mapping[str, Tensor]
    space: TokenSpace | None
    config: ProbeTraining

    @staticmethod
    def of(shared: Shared, job: PolicyJob) -> Trial:
        dataset = shared.dataset
        length, normaliser, every = dataset.chunk_len, dataset.normaliser, dataset.part("train")
        episodes = take_evenly(every, job.training_set_size)
        train = Observations.of(episodes, shared.tasks, normaliser, length, min(2, length))
        standardise = Standardiser.fit(train.inputs)
        seen = {part: Observations.of(dataset.part(part), shared.tasks, normaliser, length, length) for part in PARTS}
        held_out = {part: standardise.apply(each.inputs) for part, each in seen.items()}
        target = shared.targets.get(job.predictor)
        steps = max(round(shared.config.steps * _steps(episodes) / _steps(every)), 1)
        return Trial(
            job, shared, standardise.apply(train.inputs), train.chunks, held_out,
            target.space(job.seed) if target else None, replace(shared.config, steps=steps),
        )  # fmt: skip

    def beside(self, job: PolicyJob) -> Trial:
        """That of a job of another seed or noise, which sees the same."""
        target = self.shared.targets.get(job.predictor)
        return replace(self, job=job, space=target.space(job.seed) if target else None)

    @property
    def heads(self) -> Heads:
        return self.job.predictor.heads

    @property
    def seed(self) -> int:
        return self.job.seed + DRAFT_SEEDS * (self.heads == "draft")

    @cached_property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Of the layers of tokens that are predicted."""
        sizes = self.space.sizes if self.space else ()
        return sizes[:COARSE_LAYERS] if self.heads == "draft" else sizes

    def new_policy(self) -> AnyPolicy:
        torch.manual_seed(self.seed)
        config, dimensions = self.config, self.inputs.shape[1]
        if self.space is None:
            outputs = self.chunks.shape[1] * self.chunks.shape[2]
            return RegressionPolicy(
                dimensions, outputs, config.width, features=config.features, hidden=config.head_width
            )
        draft = self.heads == "draft"
        return ProbePolicy(
            dimensions, self.space.groups, self.sizes, DRAFT_WIDTH if draft else config.width,
            hidden=config.head_width // (2 if draft else 1), features=config.features, chained=self.heads != "joint",
        )  # fmt: skip

    def learner(self) -> Learner:
        return Learner(self.new_policy(), self.inputs, self._targets(), self.job.noise, self.seed)

    def _targets(self) -> list[Tensor]:
        if self.space is None:
            return [torch.from_numpy(self.shared.dataset.normaliser.normalise(self.chunks)).float().flatten(1)]
        small = [layer.astype(np.int16) for layer in self._tokens(self.chunks)]  # for several policies at once
        return [torch.from_numpy(layer) for layer in small]

    def _tokens(self, chunks: Array) -> list[Codes]:
        return self.space.tokens(chunks)[: len(self.sizes)] if self.space else []

    @cached_property
    def truth(self) -> list[Codes]:
        """Tokens of the test part."""
        return self._tokens(self.shared.held_out["test"].chunks.actions)

    def own_readers(self) -> list[Reader]:
        """The codec's own decoder, of ever more layers; joint tokens are decoded whole."""
        if self.space is None:
            return []
        layers = len(self.sizes)
        return [Reader(self.space, OWN, k) for k in range(layers if self.heads == "joint" else 1, layers + 1)]

    def other_readers(self) -> list[Reader]:
        readers = self.shared.targets[self.job.predictor].readers if self.space else {}
        return [Reader(each[self.job.seed % len(each)], name, len(self.sizes)) for name, each in readers.items()]

    def decoded(self, policy: AnyPolicy, part: str, readers: Sequence[Reader], draws: bool = False) -> Decoded:
        if isinstance(policy, RegressionPolicy):
            with torch.no_grad():
                predicted = policy(self.held_out[part]).double().numpy()
            shape = self.shared.held_out[part].chunks.actions.shape
            actions = self.shared.dataset.normaliser.denormalise(predicted.reshape(shape))
            return Decoded({(REGRESSION_RULE, OWN, 0): actions}, {}, {})
        truth = self.truth if part == "test" else None
        return decode_predictions(policy, self.held_out[part], truth, readers, self.seed if draws else None)

    def validation_mse(self, policy: AnyPolicy) -> float:
        """At its best rule, by which training is stopped and noise is chosen."""
        found = self.decoded(policy, "validation", self.own_readers()[-1:]).actions.values()
        return min(self.shared.held_out["validation"].mse(actions) for actions in found)


def _steps(episodes: Sequence[Episode]) -> int:
    return sum(len(episode.actions) for episode in episodes)
