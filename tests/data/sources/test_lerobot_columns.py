"""Which columns of a LeRobot data set are read, by name too, and what their numbers are called."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from made_up import Array, exact_demos, numbered
from reading import about, assert_same, notes, read, refused, said
from writers import Demos, rewrite, write_lerobot_v2, write_lerobot_v3

from workbook.common.note import note
from workbook.data.config import DataConfig
from workbook.data.dataset import prepare_dataset
from workbook.data.episodes import Episode, ReadOptions
from workbook.data.sources.read import read_recordings

LIST = pa.list_(pa.float32())
ARM, HAND = "action.eef_delta", "action.gripper"


def by(folder: Path, column: str) -> list[Episode]:
    return read_recordings(folder, ReadOptions(column)).episodes


def put(folder: Path, drop: tuple[str, ...] = (), **columns: object) -> Path:
    """Columns made of the actions, (N, 7), beside or instead of them."""

    def change(table: pa.Table) -> pa.Table:
        actions = np.array(table["action"].to_pylist(), dtype=np.float32)
        for name, make in columns.items():
            table = table.append_column(name.replace("__", "."), make(actions))  # type: ignore[operator]
        return table.drop_columns(list(drop))

    return rewrite(folder, change)


def lists(actions: Array) -> pa.Array:
    return pa.array(actions.tolist(), LIST)


def in_two(folder: Path) -> Path:
    """The action in two columns, the second of them one number as LeRobot stores it."""
    parts = {"action__eef_delta": lambda a: lists(a[:, :6]), "action__gripper": lambda a: pa.array(a[:, 6])}
    return put(write_lerobot_v3(folder, exact_demos(2)), ("action",), **parts)


def with_names(folder: Path, names: object, column: str = "action") -> Path:
    path = folder / "meta/info.json"
    info = json.loads(path.read_text())
    info.setdefault("features", {})[column] = {"dtype": "float32", "names": names}
    path.write_text(json.dumps(info))
    return folder


def only(demos: Demos, *numbers: int) -> Demos:
    return [(task, actions[:, list(numbers)]) for task, actions in demos]


# One number


def test_a_scalar_column_is_an_action_of_one_number(tmp_path: Path) -> None:
    demos = only(numbered([8, 9, 10, 11]), 0)
    folder = put(write_lerobot_v3(tmp_path, numbered([8, 9, 10, 11])), ("action",), rail=lambda a: pa.array(a[:, 0]))
    rewrite(folder, lambda table: table.rename_columns({"rail": "action"}))
    assert_same(read(with_names(folder, ["rail.pos"])), demos)
    prepared = prepare_dataset(folder, DataConfig(layout="joint:1"))
    assert {episode.actions.shape[1] for episode in prepared.dataset.episodes} == {1}
    assert prepare_dataset(folder, DataConfig(layout="position:1")).dataset.layout.spec == "position:1"


def test_whole_numbers_in_a_scalar_column_are_read(tmp_path: Path) -> None:
    folder = put(write_lerobot_v3(tmp_path, numbered([8])), action_count=lambda a: pa.array(a[:, 0].astype(np.int32)))
    assert_same(by(folder, "action_count"), only(numbered([8]), 0))


# Several columns


def test_of_several_columns_none_of_which_is_the_action_all_are_named(tmp_path: Path) -> None:
    folder = rewrite(in_two(tmp_path), lambda t: t.append_column("action_is_pad", pa.array([False] * len(t))))
    message = refused(lambda: read(folder))
    assert message == (
        "data/chunk-000/file-000.parquet: has no column 'action' or 'actions'; give --action-column with one of "
        f"{ARM}, {HAND}, or join those that belong together: '{ARM}+{HAND}'"
    )


@pytest.mark.parametrize("column", [f"{ARM}+{HAND}", f" {ARM} + {HAND} "])
def test_joined_columns_stand_side_by_side(tmp_path: Path, column: str) -> None:
    assert_same(by(in_two(tmp_path), column), exact_demos(2))


def test_joined_columns_stand_in_the_order_given(tmp_path: Path) -> None:
    assert_same(by(in_two(tmp_path), f"{HAND}+{ARM}"), only(exact_demos(2), 6, 0, 1, 2, 3, 4, 5))
    assert_same(by(in_two(tmp_path), HAND), only(exact_demos(2), 6))


def test_a_column_whose_name_holds_a_plus_is_itself(tmp_path: Path) -> None:
    folder = put(write_lerobot_v3(tmp_path, exact_demos(2)), **{"action+": lambda a: lists(2 * a)})
    assert_same(by(folder, "action+"), [(task, 2 * actions) for task, actions in exact_demos(2)])


@pytest.mark.parametrize("column", ["action.full", f"{ARM}+action.full", f"{ARM}+"])
def test_a_column_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path, column: str) -> None:
    folder = in_two(tmp_path)
    message = refused(lambda: by(folder, column))
    assert f"has no column '{column.split('+')[-1]}'; give --action-column with one of {ARM}, {HAND}" in message


def test_action_is_read_and_others_beside_it_are_told(tmp_path: Path) -> None:
    folder = write_lerobot_v3(tmp_path, exact_demos(2))
    put(folder, action__full=lambda a: lists(np.tile(a, 3)), action_is_pad=lambda a: pa.array([False] * len(a)))
    recordings = read_recordings(folder)
    assert_same(recordings.episodes, exact_demos(2))
    assert recordings.origin.notes == (note("other_actions", taken="action", others=["action.full"]),)
    assert notes(folder).startswith("Actions are read from 'action'; beside it stands action.full")
    full = read_recordings(folder, ReadOptions("action.full"))
    assert full.origin.notes == ()
    assert_same(full.episodes, [(task, np.tile(actions, 3)) for task, actions in exact_demos(2)])


def test_columns_inside_a_struct_are_read_by_their_path(tmp_path: Path) -> None:
    def struct(a: Array) -> pa.Array:
        inner = pa.StructArray.from_arrays([lists(a[:, :6]), pa.array(a[:, 6])], ["pose", "open"])
        return pa.StructArray.from_arrays([inner], ["arm"])

    folder = put(write_lerobot_v3(tmp_path, exact_demos(2)), ("action",), nested=struct)
    rewrite(folder, lambda table: table.rename_columns({"nested": "action"}))
    message = refused(lambda: read(folder))
    assert "column 'action': holds struct<" in message
    assert "with one of action.arm.pose, action.arm.open" in message
    assert_same(by(folder, "action.arm.pose+action.arm.open"), exact_demos(2))


def test_an_empty_place_in_a_struct_is_refused(tmp_path: Path) -> None:
    def struct(a: Array) -> pa.Array:
        rows = [None, *({"arm": row} for row in a[1:].tolist())]
        return pa.array(rows, pa.struct([("arm", LIST)]))

    folder = put(write_lerobot_v3(tmp_path, exact_demos(2)), action__s=struct)
    assert "1 empty entries" in refused(lambda: by(folder, "action.s.arm"))


# Names


JOINTS = [f"joint_{number}.vel" for number in range(1, 7)]
POSE = ["x", "y", "z", "roll", "pitch", "yaw"]


@pytest.mark.parametrize(
    "wrap",
    [
        list,
        lambda names: {"motors": names},
        lambda names: {"arm": {"joints": names[:6]}, "hand": names[6:]},
        lambda names: {name: position for position, name in enumerate(names)},
        lambda names: {name: position for position, name in reversed(list(enumerate(names)))},
        lambda names: [names[:6], names[6:]],
    ],
    ids=["list", "motors", "nested", "positions", "positions in any order", "list of lists"],
)
@pytest.mark.parametrize("write", [write_lerobot_v2, write_lerobot_v3])
def test_names_that_contradict_the_layout_are_refused(tmp_path: Path, write: object, wrap: object) -> None:
    folder = with_names(write(tmp_path, exact_demos(3)), wrap([*JOINTS, "gripper"]))  # type: ignore[operator]
    message = refused(lambda: prepare_dataset(folder))
    assert message.startswith(f"{folder}: names the numbers of an action joint_1.vel, ")
    assert message.endswith("; give --layout 'joint:6 gripper:1'")
    [sentence] = about("calls the numbers", said(folder, layout="joint:6 gripper:1"))
    assert sentence == f"The data set calls the numbers of an action {', '.join(JOINTS)}, gripper."


def test_a_gripper_that_is_not_last_is_found(tmp_path: Path) -> None:
    folder = with_names(write_lerobot_v3(tmp_path, exact_demos(3)), ["gripper", *POSE])
    assert refused(lambda: prepare_dataset(folder)).endswith("; give --layout 'gripper:1 position:3 rotation:3'")


@pytest.mark.parametrize("names", [[*POSE, "gripper"], {"motors": [f"motor_{n}" for n in range(7)]}, [*"abcdefg"]])
def test_names_that_agree_or_say_nothing_are_shown(tmp_path: Path, names: object) -> None:
    folder = with_names(write_lerobot_v3(tmp_path, exact_demos(3)), names)
    assert len(about("calls the numbers of an action", said(folder))) == 1


@pytest.mark.parametrize(
    "names",
    [None, [], ["actions"], JOINTS, "joint_1", 7, [1] * 7, [None] * 7, {}, {"motors": None}, [[[[[["joint_1"] * 7]]]]]],
)
def test_names_that_are_none_are_not_there(tmp_path: Path, names: object) -> None:
    recordings = read_recordings(with_names(write_lerobot_v3(tmp_path, exact_demos(3)), names))
    assert (recordings.names, recordings.origin.notes) == ((), ())


@pytest.mark.parametrize("features", [None, [], "action", {"action": None}, {"action": ["joint_1"] * 7}])
def test_features_that_are_none_are_not_there(tmp_path: Path, features: object) -> None:
    folder = write_lerobot_v3(tmp_path, exact_demos(3))
    info = json.loads((folder / "meta/info.json").read_text())
    (folder / "meta/info.json").write_text(json.dumps(info | {"features": features}))
    assert read_recordings(folder).names == ()


def test_names_of_joined_columns_are_joined(tmp_path: Path) -> None:
    folder = with_names(in_two(tmp_path), POSE, ARM)
    assert read_recordings(folder, ReadOptions(f"{ARM}+{HAND}")).names == (*POSE, HAND)
    options = DataConfig(action_column=f"{HAND}+{ARM}")
    assert refused(lambda: prepare_dataset(folder, options)).endswith("--layout 'gripper:1 position:3 rotation:3'")
