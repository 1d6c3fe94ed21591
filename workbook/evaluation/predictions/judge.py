"""What a file of predictions says: the tables of `evidence`, from its logits, true tokens and true actions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from workbook.codecs.protocol import Tokens, code_entropy
from workbook.codecs.rfsq import DEAD_BELOW_BITS
from workbook.codecs.token_spaces import Codes
from workbook.common.array import Array
from workbook.evaluation.layers import majority_share
from workbook.evaluation.loop.arms import PHASE2_ARGMAX, PHASE2_SOFT
from workbook.evaluation.policy.evidence import CODEC
from workbook.evaluation.predictions.evidence import ACCEPTANCES, DRAFT_KEPT, MAIN_SOFT, METRICS
from workbook.evaluation.predictions.read import Given, decode

PART = 256  # moments at once, which keeps the memory of a large file small
BINS = 15  # of confidence, of equal width, as in Guo et al. 2017
# A layer is copied where a draft of another moment is given and half or more of what is accepted beyond chance still
# is; where no other was given, if next to all that the draft has wrong is repeated. Much of it proves nothing: of the
# sample's fixed-scale tokens two networks that know nothing of each other repeat 0.82, 0.71 and 0.59 in L0 to L2.
COPIED_FROM = 0.5
REPEATED_FROM = 0.95
COPIES = ("repeated", "copied_share", "copied")
NO_ACCEPTANCE = pd.DataFrame(columns=["group", "moments", *ACCEPTANCES, "layer"], dtype=float)


@dataclass(frozen=True, eq=False)
class Judged:
    """The content of the predictions stage, and its tables."""

    values: dict[str, Any]
    tables: dict[str, pd.DataFrame]


def judge(given: Given) -> Judged:
    """Decode by every rule, and count."""
    errors: dict[str, list[Array]] = defaultdict(list)
    main, draft = _Tally(), _Tally()
    half_width = given.codec.normaliser.half_width
    for start in range(0, len(given.actions), PART):
        at = slice(start, start + PART)
        truth = list(np.moveaxis(given.tokens[at], -1, 0))
        of_main = _probabilities(given.main[at], truth[0].shape)
        of_draft = [] if given.draft is None else _probabilities(given.draft[at], truth[0].shape)
        main.add(of_main, truth)
        draft.add(of_draft, truth)
        decoded = {CODEC: decode(given.codec, truth), **_by_rule(given, of_main, of_draft)}
        for rule, actions in decoded.items():
            errors[rule].append((((actions - given.actions[at]) / half_width) ** 2).mean(axis=1))
    acceptance = _acceptance(given, main.said, draft.said) if draft.parts else NO_ACCEPTANCE
    tables = {
        "predictions": pd.concat([_errors(given, rule, np.concatenate(each)) for rule, each in errors.items()]),
        "predictions_layers": _layers(given, main, draft, acceptance),
        "predictions_acceptance": acceptance,
    }
    return Judged(_values(given), tables)


def _values(given: Given) -> dict[str, Any]:
    model = given.codec.model
    return {
        "not_run": "",
        "moments": len(given.actions),
        "groups": int(given.group.max()) + 1,
        "episodes_named": given.named[0],
        "tasks_named": given.named[1],
        "tasks": int(given.task.max()) + 1,
        "conditioning": model.conditioning,
        "normaliser_assumed": given.normaliser_assumed,
        "draft_layers": 0 if given.draft is None else given.draft.shape[1],
        "other_given": given.other_main is not None,
    }


def _probabilities(logits: NDArray[np.float32], shape: Sequence[int]) -> list[Array]:
    """(n, K, C * H, L) -> (n, C, H, L) a layer"""
    layers = torch.from_numpy(logits).double().softmax(dim=-1).numpy()
    return [layer.reshape(*shape, -1) for layer in np.moveaxis(layers, 1, 0)]


def _by_rule(given: Given, main: list[Array], draft: list[Array]) -> dict[str, Array]:
    """Rule -> (n, C, A) actions; those with a draft only where there is one."""
    said = [layer.argmax(axis=-1) for layer in main]
    found = {PHASE2_ARGMAX: decode(given.codec, said), MAIN_SOFT: given.space.expected(main)}
    if draft:
        coarse = [layer.argmax(axis=-1) for layer in draft]
        found[DRAFT_KEPT] = decode(given.codec, [*coarse, *said[len(draft) :]])
        found[PHASE2_SOFT] = given.space.expected([*draft, *main[len(draft) :]])
    return found


def _errors(given: Given, rule: str, errors: Array) -> pd.DataFrame:
    """errors: (N, A) squared, the mean over a chunk's steps."""
    dimensions = {
        "mse": np.arange(given.layout.dim),
        "motion_mse": given.layout.motion,
        "gripper_mse": given.layout.grippers,
    }
    assert tuple(dimensions) == METRICS
    parts = {name: errors[:, at] for name, at in dimensions.items()}
    columns = {name: part.mean(axis=1) if part.size else None for name, part in parts.items()}
    return _grouped(given, columns).assign(rule=rule)


def _grouped(given: Given, columns: dict[str, Array | None]) -> pd.DataFrame:
    """Means of each group over its moments; NaN where there is nothing of the kind."""
    counts = np.bincount(given.group)
    means = {
        name: np.nan if values is None else np.bincount(given.group, weights=values) / counts
        for name, values in columns.items()
    }
    return pd.DataFrame({"group": range(len(counts)), "moments": counts, **means})


@dataclass(eq=False)
class _Tally:
    """Of one model: sums over tokens, by layer, and what it says, (n, C, H, D) each."""

    parts: list[Codes] = field(default_factory=list)
    bits: Array | float = 0.0
    bins: Array | float = 0.0  # (D, BINS, 3): tokens, sums of confidence, right ones

    @property
    def said(self) -> Codes:
        return np.concatenate(self.parts)

    def add(self, probabilities: Sequence[Array], truth: Sequence[Codes]) -> None:
        if not probabilities:
            return
        self.parts.append(np.stack([layer.argmax(axis=-1) for layer in probabilities], axis=-1))
        pairs = list(zip(probabilities, truth, strict=False))
        self.bins = self.bins + np.stack([_binned(*pair) for pair in pairs])
        self.bits = self.bits + np.array([_surprise(*pair) for pair in pairs])


def _binned(probabilities: Array, truth: Codes) -> Array:
    confidence = probabilities.max(axis=-1).ravel()
    right = (probabilities.argmax(axis=-1) == truth).ravel()
    places = np.minimum((confidence * BINS).astype(int), BINS - 1)
    weights = (np.ones_like(confidence), confidence, right.astype(float))
    return np.stack([np.bincount(places, each, BINS) for each in weights], axis=-1)


def _surprise(probabilities: Array, truth: Codes) -> float:
    """Bits of the true tokens."""
    picked = np.take_along_axis(probabilities, truth[..., None], axis=-1)
    return float(-np.log2(np.maximum(picked, np.finfo(float).tiny)).sum())


def _layers(given: Given, main: _Tally, draft: _Tally, acceptance: pd.DataFrame) -> pd.DataFrame:
    count, steps, hidden, layers = given.tokens.shape
    by_place = given.tokens.reshape(count, steps * hidden, layers)
    entropy = code_entropy(Tokens(by_place[:, None]), np.ones((count, 1), dtype=bool)).mean(axis=0)
    of_truth = pd.DataFrame({
        "layer": range(layers), "majority_share": majority_share(by_place), "entropy_bits": entropy,
        "dead": entropy < DEAD_BELOW_BITS,
    })  # fmt: skip
    frames = [of_truth.join(_of_tokens(given, main)).assign(model="main")]
    if draft.parts:
        frames[0] = frames[0].join(_copied(given, main.said, draft.said, acceptance))
        frames.append(of_truth.join(_of_tokens(given, draft), how="inner").assign(model="draft"))
    rows = pd.concat(frames, ignore_index=True)
    return rows.assign(**{name: rows.get(name, np.nan) for name in COPIES}).astype({"copied": "boolean"})


def _of_tokens(given: Given, tally: _Tally) -> pd.DataFrame:
    """What one model says of the true tokens, a row a layer."""
    assert isinstance(tally.bins, np.ndarray)
    tokens, confidence, right = tally.bins.sum(axis=1).T
    off = np.abs(tally.bins[..., 1] - tally.bins[..., 2]).sum(axis=1)
    return pd.DataFrame({
        "accuracy": right / tokens, "confidence": confidence / tokens,
        "calibration_error": off / tokens, "cross_entropy_bits": tally.bits / tokens,
        "mse": [_prefix_mse(given, tally.said[..., : layer + 1]) for layer in range(len(tokens))],
    })  # fmt: skip


def _copied(given: Given, main: Codes, draft: Codes, acceptance: pd.DataFrame) -> pd.DataFrame:
    """`COPIES`: how much of its tokens a main model has from the draft, by layer that it is given."""
    layers = draft.shape[-1]
    wrong = draft != given.tokens[..., :layers]
    wrongs, alikes = (each.sum(axis=(0, 1, 2)) for each in (wrong, wrong & (main[..., :layers] == draft)))
    shares = acceptance[list(ACCEPTANCES)].mul(acceptance.moments, axis=0)
    accepted, by_chance, other = shares.groupby(acceptance.layer).sum(min_count=1).to_numpy().T / len(main)
    with np.errstate(invalid="ignore", divide="ignore"):  # of nothing wrong, and of nothing beyond chance
        repeated, copied = alikes / wrongs, (other - by_chance) / (accepted - by_chance)
    return pd.DataFrame({
        "repeated": repeated, "copied_share": copied,
        "copied": copied >= COPIED_FROM if given.other is not None else repeated >= REPEATED_FROM,
    })  # fmt: skip


def _prefix_mse(given: Given, said: Codes) -> float:
    """Error of the first layers' most likely tokens."""
    error = decode(given.codec, list(np.moveaxis(said, -1, 0))) - given.actions
    return float(((error / given.codec.normaliser.half_width) ** 2).mean())


def _acceptance(given: Given, main: Codes, draft: Codes) -> pd.DataFrame:
    """Share of the draft's tokens that the main model says, too: of this moment's draft, and of another moment's."""
    layers = draft.shape[-1]
    other = draft[another_moment(given.task) if given.other is None else given.other]
    shares = {"accepted": _alike(main[..., :layers], draft), "by_chance": _alike(main[..., :layers], other)}
    if given.other_main is not None:
        said = np.moveaxis(given.other_main.argmax(axis=-1), 1, -1).reshape(draft.shape)
        shares["accepted_other"] = _alike(said, other)
    frames = [
        _grouped(given, {"accepted_other": None} | {name: share[:, layer] for name, share in shares.items()})
        for layer in range(layers)
    ]
    return pd.concat([frame.assign(layer=layer) for layer, frame in enumerate(frames)], ignore_index=True)


def _alike(one: Codes, other: Codes) -> Array:
    """(N, C, H, D) twice -> (N, D)"""
    return np.asarray((one == other).mean(axis=(1, 2)))


def another_moment(task: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N,) tasks -> for every moment another one, always the same: of its task, or of any where it is alone in it."""
    order = np.random.default_rng(0).permutation(len(task))
    other = np.roll(np.arange(len(task)), -1)
    for name in np.unique(task):
        circle = order[task[order] == name]
        if len(circle) > 1:
            other[circle] = np.roll(circle, -1)
    return other
