"""Figures that need no simulator: each by hand, what orders arms as success does, and what acceptance of a draft is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, strategies as st
from made_loops import (
    ALL,
    NAIVE_ARGMAX,
    NAIVE_SOFT,
    PAIRS,
    REGRESSION,
    SCALE_ARGMAX,
    SCALE_SOFT,
    first,
    made,
    with_drafts,
    with_offline,
)
from scipy.stats import spearmanr
from test_arms import Says, Sum
from torch import Tensor, nn

from workbook.data.chunks import Normaliser
from workbook.data.layout import LIBERO_NAME, POSITION_MM_PER_UNIT, ActionLayout
from workbook.evaluation.loop.arms import DIRECT, PHASE2_ARGMAX, PHASE2_SOFT, Actor, Arm, PolicyKey
from workbook.evaluation.loop.offline import FIGURES, acceptance, another_moment, measure, rank_correlation
from workbook.evaluation.policy.network import Observations, RegressionPolicy, Standardiser

LIBERO = ActionLayout.parse(LIBERO_NAME)
HALVES = Normaliser(np.array([-0.5] * 6 + [-1.0]), np.array([0.5] * 6 + [1.0]))
PLAIN = Standardiser(np.zeros(2), np.ones(2))


class Regresses(RegressionPolicy):
    """Says the same of whatever it sees: normalised (C * A,)."""

    def __init__(self, said: Sequence[float]) -> None:
        super().__init__(2, 1, 8)
        self.said = torch.tensor(said, dtype=torch.float32)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.said.expand(len(inputs), -1)


def test_errors_of_a_chunk_of_two_steps_by_hand() -> None:
    """Off by 0.4 and 0.4 of a half range in x, by -0.4 in y and back, and with the gripper on the wrong side once."""
    said = [0.4, -0.4, 0, 0, 0, 0, 1, 0.4, 0.4, 0, 0, 0, 0, -0.5]
    actor = Actor(DIRECT, PLAIN, HALVES, 2, (Regresses(said),), None)
    truth = np.array([[[0.0] * 6 + [1], [0.0] * 6 + [1]]])
    found = measure(actor, Observations(np.zeros((1, 2)), truth), LIBERO)
    assert found["mse"] == pytest.approx((4 * 0.16 + 1.5**2) / 14)
    assert found["motion_mse"] == pytest.approx(4 * 0.16 / 12)
    assert found["l1"] == pytest.approx((4 * 0.4 + 1.5) / 14)
    assert found["gripper_error"] == 0.5
    assert found["summed_position_mm"] == pytest.approx(2 * 0.2 * POSITION_MM_PER_UNIT)  # y cancels
    assert np.isnan([found["token_accuracy"], found["codec_mse"]]).all()
    assert list(found) == list(FIGURES)


def test_a_command_beyond_the_controllers_limit_is_clipped_in_the_sum_alone() -> None:
    actor = Actor(DIRECT, PLAIN, HALVES, 1, (Regresses([4.0, 0, 0, 0, 0, 0, 1]),), None)  # 2 units of x
    found = measure(actor, Observations(np.zeros((1, 2)), np.array([[[0.0] * 6 + [1]]])), LIBERO)
    assert found["summed_position_mm"] == pytest.approx(POSITION_MM_PER_UNIT)
    assert found["mse"] == pytest.approx(16 / 7)


class Rounded(Sum):
    """Reads back half a unit too much."""

    def decode(self, tokens: Sequence[np.ndarray]) -> np.ndarray:
        return super().decode(tokens) + 0.5


@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value")  # one number has no motion
@pytest.mark.parametrize(("rule", "accuracy"), [(PHASE2_ARGMAX, 4 / 6), (PHASE2_SOFT, np.nan)])
def test_token_accuracy_and_the_codecs_own_error(rule: str, accuracy: float) -> None:
    """The main model says 1, 0, 1 at both moments, where 1, 0, 1 and 0, 1, 1 are right."""
    gripper, line = ActionLayout.parse("gripper:1"), Normaliser(np.full(1, -1.0), np.ones(1))
    networks = (Says([0.9]), Says([0.9, 0.1, 0.5]))
    actor = Actor(rule, PLAIN, line, 1, networks, Rounded())  # type: ignore[arg-type]
    held_out = Observations(np.zeros((2, 2)), np.array([[[5.0]], [[3.0]]]))
    found = measure(actor, held_out, gripper)
    assert found["token_accuracy"] == pytest.approx(accuracy, nan_ok=True)
    assert found["codec_mse"] == 0.25


class Recalls(nn.Module):
    """A draft whose only token is the second number seen; it is 0 or 1."""

    def forward(self, inputs: Tensor) -> list[Tensor]:
        one = inputs[:, 1].round().long()
        return [nn.functional.one_hot(one, 2)[:, None, None].float()]


class Main(nn.Module):
    """Keeps what it is given, or goes by what it sees."""

    def __init__(self, copies: bool) -> None:
        super().__init__()
        self.copies = copies

    def forward(self, inputs: Tensor, coarse: Sequence[Tensor]) -> list[Tensor]:
        told = coarse[0] if self.copies else inputs[:, 1].round().long()[:, None, None]
        return [nn.functional.one_hot(told, 2).float()] * 2


@pytest.mark.parametrize("copies", [True, False])
def test_a_main_model_that_copies_keeps_any_draft_and_one_that_sees_keeps_the_right_one(copies: bool) -> None:
    """Two tasks of two moments each, which differ: another moment's draft is always wrong."""
    inputs = np.array([[0, 0, 1, 0], [0, 1, 1, 0], [0, 1, 0, 1], [0, 0, 0, 1]], dtype=float)
    actor = Actor(PHASE2_ARGMAX, Standardiser(np.zeros(4), np.ones(4)), HALVES, 1, (Recalls(), Main(copies)), Sum())
    key = PolicyKey("phase2", "naive", "layers=8")
    actors = {(Arm(key, rule), 1): replace(actor, rule=rule) for rule in (PHASE2_ARGMAX, PHASE2_SOFT)}
    [row] = acceptance(actors, inputs, 2).to_dict("records")
    shuffled = 1.0 if copies else 0.0
    assert row == {
        "codec": "naive", "setting": "layers=8", "seed": 1, "layer": 0, "agreement": 1.0, "shuffled": shuffled,
    }  # fmt: skip


@given(st.lists(st.integers(0, 3), max_size=30))
def test_another_moment_is_of_the_same_task_each_once_and_never_the_same(tasks: list[int]) -> None:
    task = np.array(tasks, dtype=np.int64)
    found = another_moment(task)
    assert sorted(found) == list(range(len(task)))
    assert np.array_equal(task[found], task)
    alone = np.bincount(task, minlength=4)[task] == 1
    assert np.array_equal(found == np.arange(len(task)), alone)
    assert np.array_equal(found, another_moment(task))


class TestRankCorrelation:
    def test_by_hand(self) -> None:
        """Ranks 1 2 3 4 and 4 3 1 2: squared differences 9 1 4 4, rho = 1 - 6 * 18 / (4 * 15)."""
        found = rank_correlation(np.array([0.1, 0.2, 5.0, 9.0]), np.array([0.9, 0.5, 0.1, 0.2]))
        assert found.mean == pytest.approx(-0.8)
        assert found.low is not None
        assert found.high is not None
        assert -1 <= found.low <= found.mean <= found.high <= 1

    def test_ties_share_the_mean_of_their_ranks(self) -> None:
        """Ranks 1.5 1.5 3 and 1 2 3: covariance 1.5, variances 1.5 and 2."""
        found = rank_correlation(np.array([7.0, 7.0, 8.0]), np.array([0.1, 0.2, 0.3]))
        assert found.mean == pytest.approx(1.5 / np.sqrt(1.5 * 2))

    @given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=15))
    def test_is_spearmans_whatever_the_ties(self, pairs: list[tuple[int, int]]) -> None:
        one, other = np.array(pairs, dtype=float).T
        found = rank_correlation(one, other)
        if len(set(one)) == 1 or len(set(other)) == 1:
            assert found.mean is None
        else:
            assert found.mean == pytest.approx(spearmanr(one, other).statistic, abs=1e-9)
            turned = rank_correlation(-one, other).mean
            assert turned == pytest.approx(-(found.mean or 0), abs=1e-9)

    def test_too_few_arms_have_none(self) -> None:
        assert rank_correlation(np.array([1.0, 2.0]), np.array([1.0, 2.0])).mean is None


WON = {arm: 80 - 5 * place for place, arm in enumerate(ALL)}
SUCCESS = made({arm: first(count) for arm, count in WON.items()})


def test_the_best_figure_is_the_one_that_orders_all_arms_most_as_success_does() -> None:
    """MSE has two neighbours the wrong way round, the summed command none. Token accuracy is right, but of few arms."""
    right = {arm: float(-count) for arm, count in WON.items()}
    wrong = right | {REGRESSION: right[NAIVE_ARGMAX], NAIVE_ARGMAX: right[REGRESSION]}
    few = {arm: float(WON[arm]) for arm in (NAIVE_ARGMAX, SCALE_ARGMAX, NAIVE_SOFT)}
    loop = with_offline(SUCCESS, mse=wrong, summed_position_mm=right, token_accuracy=few, l1=dict.fromkeys(ALL, 1.0))
    found = loop.offline_figures
    assert found["summed_position_mm"].correlation.mean == pytest.approx(-1)
    assert found["mse"].correlation.mean == pytest.approx(-(1 - 6 * 2 / (9 * 80)))
    assert (found["token_accuracy"].arms, found["mse"].arms) == (3, len(ALL))
    assert found["token_accuracy"].correlation.mean == pytest.approx(1)
    assert found["l1"].correlation.mean is None
    assert found["codec_mse"].arms == 0
    assert loop.best_offline == "summed_position_mm"
    values = loop.offline_values
    assert (values["best"], values["arms"]) == ("summed_position_mm", len(ALL))
    assert values["rho"] == pytest.approx(-1)


def test_a_figure_that_orders_arms_the_wrong_way_round_is_not_the_best() -> None:
    loop = with_offline(SUCCESS, mse={arm: float(count) for arm, count in WON.items()})
    assert loop.offline_figures["mse"].correlation.mean == pytest.approx(1)
    assert loop.best_offline is None


def test_where_all_arms_succeed_alike_no_figure_orders_them() -> None:
    loop = with_offline(made({arm: first(PAIRS) for arm in ALL}), mse={arm: float(n) for n, arm in enumerate(ALL)})
    assert loop.best_offline is None
    assert loop.offline_values["rho"] is None


def test_an_earlier_run_without_these_tables_tells_nothing() -> None:
    assert made({}).best_offline is None
    assert made({}).acceptances == []


def test_acceptance_is_the_mean_over_layers_and_seeds() -> None:
    scale, naive = with_drafts(made({})).acceptances
    assert (scale.agreement, scale.shuffled) == (pytest.approx(0.6), pytest.approx(0.57))
    assert [own for own, _ in scale.by_layer] == pytest.approx([0.9, 0.6, 0.3])
    assert (scale.copies, naive.copies) == (True, False)


def test_seeds_are_averaged_before_arms_are_ordered() -> None:
    """One seed of an arm is far off: the mean moves it behind another."""
    arms = (REGRESSION, SCALE_SOFT, NAIVE_SOFT)
    rows = [{**arm._asdict(), "seed": s, **dict.fromkeys(FIGURES, np.nan)} for arm in arms for s in range(2)]
    offline = pd.DataFrame(rows).assign(mse=[1.0, 1.0, 2.0, 2.0, 0.0, 9.0])
    loop = replace(made({REGRESSION: first(60), SCALE_SOFT: first(50), NAIVE_SOFT: first(40)}), offline=offline)
    assert loop.offline_figures["mse"].correlation.mean == pytest.approx(-1)
