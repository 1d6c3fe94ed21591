"""The data card in sentences: what a reader should know of the data before trusting a result."""

from __future__ import annotations

from typing import Any

import numpy as np

from workbook.episodes import CONTROL_RATE_HZ
from workbook.layout import ActionLayout
from workbook.plausibility import LIBERO_LATTICE

Card = dict[str, Any]
MUCH_CLIPPED = 0.2  # share of steps from which other units are likelier than a wild operator
SMALL_POSITION = 0.1  # controller units; LIBERO's reach 0.94, and 0.05 are 0.94 in metres
FAR_OUTSIDE = 0.1  # share of steps beyond LIBERO's 1 % to 99 % range
FAR_MEAN = 0.5  # published std
MANY_ZEROS = 0.25
CONVERTED = "converted to -1 open, +1 close, which is what the codec takes and gives back"


def remarks(card: Card) -> list[str]:
    """Sentences computed from the card: where it comes from, what was changed, what looks odd, how far from LIBERO."""
    layout = ActionLayout.parse(card["layout"])
    found = [_origin(card), *card["origin"]["notes"]]
    found += [*_copies(card), *_grippers(card), _noops(card), _clipping(card, layout)]
    found += [*_oddities(card, layout), *_rates(card), *_zeros(card, layout)]
    if card["published"]:
        found += _published(card["published"], layout)
    return found


def _origin(card: Card) -> str:
    origin = card["origin"]
    again = f" `--data {origin['name']}` reads the same again." if "@" in origin["name"] else ""
    return f"{card['episodes']:,} episodes of {card['steps']:,} steps, read as {origin['kind']}.{again}"


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
            "kept as recorded, and which end is open is not known"
            + ("; --gripper-open does not apply." if reading["given"] else ".")
        )
    recorded = f"The {name} was recorded as {{{low:g}, {high:g}}}"
    start = reading["starts_high"]
    if reading["given"]:
        why = f"the {reading['open_end']} end was said to be open"
    elif reading["open_end"] is None:
        why = f"{start:.0%} of the episodes begin at the high end, which does not tell; the low end is taken as open"
    else:
        share = start if reading["open_end"] == "high" else 1 - start
        why = f"{share:.0%} of the episodes begin at the {reading['open_end']} end, so that is open"
    done = CONVERTED if reading["changed"] else "kept: -1 open, +1 close"
    return f"{recorded}; {why}; {done}."


def _noops(card: Card) -> str:
    dropped = card["noops_dropped"]
    if not dropped:
        return f"Idle steps (no motion, gripper unchanged): {card['idle_share']:.1%}; they are kept."
    total = card["steps"] + dropped
    return f"{dropped:,} of {total:,} steps commanded nothing and were left out, by OpenVLA's rule."


def _clipping(card: Card, layout: ActionLayout) -> str:
    clipped = card["clipping"]
    limited = np.isfinite(layout.limit)
    if not limited.any():
        return "Nothing was clipped: joints are in units of their own."
    if not clipped["steps_any"]:
        aside = "" if limited.all() else ", joints aside, which never are"
        return f"No step left [-1, 1]; nothing was clipped{aside}."
    sentence = (
        f"{clipped['steps_any']:,} of {card['steps']:,} steps ({clipped['share_any']:.1%}) left [-1, 1] and were "
        f"clipped as the simulator does; the largest value was {np.array(clipped['largest'])[limited].max():.3g}."
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
    if not len(layout.indices("position", "rotation")):
        return []
    found = [_lattice(card, layout)]
    if card["fills_the_range"] and not card["clipping"]["steps_any"] and card["lattice"] is None:
        found.append(
            "Every motion dimension reaches exactly -1 and 1: these actions were normalised, or clipped before. If "
            "normalised, errors in mm and degrees are wrong, and every decoded action has to be brought back."
        )
    largest = np.array(card["clipping"]["largest"])[layout.indices("position")]
    if largest.size and 0 < largest.max() < SMALL_POSITION:
        found.append(
            f"No position command is larger than {largest.max():.2g}: likelier metres than controller units, in which "
            "1 is 50 mm; divide by 0.05, and rotation in radians by 0.5, or errors in mm and degrees are wrong."
        )
    if card["looks_absolute"]:
        found.append(
            "Positions creep from step to step and are never zero: they look like poses, not like deltas. LIBERO's "
            "controller takes deltas; errors in mm and drift would be wrong."
        )
    return found


def _lattice(card: Card, layout: ActionLayout) -> str:
    share = np.array(card["lattice_share"], dtype=float)
    means = {
        name: float(np.nanmean(group))
        for name in ("position", "rotation")
        if not np.isnan(group := share[layout.indices(name)]).all()
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
    if rates == [CONTROL_RATE_HZ]:
        return []
    if len(rates) == 1:
        return [f"Recorded at {rates[0]:g} steps a second; LIBERO's controller runs at {CONTROL_RATE_HZ:g}."]
    return [
        f"Recorded at different rates, {', '.join(f'{rate:g}' for rate in rates)} Hz: a delta means different speeds."
    ]


def _zeros(card: Card, layout: ActionLayout) -> list[str]:
    found = []
    if card["constant_dimensions"]:
        found.append(f"These dimensions never move: {', '.join(card['constant_dimensions'])}.")
    for kind in ("position", "rotation"):
        still = [entry for entry in card["still"] if entry["kind"] == kind]
        if still:
            found.append(_still(kind, still))
    named = {layout.names[i]: card["zero_share"][i] for i in layout.motion}
    many = [f"{name} {share:.0%}" for name, share in named.items() if share > MANY_ZEROS]
    if many:
        found.append(f"Exactly zero in more than a quarter of the steps: {', '.join(many)}.")
    return found


def _still(kind: str, entries: list[Card]) -> str:
    least, most = (f"{end(entry['share'] for entry in entries):.0%}" for end in (min, max))
    share = least if least == most else f"at least {least}"
    first = entries[0]["session"] or entries[0]["task"]
    among = "" if entries[0]["of"] == 1 else f" of {len(entries)} of {entries[0]['of']} recordings ({first}"
    among += ", ...)" if len(entries) > 1 and among else ")" if among else ""
    return (
        f"Your {kind} is exactly zero in {share} of the steps{among}: a codec fitted to them has hardly "
        f"seen any {kind}, and its error on a task with {kind} is not known from here."
    )


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
            f"Steps outside LIBERO's published 1 % to 99 % range (2 % there): {', '.join(outside)}; a codec fitted to "
            "LIBERO would clip or coarsen these."
        )
    return found
