"""The answer in words: whether to retrain Phase 2, how, with which codec, and what would change it."""

from __future__ import annotations

from workbook.codecs.catalogue import SHOWN_RATE
from workbook.evaluation.evidence import Evidence
from workbook.evaluation.loop.evidence import PlayedArm
from workbook.evaluation.policy.evidence import FIXED_SCALE, NAIVE, RETRAINED
from workbook.evaluation.predictions.evidence import RULES as OWN_RULES
from workbook.evaluation.rate_distortion import against_fast
from workbook.report.text import words
from workbook.report.text.codecs import title
from workbook.report.text.loop import arm_title
from workbook.report.text.predictions import answers
from workbook.verdict.criteria import GUIDES, data_doubts
from workbook.verdict.recommendation import FILES, decode_rule


def sentences(run: Evidence) -> list[str]:
    """What the first page begins with."""
    if _by_loop(run):
        return [whether(run), *answers(run), *in_loop(run)]
    return [whether(run), *answers(run), how(run), which(run)]


def _by_loop(run: Evidence) -> bool:
    """Whether policies that act in the simulator have decided."""
    return bool(run.results["recommendation"]["evidence"] == "loop")


def whether(run: Evidence) -> str:
    decided, doubtful, policy = run.results["recommendation"], bool(data_doubts(run)), run.policy
    if _by_loop(run):
        return words("loop").answer(decided["option"], decided["rehearsal"], doubtful, run.loop, _titles(run))
    return words("recommendation").whether(
        decided["option"], decided["rehearsal"], doubtful, policy.config.steps, title(*policy.new_codec),
        policy.contrasts(),
    )  # fmt: skip


def _titles(run: Evidence) -> dict[PlayedArm, str]:
    return {arm: arm_title(arm) for arm in run.loop.arms}


def in_loop(run: Evidence) -> list[str]:
    """What policies that act in the simulator say of Phase 2's heads and of new tokens, and what replays add to it."""
    loop, said, new = run.loop, words("loop"), run.loop.new_tokens
    tokens = run.policy.tokens_per_chunk(run.policy.of(new.codec))
    anew = said.anew(loop, new, title(new.codec, new.setting), FILES.get(new.codec), _readable(run), tokens)
    replayed = [said.reconciled(loop, run.replays)] if run.replays.played else []
    return [said.heads(loop), anew, *replayed]


def how(run: Evidence) -> str:
    policy = run.policy
    rule, codec_gain = policy.best_rule(policy.of(NAIVE)), run.scores.improvement(RETRAINED)
    return words("recommendation").how(rule, codec_gain, policy.contrasts())


def which(run: Evidence) -> str:
    policy = run.policy
    new = policy.new_codec
    return words("recommendation").which(
        title(*new), FILES.get(new.codec), _readable(run), policy.tokens_per_chunk(new), decode_rule(new, policy),
        policy.contrasts(), SHOWN_RATE, _at_equal_bits(run),
    )  # fmt: skip


def _readable(run: Evidence) -> bool:
    """Whether the guide's own tokens decode."""
    return bool((run.models.decode_error[run.models.codec == GUIDES] == 0).all())


def _at_equal_bits(run: Evidence) -> list[tuple[str, object]]:
    """At the rate that is shown RFSQ's best, and its best of fixed length, with their gains over FAST-style tokens."""
    at = next(row for row in against_fast(run.scores) if row.rate == SHOWN_RATE)
    if at.rfsq is None or at.rfsq_gain.mean is None:
        return []
    found = {at.rfsq.codec: at.rfsq_gain}
    if at.fixed is not None and at.fixed_gain.mean is not None:
        found.setdefault(at.fixed.codec, at.fixed_gain)
    return [(title(codec), gain) for codec, gain in found.items()]


def use(run: Evidence) -> str:
    """What to use, and what the errors do not say."""
    decided = run.results["recommendation"]
    if decided["decode_rule"] in OWN_RULES:
        return words("predictions").use(decided["decode_rule"])
    return words("recommendation").use(decided["checkpoint"], decided["layers"], decided["decode_rule"], _by_loop(run))


def would_change(run: Evidence) -> list[str]:
    return [
        words("recommendation").would_change(
            values, title(values["codec"], values["setting"]) if "codec" in values else ""
        )
        for values in run.results["recommendation"]["would_change"]
    ]


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
