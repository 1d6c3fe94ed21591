"""The Mish activation, in a fraction of the time of torch's on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mish


class QuickMish(nn.Module):
    """x * tanh(softplus(x)), as nn.Mish within rounding, whose CPU kernels take half of a training step."""

    def forward(self, x: Tensor) -> Tensor:
        return _MishOnCPU.apply(x) if x.device.type == "cpu" else mish(x)


class _MishOnCPU(torch.autograd.Function):
    """With s = sigmoid(-x) and r = 1 / (1 + s^2): mish(x) = x (2 r - 1), for softplus(x) is -log s.

    Its derivative is 2 r - 1 + 4 x (1 - s) (s r)^2.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        s = torch.sigmoid(-x)
        r = (s * s).add_(1).reciprocal_()
        factor = torch.add(r, r).sub_(1)
        if ctx.needs_input_grad[0]:
            slope = r.mul_(s).square_().mul_(s.neg_().add_(1))
            ctx.save_for_backward(torch.addcmul(factor, x, slope, value=4))
        return factor.mul_(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * ctx.saved_tensors[0]
