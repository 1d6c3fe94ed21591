"""LIBERO's simulator: playing goes as robosuite's own step does, and begins with nothing left over."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import util
from pathlib import Path

import numpy as np
import pytest
from kernels import apart, on_recorded_kernels

from workbook.common.paths import SAMPLE
from workbook.data.episodes import Start
from workbook.data.sources.libero_hdf5 import fixture_poses
from workbook.data.sources.read import read_recorded_starts, read_recordings
from workbook.simulation import playback, scene as scene_module
from workbook.simulation.playback import TAIL_STEPS, Playback, Trace, play, turned_apart
from workbook.simulation.scene import Scene, SimulationError, find_task, missing_packages

FILE = SAMPLE / "libero_goal" / "put_the_cream_cheese_in_the_bowl_demo.hdf5"
DOWN = np.array([0.3, 0.1, -0.4, 0.0, 0.0, 0.2, 1.0])


@pytest.fixture(scope="module")
def recorded() -> tuple[Start, np.ndarray]:
    episodes = read_recordings(FILE).episodes[:1]
    start = read_recorded_starts(FILE, episodes)[0]
    assert start is not None
    return start, episodes[0].actions


@pytest.fixture(scope="module")
def scene(simulator: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """In a folder of its own, for the simulator writes its warnings to where it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("scene"))
        yield Scene("libero_goal/put_the_cream_cheese_in_the_bowl.bddl")


def test_an_action_does_what_robosuites_step_does_to_the_last_bit(
    scene: Scene, recorded: tuple[Start, np.ndarray]
) -> None:
    start, actions = recorded
    scene.begin(start.state)
    goals = [scene.advance(action) for action in actions]
    state = scene.state
    scene.begin(start.state)
    stepped = [bool(scene._env.step(action)[2]) for action in actions]
    assert np.array_equal(scene.state, state)
    assert stepped == goals
    assert goals[-1]


def test_nothing_is_left_over_from_what_was_played_before(scene: Scene, recorded: tuple[Start, np.ndarray]) -> None:
    start, actions = recorded
    first = play(scene, Playback(start, actions[:40]))
    scene.begin(start.state)
    for _ in range(25):
        scene.advance(DOWN)
    again = play(scene, Playback(start, actions[:40]))
    assert str(again.final_state_sha256) == str(first.final_state_sha256)


def test_an_episode_plays_as_it_was_recorded(scene: Scene, recorded: tuple[Start, np.ndarray]) -> None:
    """To the last bit on the kernels that recorded it, nearly so on others."""
    start, actions = recorded
    trace = play(scene, Playback(start, actions))
    assert trace.succeeded
    found = apart(trace, FILE, "demo_0")
    assert found.is_near
    assert found.begins_near
    if on_recorded_kernels():
        assert str(trace.final_state_sha256) == start.final_state_sha256
    assert len(trace.hand) == len(trace.goal) + 1 == len(actions) + 1
    assert trace.objects.shape[1:] == (2, 3)  # the cream cheese, and the bowl that it goes into
    assert np.ptp(trace.objects[:, 0, 2]) > 0.05


def test_what_does_not_succeed_is_waited_for(scene: Scene, recorded: tuple[Start, np.ndarray]) -> None:
    start, actions = recorded
    trace = play(scene, Playback(start, actions[:10]))
    assert not trace.succeeded
    assert len(trace.goal) == 10 + TAIL_STEPS


def test_fixtures_stand_where_the_recording_says(scene: Scene, recorded: tuple[Start, np.ndarray]) -> None:
    start, _ = recorded
    fixtures = dict(fixture_poses(scene._sim.model.get_xml()))
    stove = "flat_stove_1_main"
    fixtures[stove] = (0.1, *fixtures[stove][1:])
    scene.begin(start.state, fixtures)
    assert scene._sim.data.get_body_xpos(stove)[0] == pytest.approx(0.1)
    scene.begin(start.state)
    assert scene._sim.data.get_body_xpos(stove)[0] != pytest.approx(0.1)


def test_a_recorded_model_of_another_task_is_refused(scene: Scene, recorded: tuple[Start, np.ndarray]) -> None:
    with pytest.raises(SimulationError, match=r"has no .*_main; it was recorded with another"):
        scene.begin(recorded[0].state, {"table": (0, 0, 0, 1, 0, 0, 0)})


def test_a_state_of_another_length_is_refused(scene: Scene) -> None:
    with pytest.raises(SimulationError, match=f"has 5 numbers where .* has {scene.state_size}"):
        scene.begin(np.zeros(5))


def test_a_state_that_is_not_finite_is_refused(scene: Scene) -> None:
    with pytest.raises(SimulationError, match="not finite"):
        scene.begin(np.full(scene.state_size, np.nan))


def test_a_simulation_that_diverges_says_so(scene: Scene, recorded: tuple[Start, np.ndarray]) -> None:
    state = recorded[0].state.copy()
    state[-20:] = 1e12
    scene.begin(state)
    with pytest.raises(SimulationError, match="became unstable"):
        scene.advance(DOWN)


def test_a_task_that_is_not_installed_is_named(simulator: None) -> None:
    with pytest.raises(SimulationError, match=r"juggle_three_eggs\.bddl: the simulator has no such task"):
        Scene("libero_goal/juggle_three_eggs.bddl")


@pytest.mark.parametrize("prefix", ["", "libero_goal/", "chiliocosm/bddl_files/libero_goal/"])
def test_a_task_is_found_under_the_names_that_files_give_it(simulator: None, prefix: str) -> None:
    found = find_task(f"{prefix}turn_on_the_stove.bddl")
    assert (found.parent.name, found.name) == ("libero_goal", "turn_on_the_stove.bddl")


def test_without_the_simulator_one_sentence_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scene_module, "find_spec", lambda name: None if name == "mujoco" else util.find_spec("json"))
    assert "mujoco" in missing_packages()
    with pytest.raises(SimulationError, match="--with-replay installs it"):
        Scene("libero_goal/turn_on_the_stove.bddl")


# Traces and what names them


def some_trace() -> Trace:
    rng = np.random.default_rng(0)
    paths = [rng.random((4, 3)), rng.random((4, 4)), rng.random((4, 2, 3)), rng.random((4, 0))]
    return Trace(np.array([False, True, False]), *paths, np.array("a" * 64))


def test_a_trace_comes_back_from_its_file(tmp_path: Path) -> None:
    trace = some_trace()
    trace.save(tmp_path / "a.npz")
    again = Trace.load(tmp_path / "a.npz")
    assert again is not None
    assert again.succeeded
    assert np.array_equal(again.objects, trace.objects)
    assert str(again.final_state_sha256) == "a" * 64
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_a_damaged_trace_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    some_trace().save(tmp_path / "a.npz")
    whole = (tmp_path / "a.npz").read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"PK\x03\x04 no archive"):
        (tmp_path / "a.npz").write_bytes(damaged)
        assert Trace.load(tmp_path / "a.npz") is None
    assert Trace.load(tmp_path / "b.npz") is None


def test_whatever_decides_a_replay_is_in_its_key() -> None:
    start = Start("a.bddl", np.arange(5.0), {})
    actions = np.zeros((3, 7))
    other = actions.copy()
    other[1, 2] = np.nextafter(0, 1)
    keys = {
        Playback(start, actions).key,
        Playback(start, other).key,
        Playback(start, actions[:2]).key,
        Playback(Start("b.bddl", start.state, {}), actions).key,
        Playback(Start("a.bddl", start.state + 1, {}), actions).key,
        Playback(Start("a.bddl", start.state, {"stove": (0.0,) * 7}), actions).key,
    }
    assert len(keys) == 6
    assert Playback(Start("a.bddl", start.state, {}, "said"), actions.copy()).key == Playback(start, actions).key


def test_a_replay_of_other_kernels_has_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of finished replays may come from another processor, on which they went otherwise."""
    start, actions = Start("a.bddl", np.arange(5.0), {}), np.zeros((3, 7))
    here = Playback(start, actions).key
    monkeypatch.setattr(playback, "kernels", lambda: "Zen of tomorrow")
    assert Playback(start, actions).key != here


def test_rotations_are_told_apart_by_their_angle() -> None:
    half = np.array([0.0, 0.0, np.sin(np.pi / 8), np.cos(np.pi / 8)])  # 45 degrees about z
    assert turned_apart(np.array([0.0, 0.0, 0.0, 1.0]), half) == pytest.approx(45)
    assert turned_apart(half, -half) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    "task",
    ["libero_goal/put_the_cream_cheese_in_the_bowl", "libero_90/KITCHEN_SCENE1_open_the_bottom_drawer_of_the_cabinet"],
)
def test_so_it_does_at_the_limits_and_in_contact(
    simulator: None, task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Down to the table, then anywhere: actions at and beyond their limits, and between."""
    monkeypatch.chdir(tmp_path)
    scene = Scene(f"{task}.bddl")
    drawn = np.random.default_rng(0)
    actions = [
        *np.repeat(DOWN[None], 30, axis=0),
        *drawn.uniform(-1.3, 1.3, (40, 7)),
        *drawn.choice([-1.0, 1.0], (40, 7)),
    ]
    start, ends = scene.state, []
    for step in (scene.advance, scene._env.step):
        scene.begin(start)
        contacts = []
        for action in actions:
            step(action)
            contacts.append(scene._data.ncon)
        ends.append((scene.state, contacts))
    assert np.array_equal(ends[0][0], ends[1][0])
    assert len(set(ends[0][1])) > 1
