"""The predictions of the user's own Phase 2 in words."""

from __future__ import annotations

from workbook.evaluation.evidence import Evidence
from workbook.evaluation.predictions.evidence import ACCEPTANCES, decide
from workbook.report.text import words


def answers(run: Evidence) -> list[str]:
    """The two questions that they can answer; nothing where none were given."""
    return words("predictions").sentences("answers", decide(run.predictions)) if run.predictions.given else []


def remarks(run: Evidence) -> list[str]:
    """The answers, and what to know beside them."""
    found, said = run.predictions, words("predictions")
    if not found.given:
        return [said.not_given(found.values["not_run"])]
    shares = {name: found.acceptance(name) for name in ACCEPTANCES} | {"not_copied": found.not_copied()}
    of_main = found.of_model("main")
    layers = {kind: of_main.layer[of_main[kind].fillna(False).astype(bool)].tolist() for kind in ("dead", "copied")}
    accuracy = found.accuracy(), found.accuracy(telling=True)
    return [*answers(run), *said.sentences("remarks", found.values, accuracy, layers, shares)]
