"""What policies in the loop say: success of every arm, and the differences that a decision hangs on.

policies.parquet, a row for each arm, seed and held-out start:

    kind                'regression', 'tokens', or 'phase2': a draft model and a main model that is given its tokens
    codec, setting      whose tokens are predicted; of a regression the setting that its actions go through
    rule, decoder       how predictions become actions; `OWN`, or the entry that reads the tokens, or through whose
                        tokens a regression's actions go
    seed, task, episode
    succeeded, steps    none where it was not played; until the goal held, or until the end
    not_played          why not, '' where it was

tables/loop_policies.parquet: of every arm and seed the `validation_mse` of predicted actions, by which rules are
chosen, and the `weights` of its networks. What else can be had without the simulator, `offline` lists.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from workbook.codecs.catalogue import proposed
from workbook.common import targets
from workbook.common.array import Array
from workbook.common.intervals import Estimate, detectable_gain, estimate_gain, estimate_proportion, holm, mcnemar_p
from workbook.common.paths import OutputFolder
from workbook.common.stages import read_simulated
from workbook.evaluation.loop.arms import ARGMAX, PHASE2_ARGMAX, PHASE2_SOFT, SOFT, Kind
from workbook.evaluation.loop.offline import DRAFT_COLUMNS, FIGURES, rank_correlation
from workbook.evaluation.policy.evidence import FIXED_SCALE, NAIVE, OWN, RETRAINED

KEYS = ["kind", "codec", "setting", "rule", "decoder"]
TABLES = ("policies", "loop_policies", "loop_offline", "loop_acceptance")
SIGNIFICANT = 0.05
COPIES_WITHIN = 0.05  # of a draft's tokens
MATTERS = 0.05  # of success; a difference that is shown to be smaller is no reason to change tokens
Word = Literal["YES", "NO", "NOT SHOWN"]


class PlayedArm(NamedTuple):
    kind: Kind
    codec: str
    setting: str
    rule: str
    decoder: str


@dataclass(frozen=True)
class Contrast:
    """Success of one arm minus that of another, paired by seed and start.

    p: of McNemar's exact test, corrected for the number of contrasts by Holm (1979); detectable: the difference that so
    many pairs show with a power of 80 %, at the share of pairs that differ here. word: whether it is higher.
    """

    key: str
    arm: PlayedArm
    over: PlayedArm
    difference: Estimate
    pairs: int
    won_alone: int
    lost_alone: int
    p: float
    detectable: float

    @property
    def word(self) -> Word:
        if (self.difference.mean or 0) > 0 and self.p < SIGNIFICANT:
            return "YES"
        return "NO" if self.difference.high is not None and self.difference.high < MATTERS else "NOT SHOWN"

    @property
    def on_edge(self) -> bool:
        """Whether two episodes more or fewer could turn NO into NOT SHOWN, or back."""
        high = self.difference.high
        return self.word != "YES" and high is not None and abs(high - MATTERS) < 2 / self.pairs

    def as_json(self) -> dict[str, Any]:
        arms = {"arm": self.arm._asdict(), "over": self.over._asdict()}
        return {**asdict(self), **arms, "difference": self.difference.as_json(), "word": self.word}


@dataclass(frozen=True)
class OfflineFigure:
    """Spearman's correlation of a figure with success, over the arms that have it; each arm's is a mean over seeds."""

    arms: int
    correlation: Estimate


@dataclass(frozen=True)
class Acceptance:
    """How often a main model keeps its draft, and one of another moment: shares of coarse tokens, means over seeds."""

    codec: str
    setting: str
    agreement: float
    shuffled: float
    by_layer: tuple[tuple[float, float], ...]  # agreement and shuffled of each

    @property
    def copies(self) -> bool:
        """Whether a draft of another moment is kept nearly as often."""
        return self.agreement - self.shuffled < COPIES_WITHIN


@dataclass(frozen=True, eq=False)
class Loop:
    """The policies of one run. values: of the stage; not_run is why there are none, '' where there are."""

    values: dict[str, Any]
    rows: pd.DataFrame = field(default_factory=pd.DataFrame)
    policies: pd.DataFrame = field(default_factory=pd.DataFrame)
    offline: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=[*KEYS, "seed", *FIGURES]))
    drafts: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=DRAFT_COLUMNS))

    @staticmethod
    def read(out: OutputFolder) -> Loop:
        values, tables = read_simulated(out, "loop", TABLES)
        return Loop(values, *tables)

    @property
    def not_run(self) -> str:
        return str(self.values["not_run"])

    @property
    def played(self) -> bool:
        """Whether there is anything to count."""
        return not self.not_run and bool((self.rows.not_played == "").any())

    @property
    def decides(self) -> bool:
        """Whether there are policies enough to decide by."""
        if not self.played or self.find("tokens", NAIVE, ARGMAX) is None:
            return False
        pairs, seeds = self.contrasts[0].pairs, self.rows.seed.nunique()
        return bool(pairs >= targets.EVIDENCE_LOOP_PAIRS and seeds >= targets.EVIDENCE_LOOP_SEEDS)

    def contrast(self, key: str) -> Contrast | None:
        """One of the contrasts; None where one of its arms was not played."""
        return next((one for one in self.contrasts if one.key == key), None)

    @cached_property
    def _grouped(self) -> dict[PlayedArm, pd.DataFrame]:
        ordered = self.rows.sort_values(["seed", "task", "episode"], kind="stable")
        return {PlayedArm(*key): rows for key, rows in ordered.groupby(KEYS, sort=False)}

    @property
    def arms(self) -> list[PlayedArm]:
        """In the order in which they were played."""
        return [PlayedArm(*key) for key in self.rows[KEYS].drop_duplicates().itertuples(index=False)]

    def of(self, arm: PlayedArm) -> pd.DataFrame:
        """Rows of an arm, by seed, task and start."""
        return self._grouped[arm]

    def find(self, kind: Kind, codec: str, rule: str, decoder: str = OWN) -> PlayedArm | None:
        wanted = (kind, codec, rule, decoder)
        return next((arm for arm in self.arms if (arm.kind, arm.codec, arm.rule, arm.decoder) == wanted), None)

    def outcomes(self, arm: PlayedArm) -> Array:
        """(pairs,) 1 for a success, 0 for a failure, NaN for an episode that was not played."""
        return self.of(arm).succeeded.to_numpy(float, na_value=np.nan)

    def _by_seed(self, arm: PlayedArm) -> Array:
        """(S, E) the same, of the policies one by one: pairs of one policy tell little about others."""
        rows = self.of(arm)
        placed = rows.assign(place=rows.groupby("seed").cumcount()).pivot(index="seed", columns="place")
        return placed.succeeded.to_numpy(float, na_value=np.nan)

    def counts(self, arm: PlayedArm) -> tuple[int, int]:
        """Successes, and episodes that were played."""
        found = self.outcomes(arm)
        return int(np.nansum(found)), int(np.isfinite(found).sum())

    def success(self, arm: PlayedArm) -> Estimate:
        return estimate_proportion(*self.counts(arm))

    def successes_by(self, arm: PlayedArm, column: Literal["seed", "task"]) -> dict[Any, int]:
        return self.of(arm).groupby(column).succeeded.sum().astype(int).to_dict()

    def starts_by_task(self) -> dict[str, int]:
        return self.of(self.arms[0]).groupby("task").size().to_dict()

    def validation_mse(self, arm: PlayedArm) -> float:
        """Mean over seeds of the error of predicted actions, by which rules are chosen."""
        return float(self._validation[arm])

    @cached_property
    def _validation(self) -> dict[PlayedArm, float]:
        means = self.policies.groupby(KEYS, sort=False).validation_mse.mean()
        return {PlayedArm(*key): value for key, value in means.items()}

    def best(self, codec: str) -> PlayedArm:
        """The rule of least validation error of the policy that predicts a codec's tokens; of equal ones the first."""
        own = [arm for arm in self.arms if arm.kind == "tokens" and arm.codec == codec and arm.decoder == OWN]
        return min(own, key=self.validation_mse)

    @cached_property
    def new_tokens(self) -> PlayedArm:
        """Where tokens are made anew: the codec, at its best rule, of least validation error.

        Of those that play without `full`, too; the others are played to be compared alone.
        """
        new = set(proposed()) - {NAIVE}
        codecs = dict.fromkeys(arm.codec for arm in self.arms if arm.kind == "tokens" and arm.codec in new)
        return min(map(self.best, codecs), key=self.validation_mse)

    @cached_property
    def offline_figures(self) -> dict[str, OfflineFigure]:
        """Each figure against success, over all arms that were played."""
        means = self.offline.groupby(KEYS, sort=False)[list(FIGURES)].mean()
        success = np.array([self.success(PlayedArm(*key)).mean for key in means.index], dtype=float)
        found = {}
        for name, values in means.items():
            figures = values.to_numpy(float)
            known = np.isfinite(figures) & np.isfinite(success)
            found[str(name)] = OfflineFigure(int(known.sum()), rank_correlation(figures[known], success[known]))
        return found

    @property
    def best_offline(self) -> str | None:
        """Of the figures that every arm has, the one that orders arms most as success does; None where none does."""
        most = max((one.arms for one in self.offline_figures.values()), default=0)
        signed = {
            name: FIGURES[name] * one.correlation.mean
            for name, one in self.offline_figures.items()
            if one.arms == most and one.correlation.mean is not None
        }
        best = max(signed, key=signed.__getitem__, default=None)
        return best if best is not None and signed[best] > 0 else None

    @property
    def offline_values(self) -> dict[str, Any]:
        """Which figure orders arms as success does, all others, and what acceptance of a draft says, as values."""
        found, best = self.offline_figures, self.best_offline
        return {
            "part": self.values.get("part"),
            "best": best,
            "rho": None if best is None else found[best].correlation.mean,
            "arms": 0 if best is None else found[best].arms,
            "figures": {name: {"arms": one.arms, **one.correlation.as_json()} for name, one in found.items()},
            "acceptance": [asdict(one) | {"copies": one.copies} for one in self.acceptances],
        }

    @cached_property
    def acceptances(self) -> list[Acceptance]:
        """Of every draft and main model."""
        found = []
        for (codec, setting), rows in self.drafts.groupby(["codec", "setting"], sort=False):
            layers = rows.groupby("layer")[["agreement", "shuffled"]].mean()
            means = layers.mean()
            pairs = tuple(layers.itertuples(index=False, name=None))
            found.append(Acceptance(codec, setting, float(means.agreement), float(means.shuffled), pairs))
        return found

    @cached_property
    def contrasts(self) -> list[Contrast]:
        """Declared here, before any run: those of which both arms were played."""
        new = self.new_tokens
        naive, argmax = self.best(NAIVE), self.find("tokens", NAIVE, ARGMAX)
        heads = self.find("tokens", new.codec, ARGMAX) or self.find("tokens", FIXED_SCALE, ARGMAX)
        soft = self.find("tokens", NAIVE, SOFT)
        declared = {
            "new_tokens": (new, naive),
            "retrained_decoder": (self.find("tokens", NAIVE, SOFT, RETRAINED), soft),
            "rule": (naive if naive != argmax else soft, argmax),
            "heads": (heads, argmax),
            "pipeline": (
                self.find("phase2", FIXED_SCALE, PHASE2_ARGMAX),
                self.find("phase2", NAIVE, PHASE2_ARGMAX),
            ),
            "pipeline_rule": (
                self.find("phase2", FIXED_SCALE, PHASE2_SOFT),
                self.find("phase2", FIXED_SCALE, PHASE2_ARGMAX),
            ),
        }
        known = {key: (one, other) for key, (one, other) in declared.items() if one and other}
        found = [self._contrast(key, *pair) for key, pair in known.items()]
        corrected = holm([p for *_, p in found])
        return [contrast(p) for (contrast, _), p in zip(found, corrected, strict=True)]

    def difference(self, arm: PlayedArm, over: PlayedArm) -> Estimate:
        """Success of an arm minus that of another, over the pairs of a seed and a start that both played."""
        return estimate_gain(self._by_seed(over), self._by_seed(arm), own_episodes=True)

    def _contrast(self, key: str, arm: PlayedArm, over: PlayedArm) -> tuple[Any, float]:
        """The contrast as a function of its corrected p, and the p of it alone."""
        other, one = self.outcomes(over), self.outcomes(arm)
        kept = np.isfinite(one) & np.isfinite(other)
        won, lost = one[kept] > 0, other[kept] > 0
        pairs, differing = int(kept.sum()), int((won != lost).sum())

        def contrast(p: float) -> Contrast:
            return Contrast(
                key, arm, over, self.difference(arm, over), pairs, int((won & ~lost).sum()), int((lost & ~won).sum()),
                p, detectable_gain(pairs, differing),
            )  # fmt: skip

        return contrast, mcnemar_p(lost, won)
