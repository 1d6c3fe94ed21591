"""How a small policy of the offline probe is trained: when it stops, and what it keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from workbook.evaluation.policy.network import ProbePolicy, RegressionPolicy
from workbook.evaluation.policy.training import AnyPolicy, Kept, Learner, ProbeTraining, Training, train_until_best

SIZES = ((2, 3), (4, 5))
SHORT = ProbeTraining(steps=20, batch_size=8, width=16, head_width=8, features=16, judged_every=4, patience=2)


def inputs() -> torch.Tensor:
    return torch.randn(40, 3, generator=torch.Generator().manual_seed(0))


def regression() -> RegressionPolicy:
    torch.manual_seed(0)
    return RegressionPolicy(3, 2, 16, features=16, hidden=8)


def targets() -> list[torch.Tensor]:
    return [inputs()[:, :2] * 0.3]


def weights(policy: AnyPolicy) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in policy.parameters()])


def averages(policy: AnyPolicy, config: ProbeTraining, seed: int) -> Iterator[AnyPolicy]:
    """The policy with its averaged weights after every batch."""
    training = Training([Learner(policy, inputs(), targets(), 0.1, seed)], config)
    while training.steps < config.steps:
        training.step()
        yield from training.averages()


def judged(errors: list[float]) -> Callable[[AnyPolicy], float]:
    """Errors as if they had been measured, one after the other."""
    coming: Iterator[float] = iter(errors)
    return lambda policy: next(coming)


class TestAverages:
    def test_are_the_moving_average_of_the_weights(self) -> None:
        newest = [weights(each) for each in averages(regression(), replace(SHORT, averaging=1.0), 0)]
        average, seen = torch.zeros(0), 0
        for step, found in enumerate(averages(regression(), SHORT, 0), start=1):
            weight = max(SHORT.averaging, 1 / step)
            average = newest[0] if step == 1 else average + weight * (newest[step - 1] - average)
            assert torch.allclose(weights(found), average, atol=1e-6)
            seen = step
        assert seen == SHORT.steps

    def test_do_not_depend_on_how_long_training_goes_on(self) -> None:
        found = []
        for steps in (6, 12):
            found.append([weights(average) for average in averages(regression(), replace(SHORT, steps=steps), 0)])
        assert all(torch.equal(a, b) for a, b in zip(found[0], found[1], strict=False))

    def test_the_seed_decides(self) -> None:
        ends = [[weights(each) for each in averages(regression(), SHORT, seed)][-1] for seed in (0, 0, 1)]
        assert torch.equal(ends[0], ends[1])
        assert not torch.equal(ends[0], ends[2])


class TestTrainUntilBest:
    def train(self, errors: list[float], config: ProbeTraining = SHORT) -> tuple[Kept, RegressionPolicy, list[int]]:
        policy, told = regression(), []
        learner = Learner(policy, inputs(), targets(), 0.1, 0)
        (kept,) = train_until_best([learner], config, [judged(errors)], told.append)
        return kept, policy, told

    @pytest.mark.parametrize(
        ("errors", "kept"),
        [
            ([5.0, 4.0, 4.5, 4.2], Kept(8, 4.0)),  # twice in a row not below the least: no fifth look
            ([5.0, 6.0, 4.0, 4.0, 3.0], Kept(20, 3.0)),  # once is not enough to stop
            ([5.0, 5.0, 5.0], Kept(4, 5.0)),
            ([5.0, 4.0, 3.0, 2.0, 1.0], Kept(20, 1.0)),
        ],
    )
    def test_stops_where_validation_stops_falling(self, errors: list[float], kept: Kept) -> None:
        assert self.train(errors)[0] == kept

    def test_keeps_the_averaged_weights_of_the_best_look(self) -> None:
        kept, policy, _ = self.train([5.0, 4.0, 4.5, 4.2])
        wanted = [weights(average) for average in averages(regression(), SHORT, 0)][kept.steps - 1]
        assert torch.equal(weights(policy), wanted)
        assert not policy.training

    def test_all_batches_are_told_though_it_stops_early(self) -> None:
        told = self.train([5.0, 5.0, 5.0])[2]
        assert told == sorted(told)
        assert (told[-1], max(told[:-1])) == (SHORT.steps, 11)

    def test_fewer_batches_than_a_look_are_judged_at_the_end(self) -> None:
        assert self.train([5.0], replace(SHORT, steps=3))[0] == Kept(3, 5.0)

    def test_a_policy_that_breaks_keeps_nothing_of_it(self) -> None:
        kept, policy, _ = self.train([float("nan")] * 5)
        assert kept == Kept(0, float("inf"))
        assert torch.equal(weights(policy), weights(regression()))


class TestStack:
    """Policies that are trained at once."""

    def learners(self) -> list[Learner]:
        """Of their own seeds, noise and tokens."""
        found = []
        for seed, noise in enumerate((0.1, 0.3, 0.2)):
            torch.manual_seed(seed)
            rng = np.random.default_rng(seed)
            tokens = [torch.from_numpy(rng.integers(0, levels, (40, 4, places))) for places, levels in SIZES]
            found.append(Learner(ProbePolicy(3, 4, SIZES, 16, 8), inputs(), tokens, noise, seed))
        return found

    def train(self, which: list[int], errors: list[list[float]]) -> tuple[list[Kept], list[torch.Tensor], list[int]]:
        learners, told = [self.learners()[place] for place in which], list[int]()
        kept = train_until_best(learners, SHORT, [judged(errors[place]) for place in which], told.append)
        return kept, [weights(learner.policy) for learner in learners], told

    def test_each_becomes_what_it_becomes_alone_though_others_stop_before(self) -> None:
        errors = [[5.0, 4.0, 3.0, 2.0, 1.0], [5.0, 5.0, 5.0], [5.0, 4.0, 4.5, 3.0, 3.5]]
        kept, found, told = self.train([0, 1, 2], errors)
        assert kept == [Kept(20, 1.0), Kept(4, 5.0), Kept(16, 3.0)]
        assert told == [*range(1, SHORT.steps + 1), SHORT.steps]
        for place in range(3):
            alone = self.train([place], errors)
            assert alone[0] == [kept[place]]
            assert torch.allclose(alone[1][0], found[place], atol=1e-5)
        assert not torch.allclose(found[0], found[2], atol=1e-2)

    def test_it_ends_with_the_last_of_them(self) -> None:
        kept, _, told = self.train([0, 1], [[5.0, 4.0, 4.5, 4.2], [5.0, 5.0, 5.0]])
        assert kept == [Kept(8, 4.0), Kept(4, 5.0)]
        assert (told[-1], max(told[:-1])) == (SHORT.steps, 15)


class TestProbePolicy:
    def make(self, chained: bool = True) -> ProbePolicy:
        torch.manual_seed(0)
        return ProbePolicy(3, 4, SIZES, 16, 8, chained=chained)

    def tokens(self) -> list[torch.Tensor]:
        rng = np.random.default_rng(0)
        return [torch.from_numpy(rng.integers(0, levels, (40, 4, places))) for places, levels in SIZES]

    @pytest.mark.parametrize("chained", [True, False])
    def test_every_token_counts_the_same(self, chained: bool) -> None:
        """Knowing nothing costs log of the values: of 2 tokens of 3 values and 4 of 5."""
        policy = self.make(chained)
        for parameter in policy.parameters():
            torch.nn.init.zeros_(parameter)
        wanted = (2 * np.log(3) + 4 * np.log(5)) / 6
        assert policy.loss(inputs(), self.tokens()).item() == pytest.approx(wanted)

    def test_the_loss_is_the_mean_of_both_ways_to_say_a_chunk(self) -> None:
        policy, tokens = self.make(), self.tokens()
        features = policy.features(inputs())
        logits = [policy.logits_alone(features, 0), policy.logits_alone(features, 1)]
        logits += [logits[0], policy.logits_given(features, tokens[:1])]
        nats = [
            -each.log_softmax(-1).gather(-1, layer[..., None]).sum().item()
            for each, layer in zip(logits, tokens * 2, strict=True)
        ]
        assert policy.loss(inputs(), tokens).item() == pytest.approx(sum(nats) / 2 / (40 * 4 * 6), rel=1e-5)

    def test_many_values_have_logits_of_the_same_shape(self) -> None:
        policy = ProbePolicy(3, 4, ((2, 343),), 16, 8, chained=False)
        assert policy.logits_alone(policy.features(inputs()), 0).shape == (40, 4, 2, 343)

    def test_all_heads_are_equally_wide(self) -> None:
        few, many = ProbePolicy(3, 4, ((1, 2),), 16, 8), ProbePolicy(3, 4, ((50, 64),) * 3, 16, 8)
        for policy in (few, many):
            widths = {head[1].out_features for head in [*policy.alone, *policy.given]}  # type: ignore[index]
            assert widths == {policy.hidden} == {8}
