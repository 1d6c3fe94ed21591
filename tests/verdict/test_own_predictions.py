"""The user's own predictions in the recommendation: they stand before the loop and the probe, in what they can say."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from made_loops import NAIVE_ARGMAX, NAIVE_RETRAINED, NAIVE_SOFT, SCALE_SOFT, first, made
from made_policies import between, made_run

from workbook.common.intervals import Estimate
from workbook.evaluation.evidence import Evidence
from workbook.evaluation.loop.arms import PHASE2_SOFT
from workbook.evaluation.predictions.evidence import Predictions
from workbook.report.text.recommendation import sentences, use
from workbook.verdict.recommendation import Recommendation, recommend

MET, UNMET, OPEN = between(0.3, 0.4), between(-0.02, 0.01), between(0.01, 0.3)
ALIKE = {NAIVE_SOFT: 70, NAIVE_RETRAINED: 70, SCALE_SOFT: 70, NAIVE_ARGMAX: 70}


@dataclass(frozen=True, eq=False, kw_only=True)
class Made(Predictions):
    """share, less: what the codec makes of the error, and what another rule takes away."""

    share: Estimate
    less: Estimate

    def codec_share(self, rule: str = "", metric: str = "mse") -> Estimate:
        return self.share

    def gain(self, rule: str, metric: str = "mse") -> Estimate:
        return self.less


def run_with(share: Estimate, less: Estimate, won: dict[object, int] | None = None, **contrasts: Estimate) -> Evidence:
    loop = made({arm: first(count) for arm, count in won.items()}) if won else None  # type: ignore[misc]
    run = made_run(loop=loop, **contrasts)
    vars(run)["predictions"] = Made({"not_run": "", "draft_layers": 3}, share=share, less=less)
    decided = recommend(run, []).as_json()
    vars(run)["results"] = json.loads(json.dumps({"recommendation": decided, "verdict": {"shortfalls": []}}))
    return run


def recommended(run: Evidence) -> Recommendation:
    return recommend(run, [])


@pytest.mark.parametrize("won", [None, ALIKE])
@pytest.mark.parametrize(
    ("share", "less", "option"),
    [(UNMET, MET, "decode rule"), (UNMET, UNMET, "keep naive"), (UNMET, OPEN, "keep naive"), (MET, UNMET, "C")],
)
def test_they_stand_first(share: Estimate, less: Estimate, option: str, won: dict[object, int] | None) -> None:
    contrasts = {"new_for_naive": UNMET, "codec_share": between(0.06, 0.09)}  # enough for the probe to see, and no more
    assert recommended(run_with(share, less, won, **contrasts)).option == option


@pytest.mark.parametrize(("less", "option"), [(MET, "decode rule"), (UNMET, "cannot decide"), (OPEN, "cannot decide")])
def test_where_the_probe_cannot_decide_their_decode_rule_does_and_a_stays_open(less: Estimate, option: str) -> None:
    found = recommended(run_with(UNMET, less, codec_share=between(0.01, 0.02)))
    assert (found.option, found.words["A"]) == (option, "CANNOT DECIDE")


def test_what_they_do_not_show_the_loop_does_not_show_for_them() -> None:
    """There another rule helps small policies; the user's own does not gain by it."""
    helped = ALIKE | {NAIVE_ARGMAX: 30}
    loop = made({arm: first(count) for arm, count in helped.items()})
    assert recommend(made_run(loop=loop), []).option == "decode rule"
    found = recommended(run_with(UNMET, UNMET, helped))
    assert (found.option, found.decode_rule) == ("keep naive", "parallel_argmax")


def test_of_new_tokens_they_say_nothing() -> None:
    assert recommended(run_with(UNMET, MET, new_for_naive=MET)).option == "A"
    better = ALIKE | {NAIVE_SOFT: 30, NAIVE_RETRAINED: 30}
    assert recommended(run_with(UNMET, MET, better)).option == "A"


def test_the_rule_is_theirs_and_is_said() -> None:
    run = run_with(UNMET, MET, new_for_naive=UNMET)
    assert recommended(run).decode_rule == PHASE2_SOFT
    assert "Keep your codec" in use(run)
    first_of, rule, share, *_ = sentences(run)
    assert "another rule" in first_of
    assert "YES" in rule
    assert "NO" in share


def test_without_them_nothing_changes() -> None:
    run = made_run(new_for_naive=UNMET)
    assert not run.predictions.given
    assert recommended(run).decode_rule == "parallel_argmax"
    assert not any("Your own Phase 2" in sentence for sentence in sentences(run))
