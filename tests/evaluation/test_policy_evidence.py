"""The choices and differences that are made from what small policies predict, each by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from made_policies import EPISODES, FEW, MINE, MOST, SETTINGS, made_policies, prediction, with_brought

from workbook.common.intervals import Estimate
from workbook.common.targets import SAME_WITHIN
from workbook.evaluation.policy.evidence import CODEC, RETRAINED, PolicyEvidence
from workbook.evaluation.policy.network import RULES


def by_seed(first: float, second: float) -> np.ndarray:
    return np.array([[first], [second]])


def naive(**validation: float | np.ndarray) -> list[pd.DataFrame]:
    """Rows of naive's policy by rule; the test error is the other way round, for it is not to matter."""
    return [prediction("naive", rule, 1 / np.asarray(mse), mse) for rule, mse in validation.items()]


class TestBestRule:
    def best(self, *changed: pd.DataFrame) -> str:
        policy = made_policies(*changed)
        return policy.best_rule(policy.of("naive"))

    @pytest.mark.parametrize("best", RULES)
    def test_has_the_least_validation_error(self, best: str) -> None:
        assert self.best(*naive(**{rule: 1.0 if rule == best else 2.0 for rule in RULES})) == best

    def test_of_equal_ones_it_is_the_simplest(self) -> None:
        assert self.best(*naive(parallel_argmax=1.0, autoregressive=1.0, soft=1.0)) == "parallel_argmax"
        assert self.best(*naive(parallel_argmax=2.0, autoregressive=1.0, soft=1.0)) == "autoregressive"

    def test_is_that_of_the_mean_over_seeds(self) -> None:
        changed = naive(parallel_argmax=by_seed(1, 9), autoregressive=by_seed(3, 3), soft=by_seed(2, 5))
        assert self.best(*changed) == "autoregressive"

    def test_long_episodes_weigh_more(self) -> None:
        late, early = np.array([1.0, 1.0, 9.0]), np.array([9.0, 1.0, 1.0])
        steps = [10, 10, 80]
        changed = [prediction("naive", rule, late, steps=steps) for rule in RULES]
        changed[1] = prediction("naive", "autoregressive", early, steps=steps)
        assert self.best(*changed) == "autoregressive"

    def test_is_that_of_all_training_data(self) -> None:
        few = prediction("naive", "parallel_argmax", 0.001, size=FEW)
        assert self.best(few, *naive(parallel_argmax=3.0, autoregressive=2.0, soft=2.5)) == "autoregressive"


class TestLayersToKeep:
    @pytest.mark.parametrize(
        ("first", "both", "count"),
        [
            (1.0, 0.5, 2),
            (0.1, 0.1, 1),
            (0.1, 0.2, 1),
            (0.1 * (1 + SAME_WITHIN) - 1e-9, 0.1, 1),
            (0.1 * (1 + SAME_WITHIN) + 1e-9, 0.1, 2),
        ],
    )
    def test_are_the_fewest_that_are_as_good(self, first: float, both: float, count: int) -> None:
        policy = made_policies(
            prediction("naive", "soft", 1.0, first, layers=1), prediction("naive", "soft", 1.0, both, layers=2)
        )
        assert policy.layers_to_keep(policy.of("naive"), "soft") == count

    def test_are_those_of_the_best_rule(self) -> None:
        policy = made_policies(prediction("naive", "soft", 1.0, 0.01), *naive(autoregressive=1.0))
        assert policy.best_rule(policy.of("naive")) == "soft"
        assert policy.layers_to_keep(policy.of("naive")) == 2
        assert policy.layers_to_keep(policy.of("naive"), "autoregressive") == 1


class TestNewCodec:
    def new(self, **validation: float) -> str:
        return made_policies(
            *(prediction(codec, "soft", 1.0, mse) for codec, mse in validation.items())
        ).new_codec.codec

    def test_has_the_least_validation_error(self) -> None:
        assert self.new(fixed_scale=0.05, bins=0.07, klt_rfsq_fixed=0.06) == "fixed_scale"
        assert self.new(fixed_scale=0.07, bins=0.05, klt_rfsq_fixed=0.06) == "bins"

    def test_of_nearly_equal_ones_that_of_fewest_tokens(self) -> None:
        assert self.new(fixed_scale=0.06, bins=0.0629, klt_rfsq_fixed=0.0629) == "klt_rfsq_fixed"
        assert self.new(fixed_scale=0.06, bins=0.0629, klt_rfsq_fixed=0.0631) == "bins"

    def test_is_never_naive(self) -> None:
        assert self.new(naive=0.001) == "fixed_scale"

    def test_is_never_one_that_was_brought(self) -> None:
        policy = with_brought(made_policies(), mse=0.001)
        assert policy.codecs[-1] == (MINE, "")
        assert policy.best_error(policy.of(MINE)).mean == 0.001
        assert policy.new_codec.codec == "fixed_scale"


class TestContrasts:
    @pytest.fixture
    def contrasts(self) -> dict[str, Estimate]:
        """The best rule of naive is autoregressive, of the fixed scale, which is new, soft."""
        mse = {
            "naive": {"parallel_argmax": 5.0, "autoregressive": 4.0, "soft": 4.5},
            "fixed_scale": {"parallel_argmax": 4.0, "autoregressive": 5.0, "soft": 2.0},
            "bins": dict.fromkeys(RULES, 6.0),
            "klt_rfsq_fixed": dict.fromkeys(RULES, 6.0),
        }
        changed = [prediction(codec, rule, each) for codec, rules in mse.items() for rule, each in rules.items()]
        changed += [prediction("naive", rule, 3.0, decoder=RETRAINED) for rule in RULES]
        changed += [prediction("naive", CODEC, 0.5, size=0)]
        changed += [prediction("regression", "regression", 1.0, layers=0)]
        return made_policies(*changed).contrasts()

    @pytest.mark.parametrize(
        ("name", "gain"),
        [
            ("new_for_naive", 1 - 2 / 4),
            ("new_rule", 1 - 2 / 4),
            ("retrained_decoder", 1 - 3 / 4),
            ("naive_rule", 1 - 4 / 5),
            ("codec_share", 0.5 / 4),
            ("regression_for_naive", 1 - 1 / 4),
            ("fixed_scale_for_naive", 1 - 2 / 4),
            ("fixed_scale_for_naive_parallel_argmax", 1 - 4 / 5),
            ("fixed_scale_for_naive_autoregressive", 1 - 5 / 4),
            ("fixed_scale_for_naive_soft", 1 - 2 / 4.5),
        ],
    )
    def test_less_error_is_a_gain(self, contrasts: dict[str, Estimate], name: str, gain: float) -> None:
        found = contrasts[name]
        assert (found.mean, found.low, found.high) == pytest.approx((gain,) * 3)
        assert found.per_seed == pytest.approx([gain] * 2)

    def test_are_paired_by_seed_and_episode(self) -> None:
        mse = np.arange(1.0, 1 + 2 * EPISODES).reshape(2, EPISODES)
        policy = made_policies(prediction("naive", "parallel_argmax", mse), prediction("naive", "soft", mse / 2, 0.01))
        found = policy.contrasts()["naive_rule"]
        assert (found.low, found.high) == pytest.approx((0.5, 0.5))

    def test_one_naive_codec_goes_with_every_seed(self) -> None:
        one = prediction("naive", CODEC, 0.02, size=0)
        policy = made_policies(one[one.seed == 0])
        assert len(policy.codec_mse(policy.of("naive")).per_seed) == 1
        assert policy.contrasts()["codec_share"].per_seed == pytest.approx([0.2, 0.2])


class TestErrors:
    def test_are_weighed_by_steps(self) -> None:
        policy = made_policies(prediction("bins", "soft", np.array([1.0, 2.0, 4.0]), steps=[10, 20, 10]))
        assert policy.error(policy.of("bins"), "soft").mean == pytest.approx((1 + 2 * 2 + 4) / 4)

    def test_what_the_data_lack_has_no_figure(self) -> None:
        policy = made_policies()
        assert policy.error(policy.of("bins"), "soft", metric="joint_length").mean is None
        assert policy.error(policy.of("bins"), "soft", metric="drift_mm").mean == 0.5

    def test_are_of_the_size_the_decoder_and_the_prefix_that_are_asked_for(self) -> None:
        policy = made_policies(
            prediction("naive", "soft", 1.0, size=FEW),
            prediction("naive", "soft", 2.0, layers=1),
            prediction("naive", "soft", 3.0, decoder=RETRAINED),
            prediction("naive", "soft", 4.0, 0.01),
        )
        codec = policy.of("naive")
        found = (
            policy.error(codec, "soft", FEW),
            policy.error(codec, "soft", layers=1),
            policy.error(codec, "soft", decoder=RETRAINED),
            policy.best_error(codec),
        )
        assert [each.mean for each in found] == [1.0, 2.0, 3.0, 4.0]
        assert policy.training_set_sizes == [FEW, MOST]

    def test_layers_are_means_over_seeds(self) -> None:
        policy = made_policies()
        tokens = policy.tokens.assign(accuracy=policy.tokens.accuracy + 0.1 * policy.tokens.seed)
        changed = PolicyEvidence(policy.rows, tokens, policy.draft, policy.policies, policy.config)
        assert changed.accuracy("naive", "autoregressive") == pytest.approx([0.65, 0.45])
        assert changed.majority("naive") == [0.5, 0.3]
        assert changed.agreement(changed.of("naive"), "autoregressive") == pytest.approx([0.8, 0.6])

    def test_codecs_stand_in_order_with_what_reads_them(self) -> None:
        policy = made_policies()
        assert [tuple(codec) for codec in policy.codecs] == list(SETTINGS.items())
        assert policy.decoders(policy.of("naive")) == ["own", RETRAINED]
        assert policy.decoders(policy.of("bins")) == ["own"]
        assert [codec.codec for codec in policy.drafted] == ["naive", "fixed_scale"]
