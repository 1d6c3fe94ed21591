"""The networks that the catalogue names, and decoders of naive tokens that leave the tokens as they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import SMALL, compare_in, make_dataset, quickly, same_weights, train_into
from torch import nn

from rfsq_robust import ActionRFSQAE, Conditioning, load_checkpoint
from workbook.codecs.catalogue import (
    CHUNK_LATENTS,
    CHUNK_LEVELS,
    QUEST_STEPS,
    SWEEP_LATENTS,
    SWEEP_LEVELS,
    Fitting,
    Network,
    Setting,
    Unit,
    catalogue,
)
from workbook.codecs.chunk_transformers import MANNERS, ChunkTransformer
from workbook.codecs.learned import QUANTIZERS, LearnedAE
from workbook.codecs.other_decoder import ChunkDecoder, ChunkReader, OtherDecoder
from workbook.codecs.protocol import Codec, Tokens
from workbook.codecs.rfsq import RFSQCodec, load_codec, reconstruction_sha256
from workbook.common.errors import InputError
from workbook.common.paths import OutputFolder
from workbook.data.dataset import Dataset
from workbook.evaluation.comparison import Comparison
from workbook.evaluation.score import HeldOut, Scores
from workbook.training import baselines
from workbook.training.baselines import (
    BaselineConfig,
    NetworkJob,
    decoder_jobs,
    network_jobs,
    train_baselines,
    train_jobs,
)
from workbook.training.data import TrainData
from workbook.training.runs import (
    BEST_FILES,
    RETRAINED_FILE,
    load_fitting,
    load_rfsq,
    load_transformers,
    retrained_name,
    save_transformers,
)
from workbook.training.stack import Alone
from workbook.training.trainer import Job, TrainConfig, build_model

WAYS = ("by_fixed_scale", "by_layernorm", "by_retrained", "by_chunk_decoder")
CONFIG = replace(SMALL, epochs=6)
STEPS = BaselineConfig(10_000)  # as many epochs as the RFSQ had


class TestNetworks:
    def jobs(self, seeds: int = 1, config: BaselineConfig | None = None, base: TrainConfig = SMALL) -> list[NetworkJob]:
        """What would be trained, with one seed each."""
        wanted = network_jobs(make_dataset(), base, seeds, config or BaselineConfig())
        return [replace(job, seeds=(seed,)) for job in wanted for seed in job.seeds]

    def test_without_full_each_quantizer_and_conditioning_once_a_seed(self) -> None:
        jobs = self.jobs(3)
        assert sorted((job.network.quantizer, job.network.unit, job.seeds) for job in jobs) == sorted(
            (name, unit, (seed,))
            for name, unit in (
                ("residual_vq", "step"),
                ("grouped_residual_fsq", "step"),
                ("none", "chunk"),
                ("scale", "chunk"),
            )
            for seed in range(3)
        )

    def test_full_adds_every_number_of_latents_and_levels(self) -> None:
        jobs = self.jobs(2, BaselineConfig(full=True))
        swept = 2 * 2 * len(SWEEP_LATENTS) * len(SWEEP_LEVELS)  # naive and fixed scale, of steps and of chunks
        once = [job.network for job in jobs if job.network.quantizer in MANNERS]
        assert len(once) == len(set(once)) == 1 + len(QUEST_STEPS)
        assert len(jobs) == len(set(jobs)) == 2 * (4 + swept) + len(once)
        sizes = {(job.config.hidden_dim, job.config.num_levels) for job in jobs if job.network.swept}
        assert sizes == {(latents, levels) for latents in SWEEP_LATENTS for levels in SWEEP_LEVELS}

    def test_are_trained_for_so_many_batches(self) -> None:
        base = replace(SMALL, epochs=100)
        batches = -(-len(make_dataset().train_chunks().actions) // base.batch_size)
        short, long, full = (
            {job.network.unit: job.config.epochs for job in self.jobs(1, config, base)}
            for config in (BaselineConfig(10 * batches), BaselineConfig(10_000), BaselineConfig(10 * batches, True))
        )
        assert short == {"step": 10, "chunk": 20}
        assert long == full == {"step": 100, "chunk": 100}

    def test_transformers_of_chunks_for_so_many_batches_at_most(self, monkeypatch: pytest.MonkeyPatch) -> None:
        batches = -(-len(make_dataset().train_chunks().actions) // SMALL.batch_size)
        for most, wanted in ((10 * batches, 10), (batches // 2, 1), (1000 * batches, 100)):
            monkeypatch.setattr(baselines, "TRANSFORMER_BATCHES", most)
            jobs = self.jobs(1, BaselineConfig(full=True), replace(SMALL, epochs=100))
            assert {job.config.epochs for job in jobs if job.network.quantizer in MANNERS} == {wanted}

    def test_a_transformer_of_chunks_is_trained_to_less_error(self) -> None:
        dataset = make_dataset()
        data = {"step": TrainData.of(dataset), "chunk": TrainData.of_whole_chunks(dataset)}
        errors = []
        for epochs in (1, 8):
            job = NetworkJob(Network("oat", "chunk"), replace(SMALL, epochs=epochs), (0,))
            (model,) = baselines._train_network(data, job, lambda: None)
            assert isinstance(model, ChunkTransformer)
            assert not model.training
            errors.append(float(Alone(model, data["chunk"]).validation_mse()))
        assert errors[1] < errors[0]

    def test_for_one_epoch_at_least(self) -> None:
        assert min(job.config.epochs for job in self.jobs(1, BaselineConfig(1))) == 1

    def test_no_steps_are_refused(self) -> None:
        with pytest.raises(InputError, match="baseline_steps is 0"):
            BaselineConfig(baseline_steps=0)

    def test_are_of_their_kind_and_size_and_differ_from_seed_to_seed(self) -> None:
        seen: list[tuple[int, int]] = []
        naive = RFSQCodec("none", build_model(SMALL, 7, Job("none", 0)).eval(), make_dataset().normaliser)
        with quickly():
            found, _ = train_baselines(
                make_dataset(), [naive], SMALL, 2, BaselineConfig(1), lambda done, total: seen.append((done, total))
            )
        for quantizer in ("residual_vq", "grouped_residual_fsq"):
            models = found[Network(quantizer, "step")]
            assert all(isinstance(model, LearnedAE) for model in models)
        for conditioning in ("none", "scale"):
            first, second = found[Network(conditioning, "chunk", CHUNK_LATENTS, CHUNK_LEVELS)]
            assert isinstance(first, ActionRFSQAE)
            assert isinstance(second, ActionRFSQAE)
            assert (first.action_dim, first.hidden_dim, first.rfsq.num_levels) == (8 * 7, CHUNK_LATENTS, CHUNK_LEVELS)
            assert not same_weights(first, second)
        assert seen[-1][0] == seen[-1][1] > 0


@dataclass(frozen=True)
class Compared:
    """Two seeds of every conditioning, and what 03_compare makes of them."""

    out: OutputFolder
    dataset: Dataset
    training: dict[str, Any]
    found: Comparison
    fitting: Fitting

    @property
    def naive(self) -> list[RFSQCodec]:
        return load_rfsq(self.out, self.training, self.dataset)["none"]

    @property
    def retrained(self) -> list[RFSQCodec]:
        """As they were in memory."""
        codecs = [codec for codec in self.codecs("naive_by_retrained") if isinstance(codec, RFSQCodec)]
        assert len(codecs) == 2
        return codecs

    @property
    def of_chunks(self) -> list[OtherDecoder]:
        codecs = [codec for codec in self.codecs("naive_by_chunk_decoder") if isinstance(codec, OtherDecoder)]
        assert len(codecs) == 2
        return codecs

    def codecs(self, name: str) -> list[Codec]:
        return list(catalogue()[name].codecs(self.fitting, Setting.of(layers=self.fitting.layers)))

    @property
    def test(self) -> HeldOut:
        return HeldOut.of(self.dataset)

    @property
    def scores(self) -> Scores:
        return Scores(self.found.scores)


def decoders_of(dataset: Dataset, naive: Sequence[RFSQCodec]) -> dict[Unit, list[nn.Module]]:
    jobs = decoder_jobs(dataset, naive, CONFIG, STEPS)
    return dict(zip((job.unit for job in jobs), train_jobs(dataset, naive[0].normaliser, jobs), strict=True))


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compared]:
    folder = tmp_path_factory.mktemp("option_b")
    training = train_into(folder, CONFIG, seeds=2)
    out, dataset = OutputFolder.at(str(folder)), make_dataset()
    rfsq = load_rfsq(out, training, dataset)
    found = compare_in(folder, training, STEPS)
    with quickly():
        decoders = decoders_of(dataset, rfsq["none"])
        yield Compared(out, dataset, training, found, Fitting(dataset, rfsq, decoders=decoders))


def mse_of(codec: Codec, test: HeldOut) -> float:
    rows = test.rows(codec.decode(codec.encode(test.chunks.actions)))
    return float(np.average(rows.mse, weights=rows.steps))


class TestRetrainedDecoder:
    def test_every_bit_of_the_encoder_stays(self, compared: Compared) -> None:
        for naive, retrained in zip(compared.naive, compared.retrained, strict=True):
            one, other = naive.model.state_dict(), retrained.model.state_dict()
            for name in one:
                assert torch.equal(one[name], other[name]) != name.startswith("decoder."), name

    def test_so_the_tokens_are_naives(self, compared: Compared) -> None:
        chunks = np.concatenate([episode.actions for episode in compared.dataset.episodes])[:, None]
        for naive, retrained in zip(compared.naive, compared.retrained, strict=True):
            assert np.array_equal(naive.encode(chunks).codes, retrained.encode(chunks).codes)

    def test_each_goes_on_from_its_own_seed(self, compared: Compared) -> None:
        weights = [codec.model.encoder[0].weight for codec in compared.retrained]
        assert not torch.equal(*weights)

    def test_checkpoints_load_and_decode_as_in_memory(self, compared: Compared) -> None:
        chunks = compared.test.chunks.actions
        for position, retrained in enumerate(compared.retrained):
            path = compared.out.seeds / retrained_name(position)
            assert same_weights(load_checkpoint(path).model, retrained.model)
            loaded = load_codec(path, compared.dataset.normaliser)
            tokens = loaded.encode(chunks)
            assert np.array_equal(loaded.decode(tokens), retrained.decode(tokens))

    def test_the_best_is_that_of_naives_best_seed(self, compared: Compared) -> None:
        seed = compared.training["best"]["none"]["seed"]
        best = load_checkpoint(compared.out.checkpoints / RETRAINED_FILE)
        assert same_weights(best.model, compared.retrained[seed].model)
        naive = load_checkpoint(compared.out.checkpoints / BEST_FILES["none"])
        assert same_weights(compared.naive[seed].model, naive.model)
        assert best.provenance["retrained"] == "decoder"
        assert best.provenance["dataset_sha256"] == compared.dataset.sha256
        assert best.normalization is not None
        assert torch.equal(best.normalization["min"], torch.from_numpy(compared.dataset.normaliser.low))

    def test_leaves_naive_as_it_was(self, compared: Compared) -> None:
        chunks = compared.test.chunks
        digests = [run["reconstruction_sha256"] for run in compared.training["conditionings"]["none"]["runs"]]
        assert [reconstruction_sha256(codec, chunks) for codec in compared.naive] == digests

    def test_is_what_a_finished_run_hands_on(self, compared: Compared) -> None:
        """With KLT-RFSQ as it was fitted, so that what follows plays and predicts the codecs that were scored."""
        loaded, test = load_fitting(compared.out, compared.training, compared.dataset), compared.test
        for retrained, again in zip(compared.retrained, loaded.decoders["step"], strict=True):
            assert isinstance(again, ActionRFSQAE)
            assert same_weights(again, retrained.model)
        (variable,) = catalogue()["klt_rfsq_variable"].codecs(loaded, Setting.of(rate=80))
        scored = compared.scores.estimate("mse", "klt_rfsq_variable", "rate=80").mean
        assert mse_of(variable, test) == pytest.approx(scored)


class TestChunkDecoder:
    def test_sees_the_tokens_of_other_steps(self, compared: Compared) -> None:
        for naive, of_chunk in zip(compared.naive, compared.of_chunks, strict=True):
            assert isinstance(of_chunk.decoder, ChunkReader)
            assert same_weights(naive.model, of_chunk.decoder.model.naive)
            codes = of_chunk.encode(compared.test.chunks.actions[:1]).codes
            changed = codes.copy()
            changed[0, 5, :, 0] = (codes[0, 5, :, 0] + 1) % of_chunk.vocabulary
            first_step = [of_chunk.decode(Tokens(each))[0, 0] for each in (codes, changed)]
            assert not np.array_equal(*first_step)
            alone = [naive.decode(Tokens(each))[0, 0] for each in (codes, changed)]
            assert np.array_equal(*alone)

    def test_tokens_and_bits_are_naives(self, compared: Compared) -> None:
        chunks = compared.test.chunks.actions
        for naive, of_chunk in zip(compared.naive, compared.of_chunks, strict=True):
            tokens = of_chunk.encode(chunks)
            assert np.array_equal(tokens.codes, naive.encode(chunks).codes)
            assert tokens.side is None
            assert of_chunk.bits(tokens) == naive.bits(tokens)
            assert of_chunk.decode(tokens).shape == chunks.shape

    def test_is_trained_in_the_units_of_the_naive_model(self, compared: Compared) -> None:
        """A model of the user's own may carry another normaliser than the data set's."""
        dataset, (naive, _) = compared.dataset, compared.naive
        wider = replace(dataset.normaliser, low=dataset.normaliser.low * 2, high=dataset.normaliser.high * 2)
        wide = replace(naive, normaliser=wider)
        with quickly():
            decoders = decoders_of(dataset, [wide])
        (model,) = decoders["chunk"]
        assert isinstance(model, ChunkDecoder)
        of_chunk = OtherDecoder(wide, ChunkReader(model, wider))
        assert mse_of(of_chunk, compared.test) < mse_of(wide, compared.test)


class TestOptionB:
    def test_errors_are_those_of_the_codecs(self, compared: Compared) -> None:
        for name in ("naive", "naive_by_retrained", "naive_by_chunk_decoder"):
            found = compared.scores.estimate("mse", name)
            assert found.per_seed == pytest.approx([mse_of(codec, compared.test) for codec in compared.codecs(name)])

    @pytest.mark.parametrize("way", WAYS)
    def test_costs_what_naive_costs(self, compared: Compared, way: str) -> None:
        assert compared.scores.cost(f"naive_{way}") == compared.scores.cost("naive")

    @pytest.mark.parametrize("way", WAYS)
    def test_gains_are_over_naives_own_decoder(self, compared: Compared, way: str) -> None:
        naive, found = (compared.scores.estimate("mse", name).mean for name in ("naive", f"naive_{way}"))
        assert naive is not None
        assert found is not None
        assert compared.scores.improvement(f"naive_{way}").mean == pytest.approx(1 - found / naive)

    @pytest.mark.parametrize("way", ["by_retrained", "by_chunk_decoder"])
    def test_training_on_helps_on_its_own_tokens(self, compared: Compared, way: str) -> None:
        assert (compared.scores.improvement(f"naive_{way}").mean or 0.0) > 0


@pytest.fixture(scope="module")
def given(compared: Compared, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Scores]:
    """A run with a single naive model of the user's own, beside two seeds of the others."""
    folder = tmp_path_factory.mktemp("given")
    training = train_into(folder, seeds=2, naive=str(compared.out.checkpoints / BEST_FILES["none"]))
    return folder, Scores(compare_in(folder, training, STEPS).scores)


class TestSingleNaiveModel:
    def test_has_one_decoder_retrained(self, given: tuple[Path, Scores]) -> None:
        checkpoints = given[0] / "checkpoints"
        (file,) = (checkpoints / "seeds").glob("*_retrained.pt")
        assert file.name == retrained_name(0)
        assert same_weights(load_checkpoint(file).model, load_checkpoint(checkpoints / RETRAINED_FILE).model)

    def test_is_held_against_every_seed_of_the_others(self, given: tuple[Path, Scores]) -> None:
        scores = given[1]
        wanted = dict(zip(("naive", *(f"naive_{way}" for way in WAYS), "fixed_scale"), (1, 2, 2, 1, 1, 2), strict=True))
        naive = scores.estimate("mse", "naive").mean
        assert naive is not None
        for name, seeds in wanted.items():
            found = scores.estimate("mse", name)
            assert len(found.per_seed) == scores.cost(name)["seeds"] == seeds
            assert found.mean is not None
            assert scores.improvement(name).mean == pytest.approx(1 - found.mean / naive)


class TestKept:
    """Transformers of chunks, which later notebooks play and predict where 03_compare has trained them."""

    @pytest.fixture
    def trained(self) -> dict[Network, list[torch.nn.Module]]:
        torch.manual_seed(0)
        every = [network for manner in MANNERS for network in catalogue()[manner].networks(True)]
        return {each: [ChunkTransformer(each.quantizer, 8, 7, each.steps_a_token).eval()] for each in every}  # type: ignore[arg-type]

    def test_come_back_as_they_were_and_are_then_predicted(
        self, trained: dict[Network, list[torch.nn.Module]], out: OutputFolder
    ) -> None:
        out.seeds.mkdir(parents=True)
        save_transformers(out, trained | {Network("residual_vq", "step"): []})
        assert len([*out.seeds.iterdir()]) == len(trained)
        found = load_transformers(out, make_dataset(), full=True)
        assert found.keys() == trained.keys()
        vectors = torch.rand(5, 56)
        for network, (model,) in found.items():
            assert torch.equal(model(vectors)[0], trained[network][0](vectors)[0])
        fitting = Fitting(make_dataset(), networks=found, full=True)
        for manner in MANNERS:
            entry = catalogue()[manner]
            assert [len(entry.codecs(fitting, setting)) for setting in entry.predicted(fitting)] == [1]
            assert not entry.predicted(Fitting(make_dataset(), full=True))

    def test_of_another_run_are_not_taken(
        self, trained: dict[Network, list[torch.nn.Module]], out: OutputFolder
    ) -> None:
        out.seeds.mkdir(parents=True)
        save_transformers(out, trained)
        assert load_transformers(out, make_dataset(), full=False) == {}

    @pytest.mark.parametrize("damage", ["damaged", "not there"])
    def test_that_are_damaged_or_missing_are_one_sentence(
        self, trained: dict[Network, list[torch.nn.Module]], out: OutputFolder, damage: str
    ) -> None:
        out.seeds.mkdir(parents=True)
        save_transformers(out, trained)
        path = sorted(out.seeds.iterdir())[0]
        if damage == "damaged":
            path.write_bytes(b"cut short")
        else:
            path.unlink()
        with pytest.raises(InputError, match=f"{path.name}: is {damage}; run 03_compare again"):
            load_transformers(out, make_dataset(), full=True)


def test_conditionings_of_networks_are_those_of_the_catalogue() -> None:
    networks = {network for entry in catalogue().values() for network in entry.networks(True)}
    names: set[Conditioning] = {"none", "scale"}
    assert {network.quantizer for network in networks} == names | {*QUANTIZERS, *MANNERS}
