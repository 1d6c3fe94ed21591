#!/usr/bin/env python3
"""Trains one RFSQ autoencoder, or a sweep of them, here or in the cloud.

    python train_rfsq_robust.py --use-layernorm True --num-episodes 50 --epochs 100 --batch-size 64
    modal run train_rfsq_robust.py --use-layernorm True --num-episodes 50 --epochs 100 --batch-size 64

The first writes rfsq_robust_best.pt into the current folder; with `--use-layernorm False` it is rfsq_best.pt. The
second does the same in a container of Modal (https://modal.com), if the package `modal` is installed.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any

from rfsq_robust import CONDITIONINGS, resolve_conditioning
from workbook.dataset import DataConfig
from workbook.errors import InputError
from workbook.sweep import EXAMPLE, carry_out_here, gather, orders_of, parse_sweep, sweep_table, write_results
from workbook.tables import epochs_table
from workbook.training import Job, TrainConfig
from workbook.training_order import TrainingOrder, carry_out
from workbook.wording import number

MODELS, DATA = "/models", "/data"  # where the volumes of the cloud are mounted
Outcome = dict[str, Any]


def parse_arguments(arguments: Sequence[str], in_cloud: bool = False) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"{'modal run' if in_cloud else 'python'} train_rfsq_robust.py",
        allow_abbrev=False,
        description="Train one RFSQ autoencoder, or a sweep of them.",
        epilog="Exit code 0: trained; 2: bad input; 1: anything else; 130: interrupted, go on with --resume.",
    )
    parser.add_argument(
        "--use-layernorm", type=_truth, default=True, metavar="True|False", help="LayerNorm, or naive; default: True"
    )
    parser.add_argument(
        "--conditioning", choices=CONDITIONINGS, help="stands over --use-layernorm; 'scale' decodes from its tokens"
    )
    parser.add_argument("--data", default="sample", help="as for run_all.sh; default: sample")
    parser.add_argument("--num-episodes", type=int, default=0, help="use only so many episodes; default: 0, all")
    parser.add_argument("--epochs", type=int, default=100, help="passes over the train episodes; default: 100")
    parser.add_argument("--batch-size", type=int, default=64, help="chunks in a batch; default: 64")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="of AdamW; default: 0.001")
    parser.add_argument("--seed", type=int, default=0, help="of weights and batches; default: 0")
    parser.add_argument("--chunk-len", type=int, default=8, help="steps in a chunk; default: 8")
    parser.add_argument("--layout", default="libero", help="what the numbers of an action are, as for run_all.sh")
    parser.add_argument("--hidden-dim", type=int, default=16, help="latent numbers a step; default: 16")
    parser.add_argument("--num-layers", type=int, default=8, help="residual layers; default: 8")
    parser.add_argument("--num-levels", type=int, default=7, help="grid values a number and layer; default: 7")
    parser.add_argument(
        "--models-dir",
        default=MODELS if in_cloud else ".",
        help=f"for checkpoints, logs and the state to go on from; default: {MODELS if in_cloud else 'here'}",
    )
    parser.add_argument(
        "--resume",
        type=_truth,
        nargs="?",
        const=True,
        default=False,
        metavar="True|False",
        help="go on from the last epoch of a training that was cut off, if there is one",
    )
    parser.add_argument("--sweep", metavar=EXAMPLE, help="train several, and gather one results file")
    if in_cloud:
        parser.add_argument("--gpu", default="T4", help="of Modal, or 'none'; default: T4")
    else:
        parser.add_argument("--device", default="auto", help="auto (default), cpu or cuda")
    return parser.parse_args(arguments)


def _truth(word: str) -> bool:
    if word.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"'{word}' is neither True nor False")
    return word.lower() == "true"


def order_of(options: argparse.Namespace) -> TrainingOrder:
    return TrainingOrder(
        Job(resolve_conditioning(options.use_layernorm, options.conditioning), options.seed),
        TrainConfig(
            options.epochs,
            options.batch_size,
            options.learning_rate,
            options.hidden_dim,
            options.num_layers,
            options.num_levels,
        ),
        options.data,
        DataConfig(options.num_episodes, options.chunk_len, options.chunk_len, layout=options.layout),
        getattr(options, "device", "auto"),
        options.models_dir,
        options.resume,
    )


def run(
    options: argparse.Namespace,
    train_one: Callable[[TrainingOrder], Outcome],
    train_many: Callable[[Sequence[TrainingOrder]], list[Outcome]],
    results_folder: str,
) -> None:
    """Train what the options ask for, by the given means, and say what came of it."""
    order = order_of(options)
    if options.sweep:
        results = gather(train_many(orders_of(parse_sweep(options.sweep), order)), order)
        print(f"{sweep_table(results).markdown}\nresults: {write_results(results, results_folder)}")  # noqa: T201
    else:
        say(order, train_one(order))


def say(order: TrainingOrder, outcome: Outcome) -> None:
    lines = [
        epochs_table(outcome["curve"], order.job.conditioning).markdown,
        "",
        f"best epoch {outcome['best_epoch']} of {outcome['epochs']}, {outcome['seconds']:.0f} s on {outcome['device']}",
        f"validation MSE {number(outcome['validation_mse'])} from forward, "
        f"{number(outcome['validation_mse_tokens'])} from the tokens alone",
    ]
    if order.job.conditioning == "layernorm":
        lines.append(
            "LayerNorm's own decoder cannot read its tokens, which lack the mean and std of each vector (0 and 1 are "
            "assumed above); --conditioning scale decodes exactly"
        )
    lines.append(f"checkpoint: {order.checkpoint} ({outcome['bytes'] / 1000:.1f} kB)")
    print("\n".join(lines))  # noqa: T201


def train_here(order: TrainingOrder) -> Outcome:
    with _bar(f"training '{order.job.conditioning}'", order.train_config.epochs) as show:
        return carry_out(order, lambda epoch, mse: show(epoch, f"validation MSE {number(mse, 3)}"))


def train_many_here(orders: Sequence[TrainingOrder]) -> list[Outcome]:
    with _bar(f"training {len(orders)} models", len(orders) * orders[0].train_config.epochs) as show:
        return carry_out_here(orders, lambda done, total: show(done, ""))


@contextmanager
def _bar(title: str, total: int) -> Iterator[Callable[[int, str], None]]:
    """A bar of epochs, from the first that is done; bad input is told without one."""
    from tqdm import tqdm

    bar: tqdm | None = None

    def show(done: int, words: str) -> None:
        nonlocal bar
        bar = bar or tqdm(total=total, desc=title, unit="epoch", file=sys.stderr)
        bar.set_postfix_str(words, refresh=False)
        bar.update(done - bar.n)

    try:
        yield show
    finally:
        if bar is not None:
            bar.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Train here, and return the exit code."""
    options = parse_arguments(sys.argv[1:] if arguments is None else arguments)
    try:
        run(options, train_here, train_many_here, options.models_dir)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; --resume goes on from the last epoch", file=sys.stderr)  # noqa: T201
        return 130
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if find_spec("modal"):
    import modal

    SOURCE = "/root/robust-rfsq-workbook"
    LEFT_OUT = [".git", ".venv", "**/__pycache__", "out", "docs", "tests", "**/*.pt"]
    # A container reads this file again, and has its image already.
    image = modal.Image.debian_slim(python_version="3.11")
    if modal.is_local():
        image = image.add_local_dir(Path(__file__).resolve().parent, SOURCE, copy=True, ignore=LEFT_OUT).run_commands(
            f"cd {SOURCE} && pip install --constraint constraints.txt --editable ."
        )
    models, data = (modal.Volume.from_name(f"rfsq{name}", create_if_missing=True) for name in ("-models", "-data"))
    app = modal.App("robust-rfsq", image=image)

    @app.function(volumes={MODELS: models, DATA: data}, timeout=24 * 3600)
    def train_in_cloud(order: TrainingOrder) -> Outcome:
        """The body of a container; what it writes to a volume outlives it."""
        outcome = train_here(order)
        if not modal.is_local():
            models.commit()
        return outcome

    def run_in_cloud(arguments: Sequence[str], function: Any) -> int:
        """Train by a function of Modal, with the GPU that is asked for, and return the exit code."""
        options = parse_arguments(arguments, in_cloud=True)
        try:
            if not PurePosixPath(options.models_dir).is_relative_to(MODELS):
                raise InputError(f"--models-dir {options.models_dir}: is lost with the container; name one in {MODELS}")
            chosen = function if options.gpu.lower() == "none" else function.with_options(gpu=options.gpu)
            run(options, chosen.remote, lambda orders: list(chosen.map(orders)), ".")
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)  # noqa: T201
            return 2
        return 0

    @app.local_entrypoint()
    def main_in_cloud(*arguments: str) -> None:
        if code := run_in_cloud(arguments, train_in_cloud):
            sys.exit(code)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
