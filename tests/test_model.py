"""Laws of the residual block and the autoencoder."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, strategies as st
from models import (
    ACTION_DIM,
    SHAPES,
    all_conditionings,
    decoding_conditionings,
    few_examples,
    seeds,
    uniform,
    unit_floats,
    used_model,
)
from torch import Tensor

from rfsq_robust import ActionRFSQAE, Conditioning, RobustRFSQBlock, RobustSTEQuantizer

# Decoding from the codes


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


@decoding_conditionings
@few_examples
@given(
    seed=seeds,
    num_layers=st.integers(1, 9),
    num_levels=st.integers(2, 9),
    block=st.integers(1, 200),
    most_sums=st.integers(1, 200),
)
def test_the_quick_ways_give_what_the_loop_over_the_layers_gives(
    conditioning: Conditioning, seed: int, num_layers: int, num_levels: int, block: int, most_sums: int
) -> None:
    """Bit for bit, whatever is worked out at once, and however the codes lie in memory."""
    rfsq = used_model(conditioning, seed, num_layers=num_layers, num_levels=num_levels).rfsq
    z = 1.2 * uniform(5, 6, seed=seed)
    quantized, codes, _, _ = rfsq.quantize(z)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rfsq_robust.BLOCK", block)
        patch.setattr("rfsq_robust.MOST_SUMS", most_sums)
        found = rfsq.to_codes(z)
        assert torch.equal(found.long(), codes)
        layer_by_layer = codes.movedim(-1, 0).contiguous().movedim(0, -1)
        for given_codes in (found, codes.contiguous(), layer_by_layer):
            assert torch.equal(rfsq.decode_from_indices(given_codes), quantized)


@pytest.mark.parametrize("num_levels", [256, 257, 300])
def test_more_levels_than_a_byte_holds(num_levels: int) -> None:
    block = RobustRFSQBlock(2, num_levels, conditioning="scale")
    z = uniform(50, 4)
    quantized, codes, _, _ = block.quantize(z)
    assert int(codes.max()) > 250
    assert torch.equal(block.to_codes(z).long(), codes)
    assert torch.equal(block.decode_from_indices(codes), quantized)


@all_conditionings
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_codes_come_in_the_integers_that_are_asked_for(conditioning: Conditioning, dtype: torch.dtype) -> None:
    model, x = used_model(conditioning), uniform(4, ACTION_DIM)
    codes = model.encode(x, dtype=dtype)
    assert codes.dtype == dtype
    assert torch.equal(codes.long(), model.encode(x))


@pytest.mark.parametrize(
    ("num_levels", "dtype", "words"),
    [
        (7, torch.float32, "integers"),
        (7, torch.bool, "integers"),
        (257, torch.uint8, "257 levels"),
        (130, torch.int8, "130 levels"),
    ],
)
def test_a_dtype_that_does_not_hold_the_codes_is_refused(num_levels: int, dtype: torch.dtype, words: str) -> None:
    model = ActionRFSQAE(num_levels=num_levels, conditioning="scale")
    with pytest.raises(ValueError, match=words):
        model.encode(uniform(4, ACTION_DIM), dtype=dtype)


# Statistics that layernorm needs


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


# Codes


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


# Prefixes of the layers


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


# Spread of the residuals


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


# The existing Phase 1, and its flag


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


# Bad input


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


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_forward_refuses_what_is_not_a_number_outside_training(value: float) -> None:
    with pytest.raises(ValueError, match="NaN or infinite"):
        ActionRFSQAE().eval()(torch.full((2, 7), value))
