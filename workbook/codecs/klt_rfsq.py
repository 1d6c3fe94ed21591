"""RFSQ of whole chunks: residual layers of three levels on companded latents, given where they take away most error.

The position deltas of a chunk, its rotation deltas, and so on, are a stack each: their KLT gives latents, and each
latent a residual stack of layers. Layer k says in which third of the cell of layer k - 1 the latent lies; the thirds
are fitted to train chunks, which is the same as an even grid of three levels on a companded latent, every layer with
a third of the scale of the one before. A residual code is one latent's code in one layer. Residual codes are sent in
the order in which they take away error, so every prefix decodes. A gripper's chunk is one token, the nearest of the
commonest.

`FixedLength` sends the same residual codes of every chunk. `VariableLength` sends few of an easy chunk: each stack
begins with the order that suits the chunk best and the number of residual codes that follow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from workbook.codecs.klt import Transform
from workbook.codecs.lloyd import nested_thresholds
from workbook.codecs.protocol import NOT_SENT, Tokens
from workbook.common.array import Array
from workbook.data.chunks import Normaliser
from workbook.data.layout import ActionLayout

BRANCHES = 3  # levels of a layer
DEPTH = 6  # layers of a latent at most: 729 cells
MOST_LATENTS = 64  # of a stack
MOST_CODES, OF_STEPS = 144, 8  # residual codes of a stack of chunks of so many steps; longer ones have more
ORDERS = 4  # in which a stack can send its residual codes

Codes = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Stack:
    """The latents of one group of dimensions.

    dimensions: of the action; thresholds: (H, 3**DEPTH - 1), of the finest cells; centroids: for each number of layers
    j the values of its cells, (H, 3**j); orders: (1 + ORDERS, M) latents in the order of their M residual codes, the
    first for chunks in general; gains: (M,) what each residual code of the first takes away from a train chunk,
    descending.
    """

    dimensions: Codes
    transform: Transform
    thresholds: Array
    centroids: tuple[Array, ...]
    orders: Codes
    gains: Array

    @staticmethod
    def fit(vectors: Array, dimensions: Codes) -> Stack:
        """vectors: (N, D) normalised actions of these dimensions, a chunk in a row."""
        transform = Transform.fit(vectors, MOST_LATENTS)
        latents = transform.forward(vectors)
        thresholds = np.stack([nested_thresholds(np.sort(column), BRANCHES, DEPTH) for column in latents.T])
        centroids = tuple(_centroids(latents, thresholds))
        unordered = Stack(dimensions, transform, thresholds, centroids, np.zeros((1, 0), dtype=np.int64), np.zeros(0))
        errors = unordered.errors(latents)
        orders = _fit_orders(errors, most_codes(vectors.shape[1] // len(dimensions)))
        # A residual code can take away more than the one before it; as it has to follow it, it stands no higher.
        gains = np.minimum.accumulate(-np.diff(after_each_code(errors, orders[0]).mean(axis=1)))
        return replace(unordered, orders=orders, gains=gains)

    @property
    def width(self) -> int:
        """H, the number of latents."""
        return len(self.thresholds)

    def latents(self, normalised: Array) -> Array:
        """(N, C, A) normalised actions -> (N, H)."""
        return self.transform.forward(normalised[:, :, self.dimensions].reshape(len(normalised), -1))

    def finest(self, latents: Array) -> Codes:
        """(N, H) latents -> the finest cells that they lie in."""
        return _cells(latents, self.thresholds)

    def errors(self, latents: Array) -> Array:
        """Squared error of each latent after each number of layers: (N, H) -> (DEPTH + 1, N, H)."""
        finest = self.finest(latents)
        return np.stack([(self._values(finest // BRANCHES ** (DEPTH - j), j) - latents) ** 2 for j in range(DEPTH + 1)])

    def _values(self, cells: Codes, layers: int) -> Array:
        """(N, H) cells of so many layers -> their centroids."""
        return np.take_along_axis(self.centroids[layers], cells.T, axis=1).T

    def residual_code(self, finest: Codes, latent: int, layer: int) -> Codes:
        return finest[:, latent] // BRANCHES ** (DEPTH - 1 - layer) % BRANCHES

    def values(self, cells: Codes, layers: Codes) -> Array:
        """Centroids of cells (N, H), of as many layers as stand in layers (N, H)."""
        latents = np.zeros(cells.shape)
        for j in range(DEPTH + 1):
            here = layers == j
            latents[here] = self.centroids[j][np.nonzero(here)[1], cells[here]]
        return latents

    def write(self, actions: Array, latents: Array) -> None:
        """Put decoded (N, H) latents into normalised actions (N, C, A)."""
        shape = (*actions.shape[:2], len(self.dimensions))
        actions[:, :, self.dimensions] = self.transform.inverse(latents).reshape(shape)

    def layers_of(self, order: int) -> Iterator[tuple[int, int]]:
        """(latent, layer) of each residual code of an order."""
        seen = np.zeros(self.transform.axes.shape[1], dtype=np.int64)
        for latent in self.orders[order]:
            yield int(latent), int(seen[latent])
            seen[latent] += 1


def _cells(latents: Array, thresholds: Array) -> Codes:
    """(N, H) latents and (H, n) thresholds -> (N, H) cells."""
    return np.stack(
        [np.searchsorted(row, column, side="right") for row, column in zip(thresholds, latents.T, strict=True)], axis=1
    )


def _centroids(latents: Array, thresholds: Array) -> Iterator[Array]:
    """Means of the train latents of each cell, layer by layer; a cell without any takes the value of the one around."""
    around = latents.mean(axis=0)[:, None]
    yield around
    finest = _cells(latents, thresholds).T
    for layers in range(1, DEPTH + 1):
        cells, count = finest // BRANCHES ** (DEPTH - layers), BRANCHES**layers
        around = np.repeat(around, BRANCHES, axis=1)
        for row, (column, cell) in enumerate(zip(latents.T, cells, strict=True)):
            held = np.bincount(cell, minlength=count)
            means = np.bincount(cell, column, minlength=count) / np.maximum(held, 1)
            around[row] = np.where(held > 0, means, around[row])
        yield around.copy()


def most_codes(steps: int) -> int:
    """Residual codes of a stack of chunks of so many steps: as many a step as there are in 8, or all there can be."""
    return min(MOST_CODES * max(steps, OF_STEPS) // OF_STEPS, MOST_LATENTS * DEPTH)


def _greedy_order(errors: Array, count: int) -> Codes:
    """Mean errors (DEPTH + 1, H) -> at most `count` latents, in the order in which another layer takes away most."""
    gains = errors[:-1] - errors[1:]
    layer = np.zeros(errors.shape[1], dtype=np.int64)
    order = []
    for _ in range(min(count, gains.size)):
        next_gain = np.where(layer < DEPTH, gains[np.minimum(layer, DEPTH - 1), np.arange(len(layer))], -np.inf)
        order.append(int(np.argmax(next_gain)))
        layer[order[-1]] += 1
    return np.array(order, dtype=np.int64)


def after_each_code(errors: Array, order: Codes) -> Array:
    """Squared error of every chunk after 0, 1, ..., M residual codes: (DEPTH + 1, N, H), order (M,) -> (M + 1, N)."""
    layer = np.zeros(errors.shape[2], dtype=np.int64)
    total = errors[0].sum(axis=1)
    curve = [total]
    for latent in order:
        total = total + errors[layer[latent] + 1, :, latent] - errors[layer[latent], :, latent]
        layer[latent] += 1
        curve.append(total)
    return np.maximum(np.stack(curve), 0)  # sums of differences can end a rounding error below 0


def _fit_orders(errors: Array, most: int) -> Codes:
    """The general order, and ORDERS - 1 more for chunks that are unlike in where their energy lies.

    Chunks are grouped by the log energy of their latents, then orders and groups are fitted to each other in turn.
    """
    general = _greedy_order(errors.mean(axis=1), most)
    energy = np.log(errors[0] + 1e-4 * errors[0].mean() + 1e-12)
    group = _cluster(energy, ORDERS)
    orders = [general] * ORDERS
    for _ in range(4):
        orders = [_order_of_group(errors, group == number, general) for number in range(ORDERS)]
        floor = 1e-7 * errors.shape[2]  # below it an error is as good as none
        score = np.stack([np.log(after_each_code(errors, order) + floor).mean(axis=0) for order in orders])
        group = score.argmin(axis=0)
    return np.stack([general, *orders])


def _order_of_group(errors: Array, members: NDArray[np.bool_], general: Codes) -> Codes:
    return _greedy_order(errors[:, members].mean(axis=1), len(general)) if members.sum() > ORDERS else general


def _cluster(points: Array, count: int) -> Codes:
    """k-means (N, H) -> group of each point; starts at points spread over the order of their sums, so it is the same
    each time.
    """
    ranked = np.argsort(points.sum(axis=1), kind="stable")
    centres = points[ranked[(np.arange(count) * 2 + 1) * len(points) // (2 * count)]]
    group = np.zeros(len(points), dtype=np.int64)
    for _ in range(20):
        group = ((points**2).sum(axis=1)[:, None] - 2 * points @ centres.T + (centres**2).sum(axis=1)).argmin(axis=1)
        centres = np.stack([
            points[group == number].mean(axis=0) if (group == number).any() else centres[number]
            for number in range(count)
        ])  # fmt: skip
    return group


GRIPPER_CODES_A_STEP = 2  # open or closed throughout, and a switch in either direction at every step but the first
FEWEST_GRIPPER_CODES, MOST_GRIPPER_CODES = 16, 1024
GRIPPER_PART = 512  # chunks encoded at once, which keeps memory small
FIT_CHUNKS = 20_000  # more tell nothing new
MULTIPLIER_CHUNKS = 4_000  # of which the multiplier for a rate is found
# After how many residual codes a stack may end: after every one at first, where they weigh most.
ENDS = np.array([*range(5), 6, 8, 10, 12, 15, 18, 21, 24, *range(28, MOST_LATENTS * DEPTH + 1, 4)])


@dataclass(frozen=True, eq=False)
class GripperCodebook:
    """dimension: of the action; trajectories: (M, C) normalised, of which a chunk takes the nearest."""

    dimension: int
    trajectories: Array

    @staticmethod
    def fit(normalised: Array, dimension: int) -> GripperCodebook:
        """The commonest trajectories of (N, C, A) train chunks, moved to the mean of those nearest to them.

        Of chunks of more than 8 steps that hold more than one switch: all that switch twice at most.
        """
        column = normalised[:, :, dimension]
        most = max(FEWEST_GRIPPER_CODES, GRIPPER_CODES_A_STEP * column.shape[1])
        distinct, counts = np.unique(column, axis=0, return_counts=True)
        if len(distinct) > most and column.shape[1] > OF_STEPS and len(np.unique(column)) == 2:
            twice = _switching_twice_at_most(float(column.min()), float(column.max()), column.shape[1])
            if len(twice) <= MOST_GRIPPER_CODES:
                return GripperCodebook(dimension, twice)
        book = GripperCodebook(dimension, distinct[np.argsort(-counts, kind="stable")[:most]])
        for _ in range(10 if len(distinct) > most else 0):
            nearest = book.encode(normalised)
            moved = [column[nearest == code].mean(axis=0) for code in np.unique(nearest)]
            book = GripperCodebook(dimension, np.stack(moved))
        return book

    def encode(self, normalised: Array) -> Codes:
        parts = np.array_split(normalised[:, None, :, self.dimension], max(1, len(normalised) // GRIPPER_PART))
        return np.concatenate([((part - self.trajectories) ** 2).sum(axis=-1).argmin(axis=1) for part in parts])


def _switching_twice_at_most(low: float, high: float, steps: int) -> Array:
    """Every trajectory of two values that switches twice at most, of which a longer chunk can hold any: (M, steps)."""
    step = np.arange(steps)
    within = np.array([(start <= step) & (step < end) for end in step + 1 for start in range(end)])
    return np.unique(np.where(np.concatenate([within, ~within]), high, low), axis=0)


@dataclass(frozen=True, eq=False)
class KltRFSQ:
    """What both codecs share, fitted once: stacks, gripper codebooks, normaliser; shape is (C, A)."""

    normaliser: Normaliser
    shape: tuple[int, int]
    stacks: tuple[Stack, ...]
    grippers: tuple[GripperCodebook, ...]

    @staticmethod
    def fit(train: Array, layout: ActionLayout, normaliser: Normaliser) -> KltRFSQ:
        """Fit on (N, C, A) train chunks in controller units."""
        evenly = np.linspace(0, len(train) - 1, min(len(train), FIT_CHUNKS)).astype(int)
        normalised = normaliser.normalise(train[evenly])
        everything = np.arange(layout.dim)
        groups = [everything[part] for part in layout.of_kind("position", "rotation", "joint", "opening")]
        return KltRFSQ(
            normaliser,
            train.shape[1:],
            tuple(Stack.fit(normalised[:, :, group].reshape(len(normalised), -1), group) for group in groups),
            tuple(GripperCodebook.fit(normalised, int(one)) for one in layout.indices("gripper")),
        )

    @property
    def vocabulary(self) -> int:
        return max([BRANCHES, *self.gripper_levels])

    @property
    def gripper_levels(self) -> list[int]:
        return [len(book.trajectories) for book in self.grippers]

    @property
    def gripper_bits(self) -> float:
        return float(np.log2(self.gripper_levels).sum())

    def gripper_codes(self, normalised: Array) -> Codes:
        """(N, C, A) -> (N, grippers)."""
        found = [book.encode(normalised) for book in self.grippers]
        return np.stack(found, axis=1) if found else np.zeros((len(normalised), 0), dtype=np.int64)

    def trajectories(self, gripper_codes: Codes) -> list[Array]:
        """(N, grippers) -> (N, C) for each gripper."""
        return [book.trajectories[codes] for book, codes in zip(self.grippers, gripper_codes.T, strict=True)]

    def actions(self, trajectories: Sequence[Array], latents: Sequence[Array]) -> Array:
        """Decoded (N, C, A) actions in controller units from each gripper's (N, C) and each stack's latents (N, H)."""
        normalised = np.zeros((len([*trajectories, *latents][0]), *self.shape))
        for book, trajectory in zip(self.grippers, trajectories, strict=True):
            normalised[:, :, book.dimension] = trajectory
        for stack, values in zip(self.stacks, latents, strict=True):
            stack.write(normalised, values)
        return self.normaliser.denormalise(normalised)

    def choice_errors(self, stack: Stack, latents: Array) -> Array:
        """What each (order, end) of a stack leaves of the MSE of a chunk: (N, H) latents -> (choices, N)."""
        errors = stack.errors(latents)
        curves = [after_each_code(errors, order)[ends(stack)] for order in stack.orders[1:]]
        return np.concatenate(curves) / np.prod(self.shape)

    @cached_property
    def residual_codes(self) -> tuple[tuple[int, int, int], ...]:
        """(stack, latent, layer) of the residual codes of all stacks, in the order of what they take away."""
        merged: list[tuple[float, tuple[int, int, int]]] = []
        for number, stack in enumerate(self.stacks):
            for gain, (latent, layer) in zip(stack.gains, stack.layers_of(0), strict=True):
                merged.append((float(gain), (number, latent, layer)))
        return tuple(code for _, code in sorted(merged, key=lambda entry: -entry[0]))


@dataclass(frozen=True, eq=False)
class FixedLength:
    """Every chunk sends the gripper codes and the first `count` residual codes: codes (N, grippers + count)."""

    model: KltRFSQ
    count: int

    @property
    def name(self) -> str:
        return f"KLT-RFSQ, {len(self.residual_codes)} residual codes"

    @property
    def residual_codes(self) -> tuple[tuple[int, int, int], ...]:
        """(stack, latent, layer) of what is sent; fewer than `count` where the latents have no more."""
        return self.model.residual_codes[: self.count]

    @property
    def vocabulary(self) -> int:
        return self.model.vocabulary

    @property
    def levels(self) -> Codes:
        return np.array([*self.model.gripper_levels, *[BRANCHES] * len(self.residual_codes)], dtype=np.int64)

    def encode(self, chunks: Array) -> Tokens:
        normalised = self.model.normaliser.normalise(chunks)
        finest = [stack.finest(stack.latents(normalised)) for stack in self.model.stacks]
        codes = [
            self.model.stacks[stack].residual_code(finest[stack], latent, layer)[:, None]
            for stack, latent, layer in self.residual_codes
        ]
        return Tokens(np.concatenate([self.model.gripper_codes(normalised), *codes], axis=1))

    def decode(self, tokens: Tokens) -> Array:
        """A residual code that is NOT_SENT, and with it every further one of its latent, leaves the latent as it is."""
        grippers = tokens.codes[:, : len(self.model.grippers)]
        cells = [np.zeros((len(tokens.codes), stack.width), dtype=np.int64) for stack in self.model.stacks]
        layers = [np.zeros_like(each) for each in cells]
        codes = tokens.codes[:, len(self.model.grippers) :].T
        for (stack, latent, layer), code in zip(self.residual_codes, codes, strict=True):
            sent = (code != NOT_SENT) & (layers[stack][:, latent] == layer)
            cells[stack][sent, latent] = cells[stack][sent, latent] * BRANCHES + code[sent]
            layers[stack][sent, latent] += 1
        latents = [s.values(c, n) for s, c, n in zip(self.model.stacks, cells, layers, strict=True)]
        return self.model.actions(self.model.trajectories(grippers), latents)

    def bits(self, tokens: Tokens) -> float:
        return self.model.gripper_bits + len(self.residual_codes) * float(np.log2(BRANCHES))


@dataclass(frozen=True, eq=False)
class VariableLength:
    """Each stack sends an order, an end and so many residual codes.

    multiplier: the MSE that one more bit must take away; rate: mean bits a chunk of the train chunks.
    codes: (N, grippers + stacks * (2 + `most_codes`)); what is not sent is NOT_SENT.
    """

    model: KltRFSQ
    multiplier: float
    rate: float

    @property
    def name(self) -> str:
        return f"KLT-RFSQ, about {self.rate:.0f} bits"

    @property
    def vocabulary(self) -> int:
        return max(self.model.vocabulary, int((self._most >= ENDS).sum()))

    @property
    def _most(self) -> int:
        return most_codes(self.model.shape[0])

    @property
    def levels(self) -> Codes:
        stacks = [[ORDERS, len(ends(stack)), *[BRANCHES] * self._most] for stack in self.model.stacks]
        return np.array([*self.model.gripper_levels, *chain.from_iterable(stacks)], dtype=np.int64)

    def encode(self, chunks: Array) -> Tokens:
        normalised = self.model.normaliser.normalise(chunks)
        parts = [self._encode_stack(stack, stack.latents(normalised)) for stack in self.model.stacks]
        return Tokens(np.concatenate([self.model.gripper_codes(normalised), *parts], axis=1))

    def _encode_stack(self, stack: Stack, latents: Array) -> Codes:
        costs = self.model.choice_errors(stack, latents) + self.multiplier * choice_bits(stack)[:, None]
        choice = costs.argmin(axis=0)
        order, end = np.divmod(choice, len(ends(stack)))
        finest = stack.finest(latents)
        codes = np.full((len(latents), 2 + self._most), NOT_SENT, dtype=np.int64)
        codes[:, 0], codes[:, 1] = order, end
        for number in range(ORDERS):
            for position, (latent, layer) in enumerate(stack.layers_of(1 + number)):
                sending = (order == number) & (ends(stack)[end] > position)
                codes[sending, 2 + position] = stack.residual_code(finest[sending], latent, layer)
        return codes

    def decode(self, tokens: Tokens) -> Array:
        grippers, *parts = np.split(
            tokens.codes, len(self.model.grippers) + np.arange(len(self.model.stacks)) * (2 + self._most), axis=1
        )
        latents = [self._decode_stack(stack, part) for stack, part in zip(self.model.stacks, parts, strict=True)]
        return self.model.actions(self.model.trajectories(grippers), latents)

    def _decode_stack(self, stack: Stack, codes: Codes) -> Array:
        order, end, residual_codes = codes[:, 0], codes[:, 1], codes[:, 2:]
        cells = np.zeros((len(codes), stack.width), dtype=np.int64)
        layers = np.zeros_like(cells)
        for number in range(ORDERS):
            for position, (latent, _) in enumerate(stack.layers_of(1 + number)):
                sent = (order == number) & (ends(stack)[end] > position)
                cells[sent, latent] = cells[sent, latent] * BRANCHES + residual_codes[sent, position]
                layers[sent, latent] += 1
        return stack.values(cells, layers)

    def bits(self, tokens: Tokens) -> float:
        header = sum(np.log2(ORDERS) + np.log2(len(ends(stack))) for stack in self.model.stacks)
        others = len(self.model.grippers) + 2 * len(self.model.stacks)
        count = float(tokens.lengths.mean()) - others
        return self.model.gripper_bits + float(header) + count * float(np.log2(BRANCHES))


def ends(stack: Stack) -> Codes:
    """After how many residual codes this stack may end."""
    return ENDS[stack.orders.shape[1] >= ENDS]


def choice_bits(stack: Stack) -> Array:
    """Bits of each (order, end) that a stack can choose, the ends of an order one after the other."""
    header = np.log2(ORDERS) + np.log2(len(ends(stack)))
    return np.tile(header + ends(stack) * np.log2(BRANCHES), ORDERS)


def codes_at(model: KltRFSQ, rate: float) -> int:
    """How many residual codes of a fixed length fit into a rate in bits."""
    return min(max(0, int((rate - model.gripper_bits) / np.log2(BRANCHES))), len(model.residual_codes))


def fit_variable_length(model: KltRFSQ, train: Array, rates: Sequence[float]) -> list[VariableLength]:
    """One codec for each mean rate in bits, at the multiplier that gives it on (N, C, A) train chunks."""
    evenly = np.linspace(0, len(train) - 1, min(len(train), MULTIPLIER_CHUNKS)).astype(int)
    normalised = model.normaliser.normalise(train[evenly])
    errors = [model.choice_errors(stack, stack.latents(normalised)) for stack in model.stacks]
    multipliers = np.geomspace(1e-2, 1e-9, 80)
    spent = np.full(len(multipliers), model.gripper_bits)
    for stack, each in zip(model.stacks, errors, strict=True):
        bits = choice_bits(stack)
        spent += [bits[(each + multiplier * bits[:, None]).argmin(axis=0)].mean() for multiplier in multipliers]
    chosen = np.exp(np.interp(rates, spent, np.log(multipliers)))
    return [VariableLength(model, float(multiplier), rate) for multiplier, rate in zip(chosen, rates, strict=True)]
