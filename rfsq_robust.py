"""Residual Finite Scalar Quantization (RFSQ) of robot actions: quantizer, block, autoencoder, checkpoint.

This one file needs torch alone, so that it can be copied into a policy (Phase 2) or a robot (Phase 3).

Symbols and shapes
    A  action_dim     numbers in one action (7: position 3, rotation 3, gripper 1)
    H  hidden_dim     latent scalars of one action (16)
    K  num_layers     residual layers (8)
    L  num_levels     grid values of one scalar in one layer (7), evenly spaced on [-1, 1]
    x      (..., A)     normalised actions, in [-1, 1]
    z      (..., H)     latent, in (-1, 1) because the encoder ends in tanh
    codes  (..., H, K)  integers in [0, L); codes[..., k] belongs to layer k
    stats  (..., K, 2)  mean and std of each latent vector in each layer (`layernorm` only)

Layer k quantizes the residual that layers 0..k-1 left over. `conditioning` names what is done to a
residual before it meets the grid, as (residual - shift) / scale, and is undone after it:

    none              nothing: the naive RFSQ
    layernorm         mean and std of each vector over H. The decoder cannot know them: tokens alone do
                      not decode; `encode(..., return_stats=True)` gives what would have to be sent too
    frozen_layernorm  mean and std of each layer, running in training, constants afterwards
    learned_scale     one learned positive scale for each layer
    scale             the width that the layer before leaves over, (L-1)^-k. No parameters, decodes
                      exactly, and every prefix of layers is a valid decode: the deployable default

All of it computes in float32 and gives float32, whatever the dtype of the input and of the weights and also under
autocast, for the codes of the fine layers need every bit. What follows from L and k is no state of a module, so that
initialising on the meta device, sharding and casting cannot spoil it.

Sources: RFSQ, arXiv 2508.15860; FSQ, arXiv 2309.15505; gradient of a learned scale as in LSQ, arXiv 1902.08153.
"""

from __future__ import annotations

import ctypes
import functools
import io
import math
import os
import pickle
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, overload

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

Conditioning = Literal["none", "layernorm", "frozen_layernorm", "learned_scale", "scale"]
CONDITIONINGS: tuple[Conditioning, ...] = (
    "none",
    "layernorm",
    "frozen_layernorm",
    "learned_scale",
    "scale",
)

ENCODER_WIDTH = 64  # width of the hidden layer of encoder and decoder in the existing checkpoints
STD_EPSILON = 1e-5  # added to a standard deviation before dividing by it, as the existing code does
STATISTICS_MOMENTUM = 0.01  # weight of a new batch in the running statistics of `frozen_layernorm`
BLOCK = 65_536  # scalars that all layers are worked out for before the next ones, so that a CPU finds them in its cache
MOST_SUMS = 2**15  # of the first layers together, that are looked up at once; they stay in the cache, too

UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)  # of which torch finds no least and greatest

Number = TypeVar("Number", int, float)
ShiftAndScale = tuple[Tensor | None, Tensor | None]


def grid_values(num_levels: int) -> tuple[float, ...]:
    """L evenly spaced values on [-1, 1]; in float32 they are torch.linspace's, which the checkpoints were trained with.

    From both ends by the step in float32 and rounded once, as its kernels with fused multiply-add do, on every device.
    """
    step = ctypes.c_float(2 / (num_levels - 1)).value
    half = num_levels // 2
    below = [step * index - 1 for index in range(half)]
    return *below, *(1 - step * (num_levels - 1 - index) for index in range(half, num_levels))


def constant(values: float | tuple[float, ...], like: Tensor, scale: float = 1.0) -> Tensor:
    """Numbers times a scale, each rounded to float32, on the device of `like`.

    Made once where nothing traces: each would cost a copy to a GPU.
    """
    if type(like) is Tensor and not torch.compiler.is_compiling():
        return _kept_constant(values, scale, like.device)
    return _float32(values, like.device) * _float32(scale, like.device)


@functools.cache
def _kept_constant(values: float | tuple[float, ...], scale: float, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # else it could take no part in a gradient later
        return _float32(values, device) * _float32(scale, device)


def _float32(values: float | tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device)


class Float32Linear(nn.Linear):
    """nn.Linear in float32: the input and the weights are cast up, and autocast is off."""

    def forward(self, x: Tensor) -> Tensor:
        if not x.is_meta and torch.is_autocast_enabled(x.device.type):  # the meta device has no autocast to ask for
            with torch.autocast(x.device.type, enabled=False):
                return self.forward(x)
        return linear(x.float(), self.weight.float(), self.bias.float())


def straight_through(z: Tensor, quantized: Tensor) -> Tensor:
    """Give `quantized` in the forward pass and the gradient of `z` in the backward pass.

    Written as `quantized + (z - z)`, because the usual `z + (quantized - z)` is off by a rounding
    error, and what the decoder sees in training would then not be what it sees from tokens.
    """
    return quantized + (z - z.detach())


class RobustSTEQuantizer(nn.Module):
    """One residual layer: conditioning, the nearest value of the grid, conditioning undone.

    Args:
        num_levels: L, grid values evenly spaced on [-1, 1]; at least 2.
        use_layernorm: the existing flag: True is `layernorm`, False is `none`.
        conditioning: one of `CONDITIONINGS`; where given it stands over `use_layernorm`.
        layer: k, the position of this layer in the stack; sets the scale of `scale`.
    """

    boundaries: Tensor
    running_mean: Tensor
    running_std: Tensor
    batches_seen: Tensor

    def __init__(
        self,
        num_levels: int = 7,
        use_layernorm: bool = True,
        conditioning: Conditioning | None = None,
        layer: int = 0,
    ) -> None:
        super().__init__()
        if num_levels < 2:
            raise ValueError(f"num_levels is {num_levels}; a grid needs at least 2 levels")
        self.num_levels = num_levels
        self.grid = grid_values(num_levels)
        self.offset = (num_levels - 2) / 2
        self.geometric_scale = float(num_levels - 1) ** -layer
        self.conditioning = resolve_conditioning(use_layernorm, conditioning)
        # For the state dict, which has it in the existing checkpoints; nothing is computed from it.
        self.register_buffer("boundaries", torch.tensor(self.grid))
        if self.conditioning == "frozen_layernorm":
            self.register_buffer("running_mean", torch.zeros(()))
            self.register_buffer("running_std", torch.ones(()))
            self.register_buffer("batches_seen", torch.zeros((), dtype=torch.long))
        if self.conditioning == "learned_scale":
            # Starts at the geometric scale, to which weight decay pulls back; the logarithm keeps it positive.
            self.log_gain = nn.Parameter(torch.zeros(()))

    def shift_and_scale(self, residual: Tensor, update: bool = False) -> ShiftAndScale:
        """What is subtracted from, and then divides, a residual of shape (..., H); None leaves it as it is.

        With `update` the running statistics of `frozen_layernorm` take this residual in first.
        """
        if self.conditioning == "layernorm":
            mean = residual.mean(dim=-1, keepdim=True)
            return mean, sample_std(residual - mean, dim=-1) + STD_EPSILON
        if self.conditioning == "frozen_layernorm" and update:
            self._update_running_statistics(residual)
        return self.constants()

    def constants(self) -> ShiftAndScale:
        """Shift and scale of a layer that does not depend on its input: all but `layernorm`."""
        if self.conditioning == "frozen_layernorm":
            return self.running_mean.float(), self.running_std.float() + STD_EPSILON
        if self.conditioning == "learned_scale":
            return None, self.learned_scale().detach()
        if self.conditioning == "scale":
            return None, constant(self.geometric_scale, self.boundaries)
        return None, None

    def learned_scale(self) -> Tensor:
        return constant(self.geometric_scale, self.boundaries) * self.log_gain.float().exp()

    @torch.no_grad()
    def _update_running_statistics(self, residual: Tensor) -> None:
        if residual.numel() < 2:
            return
        self.batches_seen += 1
        # A plain average of the first batches, so that the start value leaves no trace.
        weight = max(1 / int(self.batches_seen), STATISTICS_MOMENTUM)
        mean = residual.mean()
        std = sample_std((residual - mean).reshape(-1), dim=-1).view(())
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), weight)
        self.running_std.lerp_(std.to(self.running_std.dtype), weight)

    def to_indices(self, residual: Tensor, shift: Tensor | None, scale: Tensor | None) -> Tensor:
        """Nearest grid value of (residual - shift) / scale: ties go to the lower index, values outside to the ends.

        Shapes: (..., H) -> (..., H), integers in [0, L) as floating point, which is quicker to work on.
        """
        normalised = residual if shift is None else residual - shift
        normalised = normalised if scale is None else normalised / scale
        # Grid steps above -1, less one half; rounding up then rounds to the nearest with ties down.
        steps = torch.add(constant(self.offset, residual), normalised, alpha=(self.num_levels - 1) / 2)
        return steps.ceil_().clamp_(0, self.num_levels - 1)

    def to_values(self, indices: Tensor, shift: Tensor | None, scale: Tensor | None) -> Tensor:
        """Inverse of `to_indices` up to the grid: (..., H) -> (..., H)."""
        grid = constant(self.grid, indices)
        values = grid.index_select(0, indices.int().flatten()).view(indices.shape)
        values = values if scale is None else values * scale
        return values if shift is None else values + shift

    def values(self) -> Tensor:
        """What each index stands for: (L,). Not of `layernorm`, where it differs from vector to vector."""
        if self.conditioning in ("none", "scale"):
            scale = self.geometric_scale if self.conditioning == "scale" else 1.0
            return constant(self.grid, self.boundaries, scale)
        return self.to_values(torch.arange(self.num_levels, device=self.boundaries.device), *self.constants())

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """(..., H) -> quantized (..., H) with a straight-through gradient, and indices (..., H).

        A learned scale gets its gradient from the block, which knows what later layers make of a change.
        """
        z = z.float()
        with torch.no_grad():
            shift, scale = self.shift_and_scale(z, update=self.training)
            indices = self.to_indices(z, shift, scale)
            quantized = self.to_values(indices, shift, scale)
        return straight_through(z, quantized), indices.long()


def sample_std(centred: Tensor, dim: int) -> Tensor:
    """Std of values whose mean is 0, with Bessel's correction: Tensor.std's result in a quarter of its CPU time."""
    norm = torch.linalg.vector_norm(centred, dim=dim, keepdim=True)
    return norm / math.sqrt(max(centred.shape[dim] - 1, 1))


def resolve_conditioning(use_layernorm: bool, conditioning: str | None) -> Conditioning:
    """The conditioning meant by the existing flag and the newer name; the name stands over the flag."""
    if conditioning is None:
        return "layernorm" if use_layernorm else "none"
    for known in CONDITIONINGS:
        if conditioning == known:
            return known
    raise ValueError(f"conditioning {conditioning!r} is not one of {', '.join(CONDITIONINGS)}")


class RobustRFSQBlock(nn.Module):
    """K residual layers; d(output)/d(input) is 1 for every K and every conditioning.

    Args:
        num_layers: K, at least 1.
        num_levels, use_layernorm, conditioning: as in `RobustSTEQuantizer`.
    """

    def __init__(
        self,
        num_layers: int = 8,
        num_levels: int = 7,
        use_layernorm: bool = True,
        conditioning: Conditioning | None = None,
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"num_layers is {num_layers}; a block needs at least 1 layer")
        self.num_layers = num_layers
        self.num_levels = num_levels
        self.conditioning = resolve_conditioning(use_layernorm, conditioning)
        self.layers = nn.ModuleList(
            RobustSTEQuantizer(num_levels, conditioning=self.conditioning, layer=k) for k in range(num_layers)
        )

    @property
    def quantizers(self) -> list[RobustSTEQuantizer]:
        """The layers, in order, with their type."""
        return cast("list[RobustSTEQuantizer]", list(self.layers))

    @property
    def _code_dtype(self) -> torch.dtype:
        return torch.uint8 if self.num_levels <= 256 else torch.int32

    @torch.no_grad()
    def quantize(self, z: Tensor, update: bool = False) -> tuple[Tensor, Tensor, Tensor | None, list[Tensor]]:
        """One pass over the layers; `update` as in `RobustSTEQuantizer.shift_and_scale`.

        Returns:
            quantized (..., H), codes (..., H, K), stats (..., K, 2) or None, and the K+1 residuals
            (..., H): the one that enters each layer and the one that the last layer leaves.
        """
        quantized, codes, stats, residuals = self.run_layers(z, update)
        stacked = torch.stack(stats, dim=-2) if stats else None
        return quantized, torch.stack(codes).movedim(0, -1).long(), stacked, residuals

    @torch.no_grad()
    def run_layers(self, z: Tensor, update: bool) -> tuple[Tensor, list[Tensor], list[Tensor], list[Tensor]]:
        """What `quantize` gives, with indices (..., H) and stats (..., 2) as lists of the layers."""
        residuals = [z.float()]
        codes: list[Tensor] = []
        stats: list[Tensor] = []
        quantized = torch.zeros_like(residuals[0])
        for layer in self.quantizers:
            shift, scale = layer.shift_and_scale(residuals[-1], update)
            indices = layer.to_indices(residuals[-1], shift, scale)
            values = layer.to_values(indices, shift, scale)
            quantized = quantized + values
            residuals.append(residuals[-1] - values)
            codes.append(indices)
            if self.conditioning == "layernorm" and shift is not None and scale is not None:
                stats.append(torch.cat([shift, scale], dim=-1))
        return quantized, codes, stats, residuals

    @torch.no_grad()
    def to_codes(self, z: Tensor) -> Tensor:
        """The codes of `quantize`, (..., H) -> (..., H, K), in the smallest integers that hold them, and quicker.

        Not of `layernorm`, whose statistics are those of whole vectors.
        """
        flat = z.float().flatten()
        codes = torch.empty(flat.numel(), self.num_layers, dtype=self._code_dtype, device=z.device)
        layers = [(layer, layer.constants(), layer.values()) for layer in self.quantizers]
        for residual, found in zip(_blocks(flat), _blocks(codes), strict=True):
            for k, (layer, constants, values) in enumerate(layers):
                indices = layer.to_indices(residual, *constants)
                found[:, k] = indices
                if k + 1 < self.num_layers:
                    residual = residual - values.index_select(0, indices.int())
        return codes.view(*z.shape, self.num_layers)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """(..., H) -> quantized (..., H) with a straight-through gradient, and codes (..., H, K).

        One straight-through step around the whole stack equals one around each layer with the residual
        not detached: each layer then passes a gradient of 1 and leaves 0 to the residual after it.
        """
        z = z.float()
        quantized, codes, _, residuals = self.quantize(z.detach(), update=self.training)
        return self.with_gradient(z, quantized, residuals), codes

    def with_gradient(self, z: Tensor, quantized: Tensor, residuals: list[Tensor]) -> Tensor:
        """What `quantize` made of z, with the gradient of `forward`: (..., H)."""
        out = straight_through(z, quantized)
        if self.conditioning == "learned_scale" and torch.is_grad_enabled():
            steering = self._scale_gradient(residuals)
            out = out + (steering - steering.detach())
        return out

    def _scale_gradient(self, residuals: list[Tensor]) -> Tensor:
        """A sum whose derivative by each scale is that of the output, clipping included.

        What a layer leaves, the next takes up, so a change of scale k reaches the output only where every later
        layer clips: d(out)/d(scale k) = (q_k - u_k [|u_k| <= 1]) * prod over j > k of [|u_j| > 1], with
        u = residual / scale and q its grid value. At the geometric scale nothing clips and little is left to learn.
        """
        total = torch.zeros_like(residuals[0])
        reaches = torch.ones_like(residuals[0], dtype=torch.bool)  # where every later layer clips
        for k, layer in reversed(list(enumerate(self.quantizers))):
            scale = layer.learned_scale()
            u = residuals[k] / scale.detach()
            clips = u.abs() > 1
            q = u - residuals[k + 1] / scale.detach()
            total = total + scale * ((q - u.masked_fill(clips, 0)) * reaches)
            reaches = reaches & clips
            # Saves time on a CPU; elsewhere it would be waited for, and it would break a graph in two.
            if reaches.device.type == "cpu" and not torch.compiler.is_compiling() and not reaches.any():
                break
        return total

    def decode_from_indices(self, codes: Tensor, stats: Tensor | None = None) -> Tensor:
        """Sum of the layers' values: codes (..., H, k) of the first k <= K layers -> latent (..., H).

        Args:
            codes: integers in [0, L); pass `codes[..., :k]` to decode a prefix.
            stats: (..., k, 2) from `encode(..., return_stats=True)`; needed by `layernorm`, refused by the rest.

        Raises:
            ValueError: codes of the wrong type, range or shape; statistics missing or not wanted.
        """
        self._check_codes(codes)
        self._check_stats(codes, stats)
        if stats is None:
            if not codes.is_contiguous():  # as a policy's heads give them, layer by layer
                codes = codes.to(self._code_dtype)
            return self._looked_up(codes.flatten(0, -2)).view(codes.shape[:-1])
        latent = torch.zeros(codes.shape[:-1], device=codes.device, dtype=torch.float32)
        for k, layer in enumerate(self.quantizers[: codes.shape[-1]]):
            latent = latent + layer.to_values(codes[..., k], stats[..., k, 0:1], stats[..., k, 1:2])
        return latent

    def _looked_up(self, codes: Tensor) -> Tensor:
        """Sum over the layers, first to last as `quantize` adds them, of what the codes (N, k) stand for: (N,).

        The sums of the first layers' values are few enough to be worked out once.
        """
        first, *values = [layer.values() for layer in self.quantizers[: codes.shape[-1]]]
        sums, taken = first + 0.0, 1  # as `quantize` starts from 0
        while values and len(sums) * self.num_levels <= min(MOST_SUMS, len(codes)):
            sums, taken = (sums[:, None] + values.pop(0)).flatten(), taken + 1
        found = torch.empty(len(codes), dtype=torch.float32, device=codes.device)
        for part, total in zip(_blocks(codes), _blocks(found), strict=True):
            small = part.int()
            index = small[:, 0]
            for k in range(1, taken):
                index = torch.add(small[:, k], index, alpha=self.num_levels)
            total.copy_(sums.index_select(0, index))
            for k, of_layer in enumerate(values, start=taken):
                total += of_layer.index_select(0, small[:, k])
        return found

    def _check_codes(self, codes: Tensor) -> None:
        if codes.is_floating_point() or codes.is_complex() or codes.dtype == torch.bool:
            raise ValueError(f"codes must be integers, not {codes.dtype}")
        if codes.ndim < 2 or not 1 <= codes.shape[-1] <= self.num_layers:
            raise ValueError(
                f"codes of shape {tuple(codes.shape)} do not end in (hidden_dim, 1 to {self.num_layers} layers)"
            )
        if not codes.numel():
            return
        in_memory = codes.permute(*sorted(range(codes.ndim), key=codes.stride, reverse=True))  # far quicker to run over
        numbers = in_memory.long() if codes.dtype in UNSIGNED else in_memory
        least, greatest = (int(end) for end in torch.aminmax(numbers))
        if least < 0 or greatest >= self.num_levels:
            raise ValueError(
                f"codes hold values from {least} to {greatest}; "
                f"{self.num_levels} levels allow 0 to {self.num_levels - 1}"
            )

    def _check_stats(self, codes: Tensor, stats: Tensor | None) -> None:
        if self.conditioning != "layernorm":
            if stats is not None:
                raise ValueError(f"conditioning '{self.conditioning}' decodes from the codes alone; pass no stats")
            return
        if stats is None:
            raise ValueError(
                "codes of conditioning 'layernorm' cannot be decoded alone: each was made with the mean and std "
                "of its own vector, which only the encoder has. Pass the stats of encode(..., return_stats=True) "
                "and count their bits, or train with conditioning='scale', which decodes exactly"
            )
        expected = (*codes.shape[:-2], codes.shape[-1], 2)
        if tuple(stats.shape) != expected:
            raise ValueError(f"stats of shape {tuple(stats.shape)} do not fit these codes, which need {expected}")


def _blocks(values: Tensor) -> Sequence[Tensor]:
    """Views of (N, ...) that a CPU's cache holds; elsewhere, and in a compiled graph, all at once."""
    whole = values.device.type != "cpu" or torch.compiler.is_compiling()
    return values.split(max(len(values), 1) if whole else BLOCK)


class ActionRFSQAE(nn.Module):
    """Autoencoder of single actions with an RFSQ bottleneck.

    Args:
        action_dim, hidden_dim, num_layers, num_levels: A, H, K, L.
        use_layernorm: the existing flag: True is conditioning `layernorm`, False is `none`.
        conditioning: one of `CONDITIONINGS`; where given it stands over `use_layernorm`.
    """

    def __init__(
        self,
        action_dim: int = 7,
        hidden_dim: int = 16,
        num_layers: int = 8,
        num_levels: int = 7,
        use_layernorm: bool = True,
        conditioning: Conditioning | None = None,
    ) -> None:
        super().__init__()
        self.action_dim = action_dim
        self.hidden_dim = hidden_dim
        self.encoder = nn.Sequential(
            Float32Linear(action_dim, ENCODER_WIDTH), nn.Mish(), Float32Linear(ENCODER_WIDTH, hidden_dim), nn.Tanh()
        )
        self.rfsq = RobustRFSQBlock(num_layers, num_levels, use_layernorm, conditioning)
        self.conditioning: Conditioning = self.rfsq.conditioning  # as a property it breaks completion in notebooks
        self.decoder = nn.Sequential(
            Float32Linear(hidden_dim, ENCODER_WIDTH), nn.Mish(), Float32Linear(ENCODER_WIDTH, action_dim)
        )

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def config(self) -> dict[str, Any]:
        """The arguments that build this model again, as they are stored in a checkpoint."""
        return {
            "use_layernorm": self.conditioning == "layernorm",
            "conditioning": self.conditioning,
            "action_dim": self.action_dim,
            "hidden_dim": self.hidden_dim,
            "num_layers": self.rfsq.num_layers,
            "num_levels": self.rfsq.num_levels,
        }

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised actions (..., A) -> reconstruction (..., A) and codes (..., H, K).

        Raises:
            ValueError: as `encode`; not looked for in training, where the check would cost time.
        """
        if not self.training:
            self._check_actions(x)
        quantized, codes = self.rfsq(self.encoder(x))
        return self.decoder(quantized), codes

    @overload
    def encode(self, x: Tensor, return_stats: Literal[False] = False, dtype: torch.dtype = ...) -> Tensor: ...

    @overload
    def encode(
        self, x: Tensor, return_stats: Literal[True], dtype: torch.dtype = ...
    ) -> tuple[Tensor, Tensor | None]: ...

    @torch.no_grad()
    def encode(
        self, x: Tensor, return_stats: bool = False, dtype: torch.dtype = torch.int64
    ) -> Tensor | tuple[Tensor, Tensor | None]:
        """Normalised actions (..., A) -> codes (..., H, K), and with `return_stats` also stats or None.

        dtype: of the codes; torch.uint8 holds up to 256 levels in an eighth of the memory, and is quicker.

        Raises:
            ValueError: the last axis is not A, a value is NaN or infinite, or dtype does not hold L.
        """
        self._check_actions(x)
        if dtype.is_floating_point or dtype.is_complex or dtype == torch.bool:
            raise ValueError(f"codes are integers, and dtype is {dtype}")
        if torch.iinfo(dtype).max < self.rfsq.num_levels - 1:
            raise ValueError(f"{dtype} does not hold {self.rfsq.num_levels} levels")
        latent, stats = self.encoder(x), None
        if self.conditioning == "layernorm":
            _, codes, stats, _ = self.rfsq.quantize(latent)
        else:
            codes = self.rfsq.to_codes(latent)
        codes = codes.to(dtype).contiguous()
        return (codes, stats) if return_stats else codes

    @torch.no_grad()
    def decode_from_indices(self, codes: Tensor, stats: Tensor | None = None) -> Tensor:
        """Codes (..., H, k) of the first k <= K layers -> normalised actions (..., A).

        With all K layers this is bit for bit what `forward` gives.

        Raises:
            ValueError: as `RobustRFSQBlock.decode_from_indices`, or codes of another hidden_dim.
        """
        if codes.ndim >= 2 and codes.shape[-2] != self.hidden_dim:
            raise ValueError(
                f"codes of shape {tuple(codes.shape)} hold {codes.shape[-2]} latents; the model has {self.hidden_dim}"
            )
        return self.decoder(self.rfsq.decode_from_indices(codes, stats))

    @torch.no_grad()
    def residual_std(self, x: Tensor) -> Tensor:
        """Std of the residual that enters each layer, and of what the last one leaves: (..., A) -> (K+1,)."""
        self._check_actions(x)
        *_, residuals = self.rfsq.quantize(self.encoder(x))
        return torch.stack([residual.std() for residual in residuals])

    def _check_actions(self, x: Tensor) -> None:
        if x.ndim < 1 or x.shape[-1] != self.action_dim:
            raise ValueError(f"actions of shape {tuple(x.shape)} do not end in action_dim {self.action_dim}")
        if not torch.isfinite(x).all():
            raise ValueError("actions hold NaN or infinite values; fix them before encoding")


# What may lie beside bare weights; the last is of AveragedModel.
METADATA = ("epoch", "mse", "config", "normalization", "provenance", "n_averaged")
KEYS = ("model", "model_state_dict", "state_dict")  # where weights lie; before others in this order
FLAGS = ("use_layernorm", "conditioning")
NAMES = ("encoder.0.weight", "rfsq.layers.0.boundaries")  # that tell an autoencoder
# Parts of names that torch puts there: DataParallel and DDP, torch.compile, FSDP, activation checkpointing.
WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
AVERAGES = frozenset({"ema", "swa", "shadow", "average", "averaged", "avg"})  # words for averaged weights
SHOWN = 4  # names, of those that were found


class CheckpointError(ValueError):
    """A file that is not a usable checkpoint; the message is one sentence for the user."""


@dataclass(frozen=True, repr=False)
class Checkpoint:
    """What a checkpoint file holds.

    `normalization` is {'min': (A,), 'max': (A,)} in raw units, mapped to [-1, 1], or None where the file has none.
    """

    model: ActionRFSQAE
    epoch: int | None = None
    mse: float | None = None
    normalization: dict[str, Tensor] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        layers, levels = self.model.config["num_layers"], self.model.config["num_levels"]
        return f"Checkpoint('{self.model.conditioning}', {layers} layers of {levels} levels, epoch {self.epoch})"

    def normalise(self, actions: Tensor) -> Tensor:
        """Raw actions (..., A) -> what `encode` takes: the train range mapped to [-1, 1], float32 on the same device.

        Raises:
            ValueError: the checkpoint carries no normaliser.
        """
        wide = _to_double(actions)
        centre, half_width = self._centre_and_half_width(wide.device)
        return ((wide - centre) / half_width).float().to(actions.device)

    def denormalise(self, normalised: Tensor) -> Tensor:
        """Inverse of `normalise`: what `decode_from_indices` gives -> raw actions (..., A), float32."""
        wide = _to_double(normalised)
        centre, half_width = self._centre_and_half_width(wide.device)
        return (wide * half_width + centre).float().to(normalised.device)

    def _centre_and_half_width(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if self.normalization is None:
            raise ValueError("this checkpoint carries no normaliser; use the one of its training data")
        low, high = (_to_double(self.normalization[name]).to(device) for name in ("min", "max"))
        half_width = (high - low) / 2
        # A dimension that never moved is only shifted to 0.
        return (high + low) / 2, torch.where(half_width > 0, half_width, torch.ones_like(half_width))


def _to_double(values: Tensor) -> Tensor:
    """In float64, which the codes of the fine layers ask for: on the CPU where the device has none, as Apple's MPS."""
    try:
        return values.double()
    except (TypeError, RuntimeError):
        return values.cpu().double()


def save_checkpoint(path: str | os.PathLike[str], checkpoint: Checkpoint) -> None:
    """Write the existing format, {'model', 'epoch', 'mse', 'config'}, plus 'normalization' and 'provenance'.

    Written under a temporary name and renamed, so that an interrupted save leaves no broken file.

    Raises:
        ValueError: something in the checkpoint is not a tensor or a plain value, so that it would not load again.
    """
    path = Path(path)
    content = {
        "model": {name: tensor.detach().cpu() for name, tensor in checkpoint.model.state_dict().items()},
        "epoch": checkpoint.epoch,
        "mse": checkpoint.mse,
        "config": checkpoint.model.config,
        "normalization": checkpoint.normalization,
        "provenance": checkpoint.provenance,
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    try:
        torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(
            f"{path}: not written, for it would not load: epoch, mse, normalization and provenance must be plain values"
        ) from None
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(buffer.getvalue())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(path: str | os.PathLike[str], map_location: str = "cpu") -> Checkpoint:
    """Load a checkpoint of this file or of the existing Phase 1; nothing in it is ever executed.

    Accepts {'model': ...}, {'model_state_dict': ...}, {'state_dict': ...}, another key or a bare state dict, with or
    without 'config'. Sizes that the config does not name are read off the weights. Without a `use_layernorm` flag,
    there or in Lightning's 'hyper_parameters', the model is naive, as the existing Phase 1 was before it had the flag.

    Names may carry what DataParallel, torch.compile and FSDP put into them, and the name of the attribute that holds
    the autoencoder. Where weights and averages of them (EMA, SWA) are there the weights are taken, not the averages;
    where two are left, of a student and a teacher say, none. Weights of any precision become float32.

    Raises:
        CheckpointError: no such file, not a checkpoint, or shapes that disagree with the config.
    """
    return checkpoint_of(_read_plain(Path(path)), path, map_location)


def checkpoint_of(content: Mapping[str, Any], path: str | os.PathLike[str], map_location: str = "cpu") -> Checkpoint:
    """The checkpoint that a file of any format holds. path: the file, for messages.

    Raises:
        CheckpointError: as `load_checkpoint`.
    """
    path = Path(path)
    state = _find_state_dict(path, content)
    hyper_parameters = _mapping(path, content, "hyper_parameters")  # those of Lightning, of the whole that it trains
    flags = {name: hyper_parameters[name] for name in FLAGS if name in hyper_parameters}
    model = ActionRFSQAE(**_complete_config(path, state, {**flags, **_mapping(path, content, "config")}))
    _load_strictly(path, model, state)
    model.to(map_location).eval()
    return Checkpoint(
        model,
        epoch=_read_number(path, content, "epoch", int),
        mse=_read_number(path, content, "mse", float),
        normalization=read_normalization(path, _mapping(path, content, "normalization"), model.action_dim),
        provenance=dict(_mapping(path, content, "provenance")),
    )


def load_plain(path: Path) -> Any:
    """What torch.save wrote, of tensors, plain values and numpy's arrays and numbers; no code is ever run.

    Raises:
        pickle.UnpicklingError: it holds something else; and what else torch.load raises.
    """
    with warnings.catch_warnings(), torch.serialization.safe_globals(_numpy_globals()):
        warnings.simplefilter("ignore")  # numpy warns of what older versions of it wrote
        return torch.load(path, map_location="cpu", weights_only=True)


def _numpy_globals() -> list[Any]:
    """What arrays and numbers of numpy are made of, under the names that numpy 1 and 2 write."""
    try:
        import numpy as np
    except ImportError:  # then torch.load reads none of them
        return []
    functions = {"_reconstruct": np.zeros(0).__reduce__()[0], "scalar": np.float64(0).__reduce__()[0]}
    modules = ("numpy.core.multiarray", "numpy._core.multiarray")
    named = [(function, f"{module}.{name}") for name, function in functions.items() for module in modules]
    kinds = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "U")
    return [*named, np.ndarray, np.dtype, *(type(np.dtype(kind)) for kind in kinds)]


def refused_object(error: pickle.UnpicklingError) -> str | None:
    """The class or function that torch refused to import from a file; None where the file is damaged or none."""
    ways = r"GLOBAL (\S+)|add_safe_globals`,? but got <class '(\S+)'>|``(torch\.distributed\.tensor)``"
    found = re.search(ways, str(error))
    return found and found[found.lastindex or 0]


def _read_plain(path: Path) -> Mapping[str, Any]:
    try:
        content = load_plain(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint file") from None
    except (PermissionError, IsADirectoryError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    except pickle.UnpicklingError as error:
        if name := refused_object(error):
            raise CheckpointError(
                f"{path}: holds Python objects other than tensors and plain values ({name}), which are never loaded "
                "here; save it again as torch.save({'model': model.state_dict(), ...}) with plain numbers"
            ) from None
        raise CheckpointError(f"{path}: not a PyTorch checkpoint") from None
    except Exception:  # torch.load has no error class of its own for files it cannot read
        raise CheckpointError(f"{path}: not a PyTorch checkpoint, or cut short") from None
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, not a dictionary of weights")
    return content


def _mapping(path: Path, content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """What stands under `key`, or nothing where there is no such key."""
    value = content.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise CheckpointError(f"{path}: '{key}' is a {type(value).__name__}, not a dictionary")
    return value


@dataclass(frozen=True)
class _Found:
    """An autoencoder's weights in a file, by their names in `ActionRFSQAE`. place: keys and attributes on the way."""

    place: tuple[str, ...]
    averages: int
    state: dict[str, Tensor]

    @property
    def rank(self) -> tuple[int, int]:
        """The least is taken: what is no average first, then by the key."""
        key = self.place[0] if self.place else ""
        return self.averages, KEYS.index(key) if key in KEYS else len(KEYS)


def _find_state_dict(path: Path, content: Mapping[str, Any]) -> dict[str, Tensor]:
    inner = {str(key): value for key, value in content.items() if isinstance(value, Mapping)}
    found = [
        *_autoencoders((), content),
        *(each for key, value in inner.items() for each in _autoencoders((key,), value)),
    ]
    if not found:
        names = [str(name) for each in (*inner.values(), content) for name in each if name not in inner]
        shown = ", ".join(" ".join(name.split())[:60] for name in names[:SHOWN]) or "nothing"
        raise CheckpointError(
            f"{path}: holds no action autoencoder, for weights named {', '.join(NAMES)}, ... are missing; found {shown}"
            + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
        )
    best = min(each.rank for each in found)
    first, *others = (each for each in found if each.rank == best)
    if others:
        places = ", ".join(".".join(each.place) or "the top level" for each in (first, *others))
        raise CheckpointError(
            f"{path}: holds several action autoencoders ({places}); save the state_dict() of one of them as 'model'"
        )
    if not all(torch.isfinite(value).all() for value in first.state.values()):
        raise CheckpointError(f"{path}: holds weights that are NaN or infinite; take an earlier epoch")
    return first.state


def _autoencoders(place: tuple[str, ...], content: Mapping[str, Any]) -> Iterator[_Found]:
    """Those whose weights lie in a dictionary, each under the attribute that holds it."""
    tensors = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    plain = {".".join(part for part in name.split(".") if part not in WRAPPERS): name for name in tensors}
    if len(plain) < len(tensors):  # the same weights with and without wrappers: then they are two
        plain = {name: name for name in tensors}
    for name in plain:
        prefix = name.removesuffix(NAMES[0])
        if name != prefix + NAMES[0] or prefix[-1:] not in ("", ".") or prefix + NAMES[1] not in plain:
            continue
        below = {full.removeprefix(prefix): tensors[plain[full]] for full in plain if full.startswith(prefix)}
        state = {inner: tensor for inner, tensor in below.items() if inner not in METADATA}
        where = (*place, *prefix.split(".")[:-1])
        averages = sum(not AVERAGES.isdisjoint(part.lower().split("_")) for part in where)
        yield _Found(where, averages + ("n_averaged" in below), state)


def _complete_config(path: Path, state: Mapping[str, Tensor], given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of the model: sizes from the weights, with which the config must agree, and the conditioning."""
    try:
        layers = {int(name.split(".")[2]) for name in state if name.startswith("rfsq.layers.")}
        read_off = {
            "action_dim": state["encoder.0.weight"].shape[1],
            "hidden_dim": state["encoder.2.weight"].shape[0],
            "num_layers": len(layers),
            "num_levels": state["rfsq.layers.0.boundaries"].shape[0],
        }
        RobustSTEQuantizer(read_off["num_levels"])
    except (KeyError, IndexError, ValueError):
        raise CheckpointError(f"{path}: weights of the autoencoder or of its RFSQ layers are missing") from None
    for name, size in read_off.items():
        if name in given and _read_number(path, given, name, int) != size:
            raise CheckpointError(f"{path}: config says {name} {given[name]}, but the weights have {size}")
    conditioning = given.get("conditioning")
    if conditioning is not None and conditioning not in CONDITIONINGS:
        raise CheckpointError(f"{path}: config names the unknown conditioning {conditioning!r}")
    use_layernorm = _read_number(path, given, "use_layernorm", int) or 0
    return {**read_off, "use_layernorm": bool(use_layernorm), "conditioning": conditioning}


def _load_strictly(path: Path, model: ActionRFSQAE, state: dict[str, Tensor]) -> None:
    grid = model.rfsq.quantizers[0].boundaries.clone()
    rounded = [grid.to(dtype).float() for dtype in (torch.float16, torch.bfloat16)]
    try:
        model.load_state_dict(state, strict=True)
    except (RuntimeError, TypeError, AttributeError) as error:
        detail = " ".join(str(error).split(":", 1)[-1].split())
        raise CheckpointError(
            f"{path}: weights do not fit conditioning '{model.conditioning}' with {model.config}: {detail}"
        ) from None
    for k, layer in enumerate(model.rfsq.quantizers):
        if any(torch.equal(layer.boundaries, values) for values in rounded):  # weights of half precision
            layer.boundaries.copy_(grid)
        if not torch.allclose(layer.boundaries, grid, atol=1e-6):
            raise CheckpointError(
                f"{path}: rfsq.layers.{k}.boundaries is not the even grid on [-1, 1] that this model quantizes with"
            )


def _read_number(path: Path, content: Mapping[str, Any], key: str, kind: Callable[[Any], Number]) -> Number | None:
    """A plain number, which some trainers store as a tensor."""
    try:
        return None if content.get(key) is None else kind(content[key])
    except (TypeError, ValueError, RuntimeError):
        raise CheckpointError(f"{path}: '{key}' is {content[key]!r}, not a number") from None


def read_normalization(path: Path, content: Mapping[str, Any], action_dim: int) -> dict[str, Tensor] | None:
    """The bounds {'min': (A,), 'max': (A,)} that a file holds; None where it holds none. path: for messages.

    Raises:
        CheckpointError: something is missing, has another shape, or is no range.
    """
    if not content:
        return None
    try:
        bounds = {name: torch.as_tensor(content[name]) for name in ("min", "max")}
    except (KeyError, TypeError, ValueError, RuntimeError):
        raise CheckpointError(f"{path}: 'normalization' does not hold 'min' and 'max'") from None
    if any(tuple(bound.shape) != (action_dim,) for bound in bounds.values()):
        raise CheckpointError(f"{path}: 'normalization' does not hold {action_dim} values each for 'min' and 'max'")
    if not (bounds["min"] <= bounds["max"]).all() or not all(torch.isfinite(bound).all() for bound in bounds.values()):
        raise CheckpointError(f"{path}: 'normalization' holds a 'min' above its 'max', or values that are not finite")
    return bounds
