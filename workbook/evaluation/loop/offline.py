"""What can be had of a policy without the simulator, and which of it tells how often the policy succeeds there.

Everything is measured on chunks of episodes that no policy of the loop was trained on, with what was seen before each.

tables/loop_offline.parquet, a row for each arm and seed, of predicted actions against the demonstrator's:

    mse, motion_mse, l1   normalised; motion: without the gripper
    gripper_error         share of gripper commands to the wrong side
    summed_position_mm    length of the error of a chunk's summed position command, as the controller clips it
    token_accuracy        share of tokens, constant layers included; none where the rule chooses no tokens
    codec_mse             normalised, of the demonstrator's own chunks through the codec; none without one

tables/loop_acceptance.parquet, a row for each draft and main model, seed and coarse layer:

    agreement             share of the draft's tokens that the main model, given them, chooses, too
    shuffled              the same where the draft is that of another moment of the same task
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from workbook.codecs.token_spaces import TokenSpace
from workbook.common.array import Array
from workbook.common.intervals import LEVEL, Estimate
from workbook.data.layout import POSITION_MM_PER_UNIT, ActionLayout
from workbook.evaluation.loop.arms import PHASE2_ARGMAX, Actor, Arm
from workbook.evaluation.policy.network import Observations

# Figure -> 1 where a policy with more of it ought to succeed more often, -1 where less often.
FIGURES = {
    "mse": -1, "motion_mse": -1, "l1": -1, "gripper_error": -1, "summed_position_mm": -1, "token_accuracy": 1,
    "codec_mse": -1,
}  # fmt: skip
DRAFT_COLUMNS = ["codec", "setting", "seed", "layer", "agreement", "shuffled"]
FEWEST_ARMS = 3  # that a correlation of ranks is given for
RESAMPLES = 2000


def measure(actor: Actor, held_out: Observations, layout: ActionLayout) -> dict[str, float]:
    """The figures of one arm and seed."""
    predicted, truth = actor.act(held_out.inputs), held_out.chunks
    error = actor.normaliser.normalise(predicted) - actor.normaliser.normalise(truth)
    sides = [actor.normaliser.normalise(each)[..., layout.indices("gripper")] > 0 for each in (predicted, truth)]
    summed = (np.clip(predicted, -layout.limit, layout.limit) - truth)[..., layout.indices("position")].sum(axis=1)
    chosen = actor.tokens(held_out.inputs)
    return {
        "mse": float((error**2).mean()),
        "motion_mse": float((error[..., layout.motion] ** 2).mean()),
        "l1": float(np.abs(error).mean()),
        "gripper_error": float((sides[0] != sides[1]).mean()),
        "summed_position_mm": float(np.linalg.norm(summed, axis=1).mean()) * POSITION_MM_PER_UNIT,
        "token_accuracy": np.nan if chosen is None or actor.space is None else _accuracy(actor.space, chosen, truth),
        "codec_mse": _codec_mse(actor, truth),
    }


def _accuracy(space: TokenSpace, chosen: list[NDArray[np.int64]], truth: Array) -> float:
    right = [one == other for one, other in zip(chosen, space.tokens(truth), strict=True)]
    return float(np.concatenate([each.ravel() for each in right]).mean())


def _codec_mse(actor: Actor, truth: Array) -> float:
    if actor.space is None and actor.codec is None:
        return np.nan
    decoded = actor.round_trip(truth)
    return float(((actor.normaliser.normalise(decoded) - actor.normaliser.normalise(truth)) ** 2).mean())


def acceptance(actors: Mapping[tuple[Arm, int], Actor], inputs: Array, tasks: int) -> pd.DataFrame:
    """Of every draft and main model how often the main one keeps a draft. inputs: (N, D), the task in the last ones."""
    others = another_moment(inputs[:, -tasks:].argmax(axis=1))
    rows = []
    for (arm, seed), actor in actors.items():
        if arm.rule != PHASE2_ARGMAX:
            continue
        draft = actor.draft(inputs)
        shares = [kept(actor, inputs, tokens) for tokens in (draft, [each[others] for each in draft])]
        keys = {"codec": arm.policy.codec, "setting": arm.policy.setting, "seed": seed}
        by_layer = enumerate(zip(*shares, strict=True))
        rows += [{**keys, "layer": k, "agreement": own, "shuffled": other} for k, (own, other) in by_layer]
    return pd.DataFrame(rows, columns=DRAFT_COLUMNS)


@torch.no_grad()
def kept(actor: Actor, inputs: Array, draft: list[torch.Tensor]) -> list[float]:
    """Share of a draft's tokens that the main model chooses when it is given them, layer by layer."""
    main = actor.networks[1](actor.standardise.apply(inputs), draft)
    return [float((one.argmax(-1) == other).double().mean()) for one, other in zip(main, draft, strict=False)]


def another_moment(task: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each row another one of its task, drawn once and for all, each used once; itself where its task has no other.

    The rows of a task follow one another in one random circle, so none follows itself.
    """
    rng, found = np.random.default_rng(0), np.arange(len(task))
    for one in np.unique(task):
        circle = rng.permutation(np.flatnonzero(task == one))
        found[circle] = np.roll(circle, 1)
    return found


def rank_correlation(figures: Array, success: Array) -> Estimate:
    """Spearman's, of (arms,) each, with mean ranks for ties; interval by bootstrap over arms.

    None where arms are too few, or one of both is the same in all of them; resamples of such arms are left out.
    """
    if len(figures) < FEWEST_ARMS:
        return Estimate(None)
    drawn = np.random.default_rng(0).integers(0, len(figures), (RESAMPLES, len(figures)))
    every = np.concatenate([np.arange(len(figures))[None], drawn])
    one, other = (_centred_ranks(values[every]) for values in (figures, success))
    spread = np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
    found = (one * other).sum(axis=1)[spread > 0] / spread[spread > 0]
    if spread[0] == 0:
        return Estimate(None)
    low, high = np.quantile(found[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(found[0]), float(low), float(high))


def _centred_ranks(values: Array) -> Array:
    ranks = pd.DataFrame(values).rank(axis=1).to_numpy()
    return ranks - ranks.mean(axis=1, keepdims=True)
