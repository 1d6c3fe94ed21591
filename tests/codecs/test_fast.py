"""The FAST-style tokenizer: cosines, rounding, and byte-pair encoding that loses nothing."""

from __future__ import annotations

import math
import pickle
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings, strategies as st

from workbook.codecs.fast import (
    RATE_TOLERANCE,
    SAME_SCALE,
    VOCABULARY,
    FastCodec,
    FastScales,
    bits_of,
    cosines,
    quantile_normaliser,
    scales_around,
)
from workbook.codecs.protocol import NOT_SENT, Tokens, entropy_bits
from workbook.common.array import Array
from workbook.data.chunks import Normaliser

N, C, A = 150, 6, 3
SCALE = 8.0


def walks(seed: int, count: int = N) -> Array:
    rng = np.random.default_rng(seed)
    return np.clip(np.cumsum(rng.normal(0, 0.15, (count, C, A)), axis=1), -0.9, 0.9)


def normaliser_of(train: Array) -> Normaliser:
    return Normaliser.fit(train.reshape(-1, train.shape[-1]))


def unit(size: int, half: float = 1.0) -> Normaliser:
    return Normaliser(np.full(size, -half), np.full(size, half))


def fit_fast(train: Array, scale: float = SCALE) -> FastCodec:
    return FastCodec.fit(train, normaliser_of(train), scale)


def transformed(series: list[float]) -> list[float]:
    """Orthonormal DCT-II by its definition."""
    count = len(series)
    return [
        math.sqrt((1 if k == 0 else 2) / count)
        * sum(x * math.cos(math.pi * k * (2 * t + 1) / (2 * count)) for t, x in enumerate(series))
        for k in range(count)
    ]


def transformed_back(coefficients: list[float]) -> list[float]:
    count = len(coefficients)
    return [
        sum(
            math.sqrt((1 if k == 0 else 2) / count) * c * math.cos(math.pi * k * (2 * t + 1) / (2 * count))
            for k, c in enumerate(coefficients)
        )
        for t in range(count)
    ]


def rounded_by_hand(chunk: Array, normaliser: Normaliser, scale: float) -> Array:
    """What rounding of the coefficients alone leaves of a (C, A) chunk."""
    normalised = (chunk - normaliser.centre) / normaliser.half_width
    columns = [
        transformed_back([round(c * scale) / scale for c in transformed(column.tolist())]) for column in normalised.T
    ]
    return np.array(columns).T * normaliser.half_width + normaliser.centre


def as_tokens(rows: list[list[int]]) -> Tokens:
    codes = np.full((len(rows), max(map(len, rows))), NOT_SENT, dtype=np.int64)
    for row, sequence in zip(codes, rows, strict=True):
        row[: len(sequence)] = sequence
    return Tokens(codes, shared_alphabet=True)


def sequences(tokens: Tokens) -> list[list[int]]:
    return [codes[codes != NOT_SENT].tolist() for codes in tokens.codes]


@pytest.fixture(scope="module")
def codec() -> FastCodec:
    return fit_fast(walks(0))


class TestCosines:
    @pytest.mark.parametrize("length", [1, 2, 3, 8, 17])
    def test_are_orthonormal(self, length: int) -> None:
        assert cosines(length) @ cosines(length).T == pytest.approx(np.eye(length), abs=1e-12)

    def test_are_those_of_the_definition(self) -> None:
        series = [0.3, -1.0, 0.5, 0.25, 0.0]
        assert cosines(5) @ series == pytest.approx(np.array(transformed(series)), abs=1e-12)

    def test_a_constant_has_a_mean_alone(self) -> None:
        assert cosines(4) @ np.full(4, 0.5) == pytest.approx(np.array([1.0, 0, 0, 0]), abs=1e-12)


class TestRoundTrip:
    @pytest.mark.parametrize("scale", [1.0, 5.0, 40.0])
    def test_loses_nothing_but_the_rounding_of_coefficients(self, scale: float) -> None:
        train = walks(1, 60)
        codec = fit_fast(train, scale)
        expected = np.stack([rounded_by_hand(chunk, normaliser_of(train), scale) for chunk in train])
        assert codec.decode(codec.encode(train)) == pytest.approx(expected, abs=1e-9)

    @settings(deadline=None, max_examples=40)
    @given(seed=st.integers(0, 2**32))
    def test_any_coefficients_within_the_train_range_come_back_exactly(self, codec: FastCodec, seed: int) -> None:
        wanted = np.random.default_rng(seed).integers(codec.low, codec.high + 1, (5, C, A))
        chunks = codec.normaliser.denormalise(np.einsum("kt,nka->nta", cosines(C), wanted / SCALE))
        assert codec.decode(codec.encode(chunks)) == pytest.approx(chunks, abs=1e-9)

    def test_chunks_may_lie_in_memory_as_they_like(self, codec: FastCodec) -> None:
        chunks = walks(3)
        assert np.array_equal(codec.encode(np.asfortranarray(chunks)).codes, codec.encode(chunks).codes)

    def test_low_and_high_are_the_extremes_of_the_train_chunks(self, codec: FastCodec) -> None:
        normalised = codec.normaliser.normalise(walks(0))
        found = [round(c * SCALE) for chunk in normalised for column in chunk.T for c in transformed(column.tolist())]
        assert (codec.low, codec.high) == (min(found), max(found))

    def test_coefficients_beyond_the_train_range_become_its_ends(self) -> None:
        """Chunks of one step, whose only coefficient is the number itself."""
        codec = FastCodec.fit(np.array([[[-0.6, 0.2]], [[0.8, 0.0]]]), unit(2), 10.0)
        assert (codec.low, codec.high) == (-6, 8)
        decoded = codec.decode(codec.encode(np.array([[[3.0, -3.0]], [[0.81, -0.59]]])))
        assert decoded == pytest.approx(np.array([[[0.8, -0.6]], [[0.8, -0.6]]]))

    def test_a_coefficient_that_train_chunks_never_had_within_their_range_is_coded(self) -> None:
        codec = FastCodec.fit(np.array([[[-1.0]], [[1.0]]]), unit(1), 10.0)
        chunks = np.arange(-10, 11).reshape(-1, 1, 1) / 10
        assert codec.decode(codec.encode(chunks)) == pytest.approx(chunks)

    def test_a_dimension_that_never_moves_stays(self) -> None:
        train = walks(2)
        train[:, :, 1] = 0.25
        codec = fit_fast(train)
        assert codec.decode(codec.encode(train))[:, :, 1] == pytest.approx(np.full((N, C), 0.25), abs=1e-12)


class TestClipping:
    def test_normalised_actions_are_clipped_where_it_is_asked_for(self) -> None:
        train = np.array([[[-2.0]], [[0.5]], [[0.9]], [[4.0]]])
        clipped, whole = (FastCodec.fit(train, unit(1), 10.0, clips=clips) for clips in (True, False))
        assert clipped.decode(clipped.encode(train)).ravel() == pytest.approx([-1.0, 0.5, 0.9, 1.0])
        assert whole.decode(whole.encode(train)).ravel() == pytest.approx([-2.0, 0.5, 0.9, 4.0])
        assert (clipped.low, clipped.high) == (-10, 10)
        assert (whole.low, whole.high) == (-20, 40)

    def test_each_step_is_clipped_before_the_transform(self) -> None:
        train = np.concatenate([walks(3) * 3, np.full((1, C, A), 1.0), np.full((1, C, A), -1.0)])
        codec = FastCodec.fit(train, unit(A), 30.0, clips=True)
        expected = np.stack([rounded_by_hand(chunk.clip(-1, 1), unit(A), 30.0) for chunk in train])
        assert np.abs(train).max() > 1.5
        assert codec.decode(codec.encode(train)) == pytest.approx(expected, abs=1e-9)

    def test_the_name_tells(self) -> None:
        names = [FastCodec.fit(walks(0, 4), unit(A), 5.0, clips=clips).name for clips in (False, True)]
        assert names == ["fast5", "fast5 q01-q99"]

    def test_the_quantile_normaliser_takes_the_first_and_99th_percentile(self) -> None:
        found = quantile_normaliser(np.stack([np.arange(101.0), np.arange(101.0)[::-1] * 2], axis=1))
        assert found.low == pytest.approx([1.0, 2.0])
        assert found.high == pytest.approx([99.0, 198.0])


class TestMalformed:
    def test_too_few_or_too_many_symbols_become_zeros_and_the_rest_is_left_alone(self, codec: FastCodec) -> None:
        chunks = walks(0)[:4]
        whole, short, long, empty = sequences(codec.encode(chunks))
        decoded = codec.decode(as_tokens([whole, short[:-1], [*long, long[0]], empty[:0]]))
        zeros = np.broadcast_to(codec.normaliser.centre, (C, A))
        assert decoded[0] == pytest.approx(codec.decode(codec.encode(chunks))[0], abs=1e-12)
        for chunk in decoded[1:]:
            assert chunk == pytest.approx(zeros, abs=1e-12)

    @settings(deadline=None, max_examples=40)
    @given(seed=st.integers(0, 2**32), length=st.integers(0, 2 * C * A))
    def test_any_sequence_decodes_to_finite_actions(self, codec: FastCodec, seed: int, length: int) -> None:
        codes = np.random.default_rng(seed).integers(0, codec.vocabulary, (4, length))
        decoded = codec.decode(Tokens(codes, shared_alphabet=True))
        assert decoded.shape == (4, C, A)
        assert np.isfinite(decoded).all()


class TestTokens:
    def test_stay_in_the_vocabulary_and_end_only_once(self, codec: FastCodec) -> None:
        tokens = codec.encode(walks(4) * 2)
        assert tokens.shared_alphabet
        assert tokens.codes[tokens.sent].min() >= 0
        assert tokens.codes.max() < codec.vocabulary
        assert codec.vocabulary <= VOCABULARY
        assert (tokens.sent[:, 1:] <= tokens.sent[:, :-1]).all()
        assert tokens.codes.shape == (N, tokens.lengths.max())

    def test_frequent_pairs_are_merged(self, codec: FastCodec) -> None:
        assert codec.encode(walks(0)).lengths.mean() < 0.8 * C * A
        still = np.broadcast_to(walks(0).mean(axis=(0, 1)), (1, C, A))
        assert codec.encode(still).lengths[0] < codec.encode(walks(4)).lengths.mean()

    def test_bits_are_the_mean_length_times_those_of_a_token(self, codec: FastCodec) -> None:
        tokens = codec.encode(walks(4))
        lengths = [len(sequence) for sequence in sequences(tokens)]
        assert len(set(lengths)) > 1
        assert codec.bits(tokens) == pytest.approx(sum(lengths) / N * math.log2(codec.vocabulary))

    def test_entropy_is_that_of_one_alphabet_for_all_places(self, codec: FastCodec) -> None:
        tokens = codec.encode(walks(4))
        counts = Counter(code for sequence in sequences(tokens) for code in sequence)
        total = sum(counts.values())
        each = -sum(count / total * math.log2(count / total) for count in counts.values())
        found = entropy_bits(tokens, np.ones((N, C), dtype=bool))
        assert found == pytest.approx(each * total / N)
        assert found < codec.bits(tokens)

    def test_a_larger_scale_has_less_error_and_more_bits(self) -> None:
        train, unseen = walks(0), walks(5)
        codecs = [fit_fast(train, scale) for scale in (1, 3, 10, 30)]
        for chunks in (train, unseen):
            errors = [float(np.mean((codec.decode(codec.encode(chunks)) - chunks) ** 2)) for codec in codecs]
            bits = [codec.bits(codec.encode(chunks)) for codec in codecs]
            assert all(finer < coarser for coarser, finer in pairwise(errors))
            assert all(more > fewer for fewer, more in pairwise(bits))

    def test_a_large_alphabet_has_a_token_for_each_of_its_symbols(self) -> None:
        codec = FastCodec.fit(np.array([[[-1.0]], [[1.0]]]), unit(1), 800.0)
        chunks = np.linspace(-1, 1, 1601).reshape(-1, 1, 1)
        assert codec.vocabulary == 1601
        assert codec.decode(codec.encode(chunks)) == pytest.approx(chunks, abs=1e-12)

    def test_alone_decode_in_another_instance(self, codec: FastCodec) -> None:
        tokens = codec.encode(walks(4))
        other = pickle.loads(pickle.dumps(codec))
        bare = Tokens(np.frombuffer(tokens.codes.tobytes(), np.int64).reshape(tokens.codes.shape))
        assert np.array_equal(other.decode(bare), codec.decode(tokens))

    def test_a_chunk_is_coded_without_its_neighbours(self, codec: FastCodec) -> None:
        together = sequences(codec.encode(walks(4)))
        assert [sequences(codec.encode(walks(4)[n : n + 1]))[0] for n in range(10)] == together[:10]

    def test_fitting_twice_gives_the_same_tokens(self, codec: FastCodec) -> None:
        assert np.array_equal(fit_fast(walks(0)).encode(walks(4)).codes, codec.encode(walks(4)).codes)


class TestScales:
    """Scales at which validation chunks cost so and so much."""

    def scales(self) -> FastScales:
        train = walks(0)
        return FastScales(train, walks(7), normaliser_of(train))

    @settings(deadline=None, max_examples=15)
    @given(bits=st.floats(20, 110))
    @example(bits=21.375)
    @example(bits=24.875)  # a scale between costs more than a larger one
    def test_cost_what_is_wanted_or_lie_where_costs_jump(self, bits: float) -> None:
        """Other merges may cost a few per cent more at nearly the same scale, and the search ends there."""
        scales = self.scales()
        found = bits_of(codec := scales.at(bits), codec.encode(scales.validation))
        spent = scales.spent(bits_of)
        assert abs(found - bits) == min(abs(each - bits) for each in spent.values())
        around = scales_around(spent, bits)
        assert around is not None
        assert found == pytest.approx(bits, rel=RATE_TOLERANCE) or around[1] / around[0] < SAME_SCALE

    def test_are_looked_for_between_the_neighbours_nearest_to_each_other(self) -> None:
        spent = {1.0: 10.0, 8.0: 30.0, 2.0: 25.0, 3.0: 15.0, 20.0: 40.0}
        assert scales_around(spent, 20.0) == (2.0, 3.0)  # of 1-2, 2-3, 3-8
        assert scales_around(spent, 25.0) == (3.0, 8.0)
        assert scales_around(spent, 5.0) is None
        assert scales_around(spent, 40.0) is None

    def test_beyond_their_ends_are_the_ends(self) -> None:
        scales = self.scales()
        assert scales.at(0.0).scale == min(scales.spent(bits_of))
        assert scales.at(1e9).scale == max(scales.spent(bits_of))
        assert scales.best_at(1e9, bits_of, 0.02) is None

    def test_a_scale_is_fitted_once_and_as_by_itself(self) -> None:
        scales = self.scales()
        assert scales.codec(5.0) is scales.codec(5.0)
        alone = fit_fast(walks(0), 5.0)
        assert np.array_equal(scales.codec(5.0).encode(walks(4)).codes, alone.encode(walks(4)).codes)

    @pytest.mark.parametrize("bits", [30.0, 60.0, 100.0])
    def test_the_best_of_a_rate_costs_as_much_and_has_no_more_error(self, bits: float) -> None:
        scales = self.scales()
        plain = scales.at(bits, within=0.02)
        best = scales.best_at(bits, bits_of, 0.02)
        assert best is not None
        assert best.bits(best.encode(scales.validation)) == pytest.approx(bits, rel=0.02)
        assert scales.rounding_error(best.scale) <= scales.rounding_error(plain.scale)

    def test_the_error_of_rounding_is_that_of_the_decode(self) -> None:
        scales = self.scales()
        known = FastScales(scales.train, scales.train, scales.normaliser)  # no coefficient is beyond those of training
        codec = known.codec(30.0)
        error = (codec.decode(codec.encode(scales.train)) - scales.train) / scales.normaliser.half_width
        assert known.rounding_error(30.0) == pytest.approx((error**2).mean())
