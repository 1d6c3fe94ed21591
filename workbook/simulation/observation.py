"""What a policy in the simulator sees, as numbers: the hand, its fingers, what the goal is about, and mechanisms."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from workbook.common.array import Array
from workbook.data.episodes import Start
from workbook.simulation.scene import Scene

SLOTS = 3  # for the names of a goal, and for mechanisms; tasks of LIBERO's four suites have no more
OF_NAME = 12  # position, position from the hand, two axes
SIZE = 3 + 6 + 2 + SLOTS * OF_NAME + 3 + SLOTS
OPEN_AND_STILL = np.array([0.0, 0, 0, 0, 0, 0, -1])
SETTLING_STEPS = 10
ARM = slice(1, 8)  # of a flattened state, after the time: the seven joints of the arm


class Observer:
    """Looks at a scene; the same (SIZE,) numbers for every task, 0 where a task has fewer names."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.names = list(dict.fromkeys(name for goal in scene.goals for name in goal[1:]))[:SLOTS]

    def look(self) -> Array:
        """Hand (3 metres, 6 of its rotation), fingers (2), SLOTS names (12 each), from the first name to the second
        (3), mechanisms (SLOTS). A rotation is told by two columns of its matrix, in which it is continuous
        (Zhou et al. 2019).
        """
        hand, turn = self.scene.hand
        places = [self.scene.position(name) for name in self.names]
        found = np.zeros((SLOTS, OF_NAME))
        for slot, (name, place) in enumerate(zip(self.names, places, strict=True)):
            found[slot] = np.concatenate([place, place - hand, self._axes(name)])
        apart = places[1] - places[0] if len(places) > 1 else np.zeros(3)
        mechanisms = np.zeros(SLOTS)
        known = self.scene.mechanisms[:SLOTS]
        mechanisms[: len(known)] = known
        return np.concatenate([hand, turn[:, 0], turn[:, 1], self.scene.fingers, found.ravel(), apart, mechanisms])

    def _axes(self, name: str) -> Array:
        """Upward and forward axis of an object (6,); 0 of a place, which does not turn by itself."""
        if name not in self.scene.things:
            return np.zeros(6)
        matrix = Rotation.from_quat(self.scene.pose(name)[3:]).as_matrix()
        return np.concatenate([matrix[:, 2], matrix[:, 0]])


def observe(scene: Scene, start: Start, actions: Array) -> Array:
    """What is seen before each of the actions (T, 7), played from a recorded start: (T, SIZE).

    Raises:
        SimulationError: the start does not fit the task, or the simulation became unstable.
    """
    scene.begin(start.state, start.fixtures)
    observer, seen = Observer(scene), []
    for action in actions:
        seen.append(observer.look())
        scene.advance(action)
    return np.stack(seen)


def jitter(scene: Scene, start: Start, radians: float, seed: tuple[int, ...]) -> Start:
    """The start with every joint of the arm turned by a normal random angle, after things have come to rest."""
    state = start.state.copy()
    state[ARM] += np.random.default_rng(seed).normal(0, radians, 7)
    scene.begin(state, start.fixtures)
    for _ in range(SETTLING_STEPS):
        scene.advance(OPEN_AND_STILL)
    return Start(start.task_file, scene.state, start.fixtures)
