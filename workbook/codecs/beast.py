"""A tokenizer in the manner of BEAST: a chunk's control points on B-splines, by least squares, uniformly rounded.

BEAST (arXiv 2506.06072): each dimension of a normalised chunk is a spline of degree 4 on clamped, uniform knots; a
gripper that switches is one of degree 0, which holds still between knots. Its control points solve the least squares
with a small ridge; each is rounded to one of 256 levels between its bounds in the train chunks. A token is a control
point, so every sequence decodes and all are as long.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workbook.codecs.protocol import Tokens
from workbook.common.array import Array
from workbook.data.chunks import Normaliser
from workbook.data.layout import ActionLayout

VOCABULARY = 256  # BEAST's
DEGREE = 4  # BEAST's; fewer points than one more allow only a lower one
RIDGE = 1e-6  # keeps the least squares solvable


@dataclass(frozen=True, eq=False)
class BeastCodec:
    """Fitted by `fit`. bases: (A, P, C), what each control point adds to each step of a dimension; low, high: (P, A),
    the bounds of the control points.
    """

    normaliser: Normaliser
    bases: Array
    low: Array
    high: Array

    @property
    def name(self) -> str:
        return f"beast{self.bases.shape[1]}"

    @property
    def vocabulary(self) -> int:
        return VOCABULARY

    @staticmethod
    def fit(train: Array, layout: ActionLayout, normaliser: Normaliser, points: int) -> BeastCodec:
        """On (N, C, A) train chunks in controller units; at most as many points as a chunk has steps."""
        steps = train.shape[1]
        if not 1 <= points <= steps:
            raise ValueError(f"{points} control points do not fit a chunk of {steps} steps")
        switches = set(layout.grippers.tolist())
        degrees = [0 if dimension in switches else min(DEGREE, points - 1) for dimension in range(layout.dim)]
        bases = np.stack([b_splines(points, degree, steps) for degree in degrees])
        empty = BeastCodec(normaliser, bases, np.empty(0), np.empty(0))
        found = empty._points(train)
        return BeastCodec(normaliser, bases, found.min(axis=0), found.max(axis=0))

    def encode(self, chunks: Array) -> Tokens:
        """Codes (N, P * A), point after point."""
        width = np.where(self.high > self.low, self.high - self.low, 1.0)
        levels = np.rint((self._points(chunks) - self.low) / width * (VOCABULARY - 1))
        return Tokens(levels.clip(0, VOCABULARY - 1).astype(np.int64).reshape(len(chunks), -1))

    def decode(self, tokens: Tokens) -> Array:
        levels = tokens.codes.reshape(-1, *self.low.shape) / (VOCABULARY - 1)
        points = self.low + levels * (self.high - self.low)
        return self.normaliser.denormalise(np.einsum("npa,apc->nca", points, self.bases))

    def bits(self, tokens: Tokens) -> float:
        return float(tokens.codes.shape[1] * np.log2(VOCABULARY))

    def _points(self, chunks: Array) -> Array:
        """(N, C, A) -> control points (N, P, A)."""
        grams = np.einsum("apc,aqc->apq", self.bases, self.bases) + RIDGE * np.eye(self.bases.shape[1])
        inverses = np.linalg.solve(grams, self.bases)  # (A, P, C)
        return np.einsum("apc,nca->npa", inverses, self.normaliser.normalise(chunks))


def b_splines(points: int, degree: int, steps: int) -> Array:
    """Values of `points` B-splines on clamped, uniform knots at evenly spaced steps from 0 to 1: (points, steps).

    They add up to 1 at every step. Those of degree 0 share the steps out between them.
    """
    from scipy.interpolate import BSpline  # here, for it takes half a second to import

    inner = np.linspace(0, 1, points - degree + 1)
    knots = np.concatenate([np.zeros(degree), inner, np.ones(degree)])
    places = (np.arange(steps) + 0.5) / steps if degree == 0 else np.linspace(0, 1, steps)
    return BSpline.design_matrix(places, knots, degree).toarray().T
