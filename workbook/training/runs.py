"""Trainings that leave files behind: a single one, and all of 02_train_robust with several seeds."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from rfsq_robust import (
    CONDITIONINGS,
    ActionRFSQAE,
    Checkpoint,
    CheckpointError,
    Conditioning,
    load_checkpoint,
    save_checkpoint,
)
from workbook.codecs.catalogue import CONDITIONED, Fitting, Network, Setting, Unit, catalogue
from workbook.codecs.chunk_transformers import MANNERS, ChunkTransformer
from workbook.codecs.klt_rfsq_file import FILE_NAME as KLT_FILE, load_klt_rfsq
from workbook.codecs.rfsq import RFSQCodec, load_codec, reconstruction_sha256
from workbook.common import parallel, provenance
from workbook.common.errors import InputError
from workbook.common.intervals import estimate_excess
from workbook.common.jobs import OnProgress, ProgressStep
from workbook.common.parallel import run_jobs
from workbook.common.paths import OutputFolder, expand, locked, replacing
from workbook.common.stages import read_optional
from workbook.data.card import concerns
from workbook.data.config import DataConfig
from workbook.data.dataset import Dataset, Prepared, prepare_dataset
from workbook.training.baselines import BaselineConfig, brought_codecs
from workbook.training.data import TrainData
from workbook.training.log import TrainingLog
from workbook.training.overhead import measure_step_seconds
from workbook.training.trainer import (
    SUFFIX,
    Job,
    OnEpoch,
    ResumeState,
    TrainConfig,
    TrainedModel,
    choose_device,
    identity,
    remove_resume_states,
    train,
    train_together,
)

# The names that Phase 2 and 3 look for; others go by their conditioning.
STEMS: dict[Conditioning, str] = {"none": "rfsq", "layernorm": "rfsq_robust"}

FOLDER_OPTION = "--models-dir"


@dataclass(frozen=True)
class TrainingRun:
    """data, data_config: as in `prepare_dataset`; folder: for all that is written; resume: go on from the last epoch
    that is there; stem: begins the names of the files, "" for the name that goes with the conditioning.
    """

    job: Job
    train_config: TrainConfig
    data: str = "sample"
    data_config: DataConfig = field(default_factory=DataConfig)
    device: str = "auto"
    folder: str = "."
    resume: bool = False
    stem: str = ""

    @property
    def name(self) -> str:
        return self.stem or STEMS.get(self.job.conditioning, f"rfsq_robust_{self.job.conditioning}")

    def file(self, ending: str) -> Path:
        return expand(self.folder) / f"{self.name}_{ending}"

    @property
    def checkpoint(self) -> Path:
        return self.file("best.pt")

    @property
    def resume_state(self) -> Path:
        return expand(self.folder) / f"{self.name}{SUFFIX}"


def run_training(
    run: TrainingRun,
    on_epoch: OnEpoch | None = None,
    on_begin: Callable[[int], None] | None = None,
    on_fetch: OnProgress | None = None,
) -> dict[str, Any]:
    """Train, and write the checkpoint, the state to go on from, and the logs.

    One thread on the CPU, for such small matrices are not quicker with more, and the weights are then the same to the
    last bit whatever else the machine does.

    on_begin: called with the epochs that were done before; on_epoch: as in `fit`; on_fetch: with the files done and in
    all, while data are fetched.

    Returns:
        What came of it, as plain values. Errors are MSE over the validation episodes, in normalised units squared.

    Raises:
        InputError: bad data or settings, a folder that cannot be written, another training that writes there, a state
            of another training, or divergence.
    """
    device = choose_device(run.device)
    OutputFolder.at(run.folder, FOLDER_OPTION)
    prepared = prepare_dataset(run.data, run.data_config, on_fetch)
    data = TrainData.of(prepared.dataset).to(device)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with locked(expand(run.folder) / f".{run.name}.lock"):
            trained = _train(run, data, on_epoch, on_begin)
            _save_outcome(run, prepared, trained)
        return _outcome(run, prepared, trained, device)
    finally:
        torch.set_num_threads(threads)


def _train(
    run: TrainingRun, data: TrainData, on_epoch: OnEpoch | None, on_begin: Callable[[int], None] | None
) -> TrainedModel:
    resume_state = ResumeState(run.resume_state, identity(run.train_config, run.job, data))
    resume_state.remove_halves()
    if not run.resume:
        resume_state.path.unlink(missing_ok=True)
    kept = resume_state.read(run.train_config.epochs)  # a state that does not fit is told before a log is begun
    if on_begin:
        on_begin(len(kept["curve"]) if kept else 0)
    with TrainingLog(run.file("log.csv"), expand(run.folder) / "tensorboard" / run.name) as log:

        def tell(epoch: int, mse: float) -> None:
            log.add(epoch, mse)
            if on_epoch:
                on_epoch(epoch, mse)

        return train(run.train_config, run.job, data, tell, resume_state)


def _save_outcome(run: TrainingRun, prepared: Prepared, trained: TrainedModel) -> None:
    normaliser = prepared.dataset.normaliser
    bounds = {"min": torch.from_numpy(normaliser.low), "max": torch.from_numpy(normaliser.high)}
    origin = {
        "seed": run.job.seed,
        "train_config": asdict(run.train_config),
        "data": prepared.origin.name,
        "data_config": asdict(run.data_config),
        "dataset_sha256": prepared.dataset.sha256,
        "normaliser": "of this data set",
        "limit": prepared.dataset.layout.limit.tolist(),
        "code": provenance.git_describe(),
        "torch": str(torch.__version__),
    }
    save_checkpoint(run.checkpoint, Checkpoint(trained.model, trained.epoch, trained.mse, bounds, origin))


def _outcome(run: TrainingRun, prepared: Prepared, trained: TrainedModel, device: str) -> dict[str, Any]:
    dataset = prepared.dataset
    codec = RFSQCodec(run.name, trained.model, dataset.normaliser)
    return {
        "conditioning": run.job.conditioning,
        "seed": run.job.seed,
        "device": device,
        "epochs": len(trained.curve),
        "best_epoch": trained.epoch,
        "validation_mse": trained.mse,
        "validation_mse_tokens": mse_from_tokens(codec, dataset),
        "curve": list(trained.curve),
        "seconds": trained.seconds,
        "file": run.checkpoint.name,
        "bytes": run.checkpoint.stat().st_size,
        "train_episodes": len(dataset.split.train),
        "validation_episodes": len(dataset.split.validation),
        "dataset_sha256": dataset.sha256,
        "concerns": concerns(prepared),
        "provenance": {name: said for name, said in provenance.collect().items() if name != "command"},
    }


def mse_from_tokens(codec: RFSQCodec, dataset: Dataset) -> float:
    """MSE of the validation episodes decoded from tokens alone; layernorm with mean 0 and std 1 assumed."""
    chunks = dataset.held_out_chunks("validation")
    error = (codec.decode(codec.encode(chunks.actions)) - chunks.actions) / dataset.normaliser.half_width
    return float((error[chunks.valid] ** 2).mean())


BEST_FILES: dict[Conditioning, str] = {
    "none": "rfsq_best.pt",
    "layernorm": "rfsq_robust_best.pt",
    "scale": "rfsq_robust_scale_best.pt",
}
RETRAINED_FILE = "rfsq_best_retrained_decoder.pt"  # naive's encoder with the decoder of option B
MOST_SEEDS = 1000
# Of work that a run of many trainings may lose; a file after every short epoch would cost 5 %.
RESUME_STATE_SECONDS = 5.0
MOST_STACKED = {"cpu": 16, "cuda": 256}  # models; those of 16 a CPU finds in its cache, those of 256 take 1 GB


def check_seeds(seeds: int) -> None:
    """Raises InputError where there would be no model, or no end of them."""
    if not 1 <= seeds <= MOST_SEEDS:
        raise InputError(f"seeds is {seeds}; give 1 to {MOST_SEEDS}")


def check_naive_checkpoint(path: str, config: TrainConfig, action_dim: int) -> Checkpoint:
    """Load the user's own naive model.

    Raises:
        InputError: it is no checkpoint, not naive, or of other sizes than the models that it is compared with.
    """
    try:
        checkpoint = load_checkpoint(expand(path))
    except CheckpointError as error:
        raise InputError(str(error)) from None
    model = checkpoint.model
    if model.conditioning != "none":
        raise InputError(f"{path}: is a '{model.conditioning}' model; give a naive one, with use_layernorm=False")
    wanted = {
        "action_dim": action_dim,
        "hidden_dim": config.hidden_dim,
        "num_layers": config.num_layers,
        "num_levels": config.num_levels,
    }
    for name, size in wanted.items():
        if model.config[name] != size:
            fix = "give it data of that width" if name == "action_dim" else f"set {name} to match"
            raise InputError(
                f"{path}: has {name} {model.config[name]} where the others have {size}; "
                f"models of equal size are compared, so {fix}"
            )
    return checkpoint


def naive_settings(path: str) -> dict[str, Any]:
    """Which naive checkpoint is given, as the settings of 02_train_robust hold it; "" is none."""
    file = expand(path)
    if not path or not file.is_file():
        return {"naive_checkpoint": None}
    return {"naive_checkpoint": file.name, "naive_sha256": provenance.sha256_of(file)}


def train_variants(
    out: OutputFolder,
    dataset: Dataset,
    config: TrainConfig,
    seeds: int,
    device: str = "auto",
    naive_checkpoint: str = "",
    on_progress: OnProgress | None = None,
    unfinished: str = "",
    first_seed: int = 0,
) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
    """Train every conditioning with so many seeds from the first on, save their checkpoints, and time a step of each.

    naive_checkpoint: a file that takes the place of the trained naive models; "" trains them.
    unfinished: folder where a call that is cut off leaves its models in training, for the next to go on; "" is one in
    `out`.

    Returns:
        The content of the training stage, and its table `training`: codec, seed, epoch | validation_mse.

    Raises:
        InputError: no seeds, an unknown device, or an unusable naive checkpoint.
    """
    check_seeds(seeds)
    chosen = choose_device(device)
    given = check_naive_checkpoint(naive_checkpoint, config, dataset.layout.dim) if naive_checkpoint else None
    if given and expand(naive_checkpoint).resolve().is_relative_to(out.checkpoints.resolve()):
        raise InputError(f"{naive_checkpoint}: lies where this run writes its own checkpoints; copy it elsewhere")
    out.seeds.mkdir(parents=True, exist_ok=True)
    _remove_old_checkpoints(out)
    data = TrainData.of(dataset)
    wanted = [name for name in CONDITIONINGS if not (given and name == "none")]
    jobs = [Job(name, seed) for seed in range(first_seed, first_seed + seeds) for name in wanted]
    in_training = expand(unfinished) if unfinished else out.unfinished
    resumed = any(in_training.glob(f"*{SUFFIX}"))
    started = time.perf_counter()
    trained = train_all(config, jobs, data, chosen, on_progress, in_training)
    total_seconds = time.perf_counter() - started
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in CONDITIONINGS}
    if given:
        runs["none"].append(_save_given(out, dataset, given, naive_checkpoint))
    for model in trained:
        runs[model.job.conditioning].append(_save_trained(out, dataset, config, model))
    remove_resume_states(in_training)
    steps = measure_step_seconds(config, CONDITIONINGS, data.to(chosen))
    values = {
        "config": asdict(config),
        "device": chosen,
        "naive_checkpoint": Path(naive_checkpoint).name if given else None,
        "naive_normaliser_assumed": given is not None and given.normalization is None,
        "total_seconds": total_seconds,
        "resumed": resumed,
        "conditionings": {
            name: {"runs": runs[name], "overhead": estimate_excess(steps[name], steps["none"]).as_json()}
            for name in CONDITIONINGS
        },
        "best": {name: _copy_best(out, runs[name], file) for name, file in BEST_FILES.items()},
    }
    return values, {"training": _curves(trained)}


def _curves(trained: Sequence[TrainedModel]) -> pd.DataFrame:
    """Validation MSE of every epoch, models in the order of conditionings."""
    in_order = sorted(trained, key=lambda model: (CONDITIONINGS.index(model.job.conditioning), model.job.seed))
    rows = [
        (CONDITIONED[model.job.conditioning], model.job.seed, epoch, mse)
        for model in in_order
        for epoch, mse in enumerate(model.curve, start=1)
    ]
    return pd.DataFrame(rows, columns=["codec", "seed", "epoch", "validation_mse"])


def load_rfsq(out: OutputFolder, training: dict[str, Any], dataset: Dataset) -> dict[Conditioning, list[RFSQCodec]]:
    """Conditioning -> one codec a seed, from the checkpoint files that 02_train_robust wrote."""
    try:
        return {
            name: [load_codec(out.checkpoints / run["file"], dataset.normaliser) for run in entry["runs"]]
            for name, entry in training["conditionings"].items()
        }
    except CheckpointError as error:
        raise InputError(f"{error}; run 02_train_robust again") from None


def retrained_name(position: int) -> str:
    """File of the naive model at a position with its retrained decoder, in the folder of seeds."""
    return f"none_seed{position}_retrained.pt"


def save_transformers(out: OutputFolder, networks: Mapping[Network, Sequence[nn.Module]]) -> None:
    """Of the networks of 03_compare those that later notebooks use."""
    for network, models in networks.items():
        if network.quantizer in MANNERS:
            with replacing(_transformer_file(out, network)) as temporary:
                torch.save([model.state_dict() for model in models], temporary)


def load_transformers(out: OutputFolder, dataset: Dataset, full: bool) -> dict[Network, list[nn.Module]]:
    """What `save_transformers` wrote.

    Raises:
        InputError: a file is not there, as in a folder of an older version, or is damaged.
    """
    wanted = [network for entry in catalogue().values() for network in entry.networks(full)]
    found: dict[Network, list[nn.Module]] = {}
    for manner in MANNERS:
        for network in (each for each in wanted if each.quantizer == manner):
            path = _transformer_file(out, network)
            try:
                states = torch.load(path, map_location="cpu", weights_only=True)
                size = dataset.chunk_len, dataset.layout.dim, network.steps_a_token
                found[network] = [ChunkTransformer(manner, *size).eval() for _ in states]
                for model, state in zip(found[network], states, strict=True):
                    model.load_state_dict(state)
            except FileNotFoundError:
                raise InputError(f"{path}: is not there; run 03_compare again") from None
            except Exception:  # a damaged file can raise nearly anything
                raise InputError(f"{path}: is damaged; run 03_compare again") from None
    return found


def _transformer_file(out: OutputFolder, network: Network) -> Path:
    return out.seeds / f"{network.quantizer}_{network.steps_a_token}.pt"


def load_fitting(out: OutputFolder, training: dict[str, Any], dataset: Dataset, full: bool = False) -> Fitting:
    """What codecs are made from, of a finished 03_compare; of the networks that were trained there, transformers."""
    compared = read_optional(out, "comparison")
    if compared and "folds" in compared["content"]:
        raise InputError(f"{out.root}: its models are those of one fold of several; run ./run_all.sh without --folds")
    config = BaselineConfig(**compared["parameters"]) if compared else BaselineConfig()
    rfsq = load_rfsq(out, training, dataset)
    files = [out.seeds / retrained_name(position) for position in range(len(rfsq["none"]))]
    decoders: dict[Unit, list[ActionRFSQAE]] = {"step": [load_codec(file, dataset.normaliser).model for file in files]}
    klt_rfsq = load_klt_rfsq(out.checkpoints / KLT_FILE)
    networks = load_transformers(out, dataset, config.full)
    brought, given = brought_codecs(dataset, config), Setting.parse(config.decided)
    return Fitting(dataset, rfsq, networks, decoders, klt_rfsq, brought, full=full, decided=given)


def train_all(
    config: TrainConfig,
    jobs: Sequence[Job],
    data: TrainData,
    device: str = "cpu",
    on_progress: OnProgress | None = None,
    unfinished: Path | None = None,
) -> list[TrainedModel]:
    """Train every job, in stacks: one process a core on the CPU, on CUDA in this one. Results are in the order of jobs.

    on_progress is called with the epochs done and the epochs in all, of every model. unfinished: a folder for the
    resume states of stacks in training, from which a second call goes on where the first was cut off.
    """
    positions = stacks_of(jobs, MOST_STACKED[device], 1 if device == "cuda" else parallel.available_cores())
    stacks = [[jobs[position] for position in stack] for stack in positions]
    total = config.epochs * len(jobs)
    shared = (config, data.to(device), unfinished)

    def tell(done: int, _: int) -> None:
        if on_progress:
            on_progress(done, total)

    trained = run_jobs(_train_stack, shared, stacks, config.epochs, tell, in_turn=device == "cuda")
    in_order = dict(zip(chain(*positions), chain(*trained), strict=True))
    return [in_order[position] for position in range(len(jobs))]


def stacks_of(jobs: Sequence[Job], most: int, cores: int) -> list[list[int]]:
    """Positions of the jobs of each stack, of so many at most: as many stacks for each core, of few conditionings."""
    names = list(dict.fromkeys(job.conditioning for job in jobs))
    in_order = sorted(range(len(jobs)), key=lambda position: names.index(jobs[position].conditioning))
    count = min(len(jobs), cores * -(-len(jobs) // (cores * most)))
    cuts = [len(jobs) * number // count for number in range(count + 1)]
    return [in_order[start:end] for start, end in pairwise(cuts)]


def _train_stack(
    shared: tuple[TrainConfig, TrainData, Path | None], jobs: Sequence[Job], progress_step: ProgressStep
) -> list[TrainedModel]:
    config, data, folder = shared
    resume_state = None
    if folder:
        names = [f"{job.conditioning} {job.seed}" for job in jobs]
        of = identity(config, jobs[0], data) | {"epochs": config.epochs, "stack": names}
        resume_state = ResumeState.within(folder, f"{jobs[0].conditioning}_{len(jobs)}", of, RESUME_STATE_SECONDS)

    def tell(epoch: int, mses: list[float]) -> None:
        for _ in mses:
            progress_step()

    return train_together(config, jobs, data, tell, resume_state)


def _remove_old_checkpoints(out: OutputFolder) -> None:
    """Checkpoints of an earlier run would pass for this one's."""
    (out.checkpoints / KLT_FILE).unlink(missing_ok=True)
    for path in [*out.seeds.glob("*.pt"), *(out.checkpoints / file for file in (*BEST_FILES.values(), RETRAINED_FILE))]:
        path.unlink(missing_ok=True)


def _save_trained(out: OutputFolder, dataset: Dataset, config: TrainConfig, trained: TrainedModel) -> dict[str, Any]:
    job = trained.job
    path = out.seeds / f"{job.conditioning}_seed{job.seed}.pt"
    origin = {"seed": job.seed, "train_config": asdict(config)}
    _save(path, dataset, Checkpoint(trained.model, trained.epoch, trained.mse, None, origin))
    return {
        "seed": job.seed,
        "epoch": trained.epoch,
        "mse": trained.mse,
        "seconds": trained.seconds,
    } | _describe_file(out, path, dataset, trained.model)


def _save_given(out: OutputFolder, dataset: Dataset, given: Checkpoint, file: str) -> dict[str, Any]:
    path = out.seeds / "none_given.pt"
    origin = {"given": Path(file).name, "given_sha256": provenance.sha256_of(expand(file))}
    _save(path, dataset, Checkpoint(given.model, given.epoch, given.mse, given.normalization, origin))
    unknown: dict[str, Any] = {"seed": None, "epoch": given.epoch, "mse": given.mse, "seconds": None}
    return unknown | _describe_file(out, path, dataset, given.model)


def _save(path: Path, dataset: Dataset, checkpoint: Checkpoint) -> None:
    """Save with where it comes from, and with this data set's normaliser where the checkpoint carries none."""
    bounds = checkpoint.normalization or {
        "min": torch.from_numpy(dataset.normaliser.low),
        "max": torch.from_numpy(dataset.normaliser.high),
    }
    origin = checkpoint.provenance | {
        "normaliser": "of this data set" if checkpoint.normalization is None else "of the checkpoint",
        "limit": dataset.layout.limit.tolist(),
        "dataset_sha256": dataset.sha256,
        "code": provenance.git_describe(),
        "torch": str(torch.__version__),
    }
    save_checkpoint(path, Checkpoint(checkpoint.model, checkpoint.epoch, checkpoint.mse, bounds, origin))


def _describe_file(out: OutputFolder, path: Path, dataset: Dataset, model: ActionRFSQAE) -> dict[str, Any]:
    """Name, size, and what the model in memory decodes, for 03_compare to hold the file against."""
    file = str(path.relative_to(out.checkpoints))
    normaliser = load_codec(path, dataset.normaliser).normaliser
    in_memory = RFSQCodec("", model, normaliser)
    digest = reconstruction_sha256(in_memory, dataset.held_out_chunks("test"))
    return {"file": file, "bytes": path.stat().st_size, "reconstruction_sha256": digest}


def _copy_best(out: OutputFolder, runs: Sequence[dict[str, Any]], file: str) -> dict[str, Any]:
    """The seed with the least validation MSE, under the name that Phase 2 and 3 look for."""
    best = min(runs, key=lambda run: run["mse"] if run["mse"] is not None else 0.0)
    shutil.copyfile(out.checkpoints / best["file"], out.checkpoints / file)
    return {"file": file, "seed": best["seed"], "validation_mse": best["mse"], "bytes": best["bytes"]}
