"""The data card: what a data set holds, and how far it is from what LIBERO publishes of its own."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from workbook.common.array import Array
from workbook.data import plausibility
from workbook.data.cleaning import Clipping, noop_steps, noops_are_known
from workbook.data.dataset import Dataset, Prepared
from workbook.data.episodes import Episode, by_group
from workbook.data.layout import DELTAS, ActionLayout

ALL_SUITES = "all_suites"


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


LONGEST_LAG = 40  # steps, two seconds at 20 Hz
STILL = 0.9  # share of exact zeros from which a kind of motion is called switched off


def autocorrelation(episodes: list[Array], longest: int = LONGEST_LAG) -> Array:
    """Autocorrelation within episodes at lags 0..longest, pooled: (T, A) each -> (longest + 1, A).

    A dimension that never moves, and a lag that is longer than every episode, have none and are NaN.
    """
    everything = np.concatenate(episodes)
    moves = np.ptp(everything, axis=0) > 0
    mean = everything.mean(axis=0)
    centred = [episode - mean for episode in episodes]
    products = np.zeros((longest + 1, mean.size))
    counts = np.zeros(longest + 1)
    for episode in centred:
        for lag in range(min(longest + 1, len(episode))):
            products[lag] += (episode[lag:] * episode[: len(episode) - lag]).sum(axis=0)
            counts[lag] += len(episode) - lag
    covariance = products / np.maximum(counts, 1)[:, None]
    known = moves & (counts > 0)[:, None]
    return np.where(known, covariance / np.where(moves, covariance[0], 1), np.nan)


def describe(prepared: Prepared) -> dict[str, Any]:
    """The data card: origin, counts, what was changed on loading, ranges, plausibility, split and normaliser."""
    dataset, changes = prepared.dataset, prepared.changes
    layout = dataset.layout
    episodes = [episode.actions for episode in dataset.episodes]
    actions = np.concatenate(episodes)
    return {
        "origin": asdict(prepared.origin) | {"notes": list(prepared.origin.notes)},
        "dataset_sha256": dataset.sha256,
        "layout": layout.spec,
        "control_rates_hz": sorted({e.control_rate_hz for e in dataset.episodes if e.control_rate_hz is not None}),
        "episodes": len(episodes),
        "episodes_read": prepared.episodes_read,
        "steps": len(actions),
        "tasks": dict(Counter(episode.task for episode in dataset.episodes)),
        "files": len({episode.source for episode in dataset.episodes}),
        "lengths": [len(episode) for episode in episodes],
        "statistics": _statistics(actions),
        "copies": list(changes.copies),
        "grippers": [asdict(reading) for reading in changes.grippers],
        "noops_dropped": changes.noops_dropped,
        "clipping": _clipping(changes.clipping),
        "lattice": plausibility.lattice_of(actions, layout),
        "lattice_share": plausibility.lattice_share(actions, layout).tolist(),
        "fills_the_range": plausibility.fills_the_range(actions, layout),
        "never_negative": bool((actions[:, layout.indices(*DELTAS)] >= 0).all()),
        "looks_absolute": plausibility.looks_absolute(episodes, layout),
        "zero_share": (actions == 0).mean(axis=0).tolist(),
        "still": _still(dataset.episodes, layout),
        "idle_share": _idle_share(episodes, layout),
        "constant_dimensions": [
            name for name, spread in zip(layout.names, np.ptp(actions, axis=0), strict=True) if spread == 0
        ],
        "published": distance(actions) if layout.is_libero else None,
        "split": {name: len(positions) for name, positions in dataset.split.parts().items()},
        "chunks": _chunks(dataset),
        "normaliser": {"low": dataset.normaliser.low.tolist(), "high": dataset.normaliser.high.tolist()},
    }


def _statistics(actions: Array) -> dict[str, list[float]]:
    low, high = np.quantile(actions, [0.01, 0.99], axis=0)
    return {
        "mean": actions.mean(axis=0).tolist(),
        "std": actions.std(axis=0).tolist(),
        "min": actions.min(axis=0).tolist(),
        "max": actions.max(axis=0).tolist(),
        "q01": low.tolist(),
        "q99": high.tolist(),
    }


def _idle_share(episodes: list[Array], layout: ActionLayout) -> float | None:
    """Share of steps that command nothing, where that can be told."""
    if not noops_are_known(layout):
        return None
    return float(np.concatenate([noop_steps(episode, layout) for episode in episodes]).mean())


def _clipping(clipping: Clipping) -> dict[str, Any]:
    return {
        "steps": clipping.steps.tolist(),
        "largest": clipping.largest.tolist(),
        "steps_any": clipping.steps_any,
        "share_any": clipping.steps_any / clipping.total_steps,
    }


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
