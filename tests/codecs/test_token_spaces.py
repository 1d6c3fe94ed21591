"""What a policy predicts: tokens in layers, which decode as the codec decodes its own, and expected values of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray

from rfsq_robust import ActionRFSQAE, Conditioning
from workbook.codecs.bins import UniformBins
from workbook.codecs.klt_rfsq import BRANCHES, DEPTH, FixedLength, KltRFSQ
from workbook.codecs.protocol import NOT_SENT, Codec, Tokens
from workbook.codecs.rfsq import RFSQCodec, first_layers
from workbook.codecs.token_spaces import (
    MOST_JOINT_VALUES,
    Bins,
    ChunkCodes,
    Codes,
    JointChunk,
    JointSteps,
    SequenceTokens,
    StepRFSQ,
    TokenSpace,
)
from workbook.common.array import Array
from workbook.data.chunks import Normaliser
from workbook.data.layout import ActionLayout

C, H, K, L = 8, 6, 4, 5
RESIDUAL_CODES = 30
LIBERO = "position:3 rotation:3 gripper:1"
NO_GRIPPER = "joint:4"
TWO_GRIPPERS = "joint:3 gripper:1 joint:3 gripper:1"
LAYOUTS = {"klt, gripper": LIBERO, "klt, no gripper": NO_GRIPPER, "klt, two grippers": TWO_GRIPPERS}
DECODING: tuple[Conditioning, ...] = ("none", "scale")
NAMES = (*DECODING, "bins16", *LAYOUTS)


def made_chunks(seed: int, spec: str = LIBERO, count: int = 80) -> Array:
    """Walks at random; a gripper closes once, the second of two always at the beginning or in the middle."""
    layout = ActionLayout.parse(spec)
    rng = np.random.default_rng(seed)
    chunks = np.clip(np.cumsum(rng.normal(0, 0.2, (count, C, layout.dim)), axis=1), -0.9, 0.9)
    for number, dimension in enumerate(layout.indices("gripper")):
        closes = rng.integers(0, C + 1, (count, 1)) if number == 0 else rng.choice([0, C // 2], (count, 1))
        chunks[:, :, dimension] = np.where(np.arange(C) < closes, -1.0, 1.0)
    return chunks


def fitted(chunks: Array) -> Normaliser:
    return Normaliser.fit(chunks.reshape(-1, chunks.shape[-1]))


@dataclass(frozen=True)
class Case:
    """A space, the codec that it stands for, and chunks that the codec was not fitted on."""

    space: TokenSpace
    codec: Codec
    chunks: Array


def make_case(name: str) -> Case:
    if name in LAYOUTS:
        spec = LAYOUTS[name]
        train = made_chunks(0, spec, 300)
        codec = FixedLength(KltRFSQ.fit(train, ActionLayout.parse(spec), fitted(train)), RESIDUAL_CODES)
        return Case(ChunkCodes(codec), codec, made_chunks(1, spec))
    normaliser = fitted(made_chunks(0))
    if name.startswith("bins"):
        bins = UniformBins(int(name.removeprefix("bins")), normaliser)
        return Case(Bins(bins, C), bins, made_chunks(1))
    torch.manual_seed(1)
    conditioning = next(known for known in DECODING if known == name)
    rfsq = RFSQCodec(name, ActionRFSQAE(7, H, K, L, conditioning=conditioning).eval(), normaliser)
    return Case(StepRFSQ(rfsq, C, K), rfsq, made_chunks(1))


@pytest.fixture(scope="module")
def cases() -> dict[str, Case]:
    return {name: make_case(name) for name in NAMES}


def one_hot(tokens: Sequence[Codes], sizes: Sequence[tuple[int, int]]) -> list[Array]:
    return [np.eye(levels)[layer] for layer, (_, levels) in zip(tokens, sizes, strict=False)]


def random_tokens(case: Case, seed: int, count: int = 5) -> list[Codes]:
    """Any tokens of the space that the codec could have sent: of grippers only those that there are."""
    rng = np.random.default_rng(seed)
    tokens = [rng.integers(0, levels, (count, case.space.groups, places)) for places, levels in case.space.sizes]
    if isinstance(case.codec, FixedLength) and case.codec.model.grippers:
        most = [len(book.trajectories) for book in case.codec.model.grippers]
        tokens[0] = rng.integers(0, most, (count, 1, len(most)))
    return tokens


@dataclass(frozen=True)
class Counting:
    """A chunk of one number is as many tokens as it says, the number last; what has no last token is malformed."""

    name: str = "counting"
    vocabulary: int = 4

    def encode(self, chunks: Array) -> Tokens:
        lengths = chunks[:, 0].astype(np.int64)
        codes = np.where(np.arange(lengths.max()) < lengths, lengths, NOT_SENT)
        return Tokens(codes, shared_alphabet=True)

    def decode(self, tokens: Tokens) -> Array:
        last = np.take_along_axis(tokens.codes, np.maximum(tokens.lengths - 1, 0)[:, None], axis=1)
        return np.where(self.malformed(tokens)[:, None, None], 0.0, last[:, None])

    def malformed(self, tokens: Tokens) -> NDArray[np.bool_]:
        return np.asarray(tokens.lengths == 0)

    def bits(self, tokens: Tokens) -> float:
        return 0.0


def told(*lengths: int) -> Array:
    return np.array(lengths, dtype=float).reshape(-1, 1, 1)


class TestSequences:
    """Of a codec whose tokens all stand in one sequence."""

    def test_of_equal_length_are_the_codecs_own(self) -> None:
        space = SequenceTokens(Counting(), 2)
        assert (space.groups, space.sizes) == (1, ((2, 4),))
        [tokens] = space.tokens(told(2, 2))
        assert tokens.tolist() == [[[2, 2]], [[2, 2]]]
        assert space.decode([tokens]).ravel().tolist() == [2, 2]
        assert space.expected([np.full((2, 1, 2, 4), 0.25)]) is None
        assert space.joint() is None

    def test_end_where_they_vary_in_length(self) -> None:
        space = SequenceTokens(Counting(), 3, vary=True)
        assert space.sizes == ((3, 5),)
        [tokens] = space.tokens(told(1, 3, 2))
        assert tokens[:, 0].tolist() == [[1, 4, 4], [3, 3, 3], [2, 2, 4]]
        assert space.decode([tokens]).ravel().tolist() == [1, 3, 2]

    def test_nothing_counts_after_the_end(self) -> None:
        space = SequenceTokens(Counting(), 3, vary=True)
        said = np.array([[[1, 4, 3]], [[4, 3, 3]]])
        assert space.decode([said]).ravel().tolist() == [1, 0]
        assert space.malformed([said]).tolist() == [False, True]

    def test_what_a_policy_cannot_say_is_the_nearest_that_it_can(self) -> None:
        """A token outside the vocabulary, one place too many, and a chunk that is shorter than all before it."""
        space = SequenceTokens(Counting(vocabulary=3), 2)
        assert [each.tolist() for each in space.tokens(told(1, 3))] == [[[[1, 0]], [[2, 2]]]]

    def test_are_encoded_in_parts_as_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        space = SequenceTokens(Counting(), 3, vary=True)
        [whole] = space.tokens(told(1, 1, 3, 2))
        monkeypatch.setattr("workbook.codecs.token_spaces.PART", 2)
        assert np.array_equal(space.tokens(told(1, 1, 3, 2))[0], whole)


@pytest.mark.parametrize("name", NAMES)
class TestEverySpace:
    def test_tokens_decode_to_exactly_what_the_codec_decodes(self, cases: dict[str, Case], name: str) -> None:
        case = cases[name]
        decoded = case.space.decode(case.space.tokens(case.chunks))
        assert np.array_equal(decoded, case.codec.decode(case.codec.encode(case.chunks)))
        assert decoded.shape == case.chunks.shape

    def test_sizes_are_those_of_the_tokens(self, cases: dict[str, Case], name: str) -> None:
        case = cases[name]
        tokens = case.space.tokens(case.chunks)
        assert len(tokens) == len(case.space.sizes)
        for layer, (places, levels) in zip(tokens, case.space.sizes, strict=True):
            assert layer.shape == (len(case.chunks), case.space.groups, places)
            assert layer.dtype == np.int64
            assert layer.min() >= 0
            assert layer.max() < levels

    def test_no_token_is_lost(self, cases: dict[str, Case], name: str) -> None:
        case = cases[name]
        codes = case.codec.encode(case.chunks).codes
        assert sum(layer.size for layer in case.space.tokens(case.chunks)) == codes.size

    def test_certain_probabilities_decode_as_their_tokens(self, cases: dict[str, Case], name: str) -> None:
        case = cases[name]
        for tokens in (case.space.tokens(case.chunks), random_tokens(case, 0)):
            expected = case.space.expected(one_hot(tokens, case.space.sizes))
            assert np.allclose(expected, case.space.decode(tokens), atol=1e-5)

    def test_so_do_those_of_the_first_layers(self, cases: dict[str, Case], name: str) -> None:
        case = cases[name]
        tokens = random_tokens(case, 1)
        for count in range(1, len(tokens) + 1):
            expected = case.space.expected(one_hot(tokens[:count], case.space.sizes))
            assert np.allclose(expected, case.space.decode(tokens[:count]), atol=1e-5)

    def test_every_layer_says_something(self, cases: dict[str, Case], name: str) -> None:
        """Else decoding fewer of them, above, would have shown nothing."""
        case = cases[name]
        tokens = random_tokens(case, 2)
        prefixes = [case.space.decode(tokens[:count]) for count in range(1, len(tokens) + 1)]
        assert all(not np.array_equal(prefixes[i], prefixes[i + 1]) for i in range(len(prefixes) - 1))

    def test_decoding_one_chunk_does_not_depend_on_the_others(self, cases: dict[str, Case], name: str) -> None:
        case = cases[name]
        tokens = random_tokens(case, 3)
        alone = case.space.decode([layer[2:3] for layer in tokens])
        assert np.allclose(alone, case.space.decode(tokens)[2:3], atol=1e-6)


class TestStepRFSQ:
    @pytest.mark.parametrize("name", DECODING)
    @pytest.mark.parametrize("count", range(1, K + 1))
    def test_first_layers_decode_as_the_codecs_first_layers(
        self, cases: dict[str, Case], name: str, count: int
    ) -> None:
        case = cases[name]
        prefix = first_layers(case.codec.encode(case.chunks), count)
        decoded = case.space.decode(case.space.tokens(case.chunks)[:count])
        assert np.array_equal(decoded, case.codec.decode(prefix))

    def test_a_space_of_few_layers_has_only_those(self, cases: dict[str, Case]) -> None:
        case = cases["scale"]
        assert isinstance(case.codec, RFSQCodec)
        few = StepRFSQ(case.codec, C, 2)
        assert few.sizes == ((H, L), (H, L))
        assert all(
            np.array_equal(a, b) for a, b in zip(few.tokens(case.chunks), case.space.tokens(case.chunks), strict=False)
        )
        assert len(few.tokens(case.chunks)) == 2

    @pytest.mark.parametrize(("name", "scales"), [("none", (1.0, 1.0)), ("scale", (1.0, 1 / (L - 1)))])
    def test_two_equally_likely_codes_give_the_mean_of_the_latents(
        self, cases: dict[str, Case], name: str, scales: tuple[float, float]
    ) -> None:
        case = cases[name]
        assert isinstance(case.codec, RFSQCodec)
        probabilities = [np.zeros((1, C, H, L)) for _ in scales]
        probabilities[0][..., [0, L - 1]] = 0.5  # grid values -1 and 1, mean 0
        probabilities[1][..., [L - 2, L - 1]] = 0.5  # grid values 0.5 and 1, mean 0.75
        latents = torch.full((1, C, H), 0.75 * scales[1])
        with torch.no_grad():
            normalised = case.codec.model.decoder(latents).double().numpy()
        found = case.space.expected(probabilities)
        assert np.allclose(found, case.codec.normaliser.denormalise(normalised), atol=1e-6)


class TestBins:
    def test_two_equally_likely_bins_give_their_mean(self) -> None:
        codec = UniformBins(4, Normaliser(np.array([0.0, -1.0]), np.array([2.0, 1.0])))
        probabilities = np.zeros((1, 1, 2, 4))
        probabilities[0, 0, 0, [0, 3]] = 0.5  # centres 0.25 and 1.75
        probabilities[0, 0, 1, [2, 3]] = 0.5  # centres 0.25 and 0.75
        assert Bins(codec, 1).expected([probabilities]).ravel() == pytest.approx([1.0, 0.5])

    def test_each_bin_weighs_as_it_is_likely(self) -> None:
        codec = UniformBins(4, Normaliser(np.array([0.0]), np.array([2.0])))
        found = Bins(codec, 1).expected([np.array([0.1, 0.2, 0.3, 0.4]).reshape(1, 1, 1, 4)])
        assert found.item() == pytest.approx(0.1 * 0.25 + 0.2 * 0.75 + 0.3 * 1.25 + 0.4 * 1.75)

    def test_a_dimension_that_never_moves_keeps_its_value(self) -> None:
        codec = UniformBins(4, Normaliser(np.array([0.5, -1.0]), np.array([0.5, 1.0])))
        found = Bins(codec, 2).expected([np.full((3, 2, 2, 4), 0.25)])
        assert np.allclose(found[..., 0], 0.5)
        assert np.allclose(found[..., 1], 0.0)


class TestChunkCodes:
    @pytest.mark.parametrize("name", LAYOUTS)
    def test_first_layers_decode_as_the_codec_without_the_others(self, cases: dict[str, Case], name: str) -> None:
        case = cases[name]
        assert isinstance(case.codec, FixedLength)
        model = case.codec.model
        layers = [layer for *_, layer in model.residual_codes[:RESIDUAL_CODES]]
        layer_of = np.array([*[-1] * len(model.grippers), *layers])
        first = -1 if model.grippers else 0
        codes = case.codec.encode(case.chunks).codes
        tokens = case.space.tokens(case.chunks)
        for count in range(1, len(tokens) + 1):
            kept = np.where(layer_of < first + count, codes, NOT_SENT)
            assert np.array_equal(case.space.decode(tokens[:count]), case.codec.decode(Tokens(kept)))

    @pytest.mark.parametrize("name", LAYOUTS)
    def test_all_residual_codes_are_there_layer_by_layer(self, cases: dict[str, Case], name: str) -> None:
        case = cases[name]
        assert isinstance(case.codec, FixedLength)
        grippers = case.codec.model.grippers
        codes = case.space.sizes[1:] if grippers else case.space.sizes
        assert case.space.groups == 1
        assert sum(places for places, _ in codes) == RESIDUAL_CODES
        assert all(levels == BRANCHES for _, levels in codes)
        assert [places for places, _ in codes] == sorted((places for places, _ in codes), reverse=True)
        assert len(codes) <= DEPTH
        if grippers:
            assert case.space.sizes[0] == (len(grippers), max(len(book.trajectories) for book in grippers))

    def test_two_equally_likely_residual_codes_give_the_mean_of_their_cells(self, cases: dict[str, Case]) -> None:
        """Of the first latent of the one stack of joints, whose two cells differ in the first residual code alone."""
        case = cases["klt, no gripper"]
        assert isinstance(case.codec, FixedLength)
        stack = case.codec.model.stacks[0]
        (_, latent, _), places = case.codec.model.residual_codes[0], case.space.sizes[0][0]
        tokens = np.ones((1, 1, places), dtype=np.int64)
        probabilities = np.eye(BRANCHES)[tokens]
        probabilities[0, 0, 0] = [0.5, 0.0, 0.5]
        found = stack.latents(case.codec.model.normaliser.normalise(case.space.expected([probabilities])))[0]
        ends = stack.centroids[1][latent][[0, 2]]
        assert ends[0] < ends[1]
        assert found[latent] == pytest.approx(ends.mean())
        certain = stack.latents(case.codec.model.normaliser.normalise(case.space.decode([tokens])))[0]
        assert np.allclose(np.delete(found, latent), np.delete(certain, latent))

    def test_without_knowledge_every_cell_of_a_latent_is_as_likely(self, cases: dict[str, Case]) -> None:
        case = cases["klt, no gripper"]
        assert isinstance(case.codec, FixedLength)
        model = case.codec.model
        deep = max(range(RESIDUAL_CODES), key=lambda place: model.residual_codes[place][2])
        _, latent, layer = model.residual_codes[deep]
        even = [np.full((1, 1, places, BRANCHES), 1 / BRANCHES) for places, _ in case.space.sizes]
        found = model.stacks[0].latents(model.normaliser.normalise(case.space.expected(even)))[0]
        assert layer > 0
        assert found[latent] == pytest.approx(model.stacks[0].centroids[layer + 1][latent].mean())

    def test_likely_gripper_trajectories_are_averaged(self, cases: dict[str, Case]) -> None:
        case = cases["klt, gripper"]
        assert isinstance(case.codec, FixedLength)
        book = case.codec.model.grippers[0]
        even = np.full((1, 1, 1, len(book.trajectories)), 1 / len(book.trajectories))
        found = case.codec.model.normaliser.normalise(case.space.expected([even]))[0, :, book.dimension]
        assert np.allclose(found, book.trajectories.mean(axis=0))

    def test_a_code_that_only_another_gripper_has_becomes_the_last(self, cases: dict[str, Case]) -> None:
        case = cases["klt, two grippers"]
        assert isinstance(case.codec, FixedLength)
        short = case.codec.model.grippers[1]
        most = case.space.sizes[0][1]
        assert len(short.trajectories) < most
        decoded = case.space.decode([np.full((1, 1, 2), most - 1)])
        found = case.codec.model.normaliser.normalise(decoded)[0, :, short.dimension]
        assert np.allclose(found, short.trajectories[-1])

    @settings(deadline=None, max_examples=30)
    @given(seed=st.integers(0, 2**32 - 1), name=st.sampled_from(list(LAYOUTS)))
    def test_any_tokens_decode_and_any_probabilities_lie_between(
        self, cases: dict[str, Case], seed: int, name: str
    ) -> None:
        case = cases[name]
        decoded = case.space.decode(random_tokens(case, seed))
        assert np.isfinite(decoded).all()
        rng = np.random.default_rng(seed)
        assert isinstance(case.codec, FixedLength)
        probabilities = [
            rng.dirichlet(np.ones(levels), (3, case.space.groups, places)) for places, levels in case.space.sizes
        ]
        model = case.codec.model
        found = model.normaliser.normalise(case.space.expected(probabilities))
        for stack in model.stacks:
            latents = stack.latents(found)
            every = np.concatenate(stack.centroids, axis=1)
            assert (latents >= every.min(axis=1) - 1e-9).all()
            assert (latents <= every.max(axis=1) + 1e-9).all()


def few_layers(case: Case) -> StepRFSQ | ChunkCodes:
    """As many layers of steps as one softmax holds."""
    assert isinstance(case.space, StepRFSQ | ChunkCodes)
    return replace(case.space, layers=3) if isinstance(case.space, StepRFSQ) else case.space


def joint_of(space: TokenSpace) -> JointSteps | JointChunk:
    joint = space.joint()
    assert isinstance(joint, JointSteps | JointChunk)
    return joint


@pytest.mark.parametrize("name", [*DECODING, *LAYOUTS])
class TestJointTokens:
    def test_decode_exactly_what_the_codes_apart_decode(self, cases: dict[str, Case], name: str) -> None:
        space = few_layers(cases[name])
        joint, apart = joint_of(space), random_tokens(replace(cases[name], space=space), 0)
        assert np.array_equal(joint.decode(joint.join(apart)), space.decode(apart))
        chunks = cases[name].chunks
        assert np.array_equal(joint.decode(joint.tokens(chunks)), space.decode(space.tokens(chunks)))

    def test_carry_the_same_bits(self, cases: dict[str, Case], name: str) -> None:
        space = few_layers(cases[name])
        joint = joint_of(space)
        tokens = joint.tokens(cases[name].chunks)
        for layer, (places, values) in zip(tokens, joint.sizes, strict=True):
            assert layer.shape == (len(cases[name].chunks), joint.groups, places)
            assert layer.min() >= 0
            assert layer.max() < values
        bits = [sum(places * np.log2(values) for places, values in each.sizes) for each in (space, joint)]
        assert bits[1] == pytest.approx(bits[0])
        assert joint.joint() is None

    @pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
    def test_expected_values_are_those_of_the_same_distribution(
        self, cases: dict[str, Case], name: str, weight: float
    ) -> None:
        """Two ways to go that differ in the finest codes: then there is nothing that codes apart could not say."""
        space = few_layers(cases[name])
        joint, one = joint_of(space), random_tokens(replace(cases[name], space=space), 1)
        other = [*one[:-1], random_tokens(replace(cases[name], space=space), 2)[-1]]
        apart, together = (
            [weight * a + (1 - weight) * b for a, b in zip(one_hot(x, sizes), one_hot(y, sizes), strict=True)]
            for x, y, sizes in (
                (one, other, space.sizes),
                (joint.join(one), joint.join(other), joint.sizes),
            )
        )
        assert np.allclose(joint.expected(together), space.expected(apart), atol=1e-5)


def test_codes_apart_cannot_say_that_two_go_together(cases: dict[str, Case]) -> None:
    """Code 4 then 0, or 3 then 4, of a step's latents: the mean of the two values, not of all four pairs."""
    space = few_layers(cases["scale"])
    joint = joint_of(space)
    shape = (1, C, H)
    ways = [[np.full(shape, code) for code in codes] for codes in ((4, 0, 2), (3, 4, 2))]
    half = [sum(each) / 2 for each in zip(*(one_hot(joint.join(way), joint.sizes) for way in ways), strict=True)]
    latents = torch.full(shape, (1.0 - 0.25 + 0.5 + 0.25) / 2)  # grid values of 5 levels, the second layer's a quarter
    assert isinstance(space, StepRFSQ)
    with torch.no_grad():
        normalised = space.codec.model.decoder(latents).double().numpy()
    assert np.allclose(joint.expected(half), space.codec.normaliser.denormalise(normalised), atol=1e-6)


def test_too_many_values_are_left_apart_and_single_codes_too(cases: dict[str, Case]) -> None:
    space = few_layers(cases["scale"])
    assert isinstance(space, StepRFSQ)
    most = int(np.log(MOST_JOINT_VALUES) / np.log(L))
    counts = {count: replace(space, layers=count).joint() is None for count in (1, 2, most, most + 1)}
    assert counts == {1: True, 2: False, most: False, most + 1: True}
    assert cases["bins16"].space.joint() is None
