"""How well a small policy predicts each codec's tokens, and what that is worth: the rows of `evidence`.

The same network, budget and observations for every codec; errors are those of the decoded predicted action against
the demonstrator's, with the demonstrator's own past before every chunk (open loop).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from workbook.codecs.catalogue import COARSE_LAYERS, Entry, Fitting, Setting, catalogue
from workbook.codecs.protocol import Tokens, code_entropy
from workbook.codecs.token_spaces import Codes, TokenSpace
from workbook.common.array import Array
from workbook.common.errors import InputError
from workbook.common.parallel import PROGRESS_STEPS, OnProgress, ProgressStep, in_progress_steps, run_jobs
from workbook.data.dataset import Dataset
from workbook.data.episodes import take_evenly
from workbook.evaluation.layers import majority_share
from workbook.evaluation.metrics import weight_of
from workbook.evaluation.phase3 import other_moments
from workbook.evaluation.policy.evidence import CODEC, GROUPED, OWN, REGRESSION, REGRESSION_RULE, PredictedCodec
from workbook.evaluation.policy.network import (
    HEAD_WEIGHTS,
    TOKEN_RULES,
    Observations,
    PolicyConfig,
    Prediction,
    RegressionPolicy,
    Standardiser,
    TokenPolicy,
    predict,
    train_policy,
)
from workbook.evaluation.score import HeldOut

FEW_EPISODES = 20  # the smaller training-set size
DRAFT_WIDTH = 64  # of its trunk, half of the main model's
DRAFT_SEEDS = 1000  # added to the seed of a draft model
ERRORS = ("mse", "position_mm", "rotation_deg", "joint_length", "gripper_error_rate", "drift_mm")
WEIGHTS = tuple(dict.fromkeys(weight for name in ERRORS if (weight := weight_of(name))))
PARTS = ("validation", "test")
KEYS = (*GROUPED, "seed", "task", "episode")


@dataclass(frozen=True)
class ProbeConfig:
    """Parameters. policy_steps: batches; full: more codecs and training-set sizes, and four times the batches."""

    policy_steps: int = 400
    full: bool = False

    def __post_init__(self) -> None:
        if self.policy_steps < 1:
            raise InputError(f"policy_steps is {self.policy_steps}; give at least 1")

    @property
    def policy(self) -> PolicyConfig:
        return PolicyConfig(steps=self.policy_steps * (4 if self.full else 1))


@dataclass(frozen=True, eq=False)
class Target:
    """The tokens of one codec: a space for each seed, or one; readers: entry -> the same with its decoder."""

    spaces: Sequence[TokenSpace]
    readers: Mapping[str, Sequence[TokenSpace]]

    def space(self, seed: int) -> TokenSpace:
        return self.spaces[seed % len(self.spaces)]


@dataclass(frozen=True)
class PolicyJob:
    """One policy to train, of a codec's tokens or a regression; draft: on the coarse layers alone."""

    codec: PredictedCodec
    training_set_size: int
    seed: int
    draft: bool = False

    @property
    def keys(self) -> dict[str, Any]:
        return {**self.codec._asdict(), "training_set_size": self.training_set_size, "seed": self.seed}


@dataclass(frozen=True, eq=False)
class Shared:
    """What every job needs."""

    dataset: Dataset
    config: PolicyConfig
    tasks: tuple[str, ...]
    targets: Mapping[PredictedCodec, Target]
    held_out: Mapping[str, HeldOut]


@dataclass(frozen=True, eq=False)
class Predicted:
    """What came of one policy: its rows, those of its tokens, the predicted tokens of the test part (N, G, S) by rule
    and layer, and how many weights the network has.
    """

    rows: pd.DataFrame
    layers: pd.DataFrame
    tokens: Mapping[str, list[Codes]]
    weights: int


@dataclass(frozen=True, eq=False)
class Probed:
    """The content of the policy stage, its rows, and the tables beside them."""

    values: dict[str, Any]
    rows: pd.DataFrame
    tables: dict[str, pd.DataFrame]


def probe(fitting: Fitting, config: ProbeConfig, on_progress: OnProgress) -> Probed:
    """Train a policy for every codec that the catalogue has predicted, training-set size and seed."""
    dataset, seeds = fitting.dataset, len(fitting.rfsq["scale"])
    targets = predicted_codecs(replace(fitting, full=config.full))
    tasks = tuple(sorted({episode.task for episode in dataset.part("train")}))
    shared = Shared(dataset, config.policy, tasks, targets, {part: HeldOut.of(dataset, part) for part in PARTS})
    sizes = training_set_sizes(len(dataset.part("train")), config)
    jobs = [PolicyJob(codec, size, seed) for size in sizes for codec in (REGRESSION, *targets) for seed in range(seeds)]
    drafted = [codec for codec in targets if Setting.parse(codec.setting).get("layers")]
    drafts = [PolicyJob(codec, sizes[-1], seed, draft=True) for codec in drafted for seed in range(seeds)]
    found = dict(
        zip([*jobs, *drafts], run_jobs(_train, shared, [*jobs, *drafts], PROGRESS_STEPS, on_progress), strict=True)
    )
    rows = pd.concat([*(found[job].rows for job in jobs), _of_true_tokens(shared)], ignore_index=True)
    others = other_moments(shared.held_out["test"])
    tables = {
        "policy_tokens": pd.concat([found[job].layers for job in jobs], ignore_index=True),
        "draft": pd.DataFrame([row for job in drafts for row in _agreement(job, found, others)]),
        "networks": pd.DataFrame([
            codec._asdict() | _size_of(target) | {"weights": found[PolicyJob(codec, sizes[-1], 0)].weights}
            for codec, target in targets.items()
        ]),
    }  # fmt: skip
    return Probed({"config": asdict(config.policy), "tasks": len(tasks), "seeds": seeds}, rows, tables)


def training_set_sizes(train_episodes: int, config: ProbeConfig) -> tuple[int, ...]:
    wanted = (FEW_EPISODES // 2, FEW_EPISODES, 2 * FEW_EPISODES) if config.full else (FEW_EPISODES,)
    return (*(size for size in wanted if size < train_episodes), train_episodes)


def predicted_codecs(fitting: Fitting) -> dict[PredictedCodec, Target]:
    """What the catalogue has predicted, in its order."""
    found = {}
    for entry in catalogue().values():
        for setting in entry.predicted(fitting):
            readers = [other for other in catalogue().values() if other.reads == entry.name and other.space]
            found[PredictedCodec(entry.name, str(setting))] = Target(
                _spaces(entry, fitting, setting), {other.name: _spaces(other, fitting, setting) for other in readers}
            )
    return found


def _spaces(entry: Entry, fitting: Fitting, setting: Setting) -> list[TokenSpace]:
    assert entry.space is not None, f"{entry.name} is predicted and has no space of tokens"
    return [entry.space(codec, fitting.dataset.chunk_len) for codec in entry.codecs(fitting, setting)]


def _size_of(target: Target) -> dict[str, int]:
    space = target.spaces[0]
    return {"layers": len(space.sizes), "tokens_per_chunk": space.groups * sum(places for places, _ in space.sizes)}


def _train(shared: Shared, job: PolicyJob, progress_step: ProgressStep) -> Predicted:
    """Train one policy and let it predict the validation and the test chunks."""
    dataset, config = shared.dataset, shared.config
    length, normaliser = dataset.chunk_len, dataset.normaliser
    train = Observations.of(
        take_evenly(dataset.part("train"), job.training_set_size), shared.tasks, normaliser, length, min(2, length)
    )
    standardise = Standardiser.fit(train.inputs)
    held_out = {part: Observations.of(dataset.part(part), shared.tasks, normaliser, length, length) for part in PARTS}
    inputs = {part: standardise.apply(each.inputs) for part, each in held_out.items()}
    on_step = in_progress_steps(config.steps, progress_step)
    seed = job.seed + DRAFT_SEEDS * job.draft
    torch.manual_seed(seed)
    dimensions = train.inputs.shape[1]
    if job.codec == REGRESSION:
        regression = RegressionPolicy(dimensions, length * dataset.layout.dim, config.width)
        targets = torch.from_numpy(normaliser.normalise(train.chunks)).float().flatten(1)
        train_policy(regression, standardise.apply(train.inputs), [targets], config, job.seed, on_step)
        return _predict_actions(shared, job, regression, inputs)
    space = shared.targets[job.codec].space(job.seed)
    sizes = space.sizes[:COARSE_LAYERS] if job.draft else space.sizes
    width, weights = (DRAFT_WIDTH, HEAD_WEIGHTS // 2) if job.draft else (config.width, HEAD_WEIGHTS)
    policy = TokenPolicy(dimensions, space.groups, sizes, width, weights)
    tokens = [torch.from_numpy(layer) for layer in space.tokens(train.chunks)[: len(sizes)]]
    train_policy(policy, standardise.apply(train.inputs), tokens, config, seed, on_step)
    return _predict_tokens(shared, job, policy, inputs)


def _predict_actions(
    shared: Shared, job: PolicyJob, policy: RegressionPolicy, inputs: Mapping[str, torch.Tensor]
) -> Predicted:
    normaliser, length = shared.dataset.normaliser, shared.dataset.chunk_len
    frames = []
    for part in PARTS:
        with torch.no_grad():
            predicted = policy(inputs[part]).double().numpy().reshape(len(inputs[part]), length, -1)
        frames.append(_rows(shared, job, part, normaliser.denormalise(predicted), REGRESSION_RULE, 0))
    return Predicted(pd.concat(frames), pd.DataFrame(), {}, _weights(policy))


def _predict_tokens(
    shared: Shared, job: PolicyJob, policy: TokenPolicy, inputs: Mapping[str, torch.Tensor]
) -> Predicted:
    target = shared.targets[job.codec]
    space = target.space(job.seed)
    layers = len(policy.sizes)
    frames = [pd.DataFrame()]
    for part in PARTS:
        truth = space.tokens(shared.held_out[part].chunks.actions)[:layers]
        predictions, probabilities = predict(policy, inputs[part], truth)
        if job.draft:
            continue
        shown = [(space, OWN, count, count == layers) for count in range(1, layers + 1)]
        shown += [(others[job.seed % len(others)], name, layers, True) for name, others in target.readers.items()]
        for decodes, decoder, count, whole in shown:
            actions = {rule: decodes.decode(each.tokens[:count]) for rule, each in predictions.items()}
            actions["soft"] = decodes.expected(probabilities[:count])
            frames += [_rows(shared, job, part, a, rule, count, decoder, whole) for rule, a in actions.items()]
    of_layers = pd.DataFrame([row for rule in TOKEN_RULES for row in _of_layers(rule, predictions[rule], truth)])
    tokens = {rule: prediction.tokens for rule, prediction in predictions.items()}
    return Predicted(pd.concat(frames), of_layers.assign(**job.keys), tokens, _weights(policy))


def _weights(policy: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in policy.parameters())


def _rows(
    shared: Shared, job: PolicyJob, part: str, actions: Array, rule: str, layers: int, decoder: str = OWN,
    whole: bool = True,
) -> pd.DataFrame:  # fmt: skip
    """whole: all layers are decoded, so that the test part's errors of every kind are of interest."""
    keys = job.keys | {"rule": rule, "decoder": decoder, "layers": layers}
    errors = ERRORS if whole and part == "test" else ERRORS[:1]
    return shared.held_out[part].rows(actions).assign(**keys)[[*KEYS, *errors, *WEIGHTS]]


def _of_true_tokens(shared: Shared) -> pd.DataFrame:
    """What each codec makes of the test part's own tokens: the error that no policy can better."""
    chunks = shared.held_out["test"].chunks.actions
    frames = []
    for codec, target in shared.targets.items():
        for seed, space in enumerate(target.spaces):
            decoded, layers = space.decode(space.tokens(chunks)), len(space.sizes)
            frames.append(_rows(shared, PolicyJob(codec, 0, seed), "test", decoded, CODEC, layers, whole=False))
    return pd.concat(frames)


def _of_layers(rule: str, prediction: Prediction, truth: Sequence[Codes]) -> list[dict[str, Any]]:
    return [
        {
            "rule": rule, "layer": layer, "accuracy": float(np.mean(predicted == true)),
            "cross_entropy_bits": float(-log2.sum() / len(log2)),
            "majority_share": _majority(true), "entropy_bits": _entropy(true),
        }
        for layer, (predicted, log2, true) in enumerate(zip(prediction.tokens, prediction.log2, truth, strict=True))
    ]  # fmt: skip


def _majority(tokens: Codes) -> float:
    """Share of the tokens (N, G, S) of a layer that equal the most common one at their place."""
    return float(majority_share(tokens.reshape(-1, tokens.shape[2], 1))[0])


def _entropy(tokens: Codes) -> float:
    """Mean entropy of a token (N, G, S) of a layer, in bits, each place by itself."""
    flat = tokens.reshape(-1, 1, tokens.shape[2])
    return float(code_entropy(Tokens(flat), np.ones(flat.shape[:2], dtype=bool)).mean())


def _agreement(draft: PolicyJob, found: Mapping[PolicyJob, Predicted], others: Codes) -> list[dict[str, Any]]:
    """Rows of one draft model beside the main one of its seed; others: for each chunk another moment's."""
    main = found[replace(draft, draft=False)].tokens
    return [
        {
            **draft.codec._asdict(), "rule": rule, "seed": draft.seed, "layer": layer,
            "agreement": float(np.mean(a == b)), "agreement_other": float(np.mean(a[others] == b)),
        }
        for rule in TOKEN_RULES
        for layer, (a, b) in enumerate(zip(found[draft].tokens[rule], main[rule], strict=False))
    ]  # fmt: skip
