"""Small policies end to end on a few walks: what the catalogue has predicted, and the rows that come of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from small_runs import ignore_progress, make_dataset, quickly

from rfsq_robust import ActionRFSQAE, Conditioning
from workbook.codecs import catalogue as catalogue_module
from workbook.codecs.catalogue import MOST_POLICY_LAYERS, POLICY_CODES, Fitting, Setting, catalogue
from workbook.codecs.rfsq import RFSQCodec
from workbook.common.errors import InputError
from workbook.common.paths import OutputFolder
from workbook.common.stages import STAGES, write_stage
from workbook.common.targets import COARSE_LAYERS
from workbook.evaluation.evidence import Evidence
from workbook.evaluation.policy.distribution import LIKELIHOOD, SUM_ERRORS
from workbook.evaluation.policy.evidence import (
    CODEC,
    GROUPED,
    REGRESSION,
    RETRAINED,
    PolicyEvidence,
    PredictedCodec,
)
from workbook.evaluation.policy.network import JOINT_RULES, RULES, TOKEN_RULES
from workbook.evaluation.policy.probe import (
    ERRORS,
    KEYS,
    WEIGHTS,
    ProbeConfig,
    Probed,
    predicted_codecs,
    probe,
    shared_by_jobs,
    training_set_sizes,
)
from workbook.evaluation.policy.training import NOISES
from workbook.evaluation.policy.trial import PolicyJob, Predictor, Trial
from workbook.evaluation.score import HeldOut

SEEDS = 2
LAYERS = 4
CODECS = ["naive", "fixed_scale", "bins", "klt_rfsq_fixed"]
NESTED = ["fixed_scale", "klt_rfsq_fixed"]  # of which new tokens can be predicted together
STEPS = 3


def codec(conditioning: Conditioning, seed: int) -> RFSQCodec:
    """Untrained; with an even number of levels no layer of the naive model is dead."""
    torch.manual_seed(seed)
    model = ActionRFSQAE(7, 6, LAYERS, 4, conditioning=conditioning).eval()
    return RFSQCodec(conditioning, model, make_dataset().normaliser)


def make_fitting(naive_models: int = SEEDS) -> Fitting:
    rfsq = {"none": [codec("none", seed) for seed in range(naive_models)]}
    rfsq["scale"] = [codec("scale", seed) for seed in range(SEEDS)]
    retrained = [codec("none", 10 + seed).model for seed in range(naive_models)]
    return Fitting(make_dataset(), rfsq, decoders={"step": retrained})  # type: ignore[arg-type]


def run_probe(fitting: Fitting) -> Probed:
    with quickly():
        return probe(fitting, ProbeConfig(STEPS), ignore_progress)


def evidence(found: Probed) -> PolicyEvidence:
    tables = (found.tables[name] for name in ("policy_tokens", "draft", "networks"))
    return PolicyEvidence(found.rows, *tables, ProbeConfig(STEPS).policy)


@pytest.fixture(scope="module")
def fitting() -> Fitting:
    return make_fitting()


@pytest.fixture(scope="module")
def found(fitting: Fitting) -> Probed:
    return run_probe(fitting)


@pytest.fixture(scope="module")
def policy(found: Probed) -> PolicyEvidence:
    return evidence(found)


class TestRows:
    def test_there_is_one_for_each_key(self, found: Probed) -> None:
        rows = found.rows
        assert list(rows.columns[: len(KEYS)]) == list(KEYS)
        assert not rows.duplicated(list(KEYS)).any()
        assert not rows[[*KEYS, "mse", "steps"]].isna().any().any()
        assert set(rows.groupby([*GROUPED, "seed"]).size().groupby("part").unique().map(len)) == {1}  # every episode

    def test_every_codec_has_every_rule_size_and_prefix(self, policy: PolicyEvidence) -> None:
        for codec in policy.codecs:
            rows = policy.rows[(policy.rows.codec == codec.codec) & (policy.rows.rule != CODEC)]
            own = rows[rows.decoder == "own"]
            joint = own[own.rule.isin(JOINT_RULES)]
            assert len(own.groupby(GROUPED)) - len(joint.groupby(GROUPED)) == len(RULES) * policy.layers(codec) * 2
            nested = codec.codec in NESTED
            assert len(joint.groupby(GROUPED)) == (len(JOINT_RULES) * 2 if nested else 0)
            assert set(joint.layers) == ({policy.layers(codec)} if nested else set())
            assert policy.rules(codec) == [*RULES, *(JOINT_RULES if nested else ())]
            readers = rows[rows.decoder != "own"]
            assert set(readers.decoder) == ({RETRAINED} if codec.codec == "naive" else set())
            assert set(readers.layers) <= {policy.layers(codec)}

    def test_all_errors_are_told_of_whole_test_predictions(self, policy: PolicyEvidence) -> None:
        layers = [policy.layers(policy.of(name)) if name in CODECS else 0 for name in policy.rows.codec]
        whole = (policy.rows.part == "test") & (policy.rows.layers == layers) & (policy.rows.rule != CODEC)
        measured = [name for name in ERRORS if "joint" not in name]  # of which there are none
        assert policy.rows.loc[whole, measured].notna().all().all()
        assert policy.rows.loc[~whole, measured[1:]].isna().all().all()

    def test_are_the_errors_of_what_a_space_decodes(self, fitting: Fitting, policy: PolicyEvidence) -> None:
        test, codec = HeldOut.of(fitting.dataset), policy.of("naive")
        space = predicted_codecs(fitting)[codec].space(1)
        own = test.rows(space.decode(space.tokens(test.chunks.actions)))
        found = policy.codec_mse(codec).per_seed[1]
        assert found == pytest.approx(own.mse @ own.steps / own.steps.sum())

    @pytest.mark.parametrize("rule", RULES)
    def test_a_retrained_decoder_reads_the_same_tokens_differently(self, policy: PolicyEvidence, rule: str) -> None:
        codec = policy.of("naive")
        own, other = (policy.error(codec, rule, decoder=name).per_seed for name in ("own", RETRAINED))
        assert all(a != b for a, b in zip(own, other, strict=True))

    def test_come_back_from_their_files(self, found: Probed, policy: PolicyEvidence, out: OutputFolder) -> None:
        for stage in list(STAGES)[: list(STAGES).index("policy")]:
            write_stage(out, stage, {}, {})
        write_stage(out, "policy", {}, found.values, {"probe": found.rows, **found.tables})
        read = Evidence(out.root).policy
        assert read.config == policy.config
        assert read.contrasts() == policy.contrasts()
        assert read.accuracy("naive", "autoregressive") == policy.accuracy("naive", "autoregressive")

    def test_values_say_how_it_was_done(self, found: Probed) -> None:
        assert (found.values["seeds"], found.values["tasks"], found.values["config"]["steps"]) == (SEEDS, 2, STEPS)


class TestTokens:
    @pytest.mark.parametrize("name", CODECS)
    def test_have_a_row_for_every_layer(self, policy: PolicyEvidence, name: str) -> None:
        rows = policy.tokens[policy.tokens.codec == name]
        apart = rows[rows.rule.isin(TOKEN_RULES)]
        assert len(apart) == len(TOKEN_RULES) * SEEDS * policy.layers(policy.of(name))
        assert (set(rows.rule) == {*TOKEN_RULES, JOINT_RULES[0]}) == (name in NESTED)
        assert rows[["accuracy", "majority_share"]].to_numpy().min() >= 0
        assert rows[["accuracy", "majority_share"]].to_numpy().max() <= 1
        assert rows.majority_share.min() > 0
        assert rows.cross_entropy_bits.min() > 0

    @pytest.mark.parametrize("name", CODECS)
    def test_of_the_first_layer_are_the_same_by_both_rules(self, policy: PolicyEvidence, name: str) -> None:
        first = policy.tokens[(policy.tokens.codec == name) & (policy.tokens.layer == 0)]
        one, other = (first[first.rule == rule] for rule in TOKEN_RULES)
        assert one.accuracy.tolist() == other.accuracy.tolist()
        assert one.cross_entropy_bits.tolist() == pytest.approx(other.cross_entropy_bits.tolist())
        codec = policy.of(name)
        if policy.layers(codec) > 1:
            one, other = (policy.error(codec, rule, layers=1) for rule in TOKEN_RULES)
            assert one == other

    def test_drafts_agree_in_the_coarse_layers(self, policy: PolicyEvidence) -> None:
        assert [codec.codec for codec in policy.drafted] == ["naive", "fixed_scale"]
        for codec in policy.drafted:
            for rule in TOKEN_RULES:
                shares = policy.agreement(codec, rule)
                assert len(shares) == min(COARSE_LAYERS, policy.layers(codec))
                assert all(0 <= share <= 1 for share in shares)

    def test_are_as_many_as_the_catalogue_says(self, policy: PolicyEvidence) -> None:
        assert [codec.codec for codec in policy.codecs] == CODECS
        counts = {codec.codec: policy.tokens_per_chunk(codec) for codec in policy.codecs}
        layers = policy.layers(policy.of("fixed_scale"))
        wanted = (8 * 6 * MOST_POLICY_LAYERS, 8 * 6 * layers, 8 * 7, 1 + POLICY_CODES)
        assert counts == dict(zip(CODECS, wanted, strict=True))
        assert policy.layers(policy.of("naive")) == MOST_POLICY_LAYERS


class TestNetworks:
    """What was trained, and what validation chose."""

    def test_the_better_noise_of_the_first_seed_is_every_seeds(self, policy: PolicyEvidence) -> None:
        for _, rows in policy.policies.groupby(["codec", "setting", "heads"]):
            tried = rows[rows.seed == 0]
            assert sorted(tried.noise) == sorted(NOISES)
            best = tried.loc[tried.validation_mse.idxmin()]
            assert tried[tried.chosen].noise.tolist() == [best.noise]
            assert set(rows[rows.chosen].noise) == {best.noise}
            assert sorted(rows[rows.chosen].seed) == list(range(SEEDS))

    def test_no_codec_has_narrower_heads(self, policy: PolicyEvidence) -> None:
        assert set(policy.policies.head_width) == {policy.config.head_width}
        assert policy.policies.weights.min() > 0

    def test_kept_weights_are_those_that_were_judged(self, policy: PolicyEvidence) -> None:
        """Of one look, after the last batch: its error is that of the rows."""
        assert set(policy.policies.steps) == {STEPS}
        for codec in policy.codecs:
            kept = policy.policies[(policy.policies.codec == codec.codec) & policy.policies.chosen]
            for heads, rules in (("apart", RULES), ("joint", JOINT_RULES)):
                told = kept[kept.heads == heads].sort_values("seed").validation_mse.tolist()
                by_rule = [policy.validation_by_seed(codec, rule) for rule in rules if rule in policy.rules(codec)]
                assert told == pytest.approx([min(errors) for errors in zip(*by_rule, strict=True)])

    def test_sums_of_points_are_their_own_energy_and_of_draws_not(self, policy: PolicyEvidence) -> None:
        test = policy.rows[(policy.rows.part == "test") & policy.rows.chunks.notna()]
        point, drawn = (test[(test.codec == "regression") == is_point] for is_point in (True, False))
        assert point.sum_position_mm.tolist() == pytest.approx(point.sum_energy_position_mm.tolist())
        assert (drawn.sum_position_mm - drawn.sum_energy_position_mm).abs().min() > 0
        assert {"steps", "chunks"} == set(WEIGHTS)
        assert test[[*SUM_ERRORS[:2], LIKELIHOOD]].notna().all().all()


class TestCatalogue:
    @pytest.fixture
    def made_up(self, monkeypatch: pytest.MonkeyPatch) -> str:
        """Coarse bins, as somebody might add them."""
        entry = replace(
            catalogue()["bins"], name="made_up", predicted=lambda fitting: [Setting.of(bins=4), Setting.of(bins=5)]
        )
        few = tuple(each for each in catalogue_module.ENTRIES if each.name in ("naive", "fixed_scale", RETRAINED))
        monkeypatch.setattr(catalogue_module, "ENTRIES", (*few, entry))
        return entry.name

    def test_a_new_entry_is_predicted_at_its_settings(self, fitting: Fitting, made_up: str) -> None:
        policy = evidence(run_probe(fitting))
        added = [codec for codec in policy.codecs if codec.codec == made_up]
        assert added == [PredictedCodec(made_up, "bins=4"), PredictedCodec(made_up, "bins=5")]
        for codec in added:
            assert policy.error(codec, "soft").mean
            assert 1 <= policy.layers_to_keep(codec) <= policy.layers(codec)

    def test_full_has_more_codecs(self, fitting: Fitting) -> None:
        usual, full = (predicted_codecs(replace(fitting, full=full)) for full in (False, True))
        assert {codec for codec in usual if codec.codec != "naive"} < set(full)
        assert [codec.setting for codec in full if codec.codec == "bins"] == ["bins=64", "bins=16", "bins=256"]
        assert set(usual[PredictedCodec("naive", f"layers={MOST_POLICY_LAYERS}")].readers) == {RETRAINED}


@pytest.fixture(scope="module")
def given() -> Iterator[PolicyEvidence]:
    """With one naive model of the user's own; codecs that this does not touch are left out."""
    with pytest.MonkeyPatch.context() as patch:
        few = tuple(each for each in catalogue_module.ENTRIES if each.name in ("naive", "fixed_scale", RETRAINED))
        patch.setattr(catalogue_module, "ENTRIES", few)
        yield evidence(run_probe(make_fitting(naive_models=1)))


class TestSingleNaiveModel:
    def test_is_predicted_with_every_seed(self, given: PolicyEvidence) -> None:
        naive = given.of("naive")
        assert len(given.codec_mse(naive).per_seed) == 1
        assert len(given.codec_mse(given.of("fixed_scale")).per_seed) == SEEDS
        first, second = given.error(naive, "soft").per_seed
        assert first != second

    def test_contrasts_are_paired_with_it(self, given: PolicyEvidence) -> None:
        contrasts, naive = given.contrasts(), given.of("naive")
        assert len(contrasts["fixed_scale_for_naive"].per_seed) == SEEDS
        codec, policy = given.codec_mse(naive).mean, given.best_error(naive).mean
        assert contrasts["codec_share"].mean == pytest.approx(codec / policy)


class TestConfig:
    def test_large_softmaxes_are_for_full(self, fitting: Fitting, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("workbook.evaluation.policy.probe.MOST_JOINT_LOGITS", {False: 1, True: 10**9})
        kinds = {full: shared_by_jobs(fitting, ProbeConfig(100, full)).targets for full in (False, True)}
        joint = {full: {kind.codec.codec for kind in found if kind.heads == "joint"} for full, found in kinds.items()}
        assert joint[False] == set()
        assert "fixed_scale" in joint[True]

    def test_full_trains_four_times_as_long(self) -> None:
        assert ProbeConfig(50).policy.steps == 50
        assert ProbeConfig(50, full=True).policy.steps == 200

    def test_fewer_episodes_are_seen_as_often(self, fitting: Fitting) -> None:
        shared = shared_by_jobs(fitting, ProbeConfig(100))
        episodes = shared.dataset.part("train")
        few = Trial.of(shared, PolicyJob(Predictor(REGRESSION), 3, 0, 0.0))
        every = Trial.of(shared, PolicyJob(Predictor(REGRESSION), len(episodes), 0, 0.0))
        assert every.config.steps == 100
        assert few.config.steps / len(few.inputs) == pytest.approx(100 / len(every.inputs), rel=0.1)

    def test_no_steps_are_refused(self) -> None:
        with pytest.raises(InputError, match="policy_steps is 0"):
            ProbeConfig(0)

    @pytest.mark.parametrize(
        ("episodes", "full", "sizes"),
        [
            (84, False, (84,)),
            (20, False, (20,)),
            (6, False, (6,)),
            (84, True, (10, 20, 40, 84)),
            (30, True, (10, 20, 30)),
        ],
    )
    def test_training_sets_are_smaller_than_what_there_is(
        self, episodes: int, full: bool, sizes: tuple[int, ...]
    ) -> None:
        assert training_set_sizes(episodes, ProbeConfig(full=full)) == sizes
