"""The comparison of two checkpoints as plain text, for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from textwrap import wrap

from workbook.common import targets
from workbook.common.wording import count_of, number, share, with_interval
from workbook.evaluation.checkpoints import ERRORS, Evidence

WAYS = {
    "forward": "forward",
    "tokens": "tokens alone",
    "statistics_sent": "tokens with the statistics sent and counted",
}
WIDTH = 118  # characters of a line of notes
NO_LAYERS = "no such layers"
UNITS = "MSE in the data set's normalised units squared; 95 % intervals by bootstrap over episodes."
WITH_STATISTICS = (
    " Forward knows the mean and std of every vector in every layer, which tokens do not hold: from tokens alone, mean "
    "0 and std 1 are assumed. Sent as float16, they are counted in the bits. L0-L2 from forward: with them."
)
WHY_NO_FINE_MSE = (
    "An MSE of L3-L7 alone is not defined: these layers refine what L0-L2 give, and stand for no action without it; "
    "the guide does not say what its figure is of. MSE here is with the statistics sent, where a model has any."
)


def as_text(report: Evidence) -> str:
    """The report as plain text, in aligned columns."""
    scored, statistics = report["scored"], "statistics_sent" in report["improvement"]
    config = scored["data_config"]
    asked = f", {scored['asked']:,} asked for" if scored["asked"] > scored["chunks"] else ""
    blocks = [
        [
            f"data: {scored['data']}, layout '{config['layout']}', split seed {config['split_seed']}, test part",
            f"scored: {scored['chunks']:,} of {scored['of_chunks']:,} chunks of {count_of(config['chunk_len'], 'step')}"
            f"{asked}; {scored['episodes']} of {count_of(scored['of_episodes'], 'episode')}, {scored['steps']:,} steps",
            *report["remarks"],
        ],
        [*_aligned(_error_rows(report)), *wrap(UNITS + (WITH_STATISTICS if statistics else ""), WIDTH)],
        [*_aligned(_fine_rows(report["models"])), *wrap(WHY_NO_FINE_MSE, WIDTH)],
        _aligned(_physical_rows(report["models"])),
        [
            "Verdict against the guide's targets, met or unmet where the whole 95 % interval is:",
            *_verdict_lines(report),
        ],
    ]
    return "\n\n".join("\n".join(block) for block in blocks)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _error_rows(report: Evidence) -> list[list[str]]:
    naive, robust, gain = report["models"]["naive"], report["models"]["robust"], report["improvement"]
    name, indented = f"robust ({robust['conditioning']})", "  statistics sent, counted"
    rows = [["", "MSE from forward", "MSE from tokens alone", "bits a chunk", "guide"]]
    for label, model, expected in (("naive", naive, targets.EXPECTED_NAIVE_MSE), (name, robust, targets.EXPECTED_MSE)):
        mse = [with_interval(model["mse"][way]) for way in ("forward", "tokens")]
        rows.append([label, *mse, f"{model['bits_per_chunk']['tokens']:,.0f}", f"{expected:g}"])
    if "statistics_sent" in gain:
        bits = f"{robust['bits_per_chunk']['statistics_sent']:,.0f}"
        rows.append([indented, "", with_interval(robust["mse"]["statistics_sent"]), bits, ""])
    expected_gain = f"{targets.EXPECTED_IMPROVEMENT:.1%}"
    rows.append(["improvement", _gain(gain["forward"]), _gain(gain["tokens"]), "", expected_gain])
    if "statistics_sent" in gain:
        rows.append([indented, "", _gain(gain["statistics_sent"]), "", ""])
    for label, model, expected in zip(("naive", name), (naive, robust), targets.EXPECTED_COARSE_MSE, strict=True):
        coarse = model["coarse"]
        cells = [with_interval(coarse[way]) for way in ("with_statistics", "tokens")] if coarse else [NO_LAYERS] * 2
        rows.append([f"L0-L2, {label}", *cells, "", f"{expected:g}"])
    return rows


def _gain(estimate: Evidence) -> str:
    """An improvement with its interval; a loss of more than all of it as a multiple of the error."""
    mean, low, high = (estimate[name] for name in ("mean", "low", "high"))
    if mean is None:
        return "none, for naive has no error"
    if low is None:
        return share(mean)
    if high < -1:
        return f"{share(mean)} ({1 - high:,.0f} to {1 - low:,.0f})"
    return f"{share(mean)} ({share(low)} to {share(high)})"


def _fine_rows(models: Evidence) -> list[list[str]]:
    fines = [models[role]["fine"] for role in ("naive", "robust")]

    def cells(write: Callable[[Evidence], str]) -> list[str]:
        return [write(fine) if fine else NO_LAYERS for fine in fines]

    low, high = targets.EXPECTED_NAIVE_STD[targets.FINE_LAYERS]
    return [
        ["L3-L7", "naive", "robust", "guide: naive -> robust"],
        ["MSE of L3-L7", "not defined", "not defined", "{:g} -> {:g}".format(*targets.EXPECTED_FINE_MSE)],
        [
            "std of the residual entering each",
            *cells(lambda fine: " ".join(map(number, fine["residual_std"]))),
            f"{low:g} to {high:g} in naive",
        ],
        ["MSE after L2", *cells(lambda fine: number(fine["mse_before"]["mean"])), ""],
        ["MSE after the last of them", *cells(lambda fine: number(fine["mse_after"]["mean"])), ""],
        ["MSE that they take away", *cells(_taken_away), ""],
        [
            "how many always send the same code",
            *cells(lambda fine: f"{len(fine['constant_layers'])} of {len(fine['layers'])}"),
            "",
        ],
    ]


def _taken_away(fine: Evidence) -> str:
    before, taken = fine["mse_before"]["mean"], fine["mse_taken_away"]
    return f"{number(taken)}, {share(taken / before)} of it" if before else number(taken)


def _physical_rows(models: Evidence) -> list[list[str]]:
    naive, robust = (models[role]["errors"] for role in ("naive", "robust"))
    rows = [["errors from tokens alone", "naive", "robust", "guide: naive -> robust"]]
    for name, label in ERRORS.items():
        if naive[name]["mean"] is not None:
            expected = "{:g} -> {:g}".format(*targets.EXPECTED_ERRORS[name]) if name in targets.EXPECTED_ERRORS else ""
            rows.append([label, with_interval(naive[name]), with_interval(robust[name]), expected])
    return rows


def _verdict_lines(report: Evidence) -> list[str]:
    asked = {"mse": f"MSE < {targets.MSE_BELOW:g}", "improvement": f"improvement > {targets.IMPROVEMENT_ABOVE:.0%}"}
    ways = list(report["verdict"]["mse"])
    rows = [["", *(WAYS[way] for way in ways)]]
    rows += [[target, *(report["verdict"][name][way] for way in ways)] for name, target in asked.items()]
    return _aligned(rows)
