"""The codecs whose tokens are played again, each at the settings that tell something."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from workbook.codecs.bins import UniformBins
from workbook.codecs.fast import FastCodec
from workbook.codecs.klt_rfsq import FixedLength
from workbook.codecs.klt_rfsq_file import FILE_NAME, load_klt_rfsq
from workbook.codecs.protocol import Codec
from workbook.codecs.rfsq import RFSQCodec
from workbook.common.array import Array
from workbook.common.paths import OutputFolder
from workbook.data.chunks import Normaliser
from workbook.data.dataset import Dataset
from workbook.evaluation.score import load_codecs
from workbook.training.baselines import FAMILIES, codes_at, fitting_chunks

BIN_COUNTS = (8, 16, 64, 256)
FEW_LAYERS = 3  # of the fixed scale: where its error on the sample stops to fall
EQUAL_RATES = (24, 40, 80, 140)  # bits a chunk at which KLT-RFSQ and FAST-style tokens are both played
FAST_SCALE = 10  # FAST's own
SCALES = (0.1, 200.0)  # between which the scale of a rate is looked for
MOST_TRIES = 12
RATE_TOLERANCE = 0.01


@dataclass(frozen=True, eq=False)
class Candidate:
    """A codec to play. codecs: one a seed, in the order of seeds; chosen: which of them is the one to deploy.

    family: as in `baselines.FAMILIES`, for the looks of a figure; rate: bits a chunk, where so many were asked for.
    """

    key: str
    title: str
    family: str
    codecs: Sequence[Codec]
    chosen: int = 0
    rate: int | None = None


def candidates(out: OutputFolder, dataset: Dataset, training: dict[str, Any], seeds: int) -> list[Candidate]:
    """Every codec that is played; of those that are trained, up to `seeds` models."""
    trained = {
        name: _some_seeds(codecs, training, name, seeds) for name, codecs in load_codecs(out, training, dataset).items()
    }
    return [*_rfsq(trained), *_closed_form(out, dataset)]


def _some_seeds(
    codecs: Sequence[RFSQCodec], training: dict[str, Any], name: str, seeds: int
) -> tuple[list[RFSQCodec], int]:
    """So many models, the first ones and the one to deploy among them; and the place of that one."""
    runs = training["conditionings"][name]["runs"]
    best = training["best"].get(name, {}).get("seed")
    chosen = next((i for i, run in enumerate(runs) if run["seed"] == best), 0)
    kept = sorted([chosen, *(i for i in range(len(runs)) if i != chosen)][:seeds])
    return [codecs[i] for i in kept], kept.index(chosen)


def _rfsq(trained: dict[str, tuple[list[RFSQCodec], int]]) -> list[Candidate]:
    (naive, best_naive), (layernorm, best_layernorm) = trained["none"], trained["layernorm"]
    scale, best_scale = trained["scale"]
    layers = scale[0].model.rfsq.num_layers
    sent = [replace(codec, name="layernorm, statistics sent", statistics="sent") for codec in layernorm]
    few = [replace(codec, layers=min(FEW_LAYERS, layers)) for codec in scale]
    return [
        Candidate("naive", f"naive, {layers} layers", "rfsq_none", naive, best_naive),
        # One seed is enough where hardly an episode succeeds.
        Candidate("layernorm", "layernorm, tokens alone", "layernorm", [layernorm[best_layernorm]]),
        Candidate("layernorm_sent", "layernorm, statistics sent", "layernorm", sent, best_layernorm),
        Candidate("scale", f"scale, {layers} layers", "rfsq_scale", scale, best_scale),
        Candidate("scale_few", f"scale, {min(FEW_LAYERS, layers)} layers", "rfsq_scale", few, best_scale),
    ]


def _closed_form(out: OutputFolder, dataset: Dataset) -> list[Candidate]:
    train, normaliser = fitting_chunks(dataset), dataset.normaliser
    validation = dataset.held_out_chunks("validation").actions
    of_variable_length = {int(codec.rate): codec for codec in load_klt_rfsq(out.checkpoints / FILE_NAME)}
    found = [Candidate(f"bins{n}", f"{n} bins", "bins", [UniformBins(n, normaliser)]) for n in BIN_COUNTS]
    fast = FastCodec.fit(train, normaliser, FAST_SCALE)
    found.append(Candidate("fast", f"FAST-style, scale {FAST_SCALE}", "fast", [fast]))
    for rate in EQUAL_RATES:
        variable = of_variable_length[rate]
        fixed = FixedLength(variable.model, codes_at(variable.model, rate))
        equal = fit_fast_at(train, validation, normaliser, variable.bits(variable.encode(validation)))
        of_rate: dict[str, Codec] = {"klt_rfsq": variable, "klt_rfsq_fixed": fixed, "fast": equal}
        found += [
            Candidate(f"{family}_{rate}", f"{FAMILIES[family].title}, {rate} bits", family, [codec], rate=rate)
            for family, codec in of_rate.items()
        ]
    return found


def fit_fast_at(train: Array, validation: Array, normaliser: Normaliser, bits: float) -> FastCodec:
    """FAST-style tokens, fitted on train chunks, at the scale at which a validation chunk costs about so many bits.

    On chunks that its merges were fitted to, it would seem to need fewer than it does on others.
    """
    low, high = SCALES
    for _ in range(MOST_TRIES):
        scale = float(np.sqrt(low * high))
        codec = FastCodec.fit(train, normaliser, scale)
        spent = codec.bits(codec.encode(validation))
        if abs(spent - bits) < RATE_TOLERANCE * bits:
            break
        low, high = (scale, high) if spent < bits else (low, scale)
    return codec
