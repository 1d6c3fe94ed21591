"""What tokens cost Phase 3: passes of a network a chunk under each decode rule, and what speculative decoding saves.

Speculative decoding: a draft proposes tokens, the main model checks them in one pass and keeps those up to the first
that it would not have said. What a draft of another moment has in common with the main model is no foresight: a main
model that is given the draft's tokens copies them, and constant tokens are always the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from workbook.common.targets import COARSE_LAYERS
from workbook.evaluation.policy.evidence import PolicyEvidence, PredictedCodec
from workbook.evaluation.policy.network import RULES
from workbook.evaluation.score import HeldOut
from workbook.evaluation.token_costs import Codes

DRAFT_COST = 0.5  # of a pass of the draft, which has half the width, in passes of the main model


@dataclass(frozen=True)
class Acceptance:
    """Share of the draft's coarse tokens that the main model says, too; and of those of another moment's draft."""

    own: float
    other: float

    @property
    def left(self) -> float:
        """Without what any moment's draft would have had in common."""
        return max(self.own - self.other, 0.0)


@dataclass(frozen=True)
class Phase3:
    """One predicted codec. Passes of the main model a chunk: one of parallel heads, for argmax or expected value;
    `layers` autoregressive over layers; `tokens` token by token. perplexity: of a token, in parallel heads.
    acceptance: None where no draft predicts its tokens.
    """

    codec: PredictedCodec
    layers: int
    tokens: int
    perplexity: float
    acceptance: Acceptance | None


def phase3(policy: PolicyEvidence) -> list[Phase3]:
    """A line for each predicted codec, in the order of the catalogue."""
    return [
        Phase3(
            codec, policy.layers(codec), policy.tokens_per_chunk(codec), perplexity(policy, codec),
            _acceptance(policy.draft, codec),
        )
        for codec in policy.codecs
    ]  # fmt: skip


def perplexity(policy: PolicyEvidence, codec: PredictedCodec) -> float:
    """Of a token: among how many equally likely values a policy is as much in doubt, in the geometric mean."""
    bits = sum(policy.of_layers(codec, "cross_entropy_bits"))
    return float(2 ** (bits / policy.tokens_per_chunk(codec)))


def _acceptance(draft: pd.DataFrame, codec: PredictedCodec) -> Acceptance | None:
    rows = draft[(draft.codec == codec.codec) & (draft.setting == codec.setting) & (draft.rule == RULES[0])]
    return Acceptance(float(rows.agreement.mean()), float(rows.agreement_other.mean())) if len(rows) else None


def expected_tokens(acceptance: float, drafted: int) -> float:
    """Tokens that a pass of the main model yields: those kept of so many drafted ones, and one of its own.

    (1 - a^(g+1)) / (1 - a) (Leviathan et al. 2023, arXiv 2211.17192, equation 1), as the sum that it is of.
    """
    return float(sum(acceptance**k for k in range(drafted + 1)))


def speed_up(acceptance: float, drafted: int = COARSE_LAYERS, draft_cost: float = DRAFT_COST) -> float:
    """Of decoding token by token, by drafts of so many tokens that cost together so many passes of the main model.

    Theorem 3.8 there, whose c * g is the draft's cost: here one pass of parallel heads drafts all coarse layers.
    """
    return expected_tokens(acceptance, drafted) / (1 + draft_cost)


def other_moments(test: HeldOut) -> Codes:
    """For each chunk one of another moment of the same task, half the task's chunks further on: (N,) places."""
    tasks = np.array([episode.task for episode in test.episodes])[test.chunks.episode]
    others = np.arange(len(tasks))
    for task in np.unique(tasks):
        of_task = np.flatnonzero(tasks == task)
        others[of_task] = np.roll(of_task, len(of_task) // 2)
    return others
