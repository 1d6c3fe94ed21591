"""What small policies predict, made up by hand: new tokens are the fixed scale's, and neither A nor B is met."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
from made_rows import MadeUp, made_evidence, passing_scores
from numpy.typing import ArrayLike

from workbook.codecs.catalogue import BROUGHT
from workbook.common.intervals import Estimate
from workbook.evaluation.loop.evidence import Loop
from workbook.evaluation.policy.distribution import LIKELIHOOD, SUM_ERRORS
from workbook.evaluation.policy.evidence import CODEC, OWN, REGRESSION, REGRESSION_RULE, RETRAINED, PolicyEvidence
from workbook.evaluation.policy.network import RULES, TOKEN_RULES
from workbook.evaluation.policy.training import ProbeTraining
from workbook.evaluation.score import Scores
from workbook.verdict.recommendation import recommend

FEW, MOST = 20, 84  # training-set sizes
SEEDS, EPISODES = 2, 3
LAYERS = 2  # of every codec
SETTINGS = {"naive": "layers=2", "fixed_scale": "layers=2", "bins": "bins=64", "klt_rfsq_fixed": "codes=36"}
TOKENS = {"naive": 256, "fixed_scale": 256, "bins": 56, "klt_rfsq_fixed": 37}
MSE = {"naive": 0.1, "fixed_scale": 0.07, "bins": 0.09, "klt_rfsq_fixed": 0.08}
SCORES = passing_scores()
CONTRASTS = {
    "new_for_naive": 0.02, "new_rule": 0.2, "retrained_decoder": 0.01, "naive_rule": 0.02, "codec_share": 0.08,
    "regression_for_naive": 0.1, "fixed_scale_for_naive": 0.01, "fixed_scale_for_naive_parallel_argmax": -0.1,
    "fixed_scale_for_naive_autoregressive": 0.07, "fixed_scale_for_naive_soft": 0.03,
}  # fmt: skip


def around(mean: float, half: float | None = 0.005) -> Estimate:
    """half: of the interval; None for a figure without one."""
    low, high = (None, None) if half is None else (mean - half, mean + half)
    return Estimate(mean, low, high, (mean,) * 5)


def between(low: float, high: float) -> Estimate:
    return Estimate((low + high) / 2, low, high, ((low + high) / 2,) * 5)


def prediction(
    codec: str, rule: str, mse: ArrayLike, validation: ArrayLike | None = None, layers: int = LAYERS, size: int = MOST,
    decoder: str = OWN, steps: Sequence[int] = (80,) * EPISODES,
) -> pd.DataFrame:  # fmt: skip
    """Rows of one codec, rule, decoder, prefix and training-set size; mse: of seeds and episodes, or of all alike."""
    frames = []
    for part, values in (("validation", mse if validation is None else validation), ("test", mse)):
        frame = pd.DataFrame({"seed": np.repeat(range(SEEDS), EPISODES), "steps": [*steps] * SEEDS})
        frame["episode"] = [f"made_up.hdf5, demo_{at}" for at in range(EPISODES)] * SEEDS
        frame["mse"] = np.broadcast_to(values, (SEEDS, EPISODES)).ravel()
        frames.append(frame.assign(part=part, task="put it there"))
    keys = {"codec": codec, "setting": SETTINGS.get(codec, ""), "rule": rule, "decoder": decoder, "layers": layers}
    errors = dict.fromkeys(("motion_mse", "position_mm", "rotation_deg", "gripper_error_rate", "drift_mm"), 0.5)
    errors |= {name: np.nan if "joint" in name else 0.5 for name in (*SUM_ERRORS, LIKELIHOOD, "joint_length")}
    return pd.concat(frames).assign(**keys, training_set_size=size, chunks=10, **errors)


def made_policies(*changed: pd.DataFrame, sizes: Sequence[int] = (FEW, MOST)) -> PolicyEvidence:
    """Soft decoding is best for every codec, by a sixth, and one layer is enough; changed: rows that differ."""
    replaced = _made(tuple(sizes)) | {_key(frame): frame for frame in changed}
    rows = pd.concat(replaced.values(), ignore_index=True)
    return PolicyEvidence(rows, _tokens(sizes), _draft(), _policies(), ProbeTraining())


@cache
def _made(sizes: tuple[int, ...]) -> dict[tuple[object, ...], pd.DataFrame]:
    frames = [prediction(REGRESSION.codec, REGRESSION_RULE, 0.09, layers=0, size=size) for size in sizes]
    frames += [prediction(codec, CODEC, 0.002, size=0) for codec in SETTINGS]
    for codec, mse in MSE.items():
        for rule in RULES:
            validation = mse if rule == "soft" else 1.2 * mse
            frames += [
                prediction(codec, rule, mse, validation, layers, size)
                for layers in range(1, LAYERS + 1)
                for size in sizes
            ]
            if codec == "naive":
                frames += [prediction(codec, rule, 0.99 * mse, size=size, decoder=RETRAINED) for size in sizes]
    return {_key(frame): frame for frame in frames}


def _key(frame: pd.DataFrame) -> tuple[object, ...]:
    return tuple(frame[["codec", "rule", "decoder", "layers", "training_set_size"]].iloc[0])


MINE, LONGER = f"{BROUGHT}Mine", f"{BROUGHT}Longer"


def with_brought(policy: PolicyEvidence, mse: float = 0.01) -> PolicyEvidence:
    """Beside the others one codec that was brought, better than them all, and one that no policy predicts."""
    frames = [prediction(MINE, rule, mse, layers=1, size=size) for rule in TOKEN_RULES for size in (FEW, MOST)]
    frames.append(prediction(MINE, CODEC, 0.001, layers=1, size=0))
    first = {"codec": MINE, "setting": ""}
    tokens = policy.tokens[(policy.tokens.codec == "bins") & (policy.tokens.layer == 0)].assign(**first)
    network = policy.policies[policy.policies.codec == "bins"].assign(**first, layers=1, malformed=0.125)
    return replace(
        policy, rows=pd.concat([policy.rows, *frames], ignore_index=True),
        tokens=pd.concat([policy.tokens, tokens], ignore_index=True),
        policies=pd.concat([policy.policies, network], ignore_index=True), not_predicted={LONGER: "varies"},
    )  # fmt: skip


def _tokens(sizes: Sequence[int]) -> pd.DataFrame:
    by_layer = [(0.6, 200.0, 0.5, 2.0), (0.4, 100.0, 0.3, 1.5)]
    keys = ["codec", "setting", "rule", "training_set_size", "seed", "layer"]
    columns = [*keys, "accuracy", "cross_entropy_bits", "majority_share", "entropy_bits"]
    return pd.DataFrame(
        [
            (codec, setting, rule, size, seed, layer, *values)
            for codec, setting in SETTINGS.items()
            for rule in TOKEN_RULES
            for size in sizes
            for seed in range(SEEDS)
            for layer, values in enumerate(by_layer)
        ],
        columns=columns,
    )


def _draft() -> pd.DataFrame:
    rows = [
        (codec, SETTINGS[codec], rule, seed, layer, agreement, agreement / 2)
        for codec in ("naive", "fixed_scale")
        for rule in TOKEN_RULES
        for seed in range(SEEDS)
        for layer, agreement in enumerate((0.8, 0.6))
    ]
    return pd.DataFrame(rows, columns=["codec", "setting", "rule", "seed", "layer", "agreement", "agreement_other"])


def _policies() -> pd.DataFrame:
    rows = [(codec, setting, LAYERS, TOKENS[codec]) for codec, setting in SETTINGS.items()]
    frame = pd.DataFrame(rows, columns=["codec", "setting", "layers", "tokens_per_chunk"])
    trained = {"heads": "apart", "training_set_size": MOST, "seed": 0, "noise": 0.2, "chosen": True, "steps": 800}
    return frame.assign(**trained, validation_mse=0.1, head_width=128, weights=110_000)


def made_run(
    *changed: pd.DataFrame, missing: Sequence[object] = (), sizes: Sequence[int] = (FEW, MOST),
    scores: Scores | None = None, loop: Loop | None = None, **contrasts: Estimate,
) -> MadeUp:  # fmt: skip
    """A decided run; contrasts: what differs from those above."""
    assert contrasts.keys() <= CONTRASTS.keys()
    policy = made_policies(*changed, sizes=sizes)
    known = {name: around(mean) for name, mean in CONTRASTS.items()} | contrasts
    vars(policy)["contrasts"] = lambda: known
    run = made_evidence(policy=policy, scores=scores or SCORES)
    vars(run).update({} if loop is None else {"loop": loop})
    decided = recommend(run, missing).as_json()
    vars(run)["results"] = {
        "recommendation": json.loads(json.dumps(decided)),
        "verdict": {"shortfalls": []},
        "provenance": {"command": "./run_all.sh --smoke" if missing else ""},
    }
    return run
