"""A training that was cut off goes on to the weights of one that was not, to the last bit."""

from __future__ import annotations

import hashlib
import io
import pickle
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_runs import SMALL, make_dataset, quickly, same_weights

from rfsq_robust import CONDITIONINGS, CheckpointError, Conditioning, load_checkpoint
from workbook.common.errors import InputError
from workbook.common.paths import REPOSITORY, OutputFolder
from workbook.training import runs
from workbook.training.data import TrainData
from workbook.training.runs import train_variants
from workbook.training.trainer import Job, ResumeState, TrainConfig, identity, train

FIVE_EPOCHS = replace(SMALL, epochs=5, learning_rate=0.05)


class KilledError(Exception):
    """Stands for a process that dies between two epochs."""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data() -> TrainData:
    return TrainData.of(make_dataset())


def resume_state_of(path: Path, config: TrainConfig, job: Job, data: TrainData) -> ResumeState:
    return ResumeState(path, identity(config, job, data))


def train_until(last: int, config: TrainConfig, job: Job, data: TrainData, resume_state: ResumeState) -> None:
    def die(epoch: int, mse: float) -> None:
        if epoch == last:
            raise KilledError

    with pytest.raises(KilledError):
        train(config, job, data, die, resume_state)


@pytest.mark.parametrize("last", [1, 3, 5])
@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_goes_on_to_the_same_weights(data: TrainData, tmp_path: Path, conditioning: Conditioning, last: int) -> None:
    job = Job(conditioning, 4)
    whole = train(FIVE_EPOCHS, job, data)
    resume_state = resume_state_of(tmp_path / "state", FIVE_EPOCHS, job, data)
    train_until(last, FIVE_EPOCHS, job, data, resume_state)
    told: list[tuple[int, float]] = []
    resumed = train(FIVE_EPOCHS, job, data, lambda epoch, mse: told.append((epoch, mse)), resume_state)
    assert resumed.curve == whole.curve
    assert (resumed.epoch, resumed.mse) == (whole.epoch, whole.mse)
    assert same_weights(resumed.model, whole.model)
    assert told == list(enumerate(whole.curve, start=1)), "the epochs before are told, too, and each once"


def test_a_finished_training_can_be_made_longer(data: TrainData, tmp_path: Path) -> None:
    job = Job("scale", 0)
    resume_state = resume_state_of(tmp_path / "state", SMALL, job, data)
    longer = replace(SMALL, epochs=5)
    assert len(train(SMALL, job, data, resume_state=resume_state).curve) == SMALL.epochs
    assert train(longer, job, data, resume_state=resume_state).curve == train(longer, job, data).curve


def test_seconds_count_all_sittings(data: TrainData, tmp_path: Path) -> None:
    job = Job("none", 0)
    resume_state = resume_state_of(tmp_path / "state", SMALL, job, data)
    train(SMALL, job, data, resume_state=resume_state)
    content = resume_state.read(SMALL.epochs)
    assert content
    content["seconds"] = 1000.0
    del content["of"]
    resume_state.write(content)
    assert train(SMALL, job, data, resume_state=resume_state).seconds > 1000


def test_a_process_that_dies_while_it_writes_leaves_the_state_before(
    data: TrainData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job("scale", 0)
    resume_state = resume_state_of(tmp_path / "state", FIVE_EPOCHS, job, data)
    train_until(2, FIVE_EPOCHS, job, data, resume_state)
    before = resume_state.path.read_bytes()

    def half(path: Path, content: bytes) -> int:
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", half)
        with pytest.raises(KilledError):
            train(FIVE_EPOCHS, job, data, resume_state=resume_state)
    assert resume_state.path.read_bytes() == before
    resumed = train(FIVE_EPOCHS, job, data, resume_state=resume_state)
    assert same_weights(resumed.model, train(FIVE_EPOCHS, job, data).model)


class TestRefusals:
    @pytest.fixture
    def written(self, data: TrainData, tmp_path: Path) -> ResumeState:
        resume_state = resume_state_of(tmp_path / "state", FIVE_EPOCHS, Job("scale", 0), data)
        train(FIVE_EPOCHS, Job("scale", 0), data, resume_state=resume_state)
        return resume_state

    def test_another_setting(self, data: TrainData, written: ResumeState) -> None:
        other = replace(FIVE_EPOCHS, batch_size=8)
        state = resume_state_of(written.path, other, Job("scale", 0), data)
        with pytest.raises(InputError, match=r"state: this training was begun with batch_size 16, not 8; go on"):
            train(other, Job("scale", 0), data, resume_state=state)

    def test_another_seed(self, data: TrainData, written: ResumeState) -> None:
        with pytest.raises(InputError, match="begun with seed 0, not 1"):
            resume_state_of(written.path, FIVE_EPOCHS, Job("scale", 1), data).read(5)

    def test_other_data(self, data: TrainData, written: ResumeState) -> None:
        other = replace(data, train=data.train * 0.5)
        with pytest.raises(InputError, match=r"begun with data [0-9a-f]{64}, not"):
            resume_state_of(written.path, FIVE_EPOCHS, Job("scale", 0), other).read(5)

    def test_more_epochs_than_wanted(self, written: ResumeState) -> None:
        with pytest.raises(InputError, match="has done 5 epochs, more than 4; ask for 5 or more"):
            written.read(4)

    @pytest.mark.parametrize("damage", ["cut short", "a changed bit", "text", "a checkpoint", "a folder"])
    def test_a_damaged_file(self, written: ResumeState, damage: str) -> None:
        content = bytearray(written.path.read_bytes())
        content[len(content) // 2] ^= 1
        if damage == "a folder":
            written.path.unlink()
            written.path.mkdir()
        elif damage == "a checkpoint":
            torch.save({"model": {}}, written.path)
        else:
            other = {"cut short": bytes(content[:1000]), "a changed bit": bytes(content), "text": b"not a state"}
            written.path.write_bytes(other[damage])
        with pytest.raises(InputError, match=r"state: not the state of a training, or damaged; remove it"):
            written.read(5)

    def test_a_state_passes_for_no_checkpoint(self, written: ResumeState) -> None:
        """It holds weights without what they need, and would load as those of a naive model."""
        with pytest.raises(CheckpointError, match="not a PyTorch checkpoint"):
            load_checkpoint(written.path)


def test_a_state_is_never_executed(tmp_path: Path, data: TrainData) -> None:
    bomb = pickle.dumps({"of": Bomb(tmp_path / "went off")})
    (tmp_path / "state").write_bytes(hashlib.sha256(bomb).hexdigest().encode() + b"\n" + bomb)
    with pytest.raises(InputError, match="not the state of a training"):
        resume_state_of(tmp_path / "state", SMALL, Job("scale", 0), data).read(5)
    assert not (tmp_path / "went off").exists()


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_what_a_killed_process_left_half_written_goes(tmp_path: Path, data: TrainData) -> None:
    resume_state = resume_state_of(tmp_path / "state", SMALL, Job("scale", 0), data)
    (tmp_path / ".state.abc").write_bytes(b"half")
    (tmp_path / ".other.abc").write_bytes(b"not ours")
    resume_state.remove_halves()
    assert [path.name for path in tmp_path.iterdir()] == [".other.abc"]


def test_a_run_of_many_trainings_that_is_interrupted_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = make_dataset()
    config = replace(SMALL, epochs=3)

    def interrupt(done: int, total: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    monkeypatch.setattr(runs, "RESUME_STATE_SECONDS", 0.0)
    with quickly():
        clean, curves = train_variants(OutputFolder.at(str(tmp_path / "clean")), dataset, config, 1, "cpu")
        out = OutputFolder.at(str(tmp_path / "cut off"))
        with pytest.raises(KeyboardInterrupt):
            train_variants(out, dataset, config, 1, "cpu", on_progress=interrupt)
        (state,) = out.unfinished.iterdir()
        kept = torch.load(io.BytesIO(state.read_bytes().partition(b"\n")[2]), weights_only=True)
        assert [len(mses) for mses in kept["curve"]] == [5, 5], "two epochs of three, of all models"
        resumed, resumed_curves = train_variants(out, dataset, config, 1, "cpu")
    assert (clean["resumed"], resumed["resumed"]) == (False, True)
    for name in CONDITIONINGS:
        ours, theirs = (content["conditionings"][name]["runs"][0] for content in (resumed, clean))
        assert ours["reconstruction_sha256"] == theirs["reconstruction_sha256"]
    assert resumed_curves["training"].equals(curves["training"])
    assert not out.unfinished.exists()


def test_a_folder_of_the_user_keeps_what_is_not_a_state(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.pt").write_text("keep")
    (mine / ".scale_seed0_0.resume.abc").write_text("half")
    with quickly():
        train_variants(OutputFolder.at(str(tmp_path / "out")), make_dataset(), SMALL, 1, "cpu", unfinished=str(mine))
    assert [path.name for path in mine.iterdir()] == ["notes.pt"]


COMMAND = [
    sys.executable, str(REPOSITORY / "train_rfsq_robust.py"), "--conditioning", "frozen_layernorm",
    "--num-episodes", "16", "--epochs", "120",
]  # fmt: skip


def start(folder: Path, *more: str) -> subprocess.Popen[bytes]:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([*COMMAND, "--models-dir", str(folder), *more], **quiet)


def kill_at_random_moments(folder: Path, moments: int) -> int:
    """Each training that is killed and gone on with against one that is not; how many were killed between epochs."""
    begun = time.monotonic()
    assert start(folder / "whole").wait(timeout=120) == 0
    duration = time.monotonic() - begun
    whole = load_checkpoint(folder / "whole" / "rfsq_robust_frozen_layernorm_best.pt")
    log = (folder / "whole" / "rfsq_robust_frozen_layernorm_log.csv").read_bytes()
    rng = random.Random(0)
    in_the_middle = 0
    for number in range(moments):
        each = folder / str(number)
        process = start(each)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=rng.uniform(0.2, 0.95) * duration)
        process.kill()
        finished = process.wait() == 0
        in_the_middle += not finished and (each / "rfsq_robust_frozen_layernorm.resume").exists()
        assert start(each, "--resume").wait(timeout=120) == 0
        resumed = load_checkpoint(each / "rfsq_robust_frozen_layernorm_best.pt")
        assert same_weights(resumed.model, whole.model)
        assert (resumed.epoch, resumed.mse) == (whole.epoch, whole.mse)
        assert (each / "rfsq_robust_frozen_layernorm_log.csv").read_bytes() == log
    return in_the_middle


def test_killed_at_a_random_moment_and_resumed_the_weights_are_the_same(tmp_path: Path) -> None:
    kill_at_random_moments(tmp_path, 1)


@pytest.mark.slow
def test_killed_at_20_random_moments_and_resumed_the_weights_are_the_same_each_time(tmp_path: Path) -> None:
    assert kill_at_random_moments(tmp_path, 20) >= 5
