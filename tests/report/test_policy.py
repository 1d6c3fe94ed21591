"""Small policies and the recommendation in words, tables and figures."""

from __future__ import annotations

import re

import pandas as pd
import pytest
from made_loops import (
    ALL,
    NAIVE_ARGMAX,
    NAIVE_RETRAINED,
    NAIVE_SOFT,
    SCALE_SOFT,
    first,
    made,
    with_drafts,
    with_offline,
)
from made_policies import LONGER, MINE, SCORES, SETTINGS, around, between, made_run, prediction, with_brought
from made_rows import fast_rows, model_rows
from traces import failed, made_replays, trace

from workbook.common.intervals import Estimate
from workbook.common.note import note
from workbook.evaluation.evidence import Evidence
from workbook.evaluation.policy.network import RULES
from workbook.evaluation.score import Scores
from workbook.report import decision
from workbook.report.drawings.loop import success_of_arms
from workbook.report.drawings.policy import at_two_rules
from workbook.report.figures import policy as figures
from workbook.report.tables.loop import acceptance_table, contrasts_table, offline_table, success_table, tasks_table
from workbook.report.tables.policy import (
    accuracy_table,
    answer_block,
    draft_table,
    network_table,
    options_table,
    policy_table,
    rules_table,
    summary_table,
)
from workbook.report.text import recommendation as text, words
from workbook.report.text.codecs import title
from workbook.report.text.loop import remarks
from workbook.training.runs import BEST_FILES

MET, OPEN = between(0.3, 0.4), between(-0.1, 0.3)


def said(run: Evidence) -> str:
    return " ".join([*text.sentences(run), text.use(run), *text.would_change(run), *text.options(run).values()])


class TestBrought:
    """One codec that is predicted, better than all others, and one that is not."""

    def test_stand_beside_the_others_with_what_does_not_decode(self) -> None:
        run = made_run()
        vars(run)["policy"] = with_brought(run.policy)
        table = summary_table(run)
        rows = {row[0]: row for row in table.rows}
        assert rows["Longer"][1].startswith("NOT RUN")
        assert {len(row) for row in table.rows} == {len(table.header)}
        assert f"{run.policy.best_error(run.policy.of(MINE)).mean:g}" in rows["Mine"][3]
        assert "12.5%" in table.note.replace(" %", "%")
        assert "NOT RUN" not in said(run)
        assert summary_table(made_run()).note == words("policy").summary_note

    def test_that_do_not_play_are_told(self) -> None:
        run = made_run(loop=made({}))
        run.loop.values.update(demonstrations=8, policy={"steps": 2000}, left_out_tasks=[])
        before = remarks(run)
        run.loop.values["not_predicted"] = {LONGER: "varies"}
        (added,) = [sentence for sentence in remarks(run) if sentence not in before]
        assert added.startswith("Longer: NOT RUN")


class TestInTheLoop:
    """Where policies that act have decided."""

    def test_counts_stand_beside_their_p_and_what_could_be_seen(self) -> None:
        run = made_run(loop=made({SCALE_SOFT: first(70), NAIVE_SOFT: first(30), NAIVE_RETRAINED: first(30)}))
        answer, heads, anew, *_ = text.sentences(run)
        assert answer == text.whether(run)
        assert "70 of 84" in answer
        assert "30 of 84" in answer
        assert "fixed scale" in anew
        assert "argmax" in heads
        assert not any(wrong in " ".join(text.sentences(run)).split() for wrong in ("nan", "None"))

    def test_another_answer_has_other_words(self) -> None:
        alike = {NAIVE_SOFT: first(70), NAIVE_RETRAINED: first(70), SCALE_SOFT: first(70)}
        runs = [made_run(loop=made(alike | {NAIVE_ARGMAX: first(count)})) for count in (70, 30)]
        assert len({text.headline(run) for run in runs}) == 2
        assert all(text.whether(run).startswith(text.headline(run)) for run in runs)

    def test_a_rehearsal_and_doubtful_data_answer_nothing(self) -> None:
        run = made_run(loop=made({}), missing=["few seeds"])
        assert text.whether(run).startswith("No answer from a rehearsal")
        run.data["doubts"] = [note("still_stream", arm=True)]
        assert text.whether(run).startswith("No answer from such data")

    def test_the_probe_is_said_to_stand_in_and_the_policies_to_have_played(self) -> None:
        by_loop, by_probe = made_run(loop=made({})), made_run()
        assert rules_table(by_loop).note != rules_table(by_probe).note
        assert text.use(by_loop) != text.use(by_probe)

    def test_tables_hold_every_arm_and_question(self) -> None:
        run = made_run(loop=made({}))
        assert [len(table(run).rows) for table in (success_table, tasks_table)] == [len(ALL)] * 2
        assert len(contrasts_table(run).rows) == len(run.loop.contrasts) == 6
        assert success_of_arms(run).alt

    def test_replay_and_loop_are_told_apart_where_they_differ_and_put_together_where_not(self) -> None:
        replays = made_replays(["task"] * 24, naive=[*[failed()] * 12, *[trace()] * 12])
        texts = []
        for scale in (70, 30):
            run = made_run(loop=made({SCALE_SOFT: first(scale), NAIVE_SOFT: first(30)}))
            vars(run)["replays"] = replays
            texts.append(text.sentences(run)[-1])
        assert all("24 of 24" in each and "12 of 24" in each and "30 of 84" in each for each in texts)
        assert len({each.split(".")[-2] for each in texts}) == 2

    def test_offline_figures_and_acceptance_stand_beside_success(self) -> None:
        loop = made({arm: first(80 - 9 * at) for at, arm in enumerate(ALL)})
        run = made_run(loop=with_drafts(with_offline(loop, mse={arm: float(at) for at, arm in enumerate(ALL)})))
        table = offline_table(run)
        assert table.rows[0][1:3] == [f"{len(ALL)}", "-1"]
        assert "MSE orders them most as success does: rho -1 (" in table.note
        assert acceptance_table(run).rows[0][1:] == ["60.0%", "57.0%", "90.0%, 60.0%, 30.0%", "87.0%, 57.0%, 27.0%"]
        assert offline_table(made_run(loop=made({}))).note


class TestSentences:
    def test_carry_their_numbers_and_intervals(self) -> None:
        run = made_run(
            new_for_naive=between(0.101, 0.303),
            codec_share=between(0.011, 0.022),
            naive_rule=between(0.033, 0.044),
            retrained_decoder=between(-0.066, -0.055),
            new_rule=between(0.077, 0.089),
        )
        run.tables["against_fast"] = fast_rows("fixed_scale", "layers=2", 0.009, {"bits": 0.01, "words": 0.006})
        whether, how, which = text.sentences(run)
        assert "20.2% less error (95 % interval 10.1% to 30.3% less)" in whether
        assert "(95 % interval 1.1% to 2.2%)" in whether
        assert "3.9% less error (95 % interval 3.3% to 4.4% less)" in how
        assert "10.0% less codec error" in how
        assert "(95 % interval 5.5% to 6.6% more)" in how
        assert f"fixed scale, 2 layers ({BEST_FILES['scale']})" in which
        assert "256 tokens a chunk" in which
        assert "8.3% less error (95 % interval 7.7% to 8.9% less)" in which
        assert "of equal bits: 10.0% less reconstruction error (95 % interval 10.0% to 10.0% less)" in which
        assert "of equal words: 50.0% more reconstruction error (95 % interval 50.0% to 50.0% more)" in which
        assert "\n" not in said(run)
        assert "  " not in said(run)
        assert not re.search(r"[a-z)]\.[A-Z]", said(run))  # sentences that stand together without a space
        assert all(sentence.endswith(".") for sentence in (whether, how, which))

    def test_without_intervals_there_are_none(self) -> None:
        bare = around(0.2, None)
        names = ("new_for_naive", "codec_share", "naive_rule", "retrained_decoder", "new_rule", "fixed_scale_for_naive")
        names += ("regression_for_naive",)
        scores = Scores(SCORES.rows[SCORES.rows.episode.str.endswith("demo_0")])
        run = made_run(scores=scores, **dict.fromkeys(names, bare))
        run.results["recommendation"]["would_change"] = []  # which has one of rows, and these have intervals
        found = said(run)
        assert "interval" not in found
        assert "None" not in found

    def test_the_answer_turns_with_the_option(self) -> None:
        cases: list[dict[str, Estimate]] = [
            {"new_for_naive": MET},
            {"retrained_decoder": MET},
            {"new_for_naive": OPEN},
            {},
        ]
        runs = [made_run(**case) for case in cases]
        assert len({text.headline(run) for run in runs}) == len(runs)
        assert len({text.options(run)["C"] for run in runs}) == len(runs)

    def test_a_probe_that_cannot_decide_says_what_can(self) -> None:
        run = made_run(codec_share=between(0.01, 0.02), naive_rule=MET)
        assert "--with-simulator" in text.whether(run)
        assert "--predictions" in text.whether(run)
        assert "--predictions" not in text.whether(made_run())
        assert "candidate" in text.how(run)
        assert "CANNOT DECIDE" in answer_block(run).html

    def test_a_simulator_that_does_not_take_such_actions_is_not_proposed(self) -> None:
        run = made_run(codec_share=between(0.01, 0.02))
        assert "--with-simulator" in decision.do(run)
        vars(run)["comparison"] = run.comparison | {"layout": "joint:6 gripper:1"}
        for told in (text.whether(run), decision.do(run)):
            assert "--with-simulator" not in told
            assert "--predictions FILE" in told

    def test_a_rehearsal_says_so_first(self) -> None:
        found = text.whether(made_run(new_for_naive=MET, missing=["few seeds"]))
        assert found.startswith("No answer from a rehearsal")
        assert "Yes. Retrain Phase 2" in found

    def test_a_rehearsal_names_nothing_that_would_change_an_answer_it_has_not(self) -> None:
        assert text.would_change(made_run(missing=["few seeds"])) == [words("recommendation").no_answer_yet]
        assert len(text.would_change(made_run())) > 1

    @pytest.mark.parametrize(
        ("command", "missing", "said"),
        [
            ("./run_all.sh --smoke", ["epochs", "test_episodes"], "a rehearsal"),
            ("./run_all.sh --data here", ["test_episodes"], "so few test episodes"),
            ("", ["epochs", "test_episodes"], "so short a run"),
        ],
    )
    def test_only_what_smoke_asks_for_is_called_a_rehearsal(self, command: str, missing: list[str], said: str) -> None:
        run = made_run(missing=missing)
        run.results["provenance"]["command"] = command
        run.results["verdict"]["shortfalls"] = [{"key": key, "have": 1, "least": 10} for key in missing]
        assert text.whether(run).startswith(f"No answer from {said}. Were it evidence")

    def test_what_cannot_be_read_is_never_recommended(self) -> None:
        run = made_run()
        assert "Never" in text.which(run)
        vars(run)["models"] = model_rows().assign(decode_error=0.0)
        assert "Never" not in text.which(run)

    def test_a_rule_that_is_not_shown_to_be_better_is_none(self) -> None:
        assert "no other rule is shown to be better" in text.which(made_run(new_rule=OPEN))
        chosen = [prediction("naive", rule, 0.1) for rule in RULES]
        assert "no other decode rule" in text.how(made_run(*chosen))

    def test_of_data_that_are_no_motion_there_is_no_answer(self) -> None:
        run = made_run(new_for_naive=MET, missing=["a doubt"])
        run.data.update(doubts=[note("tiled", length=8)])
        assert text.whether(run).startswith("No answer from such data. Were it evidence")
        html = answer_block(run).html
        assert html.startswith(
            '<div class="verdict"><p class="not-evidence">NOT EVIDENCE: These are no recorded motions'
        )
        run.data.update(doubts_accepted=True)
        assert "NOT EVIDENCE" not in answer_block(run).html

    def test_a_difference_that_is_none_is_said_to_be_none(self) -> None:
        assert "error that is not shown to differ" in text.whether(made_run(new_for_naive=between(-0.02, 0.04)))

    def test_only_the_codec_that_is_proposed_is_held_against_fast_style_tokens(self) -> None:
        assert text.which(made_run()).endswith("FAST-style tokens were not to be had at as many bits or words.")
        run = made_run()
        run.tables["against_fast"] = fast_rows("fixed_scale", "layers=2", 0.009, {"words": 0.006})
        assert "of equal words" in text.which(run)
        assert "of equal bits" not in text.which(run)


class TestTables:
    def test_the_answer_holds_what_is_to_be_used(self) -> None:
        html = answer_block(made_run(new_for_naive=MET)).html
        assert BEST_FILES["scale"] in html
        assert "PASS" in html
        assert "FAIL" in html

    def test_rules_stand_beside_their_numbers(self) -> None:
        table = rules_table(made_run(new_for_naive=between(0.1, 0.3), naive_rule=around(0.2, None)))
        found = [list(map(str, row))[1:6] for row in table.rows]
        assert found[1] == ["> 5%", "20.0%", "10.0% to 30.0%", "28 test episodes x 5 seeds", "met"]
        assert found[3][2] == "-"

    def test_options_have_words(self) -> None:
        assert [str(row[1]) for row in options_table(made_run(new_for_naive=MET)).rows] == ["PASS", "FAIL", "PASS"]

    def test_policies_have_a_row_for_each_size_codec_rule_and_decoder(self) -> None:
        table = policy_table(made_run())
        assert len(table.rows) == 2 * (1 + 4 * 3 + 3)
        assert "joints" not in table.header
        assert "gripper wrong" in table.header
        assert sum("retrained decoder" in str(row[2]) for row in table.rows) == 2 * 3
        assert {row[-1] for row in table.rows} == {"300", "-"}

    def test_the_regression_stands_first_beside_every_codecs_best_rule(self) -> None:
        table = summary_table(made_run())
        assert [str(row[0]) for row in table.rows] == [
            "regression, no tokens",
            *(title(*each) for each in SETTINGS.items()),
        ]
        assert len({len(row) for row in [table.header, *table.rows]}) == 1
        assert [str(row[2]) == "-" for row in table.rows] == [False, True, False, False, False]

    def test_networks_tell_their_heads_noise_and_batches(self) -> None:
        table = network_table(made_run())
        assert len(table.rows) == len(SETTINGS)
        assert list(table.rows[0])[2:4] == ["0.2", "800"]

    def test_of_one_layer_autoregressive_tells_nothing_new(self) -> None:
        run = made_run()
        policy = run.policy
        one = [
            prediction("bins", rule, 0.09, layers=1, size=size) for rule in RULES for size in policy.training_set_sizes
        ]
        rows = pd.concat([policy.rows[policy.rows.codec != "bins"], *one])
        policies = policy.policies.assign(layers=[2, 2, 1, 2])
        vars(run)["policy"] = type(policy)(rows, policy.tokens, policy.draft, policies, policy.config)
        assert len(policy_table(run).rows) == 2 * (1 + 4 * 3 + 3 - 1)

    def test_accuracies_stand_beside_the_majority_class(self) -> None:
        table = accuracy_table(made_run())
        assert len(table.rows) == len(SETTINGS) * 2
        assert list(table.rows[0])[2:] == ["50.0%", "2.00", "60.0%", "60.0%"]

    def test_drafts_agree_layer_by_layer(self) -> None:
        table = draft_table(made_run())
        assert len(table.rows) == 4
        assert list(table.rows[0])[2:] == ["80.0%, 60.0%", "70.0%"]


class TestFigures:
    def test_are_pictures_whose_titles_turn_with_the_gain(self) -> None:
        for gain, told in ((0.25, "25.0% less error"), (-0.25, "25.0% more error")):
            plot = figures.policies(made_run(fixed_scale_for_naive=around(gain)))
            assert plot.png.startswith(b"\x89PNG")
            assert told in plot.alt

    def test_on_the_first_page_few_codecs_stand_those_of_the_questions_among_them(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = made_run()
        every = {title(*codec, briefly=True) for codec in run.policy.codecs}
        asked = {title(*codec, briefly=True) for codec in (run.policy.of("naive"), run.policy.new_codec)}
        assert all(codec in at_two_rules(run).alt for codec in every)
        monkeypatch.setattr("workbook.report.drawings.policy.MOST_CODECS", len(asked))
        assert {codec for codec in every if codec in at_two_rules(run).alt} == asked

    @pytest.mark.parametrize("codec", ["64 bins", "KLT-RFSQ"])
    def test_every_codec_is_described(self, codec: str) -> None:
        assert codec in figures.policies(made_run()).alt

    def test_accuracies_are_told_above_guessing(self) -> None:
        assert "L0 is predicted 10% better" in figures.accuracies(made_run()).alt
