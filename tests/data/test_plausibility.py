"""Signs of other units, devices and poses, and the distance from LIBERO's published statistics."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from made_up import TWO_ARMS, Array, walks
from reading import about, card_of, said_of
from writers import write_libero

from workbook.common.paths import SAMPLE
from workbook.data.card import ALL_SUITES, distance, published_statistics
from workbook.data.config import DataConfig
from workbook.data.dataset import prepare_dataset
from workbook.data.episodes import Episode
from workbook.data.layout import LIBERO, ActionLayout
from workbook.data.plausibility import LATTICES, LIBERO_LATTICE, lattice_of, lattice_share, looks_absolute, step_ratio
from workbook.data.sources.read import read_recordings
from workbook.report.text import words
from workbook.report.text.data import remarks

SUITES = [name for name in published_statistics() if name != ALL_SUITES]
LATTICE_STEP = np.array([0.9375 / 350] * 3 + [0.375 / 350] * 3)  # position, rotation


# Lattices


def on_lattice(lattice: str, count: int = 400) -> Array:
    """LIBERO's layout, whole multiples of the lattice's steps and a gripper."""
    position, rotation = LATTICES[lattice]
    whole = np.random.default_rng(0).integers(-200, 201, (count, 6))
    return np.column_stack([whole * np.repeat([position, rotation], 3), np.where(np.arange(count) % 50 < 25, -1, 1)])


def demos_on(lattice: str) -> dict[str, Array]:
    return {f"demo_{number}": part for number, part in enumerate(np.split(on_lattice(lattice), 8))}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("lattice", LATTICES)
def test_every_known_lattice_is_recognised(lattice: str, dtype: type) -> None:
    assert lattice_of(on_lattice(lattice).astype(dtype).astype(np.float64), LIBERO) == lattice


@pytest.mark.parametrize("lattice", LATTICES)
def test_the_lattice_is_said(tmp_path: Path, lattice: str) -> None:
    [sentence] = about("lattice", said_of(tmp_path, demos_on(lattice)))
    if lattice == LIBERO_LATTICE:
        assert sentence.endswith("position 100.0%, rotation 100.0%: recorded, or rounded, as LIBERO's are.")
    else:
        assert sentence.endswith(f"they lie on that of {words('data').lattices[lattice]}.")


def test_a_lattice_of_position_or_rotation_alone_is_recognised() -> None:
    actions = on_lattice(LIBERO_LATTICE)
    assert lattice_of(actions[:, :3], ActionLayout.parse("position:3")) == LIBERO_LATTICE
    assert lattice_of(actions[:, 3:], ActionLayout.parse("rotation:3 gripper:1")) == LIBERO_LATTICE
    actions[:, 3:6] = np.random.default_rng(0).uniform(-0.3, 0.3, (len(actions), 3))
    assert lattice_of(actions, LIBERO) is None


def test_other_values_lie_on_no_lattice(tmp_path: Path) -> None:
    assert lattice_of(np.random.default_rng(0).uniform(-1, 1, (1000, 7)), LIBERO) is None
    assert lattice_of(np.zeros((100, 7)), LIBERO) is None
    [sentence] = about("lattice", said_of(tmp_path, walks(0)))
    assert sentence.endswith("rescaled, or recorded with another device than LIBERO's demonstrations.")


@pytest.mark.parametrize(("off", "expected"), [(0.0005, 1.0), (0.002, 0.0), (0.5, 0.0)])
def test_a_value_is_on_the_lattice_within_a_thousandth_of_a_step(off: float, expected: float) -> None:
    position, rotation = LATTICES[LIBERO_LATTICE]
    steps = np.array([[3, -7, 100, 2, 9, -40]]) + off
    actions = np.column_stack([steps * np.repeat([position, rotation], 3), [1.0]])
    assert lattice_share(actions, LIBERO).tolist()[:6] == [expected] * 6


def test_every_multiple_of_the_lattice_step_is_on_the_lattice() -> None:
    steps = np.random.default_rng(0).integers(-350, 351, (500, 6))
    actions = np.column_stack([steps * LATTICE_STEP, np.ones(500)])
    for recorded in (actions, actions.astype(np.float32).astype(float)):
        np.testing.assert_array_equal(lattice_share(recorded, LIBERO), [1.0] * 6 + [np.nan])


def test_other_values_are_off_the_lattice() -> None:
    rng = np.random.default_rng(0)
    between = (rng.integers(-350, 350, (500, 6)) + 0.5) * LATTICE_STEP
    share = lattice_share(np.column_stack([between, np.ones(500)]), LIBERO)
    np.testing.assert_array_equal(share, [0.0] * 6 + [np.nan])
    assert (lattice_share(rng.uniform(-0.3, 0.3, (2000, 7)), LIBERO)[:6] < 0.02).all()


def test_zero_proves_nothing_about_the_lattice() -> None:
    actions = np.zeros((10, 7))
    actions[:4, 1] = LATTICE_STEP[1] * np.array([3, 5, 1.5, 2.5])
    share = lattice_share(actions, LIBERO)
    assert share[1] == 0.5
    assert np.isnan(np.delete(share, 1)).all()


def test_the_lattice_of_the_real_recordings(spacemouse: Path, human_teleop: Path, sample: list[Episode]) -> None:
    def lattice(data: Path | str) -> str | None:
        actions = np.concatenate([one.actions for one in read_recordings(data).episodes])
        return lattice_of(actions, LIBERO)

    assert lattice("sample") == LIBERO_LATTICE
    assert lattice(spacemouse) == "robosuite"
    assert lattice(human_teleop) is None


# Poses instead of deltas


def test_recorded_poses_look_like_poses() -> None:
    poses = []
    for path in sorted(SAMPLE.rglob("*.hdf5")):
        with h5py.File(path) as file:
            poses += [demo["robot_states"][:, 2:5] for demo in file["data"].values()]
    assert len(poses) == 190
    assert looks_absolute(poses, ActionLayout.parse("position:3"))
    assert looks_absolute(poses[:4], ActionLayout.parse("position:3"))


def test_poses_of_a_single_file_look_like_poses() -> None:
    for path in sorted(SAMPLE.rglob("*.hdf5")):
        with h5py.File(path) as file:
            assert looks_absolute(
                [demo["robot_states"][:, 2:5] for demo in file["data"].values()], ActionLayout.parse("position:3")
            )


def test_poses_in_a_plane_look_like_poses() -> None:
    planar = np.column_stack([np.linspace(0.1, 0.5, 50), np.zeros(50), np.linspace(0.7, 0.2, 50)])
    assert looks_absolute([planar], ActionLayout.parse("position:3"))


def test_step_ratio_by_hand() -> None:
    up_and_down = np.array([[0.0], [1.0], [0.0], [1.0]])
    assert step_ratio([up_and_down]) == pytest.approx(1 / 0.5)
    two = [up_and_down[:2], up_and_down[:2] + 1]  # the change between episodes does not count
    assert step_ratio(two) == pytest.approx(1 / np.std([0, 1, 1, 2]))
    assert step_ratio([np.column_stack([up_and_down, np.arange(4.0), 10 * up_and_down])]) == pytest.approx(1 / 0.5)


def test_what_stands_still_does_not_look_like_poses() -> None:
    assert not looks_absolute([np.ones((50, 3))], ActionLayout.parse("position:2 gripper:1"))


def test_deltas_that_creep_and_rest_or_jump_are_no_poses() -> None:
    layout = ActionLayout.parse("position:1")
    slow = np.sin(np.linspace(0.001, 9, 500))[:, None]
    assert looks_absolute([slow], layout)
    resting = np.concatenate([slow, np.zeros((50, 1))])
    assert not looks_absolute([resting], layout)
    jumping = slow * np.where(np.arange(500) % 2, 1, -1)[:, None]
    assert not looks_absolute([jumping], layout)


def test_where_positions_do_not_move_or_are_none_nothing_looks_absolute() -> None:
    assert not looks_absolute([np.ones((20, 3))], ActionLayout.parse("position:3"))
    assert not looks_absolute([np.cumsum(np.ones((20, 6)), axis=0)], ActionLayout.parse("joint:6"))


@pytest.mark.parametrize("recordings", ["sample", "spacemouse", "human_teleop"])
def test_no_real_file_alone_looks_like_poses(request: pytest.FixtureRequest, recordings: str) -> None:
    episodes = read_recordings(SAMPLE if recordings == "sample" else request.getfixturevalue(recordings)).episodes
    for source in {one.source for one in episodes}:
        assert not looks_absolute([one.actions for one in episodes if one.source == source], LIBERO), source


# LIBERO's published statistics


def with_published(suite: str) -> Array:
    """Two steps with a suite's mean and std."""
    entry = published_statistics()[suite]
    mean, std = np.array(entry["mean"]), np.array(entry["std"])
    return np.stack([mean - std, mean + std])


def test_data_with_the_published_mean_and_std_have_no_distance() -> None:
    found = distance(with_published(ALL_SUITES))
    np.testing.assert_allclose(found["std_ratio"], np.ones(6), rtol=0, atol=1e-12)
    np.testing.assert_allclose(found["mean_shift"], np.zeros(6), rtol=0, atol=1e-12)
    assert found["outside"] == [0.0] * 6


@pytest.mark.parametrize("suite", SUITES)
def test_the_nearest_suite_of_a_suites_own_spread_is_that_suite(suite: str) -> None:
    assert distance(with_published(suite))["nearest_suite"] == suite


def test_distance_by_hand() -> None:
    entry = published_statistics()[ALL_SUITES]
    actions = with_published(ALL_SUITES).repeat(5, axis=0)
    actions[:, 0] = entry["mean"][0] + 3 * (actions[:, 0] - entry["mean"][0])
    actions[:, 1] += 2 * entry["std"][1]
    actions[0, 2] = entry["q99"][2] + 0.01
    actions[1, 2] = entry["q01"][2] - 0.01
    actions[2, 2] = entry["q99"][2]
    found = distance(actions)
    assert found["std_ratio"][:2] == pytest.approx([3.0, 1.0])
    assert found["mean_shift"][:2] == pytest.approx([0.0, 2.0])
    assert found["outside"][2:] == pytest.approx([0.2, 0.0, 0.0, 0.0])


def spread_like(factor: float, shift: float = 0.0) -> dict[str, Array]:
    """Normal values with the published mean and std, times a factor, and shifted by so many std."""
    entry = published_statistics()[ALL_SUITES]
    mean, std = np.array(entry["mean"][:6]), np.array(entry["std"][:6])
    demos = walks(0, count=8)
    rng = np.random.default_rng(0)
    for actions in demos.values():
        actions[:, :6] = mean + shift * std + factor * std * rng.normal(size=(len(actions), 6))
    return demos


def test_recordings_near_libero_are_said_to_be(tmp_path: Path) -> None:
    found = said_of(tmp_path, spread_like(1.0))
    assert about("within a factor of 2", found)
    assert not about("shifted", found)
    assert not about("Std against", found)


@pytest.mark.parametrize(("factor", "outside"), [(0.1, False), (6.0, True)])
def test_another_spread_than_liberos_is_said(tmp_path: Path, factor: float, outside: bool) -> None:
    found = said_of(tmp_path, spread_like(factor))
    [sentence] = about("Std against", found)
    assert all(f"{name} " in sentence for name in ("roll", "pitch", "yaw"))
    beyond = about("1 % to 99 % range", found)
    assert bool(beyond) == outside
    assert all(
        sentence.startswith("Steps outside LIBERO's published 1 % to 99 % range (2 % there): x ")
        and sentence.endswith(". A tokenizer that normalises by that range, as OpenVLA's does, would clip these.")
        for sentence in beyond
    )


def test_shifted_means_are_said_with_their_sign(tmp_path: Path) -> None:
    [sentence] = about("shifted", said_of(tmp_path, spread_like(0.5, shift=-1.0)))
    assert all(f"{name} by -" in sentence for name in LIBERO.names[:6])


def test_other_layouts_are_not_held_against_libero(tmp_path: Path) -> None:
    arms = {key: np.column_stack([actions, actions]) for key, actions in spread_like(6.0).items()}
    run = card_of(prepare_dataset(write_libero(tmp_path / "a.hdf5", arms), DataConfig(layout=TWO_ARMS.spec)))
    assert run.data["nearest_suite"] is None
    assert run.table("dimensions").std_ratio.isna().all()
    assert not about("published", remarks(run))
