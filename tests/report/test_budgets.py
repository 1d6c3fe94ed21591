"""The offline probe's answer after ever more batches, on a run of a few walks."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from small_runs import prepared_walks, quickly, run_notebooks

from workbook.common.errors import InputError
from workbook.common.paths import OutputFolder
from workbook.report.budgets import CONTRASTS, TABLE, budgets_table, main, rows_of


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> OutputFolder:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("WORKBOOK_PREFIX", raising=False)
        return run_notebooks(tmp_path_factory.mktemp("budgets"), prepared_walks(), policies=False).out


def test_every_contrast_stands_at_every_budget(
    finished: OutputFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with quickly():
        code = main([str(finished.root), "--to", str(tmp_path), "--budgets", "4", "2", "--seeds", "2"])
    assert code == 0
    rows = pd.read_parquet(OutputFolder(tmp_path).tables / f"{TABLE}.parquet")
    assert list(zip(rows.batches, rows.contrast, strict=True)) == [(n, name) for n in (2, 4) for name in CONTRASTS]
    assert rows[["less", "low", "high"]].notna().all().all()
    assert (rows.low <= rows.high).all()
    assert rows.groupby("batches").answer.nunique().tolist() == [1, 1]
    of_new = rows[rows.contrast == "new_for_naive"]
    assert of_new.less.nunique() == 2  # two more batches have changed the policies
    assert TABLE in capsys.readouterr().out


def test_an_answer_that_changes_is_said_to_change() -> None:
    made = [
        {"batches": n, "contrast": name, "less": 0.1, "low": 0.05, "high": 0.2, "answer": answer}
        for n, answer in ((1, "C"), (2, "A"), (3, "A"))
        for name in CONTRASTS
    ]
    rows = pd.DataFrame(made)
    steady = budgets_table(rows)
    assert [len(row) for row in steady.rows] == [4] * (len(CONTRASTS) + 1)
    assert list(steady.rows[-1])[1:] == ["C", "A", "A"]
    changed = budgets_table(rows.assign(answer=["C"] * 5 + ["A"] * 5 + ["B"] * 5))
    assert changed.note != steady.note


def test_no_batches_are_refused(finished: OutputFolder) -> None:
    with pytest.raises(InputError, match="at least 1"):
        rows_of(finished, [0, 5], 1)
