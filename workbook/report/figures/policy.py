"""Small policies: error of their decoded actions by codec and decode rule, accuracy by layer."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.lines import Line2D

from workbook.common.wording import less_or_more, number
from workbook.evaluation.policy.network import RULES
from workbook.report.figures.style import BINS_COLOUR, COLOURS, KLT_COLOUR, Plot, canvas

Evidence = dict[str, Any]
RULE_LABELS = {"independent": "independent argmax", "by_layer": "layer by layer", "expected": "expected value"}
RULE_MARKERS = {"independent": "o", "by_layer": "s", "expected": "D"}
SUBJECT_COLOURS = {"naive": COLOURS["none"], "scale": COLOURS["scale"], "klt_rfsq": KLT_COLOUR}


def policies(phase2: Evidence) -> Plot:
    """Error of the decoded predicted action by codec and decode rule, for each amount of training data."""
    amounts = list(map(str, phase2["amounts"]))
    subjects = phase2["subjects"]
    with canvas(1, len(amounts), height=3.8, sharey=True) as c:
        for axis, amount in zip(c.axes, amounts, strict=True):
            for i, (key, subject) in enumerate(subjects.items()):
                for j, rule in enumerate(RULES):
                    if subject["layers"] == 1 and rule == "by_layer":
                        continue  # the same as an independent argmax
                    mse = subject["by_amount"][amount][rule]["errors"]["mse"]
                    spread = None if mse["low"] is None else [[mse["mean"] - mse["low"]], [mse["high"] - mse["mean"]]]
                    axis.errorbar(
                        [i + (j - 1) * 0.2], [mse["mean"]], yerr=spread, fmt=RULE_MARKERS[rule], capsize=3,
                        color=SUBJECT_COLOURS.get(key, BINS_COLOUR),
                    )  # fmt: skip
            reference = phase2["regression"][amount]["errors"]["mse"]["mean"]
            axis.axhline(reference, color="black", linewidth=1, linestyle=":")
            axis.set_xticks(
                range(len(subjects)), [s["title"].replace(", ", "\n", 1) for s in subjects.values()], fontsize=8
            )
            axis.set_xlabel(f"trained on {amount} episodes (dotted: regression)")
            axis.set_xlim(-0.5, len(subjects) - 0.5)
        c.axes[0].set_ylim(bottom=0)
        c.axes[0].set_ylabel("MSE of the decoded predicted action\n(normalised units squared)")
        c.axes[0].legend(handles=_rule_legend(), fontsize=8, loc="lower right")
        gain = phase2["contrasts"]["scale_for_naive"]["mean"]
        c.title = f"Predicted by a small policy, fixed-scale tokens have {less_or_more(gain)} error than naive ones"
        values = (
            f"{s['title']} {number(s['by_amount'][amounts[-1]][s['best_rule']]['errors']['mse']['mean'])}"
            for s in subjects.values()
        )
        c.description = f"At the best decode rule: {'; '.join(values)}."
        return c.finish()


def _rule_legend() -> list[Line2D]:
    return [
        Line2D([], [], color="0.3", linestyle="", marker=marker, label=RULE_LABELS[rule])
        for rule, marker in RULE_MARKERS.items()
    ]


def accuracies(phase2: Evidence) -> Plot:
    """Accuracy of each layer's tokens above what the commonest code gives."""
    most = str(phase2["amounts"][-1])
    subjects = phase2["subjects"]
    with canvas(height=3.4) as c:
        axis = c.axes[0]
        places: list[int] = []
        labels: list[str] = []
        for key, subject in subjects.items():
            entry = subject["by_amount"][most]
            for layer, majority in enumerate(subject["majority"]):
                at = (places[-1] + 1 if layer else places[-1] + 2) if places else 0
                places.append(at)
                labels.append(f"L{layer}" + (f"\n{subject['title'].split(',')[0]}" if layer == 0 else ""))
                colour = SUBJECT_COLOURS.get(key, BINS_COLOUR)
                axis.bar([at], [majority], color="0.85", width=0.8)
                for rule in ("independent", "by_layer"):
                    axis.plot(
                        [at],
                        [entry[rule]["accuracy"][layer]],
                        RULE_MARKERS[rule],
                        color=colour,
                        fillstyle="none" if rule == "by_layer" else "full",
                    )
        axis.set_xticks(places, labels, fontsize=8)
        axis.set_ylim(0, 1)
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axis.set_ylabel("share of tokens predicted right\n(grey: always the commonest code)")
        scale = subjects["scale"]
        gained = np.subtract(scale["by_amount"][most]["independent"]["accuracy"], scale["majority"])
        c.title = (
            f"Of fixed-scale tokens L0 is predicted {gained[0]:.0%} better than by guessing, the last {gained[-1]:.0%}"
        )
        c.description = "Accuracy by codec and layer; full markers: independent argmax, open squares: layer by layer."
        return c.finish()
