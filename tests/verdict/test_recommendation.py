"""The recommendation follows from the numbers by rules that stand before them: turn a number, and the answer turns."""

from __future__ import annotations

import pytest
from decision import FEW, MOST, POLICY_ERRORS, contrast, estimate_of_nothing, some_option_b, some_phase2, some_rates
from evidence import Evidence, estimate, passing_comparison, says

from workbook.common.wording import signed_interval
from workbook.report.tables.decision import (
    accuracy_table,
    answer_block,
    draft_table,
    option_b_table,
    policy_table,
    rules_table,
)
from workbook.training.baselines import FAMILIES
from workbook.training.runs import BEST_FILES, RETRAINED_FILE
from workbook.verdict.recommendation import CODEC_LIMITS_FROM, OPTION_TITLES, RULES, Rule, options, recommend

REHEARSAL = ["2 of at least 5 seeds"]
RULE_OF = {rule.key: rule for rule in RULES}
MET, UNMET, OPEN = contrast(0.3, 0.4), contrast(-0.02, 0.01), contrast(-0.1, 0.3)
OPTION_CASES = [
    ({"new_for_naive": MET}, "A"),
    ({"new_for_naive": MET, "retrained_decoder": MET}, "A"),
    ({"new_for_naive": MET, "codec_share": MET}, "A"),
    ({"new_for_naive": UNMET, "retrained_decoder": MET}, "B"),
    ({"new_for_naive": OPEN, "retrained_decoder": MET}, "B"),
    ({"retrained_decoder": MET, "codec_share": MET}, "B"),
    ({"new_for_naive": OPEN}, "C"),
    ({"new_for_naive": estimate(0.3, None)}, "C"),
    ({"new_for_naive": UNMET, "codec_share": MET}, "C"),
    ({"new_for_naive": UNMET, "codec_share": OPEN}, "keep naive"),
    ({"new_for_naive": UNMET, "retrained_decoder": OPEN}, "keep naive"),
    ({"new_for_naive": UNMET, "naive_rule": MET}, "keep naive"),
    ({}, "keep naive"),
]


def recommended(
    phase2: Evidence | None = None,
    missing: list[str] | None = None,
    comparison: Evidence | None = None,
    rates: Evidence | None = None,
    option_b: Evidence | None = None,
    **contrasts: Evidence,
) -> Evidence:
    return recommend(
        comparison or passing_comparison(),
        rates or some_rates(),
        option_b or some_option_b(),
        phase2 or some_phase2(**contrasts),
        missing or [],
    )


def status(recommendation: Evidence, key: str) -> str:
    return next(rule["status"] for rule in recommendation["rules"] if rule["key"] == key)


class TestRules:
    def test_thresholds_are_declared(self) -> None:
        assert {rule.key: rule.limit for rule in RULES} == {
            "codec_limits": 0.10,
            "option_a": 0.05,
            "option_b": 0.05,
            "decode_rule": 0.05,
        }

    @pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.key)
    @pytest.mark.parametrize(
        ("low", "high", "expected"),
        [
            (0.001, 0.2, "met"),
            (-0.2, -0.001, "unmet"),
            (-0.2, 0.0, "unmet"),  # the threshold itself is not enough
            (0.0, 0.2, "not shown"),
            (-0.001, 0.2, "not shown"),
            (-0.2, 0.001, "not shown"),
        ],
    )
    def test_turn_with_the_whole_interval(self, rule: Rule, low: float, high: float, expected: str) -> None:
        found = recommended(**{rule.contrast: contrast(rule.limit + low, rule.limit + high)})
        assert status(found, rule.key) == expected

    @pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.key)
    def test_without_an_interval_nothing_is_shown(self, rule: Rule) -> None:
        assert status(recommended(**{rule.contrast: estimate(0.9, None)}), rule.key) == "not shown"

    @pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.key)
    def test_each_hangs_on_its_own_numbers_alone(self, rule: Rule) -> None:
        before, after = recommended(), recommended(**{rule.contrast: MET})
        turned = [key for key in RULE_OF if status(before, key) != status(after, key)]
        assert turned == [rule.key]

    def test_say_what_was_measured(self) -> None:
        found = recommended(new_for_naive=contrast(0.1, 0.3))
        rule = next(rule for rule in found["rules"] if rule["key"] == "option_a")
        assert rule["measured"] == pytest.approx(0.2)
        assert rule["interval"] == [0.1, 0.3]
        assert rule["threshold"] == "> 5%"
        assert rule["n"] == "28 test episodes x 5 seeds"
        assert rule["question"] == RULE_OF["option_a"].question

    def test_go_into_a_table(self) -> None:
        found = recommended(new_for_naive=contrast(0.1, 0.3), naive_rule=estimate(0.2, None))
        rows = {str(row[0]): list(row) for row in rules_table(found).rows}
        assert rows[RULE_OF["option_a"].question][1:5] == [
            "> 5%",
            "20.0%",
            "10.0% to 30.0%",
            "28 test episodes x 5 seeds",
        ]
        assert rows[RULE_OF["decode_rule"].question][3] == "-"


class TestOption:
    @pytest.mark.parametrize(("contrasts", "option"), OPTION_CASES)
    def test_follows_from_the_rules(self, contrasts: dict[str, Evidence], option: str) -> None:
        found = recommended(**contrasts)
        assert found["option"] == option
        assert found["title"] == OPTION_TITLES[option]

    @pytest.mark.parametrize(
        ("contrasts", "file", "subject"),
        [
            ({"new_for_naive": MET}, BEST_FILES["scale"], "scale"),
            ({"retrained_decoder": MET}, RETRAINED_FILE, "naive"),
            ({"new_for_naive": OPEN}, BEST_FILES["scale"], "scale"),
            ({}, BEST_FILES["none"], "naive"),
        ],
    )
    def test_checkpoint_layers_and_rule_are_its_own(
        self, contrasts: dict[str, Evidence], file: str, subject: str
    ) -> None:
        phase2 = some_phase2(**contrasts)
        phase2["subjects"]["scale"] |= {"layers_to_keep": 3, "best_rule": "by_layer"}
        phase2["subjects"]["naive"] |= {"layers_to_keep": 2, "best_rule": "independent"}
        found = recommended(phase2)
        wanted = phase2["subjects"][subject]
        assert found["checkpoint"] == file
        assert (found["layers"], found["decode_rule"]) == (wanted["layers_to_keep"], wanted["best_rule"])

    @pytest.mark.parametrize(
        ("gain", "word"), [(MET, "PASS"), (UNMET, "FAIL"), (OPEN, "NOT SHOWN"), (estimate(0.3, None), "NOT SHOWN")]
    )
    def test_words_are_those_of_the_rules(self, gain: Evidence, word: str) -> None:
        assert recommended(new_for_naive=gain)["words"] == {"A": word, "B": "FAIL"}
        assert recommended(retrained_decoder=gain)["words"] == {"A": "FAIL", "B": word}

    def test_a_rehearsal_shows_nothing(self) -> None:
        found = recommended(missing=REHEARSAL, new_for_naive=MET, retrained_decoder=UNMET)
        assert found["words"] == {"A": "NOT SHOWN", "B": "NOT SHOWN"}
        assert found["sentences"][0].startswith("No answer from a rehearsal")
        assert "Yes, retrain Phase 2" in found["sentences"][0]

    @pytest.mark.parametrize(("contrasts", "option"), OPTION_CASES)
    def test_a_full_run_answers(self, contrasts: dict[str, Evidence], option: str) -> None:
        answers = {"A": "Yes", "B": "Do not retrain Phase 2", "C": "Not yet", "keep naive": "No, keep"}
        assert recommended(**contrasts)["sentences"][0].startswith(answers[option])


class TestSentences:
    def test_there_are_three(self) -> None:
        found = recommended()["sentences"]
        assert len(found) == 3
        assert all(sentence.endswith(".") for sentence in found)

    def test_each_carries_its_interval(self) -> None:
        found = recommended(
            new_for_naive=contrast(0.101, 0.303),
            codec_share=contrast(0.011, 0.022),
            naive_rule=contrast(0.033, 0.044),
            retrained_decoder=contrast(-0.066, -0.055),
            new_rule=contrast(0.077, 0.088),
            option_b=some_option_b(contrast(0.099, 0.121)),
            rates=some_rates(contrast(-0.132, 0.143)),
        )["sentences"]
        assert "20.2% less error" in found[0]
        assert "(95 % interval 10.1% to 30.3% less)" in found[0]
        assert "(1.1% to 2.2%)" in found[0]
        assert "(95 % interval 3.3% to 4.4% less)" in found[1]
        assert "(95 % interval 9.9% to 12.1% less)" in found[1]
        assert "(95 % interval 5.5% to 6.6% more)" in found[1]
        assert "(95 % interval 7.7% to 8.8% less)" in found[2]
        assert "95 % interval 13.2% more to 14.3% less)" in found[2]

    def test_without_intervals_there_are_none(self) -> None:
        bare = {name: estimate(0.2, None) for name in some_phase2()["contrasts"] if name != "episodes"}
        found = recommended(
            some_phase2(**bare), option_b=some_option_b(estimate(0.1, None)), rates=some_rates(estimate(0.1, None))
        )
        assert not says(found["sentences"], "interval")
        assert not says(found["sentences"], "None")

    def test_more_error_is_said_as_more(self) -> None:
        assert "20.0% more error" in recommended(new_for_naive=contrast(-0.3, -0.1))["sentences"][0]

    def test_if_argmax_is_naives_best_rule_it_says_so(self) -> None:
        phase2 = some_phase2(naive_rule=estimate(0.0))
        phase2["subjects"]["naive"]["best_rule"] = "independent"
        sentence = recommended(phase2)["sentences"][1]
        assert sentence.startswith("No other decode rule of naive's heads than an independent argmax was chosen")

    def test_what_cannot_be_read_is_never_recommended(self) -> None:
        comparison = passing_comparison()
        assert not says(recommended(comparison=comparison)["sentences"], "never")
        comparison["models"]["layernorm"]["decode_error"] = 0.4
        assert "never those of" in recommended(comparison=comparison)["sentences"][2]
        assert "LayerNorm" in recommended(comparison=comparison)["sentences"][2]

    def test_layers_and_checkpoint_of_new_tokens_are_named(self) -> None:
        phase2 = some_phase2()
        assert f"scale, 2 layers ({BEST_FILES['scale']})" in recommended(phase2)["sentences"][2]
        phase2["new_codec"] = "klt_rfsq"
        assert "KLT-RFSQ, 36 residual codes (klt_rfsq.npz), 37 tokens a chunk" in " ".join(
            recommended(phase2)["sentences"][2].split(", never")
        )

    def test_a_rule_that_is_not_shown_to_be_better_is_not_recommended(self) -> None:
        phase2 = some_phase2(naive_rule=contrast(0.01, 0.2), new_rule=contrast(0.01, 0.2))
        found = recommended(phase2)
        assert found["decode_rule"] == "independent"
        assert "an independent argmax of each layer, which no other rule is shown to better" in found["sentences"][2]

    def test_a_difference_that_is_none_is_said_to_be_none(self) -> None:
        found = recommended(new_for_naive=contrast(-0.02, 0.04))["sentences"][0]
        assert "has error that is not shown to differ (1.0% less; 95 % interval 2.0% more to 4.0% less)" in found

    @pytest.mark.parametrize(
        ("rule", "said"),
        [
            ("by_layer", "argmax layer by layer, each given those before it, 20.0% less error"),
            ("expected", "the expected value of independent heads, 20.0% less error"),
            ("independent", "an independent argmax of each layer, which no other rule is shown to better"),
        ],
    )
    def test_new_tokens_are_decoded_by_their_best_rule(self, rule: str, said: str) -> None:
        phase2 = some_phase2()
        phase2["subjects"]["scale"]["best_rule"] = rule
        assert f"decoded by {said}" in recommended(phase2)["sentences"][2]

    def test_equal_bits_are_told_where_they_were_measured(self) -> None:
        sentence = recommended(rates=some_rates(estimate(0.2, 0.01)))["sentences"][2]
        assert "at 80 bits a chunk" in sentence
        assert FAMILIES["klt_rfsq"].title in sentence
        assert "against FAST-style tokens, KLT-RFSQ of variable length has 20.0% less reconstruction error" in sentence

    @pytest.mark.parametrize("rates", [some_rates(estimate_of_nothing(), None), {"against_fast": []}])
    def test_and_said_to_be_missing_where_not(self, rates: Evidence) -> None:
        assert "FAST-style tokens were not to be had at 80 bits" in recommended(rates=rates)["sentences"][2]


class TestWouldChange:
    def with_errors(self, policy: float, codec: float) -> list[str]:
        phase2 = some_phase2()
        naive = phase2["subjects"]["naive"]
        naive["by_amount"][str(MOST)]["expected"]["errors"]["mse"] = estimate(policy)
        naive["codec_mse"] = estimate(codec)
        return recommended(phase2)["would_change"]

    def test_a_policy_so_good_that_the_codec_would_count(self) -> None:
        found = self.with_errors(policy=0.1, codec=0.002)
        assert says(found, "A better policy", f"from 0.1 to {0.002 / CODEC_LIMITS_FROM:g}")

    def test_or_one_so_bad_that_it_would_not(self) -> None:
        assert says(self.with_errors(policy=0.1, codec=0.03), "A worse policy", "0.3")

    def test_more_demonstrations_where_two_amounts_were_run(self) -> None:
        phase2 = some_phase2()
        gap = 1 - POLICY_ERRORS["scale"] / POLICY_ERRORS["naive"]
        few = phase2["subjects"]["scale"]["by_amount"][str(FEW)]
        few["expected"] = {"errors": {"mse": estimate(0.15)}}
        found = recommended(phase2)["would_change"]
        assert says(found, f"50.0% more with {FEW} episodes", f"{gap:.1%} less with {MOST} episodes")
        phase2["amounts"] = [MOST]
        assert not says(recommended(phase2)["would_change"], "More demonstrations")

    def test_gaps_are_between_best_rules(self) -> None:
        phase2 = some_phase2()
        phase2["subjects"]["scale"]["best_rule"] = "by_layer"
        phase2["subjects"]["scale"]["by_amount"][str(MOST)]["by_layer"] = {"errors": {"mse": estimate(0.05)}}
        assert says(recommended(phase2)["would_change"], f"50.0% less with {MOST} episodes")

    def test_tokens_and_batches_are_counted(self) -> None:
        found = recommended()["would_change"]
        assert says(found, "400 batches of 64 chunks")
        assert says(found, "37 tokens a chunk", "naive 256", "30.0% less error")

    def test_says_that_nothing_was_executed(self) -> None:
        assert says(recommended()["would_change"], "The policies were not run in a simulator or on a robot")


class TestOptions:
    def told(self, missing: list[str] | None = None, **contrasts: Evidence) -> list[Evidence]:
        phase2 = some_phase2(**contrasts)
        return options(recommended(phase2, missing), some_option_b(), phase2)

    def test_there_are_three(self) -> None:
        assert [row["option"] for row in self.told()] == [OPTION_TITLES[key] for key in ("A", "B", "C")]

    @pytest.mark.parametrize(("contrasts", "option"), OPTION_CASES)
    def test_words_are_those_of_the_recommendation(self, contrasts: dict[str, Evidence], option: str) -> None:
        words = recommended(**contrasts)["words"]
        told = self.told(**contrasts)
        assert [row["word"] for row in told[:2]] == [words["A"], words["B"]]
        assert told[2]["word"] == ("NOT SHOWN" if option == "C" else words["A"])

    def test_of_a_rehearsal_nothing_is_shown(self) -> None:
        assert {row["word"] for row in self.told(REHEARSAL, new_for_naive=MET)} == {"NOT SHOWN"}

    def test_sentences_hold_the_numbers(self) -> None:
        retrain, replace, step = (row["sentence"] for row in self.told(new_for_naive=contrast(0.1, 0.3)))
        assert "20.0% less error (95 % interval 10.0% to 30.0% less) of the policy against naive's" in retrain
        assert "argmax 10.0% more, layer by layer 7.0% less, expected value 3.0% less" in retrain
        for mse in ("0.5", "0.002", "0.0018", "0.001"):
            assert mse in replace
        assert "speaks for going on" in step

    def test_what_the_first_step_says_turns_with_the_answer(self) -> None:
        steps = {option: self.told(**contrasts)[2]["sentence"] for contrasts, option in OPTION_CASES}
        assert len(set(steps.values())) == len(steps) == 4


class TestTables:
    def test_the_answer_holds_all_that_is_to_be_used(self) -> None:
        found = recommended(new_for_naive=MET)
        html = answer_block({"recommendation": found, "verdict": {"not_evidence": []}}).html
        assert BEST_FILES["scale"] in html
        assert "PASS" in html
        assert "FAIL" in html
        assert html.count("<p>") >= len(found["sentences"])

    def test_option_b_leaves_out_what_has_no_gain(self) -> None:
        evidence = some_option_b()
        assert len(option_b_table(evidence).rows) == 6
        evidence["rows"]["scale"]["less_than_naive"] = estimate_of_nothing()
        assert len(option_b_table(evidence).rows) == 5

    def test_policies_have_a_row_for_each_amount_codec_and_rule(self) -> None:
        table = policy_table(some_phase2())
        assert len(table.rows) == 2 * (1 + 4 * 3 + 3)
        assert "joints" not in table.header
        assert "gripper wrong" in table.header
        crossed = [row for row in table.rows if "retrained decoder" in str(row[2])]
        assert len(crossed) == 2 * 3
        assert {row[-1] for row in table.rows} == {"300", "-"}

    def test_accuracies_stand_beside_the_commonest_code(self) -> None:
        table = accuracy_table(some_phase2())
        assert len(table.rows) == 4 * 2
        assert list(table.rows[0])[2:] == ["50.0%", "2.00", "60.0%", "60.0%"]

    def test_drafts_agree_layer_by_layer(self) -> None:
        rows = [list(row) for row in draft_table(some_phase2()).rows]
        assert len(rows) == 4
        assert rows[0][2:] == ["80.0%, 60.0%", "70.0%"]


class TestSignedInterval:
    @pytest.mark.parametrize(
        ("low", "high", "words"),
        [
            (0.055, 0.129, " (95 % interval 5.5% to 12.9% less)"),
            (-0.129, -0.055, " (95 % interval 5.5% to 12.9% more)"),
            (-0.05, 0.03, " (95 % interval 5.0% more to 3.0% less)"),
            (0.0, 0.1, " (95 % interval 0.0% to 10.0% less)"),
            (-3.0, -0.5, " (95 % interval 50.0% to 300.0% more)"),
            (-50.0, -30.0, " (95 % interval 30 times to 50 times more)"),
            (-3.0, 0.5, " (95 % interval 300.0% more to 50.0% less)"),
            (None, None, ""),
        ],
    )
    def test_says_which_way_each_end_lies(self, low: float | None, high: float | None, words: str) -> None:
        assert signed_interval({"mean": 0.0, "low": low, "high": high}) == words
