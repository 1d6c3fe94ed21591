"""From a policy's predictions to actions: every rule by hand, and the arms that the catalogue asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from made_up import random_walk
from small_runs import make_dataset
from torch import Tensor, nn

from rfsq_robust import ActionRFSQAE
from workbook.codecs.bins import UniformBins
from workbook.codecs.brought import BroughtCodec
from workbook.codecs.catalogue import BROUGHT, CONDITIONED, ENTRIES, Fitting, catalogue
from workbook.codecs.chunk_transformers import MANNERS, ChunkTransformer
from workbook.codecs.rfsq import RFSQCodec
from workbook.codecs.token_spaces import Bins, Codes
from workbook.common.array import Array
from workbook.data.chunks import Normaliser
from workbook.evaluation.loop.arms import (
    ARGMAX,
    BY_LAYER,
    DIRECT,
    GREEDY,
    PHASE2_ARGMAX,
    PHASE2_SOFT,
    SOFT,
    Actor,
    Arm,
    line_up,
)
from workbook.evaluation.loop.phase2 import ParallelHeads
from workbook.evaluation.policy.evidence import FIXED_SCALE, NAIVE, OWN, RETRAINED
from workbook.evaluation.policy.network import PolicyConfig, RegressionPolicy, Standardiser, TokenPolicy, train_policy

UNIT = Normaliser(np.full(1, -1.0), np.ones(1))
PLAIN = Standardiser(np.zeros(2), np.ones(2))


@dataclass(frozen=True)
class Sum:
    """One number of one step: 4 a_0 + 2 a_1 + a_2 of three binary layers."""

    groups: int = 1
    sizes: tuple[tuple[int, int], ...] = ((1, 2),) * 3

    def tokens(self, chunks: Array) -> list[Codes]:
        whole = np.rint(chunks).astype(np.int64)
        return [whole // 4 % 2, whole // 2 % 2, whole % 2]

    def decode(self, tokens: Sequence[Codes]) -> Array:
        return sum(place * each for place, each in zip((4.0, 2.0, 1.0), tokens, strict=False))  # type: ignore[return-value]

    def expected(self, probabilities: Sequence[Array]) -> Array:
        return sum(place * each[..., 1] for place, each in zip((4.0, 2.0, 1.0), probabilities, strict=False))  # type: ignore[return-value]


class Coarse:
    """A tokenizer as somebody might bring it: the sign of every number."""

    vocab_size = 2

    def __call__(self, chunks: Array) -> list[list[int]]:
        return (chunks > 0).astype(int).reshape(len(chunks), -1).tolist()

    def decode(self, tokens: list[list[int]]) -> Array:
        return np.array(tokens).reshape(-1, 8, 7) - 0.5


class Twisted(Coarse):
    """Of which the first token turns all others round."""

    def decode(self, tokens: list[list[int]]) -> Array:
        return super().decode(tokens) * np.array([1 - 2 * each[0] for each in tokens])[:, None, None]


class Told(TokenPolicy):
    """Says 0.4, 0.6, 0.6 for a 1 of each layer, but after a 0 in layer 0 is sure of 0 in both others."""

    def __init__(self) -> None:
        super().__init__(2, 1, ((1, 2),) * 3, 4)

    def logits_alone(self, features: Tensor, layer: int) -> Tensor:
        one = (0.4, 0.6, 0.6)[layer]
        return torch.log(torch.tensor([1 - one, one])).expand(len(features), 1, 1, 2)

    def logits_given(self, features: Tensor, before: Sequence[Tensor]) -> Tensor:
        if not before:
            return self.logits_alone(features, 0)
        sure = torch.where(before[0][..., None] == 0, torch.tensor([5.0, -5.0]), torch.tensor([-5.0, 5.0]))
        return sure.float()


class Says(nn.Module):
    """Logits that are given; a main model tells in its last layer what it was given in the first."""

    def __init__(self, ones: Sequence[float]) -> None:
        super().__init__()
        self.ones = ones

    def forward(self, inputs: Tensor, coarse: Sequence[Tensor] = ()) -> list[Tensor]:
        said = [torch.log(torch.tensor([1 - one, one])).expand(len(inputs), 1, 1, 2) for one in self.ones]
        if coarse:
            said[-1] = torch.where(coarse[0][..., None] == 1, torch.tensor([-9.0, 9.0]), torch.tensor([9.0, -9.0]))
        return said


def act(rule: str, *networks: nn.Module) -> float:
    actor = Actor(rule, PLAIN, UNIT, 1, networks, Sum())
    [[[action]]] = actor.act(np.zeros((1, 2)))
    return float(action)


def test_parallel_argmax_takes_each_layer_by_itself() -> None:
    assert act(ARGMAX, Told()) == 2 + 1


def test_by_layer_a_layer_knows_what_was_chosen_before() -> None:
    assert act(BY_LAYER, Told()) == 0


def test_the_expected_value_weighs_every_token() -> None:
    assert act(SOFT, Told()) == pytest.approx(4 * 0.4 + 2 * 0.6 + 0.6)


def test_the_main_model_is_given_the_drafts_tokens_and_decides_all_layers() -> None:
    main = Says([0.3, 0.7, 0.5])
    assert act(PHASE2_ARGMAX, Says([0.9, 0.1]), main) == 0 + 2 + 1
    assert act(PHASE2_ARGMAX, Says([0.1, 0.1]), main) == 0 + 2 + 0


def test_the_expected_value_of_phase_2_keeps_the_drafts_coarse_layers() -> None:
    found = act(PHASE2_SOFT, Says([0.9, 0.1]), Says([0.3, 0.7, 0.5]))
    assert found == pytest.approx(4 * 0.9 + 2 * 0.1 + 1.0, abs=1e-6)


def test_a_regressions_actions_through_tokens_are_what_the_codec_makes_of_them() -> None:
    torch.manual_seed(0)
    network = RegressionPolicy(2, 4, 8)
    seen = np.array([[0.3, -0.8]])
    direct = Actor(DIRECT, PLAIN, UNIT, 4, (network,), None).act(seen)
    assert direct.shape == (1, 4, 1)
    space = Bins(UniformBins(8, UNIT), 4)
    through = Actor(DIRECT, PLAIN, UNIT, 4, (network,), codec=space.codec).act(seen)
    np.testing.assert_allclose(through, space.decode(space.tokens(np.clip(direct, -1, 1))))
    assert not np.allclose(through, direct)


def test_a_main_model_learns_to_copy_what_it_is_given_and_a_draft_cannot() -> None:
    """Coarse tokens that the observation does not tell."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(512, 2, generator=generator)
    tokens = [torch.randint(3, (512, 1, 2), generator=generator) for _ in range(3)]
    config = PolicyConfig(steps=150, width=32, features=32, head_weights=4000, learning_rate=1e-2)
    right = {}
    for given in (False, True):
        torch.manual_seed(0)
        model = ParallelHeads(2, 1, ((2, 3),) * 3, config, given)
        train_policy(model, inputs, tokens, config, 0, lambda step: None)
        said = model(inputs, tokens)
        right[given] = np.mean([(s.argmax(-1) == t).float().mean() for s, t in zip(said, tokens, strict=True)])
    assert right[True] > 0.95
    assert right[False] < 0.6


def test_weights_are_the_average_of_the_last_ones() -> None:
    inputs, targets = torch.randn(64, 2), [torch.zeros(64, 1)]
    found = []
    for averaging in (1.0, 1e-9):
        torch.manual_seed(0)
        model = RegressionPolicy(2, 1, 8)
        before = [each.detach().clone() for each in model.parameters()]
        train_policy(model, inputs, targets, PolicyConfig(steps=20, averaging=averaging), 0, lambda step: None)
        found.append(sum(float((a - b.detach()).abs().sum()) for a, b in zip(before, model.parameters(), strict=True)))
    assert found[0] > 1
    assert found[1] == pytest.approx(0, abs=1e-5)


def codec(conditioning: str, normaliser: Normaliser) -> RFSQCodec:
    torch.manual_seed(0)
    model = ActionRFSQAE(7, 6, 4, 5, conditioning=conditioning).eval()  # type: ignore[arg-type]
    return RFSQCodec(conditioning, model, normaliser)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def fitting() -> Fitting:
    dataset = make_dataset()
    models = {name: [codec(name, dataset.normaliser)] for name in CONDITIONED}
    decoders = {"step": [models["none"][0].model]}  # as `load_fitting` has them, without what 03_compare does not keep
    return Fitting(dataset, rfsq=models, decoders=decoders)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def full(fitting: Fitting) -> Fitting:
    networks = {
        network: [ChunkTransformer(manner, 8, 7, network.steps_a_token).eval()]
        for manner in MANNERS
        for network in catalogue()[manner].networks(True)
    }
    return replace(fitting, networks=networks, full=True)


def keys(arms: Sequence[Arm]) -> set[tuple[str, ...]]:
    return {(arm.policy.kind, arm.policy.codec, arm.rule, arm.decoder) for arm in arms}


DEFAULT = {
    ("regression", "regression", DIRECT, OWN),
    ("regression", "regression", DIRECT, FIXED_SCALE),
    ("tokens", NAIVE, ARGMAX, OWN),
    ("tokens", NAIVE, SOFT, OWN),
    ("tokens", NAIVE, SOFT, RETRAINED),
    ("tokens", FIXED_SCALE, ARGMAX, OWN),
    ("tokens", FIXED_SCALE, BY_LAYER, OWN),
    ("tokens", FIXED_SCALE, SOFT, OWN),
    ("tokens", "klt_rfsq_fixed", SOFT, OWN),
    ("tokens", "bins", SOFT, OWN),
    ("phase2", NAIVE, PHASE2_ARGMAX, OWN),
    ("phase2", NAIVE, PHASE2_SOFT, OWN),
    ("phase2", FIXED_SCALE, PHASE2_ARGMAX, OWN),
    ("phase2", FIXED_SCALE, PHASE2_SOFT, OWN),
}


def test_the_arms_are_what_the_catalogue_lists(fitting: Fitting) -> None:
    lineup = line_up(fitting)
    assert len(lineup.arms) == len(DEFAULT)
    assert keys(lineup.arms) == DEFAULT
    assert list(lineup.codecs) == [("fixed_scale", "layers=3")]


def test_under_full_every_codec_plays_by_every_rule_and_every_one_that_is_kept_as_a_round_trip(full: Fitting) -> None:
    arms = line_up(full).arms
    found = keys(arms)
    assert len({tuple(arm.keys.values()) for arm in arms}) == len(arms)  # each is told from the others in tables
    assert found > DEFAULT
    predicted = {
        codec: {rule for kind, of, rule, _ in found if (kind, of) == ("tokens", codec)} for _, codec, *_ in found
    }
    assert {codec for codec, rules in predicted.items() if rules == {ARGMAX, BY_LAYER, SOFT}} >= {
        "layernorm", "running_statistics", "learned_scale", "fixed_scale", "klt_rfsq_fixed",
    }  # fmt: skip
    assert predicted["bins"] == predicted["oat"] == predicted["quest"] == {ARGMAX, SOFT}
    assert {codec for kind, codec, *_ in found if kind == "phase2"} == set(CONDITIONED.values())
    assert ("sequence", "fast", GREEDY, OWN) in found
    through = {arm.decoder for arm in arms if arm.policy.kind == "regression"}
    assert through == {entry.name for entry in ENTRIES if entry.kept} | {OWN}


@pytest.mark.parametrize("in_full", [False, True])
def test_what_was_brought_plays_where_it_can_be_predicted(fitting: Fitting, in_full: bool) -> None:
    """By its argmax, and by its expected value where it has one."""

    def codec(name: str, least: int) -> BroughtCodec:
        return BroughtCodec(name, Coarse(), fitting.normaliser, (8, 7), lengths=(least, 56))

    twisted = replace(codec("Twisted", 56), tokenizer=Twisted())
    brought = [codec("Fixed", 56), twisted, codec("Varies", 55)]
    found = keys(line_up(replace(fitting, full=in_full, brought=brought)).arms)
    mine = {("tokens", f"{BROUGHT}Fixed", rule, OWN) for rule in (ARGMAX, SOFT)}
    mine |= {("tokens", f"{BROUGHT}Twisted", ARGMAX, OWN)}
    if in_full:
        mine |= {("tokens", f"{BROUGHT}Varies", ARGMAX, OWN), ("sequence", f"{BROUGHT}Varies", GREEDY, OWN)}
    assert found == keys(line_up(replace(fitting, full=in_full)).arms) | mine


@pytest.mark.parametrize("in_full", [False, True])
def test_what_an_arm_decodes_is_at_hand(fitting: Fitting, full: Fitting, in_full: bool) -> None:
    brought = BroughtCodec("Coarse", Coarse(), fitting.normaliser, (8, 7), lengths=(56, 56))
    lineup = line_up(replace(full if in_full else fitting, brought=[brought]))
    chunks = random_walk(np.random.default_rng(0), 8)[None]
    for arm in lineup.arms:
        if arm.policy.kind in ("regression", "sequence"):
            assert arm.tokens is None or lineup.codecs[arm.tokens].of(1).decode
        else:
            assert arm.tokens is not None
            space = lineup.spaces[arm.tokens].of(0)
            assert space.decode(space.tokens(chunks)).shape == chunks.shape
