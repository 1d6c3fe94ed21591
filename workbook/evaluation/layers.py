"""The evidence of 04_residual_analysis: what each RFSQ layer gets, says and is worth."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfsq_robust import CONDITIONINGS
from workbook.codecs.protocol import Tokens, code_entropy
from workbook.codecs.rfsq import RFSQCodec, first_layers
from workbook.common import targets
from workbook.common.array import Array
from workbook.common.paths import OutputFolder
from workbook.common.wording import less_or_more, number
from workbook.data.dataset import Dataset
from workbook.evaluation.metrics import summarise
from workbook.evaluation.score import HeldOut, load_codecs

DEAD_BELOW_BITS = 0.01  # mean entropy of a layer's codes; below it the layer says nothing
ENOUGH_WITHIN = 0.05  # the first prefix whose MSE is within 5 % of all layers' is enough


def analyse(out: OutputFolder, dataset: Dataset, training: dict[str, Any]) -> dict[str, Any]:
    """Content of the residuals stage: conditioning -> per-layer figures, each with one row a seed."""
    test = HeldOut.of(dataset)
    codecs = load_codecs(out, training, dataset)
    return {name: analyse_model(codecs[name], test) for name in CONDITIONINGS}


def analyse_model(codecs: list[RFSQCodec], test: HeldOut) -> dict[str, Any]:
    """Per-layer figures of one conditioning on held-out episodes."""
    chunks, valid = test.chunks.actions, test.chunks.valid
    prefixes = [_prefix_metrics(codec, test) for codec in codecs]
    layers = len(prefixes[0])
    prefix_mse = [summarise([{"mse": seed[k]["mse"]} for seed in prefixes])["mse"].as_json() for k in range(layers)]
    tokens = [codec.encode(chunks) for codec in codecs]
    entropy = np.array([code_entropy(Tokens(seed.codes), valid).mean(axis=0) for seed in tokens])
    return {
        "residual_std": np.array([codec.residual_std(chunks[valid]) for codec in codecs]).tolist(),
        "entropy": entropy.tolist(),
        "entropy_max": float(np.log2(codecs[0].model.rfsq.num_levels)),
        "majority_share": np.array([majority_share(seed.codes[valid]) for seed in tokens]).tolist(),
        "dead_layers": [k for k in range(layers) if entropy[:, k].max() < DEAD_BELOW_BITS],
        "prefix_mse": prefix_mse,
        "prefix_needs_statistics": codecs[0].model.conditioning == "layernorm",
        "layers_enough": layers_enough([prefix["mean"] for prefix in prefix_mse]),
    }


def _prefix_metrics(codec: RFSQCodec, test: HeldOut) -> list[Any]:
    """Metrics after 1, 2, ... K layers; `layernorm` gets its statistics, or no prefix would mean anything."""
    with_statistics = RFSQCodec(codec.name, codec.model, codec.normaliser, "sent")
    tokens = with_statistics.encode(test.chunks.actions)
    layers = tokens.codes.shape[-1]
    return [test.measure(with_statistics.decode(first_layers(tokens, k + 1))) for k in range(layers)]


def majority_share(codes: NDArray[np.int64]) -> Array:
    """Share of each layer's codes that equal the most common code at their place: (steps, H, K) -> (K,).

    What a policy scores as token accuracy if it always answers with the most common code.
    """
    shares = np.stack([(codes == symbol).mean(axis=0) for symbol in range(int(codes.max()) + 1)])
    return shares.max(axis=0).mean(axis=0)


def layers_enough(prefix_mse: list[float]) -> int:
    """The fewest first layers whose MSE is within 5 % of that of all layers."""
    return next(k + 1 for k, mse in enumerate(prefix_mse) if mse <= prefix_mse[-1] * (1 + ENOUGH_WITHIN))


def discrepancies(comparison: dict[str, Any], residuals: dict[str, Any]) -> list[str]:
    """Where the guide's account and the measurement part ways, in sentences; agreement is said too."""
    std = {name: np.mean(entry["residual_std"], axis=0) for name, entry in residuals.items()}
    majority = {name: np.mean(entry["majority_share"], axis=0) for name, entry in residuals.items()}
    sentences = [_error_sentence(comparison["models"])]
    sentences += [_range_sentence(std["none"], layers, span) for layers, span in targets.EXPECTED_NAIVE_STD.items()]
    dead, layers = residuals["none"]["dead_layers"], len(residuals["none"]["prefix_mse"])
    if dead:
        sentences.append(
            f"The naive quantizer does not fade, it stops: {len(dead)} of {layers} layers ({_span(dead)}) always send "
            f"the same code. The residual after layer 0 lies within half a grid step, so every later layer rounds it "
            f"to the same value, and its std stays at {std['none'][1]:.3f}."
        )
        sentences.append(
            f"A policy that always answers with the most common code would score {majority['none'].mean():.1%} token "
            f"accuracy on naive tokens and {majority['scale'].mean():.1%} on those of 'scale': token accuracy cannot "
            "compare the two."
        )
    for name in ("layernorm", "scale"):
        entry = residuals[name]
        live = layers - len(entry["dead_layers"])
        sentences.append(
            f"'{name}' keeps {live} of {layers} layers alive; it needs {entry['layers_enough']} of them to come within "
            f"{ENOUGH_WITHIN:.0%} of its final MSE."
        )
    return sentences


def _error_sentence(models: dict[str, Any]) -> str:
    naive, robust = (models[name]["forward_mse"]["mean"] for name in ("none", "layernorm"))
    gain = models["layernorm"]["improvement_forward"]["mean"]
    tokens = models["layernorm"]["token_mse"]["mean"]
    return (
        f"The guide expects an MSE of {targets.EXPECTED_NAIVE_MSE:g} for naive and {targets.EXPECTED_MSE:g} for "
        f"LayerNorm, {targets.EXPECTED_IMPROVEMENT:.1%} less. In forward, which is how it measures, they are "
        f"{number(naive)} and {number(robust)}, {less_or_more(gain)}; from tokens alone LayerNorm's is "
        f"{number(tokens)}."
    )


def _range_sentence(std: Array, layers: tuple[int, ...], span: tuple[float, float]) -> str:
    measured = std[[k for k in layers if k < len(std) - 1]]
    name = f"L{layers[0]}-L{layers[-1]}"
    if not len(measured):
        return f"The guide speaks of the naive residual in {name}; this model has no such layers."
    low, high = span
    inside = [low <= value <= high for value in measured]
    word = "as measured" if all(inside) else "not as measured" if not any(inside) else "in part as measured"
    return (
        f"The guide expects a naive residual std of {low:g} to {high:g} in {name}: {word}, "
        f"{measured.min():.3f} to {measured.max():.3f}."
    )


def _span(layers: list[int]) -> str:
    whole = layers == list(range(layers[0], layers[-1] + 1)) and len(layers) > 1
    return f"L{layers[0]}-L{layers[-1]}" if whole else ", ".join(f"L{k}" for k in layers)
