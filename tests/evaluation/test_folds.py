"""Folds put together as one run: rows, values and the estimates of both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from workbook.common.errors import InputError
from workbook.common.paths import OutputFolder
from workbook.common.stages import read_stage, read_table, write_stage
from workbook.evaluation.folds import pool_folds
from workbook.evaluation.score import Scores

FOLDS, EPISODES = 3, 2


def score_rows(fold: int, codec: str, setting: str, factor: float) -> pd.DataFrame:
    episodes = [f"a.hdf5, demo_{FOLDS * at + fold}" for at in range(EPISODES)]
    frame = pd.DataFrame({"episode": episodes, "mse": [factor * (1 + fold + at) for at in range(EPISODES)]})
    return frame.assign(
        codec=codec, setting=setting, decoding="tokens", seed=0, part="test", task="put", steps=10.0,
        compared=True, measured=True,
    )  # fmt: skip


def write_fold(folder: Path, fold: int, layers: int = 1) -> OutputFolder:
    out = OutputFolder.at(str(folder))
    kept = [score_rows(fold, "naive", "layers=1", 2.0), score_rows(fold, "fixed_scale", "layers=1", 1.0)]
    extra = [score_rows(fold, "naive", "layers=2", 1.0)] if fold else []
    runs: dict[str, Any] = {"none": {"runs": [{"seed": fold}], "overhead": fold}}
    probe = score_rows(fold, "naive", "layers=1", 1.0).assign(training_set_size=20 + fold)
    networks = pd.DataFrame({"codec": ["naive"], "setting": [f"layers={layers}"], "weights": [fold]})
    write_stage(out, "data", {}, {})
    write_stage(out, "training", {}, {"conditionings": runs, "total_seconds": 5.0, "best": {"seed": fold}})
    values = {"test_episodes": EPISODES, "test_steps": 20, "layout": "joint:7"}
    write_stage(out, "comparison", {}, values, {"scores": pd.concat([*kept, *extra], ignore_index=True)})
    write_stage(out, "policy", {}, {"seeds": 1, "config": {}}, {"probe": probe, "networks": networks})
    return out


@pytest.fixture
def pooled(tmp_path: Path) -> OutputFolder:
    folds = [write_fold(tmp_path / f"{fold}", fold) for fold in range(FOLDS)]
    pool_folds(folds[0], folds[1:])
    return folds[0]


def test_every_episode_stands_once_under_the_seed_of_its_fold(pooled: OutputFolder) -> None:
    rows = read_table(pooled, "scores")
    naive = rows[rows.codec == "naive"]
    assert not naive.episode.duplicated().any()
    assert len(naive) == FOLDS * EPISODES
    assert all(naive.seed == naive.episode.str[-1].astype(int) % FOLDS)


def test_a_setting_that_not_every_fold_has_is_left_out(pooled: OutputFolder) -> None:
    rows = read_table(pooled, "scores")
    assert set(rows.setting[rows.codec == "naive"]) == {"layers=1"}


def test_estimates_are_over_all_episodes_and_fold_by_fold(pooled: OutputFolder) -> None:
    scores = Scores(read_table(pooled, "scores"))
    found = scores.estimate("mse", "fixed_scale")
    assert found.mean == pytest.approx(2.5)
    assert found.per_seed == pytest.approx((1.5, 2.5, 3.5))
    assert scores.improvement("fixed_scale").mean == pytest.approx(0.5)


def test_values_are_of_all_folds_and_files_of_the_first(pooled: OutputFolder) -> None:
    training, comparison = read_stage(pooled, "training"), read_stage(pooled, "comparison")
    assert [run["seed"] for run in training["conditionings"]["none"]["runs"]] == [0, 1, 2]
    assert (training["total_seconds"], training["best"]) == (15.0, {"seed": 0})
    assert (comparison["test_episodes"], comparison["test_steps"], comparison["folds"]) == (6, 60, 3)
    assert read_stage(pooled, "policy")["seeds"] == FOLDS
    assert read_table(pooled, "networks").weights.tolist() == [0]
    assert set(read_table(pooled, "probe").training_set_size) == {20}


def test_policies_of_different_tokens_are_not_put_together(tmp_path: Path) -> None:
    folds = [write_fold(tmp_path / f"{fold}", fold, layers=1 + fold) for fold in range(2)]
    with pytest.raises(InputError, match="different layers"):
        pool_folds(folds[0], folds[1:])
