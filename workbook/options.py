"""What ./run_all.sh can be asked for: its options, their check before anything starts, and what each notebook gets."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from workbook.common import terminal
from workbook.common.errors import InputError
from workbook.common.paths import OutputFolder, expand, whole_path
from workbook.data.config import add_options, config_of
from workbook.data.sources import DATA_KINDS

# All else is imported where it is used, for help needs nothing installed.
if TYPE_CHECKING:
    from workbook.data.dataset import Prepared

Settings = dict[str, Any]  # of a stage, or the parameters of a notebook
REPLAY_OPTIONS = ("replay_episodes", "replay_seeds")
LOOP_OPTIONS = ("loop_seeds", "loop_starts", "demonstrations", "loop_steps")
SMOKE = {
    "epochs": 2, "seeds": 2, "num_episodes": 24, "baseline_steps": 20, "policy_steps": 20, "replay_episodes": 2,
    "replay_seeds": 1, "loop_seeds": 1, "loop_starts": 1, "demonstrations": 2, "loop_steps": 20,
}  # fmt: skip


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./run_all.sh",
        allow_abbrev=False,
        description="Run the notebooks headless and write the report that the verdict is read from.",
        epilog="Results go to OUT/reports/index.html, OUT/results.json and OUT/checkpoints/. "
        "Exit code 0: the run is complete, whatever the verdict; 2: bad input; 1: anything else; 130: interrupted.",
    )
    parser.add_argument("--data", default="sample", help=f"{DATA_KINDS}; default: sample")
    parser.add_argument("--out", default="", help="folder for results; default: out/ in the repository")
    parser.add_argument("--epochs", type=int, default=100, help="passes over the train episodes; default: 100")
    parser.add_argument("--seeds", type=int, default=5, help="models of each conditioning; default: 5")
    add_options(parser, "stride", "split_seed", "fold")
    parser.add_argument(
        "--stride", type=int, default=0, help="steps between train chunks; default: 0, the chunk length"
    )
    parser.add_argument("--hidden-dim", type=int, default=16, help="latent numbers a step; default: 16")
    parser.add_argument("--num-layers", type=int, default=8, help="residual layers; default: 8")
    parser.add_argument("--num-levels", type=int, default=7, help="grid values a number and layer; default: 7")
    parser.add_argument(
        "--baseline-steps", type=int, default=1000, help="batches for each of the field's quantizers; default: 1000"
    )
    parser.add_argument(
        "--policy-steps", type=int, default=1600, help="most batches for each small policy; default: 1600"
    )
    parser.add_argument(
        "--with-replay",
        action="store_true",
        help="also play the test episodes in LIBERO's simulator, exactly and as every codec's tokens decode; installs "
        "the simulator (0.8 GB to download, 2.1 GB on disk)",
    )
    parser.add_argument(
        "--with-simulator",
        action="store_true",
        help="with the replays, and with policies that learn to predict each codec's tokens and act in the simulator",
    )
    parser.add_argument(
        "--replay-episodes", type=int, default=0, help="play only so many test episodes; default: 0, all"
    )
    parser.add_argument(
        "--replay-seeds", type=int, default=0, help="play only so many models of a trained codec; default: 0, all"
    )
    parser.add_argument("--loop-seeds", type=int, default=3, help="policies of each kind in the loop; default: 3")
    parser.add_argument("--loop-starts", type=int, default=4, help="starts of each task and seed; default: 4")
    parser.add_argument(
        "--demonstrations", type=int, default=8, help="of each task, from which policies in the loop learn; default: 8"
    )
    parser.add_argument(
        "--loop-steps", type=int, default=2000, help="batches for each policy in the loop; default: 2000"
    )
    parser.add_argument("--device", default="auto", help="auto (default), cpu or cuda")
    parser.add_argument("--naive-checkpoint", default="", help="a naive Phase-1 checkpoint to take naive's place")
    parser.add_argument(
        "--codec",
        action="append",
        default=[],
        help="a tokenizer of your own with FAST's interface, compared with the "
        "others: package.module:Class, path/to/file.py:Class, or a folder that save_pretrained wrote; may be repeated",
    )
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="let the code in a folder that --codec names run"
    )
    parser.add_argument(
        "--predictions",
        default="",
        metavar="FILE",
        help="what your own Phase 2 predicts (.h5, .npz or .pt), judged without retraining; INTEGRATION_TO_PHASE2.md "
        "shows how to write it",
    )
    parser.add_argument(
        "--predictions-checkpoint",
        default="",
        metavar="FILE",
        help="the codec of these predictions; default: the one that their file names",
    )
    parser.add_argument(
        "--full",
        action="store_true",
        help="the complete sweep of codecs and policies; with the simulator it takes hours",
    )
    parser.add_argument(
        "--on",
        choices=("here", "slurm"),
        default="here",
        help="where networks and policies are trained and episodes are played; slurm sends them as jobs; default: here",
    )
    parser.add_argument("--slurm-config", default="", metavar="FILE", help="TOML: partition, account, minutes, ...")
    parser.add_argument("--smoke", action="store_true", help="a rehearsal in about a minute; its result is no evidence")
    if "--smoke" in arguments:  # what is said besides it stands
        parser.set_defaults(**SMOKE)
    options = parser.parse_args(arguments)
    options.with_replay |= options.with_simulator
    options.stride = options.stride or options.chunk_len
    options.codec = [whole_path(spec) for spec in options.codec]
    return options


class Checked(NamedTuple):
    """The settings of every stage, and what was read: the data, and the user's own predictions."""

    settings: dict[str, Settings]
    read: tuple[Any, ...]


def check_before_start(options: argparse.Namespace) -> Checked:
    """Meet bad input before the first kernel starts; the notebooks check the same things for those run by hand.

    Data of the hub are named with the revision that was fetched.
    """
    from workbook.data.dataset import prepare_dataset
    from workbook.data.sources.mirror import CACHE_VARIABLE
    from workbook.evaluation.predictions.read import PredictionsConfig, read_predictions
    from workbook.training.baselines import BaselineConfig, brought_codecs

    if os.environ.get(CACHE_VARIABLE):  # the kernels start in another folder
        os.environ[CACHE_VARIABLE] = str(expand(os.environ[CACHE_VARIABLE]))
    settings = {"training": _training_settings(options)} | _evaluation_settings(options)
    predictions = PredictionsConfig(options.predictions, options.predictions_checkpoint)
    # 01_data prepares the same again: it runs without this check where it is run by hand, and a tenth of a second for
    # the sample is less than handing a data set from one process to another would cost in code.
    with terminal.fetching() as on_progress:
        data_config = config_of(options, split_seed=0, fold=0)
        prepared = prepare_dataset(options.data, data_config, on_progress)
    brought_codecs(prepared.dataset, BaselineConfig(**settings["comparison"]))
    read: tuple[Any, ...] = (prepared.dataset,)
    if predictions.settings:
        read += (read_predictions(predictions, prepared.dataset.layout, prepared.dataset.normaliser),)
        settings["predictions"] = predictions.settings
    _say_beforehand(options, prepared)
    data = {"data": prepared.origin.name, "dataset_sha256": prepared.dataset.sha256} | asdict(data_config)
    return Checked({"data": data} | settings, read)


def _training_settings(options: argparse.Namespace) -> Settings:
    from workbook.data.layout import ActionLayout
    from workbook.training.runs import check_naive_checkpoint, check_seeds, naive_settings
    from workbook.training.trainer import TrainConfig, choose_device

    config = TrainConfig(
        options.epochs, hidden_dim=options.hidden_dim, num_layers=options.num_layers, num_levels=options.num_levels
    )
    check_seeds(options.seeds)
    if options.folds and (options.with_replay or options.naive_checkpoint):
        raise InputError("--folds trains and tests every model anew; leave out the simulator and --naive-checkpoint")
    choose_device(options.device)
    if options.naive_checkpoint:
        check_naive_checkpoint(options.naive_checkpoint, config, ActionLayout.parse(options.layout).dim)
    seeds = 1 if options.folds else options.seeds
    run = {"seeds": seeds, "first_seed": 0, "device": options.device}
    return asdict(config) | run | naive_settings(options.naive_checkpoint)


def _evaluation_settings(options: argparse.Namespace) -> dict[str, Settings]:
    """Stage -> its settings; those of stages that were not asked for are checked, too, and left out."""
    from workbook.evaluation.loop.play import LoopConfig
    from workbook.evaluation.policy.probe import ProbeConfig
    from workbook.evaluation.replay.replay import ReplayConfig
    from workbook.training.baselines import BaselineConfig

    baselines = BaselineConfig(options.baseline_steps, options.full, ",".join(options.codec), options.trust_remote_code)
    replay = ReplayConfig(options.replay_episodes, options.replay_seeds)
    loop = LoopConfig(**{name: getattr(options, name) for name in (*LOOP_OPTIONS, "full")})
    settings = {"comparison": asdict(baselines), "policy": asdict(ProbeConfig(options.policy_steps, options.full))}
    settings |= {"replay": asdict(replay)} if options.with_replay else {}
    return settings | ({"loop": asdict(loop)} if options.with_simulator else {})


def _say_beforehand(options: argparse.Namespace, prepared: Prepared) -> None:
    """What the notebooks cannot say in time: that no replay will be, and which revision of the data was fetched."""
    from workbook.evaluation.replay.replay import unplayable
    from workbook.report.text import words
    from workbook.simulation.scene import missing_packages

    problem = missing_packages() or unplayable(prepared.dataset)
    if options.with_replay and problem:
        print(f"replay: will not be run, for {words('replay').reason(problem)}", flush=True)  # noqa: T201
    origin = prepared.origin
    if origin.revision and origin.name != options.data:  # the notebooks read the commit, and cannot say how it came
        print(f"data: {origin.name}. {' '.join(map(words('data').of_note, origin.notes))}", flush=True)  # noqa: T201


def notebook_parameters(
    options: argparse.Namespace,
    data: str,
    work: OutputFolder,
    target: OutputFolder,
    fold: int = 0,
    decided: str = "",
) -> dict[str, dict[str, Any]]:
    """Notebook -> the parameters that it is given, in the order of execution; decided: settings of fold 0."""
    out = str(work.root)
    named = ("naive_checkpoint", "predictions", "predictions_checkpoint")  # the kernels start in another folder
    given = {name: "" if fold else getattr(options, name) for name in named}  # judged once
    files = {name: path and str(expand(path)) for name, path in given.items()}
    # Models in training and finished replays outlive a run that is interrupted, so they lie where results are left.
    replay = {
        "out": out,
        "replays": str(target.replays),
        "with_policies": options.with_simulator,
        "loop": str(target.loop),
        **{name: getattr(options, name) for name in (*REPLAY_OPTIONS, *LOOP_OPTIONS, "full")},
    }
    return {
        "01_data": {
            "out": out,
            "data": data,
            **asdict(config_of(options, split_seed=0, fold=fold)),
        },
        "02_train_robust": {
            "out": out,
            "epochs": options.epochs,
            "seeds": 1 if options.folds else options.seeds,
            "first_seed": fold,
            "hidden_dim": options.hidden_dim,
            "num_layers": options.num_layers,
            "num_levels": options.num_levels,
            "device": options.device,
            "naive_checkpoint": files.pop("naive_checkpoint"),
            "unfinished": str(target.unfinished),
        },
        "03_compare": {
            "out": out,
            "baseline_steps": options.baseline_steps,
            "full": options.full,
            "codecs": ",".join(options.codec),
            "trust_remote_code": options.trust_remote_code,
            "decided": decided,
        },
        "04_residual_analysis": {"out": out, "policy_steps": options.policy_steps, "full": options.full, **files},
        **({"05_policy_in_the_loop": replay} if options.with_replay else {}),
    }
