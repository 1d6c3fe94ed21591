"""Trained baselines: learned residual quantizers of steps, and RFSQ of whole chunks, from tokens alone."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from rfsq_robust import ActionRFSQAE, Conditioning
from workbook.codecs.learned import (
    CODEBOOK_SIZE,
    FSQ_LEVELS,
    GROUPS,
    NUM_QUANTIZERS,
    QUANTIZERS,
    LearnedAE,
    LearnedCodec,
    Quantizer,
    training_loss,
)
from workbook.codecs.protocol import Tokens
from workbook.codecs.rfsq import WholeChunkRFSQ
from workbook.common.array import Array
from workbook.data.chunks import Normaliser

N, C, A, H = 6, 4, 3, 6
BITS_A_STEP = {"residual_vq": 8.0, "grouped_residual_fsq": 2 * float(np.log2(343))}  # of one quantizer
SHOWN: tuple[Conditioning, ...] = ("none", "scale")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def walks(seed: int, count: int = N) -> Array:
    rng = np.random.default_rng(seed)
    return np.clip(np.cumsum(rng.normal(0, 0.3, (count, C, A)), axis=1), -0.9, 0.9)


def normaliser() -> Normaliser:
    return Normaliser(np.array([-1.0, -0.9, -2.0]), np.array([1.0, 1.1, 1.0]))


def steps(chunks: Array) -> torch.Tensor:
    return torch.from_numpy(normaliser().normalise(chunks)).float().flatten(0, 1)


class Trained:
    """A model of each quantizer after 30 steps, and the losses on the way."""

    def __init__(self) -> None:
        self.models: dict[Quantizer, LearnedAE] = {}
        self.losses: dict[Quantizer, list[float]] = {}
        actions = steps(walks(0, 100))
        for quantizer in QUANTIZERS:
            torch.manual_seed(0)
            model = LearnedAE(quantizer, A, H).train()
            optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
            losses = []
            for _ in range(30):
                loss = training_loss(model, actions)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
            self.models[quantizer], self.losses[quantizer] = model.eval(), losses

    def codec(self, quantizer: Quantizer, quantizers: int = NUM_QUANTIZERS) -> LearnedCodec:
        return LearnedCodec(self.models[quantizer], normaliser(), quantizers)


@pytest.fixture(scope="module")
def trained() -> Trained:
    return Trained()


@pytest.mark.parametrize("quantizer", QUANTIZERS)
class TestBoth:
    def test_training_brings_the_loss_down(self, trained: Trained, quantizer: Quantizer) -> None:
        losses = trained.losses[quantizer]
        assert np.isfinite(losses).all()
        assert np.mean(losses[-5:]) < np.mean(losses[:5]) / 2

    def test_codes_have_a_place_for_each_group_and_quantizer_and_stay_in_range(
        self, trained: Trained, quantizer: Quantizer
    ) -> None:
        groups, values = (1, CODEBOOK_SIZE) if quantizer == "residual_vq" else (GROUPS, int(np.prod(FSQ_LEVELS)))
        for count in range(1, NUM_QUANTIZERS + 1):
            codec = trained.codec(quantizer, count)
            codes = codec.encode(walks(1) * 3).codes
            assert codes.shape == (N, C, groups, count)
            assert np.issubdtype(codes.dtype, np.integer)
            assert codes.min() >= 0
            assert codes.max() < values == codec.vocabulary

    def test_tokens_alone_decode_to_what_forward_gives(self, trained: Trained, quantizer: Quantizer) -> None:
        codec, chunks = trained.codec(quantizer), walks(1)
        with torch.no_grad():
            forward = codec.model(steps(chunks))[0].double().numpy().reshape(chunks.shape)
        assert codec.decode(codec.encode(chunks)) == pytest.approx(normaliser().denormalise(forward), abs=1e-6)

    def test_another_instance_decodes_the_bare_tokens(self, trained: Trained, quantizer: Quantizer) -> None:
        codec = trained.codec(quantizer)
        tokens = codec.encode(walks(1))
        bare = Tokens(np.array(tokens.codes.tolist(), dtype=np.int64))
        other = replace(codec, model=pickle.loads(pickle.dumps(codec.model)))
        codec.encode(walks(2))
        assert np.array_equal(other.decode(bare), codec.decode(tokens))

    def test_evaluation_leaves_the_model_as_it_is(self, trained: Trained, quantizer: Quantizer) -> None:
        codec = trained.codec(quantizer)
        before = copy.deepcopy(codec.model.state_dict())
        codec.decode(codec.encode(walks(3)))
        assert all(torch.equal(value, before[name]) for name, value in codec.model.state_dict().items())

    def test_the_first_quantizers_send_the_beginning_of_the_codes(self, trained: Trained, quantizer: Quantizer) -> None:
        whole = trained.codec(quantizer).encode(walks(1)).codes
        for count in (1, 2):
            assert np.array_equal(trained.codec(quantizer, count).encode(walks(1)).codes, whole[..., :count])

    def test_each_quantizer_takes_away_error(self, trained: Trained, quantizer: Quantizer) -> None:
        chunks = walks(0, 100)
        codecs = [trained.codec(quantizer, count) for count in range(1, NUM_QUANTIZERS + 1)]
        errors = [float(np.mean((codec.decode(codec.encode(chunks)) - chunks) ** 2)) for codec in codecs]
        assert errors[0] > errors[1] > errors[2]
        assert errors[0] < chunks.var()

    @pytest.mark.parametrize("count", [1, 2, 3])
    def test_bits_by_hand(self, trained: Trained, quantizer: Quantizer, count: int) -> None:
        codec = trained.codec(quantizer, count)
        assert codec.bits(codec.encode(walks(1))) == pytest.approx(C * count * BITS_A_STEP[quantizer])
        assert codec.name == f"{quantizer} x {count}"

    def test_any_codes_decode(self, trained: Trained, quantizer: Quantizer) -> None:
        codec = trained.codec(quantizer)
        shape = codec.encode(walks(1)).codes.shape
        codes = np.random.default_rng(0).integers(0, codec.vocabulary, shape)
        assert codec.decode(Tokens(codes)).shape == (N, C, A)
        assert np.isfinite(codec.decode(Tokens(codes))).all()

    def test_a_chunk_is_coded_without_its_neighbours(self, trained: Trained, quantizer: Quantizer) -> None:
        codec = trained.codec(quantizer)
        together = codec.decode(codec.encode(walks(1)))
        assert codec.decode(codec.encode(walks(1)[2:3])) == pytest.approx(together[2:3], abs=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_residual_vq_decodes_the_sum_of_its_code_vectors(trained: Trained, count: int) -> None:
    codec = trained.codec("residual_vq", count)
    codes = codec.encode(walks(1)).codes[:, :, 0]
    books = codec.model.bottleneck.codebooks.numpy()
    latent = sum(books[number][codes[..., number]] for number in range(count))
    with torch.no_grad():
        expected = codec.model.decoder(torch.from_numpy(latent)).double().numpy()
    assert codec.decode(codec.encode(walks(1))) == pytest.approx(normaliser().denormalise(expected), abs=1e-5)


def test_residual_vq_alone_has_a_commitment_to_its_codebook(trained: Trained) -> None:
    actions = steps(walks(0, 20))
    losses = {name: model(actions)[1].item() for name, model in trained.models.items()}
    assert losses["grouped_residual_fsq"] == 0
    model = copy.deepcopy(trained.models["residual_vq"]).train()
    assert model(actions)[1].item() > 0


K, L = 3, 5


def whole_chunk_model(conditioning: Conditioning) -> ActionRFSQAE:
    torch.manual_seed(1)
    model = ActionRFSQAE(C * A, H, K, L, conditioning=conditioning)
    with torch.no_grad():
        for _ in range(3):
            model(torch.from_numpy(normaliser().normalise(walks(2, 50))).float().flatten(1))
    return model.eval()


@pytest.mark.parametrize("conditioning", SHOWN)
class TestWholeChunkRFSQ:
    def test_tokens_alone_decode_to_what_forward_gives(self, conditioning: Conditioning) -> None:
        model, chunks = whole_chunk_model(conditioning), walks(1)
        codec = WholeChunkRFSQ(model, normaliser(), K)
        with torch.no_grad():
            forward = model(torch.from_numpy(normaliser().normalise(chunks)).float().flatten(1))[0].double().numpy()
        expected = normaliser().denormalise(forward.reshape(N, C, A))
        assert codec.decode(codec.encode(chunks)) == pytest.approx(expected, abs=1e-6)

    def test_codes_are_layer_after_layer_and_a_prefix_is_the_first_layers(self, conditioning: Conditioning) -> None:
        model, chunks = whole_chunk_model(conditioning), walks(1)
        whole = WholeChunkRFSQ(model, normaliser(), K).encode(chunks)
        by_layer = model.encode(torch.from_numpy(normaliser().normalise(chunks)).float().flatten(1)).numpy()
        for layers in range(1, K + 1):
            codec = WholeChunkRFSQ(model, normaliser(), layers)
            expected = np.concatenate([by_layer[:, :, layer] for layer in range(layers)], axis=1)
            prefix = Tokens(whole.codes[:, : layers * H])
            assert np.array_equal(codec.encode(chunks).codes, expected)
            assert np.array_equal(prefix.codes, expected)
            assert codec.decode(prefix).shape == chunks.shape
            assert np.array_equal(codec.decode(prefix), WholeChunkRFSQ(model, normaliser(), K).decode(prefix))

    def test_bits_and_range(self, conditioning: Conditioning) -> None:
        model = whole_chunk_model(conditioning)
        for layers in range(1, K + 1):
            codec = WholeChunkRFSQ(model, normaliser(), layers)
            tokens = codec.encode(walks(1) * 3)
            assert tokens.of_whole_chunks
            assert tokens.codes.min() >= 0
            assert tokens.codes.max() < L == codec.vocabulary
            assert codec.bits(tokens) == pytest.approx(layers * H * np.log2(L))
