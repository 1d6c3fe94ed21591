"""The prepared data set: what `01_data` writes and every later stage reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from workbook.common.errors import InputError
from workbook.common.paths import OutputFolder, replacing
from workbook.common.stages import stage_path
from workbook.data.chunks import Chunks, Normaliser, cut_chunks
from workbook.data.cleaning import Changes, clip_episodes, drop_noops, limit_outliers
from workbook.data.config import DataConfig
from workbook.data.episodes import CONTROL_RATE_HZ, Episode, LeftOut, Origin, Start, take_evenly
from workbook.data.grippers import find_openings, unify_grippers
from workbook.data.layout import ActionLayout
from workbook.data.left_out import Copy, check_left_out, leave_out_copies, leave_out_emptied, leave_out_unusable
from workbook.data.names import check_names
from workbook.data.sources.read import read_recorded_starts, read_recordings
from workbook.data.split import Split, split_episodes, split_fold

FILE_NAME = "dataset.h5"
LABELS = ("task", "source", "key", "session")


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Episodes in controller units, clipped; the split; the normaliser fitted on its train part.

    starts: position of an episode -> where it began in the simulator, of those recordings that say it.
    """

    layout: ActionLayout
    episodes: tuple[Episode, ...]
    split: Split
    normaliser: Normaliser
    chunk_len: int
    stride: int
    starts: Mapping[int, Start] = field(default_factory=dict)

    def __repr__(self) -> str:
        steps = sum(len(episode.actions) for episode in self.episodes)
        return f"Dataset({len(self.episodes)} episodes, {steps} steps, chunks of {self.chunk_len}, {self.layout.spec})"

    @property
    def test_starts(self) -> dict[int, Start]:
        """Those of the test episodes."""
        return {position: self.starts[position] for position in self.split.test if position in self.starts}

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
    def control_rate_hz(self) -> float:
        """Steps a second, of the first episode that says it; LIBERO's where none does."""
        said = (episode.control_rate_hz for episode in self.episodes)
        return next((rate for rate in said if rate is not None), CONTROL_RATE_HZ)

    @property
    def sha256(self) -> str:
        """Hash of the actions, in order, as they are used."""
        digest = hashlib.sha256()
        for episode in self.episodes:
            digest.update(f"{len(episode.actions)} steps".encode())
            digest.update(np.ascontiguousarray(episode.actions).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Prepared:
    """A data set, what was changed on the way to it, where it comes from, and of how many episodes it was taken.

    accepted: a verdict is wanted even if the data do not look like robot motion.
    """

    dataset: Dataset
    changes: Changes
    origin: Origin
    episodes_read: int
    accepted: bool = False


def prepare_dataset(
    data: str | Path, config: DataConfig | None = None, on_progress: Callable[[int, int], None] | None = None
) -> Prepared:
    """Read, check, bring to one convention, clip, split, and fit the normaliser on the train episodes.

    Raises:
        InputError: anything in the data that would make the results meaningless.
    """
    config = config or DataConfig()
    layout = config.check()
    recordings = read_recordings(data, config.read_options, on_progress)
    check_names(recordings.names, layout, recordings.origin.name)
    distinct, copies = leave_out_copies(recordings.episodes)
    usable, unusable = leave_out_unusable(distinct, layout, config.chunk_len)
    left_out = (*recordings.left_out, *unusable)
    check_left_out(left_out, len(usable), config.max_left_out)
    episodes = take_evenly(usable, config.num_episodes)
    layout = find_openings(episodes, layout)
    episodes, grippers = unify_grippers(episodes, layout, config.gripper_open)
    dropped = None
    if config.drop_noops:
        episodes, dropped = drop_noops(episodes, layout)
        episodes, emptied = leave_out_emptied(episodes, config.chunk_len)
        left_out = (*left_out, *emptied)
    split = _split(episodes, config, copies, left_out)
    episodes, outliers = limit_outliers(episodes, split.train, layout, config.outliers == "clip")
    episodes, clipping = clip_episodes(episodes, layout)
    normaliser = Normaliser.fit(np.concatenate([episodes[position].actions for position in split.train]))
    # Steps that are left out are missing from the way that the simulator would go.
    found = [] if config.drop_noops else read_recorded_starts(data, episodes)
    starts = {position: start for position, start in enumerate(found) if start is not None}
    dataset = Dataset(layout, tuple(episodes), split, normaliser, config.chunk_len, config.stride, starts)
    changes = Changes(copies, left_out, grippers, dropped, outliers, clipping)
    read = len(recordings.episodes) + len(recordings.left_out)
    return Prepared(dataset, changes, recordings.origin, read, config.accept_data)


def _split(episodes: list[Episode], config: DataConfig, copies: Sequence[Copy], left_out: Sequence[LeftOut]) -> Split:
    """Split, and where too few episodes are left, say where the others are."""
    try:
        if config.folds:
            return split_fold(episodes, config.split_seed, config.fold, config.folds)
        return split_episodes(episodes, config.split_seed)
    except InputError as error:
        others = ""
        if copies:
            others += f"; {len(copies)} more are copies: {copies[0][0]} is the same recording as {copies[0][1]}"
        if left_out:
            others += f"; {len(left_out)} more cannot be used: {left_out[0].sentence}"
        raise InputError(f"{error}{others}") from None


def save_dataset(dataset: Dataset, out: OutputFolder) -> Path:
    """Write stages/dataset.h5; the card of the data set before it goes first, so that the two cannot be mixed up.

    It gets its name when it is whole, so neither writing nor reading it takes a lock, which not every disk has.
    """
    path = out.stages / FILE_NAME
    path.parent.mkdir(exist_ok=True)
    stage_path(out, "data").unlink(missing_ok=True)
    with replacing(path) as temporary, h5py.File(temporary, "w", locking=False) as file:
        file.attrs.update(chunk_len=dataset.chunk_len, stride=dataset.stride, layout=dataset.layout.spec)
        for name, positions in dataset.split.parts().items():
            file[f"split/{name}"] = np.array(positions, dtype=np.int64)
        file["normaliser/low"] = dataset.normaliser.low
        file["normaliser/high"] = dataset.normaliser.high
        lengths = [len(episode.actions) for episode in dataset.episodes]
        file["episodes/lengths"] = lengths
        file.create_dataset(
            "episodes/actions", data=np.concatenate([e.actions for e in dataset.episodes]), compression="gzip"
        )
        rates = [episode.control_rate_hz for episode in dataset.episodes]
        file["episodes/control_rate_hz"] = np.array(rates, dtype=np.float64)  # NaN where nothing says it
        for name in LABELS:
            _write_strings(file, f"episodes/{name}", [getattr(e, name) for e in dataset.episodes])
        for position, start in dataset.starts.items():
            group = file.create_group(f"starts/{position}")
            group["state"] = start.state
            group.attrs.update(
                task_file=start.task_file,
                fixtures=json.dumps(start.fixtures),
                final_state_sha256=start.final_state_sha256,
            )
    return path


def load_dataset(out: OutputFolder) -> Dataset:
    """Read what `save_dataset` wrote.

    Raises:
        InputError: 01_data has not been run for this folder.
    """
    path = out.stages / FILE_NAME
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError:
        raise InputError(f"{path}: not there, or damaged; run 01_data with the same `out` first") from None
    with file:
        if "layout" not in file.attrs:
            raise InputError(f"{path}: was written by an earlier version; run 01_data again")
        return Dataset(
            ActionLayout.parse(file.attrs["layout"]),
            tuple(_read_saved_episodes(file["episodes"])),
            Split(**{name: tuple(map(int, file[f"split/{name}"][()])) for name in ("train", "validation", "test")}),
            Normaliser(file["normaliser/low"][()], file["normaliser/high"][()]),
            int(file.attrs["chunk_len"]),
            int(file.attrs["stride"]),
            {int(position): _read_saved_start(group) for position, group in file.get("starts", {}).items()},
        )


def _read_saved_start(group: h5py.Group) -> Start:
    said = group.attrs
    return Start(said["task_file"], group["state"][()], json.loads(said["fixtures"]), said["final_state_sha256"])


def _read_saved_episodes(group: h5py.Group) -> list[Episode]:
    actions = np.split(group["actions"][()], np.cumsum(group["lengths"][()])[:-1])
    task, source, key, session = (group[name].asstr()[()] for name in LABELS)
    rates = (None if np.isnan(rate) else float(rate) for rate in group["control_rate_hz"][()])
    return [Episode(*row) for row in zip(actions, task, source, key, session, rates, strict=True)]


def _write_strings(file: h5py.File, name: str, values: Sequence[str]) -> None:
    file.create_dataset(name, data=list(values), dtype=h5py.string_dtype())
