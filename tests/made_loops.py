"""Policies in the loop made up by hand: which arm wins which pair of a seed and a start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from workbook.evaluation.loop.arms import ARGMAX, DIRECT, PHASE2_ARGMAX, PHASE2_SOFT, SOFT
from workbook.evaluation.loop.evidence import Loop, PlayedArm
from workbook.evaluation.loop.offline import DRAFT_COLUMNS, FIGURES
from workbook.evaluation.policy.evidence import OWN, RETRAINED

REGRESSION = PlayedArm("regression", "regression", "", DIRECT, OWN)
NAIVE_ARGMAX = PlayedArm("tokens", "naive", "layers=1", ARGMAX, OWN)
NAIVE_SOFT = NAIVE_ARGMAX._replace(rule=SOFT)
NAIVE_RETRAINED = NAIVE_SOFT._replace(decoder=RETRAINED)
SCALE_ARGMAX = PlayedArm("tokens", "fixed_scale", "layers=3", ARGMAX, OWN)
SCALE_SOFT = SCALE_ARGMAX._replace(rule=SOFT)
PHASE2_SCALE = PlayedArm("phase2", "fixed_scale", "layers=8", PHASE2_ARGMAX, OWN)
PHASE2_NAIVE = PHASE2_SCALE._replace(codec="naive")
ALL = (
    REGRESSION, NAIVE_ARGMAX, NAIVE_SOFT, NAIVE_RETRAINED, SCALE_ARGMAX, SCALE_SOFT, PHASE2_NAIVE, PHASE2_SCALE,
    PHASE2_SCALE._replace(rule=PHASE2_SOFT),
)  # fmt: skip
SEEDS, TASKS, STARTS = 3, 7, 4
PAIRS = SEEDS * TASKS * STARTS
ERRORS = {NAIVE_ARGMAX: 0.05, NAIVE_SOFT: 0.042, SCALE_ARGMAX: 0.056, SCALE_SOFT: 0.043}


def rows(arm: PlayedArm, won: Sequence[bool | None]) -> pd.DataFrame:
    keys = [(seed, f"task {t}", f"start {s}") for seed in range(SEEDS) for t in range(TASKS) for s in range(STARTS)]
    frame = pd.DataFrame(keys, columns=["seed", "task", "episode"]).assign(**arm._asdict())
    reasons = ["died" if each is None else "" for each in won]
    return frame.assign(succeeded=pd.array(won, dtype="boolean"), steps=100, not_played=reasons)


def made(outcomes: dict[PlayedArm, Sequence[bool | None]]) -> Loop:
    """Arms that are not named win every second episode."""
    usual = [bool(at % 2) for at in range(PAIRS)]
    policies = pd.DataFrame([
        {**arm._asdict(), "seed": seed, "validation_mse": ERRORS.get(arm, 0.06) + 0.001 * seed, "weights": 1}
        for arm in ALL
        for seed in range(SEEDS)
    ])  # fmt: skip
    frames = [rows(arm, outcomes.get(arm, usual)) for arm in ALL]
    return Loop({"not_run": "", "part": "validation"}, pd.concat(frames, ignore_index=True), policies)


def first(count: int) -> list[bool]:
    """So many pairs are won, those of the first starts, of every seed alike as nearly as can be."""
    starts = PAIRS // SEEDS
    return [at % starts * SEEDS + at // starts < count for at in range(PAIRS)]


def with_offline(loop: Loop, **figures: Mapping[PlayedArm, float]) -> Loop:
    """Figures of arms, the same but for what each of two seeds adds; none where it is not told."""
    rows = [
        {**arm._asdict(), "seed": seed, **{name: figures.get(name, {}).get(arm, np.nan) + seed for name in FIGURES}}
        for arm in ALL
        for seed in range(2)
    ]
    return replace(loop, offline=pd.DataFrame(rows))


def with_drafts(loop: Loop) -> Loop:
    """Coarse tokens of the fixed scale are copied, those of naive are not; means over two seeds, and of one."""
    rows = [
        ("fixed_scale", "layers=8", seed, layer, agreement, agreement - lost)
        for seed, lost in ((0, 0.02), (1, 0.04))
        for layer, agreement in ((0, 0.9), (1, 0.6), (2, 0.3))
    ]
    rows += [("naive", "layers=8", 0, layer, 0.9, 0.5) for layer in range(3)]
    return replace(loop, drafts=pd.DataFrame(rows, columns=DRAFT_COLUMNS))
