"""Every language says the same things, and Chinese is read as easily as English."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

import jinja2
import pytest
from jinja2 import nodes

from workbook.codecs.catalogue import catalogue
from workbook.common.errors import InputError
from workbook.common.intervals import Estimate
from workbook.evaluation.evidence import Evidence
from workbook.report import text
from workbook.report.blocks import BLOCKS, show
from workbook.report.documents import SAMPLE_RUN
from workbook.report.figures import style
from workbook.report.text import speaking, words
from workbook.report.text.badges import badge
from workbook.report.text.recommendation import headline, sentences, use

LONGEST = 60  # characters of a Chinese sentence
FULL_STOPS = re.compile("[\u3002\uff01\uff1f]")
CHINESE = re.compile("[\u4e00-\u9fff]")
TOPICS = sorted(path.stem for path in (text.FOLDER / "en").glob("*.j2"))
LANGUAGES = text.languages()
Outline = dict[str, object]


def _shape(value: nodes.Node) -> object:
    """Keys of a dictionary and length of a list; of all else only that it is there."""
    if isinstance(value, nodes.Dict):
        return {pair.key.as_const(): _shape(pair.value) for pair in value.items}
    if isinstance(value, nodes.List | nodes.Tuple):
        return [_shape(item) for item in value.items]
    return "..."


def _named(target: nodes.Node) -> str:
    assert isinstance(target, nodes.Name | nodes.Tuple)
    return target.name if isinstance(target, nodes.Name) else ", ".join(map(_named, target.items))


def outline(source: str) -> Outline:
    """Labels with the shape of what they hold, and macros with their parameters, of a template."""
    found: Outline = {}
    for node in jinja2.Environment().parse(source).body:
        if isinstance(node, nodes.Assign):
            found[_named(node.target)] = _shape(node.node)
        elif isinstance(node, nodes.Macro):
            assert node.name not in found, f"{node.name} stands twice"
            found[node.name] = ([argument.name for argument in node.args], len(node.defaults))
    return found


def of(language: str, topic: str) -> str:
    return (text.FOLDER / language / f"{topic}.j2").read_text(encoding="utf8")


def _differing(one: Outline, other: Outline) -> set[str]:
    return {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}


def test_there_is_chinese() -> None:
    assert LANGUAGES == ["en", "zh"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_has_every_template_and_no_other(language: str) -> None:
    assert sorted(path.stem for path in (text.FOLDER / language).glob("*.j2")) == TOPICS


@pytest.mark.parametrize("topic", TOPICS)
def test_no_label_key_macro_or_parameter_is_missing_in_either_language(topic: str) -> None:
    assert not _differing(outline(of("en", topic)), outline(of("zh", topic)))


@pytest.mark.parametrize(
    "changed",
    [
        '{% set a = {"x": 1} %}{% set b = ["p"] %}{% macro m(u, v=1) %}{% endmacro %}',
        '{% set a = {"x": 1, "y": 2} %}{% set b = ["p", "q"] %}{% macro m(u, v=1) %}{% endmacro %}',
        '{% set a = {"x": 1, "y": 2} %}{% set b = ["p"] %}{% macro m(u, w=1) %}{% endmacro %}',
        '{% set a = {"x": 1, "y": 2} %}{% set b = ["p"] %}{% macro m(u, v) %}{% endmacro %}',
        '{% set a = {"x": 1, "y": 2} %}{% set b = ["p"] %}',
    ],
)
def test_whatever_is_missing_shows(changed: str) -> None:
    """The guard of the test above: it can fail."""
    whole = '{% set a = {"x": 1, "y": 2} %}{% set b = ["p"] %}{% macro m(u, v=1) %}{% endmacro %}'
    assert not _differing(outline(whole), outline(whole))
    assert len(_differing(outline(whole), outline(changed))) == 1


class TestSpeaking:
    def test_within_the_block_alone_another_language_is_spoken(self) -> None:
        before = words("pages").language
        with speaking("zh"):
            assert words("pages").language == "zh-CN"
            with speaking(""):
                assert words("pages").language == "zh-CN"
            with speaking("en"):
                assert words("pages").language == "en"
            assert words("pages").language == "zh-CN"
        assert words("pages").language == before == "en"

    def test_it_goes_before_the_environment_and_ends_with_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(text.LANGUAGE_VARIABLE, "zh")
        with pytest.raises(InputError), speaking("en"):
            raise InputError(words("pages").language)
        assert words("pages").language == "zh-CN"

    def test_a_line_that_is_broken_in_a_template_leaves_no_space_beside_wide_punctuation(self) -> None:
        stop, opening, closing = "\u3002", "\uff08", "\uff09"
        broken = f"一{stop}\n二 {opening}三{closing}\n 四 token.\n five"
        assert text._folded(broken) == f"一{stop}二{opening}三{closing}四 token. five"


def test_statuses_keep_their_looks_in_every_language() -> None:
    with speaking("zh"):
        assert badge("NOT SHOWN").html == '<span class="badge not-shown">未证实</span>'
    assert badge("met").html == '<span class="badge met">met</span>'


@pytest.fixture(scope="module")
def sample() -> Evidence:
    return Evidence(SAMPLE_RUN)


@pytest.mark.parametrize("name", [name for name in BLOCKS if not name.endswith("_figure") and name != "replay_paths"])
def test_every_block_of_the_sample_run_has_words(sample: Evidence, name: str) -> None:
    with speaking("zh"):
        html = show(sample, name).html
    for wrong in ("nan", "None", "inf"):
        assert wrong not in html.split()
    cells = re.findall(r"<th>(.*?)</th>", html)
    assert not cells or CHINESE.search("".join(cells)) or name == "provenance"


def _too_long(told: Iterable[str]) -> list[str]:
    return [part for each in told for part in FULL_STOPS.split(each) if len(part) > LONGEST]


def test_sentences_of_the_chinese_answer_are_short(sample: Evidence) -> None:
    with speaking("zh"):
        told, answer = [*sentences(sample), use(sample)], headline(sample)
    assert told[0].startswith(answer)
    assert not _too_long(told)


@pytest.mark.parametrize("gain", [Estimate(0.123, 0.101, 0.156), Estimate(-0.123, -0.456, 0.101), Estimate(-0.5)])
def test_sentences_of_any_chinese_answer_are_short(gain: Estimate) -> None:
    """Of every option and decode rule, of the longest title, and of differences that are shown or not."""
    contrasts, longest = defaultdict(lambda: gain), max((entry.title for entry in catalogue().values()), key=len)
    with speaking("zh"):
        said, rules = words("recommendation"), words("policy").rules
        told = [
            said.whether(option, lack, longest, contrasts, True) for option in said.answers for lack in said.lacking
        ]
        for rule in rules:
            told.append(said.how(rule, gain, contrasts))
            told.append(said.which(longest, "", False, 1024, rule, contrasts, {"bits": gain, "words": gain}))
            told += [said.use("A", "rfsq_robust_scale_best.pt", 8, rule, by_loop) for by_loop in (True, False)]
    assert not _too_long(told)


def test_figures_are_english_where_no_font_has_the_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(style, "CJK_FONTS", ())
    with speaking("zh"):
        with style.in_letters_at_hand():
            assert words("pages").language == "en"
        assert words("pages").language == "zh-CN"
        monkeypatch.setattr(style, "_lacking", lambda text: [])
        with style.in_letters_at_hand():
            assert words("pages").language == "zh-CN"
