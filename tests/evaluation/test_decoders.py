"""Option B: naive tokens stay as they are, and only what reads them changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from evidence import Evidence
from small_runs import SMALL, ignore_progress, make_dataset, quickly, same_weights, train_into

from rfsq_robust import ActionRFSQAE, load_checkpoint
from workbook.codecs.protocol import Codec, Tokens
from workbook.codecs.rfsq import RFSQCodec, load_codec, reconstruction_sha256
from workbook.common.paths import OutputFolder
from workbook.data.dataset import Dataset
from workbook.evaluation import decoders as option_b
from workbook.evaluation.decoders import RETRAINED_FILE, ChunkDecoder, ChunkReader, OtherDecoder, measure_option_b
from workbook.evaluation.score import HeldOut, load_codecs
from workbook.training.runs import BEST_FILES

WAYS = ["naive", "scale_decoder", "layernorm_decoder", "retrained", "retrained_chunk", "scale"]
CONFIG = replace(SMALL, epochs=6)
STEPS = 10_000  # of baselines: as many epochs as the RFSQ had


@dataclass(frozen=True)
class Measured:
    """Two seeds of every conditioning, and what option B makes of them."""

    out: OutputFolder
    dataset: Dataset
    training: Evidence
    found: Evidence
    retrained: list[RFSQCodec]
    of_chunks: list[OtherDecoder]

    @property
    def naive(self) -> list[RFSQCodec]:
        return load_codecs(self.out, self.training, self.dataset)["none"]

    @property
    def test(self) -> HeldOut:
        return HeldOut.of(self.dataset)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measured]:
    folder = tmp_path_factory.mktemp("option_b")
    training = train_into(folder, CONFIG, seeds=2)
    out, dataset, kept = OutputFolder.at(str(folder)), make_dataset(), []
    train = option_b._train_decoders
    with quickly(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(option_b, "_train_decoders", lambda *given: kept.append(train(*given)) or kept[-1])
        found = measure_option_b(out, dataset, training, STEPS, ignore_progress)
        yield Measured(out, dataset, training, found, *kept[0])


def make_model(seed: int = 0) -> ActionRFSQAE:
    torch.manual_seed(seed)
    return ActionRFSQAE(7, 6, 4, 5, conditioning="none").eval()


def mse_of(codec: Codec, measured: Measured) -> float:
    test = measured.test
    metric = test.measure(codec.decode(codec.encode(test.chunks.actions)))["mse"]
    return float(metric.values @ metric.weights / metric.weights.sum())


class TestRetrainedDecoder:
    def test_every_bit_of_the_encoder_stays(self, measured: Measured) -> None:
        for naive, retrained in zip(measured.naive, measured.retrained, strict=True):
            one, other = naive.model.state_dict(), retrained.model.state_dict()
            for name in one:
                assert torch.equal(one[name], other[name]) != name.startswith("decoder."), name

    def test_so_the_tokens_are_naives(self, measured: Measured) -> None:
        chunks = np.concatenate([episode.actions for episode in measured.dataset.episodes])[:, None]
        for naive, retrained in zip(measured.naive, measured.retrained, strict=True):
            assert np.array_equal(naive.encode(chunks).codes, retrained.encode(chunks).codes)

    def test_each_goes_on_from_its_own_seed(self, measured: Measured) -> None:
        weights = [codec.model.encoder[0].weight for codec in measured.retrained]
        assert not torch.equal(*weights)

    def test_checkpoints_load_and_decode_as_in_memory(self, measured: Measured) -> None:
        test = measured.test
        for file, retrained in zip(measured.found["files"], measured.retrained, strict=True):
            path = measured.out.checkpoints / file
            assert same_weights(load_checkpoint(path).model, retrained.model)
            loaded = load_codec(path, measured.dataset.normaliser)
            tokens = loaded.encode(test.chunks.actions)
            assert np.array_equal(loaded.decode(tokens), retrained.decode(tokens))

    def test_the_best_is_that_of_naives_best_seed(self, measured: Measured) -> None:
        assert measured.found["best"] == RETRAINED_FILE
        seed = measured.training["best"]["none"]["seed"]
        best = load_checkpoint(measured.out.checkpoints / RETRAINED_FILE)
        assert same_weights(best.model, measured.retrained[seed].model)
        naive = load_checkpoint(measured.out.checkpoints / BEST_FILES["none"])
        assert same_weights(measured.naive[seed].model, naive.model)
        assert best.provenance["retrained"] == "decoder"
        assert best.provenance["dataset_sha256"] == measured.dataset.sha256
        assert torch.equal(best.normalization["min"], torch.from_numpy(measured.dataset.normaliser.low))

    def test_saves_naive_as_it_was(self, measured: Measured) -> None:
        again = load_codecs(measured.out, measured.training, measured.dataset)["none"]
        test = measured.test.chunks
        digests = [run["reconstruction_sha256"] for run in measured.training["conditionings"]["none"]["runs"]]
        assert [reconstruction_sha256(codec, test) for codec in again] == digests


class TestChunkDecoder:
    def test_starts_as_the_naive_decoder(self) -> None:
        naive = make_model()
        x = torch.randn(5, 8 * 7, generator=torch.Generator().manual_seed(1))
        decoder = ChunkDecoder(naive, 8)
        with torch.no_grad():
            decoded, codes = decoder(x)
            expected = naive(x.unflatten(1, (8, 7)))
        assert torch.equal(codes, expected[1])
        assert torch.equal(decoded, expected[0].flatten(1))

    def test_trains_nothing_of_the_naive_model(self) -> None:
        naive = make_model()
        decoder = ChunkDecoder(naive, 8)
        assert not any(parameter.requires_grad for parameter in decoder.naive.parameters())
        assert all(parameter.requires_grad for parameter in decoder.context.parameters())
        assert all(parameter.requires_grad for parameter in naive.parameters())
        loss = decoder(torch.ones(2, 56))[0].square().mean()
        loss.backward()
        assert decoder.context[2].bias.grad.abs().sum() > 0

    def test_sees_the_tokens_of_other_steps(self, measured: Measured) -> None:
        for naive, of_chunk in zip(measured.naive, measured.of_chunks, strict=True):
            assert isinstance(of_chunk.decoder, ChunkReader)
            assert same_weights(naive.model, of_chunk.decoder.model.naive)
            codes = of_chunk.encode(measured.test.chunks.actions[:1]).codes
            changed = codes.copy()
            changed[0, 5, :, 0] = (codes[0, 5, :, 0] + 1) % of_chunk.vocabulary
            first_step = [of_chunk.decode(Tokens(each))[0, 0] for each in (codes, changed)]
            assert not np.array_equal(*first_step)
            alone = [naive.decode(Tokens(each))[0, 0] for each in (codes, changed)]
            assert np.array_equal(*alone)

    def test_tokens_and_bits_are_naives(self, measured: Measured) -> None:
        chunks = measured.test.chunks.actions
        for naive, of_chunk in zip(measured.naive, measured.of_chunks, strict=True):
            tokens = of_chunk.encode(chunks)
            assert np.array_equal(tokens.codes, naive.encode(chunks).codes)
            assert tokens.side is None
            assert of_chunk.bits(tokens) == naive.bits(tokens)
            assert of_chunk.decode(tokens).shape == chunks.shape


class TestOtherDecoder:
    def test_with_itself_is_the_codec_itself(self, measured: Measured) -> None:
        naive, chunks = measured.naive[0], measured.test.chunks.actions
        same = OtherDecoder(naive, naive)
        tokens = same.encode(chunks)
        assert np.array_equal(tokens.codes, naive.encode(chunks).codes)
        assert np.array_equal(same.decode(tokens), naive.decode(naive.encode(chunks)))
        assert (same.bits(tokens), same.vocabulary) == (naive.bits(tokens), naive.vocabulary)

    def test_encodes_by_the_one_and_decodes_by_the_other(self, measured: Measured) -> None:
        naive, scale = (load_codecs(measured.out, measured.training, measured.dataset)[n][0] for n in ("none", "scale"))
        crossed, chunks = OtherDecoder(naive, scale), measured.test.chunks.actions
        assert np.array_equal(crossed.encode(chunks).codes, naive.encode(chunks).codes)
        tokens = scale.encode(chunks)
        assert np.array_equal(crossed.decode(tokens), scale.decode(tokens))

    def test_a_single_naive_model_goes_with_every_decoder(self, measured: Measured) -> None:
        trained = load_codecs(measured.out, measured.training, measured.dataset)
        paired = option_b._crossed(trained["none"], trained["scale"])
        assert [each.encoder for each in paired] == trained["none"]
        single = option_b._crossed(trained["none"][:1], trained["scale"])
        assert [each.encoder for each in single] == trained["none"][:1] * 2
        assert [each.decoder for each in single] == trained["scale"]


class TestMeasurement:
    def test_has_every_way(self, measured: Measured) -> None:
        rows = measured.found["rows"]
        assert list(rows) == WAYS
        for row in rows.values():
            assert row["mse"] == row["errors"]["mse"]
            assert row["mse"]["low"] <= row["mse"]["mean"] <= row["mse"]["high"]
            assert len(row["mse"]["per_seed"]) == 2

    def test_errors_are_those_of_the_codecs(self, measured: Measured) -> None:
        rows = measured.found["rows"]
        for key, codecs in (
            ("naive", measured.naive),
            ("retrained", measured.retrained),
            ("retrained_chunk", measured.of_chunks),
        ):
            assert rows[key]["mse"]["per_seed"] == pytest.approx([mse_of(codec, measured) for codec in codecs])

    def test_gains_are_over_naives_own_decoder(self, measured: Measured) -> None:
        rows = measured.found["rows"]
        assert rows["naive"]["less_than_naive"]["mean"] == 0.0
        for row in rows.values():
            gain = 1 - row["mse"]["mean"] / rows["naive"]["mse"]["mean"]
            assert row["less_than_naive"]["mean"] == pytest.approx(gain)

    def test_training_on_helps_on_its_own_tokens(self, measured: Measured) -> None:
        assert measured.found["rows"]["retrained"]["less_than_naive"]["mean"] > 0
        assert measured.found["rows"]["retrained_chunk"]["less_than_naive"]["mean"] > 0


@pytest.fixture(scope="module")
def given(measured: Measured, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Evidence]:
    """A run with a single naive model of the user's own, beside two seeds of the others."""
    folder = tmp_path_factory.mktemp("given")
    training = train_into(folder, seeds=2, naive=str(measured.out.checkpoints / BEST_FILES["none"]))
    with quickly():
        return folder, measure_option_b(OutputFolder.at(str(folder)), make_dataset(), training, STEPS, ignore_progress)


class TestSingleNaiveModel:
    def test_has_one_decoder_retrained(self, given: tuple[Path, Evidence]) -> None:
        folder, content = given
        assert len(content["files"]) == 1
        assert same_weights(
            load_checkpoint(folder / "checkpoints" / content["files"][0]).model,
            load_checkpoint(folder / "checkpoints" / RETRAINED_FILE).model,
        )

    def test_is_held_against_every_seed_of_the_others(self, given: tuple[Path, Evidence]) -> None:
        seeds = {key: len(row["mse"]["per_seed"]) for key, row in given[1]["rows"].items()}
        assert seeds == dict(zip(WAYS, (1, 2, 2, 1, 1, 2), strict=True))
        for row in given[1]["rows"].values():
            gain = 1 - row["mse"]["mean"] / given[1]["rows"]["naive"]["mse"]["mean"]
            assert row["less_than_naive"]["mean"] == pytest.approx(gain)
