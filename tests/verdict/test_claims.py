"""The guide's claims beside the measurement: turn a number, and the word of its row turns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from decision import contrast, estimate_of_nothing, some_option_b, some_phase2
from evidence import Evidence, estimate, passing_comparison, some_residuals

from workbook.common import targets
from workbook.report.tables.decision import claims_table
from workbook.verdict.claims import guide_claims
from workbook.verdict.success import NOT_ASKED_FOR

WORDS = {"holds", "does not hold", "not shown", "not measured", "not measurable here"}
FINE = (0.3, 0.2, 0.15, 0.005, 0.004, 0.003, 0.002, 0.001, 0.0005)  # std of 8 layers' residuals, as the guide has it
ROBUST, NAIVE = "layernorm", "none"


def some_training(*curves: list[float]) -> Evidence:
    shown = curves or ([targets.EXPECTED_CURVE[100]] * 100,) * 2
    return {
        "device": "cpu",
        "conditionings": {ROBUST: {"runs": [{"curve": list(curve)} for curve in shown]}},
    }


@dataclass
class Case:
    """Evidence of which every part can be changed."""

    training: Evidence = field(default_factory=some_training)
    comparison: Evidence = field(default_factory=passing_comparison)
    residuals: Evidence = field(default_factory=lambda: some_residuals(std=FINE, dead=[2, 3, 4, 5, 6, 7]))
    option_b: Evidence = field(default_factory=some_option_b)
    phase2: Evidence = field(default_factory=some_phase2)
    replay: Evidence = field(default_factory=lambda: dict(NOT_ASKED_FOR))

    @property
    def robust(self) -> Evidence:
        return self.comparison["models"][ROBUST]

    @property
    def rows(self) -> list[Evidence]:
        return guide_claims(self.training, self.comparison, self.residuals, self.option_b, self.phase2, self.replay)

    def row(self, claim: str, number: int = 0) -> Evidence:
        """The row of that claim, the n-th where a claim is measured in two ways."""
        return [row for row in self.rows if row["claim"].startswith(claim)][number]


def of_robust(name: str) -> Callable[[Case, Evidence], None]:
    return lambda case, value: case.robust.update({name: value})


def of_errors(name: str) -> Callable[[Case, Evidence], None]:
    return lambda case, value: case.robust["token_errors"].update({name: value})


def of_naive(case: Case, value: Evidence) -> None:
    case.comparison["models"][NAIVE]["token_mse"] = value


def of_coarse_layers(case: Case, value: Evidence) -> None:
    case.residuals[ROBUST]["prefix_mse"][2] = value


def of_crossed_decoder(case: Case, value: Evidence) -> None:
    case.option_b["rows"]["layernorm_decoder"]["less_than_naive"] = value


JUDGED = [
    ("MSE of the robust RFSQ", 0, of_robust("token_mse"), 0.0119, 0.0121),
    ("the same, as the guide measures", 0, of_robust("forward_mse"), 0.0119, 0.0121),
    ("improvement over naive", 0, of_robust("improvement_tokens"), 0.301, 0.299),
    ("the same, as the guide measures", 1, of_robust("improvement_forward"), 0.301, 0.299),
    ("MSE of naive", 0, of_naive, 0.0182 * 1.99, 0.0182 * 2.01),
    ("MSE of naive", 0, of_naive, 0.0182 / 1.99, 0.0182 / 2.01),
    ("position error, mm", 0, of_errors("position_mm"), 1.19, 1.21),
    ("rotation error, degrees", 0, of_errors("rotation_deg"), 1.79, 1.81),
    ("gripper error", 0, of_errors("gripper_abs"), 0.059, 0.061),
    ("largest error", 0, of_errors("max_abs"), 0.0449, 0.0451),
    ("MSE of L0-L2", 0, of_coarse_layers, 0.0079, 0.0081),
    ("training overhead", 0, of_robust("overhead"), 0.05, 0.051),
    ("option B", 0, of_crossed_decoder, -0.049, -0.051),
]


class TestWords:
    @pytest.mark.parametrize(("claim", "number", "change", "good", "bad"), JUDGED)
    def test_turn_with_the_number(
        self, claim: str, number: int, change: Callable[[Case, Evidence], None], good: float, bad: float
    ) -> None:
        for value, word in ((good, "holds"), (bad, "does not hold")):
            case = Case()
            change(case, estimate(value))
            assert case.row(claim, number)["word"] == word

    @pytest.mark.parametrize(("claim", "number", "change", "good", "bad"), JUDGED)
    def test_are_open_where_the_interval_holds_both(
        self, claim: str, number: int, change: Callable[[Case, Evidence], None], good: float, bad: float
    ) -> None:
        case = Case()
        change(case, contrast(*sorted((good, bad))))
        assert case.row(claim, number)["word"] == "not shown"

    @pytest.mark.parametrize(("claim", "number", "change", "good", "bad"), JUDGED)
    def test_turn_one_row_alone(
        self, claim: str, number: int, change: Callable[[Case, Evidence], None], good: float, bad: float
    ) -> None:
        first, second = Case(), Case()
        change(first, estimate(good))
        change(second, estimate(bad))
        pairs = zip(first.rows, second.rows, strict=True)
        assert [a["claim"] for a, b in pairs if a["word"] != b["word"]] == [first.row(claim, number)["claim"]]

    def test_are_of_a_known_few(self) -> None:
        assert {row["word"] for row in Case().rows} <= WORDS

    def test_training_time_is_that_of_the_slowest_model(self) -> None:
        case = Case()
        case.robust["train_seconds"] = [1.0, 3 * 3600.0]
        assert (case.row("training time")["word"], case.row("training time")["measured"]) == ("holds", "10800 s")
        case.robust["train_seconds"] = [1.0, 3 * 3600.0 + 1]
        assert case.row("training time")["word"] == "does not hold"

    @pytest.mark.parametrize(("size", "word"), [(50_000, "holds"), (50_100, "does not hold")])
    def test_checkpoint_size(self, size: int, word: str) -> None:
        case = Case()
        case.robust["checkpoint_bytes"] = size
        assert case.row("checkpoint size")["word"] == word

    @pytest.mark.parametrize(
        ("layer", "value", "word"),
        [(0, 0.5, "holds"), (0, 0.51, "does not hold"), (2, 0.1, "holds"), (2, 0.09, "does not hold")],
    )
    def test_the_ranges_of_the_naive_residual(self, layer: int, value: float, word: str) -> None:
        std = list(FINE)
        std[layer] = value
        case = Case(residuals=some_residuals(std=std))
        assert case.row("std of naive's residual, L0-L2")["word"] == word
        assert case.row("std of naive's residual, L3-L7")["word"] == "holds"

    def test_what_the_last_layer_leaves_does_not_count(self) -> None:
        case = Case(residuals=some_residuals(std=[*FINE[:-1], 9.0]))
        assert case.row("std of naive's residual, L3-L7")["measured"] == "0.001 to 0.005"


class TestCurve:
    def test_holds_where_every_seed_is_as_low(self) -> None:
        low, high = [targets.EXPECTED_CURVE[100]] * 100, [targets.EXPECTED_CURVE[100]] * 100
        assert Case(some_training(low, high)).row("MSE at epochs")["word"] == "holds"
        high[79] = 0.0101
        assert Case(some_training(low, high)).row("MSE at epochs")["word"] == "does not hold"

    def test_epochs_between_do_not_matter(self) -> None:
        curve = [targets.EXPECTED_CURVE[100] if epoch in targets.EXPECTED_CURVE else 9.0 for epoch in range(1, 101)]
        assert Case(some_training(curve)).row("MSE at epochs")["word"] == "holds"

    def test_shows_the_median_of_the_seeds(self) -> None:
        curves = [[value] * 100 for value in (0.001, 0.002, 0.009)]
        row = Case(some_training(*curves)).row("MSE at epochs")
        assert row["measured"] == ", ".join(["0.002"] * 5)
        assert row["claim"] == "MSE at epochs 10, 30, 50, 80, 100"

    def test_of_fewer_epochs_only_those_are_told(self) -> None:
        row = Case(some_training([0.01] * 49)).row("MSE at epochs")
        assert row["claim"] == "MSE at epochs 10, 30"
        assert row["word"] == "holds"
        assert row["measured"] == "0.01, 0.01"

    def test_of_very_few_none(self) -> None:
        row = Case(some_training([0.01] * 9)).row("MSE at epochs")
        assert (row["word"], row["measured"]) == ("not measured", "-")
        assert row["why"]


class TestNotMeasurable:
    def test_has_a_reason(self) -> None:
        [row] = [row for row in Case().rows if row["word"] == "not measurable here"]
        assert (row["claim"], row["measured"]) == ("MSE of L3-L7", "-")
        assert len(row["why"]) > 40


def gain(low: float, high: float, episodes: int = 38) -> Evidence:
    """A difference in success with its interval, the same for articulated tasks."""
    found = {"difference": {"mean": (low + high) / 2, "low": low, "high": high}, "episodes": episodes}
    return {"all": found, "articulated": found | {"episodes": 8}}


def some_replay(low: float, high: float, *shortfalls: str) -> Evidence:
    contrasts = {key: gain(low, high) for key in ("layernorm", "layernorm_sent", "scale")}
    return {"not_run": "", "episodes": 38, "shortfalls": list(shortfalls), "contrasts": contrasts}


class TestFineManipulation:
    def test_without_a_replay_is_not_measured_and_the_reason_says_what_to_do(self) -> None:
        case = Case(phase2=some_phase2(scale_for_naive=contrast(-0.2, -0.1)))
        row = case.row("fine manipulation")
        assert (row["word"], row["measured"]) == ("not measured", "-")
        assert "./run_all.sh --with-replay" in row["why"]
        assert "15.0% more" in row["why"]

    @pytest.mark.parametrize(
        ("low", "high", "word"), [(0.08, 0.3, "holds"), (-0.1, 0.3, "not shown"), (-0.1, 0.05, "does not hold")]
    )
    def test_is_judged_by_the_whole_interval_of_the_gain_in_success(self, low: float, high: float, word: str) -> None:
        case = Case(replay=some_replay(low, high))
        rows = [row for row in case.rows if "success" in row["claimed"]]
        assert [row["word"] for row in rows] == [word] * 6
        assert "percentage points" in rows[0]["measured"]

    def test_is_of_the_episodes_in_which_something_is_turned_or_pulled(self) -> None:
        replay = some_replay(0.08, 0.3)
        for contrast_ in replay["contrasts"].values():
            contrast_["articulated"] = gain(-0.1, 0.5, 8)["all"]
        rows = [row for row in Case(replay=replay).rows if "success" in row["claimed"]]
        assert [row["word"] for row in rows] == ["not shown"] * 3 + ["holds"] * 3
        assert "of 8 test episodes in which a knob or drawer is moved" in rows[0]["why"]
        assert "of 38 test episodes," in rows[3]["why"]

    def test_of_too_few_episodes_is_not_shown(self) -> None:
        case = Case(replay=some_replay(0.08, 0.3, "2 of at least 20 episodes"))
        assert case.row("fine manipulation")["word"] == "not shown"


class TestWhatTheDataDoNotHave:
    @pytest.mark.parametrize(
        ("key", "claim"),
        [("rotation_deg", "rotation error"), ("gripper_abs", "gripper error"), ("position_mm", "position error")],
    )
    def test_is_not_measured(self, key: str, claim: str) -> None:
        case = Case()
        case.robust["token_errors"][key] = estimate_of_nothing()
        row = case.row(claim)
        assert (row["word"], row["measured"]) == ("not measured", "-")
        assert row["why"]
        assert len(case.rows) == len(Case().rows)

    @pytest.mark.parametrize(("value", "word"), [(0.045, "holds"), (0.0451, "does not hold")])
    def test_the_largest_error_has_no_interval_and_still_a_word(self, value: float, word: str) -> None:
        case = Case()
        case.robust["token_errors"]["max_abs"] = estimate(value, None)
        assert case.row("largest error")["word"] == word

    @pytest.mark.parametrize("layers", [1, 2, 3, 4])
    def test_layers_that_there_are_not(self, layers: int) -> None:
        case = Case(residuals=some_residuals(std=FINE[: layers + 1]))
        case.residuals[ROBUST]["prefix_mse"] = case.residuals[ROBUST]["prefix_mse"][:layers]
        live = min(layers, 2)
        for key in ("independent", "by_layer"):
            for by_rule in case.phase2["subjects"]["naive"]["by_amount"].values():
                by_rule[key]["accuracy"] = by_rule[key]["accuracy"][:live]
        case.phase2["subjects"]["naive"]["majority"] = [0.5, 0.3][:live]
        claims = [row["claim"] for row in case.rows]
        assert ("MSE of L0-L2" in claims) == (layers >= 3)
        fine = case.row("std of naive's residual, L3-L7")
        assert fine["word"] == ("holds" if layers > 3 else "not measured")
        assert case.row("std of naive's residual, L0-L2")["word"] == "holds"


class TestTokenAccuracy:
    def with_accuracy(self, accuracy: list[float], majority: list[float]) -> Evidence:
        case = Case()
        naive = case.phase2["subjects"]["naive"]
        naive["by_amount"]["84"]["independent"]["accuracy"] = accuracy
        naive["majority"] = majority
        return case.row("token accuracy of Phase 2")

    def test_layers_that_always_say_the_same_are_always_right(self) -> None:
        row = self.with_accuracy([0.6, 0.4], [0.5, 0.3])
        assert row["measured"] == "87.5%"  # (0.6 + 0.4 + 6) / 8
        assert row["word"] == "does not hold"
        assert "8 of 8 naive layers, 6 of them constants" in row["why"]
        assert "85.0%" in row["why"]

    @pytest.mark.parametrize(("first", "word"), [(0.672, "holds"), (0.671, "does not hold")])
    def test_turns_with_the_number(self, first: float, word: str) -> None:
        assert self.with_accuracy([first, 0.6], [0.5, 0.3])["word"] == word

    def test_is_that_of_all_training_data(self) -> None:
        case = Case()
        case.phase2["subjects"]["naive"]["by_amount"]["20"]["independent"] = {"accuracy": [1.0, 1.0]}
        assert case.row("token accuracy of Phase 2")["measured"] == "87.5%"


class TestRows:
    def test_all_say_what_was_claimed_and_measured(self) -> None:
        for row in Case().rows:
            assert row.keys() == {"claim", "claimed", "measured", "word", "why"}
            assert row["claimed"]
            assert row["measured"]

    def test_intervals_are_shown(self) -> None:
        case = Case()
        case.robust["token_mse"] = contrast(0.004, 0.006)
        case.robust["improvement_tokens"] = contrast(0.5, 0.7)
        assert case.row("MSE of the robust RFSQ")["measured"] == "0.005 (0.004 to 0.006)"
        assert case.row("improvement over naive")["measured"] == "60.0% (50.0% to 70.0%)"

    def test_go_into_a_table(self) -> None:
        rows = Case().rows
        table = claims_table(rows)
        assert len(table.rows) == len(rows)
        assert [row[0] for row in table.rows] == [row["claim"] for row in rows]
