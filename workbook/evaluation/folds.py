"""The folds of a cross-validation, each a run of its own with one seed, put together as one run.

Fold i is tested by models of seed i that were fitted on the others, so that seeds and folds are one factor: what a page
says of seeds is said of both. Every episode is tested once. Checkpoints and data set are those of fold 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from workbook.common.errors import InputError
from workbook.common.paths import OutputFolder
from workbook.common.stages import pool_stage, read_document, read_table

STAGES = ("training", "comparison", "policy")
SETTING = ["codec", "setting"]


def pool_folds(out: OutputFolder, others: Sequence[OutputFolder]) -> None:
    """Write into `out`, the folder of fold 0, what all folds have found.

    Raises:
        InputError: policies of the folds predict different tokens, so that their errors are not of one kind.
    """
    folders = [out, *others]
    documents = {stage: [read_document(folder, stage) for folder in folders] for stage in STAGES}
    tables = {
        name: _pooled(name, [read_table(folder, name) for folder in folders])
        for stage in STAGES
        for name in documents[stage][0]["tables"]
    }
    for stage in STAGES:
        contents = [document["content"] for document in documents[stage]]
        of_stage = {name: tables[name] for name in documents[stage][0]["tables"]}
        pool_stage(out, stage, documents[stage], _content(stage, contents), of_stage)


def _content(stage: str, contents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    first = contents[0]
    if stage == "policy":
        return first | {"seeds": len(contents)}
    if stage == "comparison":
        sums = {name: sum(one[name] for one in contents) for name in ("test_episodes", "test_steps")}
        return first | sums | {"folds": len(contents)}
    conditionings = {
        name: entry | {"runs": [run for one in contents for run in one["conditionings"][name]["runs"]]}
        for name, entry in first["conditionings"].items()
    }
    return first | {"conditionings": conditionings, "total_seconds": sum(one["total_seconds"] for one in contents)}


def _pooled(name: str, folds: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Rows of all folds, seed by fold; of what has no seed, fold 0's. Settings that not every fold has are left out."""
    if name == "networks" and any(not fold[SETTING].equals(folds[0][SETTING]) for fold in folds):
        raise InputError("folds: their policies predict different layers of a codec; run without --folds")
    if "seed" not in folds[0]:
        return folds[0]
    if "training_set_size" in folds[0]:  # folds of unequal size
        sizes = [sorted(set(fold.training_set_size)) for fold in folds]
        renamed = [dict(zip(own, sizes[0], strict=True)) for own in sizes]
        folds = [
            fold.assign(training_set_size=fold.training_set_size.map(to))
            for fold, to in zip(folds, renamed, strict=True)
        ]
    pooled = pd.concat([fold.assign(seed=seed) for seed, fold in enumerate(folds)], ignore_index=True)
    if not set(SETTING) <= set(pooled):
        return pooled
    everywhere = pooled.groupby(SETTING).seed.transform("nunique") == len(folds)
    return pooled[everywhere].reset_index(drop=True)
