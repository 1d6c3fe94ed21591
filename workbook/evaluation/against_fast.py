"""Codecs beside FAST-style tokens of as many bits a chunk, and of as many words of at most 1,024 values.

For each codec FAST-style tokens are fitted anew, at the scale at which validation chunks cost as much.

tables/against_fast.parquet, of the test part: codec, setting |

    side                  whose error it is: the 'codec', or FAST-style tokens of equal 'bits' or 'words', where a scale
                          gives them to within 2 %
    seed, task, episode   of the models; of FAST-style tokens there is one, 0
    bits, words           of a chunk of the part
    fast, scale           entry and scale of FAST-style tokens; '' and 0 of the codec
    mse, steps            as in `score`
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from workbook.codecs.catalogue import SHOWN_RATE, Fitting, at_steps, catalogue, fast_quantile_scales, fast_scales
from workbook.codecs.fast import Cost, FastCodec, FastScales, bits_of
from workbook.codecs.protocol import Codec, Tokens, levels_of
from workbook.common.array import Array
from workbook.common.intervals import Estimate, estimate_improvement
from workbook.common.jobs import OnProgress
from workbook.evaluation.score import HeldOut, estimate_of, grouped, seeds_of, values_of
from workbook.evaluation.token_costs import words

EQUAL_WITHIN = 0.02
CODEC = "codec"


def words_of(codec: Codec, tokens: Tokens) -> float:
    return float(words(tokens, levels_of(codec, tokens)).mean())


EQUAL: Mapping[str, Cost] = {"bits": bits_of, "words": words_of}
FAST = {"fast": fast_scales, "fast_quantile": fast_quantile_scales}  # entry -> its scales, which `Fitting.once` keeps


def against_fast_rows(fitting: Fitting, test: HeldOut, seeds: Sequence[int], on_progress: OnProgress) -> pd.DataFrame:
    """Rows of every codec that the catalogue names; seeds: of the trained models, in order."""
    jobs = [(entry, setting) for entry in catalogue().values() for setting in entry.held_against_fast(fitting)]
    fast, scales = chosen_fast(fitting)
    frames = []
    for done, (entry, setting) in enumerate(jobs):
        on_progress(done, len(jobs))
        codecs = entry.codecs(fitting, setting)
        sides = [_rows(codec, test, CODEC, seed) for codec, seed in zip(codecs, seeds_of(codecs, seeds), strict=True)]
        sides += [
            _rows(codec, test, side).assign(fast=fast, scale=codec.scale) for side, codec in equal(codecs[0], scales)
        ]
        frames += [rows.assign(codec=entry.name, setting=str(setting)) for rows in sides]
    on_progress(len(jobs), len(jobs))
    return pd.concat(frames, ignore_index=True)


def chosen_fast(fitting: Fitting) -> tuple[str, FastScales]:
    """The entry whose normaliser leaves less error of validation chunks at the rate that is shown, and its scales."""
    both = {name: fitting.once(scales) for name, scales in FAST.items()}
    rate = at_steps(SHOWN_RATE, fitting.dataset.chunk_len)
    name = min(both, key=lambda name: _validation_mse(both[name].at(rate), both[name].validation, fitting))
    return name, both[name]


def _validation_mse(codec: FastCodec, chunks: Array, fitting: Fitting) -> float:
    error = (codec.decode(codec.encode(chunks)) - chunks) / fitting.normaliser.half_width
    return float((error**2).mean())


def equal(codec: Codec, scales: FastScales) -> Iterator[tuple[str, FastCodec]]:
    """FAST-style tokens that cost a validation chunk as many bits, and as many words, as a codec does."""
    tokens = codec.encode(scales.validation)
    for side, cost in EQUAL.items():
        found = scales.best_at(cost(codec, tokens), cost, EQUAL_WITHIN)
        if found is not None:
            yield side, found


def _rows(codec: Codec, test: HeldOut, side: str, seed: int = 0) -> pd.DataFrame:
    tokens = codec.encode(test.chunks.actions)
    known = {name: cost(codec, tokens) for name, cost in EQUAL.items()}
    rows = test.rows(codec.decode(tokens))[["task", "episode", "mse", "steps"]]
    return rows.assign(side=side, seed=seed, fast="", scale=0.0, **known)


@dataclass(frozen=True, eq=False)
class Fast:
    """FAST-style tokens that were fitted to a codec; gain: the share by which the codec's error is less."""

    scale: float
    bits: float
    words: float
    mse: Estimate
    gain: Estimate


@dataclass(frozen=True, eq=False)
class AgainstFast:
    """A codec beside FAST-style tokens of equal 'bits' and 'words', None where no scale gives them."""

    codec: str
    setting: str
    bits: float
    words: float
    mse: Estimate
    equal: Mapping[str, Fast | None]


def against_fast(rows: pd.DataFrame) -> list[AgainstFast]:
    """A line for each codec and setting, in the order of the rows."""
    groups = grouped(rows, ["codec", "setting", "side"])
    found = []
    for codec, setting in dict.fromkeys(zip(rows.codec, rows.setting, strict=True)):
        own = groups[codec, setting, CODEC]
        equal = {side: _fast(own, groups.get((codec, setting, side))) for side in EQUAL}
        found.append(AgainstFast(codec, setting, *_cost(own), estimate_of(own, "mse"), equal))
    return found


def _fast(own: pd.DataFrame, rows: pd.DataFrame | None) -> Fast | None:
    if rows is None:
        return None
    (over, weights), (under, _) = values_of(rows, "mse"), values_of(own, "mse")
    gain = estimate_improvement(over, under, weights)
    return Fast(float(rows.scale.iloc[0]), *_cost(rows), estimate_of(rows, "mse"), gain)


def _cost(rows: pd.DataFrame) -> tuple[float, float]:
    return float(np.mean(rows.bits)), float(np.mean(rows.words))
