"""Errors of predicted chunks as a whole and as distributions, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from workbook.common.array import Array
from workbook.data.chunks import Chunks, Normaliser
from workbook.data.layout import LIBERO, ActionLayout
from workbook.evaluation.policy.distribution import LEAST_STD, chunk_errors, motion_bits, residual_std

NORMALISER = Normaliser(np.full(7, -0.5), np.full(7, 0.5))


def chunks(actions: Array, episode: list[int], valid: Array | None = None) -> Chunks:
    known = np.ones(actions.shape[:2], dtype=bool) if valid is None else valid.astype(bool)
    return Chunks(actions, known, np.array(episode))


def still(count: int, steps: int = 2, dimensions: int = 7) -> Array:
    return np.zeros((count, steps, dimensions))


class TestSums:
    def test_are_lengths_of_summed_position_errors_in_millimetres(self) -> None:
        predicted = still(3)
        predicted[0, :, 0] = 0.3  # 0.6 along x in all
        predicted[0, :, 1] = [0.9, -0.1]  # 0.8 along y
        predicted[1, :, 0] = [0.4, -0.4]  # cancels
        predicted[2, :, 3:] = 0.5  # no position
        found = chunk_errors(chunks(still(3), [0, 0, 1]), LIBERO, predicted, predicted[None])
        assert found.sum_position_mm.tolist() == pytest.approx([50 * (1.0 + 0) / 2, 0])
        assert found.chunks.tolist() == [2, 1]
        assert found.sum_joint.isna().all()

    def test_padded_steps_do_not_count_and_commands_are_clipped(self) -> None:
        predicted = still(1)
        predicted[0, :, 2] = [3.0, 0.7]
        found = chunk_errors(chunks(still(1), [0], np.array([[1, 0]])), LIBERO, predicted, predicted[None])
        assert found.sum_position_mm.tolist() == pytest.approx([50.0])

    def test_joints_are_summed_in_their_own_units_and_arms_averaged(self) -> None:
        layout = ActionLayout.parse("joint:2 joint:2")
        predicted = still(1, dimensions=4)
        predicted[0, :, 0] = 2.0
        found = chunk_errors(chunks(still(1, dimensions=4), [0]), layout, predicted, predicted[None])
        assert found.sum_joint.tolist() == [2.0]
        assert found.sum_position_mm.isna().all()


class TestEnergyScore:
    def score(self, draws: list[float], truth: float = 0.0) -> float:
        """Of one chunk of one step whose x command is drawn."""
        actions = still(1, 1)
        actions[..., 0] = truth
        drawn = np.stack([still(1, 1)] * len(draws))
        drawn[:, 0, 0, 0] = draws
        return float(chunk_errors(chunks(actions, [0]), LIBERO, drawn[0], drawn).sum_energy_position_mm.iloc[0]) / 50

    def test_of_a_single_action_is_its_error(self) -> None:
        assert self.score([0.3]) == pytest.approx(0.3)
        assert self.score([0.3] * 5) == pytest.approx(0.3)

    def test_by_hand(self) -> None:
        assert self.score([0.0, 0.4, 0.8]) == pytest.approx((0 + 0.4 + 0.8) / 3 - (0.4 + 0.4 + 0.8) / 3 / 2)

    def test_prefers_the_truth_among_two_ways_to_their_middle(self) -> None:
        """Squared error prefers the middle, where nobody goes."""
        ways = [-0.5, 0.5] * 8
        honest = np.mean([self.score(ways, truth) for truth in (-0.5, 0.5)])
        middle = np.mean([self.score([0.0], truth) for truth in (-0.5, 0.5)])
        assert honest < 0.6 * middle

    def test_is_least_on_average_for_the_distribution_that_the_truth_has(self) -> None:
        rng = np.random.default_rng(0)
        truths = rng.normal(0, 0.1, 400)
        scores = [np.mean([self.score(list(rng.normal(0, std, 16)), truth) for truth in truths]) for std in
                  (0.02, 0.1, 0.3)]  # fmt: skip
        assert scores[1] < min(scores[0], scores[2])


class TestLikelihood:
    def test_of_motion_is_that_of_a_normal_distribution(self) -> None:
        predicted = still(2)
        predicted[0, :, 0] = 0.1  # 0.2 half-widths
        std = np.full(7, 0.2)
        found = motion_bits(chunks(still(2), [0, 1]), LIBERO, NORMALISER, predicted, std)
        exact = 6 * np.log2(0.2 * np.sqrt(2 * np.pi))
        assert found == pytest.approx([exact + 0.5 / np.log(2), exact])

    def test_leaves_out_the_gripper_and_what_never_moves(self) -> None:
        normaliser = Normaliser(np.array([-0.5] * 5 + [0.0, -0.5]), np.array([0.5] * 5 + [0.0, 0.5]))
        predicted = still(1)
        predicted[..., 5:] = 0.3
        found = motion_bits(chunks(still(1), [0]), LIBERO, normaliser, predicted, np.full(7, 1.0))
        assert found == pytest.approx([5 * np.log2(np.sqrt(2 * np.pi))])

    def test_of_grippers_alone_there_is_none(self) -> None:
        layout = ActionLayout.parse("gripper:1")
        normaliser = Normaliser(np.array([-1.0]), np.array([1.0]))
        found = motion_bits(chunks(still(2, 2, 1), [0, 1]), layout, normaliser, still(2, 2, 1), np.ones(1))
        assert np.isnan(found).all()

    def test_is_best_at_the_residuals_own_width(self) -> None:
        rng = np.random.default_rng(0)
        truth = chunks(rng.normal(0, 0.1, (50, 4, 7)), [0] * 50)
        std = residual_std(truth, NORMALISER, np.zeros((50, 4, 7)))
        assert std == pytest.approx(np.full(7, 0.2), rel=0.2)
        bits = [motion_bits(truth, LIBERO, NORMALISER, np.zeros((50, 4, 7)), std * f)[0] for f in (0.5, 1, 2)]
        assert bits[1] < min(bits[0], bits[2])

    def test_of_no_error_at_all_stays_finite(self) -> None:
        truth = chunks(still(1), [0])
        std = residual_std(truth, NORMALISER, still(1))
        assert std == pytest.approx(np.full(7, LEAST_STD))
        assert np.isfinite(motion_bits(truth, LIBERO, NORMALISER, still(1), std)).all()
