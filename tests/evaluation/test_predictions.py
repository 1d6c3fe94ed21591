"""What predictions say: laws of the figures, cases counted by hand, and the words that follow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from made_predictions import actions_of, certain, content, judged, made_checkpoint, made_tokens, save, spoiled
from own_phase2 import predictions_of as own_predictions
from small_runs import make_dataset

from rfsq_robust import Checkpoint, load_checkpoint, save_checkpoint
from workbook.common.intervals import Estimate
from workbook.data.layout import LIBERO
from workbook.evaluation.loop.arms import PHASE2_ARGMAX, PHASE2_SOFT
from workbook.evaluation.policy.evidence import CODEC
from workbook.evaluation.policy.network import PolicyConfig
from workbook.evaluation.predictions.evidence import (
    DRAFT_KEPT,
    MAIN_SOFT,
    METRICS,
    RULES,
    Predictions,
    decide,
)
from workbook.evaluation.predictions.judge import another_moment, judge
from workbook.evaluation.predictions.read import PredictionsConfig, read_predictions

MOMENTS, LEVELS = 60, 5


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return made_checkpoint(tmp_path / "codec.pt")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "predictions.npz"


def off_by(held: dict[str, Any], error: float) -> dict[str, Any]:
    """The actions are not quite what their tokens decode to."""
    noise = np.random.default_rng(5).normal(0, error, held["actions"].shape)
    return held | {"actions": held["actions"] + noise}


# Errors


def test_of_perfect_predictions_the_codec_makes_all_of_the_error(checkpoint: Path, path: Path) -> None:
    tokens = made_tokens(MOMENTS)
    found = judged(path, off_by(content(checkpoint, tokens, tokens, tokens[..., :3]), 0.01))
    assert found.rules == list(RULES)
    for metric in METRICS:
        share = found.codec_share(metric=metric)
        assert (share.mean, share.low, share.high) == (1.0, 1.0, 1.0)
        for rule in RULES[1:]:
            assert found.gain(rule, metric).mean == pytest.approx(0, abs=1e-5)
    assert found.accuracy() == found.accuracy(telling=True) == 1.0
    assert decide(found)["codec_share"]["word"] == "YES"
    assert decide(found)["decode_rule"]["word"] == "NO"


def test_the_error_is_that_of_the_decoded_tokens_in_normalised_units(checkpoint: Path, path: Path) -> None:
    tokens = made_tokens(MOMENTS)
    main, draft = spoiled(tokens, 0.2), spoiled(tokens[..., :3], 0.3, seed=2)
    held = off_by(content(checkpoint, tokens, main, draft), 0.01)
    found = judged(path, held)
    normaliser = load_checkpoint(checkpoint).normalization
    assert normaliser is not None
    half_width = (normaliser["max"] - normaliser["min"]).numpy() / 2
    kept = np.concatenate([draft, main[..., 3:]], axis=-1)
    for rule, said in {CODEC: tokens, PHASE2_ARGMAX: main, DRAFT_KEPT: kept}.items():
        error = ((actions_of(checkpoint, said) - held["actions"]) / half_width) ** 2
        parts = {"mse": error, "motion_mse": error[..., :6], "gripper_mse": error[..., 6]}
        for metric, part in parts.items():
            assert found.error(rule, metric).mean == pytest.approx(part.mean())
    codec, argmax = (found.error(rule).mean for rule in (CODEC, PHASE2_ARGMAX))
    assert codec is not None
    assert argmax is not None
    assert found.codec_share().mean == pytest.approx(codec / argmax)


def test_groups_are_weighed_by_their_moments(checkpoint: Path, path: Path) -> None:
    tokens = made_tokens(MOMENTS)
    held = content(checkpoint, tokens, spoiled(tokens, 0.2))
    even = judged(path, held).error(PHASE2_ARGMAX).mean
    uneven = judged(path, held | {"episode": np.minimum(np.arange(MOMENTS), 11)}).error(PHASE2_ARGMAX).mean
    assert uneven == pytest.approx(even)


def test_an_expected_value_is_the_decode_of_the_mean_latent(checkpoint: Path, path: Path) -> None:
    """Of two codes of one place that are equally likely, half way between; of the draft's layers the draft's."""
    tokens = made_tokens(MOMENTS)
    other = spoiled(tokens, 1.0)
    unsure = np.log((np.exp(certain(tokens)) + np.exp(certain(other))) / 2).astype(np.float32)
    found = judged(path, content(checkpoint, tokens, tokens, tokens[..., :3]) | {"main_logits": unsure})
    model, wanted = load_checkpoint(checkpoint), {}
    codes = {"true": torch.from_numpy(tokens), "other": torch.from_numpy(other)}
    with torch.no_grad():
        half = {name: model.model.rfsq.decode_from_indices(each) for name, each in codes.items()}
        wanted[MAIN_SOFT] = (half["true"] + half["other"]) / 2
        fine = codes["other"].clone()
        fine[..., :3] = codes["true"][..., :3]
        wanted[PHASE2_SOFT] = (half["true"] + model.model.rfsq.decode_from_indices(fine)) / 2
        wanted = {rule: model.model.decoder(latents) for rule, latents in wanted.items()}
        truth = model.model.decode_from_indices(codes["true"])
    for rule, decoded in wanted.items():
        assert found.error(rule).mean == pytest.approx(float(((decoded - truth) ** 2).mean()), rel=1e-3)


def test_without_a_draft_the_main_model_stands_alone(checkpoint: Path, path: Path) -> None:
    tokens = made_tokens(MOMENTS)
    found = judged(path, content(checkpoint, tokens, spoiled(tokens, 0.2)))
    assert (found.rules, found.mended, found.drafted) == ([PHASE2_ARGMAX, MAIN_SOFT], MAIN_SOFT, False)
    assert found.acceptance("accepted").mean is None
    assert found.as_json()["acceptance"] == {}
    assert not found.layers.copied.fillna(False).any()


def test_without_a_gripper_there_is_no_error_of_one(checkpoint: Path, path: Path) -> None:
    tokens = made_tokens(MOMENTS)
    save(path, content(checkpoint, tokens, spoiled(tokens, 0.2)))
    normaliser = read_predictions(PredictionsConfig(str(path)), LIBERO, None).codec.normaliser  # type: ignore[arg-type]
    layout = replace(LIBERO, groups=(replace(LIBERO.groups[0], kind="joint", size=7),))
    found = judge(read_predictions(PredictionsConfig(str(path)), layout, normaliser))
    held = Predictions(found.values, *found.tables.values())
    assert held.gain(MAIN_SOFT, "gripper_mse").mean is None
    assert held.gain(MAIN_SOFT, "motion_mse").mean == pytest.approx(held.gain(MAIN_SOFT).mean)


# Tokens


def test_accuracy_confidence_and_bits_counted_by_hand(checkpoint: Path, path: Path) -> None:
    """Half of the first layer's tokens are wrong; of all the likeliest has three parts of five, the rest a tenth."""
    tokens = made_tokens(MOMENTS)
    main = tokens.copy()
    main[::2, ..., 0] = (main[::2, ..., 0] + 1) % LEVELS
    logits = np.log(np.where(certain(main) > 0, 0.6, 0.1)).astype(np.float32)
    rows = judged(path, content(checkpoint, tokens, main) | {"main_logits": logits}).of_model("main")
    assert rows.accuracy.tolist() == [0.5, 1, 1, 1]
    assert rows.confidence.to_numpy() == pytest.approx([0.6] * 4)
    assert rows.calibration_error.to_numpy() == pytest.approx([0.1, 0.4, 0.4, 0.4])
    of_right = -np.log2(0.6)
    assert rows.cross_entropy_bits.to_numpy() == pytest.approx([(of_right - np.log2(0.1)) / 2, *[of_right] * 3])


def test_a_calibrated_coin_has_no_calibration_error_but_that_of_sampling(tmp_path: Path, path: Path) -> None:
    """Two levels; the likelier is said with a probability of its own at every place, and is true as often."""
    rng = np.random.default_rng(0)
    checkpoint = made_checkpoint(tmp_path / "coin.pt", layers=1, levels=2, hidden=8)
    sure = rng.uniform(0.5, 1, (2000, 1, 24))
    heads = rng.random(sure.shape) < sure
    tokens = heads.reshape(2000, 1, 3, 8).transpose(0, 2, 3, 1).astype(int)
    logits = np.log(np.stack([1 - sure, sure], axis=-1)).astype(np.float32)
    held = content(checkpoint, tokens, tokens) | {"main_logits": logits}
    (error,) = judged(path, held).of_model("main").calibration_error
    assert error < 0.01  # 48,000 tokens in 8 bins: 0.5 / sqrt(6000) each
    overconfident = judged(path, held | {"main_logits": 3 * logits}).of_model("main").calibration_error
    assert overconfident.iloc[0] > 0.1


def test_dead_layers_are_told_and_left_out(checkpoint: Path, path: Path) -> None:
    tokens = made_tokens(MOMENTS, dead=2)
    main = tokens.copy()
    main[::4, ..., :2] = (main[::4, ..., :2] + 1) % LEVELS
    found = judged(path, content(checkpoint, tokens, main))
    rows = found.of_model("main")
    assert rows.dead.tolist() == [False, False, True, True]
    assert rows.majority_share.tolist()[2:] == [1.0, 1.0]
    assert found.accuracy() == pytest.approx((0.75 + 0.75 + 1 + 1) / 4)
    assert found.accuracy(telling=True) == pytest.approx(0.75)


def test_a_main_model_that_copies_its_draft_is_told(checkpoint: Path, path: Path) -> None:
    tokens = made_tokens(MOMENTS)
    draft = spoiled(tokens[..., :3], 0.4)
    main = np.concatenate([draft, spoiled(tokens[..., 3:], 0.1)], axis=-1)
    held = content(checkpoint, tokens, main, draft)
    found = judged(path, held)
    assert found.of_model("main").repeated.tolist()[:3] == [1, 1, 1]
    assert found.of_model("main").copied.tolist()[:3] == [True] * 3
    assert found.acceptance("accepted").mean == 1
    assert found.acceptance("accepted_other").mean is None
    assert found.accuracy(telling=True) == pytest.approx(found.of_model("main").accuracy.iloc[3])

    other = np.roll(np.arange(MOMENTS), 7)
    copying = judged(path, held | {"other": other, "other_main_logits": certain(draft[other])})
    assert copying.of_model("main").copied_share.to_numpy()[:3] == pytest.approx([1, 1, 1])
    beyond = copying.not_copied()
    assert (beyond.mean, beyond.low, beyond.high) == (0, 0, 0)

    seeing = judged(path, held | {"other": other, "other_main_logits": certain(main[..., :3])})
    assert seeing.of_model("main").copied_share.to_numpy()[:3] == pytest.approx([0, 0, 0])
    assert not seeing.of_model("main").copied.fillna(False).any()
    chance = seeing.acceptance("by_chance").mean
    assert chance is not None
    assert seeing.not_copied().mean == pytest.approx(1 - chance)  # of acceptance, which is all


def test_constant_layers_are_always_accepted(checkpoint: Path, path: Path) -> None:
    tokens = made_tokens(MOMENTS, dead=3)
    found = judged(path, content(checkpoint, tokens, tokens, tokens[..., :3]))
    by_layer = found.acceptances.groupby("layer")
    assert by_layer.accepted.min().tolist() == [1, 1, 1]
    assert by_layer.by_chance.min().tolist()[1:] == [1, 1]
    assert by_layer.by_chance.mean().iloc[0] == pytest.approx(1 / LEVELS, abs=0.05)
    assert found.accuracy(telling=True) == 1.0  # of the first layer


@given(st.lists(st.integers(0, 4), min_size=2, max_size=40))
def test_another_moment_is_another_one_and_of_the_same_task(tasks: list[int]) -> None:
    task = np.array(tasks)
    other = another_moment(task)
    assert (other != np.arange(len(task))).all()
    alone = np.bincount(task)[task] == 1
    assert (task[other] == task)[~alone].all()
    assert sorted(other[~alone]) == np.flatnonzero(~alone).tolist()
    assert np.array_equal(another_moment(task), other)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    hidden=st.integers(1, 5), layers=st.integers(1, 4), levels=st.integers(2, 6), steps=st.integers(1, 4),
    drafted=st.integers(0, 4), seed=st.integers(0, 99),
)  # fmt: skip
def test_shares_and_order_hold_for_other_sizes(
    tmp_path: Path, hidden: int, layers: int, levels: int, steps: int, drafted: int, seed: int
) -> None:
    checkpoint = made_checkpoint(tmp_path / "codec.pt", hidden=hidden, layers=layers, levels=levels)
    tokens = made_tokens(MOMENTS, steps, hidden, layers, levels, seed=seed)
    main = spoiled(tokens, 0.3, levels)
    draft = spoiled(tokens, 0.3, levels, seed=3)[..., : min(drafted, layers)] if drafted else None
    found = judged(tmp_path / "a.npz", content(checkpoint, tokens, main, draft))
    rows = found.layers
    right = (main == tokens).mean(axis=(0, 1, 2))
    assert found.of_model("main").accuracy.to_numpy() == pytest.approx(right)
    assert rows.confidence.between(0, 1 + 1e-9).all()
    assert (rows.majority_share >= 1 / levels - 1e-9).all()
    assert (rows.calibration_error <= 1 + 1e-9).all()
    assert found.error(CODEC).mean == pytest.approx(0, abs=1e-9)
    assert found.of_model("main").mse.iloc[-1] == pytest.approx(found.error(PHASE2_ARGMAX).mean)
    if draft is not None:
        alike = (main[..., : draft.shape[-1]] == draft).mean()
        assert found.acceptance("accepted").mean == pytest.approx(alike)


# Words


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(0.06, 0.3, "YES"), (-0.1, 0.04, "NO"), (0.04, 0.2, "NOT SHOWN"), (None, None, "NOT SHOWN")],
)
def test_the_word_of_the_decode_rule(
    monkeypatch: pytest.MonkeyPatch, low: float | None, high: float | None, word: str
) -> None:
    asked = []

    def gain(self: Predictions, rule: str, metric: str = "mse") -> Estimate:
        asked.append(rule)
        return Estimate(0.1, low, high)

    monkeypatch.setattr(Predictions, "gain", gain)
    monkeypatch.setattr(Predictions, "codec_share", lambda self: Estimate(None))
    found = decide(Predictions({"not_run": "", "draft_layers": 3}))
    assert found["decode_rule"]["word"] == word
    assert found["codec_share"]["word"] == "NOT RUN"
    assert asked == [found["rule"]] == [PHASE2_SOFT]


@pytest.mark.parametrize(("low", "high", "word"), [(0.11, 0.3, "YES"), (0.01, 0.09, "NO"), (0.06, 0.2, "NOT SHOWN")])
def test_the_word_of_the_codecs_share(monkeypatch: pytest.MonkeyPatch, low: float, high: float, word: str) -> None:
    monkeypatch.setattr(Predictions, "gain", lambda self, rule: Estimate(None))
    monkeypatch.setattr(Predictions, "codec_share", lambda self: Estimate(0.1, low, high))
    assert decide(Predictions({"not_run": "", "draft_layers": 0}))["codec_share"]["word"] == word


# The project's own Phase 2


def test_the_projects_own_policies_go_all_the_way(tmp_path: Path) -> None:
    """A draft and a main model, trained for a moment on random walks: the file that they fill is read and judged."""
    dataset = make_dataset(episodes=60)
    checkpoint = made_checkpoint(tmp_path / "codec.pt", hidden=6, layers=4)
    held = load_checkpoint(checkpoint)
    normaliser = {"min": torch.from_numpy(dataset.normaliser.low), "max": torch.from_numpy(dataset.normaliser.high)}
    save_checkpoint(checkpoint, Checkpoint(held.model, normalization=normaliser))
    config = PolicyConfig(steps=5, width=16, features=32, head_weights=2000)
    content_of = own_predictions(dataset, checkpoint, config)
    content_of["actions"] = torch.from_numpy(_decoded(checkpoint, content_of["tokens"]))  # of a codec that is untrained
    torch.save(content_of, tmp_path / "own.pt")
    read = read_predictions(PredictionsConfig(str(tmp_path / "own.pt")), LIBERO, dataset.normaliser)
    judged_of = judge(read)
    found = Predictions(judged_of.values, *judged_of.tables.values())
    assert found.rules == list(RULES)
    assert found.values["groups"] == len(dataset.split.test)
    shares = {name: found.acceptance(name).mean for name in ("accepted", "by_chance", "accepted_other")}
    assert all(share is not None and 0 < share <= 1 for share in shares.values())
    assert isinstance(found.layers, pd.DataFrame)


def _decoded(checkpoint: Path, tokens: torch.Tensor) -> np.ndarray:
    held = load_checkpoint(checkpoint)
    with torch.no_grad():
        return held.denormalise(held.model.decode_from_indices(tokens)).double().numpy()
