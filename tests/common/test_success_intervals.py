"""Exact intervals and tests of counts of successes."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from workbook.common.intervals import Estimate, estimate_gain, estimate_proportion, mcnemar_p

won = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40)


def test_the_interval_of_no_failure_is_known_in_closed_form() -> None:
    """Of n of n the lower end p has p^n = 2.5 %."""
    found = estimate_proportion(38, 38)
    assert (found.mean, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(0.025 ** (1 / 38))


def test_the_interval_of_17_of_20_as_tables_have_it() -> None:
    found = estimate_proportion(17, 20)
    assert (found.low, found.high) == (pytest.approx(0.6211, abs=1e-4), pytest.approx(0.9679, abs=1e-4))


def test_no_trials_give_no_figure() -> None:
    assert estimate_proportion(0, 0).mean is None
    assert estimate_gain(np.zeros((1, 0)), np.zeros((1, 0))).mean is None


def counts(won: int, lost: int, episodes: int = 38, seeds: int = 1) -> Estimate:
    """Of so many episodes `won` go to the second alone and `lost` to the first alone; the others to both."""
    first, second = np.ones((2, seeds, episodes))
    first[:, :won] = 0
    second[:, won : won + lost] = 0
    return estimate_gain(first, second)


def test_an_interval_worked_out_by_hand() -> None:
    """Bonett and Price: of 38 episodes 5 are won and 1 is lost; with one of each added 6 and 2 of 40."""
    found = counts(5, 1)
    centre, variance = 4 / 40, (8 / 40 - (4 / 40) ** 2) / 40
    assert found.mean == pytest.approx(4 / 38)
    assert found.low == pytest.approx(centre - 1.959964 * variance**0.5)
    assert found.high == pytest.approx(centre + 1.959964 * variance**0.5)


def test_without_any_difference_the_interval_does_not_claim_certainty() -> None:
    found = counts(0, 0)
    assert found.mean == 0
    assert found.low is not None
    assert found.high is not None
    assert 0.05 < found.high == -found.low < 0.1


@pytest.mark.parametrize("lost", [0, 1, 3])
def test_another_episode_won_moves_the_interval_up_without_a_jump(lost: int) -> None:
    ends = np.array([[found.low, found.high] for won in range(12) for found in [counts(won, lost)]], dtype=float)
    steps = np.diff(ends, axis=0)
    assert (steps[:, 1] > 0).all()
    assert np.abs(steps).max() < 0.06


@settings(max_examples=50, deadline=None)
@given(won)
def test_a_gain_turns_round_with_its_sides_and_stays_within_a_share(pairs: list[tuple[bool, bool]]) -> None:
    first, second = (np.array(side, dtype=np.float64)[None] for side in zip(*pairs, strict=True))
    found, turned = estimate_gain(first, second), estimate_gain(second, first)
    assert found.mean == pytest.approx(second.mean() - first.mean())
    assert found.low is not None
    assert found.high is not None
    assert -1 <= found.low <= found.high <= 1
    assert turned.low == pytest.approx(-found.high)


def test_seeds_that_agree_say_no_more_than_one() -> None:
    one, five = counts(5, 1), counts(5, 1, seeds=5)
    assert (five.mean, five.low, five.high) == (one.mean, one.low, one.high)


def test_seeds_that_differ_widen_the_interval() -> None:
    first = np.zeros((2, 20))
    same, apart = np.zeros((2, 20)), np.zeros((2, 20))
    same[:, :10] = 1
    apart[0] = 1
    widths = [found.high - found.low for found in (estimate_gain(first, same), estimate_gain(first, apart))]  # type: ignore[operator]
    assert widths[1] > 2 * widths[0]


@pytest.mark.parametrize("share", [0.02, 0.1, 0.2])
@pytest.mark.parametrize("seeds", [1, 3])
def test_the_interval_holds_the_true_gain_about_as_often_as_it_says(share: float, seeds: int) -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        draws = rng.choice(3, size=(seeds, 38), p=[1 - 1.5 * share, share, share / 2])  # both, second, first alone
        found = estimate_gain((draws != 1).astype(float), (draws != 2).astype(float))
        assert found.low is not None
        assert found.high is not None
        held += found.low <= share / 2 <= found.high
    assert held / 300 >= 0.93


@settings(max_examples=50, deadline=None)
@given(won)
def test_mcnemars_p_is_that_of_a_fair_coin(pairs: list[tuple[bool, bool]]) -> None:
    first, second = (np.array(side) for side in zip(*pairs, strict=True))
    b, c = int((second & ~first).sum()), int((first & ~second).sum())
    tail = sum(comb(b + c, k) for k in range(min(b, c) + 1)) / 2 ** (b + c)
    assert mcnemar_p(first, second) == pytest.approx(min(1.0, 2 * tail))
