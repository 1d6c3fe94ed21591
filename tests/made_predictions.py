"""Predictions made up by hand: random tokens of a small codec, the actions that they decode to, and logits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from rfsq_robust import ActionRFSQAE, Checkpoint, Conditioning, save_checkpoint
from workbook.codecs.rfsq import load_codec
from workbook.common.array import Array
from workbook.data.chunks import Normaliser
from workbook.data.layout import LIBERO
from workbook.evaluation.predictions.evidence import Predictions
from workbook.evaluation.predictions.judge import Judged, judge
from workbook.evaluation.predictions.read import Given, PredictionsConfig, decode, read_predictions

NORMALISER = Normaliser(np.linspace(-0.9, -0.3, 7), np.linspace(0.2, 0.8, 7))
CERTAIN = 50.0  # logit of a certain token, beside 0
Tokens = NDArray[np.int64]


def made_checkpoint(
    path: Path, conditioning: Conditioning = "scale", hidden: int = 4, layers: int = 4, levels: int = 5, **more: Any
) -> Path:
    """Random weights, with a decoder that tells latents apart."""
    torch.manual_seed(0)
    model = ActionRFSQAE(7, hidden, layers, levels, conditioning=conditioning)
    with torch.no_grad():
        model.decoder[2].weight.mul_(3)
    bounds = {"min": torch.from_numpy(NORMALISER.low), "max": torch.from_numpy(NORMALISER.high)}
    save_checkpoint(path, Checkpoint(model.eval(), normalization=bounds, **more))
    return path


def made_tokens(
    moments: int, steps: int = 3, hidden: int = 4, layers: int = 4, levels: int = 5, dead: int = 0, seed: int = 0
) -> Tokens:
    """(N, C, H, K) that are random; the last `dead` layers always say the same."""
    tokens = np.random.default_rng(seed).integers(levels, size=(moments, steps, hidden, layers))
    tokens[..., layers - dead :] = levels // 2
    return tokens


def certain(tokens: Tokens, levels: int = 5) -> NDArray[np.float32]:
    """Logits that leave no doubt: (N, C, H, K) -> (N, K, C * H, L)"""
    flat = tokens.reshape(len(tokens), -1, tokens.shape[-1]).swapaxes(1, 2)
    return (np.eye(levels)[flat] * CERTAIN).astype(np.float32)


def spoiled(tokens: Tokens, share: float, levels: int = 5, seed: int = 1) -> Tokens:
    """A share of the tokens says something else."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(tokens.shape) < share, (tokens + rng.integers(1, levels, tokens.shape)) % levels, tokens)


def content(checkpoint: Path, tokens: Tokens, main: Tokens, draft: Tokens | None = None, **more: Any) -> dict[str, Any]:
    """What a file holds; the actions are those that the tokens decode to. draft: (N, C, H, D)"""
    codec = load_codec(checkpoint, NORMALISER)
    levels = codec.vocabulary
    actions = actions_of(checkpoint, tokens)
    episode = np.arange(len(tokens)) * 20 // len(tokens)
    found = {"main_logits": certain(main, levels), "tokens": tokens, "actions": actions, "episode": episode}
    found |= {} if draft is None else {"draft_logits": certain(draft, levels)}
    return found | {"checkpoint": str(checkpoint)} | more


def actions_of(checkpoint: Path, tokens: Tokens) -> Array:
    return decode(load_codec(checkpoint, NORMALISER), list(np.moveaxis(tokens, -1, 0)))


def save(path: Path, found: Mapping[str, Any]) -> Path:
    """As an HDF5, npz or torch file, by its ending."""
    if path.suffix == ".npz":
        np.savez(path, **{name: np.asarray(value) for name, value in found.items()})
    elif path.suffix in (".h5", ".hdf5"):
        with h5py.File(path, "w") as file:
            for name, value in found.items():
                file[name] = value
    else:
        arrays = {name: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for name, v in found.items()}
        torch.save(arrays, path)
    return path


def read(path: Path, checkpoint: str = "") -> Given:
    return read_predictions(PredictionsConfig(str(path), checkpoint), LIBERO, NORMALISER)


def judged(path: Path, found: Mapping[str, Any]) -> Predictions:
    return predictions_of(judge(read(save(path, found))))


def predictions_of(found: Judged) -> Predictions:
    return Predictions(found.values, *found.tables.values())
