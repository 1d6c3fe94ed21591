"""What speaks against the robust RFSQ, and what qualifies the result: sentences computed from the evidence."""

from __future__ import annotations

from typing import Any

from workbook.common import targets
from workbook.common.wording import equal_bins, number
from workbook.evaluation.score import cheaper_rounding
from workbook.verdict.criteria import DEPLOYABLE_MODEL, GUIDE_MODEL, MODEL_TITLES
from workbook.verdict.success import mse_and_success

Evidence = dict[str, Any]
ORIENTATION = " The controller holds an orientation on an exact zero and resets it on a small value."


def against(comparison: Evidence, residuals: Evidence | None = None, replay: Evidence | None = None) -> list[str]:
    """Failures first, then what the figures do not say."""
    models, baselines = comparison["models"], comparison["baselines"]
    found = []
    proposal, naive = models[GUIDE_MODEL], models["none"]
    if proposal["decode_error"] > 0:
        sent = proposal["with_statistics"]
        found.append(
            f"The {MODEL_TITLES[GUIDE_MODEL]} needs the mean and std of every vector of every layer to decode. Sent as "
            f"float16 they cost {sent['bits']['side']:,.0f} bits a chunk besides the "
            f"{proposal['bits']['per_chunk']:,.0f} of the codes; the MSE is then {number(sent['token_mse']['mean'])}."
        )
    if naive["token_mse"]["mean"] < targets.MSE_BELOW:
        found.append(
            f"The target of an MSE below {targets.MSE_BELOW:g} tells nothing apart here: naive meets it too, with "
            f"{number(naive['token_mse']['mean'])}."
        )
    found += [_cheaper(MODEL_TITLES[name], models[name], baselines) for name in ("none", DEPLOYABLE_MODEL)]
    if residuals:
        found += _layers_to_spare(models, residuals)
    kept = {name: models[name]["token_errors"]["zeros_kept"]["mean"] for name in ("none", DEPLOYABLE_MODEL)}
    turns = models[DEPLOYABLE_MODEL]["token_errors"]["rotation_deg"]["mean"] is not None
    if kept[DEPLOYABLE_MODEL] is not None:
        found.append(
            f"Of the motion commands that are exactly zero, the {MODEL_TITLES[DEPLOYABLE_MODEL]} gives back "
            f"{kept[DEPLOYABLE_MODEL]:.1%} as exactly zero, naive {kept['none']:.1%}.{ORIENTATION if turns else ''}"
        )
    drift = models[DEPLOYABLE_MODEL]["token_errors"]["drift_mm"]["mean"]
    told = mse_and_success(replay) if replay else ""
    beside = "" if drift is None else "The drift of the accumulated motion stands beside it; "
    found.append(
        "Mean squared error is blind to error that accumulates. "
        f"{told or beside + ('success' if beside else 'Success') + ' itself was not measured.'}"
    )
    return [sentence for sentence in found if sentence]


def _cheaper(title: str, entry: Evidence, baselines: Evidence) -> str:
    """The cheapest plain rounding that has less error than this model."""
    name = cheaper_rounding(entry, baselines)
    if name is None:
        return ""
    bits = baselines[name]["bits"]["per_chunk"]
    mine = entry["bits"]["per_chunk"]
    return (
        f"{equal_bins(name).capitalize()} has less error than the {title} "
        f"({number(baselines[name]['token_mse']['mean'])} against {number(entry['token_mse']['mean'])}) at "
        f"{bits:,.0f} bits a chunk instead of {mine:,.0f}."
    )


def _layers_to_spare(models: Evidence, residuals: Evidence) -> list[str]:
    found = []
    dead = residuals["none"]["dead_layers"]
    layers = len(residuals["none"]["prefix_mse"])
    if dead:
        found.append(
            f"{len(dead)} of {layers} naive layers always send the same code: naive pays "
            f"{models['none']['bits']['per_chunk']:,.0f} bits a chunk for {models['none']['bits']['entropy']:,.0f} "
            "bits of entropy, so naive at this setting is a weak opponent."
        )
    enough = residuals[DEPLOYABLE_MODEL]["layers_enough"]
    if enough < layers:
        bits = models[DEPLOYABLE_MODEL]["bits"]["per_chunk"] * enough / layers
        found.append(
            f"The first {enough} of {layers} layers of the {MODEL_TITLES[DEPLOYABLE_MODEL]} reach its MSE to within "
            f"5 %, with {bits:,.0f} bits a chunk: the other {layers - enough} add tokens and hardly any accuracy."
        )
    return found
