"""Figures show what is in the rows, in the catalogue's colours, and carry their words."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from IPython.core.formatters import DisplayFormatter
from made_rows import MadeUp, fast_rows, layer_rows, made_evidence, model_rows, passing_scores, rows
from matplotlib import font_manager
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D
from matplotlib.text import Text
from nbconvert import HTMLExporter
from small_runs import make_dataset

from workbook.codecs import catalogue as catalogue_module
from workbook.codecs.catalogue import CONDITIONED, Entry, at, catalogue
from workbook.evaluation.evidence import Evidence
from workbook.evaluation.layers import Layers
from workbook.evaluation.score import Scores
from workbook.report.documents import SAMPLE_RUN
from workbook.report.figures import comparison, data, layers, rate_distortion, replay, style
from workbook.report.figures.style import Canvas, Plot, wrapped
from workbook.report.text.codecs import title

PNG = b"\x89PNG\r\n\x1a\n"
FIGURES: dict[str, Callable[[Evidence], Plot]] = {
    figure.__name__: figure
    for figure in (
        comparison.forward_and_tokens, comparison.improvements, comparison.groups, comparison.dimensions,
        rate_distortion.rate_distortion, layers.residual_std, layers.entropies, layers.prefixes,
    )
}  # fmt: skip


def made(scores: Scores | None = None, **parts: Any) -> MadeUp:
    run = made_evidence(scores=scores or passing_scores(), **parts)
    run.tables["gaussian"] = pd.DataFrame({"bits": [0.5, 20.0, 200.0], "mse": [0.1, 0.01, 1e-4]})
    return run


PLAIN = made()


def drawn(make: Callable[[Any], Plot], shown: Any) -> tuple[Plot, set[str], dict[str, str]]:
    """A figure, every text in it, and label -> colour of its lines."""
    texts: set[str] = set()
    lines: dict[str, str] = {}

    def finish(self: Canvas) -> Plot:
        plot = original(self)
        texts.update(text.get_text() for text in self.figure.findobj(Text))
        lines.update({str(line.get_label()): to_hex(line.get_color()) for line in self.figure.findobj(Line2D)})
        return plot

    original = Canvas.finish
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Canvas, "finish", finish)
        return make(shown), texts, lines


def check(plot: Plot, texts: set[str]) -> None:
    assert plot.png.startswith(PNG)
    assert plot.alt.strip()
    for text in (plot.alt, *texts):
        assert "nan" not in text.split(), text
        assert "None" not in text, text


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_a_picture_with_words(name: str) -> None:
    check(*drawn(FIGURES[name], PLAIN)[:2])


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_does_without_position_and_gripper(name: str) -> None:
    absent = ("position_mm", "drift_mm", "gripper_abs", "gripper_error_rate", "gripper_on_time", "gripper_shift_steps")
    scores = Scores(passing_scores().rows.assign(**dict.fromkeys(absent, np.nan)))
    check(*drawn(FIGURES[name], made(scores, comparison={"layout": "rotation:3"}))[:2])


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_does_with_a_single_episode_that_allows_no_interval(name: str) -> None:
    one = passing_scores().rows.groupby(["codec", "setting", "decoding", "seed"], sort=False).head(1)
    check(*drawn(FIGURES[name], made(Scores(one)))[:2])


def test_a_picture_carries_its_words_into_notebook_and_report() -> None:
    plot = Plot(PNG, 'a "b" < c & d')
    data, metadata = plot._repr_mimebundle_()
    assert list(data) == ["image/png"]
    assert metadata["image/png"]["alt"] == plot.alt
    assert 'alt="a &quot;b&quot; &lt; c &amp; d"' in plot.as_html()


def test_a_figure_can_be_taken_further() -> None:
    """A notebook shows `plot.figure` itself, without a backend, and as it was changed."""
    plot = comparison.groups(PLAIN)
    assert plot.figure is not None
    assert plot.axes == plot.figure.axes
    show = DisplayFormatter().format
    before, _ = show(plot.figure)
    plot.axes[0].set_facecolor("pink")
    after, _ = show(plot.figure)
    assert before["image/png"].startswith(PNG)
    assert before["image/png"] != after["image/png"]


def test_the_figure_of_dimensions_names_every_one() -> None:
    _, texts, _ = drawn(comparison.dimensions, made(comparison={"layout": "position:2 gripper:1"}))
    assert {"x", "y", "gripper"} <= texts


def test_the_figure_of_errors_shows_what_was_measured() -> None:
    _, texts, _ = drawn(comparison.groups, PLAIN)
    assert "joint error\nin its own units" in texts
    without = Scores(passing_scores().rows.assign(joint_length=np.nan))
    assert "joint error\nin its own units" not in drawn(comparison.groups, made(without))[1]


def test_the_figure_of_errors_says_what_it_leaves_out() -> None:
    assert "LayerNorm does not decode exactly" in comparison.groups(PLAIN).alt
    exact = made(models=model_rows().assign(decode_error=0.0))
    assert "left out" not in comparison.groups(exact).alt


def test_an_error_far_above_naives_is_marked_at_the_edge() -> None:
    _, texts, _ = drawn(comparison.improvements, made(passing_scores(naive=0.02, layernorm=0.2)))
    assert "10 times naive's error" in texts


def test_the_title_says_more_where_there_is_more() -> None:
    assert "100.0% more" in comparison.improvements(made(passing_scores(naive=0.02, fixed_scale=0.04))).alt


@pytest.mark.parametrize("make", [layers.residual_std, layers.prefixes])
def test_lines_of_layers_have_the_catalogues_colours(make: Callable[[Evidence], Plot]) -> None:
    _, _, lines = drawn(make, PLAIN)
    for name in CONDITIONED.values():
        label = title(name) + (" (with statistics)" if make is layers.prefixes and name == "layernorm" else "")
        assert lines[label] == catalogue()[name].colour


def test_the_title_counts_the_layers_that_say_nothing() -> None:
    scores = passing_scores()
    run = made(scores, layers=Layers(layer_rows({"naive": [1, 2, 3]}), scores))
    assert layers.entropies(run).alt.startswith("3 of 4 naive layers")


@pytest.mark.parametrize(
    ("codec", "fast", "says"),
    [
        ("klt_rfsq_variable", {"bits": 0.004}, "No RFSQ and FAST-style tokens"),
        ("klt_rfsq_fixed", {}, "No RFSQ and FAST-style tokens"),
        (
            "klt_rfsq_fixed",
            {"bits": 0.004, "words": 0.002},
            "25.0% less error at equal bits, 50.0% more error at equal w",
        ),
        ("klt_rfsq_fixed", {"words": 0.006}, "50.0% less error at equal words"),
    ],
)
def test_the_title_of_the_curves_follows_from_the_gains(codec: str, fast: dict[str, float], says: str) -> None:
    run = made()
    run.tables["against_fast"] = fast_rows(codec, "codes=36", 0.003, fast)
    assert says in rate_distortion.rate_distortion(run).alt


def test_a_made_up_entry_has_its_line_and_its_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = Entry(
        "made_up", "made-up codec", "#123456", "p-", True, True, lambda f, s: [], at("rate", 50), at("rate", 50)
    )
    monkeypatch.setattr(catalogue_module, "ENTRIES", (*catalogue_module.ENTRIES, entry))
    frame = rows("made_up", 0.004, "rate=50", bits=50.0).assign(compared=True, measured=True)
    run = made(Scores(pd.concat([passing_scores().rows, frame], ignore_index=True)))
    assert drawn(rate_distortion.rate_distortion, run)[2]["made-up codec"] == "#123456"
    assert "made-up codec" in drawn(comparison.groups, run)[1]


# Task names in other scripts

JAPANESE = "引き出しを開けてボウルを皿に置く、そして引き出しを閉める"
NAMES = (JAPANESE, "打开 the 抽屉", "서랍을 열고 그릇을 접시에 놓으세요")
MADE_UP = "Made-up CJK"


@pytest.fixture
def no_font(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(style, "CJK_FONTS", ())


@pytest.fixture
def a_font(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One with an empty glyph for every character of the names."""
    characters = {ord(character) for name in NAMES for character in name} - {ord(" ")}
    builder, nothing = FontBuilder(1000), TTGlyphPen(None).glyph()
    builder.setupGlyphOrder([".notdef", "any"])
    builder.setupCharacterMap(dict.fromkeys(characters, "any"))
    builder.setupGlyf({".notdef": nothing, "any": nothing})
    builder.setupHorizontalMetrics({".notdef": (500, 0), "any": (1000, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": MADE_UP, "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=800)
    builder.setupPost()
    builder.save(tmp_path / "made_up.ttf")
    monkeypatch.setattr(font_manager.fontManager, "ttflist", list(font_manager.fontManager.ttflist))
    font_manager.fontManager.addfont(tmp_path / "made_up.ttf")
    monkeypatch.setattr(style, "CJK_FONTS", (MADE_UP,))


@pytest.fixture(autouse=True)
def no_warning(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """As of a missing glyph, or a font that is not found."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def episode_of(task: str) -> tuple[Plot, set[str]]:
    walks = make_dataset()
    named = replace(walks, episodes=tuple(replace(episode, task=task) for episode in walks.episodes))
    return drawn(data.example_episode, named)[:2]


def paths_of(tasks: Sequence[str]) -> tuple[Plot, set[str]]:
    """The committed run's, with other names."""
    replays = Evidence(SAMPLE_RUN).replays
    names = dict(zip(dict.fromkeys(replays.paths.task), tasks, strict=True))
    vars(replays)["paths"] = replays.paths.assign(task=replays.paths.task.map(names))
    return drawn(replay.paths, made_evidence(replays=replays))[:2]


@pytest.mark.usefixtures("no_font")
@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_no_font_has_stands_beside_its_number(name: str) -> None:
    plot, texts = episode_of(name)
    assert plot.legend == f"[1] {name}"
    assert "An episode: [1]" in texts
    assert plot.alt.startswith(f"An episode: {name} ")
    assert f'<p class="note">[1] {name}</p>' in plot.as_html()


@pytest.mark.usefixtures("no_font")
def test_every_name_has_a_number_of_its_own() -> None:
    plot, texts = paths_of(NAMES)
    assert plot.legend == f"[1] {NAMES[0]}; [2] {NAMES[1]}; [3] {NAMES[2]}"
    assert {"[1]", "[2]", "[3]"} <= texts
    assert all(name in plot.alt for name in NAMES)


@pytest.mark.usefixtures("no_font")
def test_only_what_cannot_be_drawn_becomes_a_number() -> None:
    plot, texts = episode_of("put the 碗 on the 盘子 in µm")
    assert "An episode: put the [1] in µm" in texts
    assert plot.legend == "[1] 碗 on the 盘子"


@pytest.mark.usefixtures("a_font")
def test_a_font_that_has_the_characters_is_used() -> None:
    for name in NAMES:
        plot, texts = episode_of(name)
        assert plot.legend == ""
        assert f"An episode: {name}" in texts
    plot, texts = paths_of(NAMES)
    assert plot.legend == ""
    assert {name.replace(" ", "") for name in NAMES} <= {"".join(text.split()) for text in texts}


def test_with_the_fonts_of_this_machine_every_name_is_drawn_or_told() -> None:
    for name in NAMES:
        plot, texts = episode_of(name)
        assert f"An episode: {name}" in texts or name in plot.legend


@pytest.mark.parametrize("name", ["put $5 and $6 in {", "take $x^", "a_b \\frac"])
def test_a_name_is_no_formula(name: str) -> None:
    plot, texts = episode_of(name)
    assert f"An episode: {name}" in texts
    assert plot.legend == ""


def test_names_beside_axes_are_no_formulas() -> None:
    assert paths_of(["$5 and $6 {", "$x^", "a_b"])[0].legend == ""


def test_a_picture_with_names_beside_it_keeps_them_on_a_page() -> None:
    plot = Plot(PNG, "alt", "[1] 箱を開ける")
    output = nbformat.v4.new_output("display_data", plot._repr_mimebundle_()[0])
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("plot", outputs=[output])])
    assert "[1] 箱を開ける" in HTMLExporter().from_notebook_node(notebook)[0]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", [""]),
        ("open the drawer", ["open the ", "drawer"]),
        (JAPANESE[:12], [JAPANESE[:5], JAPANESE[5:10], JAPANESE[10:12]]),
    ],
)
def test_wide_characters_count_for_two(text: str, lines: list[str]) -> None:
    assert wrapped(text, 10).split("\n") == lines
