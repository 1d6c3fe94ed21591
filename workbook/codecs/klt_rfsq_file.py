"""KLT-RFSQ as a file: plain numpy arrays, so that nothing in it is ever executed."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from workbook.codecs.klt import Transform
from workbook.codecs.klt_rfsq import DEPTH, GripperCodebook, KltRFSQ, Stack, VariableLength
from workbook.common.errors import InputError
from workbook.common.paths import replacing
from workbook.data.chunks import Normaliser

FILE_NAME = "klt_rfsq.npz"
# What numpy and zipfile raise on files that are damaged or no archives.
DAMAGE = (
    OSError, ValueError, KeyError, IndexError, TypeError, EOFError, RuntimeError, NotImplementedError, zlib.error,
    zipfile.BadZipFile,
)  # fmt: skip
PLAIN = ("dimensions", "thresholds", "orders", "gains")  # arrays of a stack that are stored as they are


def save_klt_rfsq(path: Path, codecs: Sequence[VariableLength]) -> None:
    """Write one fitted model with the multiplier of each of its rates, whole or not at all."""
    model = codecs[0].model
    arrays: dict[str, Any] = {
        "low": model.normaliser.low,
        "high": model.normaliser.high,
        "shape": np.array(model.shape),
        "rates": np.array([codec.rate for codec in codecs], dtype=np.float64),
        "prices": np.array([codec.multiplier for codec in codecs]),
        "gripper_dimensions": np.array([book.dimension for book in model.grippers], dtype=np.int64),
    }
    arrays |= {f"gripper{i}": book.trajectories for i, book in enumerate(model.grippers)}
    for i, stack in enumerate(model.stacks):
        arrays |= {f"stack{i}_{name}": getattr(stack, name) for name in PLAIN}
        arrays |= {f"stack{i}_mean": stack.transform.mean, f"stack{i}_axes": stack.transform.axes}
        arrays |= {f"stack{i}_centroids{layers}": values for layers, values in enumerate(stack.centroids)}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def load_klt_rfsq(path: Path) -> list[VariableLength]:
    """The codecs of a file, one a rate; `codec.model` serves `FixedLength` too.

    Raises:
        InputError: no such file, or not one of these.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        stacks = sum(name.endswith("_thresholds") for name in arrays)
        model = KltRFSQ(
            Normaliser(arrays["low"], arrays["high"]),
            (int(arrays["shape"][0]), int(arrays["shape"][1])),
            tuple(_stack(arrays, i) for i in range(stacks)),
            tuple(GripperCodebook(int(d), arrays[f"gripper{i}"]) for i, d in enumerate(arrays["gripper_dimensions"])),
        )
        settings = zip(arrays["prices"], arrays["rates"], strict=True)
        return [VariableLength(model, float(multiplier), float(rate)) for multiplier, rate in settings]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run ./run_all.sh, which writes {FILE_NAME}") from None
    except DAMAGE:
        raise InputError(f"{path}: not a KLT-RFSQ, or cut short; run ./run_all.sh again") from None


def _stack(arrays: dict[str, Any], number: int) -> Stack:
    plain = {name: arrays[f"stack{number}_{name}"] for name in PLAIN}
    transform = Transform(arrays[f"stack{number}_mean"], arrays[f"stack{number}_axes"])
    centroids = tuple(arrays[f"stack{number}_centroids{layers}"] for layers in range(DEPTH + 1))
    return Stack(transform=transform, centroids=centroids, **plain)
