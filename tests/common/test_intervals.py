"""Intervals hold the truth as often as they say, over new seeds and episodes, however few there were."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy.stats import norm, t

from workbook.common.array import Array
from workbook.common.intervals import WIDEST, Estimate, estimate_gain, estimate_improvement, estimate_mean

STUDIES = 1500
SIZES = [(5, 38), (5, 10)]
# Standard deviations of log MSE over seeds, episodes, and what is left, in the sample's run.
NAIVE = (0.05, 0.19, 0.095)
MEASURED = {
    "naive": NAIVE,
    "fixed_scale": (0.0, 0.45, 0.18),
    "running_statistics": (0.18, 0.51, 0.27),
    "residual_vq": (0.2, 0.34, 0.19),
    "predicted": (0.03, 0.4, 0.1),
}
ALIKE = 0.7  # correlation of two codecs' errors over episodes


def ends(found: Estimate) -> tuple[float, float]:
    assert found.low is not None
    assert found.high is not None
    return found.low, found.high


def holds(found: Estimate, truth: float) -> bool:
    low, high = ends(found)
    return low <= truth <= high


class Study:
    """Errors of a number of seeds and episodes, as skewed as they are in truth, and steps of episodes."""

    def __init__(self, seeds: int, episodes: int, number: int) -> None:
        self.rng = np.random.default_rng(number)
        self.shape = (seeds, episodes)
        self.weights = self.rng.lognormal(0.0, 0.4, episodes)
        self.common = self.rng.standard_normal(episodes)

    def errors(self, spreads: tuple[float, float, float]) -> Array:
        own = self.rng.standard_normal(self.shape[1])
        of_seed = self.rng.standard_normal((self.shape[0], 1))
        of_episode = ALIKE * self.common + (1 - ALIKE**2) ** 0.5 * own
        left = self.rng.standard_normal(self.shape)
        return np.exp(spreads[0] * of_seed + spreads[1] * of_episode + spreads[2] * left)


def true_mean(spreads: tuple[float, float, float]) -> float:
    return float(np.exp(sum(spread**2 for spread in spreads) / 2))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("codec", MEASURED)
def test_the_interval_of_a_mean_holds_it_in_95_of_100_studies(codec: str, size: tuple[int, int]) -> None:
    truth, spreads, held = true_mean(MEASURED[codec]), MEASURED[codec], 0
    for number in range(STUDIES):
        study = Study(*size, number)
        held += holds(estimate_mean(study.errors(spreads), study.weights), truth)
    assert 0.93 <= held / STUDIES <= 0.98


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("codec", [codec for codec in MEASURED if codec != "naive"])
def test_the_interval_of_an_improvement_holds_it_in_95_of_100_studies(codec: str, size: tuple[int, int]) -> None:
    truth, held = 1 - true_mean(MEASURED[codec]) / true_mean(NAIVE), 0
    for number in range(STUDIES):
        study = Study(*size, number)
        held += holds(estimate_improvement(study.errors(NAIVE), study.errors(MEASURED[codec]), study.weights), truth)
    assert 0.93 <= held / STUDIES <= 0.98


@pytest.mark.parametrize("codec", ["fixed_scale", "running_statistics"])
def test_the_intervals_of_five_folds_hold_the_truth_too(codec: str) -> None:
    """Every episode is of one seed alone, and weighs nothing in the others."""
    of_mean = of_improvement = 0
    tested = np.repeat(np.eye(5), 10, axis=1)
    mean, improvement = true_mean(MEASURED[codec]), 1 - true_mean(MEASURED[codec]) / true_mean(NAIVE)
    for number in range(STUDIES):
        study = Study(5, 50, number)
        naive, errors = study.errors(NAIVE) * tested, study.errors(MEASURED[codec]) * tested
        weights = study.weights * tested
        of_mean += holds(estimate_mean(errors, weights), mean)
        of_improvement += holds(estimate_improvement(naive, errors, weights), improvement)
    assert 0.93 <= of_mean / STUDIES <= 0.98
    assert 0.93 <= of_improvement / STUDIES <= 0.98


def test_in_folds_each_seed_has_the_mean_of_its_own_episodes() -> None:
    tested = np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    found = estimate_mean(np.array([[1.0, 3.0, 0.0], [0.0, 0.0, 8.0]]), tested)
    assert (found.mean, found.per_seed) == (4.0, (2.0, 8.0))


def test_a_fold_that_has_no_figure_changes_nothing() -> None:
    study, tested = Study(3, 12, 0), np.repeat(np.eye(3), 4, axis=1)
    errors, naive = (study.errors(MEASURED[codec]) * tested for codec in ("fixed_scale", "naive"))
    weights = study.weights * tested
    wider = [np.vstack([values, np.zeros(12)]) for values in (naive, errors, weights)]
    for found, without in (
        (estimate_mean(*wider[1:]), estimate_mean(errors, weights)),
        (estimate_improvement(*wider), estimate_improvement(naive, errors, weights)),
    ):
        assert ends(found) == pytest.approx(ends(without))
        assert (found.mean, found.per_seed) == (pytest.approx(without.mean), pytest.approx(without.per_seed))


@pytest.mark.parametrize("errors", [[2.0, 2.0, 2.0], [1.0, 2.0, 4.0]])
def test_folds_of_one_episode_each_have_the_interval_of_these_episodes(errors: list[float]) -> None:
    found = estimate_mean(np.diag(errors), np.eye(3))
    alone = estimate_mean(np.array([errors]), np.ones(3))
    assert ends(found) == pytest.approx(ends(alone))
    assert found.mean == pytest.approx(alone.mean)


def test_weights_of_one_split_give_plain_sums_to_the_last_bit() -> None:
    """What a run without folds says has not changed by there being folds."""
    study = Study(5, 38, 0)
    naive, errors = study.errors(NAIVE), study.errors(MEASURED["fixed_scale"])
    found, gain = estimate_mean(errors, study.weights), estimate_improvement(naive, errors, study.weights)
    assert found.per_seed == tuple(errors @ study.weights / study.weights.sum())
    assert found.mean == np.mean(found.per_seed)
    assert gain.per_seed == tuple(1 - errors @ study.weights / (naive @ study.weights))
    assert gain.mean == 1 - (errors @ study.weights).sum() / (naive @ study.weights).sum()


@pytest.mark.parametrize("episodes", [10, 38])
def test_the_interval_of_a_codec_without_seeds_holds_its_mean_over_episodes(episodes: int) -> None:
    spreads, held = (0.0, 0.31, 0.0), 0
    for number in range(STUDIES):
        study = Study(1, episodes, number)
        held += holds(estimate_mean(study.errors(spreads), study.weights), true_mean(spreads))
    assert 0.93 <= held / STUDIES <= 0.98


@pytest.mark.parametrize(
    ("size", "same_starts", "first", "second"),
    [
        ((5, 38), True, 1.0, 2.6),  # replay, as of naive and the fixed scale: 0.75 and 0.97
        ((5, 38), True, 0.4, 1.2),
        ((5, 10), True, 0.4, 1.2),
        ((3, 28), False, 1.4, 2.4),  # in the loop every seed has starts of its own
        ((3, 28), False, 1.4, 0.3),
    ],
)
def test_the_interval_of_a_gain_holds_it_over_new_seeds_and_episodes(
    size: tuple[int, int], same_starts: bool, first: float, second: float
) -> None:
    of_seed, of_episode, left, held = 0.25, 1.0, 0.5, 0
    rng = np.random.default_rng(0)
    whole = np.sqrt(of_seed**2 + of_episode**2 + left**2)
    truth = norm.cdf(second / whole) - norm.cdf(first / whole)

    def won(ease: float, starts: Array) -> Array:
        policy = of_seed * rng.standard_normal((size[0], 1))
        return np.asarray(ease + policy + of_episode * starts + left * rng.standard_normal(size) > 0, dtype=float)

    for _ in range(STUDIES):
        starts = rng.standard_normal((1, size[1]) if same_starts else size)
        found = estimate_gain(won(first, starts), won(second, starts), own_episodes=not same_starts)
        held += holds(found, float(truth))
    assert 0.93 <= held / STUDIES <= 0.98


def test_of_episodes_of_one_seed_it_is_students_on_the_logarithm_each_held_against_the_others() -> None:
    """To first order, where episodes hardly differ: each is measured by a sum that has 11 of 12."""
    values = 1 + 0.001 * np.random.default_rng(0).standard_normal((1, 12))
    low, high = ends(estimate_mean(values, np.ones(12)))
    half = t.ppf(0.975, 11) * values.std(ddof=1) / 12**0.5 * 12 / 11
    assert np.log([low, high]) == pytest.approx(np.log(values.mean()) + half * np.array([-1, 1]), abs=1e-6)


def test_of_seeds_that_alone_differ_it_is_students_over_seeds() -> None:
    of_seed = 1 + 0.001 * np.random.default_rng(0).standard_normal((5, 1))
    low, high = ends(estimate_mean(np.repeat(of_seed, 9, axis=1), np.ones(9)))
    half = t.ppf(0.975, 4) * of_seed.std(ddof=1) / 5**0.5
    assert np.log([low, high]) == pytest.approx(np.log(of_seed.mean()) + half * np.array([-1, 1]), abs=1e-6)


def test_seeds_that_agree_say_no_more_than_one() -> None:
    values, weights = np.random.default_rng(0).lognormal(size=(1, 12)), np.arange(1.0, 13.0)
    assert ends(estimate_mean(np.repeat(values, 5, axis=0), weights)) == pytest.approx(
        ends(estimate_mean(values, weights))
    )


def test_the_same_spread_of_more_seeds_or_episodes_narrows_the_interval() -> None:
    errors = Study(2, 5, 0).errors((0.3, 0.3, 0.1))

    def width(seeds: int, episodes: int) -> float:
        low, high = ends(estimate_mean(np.tile(errors, (seeds, episodes)), np.ones(5 * episodes)))
        return high - low

    assert width(1, 1) > width(2, 1) > width(4, 1)
    assert width(4, 1) > width(4, 4) > width(4, 16)


def test_a_wider_spread_of_seeds_or_episodes_widens_the_interval() -> None:
    def width(of_seeds: float, of_episodes: float) -> float:
        low, high = ends(
            estimate_improvement(np.ones((5, 10)), Study(5, 10, 0).errors((of_seeds, of_episodes, 0.1)), np.ones(10))
        )
        return float(np.log((1 - low) / (1 - high)))

    assert width(0.1, 0.1) < width(0.4, 0.1) < width(0.8, 0.1)
    assert width(0.1, 0.1) < width(0.1, 0.4) < width(0.1, 0.8)


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 3), st.integers(2, 6), st.integers(0, 10_000))
def test_no_interval_leaves_what_is_possible(seeds: int, episodes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    baseline, candidate = rng.lognormal(0, 3, (2, seeds, episodes)) * rng.integers(0, 2, (2, seeds, episodes))
    weights = rng.integers(1, 50, episodes).astype(float)
    low, high = ends(estimate_mean(candidate, weights))
    mean = float(estimate_mean(candidate, weights).mean or 0)
    assert mean / WIDEST <= low + 1e-12
    assert low <= mean + 1e-12
    assert mean <= high + 1e-12
    assert ends(estimate_mean((candidate > 0).astype(float), weights, most=1.0))[1] <= 1
    found = estimate_improvement(baseline, candidate, weights)
    if found.mean is not None:
        low, high = ends(found)
        assert low <= found.mean + 1e-9
        assert found.mean - 1e-9 <= high <= 1


def test_a_candidate_without_any_error_is_wholly_better_for_certain() -> None:
    found = estimate_improvement(np.ones((2, 5)), np.zeros((2, 5)), np.ones(5))
    assert (found.low, found.mean, found.high) == (1.0, 1.0, 1.0)


def test_one_episode_that_counts_allows_no_interval() -> None:
    found = estimate_mean(np.array([[1.0, 3.0]]), np.array([0.0, 2.0]))
    assert (found.low, found.mean, found.high) == (None, 3.0, None)


def test_pairs_that_were_not_played_count_in_no_gain() -> None:
    first, second = np.zeros((2, 6)), np.ones((2, 6))
    first[0, 0] = second[1, 3] = np.nan
    first[:, 5] = second[1, 2] = np.nan
    second[0, 1] = 0
    assert estimate_gain(first, second).mean == pytest.approx(6 / 7)
