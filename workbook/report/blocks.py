"""Named blocks: what notebooks, pages and documents show of a run, each made in one place from the run's files.

A notebook shows `show(run, "verdict")`. The name goes into its output, so that the page of the executed notebook is
made anew from the same files whenever words change, and nothing is computed again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache
from html import escape
from importlib import import_module
from typing import Any, cast

from workbook.common import targets
from workbook.common.errors import InputError
from workbook.common.table import Bullets, Html, Table
from workbook.evaluation.evidence import Evidence
from workbook.report.drawings import TEMPLATES, Drawing
from workbook.report.figures.style import Plot, in_letters_at_hand
from workbook.report.text import words
from workbook.report.text.badges import badge

DARK_PAGE = "@media (prefers-color-scheme: dark)"
# Of a notebook alone, where no script folds long tables, and drawings go by its theme.
OF_NOTEBOOKS = """.scroll { max-height: 1000px; overflow-y: auto; }
thead { position: sticky; top: 0; background: var(--jp-layout-color0, var(--bg)); }
.dots { color: inherit; }"""
MIMETYPE = "application/vnd.workbook.block+json"
Content = Table | Bullets | Html | Plot | Drawing


@dataclass(frozen=True, eq=False)
class Block:
    """A block as a notebook displays it: what it shows, and its name."""

    name: str
    content: Content = field(repr=False)

    @property
    def html(self) -> str:
        return self.content.as_html() if isinstance(self.content, Plot | Drawing) else self.content.html

    @property
    def markdown(self) -> str:
        """As a document shows it.

        Raises:
            TypeError: it is a picture, or made for pages alone.
        """
        text = "" if isinstance(self.content, Plot | Drawing) else self.content.markdown
        if not text:
            raise TypeError(f"block '{self.name}' has no Markdown")
        return text

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        named = {MIMETYPE: {"name": self.name}}
        if isinstance(self.content, Plot):
            data, metadata = self.content._repr_mimebundle_()
            return data | named, metadata
        text = "" if isinstance(self.content, Drawing) else self.content.markdown
        markdown = {"text/markdown": text} if text else {}
        return {"text/html": _styled(self.html)} | markdown | named, {}


def _styled(html: str) -> str:
    """As on a page, in a notebook; each output by itself, because some frontends keep outputs apart."""
    return f'<div class="workbook"><style>{_style_of_outputs()}</style>{html}</div>' if html else ""


@cache
def _style_of_outputs() -> str:
    """The style sheet of pages for what stands in .workbook alone, and dark where the notebook is."""
    style = (TEMPLATES / "style.css").read_text(encoding="utf8")
    dark = '[data-jp-theme-light="false"] &, .vscode-dark &'
    # Twice the class, to count more than JupyterLab's rules for tables.
    return f".workbook.workbook {{ {style.replace(DARK_PAGE, dark).replace(':root', '&')} {OF_NOTEBOOKS} }}"


def show(run: Evidence, name: str) -> Block:
    """A block of a run.

    Raises:
        InputError: no block has that name.
    """
    if name not in BLOCKS:
        raise InputError(f"{name}: no such block; workbook/report/blocks.py lists them")
    return Block(name, BLOCKS[name](run))


def _made(module: str, function: str, *more: Any) -> Callable[[Evidence], Any]:
    """What a function of the report makes of a run; imported when it is asked for, for a page needs few of many."""

    def make(run: Evidence) -> Any:
        with in_letters_at_hand() if module.startswith("figures.") else nullcontext():
            return getattr(import_module(f"workbook.report.{module}"), function)(run, *more)

    return make


def _bullets(module: str, function: str) -> Callable[[Evidence], Bullets]:
    sentences = cast(Callable[[Evidence], Sequence[str]], _made(module, function))
    return lambda run: Bullets(sentences(run))


def _verdict(run: Evidence) -> Html:
    from workbook.report.tables.verdict import part_sentence, subject, verdict_block, verdict_parts

    parts = [
        words("pages").verdict_part(part["word"], subject(part["key"]), part_sentence(run, part["key"]))
        for part in verdict_parts(run)
    ]
    return Html(verdict_block(run).html, Bullets(parts).markdown)


def _answer(run: Evidence) -> Html:
    from workbook.report.tables.policy import answer_block
    from workbook.report.text.recommendation import headline, sentences

    answer, (first, *others) = headline(run), sentences(run)
    told = [f"**{answer}** {first.removeprefix(answer).strip()}", *others]
    numbered = "\n".join(f"{place}. {sentence}" for place, sentence in enumerate(told, start=1))
    return Html(answer_block(run).html, numbered)


def _do(run: Evidence) -> Html:
    from workbook.report.decision import do

    return _paragraph(do(run))


def _found(name: str) -> Callable[[Evidence], Html]:
    """What a fold of the first page says that it finds, as a sentence."""

    def make(run: Evidence) -> Html:
        from workbook.report.decision import findings

        finding = findings(run)[name]
        return _paragraph(f"{finding[0].upper()}{finding[1:]}.")

    return make


def _replay_verdict(run: Evidence) -> Html:
    from workbook.report.tables.verdict import part_sentence, verdict_parts

    part = next(part for part in verdict_parts(run) if part["key"] == "success")
    sentence = part_sentence(run, "success")
    return Html(f"<p>{badge(part['word']).html} {escape(sentence[0].upper() + sentence[1:])}</p>")


def _method(run: Evidence) -> Bullets:
    """How the figures came about, from the run's own parameters."""
    made_from = run.results["provenance"]
    training, comparison = run.training, made_from["parameters"]["comparison"]
    tasks, seeds = run.scores.rows.task.nunique(), len(made_from["seeds"])
    values = (run.data, run.folds, tasks, training["config"], seeds, comparison, run.policy, targets, training)
    return Bullets(words("pages").sentences("how", *values))


def _timing(run: Evidence) -> Html:
    """How long a run takes."""
    made_from, training = run.results["provenance"], run.training
    models = sum(len(entry["runs"]) for entry in training["conditionings"].values())
    seconds = (made_from["run_seconds"], training["total_seconds"])
    return _paragraph(words("pages").timing(made_from["cores"], *seconds, models, run.data["steps"]))


def _replay_timing(run: Evidence) -> Html:
    cores, replays = run.results["provenance"]["cores"], run.replays
    played = (replays.values["newly_played"], replays.episodes, replays.values["seconds"])
    return _paragraph(words("pages").replay_timing(cores, *played))


def _paragraph(text: str) -> Html:
    return Html(f"<p>{escape(text)}</p>", text)


# To show something in a notebook, on a page or in a document, name it here.
BLOCKS: dict[str, Callable[[Evidence], Content]] = {
    # 01_data
    "data_remarks": _bullets("text.data", "remarks"),
    "statistics": _made("tables.data", "statistics_table"),
    "left_out": _made("tables.data", "left_out_table"),
    "tasks": _made("tables.data", "tasks_table"),
    "normaliser": _made("tables.data", "normaliser_table"),
    "parts": _made("tables.data", "parts_table"),
    "sample_counts": _made("tables.data", "counts_table"),
    "sample_recordings": lambda run: import_module("workbook.report.tables.data").recordings_table(),
    # 02_train_robust
    "curves_figure": _made("figures.training", "curves"),
    "training": _made("tables.training", "training_table"),
    "guide_epochs": _made("tables.training", "guide_epochs_table"),
    "costs_figure": _made("figures.training", "costs"),
    "checkpoints": _made("tables.training", "checkpoints_table"),
    "provenance": _made("tables.training", "provenance_table"),
    "timing": _timing,
    # 03_compare
    "verdict": _verdict,
    "not_evidence": _made("tables.verdict", "not_evidence"),
    "closing": _made("tables.comparison", "closing_table"),
    "criteria_layernorm": _made("tables.verdict", "criteria_table", "layernorm"),
    "criteria_fixed_scale": _made("tables.verdict", "criteria_table", "fixed_scale"),
    "tokens_figure": _made("figures.comparison", "forward_and_tokens"),
    "improvements_figure": _made("figures.comparison", "improvements"),
    "overview": _made("tables.comparison", "overview_table"),
    "bits": _made("tables.comparison", "bits_table"),
    "rates_figure": _made("figures.rate_distortion", "rate_distortion"),
    "equal_bits": _made("tables.rate_distortion", "equal_bits_table"),
    "smallest": _made("tables.rate_distortion", "smallest_table"),
    "codecs": _made("tables.rate_distortion", "codecs_table"),
    "brought": _made("tables.rate_distortion", "brought_table"),
    "token_costs": _made("tables.token_costs", "token_costs_table"),
    "option_b": _made("tables.rate_distortion", "option_b_table"),
    "physical": _made("tables.comparison", "physical_table"),
    "dimensions": _made("tables.comparison", "dimension_table"),
    "against": _bullets("text.findings", "against_text"),
    # 04_residual_analysis
    "discrepancies": _bullets("text.findings", "discrepancies_text"),
    "residual_figure": _made("figures.layers", "residual_std"),
    "left_over": _made("tables.layers", "left_over_table"),
    "layers": _made("tables.layers", "layers_table"),
    "layers_needed": _made("tables.layers", "layers_needed_table"),
    "policies_figure": _made("figures.policy", "policies"),
    "two_rules_figure": _made("drawings.policy", "at_two_rules"),
    "policies": _made("tables.policy", "policy_table"),
    "policy_summary": _made("tables.policy", "summary_table"),
    "networks": _made("tables.policy", "network_table"),
    "accuracies": _made("tables.policy", "accuracy_table"),
    "draft": _made("tables.policy", "draft_table"),
    "phase3": _made("tables.token_costs", "phase3_table"),
    "predictions_remarks": _bullets("text.predictions", "remarks"),
    "predictions": _made("tables.predictions", "rules_table"),
    "predictions_layers": _made("tables.predictions", "layers_table"),
    "answer": _answer,
    "answer_in_full": _bullets("text.recommendation", "sentences"),
    "rules": _made("tables.policy", "rules_table"),
    "options": _made("tables.policy", "options_table"),
    "would_change": _bullets("text.recommendation", "would_change"),
    "claims": _made("tables.verdict", "claims_table"),
    "method": _method,
    # 05_policy_in_the_loop
    "replay_verdict": _replay_verdict,
    "replay_remarks": _bullets("text.replay", "remarks"),
    "replay_figure": _made("figures.replay", "success_against_bits"),
    "replay": _made("tables.replay", "success_table"),
    "replay_tasks": _made("tables.replay", "tasks_table"),
    "replay_failures": _made("tables.replay", "failures_table"),
    "replay_contrasts": _made("tables.replay", "contrasts_table"),
    "replay_paths": _made("figures.replay", "paths"),
    "replay_predictors": _made("tables.replay", "predictors_table"),
    "success_claims": _made("tables.verdict", "claims_table", ("success",)),
    "replay_timing": _replay_timing,
    "loop_remarks": _bullets("text.loop", "remarks"),
    "loop": _made("tables.loop", "success_table"),
    "loop_tasks": _made("tables.loop", "tasks_table"),
    "loop_contrasts": _made("tables.loop", "contrasts_table"),
    "loop_offline": _made("tables.loop", "offline_table"),
    "loop_acceptance": _made("tables.loop", "acceptance_table"),
    "loop_figure": _made("drawings.loop", "success_of_arms"),
    "loop_asked_figure": _made("drawings.loop", "success_of_asked"),
    # documents alone
    "do": _do,
    "found_claims": _found("claims"),
    "found_evidence": _found("evidence"),
    "found_codecs": _found("codecs"),
    "found_loop": _found("loop-details"),
    "found_replay": _found("replay"),
}
