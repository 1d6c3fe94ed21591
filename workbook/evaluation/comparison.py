"""The evidence of 03_compare: every codec of the catalogue on the held-out test episodes, from its tokens alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from rfsq_robust import CONDITIONINGS
from workbook.codecs.catalogue import (
    CONDITIONED,
    Entry,
    Fitting,
    Setting,
    catalogue,
    decided,
    entries,
    of_family,
)
from workbook.codecs.rfsq import reconstruction_sha256
from workbook.common.jobs import OnProgress
from workbook.common.paths import OutputFolder
from workbook.data.dataset import Dataset
from workbook.evaluation.against_fast import against_fast_rows
from workbook.evaluation.layers import code_rows, layer_rows
from workbook.evaluation.rate_distortion import CHOSEN_AMONG, gaussian_reference
from workbook.evaluation.score import ENCODER, KEYS, HeldOut, score_setting
from workbook.evaluation.token_costs import token_costs
from workbook.training.baselines import BaselineConfig
from workbook.training.fitting import fit_catalogue

CHOICE_COLUMNS = [
    *KEYS, "compared", "measured", "mse", "steps",
    "chunks", "bits", "side_bits", "tokens", "entropy_bits", "vocabulary",
]  # fmt: skip


@dataclass(frozen=True, eq=False)
class Comparison:
    """scores: rows of every codec; tables: name -> rows of what else is shown; values: what is no row."""

    scores: pd.DataFrame
    tables: dict[str, pd.DataFrame]
    values: dict[str, Any]


def compare(
    out: OutputFolder,
    dataset: Dataset,
    training: dict[str, Any],
    config: BaselineConfig,
    progress: Callable[[str], OnProgress],
) -> Comparison:
    """Train and fit what the catalogue names (`fit_catalogue`), and score all of it.

    progress: label of a part of the work -> what is told of it.
    """
    fitting = fit_catalogue(out, dataset, training, config, progress)
    test = HeldOut.of(dataset)
    seeds = [run["seed"] for run in training["conditionings"]["scale"]["runs"]]
    return Comparison(
        score_catalogue(fitting, test, seeds, progress("Scoring codecs")),
        {
            "validation": score_choices(
                fitting, HeldOut.of(dataset, "validation"), seeds, progress("Scoring codecs on validation")
            ),
            "models": model_rows(fitting, training, test),
            "layers": layer_rows(fitting.rfsq, seeds, test),
            "codes": code_rows(fitting.rfsq, test),
            "gaussian": gaussian_reference(fitting),
            "against_fast": against_fast_rows(fitting, test, seeds, progress("Fitting FAST-style tokens")),
            "token_costs": token_costs(fitting, test, seeds, progress("What tokens cost")),
        },
        {
            "test_episodes": len(test.episodes),
            "test_steps": int(test.chunks.valid.sum()),
            "layout": dataset.layout.spec,
            "decided": str(decided(fitting)),
            "brought": {codec.name: codec.faults(test.chunks.actions).as_json() for codec in fitting.brought},
        },
    )


def score_catalogue(fitting: Fitting, test: HeldOut, seeds: list[int], on_progress: OnProgress) -> pd.DataFrame:
    """Rows of every entry at every setting, and of the forward pass of 02_train_robust's models at all layers."""
    all_layers = Setting.of(layers=fitting.layers)
    jobs = [(entry, setting, "tokens") for entry in entries(fitting) for setting in entry.settings(fitting)]
    jobs += [(catalogue()[CONDITIONED[name]], all_layers, ENCODER) for name in fitting.rfsq]
    return _score(jobs, fitting, test, seeds, on_progress)


def score_choices(fitting: Fitting, validation: HeldOut, seeds: list[int], on_progress: OnProgress) -> pd.DataFrame:
    """Error and bits of what a best is chosen among, so that none is chosen on the test episodes."""
    among = [catalogue()[name] for name in of_family(*CHOSEN_AMONG)]
    jobs = [(entry, setting, "tokens") for entry in among for setting in entry.measured(fitting)]
    return _score(jobs, fitting, validation, seeds, on_progress)[CHOICE_COLUMNS]


def _score(
    jobs: list[tuple[Entry, Setting, str]], fitting: Fitting, held_out: HeldOut, seeds: list[int], told: OnProgress
) -> pd.DataFrame:
    frames = []
    for done, (entry, setting, decoding) in enumerate(jobs):
        told(done, len(jobs))
        frames.append(score_setting(entry, setting, fitting, held_out, seeds, decoding))
    told(len(jobs), len(jobs))
    return pd.concat(frames, ignore_index=True)


def model_rows(fitting: Fitting, training: dict[str, Any], test: HeldOut) -> pd.DataFrame:
    """A row for each trained model: does it decode exactly, was it loaded as it was saved, what did it cost."""
    rows = []
    for conditioning in CONDITIONINGS:
        runs = training["conditionings"][conditioning]["runs"]
        for codec, run in zip(fitting.rfsq[conditioning], runs, strict=True):
            rows.append({
                "codec": CONDITIONED[conditioning],
                "seed": run["seed"],
                "decode_error": codec.decode_error(test.chunks.actions),
                "loaded_identical": reconstruction_sha256(codec, test.chunks) == run["reconstruction_sha256"],
                "bytes": run["bytes"],
                "train_seconds": run["seconds"],
                "file": run["file"],
            })  # fmt: skip
    return pd.DataFrame(rows)
