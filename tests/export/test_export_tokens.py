"""The files of tokens: codes are the codec's, decode from what the file holds, and both are whole or not there."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from made_up import walks
from models import DECODING, used_model
from numpy.typing import NDArray
from torch import Tensor
from writers import write_libero

from rfsq_robust import ActionRFSQAE, Checkpoint, Conditioning, load_checkpoint, save_checkpoint
from workbook.common.errors import InputError
from workbook.data.config import DataConfig
from workbook.data.dataset import Dataset, prepare_dataset
from workbook.export import tokens as module
from workbook.export.tokens import HDF5_FILE, PARQUET_FILE, TokenFiles, export_tokens, main

BOUNDS = {"min": torch.tensor([-1.0, -0.9, -1.2, -0.5, -1, -1, -1]), "max": torch.tensor([1.5, 0.9, 0.3, 1, 1, 0.7, 1])}


def write_checkpoint(
    folder: Path,
    conditioning: Conditioning = "scale",
    bounds: dict[str, Tensor] | None = BOUNDS,
    provenance: dict[str, Any] | None = None,
    **sizes: int,
) -> Path:
    path = folder / f"{conditioning}.pt"
    model = used_model(conditioning, **{"num_layers": 5, **sizes})
    save_checkpoint(path, Checkpoint(model, 1, 0.1, bounds, provenance or {}))
    return path


def exported(data: Path, checkpoint: Path, **config: Any) -> TokenFiles:
    return export_tokens(checkpoint, checkpoint.parent / "tokens", data, DataConfig(**config))


def prepared(data: Path, chunk_len: int = 8, **config: Any) -> Dataset:
    return prepare_dataset(data, DataConfig(chunk_len=chunk_len, stride=chunk_len, **config)).dataset


def by_hand(checkpoint: Checkpoint, actions: NDArray[np.float64], chunk_len: int = 8) -> Tensor:
    """(n, C, H, K) codes of an episode, of which the last action fills the last chunk."""
    padded = np.pad(actions, ((0, -len(actions) % chunk_len), (0, 0)), mode="edge")
    return checkpoint.model.encode(checkpoint.normalise(torch.from_numpy(padded.reshape(-1, chunk_len, 7))))


def read_and_decode(path: Path, episode: int, layers: int | None = None) -> Tensor:
    """(T, A) actions of an episode, with nothing but the file and `rfsq_robust`."""
    with h5py.File(path) as file:
        model = ActionRFSQAE(**json.loads(file.attrs["config"])).eval()
        model.load_state_dict({name: torch.as_tensor(weights[()]) for name, weights in file["model"].items()})
        low, high, limit = (torch.from_numpy(file[name][()]) for name in ("normaliser/low", "normaliser/high", "limit"))
        chunks = file["num_chunks"][episode]
        codes = torch.from_numpy(file["codes"][episode, :chunks])[..., :layers]
        valid = torch.from_numpy(file["valid"][episode, :chunks])
    decoded = Checkpoint(model, normalization={"min": low, "max": high}).denormalise(model.decode_from_indices(codes))
    return decoded.clamp(-limit, limit)[valid]


@pytest.mark.parametrize("conditioning", DECODING)
def test_the_hdf5_file_alone_gives_the_actions_that_the_codec_decodes(
    conditioning: Conditioning, tiny_data: Path, tmp_path: Path
) -> None:
    path = write_checkpoint(tmp_path, conditioning)
    files = exported(tiny_data, path)
    checkpoint = load_checkpoint(path)
    for number, episode in enumerate(prepared(tiny_data).episodes):
        codes = by_hand(checkpoint, episode.actions)
        for layers in (None, 2):
            decoded = checkpoint.denormalise(checkpoint.model.decode_from_indices(codes[..., :layers]))
            expected = decoded.clamp(-1, 1).reshape(-1, 7)[: len(episode.actions)]
            assert torch.equal(read_and_decode(files.hdf5, number, layers), expected)


@pytest.mark.parametrize("chunk_len", [1, 5, 8, 24])
def test_codes_are_those_of_the_codec_and_cover_every_step_once(
    chunk_len: int, tiny_data: Path, tmp_path: Path
) -> None:
    path = write_checkpoint(tmp_path)
    files = exported(tiny_data, path, chunk_len=chunk_len)
    checkpoint, episodes = load_checkpoint(path), prepared(tiny_data, chunk_len).episodes
    with h5py.File(files.hdf5) as file:
        stored, valid, chunks = (file[name][()] for name in ("codes", "valid", "num_chunks"))
        np.testing.assert_array_equal(file["draft_codes"][()], stored[..., :3])
    assert stored.shape == (12, chunks.max(), chunk_len, 6, 5)
    for number, episode in enumerate(episodes):
        codes = by_hand(checkpoint, episode.actions, chunk_len)
        assert chunks[number] == len(codes) == np.ceil(len(episode.actions) / chunk_len)
        np.testing.assert_array_equal(stored[number, : len(codes)], codes)
        assert (stored[number, len(codes) :] == -1).all()
        np.testing.assert_array_equal(valid[number].reshape(-1).nonzero()[0], np.arange(len(episode.actions)))
    assert (files.chunks, files.steps) == (chunks.sum(), valid.sum())


def test_the_parquet_file_holds_the_same(tiny_data: Path, tmp_path: Path) -> None:
    files = exported(tiny_data, write_checkpoint(tmp_path))
    table = pq.read_table(files.parquet)
    said = json.loads(table.schema.metadata[b"rfsq_tokens"])
    rows = table.to_pylist()
    with h5py.File(files.hdf5) as file:
        codes, draft, valid = (file[name][()] for name in ("codes", "draft_codes", "valid"))
        labels = {name: file[f"episodes/{name}"].asstr()[()] for name in ("task", "source", "key", "split")}
        places = [(e, c) for e, count in enumerate(file["num_chunks"][()]) for c in range(count)]
        attributes = {name: json.loads(v) if str(v).startswith("{") else v for name, v in file.attrs.items()}
        bounds = {name: file[f"normaliser/{name}"][()].tolist() for name in ("low", "high")}
    assert [(row["episode"], row["chunk"]) for row in rows] == places
    assert said["codes_shape"] == [8, 6, 5]
    assert said["draft_codes_shape"] == [8, 6, 3]
    for row, place in zip(rows, places, strict=True):
        np.testing.assert_array_equal(np.reshape(row["codes"], said["codes_shape"]), codes[place])
        np.testing.assert_array_equal(np.reshape(row["draft_codes"], said["draft_codes_shape"]), draft[place])
        assert (row["start"], row["steps"]) == (8 * place[1], valid[place].sum())
        assert all(row[name] == texts[place[0]] for name, texts in labels.items())
    assert {name: said[name] for name in attributes} == attributes
    assert {name: said[name] for name in bounds} == bounds
    assert said["limit"] == [1.0] * 7
    assert str(table.schema.field("codes").type) == "fixed_size_list<element: int8>[240]"


def test_an_episode_is_read_by_itself(tiny_data: Path, tmp_path: Path) -> None:
    with h5py.File(exported(tiny_data, write_checkpoint(tmp_path)).hdf5) as file:
        for name in ("codes", "draft_codes", "valid"):
            assert file[name].chunks == (1, *file[name].shape[1:])
            assert file[name].compression == "gzip"


@pytest.mark.parametrize("seed", [0, 3])
def test_labels_and_split_are_those_of_the_data_set(seed: int, tiny_data: Path, tmp_path: Path) -> None:
    files = exported(tiny_data, write_checkpoint(tmp_path), split_seed=seed, num_episodes=9)
    dataset = prepared(tiny_data, split_seed=seed, num_episodes=9)
    with h5py.File(files.hdf5) as file:
        for name in ("task", "source", "key", "session"):
            assert file[f"episodes/{name}"].asstr()[()].tolist() == [getattr(e, name) for e in dataset.episodes]
        assert file["episodes/steps"][()].tolist() == [len(episode.actions) for episode in dataset.episodes]
        split = file["episodes/split"].asstr()[()]
    for name, positions in dataset.split.parts().items():
        assert tuple(np.flatnonzero(split == name)) == positions
        assert files.facts["split"][name] == len(positions)


def test_another_seed_is_another_split(tiny_data: Path) -> None:
    """The guard of the test above: it can fail."""
    assert prepared(tiny_data, split_seed=0).split != prepared(tiny_data, split_seed=3).split


@pytest.mark.parametrize(("levels", "kind"), [(7, "int8"), (128, "int8"), (129, "int16")])
def test_codes_are_stored_in_the_smallest_integers_that_fit(
    levels: int, kind: str, tiny_data: Path, tmp_path: Path
) -> None:
    path = write_checkpoint(tmp_path, num_levels=levels)
    with torch.no_grad():  # latents at the ends of the grid, so that the greatest code is there
        checkpoint = load_checkpoint(path)
        checkpoint.model.encoder[2].weight *= 1000
    save_checkpoint(path, checkpoint)
    files = exported(tiny_data, path)
    with h5py.File(files.hdf5) as file:
        codes = file["codes"][()]
    assert codes.dtype == kind
    assert codes.max() == levels - 1
    flat = pq.read_table(files.parquet)["codes"].combine_chunks().flatten()
    assert flat.type == kind
    np.testing.assert_array_equal(np.sort(flat.to_numpy()), np.sort(codes[codes >= 0]))


def test_a_model_of_two_layers_has_no_more_to_draft(tiny_data: Path, tmp_path: Path) -> None:
    files = exported(tiny_data, write_checkpoint(tmp_path, num_layers=2))
    with h5py.File(files.hdf5) as file:
        np.testing.assert_array_equal(file["draft_codes"][()], file["codes"][()])
        assert file.attrs["draft_layers"] == 2


def test_a_checkpoint_without_a_normaliser_gets_that_of_the_data(tiny_data: Path, tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, bounds=None)
    files = exported(tiny_data, path)
    dataset = prepared(tiny_data)
    bounds = {"min": torch.from_numpy(dataset.normaliser.low), "max": torch.from_numpy(dataset.normaliser.high)}
    codes = by_hand(replace(load_checkpoint(path), normalization=bounds), dataset.episodes[3].actions)
    with h5py.File(files.hdf5) as file:
        assert file.attrs["normaliser"] == "of this data set"
        np.testing.assert_array_equal(file["normaliser/low"][()], dataset.normaliser.low)
        np.testing.assert_array_equal(file["normaliser/high"][()], dataset.normaliser.high)
        np.testing.assert_array_equal(file["codes"][3, : len(codes)], codes)


def test_the_files_say_whose_normaliser_it_is(tiny_data: Path, tmp_path: Path) -> None:
    files = exported(tiny_data, write_checkpoint(tmp_path))
    with h5py.File(files.hdf5) as file:
        assert file.attrs["normaliser"] == "of the checkpoint"
        np.testing.assert_array_equal(file["normaliser/low"][()], BOUNDS["min"].double())


def test_the_files_say_whether_the_codec_was_trained_on_these_data(tiny_data: Path, tmp_path: Path) -> None:
    sha256 = prepared(tiny_data).sha256
    for trained_on, said in (({}, "not known"), ({"dataset_sha256": sha256}, "yes"), ({"dataset_sha256": ""}, "no")):
        files = exported(tiny_data, write_checkpoint(tmp_path, provenance=trained_on))
        assert files.facts["trained_on_these_data"] == said


def test_joints_are_not_clipped(tmp_path: Path) -> None:
    demos = {key: actions * 3 for key, actions in walks(1).items()}
    data = write_libero(tmp_path / "joints.hdf5", demos)
    bounds = {name: bound * 3 for name, bound in BOUNDS.items()}
    files = exported(data, write_checkpoint(tmp_path, bounds=bounds), layout="joint:7")
    with h5py.File(files.hdf5) as file:
        assert np.isinf(file["limit"][()]).all()
    assert json.loads(pq.read_schema(files.parquet).metadata[b"rfsq_tokens"])["limit"] == [None] * 7
    assert read_and_decode(files.hdf5, 0).shape == demos["demo_0"].shape


def test_the_same_export_gives_the_same_bytes(tiny_data: Path, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path)
    first, second = (export_tokens(checkpoint, tmp_path / name, tiny_data) for name in ("first", "second"))
    assert first.hdf5.read_bytes() == second.hdf5.read_bytes()
    assert first.parquet.read_bytes() == second.parquet.read_bytes()


# the command


def test_the_command_writes_both_files_and_says_so(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = write_checkpoint(tmp_path)
    given = ["--checkpoint", str(checkpoint), "--data", str(tiny_data), "--out", str(tmp_path / "tokens")]
    assert main([*given, "--chunk-len", "5", "--split-seed", "3", "--num-episodes", "9"]) == 0
    said = capsys.readouterr().out
    with h5py.File(tmp_path / "tokens" / HDF5_FILE) as file:
        config = json.loads(file.attrs["data_config"])
        assert f"{file['num_chunks'][()].sum()} chunks of 5 steps" in said
    assert (config["chunk_len"], config["split_seed"], config["num_episodes"]) == (5, 3, 9)
    assert {path.name for path in (tmp_path / "tokens").iterdir()} == {HDF5_FILE, PARQUET_FILE}
    assert all(str(tmp_path / "tokens" / name) in said for name in (HDF5_FILE, PARQUET_FILE))


def test_what_is_left_out_is_counted_in_the_file_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    demos = walks(0, count=24)
    data = write_libero(tmp_path / "a.hdf5", demos | {"demo_3": demos["demo_3"][:5], "demo_99": demos["demo_0"]})
    line = ["--checkpoint", str(write_checkpoint(tmp_path)), "--data", str(data), "--out", str(tmp_path / "tokens")]
    assert main(line) == 0
    assert "\nleft out: 1 (too short)\nleft out: 1 (copy)\n" in capsys.readouterr().out
    with h5py.File(tmp_path / "tokens" / HDF5_FILE) as file:
        assert json.loads(file.attrs["left_out"]) == {"too_short": 1, "copy": 1}
        assert len(file["num_chunks"]) == 23


def layernorm(folder: Path) -> list[str]:
    return ["--checkpoint", str(write_checkpoint(folder, "layernorm"))]


def narrow(folder: Path) -> list[str]:
    return ["--checkpoint", str(write_checkpoint(folder)), "--layout", "joint:6"]


def no_checkpoint(folder: Path) -> list[str]:
    (folder / "a.pt").write_text("none")
    return ["--checkpoint", str(folder / "a.pt")]


def into_a_file(folder: Path) -> list[str]:
    return ["--checkpoint", str(write_checkpoint(folder)), "--out", str(write_checkpoint(folder, "none"))]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (layernorm, "layernorm.pt: is a 'layernorm' model, whose tokens do not decode"),
        (narrow, "scale.pt: codes actions of 7 numbers, and those of the layout 'joint:6' have 6"),
        (no_checkpoint, "a.pt: not a PyTorch checkpoint"),
        (into_a_file, "none.pt: cannot write results here"),
        (lambda folder: ["--checkpoint", "nowhere.pt"], "nowhere.pt: no such checkpoint file"),
        (lambda folder: ["--checkpoint", str(write_checkpoint(folder)), "--chunk-len", "0"], "chunk length 0"),
        (lambda folder: ["--checkpoint", str(write_checkpoint(folder)), "--chunk-len", "61"], "fewer than one chunk"),
        (lambda folder: ["--checkpoint", str(write_checkpoint(folder)), "--data", "nowhere"], "nowhere: no such file"),
    ],
)
def test_bad_input_gets_one_sentence_and_writes_nothing(
    given: Callable[[Path], list[str]],
    said: str,
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--data", str(tiny_data), *given(tmp_path)]) == 2
    stdout, stderr = capsys.readouterr()
    assert stdout == ""
    assert stderr.startswith("error: ")
    assert said in stderr
    assert stderr.count("\n") == 1
    assert not (tmp_path / "tokens").exists()


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (OSError(28, "disk full"), 1)])
def test_what_breaks_off_leaves_both_files_as_they_were(
    error: BaseException,
    code: int,
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def failing(*_: object) -> None:
        raise error

    monkeypatch.setattr(module, "_write_parquet", failing)
    folder = tmp_path / "tokens"
    folder.mkdir()
    (folder / HDF5_FILE).write_text("before")
    given = ["--checkpoint", str(write_checkpoint(tmp_path)), "--data", str(tiny_data), "--out", str(folder)]
    assert main(given) == code
    assert [path.name for path in folder.iterdir()] == [HDF5_FILE]
    assert (folder / HDF5_FILE).read_text() == "before"
    assert "Traceback" not in capsys.readouterr().err


def test_the_library_raises_what_the_command_says(tiny_data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="conditioning 'scale'"):
        export_tokens(write_checkpoint(tmp_path, "layernorm"), tmp_path / "tokens", tiny_data)


def test_a_gripper_in_per_cent_is_exported_in_per_cent(tmp_path: Path) -> None:
    """What decodes is clipped at no dimension, though the layout that is asked for says a gripper."""
    demos = {key: np.clip(100 * actions + 50, 0, 100) for key, actions in walks(0).items()}
    data = write_libero(tmp_path / "a.hdf5", {key: np.roll(actions, 1, axis=1) for key, actions in demos.items()})
    bounds = {"min": torch.zeros(7), "max": torch.full((7,), 100.0)}
    files = exported(data, write_checkpoint(tmp_path, bounds=bounds), layout="joint:6 gripper:1")
    with h5py.File(files.hdf5) as file:
        assert np.isinf(file["limit"][()]).all()
        assert file.attrs["layout"] == "joint:6 opening:1"
    said = json.loads(pq.read_schema(files.parquet).metadata[b"rfsq_tokens"])
    assert (said["layout"], said["limit"]) == ("joint:6 opening:1", [None] * 7)
    assert max(float(read_and_decode(files.hdf5, number)[:, 6].max()) for number in range(6)) > 1
