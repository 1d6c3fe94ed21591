"""Codecs: what they cost, and that tokens alone bring back what they are said to bring back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays

from rfsq_robust import CONDITIONINGS, ActionRFSQAE, Checkpoint, Conditioning, load_checkpoint, save_checkpoint
from workbook.codecs.bins import UniformBins
from workbook.codecs.protocol import Codec, Tokens, code_entropy, entropy_bits
from workbook.codecs.rfsq import RefittedDecoder, RFSQCodec, first_layers
from workbook.common.array import Array
from workbook.data.chunks import Chunks, Normaliser

A, H, K, L = 7, 6, 4, 5
N, C = 9, 8
DECODING: tuple[Conditioning, ...] = tuple(name for name in CONDITIONINGS if name != "layernorm")
CODECS = (*CONDITIONINGS, "layernorm sent", "bins4", "bins16", "bins256")


def random_walks(seed: int, chunks: int = N) -> Array:
    rng = np.random.default_rng(seed)
    motion = np.clip(np.cumsum(rng.normal(0, 0.2, (chunks, C, A - 1)), axis=1), -0.9, 0.9)
    gripper = np.where(rng.random((chunks, 1, 1)) < 0.5, -1.0, 1.0) * np.ones((chunks, C, 1))
    return np.concatenate([motion, gripper], axis=2)


def fitted_normaliser() -> Normaliser:
    return Normaliser.fit(random_walks(0).reshape(-1, A))


def unit_normaliser(low: float = -1.0, high: float = 1.0) -> Normaliser:
    return Normaliser(np.full(A, low), np.full(A, high))


def make_model(conditioning: Conditioning) -> ActionRFSQAE:
    """A model whose running statistics, if it has any, have seen data."""
    torch.manual_seed(1)
    model = ActionRFSQAE(A, H, K, L, conditioning=conditioning)
    with torch.no_grad():
        for _ in range(3):
            model(torch.from_numpy(random_walks(2)).float())
    return model.eval()


@dataclass(frozen=True)
class Workshop:
    """Makes codecs, a new instance at each call, those of RFSQ from a checkpoint file."""

    folder: Path

    def rfsq(self, conditioning: Conditioning, statistics: Literal["assumed", "sent"] = "assumed") -> RFSQCodec:
        model = load_checkpoint(self.folder / f"{conditioning}.pt").model
        return RFSQCodec(conditioning, model, fitted_normaliser(), statistics)

    def codec(self, name: str) -> Codec:
        if name.startswith("bins"):
            return UniformBins(int(name.removeprefix("bins")), fitted_normaliser())
        if name == "layernorm sent":
            return self.rfsq("layernorm", "sent")
        return self.rfsq(next(conditioning for conditioning in CONDITIONINGS if conditioning == name))


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    folder = tmp_path_factory.mktemp("checkpoints")
    for conditioning in CONDITIONINGS:
        save_checkpoint(folder / f"{conditioning}.pt", Checkpoint(make_model(conditioning)))
    return Workshop(folder)


class TestUniformBins:
    def test_codes_and_values_by_hand(self) -> None:
        codec = UniformBins(4, unit_normaliser(0.0, 2.0))
        values = np.array([0.0, 0.49, 0.5, 1.0, 1.51, 1.99, 2.0])
        tokens = codec.encode(values.reshape(1, 1, A))
        assert tokens.codes.ravel().tolist() == [0, 0, 1, 2, 3, 3, 3]
        assert tokens.side is None
        assert codec.decode(tokens).ravel() == pytest.approx([0.25, 0.25, 0.75, 1.25, 1.75, 1.75, 1.75])

    @settings(deadline=None, max_examples=60)
    @given(
        shares=arrays(np.float64, (2, 3, A), elements=st.floats(0, 1)),
        low=st.floats(-1, 0.5),
        width=st.floats(1e-3, 2),
        num_bins=st.integers(1, 300),
    )
    def test_is_off_by_half_a_bin_at_most_inside_the_train_range(
        self, shares: Array, low: float, width: float, num_bins: int
    ) -> None:
        codec = UniformBins(num_bins, unit_normaliser(low, low + width))
        chunks = low + shares * width
        error = np.abs(codec.decode(codec.encode(chunks)) - chunks)
        assert error.max() <= width / num_bins / 2 + 1e-12

    @settings(deadline=None, max_examples=40)
    @given(
        chunks=arrays(np.float64, (2, 3, A), elements=st.floats(-1e6, 1e6)),
        num_bins=st.sampled_from([1, 2, 16, 255]),
    )
    def test_codes_stay_in_range_for_any_value(self, chunks: Array, num_bins: int) -> None:
        codes = UniformBins(num_bins, unit_normaliser(-0.5, 0.5)).encode(chunks).codes
        assert codes.min() >= 0
        assert codes.max() < num_bins

    @pytest.mark.parametrize(("num_bins", "bits_a_number"), [(2, 1.0), (16, 4.0), (256, 8.0), (10, np.log2(10))])
    def test_bits(self, num_bins: int, bits_a_number: float) -> None:
        codec = UniformBins(num_bins, fitted_normaliser())
        assert codec.bits(codec.encode(random_walks(3))) == pytest.approx(C * 7 * bits_a_number)

    @pytest.mark.parametrize("num_bins", [16, 256])
    def test_a_dimension_that_never_moves_costs_no_error(self, num_bins: int) -> None:
        chunks = random_walks(3)
        chunks[..., 4] = 0.25
        codec = UniformBins(num_bins, Normaliser.fit(chunks.reshape(-1, A)))
        decoded = codec.decode(codec.encode(chunks))
        assert decoded[..., 4] == pytest.approx(0.25, abs=1e-12)


class TestRFSQDecoding:
    @pytest.mark.parametrize("conditioning", DECODING)
    def test_tokens_decode_to_exactly_what_forward_gives(self, workshop: Workshop, conditioning: Conditioning) -> None:
        codec = workshop.rfsq(conditioning)
        chunks = random_walks(4, chunks=40)
        assert np.array_equal(codec.decode(codec.encode(chunks)), codec.forward(chunks))
        assert codec.decode_error(chunks) == 0.0

    @settings(deadline=None, max_examples=30)
    @given(chunks=arrays(np.float64, (3, C, A), elements=st.floats(-1.5, 1.5)), which=st.sampled_from(DECODING))
    def test_so_it_is_for_any_actions(self, workshop: Workshop, chunks: Array, which: Conditioning) -> None:
        codec = workshop.rfsq(which)
        assert np.array_equal(codec.decode(codec.encode(chunks)), codec.forward(chunks))
        assert codec.decode_error(chunks) == 0.0

    def test_layernorm_does_not_decode_from_its_codes(self, workshop: Workshop) -> None:
        codec, chunks = workshop.rfsq("layernorm"), random_walks(4)
        assert codec.encode(chunks).side is None
        assert codec.decode_error(chunks) > 1e-3
        assert np.abs(codec.decode(codec.encode(chunks)) - codec.forward(chunks)).max() > 1e-3

    def test_a_decoder_without_statistics_sums_grid_values(self, workshop: Workshop) -> None:
        codec, chunks = workshop.rfsq("layernorm"), random_walks(4)
        tokens = codec.encode(chunks)
        latent = (tokens.codes / (L - 1) * 2 - 1).sum(axis=-1)
        with torch.no_grad():
            normalised = codec.model.decoder(torch.from_numpy(latent).float()).double().numpy()
        assert codec.decode(tokens) == pytest.approx(codec.normaliser.denormalise(normalised), abs=1e-4)

    def test_layernorm_decodes_with_its_statistics(self, workshop: Workshop) -> None:
        codec, chunks = workshop.rfsq("layernorm", "sent"), random_walks(4)
        tokens = codec.encode(chunks)
        assert tokens.side is not None
        assert tokens.side.dtype == np.uint16
        assert tokens.side.shape == (N, C, K, 2)
        assert codec.decode(tokens) == pytest.approx(codec.forward(chunks), abs=5e-3)

    def test_sending_statistics_does_not_make_codes_alone_decode(self, workshop: Workshop) -> None:
        assert workshop.rfsq("layernorm", "sent").decode_error(random_walks(4)) > 1e-3

    def test_the_decode_error_is_in_normalised_units(self, workshop: Workshop) -> None:
        codec, chunks = workshop.rfsq("layernorm"), random_walks(4)
        gap = codec.decode(codec.encode(chunks)) - codec.forward(chunks)
        largest = np.abs(gap / codec.normaliser.half_width).max()
        assert codec.decode_error(chunks) == pytest.approx(largest, rel=1e-5)

    @pytest.mark.parametrize("conditioning", CONDITIONINGS)
    def test_residual_std_has_one_figure_a_layer_and_one_for_the_rest(
        self, workshop: Workshop, conditioning: Conditioning
    ) -> None:
        codec, chunks = workshop.rfsq(conditioning), random_walks(4)
        with torch.no_grad():
            latent = codec.model.encoder(torch.from_numpy(codec.normaliser.normalise(chunks)).float())
        std = codec.residual_std(chunks)
        assert std.shape == (K + 1,)
        assert std[0] == pytest.approx(float(latent.std()), rel=1e-5)

    def test_the_fixed_scale_leaves_less_from_layer_to_layer(self, workshop: Workshop) -> None:
        std = workshop.rfsq("scale").residual_std(random_walks(4))
        assert (np.diff(std) < 0).all()


class TestRFSQBits:
    @pytest.mark.parametrize("conditioning", CONDITIONINGS)
    def test_fixed_length(self, workshop: Workshop, conditioning: Conditioning) -> None:
        codec = workshop.rfsq(conditioning)
        tokens = codec.encode(random_walks(5))
        assert tokens.codes.shape == (N, C, H, K)
        assert codec.bits(tokens) == pytest.approx(C * H * K * np.log2(L))

    def test_statistics_are_counted(self, workshop: Workshop) -> None:
        chunks = random_walks(5)
        assumed, sent = workshop.rfsq("layernorm"), workshop.rfsq("layernorm", "sent")
        extra = sent.bits(sent.encode(chunks)) - assumed.bits(assumed.encode(chunks))
        assert extra == pytest.approx(K * C * 2 * 16, abs=1e-9)

    def test_do_not_depend_on_the_number_of_chunks(self, workshop: Workshop) -> None:
        codec = workshop.rfsq("layernorm", "sent")
        assert codec.bits(codec.encode(random_walks(5, 3))) == codec.bits(codec.encode(random_walks(5, 11)))


def rebuilt(tokens: Tokens) -> Tokens:
    """The same tokens from bytes, as they would come out of a file."""
    codes = np.frombuffer(tokens.codes.tobytes(), np.int64).reshape(tokens.codes.shape).copy()
    if tokens.side is None:
        return Tokens(codes)
    return Tokens(codes, np.frombuffer(tokens.side.tobytes(), np.uint16).reshape(tokens.side.shape).copy())


@pytest.mark.parametrize("name", CODECS)
class TestEveryCodec:
    def test_keeps_to_the_protocol(self, workshop: Workshop, name: str) -> None:
        codec, chunks = workshop.codec(name), random_walks(6)
        tokens = codec.encode(chunks)
        assert isinstance(codec.name, str)
        assert codec.name
        assert np.issubdtype(tokens.codes.dtype, np.integer)
        assert tokens.codes.shape[:2] == (N, C)
        assert codec.decode(tokens).shape == chunks.shape
        assert np.isfinite(codec.decode(tokens)).all()
        assert isinstance(codec.bits(tokens), float)
        assert codec.bits(tokens) > 0

    def test_another_instance_decodes_the_bare_tokens(self, workshop: Workshop, name: str) -> None:
        writer, reader = workshop.codec(name), workshop.codec(name)
        chunks = random_walks(6)
        tokens = writer.encode(chunks)
        expected = writer.decode(tokens)
        writer.encode(random_walks(7))  # what it saw last must not matter
        assert np.array_equal(reader.decode(rebuilt(tokens)), expected)
        assert np.array_equal(writer.decode(rebuilt(tokens)), expected)

    def test_encoding_twice_gives_the_same_and_leaves_the_actions_alone(self, workshop: Workshop, name: str) -> None:
        codec, chunks = workshop.codec(name), random_walks(6)
        before = chunks.copy()
        assert np.array_equal(codec.encode(chunks).codes, codec.encode(chunks).codes)
        assert np.array_equal(chunks, before)

    def test_a_chunk_decodes_without_its_neighbours(self, workshop: Workshop, name: str) -> None:
        codec, chunks = workshop.codec(name), random_walks(6)
        together = codec.decode(codec.encode(chunks))
        assert codec.decode(codec.encode(chunks[2:3])) == pytest.approx(together[2:3], abs=1e-5)

    def test_entropy_is_at_most_the_fixed_length(self, workshop: Workshop, name: str) -> None:
        codec = workshop.codec(name)
        tokens = codec.encode(random_walks(6))
        assert 0 <= entropy_bits(tokens, all_valid(tokens)) <= codec.bits(tokens) + 1e-9


class TestFirstLayers:
    def test_takes_codes_and_statistics_of_the_first_layers(self, workshop: Workshop) -> None:
        tokens = workshop.rfsq("layernorm", "sent").encode(random_walks(8))
        part = first_layers(tokens, 2)
        assert tokens.side is not None
        assert part.side is not None
        assert np.array_equal(part.codes, tokens.codes[..., :2])
        assert np.array_equal(part.side, tokens.side[:, :, :2, :])

    def test_has_no_statistics_where_there_were_none(self, workshop: Workshop) -> None:
        assert first_layers(workshop.rfsq("scale").encode(random_walks(8)), 1).side is None

    @pytest.mark.parametrize("name", [*DECODING, "layernorm sent"])
    def test_all_layers_are_the_whole(self, workshop: Workshop, name: str) -> None:
        codec = workshop.codec(name)
        tokens = codec.encode(random_walks(8))
        assert np.array_equal(codec.decode(first_layers(tokens, K)), codec.decode(tokens))

    @pytest.mark.parametrize("name", [*DECODING, "layernorm sent"])
    def test_every_prefix_decodes_and_costs_its_share(self, workshop: Workshop, name: str) -> None:
        codec = workshop.codec(name)
        tokens = codec.encode(random_walks(8))
        for count in range(1, K + 1):
            part = first_layers(tokens, count)
            assert np.isfinite(codec.decode(part)).all()
            assert codec.bits(part) == pytest.approx(codec.bits(tokens) * count / K)

    def test_prefixes_of_the_fixed_scale_come_nearer_to_the_latent(self, workshop: Workshop) -> None:
        codec = workshop.rfsq("scale")
        codes = torch.from_numpy(codec.encode(random_walks(8)).codes)
        whole = codec.model.rfsq.decode_from_indices(codes)
        gaps = [float((codec.model.rfsq.decode_from_indices(codes[..., :k]) - whole).abs().max()) for k in (1, 2, 3)]
        assert gaps[0] > gaps[1] > gaps[2] > 0


def tokens_of(symbols: list[int]) -> Tokens:
    """One code a step, one step a chunk."""
    return Tokens(np.array(symbols, dtype=np.int64).reshape(-1, 1, 1))


def all_valid(tokens: Tokens) -> np.ndarray:
    return np.ones(tokens.codes.shape[:2], dtype=bool)


def entropy_of(tokens: Tokens) -> np.ndarray:
    return code_entropy(tokens, all_valid(tokens))


class TestEntropy:
    @pytest.mark.parametrize(
        ("symbols", "bits"),
        [
            ([3] * 8, 0.0),
            ([0] * 8, 0.0),
            ([0, 1, 2, 3] * 5, 2.0),
            ([6, 2] * 3, 1.0),
            ([0, 0, 0, 5], 2 - 0.75 * np.log2(3)),
        ],
    )
    def test_by_hand(self, symbols: list[int], bits: float) -> None:
        assert entropy_of(tokens_of(symbols)).ravel() == pytest.approx([bits], abs=1e-12)

    def test_each_code_of_a_step_by_itself(self) -> None:
        codes = np.zeros((4, 2, 2, 3), dtype=np.int64)
        codes[..., 0, 1] = np.arange(8).reshape(4, 2) % 2
        codes[..., 1, 2] = np.arange(8).reshape(4, 2) % 4
        assert entropy_of(Tokens(codes)) == pytest.approx(np.array([[0, 1, 0], [0, 0, 2]]), abs=1e-12)

    def test_of_a_chunk_counts_every_step_and_all_side_information(self) -> None:
        codes = np.arange(8, dtype=np.int64).reshape(4, 2, 1) % 4
        side = np.zeros((4, 2, 3, 2), dtype=np.uint16)
        assert entropy_bits(Tokens(codes), all_valid(Tokens(codes))) == pytest.approx(2 * 2.0)
        assert entropy_bits(Tokens(codes, side), all_valid(Tokens(codes))) == pytest.approx(2 * 2.0 + 2 * 3 * 2 * 16)

    @settings(deadline=None, max_examples=60)
    @given(codes=arrays(np.int64, (5, 2, 3), elements=st.integers(0, 6)))
    def test_is_never_below_zero_nor_above_the_fixed_length(self, codes: np.ndarray) -> None:
        entropy = entropy_of(Tokens(codes))
        assert entropy.shape == (3,)
        assert (entropy >= 0).all()
        assert (entropy <= np.log2(7) + 1e-12).all()

    def test_does_not_depend_on_which_symbols_they_are(self) -> None:
        rename: Callable[[int], int] = [4, 0, 2, 1].__getitem__
        symbols = [0, 1, 1, 2, 3, 3, 3, 0, 0]
        renamed = [rename(symbol) for symbol in symbols]
        assert entropy_of(tokens_of(symbols)) == pytest.approx(entropy_of(tokens_of(renamed)))


def test_padded_steps_do_not_count_in_the_entropy() -> None:
    codes = np.array([[0, 1, 5], [1, 0, 5]]).reshape(2, 3, 1)
    valid = np.array([[True, True, False]] * 2)
    assert code_entropy(Tokens(codes), valid) == pytest.approx([1.0])


class TestRefittedDecoder:
    def test_reads_codes_that_are_linear_in_the_actions(self) -> None:
        """With the decoder's least squares, no linear read of the same codes has less train error."""
        chunks = whole_chunks(4)
        encoder = make_codec("scale", chunks)
        refitted = RefittedDecoder.fit(encoder, chunks)
        error = np.mean((refitted.decode(refitted.encode(chunks.actions)) - chunks.actions)[chunks.valid] ** 2)
        worse = replace(refitted, weights=refitted.weights * 1.05)
        assert error < np.mean((worse.decode(worse.encode(chunks.actions)) - chunks.actions)[chunks.valid] ** 2)

    def test_reads_layernorm_codes_better_than_assumed_statistics(self) -> None:
        chunks = whole_chunks(4)
        encoder = make_codec("layernorm", chunks)
        refitted = RefittedDecoder.fit(encoder, chunks)
        own, anew = (
            np.mean((codec.decode(codec.encode(chunks.actions)) - chunks.actions) ** 2) for codec in (encoder, refitted)
        )
        assert anew < own

    def test_gets_and_costs_the_codes_alone(self) -> None:
        chunks = whole_chunks(2)
        encoder = make_codec("layernorm", chunks)
        refitted = RefittedDecoder.fit(replace(encoder, statistics="sent"), chunks)
        tokens = refitted.encode(chunks.actions)
        assert tokens.side is None
        assert refitted.bits(tokens) == encoder.bits(Tokens(tokens.codes))


def whole_chunks(seed: int) -> Chunks:
    actions = random_walks(seed)
    return Chunks(actions, np.ones((N, C), dtype=bool), np.zeros(N, dtype=np.int64))


def make_codec(conditioning: Conditioning, chunks: Chunks) -> RFSQCodec:
    return RFSQCodec(conditioning, make_model(conditioning), Normaliser.fit(chunks.actions[chunks.valid]))
