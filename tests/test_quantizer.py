"""The grid, its gradient, and the conditionings that learn: learned scale and frozen statistics."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from models import (
    ACTION_DIM,
    all_conditionings,
    few_examples,
    frozen_state,
    log_gain_gradients,
    set_log_gains,
    uniform,
    used_model,
    wide_floats,
)

from rfsq_robust import ActionRFSQAE, Conditioning, RobustRFSQBlock, RobustSTEQuantizer, straight_through

# Nearest grid value


@pytest.mark.parametrize(
    ("num_levels", "z", "index"),
    [
        *[(2, -1.0, 0), (2, 0.0, 0), (2, 1e-3, 1), (2, 1.0, 1)],
        *[(3, -0.51, 0), (3, -0.5, 0), (3, -0.49, 1), (3, 0.0, 1), (3, 0.5, 1), (3, 0.51, 2)],
        *[(4, 0.0, 1), (4, -0.01, 1), (4, 0.01, 2), (4, 0.7, 3)],
        *[(5, -0.75, 0), (5, -0.25, 1), (5, 0.25, 2), (5, 0.75, 3), (5, 0.76, 4)],
        *[(7, 0.0, 3), (7, 0.34, 4), (7, -0.66, 1), (7, 0.16, 3), (7, 0.17, 4)],
        *[(8, 0.0, 3), (9, -0.875, 0), (9, 0.125, 4), (9, 0.875, 7)],
        *[(7, 1.0, 6), (7, 1.2, 6), (7, 1e6, 6), (7, -1.0, 0), (7, -1.2, 0), (7, -1e6, 0), (2, -3.0, 0), (2, 3.0, 1)],
    ],
)
def test_nearest_value_by_hand(num_levels: int, z: float, index: int) -> None:
    quantized, indices = RobustSTEQuantizer(num_levels, conditioning="none")(torch.tensor([z]))
    assert indices.dtype == torch.int64
    assert indices.tolist() == [index]
    assert quantized.tolist() == pytest.approx([2 * index / (num_levels - 1) - 1], abs=1e-6)


@few_examples
@given(values=st.lists(st.floats(-1.5, 1.5, width=32), min_size=1, max_size=50), num_levels=st.integers(2, 12))
def test_nearest_value_agrees_with_a_search(values: list[float], num_levels: int) -> None:
    grid = np.linspace(-1, 1, num_levels)
    distance = np.abs(np.array(values)[:, None] - grid)
    nearest, second = np.sort(distance, axis=-1)[:, :2].T
    away_from_ties = second - nearest > 2e-6
    quantized, indices = RobustSTEQuantizer(num_levels, conditioning="none")(torch.tensor(values))
    assert np.array_equal(indices.numpy()[away_from_ties], distance.argmin(axis=-1)[away_from_ties])
    np.testing.assert_allclose(quantized.numpy(), grid[indices.numpy()], atol=1e-6)


def test_scale_of_a_layer_stretches_its_grid() -> None:
    quantized, indices = RobustSTEQuantizer(5, conditioning="scale", layer=2)(torch.tensor([-1.0, -0.04, 0.0, 0.05]))
    assert indices.tolist() == [0, 1, 2, 4]
    assert quantized.tolist() == [-1 / 16, -1 / 32, 0.0, 1 / 16]


@pytest.mark.parametrize("num_levels", range(2, 65))
def test_the_grid_is_even_and_that_of_existing_checkpoints(num_levels: int) -> None:
    quantizer = RobustSTEQuantizer(num_levels, conditioning="none")
    grid = quantizer.to_values(torch.arange(num_levels), None, None)
    assert grid.dtype == torch.float32
    assert (float(grid[0]), float(grid[-1])) == (-1.0, 1.0)
    half = num_levels // 2
    assert torch.equal(grid[:half], -grid.flip(0)[:half])  # the middle of an odd number is 0 but for rounding
    np.testing.assert_allclose(grid.numpy(), np.linspace(-1, 1, num_levels), rtol=0, atol=2**-23)
    assert torch.equal(quantizer.boundaries, grid)
    if torch.backends.cpu.get_cpu_capability() != "DEFAULT":  # there it multiplies and adds in two roundings
        assert torch.equal(grid, torch.linspace(-1, 1, num_levels))


@pytest.mark.parametrize("layer", range(10))
def test_the_scale_of_a_layer_is_the_float32_nearest_to_its_power(layer: int) -> None:
    _, scale = RobustSTEQuantizer(7, conditioning="scale", layer=layer).constants()
    assert scale is not None
    assert scale.dtype == torch.float32
    assert float(scale) == float(np.float32(1 / 6**layer))


# Gradient


@all_conditionings
@pytest.mark.parametrize("num_layers", range(1, 10))
def test_gradient_of_the_block_is_exactly_one(conditioning: Conditioning, num_layers: int) -> None:
    block = RobustRFSQBlock(num_layers, 7, conditioning=conditioning)
    if conditioning == "learned_scale":
        set_log_gains(block, [0.3 - 0.5 * k for k in range(num_layers)])
    jacobian = torch.autograd.functional.jacobian(lambda z: block(z)[0], uniform(6))
    assert torch.equal(jacobian, torch.eye(6))


@all_conditionings
def test_gradient_of_one_quantizer_is_exactly_one(conditioning: Conditioning) -> None:
    quantizer = RobustSTEQuantizer(7, conditioning=conditioning, layer=1)
    jacobian = torch.autograd.functional.jacobian(lambda z: quantizer(z)[0], uniform(6))
    assert torch.equal(jacobian, torch.eye(6))


@all_conditionings
def test_gradient_reaches_every_weight_of_the_encoder(conditioning: Conditioning) -> None:
    model = used_model(conditioning).train()
    model(uniform(8, ACTION_DIM))[0].square().sum().backward()
    for parameter in model.encoder.parameters():
        assert parameter.grad is not None
        assert bool((parameter.grad != 0).any())


@few_examples
@given(pairs=st.lists(st.tuples(wide_floats, wide_floats), min_size=1, max_size=8))
def test_straight_through_gives_exactly_the_quantized_value(pairs: list[tuple[float, float]]) -> None:
    z, quantized = torch.tensor(pairs).unbind(-1)
    z.requires_grad_()
    out = straight_through(z, quantized)
    assert torch.equal(out, quantized)
    assert torch.equal(torch.autograd.grad(out.sum(), z)[0], torch.ones_like(quantized))


# Learned scale


def test_learned_scale_starts_at_the_geometric_scale() -> None:
    z = uniform(20, 6)
    learned = RobustRFSQBlock(4, 7, conditioning="learned_scale")
    geometric = RobustRFSQBlock(4, 7, conditioning="scale")
    assert torch.equal(learned(z)[0], geometric(z)[0])
    assert torch.equal(learned(z)[1], geometric(z)[1])


@pytest.mark.parametrize(("z", "end"), [(0.9, 1.0), (-0.9, -1.0)])
def test_gradient_of_one_clipped_layer_is_scale_times_the_grid_end(z: float, end: float) -> None:
    block = RobustRFSQBlock(1, 7, conditioning="learned_scale")
    set_log_gains(block, [math.log(0.5)])
    assert log_gain_gradients(block, torch.tensor([z])) == pytest.approx([0.5 * end])


def test_gradient_of_one_unclipped_layer_is_its_rounding_error() -> None:
    block = RobustRFSQBlock(1, 7, conditioning="learned_scale")
    set_log_gains(block, [math.log(0.5)])
    # 0.2 / 0.5 = 0.4, whose nearest grid value is 1/3.
    assert log_gain_gradients(block, torch.tensor([0.2])) == pytest.approx([0.5 * (1 / 3 - 0.4)], abs=1e-6)


def test_gradient_of_clipping_layers_is_that_of_the_output() -> None:
    """Where every layer clips the output is the sum of the scales, so a difference quotient shows the gradient."""
    z, log_gains, step = torch.full((10,), 0.9), [-3.0, -2.5, -2.0], 1e-2
    block = RobustRFSQBlock(3, 7, conditioning="learned_scale")
    set_log_gains(block, log_gains)
    gradients = log_gain_gradients(block, z)
    for k in range(3):
        ends = []
        for sign in (1, -1):
            moved = list(log_gains)
            moved[k] += sign * step
            set_log_gains(block, moved)
            ends.append(float(block(z)[0].detach().sum()))
        assert gradients[k] == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-3)
        assert gradients[k] == pytest.approx(10 * 6.0**-k * math.exp(log_gains[k]), rel=1e-5)


@pytest.mark.parametrize("num_levels", [2, 3, 7, 8])
@pytest.mark.parametrize("num_layers", [2, 3, 4])
def test_at_the_geometric_start_only_the_last_layer_has_a_gradient(num_layers: int, num_levels: int) -> None:
    block = RobustRFSQBlock(num_layers, num_levels, conditioning="learned_scale")
    *earlier, last = log_gain_gradients(block, uniform(100, 6))
    assert earlier == [0.0] * (num_layers - 1)
    assert last != 0


def test_the_value_is_the_same_with_and_without_gradient() -> None:
    block = used_model("learned_scale").rfsq
    z = uniform(20, 6)
    with torch.no_grad():
        without = block(z)[0]
    assert torch.equal(block(z)[0], without)


# Frozen statistics


def frozen_block() -> RobustRFSQBlock:
    return RobustRFSQBlock(3, 7, conditioning="frozen_layernorm")


def test_first_batch_sets_the_statistics() -> None:
    z = uniform(30, 6) * 0.4 + 0.2
    block = frozen_block()
    block(z)
    *_, residuals = block.eval().quantize(z)
    for layer, residual in zip(block.quantizers, residuals[:-1], strict=True):
        assert torch.equal(layer.running_mean, residual.mean())
        torch.testing.assert_close(layer.running_std, residual.std(), rtol=1e-6, atol=0)


def test_first_batches_are_averaged() -> None:
    quantizer = RobustSTEQuantizer(7, conditioning="frozen_layernorm")
    batches = [uniform(30, 6, seed=seed) + 0.1 * seed for seed in range(5)]
    for batch in batches:
        quantizer(batch)
    torch.testing.assert_close(quantizer.running_mean, torch.stack([batch.mean() for batch in batches]).mean())
    torch.testing.assert_close(quantizer.running_std, torch.stack([batch.std() for batch in batches]).mean())


def test_training_moves_the_statistics() -> None:
    block = frozen_block().train()
    block(uniform(30, 6))
    before = frozen_state(block)
    block(uniform(30, 6, seed=1) * 0.5 + 0.3)
    after = frozen_state(block)
    assert before.keys() == after.keys()
    assert all(not torch.equal(before[name], after[name]) for name in before)


def test_eval_leaves_the_statistics() -> None:
    model = used_model("frozen_layernorm")
    before = frozen_state(model.rfsq)
    x = uniform(30, ACTION_DIM, seed=5)
    model(x)
    model.encode(x)
    model.residual_std(x)
    after = frozen_state(model.rfsq)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_encoding_never_moves_frozen_statistics_even_in_train_mode() -> None:
    model = ActionRFSQAE(conditioning="frozen_layernorm").train()
    model(torch.rand(8, 7))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.encode(torch.rand(8, 7))
    model.residual_std(torch.rand(8, 7))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_an_empty_or_transposed_batch_does_not_harm_frozen_statistics() -> None:
    block = RobustRFSQBlock(3, 7, conditioning="frozen_layernorm").train()
    block(torch.zeros(0, 5))
    block(torch.rand(3, 4, 5).transpose(0, 2))
    assert all(torch.isfinite(value).all() for value in block.state_dict().values())
