"""Glitches in dimensions that nothing clips: named, and where asked brought to a quantile; and what only trembles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from made_up import Array, episode, walks
from reading import about, card_of, said, said_of
from writers import write_lerobot_v2, write_libero

from workbook.common.errors import InputError
from workbook.common.paths import SAMPLE
from workbook.data.cleaning import FAR, NAMED, Outlier, limit_outliers
from workbook.data.config import DataConfig
from workbook.data.dataset import prepare_dataset
from workbook.data.layout import LIBERO, ActionLayout
from workbook.data.plausibility import trembling

HYPOTHESIS = settings(deadline=None, max_examples=60)
JOINTS = ActionLayout.parse("joint:6")
ONE_JOINT = ActionLayout.parse("joint:1")


def sweeps(count: int = 20, steps: int = 100, seed: int = 0) -> list[Array]:
    """Six joints that swing within 90, each at a frequency and phase of its own."""
    rng = np.random.default_rng(seed)
    time = np.arange(steps)[:, None]
    return [90 * np.sin(time * rng.uniform(0.02, 0.1, 6) + rng.uniform(0, 6, 6)) for _ in range(count)]


def spiked() -> list[Array]:
    """One glitch in each joint, in an episode each, at step 40."""
    recorded = sweeps()
    for joint in range(6):
        recorded[joint + 2][40, joint] = 2950.0
    return recorded


def lerobot(folder: Path, recorded: list[Array]) -> Path:
    return write_lerobot_v2(folder, [("swing", actions) for actions in recorded])


def test_a_glitch_in_each_joint_is_named_with_its_place(tmp_path: Path) -> None:
    path = lerobot(tmp_path, spiked())
    prepared = prepare_dataset(path, DataConfig(layout="joint:6"))
    found = prepared.changes.outliers
    assert (found.count, len(found.first), found.clipped) == (6, NAMED, False)
    place = prepared.dataset.episodes[2].place
    assert found.first[0] == Outlier(place, 40, "joint 1", 2950.0)
    assert max(float(one.actions.max()) for one in prepared.dataset.episodes) == 2950
    [sentence] = about("glitches", said(path, layout="joint:6"))
    assert sentence.startswith("6 values lie more than 10 times")
    assert f"{place}, step 40, joint 1 (2950); " in sentence
    assert "--outliers clip" in sentence


def test_clipped_they_lie_at_a_quantile_of_the_train_part_and_all_else_is_as_recorded(tmp_path: Path) -> None:
    prepared = prepare_dataset(lerobot(tmp_path, spiked()), DataConfig(layout="joint:6", outliers="clip"))
    assert (prepared.changes.outliers.count, prepared.changes.outliers.clipped) == (6, True)
    written = [actions.astype(np.float32).astype(float) for actions in spiked()]
    train = np.sort(np.concatenate([written[position] for position in prepared.dataset.split.train]), axis=0)
    for read, recorded in zip(prepared.dataset.episodes, written, strict=True):
        same = np.abs(recorded) < 1000
        np.testing.assert_array_equal(read.actions[same], recorded[same])
        for _, joint in np.argwhere(~same):
            assert read.actions[40, joint] == train[int(0.99 * (len(train) - 1)), joint]
    assert prepared.dataset.normaliser.high.max() <= 90
    found = said(tmp_path, layout="joint:6", outliers="clip")
    assert "brought to the nearer of the two quantiles" in about("glitches", found)[0]
    assert about("was clipped", found) == ["Nothing else was clipped: joints are in units of their own."]


def test_without_a_glitch_nothing_is_said_or_changed(tmp_path: Path) -> None:
    path = lerobot(tmp_path, sweeps())
    kept, clipped = (prepare_dataset(path, DataConfig(layout="joint:6", outliers=how)) for how in ("keep", "clip"))
    assert kept.dataset.sha256 == clipped.dataset.sha256
    assert kept.changes.outliers.count == 0
    assert not about("glitches", said(path, layout="joint:6"))
    assert about("was clipped", said(path, layout="joint:6", outliers="clip")) == [
        "Nothing was clipped: joints are in units of their own."
    ]


def ramp(*values: float) -> Array:
    """0 to 100 by ones, of which the quantiles are 1 and 99 and the median is 50; then these."""
    return np.array([*range(101), *values], dtype=float)[:, None]


@pytest.mark.parametrize(
    ("value", "is_far", "brought_to"),
    [(50 + 10 * 98, False, None), (50 + 10 * 98 + 1, True, 99.0), (50 - 10 * 98 - 1, True, 1.0)],
)
def test_the_bound_by_hand(value: float, is_far: bool, brought_to: float | None) -> None:
    train, held_out = episode(ramp()), episode(ramp(value), key="demo_1")
    for clip in (False, True):
        episodes, found = limit_outliers([train, held_out], [0], ONE_JOINT, clip)
        assert found.count == is_far
        assert episodes[1].actions[-1, 0] == (brought_to if is_far and clip else value)
        assert episodes[0] is train
    if is_far:
        assert found.first == (Outlier("a.hdf5, demo_1", 101, "joint", value),)


def test_held_out_steps_have_no_say_in_the_bounds() -> None:
    held_out = episode(np.full((500, 1), 5000.0), key="demo_1")
    episodes, found = limit_outliers([episode(ramp()), held_out], [0], ONE_JOINT, True)
    assert found.count == 500
    assert set(episodes[1].actions[:, 0]) == {99.0}


def test_one_glitch_among_few_steps_is_found() -> None:
    """The 99 % quantile of 20 values, interpolated, would be the glitch's own."""
    _, found = limit_outliers([episode([[float(step % 7)] for step in range(19)] + [[3000.0]])], [0], ONE_JOINT, False)
    assert found.count == 1


def test_a_dimension_that_hardly_ever_moves_has_no_outliers() -> None:
    """Its two quantiles are equal, and tell nothing."""
    values = np.zeros((1000, 1))
    values[500:505] = 30.0
    assert limit_outliers([episode(values)], [0], ONE_JOINT, True)[1].count == 0
    assert limit_outliers([episode(np.full((50, 1), 7.0))], [0], ONE_JOINT, True)[1].count == 0


def test_what_the_controller_clips_is_no_outlier(tmp_path: Path) -> None:
    demos = walks(0)
    demos["demo_0"][3, 0] = 4000.0
    found = said_of(tmp_path, demos)
    assert not about("glitches", found)
    assert "4e+03" in about("were clipped", found)[0]


def test_a_gripper_in_its_own_units_may_glitch(tmp_path: Path) -> None:
    recorded = sweeps(8)
    for actions in recorded:
        actions[:, 5] = (actions[:, 5] + 90) / 1.8
    recorded[3][17, 5] = -60_000.0
    [sentence] = about("glitches", said(lerobot(tmp_path, recorded), layout="joint:5 gripper:1"))
    assert "step 17, gripper (-6e+04)" in sentence


@HYPOTHESIS
@given(
    st.integers(0, 2**32), st.lists(st.tuples(st.integers(0, 7), st.integers(0, 39), st.integers(0, 5)), max_size=9),
    st.sampled_from([1e4, -1e5, 1e300]),
)  # fmt: skip
def test_clipping_changes_what_is_far_and_nothing_else(
    seed: int, glitches: list[tuple[int, int, int]], value: float
) -> None:
    recorded = sweeps(8, 40, seed)
    for number, step, joint in glitches:
        recorded[number][step, joint] = value
    before = [episode(actions.copy(), key=f"demo_{number}") for number, actions in enumerate(recorded)]
    after, found = limit_outliers(before, range(8), JOINTS, True)
    everything = np.concatenate(recorded)
    # Where more than a hundredth are glitches, they make the quantile, and are none.
    glitched = np.sort(np.abs(everything), axis=0)[int(0.99 * (len(everything) - 1))] < 100
    far = (np.abs(everything) > 1000) & glitched
    assert found.count == far.sum()
    limited = np.concatenate([one.actions for one in after])
    np.testing.assert_array_equal(limited[~far], everything[~far])
    assert (np.abs(limited[far]) <= 90).all()


def test_another_word_than_keep_or_clip_is_refused(tiny_data: Path) -> None:
    with pytest.raises(InputError, match=r"^outliers is 'drop'; give one of keep, clip$"):
        prepare_dataset(tiny_data, DataConfig(outliers="drop"))


@pytest.mark.parametrize("recordings", ["sample", "spacemouse"])
@pytest.mark.parametrize("poses", [False, True])
def test_real_recordings_have_none_even_where_nothing_is_clipped(
    tmp_path: Path, request: pytest.FixtureRequest, recordings: str, poses: bool
) -> None:
    """As joints, and as the way that the deltas sum up to; the bound is far away."""
    data = SAMPLE if recordings == "sample" else request.getfixturevalue(recordings)
    found = prepare_dataset(data).dataset.episodes
    motion = {f"demo_{i}": np.cumsum(e.actions, axis=0) if poses else e.actions for i, e in enumerate(found)}
    card = card_of(prepare_dataset(write_libero(tmp_path / "a.hdf5", motion), DataConfig(layout="joint:7"))).data
    assert card["outliers"]["count"] == 0
    assert card["trembling"] == []
    everything = np.concatenate(list(motion.values()))[:, :6]
    low, high = np.quantile(everything, [0.01, 0.99], axis=0)
    assert (np.abs(everything - np.median(everything, axis=0)) < FAR / 7 * (high - low)).all()


@pytest.mark.parametrize("recordings", ["sample", "spacemouse", "human_teleop"])
def test_no_glitch_is_said_of_real_recordings(request: pytest.FixtureRequest, recordings: str) -> None:
    found = said(SAMPLE if recordings == "sample" else request.getfixturevalue(recordings))
    assert not about("glitch", found)
    assert not about("tremble", found)


def test_the_glitches_of_a_recording_by_hand_are_found_where_nothing_clips_them(human_teleop: Path) -> None:
    """Values up to 69.3 among commands within 1."""
    found = prepare_dataset(human_teleop, DataConfig(layout="joint:6 gripper:1")).changes.outliers
    assert found.count > 0
    assert all(abs(one.value) > 3 or one.dimension in ("joint 4", "joint 5", "joint 6") for one in found.first)


# What only trembles


@pytest.mark.parametrize(("amplitude", "said_to_tremble"), [(0.0005, True), (0.02, False), (0.0, False)])
def test_a_dimension_that_only_trembles_is_noise(tmp_path: Path, amplitude: float, said_to_tremble: bool) -> None:
    rng = np.random.default_rng(0)
    demos = {f"demo_{i}": actions for i, actions in enumerate(sweeps(8))}
    for actions in demos.values():
        actions[:, 2] = 12 + 90 * amplitude * rng.normal(size=len(actions))
    found = said_of(tmp_path, demos, layout="joint:6")
    assert bool(about("joint 3 only trembles", found)) == said_to_tremble
    assert bool(about("never move", found)) == (amplitude == 0)


def test_trembling_is_told_among_dimensions_of_one_kind() -> None:
    rng = np.random.default_rng(0)
    actions = rng.normal(size=(500, 7)) * [1, 1, 1e-5, 1e-5, 1e-5, 1e-5, 1]
    assert trembling(actions, LIBERO) == ["z"]
    assert trembling(actions, ActionLayout.parse("position:3 joint:3 position:1")) == ["z"]


def test_a_glitch_elsewhere_makes_no_motion_look_small() -> None:
    everything = np.concatenate(sweeps())
    everything[40, :3] = 1e9
    assert trembling(everything, JOINTS) == []


def test_what_moves_seldom_does_not_tremble() -> None:
    everything = np.concatenate(sweeps())
    everything[:, 0] = np.where(np.arange(len(everything)) < 5, 90.0, 0.0)
    assert trembling(everything, JOINTS) == []
