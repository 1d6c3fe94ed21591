"""Transform coding: what a rate buys, and that tokens alone bring it back."""

from __future__ import annotations

import pickle
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from workbook.codecs.klt import LEVELS, KltCodec, Transform, fit_klt
from workbook.codecs.protocol import Tokens
from workbook.common.array import Array
from workbook.data.chunks import Normaliser

N, C, A = 80, 4, 3
RATES = (0.0, 0.5, 3.0, 8.0, 16.0, 24.0, 40.0, 64.0)


def walks(seed: int, count: int = N) -> Array:
    """Smooth chunks, the later dimensions ever smaller."""
    rng = np.random.default_rng(seed)
    return np.cumsum(rng.normal(0, 0.2, (count, C, A)), axis=1) * (1.0, 0.3, 0.05)


def normaliser_of(train: Array) -> Normaliser:
    return Normaliser.fit(train.reshape(-1, train.shape[-1]))


def fitted(train: Array, *rates: float) -> list[KltCodec]:
    return fit_klt(train, normaliser_of(train), rates)


def normalised_error(codec: KltCodec, chunks: Array) -> float:
    decoded = codec.decode(codec.encode(chunks))
    return float(np.mean((codec.normaliser.normalise(decoded) - codec.normaliser.normalise(chunks)) ** 2))


def one_step_chunks(*columns: list[float]) -> Array:
    """Chunks of a single step, a list of numbers for each dimension."""
    return np.array(columns).T[:, None, :]


@pytest.fixture(scope="module")
def codecs() -> list[KltCodec]:
    return fitted(walks(0), *RATES)


class TestTransform:
    def test_axes_are_orthonormal_and_in_order_of_variance(self) -> None:
        vectors = walks(1).reshape(N, -1)
        transform = Transform.fit(vectors, C * A)
        assert transform.axes.T @ transform.axes == pytest.approx(np.eye(C * A), abs=1e-12)
        assert (np.diff(transform.forward(vectors).var(axis=0)) <= 1e-12).all()

    def test_latents_of_train_vectors_are_uncorrelated(self) -> None:
        vectors = walks(1).reshape(N, -1)
        covariance = np.cov(Transform.fit(vectors, C * A).forward(vectors).T)
        assert covariance == pytest.approx(np.diag(np.diag(covariance)), abs=1e-12)

    def test_all_axes_bring_vectors_back_and_few_bring_the_nearest_in_their_span(self) -> None:
        vectors = walks(1).reshape(N, -1)
        whole, part = Transform.fit(vectors, C * A), Transform.fit(vectors, 2)
        assert whole.inverse(whole.forward(vectors)) == pytest.approx(vectors, abs=1e-12)
        rest = vectors - part.inverse(part.forward(vectors))
        assert part.axes.shape == (C * A, 2)
        assert rest @ part.axes == pytest.approx(np.zeros((N, 2)), abs=1e-12)


class TestByHand:
    def test_a_dimension_that_never_moves_gets_no_levels(self) -> None:
        train = one_step_chunks([-1.0, 1.0, 1.0, -1.0], [0.25] * 4)
        codec = fitted(train, 10.0)[0]
        assert sorted(map(len, codec.centroids)) == [1, 2]
        assert codec.encode(train).codes.shape == (4, 1)
        assert codec.bits(codec.encode(train)) == 1.0
        assert codec.decode(codec.encode(train)) == pytest.approx(train, abs=1e-12)

    def test_the_greatest_gain_for_a_bit_comes_first(self) -> None:
        """Two values in one dimension, four equally far apart in the other, at a tenth of its size."""
        wide, narrow = [-1.0, 1.0] * 8, [-0.1] * 8 + [0.1] * 8
        train = one_step_chunks(wide, narrow)
        unit = Normaliser(-np.ones(2), np.ones(2))
        first, both = fit_klt(train, unit, (1.0, 2.0))
        assert first.decode(first.encode(train))[:, 0, 0] == pytest.approx(np.array(wide))
        assert first.decode(first.encode(train))[:, 0, 1] == pytest.approx(np.zeros(16), abs=1e-12)
        assert both.decode(both.encode(train)) == pytest.approx(train, abs=1e-12)
        assert (first.bits(first.encode(train)), both.bits(both.encode(train))) == (1.0, 2.0)

    def test_no_bits_bring_the_mean(self) -> None:
        train = walks(2)
        codec = fitted(train, 0.0)[0]
        tokens = codec.encode(train)
        assert tokens.codes.shape == (N, 0)
        assert codec.bits(tokens) == 0.0
        assert codec.decode(tokens) == pytest.approx(np.broadcast_to(train.mean(axis=0), train.shape), abs=1e-12)

    def test_bits_are_the_logarithms_of_the_levels(self) -> None:
        train = one_step_chunks([0.0, 1.0, 2.0] * 4, [0.0, 0.0, 0.0, 1.0, 1.0, 1.0] * 2)
        codec = fitted(train, 20.0)[0]
        tokens = codec.encode(train)
        assert codec.vocabulary == 3
        assert codec.bits(tokens) == pytest.approx(np.log2(3) + 1)
        assert codec.name == "klt3"


class TestRates:
    def test_bits_are_never_above_the_rate(self, codecs: list[KltCodec]) -> None:
        bits = [codec.bits(codec.encode(walks(0))) for codec in codecs]
        assert all(spent <= rate for spent, rate in zip(bits, RATES, strict=True))
        assert bits[-1] > RATES[-1] - 2

    def test_more_bits_never_have_more_train_error(self, codecs: list[KltCodec]) -> None:
        errors = [normalised_error(codec, walks(0)) for codec in codecs]
        assert all(finer <= coarser + 1e-12 for coarser, finer in pairwise(errors))
        assert errors[-1] < errors[0] / 100

    def test_so_it_is_on_chunks_that_it_has_not_seen(self, codecs: list[KltCodec]) -> None:
        errors = [normalised_error(codec, walks(5, 300)) for codec in codecs[2:]]
        assert errors == sorted(errors, reverse=True)

    @settings(deadline=None, max_examples=25)
    @given(seed=st.integers(0, 1000), rates=st.lists(st.floats(0, 60), min_size=1, max_size=4))
    def test_both_hold_for_any_rates(self, seed: int, rates: list[float]) -> None:
        train = walks(seed, 20)
        found = fitted(train, *rates)
        assert len(found) == len(rates)
        errors = [normalised_error(codec, train) for codec in found]
        assert all(finer <= coarser + 1e-12 for coarser, finer in pairwise(errors))
        for codec, rate in zip(found, sorted(rates), strict=True):
            assert codec.bits(codec.encode(train)) <= rate

    def test_no_coefficient_has_more_levels_than_samples_or_than_allowed(self, codecs: list[KltCodec]) -> None:
        assert {len(c) for codec in codecs for c in codec.centroids} <= set(range(1, min(N, max(LEVELS)) + 1))

    def test_the_fit_does_not_depend_on_the_lower_rates_asked_with_it(self, codecs: list[KltCodec]) -> None:
        alone = fitted(walks(0), RATES[0], RATES[5])[-1]
        assert np.array_equal(alone.encode(walks(1)).codes, codecs[5].encode(walks(1)).codes)


class TestTokens:
    @pytest.mark.parametrize("position", range(2, len(RATES)))
    def test_have_a_fixed_length_and_stay_in_range(self, codecs: list[KltCodec], position: int) -> None:
        codec = codecs[position]
        levels = [len(centroids) for centroids in codec.centroids if len(centroids) > 1]
        codes = codec.encode(walks(6) * 5).codes
        assert codes.shape == (N, len(levels))
        assert codes.min() >= 0
        assert (codes < levels).all()
        assert codec.vocabulary == max(levels)

    @pytest.mark.parametrize("position", range(len(RATES)))
    def test_what_is_decoded_encodes_to_the_same_tokens(self, codecs: list[KltCodec], position: int) -> None:
        tokens = codecs[position].encode(walks(6))
        assert np.array_equal(codecs[position].encode(codecs[position].decode(tokens)).codes, tokens.codes)

    def test_any_codes_in_range_come_back(self, codecs: list[KltCodec]) -> None:
        levels = [len(centroids) for centroids in codecs[5].centroids if len(centroids) > 1]
        codes = np.random.default_rng(0).integers(0, levels, (200, len(levels)))
        assert np.array_equal(codecs[5].encode(codecs[5].decode(Tokens(codes))).codes, codes)

    @pytest.mark.parametrize("position", [1, 4, 7])
    def test_alone_decode_in_another_instance(self, codecs: list[KltCodec], position: int) -> None:
        codec = codecs[position]
        tokens = codec.encode(walks(7))
        bare = Tokens(np.frombuffer(tokens.codes.tobytes(), np.int64).reshape(tokens.codes.shape))
        other = pickle.loads(pickle.dumps(codec))
        codec.encode(walks(8))
        assert np.array_equal(other.decode(bare), codec.decode(tokens))

    def test_each_chunk_is_coded_by_itself(self, codecs: list[KltCodec]) -> None:
        together = codecs[4].encode(walks(7)).codes
        assert np.array_equal(codecs[4].encode(walks(7)[3:4]).codes, together[3:4])

    def test_the_nearest_centroid_is_taken(self, codecs: list[KltCodec]) -> None:
        codec, chunks = codecs[4], walks(7)
        latents = codec.transform.forward(codec.normaliser.normalise(chunks).reshape(N, -1))
        decoded = codec.transform.forward(
            codec.normaliser.normalise(codec.decode(codec.encode(chunks))).reshape(N, -1)
        )  # fmt: skip
        for number, centroids in enumerate(codec.centroids):
            least = np.abs(latents[:, number, None] - centroids).min(axis=1)
            assert np.abs(latents[:, number] - decoded[:, number]) == pytest.approx(least, abs=1e-9)
