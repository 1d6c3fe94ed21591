"""The data card in sentences: what a reader should know of the data before trusting a result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from workbook.common.note import Note
from workbook.data.cleaning import FAR
from workbook.data.episodes import CONTROL_RATE_HZ
from workbook.data.grippers import FEWEST_STARTS
from workbook.data.layout import DELTAS, ActionLayout
from workbook.data.plausibility import LIBERO_LATTICE
from workbook.evaluation.evidence import Evidence
from workbook.report.text import words

Card = Mapping[str, Any]
MUCH_CLIPPED = 0.2  # share of steps from which other units are likelier than a wild operator
BEYOND_QUANTILES = (0.005, 0.05)  # share of steps, around the 2 % that lie beyond the 1 % and 99 % quantiles
SMALL_POSITION = 0.1  # controller units; LIBERO's reach 0.94, and 0.05 are 0.94 in metres
FAR_OUTSIDE = 0.1  # share of steps beyond LIBERO's 1 % to 99 % range
FAR_MEAN = 0.5  # published std
MANY_ZEROS = 0.25
MANY_REPEATED = 0.5  # share of the samples collected for Phase 2 whose chunk is one action, to say so first


def remarks(run: Evidence) -> list[str]:
    """Sentences computed from the card, the first of them what makes the data no robot motion, if anything does.

    Then where they come from, what was changed, what looks odd, how far from LIBERO.
    """
    return list(_remarks(run.data, run.table("dimensions")))


def concerns(card: Card) -> list[str]:
    """Those of the remarks that a terminal shows: no robot motion, what was left out, glitches, and noise."""
    return [*_doubts(card), *_left_out(card), *_outliers(card), *_trembling(card)]


def _doubts(card: Card) -> Iterator[str]:
    return map(words("data").of_note, card["doubts"])


def _left_out(card: Card) -> Iterator[str]:
    if card["left_out"]:
        reasons = Counter(one["why"] for one in card["left_out"])
        yield words("data").left_out(list(reasons.items()), card["left_out"][0])


def _outliers(card: Card) -> Iterator[str]:
    if card["outliers"]["count"]:
        yield words("data").outliers(card["outliers"], FAR)


def _trembling(card: Card) -> Iterator[str]:
    if card["trembling"]:
        yield words("data").trembling(card["trembling"])


def _remarks(card: Card, dimensions: pd.DataFrame) -> Iterator[str]:
    layout, say = ActionLayout.parse(card["layout"]), words("data")
    yield from _doubts(card)
    notes = sorted(card["origin"]["notes"], key=_is_told_first, reverse=True)
    first = sum(map(_is_told_first, notes))
    yield from map(say.of_note, notes[:first])
    yield say.origin(card)
    yield from map(say.of_note, notes[first:])
    if card["copies"]:
        yield say.copies(card["copies"])
    yield from _left_out(card)
    yield from filter(None, map(gripper, card["grippers"]))
    if card["noops_dropped"] is not None:
        yield say.noops(card["noops_dropped"], card["steps"])
    elif card["idle_share"] is not None:
        yield say.idle(card["idle_share"])
    yield from _outliers(card)
    yield _clipping(card, dimensions, layout)
    yield from _oddities(card, dimensions, layout)
    if card["control_rates_hz"] != [CONTROL_RATE_HZ]:
        yield say.rates(card["control_rates_hz"], CONTROL_RATE_HZ)
    yield from _zeros(card, dimensions, layout)
    if card["nearest_suite"]:
        yield from _published(card, dimensions.iloc[:6])


def _is_told_first(of_origin: Note) -> bool:
    return of_origin["key"] == "first_actions" and of_origin["values"]["repeated"] > MANY_REPEATED


def gripper(reading: Card) -> str:
    """How a gripper was read; nothing of one that never moves, which is said among the dimensions that do not."""
    if reading["low"] == reading["high"]:
        return ""
    if not reading["switch"]:
        return words("data").gripper_unknown(reading)
    return words("data").gripper(reading, FEWEST_STARTS)


def _clipping(card: Card, dimensions: pd.DataFrame, layout: ActionLayout) -> str:
    clipped, say = card["clipped"], words("data")
    limited = np.isfinite(layout.limit)
    aside = (
        layout.of_kind("joint"),
        layout.of_kind("opening"),
        card["outliers"]["count"] and card["outliers"]["clipped"],
    )
    if not limited.any():
        return say.never_clipped(*aside)
    if not clipped["steps"]:
        return say.not_clipped(*aside)
    largest = np.where(limited, dimensions.largest, 0.0)
    worst = int(np.argmax(largest))
    sentence = say.clipped(clipped, card["steps"], largest[worst], layout.names[worst])
    if clipped["share"] <= MUCH_CLIPPED:
        return sentence
    gripper_alone = not dimensions.clipped_steps.iloc[layout.motion].any()
    return f"{sentence} {say.gripper_clipped if gripper_alone else say.much_clipped}"


def _oddities(card: Card, dimensions: pd.DataFrame, layout: ActionLayout) -> Iterator[str]:
    say = words("data")
    if not len(layout.indices(*DELTAS)):
        return
    means = [(name, dimensions.lattice_share.iloc[layout.indices(name)].mean()) for name in DELTAS]
    shares = [(name, mean) for name, mean in means if not np.isnan(mean)]
    yield say.lattice(shares, card["lattice"], LIBERO_LATTICE) if shares else say.no_lattice
    if card["fills_the_range"] and not card["clipped"]["steps"] and card["lattice"] is None:
        yield say.fills_the_range
    elif _left_by_a_few_everywhere(card, dimensions, layout):
        yield say.left_by_a_few
    elif card["never_negative"]:
        yield say.never_negative
    largest = dimensions.largest.iloc[layout.indices("position")]
    if len(largest) and 0 < largest.max() < SMALL_POSITION and card["lattice"] != LIBERO_LATTICE:
        yield say.metres(largest.max())
    if card["looks_absolute"] and not card["doubts"]:
        yield say.absolute


def _left_by_a_few_everywhere(card: Card, dimensions: pd.DataFrame, layout: ActionLayout) -> bool:
    motion = dimensions.iloc[layout.indices(*DELTAS)]
    share = motion.clipped_steps[~motion.constant] / card["steps"]
    return len(share) > 0 and bool(share.between(*BEYOND_QUANTILES, inclusive="neither").all())


def _zeros(card: Card, dimensions: pd.DataFrame, layout: ActionLayout) -> Iterator[str]:
    say = words("data")
    if dimensions.constant.any():
        yield say.constant(list(dimensions.dimension[dimensions.constant]))
    yield from _trembling(card)
    for kind in DELTAS:
        still = [entry for entry in card["still"] if entry["kind"] == kind]
        if still:
            yield say.still(kind, still, int(100 * min(entry["share"] for entry in still)))
    motion = dimensions.iloc[layout.motion]
    if many := _named(motion, "zero_share", motion.zero_share > MANY_ZEROS):
        yield say.zeros(many)


def _published(card: Card, motion: pd.DataFrame) -> Iterator[str]:
    """How far from LIBERO's published statistics, and what follows."""
    say = words("data")
    far = _named(motion, "std_ratio", ~motion.std_ratio.between(0.5, 2, inclusive="neither"))
    yield say.far(far) if far else say.near(card["nearest_suite"])
    if shifted := _named(motion, "mean_shift", motion.mean_shift.abs() > FAR_MEAN):
        yield say.shifted(shifted)
    if outside := _named(motion, "outside", motion.outside > FAR_OUTSIDE):
        yield say.outside(outside)


def _named(dimensions: pd.DataFrame, column: str, chosen: pd.Series) -> list[tuple[str, float]]:
    shown = dimensions[chosen]
    return list(zip(shown.dimension, shown[column], strict=True))
