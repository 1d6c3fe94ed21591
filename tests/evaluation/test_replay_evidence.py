"""What is computed from replays: made-up ones, with known answers."""

from __future__ import annotations

import json

import numpy as np
import pytest
from traces import (
    KEYS,
    NOT_GRASPED,
    STEPS,
    all_played,
    failed,
    moved_by,
    played,
    played_episodes,
    trace,
)

from workbook.common import targets
from workbook.evaluation.replay.evidence import evidence
from workbook.evaluation.replay.predictors import PREDICTORS
from workbook.report.figures import replay as figures
from workbook.report.tables import replay as tables
from workbook.simulation.playback import Trace
from workbook.verdict import success as findings

TASKS = ["drawer", "bowl", "bowl", "cheese"] * 6  # 24 episodes
NOTHING = np.zeros((STEPS + 1, 0, 3))
DRAWER = np.linspace(0, 0.2, STEPS + 1)[:, None]


def lost(number: int) -> Trace:
    return failed(NOTHING, mechanisms=0 * DRAWER) if TASKS[number] == "drawer" else NOT_GRASPED


def some_evidence(**outcomes: list) -> dict:
    exact = [trace(NOTHING, mechanisms=DRAWER) if task == "drawer" else trace() for task in TASKS]
    return evidence(played_episodes(TASKS, exact), all_played(len(TASKS), **outcomes)) | {
        "not_run": "",
        "without_start": 0,
        "versions": {"mujoco": "3.17.0"},
        "kernels": "Haswell",
    }


def half_failed(of: int = 2) -> list:
    return [lost(number) if number % of == 0 else trace() for number in range(len(TASKS))]


def test_successes_are_counted_with_an_exact_interval() -> None:
    naive = some_evidence(naive=half_failed())["codecs"]["naive"]
    assert (naive["succeeded"], naive["played"]) == (12, 24)
    assert naive["success"]["mean"] == 0.5
    assert naive["success"]["low"] == pytest.approx(0.2912, abs=1e-4)  # Clopper-Pearson of 12 of 24
    assert naive["mcnemar_p_against_exact"] == pytest.approx(2 / 2**12)
    assert naive["by_task"] == {"drawer": [0, 6], "bowl": [6, 12], "cheese": [6, 6]}
    assert naive["articulated"] == [0, 6]


def test_an_episode_that_fails_exactly_counts_for_no_codec() -> None:
    exact = [failed(), "its state does not fit", *[trace()] * 22]
    found = evidence(played_episodes(TASKS, exact), all_played(24))
    assert found["episodes"] == 22
    assert all(entry["played"] == 22 for entry in found["codecs"].values())
    assert (found["exact"]["played"], found["exact"]["succeeded"]) == (23, 22)
    why = {left["episode"]: left["why"] for left in found["exact"]["left_out"]}
    assert why["made_up.hdf5, demo_1"] == "its state does not fit"
    assert "do not reach the goal" in why["made_up.hdf5, demo_0"]


def test_a_replay_that_broke_off_costs_its_codec_one_episode_and_is_told() -> None:
    found = some_evidence(scale=["the process died", *[trace()] * 23])
    scale = found["codecs"]["scale"]
    assert (scale["played"], scale["succeeded"], scale["not_played"]) == (23, 23, ["the process died"])
    assert found["codecs"]["naive"]["played"] == 24
    assert found["contrasts"]["scale"]["all"]["episodes"] == 23
    assert any("the process died" in remark for remark in findings.remarks(found))
    assert found["predictors"]["failed"] == 0
    assert found["predictors"]["replays"] == 24 * (len(KEYS) - 1) - 1


def test_seeds_stand_beside_the_model_that_is_counted() -> None:
    seeds = [[trace()] * 24, half_failed(), half_failed(3)]
    codecs = [played("naive", seeds), *(one for one in all_played(24) if one.candidate.key != "naive")]
    naive = evidence(played_episodes(TASKS), codecs)["codecs"]["naive"]
    assert naive["per_seed"] == [[24, 24], [12, 24], [16, 24]]
    assert naive["succeeded"] == 24


def test_a_contrast_is_paired_by_episode() -> None:
    second = [lost(number) if number == 1 else trace() for number in range(24)]
    contrast = some_evidence(naive=half_failed(), scale=second)["contrasts"]["scale"]["all"]
    assert (contrast["only_first"], contrast["only_second"], contrast["episodes"]) == (1, 12, 24)
    assert contrast["difference"]["mean"] == pytest.approx(11 / 24)
    assert contrast["mcnemar_p"] == pytest.approx(2 * (1 + 13) / 2**13)


def test_drift_is_that_of_the_hand_at_tenths_of_the_episode() -> None:
    drift = some_evidence(naive=[moved_by(trace(), 0.02)] * 24)["codecs"]["naive"]["drift"]
    assert drift["position_mm"] == pytest.approx([20.0] * 11)
    assert drift["rotation_deg"] == pytest.approx([0.0] * 11)


def test_reasons_of_failures_are_counted() -> None:
    found = some_evidence(naive=half_failed())["codecs"]["naive"]
    assert sum(found["failures"].values()) == len(found["failed"]) == 12
    assert found["failed"][0]["task"] == "drawer"
    assert found["failed"][0]["episode"] == "made_up.hdf5, demo_0"
    assert 0 < found["failed"][0]["part"] < 1
    assert found["failures"] == {"not grasped": 6, "part not moved": 6}


def test_final_states_are_held_against_the_recorded_ones() -> None:
    found = some_evidence()["exact"]
    assert (found["final_state_recorded"], found["final_state_equal"]) == (24, 24)


def test_tokens_that_are_no_actions_are_left_out_of_what_predicts_failure() -> None:
    found = some_evidence(naive=half_failed())["predictors"]
    assert found["codecs"] == len(KEYS) - 1
    assert found["replays"] == 24 * (len(KEYS) - 1)
    assert set(found["rows"]) == set(PREDICTORS)


@pytest.mark.parametrize(("tasks", "short"), [(["a", "b", "c"] * 7, 0), (["a", "b", "c"] * 6, 1), (["a"] * 24, 1)])
def test_too_few_episodes_or_tasks_are_no_evidence(tasks: list[str], short: int) -> None:
    found = evidence(played_episodes(tasks), all_played(len(tasks)))
    assert len(found["shortfalls"]) == short


# In words


def test_the_claim_is_met_only_by_a_whole_interval() -> None:
    """All 24 against 4: the gain is 83 points, its interval well above the guide's 7."""
    few = [trace() if number < 4 else lost(number) for number in range(24)]
    part = findings.verdict_part(some_evidence(naive=few), [])
    assert part["word"] == "PASS"
    assert "83.3 percentage points" in part["sentence"]
    assert findings.verdict_part(some_evidence(), [])["word"] == "NOT SHOWN"
    assert findings.verdict_part(some_evidence(scale=few), [])["word"] == "FAIL"
    assert findings.verdict_part(some_evidence(naive=few), ["2 of 100 epochs"])["word"] == "NOT SHOWN"


def test_the_sentence_holds_the_counts() -> None:
    said = findings.sentence(some_evidence(naive=half_failed(), fast_80=half_failed(3)))
    for part in ("naive tokens succeed in 12 of 24", "in 24 of 24", "at 80 bits 16 of 24", "+50.0 percentage"):
        assert part in said


def test_a_small_replay_is_not_judged() -> None:
    few = evidence(played_episodes(["a"]), all_played(1, naive=[NOT_GRASPED]))
    part = findings.verdict_part(few | {"not_run": "", "without_start": 0}, [])
    assert part["word"] == "NOT SHOWN"
    assert f"1 of at least {targets.EVIDENCE_REPLAY_EPISODES} episodes" in part["sentence"]


def test_without_a_replay_the_report_says_how_to_have_one() -> None:
    part = findings.verdict_part(findings.NOT_ASKED_FOR, [])
    assert (part["word"], findings.played(findings.NOT_ASKED_FOR)) == ("NOT RUN", False)
    assert "./run_all.sh --with-replay" in part["sentence"]
    assert findings.remarks(findings.NOT_ASKED_FOR)[0].startswith("Replay: NOT RUN")


def test_end_states_that_are_missed_by_a_rounding_are_no_failure() -> None:
    found = some_evidence()
    assert "All 24 recorded end states are met to the last bit." in findings.remarks(found)[0]
    found["exact"] |= {"final_state_equal": 3}
    exactly, simulator, *_ = findings.remarks(found)
    assert "24 of 24 test episodes reach their goal. 3 of 24 recorded end states are met to the last bit." in exactly
    assert "on one kind of processor only" in exactly
    assert simulator == "Simulator: mujoco 3.17.0, OpenBLAS kernels Haswell."
    found["exact"] |= {"final_state_recorded": 0, "final_state_equal": 0}
    assert findings.remarks(found)[0].endswith("No recording says in which state it ended.")


def test_where_nothing_succeeds_exactly_the_reason_is_told() -> None:
    nothing = evidence(played_episodes(["a"], ["no such task"]), all_played(1)) | {"not_run": "", "without_start": 0}
    assert "no such task" in findings.verdict_part(nothing, [])["sentence"]
    assert findings.verdict_part(nothing, [])["word"] == "NOT RUN"
    json.dumps(nothing, allow_nan=False)


def predictors(mse: float, lead: tuple[float, float]) -> dict:
    """MSE and the drift where it is largest, which leads by so much."""
    auc = {name: {"mean": mean, "low": mean - 0.05, "high": mean + 0.05} for name, mean in (("mse", mse), (BEST, 0.9))}
    return {
        "replays": 500,
        "codecs": 21,
        "rows": {name: {"auc": each, "within": each, "correlation": each} for name, each in auc.items()},
        "best": BEST,
        "less_than_best": {"mse": {"mean": sum(lead) / 2, "low": lead[0], "high": lead[1]}},
    }


BEST = "peak_drift_mm"


@pytest.mark.parametrize(
    ("lead", "said"), [((0.02, 0.06), "less by 4.0 points (2.0 to 6.0)"), ((-0.01, 0.06), "not shown to do worse: MSE")]
)
def test_the_best_predictor_is_named_with_those_that_are_not_shown_to_be_worse(
    lead: tuple[float, float], said: str
) -> None:
    found = some_evidence() | {"predictors": predictors(0.85, lead)}
    told = next(remark for remark in findings.remarks(found) if "tells failed replays best" in remark)
    assert PREDICTORS[BEST] in told
    assert said in told


def test_what_mse_says_of_success_comes_from_the_replays() -> None:
    found = some_evidence() | {"predictors": predictors(0.85, (0.0, 0.1))}
    assert "larger MSE in 85% of pairs, and of one codec's in 85%" in findings.mse_and_success(found)
    assert findings.mse_and_success(findings.NOT_ASKED_FOR) == ""


def test_tables_hold_a_row_for_every_codec_contrast_and_predictor() -> None:
    found = some_evidence(naive=half_failed())
    assert len(tables.success_table(found).rows) == len(KEYS) + 1
    assert len(tables.contrasts_table(found).rows) == len(found["contrasts"])
    assert len(tables.predictors_table(found).rows) == len(PREDICTORS)
    reasons = {row[0]: row for row in tables.failures_table(found).rows}
    assert reasons["not grasped"][1] == "6"
    assert reasons["part not moved"][4] == "drawer 6"
    assert len(tables.tasks_table(found).rows) == 3
    assert "drawer (articulated)" in tables.tasks_table(found).markdown
    assert "12 of 24" in tables.success_table(found).markdown


OUTCOMES = {
    "some fail": half_failed(),
    "all fail": [lost(number) for number in range(24)],
    "none was played": ["died"] * 24,
}


@pytest.mark.parametrize("name", ["success_against_bits", "drift", "paths", "predictors"])
@pytest.mark.parametrize("naive", OUTCOMES)
def test_figures_are_drawn_of_whatever_came_out(name: str, naive: str) -> None:
    plot = getattr(figures, name)(some_evidence(naive=OUTCOMES[naive]))
    assert plot.png.startswith(b"\x89PNG")
    assert plot.alt
