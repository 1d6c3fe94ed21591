"""The data card in sentences: what a reader should know of the data before trusting a result."""

from __future__ import annotations

from typing import Any

import numpy as np

from workbook.data.cleaning import FEWEST_STARTS
from workbook.data.episodes import CONTROL_RATE_HZ
from workbook.data.layout import DELTAS, ActionLayout
from workbook.data.plausibility import LIBERO_LATTICE

Card = dict[str, Any]
MUCH_CLIPPED = 0.2  # share of steps from which other units are likelier than a wild operator
BEYOND_QUANTILES = (0.005, 0.05)  # share of steps, around the 2 % that lie beyond the 1 % and 99 % quantiles
SMALL_POSITION = 0.1  # controller units; LIBERO's reach 0.94, and 0.05 are 0.94 in metres
FAR_OUTSIDE = 0.1  # share of steps beyond LIBERO's 1 % to 99 % range
FAR_MEAN = 0.5  # published std
MANY_ZEROS = 0.25
IF_NORMALISED = (
    "If normalised, errors in mm and degrees are wrong, and decoded actions have to be brought back to the "
    "controller's units."
)
CONVERTED = "converted to -1 open, +1 close, which is what the codec takes and gives back"


def remarks(card: Card) -> list[str]:
    """Sentences computed from the card: where it comes from, what was changed, what looks odd, how far from LIBERO."""
    layout = ActionLayout.parse(card["layout"])
    found = [_origin(card), *card["origin"]["notes"]]
    found += [*_copies(card), *_grippers(card), *_noops(card), _clipping(card, layout)]
    found += [*_oddities(card, layout), *_rates(card), *_zeros(card, layout)]
    if card["published"]:
        found += _published(card["published"], layout)
    return found


def _origin(card: Card) -> str:
    origin = card["origin"]
    again = f" `--data {origin['name']}` reads the same again." if origin["revision"] else ""
    of_all = f" (of {card['episodes_read']:,})" if card["episodes_read"] != card["episodes"] else ""
    return (
        f"{card['episodes']:,} episodes{of_all} with {card['steps']:,} steps, read as {origin['kind']}; SHA-256 of the "
        f"actions {card['dataset_sha256'][:12]}.{again}"
    )


def _copies(card: Card) -> list[str]:
    copies = card["copies"]
    if not copies:
        return []
    return [f"{len(copies):,} episode(s) were left out because they are there twice; the first: {copies[0]}."]


def _grippers(card: Card) -> list[str]:
    return [sentence for reading in card["grippers"] if (sentence := _gripper(reading))]


def _gripper(reading: Card) -> str:
    name, low, high = reading["name"], reading["low"], reading["high"]
    if low == high:
        return ""  # said among the dimensions that never move
    if not reading["switch"]:
        return (
            f"The {name} lies between {low:.3g} and {high:.3g} and is no switch between -1 and 1 or 0 and 1: it is "
            "not converted, and which end is open is not known"
            + ("; --gripper-open does not apply." if reading["given"] else ".")
        )
    done = CONVERTED if reading["changed"] else "kept: -1 open, +1 close"
    return f"The {name} was recorded as {{{low:g}, {high:g}}}; {_open_end(reading)}; {done}."


def _open_end(reading: Card) -> str:
    """Which end was taken as open, and why."""
    end, start = reading["open_end"], reading["starts_high"]
    if reading["given"]:
        return f"the {end} end was said to be open"
    if end is not None:
        most = start if end == "high" else 1 - start
        others = "" if most == 1 else f" (the other {1 - most:.0%} may be inverted)"
        return f"{most:.0%} of the episodes begin at the {end} end, so that is open{others}"
    why = (
        f"{start:.0%} of the episodes begin at the high end"
        if reading["episodes"] >= FEWEST_STARTS
        else "too few episodes"
    )
    return f"{why}, which does not tell; the low end is taken as open (--gripper-open high, if that is wrong)"


def _noops(card: Card) -> list[str]:
    dropped = card["noops_dropped"]
    if dropped is not None:
        total = card["steps"] + dropped
        return [f"{dropped:,} of {total:,} steps commanded nothing and were left out, by OpenVLA's rule."]
    if card["idle_share"] is None:
        return []
    return [f"Idle steps (no motion, gripper unchanged): {card['idle_share']:.1%}; they are kept."]


def _clipping(card: Card, layout: ActionLayout) -> str:
    clipped = card["clipping"]
    limited = np.isfinite(layout.limit)
    if not limited.any():
        return "Nothing was clipped: joints are in units of their own."
    if not clipped["steps_any"]:
        aside = "" if limited.all() else ", joints aside, which never are"
        return f"No step left [-1, 1]; nothing was clipped{aside}."
    largest = np.where(limited, clipped["largest"], 0.0)
    worst = int(np.argmax(largest))
    sentence = (
        f"{clipped['steps_any']:,} of {card['steps']:,} steps ({clipped['share_any']:.1%}) left [-1, 1] and were "
        f"clipped as the simulator does; the largest value was {largest[worst]:.3g}, in {layout.names[worst]}."
    )
    return sentence + (_much_clipped(clipped, layout) if clipped["share_any"] > MUCH_CLIPPED else "")


def _much_clipped(clipped: Card, layout: ActionLayout) -> str:
    gripper_alone = not np.array(clipped["steps"])[layout.motion].any()
    if gripper_alone:
        return " All of that is the gripper's: bring its commands to -1 open, +1 close first."
    return (
        " That many are likelier to be in other units, such as joint angles, degrees or poses: --layout joint:N keeps "
        "such values unclipped, or bring them to the controller's units first."
    )


def _oddities(card: Card, layout: ActionLayout) -> list[str]:
    if not len(layout.indices(*DELTAS)):
        return []
    found = [_lattice(card, layout)]
    if card["fills_the_range"] and not card["clipping"]["steps_any"] and card["lattice"] is None:
        found.append(
            "Every motion dimension that moves reaches exactly -1 and 1: these actions look normalised, clipped "
            f"before, or given by keys. {IF_NORMALISED}"
        )
    elif _left_by_a_few_everywhere(card, layout):
        found.append(
            "In every motion dimension a few per cent of the steps left [-1, 1]: these actions look normalised by "
            f"their 1 % and 99 % quantiles. {IF_NORMALISED}"
        )
    elif card["never_negative"]:
        found.append("No motion command is negative: these actions look rescaled to [0, 1], or are no deltas.")
    largest = np.array(card["clipping"]["largest"])[layout.indices("position")]
    if largest.size and 0 < largest.max() < SMALL_POSITION and card["lattice"] != LIBERO_LATTICE:
        found.append(
            f"No position command is larger than {largest.max():.2g}: likelier metres than controller units, in which "
            "1 is 50 mm; divide by 0.05, and rotation in radians by 0.5, or errors in mm and degrees are wrong."
        )
    if card["looks_absolute"]:
        found.append(
            "Positions creep from step to step and are hardly ever zero: they look like poses, or heavily smoothed, "
            "and not like commanded deltas. LIBERO's controller takes deltas; errors in mm and drift would be wrong."
        )
    return found


def _left_by_a_few_everywhere(card: Card, layout: ActionLayout) -> bool:
    moves = np.array([name not in card["constant_dimensions"] for name in layout.names])
    dimensions = [i for i in layout.indices(*DELTAS) if moves[i]]
    share = np.array(card["clipping"]["steps"])[dimensions] / card["steps"]
    return bool(((share > BEYOND_QUANTILES[0]) & (share < BEYOND_QUANTILES[1])).all()) and len(share) > 0


def _lattice(card: Card, layout: ActionLayout) -> str:
    share = np.array(card["lattice_share"], dtype=float)
    means = {
        name: float(np.nanmean(group)) for name in DELTAS if not np.isnan(group := share[layout.indices(name)]).all()
    }
    if not means:
        return "Nothing moves, so there is no lattice to check."
    on = ", ".join(f"{name} {value:.1%}" for name, value in means.items())
    sentence = f"Non-zero values on LIBERO's SpaceMouse lattice: {on}"
    if card["lattice"] == LIBERO_LATTICE:
        return f"{sentence}: recorded, or rounded, as LIBERO's are."
    if card["lattice"]:
        return f"{sentence}; they lie on that of {card['lattice']}."
    return f"{sentence}: rescaled, or recorded with another device than LIBERO's demonstrations."


def _rates(card: Card) -> list[str]:
    rates = card["control_rates_hz"]
    if not rates:
        return [f"No control rate is said; LIBERO's {CONTROL_RATE_HZ:g} steps a second are taken."]
    if rates == [CONTROL_RATE_HZ]:
        return []
    if len(rates) == 1:
        return [f"Recorded at {rates[0]:g} steps a second; LIBERO's controller runs at {CONTROL_RATE_HZ:g}."]
    several = ", ".join(f"{rate:g}" for rate in rates)
    return [f"Recorded at different rates, {several} steps a second: the same delta means different speeds."]


def _zeros(card: Card, layout: ActionLayout) -> list[str]:
    found = []
    if card["constant_dimensions"]:
        found.append(f"These dimensions never move: {', '.join(card['constant_dimensions'])}.")
    for kind in DELTAS:
        still = [entry for entry in card["still"] if entry["kind"] == kind]
        if still:
            found.append(_still(kind, still))
    named = {layout.names[i]: card["zero_share"][i] for i in layout.motion}
    many = [f"{name} {share:.0%}" for name, share in named.items() if share > MANY_ZEROS]
    if many:
        found.append(f"Exactly zero in more than a quarter of the steps: {', '.join(many)}.")
    return found


def _still(kind: str, entries: list[Card]) -> str:
    """Which files, or tasks where files say nothing, have a kind of motion switched off."""
    least = np.floor(100 * min(entry["share"] for entry in entries))
    share = f"{least:.0f}%" if len(entries) == 1 else f"at least {least:.0f}%"
    return (
        f"Your {kind} is exactly zero in {share} of the steps{_where(entries)}: a codec fitted to them has hardly seen "
        f"any {kind}, and its error on a task with {kind} is not known from here."
    )


def _where(entries: list[Card]) -> str:
    first, total = entries[0], entries[0]["of"]
    if total == 1:
        return ""
    name, what = (first["session"], "files") if first["session"] else (first["task"], "tasks")
    more = ", ..." if len(entries) > 1 else ""
    return f" of {len(entries)} of {total} {what} ({name}{more})"


def _published(distance: Card, layout: ActionLayout) -> list[str]:
    """How far from LIBERO's published statistics, and what follows."""
    names = layout.names[:6]
    ratio = dict(zip(names, distance["std_ratio"], strict=True))
    far = [f"{name} {value:.2g} times" for name, value in ratio.items() if not 0.5 < value < 2]
    shifted = [
        f"{name} by {value:+.2g} std"
        for name, value in zip(names, distance["mean_shift"], strict=True)
        if abs(value) > FAR_MEAN
    ]
    outside = [
        f"{name} {value:.0%}" for name, value in zip(names, distance["outside"], strict=True) if value > FAR_OUTSIDE
    ]
    found = []
    if far:
        found.append(f"Std against LIBERO's published one: {', '.join(far)}; results on LIBERO itself may differ.")
    else:
        found.append(
            "The std of every motion dimension is within a factor of 2 of LIBERO's published one, and nearest to that "
            f"of {distance['nearest_suite']}."
        )
    if shifted:
        found.append(f"Means are shifted against LIBERO's: {', '.join(shifted)}.")
    if outside:
        found.append(
            f"Steps outside LIBERO's published 1 % to 99 % range (2 % there): {', '.join(outside)}; a tokenizer that "
            "normalises by that range, as OpenVLA's does, would clip these."
        )
    return found
