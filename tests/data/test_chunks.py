"""Episodes cut into chunks and joined again, and the normaliser."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from made_up import Array, random_walk

from workbook.common.errors import InputError
from workbook.data.chunks import Normaliser, cut_chunks, join_chunks

HYPOTHESIS = settings(deadline=None, max_examples=60)


# Chunks


lengths_of_episodes = st.lists(st.integers(1, 40), min_size=1, max_size=5)


def numbered_episodes(lengths: list[int]) -> list[Array]:
    """Episodes of width 2 in which every step is one of a kind: (episode, step)."""
    return [np.stack([np.full(n, i), np.arange(n)], axis=1).astype(float) for i, n in enumerate(lengths)]


def test_chunks_by_hand() -> None:
    chunks = cut_chunks(numbered_episodes([5, 3, 2]), length=3, stride=2)
    assert chunks.actions[..., 1].tolist() == [[0, 1, 2], [2, 3, 4], [0, 1, 2], [0, 1, 1]]
    assert chunks.valid.tolist() == [[True] * 3, [True] * 3, [True] * 3, [True, True, False]]
    assert chunks.episode.tolist() == chunks.actions[:, 0, 0].tolist() == [0, 0, 1, 2]


def test_the_tail_repeats_the_last_action_and_says_so() -> None:
    chunks = cut_chunks(numbered_episodes([10]), length=4, stride=4)
    assert chunks.actions[..., 1].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 9, 9]]
    assert chunks.valid.tolist() == [[True] * 4, [True] * 4, [True, True, False, False]]


@HYPOTHESIS
@given(lengths_of_episodes, st.integers(1, 12), st.data())
def test_no_step_is_skipped_whatever_the_stride(lengths: list[int], length: int, data: st.DataObject) -> None:
    episodes = numbered_episodes(lengths)
    chunks = cut_chunks(episodes, length, data.draw(st.integers(1, length)))
    seen = {tuple(step) for step in chunks.actions[chunks.valid]}
    assert seen == {tuple(step) for step in np.concatenate(episodes)}
    assert (chunks.actions[..., 0] == chunks.episode[:, None]).all()


@HYPOTHESIS
@given(lengths_of_episodes, st.integers(1, 12))
def test_stride_of_a_chunk_takes_every_step_once_and_can_be_joined(lengths: list[int], length: int) -> None:
    episodes = numbered_episodes(lengths)
    chunks = cut_chunks(episodes, length, length)
    np.testing.assert_array_equal(chunks.actions[chunks.valid], np.concatenate(episodes))
    for joined, cut in zip(join_chunks(chunks, chunks.actions), episodes, strict=True):
        np.testing.assert_array_equal(joined, cut)


def test_joining_takes_other_actions_for_the_same_chunks() -> None:
    episodes = numbered_episodes([10, 4])
    chunks = cut_chunks(episodes, 4, 4)
    for joined, cut in zip(join_chunks(chunks, -chunks.actions), episodes, strict=True):
        np.testing.assert_array_equal(joined, -cut)


@pytest.mark.parametrize(("length", "stride"), [(4, 0), (4, -1), (4, 5), (0, 0), (0, 1), (-2, -2)])
def test_a_stride_that_skips_steps_or_stands_still_is_refused(length: int, stride: int) -> None:
    with pytest.raises(InputError, match=f"{length} and stride {stride}"):
        cut_chunks(numbered_episodes([10]), length, stride)


# Normaliser


@HYPOTHESIS
@given(st.lists(st.lists(st.integers(-1000, 1000), min_size=3, max_size=3), min_size=1, max_size=30))
def test_the_normaliser_spans_minus_one_to_one_and_back(thousandths: list[list[int]]) -> None:
    actions = np.array(thousandths) / 1000
    normaliser = Normaliser.fit(actions)
    normalised = normaliser.normalise(actions)
    moves = np.ptp(actions, axis=0) > 0
    np.testing.assert_allclose(normalised.min(axis=0), np.where(moves, -1, 0), rtol=0, atol=1e-12)
    np.testing.assert_allclose(normalised.max(axis=0), np.where(moves, 1, 0), rtol=0, atol=1e-12)
    np.testing.assert_allclose(normaliser.denormalise(normalised), actions, rtol=0, atol=1e-12)


@pytest.mark.parametrize("constant", [0.0, 0.1, -1.0, 1 / 3])
def test_a_constant_dimension_stays_finite_and_decodes_to_its_constant(constant: float) -> None:
    actions = random_walk(np.random.default_rng(0), 40)
    actions[:, 3] = constant
    normaliser = Normaliser.fit(actions)
    normalised = normaliser.normalise(actions)
    assert np.isfinite(normalised).all()
    assert (normaliser.denormalise(normalised)[:, 3] == constant).all()
    assert (normaliser.denormalise(np.zeros(7)))[3] == constant
