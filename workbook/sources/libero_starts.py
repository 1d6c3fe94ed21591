"""Where LIBERO's HDF5 demonstrations began: what the simulator needs to play them again, beside their actions."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np

from workbook.episodes import Episode, Start
from workbook.errors import InputError
from workbook.sources.files import or_refuse

FREE_JOINTS = ("freejoint", "joint[@type='free']")


def read_starts(root: Path, episodes: Sequence[Episode]) -> list[Start | None]:
    """The starts of episodes that were read from a file or folder, in their order; None where it holds none.

    Where an episode began is not what the codecs are judged by, so whatever cannot be read is as if it were not there.
    """
    found: dict[str, Start | None] = {}
    for source in dict.fromkeys(episode.source for episode in episodes):
        path = root / source if root.is_dir() else root
        keys = [episode.key for episode in episodes if episode.source == source]
        found |= {f"{source}, {key}": start for key, start in _read_file(path, keys).items()}
    return [found.get(episode.place) for episode in episodes]


def _read_file(path: Path, keys: Sequence[str]) -> dict[str, Start | None]:
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
