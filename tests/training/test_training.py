"""Training: configuration, device, one model, and many over processes."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import pytest
import torch
from small_runs import SMALL, make_dataset, same_weights
from torch import Tensor

from rfsq_robust import CONDITIONINGS, Conditioning
from workbook.common import parallel
from workbook.common.errors import InputError
from workbook.training.data import TrainData
from workbook.training.overhead import measure_step_seconds
from workbook.training.runs import naive_settings, train_all
from workbook.training.stack import RFSQStack
from workbook.training.trainer import (
    Job,
    TrainConfig,
    TrainedModel,
    build_model,
    choose_device,
    train,
)


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
        assert RFSQStack([trained.model], data).eval().validation_mse().tolist() == [trained.mse]

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
        patch.setattr(parallel, "available_cores", lambda: 2)
        models = train_all(SMALL, JOBS, data, on_progress=lambda done, total: progress.append((done, total)))
    return ManyTrained(models, progress)


class TestTrainAll:
    def test_gives_what_train_gives_in_the_order_of_jobs(self, data: TrainData, over_processes: ManyTrained) -> None:
        assert [trained.job for trained in over_processes.models] == JOBS
        for trained in over_processes.models:
            here = train(SMALL, trained.job, data)
            assert trained.curve == pytest.approx(here.curve, rel=1e-4)
            assert (trained.epoch, trained.mse) == (here.epoch, pytest.approx(here.mse, rel=1e-4))
            for ours, theirs in zip(trained.model.parameters(), here.model.parameters(), strict=True):
                assert torch.allclose(ours, theirs, atol=1e-3)

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
        monkeypatch.setattr(parallel, "available_cores", lambda: 1)
        progress: list[tuple[int, int]] = []
        in_turn = train_all(SMALL, JOBS, data, on_progress=lambda done, total: progress.append((done, total)))
        assert [trained.curve for trained in in_turn] == [trained.curve for trained in over_processes.models]
        assert progress == [(k, len(JOBS) * SMALL.epochs) for k in range(1, len(JOBS) * SMALL.epochs + 1)]

    def test_an_error_in_a_worker_surfaces_and_leaves_no_process(
        self, data: TrainData, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(parallel, "available_cores", lambda: 2)
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


def test_a_given_checkpoint_is_known_by_what_it_holds(tmp_path: Path) -> None:
    found = []
    for content in (b"one", b"other"):
        (tmp_path / "naive.pt").write_bytes(content)
        found.append(naive_settings(str(tmp_path / "naive.pt")))
    assert [settings["naive_checkpoint"] for settings in found] == ["naive.pt", "naive.pt"]
    assert found[0]["naive_sha256"] != found[1]["naive_sha256"]


@pytest.mark.parametrize("path", ["", "nowhere.pt"])
def test_without_a_checkpoint_there_is_none_in_the_settings(path: str) -> None:
    """Whoever reads the file refuses one that is not there."""
    assert naive_settings(path) == {"naive_checkpoint": None}
