"""Laws of the quantizer, the residual block and the autoencoder."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rfsq_robust import (
    CONDITIONINGS,
    ActionRFSQAE,
    Conditioning,
    RobustRFSQBlock,
    RobustSTEQuantizer,
    straight_through,
)

torch.set_num_threads(1)

ACTION_DIM = 7
DECODING: tuple[Conditioning, ...] = ("none", "frozen_layernorm", "learned_scale", "scale")
SHAPES = [(ACTION_DIM,), (4, ACTION_DIM), (2, 3, ACTION_DIM), (2, 1, 3, ACTION_DIM)]

all_conditionings = pytest.mark.parametrize("conditioning", CONDITIONINGS)
decoding_conditionings = pytest.mark.parametrize("conditioning", DECODING)
few_examples = settings(deadline=None, max_examples=40)
seeds = st.integers(0, 2**31)
unit_floats = st.floats(-1, 1, width=32)
wide_floats = st.floats(-1e6, 1e6, width=32)


def uniform(*shape: int, seed: int = 0) -> Tensor:
    """Values in [-1, 1)."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def used_model(
    conditioning: Conditioning, seed: int = 0, hidden_dim: int = 6, num_layers: int = 3, num_levels: int = 5
) -> ActionRFSQAE:
    """A model in eval mode whose statistics and gains are not those it was made with."""
    torch.manual_seed(seed)
    model = ActionRFSQAE(ACTION_DIM, hidden_dim, num_layers, num_levels, conditioning=conditioning).train()
    for batch in range(3):
        model(uniform(16, ACTION_DIM, seed=seed + batch))
    if conditioning == "learned_scale":
        set_log_gains(model.rfsq, torch.randn(num_layers).tolist())
    return model.eval()


def set_log_gains(block: RobustRFSQBlock, log_gains: list[float]) -> None:
    with torch.no_grad():
        for layer, log_gain in zip(block.quantizers, log_gains, strict=True):
            layer.log_gain.fill_(log_gain)


def log_gain_gradients(block: RobustRFSQBlock, z: Tensor) -> list[float]:
    block(z)[0].sum().backward()
    gradients = [layer.log_gain.grad for layer in block.quantizers]
    return [0.0 if gradient is None else float(gradient) for gradient in gradients]


def frozen_state(block: RobustRFSQBlock) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in block.state_dict().items() if "boundaries" not in name}


# --- decoding from the codes -------------------------------------------------------------------------------------


@decoding_conditionings
@few_examples
@given(seed=seeds, hidden_dim=st.integers(2, 20), num_layers=st.integers(1, 9), num_levels=st.integers(2, 9))
def test_codes_decode_to_the_forward_output_bit_for_bit(
    conditioning: Conditioning, seed: int, hidden_dim: int, num_layers: int, num_levels: int
) -> None:
    model = used_model(conditioning, seed, hidden_dim, num_layers, num_levels)
    x = uniform(9, ACTION_DIM, seed=seed + 10)
    assert torch.equal(model.decode_from_indices(model.encode(x)), model(x)[0])


@few_examples
@given(seed=seeds, hidden_dim=st.integers(2, 20), num_layers=st.integers(1, 9), num_levels=st.integers(2, 9))
def test_layernorm_codes_with_stats_decode_to_the_forward_output_bit_for_bit(
    seed: int, hidden_dim: int, num_layers: int, num_levels: int
) -> None:
    model = used_model("layernorm", seed, hidden_dim, num_layers, num_levels)
    x = uniform(9, ACTION_DIM, seed=seed + 10)
    codes, stats = model.encode(x, return_stats=True)
    assert torch.equal(model.decode_from_indices(codes, stats), model(x)[0])


@all_conditionings
@pytest.mark.parametrize("shape", SHAPES)
def test_decoding_is_exact_for_every_rank(conditioning: Conditioning, shape: tuple[int, ...]) -> None:
    model = used_model(conditioning)
    x = uniform(*shape)
    decoded = model.decode_from_indices(*model.encode(x, return_stats=True))
    assert decoded.shape == shape
    assert torch.equal(decoded, model(x)[0])


@all_conditionings
@few_examples
@given(seed=seeds, num_layers=st.integers(1, 9), num_levels=st.integers(2, 9))
def test_codes_of_the_block_decode_to_its_output(
    conditioning: Conditioning, seed: int, num_layers: int, num_levels: int
) -> None:
    block = used_model(conditioning, seed, num_layers=num_layers, num_levels=num_levels).rfsq
    z = uniform(5, 6, seed=seed)
    quantized, codes, stats, _ = block.quantize(z)
    assert torch.equal(block.decode_from_indices(codes, stats), quantized)
    assert torch.equal(block(z)[0], quantized)


def test_models_under_test_have_moved_from_their_start() -> None:
    frozen = used_model("frozen_layernorm").rfsq.quantizers
    assert all(float(layer.running_mean) != 0 and float(layer.running_std) != 1 for layer in frozen)
    assert all(layer.log_gain.item() != 0 for layer in used_model("learned_scale").rfsq.quantizers)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_narrow_integers_decode_as_int64_does(dtype: torch.dtype) -> None:
    model = used_model("scale")
    codes = model.encode(uniform(4, ACTION_DIM))
    assert torch.equal(model.decode_from_indices(codes.to(dtype)), model.decode_from_indices(codes))


# --- statistics that layernorm needs -----------------------------------------------------------------------------


def test_layernorm_without_stats_names_the_way_out() -> None:
    model = used_model("layernorm")
    codes = model.encode(uniform(4, ACTION_DIM))
    with pytest.raises(ValueError, match=r"'layernorm'.*conditioning='scale'"):
        model.decode_from_indices(codes)


@decoding_conditionings
def test_other_conditionings_make_and_take_no_stats(conditioning: Conditioning) -> None:
    model = used_model(conditioning)
    codes, stats = model.encode(uniform(4, ACTION_DIM), return_stats=True)
    assert stats is None
    with pytest.raises(ValueError, match=f"'{conditioning}' decodes from the codes alone"):
        model.decode_from_indices(codes, torch.zeros(4, 3, 2))


@pytest.mark.parametrize("shape", [(4, 2, 2), (4, 3, 1), (3, 3, 2), (3, 2), (1, 4, 3, 2)])
def test_stats_of_the_wrong_shape_are_refused(shape: tuple[int, ...]) -> None:
    model = used_model("layernorm")
    codes, stats = model.encode(uniform(4, ACTION_DIM), return_stats=True)
    assert stats is not None
    assert stats.shape == (4, 3, 2)
    with pytest.raises(ValueError, match=r"stats of shape .* need \(4, 3, 2\)"):
        model.decode_from_indices(codes, torch.zeros(shape))


# --- codes -------------------------------------------------------------------------------------------------------


@all_conditionings
@pytest.mark.parametrize("shape", SHAPES)
def test_codes_are_integers_of_the_documented_shape(conditioning: Conditioning, shape: tuple[int, ...]) -> None:
    model = used_model(conditioning)
    x = uniform(*shape)
    for codes in (model.encode(x), model(x)[1]):
        assert codes.dtype == torch.int64
        assert codes.shape == (*shape[:-1], 6, 3)
        assert 0 <= int(codes.min()) <= int(codes.max()) < 5


@all_conditionings
def test_forward_and_encode_give_the_same_codes(conditioning: Conditioning) -> None:
    model = used_model(conditioning)
    x = uniform(20, ACTION_DIM)
    assert torch.equal(model(x)[1], model.encode(x))


@all_conditionings
@pytest.mark.parametrize("num_levels", [2, 3, 6, 7])
def test_codes_of_far_values_stay_in_range(conditioning: Conditioning, num_levels: int) -> None:
    _, codes = RobustRFSQBlock(4, num_levels, conditioning=conditioning)(uniform(50, 6) * 1000)
    assert 0 <= int(codes.min()) <= int(codes.max()) < num_levels


# --- gradient ----------------------------------------------------------------------------------------------------


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


# --- prefixes of the layers --------------------------------------------------------------------------------------


@all_conditionings
def test_a_prefix_decodes_to_the_sum_of_its_layers(conditioning: Conditioning) -> None:
    block = used_model(conditioning, num_layers=5).rfsq
    _, codes, stats, _ = block.quantize(uniform(8, 6))
    total = torch.zeros(8, 6)
    for k, layer in enumerate(block.quantizers):
        shift, scale = layer.constants() if stats is None else (stats[:, k, :1], stats[:, k, 1:])
        total = total + layer.to_values(codes[..., k], shift, scale)
        prefix_stats = None if stats is None else stats[:, : k + 1]
        assert torch.equal(block.decode_from_indices(codes[..., : k + 1], prefix_stats), total)


def test_prefix_of_scale_matches_the_written_out_sum() -> None:
    block = RobustRFSQBlock(4, 5, conditioning="scale")
    codes = torch.tensor([[4, 0, 2, 3], [0, 4, 1, 2]])
    layers = torch.tensor([[1.0, -1 / 4, 0.0, 0.5 / 64], [-1.0, 1 / 4, -0.5 / 16, 0.0]])
    for k in range(1, 5):
        torch.testing.assert_close(block.decode_from_indices(codes[:, :k]), layers[:, :k].sum(dim=-1))


@few_examples
@given(latent=st.lists(unit_floats, min_size=1, max_size=20), num_levels=st.integers(2, 9))
def test_prefix_error_of_scale_shrinks_by_the_grid_step(latent: list[float], num_levels: int) -> None:
    """A residual in +-w meets a grid of half-step w / (L-1), so k layers take [-1, 1] to +-(L-1)^-k."""
    block = RobustRFSQBlock(9, num_levels, conditioning="scale")
    z = torch.tensor(latent)
    _, codes = block(z)
    for k in range(1, 10):
        error = (z - block.decode_from_indices(codes[..., :k])).abs().max()
        assert float(error) <= (num_levels - 1) ** -k + 1e-6


# --- nearest grid value ------------------------------------------------------------------------------------------


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


# --- the existing Phase 1 ----------------------------------------------------------------------------------------


def phase1(z: Tensor, num_layers: int, num_levels: int, use_layernorm: bool) -> tuple[Tensor, Tensor]:
    """The existing quantizer, written out."""
    grid = torch.linspace(-1, 1, num_levels)
    residual, total, codes = z, torch.zeros_like(z), []
    for _ in range(num_layers):
        mean, std = torch.zeros(1), torch.ones(1)
        if use_layernorm:
            mean = residual.mean(dim=-1, keepdim=True)
            std = residual.std(dim=-1, keepdim=True) + 1e-5
        index = ((residual - mean) / std).unsqueeze(-1).sub(grid).abs().argmin(dim=-1)
        z_q = grid[index] * std + mean
        residual = residual - z_q
        total = total + z_q
        codes.append(index)
    return total, torch.stack(codes, dim=-1)


@pytest.mark.parametrize("num_levels", [2, 5, 7, 8])
@pytest.mark.parametrize("num_layers", [1, 2, 3, 8])
@pytest.mark.parametrize("use_layernorm", [False, True])
def test_agrees_with_the_existing_phase_1(num_levels: int, num_layers: int, use_layernorm: bool) -> None:
    z = torch.tanh(2 * uniform(64, 16, seed=num_levels))
    expected, expected_codes = phase1(z, num_layers, num_levels, use_layernorm)
    quantized, codes = RobustRFSQBlock(num_layers, num_levels, use_layernorm=use_layernorm)(z)
    assert torch.allclose(quantized, expected, atol=1e-5)
    if not use_layernorm:
        assert torch.equal(codes, expected_codes)


def test_layernorm_stats_are_mean_and_bessel_corrected_std() -> None:
    z = torch.tensor([[0.1, 0.3, -0.2, 0.6]])
    _, _, stats, _ = RobustRFSQBlock(1, 7, conditioning="layernorm").quantize(z)
    assert stats is not None
    assert stats[0, 0].tolist() == pytest.approx([0.2, math.sqrt((0.01 + 0.01 + 0.16 + 0.16) / 3) + 1e-5], abs=1e-7)


def test_naive_spends_its_later_layers_on_the_middle_value() -> None:
    z = torch.tensor([0.9, -0.4, 0.1, 1.0, -1.0, 0.6])
    block = RobustRFSQBlock(8, 7, conditioning="none")
    quantized, codes, _, residuals = block.quantize(z)
    assert codes[:, 0].tolist() == [6, 2, 3, 6, 0, 5]
    assert bool((codes[:, 1:] == 3).all())
    assert residuals[1].tolist() == pytest.approx([-0.1, -0.4 + 1 / 3, 0.1, 0.0, 0.0, 0.6 - 2 / 3], abs=1e-6)
    torch.testing.assert_close(quantized, torch.tensor([1.0, -1 / 3, 0.0, 1.0, -1.0, 2 / 3]))


def test_naive_leaves_at_most_a_sixth_after_its_first_layer() -> None:
    *_, residuals = RobustRFSQBlock(8, 7, conditioning="none").quantize(uniform(1000, 16))
    assert all(float(residual.abs().max()) <= 1 / 6 + 1e-6 for residual in residuals[1:])


# --- spread of the residuals -------------------------------------------------------------------------------------


@all_conditionings
def test_residual_std_matches_a_manual_computation(conditioning: Conditioning) -> None:
    model = used_model(conditioning, num_layers=4)
    x = uniform(50, ACTION_DIM)
    found = model.residual_std(x)
    with torch.no_grad():
        z = model.encoder(x)
    codes, stats = model.encode(x, return_stats=True)
    expected = [z.std()]
    for k in range(1, 5):
        decoded = model.rfsq.decode_from_indices(codes[..., :k], None if stats is None else stats[:, :k])
        expected.append((z - decoded).std())
    assert found.shape == (5,)
    assert torch.equal(found[0], z.std())
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-6)


# --- learned scale -----------------------------------------------------------------------------------------------


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


# --- frozen statistics -------------------------------------------------------------------------------------------


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


# --- bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["encode", "residual_std"])
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(4, 6), r"\(4, 6\) do not end in action_dim 7"),
        (torch.zeros(7, 1), r"\(7, 1\) do not end in action_dim 7"),
        (torch.tensor(0.5), r"\(\) do not end in action_dim 7"),
        (torch.full((4, 7), math.nan), "NaN or infinite"),
        (torch.tensor([0.0] * 6 + [math.inf]), "NaN or infinite"),
        (torch.tensor([0.0] * 6 + [-math.inf]), "NaN or infinite"),
    ],
)
def test_bad_actions_are_refused(method: str, x: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(used_model("scale"), method)(x)


def codes_holding(*values: int) -> Tensor:
    codes = torch.full((4, 6, 3), 2)
    codes.view(-1)[: len(values)] = torch.tensor(values)
    return codes


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (codes_holding().float(), "must be integers, not torch.float32"),
        (codes_holding().bool(), "must be integers, not torch.bool"),
        (codes_holding(5), "from 2 to 5; 5 levels allow 0 to 4"),
        (codes_holding(-1), "from -1 to 2; 5 levels allow 0 to 4"),
        (codes_holding(-3, 99), "from -3 to 99; 5 levels allow 0 to 4"),
        (torch.zeros(4, 6, 4, dtype=torch.long), r"\(4, 6, 4\) do not end in \(hidden_dim, 1 to 3 layers\)"),
        (torch.zeros(4, 6, 0, dtype=torch.long), r"\(4, 6, 0\) do not end in \(hidden_dim, 1 to 3 layers\)"),
        (torch.zeros(3, dtype=torch.long), r"\(3,\) do not end in \(hidden_dim, 1 to 3 layers\)"),
        (torch.zeros(4, 5, 3, dtype=torch.long), r"\(4, 5, 3\) hold 5 latents; the model has 6"),
    ],
)
def test_bad_codes_are_refused(codes: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        used_model("scale").decode_from_indices(codes)


BAD_ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    ({"num_levels": 1}, "num_levels is 1; .* at least 2"),
    ({"num_levels": 0}, "num_levels is 0; .* at least 2"),
    ({"conditioning": "batchnorm"}, "'batchnorm' is not one of none, layernorm, .*scale"),
    ({"conditioning": ""}, "'' is not one of none"),
]


@pytest.mark.parametrize("build", [RobustSTEQuantizer, RobustRFSQBlock, ActionRFSQAE])
@pytest.mark.parametrize(("arguments", "message"), BAD_ARGUMENTS)
def test_bad_arguments_are_refused(build: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**arguments)


@pytest.mark.parametrize("build", [RobustRFSQBlock, ActionRFSQAE])
@pytest.mark.parametrize("num_layers", [0, -1])
def test_a_stack_without_layers_is_refused(build: Any, num_layers: int) -> None:
    with pytest.raises(ValueError, match=f"num_layers is {num_layers}; .* at least 1"):
        build(num_layers=num_layers)


# --- the existing flag -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [RobustSTEQuantizer, RobustRFSQBlock, ActionRFSQAE])
def test_use_layernorm_chooses_the_conditioning(build: Any) -> None:
    assert build().conditioning == "layernorm"
    assert build(use_layernorm=True).conditioning == "layernorm"
    assert build(use_layernorm=False).conditioning == "none"


@all_conditionings
@pytest.mark.parametrize("build", [RobustSTEQuantizer, RobustRFSQBlock, ActionRFSQAE])
@pytest.mark.parametrize("use_layernorm", [False, True])
def test_conditioning_stands_over_the_flag(build: Any, use_layernorm: bool, conditioning: Conditioning) -> None:
    assert build(use_layernorm=use_layernorm, conditioning=conditioning).conditioning == conditioning


@all_conditionings
def test_config_builds_the_same_model_again(conditioning: Conditioning) -> None:
    model = used_model(conditioning)
    again = ActionRFSQAE(**model.config)
    assert again.config == model.config
    again.load_state_dict(model.state_dict())
    assert model.config["use_layernorm"] is (conditioning == "layernorm")


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


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_forward_refuses_what_is_not_a_number_outside_training(value: float) -> None:
    with pytest.raises(ValueError, match="NaN or infinite"):
        ActionRFSQAE().eval()(torch.full((2, 7), value))
