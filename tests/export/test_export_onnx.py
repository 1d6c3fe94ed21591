"""The ONNX graphs give what torch gives, for any batch, chunk and prefix of layers, and are whole or not there."""

from __future__ import annotations

import io
import json
import logging
import re
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from documented import blocks
from models import uniform, used_model
from numpy.typing import NDArray
from torch import Tensor

from rfsq_robust import Checkpoint, Conditioning, load_checkpoint, save_checkpoint
from workbook.codecs.rfsq import normaliser_of
from workbook.common.errors import InputError
from workbook.common.paths import REPOSITORY
from workbook.common.provenance import sha256_of
from workbook.data.layout import ActionLayout
from workbook.export import onnx as module
from workbook.export.onnx import DECODER_FILE, ENCODER_FILE, export_onnx, main, summary

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

LAYOUT = "position:3 rotation:3 joint:1"
# Beyond the range of the controller, lopsided, a dimension that never moves, and a joint that moves by a thousandth
# about 3, which could not be normalised in float32.
BOUNDS = {
    "min": torch.tensor([-1.5, -0.9, -2, -0.5, 0.2, -1, 2.999], dtype=torch.float64),
    "max": torch.tensor([1.5, 0.9, 0.3, 1, 0.2, 2, 3.001], dtype=torch.float64),
}
SHAPES = [(1, 1), (2, 8), (3, 5), (40, 8), (1, 30)]  # batch and chunk


def write_checkpoint(
    folder: Path, conditioning: Conditioning = "scale", bounds: dict[str, Tensor] | None = BOUNDS, **sizes: int
) -> Path:
    path = folder / f"{conditioning}.pt"
    save_checkpoint(path, Checkpoint(used_model(conditioning, **{"num_layers": 4, **sizes}), 1, 0.1, bounds))
    return path


@dataclass(frozen=True)
class Exported:
    """Graphs in onnxruntime, and the checkpoint that they are of."""

    path: Path
    folder: Path
    said: str  # by the command
    heard: list[str]  # whatever else was said or warned of

    @property
    def checkpoint(self) -> Checkpoint:
        return load_checkpoint(self.path)

    @property
    def files(self) -> list[Path]:
        return [self.folder / ENCODER_FILE, self.folder / DECODER_FILE]

    def run(self, file: str, given: NDArray[Any]) -> NDArray[Any]:
        session = onnxruntime.InferenceSession(self.folder / file, providers=["CPUExecutionProvider"])
        return session.run(None, {session.get_inputs()[0].name: given})[0]

    def actions(self, *shape: int) -> Tensor:
        """Within the range of the normaliser, in controller units."""
        return self.checkpoint.denormalise(uniform(*shape, 7, seed=5))

    def codes(self, *shape: int) -> Tensor:
        return self.checkpoint.model.encode(self.checkpoint.normalise(self.actions(*shape)))

    def decode(self, codes: Tensor) -> NDArray[np.float32]:
        limit = torch.from_numpy(ActionLayout.parse(LAYOUT).limit).float()
        decoded = self.checkpoint.denormalise(self.checkpoint.model.decode_from_indices(codes))
        return decoded.clamp(-limit, limit).numpy()


def exported(folder: Path, conditioning: Conditioning, layers: int) -> Exported:
    """By the command, within earshot of all that torch says as it exports."""
    path = write_checkpoint(folder, conditioning, num_layers=layers)
    stdout, stderr, logged = io.StringIO(), io.StringIO(), list[logging.LogRecord]()
    with (
        pytest.MonkeyPatch.context() as patch,
        warnings.catch_warnings(record=True) as warned,
        redirect_stdout(stdout),
        redirect_stderr(stderr),
    ):
        patch.setattr(logging.Logger, "callHandlers", lambda _, record: logged.append(record))
        assert main(["--checkpoint", str(path), "--out", str(folder / "onnx"), "--layout", LAYOUT]) == 0
    heard = [stderr.getvalue(), *(str(warning.message) for warning in warned)]
    heard += [record.getMessage() for record in logged if record.levelno >= logging.WARNING]
    return Exported(path, folder / "onnx", stdout.getvalue(), [text for text in heard if text])


@pytest.fixture(scope="module")
def of_scale(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return exported(tmp_path_factory.mktemp("scale"), "scale", 4)


@pytest.fixture(
    scope="module",
    params=[
        ("scale", 4),
        pytest.param(("learned_scale", 3), marks=pytest.mark.slow),
        pytest.param(("none", 2), marks=pytest.mark.slow),
        pytest.param(("frozen_layernorm", 1), marks=pytest.mark.slow),
    ],
    ids=lambda parameters: parameters[0],
)
def graphs(request: pytest.FixtureRequest) -> Exported:
    """Of every conditioning, and from one layer, which torch would not let vary, to four."""
    if request.param == ("scale", 4):
        return request.getfixturevalue("of_scale")
    return exported(request.getfixturevalue("tmp_path_factory").mktemp("other"), *request.param)


@pytest.mark.parametrize("shape", SHAPES)
def test_any_prefix_decodes_as_torch_decodes_it(graphs: Exported, shape: tuple[int, int]) -> None:
    codes = graphs.codes(*shape)
    half_width = normaliser_of(graphs.checkpoint).half_width
    for layers in range(1, codes.shape[-1] + 1):
        expected = graphs.decode(codes[..., :layers])
        decoded = graphs.run(DECODER_FILE, codes[..., :layers].numpy())
        assert decoded.dtype == np.float32
        assert decoded.shape == expected.shape
        assert (np.abs(decoded - expected) <= 1e-6 * np.maximum(half_width, np.abs(expected))).all()


def test_codes_are_those_of_torch_but_for_near_ties(graphs: Exported) -> None:
    codes = graphs.codes(500, 8).numpy()
    found = graphs.run(ENCODER_FILE, graphs.actions(500, 8).numpy())
    assert found.dtype == np.int64
    assert (found == codes).mean(axis=(0, 1, 2)).min() > 0.9995
    for shape in SHAPES:
        assert (graphs.run(ENCODER_FILE, graphs.actions(*shape).numpy()) == graphs.codes(*shape).numpy()).mean() > 0.99


def test_what_is_decoded_is_clipped_to_the_range_of_the_controller(of_scale: Exported) -> None:
    codes = torch.from_numpy(np.random.default_rng(0).integers(0, 5, (200, 8, 6, 4)))
    decoded = np.abs(of_scale.run(DECODER_FILE, codes.numpy()))
    unclipped = of_scale.checkpoint.denormalise(of_scale.checkpoint.model.decode_from_indices(codes)).abs()
    assert decoded[..., :6].max() == 1 < unclipped[..., :6].max()
    assert decoded[..., 6].min() > 2  # the joint


@pytest.mark.parametrize("bad", [-1, -5, 5, 100])
def test_a_code_out_of_range_raises(bad: int, of_scale: Exported) -> None:
    codes = of_scale.codes(2, 8).numpy()
    codes[1, 3, 2, 1] = bad
    with pytest.raises(Exception, match="GatherND"):
        of_scale.run(DECODER_FILE, codes)


def test_more_layers_than_the_model_has_raise(of_scale: Exported) -> None:
    with pytest.raises(Exception, match="GatherND"):
        of_scale.run(DECODER_FILE, np.zeros((2, 8, 6, 5), dtype=np.int64))


def test_the_metadata_say_what_the_model_is(of_scale: Exported) -> None:
    for file in of_scale.files:
        said = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
        assert said["conditioning"] == "scale"
        assert json.loads(said["config"]) == of_scale.checkpoint.model.config
        assert said["checkpoint_sha256"] == sha256_of(of_scale.path)
        assert json.loads(said["high"]) == BOUNDS["max"].tolist()
        assert said["layout"] == LAYOUT


def test_inputs_and_outputs_have_names_and_free_axes(of_scale: Exported) -> None:
    def described(file: Path) -> list[tuple[str, list[str | int]]]:
        graph = onnx.load(file).graph
        ends = [*graph.input, *graph.output]
        return [(end.name, [d.dim_param or d.dim_value for d in end.type.tensor_type.shape.dim]) for end in ends]

    actions, codes = ("actions", ["batch", "chunk", 7]), ("codes", ["batch", "chunk", 6, 4])
    assert described(of_scale.files[0]) == [actions, codes]
    assert described(of_scale.files[1]) == [("codes", ["batch", "chunk", 6, "layers"]), actions]


def test_the_graphs_hold_standard_operators_alone_and_no_path_of_this_machine(of_scale: Exported) -> None:
    for file in of_scale.files:
        graph = onnx.load(file)
        assert {node.domain for node in graph.graph.node} == {""}
        assert not graph.functions
        for path in (str(REPOSITORY), torch.__path__[0], ".py"):
            assert path.encode() not in file.read_bytes()


def test_the_command_says_what_it_wrote_and_how_far_it_agrees_with_torch(graphs: Exported) -> None:
    lines = graphs.said.splitlines()
    assert [line.split(" (")[0] for line in lines[:2]] == [str(path) for path in graphs.files]
    difference = re.fullmatch(r"against torch: decoded actions differ by (.*) at most", lines[2])
    assert difference is not None
    assert float(difference[1]) < 2e-6
    shares = re.findall(r"([0-9.]+)%", lines[3])
    assert len(shares) == graphs.checkpoint.model.rfsq.num_layers
    assert min(map(float, shares)) > 99.9
    assert sorted(path.name for path in graphs.folder.iterdir()) == [DECODER_FILE, ENCODER_FILE]


def test_the_command_is_quiet_but_for_its_result(graphs: Exported) -> None:
    assert graphs.heard == []


def test_given_actions_are_what_is_checked_with(of_scale: Exported, tmp_path: Path, reuse: None) -> None:
    seen: list[Tensor] = []
    chunks = of_scale.actions(3, 5).double().numpy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_compare", lambda *given: seen.append(given[-1]))
        export_onnx(of_scale.path, tmp_path / "onnx", LAYOUT, chunks)
    np.testing.assert_array_equal(seen[0], chunks.astype(np.float32))


# what goes wrong


@pytest.fixture
def reuse(of_scale: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs that are there already, instead of seconds to make them."""
    made = tuple(path.read_bytes() for path in of_scale.files)
    monkeypatch.setattr(module, "_to_graphs", lambda *_: made)


@pytest.mark.parametrize("part", ["encoder", "decoder"])
@pytest.mark.usefixtures("reuse")
def test_graphs_that_do_something_else_are_not_written(part: str, of_scale: Exported, tmp_path: Path) -> None:
    other = of_scale.checkpoint
    with torch.no_grad():
        getattr(other.model, part)[2].bias += 0.01
    save_checkpoint(tmp_path / "other.pt", other)
    with pytest.raises(InputError, match=r"do not give what torch gives.*constraints\.txt"):
        export_onnx(tmp_path / "other.pt", tmp_path / "onnx", LAYOUT)
    assert not (tmp_path / "onnx").exists()


@pytest.mark.usefixtures("reuse")
def test_without_onnxruntime_the_files_are_written_and_nothing_is_claimed(
    of_scale: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "onnxruntime")
    files = export_onnx(of_scale.path, tmp_path / "onnx", LAYOUT)
    assert files.agreement is None
    assert files.decoder.read_bytes() == of_scale.files[1].read_bytes()
    assert summary(files).endswith("not run against torch, for onnxruntime is not installed")


def without(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == package else name)


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_a_missing_package_is_named(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without(monkeypatch, package)
    assert main(["--checkpoint", str(write_checkpoint(tmp_path)), "--out", str(tmp_path / "onnx")]) == 2
    assert capsys.readouterr().err == (
        f"error: {package}: not installed; run pip install -e '.[onnx]' in the repository\n"
    )
    assert not (tmp_path / "onnx").exists()


def no_checkpoint(folder: Path) -> Path:
    path = folder / "a.pt"
    path.write_text("none")
    return path


@pytest.mark.parametrize(
    ("make", "more", "said"),
    [
        (
            lambda folder: write_checkpoint(folder, "layernorm"),
            [],
            "is a 'layernorm' model, whose tokens",
        ),
        (lambda folder: write_checkpoint(folder, "scale", None), [], "carries no normaliser"),
        (no_checkpoint, [], "not a PyTorch checkpoint"),
        (write_checkpoint, ["--layout", "joint:6"], "codes actions of 7 numbers, and those of the layout 'joint:6'"),
        (write_checkpoint, ["--layout", "wheels:4"], "'wheels:4'"),
        (write_checkpoint, ["--out", "scale.pt"], "scale.pt: cannot write results here"),
    ],
)
@pytest.mark.usefixtures("reuse")
def test_bad_input_gets_one_sentence_and_writes_nothing(
    make: Callable[[Path], Path],
    more: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--checkpoint", str(make(tmp_path)), "--layout", LAYOUT, *more]) == 2
    stdout, stderr = capsys.readouterr()
    assert stdout == ""
    assert stderr.startswith("error: ")
    assert said in stderr
    assert stderr.count("\n") == 1
    assert not (tmp_path / "onnx").exists()


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (OSError(28, "disk full"), 1)])
@pytest.mark.usefixtures("reuse")
def test_what_breaks_off_leaves_both_files_as_they_were(
    error: BaseException,
    code: int,
    of_scale: Exported,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write = Path.write_bytes

    def failing(path: Path, content: bytes) -> int:
        if DECODER_FILE in path.name:
            raise error
        return write(path, content)

    (tmp_path / ENCODER_FILE).write_text("before")
    monkeypatch.setattr(Path, "write_bytes", failing)
    assert main(["--checkpoint", str(of_scale.path), "--layout", LAYOUT, "--out", str(tmp_path)]) == code
    assert [path.name for path in tmp_path.iterdir()] == [ENCODER_FILE]
    assert (tmp_path / ENCODER_FILE).read_text() == "before"
    assert "Traceback" not in capsys.readouterr().err


WITHOUT_LIMIT = [1.0, 1.0, 1.0, 1.0, 1.0, np.inf, 0.25]


def test_the_limit_of_the_training_goes_before_that_of_the_layout(tmp_path: Path) -> None:
    """A gripper that keeps its own units is not clipped, whatever the layout calls it."""
    bounds = {"min": torch.full((7,), -90.0), "max": torch.full((7,), 90.0)}
    path = tmp_path / "scale.pt"
    save_checkpoint(path, Checkpoint(used_model("scale", num_layers=4), 1, 0.1, bounds, {"limit": WITHOUT_LIMIT}))
    export_onnx(path, tmp_path / "onnx", "position:3 joint:2 gripper:2")
    one = Exported(path, tmp_path / "onnx", "", [])
    codes = one.codes(20, 8)
    plain = one.checkpoint.denormalise(one.checkpoint.model.decode_from_indices(codes)).numpy()
    assert (np.abs(plain[..., 5]) > 1).any()
    wanted = np.clip(plain, -np.array(WITHOUT_LIMIT, np.float32), np.array(WITHOUT_LIMIT, np.float32))
    np.testing.assert_allclose(one.run(DECODER_FILE, codes.numpy()), wanted, atol=1e-4)


def test_a_limit_of_the_training_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scale.pt"
    save_checkpoint(path, Checkpoint(used_model("scale", num_layers=4), 1, 0.1, BOUNDS, {"limit": "wide"}))
    with pytest.raises(InputError, match=r"scale\.pt: the limit in the checkpoint's provenance is 'wide', not a list"):
        export_onnx(path, tmp_path / "onnx", LAYOUT)


def test_the_snippet_under_the_heading_onnx_runs(of_scale: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it stands, beside the graphs that the command above it writes."""
    ((_, snippet),) = [(at, code) for at, code in blocks("python") if at == "docs/exports.md: ONNX"]
    monkeypatch.chdir(of_scale.folder.parent)
    scope: dict[str, Any] = {}
    exec(snippet, scope)
    raw = torch.from_numpy(scope["raw"])
    checkpoint = of_scale.checkpoint
    codes = checkpoint.model.encode(checkpoint.normalise(raw))
    assert scope["found"].shape == codes.shape
    assert np.abs(scope["restored"] - of_scale.decode(codes)).max() < 1e-5
    assert np.abs(scope["coarsely"] - of_scale.decode(codes[..., :3])).max() < 1e-5
