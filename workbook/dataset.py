"""The prepared data set: what `01_data` writes and every later stage reads."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from workbook.chunks import Chunks, Normaliser, cut_chunks
from workbook.episodes import Clipping, Episode, check_episodes, clip_episodes, take_evenly
from workbook.errors import InputError
from workbook.libero_hdf5 import read_episodes
from workbook.paths import OutputFolder, replacing
from workbook.split import Split, split_episodes
from workbook.stages import stage_path

FILE_NAME = "dataset.h5"


@dataclass(frozen=True, eq=False)
class Dataset:
    """Episodes in controller units, clipped; the split; the normaliser fitted on its train part."""

    episodes: tuple[Episode, ...]
    split: Split
    normaliser: Normaliser
    chunk_len: int
    stride: int

    def part(self, name: str) -> list[Episode]:
        return [self.episodes[position] for position in self.split.parts()[name]]

    def train_chunks(self) -> Chunks:
        return self._cut("train", self.stride)

    def held_out_chunks(self, name: str) -> Chunks:
        """Chunks of the validation or test part that cover every step once."""
        return self._cut(name, self.chunk_len)

    def _cut(self, name: str, stride: int) -> Chunks:
        return cut_chunks([episode.actions for episode in self.part(name)], self.chunk_len, stride)

    @property
    def sha256(self) -> str:
        """Hash of the actions, in order, as they are used."""
        digest = hashlib.sha256()
        for episode in self.episodes:
            digest.update(f"{len(episode.actions)} steps".encode())
            digest.update(np.ascontiguousarray(episode.actions).tobytes())
        return digest.hexdigest()


def prepare_dataset(
    data: Path, num_episodes: int = 0, chunk_len: int = 8, stride: int = 8, split_seed: int = 0
) -> tuple[Dataset, Clipping]:
    """Read, check, clip, split, and fit the normaliser on the train episodes.

    Raises:
        InputError: anything in the data that would make the results meaningless.
    """
    recorded = take_evenly(read_episodes(data), num_episodes)
    check_episodes(recorded, chunk_len)
    episodes, clipping = clip_episodes(recorded)
    split = split_episodes(episodes, split_seed)
    normaliser = Normaliser.fit(np.concatenate([episodes[position].actions for position in split.train]))
    dataset = Dataset(tuple(episodes), split, normaliser, chunk_len, stride)
    dataset.train_chunks()  # a wrong stride is refused here, not two stages later
    return dataset, clipping


def save_dataset(dataset: Dataset, out: OutputFolder) -> Path:
    """Write stages/dataset.h5; the card of the data set before it goes first, so that the two cannot be mixed up."""
    path = out.stages / FILE_NAME
    path.parent.mkdir(exist_ok=True)
    stage_path(out, "data").unlink(missing_ok=True)
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update(chunk_len=dataset.chunk_len, stride=dataset.stride)
        for name, positions in dataset.split.parts().items():
            file[f"split/{name}"] = np.array(positions, dtype=np.int64)
        file["normaliser/low"] = dataset.normaliser.low
        file["normaliser/high"] = dataset.normaliser.high
        lengths = [len(episode.actions) for episode in dataset.episodes]
        file["episodes/lengths"] = lengths
        file.create_dataset(
            "episodes/actions", data=np.concatenate([e.actions for e in dataset.episodes]), compression="gzip"
        )
        for name in ("task", "source", "key"):
            _write_strings(file, f"episodes/{name}", [getattr(e, name) for e in dataset.episodes])
    return path


def load_dataset(out: OutputFolder) -> Dataset:
    """Read what `save_dataset` wrote.

    Raises:
        InputError: 01_data has not been run for this folder.
    """
    path = out.stages / FILE_NAME
    try:
        file = h5py.File(path, "r")
    except OSError:
        raise InputError(f"{path}: not there, or damaged; run 01_data with the same `out` first") from None
    with file:
        ends = np.cumsum(file["episodes/lengths"][()])[:-1]
        actions = np.split(file["episodes/actions"][()], ends)
        labels = zip(*(file[f"episodes/{name}"].asstr()[()] for name in ("task", "source", "key")), strict=True)
        return Dataset(
            tuple(Episode(a, *label) for a, label in zip(actions, labels, strict=True)),
            Split(**{name: tuple(map(int, file[f"split/{name}"][()])) for name in ("train", "validation", "test")}),
            Normaliser(file["normaliser/low"][()], file["normaliser/high"][()]),
            int(file.attrs["chunk_len"]),
            int(file.attrs["stride"]),
        )


def _write_strings(file: h5py.File, name: str, values: Sequence[str]) -> None:
    file.create_dataset(name, data=list(values), dtype=h5py.string_dtype())
