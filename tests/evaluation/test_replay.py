"""Replays in the simulator: of the sample, of files in the layout of LIBERO's own, resumed, and where none can be."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest
from kernels import MEDIAN_HAND_MM, MEDIAN_OBJECT_MM, RECORDED, apart, on_recorded_kernels
from small_runs import SMALL, Run, ignore_progress, make_dataset, run_notebooks
from writers import write_as_libero_does

from rfsq_robust import Conditioning
from workbook.codecs import catalogue as catalogue_module
from workbook.codecs.bins import UniformBins
from workbook.codecs.catalogue import ENTRIES, PLAYED_RATES, Entry, Fitting, Setting, at
from workbook.codecs.rfsq import load_codec
from workbook.common.errors import InputError
from workbook.common.paths import NOTEBOOKS, SAMPLE, OutputFolder
from workbook.common.stages import read_document, table_path, write_stage
from workbook.data.config import DataConfig
from workbook.data.dataset import prepare_dataset
from workbook.data.episodes import Start
from workbook.data.layout import ActionLayout
from workbook.data.sources.read import read_recorded_starts, read_recordings
from workbook.evaluation.evidence import Evidence
from workbook.evaluation.replay import replay as replay_module
from workbook.evaluation.replay.codecs import PlayedCodec, played_codecs
from workbook.evaluation.replay.evidence import DIED, NO_STATES, OTHER_LAYOUT, Replays
from workbook.evaluation.replay.replay import ReplayConfig, ReplayStage, replay
from workbook.simulation import workers
from workbook.simulation.playback import Playback, Trace
from workbook.simulation.scene import versions
from workbook.simulation.workers import run_apart
from workbook.training.runs import BEST_FILES, load_fitting
from workbook.verdict.results import assemble

STOVE = SAMPLE / "libero_goal" / "turn_on_the_stove_demo.hdf5"
ONE = ReplayConfig(replay_episodes=1, replay_seeds=1)
FEW_POLICIES = {"loop_seeds": 1, "loop_starts": 1, "demonstrations": 1, "loop_steps": 5}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The notebooks before, on one short task, with small models."""
    prepared = prepare_dataset(STOVE)
    return run_notebooks(tmp_path_factory.mktemp("small") / "out", prepared, SMALL, seeds=2)


@pytest.fixture(scope="module")
def fitting(small: Run) -> Fitting:
    return load_fitting(small.out, small.training, small.dataset)


@pytest.fixture(scope="module", autouse=True)
def fitted_once(small: Run, fitting: Fitting) -> Iterator[None]:
    """Fitting FAST-style tokens to a rate takes seconds, and each test would do it anew."""
    known = played_codecs(fitting, small.training, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replay_module, "load_fitting", lambda out, training, dataset: fitting)
        patch.setattr(replay_module, "played_codecs", lambda fitting, training, seeds: known)
        yield


@pytest.fixture(scope="module")
def played(small: Run, simulator: None) -> ReplayStage:
    return play(small, small.out.replays)


def play(small: Run, traces: Path, config: ReplayConfig = ONE, **other: Any) -> ReplayStage:
    return replay(small.out, replace(small.dataset, **other), small.training, config, traces, ignore_progress)


def replays_of(stage: ReplayStage) -> Replays:
    return Replays(stage.values, *(stage.tables[name] for name in ("replays", "replay_drift", "replay_paths")))


def assert_same(one: ReplayStage, other: ReplayStage) -> None:
    """But for how long they took, and what was played anew."""
    timed = ("seconds", "newly_played")
    assert all(one.values[name] == other.values[name] for name in one.values if name not in timed)
    for name, rows in one.tables.items():
        pd.testing.assert_frame_equal(rows, other.tables[name])


def test_every_codec_is_played_on_an_episode_that_succeeds(played: ReplayStage) -> None:
    found = replays_of(played)
    assert (found.not_run, found.episodes, found.left_out, found.broken) == ("", 1, [], [])
    assert played.values["final_states"] == {"recorded": 1, "equal": int(played.values["kernels"] == RECORDED)}
    assert {codec for codec, _ in found.keys} == {
        "naive", "layernorm", "layernorm_sent", "fixed_scale", "bins", "fast", "klt_rfsq_fixed", "klt_rfsq_variable",
    }  # fmt: skip
    assert all(of.played == 1 for of in found.codecs)
    assert found.of("bins", "bins=256").succeeded == 1
    assert found.articulated_tasks == ["turn on the stove"]


def test_finer_rounding_strays_less(played: ReplayStage) -> None:
    coarse, fine = (replays_of(played).of("bins", f"bins={count}").drift.position_mm.mean() for count in (8, 256))
    assert coarse > 2 * fine


def test_finished_replays_are_not_played_again(
    small: Run, played: ReplayStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs_seen: list[int] = []

    def count_jobs(work: Any, jobs: list[Any], *rest: Any, **named: Any) -> list[Any]:
        jobs_seen.append(len(jobs))
        return run_apart(work, jobs, *rest, **named)

    monkeypatch.setattr(workers, "run_apart", count_jobs)
    again = play(small, small.out.replays)
    assert (jobs_seen, again.values["newly_played"]) == ([0], 0)
    assert_same(again, played)


def test_one_that_is_lost_is_played_again_and_nothing_else_in_the_folder_is_touched(
    small: Run, played: ReplayStage
) -> None:
    files = sorted(small.out.replays.glob("*.npz"))
    files[0].write_bytes(b"cut short")
    stranger, half_written = small.out.replays / "klt_rfsq.npz", small.out.replays / f".{files[1].name}.x1y2"
    stranger.write_bytes(b"somebody's own")
    half_written.write_bytes(b"of a process that died")
    os.utime(half_written, (0, 0))
    again = play(small, small.out.replays)
    assert_same(again, played)
    assert (again.values["newly_played"], again.values["replays"]) == (1, len(files))
    assert sorted(small.out.replays.iterdir()) == sorted([*files, stranger])
    assert Trace.load(files[0]) is not None
    stranger.unlink()


def test_the_notebook_shows_what_was_played_and_puts_it_into_the_results(small: Run, played: ReplayStage) -> None:
    """Executed headless, with parameters that only override; its replays are finished, its policies are few."""
    executed = small.out.root / "05_policy_in_the_loop.ipynb"
    parameters = {"out": str(small.out.root), "replay_episodes": 1, "replay_seeds": 1, **FEW_POLICIES}
    papermill.execute_notebook(NOTEBOOKS / "05_policy_in_the_loop.ipynb", executed, parameters, progress_bar=False)
    cells = nbformat.read(executed, as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 4
    assert sum("<svg" in output.get("data", {}).get("text/html", "") for output in outputs) == 1
    run = Evidence(small.out.root)
    pd.testing.assert_frame_equal(run.replays.rows, played.tables["replays"], check_dtype=False)
    assert run.results["verdict"]["parts"][-1] == {"key": "success", "word": "NOT SHOWN"}  # one episode shows nothing
    assert run.results["provenance"]["parameters"]["replay"] == {"replay_episodes": 1, "replay_seeds": 1}
    assert run.results["provenance"]["parameters"]["loop"] == {**FEW_POLICIES, "full": False}
    assert [one["pairs"] for one in run.results["loop"]] == [1] * len(run.results["loop"])
    assert run.results["recommendation"]["evidence"] == "probe"  # one pair decides nothing


def test_a_replay_older_than_the_rest_is_no_part_of_the_results(small: Run, tmp_path: Path) -> None:
    folder = OutputFolder.at(str(shutil.copytree(small.out.root, tmp_path / "out")))
    write_stage(folder, "replay", {}, {"not_run": "tried"})
    assert "replay" in assemble(Evidence(folder.root))["provenance"]["parameters"]
    policy = read_document(folder, "policy")
    tables = {name: pd.read_parquet(table_path(folder, name)) for name in policy["tables"]}
    write_stage(folder, "policy", policy["parameters"], policy["content"], tables)
    assert "replay" not in assemble(Evidence(folder.root))["provenance"]["parameters"]


def test_a_process_that_dies_costs_one_replay_which_is_told(
    small: Run, fitting: Fitting, played: ReplayStage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but one are finished; that one is of a codec, for without ground-truth replay nothing could be said."""
    [naive] = [one for one in played_codecs(fitting, small.training, 1) if one.name == "naive"]
    [lost] = replay_module._decode(small.dataset, naive.codecs[0], replay_module._choose_episodes(small.dataset, 1))
    finished = shutil.copytree(small.out.replays, tmp_path / "replays")
    (finished / f"{lost.key}.npz").unlink()
    monkeypatch.setattr(replay_module, "_play_job", die)
    found, before = replays_of(play(small, finished)), replays_of(played)
    assert (found.of("naive").played, found.of("naive").succeeded) == (0, 0)
    assert found.broken == [DIED]
    others = [rows[rows.codec != "naive"].reset_index(drop=True) for rows in (found.rows, before.rows)]
    pd.testing.assert_frame_equal(*others)


def die(job: Any) -> str:
    os._exit(9)


WRONG_STARTS: dict[str, dict[str, Any]] = {
    "has no such task": {"task_file": "juggle.bddl"},
    "has 12 numbers": {"state": np.zeros(12)},
    "not finite": {"state": np.full(79, np.nan)},
    "became unstable": {"state": np.concatenate([np.zeros(60), np.full(19, 1e12)])},
}


def test_what_cannot_be_played_is_told_in_a_sentence_and_raises_nothing(
    small: Run, simulator: None, tmp_path: Path
) -> None:
    starts = small.dataset.test_starts
    assert len(starts) == len(WRONG_STARTS)
    spoiled = {
        at: replace(start, **wrong) for (at, start), wrong in zip(starts.items(), WRONG_STARTS.values(), strict=True)
    }
    found = replays_of(play(small, tmp_path, ReplayConfig(replay_seeds=1), starts=spoiled))
    assert (found.episodes, found.played) == (0, False)
    said = " ".join(left.why for left in found.left_out)
    assert all(why in said for why in WRONG_STARTS)


def test_whatever_else_the_simulator_raises_costs_one_replay_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(scene: Any, playback: Playback) -> Trace:
        raise RuntimeError("assets\nare missing")

    monkeypatch.setattr(replay_module.scene, "scene_of", lambda task_file: None)
    monkeypatch.setattr(replay_module, "play", fail)
    playback = Playback(Start("a.bddl", np.zeros(3), {}), np.zeros((2, 7)))
    said = replay_module._play_job((playback, tmp_path / "a.npz"))
    assert said == "a.bddl: cannot be played (RuntimeError: assets are missing)"
    assert not list(tmp_path.iterdir())


def test_without_the_simulator_nothing_is_played_and_the_reason_is_told(
    small: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_module.scene, "find_spec", lambda name: None)
    found = play(small, tmp_path)
    assert "not installed" in found.values["not_run"]
    assert not found.tables


def test_recordings_without_a_state_or_of_another_arm_are_not_played(
    small: Run, simulator: None, tmp_path: Path
) -> None:
    walks, thinned = make_dataset(), prepare_dataset(STOVE, DataConfig(drop_noops=True)).dataset
    joints = replace(small.dataset, layout=ActionLayout.parse("joint:6 gripper:1"))
    for dataset, why in ((walks, NO_STATES), (thinned, NO_STATES), (joints, OTHER_LAYOUT)):
        assert replay(small.out, dataset, small.training, ONE, tmp_path).values == {"not_run": why}


@pytest.mark.parametrize("wrong", [{"replay_episodes": -1}, {"replay_seeds": -2}])
def test_a_count_that_cannot_be_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match="give a positive number, or 0 for all"):
        ReplayConfig(**wrong)


# Codecs


def find(codecs: list[PlayedCodec], name: str) -> PlayedCodec:
    return next(one for one in codecs if one.name == name)


@pytest.mark.parametrize("seeds", [1, 2])
def test_the_model_to_deploy_is_among_them_and_known(small: Run, fitting: Fitting, seeds: int) -> None:
    chunks = small.dataset.held_out_chunks("test").actions
    codecs = played_codecs(fitting, small.training, seeds)
    stored: Conditioning
    for name, stored in (("naive", "none"), ("fixed_scale", "scale")):
        found = find(codecs, name)
        deployed = load_codec(small.out.checkpoints / BEST_FILES[stored], small.dataset.normaliser)
        decoded = [codec.decode(codec.encode(chunks)) for codec in found.codecs]
        same = [np.array_equal(one, deployed.decode(deployed.encode(chunks))) for one in decoded]
        assert same == [place == found.deployed for place in range(seeds)]
        assert found.seeds[found.deployed] == small.training["best"][stored]["seed"]
    assert len(find(codecs, "layernorm").codecs) == 1  # which fails nearly everywhere
    assert len(find(codecs, "layernorm_sent").codecs) == seeds


def test_fast_is_fitted_to_the_bits_of_klt_rfsq_at_the_same_rate(small: Run, fitting: Fitting) -> None:
    validation = small.dataset.held_out_chunks("validation").actions
    bits = {
        (one.name, one.setting): one.codecs[0].bits(one.codecs[0].encode(validation))
        for one in played_codecs(fitting, small.training, 1)
    }
    for rate in PLAYED_RATES:
        equal = bits["klt_rfsq_variable", f"rate={rate}"]
        assert bits["fast", f"rate={rate}"] == pytest.approx(equal, rel=0.05)


def test_a_codec_that_is_added_to_the_catalogue_is_played(
    small: Run, fitting: Fitting, monkeypatch: pytest.MonkeyPatch
) -> None:
    def halves(fitting: Fitting, setting: Setting) -> list[UniformBins]:
        return [UniformBins(setting.count("bins"), fitting.normaliser)]

    toy = Entry("toy", "toy codec", "#123456", "h-", True, False, halves, played=at("bins", 2))
    monkeypatch.setattr(catalogue_module, "ENTRIES", (*ENTRIES, toy))
    found = find(played_codecs(fitting, small.training, 1), "toy")
    assert (found.setting, list(found.seeds), found.deployed) == ("bins=2", [0], 0)
    assert replay_module._decode(small.dataset, found.codecs[0], replay_module._choose_episodes(small.dataset, 1))


# Files


def test_a_file_of_liberos_own_layout_plays_too(simulator: None, tmp_path: Path) -> None:
    write_as_libero_does(tmp_path / "turn_on_the_stove_demo.hdf5", STOVE, 4)
    dataset = prepare_dataset(tmp_path).dataset
    jobs = [
        (Playback(start, dataset.episodes[at].actions), tmp_path / f"{at}.npz") for at, start in dataset.starts.items()
    ]
    assert jobs
    assert all(playback.start.fixtures for playback, _ in jobs)
    assert run_apart(replay_module._play_job, jobs, 120) == [""] * len(jobs)
    assert all((trace := Trace.load(path)) is not None and trace.succeeded for _, path in jobs)


@pytest.mark.slow
def test_the_whole_sample_plays_as_it_was_recorded(simulator: None, tmp_path: Path) -> None:
    """To the last bit on the kernels that recorded it, nearly so on others."""
    with h5py.File(STOVE) as file:
        recorded = json.loads(file["data"].attrs["versions"])
    if versions().items() - recorded.items():
        pytest.skip(f"recorded with {recorded}; other versions may differ in the last bit")
    episodes = read_recordings("sample").episodes
    starts = read_recorded_starts("sample", episodes)
    jobs = [
        (Playback(start, episode.actions), tmp_path / f"{number}.npz")
        for number, (start, episode) in enumerate(zip(starts, episodes, strict=True))
        if start is not None
    ]
    assert len(jobs) == len(episodes)
    assert run_apart(replay_module._play_job, jobs, 300) == [""] * len(jobs)
    found = []
    for (playback, path), episode in zip(jobs, episodes, strict=True):
        trace = Trace.load(path)
        assert trace is not None
        assert trace.succeeded
        found.append(apart(trace, SAMPLE / episode.source, episode.key))
        assert found[-1].is_near, episode.place
        if on_recorded_kernels():
            assert str(trace.final_state_sha256) == playback.start.final_state_sha256
    assert np.median([each.hand.max() for each in found]) < MEDIAN_HAND_MM
    assert np.median(np.concatenate([each.objects for each in found])) < MEDIAN_OBJECT_MM
