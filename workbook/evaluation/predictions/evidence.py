"""What the predictions of a user's own Phase 2 say, and the words that follow from them.

tables/predictions.parquet: rule, group | moments, mse, motion_mse, gripper_mse
    rule        how predictions become actions (`RULES`), or 'codec': the true tokens decoded
    group       an episode, or a block of neighbouring moments where no episodes are named
    mse, ...    of the decoded actions, in the codec's normalised units: of all numbers, of motion, of grippers
tables/predictions_layers.parquet: model ('main', 'draft'), layer | of its tokens
    accuracy, confidence        share that is right, and the mean probability of what is most likely
    calibration_error           expected difference of the two (ECE)
    cross_entropy_bits          of a true token; entropy_bits: if each place were said at its own frequencies
    majority_share              accuracy of always saying the most common token of a place
    dead                        true tokens are as good as constant
    repeated                    share of what the draft has wrong that the main model says, too
    copied_share                of what is accepted beyond chance, the share that is so of another moment's draft, too
    copied                      whether so much of it is that the layer says nothing of its own (`judge`)
    mse                         of the most likely tokens of the layers up to this one
tables/predictions_acceptance.parquet, where there is a draft: layer, group | moments, and shares of tokens
    accepted            that the main model and the draft have in common
    by_chance           that the main model and the draft of another moment of the same task have in common
    accepted_other      that the main model, if it is given another moment's draft, has in common with that
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd

from workbook.common.array import Array
from workbook.common.intervals import Estimate, estimate_improvement, estimate_mean
from workbook.common.paths import OutputFolder
from workbook.common.stages import read_simulated
from workbook.common.targets import SAME_WITHIN
from workbook.common.threshold import Status, Threshold
from workbook.evaluation.loop.arms import PHASE2_ARGMAX, PHASE2_SOFT
from workbook.evaluation.policy.evidence import CODEC

MAIN_SOFT, DRAFT_KEPT = "main_soft", "draft_kept"
RULES = (PHASE2_ARGMAX, DRAFT_KEPT, MAIN_SOFT, PHASE2_SOFT)  # the pipeline's own first
METRICS = ("mse", "motion_mse", "gripper_mse")
TABLES = ("predictions", "predictions_layers", "predictions_acceptance")
ACCEPTANCES = ("accepted", "by_chance", "accepted_other")
CODEC_LIMITS_FROM = 0.10  # share of the error that the codec has to make, to be what limits it
Word = Literal["YES", "NO", "NOT SHOWN", "NOT RUN"]
WORDS: dict[Status, Word] = {"met": "YES", "unmet": "NO", "not shown": "NOT SHOWN", "not run": "NOT RUN"}


@dataclass(frozen=True, eq=False)
class Predictions:
    """values: of the stage; not_run is why there are no predictions, '' where there are."""

    values: dict[str, Any]
    errors: pd.DataFrame = field(default_factory=pd.DataFrame)
    layers: pd.DataFrame = field(default_factory=pd.DataFrame)
    acceptances: pd.DataFrame = field(default_factory=pd.DataFrame)

    @staticmethod
    def read(out: OutputFolder) -> Predictions:
        values, tables = read_simulated(out, "predictions", TABLES)
        return Predictions(values, *tables)

    @property
    def given(self) -> bool:
        return not self.values["not_run"]

    @cached_property
    def rules(self) -> list[str]:
        """In order, the pipeline's own first; those that need a draft only where there is one."""
        return [rule for rule in RULES if rule in self._by_rule]

    @property
    def mended(self) -> str:
        """The rule that is held against the pipeline's own, declared here: the draft's layers stay the draft's."""
        return PHASE2_SOFT if self.drafted else MAIN_SOFT

    @property
    def drafted(self) -> bool:
        return bool(self.values["draft_layers"])

    def error(self, rule: str, metric: str = "mse") -> Estimate:
        return estimate_mean(*self._of(rule, metric))

    def gain(self, rule: str, metric: str = "mse") -> Estimate:
        """The share by which the error is less than by the pipeline's rule, paired by group."""
        baseline, weights = self._of(PHASE2_ARGMAX, metric)
        return _less(baseline, self._of(rule, metric)[0], weights)

    def codec_share(self, rule: str = PHASE2_ARGMAX, metric: str = "mse") -> Estimate:
        """The error of the true tokens as a share of that of the predicted ones."""
        predicted, weights = self._of(rule, metric)
        rest = _less(predicted, self._of(CODEC, metric)[0], weights)
        mean, low, high = (None if end is None else 1 - end for end in (rest.mean, rest.high, rest.low))
        return Estimate(mean, low, high, tuple(1 - each for each in rest.per_seed))

    @cached_property
    def _by_rule(self) -> dict[str, pd.DataFrame]:
        return {str(rule): rows.sort_values("group") for rule, rows in self.errors.groupby("rule")}

    def _of(self, rule: str, metric: str) -> tuple[Array, Array]:
        """(1, E) of each group and its weights, (E,); weights of 0 where the data have nothing of the kind."""
        rows = self._by_rule[rule]
        values, weights = rows[metric].to_numpy(float)[None], rows.moments.to_numpy(float)
        return np.nan_to_num(values), np.where(np.isnan(values[0]), 0.0, weights)

    def of_model(self, model: Literal["main", "draft"]) -> pd.DataFrame:
        """Rows of a model's layers, in order."""
        return self.layers[self.layers.model == model].sort_values("layer")

    def accuracy(self, telling: bool = False) -> float | None:
        """Share of the main model's tokens that are right; telling: of layers that are neither dead nor copied."""
        rows = self.of_model("main")
        rows = rows[~(rows.dead | rows.copied.fillna(False))] if telling else rows
        return float(rows.accuracy.mean()) if len(rows) else None

    def acceptance(self, column: str) -> Estimate:
        """Mean over layers of a share of the acceptances; none where it is not known."""
        shares, weights = self._accepted(column)
        found = estimate_mean(shares, weights)
        return found if found.high is None else replace(found, high=min(found.high, 1.0))

    def not_copied(self) -> Estimate:
        """The share of what is accepted that no longer is with another moment's draft; none where it is not known."""
        other, weights = self._accepted("accepted_other")
        return _less(self._accepted("accepted")[0], other, weights)

    def _accepted(self, column: str) -> tuple[Array, Array]:
        """As `_of`."""
        groups = self.acceptances.groupby("group")
        shares = groups[column].mean().to_numpy(float)[None]
        return np.nan_to_num(shares), np.where(np.isnan(shares[0]), 0.0, groups.moments.first().to_numpy(float))

    def as_json(self) -> dict[str, Any]:
        """As results.json holds those that were given."""
        gains = {rule: {metric: self.gain(rule, metric).as_json() for metric in METRICS} for rule in self.rules[1:]}
        shares = {name: self.acceptance(name) for name in ACCEPTANCES} | {"not_copied": self.not_copied()}
        return {
            **self.values,
            "decided": decide(self),
            "mse": {rule: self.error(rule).as_json() for rule in (CODEC, *self.rules)},
            "gains": gains,
            "accuracy": {"all": self.accuracy(), "telling": self.accuracy(telling=True)},
            "acceptance": {name: one.as_json() for name, one in shares.items()} if self.drafted else {},
        }


def _less(baseline: Array, candidate: Array, weights: Array) -> Estimate:
    """The share by which a candidate is less; none where nothing was measured."""
    return estimate_improvement(baseline, candidate, weights) if weights.any() else Estimate(None)


def decide(predictions: Predictions) -> dict[str, Any]:
    """The questions that predictions can answer: word, limit and estimate of each, and the rule that is held against
    the pipeline's own. YES where the whole interval is above the limit, NO where none of it is.
    """
    found = {
        key: {"word": WORDS[_status(one, limit)], "limit": limit, "estimate": one.as_json()}
        for key, (one, limit) in _asked(predictions).items()
    }
    return {**found, "rule": predictions.mended}


def statuses(predictions: Predictions) -> dict[str, Status]:
    """The same for the recommendation, by its options, where they stand before the loop's and the probe's."""
    if not predictions.given:
        return {}
    asked = {"codec_limits": "codec_share", "naive_rule": "decode_rule"}
    return {option: _status(*_asked(predictions)[key]) for option, key in asked.items()}


def _asked(predictions: Predictions) -> dict[str, tuple[Estimate, float]]:
    return {
        "codec_share": (predictions.codec_share(), CODEC_LIMITS_FROM),
        "decode_rule": (predictions.gain(predictions.mended), SAME_WITHIN),
    }


def _status(estimate: Estimate, limit: float) -> Status:
    return Threshold.above(limit).judge(estimate.as_json())
