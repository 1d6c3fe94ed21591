"""The evidence of Phase 2 in miniature: how well a small policy predicts each codec's tokens, and what that is worth.

The same network, budget and observations for every codec; errors are those of the decoded predicted action against
the demonstrator's, with the demonstrator's own past before every chunk (open loop).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from workbook.chunks import Array
from workbook.codecs.bins import UniformBins
from workbook.codecs.klt_rfsq import FixedLength, KltRFSQ
from workbook.codecs.protocol import Tokens, code_entropy
from workbook.codecs.rfsq import RFSQCodec, load_codec
from workbook.comparison import HeldOut, load_codecs
from workbook.dataset import Dataset
from workbook.episodes import take_evenly
from workbook.errors import InputError
from workbook.evaluation import Metric, summarise
from workbook.intervals import Estimate, estimate_improvement
from workbook.parallel import OnProgress, Tick, run_jobs
from workbook.paths import OutputFolder
from workbook.policy import (
    RULES,
    Observations,
    PolicyConfig,
    RegressionPolicy,
    Standardiser,
    TokenPolicy,
    predict,
    train_policy,
)
from workbook.residual_analysis import majority_share
from workbook.rivals import fitting_chunks
from workbook.token_spaces import Bins, ChunkDigits, StepRFSQ, TokenSpace

FEW_EPISODES = 20  # the smaller amount of training data
MOST_LAYERS = 4  # of a codec that a policy predicts without `full`
COARSE_LAYERS = 3  # L0-L2, what the draft model predicts
DRAFT_WIDTH = 64  # of its trunk, half of the main model's
CHUNK_DIGITS = 36  # of KLT-RFSQ: about 61 bits a chunk
DRAFT_SEEDS = 1000  # added to the seed of a draft model
SAME_WITHIN = 0.05  # errors this near to each other count as equal
TICKS = 20  # of the progress of one job
ERRORS = ("mse", "position_mm", "rotation_deg", "joint_length", "gripper_error_rate", "drift_mm")
PARTS = ("validation", "test")

Scores = dict[str, Metric]


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
class Subject:
    """What is predicted: a codec's tokens, with a space for each seed, or none for regression; alternatives are other
    decoders of the same tokens.
    """

    title: str
    spaces: Sequence[TokenSpace]
    alternatives: Mapping[str, Sequence[TokenSpace]]

    def space(self, seed: int) -> TokenSpace:
        return self.spaces[seed % len(self.spaces)]


@dataclass(frozen=True)
class Job:
    """One policy to train. subject: key of `Shared.subjects`, "" for regression; draft: on the coarse layers alone."""

    subject: str
    episodes: int
    seed: int
    draft: bool = False


@dataclass(frozen=True, eq=False)
class Shared:
    """What every job needs."""

    dataset: Dataset
    config: PolicyConfig
    tasks: tuple[str, ...]
    subjects: Mapping[str, Subject]
    held_out: Mapping[str, HeldOut]


@dataclass(frozen=True, eq=False)
class Predicted:
    """What a policy's predictions are worth.

    scores: (part, rule, first layers that are decoded, 0 for all) -> metrics of the decoded predicted actions;
    tokens: of the test part, rule -> (N, G, S) a layer; bits: rule -> the demonstrator's tokens of a chunk, mean of
    each layer.
    """

    scores: dict[tuple[str, str, int], Scores]
    tokens: dict[str, list[np.ndarray]]
    bits: dict[str, list[float]]


def probe(
    out: OutputFolder,
    dataset: Dataset,
    training: dict[str, Any],
    option_b: dict[str, Any],
    residuals: dict[str, Any],
    config: ProbeConfig,
    on_progress: OnProgress,
) -> dict[str, Any]:
    """Content of the phase2 stage."""
    codecs = load_codecs(out, training, dataset)
    codecs["retrained"] = [load_codec(out.checkpoints / file, dataset.normaliser) for file in option_b["files"]]
    seeds = len(codecs["scale"])
    subjects = _subjects(dataset, codecs, residuals, config)
    tasks = tuple(sorted({episode.task for episode in dataset.part("train")}))
    held_out = {part: HeldOut.of(dataset, part) for part in PARTS}
    shared = Shared(dataset, config.policy, tasks, subjects, held_out)
    amounts = _amounts(len(dataset.part("train")), config)
    jobs = [Job(key, amount, seed) for amount in amounts for key in ("", *subjects) for seed in range(seeds)]
    jobs += [Job(key, amounts[-1], seed, draft=True) for key in ("naive", "scale") for seed in range(seeds)]
    found = dict(zip(jobs, run_jobs(_train, shared, jobs, TICKS, on_progress), strict=True))
    evidence = Evidence(held_out["test"], subjects, found, amounts, seeds)
    return {
        "config": asdict(config.policy),
        "amounts": list(amounts),
        "tasks": len(tasks),
        "seeds": seeds,
        "regression": {str(amount): evidence.errors("", amount, "regression") for amount in amounts},
        "subjects": {key: evidence.of_subject(key) for key in subjects},
        "draft": {key: evidence.agreement(key) for key in ("naive", "scale")},
        "contrasts": evidence.contrasts(),
    }


def _amounts(train_episodes: int, config: ProbeConfig) -> tuple[int, ...]:
    wanted = (FEW_EPISODES // 2, FEW_EPISODES, 2 * FEW_EPISODES) if config.full else (FEW_EPISODES,)
    return (*(amount for amount in wanted if amount < train_episodes), train_episodes)


def _subjects(
    dataset: Dataset,
    codecs: dict[str, list[RFSQCodec]],
    residuals: dict[str, Any],
    config: ProbeConfig,
) -> dict[str, Subject]:
    steps, normaliser = dataset.chunk_len, dataset.normaliser
    layers = len(residuals["scale"]["prefix_mse"])
    dead = residuals["none"]["dead_layers"]
    live = 1 + max((k for k in range(layers) if k not in dead), default=0)
    enough = min(max(residuals["scale"]["layers_enough"], COARSE_LAYERS), layers)
    enough, live = (count if config.full else min(count, MOST_LAYERS) for count in (enough, live))
    model = KltRFSQ.fit(fitting_chunks(dataset), dataset.layout, normaliser)
    naive = [StepRFSQ(codec, steps, live) for codec in codecs["none"]]
    retrained = [StepRFSQ(codec, steps, live) for codec in codecs["retrained"]]
    subjects = {
        "naive": Subject(f"naive, {live} live of {layers} layers", naive, {"retrained": retrained}),
        "scale": Subject(f"scale, {enough} layers", [StepRFSQ(c, steps, enough) for c in codecs["scale"]], {}),
        "klt_rfsq": Subject(f"KLT-RFSQ, {CHUNK_DIGITS} digits", [ChunkDigits(FixedLength(model, CHUNK_DIGITS))], {}),
        "bins64": Subject("64 bins", [Bins(UniformBins(64, normaliser), steps)], {}),
    }
    if config.full:
        wide = FixedLength(model, 2 * CHUNK_DIGITS)
        subjects["klt_rfsq_wide"] = Subject(f"KLT-RFSQ, {wide.count} digits", [ChunkDigits(wide)], {})
        for count in (16, 256):
            subjects[f"bins{count}"] = Subject(f"{count} bins", [Bins(UniformBins(count, normaliser), steps)], {})
    return subjects


def _train(shared: Shared, job: Job, tick: Tick) -> Predicted:
    """Train one policy and let it predict the validation and the test chunks."""
    dataset, config = shared.dataset, shared.config
    length, normaliser = dataset.chunk_len, dataset.normaliser
    train = Observations.of(
        take_evenly(dataset.part("train"), job.episodes), shared.tasks, normaliser, length, min(2, length)
    )
    standardise = Standardiser.fit(train.inputs)
    held_out = {part: Observations.of(dataset.part(part), shared.tasks, normaliser, length, length) for part in PARTS}
    inputs = {part: standardise.apply(each.inputs) for part, each in held_out.items()}
    on_step = _in_ticks(config.steps, tick)
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
    policy = TokenPolicy(dimensions, space.groups, sizes, DRAFT_WIDTH if job.draft else config.width)
    tokens = [torch.from_numpy(layer) for layer in space.tokens(train.chunks)[: len(sizes)]]
    train_policy(policy, standardise.apply(train.inputs), tokens, config, job.seed, on_step)
    return _predict_tokens(shared, subject, job, policy, inputs)


def _in_ticks(steps: int, tick: Tick) -> Callable[[int], None]:
    done = 0

    def on_step(step: int) -> None:
        nonlocal done
        while done < TICKS * step // steps:
            done += 1
            tick()

    return on_step


def _predict_actions(shared: Shared, policy: RegressionPolicy, inputs: Mapping[str, torch.Tensor]) -> Predicted:
    normaliser, length = shared.dataset.normaliser, shared.dataset.chunk_len
    scores = {}
    for part in PARTS:
        with torch.no_grad():
            predicted = policy(inputs[part]).double().numpy().reshape(len(inputs[part]), length, -1)
        scores[part, "regression", 0] = _score(shared, part, normaliser.denormalise(predicted))
    return Predicted(scores, {}, {})


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
    return Predicted(scores, {rule: prediction.tokens for rule, prediction in predictions.items()}, bits)


def _score(shared: Shared, part: str, actions: Array) -> Scores:
    metrics = shared.held_out[part].measure(actions)
    return {name: metrics[name] for name in ERRORS}


@dataclass(frozen=True, eq=False)
class Evidence:
    """The figures of the probe from what all policies predicted."""

    test: HeldOut
    subjects: Mapping[str, Subject]
    found: Mapping[Job, Predicted]
    amounts: Sequence[int]
    seeds: int

    def _per_seed(self, subject: str, amount: int, rule: str, layers: int = 0, part: str = "test") -> list[Scores]:
        jobs = (Job(subject, amount, seed) for seed in range(self.seeds))
        return [self.found[job].scores[part, rule, layers] for job in jobs]

    def errors(self, subject: str, amount: int, rule: str) -> dict[str, Any]:
        """Errors of the decoded predicted actions, and the validation MSE, by which choices are made."""
        summary = summarise(self._per_seed(subject, amount, rule))
        return {
            "errors": {name: estimate.as_json() for name, estimate in summary.items()},
            "validation_mse": self._validation_mse(subject, amount, rule),
        }

    def _validation_mse(self, subject: str, amount: int, rule: str, layers: int = 0) -> float:
        metrics = [scores["mse"] for scores in self._per_seed(subject, amount, rule, layers, "validation")]
        return float(np.mean([metric.values @ metric.weights / metric.weights.sum() for metric in metrics]))

    def of_subject(self, key: str) -> dict[str, Any]:
        subject = self.subjects[key]
        truths = [space.tokens(self.test.chunks.actions) for space in subject.spaces]
        codec = [self.test.measure(s.decode(t)) for s, t in zip(subject.spaces, truths, strict=True)]
        most = self.amounts[-1]
        rule = self.best_rule(key)
        return {
            "title": subject.title,
            "layers": len(subject.spaces[0].sizes),
            "tokens_per_chunk": subject.spaces[0].groups * sum(places for places, _ in subject.spaces[0].sizes),
            "codec_mse": summarise([{"mse": metrics["mse"]} for metrics in codec])["mse"].as_json(),
            "majority": np.mean([[_majority(layer) for layer in truth] for truth in truths], axis=0).tolist(),
            "entropy": np.mean([[_entropy(layer) for layer in truth] for truth in truths], axis=0).tolist(),
            "best_rule": rule,
            "layers_to_keep": self.layers_to_keep(key, rule),
            "by_amount": {str(amount): self._by_rule(key, truths, amount) for amount in self.amounts},
            "by_layers": {
                rule: [
                    summarise([{"mse": s["mse"]} for s in self._per_seed(key, most, rule, shown)])["mse"].as_json()
                    for shown in self._prefixes(key)
                ]
                for rule in RULES
            },
        }

    def _prefixes(self, key: str) -> list[int]:
        """The numbers of first layers that were decoded, all of them as 0, coarse to fine."""
        return [*range(1, len(self.subjects[key].spaces[0].sizes)), 0]

    def _by_rule(self, key: str, truths: Sequence[list[np.ndarray]], amount: int) -> dict[str, Any]:
        rows: dict[str, Any] = {}
        for rule in RULES:
            rows[rule] = self.errors(key, amount, rule)
            if rule != "expected":
                rows[rule] |= self._of_tokens(key, truths, amount, rule)
        for name in self.subjects[key].alternatives:
            rows |= {f"{rule}, {name}": self.errors(key, amount, f"{rule}, {name}") for rule in RULES}
        return rows

    def _of_tokens(self, key: str, truths: Sequence[list[np.ndarray]], amount: int, rule: str) -> dict[str, Any]:
        predicted = [self.found[Job(key, amount, seed)] for seed in range(self.seeds)]
        accuracy = [
            [float(np.mean(a == b)) for a, b in zip(each.tokens[rule], truths[seed % len(truths)], strict=True)]
            for seed, each in enumerate(predicted)
        ]
        return {
            "accuracy": np.mean(accuracy, axis=0).tolist(),
            "accuracy_per_seed": accuracy,
            "bits_per_layer": np.mean([each.bits[rule] for each in predicted], axis=0).tolist(),
            "bits_per_chunk": [float(np.sum(each.bits[rule])) for each in predicted],
        }

    def best_rule(self, key: str) -> str:
        """The rule of least validation MSE, with all training data; of equal ones the simplest."""
        return min(RULES, key=lambda rule: self._validation_mse(key, self.amounts[-1], rule))

    def layers_to_keep(self, key: str, rule: str) -> int:
        """The fewest first layers whose validation MSE, predicted and decoded, is within 5 % of the least."""
        found = [self._validation_mse(key, self.amounts[-1], rule, shown) for shown in self._prefixes(key)]
        return next(k + 1 for k, mse in enumerate(found) if mse <= min(found) * (1 + SAME_WITHIN))

    def agreement(self, key: str) -> dict[str, Any]:
        """Share of the coarse tokens on which draft and main agree, layer by layer: mean, and of each seed."""
        shares: dict[str, list[list[float]]] = {rule: [] for rule in RULES if rule != "expected"}
        for seed in range(self.seeds):
            main, draft = (self.found[Job(key, self.amounts[-1], seed, draft=which)] for which in (False, True))
            for rule, per_seed in shares.items():
                pairs = zip(draft.tokens[rule], main.tokens[rule], strict=False)
                per_seed.append([float(np.mean(a == b)) for a, b in pairs])
        return {rule: {"mean": np.mean(each, axis=0).tolist(), "per_seed": each} for rule, each in shares.items()}

    def contrasts(self) -> dict[str, Any]:
        """Paired differences of MSE with all training data, as the share by which the second is less than the first."""
        most = self.amounts[-1]
        today = self._mse("naive", "independent")
        best = {key: self.best_rule(key) for key in self.subjects}
        naive, scale = self._mse("naive", best["naive"]), self._mse("scale", best["scale"])
        codec = [self.test.measure(s.decode(s.tokens(self.test.chunks.actions))) for s in self.subjects["naive"].spaces]
        codec_mse = np.stack([metrics["mse"].values for metrics in codec])
        rows = {
            "scale_for_naive": self._less(naive, scale),
            "klt_rfsq_for_naive": self._less(naive, self._mse("klt_rfsq", best["klt_rfsq"])),
            "retrained_decoder": self._less(naive, self._mse("naive", f"{best['naive']}, retrained")),
            "naive_rule": self._less(today, naive),
            "naive_without_codec_error": self._less(naive, np.maximum(naive - codec_mse, 0)),
            "regression_for_naive": self._less(naive, self._mse("", "regression")),
        }
        for rule in ("by_layer", "expected"):
            rows[f"scale_{rule}"] = self._less(self._mse("scale", "independent"), self._mse("scale", rule))
        for rule in RULES:
            rows[f"scale_for_naive_{rule}"] = self._less(self._mse("naive", rule), self._mse("scale", rule))
        return {"episodes": most, **{name: estimate.as_json() for name, estimate in rows.items()}}

    def _mse(self, subject: str, rule: str) -> Array:
        return np.stack([scores["mse"].values for scores in self._per_seed(subject, self.amounts[-1], rule)])

    def _less(self, baseline: Array, candidate: Array) -> Estimate:
        return estimate_improvement(
            baseline, candidate, self._per_seed("", self.amounts[-1], "regression")[0]["mse"].weights
        )


def _majority(tokens: np.ndarray) -> float:
    """Share of the tokens (N, G, S) of a layer that equal the most common one at their place."""
    return float(majority_share(tokens.reshape(-1, tokens.shape[2], 1))[0])


def _entropy(tokens: np.ndarray) -> float:
    """Mean entropy of a token (N, G, S) of a layer, in bits, each place by itself."""
    flat = tokens.reshape(-1, 1, tokens.shape[2])
    return float(code_entropy(Tokens(flat), np.ones(flat.shape[:2], dtype=bool)).mean())
