"""The verdict, its criteria, and the guide's claims."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from types import SimpleNamespace
from typing import Any

from workbook.codecs.catalogue import Setting
from workbook.common.numbers import number
from workbook.common.table import Badge, Html, Table
from workbook.data.split import FRACTIONS
from workbook.evaluation.evidence import Evidence
from workbook.evaluation.score import ENCODER
from workbook.report.text import words
from workbook.report.text.badges import badge
from workbook.verdict.criteria import JUDGED, cheaper_rounding, data_doubts, evaluate, shortfalls, word_of

Values = dict[str, Any]


def verdict_block(run: Evidence) -> Html:
    """The verdict, and above it, where the run is no evidence, that it is none."""
    parts = "".join(
        f"<p>{badge(part['word']).html} <strong>{escape(_capital(subject(part['key'])))}:</strong> "
        f"{escape(part_sentence(run, part['key']))}</p>"
        for part in verdict_parts(run)
    )
    return Html(f'<div class="verdict">{not_evidence(run).html}{parts}</div>')


def verdict_parts(run: Evidence) -> list[Values]:
    """Key and word of each part; before results.json is written, of what 03_compare can judge."""
    if run.decided:
        return run.results["verdict"]["parts"]
    criteria, missing = evaluate(run), [*shortfalls(run), *data_doubts(run)]
    judged = [{"key": codec, "word": word_of(criteria, codec, missing)} for codec in JUDGED]
    return [*judged, {"key": "retraining", "word": "NOT RUN"}]


def subject(key: str) -> str:
    return words("criteria").titles[key]


def part_sentence(run: Evidence, key: str) -> str:
    """What stands behind a word of the verdict."""
    if key in JUDGED:
        return codec_sentence(run, key)
    if key == "success":
        from workbook.report.text.replay import verdict_sentence

        return verdict_sentence(run)
    if not run.decided:
        return words("criteria").retraining
    from workbook.report.text.recommendation import whether

    return whether(run)


def codec_sentence(run: Evidence, codec: str) -> str:
    """What is decided of one codec, from its scores."""
    scores, said = run.scores, words("criteria")
    token = scores.estimate("mse", codec).mean
    if float(run.models[run.models.codec == codec].decode_error.max()) > 0:
        forward, refitted = scores.estimate("mse", codec, decoding=ENCODER).mean, f"{codec}_refitted"
        known = scores.has(refitted)  # no decoder is refitted to tokens that should decode as they are
        error = scores.estimate("mse", refitted).mean if known else None
        return said.undecodable(token, forward, error, scores.improvement(refitted).mean if known else None)
    setting = cheaper_rounding(scores, codec)
    bins, bits = (
        (None, None) if setting is None else (Setting.parse(setting).count("bins"), _bits(run, "bins", setting))
    )
    return said.decodable(token, _bits(run, codec), scores.improvement(codec), bins, bits)


def _bits(run: Evidence, codec: str, setting: str = "") -> float:
    return run.scores.cost(codec, setting)["bits"]


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def missing_evidence(run: Evidence) -> list[Values]:
    if run.decided:
        return run.results["verdict"]["shortfalls"]
    return [asdict(shortfall) for shortfall in shortfalls(run)]


def why_no_evidence(run: Evidence) -> list[str]:
    """A sentence of the data and one of the run, where it is not evidence."""
    said, missing = words("criteria"), missing_evidence(run)
    doubts = [words("data").of_note(doubt) for doubt in data_doubts(run)]
    tested = 1.0 if run.folds else FRACTIONS["test"]
    return [
        *([said.doubtful(doubts)] if doubts else []),
        *([said.too_little(missing, tested)] if missing else []),
    ]


def not_evidence(run: Evidence) -> Html:
    return Html("".join(f'<p class="not-evidence">{escape(sentence)}</p>' for sentence in why_no_evidence(run)))


def judged_criteria(run: Evidence) -> list[Values]:
    return run.results["criteria"] if run.decided else [criterion.as_json() for criterion in evaluate(run)]


def criteria_table(run: Evidence, codec: str) -> Table:
    """Threshold, measured value, interval, n and status of every criterion for one codec."""
    said, seeds = words("criteria"), int(run.models[run.models.codec == codec].seed.nunique())
    rows = [
        [
            said.names[row["key"]],
            said.threshold(row["key"], row["threshold"]),
            *_measured(row),
            _counted(row, seeds, run.folds),
            badge(row["status"]),
            said.yes if row["required"] else said.no,
        ]
        for row in judged_criteria(run)
        if row["codec"] == codec
    ]
    return Table(said.header, rows, said.note(codec))


def _counted(row: Values, seeds: int, folds: int) -> str:
    if row["of"] == "episodes":
        return words("phrases").tested(row["n"], seeds, folds)
    return f"{row['n']} {words('criteria').counted[row['of']]}"


def _measured(row: Values) -> tuple[str, str]:
    """The figure and its interval; of a share, in per cent."""
    of_share = row["key"].startswith(("improvement", "overhead"))
    say = words("phrases")
    write = say.share if of_share else number
    value = say.of(f"{row['measured']:.0f}", row["n"]) if row["key"] == "checkpoints" else write(row["measured"])
    if not row["interval"]:
        return value, "-"
    low, high = row["interval"]
    if of_share and high < -1:
        return value, words("criteria").times_the_error(low, high)
    return value, say.range(write(low), write(high))


def claims_table(run: Evidence, keys: Sequence[str] = ()) -> Table:
    """The guide's claims beside what was measured; keys: which of them, all where none is named."""
    from workbook.report.text.replay import why_not

    said, not_run = words("claims"), "" if run.replays.played else why_not(run)
    claims = [SimpleNamespace(**claim) for claim in run.results["claims"] if not keys or claim["key"] in keys]
    rows = [
        [said.claim(c), said.claimed(c), said.measured(c), Badge(said.words[c.status]), said.why(c, not_run)]
        for c in claims
    ]
    return Table(said.header, rows)


def verdict_lines(run: Evidence) -> list[str]:
    """The verdict as lines for a terminal."""
    parts = (f"{p['word']:<9}  {subject(p['key'])}: {part_sentence(run, p['key'])}" for p in verdict_parts(run))
    return [*why_no_evidence(run), *parts]
