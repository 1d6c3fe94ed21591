"""Whether to retrain Phase 2, how, and with which codec: rules declared before the run, and what follows from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from workbook.codecs.klt_rfsq_file import FILE_NAME
from workbook.criteria import GUIDE_MODEL, MODEL_TITLES, Status, Word, judge
from workbook.phase2_evidence import SAME_WITHIN
from workbook.rivals import FAMILIES
from workbook.variants import BEST_FILES, RETRAINED_FILE
from workbook.wording import less_or_more, number, share, signed_interval

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
    "independent": "one independent argmax a layer",
    "by_layer": "layer by layer, each given those before it",
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
        "Does naive's codec error make up a tenth of its policy's error?",
        "naive_without_codec_error",
        CODEC_LIMITS_FROM,
        "a better codec can help; else nothing that the codec does can",
    ),
    Rule(
        "option_a",
        "Is the error of the decoded predicted action less with fixed-scale tokens, each codec at its best rule?",
        "scale_for_naive",
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
    subject = phase2["subjects"]["scale" if option in ("A", "C") else "naive"]
    return {
        "option": option,
        "title": OPTION_TITLES[option],
        "words": {key: "NOT SHOWN" if missing else word for key, word in _words(status).items()},
        "sentences": [
            _whether(option, status, phase2, missing),
            _how(option, option_b, phase2),
            _which(comparison, rates, phase2),
        ],
        "checkpoint": _checkpoint(option),
        "layers": subject["layers_to_keep"],
        "decode_rule": subject["best_rule"],
        "rules": rules,
        "decided_by": DECIDED_BY,
        "would_change": _would_change(phase2),
    }


DECIDED_BY = (
    "A if its rule is met; else B if its rule is met; else C if A's rule is not shown, or if the codec limits; else "
    "keep naive. Layers and decode rule are those of least error on the validation episodes, fewest layers within "
    f"{SAME_WITHIN:.0%}. LayerNorm tokens are never recommended while their own decoder cannot read them."
)


def _judge_rule(rule: Rule, contrasts: Evidence, episodes: int) -> Evidence:
    estimate = contrasts[rule.contrast]
    return {
        **asdict(rule),
        "threshold": f"> {rule.limit:.0%}",
        "measured": estimate["mean"],
        "interval": None if estimate["low"] is None else [estimate["low"], estimate["high"]],
        "n": f"{episodes} test episodes x {len(estimate['per_seed'])} seeds",
        "status": judge(estimate, _above(rule.limit)),
    }


def _above(limit: float) -> Callable[[float], bool]:
    return lambda value: value > limit


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


def _checkpoint(option: Option) -> str:
    if option == "B":
        return RETRAINED_FILE
    return BEST_FILES["scale" if option in ("A", "C") else "none"]


def _whether(option: Option, status: dict[str, Status], phase2: Evidence, missing: list[str]) -> str:
    contrasts = phase2["contrasts"]
    gain, part = contrasts["scale_for_naive"], contrasts["naive_without_codec_error"]
    answers: dict[Option, str] = {
        "A": "Yes, retrain Phase 2",
        "B": "Do not retrain Phase 2; replace its decoder",
        "C": "Not yet; go step by step",
        "keep naive": "No, keep the naive tokens",
    }
    answer = f"No answer from a rehearsal; were it evidence: {answers[option]}" if missing else answers[option]
    return (
        f"{answer}: a small policy that predicts fixed-scale tokens has {less_or_more(gain['mean'])} error in the "
        f"decoded action than one that predicts naive tokens, each at its best decode rule{signed_interval(gain)}; "
        f"naive's codec makes {share(part['mean'])} of its policy's error{_range(part)}."
    )


def _how(option: Option, option_b: Evidence, phase2: Evidence) -> str:
    contrasts = phase2["contrasts"]
    naive = phase2["subjects"]["naive"]
    rule, decoder = contrasts["naive_rule"], contrasts["retrained_decoder"]
    codec = option_b["rows"]["retrained"]["less_than_naive"]
    if naive["best_rule"] == "independent":
        decode = "Of naive's decode rules independent argmax has the least error"
    else:
        decode = (
            f"Naive tokens decoded by {RULE_TITLES[naive['best_rule']]} have {less_or_more(rule['mean'])} error than "
            f"by independent argmax{signed_interval(rule)}, with nothing retrained"
        )
    return (
        f"{decode}; a decoder retrained on naive tokens (option B) gives {less_or_more(codec['mean'])} codec error"
        f"{signed_interval(codec)}, and {less_or_more(decoder['mean'])} in the policy{signed_interval(decoder)}."
    )


def _which(comparison: Evidence, rates: Evidence, phase2: Evidence) -> str:
    scale = phase2["subjects"]["scale"]
    readable = comparison["models"][GUIDE_MODEL]["decode_error"] == 0
    never = "" if readable else f", and never those of the {MODEL_TITLES[GUIDE_MODEL]}"
    at = next((row for row in rates["against_fast"] if row["rate"] == SHOWN_RATE), None)
    best = ""
    if at and at["rfsq"]["less_than_fast"]["mean"] is not None:
        gain = at["rfsq"]["less_than_fast"]
        family = at["rfsq"]["family"]
        title = FAMILIES[family].title + (f" ({FILE_NAME})" if family.startswith("klt_rfsq") else "")
        best = (
            f"; at {SHOWN_RATE} bits a chunk {title} has {less_or_more(gain['mean'])} error "
            f"than FAST-style tokens{signed_interval(gain)}"
        )
    rule = scale["best_rule"]
    decode = "decode them by independent argmax, which no other rule betters"
    if rule != "independent":
        gain = phase2["contrasts"][f"scale_{rule}"]
        decode = (
            f"decode them by {RULE_TITLES[rule]}, which has {less_or_more(gain['mean'])} error than independent argmax"
            f"{signed_interval(gain)}"
        )
    return (
        f"If tokens are made anew, take {scale['layers_to_keep']} of the fixed scale's layers ({BEST_FILES['scale']})"
        f"{never}, and {decode}{best}."
    )


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
        f"A better policy: naive's codec would make a tenth of the error once the policy's MSE falls from "
        f"{number(policy)} to {number(limit)}."
        if limit < policy
        else f"A worse policy: naive's codec makes a tenth of the error or more up to a policy MSE of {number(limit)}."
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
        "Task success: errors here are of single chunks after the demonstrator's own past, without images; an expected "
        "value lies between two ways to act, which a robot may have to choose from. No robot or simulator was run."
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
    gain, decoder = contrasts["scale_for_naive"], contrasts["retrained_decoder"]
    chosen = recommendation["option"]
    retrain = (
        f"{less_or_more(gain['mean'])} error of the policy than naive's{signed_interval(gain)}, with "
        f"{scale['title']} and {RULE_TITLES[scale['best_rule']]}. By rule, against naive at the same: "
        + ", ".join(
            f"{name} {less_or_more(contrasts[f'scale_for_naive_{key}']['mean'])}"
            for key, name in (("independent", "argmax"), ("by_layer", "layer by layer"), ("expected", "expected value"))
        )
        + "."
    )
    replace = (
        f"the fixed scale's decoder cannot read naive tokens (MSE {number(rows['scale_decoder']['mse']['mean'])}, "
        f"naive's own {number(rows['naive']['mse']['mean'])}); naive's decoder trained on reaches "
        f"{number(rows['retrained']['mse']['mean'])}, one that sees the whole chunk "
        f"{number(rows['retrained_chunk']['mse']['mean'])}. In the policy: {less_or_more(decoder['mean'])} error"
        f"{signed_interval(decoder)}."
    )
    step = {
        "A": "its first step, the policy in miniature, speaks for going on.",
        "B": "its first step, the policy in miniature, speaks for the decoder and not for new tokens.",
        "C": "its first step, the policy in miniature, does not settle it: go on with a policy of full size.",
        "keep naive": "its first step, the policy in miniature, speaks against going on.",
    }[chosen]
    return [
        {"option": OPTION_TITLES["A"], "word": words["A"], "sentence": retrain},
        {"option": OPTION_TITLES["B"], "word": words["B"], "sentence": replace},
        {"option": OPTION_TITLES["C"], "word": "NOT SHOWN" if chosen == "C" else words["A"], "sentence": step},
    ]
