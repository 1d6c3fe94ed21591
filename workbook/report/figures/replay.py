"""Replays in the simulator: success against bits, how far the hand strays, and its path seen from above."""

from __future__ import annotations

from textwrap import wrap
from typing import Any

import numpy as np

from workbook.common.intervals import LEVEL
from workbook.evaluation.replay.evidence import SHOWN
from workbook.evaluation.replay.predictors import PREDICTORS
from workbook.report.figures.rate_distortion import LOOKS
from workbook.report.figures.style import COLOURS, Plot, canvas
from workbook.training.baselines import FAMILIES

Evidence = dict[str, Any]
ALL_LOOKS = {"layernorm": (COLOURS["layernorm"], "X-"), **LOOKS}
TITLES = {"layernorm": "RFSQ layernorm, a step"} | {name: family.title for name, family in FAMILIES.items()}


def _look(entry: Evidence) -> tuple[str, str]:
    return ALL_LOOKS[entry["family"]]


def success_against_bits(replay: Evidence) -> Plot:
    """Share of episodes that still succeed, against the bits of a chunk: upper left is better."""
    with canvas(height=4.6) as c:
        axis = c.axes[0]
        for family, (colour, line) in ALL_LOOKS.items():
            entries = [e for e in replay["codecs"].values() if e["family"] == family and e["played"]]
            if not entries:
                continue
            entries.sort(key=lambda entry: entry["bits"])
            bits = [entry["bits"] for entry in entries]
            rates = np.array([[entry["success"][end] for entry in entries] for end in ("low", "mean", "high")])
            style = line.replace("-", "") + ("" if family == "layernorm" else line[1:])
            axis.errorbar(
                bits, rates[1], yerr=[rates[1] - rates[0], rates[2] - rates[1]], fmt=style, color=colour,
                markersize=4, linewidth=1.2, elinewidth=0.6, capsize=2, label=TITLES[family],
            )  # fmt: skip
        axis.axhline(1.0, color="black", linewidth=1, linestyle=":")
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axis.set_ylim(-0.03, 1.05)
        axis.set_xlabel("bits a chunk (upper left is better; dotted: the recorded actions)")
        axis.set_ylabel("episodes that succeed when replayed\n(95 % exact interval)")
        axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
        c.title = _success_title(replay)
        c.description = "; ".join(
            f"{e['title']}: {e['succeeded']} of {e['played']} at {e['bits']:,.0f} bits"
            for e in replay["codecs"].values()
        )
        return c.finish()


def _success_title(replay: Evidence) -> str:
    """The cheapest codec of which it is not shown that it loses episodes, and not the luckiest one."""
    good = [e for e in replay["codecs"].values() if e["played"] and e["mcnemar_p_against_exact"] > 1 - LEVEL]
    if not good:
        return "Every codec's tokens are shown to lose episodes that succeed exactly"
    least = min(good, key=lambda entry: entry["bits"])
    return (
        f"The fewest bits without a shown loss against exact replay: {least['bits']:,.0f} a chunk, "
        f"{least['succeeded']} of {least['played']}"
    )


def drift(replay: Evidence) -> Plot:
    """How far the hand is from where the exact replay has it, as episodes go on."""
    with canvas(1, 2, height=3.6) as c:
        for axis, key, unit in zip(c.axes, ("position_mm", "rotation_deg"), ("mm", "degrees"), strict=True):
            for name in SHOWN:
                entry = replay["codecs"].get(name)
                if entry is None or not entry["drift"]["progress"]:
                    continue
                colour, line = _look(entry)
                axis.plot(entry["drift"]["progress"], entry["drift"][key], line, color=colour, markersize=3,
                          label=entry["title"])  # fmt: skip
                axis.plot(entry["drift"]["progress"], entry["drift"][f"{key}_p90"], ":", color=colour, linewidth=0.8)
            axis.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
            axis.set_ylim(bottom=0)
            axis.set_xlabel("part of the episode that has been played")
            axis.set_ylabel(f"hand off exact replay, {unit}\n(median; dotted: 90th percentile)")
        c.axes[0].legend(fontsize=8)
        shown = (replay["codecs"][name] for name in SHOWN if name in replay["codecs"])
        ends = [
            f"{e['drift']['position_mm'][-1]:.0f} mm off from {e['title']}" for e in shown if e["drift"]["progress"]
        ]
        c.title = f"In the median the hand ends {' and '.join(ends[:2])}" if ends else "No replay to show"
        c.description = f"Median distance at the end: {', '.join(ends)}."
        return c.finish()


def paths(replay: Evidence) -> Plot:
    """Strips of the hand's path from above, decoded over exact: a row an episode, a column a codec."""
    rows = replay["paths"]
    names = list(dict.fromkeys(name for row in rows for name in row["decoded"]))
    with canvas(max(len(rows), 1), max(len(names), 1), height=2.1 * max(len(rows), 1) + 0.6) as c:
        for number, row in enumerate(rows):
            exact = np.array(row["exact"])
            for axis, name in zip(c.axes[number * len(names) :], names, strict=False):
                axis.plot(*exact.T, color="0.75", linewidth=3)
                decoded = row["decoded"].get(name)
                if decoded:
                    entry = replay["codecs"][name]
                    path = np.array(decoded["path"])
                    axis.plot(*path.T, color=_look(entry)[0], linewidth=1.2)
                    axis.plot(*path[-1], "o" if decoded["succeeded"] else "x", color=_look(entry)[0], markersize=6)
                    word = "succeeds" if decoded["succeeded"] else "fails"
                    axis.set_title("\n".join([*wrap(entry["title"], 24), word]), fontsize=7)
                axis.set_aspect("equal", adjustable="datalim")
                axis.tick_params(labelsize=7)
            c.axes[number * len(names)].set_ylabel("\n".join(wrap(row["task"], 26)), fontsize=7)
        c.title = "Paths of the hand in the episodes that most codecs fail, seen from above, mm (grey: exact replay)"
        c.description = " ".join(
            f"{row['task']}: " + ", ".join(
                f"{replay['codecs'][name]['title']} {'succeeds' if decoded['succeeded'] else 'fails'}"
                for name, decoded in row["decoded"].items()
            ) + "."
            for row in rows
        )  # fmt: skip
        return c.finish()


def predictors(replay: Evidence) -> Plot:
    """How well each error that needs no simulator tells failed replays from others."""
    found = replay["predictors"]
    rows = {name: row["auc"] for name, row in found.get("rows", {}).items() if row["auc"]["mean"] is not None}
    ordered = sorted(rows, key=lambda name: rows[name]["mean"])
    with canvas(height=0.4 * max(len(ordered), 2) + 1.2) as c:
        axis = c.axes[0]
        for place, name in enumerate(ordered):
            auc = rows[name]
            colour = COLOURS["scale"] if name == found["best"] else COLOURS["none"]
            axis.errorbar([auc["mean"]], [place], xerr=[[auc["mean"] - auc["low"]], [auc["high"] - auc["mean"]]],
                          fmt="o", color=colour, capsize=3)  # fmt: skip
        axis.axvline(0.5, color="black", linewidth=1, linestyle="--")
        axis.set_yticks(range(len(ordered)), [PREDICTORS[name] for name in ordered], fontsize=8)
        axis.set_xlabel("chance that a failed replay has the larger error (dashed: says nothing)")
        best = found.get("best")
        c.title = f"What tells failed replays best: {PREDICTORS[best]}" if best else "No replay failed, or all did"
        c.description = "; ".join(f"{PREDICTORS[name]} {rows[name]['mean']:.2f}" for name in reversed(ordered))
        return c.finish()
