"""HTML pages: the executed notebooks, and the first page that a reader decides from."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path

import jinja2
import nbformat
from markupsafe import Markup
from nbconvert import HTMLExporter

from workbook.common import targets
from workbook.common.errors import InputError
from workbook.common.jobs import ProgressStep
from workbook.common.parallel import run_jobs
from workbook.common.paths import OutputFolder, replacing
from workbook.common.stages import OPTIONAL, STAGES, read_document, table_path
from workbook.evaluation.evidence import SCHEMA, Evidence
from workbook.evaluation.loop.evidence import MATTERS
from workbook.report import decision
from workbook.report.blocks import MIMETYPE, Block, show
from workbook.report.text import ENGLISH, Words, languages, speaking, words
from workbook.report.text.recommendation import by_loop, headline
from workbook.report.text.terms import used

TEMPLATES = Path(__file__).parent / "templates"
# Installation on Colab, and parameters, whose effective values stand in the footer.
DROPPED_TAGS = {"remove_cell", "parameters", "injected-parameters"}
INDEX = "index"
# DataFrames, for those who read by keyboard: what scrolls on a phone can be reached, and no header is empty.
FRAMES = {'class="dataframe"': 'class="dataframe" tabindex="0"', "<th></th>": "<td></td>"}
HEADING = re.compile(r'<h2 id="([^"]+)"[^>]*>(.*?)</h2>', re.DOTALL)
TAG = re.compile("<[^>]+>")
CODE = re.compile(r'<details class="code">.*?</details>|<(script|style)[ >].*?</\1>', re.DOTALL)
Blocks = Callable[[str], Block]  # by its name, each made once


def first_pages() -> dict[str, str]:
    """The first page in each language -> that language; in that of `words`, English as a rule, it is index.html."""
    return {INDEX: "", **{f"{INDEX}.{language}": language for language in languages() if language != ENGLISH}}


PAGES = tuple(f"{page}.html" for page in dict.fromkeys((*first_pages(), *STAGES.values())))


def finished_run(out: OutputFolder) -> Evidence:
    """A run that is finished, and that this version can read.

    Raises:
        InputError: there is none, or its files are not those of one run.
    """
    again = f"run ./run_all.sh --out {out.root}"
    if not out.results.is_file():
        raise InputError(f"{out.results}: no results there; {again} first")
    run = Evidence(out.root)
    try:
        schema = run.results.get("schema")
    except (ValueError, AttributeError):
        raise InputError(f"{out.results}: damaged; {again} again") from None
    if schema != SCHEMA or not table_path(out, "scores").is_file():
        raise InputError(f"{out.root}: was made by an older version of the workbook; {again} again")
    read_document(out, [stage for stage in STAGES if stage not in OPTIONAL][-1])  # and all that it follows from
    for told, found, what, stage in (
        (_of_replays(run), run.replays.played, "replays", "replay"),
        (run.results["loop"], run.loop.played, "policies", "loop"),
        (run.results.get("predictions"), run.predictions.given, "predictions", "predictions"),
    ):
        if told and not found:
            notebook = STAGES[stage]
            raise InputError(f"{out.root}: its {what} are not those that its results tell of; run {notebook} again")
    return run


def _of_replays(run: Evidence) -> bool:
    """Whether the results tell of replays."""
    word = {part["key"]: part["word"] for part in run.results["verdict"]["parts"]}
    return bool(word["success"] != "NOT RUN")


def write_reports(run: Evidence, folder: Path | None = None) -> None:
    """Write a page for each notebook that the run executed, and the first page in every language, in any order.

    folder: reports/ of the run's folder, where none is given.

    Whatever a notebook showed by its name is made anew from the run's files; figures stay the pictures that they are.
    """
    pages = Pages(run.out, folder or run.out.reports)
    pages.folder.mkdir(exist_ok=True)
    run_jobs(_write, pages, [*first_pages(), *pages.executed], 1, here=True, kept=False)


@dataclass(frozen=True, eq=False)
class Pages:
    """The pages of a run, which go into a folder. A process makes an English block once for all that it writes."""

    out: OutputFolder
    folder: Path

    @cached_property
    def executed(self) -> dict[str, Path]:
        notebooks = {stem: self.out.root / "notebooks" / f"{stem}.ipynb" for stem in STAGES.values()}
        return {stem: path for stem, path in notebooks.items() if path.is_file()}

    @cached_property
    def run(self) -> Evidence:
        return Evidence(self.out.root)

    @cached_property
    def blocks(self) -> Blocks:
        return cache(partial(show, self.run))

    @cached_property
    def links(self) -> dict[str, Words | None]:
        first = {page: _words_in(language) for page, language in first_pages().items()}
        return {**first, **dict.fromkeys(self.executed)}


def _write(pages: Pages, page: str, progress_step: ProgressStep) -> None:
    links = pages.links  # before another language is spoken
    if page in pages.executed:
        body = _notebook_body(pages.blocks, pages.executed[page])
        _write_page(pages.folder, page, body, pages.blocks, links)
    else:
        language = first_pages()[page]
        with speaking(language):
            spoken = cache(partial(show, pages.run)) if language else pages.blocks
            _write_page(pages.folder, page, _index_body(pages.run, spoken), spoken, links, headline(pages.run))
    progress_step()


def _words_in(language: str) -> Words:
    with speaking(language):
        return words("pages")


def _write_page(
    folder: Path, current: str, body: str, blocks: Blocks, links: Mapping[str, Words | None], title: str = ""
) -> None:
    """links: to every page, with the words of its language where it is a first page; title: its notebook's, if ''."""
    page = _rendered(
        "page.html.j2",
        blocks,
        title=title,
        style=Markup((TEMPLATES / "style.css").read_text(encoding="utf8")),
        links=links,
        current=current,
        headings=_headings(body),
        terms=used(TAG.sub(" ", CODE.sub("", body))),
        body=Markup(body),
    )
    with replacing(folder / f"{current}.html") as temporary:
        temporary.write_text(page, encoding="utf8")


def _headings(body: str) -> list[tuple[str, str]]:
    """Id and text of each heading of the second rank, of which a page's contents list consists."""
    found = [(name, Markup(text).striptags().removesuffix("¶")) for name, text in HEADING.findall(body)]
    return found if len(found) > 1 else []


def _rendered(template: str, blocks: Blocks, **values: object) -> str:
    """A template of a page, which names its blocks and words itself."""
    page = _environment().get_template(template)
    return page.render(words=words("pages"), block=lambda name: Markup(blocks(name).html), **values)


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )


def _notebook_body(blocks: Blocks, path: Path) -> str:
    """The notebook as HTML with the code folded, and nothing in it that reaches outside the file."""
    exporter = HTMLExporter(template_name="notebook", extra_template_basedirs=[str(TEMPLATES)])
    exporter.exclude_input_prompt = exporter.exclude_output_prompt = True
    try:
        notebook = nbformat.read(path, as_version=4)
    except ValueError:
        raise InputError(f"{path}: damaged; run ./run_all.sh again") from None
    notebook.cells = [cell for cell in notebook.cells if not DROPPED_TAGS & set(cell.metadata.get("tags", []))]
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            _render_anew(blocks, output)
    body, _ = exporter.from_notebook_node(notebook, {"code": words("pages").code})
    for before, after in FRAMES.items():
        body = body.replace(before, after)
    return body


def _render_anew(blocks: Blocks, output: nbformat.NotebookNode) -> None:
    named = output.get("data", {}).pop(MIMETYPE, None)
    if named is not None and "image/png" not in output.data:
        output.data = nbformat.from_dict({"text/html": blocks(named["name"]).html})


def _index_body(run: Evidence, blocks: Blocks) -> str:
    said = words("decision")
    return _rendered(
        "index.html.j2",
        blocks,
        said=said,
        answer=headline(run),
        do=decision.do(run),
        tiles=decision.tiles(run),
        rests_on=decision.rests_on(run),
        code_grids=decision.code_grids(run),
        findings=decision.findings(run),
        terms=said.terms(by_loop(run), MATTERS),
        limitations=said.sentences("limitations", run.scores.rows.task.nunique(), run.loop.decides),
        target=targets.MSE_BELOW,
        played=run.replays.played,
        in_the_loop=run.loop.played,
        brought=run.brought,
        predicted=run.predictions.given,
    )
