"""HDF5 as other tools write it, and where it lies: suffixes, marks of failure, locks, compressions, other layouts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from made_up import Array, numbered, walks
from reading import about, notes, read, said
from spoiling import refusal
from writers import write_libero

from workbook.common.note import note
from workbook.common.paths import REPOSITORY
from workbook.data.config import DataConfig
from workbook.data.dataset import prepare_dataset
from workbook.data.episodes import ReadOptions, Recordings
from workbook.data.sources import hdf5
from workbook.data.sources.read import read_recordings

SKIPPED_FILTER = 32001  # Blosc's number, which HDF5 itself does not have


def demos(count: int) -> dict[str, Array]:
    return {f"demo_{number}": actions for number, (_, actions) in enumerate(numbered([8 + n for n in range(count)]))}


def changed(path: Path, **attributes: Any) -> Path:
    """With attributes of the group 'data'."""
    with h5py.File(path, "r+") as file:
        file["data"].attrs.update(attributes)
    return path


def successful(path: Path) -> Recordings:
    return read_recordings(path, ReadOptions(only_successful=True))


# Suffixes


def test_both_suffixes_are_the_same_format(tmp_path: Path) -> None:
    for number, name in enumerate(("a.hdf5", "b.h5", "deep/c.H5", "d.hdf5")):
        write_libero(tmp_path / name, walks(number, count=2), f"task {number}")
    (tmp_path / "e.h5.part").write_bytes(b"half of a download")
    assert [(e.source, e.task) for e in read(tmp_path)] == [
        (name, f"task {number}") for number, name in ((0, "a.hdf5"), (1, "b.h5"), (3, "d.hdf5"), (2, "deep/c.H5"))
        for _ in range(2)
    ]  # fmt: skip


def test_a_folder_of_h5_alone_is_read(tmp_path: Path) -> None:
    write_libero(tmp_path / "a.h5", walks(0))
    assert len(read(tmp_path)) == 6


# Demonstrations that failed


def marked(path: Path, count: int = 15, name: str = "success", per_step: bool = False) -> Path:
    """Every third is marked as failed: demos 0, 3, 6, 9 and 12 of 15."""
    write_libero(path, demos(count))
    with h5py.File(path, "r+") as file:
        for number in range(count):
            demo, good = file[f"data/demo_{number}"], bool(number % 3)
            if per_step:
                demo[name] = np.array([True, False, good])  # what it ends with counts
            else:
                demo.attrs[name] = good
    return path


@pytest.mark.parametrize(("name", "per_step"), [("success", False), ("successful", False), ("success", True)])
def test_failed_demonstrations_are_counted_and_left_out_where_asked(tmp_path: Path, name: str, per_step: bool) -> None:
    path = marked(tmp_path / "a.hdf5", name=name, per_step=per_step)
    kept = read_recordings(path)
    assert len(kept.episodes) == 15
    assert kept.left_out == ()
    assert kept.origin.notes == (note("marked_failed", failed=5, of=15),)
    assert notes(path).startswith("5 of 15 demonstrations are marked as failed; they are kept")
    without = successful(path)
    assert [e.key for e in without.episodes] == [f"demo_{n}" for n in range(15) if n % 3]
    assert [(one.place, one.why) for one in without.left_out] == [
        (f"a.hdf5, demo_{n}", "failed") for n in range(0, 15, 3)
    ]
    assert without.origin.notes == ()


def test_failed_demonstrations_are_no_fault_of_the_data(tmp_path: Path) -> None:
    path = marked(tmp_path / "a.hdf5")
    prepared = prepare_dataset(path, DataConfig(layout="joint:7", only_successful=True, max_left_out=0))
    assert (len(prepared.dataset.episodes), prepared.episodes_read) == (10, 15)
    [sentence] = about("marked as failed", said(path, layout="joint:7", only_successful=True))
    assert sentence.startswith("Left out: 5 marked as failed.")


def test_success_that_is_not_said_is_no_failure(tmp_path: Path) -> None:
    """LIBERO's dones and robomimic's masks are not marks of failure."""
    path = write_libero(tmp_path / "a.hdf5", demos(4))
    with h5py.File(path, "r+") as file:
        file["data/demo_0/dones"] = np.zeros(8)
        file["data/demo_1"].attrs["success"] = "unknown"
        file["data/demo_2/success"] = np.zeros(0, dtype=bool)
        file["mask/train"] = np.array([b"demo_0"])
    assert read_recordings(path).origin.notes == ()
    without = successful(path)
    assert len(without.episodes) == 4
    assert without.origin.notes == (note("success_not_said"),)


def test_nothing_but_failures_is_refused_when_they_are_left_out(tmp_path: Path) -> None:
    path = write_libero(tmp_path / "a.hdf5", walks(0))
    with h5py.File(path, "r+") as file:
        for demo in file["data"].values():
            demo.attrs["success"] = np.False_
    with pytest.raises(ValueError, match=r"demo_0: is marked as failed; .*nothing is left"):
        prepare_dataset(path, DataConfig(only_successful=True))


# Locks


WITHOUT_LOCKS = "#include <errno.h>\nint flock(int fd, int op) { errno = ENOLCK; return -1; }\n"
READING = "import sys; from workbook.data.sources.read import read_recordings as r; print(len(r(sys.argv[1]).episodes))"
READING_SUM = READING.replace("len(r(sys.argv[1]).episodes)", "r(sys.argv[1]).episodes[0].actions.sum()")
READING_STARTS = (
    "import sys; from workbook.data.sources import read as r; "
    "print(sum(s is not None for s in r.read_recorded_starts(sys.argv[1], r.read_recordings(sys.argv[1]).episodes)))"
)
SAVING = (
    "import sys; from workbook.common.paths import OutputFolder; from workbook.data import dataset as d; "
    "out = OutputFolder.at(sys.argv[1] + '/out'); out.stages.mkdir(parents=True); "
    "d.save_dataset(d.prepare_dataset(sys.argv[1]).dataset, out); print(len(d.load_dataset(out).episodes))"
)
EXPORTING = (
    "import sys; import rfsq_robust as r; from workbook.export import tokens; "
    "data, path = sys.argv[1], sys.argv[1] + '/a.pt'; "
    "r.save_checkpoint(path, r.Checkpoint(r.ActionRFSQAE(7, 16, 3, 7, conditioning='scale'))); "
    "print(sum(tokens.export_tokens(path, data + '/out', data).facts['split'].values()))"
)
RECORDING = (
    "import sys; import numpy as np; from pathlib import Path; from workbook.simulation.tasks import Task; "
    "from workbook.simulation.recorder import demo_file as f; steps = np.zeros((9, 7)); "
    "kept = f.Kept(f.Demonstration(True, steps[0], steps, steps, steps[:, None], steps, ''), 0, 0); "
    "recorded = f.Recorded(Task('libero_goal', 7, 'task'), '', '', ['bowl'], 0, 1, [kept], {}); "
    "print(len(list(recorded.save(Path(sys.argv[1])).parent.iterdir())))"
)
WITHOUT = {"episodes": (READING, "6"), "starts": (READING_STARTS, "1"), "data set": (SAVING, "6")}
WITHOUT |= {"tokens": (EXPORTING, "6"), "recorder": (RECORDING, "1")}


def with_start(path: Path) -> Path:
    with h5py.File(write_libero(path, walks(0)), "r+") as file:
        file["data"].attrs["bddl_file_name"] = "a.bddl"
        file["data/demo_0"].attrs["init_state"] = np.zeros(3)
    return path


@pytest.fixture
def without_locks(tmp_path: Path) -> dict[str, str]:
    """The environment of a process for which no file system has locks."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler, with which a file system without locks is made up")
    (tmp_path / "nolock.c").write_text(WITHOUT_LOCKS)
    built = [compiler, "-shared", "-fPIC", "-o", str(tmp_path / "nolock.so"), str(tmp_path / "nolock.c")]
    subprocess.run(built, check=True, timeout=60)
    kept = {name: value for name, value in os.environ.items() if name != "HDF5_USE_FILE_LOCKING"}
    return kept | {"LD_PRELOAD": str(tmp_path / "nolock.so")}


@pytest.mark.skipif(sys.platform != "linux", reason="flock is replaced as Linux allows it")
@pytest.mark.parametrize(("code", "found"), WITHOUT.values(), ids=WITHOUT)
def test_a_file_system_without_locks_is_read_and_written(
    tmp_path: Path, without_locks: dict[str, str], code: str, found: str
) -> None:
    data = str(with_start(tmp_path / "data" / "a.hdf5").parent)
    opening = [sys.executable, "-c", f"import h5py; h5py.File({f'{data}/a.hdf5'!r})"]
    alone = subprocess.run(opening, env=without_locks, capture_output=True, text=True, timeout=60, check=False)
    assert "unable to lock file" in alone.stderr  # the locks are gone
    done = subprocess.run(
        [sys.executable, "-c", code, data],
        cwd=REPOSITORY, env=without_locks, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.stdout.strip(), done.stderr) == (found, "")


@contextmanager
def writing(path: Path, libver: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that has begun a file, and goes on until it is told to break off."""
    code = (
        "import h5py, os, sys\n"
        "with h5py.File(sys.argv[1], 'w', libver=sys.argv[2]) as file:\n"
        "    file['data/demo_0/actions'] = [[0.5] * 7] * 9\n"
        "    print('begun', flush=True)\n"
        "    sys.stdin.read()\n"
        "    os._exit(1)\n"
    )
    command = [sys.executable, "-c", code, str(path), libver]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        try:
            yield process
        finally:
            process.communicate(timeout=60)


@pytest.mark.skipif(os.name == "nt", reason="another process locks a file otherwise there")
@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_a_file_that_is_being_written_is_told_from_a_damaged_one(tmp_path: Path, libver: str) -> None:
    path = tmp_path / "bad.hdf5"
    with writing(path, libver):
        message = refusal(path, str(path), "another process has it open for writing", "HDF5_USE_FILE_LOCKING=FALSE")
        assert "download" not in message
    broken_off = refusal(path, str(path))
    assert ("marked as open for writing" in broken_off) == (libver == "latest")
    assert "h5clear" in broken_off or "cut short" in broken_off


# Compressions


def compressed(path: Path) -> Path:
    """Two good demos and one whose actions are compressed by a filter that HDF5 does not have."""
    write_libero(path, demos(2))
    with h5py.File(path, "r+") as file:
        made_with = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        made_with.set_chunk((8, 7))
        made_with.set_filter(SKIPPED_FILTER, h5py.h5z.FLAG_OPTIONAL, (1,))
        group = file.create_group("data/demo_2")
        space = h5py.h5s.create_simple((8, 7))
        dataset = h5py.Dataset(h5py.h5d.create(group.id, b"actions", h5py.h5t.IEEE_F64LE, space, made_with))
        dataset.id.write_direct_chunk((0, 0), b"compressed otherwise", filter_mask=0)
    return path


@pytest.mark.parametrize("compression", ["gzip", "lzf"])
def test_compressions_of_hdf5_itself_are_read(tmp_path: Path, compression: str) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        for key, actions in demos(2).items():
            file.create_dataset(f"data/{key}/actions", data=actions, compression=compression, shuffle=True)
    for episode, written in zip(read(tmp_path / "a.hdf5"), demos(2).values(), strict=True):
        np.testing.assert_array_equal(episode.actions, written)


@pytest.mark.parametrize("name", ["Blosc", "Zstd", "LZ4"])
def test_compressions_of_the_package_are_read_where_it_is_installed(tmp_path: Path, name: str) -> None:
    package = pytest.importorskip("hdf5plugin", reason="the package hdf5plugin is not installed")
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file.create_dataset("data/demo_0/actions", data=demos(1)["demo_0"], **getattr(package, name)())
    reading = [sys.executable, "-c", READING_SUM, str(tmp_path)]  # a process that has not imported the package
    done = subprocess.run(reading, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=True)
    assert float(done.stdout) == demos(1)["demo_0"].sum()


def test_a_compression_that_is_not_installed_is_named_with_its_package(tmp_path: Path) -> None:
    if h5py.h5z.filter_avail(SKIPPED_FILTER) or hdf5._register_filters() or h5py.h5z.filter_avail(SKIPPED_FILTER):
        pytest.skip("the compression is installed here")
    message = refusal(compressed(tmp_path / "a.hdf5"), "a.hdf5, demo_2", "'actions' is compressed with")
    assert f"filter {SKIPPED_FILTER}" in message
    assert "pip install hdf5plugin" in message


# Files and demos of several that cannot be read


def test_a_damaged_file_of_several_is_left_out(tmp_path: Path) -> None:
    write_libero(tmp_path / "a.hdf5", walks(0, count=12))
    write_libero(tmp_path / "c.hdf5", walks(1, count=12))
    (tmp_path / "b.hdf5").write_bytes(b"\x89HDF\r\n\x1a\n")
    (tmp_path / "d.h5").symlink_to(tmp_path / "gone.h5")
    recordings = read_recordings(tmp_path)
    assert len(recordings.episodes) == 24
    assert [(one.place, one.why) for one in recordings.left_out] == [("b.hdf5", "unreadable"), ("d.h5", "unreadable")]
    assert len(prepare_dataset(tmp_path).dataset.episodes) == 24  # 2 of 26 may be left out
    [sentence] = about("Left out", said(tmp_path))
    assert sentence.startswith(f"Left out: 2 cannot be read. The first: {tmp_path / 'b.hdf5'}: not an HDF5 file")
    with pytest.raises(ValueError, match=r"b\.hdf5: not an HDF5 file"):
        prepare_dataset(tmp_path, DataConfig(max_left_out=0))


def test_nothing_but_damaged_files_is_refused(tmp_path: Path) -> None:
    for name in ("a.hdf5", "b.h5"):
        (tmp_path / name).write_bytes(b"no recording")
    refusal(tmp_path, f"{tmp_path / 'a.hdf5'}: not an HDF5 file")


def test_a_demo_without_actions_is_left_out(tmp_path: Path) -> None:
    path = write_libero(tmp_path / "a.hdf5", walks(0, count=24))
    with h5py.File(path, "r+") as file:
        del file["data/demo_3/actions"], file["data/demo_9/actions"]
        file["data/demo_9/actions"] = [["0.5"] * 7] * 8
    recordings = read_recordings(path)
    assert [e.key for e in recordings.episodes] == [f"demo_{n}" for n in range(24) if n not in (3, 9)]
    assert [(one.place, one.why) for one in recordings.left_out] == [
        ("a.hdf5, demo_3", "unreadable"),
        ("a.hdf5, demo_9", "unreadable"),
    ]


# robomimic


def robomimic(path: Path, controller: object, **more: object) -> Path:
    write_libero(path, demos(3), task=None)
    arguments = {"control_freq": 10, "controller_configs": controller}
    return changed(path, env_args=json.dumps({"env_name": "Lift", "type": 1, "env_kwargs": arguments}), **more)


LIBEROS = {"type": "OSC_POSE", "output_max": [0.05] * 3 + [0.5] * 3, "control_delta": True}
COMPOSITE = {"type": "BASIC", "body_parts": {"right": LIBEROS | {"input_type": "delta"}}}


@pytest.mark.parametrize(
    ("controller", "said"),
    [
        (LIBEROS, None),
        (COMPOSITE, None),
        (LIBEROS | {"output_max": [0.1] * 6}, "OSC_POSE"),
        (LIBEROS | {"control_delta": False}, "OSC_POSE"),
        ({"type": "JOINT_VELOCITY"}, "JOINT_VELOCITY"),
        ({"type": "BASIC", "body_parts": {"right": {"type": "IK_POSE"}}}, "IK_POSE"),
        (None, ""),
        ("OSC", "OSC"),
        ({"output_max": "?"}, ""),
    ],
)
def test_robomimics_files_are_read_and_their_controller_told(
    tmp_path: Path, controller: object, said: str | None
) -> None:
    recordings = read_recordings(robomimic(tmp_path / "lift_ph.hdf5", controller))
    assert recordings.origin.kind == "robomimic HDF5"
    assert [(e.key, e.task, e.control_rate_hz) for e in recordings.episodes] == [
        (f"demo_{n}", "lift ph", 10) for n in range(3)
    ]
    for episode, written in zip(recordings.episodes, demos(3).values(), strict=True):
        np.testing.assert_array_equal(episode.actions, written)
    expected = [note("other_controller", kind="robomimic HDF5", environment="Lift", controller=said)]
    assert list(recordings.origin.notes) == ([] if said is None else expected)


def test_liberos_own_files_say_an_environment_too(tmp_path: Path) -> None:
    path = robomimic(tmp_path / "a.hdf5", None, problem_info=json.dumps({"language_instruction": "lift it"}))
    origin = read_recordings(path).origin
    assert (origin.kind, origin.notes) == ("LIBERO HDF5", ())


def test_the_controller_of_two_files_is_told_once(tmp_path: Path) -> None:
    for name in ("a.hdf5", "b.hdf5"):
        robomimic(tmp_path / name, None)
    assert notes(tmp_path).count("controller not said") == 1


def with_others(path: Path) -> Path:
    robomimic(path, LIBEROS)
    with h5py.File(path, "r+") as file:
        for demo in file["data"].values():
            actions = demo["actions"][()]
            demo["actions_abs"] = 2 * actions
            demo["action_dict/rel_pos"], demo["action_dict/gripper"] = actions[:, :3], actions[:, 6]
    return path


def test_other_actions_are_named_and_read_where_asked(tmp_path: Path) -> None:
    path = with_others(tmp_path / "a.hdf5")
    recordings = read_recordings(path)
    others = ["action_dict/gripper", "action_dict/rel_pos", "actions_abs"]
    assert recordings.origin.notes == (note("other_actions", taken="actions", others=others),)
    np.testing.assert_array_equal(recordings.episodes[2].actions, demos(3)["demo_2"])
    absolute = read_recordings(path, ReadOptions("actions_abs"))
    assert absolute.origin.notes == ()
    np.testing.assert_array_equal(absolute.episodes[2].actions, 2 * demos(3)["demo_2"])
    joined = read_recordings(path, ReadOptions("action_dict/rel_pos + action_dict/gripper"))
    np.testing.assert_array_equal(joined.episodes[2].actions, demos(3)["demo_2"][:, [0, 1, 2, 6]])


@pytest.mark.parametrize("named", ["action_dict", "actions+action_dict/abs", "obs"])
def test_a_dataset_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path, named: str) -> None:
    [left_out, *_] = read_recordings(with_others(tmp_path / "a.hdf5"), ReadOptions(named)).left_out
    assert f"has no dataset '{named.split('+')[-1]}'; give --action-column with one of action_dict/gripper, " in (
        left_out.sentence
    )
    assert left_out.sentence.endswith("actions, actions_abs")


# ManiSkill


def maniskill(path: Path, count: int = 12, **said: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for number, actions in enumerate(demos(count).values()):
            file[f"traj_{number}/actions"] = actions.astype(np.float32)
            file[f"traj_{number}/success"] = np.arange(len(actions)) >= (len(actions) if number % 4 == 0 else 5)
            file[f"traj_{number}/obs"] = np.zeros(len(actions) + 1)
    if said:
        path.with_suffix(".json").write_text(json.dumps({"env_info": said}))
    return path


def test_maniskills_trajectories_are_read_in_order(tmp_path: Path) -> None:
    path = maniskill(tmp_path / "a.h5", env_id="PickCube-v1", env_kwargs={"control_mode": "pd_joint_delta_pos"})
    for data in (path, tmp_path):
        recordings = read_recordings(data)
        assert recordings.origin.kind == "ManiSkill HDF5"
        assert [(e.key, e.task) for e in recordings.episodes] == [(f"traj_{n}", "PickCube-v1") for n in range(12)]
        for episode, written in zip(recordings.episodes, demos(12).values(), strict=True):
            np.testing.assert_array_equal(episode.actions, written.astype(np.float32))
        assert recordings.origin.notes == (
            note("other_controller", kind="ManiSkill HDF5", environment="PickCube-v1", controller="pd_joint_delta_pos"),
            note("marked_failed", failed=3, of=12),
        )
    assert [e.key for e in successful(path).episodes] == [f"traj_{n}" for n in range(12) if n % 4]


@pytest.mark.parametrize("text", [None, "no JSON", "[]", '{"env_info": 3}', "[" * 100_000])
def test_without_a_description_the_file_names_the_task(tmp_path: Path, text: str | None) -> None:
    path = maniskill(tmp_path / "stack_cube.h5")
    if text is not None:
        path.with_suffix(".json").write_text(text)
    recordings = read_recordings(path)
    assert {e.task for e in recordings.episodes} == {"stack cube"}
    assert recordings.origin.notes[0]["values"] == {"kind": "ManiSkill HDF5", "environment": "", "controller": ""}
    assert "controller not said: errors in mm" in notes(path)


def test_kinds_in_one_folder_are_both_named(tmp_path: Path) -> None:
    write_libero(tmp_path / "a.hdf5", demos(2))
    maniskill(tmp_path / "b.h5")
    assert read_recordings(tmp_path).origin.kind == "LIBERO HDF5 + ManiSkill HDF5"


# Others


@pytest.mark.parametrize(
    ("fill", "said"),
    [
        ({"action": np.zeros((50, 14)), "observations/qpos": np.zeros((50, 14))}, "as ALOHA writes it"),
        ({"weights/dense": np.zeros(3)}, "it holds weights"),
        ({}, "it holds nothing"),
    ],
)
def test_a_file_of_another_kind_is_refused_and_told(tmp_path: Path, fill: dict[str, Array], said: str) -> None:
    path = tmp_path / "bad.h5"
    with h5py.File(path, "w") as file:
        for name, values in fill.items():
            file[name] = values
    refusal(path, "bad.h5", said, "not LIBERO's, robomimic's or ManiSkill's")
    write_libero(tmp_path / "good.hdf5", walks(0, count=12))
    assert [one.place for one in read_recordings(tmp_path).left_out] == ["bad.h5"]
