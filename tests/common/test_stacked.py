"""Stacks of networks: each model computes, and learns from, what it does alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from workbook.common.stacked import StackedLinear, stacked, states_of
from workbook.evaluation.policy.network import ProbePolicy, RegressionPolicy, TokenPolicy

MODELS, INPUTS, GROUPS, CHUNKS = 3, 5, 4, 9
SIZES = ((2, 3), (4, 40))  # few values and many

POLICIES: dict[str, Callable[[], TokenPolicy | RegressionPolicy]] = {
    "regression": lambda: RegressionPolicy(INPUTS, 6, 16, features=8, hidden=8),
    "tokens": lambda: TokenPolicy(INPUTS, GROUPS, SIZES, 16),
    "probe": lambda: ProbePolicy(INPUTS, GROUPS, SIZES, 16, 8),
    "joint": lambda: ProbePolicy(INPUTS, 1, SIZES, 16, 8, chained=False),
}


def make(name: str) -> list[TokenPolicy | RegressionPolicy]:
    found = []
    for seed in range(MODELS):
        torch.manual_seed(seed)
        found.append(POLICIES[name]())
        for parameter in found[-1].parameters():  # none of which may pass for another's by being 0 or 1
            nn.init.normal_(parameter, std=0.3)
    return found


def observed() -> Tensor:
    return torch.randn(MODELS, CHUNKS, INPUTS, generator=torch.Generator().manual_seed(9))


def wanted(policy: TokenPolicy | RegressionPolicy) -> list[Tensor]:
    generator = torch.Generator().manual_seed(8)
    if isinstance(policy, RegressionPolicy):
        return [torch.randn(MODELS, CHUNKS, 6, generator=generator)]
    return [
        torch.randint(levels, (MODELS, CHUNKS, policy.groups, places), generator=generator) for places, levels in SIZES
    ]


def gradient_of(parameter: nn.Parameter) -> torch.Tensor:
    assert parameter.grad is not None
    return parameter.grad


class TestPolicies:
    @pytest.mark.parametrize("name", POLICIES)
    @torch.no_grad()
    def test_say_what_each_says_alone(self, name: str) -> None:
        policies = make(name)
        stack, inputs = stacked(policies), observed()
        for place, policy in enumerate(policies):
            if isinstance(policy, RegressionPolicy):
                assert torch.allclose(stack(inputs)[place], policy(inputs[place]), atol=1e-5)
                continue
            assert isinstance(stack, TokenPolicy)
            all_features, features = stack.features(inputs), policy.features(inputs[place])
            tokens = wanted(policy)
            for layer in range(len(SIZES)):
                found = stack.logits_alone(all_features, layer)[place]
                assert torch.allclose(found, policy.logits_alone(features, layer), atol=1e-5)
            if policy.chained:
                found = stack.logits_given(all_features, tokens[:1])[place]
                assert torch.allclose(found, policy.logits_given(features, [tokens[0][place]]), atol=1e-5)

    @pytest.mark.parametrize("name", POLICIES)
    def test_have_the_losses_and_gradients_of_each_alone(self, name: str) -> None:
        policies = make(name)
        stack, inputs, targets = stacked(policies), observed(), wanted(policies[0])
        losses = stack.loss(inputs, targets)
        losses.sum().backward()
        for place, policy in enumerate(policies):
            loss = policy.loss(inputs[place], [target[place] for target in targets])
            loss.backward()
            assert losses[place].item() == pytest.approx(loss.item(), rel=1e-5)
            of_all = states_of({name: gradient_of(own) for name, own in stack.named_parameters()})[place]
            for name, own in policy.named_parameters():
                assert torch.allclose(of_all[name], gradient_of(own), atol=1e-5), name

    def test_are_left_as_they_were(self) -> None:
        policies = make("probe")
        before = [parameter.clone() for policy in policies for parameter in policy.parameters()]
        stack = stacked(policies)
        with torch.no_grad():
            for parameter in stack.parameters():
                parameter.zero_()
        assert isinstance(policies[0].get_submodule("trunk.0"), nn.Linear)
        after = [parameter for policy in policies for parameter in policy.parameters()]
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


class TestStackedLinear:
    def test_gradients_lie_as_the_weights_do(self) -> None:
        """Else torch copies them in every step."""
        layer = StackedLinear([nn.Linear(5, 4) for _ in range(MODELS)])
        layer(torch.randn(MODELS, 7, 5)).square().sum().backward()
        for own in layer.parameters():
            assert own.is_contiguous()
            assert gradient_of(own).is_contiguous()

    def test_gives_each_layer_its_own_state(self) -> None:
        layers = [nn.Linear(5, 4) for _ in range(MODELS)]
        for layer, state in zip(layers, states_of(nn.Sequential(StackedLinear(layers)).state_dict()), strict=True):
            assert state.keys() == {"0.weight", "0.bias"}
            assert all(torch.equal(state[f"0.{name}"], own) for name, own in layer.state_dict().items())

    def test_other_weights_are_refused(self) -> None:
        with pytest.raises(TypeError, match="Embedding"):
            stacked([nn.Embedding(3, 4), nn.Embedding(3, 4)])
