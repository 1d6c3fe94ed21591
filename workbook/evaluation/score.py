"""The evidence of 03_compare: every codec on the held-out test episodes, from its tokens alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rfsq_robust import CONDITIONINGS
from workbook.codecs.bins import UniformBins
from workbook.codecs.protocol import Codec, Tokens, entropy_bits
from workbook.codecs.rfsq import RefittedDecoder, RFSQCodec, load_codec, reconstruction_sha256
from workbook.common.array import Array
from workbook.common.intervals import Estimate, estimate_improvement
from workbook.common.paths import OutputFolder
from workbook.data.chunks import Chunks, Normaliser, join_chunks
from workbook.data.dataset import Dataset
from workbook.data.layout import ActionLayout
from workbook.evaluation.metrics import Metric, episode_metrics, summarise

BIN_COUNTS = (16, 64, 256)
REFITTED = ("none", "layernorm")  # conditionings whose codes are also read by a decoder fitted anew


@dataclass(frozen=True, eq=False)
class HeldOut:
    """The held-out episodes, and what errors are measured in."""

    chunks: Chunks
    episodes: list[Array]
    layout: ActionLayout
    normaliser: Normaliser
    train_variance: Array

    @staticmethod
    def of(dataset: Dataset, part: str = "test") -> HeldOut:
        train = np.concatenate([episode.actions for episode in dataset.part("train")])
        return HeldOut(
            dataset.held_out_chunks(part),
            [episode.actions for episode in dataset.part(part)],
            dataset.layout,
            dataset.normaliser,
            dataset.normaliser.normalise(train).var(axis=0),
        )

    def measure(self, decoded: Array) -> dict[str, Metric]:
        """Metrics of decoded chunks (N, C, A)."""
        joined = join_chunks(self.chunks, decoded)
        return episode_metrics(self.episodes, joined, self.layout, self.normaliser, self.train_variance)


def load_codecs(out: OutputFolder, training: dict[str, Any], dataset: Dataset) -> dict[str, list[RFSQCodec]]:
    """Conditioning -> one codec a seed, from the checkpoint files that 02_train_robust wrote."""
    return {
        name: [load_codec(out.checkpoints / run["file"], dataset.normaliser) for run in entry["runs"]]
        for name, entry in training["conditionings"].items()
    }


def compare(
    out: OutputFolder, dataset: Dataset, training: dict[str, Any], on_progress: Callable[[int, int], None]
) -> dict[str, Any]:
    """Content of the comparison stage: 'models', one entry a conditioning, and 'baselines'."""
    test = HeldOut.of(dataset)
    all_codecs = load_codecs(out, training, dataset)
    naive_forward, naive_tokens = (_metrics(all_codecs["none"], test, way) for way in (_forward, _from_tokens))
    models = {}
    for done, name in enumerate(CONDITIONINGS):
        on_progress(done, len(CONDITIONINGS))
        models[name] = _compare_model(all_codecs[name], training["conditionings"], test, naive_forward, naive_tokens)
        if name in REFITTED:
            refitted = [RefittedDecoder.fit(codec, dataset.train_chunks()) for codec in all_codecs[name]]
            metrics = _metrics(refitted, test, _from_tokens)
            models[name]["refitted"] = _evidence(metrics, refitted, test)
            models[name]["refitted"]["improvement"] = _improvement(naive_tokens, metrics).as_json()
    baselines = {}
    for count in BIN_COUNTS:
        codec = UniformBins(count, dataset.normaliser)
        metrics = _metrics([codec], test, _from_tokens)
        baselines[codec.name] = _evidence(metrics, [codec], test)
        baselines[codec.name]["improvement"] = _improvement(naive_tokens, metrics).as_json()
    on_progress(len(CONDITIONINGS), len(CONDITIONINGS))
    return {
        "test_episodes": len(test.episodes),
        "test_steps": int(test.chunks.valid.sum()),
        "layout": dataset.layout.spec,
        "models": models,
        "baselines": baselines,
    }


def _compare_model(
    codecs: Sequence[RFSQCodec],
    trained: dict[str, Any],
    test: HeldOut,
    naive_forward: list[dict[str, Metric]],
    naive_tokens: list[dict[str, Metric]],
) -> dict[str, Any]:
    conditioning = codecs[0].model.conditioning
    runs = trained[conditioning]["runs"]
    forward, tokens = _metrics(codecs, test, _forward), _metrics(codecs, test, _from_tokens)
    entry = _evidence(tokens, codecs, test)
    digests = [reconstruction_sha256(codec, test.chunks) for codec in codecs]
    same = sum(digest == run["reconstruction_sha256"] for digest, run in zip(digests, runs, strict=True))
    entry |= {
        "seeds": [run["seed"] for run in runs],
        "forward_mse": summarise(forward)["mse"].as_json(),
        "forward_errors": {name: estimate.as_json() for name, estimate in summarise(forward).items()},
        "improvement_forward": _improvement(naive_forward, forward).as_json(),
        "improvement_tokens": _improvement(naive_tokens, tokens).as_json(),
        "decode_error": max(codec.decode_error(test.chunks.actions) for codec in codecs),
        "checkpoints": {"files": [run["file"] for run in runs], "loaded_and_identical": same, "of": len(runs)},
        "checkpoint_bytes": max(run["bytes"] for run in runs),
        "train_seconds": [run["seconds"] for run in runs],
        "overhead": trained[conditioning]["overhead"],
    }
    if conditioning == "layernorm":
        sent = [RFSQCodec("layernorm, statistics sent", c.model, c.normaliser, "sent") for c in codecs]
        metrics = _metrics(sent, test, _from_tokens)
        entry["with_statistics"] = _evidence(metrics, sent, test)
        entry["with_statistics"]["improvement"] = _improvement(naive_tokens, metrics).as_json()
    return entry


def _evidence(metrics: list[dict[str, Metric]], codecs: Sequence[Codec], test: HeldOut) -> dict[str, Any]:
    """Errors from tokens alone, and the bits that they cost, entropy as the mean over seeds."""
    summary = {name: estimate.as_json() for name, estimate in summarise(metrics).items()}
    tokens = [codec.encode(test.chunks.actions) for codec in codecs]
    bits = codecs[0].bits(tokens[0])
    side = 0.0 if tokens[0].side is None else bits - codecs[0].bits(Tokens(tokens[0].codes))
    entropy = float(np.mean([entropy_bits(seed, test.chunks.valid) for seed in tokens]))
    return {
        "token_mse": summary["mse"],
        "token_errors": summary,
        "bits": {"per_chunk": bits, "side": side, "entropy": entropy},
    }


def cheaper_rounding(entry: dict[str, Any], baselines: dict[str, Any]) -> str | None:
    """The name of the cheapest plain rounding that has both less error and fewer bits than this entry, if any."""
    better = [
        (baseline["bits"]["per_chunk"], name)
        for name, baseline in baselines.items()
        if baseline["token_mse"]["mean"] < entry["token_mse"]["mean"]
        and baseline["bits"]["per_chunk"] < entry["bits"]["per_chunk"]
    ]
    return min(better)[1] if better else None


def _forward(codec: RFSQCodec, chunks: Array) -> Array:
    return codec.forward(chunks)


def _from_tokens(codec: Codec, chunks: Array) -> Array:
    return codec.decode(codec.encode(chunks))


def _metrics(codecs: Sequence[Any], test: HeldOut, way: Callable[[Any, Array], Array]) -> list[dict[str, Metric]]:
    return [test.measure(way(codec, test.chunks.actions)) for codec in codecs]


def _improvement(naive: list[dict[str, Metric]], candidate: list[dict[str, Metric]]) -> Estimate:
    baseline, values = (np.stack([metrics["mse"].values for metrics in group]) for group in (naive, candidate))
    if len(baseline) != len(values):  # one naive checkpoint of the user's own, or one baseline without seeds
        baseline = baseline.mean(axis=0, keepdims=True)
    return estimate_improvement(baseline, values, candidate[0]["mse"].weights)
