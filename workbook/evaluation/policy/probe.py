"""How well a small policy predicts each codec's tokens, and what that is worth: the rows of `evidence`.

The same network, training and observations for every codec; errors are those of the decoded predicted action against
the demonstrator's, with the demonstrator's own past before every chunk (open loop). How long a policy trains, and how
noisy what it sees is meanwhile, is chosen for each codec on the validation part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from workbook.codecs.catalogue import Entry, Fitting, Setting, catalogue, entries, not_predicted
from workbook.codecs.protocol import Tokens, code_entropy
from workbook.codecs.token_spaces import Codes, SequenceTokens, TokenSpace
from workbook.common.array import Array
from workbook.common.errors import InputError
from workbook.common.parallel import (
    PROGRESS_STEPS,
    OnProgress,
    ProgressStep,
    available_cores,
    in_progress_steps,
    run_jobs,
)
from workbook.evaluation.layers import majority_share
from workbook.evaluation.metrics import weight_of
from workbook.evaluation.phase3 import other_moments
from workbook.evaluation.policy.distribution import LIKELIHOOD, SUM_ERRORS, chunk_errors, motion_bits, residual_std
from workbook.evaluation.policy.evidence import CODEC, GROUPED, NAIVE, OWN, REGRESSION, PredictedCodec
from workbook.evaluation.policy.network import JOINT_RULES, TOKEN_RULES, Prediction, ProbePolicy
from workbook.evaluation.policy.training import NOISES, AnyPolicy, Kept, ProbeTraining, train_until_best
from workbook.evaluation.policy.trial import PARTS, PolicyJob, Predictor, Shared, Target, Trial
from workbook.evaluation.score import HeldOut

Result = TypeVar("Result")
MOST_STACKED = 5  # policies; of more the weights and their averages no longer fit into a processor's caches
# Of a chunk, without and with `full`: the fixed scale's 44,000 of 3 layers would take about a fifth of all the time,
# and its 307,000 of 4 layers more than half of it.
MOST_JOINT_LOGITS = {False: 20_000, True: 50_000}
A_LOGIT = 50  # products that it counts for, with its exponential
FEW_EPISODES = 20  # half, once and twice as many are the smaller training-set sizes of `full`
EPISODE_ERRORS = ("mse", "motion_mse", "position_mm", "rotation_deg", "joint_length", "gripper_error_rate", "drift_mm")
ERRORS = (*EPISODE_ERRORS, *SUM_ERRORS, LIKELIHOOD)
WEIGHTS = tuple(dict.fromkeys(weight for name in ERRORS if (weight := weight_of(name))))
KEYS = (*GROUPED, "seed", "task", "episode")
JOINT = {"parallel_argmax": JOINT_RULES[0], "soft": JOINT_RULES[1]}  # what rules of parallel heads are called there


@dataclass(frozen=True)
class ProbeConfig:
    """Parameters. policy_steps: batches at most; full: four times as many, more codecs, and training-set sizes."""

    policy_steps: int = ProbeTraining.steps
    full: bool = False

    def __post_init__(self) -> None:
        if self.policy_steps < 1:
            raise InputError(f"policy_steps is {self.policy_steps}; give at least 1")

    @property
    def policy(self) -> ProbeTraining:
        return ProbeTraining(steps=self.policy_steps * (4 if self.full else 1))


@dataclass(frozen=True, eq=False)
class Predicted:
    """What came of one policy: its rows, those of its tokens, the predicted tokens of the test part (N, G, S) by rule
    and layer, and a row on the network.
    """

    rows: pd.DataFrame
    layers: pd.DataFrame
    tokens: Mapping[str, list[Codes]]
    network: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Probed:
    """The content of the policy stage, its rows, and the tables beside them."""

    values: dict[str, Any]
    rows: pd.DataFrame
    tables: dict[str, pd.DataFrame]


def probe(fitting: Fitting, config: ProbeConfig, on_progress: OnProgress) -> Probed:
    """Train a policy for every codec that the catalogue has predicted, kind of heads, training-set size and seed.

    Each kind learns with the noise that left less error on validation with the first seed and all train episodes.
    """
    shared, seeds = shared_by_jobs(fitting, config), len(fitting.rfsq["scale"])
    sizes = training_set_sizes(len(shared.dataset.part("train")), config)
    kinds = [Predictor(REGRESSION), *(kind for kind in shared.targets if kind.heads != "draft")]
    drafted = [kind for kind in shared.targets if kind.heads == "draft"]
    tried = [PolicyJob(kind, sizes[-1], 0, noise) for kind in kinds for noise in NOISES]
    total = len(tried) + len(kinds) * (len(sizes) * seeds - 1) + len(drafted) * seeds
    found = run_stacks(_train, shared, tried, _share(on_progress, 0, len(tried), total))
    noise = {kind: _least_noise(kind, found) for kind in kinds}
    jobs = [PolicyJob(kind, size, seed, noise[kind]) for size in sizes for kind in kinds for seed in range(seeds)]
    drafts = [
        PolicyJob(kind, sizes[-1], seed, noise[Predictor(kind.codec)]) for kind in drafted for seed in range(seeds)
    ]
    rest = [job for job in (*jobs, *drafts) if job not in found]
    found |= run_stacks(_train, shared, rest, _share(on_progress, len(tried), len(rest), total))
    rows = pd.concat([*(found[job].rows for job in jobs), of_true_tokens(shared)], ignore_index=True)
    others = other_moments(shared.held_out["test"])
    networks = [{**found[job].network, "chosen": job in jobs} for job in dict.fromkeys((*tried, *jobs))]
    tables = {
        "policy_tokens": pd.concat([found[job].layers for job in jobs], ignore_index=True),
        "draft": pd.DataFrame([row for job in drafts for row in _agreement(job, found, others)]),
        "networks": pd.DataFrame(networks),
    }
    values = {
        "config": asdict(shared.config), "tasks": len(shared.tasks), "seeds": seeds,
        "not_predicted": not_predicted(replace(fitting, full=config.full)),
    }  # fmt: skip
    return Probed(values, rows, tables)


def _share(on_progress: OnProgress, before: int, jobs: int, total: int) -> OnProgress:
    """Tells some of all jobs as a share of them."""
    return lambda done, of: on_progress(
        before * PROGRESS_STEPS + jobs * PROGRESS_STEPS * done // of, total * PROGRESS_STEPS
    )


def run_stacks(
    work: Callable[[Shared, Sequence[PolicyJob], ProgressStep], list[Result]],
    shared: Shared,
    jobs: Sequence[PolicyJob],
    on_progress: OnProgress | None = None,
) -> dict[PolicyJob, Result]:
    """`run_jobs` of stacks: jobs whose policies are of the same shape and learn at once."""
    stacks = _stacks(shared, jobs)
    found = run_jobs(work, shared, stacks, PROGRESS_STEPS, on_progress)
    return {
        job: of_job for stack, each in zip(stacks, found, strict=True) for job, of_job in zip(stack, each, strict=True)
    }


def _stacks(shared: Shared, jobs: Sequence[PolicyJob]) -> list[list[PolicyJob]]:
    """The most work first; no larger than leaves one for every core."""
    alike: dict[tuple[Predictor, int], list[PolicyJob]] = {}
    for job in jobs:
        alike.setdefault((job.predictor, job.training_set_size), []).append(job)
    most = min(max(len(jobs) // available_cores(), 1), MOST_STACKED)
    stacks = [each[start : start + most] for each in alike.values() for start in range(0, len(each), most)]
    one = Trial.of(shared, jobs[0]) if jobs else None
    return sorted(stacks, key=lambda stack: _work(one.beside(stack[0]), len(stack)) if one else 0, reverse=True)


def _work(trial: Trial, policies: int) -> int:
    """About how much of it: weights, which the optimizer goes over, products, of which heads have one a group, and
    logits.
    """
    policy = trial.new_policy()
    weights = sum(parameter.numel() for parameter in policy.parameters())
    beside = policy.groups - 1 if isinstance(policy, ProbePolicy) else 0
    of_heads = sum(own.numel() for name, own in policy.named_parameters() if name.startswith(("alone", "given")))
    logits = logits_of(trial.space) if trial.space else 0
    return policies * trial.job.training_set_size * (2 * weights + beside * of_heads + A_LOGIT * logits)


def trials_of(shared: Shared, stack: Sequence[PolicyJob]) -> list[Trial]:
    first = Trial.of(shared, stack[0])
    return [first.beside(job) for job in stack]


def _least_noise(kind: Predictor, found: Mapping[PolicyJob, Predicted]) -> float:
    """That of least validation error; of equal ones the first."""
    tried = [job for job in found if job.predictor == kind]
    return min(tried, key=lambda job: float(found[job].network["validation_mse"])).noise


def shared_by_jobs(fitting: Fitting, config: ProbeConfig) -> Shared:
    """The tokens of every kind of policy, in the order of the catalogue, and what policies are judged by.

    One softmax a latent is for new tokens alone: naive ones are kept for the heads that there are; and for those alone
    whose softmaxes are small.
    """
    dataset = fitting.dataset
    targets: dict[Predictor, Target] = {}
    for codec, target in predicted_codecs(replace(fitting, full=config.full)).items():
        targets[Predictor(codec)] = target
        joint = None if codec.codec == NAIVE else target.joint()
        if joint and logits_of(joint.spaces[0]) > MOST_JOINT_LOGITS[config.full]:
            joint = None
        targets |= {Predictor(codec, "joint"): joint} if joint else {}
        targets |= {Predictor(codec, "draft"): target} if Setting.parse(codec.setting).get("layers") else {}
    tasks = tuple(sorted({episode.task for episode in dataset.part("train")}))
    return Shared(dataset, config.policy, tasks, targets, {part: HeldOut.of(dataset, part) for part in PARTS})


def logits_of(space: TokenSpace) -> int:
    """What a policy puts out for a chunk."""
    return space.groups * sum(places * values for places, values in space.sizes)


def training_set_sizes(train_episodes: int, config: ProbeConfig) -> tuple[int, ...]:
    """Episodes; `full` compares fewer ones, too, for as many passes over them."""
    wanted = (FEW_EPISODES // 2, FEW_EPISODES, 2 * FEW_EPISODES) if config.full else ()
    return (*(size for size in wanted if size < train_episodes), train_episodes)


def predicted_codecs(fitting: Fitting) -> dict[PredictedCodec, Target]:
    """What the catalogue has predicted, in its order, and then what was brought."""
    found = {}
    for entry in entries(fitting):
        for setting in entry.predicted(fitting):
            readers = [other for other in catalogue().values() if other.reads == entry.name and other.space]
            found[PredictedCodec(entry.name, str(setting))] = Target(
                _spaces(entry, fitting, setting), {other.name: _spaces(other, fitting, setting) for other in readers}
            )
    return found


def _spaces(entry: Entry, fitting: Fitting, setting: Setting) -> list[TokenSpace]:
    assert entry.space is not None, f"{entry.name} is predicted and has no space of tokens"
    return [entry.space(codec, fitting.dataset.chunk_len) for codec in entry.codecs(fitting, setting)]


def _train(shared: Shared, stack: Sequence[PolicyJob], progress_step: ProgressStep) -> list[Predicted]:
    """Train policies of the same shape and let each predict the validation and the test chunks."""
    trials = trials_of(shared, stack)
    learners = [trial.learner() for trial in trials]
    config = trials[0].config
    on_step = in_progress_steps(config.steps, progress_step)
    kept = train_until_best(learners, config, [trial.validation_mse for trial in trials], on_step)
    return [predicted(*each) for each in zip(trials, [learner.policy for learner in learners], kept, strict=True)]


def predicted(trial: Trial, policy: AnyPolicy, kept: Kept) -> Predicted:
    """What a trained policy makes of the held-out parts."""
    job, draft = trial.job, trial.heads == "draft"
    readers = [] if draft else [*trial.own_readers(), *trial.other_readers()]
    decoded = {part: trial.decoded(policy, part, readers, draws=part == "test" and not draft) for part in PARTS}
    frames = [pd.DataFrame()]
    for part, each in decoded.items():
        for (rule, decoder, layers), actions in each.actions.items():
            keys = {
                **job.keys, "rule": _named(trial, rule), "decoder": decoder,
                "layers": trial.shared.layers(job.predictor.codec) if layers == len(trial.sizes) else layers,
            }  # fmt: skip
            more: tuple[Array, Array] | None = None
            if part == "test" and layers == len(trial.sizes):
                drawn = each.drawn.get((TOKEN_RULES[0] if rule == "soft" else rule, decoder), actions[None])
                more = drawn, decoded["validation"].actions[rule, decoder, layers]
            frames.append(_rows(trial.shared, part, keys, actions, more))
    predictions = decoded["test"].predictions
    of_layers = [
        row for rule, each in predictions.items() for row in _of_layers(_named(trial, rule), each, trial.truth)
    ]
    tokens = {rule: prediction.tokens for rule, prediction in predictions.items()}
    network = _network(trial, policy, kept) | {"malformed": _malformed(trial, tokens)}
    return Predicted(pd.concat(frames), pd.DataFrame(of_layers).assign(**job.keys), tokens, network)


def _malformed(trial: Trial, tokens: Mapping[str, list[Codes]]) -> float:
    """Share of predicted chunks that the codec does not decode."""
    space = trial.space
    return float(space.malformed(tokens[TOKEN_RULES[0]]).mean()) if isinstance(space, SequenceTokens) else 0.0


def _named(trial: Trial, rule: str) -> str:
    return JOINT[rule] if trial.heads == "joint" else rule


def _network(trial: Trial, policy: AnyPolicy, kept: Kept) -> dict[str, Any]:
    places = sum(count for count, _ in trial.sizes)
    return {
        **trial.job.keys, "heads": trial.heads, "noise": trial.job.noise, "steps": kept.steps,
        "validation_mse": kept.error, "layers": len(trial.sizes),
        "tokens_per_chunk": places * (trial.space.groups if trial.space else 0), "head_width": policy.hidden,
        "weights": sum(parameter.numel() for parameter in policy.parameters()),
    }  # fmt: skip


def _rows(
    shared: Shared, part: str, keys: Mapping[str, Any], actions: Array, more: tuple[Array, Array] | None = None
) -> pd.DataFrame:
    """more: draws from the policy's distribution, and its actions of the validation part, where all layers are decoded,
    so that errors of every kind are of interest.
    """
    held_out, layout = shared.held_out[part], shared.dataset.layout
    if more is None:
        return held_out.mse_rows(actions).assign(**keys).reindex(columns=[*KEYS, "mse", *WEIGHTS])
    rows = held_out.rows(actions).assign(**keys)
    drawn, of_validation = more
    normaliser, chunks = shared.dataset.normaliser, held_out.chunks
    std = residual_std(shared.held_out["validation"].chunks, normaliser, of_validation)
    rows[LIKELIHOOD] = motion_bits(chunks, layout, normaliser, actions, std)
    return pd.concat([rows, chunk_errors(chunks, layout, actions, drawn)], axis=1)[[*KEYS, *ERRORS, *WEIGHTS]]


def of_true_tokens(shared: Shared) -> pd.DataFrame:
    """What each codec makes of the test part's own tokens: the error that no policy can better."""
    chunks = shared.held_out["test"].chunks.actions
    frames = []
    for kind, target in shared.targets.items():
        if kind.heads == "apart":
            for seed, space in enumerate(target.spaces):
                keys = PolicyJob(kind, 0, seed, 0.0).keys
                keys |= {"rule": CODEC, "decoder": OWN, "layers": len(space.sizes)}
                frames.append(_rows(shared, "test", keys, space.decode(space.tokens(chunks))))
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
    codec = draft.predictor.codec
    main = found[replace(draft, predictor=Predictor(codec))].tokens
    return [
        {
            **codec._asdict(), "rule": rule, "seed": draft.seed, "layer": layer,
            "agreement": float(np.mean(a == b)), "agreement_other": float(np.mean(a[others] == b)),
        }
        for rule in TOKEN_RULES
        for layer, (a, b) in enumerate(zip(found[draft].tokens[rule], main[rule], strict=False))
    ]  # fmt: skip
