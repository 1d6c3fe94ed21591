"""The recorder: the files it writes, what it refuses, and that the sample can be recorded again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from kernels import LOOSE_MM, TOUCHED_NOTHING_MM, on_recorded_kernels

from workbook.common.paths import REPOSITORY, SAMPLE
from workbook.data.sources.read import read_recordings
from workbook.report.tables.data import recordings_table
from workbook.simulation.recorder import plans, record
from workbook.simulation.recorder.controller import on_lattice
from workbook.simulation.recorder.demo_file import TAG, Kept, Recorded
from workbook.simulation.recorder.expert import Demonstration
from workbook.simulation.recorder.plans import SAMPLE as TABLE
from workbook.simulation.scene import Scene, SimulationError, missing_packages, versions
from workbook.simulation.tasks import Task, initial_states

needs_simulator = pytest.mark.skipif(bool(missing_packages()), reason=missing_packages() or "installed")
KNOB = "libero_goal:7"
MADE_UP = Task("libero_goal", 7, "turn_on_the_stove")


def demonstration(seed: int, steps: int = 12, objects: int = 2, mechanisms: int = 1) -> Demonstration:
    """Made up; no simulator has played it."""
    rng = np.random.default_rng(seed)
    return Demonstration(
        succeeded=True,
        start=rng.normal(0, 1, 79),
        actions=np.column_stack([on_lattice(rng.normal(0, 0.3, (steps, 6))), np.ones(steps)]),
        robot=rng.normal(0, 1, (steps, 9)),
        objects=rng.normal(0, 1, (steps, objects, 7)),
        mechanisms=rng.normal(0, 1, (steps, mechanisms)),
        final_state_sha256="ab" * 32,
    )


def recorded(*made: Demonstration) -> Recorded:
    kept = [Kept(each, 2 * number, 2 * number % 5) for number, each in enumerate(made)]
    return Recorded(MADE_UP, "libero_tabletop", "(define)", ["bowl", "plate"], 3, 7, kept, {"mujoco": "3.17.0"})


# the files


def test_a_file_is_where_and_as_libero_has_it(tmp_path: Path) -> None:
    made = [demonstration(0), demonstration(1, steps=9)]
    path = recorded(*made).save(tmp_path)
    assert path == tmp_path / "libero_goal" / "turn_on_the_stove_demo.hdf5"
    with h5py.File(path) as file:
        data = file["data"]
        assert data.attrs["num_demos"] == 2
        assert data.attrs["total"] == 21
        assert data.attrs["tries"] == 7
        assert data.attrs["tag"] == TAG
        assert data.attrs["bddl_file_name"] == "libero_goal/turn_on_the_stove.bddl"
        assert json.loads(data.attrs["problem_info"])["language_instruction"] == "turn on the stove"
        assert json.loads(data.attrs["env_args"])["env_kwargs"]["control_freq"] == 20
        assert json.loads(data.attrs["versions"])["mujoco"] == "3.17.0"
        for demo, expected in zip((data["demo_0"], data["demo_1"]), made, strict=True):
            np.testing.assert_array_equal(demo["actions"][()], expected.actions)
            np.testing.assert_array_equal(demo["robot_states"][()], expected.robot.astype(np.float32))
            np.testing.assert_allclose(demo["object_poses"][()], expected.objects, atol=6e-5)
            np.testing.assert_allclose(demo["mechanisms"][()], expected.mechanisms, atol=6e-5)
            assert json.loads(demo["object_poses"].attrs["names"]) == ["bowl", "plate"]
            np.testing.assert_array_equal(demo.attrs["init_state"], expected.start)
            assert demo.attrs["num_samples"] == len(expected.actions)
            assert demo.attrs["final_state_sha256"] == expected.final_state_sha256
        assert (data["demo_1"].attrs["seed"], data["demo_1"].attrs["init_index"]) == (2, 2)


def test_a_file_is_read_as_any_other_of_libero(tmp_path: Path) -> None:
    made = demonstration(4)
    recorded(made).save(tmp_path)
    (episode,) = read_recordings(str(tmp_path)).episodes
    np.testing.assert_array_equal(episode.actions, made.actions)
    assert episode.task == "turn on the stove"
    assert episode.control_rate_hz == 20


def test_a_task_without_objects_has_empty_poses(tmp_path: Path) -> None:
    path = recorded(demonstration(0, objects=0, mechanisms=0)).save(tmp_path)
    with h5py.File(path) as file:
        assert file["data/demo_0/object_poses"].shape == (12, 0, 7)
        assert file["data/demo_0/mechanisms"].shape == (12, 0)


def test_the_same_demonstrations_give_the_same_bytes(tmp_path: Path) -> None:
    first = recorded(demonstration(0)).save(tmp_path / "first").read_bytes()
    time.sleep(1.1)  # HDF5 would keep the time in seconds
    assert recorded(demonstration(0)).save(tmp_path / "second").read_bytes() == first
    assert recorded(demonstration(1)).save(tmp_path / "third").read_bytes() != first


def test_a_file_that_cannot_be_finished_leaves_the_one_before_it(tmp_path: Path) -> None:
    path = recorded(demonstration(0)).save(tmp_path)
    before = path.read_bytes()
    broken = Recorded(MADE_UP, "", "", [], 0, 1, [Kept(demonstration(1), 0, "not a number")], {})  # type: ignore[arg-type]
    object.__setattr__(broken.kept[0].demonstration, "actions", np.array([object()]))
    with pytest.raises((TypeError, ValueError)):
        broken.save(tmp_path)
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_the_table_of_the_data_card_comes_from_the_files(tmp_path: Path) -> None:
    recorded(demonstration(0), demonstration(1)).save(tmp_path)
    table = recordings_table(tmp_path)
    assert table.rows == [["libero_goal", "turn on the stove", "2 of 7", "24"]]
    assert "mujoco 3.17.0" in table.note


# the tries


class NoScene:
    """Stands for a scene in which nothing is played."""

    problem, objects = "libero_tabletop", ("bowl", "plate")

    def __init__(self, task_file: str) -> None:
        pass


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> Callable[[set[int]], list[int]]:
    """Lets only some tries succeed, and tells which were made."""

    def let(succeeding: set[int]) -> list[int]:
        made: list[int] = []

        def attempted(scene: Any, recording: Any, initial: Any, seed: int, attempt: int) -> Demonstration | None:
            made.append(attempt)
            return demonstration(attempt) if attempt in succeeding else None

        monkeypatch.setattr(record, "Scene", NoScene)
        monkeypatch.setattr(record, "initial_states", lambda task: np.zeros((3, 79)))
        monkeypatch.setattr(record, "bddl_text", lambda task: "(define)")
        monkeypatch.setattr(record, "record_try", attempted)
        return made

    return let


def test_only_successes_are_kept_and_all_tries_counted(tries: Callable[[set[int]], list[int]]) -> None:
    made = tries({1, 2, 4})
    progress_steps: list[None] = []
    result = record.record_task(0, record.RecordingJob(KNOB, 3), lambda: progress_steps.append(None))
    assert made == [0, 1, 2, 3, 4]
    assert result.tries == 5
    assert [(kept.attempt, kept.init_index) for kept in result.kept] == [(1, 1), (2, 2), (4, 1)]
    assert len(progress_steps) == record.PROGRESS_STEPS
    assert "3 of 5" in record.summary([result])


def test_a_task_that_hardly_ever_succeeds_is_given_up(tries: Callable[[set[int]], list[int]]) -> None:
    made = tries({3})
    with pytest.raises(SimulationError, match="reached the goal in 1 of 9 tries, too few for 2 episodes"):
        record.record_task(0, record.RecordingJob(KNOB, 2), lambda: None)
    assert len(made) == 9


# the command


def test_without_a_task_the_table_is_recorded(tmp_path: Path) -> None:
    jobs = record.jobs_of(record.parse_arguments(["--out", str(tmp_path)]))
    assert [(job.label, job.episodes) for job in jobs] == [(each.task.label, each.episodes) for each in TABLE]


def test_tasks_and_episodes_can_be_chosen(tmp_path: Path) -> None:
    given = ["--out", str(tmp_path), "--task", KNOB, "--task", "libero_10:0", "--episodes", "3"]
    assert record.jobs_of(record.parse_arguments(given)) == [
        record.RecordingJob(KNOB, 3),
        record.RecordingJob("libero_10:0", 3),
    ]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--task", "libero_goal:99"], "task libero_goal:99: the expert has no plan for it; it has libero_spatial:0, "),
        (["--task", "stove"], "task 'stove': is not a suite and an index, as in libero_goal:7"),
        (["--task", KNOB, "--task", KNOB], "a task is named twice with --task; name each once"),
        (["--episodes", "0"], "--episodes 0: must be at least 1"),
        (["--seed", "-1"], "--seed -1: must be at least 0"),
    ],
)
def test_bad_input_gets_one_sentence(
    given: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert record.main(["--out", str(tmp_path / "out"), *given]) == 2
    stdout, stderr = capsys.readouterr()
    assert stdout == ""
    assert stderr.startswith(f"error: {said}")
    assert stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(record, "missing_packages", lambda: "")
    (tmp_path / "file").write_text("")
    assert record.main(["--out", str(tmp_path / "file")]) == 2
    assert "cannot write results here" in capsys.readouterr().err


def test_a_missing_simulator_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(record, "missing_packages", lambda: "the simulator is not installed")
    assert record.main(["--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "error: the simulator is not installed\n"


@pytest.mark.parametrize(
    ("error", "code"), [(KeyboardInterrupt(), 130), (SimulationError("too few"), 1), (OSError(28, "disk full"), 1)]
)
def test_what_breaks_off_writes_nothing(
    error: BaseException, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(*_: object) -> None:
        raise error

    monkeypatch.setattr(record, "missing_packages", lambda: "")
    monkeypatch.setattr(record, "record", failing)
    assert record.main(["--out", str(tmp_path)]) == code
    assert list(tmp_path.rglob("*")) == []
    assert "Traceback" not in capsys.readouterr().err


# the sample


FILES = sorted(SAMPLE.rglob("*.hdf5"))


def test_the_sample_is_what_the_table_says() -> None:
    assert {str(path.relative_to(SAMPLE)) for path in FILES} == {each.task.demo_file for each in TABLE}
    for each in TABLE:
        with h5py.File(SAMPLE / each.task.demo_file) as file:
            assert file["data"].attrs["num_demos"] == len(file["data"]) == each.episodes


def test_the_sample_is_small_and_of_many_tasks() -> None:
    assert sum(path.stat().st_size for path in FILES) < 3_600_000
    assert len(FILES) >= 8
    assert len({path.parent.name for path in FILES}) >= 3
    assert min(each.episodes for each in TABLE) >= 20
    assert max(each.episodes for each in TABLE) >= 50


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem[:40])
def test_every_file_of_the_sample_is_sound(path: Path) -> None:
    with h5py.File(path) as file:
        data = file["data"]
        assert data.attrs["tag"] == TAG
        assert data.attrs["num_demos"] >= 0.8 * data.attrs["tries"]
        assert data.attrs["total"] == sum(len(demo["actions"]) for demo in data.values())
        for demo in data.values():
            actions = demo["actions"][()]
            np.testing.assert_array_equal(on_lattice(actions[:, :6]), actions[:, :6])
            assert set(actions[:, 6]) == {-1.0, 1.0}
            assert len(demo["robot_states"]) == len(demo["object_poses"]) == len(actions) == demo.attrs["num_samples"]
            assert len(demo.attrs["final_state_sha256"]) == 64
        starts = {demo.attrs["init_state"].tobytes() for demo in data.values()}
        assert len(starts) == len(data)


def test_fingers_close_after_they_are_told_to() -> None:
    """robot_states tells what an action led to, fingers first."""
    for path in FILES:
        with h5py.File(path) as file:
            for demo in file["data"].values():
                opening = demo["robot_states"][:, 0] - demo["robot_states"][:, 1]
                closed = demo["actions"][:, 6] > 0
                assert opening[0] > 0.07
                assert opening[closed].min() < 0.07  # a can is 62 mm thick


# with the simulator


def committed(recording: plans.Recording, number: int) -> Kept:
    """An episode of the sample, made with the versions that are installed."""
    with h5py.File(SAMPLE / recording.task.demo_file) as file:
        data = file["data"]
        made_with = json.loads(data.attrs["versions"])
        if any(made_with[package] != version for package, version in versions().items()):
            pytest.skip(f"the sample was recorded with other versions: {made_with}")
        demo = data[f"demo_{number}"]
        start, final = demo.attrs["init_state"], str(demo.attrs["final_state_sha256"])
        paths = (demo[name][()] for name in ("actions", "robot_states", "object_poses", "mechanisms"))
        return Kept(Demonstration(True, start, *paths, final), int(demo.attrs["seed"]), int(demo.attrs["init_index"]))


@needs_simulator
@pytest.mark.parametrize("label", [KNOB, "libero_object:6"])
def test_an_episode_of_the_sample_is_recorded_again(
    label: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the try alone, in a scene in which another was made before.

    To the last bit on the kernels that recorded it. On others the actions are the same for as long as nothing loose is
    touched; then one is rounded to the neighbouring value, and from there on the expert sees another scene.
    """
    monkeypatch.chdir(tmp_path)
    recording = plans.find(label)
    kept = committed(recording, 2)
    scene, initial = Scene(recording.task.file), initial_states(recording.task)
    first, _, again = (
        record.record_try(scene, recording, initial, 0, attempt)  # 0: the seed of the sample
        for attempt in (kept.attempt, kept.attempt + 1, kept.attempt)
    )
    assert first is not None
    assert again is not None
    assert_the_same(again, first.actions, first.final_state_sha256)
    made = kept.demonstration
    if on_recorded_kernels():
        assert_the_same(again, made.actions, made.final_state_sha256)
    np.testing.assert_allclose(again.start, made.start, rtol=0, atol=1e-12)
    grasp = int(np.argmax(made.actions[:, 6] > 0)) if scene.objects else None
    np.testing.assert_array_equal(again.actions[:grasp], made.actions[:grasp])
    assert hands_apart(again, made)[:grasp].max() < TOUCHED_NOTHING_MM
    assert hands_apart(again, made).max() < LOOSE_MM


def assert_the_same(again: Demonstration, actions: np.ndarray, final: str) -> None:
    np.testing.assert_array_equal(again.actions, actions)
    assert again.final_state_sha256 == final


def hands_apart(one: Demonstration, other: Demonstration) -> np.ndarray:
    """In mm, for as long as both last."""
    steps = min(len(one.robot), len(other.robot))
    return 1000 * np.linalg.norm(one.robot[:steps, 2:5] - other.robot[:steps, 2:5], axis=1)


@needs_simulator
@pytest.mark.slow
@pytest.mark.parametrize("recording", TABLE, ids=lambda recording: recording.task.label)
def test_every_task_can_be_recorded_with_another_seed(recording: plans.Recording) -> None:
    result = record.record_task(1, record.RecordingJob(recording.task.label, 2), lambda: None)
    assert len(result.kept) == 2
    assert result.task == recording.task
    for kept in result.kept:
        assert len(kept.demonstration.actions) < recording.longest


def command(*given: str) -> list[str]:
    return [sys.executable, "-m", "workbook.simulation.recorder.record", *given]


@needs_simulator
@pytest.mark.slow
def test_two_tasks_over_processes_are_recorded_as_one_alone(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    given = ["--out", "out", "--task", KNOB, "--task", "libero_goal:0", "--episodes", "2"]
    ended = subprocess.run(command(*given), cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    assert [line.split()[0] for line in ended.stdout.splitlines()] == ["task", KNOB, "libero_goal:0"]
    assert {path.name for path in tmp_path.iterdir()} == {"out"}  # and no log of MuJoCo
    alone = record.record_task(0, record.RecordingJob(KNOB, 2), lambda: None).save(tmp_path / "alone")
    assert (tmp_path / "out" / alone.relative_to(tmp_path / "alone")).read_bytes() == alone.read_bytes()


@needs_simulator
@pytest.mark.slow
def test_an_interrupt_leaves_nothing_behind(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    started = subprocess.Popen(
        command("--out", "out", "--task", KNOB, "--task", "libero_goal:0"),
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (tmp_path / "out").is_dir():
        time.sleep(0.2)
    time.sleep(8)
    started.send_signal(signal.SIGINT)
    _, said = started.communicate(timeout=120)
    assert started.returncode == 130
    assert said == "\ninterrupted; no file was left half-written\n"
    assert list((tmp_path / "out").rglob("*")) == []
