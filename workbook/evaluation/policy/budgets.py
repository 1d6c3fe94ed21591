"""The same policies after ever more batches: whether what the offline probe says hangs on how long they learn.

The learning rate is constant and no training stops early, so that one training gives the policies of every budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pandas as pd

from workbook.codecs.catalogue import Fitting
from workbook.common.jobs import OnProgress, ProgressStep
from workbook.common.parallel import in_progress_steps
from workbook.evaluation.policy.evidence import REGRESSION, PolicyEvidence
from workbook.evaluation.policy.probe import (
    Predicted,
    ProbeConfig,
    of_true_tokens,
    predicted,
    run_stacks,
    shared_by_jobs,
    trials_of,
)
from workbook.evaluation.policy.training import NOISES, Kept, Training
from workbook.evaluation.policy.trial import PolicyJob, Predictor, Shared

BUDGETS = (400, 1600, 6400)  # batches


def probe_at(
    fitting: Fitting, budgets: Sequence[int], seeds: int, on_progress: OnProgress | None = None
) -> dict[int, PolicyEvidence]:
    """What small policies predict after each number of batches, ascending, with the stronger noise of the two."""
    shared = shared_by_jobs(fitting, ProbeConfig(budgets[-1]))
    kinds = [Predictor(REGRESSION), *(kind for kind in shared.targets if kind.heads != "draft")]
    size = len(shared.dataset.part("train"))
    jobs = [PolicyJob(kind, size, seed, NOISES[-1]) for kind in kinds for seed in range(seeds)]
    found = run_stacks(partial(_after_each, tuple(budgets)), shared, jobs, on_progress)
    true_tokens = of_true_tokens(shared)
    return {
        budget: _evidence(shared, [found[job][budget] for job in jobs], true_tokens[true_tokens.seed < seeds])
        for budget in budgets
    }


def _after_each(
    budgets: tuple[int, ...], shared: Shared, stack: Sequence[PolicyJob], progress_step: ProgressStep
) -> list[dict[int, Predicted]]:
    trials = trials_of(shared, stack)
    on_step = in_progress_steps(budgets[-1], progress_step)
    training = Training([trial.learner() for trial in trials], trials[0].config)
    found: list[dict[int, Predicted]] = [{} for _ in trials]
    while training.steps < budgets[-1]:
        training.step()
        if training.steps in budgets:
            for trial, policy, by_budget in zip(trials, training.averages(), found, strict=True):
                kept = Kept(training.steps, trial.validation_mse(policy))
                by_budget[training.steps] = predicted(trial, policy, kept)
        on_step(training.steps)
    return found


def _evidence(shared: Shared, found: Sequence[Predicted], true_tokens: pd.DataFrame) -> PolicyEvidence:
    rows = pd.concat([*(each.rows for each in found), true_tokens], ignore_index=True)
    networks = pd.DataFrame([{**each.network, "chosen": True} for each in found])
    tokens = pd.concat([each.layers for each in found], ignore_index=True)
    return PolicyEvidence(rows, tokens, pd.DataFrame(), networks, shared.config)
