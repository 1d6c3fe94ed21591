"""From training to results.json, the checkpoints, the tables and the figures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import (
    PNG,
    SMALL,
    Run,
    assert_is_picture,
    make_dataset,
    plant_old_checkpoints,
    prepared_walks,
    run_notebooks,
    same_weights,
    tables_of,
    train_into,
)

from rfsq_robust import CONDITIONINGS, Conditioning, load_checkpoint
from workbook.common.errors import InputError
from workbook.common.paths import OutputFolder
from workbook.common.stages import OPTIONAL, STAGES, write_stage
from workbook.data.layout import ActionLayout
from workbook.evaluation.score import compare, load_codecs
from workbook.report.figures import (
    comparison as comparison_figures,
    data as data_figures,
    layers as residual_figures,
    policy as phase2_figures,
    rate_distortion as rate_figures,
    training as training_figures,
)
from workbook.report.figures.style import Plot
from workbook.training.runs import BEST_FILES, train_variants
from workbook.training.trainer import TrainData, validation_mse
from workbook.verdict.criteria import decide, evaluate
from workbook.verdict.results import assemble, judge_comparison
from workbook.verdict.success import NOT_ASKED_FOR, verdict_part

DECODING = [name for name in CONDITIONINGS if name != "layernorm"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run")
    plant_old_checkpoints(folder)
    return run_notebooks(folder, prepared_walks())


def refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} in JSON")


class TestResults:
    def test_hold_a_verdict(self, run: Run) -> None:
        verdict = run.written["verdict"]
        assert verdict["word"] == "NOT SHOWN"
        assert verdict["sentence"].startswith("NOT EVIDENCE (2 of at least 100 epochs; 2 of at least 5 seeds; 2 of ")
        judged = evaluate(run.comparison)
        missing = verdict["not_evidence"]
        replayed = verdict_part(NOT_ASKED_FOR, missing)
        assert verdict == decide(judged, run.comparison, missing, run.results["recommendation"], replayed)
        assert (verdict["parts"][-1]["word"], run.written["replay"]) == ("NOT RUN", NOT_ASKED_FOR)
        assert any("batches of the policies" in reason for reason in missing)
        assert any("batches of the field's quantizers" in reason for reason in missing)

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
        assert written["discrepancies"]
        assert len(written["options"]) == 3
        assert written["test"]["episodes"] == len(run.dataset.part("test"))
        assert written["test"]["steps"] == sum(len(episode.actions) for episode in run.dataset.part("test"))

    def test_hold_where_they_come_from(self, run: Run) -> None:
        provenance = run.written["provenance"]
        assert provenance["dataset_sha256"] == run.dataset.sha256
        assert provenance["data"] == "walks (random walks)"
        assert (provenance["seeds"], provenance["device"]) == ([0, 1], "cpu")
        assert list(provenance["parameters"]) == [name for name in STAGES if name != OPTIONAL]
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
        with pytest.raises(InputError, match="03_compare"):
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
        named = {"rfsq_best.pt", "rfsq_robust_best.pt", "rfsq_robust_scale_best.pt", "rfsq_best_retrained_decoder.pt"}
        assert found == named

    def test_carry_the_normaliser(self, run: Run) -> None:
        bounds = load_checkpoint(run.out.checkpoints / "rfsq_robust_scale_best.pt").normalization
        assert bounds is not None
        assert np.array_equal(bounds["min"].numpy(), run.dataset.normaliser.low)
        assert np.array_equal(bounds["max"].numpy(), run.dataset.normaliser.high)

    def test_those_of_an_earlier_run_are_gone(self, run: Run) -> None:
        expected = {f"{name}_seed{seed}.pt" for name in CONDITIONINGS for seed in (0, 1)}
        expected |= {f"none_seed{seed}_retrained.pt" for seed in (0, 1)}
        assert {path.name for path in run.out.seeds.iterdir()} == expected

    def test_score_what_the_stage_says(self, run: Run) -> None:
        data = TrainData.of(run.dataset)
        for one in run.training["conditionings"]["learned_scale"]["runs"]:
            loaded = load_checkpoint(run.out.checkpoints / one["file"])
            assert validation_mse(loaded.model, data) == one["mse"] == min(one["curve"])


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
        comparison_figures.groups,
        comparison_figures.dimensions,
    ),
    "rates": plots(rate_figures.rate_distortion),
    "residuals": plots(residual_figures.residual_std, residual_figures.entropies, residual_figures.prefixes),
    "phase2": plots(phase2_figures.policies, phase2_figures.accuracies),
}


@pytest.mark.parametrize(("part", "name"), [(part, name) for part, named in FIGURES.items() for name in named])
def test_every_figure_is_a_picture_with_words(run: Run, part: str, name: str) -> None:
    assert_is_picture(FIGURES[part][name](getattr(run, part)))


@pytest.fixture(scope="module")
def without_position(tmp_path_factory: pytest.TempPathFactory) -> Run:
    layout = ActionLayout.parse("joint:3 rotation:3 joint:1")
    return run_notebooks(tmp_path_factory.mktemp("joints"), prepared_walks(layout), replace(SMALL, epochs=1), seeds=1)


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
    for table in tables_of(run):
        assert table.rows
        assert {len(row) for row in table.rows} == {len(table.header)}
        assert "nan" not in table.html.lower()
