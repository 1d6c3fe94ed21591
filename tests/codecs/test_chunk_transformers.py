"""Transformers of whole chunks: what each token and step sees, prefixes, and that tokens alone decode."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_runs import make_dataset
from torch import Tensor

from workbook.codecs.chunk_transformers import (
    LEVELS,
    MANNERS,
    REGISTERS,
    ChunkTransformer,
    ChunkTransformerCodec,
    Manner,
)
from workbook.codecs.token_spaces import SequenceTokens
from workbook.training.data import TrainData
from workbook.training.stack import reconstruction_loss

DATASET = make_dataset()
CHUNKS = DATASET.held_out_chunks("test").actions
STEPS, WIDTH = CHUNKS.shape[1:]


def model_of(manner: Manner, steps_a_token: int = 2, steps: int = STEPS) -> ChunkTransformer:
    torch.manual_seed(0)
    return ChunkTransformer(manner, steps, WIDTH, steps_a_token).eval()


def codec_of(manner: Manner, prefix: int = 0) -> ChunkTransformerCodec:
    model = model_of(manner)
    return ChunkTransformerCodec(model, DATASET.normaliser, prefix or model.tokens)


def vectors(seed: int = 0, count: int = 6, steps: int = STEPS) -> Tensor:
    return torch.rand(count, steps * WIDTH, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("manner", MANNERS)
class TestBoth:
    def test_tokens_alone_decode_to_what_forward_gives(self, manner: Manner) -> None:
        codec = codec_of(manner)
        with torch.no_grad():
            forward, tokens = codec.model(vectors())
        assert torch.allclose(codec.model.decode(codec.model.encode(vectors())), forward, atol=1e-5)
        assert tokens.min() >= 0
        assert tokens.max() < np.prod(LEVELS) == codec.vocabulary == 1000

    def test_another_instance_decodes_the_tokens(self, manner: Manner) -> None:
        codec = codec_of(manner)
        tokens = codec.encode(CHUNKS)
        other = replace(codec, model=pickle.loads(pickle.dumps(codec.model)))
        codec.encode(CHUNKS[::-1].copy())
        assert other.decode(tokens) == pytest.approx(codec.decode(tokens), abs=1e-6)
        assert codec.decode(tokens).shape == CHUNKS.shape

    def test_expected_values_are_of_what_tokens_stand_for(self, manner: Manner) -> None:
        """The second number of a token has five even levels, of which token 16 has the middle, 0 and 32 the ends."""
        codec = codec_of(manner)
        space = SequenceTokens(codec, codec.prefix)
        tokens = space.tokens(CHUNKS)
        certain = space.expected([np.eye(1000)[tokens[0]]])
        assert certain == pytest.approx(space.decode(tokens), abs=1e-5)
        ends = np.tile(np.isin(np.arange(1000), [0, 32]) / 2, (1, 1, codec.prefix, 1))
        middle = space.decode([np.full((1, 1, codec.prefix), 16)])
        assert space.expected([ends]) == pytest.approx(middle, abs=1e-5)
        assert not np.allclose(middle, space.decode([np.full((1, 1, codec.prefix), 32)]), atol=1e-3)

    def test_every_sequence_of_tokens_decodes(self, manner: Manner) -> None:
        model = model_of(manner)
        assert model.decode(torch.randint(1000, (50, model.tokens))).isfinite().all()

    def test_any_length_of_a_chunk_can_be_coded(self, manner: Manner) -> None:
        for steps in (1, 3, 10, 32):
            model = model_of(manner, 4, steps)
            assert model.tokens == (REGISTERS if manner == "oat" else -(-steps // 4))
            assert model.decode(model.encode(vectors(steps=steps))).shape == (6, steps * WIDTH)


class TestOrdered:
    def test_a_register_sees_none_behind_it(self) -> None:
        model = model_of("oat")
        before = model.encoder(vectors().unflatten(1, (STEPS, -1)))
        with torch.no_grad():
            model.encoder.registers[5:] += 3.0
        after = model.encoder(vectors().unflatten(1, (STEPS, -1)))
        assert torch.allclose(before[:, :5], after[:, :5], atol=1e-5)
        assert not torch.allclose(before[:, 5:], after[:, 5:], atol=1e-2)

    @pytest.mark.parametrize("prefix", [1, 3, REGISTERS])
    def test_a_prefix_decodes_as_in_training_it_was_read(self, prefix: int) -> None:
        codec = codec_of("oat", prefix)
        whole = codec_of("oat").encode(CHUNKS)
        tokens = codec.encode(CHUNKS)
        assert np.array_equal(tokens.codes, whole.codes[:, :prefix])
        assert codec.bits(tokens) == pytest.approx(prefix * np.log2(1000))
        with torch.no_grad():
            quantized = codec.model.bottleneck.indices_to_codes(torch.from_numpy(whole.codes))
            read = codec.model._steps(quantized, torch.full((len(quantized), 1), prefix))
        assert torch.allclose(read, codec.model.decode(torch.from_numpy(tokens.codes)), atol=1e-5)

    def test_in_training_as_many_first_registers_are_read_as_are_drawn(self) -> None:
        """Of a chunk many times over, all of its prefixes are seen, and in evaluation the whole alone."""
        model, same = model_of("oat"), vectors(count=1).expand(200, -1)
        with torch.no_grad():
            prefixes = torch.stack([model.decode(model.encode(same[:1])[:, :k])[0] for k in range(1, REGISTERS + 1)])
            seen = (model.train()(same)[0][:, None] - prefixes).abs().amax(dim=-1)
            whole = model.eval()(same)[0]
        assert seen.min(dim=1).values.max() < 1e-5
        assert set(seen.argmin(dim=1).tolist()) == set(range(REGISTERS))
        assert torch.allclose(whole, prefixes[-1].expand(200, -1), atol=1e-5)

    def test_more_registers_leave_less_error_once_trained(self) -> None:
        data, model = TrainData.of_whole_chunks(DATASET).train[:, 0], model_of("oat").train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        for _ in range(60):
            loss = reconstruction_loss(model, data[torch.randint(len(data), (64,))])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        codes = model.eval().encode(data)
        errors = [float(((model.decode(codes[:, :count]) - data) ** 2).mean()) for count in (1, REGISTERS)]
        assert errors[1] < errors[0] < float(data.var())


class TestCausal:
    @pytest.mark.parametrize("steps_a_token", [1, 2, 4])
    def test_a_token_sees_its_own_steps_and_none_behind_them(self, steps_a_token: int) -> None:
        model = model_of("quest", steps_a_token)
        chunks = vectors().unflatten(1, (STEPS, -1))
        before = model.encoder(chunks)
        for step in range(STEPS):
            changed = chunks.clone()
            changed[:, step] += 1.0
            differs = (model.encoder(changed) - before).abs().amax(dim=(0, 2)) > 1e-4
            assert not differs[: step // steps_a_token].any()
            assert differs[step // steps_a_token]

    def test_a_step_is_decoded_without_those_behind_it(self) -> None:
        model = model_of("quest")
        tokens = model.encode(vectors())
        before = model.decode(tokens).unflatten(1, (STEPS, -1))
        with torch.no_grad():
            model.queries[4:] += 3.0
        after = model.decode(tokens).unflatten(1, (STEPS, -1))
        assert torch.allclose(before[:, :4], after[:, :4], atol=1e-5)
        assert not torch.allclose(before[:, 4:], after[:, 4:], atol=1e-3)
