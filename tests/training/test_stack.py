"""Models in a stack compute and learn what each does alone."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Any, cast

import pytest
import torch
from hypothesis import assume, given, settings, strategies as st
from small_runs import SMALL, make_dataset
from torch import Tensor, nn
from torch.nn.functional import mish, mse_loss

from rfsq_robust import CONDITIONINGS, ActionRFSQAE, Conditioning
from workbook.common.errors import InputError
from workbook.training.data import TrainData
from workbook.training.runs import stacks_of
from workbook.training.stack import Alone, NetworkStack, RFSQStack, stacked_network
from workbook.training.trainer import Job, Stepper, TrainConfig, build_model, fit, train_together

MIXED = [Job(name, seed) for name in CONDITIONINGS for seed in (3, 8)]


@pytest.fixture(scope="module")
def data() -> TrainData:
    return TrainData.of(make_dataset())


def random_data(width: int, chunks: int, steps: int, seed: int) -> TrainData:
    """Some steps of every chunk but the first are padding."""
    generator = torch.Generator().manual_seed(seed)
    valid = torch.rand(chunks, steps, generator=generator) < 0.7
    valid[:, 0] = True
    train, validation = (torch.rand(*shape, width, generator=generator) * 2 - 1 for shape in ((chunks, steps), (9,)))
    return TrainData(train, valid, validation)


def trained_a_little(model: ActionRFSQAE, seed: int) -> ActionRFSQAE:
    """So that what a layer learns or keeps is not where it starts."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in model.rfsq.quantizers:
            for value in (*layer.parameters(), *layer.buffers()):
                if value.ndim == 0 and value.is_floating_point():
                    value.add_(0.2 * torch.rand((), generator=generator))
    return model


sizes = {
    "names": st.lists(st.sampled_from(CONDITIONINGS), min_size=1, max_size=5),
    "width": st.integers(1, 20),
    "hidden": st.integers(2, 9),
    "layers": st.integers(1, 3),
    "levels": st.integers(2, 7),
    "seed": st.integers(0, 1000),
}


def models_of(
    names: list[Conditioning], width: int, hidden: int, layers: int, levels: int, seed: int
) -> list[ActionRFSQAE]:
    """Those of one conditioning side by side, as a stack wants them."""
    config = TrainConfig(hidden_dim=hidden, num_layers=layers, num_levels=levels)
    jobs = [Job(name, seed + k) for k, name in enumerate(sorted(names, key=CONDITIONINGS.index))]
    return [trained_a_little(build_model(config, width, job), job.seed) for job in jobs]


@settings(deadline=None, max_examples=25, derandomize=True)
@given(**sizes)
def test_the_same_latents_are_quantized_and_decoded_as_by_each_model_alone(seed: int, **size: Any) -> None:
    models = models_of(seed=seed, **size)
    stack = RFSQStack(models, random_data(size["width"], chunks=2, steps=1, seed=seed)).eval()
    z = torch.tanh(torch.randn(len(models), 11, size["hidden"], generator=torch.Generator().manual_seed(seed)))
    quantized = torch.cat([block(part, None) for block, part in zip(stack.blocks, z.split(stack.sizes), strict=True)])
    for k, (model, decoded) in enumerate(zip(models, stack.decoder(quantized), strict=True)):
        alone = model.eval().rfsq(z[k])[0]
        assert torch.allclose(quantized[k], alone, atol=1e-6)
        assert torch.allclose(decoded, model.decoder(alone), atol=1e-6)


def slope_of(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


@settings(deadline=None, max_examples=25, derandomize=True)
@given(**sizes)
def test_errors_gradients_and_statistics_are_those_of_each_model_alone(seed: int, **size: Any) -> None:
    """By the modules of rfsq_robust.py, which see no padding.

    A latent within rounding of a border may be quantized to either side, and then all that follows is another.
    """
    models = models_of(seed=seed, **size)
    data = random_data(size["width"], chunks=12, steps=3, seed=seed)
    stack = RFSQStack(models, data)
    latents = stack.encoder(data.train.flatten(0, 1).expand(len(models), -1, -1))
    parts = zip(stack.eval().blocks, latents.split(stack.sizes), strict=True)
    found = torch.cat([block(part, None) for block, part in parts])
    alone = torch.stack([model.eval().rfsq(model.encoder(data.train.flatten(0, 1)))[0] for model in models])
    differ = (found - alone).abs() > 1e-6
    assert differ.float().mean() < 0.01
    assume(not differ.any())
    orders = [torch.randperm(12, generator=torch.Generator().manual_seed(k)) for k in range(len(models))]
    batch = torch.stack(orders)[:, :7]
    stack.train().loss(batch).backward()
    states = stack.states()
    mses = stack.eval().validation_mse()
    for parameter in stack.parameters():
        parameter.data = slope_of(parameter)
    slopes = stack.states()
    for k, model in enumerate(models):
        one = Alone(model.train(), data)
        one.loss(batch[k : k + 1]).backward()
        for name, parameter in model.named_parameters():
            assert torch.allclose(slopes[k][name], slope_of(parameter), atol=1e-6), name
        for name, value in model.state_dict().items():
            assert torch.allclose(states[k][name].to(value.dtype), value, atol=1e-6), name
        assert torch.allclose(mses[k], one.eval().validation_mse(), rtol=1e-3)


def test_mish_is_torchs_with_its_gradient() -> None:
    (quick,) = stacked_network([nn.Sequential(nn.Mish())])
    x = torch.cat([torch.linspace(-30, 30, 2001), torch.tensor([-1e30, -100.0, 0.0, 100.0, 1e30])])
    ours, theirs = x.clone().requires_grad_(), x.double().requires_grad_()
    quick(ours).sum().backward()
    mish(theirs).sum().backward()
    assert torch.allclose(quick(x).double(), mish(theirs), rtol=1e-6, atol=2e-6)
    assert torch.allclose(cast("Tensor", ours.grad).double(), cast("Tensor", theirs.grad), rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("together", [[job] for job in MIXED[::2]] + [MIXED])
def test_a_stack_learns_what_its_models_learn_alone(data: TrainData, together: list[Job]) -> None:
    """Alone as modules of rfsq_robust.py; rounding that grows from step to step is all that may differ."""
    config = replace(SMALL, epochs=3)
    heard: list[tuple[int, list[float]]] = []
    stacked = train_together(config, together, data, lambda epoch, mses: heard.append((epoch, mses)))
    assert [model.job for model in stacked] == together
    assert heard == [(k + 1, [model.curve[k] for model in stacked]) for k in range(3)]
    for trained in stacked:
        job = trained.job
        model = build_model(config, 7, job)
        fitted = fit(Alone(model, data), config, [job.seed], data, [job.conditioning])
        curve = [mse for (mse,) in fitted.curve]
        assert trained.curve == pytest.approx(curve, rel=1e-2)
        assert (trained.mse, trained.epoch) == (min(trained.curve), trained.curve.index(min(trained.curve)) + 1)
        for name, value in trained.model.state_dict().items():
            assert torch.allclose(value.float(), model.state_dict()[name].float(), atol=2e-2), name


def test_each_model_is_left_at_its_own_best_epoch(data: TrainData) -> None:
    unsteady = replace(SMALL, epochs=8, learning_rate=0.3)
    trained = train_together(unsteady, MIXED, data)
    assert len({model.epoch for model in trained}) > 1
    again = RFSQStack([model.model for model in trained], data).eval().validation_mse()
    assert again.tolist() == [min(model.curve) for model in trained]


def test_a_model_that_diverges_is_told_by_name_and_seed(data: TrainData) -> None:
    """Where its latents are NaN, the others go on to the end of the epoch."""
    spoilt = RFSQStack([build_model(SMALL, 7, job) for job in MIXED], data)
    with torch.no_grad():
        cast("Tensor", spoilt.encoder[0].transposed)[3] = torch.nan
    seeds, titles = [job.seed for job in MIXED], [job.conditioning for job in MIXED]
    mses = Stepper(spoilt, SMALL, seeds, data).epoch()
    assert [position for position, mse in enumerate(mses) if math.isnan(mse)] == [3]
    with pytest.raises(InputError, match="training of layernorm with seed 8 diverged in epoch 1; lower the learning"):
        fit(spoilt, SMALL, seeds, data, titles)


def test_networks_learn_from_inputs_of_their_own(data: TrainData) -> None:
    torch.manual_seed(0)
    networks = [nn.Sequential(nn.Linear(7, 5), nn.Mish(), nn.Linear(5, 7)) for _ in range(3)]
    inputs = [data.changed(partial(torch.mul, k)) for k in range(3)]
    targets = [data.changed(torch.neg)] * 3
    stack = NetworkStack(networks, inputs, targets)
    batch = torch.arange(12).view(3, 4)
    stack.loss(batch).backward()
    first = cast("Tensor", stack.network[0].transposed.grad)
    for k, network in enumerate(networks):
        rows = data.train[batch[k]][data.train_valid[batch[k]]]
        mse_loss(network(rows * k), -rows).backward()
        assert torch.allclose(first[k].mT, network[0].weight.grad, atol=1e-6)
        error = (network(data.validation * k) + data.validation).detach()
        assert float(stack.validation_mse()[k]) == pytest.approx(float(error.square().mean()), rel=1e-5)


@given(
    seeds=st.integers(1, 60),
    most=st.integers(1, 30),
    cores=st.integers(1, 64),
    names=st.sets(st.sampled_from(CONDITIONINGS), min_size=1),
)
def test_every_job_is_in_one_stack_and_stacks_are_even(
    seeds: int, most: int, cores: int, names: set[Conditioning]
) -> None:
    jobs = [Job(name, seed) for seed in range(seeds) for name in names]
    stacks = stacks_of(jobs, most, cores)
    assert sorted(position for stack in stacks for position in stack) == list(range(len(jobs)))
    lengths = [len(stack) for stack in stacks]
    assert max(lengths) <= most
    assert max(lengths) - min(lengths) <= 1
    assert len(stacks) == len(jobs) or len(stacks) % cores == 0
    for stack in stacks:
        assert len(list(groupby(jobs[position].conditioning for position in stack))) == len(
            {jobs[position].conditioning for position in stack}
        )
