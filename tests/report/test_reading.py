"""What people read: short sentences, and no term before it is explained."""

from __future__ import annotations

import re
import shutil
from collections import defaultdict
from collections.abc import Iterable
from html import unescape

import nbformat
import pytest

from workbook.codecs.catalogue import catalogue
from workbook.common import parallel
from workbook.common.intervals import Estimate
from workbook.common.paths import NOTEBOOKS, REPOSITORY, OutputFolder
from workbook.evaluation.evidence import Evidence
from workbook.report import blocks, documents, pages
from workbook.report.documents import SAMPLE_RUN, prose
from workbook.report.figures.style import Plot
from workbook.report.text import languages, speaking, words
from workbook.report.text.terms import Term, terms, used

MOST_WORDS = 25  # of a sentence
MOST_CHARACTERS = 60  # of a Chinese one
TEXTS = {name: (REPOSITORY / name).read_text(encoding="utf8") for name in documents.DOCUMENTS}
NOTEBOOK_NAMES = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
PICTURES = [name for name in blocks.BLOCKS if name.endswith("_figure") or name == "replay_paths"]
PICTURE = Plot(b"\x89PNG\r\n\x1a\n", "a picture")
NAME = re.compile(r"[A-Za-z][A-Za-z-]*(?: \d+(?:\.\d+)+|(?: [A-Za-z]+){3,})")
FULL_STOPS = re.compile("(?<=[\u3002\uff01\uff1f])")


def in_chinese(name: str) -> bool:
    return ".zh" in name


def sentences(text: str) -> list[str]:
    """Of paragraphs and lists in Markdown; without tables, headings and code."""
    text = re.sub(r"(?ms)^```.*?^```|^ *</?details>.*?$|<!--.*?-->|\*\*", "", text)
    text = re.sub(r"\]\([^)]*\)", "]", text)  # where a link leads is not read
    paragraphs = re.split(r"\n\s*\n|\n(?=\s*(?:-|\d+\.) )|(?m:^#.*$|^\|.*$)", text)
    return [one for part in paragraphs for one in of_paragraph(part)]


def of_paragraph(text: str) -> list[str]:
    ends = re.split(r"(?<=[.?!]) +", " ".join(text.split()))
    return [one.strip() for end in ends for one in FULL_STOPS.split(end) if one.strip()]


def too_long(told: Iterable[str], chinese: bool) -> list[str]:
    """In Chinese a task's name, and that of a package with its version, counts as one character."""
    if chinese:
        return [one for one in told if len(NAME.sub("-", one)) > MOST_CHARACTERS]
    return [one for one in told if len(one.split()) > MOST_WORDS]


def test_sentences_are_told_apart() -> None:
    """The guard of the tests below: they can fail."""
    long = " ".join(26 * ["word"]) + "."
    text = f"# Title\n\nOne is short. {long}\n\n| {long} |\n\n- an item\n- [another](of/a/link with words): more\n"
    assert sentences(text) == ["One is short.", long, "- an item", "- [another]: more"]
    assert too_long(sentences(text), chinese=False) == [long]
    short, long = 59 * "\u4e00" + "\u3002", 60 * "\u4e00" + "\u3002"
    assert sentences(short + long) == [short, long]
    assert too_long([short, long], chinese=True) == [long]


@pytest.mark.parametrize("name", documents.DOCUMENTS)
def test_sentences_of_a_document_are_short(name: str) -> None:
    told = sentences(TEXTS[name])
    assert len(told) > 5
    assert too_long(told, in_chinese(name)) == []


@pytest.mark.parametrize("name", NOTEBOOK_NAMES)
def test_sentences_of_a_notebook_are_short(name: str) -> None:
    cells = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4).cells
    told = [one for cell in cells if cell.cell_type == "markdown" for one in sentences(cell.source)]
    assert too_long(told, chinese=False) == []


def shown(page: str) -> str:
    """The page without what is not read."""
    return pages.CODE.sub("", page[page.index("<main>") : page.index("</main>")])


def told_on(page: str) -> list[str]:
    """Sentences of paragraphs, lists and folds; without tables, figures and headings."""
    text = re.sub(r"(?s)<table.*?</table>|<svg.*?</svg>|<dl>.*?</dl>|<h\d.*?</h\d>", "", shown(page))
    parts = re.split(r"</?(?:p|li|ul|summary|figcaption|section|div|details|small|em|b|strong|span)\b[^>]*>", text)
    return [one for part in parts for one in of_paragraph(unescape(re.sub("<[^>]+>", "", part)))]


@pytest.fixture(scope="module")
def run() -> Evidence:
    return Evidence(SAMPLE_RUN)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The pages of the committed run, without its pictures; of notebooks what stands there before they run."""
    out = OutputFolder(tmp_path_factory.mktemp("read") / "out")
    shutil.copytree(SAMPLE_RUN, out.root)
    shutil.copytree(NOTEBOOKS, out.root / "notebooks", ignore=shutil.ignore_patterns("look_inside"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "available_cores", lambda: 1)  # other processes would draw them
        for name in PICTURES:
            patch.setitem(blocks.BLOCKS, name, lambda run: PICTURE)
        pages.write_reports(Evidence(out.root))
    return {path.stem: path.read_text(encoding="utf8") for path in out.reports.iterdir()}


@pytest.mark.parametrize("name", ["index", "index.zh"])
def test_sentences_of_the_first_page_are_short(written: dict[str, str], name: str) -> None:
    told = told_on(written[name])
    assert len(told) > 100
    assert too_long(told, in_chinese(name)) == []


@pytest.mark.parametrize("name", [name for name in blocks.BLOCKS if name not in PICTURES])
def test_sentences_of_a_block_are_short(run: Evidence, name: str) -> None:
    """Also of those that only notebooks and documents show, which are English."""
    assert too_long(told_on(f"<main>{blocks.show(run, name).html}</main>"), chinese=False) == []


@pytest.mark.parametrize("gain", [Estimate(0.123, 0.101, 0.156), Estimate(-0.123, -0.456, 0.101), Estimate(-0.5)])
def test_sentences_of_any_answer_are_short(gain: Estimate) -> None:
    """As test_languages.py asks it of the Chinese one."""
    contrasts, longest = defaultdict(lambda: gain), max((entry.title for entry in catalogue().values()), key=len)
    said, rules = words("recommendation"), words("policy").rules
    lacking = ("", *said.lacking)
    told = [said.whether(option, lack, longest, contrasts, True) for option in said.answers for lack in lacking]
    for rule in rules:
        told.append(said.how(rule, gain, contrasts))
        told.append(said.which(longest, "", False, 1024, rule, contrasts, {"bits": gain, "words": gain}))
        told += [said.use(option, "a.pt", 8, rule, by_loop) for option in said.answers for by_loop in (True, False)]
    assert too_long((one for each in told for one in of_paragraph(each)), chinese=False) == []


def entry(term: Term) -> str:
    return str(words("terms").entry(term.name, term.means))


def unexplained(text: str) -> list[str]:
    """Names of the terms that stand before what explains them: their entry, or bold, with brackets behind them."""
    found = []
    for term in terms():
        first, explained = term.written.search(text), text.find(entry(term))
        here = first and re.match(r"\*\*[^*]*\*\* ?[(\uff08]", text[max(0, first.start() - 2) :])
        if first and not (0 <= explained <= first.start() or (here and explained >= 0)):
            found.append(term.name)
    return found


@pytest.mark.parametrize("name", documents.DOCUMENTS)
def test_no_document_uses_a_term_before_its_explanation(name: str) -> None:
    _, _, text = TEXTS[name].partition("\n")  # a title comes first of all
    with speaking("zh" if in_chinese(name) else "en"):
        assert unexplained(prose(text)) == []


def test_a_term_before_its_explanation_is_found() -> None:
    """The guard of the test above: it can fail."""
    naive = next(term for term in terms() if term.name == "Naive")
    explanation = " ".join(entry(term) for term in used("naive"))
    assert unexplained(f"{explanation} Naive tokens.") == []
    assert unexplained(f"Naive ones. {explanation}") == ["Naive"]
    assert unexplained(f"**Naive** (as they are) ones. {explanation}") == []
    assert unexplained(entry(naive)) == ["RFSQ (residual finite scalar quantizer), layer, residual", "Naive"][:1]


@pytest.mark.parametrize("language", languages())
def test_a_term_is_explained_by_those_before_it(language: str) -> None:
    with speaking(language):
        listed = terms()
    for place, term in enumerate(listed):
        assert term.written.search(term.name), term.name
        later = [other.name for other in listed[place + 1 :] if other.written.search(term.means)]
        assert later == [], term.name
        assert len(term.means) <= MOST_CHARACTERS if language == "zh" else len(term.means.split()) <= MOST_WORDS


# Names of machines, formats and programs that a reader of these documents knows, or whose page says what they are.
NO_TERMS = {
    "AVX",
    "AVX2",
    "AVX-512",
    "CANNOT",
    "CPU",
    "CSV",
    "CUDA",
    "DECIDE",
    "DataParallel",
    "EMA",
    "FSQ",
    "GB",
    "GPU",
    "GPUs",
    "HDF5",
    "ManiSkill",
    "MIT-licensed",
    "MuJoCo",
    "NO",
    "OpenBLAS",
    "PaliGemma",
    "README",
    "ROS",
    "SHA-256",
    "SkylakeX",
    "SpaceMouse",
    "TensorBoard",
    "YES",
}


@pytest.mark.parametrize("name", [name for name in documents.DOCUMENTS if not in_chinese(name)])
def test_an_abbreviation_is_a_term(name: str) -> None:
    text = prose(TEXTS[name])
    for term in terms():
        text = term.written.sub("", text)
    assert set(re.findall(r"\b[A-Z][A-Za-z0-9]*[A-Z][A-Za-z0-9-]*\b", text)) <= NO_TERMS


def test_every_page_explains_the_terms_that_it_uses(written: dict[str, str]) -> None:
    assert written.keys() == {"index", "index.zh", *NOTEBOOK_NAMES} - {"00_look_inside"}
    for name, page in written.items():
        with speaking("zh" if in_chinese(name) else "en"):
            listed = terms()
        there = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", page))
        text = unescape(re.sub("<[^>]+>", " ", shown(page)))
        missing = [term.name for term in listed if term.written.search(text) and term.name not in unescape(str(there))]
        assert missing == [], name
        assert page.index("<dl>") < page.index("<h2")


def test_every_term_is_used_somewhere(written: dict[str, str]) -> None:
    everything = prose("".join(TEXTS.values())) + "".join(map(shown, written.values()))
    entries = "".join(term.means for term in terms())
    assert [term.name for term in terms() if not term.written.search(everything.replace(entries, ""))] == []
