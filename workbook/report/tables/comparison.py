"""Tables of 03_compare: every compared codec, its errors and what it pays for them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from workbook.codecs.catalogue import catalogue
from workbook.common import targets
from workbook.common.intervals import Estimate
from workbook.common.numbers import number
from workbook.common.table import Table
from workbook.data.layout import ActionLayout
from workbook.evaluation.evidence import Evidence
from workbook.evaluation.metrics import STAND_IN, SWITCH_WINDOW
from workbook.evaluation.score import ENCODER, TOKENS, Scores
from workbook.report.text import words
from workbook.report.text.codecs import title
from workbook.verdict.criteria import DEPLOYABLE, GUIDES, NAIVE

# Rows of the table of errors; what the data have no dimension, switch or zero for is left out.
METRICS = (
    "position_mm", "rotation_deg", "joint_length", "gripper_abs", "gripper_error_rate", "gripper_on_time",
    "gripper_shift_steps", "max_abs", "switch_drift_mm", "peak_drift_mm", "drift_mm", "drift_deg", "zeros_kept", "mse",
    "relative_mse",
)  # fmt: skip
TOPIC = "comparison"


@dataclass(frozen=True)
class Compared:
    """A codec at a setting, and what it is called beside the others."""

    codec: str
    setting: str
    title: str

    @property
    def colour(self) -> str:
        return catalogue()[self.codec].colour

    def estimate(self, scores: Scores, metric: str, decoding: str = TOKENS) -> Estimate:
        return scores.estimate(metric, self.codec, self.setting, decoding)


def compared(scores: Scores) -> list[Compared]:
    """What is compared, in the order of the catalogue, but for the readers of other codecs' tokens (option B).

    Only where a codec stands at several settings is the setting named.
    """
    found = [(codec, setting) for codec, setting in scores.listed("compared") if not catalogue()[codec].reads]
    settings = Counter(codec for codec, _ in found)
    return [Compared(codec, setting, title(codec, setting if settings[codec] > 1 else "")) for codec, setting in found]


def trained(run: Evidence) -> list[Compared]:
    """The models of 02_train_robust, at all of their layers."""
    models = set(run.models.codec)
    return [one for one in compared(run.scores) if one.codec in models]


def exact(run: Evidence, codec: str) -> bool:
    """Whether tokens alone give what the encoder's forward pass gives, which only models could fail to do."""
    errors = run.models.decode_error[run.models.codec == codec]
    return not errors.any()


def with_interval(estimate: Estimate) -> str:
    return words("phrases").with_interval(estimate)


def closing_table(run: Evidence) -> Table:
    """The guide's closing table: target beside result, for its proposal and for the codec that can be deployed."""
    scores, text, shown = run.scores, words(TOPIC), (GUIDES, DEPLOYABLE)
    models = [run.models[run.models.codec == codec] for codec in shown]
    mse = text.target_mse(targets.MSE_BELOW, targets.EXPECTED_MSE)
    gain = text.target_improvement(targets.IMPROVEMENT_ABOVE, targets.EXPECTED_IMPROVEMENT)
    cells = {
        "mse_encoder": [mse, *(with_interval(scores.estimate("mse", codec, decoding=ENCODER)) for codec in shown)],
        "mse_tokens": [mse, *(with_interval(scores.estimate("mse", codec)) for codec in shown)],
        "improvement_encoder": [gain, *(_share(scores.improvement(codec, decoding=ENCODER)) for codec in shown)],
        "improvement_tokens": [gain, *(_share(scores.improvement(codec)) for codec in shown)],
        "seconds": [
            text.about_hours(targets.EXPECTED_TRAINING_HOURS),
            *(text.seconds(float(rows.train_seconds.mean())) for rows in models),
        ],
        "bytes": [
            text.about_kilobytes(targets.EXPECTED_CHECKPOINT_KB),
            *(text.kilobytes(float(rows.bytes.max()) / 1000) for rows in models),
        ],
    }
    note = text.closing_note(scores.estimate("mse", NAIVE), targets.EXPECTED_NAIVE_MSE)
    return Table(text.closing_header, [[text.closing_rows[key], *row] for key, row in cells.items()], note)


def _share(estimate: Estimate) -> str:
    return words("phrases").share(estimate.mean)


def physical_table(run: Evidence) -> Table:
    """Errors in physical units, from tokens alone, with the guide's expectation of naive -> robust."""
    text, columns = words(TOPIC), compared(run.scores)
    rows, shown = [], []
    for metric in METRICS:
        means = [one.estimate(run.scores, metric).mean for one in columns]
        if any(mean is not None for mean in means):
            expected = targets.EXPECTED_ERRORS.get(metric)
            said = text.naive_and_robust(*expected) if expected else text.nothing
            rows.append([text.metrics[metric], said, *map(number, means)])
            shown.append(metric)
    note = text.physical_note(SWITCH_WINDOW, any("drift" in metric for metric in shown))
    return Table([*text.physical_header, *(one.title for one in columns)], rows, note)


def dimension_table(run: Evidence) -> Table:
    """MSE and its interval for each dimension, from tokens alone, of the models that decode exactly."""
    text, shown = words(TOPIC), [one for one in trained(run) if exact(run, one.codec)]
    rows = [
        [name, *(with_interval(one.estimate(run.scores, f"mse_{name}")) for one in shown)]
        for name in ActionLayout.parse(run.comparison["layout"]).names
    ]
    return Table([text.dimension, *(one.title for one in shown)], rows, text.dimension_note)


def bits_table(run: Evidence) -> Table:
    """What each codec pays for a chunk."""
    text, rows = words(TOPIC), []
    for one in compared(run.scores):
        cost = run.scores.cost(one.codec, one.setting)
        bits = [f"{cost[name]:,.0f}" for name in ("bits", "side_bits", "entropy_bits")]
        rows.append([one.title, *bits, with_interval(one.estimate(run.scores, "mse"))])
    return Table(text.bits_header, rows, text.bits_note)


def overview_table(run: Evidence) -> Table:
    """The table of the README: every codec with its bits and what comes out of its tokens."""
    text, scores, rows = words(TOPIC), run.scores, []
    for one in compared(scores):
        seen = ENCODER if scores.has(one.codec, one.setting, ENCODER) else TOKENS
        rows.append([
            one.title,
            f"{scores.cost(one.codec, one.setting)['bits']:,.0f}",
            number(one.estimate(scores, "mse", seen).mean),
            with_interval(one.estimate(scores, "mse")),
            number(one.estimate(scores, "position_mm").mean),
            number(one.estimate(scores, STAND_IN).mean),
        ])  # fmt: skip
    seeds = int((run.models.codec == DEPLOYABLE).sum())
    return Table(text.overview_header, rows, text.overview_note(run.comparison["test_episodes"], seeds, run.folds))
