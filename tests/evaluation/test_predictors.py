"""Which error tells failed replays from others."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu, spearmanr

from workbook.common.array import Array
from workbook.common.intervals import Estimate
from workbook.evaluation.replay.predictors import RESAMPLES, Predictor, held_against_success

SUCCESS = np.array([[True, True, False], [True, False, False]])
PERFECT = np.array([[0.1, 0.2, 0.6], [0.3, 0.5, 0.9]])


def test_an_error_that_parts_them_wholly_has_an_auc_of_1() -> None:
    found = held_against_success({"mse": PERFECT, "drift_mm": -PERFECT}, SUCCESS)
    assert found.each["mse"].auc.mean == 1.0
    assert found.each["drift_mm"].auc.mean == 0.0
    assert (found.each["drift_mm"].correlation.mean or 0.0) + (found.each["mse"].correlation.mean or 0.0) == 0.0
    assert (found.best, found.replays, found.failed) == ("mse", 6, 3)
    assert found.each["drift_mm"].behind == Estimate(1.0, 1.0, 1.0)
    assert (found.each["mse"].behind, found.not_shown_worse) == (None, [])


def test_an_auc_by_hand() -> None:
    """Failed 0.2 and 0.4 against succeeded 0.1, 0.2 and 0.3: of six pairs four and a half."""
    errors = np.array([[0.2, 0.4, 0.1, 0.2, 0.3]])
    success = np.array([[False, False, True, True, True]])
    found = held_against_success({"mse": errors}, success)
    assert found.each["mse"].auc.mean == pytest.approx(4.5 / 6)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=8, max_size=8))
def test_the_correlation_is_spearmans(pairs: list[tuple[float, bool]]) -> None:
    errors, success = (np.array(column)[None] for column in zip(*pairs, strict=True))
    found = held_against_success({"mse": errors}, success).each["mse"].correlation.mean
    if len(set(errors[0])) == 1 or len(set(success[0])) == 1:
        assert found is None
    else:
        assert found == pytest.approx(spearmanr(errors[0], ~success[0]).statistic)


def test_an_error_that_is_the_same_everywhere_says_nothing_and_is_never_the_best() -> None:
    found = held_against_success({"gripper_shift_steps": np.zeros((2, 3)), "mse": -PERFECT}, SUCCESS)
    assert found.each["gripper_shift_steps"] == Predictor(Estimate(None), Estimate(None), Estimate(None))
    assert found.best == "mse"


@pytest.mark.parametrize("ended", [True, False])
def test_replays_that_all_ended_alike_have_no_best(ended: bool) -> None:
    found = held_against_success({"mse": PERFECT}, np.full((2, 3), ended))
    assert found.best is None
    assert found.each["mse"].auc.mean is None


def test_a_replay_without_one_of_the_errors_counts_for_none() -> None:
    """All errors are held against the same replays."""
    rng = np.random.default_rng(0)
    mse, drift, success = rng.random((2, 9)), rng.random((2, 9)), rng.random((2, 9)) < 0.5
    without: Array = drift.copy()
    without[:, 0] = np.nan
    found = held_against_success({"mse": mse, "drift_mm": without}, success)
    kept = held_against_success({"mse": mse[:, 1:], "drift_mm": drift[:, 1:]}, success[:, 1:])
    assert (found.replays, found.failed) == (16, int((~success[:, 1:]).sum()))
    for name in ("mse", "drift_mm"):
        assert found.each[name].auc.mean == kept.each[name].auc.mean


def test_a_codec_that_is_bad_as_a_whole_says_nothing_within() -> None:
    """Every error of the second is larger and all its replays fail; the first fails where its error is least."""
    errors = np.array([[0.1, 0.2, 0.3], [1.0, 1.1, 1.2]])
    success = np.array([[False, True, True], [False, False, False]])
    mse = held_against_success({"mse": errors}, success).each["mse"]
    assert mse.within.mean == 0.0
    assert mse.auc.mean == pytest.approx(6 / 8)


def test_the_interval_is_over_episodes_with_their_codecs_together() -> None:
    """A hundred copies of one codec say no more about other episodes than the codec alone."""
    rng = np.random.default_rng(0)
    errors, success = rng.random((1, 30)), rng.random((1, 30)) < 0.5
    one = held_against_success({"mse": errors}, success).each["mse"].auc
    many = held_against_success({"mse": np.tile(errors, (100, 1))}, np.tile(success, (100, 1))).each["mse"].auc
    assert width(many) == pytest.approx(width(one), rel=1e-6)
    assert width(one) > 0.0


def width(estimate: Estimate) -> float:
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.high - estimate.low


def test_an_interval_is_that_of_samples_drawn_and_ranked_one_by_one() -> None:
    rng = np.random.default_rng(0)
    errors, success = rng.integers(0, 6, (3, 12)) / 4, rng.random((3, 12)) < 0.6
    mse = held_against_success({"mse": errors}, success).each["mse"]
    drawn = np.random.default_rng(0).integers(0, 12, (RESAMPLES, 12))
    aucs, correlations = np.array([by_ranks(errors[:, sample], success[:, sample]) for sample in drawn]).T
    assert [mse.auc.low, mse.auc.high] == pytest.approx(np.quantile(aucs, [0.025, 0.975]), rel=1e-12)
    assert [mse.correlation.low, mse.correlation.high] == pytest.approx(np.quantile(correlations, [0.025, 0.975]))


def by_ranks(errors: Array, success: NDArray[np.bool_]) -> tuple[float, float]:
    failed, other = errors[~success], errors[success]
    auc = mannwhitneyu(failed, other).statistic / (len(failed) * len(other))
    return auc, spearmanr(errors.ravel(), ~success.ravel()).statistic
