"""What speaks against the robust RFSQ, and what qualifies the result: sentences computed from the evidence."""

from __future__ import annotations

from typing import Any

from workbook.criteria import DEPLOYABLE_MODEL, GUIDE_MODEL, MODEL_TITLES

Evidence = dict[str, Any]


def against(comparison: Evidence, residuals: Evidence | None = None) -> list[str]:
    """Failures first, then what the figures do not say."""
    models, baselines = comparison["models"], comparison["baselines"]
    found = []
    guide = models[GUIDE_MODEL]
    if guide["decode_error"] > 0:
        sent = guide["with_statistics"]
        found.append(
            f"The {MODEL_TITLES[GUIDE_MODEL]} needs the mean and std of every vector of every layer to decode. Sent as "
            f"float16 they cost {sent['bits']['side']:,.0f} bits a chunk besides the "
            f"{guide['bits']['per_chunk']:,.0f} of the codes, and the MSE is then {sent['token_mse']['mean']:.2g}."
        )
    found += [_cheaper(MODEL_TITLES[name], models[name], baselines) for name in ("none", DEPLOYABLE_MODEL)]
    if residuals:
        found += _layers_to_spare(models, residuals)
    kept = models[DEPLOYABLE_MODEL]["token_errors"]["zeros_kept"]["mean"]
    if kept is not None:
        found.append(
            f"Of the motion commands that are exactly zero, the {MODEL_TITLES[DEPLOYABLE_MODEL]} gives back "
            f"{kept:.1%} as exactly zero. The controller holds an orientation on an exact zero and resets it on a "
            "small value."
        )
    found.append(
        "Mean squared error does not rank task success: it is blind to error that accumulates. The drift of the "
        "accumulated motion stands beside it; success itself was not measured."
    )
    return [sentence for sentence in found if sentence]


def _cheaper(title: str, entry: Evidence, baselines: Evidence) -> str:
    """The cheapest plain rounding that has less error than this model."""
    better = [
        (baseline["bits"]["per_chunk"], name)
        for name, baseline in baselines.items()
        if baseline["token_mse"]["mean"] < entry["token_mse"]["mean"]
        and baseline["bits"]["per_chunk"] < entry["bits"]["per_chunk"]
    ]
    if not better:
        return ""
    bits, name = min(better)
    mine = entry["bits"]["per_chunk"]
    return (
        f"Rounding each number to {name.removeprefix('bins')} equal bins has less error than the {title} "
        f"({baselines[name]['token_mse']['mean']:.2g} against {entry['token_mse']['mean']:.2g}) at "
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
            f"5 %, with {bits:,.0f} bits a chunk: the other {layers - enough} would only be harder to predict."
        )
    return found
