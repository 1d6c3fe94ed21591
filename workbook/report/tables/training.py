"""Tables of 02_train_robust and of the training command, and where a page comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from workbook.codecs.catalogue import CONDITIONED
from workbook.common import targets
from workbook.common.numbers import number
from workbook.common.table import Table
from workbook.evaluation.evidence import Evidence
from workbook.report.text import words
from workbook.report.text.codecs import title

IN_GUIDES_TABLE = ("naive", "layernorm", "fixed_scale")
VALIDATION_ERRORS = ("validation_mse", "validation_mse_tokens")
SHOWN_OF_A_HASH = 16  # digits


def training_table(run: Evidence) -> Table:
    """Validation MSE, epoch kept and time of each conditioning."""
    say, spread, rows = words("training"), words("phrases").range, []
    for conditioning, codec in CONDITIONED.items():
        models = run.training["conditionings"][conditioning]["runs"]
        seconds = [model["seconds"] for model in models if model["seconds"] is not None]
        mse = [model["mse"] for model in models if model["mse"] is not None]
        epochs = [model["epoch"] or 0 for model in models]
        rows.append([
            title(codec),
            f"{len(models)}",
            spread(number(min(mse)), number(max(mse))) if mse else say.not_said,
            spread(min(epochs), max(epochs)),
            say.seconds(np.mean(seconds)) if seconds else say.given,
        ])  # fmt: skip
    return Table(say.header, rows)


def guide_epochs_table(run: Evidence) -> Table:
    """The guide's expected MSE at its epochs beside the measured median over seeds."""
    say, curves = words("training"), run.table("training")
    medians = curves.groupby(["codec", "epoch"]).validation_mse.median()
    rows = [
        [f"{epoch}", f"{expected:g}", *(number(medians.get((codec, epoch))) for codec in IN_GUIDES_TABLE)]
        for epoch, expected in targets.EXPECTED_CURVE.items()
    ]
    return Table([*say.epochs_header, *map(title, IN_GUIDES_TABLE)], rows, say.epochs_note)


def epochs_table(curve: Sequence[float], label: str) -> Table:
    """The same of one training, whose curve is the validation MSE of every epoch."""
    say = words("training")
    rows = [
        [f"{epoch}", f"{expected:g}", number(curve[epoch - 1] if len(curve) >= epoch else None)]
        for epoch, expected in targets.EXPECTED_CURVE.items()
    ]
    return Table([*say.epochs_header, label], rows, say.epochs_note)


def checkpoints_table(run: Evidence) -> Table:
    """The files that the next phases take."""
    say = words("training")
    rows = [
        [
            title(CONDITIONED[conditioning]),
            best["file"],
            f"{best['seed']}",
            number(best["validation_mse"]),
            say.size(best["bytes"]),
        ]
        for conditioning, best in run.training["best"].items()
    ]
    return Table(say.checkpoints_header, rows, say.checkpoints_note)


def sweep_table(results: Mapping[str, Any]) -> Table:
    """The spread over seeds of each conditioning of a sweep, of `training.sweep.gather`."""
    say, rows = words("training"), []
    for name, spread in results["conditionings"].items():
        ends = [[number(spread[key][end]) for end in ("mean", "least", "greatest")] for key in VALIDATION_ERRORS]
        rows.append([name, f"{len(spread['seeds'])}", *(say.spread(*each) for each in ends)])
    return Table(say.sweep_header, rows)


def provenance_table(run: Evidence) -> Table:
    """What the results were made from, and how to make them again."""
    said, say = run.results["provenance"], words("training")
    parameters = [f"{name} {value}" for stage in said["parameters"].values() for name, value in stage.items()]
    shown: dict[str, Any] = said | {
        "rfsq_robust_sha256": said["rfsq_robust_sha256"][:SHOWN_OF_A_HASH],
        "dataset_sha256": said["dataset_sha256"][:SHOWN_OF_A_HASH],
        "seeds": ", ".join(map(str, said["seeds"])),
        "device": f"{said['device']}, {said['cores']}, {said['threads']}",
        "python": f"{said['python']}, {said['system']}",
        "packages": ", ".join(f"{name} {version}" for name, version in said["packages"].items()),
        "command": said["command"] or say.by_hand,
        "parameters": "; ".join(parameters),
    }
    return Table(["", ""], [[label, shown[key]] for key, label in say.provenance.items()])
