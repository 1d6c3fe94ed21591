"""The data card: what a data set holds, and how far it is from what LIBERO publishes of its own.

Values that are no rows, and these tables:

    dimensions  a row for each dimension of an action: its statistics in the units of the recording, `clipped_steps` and
                the `largest` value before clipping, shares of exact zeros and of values on LIBERO's lattice, what the
                normaliser maps to -1 (`low`) and 1 (`high`), and, where the layout is LIBERO's, `published_...`
                statistics and how far from them (`distance`); NaN where there is none
    tasks       task | episodes, steps
    episodes    episode, task, part | steps
"""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workbook.common.array import Array
from workbook.data import motion, plausibility
from workbook.data.cleaning import noop_steps, noops_are_known
from workbook.data.dataset import Dataset, Prepared
from workbook.data.episodes import Episode, by_group
from workbook.data.layout import DELTAS, ActionLayout

ALL_SUITES = "all_suites"
PUBLISHED = ("mean", "std", "min", "max", "q01", "q99")
DISTANCES = ("std_ratio", "mean_shift", "outside")


@cache
def published_statistics() -> dict[str, dict[str, Any]]:
    """Suite -> {'mean', 'std', 'min', 'max', 'q01', 'q99'}, 7 numbers each."""
    path = Path(__file__).parent / "libero_statistics.json"
    return json.loads(path.read_text(encoding="utf8"))["suites"]


def distance(actions: Array) -> dict[str, Any]:
    """How far the motion of (T, 7) actions in LIBERO's layout is from LIBERO's, dimension by dimension.

    'std_ratio': std over the published one; 'mean_shift': difference of means in published std; 'outside': share of
    steps beyond the published 1 % to 99 % range, 0.02 in LIBERO itself; 'nearest_suite': by the ratios of std.
    """
    everything = published_statistics()
    pooled = {name: np.array(values[:6]) for name, values in everything[ALL_SUITES].items() if isinstance(values, list)}
    motion = actions[:, :6]
    std = motion.std(axis=0)
    outside = (motion < pooled["q01"]) | (motion > pooled["q99"])
    suites = {
        name: float(np.abs(np.log(np.maximum(std, 1e-9) / np.array(entry["std"][:6]))).mean())
        for name, entry in everything.items()
        if name != ALL_SUITES
    }
    return {
        "std_ratio": (std / pooled["std"]).tolist(),
        "mean_shift": ((motion.mean(axis=0) - pooled["mean"]) / pooled["std"]).tolist(),
        "outside": outside.mean(axis=0).tolist(),
        "nearest_suite": min(suites, key=suites.__getitem__),
    }


STILL = 0.9  # share of exact zeros from which a kind of motion is called switched off


def concerns(prepared: Prepared) -> dict[str, Any]:
    """Values of the card that who trains or scores on the data should know before trusting what comes of it."""
    dataset, changes = prepared.dataset, prepared.changes
    episodes = [episode.actions for episode in dataset.episodes]
    return {
        "doubts": motion.doubts(episodes, dataset.layout, dataset.chunk_len),
        "left_out": [asdict(one) for one in changes.left_out],
        "outliers": asdict(changes.outliers) | {"first": [asdict(one) for one in changes.outliers.first]},
        "trembling": plausibility.trembling(np.concatenate(episodes), dataset.layout),
    }


def describe(prepared: Prepared) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
    """The data card: values (origin, counts, changes on loading, plausibility, split), and its tables by name."""
    dataset, changes = prepared.dataset, prepared.changes
    layout = dataset.layout
    episodes = [episode.actions for episode in dataset.episodes]
    actions = np.concatenate(episodes)
    values = {
        "origin": asdict(prepared.origin) | {"notes": list(prepared.origin.notes)},
        "dataset_sha256": dataset.sha256,
        "layout": layout.spec,
        "control_rates_hz": sorted({e.control_rate_hz for e in dataset.episodes if e.control_rate_hz is not None}),
        "episodes": len(episodes),
        "episodes_read": prepared.episodes_read,
        "steps": len(actions),
        "files": len({episode.source for episode in dataset.episodes}),
        "copies": list(map(list, changes.copies)),
        "grippers": [asdict(reading) for reading in changes.grippers],
        "noops_dropped": changes.noops_dropped,
        "clipped": {
            "steps": changes.clipping.steps_any,
            "share": changes.clipping.steps_any / changes.clipping.total_steps,
        },
        **concerns(prepared),
        "doubts_accepted": prepared.accepted,
        "lattice": plausibility.lattice_of(actions, layout),
        "fills_the_range": plausibility.fills_the_range(actions, layout),
        "never_negative": bool((actions[:, layout.indices(*DELTAS)] >= 0).all()),
        "looks_absolute": plausibility.looks_absolute(episodes, layout),
        "still": _still(dataset.episodes, layout),
        "idle_share": _idle_share(episodes, layout),
        "nearest_suite": distance(actions)["nearest_suite"] if layout.is_libero else None,
        "split": {name: len(positions) for name, positions in dataset.split.parts().items()},
        "normalised": {name: _normalised_range(dataset, name) for name in ("train", "test")},
        "chunks": _chunks(dataset),
    }
    table = _episodes(dataset)
    tasks = table.groupby("task", sort=False).steps.agg(episodes="count", steps="sum").reset_index()
    return values, {"dimensions": _dimensions(prepared, actions), "tasks": tasks, "episodes": table}


def _dimensions(prepared: Prepared, actions: Array) -> pd.DataFrame:
    layout, normaliser = prepared.dataset.layout, prepared.dataset.normaliser
    low, high = np.quantile(actions, [0.01, 0.99], axis=0)
    table = pd.DataFrame({
        "dimension": layout.names,
        "mean": actions.mean(axis=0),
        "std": actions.std(axis=0),
        "min": actions.min(axis=0),
        "max": actions.max(axis=0),
        "q01": low,
        "q99": high,
        "clipped_steps": prepared.changes.clipping.steps,
        "largest": prepared.changes.clipping.largest,
        "zero_share": (actions == 0).mean(axis=0),
        "lattice_share": plausibility.lattice_share(actions, layout),
        "constant": np.ptp(actions, axis=0) == 0,
        "low": normaliser.low,
        "high": normaliser.high,
    })  # fmt: skip
    return pd.concat([table, _against_published(actions, layout)], axis=1)


def _against_published(actions: Array, layout: ActionLayout) -> pd.DataFrame:
    """LIBERO's statistics of each dimension, and the distance of those that are motion; NaN for other layouts."""
    pooled, found = published_statistics()[ALL_SUITES], {}
    if layout.is_libero:
        found = {f"published_{key}": pooled[key] for key in PUBLISHED}
        found |= {key: [*values, np.nan] for key, values in distance(actions).items() if key in DISTANCES}
    columns = [*(f"published_{key}" for key in PUBLISHED), *DISTANCES]
    return pd.DataFrame(found, index=range(layout.dim), columns=columns, dtype=float)


def _episodes(dataset: Dataset) -> pd.DataFrame:
    parts = {position: name for name, positions in dataset.split.parts().items() for position in positions}
    return pd.DataFrame([
        {"episode": episode.place, "task": episode.task, "part": parts[position], "steps": len(episode.actions)}
        for position, episode in enumerate(dataset.episodes)
    ])  # fmt: skip


def _normalised_range(dataset: Dataset, part: str) -> list[float]:
    """Least and greatest value of the chunks of a part, which for held-out ones may lie outside [-1, 1]."""
    chunks = dataset.train_chunks() if part == "train" else dataset.held_out_chunks(part)
    values = dataset.normaliser.normalise(chunks.actions)
    return [float(values.min()), float(values.max())]


def _idle_share(episodes: list[Array], layout: ActionLayout) -> float | None:
    """Share of steps that command nothing, where that can be told."""
    if not noops_are_known(layout):
        return None
    return float(np.concatenate([noop_steps(episode, layout) for episode in episodes]).mean())


def _still(episodes: tuple[Episode, ...], layout: ActionLayout) -> list[dict[str, Any]]:
    """Recordings made alike in which one kind of motion is hardly ever commanded."""
    members = by_group(episodes)
    found = []
    for (session, task), positions in members.items():
        actions = np.concatenate([episodes[i].actions for i in positions])
        for kind in DELTAS:
            dimensions = layout.indices(kind)
            share = float((actions[:, dimensions] == 0).all(axis=1).mean()) if len(dimensions) else 0.0
            if share > STILL:
                found.append({"kind": kind, "session": session, "task": task, "share": share, "of": len(members)})
    return found


def _chunks(dataset: Dataset) -> dict[str, int]:
    train = dataset.train_chunks()
    return {
        "length": dataset.chunk_len,
        "stride": dataset.stride,
        "train": len(train.actions),
        "test": len(dataset.held_out_chunks("test").actions),
        "padded_steps_train": int((~train.valid).sum()),
    }
