"""Whether to retrain Phase 2, how, and with which codec: rules declared before the run, and what follows from them.

Policies that act in the simulator decide where there are enough of them. Else the offline probe stands in for them.
Before both stand the user's own predictions, where they are given: of the codec's share of the error and of the decode
rule, which is what they can say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from workbook.codecs.catalogue import CONDITIONED
from workbook.codecs.klt_rfsq_file import FILE_NAME
from workbook.common.intervals import Estimate
from workbook.common.targets import SAME_WITHIN
from workbook.common.threshold import Status, Threshold
from workbook.evaluation.evidence import Evidence
from workbook.evaluation.loop.evidence import Loop
from workbook.evaluation.policy.evidence import FIXED_SCALE, NAIVE, PolicyEvidence, PredictedCodec
from workbook.evaluation.policy.network import RULES
from workbook.evaluation.predictions.evidence import CODEC_LIMITS_FROM, Predictions, statuses
from workbook.training.runs import BEST_FILES, RETRAINED_FILE
from workbook.verdict.criteria import WORDS, Word

Option = Literal["A", "B", "decode rule", "C", "keep naive", "cannot decide"]

IN_LOOP: dict[str, Status] = {"YES": "met", "NO": "unmet", "NOT SHOWN": "not shown"}
KLT_RFSQ = "klt_rfsq_fixed"
FILES = {CONDITIONED[conditioning]: file for conditioning, file in BEST_FILES.items()} | {KLT_RFSQ: FILE_NAME}


@dataclass(frozen=True)
class DecisionRule:
    """One question that the decision hangs on. contrast: key in the policies' contrasts; limit: the share to exceed."""

    key: str
    contrast: str
    limit: float


DECISION_RULES = (
    DecisionRule("codec_limits", "codec_share", CODEC_LIMITS_FROM),
    DecisionRule("option_a", "new_for_naive", SAME_WITHIN),
    DecisionRule("option_b", "retrained_decoder", SAME_WITHIN),
    DecisionRule("decode_rule", "naive_rule", SAME_WITHIN),
)
# What the probe has to be able to see before it can answer A: rule A asks for a gain of 5 %, which no codec can give
# where the codec makes less of the error; and where tokens cost nothing against none, better ones cannot show.
ABLE_RULES = (
    DecisionRule("codec_counts", "codec_share", SAME_WITHIN),
    DecisionRule("tokens_cost", "regression_for_naive", 0.0),
)


@dataclass(frozen=True)
class JudgedRule:
    """A rule beside what was measured: a share, over test episodes and seeds."""

    key: str
    limit: float
    measured: float | None
    interval: tuple[float, float] | None
    episodes: int
    seeds: int
    status: Status


@dataclass(frozen=True)
class Recommendation:
    """The decision, and what it was made from.

    evidence: what decided; words: of options A, B and C; rehearsal: the run is no evidence, and answers nothing; codec,
    setting, layers, decode_rule: what to use; checkpoint: its file, None where the normaliser is all that it needs;
    would_change: what would turn the answer, by key, with its values.
    """

    option: Option
    evidence: Literal["loop", "probe"]
    rehearsal: bool
    words: dict[str, Word]
    codec: str
    setting: str
    checkpoint: str | None
    layers: int
    decode_rule: str
    rules: tuple[JudgedRule, ...]
    would_change: tuple[dict[str, Any], ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def recommend(run: Evidence, missing: Sequence[object]) -> Recommendation:
    """By the rules: offline, that the probe cannot decide where it is not able to; else A if its rule is met; else B if
    its rule is met; else, in the loop, another decode rule if it is shown to help; else C if A's rule is not shown, or,
    offline, if the codec limits; else keep naive. missing: what keeps the run from being evidence.
    """
    policy = run.policy
    rules = judged_offline(policy, run.comparison["test_episodes"])
    by_loop = run.loop.decides
    status = _status_in_loop(run.loop) if by_loop else {rule.key: rule.status for rule in rules}
    status |= statuses(run.predictions)
    option = option_of(status)
    new = policy.of(run.loop.new_tokens.codec) if by_loop else policy.new_codec
    codec = new if option in ("A", "C") else policy.of(NAIVE)
    return Recommendation(
        option=option,
        evidence="loop" if by_loop else "probe",
        rehearsal=bool(missing),
        words=dict.fromkeys("ABC", "NOT SHOWN") if missing else _words(option, status),
        codec=codec.codec,
        setting=codec.setting,
        checkpoint=RETRAINED_FILE if option == "B" else FILES.get(codec.codec),
        layers=policy.layers(codec) if by_loop else policy.layers_to_keep(codec),  # as they were played
        decode_rule=_rule_by_predictions(run.predictions, option)
        or (_rule_in_loop(run.loop, codec) if by_loop else decode_rule(codec, policy)),
        rules=rules,
        would_change=tuple(each for each in _would_change(policy) if not (by_loop and each["key"] == "task_success")),
    )


def _status_in_loop(loop: Loop) -> dict[str, Status]:
    """Of the options whose arms were played."""
    asked = {"option_a": "new_tokens", "option_b": "retrained_decoder", "naive_rule": "rule"}
    found = {option: loop.contrast(key) for option, key in asked.items()}
    return {option: "not run" if each is None else IN_LOOP[each.word] for option, each in found.items()}


def _rule_in_loop(loop: Loop, codec: PredictedCodec) -> str:
    """The rule chosen on validation; of naive tokens only where it is shown to succeed more often than an argmax."""
    shown = loop.contrast("rule")
    if codec.codec == NAIVE and (shown is None or shown.word != "YES"):
        return RULES[0]
    return loop.best(codec.codec).rule


def _rule_by_predictions(predictions: Predictions, option: Option) -> str:
    """Where tokens stay as they are: the pipeline's own rule, if no other is shown to have less error; else ''."""
    if not predictions.given or option not in ("decode rule", "keep naive"):
        return ""
    return predictions.mended if option == "decode rule" else RULES[0]


def judged_offline(policy: PolicyEvidence, episodes: int) -> tuple[JudgedRule, ...]:
    """Every rule, beside what the probe has measured over so many test episodes."""
    return tuple(_judge(rule, policy, episodes) for rule in (*DECISION_RULES, *ABLE_RULES))


def _judge(rule: DecisionRule, policy: PolicyEvidence, episodes: int) -> JudgedRule:
    estimate = policy.contrasts()[rule.contrast]
    interval = None if estimate.low is None or estimate.high is None else (estimate.low, estimate.high)
    seeds = len(estimate.per_seed)
    return JudgedRule(rule.key, rule.limit, estimate.mean, interval, episodes, seeds, _status(estimate, rule.limit))


def _status(estimate: Estimate, limit: float) -> Status:
    return Threshold.above(limit).judge(estimate.as_json())


def option_of(status: Mapping[str, Status]) -> Option:
    """What follows from the rules; status: of each by its key, of the loop only of what was played there."""
    if _blind(status):
        return "decode rule" if status.get("naive_rule") == "met" else "cannot decide"
    if status["option_a"] == "met":
        return "A"
    if status["option_b"] == "met":
        return "B"
    if status.get("naive_rule") == "met":
        return "decode rule"
    if status["option_a"] in ("not shown", "not run") or status.get("codec_limits") == "met":
        return "C"
    return "keep naive"


def _blind(status: Mapping[str, Status]) -> bool:
    """Whether the probe is not able to see what new tokens are worth."""
    return status.get("codec_counts") == "unmet" or status.get("tokens_cost", "met") != "met"


def _words(option: Option, status: dict[str, Status]) -> dict[str, Word]:
    a, b = (WORDS[status[key]] for key in ("option_a", "option_b"))
    a = "CANNOT DECIDE" if _blind(status) else a
    return {"A": a, "B": b, "C": "NOT SHOWN" if option == "C" else a}


def decode_rule(codec: PredictedCodec, policy: PolicyEvidence) -> str:
    """The rule chosen on the validation part where it is shown to be better than parallel argmax, else that."""
    contrast = policy.contrasts()["naive_rule" if codec.codec == NAIVE else "new_rule"]
    return policy.best_rule(codec) if _status(contrast, SAME_WITHIN) == "met" else RULES[0]


def _would_change(policy: PolicyEvidence) -> list[dict[str, Any]]:
    """What would turn the answer, from the same numbers, and what they do not say."""
    naive, scale, klt = (policy.of(name) for name in (NAIVE, FIXED_SCALE, KLT_RFSQ))
    mse = policy.best_error(naive).mean or 0.0
    limit = (policy.codec_mse(naive).mean or 0.0) / CODEC_LIMITS_FROM
    found: list[dict[str, Any]] = [
        {"key": "better_policy" if limit < mse else "worse_policy", "policy_mse": mse, "limit": limit}
    ]
    if len(policy.training_set_sizes) > 1:
        gains = [{"episodes": size, "gain": _gain(policy, naive, scale, size)} for size in policy.training_set_sizes]
        found.append({"key": "demonstrations", "gains": gains})
    found.append({"key": "training", "steps": policy.config.steps, "batch_size": policy.config.batch_size})
    found.append({
        "key": "sequence_length", **klt._asdict(), "tokens_per_chunk": policy.tokens_per_chunk(klt),
        "naive_tokens_per_chunk": policy.tokens_per_chunk(naive), "gain": _gain(policy, naive, klt, policy.most),
    })  # fmt: skip
    return [*found, {"key": "task_success"}]


def _gain(policy: PolicyEvidence, naive: PredictedCodec, other: PredictedCodec, size: int) -> float:
    """The share by which the other's policy error is less than naive's, each at its best rule."""
    errors = [policy.best_error(codec, size).mean for codec in (naive, other)]
    assert errors[0] is not None
    assert errors[1] is not None
    return 1 - errors[1] / errors[0]
