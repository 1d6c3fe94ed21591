"""The criteria, declared before the run, and the words that follow from them. Nothing here is typed in by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from workbook.codecs.catalogue import CONDITIONED
from workbook.common import targets
from workbook.common.intervals import Estimate
from workbook.common.note import Note
from workbook.common.threshold import Status, Threshold
from workbook.evaluation.evidence import Evidence
from workbook.evaluation.score import ENCODER, Scores

Word = Literal["PASS", "FAIL", "NOT SHOWN", "NOT RUN", "CANNOT DECIDE"]
WORDS: dict[Status, Word] = {"met": "PASS", "unmet": "FAIL", "not shown": "NOT SHOWN", "not run": "NOT RUN"}
NAIVE, GUIDES, DEPLOYABLE = "naive", "layernorm", "fixed_scale"
JUDGED = (GUIDES, DEPLOYABLE)  # the guide's own proposal, and the codec that can be deployed


@dataclass(frozen=True)
class Criterion:
    """One question of the criteria table. Only required ones decide the verdict.

    measured, interval: in normalised units squared, or shares; n counts what `of` names.
    """

    key: str
    codec: str
    threshold: Threshold
    measured: float | None
    interval: tuple[float, float] | None
    n: int
    of: Literal["episodes", "seeds", "checkpoints", "rounds"]
    status: Status
    required: bool

    def as_json(self) -> dict[str, Any]:
        bounds = {name: None if abs(value) == float("inf") else value for name, value in asdict(self.threshold).items()}
        return asdict(self) | {"threshold": bounds}


@dataclass(frozen=True)
class Shortfall:
    """What keeps a run from being evidence: it has too few of something."""

    key: Literal["epochs", "seeds", "test_episodes", "policy_steps", "baseline_steps"]
    have: int
    least: int


def evaluate(run: Evidence) -> list[Criterion]:
    """The guide's criteria for its own proposal and for the codec that can be deployed."""
    return [criterion for codec in JUDGED for criterion in _of_codec(run, codec)]


def _of_codec(run: Evidence, codec: str) -> list[Criterion]:
    scores, episodes = run.scores, run.comparison["test_episodes"]
    models = run.models[run.models.codec == codec]
    error, same = float(models.decode_error.max()), int(models.loaded_identical.sum())

    def estimated(key: str, threshold: Threshold, estimate: Estimate, required: bool) -> Criterion:
        n, of = (len(estimate.per_seed), "rounds") if key == "overhead" else (episodes, "episodes")
        interval = None if estimate.low is None or estimate.high is None else (estimate.low, estimate.high)
        status = threshold.judge(estimate.as_json())
        return Criterion(key, codec, threshold, estimate.mean, interval, n, of, status, required)  # type: ignore[arg-type]

    def counted(key: str, threshold: Threshold, value: float, n: int, of: Literal["seeds", "checkpoints"]) -> Criterion:
        status: Status = "met" if threshold.meets(value) else "unmet"
        return Criterion(key, codec, threshold, value, None, n, of, status, True)

    return [
        counted("decodes", Threshold.up_to(0.0), error, len(models), "seeds"),
        estimated("mse_tokens", targets.LOW_MSE, scores.estimate("mse", codec), True),
        estimated("improvement_tokens", targets.IMPROVES, scores.improvement(codec), True),
        estimated("mse_encoder", targets.LOW_MSE, scores.estimate("mse", codec, decoding=ENCODER), False),
        estimated("improvement_encoder", targets.IMPROVES, scores.improvement(codec, decoding=ENCODER), False),
        counted("checkpoints", Threshold.at_least(len(models)), same, len(models), "checkpoints"),
        estimated("overhead", Threshold.up_to(targets.OVERHEAD_UP_TO), overhead(run, codec), False),
    ]


def overhead(run: Evidence, codec: str) -> Estimate:
    """The share by which a training step takes longer than naive's, from timed rounds."""
    stored = next(conditioning for conditioning, name in CONDITIONED.items() if name == codec)
    return Estimate(**run.training["conditionings"][stored]["overhead"])


def shortfalls(run: Evidence) -> list[Shortfall]:
    """What keeps a comparison from being evidence; empty for a full run."""
    seeds = min(run.models.groupby("codec").size().drop(NAIVE, errors="ignore"))
    wanted = (
        Shortfall("epochs", run.training["config"]["epochs"], targets.EVIDENCE_EPOCHS),
        Shortfall("seeds", int(seeds), targets.EVIDENCE_SEEDS),
        Shortfall("test_episodes", run.comparison["test_episodes"], targets.EVIDENCE_TEST_EPISODES),
    )
    return [each for each in wanted if each.have < each.least]


def data_doubts(run: Evidence) -> list[Note]:
    """What else does, in the data; nothing where the user accepts them as they are."""
    return [] if run.data["doubts_accepted"] else run.data["doubts"]


def word_of(criteria: Sequence[Criterion], codec: str, missing: Sequence[object]) -> Word:
    """What the required criteria of a codec come to. missing: what keeps the run from being evidence."""
    statuses = {criterion.status for criterion in criteria if criterion.codec == codec and criterion.required}
    if missing:
        return "NOT SHOWN"
    if "unmet" in statuses:
        return "FAIL"
    return "PASS" if statuses == {"met"} else "NOT SHOWN"


def cheaper_rounding(scores: Scores, codec: str) -> str | None:
    """The setting of the cheapest plain rounding with both less error and fewer bits than a codec, if any."""
    error, bits = scores.estimate("mse", codec).mean or 0.0, scores.cost(codec)["bits"]
    costs = {
        setting: scores.cost(name, setting)["bits"] for name, setting in scores.listed("compared") if name == "bins"
    }
    better = [(cost, setting) for setting, cost in costs.items() if cost < bits and _error(scores, setting) < error]
    return min(better)[1] if better else None


def _error(scores: Scores, setting: str) -> float:
    return scores.estimate("mse", "bins", setting).mean or 0.0
