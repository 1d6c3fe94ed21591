"""RFSQ tokens of action chunks behind the interface that FAST made common, for a policy (Phase 2) or a robot (Phase 3).

Needs torch, numpy, safetensors and `rfsq_robust.py` beside it; only `fit` needs the workbook, and only the name of a
repository on the Hub needs huggingface_hub.

    tokenizer = RFSQTokenizer.from_checkpoint("rfsq_robust_scale_best.pt", layers=3)
    tokens = tokenizer(actions)          # (B, C, A) in controller units -> B lists of ids
    actions = tokenizer.decode(tokens)   # -> (B, C, A)

Symbols are those of `rfsq_robust`, and C chunk_len, the steps of a chunk. Its ids stand layer after layer, in a layer
step after step, in a step latent after latent, so that the beginning of a sequence is a prefix of layers:

    position = (layer * C + step) * H + latent
    id       = offset + layer * L + code

Every sequence of 1 to C * H * layers ids of the vocabulary decodes:
    - The position says the layer, and an id is read as the code (id - offset) mod L, whichever layer's range it is of:
      a policy that once slips into another range still moves the arm, by no more than its code says.
    - A sequence may end within a layer. The scalars that got no code of it get nothing from it. That is right because
      the values of the layers are added: nothing is a residual of 0, as it is for the layers that were not sent.
    - What is decoded is clipped to what the controller takes, or, where it does not clip, to the train range.
"""

from __future__ import annotations

import inspect
import json
import math
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError, torch as safetensors
from torch import Tensor

from rfsq_robust import ActionRFSQAE, Checkpoint, checkpoint_of, load_checkpoint, read_normalization

Array = NDArray[np.float64]
Integers = NDArray[np.integer[Any]]

GREATEST = 2**31 - 1  # of an id, so that all fit an int32, and of the other integers
LARGEST = 1e18  # of a normalised action: far beyond any that is meant, and a float32 still holds what comes of it
UNIT = 1.0 + 1e-9  # commands up to 1, the controller's limit unless something else is known, and a rounding
AXES = ("chunk", "step", "dimension")
SHOWN = 60  # characters of what is refused
NOT_SENT = -1  # stands in the place of a code
CHUNK_LEN = 8  # steps, as the workbook cuts episodes
CONFIG_NAME = "processor_config.json"  # where transformers' AutoProcessor looks
WEIGHTS_NAME = "model.safetensors"
HUB_SETTINGS = ("revision", "cache_dir", "token", "local_files_only", "force_download")


class ActionTokenizer(ABC):
    """What tokenizers share: they read what is given, refuse what cannot be, and clip; low, high: (A,) train range."""

    _parts: str  # what the tokens of a chunk are, in words

    def __init__(self, chunk_len: int, offset: int, limit: ArrayLike | None, low: Array, high: Array) -> None:
        self.action_dim = len(low)
        self.chunk_len = whole("chunk_len", chunk_len, 1)
        self.offset = whole("offset", offset, 0, GREATEST + 1 - self.vocab_size)
        self.limit = _choose_limit(limit, low, high)
        self._centre, self._half_width = _centre_and_half_width(low, high)
        clips = np.isfinite(self.limit)
        self._bounds = np.where(clips, -self.limit, low), np.where(clips, self.limit, high)

    @property
    @abstractmethod
    def _ranges(self) -> tuple[Integers, Integers]:
        """The first id of each position, offset left out, and how many it has, or each has."""

    @abstractmethod
    def _encode(self, chunks: Array) -> Integers:
        """(B, C, A) actions -> (B, tokens_per_chunk) codes."""

    @abstractmethod
    def _decode(self, codes: NDArray[np.int64]) -> Array:
        """Codes, `NOT_SENT` where a sequence has ended -> actions that are not clipped."""

    @property
    def time_horizon(self) -> int:
        """FAST's name of chunk_len."""
        return self.chunk_len

    @property
    def vocab_size(self) -> int:
        return int(np.add(*self._ranges).max())

    @property
    def tokens_per_chunk(self) -> int:
        return len(self._ranges[0])

    def __call__(self, actions: ArrayLike | Tensor) -> list[list[int]]:
        """Raw actions (B, C, A), or one chunk (C, A) -> B lists of `tokens_per_chunk` ids.

        Raises:
            ValueError: another shape, or values that are NaN, infinite, or beyond 1e18 after normalising.
        """
        chunks = _to_array(actions, "actions")
        if chunks.shape == (0,):  # a list of no chunks
            return []
        if chunks.shape[-2:] != (self.chunk_len, self.action_dim) or chunks.ndim not in (2, 3):
            wanted = f"({self.chunk_len}, {self.action_dim})"
            raise ValueError(
                f"actions of shape {chunks.shape} are not chunks; give (batch, {wanted[1:]} or {wanted}, "
                f"which are {self.chunk_len} steps of {self.action_dim} numbers"
            )
        chunks = chunks.reshape(-1, self.chunk_len, self.action_dim)
        _check_finite(chunks, "actions", *AXES)
        with np.errstate(over="ignore"):
            far = np.abs((chunks - self._centre) / self._half_width) > LARGEST
        units = f", which is beyond {LARGEST:.0e} or infinite after normalising; give the units of the training data"
        _refuse_first(far, chunks, "actions", AXES, units)
        ids: list[list[int]] = (self._encode(chunks) + self._ranges[0] + self.offset).tolist()
        return ids

    def decode(
        self,
        tokens: Integers | Tensor | Sequence[int] | Sequence[Integers | Tensor | Sequence[int]],
        time_horizon: int | None = None,
        action_dim: int | None = None,
    ) -> Array:
        """Token ids -> raw actions (B, C, A) within the controller's range.

        Args:
            tokens: B sequences, a (B, n) array or one sequence, each of 1 to `tokens_per_chunk` ids. Sequences are
                lists, tuples, arrays or tensors, and their lengths may differ. An empty list is a batch of none.
            time_horizon, action_dim: taken for FAST's sake; where given they must be those of the tokenizer.

        Raises:
            ValueError: a sequence that is empty or too long, or holds something else than ids of the vocabulary; or
                decoded actions that are not finite.
        """
        for name, given in (("time_horizon", time_horizon), ("action_dim", action_dim)):
            if given is not None and given != getattr(self, name):
                raise ValueError(
                    f"{name} is {_shown(given)}, but this tokenizer decodes {getattr(self, name)}; leave it out, or "
                    "take the tokenizer that made the tokens"
                )
        ids, lengths = self._read_tokens(tokens)
        sent = np.arange(self.tokens_per_chunk) < lengths[:, None]
        codes = np.zeros(sent.shape, dtype=np.int64)
        codes[sent] = ids - self.offset
        codes = np.where(sent, (codes - self._ranges[0]) % self._ranges[1], NOT_SENT)
        with np.errstate(over="ignore", invalid="ignore"):
            actions = self._decode(codes)
        reason = "; the model's numbers are so large that they overflow, so take another"
        _refuse_first(~np.isfinite(actions), actions, "decoded actions", AXES, reason)
        return np.clip(actions, *self._bounds)

    def ids_of_position(self, position: int) -> range:
        """The ids that are meant at a position of a sequence, so that a policy can leave out all others."""
        whole("position", position, 0, self.tokens_per_chunk - 1)
        first, size = (np.broadcast_to(each, self.tokens_per_chunk)[position] for each in self._ranges)
        return range(self.offset + int(first), self.offset + int(first + size))

    def _read_tokens(self, tokens: Any) -> tuple[Integers, Integers]:
        """The ids of all sequences one after the other, and the length of each, all of them checked."""
        if isinstance(tokens, Tensor):
            tokens = tokens.detach().cpu()
            tokens = tokens.tolist() if tokens.is_floating_point() else tokens.numpy()
        quick = isinstance(tokens, np.ndarray) and tokens.ndim == 2 and tokens.dtype.kind in "iu"
        rows = tokens if quick else _rows(tokens)
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        for number in np.flatnonzero((lengths < 1) | (lengths > self.tokens_per_chunk)):
            most = f"{self.tokens_per_chunk}, which are {self._parts}"
            raise ValueError(f"sequence {number} holds {lengths[number]} ids; give 1 to {most}")
        ids = _join(rows)
        if ids is None or (len(ids) and not self.offset <= ids.min() <= ids.max() < self.offset + self.vocab_size):
            raise self._refusal(rows)
        return ids, lengths

    def _refusal(self, rows: Iterable[Iterable[Any]]) -> ValueError:
        """Names the first of these ids that is none."""
        allowed = range(self.offset, self.offset + self.vocab_size)
        every = ((number, position, found) for number, row in enumerate(rows) for position, found in enumerate(row))
        number, position, found = next(entry for entry in every if not (_is_integer(entry[2]) and entry[2] in allowed))
        return ValueError(
            f"sequence {number}, position {position}: id {_shown(found)} is not an integer from {allowed[0]} to "
            f"{allowed[-1]}, the ids of this tokenizer"
        )

    def _save(self, folder: Path, files: Mapping[str, bytes], module: str, **settings: Any) -> None:
        """Write files, each under a temporary name first, and last the config: without it a folder is not finished."""
        config = {
            "processor_class": type(self).__name__,
            "auto_map": {"AutoProcessor": f"{module}.{type(self).__name__}"},
            "limit": [largest if math.isfinite(largest) else None for largest in self.limit.tolist()],
            "offset": self.offset,
        } | settings
        written = {**files, CONFIG_NAME: json.dumps(config, indent=2, allow_nan=False).encode()}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG_NAME).unlink(missing_ok=True)
        for name, content in written.items():
            _write(folder / name, content)


class RFSQTokenizer(ActionTokenizer):
    """Action chunks to token ids and back.

    Args:
        checkpoint: a model whose codes decode alone, and the normaliser of its training data.
        layers: how many of its first layers are sent, None for all.
        chunk_len: C, steps of a chunk.
        offset: the first id, where a policy's vocabulary has other tokens before.
        limit: the largest command that the controller takes, one number or one a dimension; infinite for those that it
            does not clip, as joints. None is the limit that the checkpoint's provenance names; where it names none, it
            is 1, and a train range beyond that an error.

    Raises:
        ValueError: tokens of this checkpoint could not be decoded, or a number that cannot be.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        layers: int | None = None,
        chunk_len: int = CHUNK_LEN,
        offset: int = 0,
        limit: ArrayLike | None = None,
    ) -> None:
        model, bounds = checkpoint.model, checkpoint.normalization
        if model.conditioning == "layernorm":
            raise ValueError(
                "conditioning 'layernorm' has tokens that cannot be decoded without each vector's mean and std; "
                "take a checkpoint of conditioning 'scale'"
            )
        if bounds is None:
            raise ValueError(
                "the checkpoint carries no normaliser; save it again with normalization={'min': ..., 'max': ...}, the "
                "range of its training data"
            )
        if limit is None:
            limit = limit_of_training(checkpoint)
        self.checkpoint = checkpoint
        self.num_levels = model.rfsq.num_levels
        self.layers = whole("layers", model.rfsq.num_layers if layers is None else layers, 1, model.rfsq.num_layers)
        super().__init__(chunk_len, offset, limit, bounds["min"].double().numpy(), bounds["max"].double().numpy())
        self._parts = f"{chunk_len} steps of {model.hidden_dim} latents in {self.layers} layers"

    @classmethod
    def from_checkpoint(
        cls,
        path: str | os.PathLike[str],
        layers: int | None = None,
        chunk_len: int = CHUNK_LEN,
        offset: int = 0,
        limit: ArrayLike | None = None,
    ) -> RFSQTokenizer:
        """The tokenizer of a checkpoint file; arguments and errors as of the class, and of `load_checkpoint`."""
        checkpoint = load_checkpoint(path)
        try:
            return cls(checkpoint, layers, chunk_len, offset, limit)
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)}: {error}") from None

    @classmethod
    def fit(
        cls,
        actions: ArrayLike | Tensor | Sequence[ArrayLike | Tensor],
        *,
        num_layers: int = 3,
        num_levels: int = 7,
        hidden_dim: int = 16,
        epochs: int = 100,
        seed: int = 0,
        offset: int = 0,
        limit: ArrayLike | None = None,
        chunk_len: int | None = None,
    ) -> RFSQTokenizer:
        """Train an autoencoder of conditioning `scale` on raw actions; the last fifth of the chunks chooses the epoch.

        Args:
            actions: (N, T, A) chunks, or a list of (T, A) episodes or chunks. They are cut into chunks of chunk_len
                steps; what is left over is used, too.
            chunk_len: None is T of an array, and 8 for a list.
            num_layers, num_levels, hidden_dim, epochs, seed: as in the workbook, but for 3 layers, after which little
                is left to say.
            offset, limit: as of the class.

        Raises:
            ImportError: the workbook is not installed.
            ValueError: actions that are NaN, infinite, of the wrong shape or fewer than 2 chunks, or a bad parameter.
        """
        try:
            from workbook.data.chunks import Normaliser, cut_chunks
            from workbook.training import Job, TrainConfig, TrainData, train
        except ImportError as error:
            raise ImportError(
                f"RFSQTokenizer.fit trains with the workbook, which cannot be imported ({error}); install its "
                "repository with pip install -e, or take a trained one with from_checkpoint or from_pretrained"
            ) from None
        episodes = read_episodes(actions)
        if chunk_len is None:
            chunk_len = CHUNK_LEN if isinstance(actions, (list, tuple)) else len(episodes[0])
        chunk_len, seed = whole("chunk_len", chunk_len, 1), whole("seed", seed, 0)
        num_layers, num_levels = whole("num_layers", num_layers, 1), whole("num_levels", num_levels, 2)
        hidden_dim, epochs = whole("hidden_dim", hidden_dim, 2), whole("epochs", epochs, 1)
        offset = whole("offset", offset, 0, GREATEST + 1 - num_layers * num_levels)
        chunks = cut_chunks(episodes, chunk_len, chunk_len)
        held_out = max(len(chunks.actions) // 5, 1)
        if held_out == len(chunks.actions):
            raise ValueError("actions make 1 chunk; give at least 2, one to train on and one to choose the epoch by")
        kept, rest = slice(None, -held_out), slice(-held_out, None)
        normaliser = Normaliser.fit(chunks.actions[kept][chunks.valid[kept]])
        limit = _choose_limit(limit, normaliser.low, normaliser.high)
        normalised = torch.from_numpy(normaliser.normalise(chunks.actions)).float()
        valid = torch.from_numpy(chunks.valid)
        config = TrainConfig(epochs, hidden_dim=hidden_dim, num_layers=num_layers, num_levels=num_levels)
        with torch.random.fork_rng(devices=[]):
            data = TrainData(normalised[kept], valid[kept], normalised[rest][valid[rest]])
            trained = train(config, Job("scale", seed), data)
            # Of this file's own class, also where transformers has loaded it beside the one that the workbook trains.
            model = ActionRFSQAE(**trained.model.config).eval()
        model.load_state_dict(trained.model.state_dict())
        bounds = {"min": torch.from_numpy(normaliser.low), "max": torch.from_numpy(normaliser.high)}
        return cls(Checkpoint(model, trained.epoch, trained.mse, bounds), None, chunk_len, offset, limit)

    def ids_of_layer(self, layer: int) -> range:
        """The ids that stand for codes of a layer, so that a policy can leave out all others."""
        first = self.offset + whole("layer", layer, 0, self.layers - 1) * self.num_levels
        return range(first, first + self.num_levels)

    def layer_of_position(self, position: int) -> int:
        """The layer whose codes stand at this position of a sequence."""
        return whole("position", position, 0, self.tokens_per_chunk - 1) // (self.tokens_per_chunk // self.layers)

    @property
    def vocab_size(self) -> int:
        return self.layers * self.num_levels

    @cached_property
    def _ranges(self) -> tuple[Integers, Integers]:
        per_layer = self.chunk_len * self.checkpoint.model.hidden_dim
        return np.repeat(np.arange(self.layers) * self.num_levels, per_layer), np.array(self.num_levels)

    def _encode(self, chunks: Array) -> Integers:
        model = self.checkpoint.model
        codes = model.encode(self.checkpoint.normalise(torch.from_numpy(chunks)).to(model.device))
        return codes[..., : self.layers].movedim(-1, 1).flatten(1).cpu().numpy()

    def _decode(self, codes: NDArray[np.int64]) -> Array:
        """Whole layers decode bit for bit as `decode_from_indices` decodes them."""
        model = self.checkpoint.model
        given = torch.from_numpy(codes).to(model.device)
        by_layer = given.reshape(len(codes), self.layers, self.chunk_len, model.hidden_dim)
        with torch.no_grad():
            latent = torch.zeros(by_layer[:, 0].shape, device=model.device)
            for layer, code in zip(model.rfsq.quantizers[: self.layers], by_layer.unbind(1), strict=True):
                values = layer.to_values(code.clamp(min=0), *layer.constants())
                latent = latent + values.masked_fill(code == NOT_SENT, 0)
            decoded = self.checkpoint.denormalise(model.decoder(latent))
        return decoded.cpu().double().numpy()

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write a folder that `from_pretrained` and transformers' AutoProcessor load, code included.

        It is made where it does not exist. The code in it is a package: `from folder.rfsq_tokenizer import ...`.

        Raises:
            ValueError: the folder is the one that this code runs from.
        """
        folder, own = Path(folder), Path(__file__)
        if folder.resolve() == own.resolve().parent:
            raise ValueError(f"{folder}: holds the code that runs, which saving would change; name another folder")
        model_code = Path(inspect.getfile(ActionRFSQAE)).read_bytes()
        # transformers makes a package of the folder.
        own_code = re.sub(r"(?m)^from rfsq_robust import", "from .rfsq_robust import", own.read_text(encoding="utf8"))
        weights = safetensors.save(self.checkpoint.model.state_dict())
        bounds = self.checkpoint.normalization or {}
        self._save(
            folder,
            {WEIGHTS_NAME: weights, "rfsq_robust.py": model_code, "rfsq_tokenizer.py": own_code.encode()},
            "rfsq_tokenizer",
            config=self.checkpoint.model.config,
            normalization={name: bound.double().tolist() for name, bound in bounds.items()},
            layers=self.layers,
            chunk_len=self.chunk_len,
        )

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str], **settings: Any) -> RFSQTokenizer:
        """Load a folder that `save_pretrained` wrote, or a repository on the Hub that holds one; nothing is executed.

        Args:
            folder: a folder here; where there is none, the name of a repository.
            settings: revision, cache_dir, token, local_files_only and force_download go to the Hub; the others that
                transformers passes are not needed.

        Raises:
            ValueError: not found, or a file that is missing, damaged or does not fit the others.
        """
        root = find_folder(folder, settings, WEIGHTS_NAME)
        path, weights = root / CONFIG_NAME, root / WEIGHTS_NAME
        config = read_config(path, "an RFSQTokenizer", {"config", "normalization", "layers", "chunk_len"})
        _check_keys(path, " in 'config'", config["config"], set(inspect.signature(ActionRFSQAE).parameters))
        _check_keys(path, " in 'normalization'", config["normalization"], {"min", "max"})
        bounds, limit = _read_numbers(path, config)
        checkpoint = checkpoint_of({"model": _read_weights(weights), "config": config["config"]}, weights)
        normalization = read_normalization(path, bounds, checkpoint.model.action_dim)
        checkpoint = replace(checkpoint, normalization=normalization)
        for name, built in checkpoint.model.config.items():
            if config["config"][name] != built:
                given = _shown(config["config"][name])
                raise ValueError(
                    f"{path}: {name} in 'config' is {given}, where the rest says {built!r}; save the tokenizer again"
                )
        try:
            layers = whole("layers", config["layers"], 1, checkpoint.model.rfsq.num_layers)  # null is not all
            return cls(checkpoint, layers, config["chunk_len"], config["offset"], limit)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoProcessor") -> None:
        """AutoProcessor calls this on a class that it has loaded; `save_pretrained` writes what it asks for anyway."""


def whole(name: str, given: Any, least: int, greatest: int = GREATEST) -> int:
    """An integer within its bounds."""
    if not _is_integer(given) or not least <= given <= greatest:
        raise ValueError(f"{name} is {_shown(given)}; give an integer from {least} to {greatest}")
    return int(given)


def _shown(given: Any) -> str:
    """What was given, as Python writes it, on one line and cut where it is long."""
    try:
        text = " ".join(repr(given.item() if isinstance(given, np.generic) else given).split())
    except ValueError:  # Python writes no integer of thousands of digits
        return "a number too long to show"
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def _is_integer(given: Any) -> bool:
    return _is_integer_type(type(given))


def _is_integer_type(kind: type) -> bool:
    return issubclass(kind, (int, np.integer)) and kind is not bool


def _rows(tokens: Any) -> list[list[Any]]:
    """Sequences as lists; one sequence alone is put into a list, and an empty list holds none."""
    if not (isinstance(tokens, np.ndarray) and tokens.ndim) and not _is_sequence(tokens):
        raise ValueError(f"tokens are {_shown(tokens)}; give a list of ids, or a list of such lists")
    rows = [entry.tolist() if hasattr(entry, "tolist") else entry for entry in tokens]
    if rows and not any(map(_is_sequence, rows)):
        return [rows]
    for number, row in enumerate(rows):
        if not _is_sequence(row):
            raise ValueError(f"sequence {number} is {_shown(row)}, not a list of ids")
    return rows


def _is_sequence(given: Any) -> bool:
    return isinstance(given, Sequence) and not isinstance(given, (str, bytes, bytearray, memoryview))


def _join(rows: Any) -> Integers | None:
    """The ids of all rows, one after the other; None where one of them is no integer of 64 bits."""
    if isinstance(rows, np.ndarray):
        return rows.reshape(-1).astype(np.int64)
    if not all(map(_is_integer_type, set(map(type, chain.from_iterable(rows))))):
        return None
    try:
        return np.fromiter(chain.from_iterable(rows), dtype=np.int64)
    except OverflowError:
        return None


def _to_array(given: Any, place: str) -> Array:
    try:
        if isinstance(given, Tensor):
            given = given.detach().cpu()
            given = given.numpy() if given.is_complex() else given.double().numpy()
        found = np.asarray(given)
        numbers = None if np.iscomplexobj(found) else np.array(found, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{place} are no array of numbers; give every step as many") from None
    if numbers is None:
        raise ValueError(f"{place} are complex; give real numbers")
    return numbers


def _check_finite(numbers: Array, place: str, *axes: str) -> None:
    _refuse_first(~np.isfinite(numbers), numbers, place, axes, "; fix or leave out what is not finite")


def _refuse_first(wrong: NDArray[np.bool_], numbers: Array, place: str, axes: Sequence[str], why: str) -> None:
    for found in np.argwhere(wrong)[:1]:
        where = ", ".join(f"{axis} {position}" for axis, position in zip(axes, found, strict=True))
        raise ValueError(f"{place}, {where}: is {numbers[tuple(found)]}{why}")


def read_episodes(actions: Any) -> list[Array]:
    """(T, A) actions of every episode, all of the same A."""
    given = actions if isinstance(actions, (list, tuple)) else _to_array(actions, "actions")
    episodes = [_to_array(entry, f"episode {number} of actions") for number, entry in enumerate(given)]
    if not episodes:
        raise ValueError("actions hold no episode; give (N, T, A) chunks or a list of (T, A) episodes")
    for number, episode in enumerate(episodes):
        if episode.ndim != 2 or not episode.size or episode.shape[1] != episodes[0].shape[1]:
            raise ValueError(
                f"episode {number} of actions has shape {episode.shape}; give (N, T, A) chunks or a list of (T, A) "
                "episodes, all of the same A"
            )
        _check_finite(episode, f"episode {number} of actions", "step", "dimension")
    return episodes


def _read_limit(limit: Any, action_dim: int) -> Array:
    numbers = _to_array(limit, "limits")
    if numbers.shape not in ((), (action_dim,)) or not (numbers > 0).all():
        wanted = f"give one positive number, or {action_dim}, infinite where nothing clips"
        raise ValueError(f"limit is {_shown(limit)}; {wanted}")
    return np.broadcast_to(numbers, (action_dim,)).copy()


def _choose_limit(limit: ArrayLike | None, low: Array, high: Array) -> Array:
    """The limit that is given; else 1, where nothing in the train range is clipped by it."""
    if limit is not None:
        return _read_limit(limit, len(low))
    for dimension in np.flatnonzero((low < -UNIT) | (high > UNIT))[:1]:
        raise ValueError(
            f"dimension {dimension} of the training data ranges from {low[dimension]:.10g} to {high[dimension]:.10g}, "
            "beyond the -1 to 1 of a controller; give limit=..., infinite for joints"
        )
    return np.ones(len(low))


def limit_of_training(checkpoint: Checkpoint) -> list[float] | None:
    """The limit that the command that trained a checkpoint wrote into it, None where it wrote none.

    Raises:
        ValueError: it is none.
    """
    if "limit" not in checkpoint.provenance:
        return None
    found, count = checkpoint.provenance["limit"], checkpoint.model.action_dim
    numbers = isinstance(found, (list, tuple)) and all(type(each) in (int, float) and each > 0 for each in found)
    if not numbers or len(found) != count:
        raise ValueError(
            f"the limit in the checkpoint's provenance is {_shown(found)}, not a list of {count} positive numbers; "
            "give limit=..., infinite for joints"
        )
    return list(found)


def _centre_and_half_width(low: Array, high: Array) -> tuple[Array, Array]:
    """As the normalisers have them; their sums must be finite, or nothing that is decoded would be."""
    with np.errstate(over="ignore"):
        centre, half_width = (high + low) / 2, (high - low) / 2
    for dimension in np.flatnonzero(~np.isfinite(centre + half_width))[:1]:
        raise ValueError(
            f"dimension {dimension} of the training data ranges from {low[dimension]:g} to {high[dimension]:g}, too "
            "far to be normalised; give smaller units"
        )
    return centre, np.where(half_width > 0, half_width, 1.0)


def _write(path: Path, content: bytes) -> None:
    """Under a temporary name first, so that an interrupted save leaves no broken file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); save the tokenizer again") from None


def read_config(path: Path, kind: str, settings: set[str]) -> dict[str, Any]:
    """The config of a saved tokenizer, by the kind's article and name, which has these settings of its own."""
    try:
        config = json.loads(_read_bytes(path).decode())
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise ValueError(f"{path}: not JSON, or cut short; save the tokenizer again") from None
    if not isinstance(config, dict) or config.get("processor_class") != kind.split()[-1]:
        raise ValueError(f"{path}: is not of {kind}; name a folder that its save_pretrained wrote")
    _check_keys(path, "", config, {"processor_class", "auto_map", "limit", "offset"} | settings)
    return config


def _check_keys(path: Path, place: str, found: Any, known: set[str]) -> None:
    names = set(found) if isinstance(found, Mapping) else set()
    for word, wrong in (("lacks", known - names), ("holds the unknown", names - known)):
        if wrong:
            raise ValueError(f"{path}: {word} {', '.join(sorted(wrong))}{place}; save the tokenizer again")


def _read_numbers(path: Path, config: Mapping[str, Any]) -> tuple[dict[str, Tensor], list[float]]:
    """The normaliser, to the last bit of a float64, and the limits."""
    try:
        given = config["normalization"]
        bounds = {name: torch.tensor(given[name], dtype=torch.float64) for name in ("min", "max")}
        return bounds, stored_limit(config)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{path}: 'normalization' or 'limit' are not numbers; save the tokenizer again") from None


def stored_limit(config: Mapping[str, Any]) -> list[float]:
    return [math.inf if largest is None else float(largest) for largest in config["limit"]]


def _read_weights(path: Path) -> dict[str, Tensor]:
    content = _read_bytes(path)
    try:
        return safetensors.load(content)
    except (SafetensorError, ValueError, KeyError):
        raise ValueError(f"{path}: not safetensors, or cut short; save the tokenizer again") from None


def find_folder(folder: str | os.PathLike[str], settings: Mapping[str, Any], contents: str) -> Path:
    """A folder here, or that of the cache which holds a repository of the Hub: its config and this file."""
    if not isinstance(folder, (str, os.PathLike)) or not os.fspath(folder):
        raise ValueError(f"the folder is {_shown(folder)}; name one, or a repository of the Hub")
    if Path(folder).is_dir():
        return Path(folder)
    from huggingface_hub import snapshot_download

    wanted = {setting: settings[setting] for setting in HUB_SETTINGS if setting in settings}
    try:
        return Path(snapshot_download(os.fspath(folder), allow_patterns=[CONFIG_NAME, contents], **wanted))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{folder}: is no folder here, and no repository that could be fetched ({type(error).__name__}); "
            "fix the name, or the connection"
        ) from None
