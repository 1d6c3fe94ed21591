"""Small policies: error of their decoded actions by codec and decode rule, accuracy by layer."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from workbook.codecs.catalogue import catalogue
from workbook.common.intervals import Estimate
from workbook.evaluation.evidence import Evidence
from workbook.evaluation.policy.evidence import FIXED_SCALE, PolicyEvidence
from workbook.evaluation.policy.network import JOINT_RULES, RULES, TOKEN_RULES
from workbook.report.figures.style import Plot, canvas
from workbook.report.text import words
from workbook.report.text.codecs import title

MARKERS = {"parallel_argmax": "o", "autoregressive": "s", "soft": "D", "joint_argmax": "^", "joint_soft": "v"}


def policies(run: Evidence) -> Plot:
    """Error of the decoded predicted action by codec and decode rule, for each training-set size."""
    said, policy = words("policy"), run.policy
    titles = [said.regression, *(title(*codec) for codec in policy.codecs)]
    sizes = policy.training_set_sizes
    with canvas(1, len(sizes), height=3.8, sharey=True) as c:
        for axis, size in zip(c.axes, sizes, strict=True):
            _errors(axis, policy, size)
            axis.set_xticks(range(len(titles)), [text.replace(", ", "\n", 1) for text in titles], fontsize=8)
            axis.set_xlabel(said.size_axis(size))
            axis.set_xlim(-0.5, len(titles) - 0.5)
        c.axes[0].set_ylim(bottom=0)
        c.axes[0].set_ylabel(said.mse_axis)
        legend = [
            Line2D([], [], color="0.3", linestyle="", marker=MARKERS[rule], label=said.rule_labels[rule])
            for rule in (*RULES, *JOINT_RULES)
            if any(rule in policy.rules(codec) for codec in policy.codecs)
        ]
        c.axes[0].legend(handles=legend, fontsize=8, loc="lower right")
        c.title = said.policies_title(policy.contrasts()["fixed_scale_for_naive"].mean)
        values = [(title(*codec), policy.best_error(codec).mean) for codec in policy.codecs]
        c.description = said.policies_description(policy.regression().mean, values)
        return c.finish()


def _errors(axis: Axes, policy: PolicyEvidence, size: int) -> None:
    _point(axis, 0, policy.regression(size), "*", "black")
    for i, codec in enumerate(policy.codecs, start=1):
        for j, rule in enumerate(policy.told_rules(codec)):
            colour = catalogue()[codec.codec].colour
            _point(axis, i + (j - 1) * 0.15, policy.error(codec, rule, size), MARKERS[rule], colour)
    axis.axhline(policy.regression(size).mean or 0.0, color="black", linewidth=1, linestyle=":")


def _point(axis: Axes, at: float, mse: Estimate, marker: str, colour: str) -> None:
    mean, ends = mse.mean or 0.0, (mse.low, mse.high)
    spread = None if None in ends else [[abs(end - mean)] for end in ends if end is not None]
    axis.errorbar([at], [mean], yerr=spread, fmt=marker, capsize=3, color=colour)


def accuracies(run: Evidence) -> Plot:
    """Accuracy of each layer's tokens above what the majority class gives."""
    said, policy = words("policy"), run.policy
    with canvas(height=3.4) as c:
        axis = c.axes[0]
        places: list[int] = []
        labels: list[str] = []
        for codec in policy.codecs:
            accuracy = {rule: policy.of_layers(codec, "accuracy", rule) for rule in TOKEN_RULES}
            for layer, majority in enumerate(policy.of_layers(codec, "majority_share")):
                at = places[-1] + (1 if layer else 2) if places else 0
                places.append(at)
                labels.append(f"L{layer}" + (f"\n{title(*codec).split(',')[0]}" if layer == 0 else ""))
                axis.bar([at], [majority], color="0.85", width=0.8)
                for rule, values in accuracy.items():
                    fill = "none" if rule == "autoregressive" else "full"
                    colour = catalogue()[codec.codec].colour
                    axis.plot([at], [values[layer]], MARKERS[rule], color=colour, fillstyle=fill)
        axis.set_xticks(places, labels, fontsize=8)
        axis.set_ylim(0, 1)
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axis.set_ylabel(said.accuracy_axis)
        scale = policy.of(FIXED_SCALE)
        gained = np.subtract(policy.of_layers(scale, "accuracy"), policy.of_layers(scale, "majority_share"))
        c.title = said.accuracies_title(float(gained[0]), float(gained[-1]))
        c.description = said.accuracies_description
        return c.finish()
