"""The comparison of two checkpoints as plain text, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap

from workbook.common import targets
from workbook.evaluation.checkpoints import ERRORS, Values
from workbook.report.text import words
from workbook.report.text.data import concerns

WIDTH = 118  # characters of a line of notes


def as_text(report: Values) -> str:
    """The report as plain text, in aligned columns."""
    say, scored, models = words("checkpoints"), report["scored"], report["models"]
    blocks = [
        [*concerns(report["concerns"]), say.data(scored), say.scored(scored), *map(say.of_note, report["remarks"])],
        [*_aligned(_error_rows(report)), *wrap(say.errors_note("statistics_sent" in report["improvement"]), WIDTH)],
        [*_aligned(_fine_rows(models)), *wrap(say.fine_note, WIDTH)],
        _aligned(_physical_rows(models)),
        [say.verdict, *_aligned(_verdict_rows(report))],
    ]
    return "\n\n".join("\n".join(block) for block in blocks)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _error_rows(report: Values) -> list[list[str]]:
    say, with_interval = words("checkpoints"), words("phrases").with_interval
    naive, robust, gain = report["models"]["naive"], report["models"]["robust"], report["improvement"]
    named = {say.naive: naive, say.robust(robust["conditioning"]): robust}
    rows, sent = [say.errors_header], "statistics_sent" in gain
    for (name, model), expected in zip(named.items(), (targets.EXPECTED_NAIVE_MSE, targets.EXPECTED_MSE), strict=True):
        mse = [with_interval(model["mse"][way]) for way in ("forward", "tokens")]
        rows.append([name, *mse, say.bits(model["bits_per_chunk"]["tokens"]), say.expected(expected)])
    if sent:
        mse, bits = (robust[name]["statistics_sent"] for name in ("mse", "bits_per_chunk"))
        rows.append([say.statistics_sent, "", with_interval(mse), say.bits(bits), ""])
    expected_gain = say.expected_gain(targets.EXPECTED_IMPROVEMENT)
    rows.append([say.improvement, say.gain(gain["forward"]), say.gain(gain["tokens"]), "", expected_gain])
    if sent:
        rows.append([say.statistics_sent, "", say.gain(gain["statistics_sent"]), "", ""])
    for (name, model), expected in zip(named.items(), targets.EXPECTED_COARSE_MSE, strict=True):
        coarse = model["coarse"]
        shown = [with_interval(coarse[way]) if coarse else say.no_layers for way in ("with_statistics", "tokens")]
        rows.append([say.coarse(name), *shown, "", say.expected(expected)])
    return rows


def _fine_rows(models: Values) -> list[list[str]]:
    say = words("checkpoints")
    guide = {"stds": say.expected_std(*targets.EXPECTED_NAIVE_STD[targets.FINE_LAYERS])}
    fines = [models[role]["fine"] for role in ("naive", "robust")]
    rows = [say.fine_header, [*say.fine_mse, say.expected_pair(targets.EXPECTED_FINE_MSE)]]
    for key, label in say.fine_rows.items():
        cells = [getattr(say, key)(fine) if fine else say.no_layers for fine in fines]
        rows.append([label, *cells, guide.get(key, "")])
    return rows


def _physical_rows(models: Values) -> list[list[str]]:
    say, with_interval = words("checkpoints"), words("phrases").with_interval
    naive, robust = (models[role]["errors"] for role in ("naive", "robust"))
    rows = [say.physical_header]
    for name in ERRORS:
        if naive[name]["mean"] is not None:
            expected = targets.EXPECTED_ERRORS.get(name)
            cells = [with_interval(errors[name]) for errors in (naive, robust)]
            rows.append([say.physical[name], *cells, say.expected_pair(expected) if expected else ""])
    return rows


def _verdict_rows(report: Values) -> list[list[str]]:
    say, verdict = words("checkpoints"), report["verdict"]
    asked = {
        "mse": say.mse_target(targets.MSE_BELOW),
        "improvement": say.improvement_target(targets.IMPROVEMENT_ABOVE),
    }
    rows = [["", *(say.ways[way] for way in verdict["mse"])]]
    rows += [[target, *(say.statuses[verdict[name][way]] for way in verdict["mse"])] for name, target in asked.items()]
    return rows
