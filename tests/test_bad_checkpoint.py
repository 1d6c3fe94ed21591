"""Checkpoint files that do not load: what a user reads, and nothing executed."""

from __future__ import annotations

import argparse
import datetime
import os
import pickle
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import SIZES, State, full_checkpoint, phase1_state, state_with, state_without
from torch import Tensor

from rfsq_robust import CheckpointError, Conditioning, load_checkpoint, save_checkpoint


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


# The file


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
    ("entry", "name"),
    [
        (argparse.Namespace(lr=1e-3), "argparse.Namespace"),
        ({"out": Path("x")}, "pathlib."),
        (defaultdict(list, {"mse": [1.0]}), "collections.defaultdict"),
        (torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
        (datetime.date(2025, 1, 1), "datetime.date"),
        (np.datetime64("2025-01-01"), "numpy.dtypes.DateTime64DType"),
        (np.zeros(2, dtype=object), "numpy.dtypes.ObjectDType"),
    ],
)
def test_what_was_refused_is_named(entry: Any, name: str, refusal_of: Callable[[Any], str]) -> None:
    message = refusal_of({"model": phase1_state(), "args": entry})
    assert f"({name}" in message
    assert "save it again" in message


@pytest.mark.parametrize("function", [os.mkdir, os.system])
def test_an_array_of_objects_runs_nothing(function: Callable[..., Any], path: Path) -> None:
    marker = path.parent / "marker"
    argument = str(marker) if function is os.mkdir else f"touch {marker}"
    array = np.array([RunsOnLoading(function, argument)], dtype=object)
    torch.save({"model": phase1_state(), "mse": array}, path)
    refusal(path)
    assert not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.exists()


def test_the_error_is_a_value_error() -> None:
    assert issubclass(CheckpointError, ValueError)


# What is in it


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


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({}, "found nothing"),
        ({"epoch": 3}, "found epoch"),
        ({"model": {"fc.weight": torch.zeros(2, 2), "fc.bias": torch.zeros(2)}}, "found fc.weight, fc.bias"),
        ({"model": {f"fc{k}.weight": torch.zeros(2) for k in range(9)}}, "found fc0.weight, fc1.weight, fc2.weight, "),
        ({"model": {f"fc{k}.weight": torch.zeros(2) for k in range(9)}}, "and 5 more"),
        ({"model": {"two\nlines" + "x" * 99: torch.zeros(2)}, 7: 3}, "found two lines" + "x" * 51 + ", 7"),
        ({"model": {"weights": {**phase1_state()}}}, "found weights"),
        ({"model": {f"x{name}": value for name, value in phase1_state().items()}}, "found xencoder.0.weight"),
        ({"shadow_params": list(phase1_state().values()), "decay": 0.999}, "found shadow_params, decay"),
    ],
)
def test_names_that_were_found_are_shown(content: Any, found: str, refusal_of: Callable[[Any], str]) -> None:
    message = refusal_of(content)
    assert "encoder.0.weight, rfsq.layers.0.boundaries, ... are missing" in message
    assert found in message


def prefixed(*prefixes: str) -> State:
    return {f"{prefix}{name}": value for prefix in prefixes for name, value in phase1_state().items()}


@pytest.mark.parametrize(
    ("content", "places"),
    [
        ({"model": prefixed("student.", "teacher.")}, "model.student, model.teacher"),
        ({"state_dict": prefixed("ema.", "swa.")}, "state_dict.ema, state_dict.swa"),
        ({"net": phase1_state(), "best": phase1_state()}, "net, best"),
        ({**phase1_state(), "best": phase1_state()}, "the top level, best"),
        ({"model": prefixed("", "module.")}, "model, model.module"),
    ],
)
def test_where_two_are_left_none_is_taken(content: Any, places: str, refusal_of: Callable[[Any], str]) -> None:
    message = refusal_of(content)
    assert f"holds several action autoencoders ({places})" in message
    assert "save the state_dict() of one" in message


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
        torch.linspace(-1, 1, 4) * 0.998,
        torch.tensor([-1.0, -0.34, 0.34, 1.0], dtype=torch.bfloat16),
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
