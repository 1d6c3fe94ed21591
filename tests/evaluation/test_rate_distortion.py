"""Rate and distortion: what stands at equal bits, what the fewest bits are, and what a Gaussian source would need."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from made_rows import rows

from workbook.codecs.catalogue import FITTED_RATES, POLICY_RATES, Fitting
from workbook.common import targets
from workbook.common.array import Array
from workbook.data.chunks import Normaliser
from workbook.data.dataset import Dataset
from workbook.data.episodes import Episode
from workbook.data.layout import ActionLayout
from workbook.data.split import Split
from workbook.evaluation.rate_distortion import (
    Point,
    front,
    gaussian_reference,
    points,
    smallest,
)
from workbook.evaluation.score import ENCODER, Scores

WEIGHTS = np.array([1.0, 3.0])


def measured(codec: str, bits: float, *mse: Sequence[float]) -> pd.DataFrame:
    """mse: of each episode, one sequence a seed; the second of two episodes has three times the steps."""
    seeds, episodes = np.shape(mse)
    found = rows(codec, 0.0, f"at={bits:g}", bits=bits, seeds=seeds, episodes=episodes)
    return found.assign(mse=np.ravel(mse), steps=np.tile(WEIGHTS[:episodes], seeds), measured=True)


def of(*some: pd.DataFrame) -> Scores:
    return Scores(pd.concat(some, ignore_index=True))


class TestPoints:
    def test_are_of_the_settings_that_were_measured_from_tokens(self) -> None:
        scores = of(
            measured("fast", 50, [8.0, 4.0]),
            measured("fast", 10, [10.0, 20.0], [20.0, 10.0]),
            measured("bins", 10, [1.0, 1.0]),
            measured("fast", 70, [0.0, 0.0]).assign(measured=False),
            measured("fast", 90, [0.0, 0.0]).assign(decoding=ENCODER),
        )
        first, second = points(scores, ["fast"])
        assert (first.codec, first.setting, first.bits, first.mean) == ("fast", "at=50", 50.0, 5.0)
        assert second.mse.tolist() == [[10.0, 20.0], [20.0, 10.0]]
        assert second.weights.tolist() == [1.0, 3.0]
        assert second.mean == pytest.approx((17.5 + 12.5) / 2)


class TestFront:
    @settings(deadline=None, max_examples=50)
    @given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), max_size=12))
    def test_no_setting_left_out_is_better_than_all_that_are_kept(self, some: list[tuple[int, int]]) -> None:
        found = [Point("fast", "", bits, np.array([[float(mse)]]), np.ones(1)) for bits, mse in some]
        kept = front(found)
        assert [point.bits for point in kept] == sorted({point.bits for point in kept})
        assert [point.mean for point in kept] == sorted({point.mean for point in kept}, reverse=True)
        for point in found:
            assert any(other.bits <= point.bits and other.mean <= point.mean for other in kept)


TARGET = targets.MSE_BELOW


class TestSmallest:
    def find(self, *some: pd.DataFrame) -> dict[str, tuple[str, str] | None]:
        return smallest(of(*some))

    def met(self, codec: str, bits: float) -> pd.DataFrame:
        """The whole interval lies below the target."""
        return measured(codec, bits, [TARGET * 0.99, TARGET * 0.9899])

    def test_takes_the_fewest_bits_whose_whole_interval_meets_the_target(self) -> None:
        def spread(codec: str, bits: float) -> pd.DataFrame:
            return measured(codec, bits, [TARGET * 1.2, TARGET / 2])  # met in the mean

        found = self.find(
            self.met("fixed_scale", 400),
            self.met("fixed_scale", 200),
            spread("naive", 100),
            self.met("klt_rfsq_variable", 50),
            spread("klt_rfsq_fixed", 25),
        )
        assert found == {"guide": ("fixed_scale", "at=200"), "any": ("klt_rfsq_variable", "at=50")}

    def test_the_target_itself_is_not_met(self) -> None:
        assert self.find(measured("fixed_scale", 10, [TARGET])) == {"guide": None, "any": None}

    def test_without_an_interval_the_mean_counts(self) -> None:
        found = self.find(measured("naive_chunk", 30, [TARGET / 2]), measured("naive_chunk", 20, [1.0]))
        assert found == {"guide": ("naive_chunk", "at=30"), "any": ("naive_chunk", "at=30")}

    def test_others_than_rfsq_do_not_count(self) -> None:
        assert self.find(self.met("bins", 10), self.met("fast", 10)) == {"guide": None, "any": None}


def fitting_of(actions: Array, spec: str, length: int) -> Fitting:
    """One train episode, not normalised at all."""
    episode = Episode(actions, "put", "a.hdf5", "demo_0")
    unit = Normaliser(-np.ones(actions.shape[1]), np.ones(actions.shape[1]))
    split = Split((0,), (0,), (0,))
    return Fitting(Dataset(ActionLayout.parse(spec), (episode,), split, unit, length, length))


class TestGaussianReference:
    VARIANCES = np.array([1.0, 0.25])

    def curve(self, variances: Array, spec: str = "joint:2", length: int = 1) -> pd.DataFrame:
        """Of independent Gaussians, whitened so that their sample covariance is exactly diagonal."""
        draws = np.random.default_rng(0).normal(size=(400, len(variances)))
        draws -= draws.mean(axis=0)
        white = draws @ np.linalg.inv(np.linalg.cholesky(np.cov(draws.T)).T)
        return gaussian_reference(fitting_of(white * np.sqrt(variances), spec, length))

    def test_of_two_independent_gaussians_by_hand(self) -> None:
        for point in self.curve(self.VARIANCES).itertuples():
            level = point.mse if point.mse <= 0.25 else 2 * point.mse - 0.25
            bits = 0.5 * np.log2(1 / level) + max(0.5 * np.log2(0.25 / level), 0)
            assert point.bits == pytest.approx(bits, abs=1e-9)

    def test_no_bits_leave_all_variance(self) -> None:
        last = self.curve(self.VARIANCES).iloc[-1]
        assert last.bits == pytest.approx(0.0, abs=1e-9)
        assert last.mse == pytest.approx(self.VARIANCES.sum() / 2)

    def test_more_bits_less_error(self) -> None:
        curve = self.curve(self.VARIANCES)
        assert len(curve) == 60
        assert (np.diff(curve.bits) < 0).all()
        assert (np.diff(curve.mse) > 0).all()

    def test_a_gripper_is_left_out_but_shares_the_error(self) -> None:
        curve = self.curve(np.array([1.0, 0.25, 9.0]), "joint:2 gripper:1")
        assert curve.mse.iloc[-1] == pytest.approx(1.25 / 3)

    def test_of_grippers_alone_there_is_nothing_to_say(self) -> None:
        curve = gaussian_reference(fitting_of(np.sign(np.arange(40.0)[:, None] % 2 - 0.5), "gripper:1", 4))
        assert not curve[["bits", "mse"]].to_numpy().any()

    def test_correlation_saves_bits(self) -> None:
        rng = np.random.default_rng(0)
        alone = rng.normal(size=(300, 2))
        shared = alone[:, :1] + 0.1 * alone[:, 1:]
        together, apart = (
            gaussian_reference(fitting_of(np.hstack([alone[:, :1], second]), "joint:2", 1))
            for second in (shared, rng.permutation(shared))
        )
        bits = [float(np.interp(0.05, curve.mse, curve.bits)) for curve in (together, apart)]
        assert bits[0] < bits[1] - 1


def test_rates_of_policies_are_among_those_that_codecs_are_fitted_at() -> None:
    assert set(POLICY_RATES) <= set(FITTED_RATES)
