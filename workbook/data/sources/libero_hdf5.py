"""Reader of demonstrations in HDF5, LIBERO's, robomimic's and ManiSkill's: the actions alone, never the images."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from workbook.common.errors import InputError
from workbook.common.note import Note, note
from workbook.data.episodes import Episode, LeftOut, Origin, ReadOptions, Recordings, Start, control_rate
from workbook.data.layout import POSITION_MM_PER_UNIT, ROTATION_DEG_PER_UNIT
from workbook.data.sources.files import UnreadableError, files_below, one_line, or_refuse
from workbook.data.sources.hdf5 import opened, read_numbers
from workbook.data.sources.success import left_out_as_failed, notes_of_success

SUFFIXES = (".hdf5", ".h5")  # of files in a folder; a file that is named itself may have any
LIBERO, ROBOMIMIC, MANISKILL = "LIBERO HDF5", "robomimic HDF5", "ManiSkill HDF5"
ACTIONS = "actions"
TRAJECTORY = r"traj_\d+"  # ManiSkill's name of a demonstration, at the top of the file
# Isaac Lab's attribute of a demo, robosuite's, and ManiSkill's dataset, which has an entry a step.
SUCCESS = ("success", "successful")
# What a robosuite controller puts out for an action of 1: metres, and radians.
LIBEROS_OUTPUT = (*(POSITION_MM_PER_UNIT / 1000,) * 3, *(float(np.radians(ROTATION_DEG_PER_UNIT)),) * 3)


def read_file(path: Path, options: ReadOptions | None = None) -> Recordings:
    """Episodes of one file, in numeric order of the demos.

    Raises:
        InputError: not HDF5, damaged, or no demonstration in it.
    """
    options = options or ReadOptions()
    return _together(str(path), [_read_file(path, path.name, options)], [], options)


def read_folder(folder: Path, options: ReadOptions | None = None) -> Recordings:
    """Episodes of every HDF5 file below a folder, files in alphabetical order; none where there is no such file.

    Of several files, those that cannot be read are left out.

    Raises:
        InputError: a folder that cannot be read, or nothing but files that cannot.
    """
    options = options or ReadOptions()
    read: list[_Demos] = []
    refused: list[UnreadableError] = []
    left_out = []
    for path in files_below(folder, *SUFFIXES):
        source = str(path.relative_to(folder))
        try:
            read.append(_read_file(path, source, options))
        except UnreadableError as error:
            refused.append(error)
            left_out.append(LeftOut(source, "unreadable", str(error)))
    if refused and not read:
        raise refused[0]
    return _together(str(folder), read, left_out, options)


@dataclass(frozen=True, eq=False)
class _Demos:
    """What one file yields. kind: of file; succeeded: of every demo that is read, None where it does not say it."""

    kind: str
    episodes: list[Episode]
    left_out: list[LeftOut]
    succeeded: list[bool | None]
    notes: list[Note]


def _together(name: str, files: Sequence[_Demos], left_out: Sequence[LeftOut], options: ReadOptions) -> Recordings:
    succeeded = [said for file in files for said in file.succeeded]
    notes: list[Note] = []
    for file in files:
        notes.extend(one for one in file.notes if one not in notes)
    notes.extend(notes_of_success(succeeded, options.only_successful))
    kinds = " + ".join(dict.fromkeys(file.kind for file in files)) or LIBERO
    return Recordings(
        [episode for file in files for episode in file.episodes],
        Origin(kinds, name, notes=tuple(notes)),
        (*left_out, *(one for file in files for one in file.left_out)),
    )


def _read_file(path: Path, source: str, options: ReadOptions) -> _Demos:
    with opened(path) as file:
        # A damaged file can raise nearly anything from inside h5py, so these reads are fenced one by one.
        data = or_refuse(source, lambda: file.get("data"))
        if isinstance(data, h5py.Group):
            return _read_demos(data, source, options)
        names = or_refuse(source, lambda: sorted(file, key=_numeric_order))
        trajectories = [name for name in names if re.fullmatch(TRAJECTORY, name)]
        if not trajectories:
            raise UnreadableError(
                f"{source}: has no group 'data' and no traj_0, so it is not LIBERO's, robomimic's or ManiSkill's (it "
                f"holds {one_line(', '.join(names)) or 'nothing'}{', as ALOHA writes it' if 'action' in names else ''})"
                "; convert it to a LeRobot data set, or leave it out"
            )
        return _read_trajectories(file, path, source, trajectories, options)


def _read_demos(group: h5py.Group, source: str, options: ReadOptions) -> _Demos:
    """LIBERO's files, and robomimic's, which say their environment and not what was to be done."""
    keys = or_refuse(source, lambda: sorted(group, key=_numeric_order))
    task = or_refuse(source, lambda: _task_name(group, source))
    said = or_refuse(source, lambda: _json_of(group.attrs.get("env_args")))
    environment = said.get("env_name")
    is_robomimic = environment is not None and not {"problem_info", "bddl_file_name"} & set(group.attrs)
    arguments = said.get("env_kwargs")
    arguments = arguments if isinstance(arguments, dict) else {}
    found = _read_keys(group, keys, source, options, task, control_rate(arguments.get("control_freq")))
    if not found.succeeded and not found.left_out:
        raise UnreadableError(f"{source}: group 'data' holds no demonstration; leave this file out")
    if not is_robomimic:
        return found
    notes = _note_of_controller(ROBOMIMIC, environment, arguments.get("controller_configs"))
    return _Demos(ROBOMIMIC, found.episodes, found.left_out, found.succeeded, [*notes, *found.notes])


def _read_trajectories(file: h5py.File, path: Path, source: str, keys: Sequence[str], options: ReadOptions) -> _Demos:
    """ManiSkill's files; the file of the same name with .json, where it lies beside, says what was recorded."""
    beside = path.with_suffix(".json")
    text = or_refuse(str(beside), lambda: beside.read_text(encoding="utf8")) if beside.is_file() else None
    said = _json_of(text).get("env_info")
    said = said if isinstance(said, dict) else {}
    environment = said.get("env_id")
    found = _read_keys(file, keys, source, options, str(environment or _named_by_file(source)), None)
    arguments = said.get("env_kwargs")
    mode = arguments.get("control_mode") if isinstance(arguments, dict) else None
    notes = _note_of_controller(MANISKILL, environment, mode)
    return _Demos(MANISKILL, found.episodes, found.left_out, found.succeeded, [*notes, *found.notes])


def _read_keys(
    group: h5py.Group, keys: Sequence[str], source: str, options: ReadOptions, task: str, rate: float | None
) -> _Demos:
    """Every demo of a group; what in it is no group is passed over, and what cannot be read left out."""
    found = _Demos(LIBERO, [], [], [], [])
    for key in keys:
        place = f"{source}, {key}"
        try:
            demo = or_refuse(place, partial(group.__getitem__, key))
            if not isinstance(demo, h5py.Group):
                continue
            actions = _read_actions(demo, place, options.action_column)
        except UnreadableError as error:
            found.left_out.append(LeftOut(place, "unreadable", str(error)))
            continue
        if not found.succeeded:
            found.notes.extend(_note_of_others(demo, options.action_column))
        succeeded = _succeeded(demo, place)
        found.succeeded.append(succeeded)
        if options.only_successful and succeeded is False:
            found.left_out.append(left_out_as_failed(place))
        else:
            found.episodes.append(Episode(actions, task, source, key, session=source, control_rate_hz=rate))
    return found


def _read_actions(demo: h5py.Group, place: str, named: str) -> NDArray[np.float64]:
    """named: '' is the usual dataset; 'a+b' joins two side by side."""
    if not named:
        return read_numbers(demo, ACTIONS, place)
    names = [name.strip() for name in named.split("+")]
    known = or_refuse(place, lambda: list(_of_actions(demo)))
    lacking = [name for name in names if not isinstance(or_refuse(place, partial(demo.get, name)), h5py.Dataset)]
    if known and lacking:
        raise UnreadableError(
            f"{place}: has no dataset '{one_line(lacking[0])}'; give --action-column with one of "
            f"{one_line(', '.join(known))}"
        )
    parts = [read_numbers(demo, name, place) for name in names]
    columns = [part[:, None] if part.ndim == 1 else part for part in parts]
    if len({len(part) for part in columns}) > 1 or any(part.ndim != 2 for part in columns):
        shapes = " and ".join(str(part.shape) for part in parts)
        raise UnreadableError(
            f"{place}: '{one_line(named)}' have shapes {shapes}, which do not join; give other datasets"
        )
    return np.concatenate(columns, axis=1)


def _succeeded(demo: h5py.Group, place: str) -> bool | None:
    """Whether a demo is marked as a success: by an attribute, or by the last entry of a dataset; None: it is not said.

    The masks of robomimic are filters of demos and `dones` end them: neither says that one failed.
    """

    def said() -> bool | None:
        for name in SUCCESS:
            found = demo.attrs.get(name, demo.get(name))
            if found is not None:
                values = np.atleast_1d(found[()] if isinstance(found, h5py.Dataset) else found)
                return bool(values.reshape(-1)[-1]) if values.size and values.dtype.kind in "biuf" else None
        return None

    with suppress(UnreadableError):
        return or_refuse(place, said)
    return None


def _note_of_others(demo: h5py.Group, named: str) -> list[Note]:
    """Datasets of actions that stand beside the one that is read."""
    others = [] if named else [name for name in or_refuse("", lambda: list(_of_actions(demo))) if name != ACTIONS]
    return [note("other_actions", taken=ACTIONS, others=others)] if others else []


def _of_actions(demo: h5py.Group) -> Iterator[str]:
    """Datasets whose name begins so, and those in a group of such a name, such as robomimic's action_dict."""
    for name in demo:
        if name.startswith(("action", "abs_action")):
            found = demo[name]
            yield from (f"{name}/{inner}" for inner in found) if isinstance(found, h5py.Group) else (name,)


def _note_of_controller(kind: str, environment: object, controller: object) -> list[Note]:
    """That errors in mm assume LIBERO's controller, where another moved the arm or none is named."""
    if isinstance(controller, dict):
        arms = controller.get("body_parts")  # robosuite from 1.5 on: a controller for every part of the robot
        arm = arms.get("right") if isinstance(arms, dict) else controller
        arm = arm if isinstance(arm, dict) else {}
        is_delta = arm.get("control_delta", arm.get("input_type") in (None, "delta"))
        output = arm.get("output_max")
        same = isinstance(output, list) and len(output) == 6 and np.array_equal(np.round(output, 9), LIBEROS_OUTPUT)
        if arm.get("type") == "OSC_POSE" and is_delta and same:
            return []
        controller = arm.get("type")
    names = [one_line(word) if isinstance(word, str) else "" for word in (environment, controller)]
    return [note("other_controller", kind=kind, environment=names[0], controller=names[1])]


def _numeric_order(key: str) -> tuple[int, str]:
    """demo_10 after demo_9; names without a number come last, in alphabetical order."""
    number = re.search(r"(\d+)$", key)
    return (int(number[1]), key) if number else (2**62, key)


def _named_by_file(source: str) -> str:
    return re.sub(r"_demo$", "", Path(source).stem).replace("_", " ")


def _task_name(group: h5py.Group, source: str) -> str:
    """The instruction, or the file's name where there is none."""
    instruction = _json_of(group.attrs.get("problem_info")).get("language_instruction")
    text = " ".join(map(str, instruction)) if isinstance(instruction, list) else str(instruction or "")
    return text.strip('"') or _named_by_file(source)


def _json_of(text: object) -> dict[str, Any]:
    """What a JSON text says; nothing where it is none, or no object."""
    with suppress(TypeError, ValueError, RecursionError):
        said = json.loads(text)  # type: ignore[arg-type]
        return said if isinstance(said, dict) else {}
    return {}


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
    with suppress(InputError), opened(path) as file:
        return {key: _read_start(file, key) for key in keys}
    return {}


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
