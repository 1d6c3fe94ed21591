"""Training, and the whole chain from training to results.json and the figures, on a few small random walks."""

from __future__ import annotations

import json
import math
import multiprocessing
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from rfsq_robust import CONDITIONINGS, ActionRFSQAE, Conditioning, load_checkpoint
from workbook import data_card, tables, training, variants
from workbook.chunks import Normaliser
from workbook.comparison import compare, load_codecs
from workbook.conventions import Changes, clip_episodes
from workbook.dataset import Dataset, Prepared, load_dataset, save_dataset
from workbook.episodes import Episode, Origin
from workbook.errors import InputError
from workbook.figures import comparison as comparison_figures
from workbook.figures import data as data_figures
from workbook.figures import residuals as residual_figures
from workbook.figures import training as training_figures
from workbook.figures.style import Plot
from workbook.layout import LIBERO, ActionLayout
from workbook.paths import OutputFolder
from workbook.residual_analysis import analyse
from workbook.results import assemble, judge_comparison
from workbook.split import split_episodes
from workbook.stages import STAGES, read_stage, write_stage
from workbook.training import (
    Job,
    TrainConfig,
    TrainData,
    TrainedModel,
    build_model,
    choose_device,
    measure_step_seconds,
    train,
    train_all,
    validation_mse,
)
from workbook.variants import BEST_FILES, train_variants

Evidence = dict[str, Any]
SMALL = TrainConfig(epochs=2, batch_size=16, learning_rate=5e-3, hidden_dim=6, num_layers=4)
DECODING = [name for name in CONDITIONINGS if name != "layernorm"]
PNG = b"\x89PNG\r\n\x1a\n"


def random_walk(number: int, rng: np.random.Generator) -> Episode:
    steps = int(rng.integers(20, 40))
    motion = np.clip(np.cumsum(rng.normal(0, 0.1, (steps, 6)), axis=0), -0.9, 0.9)
    motion[::9] = 0.0
    gripper = np.where((np.arange(steps) // 9 + number) % 2, 1.0, -1.0)
    return Episode(np.column_stack([motion, gripper]), f"task {number % 2}", "walks.hdf5", f"demo_{number}")


def make_dataset(episodes: int = 10, layout: ActionLayout = LIBERO) -> Dataset:
    rng = np.random.default_rng(0)
    walks = tuple(random_walk(number, rng) for number in range(episodes))
    split = split_episodes(walks, 0)
    normaliser = Normaliser.fit(np.concatenate([walks[position].actions for position in split.train]))
    return Dataset(layout, walks, split, normaliser, 8, 8)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As in the workers, so that results agree to the last bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data() -> TrainData:
    return TrainData.of(make_dataset())


def same_weights(first: ActionRFSQAE, second: ActionRFSQAE) -> bool:
    one, other = first.state_dict(), second.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class TestTrainConfig:
    @pytest.mark.parametrize(
        "wrong",
        [
            {"epochs": 0},
            {"batch_size": 0},
            {"hidden_dim": 1},
            {"num_layers": 0},
            {"num_levels": 1},
            {"learning_rate": 0.0},
            {"learning_rate": -1.0},
            {"learning_rate": math.nan},
            {"learning_rate": math.inf},
        ],
    )
    def test_refuses_what_cannot_be_trained(self, wrong: dict[str, float]) -> None:
        with pytest.raises(InputError, match=next(iter(wrong))):
            TrainConfig(**wrong)

    def test_refuses_keys_that_it_does_not_have(self) -> None:
        with pytest.raises(TypeError, match="momentum"):
            TrainConfig(momentum=0.9)


class TestChooseDevice:
    def test_refuses_unknown_names(self) -> None:
        with pytest.raises(InputError, match="'tpu'"):
            choose_device("tpu")

    def test_refuses_cuda_where_there_is_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(InputError, match="no CUDA device"):
            choose_device("cuda")
        assert choose_device("auto") == "cpu"

    def test_takes_cuda_where_there_is_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        assert choose_device() == choose_device("cuda") == "cuda"
        assert choose_device("cpu") == "cpu"


class TestBuildModel:
    def test_the_same_seed_starts_every_conditioning_from_the_same_weights(self) -> None:
        models = [build_model(SMALL, 7, Job(name, 3)) for name in CONDITIONINGS]
        for model in models[1:]:
            for ours, theirs in ((models[0].encoder, model.encoder), (models[0].decoder, model.decoder)):
                assert all(map(torch.equal, ours.state_dict().values(), theirs.state_dict().values()))

    def test_another_seed_starts_elsewhere(self) -> None:
        first, second = (build_model(SMALL, 7, Job("scale", seed)) for seed in (0, 1))
        assert not torch.equal(first.encoder[0].weight, second.encoder[0].weight)

    def test_has_the_sizes_of_the_config(self) -> None:
        config = build_model(SMALL, 7, Job("scale", 0)).config
        expected = {"action_dim": 7, "hidden_dim": 6, "num_layers": 4, "num_levels": 7, "conditioning": "scale"}
        assert {name: config[name] for name in expected} == expected


class TestTrain:
    def test_lowers_the_validation_error(self, data: TrainData) -> None:
        trained = train(replace(SMALL, epochs=8, learning_rate=1e-2), Job("scale", 0), data)
        assert len(trained.curve) == 8
        assert trained.curve[-1] < 0.8 * trained.curve[0]

    @pytest.mark.parametrize("conditioning", CONDITIONINGS)
    def test_keeps_the_best_epoch(self, data: TrainData, conditioning: Conditioning) -> None:
        unsteady = replace(SMALL, epochs=8, learning_rate=0.3)
        trained = train(unsteady, Job(conditioning, 0), data)
        assert trained.mse == min(trained.curve)
        assert trained.epoch == trained.curve.index(min(trained.curve)) + 1
        assert validation_mse(trained.model, data) == trained.mse

    def test_returns_a_model_ready_for_use(self, data: TrainData) -> None:
        trained = train(SMALL, Job("frozen_layernorm", 0), data)
        assert not trained.model.training
        assert trained.seconds > 0

    @pytest.mark.parametrize("conditioning", CONDITIONINGS)
    def test_the_same_job_gives_the_same_weights(self, data: TrainData, conditioning: Conditioning) -> None:
        first, second = (train(SMALL, Job(conditioning, 5), data) for _ in range(2))
        assert first.curve == second.curve
        assert same_weights(first.model, second.model)

    def test_another_seed_gives_other_weights(self, data: TrainData) -> None:
        first, second = (train(SMALL, Job("scale", seed), data) for seed in (0, 1))
        assert not same_weights(first.model, second.model)

    def test_the_random_state_of_the_caller_does_not_matter(self, data: TrainData) -> None:
        first = train(SMALL, Job("scale", 0), data)
        torch.manual_seed(12345)
        torch.rand(17)
        assert same_weights(first.model, train(SMALL, Job("scale", 0), data).model)

    def test_reports_every_epoch_once(self, data: TrainData) -> None:
        seen: list[tuple[int, float]] = []
        trained = train(replace(SMALL, epochs=3), Job("none", 0), data, lambda epoch, mse: seen.append((epoch, mse)))
        assert seen == list(enumerate(trained.curve, start=1))

    @pytest.mark.parametrize("conditioning", CONDITIONINGS)
    def test_padded_steps_have_no_influence(self, data: TrainData, conditioning: Conditioning) -> None:
        assert not data.train_valid.all()
        other = replace(data, train=with_padding(data.train, data.train_valid, 0.7))
        first, second = (train(SMALL, Job(conditioning, 0), each) for each in (data, other))
        assert first.curve == second.curve
        assert same_weights(first.model, second.model)


def with_padding(actions: Tensor, valid: Tensor, value: float) -> Tensor:
    return torch.where(valid.unsqueeze(-1), actions, torch.full_like(actions, value))


def test_the_step_is_timed_for_each_conditioning(data: TrainData) -> None:
    seconds = measure_step_seconds(SMALL, ("none", "scale"), data, rounds=3, steps=1)
    assert list(seconds) == ["none", "scale"]
    assert all(times.shape == (3,) and (times > 0).all() for times in seconds.values())


JOBS = [Job("scale", 1), Job("none", 0), Job("frozen_layernorm", 0)]


@dataclass(frozen=True)
class ManyTrained:
    models: list[TrainedModel]
    progress: list[tuple[int, int]]


@pytest.fixture(scope="module")
def over_processes(data: TrainData) -> ManyTrained:
    progress: list[tuple[int, int]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "available_cores", lambda: 2)
        models = train_all(SMALL, JOBS, data, on_progress=lambda done, total: progress.append((done, total)))
    return ManyTrained(models, progress)


class TestTrainAll:
    def test_gives_what_train_gives_in_the_order_of_jobs(self, data: TrainData, over_processes: ManyTrained) -> None:
        assert [trained.job for trained in over_processes.models] == JOBS
        for trained in over_processes.models:
            here = train(SMALL, trained.job, data)
            assert same_weights(trained.model, here.model)
            assert (trained.curve, trained.epoch, trained.mse) == (here.curve, here.epoch, here.mse)

    def test_progress_rises_to_the_total(self, over_processes: ManyTrained) -> None:
        done = [done for done, _ in over_processes.progress]
        assert {total for _, total in over_processes.progress} == {len(JOBS) * SMALL.epochs}
        assert done == sorted(done)
        assert done[-1] == len(JOBS) * SMALL.epochs

    def test_leaves_no_process(self, over_processes: ManyTrained) -> None:
        assert over_processes.models
        assert multiprocessing.active_children() == []

    def test_in_turn_it_is_the_same(
        self, data: TrainData, over_processes: ManyTrained, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(training, "available_cores", lambda: 1)
        progress: list[tuple[int, int]] = []
        in_turn = train_all(SMALL, JOBS, data, on_progress=lambda done, total: progress.append((done, total)))
        assert [trained.curve for trained in in_turn] == [trained.curve for trained in over_processes.models]
        assert progress == [(k, len(JOBS) * SMALL.epochs) for k in range(1, len(JOBS) * SMALL.epochs + 1)]

    def test_an_error_in_a_worker_surfaces_and_leaves_no_process(
        self, data: TrainData, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(training, "available_cores", lambda: 2)
        jobs = [Job(cast("Conditioning", "nonsense"), 0), Job("none", 0)]
        with pytest.raises(ValueError, match="nonsense"):
            train_all(replace(SMALL, epochs=100_000), jobs, data)
        assert multiprocessing.active_children() == []


def test_train_data_is_normalised_and_knows_its_padding() -> None:
    dataset = make_dataset()
    found = TrainData.of(dataset)
    assert found.train.dtype == found.validation.dtype == torch.float32
    assert found.train.amax(dim=(0, 1)).tolist() == pytest.approx([1.0] * 7)
    assert found.train.amin(dim=(0, 1)).tolist() == pytest.approx([-1.0] * 7)
    assert int(found.train_valid.sum()) == sum(len(episode.actions) for episode in dataset.part("train"))
    assert len(found.validation) == sum(len(episode.actions) for episode in dataset.part("validation"))


@dataclass(frozen=True)
class Run:
    """What the four notebooks leave behind."""

    out: OutputFolder
    dataset: Dataset
    training: Evidence
    comparison: Evidence
    residuals: Evidence
    results: Evidence

    @property
    def written(self) -> Evidence:
        return json.loads(self.out.results.read_text(encoding="utf8"))


@contextmanager
def quickly() -> Iterator[None]:
    """No worker processes, and a short measurement of the training step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "available_cores", lambda: 1)
        patch.setattr(variants, "measure_step_seconds", partial(measure_step_seconds, rounds=5, steps=1))
        yield


def train_into(folder: Path, config: TrainConfig = SMALL, seeds: int = 1, naive: str = "") -> Evidence:
    with quickly():
        return train_variants(OutputFolder.at(str(folder)), make_dataset(), config, seeds, "cpu", naive)


def run_notebooks(folder: Path, config: TrainConfig, seeds: int, naive: str = "", layout: ActionLayout = LIBERO) -> Run:
    """The calls of the four notebooks, in their order."""
    out = OutputFolder.at(str(folder))
    save_dataset(make_dataset(layout=layout), out)
    dataset = load_dataset(out)
    changes = Changes((), (), 0, clip_episodes(list(dataset.episodes), dataset.layout)[1])
    card = data_card.describe(Prepared(dataset, changes, Origin("random walks", "walks")))
    write_stage(out, "data", {"data": "walks"}, card)
    with quickly():
        content = train_variants(out, dataset, config, seeds, "cpu", naive)
    parameters = {"seeds": seeds, "device": "cpu", "naive_checkpoint": content["naive_checkpoint"]}
    trained = write_stage(out, "training", parameters, content)
    comparison = write_stage(out, "comparison", {}, compare(out, dataset, trained, lambda done, total: None))
    residuals = write_stage(out, "residuals", {}, analyse(out, dataset, read_stage(out, "training")))
    return Run(out, dataset, trained, comparison, residuals, assemble(out))


def plant_old_checkpoints(folder: Path) -> list[Path]:
    """Files as an earlier run with more seeds would have left them."""
    seeds = folder / "checkpoints" / "seeds"
    seeds.mkdir(parents=True)
    old = [seeds / "none_seed9.pt", seeds / "scale_seed9.pt", seeds / "none_given.pt", seeds.parent / "rfsq_best.pt"]
    for path in old:
        path.write_bytes(b"old")
    return old


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run")
    plant_old_checkpoints(folder)
    return run_notebooks(folder, SMALL, seeds=2)


def refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} in JSON")


class TestResults:
    def test_hold_a_verdict(self, run: Run) -> None:
        verdict = run.written["verdict"]
        assert verdict["word"] == "NOT SHOWN"
        assert verdict["sentence"].startswith("NOT EVIDENCE (2 of at least 100 epochs; 2 of at least 5 seeds; 2 of ")
        assert verdict == judge_comparison(run.training, run.comparison)[1]

    def test_hold_the_criteria(self, run: Run) -> None:
        criteria = run.written["criteria"]
        assert len(criteria) == 14
        for criterion in criteria:
            assert {"name", "threshold", "measured", "interval", "n", "status"} <= criterion.keys()
            assert criterion["status"] in ("met", "unmet", "not shown", "not run")

    def test_hold_every_conditioning(self, run: Run) -> None:
        models = run.written["models"]
        assert tuple(models) == CONDITIONINGS
        wanted = {"forward_mse", "token_mse", "token_errors", "bits", "residual_std", "entropy", "prefix_mse"}
        for name in CONDITIONINGS:
            assert wanted | {"train_seconds"} <= models[name].keys()
            assert models[name]["seeds"] == [0, 1]
            assert len(models[name]["token_mse"]["per_seed"]) == len(models[name]["train_seconds"]) == 2
            assert np.shape(models[name]["residual_std"]) == (2, SMALL.num_layers + 1)
            assert np.shape(models[name]["entropy"]) == (2, SMALL.num_layers)
            assert len(models[name]["prefix_mse"]) == SMALL.num_layers

    def test_hold_baselines_and_sentences(self, run: Run) -> None:
        written = run.written
        assert list(written["baselines"]) == ["bins16", "bins64", "bins256"]
        errors = [entry["token_mse"]["mean"] for entry in written["baselines"].values()]
        assert errors == sorted(errors, reverse=True)
        assert written["against"]
        assert written["partings"]
        assert len(written["options"]) == 3
        assert written["test"]["episodes"] == len(run.dataset.part("test"))
        assert written["test"]["steps"] == sum(len(episode.actions) for episode in run.dataset.part("test"))

    def test_hold_where_they_come_from(self, run: Run) -> None:
        provenance = run.written["provenance"]
        assert provenance["dataset_sha256"] == run.dataset.sha256
        assert provenance["data"] == "walks (random walks)"
        assert (provenance["seeds"], provenance["device"]) == ([0, 1], "cpu")
        assert list(provenance["parameters"]) == list(STAGES)
        assert {"code", "rfsq_robust_sha256", "python", "packages", "command", "written"} <= provenance.keys()
        assert run.written["training"]["naive_checkpoint"] is None

    def test_hold_no_nan(self, run: Run) -> None:
        for path in (run.out.results, *sorted(run.out.stages.glob("*.json"))):
            json.loads(path.read_text(encoding="utf8"), parse_constant=refuse_constant)

    def test_are_what_assemble_returns(self, run: Run) -> None:
        assert json.loads(json.dumps(run.results)) == run.written

    def test_need_every_stage_of_the_same_run(self, run: Run, tmp_path: Path) -> None:
        shutil.copytree(run.out.stages, tmp_path / "stages")
        out = OutputFolder(tmp_path)
        write_stage(out, "comparison", {"again": True}, run.comparison)
        with pytest.raises(InputError, match="04_residual_analysis"):
            assemble(out)
        (out.stages / "training.json").unlink()
        with pytest.raises(InputError, match="02_train_robust"):
            assemble(out)
        assert not out.results.exists()


class TestEvidence:
    @pytest.mark.parametrize("name", DECODING)
    def test_what_decodes_has_the_same_error_from_tokens_and_forward(self, run: Run, name: str) -> None:
        entry = run.results["models"][name]
        assert entry["decode_error"] == 0.0
        assert entry["token_mse"] == entry["forward_mse"]
        assert entry["prefix_mse"][-1] == entry["token_mse"]

    def test_layernorm_does_not_decode(self, run: Run) -> None:
        entry = run.results["models"]["layernorm"]
        assert entry["decode_error"] > 0
        assert entry["token_mse"]["mean"] > entry["forward_mse"]["mean"]
        assert entry["with_statistics"]["token_mse"]["mean"] == pytest.approx(entry["forward_mse"]["mean"], rel=0.01)
        assert entry["prefix_mse"][-1]["mean"] == pytest.approx(entry["with_statistics"]["token_mse"]["mean"])
        assert entry["with_statistics"]["bits"]["side"] == SMALL.num_layers * 8 * 2 * 16
        decodes = next(row for row in run.results["criteria"] if (row["model"], row["key"]) == ("layernorm", "decodes"))
        assert decodes["status"] == "unmet"

    def test_the_decode_error_is_the_largest_of_all_seeds(self, run: Run) -> None:
        chunks = run.dataset.held_out_chunks("test").actions
        codecs = load_codecs(run.out, run.training, run.dataset)["layernorm"]
        errors = [codec.decode_error(chunks) for codec in codecs]
        assert errors[0] != errors[1]
        assert run.results["models"]["layernorm"]["decode_error"] == max(errors)

    @pytest.mark.parametrize("name", CONDITIONINGS)
    def test_bits(self, run: Run, name: str) -> None:
        found = run.results["models"][name]["bits"]
        assert found["per_chunk"] == pytest.approx(8 * SMALL.hidden_dim * SMALL.num_layers * np.log2(SMALL.num_levels))
        assert found["side"] == 0
        assert 0 <= found["entropy"] <= found["per_chunk"]

    def test_naive_does_not_improve_on_itself(self, run: Run) -> None:
        gain = run.results["models"]["none"]["improvement_tokens"]
        assert (gain["low"], gain["mean"], gain["high"]) == (0.0, 0.0, 0.0)

    @pytest.mark.parametrize("name", CONDITIONINGS)
    def test_improvement_is_of_the_mean_errors(self, run: Run, name: str) -> None:
        models = run.results["models"]
        expected = 1 - models[name]["token_mse"]["mean"] / models["none"]["token_mse"]["mean"]
        assert models[name]["improvement_tokens"]["mean"] == pytest.approx(expected)

    def test_progress_of_the_comparison_ends_at_its_total(self, run: Run) -> None:
        seen: list[tuple[int, int]] = []
        again = compare(run.out, run.dataset, run.training, lambda done, total: seen.append((done, total)))
        assert seen[-1][0] == seen[-1][1]
        assert again["models"]["scale"]["token_mse"] == run.comparison["models"]["scale"]["token_mse"]

    def test_a_checkpoint_that_was_exchanged_is_noticed(self, run: Run, tmp_path: Path) -> None:
        shutil.copytree(run.out.checkpoints, tmp_path / "checkpoints")
        out = OutputFolder(tmp_path)
        shutil.copyfile(out.seeds / "scale_seed0.pt", out.seeds / "scale_seed1.pt")
        comparison = compare(out, run.dataset, run.training, lambda done, total: None)
        assert comparison["models"]["scale"]["checkpoints"]["loaded_and_identical"] == 1
        assert comparison["models"]["none"]["checkpoints"]["loaded_and_identical"] == 2
        criteria, _ = judge_comparison(run.training, comparison)
        assert {c.model: c.status for c in criteria if c.key == "checkpoint"} == {"layernorm": "met", "scale": "unmet"}


class TestCheckpoints:
    @pytest.mark.parametrize(("conditioning", "file"), BEST_FILES.items())
    def test_the_best_of_each_loads(self, run: Run, conditioning: Conditioning, file: str) -> None:
        loaded = load_checkpoint(run.out.checkpoints / file)
        runs = run.training["conditionings"][conditioning]["runs"]
        best = min(runs, key=lambda one: one["mse"])
        assert loaded.model.conditioning == conditioning
        assert (loaded.mse, loaded.epoch) == (best["mse"], best["epoch"])
        assert loaded.provenance["seed"] == run.training["best"][conditioning]["seed"] == best["seed"]
        assert loaded.provenance["dataset_sha256"] == run.dataset.sha256
        assert same_weights(loaded.model, load_checkpoint(run.out.checkpoints / best["file"]).model)

    def test_have_the_names_that_the_next_phases_look_for(self, run: Run) -> None:
        found = {path.name for path in run.out.checkpoints.glob("*.pt")}
        assert found == {"rfsq_best.pt", "rfsq_robust_best.pt", "rfsq_robust_scale_best.pt"}

    def test_carry_the_normaliser(self, run: Run) -> None:
        bounds = load_checkpoint(run.out.checkpoints / "rfsq_robust_scale_best.pt").normalization
        assert bounds is not None
        assert np.array_equal(bounds["min"].numpy(), run.dataset.normaliser.low)
        assert np.array_equal(bounds["max"].numpy(), run.dataset.normaliser.high)

    def test_those_of_an_earlier_run_are_gone(self, run: Run) -> None:
        expected = {f"{name}_seed{seed}.pt" for name in CONDITIONINGS for seed in (0, 1)}
        assert {path.name for path in run.out.seeds.iterdir()} == expected

    def test_score_what_the_stage_says(self, run: Run) -> None:
        data = TrainData.of(run.dataset)
        for one in run.training["conditionings"]["learned_scale"]["runs"]:
            loaded = load_checkpoint(run.out.checkpoints / one["file"])
            assert validation_mse(loaded.model, data) == one["mse"] == min(one["curve"])


def plots(*functions: Callable[[Any], Plot]) -> dict[str, Callable[[Any], Plot]]:
    return {function.__name__: function for function in functions}


FIGURES = {
    "dataset": plots(
        data_figures.distributions,
        data_figures.lengths_and_split,
        data_figures.autocorrelations,
        data_figures.example_episode,
    ),
    "training": plots(training_figures.curves, training_figures.costs),
    "comparison": plots(
        comparison_figures.forward_and_tokens,
        comparison_figures.improvements,
        comparison_figures.rate_distortion,
        comparison_figures.groups,
        comparison_figures.dimensions,
    ),
    "residuals": plots(residual_figures.residual_std, residual_figures.entropies, residual_figures.prefixes),
}


def assert_is_picture(plot: Plot) -> None:
    assert isinstance(plot, Plot)
    assert plot.png.startswith(PNG)
    assert plot.alt.strip()


@pytest.mark.parametrize(("part", "name"), [(part, name) for part, named in FIGURES.items() for name in named])
def test_every_figure_is_a_picture_with_words(run: Run, part: str, name: str) -> None:
    assert_is_picture(FIGURES[part][name](getattr(run, part)))


@pytest.fixture(scope="module")
def without_position(tmp_path_factory: pytest.TempPathFactory) -> Run:
    layout = ActionLayout.parse("joint:3 rotation:3 joint:1")
    return run_notebooks(tmp_path_factory.mktemp("joints"), replace(SMALL, epochs=1), seeds=1, layout=layout)


@pytest.mark.parametrize(("part", "name"), [(part, name) for part, named in FIGURES.items() for name in named])
def test_every_figure_does_without_position_and_gripper(without_position: Run, part: str, name: str) -> None:
    assert_is_picture(FIGURES[part][name](getattr(without_position, part)))


def test_a_picture_carries_its_words_into_notebook_and_report() -> None:
    plot = Plot(PNG, 'a "b" < c & d')
    data, metadata = plot._repr_mimebundle_()
    assert list(data) == ["image/png"]
    assert metadata["image/png"]["alt"] == plot.alt
    assert 'alt="a &quot;b&quot; &lt; c &amp; d"' in plot.as_html()


def test_the_title_does_not_say_that_an_error_falls_when_it_rises(run: Run) -> None:
    comparison = json.loads(json.dumps(run.comparison))
    for name, error in (("none", 1.0), ("scale", 2.0)):
        comparison["models"][name]["token_errors"]["position_mm"] |= {"mean": error, "low": error, "high": error}
    assert "falls from 1.00" not in comparison_figures.groups(comparison).alt


@pytest.mark.parametrize("of", ["run", "without_position"])
def test_every_table_of_the_notebooks_has_its_columns(of: str, request: pytest.FixtureRequest) -> None:
    run: Run = request.getfixturevalue(of)
    shown = [
        tables.statistics_table(run.written["data"]),
        tables.tasks_table(run.written["data"]),
        tables.normaliser_table(run.written["data"]),
        tables.training_table(run.training),
        tables.guide_epochs_table(run.training),
        tables.closing_table(run.training, run.comparison),
        tables.criteria_table(run.results["criteria"], "layernorm"),
        tables.criteria_table(run.results["criteria"], "scale"),
        tables.bits_table(run.comparison),
        tables.physical_table(run.comparison),
        tables.dimension_table(run.comparison),
        tables.layers_table(run.residuals),
        tables.options_table(run.results["options"]),
        tables.provenance_table(run.written["provenance"]),
    ]
    for table in shown:
        assert table.rows
        assert {len(row) for row in table.rows} == {len(table.header)}
        assert "nan" not in table.html.lower()


def save_bare(path: Path, conditioning: Conditioning = "none", **sizes: int) -> ActionRFSQAE:
    """A checkpoint as the existing code may have left it: the weights and nothing else."""
    model = build_model(replace(SMALL, **sizes), 7, Job(conditioning, 42)).eval()
    torch.save(model.state_dict(), path)
    return model


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("given")
    save_bare(folder / "my_naive.pt")
    plant_old_checkpoints(folder)
    return run_notebooks(folder, replace(SMALL, epochs=1), seeds=2, naive=str(folder / "my_naive.pt"))


class TestGivenNaive:
    def test_takes_the_place_of_naive(self, given: Run) -> None:
        model = build_model(SMALL, 7, Job("none", 42))
        runs = given.training["conditionings"]["none"]["runs"]
        assert [one["file"] for one in runs] == ["seeds/none_given.pt"]
        assert same_weights(load_checkpoint(given.out.seeds / "none_given.pt").model, model)
        assert same_weights(load_checkpoint(given.out.checkpoints / "rfsq_best.pt").model, model)
        assert len(given.training["conditionings"]["scale"]["runs"]) == 2

    def test_is_named_in_the_provenance(self, given: Run) -> None:
        written = given.written
        assert written["training"]["naive_checkpoint"] == "my_naive.pt"
        assert written["provenance"]["parameters"]["training"]["naive_checkpoint"] == "my_naive.pt"
        assert load_checkpoint(given.out.checkpoints / "rfsq_best.pt").provenance["given"] == "my_naive.pt"

    def test_others_are_still_held_against_it(self, given: Run) -> None:
        models = given.results["models"]
        assert len(models["none"]["token_mse"]["per_seed"]) == 1
        assert models["none"]["checkpoints"]["loaded_and_identical"] == 1
        for name in CONDITIONINGS:
            gain = models[name]["improvement_tokens"]
            expected = 1 - models[name]["token_mse"]["mean"] / models["none"]["token_mse"]["mean"]
            assert gain["mean"] == pytest.approx(expected)
            assert gain["low"] <= gain["high"]

    def test_the_file_itself_stays_as_it_was(self, given: Run) -> None:
        assert same_weights(
            load_checkpoint(given.out.root / "my_naive.pt").model, build_model(SMALL, 7, Job("none", 42))
        )

    def test_old_checkpoints_are_gone(self, given: Run) -> None:
        expected = {f"{name}_seed{seed}.pt" for name in CONDITIONINGS if name != "none" for seed in (0, 1)}
        assert {path.name for path in given.out.seeds.iterdir()} == expected | {"none_given.pt"}

    def test_figures_and_tables_do_without_its_curve(self, given: Run) -> None:
        assert_is_picture(training_figures.curves(given.training))
        assert_is_picture(training_figures.costs(given.training))
        naive = tables.training_table(given.training).rows[0]
        assert "not said by the file" in naive
        assert "given" in naive

    def test_another_conditioning_is_refused(self, tmp_path: Path, run: Run) -> None:
        with pytest.raises(InputError, match="layernorm"):
            train_into(tmp_path, naive=str(run.out.checkpoints / "rfsq_robust_best.pt"))

    @pytest.mark.parametrize("content", [None, b"", b"no checkpoint"])
    def test_what_is_no_checkpoint_is_refused(self, tmp_path: Path, content: bytes | None) -> None:
        path = tmp_path / "naive.pt"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(InputError, match=r"naive\.pt"):
            train_into(tmp_path / "out", naive=str(path))

    def test_a_refused_one_leaves_the_old_checkpoints(self, tmp_path: Path) -> None:
        old = plant_old_checkpoints(tmp_path)
        with pytest.raises(InputError):
            train_into(tmp_path, naive=str(tmp_path / "missing.pt"))
        assert all(path.exists() for path in old)

    def test_one_in_the_folder_of_this_runs_checkpoints_is_refused_and_kept(self, tmp_path: Path) -> None:
        path = tmp_path / "checkpoints" / "rfsq_best.pt"
        path.parent.mkdir()
        model = save_bare(path)
        with pytest.raises(InputError, match="copy it elsewhere"):
            train_into(tmp_path, replace(SMALL, epochs=1), naive=str(path))
        assert same_weights(load_checkpoint(path).model, model)

    @pytest.mark.parametrize("layers", [SMALL.num_layers - 2, SMALL.num_layers + 2])
    def test_with_another_number_of_layers_is_refused(self, tmp_path: Path, layers: int) -> None:
        save_bare(tmp_path / "mine.pt", num_layers=layers)
        with pytest.raises(InputError, match=f"mine.pt: has num_layers {layers} where the others have 4"):
            train_into(tmp_path / "out", naive=str(tmp_path / "mine.pt"))

    def test_for_actions_of_another_width_is_refused(self, tmp_path: Path) -> None:
        torch.save(build_model(SMALL, 5, Job("none", 42)).state_dict(), tmp_path / "mine.pt")
        with pytest.raises(InputError, match=r"mine\.pt: has action_dim 5 where the others have 7"):
            train_into(tmp_path / "out", naive=str(tmp_path / "mine.pt"))

    def test_without_one_the_folder_one_stands_in_does_not_matter(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "checkpoints").mkdir()
        monkeypatch.chdir(tmp_path / "checkpoints")
        assert train_into(tmp_path, replace(SMALL, epochs=1))["naive_checkpoint"] is None

    def test_its_mse_may_be_a_tensor(self, tmp_path: Path) -> None:
        state = build_model(SMALL, 7, Job("none", 42)).state_dict()
        torch.save({"model": state, "epoch": 3, "mse": torch.tensor(0.01)}, tmp_path / "mine.pt")
        found = train_into(tmp_path / "out", replace(SMALL, epochs=1), naive=str(tmp_path / "mine.pt"))
        assert json.loads(json.dumps(found))["conditionings"]["none"]["runs"][0]["mse"] == pytest.approx(0.01)


class TestTrainVariants:
    @pytest.mark.parametrize("seeds", [0, -1, 1001])
    def test_refuses_numbers_of_seeds_that_make_no_sense(self, tmp_path: Path, seeds: int) -> None:
        with pytest.raises(InputError, match="seeds"):
            train_into(tmp_path, seeds=seeds)

    def test_refuses_an_unknown_device(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="'abacus'"):
            train_variants(OutputFolder.at(str(tmp_path)), make_dataset(), SMALL, 1, "abacus")

    def test_times_every_conditioning_against_naive(self, run: Run) -> None:
        overheads = {name: run.training["conditionings"][name]["overhead"] for name in CONDITIONINGS}
        assert (overheads["none"]["low"], overheads["none"]["high"]) == (0.0, 0.0)
        assert all(entry["low"] <= entry["mean"] <= entry["high"] for entry in overheads.values())

    def test_a_run_that_diverges_is_explained(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"'\w+' with seed 0 diverged in epoch 1; lower the learning rate"):
            train_into(tmp_path, replace(SMALL, learning_rate=1e30))
