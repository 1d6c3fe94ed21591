"""Criteria, verdict and findings follow from the numbers: flip one number, and the word flips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import pytest

from rfsq_robust import CONDITIONINGS
from workbook import guide, tables
from workbook.comparison import cheaper_rounding
from workbook.criteria import Criterion, as_json, decide, evaluate, judge, shortfalls
from workbook.evaluation import SWITCH_WINDOW
from workbook.findings import against, options
from workbook.layout import LIBERO
from workbook.residual_analysis import layers_enough, majority_share, partings
from workbook.tables import Badge, Bullets, Table, number, share, with_interval
from workbook.wording import less_or_more

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


def judged(comparison: Evidence, missing: Sequence[str] = ()) -> tuple[list[Criterion], Evidence]:
    criteria = evaluate(comparison)
    return criteria, decide(criteria, comparison, list(missing))


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
        assert judge({"low": low, "mean": mean, "high": high}, lambda value: value < 0.5) == status

    def test_works_in_the_other_direction(self) -> None:
        assert judge(estimate(0.6, 0.05), lambda value: value > 0.5) == "met"
        assert judge(estimate(0.4, 0.05), lambda value: value > 0.5) == "unmet"


class TestCriteria:
    def test_thresholds_are_the_guides(self) -> None:
        assert (guide.MSE_BELOW, guide.IMPROVEMENT_ABOVE, guide.OVERHEAD_UP_TO) == (0.012, 0.30, 0.05)
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


class TestAgainst:
    def test_a_rounding_that_is_better(self) -> None:
        comparison = passing_comparison()
        assert not says(against(comparison), "equal bins has less error than the fixed-scale")
        comparison["baselines"]["bins256"]["token_mse"] = estimate(1e-6)
        assert says(against(comparison), "256 equal bins has less error than the fixed-scale")

    def test_a_target_that_naive_meets_too(self) -> None:
        comparison = passing_comparison()
        assert not says(against(comparison), "tells nothing apart")
        comparison["models"]["none"]["token_mse"] = estimate(0.004)
        assert says(against(comparison), "tells nothing apart", "0.004")

    def test_statistics_that_would_have_to_be_sent(self) -> None:
        comparison = passing_comparison()
        assert not says(against(comparison), "float16")
        comparison["models"]["layernorm"]["decode_error"] = 0.4
        assert says(against(comparison), "float16", "2,048 bits")

    def test_dead_layers_only_if_there_are_some(self) -> None:
        comparison = passing_comparison()
        assert not says(against(comparison, some_residuals()), "always send the same code")
        assert says(against(comparison, some_residuals(dead=[1, 2, 3])), "3 of 4 naive layers always send the same")
        assert not says(against(comparison), "always send the same code")

    def test_layers_to_spare_only_if_there_are_some(self) -> None:
        comparison, residuals = passing_comparison(), some_residuals()
        assert not says(against(comparison, residuals), "harder to predict")
        residuals["scale"] = residual_entry(enough=1)
        assert says(against(comparison, residuals), "first 1 of 4 layers", "719 bits", "other 3")

    def test_zeros_that_are_not_kept(self) -> None:
        comparison = passing_comparison()
        comparison["models"]["scale"]["token_errors"]["zeros_kept"] = estimate(0.123)
        assert says(against(comparison), "exactly zero", "12.3%")
        comparison["models"]["scale"]["token_errors"]["zeros_kept"]["mean"] = None
        assert not says(against(comparison), "exactly zero")

    def test_always_says_what_was_not_measured(self) -> None:
        assert says(against(passing_comparison()), "success itself was not measured")


class TestOptions:
    def test_nothing_is_claimed_to_have_been_run(self) -> None:
        found = options(passing_comparison(), some_residuals())
        assert [option["option"][0] for option in found] == ["A", "B", "C"]
        assert {option["word"] for option in found} == {"NOT RUN", "NOT SHOWN"}

    def test_the_decode_rule_is_named_where_retraining_is(self) -> None:
        assert "given the layers before it" in options(passing_comparison(), some_residuals())[0]["sentence"]

    def test_option_b_has_the_measured_refit(self) -> None:
        comparison = passing_comparison()
        comparison["models"]["none"]["refitted"]["token_mse"] = estimate(0.03)
        assert "has an MSE of 0.03, 50.0% more than" in options(comparison, some_residuals())[1]["sentence"]

    def test_unusable_tokens_are_not_recommended(self) -> None:
        comparison = passing_comparison()
        assert "cannot read" not in options(comparison, some_residuals())[0]["sentence"]
        comparison["models"]["layernorm"]["decode_error"] = 0.2
        assert "cannot read" in options(comparison, some_residuals())[0]["sentence"]


class TestPartings:
    def naive_ranges(self, std: Sequence[float]) -> list[str]:
        sentences = partings(passing_comparison(), some_residuals(std=std))
        return [sentence for sentence in sentences if "naive residual" in sentence]

    def test_as_measured_inside_the_guides_range(self) -> None:
        coarse, fine = self.naive_ranges([0.4, 0.3, 0.2, 0.005, 0.004, 0.003])
        assert ": as measured" in coarse
        assert ": as measured" in fine

    def test_not_as_measured_outside(self) -> None:
        coarse, fine = self.naive_ranges([0.9, 0.8, 0.7, 0.1, 0.09, 0.08])
        assert ": not as measured" in coarse
        assert "0.700 to 0.900" in coarse
        assert ": not as measured" in fine

    def test_in_part(self) -> None:
        coarse, _ = self.naive_ranges([0.4, 0.3, 0.05, 0.005, 0.004])
        assert ": in part as measured" in coarse

    def test_what_the_last_layer_leaves_enters_none(self) -> None:
        _, fine = self.naive_ranges([0.4, 0.3, 0.2, 0.005, 9.0])
        assert ": as measured" in fine

    def test_layers_that_the_model_does_not_have(self) -> None:
        _, fine = self.naive_ranges([0.4, 0.3, 0.2, 0.005])
        assert "no such layers" in fine

    def test_the_stop_of_naive_only_if_it_stops(self) -> None:
        comparison = passing_comparison()
        assert not says(partings(comparison, some_residuals()), "it stops")
        found = partings(comparison, some_residuals(dead=[1, 2, 3]))
        assert says(found, "it stops", "3 of 4 layers (L1-L3)")
        assert says(found, "82.5% token accuracy", "30.0%")

    def test_layers_that_are_not_in_a_row_are_listed(self) -> None:
        assert says(partings(passing_comparison(), some_residuals(dead=[1, 3])), "(L1, L3)")

    def test_the_guides_mse_stands_beside_the_measured_one(self) -> None:
        comparison = passing_comparison()
        comparison["models"]["layernorm"]["token_mse"] = estimate(0.77)
        sentence = partings(comparison, some_residuals())[0]
        for figure in ("0.0182", "0.0101", "0.02 and 1.0e-4", "90.0% less", "0.77"):
            assert figure in sentence


class TestLayers:
    @pytest.mark.parametrize(
        ("prefix_mse", "enough"),
        [
            ([1.0, 0.5, 0.1], 3),
            ([1.0, 0.104, 0.1], 2),
            ([1.0, 0.106, 0.1], 3),
            ([0.1, 0.1, 0.1], 1),
            ([0.05, 0.5, 0.1], 1),
            ([0.3], 1),
            ([0.5, 0.0, 0.0], 2),
        ],
    )
    def test_enough(self, prefix_mse: list[float], enough: int) -> None:
        assert layers_enough(prefix_mse) == enough

    def test_majority_share_by_hand(self) -> None:
        codes = np.zeros((4, 2, 2), dtype=np.int64)
        codes[:, 0, 1] = [1, 1, 1, 2]
        codes[:, 1, 1] = [0, 1, 2, 3]
        assert majority_share(codes) == pytest.approx([1.0, (0.75 + 0.25) / 2])

    def test_the_most_common_code_is_taken_place_by_place(self) -> None:
        codes = np.zeros((4, 2, 1), dtype=np.int64)
        codes[:, 1] = 5
        assert majority_share(codes) == pytest.approx([1.0])


class TestNumber:
    @pytest.mark.parametrize(
        ("value", "digits", "text"),
        [
            (None, 2, "-"),
            (0.0, 2, "0"),
            (0.5, 2, "0.5"),
            (0.01234, 2, "0.012"),
            (0.01234, 3, "0.0123"),
            (12.34, 2, "12"),
            (123.4, 2, "123"),
            (1234.5, 2, "1,234"),
            (0.00012, 2, "1.2e-4"),
            (123456.0, 2, "1.2e5"),
            (-0.5, 2, "-0.5"),
        ],
    )
    def test_reads_well(self, value: float | None, digits: int, text: str) -> None:
        assert number(value, digits) == text

    @pytest.mark.parametrize(("value", "digits", "text"), [(99.6, 2, "100"), (-99.7, 2, "-100"), (999.6, 3, "1,000")])
    def test_reads_well_where_it_rounds_up(self, value: float, digits: int, text: str) -> None:
        assert number(value, digits) == text

    @pytest.mark.parametrize(
        ("value", "text"),
        [(None, "-"), (0.301, "30.1%"), (0.0, "0.0%"), (-0.5, "-50.0%"), (-4.0, "5 times the error")],
    )
    def test_share(self, value: float | None, text: str) -> None:
        assert share(value) == text

    def test_with_interval(self) -> None:
        assert with_interval(estimate(0.5, 0.1)) == "0.5 (0.4 to 0.6)"
        assert with_interval(estimate(0.5, None)) == "0.5"
        assert with_interval({"mean": None, "low": None, "high": None}) == "none in the data"


class TestTables:
    def test_cells_are_escaped(self) -> None:
        html = Table(["<b>", "a & b"], [["<script>alert(1)</script>", "x"]], "1 < 2").html
        assert "<script>" not in html
        assert "&lt;script&gt;" in html
        assert "<th>&lt;b&gt;</th><th>a &amp; b</th>" in html
        assert "1 &lt; 2" in html

    def test_badges_stay_badges(self) -> None:
        table = Table(["word"], [[Badge("NOT SHOWN")]])
        assert '<td><span class="badge not-shown">NOT SHOWN</span></td>' in table.html
        assert "| NOT SHOWN |" in table.markdown

    def test_markdown_keeps_its_columns(self) -> None:
        lines = Table(["a", "b"], [["x|y", "z"]], "note").markdown.splitlines()
        assert lines == ["| a | b |", "| --- | --- |", "| x\\|y | z |", "", "note"]

    def test_bullets_are_escaped(self) -> None:
        assert Bullets(["a < b", "c"]).html == "<ul><li>a &lt; b</li><li>c</li></ul>"
        assert Bullets(["a", "c"]).markdown == "- a\n- c"

    def test_a_task_cannot_bring_html_into_the_data_card(self) -> None:
        assert "<img" not in tables.tasks_table({"tasks": {"<img src=x>": 3}}).html

    @pytest.mark.parametrize("model", ["layernorm", "scale"])
    def test_the_criteria_table_has_a_row_for_each_criterion(self, model: str) -> None:
        criteria = evaluate(passing_comparison())
        for source in (criteria, as_json(criteria)):
            table = tables.criteria_table(source, model)
            assert len(table.rows) == 7
            assert {len(row) for row in table.rows} == {len(table.header)}
            assert [row[-1] for row in table.rows].count("yes") == 4
            assert {str(row[5]) for row in table.rows} == {"met"}

    def test_the_criteria_table_shows_numbers_and_status(self) -> None:
        comparison = passing_comparison()
        comparison["models"]["scale"] |= {"improvement_tokens": estimate(-4.0, 1.0), "token_mse": estimate(0.5, 0.1)}
        rows = {str(row[0]): [str(cell) for cell in row] for row in self.scale_rows(comparison)}
        gain = rows["Improvement over naive from tokens alone, own decoder"]
        assert gain[2:4] == ["5 times the error", "4 to 6 times the error"]
        assert gain[5:] == ["unmet", "yes"]
        assert rows["MSE from tokens alone, own decoder"][2:4] == ["0.5", "0.4 to 0.6"]
        assert rows["Checkpoints load and decode to the same bits"][2] == "5 of 5"

    def scale_rows(self, comparison: Evidence) -> Sequence[Sequence[Any]]:
        return tables.criteria_table(evaluate(comparison), "scale").rows

    def test_the_verdict_block_warns_of_a_rehearsal(self) -> None:
        full, rehearsal = (judged(passing_comparison(), missing)[1] for missing in ([], ["2 of at least 5 seeds"]))
        assert "NOT EVIDENCE" not in tables.verdict_block(full).html
        assert "NOT EVIDENCE: this run has 2 of at least 5 seeds" in tables.verdict_block(rehearsal).html

    def test_the_physical_table_shows_every_codec(self) -> None:
        table = tables.physical_table(passing_comparison())
        assert len(table.header) == 2 + len(CONDITIONINGS) + 1 + 3
        assert {len(row) for row in table.rows} == {len(table.header)}
        assert f"{SWITCH_WINDOW} steps" in table.note

    def test_the_physical_table_leaves_out_what_the_data_have_no_dimension_for(self) -> None:
        comparison = passing_comparison()
        whole = [row[0] for row in tables.physical_table(comparison).rows]
        entries = [*comparison["models"].values(), comparison["models"]["layernorm"]["with_statistics"]]
        for entry in [*entries, *comparison["baselines"].values()]:
            entry["token_errors"]["joint_length"] = {"mean": None, "low": None, "high": None, "per_seed": []}
        left = [row[0] for row in tables.physical_table(comparison).rows]
        assert left == [label for label in whole if label != "joints, length of the error in their own units"]
        assert len(left) == len(whole) - 1

    def test_the_dimension_table_has_the_dimensions_of_the_layout(self) -> None:
        comparison = passing_comparison() | {"layout": "position:2 gripper:1"}
        assert [row[0] for row in tables.dimension_table(comparison).rows] == ["x", "y", "gripper"]

    def test_what_does_not_decode_has_no_column_of_dimensions(self) -> None:
        comparison = passing_comparison()
        assert "layernorm" in tables.dimension_table(comparison).header
        comparison["models"]["layernorm"]["decode_error"] = 0.2
        table = tables.dimension_table(comparison)
        assert "layernorm" not in table.header
        assert len(table.rows) == 7

    def test_the_bits_table_counts_side_information(self) -> None:
        rows = {row[0]: row for row in tables.bits_table(passing_comparison()).rows}
        assert len(rows) == len(CONDITIONINGS) + 3 + 3
        assert rows["layernorm, statistics sent"][1:3] == ["4,923", "2,048"]
        assert rows["16 bins"][1:3] == ["224", "0"]

    def test_dead_layers_are_marked(self) -> None:
        table = tables.layers_table(some_residuals(dead=[2]))
        assert [str(row[2]).endswith("dead") for row in table.rows] == [False, False, True, False]


def test_judging_changes_no_number() -> None:
    comparison = passing_comparison()
    before = deepcopy(comparison)
    judged(comparison)
    against(comparison, some_residuals())
    assert comparison == before


@pytest.mark.parametrize(("gain", "text"), [(0.975, "97.5% less"), (-0.5, "50.0% more"), (-64.6, "65 times more")])
def test_a_gain_in_words(gain: float, text: str) -> None:
    assert less_or_more(gain) == text
