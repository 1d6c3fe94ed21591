"""Holds the offline probe's answer against the time that its policies learn, and writes budgets.parquet.

python -m workbook.report.budgets OUT --to FOLDER

budgets.parquet: batches, contrast | less (the share by which the error is less), low, high (its 95 % interval), answer
(what follows from the rules after so many batches, the same in every row of a budget).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import pandas as pd

from workbook.common.errors import InputError
from workbook.common.jobs import OnProgress
from workbook.common.paths import OutputFolder, expand
from workbook.common.stages import write_table
from workbook.common.table import Table
from workbook.common.terminal import tell
from workbook.data.dataset import load_dataset
from workbook.evaluation.evidence import Evidence
from workbook.evaluation.policy.budgets import BUDGETS, probe_at
from workbook.report.text import words
from workbook.training.runs import load_fitting
from workbook.verdict.recommendation import judged_offline, option_of

CONTRASTS = ("new_for_naive", "fixed_scale_for_naive", "regression_for_naive", "naive_rule", "codec_share")
TABLE = "budgets"


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m workbook.report.budgets",
        allow_abbrev=False,
        description="Train the offline probe's policies anew on a finished run's data and codecs, and show their "
        "contrasts after each number of batches side by side.",
        epilog="Exit code 0: FOLDER/tables/budgets.parquet is written; 2: bad input; 1: anything else.",
    )
    parser.add_argument("out", help="the folder of a finished run")
    parser.add_argument("--to", required=True, metavar="FOLDER", help="folder for the table")
    parser.add_argument("--budgets", type=int, nargs="+", default=BUDGETS, help="batches; default: 400 1600 6400")
    parser.add_argument("--seeds", type=int, default=3, help="policies of each kind; default: 3")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    options = parse_arguments(arguments)
    return tell(lambda: _told(options), options.to)


def _told(options: argparse.Namespace) -> str:
    from tqdm import tqdm

    with tqdm(desc="training small policies", disable=None, leave=False) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        rows = rows_of(OutputFolder(expand(options.out)), options.budgets, options.seeds, show)
    to = OutputFolder.at(options.to, "--to")
    write_table(to, TABLE, rows)
    return f"{budgets_table(rows).markdown}\n\n{to.tables / TABLE}.parquet"


def rows_of(
    out: OutputFolder, budgets: Sequence[int], seeds: int, on_progress: OnProgress | None = None
) -> pd.DataFrame:
    """The rows of budgets.parquet.

    Raises:
        InputError: no finished run is there, or a number of batches or seeds is below 1.
    """
    if min(*budgets, seeds) < 1:
        raise InputError(f"--budgets {' '.join(map(str, budgets))} --seeds {seeds}: give at least 1 of each")
    run = Evidence(out.root)
    fitting = load_fitting(out, run.training, load_dataset(out))
    rows = []
    for budget, policy in probe_at(fitting, sorted(set(budgets)), seeds, on_progress).items():
        rules = judged_offline(policy, run.comparison["test_episodes"])
        answer = option_of({rule.key: rule.status for rule in rules})
        contrasts = policy.contrasts()
        for name in CONTRASTS:
            found = contrasts[name]
            rows.append({
                "batches": budget, "contrast": name, "less": found.mean, "low": found.low, "high": found.high,
                "answer": answer,
            })  # fmt: skip
    return pd.DataFrame(rows)


def budgets_table(rows: pd.DataFrame) -> Table:
    """A column for each number of batches, and what would be answered then."""
    said = words("policy")
    budgets = list(dict.fromkeys(rows.batches))
    shown = [
        [said.contrasts[name], *(said.gain(each.less, each.low, each.high) for each in of_name.itertuples())]
        for name, of_name in rows.groupby("contrast", sort=False)
    ]
    answers = [str(rows.answer[rows.batches == budget].iloc[0]) for budget in budgets]
    header = [said.contrast, *(said.batches(budget) for budget in budgets)]
    return Table(header, [*shown, [said.answer, *answers]], said.steady(answers[-2:]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
