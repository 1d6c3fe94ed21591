"""Whether to retrain Phase 2, how, and with which codec: rules declared before the run, and what follows from them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from workbook.codecs.klt_rfsq_file import FILE_NAME
from workbook.common.threshold import Status, Threshold
from workbook.common.wording import difference, less_or_more, number, share
from workbook.evaluation.policy.evidence import SAME_WITHIN
from workbook.training.baselines import FAMILIES
from workbook.training.runs import BEST_FILES, RETRAINED_FILE
from workbook.verdict.criteria import GUIDE_MODEL, MODEL_TITLES, Word

Evidence = dict[str, Any]
Option = Literal["A", "B", "C", "keep naive"]

CODEC_LIMITS_FROM = 0.10  # share of the policy's error that the codec has to make, to be what limits it
SHOWN_RATE = 80  # bits a chunk at which the first page quotes the codecs
OPTION_TITLES: dict[Option, str] = {
    "A": "A: retrain everything",
    "B": "B: keep Phase 2, replace the decoder",
    "C": "C: step by step",
    "keep naive": "keep naive",
}
RULE_TITLES = {
    "independent": "an independent argmax of each layer",
    "by_layer": "argmax layer by layer, each given those before it",
    "expected": "the expected value of independent heads",
}


@dataclass(frozen=True)
class Rule:
    """One question that the decision hangs on. contrast: key in the probe's contrasts; limit: the share to exceed."""

    key: str
    question: str
    contrast: str
    limit: float
    if_met: str


RULES = (
    Rule(
        "codec_limits",
        "Is naive's codec MSE more than a tenth of its policy's MSE?",
        "codec_share",
        CODEC_LIMITS_FROM,
        "a better codec can help; else nothing that the codec does can",
    ),
    Rule(
        "option_a",
        "Is the error of the decoded predicted action less with new tokens, each codec at its best rule?",
        "new_for_naive",
        SAME_WITHIN,
        "option A",
    ),
    Rule(
        "option_b",
        "Is it less when naive tokens go through a decoder retrained on them?",
        "retrained_decoder",
        SAME_WITHIN,
        "option B, where A is not met",
    ),
    Rule(
        "decode_rule",
        "Is it less when naive's own tokens are decoded by another rule than independent argmax?",
        "naive_rule",
        SAME_WITHIN,
        "change the decode rule, which needs no training",
    ),
)


def recommend(
    comparison: Evidence, rates: Evidence, option_b: Evidence, phase2: Evidence, missing: list[str]
) -> Evidence:
    """The decision with the rules and numbers it was made from; 'sentences' are the three of the first page."""
    rules = [_judge_rule(rule, phase2["contrasts"], comparison["test_episodes"]) for rule in RULES]
    status: dict[str, Status] = {rule["key"]: rule["status"] for rule in rules}
    option = _option(status)
    key = phase2["new_codec"] if option in ("A", "C") else "naive"
    subject = phase2["subjects"][key]
    return {
        "option": option,
        "title": OPTION_TITLES[option],
        "words": {key: "NOT SHOWN" if missing else word for key, word in _words(status).items()},
        "sentences": [
            _whether(option, phase2, missing),
            _how(option_b, phase2),
            _which(comparison, rates, phase2),
        ],
        "codec": key,
        "checkpoint": RETRAINED_FILE if option == "B" else codec_file(key),
        "layers": subject["layers_to_keep"],
        "decode_rule": _decode_rule(key, phase2),
        "rules": rules,
        "decided_by": DECIDED_BY,
        "would_change": _would_change(phase2),
    }


DECIDED_BY = (
    "A if its rule is met; else B if its rule is met; else C if A's rule is not shown, or if the codec limits; else "
    "keep naive. New tokens are those of fewest tokens a chunk among the probed codecs whose policy error is within "
    f"{SAME_WITHIN:.0%} of the least. Codec, decode rule and layers (the fewest within {SAME_WITHIN:.0%}) are chosen "
    "on the validation episodes; a rule other than independent argmax is recommended only where it is shown to have "
    f"{SAME_WITHIN:.0%} less error. LayerNorm tokens are never recommended while their own decoder cannot read them."
)


def _judge_rule(rule: Rule, contrasts: Evidence, episodes: int) -> Evidence:
    estimate = contrasts[rule.contrast]
    return {
        **asdict(rule),
        "threshold": f"> {rule.limit:.0%}",
        "measured": estimate["mean"],
        "interval": None if estimate["low"] is None else [estimate["low"], estimate["high"]],
        "n": f"{episodes} test episodes x {len(estimate['per_seed'])} seeds",
        "status": Threshold.above(rule.limit).judge(estimate),
    }


def _option(status: dict[str, Status]) -> Option:
    if status["option_a"] == "met":
        return "A"
    if status["option_b"] == "met":
        return "B"
    if status["option_a"] in ("not shown", "not run") or status["codec_limits"] == "met":
        return "C"
    return "keep naive"


def _words(status: dict[str, Status]) -> dict[str, Word]:
    words: dict[Status, Word] = {"met": "PASS", "unmet": "FAIL", "not shown": "NOT SHOWN", "not run": "NOT RUN"}
    return {key: words[status[f"option_{key.lower()}"]] for key in ("A", "B")}


def codec_file(subject: str) -> str:
    """The file that holds a probed codec; plain rounding needs none but the normaliser."""
    if subject.startswith("klt_rfsq"):
        return FILE_NAME
    return {"naive": BEST_FILES["none"], "scale": BEST_FILES["scale"]}.get(subject, "the normaliser")


def _decode_rule(subject: str, phase2: Evidence) -> str:
    """The rule chosen on the validation part where it is shown to be better than independent argmax, else that."""
    contrast = phase2["contrasts"]["naive_rule" if subject == "naive" else "new_rule"]
    shown = Threshold.above(SAME_WITHIN).judge(contrast) == "met"
    return phase2["subjects"][subject]["best_rule"] if shown else "independent"


def _whether(option: Option, phase2: Evidence, missing: list[str]) -> str:
    contrasts = phase2["contrasts"]
    new, part = phase2["subjects"][phase2["new_codec"]], contrasts["codec_share"]
    answers: dict[Option, str] = {
        "A": "Yes, retrain Phase 2",
        "B": "Do not retrain Phase 2; replace its decoder",
        "C": "Not yet; go step by step",
        "keep naive": "No, keep the naive tokens",
    }
    answer = f"No answer from a rehearsal; were it evidence: {answers[option]}" if missing else answers[option]
    return (
        f"{answer}: a small policy, trained for {phase2['config']['steps']:,} batches, that predicts new tokens "
        f"({new['title']}) has {difference(contrasts['new_for_naive'])} in the decoded action against one that "
        f"predicts naive tokens, each at the decode rule chosen on validation; naive's codec MSE is "
        f"{share(part['mean'])} of its policy's{_range(part)}."
    )


def _how(option_b: Evidence, phase2: Evidence) -> str:
    contrasts = phase2["contrasts"]
    rule = phase2["subjects"]["naive"]["best_rule"]
    codec = option_b["rows"]["retrained"]["less_than_naive"]
    if rule == "independent":
        decode = "No other decode rule of naive's heads than an independent argmax was chosen on validation"
    else:
        decode = (
            f"Decoded by {RULE_TITLES[rule]}, naive tokens have {difference(contrasts['naive_rule'])} against an "
            "independent argmax, with nothing retrained"
        )
    return (
        f"{decode}; a decoder retrained on naive tokens (option B) has {difference(codec, 'codec error')}, and in the "
        f"policy {difference(contrasts['retrained_decoder'])}."
    )


def _which(comparison: Evidence, rates: Evidence, phase2: Evidence) -> str:
    key = phase2["new_codec"]
    new, rule = phase2["subjects"][key], _decode_rule(key, phase2)
    readable = comparison["models"][GUIDE_MODEL]["decode_error"] == 0
    never = "" if readable else f", never those of the {MODEL_TITLES[GUIDE_MODEL]}"
    decode = "an independent argmax of each layer, which no other rule is shown to better"
    if rule != "independent":
        decode = f"{RULE_TITLES[rule]}, {difference(phase2['contrasts']['new_rule'])} against an independent argmax"
    return (
        f"If tokens are made anew: {new['title']} ({codec_file(key)}){never}, {new['tokens_per_chunk']:,} tokens a "
        f"chunk, decoded by {decode}{_at_equal_bits(rates)}."
    )


def _at_equal_bits(rates: Evidence) -> str:
    """RFSQ's best beside FAST-style tokens at the rate that is shown, and its best of fixed length."""
    at = next((row for row in rates["against_fast"] if row["rate"] == SHOWN_RATE), None)
    if at is None or at["rfsq"]["less_than_fast"]["mean"] is None:
        return f"; FAST-style tokens were not to be had at {SHOWN_RATE} bits a chunk"
    told = [
        f"{FAMILIES[at[side]['family']].title} has {difference(at[side]['less_than_fast'], 'reconstruction error')}"
        for side in ("rfsq", "rfsq_fixed")
        if at[side]["less_than_fast"]["mean"] is not None
    ]
    return f"; at {SHOWN_RATE} bits a chunk, against FAST-style tokens, {', and '.join(dict.fromkeys(told))}"


def _range(estimate: Evidence) -> str:
    return "" if estimate["low"] is None else f" ({share(estimate['low'])} to {share(estimate['high'])})"


def _would_change(phase2: Evidence) -> list[str]:
    """What would turn the answer, from the same numbers, and what they do not say."""
    naive, scale, klt = (phase2["subjects"][key] for key in ("naive", "scale", "klt_rfsq"))
    most = str(phase2["amounts"][-1])
    policy = naive["by_amount"][most][naive["best_rule"]]["errors"]["mse"]["mean"]
    codec = naive["codec_mse"]["mean"]
    limit = codec / CODEC_LIMITS_FROM
    found = [
        f"A better policy: naive's codec MSE is a tenth of the policy's once that falls from "
        f"{number(policy)} to {number(limit)}."
        if limit < policy
        else f"A worse policy: naive's codec MSE is a tenth or more up to a policy MSE of {number(limit)}."
    ]
    if len(phase2["amounts"]) > 1:
        gaps = [_gap(naive, scale, str(amount)) for amount in phase2["amounts"]]
        told = ", ".join(
            f"{less_or_more(gap)} with {amount} episodes" for gap, amount in zip(gaps, phase2["amounts"], strict=True)
        )
        found.append(f"More demonstrations: fixed-scale tokens against naive ones, at their best rules: {told}.")
    config = phase2["config"]
    found.append(
        f"Longer training: these policies saw {config['steps']:,} batches of {config['batch_size']} chunks; "
        "./run_all.sh --full gives them four times as many."
    )
    found.append(
        f"Sequence length: where each token costs a pass of the network, {klt['title']} needs "
        f"{klt['tokens_per_chunk']:,.0f} tokens a chunk for what takes naive {naive['tokens_per_chunk']:,.0f}, at "
        f"{less_or_more(_gap(naive, klt, most))} error of the policy."
    )
    found.append(
        "Task success: errors here are squared errors of single chunks after the demonstrator's own past, without "
        "images. Squared error favours an expected value, which lies between two ways to act where a robot has to "
        "choose one. The policies were not run in a simulator or on a robot."
    )
    return found


def _gap(naive: Evidence, other: Evidence, amount: str) -> float:
    """The share by which the other's policy error is less than naive's, each at its best rule."""
    errors = [s["by_amount"][amount][s["best_rule"]]["errors"]["mse"]["mean"] for s in (naive, other)]
    return 1 - errors[1] / errors[0]


def options(recommendation: Evidence, option_b: Evidence, phase2: Evidence) -> list[Evidence]:
    """What the run says about each way to go on: 'option', 'word' and 'sentence'."""
    contrasts, words = phase2["contrasts"], recommendation["words"]
    scale = phase2["subjects"]["scale"]
    rows = option_b["rows"]
    new = phase2["subjects"][phase2["new_codec"]]
    chosen = recommendation["option"]
    retrain = (
        f"{new['title']}: {difference(contrasts['new_for_naive'])} of the policy against naive's. The robust RFSQ "
        f"({scale['title']}): {difference(contrasts['scale_for_naive'])}; by rule, against naive at the same, "
        + ", ".join(
            f"{name} {less_or_more(contrasts[f'scale_for_naive_{key}']['mean'])}"
            for key, name in (("independent", "argmax"), ("by_layer", "layer by layer"), ("expected", "expected value"))
        )
        + "."
    )
    crossed = rows["scale_decoder"]
    replace = (
        f"read by the fixed scale's decoder naive tokens have an MSE of {number(crossed['mse']['mean'])}, by naive's "
        f"own {number(rows['naive']['mse']['mean'])}, by naive's decoder trained on "
        f"{number(rows['retrained']['mse']['mean'])}, by one that sees the whole chunk "
        f"{number(rows['retrained_chunk']['mse']['mean'])}. In the policy the decoder trained on has "
        f"{difference(contrasts['retrained_decoder'])}."
    )
    step = {
        "A": "its first step, the policy in miniature, speaks for going on.",
        "B": "its first step, the policy in miniature, speaks for the decoder and not for new tokens.",
        "C": "its first step, the policy in miniature, does not settle it: go on with a policy of full size, or with "
        "another codec.",
        "keep naive": "its first step, the policy in miniature, speaks against going on.",
    }[chosen]
    return [
        {"option": OPTION_TITLES["A"], "word": words["A"], "sentence": retrain},
        {"option": OPTION_TITLES["B"], "word": words["B"], "sentence": replace},
        {"option": OPTION_TITLES["C"], "word": "NOT SHOWN" if chosen == "C" else words["A"], "sentence": step},
    ]
