"""Checkpoint files: what is kept, which forms load, and what a user reads when one does not."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import rfsq_robust
from rfsq_robust import (
    CONDITIONINGS,
    ActionRFSQAE,
    Checkpoint,
    CheckpointError,
    Conditioning,
    load_checkpoint,
    save_checkpoint,
)

torch.set_num_threads(1)

SIZES: dict[str, Any] = {"action_dim": 5, "hidden_dim": 6, "num_layers": 3, "num_levels": 4}
State = dict[str, Tensor]

all_conditionings = pytest.mark.parametrize("conditioning", CONDITIONINGS)

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


def used_model(conditioning: Conditioning) -> ActionRFSQAE:
    """A model in eval mode whose statistics and gains are not those it was made with."""
    torch.manual_seed(3)
    model = ActionRFSQAE(**SIZES, conditioning=conditioning).train()
    for _ in range(3):
        model(torch.rand(16, SIZES["action_dim"]))
    if conditioning == "learned_scale":
        with torch.no_grad():
            for layer in model.rfsq.quantizers:
                layer.log_gain.normal_()
    return model.eval()


def full_checkpoint(conditioning: Conditioning) -> Checkpoint:
    normalization = {"min": -torch.arange(1.0, 6.0), "max": torch.arange(2.0, 7.0)}
    provenance = {"seed": 3, "data": "sample", "versions": {"torch": "2"}, "files": ["a", "b"]}
    return Checkpoint(used_model(conditioning), 12, 0.25, normalization, provenance)


def phase1_state() -> State:
    """Weights as the existing Phase 1 names and shapes them."""
    torch.manual_seed(4)
    shapes = {"encoder.0": (64, 5), "encoder.2": (6, 64), "decoder.0": (64, 6), "decoder.2": (5, 64)}
    state: State = {}
    for name, shape in shapes.items():
        state[f"{name}.weight"] = torch.randn(shape) * 0.1
        state[f"{name}.bias"] = torch.randn(shape[0]) * 0.1
    for k in range(3):
        state[f"rfsq.layers.{k}.boundaries"] = torch.linspace(-1, 1, 4)
    return state


def state_with(**changes: Tensor) -> State:
    """`phase1_state` with some weights replaced; `__` in a name stands for a dot."""
    return {**phase1_state(), **{name.replace("__", "."): tensor for name, tensor in changes.items()}}


def state_without(prefix: str) -> State:
    return {name: tensor for name, tensor in phase1_state().items() if not name.startswith(prefix)}


def assert_states_equal(found: State, expected: State) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def refusal(path: Path) -> str:
    """The message for a file that does not load: one line that names the file."""
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message.replace(str(path), "FILE")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.pt"


@pytest.fixture
def refusal_of(path: Path) -> Callable[[Any], str]:
    """Saves a content with plain torch.save and gives the message of the error on loading it."""

    def save_and_load(content: Any) -> str:
        torch.save(content, path)
        return refusal(path)

    return save_and_load


# --- saving and loading ------------------------------------------------------------------------------------------


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


# --- the file ----------------------------------------------------------------------------------------------------


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


# --- forms of the existing Phase 1 -------------------------------------------------------------------------------


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


# --- files that do not load --------------------------------------------------------------------------------------


def test_a_missing_file(path: Path) -> None:
    assert refusal(path) == "FILE: no such checkpoint file"


def test_a_directory(tmp_path: Path) -> None:
    assert "FILE: cannot be read" in refusal(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"not a checkpoint\nat all\n", b'{"model": 1}', b"PK\x03\x04", b"\x80"]
)
def test_a_file_of_something_else(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    assert "FILE: not a PyTorch checkpoint" in refusal(path)


@pytest.mark.parametrize("part", [0.01, 0.3, 0.9, 0.999])
def test_a_truncated_checkpoint(part: float, path: Path) -> None:
    save_checkpoint(path, full_checkpoint("scale"))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    refusal(path)


class RunsOnLoading:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize(("function", "arguments"), [(os.mkdir, ()), (open, ("w",))])
@pytest.mark.parametrize("torch_format", [True, False])
def test_an_object_in_the_file_is_never_run(
    function: Callable[..., Any], arguments: tuple[Any, ...], torch_format: bool, path: Path
) -> None:
    marker = path.parent / "marker"
    content = {"model": phase1_state(), "extra": RunsOnLoading(function, str(marker), *arguments)}
    if torch_format:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    refusal(path)
    assert not marker.exists()
    # The object does run where it is let: otherwise the line above would show nothing.
    _ = torch.load(path, weights_only=False) if torch_format else pickle.loads(path.read_bytes())
    assert marker.exists()


def test_the_message_on_foreign_objects_says_what_to_do(refusal_of: Callable[[Any], str]) -> None:
    message = refusal_of({"model": phase1_state(), "folder": Path("data")})
    assert "objects other than tensors and plain values" in message
    assert "save it again" in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], "holds a list, not a dictionary of weights"),
        (torch.zeros(3), "holds a Tensor, not a dictionary of weights"),
        ({"model": {"fc.weight": torch.zeros(2, 2)}}, "holds no action autoencoder"),
        ({"epoch": 3}, "holds no action autoencoder"),
        ({"model": None}, "holds no action autoencoder"),
    ],
)
def test_a_checkpoint_of_something_else(content: Any, words: str, refusal_of: Callable[[Any], str]) -> None:
    assert words in refusal_of(content)


@pytest.mark.parametrize(("name", "size"), SIZES.items())
def test_a_config_that_disagrees_with_the_weights(name: str, size: int, refusal_of: Callable[[Any], str]) -> None:
    message = refusal_of({"model": phase1_state(), "config": {**SIZES, name: size + 1}})
    assert f"config says {name} {size + 1}, but the weights have {size}" in message


@pytest.mark.parametrize(
    "prefix", ["decoder", "decoder.2.bias", "encoder.2", "encoder.0.bias", "rfsq", "rfsq.layers.1"]
)
def test_missing_weights(prefix: str, refusal_of: Callable[[Any], str]) -> None:
    message = refusal_of({"model": state_without(prefix)})
    assert "weights" in message
    assert "missing" in message.lower()


@pytest.mark.parametrize("name", ["decoder.0.weight", "decoder.2.weight"])
def test_missing_decoder_weights_are_named(name: str, refusal_of: Callable[[Any], str]) -> None:
    assert name in refusal_of({"model": state_without("decoder")})


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (state_with(encoder__0__weight=torch.zeros(32, 5)), "encoder.0.weight"),
        (state_with(decoder__2__weight=torch.zeros(4, 64)), "decoder.2.weight"),
        (state_with(rfsq__layers__1__boundaries=torch.linspace(-1, 1, 5)), "rfsq.layers.1.boundaries"),
        (state_with(decoder__4__bias=torch.zeros(2)), "decoder.4.bias"),
    ],
)
def test_weights_of_another_shape_or_name(state: State, words: str, refusal_of: Callable[[Any], str]) -> None:
    assert words in refusal_of({"model": state})


@pytest.mark.parametrize("conditioning", ["frozen_layernorm", "learned_scale"])
def test_a_conditioning_whose_numbers_are_not_there(
    conditioning: Conditioning, refusal_of: Callable[[Any], str]
) -> None:
    message = refusal_of({"model": phase1_state(), "config": {"conditioning": conditioning}})
    assert f"weights do not fit conditioning '{conditioning}'" in message


@pytest.mark.parametrize("layer", range(3))
@pytest.mark.parametrize(
    "boundaries",
    [
        torch.linspace(-2, 2, 4),
        torch.linspace(1, -1, 4),
        torch.tensor([-1.0, -0.5, 0.5, 1.0]),
    ],
)
def test_boundaries_that_are_not_the_grid(layer: int, boundaries: Tensor, refusal_of: Callable[[Any], str]) -> None:
    message = refusal_of({"model": {**phase1_state(), f"rfsq.layers.{layer}.boundaries": boundaries}})
    assert f"rfsq.layers.{layer}.boundaries is not the even grid" in message


@pytest.mark.parametrize("conditioning", ["batchnorm", "", 3, "two\nlines"])
def test_an_unknown_conditioning(conditioning: Any, refusal_of: Callable[[Any], str]) -> None:
    message = refusal_of({"model": phase1_state(), "config": {"conditioning": conditioning}})
    assert f"unknown conditioning {conditioning!r}" in message


@pytest.mark.parametrize(
    ("normalization", "words"),
    [
        ({"min": torch.zeros(4), "max": torch.ones(4)}, "does not hold 5 values each"),
        ({"min": torch.zeros(5), "max": torch.ones(6)}, "does not hold 5 values each"),
        ({"min": torch.zeros(5, 1), "max": torch.ones(5, 1)}, "does not hold 5 values each"),
        ({"min": 0.0, "max": 1.0}, "does not hold 5 values each"),
        ({"min": torch.zeros(5)}, "does not hold 'min' and 'max'"),
        ({"min": ["a"] * 5, "max": ["b"] * 5}, "does not hold 'min' and 'max'"),
        ({"min": None, "max": None}, "does not hold 'min' and 'max'"),
        ({"min": torch.ones(5), "max": torch.zeros(5)}, "'min' above its 'max'"),
        ({"min": torch.full((5,), torch.nan), "max": torch.ones(5)}, "'min' above its 'max'"),
        ({"min": torch.zeros(5), "max": torch.full((5,), torch.inf)}, "not finite"),
        ([0.0, 1.0], "is a list, not a dictionary"),
        ("minmax", "is a str, not a dictionary"),
        (1.0, "is a float, not a dictionary"),
    ],
)
def test_bad_normalization(normalization: Any, words: str, refusal_of: Callable[[Any], str]) -> None:
    assert words in refusal_of({"model": phase1_state(), "normalization": normalization})


def test_the_error_is_a_value_error() -> None:
    assert issubclass(CheckpointError, ValueError)


# --- an interrupted save -----------------------------------------------------------------------------------------


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


# --- the normaliser of a checkpoint ------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"provenance": "abc"}, "'provenance' is a str, not a dictionary"),
        ({"provenance": [1]}, "'provenance' is a list, not a dictionary"),
        ({"config": 3}, "'config' is a int, not a dictionary"),
        ({"config": {"use_layernorm": torch.zeros(2)}}, "'use_layernorm' is"),
        ({"config": {"num_layers": "many"}}, "'num_layers' is 'many', not a number"),
        ({"mse": "low"}, "'mse' is 'low', not a number"),
        ({"epoch": [1]}, "'epoch' is [1], not a number"),
    ],
)
def test_bad_entries(entry: dict[str, Any], words: str, refusal_of: Callable[[Any], str]) -> None:
    assert words in refusal_of({"model": phase1_state(), **entry})


def test_weights_that_are_not_numbers(refusal_of: Callable[[Any], str]) -> None:
    state = phase1_state()
    state["decoder.2.bias"] = torch.full_like(state["decoder.2.bias"], torch.nan)
    assert "holds weights that are NaN or infinite" in refusal_of({"model": state})


def test_numbers_stored_as_tensors_and_a_config_beside_bare_weights(tmp_path: Path) -> None:
    path = tmp_path / "trained.pt"
    torch.save({**phase1_state(), "config": {"use_layernorm": torch.tensor(True)}, "mse": torch.tensor(0.25)}, path)
    loaded = load_checkpoint(path)
    assert loaded.model.conditioning == "layernorm"
    assert loaded.mse == 0.25


def test_a_checkpoint_that_would_not_load_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    with pytest.raises(ValueError, match="would not load"):
        save_checkpoint(path, Checkpoint(ActionRFSQAE(), provenance={"where": Path("x")}))
    assert not list(tmp_path.iterdir())


def test_others_may_read_what_was_saved_as_far_as_the_umask_lets_them(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    save_checkpoint(tmp_path / "model.pt", Checkpoint(ActionRFSQAE()))
    assert (tmp_path / "model.pt").stat().st_mode == plain.stat().st_mode
