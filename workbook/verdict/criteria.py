"""The criteria, declared before the run, and the verdict that follows from them. Nothing here is typed in by hand."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from workbook.common import targets
from workbook.common.threshold import Status, Threshold
from workbook.common.wording import equal_bins, less_or_more, number, share
from workbook.evaluation.score import cheaper_rounding

Word = Literal["PASS", "FAIL", "NOT SHOWN", "NOT RUN"]

GUIDE_MODEL, DEPLOYABLE_MODEL = "layernorm", "scale"
MODEL_TITLES = {
    "none": "naive RFSQ",
    "layernorm": "guide's LayerNorm RFSQ",
    "frozen_layernorm": "frozen-LayerNorm RFSQ",
    "learned_scale": "learned-scale RFSQ",
    "scale": "fixed-scale RFSQ",
}


@dataclass(frozen=True)
class Criterion:
    """One line of the criteria table. Only required ones decide the verdict."""

    key: str
    name: str
    model: str
    threshold: str
    measured: float | None
    interval: tuple[float, float] | None
    n: int
    n_of: str
    unit: str
    status: Status
    required: bool


def evaluate(comparison: dict[str, Any]) -> list[Criterion]:
    """The guide's criteria for its own proposal and for the variant that can be deployed."""
    return [
        criterion
        for model in (GUIDE_MODEL, DEPLOYABLE_MODEL)
        for criterion in _of_model(model, comparison["models"][model], comparison["test_episodes"])
    ]


def _of_model(model: str, entry: dict[str, Any], episodes: int) -> list[Criterion]:
    seeds = len(entry["seeds"])
    over_seeds = f"test episodes x {seeds} seeds"

    def estimated(
        key: str, name: str, threshold: str, estimate: dict[str, Any], threshold_of: Threshold, required: bool
    ) -> Criterion:
        interval = None if estimate["low"] is None else (estimate["low"], estimate["high"])
        unit = "normalised units squared" if key.startswith("mse") else "share"
        n, n_of = (
            (len(estimate["per_seed"]), "timed rounds of one process") if key == "overhead" else (episodes, over_seeds)
        )
        status = threshold_of.judge(estimate)
        return Criterion(key, name, model, threshold, estimate["mean"], interval, n, n_of, unit, status, required)

    mse_text, improvement_text = f"< {targets.MSE_BELOW:g}", f"> {targets.IMPROVEMENT_ABOVE:.0%}"
    exact, loaded = entry["decode_error"] == 0.0, entry["checkpoints"]
    return [
        Criterion(
            "decodes", "Tokens decode exactly: largest |decode - forward|", model, "= 0", entry["decode_error"], None,
            seeds, "seeds", "normalised units", "met" if exact else "unmet", True,
        ),
        estimated(
            "mse_tokens", "MSE from tokens alone, own decoder", mse_text, entry["token_mse"], targets.LOW_MSE, True
        ),
        estimated(
            "improvement_tokens", "Improvement over naive from tokens alone, own decoder", improvement_text,
            entry["improvement_tokens"], targets.IMPROVES, True,
        ),
        estimated(
            "mse_forward", "MSE from forward, as the guide measures", mse_text, entry["forward_mse"],
            targets.LOW_MSE, False,
        ),
        estimated(
            "improvement_forward", "Improvement over naive from forward", improvement_text,
            entry["improvement_forward"], targets.IMPROVES, False,
        ),
        Criterion(
            "checkpoint", "Checkpoints load and decode to the same bits", model, "all", loaded["loaded_and_identical"],
            None, loaded["of"], "checkpoints", "checkpoints",
            "met" if loaded["loaded_and_identical"] == loaded["of"] else "unmet", True,
        ),
        estimated(
            "overhead", "Training overhead over naive", f"<= {targets.OVERHEAD_UP_TO:.0%}", entry["overhead"],
            Threshold.up_to(targets.OVERHEAD_UP_TO), False,
        ),
    ]  # fmt: skip


def shortfalls(epochs: int, seeds: int, test_episodes: int) -> list[str]:
    """What keeps a run from being evidence; empty for a full run."""
    wanted = (
        (epochs, targets.EVIDENCE_EPOCHS, "epochs"),
        (seeds, targets.EVIDENCE_SEEDS, "seeds"),
        (test_episodes, targets.EVIDENCE_TEST_EPISODES, "test episodes"),
    )
    return [f"{have} of at least {least} {name}" for have, least, name in wanted if have < least]


def decide(
    criteria: list[Criterion],
    comparison: dict[str, Any],
    missing: list[str],
    recommendation: dict[str, Any] | None = None,
    replayed: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The verdict: a word and a sentence on the guide's proposal, on the deployable variant, and on retraining.

    replayed: the part on task success, which stands last.
    """
    words = {model: _word(criteria, model, missing) for model in (GUIDE_MODEL, DEPLOYABLE_MODEL)}
    parts: list[dict[str, Any]] = [
        {"subject": MODEL_TITLES[model], "model": model, "word": words[model], "sentence": sentence}
        for model, sentence in (
            (GUIDE_MODEL, _sentence(criteria, GUIDE_MODEL, comparison)),
            (DEPLOYABLE_MODEL, _sentence(criteria, DEPLOYABLE_MODEL, comparison)),
        )
    ]
    word, sentence = ("NOT RUN", RETRAINING)
    if recommendation is not None:
        word, sentence = recommendation["words"]["A"], recommendation["sentences"][0]
    parts.append({"subject": "retraining Phase 2", "model": None, "word": word, "sentence": sentence})
    parts += [replayed] if replayed else []
    prefix = f"NOT EVIDENCE ({'; '.join(missing)}): " if missing else ""
    sentence = prefix + " ".join(_headline(part) for part in parts)
    return {"word": words[GUIDE_MODEL], "sentence": sentence, "parts": parts, "not_evidence": missing}


RETRAINING = (
    "reconstruction error does not say what a policy makes of the tokens; 04_residual_analysis trains small policies."
)


def _headline(part: dict[str, Any]) -> str:
    subject = part["subject"][0].upper() + part["subject"][1:]
    return f"{subject}: {part['word']}. {part['sentence'][0].upper()}{part['sentence'][1:]}"


def _word(criteria: list[Criterion], model: str, missing: list[str]) -> Word:
    statuses = {criterion.status for criterion in criteria if criterion.model == model and criterion.required}
    if missing:
        return "NOT SHOWN"
    if "unmet" in statuses:
        return "FAIL"
    return "PASS" if statuses == {"met"} else "NOT SHOWN"


def _sentence(criteria: list[Criterion], model: str, comparison: dict[str, Any]) -> str:
    of_model = {criterion.key: criterion for criterion in criteria if criterion.model == model}
    entry = comparison["models"][model]
    token, forward = entry["token_mse"]["mean"], entry["forward_mse"]["mean"]
    bits = entry["bits"]["per_chunk"]
    if of_model["decodes"].status == "unmet":
        return (
            f"its own decoder cannot read its tokens, for it lacks each vector's statistics: MSE {number(token)} with "
            f"mean 0 and std 1 assumed, {token / forward:,.0f} times the {number(forward)} that forward shows."
            f"{_refitted(entry)}"
        )
    gain = entry["improvement_tokens"]
    between = "" if gain["low"] is None else f" (95 % interval {share(gain['low'])} to {share(gain['high'])})"
    return (
        f"its tokens decode exactly, with held-out MSE {number(token)} at {bits:,.0f} bits a chunk: "
        f"{less_or_more(gain['mean'])} than naive's{between}.{_beaten_by(entry, comparison['baselines'])}"
    )


def _refitted(entry: dict[str, Any]) -> str:
    """What a decoder fitted anew makes of the same codes."""
    if "refitted" not in entry:
        return ""
    refitted = entry["refitted"]
    return (
        f" A linear decoder refitted to the codes alone reaches {number(refitted['token_mse']['mean'])}, "
        f"{less_or_more(refitted['improvement']['mean'])} than naive's."
    )


def _beaten_by(entry: dict[str, Any], baselines: dict[str, Any]) -> str:
    name = cheaper_rounding(entry, baselines)
    if name is None:
        return ""
    bits = baselines[name]["bits"]["per_chunk"]
    return f" Yet {equal_bins(name)} has less error at {bits:,.0f} bits."


def as_json(criteria: list[Criterion]) -> list[dict[str, Any]]:
    return [asdict(criterion) for criterion in criteria]
