"""What plays in the loop: policies, each trained once a seed, and the ways from their predictions to actions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from workbook.codecs.catalogue import BROUGHT, CONDITIONED, Entry, Fitting, Setting, catalogue, entries
from workbook.codecs.protocol import Codec, Fallible, Tokens
from workbook.codecs.token_spaces import Codes, TokenSpace, expected_of_even
from workbook.common.array import Array
from workbook.common.targets import COARSE_LAYERS
from workbook.data.chunks import Normaliser
from workbook.evaluation.loop.sequence import SequencePolicy
from workbook.evaluation.policy.evidence import FIXED_SCALE, OWN
from workbook.evaluation.policy.network import RULES, Standardiser, TokenPolicy

T = TypeVar("T")
Kind = Literal["regression", "tokens", "phase2", "sequence"]
REGRESSION = "regression"
DIRECT = "direct"
ARGMAX, BY_LAYER, SOFT = RULES
PHASE2_ARGMAX, PHASE2_SOFT = "phase2_argmax", "phase2_soft"
GREEDY = "greedy"


class PolicyKey(NamedTuple):
    """One network: whose tokens it predicts, or a regression. phase2 is a draft and a main model, sequence a
    transformer for tokens of variable length.
    """

    kind: Kind
    codec: str
    setting: str


WITHOUT_TOKENS = PolicyKey("regression", REGRESSION, "")


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
        """By which it is known in tables. A regression has the setting of the tokens that it goes through."""
        of = {"rule": self.rule, "decoder": self.decoder}
        return {**self.policy._asdict(), "setting": self.through or self.policy.setting, **of}

    @property
    def tokens(self) -> tuple[str, str] | None:
        """Codec and setting of the tokens that are decoded; None of a regression without any."""
        if self.policy.kind == "regression":
            return (self.decoder, self.through) if self.through else None
        return (self.policy.codec if self.decoder == OWN else self.decoder, self.policy.setting)


@dataclass(frozen=True, eq=False)
class Seeded(Generic[T]):
    """each: one a seed, or one where no seed matters."""

    each: Sequence[T]

    def of(self, seed: int) -> T:
        return self.each[seed % len(self.each)]


@dataclass(frozen=True, eq=False)
class Lineup:
    """What plays. spaces: tokens that policies predict; codecs: of sequences, and through which
    regressions go. Both by name and setting.
    """

    arms: list[Arm] = field(default_factory=list)
    spaces: dict[tuple[str, str], Seeded[TokenSpace]] = field(default_factory=dict)
    codecs: dict[tuple[str, str], Seeded[Codec]] = field(default_factory=dict)

    def add_policy(self, fitting: Fitting, kind: Kind, entry: Entry, setting: Setting, rules: Sequence[str]) -> None:
        """A policy that predicts an entry's tokens, decoded by each rule."""
        self._add_space(fitting, entry, setting)
        self.arms.extend(Arm(PolicyKey(kind, entry.name, str(setting)), rule) for rule in rules)

    def add_readers(self, fitting: Fitting, entry: Entry, setting: Setting, rules: Sequence[str]) -> None:
        """The same policy read by every decoder that there is for its tokens."""
        for other in catalogue().values():
            if other.reads == entry.name and other.space:
                self._add_space(fitting, other, setting)
                own = PolicyKey("tokens", entry.name, str(setting))
                self.arms.extend(Arm(own, rule, other.name) for rule in rules)

    def add_round_trip(self, fitting: Fitting, entry: Entry, setting: Setting) -> None:
        """The regression whose actions go through an entry's tokens and back."""
        self._add_codec(fitting, entry, setting)
        self.arms.append(Arm(WITHOUT_TOKENS, DIRECT, entry.name, str(setting)))

    def add_sequence(self, fitting: Fitting, entry: Entry, setting: Setting) -> None:
        """A policy that predicts an entry's tokens of variable length."""
        self._add_codec(fitting, entry, setting)
        self.arms.append(Arm(PolicyKey("sequence", entry.name, str(setting)), GREEDY))

    def _add_codec(self, fitting: Fitting, entry: Entry, setting: Setting) -> None:
        if (entry.name, str(setting)) not in self.codecs:
            self.codecs[entry.name, str(setting)] = Seeded(entry.codecs(fitting, setting))

    def _add_space(self, fitting: Fitting, entry: Entry, setting: Setting) -> None:
        assert entry.space is not None, f"{entry.name} has no space of tokens"
        codecs = entry.codecs(fitting, setting)
        spaces = [entry.space(codec, fitting.dataset.chunk_len) for codec in codecs]
        self.spaces[entry.name, str(setting)] = Seeded(spaces)


def line_up(fitting: Fitting) -> Lineup:
    """Every arm that the catalogue lists, and of every codec that was brought and can be predicted; under `full` every
    codec that a policy can predict, by every rule, and every round trip of a codec that 03_compare keeps.
    """
    found = Lineup([Arm(WITHOUT_TOKENS, DIRECT)])
    for entry in entries(fitting):
        for setting in _predicted(entry, fitting):
            rules = _rules(entry, fitting, setting) if fitting.full or not entry.rules else entry.rules
            found.add_policy(fitting, "tokens", entry, setting, rules)
            found.add_readers(fitting, entry, setting, rules if fitting.full else (SOFT,))
        alike = fitting.full and entry.name in CONDITIONED.values()
        if (entry.phase2 or alike) and fitting.layers >= COARSE_LAYERS:
            every = Setting.of(layers=fitting.layers)
            found.add_policy(fitting, "phase2", entry, every, (PHASE2_ARGMAX, PHASE2_SOFT))
        for setting in entry.sequences(fitting) if fitting.full else ():
            found.add_sequence(fitting, entry, setting)
    for entry in catalogue().values():
        for setting in _round_trips(entry, fitting, found.arms):
            found.add_round_trip(fitting, entry, setting)
    return found


def _predicted(entry: Entry, fitting: Fitting) -> Sequence[Setting]:
    """Settings whose tokens a policy predicts."""
    if entry.name.startswith(BROUGHT):
        return entry.predicted(fitting)
    if not fitting.full:
        return entry.predicted(fitting)[:1] if entry.rules else []
    if entry.space is None or entry.reads:
        return []
    return entry.predicted(fitting) or entry.compared(fitting)


def _rules(entry: Entry, fitting: Fitting, setting: Setting) -> Sequence[str]:
    """Every rule; one layer has nothing to be decided layer by layer, and some tokens have no expected value."""
    assert entry.space is not None, f"{entry.name} has no space of tokens"
    space = entry.space(entry.codecs(fitting, setting)[0], fitting.dataset.chunk_len)
    if len(space.sizes) > 1:
        return RULES
    return (ARGMAX,) if expected_of_even(space) is None else (ARGMAX, SOFT)


def _round_trips(entry: Entry, fitting: Fitting, arms: Sequence[Arm]) -> Sequence[Setting]:
    """Settings at which a regression goes through a codec: that of the fixed scale which a policy predicts, too."""
    if fitting.full:
        return (entry.played(fitting) or entry.compared(fitting) or entry.measured(fitting)) if entry.kept else []
    of_policies = [arm.policy.setting for arm in arms if arm.policy[:2] == ("tokens", entry.name)]
    return [Setting.parse(setting) for setting in of_policies[:1] if entry.name == FIXED_SCALE]


@dataclass(frozen=True, eq=False)
class Actor:
    """A trained policy that acts by one rule. space: of its tokens; codec: of a sequence's, or through which a
    regression goes.
    """

    rule: str
    standardise: Standardiser
    normaliser: Normaliser
    chunk_len: int
    networks: tuple[nn.Module, ...]
    space: TokenSpace | None = None
    codec: Codec | None = None

    @torch.no_grad()
    def act(self, inputs: Array) -> Array:
        """(N, D) of what is seen -> (N, C, A) actions in controller units."""
        if self.rule == DIRECT:
            return self._regressed(self.networks[0](self.standardise.apply(inputs)))
        if self.rule == GREEDY:
            return self.greedy(inputs)[0]
        assert self.space is not None
        tokens = self.tokens(inputs)
        if tokens is not None:
            return self.space.decode(tokens)
        found = self.space.expected([each.softmax(-1).double().numpy() for each in self._weighed(inputs)])
        assert found is not None
        return found

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

    @torch.no_grad()
    def greedy(self, inputs: Array) -> tuple[Array, float]:
        """Actions (N, C, A) of a sequence's likeliest tokens, and the share of sequences that are malformed."""
        first, codec = self.networks[0], self.codec
        assert isinstance(first, SequencePolicy)
        assert isinstance(codec, Fallible)
        tokens = Tokens(first.greedy(self.standardise.apply(inputs)).numpy(), shared_alphabet=True)
        return codec.decode(tokens), float(codec.malformed(tokens).mean())

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
        return actions if self.codec is None else self.round_trip(actions)

    def round_trip(self, chunks: Array) -> Array:
        """(N, C, A) actions in controller units through the codec, or the tokens, and back."""
        if self.codec is not None:
            return self.codec.decode(self.codec.encode(np.clip(chunks, self.normaliser.low, self.normaliser.high)))
        assert self.space is not None
        return self.space.decode(self.space.tokens(chunks))
