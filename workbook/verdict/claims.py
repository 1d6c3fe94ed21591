"""What the implementation guide claims, row by row, beside what was measured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from workbook.common import targets
from workbook.common.threshold import Threshold
from workbook.common.wording import less_or_more, number, share, with_interval
from workbook.evaluation.policy.evidence import SAME_WITHIN
from workbook.verdict.criteria import DEPLOYABLE_MODEL, GUIDE_MODEL
from workbook.verdict.success import played, points, why_not

Evidence = dict[str, Any]
HOLDS = {"met": "holds", "unmet": "does not hold", "not shown": "not shown", "not run": "not measured"}


def guide_claims(
    training: Evidence,
    comparison: Evidence,
    residuals: Evidence,
    option_b: Evidence,
    phase2: Evidence,
    replay: Evidence,
) -> list[Evidence]:
    """Rows of 'claim', 'claimed', 'measured', 'word' and 'why'."""
    return [
        *_errors(comparison),
        *_curve(training),
        *_residuals(residuals),
        *_groups(comparison),
        *_layers(residuals),
        *_costs(training, comparison),
        *_phase2(residuals, option_b, phase2),
        *_success(phase2, replay),
    ]


def _row(claim: str, claimed: str, measured: str, word: str, why: str = "") -> Evidence:
    return {"claim": claim, "claimed": claimed, "measured": measured, "word": word, "why": why}


def _judged(
    claim: str, claimed: str, estimate: Evidence, threshold: Threshold, why: str = "", as_share: bool = False
) -> Evidence:
    if as_share:
        ordered = sorted((estimate["low"] or 0.0, estimate["high"] or 0.0), key=abs)
        ends = "" if estimate["low"] is None else f" ({share(ordered[0])} to {share(ordered[1])})"
        measured = share(estimate["mean"]) + ends
    else:
        measured = with_interval(estimate)
    return _row(claim, claimed, measured, HOLDS[threshold.judge(estimate)], why)


def _errors(comparison: Evidence) -> Iterator[Evidence]:
    naive, robust = comparison["models"]["none"], comparison["models"][GUIDE_MODEL]
    tokens = "from tokens alone, own decoder; forward knows statistics that tokens do not hold"
    forward = "from forward"
    target = f"{targets.EXPECTED_MSE:g}, target < {targets.MSE_BELOW:g}"
    gain = f"{targets.EXPECTED_IMPROVEMENT:.1%}, target > {targets.IMPROVEMENT_ABOVE:.0%}"
    low, more = targets.LOW_MSE, targets.IMPROVES
    yield _judged("MSE of the robust RFSQ", target, robust["token_mse"], low, tokens)
    yield _judged("the same, as the guide measures", target, robust["forward_mse"], low, forward)
    yield _judged("improvement over naive", gain, robust["improvement_tokens"], more, tokens, True)
    yield _judged("the same, as the guide measures", gain, robust["improvement_forward"], more, forward, True)
    near = "holds within a factor of 2; depends on data and normaliser"
    expected = targets.EXPECTED_NAIVE_MSE
    yield _judged(
        "MSE of naive", f"{expected:g}", naive["token_mse"], Threshold(expected / 2, expected * 2, inclusive=True), near
    )


def _curve(training: Evidence) -> Iterator[Evidence]:
    curves = [run["curve"] for run in training["conditionings"][GUIDE_MODEL]["runs"]]
    reached = {epoch: [c[epoch - 1] for c in curves if len(c) >= epoch] for epoch in targets.EXPECTED_CURVE}
    shown = {epoch: values for epoch, values in reached.items() if values}
    claimed = ", ".join(f"{mse:g}" for mse in targets.EXPECTED_CURVE.values())
    if not shown:
        yield _row("MSE at epochs 10 to 100", claimed, "-", "not measured", "fewer epochs were run")
        return
    below = all(max(values) <= targets.EXPECTED_CURVE[epoch] for epoch, values in shown.items())
    measured = ", ".join(number(float(np.median(values))) for values in shown.values())
    why = "validation MSE from forward, median of seeds; holds where every seed is at or below"
    yield _row(f"MSE at epochs {', '.join(map(str, shown))}", claimed, measured, _word(below), why)


def _residuals(residuals: Evidence) -> Iterator[Evidence]:
    std = np.mean(residuals["none"]["residual_std"], axis=0)[:-1]
    for layers, (low, high) in targets.EXPECTED_NAIVE_STD.items():
        measured = std[[k for k in layers if k < len(std)]]
        claim = f"std of naive's residual, L{layers[0]}-L{layers[-1]}"
        if not len(measured):
            yield _row(claim, f"{low:g} to {high:g}", "-", "not measured", "the model has no such layers")
            continue
        inside = bool(np.all((measured >= low) & (measured <= high)))
        yield _row(claim, f"{low:g} to {high:g}", f"{measured.min():.3f} to {measured.max():.3f}", _word(inside))


def _groups(comparison: Evidence) -> Iterator[Evidence]:
    names = {
        "position_mm": "position error, mm", "rotation_deg": "rotation error, degrees",
        "gripper_abs": "gripper error", "max_abs": "largest error",
    }  # fmt: skip
    errors = comparison["models"][GUIDE_MODEL]["token_errors"]
    for key, (naive, robust) in targets.EXPECTED_ERRORS.items():
        claimed = f"{naive:g} -> {robust:g}"
        if errors[key]["mean"] is None:
            yield _row(names[key], claimed, "-", "not measured", "the data have no such dimension")
        elif errors[key]["low"] is None:
            word = _word(errors[key]["mean"] <= robust)
            yield _row(names[key], claimed, number(errors[key]["mean"]), word, "robust, from tokens alone, no interval")
        else:
            yield _judged(names[key], claimed, errors[key], Threshold.up_to(robust), "robust, from tokens alone")


def _layers(residuals: Evidence) -> Iterator[Evidence]:
    prefix = residuals[GUIDE_MODEL]["prefix_mse"]
    count = len(targets.COARSE_LAYERS)
    claimed = "{:g} -> {:g}".format(*targets.EXPECTED_COARSE_MSE)
    if len(prefix) >= count:
        why = "of the first three layers, with the statistics sent"
        yield _judged("MSE of L0-L2", claimed, prefix[count - 1], Threshold.up_to(targets.EXPECTED_COARSE_MSE[1]), why)
    why = "later layers refine the first; without these they stand for no action"
    yield _row("MSE of L3-L7", "{:g} -> {:g}".format(*targets.EXPECTED_FINE_MSE), "-", "not measurable here", why)


def _costs(training: Evidence, comparison: Evidence) -> Iterator[Evidence]:
    robust = comparison["models"][GUIDE_MODEL]
    why = "time of a training step over naive's, on this machine"
    overhead = targets.OVERHEAD_UP_TO
    yield _judged(
        "training overhead", f"about {overhead:.0%}", robust["overhead"], Threshold.up_to(overhead), why, True
    )
    longest, hours = max(robust["train_seconds"]), targets.EXPECTED_TRAINING_HOURS
    why = f"one model on {training['device']}; holds if no longer than claimed"
    yield _row("training time", f"about {hours:g} h", f"{longest:.0f} s", _word(longest <= hours * 3600), why)
    size, claimed = robust["checkpoint_bytes"] / 1000, targets.EXPECTED_CHECKPOINT_KB
    why = "holds if no larger than claimed"
    yield _row("checkpoint size", f"about {claimed:g} kB", f"{size:.1f} kB", _word(size <= claimed), why)


def _phase2(residuals: Evidence, option_b: Evidence, phase2: Evidence) -> Iterator[Evidence]:
    naive = phase2["subjects"]["naive"]
    live = naive["by_amount"][str(phase2["amounts"][-1])]["independent"]["accuracy"]
    layers = len(residuals["none"]["prefix_mse"])
    constant = sum(k >= len(live) for k in residuals["none"]["dead_layers"])
    counted = len(live) + constant
    accuracy, guessed = ((sum(values) + constant) / counted for values in (live, naive["majority"]))
    claimed = targets.EXPECTED_TOKEN_ACCURACY
    why = (
        f"of a small policy on {counted} of {layers} naive layers, {constant} of them constants; always the commonest "
        f"code gives {share(guessed)}, so it says little"
    )
    yield _row("token accuracy of Phase 2", f"{claimed:.1%}", share(accuracy), _word(accuracy >= claimed), why)
    crossed, own = option_b["rows"]["layernorm_decoder"], option_b["rows"]["naive"]
    why = (
        f"naive tokens through LayerNorm's decoder; naive's own gives {number(own['mse']['mean'])}; holds if not worse"
    )
    claim = "option B: only the decoder is replaced by the robust one"
    yield _row(
        claim,
        "works",
        with_interval(crossed["mse"]),
        HOLDS[Threshold.above(-SAME_WITHIN).judge(crossed["less_than_naive"])],
        why,
    )


def _success(phase2: Evidence, replay: Evidence) -> Iterator[Evidence]:
    """The guide's claim about fine manipulation: gain in success over naive tokens when episodes are replayed."""
    claimed = "+{:.0%} to +{:.0%} success".format(*targets.EXPECTED_FINE_MANIPULATION)
    if not played(replay):
        policy = phase2["contrasts"]["scale_for_naive"]
        why = (
            f"{why_not(replay)} The error of a small policy's decoded actions is {less_or_more(policy['mean'])} with "
            "fixed-scale tokens"
        )
        yield _row("fine manipulation", claimed, "-", "not measured", why)
        return
    for subject, key, claim in SUCCESS_CLAIMS:
        contrast = replay["contrasts"][key][subject]
        gain = contrast["difference"]
        word = "not shown" if replay["shortfalls"] else HOLDS[targets.GAINS_SUCCESS.judge(gain)]
        of = "test episodes" if subject == "all" else "test episodes in which a knob or drawer is moved"
        why = (
            f"open-loop replays in LIBERO's simulator of {contrast['episodes']} {of}, against naive tokens; a policy "
            "may correct what a replay cannot"
        )
        yield _row(claim, claimed, points(gain), word, why)


# Which episodes, which contrast with naive tokens, and the claim that it is held against.
SUCCESS_CLAIMS = (
    ("articulated", GUIDE_MODEL, "fine manipulation, robust RFSQ from tokens alone"),
    ("articulated", "layernorm_sent", "the same, with the statistics sent and counted"),
    ("articulated", DEPLOYABLE_MODEL, "the same, fixed scale in its place"),
    ("all", GUIDE_MODEL, "all tasks, robust RFSQ from tokens alone"),
    ("all", "layernorm_sent", "the same, with the statistics sent and counted"),
    ("all", DEPLOYABLE_MODEL, "the same, fixed scale in its place"),
)


def _word(holds: bool) -> str:
    return "holds" if holds else "does not hold"
