"""LIBERO's published action statistics, and how far recordings are from them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from workbook.chunks import Array

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
