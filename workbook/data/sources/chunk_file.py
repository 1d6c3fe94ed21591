"""Reader of the existing pipeline's .pt files: normalised chunks, and the samples that it collects for Phase 2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from workbook.common.errors import InputError
from workbook.common.note import Note, note
from workbook.data.episodes import Episode, Origin, Recordings, control_rate
from workbook.data.sources.collected import STEPS_OF_A_BLOCK, motion_of
from workbook.data.sources.files import one_line
from workbook.data.sources.torch_file import loaded

SUFFIXES = (".pt", ".pth")
# Of the range; float32 and the 1e-6 that is often added to the range before dividing by it are off by less.
NEARLY_ZERO = 2e-6
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
OVERLAPPING = 0.2  # share of the chunks that move; in recordings hardly any motion is repeated to the last bit
EPISODE_KEYS = ("episode", "episode_index")
RAW = "raw_action"  # of a sample: what the policy predicted at a step


def read_file(path: Path) -> Recordings:
    """Episodes in the units of the 'normalization' that the file carries, or as they are where it carries none.

    The file: {'actions': (N, C, A), 'normalization': {'min': (A,), 'max': (A,)}, 'metadata': {'episode_index': (N,),
    'task': one or N, 'control_rate_hz'}}, of which only 'actions' is required; or a list of samples, one a step,
    {'raw_action': (C, A), 'task_id', 'task_description'} each. Nothing in the file is ever executed.

    Raises:
        InputError: not such a file, cut short, or with Python objects in it.
    """
    content = _load(path)
    if isinstance(content, Mapping):
        episodes, notes = _of_chunks(path, content)
        return Recordings(episodes, Origin("chunks", str(path), notes=tuple(notes)))
    episodes, notes = _of_samples(path, content)
    return Recordings(episodes, Origin("samples", str(path), notes=tuple(notes)))


def _of_chunks(path: Path, content: Mapping[str, Any]) -> tuple[list[Episode], list[Note]]:
    chunks = _numbers(content.get("actions"), f"{path}, 'actions'", 3)
    metadata = content.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    raw, notes = _denormalise(path, chunks, content.get("normalization"))
    _refuse_overlap(path, chunks)
    owner, said = _owners(path, len(chunks), chunks.shape[1], metadata)
    tasks = _tasks(path, metadata, len(chunks))
    rate = control_rate(_plain(metadata.get("control_rate_hz")))
    episodes = []
    for number in dict.fromkeys(owner.tolist()):
        mine = owner == number
        actions = raw[mine].reshape(-1, raw.shape[2])
        task = tasks[int(np.argmax(mine))]
        episodes.append(Episode(actions, task, path.name, f"episode {number}", control_rate_hz=rate))
    return episodes, notes + said


def _of_samples(path: Path, samples: Sequence[Mapping[str, Any]]) -> tuple[list[Episode], list[Note]]:
    """One action a step, from chunks that were recorded or predicted anew at every step."""
    chunks = [_numbers(one.get(RAW), f"{path}, sample {n}, '{RAW}'", 2) for n, one in enumerate(samples)]
    other = next((number for number, chunk in enumerate(chunks) if chunk.shape != chunks[0].shape), None)
    if other is not None:
        raise InputError(
            f"{path}, sample {other}, '{RAW}': has shape {chunks[other].shape}, and {chunks[0].shape} in the first; "
            "save samples of one shape"
        )
    tasks = [_task_of_sample(one, path) for one in samples]
    motion = motion_of(np.stack(chunks), tasks)
    episodes = [
        Episode(actions, tasks[start], path.name, f"from sample {start}") for start, actions in motion.pieces.items()
    ]
    rule = note("samples_overlap") if motion.overlap else note("first_actions", repeated=motion.repeated)
    blocks = [note("blocks_of_samples", block=motion.block)] if motion.block else []
    return episodes, [note("without_normalization"), rule, *blocks]


def _task_of_sample(sample: Mapping[str, Any], path: Path) -> str:
    said = _plain(sample.get("task_description")), _plain(sample.get("task_id"))
    if isinstance(said[0], str) and said[0]:
        return said[0]
    return f"task {said[1]}" if isinstance(said[1], (int, str)) else path.stem.replace("_", " ")


def _load(path: Path) -> Mapping[str, Any] | list[Mapping[str, Any]]:
    content = loaded(path, "copy again the file that the existing pipeline wrote")
    if isinstance(content, list) and content and all(isinstance(one, Mapping) and RAW in one for one in content):
        return content
    if not isinstance(content, Mapping) or "actions" not in content:
        raise InputError(f"{path}: has no 'actions'; give a file with {{'actions': (N, 8, 7) tensor, ...}}")
    return content


def _numbers(value: Any, place: str, dimensions: int | None = None) -> NDArray[np.float64]:
    """A tensor, an array, or a list of numbers, as float64; of so many dimensions, if it is said."""
    tensor = _from_list(value) if isinstance(value, (list, tuple)) else value
    if isinstance(tensor, np.ndarray) and tensor.dtype.kind in "fiu":
        tensor = torch.from_numpy(tensor.astype(np.float64))
    if not isinstance(tensor, torch.Tensor) or not _holds_numbers(tensor):
        raise InputError(f"{place}: is no tensor of numbers; save it again as one")
    if 0 in tensor.shape or dimensions not in (None, tensor.dim()):
        raise InputError(
            f"{place}: has shape {tuple(tensor.shape)}, expected {dimensions or 1} dimension(s), none empty; "
            "save it again"
        )
    try:
        return tensor.detach().double().numpy()
    except RuntimeError as error:
        raise InputError(f"{place}: cannot be held in memory ({one_line(error)}); save less in one file") from None


def _from_list(values: Sequence[Any]) -> torch.Tensor | None:
    plain = [_plain(item) for item in values]
    if not plain or not all(isinstance(item, (int, float)) and not isinstance(item, bool) for item in plain):
        return None
    try:
        return torch.tensor([float(item) for item in plain], dtype=torch.float64)
    except OverflowError:
        return None


def _plain(value: Any) -> Any:
    """Numbers and texts of numpy, and a tensor of one number, as Python's own: list(array) holds such."""
    if isinstance(value, torch.Tensor):
        return value.item() if value.dim() == 0 and _holds_numbers(value) else value
    return value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value


def _holds_numbers(tensor: torch.Tensor) -> bool:
    """A plain tensor in memory: not sparse, nested, quantized or without content."""
    plain = tensor.layout == torch.strided and not tensor.is_nested and not tensor.is_quantized
    return plain and tensor.device.type == "cpu" and (tensor.dtype.is_floating_point or tensor.dtype in INTEGERS)


def _denormalise(path: Path, chunks: NDArray[np.float64], bounds: Any) -> tuple[NDArray[np.float64], list[Note]]:
    if bounds is None:
        return chunks, [note("without_normalization")]
    if not isinstance(bounds, Mapping) or not {"min", "max"} <= set(bounds):
        raise InputError(f"{path}: 'normalization' has no 'min' and 'max'; save it again with both")
    low, high = (_bound(path, bounds[end], end, chunks.shape[2]) for end in ("min", "max"))
    if (high < low).any():
        raise InputError(f"{path}: 'normalization' has a 'min' above its 'max'; save it again")
    raw = (chunks + 1) / 2 * (high - low) + low
    # A float32 chunk seldom holds the value that stands for exactly 0, which the controller treats apart.
    raw[np.abs(raw) <= NEARLY_ZERO * (high - low)] = 0.0
    return raw, [note("brought_back")]


def _bound(path: Path, value: Any, end: str, width: int) -> NDArray[np.float64]:
    bound = _numbers(value, f"{path}, 'normalization', '{end}'")
    if bound.size not in (1, width) or not np.isfinite(bound).all():
        raise InputError(
            f"{path}, 'normalization', '{end}': is not {width} finite numbers, one a dimension of the actions; "
            "save it again"
        )
    return np.broadcast_to(bound.ravel(), (width,))


def _owners(path: Path, count: int, length: int, metadata: Mapping[str, Any]) -> tuple[NDArray[np.int64], list[Note]]:
    """Which episode each chunk is of: (N,)."""
    key = next((key for key in EPISODE_KEYS if metadata.get(key) is not None), None)
    if key is not None:
        numbers = _numbers(metadata[key], f"{path}, 'metadata', '{key}'", 1)
        if numbers.shape != (count,):
            raise InputError(f"{path}: 'metadata' names {len(numbers)} episodes for {count} chunks; save it again")
        if not (np.isfinite(numbers) & (numbers == np.rint(numbers)) & (np.abs(numbers) < 2**53)).all():
            raise InputError(f"{path}, 'metadata', '{key}': holds other than whole numbers; save it again")
        return numbers.astype(np.int64), []
    block = max(1, STEPS_OF_A_BLOCK // length)
    last = max(count // block - 1, 0)  # takes what is left over, too
    return np.minimum(np.arange(count) // block, last), [note("episodes_not_said", block=block)]


def _refuse_overlap(path: Path, chunks: NDArray[np.float64]) -> None:
    """Overlapping windows would count steps twice, and put the same step on both sides of the split.

    In whatever order they lie: the end of one is then the beginning of another. Ends that stand still prove nothing.
    """
    length = chunks.shape[1]
    for shift in range(1, length - 1):
        ends, beginnings = chunks[:, shift:], chunks[:, : length - shift]
        moving = ends[np.ptp(ends, axis=1).any(axis=1)]
        known = {beginning.tobytes() for beginning in beginnings}
        found = sum(end.tobytes() in known for end in moving)
        if found > OVERLAPPING * len(moving):
            raise InputError(
                f"{path}: its chunks overlap (one begins {shift} step(s) after another), so no episode can be held "
                f"out; save every {length}th step's chunk, or give the recordings that it was made from"
            )


def _tasks(path: Path, metadata: Mapping[str, Any], count: int) -> list[str]:
    """One task a chunk: metadata 'task', one for all or a list; the file's name where there is none."""
    task = _plain(metadata.get("task"))
    if isinstance(task, (list, tuple)):
        if len(task) != count:
            raise InputError(f"{path}: 'metadata' names {len(task)} tasks for {count} chunks; save it again")
        return [str(name) for name in task]
    return [task if isinstance(task, str) and task else path.stem.replace("_", " ")] * count
