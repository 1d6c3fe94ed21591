"""What the replays say: success of every codec beside ground-truth replay, what fails and why, and what predicts it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workbook.common import targets
from workbook.common.array import Array
from workbook.common.intervals import Estimate, estimate_gain, estimate_proportion, mcnemar_p
from workbook.common.paths import OutputFolder
from workbook.common.stages import read_simulated
from workbook.evaluation.replay.codecs import NO_ACTIONS
from workbook.evaluation.replay.failures import REASONS
from workbook.evaluation.replay.predictors import PREDICTORS, Predictors, held_against_success
from workbook.evaluation.replay.rows import GROUND_TRUTH, all_layers
from workbook.simulation.kernels import UNKNOWN

# Why nothing was played, where it is not the simulator itself that says so.
NO_STATES, OTHER_LAYOUT = "no_states", "other_layout"
DIED = "died"  # the process in which a replay was played, as every reason a key or one sentence
NAIVE, FAST = "naive", "fast"
# How far hand or object, whichever is farther, are in the end between replays of the sample under kernels for AVX-512
# and those for AVX2 or AVX: median and largest of 190 episodes, all of which succeed. tests/kernels.py says more.
END_BETWEEN_KERNELS_MM = (0.2, 13)


class Shortfall(NamedTuple):
    """What there is too little of to judge by."""

    key: Literal["episodes", "tasks"]
    have: int
    least: int


class LeftOut(NamedTuple):
    """An episode that counts for no codec. why: '' where its ground-truth replay does not reach the goal."""

    episode: str
    why: str


Among = Literal["all", "articulated"]  # of the episodes: those whose goal is about a knob or drawer


@dataclass(frozen=True)
class Contrast:
    """A codec's success minus that of another, paired by episode.

    difference: of means over seeds; won_alone, lost_alone, p: of the models to deploy, by McNemar's exact test.
    """

    codec: str
    setting: str
    over: str
    over_setting: str
    difference: Estimate
    episodes: int
    won_alone: int
    lost_alone: int
    p: float


@dataclass(frozen=True, eq=False)
class CodecReplays:
    """Replays of a codec at a setting. rows: of the episodes that count, seed by seed; drift: of `rows`, or empty."""

    codec: str
    setting: str
    rows: pd.DataFrame
    drift: pd.DataFrame
    bits: float
    entropy_bits: float

    @cached_property
    def deployed(self) -> pd.DataFrame:
        """Rows of the model to deploy, which all counts are of."""
        return self.rows[self.rows.deployed]

    @property
    def played(self) -> int:
        return int(self.deployed.played.sum())

    @property
    def succeeded(self) -> int:
        return int(self.deployed.succeeded.sum())

    @property
    def success(self) -> Estimate:
        return estimate_proportion(self.succeeded, self.played)

    @property
    def p_against_ground_truth(self) -> float:
        """McNemar's, in which a codec can only lose: in ground-truth replay all of these succeed."""
        won = np.arange(self.played) < self.succeeded
        return mcnemar_p(np.ones(self.played, dtype=bool), won)

    @property
    def per_seed(self) -> list[int]:
        """Successes of every seed."""
        return self.rows.groupby("seed", sort=False).succeeded.sum().astype(int).tolist()

    @property
    def by_task(self) -> dict[str, int]:
        """Successes task by task."""
        return self.deployed.groupby("task", sort=False).succeeded.sum().astype(int).to_dict()

    @property
    def failed(self) -> pd.DataFrame:
        return self.deployed[self.deployed.failure != ""]

    @property
    def failures(self) -> dict[str, int]:
        counts = self.failed.failure.value_counts()
        return {reason: int(counts[reason]) for reason in REASONS if reason in counts}

    @property
    def outcomes(self) -> Array:
        """(S, E): 1 for a success, 0 for a failure, NaN for one that was not played."""
        return self.rows.succeeded.to_numpy(float, na_value=np.nan).reshape(self.rows.seed.nunique(), -1)

    @property
    def chosen(self) -> Array:
        """(E,) the same of the model to deploy."""
        return self.deployed.succeeded.to_numpy(float, na_value=np.nan)


@dataclass(frozen=True, eq=False)
class Replays:
    """The replays of one run. values: of the stage; not_run is why there are none, '' where there are."""

    values: dict[str, Any]
    rows: pd.DataFrame = field(default_factory=pd.DataFrame)
    drift: pd.DataFrame = field(default_factory=pd.DataFrame)
    paths: pd.DataFrame = field(default_factory=pd.DataFrame)

    @staticmethod
    def read(out: OutputFolder) -> Replays:
        values, tables = read_simulated(out, "replay", ("replays", "replay_drift", "replay_paths"))
        return Replays(values, *tables)

    @property
    def not_run(self) -> str:
        return str(self.values["not_run"])

    @property
    def played(self) -> bool:
        """Whether there is anything to count."""
        return not self.not_run and self.episodes > 0

    @cached_property
    def _grouped(self) -> dict[tuple[str, str], pd.DataFrame]:
        grouped = self.rows.groupby(["codec", "setting"], sort=False)
        return {key: frame for key, frame in grouped}  # noqa: C416 - keys are tuples of strings

    @property
    def ground_truth(self) -> pd.DataFrame:
        return self._grouped[GROUND_TRUTH, ""]

    @cached_property
    def _counting(self) -> pd.DataFrame:
        """Ground-truth replays that succeed: an episode that fails there counts nowhere else."""
        return self.ground_truth[self.ground_truth.succeeded.fillna(False).astype(bool)]

    @property
    def episodes(self) -> int:
        return len(self._counting)

    @property
    def tasks(self) -> dict[str, int]:
        """Task -> episodes that count."""
        return self._counting.groupby("task", sort=False).size().to_dict()

    @property
    def articulated_tasks(self) -> list[str]:
        """Those that are about a drawer, a door or a knob."""
        return sorted(set(self._counting.task[self._counting.articulated]))

    @property
    def left_out(self) -> list[LeftOut]:
        rows = self.ground_truth.drop(self._counting.index)
        return [LeftOut(*pair) for pair in zip(rows.episode, rows.not_played, strict=True)]

    @property
    def shortfalls(self) -> list[Shortfall]:
        wanted = (
            Shortfall("episodes", self.episodes, targets.EVIDENCE_REPLAY_EPISODES),
            Shortfall("tasks", len(self.tasks), targets.EVIDENCE_REPLAY_TASKS),
        )
        return [each for each in wanted if each.have < each.least]

    @property
    def kernels(self) -> str:
        """Of the linear algebra library; '' where they are not known."""
        return "" if self.values["kernels"] == UNKNOWN else str(self.values["kernels"])

    @property
    def broken(self) -> list[str]:
        """Why replays of codecs came to no result."""
        rows = self.rows[(self.rows.codec != GROUND_TRUTH) & self.rows.episode.isin(self._counting.episode)]
        return sorted(set(rows.not_played) - {""})

    @property
    def keys(self) -> list[tuple[str, str]]:
        """Codecs and settings, in the order of the catalogue."""
        return [key for key in self._grouped if key[0] != GROUND_TRUTH]

    @property
    def codecs(self) -> list[CodecReplays]:
        return [self.of(*key) for key in self.keys]

    def settings_of(self, codec: str) -> list[str]:
        return [setting for name, setting in self.keys if name == codec]

    def has(self, codec: str, setting: str = "") -> bool:
        return (codec, setting) in self._grouped if setting else bool(self.settings_of(codec))

    def of(self, codec: str, setting: str = "") -> CodecReplays:
        """A codec at a setting; '' for all its layers, or its only setting."""
        key = (codec, setting or all_layers(self.settings_of(codec)))
        if key not in self._of:
            self._of[key] = self._codec(*key)
        return self._of[key]

    @cached_property
    def _of(self) -> dict[tuple[str, str], CodecReplays]:
        return {}

    def _codec(self, codec: str, setting: str) -> CodecReplays:
        rows, drift = self._grouped[codec, setting], self.drift
        deployed = rows[rows.deployed]
        return CodecReplays(
            codec,
            setting,
            rows[rows.episode.isin(self._counting.episode)],
            drift[(drift.codec == codec) & (drift.setting == setting)],
            float(np.average(deployed.bits, weights=deployed.chunks)),
            float(deployed.entropy_bits.iloc[0]),
        )

    def baseline_of(self, codec: str, setting: str) -> tuple[str, str] | None:
        """What a codec is held against: FAST at the same rate, where it was played at one; else naive tokens."""
        at_rate = setting.startswith("rate=") and codec != FAST and self.has(FAST, setting)
        return (FAST, setting) if at_rate else None if codec == NAIVE else (NAIVE, all_layers(self.settings_of(NAIVE)))

    @property
    def contrasts(self) -> list[Contrast]:
        return [
            self.contrast(codec, setting=setting) for codec, setting in self.keys if self.baseline_of(codec, setting)
        ]

    def contrast(self, codec: str, among: Among = "all", setting: str = "") -> Contrast:
        """Over the episodes, of all tasks or of articulated ones, that all models of both were played on."""
        second = self.of(codec, setting)
        baseline = self.baseline_of(codec, second.setting)
        assert baseline is not None
        first = self.of(*baseline)
        asked = np.ones(self.episodes, dtype=bool) if among == "all" else self._counting.articulated.to_numpy()
        kept = np.isfinite(first.outcomes).all(axis=0) & np.isfinite(second.outcomes).all(axis=0) & asked
        one, other = first.chosen[kept] > 0, second.chosen[kept] > 0
        return Contrast(
            codec,
            second.setting,
            *baseline,
            estimate_gain(first.outcomes[:, kept], second.outcomes[:, kept]),
            int(kept.sum()),
            int((other & ~one).sum()),
            int((one & ~other).sum()),
            mcnemar_p(one, other),
        )

    @cached_property
    def predictors(self) -> Predictors:
        """Over every codec whose tokens decode: of those that are no actions, any error tells them."""
        used = self.decoding
        chosen = np.array([one.chosen for one in used])
        played: NDArray[np.bool_] = np.isfinite(chosen)
        errors = {name: np.where(played, [one.deployed[name] for one in used], np.nan) for name in PREDICTORS}
        return held_against_success(errors, chosen > 0)

    @property
    def decoding(self) -> list[CodecReplays]:
        """Those whose tokens are actions."""
        return [one for one in self.codecs if one.codec != NO_ACTIONS]

    @property
    def failed(self) -> pd.DataFrame:
        """Their replays that failed, of the models to deploy."""
        return pd.concat([one.failed for one in self.decoding])
