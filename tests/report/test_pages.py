"""Pages are made anew from a finished run's files, and nothing is computed or touched besides."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from html import escape, unescape
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from workbook.common import parallel
from workbook.common.errors import InputError
from workbook.common.paths import OutputFolder
from workbook.common.stages import table_path
from workbook.common.table import Bullets, Html, Table
from workbook.common.threshold import Threshold
from workbook.evaluation.evidence import Evidence
from workbook.report import __main__ as command, blocks, decision, pages, text
from workbook.report.blocks import MIMETYPE, show
from workbook.report.documents import SAMPLE_RUN
from workbook.report.drawings import Dot, dots
from workbook.report.figures.style import Plot
from workbook.report.text import words
from workbook.report.text.recommendation import headline
from workbook.verdict.criteria import Criterion

FRAME = pd.DataFrame({"code": [3]})
PICTURE = Plot(b"\x89PNG\r\n\x1a\n", 'a "b" < c & d')


def executed(run: Evidence) -> nbformat.NotebookNode:
    """A notebook as the runner leaves it, of which a later version words everything differently."""
    shown, _ = show(run, "tasks")._repr_mimebundle_()
    drawn, metadata = blocks.Block("curves_figure", PICTURE)._repr_mimebundle_()
    outputs = [
        nbformat.v4.new_output("display_data", shown | {"text/html": "an older wording"}),
        nbformat.v4.new_output("display_data", drawn, metadata=metadata),
        nbformat.v4.new_output("display_data", {"text/html": f"no block {FRAME._repr_html_()}"}),
    ]
    hidden = nbformat.v4.new_code_cell("!pip install", metadata={"tags": ["remove_cell"]})
    return nbformat.v4.new_notebook(cells=[hidden, nbformat.v4.new_code_cell("tasks", outputs=outputs)])


@pytest.fixture
def finished(tmp_path: Path) -> OutputFolder:
    """The folder of a finished run with one notebook."""
    out = OutputFolder(tmp_path / "out")
    shutil.copytree(SAMPLE_RUN, out.root)
    (out.root / "notebooks").mkdir()
    nbformat.write(executed(Evidence(out.root)), out.root / "notebooks" / "01_data.ipynb")
    return out


def hashes(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def read(out: OutputFolder, page: str) -> str:
    return (out.reports / f"{page}.html").read_text(encoding="utf8")


def test_a_changed_template_changes_the_pages_and_nothing_else(
    finished: OutputFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = hashes(finished.root)
    assert command.main([str(finished.root)]) == 0
    made = ("index", "index.zh", "01_data")
    assert {f"reports/{page}.html" for page in made} == hashes(finished.root).keys() - before.keys()
    first, in_chinese, of_notebook = (read(finished, page) for page in made)

    other = tmp_path / "xx"  # another language is another folder of templates
    shutil.copytree(text.FOLDER / "en", other)
    for topic, old, new in (("pages", "The options", "Les options"), ("data", '["task", "episodes"]', '["la t", "n"]')):
        template = other / f"{topic}.j2"
        template.write_text(template.read_text(encoding="utf8").replace(old, new), encoding="utf8")
    monkeypatch.setenv(text.LANGUAGE_VARIABLE, str(other))
    assert command.main([str(finished.root)]) == 0
    assert read(finished, "index") == first.replace("The options", "Les options")
    assert read(finished, "index.zh") == in_chinese
    assert read(finished, "01_data") == _renamed(of_notebook, {"task": "la t", "episodes": "n"})
    assert {name: of for name, of in hashes(finished.root).items() if not name.startswith("reports/")} == before
    assert {path.name for path in finished.root.iterdir()} == {path.name for path in SAMPLE_RUN.iterdir()} | {
        "notebooks",
        "reports",
    }


def _renamed(page: str, columns: dict[str, str]) -> str:
    """The page with its one table's columns renamed, in the header and in the cells that carry their names."""
    for before, after in columns.items():
        page = page.replace(f'"col">{before}</th>', f'"col">{after}</th>')
        page = page.replace(f'data-label="{before}"', f'data-label="{after}"')
    return page


def test_a_language_that_the_workbook_does_not_speak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(text.LANGUAGE_VARIABLE, "xx")
    with pytest.raises(InputError, match=r"^WORKBOOK_LANGUAGE is 'xx'; give one of en, zh, or a folder of templates$"):
        text.words("pages")


def test_replays_that_are_not_those_of_the_results_are_refused(finished: OutputFolder) -> None:
    table_path(finished, "replays").unlink()
    with pytest.raises(InputError, match="its replays are not those that its results tell of; run 05"):
        command.render(finished)
    assert not finished.reports.exists()


@pytest.mark.parametrize(
    ("key", "threshold", "worded"),
    [
        ("mse_tokens", Threshold.below(0.012), "< 0.012"),
        ("mse_tokens", Threshold.at_least(0.5), ">= 0.5"),
        ("improvement_tokens", Threshold.above(0.3), "> 30%"),
        ("overhead", Threshold.up_to(0.2), "<= 20%"),
        ("mse_encoder", Threshold(0.1, 0.2), "0.1 to 0.2"),
    ],
)
def test_a_threshold_of_any_kind_has_words(key: str, threshold: Threshold, worded: str) -> None:
    bounds = Criterion(key, "naive", threshold, 0.0, None, 1, "seeds", "met", True).as_json()["threshold"]
    assert str(text.words("criteria").threshold(key, bounds)).strip() == worded


def test_a_page_shows_blocks_anew_and_keeps_pictures(finished: OutputFolder) -> None:
    command.render(finished)
    page = read(finished, "01_data")
    assert "an older wording" not in page
    assert show(Evidence(finished.root), "tasks").html in page
    assert "no block" in page
    assert unescape(page).count(PICTURE.alt) == 1
    assert "pip install" not in page
    assert 'class="workbook"' not in page
    assert page.count('<table border="1" class="dataframe" tabindex="0">') == 1
    assert "<th></th>" not in page
    assert '<details class="code">' in page


def test_the_first_page_stands_in_two_languages_that_link_to_each_other(finished: OutputFolder) -> None:
    command.render(finished)
    english, chinese, notebook = (read(finished, page) for page in ("index", "index.zh", "01_data"))
    assert [re.findall(r'<html lang="(.*?)">', page) for page in (english, chinese, notebook)] == [
        ["en"], ["zh-CN"], ["en"],
    ]  # fmt: skip
    to_chinese = '<a href="index.zh.html" lang="zh-CN" hreflang="zh-CN">'
    assert to_chinese in english
    assert to_chinese in notebook
    assert '<a href="index.html" lang="en" hreflang="en">' in chinese
    run = Evidence(finished.root)
    in_english = escape(headline(run))
    with text.speaking("zh"):
        in_chinese = escape(headline(run))
        assert show(run, "claims").html in chinese
    assert in_english in english
    assert in_chinese in chinese
    assert in_english != in_chinese
    ids = [re.findall(r' id="(.*?)"', page) for page in (english, chinese)]
    assert ids[0] == ids[1]


def test_another_folder_of_templates_is_another_first_page(
    finished: OutputFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(text.FOLDER, tmp_path / "text")
    shutil.copytree(text.FOLDER / "en", tmp_path / "text" / "xx")
    template = tmp_path / "text" / "xx" / "pages.j2"
    of_english = template.read_text(encoding="utf8")
    template.write_text(of_english.replace('"en"', '"xx"').replace("English", "Xish").replace("Verdict", "Sentence"))
    monkeypatch.setattr(parallel, "available_cores", lambda: 1)  # other processes would not see what is changed here
    monkeypatch.setattr(text, "FOLDER", tmp_path / "text")
    monkeypatch.setattr(pages, "_index_body", lambda run, blocks: f"<p>{text.words('pages').question}</p>")
    command.render(finished)
    assert {path.stem for path in finished.reports.iterdir()} == {"index", "index.xx", "index.zh", "01_data"}
    own, others = read(finished, "index.xx"), [read(finished, page) for page in ("index", "index.zh", "01_data")]
    assert '<html lang="xx">' in own
    assert '<strong aria-current="page">Sentence</strong>' in own
    assert all('<a href="index.xx.html" lang="xx" hreflang="xx">Xish</a>' in page for page in others)
    assert all(f'hreflang="{language}">{name}</a>' in own for language, name in (("en", "English"), ("zh-CN", "中文")))


def test_pages_of_an_earlier_rendering_go(finished: OutputFolder) -> None:
    finished.reports.mkdir()
    (finished.reports / "04_residual_analysis.html").write_text("old")
    command.render(finished)
    assert {path.name for path in finished.reports.iterdir()} == {"index.html", "index.zh.html", "01_data.html"}


def test_a_rendering_that_fails_leaves_the_pages_as_they_were(
    finished: OutputFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    command.render(finished)
    before = hashes(finished.root)
    monkeypatch.setattr(parallel, "available_cores", lambda: 1)
    monkeypatch.setitem(blocks.BLOCKS, "claims", lambda run: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        command.render(finished)
    assert hashes(finished.root) == before


def empty(out: OutputFolder) -> None:
    out.results.unlink()


def damage(out: OutputFolder) -> None:
    out.results.write_text("{")


def age(out: OutputFolder) -> None:
    results = json.loads(out.results.read_text(encoding="utf8"))
    del results["schema"]
    out.results.write_text(json.dumps(results), encoding="utf8")


def lose_rows(out: OutputFolder) -> None:
    table_path(out, "scores").unlink()


def damage_notebook(out: OutputFolder) -> None:
    (out.root / "notebooks" / "01_data.ipynb").write_text("{")


def change_table(out: OutputFolder) -> None:
    shutil.copyfile(table_path(out, "layers"), table_path(out, "tasks"))


@pytest.mark.parametrize("spoil", [empty, damage, age, lose_rows, damage_notebook, change_table])
def test_a_folder_that_cannot_be_read_is_refused_in_a_sentence(
    finished: OutputFolder, capsys: pytest.CaptureFixture[str], spoil: object
) -> None:
    spoil(finished)  # type: ignore[operator]
    before = hashes(finished.root)
    assert command.main([str(finished.root)]) == 2
    [message] = capsys.readouterr().err.splitlines()
    assert message.startswith(f"error: {finished.root}")
    assert "run " in message
    assert hashes(finished.root) == before


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([str(tmp_path / "nothing")]) == 2
    assert str(tmp_path / "nothing") in capsys.readouterr().err
    assert not (tmp_path / "nothing").exists()


class TestBlocks:
    def test_a_block_carries_its_name_beside_what_it_shows(self) -> None:
        for content, shown in (
            (Table(["a"], [["b"]]), {"text/html", "text/markdown"}),
            (Bullets(["a"]), {"text/html", "text/markdown"}),
            (Html("<p>a</p>"), {"text/html"}),
            (PICTURE, {"image/png"}),
        ):
            data, metadata = blocks.Block("here", content)._repr_mimebundle_()
            assert data.keys() == shown | {MIMETYPE}
            assert data[MIMETYPE] == {"name": "here"}
            assert metadata == ({"image/png": {"alt": PICTURE.alt}} if content is PICTURE else {})

    def test_in_a_notebook_a_block_brings_its_style_and_touches_nothing_else(self) -> None:
        shown, _ = blocks.Block("here", Html("<p>a</p>"))._repr_mimebundle_()
        style, _, rest = shown["text/html"].removeprefix('<div class="workbook"><style>').partition("</style>")
        assert rest == "<p>a</p></div>"
        assert ".badge.pass" in style
        assert ":root" not in style
        assert "prefers-color-scheme" not in style
        selector, _, rules = style.partition("{")
        assert set(selector.strip().split(".")) == {"", "workbook"}
        depths = [rules[:end].count("{") - rules[:end].count("}") for end in range(len(rules))]
        assert min(depths) == 0  # no rule stands outside

    def test_an_unknown_name_is_refused(self) -> None:
        with pytest.raises(InputError, match="nonsense"):
            show(Evidence("nowhere"), "nonsense")

    def test_what_is_made_for_pages_alone_has_no_markdown(self) -> None:
        for content in (Html("<p>a</p>"), PICTURE):
            with pytest.raises(TypeError, match="here"):
                _ = blocks.Block("here", content).markdown

    @pytest.mark.parametrize("name", [name for name in blocks.BLOCKS if not name.endswith("_figure")])
    def test_every_block_of_the_sample_run_has_words(self, name: str) -> None:
        html = show(Evidence(SAMPLE_RUN), name).html
        assert html or name == "not_evidence"
        for wrong in ("nan", "None", "inf"):
            assert wrong not in html.split()


def test_the_pages_are_the_first_and_one_a_notebook() -> None:
    assert pages.PAGES[:2] == ("index.html", "index.zh.html")
    assert len(pages.PAGES) == 7


class TestFirstPage:
    @pytest.fixture(scope="class")
    def out(self, tmp_path_factory: pytest.TempPathFactory) -> OutputFolder:
        out = OutputFolder(tmp_path_factory.mktemp("first") / "out")
        shutil.copytree(SAMPLE_RUN, out.root)
        pages.write_reports(Evidence(out.root))
        return out

    @pytest.fixture(scope="class")
    def page(self, out: OutputFolder) -> str:
        return read(out, "index")

    def test_each_first_page_is_linked_in_its_own_language(self, out: OutputFolder) -> None:
        for page, wanted in (("index", ("index.zh.html", "zh-CN")), ("index.zh", ("index.html", "en"))):
            assert re.findall(r'href="(index[^"#]*)" lang="([^"]+)"', read(out, page)) == [wanted]

    def test_it_needs_nothing_from_outside(self, page: str) -> None:
        assert not re.findall(r"""(?:src|href)=["'](?!#|data:|index)[^"']*""", page)
        assert "@import" not in page
        assert "url(" not in page

    def test_the_answer_stands_before_everything_else(self, page: str) -> None:
        run = Evidence(SAMPLE_RUN)
        order = [
            f"{escape(headline(run))}</h1>",
            'class="tiles"',
            'class="do"',
            'class="rests"',
            "<svg",
            'class="fold"',
        ]
        places = [page.index(each) for each in order]
        assert places == sorted(places)

    def test_every_contents_entry_leads_to_a_heading(self, page: str) -> None:
        contents = page[page.index('class="contents"') : page.index("</ul>")]
        ids = re.findall(r' id="([^"]+)"', page)
        assert len(ids) == len(set(ids))
        assert set(re.findall(r'href="#([^"]+)"', contents)) <= set(ids)

    def test_columns_and_rows_are_headed(self, page: str) -> None:
        assert not re.findall(r"<th(?![^>]*scope=)[ >]", page)

    def test_every_picture_has_words(self, page: str) -> None:
        drawn = re.findall(r"<svg[^>]*>", page)
        assert drawn
        assert all('role="img"' in each and re.search(r'aria-label="[^"]+"', each) for each in drawn)
        assert all(re.search(r'alt="[^"]+"', each) for each in re.findall(r"<img[^>]*>", page))


class TestDecision:
    def test_tiles_say_what_the_contrasts_say(self) -> None:
        run = Evidence(SAMPLE_RUN)
        tiles = {tile.key: tile for tile in decision.tiles(run)}
        assert tiles.keys() == decision.IN_LOOP.keys()
        pipeline = run.loop.contrast("pipeline")
        assert pipeline is not None
        assert f"{100 * (pipeline.difference.mean or 0):+.0f}" in tiles["pipeline"].number
        assert tiles["A"].word == run.results["recommendation"]["words"]["A"]
        for key, asked in decision.IN_LOOP.items():
            contrast = run.loop.contrast(asked)
            assert contrast is not None
            if tiles[key].mark == "yes":  # no green tile whose interval holds a loss
                assert (contrast.difference.low or 0) > 0
            assert (tiles[key].word == "WORSE") == ((contrast.difference.high or 0) < 0)

    def test_what_is_missing_is_marked_as_missing(self, tmp_path: Path) -> None:
        shutil.copytree(SAMPLE_RUN, tmp_path / "out")
        missing = dict.fromkeys(("yes", "partly", "no"), 0)
        for support in decision.rests_on(Evidence(tmp_path / "out")):
            missing[support.mark] += 1
        for name in ("loop", "replay"):
            (tmp_path / "out" / "stages" / f"{name}.json").unlink()
        later = [support.mark for support in decision.rests_on(Evidence(tmp_path / "out"))]
        assert later.count("no") == missing["no"] + 2
        assert later.count("yes") == missing["yes"] - 2

    def test_the_fold_of_codecs_finds_the_smallest_of_its_table(self) -> None:
        run = Evidence(SAMPLE_RUN)
        bits = [float(row[3]) for row in show(run, "smallest").content.rows]  # type: ignore[union-attr]
        assert decision.findings(run)["codecs"].startswith(
            f"fewest bits of an RFSQ that surely meets the target: {min(bits):.0f} a chunk"
        )
        assert min(bits) < max(bits)

    @pytest.mark.parametrize(("share", "told"), [(0.0, "0.0"), (-0.0004, "0.0"), (0.071, "+7.1"), (-0.18, "-18")])
    def test_no_difference_has_no_sign(self, share: float, told: str) -> None:
        assert words("decision").signed(share) == told

    def test_arms_that_are_all_alike_are_told_once(self) -> None:
        told = words("decision").best_and_worst
        assert told(("a", 0.0), ("b", 0.0)) == "every arm succeeds in 0%"
        assert told(("a", 0.5), ("b", 0.0)) == "a 50%; b 0%"

    def test_grids_show_codes_of_every_layer(self) -> None:
        run = Evidence(SAMPLE_RUN)
        naive, scale = decision.code_grids(run)
        assert len(naive.rows) == len(scale.rows) == run.layers.count
        dead = run.layers.dead("naive")
        assert dead
        assert all(len(set(naive.rows[layer])) == 1 for layer in dead)

    @pytest.mark.parametrize(("value", "at"), [(0.0, "1.00%"), (0.5, "39.00%"), (1.0, "77.00%"), (7.0, "77.00%")])
    def test_a_dot_stands_where_its_value_is_and_never_outside(self, value: float, at: str) -> None:
        drawn = dots([Dot("a < b", value, value, value, "x", "#000")], [(0.0, "0"), (1.0, "1")], "title", "axis")
        assert f'cx="{at}"' in drawn.svg
        assert "a &lt; b" in drawn.svg
        assert "a < b x" in drawn.alt
