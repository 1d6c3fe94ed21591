"""Figures of a comparison made up by hand, every criterion met, to be changed one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rfsq_robust import CONDITIONINGS
from workbook.data.layout import LIBERO
from workbook.report.tables import comparison as tables
from workbook.verdict.criteria import Criterion, decide, evaluate

Evidence = dict[str, Any]
LAYERS = 4
ERRORS = [key for key, _ in tables.PHYSICAL] + [f"mse_{name}" for name in LIBERO.names]


def estimate(mean: float, around: float | None = 0.0, seeds: int = 5) -> Evidence:
    low, high = (None, None) if around is None else (mean - around, mean + around)
    return {"mean": mean, "low": low, "high": high, "per_seed": [mean] * seeds}


def bits(per_chunk: float, entropy: float | None = None, side: float = 0.0) -> Evidence:
    return {"per_chunk": per_chunk, "side": side, "entropy": per_chunk if entropy is None else entropy}


def model_entry(token: float, forward: float, decode_error: float, gain: float) -> Evidence:
    return {
        "seeds": [0, 1, 2, 3, 4],
        "token_mse": estimate(token),
        "forward_mse": estimate(forward),
        "improvement_tokens": estimate(gain),
        "improvement_forward": estimate(gain),
        "decode_error": decode_error,
        "checkpoints": {"files": ["a"] * 5, "loaded_and_identical": 5, "of": 5},
        "checkpoint_bytes": 20_000,
        "train_seconds": [3.0] * 5,
        "overhead": estimate(0.02, 0.01, seeds=60),
        "bits": bits(2875.0),
        "token_errors": {key: estimate(0.5) for key in ERRORS},
    }


def passing_comparison() -> Evidence:
    """Every criterion is met, of the guide's proposal too, and no rounding is better."""
    models = {name: model_entry(1e-4, 1e-4, 0.0, 0.9) for name in CONDITIONINGS}
    models["none"] = model_entry(0.02, 0.02, 0.0, 0.0)
    models["layernorm"]["with_statistics"] = {
        "token_mse": estimate(1e-4),
        "token_errors": {key: estimate(0.5) for key in ERRORS},
        "bits": bits(4923.0, side=2048.0),
    }
    for name in ("none", "layernorm"):
        models[name]["refitted"] = {
            "token_mse": estimate(5e-4),
            "improvement": estimate(0.7),
            "bits": bits(2875.0),
            "token_errors": {key: estimate(0.5) for key in ERRORS},
        }
    baselines = {
        f"bins{count}": {
            "token_mse": estimate(mse),
            "bits": bits(per_chunk),
            "token_errors": {key: estimate(0.5) for key in ERRORS},
        }
        for count, mse, per_chunk in ((16, 0.05, 224.0), (64, 0.03, 336.0), (256, 0.025, 448.0))
    }
    return {
        "test_episodes": 28,
        "test_steps": 5000,
        "layout": LIBERO.spec,
        "models": models,
        "baselines": baselines,
    }


def residual_entry(dead: Sequence[int] = (), enough: int = LAYERS, std: Sequence[float] | None = None) -> Evidence:
    values = list(std) if std else [0.3, 0.1, 0.03, 0.01, 0.003]
    layers = len(values) - 1
    return {
        "residual_std": [values, values],
        "entropy": [[0.0 if k in dead else 2.0 for k in range(layers)]] * 2,
        "entropy_max": 2.8,
        "majority_share": [[1.0 if k in dead else 0.3 for k in range(layers)]] * 2,
        "dead_layers": list(dead),
        "prefix_mse": [estimate(0.1 / (k + 1)) for k in range(layers)],
        "prefix_needs_statistics": False,
        "layers_enough": enough,
    }


def some_residuals(**naive: Any) -> Evidence:
    return {name: residual_entry() for name in CONDITIONINGS} | {"none": residual_entry(**naive)}


def says(sentences: Sequence[str], *words: str) -> bool:
    return any(all(word in sentence for word in words) for sentence in sentences)


def judged(comparison: Evidence, missing: Sequence[str] = ()) -> tuple[list[Criterion], Evidence]:
    criteria = evaluate(comparison)
    return criteria, decide(criteria, comparison, list(missing))
