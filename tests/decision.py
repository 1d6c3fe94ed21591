"""Figures that the recommendation is made from, made up by hand: A and B are not met, and the codec does not limit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evidence import Evidence, estimate

from workbook.evaluation.policy.network import RULES
from workbook.verdict.recommendation import SHOWN_RATE

CONTRASTS = {
    "new_for_naive": 0.02,
    "new_rule": 0.2,
    "scale_for_naive": 0.01,
    "klt_rfsq_for_naive": 0.03,
    "retrained_decoder": 0.01,
    "naive_rule": 0.02,
    "codec_share": 0.04,
    "regression_for_naive": 0.1,
    "scale_by_layer": 0.15,
    "scale_expected": 0.2,
    "scale_for_naive_independent": -0.1,
    "scale_for_naive_by_layer": 0.07,
    "scale_for_naive_expected": 0.03,
}
FEW, MOST = 20, 84
LIVE = 2  # layers of every subject
POLICY_ERRORS = {"naive": 0.1, "scale": 0.08, "klt_rfsq": 0.07, "bins64": 0.09}
TITLES = {
    "naive": "naive, 2 live layers of 4",
    "scale": "scale, 2 layers",
    "klt_rfsq": "KLT-RFSQ, 36 residual codes",
    "bins64": "64 bins",
}
TOKENS = {"naive": 256, "scale": 256, "klt_rfsq": 37, "bins64": 56}


def figures(mse: float) -> Evidence:
    """What a policy's predictions are worth."""
    other = {key: estimate(0.5) for key in ("position_mm", "rotation_deg", "gripper_error_rate", "drift_mm")}
    return {"errors": {"mse": estimate(mse), "joint_length": estimate_of_nothing(), **other}, "validation_mse": mse}


def estimate_of_nothing() -> Evidence:
    return {"mean": None, "low": None, "high": None, "per_seed": []}


def contrast(low: float, high: float) -> Evidence:
    return {"mean": (low + high) / 2, "low": low, "high": high, "per_seed": [(low + high) / 2] * 5}


def tokens_of(mse: float) -> Evidence:
    """The same of a rule that gives tokens."""
    said = {"accuracy": [0.6, 0.4], "accuracy_per_seed": [[0.6, 0.4]] * 5}
    return figures(mse) | said | {"bits_per_layer": [200.0, 100.0], "bits_per_chunk": [300.0] * 5}


def subject(key: str, best_rule: str = "expected", keep: int = 1) -> Evidence:
    mse = POLICY_ERRORS[key]
    by_rule = {rule: figures(mse) if rule == "expected" else tokens_of(mse) for rule in RULES}
    if key == "naive":
        by_rule |= {f"{rule}, retrained": figures(mse * 0.99) for rule in RULES}
    return {
        "title": TITLES[key],
        "layers": LIVE,
        "weights": 110_000,
        "tokens_per_chunk": TOKENS[key],
        "codec_mse": estimate(0.002),
        "majority": [0.5, 0.3],
        "entropy": [2.0, 1.5],
        "best_rule": best_rule,
        "layers_to_keep": keep,
        "by_amount": {str(amount): dict(by_rule) for amount in (FEW, MOST)},
        "by_layers": {rule: [estimate(mse)] * LIVE for rule in RULES},
    }


def some_phase2(**contrasts: Evidence) -> Evidence:
    """contrasts: what is to differ from those above, all within 0.005 of their mean."""
    known = {name: estimate(mean, 0.005) for name, mean in CONTRASTS.items()}
    assert contrasts.keys() <= known.keys()
    agreement = {"mean": [0.8, 0.6], "per_seed": [[0.8, 0.6]] * 5}
    return {
        "config": {"steps": 400, "batch_size": 64, "width": 128},
        "amounts": [FEW, MOST],
        "tasks": 2,
        "seeds": 5,
        "regression": {str(amount): figures(0.09) for amount in (FEW, MOST)},
        "subjects": {key: subject(key) for key in TITLES},
        "new_codec": "scale",
        "draft": {key: {"independent": agreement, "by_layer": agreement} for key in ("naive", "scale")},
        "contrasts": {"episodes": MOST} | known | contrasts,
    }


def some_option_b(retrained: Evidence | None = None, scale_decoder: Evidence | None = None) -> Evidence:
    """What is given is the gain over naive's own decoder."""

    def row(title: str, mse: float, gain: Evidence) -> Evidence:
        return {"title": title, "mse": estimate(mse, mse / 10), "errors": {}, "less_than_naive": gain}

    rows = {
        "naive": row("naive tokens, naive decoder", 0.002, estimate(0.0)),
        "scale_decoder": row("naive tokens, scale's decoder", 0.5, scale_decoder or estimate(-250.0, 10.0)),
        "layernorm_decoder": row("naive tokens, layernorm's decoder", 0.6, estimate(-300.0, 10.0)),
        "retrained": row("naive tokens, naive decoder trained on", 0.0018, retrained or estimate(0.1, 0.02)),
        "retrained_chunk": row("naive tokens, decoder of whole chunks", 0.001, estimate(0.5, 0.02)),
        "scale": row("scale tokens, scale's decoder", 4e-5, estimate(0.98, 0.01)),
    }
    return {"rows": rows, "files": ["seeds/none_seed0_retrained.pt"], "best": "rfsq_best_retrained_decoder.pt"}


def some_rates(gain: Mapping[str, Any] | None = None, family: str | None = "klt_rfsq") -> Evidence:
    side = {"family": family, "mse": 0.01, "less_than_fast": gain or estimate(0.2, 0.01)}
    rows = [{"rate": rate, "fast": 0.0125, "rfsq": side, "rfsq_fixed": side} for rate in (SHOWN_RATE - 20, SHOWN_RATE)]
    return {"codecs": [], "against_fast": rows, "gaussian": [], "smallest": {"guide": None, "any": None}}
