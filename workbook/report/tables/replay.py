"""Tables of the replays."""

from __future__ import annotations

from workbook.common.numbers import number
from workbook.common.table import Table
from workbook.evaluation.evidence import Evidence
from workbook.evaluation.replay.evidence import CodecReplays
from workbook.evaluation.replay.rows import shown as shown_of
from workbook.report.text import words
from workbook.report.text.replay import title_of


def success_table(run: Evidence) -> Table:
    """Every codec: how many episodes still succeed, how far the hand strays, what fails."""
    replays, said = run.replays, words("replay")
    count = words("phrases").of(replays.episodes, replays.episodes)
    truth = [said.recorded_actions, "-", count, "-", "-", "-", "0", "0", "0", "-"]
    codecs = sorted(replays.codecs, key=lambda of: of.bits)
    note = said.success_note(replays.episodes, len(replays.tasks))
    return Table(said.success_header, [truth, *map(_success, codecs)], note)


def _success(of: CodecReplays) -> list[str]:
    said, success = words("replay"), of.success
    ends = of.drift.iloc[-1] if len(of.drift) else {"position_mm": None, "rotation_deg": None}
    return [
        title_of(of.codec, of.setting),
        f"{of.bits:,.0f}",
        said.count(of),
        "-" if success.low is None else said.between(success.low, success.high),
        number(of.p_against_ground_truth),
        ", ".join(map(str, of.per_seed)) if len(of.per_seed) > 1 else "-",
        number(of.deployed.mse.mean()),
        number(ends["position_mm"]),
        number(ends["rotation_deg"]),
        ", ".join(f"{said.failures[reason]} {count}" for reason, count in of.failures.items()) or "-",
    ]


def tasks_table(run: Evidence) -> Table:
    """Successes task by task of the codecs that the decision is about."""
    replays, said = run.replays, words("replay")
    asked = [("naive", ""), ("layernorm_sent", ""), ("fixed_scale", ""), *shown_of(replays.keys)]
    shown = dict.fromkeys(replays.of(*key) for key in asked if replays.has(*key))
    rows = [
        [said.task(task, task in replays.articulated_tasks), f"{episodes}", *(f"{of.by_task[task]}" for of in shown)]
        for task, episodes in replays.tasks.items()
    ]
    return Table([*said.tasks_header, *(title_of(of.codec, of.setting) for of in shown)], rows, said.tasks_note)


def contrasts_table(run: Evidence) -> Table:
    """Differences in success between codecs, paired by episode and seed."""
    said = words("replay")
    rows = [
        [
            said.against(title_of(one.codec, one.setting), title_of(one.over, one.over_setting)),
            said.gain(one.difference),
            f"{one.won_alone}",
            f"{one.lost_alone}",
            f"{one.episodes}",
            number(one.p),
        ]
        for one in run.replays.contrasts
    ]
    return Table(said.contrasts_header, rows, said.contrasts_note)


def failures_table(run: Evidence) -> Table:
    """Where and why replays failed, over all codecs whose tokens decode."""
    said, failed = words("replay"), run.replays.failed
    medians = failed.groupby("failure")[["failure_progress", "hand_mm"]].median()
    rows = []
    for reason in dict.fromkeys(failed.sort_values("failure_progress", kind="stable").failure):
        tasks = failed[failed.failure == reason].task.value_counts()
        rows.append(
            [
                said.failures[reason],
                f"{tasks.sum()}",
                said.percent_of(medians.failure_progress[reason]),
                number(medians.hand_mm[reason]),
                "; ".join(f"{task} {count}" for task, count in tasks.items()),
            ]
        )
    return Table(said.failures_header, rows, said.failures_note)


def predictors_table(run: Evidence) -> Table:
    """How each error of the decoded actions goes with failure."""
    said, found = words("replay"), run.replays.predictors
    rows = [
        [said.predictor(name, name == found.best), *map(said.interval, (one.auc, one.within, one.correlation))]
        for name, one in sorted(found.each.items(), key=lambda item: -(item[1].auc.mean or 0.0))
    ]
    return Table(said.predictors_header, rows, said.predictors_note(found))
