"""The answer in words: whether to retrain Phase 2, how, with which codec, and what would change it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from workbook.common.intervals import Estimate
from workbook.data.layout import LIBERO_SPEC
from workbook.evaluation.against_fast import against_fast
from workbook.evaluation.evidence import Evidence
from workbook.evaluation.loop.evidence import MATTERS, PlayedArm
from workbook.evaluation.policy.evidence import FIXED_SCALE, NAIVE, RETRAINED, PredictedCodec
from workbook.evaluation.predictions.evidence import RULES as OWN_RULES
from workbook.report.text import words
from workbook.report.text.codecs import title
from workbook.report.text.loop import arm_title
from workbook.report.text.predictions import answers
from workbook.report.text.replay import title_of
from workbook.verdict.criteria import GUIDES, data_doubts
from workbook.verdict.findings import reconciliation
from workbook.verdict.recommendation import FILES, decode_rule


def sentences(run: Evidence) -> list[str]:
    """What the first page begins with."""
    if by_loop(run):
        return [whether(run), *answers(run), *in_loop(run)]
    return [whether(run), *answers(run), how(run), which(run)]


def by_loop(run: Evidence) -> bool:
    """Whether policies that act in the simulator have decided."""
    return bool(run.results["recommendation"]["evidence"] == "loop")


def whether(run: Evidence) -> str:
    option, lack, policy = run.results["recommendation"]["option"], _lack(run), run.policy
    if by_loop(run):
        return words("loop").answer(option, lack, run.loop, _titles(run))
    return words("recommendation").whether(option, lack, title(*policy.new_codec), policy.contrasts(), simulated(run))


def simulated(run: Evidence) -> bool:
    """Whether the simulator takes such actions; in folds nothing is played."""
    return bool(run.comparison["layout"] == LIBERO_SPEC) and not run.folds


def headline(run: Evidence) -> str:
    """The words with which `whether` begins: the answer, or why there is none."""
    return words("recommendation").headline(run.results["recommendation"]["option"], _lack(run))


def _lack(run: Evidence) -> Literal["", "data", "smoke", "episodes", "run"]:
    """What keeps the run from answering; only what --smoke asks for is a rehearsal."""
    if not run.results["recommendation"]["rehearsal"]:
        return ""
    if data_doubts(run):
        return "data"
    if "--smoke" in run.results["provenance"]["command"].split():
        return "smoke"
    missing = {shortfall["key"] for shortfall in run.results["verdict"]["shortfalls"]}
    return "episodes" if missing == {"test_episodes"} else "run"


def _titles(run: Evidence) -> dict[PlayedArm, str]:
    return {arm: arm_title(arm) for arm in run.loop.arms}


def in_loop(run: Evidence) -> list[str]:
    """What policies that act in the simulator say of Phase 2's heads and of new tokens, and what replays add to it."""
    loop, said, new = run.loop, words("loop"), run.loop.new_tokens
    tokens = run.policy.tokens_per_chunk(run.policy.of(new.codec))
    anew = said.anew(loop, new, title(new.codec, new.setting), FILES.get(new.codec), _readable(run), tokens)
    return [said.heads(loop), anew, *_reconciled(run)]


def _reconciled(run: Evidence) -> list[str]:
    """Replays and the loop in one sentence each, where both were played."""
    found = reconciliation(run)
    if found is None:
        return []
    said = words("loop")
    destroyed = [
        (title_of(one["codec"], one["setting"]), said.share(one["succeeded"], one["played"]))
        for one in found.values["destroyed"]
    ]
    return [said.reconciled(found.values, destroyed)]


def how(run: Evidence) -> str:
    policy = run.policy
    rule, codec_gain = policy.best_rule(policy.of(NAIVE)), run.scores.improvement(RETRAINED)
    return words("recommendation").how(rule, codec_gain, policy.contrasts())


def which(run: Evidence) -> str:
    policy = run.policy
    new = policy.new_codec
    return words("recommendation").which(
        title(*new), FILES.get(new.codec), _readable(run), policy.tokens_per_chunk(new), decode_rule(new, policy),
        policy.contrasts(), _beside_fast(run, new),
    )  # fmt: skip


def _readable(run: Evidence) -> bool:
    """Whether the guide's own tokens decode."""
    return bool((run.models.decode_error[run.models.codec == GUIDES] == 0).all())


def _beside_fast(run: Evidence, codec: PredictedCodec) -> dict[str, Estimate]:
    """Gains of a codec over FAST-style tokens of equal bits, and of equal words, where these were to be had."""
    rows = against_fast(run.table("against_fast"))
    found = next((row.equal for row in rows if (row.codec, row.setting) == codec), {})
    return {equal: fast.gain for equal, fast in found.items() if fast and fast.gain.mean is not None}


def use(run: Evidence) -> str:
    """What to use, and what the errors do not say."""
    decided = run.results["recommendation"]
    if decided["decode_rule"] in OWN_RULES:
        return words("predictions").use(decided["decode_rule"])
    used = (decided["option"], decided["checkpoint"], decided["layers"], decided["decode_rule"])
    return words("recommendation").use(*used, by_loop(run))


def would_change(run: Evidence) -> list[str]:
    """What would turn the answer; first, where policies in the loop gave it, that it hangs on an episode or two."""
    if run.results["recommendation"]["rehearsal"]:
        return [words("recommendation").no_answer_yet]
    asked = run.loop.contrast("new_tokens") if by_loop(run) else None
    edge = [words("loop").on_edge(asked, MATTERS)] if asked is not None and asked.on_edge else []
    return edge + [
        words("recommendation").would_change(
            values | _beside(run, values), title(values["codec"], values["setting"]) if "codec" in values else ""
        )
        for values in run.results["recommendation"]["would_change"]
    ]


def _beside(run: Evidence, values: Mapping[str, Any]) -> dict[str, Any]:
    """What policies in the loop say in the place of the offline ones, where they decided; else their interval."""
    loop, policy = run.loop, run.policy
    if values["key"] == "training" and by_loop(run):
        return {"key": "loop_training"} | {name: loop.values["policy"][name] for name in ("steps", "batch_size")}
    if values["key"] != "sequence_length":
        return {}
    codec, naive = PredictedCodec(values["codec"], values["setting"]), policy.of(NAIVE)
    if by_loop(run) and any(arm.codec == codec.codec for arm in loop.arms):
        return {"succeeded": [loop.counts(loop.best(name)) for name in (codec.codec, NAIVE)]}
    return {"gain": policy.less(naive, policy.best_rule(naive), codec, policy.best_rule(codec))}


def options(run: Evidence) -> dict[str, str]:
    """What the run says about each way to go on."""
    said, policy = words("recommendation"), run.policy
    scale = title(*policy.of(FIXED_SCALE))
    decoders = (NAIVE, RETRAINED, "naive_by_fixed_scale", "naive_by_chunk_decoder")
    mse = {name: run.scores.estimate("mse", name).mean for name in decoders}
    return {
        "A": said.retrain(title(*policy.new_codec), scale, policy.contrasts()),
        "B": said.replace(mse, policy.contrasts()),
        "C": said.first_steps[run.results["recommendation"]["option"]],
    }
