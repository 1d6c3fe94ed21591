"""Exact intervals and tests of counts of successes."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbook.intervals import FEWEST_DIFFERING, estimate_gain, estimate_proportion, mcnemar_p

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


def test_without_any_difference_the_interval_does_not_claim_certainty() -> None:
    found = estimate_gain(np.ones((3, 38)), np.ones((3, 38)))
    assert found.mean == 0
    assert found.high == pytest.approx(1 - 0.0125 ** (1 / 38))
    assert found.low == -found.high


@settings(max_examples=50, deadline=None)
@given(won)
def test_a_gain_lies_in_its_interval_and_turns_round_with_its_sides(pairs: list[tuple[bool, bool]]) -> None:
    first, second = (np.array(side, dtype=np.float64)[None] for side in zip(*pairs, strict=True))
    found, turned = estimate_gain(first, second), estimate_gain(second, first)
    assert found.mean is not None
    assert found.low is not None
    assert found.high is not None
    assert found.mean == pytest.approx(second.mean() - first.mean())
    assert found.low <= found.mean + 1e-12
    assert found.mean <= found.high + 1e-12
    if np.count_nonzero(first != second) < FEWEST_DIFFERING:
        assert turned.low == pytest.approx(-found.high)


def test_one_seed_is_paired_with_every_seed_of_the_other() -> None:
    first, second = np.zeros((1, 20)), np.ones((3, 20))
    second[0] = 0
    assert estimate_gain(first, second).mean == pytest.approx(2 / 3)
    assert estimate_gain(first, second).per_seed == (0.0, 1.0, 1.0)


@pytest.mark.parametrize("share", [0.02, 0.2])
def test_the_interval_holds_the_true_gain_about_as_often_as_it_says(share: float) -> None:
    """Few episodes differ in one case, and many in the other. A bootstrap is short of its level by a little."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        draws = rng.choice(3, size=38, p=[1 - 1.5 * share, share, share / 2])  # both, second alone, first alone
        found = estimate_gain((draws != 1)[None].astype(float), (draws != 2)[None].astype(float))
        assert found.low is not None
        assert found.high is not None
        held += found.low <= share / 2 <= found.high
    assert held / 200 >= (0.95 if share < 0.1 else 0.9)


@settings(max_examples=50, deadline=None)
@given(won)
def test_mcnemars_p_is_that_of_a_fair_coin(pairs: list[tuple[bool, bool]]) -> None:
    first, second = (np.array(side) for side in zip(*pairs, strict=True))
    b, c = int((second & ~first).sum()), int((first & ~second).sum())
    tail = sum(comb(b + c, k) for k in range(min(b, c) + 1)) / 2 ** (b + c)
    assert mcnemar_p(first, second) == pytest.approx(min(1.0, 2 * tail))
