"""What a conditioning costs in training: the time of a step."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch

from rfsq_robust import Conditioning
from workbook.training.data import TrainData
from workbook.training.stack import Alone
from workbook.training.trainer import Job, Stepper, TrainConfig, build_model


def measure_step_seconds(
    config: TrainConfig, conditionings: Sequence[Conditioning], data: TrainData, rounds: int = 60, steps: int = 4
) -> dict[Conditioning, np.ndarray]:
    """Seconds of one training step of one model of each conditioning, as it is without a stack: (rounds,) each.

    The conditionings take turns within a round, so that whatever else slows the machine slows them alike; compare
    them round by round.
    """
    models = {name: build_model(config, data.train.shape[-1], Job(name, 0)) for name in conditionings}
    steppers = {name: Stepper(Alone(model, data), config, [0], data) for name, model in models.items()}
    batch = torch.arange(min(config.batch_size, len(data.train)), device=data.train.device)[None]
    seconds: dict[Conditioning, list[float]] = {name: [] for name in conditionings}
    for round_number in range(rounds + 1):
        for name, stepper in steppers.items():
            started = time.perf_counter()
            for _ in range(steps):
                stepper.step(batch)
            if batch.is_cuda:
                torch.cuda.synchronize()
            if round_number:  # the first round warms up
                seconds[name].append((time.perf_counter() - started) / steps)
    return {name: np.array(values) for name, values in seconds.items()}
