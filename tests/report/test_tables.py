"""Numbers in words, and tables in HTML and Markdown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_rows import SEEDS, fast_rows, layer_rows, made_evidence, model_rows, passing_scores, rows

from workbook.codecs import catalogue as catalogue_module
from workbook.codecs.catalogue import Entry, at
from workbook.common.intervals import Estimate
from workbook.common.numbers import number
from workbook.common.table import Badge, Bullets, Table
from workbook.evaluation.evidence import Evidence
from workbook.evaluation.layers import Layers
from workbook.evaluation.metrics import SWITCH_WINDOW
from workbook.evaluation.score import Scores
from workbook.report.tables import comparison, layers, rate_distortion, training
from workbook.report.text import words

TABLES: dict[str, Callable[[Evidence], Table]] = {
    table.__name__: table
    for table in (
        comparison.closing_table, comparison.physical_table, comparison.dimension_table, comparison.bits_table,
        comparison.overview_table, rate_distortion.equal_bits_table, rate_distortion.smallest_table,
        rate_distortion.codecs_table, rate_distortion.option_b_table, layers.layers_table, layers.layers_needed_table,
        layers.left_over_table,
    )
}  # fmt: skip


PLAIN = made_evidence()


def by_title(table: Table) -> dict[str, list[str]]:
    return {str(row[0]): [str(cell) for cell in row[1:]] for row in table.rows}


def with_rows(*frames: pd.DataFrame) -> Scores:
    return Scores(pd.concat([passing_scores().rows, *frames], ignore_index=True))


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
        [
            (None, "-"),
            (0.301, "30.1%"),
            (0.0, "0.0%"),
            (-0.00001, "0.0%"),
            (-0.5, "-50.0%"),
            (-4.0, "5 times the error"),
        ],
    )
    def test_share(self, value: float | None, text: str) -> None:
        assert words("phrases").share(value) == text

    def test_with_interval(self) -> None:
        with_interval = words("phrases").with_interval
        assert with_interval(Estimate(0.5, 0.4, 0.6)) == "0.5 (0.4 to 0.6)"
        assert with_interval(Estimate(0.5)) == "0.5"
        assert with_interval(Estimate(None)) == "none in the data"

    @pytest.mark.parametrize(("gain", "text"), [(0.975, "97.5% less"), (-0.5, "50.0% more"), (-64.6, "65 times more")])
    def test_a_gain(self, gain: float, text: str) -> None:
        assert words("phrases").less_or_more(gain) == text


class TestTable:
    def test_cells_are_escaped(self) -> None:
        html = Table(["<b>", "a & b"], [["<script>alert(1)</script>", "x"]], "1 < 2").html
        assert "<script>" not in html
        assert "&lt;script&gt;" in html
        assert '<th scope="col">&lt;b&gt;</th><th scope="col">a &amp; b</th>' in html
        assert '<td data-label="a &amp; b">x</td>' in html
        assert "1 &lt; 2" in html

    def test_badges_stay_badges(self) -> None:
        table = Table(["word"], [[Badge("NOT SHOWN")]])
        assert '<span class="badge not-shown">NOT SHOWN</span>' in table.html
        assert "| NOT SHOWN |" in table.markdown

    def test_markdown_keeps_its_columns(self) -> None:
        lines = Table(["a", "b"], [["x|y", "z"]], "note").markdown.splitlines()
        assert lines == ["| a | b |", "| --- | --- |", "| x\\|y | z |", "", "note"]

    def test_bullets_are_escaped(self) -> None:
        assert Bullets(["a < b", "c"]).html == "<ul><li>a &lt; b</li><li>c</li></ul>"
        assert Bullets(["a", "c"]).markdown == "- a\n- c"


class TestTablesOfARun:
    @pytest.mark.parametrize("name", TABLES)
    def test_every_row_has_the_columns_of_the_header(self, name: str) -> None:
        table = TABLES[name](PLAIN)
        assert table.rows
        assert {len(row) for row in table.rows} == {len(table.header)}
        assert not {"nan", "None"} & set(table.html.replace("<", " <").replace(">", "> ").split())

    def test_the_closing_table_sets_results_beside_targets(self) -> None:
        run = made_evidence(scores=passing_scores(naive=0.02, layernorm=0.1, fixed_scale=0.005))
        cells = list(comparison.closing_table(run).rows)
        assert [row[2:] for row in cells[1:4:2]] == [
            ["0.1 (0.1 to 0.1)", "0.005 (0.005 to 0.005)"], ["5 times the error", "75.0%"],
        ]  # fmt: skip
        assert [row[2:] for row in cells[4:]] == [["3 s", "3 s"], ["20.0 kB", "20.0 kB"]]

    def test_the_table_of_errors_leaves_out_what_the_data_have_no_dimension_for(self) -> None:
        whole = by_title(comparison.physical_table(PLAIN))
        without = Scores(passing_scores().rows.assign(joint_length=np.nan))
        left = by_title(comparison.physical_table(made_evidence(scores=without)))
        assert whole.keys() - left.keys() == {words("comparison").metrics["joint_length"]}

    def test_the_note_on_drift_goes_with_the_drift(self) -> None:
        stand_in = words("comparison").stand_in_note()
        note = comparison.physical_table(PLAIN).note
        assert stand_in in note
        assert f"{SWITCH_WINDOW} steps" in note
        drifts = dict.fromkeys(("drift_mm", "drift_deg", "peak_drift_mm", "switch_drift_mm"), np.nan)
        still = made_evidence(scores=Scores(passing_scores().rows.assign(**drifts)))
        assert stand_in not in comparison.physical_table(still).note

    def test_the_table_of_dimensions_has_those_of_the_layout(self) -> None:
        run = made_evidence(comparison={"layout": "position:2 gripper:1"})
        assert [row[0] for row in comparison.dimension_table(run).rows] == ["x", "y", "gripper"]

    def test_what_does_not_decode_has_no_column_of_dimensions(self) -> None:
        assert "LayerNorm" not in comparison.dimension_table(PLAIN).header
        exact = made_evidence(models=model_rows().assign(decode_error=0.0))
        assert "LayerNorm" in comparison.dimension_table(exact).header

    def test_side_information_is_counted(self) -> None:
        found = by_title(comparison.bits_table(PLAIN))
        assert found["LayerNorm, statistics sent"][:2] == ["4,923", "2,048"]
        assert found["16 bins"][:2] == ["224", "0"]

    def test_readers_of_other_tokens_stand_in_option_b_alone(self) -> None:
        run = PLAIN
        reader = "naive tokens, LayerNorm's decoder"
        assert reader not in by_title(comparison.bits_table(run))
        found = by_title(rate_distortion.option_b_table(run))
        assert found[reader][0] == "6 (6 to 6)"
        assert next(iter(found)) == "naive tokens, naive decoder"
        assert list(found)[-1] == "fixed scale's tokens, fixed scale's decoder"

    def test_what_nothing_can_be_held_against_stands_in_no_table_of_option_b(self) -> None:
        assert not rate_distortion.option_b_table(made_evidence(scores=passing_scores(naive=0.0))).rows

    def test_equal_bits(self) -> None:
        run = made_evidence()
        without = fast_rows("bins", "bins=64", 0.001, {"bits": 0.0005}, bits=336)
        run.tables["against_fast"] = pd.concat([run.tables["against_fast"], without], ignore_index=True)
        found = rate_distortion.equal_bits_table(run).rows
        assert list(found[0]) == [
            "KLT-RFSQ of fixed length, 36 residual codes", "60", "6.0", "0.003",
            "0.004", "25.0% less (95 % interval 25.0% to 25.0% less)",
            "0.002", "50.0% more (95 % interval 50.0% to 50.0% more)",
        ]  # fmt: skip
        assert found[1][-2:] == ["-", "-"]

    def test_the_smallest_that_meets_the_target(self) -> None:
        found = by_title(rate_distortion.smallest_table(PLAIN))
        assert [row[:3] for row in found.values()] == [["fixed scale", "1 layer", "719"]] * 2
        worse = made_evidence(scores=passing_scores(naive=1.0, fixed_scale=1.0))
        assert not rate_distortion.smallest_table(worse).rows

    def test_a_prefix_costs_its_share_of_the_bits(self) -> None:
        found = by_title(layers.layers_needed_table(PLAIN))
        assert [row[0] for row in found.values()] == ["719", "1,438", "2,156", "2,875"]
        assert found["2"][1] == "4.0e-4 (4.0e-4 to 4.0e-4)"

    def test_dead_layers_are_marked(self) -> None:
        scores = passing_scores()
        run = made_evidence(scores=scores, layers=Layers(layer_rows({"naive": [2]}), scores))
        found = layers.layers_table(run).rows
        assert [str(row[2]).endswith("dead") for row in found] == [False, False, True, False]
        assert not any(str(row[8]).endswith("dead") for row in found)

    def test_what_the_last_layer_leaves(self) -> None:
        assert layers.left_over_table(PLAIN).rows == [[words("layers").left_over, f"{0.3 / 81:.4f}", "0.0962"]]

    def test_the_overview_gives_what_has_no_forward_pass_its_error_from_tokens(self) -> None:
        table = comparison.overview_table(made_evidence(scores=passing_scores(layernorm=0.7)))
        assert by_title(table)["16 bins"][1] == "0.05"
        assert f"{SEEDS} seeds" in table.note


class TestCatalogue:
    """A made-up codec, by its entry alone."""

    @pytest.fixture
    def run(self, monkeypatch: pytest.MonkeyPatch) -> Evidence:
        shared: dict[str, Any] = {
            "colour": "#123456",
            "line": "p-",
            "fixed_length": False,
            "prefix": True,
            "codecs": lambda f, s: [],
        }
        made = Entry("made_up", "made-up codec", measured=at("rate", 50, 70), compared=at("rate", 50), **shared)
        reader = Entry(
            "made_up_reader", "naive tokens, made-up decoder", compared=at("rate", 50), reads="naive", **shared
        )
        monkeypatch.setattr(catalogue_module, "ENTRIES", (*catalogue_module.ENTRIES, made, reader))
        frames = [
            rows("made_up", 0.004, "rate=50", bits=50.0).assign(compared=True, measured=True),
            rows("made_up", 0.002, "rate=70", bits=70.0).assign(compared=False, measured=True),
            rows("made_up_reader", 0.03, "rate=50").assign(compared=True, measured=False),
        ]
        return made_evidence(scores=with_rows(*frames))

    @pytest.mark.parametrize("make", [comparison.bits_table, comparison.overview_table])
    def test_has_a_row_where_every_codec_has_one(self, run: Evidence, make: Callable[[Evidence], Table]) -> None:
        assert by_title(make(run))["made-up codec"][0] == "50"

    def test_has_a_column_of_errors(self, run: Evidence) -> None:
        assert list(comparison.physical_table(run).header)[-1] == "made-up codec"

    def test_has_a_row_for_each_setting_of_the_curve(self, run: Evidence) -> None:
        found = [row for row in rate_distortion.codecs_table(run).rows if row[0] == "made-up codec"]
        assert [list(row[1:3]) for row in found] == [["50 bits", "50"], ["70 bits", "70"]]
        assert [list(row[6:8]) for row in found] == [["varies", "yes"]] * 2

    def test_it_says_how_little_transformers_of_chunks_were_trained_where_it_has_any(self, run: Evidence) -> None:
        trained = rows("oat", 0.01, "registers=8", bits=79.7).assign(compared=False, measured=True)
        with_oat = made_evidence(scores=with_rows(trained))
        before, table = rate_distortion.codecs_table(run).note, rate_distortion.codecs_table(with_oat)
        assert table.note.startswith(before)
        assert "3,000" in table.note.removeprefix(before)
        assert "8 registers" in [row[1] for row in table.rows]

    def test_a_reader_of_naive_tokens_has_a_row_of_option_b(self, run: Evidence) -> None:
        found = by_title(rate_distortion.option_b_table(run))
        assert found["naive tokens, made-up decoder"][0] == "0.03 (0.03 to 0.03)"


def test_each_error_of_a_sweep_stands_in_its_own_column() -> None:
    errors = {"validation_mse": (0.002, 0.001, 0.003), "validation_mse_tokens": (12, 10, 14)}
    spread = {key: dict(zip(("mean", "least", "greatest"), values, strict=True)) for key, values in errors.items()}
    table = training.sweep_table({"conditionings": {"layernorm": {"seeds": [0, 1], **spread}}})
    assert table.rows == [["layernorm", "2", "0.002 (0.001 to 0.003)", "12 (10 to 14)"]]
