"""The replays in words: one sentence for the verdict, and the guide's claim about success judged by them."""

from __future__ import annotations

from typing import Any

from workbook.common import targets
from workbook.common.threshold import Status
from workbook.common.wording import count_of
from workbook.evaluation.replay.evidence import END_BETWEEN_KERNELS_MM
from workbook.evaluation.replay.predictors import PREDICTORS
from workbook.verdict.criteria import DEPLOYABLE_MODEL, GUIDE_MODEL, MODEL_TITLES, Word
from workbook.verdict.recommendation import SHOWN_RATE

Evidence = dict[str, Any]
SUBJECT = "task success, by replay in the simulator"
HOW_TO_RUN = "./run_all.sh --with-replay plays the test episodes in LIBERO's simulator"
NOT_ASKED_FOR = {"not_run": "no replay was asked for"}
OUT_OF_DATE = {"not_run": "the replay is damaged or older than the other stages; run 05_replay again"}
WORDS: dict[Status, Word] = {"met": "PASS", "unmet": "FAIL", "not shown": "NOT SHOWN", "not run": "NOT RUN"}


def verdict_part(replay: Evidence, missing: list[str]) -> Evidence:
    """Whether a deployable robust RFSQ succeeds so much more often than naive as the guide says, by its threshold."""
    if not played(replay):
        return {"subject": SUBJECT, "model": None, "word": "NOT RUN", "sentence": why_not(replay)}
    gain = replay["contrasts"][DEPLOYABLE_MODEL]["all"]["difference"]
    word = "NOT SHOWN" if missing or replay["shortfalls"] else WORDS[targets.GAINS_SUCCESS.judge(gain)]
    return {"subject": SUBJECT, "model": None, "word": word, "sentence": sentence(replay)}


def played(replay: Evidence) -> bool:
    return not replay["not_run"] and replay["episodes"] > 0


def why_not(replay: Evidence) -> str:
    """Why there is no replay, and how to come by one."""
    if replay["not_run"]:
        return f"{replay['not_run']}; {HOW_TO_RUN}." if replay == NOT_ASKED_FOR else f"{replay['not_run']}."
    return f"no test episode succeeds when its own actions are played exactly: {replay['exact']['left_out'][0]['why']}."


def sentence(replay: Evidence) -> str:
    """'Of N test episodes ..., naive tokens succeed in n of N, ...': the counts that the decision needs."""
    codecs = replay["codecs"]
    layers = codecs["scale_few"]["title"].split(", ")[-1]
    few = f", of its first {layers} alone in {_count(codecs['scale_few'])}"
    rfsq, fast = codecs[f"klt_rfsq_{SHOWN_RATE}"], codecs[f"fast_{SHOWN_RATE}"]
    equal = (
        f"; KLT-RFSQ of variable length at {rfsq['bits']:.0f} bits a chunk {_count(rfsq)}, FAST-style tokens at "
        f"{fast['bits']:.0f} bits {_count(fast)}"
    )
    gain = replay["contrasts"][DEPLOYABLE_MODEL]["all"]["difference"]
    low, high = targets.EXPECTED_FINE_MANIPULATION
    short = f" Too few to judge by: {'; '.join(replay['shortfalls'])}." if replay["shortfalls"] else ""
    return (
        f"of {replay['episodes']} test episodes that succeed when played exactly, naive tokens succeed in "
        f"{_count(codecs['naive'])}, those of the {MODEL_TITLES[DEPLOYABLE_MODEL]} in {_count(codecs['scale'])}{few}, "
        f"of the {MODEL_TITLES[GUIDE_MODEL]} in {_count(codecs['layernorm'])}, in "
        f"{_count(codecs['layernorm_sent'])} with its statistics sent{equal}. Over {_seeds(codecs['naive'])} the fixed "
        f"scale gains {points(gain)} on naive; the guide says +{low:.0%} to +{high:.0%} in fine manipulation.{short}"
    )


def _count(entry: Evidence) -> str:
    return f"{entry['succeeded']} of {entry['played']}"


def _seeds(entry: Evidence) -> str:
    return count_of(len(entry["per_seed"]), "seed")


def points(difference: Evidence) -> str:
    """'+2.6 percentage points (95 % interval -9.8 to +15.4)'."""
    if difference["mean"] is None:
        return "nothing that was measured"
    ends = "" if difference["low"] is None else (
        f" (95 % interval {100 * difference['low']:+.1f} to {100 * difference['high']:+.1f})"
    )  # fmt: skip
    return f"{100 * difference['mean']:+.1f} percentage points{ends}"


def remarks(replay: Evidence) -> list[str]:
    """What to know beside the counts: what was left out, what predicts failure, and what open loop does not say."""
    if not played(replay):
        return [f"Replay: NOT RUN. {why_not(replay)[0].upper()}{why_not(replay)[1:]}"]
    exact = replay["exact"]
    reached = f"Played exactly, {exact['succeeded']} of {exact['played']} test episodes reach their goal."
    found = [f"{reached} {_ends(exact)}", f"Simulator: {_simulator(replay)}."]
    if exact["left_out"]:
        reasons = dict.fromkeys(left["why"] for left in exact["left_out"])
        found.append(f"Left out: {len(exact['left_out'])} episodes, because {'; '.join(reasons)}.")
    if replay["without_start"]:
        found.append(
            f"{replay['without_start']} test episodes hold no state to begin in that can be read, and are left out."
        )
    broken = {problem for entry in replay["codecs"].values() for problem in entry["not_played"]}
    found += [f"Of some replays there is no result: {problem}." for problem in sorted(broken)]
    found.append(_predictor(replay["predictors"]))
    found.append(
        "A replay is open loop: decoded actions are played as they are, and nothing corrects what they miss, as a "
        "policy that sees its mistakes might. It says what an error of the codec does, not what a policy makes of it."
    )
    return found


def _ends(exact: Evidence) -> str:
    """How many replays end in the recorded state; rarely all, where another kind of processor recorded them."""
    recorded, equal = exact["final_state_recorded"], exact["final_state_equal"]
    if not recorded:
        return "No recording says in which state it ended."
    how_many = f"All {recorded}" if equal == recorded else f"{equal} of {recorded}"
    return (
        f"{how_many} recorded end states are met to the last bit. Last bits hold for the same versions, on one kind of "
        "processor only: OpenBLAS, which does the controller's algebra, rounds by processor. Between kinds, ends of "
        f"the sample differ by {END_BETWEEN_KERNELS_MM[0]} mm in the median, at most {END_BETWEEN_KERNELS_MM[1]} mm."
    )


def _simulator(replay: Evidence) -> str:
    said = [f"{name} {version}" for name, version in replay["versions"].items()]
    if replay.get("kernels", "unknown") != "unknown":  # replays of before they were told do without
        said.append(f"OpenBLAS kernels {replay['kernels']}")
    return ", ".join(said)


def _predictor(found: Evidence) -> str:
    best = found.get("best")
    if best is None:
        return "No error of the decoded actions can be held against success: the replays all ended alike."
    auc = found["rows"][best]["auc"]
    alike = [name for name, lead in found["less_than_best"].items() if lead["low"] is None or lead["low"] <= 0]
    equals = f"; not shown to do worse: {', '.join(PREDICTORS[name] for name in alike)}" if alike else ""
    told = (
        f"What tells failed replays best, over {found['replays']:,} replays of {found['codecs']} codecs, is the "
        f"{PREDICTORS[best]}: in {auc['mean']:.0%} of pairs the failed one has the larger error "
        f"({auc['low']:.0%} to {auc['high']:.0%}){equals}."
    )
    return told if best == "mse" or "mse" in alike else f"{told} {_of_mse(found)}"


def _of_mse(found: Evidence) -> str:
    mse, lead = found["rows"]["mse"]["auc"], found["less_than_best"]["mse"]
    return (
        f"MSE does in {mse['mean']:.0%}, less by {100 * lead['mean']:.1f} points ({100 * lead['low']:.1f} to "
        f"{100 * lead['high']:.1f})."
    )


def mse_and_success(replay: Evidence) -> str:
    """What MSE says about success, from the replays; '' without any that failed."""
    rows = replay["predictors"].get("rows", {}) if played(replay) else {}
    if not rows or rows["mse"]["auc"]["mean"] is None:
        return ""
    among = (
        "" if rows["mse"]["within"]["mean"] is None else f", and of one codec's in {rows['mse']['within']['mean']:.0%}"
    )
    share = f"{rows['mse']['auc']['mean']:.0%}"
    return f"Of a failed and a succeeded replay the failed one has the larger MSE in {share} of pairs{among}."
