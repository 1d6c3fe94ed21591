"""KLT-RFSQ tokens of fixed length behind the interface that FAST made common, as `rfsq_tokenizer` has it for RFSQ.

    tokenizer = KltTokenizer.from_file("klt_rfsq.npz")
    tokens = tokenizer(actions)          # (B, C, A) in controller units -> B lists of ids, for LIBERO 37 each
    actions = tokenizer.decode(tokens)   # -> (B, C, A)

A sequence is each gripper's token, then the residual codes in the order in which they take away error. Ids, the offset
first: one for each trajectory of the first gripper, of the second, and so on, then three for the residual codes of
layer 0 of whatever latent, three for those of layer 1, and so on.

Every sequence of 1 to `tokens_per_chunk` ids of the vocabulary decodes:
    - The position says the range, and an id is read as the code (id - first of the range) mod its size, whichever
      range it is of.
    - Residual codes that are missing at the end leave the latents as they are. A gripper whose token is missing, where
      there are several and the sequence ends among them, goes the most common trajectory, code 0.
    - What is decoded is clipped to what the controller takes, or, where it does not clip, to the train range.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from rfsq_tokenizer import (
    CONFIG_NAME,
    ActionTokenizer,
    Integers,
    find_folder,
    read_config,
    read_episodes,
    stored_limit,
    whole,
)
from workbook.codecs.klt_rfsq import BRANCHES, Codes, FixedLength, KltRFSQ, VariableLength
from workbook.codecs.klt_rfsq_file import FILE_NAME, load_klt_rfsq, save_klt_rfsq
from workbook.codecs.protocol import NOT_SENT, Tokens
from workbook.common.array import Array
from workbook.common.errors import InputError
from workbook.data.chunks import Normaliser
from workbook.data.layout import LIBERO_NAME, ActionLayout
from workbook.export import klt_tokenizer_loader

RESIDUAL_CODES = 36  # as the report has them
# What a saved folder calls the number of residual codes: its first name, so that folders saved before load.
STORED_COUNT = "digits"
LOADER = Path(klt_tokenizer_loader.__file__)


class KltTokenizer(ActionTokenizer):
    """Action chunks to token ids and back.

    Args:
        model: as fitted, or as a file holds it.
        residual_codes: how many follow the grippers' tokens; fewer where the latents have no more.
        offset: the first id, where a policy's vocabulary has other tokens before.
        limit: the largest command that the controller takes, one number or one a dimension; infinite for those that it
            does not clip, as joints. None is 1, and a train range beyond that an error.

    Raises:
        ValueError: a number that cannot be.
    """

    def __init__(
        self, model: KltRFSQ, residual_codes: int = RESIDUAL_CODES, offset: int = 0, limit: ArrayLike | None = None
    ) -> None:
        self.codec = FixedLength(model, whole("residual_codes", residual_codes, 1))
        super().__init__(model.shape[0], offset, limit, model.normaliser.low, model.normaliser.high)
        self._parts = f"{len(model.grippers)} of grippers and {len(self.codec.residual_codes)} residual codes"

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        residual_codes: int = RESIDUAL_CODES,
        offset: int = 0,
        limit: ArrayLike | None = None,
    ) -> KltTokenizer:
        """The tokenizer of a file that a run wrote; arguments and errors as of the class, and of `load_klt_rfsq`."""
        model = _read(Path(path))
        try:
            return cls(model, residual_codes, offset, limit)
        except ValueError as error:
            raise InputError(f"{os.fspath(path)}: {error}") from None

    @classmethod
    def fit(
        cls,
        actions: ArrayLike | Tensor | Sequence[ArrayLike | Tensor],
        layout: str = LIBERO_NAME,
        residual_codes: int = RESIDUAL_CODES,
        offset: int = 0,
        limit: ArrayLike | None = None,
    ) -> KltTokenizer:
        """Fit on raw actions, which takes seconds and trains nothing.

        Args:
            actions: (N, C, A) chunks, or a list of (C, A) chunks.
            layout: what the numbers of an action are, as of `ActionLayout.parse`.
            residual_codes, offset: as of the class.
            limit: None is that of the layout.

        Raises:
            ValueError: actions that are NaN, infinite or of the wrong shape, or a bad parameter.
        """
        groups = ActionLayout.parse(layout)
        chunks = read_episodes(actions)
        for number, chunk in enumerate(chunks):
            if chunk.shape != (len(chunks[0]), groups.dim):
                raise InputError(
                    f"chunk {number} of actions has shape {chunk.shape}; give chunks of {len(chunks[0])} steps, as the "
                    f"first, of {groups.dim} numbers, which are those of layout '{groups.spec}'"
                )
        train = np.stack(chunks)
        model = KltRFSQ.fit(train, groups, Normaliser.fit(train.reshape(-1, groups.dim)))
        return cls(model, residual_codes, offset, groups.limit if limit is None else limit)

    @cached_property
    def _ranges(self) -> tuple[Integers, Integers]:
        books = np.array([len(book.trajectories) for book in self.codec.model.grippers], dtype=np.int64)
        layers = np.array([layer for _, _, layer in self.codec.residual_codes], dtype=np.int64)
        first = np.concatenate([books.cumsum() - books, books.sum() + BRANCHES * layers])
        return first, np.concatenate([books, np.full_like(layers, BRANCHES)])

    def _encode(self, chunks: Array) -> Integers:
        return self.codec.encode(chunks).codes if len(chunks) else np.zeros((0, self.tokens_per_chunk), dtype=np.int64)

    def _decode(self, codes: Codes) -> Array:
        grippers = slice(len(self.codec.model.grippers))
        codes[:, grippers] = np.maximum(codes[:, grippers], 0)
        return self.codec.decode(Tokens(codes))

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write a folder that `from_pretrained` loads, and transformers' AutoProcessor where the workbook is installed.

        It is made where it does not exist. Its `klt_rfsq.npz` holds the model, without the rates that a run fitted.
        """
        with tempfile.TemporaryDirectory() as made:
            path = Path(made) / FILE_NAME
            save_klt_rfsq(path, [VariableLength(self.codec.model, multiplier=0.0, rate=np.inf)])
            files = {FILE_NAME: path.read_bytes(), LOADER.name: LOADER.read_bytes()}
        self._save(Path(folder), files, LOADER.stem, **{STORED_COUNT: self.codec.count})

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str], **settings: Any) -> KltTokenizer:
        """Load a folder that `save_pretrained` wrote, or a repository on the Hub that holds one; nothing is executed.

        Args:
            folder, settings: as of `RFSQTokenizer.from_pretrained`.

        Raises:
            ValueError: not found, or a file that is missing, damaged or does not fit the others.
        """
        root = find_folder(folder, settings, FILE_NAME)
        path = root / CONFIG_NAME
        config = read_config(path, "a KltTokenizer", {STORED_COUNT})
        try:
            limit = stored_limit(config)
        except (TypeError, ValueError):
            raise InputError(f"{path}: 'limit' holds something else than numbers; save the tokenizer again") from None
        try:
            model = _read(root / FILE_NAME)
        except InputError:
            raise InputError(
                f"{root / FILE_NAME}: is missing, cut short or no KLT-RFSQ; save the tokenizer again"
            ) from None
        try:
            count = whole(STORED_COUNT, config[STORED_COUNT], 1)
            return cls(model, count, config["offset"], limit)
        except ValueError as error:
            raise InputError(f"{path}: {error}") from None


def _read(path: Path) -> KltRFSQ:
    """Raises InputError as `load_klt_rfsq`, and for arrays that do not fit each other or do not decode to numbers."""
    codecs = load_klt_rfsq(path)
    if not codecs or not _fits(codecs[0].model):
        raise InputError(
            f"{path}: holds arrays that do not fit each other, or NaN, or numbers that overflow; run ./run_all.sh again"
        )
    return codecs[0].model


@np.errstate(over="ignore", invalid="ignore")
def _fits(model: KltRFSQ) -> bool:
    """Whether no residual codes and the greatest decode to finite actions."""
    low, high, shape = model.normaliser.low, model.normaliser.high, (2, *model.shape)
    try:
        codec = FixedLength(model, len(model.residual_codes))
        codes = codec.encode(np.broadcast_to(model.normaliser.centre, shape)).codes
        codes[:, len(model.grippers) :] = [[NOT_SENT], [BRANCHES - 1]]
        decoded = codec.decode(Tokens(codes))
    except (IndexError, ValueError, TypeError):
        return False
    within = low.shape == high.shape == model.shape[1:] and bool((low <= high).all())
    return within and decoded.shape == shape and bool(np.isfinite(decoded).all())
