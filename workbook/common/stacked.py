"""Modules of the same shape as one, their weights along a leading model dimension: fewer and larger operations.

A stack computes for each model what that one computes alone. Gradients of the sum of their losses are each model's own.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

Module = TypeVar("Module", bound=nn.Module)

TRANSPOSED = "transposed"  # what weights of linear layers are named in a stack


class StackedLinear(nn.Module):
    """bias: (M, outputs), or None as in all layers.

    The weights lie as products and their gradients do, (M, inputs, outputs): else the optimizer copies them every step.
    """

    bias: nn.Parameter | None

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        biases = [layer.bias for layer in layers if layer.bias is not None]
        self.transposed = nn.Parameter(_joined([layer.weight.mT for layer in layers]))
        self.bias = nn.Parameter(_joined(biases)) if biases else None

    def forward(self, inputs: Tensor) -> Tensor:
        """(M, ..., inputs) -> (M, ..., outputs)"""
        rows = inputs.flatten(1, -2)
        if self.bias is None:
            found = torch.bmm(rows, self.transposed)
        else:
            found = torch.baddbmm(self.bias[:, None], rows, self.transposed)
        return found.unflatten(1, inputs.shape[1:-1])


class StackedLayerNorm(nn.Module):
    """Over the last dimension. weight, bias: (M, inputs)."""

    def __init__(self, layers: Sequence[nn.LayerNorm]) -> None:
        super().__init__()
        self.shape, self.eps = layers[0].normalized_shape, layers[0].eps
        self.weight = nn.Parameter(_joined([layer.weight for layer in layers]))
        self.bias = nn.Parameter(_joined([layer.bias for layer in layers]))

    def forward(self, inputs: Tensor) -> Tensor:
        """(M, ..., inputs) -> the same"""
        return _beside(self.weight, inputs) * layer_norm(inputs, self.shape, eps=self.eps) + _beside(self.bias, inputs)


def stacked(modules: Sequence[Module]) -> Module:
    """A copy of modules of the same shape whose weights, and inputs and outputs, have a leading model dimension.

    What a module computes besides its linear layers and layer norms is the first's, and has to hold for inputs with
    that dimension.

    Raises:
        TypeError: there are other weights than those of such layers.
    """
    first = modules[0]
    if isinstance(first, nn.Linear):
        return cast(Module, StackedLinear(cast(Sequence[nn.Linear], modules)))
    if isinstance(first, nn.LayerNorm):
        return cast(Module, StackedLayerNorm(cast(Sequence[nn.LayerNorm], modules)))
    if [*first.parameters(recurse=False), *first.buffers(recurse=False)]:
        raise TypeError(f"a {type(first).__name__} has weights of its own, which cannot be stacked")
    found = copy.copy(first)
    children = {name: stacked([module.get_submodule(name) for module in modules]) for name, _ in first.named_children()}
    found._modules = children  # type: ignore[assignment]
    return found


def states_of(stack: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """The state dict of each module, as views of the named tensors of their stack."""
    of_layers = {}
    for name, value in stack.items():
        of_linear = name.rpartition(".")[2] == TRANSPOSED
        of_layers[name.removesuffix(TRANSPOSED) + "weight" if of_linear else name] = value.mT if of_linear else value
    models = len(next(iter(of_layers.values())))
    return [{name: value[k] for name, value in of_layers.items()} for k in range(models)]


def _joined(parameters: Sequence[Tensor]) -> Tensor:
    return torch.stack([parameter.detach() for parameter in parameters])


def _beside(weights: Tensor, inputs: Tensor) -> Tensor:
    """(M, D) so that it meets inputs (M, ..., D)."""
    return weights.view(len(weights), *[1] * (inputs.dim() - 2), -1)
