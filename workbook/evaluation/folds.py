"""The folds of a cross-validation, each a run of its own with one seed, put together as one run.

Fold i is tested by models of seed i that were fitted on the others, so that seeds and folds are one factor: what a page
says of seeds is said of both. Every episode is tested once. Checkpoints, data set and executed notebooks are those of
fold 0, and so are the settings that data decide (`catalogue.decided`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from workbook.common.paths import OutputFolder
from workbook.common.stages import BESIDE, pool_stage, read_document, read_optional, read_table

POOLED = ("training", "comparison", "policy")
# What tells the rows of one thing that was measured from those of another, in whichever table has it.
KEYS = ("codec", "setting", "decoding", "side", "rule", "decoder", "heads", "training_set_size", "part")


def pool_folds(out: OutputFolder, others: Sequence[OutputFolder]) -> None:
    """Write into `out`, the folder of fold 0, what all folds have found."""
    folders = [out, *others]
    documents = {stage: [read_document(folder, stage) for folder in folders] for stage in POOLED}
    documents |= {stage: [found] for stage in BESIDE if (found := read_optional(out, stage))}
    tables = {
        stage: {name: [read_table(folder, name) for folder in folders[: len(of)]] for name in of[0]["tables"]}
        for stage, of in documents.items()
    }
    of_policy = tables["policy"]
    of_policy["probe"] = [
        _as_deep(rows, _layers(networks), _layers(of_policy["networks"][0]))
        for rows, networks in zip(of_policy["probe"], of_policy["networks"], strict=True)
    ]
    for stage, of in documents.items():
        content = _content(stage, [document["content"] for document in of])
        pool_stage(out, stage, of, content, {name: _pooled(folds) for name, folds in tables[stage].items()})


def _content(stage: str, contents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    first = contents[0]
    if stage == "training":
        conditionings = {
            name: entry | {"runs": [run for one in contents for run in one["conditionings"][name]["runs"]]}
            for name, entry in first["conditionings"].items()
        }
        return first | {"conditionings": conditionings, "total_seconds": sum(one["total_seconds"] for one in contents)}
    if stage == "comparison":
        sums = {name: sum(one[name] for one in contents) for name in ("test_episodes", "test_steps")}
        brought = {
            codec: {fault: sum(one["brought"][codec][fault] for one in contents) for fault in faults}
            for codec, faults in first["brought"].items()
        }
        return first | sums | {"brought": brought, "folds": len(contents)}
    if stage == "policy":
        left_out = {codec: why for one in contents for codec, why in one.get("not_predicted", {}).items()}
        return first | {"seeds": len(contents), "not_predicted": left_out}
    return first


def _pooled(folds: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Rows of all folds, seed by fold; of what has no seed, fold 0's. What not every fold has measured is left out."""
    if len(folds) == 1 or "seed" not in folds[0]:
        return folds[0]
    if "training_set_size" in folds[0]:
        sizes = sorted(set(folds[0].training_set_size))
        folds = [_as_large(fold, sizes) for fold in folds]
    pooled = pd.concat([fold.assign(seed=seed) for seed, fold in enumerate(folds)], ignore_index=True)
    everywhere = pooled.groupby([key for key in KEYS if key in pooled]).seed.transform("nunique") == len(folds)
    return pooled[everywhere].reset_index(drop=True)


def _as_large(rows: pd.DataFrame, sizes: Sequence[int]) -> pd.DataFrame:
    """Rows of a fold whose whole train part, some episodes more or fewer, goes by the size of fold 0's.

    sizes: fold 0's, ascending, the whole last.
    """
    own, most = rows.training_set_size, rows.training_set_size.max()
    kept = (own == most) | own.isin(sizes[:-1])
    return rows.assign(training_set_size=own.where(own < most, sizes[-1]))[kept]


Layers = Mapping[tuple[str, str], int]  # codec and setting -> in how many layers its tokens lie


def _layers(networks: pd.DataFrame) -> Layers:
    apart = networks[networks.heads == "apart"].drop_duplicates(["codec", "setting"])
    return {(row.codec, row.setting): int(row.layers) for row in apart.itertuples()}


def _as_deep(rows: pd.DataFrame, layers: Layers, first: Layers) -> pd.DataFrame:
    """Rows of a fold in which a codec's tokens may lie in more or fewer layers than in fold 0, as KLT-RFSQ's do.

    The whole of them is the whole of fold 0's; of fewer layers it also is what more would be.
    """
    for codec, own in layers.items():
        wanted = first.get(codec, own)
        if own == wanted:
            continue
        of_codec = (rows.codec == codec[0]) & (rows.setting == codec[1])
        whole, fewer = rows[of_codec & (rows.layers == own)], min(own, wanted)
        as_first = [whole.assign(layers=count) for count in range(fewer, wanted + 1)]
        rows = pd.concat([rows[~of_codec | (rows.layers < fewer)], *as_first], ignore_index=True)
    return rows
