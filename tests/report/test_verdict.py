"""The words of verdict, criteria and claims: every key is rendered, whatever the run measured."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
from made_rows import (
    MadeContrast,
    MadeReplays,
    MadeUp,
    curve_rows,
    layer_rows,
    made_evidence,
    model_rows,
    passing_scores,
    rows,
    training_values,
    with_rows,
)

from workbook.common.intervals import Estimate
from workbook.common.note import note
from workbook.common.table import Table
from workbook.evaluation.layers import Layers
from workbook.evaluation.score import ENCODER, Scores
from workbook.report.tables.verdict import claims_table, criteria_table, not_evidence, verdict_block, verdict_lines
from workbook.verdict.claims import guide_claims
from workbook.verdict.criteria import JUDGED, Shortfall, evaluate, shortfalls, word_of

SCORES = passing_scores()
RETRAINING, REPLAYED, NO_REPLAY = "keep the naive tokens.", "it succeeds more often.", "no replay was asked for."
SHORT_OF_BATCHES = [Shortfall("policy_steps", 2, 1600), Shortfall("baseline_steps", 2, 1000)]


def why_not(run: MadeUp) -> str:
    assert not run.replays.played
    return NO_REPLAY


@pytest.fixture(autouse=True)
def other_topics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sentences of other topics, which have tests of their own."""
    for name, sentences in (
        ("recommendation", {"whether": lambda run: RETRAINING}),
        ("replay", {"verdict_sentence": lambda run: REPLAYED, "why_not": why_not}),
    ):
        monkeypatch.setitem(sys.modules, f"workbook.report.text.{name}", SimpleNamespace(**sentences))


def decided(run: MadeUp, more: list[Shortfall] | None = None) -> MadeUp:
    """The same run with its results, as they are read from a file."""
    criteria, missing = evaluate(run), [*shortfalls(run), *(more or [])]
    parts = [{"key": codec, "word": word_of(criteria, codec, missing)} for codec in JUDGED]
    parts += [{"key": "retraining", "word": "FAIL"}, {"key": "success", "word": "NOT RUN"}]
    results = {
        "verdict": {"parts": parts, "shortfalls": [asdict(shortfall) for shortfall in missing]},
        "criteria": [criterion.as_json() for criterion in criteria],
        "claims": [claim.as_json() for claim in guide_claims(run)],
    }
    vars(run)["results"] = json.loads(json.dumps(results))
    return run


def passing() -> MadeUp:
    return decided(made_evidence(scores=SCORES, models=model_rows().assign(decode_error=0.0)))


def undecodable() -> MadeUp:
    """As on real data: what the guide's tokens lack makes them worthless."""
    return decided(made_evidence(scores=with_rows(SCORES, rows("layernorm", 10.0, spread=0.5))))


def undecodable_fixed_scale() -> MadeUp:
    return decided(made_evidence(scores=SCORES, models=model_rows().assign(decode_error=1e-7)))


def rehearsal() -> MadeUp:
    """Two seeds of one layer, two epochs and one episode, so that nothing has an interval."""
    kept = SCORES.rows.groupby(["codec", "setting", "decoding", "seed"], as_index=False).head(1)
    scores = Scores(kept[kept.seed < 2])
    run = made_evidence(
        scores=scores, models=model_rows(2), training=training_values(2, 2),
        layers=Layers(layer_rows(layers=1, seeds=2), scores),
        comparison={"test_episodes": 1, "test_steps": 80, "layout": "joint:7"},
    )  # fmt: skip
    run.tables["training"] = curve_rows([0.1, 0.1])
    return decided(run, SHORT_OF_BATCHES)


def without_position_and_gripper() -> MadeUp:
    nothing = dict.fromkeys(("position_mm", "gripper_abs", "drift_mm", "switch_drift_mm"), np.nan)
    frames = [rows("layernorm", 1e-4, decoding=decoding, **nothing) for decoding in ("tokens", ENCODER)]
    return decided(made_evidence(scores=with_rows(SCORES, *frames)))


def replayed() -> MadeUp:
    """Nothing is turned or pulled in the episodes that were played."""
    gains = {"all": MadeContrast(Estimate(0.2, 0.1, 0.3), 38), "articulated": MadeContrast(Estimate(None), 0)}
    return decided(made_evidence(scores=SCORES, replays=MadeReplays(gains)))


RUNS = [passing, undecodable, undecodable_fixed_scale, rehearsal, without_position_and_gripper, replayed]
Made = Callable[[], MadeUp]


def assert_whole(text: str) -> None:
    assert text.strip()
    assert not re.search(
        r"\{\{|\}\}|\{%|\bnone\b|\bnan\b|\binf\b|undefined", text.replace("none in the data", ""), re.I
    )
    assert "  " not in text


def assert_whole_table(table: Table, empty: set[int] | None = None) -> None:
    """No cell is empty, but in columns where some may be."""
    for row in table.rows:
        assert len(row) == len(table.header)
        for column, cell in enumerate(row):
            if column not in (empty or set()) or str(cell):
                assert_whole(str(cell))
    lines = [line for line in table.markdown.splitlines() if line.startswith("|")]
    assert {len(line.split(" | ")) for line in lines} == {len(table.header)}


@pytest.mark.parametrize("made", RUNS)
@pytest.mark.parametrize("codec", JUDGED)
def test_every_criterion_is_a_row(made: Made, codec: str) -> None:
    run = made()
    table = criteria_table(run, codec)
    assert_whole_table(table)
    assert_whole(table.note)
    of_codec = [row for row in run.results["criteria"] if row["codec"] == codec]
    assert [str(row[5]) for row in table.rows] == [row["status"] for row in of_codec]
    assert [row[3] == "-" for row in table.rows] == [row["interval"] is None for row in of_codec]
    assert len({row[0] for row in table.rows}) == len(table.rows) == 7


def test_a_criterion_is_the_same_before_and_after_it_is_written() -> None:
    run = undecodable()
    after = criteria_table(run, "layernorm").rows
    del vars(run)["results"]
    assert [list(map(str, row)) for row in criteria_table(run, "layernorm").rows] == [
        list(map(str, row)) for row in after
    ]


def test_the_cells_of_a_criterion() -> None:
    cells = [[str(cell) for cell in row[1:]] for row in criteria_table(passing(), "fixed_scale").rows]
    assert cells == [
        ["= 0", "0", "-", "5 seeds", "met", "yes"],
        ["< 0.012", "1.0e-4", "1.0e-4 to 1.0e-4", "28 test episodes x 5 seeds", "met", "yes"],
        ["> 30%", "99.5%", "99.5% to 99.5%", "28 test episodes x 5 seeds", "met", "yes"],
        ["< 0.012", "1.0e-4", "1.0e-4 to 1.0e-4", "28 test episodes x 5 seeds", "met", "no"],
        ["> 30%", "99.5%", "99.5% to 99.5%", "28 test episodes x 5 seeds", "met", "no"],
        ["all", "5 of 5", "-", "5 checkpoints", "met", "yes"],
        ["<= 5%", "2.0%", "1.0% to 3.0%", "60 timed rounds of one process", "met", "no"],
    ]


def test_a_loss_of_more_than_all_is_so_many_times_the_error() -> None:
    row = criteria_table(undecodable(), "layernorm").rows[2]
    assert row[2] == "500 times the error"
    assert re.fullmatch(r"4\d\d to 5\d\d times the error", str(row[3]))


@pytest.mark.parametrize("made", RUNS)
def test_every_claim_is_a_row(made: Made) -> None:
    run = made()
    table = claims_table(run)
    assert_whole_table(table, empty={4})
    claims = run.results["claims"]
    assert len(table.rows) == len(claims)
    for row, claim in zip(table.rows, claims, strict=True):
        assert row[4] or (claim["key"] == "residual_std" and claim["measured"])
        if claim["measured"]:
            assert str(row[2]) != "-"
        if claim["status"] == "not measurable":
            assert str(row[2]) == "-"


def test_the_cells_of_a_claim() -> None:
    run = undecodable()
    chosen = ("improvement", "curve", "token_accuracy", "training_time", "checkpoint_size", "success")
    cells = {row[0]: [str(cell) for cell in row[1:]] for row in claims_table(run, chosen).rows}
    gain = cells["improvement over naive"]
    assert gain[0] == "44.5%, target > 30%"
    assert re.fullmatch(r"500 times the error \(4\d\d times the error to 5\d\d times the error\)", gain[1])
    curve = cells["MSE at epochs 10, 30, 50, 80, 100"]
    assert curve[:3] == ["0.045, 0.018, 0.012, 0.01, 0.01", "0.01, 0.01, 0.01, 0.01, 0.01", "holds"]
    accuracy = cells["token accuracy of Phase 2"]
    assert accuracy[:3] == ["90.9%", "50.0%", "does not hold"]  # no layer is dead: (0.6 + 0.4) / 2
    assert "majority class gives 40.0%" in accuracy[3]
    assert cells["training time"][:2] == ["about 3 h", "3 s"]
    assert cells["checkpoint size"][:2] == ["about 50 kB", "20.0 kB"]
    success = cells["fine manipulation"]
    assert success[:3] == ["+7% to +10% success", "-", "not measured"]
    assert success[3].startswith(f"{NO_REPLAY} The error of a small policy's decoded actions is 10.0% less")


def test_claims_of_replays_name_their_episodes_and_intervals() -> None:
    cells = [[str(cell) for cell in row] for row in claims_table(replayed(), ["success"]).rows]
    assert [row[3] for row in cells] == ["not measured"] * 3 + ["holds"] * 3
    assert cells[3][2] == "+20.0 percentage points (95 % interval +10.0 to +30.0)"
    assert "of 38 test episodes," in cells[3][4]
    assert "of 0 test episodes in which a knob or drawer is moved" in cells[0][4]
    assert not any(NO_REPLAY in row[4] for row in cells)


@pytest.mark.parametrize("made", RUNS)
def test_the_verdict_has_a_word_and_a_sentence_for_each_part(made: Made) -> None:
    run = made()
    block, lines = verdict_block(run).html, verdict_lines(run)
    words = [part["word"] for part in run.results["verdict"]["parts"]]
    assert re.findall(r'<span class="badge [\w-]+">([A-Z ]+)</span>', block) == words
    parts = lines[-len(words) :]
    assert [line[:9].strip() for line in parts] == words
    for line in lines:
        assert_whole(line[11:] if line in parts else line)
    assert RETRAINING in block
    assert REPLAYED in parts[-1]
    assert_whole(" ".join(re.sub(r"<[^>]*>", " ", block).split()))


def test_the_verdict_says_what_was_measured() -> None:
    first, second = verdict_lines(undecodable())[:2]
    assert "MSE 10 " in first
    assert "100,000 times as much" in first
    assert "reaches 5.0e-4, 97.5% less than naive's" in first
    assert "MSE 1.0e-4 at 2,875 bits a chunk. That is 99.5% less than naive's (95 % interval 99.5% to 99.5%)" in second


def test_a_cheaper_rounding_is_named_only_if_there_is_one() -> None:
    assert not any("equal bins" in line for line in verdict_lines(passing()))
    rounding = rows("bins", 1e-6, "bins=64", bits=336.0, seeds=1)
    run = made_evidence(scores=with_rows(SCORES, rounding))
    assert "64 equal bins has less error at 336 bits" in verdict_lines(decided(run))[1]


def test_tokens_of_the_fixed_scale_that_do_not_decode_have_no_refitted_decoder() -> None:
    assert "refitted" not in verdict_lines(undecodable_fixed_scale())[1]


def test_a_rehearsal_says_first_that_it_is_none_and_why() -> None:
    run = rehearsal()
    banner = verdict_lines(run)[0]
    assert banner == (
        "NOT EVIDENCE: this run has 2 of at least 100 epochs; 2 of at least 5 seeds; 1 of at least 10 test episodes; "
        "2 of at least 1600 batches of the policies; 2 of at least 1000 batches of the field's quantizers."
    )
    assert verdict_block(run).html.startswith(
        f'<div class="verdict"><p class="not-evidence">{banner.replace(chr(39), "&#x27;")}</p>'
    )
    assert "not-evidence" not in verdict_block(passing()).html
    assert "interval" not in verdict_lines(run)[2]


@pytest.mark.parametrize(
    ("have", "said"), [(6, "4 more test episodes are needed: about 20 more recordings"), (9, "1 more")]
)
def test_where_episodes_alone_are_few_it_is_said_how_many_more_help(have: int, said: str) -> None:
    run = decided(
        made_evidence(scores=SCORES, comparison={"test_episodes": have, "test_steps": 80, "layout": "joint:7"})
    )
    banner = verdict_lines(run)[0]
    assert banner.startswith(f"NOT EVIDENCE: this run has {have} of at least 10 test episodes. {said}")
    assert "recordings" not in verdict_lines(rehearsal())[0]


def doubtful(accepted: bool) -> MadeUp:
    """Evidence enough, of random actions."""
    run = passing()
    run.data.update(doubts=[note("white_noise", largest=0.02, even=True)], doubts_accepted=accepted)
    return run


def test_data_that_are_no_motion_make_it_no_evidence_and_why_is_said_first() -> None:
    run = doubtful(accepted=False)
    banner = verdict_lines(run)[0]
    assert banner == (
        "NOT EVIDENCE: These are no robot motions: neighbouring steps are uncorrelated (autocorrelation at most 0.02). "
        "Values are spread evenly over their range, too, as random actions are. If a verdict is wanted all the same, "
        "--accept-data gives one."
    )
    assert f'<p class="not-evidence">{banner}</p>' in verdict_block(run).html
    assert not_evidence(run).html in verdict_block(run).html
    del vars(run)["results"]  # as 03_compare shows it
    assert [line[:9].strip() for line in verdict_lines(run)[1:]] == ["NOT SHOWN", "NOT SHOWN", "NOT RUN"]


def test_data_that_are_accepted_as_they_are_get_a_verdict() -> None:
    run = doubtful(accepted=True)
    assert verdict_lines(run) == verdict_lines(passing())
    assert not_evidence(run).html == ""
    del vars(run)["results"]
    assert [line[:9].strip() for line in verdict_lines(run)] == ["PASS", "PASS", "NOT RUN"]


def test_a_rehearsal_on_such_data_says_both() -> None:
    run = rehearsal()
    run.data.update(doubts=[note("still_stream", arm=True)])
    lines = verdict_lines(run)
    assert lines[0].startswith("NOT EVIDENCE: These are no robot motions: in no episode does an action ever differ")
    assert lines[1] == verdict_lines(rehearsal())[0]


def test_before_there_are_results_retraining_is_not_judged() -> None:
    run = passing()
    del vars(run)["results"]
    words = [line[:9].strip() for line in verdict_lines(run)]
    assert words == ["PASS", "PASS", "NOT RUN"]
    assert "04_residual_analysis" in verdict_lines(run)[-1]
