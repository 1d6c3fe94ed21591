"""What the first page says at a glance: a tile for each option, what the answer rests on, and what every fold finds."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from workbook.codecs.rfsq import DEAD_BELOW_BITS
from workbook.evaluation.evidence import Evidence
from workbook.evaluation.policy.evidence import FIXED_SCALE, NAIVE
from workbook.evaluation.predictions.evidence import RULES as OWN_RULES, decide
from workbook.evaluation.rate_distortion import smallest
from workbook.report.tables.verdict import subject, verdict_parts
from workbook.report.text import words
from workbook.report.text.codecs import title
from workbook.report.text.findings import against_text
from workbook.report.text.loop import arm_title
from workbook.report.text.recommendation import by_loop, simulated
from workbook.verdict.criteria import JUDGED

Mark = Literal["yes", "partly", "no"]
IN_LOOP = {
    "A": "new_tokens", "B": "retrained_decoder", "rule": "rule",
    "pipeline": "pipeline", "pipeline_rule": "pipeline_rule",
}  # fmt: skip
CANDIDATE = "CANDIDATE"
OF_THESE = "OF THESE"  # higher over the pairs that were played, by McNemar's test; new seeds may differ
WORSE = "WORSE"  # the whole interval is a loss
MARKS: dict[str, Mark] = {"PASS": "yes", "YES": "yes", "FAIL": "no", "NO": "no", WORSE: "no"}


@dataclass(frozen=True)
class Tile:
    """An option: what is said of it in a word, one number with its interval, and what is compared."""

    key: str
    word: str
    number: str
    interval: str
    note: str

    @property
    def mark(self) -> Mark:
        return MARKS.get(self.word, "partly")


@dataclass(frozen=True)
class Support:
    """Something that the answer rests on, or lacks."""

    mark: Mark
    text: str


@dataclass(frozen=True)
class CodeGrid:
    """Codes of one step, a row a layer; what they show."""

    name: str
    caption: str
    rows: list[list[int]]
    largest: int


def do(run: Evidence) -> str:
    """What to do now."""
    decided = run.results["recommendation"]
    own = decided["decode_rule"] in OWN_RULES
    rule = words("predictions" if own else "policy").rules[decided["decode_rule"]]
    codec = title(decided["codec"], decided["setting"])
    used = (codec, decided["checkpoint"], rule)
    return words("decision").do_now(decided["option"], decided["rehearsal"], *used, simulated(run))


def tiles(run: Evidence) -> list[Tile]:
    """Of the simulator's policies where they decide, else of the offline probe; the user's own predictions first."""
    found = _tiles_in_loop(run) if by_loop(run) else _tiles_offline(run)
    if run.predictions.given:
        found = [_tile_of_predictions(run) if tile.key == "rule" else tile for tile in found]
    return found


def _tiles_in_loop(run: Evidence) -> list[Tile]:
    """Of every question whose arms were played; of A and B the word is the recommendation's."""
    said, loop, recommended = words("decision"), run.loop, run.results["recommendation"]
    found = []
    for key, asked in IN_LOOP.items():
        contrast = loop.contrast(asked)
        if contrast is None:
            continue
        new = title(contrast.arm.codec, contrast.arm.setting)
        rules = (contrast.arm.rule, contrast.over.rule)
        note = said.succeeded(key, new, rules, loop.counts(contrast.arm), loop.counts(contrast.over))
        word = recommended["words"].get(key, "NOT SHOWN" if recommended["rehearsal"] else contrast.word)
        if word == "YES" and (contrast.difference.low or 0) <= 0:
            word = OF_THESE
        if word == "NO" and (contrast.difference.high or 0) < 0:
            word = WORSE
        found.append(Tile(key, word, said.points(contrast.difference), said.points_between(contrast.difference), note))
    return found


def _tiles_offline(run: Evidence) -> list[Tile]:
    """Of a decode rule the probe only says that it is a candidate, for squared error favours an expected value."""
    said, recommended = words("decision"), run.results["recommendation"]
    met = any(rule["key"] == "decode_rule" and rule["status"] == "met" for rule in recommended["rules"])
    asked = {"A": "new_for_naive", "B": "retrained_decoder", "rule": "naive_rule"}
    verdicts = recommended["words"] | {"rule": CANDIDATE if met and not recommended["rehearsal"] else "NOT SHOWN"}
    policy = run.policy
    new, rule = title(*policy.new_codec), words("policy").rule_labels[policy.best_rule(policy.of(NAIVE))]
    gains = {key: policy.contrasts()[contrast] for key, contrast in asked.items()}
    return [
        Tile(key, verdicts[key], said.less(gain), said.between(gain), said.offline(key, new, rule))
        for key, gain in gains.items()
    ]


def _tile_of_predictions(run: Evidence) -> Tile:
    said, gain = words("decision"), run.predictions.gain(run.predictions.mended)
    word = decide(run.predictions)["decode_rule"]["word"]
    return Tile("rule", word, said.less(gain), said.between(gain), said.own_predictions)


def rests_on(run: Evidence) -> list[Support]:
    """What there is of evidence, in parts, or not at all."""
    said, lacking = words("decision"), run.results["verdict"]["shortfalls"]
    held_out = said.held_out(run.comparison["test_episodes"], len(run.results["provenance"]["seeds"]), run.folds)
    doubtful = run.results["verdict"]["data_doubts"]
    return [
        Support("no" if lacking else "yes", held_out),
        Support("yes", said.declared),
        _of_loop(run),
        _of_replays(run),
        Support("yes", said.predicted) if run.predictions.given else Support("no", said.not_predicted),
        Support("no", said.no_motion) if doubtful else Support("partly", said.data(run.data["origin"])),
        Support("partly", said.small_policies),
        Support("no", said.no_robot),
    ]


def _of_loop(run: Evidence) -> Support:
    said, loop = words("decision"), run.loop
    if not (loop.played and loop.contrasts):
        return Support("no", said.not_acted)
    counts = (loop.contrasts[0].pairs, loop.rows.seed.nunique(), len(loop.starts_by_task()))
    return Support("yes" if loop.decides else "partly", said.acted(*counts))


def _of_replays(run: Evidence) -> Support:
    said, replays = words("decision"), run.replays
    if not replays.played:
        return Support("no", said.not_replayed)
    return Support("partly" if replays.shortfalls else "yes", said.replayed(replays))


def code_grids(run: Evidence) -> list[CodeGrid]:
    """One step's codes, of naive and of fixed-scale tokens."""
    said, layers = words("decision"), run.layers
    largest = int(layers.codes.code.max())
    return [
        CodeGrid(
            title(codec),
            said.codes(title(codec), len(layers.dead(codec)), layers.count, DEAD_BELOW_BITS),
            layers.of_one_step(codec).tolist(),
            largest,
        )
        for codec in (NAIVE, FIXED_SCALE)
    ]


def findings(run: Evidence) -> dict[str, str]:
    """A few words for the summary of each fold."""
    said, loop, replays = words("decision"), run.loop, run.replays
    success = {arm: loop.success(arm).mean for arm in loop.arms} if loop.played else {}
    known = {arm: share for arm, share in success.items() if share is not None}
    best, worst = max(known, key=known.__getitem__, default=None), min(known, key=known.__getitem__, default=None)
    least = smallest(run.validation)["any"]
    counts = Counter(rule["status"] for rule in run.results["recommendation"]["rules"])
    return {
        "loop-details": said.not_run if best is None or worst is None else said.best_and_worst(
            (arm_title(best), known[best]), (arm_title(worst), known[worst])
        ),
        "replay": said.replays_of(
            [(title(codec), replays.of(codec)) for codec in (FIXED_SCALE, NAIVE) if replays.has(codec)]
        ) if replays.played else said.not_run,
        "codecs": said.smallest(title(*least), run.scores.cost(*least)["bits"]) if least else said.none_meets,
        "evidence": said.rules_met(counts["met"], counts.total(), by_loop(run)),
        "options": said.decided(run.results["recommendation"]["words"]),
        "verdict": said.verdict([
            (subject(part["key"]), part["word"]) for part in verdict_parts(run) if part["key"] in JUDGED
        ]),
        "against": said.points_against(len(against_text(run))),
        "claims": said.claims(Counter(claim["status"] for claim in run.results["claims"])),
        "method": said.measured(run.data["episodes"], run.data["steps"], run.results["provenance"]["seeds"]),
    }  # fmt: skip
