"""results.json: the stages put together, in the form that the report and the documents read."""

from __future__ import annotations

from typing import Any

from workbook import criteria as criteria_module
from workbook.criteria import Criterion
from workbook.findings import against, options
from workbook.paths import OutputFolder
from workbook.residual_analysis import partings
from workbook.stages import STAGES, read_document, write_json

TRAINING_FIGURES = ("config", "device", "naive_checkpoint", "naive_normaliser_assumed", "total_seconds", "best")


def judge_comparison(training: dict[str, Any], comparison: dict[str, Any]) -> tuple[list[Criterion], dict[str, Any]]:
    """Criteria and verdict of a training and its comparison."""
    judged = criteria_module.evaluate(comparison)
    seeds = min(len(comparison["models"][name]["seeds"]) for name in comparison["models"] if name != "none")
    missing = criteria_module.shortfalls(training["config"]["epochs"], seeds, comparison["test_episodes"])
    return judged, criteria_module.decide(judged, comparison, missing)


def assemble(out: OutputFolder) -> dict[str, Any]:
    """Write results.json from the four stages and return it.

    Raises:
        InputError: a stage is missing or older than the one it was made from.
    """
    documents = {name: read_document(out, name) for name in STAGES}
    content = {name: document["content"] for name, document in documents.items()}
    training, comparison, residuals = (content[name] for name in ("training", "comparison", "residuals"))
    judged, verdict = judge_comparison(training, comparison)
    results = {
        "verdict": verdict,
        "criteria": criteria_module.as_json(judged),
        "models": {name: entry | residuals[name] for name, entry in comparison["models"].items()},
        "baselines": comparison["baselines"],
        "against": against(comparison, residuals),
        "options": options(comparison, residuals),
        "partings": partings(comparison, residuals),
        "data": content["data"],
        "test": {"episodes": comparison["test_episodes"], "steps": comparison["test_steps"]},
        "training": {name: training[name] for name in TRAINING_FIGURES},
        "provenance": documents["residuals"]["provenance"]
        | {
            "data": "{name} ({kind})".format(**content["data"]["origin"]),
            "dataset_sha256": content["data"]["dataset_sha256"],
            "seeds": comparison["models"]["scale"]["seeds"],
            "device": training["device"],
            "parameters": {name: document["parameters"] for name, document in documents.items()},
        },
    }
    write_json(out.results, results)
    return results
