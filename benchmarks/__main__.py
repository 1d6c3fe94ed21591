"""`python -m benchmarks`: what codecs and their training cost, on one thread, as ratios within one run.

    network   the fixed scale and the others of the guide's autoencoder, against the network alone
    alike     GroupedResidualFSQ of as many layers and levels of the same latents, against the fixed scale
    codecs    every codec of the catalogue, against the fixed scale
    training  a training step of each conditioning, against naive's, and in a stack, against alone
    whole     on request: all models of 02_train_robust trained one by one and in stacks, by the clock
    growth    from 1,000 chunks on, the time a chunk against that at 1,000

Networks are as they start, for their weights cost the same trained or not. CPU time, in turn, the median.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rfsq_robust import CONDITIONINGS, ActionRFSQAE
from workbook.codecs.catalogue import Entry, Fitting, Network, Setting, Unit, catalogue
from workbook.codecs.learned import QUANTIZERS, LearnedAE
from workbook.codecs.other_decoder import ChunkDecoder
from workbook.codecs.protocol import Codec
from workbook.codecs.rfsq import RFSQCodec
from workbook.common import terminal
from workbook.common.array import Array
from workbook.common.errors import InputError
from workbook.common.paths import expand, replacing
from workbook.common.provenance import collect
from workbook.common.timing import Call, time_in_turn
from workbook.data.dataset import prepare_dataset
from workbook.training.data import TrainData
from workbook.training.runs import MOST_STACKED, stacks_of
from workbook.training.stack import Alone, RFSQStack, Stack, keep_freed_memory
from workbook.training.trainer import Job, Stepper, TrainConfig, build_model, choose_device, train_together

BATCHES = (1, 64, 4096)
LARGEST = 10**6  # chunks
CHUNK_LEN = 8
STACKED = 5  # models of a conditioning, as many as 02_train_robust trains
REFERENCE = "fixed_scale"
Row = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    return terminal.tell(lambda: _measure_and_write(options), options.out)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", allow_abbrev=False, description=__doc__.split("\n")[0]
    )
    parser.add_argument("--out", default="", help="also write the rows to this JSON file")
    parser.add_argument("--repetitions", type=int, default=15, help="of every call; default: 15")
    parser.add_argument("--largest", type=int, default=LARGEST, help="chunks that growth goes up to; default: 10^6")
    parser.add_argument(
        "--parts", nargs="+", choices=[*PARTS, *ON_REQUEST], default=list(PARTS), help="default: all but whole"
    )
    parser.add_argument("--data", default="sample", help="as for run_all.sh; default: sample")
    parser.add_argument("--device", default="cpu", help="that training runs on: cpu (default), cuda or auto")
    parser.add_argument("--epochs", type=int, default=100, help="of whole; default: 100")
    return parser.parse_args(arguments)


def _measure_and_write(options: argparse.Namespace) -> str:
    if options.repetitions < 1:
        raise InputError(f"--repetitions is {options.repetitions}; give at least 1")
    torch.set_num_threads(1)
    keep_freed_memory()  # else what is timed first pays for pages that the others find
    options.device = choose_device(options.device)
    fitting = _fitting(options.data)
    rows = [row for part in options.parts for row in (PARTS | ON_REQUEST)[part](fitting, options)]
    if options.out:
        with replacing(expand(options.out)) as temporary:
            content = {"provenance": collect(), "repetitions": options.repetitions, "rows": rows}
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf8")
    return "\n".join(_lines(rows))


def _fitting(data: str) -> Fitting:
    """What the catalogue makes its codecs of, with networks as they start."""
    torch.manual_seed(0)
    dataset = prepare_dataset(data).dataset
    models = {name: ActionRFSQAE(conditioning=name).eval() for name in CONDITIONINGS}
    rfsq = {name: [RFSQCodec(name, model, dataset.normaliser)] for name, model in models.items()}
    wanted = dict.fromkeys(network for entry in catalogue().values() for network in entry.networks(False))
    networks = {network: [_untrained(network, dataset.layout.dim)] for network in wanted}
    naive = models["none"]
    decoders: dict[Unit, list[torch.nn.Module]] = {"step": [naive], "chunk": [ChunkDecoder(naive, CHUNK_LEN).eval()]}
    return Fitting(dataset, rfsq, networks, decoders)


def _untrained(network: Network, action_dim: int) -> torch.nn.Module:
    sizes = TrainConfig()
    hidden_dim = network.hidden_dim or sizes.hidden_dim
    for quantizer in QUANTIZERS:
        if network.quantizer == quantizer:
            return LearnedAE(quantizer, action_dim, hidden_dim).eval()
    width = action_dim * (CHUNK_LEN if network.unit == "chunk" else 1)
    conditioning = next(name for name in CONDITIONINGS if name == network.quantizer)
    levels = network.num_levels or sizes.num_levels
    return ActionRFSQAE(width, hidden_dim, sizes.num_layers, levels, conditioning=conditioning).eval()


def _of_network(fitting: Fitting, options: argparse.Namespace) -> Iterator[Row]:
    """Encoding and decoding of each conditioning at each batch, against its network alone."""
    for batch in BATCHES:
        x = torch.rand(batch, CHUNK_LEN, fitting.dataset.layout.dim) * 2 - 1
        for name, (codec,) in fitting.rfsq.items():
            timed = time_in_turn(_calls_of(codec.model, x), options.repetitions)
            for call, against in (("encode uint8", "encoder"), ("encode int64", "encoder"), ("decode", "decoder")):
                ratio = timed[call] / timed[against]
                yield _row("network", f"{name}, {call}", batch, timed[call], ratio, f"its {against} alone")


@torch.no_grad()
def _calls_of(model: ActionRFSQAE, x: Tensor) -> dict[str, Call]:
    codes, stats = model.encode(x, return_stats=True, dtype=torch.uint8)
    latent = model.rfsq.decode_from_indices(codes, stats)
    return {
        "encoder": torch.no_grad()(lambda: model.encoder(x)),
        "encode uint8": lambda: model.encode(x, dtype=torch.uint8),
        "encode int64": lambda: model.encode(x),
        "decoder": torch.no_grad()(lambda: model.decoder(latent)),
        "decode": lambda: model.decode_from_indices(codes, stats),
    }


def _of_codes_alike(fitting: Fitting, options: argparse.Namespace) -> Iterator[Row]:
    """As many tokens of the same latents by vector-quantize-pytorch's GroupedResidualFSQ, against the fixed scale's."""
    model = fitting.rfsq["scale"][0].model
    theirs = _grouped_residual_fsq(model)
    for batch in BATCHES:
        x = torch.rand(batch, CHUNK_LEN, fitting.dataset.layout.dim) * 2 - 1
        timed = time_in_turn(_calls_alike(model, theirs, x), options.repetitions)
        for what in ("quantizer", "round trip"):
            ours, grouped = timed[f"scale, {what}"], timed[f"GroupedResidualFSQ, {what}"]
            yield _row("alike", f"GroupedResidualFSQ, {what}", batch, grouped, grouped / ours, f"scale, {what}")


def _grouped_residual_fsq(model: ActionRFSQAE) -> torch.nn.Module:
    """A group for each latent, so that each token has L values, as ours."""
    from vector_quantize_pytorch import GroupedResidualFSQ

    latents, block = model.hidden_dim, model.rfsq
    return GroupedResidualFSQ(
        dim=latents, groups=latents, levels=[block.num_levels], num_quantizers=block.num_layers
    ).eval()


@torch.no_grad()
def _calls_alike(model: ActionRFSQAE, theirs: Any, x: Tensor) -> dict[str, Call]:
    """From latents to codes and back, and from actions to codes and back, by the same encoder and decoder."""

    def grouped(latent: Tensor) -> Tensor:
        codes = theirs(latent.flatten(0, 1)[None])[1]
        return theirs.get_output_from_indices(codes).view(latent.shape)

    def ours(latent: Tensor) -> Tensor:
        return model.rfsq.decode_from_indices(model.rfsq.to_codes(latent))

    latent = model.encoder(x)
    quantizers = {"scale": ours, "GroupedResidualFSQ": grouped}
    calls: dict[str, Call] = {}
    for name, quantizer in quantizers.items():
        calls[f"{name}, quantizer"] = torch.no_grad()(partial(quantizer, latent))
        calls[f"{name}, round trip"] = torch.no_grad()(partial(_round_trip, model, quantizer, x))
    return calls


def _round_trip(model: ActionRFSQAE, quantizer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    decoded: Tensor = model.decoder(quantizer(model.encoder(x)))
    return decoded


def _of_codecs(fitting: Fitting, options: argparse.Namespace) -> Iterator[Row]:
    """Round trips of every codec at every batch, against the fixed scale's."""
    codecs = {_title(entry, setting): codec for entry, setting, codec in _each_codec(fitting)}
    reference = next(title for title in codecs if title.startswith(REFERENCE))
    for batch in BATCHES:
        chunks = _chunks(fitting, batch)
        encoded = {title: codec.encode(chunks) for title, codec in codecs.items()}
        for what in ("encode", "decode", "round trip"):
            calls = {title: _call(codec, what, chunks, encoded[title]) for title, codec in codecs.items()}
            timed = time_in_turn(calls, options.repetitions)
            for title, each in timed.items():
                ratio = each / timed[reference]
                yield _row("codecs", f"{title}, {what}", batch, each, ratio, reference)


def _each_codec(fitting: Fitting) -> Iterator[tuple[Entry, Setting, Codec]]:
    """At the last setting of each that is compared, or else played or measured; those of `full` alone are left out."""
    for entry in catalogue().values():
        for setting in (entry.compared(fitting) or entry.played(fitting) or entry.measured(fitting))[-1:]:
            yield entry, setting, entry.codecs(fitting, setting)[0]


def _call(codec: Codec, what: str, chunks: Array, tokens: Any) -> Call:
    if what == "encode":
        return lambda: codec.encode(chunks)
    if what == "decode":
        return lambda: codec.decode(tokens)
    return lambda: codec.decode(codec.encode(chunks))


def _of_training(fitting: Fitting, options: argparse.Namespace) -> Iterator[Row]:
    """One step of AdamW on a batch of one model, against naive's, and that of a model in a stack, against alone."""
    config, data, width = TrainConfig(), TrainData.of(fitting.dataset).to(options.device), fitting.dataset.layout.dim
    alone = {name: Alone(build_model(config, width, Job(name, 0)), data) for name in CONDITIONINGS}
    seeds = range(STACKED)
    stacks = {
        name: RFSQStack([build_model(config, width, Job(name, seed)) for seed in seeds], data) for name in CONDITIONINGS
    }
    timed = time_in_turn(
        {f"{name}, a step": _step_of(stack, config, data) for name, stack in alone.items()}
        | {f"{name}, a step of {STACKED}": _step_of(stack, config, data) for name, stack in stacks.items()},
        options.repetitions,
    )
    for name in CONDITIONINGS:
        one, of_stack = timed[f"{name}, a step"], timed[f"{name}, a step of {STACKED}"] / STACKED
        yield _row("training", f"{name}, a step", config.batch_size, one, one / timed["none, a step"], "none")
        yield _row("training", f"{name}, a step in a stack", config.batch_size, of_stack, of_stack / one, "it alone")


def _step_of(stack: Stack, config: TrainConfig, data: TrainData) -> Call:
    stepper = Stepper(stack, config, range(len(stack)), data)
    batch = stepper.batches()[0]

    def step() -> None:
        stepper.step(batch)
        if batch.is_cuda:
            torch.cuda.synchronize()

    return step


def _of_whole_training(fitting: Fitting, options: argparse.Namespace) -> Iterator[Row]:
    """All models of 02_train_robust, each alone and then in stacks, in this process: seconds by the clock, once."""
    config, data = TrainConfig(epochs=options.epochs), TrainData.of(fitting.dataset).to(options.device)
    jobs = [Job(name, seed) for name in CONDITIONINGS for seed in range(STACKED)]
    most = MOST_STACKED[options.device]
    ways = {
        "one by one": [[job] for job in jobs],
        "stacked": [[jobs[k] for k in part] for part in stacks_of(jobs, most, 1)],
    }
    first = 0.0
    for name, stacks in ways.items():
        started = time.perf_counter()
        for stack in stacks:
            train_together(config, stack, data)
        seconds = time.perf_counter() - started
        first = first or seconds
        what = f"{len(jobs)} models, {config.epochs} epochs, {name}"
        yield _row("whole", what, config.batch_size, seconds, seconds / first, "one by one")


def _of_growth(fitting: Fitting, options: argparse.Namespace) -> Iterator[Row]:
    """Round trips of more and more chunks, the time a chunk against that of the first thousand."""
    shown = (REFERENCE, "klt_rfsq_fixed", "fast")
    codecs = {entry.name: codec for entry, _, codec in _each_codec(fitting) if entry.name in shown}
    first: dict[str, float] = {}
    for exponent in range(3, int(np.log10(options.largest)) + 1):
        count = 10**exponent
        chunks = _chunks(fitting, count)
        calls = {name: _call(codec, "round trip", chunks, None) for name, codec in codecs.items()}
        for name, each in time_in_turn(calls, 3 if count < LARGEST else 1).items():
            first.setdefault(name, each / count)
            yield _row("growth", name, count, each, each / count / first[name], "1,000 chunks, a chunk")


PARTS = {
    "network": _of_network,
    "alike": _of_codes_alike,
    "codecs": _of_codecs,
    "training": _of_training,
    "growth": _of_growth,
}
ON_REQUEST = {"whole": _of_whole_training}  # for it takes minutes


def _chunks(fitting: Fitting, count: int) -> Array:
    """Test chunks, again and again until there are so many."""
    chunks = fitting.dataset.held_out_chunks("test").actions
    return np.resize(chunks, (count, *chunks.shape[1:]))


def _title(entry: Entry, setting: Setting) -> str:
    return f"{entry.name} {setting}"


def _row(part: str, what: str, batch: int, seconds: float, ratio: float, against: str) -> Row:
    return {"part": part, "what": what, "batch": batch, "seconds": seconds, "ratio": ratio, "against": against}


def _lines(rows: Sequence[Row]) -> Iterator[str]:
    width = max((len(row["what"]) for row in rows), default=0)
    yield f"{'':<10}{'':<{width}}  {'batch':>9}  {'ms':>11}  {'ratio':>7}  against"
    for row in rows:
        yield (
            f"{row['part']:<10}{row['what']:<{width}}  {row['batch']:>9,}  {1000 * row['seconds']:>11.3f}  "
            f"{row['ratio']:>7.2f}  {row['against']}"
        )


if __name__ == "__main__":
    sys.exit(main())
