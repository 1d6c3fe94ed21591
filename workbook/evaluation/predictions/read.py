"""Reader of the predictions of a user's own Phase 2: HDF5, npz, or a .pt of tensors; nothing in a file is executed.

N moments, chunks of C steps of A numbers, H latents a step, K layers of L values. place = step * H + latent.

    main_logits         (N, K, C * H, L)
    draft_logits        (N, D, C * H, L), of the first D layers; where there is a draft model
    other_main_logits   (N, D or more, C * H, L), of the main model where it is given another moment's draft, that of
                        moment `other`, (N,), in the stead of this one's
    tokens              (N, C, H, K), true
    actions             (N, C, A), true, in the units of the data
    episode, task       (N,) numbers or names
    checkpoint          path of the codec's checkpoint, from the folder of the file

Only main_logits, tokens and actions are required, and a checkpoint, here or beside the file.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from rfsq_robust import CheckpointError
from workbook.codecs.protocol import Tokens
from workbook.codecs.rfsq import RFSQCodec, load_codec
from workbook.codecs.token_spaces import Codes, StepRFSQ
from workbook.common import provenance
from workbook.common.array import Array
from workbook.common.errors import InputError
from workbook.common.paths import expand
from workbook.data.chunks import Normaliser
from workbook.data.layout import ActionLayout
from workbook.data.sources.hdf5 import opened
from workbook.data.sources.torch_file import loaded

REQUIRED = ("main_logits", "tokens", "actions")
OPTIONAL = ("draft_logits", "other_main_logits", "other", "episode", "task", "checkpoint")
FEWEST_EPISODES = 10
BLOCKS = 30  # of neighbouring moments, where no episodes are named; Schmeiser 1982: 10 to 30 batches do for an interval
FEWEST_MOMENTS = 10 * BLOCKS
# Another reading of the actions is the right one where the true tokens decode to it so much better, and well.
TIMES_BETTER = 4
OF_VARIANCE = 0.1
BETTER_ACCURACY = 0.1  # and another order of the places where so much more of the first layer is right in it


@dataclass(frozen=True)
class PredictionsConfig:
    """Parameters of 04_residual_analysis: the file, "" for none; the codec's checkpoint, "" for the one it names."""

    predictions: str = ""
    predictions_checkpoint: str = ""

    def __post_init__(self) -> None:
        if self.predictions_checkpoint and not self.predictions:
            raise InputError("predictions_checkpoint is given without predictions; give both, or neither")

    @property
    def settings(self) -> dict[str, Any] | None:
        """Which files are given, as the settings of the stage hold it."""
        if not self.predictions:
            return None
        found: dict[str, Any] = {}
        for name, path in vars(self).items():
            file = expand(path)
            known = path and file.is_file()
            found |= {
                name: file.name if path else None,
                f"{name}_sha256": provenance.sha256_of(file) if known else None,
            }
        return found


@dataclass(frozen=True, eq=False)
class Given:
    """A file that was checked, as in the module's legend; logits are float32.

    group: (N,) the episode of each moment, or the block of neighbours where no episodes are named; task: (N,) numbers.
    named: whether episodes and tasks are. normaliser_assumed: that the checkpoint has none.
    """

    file: str
    codec: RFSQCodec
    layout: ActionLayout
    main: NDArray[np.float32]
    draft: NDArray[np.float32] | None
    other_main: NDArray[np.float32] | None
    other: NDArray[np.int64] | None
    tokens: Codes
    actions: Array
    group: NDArray[np.int64]
    task: NDArray[np.int64]
    named: tuple[bool, bool]
    normaliser_assumed: bool

    @property
    def space(self) -> StepRFSQ:
        return StepRFSQ(self.codec, self.tokens.shape[1], self.tokens.shape[3])


def read_predictions(config: PredictionsConfig, layout: ActionLayout, normaliser: Normaliser) -> Given:
    """normaliser: of the data, where the checkpoint has none.

    Raises:
        InputError: the file or its checkpoint cannot be used.
    """
    path = expand(config.predictions)
    found = _load(path)
    for name in REQUIRED:
        if name not in found:
            raise InputError(f"{path}: has no '{name}'; write it as INTEGRATION_TO_PHASE2.md shows")
    codec, assumed = _codec(path, found.get("checkpoint"), config.predictions_checkpoint, normaliser)
    if codec.model.action_dim != layout.dim:
        raise InputError(
            f"{path}: its checkpoint has actions of {codec.model.action_dim} numbers, and layout '{layout.spec}' has "
            f"{layout.dim}; name the data that it was trained on with --data, and their layout with --layout"
        )
    actions = _numbers(path, found, "actions", (None, None, layout.dim)).astype(np.float64)
    count, steps, _ = actions.shape
    hidden, layers, levels = codec.model.hidden_dim, codec.model.rfsq.num_layers, codec.model.rfsq.num_levels
    tokens = _tokens(path, found, (count, steps, hidden, layers), levels)
    main = _logits(path, found, "main_logits", (count, layers, steps * hidden, levels))
    draft = other_main = other = None
    if "draft_logits" in found:
        draft = _logits(path, found, "draft_logits", (count, None, steps * hidden, levels))
        if draft.shape[1] > layers:
            raise InputError(
                f"{path}, 'draft_logits': has {draft.shape[1]} layers, and the codec {layers}; leave some out"
            )
    if "other_main_logits" in found:
        if draft is None or "other" not in found:
            missing = "draft_logits" if draft is None else "other"
            raise InputError(f"{path}: has 'other_main_logits' without '{missing}'; write both, or neither")
        other_main = _logits(path, found, "other_main_logits", (count, None, steps * hidden, levels))[
            :, : draft.shape[1]
        ]
        if other_main.shape[1] < draft.shape[1]:
            raise InputError(f"{path}, 'other_main_logits': has fewer layers than 'draft_logits'; write as many")
        other = _numbers(path, found, "other", (count,)).astype(np.int64)
        if (other < 0).any() or (other >= count).any() or (other == np.arange(count)).any():
            raise InputError(f"{path}, 'other': does not name another of the {count} moments everywhere; number from 0")
    episode, task = (_labels(path, found, name, count) for name in ("episode", "task"))
    given = Given(
        str(path), codec, layout, main, draft, other_main, other, tokens, actions, _groups(path, episode, task, count),
        np.zeros(count, dtype=np.int64) if task is None else task, (episode is not None, task is not None), assumed,
    )  # fmt: skip
    _check_actions(given)
    _check_order(given)
    return given


# Files


def _load(path: Path) -> Mapping[str, Any]:
    """Name -> array, or text."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; name the file of your predictions with --predictions")
    readers: dict[str, Callable[[Path], Mapping[str, Any]]] = {
        ".h5": _of_hdf5, ".hdf5": _of_hdf5, ".npz": _of_npz, ".pt": _of_torch, ".pth": _of_torch,
    }  # fmt: skip
    if path.suffix.lower() not in readers:
        raise InputError(f"{path}: ends in none of {', '.join(readers)}; save the predictions in one of these formats")
    return readers[path.suffix.lower()](path)


def _of_hdf5(path: Path) -> Mapping[str, Any]:
    try:
        with opened(path) as file:
            return {name: file[name][()] for name in (*REQUIRED, *OPTIONAL) if isinstance(file.get(name), h5py.Dataset)}
    except (OSError, RuntimeError) as error:
        raise InputError(f"{path}: not an HDF5 file, or cut short ({_one_line(error)}); write it again") from None


def _of_npz(path: Path) -> Mapping[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in (*REQUIRED, *OPTIONAL) if name in file.files}
    except ValueError as error:
        if "Object arrays" in str(error):
            raise InputError(
                f"{path}: holds Python objects, which are never loaded here; save arrays of numbers and text"
            ) from None
        raise InputError(f"{path}: not an npz file, or cut short ({_one_line(error)}); write it again") from None
    except (OSError, EOFError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not an npz file, or cut short ({_one_line(error)}); write it again") from None


def _of_torch(path: Path) -> Mapping[str, Any]:
    content = loaded(path, "write it again with torch.save")
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds a {type(content).__name__}, not a dictionary of tensors; save one")
    return {name: _plain(content[name]) for name in (*REQUIRED, *OPTIONAL) if content.get(name) is not None}


def _plain(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    plain = value.detach()
    return (plain.float() if plain.dtype == torch.bfloat16 else plain).numpy()  # which numpy lacks


def _one_line(text: object) -> str:
    return " ".join(str(text).split())[:120]


# What stands in them


def _codec(path: Path, named: Any, option: str, normaliser: Normaliser) -> tuple[RFSQCodec, bool]:
    """The codec, and whether its checkpoint has no normaliser."""
    name = option or _text(named)
    if not name:
        raise InputError(f"{path}: names no 'checkpoint'; name that of the codec with --predictions-checkpoint")
    file = expand(name) if option else path.parent / Path(name).expanduser()
    try:
        codec = load_codec(file, normaliser)
    except CheckpointError as error:
        raise InputError(f"{error}; name the codec of these tokens with --predictions-checkpoint") from None
    return codec, codec.normaliser is normaliser


def _text(value: Any) -> str:
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    return value.decode("utf8", "replace") if isinstance(value, bytes) else value if isinstance(value, str) else ""


def _numbers(
    path: Path, found: Mapping[str, Any], name: str, shape: Sequence[int | None], kinds: str = "fiu"
) -> NDArray[Any]:
    """An array of finite numbers of that shape, None for any length but 0."""
    values = found[name]
    if not isinstance(values, np.ndarray) or values.dtype.kind not in kinds:
        raise InputError(f"{path}, '{name}': is no array of numbers; save it as one")
    fits = values.ndim == len(shape) and all(
        have > 0 if want is None else have == want for have, want in zip(values.shape, shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise InputError(
            f"{path}, '{name}': has shape {values.shape}, expected ({wanted}) by its actions and checkpoint; write it "
            "as INTEGRATION_TO_PHASE2.md shows"
        )
    if not np.isfinite(values).all():
        raise InputError(f"{path}, '{name}': holds values that are NaN or infinite; leave out such moments")
    return values


def _logits(path: Path, found: Mapping[str, Any], name: str, shape: Sequence[int | None]) -> NDArray[np.float32]:
    return np.ascontiguousarray(_numbers(path, found, name, shape, "f"), dtype=np.float32)


def _tokens(path: Path, found: Mapping[str, Any], shape: Sequence[int], levels: int) -> Codes:
    values = _numbers(path, found, "tokens", shape)
    tokens = values.astype(np.int64)
    if (tokens != values).any() or tokens.min() < 0 or tokens.max() >= levels:
        raise InputError(
            f"{path}, 'tokens': holds {values.min():g} to {values.max():g}; {levels} levels are the whole numbers 0 to "
            f"{levels - 1}"
        )
    return tokens


def _labels(path: Path, found: Mapping[str, Any], name: str, count: int) -> NDArray[np.int64] | None:
    """Names or numbers as numbers from 0, in the order in which they first stand there."""
    if name not in found:
        return None
    values = np.asarray(found[name])
    if values.shape != (count,):
        raise InputError(f"{path}, '{name}': has shape {values.shape}; write one for each of the {count} moments")
    if values.dtype.kind == "O":  # text of HDF5
        values = np.array([_text(value) for value in values])
    _, first, labels = np.unique(values, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[labels]


def _groups(
    path: Path, episode: NDArray[np.int64] | None, task: NDArray[np.int64] | None, count: int
) -> NDArray[np.int64]:
    """The episode of each moment, told apart by its task, too; blocks of neighbours where there are none."""
    if episode is None:
        if count < FEWEST_MOMENTS:
            raise InputError(
                f"{path}: holds {count} moments and no 'episode'; write at least {FEWEST_MOMENTS}, or "
                f"{FEWEST_EPISODES} named episodes"
            )
        return np.arange(count) * BLOCKS // count
    pairs = np.stack([np.zeros_like(episode) if task is None else task, episode])
    groups = np.unique(pairs, axis=1, return_inverse=True)[1].reshape(-1)
    if groups.max() + 1 < FEWEST_EPISODES:
        raise InputError(
            f"{path}: holds moments of {groups.max() + 1} episodes; write at least {FEWEST_EPISODES}, for an interval"
        )
    return groups


# Whether it means what it says


def decode(codec: RFSQCodec, tokens: Sequence[Codes]) -> Array:
    """Tokens of the first layers, (N, C, H) each -> (N, C, A); of LayerNorm with mean 0 and std 1 assumed."""
    return codec.decode(Tokens(np.stack(tokens, axis=-1)))


def _check_actions(given: Given) -> None:
    """The true tokens have to decode to the true actions; where they decode to something else, say to what.

    Raises:
        InputError: names the reading that fits.
    """
    codec, half_width = given.codec, given.codec.normaliser.half_width
    count, steps, hidden, layers = given.tokens.shape
    decoded = _decoded(codec, given.tokens)
    other_order = given.tokens.reshape(count, hidden, steps, layers).swapaxes(1, 2)
    own = _mse(decoded - given.actions, half_width)
    once = given.actions[:, :1] + np.zeros_like(given.actions)
    readings = {
        "tokens are in the order latent * steps + step; write them as (moments, steps, latents, layers)":
            (_decoded(codec, other_order), given.actions, half_width),
        "tokens are those of the first action, told for every step; give that action for every step as 'actions', too":
            (decoded, once, half_width),
        "actions are normalised; write them in the units of the data":
            (codec.normaliser.normalise(decoded), given.actions, np.ones_like(half_width)),
    }  # fmt: skip
    for said, (found, wanted, width) in readings.items():
        error = _mse(found - wanted, width)
        if error < own / TIMES_BETTER and error < OF_VARIANCE * _mse(wanted - wanted.mean(axis=(0, 1)), width):
            raise InputError(f"{given.file}: its {said}")
    spread = _mse(given.actions - given.actions.mean(axis=(0, 1)), half_width)
    if own > spread and codec.model.conditioning != "layernorm":  # whose tokens decode to no actions
        raise InputError(
            f"{given.file}: its true tokens do not decode to its actions (MSE {own:.2g}, that of the mean action "
            f"{spread:.2g}); give the checkpoint that made the tokens, with its normaliser"
        )


def _decoded(codec: RFSQCodec, tokens: Codes) -> Array:
    return decode(codec, list(np.moveaxis(tokens, -1, 0)))


def _mse(error: Array, half_width: Array) -> float:
    return float(((error / half_width) ** 2).mean())


def _check_order(given: Given) -> None:
    """The logits have to predict the tokens at their own places.

    Raises:
        InputError: they do so at the places of the other order.
    """
    _, steps, hidden, _ = given.tokens.shape
    named = {"main_logits": given.main} | ({} if given.draft is None else {"draft_logits": given.draft})
    for name, logits in named.items():
        said, truth = logits[:, 0].argmax(axis=-1), given.tokens[..., 0]
        own = (said.reshape(-1, steps, hidden) == truth).mean()
        other = (said.reshape(-1, hidden, steps).swapaxes(1, 2) == truth).mean()
        if other > own + BETTER_ACCURACY:
            raise InputError(
                f"{given.file}, '{name}': places are in the order latent * steps + step ({other:.0%} of the first "
                f"layer right, {own:.0%} as given); write them as step * latents + latent"
            )
