"""The torques of the physics steps between two actions, as robosuite gives them, to the last bit.

robosuite 1.4's OSC_POSE controller (`SingleArm.control`, `OperationalSpaceController.run_controller`), which follows
Khatib 1987, A unified approach for motion and force control of robot manipulators. It looks up names, limits and four
Jacobians anew for every torque, which takes longer than the physics; here they are looked up once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from workbook.common.array import Array

CLOSING = np.array([-1.0, 1.0])  # of the two fingers


class Arm:
    """An arm with its gripper under way to a goal that its controller has, by the way that LIBERO's controllers go: no
    interpolation, position and orientation apart.
    """

    def __init__(self, robot: Any, model: Any, data: Any) -> None:
        """robot: robosuite's; model, data: MuJoCo's."""
        import mujoco
        from robosuite.utils import control_utils

        self._mujoco, self._robosuite = mujoco, control_utils
        self._gripper, self._controller = robot.gripper, robot.controller
        assert self._controller.uncoupling
        assert self._controller.interpolator_pos is self._controller.interpolator_ori is None
        self._model, self._data, self._ctrl, self._qvel = model, data, data.ctrl, data.qvel
        self._site = int(robot.sim.model.site_name2id(self._controller.eef_name))
        self._place, self._turn = data.site_xpos[self._site], data.site_xmat[self._site].reshape(3, 3)
        self._jacobians, self._mass = (np.zeros((3, model.nv)), np.zeros((3, model.nv))), np.zeros((model.nv, model.nv))
        self._motors = np.array(robot._ref_joint_actuator_indexes)
        self._limits = model.actuator_ctrlrange[self._motors, 0], model.actuator_ctrlrange[self._motors, 1]
        self._grips = np.array([robot.sim.model.actuator_name2id(name) for name in robot.gripper.actuators])
        low, high = model.actuator_ctrlrange[self._grips].T
        self._grip_middle, self._grip_half = 0.5 * (high + low), 0.5 * (high - low)

    def drive(self, grip: float) -> None:
        """Set torques for a physics step in which the goal stays. grip: of the action, negative to open.

        `mj_step1` has been called.
        """
        self._ctrl[self._motors] = self._torques().clip(*self._limits)
        gripper = self._gripper
        gripper.current_action = (gripper.current_action + CLOSING * gripper.speed * np.sign(grip)).clip(-1.0, 1.0)
        self._ctrl[self._grips] = self._grip_middle + self._grip_half * gripper.current_action

    def _torques(self) -> Array:
        """Arrays are laid out as robosuite's are, for the last bit of a product depends on it."""
        controller, data, joints = self._controller, self._data, self._controller.qvel_index
        whole_position, whole_rotation = self._jacobians
        self._mujoco.mj_jacSite(self._model, data, whole_position, whole_rotation, self._site)
        self._mujoco.mj_fullM(self._model, data, self._mass)
        of_position, of_rotation = whole_position[:, joints], whole_rotation[:, joints]
        jacobian, mass = np.vstack([of_position, of_rotation]), self._mass[joints, :][:, joints]
        velocity, rotation = np.dot(whole_position, self._qvel), np.dot(whole_rotation, self._qvel)
        left = self._robosuite.orientation_error(controller.goal_ori, self._turn.copy())
        kp, kd = controller.kp, controller.kd
        force = (controller.goal_pos - self._place) * kp[:3] - velocity * kd[:3]
        torque = left * kp[3:6] - rotation * kd[3:6]
        _, to_force, to_torque, null = self._robosuite.opspace_matrices(mass, jacobian, of_position, of_rotation)
        wrench = np.concatenate([np.dot(to_force, force), np.dot(to_torque, torque)])
        position, speed = data.qpos[controller.qpos_index], self._qvel[joints]
        at_rest = self._robosuite.nullspace_torques(mass, null, controller.initial_joint, position, speed)
        return np.dot(jacobian.T, wrench) + data.qfrc_bias[joints] + at_rest
