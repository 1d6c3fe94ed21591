"""Tables of codecs at equal bits, and of option B."""

from __future__ import annotations

from workbook.codecs.catalogue import catalogue
from workbook.codecs.chunk_transformers import MANNERS
from workbook.common.numbers import number
from workbook.common.table import Table
from workbook.evaluation.against_fast import EQUAL_WITHIN, against_fast
from workbook.evaluation.evidence import Evidence
from workbook.evaluation.metrics import STAND_IN
from workbook.evaluation.rate_distortion import smallest
from workbook.report.tables.comparison import with_interval
from workbook.report.text import words
from workbook.report.text.codecs import setting_text, title
from workbook.training.baselines import TRANSFORMER_BATCHES
from workbook.training.runs import RETRAINED_FILE
from workbook.verdict.criteria import DEPLOYABLE, NAIVE

ERRORS = ("position_mm", "rotation_deg", "gripper_error_rate", STAND_IN)
TOPIC = "rate_distortion"


def equal_bits_table(run: Evidence) -> Table:
    """Codecs beside FAST-style tokens of as many bits, and of as many words."""
    text, rows = words(TOPIC), []
    for row in against_fast(run.table("against_fast")):
        cells = [title(row.codec, row.setting), f"{row.bits:,.0f}", f"{row.words:.1f}", number(row.mse.mean)]
        for fast in row.equal.values():
            cells += [text.nothing, text.nothing] if fast is None else [number(fast.mse.mean), text.against(fast.gain)]
        rows.append(cells)
    return Table(text.equal_bits_header, rows, text.equal_bits_note(EQUAL_WITHIN))


def smallest_table(run: Evidence) -> Table:
    """The RFSQ of fewest bits that meets the guide's target, of the guide's architecture and of any."""
    text, rows = words(TOPIC), []
    for key, found in smallest(run.validation).items():
        if found:
            codec, setting = found
            cost = run.scores.cost(codec, setting)
            spent = [f"{cost['bits']:,.0f}", f"{cost['tokens']:,.0f}"]
            mse = with_interval(run.scores.estimate("mse", codec, setting))
            rows.append([text.smallest[key], title(codec), setting_text(setting), *spent, mse])
    return Table(text.smallest_header, rows, text.smallest_note(str(run.validation.rows.part.iloc[0])))


def codecs_table(run: Evidence) -> Table:
    """Every codec and setting of the curve, in the order of the catalogue."""
    text, scores = words(TOPIC), run.scores
    listed = scores.listed("measured")
    shown = [key for key in ERRORS if any(scores.estimate(key, *one).mean is not None for one in listed)]
    rows = []
    for codec, setting in listed:
        entry, cost = catalogue()[codec], scores.cost(codec, setting)
        rows.append([
            title(codec),
            setting_text(setting),
            *(f"{cost[name]:,.0f}" for name in ("bits", "entropy_bits", "tokens", "vocabulary")),
            text.fixed if entry.fixed_length else text.varies,
            text.yes if entry.prefix else text.no,
            with_interval(scores.estimate("mse", codec, setting)),
            *(number(scores.estimate(key, codec, setting).mean) for key in shown),
        ])  # fmt: skip
    note = text.codecs_note()
    if any(codec in MANNERS for codec, _ in listed):
        note = f"{note} {text.transformers_note(TRANSFORMER_BATCHES)}"
    return Table([*text.codecs_header, *(text.errors[key] for key in shown)], rows, note)


def brought_table(run: Evidence) -> Table:
    """The faults of codecs that were brought."""
    text = words(TOPIC)
    kinds = ("chunks", "outside_vocabulary", "raised", "shape", "not_finite", "state")
    rows = [[name, *(f"{faults[kind]:,}" for kind in kinds)] for name, faults in run.brought.items()]
    return Table(text.brought_header, rows, text.brought_note())


def option_b_table(run: Evidence) -> Table:
    """Other decoders of naive tokens, between naive itself and the tokens that they are to stand in for."""
    text, scores = words(TOPIC), run.scores
    readers = [codec for codec, _ in scores.listed("compared") if catalogue()[codec].reads == NAIVE]
    rows = [
        [
            text.option_b.get(codec) or title(codec),
            with_interval(scores.estimate("mse", codec)),
            text.against(scores.improvement(codec)),
        ]
        for codec in (NAIVE, *readers, DEPLOYABLE)
        if scores.improvement(codec).mean is not None
    ]
    return Table(text.option_b_header, rows, text.option_b_note(RETRAINED_FILE))
