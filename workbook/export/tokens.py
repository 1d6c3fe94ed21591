"""The tokens of a whole data set as files to train Phase 2 on: `python -m workbook.export.tokens --help`.

E episodes of at most N chunks of C steps, H latents and K layers. `tokens.h5` can be read without the workbook, an
episode at a time:

    codes                (E, N, C, H, K) the smallest signed integers that fit; -1 after the last chunk of an episode
    draft_codes          (E, N, C, H, 3) the layers L0-L2 of them, which a draft model predicts; fewer where K is less
    valid                (E, N, C) False where the tail of a chunk repeats the last action, and after the last chunk
    num_chunks           (E,)
    episodes/            task, source, key, session, split (train, validation or test) and steps, (E,) each
    model/               the weights, by their names in the state dict of `rfsq_robust.ActionRFSQAE`
    normaliser/low, high (A,) in controller units
    limit                (A,) to which decoded actions are clipped; infinite where they are not

and, as attributes, where the tokens come from and how they decode. `tokens.parquet` holds the same codes, a row for
each chunk, and the attributes, the normaliser and the limit as JSON under `rfsq_tokens` in the metadata of its schema.

The parts of the split are those of the training where the data, `num_episodes` and the seed of the split are the same,
for episodes in the same order, of the same sessions and tasks, are split alike by the same seed. Of other data the
codec may have been trained on what is called test here; `trained_on_these_data` says whether they are the same.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from rfsq_robust import Checkpoint, CheckpointError, load_checkpoint
from workbook.codecs.protocol import NOT_SENT
from workbook.codecs.rfsq import normaliser_of
from workbook.common import provenance, terminal
from workbook.common.errors import InputError
from workbook.common.paths import OutputFolder, expand, replacing
from workbook.common.targets import COARSE_LAYERS
from workbook.data.chunks import cut_chunks
from workbook.data.config import DataConfig, add_options, config_of
from workbook.data.dataset import LABELS, Dataset, Prepared, prepare_dataset
from workbook.data.layout import ActionLayout
from workbook.data.sources import DATA_KINDS

HDF5_FILE, PARQUET_FILE = "tokens.h5", "tokens.parquet"
METADATA_KEY = "rfsq_tokens"
ROW_GROUP = 4096  # chunks that a reader of the parquet file gets at once
IDS = (
    "id = layer * num_levels + code, layers from 0; lists of codes are flattened in row-major order from (steps of the "
    "chunk, latents, layers)"
)
DECODING = (
    "with rfsq_robust.py: Checkpoint(model, normalization={'min': low, 'max': high}).denormalise("
    "model.decode_from_indices(codes)).clamp(-limit, limit); the first layers alone decode too, coarser"
)
OnProgress = Callable[[int, int], None]
# Of an episode: codes (n, C, H, K) of its n chunks, and valid (n, C), False where a tail was padded.
EpisodeTokens = tuple[NDArray[np.signedinteger], NDArray[np.bool_]]


@dataclass(frozen=True)
class TokenFiles:
    """What was written; facts: the attributes of the files."""

    hdf5: Path
    parquet: Path
    chunks: int
    steps: int
    facts: dict[str, Any]


def export_tokens(
    checkpoint_path: str | Path,
    out: str | Path,
    data: str | Path = "sample",
    config: DataConfig | None = None,
    on_progress: OnProgress | None = None,
    on_fetch: OnProgress | None = None,
) -> TokenFiles:
    """Encode every episode and write both files into the folder `out`, whole or not at all.

    The codes are those of `model.encode` after the checkpoint's own normaliser, or the data set's where it carries
    none, which the files say. Chunks cover every step once; `config.stride` is not looked at.

    on_progress: called with episodes done and episodes in all; on_fetch: with files, while something is fetched.

    Raises:
        InputError: an unusable checkpoint, one whose tokens do not decode, actions of another width, bad data, or a
            folder that cannot be written.
    """
    path = expand(str(checkpoint_path))
    config = config or DataConfig()
    config = replace(config, stride=config.chunk_len)
    layout = config.check()
    checkpoint = load_decodable(path, layout)
    prepared = prepare_dataset(data, config, on_fetch)
    dataset = prepared.dataset
    facts = describe_checkpoint(path, checkpoint) | _describe_data(prepared, config, checkpoint)
    checkpoint = _with_normaliser(checkpoint, dataset)
    folder = OutputFolder.at(str(out)).root
    tokens = _encode_all(checkpoint, dataset, on_progress)
    hdf5, parquet = folder / HDF5_FILE, folder / PARQUET_FILE
    with replacing(hdf5) as h5_file, replacing(parquet) as parquet_file:
        _write_hdf5(h5_file, checkpoint, dataset, tokens, facts)
        _write_parquet(parquet_file, checkpoint, dataset, tokens, facts)
    steps = sum(len(episode.actions) for episode in dataset.episodes)
    return TokenFiles(hdf5, parquet, sum(len(codes) for codes, _ in tokens), steps, facts)


def load_decodable(path: Path, layout: ActionLayout) -> Checkpoint:
    """A checkpoint whose codes alone decode to actions of this layout.

    Raises:
        InputError: no checkpoint, a `layernorm` model, or one of another action width.
    """
    try:
        checkpoint = load_checkpoint(path)
    except CheckpointError as error:
        raise InputError(str(error)) from None
    model = checkpoint.model
    if model.conditioning == "layernorm":
        raise InputError(
            f"{path}: is a 'layernorm' model, whose tokens do not decode without the mean and std of each vector; "
            "give one of conditioning 'scale', such as rfsq_robust_scale_best.pt"
        )
    if model.action_dim != layout.dim:
        raise InputError(
            f"{path}: codes actions of {model.action_dim} numbers, and those of the layout '{layout.spec}' have "
            f"{layout.dim}; give the layout that it was trained with, for example --layout joint:{model.action_dim}"
        )
    return checkpoint


def describe_checkpoint(path: Path, checkpoint: Checkpoint) -> dict[str, Any]:
    """What a codec is and where it comes from."""
    return {
        "conditioning": checkpoint.model.conditioning,
        "config": checkpoint.model.config,
        "checkpoint": path.name,
        "checkpoint_sha256": provenance.sha256_of(path),
        "code": provenance.git_describe(),
    }


def _describe_data(prepared: Prepared, config: DataConfig, checkpoint: Checkpoint) -> dict[str, Any]:
    dataset, sha256, changes = prepared.dataset, prepared.dataset.sha256, prepared.changes
    trained_on = checkpoint.provenance.get("dataset_sha256")
    return {
        "data": prepared.origin.name,
        "data_sha256": sha256,
        "data_config": asdict(config),
        "layout": dataset.layout.spec,
        "chunk_len": config.chunk_len,
        "split_seed": config.split_seed,
        "left_out": dict(Counter([*(one.why for one in changes.left_out), *("copy" for _ in changes.copies)])),
        "split": {name: len(positions) for name, positions in dataset.split.parts().items()},
        "trained_on_these_data": "not known" if trained_on is None else "yes" if trained_on == sha256 else "no",
        "normaliser": "of this data set" if checkpoint.normalization is None else "of the checkpoint",
        "draft_layers": min(COARSE_LAYERS, checkpoint.model.rfsq.num_layers),
        "ids": IDS,
        "decoding": DECODING,
    }


def _with_normaliser(checkpoint: Checkpoint, dataset: Dataset) -> Checkpoint:
    if checkpoint.normalization is not None:
        return checkpoint
    low, high = (torch.from_numpy(bound) for bound in (dataset.normaliser.low, dataset.normaliser.high))
    return replace(checkpoint, normalization={"min": low, "max": high})


def _encode_all(checkpoint: Checkpoint, dataset: Dataset, on_progress: OnProgress | None) -> list[EpisodeTokens]:
    """One episode after the other; only their codes, a byte each, are held together."""
    smallest = np.min_scalar_type(-checkpoint.model.rfsq.num_levels)
    tokens = []
    for done, episode in enumerate(dataset.episodes, start=1):
        chunks = cut_chunks([episode.actions], dataset.chunk_len, dataset.chunk_len)
        codes = checkpoint.model.encode(checkpoint.normalise(torch.from_numpy(chunks.actions)))
        tokens.append((codes.numpy().astype(smallest), chunks.valid))
        if on_progress:
            on_progress(done, len(dataset.episodes))
    return tokens


def _write_hdf5(
    path: Path, checkpoint: Checkpoint, dataset: Dataset, tokens: Sequence[EpisodeTokens], facts: dict[str, Any]
) -> None:
    normaliser = normaliser_of(checkpoint)
    with h5py.File(path, "w", locking=False) as file:  # nobody opens it before it is whole
        for name, value in facts.items():
            file.attrs[name] = json.dumps(value) if isinstance(value, dict) else value
        _write_padded(file, "codes", [codes for codes, _ in tokens], NOT_SENT)
        _write_padded(file, "draft_codes", [codes[..., : facts["draft_layers"]] for codes, _ in tokens], NOT_SENT)
        _write_padded(file, "valid", [valid for _, valid in tokens], False)
        file["num_chunks"] = np.array([len(codes) for codes, _ in tokens], dtype=np.int32)
        file["episodes/steps"] = np.array([valid.sum() for _, valid in tokens], dtype=np.int32)
        for name, texts in _labels(dataset).items():
            file.create_dataset(f"episodes/{name}", data=texts, dtype=h5py.string_dtype())
        for name, weights in checkpoint.model.state_dict().items():
            file[f"model/{name}"] = weights.numpy()
        file["normaliser/low"], file["normaliser/high"] = normaliser.low, normaliser.high
        file["limit"] = dataset.layout.limit.astype(np.float32)  # as decoded actions are


def _write_padded(file: h5py.File, name: str, rows: Sequence[NDArray[Any]], padding: int) -> None:
    """Rows (n, ...) of differing n as one array (E, N, ...), of which an episode is read without its neighbours."""
    shape = (max(map(len, rows)), *rows[0].shape[1:])
    stored = file.create_dataset(
        name, (len(rows), *shape), rows[0].dtype, chunks=(1, *shape), compression="gzip", fillvalue=padding
    )
    for number, row in enumerate(rows):
        padded = np.full(shape, padding, dtype=row.dtype)
        padded[: len(row)] = row
        stored[number] = padded


def _write_parquet(
    path: Path, checkpoint: Checkpoint, dataset: Dataset, tokens: Sequence[EpisodeTokens], facts: dict[str, Any]
) -> None:
    counts = [len(codes) for codes, _ in tokens]
    owner = np.repeat(np.arange(len(tokens), dtype=np.int32), counts)
    chunk = np.concatenate([np.arange(count, dtype=np.int32) for count in counts])
    codes = np.concatenate([codes for codes, _ in tokens])
    draft = codes[..., : facts["draft_layers"]]
    labels = {name: pa.array(texts).take(pa.array(owner)) for name, texts in _labels(dataset).items()}
    table = pa.table(
        {
            "episode": owner,
            "chunk": chunk,
            "start": chunk * np.int32(dataset.chunk_len),
            "steps": np.concatenate([valid.sum(axis=1, dtype=np.int32) for _, valid in tokens]),
            **{name: labels[name] for name in ("task", "source", "key", "split")},
            "codes": _lists(codes),
            "draft_codes": _lists(draft),
        }
    )
    normaliser = normaliser_of(checkpoint)
    bounds = {"low": normaliser.low.tolist(), "high": normaliser.high.tolist()}
    limit = [None if np.isinf(value) else value for value in dataset.layout.limit.tolist()]
    shapes = {"codes_shape": codes.shape[1:], "draft_codes_shape": draft.shape[1:]}
    said = json.dumps({**facts, **bounds, "limit": limit, **shapes})
    pq.write_table(table.replace_schema_metadata({METADATA_KEY: said}), path, ROW_GROUP, compression="zstd")


def _lists(codes: NDArray[np.signedinteger]) -> pa.FixedSizeListArray:
    """(M, C, H, k) -> M lists of C * H * k numbers."""
    return pa.FixedSizeListArray.from_arrays(pa.array(codes.reshape(-1)), int(np.prod(codes.shape[1:])))


def _labels(dataset: Dataset) -> dict[str, list[str]]:
    """What is known of each episode, and the part of the split that it is in."""
    part_of = {position: name for name, positions in dataset.split.parts().items() for position in positions}
    labels = {name: [getattr(episode, name) for episode in dataset.episodes] for name in LABELS}
    return labels | {"split": [part_of[position] for position in range(len(dataset.episodes))]}


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m workbook.export.tokens",
        allow_abbrev=False,
        description="Write the tokens of every episode, for Phase 2 to train on: tokens.h5 and tokens.parquet.",
        epilog="Exit code 0: both files are written; 2: bad input; 1: anything else; 130: interrupted.",
    )
    parser.add_argument("--checkpoint", required=True, help="of the codec; the tokens of a LayerNorm one do not decode")
    parser.add_argument("--data", default="sample", help=f"{DATA_KINDS}; default: sample")
    parser.add_argument("--out", default="tokens", help="folder for the files; default: tokens")
    add_options(parser, "stride", "accept_data")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Export, and return the exit code."""
    options = parse_arguments(arguments)
    return terminal.tell(lambda: summary(_export(options)), options.out)


def _export(options: argparse.Namespace) -> TokenFiles:
    from tqdm import tqdm

    config = config_of(options, stride=options.chunk_len, accept_data=True)
    with terminal.fetching() as on_fetch, tqdm(desc="encoding", unit="episode", disable=None, leave=False) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return export_tokens(options.checkpoint, options.out, options.data, config, show, on_fetch)


def summary(files: TokenFiles) -> str:
    facts = files.facts
    lines = [
        f"{files.chunks:,} chunks of {facts['chunk_len']} steps, {files.steps:,} steps; episodes: "
        + ", ".join(f"{count} {part}" for part, count in facts["split"].items()),
        *(f"left out: {count} ({why.replace('_', ' ')})" for why, count in facts["left_out"].items()),
        f"normaliser {facts['normaliser']}; codec trained on exactly these data: {facts['trained_on_these_data']}",
        *(f"{path} ({path.stat().st_size / 1e6:.2f} MB)" for path in (files.hdf5, files.parquet)),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    terminal.heed_stops()
    sys.exit(main())
