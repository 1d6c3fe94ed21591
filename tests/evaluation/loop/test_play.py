"""The closed loop, small: one task, three arms, few starts; what is finished is kept, and what breaks costs itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from small_runs import ignore_progress, make_dataset
from writers import write_as_libero_does

from rfsq_robust import ActionRFSQAE
from workbook.codecs import catalogue as catalogue_module
from workbook.codecs.bins import UniformBins
from workbook.codecs.brought import BroughtCodec
from workbook.codecs.catalogue import BROUGHT, ENTRIES, Fitting, Setting, at, brought_entry, catalogue
from workbook.codecs.rfsq import RFSQCodec
from workbook.codecs.token_spaces import Bins, Codes
from workbook.common.array import Array
from workbook.common.errors import InputError
from workbook.common.paths import SAMPLE
from workbook.data.dataset import Dataset, prepare_dataset
from workbook.evaluation.loop import (
    demonstrations as demonstrations_module,
    episodes as episodes_module,
    play as play_module,
    sequence as sequence_module,
    train as train_module,
)
from workbook.evaluation.loop.arms import DIRECT, WITHOUT_TOKENS, Arm, Lineup
from workbook.evaluation.loop.demonstrations import Demonstration, chosen, record, task_files, windows
from workbook.evaluation.loop.evidence import TABLES, Loop
from workbook.evaluation.loop.play import LoopConfig, LoopStage, play_policies
from workbook.evaluation.policy.network import Observations
from workbook.evaluation.replay.evidence import DIED, NO_STATES, OTHER_LAYOUT
from workbook.simulation import workers
from workbook.simulation.observation import SIZE, Observer, jitter, observe
from workbook.simulation.scene import Scene
from workbook.simulation.workers import run_apart
from workbook.verdict.recommendation import IN_LOOP

STOVE = SAMPLE / "libero_goal" / "turn_on_the_stove_demo.hdf5"
EVERY = catalogue()
SMALL = LoopConfig(loop_seeds=1, loop_starts=3, demonstrations=2, loop_steps=30)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return prepare_dataset(STOVE).dataset


@pytest.fixture(scope="module")
def fitting(dataset: Dataset) -> Fitting:
    torch.manual_seed(0)
    codec = RFSQCodec("none", ActionRFSQAE(hidden_dim=4, num_layers=2, use_layernorm=False).eval(), dataset.normaliser)
    return Fitting(dataset, rfsq={"none": [codec], "scale": [codec]})


@pytest.fixture(autouse=True)
def few_arms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Naive tokens by two rules, and the regression."""
    naive = replace(ENTRIES[0], phase2=False)
    monkeypatch.setattr(catalogue_module, "ENTRIES", (naive,))


def play(dataset: Dataset, fitting: Fitting, folder: Path, config: LoopConfig = SMALL) -> LoopStage:
    return play_policies(dataset, fitting, config, folder, lambda part: ignore_progress)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("loop")


@pytest.fixture
def played(simulator: None, dataset: Dataset, fitting: Fitting, folder: Path) -> LoopStage:
    return play(dataset, fitting, folder)


def jobs_of(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many episodes each call plays anew."""
    seen: list[int] = []

    def count(work: Any, jobs: list[Any], *rest: Any, **named: Any) -> list[Any]:
        seen.append(len(jobs))
        return run_apart(work, jobs, *rest, **named)

    monkeypatch.setattr(workers, "run_apart", count)
    return seen


def test_every_arm_plays_from_the_same_starts(played: LoopStage) -> None:
    loop = Loop(played.values, played.tables["policies"], played.tables["loop_policies"])
    assert loop.played
    assert [(arm.kind, arm.rule) for arm in loop.arms] == [
        ("regression", "direct"), ("tokens", "parallel_argmax"), ("tokens", "soft"),
    ]  # fmt: skip
    assert all(loop.counts(arm)[1] == SMALL.loop_starts for arm in loop.arms)
    assert len({tuple(loop.of(arm).episode) for arm in loop.arms}) == 1
    assert (played.values["demonstrations"], played.values["tasks"]) == (2, ["turn on the stove"])
    assert loop.policies.validation_mse.between(0, 10).all()


def test_a_second_call_trains_and_plays_nothing_and_comes_to_the_same(
    played: LoopStage, dataset: Dataset, fitting: Fitting, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(*_: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(train_module, "train_policy", train)
    monkeypatch.setattr("workbook.common.parallel.available_cores", lambda: 1)
    jobs = jobs_of(monkeypatch)
    again = play(dataset, fitting, folder)
    assert jobs == [0, 0, 0]  # demonstrations of train and validation, and episodes
    for name, rows in played.tables.items():
        pd.testing.assert_frame_equal(again.tables[name], rows)


def test_what_is_damaged_is_made_again_alone(
    played: LoopStage, dataset: Dataset, fitting: Fitting, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sorted(folder.glob("episode-*.json"))[0].write_text("{", encoding="utf8")
    sorted(folder.glob("policy-*.pt"))[0].write_bytes(b"cut short")
    sorted(folder.glob("seen-*.npz"))[0].write_bytes(b"cut short")
    jobs = jobs_of(monkeypatch)
    again = play(dataset, fitting, folder)
    assert sorted(jobs) == [0, 1, 1]  # a demonstration of either part, and an episode
    pd.testing.assert_frame_equal(again.tables["policies"], played.tables["policies"])


def test_an_episode_whose_process_dies_costs_itself(
    played: LoopStage, dataset: Dataset, fitting: Fitting, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(episodes_module, "SECONDS_AN_EPISODE", 0.0)
    sorted(folder.glob("episode-*.json"))[0].unlink()
    stage = play(dataset, fitting, folder)
    rows = stage.tables["policies"]
    assert (rows.not_played == "died").sum() == 1
    assert rows.succeeded.isna().sum() == 1
    assert Loop(stage.values, rows, stage.tables["loop_policies"]).played


def test_a_demonstration_leads_back_to_its_goal_and_is_seen_before_every_step(
    simulator: None, dataset: Dataset, tmp_path: Path
) -> None:
    [at] = chosen(dataset, "train", ["turn on the stove"], 1)
    found = record(dataset, [at], tmp_path)
    assert found[at].seen.shape == (len(dataset.episodes[at].actions), SIZE)
    assert np.isfinite(found[at].seen).all()
    moved = np.linalg.norm(np.diff(found[at].seen[:, :3], axis=0), axis=1)
    assert 0.05 < moved.sum() < 3  # metres that the hand goes


def test_what_is_seen_of_two_tasks_has_one_width_and_follows_the_hand(
    simulator: None, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    scene = Scene("libero_goal/put_the_cream_cheese_in_the_bowl.bddl")
    source = SAMPLE / "libero_goal" / "put_the_cream_cheese_in_the_bowl_demo.hdf5"
    start = prepare_dataset(source).dataset.starts[0]
    seen = observe(scene, start, np.array([[0, 0, 1.0, 0, 0, 0, -1]] * 8))
    assert seen.shape == (8, SIZE)
    assert seen[-1, 2] > seen[0, 2] + 0.01  # the hand rises
    cheese, from_hand = seen[:, 11:14], seen[:, 14:17]
    np.testing.assert_allclose(from_hand, cheese - seen[:, :3], atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(seen[:, 3:6], axis=1), 1, atol=1e-6)
    shaken = jitter(scene, start, 0.02, (1, 0))
    assert 0 < np.abs(shaken.state[1:8] - start.state[1:8]).max() < 0.2
    np.testing.assert_array_equal(shaken.state, jitter(scene, start, 0.02, (1, 0)).state)
    assert len(Observer(scene).names) == 2


def test_windows_hold_what_is_seen_now_and_a_step_before_and_the_task() -> None:
    seen, actions = np.arange(6.0).reshape(3, 2), np.arange(21.0).reshape(3, 7)
    found = windows([Demonstration("b", actions, seen)], ["a", "b"], length=2, stride=2)
    np.testing.assert_array_equal(found.inputs, [[0, 1, 0, 1, 0, 1], [4, 5, 2, 3, 0, 1]])
    np.testing.assert_array_equal(found.chunks, [actions[[0, 1]], actions[[2, 2]]])


def test_no_start_of_a_policy_is_one_it_was_trained_on(dataset: Dataset) -> None:
    starts = [episodes_module.held_out_starts(dataset, ["turn on the stove"], 4, seed) for seed in range(3)]
    train = {dataset.starts[at].state.tobytes() for at in (*dataset.split.train, *dataset.split.validation)}
    assert not train & {each.start.state.tobytes() for of in starts for each in of}
    numbers = [each.number for of in starts for each in of]
    assert numbers == list(range(12))
    known = len(dataset.test_starts)
    assert [each.shaken for of in starts for each in of] == [number // known for number in range(12)]


def test_what_cannot_be_played_is_said(simulator: None, dataset: Dataset, fitting: Fitting, tmp_path: Path) -> None:
    without = replace(dataset, starts={})
    assert play(without, fitting, tmp_path).values == {"not_run": NO_STATES}
    from workbook.data.layout import ActionLayout

    other = make_dataset(layout=ActionLayout.parse("joint:7"))
    assert play(other, fitting, tmp_path).values == {"not_run": OTHER_LAYOUT}


def test_where_no_demonstration_can_be_played_nothing_is_trained(
    simulator: None, dataset: Dataset, fitting: Fitting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(play_module, "record", lambda *_: {})
    assert play(dataset, fitting, tmp_path).values == {"not_run": DIED}


def test_a_task_whose_demonstrations_are_too_long_is_left_out(
    simulator: None, dataset: Dataset, fitting: Fitting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(play_module, "LONGEST_DEMONSTRATION", 10)
    assert play(dataset, fitting, tmp_path).values == {"not_run": "too_long"}


@pytest.mark.parametrize("name", ["loop_seeds", "loop_starts", "demonstrations", "loop_steps"])
def test_nothing_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=rf"^{name} is 0; give at least 1$"):
        LoopConfig(**{name: 0})


def test_tasks_are_those_whose_start_is_known(dataset: Dataset) -> None:
    assert list(task_files(dataset)) == ["turn on the stove"]
    assert demonstrations_module.chosen(dataset, "train", ["no such task"], 3) == []


def test_figures_without_the_simulator_are_of_every_arm_and_of_validation_episodes(played: LoopStage) -> None:
    assert tuple(played.tables) == TABLES
    loop = Loop(played.values, *played.tables.values())
    keys = ["kind", "codec", "setting", "rule", "decoder", "seed"]
    pd.testing.assert_frame_equal(loop.offline[keys], loop.policies[keys])
    assert loop.offline.mse.tolist() == loop.policies.validation_mse.tolist()
    assert loop.offline.token_accuracy.notna().tolist() == [False, True, False]
    assert loop.values["part"] == "validation"
    assert loop.acceptances == []  # no draft and main model among these arms


def test_a_policy_that_is_not_trained_plays_nothing_and_is_told(
    played: LoopStage, dataset: Dataset, fitting: Fitting, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transformer for FAST-style tokens, stopped after one round of two batches, beside the regression."""
    lineup = Lineup([Arm(WITHOUT_TOKENS, DIRECT)])
    lineup.add_sequence(fitting, EVERY["fast"], Setting.of(scale=5))
    monkeypatch.setattr(play_module, "line_up", lambda fitting: lineup)
    monkeypatch.setattr(sequence_module, "MOST_ROUNDS", 1)
    monkeypatch.setattr(sequence_module, "ROUND", 2)
    monkeypatch.setattr("workbook.common.parallel.available_cores", lambda: 1)
    stage = play(dataset, fitting, folder)
    [said] = stage.values["sequences"]
    assert (said["codec"], said["setting"], said["not_trained"]) == ("fast", "scale=5", "still_falling")
    assert 0 < said["mean_mse"] < 1
    assert 0 <= said["malformed"] <= 1
    assert {*stage.tables["policies"].kind} == {*stage.tables["loop_offline"].kind} == {"regression"}
    assert stage.values["sequences"] == play(dataset, fitting, folder).values["sequences"]  # from its file


class Moving:
    """A tokenizer as somebody might bring it: of each step of a chunk whether anything but the gripper moves much.

    Not whole, steps at the end that do not are left out. The token of the fifth may lie outside the vocabulary.
    """

    vocab_size = 2

    def __init__(self, whole: bool) -> None:
        self.whole = whole

    def __call__(self, chunks: Array) -> list[list[int]]:
        moving = (np.abs(chunks[..., :6]).max(axis=2) > 0.5).astype(int)
        moving[:, 4] *= 3
        return [each.tolist() if self.whole else np.trim_zeros(each, "b").tolist() for each in moving]

    def decode(self, tokens: list[list[int]]) -> Array:
        if any(not sequence for sequence in tokens):
            raise ValueError("nothing to decode")
        return np.array([np.outer((*each, *[0] * 8)[:8], np.full(7, 0.1)) for each in tokens])


def test_what_was_brought_plays_in_processes_of_their_own(
    played: LoopStage, dataset: Dataset, fitting: Fitting, folder: Path
) -> None:
    codec = BroughtCodec("Moving", Moving(whole=True), dataset.normaliser, (8, 7), lengths=(8, 8))
    silent = replace(codec, name="Silent", lengths=(0, 0))
    few = replace(SMALL, loop_starts=1, loop_steps=5)
    stage = play(dataset, replace(fitting, brought=[codec, silent]), folder, few)
    rows = stage.tables["policies"]
    mine = rows[rows.codec == f"{BROUGHT}Moving"]
    assert [*zip(mine.kind, mine.rule, mine.not_played, strict=True)] == [
        ("tokens", "parallel_argmax", ""), ("tokens", "soft", ""),
    ]  # fmt: skip
    assert stage.values["not_predicted"] == {f"{BROUGHT}Silent": "no_tokens"}


def test_what_was_brought_and_varies_in_length_is_a_sequence_under_full(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer sequences than any of the train chunks are cut, tokens outside the vocabulary are its last."""
    monkeypatch.setattr(sequence_module, "MOST_ROUNDS", 1)
    monkeypatch.setattr(sequence_module, "ROUND", 2)
    codec = BroughtCodec("Moving", Moving(whole=False), dataset.normaliser, (8, 7), lengths=(0, 5))
    lineup = Lineup()
    lineup.add_sequence(Fitting(dataset, brought=[codec]), brought_entry(f"{BROUGHT}Moving"), Setting(()))
    seen = Observations(np.random.default_rng(0).normal(size=(40, 3)), dataset.train_chunks().actions[:40])
    tokens = codec.encode(seen.chunks)
    assert (tokens.lengths.max() > 5, tokens.codes.max()) == (True, 3)
    shared = train_module.Shared(SMALL.policy, dataset.normaliser, seen, seen, lineup, tmp_path)
    [arm] = lineup.arms
    path = train_module.train_job(shared, train_module.Job(arm.policy, 0), lambda: None)
    actions, malformed = train_module.trained_actor(shared, arm, 0, path).greedy(seen.inputs)
    assert actions.shape == seen.chunks.shape
    assert 0 <= malformed <= 1


# Files


def test_a_users_file_of_liberos_own_layout_plays_too(
    simulator: None, fitting: Fitting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its task is found under a path of another machine, its fixtures in the demos' own model. Two arms."""
    write_as_libero_does(tmp_path / "turn_on_the_stove_demo.hdf5", STOVE, 5)
    entry = replace(catalogue_module.ENTRIES[0], rules=("soft",))
    monkeypatch.setattr(catalogue_module, "ENTRIES", (entry,))
    few = replace(SMALL, loop_starts=2, demonstrations=1, loop_steps=5)
    stage = play(prepare_dataset(tmp_path).dataset, fitting, tmp_path / "loop", few)
    assert (stage.values["not_run"], stage.values["tasks"]) == ("", ["turn on the stove"])
    rows = stage.tables["policies"]
    assert rows.kind.tolist() == ["regression"] * 2 + ["tokens"] * 2
    assert (rows.not_played == "").all()
    assert rows.steps.between(1, episodes_module.MOST_STEPS).all()


# The answer, played


class Broken(Bins):
    """Every second chunk that is decoded is zeros in place of its tokens."""

    decoded = 0

    def _every_second(self, count: int) -> NDArray[np.bool_]:
        first = Broken.decoded
        Broken.decoded += count
        return np.arange(first, first + count) % 2 == 1

    def decode(self, tokens: Sequence[Codes]) -> Array:
        broken = self._every_second(len(tokens[0]))[:, None, None]
        return super().decode([np.where(broken, 0, each) for each in tokens])

    def expected(self, probabilities: Sequence[Array]) -> Array:
        broken = self._every_second(len(probabilities[0]))[:, None, None, None]
        zeros = np.eye(probabilities[0].shape[-1])[0]
        return super().expected([np.where(broken, zeros, each) for each in probabilities])


@pytest.mark.slow
def test_naive_tokens_of_which_every_second_chunk_is_zeros_against_intact_ones_give_a(
    simulator: None, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are 64 equal bins, predicted by the same network from the same seed."""
    naive, scale = (
        replace(
            entry, phase2=False, rules=("soft",), predicted=at("bins", 64), space=of,
            codecs=lambda fitting, setting: [UniformBins(64, fitting.normaliser)],
        )
        for entry, of in ((ENTRIES[0], Broken), (EVERY["fixed_scale"], Bins))
    )  # fmt: skip
    monkeypatch.setattr(catalogue_module, "ENTRIES", (naive, scale))
    config = LoopConfig(loop_seeds=1, loop_starts=10, demonstrations=8, loop_steps=600)
    stage = play(dataset, Fitting(dataset), tmp_path, config)
    loop = Loop(stage.values, *stage.tables.values())
    asked = loop.contrast("new_tokens")
    assert asked is not None
    assert (asked.arm.codec, asked.over.codec, asked.pairs) == ("fixed_scale", "naive", 10)
    assert asked.word == "YES", [loop.counts(arm) for arm in loop.arms]
    assert IN_LOOP[asked.word] == "met"  # which is option A
