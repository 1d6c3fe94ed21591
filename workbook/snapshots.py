"""Where a training stands after an epoch, as a file from which it can go on."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from workbook.errors import InputError
from workbook.paths import replacing

SUFFIX = ".snapshot"
KEYS = {"of", "model", "optimizer", "generator", "curve", "best", "seconds"}
# What torch raises on bytes that are not its own.
NOT_TORCH = (RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile)


@dataclass(frozen=True)
class Snapshot:
    """path: the file. of: what is trained, as plain values; a training that goes on from the file must be of the same.
    every_seconds: between two writes; 0 writes after every epoch.
    """

    path: Path
    of: Mapping[str, Any]
    every_seconds: float = 0.0

    @staticmethod
    def within(folder: Path, name: str, of: Mapping[str, Any], every_seconds: float) -> Snapshot:
        """A file whose name tells apart what is trained, so that no training meets another's."""
        digest = hashlib.sha256(json.dumps(dict(of), sort_keys=True).encode()).hexdigest()
        return Snapshot(folder / f"{name}_{digest[:12]}{SUFFIX}", of, every_seconds)

    def read(self, epochs: int) -> dict[str, Any] | None:
        """The state that was written last; None where there is none.

        Raises:
            InputError: the file is damaged, of another training, or of more than so many epochs.
        """
        if not self.path.exists():
            return None
        content = self._load()
        for key, now in self.of.items():
            before = content["of"].get(key)
            if before != now:
                raise InputError(
                    f"{self.path}: this training was begun with {key} {before}, not {now}; "
                    "go on with what it was begun with, or begin anew without --resume"
                )
        done = len(content["curve"])
        if done > epochs:
            raise InputError(
                f"{self.path}: this training has done {done} epochs, more than {epochs}; "
                f"ask for {done} or more, or begin anew without --resume"
            )
        return content

    def _load(self) -> dict[str, Any]:
        try:
            digest, _, state = self.path.read_bytes().partition(b"\n")
            if digest == _digest(state):
                content = torch.load(io.BytesIO(state), map_location="cpu", weights_only=True)
                if isinstance(content, dict) and content.keys() == KEYS and isinstance(content["of"], dict):
                    return content
        except (OSError, *NOT_TORCH):
            pass
        raise InputError(f"{self.path}: not the state of a training, or damaged; remove it to begin anew")

    def write(self, state: Mapping[str, Any]) -> None:
        """Replace the file as a whole, so that a process that is killed leaves this state or the one before.

        The hash before it tells a damaged state, and keeps it from passing for a checkpoint.
        """
        buffer = io.BytesIO()
        torch.save({"of": dict(self.of), **state}, buffer)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.path) as temporary:
            temporary.write_bytes(_digest(buffer.getvalue()) + b"\n" + buffer.getvalue())

    def remove_halves(self) -> None:
        """Remove what killed processes left half-written of this file."""
        for half in self.path.parent.glob(f".{self.path.name}.*"):
            half.unlink(missing_ok=True)


def _digest(state: bytes) -> bytes:
    return hashlib.sha256(state).hexdigest().encode()


def remove_snapshots(folder: Path) -> None:
    """Remove the snapshots in a folder, with what killed processes left half-written, and the folder if it is empty."""
    for path in [*folder.glob(f"*{SUFFIX}"), *folder.glob(f".*{SUFFIX}.*")]:
        path.unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()
