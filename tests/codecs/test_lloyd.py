"""Scalar quantizers: Lloyd's algorithm against cases by hand, and thresholds that nest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.strategies import SearchStrategy

from workbook.codecs.lloyd import lloyd_max, nearest, nested_thresholds
from workbook.common.array import Array


def samples(least: int = 1, most: int = 60) -> SearchStrategy[Array]:
    """Ascending multiples of 1/8, whose sums are exact, with many ties."""
    return st.lists(st.integers(-400, 400), min_size=least, max_size=most).map(lambda found: np.sort(found) / 8)


def squared_error(ordered: Array, centroids: Array) -> float:
    return float(((ordered[:, None] - centroids) ** 2).min(axis=1).sum())


def cells_of(ordered: Array, thresholds: Array) -> np.ndarray:
    return np.searchsorted(thresholds, ordered, side="right")


class TestLloydMax:
    @pytest.mark.parametrize(
        ("ordered", "cells", "centroids"),
        [
            ([1.0, 2.0, 10.0, 12.0], 2, [1.5, 11.0]),
            ([-5.0, -4.0, 0.0, 0.5, 1.0, 8.0, 10.0], 3, [-4.5, 0.5, 9.0]),
            ([0.0, 0.0, 0.0, 4.0, 9.0, 11.0], 2, [1.0, 10.0]),
            ([1.0, 2.0, 6.0], 1, [3.0]),
            ([7.0], 1, [7.0]),
        ],
    )
    def test_by_hand(self, ordered: list[float], cells: int, centroids: list[float]) -> None:
        assert lloyd_max(np.array(ordered), cells) == pytest.approx(np.array(centroids))

    @pytest.mark.parametrize("cells", [3, 4, 100])
    def test_as_many_cells_as_distinct_samples_give_these(self, cells: int) -> None:
        assert lloyd_max(np.array([-2.0, -2.0, 0.5, 0.5, 0.5, 3.0]), cells).tolist() == [-2.0, 0.5, 3.0]

    @pytest.mark.parametrize("cells", [1, 2, 7])
    def test_constant_samples_have_one_centroid(self, cells: int) -> None:
        assert lloyd_max(np.full(50, 0.3), cells).tolist() == [0.3]

    @settings(deadline=None, max_examples=150)
    @given(ordered=samples(), cells=st.integers(1, 20))
    def test_centroids_ascend_within_the_samples(self, ordered: Array, cells: int) -> None:
        centroids = lloyd_max(ordered, cells)
        assert 1 <= len(centroids) <= min(cells, len(np.unique(ordered)))
        assert len(np.unique(nearest(ordered, centroids))) == len(centroids)  # none is paid for and never used
        assert (np.diff(centroids) >= 0).all()
        assert centroids[0] >= ordered[0]
        assert centroids[-1] <= ordered[-1]

    @settings(deadline=None, max_examples=150)
    @given(ordered=samples(), cells=st.integers(1, 20))
    def test_one_cell_is_never_better_than_several(self, ordered: Array, cells: int) -> None:
        around_the_mean = squared_error(ordered, np.array([ordered.mean()]))
        assert squared_error(ordered, lloyd_max(ordered, cells)) <= around_the_mean * (1 + 1e-12) + 1e-9

    @settings(deadline=None, max_examples=150)
    @given(ordered=samples(), cells=st.integers(1, 20))
    def test_no_worse_than_where_it_starts(self, ordered: Array, cells: int) -> None:
        even = np.linspace(ordered[0], ordered[-1], cells)
        start = (even + np.quantile(ordered, (np.arange(cells) + 0.5) / cells)) / 2
        assert squared_error(ordered, lloyd_max(ordered, cells)) <= squared_error(ordered, start) + 1e-9

    @settings(deadline=None, max_examples=60)
    @given(ordered=samples(least=4, most=12), cells=st.integers(1, 4))
    def test_a_centroid_is_the_mean_of_the_samples_nearest_to_it(self, ordered: Array, cells: int) -> None:
        centroids = lloyd_max(ordered, cells)
        cell = np.searchsorted((centroids[1:] + centroids[:-1]) / 2, ordered, side="right")
        for number in np.unique(cell):
            assert centroids[number] == pytest.approx(ordered[cell == number].mean(), abs=1e-9)

    @pytest.mark.parametrize("kind", ["normal", "laplace", "exponential", "uniform"])
    @pytest.mark.parametrize("cells", [2, 3, 8, 32])
    def test_better_than_even_cells_on_smooth_densities(self, kind: str, cells: int) -> None:
        ordered = np.sort(getattr(np.random.default_rng(cells), kind)(size=4000))
        width = (ordered[-1] - ordered[0]) / cells
        even = ordered[0] + (np.arange(cells) + 0.5) * width
        assert squared_error(ordered, lloyd_max(ordered, cells)) < squared_error(ordered, even)

    def test_reaches_the_published_optimum_of_the_normal_density(self) -> None:
        """Max 1960: the four levels for a unit variance are +-0.4528 and +-1.510, with an error of 0.1175."""
        ordered = np.sort(np.random.default_rng(0).normal(size=200_000))
        centroids = lloyd_max(ordered, 4)
        assert centroids == pytest.approx(np.array([-1.510, -0.4528, 0.4528, 1.510]), abs=0.02)
        assert squared_error(ordered, centroids) / len(ordered) == pytest.approx(0.1175, abs=0.002)


@settings(deadline=None, max_examples=100)
@given(ordered=samples(), centroids=samples(least=1, most=9))
def test_nearest_is_the_nearest(ordered: Array, centroids: Array) -> None:
    distances = np.abs(ordered[:, None] - centroids)
    assert distances[np.arange(len(ordered)), nearest(ordered, centroids)] == pytest.approx(distances.min(axis=1))


class TestNestedThresholds:
    def test_by_hand(self) -> None:
        ordered = np.array([0.0, 1.0, 10.0, 13.0, 50.0, 54.0, 60.0, 66.0])
        assert nested_thresholds(ordered, 2, 1).tolist() == [31.75]
        assert nested_thresholds(ordered, 2, 2).tolist() == [6.0, 31.75, 57.5]

    @settings(deadline=None, max_examples=100)
    @given(ordered=samples(), branches=st.integers(2, 4), depth=st.integers(1, 4))
    def test_ascend_and_are_as_many_as_asked(self, ordered: Array, branches: int, depth: int) -> None:
        thresholds = nested_thresholds(ordered, branches, depth)
        assert len(thresholds) == branches**depth - 1
        assert (thresholds[1:] >= thresholds[:-1]).all()

    @settings(deadline=None, max_examples=100)
    @given(ordered=samples(), branches=st.integers(2, 4), depth=st.integers(2, 4), data=st.data())
    def test_a_coarser_cell_is_the_union_of_finer_ones(
        self, ordered: Array, branches: int, depth: int, data: st.DataObject
    ) -> None:
        coarser = data.draw(st.integers(1, depth - 1))
        probes = np.linspace(-60, 60, 97)
        fine = cells_of(probes, nested_thresholds(ordered, branches, depth))
        coarse = cells_of(probes, nested_thresholds(ordered, branches, coarser))
        assert np.array_equal(fine // branches ** (depth - coarser), coarse)

    @settings(deadline=None, max_examples=100)
    @given(ordered=samples(), branches=st.integers(2, 4))
    def test_deep_enough_they_tell_distinct_samples_apart(self, ordered: Array, branches: int) -> None:
        distinct = np.unique(ordered)[: branches * 2]
        cells = cells_of(distinct, nested_thresholds(distinct, branches, 6))
        assert len(np.unique(cells)) == len(distinct)

    @pytest.mark.parametrize("depth", [1, 3, 6])
    def test_constant_samples_share_a_cell(self, depth: int) -> None:
        thresholds = nested_thresholds(np.full(20, 0.3), 3, depth)
        assert len(thresholds) == 3**depth - 1
        assert not np.isnan(thresholds).any()
        assert len(np.unique(cells_of(np.full(20, 0.3), thresholds))) == 1

    def test_heavy_ties_stay_together_and_apart_from_the_rest(self) -> None:
        ordered = np.sort(np.concatenate([np.zeros(5000), np.random.default_rng(0).normal(size=300)]))
        thresholds = nested_thresholds(ordered, 3, 6)
        cells = cells_of(ordered, thresholds)
        assert (thresholds[1:] >= thresholds[:-1]).all()
        assert len(np.unique(cells[ordered == 0])) == 1
        assert (np.diff(cells) >= 0).all()
        assert len(np.unique(cells)) > 100
