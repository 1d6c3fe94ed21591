"""Whatever is wrong with a .pt of normalised chunks: one sentence that says where and what to do."""

from __future__ import annotations

import pickle
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings, strategies as st
from made_up import random_walk
from spoiling import GIT_LFS, cut_short, demos, refusal, without_rights
from writers import write_chunk_file, write_libero

from rfsq_robust import ActionRFSQAE, Checkpoint, save_checkpoint
from workbook.data.dataset import prepare_dataset

HYPOTHESIS = settings(deadline=None, max_examples=40)
Content = dict[str, object]


def chunk_file(path: Path, change: Callable[[Content], object]) -> Path:
    """A good .pt, its content changed."""
    content = torch.load(write_chunk_file(path, demos()))
    change(content)
    torch.save(content, path)
    return path


def putting(key: str, value: object | Callable[[torch.Tensor], object]) -> Callable[[Content], object]:
    """Put another value in the place of one, or what a function makes of it."""
    return lambda content: content.update({key: value(content[key]) if callable(value) else value})


# The file


@HYPOTHESIS
@given(st.data(), st.booleans())
def test_a_chunk_file_cut_anywhere(data: st.DataObject, zipped: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = write_chunk_file(Path(name) / "bad.pt", demos())
        torch.save(torch.load(path), path, _use_new_zipfile_serialization=zipped)
        cut_short(path, data.draw(st.integers(1, path.stat().st_size)))
        text = refusal(path, f"{path}: ")
        # Cut within the name of a type, a file seems to hold another type than tensors.
        assert "not a PyTorch file" in text or "never loaded here" in text


NO_CHUNK_FILES: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.write_text("x,y,z\n0,0,0\n"),
    "a pointer of git-lfs": lambda path: path.write_bytes(GIT_LFS),
    "an empty zip": lambda path: path.write_bytes(b"PK\x05\x06" + bytes(18)),
    "HDF5": lambda path: write_libero(path, {"demo_0": demos()[0][1]}),
    "parquet": lambda path: pq.write_table(pa.table({"action": [[0.5]]}), path),
    "a numpy archive": lambda path: np.savez(path.open("wb"), actions=np.zeros((8, 8, 7))),
    "a list": lambda path: torch.save([torch.zeros(8, 8, 7)], path),
    "a tensor": lambda path: torch.save(torch.zeros(8, 8, 7), path),
    "an empty dict": lambda path: torch.save({}, path),
    "other keys": lambda path: torch.save({"action": torch.zeros(8, 8, 7)}, path),
    "weights of a model": lambda path: torch.save(torch.nn.Linear(7, 7).state_dict(), path),
    "a model": lambda path: torch.save(torch.nn.Linear(7, 7), path),
    "a checkpoint": lambda path: save_checkpoint(
        path, Checkpoint(ActionRFSQAE(7, 4, 2, 3), 1, 0.5, {"min": -torch.ones(7), "max": torch.ones(7)}, {})
    ),
    "an array of objects": lambda path: torch.save({"actions": np.zeros((8, 8, 7), dtype=object)}, path),
    "a path in it": lambda path: torch.save({"actions": torch.zeros(8, 8, 7), "metadata": {"source": path}}, path),
}


@pytest.mark.parametrize("write", NO_CHUNK_FILES.values(), ids=NO_CHUNK_FILES)
def test_a_file_that_is_no_chunk_file(tmp_path: Path, write: Callable[[Path], object]) -> None:
    write(tmp_path / "bad.pt")
    refusal(tmp_path / "bad.pt", str(tmp_path / "bad.pt"))


def test_a_chunk_file_called_hdf5(tmp_path: Path) -> None:
    path = write_chunk_file(tmp_path / "bad.hdf5", demos())
    refusal(path, f"{path}: not an HDF5 file")


def test_a_folder_called_pt(tmp_path: Path) -> None:
    (tmp_path / "bad.pt").mkdir()
    refusal(tmp_path / "bad.pt", str(tmp_path / "bad.pt"))


@pytest.mark.parametrize("target", ["gone.pt", "bad.pt"])
def test_a_chunk_file_that_is_a_link_to_nothing(tmp_path: Path, target: str) -> None:
    (tmp_path / "bad.pt").symlink_to(target)
    refusal(tmp_path / "bad.pt", "bad.pt")


def test_a_chunk_file_that_is_a_link_to_a_device(tmp_path: Path) -> None:
    (tmp_path / "bad.pt").symlink_to("/dev/null")
    refusal(tmp_path / "bad.pt")


def test_no_permission_for_a_chunk_file(open_folder: Path) -> None:
    path = write_chunk_file(open_folder / "bad.pt", demos())
    prepare_dataset(path)
    path.chmod(0)
    with without_rights():
        assert "fix its permissions" in refusal(path, str(path))


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda path: torch.jit.save(torch.jit.script(torch.nn.Linear(7, 7)), path), id="TorchScript"),
        pytest.param(lambda path: path.write_bytes(pickle.dumps({"actions": [0.5]}, protocol=5)), id="newer pickle"),
    ],
)
def test_a_refusal_is_all_that_is_said(tmp_path: Path, write: Callable[[Path], object]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the writing
        write(tmp_path / "bad.pt")
    refusal(tmp_path / "bad.pt", str(tmp_path / "bad.pt"))


# Actions


NO_ACTIONS: dict[str, object] = {
    "a list": torch.Tensor.tolist,
    "nothing": None,
    "a word": "actions",
    "one episode": lambda actions: actions[0],
    "one dimension too many": lambda actions: actions[None],
    "a number": torch.tensor(0.5),
    "no chunks": lambda actions: actions[:0],
    "no steps": lambda actions: actions[:, :0],
    "no dimensions": lambda actions: actions[:, :, :0],
    "bool": lambda actions: actions > 0,
    "complex": lambda actions: actions.to(torch.complex64),
    "sparse": torch.Tensor.to_sparse,
}


@pytest.mark.parametrize("value", NO_ACTIONS.values(), ids=NO_ACTIONS)
def test_actions_that_are_no_chunks_of_numbers(tmp_path: Path, value: object) -> None:
    refusal(chunk_file(tmp_path / "bad.pt", putting("actions", value)), f"{tmp_path / 'bad.pt'}, 'actions'")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: torch.eye(7).repeat(12, 1, 1).to_sparse_csr(), id="sparse rows"),
        pytest.param(lambda: torch.quantize_per_tensor(torch.zeros(12, 8, 7), 0.1, 0, torch.qint8), id="quantized"),
        pytest.param(lambda: torch.zeros(12, 8, 7, device="meta"), id="meta"),
        pytest.param(lambda: torch.nested.nested_tensor([torch.zeros(8, 7)] * 2), id="nested"),
        pytest.param(lambda: torch.zeros(1, 1, 7).expand(10**12, 8, 7), id="more than memory holds"),
    ],
)
def test_actions_that_are_no_dense_tensor(tmp_path: Path, make: Callable[[], torch.Tensor]) -> None:
    torch.save({"actions": make()}, tmp_path / "bad.pt")
    refusal(tmp_path / "bad.pt", "bad.pt")


@pytest.mark.parametrize("width", [1, 6, 8, 14])
def test_chunks_of_another_width(tmp_path: Path, width: int) -> None:
    path = write_chunk_file(
        tmp_path / "bad.pt", [(task, np.random.default_rng(0).normal(size=(16, width))) for task, _ in demos()]
    )
    refusal(path, "bad.pt, episode 0", f"(16, {width})", "expected (steps, 7)")


def windows(shift: int, episodes: int = 5) -> torch.Tensor:
    """Chunks of 8 steps that begin every `shift` steps of episodes of 40."""
    rng = np.random.default_rng(0)
    walks = [torch.from_numpy(random_walk(rng, 40)) for _ in range(episodes)]
    return torch.stack([walk[start : start + 8] for walk in walks for start in range(0, 33, shift)])


# Not 7: a single step that two chunks share cannot be told from a command that is held.
@pytest.mark.parametrize("shift", range(1, 7))
def test_overlapping_windows(tmp_path: Path, shift: int) -> None:
    torch.save({"actions": windows(shift)}, tmp_path / "bad.pt")
    said = f"its chunks overlap (one begins {shift} step(s) after another)"
    assert "save every 8th step's chunk" in refusal(tmp_path / "bad.pt", f"{tmp_path / 'bad.pt'}: {said}")


@pytest.mark.parametrize("shift", [1, 4])
def test_overlapping_windows_whose_episode_is_given(tmp_path: Path, shift: int) -> None:
    chunks = windows(shift)
    owner = torch.arange(5).repeat_interleave(len(chunks) // 5)
    torch.save({"actions": chunks, "metadata": {"episode_index": owner}}, tmp_path / "bad.pt")
    refusal(tmp_path / "bad.pt", "bad.pt", "overlap")


# Bounds


LOW, HIGH = [-1.0] * 7, [1.0] * 7
LOW, HIGH = [-1.0] * 7, [1.0] * 7
BAD_BOUNDS: dict[str, object] = {
    "a tensor": torch.ones(7),
    "a word": "min-max",
    "false": False,
    "a list": [LOW, HIGH],
    "empty": {},
    "no max": {"min": LOW},
    "no min": {"max": HIGH},
    "none": {"min": None, "max": None},
    "numbers": {"min": -1.0, "max": 1.0},
    "words": {"min": ["low"] * 7, "max": ["high"] * 7},
    "a word each": {"min": "lowlowl", "max": "highhig"},
    "bool": {"min": [False] * 7, "max": [True] * 7},
    "bool of numpy": {"min": [np.False_] * 7, "max": [np.True_] * 7},
    "tensors of bool": {"min": [torch.tensor(False)] * 7, "max": [torch.tensor(True)] * 7},
    "rows": {"min": [np.array(LOW)] * 7, "max": [torch.tensor(HIGH)] * 7},
    "complex": {"min": torch.full((7,), -1j), "max": torch.full((7,), 1j)},
    "6 numbers": {"min": LOW[:6], "max": HIGH[:6]},
    "8 numbers": {"min": [*LOW, 0.0], "max": [*HIGH, 1.0]},
    "no numbers": {"min": [], "max": []},
    "two rows": {"min": torch.tensor([LOW, LOW]), "max": torch.tensor([HIGH, HIGH])},
    "exchanged": {"min": HIGH, "max": LOW},
    "exchanged in one": {"min": LOW, "max": [*HIGH[:6], -2.0]},
    "not a number": {"min": [*LOW[:6], np.nan], "max": HIGH},
    "infinite": {"min": LOW, "max": [*HIGH[:6], np.inf]},
}


@pytest.mark.parametrize("bounds", BAD_BOUNDS.values(), ids=BAD_BOUNDS)
def test_bounds_that_are_none(tmp_path: Path, bounds: object) -> None:
    refusal(
        chunk_file(tmp_path / "bad.pt", putting("normalization", bounds)), str(tmp_path / "bad.pt"), "normalization"
    )


# Metadata


BAD_OWNERS: dict[str, object] = {
    "a number": 3,
    "a word": "0",
    "words": ["0"] * 12,
    "bool": [True] * 12,
    "a tensor of bool": torch.ones(12, dtype=torch.bool),
    "too few": [0] * 11,
    "too many": torch.arange(13),
    "empty": [],
    "a column": torch.arange(12)[:, None],
    "a dict": {"0": 0},
}


@pytest.mark.parametrize("owner", BAD_OWNERS.values(), ids=BAD_OWNERS)
@pytest.mark.parametrize("key", ["episode", "episode_index"])
def test_owners_that_are_not_one_a_chunk(tmp_path: Path, key: str, owner: object) -> None:
    path = chunk_file(tmp_path / "bad.pt", putting("metadata", {key: owner}))
    refusal(path, str(path), "'metadata'")


def test_the_key_that_is_wrong_is_named(tmp_path: Path) -> None:
    path = chunk_file(tmp_path / "bad.pt", putting("metadata", {"episode_index": ["0"] * 12}))
    refusal(path, "'episode_index'")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 0.7])
def test_owners_that_are_no_whole_numbers(tmp_path: Path, bad: float) -> None:
    owner = torch.arange(12.0) // 2 + torch.tensor([0, bad]).repeat(6)
    path = chunk_file(tmp_path / "bad.pt", putting("metadata", {"episode_index": owner}))
    refusal(path, str(path), "'metadata'")


@pytest.mark.parametrize(
    "entries",
    [
        {"normalization": {"min": [-1] * 7, "max": [10**400] * 7}},
        {"metadata": {"episode_index": [10**30] * 12}},
    ],
    ids=["bounds", "owners"],
)
def test_numbers_beyond_what_a_tensor_holds(tmp_path: Path, entries: Content) -> None:
    path = chunk_file(tmp_path / "bad.pt", lambda content: content.update(entries))
    refusal(path, str(path))


@pytest.mark.parametrize("count", [6, 11, 13])
def test_tasks_that_are_not_one_a_chunk(tmp_path: Path, count: int) -> None:
    def shorten(content: Content) -> None:
        content["metadata"] |= {"task": [f"task {number}" for number in range(count)]}  # type: ignore[operator]

    path = chunk_file(tmp_path / "bad.pt", shorten)
    refusal(path, str(path), "'metadata'")


@pytest.mark.parametrize("shift", [1, 3, 6])
def test_overlapping_windows_in_any_order(tmp_path: Path, shift: int) -> None:
    """Shuffled, their steps would stand on every side of the split."""
    chunks = windows(shift)
    order = torch.randperm(len(chunks), generator=torch.Generator().manual_seed(0))
    torch.save({"actions": chunks[order]}, tmp_path / "bad.pt")
    refusal(tmp_path / "bad.pt", "its chunks overlap")
