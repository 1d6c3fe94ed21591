"""Models that have been used, and what several of their tests need."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings, strategies as st
from torch import Tensor

from rfsq_robust import CONDITIONINGS, ActionRFSQAE, Conditioning, RobustRFSQBlock

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
