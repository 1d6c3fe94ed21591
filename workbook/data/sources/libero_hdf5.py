"""Reader of LIBERO's HDF5 demonstrations: the actions alone, never the images."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import h5py
import numpy as np

from workbook.common.errors import InputError
from workbook.data.episodes import Episode, Start, control_rate
from workbook.data.sources.files import check_is_file, files_below, or_refuse

SUFFIX = ".hdf5"  # of files in a folder; a file that is named itself may have any


def read_file(path: Path) -> list[Episode]:
    """Episodes of one file, in numeric order of the demos.

    Raises:
        InputError: not HDF5, damaged, or no actions in it.
    """
    return _read_file(path, path.name)


def read_folder(folder: Path) -> list[Episode]:
    """Episodes of every HDF5 file below a folder, files in alphabetical order; none where there is no such file.

    Raises:
        InputError: a folder or file that cannot be read.
    """
    files = files_below(folder, SUFFIX)
    return [episode for file in files for episode in _read_file(file, str(file.relative_to(folder)))]


def _read_file(path: Path, source: str) -> list[Episode]:
    check_is_file(path)
    try:
        file = h5py.File(path, "r")
    except PermissionError:
        raise InputError(f"{path}: no permission to read it; fix its permissions") from None
    except (OSError, ValueError):
        raise InputError(
            f"{path}: not an HDF5 file, cut short, or open for writing elsewhere; download it again, or leave it out"
        ) from None
    with file:
        return _read_demos(file, source)


def _read_demos(file: h5py.File, source: str) -> list[Episode]:
    # A damaged file can raise nearly anything from inside h5py, so these reads are fenced one by one.
    group = or_refuse(source, lambda: file.get("data"))
    if not isinstance(group, h5py.Group):
        raise InputError(f"{source}: has no group 'data', so it is not a LIBERO demonstration file")
    keys = or_refuse(source, lambda: sorted(group, key=_numeric_order))
    demos = {key: or_refuse(f"{source}, {key}", partial(group.__getitem__, key)) for key in keys}
    demos = {key: demo for key, demo in demos.items() if isinstance(demo, h5py.Group)}
    if not demos:
        raise InputError(f"{source}: group 'data' holds no demonstration; leave this file out")
    task = or_refuse(source, lambda: _task_name(group, source))
    rate = or_refuse(source, lambda: _control_rate(group))
    return [
        Episode(_read_actions(demo, f"{source}, {key}"), task, source, key, session=source, control_rate_hz=rate)
        for key, demo in demos.items()
    ]


def _read_actions(demo: h5py.Group, place: str) -> np.ndarray:
    actions = or_refuse(place, lambda: demo.get("actions"))
    if not isinstance(actions, h5py.Dataset) or actions.shape is None:
        raise InputError(f"{place}: has no dataset 'actions'; leave this file out or record it again")
    kind = or_refuse(place, lambda: actions.dtype)
    if kind.kind not in "fiu":
        raise InputError(f"{place}: 'actions' holds {kind}, not numbers; convert it to floating point")
    return or_refuse(place, lambda: actions[()].astype(np.float64))


def _numeric_order(key: str) -> tuple[int, str]:
    """demo_10 after demo_9; names without a number come last, in alphabetical order."""
    number = re.search(r"(\d+)$", key)
    return (int(number[1]), key) if number else (2**62, key)


def _task_name(group: h5py.Group, source: str) -> str:
    """The instruction, or the file's name where there is none."""
    named_by_file = re.sub(r"_demo$", "", Path(source).stem).replace("_", " ")
    try:
        instruction = json.loads(group.attrs["problem_info"])["language_instruction"]
    except (KeyError, TypeError, ValueError):
        return named_by_file
    text = " ".join(map(str, instruction)) if isinstance(instruction, list) else str(instruction or "")
    return text.strip('"') or named_by_file


def _control_rate(group: h5py.Group) -> float | None:
    """The environment's control rate in steps a second, where the file says it."""
    try:
        return control_rate(json.loads(group.attrs["env_args"])["env_kwargs"]["control_freq"])
    except (KeyError, TypeError, ValueError):
        return None


FREE_JOINTS = ("freejoint", "joint[@type='free']")


def read_starts(root: Path, episodes: Sequence[Episode]) -> list[Start | None]:
    """The starts of episodes that were read from a file or folder, in their order; None where it holds none.

    Where an episode began is not what the codecs are judged by, so whatever cannot be read is as if it were not there.
    """
    found: dict[str, Start | None] = {}
    for source in dict.fromkeys(episode.source for episode in episodes):
        path = root / source if root.is_dir() else root
        keys = [episode.key for episode in episodes if episode.source == source]
        found |= {f"{source}, {key}": start for key, start in _read_starts_of(path, keys).items()}
    return [found.get(episode.place) for episode in episodes]


def _read_starts_of(path: Path, keys: Sequence[str]) -> dict[str, Start | None]:
    try:
        file = h5py.File(path, "r")
    except (OSError, ValueError):
        return {}
    with file:
        return {key: _read_start(file, key) for key in keys}


def _read_start(file: h5py.File, key: str) -> Start | None:
    with suppress(InputError):
        return or_refuse(key, lambda: _start_of(file["data"], file["data"][key]))
    return None


def _start_of(group: h5py.Group, demo: h5py.Group) -> Start:
    state = demo["states"][0] if "states" in demo else demo.attrs["init_state"]
    model = demo.attrs.get("model_file", "")
    return Start(
        str(group.attrs["bddl_file_name"]),
        np.asarray(state, dtype=np.float64).reshape(-1),
        fixture_poses(str(model)) if model else {},
        str(demo.attrs.get("final_state_sha256", "")),
    )


def fixture_poses(model: str) -> Mapping[str, tuple[float, ...]]:
    """Body -> position (3) and quaternion (4) of every body of a MuJoCo model's world that does not move freely.

    LIBERO places fixtures anew for every recording, by moving bodies of the model; no state holds that.

    Raises:
        ParseError, ValueError: not XML, or a body without a pose.
    """
    world = ElementTree.fromstring(model).find("worldbody")
    bodies = [] if world is None else world.findall("body")
    return {
        body.get("name", ""): (*_numbers(body, "pos", "0 0 0"), *_numbers(body, "quat", "1 0 0 0"))
        for body in bodies
        if all(body.find(joint) is None for joint in FREE_JOINTS)
    }


def _numbers(body: ElementTree.Element, name: str, default: str) -> tuple[float, ...]:
    numbers = tuple(map(float, body.get(name, default).split()))
    if len(numbers) != len(default.split()) or not np.isfinite(numbers).all():
        raise ValueError(f"{name} of body {body.get('name')} is not a pose")
    return numbers
