"""The one place that encodes, decodes and measures.

Its rows are tidy: one for each codec, setting, decoding, seed and held-out episode.

    codec, setting      an entry of the catalogue and one of its settings, 'layers=8'
    decoding            'tokens': from what `encode` returned alone; 'encoder': the model's forward pass, which knows
                        what the encoder knows; it is the figure that training reports, and no decode
    compared, measured  whether it stands in the tables of 03_compare, and on the curve of bits and error
    seed, part          of the model; 'test' or 'validation'
    task, episode       what was done, and the place of the episode in its recordings
    bits, side_bits     of a chunk of this episode, and of these the side information; weighed by `chunks`
    tokens              of a chunk of this episode; weighed by `chunks`
    entropy_bits        of a chunk if each code were stored at its empirical entropy, over the whole part
    vocabulary          values of the largest token
    mse, ...            as in `metrics`, NaN where the data have nothing of the kind; weighed by `metrics.weight_of`
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workbook.codecs.catalogue import BROUGHT, Entry, Fitting, Setting, catalogue
from workbook.codecs.protocol import Codec, Tokens, entropy_bits
from workbook.common.array import Array
from workbook.common.errors import InputError
from workbook.common.intervals import Estimate, estimate_improvement, estimate_mean
from workbook.data.chunks import Chunks, Normaliser, join_chunks
from workbook.data.dataset import Dataset
from workbook.data.episodes import Episode
from workbook.data.layout import ActionLayout
from workbook.evaluation.metrics import LARGEST, MOST, episode_metrics, weight_of

KEYS = ("codec", "setting", "decoding", "seed", "part", "task", "episode")
TOKENS, ENCODER = "tokens", "encoder"


@dataclass(frozen=True, eq=False)
class HeldOut:
    """The held-out episodes of a part, and what errors are measured in."""

    part: str
    chunks: Chunks
    episodes: list[Episode]
    layout: ActionLayout
    normaliser: Normaliser
    train_variance: Array

    @staticmethod
    def of(dataset: Dataset, part: str = "test") -> HeldOut:
        train = np.concatenate([episode.actions for episode in dataset.part("train")])
        return HeldOut(
            part,
            dataset.held_out_chunks(part),
            dataset.part(part),
            dataset.layout,
            dataset.normaliser,
            dataset.normaliser.normalise(train).var(axis=0),
        )

    def rows(self, decoded: Array) -> pd.DataFrame:
        """Metrics of decoded chunks (N, C, A), a row an episode, with what they are weighed by."""
        joined = join_chunks(self.chunks, decoded)
        originals = [episode.actions for episode in self.episodes]
        metrics = episode_metrics(originals, joined, self.layout, self.normaliser, self.train_variance)
        return pd.concat([self._named(), metrics], axis=1)

    def mse_rows(self, decoded: Array) -> pd.DataFrame:
        """Of `rows` the mse and its weight alone, which takes a twentieth of the time."""
        of_step = np.repeat(self.chunks.episode, self.chunks.valid.sum(axis=1))
        steps = np.bincount(of_step)
        return self._named().assign(mse=np.bincount(of_step, self._squared(decoded)) / steps, steps=steps.astype(float))

    def _named(self) -> pd.DataFrame:
        known = {"task": [e.task for e in self.episodes], "episode": [e.place for e in self.episodes]}
        return pd.DataFrame({"part": self.part, **known})

    def mse(self, decoded: Array) -> float:
        """The mean over all steps of what `rows` calls mse."""
        return float(self._squared(decoded).mean())

    def _squared(self, decoded: Array) -> Array:
        """Squared error of each step that is none of padding, the mean over its dimensions: (steps,)."""
        squared = ((decoded - self.chunks.actions) / self.normaliser.half_width) ** 2
        return np.asarray(squared.mean(axis=-1)[self.chunks.valid])


def score(codec: Codec, test: HeldOut, decoding: str = TOKENS) -> pd.DataFrame:
    """A row for each held-out episode, from the codec's tokens alone; or, for `encoder`, from its forward pass."""
    chunks = test.chunks.actions
    tokens = codec.encode(chunks)
    decoded = codec.decode(tokens) if decoding == TOKENS else codec.forward(chunks)  # type: ignore[attr-defined]
    rows = test.rows(decoded)
    cost = _cost(codec, tokens, test.chunks)
    return pd.concat([rows.assign(decoding=decoding, seed=0), cost], axis=1)


def _cost(codec: Codec, tokens: Tokens, chunks: Chunks) -> pd.DataFrame:
    """What the tokens of each episode cost a chunk."""
    rows = []
    for episode in range(int(chunks.episode.max()) + 1):
        of_episode = chunks.episode == episode
        side = None if tokens.side is None else tokens.side[of_episode]
        part = Tokens(tokens.codes[of_episode], side, tokens.shared_alphabet)
        bits = codec.bits(part)
        without = bits if side is None else codec.bits(Tokens(part.codes, None, part.shared_alphabet))
        rows.append({
            "chunks": int(of_episode.sum()), "bits": bits, "side_bits": bits - without,
            "tokens": float(part.lengths.mean()),
        })  # fmt: skip
    return pd.DataFrame(rows).assign(entropy_bits=entropy_bits(tokens, chunks.valid), vocabulary=codec.vocabulary)


def seeds_of(codecs: Sequence[Codec], seeds: Sequence[int]) -> Sequence[int]:
    """What codecs of an entry are named by: the seeds of the trained models, where each has one; else 0, 1, ..."""
    return seeds if len(codecs) == len(seeds) else range(len(codecs))


def score_setting(
    entry: Entry, setting: Setting, fitting: Fitting, test: HeldOut, seeds: Sequence[int], decoding: str = TOKENS
) -> pd.DataFrame:
    """Rows of one entry at one setting, with all keys; seeds: of the trained models, in order."""
    codecs = entry.codecs(fitting, setting)
    paired = zip(codecs, seeds_of(codecs, seeds), strict=True)
    scored = [score(codec, test, decoding).assign(seed=seed) for codec, seed in paired]
    uses = {"compared": setting in entry.compared(fitting), "measured": setting in entry.measured(fitting)}
    frame = pd.concat(scored, ignore_index=True).assign(codec=entry.name, setting=str(setting), **uses)
    return frame[[*KEYS, *(name for name in frame if name not in KEYS)]]


@dataclass(frozen=True, eq=False)
class Scores:
    """Rows, and the estimates that are computed from them.

    A codec that is given by its name alone stands at its largest setting of layers.
    """

    rows: pd.DataFrame
    _estimates: dict[tuple[str, ...], Estimate] = field(default_factory=dict)
    _costs: dict[tuple[str, ...], dict[str, float]] = field(default_factory=dict)

    def of(self, codec: str, setting: str = "", decoding: str = TOKENS) -> pd.DataFrame:
        """Rows of one codec at one setting.

        Raises:
            KeyError: there are none.
        """
        rows = self._grouped.get((codec, setting or self.setting_of(codec), decoding))
        if rows is None:
            raise KeyError(f"no rows of {codec} at {setting or 'any setting'}, decoded from {decoding}")
        return rows

    def setting_of(self, codec: str) -> str:
        """The setting that stands for a codec: all layers, or the only one there is."""
        settings = [setting for name, setting, _ in self._grouped if name == codec]
        of_layers = [text for text in settings if text.startswith("layers=")]
        return max(of_layers, key=lambda text: Setting.parse(text)["layers"]) if of_layers else "".join(settings[:1])

    def listed(self, use: str) -> list[tuple[str, str]]:
        """Codec and setting of what is `compared`, or of what is `measured`, in the order of the catalogue."""
        return [pair for pair, uses in self._uses.items() if uses[use]]

    @cached_property
    def _uses(self) -> dict[tuple[str, str], dict[str, bool]]:
        """Of what was decoded from tokens, in the order of the catalogue; what was brought comes last."""
        brought = [name for name in dict.fromkeys(self.rows.codec) if name.startswith(BROUGHT)]
        order = [*catalogue(), *brought]
        if unknown := set(self.rows.codec) - set(order):
            raise InputError(
                f"scores.parquet: has rows of {', '.join(sorted(unknown))}, of which this version has none"
            )
        firsts = {key[:2]: rows.iloc[0] for key, rows in self._grouped.items() if key[2] == TOKENS}
        listed = sorted(firsts, key=lambda pair: order.index(pair[0]))
        return {pair: {use: bool(firsts[pair][use]) for use in ("compared", "measured")} for pair in listed}

    def has(self, codec: str, setting: str = "", decoding: str = TOKENS) -> bool:
        return (codec, setting or self.setting_of(codec), decoding) in self._grouped

    @cached_property
    def _grouped(self) -> dict[tuple[str, str, str], pd.DataFrame]:
        return grouped(self.rows, ["codec", "setting", "decoding"])

    def cost(self, codec: str, setting: str = "", decoding: str = TOKENS) -> dict[str, float]:
        """Means over seeds and chunks of what a chunk costs."""
        key = (codec, setting or self.setting_of(codec), decoding)
        if key not in self._costs:
            self._costs[key] = _cost_of(self.of(*key))
        return self._costs[key]

    def values(self, metric: str, codec: str, setting: str = "", decoding: str = TOKENS) -> tuple[Array, Array]:
        """(S seeds, E episodes) of one metric, 0 where an episode has none, and the weights (E,)."""
        return values_of(self.of(codec, setting, decoding), metric)

    def estimate(self, metric: str, codec: str, setting: str = "", decoding: str = TOKENS) -> Estimate:
        """The weighted mean over seeds and episodes with its interval; of the largest error, the largest."""
        key = (metric, codec, setting, decoding)
        if key not in self._estimates:
            self._estimates[key] = estimate_of(self.of(codec, setting, decoding), metric)
        return self._estimates[key]

    def improvement(
        self, codec: str, setting: str = "", decoding: str = TOKENS, over: str = "naive", metric: str = "mse",
        over_setting: str = "", over_decoding: str = "",
    ) -> Estimate:  # fmt: skip
        """The share by which the error is less than another codec's, paired by seed and episode."""
        key = ("improvement", codec, setting, decoding, over, metric, over_setting, over_decoding)
        if key not in self._estimates:
            baseline, weights = self.values(metric, over, over_setting, over_decoding or decoding)
            values, _ = self.values(metric, codec, setting, decoding)
            if len(baseline) != len(values):  # one naive checkpoint of the user's own, or one baseline without seeds
                baseline = baseline.mean(axis=0, keepdims=True)
            self._estimates[key] = estimate_improvement(baseline, values, weights)
        return self._estimates[key]


def grouped(rows: pd.DataFrame, columns: list[str]) -> dict[Any, pd.DataFrame]:
    """Rows by the values of some columns, each group by seed and episode, whatever order they were in.

    Episodes stand in the order in which all rows first name them, which pairs those of one group with another's. In
    folds each episode is of one seed alone.

    Raises:
        ValueError: a group has neither one row for each of its seeds and episodes, nor one for each episode.
    """
    places = pd.factorize(pd.MultiIndex.from_frame(rows[["task", "episode"]]))[0]
    groups = {}
    for key, at in rows.groupby(columns, sort=False).indices.items():
        if len(set(places[at])) == len(at):
            groups[key] = rows.iloc[at[np.argsort(places[at])]]
            continue
        at = at[np.lexsort((places[at], rows.seed.to_numpy()[at]))]
        of_seed = places[at].reshape(rows.seed.iloc[at].nunique(), -1) if _fits(rows, at) else None
        if of_seed is None or (of_seed != of_seed[0]).any() or len(set(of_seed[0])) < of_seed.shape[1]:
            raise ValueError(f"the rows of {key} are not one for each seed and episode")
        groups[key] = rows.iloc[at]
    return groups


def _fits(rows: pd.DataFrame, at: NDArray[np.int64]) -> bool:
    return len(at) % rows.seed.iloc[at].nunique() == 0


def _cost_of(rows: pd.DataFrame) -> dict[str, float]:
    weighed = {name: float(np.average(rows[name], weights=rows.chunks)) for name in ("bits", "side_bits", "tokens")}
    return weighed | {
        "entropy_bits": float(rows.groupby("seed").entropy_bits.first().mean()),
        "vocabulary": int(rows.vocabulary.iloc[0]),
        "seeds": int(rows.seed.nunique()),
    }


def values_of(rows: pd.DataFrame, metric: str) -> tuple[Array, Array]:
    """(S, E) of one metric of the rows of one codec, setting and decoding, and the weights (E,).

    In folds the weights are (S, E), 0 where an episode was not a seed's to test; of validation, which only chooses, all
    episodes are pooled, (1, E).
    """
    seeds, weight = rows.seed.nunique(), weight_of(metric)
    if seeds > 1 and not rows[["task", "episode"]].duplicated().any():
        return _values_in_folds(rows, metric, weight)
    values = rows[metric].to_numpy().reshape(seeds, -1)
    weights = np.ones(values.shape[1]) if weight is None else rows[weight].to_numpy(float).reshape(seeds, -1)[0]
    # Where one seed alone has no figure its model is broken, and every episode has a squared error: both must show.
    absent = np.isnan(values).all(axis=0) & (metric != LARGEST) & (not metric.startswith("mse"))
    return np.where(absent, 0.0, values), np.where(absent, 0.0, weights)


def _values_in_folds(rows: pd.DataFrame, metric: str, weight: str | None) -> tuple[Array, Array]:
    """Values and weights as (S, E), of rows in the order of episodes."""
    found = rows[metric].to_numpy(float)
    weights = np.ones(len(rows)) if weight is None else rows[weight].to_numpy(float)
    absent = np.isnan(found) & (metric != LARGEST) & (not metric.startswith("mse"))
    found, weights = np.where(absent, 0.0, found), np.where(absent, 0.0, weights)
    if "part" in rows and (rows.part == "validation").all():
        return found[None], weights
    of_seed = rows.seed.to_numpy() == np.unique(rows.seed)[:, None]
    return np.where(of_seed, found, 0.0), np.where(of_seed, weights, 0.0)


def estimate_of(rows: pd.DataFrame, metric: str) -> Estimate:
    """As `Scores.estimate`, of rows of one codec, setting and decoding."""
    values, weights = values_of(rows, metric)
    if metric == LARGEST:
        return Estimate(float(values.max()), per_seed=tuple(map(float, values.max(axis=1))))
    return estimate_mean(values, weights, MOST.get(metric, np.inf))
