"""results.json: what was decided, as values. Rows stay in the tables, and words in the report."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from typing import Any

from workbook.common import targets
from workbook.common.errors import InputError
from workbook.common.paths import OutputFolder
from workbook.common.stages import OPTIONAL, STAGES, read_document, read_optional, write_json
from workbook.evaluation.evidence import SCHEMA, Evidence
from workbook.verdict.claims import guide_claims
from workbook.verdict.criteria import GUIDES, JUDGED, Shortfall, data_doubts, evaluate, shortfalls, word_of
from workbook.verdict.recommendation import recommend
from workbook.verdict.success import success_word


def assemble(run: Evidence) -> dict[str, Any]:
    """Decide from the tables of a run, the replays among them where there are any, and write results.json.

    Raises:
        InputError: a stage is missing or older than the one it was made from.
    """
    documents = {name: read_document(run.out, name) for name in STAGES if name not in OPTIONAL}
    for name in OPTIONAL:
        with suppress(InputError):  # one that is older than the other stages counts as none
            document = read_optional(run.out, name)
            documents |= {} if document is None else {name: document}
    few, doubts = [*shortfalls(run), *short_of_batches(documents)], data_doubts(run)
    missing = [*few, *doubts]
    criteria = evaluate(run)
    recommendation = recommend(run, missing).as_json()
    results = {
        "schema": SCHEMA,
        "verdict": {
            "word": word_of(criteria, GUIDES, missing),
            "parts": [
                *({"key": codec, "word": word_of(criteria, codec, missing)} for codec in JUDGED),
                {"key": "retraining", "word": recommendation["words"]["A"]},
                {"key": "success", "word": success_word(run.replays, missing)},
            ],
            "shortfalls": [asdict(shortfall) for shortfall in few],
            "data_doubts": doubts,
        },
        "criteria": [criterion.as_json() for criterion in criteria],
        "recommendation": recommendation,
        "loop": [contrast.as_json() for contrast in run.loop.contrasts] if run.loop.played else [],
        "loop_offline": run.loop.offline_values if run.loop.played else {},
        "predictions": run.predictions.as_json() if run.predictions.given else None,
        "claims": [claim.as_json() for claim in guide_claims(run)],
        "provenance": _provenance(run.out, documents),
    }
    write_json(run.out.results, results)
    return results


def short_of_batches(documents: dict[str, Any]) -> list[Shortfall]:
    """What else keeps the recommendation from being evidence."""
    comparison, policy = documents["comparison"]["parameters"], documents["policy"]
    steps = policy["content"]["config"]["steps"]
    wanted = [Shortfall("policy_steps", steps, targets.EVIDENCE_POLICY_STEPS)]
    if not comparison["full"]:
        least = targets.EVIDENCE_BASELINE_STEPS
        wanted.append(Shortfall("baseline_steps", comparison["baseline_steps"], least))
    return [each for each in wanted if each.have < each.least]


def _provenance(out: OutputFolder, documents: dict[str, Any]) -> dict[str, Any]:
    data, training = documents["data"]["content"], documents["training"]["content"]
    started, ended = (datetime.fromisoformat(documents[name]["provenance"]["written"]) for name in ("data", "policy"))
    return documents["policy"]["provenance"] | {
        "data": "{name} ({kind})".format(**data["origin"]),
        "dataset_sha256": data["dataset_sha256"],
        "seeds": [run["seed"] for run in training["conditionings"]["scale"]["runs"]],
        "device": training["device"],
        "parameters": {name: document["parameters"] for name, document in documents.items()},
        "run_seconds": (ended - started).total_seconds() - documents["policy"]["provenance"].get("paused_seconds", 0),
    }
