"""Rate and distortion: every codec and setting on the same held-out chunks, by the bits that a chunk costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbook.codecs.klt_rfsq import KltRFSQ, VariableLength, fit_variable_length
from workbook.codecs.klt_rfsq_file import FILE_NAME, save_klt_rfsq
from workbook.codecs.protocol import entropy_bits
from workbook.common import targets
from workbook.common.array import Array
from workbook.common.intervals import Estimate, estimate_improvement
from workbook.common.parallel import OnProgress
from workbook.common.paths import OutputFolder
from workbook.data.dataset import Dataset
from workbook.evaluation.metrics import STAND_IN, Metric, summarise
from workbook.evaluation.score import HeldOut, load_codecs
from workbook.training.baselines import (
    CONDITIONINGS_SHOWN,
    FAMILIES,
    FITTED_RATES,
    POLICY_RATES,
    RateConfig,
    Setting,
    fit_closed_form,
    fitting_chunks,
    step_settings,
    train_baselines,
)
from workbook.training.trainer import TrainConfig

# Of these RFSQ the best is held against FAST; the guide's architecture is that of the last four.
RFSQ_FAMILIES = ("klt_rfsq", "klt_rfsq_fixed", "chunk_scale", "rfsq_scale")
GUIDE_FAMILIES = ("rfsq_none", "rfsq_scale", "chunk_none", "chunk_scale")
ERRORS = (
    "mse",
    "relative_mse",
    "position_mm",
    "rotation_deg",
    "joint_length",
    "gripper_error_rate",
    "drift_mm",
    STAND_IN,
    "zeros_kept",
)


@dataclass(frozen=True, eq=False)
class Measured:
    """One codec at one setting: bits a chunk, metrics of every seed, and what results.json says of it."""

    family: str
    bits: float
    per_seed: list[dict[str, Metric]]
    entry: dict[str, Any]

    @property
    def mse(self) -> Array:
        """(S, E)"""
        return np.stack([metrics["mse"].values for metrics in self.per_seed])

    @property
    def weights(self) -> Array:
        return self.per_seed[0]["mse"].weights


def measure_rates(
    out: OutputFolder, dataset: Dataset, training: dict[str, Any], config: RateConfig, on_progress: OnProgress
) -> dict[str, Any]:
    """Content of the rates stage: 'codecs', 'against_fast', 'gaussian', 'smallest'."""
    test = HeldOut.of(dataset)
    trained = load_codecs(out, training, dataset)
    settings = [setting for name in CONDITIONINGS_SHOWN for setting in step_settings(trained[name])]
    base = TrainConfig(**training["config"])
    settings += train_baselines(dataset, base, len(trained["scale"]), config, on_progress)
    settings += fit_closed_form(dataset, fit_klt_rfsq(out, dataset))
    measured = [_measure(setting, test) for setting in settings]
    return {
        "codecs": [one.entry for one in measured],
        "against_fast": [_against_fast(measured, rate) for rate in POLICY_RATES],
        "gaussian": gaussian_reference(dataset),
        "smallest": _smallest(measured),
    }


def fit_klt_rfsq(out: OutputFolder, dataset: Dataset) -> list[VariableLength]:
    """Fit KLT-RFSQ, and write it among the checkpoints."""
    chunks = fitting_chunks(dataset)
    model = KltRFSQ.fit(chunks, dataset.layout, dataset.normaliser)
    variable = fit_variable_length(model, chunks, FITTED_RATES)
    save_klt_rfsq(out.checkpoints / FILE_NAME, variable)
    return variable


def _measure(setting: Setting, test: HeldOut) -> Measured:
    codecs = setting.codecs
    tokens = [codec.encode(test.chunks.actions) for codec in codecs]
    per_seed = [test.measure(codec.decode(seed)) for codec, seed in zip(codecs, tokens, strict=True)]
    bits = float(np.mean([codec.bits(seed) for codec, seed in zip(codecs, tokens, strict=True)]))
    summary = summarise([{name: metrics[name] for name in ERRORS} for metrics in per_seed])
    entry = {
        "family": setting.family,
        "setting": setting.text,
        "bits": bits,
        "entropy": float(np.mean([entropy_bits(seed, test.chunks.valid) for seed in tokens])),
        "tokens_per_chunk": float(np.mean([seed.lengths.mean() for seed in tokens])),
        "vocabulary": codecs[0].vocabulary,
        "fixed_length": FAMILIES[setting.family].fixed_length,
        "prefix": FAMILIES[setting.family].prefix,
        "seeds": len(codecs),
        "errors": {name: estimate.as_json() for name, estimate in summary.items()},
    }
    return Measured(setting.family, bits, per_seed, entry)


def _at_rate(measured: Sequence[Measured], families: Sequence[str], rate: float) -> tuple[str, Array] | None:
    """The family with the least error at a rate, and its error (S, E) there; None where none reaches so far.

    Between two settings of variable length the error is interpolated linearly, which coding so many chunks by one and
    the others by the other gives; of a fixed length the setting of most bits that is not above the rate is taken.
    """
    candidates = []
    for family in families:
        curve = _front([one for one in measured if one.family == family])
        below = [one for one in curve if one.bits <= rate]
        above = [one for one in curve if one.bits >= rate]
        if not below:
            continue
        low = below[-1]
        # A length that is fixed cannot be mixed; beyond the last setting of a front, more bits buy nothing.
        high = low if FAMILIES[family].fixed_length or not above else above[0]
        share = 0.0 if high.bits == low.bits else (rate - low.bits) / (high.bits - low.bits)
        mse = (1 - share) * low.mse + share * high.mse
        candidates.append((float((mse @ low.weights).mean()), family, mse))
    if not candidates:
        return None
    _, family, mse = min(candidates, key=lambda candidate: candidate[0])
    return family, mse


def _front(measured: Sequence[Measured]) -> list[Measured]:
    """By rising bits, the settings that have less error than every one of fewer bits."""
    front: list[Measured] = []
    for one in sorted(measured, key=lambda one: (one.bits, _mean(one.mse, one.weights))):
        if not front or _mean(one.mse, one.weights) < _mean(front[-1].mse, front[-1].weights):
            front.append(one)
    return front


def _against_fast(measured: Sequence[Measured], rate: float) -> dict[str, Any]:
    """RFSQ's best at a rate beside FAST's best, and RFSQ's best of fixed length."""
    weights = measured[0].weights
    fast = _at_rate(measured, ("fast", "fast_quantile"), rate)
    entry: dict[str, Any] = {"rate": rate, "fast": None if fast is None else _mean(fast[1], weights)}
    fixed = tuple(family for family in RFSQ_FAMILIES if FAMILIES[family].fixed_length)
    for key, families in (("rfsq", RFSQ_FAMILIES), ("rfsq_fixed", fixed)):
        found = _at_rate(measured, families, rate)
        gain = Estimate(None)
        if fast is not None and found is not None:
            gain = estimate_improvement(fast[1].mean(axis=0, keepdims=True), found[1], weights)
        entry[key] = {
            "family": found and found[0],
            "mse": None if found is None else _mean(found[1], weights),
            "less_than_fast": gain.as_json(),
        }
    return entry


def _mean(mse: Array, weights: Array) -> float:
    return float((mse @ weights).mean() / weights.sum())


def _smallest(measured: Sequence[Measured]) -> dict[str, dict[str, Any] | None]:
    """Of the guide's architecture and of all RFSQ, the setting of fewest bits whose whole interval meets the target."""

    def meets(one: Measured) -> bool:
        mse = one.entry["errors"]["mse"]
        return (mse["mean"] if mse["high"] is None else mse["high"]) < targets.MSE_BELOW

    found = {}
    for key, families in (("guide", GUIDE_FAMILIES), ("any", tuple(dict.fromkeys(GUIDE_FAMILIES + RFSQ_FAMILIES)))):
        enough = [one for one in measured if one.family in families and meets(one)]
        least = min(enough, key=lambda one: one.bits, default=None)
        found[key] = None if least is None else least.entry
    return found


def gaussian_reference(dataset: Dataset) -> list[dict[str, float]]:
    """Rate and distortion of a Gaussian source with the covariance of the train chunks' motion.

    Reverse water-filling (Cover and Thomas, theorem 10.3.3): an upper bound of what these chunks need, grippers left
    out, whose two values are nothing like Gaussian; distortion is spread over all numbers of an action, as MSE is.
    """
    motion = dataset.normaliser.normalise(fitting_chunks(dataset))[:, :, dataset.layout.motion]
    vectors = motion.reshape(len(motion), -1)
    variances = (
        np.linalg.eigvalsh(np.atleast_2d(np.cov(vectors.T))).clip(min=1e-12) if vectors.shape[1] else np.zeros(0)
    )
    numbers = dataset.chunk_len * dataset.layout.dim
    points = []
    for level in np.geomspace(1e-7, variances.max(initial=1e-6), 60):
        rate = 0.5 * np.log2(np.maximum(variances / level, 1)).sum()
        points.append({"bits": float(rate), "mse": float(np.minimum(variances, level).sum() / numbers)})
    return points
