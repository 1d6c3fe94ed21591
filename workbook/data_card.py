"""What is in the data: the figures of 01_data."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

import numpy as np

from workbook import plausibility, published
from workbook.chunks import Array
from workbook.conventions import Clipping, noop_steps, noops_are_known
from workbook.dataset import Dataset, Prepared
from workbook.episodes import Episode, by_stratum
from workbook.layout import DELTAS, ActionLayout

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
        "published": published.distance(actions) if layout.is_libero else None,
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
    members = by_stratum(episodes)
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
