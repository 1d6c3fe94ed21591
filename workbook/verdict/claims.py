"""What the implementation guide claims, one by one, beside what was measured: values, and whether they hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from workbook.common import targets
from workbook.common.intervals import Estimate
from workbook.common.threshold import Status, Threshold
from workbook.data.layout import UNCLIPPED, ActionLayout
from workbook.evaluation.evidence import Evidence
from workbook.evaluation.replay.evidence import Among
from workbook.evaluation.score import ENCODER
from workbook.verdict.criteria import DEPLOYABLE, GUIDES, NAIVE, overhead

SAME_WITHIN = 0.05  # errors this near to each other count as equal


@dataclass(frozen=True)
class Claim:
    """One claim. claimed, measured: figures in the claim's own unit; details: what the reason needs besides."""

    key: str
    claimed: tuple[float, ...]
    measured: tuple[float, ...]
    interval: tuple[float, float] | None
    status: Status | Literal["not measurable"]
    unit: Literal["number", "share", "points", "hours", "kB", "works"] = "number"
    details: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def guide_claims(run: Evidence) -> list[Claim]:
    """Every claim, in the order of the guide."""
    return [
        *_errors(run), *_curve(run), *_residuals(run), *_groups(run), *_layers(run), *_costs(run), *_phase2(run),
        *_success(run),
    ]  # fmt: skip


def _estimated(
    key: str, claimed: tuple[float, ...], estimate: Estimate, threshold: Threshold, unit: Any = "number", **details: Any
) -> Claim:
    interval = None if estimate.low is None or estimate.high is None else (estimate.low, estimate.high)
    measured = () if estimate.mean is None else (estimate.mean,)
    return Claim(key, claimed, measured, interval, threshold.judge(estimate.as_json()), unit, details)


def _plain(
    key: str, claimed: tuple[float, ...], measured: tuple[float, ...], holds: bool, unit: Any = "number", **details: Any
) -> Claim:
    """Of figures without an interval."""
    return Claim(key, claimed, measured, None, "met" if holds else "unmet", unit, details)


def _missing(key: str, claimed: tuple[float, ...], **details: Any) -> Claim:
    return Claim(key, claimed, (), None, "not run", "number", details)


def _errors(run: Evidence) -> Iterator[Claim]:
    scores = run.scores
    error, gain = (targets.EXPECTED_MSE, targets.MSE_BELOW), (targets.EXPECTED_IMPROVEMENT, targets.IMPROVEMENT_ABOVE)
    yield _estimated("mse", error, scores.estimate("mse", GUIDES), targets.LOW_MSE)
    yield _estimated("mse_encoder", error, scores.estimate("mse", GUIDES, decoding=ENCODER), targets.LOW_MSE)
    yield _estimated("improvement", gain, scores.improvement(GUIDES), targets.IMPROVES, "share")
    with_statistics = scores.improvement(GUIDES, decoding=ENCODER)
    yield _estimated("improvement_encoder", gain, with_statistics, targets.IMPROVES, "share")
    expected = targets.EXPECTED_NAIVE_MSE
    near_enough = Threshold(expected / 2, expected * 2, inclusive=True)
    yield _estimated("mse_naive", (expected,), scores.estimate("mse", NAIVE), near_enough)


def _curve(run: Evidence) -> Iterator[Claim]:
    """Holds where every seed is at or below."""
    curves = run.table("training")
    of_guides = curves[curves.codec == GUIDES].pivot(index="seed", columns="epoch", values="validation_mse")
    shown = [epoch for epoch in targets.EXPECTED_CURVE if epoch in of_guides]
    claimed = tuple(targets.EXPECTED_CURVE.values())
    if not shown:
        yield _missing("curve", claimed)
        return
    below = all(of_guides[epoch].max() <= targets.EXPECTED_CURVE[epoch] for epoch in shown)
    measured = tuple(float(of_guides[epoch].median()) for epoch in shown)
    yield _plain("curve", claimed, measured, below, epochs=shown)


def _residuals(run: Evidence) -> Iterator[Claim]:
    std = run.layers.mean(NAIVE, "residual_std")[:-1]
    for layers, span in targets.EXPECTED_NAIVE_STD.items():
        measured = std[[k for k in layers if k < len(std)]]
        named = {"first": layers[0], "last": layers[-1]}
        if not len(measured):
            yield _missing("residual_std", span, **named)
            continue
        inside = bool(np.all((measured >= span[0]) & (measured <= span[1])))
        yield _plain("residual_std", span, (float(measured.min()), float(measured.max())), inside, **named)


def _groups(run: Evidence) -> Iterator[Claim]:
    """The guide's errors are the controller's; of dimensions in units of their own they say nothing."""
    layout = ActionLayout.parse(run.comparison["layout"])
    own_units = {"gripper_abs": layout.of_kind("opening"), "max_abs": layout.of_kind(*UNCLIPPED)}
    for metric, expected in targets.EXPECTED_ERRORS.items():
        estimate = run.scores.estimate(metric, GUIDES)
        if estimate.mean is None or own_units.get(metric):
            yield _missing("group_error", expected, metric=metric)
        elif estimate.low is None:
            yield _plain("group_error", expected, (estimate.mean,), estimate.mean <= expected[1], metric=metric)
        else:
            yield _estimated("group_error", expected, estimate, Threshold.up_to(expected[1]), metric=metric)


def _layers(run: Evidence) -> Iterator[Claim]:
    prefix, count, coarse = run.layers.prefix_mse(GUIDES), len(targets.COARSE_LAYERS), targets.EXPECTED_COARSE_MSE
    if len(prefix) >= count:
        yield _estimated("coarse_mse", coarse, prefix[count - 1], Threshold.up_to(coarse[1]))
    yield Claim("fine_mse", targets.EXPECTED_FINE_MSE, (), None, "not measurable")


def _costs(run: Evidence) -> Iterator[Claim]:
    small = Threshold.up_to(targets.OVERHEAD_UP_TO)
    yield _estimated("overhead", (targets.OVERHEAD_UP_TO,), overhead(run, GUIDES), small, "share")
    models = run.models[run.models.codec == GUIDES]
    hours, kilobytes = float(models.train_seconds.max()) / 3600, float(models.bytes.max()) / 1000
    wanted, device = targets.EXPECTED_TRAINING_HOURS, run.training["device"]
    yield _plain("training_time", (wanted,), (hours,), hours <= wanted, "hours", device=device)
    size = targets.EXPECTED_CHECKPOINT_KB
    yield _plain("checkpoint_size", (size,), (kilobytes,), kilobytes <= size, "kB")


def _phase2(run: Evidence) -> Iterator[Claim]:
    """Token accuracy counts naive's constant layers, which any policy predicts, as the guide's 90.9 % does."""
    policy = run.policy
    live, majority = policy.accuracy(NAIVE, "parallel_argmax"), policy.majority(NAIVE)
    layers, claimed = run.layers.count, targets.EXPECTED_TOKEN_ACCURACY
    constant = sum(k >= len(live) for k in run.layers.dead(NAIVE))
    counted = len(live) + constant
    accuracy, guessed = ((sum(values) + constant) / counted for values in (live, majority))
    yield _plain(
        "token_accuracy", (claimed,), (accuracy,), accuracy >= claimed, "share",
        counted=counted, layers=layers, constant=constant, majority=guessed,
    )  # fmt: skip
    own, crossed = (run.scores.estimate("mse", name) for name in (NAIVE, "naive_by_layernorm"))
    not_worse = Threshold.above(-SAME_WITHIN).judge(run.scores.improvement("naive_by_layernorm").as_json())
    claim = _estimated("option_b", (), crossed, Threshold(), "works", naive=own.mean)
    yield Claim(claim.key, (), claim.measured, claim.interval, not_worse, "works", claim.details)


def _success(run: Evidence) -> Iterator[Claim]:
    """Gain in success over naive tokens when episodes are replayed."""
    replays, claimed = run.replays, targets.EXPECTED_FINE_MANIPULATION
    if not replays.played:
        gain = run.policy.contrasts()["fixed_scale_for_naive"].mean
        yield _missing("success", claimed, among="fine", codec=GUIDES, policy_gain=gain)
        return
    for among, codec in SUCCESS:
        contrast = replays.contrast(codec, among)
        claim = _estimated(
            "success", claimed, contrast.difference, targets.GAINS_SUCCESS, "points",
            among=among, codec=codec, episodes=contrast.episodes,
        )  # fmt: skip
        yield claim if not replays.shortfalls else Claim(**{**asdict(claim), "status": "not shown"})


# Among which episodes, and whose gain over naive: the guide's proposal, the same with its statistics, the deployable.
SUCCESS: tuple[tuple[Among, str], ...] = (
    ("articulated", GUIDES), ("articulated", "layernorm_sent"), ("articulated", DEPLOYABLE),
    ("all", GUIDES), ("all", "layernorm_sent"), ("all", DEPLOYABLE),
)  # fmt: skip
