"""The command that trains one model or a sweep: what it writes, what it says, what it refuses."""

from __future__ import annotations

import csv
import fcntl
import json
import re
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scripts import load_script
from small_runs import quickly, same_weights
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from writers import write_libero

from rfsq_robust import CONDITIONINGS, load_checkpoint
from workbook.common import targets
from workbook.common.errors import InputError
from workbook.common.paths import REPOSITORY
from workbook.data.config import DataConfig
from workbook.data.dataset import prepare_dataset
from workbook.training.data import TrainData
from workbook.training.runs import STEMS, TrainingRun
from workbook.training.stack import RFSQStack
from workbook.training.sweep import parse_sweep, runs_of
from workbook.training.trainer import Job, TrainConfig, train

command = load_script("train_rfsq_robust")
QUICK = ["--num-episodes", "16", "--epochs", "3"]


def events(folder: Path, tag: str) -> list[tuple[int, float]]:
    found = EventAccumulator(str(folder))
    found.Reload()
    return [(event.step, event.value) for event in found.Scalars(tag)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("my models")


@pytest.fixture(scope="module")
def done(folder: Path) -> subprocess.CompletedProcess[str]:
    """The guide's command as it is written, but for the number of epochs, in a folder with a space."""
    options = ["--use-layernorm", "True", "--num-episodes", "50", "--epochs", "12", "--batch-size", "64"]
    line = [sys.executable, str(REPOSITORY / "train_rfsq_robust.py"), *options]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


class TestTheGuidesCommand:
    def test_prints_the_guides_expectation_beside_the_measured(
        self, folder: Path, done: subprocess.CompletedProcess[str]
    ) -> None:
        assert (done.returncode, "Traceback" in done.stderr) == (0, False)
        rows = re.findall(r"\| (\d+) \| ([\d.]+) \| ([^ ]+) \|", done.stdout)
        assert {int(epoch): float(expected) for epoch, expected, _ in rows} == targets.EXPECTED_CURVE
        curve = [float(row["validation_mse"]) for row in csv.DictReader((folder / "rfsq_robust_log.csv").open())]
        assert float(rows[0][2]) == pytest.approx(curve[9], rel=0.05)
        assert [measured for *_, measured in rows[1:]] == ["-"] * 4, "epochs that were not trained"

    def test_the_bar_shows_mse_and_time_left(self, done: subprocess.CompletedProcess[str]) -> None:
        assert re.search(r"training 'layernorm': +\d+%.*\d+/12 \[\d\d:\d\d<\d\d:\d\d.*validation MSE \d", done.stderr)

    def test_says_that_layernorm_does_not_decode(self, done: subprocess.CompletedProcess[str]) -> None:
        found = re.search(
            r"validation MSE ([\d.e-]+) with encoder statistics, ([\d.e-]+) from tokens only", done.stdout
        )
        assert found
        assert float(found[2]) > 10 * float(found[1])
        assert "LayerNorm's own decoder cannot read its tokens" in done.stdout

    def test_leaves_checkpoint_state_and_logs(self, folder: Path, done: subprocess.CompletedProcess[str]) -> None:
        assert done.returncode == 0
        assert {path.name for path in folder.iterdir() if not path.name.startswith(".")} == {
            "rfsq_robust_best.pt",
            "rfsq_robust.resume",
            "rfsq_robust_log.csv",
            "tensorboard",
        }

    def test_the_checkpoint_is_the_best_epoch_of_what_the_guide_asks_for(
        self, folder: Path, done: subprocess.CompletedProcess[str]
    ) -> None:
        assert done.returncode == 0
        checkpoint = load_checkpoint(folder / "rfsq_robust_best.pt")
        config = DataConfig(num_episodes=50)
        dataset = prepare_dataset("sample", config).dataset
        assert len(dataset.episodes) == 50
        data = TrainData.of(dataset)
        assert checkpoint.model.conditioning == "layernorm"
        assert RFSQStack([checkpoint.model], data).eval().validation_mse().tolist() == [checkpoint.mse]
        origin = checkpoint.provenance
        assert (origin["data"], origin["data_config"]) == ("sample", asdict(config))
        assert origin["dataset_sha256"] == dataset.sha256
        assert origin["limit"] == [1.0] * 7
        assert checkpoint.normalization
        assert checkpoint.normalization["min"].tolist() == dataset.normaliser.low.tolist()
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        here = train(TrainConfig(epochs=12), Job("layernorm", 0), data)
        torch.set_num_threads(threads)
        assert same_weights(here.model, checkpoint.model)

    def test_both_logs_hold_every_epoch(self, folder: Path, done: subprocess.CompletedProcess[str]) -> None:
        assert done.returncode == 0
        with (folder / "rfsq_robust_log.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [int(row["epoch"]) for row in rows] == list(range(1, 13))
        best = [float(row["best_validation_mse"]) for row in rows]
        assert best == [min(float(row["validation_mse"]) for row in rows[: k + 1]) for k in range(12)]
        shown = events(folder / "tensorboard" / "rfsq_robust", "validation_mse")
        assert [step for step, _ in shown] == list(range(1, 13))
        assert [value for _, value in shown] == pytest.approx([float(row["validation_mse"]) for row in rows])


def test_a_training_that_goes_on_leaves_whole_logs(tmp_path: Path) -> None:
    folder = ["--models-dir", str(tmp_path), "--use-layernorm", "False", "--num-episodes", "16"]
    assert command.main([*folder, "--epochs", "2"]) == 0
    before = load_checkpoint(tmp_path / "rfsq_best.pt").provenance
    assert command.main([*folder, "--epochs", "4", "--resume"]) == 0
    with (tmp_path / "rfsq_log.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2", "3", "4"]
    assert [step for step, _ in events(tmp_path / "tensorboard" / "rfsq", "validation_mse")] == [1, 2, 3, 4]
    after = load_checkpoint(tmp_path / "rfsq_best.pt").provenance
    assert (before["train_config"]["epochs"], after["train_config"]["epochs"]) == (2, 4)


def test_without_resume_it_begins_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["--models-dir", str(tmp_path), *QUICK, "--conditioning", "scale"]
    assert command.main([*line, "--seed", "1"]) == 0
    assert command.main([*line, "--seed", "2", "--resume"]) == 2
    assert "was begun with seed 1, not 2" in capsys.readouterr().err
    assert command.main([*line, "--seed", "2"]) == 0
    assert load_checkpoint(tmp_path / "rfsq_robust_scale_best.pt").provenance["seed"] == 2


def test_a_state_that_does_not_fit_leaves_the_log_as_it_was(tmp_path: Path) -> None:
    line = ["--models-dir", str(tmp_path), "--num-episodes", "16", "--conditioning", "scale"]
    assert command.main([*line, "--epochs", "3"]) == 0
    before = (tmp_path / "rfsq_robust_scale_log.csv").read_bytes()
    assert command.main([*line, "--epochs", "2", "--resume"]) == 2
    assert (tmp_path / "rfsq_robust_scale_log.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "conditioning"),
    [
        ([], "layernorm"),
        (["--use-layernorm", "true"], "layernorm"),
        (["--use-layernorm", "False"], "none"),
        (["--use-layernorm", "False", "--conditioning", "scale"], "scale"),
    ],
)
def test_the_conditioning_stands_over_the_flag(options: list[str], conditioning: str) -> None:
    assert command.run_of(command.parse_arguments(options)).job.conditioning == conditioning


@pytest.mark.parametrize(
    ("option", "resume"), [([], False), (["--resume"], True), (["--resume", "True"], True), (["--resume", "no"], None)]
)
def test_resume_is_a_flag_or_a_truth(option: list[str], resume: bool | None) -> None:
    if resume is None:
        with pytest.raises(SystemExit, match="2"):
            command.parse_arguments(option)
    else:
        assert command.parse_arguments(option).resume is resume


def test_every_option_arrives() -> None:
    options = {
        "epochs": 7, "batch_size": 5, "learning_rate": 0.5, "hidden_dim": 4, "num_layers": 3, "num_levels": 9,
        "num_episodes": 11, "chunk_len": 6, "layout": "joint:3", "seed": 8, "data": "here.hdf5", "models_dir": "there",
        "device": "cpu", "resume": True,
    }  # fmt: skip
    line = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    assert command.run_of(command.parse_arguments(line)) == TrainingRun(
        Job("layernorm", 8),
        TrainConfig(7, 5, 0.5, 4, 3, 9),
        "here.hdf5",
        DataConfig(11, 6, 6, layout="joint:3"),
        "cpu",
        "there",
        True,
    )


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["--data", "nowhere"], "nowhere: no such file or directory"),
        (["--epochs", "0"], "epochs is 0; give at least 1"),
        (["--learning-rate", "nan"], "learning_rate is nan"),
        (["--layout", "wheel:2"], "cannot read 'wheel:2'"),
        (["--num-episodes", "2"], "cannot be split"),
        (["--device", "tpu"], "device 'tpu' is not one of"),
        (["--conditioning", "magic"], "--conditioning 'magic' is not one of none, layernorm"),
        (["--seed", "-1"], "seed is -1; give 0 to"),
        (["--seed", "99999999999999999999"], "seed is 99999999999999999999; give 0 to"),
        (["--sweep", "seeds=two"], "seeds is 'two'; give a number"),
        (["--sweep", "seeds=0"], "seeds is 0"),
        (["--sweep", "gpus=2"], "cannot read 'gpus=2'"),
        (["--sweep", "conditioning=magic"], "conditioning 'magic' is not one of all, none"),
    ],
)
def test_bad_input_gets_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: list[str], words: str
) -> None:
    assert command.main(["--models-dir", str(tmp_path), *line]) == 2
    told = capsys.readouterr().err
    assert words in told
    assert told.count("\n") == 1
    assert not list(tmp_path.glob("*.pt"))


@pytest.mark.parametrize("sweep", [[], ["--sweep", "seeds=1"]])
def test_a_folder_that_cannot_be_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str], sweep: list[str]) -> None:
    (tmp_path / "file").write_text("")
    assert command.main([*QUICK, "--models-dir", str(tmp_path / "file"), *sweep]) == 2
    assert "cannot write results here" in (told := capsys.readouterr().err)
    assert "with --models-dir" in told


def test_two_trainings_of_one_model_keep_out_of_each_others_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (tmp_path / ".rfsq_robust.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert command.main([*QUICK, "--models-dir", str(tmp_path)]) == 2
        assert "another run is writing here" in capsys.readouterr().err
        assert command.main([*QUICK, "--models-dir", str(tmp_path), "--use-layernorm", "False"]) == 0


def test_an_interrupted_training_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(run: TrainingRun) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "train_here", interrupted)
    assert command.main(["--models-dir", str(tmp_path)]) == 130
    assert "--resume goes on" in capsys.readouterr().err


@pytest.mark.parametrize("sweep", [[], ["--sweep", "seeds=1"]])
def test_what_the_data_card_warns_of_is_told_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sweep: list[str]
) -> None:
    rng = np.random.default_rng(0)
    demos = {f"demo_{number}": rng.uniform(-1, 1, (24, 7)) * [1, 1, 1, 1, 1, 1e-6, 1] for number in range(20)}
    demos["demo_7"] = demos["demo_7"][:3]
    demos["demo_9"][5, 2] = 2950.0
    data = ["--data", str(write_libero(tmp_path / "a.hdf5", demos)), "--layout", "joint:7"]
    with quickly():
        assert command.main([*data, "--epochs", "1", "--models-dir", str(tmp_path), *sweep]) == 0
    told = capsys.readouterr().out.splitlines()[:5]
    beginnings = "These are no robot motions", "Left out: 1 shorter", "1 values lie", "joint 6 only trembles", "| "
    assert [line.startswith(words) for line, words in zip(told, beginnings, strict=True)] == [True] * 5


FIRST = Job("layernorm", 7)


class TestSweep:
    def test_is_every_conditioning_with_every_seed(self) -> None:
        jobs = parse_sweep("seeds=2,conditioning=all", Job("scale", 0))
        assert len(set(jobs)) == len(jobs) == 2 * len(CONDITIONINGS)
        assert parse_sweep(" seeds = 1 , conditioning = scale+none ", FIRST) == [Job("none", 7), Job("scale", 7)]

    def test_what_it_does_not_name_is_as_the_other_options_say(self) -> None:
        assert parse_sweep("seeds=2", FIRST) == [Job("layernorm", 7), Job("layernorm", 8)]
        assert len(parse_sweep("conditioning=all", FIRST)) == len(CONDITIONINGS)

    def test_each_has_files_of_its_own(self) -> None:
        run = TrainingRun(Job("none", 0), TrainConfig(), folder="models")
        runs = runs_of(parse_sweep("seeds=2", run.job), run)
        assert len({each.checkpoint for each in runs} | {each.resume_state for each in runs}) == 2 * len(runs)
        assert runs[0] == replace(run, folder="models/sweep", stem="none_seed0")

    def test_gathers_one_results_file(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        line = [*QUICK, "--models-dir", str(tmp_path), "--sweep", "seeds=2,conditioning=none+scale"]
        with quickly():
            assert command.main(line) == 0
        results = json.loads((tmp_path / "sweep_results.json").read_text())
        assert [(run["conditioning"], run["seed"]) for run in results["runs"]] == [
            ("none", 0), ("scale", 0), ("none", 1), ("scale", 1)
        ]  # fmt: skip
        for name, spread in results["conditionings"].items():
            each = [run["validation_mse"] for run in results["runs"] if run["conditioning"] == name]
            assert spread["validation_mse"] == {"mean": sum(each) / 2, "least": min(each), "greatest": max(each)}
        assert results["train_config"] == asdict(TrainConfig(epochs=3))
        assert results["data_config"] == asdict(DataConfig(num_episodes=16))
        assert results["command"].startswith("python train_rfsq_robust.py --num-episodes 16")
        assert all(run["provenance"]["packages"]["torch"] for run in results["runs"])
        assert "| scale | 2 |" in capsys.readouterr().out
        alone = tmp_path / "alone"
        assert command.main([*QUICK, "--models-dir", str(alone), "--conditioning", "scale", "--seed", "1"]) == 0
        theirs = load_checkpoint(alone / "rfsq_robust_scale_best.pt").model
        assert same_weights(load_checkpoint(tmp_path / "sweep" / "scale_seed1_best.pt").model, theirs)

    def test_two_in_one_folder_keep_out_of_each_others_way(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "sweep").mkdir()
        with (tmp_path / "sweep" / ".sweep.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            assert command.main([*QUICK, "--models-dir", str(tmp_path), "--sweep", "seeds=1"]) == 2
        assert "another run is writing here" in capsys.readouterr().err


def test_the_bar_goes_on_where_the_training_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["--models-dir", str(tmp_path), "--num-episodes", "16"]
    assert command.main([*line, "--epochs", "4"]) == 0
    capsys.readouterr()
    assert command.main([*line, "--epochs", "6", "--resume"]) == 0
    shown = re.findall(r"(\d)/6 \[", capsys.readouterr().err)
    assert (shown[0], shown[-1]) == ("4", "6")


def test_a_full_disk_is_told_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert command.main([*QUICK, "--models-dir", str(tmp_path)]) == 1
    assert f"error: {tmp_path}: No space left on device\n" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.pt"))
    assert not list(tmp_path.glob("*.resume"))


def test_names_are_those_that_phase_2_and_3_look_for() -> None:
    assert STEMS == {"none": "rfsq", "layernorm": "rfsq_robust"}
    run = TrainingRun(Job("scale", 0), TrainConfig())
    assert run.checkpoint.name == "rfsq_robust_scale_best.pt"


def test_help_needs_no_data(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        command.parse_arguments(["--help"])
    assert "--use-layernorm" in capsys.readouterr().out


def test_a_checkpoint_that_is_not_finite_is_never_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([*QUICK, "--models-dir", str(tmp_path), "--learning-rate", "1e30"]) == 2
    assert "diverged in epoch" in capsys.readouterr().err
    assert not (tmp_path / "rfsq_robust_best.pt").exists()


def test_an_input_error_travels_between_machines() -> None:
    import pickle

    assert str(pickle.loads(pickle.dumps(InputError("x: told")))) == "x: told"
