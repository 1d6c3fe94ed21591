"""The codec as two ONNX graphs, for robots and runtimes without torch: `python -m workbook.export.onnx --help`.

    encoder.onnx  actions float32 (batch, chunk, A) -> codes int64 (batch, chunk, H, K)
    decoder.onnx  codes int64 (batch, chunk, H, k), 1 <= k <= K, of the first k layers -> actions as above

Actions are in controller units, for the normaliser is inside; decoded ones are clipped to the controller's range.
Batch, chunk and k are free. What the model is and where it comes from stands in the metadata of both.

Codes outside [0, L), negative ones too, and more than K layers lead out of a table that GatherND looks them up in:
onnxruntime raises on the CPU, other providers may give any number. Actions that are not finite are not looked for.

The graphs give what torch gives but for the order in which sums are formed: decoded actions differ in the last bits,
and codes where a residual lies so near to the border between two grid values, which is the more frequent the finer the
layer.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rfsq_robust import Checkpoint
from rfsq_tokenizer import limit_of_training
from workbook.codecs.rfsq import normaliser_of
from workbook.common import terminal
from workbook.common.errors import InputError
from workbook.common.paths import OutputFolder, expand, replacing
from workbook.data.layout import LIBERO_NAME, ActionLayout
from workbook.export.tokens import describe_checkpoint, load_decodable

ENCODER_FILE, DECODER_FILE = "encoder.onnx", "decoder.onnx"
OPSET = 18  # the first with Mish; runtimes of 2023 and later read it
RANDOM_CHUNKS = (256, 8)  # on which graphs and torch are compared
# What is taken for a broken exporter: a decoded action that is further off than this share of its size and of half the
# range of the normaliser, or more codes of the first layer that differ.
TOLERANCE, MOST_UNEQUAL = 1e-5, 0.01
PACKAGES = ("onnx", "onnxscript")


@dataclass(frozen=True)
class Agreement:
    """The graphs in onnxruntime against torch.

    largest_difference: between actions decoded from the same codes, in controller units; equal_codes: (K,) the share of
    equal codes in each layer.
    """

    largest_difference: float
    equal_codes: tuple[float, ...]


@dataclass(frozen=True)
class OnnxFiles:
    """What was written; agreement is None where onnxruntime is not installed."""

    encoder: Path
    decoder: Path
    agreement: Agreement | None


class Encoder(nn.Module):
    """Actions (batch, chunk, A) in controller units -> codes (batch, chunk, H, K), as `ActionRFSQAE.encode` gives them.

    The normaliser computes in double, as `Checkpoint.normalise` does: the codes of the fine layers ask for it.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        self.model = checkpoint.model

    def forward(self, actions: Tensor) -> Tensor:
        return self.model.rfsq.quantize(self.model.encoder(self.checkpoint.normalise(actions)))[1]


class Decoder(nn.Module):
    """Codes (batch, chunk, H, k) -> actions (batch, chunk, A) in controller units, clipped.

    In float32 throughout, which every accelerator takes. values: (K, L) what a code stands for in each layer.
    """

    values: Tensor
    half_width: Tensor
    centre: Tensor
    limit: Tensor

    def __init__(self, checkpoint: Checkpoint, limit: NDArray[np.float64]) -> None:
        super().__init__()
        self.decoder = checkpoint.model.decoder
        layers = checkpoint.model.rfsq.quantizers
        levels = torch.arange(layers[0].num_levels)
        normaliser = normaliser_of(checkpoint)
        self.register_buffer("values", torch.stack([layer.to_values(levels, *layer.constants()) for layer in layers]))
        self.register_buffer("half_width", torch.from_numpy(normaliser.half_width).float())
        self.register_buffer("centre", torch.from_numpy(normaliser.centre).float())
        self.register_buffer("limit", torch.from_numpy(limit).float())

    def forward(self, codes: Tensor) -> Tensor:
        levels = self.values.shape[1]
        # GatherND counts negative indices from the end, so that -1, the padding of tokens.h5, would pass for a code.
        inside = torch.where(codes < 0, levels, codes)
        latents = self.values[torch.arange(codes.shape[-1]), inside].sum(dim=-1)
        actions = self.decoder(latents) * self.half_width + self.centre
        return torch.clamp(actions, -self.limit, self.limit)


def export_onnx(
    checkpoint_path: str | Path,
    out: str | Path,
    layout: str = LIBERO_NAME,
    actions: NDArray[np.float32] | None = None,
) -> OnnxFiles:
    """Write both graphs into the folder `out`, whole or not at all, after a check against torch.

    layout: of the actions, for the range of the controller where the checkpoint does not say it; actions: (N, C, A) in
    controller units to check with, random ones within the range of the normaliser where none are given.

    Raises:
        InputError: the packages for it are missing, an unusable checkpoint or one without a normaliser, one whose
            tokens do not decode, actions of another width, a folder that cannot be written, or graphs that do not
            give what torch gives.
    """
    check_packages()
    path = expand(str(checkpoint_path))
    parsed = ActionLayout.parse(layout)
    checkpoint = load_decodable(path, parsed)
    if checkpoint.normalization is None:
        raise InputError(
            f"{path}: carries no normaliser, without which the graphs would not know controller units; save it with "
            "normalization={'min': ..., 'max': ...} of its training data"
        )
    normaliser = normaliser_of(checkpoint)
    bounds = {"low": normaliser.low.tolist(), "high": normaliser.high.tolist()}
    metadata = describe_checkpoint(path, checkpoint) | {"layout": parsed.spec, **bounds}
    limit = _limit(path, checkpoint, parsed)
    graphs = _to_graphs(checkpoint, limit, metadata)
    agreement = None
    if find_spec("onnxruntime") is not None:
        chunks = (
            _random_actions(checkpoint) if actions is None else torch.from_numpy(np.asarray(actions, dtype=np.float32))
        )
        agreement = _compare(graphs, checkpoint, limit, chunks)
    folder = OutputFolder.at(str(out)).root
    encoder, decoder = folder / ENCODER_FILE, folder / DECODER_FILE
    with replacing(encoder) as encoder_file, replacing(decoder) as decoder_file:
        encoder_file.write_bytes(graphs[0])
        decoder_file.write_bytes(graphs[1])
    return OnnxFiles(encoder, decoder, agreement)


def check_packages() -> None:
    """Raises InputError where a package is missing that writes ONNX."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise InputError(f"{' and '.join(missing)}: not installed; run pip install -e '.[onnx]' in the repository")


def _limit(path: Path, checkpoint: Checkpoint, layout: ActionLayout) -> NDArray[np.float64]:
    """That of the training, which knows whether a gripper keeps its own units; the layout's where it says none."""
    try:
        found = limit_of_training(checkpoint)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    return layout.limit if found is None else np.array(found)


def _to_graphs(checkpoint: Checkpoint, limit: NDArray[np.float64], metadata: dict[str, Any]) -> tuple[bytes, bytes]:
    from torch.export import Dim

    actions = _random_actions(checkpoint)[:2]  # torch takes an axis of length 1 for one that is always so
    codes = checkpoint.model.encode(checkpoint.normalise(actions))
    batch, chunk = Dim("batch"), Dim("chunk")
    layers = {3: Dim("layers", max=codes.shape[-1])} if codes.shape[-1] > 1 else {}
    encoder = _to_graph(Encoder(checkpoint), actions, ("actions", "codes"), {0: batch, 1: chunk}, metadata)
    module = Decoder(checkpoint, limit)
    decoder = _to_graph(module, codes, ("codes", "actions"), {0: batch, 1: chunk, **layers}, metadata)
    return encoder, decoder


def _to_graph(
    module: nn.Module, example: Tensor, names: tuple[str, str], free: dict[int, Any], metadata: dict[str, Any]
) -> bytes:
    import onnx

    with _quietly():
        program = torch.onnx.export(
            module.eval(),
            (example,),
            dynamo=True,
            input_names=names[:1],
            output_names=names[1:],
            dynamic_shapes=(free,),
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    graph = program.model_proto
    for part in (graph.graph, *graph.graph.node, *graph.graph.value_info, *graph.graph.input, *graph.graph.output):
        part.ClearField("metadata_props")  # stack traces, with the paths of this machine
    for name, value in metadata.items():
        graph.metadata_props.add(key=name, value=value if isinstance(value, str) else json.dumps(value))
    onnx.checker.check_model(graph, full_check=True)
    return graph.SerializeToString()


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what torch says of packages that are not there and of its own inside."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _random_actions(checkpoint: Checkpoint) -> Tensor:
    """(N, C, A) in controller units, within the range of the normaliser."""
    generator = torch.Generator().manual_seed(0)
    normalised = torch.rand(*RANDOM_CHUNKS, checkpoint.model.action_dim, generator=generator) * 2 - 1
    return checkpoint.denormalise(normalised)


def _compare(
    graphs: tuple[bytes, bytes], checkpoint: Checkpoint, limit: NDArray[np.float64], actions: Tensor
) -> Agreement:
    """Raises InputError where the graphs do something else than torch does."""
    import onnxruntime

    encoder, decoder = (onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"]) for graph in graphs)
    codes = checkpoint.model.encode(checkpoint.normalise(actions))
    ends = torch.from_numpy(limit).float()
    expected = checkpoint.denormalise(checkpoint.model.decode_from_indices(codes)).clamp(-ends, ends).numpy()
    decoded = decoder.run(None, {"codes": codes.numpy()})[0]
    equal = encoder.run(None, {"actions": actions.numpy()})[0] == codes.numpy()
    shares = tuple(equal.reshape(-1, equal.shape[-1]).mean(axis=0).tolist())
    half_width = normaliser_of(checkpoint).half_width
    if not np.allclose(decoded, expected, TOLERANCE, TOLERANCE * half_width) or shares[0] < 1 - MOST_UNEQUAL:
        raise InputError(
            "the graphs do not give what torch gives, so nothing was written; install the versions of torch, onnx and "
            "onnxscript that stand in constraints.txt"
        )
    return Agreement(float(np.abs(decoded - expected).max()), shares)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m workbook.export.onnx",
        allow_abbrev=False,
        description="Write a codec as ONNX: encoder.onnx and decoder.onnx, from and to controller units.",
        epilog="Exit code 0: both files are written; 2: bad input; 1: anything else; 130: interrupted.",
    )
    parser.add_argument("--checkpoint", required=True, help="of the codec; the tokens of a LayerNorm one do not decode")
    parser.add_argument("--out", default="onnx", help="folder for the files; default: onnx")
    parser.add_argument("--layout", default=LIBERO_NAME, help="what the numbers of an action are, as for run_all.sh")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Export, and return the exit code."""
    options = parse_arguments(arguments)
    return terminal.tell(lambda: summary(export_onnx(options.checkpoint, options.out, options.layout)), options.out)


def summary(files: OnnxFiles) -> str:
    lines = [f"{path} ({path.stat().st_size / 1000:.0f} kB)" for path in (files.encoder, files.decoder)]
    if files.agreement is None:
        return "\n".join([*lines, "not run against torch, for onnxruntime is not installed"])
    shares = ", ".join(f"{100 * share:.2f}%" for share in files.agreement.equal_codes)
    return "\n".join(
        [
            *lines,
            f"against torch: decoded actions differ by {files.agreement.largest_difference:.1e} at most",
            f"equal codes, layer by layer: {shares}",
        ]
    )


if __name__ == "__main__":
    terminal.heed_stops()
    sys.exit(main())
