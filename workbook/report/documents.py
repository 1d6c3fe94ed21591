"""Keeps the documents true: figures in them stand between markers and come from docs/sample_results.json.

`python -m workbook.report.documents OUT` takes over the results of a full run on the sample and writes them into the
documents; without OUT it only writes the documents again.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rfsq_robust import CONDITIONINGS
from workbook.common.errors import InputError
from workbook.common.paths import NOTEBOOKS, REPOSITORY, OutputFolder, replacing
from workbook.common.table import Bullets, Table
from workbook.common.wording import bins_label, number, with_interval
from workbook.evaluation.metrics import STAND_IN
from workbook.report.figures import comparison as figures, rate_distortion as rate_figures, replay as replay_figures
from workbook.report.figures.style import LABELS
from workbook.report.tables import comparison as tables, decision as evidence_tables, replay as replay_tables
from workbook.report.tables.sample import recordings_table
from workbook.report.text.data import remarks
from workbook.verdict import success as replay_findings
from workbook.verdict.criteria import DEPLOYABLE_MODEL, GUIDE_MODEL

RESULTS = REPOSITORY / "docs" / "sample_results.json"
VERDICT_FIGURE = REPOSITORY / "docs" / "verdict.png"
RATES_FIGURE = REPOSITORY / "docs" / "rates.png"
REPLAY_FIGURE = REPOSITORY / "docs" / "replay.png"
DOCUMENTS = ("README.md", "COMPARISON_GUIDE.md", "INTEGRATION_TO_PHASE2.md", "sample/DATA_CARD.md")
BLOCK = re.compile(r"<!-- results: ([a-z_]+) -->\n.*?<!-- end -->", re.DOTALL)
ADDRESS = re.compile(r"https://github\.com/[\w.-]+/[\w.-]+?(?=[\s/)\"'\\]|$)")

Results = dict[str, Any]


def render(text: str, results: Results) -> str:
    """The document with every marked block made anew.

    Raises:
        KeyError: a marker names no block.
    """
    return BLOCK.sub(lambda found: f"<!-- results: {found[1]} -->\n{BLOCKS[found[1]](results)}\n<!-- end -->", text)


def load_results() -> Results:
    return json.loads(RESULTS.read_text(encoding="utf8"))


def repository_address() -> str:
    """Where the repository is published, from pyproject.toml."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf8"))["project"]
    return project["urls"]["Repository"]


def colab_links(results: Results) -> str:
    path = repository_address().removeprefix("https://github.com/")
    notebooks = sorted(NOTEBOOKS.glob("*.ipynb"))
    base = f"https://colab.research.google.com/github/{path}/blob/main/notebooks"
    return "\n".join(f"- [{notebook.stem}]({base}/{notebook.name})" for notebook in notebooks)


def with_address(notebook: str) -> str:
    """A notebook's source with the repository's address in its Colab cell."""
    return ADDRESS.sub(repository_address(), notebook)


def verdict(results: Results) -> str:
    return "\n".join(
        f"- **{part['word']}** - {part['subject']}: {part['sentence']}" for part in results["verdict"]["parts"]
    )


def overview(results: Results) -> str:
    """The table of the README: every codec with its bits and what comes out of its tokens."""
    models, baselines = results["models"], results["baselines"]
    entries = [(LABELS[name], models[name], models[name]["forward_mse"]) for name in CONDITIONINGS]
    sent = models[GUIDE_MODEL]["with_statistics"]
    entries.insert(2, ("layernorm, statistics sent and counted", sent, sent["token_mse"]))
    refitted = models[GUIDE_MODEL]["refitted"]
    entries.insert(2, ("layernorm, linear decoder refitted", refitted, refitted["token_mse"]))
    entries += [(bins_label(name), e, e["token_mse"]) for name, e in baselines.items()]
    rows = [
        [
            label,
            f"{entry['bits']['per_chunk']:,.0f}",
            number(forward["mean"]),
            with_interval(entry["token_mse"]),
            number(entry["token_errors"]["position_mm"]["mean"]),
            number(entry["token_errors"][STAND_IN]["mean"]),
        ]
        for label, entry, forward in entries
    ]
    header = ["codec", "bits a chunk", "MSE, forward", "MSE, from tokens", "position error, mm a step", "drift, mm"]
    episodes, seeds = results["test"]["episodes"], len(results["provenance"]["seeds"])
    note = (
        f"{episodes} held-out episodes, {seeds} seeds, 95 % intervals in brackets; a chunk is 8 steps; MSE (mean "
        "squared error) in normalised units; layernorm with mean 0 and std 1 assumed; drift is the length of the "
        "summed position error where the gripper switches, which stands in for replays in the simulator."
    )
    return Table(header, rows, note).markdown


def comparison_of(results: Results) -> Results:
    """Results in the form that tables of the comparison stage take."""
    return {"models": results["models"], "baselines": results["baselines"], "layout": results["data"]["layout"]}


def timing(results: Results) -> str:
    """How long a run takes, from the one whose figures are quoted."""
    models = sum(len(entry["seeds"]) for entry in results["models"].values())
    seconds, whole = results["training"]["total_seconds"], results["provenance"]["run_seconds"]
    return (
        f"On {results['provenance']['cores']} CPU cores a run on the sample took {whole:.0f} s once data were read, "
        f"{seconds:.0f} s of it for training the {models} models of the five conditionings. "
        f"It grows with the number of recorded steps: the sample has {results['data']['steps']:,}."
    )


def replay_timing(results: Results) -> str:
    replay, cores = results["replay"], results["provenance"]["cores"]
    return (
        f"On {cores} CPU cores {replay['newly_played']:,} replays of {replay['episodes']} episodes of the sample took "
        f"{replay['seconds'] / 60:.0f} minutes."
    )


def layers_needed(results: Results) -> str:
    entry = results["models"][DEPLOYABLE_MODEL]
    bits = entry["bits"]["per_chunk"] / len(entry["prefix_mse"])
    rows = [[f"{k}", f"{k * bits:,.0f}", with_interval(prefix)] for k, prefix in enumerate(entry["prefix_mse"], 1)]
    return Table(["layers decoded", "bits a chunk", "MSE from tokens"], rows).markdown


def sample_counts(results: Results) -> str:
    card = results["data"]
    rows = [[task, f"{count}"] for task, count in card["tasks"].items()]
    rows.append(["all", f"{card['episodes']} ({card['steps']:,} steps)"])
    return Table(["task", "episodes"], rows).markdown


def answer(results: Results) -> str:
    return "\n".join(f"{i}. {sentence}" for i, sentence in enumerate(results["recommendation"]["sentences"], 1))


BLOCKS: dict[str, Callable[[Results], str]] = {
    "answer": answer,
    "claims": lambda r: evidence_tables.claims_table(r["guide_claims"]).markdown,
    "equal_bits": lambda r: evidence_tables.equal_bits_table(r).markdown,
    "smallest": lambda r: evidence_tables.smallest_table(r["smallest"]).markdown,
    "option_b": lambda r: evidence_tables.option_b_table(r["option_b"]).markdown,
    "policies": lambda r: evidence_tables.policy_table(r["phase2_probe"]).markdown,
    "accuracies": lambda r: evidence_tables.accuracy_table(r["phase2_probe"]).markdown,
    "draft": lambda r: evidence_tables.draft_table(r["phase2_probe"]).markdown,
    "rules": lambda r: evidence_tables.rules_table(r["recommendation"]).markdown,
    "would_change": lambda r: Bullets(r["recommendation"]["would_change"]).markdown,
    "colab": colab_links,
    "verdict": verdict,
    "overview": overview,
    "timing": timing,
    "criteria_layernorm": lambda r: tables.criteria_table(r["criteria"], GUIDE_MODEL).markdown,
    "criteria_scale": lambda r: tables.criteria_table(r["criteria"], DEPLOYABLE_MODEL).markdown,
    "physical": lambda r: tables.physical_table(comparison_of(r)).markdown,
    "bits": lambda r: tables.bits_table(comparison_of(r)).markdown,
    "layers": lambda r: tables.layers_table(r["models"]).markdown,
    "layers_needed": layers_needed,
    "against": lambda r: Bullets(r["against"]).markdown,
    "discrepancies": lambda r: Bullets(r["discrepancies"]).markdown,
    "options": lambda r: tables.options_table(r["options"]).markdown,
    "sample_counts": sample_counts,
    "replay": lambda r: replay_tables.success_table(r["replay"]).markdown,
    "replay_failures": lambda r: replay_tables.failures_table(r["replay"]).markdown,
    "replay_tasks": lambda r: replay_tables.tasks_table(r["replay"]).markdown,
    "replay_contrasts": lambda r: replay_tables.contrasts_table(r["replay"]).markdown,
    "replay_predictors": lambda r: replay_tables.predictors_table(r["replay"]).markdown,
    "replay_timing": replay_timing,
    "replay_remarks": lambda r: Bullets(replay_findings.remarks(r["replay"])).markdown,
    "sample_recordings": lambda r: recordings_table().markdown,
    "sample_remarks": lambda r: Bullets(remarks(r["data"])).markdown,
}


def take_over(out: str) -> None:
    """Make the results of a run those that the documents quote.

    Raises:
        InputError: there are none, they are no evidence, not of the sample, without replays, or of code that is not
            committed.
    """
    path = OutputFolder.at(out).results
    if not path.exists():
        raise InputError(f"{path}: no results there; run ./run_all.sh --out {out} first")
    results = json.loads(path.read_text(encoding="utf8"))
    if results["provenance"]["code"].endswith("-dirty"):
        raise InputError(f"{path}: was made from files that are not committed; commit them and run again")
    if results["verdict"]["not_evidence"] or results["provenance"]["parameters"]["data"]["data"] != "sample":
        raise InputError(f"{path}: the documents quote a full run on the sample, and this is none")
    if results["training"].get("resumed"):
        raise InputError(f"{path}: its training was cut off and gone on with, so its times mean nothing; run it again")
    replay = results["replay"]
    if not replay_findings.played(replay) or replay["shortfalls"] or replay["newly_played"] < replay["replays"]:
        raise InputError(f"{path}: the documents quote enough replays of one run; run --with-replay into a new folder")
    shutil.copyfile(path, RESULTS)
    VERDICT_FIGURE.write_bytes(figures.forward_and_tokens(comparison_of(results)).png)
    RATES_FIGURE.write_bytes(rate_figures.rate_distortion(results).png)
    REPLAY_FIGURE.write_bytes(replay_figures.success_against_bits(results["replay"]).png)


def write_documents() -> None:
    results = load_results()
    for path in (REPOSITORY / name for name in DOCUMENTS):
        _rewrite(path, lambda text: render(text, results))
    for path in NOTEBOOKS.glob("*.ipynb"):
        _rewrite(path, with_address)


def _rewrite(path: Path, change: Callable[[str], str]) -> None:
    with replacing(path) as temporary:
        temporary.write_text(change(path.read_text(encoding="utf8")), encoding="utf8")


if __name__ == "__main__":
    try:
        if len(sys.argv) > 1:
            take_over(sys.argv[1])
        write_documents()
    except InputError as error:
        sys.exit(f"error: {error}")
