"""The evidence of 03_compare: every codec of the catalogue on the held-out test episodes, from its tokens alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from rfsq_robust import CONDITIONINGS
from workbook.codecs.catalogue import (
    CONDITIONED,
    Entry,
    Fitting,
    Setting,
    decided,
    entries,
    of_family,
)
from workbook.codecs.rfsq import reconstruction_sha256
from workbook.common.jobs import OnProgress, ProgressStep
from workbook.common.parallel import PROGRESS_STEPS, available_cores, in_progress_steps, run_jobs
from workbook.common.paths import OutputFolder
from workbook.data.dataset import Dataset
from workbook.evaluation.against_fast import FAST, against_fast_rows
from workbook.evaluation.layers import code_rows, layer_rows
from workbook.evaluation.rate_distortion import CHOSEN_AMONG, gaussian_reference
from workbook.evaluation.score import ENCODER, KEYS, TOKENS, HeldOut, score_setting
from workbook.evaluation.token_costs import Costed, costed_codecs, latency, token_costs
from workbook.training.baselines import BaselineConfig
from workbook.training.fitting import fit_catalogue

SHARES_A_CORE = 2  # so that no core waits for long at the end
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
    test, validation = HeldOut.of(dataset), HeldOut.of(dataset, "validation")
    seeds = [run["seed"] for run in training["conditionings"]["scale"]["runs"]]
    scored = _score_parts(Scoring(fitting, test, validation, seeds), progress)
    costed = {named: codecs for part in scored for named, codecs in part.costed.items()}
    costs = _joined([part.costs for part in scored], fitting)
    return Comparison(
        _joined([part.scores for part in scored], fitting),
        {
            "validation": _joined([part.validation for part in scored], fitting)[CHOICE_COLUMNS],
            "models": model_rows(fitting, training, test),
            "layers": layer_rows(fitting.rfsq, seeds, test),
            "codes": code_rows(fitting.rfsq, test),
            "gaussian": gaussian_reference(fitting),
            "against_fast": pd.concat([part.against_fast for part in scored], ignore_index=True),
            "token_costs": costs.merge(latency(costed, test), on=["codec", "setting"]),
        },
        {
            "test_episodes": len(test.episodes),
            "test_steps": int(test.chunks.valid.sum()),
            "layout": dataset.layout.spec,
            "decided": str(decided(fitting)),
            "brought": {codec.name: codec.faults(test.chunks.actions).as_json() for codec in fitting.brought},
        },
    )


@dataclass(frozen=True, eq=False)
class Scoring:
    """What is scored, and on what. seeds: of the trained models, in order."""

    fitting: Fitting
    test: HeldOut
    validation: HeldOut
    seeds: list[int]


@dataclass(frozen=True, eq=False)
class Scored:
    """Rows of some entries, and a codec of each setting whose costs are told."""

    scores: pd.DataFrame
    validation: pd.DataFrame
    costs: pd.DataFrame
    against_fast: pd.DataFrame
    costed: Costed


def _score_parts(scoring: Scoring, progress: Callable[[str], OnProgress]) -> list[Scored]:
    """Every entry once. Those that share FAST-style fits, where one search begins between the scales of those before,
    stay together; what was brought and cannot be pickled stays in this process.
    """
    fitting = scoring.fitting
    sent = replace(fitting, brought=[codec for codec in fitting.brought if codec.can_be_sent()])
    others = [entry.name for entry in entries(sent) if entry.name not in FAST]
    shares = min(SHARES_A_CORE * available_cores(), len(others))
    parts = [tuple(FAST), *(tuple(others[start::shares]) for start in range(shares))]
    apart = replace(scoring, fitting=sent)
    scored = run_jobs(score_part, apart, parts, PROGRESS_STEPS, progress("Scoring codecs"), here=True)
    rest = [entry.name for entry in entries(fitting) if entry.name not in {*FAST, *others}]
    return [*scored, score_part(scoring, rest, lambda: None)] if rest else scored


def score_part(scoring: Scoring, names: Sequence[str], progress_step: ProgressStep) -> Scored:
    """The rows of entries by name; those of FAST-style ones bring what they make of other codecs' rates."""
    fitting, test, seeds = scoring.fitting, scoring.test, scoring.seeds
    among = [entry for entry in entries(fitting) if entry.name in names]
    told = _shares_of(progress_step, 2)
    scores = score_catalogue(among, fitting, test, seeds, told[0])
    costs = costed_codecs(fitting, among)
    beside = set(FAST) <= set(names)
    return Scored(
        scores,
        score_choices(among, fitting, scoring.validation, seeds),
        token_costs(costs, test, seeds, (lambda done, total: None) if beside else told[1]),
        against_fast_rows(fitting, test, seeds, told[1]) if beside else pd.DataFrame(),
        {named: codecs[:1] for named, codecs in costs.items()},
    )


def _shares_of(progress_step: ProgressStep, parts: int) -> list[OnProgress]:
    """For parts of equal work, one after the other, what is told of each."""
    advance = in_progress_steps(parts * PROGRESS_STEPS, progress_step)

    def share(before: int) -> OnProgress:
        def told(done: int, total: int) -> None:
            advance(
                PROGRESS_STEPS * (before + 1) if done == total else PROGRESS_STEPS * (before * total + done) // total
            )

        return told

    return [share(before) for before in range(parts)]


def _joined(frames: Sequence[pd.DataFrame], fitting: Fitting) -> pd.DataFrame:
    """In the order of the catalogue, with rows of the forward pass last."""
    rows = pd.concat([frame for frame in frames if len(frame)], ignore_index=True)
    place = {entry.name: number for number, entry in enumerate(entries(fitting))}
    order = rows.codec.map(place)
    if "decoding" in rows:
        order += len(place) * (rows.decoding == ENCODER)
    return rows.iloc[np.argsort(order, kind="stable")].reset_index(drop=True)


def score_catalogue(
    among: Sequence[Entry], fitting: Fitting, test: HeldOut, seeds: list[int], on_progress: OnProgress
) -> pd.DataFrame:
    """Rows of entries at every setting, and of the forward pass of 02_train_robust's models at all layers."""
    all_layers = Setting.of(layers=fitting.layers)
    jobs = [(entry, setting, TOKENS) for entry in among for setting in entry.settings(fitting)]
    trained = {CONDITIONED[name] for name in fitting.rfsq}
    jobs += [(entry, all_layers, ENCODER) for entry in among if entry.name in trained]
    return _score(jobs, fitting, test, seeds, on_progress)


def score_choices(among: Sequence[Entry], fitting: Fitting, validation: HeldOut, seeds: list[int]) -> pd.DataFrame:
    """Error and bits of what a best is chosen among, so that none is chosen on the test episodes."""
    chosen = [entry for entry in among if entry.name in of_family(*CHOSEN_AMONG)]
    jobs = [(entry, setting, TOKENS) for entry in chosen for setting in entry.measured(fitting)]
    return _score(jobs, fitting, validation, seeds, lambda done, total: None)


def _score(
    jobs: list[tuple[Entry, Setting, str]], fitting: Fitting, held_out: HeldOut, seeds: list[int], told: OnProgress
) -> pd.DataFrame:
    frames = [pd.DataFrame()]
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
