"""Tables and text blocks, which notebooks, report and documents show alike."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from rfsq_robust import CONDITIONINGS
from workbook.common import targets
from workbook.common.table import Badge, Html, Table
from workbook.common.wording import bins_label, number, share, with_interval
from workbook.data.layout import ActionLayout
from workbook.evaluation.metrics import STAND_IN
from workbook.report.figures.style import LABELS
from workbook.verdict.criteria import DEPLOYABLE_MODEL, GUIDE_MODEL, MODEL_TITLES, Criterion

Evidence = dict[str, Any]


def verdict_block(verdict: Evidence) -> Html:
    """The verdict, and above it, for a rehearsal, that it is none."""
    parts = "".join(
        f"<p>{Badge(part['word']).html} <strong>{escape(part['subject'][0].upper() + part['subject'][1:])}:</strong> "
        f"{escape(part['sentence'])}</p>"
        for part in verdict["parts"]
    )
    return Html(f'<div class="verdict">{not_evidence(verdict).html}{parts}</div>')


def not_evidence(verdict: Evidence) -> Html:
    missing = verdict["not_evidence"]
    if not missing:
        return Html("")
    return Html(f'<p class="not-evidence">NOT EVIDENCE: this run has {escape("; ".join(missing))}.</p>')


def criteria_table(criteria: Sequence[Criterion | Evidence], model: str) -> Table:
    """Threshold, measured value, interval, n and status of every criterion for one model."""
    rows = [
        [row["name"], row["threshold"], *_measured(row), f"{row['n']} {row['n_of']}", Badge(row["status"]),
         "yes" if row["required"] else "no"]
        for row in map(_as_dict, criteria) if row["model"] == model
    ]  # fmt: skip
    header = ["criterion", "threshold", "measured", "95 % interval", "n", "status", "decides"]
    return Table(header, rows, f"Of the {MODEL_TITLES[model]}. Only rows that decide count towards the verdict.")


def _as_dict(criterion: Criterion | Evidence) -> Evidence:
    return criterion if isinstance(criterion, dict) else vars(criterion)


def _measured(row: Evidence) -> tuple[str, str]:
    write = share if row["unit"] == "share" else number
    value = f"{row['measured']:.0f} of {row['n']}" if row["key"] == "checkpoint" else write(row["measured"])
    if not row["interval"]:
        return value, "-"
    low, high = row["interval"]
    if row["unit"] == "share" and high < -1:
        return value, f"{1 - high:,.0f} to {1 - low:,.0f} times the error"
    return value, f"{write(low)} to {write(high)}"


def options_table(options: Sequence[Evidence]) -> Table:
    rows = [[entry["option"], Badge(entry["word"]), entry["sentence"]] for entry in options]
    return Table(["way to go on", "measured", "what this run says of it"], rows)


def closing_table(training: Evidence, comparison: Evidence) -> Table:
    """The guide's closing table: target beside result, for its proposal and for the deployable variant."""
    proposal, deployable = (comparison["models"][name] for name in (GUIDE_MODEL, DEPLOYABLE_MODEL))
    hours = [np.mean(entry["train_seconds"]) / 3600 for entry in (proposal, deployable)]
    sizes = [entry["checkpoint_bytes"] / 1000 for entry in (proposal, deployable)]
    target = f"< {targets.MSE_BELOW:g}, expected {targets.EXPECTED_MSE:g}"
    gain = f"> {targets.IMPROVEMENT_ABOVE:.0%}, expected {targets.EXPECTED_IMPROVEMENT:.1%}"
    rows = [
        ["Final MSE, from forward", target, *(with_interval(e["forward_mse"]) for e in (proposal, deployable))],
        ["Final MSE, from tokens alone, own decoder", target,
         *(with_interval(e["token_mse"]) for e in (proposal, deployable))],
        ["Improvement over naive, from forward", gain,
         *(share(e["improvement_forward"]["mean"]) for e in (proposal, deployable))],
        ["Improvement over naive, from tokens alone, own decoder", gain,
         *(share(e["improvement_tokens"]["mean"]) for e in (proposal, deployable))],
        ["Training time of one model", f"about {targets.EXPECTED_TRAINING_HOURS:.0f} h",
         *(f"{hour * 3600:.0f} s" for hour in hours)],
        ["Checkpoint size", f"about {targets.EXPECTED_CHECKPOINT_KB:.0f} kB", *(f"{size:.1f} kB" for size in sizes)],
    ]  # fmt: skip
    naive = comparison["models"]["none"]["token_mse"]
    note = f"Naive on the same episodes: {with_interval(naive)}; the guide expects {targets.EXPECTED_NAIVE_MSE:g}."
    return Table(["", "guide's target", "guide's LayerNorm", "fixed scale"], rows, note)


PHYSICAL = (
    ("position_mm", "position, mm a step"),
    ("rotation_deg", "rotation, degrees a step"),
    ("joint_length", "joints, length of the error in their own units"),
    ("gripper_abs", "gripper, mean absolute error"),
    ("gripper_error_rate", "gripper on the wrong side, share of steps"),
    ("gripper_on_time", "gripper switches on the exact step, share"),
    ("gripper_shift_steps", "gripper switch off by, steps"),
    ("max_abs", "largest error, units of an action"),
    ("switch_drift_mm", "drift where the gripper switches, mm"),
    ("peak_drift_mm", "drift where it is largest, mm"),
    ("drift_mm", "drift at the end of an episode, mm"),
    ("drift_deg", "drift at the end of an episode, degrees"),
    ("zeros_kept", "exact zeros kept, share"),
    ("mse", "MSE, normalised units squared"),
    ("relative_mse", "MSE over the variance, mean of dimensions"),
)


STAND_IN_NOTE = (
    f"Of these errors none was shown to tell better which replays of the sample fail in LIBERO's simulator than the "
    f"{dict(PHYSICAL)[STAND_IN].removesuffix(', mm')}, which stands in for it on data that cannot be played."
)


def physical_table(comparison: Evidence) -> Table:
    """Errors in physical units, from tokens alone, with the guide's expectation of naive -> robust.

    What the data have no dimension, switch or zero for is left out.
    """
    columns = {LABELS[name]: comparison["models"][name]["token_errors"] for name in CONDITIONINGS}
    columns["layernorm, statistics sent"] = comparison["models"]["layernorm"]["with_statistics"]["token_errors"]
    columns |= {bins_label(name): e["token_errors"] for name, e in comparison["baselines"].items()}
    rows = []
    for key, label in PHYSICAL:
        if all(errors[key]["mean"] is None for errors in columns.values()):
            continue
        expected = targets.EXPECTED_ERRORS.get(key)
        said = f"{expected[0]:g} -> {expected[1]:g}" if expected else "-"
        rows.append([label, said, *(number(errors[key]["mean"]) for errors in columns.values())])
    note = (
        "From tokens alone, held-out episodes, layernorm with mean 0 and std 1 assumed; clipped to the controller's "
        "range (MSE rows: not clipped; joints: never). A switch that is not found within 8 steps counts as 8."
    )
    if any(label.startswith("drift") for label, *_ in rows):
        note += (
            " Drift is the length of the summed error; rotation is summed as axis-angle vectors, which is exact for "
            f"small angles only. {STAND_IN_NOTE}"
        )
    return Table(["", "guide: naive -> robust", *columns], rows, note)


def dimension_table(comparison: Evidence) -> Table:
    """MSE and its interval for each dimension, from tokens alone."""
    shown = [name for name in CONDITIONINGS if comparison["models"][name]["decode_error"] == 0]
    rows = [
        [name, *(with_interval(comparison["models"][model]["token_errors"][f"mse_{name}"]) for model in shown)]
        for name in ActionLayout.parse(comparison["layout"]).names
    ]
    return Table(["dimension", *(LABELS[name] for name in shown)], rows, "MSE in normalised units squared.")


def bits_table(comparison: Evidence) -> Table:
    """What each codec pays for a chunk of 8 steps."""
    models = comparison["models"]
    entries = [(LABELS[name], models[name]) for name in CONDITIONINGS]
    entries.insert(2, ("layernorm, statistics sent", models["layernorm"]["with_statistics"]))
    entries.insert(2, ("layernorm, linear decoder refitted", models["layernorm"]["refitted"]))
    entries.insert(1, ("naive, linear decoder refitted", models["none"]["refitted"]))
    entries += [(bins_label(name), entry) for name, entry in comparison["baselines"].items()]
    rows = [
        [label, f"{entry['bits']['per_chunk']:,.0f}", f"{entry['bits']['side']:,.0f}",
         f"{entry['bits']['entropy']:,.0f}", with_interval(entry["token_mse"])]
        for label, entry in entries
    ]  # fmt: skip
    header = ["codec", "bits a chunk", "of these side information", "entropy, bits", "MSE from tokens alone"]
    return Table(
        header,
        rows,
        "layernorm: with mean 0 and std 1 assumed. Entropy: each code by itself, an upper bound of their information.",
    )


def training_table(training: Evidence) -> Table:
    """Validation MSE, epoch kept and time of each conditioning."""
    rows = []
    for name in CONDITIONINGS:
        runs = training["conditionings"][name]["runs"]
        seconds = [run["seconds"] for run in runs if run["seconds"] is not None]
        mse = [run["mse"] for run in runs if run["mse"] is not None]
        rows.append([
            LABELS[name],
            f"{len(runs)}",
            f"{number(min(mse))} to {number(max(mse))}" if mse else "not said by the file",
            f"{min(run['epoch'] or 0 for run in runs)} to {max(run['epoch'] or 0 for run in runs)}",
            f"{np.mean(seconds):.1f} s" if seconds else "given",
        ])  # fmt: skip
    header = ["conditioning", "seeds", "validation MSE of the kept epoch", "epoch kept", "time of one model"]
    return Table(header, rows)


def guide_epochs_table(training: Evidence) -> Table:
    """The guide's expected MSE at its epochs beside the measured median over seeds."""
    rows = []
    for epoch, expected in targets.EXPECTED_CURVE.items():
        measured = [_median_at(training, name, epoch) for name in ("none", GUIDE_MODEL, DEPLOYABLE_MODEL)]
        rows.append([f"{epoch}", f"{expected:g}", *map(number, measured)])
    return Table(["epoch", "guide expects", "naive", "layernorm", "scale"], rows, "Validation MSE from forward.")


def epochs_table(curve: Sequence[float], label: str) -> Table:
    """The same of one training, whose curve is the validation MSE of every epoch."""
    rows = [
        [f"{epoch}", f"{expected:g}", number(curve[epoch - 1]) if len(curve) >= epoch else "-"]
        for epoch, expected in targets.EXPECTED_CURVE.items()
    ]
    return Table(["epoch", "guide expects", label], rows, "Validation MSE from forward.")


def _median_at(training: Evidence, name: str, epoch: int) -> float | None:
    curves = [run["curve"] for run in training["conditionings"][name]["runs"]]
    reached = [curve[epoch - 1] for curve in curves if len(curve) >= epoch]
    return float(np.median(reached)) if reached else None


def layers_table(residuals: Evidence) -> Table:
    """Per layer: residual std, entropy, and error of the prefix that ends there, naive beside the two robust ones."""
    shown = ("none", GUIDE_MODEL, DEPLOYABLE_MODEL)
    rows = []
    for k in range(len(residuals["none"]["prefix_mse"])):
        row = [f"L{k}"]
        for name in shown:
            entry = residuals[name]
            row += [
                number(float(np.mean(entry["residual_std"], axis=0)[k])),
                f"{np.mean(entry['entropy'], axis=0)[k]:.2f}" + (" dead" if k in entry["dead_layers"] else ""),
                number(entry["prefix_mse"][k]["mean"]),
            ]
        rows.append(row)
    header = ["layer", *(f"{LABELS[name]}: {what}" for name in shown for what in ("std", "bits a code", "MSE to here"))]
    return Table(header, rows, "A dead layer's codes carry less than 0.01 bit. layernorm: with its statistics.")


def _parameters(stages: Evidence) -> list[str]:
    return [f"{name} {value}" for parameters in stages.values() for name, value in parameters.items()]


def provenance_table(provenance: Evidence) -> Table:
    rows = [
        ["code", provenance["code"]],
        ["rfsq_robust.py, SHA-256", provenance["rfsq_robust_sha256"][:16]],
        ["data", provenance["data"]],
        ["data, SHA-256 of the actions", provenance["dataset_sha256"][:16]],
        ["seeds", ", ".join(map(str, provenance["seeds"]))],
        ["device, cores, threads", f"{provenance['device']}, {provenance['cores']}, {provenance['threads']}"],
        ["Python", f"{provenance['python']}, {provenance['system']}"],
        ["packages", ", ".join(f"{name} {version}" for name, version in provenance["packages"].items())],
        ["command", provenance["command"]],
        ["parameters", "; ".join(_parameters(provenance["parameters"]))],
        ["written", provenance["written"]],
    ]
    return Table(["", ""], rows)
