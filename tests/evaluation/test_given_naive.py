"""A checkpoint of the existing Phase 1 that takes naive's place."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_runs import (
    SMALL,
    Run,
    plant_old_checkpoints,
    prepared_walks,
    run_notebooks,
    same_weights,
    train_into,
)

from rfsq_robust import CONDITIONINGS, ActionRFSQAE, Conditioning, load_checkpoint
from workbook.codecs.catalogue import CONDITIONED
from workbook.common.errors import InputError
from workbook.common.stages import read_document
from workbook.training.runs import load_fitting
from workbook.training.trainer import Job, build_model


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
    one_epoch, naive = replace(SMALL, epochs=1), str(folder / "my_naive.pt")
    return run_notebooks(folder, prepared_walks(), one_epoch, naive=naive, policies=False)


class TestGivenNaive:
    def test_takes_the_place_of_naive(self, given: Run) -> None:
        model = build_model(SMALL, 7, Job("none", 42))
        runs = given.training["conditionings"]["none"]["runs"]
        assert [one["file"] for one in runs] == ["seeds/none_given.pt"]
        assert same_weights(load_checkpoint(given.out.seeds / "none_given.pt").model, model)
        assert same_weights(load_checkpoint(given.out.checkpoints / "rfsq_best.pt").model, model)
        assert len(given.training["conditionings"]["scale"]["runs"]) == 2

    def test_is_named_in_the_provenance(self, given: Run) -> None:
        assert given.evidence.training["naive_checkpoint"] == "my_naive.pt"
        assert read_document(given.out, "training")["parameters"]["naive_checkpoint"] == "my_naive.pt"
        assert load_checkpoint(given.out.checkpoints / "rfsq_best.pt").provenance["given"] == "my_naive.pt"

    def test_others_are_still_held_against_it(self, given: Run) -> None:
        scores, models = given.evidence.scores, given.evidence.models
        naive = scores.estimate("mse", "naive")
        assert len(naive.per_seed) == scores.cost("naive")["seeds"] == 1
        assert naive.mean is not None
        assert models[models.codec == "naive"].loaded_identical.tolist() == [True]
        assert len(models) == 1 + 4 * 2
        for name in CONDITIONED.values():
            gain, mse = scores.improvement(name), scores.estimate("mse", name).mean
            assert mse is not None
            assert gain.mean == pytest.approx(1 - mse / naive.mean)
            assert gain.low is not None
            assert gain.high is not None
            assert gain.low <= gain.high

    def test_its_layers_are_its_own(self, given: Run) -> None:
        layers = given.evidence.layers
        assert layers.per_seed("naive", "entropy_bits").shape == (1, SMALL.num_layers)
        assert layers.per_seed("fixed_scale", "entropy_bits").shape == (2, SMALL.num_layers)
        assert layers.prefix_mse("naive")[-1] == given.evidence.scores.estimate("mse", "naive")

    def test_what_follows_makes_its_codecs_from_it(self, given: Run) -> None:
        fitting = load_fitting(given.out, given.training, given.dataset)
        assert [len(codecs) for codecs in fitting.rfsq.values()] == [1, 2, 2, 2, 2]
        assert len(fitting.decoders["step"]) == 1

    def test_the_file_itself_stays_as_it_was(self, given: Run) -> None:
        assert same_weights(
            load_checkpoint(given.out.root / "my_naive.pt").model, build_model(SMALL, 7, Job("none", 42))
        )

    def test_old_checkpoints_are_gone(self, given: Run) -> None:
        expected = {f"{name}_seed{seed}.pt" for name in CONDITIONINGS if name != "none" for seed in (0, 1)}
        expected |= {"none_given.pt", "none_seed0_retrained.pt"}
        assert {path.name for path in given.out.seeds.iterdir()} == expected

    def test_another_conditioning_is_refused(self, tmp_path: Path, given: Run) -> None:
        with pytest.raises(InputError, match="layernorm"):
            train_into(tmp_path, naive=str(given.out.checkpoints / "rfsq_robust_best.pt"))

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
