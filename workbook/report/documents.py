"""Keeps the documents true: figures in them stand between markers and come from docs/sample, the files of one run.

`python -m workbook.report.documents OUT` takes over the files of a full run on the sample and writes what they say into
the documents; without OUT it only writes the documents again.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from workbook.common.errors import InputError
from workbook.common.paths import NOTEBOOKS, REPOSITORY, OutputFolder, expand, replacing
from workbook.common.stages import ROWS, STAGES, stage_path, table_path
from workbook.common.terminal import tell
from workbook.evaluation.evidence import Evidence
from workbook.report.blocks import BLOCKS, show
from workbook.report.drawings import Drawing
from workbook.report.figures.style import Plot
from workbook.report.pages import finished_run
from workbook.report.speed import PARTS, runs_table, speed_table
from workbook.report.text import speaking
from workbook.report.text.terms import glossary, used

SAMPLE_RUN = REPOSITORY / "docs" / "sample"
FIGURES = {
    REPOSITORY / "docs" / "verdict.png": "tokens_figure",
    REPOSITORY / "docs" / "rates.png": "rates_figure",
    REPOSITORY / "docs" / "replay.png": "replay_figure",
    REPOSITORY / "docs" / "loop.svg": "loop_figure",
}
DOCUMENTS = (
    "README.md",
    "README.zh-CN.md",
    "COMPARISON_GUIDE.md",
    "INTEGRATION_TO_PHASE2.md",
    "sample/DATA_CARD.md",
    *sorted(str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "docs").rglob("*.md")),
)
BLOCK = re.compile(r"<!-- results: (\w+) -->\n.*?<!-- end -->", re.DOTALL)
ADDRESS = re.compile(r"https://github\.com/[\w.-]+/[\w.-]+?(?=[\s/)\"'\\]|$)")
LARGEST = 3_000_000  # bytes of a run's files in the repository


def render(name: str, text: str, run: Evidence) -> str:
    """The text of a document with every marked block made anew, in the document's language, its terms last.

    Raises:
        InputError: a marker names no block.
    """

    def anew(found: re.Match[str]) -> str:
        if found[1] == TERMS:
            return _block(TERMS, "")
        if found[1] == COLAB:
            return _block(COLAB, colab_links())
        if found[1] in SPEED:
            return _block(found[1], SPEED[found[1]]().markdown)
        return _block(found[1], show(run, found[1]).markdown)

    with speaking("zh" if name.endswith(".zh-CN.md") else ""):
        text = BLOCK.sub(anew, text)
        return text.replace(_block(TERMS, ""), _block(TERMS, glossary(used(prose(text))).markdown))


def _block(name: str, body: str) -> str:
    return f"<!-- results: {name} -->\n{body}\n<!-- end -->"


def prose(text: str) -> str:
    """A document without code, markers, and where its links and pictures lead."""
    return re.sub(r"(?ms)^```.*?^```|`[^`\n]+`|<!--.*?-->|(?<=\])\([^)\n]*\)", "", text)


def repository_address() -> str:
    """Where the repository is published, from pyproject.toml."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf8"))["project"]
    return project["urls"]["Repository"]


COLAB, TERMS = "colab", "terms"  # blocks that tell of no run, as do those of speed
SPEED = {f"speed_{part}": partial(speed_table, part) for part in PARTS} | {"speed_runs": runs_table}
KNOWN = {*BLOCKS, COLAB, TERMS, *SPEED}


def colab_links() -> str:
    path = repository_address().removeprefix("https://github.com/")
    notebooks = sorted(NOTEBOOKS.glob("*.ipynb"))
    base = f"https://colab.research.google.com/github/{path}/blob/main/notebooks"
    return "\n".join(f"- [{notebook.stem}]({base}/{notebook.name})" for notebook in notebooks)


def with_address(notebook: str) -> str:
    """A notebook's source with the repository's address in its Colab cell."""
    return ADDRESS.sub(repository_address(), notebook)


def take_over(out: str, folder: Path = SAMPLE_RUN) -> None:
    """Make the files of a run those that the documents quote.

    Raises:
        InputError: there are none, they are no evidence, not of the sample, without replays, of code that is not
            committed, or too large.
    """
    source = OutputFolder(expand(out))
    run = finished_run(source)
    _check(run)
    files = list(_files(source))
    size = sum(path.stat().st_size for path in files)
    if size > LARGEST:
        raise InputError(f"{source.root}: its tables have {size:,} bytes, and the documents' run at most {LARGEST:,}")
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        copy = Path(name) / "copy"
        for path in files:
            target = copy / path.relative_to(source.root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        shutil.rmtree(folder, ignore_errors=True)
        copy.rename(folder)


def _check(run: Evidence) -> None:
    """Whether a run may be quoted."""
    path, provenance = run.out.results, run.results["provenance"]
    if provenance["code"].endswith("-dirty"):
        raise InputError(f"{path}: was made from files that are not committed; commit them and run again")
    if run.results["verdict"]["shortfalls"] or provenance["parameters"]["data"]["data"] != "sample":
        raise InputError(f"{path}: the documents quote a full run on the sample, and this is none")
    if run.training["resumed"] or provenance.get("paused_seconds"):
        raise InputError(f"{path}: was cut off and gone on with, so its times mean nothing; run it again")
    if not enough_replays_of_one_run(run):
        raise InputError(
            f"{path}: the documents quote enough replays of one run; run --with-simulator into a new folder"
        )
    if not run.loop.decides:
        raise InputError(f"{path}: the documents quote policies in the loop; run --with-simulator into a new folder")


def enough_replays_of_one_run(run: Evidence) -> bool:
    replays = run.replays
    return replays.played and not replays.shortfalls and replays.values["newly_played"] >= replays.values["replays"]


def _files(out: OutputFolder) -> Iterable[Path]:
    """What an `Evidence` reads: results, rows, tables, and the stages' values."""
    yield out.results
    yield from (path for name in ROWS if (path := table_path(out, name)).is_file())
    yield from sorted(out.tables.glob("*.parquet"))
    yield from (path for name in STAGES if (path := stage_path(out, name)).is_file())


def write_documents() -> None:
    run = Evidence(SAMPLE_RUN)
    for name in DOCUMENTS:
        _rewrite(REPOSITORY / name, partial(render, name, run=run))
    for path in NOTEBOOKS.glob("*.ipynb"):
        _rewrite(path, with_address)


def write_figures() -> None:
    run = Evidence(SAMPLE_RUN)
    for path, name in FIGURES.items():
        content = show(run, name).content
        assert isinstance(content, Plot | Drawing)
        with replacing(path) as temporary:
            temporary.write_bytes(content.png if isinstance(content, Plot) else content.alone.encode())


def _rewrite(path: Path, change: Callable[[str], str]) -> None:
    with replacing(path) as temporary:
        temporary.write_text(change(path.read_text(encoding="utf8")), encoding="utf8")


def main(arguments: list[str]) -> int:
    def work() -> str:
        if arguments:
            take_over(arguments[0])
            write_figures()
        write_documents()
        return f"written: {', '.join(DOCUMENTS)}"

    return tell(work, arguments[0] if arguments else str(REPOSITORY))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
