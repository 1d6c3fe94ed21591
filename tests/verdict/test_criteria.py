"""Criteria and verdict follow from the numbers: flip one number, and the word flips."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from evidence import Evidence, bits, estimate, judged, passing_comparison, some_residuals

from workbook.common import targets
from workbook.common.threshold import Threshold
from workbook.evaluation.score import cheaper_rounding
from workbook.verdict.criteria import Criterion, as_json, evaluate, shortfalls
from workbook.verdict.findings import against


def word_of(verdict: Evidence, model: str) -> str:
    return next(part["word"] for part in verdict["parts"] if part["model"] == model)


def sentence_of(verdict: Evidence, model: str) -> str:
    return next(part["sentence"] for part in verdict["parts"] if part["model"] == model)


def find(criteria: list[Criterion], model: str, key: str) -> Criterion:
    return next(criterion for criterion in criteria if (criterion.model, criterion.key) == (model, key))


class TestJudge:
    @pytest.mark.parametrize(
        ("low", "mean", "high", "status"),
        [
            (0.1, 0.2, 0.3, "met"),
            (0.6, 0.7, 0.8, "unmet"),
            (0.4, 0.45, 0.6, "not shown"),
            (0.4, 0.55, 0.6, "not shown"),
            (None, 0.1, None, "not shown"),
            (None, None, None, "not run"),
        ],
    )
    def test_by_the_whole_interval(
        self, low: float | None, mean: float | None, high: float | None, status: str
    ) -> None:
        assert Threshold.below(0.5).judge({"low": low, "mean": mean, "high": high}) == status

    def test_works_in_the_other_direction(self) -> None:
        assert Threshold.above(0.5).judge(estimate(0.6, 0.05)) == "met"
        assert Threshold.above(0.5).judge(estimate(0.4, 0.05)) == "unmet"


class TestCriteria:
    def test_thresholds_are_the_guides(self) -> None:
        assert (targets.MSE_BELOW, targets.IMPROVEMENT_ABOVE, targets.OVERHEAD_UP_TO) == (0.012, 0.30, 0.05)
        criteria = evaluate(passing_comparison())
        assert find(criteria, "layernorm", "mse_tokens").threshold == "< 0.012"
        assert find(criteria, "layernorm", "improvement_tokens").threshold == "> 30%"
        assert find(criteria, "layernorm", "overhead").threshold == "<= 5%"

    @pytest.mark.parametrize(
        ("key", "field", "good", "bad"),
        [
            ("mse_tokens", "token_mse", 0.0119, 0.0121),
            ("mse_forward", "forward_mse", 0.0119, 0.0121),
            ("improvement_tokens", "improvement_tokens", 0.301, 0.299),
            ("improvement_forward", "improvement_forward", 0.301, 0.299),
            ("overhead", "overhead", 0.049, 0.051),
        ],
    )
    @pytest.mark.parametrize("model", ["layernorm", "scale"])
    def test_the_status_turns_at_the_threshold(self, model: str, key: str, field: str, good: float, bad: float) -> None:
        for value, status in ((good, "met"), (bad, "unmet")):
            comparison = passing_comparison()
            comparison["models"][model][field] = estimate(value)
            assert find(evaluate(comparison), model, key).status == status

    def test_the_thresholds_themselves_are_not_enough(self) -> None:
        comparison = passing_comparison()
        comparison["models"]["scale"] |= {"token_mse": estimate(0.012), "improvement_tokens": estimate(0.30)}
        criteria = evaluate(comparison)
        assert find(criteria, "scale", "mse_tokens").status == "unmet"
        assert find(criteria, "scale", "improvement_tokens").status == "unmet"

    def test_say_what_was_measured(self) -> None:
        comparison = passing_comparison()
        comparison["models"]["scale"]["token_mse"] = estimate(0.005, 0.001)
        criterion = find(evaluate(comparison), "scale", "mse_tokens")
        assert criterion.measured == 0.005
        assert criterion.interval == pytest.approx((0.004, 0.006))
        assert (criterion.n, criterion.n_of) == (28, "test episodes x 5 seeds")
        assert find(evaluate(comparison), "scale", "overhead").n == 60

    def test_the_smallest_decode_error_is_one_too_many(self) -> None:
        comparison = passing_comparison()
        comparison["models"]["scale"]["decode_error"] = 1e-7
        assert find(evaluate(comparison), "scale", "decodes").status == "unmet"

    def test_one_checkpoint_that_differs_is_one_too_many(self) -> None:
        comparison = passing_comparison()
        comparison["models"]["scale"]["checkpoints"]["loaded_and_identical"] = 4
        criterion = find(evaluate(comparison), "scale", "checkpoint")
        assert (criterion.status, criterion.measured, criterion.n) == ("unmet", 4, 5)

    def test_forward_and_overhead_do_not_decide(self) -> None:
        required = {criterion.key for criterion in evaluate(passing_comparison()) if criterion.required}
        assert required == {"decodes", "mse_tokens", "improvement_tokens", "checkpoint"}

    def test_go_into_json(self) -> None:
        rows = as_json(evaluate(passing_comparison()))
        assert len(rows) == 14
        assert all({"name", "threshold", "measured", "interval", "n", "status"} <= row.keys() for row in rows)


Change = Callable[[Evidence], None]


def set_entry(**values: Any) -> Change:
    def change(entry: Evidence) -> None:
        entry.update(values)

    return change


REQUIRED_FAILURES = {
    "decodes": set_entry(decode_error=0.5),
    "mse_tokens": set_entry(token_mse=estimate(0.5)),
    "improvement_tokens": set_entry(improvement_tokens=estimate(0.1)),
    "checkpoint": set_entry(checkpoints={"files": ["a"], "loaded_and_identical": 0, "of": 1}),
}
HARMLESS_FAILURES = {
    "mse_forward": set_entry(forward_mse=estimate(0.5)),
    "improvement_forward": set_entry(improvement_forward=estimate(-3.0)),
    "overhead": set_entry(overhead=estimate(2.0)),
}


@pytest.mark.parametrize("model", ["layernorm", "scale"])
class TestVerdict:
    def test_passes_if_all_is_met(self, model: str) -> None:
        _, verdict = judged(passing_comparison())
        assert word_of(verdict, model) == "PASS"
        assert verdict["not_evidence"] == []
        assert not verdict["sentence"].startswith("NOT EVIDENCE")

    @pytest.mark.parametrize("key", REQUIRED_FAILURES)
    def test_fails_if_one_required_criterion_is_unmet(self, model: str, key: str) -> None:
        comparison = passing_comparison()
        REQUIRED_FAILURES[key](comparison["models"][model])
        criteria, verdict = judged(comparison)
        assert find(criteria, model, key).status == "unmet"
        assert word_of(verdict, model) == "FAIL"
        assert word_of(verdict, "scale" if model == "layernorm" else "layernorm") == "PASS"

    @pytest.mark.parametrize("key", HARMLESS_FAILURES)
    def test_forward_and_overhead_never_change_it(self, model: str, key: str) -> None:
        comparison = passing_comparison()
        HARMLESS_FAILURES[key](comparison["models"][model])
        criteria, verdict = judged(comparison)
        assert find(criteria, model, key).status == "unmet"
        assert word_of(verdict, model) == "PASS"

    @pytest.mark.parametrize("key", HARMLESS_FAILURES)
    def test_forward_and_overhead_cannot_save_it(self, model: str, key: str) -> None:
        comparison = passing_comparison()
        comparison["models"][model]["token_mse"] = estimate(0.5)
        assert find(evaluate(comparison), model, key).status == "met"
        assert word_of(judged(comparison)[1], model) == "FAIL"

    @pytest.mark.parametrize("around", [0.2, None])
    def test_is_not_shown_if_the_interval_leaves_it_open(self, model: str, around: float | None) -> None:
        comparison = passing_comparison()
        comparison["models"][model]["improvement_tokens"] = estimate(0.35, around)
        assert word_of(judged(comparison)[1], model) == "NOT SHOWN"

    def test_unmet_outweighs_not_shown(self, model: str) -> None:
        comparison = passing_comparison()
        comparison["models"][model]["improvement_tokens"] = estimate(0.35, 0.2)
        comparison["models"][model]["decode_error"] = 0.1
        assert word_of(judged(comparison)[1], model) == "FAIL"

    @pytest.mark.parametrize("good", [True, False])
    def test_a_rehearsal_shows_nothing_whatever_it_measured(self, model: str, good: bool) -> None:
        comparison = passing_comparison()
        if not good:
            comparison["models"][model]["token_mse"] = estimate(0.5)
        missing = shortfalls(epochs=2, seeds=5, test_episodes=28)
        _, verdict = judged(comparison, missing)
        assert word_of(verdict, model) == "NOT SHOWN"
        assert verdict["word"] == "NOT SHOWN"
        assert verdict["sentence"].startswith("NOT EVIDENCE (2 of at least 100 epochs): ")
        assert verdict["not_evidence"] == missing


class TestVerdictWords:
    def test_the_word_is_that_of_the_guides_proposal(self) -> None:
        comparison = passing_comparison()
        comparison["models"]["layernorm"]["decode_error"] = 0.3
        _, verdict = judged(comparison)
        assert verdict["word"] == word_of(verdict, "layernorm") == "FAIL"
        assert word_of(verdict, "scale") == "PASS"

    def test_says_so_if_tokens_do_not_decode(self) -> None:
        comparison = passing_comparison()
        comparison["models"]["layernorm"] |= {"decode_error": 0.3, "token_mse": estimate(0.2)}
        sentence = sentence_of(judged(comparison)[1], "layernorm")
        assert "its own decoder cannot read its tokens" in sentence
        assert "2,000 times" in sentence
        assert "refitted to the codes alone reaches 5.0e-4, 70.0% less than naive's" in sentence
        assert "decode exactly" in sentence_of(judged(comparison)[1], "scale")

    def test_gives_the_gain_and_its_interval(self) -> None:
        comparison = passing_comparison()
        comparison["models"]["scale"]["improvement_tokens"] = estimate(0.8, 0.05)
        assert "80.0% less than naive's (95 % interval 75.0% to 85.0%)" in sentence_of(judged(comparison)[1], "scale")
        comparison["models"]["scale"]["improvement_tokens"] = estimate(0.8, None)
        assert "interval" not in sentence_of(judged(comparison)[1], "scale")

    def test_names_a_cheaper_rounding_only_if_there_is_one(self) -> None:
        comparison = passing_comparison()
        assert "equal bins" not in judged(comparison)[1]["sentence"]
        comparison["baselines"]["bins64"]["token_mse"] = estimate(1e-6)
        assert "64 equal bins has less error at 336 bits" in sentence_of(judged(comparison)[1], "scale")

    def test_retraining_is_never_judged(self) -> None:
        _, verdict = judged(passing_comparison())
        assert verdict["parts"][-1]["word"] == "NOT RUN"
        assert "NOT RUN" in verdict["sentence"]

    def test_the_sentence_holds_every_part(self) -> None:
        _, verdict = judged(passing_comparison())
        for part in verdict["parts"]:
            assert part["sentence"][1:] in verdict["sentence"]
            assert f"{part['subject'][1:]}: {part['word']}." in verdict["sentence"]


class TestShortfalls:
    def test_a_full_run_has_none(self) -> None:
        assert shortfalls(100, 5, 10) == []

    @pytest.mark.parametrize(
        ("run", "sentence"),
        [
            ((99, 5, 10), "99 of at least 100 epochs"),
            ((100, 4, 10), "4 of at least 5 seeds"),
            ((100, 5, 9), "9 of at least 10 test episodes"),
        ],
    )
    def test_are_named(self, run: tuple[int, int, int], sentence: str) -> None:
        assert shortfalls(*run) == [sentence]

    def test_all_stand_in_the_verdict(self) -> None:
        missing = shortfalls(1, 2, 3)
        assert len(missing) == 3
        sentence = judged(passing_comparison(), missing)[1]["sentence"]
        assert all(shortfall in sentence for shortfall in missing)


class TestCheaperRounding:
    def entry(self, mse: float, per_chunk: float) -> Evidence:
        return {"token_mse": estimate(mse), "bits": bits(per_chunk)}

    def rounding(self, mse: float, per_chunk: float) -> str | None:
        baselines = {
            "bins16": self.entry(0.01, 224),
            "bins64": self.entry(0.001, 336),
            "bins256": self.entry(1e-4, 448),
        }
        return cheaper_rounding(self.entry(mse, per_chunk), baselines)

    @pytest.mark.parametrize(
        ("mse", "per_chunk", "name"),
        [
            (0.02, 2875, "bins16"),
            (0.005, 2875, "bins64"),
            (0.0005, 2875, "bins256"),
            (1e-5, 2875, None),
            (0.02, 100, None),
            (0.005, 300, None),
            (0.01, 225, None),
            (0.02, 224, None),
        ],
    )
    def test_is_the_cheapest_with_less_error_and_fewer_bits(
        self, mse: float, per_chunk: float, name: str | None
    ) -> None:
        assert self.rounding(mse, per_chunk) == name


def test_judging_changes_no_number() -> None:
    comparison = passing_comparison()
    before = deepcopy(comparison)
    judged(comparison)
    against(comparison, some_residuals())
    assert comparison == before
