"""Errors in normalised and physical units, and the intervals around them, against cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays
from measuring import estimates

from workbook.common.array import Array
from workbook.common.intervals import Estimate, estimate_excess, estimate_improvement, estimate_mean
from workbook.data.chunks import Normaliser
from workbook.data.layout import LIBERO, ActionLayout
from workbook.evaluation.metrics import episode_metrics, gripper_shifts

UNIT = Normaliser(np.full(7, -1.0), np.full(7, 1.0))
VARIANCE = np.full(7, 0.25)
WEIGHTS = ["steps", "switches", "switch_steps", "zeros"]
HALF_RADIAN_IN_DEGREES = 28.64788975654116


def random_episode(seed: int, steps: int = 60) -> Array:
    """A random walk in [-0.9, 0.9] with stretches of exact zeros and a gripper that closes and opens."""
    rng = np.random.default_rng(seed)
    motion = np.clip(np.cumsum(rng.normal(0, 0.1, (steps, 6)), axis=0), -0.9, 0.9)
    motion[::7] = 0.0
    gripper = np.where(np.arange(steps) // 13 % 2, 1.0, -1.0)
    return np.column_stack([motion, gripper])


def still_episode(steps: int) -> Array:
    """No motion, gripper open."""
    return np.column_stack([np.zeros((steps, 6)), np.full(steps, -1.0)])


def moved(original: Array, dimension: int, by: Array | float) -> Array:
    decoded = original.copy()
    decoded[:, dimension] += by
    return decoded


def measure(original: Array, decoded: Array, normaliser: Normaliser = UNIT) -> dict[str, float]:
    return dict(episode_metrics([original], [decoded], LIBERO, normaliser, VARIANCE).iloc[0])


class TestIdenticalEpisodes:
    def test_have_no_error(self) -> None:
        episodes = [random_episode(seed) for seed in range(3)]
        metrics = episode_metrics(episodes, [episode.copy() for episode in episodes], LIBERO, UNIT, VARIANCE)
        good_at_one = {"gripper_on_time", "zeros_kept"}
        for name, values in metrics.drop(columns=WEIGHTS).items():
            assert values.dropna().tolist() == [float(name in good_at_one)] * (3 if name != "joint_length" else 0), name

    def test_are_a_row_each_with_what_it_weighs(self) -> None:
        episodes = [random_episode(seed, steps) for seed, steps in enumerate((20, 31, 45))]
        metrics = episode_metrics(episodes, episodes, LIBERO, UNIT, VARIANCE)
        assert metrics.steps.tolist() == [20, 31, 45]
        assert metrics.switches.tolist() == metrics.switch_steps.tolist() == [1, 2, 3]

    def test_another_number_of_decoded_episodes_is_refused(self) -> None:
        with pytest.raises(ValueError, match="argument"):
            episode_metrics([still_episode(9)] * 2, [still_episode(9)], LIBERO, UNIT, VARIANCE)


class TestPhysicalUnits:
    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_position(self, axis: int) -> None:
        assert measure(still_episode(10), moved(still_episode(10), axis, 0.1))["position_mm"] == pytest.approx(5.0)

    @pytest.mark.parametrize("axis", [3, 4, 5])
    def test_rotation(self, axis: int) -> None:
        found = measure(still_episode(10), moved(still_episode(10), axis, 0.1))
        assert found["rotation_deg"] == pytest.approx(np.degrees(0.1 * 0.5))
        assert found["position_mm"] == 0.0

    def test_axes_add_up_as_a_length(self) -> None:
        decoded = moved(moved(still_episode(10), 0, 0.03), 1, -0.04)
        assert measure(still_episode(10), decoded)["position_mm"] == pytest.approx(0.05 * 50)

    def test_gripper(self) -> None:
        decoded = moved(still_episode(10), 6, 0.5)
        found = measure(still_episode(10), decoded)
        assert found["gripper_abs"] == pytest.approx(0.5)
        assert found["gripper_error_rate"] == 0.0

    def test_gripper_on_the_wrong_side(self) -> None:
        decoded = still_episode(10)
        decoded[:3, 6] = 0.2
        assert measure(still_episode(10), decoded)["gripper_error_rate"] == pytest.approx(0.3)

    def test_the_largest_error_is_over_all_steps_and_dimensions(self) -> None:
        decoded = moved(still_episode(10), 2, 0.1)
        decoded[7, 5] -= 0.3
        assert measure(still_episode(10), decoded)["max_abs"] == pytest.approx(0.3)


class TestDrift:
    @pytest.mark.parametrize(("bias", "steps"), [(0.01, 40), (-0.02, 25)])
    def test_a_constant_bias_adds_up(self, bias: float, steps: int) -> None:
        found = measure(still_episode(steps), moved(still_episode(steps), 0, bias))
        assert found["drift_mm"] == pytest.approx(abs(bias) * steps * 50)
        assert found["drift_deg"] == 0.0

    def test_a_constant_bias_of_rotation_adds_up(self) -> None:
        found = measure(still_episode(30), moved(still_episode(30), 4, 0.01))
        assert found["drift_deg"] == pytest.approx(0.01 * 30 * HALF_RADIAN_IN_DEGREES)

    def test_an_alternating_error_cancels_though_its_mse_is_the_same(self) -> None:
        original, signs = still_episode(40), np.where(np.arange(40) % 2, 1, -1)
        constant, alternating = (measure(original, moved(original, 0, by)) for by in (0.02, 0.02 * signs))
        assert alternating["drift_mm"] == pytest.approx(0.0, abs=1e-9)
        assert constant["drift_mm"] == pytest.approx(40.0)
        assert alternating["mse"] == pytest.approx(constant["mse"])

    def test_that_is_undone_later_shows_at_its_peak_and_where_the_gripper_switches(self) -> None:
        """x is 0.1 too much in steps 0 to 9 and 0.1 too little in 10 to 19; the gripper closes between 4 and 5."""
        original = still_episode(20)
        original[5:, 6] = 1.0
        found = measure(original, moved(original, 0, np.repeat([0.1, -0.1], 10)))
        assert found["drift_mm"] == pytest.approx(0.0, abs=1e-9)
        assert found["peak_drift_mm"] == pytest.approx(10 * 0.1 * 50)
        assert found["switch_drift_mm"] == pytest.approx(5 * 0.1 * 50)

    def test_at_switches_has_no_weight_where_the_gripper_never_switches(self) -> None:
        original = still_episode(20)
        metrics = episode_metrics([original], [moved(original, 0, 0.1)], LIBERO, UNIT, VARIANCE)
        assert metrics.switch_steps.tolist() == [0.0]
        assert metrics.switch_drift_mm.isna().all()
        assert metrics.peak_drift_mm.notna().all()


class TestZeros:
    def test_share_of_exact_zeros_kept(self) -> None:
        original = still_episode(10)
        original[5:, :6] = 0.4
        decoded = original.copy()
        decoded[0, :3] = 1e-6
        assert measure(original, decoded)["zeros_kept"] == pytest.approx(27 / 30)

    def test_rounding_noise_counts_as_kept(self) -> None:
        original = still_episode(10)
        assert measure(original, moved(original, 1, 1e-15))["zeros_kept"] == 1.0

    def test_weigh_as_many_as_there_are(self) -> None:
        moving = np.full((10, 7), 0.5)
        episodes = [still_episode(10), moving]
        metrics = episode_metrics(episodes, episodes, LIBERO, UNIT, VARIANCE)
        assert metrics.zeros.tolist() == [60.0, 0.0]
        assert metrics.zeros_kept.isna().tolist() == [False, True]

    def test_none_in_the_data_gives_no_figure(self) -> None:
        moving = np.full((10, 7), 0.5)
        summary = estimates([moving], [[moving]], LIBERO, UNIT)
        assert summary["zeros_kept"].mean is None
        assert summary["gripper_on_time"].mean is None
        assert summary["gripper_shift_steps"].mean is None


class TestNormalisedErrors:
    def test_mse_by_hand(self) -> None:
        normaliser = Normaliser(np.array([-0.5] * 6 + [-1.0]), np.array([0.5] * 6 + [1.0]))
        decoded = moved(moved(still_episode(10), 0, 0.1), 6, 0.4)
        found = measure(still_episode(10), decoded, normaliser)
        assert found["mse_x"] == pytest.approx((0.1 / 0.5) ** 2)
        assert found["mse_gripper"] == pytest.approx(0.4**2)
        assert found["mse"] == pytest.approx((0.2**2 + 0.4**2) / 7)

    def test_mse_is_the_mean_of_its_dimensions(self) -> None:
        original = random_episode(1)
        decoded = original + np.random.default_rng(2).normal(0, 0.1, original.shape)
        found = measure(original, decoded)
        assert found["mse"] == pytest.approx(np.mean([found[f"mse_{name}"] for name in LIBERO.names]))

    def test_relative_mse_by_hand(self) -> None:
        variance = np.array([0.1, 0.2, 0.4, 0.0, 0.1, 0.1, 1.0])
        original = still_episode(10)
        decoded = moved(moved(original, 0, 0.1), 2, 0.2)
        metrics = episode_metrics([original], [decoded], LIBERO, UNIT, variance)
        assert metrics.relative_mse.tolist() == pytest.approx([(0.01 / 0.1 + 0.04 / 0.4) / 6])

    def test_relative_mse_weighs_nothing_where_nothing_moves(self) -> None:
        original = still_episode(10)
        summary = estimates([original], [[moved(original, 0, 0.1)]], LIBERO, UNIT, np.zeros(7))
        assert summary["relative_mse"].mean is None
        assert summary["mse"].mean == pytest.approx(0.01 / 7)

    def test_values_outside_the_range_are_clipped_for_the_controller_but_not_for_mse(self) -> None:
        original = still_episode(10)
        original[:, 0] = 0.9
        found = measure(original, moved(original, 0, 2.0))
        assert found["mse_x"] == pytest.approx(4.0)
        assert found["position_mm"] == pytest.approx(0.1 * 50)
        assert found["max_abs"] == pytest.approx(0.1)
        assert found["drift_mm"] == pytest.approx(0.1 * 50 * 10)


def measure_as(spec: str, original: Array, decoded: Array, normaliser: Normaliser) -> dict[str, float | None]:
    """Figures of one episode in another layout, None where it has no dimension for them."""
    layout = ActionLayout.parse(spec)
    return {name: each.mean for name, each in estimates([original], [[decoded]], layout, normaliser).items()}


class TestOtherLayouts:
    TWO_ARMS = "position:3 rotation:3 gripper:1 position:3 rotation:3 gripper:1"
    UNIT_OF_TWO = Normaliser(np.full(14, -1.0), np.full(14, 1.0))

    def test_lengths_are_means_over_the_arms(self) -> None:
        original = np.hstack([still_episode(10)] * 2)
        decoded = moved(moved(moved(original, 0, 0.1), 8, 0.3), 12, -0.2)
        found = measure_as(self.TWO_ARMS, original, decoded, self.UNIT_OF_TWO)
        assert found["position_mm"] == pytest.approx((5 + 15) / 2)
        assert found["rotation_deg"] == pytest.approx(0.2 * HALF_RADIAN_IN_DEGREES / 2)
        assert found["drift_mm"] == pytest.approx(10 * (5 + 15) / 2)
        assert found["drift_deg"] == pytest.approx(10 * 0.2 * HALF_RADIAN_IN_DEGREES / 2)
        assert (found["mse_x 1"], found["mse_y 2"]) == pytest.approx((0.01, 0.09))

    def test_every_gripper_and_its_switches_count(self) -> None:
        original = np.hstack([still_episode(40)] * 2)
        original[:, 6], original[:, 13] = gripper(10, 30), gripper(5, 40)
        decoded = original.copy()
        decoded[:, 13] = gripper(7, 40)
        found = measure_as(self.TWO_ARMS, original, decoded, self.UNIT_OF_TWO)
        assert found["gripper_error_rate"] == pytest.approx(2 / 80)
        assert found["gripper_abs"] == pytest.approx(2 * 2 / 80)
        assert found["gripper_on_time"] == pytest.approx(2 / 3)
        assert found["gripper_shift_steps"] == pytest.approx(2 / 3)

    def test_joints_are_not_clipped_and_have_no_millimetres(self) -> None:
        original = np.tile([50.0, -70.0, 0.0], (10, 1))
        normaliser = Normaliser(np.full(3, -90.0), np.full(3, 90.0))
        decoded = moved(moved(original, 0, 30.0), 1, -40.0)
        found = measure_as("joint:3", original, decoded, normaliser)
        assert (found["joint_length"], found["max_abs"]) == pytest.approx((50.0, 40.0))
        assert found["mse"] == pytest.approx(((30 / 90) ** 2 + (40 / 90) ** 2) / 3)
        lacking = {name for name, value in found.items() if value is None}
        assert lacking == {
            *("position_mm", "rotation_deg", "drift_mm", "drift_deg", "zeros_kept", "peak_drift_mm", "switch_drift_mm"),
            *("gripper_abs", "gripper_error_rate", "gripper_on_time", "gripper_shift_steps"),
        }

    def test_libero_has_no_joints(self) -> None:
        found = measure_as(LIBERO.spec, random_episode(0), random_episode(0), UNIT)
        assert {name for name, value in found.items() if value is None} == {"joint_length"}

    def test_the_sides_of_a_gripper_meet_in_the_middle_of_its_train_range(self) -> None:
        original = np.tile([0.5, 0.0], (10, 1))
        decoded = original.copy()
        decoded[:3, 1], decoded[3:, 1] = 0.05, 0.03
        normaliser = Normaliser(np.array([0.0, 0.0]), np.array([1.0, 0.08]))
        found = measure_as("joint:1 gripper:1", original, decoded, normaliser)
        assert found["gripper_error_rate"] == pytest.approx(0.3)
        assert found["gripper_abs"] == pytest.approx((3 * 0.05 + 7 * 0.03) / 10)


def gripper(closed_from: int, closed_to: int, steps: int = 40) -> Array:
    command = np.full(steps, -1.0)
    command[closed_from:closed_to] = 1.0
    return command


class TestGripperShifts:
    def test_on_time(self) -> None:
        assert gripper_shifts(gripper(10, 30), gripper(10, 30)).tolist() == [0.0, 0.0]

    @pytest.mark.parametrize("shift", [2, -2])
    def test_late_and_early_count_alike(self, shift: int) -> None:
        assert gripper_shifts(gripper(10, 30), gripper(10 + shift, 30 + shift)).tolist() == [2.0, 2.0]

    def test_missed_counts_as_eight(self) -> None:
        assert gripper_shifts(gripper(10, 30), gripper(0, 0)).tolist() == [8.0, 8.0]

    def test_too_late_counts_as_eight(self) -> None:
        assert gripper_shifts(gripper(10, 30), gripper(19, 37)).tolist() == [8.0, 7.0]

    def test_extra_switches_do_not_help_or_harm(self) -> None:
        played = gripper(10, 30)
        played[3] = 1.0
        assert gripper_shifts(gripper(10, 30), played).tolist() == [0.0, 0.0]

    def test_the_direction_matters(self) -> None:
        closes_at_10, opens_at_10 = gripper(10, 40), gripper(0, 10)
        assert gripper_shifts(closes_at_10, opens_at_10).tolist() == [8.0]

    def test_no_switch_no_shift(self) -> None:
        assert len(gripper_shifts(gripper(0, 0), gripper(10, 30))) == 0

    def test_in_the_metrics_each_switch_has_the_same_weight(self) -> None:
        originals = [still_episode(40) for _ in range(2)]
        decodeds = [still_episode(40) for _ in range(2)]
        originals[0][:, 6], decodeds[0][:, 6] = gripper(10, 30), gripper(10, 32)
        originals[1][:, 6], decodeds[1][:, 6] = gripper(5, 40), gripper(5, 40)
        summary = estimates(originals, [decodeds], LIBERO, UNIT)
        assert summary["gripper_on_time"].mean == pytest.approx(2 / 3)
        assert summary["gripper_shift_steps"].mean == pytest.approx(2 / 3)


class TestOverSeedsAndEpisodes:
    def test_the_pooled_mean_is_the_mean_over_all_steps(self) -> None:
        originals = [random_episode(seed, steps) for seed, steps in enumerate((12, 50, 90))]
        rng = np.random.default_rng(5)
        decodeds = [episode + rng.normal(0, 0.05 * k, episode.shape) for k, episode in enumerate(originals, start=1)]
        summary = estimates(originals, [decodeds], LIBERO, UNIT)
        error = np.concatenate(decodeds) - np.concatenate(originals)
        assert summary["mse"].mean == pytest.approx((error**2).mean())
        played = np.clip(np.concatenate(decodeds), -1, 1) - np.concatenate(originals)
        assert summary["position_mm"].mean == pytest.approx(50 * np.linalg.norm(played[:, :3], axis=1).mean())

    def test_the_largest_error_is_a_maximum_over_seeds_and_episodes(self) -> None:
        originals = [still_episode(steps) for steps in (8, 16, 40)]
        largest = ((0.1, 0.5, 0.2), (0.3, 0.2, 0.9))
        decodeds = [[moved(original, 1, by) for original, by in zip(originals, seed, strict=True)] for seed in largest]
        found = estimates(originals, decodeds, LIBERO, UNIT)["max_abs"]
        assert found.mean == pytest.approx(0.9)
        assert found.per_seed == pytest.approx((0.5, 0.9))
        assert (found.low, found.high) == (None, None)

    def test_keeps_the_figure_of_each_seed(self) -> None:
        """Of two episodes of 10 and 30 steps, with a constant error in one of seven dimensions."""
        originals = [still_episode(10), still_episode(30)]
        errors = ((0.1, 0.2), (0.3, 0.5))
        decodeds = [[moved(original, 0, by) for original, by in zip(originals, seed, strict=True)] for seed in errors]
        found = estimates(originals, decodeds, LIBERO, UNIT)["mse"]
        per_seed = ((0.01 + 3 * 0.04) / 28, (0.09 + 3 * 0.25) / 28)
        assert found.per_seed == pytest.approx(per_seed)
        assert found.mean == pytest.approx(sum(per_seed) / 2)


SEEDS_AND_EPISODES = st.tuples(st.integers(1, 3), st.integers(2, 12))


class TestEstimateMean:
    @settings(deadline=None, max_examples=40)
    @given(shape=SEEDS_AND_EPISODES, seed=st.integers(0, 1000))
    def test_is_the_weighted_mean_and_lies_in_its_interval(self, shape: tuple[int, int], seed: int) -> None:
        rng = np.random.default_rng(seed)
        values, weights = rng.gamma(2.0, 1.0, shape), rng.uniform(5, 50, shape[1])
        found = estimate_mean(values, weights)
        expected = np.average(values, axis=1, weights=weights).mean()
        assert found.mean == pytest.approx(expected)
        assert found.low is not None
        assert found.high is not None
        assert found.low <= expected + 1e-12
        assert found.high >= expected - 1e-12

    def test_a_constant_has_an_interval_without_width(self) -> None:
        found = estimate_mean(np.full((2, 9), 0.3), np.arange(1.0, 10.0))
        assert (found.low, found.mean, found.high) == pytest.approx((0.3, 0.3, 0.3), abs=1e-12)

    def test_one_episode_allows_no_interval(self) -> None:
        found = estimate_mean(np.array([[0.2], [0.4]]), np.array([7.0]))
        assert (found.low, found.high) == (None, None)
        assert found.mean == pytest.approx(0.3)
        assert found.per_seed == pytest.approx((0.2, 0.4))

    def test_no_weight_at_all_gives_no_figure(self) -> None:
        assert estimate_mean(np.ones((2, 3)), np.zeros(3)) == Estimate(None)

    def test_an_episode_without_weight_does_not_count(self) -> None:
        found = estimate_mean(np.array([[1.0, 1.0, 99.0]]), np.array([2.0, 5.0, 0.0]))
        assert (found.low, found.mean, found.high) == pytest.approx((1.0, 1.0, 1.0))

    def test_goes_into_json(self) -> None:
        found = estimate_mean(np.array([[2.0, 2.0]]), np.ones(2)).as_json()
        assert found == {"mean": 2.0, "low": 2.0, "high": 2.0, "per_seed": [2.0]}


POSITIVE = arrays(np.float64, (2, 6), elements=st.floats(0.01, 10))


class TestImprovement:
    @settings(deadline=None, max_examples=20)
    @given(errors=POSITIVE)
    def test_of_the_same_errors_is_nothing_for_certain(self, errors: Array) -> None:
        found = estimate_improvement(errors, errors.copy(), np.arange(1.0, 7.0))
        assert (found.low, found.mean, found.high) == pytest.approx((0.0, 0.0, 0.0), abs=1e-12)

    @settings(deadline=None, max_examples=20)
    @given(errors=POSITIVE)
    def test_of_half_the_error_is_a_half_for_certain(self, errors: Array) -> None:
        found = estimate_improvement(errors, errors / 2, np.arange(1.0, 7.0))
        assert (found.low, found.mean, found.high) == pytest.approx((0.5, 0.5, 0.5), abs=1e-12)
        assert found.per_seed == pytest.approx((0.5, 0.5))

    def test_is_of_the_weighted_means(self) -> None:
        baseline, candidate = np.array([[1.0, 4.0]]), np.array([[1.0, 1.0]])
        found = estimate_improvement(baseline, candidate, np.array([1.0, 3.0]))
        assert found.mean == pytest.approx(1 - 4 / 13)

    def test_one_baseline_is_held_against_every_seed(self) -> None:
        candidate = np.array([[0.5, 0.5, 0.5], [0.25, 0.25, 0.25]])
        found = estimate_improvement(np.ones((1, 3)), candidate, np.ones(3))
        assert found.per_seed == pytest.approx((0.5, 0.75))
        assert found.mean == pytest.approx(0.625)

    def test_one_episode_allows_no_interval(self) -> None:
        found = estimate_improvement(np.array([[2.0]]), np.array([[1.0]]), np.ones(1))
        assert (found.mean, found.low, found.high) == (0.5, None, None)


class TestExcess:
    def test_of_the_same_times_is_nothing_for_certain(self) -> None:
        seconds = np.random.default_rng(0).random(30) + 0.5
        found = estimate_excess(seconds, seconds)
        assert (found.low, found.mean, found.high) == (0.0, 0.0, 0.0)

    def test_pairs_measurement_with_measurement(self) -> None:
        seconds = np.random.default_rng(0).random(30) + 0.5
        found = estimate_excess(seconds * 1.5, seconds)
        assert (found.low, found.mean, found.high) == pytest.approx((0.5, 0.5, 0.5))

    def test_one_hiccup_does_not_move_it(self) -> None:
        over, under = np.full(21, 1.1), np.ones(21)
        over[3] = 500.0
        found = estimate_excess(over, under)
        assert (found.low, found.mean, found.high) == pytest.approx((0.1, 0.1, 0.1))
        assert len(found.per_seed) == 21

    def test_the_interval_holds_the_median(self) -> None:
        rng = np.random.default_rng(0)
        over, under = rng.normal(1.1, 0.05, 60), rng.normal(1.0, 0.05, 60)
        found = estimate_excess(over, under)
        assert found.mean == pytest.approx(np.median(over / under) - 1)
        assert found.low is not None
        assert found.high is not None
        assert found.low <= found.mean <= found.high
        assert found == estimate_excess(over, under)
