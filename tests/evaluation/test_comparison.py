"""03_compare: every codec of the catalogue is scored, and what can be used afterwards is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from made_codecs import LAYERS, LISTED, make_fitting
from small_runs import SMALL, compare_in, ignore_progress, make_dataset, train_into

from rfsq_robust import CONDITIONINGS
from workbook.codecs import catalogue as catalogue_module
from workbook.codecs.bins import UniformBins
from workbook.codecs.catalogue import CONDITIONED, ENTRIES, Entry, Fitting, Setting, at, catalogue, entries, of_family
from workbook.codecs.klt_rfsq_file import FILE_NAME, load_klt_rfsq
from workbook.codecs.protocol import Codec
from workbook.common.parallel import PROGRESS_STEPS
from workbook.common.paths import OutputFolder
from workbook.evaluation.comparison import Comparison, Scored, Scoring, _joined, model_rows, score_catalogue, score_part
from workbook.evaluation.rate_distortion import points, smallest
from workbook.evaluation.score import ENCODER, KEYS, TOKENS, HeldOut, Scores
from workbook.training.baselines import BaselineConfig
from workbook.training.runs import load_rfsq

LAYERS_OF_RUN = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("comparison")


@pytest.fixture(scope="module")
def training(folder: Path) -> dict[str, Any]:
    return train_into(folder, replace(SMALL, num_layers=LAYERS_OF_RUN), seeds=2)


@pytest.fixture(scope="module")
def found(folder: Path, training: dict[str, Any]) -> Comparison:
    return compare_in(folder, training, BaselineConfig(baseline_steps=1))


@pytest.fixture(scope="module")
def scores(found: Comparison) -> Scores:
    return Scores(found.scores)


class TestCosts:
    def test_what_tokens_cost_is_told_of_every_codec_and_seed(self, found: Comparison, scores: Scores) -> None:
        costs = found.tables["token_costs"]
        assert list(costs.codec.unique()) == LISTED
        assert not costs.duplicated(["codec", "setting", "seed"]).any()
        assert (costs.groupby(["codec", "setting"]).seed.nunique()["naive"] == 2).all()
        assert (costs.words <= costs.tokens).to_numpy()[costs.codec != "layernorm_sent"].all()
        for row in costs.itertuples():
            if scores.has(row.codec, row.setting):
                assert row.mse == pytest.approx(
                    np.average(*of_seed(scores.of(row.codec, row.setting), row.seed)), rel=1e-6
                )

    def test_fast_style_tokens_stand_beside_what_is_predicted(self, found: Comparison) -> None:
        rows = found.tables["against_fast"]
        assert set(rows[rows.side == "codec"].codec) == {
            "naive",
            "fixed_scale",
            "bins",
            "klt_rfsq_fixed",
            "klt_rfsq_variable",
        }
        assert {"codec", "bits", "words"} == set(rows.side)


def of_seed(rows: pd.DataFrame, seed: int) -> tuple[pd.Series, None, pd.Series]:
    """Values, axis and weights."""
    rows = rows[rows.seed == seed]
    return rows.mse, None, rows.steps


class TestScores:
    def test_every_codec_is_there_at_every_setting(self, scores: Scores) -> None:
        rows = scores.rows[scores.rows.decoding == TOKENS]
        assert list(rows.codec.unique()) == LISTED
        assert set(rows[rows.codec == "fast"].setting) == {
            str(setting) for setting in catalogue()["fast"].measured(make_fitting())
        }
        for name in ("naive", "naive_chunk"):
            assert sorted(rows[rows.codec == name].setting.unique()) == ["layers=1", "layers=2"]

    def test_every_key_stands_once_and_every_episode_in_every_setting(self, scores: Scores) -> None:
        assert not scores.rows.duplicated(list(KEYS)).any()
        episodes = len(make_dataset().part("test"))
        assert (scores.rows.groupby(["codec", "setting", "decoding", "seed"]).size() == episodes).all()

    def test_what_it_holds_is_finite_and_positive(self, scores: Scores) -> None:
        costs = scores.rows[["bits", "tokens", "mse", "steps", "chunks"]]
        assert np.isfinite(costs).all(axis=None)
        assert (costs[["bits", "tokens", "steps", "chunks"]] > 0).all(axis=None)
        assert (scores.rows.vocabulary > 1).all()
        assert (scores.rows.entropy_bits >= 0).all()

    def test_entropy_of_a_fixed_length_is_no_more_than_its_bits(self, scores: Scores) -> None:
        fixed = scores.rows[[catalogue()[name].fixed_length for name in scores.rows.codec]]
        assert (fixed.entropy_bits <= fixed.bits + 1e-9).all()

    def test_the_forward_pass_is_of_every_conditioning_at_all_layers(self, scores: Scores) -> None:
        rows = scores.rows[scores.rows.decoding == ENCODER]
        assert set(rows.codec) == set(CONDITIONED.values())
        assert set(rows.setting) == {f"layers={LAYERS_OF_RUN}"}

    @pytest.mark.parametrize("name", ["naive", "fixed_scale", "learned_scale", "running_statistics"])
    def test_what_needs_no_statistics_decodes_as_forward(self, scores: Scores, name: str) -> None:
        assert scores.estimate("mse", name) == scores.estimate("mse", name, decoding=ENCODER)

    def test_layernorm_needs_what_its_tokens_do_not_say(self, scores: Scores) -> None:
        forward = scores.estimate("mse", "layernorm", decoding=ENCODER).mean
        assert scores.estimate("mse", "layernorm_sent").mean == pytest.approx(forward, rel=1e-3)
        assert scores.estimate("mse", "layernorm").mean != pytest.approx(forward, rel=2e-3)


class TestTables:
    def test_a_model_has_a_row_of_its_own(self, found: Comparison, training: dict[str, Any]) -> None:
        models = found.tables["models"]
        wanted = [[name, seed] for name in CONDITIONED.values() for seed in (0, 1)]
        assert models[["codec", "seed"]].to_numpy().tolist() == wanted
        assert models.loaded_identical.all()
        files = [run["file"] for name in CONDITIONINGS for run in training["conditionings"][name]["runs"]]
        assert models.file.tolist() == files
        errors = models.set_index("codec").decode_error
        assert (errors.drop("layernorm") < 1e-5).all()
        assert (errors["layernorm"] > 0.01).all()

    def test_a_file_that_decodes_to_something_else_is_found_out(
        self, folder: Path, found: Comparison, training: dict[str, Any]
    ) -> None:
        rfsq = load_rfsq(_out(folder), training, make_dataset())
        with torch.no_grad():
            next(rfsq["scale"][1].model.decoder.parameters()).add_(1e-3)
        models = model_rows(Fitting(make_dataset(), rfsq), training, HeldOut.of(make_dataset()))
        assert models[~models.loaded_identical][["codec", "seed"]].to_numpy().tolist() == [["fixed_scale", 1]]

    def test_layers_are_of_every_conditioning_and_seed(self, found: Comparison) -> None:
        layers = found.tables["layers"]
        assert len(layers) == len(CONDITIONINGS) * 2 * (LAYERS_OF_RUN + 1)

    def test_what_a_best_is_chosen_among_is_scored_on_validation_too(self, found: Comparison, scores: Scores) -> None:
        rows, dataset = found.tables["validation"], make_dataset()
        assert set(rows.part) == {"validation"}
        assert set(rows.episode) == {episode.place for episode in dataset.part("validation")}
        chosen_among = of_family("naive", "rfsq", "klt_rfsq")
        listed = [one for one in scores.listed("measured") if one[0] in chosen_among]
        assert Scores(rows).listed("measured") == listed
        assert set(smallest(Scores(rows))) == {"guide", "any"}

    def test_values_say_what_was_held_out(self, found: Comparison) -> None:
        test = make_dataset().part("test")
        assert found.values["test_episodes"] == len(test)
        assert found.values["test_steps"] == sum(len(episode.actions) for episode in test)
        assert found.values["layout"] == make_dataset().layout.spec


def test_klt_rfsq_is_written_as_it_was_scored(folder: Path, scores: Scores) -> None:
    test = HeldOut.of(make_dataset())
    for codec in load_klt_rfsq(_out(folder).checkpoints / FILE_NAME)[::5]:
        tokens = codec.encode(test.chunks.actions)
        cost = scores.cost("klt_rfsq_variable", f"rate={codec.rate:g}")
        assert codec.bits(tokens) == pytest.approx(cost["bits"])
        rows = test.rows(codec.decode(tokens))
        assert np.average(rows.mse, weights=rows.steps) == pytest.approx(
            scores.estimate("mse", "klt_rfsq_variable", f"rate={codec.rate:g}").mean
        )


def _out(folder: Path) -> OutputFolder:
    return OutputFolder(folder)


class TestParts:
    """What one process scores is what several do, however the entries are dealt out."""

    NAMES = ("naive", "fixed_scale", "bins", "klt")

    def scored(self, *parts: tuple[str, ...]) -> tuple[list[Scored], Fitting]:
        fitting, dataset = make_fitting(), make_dataset()
        scoring = Scoring(fitting, HeldOut.of(dataset), HeldOut.of(dataset, "validation"), [0])
        return [score_part(scoring, names, lambda: None) for names in parts], fitting

    @pytest.mark.parametrize("table", ["scores", "validation", "costs"])
    def test_have_the_rows_of_the_whole_in_its_order(self, table: str) -> None:
        (whole,), fitting = self.scored(self.NAMES)
        parts, _ = self.scored(self.NAMES[::-2], self.NAMES[-2::-2])
        found = _joined([getattr(part, table) for part in parts], fitting)
        pd.testing.assert_frame_equal(found, _joined([getattr(whole, table)], fitting), check_exact=True)
        assert set(found.codec) <= set(self.NAMES)
        assert {"naive", "fixed_scale"} <= set(found.codec)

    def test_tell_their_steps_of_progress_and_no_more(self) -> None:
        told: list[None] = []
        fitting, dataset = make_fitting(), make_dataset()
        scoring = Scoring(fitting, HeldOut.of(dataset), HeldOut.of(dataset, "validation"), [0])
        score_part(scoring, ["bins"], lambda: told.append(None))
        assert len(told) == PROGRESS_STEPS


class TestAddedCodec:
    def made_up(self) -> Entry:
        """Bins of a range twice as wide: one file and one entry."""

        def codecs(fitting: Fitting, setting: Setting) -> list[Codec]:
            low, high = 2 * fitting.normaliser.low, 2 * fitting.normaliser.high
            return [UniformBins(setting.count("bins"), replace(fitting.normaliser, low=low, high=high))]

        settings = {"measured": at("bins", 4, 8), "compared": at("bins", 8)}
        return Entry("made_up", "made up", "#123456", "*-", True, False, codecs, **settings)

    def test_gets_its_rows_through_the_catalogue_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fitting, test = make_fitting(), HeldOut.of(make_dataset())
        few = [entry for entry in ENTRIES if entry.name in set(CONDITIONED.values())]
        monkeypatch.setattr(catalogue_module, "ENTRIES", (*few, self.made_up()))
        seen: list[tuple[int, int]] = []
        rows = score_catalogue(entries(fitting), fitting, test, [0], lambda done, total: seen.append((done, total)))
        scores = Scores(rows)
        added = rows[rows.codec == "made_up"]
        assert added.groupby("setting").size().to_dict() == {"bins=4": 2, "bins=8": 2}
        assert (added.seed == 0).all()
        assert ("made_up", "bins=8") in scores.listed("compared")
        assert ("made_up", "bins=4") not in scores.listed("compared")
        assert [point.bits for point in points(scores, ["made_up"])] == [8 * 7 * 2, 8 * 7 * 3]
        assert seen[0][0] == 0
        assert seen[-1] == (len(seen) - 1, len(seen) - 1)

    def test_changes_no_row_of_the_others(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fitting, test = make_fitting(), HeldOut.of(make_dataset())
        few = [entry for entry in ENTRIES if entry.name in {*CONDITIONED.values(), "bins"}]
        monkeypatch.setattr(catalogue_module, "ENTRIES", tuple(few))
        before = score_catalogue(entries(fitting), fitting, test, [0], ignore_progress)
        monkeypatch.setattr(catalogue_module, "ENTRIES", (*few, self.made_up()))
        after = score_catalogue(entries(fitting), fitting, test, [0], ignore_progress)
        others = after[after.codec != "made_up"].reset_index(drop=True)
        pd.testing.assert_frame_equal(others, before, check_exact=True)
        assert before.setting.str.contains(f"layers={LAYERS}").any()
