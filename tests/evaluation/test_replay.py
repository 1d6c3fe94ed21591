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
import papermill
import pytest
from kernels import MEDIAN_HAND_MM, MEDIAN_OBJECT_MM, RECORDED, apart, on_recorded_kernels
from small_runs import SMALL, Run, ignore_progress, make_dataset, run_notebooks

from workbook.codecs.rfsq import load_codec
from workbook.common.errors import InputError
from workbook.common.paths import NOTEBOOKS, SAMPLE, OutputFolder
from workbook.common.stages import write_stage
from workbook.data.dataset import DataConfig, prepare_dataset
from workbook.data.episodes import Start
from workbook.data.layout import ActionLayout
from workbook.data.sources.read import read_recorded_starts, read_recordings
from workbook.evaluation.replay import replay as replay_module
from workbook.evaluation.replay.codecs import EQUAL_RATES, candidates, fit_fast_at
from workbook.evaluation.replay.evidence import CONTRASTS
from workbook.evaluation.replay.replay import NO_STATES, OTHER_LAYOUT, ReplayConfig, replay
from workbook.simulation.playback import Playback, Trace
from workbook.simulation.scene import versions
from workbook.simulation.workers import run_apart
from workbook.training.baselines import fitting_chunks
from workbook.training.runs import BEST_FILES
from workbook.verdict.results import assemble
from workbook.verdict.success import OUT_OF_DATE

STOVE = SAMPLE / "libero_goal" / "turn_on_the_stove_demo.hdf5"
ONE = ReplayConfig(replay_episodes=1, replay_seeds=1)
Evidence = dict[str, Any]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The notebooks before, on one short task, with small models."""
    prepared = prepare_dataset(STOVE)
    return run_notebooks(tmp_path_factory.mktemp("small") / "out", prepared, SMALL, seeds=2)


@pytest.fixture(scope="module", autouse=True)
def fitted_once(small: Run) -> Iterator[None]:
    """Fitting FAST-style tokens to a rate takes seconds, and each test would do it anew."""
    known = {seeds: candidates(small.out, small.dataset, small.training, seeds) for seeds in (1, 2)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replay_module, "candidates", lambda out, dataset, training, seeds: known[seeds])
        yield


@pytest.fixture(scope="module")
def played(small: Run, simulator: None) -> Evidence:
    return replay(small.out, small.dataset, small.training, ONE, small.out.replays, ignore_progress)


def without_times(found: Evidence) -> Evidence:
    return {key: value for key, value in found.items() if key not in ("seconds", "newly_played")}


def test_every_codec_is_played_on_an_episode_that_succeeds_exactly(played: Evidence) -> None:
    assert played["not_run"] == ""
    assert played["exact"] | {"left_out": []} == {
        "played": 1,
        "succeeded": 1,
        "final_state_recorded": 1,
        "final_state_equal": int(played["kernels"] == RECORDED),
        "left_out": [],
    }
    wanted = {"naive", "layernorm", "layernorm_sent", "scale", "scale_few", "bins16", "bins64", "bins256", "fast"}
    assert wanted <= set(played["codecs"])
    assert {key for pair in CONTRASTS.values() for key in pair} <= set(played["codecs"])
    assert all(entry["played"] == 1 and not entry["not_played"] for entry in played["codecs"].values())
    assert played["codecs"]["bins256"]["succeeded"] == 1
    assert played["articulated_tasks"] == ["turn on the stove"]


def test_finer_rounding_strays_less(played: Evidence) -> None:
    strayed = [np.mean(played["codecs"][f"bins{count}"]["drift"]["position_mm"]) for count in (8, 256)]
    assert strayed[0] > 2 * strayed[1]


def test_finished_replays_are_not_played_again(small: Run, played: Evidence, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs_seen: list[int] = []

    def count_jobs(work: Any, jobs: list[Any], *rest: Any) -> list[Any]:
        jobs_seen.append(len(jobs))
        return run_apart(work, jobs, *rest)

    monkeypatch.setattr(replay_module, "run_apart", count_jobs)
    again = replay(small.out, small.dataset, small.training, ONE, small.out.replays, ignore_progress)
    assert (jobs_seen, again["newly_played"]) == ([0], 0)
    assert without_times(again) == without_times(played)


def test_one_that_is_lost_is_played_again_and_nothing_else_in_the_folder_is_touched(
    small: Run, played: Evidence
) -> None:
    files = sorted(small.out.replays.glob("*.npz"))
    files[0].write_bytes(b"cut short")
    stranger, half_written = small.out.replays / "klt_rfsq.npz", small.out.replays / f".{files[1].name}.x1y2"
    stranger.write_bytes(b"somebody's own")
    half_written.write_bytes(b"of a process that died")
    again = replay(small.out, small.dataset, small.training, ONE, small.out.replays, ignore_progress)
    assert without_times(again) == without_times(played)
    assert (again["newly_played"], again["replays"]) == (1, len(files))
    assert sorted(small.out.replays.iterdir()) == sorted([*files, stranger])
    assert Trace.load(files[0]) is not None
    stranger.unlink()


def test_the_notebook_shows_what_was_played_and_puts_it_into_the_results(small: Run, played: Evidence) -> None:
    """Executed headless, with parameters that only override; its replays are finished."""
    executed = small.out.root / "05_replay.ipynb"
    parameters = {"out": str(small.out.root), "replay_episodes": 1, "replay_seeds": 1}
    papermill.execute_notebook(NOTEBOOKS / "05_replay.ipynb", executed, parameters, progress_bar=False)
    cells = nbformat.read(executed, as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 4
    written = json.loads(small.out.results.read_text(encoding="utf8"))
    assert written["replay"]["episodes"] == 1
    assert written["verdict"]["parts"][-1]["word"] == "NOT SHOWN"  # of one episode nothing can be
    assert written["provenance"]["parameters"]["replay"] == {"replay_episodes": 1, "replay_seeds": 1}


def test_a_replay_older_than_the_rest_is_said_to_be_so(small: Run, tmp_path: Path) -> None:
    folder = OutputFolder.at(str(shutil.copytree(small.out.root, tmp_path / "out")))
    write_stage(folder, "replay", {}, {"not_run": "tried"})
    assert assemble(folder)["replay"] == {"not_run": "tried"}
    write_stage(folder, "phase2", {}, small.phase2)
    assert assemble(folder)["replay"] == OUT_OF_DATE


def test_a_process_that_dies_costs_one_replay_which_is_told(
    small: Run, played: Evidence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but one are finished; that one is of a codec, for without the exact replay nothing could be said."""
    [naive] = [one for one in candidates(small.out, small.dataset, small.training, 1) if one.key == "naive"]
    [lost] = replay_module._decode(small.dataset, naive.codecs[0], replay_module._choose_episodes(small.dataset, 1))
    finished = shutil.copytree(small.out.replays, tmp_path / "replays")
    (finished / f"{lost.key}.npz").unlink()
    monkeypatch.setattr(replay_module, "_play_job", die)
    found = replay(small.out, small.dataset, small.training, ONE, finished, ignore_progress)
    assert (found["codecs"]["naive"]["played"], found["codecs"]["naive"]["succeeded"]) == (0, 0)
    assert "died or hung" in found["codecs"]["naive"]["not_played"][0]
    others = {key: entry for key, entry in found["codecs"].items() if key != "naive"}
    assert others == {key: entry for key, entry in played["codecs"].items() if key != "naive"}


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
    starts = small.dataset.starts
    assert len(starts) == len(WRONG_STARTS)
    spoiled = {
        at: replace(start, **wrong) for (at, start), wrong in zip(starts.items(), WRONG_STARTS.values(), strict=True)
    }
    config = ReplayConfig(replay_seeds=1)
    found = replay(small.out, replace(small.dataset, starts=spoiled), small.training, config, tmp_path, ignore_progress)
    assert found["episodes"] == 0
    said = " ".join(left["why"] for left in found["exact"]["left_out"])
    assert all(why in said for why in WRONG_STARTS)


def test_whatever_else_the_simulator_raises_costs_one_replay_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(scene: Any, playback: Playback) -> Trace:
        raise RuntimeError("assets\nare missing")

    monkeypatch.setattr(replay_module, "_scene_of", lambda task_file: None)
    monkeypatch.setattr(replay_module, "play", fail)
    playback = Playback(Start("a.bddl", np.zeros(3), {}), np.zeros((2, 7)))
    said = replay_module._play_job((playback, tmp_path / "a.npz"))
    assert said == "a.bddl: cannot be played (RuntimeError: assets are missing)"
    assert not list(tmp_path.iterdir())


def test_without_the_simulator_nothing_is_played_and_the_reason_is_told(
    small: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_module.scene, "find_spec", lambda name: None)
    found = replay(small.out, small.dataset, small.training, ONE, tmp_path)
    assert set(found) == {"not_run"}
    assert "not installed" in found["not_run"]


def test_recordings_without_a_state_or_of_another_arm_are_not_played(
    small: Run, simulator: None, tmp_path: Path
) -> None:
    assert replay(small.out, make_dataset(), small.training, ONE, tmp_path) == {"not_run": NO_STATES}
    thinned = prepare_dataset(STOVE, DataConfig(drop_noops=True)).dataset
    assert replay(small.out, thinned, small.training, ONE, tmp_path) == {"not_run": NO_STATES}
    joints = replace(small.dataset, layout=ActionLayout.parse("joint:6 gripper:1"))
    assert replay(small.out, joints, small.training, ONE, tmp_path) == {"not_run": OTHER_LAYOUT}


@pytest.mark.parametrize("wrong", [{"replay_episodes": -1}, {"replay_seeds": -2}])
def test_a_count_that_cannot_be_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match="give a positive number, or 0 for all"):
        ReplayConfig(**wrong)


# Codecs


@pytest.mark.parametrize("seeds", [1, 2])
def test_the_model_to_deploy_is_among_them_and_known(small: Run, seeds: int) -> None:
    chunks = small.dataset.held_out_chunks("test").actions
    found = {one.key: one for one in candidates(small.out, small.dataset, small.training, seeds)}
    for key, name in (("naive", "none"), ("scale", "scale")):
        candidate = found[key]
        deployed = load_codec(small.out.checkpoints / BEST_FILES[name], small.dataset.normaliser)
        decoded = [codec.decode(codec.encode(chunks)) for codec in candidate.codecs]
        same = [np.array_equal(one, deployed.decode(deployed.encode(chunks))) for one in decoded]
        assert same == [place == candidate.chosen for place in range(seeds)]


def test_fast_is_fitted_to_the_bits_that_are_asked_for(small: Run) -> None:
    train, validation = fitting_chunks(small.dataset), small.dataset.held_out_chunks("validation").actions
    for bits in EQUAL_RATES:
        codec = fit_fast_at(train, validation, small.dataset.normaliser, bits)
        assert codec.bits(codec.encode(validation)) == pytest.approx(bits, rel=0.05)


# Files


def write_as_libero_does(path: Path, starts: list[Start], states: np.ndarray, model: str) -> None:
    """The sample's demos as LIBERO's own files hold them: `states`, `model_file` and a path of another machine."""
    episodes = read_recordings(STOVE).episodes[: len(starts)]
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["bddl_file_name"] = "chiliocosm/bddl_files/libero_goal/turn_on_the_stove.bddl"
        for number, episode in enumerate(episodes):
            demo = data.create_group(f"demo_{number}")
            demo["actions"] = episode.actions
            demo["states"] = states[number]
            demo.attrs["model_file"] = model


def test_a_file_of_liberos_own_layout_plays_too(simulator: None, tmp_path: Path) -> None:
    from workbook.simulation.scene import Scene

    episodes = read_recordings(STOVE).episodes[:4]
    starts = [start for start in read_recorded_starts(STOVE, episodes) if start is not None]
    states = np.stack([np.stack([start.state, start.state + 1]) for start in starts])
    model = Scene("turn_on_the_stove.bddl")._sim.model.get_xml()
    write_as_libero_does(tmp_path / "turn_on_the_stove_demo.hdf5", starts, states, model)
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
