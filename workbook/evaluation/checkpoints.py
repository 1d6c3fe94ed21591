"""Two checkpoints, naive and robust, on held-out chunks: the work of test_layernorm_improvement.py.

The guide measures the forward pass. With LayerNorm that pass knows the mean and std of every vector, which tokens do
not hold, so figures stand here twice: from forward, and from tokens alone, which is what a policy or a robot gets.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rfsq_robust import Checkpoint, CheckpointError, load_checkpoint
from workbook.codecs.rfsq import DEAD_BELOW_BITS, RFSQCodec, load_codec
from workbook.common import targets, terminal
from workbook.common.errors import InputError
from workbook.common.intervals import estimate_improvement
from workbook.common.note import Note, note
from workbook.common.paths import expand
from workbook.data.card import concerns
from workbook.data.chunks import Chunks, Normaliser, join_chunks
from workbook.data.config import DataConfig
from workbook.data.dataset import Dataset, Prepared, prepare_dataset
from workbook.data.layout import ActionLayout
from workbook.evaluation.layers import of_codec
from workbook.evaluation.score import ENCODER, HeldOut, estimate_of, score, values_of

Values = dict[str, Any]
Ways = dict[str, pd.DataFrame]  # way of decoding -> rows

# Errors that make sense of chunks drawn here and there; those that build up along an episode do not.
ERRORS = ("position_mm", "rotation_deg", "joint_length", "gripper_abs", "gripper_error_rate", "max_abs")
OF_NO_MATTER = ("chunk_len", "stride")  # to which episodes are held out
WHICH_HELD_OUT = ("split_seed", "folds", "fold")  # of the same actions
SAMPLING_SEED = 0


@dataclass(frozen=True)
class ComparisonConfig:
    """The two files, at most how many chunks, and the data; what is None is taken from the checkpoints."""

    naive_model: str
    robust_model: str
    num_samples: int = 1000
    chunk_len: int | None = None
    data: str | None = None
    num_episodes: int | None = None
    split_seed: int | None = None
    folds: int | None = None
    fold: int | None = None
    layout: str | None = None
    gripper_open: str | None = None
    drop_noops: bool | None = None
    action_column: str | None = None
    only_successful: bool | None = None
    outliers: str | None = None
    max_left_out: float | None = None

    def __post_init__(self) -> None:
        if self.num_samples < 1:
            raise InputError(f"num_samples is {self.num_samples}; give at least 1")

    @property
    def data_options(self) -> dict[str, Any]:
        """Those of DataConfig that are given."""
        names = {field.name for field in fields(DataConfig)}
        return {name: value for name, value in vars(self).items() if name in names and value is not None}


@dataclass(frozen=True, eq=False)
class GivenModel:
    """A checkpoint under the name that the user gave it."""

    file: str
    checkpoint: Checkpoint

    @property
    def trained_on(self) -> tuple[str, DataConfig] | None:
        """Data and how they were read, as the file says it; None where it does not, or not so that it is understood."""
        said = self.checkpoint.provenance
        data, config, known = said.get("data"), said.get("data_config"), asdict(DataConfig())
        if not isinstance(data, str) or not isinstance(config, dict) or not set(config) <= set(known):
            return None
        if any(type(value) is not type(known[name]) for name, value in config.items()):
            return None
        return data, DataConfig(**config)


def check_json_file(file: str, config: ComparisonConfig) -> Path:
    """Where to write the figures; meets a file that cannot be written before the work, not after it.

    Raises:
        InputError: it lies in no folder that can be written to, is one itself, or is one of the two checkpoints.
    """
    path = expand(file)
    if path.is_dir() or not os.access(path.parent, os.W_OK) or not path.parent.is_dir():
        raise InputError(
            f"{file}: cannot be written, for it is a folder or lies in none that can be written to; name another file "
            "with --json"
        )
    if path.resolve() in {expand(model).resolve() for model in (config.naive_model, config.robust_model)}:
        raise InputError(f"{file}: is a checkpoint, which the figures would replace; name another file with --json")
    return path


def compare_checkpoints(config: ComparisonConfig) -> Values:
    """All figures: 'scored', 'models' (naive, robust), 'improvement', 'verdict', 'targets', and notes as 'remarks'.

    'concerns': what the data card says of the data that one should know before trusting the figures.

    Errors are in the units of the data set's normaliser for both models, each of which uses its own.

    Raises:
        InputError: a file that is no checkpoint, or not of its kind or width, or data that cannot be used.
    """
    naive, robust = load_pair(config)
    data, data_config = _settle(config, (robust, naive))
    layout = data_config.check()
    for given in (naive, robust):
        _check_width(given, layout)
    prepared = _prepare(config, data, data_config, (robust, naive))
    dataset = prepared.dataset
    whole = HeldOut.of(dataset)
    test = draw(whole, config.num_samples)
    pair = {"naive": naive, "robust": robust}
    codecs = {role: load_codec(expand(given.file), dataset.normaliser) for role, given in pair.items()}
    ways = {role: _score(codec, test) for role, codec in codecs.items()}
    mse = {role: {way: estimate_of(rows, "mse").as_json() for way, rows in ways[role].items()} for role in codecs}
    # Naive has no statistics to send: its tokens are all that it sends.
    pairs = {way: (ways["naive"].get(way, ways["naive"]["tokens"]), rows) for way, rows in ways["robust"].items()}
    improvement = {way: _improvement(*pair) for way, pair in pairs.items()}
    return {
        "scored": _scored(config, prepared, data_config, whole, test),
        "models": {
            role: {
                "file": given.file,
                **given.checkpoint.model.config,
                "mse": mse[role],
                **_figures(codecs[role], test, ways[role]),
            }
            for role, given in pair.items()
        },
        "improvement": improvement,
        "verdict": {
            "mse": {way: targets.LOW_MSE.judge(estimate) for way, estimate in mse["robust"].items()},
            "improvement": {way: targets.IMPROVES.judge(estimate) for way, estimate in improvement.items()},
        },
        "targets": {"mse_below": targets.MSE_BELOW, "improvement_above": targets.IMPROVEMENT_ABOVE},
        "concerns": concerns(prepared),
        "remarks": [
            *_doubts((naive, robust), data, data_config, dataset),
            *_normaliser_remarks((naive, robust), dataset.normaliser),
            *_size_remarks(naive, robust),
        ],
    }


def load_pair(config: ComparisonConfig) -> tuple[GivenModel, GivenModel]:
    """The naive and the robust model.

    Raises:
        InputError: a file is no checkpoint, or not of its kind.
    """
    naive, robust = (GivenModel(file, _load(file)) for file in (config.naive_model, config.robust_model))
    if naive.checkpoint.model.conditioning != "none":
        kind = naive.checkpoint.model.conditioning
        raise InputError(f"{naive.file}: is a '{kind}' model; give --naive-model a naive one, with use_layernorm=False")
    if robust.checkpoint.model.conditioning == "none":
        raise InputError(
            f"{robust.file}: is a naive model, for its config names no conditioning and no use_layernorm=True; give "
            "--robust-model a robust one, saved with its config"
        )
    return naive, robust


def _load(file: str) -> Checkpoint:
    try:
        return load_checkpoint(expand(file))
    except CheckpointError as error:
        raise InputError(str(error)) from None


def _check_width(given: GivenModel, layout: ActionLayout) -> None:
    width = given.checkpoint.model.action_dim
    if width != layout.dim:
        raise InputError(
            f"{given.file}: has action_dim {width} where layout '{layout.spec}' has {layout.dim}; "
            "name the data that it was trained on with --data, and their layout with --layout"
        )


def _settle(config: ComparisonConfig, pair: Sequence[GivenModel]) -> tuple[str, DataConfig]:
    """Which data, read how: as given, else as the first that says it was trained on, else as by default."""
    said = (given.trained_on for given in pair)
    data, found = next((trained for trained in said if trained), ("sample", DataConfig()))
    settled = replace(found, **config.data_options)
    return data if config.data is None else config.data, replace(settled, stride=settled.chunk_len)


def _prepare(config: ComparisonConfig, data: str, data_config: DataConfig, pair: Sequence[GivenModel]) -> Prepared:
    try:
        with terminal.fetching() as on_progress:
            return prepare_dataset(data, data_config, on_progress)
    except InputError as error:
        if config.data is not None:
            raise
        source = next((given.file for given in pair if given.trained_on), None)
        named = f"; {source} names these as its data, and --data names others" if source else ""
        raise InputError(f"{error}{named}") from None


def draw(whole: HeldOut, count: int) -> HeldOut:
    """At most `count` of the chunks, drawn without replacement and kept in order, as parts of their episodes."""
    total = len(whole.chunks.episode)
    kept = np.arange(total)
    if count < total:
        kept = np.sort(np.random.default_rng(SAMPLING_SEED).choice(total, count, replace=False))
    left, owner = np.unique(whole.chunks.episode[kept], return_inverse=True)  # episodes without a chunk go
    chunks = Chunks(whole.chunks.actions[kept], whole.chunks.valid[kept], owner)
    parts = zip(left, join_chunks(chunks, chunks.actions), strict=True)
    return replace(whole, chunks=chunks, episodes=[replace(whole.episodes[at], actions=part) for at, part in parts])


def _scored(
    config: ComparisonConfig, prepared: Prepared, data_config: DataConfig, whole: HeldOut, test: HeldOut
) -> Values:
    return {
        "data": prepared.origin.name,
        "data_config": asdict(data_config),
        "dataset_sha256": prepared.dataset.sha256,
        "asked": config.num_samples,
        "chunks": len(test.chunks.episode),
        "of_chunks": len(whole.chunks.episode),
        "episodes": len(test.episodes),
        "of_episodes": len(whole.episodes),
        "steps": int(test.chunks.valid.sum()),
    }


def _score(codec: RFSQCodec, test: HeldOut) -> Ways:
    """Rows of each way of decoding that there is for this model."""
    ways = {"forward": score(codec, test, ENCODER), "tokens": score(codec, test)}
    if codec.model.conditioning == "layernorm":
        ways["statistics_sent"] = score(replace(codec, statistics="sent"), test)
    return ways


def _improvement(naive: pd.DataFrame, robust: pd.DataFrame) -> Values:
    (baseline, weights), (candidate, _) = (values_of(rows, "mse") for rows in (naive, robust))
    return estimate_improvement(baseline, candidate, weights).as_json()


def _figures(codec: RFSQCodec, test: HeldOut, ways: Ways) -> Values:
    """Bits; 'coarse', the error of L0-L2; 'fine', what L3-L7 get and are worth; errors from tokens alone.

    Where the model has no such layers, coarse or fine are None.
    """
    layers, coarse, count = codec.model.rfsq.num_layers, None, targets.COARSE_LAYERS
    prefix = [
        estimate_of(score(replace(codec, statistics="sent", layers=k), test), "mse").as_json()
        for k in range(1, layers + 1)
    ]
    if layers >= count:
        alone = score(replace(codec, layers=count), test)
        coarse = {"with_statistics": prefix[count - 1], "tokens": estimate_of(alone, "mse").as_json()}
    return {
        "bits_per_chunk": {way: float(rows.bits.iloc[0]) for way, rows in ways.items() if way != "forward"},
        "coarse": coarse,
        "fine": _fine_figures(of_codec(codec, test), prefix),
        "errors": {name: estimate_of(ways["tokens"], name).as_json() for name in ERRORS},
    }


def _fine_figures(rows: pd.DataFrame, prefix: Sequence[Values]) -> Values | None:
    layers = [k for k in targets.FINE_LAYERS if k < len(prefix)]
    if not layers:
        return None
    before, after = prefix[layers[0] - 1], prefix[layers[-1]]
    return {
        "layers": layers,
        "residual_std": [float(rows.residual_std[k]) for k in layers],
        "mse_before": before,
        "mse_after": after,
        "mse_taken_away": before["mean"] - after["mean"],
        "constant_layers": [k for k in layers if rows.entropy_bits[k] < DEAD_BELOW_BITS],
    }


def _doubts(pair: Sequence[GivenModel], data: str, config: DataConfig, dataset: Dataset) -> list[Note]:
    doubts = [_doubt(given, data, config, dataset.sha256) for given in pair]
    return [doubt for doubt in doubts if doubt] or [note("held_out")]


def _doubt(given: GivenModel, data: str, config: DataConfig, sha256: str) -> Note | None:
    """Why the episodes scored may not be held out for a model; None where its file says that they are."""
    file, seed, theirs = given.file, config.split_seed, given.checkpoint.provenance.get("dataset_sha256")
    if theirs is not None and theirs != sha256:
        return note("other_actions", file=file, theirs=str(theirs), ours=sha256)
    if given.trained_on is None:
        if theirs is None:
            return note("data_not_said", file=file, data=data, seed=seed)
        return note("split_not_said", file=file, seed=seed)
    known = asdict(given.trained_on[1]) | {"data": given.trained_on[0]}
    ours = asdict(config) | {"data": data}
    # The same actions are the same whatever they are called; which of them were held out is then the split's matter.
    names = tuple(name for name in ours if name not in OF_NO_MATTER) if theirs is None else WHICH_HELD_OUT
    differing = {name: [known[name], ours[name]] for name in names if known[name] != ours[name]}
    return note("trained_otherwise", file=file, differing=differing) if differing else None


def _normaliser_remarks(pair: Sequence[GivenModel], normaliser: Normaliser) -> list[Note]:
    remarks = []
    for given in pair:
        bounds = given.checkpoint.normalization
        if bounds is None:
            remarks.append(note("no_normaliser", file=given.file))
        elif not all(
            np.allclose(bounds[name].double().numpy(), ours, rtol=1e-6, atol=1e-9)
            for name, ours in (("min", normaliser.low), ("max", normaliser.high))
        ):
            remarks.append(note("other_normaliser", file=given.file))
    return remarks


def _size_remarks(naive: GivenModel, robust: GivenModel) -> list[Note]:
    ours, theirs = (given.checkpoint.model.config for given in (naive, robust))
    names = ("hidden_dim", "num_layers", "num_levels")
    sizes = {name: [ours[name], theirs[name]] for name in names if ours[name] != theirs[name]}
    return [note("unequal_sizes", sizes=sizes)] if sizes else []
