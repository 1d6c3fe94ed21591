"""The codecs whose tokens are played again, each at the settings that tell something."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from workbook.chunks import Array, Normaliser
from workbook.codecs.bins import UniformBins
from workbook.codecs.fast import FastCodec
from workbook.codecs.klt_rfsq import FixedLength
from workbook.codecs.klt_rfsq_file import FILE_NAME, load_klt_rfsq
from workbook.codecs.protocol import Codec
from workbook.codecs.rfsq import RFSQCodec
from workbook.comparison import load_codecs
from workbook.dataset import Dataset
from workbook.paths import OutputFolder
from workbook.rivals import digits_at, fitting_chunks

BIN_COUNTS = (8, 16, 64, 256)
FEW_LAYERS = 3  # of the fixed scale: where its error on the sample stops to fall
EQUAL_RATES = (24, 40, 80, 140)  # bits a chunk at which KLT-RFSQ and FAST-style tokens are both played
FAST_SCALE = 10  # FAST's own
SCALES = (0.1, 200.0)  # between which the scale of a rate is looked for
MOST_TRIES = 12
RATE_TOLERANCE = 0.01
CHUNKS_TRIED = 2000


@dataclass(frozen=True, eq=False)
class Candidate:
    """A codec to play. codecs: the one to deploy first, then those of the other seeds; rate: where bits were asked for.

    family: as in `rivals.FAMILIES`, for the looks of a figure.
    """

    key: str
    title: str
    family: str
    codecs: Sequence[Codec]
    rate: int | None = None


def candidates(out: OutputFolder, dataset: Dataset, training: dict[str, Any], seeds: int) -> list[Candidate]:
    """Every codec that is played; of those that are trained, up to `seeds` models."""
    trained = {
        name: _chosen_first(codecs, training, name)[:seeds]
        for name, codecs in load_codecs(out, training, dataset).items()
    }
    return [*_rfsq(trained), *_closed_form(out, dataset)]


def _chosen_first(codecs: Sequence[RFSQCodec], training: dict[str, Any], name: str) -> list[RFSQCodec]:
    """The model of least validation error, whose file is the one to use, before the others."""
    runs = training["conditionings"][name]["runs"]
    chosen = training["best"].get(name, {}).get("seed")
    first = next((i for i, run in enumerate(runs) if run["seed"] == chosen), 0)
    return [codecs[first], *(codec for i, codec in enumerate(codecs) if i != first)]


def _rfsq(trained: dict[str, list[RFSQCodec]]) -> list[Candidate]:
    layers = trained["scale"][0].model.rfsq.num_layers
    sent = [replace(codec, name="layernorm, statistics sent", statistics="sent") for codec in trained["layernorm"]]
    few = [replace(codec, layers=min(FEW_LAYERS, layers)) for codec in trained["scale"]]
    return [
        Candidate("naive", f"naive, {layers} layers", "rfsq_none", trained["none"]),
        Candidate("layernorm", "layernorm, tokens alone", "layernorm", trained["layernorm"]),
        Candidate("layernorm_sent", "layernorm, statistics sent", "layernorm", sent),
        Candidate("scale", f"scale, {layers} layers", "rfsq_scale", trained["scale"]),
        Candidate("scale_few", f"scale, {min(FEW_LAYERS, layers)} layers", "rfsq_scale", few),
    ]


def _closed_form(out: OutputFolder, dataset: Dataset) -> list[Candidate]:
    train, normaliser = fitting_chunks(dataset), dataset.normaliser
    varying = {int(codec.rate): codec for codec in load_klt_rfsq(out.checkpoints / FILE_NAME)}
    found = [Candidate(f"bins{n}", f"{n} bins", "bins", [UniformBins(n, normaliser)]) for n in BIN_COUNTS]
    fast = FastCodec.fit(train, normaliser, FAST_SCALE)
    found.append(Candidate("fast", f"FAST-style, scale {FAST_SCALE}", "fast", [fast]))
    for rate in EQUAL_RATES:
        marked = varying[rate]
        fixed = FixedLength(marked.model, digits_at(marked.model, rate))
        equal = fit_fast_at(train, normaliser, marked.bits(marked.encode(train)))
        found += [
            Candidate(f"klt_rfsq_{rate}", f"KLT-RFSQ with end marks, {rate} bits", "klt_rfsq", [marked], rate),
            Candidate(
                f"klt_rfsq_fixed_{rate}", f"KLT-RFSQ of fixed length, {rate} bits", "klt_rfsq_fixed", [fixed], rate
            ),
            Candidate(f"fast_{rate}", f"FAST-style, {rate} bits", "fast", [equal], rate),
        ]
    return found


def fit_fast_at(train: Array, normaliser: Normaliser, bits: float) -> FastCodec:
    """FAST-style tokens at the scale at which a train chunk costs about so many bits.

    The scale is found by bisection on some of the chunks, and the tokens are then fitted on all.
    """
    some = train[np.linspace(0, len(train) - 1, min(len(train), CHUNKS_TRIED)).astype(int)]
    low, high = SCALES
    for _ in range(MOST_TRIES):
        scale = float(np.sqrt(low * high))
        codec = FastCodec.fit(some, normaliser, scale)
        spent = codec.bits(codec.encode(some))
        if abs(spent - bits) < RATE_TOLERANCE * bits:
            break
        low, high = (scale, high) if spent < bits else (low, scale)
    return FastCodec.fit(train, normaliser, scale)
