"""The scripted expert: whole manipulations made of skills, and one episode demonstrated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from workbook.common.array import Array
from workbook.simulation.recorder.controller import OPEN, Controller, Style
from workbook.simulation.recorder.skills import UP, Place, Skills, Waypoints, pointing
from workbook.simulation.scene import Scene, SimulationError

Plan = Callable[[Skills], Waypoints]

TRIES = 4  # at a grasp, before the episode is given up
IMPRECISION = 0.003  # metres, std of where the hand grasps
RIM_RADIUS, RIM_HEIGHT = 0.048, 0.035  # metres from a bowl's centre to its rim
ROOM = 0.035  # metres beyond the rim that the outer finger takes
ROOM_ENOUGH = 0.118  # metres between that finger and what stands beside the bowl; more is no better
GRASPS = 8  # that are compared for the room they leave
KNOB = np.array([-0.012, 0.002, 0.028])  # metres from the stove's origin to the middle of its knob's bar
KNOB_ON = 0.5  # radians, by LIBERO's rule
KNOB_BEYOND = 0.4  # radians that the hand aims at beyond where it lets go, for it slips and lags
HANDLE = np.array([0.006, 0.113, -0.007])  # metres from the middle of the cabinet's drawer to its handle's bar
HANDLE_LEAN = -1.35  # radians: nearly level, for the handle of the drawer above leaves no room
HANDLE_IMPRECISION = np.array([0.009, 0.003, 0.003])  # the bar is long in x
DRAWER_OPEN = 0.14  # metres, by LIBERO's rule
DRAWER_PULL = np.array([0.0, 0.17, 0.0])  # metres, more than it opens
SETTLING = 10  # steps of standing still from an official initial state to the start of an episode
HOLDING = 4  # steps that the goal must have held with an open hand


@dataclass(frozen=True)
class Placing:
    """How something is grasped and put down.

    by_rim: at the rim of a bowl, or at the middle; yaw: largest turn of the hand, in radians; lift: metres above the
    higher of grasp and target; release: metres above the target at which the hand opens.
    """

    by_rim: bool
    yaw: float
    lift: float
    release: float


def pick_and_place(skills: Skills, name: str, target: str, placing: Placing) -> Waypoints:
    """Put an object on or into another, or where a goal's region is; a grasp that slips is tried again."""
    scene = skills.scene
    thing, there = _place_of(scene, name), _place_of(scene, target)
    for _ in range(TRIES):
        yaw, offset = _choose_grasp(skills, name, target, placing)
        rotation = pointing(yaw)
        yield from skills.grasp(_beside(thing, offset), rotation)
        height = max(skills.hand[2], there()[2]) + placing.lift
        if (yield from skills.lift(thing, rotation, height)):
            yield from skills.carry(thing, there, rotation, height)
            yield from skills.lower(thing, there, rotation, placing.release)
            yield from skills.let_go(rotation)
            return


def turn_on_stove(skills: Skills, stove: str) -> Waypoints:
    """Grasp the bar of the stove's knob, turn it, and let go."""
    rng = skills.rng
    for _ in range(TRIES):
        rotation = pointing(rng.normal(-0.1, 0.08))
        place = _beside(_place_of(skills.scene, stove), KNOB + rng.normal(0, IMPRECISION, 3))
        yield from skills.grasp(place, rotation)
        wanted = rng.uniform(KNOB_ON + 0.1, KNOB_ON + 0.4)
        yield from skills.turn(wanted + KNOB_BEYOND, rotation, wanted)
        yield from skills.let_go(rotation)
        if skills.moved > KNOB_ON:
            return


def open_drawer(skills: Skills, drawer: str) -> Waypoints:
    """Grasp the handle of a drawer that opens towards positive y, pull, and let go."""
    rng = skills.rng
    for _ in range(TRIES):
        rotation = pointing(rng.normal(0, 0.05), HANDLE_LEAN + rng.normal(0, 0.05))
        place = _beside(_place_of(skills.scene, drawer), HANDLE + rng.normal(0, 1, 3) * HANDLE_IMPRECISION)
        yield from skills.grasp(place, rotation)
        wanted = rng.uniform(DRAWER_OPEN + 0.004, DRAWER_OPEN + 0.012)
        yield from skills.pull(DRAWER_PULL, rotation, wanted)
        yield from skills.let_go(rotation)
        if skills.moved > DRAWER_OPEN:
            return


def _place_of(scene: Scene, name: str) -> Place:
    return lambda: scene.position(name)


def _beside(place: Place, offset: Array) -> Place:
    return lambda: place() + offset


def _choose_grasp(skills: Skills, name: str, target: str, placing: Placing) -> tuple[float, Array]:
    """Yaw of the hand, and where it grasps beside the object's origin: at a rim, the one of some with the most room."""
    rng = skills.rng
    miss = rng.normal(0, IMPRECISION, 3)
    if not placing.by_rim:
        return rng.uniform(-placing.yaw, placing.yaw), miss
    scene = skills.scene
    here = scene.position(name)[:2]
    others = [scene.position(other)[:2] for other in scene.things if other not in (name, target)]
    candidates = []
    for _ in range(GRASPS):
        yaw, side = rng.uniform(-placing.yaw, placing.yaw), rng.choice([-1, 1])
        outwards = side * np.array([-np.sin(yaw), np.cos(yaw)])
        finger = here + outwards * (RIM_RADIUS + ROOM)
        room = min([float(np.linalg.norm(other - finger)) for other in others] + [ROOM_ENOUGH])
        candidates.append((room, yaw, outwards))
    _, yaw, outwards = max(candidates, key=lambda candidate: candidate[0])
    return yaw, miss + RIM_HEIGHT * UP + RIM_RADIUS * np.append(outwards, 0.0)


@dataclass(frozen=True, eq=False)
class Demonstration:
    """One episode of T steps, each row what an action led to.

    start: (S,) state from which the actions (T, 7) were played; robot: (T, 9) positions of the two fingers, position
    and quaternion of the end effector; objects: (T, N, 7) positions and quaternions of the objects that the goal is
    about; mechanisms: (T, M) positions of the joints that it is about; final_state_sha256: hash of the last state.
    """

    succeeded: bool
    start: Array
    actions: Array
    robot: Array
    objects: Array
    mechanisms: Array
    final_state_sha256: str


def demonstrate(scene: Scene, plan: Plan, start: Array, rng: np.random.Generator, longest: int) -> Demonstration:
    """One episode from a state (S,) in which everything is at rest.

    It ends when the goal has held with an open hand, the plan is over, or after the `longest` number of steps.

    Raises:
        SimulationError: the state does not fit the task, or the simulation became unstable.
    """
    style = Style.draw(rng)
    controller = Controller(style, rng)
    scene.begin(start)
    actions, looks, held = [], [], 0
    for waypoint in plan(Skills(scene, style, rng)):
        actions.append(controller.action(waypoint, *scene.hand))
        holds = scene.advance(actions[-1])
        looks.append(_look(scene))
        held = held + 1 if holds and not waypoint.closed else 0
        if held == HOLDING or len(actions) == longest:
            break
    if not actions:
        raise SimulationError(f"{scene.task_file}: the plan of this task has no step")
    robot, objects, mechanisms = (np.stack(column) for column in zip(*looks, strict=True))
    return Demonstration(held == HOLDING, start, np.stack(actions), robot, objects, mechanisms, scene.state_sha256)


def settle(scene: Scene, initial: Array) -> Array:
    """The state (S,) in which things have come to rest from an official initial state (S,).

    Raises:
        SimulationError: the initial state does not fit the task, or the simulation became unstable.
    """
    scene.begin(initial)
    for _ in range(SETTLING):
        scene.advance(np.array([*[0.0] * 6, OPEN]))
    return scene.state


def _look(scene: Scene) -> tuple[Array, Array, Array]:
    robot = np.concatenate([scene.fingers, scene.hand[0], scene.wrist])
    objects = np.array([scene.pose(name) for name in scene.objects]).reshape(-1, 7)
    return robot, objects, scene.mechanisms
