"""Recordings written in every format that is read, and changed afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from made_up import TASK
from numpy.typing import ArrayLike, NDArray

from workbook.data.sources.read import read_recorded_starts, read_recordings

Demos = Sequence[tuple[str, NDArray[np.float64]]]  # (task, actions) of each episode
FILE, OTHER_FILE = (f"data/chunk-000/file-{number:03d}.parquet" for number in (0, 1))
INFO, TASK_TABLE, TASK_LINES = "meta/info.json", "meta/tasks.parquet", "meta/tasks.jsonl"


def write_libero(
    path: Path, demos: Mapping[str, ArrayLike], task: str | None = TASK, control_freq: float | None = None
) -> Path:
    """Write {demo key: actions} in LIBERO's HDF5 layout; without task or rate, the file does not say them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        if task is not None:
            data.attrs["problem_info"] = json.dumps({"problem_name": "test", "language_instruction": task})
        if control_freq is not None:
            data.attrs["env_args"] = json.dumps({"env_kwargs": {"control_freq": control_freq}})
        for key, actions in demos.items():
            data.create_dataset(f"{key}/actions", data=actions)
    return path


def write_libero_folder(folder: Path, demos: Demos, control_freq: float | None = 20) -> Path:
    """One HDF5 file a task, in the order in which the tasks appear, at the rate that the other formats are given."""
    tasks = list(dict.fromkeys(task for task, _ in demos))
    for position, task in enumerate(tasks):
        of_task = [actions for name, actions in demos if name == task]
        keyed = {f"demo_{number}": actions for number, actions in enumerate(of_task)}
        write_libero(folder / f"{position}_{task.replace(' ', '_')}_demo.hdf5", keyed, task, control_freq)
    return folder


def lerobot_table(
    demos: Demos,
    first_episode: int = 0,
    tasks: Sequence[str] | None = None,
    column: str = "action",
    image_bytes: int = 0,
    seed: int = 0,
    fps: float = 20,
) -> pa.Table:
    """Rows of LeRobot's data files: float32 actions, the indices, and images of so many bytes a frame, if any."""
    tasks = tasks or list(dict.fromkeys(task for task, _ in demos))
    actions = np.concatenate([actions for _, actions in demos]).astype(np.float32)
    lengths = [len(actions) for _, actions in demos]
    columns = {
        column: pa.FixedSizeListArray.from_arrays(pa.array(actions.ravel()), actions.shape[1]),
        "timestamp": pa.array(np.concatenate([np.arange(n) / fps for n in lengths]).astype(np.float32)),
        "frame_index": pa.array(np.concatenate([np.arange(n) for n in lengths])),
        "episode_index": pa.array(np.repeat(np.arange(first_episode, first_episode + len(demos)), lengths)),
        "index": pa.array(np.arange(sum(lengths))),
        "task_index": pa.array(np.repeat([tasks.index(task) for task, _ in demos], lengths)),
    }
    if image_bytes:
        rng = np.random.default_rng(seed)
        pictures = [{"bytes": rng.bytes(image_bytes), "path": None} for _ in range(len(actions))]
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        columns = {"observation.images.image": pa.array(pictures, kind), **columns}
    return pa.table(columns)


def write_lerobot_v3(folder: Path, demos: Demos, episodes_a_file: int = 1000, **table: object) -> Path:
    """LeRobot v3: many episodes a file, tasks in meta/tasks.parquet with the instruction as the frame's index."""
    tasks = list(dict.fromkeys(task for task, _ in demos))
    write_info(folder, "v3.0", demos)
    named = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "__index_level_0__": pa.array(tasks)})
    pq.write_table(named, folder / "meta" / "tasks.parquet")
    for number, start in enumerate(range(0, len(demos), episodes_a_file)):
        part = demos[start : start + episodes_a_file]
        write_parquet(
            folder / f"data/chunk-000/file-{number:03d}.parquet",
            lerobot_table(part, start, tasks, seed=number, **table),  # type: ignore[arg-type]
        )
    return folder


def write_lerobot_v2(folder: Path, demos: Demos, **table: object) -> Path:
    """LeRobot v2: one episode a file, tasks in meta/tasks.jsonl."""
    tasks = list(dict.fromkeys(task for task, _ in demos))
    write_info(folder, "v2.1", demos)
    lines = [json.dumps({"task_index": number, "task": task}) for number, task in enumerate(tasks)]
    (folder / "meta" / "tasks.jsonl").write_text("\n".join(lines) + "\n")
    for number, demo in enumerate(demos):
        rows = lerobot_table([demo], number, tasks, seed=number, **table)  # type: ignore[arg-type]
        write_parquet(folder / f"data/chunk-000/episode_{number:06d}.parquet", rows)
    return folder


def write_info(folder: Path, version: str, demos: Demos, fps: int = 20) -> None:
    (folder / "meta").mkdir(parents=True, exist_ok=True)
    info = {
        "codebase_version": version,
        "fps": fps,
        "total_episodes": len(demos),
        "total_frames": sum(len(actions) for _, actions in demos),
    }
    (folder / "meta" / "info.json").write_text(json.dumps(info))


def write_parquet(path: Path, table: pa.Table) -> Path:
    """With row groups of 100 rows where there are images, as the `datasets` library writes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    has_images = any(name.startswith("observation.images") for name in table.column_names)
    pq.write_table(table, path, row_group_size=100 if has_images else None)
    return path


def rewrite(folder: Path, change: Callable[[pa.Table], pa.Table], file: str = FILE) -> Path:
    """Change the rows of one data file; returns the data set's folder."""
    pq.write_table(change(pq.read_table(folder / file)), folder / file)
    return folder


def write_chunk_file(path: Path, demos: Demos, chunk_len: int = 8) -> Path:
    """The existing pipeline's .pt: chunks normalised by min -1 and max 1, which leaves them as they are.

    Lengths must be multiples of `chunk_len`: the format has no place for a tail.
    """
    chunks = [actions.reshape(-1, chunk_len, actions.shape[1]) for _, actions in demos]
    width = chunks[0].shape[2]
    content = {
        "actions": torch.from_numpy(np.concatenate(chunks)).float(),
        "normalization": {"min": torch.full((width,), -1.0), "max": torch.full((width,), 1.0)},
        "metadata": {
            "control_rate_hz": 20,
            "episode_index": torch.from_numpy(np.repeat(np.arange(len(chunks)), [len(part) for part in chunks])),
            "task": [task for (task, _), part in zip(demos, chunks, strict=True) for _ in part],
        },
    }
    torch.save(content, path)
    return path


def write_as_libero_does(path: Path, source: Path, count: int) -> None:
    """The first demos of a file of the sample as LIBERO's own files hold them: `states`, `model_file` and a path of
    another machine. Needs the simulator.
    """
    from workbook.simulation.scene import Scene

    episodes = read_recordings(source).episodes[:count]
    starts = [start for start in read_recorded_starts(source, episodes) if start is not None]
    model = Scene(starts[0].task_file)._sim.model.get_xml()
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["bddl_file_name"] = f"chiliocosm/bddl_files/{starts[0].task_file}"
        for number, (episode, start) in enumerate(zip(episodes, starts, strict=True)):
            demo = data.create_group(f"demo_{number}")
            demo["actions"] = episode.actions
            demo["states"] = np.stack([start.state, start.state + 1])
            demo.attrs["model_file"] = model
