"""What plays in the loop: policies, each trained once a seed, and the ways from their predictions to actions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from workbook.codecs.catalogue import COARSE_LAYERS, Entry, Fitting, Setting, catalogue
from workbook.codecs.token_spaces import Codes, TokenSpace
from workbook.common.array import Array
from workbook.data.chunks import Normaliser
from workbook.evaluation.policy.evidence import FIXED_SCALE, OWN
from workbook.evaluation.policy.network import RULES, Standardiser, TokenPolicy

Kind = Literal["regression", "tokens", "phase2"]
REGRESSION = "regression"
DIRECT = "direct"
ARGMAX, BY_LAYER, SOFT = RULES
PHASE2_ARGMAX, PHASE2_SOFT = "phase2_argmax", "phase2_soft"


class PolicyKey(NamedTuple):
    """One network: whose tokens it predicts, or a regression; phase2 is a draft and a main model."""

    kind: Kind
    codec: str
    setting: str


class Arm(NamedTuple):
    """A policy and how it acts. decoder: `OWN`, or the entry that reads its tokens, or through whose tokens, at
    `through`, a regression's actions go and come back.
    """

    policy: PolicyKey
    rule: str
    decoder: str = OWN
    through: str = ""

    @property
    def keys(self) -> dict[str, str]:
        """By which it is known in tables."""
        return {**self.policy._asdict(), "rule": self.rule, "decoder": self.decoder}

    @property
    def space(self) -> tuple[str, str] | None:
        """Codec and setting of the tokens that are decoded; None where there are none."""
        if self.policy.kind == "regression" and self.decoder == OWN:
            return None
        return (self.policy.codec if self.decoder == OWN else self.decoder, self.through or self.policy.setting)


@dataclass(frozen=True, eq=False)
class Space:
    """Tokens of an entry at a setting; spaces: one a seed, or one."""

    spaces: Sequence[TokenSpace]

    def of(self, seed: int) -> TokenSpace:
        return self.spaces[seed % len(self.spaces)]


def spaces_of(entry: Entry, fitting: Fitting, setting: Setting) -> Space:
    assert entry.space is not None, f"{entry.name} has no space of tokens"
    return Space([entry.space(codec, fitting.dataset.chunk_len) for codec in entry.codecs(fitting, setting)])


def arms_of(fitting: Fitting) -> tuple[list[Arm], dict[tuple[str, str], Space]]:
    """Every arm that the catalogue lists, and the tokens of every codec and setting that they need."""
    regression = PolicyKey("regression", REGRESSION, "")
    arms, spaces = [Arm(regression, DIRECT)], {}
    for entry in catalogue().values():
        if entry.rules:
            setting = entry.predicted(fitting)[0]
            spaces[entry.name, str(setting)] = spaces_of(entry, fitting, setting)
            own = PolicyKey("tokens", entry.name, str(setting))
            arms += [Arm(own, rule) for rule in entry.rules]
            for other in catalogue().values():
                if other.reads == entry.name and other.space:
                    spaces[other.name, str(setting)] = spaces_of(other, fitting, setting)
                    arms.append(Arm(own, SOFT, other.name))
        if entry.phase2 and fitting.layers >= COARSE_LAYERS:
            every = Setting.of(layers=fitting.layers)
            spaces[entry.name, str(every)] = spaces_of(entry, fitting, every)
            arms += [Arm(PolicyKey("phase2", entry.name, str(every)), rule) for rule in (PHASE2_ARGMAX, PHASE2_SOFT)]
    through = next((arm.policy for arm in arms if arm.policy.codec == FIXED_SCALE), None)
    if through:
        arms.append(Arm(regression, DIRECT, FIXED_SCALE, through.setting))
    return arms, spaces


@dataclass(frozen=True, eq=False)
class Actor:
    """A trained policy that acts by one rule. space: of its tokens, or that a regression goes through."""

    rule: str
    standardise: Standardiser
    normaliser: Normaliser
    chunk_len: int
    networks: tuple[nn.Module, ...]
    space: TokenSpace | None

    @torch.no_grad()
    def act(self, inputs: Array) -> Array:
        """(N, D) of what is seen -> (N, C, A) actions in controller units."""
        if self.rule == DIRECT:
            return self._regressed(self.networks[0](self.standardise.apply(inputs)))
        assert self.space is not None
        tokens = self.tokens(inputs)
        if tokens is not None:
            return self.space.decode(tokens)
        return self.space.expected([each.softmax(-1).double().numpy() for each in self._weighed(inputs)])

    @torch.no_grad()
    def tokens(self, inputs: Array) -> list[Codes] | None:
        """(N, D) of what is seen -> the tokens to decode, (N, G, S) a layer; None where the rule chooses none."""
        seen, first = self.standardise.apply(inputs), self.networks[0]
        if self.rule == PHASE2_ARGMAX:
            return [each.argmax(-1).numpy() for each in self.networks[1](seen, self.draft(inputs))]
        if self.rule not in (ARGMAX, BY_LAYER):
            return None
        assert isinstance(first, TokenPolicy)
        features, chosen = first.features(seen), list[Tensor]()
        for layer in range(len(first.sizes)):
            by_layer = self.rule == BY_LAYER
            logits = first.logits_given(features, chosen) if by_layer else first.logits_alone(features, layer)
            chosen.append(logits.argmax(-1))
        return [each.numpy() for each in chosen]

    @torch.no_grad()
    def draft(self, inputs: Array) -> list[Tensor]:
        """(N, D) of what is seen -> coarse tokens of Phase 2's draft, (N, G, S) a layer."""
        return [each.argmax(-1) for each in self.networks[0](self.standardise.apply(inputs))]

    def _weighed(self, inputs: Array) -> list[Tensor]:
        """Logits by which the expected value weighs tokens: (N, G, S, L) a layer."""
        seen, first = self.standardise.apply(inputs), self.networks[0]
        if isinstance(first, TokenPolicy):
            features = first.features(seen)
            return [first.logits_alone(features, layer) for layer in range(len(first.sizes))]
        draft = first(seen)
        main = self.networks[1](seen, [each.argmax(-1) for each in draft])
        return [*draft, *main[len(draft) :]]

    def _regressed(self, predicted: Tensor) -> Array:
        normalised = predicted.double().numpy().reshape(len(predicted), self.chunk_len, -1)
        actions = self.normaliser.denormalise(normalised)
        if self.space is None:
            return actions
        return self.space.decode(self.space.tokens(np.clip(actions, self.normaliser.low, self.normaliser.high)))
