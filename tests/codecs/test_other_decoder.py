"""Option B: naive tokens stay as they are, and only what reads them changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from made_codecs import make_model, rfsq_codecs
from small_runs import make_dataset

from workbook.codecs.catalogue import Fitting, Setting, catalogue
from workbook.codecs.other_decoder import ChunkDecoder, ChunkReader, OtherDecoder
from workbook.codecs.rfsq import RFSQCodec

CHUNKS = make_dataset().held_out_chunks("test").actions
NORMALISER = make_dataset().normaliser


class TestChunkDecoder:
    def test_starts_as_the_naive_decoder(self) -> None:
        naive = make_model("none")
        x = torch.randn(5, 8 * 7, generator=torch.Generator().manual_seed(1))
        decoder = ChunkDecoder(naive, 8)
        with torch.no_grad():
            decoded, codes = decoder(x)
            expected = naive(x.unflatten(1, (8, 7)))
        assert torch.equal(codes, expected[1])
        assert torch.equal(decoded, expected[0].flatten(1))

    def test_so_it_reads_tokens_as_the_codec_itself_does(self) -> None:
        naive = RFSQCodec("none", make_model("none"), NORMALISER)
        tokens = naive.encode(CHUNKS)
        read = ChunkReader(ChunkDecoder(naive.model, 8), NORMALISER).decode(tokens)
        assert read == pytest.approx(naive.decode(tokens), abs=1e-6)

    def test_trains_nothing_of_the_naive_model(self) -> None:
        naive = make_model("none")
        decoder = ChunkDecoder(naive, 8)
        assert not any(parameter.requires_grad for parameter in decoder.naive.parameters())
        assert all(parameter.requires_grad for parameter in decoder.context.parameters())
        assert all(parameter.requires_grad for parameter in naive.parameters())
        loss = decoder(torch.ones(2, 56))[0].square().mean()
        loss.backward()
        assert decoder.context[2].bias.grad.abs().sum() > 0


class TestOtherDecoder:
    def test_with_itself_is_the_codec_itself(self) -> None:
        naive = RFSQCodec("none", make_model("none"), NORMALISER)
        same = OtherDecoder(naive, naive)
        tokens = same.encode(CHUNKS)
        assert np.array_equal(tokens.codes, naive.encode(CHUNKS).codes)
        assert np.array_equal(same.decode(tokens), naive.decode(naive.encode(CHUNKS)))
        assert (same.bits(tokens), same.vocabulary) == (naive.bits(tokens), naive.vocabulary)

    def test_encodes_by_the_one_and_decodes_by_the_other(self) -> None:
        naive, scale = (RFSQCodec(name, make_model(name), NORMALISER) for name in ("none", "scale"))
        crossed = OtherDecoder(naive, scale)
        assert np.array_equal(crossed.encode(CHUNKS).codes, naive.encode(CHUNKS).codes)
        tokens = scale.encode(CHUNKS)
        assert np.array_equal(crossed.decode(tokens), scale.decode(tokens))

    def test_a_single_naive_model_goes_with_every_decoder(self) -> None:
        rfsq = rfsq_codecs(seeds=2)
        for naive in (rfsq["none"], rfsq["none"][:1]):
            fitting = Fitting(make_dataset(), rfsq | {"none": naive})
            crossed = catalogue()["naive_by_fixed_scale"].codecs(fitting, Setting.of(layers=fitting.layers))
            paired = [codec for codec in crossed if isinstance(codec, OtherDecoder)]
            assert [codec.encoder for codec in paired] == (naive if len(naive) == 2 else naive * 2)
            assert [codec.decoder for codec in paired] == rfsq["scale"]
