"""Trains the policies of the loop, each once a seed, and keeps them under the hash of all that decides them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from workbook.codecs.brought import BroughtCodec
from workbook.codecs.protocol import Codec
from workbook.codecs.token_spaces import Codes, expected_of_even
from workbook.common.array import Array
from workbook.common.errors import InputError
from workbook.common.jobs import ProgressStep
from workbook.common.parallel import in_progress_steps
from workbook.common.paths import replacing
from workbook.common.targets import COARSE_LAYERS
from workbook.data.chunks import Normaliser
from workbook.evaluation.loop.arms import Actor, Arm, Lineup, PolicyKey
from workbook.evaluation.loop.phase2 import ParallelHeads
from workbook.evaluation.loop.sequence import SequencePolicy, train_sequence
from workbook.evaluation.policy.network import (
    Observations,
    PolicyConfig,
    RegressionPolicy,
    Standardiser,
    TokenPolicy,
    train_policy,
)

MAIN_SEEDS = 1000  # added to the seed of a main model


@dataclass(frozen=True, eq=False)
class Shared:
    """What every training needs."""

    config: PolicyConfig
    normaliser: Normaliser
    train: Observations
    validation: Observations
    lineup: Lineup
    folder: Path


@dataclass(frozen=True)
class Job:
    policy: PolicyKey
    seed: int


def train_job(shared: Shared, job: Job, progress_step: ProgressStep) -> Path:
    """Train one policy, or take what an earlier call has trained; the file of its weights."""
    standardise = Standardiser.fit(shared.train.inputs)
    inputs, targets = standardise.apply(shared.train.inputs), _targets(shared, job, shared.train.chunks)
    held_out = standardise.apply(shared.validation.inputs), _targets(shared, job, shared.validation.chunks)[0]
    stops_by = held_out if job.policy.kind == "sequence" else ()
    path = shared.folder / f"policy-{_training_key(shared.config, job, inputs, [*targets, *stops_by])}.pt"
    on_step = in_progress_steps(shared.config.steps, progress_step)
    networks = _networks(shared, job)
    if _load_weights(path, networks):
        on_step(shared.config.steps)
        return path
    for number, network in enumerate(networks):
        seed, after = job.seed + number * MAIN_SEEDS, on_step if network is networks[-1] else (lambda step: None)
        if isinstance(network, SequencePolicy):
            train_sequence(network, (inputs, targets[0]), held_out, shared.config, seed)
            on_step(shared.config.steps)
        else:
            train_policy(network, inputs, targets, shared.config, seed, after)
    with replacing(path) as temporary:
        torch.save([network.state_dict() for network in networks], temporary)
    return path


def _targets(shared: Shared, job: Job, chunks: Array) -> list[Tensor]:
    key = job.policy.codec, job.policy.setting
    if job.policy.kind == "regression":
        return [torch.from_numpy(shared.normaliser.normalise(chunks)).float().flatten(1)]
    if job.policy.kind == "sequence":
        codec = shared.lineup.codecs[key].of(job.seed)
        codes = codec.encode(chunks).codes[:, : _longest(shared, codec)]
        return [torch.from_numpy(np.minimum(codes, codec.vocabulary - 1))]  # a faulty codec's may lie outside
    space = shared.lineup.spaces[key].of(job.seed)
    return [torch.from_numpy(layer) for layer in space.tokens(chunks)]


def _networks(shared: Shared, job: Job) -> list[Any]:
    """Untrained, with weights that follow from the seed."""
    config, dimensions = shared.config, shared.train.inputs.shape[1]
    sizes = config.width, config.head_weights, config.features
    torch.manual_seed(job.seed)
    if job.policy.kind == "regression":
        return [RegressionPolicy(dimensions, _numbers(shared), *sizes, absolute=True)]
    if job.policy.kind == "sequence":
        codec = shared.lineup.codecs[job.policy.codec, job.policy.setting].of(job.seed)
        return [SequencePolicy(dimensions, codec.vocabulary, _longest(shared, codec), config.width)]
    space = shared.lineup.spaces[job.policy.codec, job.policy.setting].of(job.seed)
    if job.policy.kind == "tokens":
        return [TokenPolicy(dimensions, space.groups, space.sizes, *sizes)]
    draft = ParallelHeads(dimensions, space.groups, space.sizes[:COARSE_LAYERS], config, given=False)
    return [draft, ParallelHeads(dimensions, space.groups, space.sizes, config, given=True)]


def _numbers(shared: Shared) -> int:
    """Of a chunk."""
    return int(np.prod(shared.train.chunks.shape[1:]))


def _longest(shared: Shared, codec: Codec) -> int:
    """Tokens of a sequence at most. One of FAST's stands for one number or more."""
    return codec.lengths[1] if isinstance(codec, BroughtCodec) else _numbers(shared)


def _training_key(config: PolicyConfig, job: Job, inputs: Tensor, targets: Sequence[Tensor]) -> str:
    """Hash of all that decides what comes of a training, but the processor."""
    said = {"config": asdict(config), "policy": job.policy, "seed": job.seed, "code": _code_sha256()}
    digest = hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode())
    for each in (inputs, *targets):
        digest.update(np.ascontiguousarray(each.numpy()).tobytes())
    return digest.hexdigest()


@cache
def _code_sha256() -> str:
    """Hash of the code that a policy follows from."""
    from workbook.evaluation.loop import arms, phase2, sequence
    from workbook.evaluation.policy import network

    files = [Path(__file__), *(Path(str(module.__file__)) for module in (arms, phase2, sequence, network))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _load_weights(path: Path, networks: Sequence[nn.Module]) -> bool:
    try:
        states = torch.load(path, map_location="cpu", weights_only=True)
        for network, state in zip(networks, states, strict=True):
            network.load_state_dict(state)
            network.eval()
    except Exception:  # not there, or damaged, and then simply trained again
        return False
    return True


def trained_actor(shared: Shared, arm: Arm, seed: int, path: Path) -> Actor:
    networks, lineup = _networks(shared, Job(arm.policy, seed)), shared.lineup
    if not _load_weights(path, networks):
        raise InputError(f"{path}: a policy that was just trained is gone; run the notebook again")
    standardise, length = Standardiser.fit(shared.train.inputs), shared.train.chunks.shape[1]
    actor = Actor(arm.rule, standardise, shared.normaliser, length, tuple(networks))
    if arm.tokens is None:
        return actor
    if arm.policy.kind in ("regression", "sequence"):
        return replace(actor, codec=lineup.codecs[arm.tokens].of(seed))
    return replace(actor, space=lineup.spaces[arm.tokens].of(seed))


def key_of(shared: Shared, actor: Actor, path: Path) -> str:
    """What says all that an actor does. path: of its policy, whose name says how that was trained."""
    return f"{path.name} {actor.rule} {_says(actor, shared.validation.chunks)}"


def _says(actor: Actor, chunks: Array) -> str:
    """Hash of what held-out chunks become in its tokens, and of how these and even probabilities decode."""
    if actor.space is None and actor.codec is None:
        return ""
    said: list[Array | Codes] = [actor.round_trip(chunks)]
    if actor.space is not None:
        expected = expected_of_even(actor.space)
        said += [*actor.space.tokens(chunks), *([] if expected is None else [expected])]
    digest = hashlib.sha256()
    for each in said:
        digest.update(np.ascontiguousarray(each).tobytes())
    return digest.hexdigest()
