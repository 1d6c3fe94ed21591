"""The policy in miniature: what it may see, what it learns, and what its predictions say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from small_runs import make_dataset

from workbook.common.array import Array
from workbook.data.chunks import Normaliser
from workbook.data.dataset import Dataset
from workbook.data.episodes import Episode
from workbook.data.split import Split
from workbook.evaluation.policy.network import (
    Observations,
    PolicyConfig,
    RegressionPolicy,
    Standardiser,
    TokenPolicy,
    head_of,
    predict,
    train_policy,
)

A, LENGTH = 3, 4
TASKS = ("open", "put")
SIZES = ((2, 3), (4, 5), (1, 2))
GROUPS, INPUTS = 2, 6
UNIT = Normaliser(np.full(A, -2.0), np.full(A, 2.0))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def episode(steps: int, seed: int = 0, task: str = "put") -> Episode:
    actions = np.random.default_rng(seed).uniform(-2, 2, (steps, A))
    return Episode(actions, task, "a.hdf5", f"demo_{seed}")


def observe(episodes: Sequence[Episode], stride: int = LENGTH) -> Observations:
    return Observations.of(episodes, TASKS, UNIT, LENGTH, stride)


class TestObservations:
    def test_by_hand(self) -> None:
        actions = np.arange(1.0, 7.0)[:, None] / 10
        one = Episode(actions, "put", "a.hdf5", "demo_0")
        found = Observations.of([one], TASKS, Normaliser(np.array([-1.0]), np.array([1.0])), 2, 2)
        assert found.inputs == pytest.approx(
            np.array([
                [0, 1, 0.0, 0.0, 0.0],
                [0, 1, 0.3, 0.1, 0.2],
                [0, 1, 1.0, 0.3, 0.4],
            ])
        )  # fmt: skip
        assert found.chunks[..., 0] == pytest.approx(np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]]))

    def test_hold_normalised_actions_and_predict_raw_ones(self) -> None:
        one = episode(8)
        found = observe([one])
        assert found.inputs[1, -LENGTH * A :] == pytest.approx(one.actions[:4].ravel() / 2)
        assert np.array_equal(found.chunks[1], one.actions[4:])

    @settings(deadline=None, max_examples=40)
    @given(steps=st.integers(1, 30), stride=st.integers(1, LENGTH), data=st.data())
    def test_nothing_of_the_chunk_to_predict_nor_after_it_is_seen(
        self, steps: int, stride: int, data: st.DataObject
    ) -> None:
        one = episode(steps)
        before = observe([one], stride)
        number = data.draw(st.integers(0, len(before.inputs) - 1))
        changed = one.actions.copy()
        changed[number * stride :] += 1.5
        after = observe([replace(one, actions=changed)], stride)
        assert np.array_equal(after.inputs[: number + 1], before.inputs[: number + 1])
        assert not np.array_equal(after.chunks[number], before.chunks[number])

    def test_what_came_just_before_is_seen(self) -> None:
        one = episode(20)
        changed = one.actions.copy()
        changed[7] += 0.5
        before, after = observe([one]).inputs, observe([replace(one, actions=changed)]).inputs
        differs = [not np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
        assert differs == [False, False, True, True, True]  # the chunk before, and then where it has led

    def test_an_episode_knows_nothing_of_another(self) -> None:
        first, second = episode(9, 1, "open"), episode(13, 2)
        together = observe([first, second])
        alone = [observe([first]), observe([second])]
        assert np.array_equal(together.inputs, np.concatenate([each.inputs for each in alone]))
        assert np.array_equal(together.chunks, np.concatenate([each.chunks for each in alone]))

    def test_a_task_that_was_not_in_training_is_none_of_them(self) -> None:
        assert observe([episode(8, task="dance")]).inputs[:, :2].tolist() == [[0, 0], [0, 0]]

    @pytest.mark.parametrize("lengths", [(8, 16), (3, 8), (1, 1), (9, 17), (7, 15), (24, 5, 8, 9)])
    @pytest.mark.parametrize("part", ["validation", "test"])
    def test_chunks_are_those_that_are_held_out(self, lengths: tuple[int, ...], part: str) -> None:
        episodes = tuple(episode(steps, seed) for seed, steps in enumerate(lengths))
        positions = tuple(range(len(lengths)))
        split = replace(Split((), (), ()), **{part: positions})
        dataset = replace(make_dataset(), episodes=episodes, split=split, normaliser=UNIT)
        found = Observations.of(dataset.part(part), TASKS, UNIT, dataset.chunk_len, dataset.chunk_len)
        assert np.array_equal(found.chunks, dataset.held_out_chunks(part).actions)
        assert len(found.inputs) == len(found.chunks)

    @pytest.mark.parametrize("stride", [1, 2, 8])
    def test_those_of_training_too_at_any_stride(self, stride: int) -> None:
        dataset: Dataset = replace(make_dataset(), stride=stride)
        found = Observations.of(dataset.part("train"), TASKS, dataset.normaliser, dataset.chunk_len, stride)
        assert np.array_equal(found.chunks, dataset.train_chunks().actions)


class TestStandardiser:
    def test_gives_no_mean_and_unit_std(self) -> None:
        inputs = np.random.default_rng(0).normal(5, 3, (200, 4))
        found = Standardiser.fit(inputs).apply(inputs)
        assert found.dtype == torch.float32
        assert torch.allclose(found.mean(dim=0), torch.zeros(4), atol=1e-5)
        assert torch.allclose(found.std(dim=0, correction=0), torch.ones(4), atol=1e-5)

    def test_what_never_varies_stays_zero(self) -> None:
        found = Standardiser.fit(np.full((5, 2), 7.0)).apply(np.full((3, 2), 7.0))
        assert torch.equal(found, torch.zeros(3, 2))

    def test_is_fitted_once(self) -> None:
        standardise = Standardiser.fit(np.array([[0.0], [2.0]]))
        assert standardise.apply(np.array([[5.0]])).item() == 4.0


def make_policy(seed: int = 0) -> TokenPolicy:
    torch.manual_seed(seed)
    return TokenPolicy(INPUTS, GROUPS, SIZES, 16).eval()


def some_inputs(count: int = 7) -> torch.Tensor:
    return torch.randn(count, INPUTS, generator=torch.Generator().manual_seed(3))


def some_tokens(count: int = 7, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, levels, (count, GROUPS, places)) for places, levels in SIZES]


class TestTokenPolicy:
    @torch.no_grad()
    def test_logits_have_the_shape_of_the_tokens(self) -> None:
        policy = make_policy()
        features = policy.features(some_inputs())
        tokens = [torch.from_numpy(layer) for layer in some_tokens()]
        for layer, (places, levels) in enumerate(SIZES):
            assert policy.logits_alone(features, layer).shape == (7, GROUPS, places, levels)
            assert policy.logits_given(features, tokens[:layer]).shape == (7, GROUPS, places, levels)

    @torch.no_grad()
    def test_a_layer_is_given_every_token_before_it(self) -> None:
        policy = make_policy()
        features = policy.features(some_inputs())
        tokens = [torch.from_numpy(layer) for layer in some_tokens()]
        found = policy.logits_given(features, tokens[:2])
        for layer in (0, 1):
            others = [each.clone() for each in tokens[:2]]
            others[layer][0, 0, 0] = (others[layer][0, 0, 0] + 1) % SIZES[layer][1]
            differs = (policy.logits_given(features, others) != found).flatten(2).any(dim=2)
            assert differs[0].tolist() == [True, False]  # a group of its own tokens alone
            assert not differs[1:].any()

    @torch.no_grad()
    def test_before_the_first_layer_nothing_is_given(self) -> None:
        policy = make_policy()
        features = policy.features(some_inputs())
        assert torch.equal(policy.logits_given(features, []), policy.logits_alone(features, 0))
        assert len(policy.given) == len(policy.alone) - 1

    def test_groups_have_features_of_their_own(self) -> None:
        assert TokenPolicy(INPUTS, 8, SIZES, 16).features(some_inputs()).shape == (7, 8, 32)
        assert TokenPolicy(INPUTS, 300, SIZES, 16).features(some_inputs()).shape == (7, 300, 16)

    def test_the_loss_is_the_mean_of_all_heads(self) -> None:
        policy = make_policy()
        for parameter in policy.parameters():
            torch.nn.init.zeros_(parameter)
        loss = policy.loss(some_inputs(), [torch.from_numpy(layer) for layer in some_tokens()])
        assert loss.item() == pytest.approx(np.mean(np.log([3, 5, 5, 2, 2])))

    def test_learns_a_mapping_that_is_there(self) -> None:
        """Layer 0 is the sign of an input, layer 1 that sign times another's, layer 2 always the same."""
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn(400, 2, generator=generator).sign() * 1.0
        first, second = (inputs[:, 0] > 0).long(), (inputs[:, 0] * inputs[:, 1] > 0).long()
        tokens = [each[:, None, None].expand(-1, 2, 1) for each in (first, second, torch.zeros_like(first))]
        torch.manual_seed(0)
        policy = TokenPolicy(2, 2, ((1, 2), (1, 2), (1, 2)), 32)
        train_policy(policy, inputs, tokens, PolicyConfig(steps=150), 0, lambda step: None)
        found, probabilities = predict(policy, inputs, [each.numpy() for each in tokens])
        for prediction in found.values():
            for layer, truth in zip(prediction.tokens, tokens, strict=True):
                assert (layer == truth.numpy()).mean() > 0.99
            assert all(layer.mean() > -0.1 for layer in prediction.log2)
        assert probabilities[0].max(axis=-1).mean() > 0.9

    def test_heads_draw_their_weights_from_the_first_layer_on(self) -> None:
        """Another order would give every policy other weights than those of results that are kept."""
        torch.manual_seed(3)
        head = head_of(5, (2, 3), 4)
        torch.manual_seed(3)
        layers = torch.nn.Linear(5, 4), torch.nn.Linear(4, 6)
        found = [parameter for module in (head[1], head[3]) for parameter in module.parameters()]
        wanted = [parameter for layer in layers for parameter in layer.parameters()]
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))

    def test_training_is_the_same_for_the_same_seed(self) -> None:
        inputs, tokens = some_inputs(40), [torch.from_numpy(layer) for layer in some_tokens(40)]

        def trained(seed: int) -> torch.Tensor:
            policy = make_policy()
            train_policy(policy, inputs, tokens, PolicyConfig(steps=5, batch_size=8), seed, lambda step: None)
            return torch.cat([parameter.detach().flatten() for parameter in policy.parameters()])

        first = trained(1)
        assert torch.equal(first, trained(1))
        assert not torch.equal(first, trained(2))

    def test_training_tells_every_step_and_ends_in_evaluation(self) -> None:
        policy, told = make_policy(), []
        tokens = [torch.from_numpy(layer) for layer in some_tokens()]
        train_policy(policy, some_inputs(), tokens, PolicyConfig(steps=4), 0, told.append)
        assert told == [1, 2, 3, 4]
        assert not policy.training


class TestRegressionPolicy:
    def test_learns_a_linear_mapping(self) -> None:
        inputs = torch.randn(300, 3, generator=torch.Generator().manual_seed(0))
        targets = inputs[:, :2] * 0.3
        torch.manual_seed(0)
        policy = RegressionPolicy(3, 2, 32)
        before = policy.loss(inputs, [targets]).item()
        train_policy(policy, inputs, [targets], PolicyConfig(steps=150, noise=0.0), 0, lambda step: None)
        assert policy.loss(inputs, [targets]).item() < before / 5

    def test_its_loss_is_the_mean_squared_error(self) -> None:
        policy = RegressionPolicy(3, 2, 8)
        for parameter in policy.parameters():
            torch.nn.init.zeros_(parameter)
        assert policy.loss(torch.ones(4, 3), [torch.tensor([[1.0, -3.0]] * 4)]).item() == pytest.approx(5.0)


class TestPredict:
    def test_a_policy_that_knows_nothing_pays_log2_of_the_values(self) -> None:
        policy = make_policy()
        for parameter in policy.parameters():
            torch.nn.init.zeros_(parameter)
        found, probabilities = predict(policy, some_inputs(), some_tokens())
        for prediction in found.values():
            for layer, (places, levels) in zip(prediction.log2, SIZES, strict=True):
                assert layer.shape == (7, GROUPS, places)
                assert np.allclose(layer, -np.log2(levels))
        for each, (_, levels) in zip(probabilities, SIZES, strict=True):
            assert np.allclose(each, 1 / levels)

    def test_both_rules_have_the_same_first_layer(self) -> None:
        found, _ = predict(make_policy(), some_inputs(), some_tokens())
        parallel, autoregressive = found["parallel_argmax"], found["autoregressive"]
        assert np.array_equal(parallel.tokens[0], autoregressive.tokens[0])
        assert np.array_equal(parallel.log2[0], autoregressive.log2[0])
        assert not np.array_equal(parallel.log2[1], autoregressive.log2[1])

    def test_tokens_of_parallel_heads_are_the_likeliest(self) -> None:
        found, probabilities = predict(make_policy(), some_inputs(), some_tokens())
        for layer, each in zip(found["parallel_argmax"].tokens, probabilities, strict=True):
            assert np.array_equal(layer, each.argmax(axis=-1))

    @pytest.mark.parametrize("rule", ["parallel_argmax", "autoregressive"])
    @pytest.mark.parametrize("layer", range(len(SIZES)))
    def test_probabilities_of_all_values_sum_to_one(self, rule: str, layer: int) -> None:
        """Of each layer given the demonstrator's layers before it, so the chain rule holds."""
        total: Array = np.zeros((7, GROUPS, SIZES[layer][0]))
        for value in range(SIZES[layer][1]):
            tokens = some_tokens()
            tokens[layer] = np.full_like(tokens[layer], value)
            total += 2 ** predict(make_policy(), some_inputs(), tokens)[0][rule].log2[layer]
        assert np.allclose(total, 1.0)

    def test_a_layer_is_priced_by_those_before_it_alone(self) -> None:
        tokens, others = some_tokens(seed=0), some_tokens(seed=1)
        found, _ = predict(make_policy(), some_inputs(), tokens)
        changed, _ = predict(make_policy(), some_inputs(), [tokens[0], tokens[1], others[2]])
        for layer in (0, 1):
            assert np.array_equal(found["autoregressive"].log2[layer], changed["autoregressive"].log2[layer])
        earlier, _ = predict(make_policy(), some_inputs(), [others[0], tokens[1], tokens[2]])
        assert not np.array_equal(found["autoregressive"].log2[1], earlier["autoregressive"].log2[1])
        assert np.array_equal(found["parallel_argmax"].log2[1], earlier["parallel_argmax"].log2[1])

    def test_predicted_tokens_do_not_depend_on_the_truth(self) -> None:
        one, _ = predict(make_policy(), some_inputs(), some_tokens(seed=0))
        other, _ = predict(make_policy(), some_inputs(), some_tokens(seed=1))
        for rule in one:
            for a, b in zip(one[rule].tokens, other[rule].tokens, strict=True):
                assert np.array_equal(a, b)

    @torch.no_grad()
    def test_autoregressive_goes_on_from_its_own_tokens(self) -> None:
        policy, inputs = make_policy(), some_inputs()
        own = [torch.from_numpy(layer) for layer in predict(policy, inputs, some_tokens())[0]["autoregressive"].tokens]
        features = policy.features(inputs)
        for layer in range(1, len(SIZES)):
            assert torch.equal(policy.logits_given(features, own[:layer]).argmax(-1), own[layer])


@pytest.mark.parametrize("steps", [8, 16])
def test_every_codec_gets_about_equally_many_weights(steps: int) -> None:
    """Naive, fixed scale, bins, and a chunk coded as a whole: (groups, sizes)."""
    spaces = {
        "naive": (steps, [(16, 7)]),
        "scale": (steps, [(16, 7)] * 3),
        "bins": (steps, [(7, 64)]),
        "chunk": (1, [(1, 16), (20, 3), (12, 3), (4, 3)]),
    }
    counts = [
        sum(parameter.numel() for parameter in TokenPolicy(69, groups, sizes, 128).parameters())
        for groups, sizes in spaces.values()
    ]
    assert max(counts) < 1.15 * min(counts)
