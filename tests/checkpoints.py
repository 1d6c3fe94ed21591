"""Checkpoints to test with, of this code and of the existing Phase 1."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rfsq_robust import CONDITIONINGS, ActionRFSQAE, Checkpoint, Conditioning

torch.set_num_threads(1)

SIZES: dict[str, Any] = {"action_dim": 5, "hidden_dim": 6, "num_layers": 3, "num_levels": 4}
State = dict[str, Tensor]
all_conditionings = pytest.mark.parametrize("conditioning", CONDITIONINGS)


def used_model(conditioning: Conditioning) -> ActionRFSQAE:
    """A model in eval mode whose statistics and gains are not those it was made with."""
    torch.manual_seed(3)
    model = ActionRFSQAE(**SIZES, conditioning=conditioning).train()
    for _ in range(3):
        model(torch.rand(16, SIZES["action_dim"]))
    if conditioning == "learned_scale":
        with torch.no_grad():
            for layer in model.rfsq.quantizers:
                layer.log_gain.normal_()
    return model.eval()


def full_checkpoint(conditioning: Conditioning) -> Checkpoint:
    normalization = {"min": -torch.arange(1.0, 6.0), "max": torch.arange(2.0, 7.0)}
    provenance = {"seed": 3, "data": "sample", "versions": {"torch": "2"}, "files": ["a", "b"]}
    return Checkpoint(used_model(conditioning), 12, 0.25, normalization, provenance)


def phase1_state() -> State:
    """Weights as the existing Phase 1 names and shapes them."""
    torch.manual_seed(4)
    shapes = {"encoder.0": (64, 5), "encoder.2": (6, 64), "decoder.0": (64, 6), "decoder.2": (5, 64)}
    state: State = {}
    for name, shape in shapes.items():
        state[f"{name}.weight"] = torch.randn(shape) * 0.1
        state[f"{name}.bias"] = torch.randn(shape[0]) * 0.1
    for k in range(3):
        state[f"rfsq.layers.{k}.boundaries"] = torch.linspace(-1, 1, 4)
    return state


def state_with(**changes: Tensor) -> State:
    """`phase1_state` with some weights replaced; `__` in a name stands for a dot."""
    return {**phase1_state(), **{name.replace("__", "."): tensor for name, tensor in changes.items()}}


def state_without(prefix: str) -> State:
    return {name: tensor for name, tensor in phase1_state().items() if not name.startswith(prefix)}
