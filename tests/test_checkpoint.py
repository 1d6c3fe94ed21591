"""Checkpoint files: what is kept, which forms load, and the normaliser."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import SIZES, State, all_conditionings, full_checkpoint, phase1_state, used_model
from torch import Tensor

import rfsq_robust
from rfsq_robust import CONDITIONINGS, ActionRFSQAE, Checkpoint, Conditioning, load_checkpoint, save_checkpoint

IN_A_FRESH_PROCESS = """
import sys
from pathlib import Path

import torch

from rfsq_robust import load_checkpoint

torch.set_num_threads(1)
folder = Path(sys.argv[1])
given = torch.load(folder / "given.pt")
found = {}
for conditioning, codes in given["codes"].items():
    model = load_checkpoint(folder / f"{conditioning}.pt").model
    new_codes, stats = model.encode(given["actions"], return_stats=True)
    found[conditioning] = {"codes": new_codes, "decoded": model.decode_from_indices(codes, stats)}
torch.save(found, folder / "found.pt")
"""


def actions(count: int = 20) -> Tensor:
    return torch.rand(count, SIZES["action_dim"], generator=torch.Generator().manual_seed(7)) * 2 - 1


def assert_states_equal(found: State, expected: State) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.pt"


# Saving and loading


@all_conditionings
def test_everything_that_was_saved_is_loaded(conditioning: Conditioning, path: Path) -> None:
    saved = full_checkpoint(conditioning)
    save_checkpoint(path, saved)
    loaded = load_checkpoint(path)
    assert_states_equal(loaded.model.state_dict(), saved.model.state_dict())
    assert loaded.model.config == saved.model.config
    assert loaded.model.conditioning == conditioning
    assert (loaded.epoch, loaded.mse, loaded.provenance) == (12, 0.25, saved.provenance)
    assert loaded.normalization is not None
    assert saved.normalization is not None
    assert_states_equal(loaded.normalization, saved.normalization)


@all_conditionings
def test_loaded_model_encodes_and_decodes_bit_for_bit(conditioning: Conditioning, path: Path) -> None:
    saved = full_checkpoint(conditioning)
    save_checkpoint(str(path), saved)
    loaded = load_checkpoint(str(path)).model
    codes, stats = saved.model.encode(actions(), return_stats=True)
    assert not loaded.training
    assert torch.equal(loaded.encode(actions()), codes)
    assert torch.equal(loaded.decode_from_indices(codes, stats), saved.model.decode_from_indices(codes, stats))
    assert torch.equal(loaded(actions())[0], saved.model(actions())[0])


def test_a_fresh_process_encodes_and_decodes_bit_for_bit(tmp_path: Path) -> None:
    codes, decoded = {}, {}
    for conditioning in CONDITIONINGS:
        checkpoint = full_checkpoint(conditioning)
        save_checkpoint(tmp_path / f"{conditioning}.pt", checkpoint)
        codes[conditioning], stats = checkpoint.model.encode(actions(), return_stats=True)
        decoded[conditioning] = checkpoint.model.decode_from_indices(codes[conditioning], stats)
    torch.save({"actions": actions(), "codes": codes}, tmp_path / "given.pt")
    repository = Path(rfsq_robust.__file__).parent
    command = [sys.executable, "-c", IN_A_FRESH_PROCESS, str(tmp_path)]
    subprocess.run(command, check=True, cwd=repository, timeout=120)
    found = torch.load(tmp_path / "found.pt", weights_only=True)
    for conditioning in CONDITIONINGS:
        assert torch.equal(found[conditioning]["codes"], codes[conditioning])
        assert torch.equal(found[conditioning]["decoded"], decoded[conditioning])


def test_a_model_alone_is_a_checkpoint(path: Path) -> None:
    save_checkpoint(path, Checkpoint(used_model("scale")))
    loaded = load_checkpoint(path)
    assert (loaded.epoch, loaded.mse, loaded.normalization, loaded.provenance) == (None, None, None, {})


def test_saving_again_replaces_the_file(path: Path) -> None:
    save_checkpoint(path, full_checkpoint("none"))
    save_checkpoint(path, full_checkpoint("scale"))
    assert load_checkpoint(path).model.conditioning == "scale"
    assert list(path.parent.iterdir()) == [path]


# The file


@all_conditionings
def test_file_is_plain_and_has_the_documented_keys(conditioning: Conditioning, path: Path) -> None:
    save_checkpoint(path, full_checkpoint(conditioning))
    content = torch.load(path, weights_only=True)
    assert content.keys() == {"model", "epoch", "mse", "config", "normalization", "provenance"}
    assert SIZES.items() <= content["config"].items()
    assert content["config"]["use_layernorm"] is (conditioning == "layernorm")
    assert content["config"]["conditioning"] == conditioning


@pytest.mark.parametrize("conditioning", ["none", "layernorm", "scale"])
def test_weights_keep_the_existing_names_and_shapes(conditioning: Conditioning, path: Path) -> None:
    save_checkpoint(path, full_checkpoint(conditioning))
    state = torch.load(path, weights_only=True)["model"]
    expected = phase1_state()
    assert {name: tensor.shape for name, tensor in state.items()} == {n: t.shape for n, t in expected.items()}
    assert torch.equal(state["rfsq.layers.2.boundaries"], expected["rfsq.layers.2.boundaries"])


def test_others_may_read_what_was_saved_as_far_as_the_umask_lets_them(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    save_checkpoint(tmp_path / "model.pt", Checkpoint(ActionRFSQAE()))
    assert (tmp_path / "model.pt").stat().st_mode == plain.stat().st_mode


# Forms of the existing Phase 1


@pytest.mark.parametrize("key", ["model", "model_state_dict"])
@pytest.mark.parametrize(
    ("extra", "conditioning"),
    [
        ({"config": {**SIZES, "use_layernorm": True}}, "layernorm"),
        ({"config": {**SIZES, "use_layernorm": False}}, "none"),
        ({"config": {"use_layernorm": True}}, "layernorm"),
        ({"config": {"use_layernorm": True, "lr": 1e-3, "batch_size": 64}}, "layernorm"),
        ({"config": SIZES}, "none"),
        ({"config": {}}, "none"),
        ({"config": None}, "none"),
        ({}, "none"),
        ({"epoch": 4, "mse": 0.5, "config": {"use_layernorm": False, "conditioning": "scale"}}, "scale"),
        ({"epoch": 4, "optimizer_state_dict": {"state": {}}}, "none"),
    ],
)
def test_existing_forms_load(key: str, extra: dict[str, Any], conditioning: str, path: Path) -> None:
    torch.save({key: phase1_state(), **extra}, path)
    loaded = load_checkpoint(path)
    assert loaded.model.conditioning == conditioning
    assert SIZES.items() <= loaded.model.config.items()
    assert (loaded.epoch, loaded.mse) == (extra.get("epoch"), extra.get("mse"))
    assert loaded.normalization is None
    assert_states_equal(loaded.model.state_dict(), phase1_state())


@pytest.mark.parametrize("zipped", [True, False])
def test_a_bare_state_dict_loads_as_the_naive_model(zipped: bool, path: Path) -> None:
    torch.save(phase1_state(), path, _use_new_zipfile_serialization=zipped)
    loaded = load_checkpoint(path)
    assert loaded.model.conditioning == "none"
    assert SIZES.items() <= loaded.model.config.items()
    assert_states_equal(loaded.model.state_dict(), phase1_state())


def test_normalization_given_as_lists_becomes_tensors(path: Path) -> None:
    torch.save({"model": phase1_state(), "normalization": {"min": [-1.0] * 5, "max": [2.0] * 5}}, path)
    normalization = load_checkpoint(path).normalization
    assert normalization is not None
    assert_states_equal(normalization, {"min": torch.full((5,), -1.0), "max": torch.full((5,), 2.0)})


def test_numbers_stored_as_tensors_and_a_config_beside_bare_weights(tmp_path: Path) -> None:
    path = tmp_path / "trained.pt"
    torch.save({**phase1_state(), "config": {"use_layernorm": torch.tensor(True)}, "mse": torch.tensor(0.25)}, path)
    loaded = load_checkpoint(path)
    assert loaded.model.conditioning == "layernorm"
    assert loaded.mse == 0.25


# An interrupted save


@pytest.fixture(params=[KeyboardInterrupt, OSError, RuntimeError])
def interruption(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type[BaseException]:
    """Makes torch.save write some bytes and fail."""

    def write_a_part(_content: Any, file: Any) -> None:
        file.write(b"the first bytes")
        raise request.param

    monkeypatch.setattr(torch, "save", write_a_part)
    return request.param


def test_an_interrupted_save_leaves_no_file(path: Path, interruption: type[BaseException]) -> None:
    with pytest.raises(interruption):
        save_checkpoint(path, full_checkpoint("scale"))
    assert list(path.parent.iterdir()) == []


@pytest.fixture
def old_file(path: Path) -> bytes:
    save_checkpoint(path, full_checkpoint("none"))
    return path.read_bytes()


def test_an_interrupted_save_leaves_the_old_file(
    old_file: bytes, path: Path, interruption: type[BaseException]
) -> None:
    with pytest.raises(interruption):
        save_checkpoint(path, full_checkpoint("scale"))
    assert path.read_bytes() == old_file
    assert list(path.parent.iterdir()) == [path]
    assert load_checkpoint(path).model.conditioning == "none"


def test_a_checkpoint_that_would_not_load_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    with pytest.raises(ValueError, match="would not load"):
        save_checkpoint(path, Checkpoint(ActionRFSQAE(), provenance={"where": Path("x")}))
    assert not list(tmp_path.iterdir())


# The normaliser of a checkpoint


def test_the_train_range_is_mapped_to_the_unit_range() -> None:
    checkpoint = full_checkpoint("scale")
    assert checkpoint.normalization is not None
    low, high = checkpoint.normalization["min"], checkpoint.normalization["max"]
    raw = torch.stack([low, high, (low + high) / 2])
    expected = torch.tensor([-1.0, 1.0, 0.0]).unsqueeze(-1).expand(3, 5)
    torch.testing.assert_close(checkpoint.normalise(raw), expected)
    torch.testing.assert_close(checkpoint.denormalise(expected), raw)


def test_a_dimension_that_never_moved_maps_to_zero_and_back() -> None:
    checkpoint = Checkpoint(
        used_model("scale"), normalization={"min": torch.full((5,), 0.3), "max": torch.full((5,), 0.3)}
    )
    raw = torch.full((2, 5), 0.3)
    assert torch.equal(checkpoint.normalise(raw), torch.zeros(2, 5))
    assert torch.equal(checkpoint.denormalise(torch.zeros(2, 5)), raw)


@pytest.mark.parametrize("method", ["normalise", "denormalise"])
def test_a_checkpoint_without_normaliser_says_so(method: str) -> None:
    with pytest.raises(ValueError, match="carries no normaliser"):
        getattr(Checkpoint(used_model("scale")), method)(actions())
