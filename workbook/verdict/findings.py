"""What speaks against the robust RFSQ, and where the guide's account and the measurement part ways, as values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from workbook.codecs.catalogue import Setting
from workbook.codecs.rfsq import ENOUGH_WITHIN
from workbook.common import targets
from workbook.common.array import Array
from workbook.common.intervals import Estimate
from workbook.evaluation.evidence import Evidence
from workbook.evaluation.layers import WITH_STATISTICS, Layers
from workbook.evaluation.loop.arms import DIRECT, REGRESSION
from workbook.evaluation.score import ENCODER, Scores
from workbook.verdict.criteria import DEPLOYABLE, GUIDES, NAIVE, cheaper_rounding

DESTROYED_BELOW = 0.5  # of the replays; a codec is shown to destroy actions if fewer succeed
Shown = Literal["more", "less", "none"]
COMPARED_FOR = (NAIVE, DEPLOYABLE)  # codecs that plain rounding is held against


@dataclass(frozen=True)
class Finding:
    """What was found, by its name, and the figures that it rests on."""

    key: str
    values: dict[str, Any]

    @staticmethod
    def of(key: str, **values: Any) -> Finding:
        return Finding(key, values)


def against(run: Evidence) -> list[Finding]:
    """Failures first, then what the figures do not say."""
    scores, layers = run.scores, run.layers
    return [
        *_statistics(run),
        *_met_by_naive(scores),
        *(finding for codec in COMPARED_FOR for finding in _cheaper(scores, codec)),
        *_layers_to_spare(scores, layers),
        *_zeros(scores),
        _blind_mse(run),
    ]


def _statistics(run: Evidence) -> Iterator[Finding]:
    if run.models.decode_error[run.models.codec == GUIDES].any():
        sent = WITH_STATISTICS[GUIDES]
        yield Finding.of(
            "needs_statistics",
            codec=GUIDES,
            side_bits=run.scores.cost(sent)["side_bits"],
            code_bits=run.scores.cost(GUIDES)["bits"],
            mse=run.scores.estimate("mse", sent).mean,
        )


def _met_by_naive(scores: Scores) -> Iterator[Finding]:
    mse = scores.estimate("mse", NAIVE).mean
    if mse is not None and targets.LOW_MSE.meets(mse):
        yield Finding.of("naive_meets_the_target", target=targets.MSE_BELOW, mse=mse)


def _cheaper(scores: Scores, codec: str) -> Iterator[Finding]:
    """The cheapest plain rounding that has less error than this codec."""
    setting = cheaper_rounding(scores, codec)
    if setting is not None:
        yield Finding.of(
            "cheaper_rounding",
            codec=codec,
            bins=Setting.parse(setting).count("bins"),
            mse=scores.estimate("mse", "bins", setting).mean,
            codec_mse=scores.estimate("mse", codec).mean,
            bits=scores.cost("bins", setting)["bits"],
            codec_bits=scores.cost(codec)["bits"],
        )


def _layers_to_spare(scores: Scores, layers: Layers) -> Iterator[Finding]:
    dead, enough = layers.dead(NAIVE), layers.enough(DEPLOYABLE)
    if dead:
        cost = scores.cost(NAIVE)
        spent = {name: cost[name] for name in ("bits", "entropy_bits")}
        yield Finding.of("dead_layers", dead=len(dead), layers=layers.count, **spent)
    if enough < layers.count:
        bits = scores.cost(DEPLOYABLE, f"layers={enough}")["bits"]
        yield Finding.of("layers_to_spare", codec=DEPLOYABLE, enough=enough, layers=layers.count, bits=bits)


def _zeros(scores: Scores) -> Iterator[Finding]:
    kept, of_naive = (scores.estimate("zeros_kept", codec).mean for codec in (DEPLOYABLE, NAIVE))
    if kept is not None:
        turns = scores.estimate("rotation_deg", DEPLOYABLE).mean is not None
        yield Finding.of("zeros", codec=DEPLOYABLE, kept=kept, naive_kept=of_naive, turns=turns)


def _blind_mse(run: Evidence) -> Finding:
    """In which share of pairs the failed of two replays has the larger MSE, and the same within one codec's."""
    of_mse = run.replays.predictors.each.get("mse") if run.replays.played else None
    return Finding.of(
        "blind_mse",
        drifts=run.scores.estimate("drift_mm", DEPLOYABLE).mean is not None,
        pairs=of_mse and of_mse.auc.mean,
        within_codec=of_mse and of_mse.within.mean,
    )


def discrepancies(run: Evidence) -> list[Finding]:
    """Where the guide's account and the measurement part ways; agreement is said too."""
    scores, layers = run.scores, run.layers
    std = layers.mean(NAIVE, "residual_std")
    found = [
        Finding.of(
            "errors",
            expected_naive=targets.EXPECTED_NAIVE_MSE,
            expected=targets.EXPECTED_MSE,
            expected_gain=targets.EXPECTED_IMPROVEMENT,
            naive=scores.estimate("mse", NAIVE, decoding=ENCODER).mean,
            encoder=scores.estimate("mse", GUIDES, decoding=ENCODER).mean,
            gain=scores.improvement(GUIDES, decoding=ENCODER).mean,
            tokens=scores.estimate("mse", GUIDES).mean,
        )
    ]
    found += [_range(std[:-1], span, expected) for span, expected in targets.EXPECTED_NAIVE_STD.items()]
    dead = layers.dead(NAIVE)
    if dead:
        shares = [float(layers.mean(codec, "majority_share").mean()) for codec in (NAIVE, DEPLOYABLE)]
        found.append(Finding.of("naive_stops", dead=dead, layers=layers.count, std=float(std[1])))
        found.append(Finding.of("majority", naive=shares[0], fixed=shares[1]))
    for codec in (GUIDES, DEPLOYABLE):
        live, enough = layers.count - len(layers.dead(codec)), layers.enough(codec)
        values = {"codec": codec, "live": live, "layers": layers.count, "enough": enough, "within": ENOUGH_WITHIN}
        found.append(Finding("layers_alive", values))
    return found


def _range(std: Array, layers: tuple[int, ...], expected: tuple[float, float]) -> Finding:
    """How many of some layers get a naive residual that the guide expects; std: of what enters each layer, (K,)."""
    measured = std[[k for k in layers if k < len(std)]]
    agreement: Literal["all", "some", "none"] | None = None
    ends = None
    if len(measured):
        inside = [expected[0] <= value <= expected[1] for value in measured]
        agreement = "all" if all(inside) else "some" if any(inside) else "none"
        ends = [float(measured.min()), float(measured.max())]
    return Finding.of(
        "residual_range", layers=list(layers), expected=list(expected), agreement=agreement, measured=ends
    )


def reconciliation(run: Evidence) -> Finding | None:
    """What replays and policies in the loop say of fixed-scale and naive tokens, and whether it is the same.

    None where one of both has nothing to say. Policies: each codec at the rule chosen on validation.
    """
    replays, loop = run.replays, run.loop
    codecs = {arm.codec for arm in loop.arms if arm.kind == "tokens"} if loop.played else set()
    if not replays.played or not codecs >= {DEPLOYABLE, NAIVE}:
        return None
    direct = loop.find("regression", REGRESSION, DIRECT)
    through = loop.find("regression", REGRESSION, DIRECT, DEPLOYABLE)
    arms = {codec: loop.best(codec) for codec in (DEPLOYABLE, NAIVE)}
    counts = {codec: (replays.of(codec).succeeded, replays.of(codec).played) for codec in arms}
    replayed, acted = replays.contrast(DEPLOYABLE).difference, loop.difference(arms[DEPLOYABLE], arms[NAIVE])
    return Finding.of(
        "reconciled",
        destroyed=[
            {"codec": one.codec, "setting": one.setting, "succeeded": one.succeeded, "played": one.played}
            for one in replays.codecs
            if one.success.high is not None and one.success.high < DESTROYED_BELOW
        ],
        replayed={codec: list(count) for codec, count in counts.items()},
        acted={codec: list(loop.counts(arm)) for codec, arm in arms.items()},
        in_replay=_shown(replayed),
        in_loop=_shown(acted),
        direct=direct and list(loop.counts(direct)),
        through=through and list(loop.counts(through)),
    )


def _shown(difference: Estimate) -> Shown:
    if difference.low is not None and difference.low > 0:
        return "more"
    return "less" if difference.high is not None and difference.high < 0 else "none"
