"""Rows made up by hand, as evaluation yields them, to be changed one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from workbook.codecs.catalogue import CONDITIONED
from workbook.common.intervals import Estimate
from workbook.data.layout import LIBERO
from workbook.evaluation.evidence import Evidence
from workbook.evaluation.layers import Layers
from workbook.evaluation.score import ENCODER, TOKENS, Scores

SEEDS, EPISODES, STEPS, LAYERS = 5, 28, 80, 4
# Of a data card.
NOTHING_ODD: dict[str, Any] = {
    "left_out": [], "outliers": {"count": 0, "first": [], "clipped": False}, "doubts": [], "doubts_accepted": False,
    "trembling": [], "chunks": {"length": 8},
}  # fmt: skip
METRICS = (
    "relative_mse", "position_mm", "rotation_deg", "joint_length", "gripper_abs", "gripper_error_rate",
    "gripper_on_time", "gripper_shift_steps", "max_abs", "drift_mm", "drift_deg", "peak_drift_mm", "switch_drift_mm",
    "zeros_kept", *(f"mse_{name}" for name in LIBERO.names),
)  # fmt: skip


def rows(
    codec: str, mse: float, setting: str = f"layers={LAYERS}", decoding: str = TOKENS, bits: float = 2875.0,
    seeds: int = SEEDS, episodes: int = EPISODES, spread: float = 0.0, side_bits: float = 0.0, **metrics: float,
) -> pd.DataFrame:  # fmt: skip
    """Rows of one codec, alike in every episode but for `spread`, by which the mse rises from first to last."""
    frame = pd.DataFrame(
        [(seed, episode) for seed in range(seeds) for episode in range(episodes)], columns=["seed", "at"]
    )
    frame["episode"] = [f"made_up.hdf5, demo_{at}" for at in frame["at"]]
    frame = frame.assign(codec=codec, setting=setting, decoding=decoding, part="test", task="put it there")
    frame = frame.assign(
        compared=f"layers={LAYERS}" == setting or codec == "bins", measured="layers" in setting or codec == "bins"
    )
    share = np.linspace(-0.5, 0.5, episodes)
    frame["mse"] = mse * (1 + spread * share[frame.pop("at")])
    costs = {
        "bits": bits,
        "side_bits": side_bits,
        "tokens": bits / 2.8,
        "entropy_bits": bits,
        "vocabulary": 7,
        "chunks": 10,
    }
    weights = {"steps": STEPS, "switches": 2, "switch_steps": 2, "zeros": 40}
    return frame.assign(**dict.fromkeys(METRICS, 0.5) | metrics | costs | weights)


def passing_scores(**mse: float) -> Scores:
    """Every criterion is met, of the guide's proposal too, and no rounding is better; mse: what is to differ."""
    known = {"naive": 0.02} | {name: 1e-4 for name in CONDITIONED.values() if name != "naive"}
    known |= {"layernorm_sent": 1e-4, "naive_refitted": 5e-4, "layernorm_refitted": 5e-4}
    known |= {"naive_by_fixed_scale": 5.0, "naive_by_layernorm": 6.0}
    known |= {"naive_by_retrained": 0.018, "naive_by_chunk_decoder": 0.01}
    known |= mse
    frames = [rows(name, value) for name, value in known.items() if name != "layernorm_sent"]
    frames += [rows(name, known[name], decoding=ENCODER) for name in CONDITIONED.values()]
    frames += [rows("layernorm_sent", known["layernorm_sent"], bits=4923.0, side_bits=2048.0)]
    frames += [
        rows(WITH.get(name, name), known[name] * 2**(LAYERS - k), f"layers={k}", bits=2875.0 * k / LAYERS)
        for name in CONDITIONED.values()
        for k in range(1, LAYERS)
    ]  # fmt: skip
    frames += [
        rows("bins", value, f"bins={count}", bits=bits, seeds=1)
        for count, value, bits in ((16, 0.05, 224.0), (64, 0.03, 336.0), (256, 0.025, 448.0))
    ]
    return Scores(pd.concat(frames, ignore_index=True))


def fast_rows(
    codec: str, setting: str, mse: ArrayLike, fast: Mapping[str, ArrayLike], bits: float = 60.0, seeds: int = 1
) -> pd.DataFrame:
    """A codec beside FAST-style tokens; mse: of both episodes, the second with three times the steps; fast: by side."""
    frames = []
    for side, values in {"codec": mse, **fast}.items():
        count = seeds if side == "codec" else 1
        frame = pd.DataFrame({"seed": np.repeat(range(count), 2), "episode": ["demo_0", "demo_1"] * count})
        frame = frame.assign(mse=np.broadcast_to(values, (count, 2)).ravel(), steps=[10.0, 30.0] * count)
        frames.append(frame.assign(side=side, scale=0.0 if side == "codec" else 5.0))
    kept = {"task": "put it there", "codec": codec, "setting": setting, "bits": bits, "words": bits / 10}
    return pd.concat(frames, ignore_index=True).assign(**kept)


WITH = {"layernorm": "layernorm_sent"}


def with_rows(scores: Scores, *frames: pd.DataFrame) -> Scores:
    """Scores with these rows in place of those of the same codec, setting and decoding."""
    keys = ["codec", "setting", "decoding"]
    new = pd.concat(frames, ignore_index=True)
    kept = ~pd.MultiIndex.from_frame(scores.rows[keys]).isin(pd.MultiIndex.from_frame(new[keys]))
    return Scores(pd.concat([scores.rows[kept], new], ignore_index=True))


def layer_rows(
    dead: Mapping[str, Sequence[int]] | None = None,
    layers: int = LAYERS,
    seeds: int = SEEDS,
    std: Sequence[float] = (),
) -> pd.DataFrame:
    """Residuals of a given std, or that shrink threefold a layer; codes of dead layers are always the same."""
    found = []
    for name in CONDITIONED.values():
        gone = (dead or {}).get(name, ())
        for seed in range(seeds):
            for layer in range(layers + 1):
                last = layer == layers
                entropy, majority = (np.nan, np.nan) if last else ((0.0, 1.0) if layer in gone else (2.0, 0.3))
                found.append((name, seed, layer, std[layer] if std else 0.3 / 3**layer, entropy, majority))
    return pd.DataFrame(found, columns=["codec", "seed", "layer", "residual_std", "entropy_bits", "majority_share"])


def model_rows(seeds: int = SEEDS) -> pd.DataFrame:
    return pd.DataFrame([
        {
            "codec": name, "seed": seed, "decode_error": 9.0 if name == "layernorm" else 0.0, "loaded_identical": True,
            "bytes": 20_000, "train_seconds": 3.0, "file": f"seeds/{name}_seed{seed}.pt",
        }
        for name in CONDITIONED.values()
        for seed in range(seeds)
    ])  # fmt: skip


def training_values(epochs: int = 100, seeds: int = SEEDS, overhead: Estimate | None = None) -> dict[str, Any]:
    """What 02_train_robust leaves behind that is no row; overhead: that of every conditioning."""
    over_naive = overhead or Estimate(0.02, 0.01, 0.03, (0.02,) * 60)
    runs = [{"seed": seed} for seed in range(seeds)]
    return {
        "config": {"epochs": epochs},
        "device": "cpu",
        "conditionings": {name: {"overhead": over_naive.as_json(), "runs": runs} for name in CONDITIONED},
    }


def curve_rows(*curves: Sequence[float], codec: str = "layernorm") -> pd.DataFrame:
    """Validation errors of one codec, a curve for each seed, from epoch 1 on."""
    shown = curves or ([0.01] * 100,) * 2
    found = [(codec, seed, at + 1, mse) for seed, curve in enumerate(shown) for at, mse in enumerate(curve)]
    return pd.DataFrame(found, columns=["codec", "seed", "epoch", "validation_mse"])


@dataclass(frozen=True)
class MadePolicy:
    """Small policies: accuracy of each live layer, and what the majority class would get; gains over naive."""

    accuracies: tuple[float, ...] = (0.6, 0.4)
    majorities: tuple[float, ...] = (0.5, 0.3)
    gains: Mapping[str, Estimate] = field(default_factory=lambda: {"fixed_scale_for_naive": Estimate(0.1, 0.05, 0.15)})

    def accuracy(self, codec: str, rule: str) -> list[float]:
        return list(self.accuracies)

    def majority(self, codec: str) -> list[float]:
        return list(self.majorities)

    def contrasts(self) -> Mapping[str, Estimate]:
        return self.gains


@dataclass(frozen=True)
class MadeContrast:
    difference: Estimate
    episodes: int


@dataclass(frozen=True)
class MadeReplays:
    """Replays, none unless gains are given: gain in success over naive, by the episodes that it is among."""

    gains: Mapping[str, MadeContrast] = field(default_factory=dict)
    shortfalls: tuple[str, ...] = ()

    @property
    def played(self) -> bool:
        return bool(self.gains)

    def contrast(self, codec: str, among: str) -> MadeContrast:
        return self.gains[among]


class MadeUp(Evidence):
    """Evidence with tables that are in no file."""

    def __init__(self, folder: str, tables: Mapping[str, pd.DataFrame]) -> None:
        super().__init__(folder)
        self.tables = dict(tables)

    def table(self, name: str) -> pd.DataFrame:
        return self.tables[name] if name in self.tables else super().table(name)


def made_evidence(folder: str = "made_up", **parts: object) -> MadeUp:
    """A run of made-up files; parts: what is to differ, by the name of the property, before it is read."""
    beside_fast = fast_rows("klt_rfsq_fixed", "codes=36", 0.003, {"bits": 0.004, "words": 0.002})
    run = MadeUp(folder, {"training": curve_rows(), "against_fast": beside_fast})
    scores = parts.get("scores") or passing_scores()
    assert isinstance(scores, Scores)
    made: dict[str, object] = {
        "scores": scores,
        "validation": scores,
        "layers": Layers(layer_rows(), scores),
        "models": model_rows(),
        "data": dict(NOTHING_ODD),
        "training": training_values(),
        "policy": MadePolicy(),
        "replays": MadeReplays(),
        "comparison": {"test_episodes": EPISODES, "test_steps": 5000, "layout": LIBERO.spec, "brought": {}},
    }
    vars(run).update(made | parts)
    return run
