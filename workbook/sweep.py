"""A sweep: one training with several conditionings and seeds, here or on many machines, and its one results file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rfsq_robust import CONDITIONINGS
from workbook import provenance
from workbook.errors import InputError
from workbook.parallel import OnProgress, Tick, run_jobs
from workbook.paths import expand
from workbook.stages import write_json
from workbook.tables import Table
from workbook.training import Job, choose_device
from workbook.training_order import TrainingOrder, carry_out, make_folder
from workbook.variants import check_seeds
from workbook.wording import number

FILE_NAME = "sweep_results.json"
EVERY = "all"
EXAMPLE = "seeds=5,conditioning=all"


def parse_sweep(text: str) -> list[Job]:
    """'seeds=5,conditioning=all', or some conditionings joined by '+' -> one job each, seed after seed.

    Raises:
        InputError: another key, no number of seeds, or an unknown conditioning.
    """
    settings: dict[str, str] = {"seeds": "1", "conditioning": EVERY}
    for part in text.split(","):
        key, found, value = (word.strip() for word in part.partition("="))
        if not found or key not in settings:
            raise InputError(f"sweep '{text}': cannot read '{part}'; write for example {EXAMPLE}")
        settings[key] = value
    if not settings["seeds"].isascii() or not settings["seeds"].isdigit():
        raise InputError(f"sweep '{text}': seeds is '{settings['seeds']}'; give a number, for example {EXAMPLE}")
    check_seeds(int(settings["seeds"]))
    said = list(CONDITIONINGS) if settings["conditioning"] == EVERY else settings["conditioning"].split("+")
    chosen = [name for name in CONDITIONINGS if name in said]
    if unknown := set(said) - set(chosen):
        raise InputError(
            f"sweep '{text}': conditioning '{sorted(unknown)[0]}' is not one of {EVERY}, {', '.join(CONDITIONINGS)}"
        )
    return [Job(name, seed) for seed in range(int(settings["seeds"])) for name in chosen]


def orders_of(jobs: Sequence[Job], order: TrainingOrder) -> list[TrainingOrder]:
    """`order` for each job, in the folder `sweep` of its own."""
    folder = str(Path(order.folder) / "sweep")
    return [replace(order, job=job, folder=folder, stem=f"{job.conditioning}_seed{job.seed}") for job in jobs]


def carry_out_here(orders: Sequence[TrainingOrder], on_progress: OnProgress | None = None) -> list[dict[str, Any]]:
    """Every order, one process a core; on CUDA one after the other.

    Raises:
        InputError: as `carry_out`.
    """
    in_turn = choose_device(orders[0].device) == "cuda"
    return run_jobs(_carry_out, None, orders, orders[0].train_config.epochs, on_progress, in_turn)


def _carry_out(_: None, order: TrainingOrder, tick: Tick) -> dict[str, Any]:
    return carry_out(order, lambda epoch, mse: tick())


def gather(outcomes: Sequence[dict[str, Any]], order: TrainingOrder) -> dict[str, Any]:
    """The content of the results file: every training, and of each conditioning the spread over its seeds.

    Errors are those of the validation episodes. A choice made among them is to be scored on the test episodes, once.
    """
    return {
        "data": order.data,
        "runs": list(outcomes),
        "conditionings": {
            name: _spread([outcome for outcome in outcomes if outcome["conditioning"] == name])
            for name in dict.fromkeys(outcome["conditioning"] for outcome in outcomes)
        },
        "provenance": provenance.collect(),
    }


def _spread(outcomes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    spread: dict[str, Any] = {"seeds": [outcome["seed"] for outcome in outcomes]}
    for key in ("validation_mse", "validation_mse_tokens"):
        values = [outcome[key] for outcome in outcomes]
        spread[key] = {"mean": float(np.mean(values)), "least": min(values), "greatest": max(values)}
    return spread


def sweep_table(results: dict[str, Any]) -> Table:
    keys = ("validation_mse", "validation_mse_tokens")
    rows = []
    for name, spread in results["conditionings"].items():
        ends = [(number(spread[key][end]) for end in ("mean", "least", "greatest")) for key in keys]
        rows.append([name, str(len(spread["seeds"])), *("{} ({} to {})".format(*each) for each in ends)])
    return Table(["conditioning", "seeds", "validation MSE from forward (range)", "from tokens alone (range)"], rows)


def write_results(results: dict[str, Any], folder: str) -> Path:
    make_folder(folder)
    path = expand(folder) / FILE_NAME
    write_json(path, results)
    return path
