"""Models that are trained at once: parameters and activations with a leading model dimension.

Symbols and shapes
    S  models of one stack, which share no parameter, so that each learns as it does alone
    B  chunks in a batch of each model, drawn in an order of its own
    N  train chunks of C steps of A numbers, and M validation steps, as in `TrainData`

One call of a kernel does the work of S: on a GPU S models take the launches of one. `python -m benchmarks` says what it
saves on a CPU.
"""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from rfsq_robust import STATISTICS_MOMENTUM, ActionRFSQAE, RobustRFSQBlock, RobustSTEQuantizer
from workbook.common.mish import QuickMish
from workbook.common.stacked import stacked, states_of
from workbook.training.data import TrainData

VALIDATION_PART = {"cpu": 512, "cuda": 2**16}  # steps that are scored at once; a CPU finds them in its cache

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h

State = dict[str, Tensor]
Loss = Callable[[Any, Tensor], Tensor]


def reconstruction_loss(model: nn.Module, actions: Tensor) -> Tensor:
    return mse_loss(model(actions)[0], actions)


class Stack(nn.Module, ABC):
    """S models in training. Its parameters are what is trained; `load` puts states into the models."""

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        self.models = tuple(models)  # no submodules, for it is not their parameters that are trained

    def __len__(self) -> int:
        return len(self.models)

    @abstractmethod
    def loss(self, chunks: Tensor) -> Tensor:
        """Sum over the models of the mean loss of each over its chunks, which are at positions (S, B).

        Its gradient by the parameters of a model is the one that this model has alone.
        """

    @abstractmethod
    def validation_mse(self) -> Tensor:
        """MSE of each model over the validation steps: (S,), in double precision."""

    @abstractmethod
    def states(self) -> list[State]:
        """The state dict of each model, as views of what the stack holds."""

    @torch.no_grad()
    def restore(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        """Go on from states that `states` gave."""
        for own, kept in zip(self.states(), states, strict=True):
            for name, value in own.items():
                value.copy_(kept[name])

    def load(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        """Put states into the models, which then are on the CPU and ready for use."""
        for model, state in zip(self.models, states, strict=True):
            model.load_state_dict(state)
            model.cpu().eval()


class Alone(Stack):
    """A stack of one model of any kind, as it is: forward gives the reconstruction first. Padding is left out."""

    def __init__(self, model: nn.Module, data: TrainData, loss: Loss = reconstruction_loss) -> None:
        super().__init__([model])
        self.model, self.data, self.loss_of = model.to(data.train.device), data, loss

    def loss(self, chunks: Tensor) -> Tensor:
        return self.loss_of(self.model, self.data.train[chunks[0]][self.data.train_valid[chunks[0]]])

    @torch.no_grad()
    def validation_mse(self) -> Tensor:
        steps = self.data.validation
        return _mse(lambda part: (self.model(steps[part])[0] - steps[part])[None], steps)

    def states(self) -> list[State]:
        return [self.model.state_dict()]


class RFSQStack(Stack):
    """Autoencoders of equal size on the same data; those of one conditioning lie side by side."""

    def __init__(self, models: Sequence[ActionRFSQAE], data: TrainData) -> None:
        super().__init__(models)
        self.data = data
        self.encoder = stacked_network([model.encoder for model in models])
        self.decoder = stacked_network([model.decoder for model in models])
        groups = [list(group) for _, group in groupby(models, key=lambda model: model.conditioning)]
        self.blocks = nn.ModuleList(_StackedBlock([model.rfsq for model in group]) for group in groups)
        self.sizes = [len(group) for group in groups]
        self.to(data.train.device)

    def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        """Normalised actions (S, rows, A), and 1 for rows that are no padding (S, rows, 1) -> reconstruction."""
        latents = self.encoder(x).split(self.sizes)
        of_groups = [None] * len(self.sizes) if real is None else real.split(self.sizes)
        quantized = [block(*given) for block, *given in zip(self.blocks, latents, of_groups, strict=True)]
        return self.decoder(torch.cat(quantized))

    def loss(self, chunks: Tensor) -> Tensor:
        actions = self.data.train[chunks].flatten(1, 2)
        real = _real(self.data, chunks)
        return _sum_of_means(self(actions, real) - actions, real)

    @torch.no_grad()
    def validation_mse(self) -> Tensor:
        steps = self.data.validation
        return _mse(lambda part: self(steps[part].expand(len(self), -1, -1)) - steps[part], steps)

    def states(self) -> list[State]:
        blocks = [state for block in cast("list[_StackedBlock]", list(self.blocks)) for state in block.states()]
        networks = {"encoder": states_of(self.encoder.state_dict()), "decoder": states_of(self.decoder.state_dict())}
        return [
            {f"{name}.{key}": value for name, of_each in networks.items() for key, value in of_each[position].items()}
            | {f"rfsq.{key}": value for key, value in block.items()}
            for position, block in enumerate(blocks)
        ]


class NetworkStack(Stack):
    """Small networks of equal size, each with inputs and targets of its own: the last axes of two `TrainData`."""

    def __init__(self, networks: Sequence[nn.Sequential], inputs: Sequence[TrainData], targets: Sequence[TrainData]):
        super().__init__(networks)
        self.network = stacked_network(networks)
        self.data = targets[0]  # of which only the padding is used
        self.train_pairs = [torch.stack([each.train for each in side]).flatten(0, 1) for side in (inputs, targets)]
        self.validation_pairs = [torch.stack([each.validation for each in side]) for side in (inputs, targets)]
        self.offsets = torch.arange(len(networks), device=self.data.train.device)[:, None] * len(self.data.train)
        self.to(self.data.train.device)

    def loss(self, chunks: Tensor) -> Tensor:
        x, y = (side[chunks + self.offsets].flatten(1, 2) for side in self.train_pairs)
        return _sum_of_means(self.network(x) - y, _real(self.data, chunks))

    @torch.no_grad()
    def validation_mse(self) -> Tensor:
        x, y = self.validation_pairs
        return _mse(lambda part: self.network(x[:, part]) - y[:, part], self.data.validation)

    def states(self) -> list[State]:
        return states_of(self.network.state_dict())


def keep_freed_memory() -> None:
    """Let this process keep what it frees: a step frees and takes the same large blocks again and again.

    glibc else gives them back to the system, whose page faults take as long as the arithmetic (mallopt(3)).
    """
    with suppress(OSError, AttributeError, TypeError):  # another C library
        glibc = ctypes.CDLL(None)
        glibc.mallopt(M_MMAP_MAX, 0)  # blocks that are asked of the system one by one
        glibc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def stacked_network(networks: Sequence[nn.Sequential]) -> nn.Sequential:
    """Sequences of equal layers as one of the same keys, for (S, rows, width)."""
    layers = zip(*networks, strict=True)
    return nn.Sequential(*(QuickMish() if isinstance(first, nn.Mish) else stacked([first, *others])
                           for first, *others in layers))  # fmt: skip


class _StackedBlock(RobustRFSQBlock):
    """Blocks of one conditioning; what its layers learn or keep has the shape (S, 1, 1)."""

    def __init__(self, blocks: Sequence[RobustRFSQBlock]) -> None:
        first = blocks[0]
        super().__init__(first.num_layers, first.num_levels, conditioning=first.conditioning)
        layers = zip(*(block.quantizers for block in blocks), strict=True)
        self.layers = nn.ModuleList(_StackedQuantizer(k, of_models) for k, of_models in enumerate(layers))
        self.count = len(blocks)

    def forward(self, z: Tensor, real: Tensor | None) -> Tensor:  # type: ignore[override]
        """(S, rows, H), and 1 for rows that count, all if None (S, rows, 1) -> quantized (S, rows, H)."""
        for layer in cast("list[_StackedQuantizer]", list(self.layers)):
            layer.real = real
        quantized, _, _, residuals = self.run_layers(z.detach(), self.training)
        return self.with_gradient(z, quantized, residuals)

    def states(self) -> list[State]:
        shared = {key: value for key, value in self.state_dict().items() if key.endswith("boundaries")}
        own = {key: value for key, value in self.state_dict().items() if key not in shared}
        return [shared | {key: value[k, 0, 0] for key, value in own.items()} for k in range(self.count)]


class _StackedQuantizer(RobustSTEQuantizer):
    """One layer of each of S blocks."""

    real: Tensor | None = None  # 1 for the rows of which statistics are taken, 0 for padding: (S, rows, 1)

    def __init__(self, position: int, layers: Sequence[RobustSTEQuantizer]) -> None:
        super().__init__(layers[0].num_levels, conditioning=layers[0].conditioning, layer=position)
        for name, value in [*self.named_buffers(), *self.named_parameters()]:
            if name != "boundaries":
                value.data = torch.stack([getattr(layer, name).detach() for layer in layers]).view(-1, 1, 1)

    def to_indices(self, residual: Tensor, shift: Tensor | None, scale: Tensor | None) -> Tensor:
        """As of one layer; NaN, of a model that diverged, is looked up somewhere, for the others go on."""
        return super().to_indices(residual, shift, scale).nan_to_num_()

    @torch.no_grad()
    def _update_running_statistics(self, residual: Tensor) -> None:
        """As of one layer, over the real rows of each model, and without a value that the device is waited for."""
        real = torch.ones_like(residual[..., :1]) if self.real is None else self.real
        count = real.sum(1, keepdim=True) * residual.shape[-1]
        mean = (residual * real).sum((1, 2), keepdim=True) / count
        squares = ((residual - mean) * real).square().sum((1, 2), keepdim=True)
        self.batches_seen += 1
        weight = (1 / self.batches_seen).clamp(min=STATISTICS_MOMENTUM)
        self.running_mean.lerp_(mean, weight)
        self.running_std.lerp_((squares / (count - 1)).sqrt(), weight)


def _real(data: TrainData, chunks: Tensor) -> Tensor:
    """1 for steps and 0 for padding: chunks (S, B) -> (S, B * C, 1)."""
    return data.train_valid[chunks].flatten(1).unsqueeze(-1).float()


def _sum_of_means(error: Tensor, real: Tensor) -> Tensor:
    """Sum over the models of the mean square of errors (S, rows, A), over the real rows of each."""
    weight = real / (real.sum(1, keepdim=True) * error.shape[-1])
    return (error.square() * weight).sum()


def _mse(error_of: Callable[[slice], Tensor], steps: Tensor) -> Tensor:
    """Mean square of the errors (S, steps, A) of steps (M, A), in parts: (S,)."""
    rows = VALIDATION_PART[steps.device.type]
    parts = [slice(start, start + rows) for start in range(0, len(steps), rows)]
    sums = [error_of(part).square().sum((1, 2)).double() for part in parts]
    return torch.stack(sums).sum(0) / steps.numel()
