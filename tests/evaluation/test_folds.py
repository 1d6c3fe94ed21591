"""Folds put together as one run: rows, values and the estimates of both."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_codecs import make_fitting

from workbook.codecs.catalogue import Setting, catalogue, decided, klt_rfsq_of
from workbook.codecs.klt_rfsq import BRANCHES
from workbook.common.errors import InputError
from workbook.common.paths import OutputFolder
from workbook.common.stages import read_document, read_stage, read_table, write_stage
from workbook.evaluation.against_fast import against_fast
from workbook.evaluation.evidence import Evidence
from workbook.evaluation.folds import pool_folds
from workbook.evaluation.policy.evidence import PolicyEvidence, PredictedCodec
from workbook.evaluation.policy.training import ProbeTraining
from workbook.evaluation.score import Scores
from workbook.training.baselines import BaselineConfig
from workbook.training.runs import load_fitting

FOLDS, EPISODES = 3, 2
FITTING = make_fitting()
KLT = {"codec": "klt_rfsq_fixed", "setting": "codes=36"}


def of_episodes(fold: int, factor: float, part: str = "test", **keys: object) -> pd.DataFrame:
    """Episode e of fold f is called demo_(3 e + f) and has an error of factor x (1 + f + e)."""
    episodes = [f"a.hdf5, demo_{FOLDS * at + fold}" for at in range(EPISODES)]
    frame = pd.DataFrame({"episode": episodes, "mse": [factor * (1 + fold + at) for at in range(EPISODES)]})
    return frame.assign(seed=0, part=part, task="put", steps=10.0, **keys)


def scores(fold: int) -> pd.DataFrame:
    """Naive's second layer was not measured in fold 0."""
    keys: dict[str, Any] = {"decoding": "tokens", "compared": True, "measured": True}
    frames = [
        of_episodes(fold, factor, codec=codec, setting=setting, **keys)
        for codec, setting, factor in (
            ("naive", "layers=1", 2.0), ("fixed_scale", "layers=1", 1.0), *([("naive", "layers=2", 1.0)] * (fold > 0)),
        )
    ]  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def beside_fast(fold: int) -> pd.DataFrame:
    """In fold 1 no scale costs as many words."""
    sides = ["codec", "bits", *(["words"] * (fold != 1))]
    frames = [of_episodes(fold, 1.0 if side == "codec" else 2.0, side=side).drop(columns="part") for side in sides]
    return pd.concat(frames, ignore_index=True).assign(**KLT, bits=60.0, words=6.0, scale=5.0)


def policies(fold: int, depth: int) -> dict[str, pd.DataFrame]:
    """Of a codec whose tokens lie in `depth` layers; each takes 1 from an error of 10."""
    size = 20 + fold
    probe = [
        of_episodes(fold, 10.0 - layers, part, **KLT, rule="soft", decoder="own", layers=layers, training_set_size=size)
        for part in ("validation", "test")
        for layers in range(1, depth + 1)
    ]
    trained = [
        {**KLT, "heads": heads, "layers": depth, "weights": fold, "training_set_size": size, "seed": 0}
        for heads in ("apart", *(["joint"] * (fold != 1)))
    ]
    of_layer = [
        {**KLT, "rule": "parallel_argmax", "training_set_size": size, "seed": 0, "layer": layer}
        | {"accuracy": 0.5, "cross_entropy_bits": 6.0}
        for layer in range(depth)
    ]
    tables = {"policy_tokens": pd.DataFrame(of_layer), "draft": pd.DataFrame(), "networks": pd.DataFrame(trained)}
    return {"probe": pd.concat(probe, ignore_index=True), **tables}


def write_fold(folder: Path, fold: int, depth: int) -> OutputFolder:
    out = OutputFolder.at(str(folder))
    runs: dict[str, Any] = {"none": {"runs": [{"seed": fold}], "overhead": fold}}
    write_stage(out, "data", {}, {})
    write_stage(out, "training", {}, {"conditionings": runs, "total_seconds": 5.0, "best": {"seed": fold}})
    values = {"test_episodes": EPISODES, "test_steps": 20, "layout": "joint:7"}
    values |= {"brought": {"own": {"chunks": 10, "raised": fold}}, "decided": f"naive={1 + fold}"}
    tables = {
        "scores": scores(fold),
        "validation": scores((fold + 1) % FOLDS).assign(part="validation"),
        "against_fast": beside_fast(fold),
        "token_costs": pd.DataFrame([{**KLT, "seed": 0, "tokens": 36.0 + fold}]),
        "gaussian": pd.DataFrame({"bits": [1.0], "mse": [float(fold)]}),
    }
    write_stage(out, "comparison", {}, values, tables)
    write_stage(out, "policy", {}, {"seeds": 1, "config": {}}, policies(fold, depth))
    return out


def pooled_of(folder: Path, depths: tuple[int, ...] = (2, 2, 2)) -> OutputFolder:
    folds = [write_fold(folder / f"{fold}", fold, depth) for fold, depth in enumerate(depths)]
    pool_folds(folds[0], folds[1:])
    return folds[0]


@pytest.fixture
def pooled(tmp_path: Path) -> OutputFolder:
    return pooled_of(tmp_path)


def test_every_episode_stands_once_under_the_seed_of_its_fold(pooled: OutputFolder) -> None:
    rows = read_table(pooled, "scores")
    naive = rows[rows.codec == "naive"]
    assert not naive.episode.duplicated().any()
    assert len(naive) == FOLDS * EPISODES
    assert all(naive.seed == naive.episode.str[-1].astype(int) % FOLDS)


def test_what_not_every_fold_has_measured_is_left_out(pooled: OutputFolder) -> None:
    rows = read_table(pooled, "scores")
    assert set(rows.setting[rows.codec == "naive"]) == {"layers=1"}
    assert set(read_table(pooled, "against_fast").side) == {"codec", "bits"}
    assert set(read_table(pooled, "networks").heads) == {"apart"}


def test_estimates_are_over_all_episodes_and_fold_by_fold(pooled: OutputFolder) -> None:
    scores = Scores(read_table(pooled, "scores"))
    found = scores.estimate("mse", "fixed_scale")
    assert found.mean == pytest.approx(2.5)
    assert found.per_seed == pytest.approx((1.5, 2.5, 3.5))
    assert scores.improvement("fixed_scale").mean == pytest.approx(0.5)


def test_choices_are_made_on_all_validation_episodes_together(pooled: OutputFolder) -> None:
    found = Scores(read_table(pooled, "validation")).estimate("mse", "fixed_scale")
    assert found.per_seed == pytest.approx((2.5,))


def test_codecs_stand_beside_fast_fold_by_fold(pooled: OutputFolder) -> None:
    (row,) = against_fast(read_table(pooled, "against_fast"))
    assert row.mse.mean == pytest.approx(2.5)
    assert row.equal["words"] is None
    assert row.equal["bits"] is not None
    assert row.equal["bits"].gain.per_seed == pytest.approx((0.5,) * FOLDS)


def test_values_are_of_all_folds_and_files_of_the_first(pooled: OutputFolder) -> None:
    training, comparison = read_stage(pooled, "training"), read_stage(pooled, "comparison")
    assert [run["seed"] for run in training["conditionings"]["none"]["runs"]] == [0, 1, 2]
    assert (training["total_seconds"], training["best"]) == (15.0, {"seed": 0})
    assert (comparison["test_episodes"], comparison["test_steps"], comparison["folds"]) == (6, 60, 3)
    assert comparison["brought"] == {"own": {"chunks": 30, "raised": 3}}
    assert read_stage(pooled, "policy")["seeds"] == FOLDS
    assert read_table(pooled, "gaussian").mse.tolist() == [0.0]
    assert read_table(pooled, "token_costs").tokens.tolist() == [36.0, 37.0, 38.0]
    assert set(read_table(pooled, "probe").training_set_size) == {20}
    assert Evidence(pooled.root).folds == FOLDS


def test_predictions_of_the_users_own_stand_after_the_pooled_policies(tmp_path: Path) -> None:
    folds = [write_fold(tmp_path / f"{fold}", fold, 2) for fold in range(FOLDS)]
    table = pd.DataFrame({"layer": [0, 1], "seed": [7, 7]})
    write_stage(folds[0], "predictions", {"predictions": "a.npz"}, {"not_run": ""}, {"predictions_layers": table})
    pool_folds(folds[0], folds[1:])
    assert read_document(folds[0], "predictions")["parameters"] == {"predictions": "a.npz"}
    pd.testing.assert_frame_equal(read_table(folds[0], "predictions_layers"), table)


@pytest.mark.parametrize("depths", [(2, 2, 2), (2, 3, 2), (3, 2, 2), (2, 2, 3), (3, 2, 1)])
def test_the_whole_of_a_codecs_tokens_is_the_whole_in_whichever_layers_they_lie(
    tmp_path: Path, depths: tuple[int, ...]
) -> None:
    rows = read_table(pooled_of(tmp_path, depths), "probe")
    assert set(rows.layers) == set(range(1, depths[0] + 1))
    for part in ("validation", "test"):
        for layers in range(1, depths[0] + 1):
            found = rows[(rows.part == part) & (rows.layers == layers)]
            assert len(found) == FOLDS * EPISODES
            for fold, depth in enumerate(depths):
                decoded = depth if layers == depths[0] else min(layers, depth)
                own = found[found.seed == fold].mse.to_numpy()
                np.testing.assert_allclose(own, (10.0 - decoded) * np.array([1.0 + fold, 2.0 + fold]))


def test_layers_that_a_fold_lacks_tell_nothing_there(tmp_path: Path) -> None:
    out = pooled_of(tmp_path, (2, 3, 2))
    rows, tokens, draft, networks = (read_table(out, name) for name in ("probe", "policy_tokens", "draft", "networks"))
    policy = PolicyEvidence(rows, tokens, draft, networks, ProbeTraining())
    klt = PredictedCodec(**KLT)
    assert policy.of_layers(klt, "cross_entropy_bits", size=20) == pytest.approx([6.0, 6.0, 2.0])
    assert policy.of_layers(klt, "accuracy", size=20) == pytest.approx([0.5, 0.5, 0.5])


def test_models_of_one_fold_are_not_taken_for_those_of_all(pooled: OutputFolder) -> None:
    with pytest.raises(InputError, match="without --folds"):
        load_fitting(pooled, read_stage(pooled, "training"), FITTING.dataset)


class TestDecided:
    def test_says_what_a_fold_decides_for_itself(self) -> None:
        found = decided(FITTING)
        for name in ("naive", "fixed_scale"):
            assert [Setting.of(layers=found[name])] == list(catalogue()[name].predicted(FITTING))
        assert found["gripper_bits"] == klt_rfsq_of(FITTING)[0].model.gripper_bits

    def test_given_settings_are_taken_and_its_own_are_the_same(self) -> None:
        given = replace(FITTING, decided=Setting.parse(str(decided(FITTING))))
        for entry in catalogue().values():
            for use in ("measured", "predicted", "beside_fast"):
                assert getattr(entry, use)(given) == getattr(entry, use)(FITTING)
        other = replace(FITTING, decided=Setting.parse("naive=2 fixed_scale=1"))
        assert catalogue()["naive"].predicted(other) == [Setting.of(layers=2)]
        assert catalogue()["fixed_scale"].predicted(other) == [Setting.of(layers=1)]

    def test_bits_of_grippers_say_how_many_codes_fit_into_a_rate(self) -> None:
        bits = klt_rfsq_of(FITTING)[0].model.gripper_bits + float(np.log2(BRANCHES))  # those of a code more
        given = replace(FITTING, decided=Setting.of(gripper_bits=bits))
        counts, fewer = (catalogue()["klt_rfsq_fixed"].beside_fast(fitting) for fitting in (FITTING, given))
        assert [setting["codes"] - 1 for setting in counts[-2:]] == [setting["codes"] for setting in fewer[-2:]]

    @pytest.mark.parametrize("text", ["naive", "naive=two"])
    def test_what_is_no_setting_is_refused(self, text: str) -> None:
        with pytest.raises(InputError, match="naive=2"):
            BaselineConfig(decided=text)
