"""Option B, measured: naive tokens that Phase 2 goes on predicting, read by another decoder in Phase 3."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from rfsq_robust import ActionRFSQAE, Checkpoint, save_checkpoint
from workbook.codecs.protocol import Codec, Tokens
from workbook.codecs.rfsq import RFSQCodec
from workbook.common.array import Array
from workbook.common.intervals import estimate_improvement
from workbook.common.parallel import PROGRESS_STEPS, OnProgress, ProgressStep, in_progress_steps, run_jobs
from workbook.common.paths import OutputFolder
from workbook.data.chunks import Normaliser
from workbook.data.dataset import Dataset
from workbook.evaluation.metrics import Metric, summarise
from workbook.evaluation.score import HeldOut, load_codecs
from workbook.training.runs import RETRAINED_FILE
from workbook.training.trainer import TrainConfig, TrainData, fit

CHUNK_WIDTH = 256  # hidden units of the decoder that sees a whole chunk


class ChunkDecoder(nn.Module):
    """A frozen naive model, and beside its decoder a small network that sees the tokens of all steps of a chunk.

    The network starts at zero, so that training starts from the naive decoder: (N, C * A) -> (N, C * A).
    """

    def __init__(self, naive: ActionRFSQAE, steps: int) -> None:
        super().__init__()
        self.naive, self.steps = copy.deepcopy(naive).requires_grad_(False), steps
        width = steps * naive.hidden_dim
        self.context = nn.Sequential(
            nn.Linear(width, CHUNK_WIDTH), nn.Mish(), nn.Linear(CHUNK_WIDTH, steps * naive.action_dim)
        )
        for parameter in self.context[2].parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised chunks (N, C * A) -> what is decoded from their tokens, and the tokens (N, C, H, K)."""
        codes = self.naive.encode(x.unflatten(1, (self.steps, -1)))
        return self.decode(codes), codes

    def decode(self, codes: Tensor) -> Tensor:
        latents = self.naive.rfsq.decode_from_indices(codes)
        return self.naive.decoder(latents).flatten(1) + self.context(latents.flatten(1))


class Reader(Protocol):
    """What turns tokens into actions."""

    @property
    def name(self) -> str: ...

    def decode(self, tokens: Tokens) -> Array: ...


@dataclass(frozen=True, eq=False)
class ChunkReader:
    """A decoder that sees all of a chunk, in controller units."""

    model: ChunkDecoder
    normaliser: Normaliser
    name: str = "whole chunks"

    @torch.no_grad()
    def decode(self, tokens: Tokens) -> Array:
        decoded = self.model.decode(torch.from_numpy(tokens.codes)).unflatten(1, (self.model.steps, -1))
        return self.normaliser.denormalise(decoded.double().numpy())


@dataclass(frozen=True, eq=False)
class OtherDecoder:
    """Tokens of one RFSQ, read by another decoder than its own."""

    encoder: RFSQCodec
    decoder: Reader

    @property
    def name(self) -> str:
        return f"tokens of {self.encoder.name}, decoder of {self.decoder.name}"

    @property
    def vocabulary(self) -> int:
        return self.encoder.vocabulary

    def encode(self, chunks: Array) -> Tokens:
        return self.encoder.encode(chunks)

    def decode(self, tokens: Tokens) -> Array:
        return self.decoder.decode(tokens)

    def bits(self, tokens: Tokens) -> float:
        return self.encoder.bits(tokens)


@dataclass(frozen=True, eq=False)
class DecoderJob:
    """A decoder to train on the frozen tokens of a naive model, for steps or for whole chunks."""

    naive: ActionRFSQAE
    whole_chunks: bool
    config: TrainConfig
    seed: int


def measure_option_b(
    out: OutputFolder, dataset: Dataset, training: dict[str, Any], baseline_steps: int, on_progress: OnProgress
) -> dict[str, Any]:
    """Content of the option_b stage: 'rows', and the checkpoints of the decoders that were retrained."""
    trained = load_codecs(out, training, dataset)
    naive = trained["none"]
    retrained, of_chunks = _train_decoders(
        dataset, naive, TrainConfig(**training["config"]), baseline_steps, on_progress
    )
    test = HeldOut.of(dataset)
    ways: dict[str, tuple[str, Sequence[Codec]]] = {
        "naive": ("naive tokens, naive decoder", naive),
        "scale_decoder": ("naive tokens, scale's decoder", _crossed(naive, trained["scale"])),
        "layernorm_decoder": ("naive tokens, layernorm's decoder", _crossed(naive, trained["layernorm"])),
        "retrained": ("naive tokens, naive decoder trained on", retrained),
        "retrained_chunk": ("naive tokens, decoder of whole chunks", of_chunks),
        "scale": ("scale tokens, scale's decoder", trained["scale"]),
    }
    own = [test.measure(codec.decode(codec.encode(test.chunks.actions))) for codec in naive]
    rows = {key: {"title": title} | _evidence(codecs, test, own) for key, (title, codecs) in ways.items()}
    files = [_save_retrained(out, dataset, codec, seed) for seed, codec in enumerate(retrained)]
    seeds = [run["seed"] for run in training["conditionings"]["none"]["runs"]]
    best = seeds.index(training["best"]["none"]["seed"])
    shutil.copyfile(out.checkpoints / files[best], out.checkpoints / RETRAINED_FILE)
    return {"rows": rows, "files": files, "best": RETRAINED_FILE}


def _crossed(encoders: Sequence[RFSQCodec], decoders: Sequence[RFSQCodec]) -> list[OtherDecoder]:
    """Paired by seed; a single naive model of the user's own goes with every decoder."""
    paired = encoders if len(encoders) == len(decoders) else [encoders[0]] * len(decoders)
    return [OtherDecoder(encoder, decoder) for encoder, decoder in zip(paired, decoders, strict=True)]


def _evidence(codecs: Sequence[Codec], test: HeldOut, own: list[dict[str, Metric]]) -> dict[str, Any]:
    per_seed = [test.measure(codec.decode(codec.encode(test.chunks.actions))) for codec in codecs]
    baseline, values = (np.stack([metrics["mse"].values for metrics in group]) for group in (own, per_seed))
    if len(baseline) != len(values):
        baseline = baseline.mean(axis=0, keepdims=True)
    summary = {name: estimate.as_json() for name, estimate in summarise(per_seed).items()}
    return {
        "mse": summary["mse"],
        "errors": summary,
        "less_than_naive": estimate_improvement(baseline, values, own[0]["mse"].weights).as_json(),
    }


def _train_decoders(
    dataset: Dataset, naive: Sequence[RFSQCodec], config: TrainConfig, baseline_steps: int, on_progress: OnProgress
) -> tuple[list[RFSQCodec], list[OtherDecoder]]:
    normalised = replace(dataset, normaliser=naive[0].normaliser)  # that of a user's own model may be another
    data = {False: TrainData.of(normalised), True: TrainData.of_whole_chunks(normalised)}
    batches = -(-len(data[True].train) // config.batch_size)
    short = replace(config, epochs=max(1, min(config.epochs, round(baseline_steps / batches))))
    jobs = [DecoderJob(codec.model, whole, short, seed) for whole in (False, True) for seed, codec in enumerate(naive)]
    models = run_jobs(_train_decoder, data, jobs, PROGRESS_STEPS, on_progress)
    retrained = [
        replace(codec, name="none, decoder retrained", model=model)
        for codec, model in zip(naive, models, strict=False)
        if isinstance(model, ActionRFSQAE)
    ]
    of_chunks = [
        OtherDecoder(codec, ChunkReader(model, codec.normaliser))
        for codec, model in zip(naive, models[len(naive) :], strict=True)
        if isinstance(model, ChunkDecoder)
    ]
    return retrained, of_chunks


def _train_decoder(data: dict[bool, TrainData], job: DecoderJob, progress_step: ProgressStep) -> nn.Module:
    torch.manual_seed(job.seed)
    part = data[job.whole_chunks]
    model: nn.Module
    if job.whole_chunks:
        model = ChunkDecoder(job.naive, part.train.shape[-1] // job.naive.action_dim)
    else:
        model = copy.deepcopy(job.naive)
        model.encoder.requires_grad_(False)
    advance = in_progress_steps(job.config.epochs, progress_step)
    fit(model, job.config, job.seed, part, "a decoder of naive tokens", lambda epoch, mse: advance(epoch))
    return model


def _save_retrained(out: OutputFolder, dataset: Dataset, codec: RFSQCodec, seed: int) -> str:
    """Save a naive encoder with its retrained decoder, as a checkpoint like any other; returns its name."""
    path = out.seeds / f"none_seed{seed}_retrained.pt"
    bounds = {"min": torch.from_numpy(codec.normaliser.low), "max": torch.from_numpy(codec.normaliser.high)}
    origin = {"seed": seed, "retrained": "decoder", "dataset_sha256": dataset.sha256}
    save_checkpoint(path, Checkpoint(codec.model, None, None, bounds, origin))
    return str(path.relative_to(out.checkpoints))
