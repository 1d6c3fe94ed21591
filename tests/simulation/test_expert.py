"""The scripted expert: its lattice, its controller, its skills on a fake scene, and the table of what is recorded."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from fake_scene import FakeScene

from workbook.common.errors import InputError
from workbook.data.layout import ActionLayout
from workbook.data.plausibility import LIBERO_LATTICE, lattice_of
from workbook.simulation.recorder import plans
from workbook.simulation.recorder.controller import (
    CLOSED,
    LATTICE,
    METRES,
    OPEN,
    RADIANS,
    REACH,
    Controller,
    Style,
    Waypoint,
    on_lattice,
)
from workbook.simulation.recorder.expert import (
    DRAWER_OPEN,
    HANDLE,
    KNOB,
    KNOB_ON,
    TRIES,
    Placing,
    open_drawer,
    pick_and_place,
    turn_on_stove,
)
from workbook.simulation.recorder.skills import DOWN, Skills, pointing
from workbook.simulation.scene import missing_packages
from workbook.simulation.tasks import Task, initial_states, parse_label

needs_simulator = pytest.mark.skipif(bool(missing_packages()), reason=missing_packages() or "installed")
BOWL, PLATE = np.array([0.1, 0.1, 0.02]), np.array([0.1, -0.2, 0.01])
BY_RIM = Placing(by_rim=True, yaw=0.4, lift=0.16, release=0.02)
BY_MIDDLE = Placing(by_rim=False, yaw=0.4, lift=0.16, release=0.02)
STEADY = dataclasses.replace(Style.draw(np.random.default_rng(0)), noise=0.0, smoothing=0.3)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def skills_on(fake_scene: FakeScene, seed: int = 0) -> Skills:
    return Skills(fake_scene, Style.draw(rng(seed)), rng(seed))  # type: ignore[arg-type]


def turned(first: np.ndarray, second: np.ndarray) -> float:
    """Angle in radians between two rotation matrices."""
    return float(np.arccos(np.clip((np.trace(first.T @ second) - 1) / 2, -1, 1)))


# the lattice


def test_motion_is_rounded_to_the_nearest_step_of_a_spacemouse() -> None:
    motion = np.array([0.4, 1.4, -0.6, 2.0, 0.2, -1.6]) * LATTICE
    np.testing.assert_allclose(on_lattice(motion), np.array([0, 1, -1, 2, 0, -2]) * LATTICE, atol=1e-15)


def test_motion_is_clipped_to_what_a_spacemouse_reaches() -> None:
    np.testing.assert_allclose(on_lattice(np.full(6, 5.0)), [0.9375] * 3 + [0.375] * 3)
    np.testing.assert_allclose(on_lattice(np.full(6, -5.0)), [-0.9375] * 3 + [-0.375] * 3)


def test_rounding_twice_changes_nothing() -> None:
    once = on_lattice(rng().normal(0, 0.5, (1000, 6)))
    np.testing.assert_array_equal(on_lattice(once), once)


# the controller


def moved_by(
    controller: Controller, waypoint: Waypoint, steps: int, position: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where a hand comes to that does exactly what the actions command, and the actions."""
    actions = []
    for _ in range(steps):
        actions.append(controller.action(waypoint, position, DOWN))
        position = position + METRES * actions[-1][:3]
    return position, np.stack(actions)


def test_the_hand_comes_to_where_it_should_be() -> None:
    waypoint = Waypoint(np.array([0.2, -0.1, 0.15]), DOWN, closed=False)
    reached, _ = moved_by(Controller(STEADY, rng()), waypoint, 60, np.zeros(3))
    np.testing.assert_allclose(reached, waypoint.position, atol=0.003)


@pytest.mark.parametrize("seed", range(20))
def test_every_action_is_one_of_a_spacemouse(seed: int) -> None:
    waypoint = Waypoint(np.array([3.0, -3.0, 0.1]), pointing(2.0, 1.0), closed=True)
    _, actions = moved_by(Controller(Style.draw(rng(seed)), rng(seed)), waypoint, 100, np.zeros(3))
    assert lattice_of(actions, ActionLayout.parse("libero")) == LIBERO_LATTICE
    assert (np.abs(actions[:, :6]) <= REACH).all()
    np.testing.assert_array_equal(actions[:, 6], CLOSED)


def test_an_open_hand_is_commanded_open() -> None:
    assert Controller(STEADY, rng()).action(Waypoint(np.zeros(3), DOWN, closed=False), np.zeros(3), DOWN)[6] == OPEN


@pytest.mark.parametrize("axis", range(3))
def test_the_hand_turns_the_shorter_way(axis: int) -> None:
    quarter = np.roll(np.array([[1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]]), (axis, axis), (0, 1))  # about that axis
    action = Controller(STEADY, rng()).action(Waypoint(np.zeros(3), quarter @ DOWN, closed=False), np.zeros(3), DOWN)
    expected = np.zeros(3)
    expected[axis] = min(STEADY.turn_speed, STEADY.turn_gain * np.pi / 2 / RADIANS) * (1 - STEADY.smoothing)
    np.testing.assert_allclose(action[3:6], expected, atol=LATTICE[3])


def test_care_makes_the_hand_slower() -> None:
    far = np.array([1.0, 0.0, 0.0])
    fast, slow = (
        Controller(STEADY, rng()).action(Waypoint(far, DOWN, closed=False, careful=careful), np.zeros(3), DOWN)[0]
        for careful in (False, True)
    )
    assert 0 < slow < 0.7 * fast


def test_the_expert_pauses_now_and_then() -> None:
    _, actions = moved_by(
        Controller(Style.draw(rng(1)), rng(1)), Waypoint(np.full(3, 50.0), DOWN, closed=False), 1000, np.zeros(3)
    )
    still = (actions[:, :6] == 0).all(axis=1).mean()
    assert 0.01 < still < 0.1


def test_the_same_seed_gives_the_same_style_and_another_one_another() -> None:
    assert Style.draw(rng(3)) == Style.draw(rng(3)) != Style.draw(rng(4))


# the skills


def test_a_hand_points_down_and_is_leaned_and_turned() -> None:
    np.testing.assert_allclose(pointing(0.0), DOWN, atol=1e-15)
    assert turned(pointing(0.3), DOWN) == pytest.approx(0.3)
    np.testing.assert_allclose(pointing(0.0, -np.pi / 2)[:, 2], [0, -1, 0], atol=1e-12)  # level, towards the cabinet
    np.testing.assert_allclose(pointing(0.4, 0.0)[:, 2], [0, 0, -1], atol=1e-12)


@pytest.mark.parametrize("placing", [BY_RIM, BY_MIDDLE], ids=["by the rim", "by the middle"])
@pytest.mark.parametrize("seed", range(5))
def test_a_thing_is_put_on_its_target_and_let_go(placing: Placing, seed: int) -> None:
    fake_scene = FakeScene({"bowl": BOWL, "plate": PLATE})
    assert fake_scene.follow(pick_and_place(skills_on(fake_scene, seed), "bowl", "plate", placing))
    off = fake_scene.places["bowl"] - PLATE
    assert np.linalg.norm(off[:2]) < 0.015
    assert 0 < off[2] < placing.release + 0.01
    assert not fake_scene.log[-1].closed
    assert fake_scene.hand[0][2] > fake_scene.places["bowl"][2] + 0.05  # the hand is out of the way


def test_a_thing_is_carried_above_what_it_could_hit() -> None:
    fake_scene = FakeScene({"bowl": BOWL, "plate": PLATE})
    heights = []
    for waypoint in pick_and_place(skills_on(fake_scene), "bowl", "plate", BY_RIM):
        fake_scene._step(waypoint)
        on_its_way = np.linalg.norm((fake_scene.places["bowl"] - BOWL)[:2]) > 0.05
        far = np.linalg.norm((fake_scene.places["bowl"] - PLATE)[:2]) > 0.05
        heights += [fake_scene.places["bowl"][2]] if on_its_way and far else []
    assert min(heights) > 0.08


@pytest.mark.parametrize("slips", [1, TRIES - 1])
def test_a_grasp_that_slips_is_tried_again(slips: int) -> None:
    fake_scene = FakeScene({"bowl": BOWL, "plate": PLATE}, slips=slips)
    assert fake_scene.follow(pick_and_place(skills_on(fake_scene), "bowl", "plate", BY_RIM))
    assert np.linalg.norm((fake_scene.places["bowl"] - PLATE)[:2]) < 0.015


def test_the_expert_gives_up_after_some_grasps() -> None:
    fake_scene = FakeScene({"bowl": BOWL, "plate": PLATE}, slips=TRIES)
    assert fake_scene.follow(pick_and_place(skills_on(fake_scene), "bowl", "plate", BY_RIM))
    np.testing.assert_array_equal(fake_scene.places["bowl"], BOWL)


@pytest.mark.parametrize("seed", range(5))
def test_a_bowl_is_grasped_where_there_is_room(seed: int) -> None:
    """Something stands at one side of the bowl; the hand takes the rim at the other."""
    for side in (-1, 1):
        fake_scene = FakeScene({"bowl": BOWL, "plate": PLATE, "bottle": BOWL + np.array([0, side * 0.1, 0])})
        fake_scene.follow(pick_and_place(skills_on(fake_scene, seed), "bowl", "plate", BY_RIM))
        first_closed = next(waypoint for waypoint in fake_scene.log if waypoint.closed)
        assert (first_closed.position - BOWL)[1] * side < -0.03


@pytest.mark.parametrize("seed", range(5))
def test_the_knob_is_turned_until_the_stove_is_on(seed: int) -> None:
    fake_scene = FakeScene({"stove": BOWL, "knob": BOWL + KNOB}, turns=0.03)
    assert fake_scene.follow(turn_on_stove(skills_on(fake_scene, seed), "stove"))
    assert KNOB_ON < fake_scene.mechanisms[0] < KNOB_ON + 0.8
    assert not fake_scene.log[-1].closed
    yaws = [
        np.arctan2(waypoint.rotation[1, 1], waypoint.rotation[0, 1]) for waypoint in fake_scene.log if waypoint.closed
    ]
    assert yaws[-1] - yaws[0] > 0.5  # against the clock, as the knob goes


@pytest.mark.parametrize("seed", range(5))
def test_the_drawer_is_pulled_open(seed: int) -> None:
    fake_scene = FakeScene({"drawer": BOWL, "handle": BOWL + HANDLE}, slides=True)
    assert fake_scene.follow(open_drawer(skills_on(fake_scene, seed), "drawer"))
    assert DRAWER_OPEN < fake_scene.mechanisms[0] < DRAWER_OPEN + 0.05
    assert (fake_scene.places["handle"] - BOWL - HANDLE)[1] > DRAWER_OPEN


def test_a_knob_that_was_missed_is_tried_again() -> None:
    fake_scene = FakeScene({"stove": BOWL, "knob": BOWL + KNOB}, slips=1, turns=0.03)
    assert fake_scene.follow(turn_on_stove(skills_on(fake_scene), "stove"))
    assert fake_scene.mechanisms[0] > KNOB_ON


# the tasks


def test_the_table_has_no_task_twice() -> None:
    for key in ("label", "number", "file", "text"):
        assert len({getattr(recording.task, key) for recording in plans.SAMPLE}) == len(plans.SAMPLE)


def test_a_task_is_found_by_its_label() -> None:
    for recording in plans.SAMPLE:
        assert plans.find(recording.task.label) is recording


@pytest.mark.parametrize(
    "label",
    [
        "",
        "libero_goal",
        "libero_goal:",
        "libero_goal:x",
        "libero_goal:-1",
        "goal:1",
        "libero_goal:1:2",
        "libero_goal:²",
    ],
)
def test_a_label_of_another_form_is_refused(label: str) -> None:
    with pytest.raises(InputError, match="is not a suite and an index, as in libero_goal:7"):
        parse_label(label)


def test_a_task_without_a_plan_is_refused() -> None:
    with pytest.raises(InputError, match=r"task libero_90:3: the expert has no plan for it; it has libero_spatial:0, "):
        plans.find("libero_90:3")


def test_the_text_of_a_task_leaves_out_its_scene() -> None:
    assert Task("libero_90", 0, "KITCHEN_SCENE10_close_the_top_drawer").text == "close the top drawer"
    assert Task("libero_goal", 7, "turn_on_the_stove").text == "turn on the stove"


@needs_simulator
@pytest.mark.parametrize("recording", plans.SAMPLE, ids=lambda recording: recording.task.label)
def test_tasks_are_those_of_the_benchmark(recording: plans.Recording) -> None:
    from libero.libero.benchmark import get_benchmark

    task = recording.task
    of_benchmark = get_benchmark(task.suite)(task_order_index=0)
    assert of_benchmark.get_task(task.index).name == task.name
    assert of_benchmark.get_task(task.index).language == task.text
    assert of_benchmark.get_task_demonstration(task.index) == task.demo_file
    np.testing.assert_array_equal(initial_states(task), of_benchmark.get_task_init_states(task.index))
