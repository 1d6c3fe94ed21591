"""What a trained policy predicts of many chunks, decoded by every rule, a part at a time to save memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from workbook.codecs.token_spaces import Codes, TokenSpace
from workbook.common.array import Array
from workbook.evaluation.policy.network import Prediction, TokenPolicy, draw, predict

PART = 128  # chunks
DRAWS = 16  # of a chunk, from what a policy says of it


class Reader(NamedTuple):
    """What decodes the tokens of the first `layers` layers. name: `OWN`, or the entry that reads them."""

    space: TokenSpace
    name: str
    layers: int


@dataclass(frozen=True, eq=False)
class Decoded:
    """actions: (N, C, A) by rule and reader (its name and layers); predictions: by rule that gives tokens; drawn: by
    such a rule and reader of all layers (DRAWS, N, C, A) actions of drawn tokens, empty where none were asked for.
    """

    actions: dict[tuple[str, str, int], Array]
    predictions: dict[str, Prediction]
    drawn: dict[tuple[str, str], Array]


def decode_predictions(
    policy: TokenPolicy,
    inputs: Tensor,
    truth: Sequence[Codes] | None,
    readers: Sequence[Reader],
    seed: int | None = None,
) -> Decoded:
    """truth: tokens (N, G, S) a layer, whose likelihood is asked for, None for none; seed: of draws, None for none."""
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    parts = [
        _decode_part(policy, inputs[at], truth and [layer[at] for layer in truth], readers, generator)
        for at in _slices(len(inputs))
    ]
    rules = parts[0].predictions
    return Decoded(
        {key: np.concatenate([part.actions[key] for part in parts]) for key in parts[0].actions},
        {rule: _joined([part.predictions[rule] for part in parts]) for rule in rules},
        {key: np.concatenate([part.drawn[key] for part in parts], axis=1) for key in parts[0].drawn},
    )


def _slices(count: int) -> Iterator[slice]:
    return (slice(start, start + PART) for start in range(0, count, PART))


def _joined(parts: Sequence[Prediction]) -> Prediction:
    tokens = [np.concatenate(layer) for layer in zip(*(part.tokens for part in parts), strict=True)]
    return Prediction(tokens, [np.concatenate(layer) for layer in zip(*(part.log2 for part in parts), strict=True)])


def _decode_part(
    policy: TokenPolicy, inputs: Tensor, truth: Sequence[Codes] | None, readers: Sequence[Reader],
    generator: torch.Generator | None,
) -> Decoded:  # fmt: skip
    predictions, probabilities = predict(policy, inputs, truth)
    actions: dict[tuple[str, str, int], Array] = {}
    for space, name, layers in readers:
        for rule, prediction in predictions.items():
            actions[rule, name, layers] = space.decode(prediction.tokens[:layers])
        expected = space.expected(probabilities[:layers])
        if expected is not None:
            actions["soft", name, layers] = expected
    draws = {} if generator is None else draw(policy, inputs, DRAWS, generator)
    drawn = {
        (rule, name): np.stack([space.decode([layer.numpy() for layer in each]) for each in of_rule])
        for rule, of_rule in draws.items()
        for space, name, layers in readers
        if layers == len(policy.sizes)
    }
    return Decoded(actions, predictions, drawn)
