"""What is in the data: the figures of 01_data."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from workbook.chunks import Array
from workbook.dataset import Dataset
from workbook.episodes import DIMENSION_NAMES, GRIPPER, POSITION, ROTATION, Clipping

STATISTICS = Path(__file__).parent / "libero_statistics.json"
# LIBERO's SpaceMouse lattice: every action is a whole multiple of these.
LATTICE_STEP = np.array([0.9375 / 350] * 3 + [0.375 / 350] * 3)
LATTICE_TOLERANCE = 1e-3  # of a lattice step; float32 files are off by less
LONGEST_LAG = 40  # steps, two seconds


def published_statistics() -> dict[str, Any]:
    """LIBERO's published action statistics: suite -> {'mean', 'std', 'min', 'max', 'q01', 'q99'}, 7 numbers each."""
    return json.loads(STATISTICS.read_text(encoding="utf8"))["suites"]


def lattice_share(actions: Array) -> Array:
    """Share of the non-zero values that lie on LIBERO's lattice, for position and rotation: (T, 7) -> (6,).

    Zero lies on every lattice and proves nothing; a dimension with nothing else is NaN.
    """
    motion = actions[:, :6]
    steps = motion / LATTICE_STEP
    on = np.abs(steps - np.rint(steps)) <= LATTICE_TOLERANCE
    moving = motion != 0
    counts = moving.sum(axis=0)
    return np.where(counts > 0, (on & moving).sum(axis=0) / np.maximum(counts, 1), np.nan)


def idle_steps(actions: Array) -> np.ndarray:
    """Steps that command no motion and keep the gripper command of the step before: (T, 7) -> (T,) bool."""
    still = (actions[:, :6] == 0).all(axis=1)
    gripper = actions[:, GRIPPER].ravel()
    return still & np.concatenate([[False], gripper[1:] == gripper[:-1]])


def autocorrelation(episodes: list[Array], longest: int = LONGEST_LAG) -> Array:
    """Autocorrelation within episodes at lags 0..longest, pooled: (T, 7) each -> (longest + 1, 7).

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


def describe(dataset: Dataset, clipping: Clipping) -> dict[str, Any]:
    """The data card: counts, ranges, lattice, idle steps, clipping, split and normaliser."""
    episodes = [episode.actions for episode in dataset.episodes]
    actions = np.concatenate(episodes)
    lattice = lattice_share(actions)
    return {
        "dataset_sha256": dataset.sha256,
        "episodes": len(episodes),
        "steps": len(actions),
        "tasks": dict(Counter(episode.task for episode in dataset.episodes)),
        "files": dict(Counter(episode.source for episode in dataset.episodes)),
        "lengths": [len(episode) for episode in episodes],
        "statistics": {
            "mean": actions.mean(axis=0).tolist(),
            "std": actions.std(axis=0).tolist(),
            "min": actions.min(axis=0).tolist(),
            "max": actions.max(axis=0).tolist(),
            "q01": np.quantile(actions, 0.01, axis=0).tolist(),
            "q99": np.quantile(actions, 0.99, axis=0).tolist(),
        },
        "lattice_share": lattice.tolist(),
        "zero_share": (actions[:, :6] == 0).mean(axis=0).tolist(),
        "idle_share": float(np.concatenate([idle_steps(episode) for episode in episodes]).mean()),
        "constant_dimensions": [
            name for name, spread in zip(DIMENSION_NAMES, np.ptp(actions, axis=0), strict=True) if spread == 0
        ],
        "clipping": {
            "steps": clipping.steps.tolist(),
            "largest": clipping.largest.tolist(),
            "steps_any": clipping.steps_any,
            "share_any": clipping.steps_any / clipping.total_steps,
        },
        "split": {name: len(positions) for name, positions in dataset.split.parts().items()},
        "chunks": {
            "length": dataset.chunk_len,
            "stride": dataset.stride,
            "train": len(dataset.train_chunks().actions),
            "test": len(dataset.held_out_chunks("test").actions),
            "padded_steps_train": int((~dataset.train_chunks().valid).sum()),
        },
        "normaliser": {"low": dataset.normaliser.low.tolist(), "high": dataset.normaliser.high.tolist()},
    }


def remarks(card: dict[str, Any]) -> list[str]:
    """What a reader should know of this data before trusting a result, in sentences."""
    found = []
    clipped = card["clipping"]
    if clipped["steps_any"]:
        found.append(
            f"{clipped['steps_any']:,} of {card['steps']:,} steps ({clipped['share_any']:.1%}) left [-1, 1] and were "
            f"clipped as the simulator does; the largest value was {max(clipped['largest']):.3g}."
        )
    else:
        found.append("No step left [-1, 1]; nothing was clipped.")
    found.append(_lattice_remark(np.array(card["lattice_share"], dtype=float)))
    if card["constant_dimensions"]:
        found.append(f"These dimensions never move: {', '.join(card['constant_dimensions'])}.")
    still = [
        f"{name} {share:.0%}"
        for name, share in zip(DIMENSION_NAMES[:6], card["zero_share"], strict=True)
        if share > 0.25
    ]
    if still:
        found.append(f"Exactly zero in more than a quarter of the steps: {', '.join(still)}.")
    found.append(f"Idle steps (no motion, gripper unchanged): {card['idle_share']:.1%}; they are kept.")
    found.append(_spread_remark(card))
    return found


def _lattice_remark(share: Array) -> str:
    if np.isnan(share).all():
        return "Nothing moves, so there is no lattice to check."
    position, rotation = (
        np.nanmean(share[group]) if not np.isnan(share[group]).all() else np.nan for group in (POSITION, ROTATION)
    )
    on = [f"{name} {value:.1%}" for name, value in (("position", position), ("rotation", rotation)) if value == value]
    sentence = f"Non-zero values on LIBERO's SpaceMouse lattice: {', '.join(on)}"
    recorded_so = min(value for value in (position, rotation) if value == value) > 0.95
    return sentence + (
        ": recorded, or rounded, as LIBERO's are."
        if recorded_so
        else ": rescaled, or recorded with another device than LIBERO's demonstrations."
    )


def _spread_remark(card: dict[str, Any]) -> str:
    published = np.array(published_statistics()["all_suites"]["std"][:6])
    ratio = np.array(card["statistics"]["std"][:6]) / published
    far = [
        f"{name} {value:.2g} times" for name, value in zip(DIMENSION_NAMES, ratio, strict=False) if not 0.5 < value < 2
    ]
    if not far:
        return "The std of every motion dimension is within a factor of 2 of LIBERO's published one."
    return f"Std against LIBERO's published one: {', '.join(far)}; results on LIBERO itself may differ."
