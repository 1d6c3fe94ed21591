"""The files of one finished run, each read when it is first asked for; `docs/sample` holds those of one run, too.

scores.parquet     every codec, setting, seed and held-out episode (`score`)
probe.parquet      the same of small policies' predictions, offline (`policy`)
replays.parquet    the same of replays in the simulator, where they were run (`replay`)
policies.parquet   episodes of policies in the loop, where they were played (`loop`)
tables/            whatever else a page shows, a tidy table each
stages/            what each notebook was given, and its few values that are no rows
results.json       what was decided
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from workbook.common.errors import InputError
from workbook.common.paths import OutputFolder
from workbook.common.stages import read_stage, read_table
from workbook.evaluation.layers import Layers
from workbook.evaluation.loop.evidence import Loop
from workbook.evaluation.policy.evidence import PolicyEvidence
from workbook.evaluation.policy.training import ProbeTraining
from workbook.evaluation.predictions.evidence import Predictions
from workbook.evaluation.replay.evidence import Replays
from workbook.evaluation.score import Scores

SCHEMA = 5  # of results.json and of the tables beside it


class Evidence:
    """One run, by its folder. Every property raises InputError where its files are not there, or older than others."""

    def __init__(self, folder: str | Path) -> None:
        self.out = OutputFolder(Path(folder))

    @cached_property
    def data(self) -> dict[str, Any]:
        """The data card: values that are no rows."""
        return read_stage(self.out, "data")

    @property
    def steps(self) -> int:
        """Of a chunk."""
        return int(self.data["chunks"]["length"])

    @cached_property
    def training(self) -> dict[str, Any]:
        return read_stage(self.out, "training")

    @cached_property
    def comparison(self) -> dict[str, Any]:
        """Values of 03_compare: test_episodes, test_steps, layout."""
        return read_stage(self.out, "comparison")

    @property
    def folds(self) -> int:
        """Into how many the episodes were dealt (`folds`); 0 of one split."""
        return int(self.comparison.get("folds", 0))

    @property
    def brought(self) -> dict[str, dict[str, int]]:
        """Tokenizers that were brought, by their names, with their faults (`codecs.brought.Faults`)."""
        return self.comparison["brought"]

    @cached_property
    def scores(self) -> Scores:
        return Scores(self.table("scores"))

    @cached_property
    def validation(self) -> Scores:
        """Rows of validation episodes, of what a best is chosen among."""
        return Scores(self.table("validation"))

    @cached_property
    def layers(self) -> Layers:
        return Layers(self.table("layers"), self.scores, self.table("codes"))

    @cached_property
    def models(self) -> pd.DataFrame:
        """A row for each model of 02_train_robust (`comparison.model_rows`)."""
        return self.table("models")

    @cached_property
    def policy(self) -> PolicyEvidence:
        """Small policies that predict tokens, offline."""
        values = read_stage(self.out, "policy")
        tokens, draft, policies = (self.table(name) for name in ("policy_tokens", "draft", "networks"))
        config = ProbeTraining(**values["config"])
        return PolicyEvidence(self.table("probe"), tokens, draft, policies, config, values.get("not_predicted", {}))

    @property
    def decided(self) -> bool:
        """Whether there are results."""
        return "results" in vars(self) or self.out.results.is_file()

    @cached_property
    def replays(self) -> Replays:
        """Where there are none, `not_run` says why."""
        return Replays.read(self.out)

    @cached_property
    def loop(self) -> Loop:
        """Policies in the loop; where there are none, `not_run` says why."""
        return Loop.read(self.out)

    @cached_property
    def predictions(self) -> Predictions:
        """Those of the user's own Phase 2; where none were given, `not_run` says so."""
        return Predictions.read(self.out)

    @cached_property
    def results(self) -> dict[str, Any]:
        path = self.out.results
        if not path.is_file():
            raise InputError(f"{path}: not there; run ./run_all.sh --out {self.out.root} first")
        found = json.loads(path.read_text(encoding="utf8"))
        if found.get("schema") != SCHEMA:
            raise InputError(f"{path}: another version wrote it; run ./run_all.sh --out {self.out.root} again")
        return found

    def table(self, name: str) -> pd.DataFrame:
        return read_table(self.out, name)
