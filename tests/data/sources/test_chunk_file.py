"""The existing pipeline's .pt of normalised chunks: units, episodes, tasks, control rate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up import Array, exact_demos, numbered
from reading import about, assert_same, card_of, notes, rate_of, read
from writers import Demos, write_chunk_file, write_libero_folder

from workbook.common.note import note
from workbook.data.dataset import Prepared, prepare_dataset
from workbook.data.episodes import Episode
from workbook.data.plausibility import LIBERO_LATTICE
from workbook.data.sources.read import read_recordings
from workbook.report.text.data import remarks


def chunk_file(path: Path, demos: Demos | None = None, **entries: object) -> Path:
    """A .pt of these demos, with other entries; None takes an entry out."""
    content = torch.load(write_chunk_file(path, demos or exact_demos(2)))
    content |= entries
    torch.save({key: value for key, value in content.items() if value is not None}, path)
    return path


def metadata(path: Path, **entries: object) -> Path:
    content = torch.load(write_chunk_file(path, exact_demos(2)))
    content["metadata"] |= entries
    torch.save(content, path)
    return path


# Units


def test_chunks_are_denormalised_with_the_bounds_in_the_file(tmp_path: Path) -> None:
    low = torch.tensor([-1.0, 0.0, -0.5, -4.0, 2.0, 0.25, -1.0])
    high = torch.tensor([1.0, 1.0, 0.25, 4.0, 2.0, 0.5, 0.0])
    normalised = torch.rand(40, 8, 7, generator=torch.Generator().manual_seed(0)) * 2 - 1
    content = {"actions": normalised, "normalization": {"min": low, "max": high}}
    torch.save(content, tmp_path / "a.pt")
    by_hand = (normalised.double() + 1) / 2 * (high.double() - low.double()) + low.double()
    actions = np.concatenate([episode.actions for episode in read(tmp_path / "a.pt")])
    np.testing.assert_array_equal(actions, by_hand.reshape(-1, 7).numpy())
    assert "brought back to controller units" in notes(tmp_path / "a.pt")


def test_minus_one_is_the_minimum_and_one_the_maximum(tmp_path: Path) -> None:
    ends = torch.ones(20, 8, 7)
    ends[:, :4] = -1
    bounds = {"min": [-3, 0.5, -1, -1, -1, -1, 0], "max": (5, 0.75, 1, 1, 1, 1, 1)}
    torch.save({"actions": ends, "normalization": bounds}, tmp_path / "a.pt")
    chunks = read(tmp_path / "a.pt")[0].actions.reshape(20, 8, 7)
    assert (chunks[:, :4] == bounds["min"]).all()
    assert (chunks[:, 4:] == bounds["max"]).all()


@pytest.mark.parametrize("kind", [list, tuple, torch.tensor, lambda bound: torch.tensor(bound, dtype=torch.float64)])
def test_bounds_may_be_lists_and_tensors(tmp_path: Path, kind: Callable[[list[float]], object]) -> None:
    bounds = {"min": kind([-1.0] * 7), "max": kind([1.0] * 7)}
    assert_same(read(chunk_file(tmp_path / "a.pt", normalization=bounds)), exact_demos(2))


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.int64, torch.tensor])
def test_lists_may_hold_numbers_of_numpy_and_tensors_of_one(tmp_path: Path, kind: Callable[[int], object]) -> None:
    """As list(array) does, whose items are no numbers of Python's."""
    bounds = {"min": [kind(-1)] * 7, "max": [kind(1)] * 7}
    said = {"episode_index": [kind(3)] * 2 + [kind(5)], "control_rate_hz": kind(10), "task": np.array("count")}
    path = chunk_file(tmp_path / "a.pt", numbered([16, 8]), normalization=bounds, metadata=said)
    assert_same(read(path), numbered([16, 8]))
    assert [episode.key for episode in read(path)] == ["episode 3", "episode 5"]
    assert rate_of(path) == 10


def test_tasks_may_be_an_array_of_texts(tmp_path: Path) -> None:
    demos = [(f"task {number}", actions) for number, (_, actions) in enumerate(numbered([8, 8]))]
    said = {"episode_index": [0, 1], "task": np.array([task for task, _ in demos])}
    assert_same(read(chunk_file(tmp_path / "a.pt", demos, metadata=said)), demos)


def test_whole_numbers_are_bounds_too(tmp_path: Path) -> None:
    bounds = {"min": [-1] * 7, "max": [1] * 7, "method": "min-max"}
    assert_same(read(chunk_file(tmp_path / "a.pt", normalization=bounds)), exact_demos(2))


def test_bounds_in_lists_keep_all_their_digits(tmp_path: Path) -> None:
    bounds = {"min": [-0.1] * 7, "max": [0.1] * 7}
    torch.save({"actions": torch.ones(20, 8, 7), "normalization": bounds}, tmp_path / "a.pt")
    assert (read(tmp_path / "a.pt")[0].actions == 0.1).all()


def test_without_normalization_values_are_taken_as_they_are_and_it_is_said(tmp_path: Path) -> None:
    path = chunk_file(tmp_path / "a.pt", normalization=None)
    assert_same(read(path), exact_demos(2))
    assert "carries no 'normalization'" in notes(path)


# The sample, normalised as the existing pipeline does it


@dataclass(frozen=True, eq=False)
class Sample:
    """The sample's whole chunks, and what 01_data makes of them where they are written as HDF5."""

    demos: list[tuple[str, Array]]
    prepared: Prepared


@pytest.fixture(scope="module")
def whole_chunks(sample: list[Episode], tmp_path_factory: pytest.TempPathFactory) -> Sample:
    demos = [(one.task, one.actions[: len(one.actions) // 8 * 8]) for one in sample]
    demos.sort(key=lambda demo: demo[0])
    return Sample(demos, prepare_dataset(write_libero_folder(tmp_path_factory.mktemp("sample"), demos)))


@pytest.fixture(params=[0.0, 1e-6], ids=["exactly", "1e-6 added to the width"])
def normalised(request: pytest.FixtureRequest, whole_chunks: Sample, tmp_path: Path) -> Prepared:
    """The same as float32 between -1 and 1, with the bounds that they have; some add a little before dividing."""
    everything = np.concatenate([actions for _, actions in whole_chunks.demos])
    low, high = everything.min(axis=0), everything.max(axis=0)
    demos = [(task, (a - low) / (high - low + request.param) * 2 - 1) for task, a in whole_chunks.demos]
    bounds = {"min": torch.from_numpy(low).float(), "max": torch.from_numpy(high).float()}
    return prepare_dataset(chunk_file(tmp_path / "a.pt", demos, normalization=bounds))


def test_the_normalised_sample_comes_back(whole_chunks: Sample, normalised: Prepared) -> None:
    for one, other in zip(normalised.dataset.episodes, whole_chunks.prepared.dataset.episodes, strict=True):
        assert one.task == other.task
        np.testing.assert_allclose(one.actions, other.actions, rtol=0, atol=2e-6)


def test_the_normalised_sample_has_its_exact_zeros(whole_chunks: Sample, normalised: Prepared) -> None:
    for one, other in zip(normalised.dataset.episodes, whole_chunks.prepared.dataset.episodes, strict=True):
        np.testing.assert_array_equal(one.actions == 0, other.actions == 0)
    found, expected = card_of(normalised), card_of(whole_chunks.prepared)
    shares = [run.table("dimensions").zero_share for run in (found, expected)]
    np.testing.assert_array_equal(*shares)
    assert shares[0][:6].min() > 0.03
    for key in ("idle_share", "still"):
        assert found.data[key] == expected.data[key]


def test_the_normalised_sample_lies_on_its_lattice(whole_chunks: Sample, normalised: Prepared) -> None:
    card, expected = card_of(normalised), card_of(whole_chunks.prepared)
    assert card.data["lattice"] == LIBERO_LATTICE
    assert about("lattice", remarks(card)) == about("lattice", remarks(expected))
    assert about("lattice", remarks(card))[0].endswith(
        "position 100.0%, rotation 100.0%: recorded, or rounded, as LIBERO's are."
    )
    assert not about("normalised, ", remarks(card))


def test_the_gripper_of_the_normalised_sample_is_a_switch(whole_chunks: Sample, normalised: Prepared) -> None:
    [reading], expected = normalised.changes.grippers, whole_chunks.prepared.changes.grippers
    assert reading.switch
    assert [asdict(reading)] == [asdict(one) for one in expected]
    for one, other in zip(normalised.dataset.episodes, whole_chunks.prepared.dataset.episodes, strict=True):
        np.testing.assert_array_equal(one.actions[:, 6], other.actions[:, 6])


# Episodes, tasks and control rate


@pytest.mark.parametrize("key", ["episode_index", "episode"])
@pytest.mark.parametrize("as_list", [False, True])
def test_the_episode_of_a_chunk_is_respected(tmp_path: Path, key: str, as_list: bool) -> None:
    demos = numbered([16, 8, 24])
    owner = torch.tensor([7, 7, 3, 9, 9, 9])
    path = chunk_file(tmp_path / "a.pt", demos, metadata={key: owner.tolist() if as_list else owner, "task": "count"})
    assert_same(read(path), demos)
    assert [episode.key for episode in read(path)] == ["episode 7", "episode 3", "episode 9"]
    assert "does not say which episode" not in notes(path)


def test_chunks_of_one_episode_need_not_be_neighbours(tmp_path: Path) -> None:
    demos = numbered([32])
    path = chunk_file(tmp_path / "a.pt", demos, metadata={"episode_index": torch.tensor([0, 1, 0, 1]), "task": "x"})
    chunks = demos[0][1].reshape(4, 8, 7)
    assert_same(read(path), [("x", chunks[number::2].reshape(-1, 7)) for number in (0, 1)])


@pytest.mark.parametrize(("chunk_len", "block"), [(8, 20), (16, 10), (1, 160), (50, 3), (200, 1)])
def test_without_episodes_blocks_of_160_steps_are_held_together_and_it_is_said(
    tmp_path: Path, chunk_len: int, block: int
) -> None:
    for count, lengths in ((3 * block, [block] * 3), (3 * block + block // 2, [block, block, block + block // 2])):
        actions = torch.randn(count, chunk_len, 7, generator=torch.Generator().manual_seed(0))
        torch.save({"actions": actions}, tmp_path / "a.pt")
        assert [len(episode.actions) for episode in read(tmp_path / "a.pt")] == [n * chunk_len for n in lengths]
        np.testing.assert_array_equal(
            np.concatenate([episode.actions for episode in read(tmp_path / "a.pt")]), actions.reshape(-1, 7)
        )
    assert read_recordings(tmp_path / "a.pt").origin.notes[1] == note("episodes_not_said", block=block)
    assert f"So blocks of {block} neighbouring chunks are held together" in notes(tmp_path / "a.pt")


@pytest.mark.parametrize("count", [1, 19, 20, 39])
def test_fewer_chunks_than_two_blocks_are_one(tmp_path: Path, count: int) -> None:
    torch.save({"actions": torch.rand(count, 8, 7)}, tmp_path / "a.pt")
    assert [len(episode.actions) for episode in read(tmp_path / "a.pt")] == [8 * count]


def test_a_recording_at_rest_does_not_overlap(tmp_path: Path) -> None:
    torch.save({"actions": torch.zeros(40, 8, 7)}, tmp_path / "a.pt")
    assert len(read(tmp_path / "a.pt")) == 2


def test_one_task_is_that_of_every_chunk(tmp_path: Path) -> None:
    assert {episode.task for episode in read(metadata(tmp_path / "a.pt", task="stack"))} == {"stack"}


@pytest.mark.parametrize("task", [None, "", 3, {}])
def test_without_a_task_the_file_names_it(tmp_path: Path, task: object) -> None:
    path = metadata(tmp_path / "libero_actions_normalized.pt", task=task)
    assert {episode.task for episode in read(path)} == {"libero actions normalized"}


@pytest.mark.parametrize("rate", [10, 12.5])
def test_the_control_rate_of_a_chunk_file_is_taken(tmp_path: Path, rate: float) -> None:
    assert rate_of(metadata(tmp_path / "a.pt", control_rate_hz=rate)) == rate


@pytest.mark.parametrize(
    "rate", [None, 0, -1, "20", float("nan"), float("inf"), True, 10**400], ids=lambda r: str(r)[:5]
)
def test_a_control_rate_that_is_none_is_not_said(tmp_path: Path, rate: object) -> None:
    assert rate_of(metadata(tmp_path / "a.pt", control_rate_hz=rate)) is None


# Forms of the file


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int8])
def test_tensors_of_any_number_are_read(tmp_path: Path, dtype: torch.dtype) -> None:
    demos = [("count", np.arange(8 * 7 * 2).reshape(16, 7) % 100.0)]
    actions = torch.from_numpy(demos[0][1]).reshape(2, 8, 7).to(dtype)
    path = chunk_file(tmp_path / "a.pt", demos, actions=actions, normalization=None)
    assert_same(read(path), demos)


def test_tensors_of_a_gradient_or_a_parameter_are_read(tmp_path: Path) -> None:
    actions = torch.load(write_chunk_file(tmp_path / "a.pt", exact_demos(2)))["actions"]
    for number, tensor in enumerate((actions.clone().requires_grad_(), torch.nn.Parameter(actions.clone()))):
        assert_same(read(chunk_file(tmp_path / f"{number}.pt", actions=tensor)), exact_demos(2))


@pytest.mark.parametrize("name", ["a.pt", "a.PT", "a.pth"])
def test_both_suffixes_and_the_older_format_are_read(tmp_path: Path, name: str) -> None:
    content = torch.load(write_chunk_file(tmp_path / "b.pt", exact_demos(2)))
    torch.save(content, tmp_path / name, _use_new_zipfile_serialization=False)
    assert_same(read(tmp_path / name), exact_demos(2))
    assert read_recordings(tmp_path / name).origin.kind == "chunks"


def test_a_chunk_file_may_be_a_link_to_a_file_without_suffix(tmp_path: Path) -> None:
    write_chunk_file(tmp_path / "blob.pt", exact_demos(2)).rename(tmp_path / "0123abcd")
    (tmp_path / "a.pt").symlink_to(tmp_path / "0123abcd")
    assert_same(read(tmp_path / "a.pt"), exact_demos(2))


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64])
def test_bounds_may_be_arrays_of_numpy_rows_of_one_or_one_for_all(tmp_path: Path, kind: type) -> None:
    low, high = np.full(7, -2, dtype=kind), np.full(7, 2, dtype=kind)
    expected = read(chunk_file(tmp_path / "list.pt", normalization={"min": low.tolist(), "max": high.tolist()}))
    for name, bounds in {
        "array": {"min": low, "max": high},
        "row": {"min": torch.from_numpy(low)[None, None], "max": torch.from_numpy(high)[None, None]},
        "scalar": {"min": torch.tensor(-2.0), "max": torch.tensor(2.0)},
    }.items():
        found = read(chunk_file(tmp_path / f"{name}.pt", normalization=bounds))
        for one, other in zip(expected, found, strict=True):
            np.testing.assert_array_equal(one.actions, other.actions)
