"""What follows from small policies' predictions: errors, choices made on the validation part, and paired differences.

probe.parquet, a row for each held-out episode:

    codec, setting      whose tokens are predicted; 'regression' predicts actions without tokens
    rule                how predictions become actions (`network.RULES`, and `JOINT_RULES` where a policy with one
                        softmax a latent was trained, too); 'regression', or 'codec': true tokens decoded
    decoder             'own', or the entry that reads the tokens in its stead
    layers              of tokens that were decoded, coarse to fine
    training_set_size   train episodes that the policy has seen, 0 where there is none
    seed, part, task, episode
    mse, ...            errors of the decoded action, `steps` their weight; of the validation part and of fewer than
                        all layers the mse alone; motion_mse leaves out the gripper
    sum_..., motion_bits  as in `distribution`, their weights `chunks` and `steps`

tables/policy_tokens.parquet, of the test part: codec, setting, rule, training_set_size, seed, layer | accuracy,
cross_entropy_bits of a chunk, majority_share and entropy_bits of a token. Layers of a joint rule are its own.
tables/draft.parquet: codec, setting, rule, seed, layer | agreement of draft and main model, as a share, and
agreement_other with the draft of another moment of the same task.
tables/networks.parquet, a row for each trained policy: codec, setting, heads ('apart', or 'joint' with one softmax a
latent), training_set_size, seed, noise | chosen (False where other noise was better), steps after which the kept
weights stood, validation_mse at the best rule, layers, tokens_per_chunk, head_width, weights, and malformed, the share
of chunks of the test part that were predicted by parallel argmax and do not decode.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from workbook.codecs.catalogue import NotPredicted, proposed
from workbook.common.intervals import Estimate, estimate_improvement
from workbook.common.targets import SAME_WITHIN
from workbook.evaluation.policy.network import JOINT_RULES, RULES
from workbook.evaluation.policy.training import ProbeTraining
from workbook.evaluation.score import estimate_of, grouped, values_of

OWN = "own"  # a codec's own decoder
CODEC, REGRESSION_RULE = "codec", "regression"  # rows that no decode rule has made
RETRAINED = "naive_by_retrained"
GROUPED = ["codec", "setting", "rule", "decoder", "layers", "training_set_size", "part"]


class PredictedCodec(NamedTuple):
    """A codec at the setting at which its tokens are predicted."""

    codec: str
    setting: str


REGRESSION = PredictedCodec("regression", "")
NAIVE, FIXED_SCALE = "naive", "fixed_scale"


@dataclass(frozen=True, eq=False)
class PolicyEvidence:
    """The rows, and what is computed from them; where no training-set size is named, of policies trained on all.

    not_predicted: codecs that were brought, with why no policy predicts them.
    """

    rows: pd.DataFrame
    tokens: pd.DataFrame
    draft: pd.DataFrame
    policies: pd.DataFrame
    config: ProbeTraining
    not_predicted: Mapping[str, NotPredicted] = field(default_factory=dict)
    _estimates: dict[tuple[object, ...], Estimate] = field(default_factory=dict)

    @cached_property
    def codecs(self) -> list[PredictedCodec]:
        """In the order of the catalogue."""
        return [PredictedCodec(*pair) for pair in self._policies.index]

    @property
    def drafted(self) -> list[PredictedCodec]:
        """Those whose coarse layers a draft model predicts."""
        return [PredictedCodec(*pair) for pair in dict.fromkeys(zip(self.draft.codec, self.draft.setting, strict=True))]

    def decoders(self, codec: PredictedCodec) -> list[str]:
        """Its own, and the entries that read its tokens."""
        return list(
            dict.fromkeys(decoder for name, setting, _, decoder, *_ in self._grouped if (name, setting) == codec)
        )

    def of(self, codec: str) -> PredictedCodec:
        """A codec by its name, at the first of its settings."""
        return next(each for each in self.codecs if each.codec == codec)

    @cached_property
    def training_set_sizes(self) -> list[int]:
        return sorted(set(self.rows.training_set_size[self.rows.codec == REGRESSION.codec]))

    def told_rules(self, codec: PredictedCodec) -> list[str]:
        """Those that differ: of a single layer parallel argmax and autoregressive are the same."""
        return [rule for rule in self.rules(codec) if self.layers(codec) > 1 or rule != "autoregressive"]

    @property
    def most(self) -> int:
        return self.training_set_sizes[-1]

    @property
    def seeds(self) -> int:
        return int(self._of(REGRESSION, REGRESSION_RULE).seed.nunique())

    def layers(self, codec: PredictedCodec) -> int:
        return int(self._policies.loc[codec, "layers"])

    def tokens_per_chunk(self, codec: PredictedCodec) -> int:
        return int(self._policies.loc[codec, "tokens_per_chunk"])

    def weights(self, codec: PredictedCodec) -> int:
        return int(self._policies.loc[codec, "weights"])

    @cached_property
    def _policies(self) -> pd.DataFrame:
        """A row for each codec, of a policy that predicts its tokens apart."""
        apart = self.policies[(self.policies.heads == "apart") & (self.policies.codec != REGRESSION.codec)]
        return apart.drop_duplicates(["codec", "setting"]).set_index(["codec", "setting"])

    def rules(self, codec: PredictedCodec) -> list[str]:
        """By which its predictions were decoded, the simplest first."""
        place = (OWN, self.layers(codec), self.most, "test")
        return [rule for rule in (*RULES, *JOINT_RULES) if (*codec, rule, *place) in self._grouped]

    @cached_property
    def _grouped(self) -> dict[tuple[Any, ...], pd.DataFrame]:
        return grouped(self.rows, GROUPED)

    def _of(
        self, codec: PredictedCodec, rule: str, size: int | None = None, layers: int | None = None,
        decoder: str = OWN, part: str = "test",
    ) -> pd.DataFrame:  # fmt: skip
        if layers is None:
            layers = 0 if codec == REGRESSION else self.layers(codec)
        size = 0 if rule == CODEC else size or self.most
        return self._grouped[(*codec, rule, decoder, layers, size, part)]

    def error(
        self, codec: PredictedCodec, rule: str, size: int | None = None, layers: int | None = None,
        decoder: str = OWN, metric: str = "mse",
    ) -> Estimate:  # fmt: skip
        """Error of the decoded predicted actions on the test part."""
        return self._once(
            ("error", codec, rule, size, layers, decoder, metric),
            lambda: estimate_of(self._of(codec, rule, size, layers, decoder), metric),
        )

    def best_error(self, codec: PredictedCodec, size: int | None = None) -> Estimate:
        """The MSE at the codec's best rule."""
        return self.error(codec, self.best_rule(codec), size)

    def regression(self, size: int | None = None, metric: str = "mse") -> Estimate:
        """Error of the policy without tokens."""
        return self.error(REGRESSION, REGRESSION_RULE, size, metric=metric)

    def codec_mse(self, codec: PredictedCodec) -> Estimate:
        """What the codec itself makes of the true tokens of as many layers."""
        return self.error(codec, CODEC)

    def validation_mse(self, codec: PredictedCodec, rule: str, layers: int | None = None) -> float:
        """By which choices are made: the mean over seeds."""
        return float(np.mean(self.validation_by_seed(codec, rule, layers)))

    def validation_by_seed(self, codec: PredictedCodec, rule: str, layers: int | None = None) -> list[float]:
        values, weights = values_of(self._of(codec, rule, layers=layers, part="validation"), "mse")
        return [float(value) for value in values @ weights / weights.sum()]

    def best_rule(self, codec: PredictedCodec) -> str:
        """The rule of least validation MSE; of equal ones the simplest."""
        return min(self.rules(codec), key=lambda rule: self.validation_mse(codec, rule))

    def layers_to_keep(self, codec: PredictedCodec, rule: str = "") -> int:
        """The fewest first layers whose validation MSE, predicted and decoded by a rule, is within 5 % of the least;
        all of them where they are predicted together.
        """
        rule = rule or self.best_rule(codec)
        if rule in JOINT_RULES:
            return self.layers(codec)
        found = [self.validation_mse(codec, rule, count + 1) for count in range(self.layers(codec))]
        return next(k + 1 for k, mse in enumerate(found) if mse <= min(found) * (1 + SAME_WITHIN))

    @cached_property
    def new_codec(self) -> PredictedCodec:
        """The codec to take where tokens are made anew: that of fewest tokens a chunk of those whose policy, at its
        best rule, is within 5 % of the least validation MSE. What was brought is compared and never chosen.
        """
        new = [codec for codec in self.codecs if codec.codec in proposed() and codec.codec != NAIVE]
        found = {codec: self.validation_mse(codec, self.best_rule(codec)) for codec in new}
        near = [codec for codec, mse in found.items() if mse <= min(found.values()) * (1 + SAME_WITHIN)]
        return min(near, key=self.tokens_per_chunk)

    def malformed(self, codec: PredictedCodec) -> float:
        """Share of predicted test chunks that do not decode, the mean over seeds."""
        kept = self.policies[self.policies.chosen & (self.policies.training_set_size == self.most)]
        own = kept[(kept.codec == codec.codec) & (kept.setting == codec.setting) & (kept.heads == "apart")]
        return float(own.malformed.mean())

    def accuracy(self, codec: str, rule: str) -> list[float]:
        """Share of a codec's tokens that are predicted right, layer by layer."""
        return self.of_layers(self.of(codec), "accuracy", rule)

    def majority(self, codec: str) -> list[float]:
        """The same if the answer is always the most common token at its place."""
        return self.of_layers(self.of(codec), "majority_share")

    def of_layers(
        self, codec: PredictedCodec, column: str, rule: str = RULES[0], size: int | None = None
    ) -> list[float]:
        """Mean over seeds of a column of the tokens, layer by layer."""
        rows = self.tokens[(self.tokens.rule == rule) & (self.tokens.training_set_size == (size or self.most))]
        return _by_layer(rows, codec, column)

    def agreement(self, codec: PredictedCodec, rule: str) -> list[float]:
        """Share of the coarse tokens on which draft and main agree, layer by layer, the mean over seeds."""
        return _by_layer(self.draft[self.draft.rule == rule], codec, "agreement")

    def less(
        self, baseline: PredictedCodec, rule: str, candidate: PredictedCodec, candidate_rule: str, decoder: str = OWN
    ) -> Estimate:
        """The share by which the candidate's MSE is less, paired by seed and episode; decoder: of the candidate."""

        def paired() -> Estimate:
            over, weights = values_of(self._of(baseline, rule), "mse")
            under, _ = values_of(self._of(candidate, candidate_rule, decoder=decoder), "mse")
            return estimate_improvement(over, under, weights)

        return self._once(("less", baseline, rule, candidate, candidate_rule, decoder), paired)

    def contrasts(self) -> dict[str, Estimate]:
        """Paired differences that decisions hang on, by what is held against what; each codec at its best rule, where
        none is named.
        """
        naive, new, scale = self.of(NAIVE), self.new_codec, self.of(FIXED_SCALE)
        best = {codec: self.best_rule(codec) for codec in (naive, new, scale)}
        return {
            "new_for_naive": self.less(naive, best[naive], new, best[new]),
            "new_rule": self.less(new, RULES[0], new, best[new]),
            "retrained_decoder": self.less(naive, best[naive], naive, best[naive], RETRAINED),
            "naive_rule": self.less(naive, RULES[0], naive, best[naive]),
            "codec_share": self._codec_share(naive, best[naive]),
            "regression_for_naive": self.less(naive, best[naive], REGRESSION, REGRESSION_RULE),
            "fixed_scale_for_naive": self.less(naive, best[naive], scale, best[scale]),
            **{f"fixed_scale_for_naive_{rule}": self.less(naive, rule, scale, rule) for rule in RULES},
        }

    def _codec_share(self, codec: PredictedCodec, rule: str) -> Estimate:
        """The share of the policy's MSE that the codec itself makes."""

        def paired() -> Estimate:
            policy, weights = values_of(self._of(codec, rule), "mse")
            own, _ = values_of(self._of(codec, CODEC), "mse")
            return estimate_improvement(policy, policy - own, weights)

        return self._once(("codec_share", codec, rule), paired)

    def _once(self, key: tuple[object, ...], make: Callable[[], Estimate]) -> Estimate:
        if key not in self._estimates:
            self._estimates[key] = make()
        return self._estimates[key]


def _by_layer(rows: pd.DataFrame, codec: PredictedCodec, column: str) -> list[float]:
    rows = rows[(rows.codec == codec.codec) & (rows.setting == codec.setting)]
    values = rows.pivot(index="seed", columns="layer", values=column)
    if column == "cross_entropy_bits":  # the tokens of a fold may lie in fewer layers: others tell nothing there
        values = values.fillna(0.0)
    return [float(value) for value in np.nanmean(values.to_numpy(), axis=0)]
