"""The evidence of Phase 2 in miniature: how well a small policy predicts each codec's tokens, and what that is worth.

The same network, budget and observations for every codec; errors are those of the decoded predicted action against
the demonstrator's, with the demonstrator's own past before every chunk (open loop).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from workbook.codecs.bins import UniformBins
from workbook.codecs.klt_rfsq import FixedLength, KltRFSQ
from workbook.codecs.klt_rfsq_file import FILE_NAME, load_klt_rfsq
from workbook.codecs.rfsq import RFSQCodec, load_codec
from workbook.codecs.token_spaces import Bins, ChunkCodes, StepRFSQ
from workbook.common.array import Array
from workbook.common.errors import InputError
from workbook.common.parallel import PROGRESS_STEPS, OnProgress, ProgressStep, in_progress_steps, run_jobs
from workbook.common.paths import OutputFolder
from workbook.common.wording import count_of
from workbook.data.dataset import Dataset
from workbook.data.episodes import take_evenly
from workbook.evaluation.layers import analyse_model
from workbook.evaluation.policy.evidence import Evidence, Job, Predicted, Scores, Subject
from workbook.evaluation.policy.network import (
    HEAD_WEIGHTS,
    Observations,
    PolicyConfig,
    RegressionPolicy,
    Standardiser,
    TokenPolicy,
    predict,
    train_policy,
)
from workbook.evaluation.score import HeldOut, load_codecs

FEW_EPISODES = 20  # the smaller amount of training data
MOST_LAYERS = 3  # of a codec that a policy predicts without `full`
COARSE_LAYERS = 3  # L0-L2, what the draft model predicts
DRAFT_WIDTH = 64  # of its trunk, half of the main model's
CHUNK_CODES = 36  # of KLT-RFSQ: about 61 bits a chunk
DRAFT_SEEDS = 1000  # added to the seed of a draft model
ERRORS = ("mse", "position_mm", "rotation_deg", "joint_length", "gripper_error_rate", "drift_mm")
PARTS = ("validation", "test")


@dataclass(frozen=True)
class ProbeConfig:
    """Parameters of the probe. policy_steps: batches; full: more codecs and amounts of data, four times the batches."""

    policy_steps: int = 400
    full: bool = False

    def __post_init__(self) -> None:
        if self.policy_steps < 1:
            raise InputError(f"policy_steps is {self.policy_steps}; give at least 1")

    @property
    def policy(self) -> PolicyConfig:
        return PolicyConfig(steps=self.policy_steps * (4 if self.full else 1))


@dataclass(frozen=True, eq=False)
class Shared:
    """What every job needs."""

    dataset: Dataset
    config: PolicyConfig
    tasks: tuple[str, ...]
    subjects: Mapping[str, Subject]
    held_out: Mapping[str, HeldOut]


def probe(
    out: OutputFolder,
    dataset: Dataset,
    training: dict[str, Any],
    option_b: dict[str, Any],
    config: ProbeConfig,
    on_progress: OnProgress,
) -> dict[str, Any]:
    """Content of the phase2 stage."""
    codecs = load_codecs(out, training, dataset)
    codecs["retrained"] = [load_codec(out.checkpoints / file, dataset.normaliser) for file in option_b["files"]]
    seeds = len(codecs["scale"])
    model = load_klt_rfsq(out.checkpoints / FILE_NAME)[0].model
    held_out = {part: HeldOut.of(dataset, part) for part in PARTS}
    chosen = {name: analyse_model(codecs[name], held_out["validation"]) for name in ("none", "scale")}
    subjects = _subjects(dataset, codecs, model, chosen, config)
    tasks = tuple(sorted({episode.task for episode in dataset.part("train")}))
    shared = Shared(dataset, config.policy, tasks, subjects, held_out)
    amounts = _amounts(len(dataset.part("train")), config)
    jobs = [Job(key, amount, seed) for amount in amounts for key in ("", *subjects) for seed in range(seeds)]
    jobs += [Job(key, amounts[-1], seed, draft=True) for key in ("naive", "scale") for seed in range(seeds)]
    found = dict(zip(jobs, run_jobs(_train, shared, jobs, PROGRESS_STEPS, on_progress), strict=True))
    evidence = Evidence(held_out["test"], subjects, found, amounts, seeds)
    return {
        "config": asdict(config.policy),
        "amounts": list(amounts),
        "tasks": len(tasks),
        "seeds": seeds,
        "regression": {str(amount): evidence.errors("", amount, "regression") for amount in amounts},
        "subjects": {key: evidence.of_subject(key) for key in subjects},
        "new_codec": evidence.new_codec(),
        "draft": {key: evidence.agreement(key) for key in ("naive", "scale")},
        "contrasts": evidence.contrasts(),
    }


def _amounts(train_episodes: int, config: ProbeConfig) -> tuple[int, ...]:
    wanted = (FEW_EPISODES // 2, FEW_EPISODES, 2 * FEW_EPISODES) if config.full else (FEW_EPISODES,)
    return (*(amount for amount in wanted if amount < train_episodes), train_episodes)


def _subjects(
    dataset: Dataset,
    codecs: dict[str, list[RFSQCodec]],
    model: KltRFSQ,
    residuals: dict[str, Any],
    config: ProbeConfig,
) -> dict[str, Subject]:
    """residuals: of naive and scale, on the validation part."""
    steps, normaliser = dataset.chunk_len, dataset.normaliser
    layers = len(residuals["scale"]["prefix_mse"])
    dead = residuals["none"]["dead_layers"]
    live = 1 + max((k for k in range(layers) if k not in dead), default=0)
    enough = min(max(residuals["scale"]["layers_enough"], COARSE_LAYERS), layers)
    enough, live = (count if config.full else min(count, MOST_LAYERS) for count in (enough, live))
    naive = [StepRFSQ(codec, steps, live) for codec in codecs["none"]]
    retrained = [StepRFSQ(codec, steps, live) for codec in codecs["retrained"]]
    subjects = {
        "naive": Subject(f"naive, {live} of {count_of(layers, 'layer')}", naive, {"retrained": retrained}),
        "scale": Subject(
            f"scale, {count_of(enough, 'layer')}", [StepRFSQ(c, steps, enough) for c in codecs["scale"]], {}
        ),
        "klt_rfsq": _of_codes(FixedLength(model, CHUNK_CODES)),
        "bins64": Subject("64 bins", [Bins(UniformBins(64, normaliser), steps)], {}),
    }
    if config.full:
        subjects["klt_rfsq_wide"] = _of_codes(FixedLength(model, 2 * CHUNK_CODES))
        for count in (16, 256):
            subjects[f"bins{count}"] = Subject(f"{count} bins", [Bins(UniformBins(count, normaliser), steps)], {})
    return subjects


def _of_codes(codec: FixedLength) -> Subject:
    return Subject(codec.name, [ChunkCodes(codec)], {})


def _train(shared: Shared, job: Job, progress_step: ProgressStep) -> Predicted:
    """Train one policy and let it predict the validation and the test chunks."""
    dataset, config = shared.dataset, shared.config
    length, normaliser = dataset.chunk_len, dataset.normaliser
    train = Observations.of(
        take_evenly(dataset.part("train"), job.episodes), shared.tasks, normaliser, length, min(2, length)
    )
    standardise = Standardiser.fit(train.inputs)
    held_out = {part: Observations.of(dataset.part(part), shared.tasks, normaliser, length, length) for part in PARTS}
    inputs = {part: standardise.apply(each.inputs) for part, each in held_out.items()}
    on_step = in_progress_steps(config.steps, progress_step)
    torch.manual_seed(job.seed + DRAFT_SEEDS * job.draft)
    dimensions = train.inputs.shape[1]
    if not job.subject:
        regression = RegressionPolicy(dimensions, length * dataset.layout.dim, config.width)
        targets = torch.from_numpy(normaliser.normalise(train.chunks)).float().flatten(1)
        train_policy(regression, standardise.apply(train.inputs), [targets], config, job.seed, on_step)
        return _predict_actions(shared, regression, inputs)
    subject = shared.subjects[job.subject]
    space = subject.space(job.seed)
    sizes = space.sizes[:COARSE_LAYERS] if job.draft else space.sizes
    width, weights = (DRAFT_WIDTH, HEAD_WEIGHTS // 2) if job.draft else (config.width, HEAD_WEIGHTS)
    policy = TokenPolicy(dimensions, space.groups, sizes, width, weights)
    tokens = [torch.from_numpy(layer) for layer in space.tokens(train.chunks)[: len(sizes)]]
    seed = job.seed + DRAFT_SEEDS * job.draft
    train_policy(policy, standardise.apply(train.inputs), tokens, config, seed, on_step)
    return _predict_tokens(shared, subject, job, policy, inputs)


def _predict_actions(shared: Shared, policy: RegressionPolicy, inputs: Mapping[str, torch.Tensor]) -> Predicted:
    normaliser, length = shared.dataset.normaliser, shared.dataset.chunk_len
    scores = {}
    for part in PARTS:
        with torch.no_grad():
            predicted = policy(inputs[part]).double().numpy().reshape(len(inputs[part]), length, -1)
        scores[part, "regression", 0] = _score(shared, part, normaliser.denormalise(predicted))
    return Predicted(scores, {}, {}, sum(parameter.numel() for parameter in policy.parameters()))


def _predict_tokens(
    shared: Shared, subject: Subject, job: Job, policy: TokenPolicy, inputs: Mapping[str, torch.Tensor]
) -> Predicted:
    space = subject.space(job.seed)
    layers = len(policy.sizes)
    scores: dict[tuple[str, str, int], Scores] = {}
    for part in PARTS:
        truth = space.tokens(shared.held_out[part].chunks.actions)[:layers]
        predictions, probabilities = predict(policy, inputs[part], truth)
        for count in range(1, layers + 1) if not job.draft else ():
            shown = 0 if count == layers else count
            for rule, prediction in predictions.items():
                scores[part, rule, shown] = _score(shared, part, space.decode(prediction.tokens[:count]))
            scores[part, "expected", shown] = _score(shared, part, space.expected(probabilities[:count]))
        for name, others in subject.alternatives.items():
            other = others[job.seed % len(others)]
            for rule, prediction in predictions.items():
                scores[part, f"{rule}, {name}", 0] = _score(shared, part, other.decode(prediction.tokens))
            scores[part, f"expected, {name}", 0] = _score(shared, part, other.expected(probabilities))
    bits = {
        rule: [float(-layer.sum() / len(layer)) for layer in prediction.log2]
        for rule, prediction in predictions.items()
    }
    tokens = {rule: prediction.tokens for rule, prediction in predictions.items()}
    return Predicted(scores, tokens, bits, sum(parameter.numel() for parameter in policy.parameters()))


def _score(shared: Shared, part: str, actions: Array) -> Scores:
    metrics = shared.held_out[part].measure(actions)
    return {name: metrics[name] for name in ERRORS}
