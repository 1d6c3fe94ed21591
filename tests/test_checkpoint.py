"""Checkpoint files: what is kept, which forms load, and the normaliser."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import SIZES, State, all_conditionings, full_checkpoint, phase1_state, used_model
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.optim.swa_utils import AveragedModel

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


# Forms that wrappers, trainers and casts leave


def the_weights() -> State:
    """With values of their own in running statistics and gains, of which the names tell the conditioning."""
    return full_checkpoint("learned_scale").model.state_dict()


def half_of(state: State) -> State:
    """Other weights, as an average of them would be."""
    return {name: value if "boundaries" in name else value * 0.5 for name, value in state.items()}


def under(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": value for name, value in state.items()}


CONFIG = {"config": {"conditioning": "learned_scale"}}


@pytest.mark.parametrize("key", ["model", "model_state_dict", "state_dict", "net", "ema", "ema_state_dict", None])
@pytest.mark.parametrize(
    "prefix",
    [
        *("", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "_fsdp_wrapped_module."),
        *("model.", "net.", "autoencoder.", "policy.codec.", "model._orig_mod.", "module.policy._orig_mod.codec."),
        *("ema_model.", "ema_model.module.", "online_model."),
    ],
)
def test_names_with_wrappers_and_attributes_load(key: str | None, prefix: str, path: Path) -> None:
    state = under(prefix, the_weights())
    torch.save({**({key: state} if key else state), **CONFIG, "epoch": 3, "optimizer": {"state": {0: {}}}}, path)
    loaded = load_checkpoint(path)
    assert_states_equal(loaded.model.state_dict(), the_weights())
    assert loaded.epoch == 3


WRAPPED: dict[str, Callable[[ActionRFSQAE], nn.Module]] = {
    "DataParallel": nn.DataParallel,
    "compiled": lambda model: nn.ModuleDict({"net": torch.compile(model)}),
    "DataParallel of a compiled one": lambda model: nn.DataParallel(nn.ModuleDict({"net": torch.compile(model)})),
    "average": AveragedModel,
    "average of DataParallel": lambda model: AveragedModel(nn.DataParallel(model)),
    "compiled encoder": lambda model: with_encoder(model, torch.compile(model.encoder)),
    "checkpointed encoder": lambda model: with_encoder(model, checkpoint_wrapper(model.encoder)),
    "attribute beside others": lambda model: nn.ModuleDict({"encoder": nn.Linear(2, 2), "codec": model}),
}


def with_encoder(model: ActionRFSQAE, encoder: Any) -> ActionRFSQAE:
    model.encoder = encoder
    return model


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_what_torch_wraps_a_model_in_loads(wrap: Callable[[ActionRFSQAE], nn.Module], path: Path) -> None:
    torch.save({"model": wrap(full_checkpoint("learned_scale").model).state_dict(), **CONFIG}, path)
    assert_states_equal(load_checkpoint(path).model.state_dict(), the_weights())


AVERAGED: dict[str, Callable[[State], dict[str, Any]]] = {
    "ema": lambda state: {"ema": half_of(state), "model": state},
    "ema_state_dict": lambda state: {"ema_state_dict": half_of(state), "model_state_dict": state},
    "state_dict_ema": lambda state: {"state_dict_ema": half_of(state), "state_dict": state},
    "model_ema and weights under another key": lambda state: {"model_ema": half_of(state), "net": state},
    "shadow": lambda state: {"shadow": half_of(state), "net": state},
    "both in one": lambda state: {"state_dict": {**under("ema_model.", half_of(state)), **under("model.", state)}},
    "both in ema": lambda state: {"ema": {**under("ema_model.", half_of(state)), **under("online_model.", state)}},
    "an average under the first key": lambda state: {
        "model": {"n_averaged": torch.tensor(3), **under("module.", half_of(state))},
        "state_dict": state,
    },
    "ema beside bare weights": lambda state: {**state, "ema": half_of(state)},
}


@pytest.mark.parametrize("content", AVERAGED.values(), ids=AVERAGED)
def test_weights_go_before_averages_of_them(content: Callable[[State], dict[str, Any]], path: Path) -> None:
    torch.save({**content(the_weights()), **CONFIG}, path)
    assert_states_equal(load_checkpoint(path).model.state_dict(), the_weights())


@pytest.mark.parametrize("keys", [("model", "net"), ("model", "state_dict"), ("model_state_dict", "state_dict")])
def test_the_first_of_the_known_keys_is_taken(keys: tuple[str, str], path: Path) -> None:
    torch.save({keys[1]: half_of(the_weights()), keys[0]: the_weights(), **CONFIG}, path)
    assert_states_equal(load_checkpoint(path).model.state_dict(), the_weights())


def test_flags_of_lightning_are_read_and_sizes_are_not(path: Path) -> None:
    hyper_parameters = {"use_layernorm": True, "num_layers": 24, "lr": 1e-3}
    content = {"state_dict": under("model.", phase1_state()), "hyper_parameters": hyper_parameters, "epoch": 3}
    torch.save(content, path)
    assert load_checkpoint(path).model.conditioning == "layernorm"
    torch.save({**content, "config": {"use_layernorm": False}}, path)
    assert load_checkpoint(path).model.conditioning == "none"


@all_conditionings
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("back", [False, True])
def test_weights_of_another_precision_become_float32(
    conditioning: Conditioning, dtype: torch.dtype, back: bool, path: Path
) -> None:
    model = full_checkpoint(conditioning).model
    state = {
        name: value.to(dtype) if value.is_floating_point() else value for name, value in model.state_dict().items()
    }
    rounded = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    torch.save({"model": rounded if back else state, "config": {"conditioning": conditioning}}, path)
    loaded = load_checkpoint(path).model.state_dict()
    exact = {name: value for name, value in model.state_dict().items() if "boundaries" in name}  # of the even grid
    assert_states_equal(loaded, {**rounded, **exact})


NUMPY_MODULES = [b"numpy._core.multiarray", b"numpy.core.multiarray"]  # as numpy 2 and 1 name it


def save_as(content: dict[str, Any], path: Path, module: bytes) -> None:
    """In torch's older format, in which nothing says how long a name is."""
    torch.save(content, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes().replace(NUMPY_MODULES[0], module).replace(NUMPY_MODULES[1], module))


@pytest.mark.parametrize("module", NUMPY_MODULES)
def test_numbers_and_arrays_of_numpy_load(module: bytes, path: Path) -> None:
    content = {
        "model": phase1_state(),
        "epoch": np.int64(7),
        "mse": np.mean([0.25, 0.75]),
        "config": {**{name: np.int32(size) for name, size in SIZES.items()}, "use_layernorm": np.bool_(True)},
        "normalization": {"min": -np.arange(1, 6), "max": np.arange(1, 6, dtype=np.float32)},
        "history": np.zeros((3, 2)),
        "random": np.random.RandomState(0).get_state(),
        "names": np.array(["spatial", "goal"]),
    }
    save_as(content, path, module)
    assert module in path.read_bytes()
    loaded = load_checkpoint(path)
    assert (loaded.epoch, loaded.mse) == (7, 0.5)
    assert (type(loaded.epoch), type(loaded.mse)) == (int, float)
    assert loaded.model.conditioning == "layernorm"
    assert loaded.model.config == {"use_layernorm": True, "conditioning": "layernorm", **SIZES}
    assert all(type(loaded.model.config[name]) is int for name in SIZES)
    raw = torch.tensor([[-1.0, 2.0, 0.0, -4.0, 5.0]])
    torch.testing.assert_close(loaded.normalise(raw), torch.tensor([[-1.0, 1.0, 0.0, -1.0, 1.0]]))


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.int16, np.uint8])
def test_bounds_may_be_lists_of_numbers_of_numpy(kind: type, path: Path) -> None:
    bounds = {"min": [kind(1)] * 5, "max": [kind(3)] * 5}
    torch.save({"model": phase1_state(), "mse": kind(2), "normalization": bounds}, path)
    loaded = load_checkpoint(path)
    assert loaded.mse == 2.0
    assert torch.equal(loaded.normalise(torch.full((5,), 2.0)), torch.zeros(5))


def test_without_numpy_the_rest_loads(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(path, full_checkpoint("scale"))
    monkeypatch.setitem(sys.modules, "numpy", None)
    assert load_checkpoint(path).epoch == 12


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
def test_the_normaliser_follows_the_device_of_the_actions(method: str, path: Path) -> None:
    save_checkpoint(path, full_checkpoint("scale"))
    checkpoint = load_checkpoint(path, map_location="meta")
    assert checkpoint.model.device.type == "meta"
    found = getattr(checkpoint, method)(torch.zeros(4, 8, 5, device="meta"))
    assert (found.device.type, found.dtype, found.shape) == ("meta", torch.float32, (4, 8, 5))
    assert getattr(checkpoint, method)(actions()).device.type == "cpu"  # and stays usable elsewhere


@pytest.mark.parametrize("method", ["normalise", "denormalise"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_actions_of_any_precision_are_normalised_in_float64(method: str, dtype: torch.dtype) -> None:
    convert = getattr(full_checkpoint("scale"), method)
    assert convert(actions().to(dtype)).dtype == torch.float32
    assert torch.equal(convert(actions().to(dtype)), convert(actions().to(dtype).float()))


class WithoutFloat64(Tensor):
    """As on a device that has none, such as Apple's MPS."""

    def double(self) -> Tensor:
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype")

    def cpu(self) -> Tensor:
        return self.as_subclass(Tensor)


@pytest.mark.parametrize("method", ["normalise", "denormalise"])
def test_where_the_device_has_no_float64_the_cpu_computes(method: str) -> None:
    convert = getattr(full_checkpoint("scale"), method)
    assert torch.equal(convert(actions().as_subclass(WithoutFloat64)), convert(actions()))


@pytest.mark.parametrize("method", ["normalise", "denormalise"])
def test_a_checkpoint_without_normaliser_says_so(method: str) -> None:
    with pytest.raises(ValueError, match="carries no normaliser"):
        getattr(Checkpoint(used_model("scale")), method)(actions())
