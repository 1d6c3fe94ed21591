"""RFSQ of whole chunks: tokens alone decode, prefixes too, and what is paid is what is sent."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from workbook.codecs.klt_rfsq import (
    BRANCHES,
    DEPTH,
    ENDS,
    FEWEST_GRIPPER_CODES,
    MOST_CODES,
    MOST_LATENTS,
    ORDERS,
    FixedLength,
    GripperCodebook,
    KltRFSQ,
    VariableLength,
    choice_bits,
    codes_at,
    ends,
    fit_variable_length,
    most_codes,
)
from workbook.codecs.protocol import NOT_SENT, Codec, Tokens
from workbook.common.array import Array
from workbook.data.chunks import Normaliser, cut_chunks
from workbook.data.episodes import Episode
from workbook.data.layout import ActionLayout

C = 4
COUNT = 30  # residual codes of the codec of fixed length
RATES = (20.0, 35.0, 60.0, 90.0)
SPEC = "position:2 rotation:1 gripper:1"
TWO_ARMS = "joint:3 gripper:1 joint:3 gripper:1"
LOG3 = float(np.log2(3))


def motion(rng: np.random.Generator, count: int, size: int) -> Array:
    """Walks at random, every other one a tenth of the size of the rest."""
    walks = np.cumsum(rng.normal(0, 0.2, (count, C, size)), axis=1)
    return walks * np.where(np.arange(count) % 2, 0.1, 1.0)[:, None, None]


def switching(rng: np.random.Generator, count: int) -> Array:
    """A gripper that closes or opens once at most: 8 distinct trajectories of 4 steps."""
    return np.where(np.arange(C) < rng.integers(0, C + 1, (count, 1)), 1.0, -1.0) * rng.choice([-1, 1], (count, 1))


def made_chunks(seed: int, spec: str = SPEC, count: int = 120) -> Array:
    rng = np.random.default_rng(seed)
    parts = [
        np.stack([switching(rng, count) for _ in range(group.size)], axis=2)
        if group.kind == "gripper"
        else motion(rng, count, group.size)
        for group in ActionLayout.parse(spec).groups
    ]
    return np.concatenate(parts, axis=2)


def fit_model(train: Array, spec: str) -> KltRFSQ:
    return KltRFSQ.fit(train, ActionLayout.parse(spec), Normaliser.fit(train.reshape(-1, train.shape[-1])))


def error(codec: Codec, chunks: Array) -> float:
    return float(np.mean((codec.decode(codec.encode(chunks)) - chunks) ** 2))


def random_fixed(codec: FixedLength, seed: int, count: int) -> Tokens:
    rng = np.random.default_rng(seed)
    grippers = [rng.integers(0, len(book.trajectories), (count, 1)) for book in codec.model.grippers]
    length = min(codec.count, len(codec.model.residual_codes))
    return Tokens(np.concatenate([*grippers, rng.integers(0, BRANCHES, (count, length))], axis=1))


def random_variable_length(codec: VariableLength, seed: int, count: int) -> Tokens:
    """Any order, any end and any residual codes, of as many as that end says."""
    rng = np.random.default_rng(seed)
    parts = [rng.integers(0, len(book.trajectories), (count, 1)) for book in codec.model.grippers]
    for stack in codec.model.stacks:
        end = rng.integers(0, len(ends(stack)), count)
        codes = rng.integers(0, BRANCHES, (count, MOST_CODES))
        codes[np.arange(MOST_CODES) >= ends(stack)[end][:, None]] = NOT_SENT
        parts += [rng.integers(0, ORDERS, (count, 1)), end[:, None], codes]
    return Tokens(np.concatenate(parts, axis=1))


def assert_within_train(model: KltRFSQ, decoded: Array, train: Array) -> None:
    """Every latent, and every gripper, lies between the least and the greatest of the train chunks."""
    found, seen = model.normaliser.normalise(decoded), model.normaliser.normalise(train)
    assert np.isfinite(decoded).all()
    for stack in model.stacks:
        latents, bounds = stack.latents(found), stack.latents(seen)
        assert (latents >= bounds.min(axis=0) - 1e-9).all()
        assert (latents <= bounds.max(axis=0) + 1e-9).all()
    for book in model.grippers:
        column = found[:, :, book.dimension]
        assert column.min() >= seen[:, :, book.dimension].min() - 1e-9
        assert column.max() <= seen[:, :, book.dimension].max() + 1e-9


@pytest.fixture(scope="module")
def train() -> Array:
    return made_chunks(0)


@pytest.fixture(scope="module")
def model(train: Array) -> KltRFSQ:
    return fit_model(train, SPEC)


@pytest.fixture(scope="module")
def fixed(model: KltRFSQ) -> FixedLength:
    return FixedLength(model, COUNT)


@pytest.fixture(scope="module")
def variable(model: KltRFSQ, train: Array) -> list[VariableLength]:
    return fit_variable_length(model, train, RATES)


class TestStack:
    def test_another_layer_never_adds_to_the_train_error_of_a_latent(self, model: KltRFSQ, train: Array) -> None:
        for stack in model.stacks:
            errors = stack.errors(stack.latents(model.normaliser.normalise(train))).mean(axis=1)
            assert (np.diff(errors, axis=0) <= 1e-12).all()
            assert (errors[DEPTH] < errors[0] / 100).all()

    def test_a_centroid_is_the_mean_of_the_train_latents_of_its_cell(self, model: KltRFSQ, train: Array) -> None:
        stack = model.stacks[0]
        latents = stack.latents(model.normaliser.normalise(train))
        for layers in range(DEPTH + 1):
            cells = stack.finest(latents)[:, 0] // BRANCHES ** (DEPTH - layers)
            for cell in np.unique(cells):
                assert stack.centroids[layers][0, cell] == pytest.approx(latents[cells == cell, 0].mean(), abs=1e-12)

    def test_a_cell_without_train_latents_takes_the_value_of_the_one_around(self) -> None:
        model = fit_model(made_chunks(8, count=5), SPEC)
        stack = model.stacks[0]
        finest = stack.finest(stack.latents(model.normaliser.normalise(made_chunks(8, count=5))))
        for layers in range(1, DEPTH + 1):
            empty = np.setdiff1d(np.arange(BRANCHES**layers), finest[:, 0] // BRANCHES ** (DEPTH - layers))
            around = stack.centroids[layers - 1][0, empty // BRANCHES]
            assert len(empty) >= BRANCHES**layers - 5
            assert np.array_equal(stack.centroids[layers][0, empty], around)

    def test_digits_spell_the_finest_cell(self, model: KltRFSQ, train: Array) -> None:
        stack = model.stacks[0]
        finest = stack.finest(stack.latents(model.normaliser.normalise(train)))
        spelled = sum(stack.residual_code(finest, 1, layer) * BRANCHES ** (DEPTH - 1 - layer) for layer in range(DEPTH))
        assert np.array_equal(spelled, finest[:, 1])

    def test_an_order_takes_the_layers_of_a_latent_in_turn(self, model: KltRFSQ) -> None:
        for stack in model.stacks:
            for order in range(1 + ORDERS):
                codes = list(stack.layers_of(order))
                assert len(set(codes)) == len(codes)
                for latent in range(stack.width):
                    layers = [layer for number, layer in codes if number == latent]
                    assert layers == list(range(len(layers)))

    def test_a_stack_has_a_residual_code_for_each_latent_and_layer_as_far_as_they_may_be(self) -> None:
        wide = fit_model(made_chunks(2, "joint:9"), "joint:9")
        assert wide.stacks[0].width == 9 * C
        assert wide.stacks[0].orders.shape == (1 + ORDERS, MOST_CODES)
        narrow = fit_model(made_chunks(2, "joint:2"), "joint:2")
        assert narrow.stacks[0].orders.shape == (1 + ORDERS, 2 * C * DEPTH)


class TestLongChunks:
    """Of 32 steps: rates of as many bits a step are met, and a gripper switches on its step."""

    STEPS, LAYOUT = 32, "position:3 rotation:3 gripper:1"

    def chunks(self, seed: int, count: int = 300) -> Array:
        rng = np.random.default_rng(seed)
        walks = np.cumsum(rng.normal(0, 0.2, (count, self.STEPS, 6)), axis=1)
        switch = rng.integers(0, self.STEPS, (count, 1)) if seed else np.arange(count)[:, None] % self.STEPS
        direction = np.where(np.arange(count) // self.STEPS % 2, 1.0, -1.0)[:, None]
        gripper = np.where(np.arange(self.STEPS) < switch, direction, -direction)
        return np.concatenate([walks, gripper[..., None]], axis=2)

    def test_a_stack_has_as_many_residual_codes_a_step_and_all_there_are_at_most(self) -> None:
        assert [most_codes(steps) for steps in (1, 4, 8, 12, 16)] == [144, 144, 144, 216, 288]
        assert most_codes(32) == most_codes(64) == MOST_LATENTS * DEPTH

    def test_the_rates_of_eight_steps_are_met_four_times_over(self) -> None:
        train = self.chunks(0)
        model = fit_model(train, self.LAYOUT)
        codecs = fit_variable_length(model, train, [4 * 80, 4 * 140])
        spent = [codec.bits(codec.encode(train)) for codec in codecs]
        assert spent == pytest.approx([320, 560], rel=0.05)
        assert error(codecs[1], train) < error(codecs[0], train)
        counts = [codes_at(model, rate) for rate in (320, 560)]
        assert model.gripper_bits + counts[1] * LOG3 == pytest.approx(560, abs=LOG3)
        assert error(FixedLength(model, counts[1]), train) < error(FixedLength(model, counts[0]), train)

    def test_a_gripper_switches_on_its_step_wherever_that_is(self) -> None:
        model = fit_model(self.chunks(0), self.LAYOUT)
        other = self.chunks(1)
        for codec in (FixedLength(model, 40), *fit_variable_length(model, other, [100])):
            found = codec.decode(codec.encode(other))
            assert (np.sign(found[:, :, 6]) == other[:, :, 6]).all()

    @pytest.mark.parametrize("steps", [12, 32])
    def test_where_train_chunks_switch_twice_any_two_switches_are_held(self, steps: int) -> None:
        rng = np.random.default_rng(0)

        def switching_twice(count: int) -> Array:
            ends = np.sort(rng.integers(0, steps + 1, (count, 2)), axis=1)
            within = (ends[:, :1] <= np.arange(steps)) & (np.arange(steps) < ends[:, 1:])
            gripper = np.where(within, 1.0, -1.0) * rng.choice([-1, 1], (count, 1))
            return np.stack([*rng.normal(0, 0.3, (6, count, steps)), gripper], axis=2)

        train, other = switching_twice(300), switching_twice(300)
        model = fit_model(train, self.LAYOUT)
        assert model.gripper_levels == [2 * (1 + (steps - 1) + (steps - 1) * (steps - 2) // 2)]
        codec = FixedLength(model, 10)
        assert (codec.decode(codec.encode(other))[:, :, 6] == other[:, :, 6]).all()


class TestFixedLength:
    def test_tokens_stay_in_range(self, fixed: FixedLength, model: KltRFSQ) -> None:
        codes = fixed.encode(made_chunks(1) * 4).codes
        assert codes.shape == (120, 1 + COUNT)
        assert codes.min() >= 0
        assert codes[:, 0].max() < len(model.grippers[0].trajectories)
        assert codes[:, 1:].max() < BRANCHES
        assert fixed.vocabulary == len(model.grippers[0].trajectories)

    def test_bits_by_hand(self, fixed: FixedLength, model: KltRFSQ) -> None:
        assert len(model.grippers[0].trajectories) == 8
        assert fixed.bits(fixed.encode(made_chunks(1))) == pytest.approx(3 + COUNT * LOG3)

    @settings(deadline=None, max_examples=50)
    @given(seed=st.integers(0, 2**32), count=st.integers(0, 72))
    def test_any_residual_codes_decode_to_something_like_the_train_chunks(
        self, model: KltRFSQ, train: Array, seed: int, count: int
    ) -> None:
        codec = FixedLength(model, count)
        assert_within_train(model, codec.decode(random_fixed(codec, seed, 20)), train)

    def test_every_prefix_decodes_to_what_a_shorter_codec_makes_of_it(self, fixed: FixedLength, model: KltRFSQ) -> None:
        tokens = fixed.encode(made_chunks(1))
        for count in range(COUNT + 1):
            cut = tokens.codes.copy()
            cut[:, 1 + count :] = NOT_SENT
            short = FixedLength(model, count)
            prefix = Tokens(tokens.codes[:, : 1 + count])
            assert np.array_equal(short.encode(made_chunks(1)).codes, prefix.codes)
            assert np.array_equal(fixed.decode(Tokens(cut)), short.decode(prefix))

    def test_more_residual_codes_never_have_more_train_error(self, model: KltRFSQ, train: Array) -> None:
        normalised = replace(model, normaliser=Normaliser(-np.ones(4), np.ones(4)))
        chunks = model.normaliser.normalise(train)
        errors = [error(FixedLength(normalised, count), chunks) for count in range(72)]
        assert all(finer <= coarser + 1e-12 for coarser, finer in pairwise(errors))
        assert errors[-1] < errors[0] / 100

    def test_so_it_is_on_chunks_that_it_has_not_seen(self, model: KltRFSQ) -> None:
        errors = [error(FixedLength(model, count), made_chunks(9, count=400)) for count in (0, 5, 10, 20, 40)]
        assert errors == sorted(errors, reverse=True)

    def test_no_residual_codes_bring_the_mean_of_the_train_chunks(self, model: KltRFSQ, train: Array) -> None:
        decoded = FixedLength(model, 0).decode(Tokens(np.zeros((1, 1), dtype=np.int64)))
        assert decoded[0, :, :3] == pytest.approx(train[:, :, :3].mean(axis=0), abs=1e-9)

    def test_a_residual_code_not_sent_voids_the_further_ones_of_its_latent_alone(
        self, fixed: FixedLength, model: KltRFSQ
    ) -> None:
        tokens = fixed.encode(made_chunks(1))
        stack, latent, _ = model.residual_codes[0]
        later = [1 + at for at, code in enumerate(model.residual_codes[:COUNT]) if code[:2] == (stack, latent)][1:]
        others = [1 + at for at, code in enumerate(model.residual_codes[:COUNT]) if code[:2] != (stack, latent)]
        assert later
        without, changed, fewer = (tokens.codes.copy() for _ in range(3))
        without[:, 1] = NOT_SENT
        changed[:, 1] = NOT_SENT
        changed[:, later] = (changed[:, later] + 1) % BRANCHES
        fewer[:, 1] = NOT_SENT
        fewer[:, others] = NOT_SENT
        assert np.array_equal(fixed.decode(Tokens(without)), fixed.decode(Tokens(changed)))
        assert not np.array_equal(fixed.decode(Tokens(without)), fixed.decode(tokens))
        assert not np.array_equal(fixed.decode(Tokens(without)), fixed.decode(Tokens(fewer)))

    def test_decodes_each_latent_to_the_centroid_of_its_cell(self, fixed: FixedLength, model: KltRFSQ) -> None:
        chunks = model.normaliser.normalise(made_chunks(1))
        decoded = model.normaliser.normalise(fixed.decode(fixed.encode(made_chunks(1))))
        for number, stack in enumerate(model.stacks):
            finest = stack.finest(stack.latents(chunks))
            for latent in range(stack.width):
                layers = sum(code[:2] == (number, latent) for code in model.residual_codes[:COUNT])
                expected = stack.centroids[layers][latent, finest[:, latent] // BRANCHES ** (DEPTH - layers)]
                assert stack.latents(decoded)[:, latent] == pytest.approx(expected, abs=1e-9)

    def test_digits_come_in_the_order_of_what_they_take_away(self, model: KltRFSQ) -> None:
        gains = {
            (number, *code): gain
            for number, stack in enumerate(model.stacks)
            for gain, code in zip(stack.gains, stack.layers_of(0), strict=True)
        }
        found = [gains[code] for code in model.residual_codes]
        assert len(found) == len(gains) == len(set(model.residual_codes))
        assert found == sorted(found, reverse=True)


def sent_codes(codec: VariableLength, codes: np.ndarray) -> list[list[tuple[int, int, list[int]]]]:
    """Order, end and residual codes of each stack, chunk by chunk, read by hand."""
    chunks = []
    for row in codes.tolist():
        rest = row[len(codec.model.grippers) :]
        stacks = []
        for _ in codec.model.stacks:
            order, end, sent, rest = rest[0], rest[1], rest[2 : 2 + MOST_CODES], rest[2 + MOST_CODES :]
            stacks.append((order, end, [code for code in sent if code != NOT_SENT]))
        assert rest == []
        chunks.append(stacks)
    return chunks


class TestVariableLength:
    def test_tokens_stay_in_range_and_are_as_many_as_the_end_says(self, variable: list[VariableLength]) -> None:
        for codec in variable:
            tokens = codec.encode(made_chunks(1) * 4)
            for chunk in sent_codes(codec, tokens.codes):
                for stack, (order, end, codes) in zip(codec.model.stacks, chunk, strict=True):
                    assert 0 <= order < ORDERS
                    assert len(codes) == ends(stack)[end] == ENDS[end]
                    assert set(codes) <= {0, 1, 2}
            assert tokens.codes.max() < codec.vocabulary

    def test_bits_are_those_of_the_tokens_of_a_chunk(self, variable: list[VariableLength]) -> None:
        codec = variable[1]
        tokens = codec.encode(made_chunks(1))
        by_hand = []
        for row in tokens.codes:
            bits = 3.0  # one of 8 gripper trajectories
            for stack, (_, _, codes) in zip(codec.model.stacks, sent_codes(codec, row[None])[0], strict=True):
                bits += 2 + np.log2(len(ends(stack))) + len(codes) * LOG3
            assert codec.bits(Tokens(row[None])) == pytest.approx(bits)
            by_hand.append(bits)
        assert len(set(by_hand)) > 3
        assert codec.bits(tokens) == pytest.approx(np.mean(by_hand))

    def test_an_end_is_dear_enough_to_tell_them_all(self, model: KltRFSQ) -> None:
        """48 residual codes for the stack of 2 x 4 latents, 24 for that of 4."""
        assert [len(ends(stack)) for stack in model.stacks] == [19, 13]
        assert choice_bits(model.stacks[1])[:3] == pytest.approx(2 + np.log2(13) + LOG3 * np.arange(3))

    def test_a_higher_rate_has_more_bits_and_less_error(self, variable: list[VariableLength], train: Array) -> None:
        for chunks in (train, made_chunks(9, count=400)):
            bits = [codec.bits(codec.encode(chunks)) for codec in variable]
            errors = [error(codec, chunks) for codec in variable]
            assert all(more > fewer for fewer, more in pairwise(bits))
            assert all(finer < coarser for coarser, finer in pairwise(errors))

    def test_comes_near_the_rate_asked_on_train_chunks(self, variable: list[VariableLength], train: Array) -> None:
        assert [codec.bits(codec.encode(train)) for codec in variable] == pytest.approx(RATES, abs=1.5)

    def test_takes_the_choice_of_least_error_and_bits_times_the_multiplier(
        self, variable: list[VariableLength]
    ) -> None:
        codec, chunks = variable[2], made_chunks(1)
        normalised = codec.model.normaliser.normalise(chunks)
        read = sent_codes(codec, codec.encode(chunks).codes)
        for number, stack in enumerate(codec.model.stacks):
            cost = codec.model.choice_errors(stack, stack.latents(normalised))
            cost += codec.multiplier * choice_bits(stack)[:, None]
            taken = [chunk[number][0] * len(ends(stack)) + chunk[number][1] for chunk in read]
            assert np.array_equal(cost[taken, np.arange(len(chunks))], cost.min(axis=0))

    def test_what_a_choice_is_said_to_leave_is_what_decoding_leaves(self, variable: list[VariableLength]) -> None:
        codec, chunks = variable[2], made_chunks(1)
        tokens = codec.encode(chunks)
        normalised = codec.model.normaliser.normalise(chunks)
        gap = codec.model.normaliser.normalise(codec.decode(tokens)) - normalised
        said = np.zeros(len(chunks))
        for number, stack in enumerate(codec.model.stacks):
            errors = codec.model.choice_errors(stack, stack.latents(normalised))
            taken = [
                chunk[number][0] * len(ends(stack)) + chunk[number][1] for chunk in sent_codes(codec, tokens.codes)
            ]
            said += errors[taken, np.arange(len(chunks))]
        assert (gap[:, :, :3] ** 2).sum(axis=(1, 2)) / (C * 4) == pytest.approx(said, abs=1e-9)

    def test_a_multiplier_beyond_all_errors_sends_no_residual_code_and_none_sends_the_best(
        self, model: KltRFSQ
    ) -> None:
        chunks = made_chunks(1)
        dear, free = VariableLength(model, 1e6, 0.0), VariableLength(model, 0.0, 0.0)
        assert all(codes == [] for chunk in sent_codes(dear, dear.encode(chunks).codes) for _, _, codes in chunk)
        assert error(free, chunks) <= min(error(FixedLength(model, 40), chunks), error(dear, chunks))

    def test_easy_chunks_send_fewer_residual_codes_than_hard_ones(self, variable: list[VariableLength]) -> None:
        hard = made_chunks(1)[::2]
        easy = np.broadcast_to(made_chunks(0).mean(axis=(0, 1)), hard.shape)
        for codec in variable:
            lengths = codec.encode(np.concatenate([easy, hard])).lengths
            assert lengths[: len(easy)].max() < lengths[len(easy) :].mean()

    @settings(deadline=None, max_examples=30)
    @given(seed=st.integers(0, 2**32))
    def test_any_well_formed_sequence_decodes_to_something_like_the_train_chunks(
        self, variable: list[VariableLength], train: Array, seed: int
    ) -> None:
        decoded = variable[0].decode(random_variable_length(variable[0], seed, 20))
        assert decoded.shape == (20, C, 4)
        assert_within_train(variable[0].model, decoded, train)

    def test_decoding_needs_no_multiplier(self, variable: list[VariableLength]) -> None:
        """Rates differ in what the encoder chooses; one decoder reads them all."""
        for codec in variable:
            tokens = codec.encode(made_chunks(1))
            assert np.array_equal(variable[0].decode(tokens), codec.decode(tokens))


class TestTokensAlone:
    def codecs(self, fixed: FixedLength, variable: list[VariableLength]) -> list[FixedLength | VariableLength]:
        return [fixed, variable[1]]

    def test_decode_in_another_instance(self, fixed: FixedLength, variable: list[VariableLength]) -> None:
        for codec in self.codecs(fixed, variable):
            tokens = codec.encode(made_chunks(1))
            bare = Tokens(np.frombuffer(tokens.codes.tobytes(), np.int64).reshape(tokens.codes.shape))
            other = pickle.loads(pickle.dumps(codec))
            codec.encode(made_chunks(2))
            assert np.array_equal(other.decode(bare), codec.decode(tokens))
            assert other.bits(bare) == codec.bits(tokens)

    def test_decode_in_a_fresh_process(
        self, fixed: FixedLength, variable: list[VariableLength], tmp_path: Path
    ) -> None:
        found = [(codec, codec.encode(made_chunks(1))) for codec in self.codecs(fixed, variable)]
        (tmp_path / "sent").write_bytes(pickle.dumps(found))
        reader = (
            "import pickle, sys, pathlib\n"
            "folder = pathlib.Path(sys.argv[1])\n"
            "found = pickle.loads((folder / 'sent').read_bytes())\n"
            "(folder / 'read').write_bytes(pickle.dumps([codec.decode(tokens) for codec, tokens in found]))\n"
        )
        subprocess.run([sys.executable, "-c", reader, str(tmp_path)], check=True)
        for (codec, tokens), decoded in zip(found, pickle.loads((tmp_path / "read").read_bytes()), strict=True):
            assert decoded == pytest.approx(codec.decode(tokens), abs=1e-12)

    def test_a_chunk_is_coded_without_its_neighbours(self, fixed: FixedLength, variable: list[VariableLength]) -> None:
        chunks = made_chunks(1)
        for codec in self.codecs(fixed, variable):
            assert np.array_equal(codec.encode(chunks[7:8]).codes, codec.encode(chunks).codes[7:8])

    def test_fitting_twice_gives_the_same_tokens(
        self, fixed: FixedLength, variable: list[VariableLength], train: Array
    ) -> None:
        again = fit_model(train, SPEC)
        assert np.array_equal(FixedLength(again, COUNT).encode(train).codes, fixed.encode(train).codes)
        second = fit_variable_length(again, train, RATES)[1]
        assert np.array_equal(second.encode(train).codes, variable[1].encode(train).codes)


class TestGrippers:
    def test_so_many_distinct_trajectories_as_there_are_codes_come_back_exactly(self) -> None:
        rng = np.random.default_rng(3)
        distinct = np.unique(rng.uniform(-1, 1, (FEWEST_GRIPPER_CODES, C)), axis=0)
        train = made_chunks(0, count=160)
        train[:, :, 3] = distinct[np.arange(160) % FEWEST_GRIPPER_CODES]
        model = fit_model(train, SPEC)
        codec = FixedLength(model, 10)
        assert codec.decode(codec.encode(train))[:, :, 3] == pytest.approx(train[:, :, 3], abs=1e-12)
        assert model.gripper_bits == 4.0

    def test_a_switching_gripper_comes_back_exactly_at_every_rate(self, variable: list[VariableLength]) -> None:
        unseen = made_chunks(7)
        for codec in variable:
            assert codec.decode(codec.encode(unseen))[:, :, 3] == pytest.approx(unseen[:, :, 3], abs=1e-12)

    def test_a_gripper_that_moves_freely_takes_the_nearest_of_a_book(self) -> None:
        train = made_chunks(0)
        train[:, :, 3] = motion(np.random.default_rng(4), len(train), 1)[:, :, 0]
        model = fit_model(train, SPEC)
        book = model.grippers[0]
        codec = FixedLength(model, 10)
        codes = codec.encode(train).codes[:, 0]
        column = model.normaliser.normalise(train)[:, :, 3]
        distances = ((column[:, None] - book.trajectories) ** 2).sum(axis=2)
        assert 1 < len(book.trajectories) <= FEWEST_GRIPPER_CODES
        assert codes.max() < len(book.trajectories)
        assert distances[np.arange(len(train)), codes] == pytest.approx(distances.min(axis=1))
        assert distances.min(axis=1).mean() < column.var(axis=0).sum() / 3

    def test_the_commonest_trajectories_come_first(self) -> None:
        column = np.repeat(np.array([[0.1, 0.1], [0.5, 0.9], [-0.4, 0.0]]), [2, 5, 3], axis=0)
        book = GripperCodebook.fit(column[:, :, None], 0)
        assert book.trajectories.tolist() == [[0.5, 0.9], [-0.4, 0.0], [0.1, 0.1]]
        assert book.encode(np.array([[[0.6], [0.8]], [[0.0], [0.0]]])).tolist() == [0, 2]


class TestLayouts:
    @pytest.mark.parametrize(
        ("spec", "stacks", "grippers"),
        [("joint:4", 1, 0), (TWO_ARMS, 2, 2), ("gripper:1", 0, 1), ("gripper:2 position:1", 1, 2)],
    )
    def test_both_codecs_work(self, spec: str, stacks: int, grippers: int) -> None:
        train = made_chunks(5, spec, 60)
        model = fit_model(train, spec)
        assert (len(model.stacks), len(model.grippers)) == (stacks, grippers)
        length = 12 if stacks else 0
        for codec in (FixedLength(model, length), fit_variable_length(model, train, [40.0])[0]):
            tokens = codec.encode(train)
            decoded = codec.decode(tokens)
            which = ActionLayout.parse(spec).indices("gripper")
            assert tokens.codes.shape[0] == len(train)
            assert decoded.shape == train.shape
            assert decoded[:, :, which] == pytest.approx(train[:, :, which], abs=1e-12)
            assert np.mean((decoded - train) ** 2) <= train.var(axis=0).mean() / 2
            assert codec.bits(tokens) > 0

    def test_arms_do_not_mix(self) -> None:
        """What the second arm does has no influence on how the first comes back."""
        train = made_chunks(5, TWO_ARMS)
        codec = fit_variable_length(fit_model(train, TWO_ARMS), train, [60.0])[0]
        other = train.copy()
        other[:, :, 4:] = other[::-1, :, 4:]
        first, second = (codec.decode(codec.encode(chunks))[:, :, :4] for chunks in (train, other))
        assert first == pytest.approx(second, abs=1e-12)

    def test_a_dimension_that_never_moves_stays_where_it_is(self) -> None:
        train = made_chunks(6)
        train[:, :, 1] = 0.25
        model = fit_model(train, SPEC)
        codecs: list[Codec] = [FixedLength(model, 12), *fit_variable_length(model, train, RATES)]
        for codec in codecs:
            assert codec.decode(codec.encode(train))[:, :, 1] == pytest.approx(np.full((120, C), 0.25), abs=1e-9)

    def test_chunks_that_are_all_alike_cost_no_residual_codes_and_no_error(self) -> None:
        train = np.broadcast_to(made_chunks(6)[3], (30, C, 4)).copy()
        codec = fit_variable_length(fit_model(train, SPEC), train, [40.0])[0]
        tokens = codec.encode(train)
        assert codec.decode(tokens) == pytest.approx(train, abs=1e-12)
        assert (tokens.lengths == 1 + 2 * 2).all()

    @pytest.mark.parametrize("count", [1, 2, 3])
    def test_a_handful_of_train_chunks_come_back(self, count: int) -> None:
        train = made_chunks(8, count=count)
        codec = FixedLength(fit_model(train, SPEC), 12)
        assert codec.decode(codec.encode(train)) == pytest.approx(train, abs=1e-9)


@pytest.mark.parametrize("length", [8, 16])
def test_grippers_that_switch_are_exact_in_longer_chunks(sample: list[Episode], length: int) -> None:
    """A chunk with one switch has twice as many forms as it has steps."""
    recorded = [episode.actions for episode in sample[:60]]
    chunks = cut_chunks(recorded, length, 2).actions
    model = KltRFSQ.fit(chunks, ActionLayout.parse("libero"), Normaliser.fit(np.concatenate(recorded)))
    codec = FixedLength(model, 6)
    decoded = codec.decode(codec.encode(chunks))[:, :, 6]
    assert np.mean(np.abs(decoded - chunks[:, :, 6]) > 1e-9) < 0.001
