"""The data card in sentences: what looks odd is said, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up import Array, exact_demos, random_demos, scaled, walks
from reading import about, assert_plain, card_of, said, said_of
from writers import write_lerobot_v2, write_libero

from workbook.common.paths import SAMPLE, OutputFolder
from workbook.common.stages import write_stage
from workbook.data.card import describe
from workbook.data.config import DataConfig
from workbook.data.dataset import prepare_dataset
from workbook.data.episodes import Episode
from workbook.data.layout import LIBERO
from workbook.data.plausibility import fills_the_range
from workbook.evaluation.evidence import Evidence
from workbook.report.text import words
from workbook.report.text.data import remarks

# Other units and poses


def min_max_normalised(demos: dict[str, Array]) -> dict[str, Array]:
    everything = np.concatenate(list(demos.values()))
    low, width = everything.min(axis=0), np.maximum(np.ptp(everything, axis=0), 1e-9)
    return {key: (actions - low) / width * 2 - 1 for key, actions in demos.items()}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("constant", [False, True])
def test_a_normalised_file_is_said(tmp_path: Path, dtype: type, constant: bool) -> None:
    recorded = scaled([0.3, 0.7, 0.5, 0.1, 0.2, 0.3, 1.0])
    for actions in recorded.values():
        actions[:, 4] *= not constant
    demos = {key: actions.astype(dtype) for key, actions in min_max_normalised(recorded).items()}
    assert len(about("look normalised", said_of(tmp_path, demos))) == 1


def test_a_file_that_is_clipped_here_is_not_called_normalised(tmp_path: Path) -> None:
    demos = scaled([3.0] * 6 + [1.0])
    found = said_of(tmp_path, demos)
    actions = np.concatenate([one.actions for one in prepare_dataset(tmp_path / "a.hdf5").dataset.episodes])
    assert fills_the_range(actions, LIBERO)
    assert about("were clipped", found)
    assert not about("normalised", found)


def test_a_file_that_does_not_reach_both_ends_is_not_called_normalised(tmp_path: Path) -> None:
    demos = min_max_normalised(walks(0))
    for actions in demos.values():
        actions[:, 2] = np.maximum(actions[:, 2], -0.9999)
    assert not about("normalised", said_of(tmp_path, demos))


def test_positions_in_metres_are_said(tmp_path: Path) -> None:
    [sentence] = about("metres", said_of(tmp_path, scaled([0.05] * 3 + [0.5] * 3 + [1.0])))
    assert sentence.startswith("No position command is larger than 0.045")
    assert "divide by 0.05" in sentence
    assert not about("metres", said_of(tmp_path, scaled([0.5] * 3 + [0.05] * 3 + [1.0])))


def test_small_motions_on_liberos_own_lattice_are_no_metres(tmp_path: Path, sample: list[Episode]) -> None:
    demos = {f"demo_{number}": one.actions.copy() for number, one in enumerate(sample[:20])}
    for actions in demos.values():
        actions[:, :3] = np.clip(actions[:, :3], -30 * 0.9375 / 350, 30 * 0.9375 / 350)
    found = said_of(tmp_path, demos)
    assert about("as LIBERO's are", found)
    assert not about("metres", found)
    in_metres = {key: actions * ([0.05] * 3 + [0.5] * 3 + [1]) for key, actions in demos.items()}
    assert about("No position command is larger than 0.004: likelier metres", said_of(tmp_path, in_metres))


def test_cumulated_deltas_look_like_poses(tmp_path: Path, sample: list[Episode]) -> None:
    poses = {}
    for number, one in enumerate(sample):
        poses[f"demo_{number}"] = one.actions.copy()
        poses[f"demo_{number}"][:, :3] = np.cumsum(one.actions[:, :3] * 0.05 / 3, axis=0) + 0.001
    assert len(about("look like poses", said_of(tmp_path, poses))) == 1


@pytest.mark.parametrize("recordings", ["sample", "spacemouse", "human_teleop"])
def test_real_recordings_raise_no_false_alarm(request: pytest.FixtureRequest, recordings: str) -> None:
    data = SAMPLE if recordings == "sample" else request.getfixturevalue(recordings)
    found = said(data)
    assert_plain(found)
    for word in ("poses", "normalised", "metres", "never move", "not known", "different rates", "--layout"):
        assert not about(word, [s for s in found if not s.startswith("Your ")]), word


# What never moves


def test_recordings_without_rotation_are_named(human_teleop: Path) -> None:
    [sentence] = about("rotation is exactly zero", said(human_teleop))
    assert "96% of the steps of 1 of 5 files (164740_" in sentence


def test_one_file_of_three_without_rotation_is_said(tmp_path: Path) -> None:
    for number in range(3):
        demos = {key: actions * ([1] * 3 + [number != 1] * 3 + [1]) for key, actions in walks(number).items()}
        write_libero(tmp_path / f"{number}.hdf5", demos)
    [sentence] = about("Your ", said(tmp_path))
    assert "Your rotation is exactly zero in 100% of the steps of 1 of 3 files (1.hdf5)" in sentence


def test_of_several_files_without_rotation_the_least_share_is_said_and_not_rounded_up(tmp_path: Path) -> None:
    """58 of 60 steps are 96.7 %."""
    for number in range(3):
        demos = {f"demo_{i}": actions.copy() for i, (_, actions) in enumerate(random_demos(6, seed=number, steps=10))}
        for actions in demos.values():
            actions[:, 3:6] *= number == 0
        if number == 2:
            demos["demo_0"][:2, 3] = 0.1
        write_libero(tmp_path / f"{number}.hdf5", demos)
    [sentence] = about("Your ", said(tmp_path))
    assert "at least 96% of the steps of 2 of 3 files (1.hdf5, ...): " in sentence


def test_where_files_say_nothing_tasks_without_rotation_are_named(tmp_path: Path) -> None:
    demos = [
        (task, actions * [1, 1, 1, *[task == "put the bowl on the plate"] * 3, 1]) for task, actions in exact_demos()
    ]
    [sentence] = about("Your ", said(write_lerobot_v2(tmp_path, demos)))
    assert "100% of the steps of 1 of 2 tasks (open the drawer): " in sentence


def test_where_every_file_is_without_position_none_is_singled_out(tmp_path: Path) -> None:
    [sentence] = about("Your ", said_of(tmp_path, scaled([0.0] * 3 + [1.0] * 4)))
    assert "Your position is exactly zero in 100% of the steps: " in sentence


def test_dimensions_that_never_move_are_named(tmp_path: Path) -> None:
    demos = {key: actions * [1, 0, 1, 1, 1, 0, 1] + [0, 0.2, 0, 0, 0, 0, 0] for key, actions in walks(0).items()}
    assert about("never move", said_of(tmp_path, demos)) == ["These dimensions never move: y, yaw."]


# Control rates


@pytest.mark.parametrize(
    ("rates", "listed", "words"),
    [
        ((None, None), [], "No control rate"),
        ((20, 20), [20.0], None),
        ((None, 20), [20.0], None),
        ((10, 10), [10.0], "at 10 steps"),
        ((20, 12.5), [12.5, 20.0], "different rates, 12.5, 20 steps"),
    ],
)
def test_control_rates_are_said(
    tmp_path: Path, rates: tuple[float | None, ...], listed: list[float], words: str | None
) -> None:
    for number, rate in enumerate(rates):
        write_libero(tmp_path / f"{number}.hdf5", walks(number), control_freq=rate)
    card = card_of(prepare_dataset(tmp_path))
    assert card.data["control_rates_hz"] == listed
    found = about("steps a second", remarks(card))
    assert len(found) == (words is not None)
    assert not words or words in found[0]


# Other layouts, recordings at rest, and cards in files


@pytest.mark.parametrize("layout", ["joint:7", "joint:6 gripper:1"])
def test_of_other_layouts_nothing_is_said_that_holds_for_liberos_alone(tmp_path: Path, layout: str) -> None:
    found = said_of(tmp_path, scaled([2.0] * 6 + [1.0]), layout=layout)
    assert_plain(found)
    for word in ("lattice", "SpaceMouse", "published", " mm", "metres", "poses", "normalised", "nearest"):
        assert not about(word, found), word


def test_of_recordings_at_rest_all_sentences_are_whole(tmp_path: Path) -> None:
    at_rest = {f"demo_{i}": np.zeros((30 + i, 7)) for i in range(6)}
    for layout in ("libero", "joint:7", "joint:6 gripper:1"):
        found = said_of(tmp_path, at_rest, layout=layout)
        assert_plain(found)
        assert bool(about("Nothing moves", found)) == (layout == "libero")


@pytest.mark.parametrize("layout", ["libero", "joint:7", "joint:3 position:3 gripper:1"])
def test_a_card_in_files_gives_the_same_remarks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str) -> None:
    monkeypatch.delenv("WORKBOOK_PREFIX", raising=False)
    out = OutputFolder.at(str(tmp_path / "out"))
    demos = scaled([1.0, 0.0, 1.0, 0.0, 2.0, 2.0, 1.0]) | {"demo_9": walks(0)["demo_0"] * [1, 0, 1, 0, 2, 2, 1]}
    prepared = prepare_dataset(write_libero(tmp_path / "a.hdf5", demos), DataConfig(layout=layout))
    card = card_of(prepared)
    write_stage(out, "data", {"layout": layout}, *describe(prepared))
    read = Evidence(out.root)
    assert read.data == card.data
    for name in ("dimensions", "tasks", "episodes"):
        pd.testing.assert_frame_equal(read.table(name), card.table(name), check_exact=True)
    assert remarks(read) == remarks(card)
    assert len(about("there twice", remarks(read))) == 1


@pytest.mark.parametrize(
    ("kind", "revision", "words_of_it"),
    [
        ("expert", "", "read as LIBERO HDF5, of a scripted expert in the simulator;"),
        ("LIBERO HDF5 + ManiSkill HDF5", "", "read as LIBERO HDF5 + ManiSkill HDF5;"),
        ("LeRobot v3.0", "abc", "read as LeRobot v3.0, from the hub;"),
    ],
)
def test_a_format_is_called_by_its_name_or_by_its_words(kind: str, revision: str, words_of_it: str) -> None:
    origin = {"kind": kind, "name": "libero_goal@abc", "revision": revision}
    card = {"episodes": 5, "episodes_read": 5, "steps": 80, "origin": origin, "dataset_sha256": "0" * 64}
    told = words("data").origin(card)
    assert words_of_it in told
    assert ("libero_goal@abc" in told) == bool(revision)
