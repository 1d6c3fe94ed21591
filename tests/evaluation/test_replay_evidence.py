"""What is computed from replays, judged and shown: made-up ones, with known answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_rows import made_evidence
from traces import CODECS, NOT_GRASPED, STEPS, failed, made_replays, moved_by, played, trace

from workbook.codecs import catalogue as catalogue_module
from workbook.codecs.catalogue import ENTRIES, Entry
from workbook.common import targets
from workbook.common.paths import OutputFolder
from workbook.common.stages import STAGES, stage_path, write_stage
from workbook.evaluation.replay.evidence import Contrast, Replays
from workbook.evaluation.replay.predictors import PREDICTORS
from workbook.evaluation.replay.rows import GROUND_TRUTH, Outcome
from workbook.report.figures import replay as figures
from workbook.report.tables import replay as tables
from workbook.report.text import replay as text
from workbook.report.text.findings import against_text
from workbook.simulation.playback import Trace
from workbook.verdict.criteria import Shortfall
from workbook.verdict.success import success_word

TASKS = ["drawer", "bowl", "bowl", "cheese"] * 6  # 24 episodes
NOTHING = np.zeros((STEPS + 1, 0, 3))
DRAWER = np.linspace(0, 0.2, STEPS + 1)[:, None]
TRUTH = [trace(NOTHING, mechanisms=DRAWER) if task == "drawer" else trace() for task in TASKS]


def lost(number: int) -> Trace:
    return failed(NOTHING, mechanisms=0 * DRAWER) if TASKS[number] == "drawer" else NOT_GRASPED


def lost_but(won: int) -> list[Outcome]:
    return [trace() if number < won else lost(number) for number in range(len(TASKS))]


def half_failed(of: int = 2) -> list[Outcome]:
    return [lost(number) if number % of == 0 else trace() for number in range(len(TASKS))]


def some_replays(**outcomes: list) -> Replays:
    return made_replays(TASKS, TRUTH, **outcomes)


def test_successes_are_counted_with_an_exact_interval() -> None:
    naive = some_replays(naive=half_failed()).of("naive")
    assert (naive.succeeded, naive.played) == (12, 24)
    assert naive.success.mean == 0.5
    assert naive.success.low == pytest.approx(0.2912, abs=1e-4)  # Clopper-Pearson of 12 of 24
    assert naive.p_against_ground_truth == pytest.approx(2 / 2**12)
    assert naive.by_task == {"drawer": 0, "bowl": 6, "cheese": 6}


def test_an_episode_that_fails_in_ground_truth_replay_counts_for_no_codec() -> None:
    truth: list[Outcome] = [failed(), "its state does not fit", *[trace()] * 22]
    found = made_replays(TASKS, truth, naive=[NOT_GRASPED] * 24)
    assert found.episodes == sum(found.tasks.values()) == 22
    assert all(of.played == 22 for of in found.codecs)
    assert [(left.episode, left.why) for left in found.left_out] == [
        ("made_up.hdf5, demo_0", ""), ("made_up.hdf5, demo_1", "its state does not fit"),
    ]  # fmt: skip
    assert len(found.of("naive").failed) == 22
    assert found.predictors.replays == 22 * (len(CODECS) - 1)
    assert found.drift.position_mm.max() == 0.0


def test_a_replay_that_broke_off_costs_its_codec_one_episode_and_is_told() -> None:
    found = some_replays(fixed_scale=["the process died", *[trace()] * 23])
    scale = found.of("fixed_scale")
    assert (scale.played, scale.succeeded, found.broken) == (23, 23, ["the process died"])
    assert found.of("naive").played == 24
    assert found.contrast("fixed_scale").episodes == 23
    assert (found.predictors.failed, found.predictors.replays) == (0, 24 * (len(CODECS) - 1) - 1)


def test_seeds_stand_beside_the_model_that_is_counted() -> None:
    found = some_replays(naive=[[trace()] * 24, half_failed(), half_failed(3)])
    assert found.of("naive").per_seed == [24, 12, 16]
    assert found.of("naive").succeeded == 24


def test_a_contrast_is_paired_by_episode() -> None:
    second = [lost(number) if number == 1 else trace() for number in range(24)]
    contrast = some_replays(naive=half_failed(), fixed_scale=second).contrast("fixed_scale")
    assert (contrast.lost_alone, contrast.won_alone, contrast.episodes) == (1, 12, 24)
    assert contrast.difference.mean == pytest.approx(11 / 24)
    assert contrast.p == pytest.approx(2 * (1 + 13) / 2**13)


def test_a_contrast_of_articulated_tasks_is_of_those_alone() -> None:
    found = some_replays(naive=half_failed())
    assert found.articulated_tasks == ["drawer"]
    contrast = found.contrast("fixed_scale", "articulated")
    assert (contrast.episodes, contrast.difference.mean) == (6, 1.0)  # naive fails in every drawer


def test_codecs_are_held_against_naive_and_at_a_rate_against_fast() -> None:
    found = some_replays()
    assert {(one.codec, one.setting): one.over for one in found.contrasts} == {
        (codec, setting): "fast" if codec.startswith("klt") else "naive"
        for codec, setting, _ in CODECS.values()
        if codec != "naive"
    }
    assert found.contrast("klt_rfsq_fixed").over_setting == "rate=80"
    assert found.contrast("fixed_scale", setting="layers=3").over_setting == "layers=8"


def test_drift_is_that_of_the_hand_at_tenths_of_the_episode() -> None:
    drift = some_replays(naive=[moved_by(trace(), 0.02)] * 24).of("naive").drift
    assert drift.position_mm.tolist() == pytest.approx([20.0] * 11)
    assert drift.rotation_deg.tolist() == pytest.approx([0.0] * 11)


def test_reasons_of_failures_are_counted() -> None:
    naive = some_replays(naive=half_failed()).of("naive")
    first = naive.failed.iloc[0]
    assert (first.task, first.episode) == ("drawer", "made_up.hdf5, demo_0")
    assert 0 < first.failure_progress < 1
    assert naive.failures == {"not grasped": 6, "part not moved": 6}


def test_rows_are_tidy() -> None:
    """One for each codec, setting, seed and episode, with what is unknown left out."""
    rows = some_replays(naive=[["died", *[trace()] * 23], half_failed()]).rows
    assert len(rows) == 24 * (len(CODECS) + 2)
    assert not rows.duplicated(["codec", "setting", "seed", "episode"]).any()
    died = rows[(rows.codec == "naive") & (rows.seed == 0)].iloc[0]
    assert (died.played, died.not_played, died.succeeded) == (False, "died", pd.NA)
    assert rows[rows.codec == GROUND_TRUTH].mse.isna().all()


def test_of_each_task_the_episode_that_most_codecs_fail_is_shown() -> None:
    second = [trace(), trace(), lost(2), *[trace()] * 21]
    paths = some_replays(naive=second, bins=second).paths
    assert list(dict.fromkeys(paths.task)) == ["bowl", "cheese", "drawer"]
    bowl = paths[(paths.task == "bowl") & (paths.step == 0)]
    assert dict(zip(bowl.codec, bowl.succeeded, strict=True)) == {
        GROUND_TRUTH: True, "naive": False, "fixed_scale": True, "bins": False, "klt_rfsq_variable": True, "fast": True,
    }  # fmt: skip


def test_tokens_that_are_no_actions_are_left_out_of_what_predicts_failure() -> None:
    found = some_replays(naive=half_failed(), layernorm=lost_but(0))
    assert (found.predictors.codecs, found.predictors.failed) == (len(CODECS) - 1, 12)
    assert set(found.predictors.each) == set(PREDICTORS)
    assert len(found.failed) == 12


@pytest.mark.parametrize(("tasks", "short"), [(["a", "b", "c"] * 7, 0), (["a", "b", "c"] * 6, 1), (["a"] * 24, 1)])
def test_too_few_episodes_or_tasks_are_no_evidence(tasks: list[str], short: int) -> None:
    assert len(made_replays(tasks).shortfalls) == short


def test_a_run_without_replays_or_with_old_ones_says_so(out: OutputFolder) -> None:
    assert Replays.read(out).not_run == "not_asked_for"
    for stage in STAGES:
        write_stage(out, stage, {}, {"not_run": "no simulator here"})
    assert Replays.read(out).not_run == "no simulator here"
    write_stage(out, "policy", {"another": 1}, {})
    assert Replays.read(out).not_run == "out_of_date"


def test_what_is_written_is_read_again(out: OutputFolder) -> None:
    made = some_replays(naive=["died", *half_failed()[1:]])
    for stage in STAGES:
        tables = {"replays": made.rows, "replay_drift": made.drift, "replay_paths": made.paths}
        write_stage(out, stage, {}, made.values, tables if stage == "replay" else None)
    read = Replays.read(out)
    pd.testing.assert_frame_equal(read.rows, made.rows, check_dtype=False)
    assert read.contrasts == made.contrasts
    spoiled = json.loads(stage_path(out, "replay").read_text())
    Path(out.root / "replays.parquet").unlink()
    assert spoiled["tables"].keys() == {"replays", "replay_drift", "replay_paths"}
    assert Replays.read(out).not_run == "out_of_date"


# The verdict


def test_the_claim_is_met_only_by_a_whole_interval() -> None:
    """All 24 against 4: the gain is 83 points, its interval well above the guide's 7."""
    few = lost_but(4)
    assert success_word(some_replays(naive=few), []) == "PASS"
    assert success_word(some_replays(), []) == "NOT SHOWN"
    assert success_word(some_replays(fixed_scale=few), []) == "FAIL"
    assert success_word(some_replays(naive=few), [Shortfall("epochs", 2, 100)]) == "NOT SHOWN"
    assert success_word(made_replays(["a"], naive=[NOT_GRASPED]), []) == "NOT SHOWN"
    assert success_word(made_replays(["a"], ["no such task"]), []) == "NOT RUN"
    assert success_word(Replays({"not_run": "not_asked_for"}), []) == "NOT RUN"


# In words, tables and figures


def test_the_sentence_holds_the_counts() -> None:
    said = text.verdict_sentence(made_evidence(replays=some_replays(naive=half_failed(), fast=half_failed(3))))
    for part in ("naive ones in 12 of 24", "in 24 of 24", "in 16 of 24 at 82", "+50.0 percentage"):
        assert part in said
    small = text.verdict_sentence(made_evidence(replays=made_replays(["a"])))
    assert f"1 of at least {targets.EVIDENCE_REPLAY_EPISODES} episodes" in small


@pytest.mark.parametrize(
    ("replays", "why"),
    [
        (Replays({"not_run": "not_asked_for"}), "./run_all.sh --with-replay"),
        (Replays({"not_run": "mujoco is not installed"}), "mujoco is not installed"),
        (made_replays(["a"], ["no such task"]), "no such task"),
        (made_replays(["a"], [NOT_GRASPED]), "do not reach the goal"),
    ],
)
def test_without_a_replay_the_reason_is_told(replays: Replays, why: str) -> None:
    run = made_evidence(replays=replays)
    assert why in text.why_not(run)
    assert text.verdict_sentence(run) == text.why_not(run)
    assert text.remarks(run)[0].startswith("Replay: NOT RUN")


def test_remarks_tell_what_was_left_out_and_what_predicts_failure() -> None:
    found = made_replays(TASKS, ["its state does not fit", *TRUTH[1:]], naive=["died", "died", *half_failed()[2:]])
    found.values.update({"without_start": 2, "final_states": {"recorded": 23, "equal": 3}})
    said = text.remarks(made_evidence(replays=found))
    assert "23 of 23 test episodes reach their goal. 3 of 23 recorded end states are met to the last bit." in said[0]
    assert said[1] == "Simulator: mujoco 3.17.0, OpenBLAS kernels Haswell."
    assert said[2:5] == [
        "Left out: 1 episodes, because its state does not fit.",
        "2 test episodes hold no state to begin in that can be read, and are left out.",
        "Of some replays there is no result: the simulator's process died or hung while it was played.",
    ]
    assert "replays of 9 codecs, is the MSE. In" in said[5]
    assert len(said) == 7


def test_end_states_that_all_hold_or_are_not_known_are_told() -> None:
    found = some_replays()
    assert "All 24 recorded end states are met to the last bit." in text.remarks(made_evidence(replays=found))[0]
    found.values["final_states"] = {"recorded": 0, "equal": 0}
    assert text.remarks(made_evidence(replays=found))[0].endswith("No recording says in which state it ended.")


def test_the_best_predictor_is_named_with_how_far_mse_is_behind() -> None:
    """The drift tells every failure. Of mse, 1170 of 2448 pairs by hand, and 66 of 144 of naive's own."""
    found = some_replays(naive=half_failed())
    found.rows["peak_drift_mm"] = np.where(found.rows.succeeded.fillna(True), 1.0, 2.0)
    run = made_evidence(replays=Replays(found.values, found.rows, found.drift, found.paths))
    told = next(remark for remark in text.remarks(run) if "tells failed replays best" in remark)
    assert "largest sum of position errors on the way, mm. In 100% of pairs" in told
    assert "MSE does in 48%, less by 52.2 points" in told
    assert "larger MSE in 48% of pairs, within a codec in 46%" in against_text(run)[-1]


def test_tables_hold_a_row_for_every_codec_contrast_and_predictor() -> None:
    run = made_evidence(replays=some_replays(naive=half_failed()))
    success = tables.success_table(run)
    assert len(success.rows) == len(CODECS) + 1
    assert "| naive, 8 layers | 2,875 | 12 of 24 |" in success.markdown
    assert len(tables.contrasts_table(run).rows) == len(CODECS) - 1
    assert len(tables.predictors_table(run).rows) == len(PREDICTORS)
    reasons = {row[0]: row for row in tables.failures_table(run).rows}
    assert (reasons["not grasped"][1], reasons["part not moved"][4]) == ("6", "drawer 6")
    assert [row[:3] for row in tables.tasks_table(run).rows] == [
        ["drawer (articulated)", "6", "0"], ["bowl", "12", "6"], ["cheese", "6", "6"],
    ]  # fmt: skip


OUTCOMES: dict[str, list[Outcome]] = {
    "some fail": half_failed(),
    "all fail": lost_but(0),
    "none was played": ["died"] * 24,
}


@pytest.mark.parametrize("naive", OUTCOMES)
def test_everything_is_shown_of_whatever_came_out(naive: str) -> None:
    run = made_evidence(replays=some_replays(naive=OUTCOMES[naive]))
    for name in ("success_against_bits", "drift", "paths", "predictors"):
        plot = getattr(figures, name)(run)
        assert plot.png.startswith(b"\x89PNG")
        assert plot.alt
    for name in ("success_table", "tasks_table", "contrasts_table", "failures_table", "predictors_table"):
        assert getattr(tables, name)(run).rows or name == "failures_table"
    assert len(text.remarks(run)) >= 4


def test_a_codec_that_is_added_to_the_catalogue_stands_in_tables_and_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    toy = Entry("toy", "toy codec", "#123456", "h-", True, False, lambda fitting, setting: [])
    monkeypatch.setattr(catalogue_module, "ENTRIES", (*ENTRIES, toy))
    found = made_replays(TASKS, TRUTH, [played("toy", "bins=2", 8.0, [lost_but(4)])])
    run = made_evidence(replays=found)
    expected = Contrast("toy", "bins=2", "naive", "layers=8", found.contrast("toy").difference, 24, 0, 20, 2 / 2**20)
    assert expected in found.contrasts
    assert any("toy codec" in str(row[0]) and row[2] == "4 of 24" for row in tables.success_table(run).rows)
    assert any(str(row[0]).startswith("toy codec") for row in tables.contrasts_table(run).rows)
    assert "toy codec, 2 bins: 4 of 24 at 8 bits" in figures.success_against_bits(run).alt
