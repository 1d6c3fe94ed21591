"""Policies of token sequences: what a place may know, where a sequence ends, and when training counts as finished."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from made_loops import made
from made_policies import made_run
from made_up import random_walk
from torch import Tensor

from workbook.codecs.fast import FastCodec
from workbook.codecs.protocol import NOT_SENT, Tokens
from workbook.data.chunks import Normaliser
from workbook.evaluation.loop import sequence as sequence_module
from workbook.evaluation.loop.arms import GREEDY, Actor
from workbook.evaluation.loop.sequence import (
    PATIENCE,
    SequencePolicy,
    stopped_falling,
    train_sequence,
    why_not_trained,
)
from workbook.evaluation.policy.network import PolicyConfig, Standardiser
from workbook.report.text import loop as text

END = 3  # after a vocabulary of 3


def policy(longest: int = 5) -> SequencePolicy:
    torch.manual_seed(0)
    return SequencePolicy(2, END, longest, 16).eval()


def test_a_token_is_predicted_from_what_is_seen_and_the_tokens_before_it_alone() -> None:
    model, inputs = policy(), torch.randn(2, 2)
    one, other = torch.tensor([[0, 1, 2], [2, 0, 1]]), torch.tensor([[0, 1, 0], [2, 0, 0]])
    with torch.no_grad():
        first, second, elsewhere = model(inputs, one), model(inputs, other), model(inputs + 1, one)
    assert first.shape == (2, 4, END + 1)
    torch.testing.assert_close(first[:, :3], second[:, :3])
    assert not torch.allclose(first[:, 3], second[:, 3])
    assert not torch.allclose(first[:, 0], elsewhere[:, 0])


def test_the_loss_is_over_tokens_and_one_end_and_over_nothing_after_it() -> None:
    """Logits that say a third for the right one of every place, and for whatever comes later nothing right."""
    model = policy()
    said = torch.full((1, 4, END + 1), -50.0)
    for place, right in enumerate((1, 0, END)):
        said[0, place, [right, (right + 1) % 4, (right + 2) % 4]] = 0.0
    model.forward = lambda inputs, before: said  # type: ignore[method-assign, assignment]
    loss = model.loss(torch.zeros(1, 2), [torch.tensor([[1, 0, NOT_SENT]])])
    assert float(loss) == pytest.approx(math.log(3))


class Tells(SequencePolicy):
    """The tokens of each row, whatever is seen, then its end for ever."""

    def __init__(self, rows: Sequence[Sequence[int]]) -> None:
        super().__init__(2, END, 5, 4)
        self.rows = rows

    def forward(self, inputs: Tensor, before: Tensor) -> Tensor:
        place = before.shape[1]
        told = torch.tensor([row[place] if place < len(row) else END for row in self.rows])
        return torch.nn.functional.one_hot(told, END + 1)[:, None].float().expand(-1, place + 1, -1)


def test_a_sequence_stops_at_its_end_or_at_the_longest() -> None:
    found = Tells([[2, 1], [], [0, 0, 1]]).greedy(torch.zeros(3, 2))
    assert found.tolist() == [[2, 1, NOT_SENT, NOT_SENT], [NOT_SENT] * 4, [0, 0, 1, NOT_SENT]]
    assert Tells([[1] * 9]).greedy(torch.zeros(1, 2)).tolist() == [[1] * 5]


def test_what_is_seen_tells_the_sequence_after_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sequences of different lengths; the rule calls it trained once its decode is better than the mean."""
    monkeypatch.setattr(sequence_module, "ROUND", 25)
    inputs = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat(32, 1)
    tokens = torch.tensor([[0, 1, 2], [2, NOT_SENT, NOT_SENT]]).repeat(32, 1)
    model = policy()
    config = PolicyConfig(learning_rate=3e-3, weight_decay=0.0, noise=0.3, clip=1.0)
    train_sequence(model, (inputs, tokens), (inputs[:2], tokens[:2]), config, 0)
    assert model.greedy(inputs[:2])[:, :3].tolist() == tokens[:2].tolist()
    losses = model.validation_losses[model.validation_losses.isfinite()].tolist()
    with torch.no_grad():
        assert float(model.loss(inputs[:2], [tokens[:2]])) == pytest.approx(min(losses), rel=1e-4)
    assert why_not_trained(model, 0.1, 0.2) == ("" if stopped_falling(losses) else "still_falling")


@pytest.mark.parametrize(
    ("losses", "mse", "why"),
    [
        ([3.0, 2.0, 1.0], 0.1, "still_falling"),
        ([3.0, 1.0, *[1.5] * (PATIENCE - 1)], 0.1, "still_falling"),
        ([3.0, 1.0, *[1.5] * PATIENCE], 0.1, ""),
        ([3.0, 1.0, *[1.5] * PATIENCE], 0.2, "no_better_than_the_mean"),
        ([], 0.1, "still_falling"),
    ],
)
def test_the_rule_by_which_a_policy_is_trained(losses: list[float], mse: float, why: str) -> None:
    model = policy()
    model.validation_losses[: len(losses)] = torch.tensor(losses)
    assert why_not_trained(model, mse, 0.2) == why


@given(st.lists(st.floats(0, 10), max_size=20))
def test_training_goes_on_while_a_new_least_is_found_in_every_few_rounds(losses: list[float]) -> None:
    assert stopped_falling(losses) == (len(losses) > PATIENCE and np.argmin(losses[::-1]) >= PATIENCE)


@pytest.fixture(scope="module")
def codec() -> FastCodec:
    rng = np.random.default_rng(0)
    chunks = np.stack([random_walk(rng, 8) for _ in range(40)])
    return FastCodec.fit(chunks, Normaliser(np.full(7, -1.0), np.ones(7)), 10)


def test_a_sequence_that_lacks_a_coefficient_is_malformed_and_becomes_zeros(codec: FastCodec) -> None:
    chunks = np.stack([random_walk(np.random.default_rng(1), 8) for _ in range(3)])
    tokens = codec.encode(chunks)
    assert not codec.malformed(tokens).any()
    cut = tokens.codes.copy()
    cut[1, tokens.lengths[1] - 1] = NOT_SENT
    found = Tokens(cut, shared_alphabet=True)
    assert codec.malformed(found).tolist() == [False, True, False]
    np.testing.assert_array_equal(codec.decode(found)[1], 0)


class Knows(SequencePolicy):
    """The given tokens, the last row's cut short."""

    def __init__(self, codes: np.ndarray) -> None:
        super().__init__(2, 9, 9, 4)
        self.codes = torch.from_numpy(codes).clone()
        self.codes[-1, 1:] = NOT_SENT

    def greedy(self, inputs: Tensor) -> Tensor:
        return self.codes


def test_an_actor_decodes_what_its_sequence_says_and_counts_what_is_malformed(codec: FastCodec) -> None:
    chunks = np.stack([random_walk(np.random.default_rng(2), 8) for _ in range(4)])
    tokens = codec.encode(chunks)
    plain, line = Standardiser(np.zeros(2), np.ones(2)), codec.normaliser
    actor = Actor(GREEDY, plain, line, 8, (Knows(tokens.codes),), codec=codec)
    actions, malformed = actor.greedy(np.zeros((4, 2)))
    assert malformed == 0.25
    np.testing.assert_array_equal(actions[:3], codec.decode(tokens)[:3])
    np.testing.assert_array_equal(actor.act(np.zeros((4, 2))), actions)
    assert actor.tokens(np.zeros((4, 2))) is None


def test_one_that_is_not_trained_is_said_to_be_no_result() -> None:
    of = {"kind": "sequence", "codec": "fast", "setting": "scale=10", "mse": 0.9, "mean_mse": 0.5, "malformed": 0.25}
    loop = made({})
    loop.values.update(demonstrations=8, policy={"steps": 5}, left_out_tasks=[])
    whys = ("still_falling", "no_better_than_the_mean", "")
    loop.values["sequences"] = [{**of, "seed": seed, "not_trained": why} for seed, why in enumerate(whys)]
    said = text.remarks(made_run(loop=loop))
    assert sum("FAST-style" in each for each in said) == 3
    assert ["NOT TRAINED" in each for each in said if "FAST-style" in each] == [True, True, False]
    assert "25.0%" in next(each for each in said if "seed 2" in each)
