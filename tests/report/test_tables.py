"""Numbers in words, and tables in HTML and Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from evidence import Evidence, estimate, judged, passing_comparison, some_residuals

from rfsq_robust import CONDITIONINGS
from workbook.common.table import Badge, Bullets, Table
from workbook.common.wording import less_or_more
from workbook.evaluation.metrics import SWITCH_WINDOW
from workbook.report.tables import comparison as tables, data as data_tables
from workbook.report.tables.comparison import number, share, with_interval
from workbook.verdict.criteria import as_json, evaluate


class TestNumber:
    @pytest.mark.parametrize(
        ("value", "digits", "text"),
        [
            (None, 2, "-"),
            (0.0, 2, "0"),
            (0.5, 2, "0.5"),
            (0.01234, 2, "0.012"),
            (0.01234, 3, "0.0123"),
            (12.34, 2, "12"),
            (123.4, 2, "123"),
            (1234.5, 2, "1,234"),
            (0.00012, 2, "1.2e-4"),
            (123456.0, 2, "1.2e5"),
            (-0.5, 2, "-0.5"),
        ],
    )
    def test_reads_well(self, value: float | None, digits: int, text: str) -> None:
        assert number(value, digits) == text

    @pytest.mark.parametrize(("value", "digits", "text"), [(99.6, 2, "100"), (-99.7, 2, "-100"), (999.6, 3, "1,000")])
    def test_reads_well_where_it_rounds_up(self, value: float, digits: int, text: str) -> None:
        assert number(value, digits) == text

    @pytest.mark.parametrize(
        ("value", "text"),
        [(None, "-"), (0.301, "30.1%"), (0.0, "0.0%"), (-0.5, "-50.0%"), (-4.0, "5 times the error")],
    )
    def test_share(self, value: float | None, text: str) -> None:
        assert share(value) == text

    def test_with_interval(self) -> None:
        assert with_interval(estimate(0.5, 0.1)) == "0.5 (0.4 to 0.6)"
        assert with_interval(estimate(0.5, None)) == "0.5"
        assert with_interval({"mean": None, "low": None, "high": None}) == "none in the data"


class TestTables:
    def test_cells_are_escaped(self) -> None:
        html = Table(["<b>", "a & b"], [["<script>alert(1)</script>", "x"]], "1 < 2").html
        assert "<script>" not in html
        assert "&lt;script&gt;" in html
        assert "<th>&lt;b&gt;</th><th>a &amp; b</th>" in html
        assert "1 &lt; 2" in html

    def test_badges_stay_badges(self) -> None:
        table = Table(["word"], [[Badge("NOT SHOWN")]])
        assert '<td><span class="badge not-shown">NOT SHOWN</span></td>' in table.html
        assert "| NOT SHOWN |" in table.markdown

    def test_markdown_keeps_its_columns(self) -> None:
        lines = Table(["a", "b"], [["x|y", "z"]], "note").markdown.splitlines()
        assert lines == ["| a | b |", "| --- | --- |", "| x\\|y | z |", "", "note"]

    def test_bullets_are_escaped(self) -> None:
        assert Bullets(["a < b", "c"]).html == "<ul><li>a &lt; b</li><li>c</li></ul>"
        assert Bullets(["a", "c"]).markdown == "- a\n- c"

    def test_a_task_cannot_bring_html_into_the_data_card(self) -> None:
        assert "<img" not in data_tables.tasks_table({"tasks": {"<img src=x>": 3}}).html

    @pytest.mark.parametrize("model", ["layernorm", "scale"])
    def test_the_criteria_table_has_a_row_for_each_criterion(self, model: str) -> None:
        criteria = evaluate(passing_comparison())
        for source in (criteria, as_json(criteria)):
            table = tables.criteria_table(source, model)
            assert len(table.rows) == 7
            assert {len(row) for row in table.rows} == {len(table.header)}
            assert [row[-1] for row in table.rows].count("yes") == 4
            assert {str(row[5]) for row in table.rows} == {"met"}

    def test_the_criteria_table_shows_numbers_and_status(self) -> None:
        comparison = passing_comparison()
        comparison["models"]["scale"] |= {"improvement_tokens": estimate(-4.0, 1.0), "token_mse": estimate(0.5, 0.1)}
        rows = {str(row[0]): [str(cell) for cell in row] for row in self.scale_rows(comparison)}
        gain = rows["Improvement over naive from tokens alone, own decoder"]
        assert gain[2:4] == ["5 times the error", "4 to 6 times the error"]
        assert gain[5:] == ["unmet", "yes"]
        assert rows["MSE from tokens alone, own decoder"][2:4] == ["0.5", "0.4 to 0.6"]
        assert rows["Checkpoints load and decode to the same bits"][2] == "5 of 5"

    def scale_rows(self, comparison: Evidence) -> Sequence[Sequence[Any]]:
        return tables.criteria_table(evaluate(comparison), "scale").rows

    def test_the_verdict_block_warns_of_a_rehearsal(self) -> None:
        full, rehearsal = (judged(passing_comparison(), missing)[1] for missing in ([], ["2 of at least 5 seeds"]))
        assert "NOT EVIDENCE" not in tables.verdict_block(full).html
        assert "NOT EVIDENCE: this run has 2 of at least 5 seeds" in tables.verdict_block(rehearsal).html

    def test_the_physical_table_shows_every_codec(self) -> None:
        table = tables.physical_table(passing_comparison())
        assert len(table.header) == 2 + len(CONDITIONINGS) + 1 + 3
        assert {len(row) for row in table.rows} == {len(table.header)}
        assert f"{SWITCH_WINDOW} steps" in table.note

    def test_the_physical_table_leaves_out_what_the_data_have_no_dimension_for(self) -> None:
        comparison = passing_comparison()
        whole = [row[0] for row in tables.physical_table(comparison).rows]
        entries = [*comparison["models"].values(), comparison["models"]["layernorm"]["with_statistics"]]
        for entry in [*entries, *comparison["baselines"].values()]:
            entry["token_errors"]["joint_length"] = {"mean": None, "low": None, "high": None, "per_seed": []}
        left = [row[0] for row in tables.physical_table(comparison).rows]
        assert left == [label for label in whole if label != "joints, length of the error in their own units"]
        assert len(left) == len(whole) - 1

    def test_the_dimension_table_has_the_dimensions_of_the_layout(self) -> None:
        comparison = passing_comparison() | {"layout": "position:2 gripper:1"}
        assert [row[0] for row in tables.dimension_table(comparison).rows] == ["x", "y", "gripper"]

    def test_what_does_not_decode_has_no_column_of_dimensions(self) -> None:
        comparison = passing_comparison()
        assert "layernorm" in tables.dimension_table(comparison).header
        comparison["models"]["layernorm"]["decode_error"] = 0.2
        table = tables.dimension_table(comparison)
        assert "layernorm" not in table.header
        assert len(table.rows) == 7

    def test_the_bits_table_counts_side_information(self) -> None:
        rows = {row[0]: row for row in tables.bits_table(passing_comparison()).rows}
        assert len(rows) == len(CONDITIONINGS) + 3 + 3
        assert rows["layernorm, statistics sent"][1:3] == ["4,923", "2,048"]
        assert rows["16 bins"][1:3] == ["224", "0"]

    def test_dead_layers_are_marked(self) -> None:
        table = tables.layers_table(some_residuals(dead=[2]))
        assert [str(row[2]).endswith("dead") for row in table.rows] == [False, False, True, False]


@pytest.mark.parametrize(("gain", "text"), [(0.975, "97.5% less"), (-0.5, "50.0% more"), (-64.6, "65 times more")])
def test_a_gain_in_words(gain: float, text: str) -> None:
    assert less_or_more(gain) == text
