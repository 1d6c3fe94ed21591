"""Tables of the replays."""

from __future__ import annotations

from collections import Counter
from statistics import median
from typing import Any

from workbook.common.table import Table
from workbook.common.wording import number
from workbook.evaluation.replay.predictors import PREDICTORS
from workbook.verdict.success import points

Evidence = dict[str, Any]
CONTRAST_TITLES = {
    "layernorm": "layernorm, tokens alone, against naive",
    "layernorm_sent": "layernorm, statistics sent, against naive",
    "scale": "scale, all layers, against naive",
    "scale_few": "scale, first layers, against naive",
}


def success_table(replay: Evidence) -> Table:
    """Every codec: how many episodes still succeed, how far the hand strays, what fails."""
    exact = replay["episodes"]
    rows = [["recorded actions, exactly", "-", f"{exact} of {exact}", "-", "-", "-", "0", "0", "0", "-"]]
    for entry in sorted(replay["codecs"].values(), key=lambda entry: entry["bits"]):
        share, drift = entry["success"], entry["drift"]
        between = "-" if share["low"] is None else f"{share['low']:.0%} to {share['high']:.0%}"
        rows.append(
            [
                entry["title"],
                f"{entry['bits']:,.0f}",
                f"{entry['succeeded']} of {entry['played']}",
                between,
                number(entry["mcnemar_p_against_exact"]),
                _seeds(entry["per_seed"]),
                number(entry["errors"]["mse"]),
                number(drift["position_mm"][-1] if drift["progress"] else None),
                number(drift["rotation_deg"][-1] if drift["progress"] else None),
                ", ".join(f"{reason} {count}" for reason, count in entry["failures"].items()) or "-",
            ]
        )
    header = [
        "played",
        "bits a chunk",
        "succeed",
        "95 % interval",
        "p against exact",
        "each seed",
        "MSE, mean of episodes",
        "hand off at the end, mm",
        "degrees",
        "what failed",
    ]
    note = (
        f"Open loop, chunk by chunk, {exact} test episodes of {len(replay['tasks'])} tasks that succeed when played "
        "exactly; success is LIBERO's own: the goal holds after some step. Interval: exact binomial (Clopper-Pearson); "
        "p: exact McNemar test, paired by episode, in which a codec can only lose, for exactly played all of these "
        "succeed. Of trained codecs the model of least validation error is counted, "
        "and the successes of every seed stand beside it. Hand off: median distance from where it is in the exact "
        "replay."
    )
    return Table(header, rows, note)


def _seeds(per_seed: list[list[int]]) -> str:
    return ", ".join(str(won) for won, _ in per_seed) if len(per_seed) > 1 else "-"


def tasks_table(replay: Evidence) -> Table:
    """Successes task by task of the codecs that the decision is about."""
    shown = [key for key in ("naive", "layernorm_sent", "scale", "scale_few", "bins16", "klt_rfsq_80", "fast_80")
             if key in replay["codecs"]]  # fmt: skip
    rows = [
        [
            task + (" (articulated)" if task in replay["articulated_tasks"] else ""),
            f"{episodes}",
            *(f"{replay['codecs'][key]['by_task'][task][0]}" for key in shown),
        ]
        for task, episodes in replay["tasks"].items()
    ]
    header = ["task", "episodes", *(replay["codecs"][key]["title"] for key in shown)]
    return Table(header, rows, "Articulated: the goal is about a drawer, a door or a knob, and nothing is carried.")


def contrasts_table(replay: Evidence) -> Table:
    """Differences in success between codecs, paired by episode and seed."""
    rows = []
    for key, contrast in replay["contrasts"].items():
        everything = contrast["all"]
        rows.append(
            [
                CONTRAST_TITLES.get(key) or _equal_rates(replay, key),
                points(everything["difference"]),
                f"{everything['only_second']}",
                f"{everything['only_first']}",
                f"{everything['episodes']}",
                number(everything["mcnemar_p"]),
            ]
        )
    header = ["", "gain in success, over seeds", "chosen models: won alone", "lost alone", "n", "p"]
    note = (
        "Gains are of the mean of each episode over seeds, paired by episode; intervals after Bonett and Price (2012), "
        "with the spread of the seeds. p: exact McNemar test of the chosen models, those of least validation error; "
        "not corrected for the number of tests."
    )
    return Table(header, rows, note)


def _equal_rates(replay: Evidence, key: str) -> str:
    entry = replay["codecs"][key]
    baseline = replay["codecs"][f"fast_{entry['rate']}"]
    return f"{entry['title']}, against {baseline['title']}"


def failures_table(replay: Evidence) -> Table:
    """Where and why replays failed, over all codecs whose tokens decode."""
    failed = [f for key, entry in replay["codecs"].items() if key != "layernorm" for f in entry["failed"]]
    rows = []
    for reason in dict.fromkeys(failure["reason"] for failure in sorted(failed, key=lambda f: f["part"])):
        of_reason = [failure for failure in failed if failure["reason"] == reason]
        tasks = Counter(failure["task"] for failure in of_reason)
        rows.append(
            [
                reason,
                f"{len(of_reason)}",
                f"{median(failure['part'] for failure in of_reason):.0%}",
                number(median(failure["hand_mm"] for failure in of_reason)),
                "; ".join(f"{task} {count}" for task, count in tasks.most_common()),
            ]
        )
    header = ["what failed", "replays", "part of the episode played by then", "hand off by then, mm", "tasks"]
    note = "Medians. Which episode of which codec: replay, codecs, failed in results.json."
    return Table(header, rows, note)


def predictors_table(replay: Evidence) -> Table:
    """How each error of the decoded actions goes with failure."""
    found = replay["predictors"]
    rows = [
        [
            PREDICTORS[name] + (" (best)" if name == found["best"] else ""),
            _between(row["auc"]),
            _between(row["within"]),
            _between(row["correlation"]),
        ]
        for name, row in sorted(found["rows"].items(), key=lambda item: -(item[1]["auc"]["mean"] or 0.0))
    ]
    header = [
        "error of the decoded actions",
        "chance that the failed one has more",
        "the same within a codec",
        "rank correlation with failure",
    ]
    note = (
        f"{found['replays']:,} replays of {found['codecs']} codecs whose tokens decode, {found['failed']} failed; no "
        "simulator is needed for these errors. 95 % intervals by bootstrap over episodes. A chance of 0.5 says "
        "nothing; a dash: the same in every replay."
    )
    return Table(header, rows, note)


def _between(estimate: Evidence) -> str:
    if estimate["mean"] is None:
        return "-"
    return f"{estimate['mean']:.2f} ({estimate['low']:.2f} to {estimate['high']:.2f})"
