"""The codecs whose tokens are played again: what the catalogue says is played, and of trained ones which models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from workbook.codecs.catalogue import Fitting, entries
from workbook.codecs.protocol import Codec
from workbook.codecs.rfsq import RFSQCodec

NO_ACTIONS = "layernorm"  # its tokens alone do not decode, so that hardly an episode succeeds


@dataclass(frozen=True, eq=False)
class PlayedCodec:
    """An entry of the catalogue at a setting. codecs: one for each of `seeds`; deployed: place of the one to deploy."""

    name: str
    setting: str
    codecs: Sequence[Codec]
    seeds: Sequence[int] = (0,)
    deployed: int = 0


def played_codecs(fitting: Fitting, training: dict[str, Any], seeds: int = 0) -> list[PlayedCodec]:
    """Every codec that is played; of those that are trained, up to `seeds` models, 0 for all."""
    return [
        _with_seeds(entry.name, str(setting), entry.codecs(fitting, setting), training, seeds)
        for entry in entries(fitting)
        for setting in entry.played(fitting)
    ]


def _with_seeds(name: str, setting: str, codecs: Sequence[Codec], training: dict[str, Any], seeds: int) -> PlayedCodec:
    """So many models, the one to deploy among them and else the first ones; it alone where one is enough."""
    named, deployed = _models(codecs, training)
    others = [place for place in range(len(codecs)) if place != deployed]
    kept = sorted([deployed, *others][: 1 if name == NO_ACTIONS else seeds or None])
    return PlayedCodec(name, setting, [codecs[i] for i in kept], [named[i] for i in kept], kept.index(deployed))


def _models(codecs: Sequence[Codec], training: dict[str, Any]) -> tuple[list[int], int]:
    """The seed of each model, and the place of the one that was copied for Phase 2 and 3; the first where none was."""
    if not isinstance(codecs[0], RFSQCodec):
        return list(range(len(codecs))), 0
    conditioning = codecs[0].model.conditioning
    seeds = [run["seed"] for run in training["conditionings"][conditioning]["runs"]]
    best = training["best"].get(conditioning, {}).get("seed", seeds[0])
    return [place if seed is None else seed for place, seed in enumerate(seeds)], seeds.index(best)
