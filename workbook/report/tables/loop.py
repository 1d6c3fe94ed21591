"""Tables of policies in the loop."""

from __future__ import annotations

from workbook.common.numbers import number, percent
from workbook.common.table import Table
from workbook.evaluation.evidence import Evidence
from workbook.report.text import words
from workbook.report.text.badges import badge
from workbook.report.text.codecs import title
from workbook.report.text.loop import arm_title


def success_table(run: Evidence) -> Table:
    """Every arm: how many episodes succeed, over all and by seed."""
    found, said, rows = run.loop, words("loop"), []
    for arm in found.arms:
        success = found.success(arm)
        rows.append([
            arm_title(arm),
            said.share(*found.counts(arm)),
            "-" if success.low is None else said.between(success.low, success.high),
            ", ".join(map(str, found.successes_by(arm, "seed").values())),
            number(found.validation_mse(arm)),
        ])  # fmt: skip
    return Table(said.success_header, rows, said.success_note(found.arms))


def tasks_table(run: Evidence) -> Table:
    """Successes of every arm, task by task."""
    found, said = run.loop, words("loop")
    by_task = {arm: found.successes_by(arm, "task") for arm in found.arms}
    starts = found.starts_by_task()
    header = [said.success_header[0], *(f"{task} ({count})" for task, count in starts.items())]
    return Table(header, [[arm_title(arm), *(f"{of[task]}" for task in starts)] for arm, of in by_task.items()])


def contrasts_table(run: Evidence) -> Table:
    """The differences that a decision hangs on."""
    found, said = run.loop, words("loop")
    rows = [
        [
            said.questions[one.key],
            badge(one.word),
            arm_title(one.arm),
            arm_title(one.over),
            said.difference(one.difference),
            said.alone(one.won_alone, one.lost_alone),
            number(one.p),
            said.in_points(one.detectable),
        ]
        for one in found.contrasts
    ]
    return Table(said.contrasts_header, rows, said.one_more(max((one.pairs for one in found.contrasts), default=0)))


def offline_table(run: Evidence) -> Table:
    """How each figure that needs no simulator orders the arms, beside their success."""
    found, said, rows = run.loop, words("loop"), []
    for name, one in found.offline_figures.items():
        rho = one.correlation
        interval = "-" if rho.low is None else words("phrases").range(number(rho.low), number(rho.high))
        rows.append([said.offline_figures[name], f"{one.arms}", number(rho.mean), interval])
    return Table(said.offline_header, rows, said.offline_note(found))


def acceptance_table(run: Evidence) -> Table:
    """How often main models keep a draft, and one that belongs elsewhere."""
    found, said, rows = run.loop.acceptances, words("loop"), []
    for one in found:
        by_layer = [", ".join(map(percent, shares)) for shares in zip(*one.by_layer, strict=True)]
        rows.append([title(one.codec, one.setting), percent(one.agreement), percent(one.shuffled), *by_layer])
    return Table(said.acceptance_header, rows, said.acceptance_note(found))
