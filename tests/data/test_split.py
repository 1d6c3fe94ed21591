"""Which episodes are taken, and which part each is in."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings, strategies as st
from made_up import episode

from workbook.common.errors import InputError
from workbook.data.episodes import Episode, take_evenly
from workbook.data.split import FRACTIONS, split_episodes, split_fold

HYPOTHESIS = settings(deadline=None, max_examples=60)


def recorded_alike(sizes: list[int]) -> list[Episode]:
    """Episodes of one file per entry of `sizes`, the files' episodes interleaved."""
    numbered = sorted((rank, group) for group, size in enumerate(sizes) for rank in range(size))
    return [episode(source=f"{group}.hdf5", key=f"demo_{rank}") for rank, group in numbered]


# Choosing


def test_take_evenly_takes_in_turn_and_keeps_the_order() -> None:
    files = "aaaabbc"
    episodes = [episode(source=name, key=f"demo_{i}") for i, name in enumerate(files)]
    assert ["".join(e.source for e in take_evenly(episodes, count)) for count in range(1, 8)] == [
        "a", "ab", "abc", "aabc", "aabbc", "aaabbc", "aaaabbc",
    ]  # fmt: skip
    assert [e.key for e in take_evenly(episodes, 4)] == ["demo_0", "demo_1", "demo_4", "demo_6"]


def test_episodes_of_one_file_with_two_tasks_are_two_groups() -> None:
    episodes = [episode(task=task, key=f"demo_{i}") for i, task in enumerate("aaab")]
    assert [e.task for e in take_evenly(episodes, 2)] == ["a", "b"]


@pytest.mark.parametrize("count", [0, 7, 99])
def test_take_evenly_can_take_all(count: int) -> None:
    episodes = recorded_alike([4, 2, 1])
    assert take_evenly(episodes, count) == episodes


@HYPOTHESIS
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 60))
def test_take_evenly_shortens_no_group_before_the_largest(sizes: list[int], count: int) -> None:
    episodes = recorded_alike(sizes)
    taken = take_evenly(episodes, count)
    counts = Counter(e.source for e in taken)
    assert len(taken) == min(count, sum(sizes))
    assert taken == [e for e in episodes if e in taken]
    assert all(
        counts[f"{i}.hdf5"] >= max(counts.values()) - 1 for i, size in enumerate(sizes) if counts[f"{i}.hdf5"] < size
    )


# Split


group_sizes = st.lists(st.integers(1, 14), min_size=1, max_size=7).filter(lambda sizes: sum(sizes) >= 4)


@HYPOTHESIS
@given(group_sizes, st.integers(0, 2**32))
def test_every_episode_is_in_one_part_and_every_group_in_proportion(sizes: list[int], seed: int) -> None:
    episodes = recorded_alike(sizes)
    parts = split_episodes(episodes, seed).parts()
    assert sorted(position for positions in parts.values() for position in positions) == list(range(len(episodes)))
    for name, share in FRACTIONS.items():
        assert parts[name]
        assert abs(len(parts[name]) - share * len(episodes)) < 1
        counts = Counter(episodes[position].source for position in parts[name])
        for group, size in enumerate(sizes):
            assert abs(counts[f"{group}.hdf5"] - share * size) < 1


def test_the_shares_are_60_20_20() -> None:
    split = split_episodes(recorded_alike([50, 30, 20]), seed=0)
    assert [len(split.train), len(split.validation), len(split.test)] == [60, 20, 20]


def test_a_split_depends_on_the_seed_alone() -> None:
    splits = [split_episodes(recorded_alike([10, 10]), seed) for seed in range(10)]
    assert splits == [split_episodes(recorded_alike([10, 10]), seed) for seed in range(10)]
    assert len({split.test for split in splits}) > 5


def test_a_split_does_not_depend_on_what_files_and_tasks_are_called() -> None:
    episodes = recorded_alike([10, 7, 5])
    names = {"0.hdf5": "z.hdf5", "1.hdf5": "m.hdf5", "2.hdf5": "a.hdf5"}
    renamed = [episode(task=names[e.source], source=names[e.source], key=e.key) for e in episodes]
    for seed in range(10):
        assert split_episodes(renamed, seed) == split_episodes(episodes, seed)


@pytest.mark.parametrize("count", range(4, 12))
@pytest.mark.parametrize("groups", [1, 3])
def test_from_four_episodes_on_no_part_is_empty(count: int, groups: int) -> None:
    sizes = [len(range(group, count, groups)) for group in range(groups)]
    assert all(split_episodes(recorded_alike(sizes), seed=0).parts().values())


@pytest.mark.parametrize("count", range(4))
def test_fewer_than_four_episodes_cannot_be_split(count: int) -> None:
    with pytest.raises(InputError, match=rf"^{count} episode.* at least 4"):
        split_episodes(recorded_alike([count]), seed=0)


# Recordings that were cut


def with_parts(counts: list[int]) -> list[Episode]:
    """Recordings of so many parts each, 1 for one that is whole, the parts one after another."""
    return [
        replace(episode(key=f"{number}.{part}"), part_of=f"{number}" if count > 1 else "")
        for number, count in enumerate(counts)
        for part in range(count)
    ]


@HYPOTHESIS
@given(st.lists(st.integers(1, 4), min_size=4, max_size=30), st.integers(0, 50))
def test_parts_of_a_recording_stay_together_where_the_whole_one_would_be(counts: list[int], seed: int) -> None:
    episodes = with_parts(counts)
    found = split_episodes(episodes, seed).parts()
    whole = split_episodes(with_parts([1] * len(counts)), seed).parts()
    assert sorted(position for positions in found.values() for position in positions) == list(range(len(episodes)))
    for name, positions in found.items():
        recordings = {int(episodes[position].key.partition(".")[0]) for position in positions}
        assert sum(counts[recording] for recording in recordings) == len(positions)
        assert len(recordings) == len(whole[name])


def test_parts_of_too_few_recordings_are_refused() -> None:
    with pytest.raises(InputError, match=r"3 episode\(s\) cannot be split"):
        split_episodes(with_parts([2, 2, 2]), 0)


def test_parts_of_the_same_name_in_two_files_are_of_two_recordings() -> None:
    cut = [replace(one, source=f"{file}.hdf5") for file in range(4) for one in with_parts([2])]
    assert [len(part) for part in split_episodes(cut, 0).parts().values()] == [4, 2, 2]


# Folds


@HYPOTHESIS
@given(st.lists(st.integers(1, 6), min_size=5, max_size=8), st.integers(3, 5), st.integers(0, 100))
def test_folds_test_every_episode_once_and_validate_it_once(sizes: list[int], folds: int, seed: int) -> None:
    episodes = recorded_alike(sizes)
    splits = [split_fold(episodes, seed, fold, folds) for fold in range(folds)]
    everything = list(range(len(episodes)))
    for part in ("validation", "test"):
        assert sorted(position for split in splits for position in split.parts()[part]) == everything
    for split in splits:
        assert sorted((*split.train, *split.validation, *split.test)) == everything
    sizes_of_tests = [len(split.test) for split in splits]
    assert max(sizes_of_tests) - min(sizes_of_tests) <= 1
    assert min(sizes_of_tests) >= 1


def test_parts_of_a_recording_stay_in_one_fold() -> None:
    episodes = [replace(episode(key=f"demo_{at}"), part_of=f"whole {at // 2}") for at in range(12)]
    for fold in range(3):
        for part in split_fold(episodes, 0, fold, 3).parts().values():
            assert all(position ^ 1 in part for position in part)


def test_fewer_episodes_than_folds_are_refused() -> None:
    with pytest.raises(InputError, match="give at least 5"):
        split_fold(recorded_alike([4]), 0, 0, 5)
