"""What the implementation guide claims, one by one, beside what was measured: values, and whether they hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np

from workbook.common import targets
from workbook.common.intervals import Estimate
from workbook.common.threshold import Status, Threshold
from workbook.data.layout import UNCLIPPED, ActionLayout
from workbook.evaluation.evidence import Evidence
from workbook.evaluation.replay.evidence import Among
from workbook.evaluation.score import ENCODER, TOKENS
from workbook.verdict.criteria import DEPLOYABLE, GUIDES, NAIVE, overhead


@dataclass(frozen=True)
class Claim:
    """One claim. claimed, measured: figures in the claim's own unit; details: what the reason needs besides.

    "not comparable": both figures are shown, and say nothing of each other; knife_edge: the interval ends so near to
    the threshold that another sample of episodes may well turn the status.
    """

    key: str
    claimed: tuple[float, ...]
    measured: tuple[float, ...]
    interval: tuple[float, float] | None
    status: Status | Literal["not measurable", "not comparable"]
    unit: Literal["number", "share", "points", "hours", "kB", "works"] = "number"
    details: dict[str, Any] = field(default_factory=dict)
    knife_edge: bool = False

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
    values = estimate.as_json()
    interval = None if estimate.low is None or estimate.high is None else (estimate.low, estimate.high)
    measured = () if estimate.mean is None else (estimate.mean,)
    edge = threshold.on_knife_edge(values)
    return Claim(key, claimed, measured, interval, threshold.judge(values), unit, details, edge)


def _plain(
    key: str, claimed: tuple[float, ...], measured: tuple[float, ...], holds: bool, unit: Any = "number", **details: Any
) -> Claim:
    """Of figures without an interval."""
    return Claim(key, claimed, measured, None, "met" if holds else "unmet", unit, details)


def _not_comparable(claim: Claim) -> Claim:
    return replace(claim, status="not comparable", knife_edge=False)


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
    naive = _estimated("mse_naive", (targets.EXPECTED_NAIVE_MSE,), scores.estimate("mse", NAIVE), Threshold())
    yield _not_comparable(naive)  # of other data, normalised otherwise


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
    """From tokens alone, and with encoder statistics, as the guide measures.

    The guide's errors are the controller's; of dimensions in units of their own they say nothing.
    """
    layout = ActionLayout.parse(run.comparison["layout"])
    own_units = {"gripper_abs": layout.of_kind("opening"), "max_abs": layout.of_kind(*UNCLIPPED)}
    for metric in targets.EXPECTED_ERRORS:
        for key, decoding in (("group_error", TOKENS), ("group_error_encoder", ENCODER)):
            claim = _group(run, key, metric, decoding)
            yield _missing(key, claim.claimed, metric=metric) if own_units.get(metric) else claim


def _group(run: Evidence, key: str, metric: str, decoding: str) -> Claim:
    """What a decoder leaves that cannot read its tokens is clipped, and may lie where it is claimed by that alone."""
    expected, estimate = targets.EXPECTED_ERRORS[metric], run.scores.estimate(metric, GUIDES, decoding=decoding)
    of_mean_action = run.scores.estimate("relative_mse", GUIDES, decoding=decoding).mean  # times its squared error
    garbage = of_mean_action is not None and of_mean_action >= 1
    details = {"metric": metric, "garbage": of_mean_action if garbage else None}
    if estimate.mean is not None and estimate.low is None:
        claim = _plain(key, expected, (estimate.mean,), estimate.mean <= expected[1], **details)
    else:
        claim = _estimated(key, expected, estimate, Threshold.up_to(expected[1]), **details)
    return _not_comparable(claim) if garbage and claim.status in ("met", "not shown") else claim


def _layers(run: Evidence) -> Iterator[Claim]:
    prefix, count, coarse = run.layers.prefix_mse(GUIDES), targets.COARSE_LAYERS, targets.EXPECTED_COARSE_MSE
    if len(prefix) >= count:
        yield _estimated("coarse_mse", coarse, prefix[count - 1], Threshold.up_to(coarse[1]))
    yield Claim("fine_mse", targets.EXPECTED_FINE_MSE, (), None, "not measurable")


def _costs(run: Evidence) -> Iterator[Claim]:
    small = Threshold.up_to(targets.OVERHEAD_UP_TO)
    yield _estimated("overhead", (targets.OVERHEAD_UP_TO,), overhead(run, GUIDES), small, "share")
    models = run.models[run.models.codec == GUIDES]
    hours, kilobytes = float(models.train_seconds.max()) / 3600, float(models.bytes.max()) / 1000
    wanted, device = targets.EXPECTED_TRAINING_HOURS, run.training["device"]
    size = targets.EXPECTED_CHECKPOINT_KB  # of the guide's own model and format
    yield _not_comparable(_plain("training_time", (wanted,), (hours,), True, "hours", device=device))
    yield _not_comparable(_plain("checkpoint_size", (size,), (kilobytes,), True, "kB"))


def _phase2(run: Evidence) -> Iterator[Claim]:
    """Token accuracy counts naive's constant layers, which any policy predicts, as the guide's 90.9 % does.

    Where there are such layers it says nothing; the accuracy of the live ones stands beside it.
    """
    policy = run.policy
    live, majority = policy.accuracy(NAIVE, "parallel_argmax"), policy.majority(NAIVE)
    layers, claimed = run.layers.count, targets.EXPECTED_TOKEN_ACCURACY
    constant = sum(k >= len(live) for k in run.layers.dead(NAIVE))
    counted = len(live) + constant
    accuracy, guessed = ((sum(values) + constant) / counted for values in (live, majority))
    found = _plain(
        "token_accuracy", (claimed,), (accuracy,), accuracy >= claimed, "share",
        counted=counted, layers=layers, constant=constant, majority=guessed,
        live=sum(live) / len(live), live_majority=sum(majority) / len(live),
    )  # fmt: skip
    yield _not_comparable(found) if constant else found
    own, crossed = (run.scores.estimate("mse", name) for name in (NAIVE, "naive_by_layernorm"))
    not_worse = Threshold.above(-targets.SAME_WITHIN).judge(run.scores.improvement("naive_by_layernorm").as_json())
    claim = _estimated("option_b", (), crossed, Threshold(), "works", naive=own.mean)
    yield replace(claim, status=not_worse)


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
        yield claim if not replays.shortfalls else replace(claim, status="not shown")


# Among which episodes, and whose gain over naive: the guide's proposal, the same with its statistics, the deployable.
SUCCESS: tuple[tuple[Among, str], ...] = (
    ("articulated", GUIDES), ("articulated", "layernorm_sent"), ("articulated", DEPLOYABLE),
    ("all", GUIDES), ("all", "layernorm_sent"), ("all", DEPLOYABLE),
)  # fmt: skip
