"""results.json: the stages put together, in the form that the report and the documents read."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from workbook.common import targets
from workbook.common.errors import InputError
from workbook.common.paths import OutputFolder
from workbook.common.stages import OPTIONAL, STAGES, read_document, read_optional, write_json
from workbook.evaluation.layers import discrepancies
from workbook.verdict import criteria as criteria_module
from workbook.verdict.claims import guide_claims
from workbook.verdict.criteria import Criterion
from workbook.verdict.findings import against
from workbook.verdict.recommendation import options, recommend
from workbook.verdict.success import NOT_ASKED_FOR, OUT_OF_DATE, verdict_part

TRAINING_FIGURES = (
    "config", "device", "naive_checkpoint", "naive_normaliser_assumed", "total_seconds", "resumed", "best",
)  # fmt: skip


def judge_comparison(training: dict[str, Any], comparison: dict[str, Any]) -> tuple[list[Criterion], dict[str, Any]]:
    """Criteria and verdict of a training and its comparison."""
    judged = criteria_module.evaluate(comparison)
    return judged, criteria_module.decide(judged, comparison, missing_evidence(training, comparison))


def missing_evidence(training: dict[str, Any], comparison: dict[str, Any]) -> list[str]:
    """What keeps a run from being evidence."""
    seeds = min(len(comparison["models"][name]["seeds"]) for name in comparison["models"] if name != "none")
    return criteria_module.shortfalls(training["config"]["epochs"], seeds, comparison["test_episodes"])


def short_of_batches(rates: dict[str, Any], phase2: dict[str, Any]) -> list[str]:
    """What else keeps the recommendation from being evidence; rates: the parameters of that stage."""
    wanted = [(phase2["config"]["steps"], targets.EVIDENCE_POLICY_STEPS, "batches of the policies")]
    if not rates["full"]:
        wanted.append((rates["baseline_steps"], targets.EVIDENCE_BASELINE_STEPS, "batches of the field's quantizers"))
    return [f"{have} of at least {least} {name}" for have, least, name in wanted if have < least]


def _seconds_between(first: dict[str, Any], last: dict[str, Any]) -> float:
    """From when the first stage was written to when the last was."""
    started, ended = (datetime.fromisoformat(document["provenance"]["written"]) for document in (first, last))
    return (ended - started).total_seconds()


def assemble(out: OutputFolder) -> dict[str, Any]:
    """Write results.json from the stages, the replay among them where there is one, and return it.

    Raises:
        InputError: a stage is missing or older than the one it was made from.
    """
    documents = {name: read_document(out, name) for name in STAGES if name != OPTIONAL}
    try:
        replayed = read_optional(out)
        replay = NOT_ASKED_FOR if replayed is None else replayed["content"]
    except InputError:
        replayed, replay = None, OUT_OF_DATE
    content = {name: document["content"] for name, document in documents.items()}
    training, comparison, residuals = (content[name] for name in ("training", "comparison", "residuals"))
    rates, option_b, phase2 = (content[name] for name in ("rates", "option_b", "phase2"))
    missing = missing_evidence(training, comparison) + short_of_batches(documents["rates"]["parameters"], phase2)
    recommendation = recommend(comparison, rates, option_b, phase2, missing)
    judged = criteria_module.evaluate(comparison)
    verdict = criteria_module.decide(judged, comparison, missing, recommendation, verdict_part(replay, missing))
    results = {
        "verdict": verdict,
        "recommendation": recommendation,
        "criteria": criteria_module.as_json(judged),
        "guide_claims": guide_claims(training, comparison, residuals, option_b, phase2, replay),
        "models": {name: entry | residuals[name] for name, entry in comparison["models"].items()},
        "baselines": comparison["baselines"],
        **rates,
        "option_b": option_b,
        "phase2_probe": phase2,
        "replay": replay,
        "against": against(comparison, residuals, replay),
        "options": options(recommendation, option_b, phase2),
        "discrepancies": discrepancies(comparison, residuals),
        "data": content["data"],
        "test": {"episodes": comparison["test_episodes"], "steps": comparison["test_steps"]},
        "training": {name: training[name] for name in TRAINING_FIGURES},
        "provenance": documents["phase2"]["provenance"]
        | {
            "data": "{name} ({kind})".format(**content["data"]["origin"]),
            "dataset_sha256": content["data"]["dataset_sha256"],
            "seeds": comparison["models"]["scale"]["seeds"],
            "device": training["device"],
            "parameters": {name: document["parameters"] for name, document in documents.items()}
            | ({} if replayed is None else {OPTIONAL: replayed["parameters"]}),
            "run_seconds": _seconds_between(documents["data"], documents["phase2"]),
        },
    }
    write_json(out.results, results)
    return results
