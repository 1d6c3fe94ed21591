"""The recommendation follows from the numbers by rules that stand before them: turn a number, and the answer turns."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from made_loops import NAIVE_ARGMAX, NAIVE_RETRAINED, NAIVE_SOFT, PAIRS, SCALE_SOFT, first, made
from made_policies import FEW, MOST, around, between, made_run, prediction

from workbook.codecs.klt_rfsq_file import FILE_NAME
from workbook.common.intervals import Estimate
from workbook.evaluation.loop.evidence import Loop, PlayedArm
from workbook.evaluation.policy.evidence import CODEC
from workbook.evaluation.policy.network import RULES
from workbook.training.runs import BEST_FILES, RETRAINED_FILE
from workbook.verdict.recommendation import (
    ABLE_RULES,
    CODEC_LIMITS_FROM,
    DECISION_RULES,
    DecisionRule,
    Recommendation,
    recommend,
)

REHEARSAL = ["2 of at least 5 seeds"]
MET, UNMET, OPEN = between(0.3, 0.4), between(-0.02, 0.01), between(-0.1, 0.3)
BARE = around(0.3, None)
SMALL = between(0.03, 0.049)  # shares of the policy's error, all below the 5 % that option A asks for
OPTION_CASES = [
    ({"new_for_naive": MET}, "A"),
    ({"new_for_naive": MET, "retrained_decoder": MET}, "A"),
    ({"new_for_naive": MET, "codec_share": MET}, "A"),
    ({"new_for_naive": UNMET, "retrained_decoder": MET}, "B"),
    ({"new_for_naive": OPEN, "retrained_decoder": MET}, "B"),
    ({"retrained_decoder": MET, "codec_share": MET}, "B"),
    ({"new_for_naive": OPEN}, "C"),
    ({"new_for_naive": BARE}, "C"),
    ({"new_for_naive": Estimate(None)}, "C"),
    ({"new_for_naive": UNMET, "codec_share": MET}, "C"),
    ({"new_for_naive": UNMET, "codec_share": OPEN}, "keep naive"),
    ({"new_for_naive": UNMET, "retrained_decoder": OPEN}, "keep naive"),
    ({"new_for_naive": UNMET, "naive_rule": MET}, "keep naive"),
    ({}, "keep naive"),
    ({"codec_share": SMALL, "new_for_naive": UNMET}, "cannot decide"),
    ({"codec_share": SMALL, "new_for_naive": MET, "retrained_decoder": MET}, "cannot decide"),
    ({"codec_share": between(0.04, 0.06)}, "keep naive"),
    ({"codec_share": Estimate(None)}, "keep naive"),
    ({"regression_for_naive": OPEN, "new_for_naive": MET}, "cannot decide"),
    ({"regression_for_naive": between(-0.2, -0.1)}, "cannot decide"),
    ({"regression_for_naive": BARE}, "cannot decide"),
]


def recommended(
    *changed: pd.DataFrame, missing: Sequence[str] = (), sizes: Sequence[int] = (FEW, MOST), **contrasts: Estimate
) -> Recommendation:
    return recommend(made_run(*changed, sizes=sizes, **contrasts), missing)


def status(found: Recommendation, key: str) -> str:
    return next(rule.status for rule in found.rules if rule.key == key)


class TestRules:
    def test_thresholds_are_declared(self) -> None:
        assert {rule.key: rule.limit for rule in DECISION_RULES} == {
            "codec_limits": 0.10,
            "option_a": 0.05,
            "option_b": 0.05,
            "decode_rule": 0.05,
        }
        assert {rule.key: rule.limit for rule in ABLE_RULES} == {"codec_counts": 0.05, "tokens_cost": 0.0}

    @pytest.mark.parametrize("rule", DECISION_RULES, ids=lambda rule: rule.key)
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
    def test_turn_with_the_whole_interval(self, rule: DecisionRule, low: float, high: float, expected: str) -> None:
        found = recommended(**{rule.contrast: between(rule.limit + low, rule.limit + high)})
        assert status(found, rule.key) == expected

    @pytest.mark.parametrize("rule", DECISION_RULES, ids=lambda rule: rule.key)
    def test_without_an_interval_nothing_is_shown(self, rule: DecisionRule) -> None:
        assert status(recommended(**{rule.contrast: around(0.9, None)}), rule.key) == "not shown"

    @pytest.mark.parametrize("rule", DECISION_RULES, ids=lambda rule: rule.key)
    def test_each_hangs_on_its_own_numbers_alone(self, rule: DecisionRule) -> None:
        before, after = recommended(), recommended(**{rule.contrast: MET})
        assert [each.key for each in DECISION_RULES if status(before, each.key) != status(after, each.key)] == [
            rule.key
        ]

    def test_say_what_was_measured(self) -> None:
        found = recommended(new_for_naive=between(0.1, 0.3), naive_rule=BARE)
        rules = {rule.key: rule for rule in found.rules}
        assert (rules["option_a"].measured, rules["option_a"].interval) == (pytest.approx(0.2), (0.1, 0.3))
        assert (rules["option_a"].episodes, rules["option_a"].seeds) == (28, 5)
        assert rules["decode_rule"].interval is None

    def test_can_be_written_without_losing_a_number(self) -> None:
        written = recommended(new_for_naive=between(0.1, 0.3), naive_rule=BARE).as_json()
        read = json.loads(json.dumps(written, allow_nan=False))
        assert read["rules"][1]["interval"] == [0.1, 0.3]
        assert {name: read[name] for name in ("option", "words")} == {
            name: written[name] for name in ("option", "words")
        }


class TestOption:
    @pytest.mark.parametrize(("contrasts", "option"), OPTION_CASES)
    def test_follows_from_the_rules(self, contrasts: dict[str, Estimate], option: str) -> None:
        assert recommended(**contrasts).option == option

    @pytest.mark.parametrize(
        ("contrasts", "file", "codec", "setting"),
        [
            ({"new_for_naive": MET}, BEST_FILES["scale"], "fixed_scale", "layers=2"),
            ({"retrained_decoder": MET}, RETRAINED_FILE, "naive", "layers=2"),
            ({"new_for_naive": OPEN}, BEST_FILES["scale"], "fixed_scale", "layers=2"),
            ({}, BEST_FILES["none"], "naive", "layers=2"),
        ],
    )
    def test_what_to_use_is_of_its_own_codec(
        self, contrasts: dict[str, Estimate], file: str, codec: str, setting: str
    ) -> None:
        changed = [prediction("fixed_scale", rule, 0.05) for rule in RULES]  # two layers, and no rule better
        found = recommended(*changed, naive_rule=MET, **contrasts)
        assert (found.checkpoint, found.codec, found.setting) == (file, codec, setting)
        kept = (1, "soft") if codec == "naive" else (2, "parallel_argmax")
        assert (found.layers, found.decode_rule) == kept

    @pytest.mark.parametrize(("codec", "file"), [("klt_rfsq_fixed", FILE_NAME), ("bins", None)])
    def test_a_codec_that_is_fitted_has_its_file_and_rounding_none(self, codec: str, file: str | None) -> None:
        found = recommended(prediction(codec, "soft", 0.01), new_for_naive=MET)
        assert (found.codec, found.checkpoint) == (codec, file)

    @pytest.mark.parametrize("gain", [between(0.01, 0.2), BARE])
    def test_a_rule_that_is_not_shown_to_be_better_is_not_recommended(self, gain: Estimate) -> None:
        assert recommended(naive_rule=gain).decode_rule == "parallel_argmax"
        assert recommended(new_for_naive=MET, new_rule=gain).decode_rule == "parallel_argmax"
        assert recommended(new_for_naive=MET, new_rule=MET).decode_rule == "soft"

    @pytest.mark.parametrize(
        ("gain", "word"),
        [(MET, "PASS"), (UNMET, "FAIL"), (OPEN, "NOT SHOWN"), (BARE, "NOT SHOWN"), (Estimate(None), "NOT RUN")],
    )
    def test_words_are_those_of_the_rules(self, gain: Estimate, word: str) -> None:
        found = recommended(new_for_naive=gain).words
        assert (found["A"], found["B"]) == (word, "FAIL")
        assert found["C"] == ("NOT SHOWN" if word == "NOT RUN" else word)
        assert recommended(retrained_decoder=gain).words == {"A": "FAIL", "B": word, "C": "FAIL"}

    @pytest.mark.parametrize("blind", [{"codec_share": SMALL}, {"regression_for_naive": OPEN}])
    def test_a_probe_that_cannot_see_says_so_and_names_a_rule_for_the_tokens_that_there_are(
        self, blind: dict[str, Estimate]
    ) -> None:
        found = recommended(new_for_naive=MET, naive_rule=MET, **blind)
        assert found.words == {"A": "CANNOT DECIDE", "B": "FAIL", "C": "CANNOT DECIDE"}
        assert (found.codec, found.checkpoint, found.decode_rule) == ("naive", BEST_FILES["none"], "soft")
        assert recommended(naive_rule=OPEN, **blind).decode_rule == "parallel_argmax"

    def test_a_rehearsal_shows_nothing(self) -> None:
        found = recommended(missing=REHEARSAL, new_for_naive=MET, retrained_decoder=UNMET)
        assert set(found.words.values()) == {"NOT SHOWN"}
        assert (found.rehearsal, found.option) == (True, "A")
        assert not recommended().rehearsal


class TestWouldChange:
    def values(self, found: Recommendation, key: str) -> dict:
        return next((values for values in found.would_change if values["key"] == key), {})

    def test_a_policy_so_good_that_the_codec_would_count(self) -> None:
        found = recommended(prediction("naive", "soft", 0.1), prediction("naive", CODEC, 0.002, size=0))
        expected = {"key": "better_policy", "policy_mse": 0.1, "limit": 0.002 / CODEC_LIMITS_FROM}
        assert self.values(found, "better_policy") == pytest.approx(expected)

    def test_or_one_so_bad_that_it_would_not(self) -> None:
        found = recommended(prediction("naive", "soft", 0.1), prediction("naive", CODEC, 0.03, size=0))
        assert self.values(found, "worse_policy")["limit"] == pytest.approx(0.3)

    def test_more_demonstrations_where_two_sizes_were_run(self) -> None:
        found = recommended(
            prediction("fixed_scale", "soft", 0.15, size=FEW), prediction("fixed_scale", "soft", 0.08, 0.01)
        )
        gains = self.values(found, "demonstrations")["gains"]
        assert [each["episodes"] for each in gains] == [FEW, MOST]
        assert [each["gain"] for each in gains] == pytest.approx([-0.5, 0.2])
        assert not self.values(recommended(sizes=(MOST,)), "demonstrations")

    def test_gains_are_between_best_rules(self) -> None:
        found = recommended(prediction("fixed_scale", "autoregressive", 0.05, 0.01))
        assert self.values(found, "demonstrations")["gains"][-1]["gain"] == pytest.approx(0.5)

    def test_tokens_and_batches_are_counted(self) -> None:
        found = recommended()
        training = {"key": "training", "steps": 1600, "batch_size": 64}
        assert self.values(found, "training") == training
        tokens = self.values(found, "sequence_length")
        assert (tokens["tokens_per_chunk"], tokens["naive_tokens_per_chunk"]) == (37, 256)
        assert tokens["gain"] == pytest.approx(1 - 0.08 / 0.1)
        assert np.isfinite(tokens["gain"])


class TestInTheLoop:
    """Policies that act decide, whatever the offline probe says."""

    def recommended(self, loop: Loop, **contrasts: Estimate) -> Recommendation:
        return recommend(made_run(loop=loop, **contrasts), [])

    @pytest.mark.parametrize(
        ("won", "option", "words"),
        [
            ({SCALE_SOFT: 70, NAIVE_SOFT: 30, NAIVE_RETRAINED: 30}, "A", ("PASS", "FAIL")),
            ({SCALE_SOFT: 30, NAIVE_SOFT: 30, NAIVE_RETRAINED: 70, NAIVE_ARGMAX: 30}, "B", ("FAIL", "PASS")),
            ({SCALE_SOFT: 70, NAIVE_SOFT: 70, NAIVE_RETRAINED: 70, NAIVE_ARGMAX: 30}, "decode rule", ("FAIL", "FAIL")),
            ({SCALE_SOFT: 70, NAIVE_SOFT: 70, NAIVE_RETRAINED: 70, NAIVE_ARGMAX: 70}, "keep naive", ("FAIL", "FAIL")),
            ({SCALE_SOFT: 75, NAIVE_SOFT: 70, NAIVE_RETRAINED: 70, NAIVE_ARGMAX: 70}, "C", ("NOT SHOWN", "FAIL")),
        ],
    )
    def test_each_answer(self, won: dict[PlayedArm, int], option: str, words: tuple[str, str]) -> None:
        found = self.recommended(made({arm: first(count) for arm, count in won.items()}), new_for_naive=MET)
        assert (found.evidence, found.option) == ("loop", option)
        assert (found.words["A"], found.words["B"]) == words

    def test_decide_where_the_probe_cannot(self) -> None:
        loop = made({SCALE_SOFT: first(70), NAIVE_SOFT: first(30), NAIVE_RETRAINED: first(30)})
        found = self.recommended(loop, codec_share=SMALL, regression_for_naive=UNMET)
        assert (found.option, found.words["A"]) == ("A", "PASS")

    def test_broken_tokens_are_a_reason_for_new_ones(self) -> None:
        loop = made({NAIVE_SOFT: first(8), NAIVE_ARGMAX: first(6), NAIVE_RETRAINED: first(9), SCALE_SOFT: first(76)})
        found = self.recommended(loop, new_for_naive=UNMET)
        assert (found.option, found.codec, found.decode_rule) == ("A", "fixed_scale", "soft")

    def test_another_rule_for_naive_tokens_only_where_it_is_shown_to_help(self) -> None:
        alike = {NAIVE_SOFT: first(70), NAIVE_RETRAINED: first(70), SCALE_SOFT: first(70)}
        for argmax, rule in ((70, "parallel_argmax"), (30, "soft")):
            found = self.recommended(made(alike | {NAIVE_ARGMAX: first(argmax)}))
            assert (found.codec, found.decode_rule) == ("naive", rule)

    def test_too_few_pairs_decide_nothing(self) -> None:
        loop = made({SCALE_SOFT: first(PAIRS)})
        few = Loop(loop.values, loop.rows[loop.rows.seed < 2], loop.policies)
        assert self.recommended(few, new_for_naive=MET).evidence == "probe"
        assert self.recommended(loop).evidence == "loop"

    def test_what_was_not_run_in_a_simulator_is_said_of_the_probe_alone(self) -> None:
        keys = [each["key"] for each in self.recommended(made({})).would_change]
        assert "task_success" not in keys
        assert "task_success" in [each["key"] for each in recommended().would_change]
