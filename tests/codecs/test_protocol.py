"""What tokens cost at their empirical entropy, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays

from workbook.codecs.protocol import NOT_SENT, SIDE_BITS, Tokens, code_entropy, entropy_bits

NO = NOT_SENT
H14 = 2 - 0.75 * float(np.log2(3))  # entropy of one in four


def chunk_codes(*rows: list[int]) -> Tokens:
    """Codes of whole chunks, a row for each."""
    return Tokens(np.array(rows, dtype=np.int64))


def step_codes(*chunks: list[int]) -> Tokens:
    """One code a step, a list for each chunk."""
    return Tokens(np.array(chunks, dtype=np.int64)[:, :, None])


def all_valid(tokens: Tokens, steps: int = 1) -> np.ndarray:
    return np.ones((len(tokens.codes), steps if tokens.of_whole_chunks else tokens.codes.shape[1]), dtype=bool)


def entropies(tokens: Tokens) -> np.ndarray:
    return code_entropy(tokens, all_valid(tokens))


def bits(tokens: Tokens) -> float:
    return entropy_bits(tokens, all_valid(tokens))


class TestTokens:
    def test_lengths_of_whole_chunks_end_where_nothing_is_sent(self) -> None:
        tokens = chunk_codes([4, 0, 2], [1, NO, NO], [NO, NO, NO], [0, 3, NO])
        assert tokens.lengths.tolist() == [3, 1, 0, 2]
        assert tokens.sent.tolist()[3] == [True, True, False]

    def test_lengths_of_step_codes_count_all_of_a_chunk(self) -> None:
        codes = np.zeros((5, 4, 3, 2), dtype=np.int64)
        codes[1, 2, 0, 1] = NO
        assert Tokens(codes).lengths.tolist() == [24, 23, 24, 24, 24]

    def test_a_gap_within_a_sequence_is_not_counted(self) -> None:
        assert chunk_codes([NO, 5, NO, 7]).lengths.tolist() == [2]

    def test_codes_with_two_axes_are_those_of_whole_chunks(self) -> None:
        assert chunk_codes([1, 2]).of_whole_chunks
        assert not step_codes([1, 2]).of_whole_chunks
        assert not Tokens(np.zeros((2, 3, 4, 5), dtype=np.int64)).of_whole_chunks


class TestStepCodes:
    def test_pool_the_valid_steps(self) -> None:
        tokens = step_codes([0, 1, 7], [0, 0, 3])
        valid = np.array([[True, True, False], [True, True, False]])
        assert code_entropy(tokens, valid) == pytest.approx([H14])

    def test_a_chunk_costs_all_its_steps_padded_or_not(self) -> None:
        tokens = step_codes([0, 1, 7], [0, 0, 3])
        valid = np.array([[True, True, False], [True, True, False]])
        assert entropy_bits(tokens, valid) == pytest.approx(3 * H14)

    def test_padding_counts_where_it_is_valid(self) -> None:
        """0 three times, 1, 3 and 7 once each."""
        expected = 0.5 * 1 + 3 / 6 * np.log2(6)
        assert bits(step_codes([0, 1, 7], [0, 0, 3])) == pytest.approx(3 * expected)

    def test_places_of_a_step_are_apart(self) -> None:
        codes = np.array([[[0, 5]], [[1, 5]], [[0, 5]], [[1, 6]]])
        assert entropies(Tokens(codes)) == pytest.approx(np.array([1.0, H14]))
        assert bits(Tokens(codes)) == pytest.approx(1 + H14)

    def test_side_information_stays_at_full_length(self) -> None:
        side = np.zeros((2, 3, 2, 2), dtype=np.uint16)
        tokens = Tokens(step_codes([0, 1, 0], [1, 0, 1]).codes, side)
        assert SIDE_BITS == 16
        assert bits(tokens) == pytest.approx(3 * 1.0 + 3 * 2 * 2 * 16)


class TestWholeChunks:
    def test_each_place_in_the_sequence_is_apart(self) -> None:
        tokens = chunk_codes([0, 9, 4], [1, 9, 4], [2, 9, 4], [3, 9, 5])
        assert entropies(tokens) == pytest.approx(np.array([2.0, 0.0, H14]))
        assert bits(tokens) == pytest.approx(2 + H14)

    def test_padding_of_steps_does_not_matter_to_them(self) -> None:
        tokens = chunk_codes([0, 1], [1, 1])
        nothing = np.zeros((2, 8), dtype=bool)
        assert entropy_bits(tokens, nothing) == entropy_bits(tokens, ~nothing) == pytest.approx(1.0)

    def test_side_information_stays_at_full_length(self) -> None:
        tokens = Tokens(chunk_codes([0], [1]).codes, np.zeros((2, 4, 3), dtype=np.uint16))
        assert bits(tokens) == pytest.approx(1 + 4 * 3 * 16)

    def test_a_code_counts_as_often_as_it_is_sent(self) -> None:
        """The second place is sent by half of the chunks, among which its two values are even."""
        tokens = chunk_codes([0, 3], [0, 4], [0, NO], [0, NO])
        assert entropies(tokens) == pytest.approx(np.array([0.0, 0.5]))
        assert bits(tokens) == pytest.approx(0.5)

    def test_whether_a_code_is_sent_costs_nothing(self) -> None:
        assert bits(chunk_codes([0, 3], [0, NO], [0, 3], [0, NO])) == 0.0

    def test_a_place_that_is_never_sent_costs_nothing(self) -> None:
        found = entropies(chunk_codes([0, NO], [1, NO]))
        assert found.tolist() == [1.0, 0.0]


class TestSharedAlphabet:
    def test_all_places_have_one_distribution(self) -> None:
        """0 stands in one place alone and 1 in the other: nothing to tell apart by place, one bit by symbol."""
        codes = chunk_codes([0, 1], [0, 1], [0, 1]).codes
        assert bits(Tokens(codes)) == 0.0
        assert bits(Tokens(codes, shared_alphabet=True)) == pytest.approx(2 * 1.0)

    def test_a_chunk_costs_its_mean_length(self) -> None:
        """Four tokens over two chunks, three of them alike."""
        codes = chunk_codes([5, 5, 2], [5, NO, NO]).codes
        assert bits(Tokens(codes, shared_alphabet=True)) == pytest.approx(2 * H14)

    def test_where_a_token_stands_does_not_matter(self) -> None:
        rows = [[1, 2, 2, 3], [3, 1, NO, NO], [2, NO, NO, NO]]
        moved = [[2, 2, 1, 3], [1, 3, NO, NO], [2, NO, NO, NO]]
        first, second = (bits(Tokens(chunk_codes(*each).codes, shared_alphabet=True)) for each in (rows, moved))
        assert first == pytest.approx(second)


@settings(deadline=None, max_examples=80)
@given(codes=arrays(np.int64, (6, 4), elements=st.integers(-1, 5)).filter(lambda codes: (codes >= 0).any()))
def test_no_place_costs_more_than_a_free_choice_each_time_that_it_is_sent(codes: np.ndarray) -> None:
    found = entropies(Tokens(codes))
    sent = (codes != NO).mean(axis=0)
    assert (found >= 0).all()
    assert (found <= sent * np.log2(6) + 1e-12).all()


@settings(deadline=None, max_examples=80)
@given(codes=arrays(np.int64, (6, 4), elements=st.integers(0, 3)))
def test_one_alphabet_for_all_places_is_never_cheaper_than_one_for_each(codes: np.ndarray) -> None:
    assert bits(Tokens(codes, shared_alphabet=True)) >= bits(Tokens(codes)) - 1e-9
