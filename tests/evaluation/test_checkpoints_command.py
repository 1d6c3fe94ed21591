"""The guide's second command: two checkpoints on held-out chunks, from forward and from tokens alone."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from made_up import walks
from small_runs import make_dataset
from writers import write_libero

from rfsq_robust import ActionRFSQAE, Checkpoint, load_checkpoint, save_checkpoint
from workbook.common.errors import InputError
from workbook.common.note import note
from workbook.common.paths import REPOSITORY
from workbook.data.config import DataConfig
from workbook.data.dataset import Dataset, prepare_dataset
from workbook.evaluation import checkpoints as checkpoint_comparison
from workbook.evaluation.checkpoints import ComparisonConfig, compare_checkpoints, draw
from workbook.evaluation.score import HeldOut
from workbook.report.text import words
from workbook.report.text.checkpoints import as_text
from workbook.training.data import TrainData
from workbook.training.trainer import Job, TrainConfig, train

COMMAND = REPOSITORY / "test_layernorm_improvement.py"
FILES = {"none": "rfsq_best.pt", "layernorm": "rfsq_robust_best.pt", "scale": "rfsq_robust_scale_best.pt"}
AS_WRITTEN = (
    "python test_layernorm_improvement.py --naive-model rfsq_best.pt --robust-model rfsq_robust_best.pt "
    "--num-samples 1000 --chunk-len 8"
)
SMALL = TrainConfig(epochs=15, batch_size=8, learning_rate=5e-3)
DATA = DataConfig(num_episodes=60, split_seed=3)
Report = dict[str, Any]


def remarks(report: Report) -> list[str]:
    return list(map(words("checkpoints").of_note, report["remarks"]))


def load_command() -> Callable[[list[str]], int]:
    spec = importlib.util.spec_from_file_location("improvement_command", COMMAND)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@dataclass(frozen=True)
class Trained:
    """A folder with recordings and the three models that were trained on them."""

    folder: Path
    dataset: Dataset

    @property
    def data(self) -> str:
        return str(self.folder / "recordings")

    def file(self, conditioning: str) -> str:
        return str(self.folder / FILES[conditioning])

    def checkpoint(self, conditioning: str) -> Checkpoint:
        return load_checkpoint(self.file(conditioning))

    def compare(self, robust: str = "layernorm", **options: Any) -> Report:
        return compare_checkpoints(ComparisonConfig(self.file("none"), self.file(robust), **options))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    write_libero(folder / "recordings" / "a_demo.hdf5", walks(0, 62))
    config = replace(DATA, chunk_len=4, stride=4)
    found = Trained(folder, prepare_dataset(folder / "recordings", config).dataset)
    data, bounds = TrainData.of(found.dataset), found.dataset.normaliser
    normalization = {"min": torch.from_numpy(bounds.low), "max": torch.from_numpy(bounds.high)}
    origin = {"data": found.data, "data_config": asdict(config), "dataset_sha256": found.dataset.sha256}
    for conditioning in ("none", "layernorm", "scale"):
        model = train(SMALL, Job(conditioning, 0), data)
        save_checkpoint(found.file(conditioning), Checkpoint(model.model, 1, model.mse, normalization, origin))
    return found


def resaved(trained: Trained, folder: Path, conditioning: str, **changes: Any) -> str:
    """A checkpoint with parts replaced, under its own name in another folder."""
    path = folder / FILES[conditioning]
    save_checkpoint(path, replace(trained.checkpoint(conditioning), **changes))
    return str(path)


def constant_model(conditioning: Any, value: float) -> ActionRFSQAE:
    """Decodes every code to the same normalised action."""
    model = ActionRFSQAE(1, 2, 4, 7, conditioning=conditioning)
    with torch.no_grad():
        model.decoder[2].weight.zero_()
        model.decoder[2].bias.fill_(value)
    return model


class TestFigures:
    def test_a_case_computed_by_hand(self, tmp_path: Path) -> None:
        """Every episode is seven times 1 and once -1, so decoding to 0 costs 1, and to 0.5 (7 * 0.25 + 2.25) / 8."""
        pattern = np.array([1.0] * 7 + [-1.0])[:, None]
        demos = {f"demo_{n}": np.tile(pattern, (n + 1, 1)) for n in range(10)}
        write_libero(tmp_path / "data" / "a_demo.hdf5", demos)
        for name, model in (("naive", constant_model("none", 0.0)), ("robust", constant_model("scale", 0.5))):
            save_checkpoint(tmp_path / f"{name}.pt", Checkpoint(model))
        files = (str(tmp_path / "naive.pt"), str(tmp_path / "robust.pt"))
        report = compare_checkpoints(ComparisonConfig(*files, data=str(tmp_path / "data"), layout="joint:1"))
        for way in ("forward", "tokens"):
            for role, mse in (("naive", 1.0), ("robust", 0.5)):
                estimate = report["models"][role]["mse"][way]
                assert [estimate[name] for name in ("mean", "low", "high")] == pytest.approx([mse] * 3)
            gain = report["improvement"][way]
            assert [gain[name] for name in ("mean", "low", "high")] == pytest.approx([0.5] * 3)
            assert report["verdict"]["mse"][way] == "unmet"
            assert report["verdict"]["improvement"][way] == "met"
        naive = report["models"]["naive"]
        assert naive["bits_per_chunk"] == {"tokens": pytest.approx(8 * 2 * 4 * math.log2(7))}
        assert naive["coarse"]["tokens"]["mean"] == pytest.approx(1.0)
        assert naive["fine"]["layers"] == [3]
        assert naive["fine"]["mse_taken_away"] == pytest.approx(0.0)
        text = as_text(report)
        assert re.search(r"^improvement +50\.0% \(50\.0% to 50\.0%\) +50\.0%", text, re.MULTILINE)
        assert re.search(r"^MSE < 0\.012 +unmet +unmet$", text, re.MULTILINE)
        assert "position error" not in text

    @pytest.mark.parametrize("role", ["naive", "robust"])
    def test_what_needs_no_statistics_decodes_as_forward(self, trained: Trained, role: str) -> None:
        report = trained.compare("scale")
        mse = report["models"][role]["mse"]
        assert mse["forward"] == mse["tokens"]
        assert report["improvement"]["forward"] == report["improvement"]["tokens"]
        assert report["models"][role]["coarse"]["tokens"] == report["models"][role]["coarse"]["with_statistics"]
        assert "statistics_sent" not in mse

    def test_layernorm_meets_forward_what_its_tokens_do_not(self, trained: Trained) -> None:
        report = trained.compare("layernorm")
        robust, verdict = report["models"]["robust"], report["verdict"]
        assert robust["mse"]["tokens"]["mean"] > 100 * robust["mse"]["forward"]["mean"]
        assert robust["mse"]["statistics_sent"]["mean"] == pytest.approx(robust["mse"]["forward"]["mean"], rel=0.01)
        assert robust["coarse"]["tokens"]["mean"] > 10 * robust["coarse"]["with_statistics"]["mean"]
        side = robust["bits_per_chunk"]["statistics_sent"] - robust["bits_per_chunk"]["tokens"]
        assert side == pytest.approx(4 * 8 * 2 * 16)  # steps, layers, mean and std, bits of a float16
        assert verdict["improvement"] == {"forward": "met", "tokens": "unmet", "statistics_sent": "met"}
        assert verdict["mse"]["tokens"] == "unmet"

    @torch.no_grad()
    def test_the_fine_layers_figures_are_those_of_the_model(self, trained: Trained) -> None:
        models = trained.compare("scale")["models"]
        model, fine = trained.checkpoint("scale").model, models["robust"]["fine"]
        test = np.concatenate([episode.actions for episode in trained.dataset.part("test")])
        x = trained.checkpoint("scale").normalise(torch.from_numpy(test))
        codes = model.encode(x)
        mse = [float(((model.decode_from_indices(codes[..., :k]) - x) ** 2).mean()) for k in (3, 8)]
        assert [fine[name]["mean"] for name in ("mse_before", "mse_after")] == pytest.approx(mse, rel=1e-3)
        assert fine["mse_taken_away"] == pytest.approx(mse[0] - mse[1], rel=1e-2)
        assert fine["residual_std"] == pytest.approx(model.residual_std(x)[3:8].tolist(), rel=1e-3)
        assert fine["constant_layers"] == []
        # Of odd levels one is 0, to which every residual of less than half a step is rounded.
        assert models["naive"]["fine"]["constant_layers"] == [3, 4, 5, 6, 7]

    def test_held_out_episodes_are_scored_and_no_others(self, trained: Trained) -> None:
        report = trained.compare("scale")
        test = trained.dataset.part("test")
        assert report["scored"]["steps"] == sum(len(episode.actions) for episode in test)
        assert report["scored"]["episodes"] == report["scored"]["of_episodes"] == len(test)
        actions = np.concatenate([episode.actions for episode in test])
        checkpoint = trained.checkpoint("scale")
        x = checkpoint.normalise(torch.from_numpy(actions))
        expected = float(((checkpoint.model(x)[0] - x) ** 2).mean().detach())
        assert report["models"]["robust"]["mse"]["forward"]["mean"] == pytest.approx(expected, rel=1e-4)
        assert report["remarks"] == [note("held_out")]

    def test_errors_are_in_the_units_of_the_data_set_whatever_a_models_own(
        self, trained: Trained, tmp_path: Path
    ) -> None:
        own = {"min": torch.full((7,), -2.0), "max": torch.full((7,), 2.0)}
        robust = resaved(trained, tmp_path, "scale", normalization=own)
        report = compare_checkpoints(ComparisonConfig(trained.file("none"), robust))
        test = np.concatenate([episode.actions for episode in trained.dataset.part("test")])
        x = torch.from_numpy(test / 2).float()
        error = (trained.checkpoint("scale").model(x)[0] - x).detach().numpy() * 2
        expected = float(((error / trained.dataset.normaliser.half_width) ** 2).mean())
        assert report["models"]["robust"]["mse"]["forward"]["mean"] == pytest.approx(expected, rel=1e-4)
        assert note("other_normaliser", file=robust) in report["remarks"]

    def test_a_model_without_a_normaliser_gets_the_data_sets(self, trained: Trained, tmp_path: Path) -> None:
        robust = resaved(trained, tmp_path, "scale", normalization=None)
        report = compare_checkpoints(ComparisonConfig(trained.file("none"), robust))
        assert report["models"]["robust"]["mse"] == trained.compare("scale")["models"]["robust"]["mse"]
        assert note("no_normaliser", file=robust) in report["remarks"]

    def test_models_with_few_layers_say_so(self, trained: Trained, tmp_path: Path) -> None:
        torch.manual_seed(0)
        small = ActionRFSQAE(7, 6, 2, 5, conditioning="scale")
        robust = resaved(trained, tmp_path, "scale", model=small)
        report = compare_checkpoints(ComparisonConfig(trained.file("none"), robust))
        assert report["models"]["robust"]["coarse"] is report["models"]["robust"]["fine"] is None
        assert "no such layers" in as_text(report)
        assert "not of equal size (hidden_dim 16 and 6, num_layers 8 and 2, num_levels 7 and 5)" in as_text(report)


class TestChunks:
    @pytest.mark.parametrize("count", [1, 5])
    def test_at_most_so_many_are_scored_always_the_same(self, trained: Trained, count: int) -> None:
        report = trained.compare("scale", num_samples=count, chunk_len=8)
        assert report["scored"]["chunks"] == count
        assert report["scored"]["steps"] <= 8 * count
        assert report == trained.compare("scale", num_samples=count, chunk_len=8)

    def test_fewer_than_asked_for_are_all_scored_which_is_said(self, trained: Trained) -> None:
        report = trained.compare("scale", num_samples=10_000)
        chunks = report["scored"]["chunks"]
        assert (
            chunks
            == report["scored"]["of_chunks"]
            == sum(-(-len(e.actions) // 4) for e in trained.dataset.part("test"))
        )
        assert f"scored: {chunks} of {chunks} chunks of 4 steps, 10,000 asked for" in as_text(report)

    def test_one_episode_gives_no_interval_and_shows_nothing(self, trained: Trained) -> None:
        report = trained.compare("layernorm", num_samples=1)
        assert set(report["verdict"]["mse"].values()) == {"not shown"}

    @settings(deadline=None, max_examples=20)
    @given(count=st.integers(1, 40))
    def test_drawn_chunks_are_whole_in_order_and_different(self, count: int) -> None:
        whole = HeldOut.of(make_dataset(20))
        drawn = draw(whole, count)
        total = len(whole.chunks.actions)
        assert len(drawn.chunks.actions) == min(count, total)
        places = [
            next(i for i in range(total) if np.array_equal(whole.chunks.actions[i], chunk))
            for chunk in drawn.chunks.actions
        ]
        assert places == sorted(set(places))
        actions = [episode.actions for episode in drawn.episodes]
        assert sum(map(len, actions)) == drawn.chunks.valid.sum()
        assert len(drawn.episodes) == len(set(whole.chunks.episode[places]))
        joined = np.concatenate(actions)
        np.testing.assert_array_equal(joined, drawn.chunks.actions[drawn.chunks.valid])
        assert drawn.rows(drawn.chunks.actions).mse.max() == 0


class TestWhatModelsWereTrainedOn:
    def test_is_what_is_read(self, trained: Trained) -> None:
        scored = trained.compare("scale")["scored"]
        assert scored["data"] == trained.data
        assert scored["data_config"] == asdict(replace(DATA, chunk_len=4, stride=4))
        assert scored["dataset_sha256"] == trained.dataset.sha256

    def test_an_option_stands_over_it_and_what_follows_is_said(self, trained: Trained) -> None:
        report = trained.compare("scale", split_seed=5)
        assert report["scored"]["data_config"]["split_seed"] == 5
        doubts = [remark for remark in remarks(report) if "with split_seed 3 (here 5)" in remark]
        assert len(doubts) == 2
        fewer = trained.compare("scale", num_episodes=10)["remarks"]
        assert [remark["key"] for remark in fewer].count("other_actions") == 2

    def test_where_two_disagree_the_robust_ones_are_read(self, trained: Trained, tmp_path: Path) -> None:
        origin = trained.checkpoint("none").provenance
        origin = origin | {"data_config": origin["data_config"] | {"split_seed": 8}}
        naive = resaved(trained, tmp_path, "none", provenance=origin)
        report = compare_checkpoints(ComparisonConfig(naive, trained.file("scale")))
        assert report["scored"]["data_config"]["split_seed"] == 3
        doubt = f"{naive}: was trained with split_seed 8 (here 3); it may have been trained on episodes scored here."
        assert remarks(report) == [doubt]

    def test_without_a_hash_names_and_all_options_are_held_together(self, trained: Trained, tmp_path: Path) -> None:
        origin = {name: trained.checkpoint("none").provenance[name] for name in ("data", "data_config")}
        plain = resaved(trained, tmp_path, "none", provenance=origin)
        held_out = compare_checkpoints(ComparisonConfig(plain, trained.file("scale")))
        assert held_out["remarks"][0] == note("held_out")
        changed = origin | {"data": "sample", "data_config": origin["data_config"] | {"chunk_len": 2, "stride": 1}}
        naive = resaved(trained, tmp_path, "none", provenance=changed)
        doubted = compare_checkpoints(ComparisonConfig(naive, trained.file("scale")))
        doubt = f"with data 'sample' (here {trained.data!r}); it may"
        assert [doubt in remark for remark in remarks(doubted)] == [True]

    @pytest.mark.parametrize(
        "origin",
        [{}, {"data": "sample"}, {"data": 3, "data_config": {}}, {"data": "sample", "data_config": {"stride": "8"}},
         {"data": "sample", "data_config": {"unheard_of": 1}}, {"data": "sample", "data_config": "all"}],
    )  # fmt: skip
    def test_a_file_that_does_not_say_it_takes_the_other_ones(
        self, trained: Trained, tmp_path: Path, origin: dict[str, Any]
    ) -> None:
        robust = resaved(trained, tmp_path, "scale", provenance=origin)
        report = compare_checkpoints(ComparisonConfig(trained.file("none"), robust))
        assert report["scored"]["dataset_sha256"] == trained.dataset.sha256
        [remark] = remarks(report)
        assert remark.startswith(f"{robust}: does not say what it was trained on; {trained.data} with split seed 3")
        assert "not known whether it was trained on the episodes scored" in remark

    def test_one_that_names_the_hash_alone_is_believed_in_that(self, trained: Trained, tmp_path: Path) -> None:
        """As the notebooks write them."""
        origin = {"dataset_sha256": trained.dataset.sha256}
        naive = resaved(trained, tmp_path, "none", provenance=origin)
        report = compare_checkpoints(ComparisonConfig(naive, trained.file("scale")))
        assert report["remarks"] == [note("split_not_said", file=naive, seed=3)]

    def test_existing_files_that_say_nothing_are_scored_on_the_sample(self, trained: Trained, tmp_path: Path) -> None:
        files = [tmp_path / FILES[name] for name in ("none", "scale")]
        for file, name in zip(files, ("none", "scale"), strict=True):
            model = trained.checkpoint(name).model
            torch.save({"model": model.state_dict(), "config": model.config, "mse": 0.1}, file)
        report = compare_checkpoints(ComparisonConfig(*map(str, files), num_samples=20))
        assert report["scored"]["data"] == "sample"
        assert report["scored"]["chunks"] == 20
        assert report["remarks"][:2] == [note("data_not_said", file=str(f), data="sample", seed=0) for f in files]

    def test_data_that_have_changed_since_are_said(self, trained: Trained, tmp_path: Path) -> None:
        origin = trained.checkpoint("scale").provenance | {"dataset_sha256": "0" * 64}
        robust = resaved(trained, tmp_path, "scale", provenance=origin)
        [remark] = remarks(compare_checkpoints(ComparisonConfig(trained.file("none"), robust)))
        assert remark.startswith(f"{robust}: was trained on other actions (SHA-256 000000000000)")


def test_data_that_are_no_motion_are_told_first(trained: Trained, tmp_path: Path) -> None:
    assert not any(trained.compare("scale")["concerns"][name] for name in ("doubts", "left_out", "trembling"))
    rng = np.random.default_rng(0)
    demos = {f"demo_{number}": rng.uniform(-1, 1, (24, 7)) for number in range(20)}
    report = trained.compare("scale", data=str(write_libero(tmp_path / "a.hdf5", demos | {"demo_3": np.zeros((2, 7))})))
    assert [doubt["key"] for doubt in report["concerns"]["doubts"]] == ["white_noise"]
    told = as_text(report).splitlines()
    assert told[0].startswith("These are no robot motions")
    assert told[1].startswith("Left out: 1 shorter than one chunk")


def arguments(trained: Trained, *more: str, robust: str = "layernorm") -> list[str]:
    return ["--naive-model", trained.file("none"), "--robust-model", trained.file(robust), *more]


def sentence(capsys: pytest.CaptureFixture[str], given_arguments: list[str]) -> str:
    """What bad input is refused with."""
    assert load_command()(given_arguments) == 2
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err.startswith("error: ")
    assert found.err.count("\n") == 1
    return found.err


class TestBadInput:
    @pytest.mark.parametrize("content", [None, b"", b"no checkpoint"])
    @pytest.mark.parametrize("option", ["--naive-model", "--robust-model"])
    def test_what_is_no_checkpoint(
        self, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, option: str
    ) -> None:
        if content is not None:
            (tmp_path / "bad.pt").write_bytes(content)
        assert "bad.pt: " in sentence(capsys, arguments(trained, option, str(tmp_path / "bad.pt")))

    def test_a_robust_model_as_the_naive_one(self, trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
        said = sentence(capsys, arguments(trained, "--naive-model", trained.file("layernorm")))
        assert "is a 'layernorm' model; give --naive-model a naive one" in said

    def test_a_naive_model_as_the_robust_one(self, trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
        said = sentence(capsys, arguments(trained, "--robust-model", trained.file("none")))
        assert "rfsq_best.pt: is a naive model" in said

    def test_data_of_another_width(self, trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
        said = sentence(capsys, arguments(trained, "--layout", "joint:5"))
        assert "rfsq_best.pt: has action_dim 7 where layout 'joint:5' has 5" in said

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (["--num-samples", "0"], "num_samples is 0"),
            (["--chunk-len", "0"], "chunk length 0"),
            (["--chunk-len", "1000"], "1000"),
            (["--layout", "legs:2"], "legs:2"),
            (["--data", "no such folder"], "no such folder"),
            (["--json", "no such folder/a.json"], "no such folder/a.json: cannot be written"),
            (["--json", "."], "cannot be written"),
        ],
    )
    def test_options_that_cannot_be(
        self, trained: Trained, capsys: pytest.CaptureFixture[str], options: list[str], words: str
    ) -> None:
        assert words in sentence(capsys, arguments(trained, *options))

    def test_figures_do_not_replace_a_checkpoint(self, trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
        said = sentence(capsys, arguments(trained, "--json", trained.file("none")))
        assert "is a checkpoint" in said
        assert trained.checkpoint("none")

    def test_data_that_a_checkpoint_names_and_that_are_gone(
        self, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        origin = trained.checkpoint("scale").provenance | {"data": str(tmp_path / "gone")}
        robust = resaved(trained, tmp_path, "scale", provenance=origin)
        said = sentence(capsys, arguments(trained, "--robust-model", robust))
        assert f"{robust} names these as its data, and --data names others" in said

    def test_an_unknown_option(self, trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as stopped:
            load_command()(arguments(trained, "--samples", "3"))
        assert stopped.value.code == 2
        assert "unrecognized arguments" in capsys.readouterr().err


class TestCommand:
    def test_as_the_guide_writes_it(self, trained: Trained) -> None:
        script = trained.folder / COMMAND.name
        script.symlink_to(COMMAND)
        command = [sys.executable, *AS_WRITTEN.split()[1:]]
        done = subprocess.run(command, cwd=trained.folder, capture_output=True, text=True, timeout=120, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert (
            done.stdout
            == as_text(
                compare_checkpoints(replace(ComparisonConfig(trained.file("none"), trained.file("layernorm"), 1000, 8)))
            ).replace(f"{trained.folder}/rfsq", "rfsq")
            + "\n"
        )
        for start in ("naive ", "robust (layernorm)", "improvement", "L0-L2, naive", "L0-L2, robust", "MSE of L3-L7"):
            assert re.search(f"^{re.escape(start)}", done.stdout, re.MULTILINE)
        assert "mean 0 and std 1 are assumed" in " ".join(done.stdout.split())
        assert re.search(r"^improvement > 30% +met +unmet +met$", done.stdout, re.MULTILINE)

    def test_writes_the_same_figures(
        self, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "figures.json"
        assert load_command()(arguments(trained, "--json", str(path))) == 0
        report = json.loads(path.read_text(encoding="utf8"))
        assert as_text(report) + "\n" == capsys.readouterr().out
        assert [entry.name for entry in tmp_path.iterdir()] == ["figures.json"]

    def test_drop_noops_can_be_said_both_ways(
        self, trained: Trained, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        seen: list[bool | None] = []

        def note(config: ComparisonConfig) -> Report:
            seen.append(config.drop_noops)
            raise InputError("enough")

        monkeypatch.setattr(checkpoint_comparison, "compare_checkpoints", note)
        for more in ([], ["--drop-noops"], ["--no-drop-noops"]):
            assert sentence(capsys, arguments(trained, *more)) == "error: enough\n"
        assert seen == [None, True, False]

    def test_an_interrupt_ends_it_quietly(
        self, trained: Trained, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def interrupt(config: ComparisonConfig) -> Report:
            raise KeyboardInterrupt

        monkeypatch.setattr(checkpoint_comparison, "compare_checkpoints", interrupt)
        assert load_command()(arguments(trained)) == 130
        assert "Traceback" not in capsys.readouterr().err

    def test_help_needs_no_package(self) -> None:
        """With -S there are no site-packages, so that anything but the standard library would fail."""
        done = subprocess.run(
            [sys.executable, "-S", COMMAND, "--help"], capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert "--naive-model" in done.stdout

    def test_pytest_collects_nothing_of_it(self) -> None:
        """Neither by its name nor with all that lies in the repository."""
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", COMMAND.name, ".", "--ignore=tests"]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 5, done.stdout + done.stderr  # 5: nothing was collected
        assert "no tests ran" in done.stdout
