"""HTML pages: the executed notebooks, and the first page that a reader decides from."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import jinja2
import nbformat
from markupsafe import Markup
from nbconvert import HTMLExporter

from workbook.common import targets
from workbook.common.paths import OutputFolder, replacing
from workbook.common.table import Badge, Bullets
from workbook.report.figures import (
    comparison as comparison_figures,
    layers as residual_figures,
    policy as phase2_figures,
    rate_distortion as rate_figures,
    replay as replay_figures,
)
from workbook.report.tables import comparison as tables, decision as evidence_tables
from workbook.report.tables.replay import success_table
from workbook.report.text.data import remarks
from workbook.verdict.criteria import DEPLOYABLE_MODEL, GUIDE_MODEL
from workbook.verdict.success import SUBJECT as REPLAY_SUBJECT, played, remarks as remarks_on_replay

TEMPLATES = Path(__file__).parent / "templates"
# Installation on Colab, and parameters, whose effective values stand in the footer.
DROPPED_TAGS = {"remove_cell", "parameters", "injected-parameters"}
PAGES = (
    ("index.html", "Verdict"),
    ("01_data.html", "1 Data"),
    ("02_train_robust.html", "2 Training"),
    ("03_compare.html", "3 Comparison"),
    ("04_residual_analysis.html", "4 Residuals"),
    ("05_replay.html", "5 Replay"),
)


def write_reports(out: OutputFolder, results: dict[str, Any], executed: dict[str, Path]) -> None:
    """Write reports/: one page for each executed notebook (stem -> file), and index.html last."""
    out.reports.mkdir(exist_ok=True)
    written = [(name, label) for name, label in PAGES if name == "index.html" or Path(name).stem in executed]
    for stem, notebook in executed.items():
        _write_page(out, f"{stem}.html", _notebook_body(notebook), results, written)
    _write_page(out, "index.html", _index_body(results), results, written)


def _write_page(out: OutputFolder, name: str, body: str, results: dict[str, Any], pages: list[tuple[str, str]]) -> None:
    label = dict(pages)[name]
    page = _environment().get_template("page.html.j2").render(
        title=f"{label} - robust RFSQ",
        pages=pages,
        current=name,
        body=Markup(body),
        banner=Markup(tables.not_evidence(results["verdict"]).html),
        provenance=Markup(tables.provenance_table(results["provenance"]).html),
    )  # fmt: skip
    with replacing(out.reports / name) as temporary:
        temporary.write_text(page, encoding="utf8")


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )


def _notebook_body(path: Path) -> str:
    """The notebook as HTML with the code folded, and nothing in it that reaches outside the file."""
    exporter = HTMLExporter(template_name="notebook", extra_template_basedirs=[str(TEMPLATES)])
    exporter.exclude_input_prompt = exporter.exclude_output_prompt = True
    notebook = nbformat.read(path, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if not DROPPED_TAGS & set(cell.metadata.get("tags", []))]
    body, _ = exporter.from_notebook_node(notebook)
    return body


def _index_body(results: dict[str, Any]) -> str:
    comparison = {"models": results["models"], "baselines": results["baselines"]}
    figures = [
        comparison_figures.forward_and_tokens(comparison),
        comparison_figures.improvements(comparison),
        residual_figures.residual_std(results["models"]),
    ]
    recommendation = results["recommendation"]
    html = {
        "answer": evidence_tables.answer_block(results).html,
        "rates": rate_figures.rate_distortion(results).as_html() + evidence_tables.equal_bits_table(results).html,
        "smallest": evidence_tables.smallest_table(results["smallest"]).html,
        "rules": evidence_tables.rules_table(recommendation).html,
        "would_change": Bullets(recommendation["would_change"]).html,
        "policies": phase2_figures.policies(results["phase2_probe"]).as_html(),
        "option_b": evidence_tables.option_b_table(results["option_b"]).html,
        "claims": evidence_tables.claims_table(results["guide_claims"]).html,
        "replay": _replay(results),
        "verdict": tables.verdict_block(results["verdict"]).html,
        "options": tables.options_table(results["options"]).html,
        "against": Bullets(results["against"]).html,
        "discrepancies": Bullets(results["discrepancies"]).html,
        "method": Bullets(method(results)).html,
        "bits": tables.bits_table(comparison).html,
        "data": Bullets(remarks(results["data"])).html,
    }
    return _environment().get_template("index.html.j2").render(
        question=QUESTION,
        target=f"MSE < {targets.MSE_BELOW:g}",
        criteria={
            name: Markup(tables.criteria_table(results["criteria"], name).html)
            for name in (GUIDE_MODEL, DEPLOYABLE_MODEL)
        },
        figures=[Markup(figure.as_html()) for figure in figures],
        **{name: Markup(text) for name, text in html.items()},
    )  # fmt: skip


def _replay(results: dict[str, Any]) -> str:
    """What happened to the task's success; why that is not known, where there was no replay."""
    replay = results["replay"]
    said = Bullets(remarks_on_replay(replay)).html
    if not played(replay):
        return said
    part = next(part for part in results["verdict"]["parts"] if part["subject"] == REPLAY_SUBJECT)
    sentence = part["sentence"][0].upper() + part["sentence"][1:]
    return (
        f"<p>{Badge(part['word']).html} {escape(sentence)}</p>"
        + replay_figures.success_against_bits(replay).as_html()
        + success_table(replay).html
        + replay_figures.paths(replay).as_html()
        + said
    )


QUESTION = (
    "RFSQ is residual finite scalar quantization: each layer rounds what the layers before it left over. Phase 2 is "
    "the policy that predicts its tokens, Phase 3 the robot that decodes them. MSE is mean squared error."
)


def method(results: dict[str, Any]) -> list[str]:
    """How the figures came about, in sentences made from the run's own parameters."""
    data, config = results["data"], results["training"]["config"]
    split, seeds = data["split"], results["provenance"]["seeds"]
    return [
        f"{data['episodes']} episodes ({data['steps']:,} steps) split by episode, stratified by file and task: "
        f"{split['train']} train, {split['validation']} validation, {split['test']} test. The normaliser (min-max to "
        "[-1, 1]) and every fit saw the train part, the epoch was chosen on the validation part, and every error on "
        "this page is of the test part.",
        f"{len(seeds)} seeds of each conditioning, {config['epochs']} epochs of AdamW at a learning rate of "
        f"{config['learning_rate']:g} and batches of {config['batch_size']} chunks of {data['chunks']['length']} "
        "steps; "
        f"{config['num_layers']} layers of {config['num_levels']} levels on {config['hidden_dim']} latents a step.",
        _baselines_and_policies(results),
        "Intervals are 95 % by bootstrap over test episodes and seeds; differences are paired by both.",
        "'From tokens alone' means that the decoder got what encode returned and nothing else; that of layernorm then "
        "has to assume mean 0 and std 1. Bits are counted at fixed length with side information included.",
        f"A run is evidence from {targets.EVIDENCE_EPOCHS} epochs, {targets.EVIDENCE_SEEDS} seeds and "
        f"{targets.EVIDENCE_TEST_EPISODES} test episodes; below that every page says NOT EVIDENCE.",
        f"Naive models: {_naive_origin(results['training'])}",
    ]


def _baselines_and_policies(results: dict[str, Any]) -> str:
    rates, probe = results["provenance"]["parameters"]["rates"], results["phase2_probe"]
    config = probe["config"]
    trained = "as long as the RFSQ" if rates["full"] else f"for about {rates['baseline_steps']:,} batches"
    return (
        f"The field's quantizers were trained {trained}; bins, KLT, FAST-style tokens and KLT-RFSQ are fitted without "
        f"gradients. Policies: {config['steps']:,} batches of {config['batch_size']} chunks, {probe['seeds']} seeds "
        "for every codec; they see the task, the chunk before and where the commands have led; decode rule and layers "
        "were chosen on the validation part."
    )


def _naive_origin(training: dict[str, Any]) -> str:
    file = training["naive_checkpoint"]
    if file is None:
        return "trained here, on the same episodes and seeds as the others."
    normaliser = (
        "it carries no normaliser, so that of this data set is assumed, and a wrong guess makes naive look worse"
        if training["naive_normaliser_assumed"]
        else "with the normaliser that it carries"
    )
    return f"the given file {file}; {normaliser}. Its train episodes are not known, and may be among the test ones."
