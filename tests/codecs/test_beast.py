"""The tokenizer in the manner of BEAST: splines by hand, exact where it can be, whole where it is given nonsense."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from workbook.codecs.beast import VOCABULARY, BeastCodec, b_splines
from workbook.codecs.protocol import Tokens
from workbook.data.chunks import Normaliser
from workbook.data.layout import ActionLayout

LAYOUT = ActionLayout.parse("position:3 rotation:3 gripper:1")
NORMALISER = Normaliser(-np.ones(7), np.ones(7))


def made_chunks(count: int, steps: int = 8, seed: int = 0) -> np.ndarray:
    """Smooth motion, and a gripper that switches in the middle of the chunk or not at all."""
    rng = np.random.default_rng(seed)
    time = np.linspace(0, 1, steps)[None, :, None]
    motion = rng.uniform(-0.4, 0.4, (count, 1, 6)) + rng.uniform(-0.4, 0.4, (count, 1, 6)) * time
    gripper = np.where((np.arange(steps) >= steps / 2) & (np.arange(count) % 2 == 0)[:, None], 1.0, -1.0)
    return np.concatenate([motion, gripper[..., None]], axis=2)


TRAIN = made_chunks(200)


class TestSplines:
    def test_by_hand(self) -> None:
        """Degree 0 shares the steps out; degree 1 on two points is a line; degree 2 on three is Bernstein's."""
        assert b_splines(2, 0, 4).tolist() == [[1, 1, 0, 0], [0, 0, 1, 1]]
        assert b_splines(2, 1, 3) == pytest.approx(np.array([[1, 0.5, 0], [0, 0.5, 1]]))
        t = np.linspace(0, 1, 5)
        assert b_splines(3, 2, 5) == pytest.approx(np.stack([(1 - t) ** 2, 2 * t * (1 - t), t**2]))

    @given(steps=st.integers(1, 40), data=st.data())
    def test_they_add_up_to_one_at_every_step(self, steps: int, data: st.DataObject) -> None:
        points = data.draw(st.integers(1, steps))
        degree = data.draw(st.integers(0, points - 1))
        basis = b_splines(points, degree, steps)
        assert basis.shape == (points, steps)
        assert basis.sum(axis=0) == pytest.approx(np.ones(steps))
        assert (basis >= 0).all()


class TestCodec:
    def test_lines_and_switches_between_knots_come_back_to_within_a_level(self) -> None:
        """Two points draw a line; half a level of a point's range is the most that rounding costs."""
        codec = BeastCodec.fit(TRAIN, LAYOUT, NORMALISER, points=2)
        decoded = codec.decode(codec.encode(TRAIN))
        half_level = (codec.high - codec.low).max() / (VOCABULARY - 1) / 2
        assert np.abs(decoded[..., :6] - TRAIN[..., :6]).max() <= half_level + 1e-4
        assert decoded[..., 6] == pytest.approx(TRAIN[..., 6], abs=1e-4)

    @pytest.mark.parametrize("points", [1, 2, 3, 5, 8])
    def test_a_chunk_costs_a_byte_for_each_point(self, points: int) -> None:
        codec = BeastCodec.fit(TRAIN, LAYOUT, NORMALISER, points)
        tokens = codec.encode(TRAIN[:3])
        assert tokens.codes.shape == (3, 7 * points)
        assert codec.bits(tokens) == 8 * 7 * points

    def test_more_points_have_less_error(self) -> None:
        chunks = np.random.default_rng(1).uniform(-1, 1, (100, 8, 7))
        errors = []
        for points in (1, 2, 4, 8):
            codec = BeastCodec.fit(chunks, LAYOUT, NORMALISER, points)
            errors.append(float(((codec.decode(codec.encode(chunks)) - chunks) ** 2).mean()))
        assert errors == sorted(errors, reverse=True)
        assert errors[-1] < 0.01 * errors[0]

    @given(seed=st.integers(0, 10), points=st.integers(1, 8))
    def test_every_sequence_decodes_within_the_bounds_of_the_train_chunks(self, seed: int, points: int) -> None:
        """A spline lies between the least and the greatest of its points."""
        codec = BeastCodec.fit(TRAIN, LAYOUT, NORMALISER, points)
        codes = np.random.default_rng(seed).integers(0, VOCABULARY, (4, 7 * points))
        decoded = codec.decode(Tokens(codes))
        assert decoded.shape == (4, 8, 7)
        assert (decoded >= codec.low.min(axis=0) - 1e-9).all()
        assert (decoded <= codec.high.max(axis=0) + 1e-9).all()

    def test_what_never_moves_stays(self) -> None:
        still = TRAIN.copy()
        still[..., 2] = 0.25
        codec = BeastCodec.fit(still, LAYOUT, NORMALISER, points=4)
        assert codec.decode(codec.encode(still))[..., 2] == pytest.approx(0.25, abs=1e-4)

    @pytest.mark.parametrize("points", [0, 9])
    def test_more_points_than_steps_are_refused(self, points: int) -> None:
        with pytest.raises(ValueError, match="do not fit a chunk of 8 steps"):
            BeastCodec.fit(TRAIN, LAYOUT, NORMALISER, points)
