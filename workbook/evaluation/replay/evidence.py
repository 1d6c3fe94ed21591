"""What the replays say: success of every codec beside exact replay, how far the hand strays, what fails and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbook.common import targets
from workbook.common.array import Array
from workbook.common.intervals import estimate_gain, estimate_proportion, mcnemar_p
from workbook.data.episodes import Episode
from workbook.evaluation.replay.codecs import EQUAL_RATES, Candidate
from workbook.evaluation.replay.failures import REASONS, explain, hand_drift
from workbook.evaluation.replay.predictors import PREDICTORS, held_against_success
from workbook.simulation.playback import Trace, turned_apart

Outcome = Trace | str
PROGRESS = np.linspace(0, 1, 11)  # of an episode, at which drift is told
SHOWN = ("naive", "scale_few", "bins16", "klt_rfsq_80", "fast_80")
EPISODES_SHOWN = 3
# How far hand or object, whichever is farther, are in the end between replays of the sample under kernels for AVX-512
# and those for AVX2 or AVX: median and largest of 190 episodes, all of which succeed. tests/kernels.py says more.
END_BETWEEN_KERNELS_MM = (0.2, 13)
# Success of the second minus that of the first.
CONTRASTS = {
    "layernorm": ("naive", "layernorm"),
    "layernorm_sent": ("naive", "layernorm_sent"),
    "scale": ("naive", "scale"),
    "scale_few": ("naive", "scale_few"),
    **{f"klt_rfsq_{rate}": (f"fast_{rate}", f"klt_rfsq_{rate}") for rate in EQUAL_RATES},
    **{f"klt_rfsq_fixed_{rate}": (f"fast_{rate}", f"klt_rfsq_fixed_{rate}") for rate in EQUAL_RATES},
}


@dataclass(frozen=True, eq=False)
class PlayedEpisode:
    """A test episode, its exact replay, and the hash of the state in which the recording ended ("" if not said)."""

    episode: Episode
    exact: Outcome
    final_state_sha256: str

    @property
    def counts(self) -> bool:
        return isinstance(self.exact, Trace) and self.exact.succeeded

    @property
    def why_not(self) -> str:
        return (
            self.exact if isinstance(self.exact, str) else "its own actions, played exactly, do not reach the goal here"
        )


@dataclass(frozen=True, eq=False)
class Played:
    """A codec's replays.

    outcomes: [seed][episode]; bits, entropy, and errors, metric -> (E,), NaN without one, are of the chosen seed.
    """

    candidate: Candidate
    bits: float
    entropy: float
    outcomes: Sequence[Sequence[Outcome]]
    errors: dict[str, Array]

    @property
    def chosen(self) -> Sequence[Outcome]:
        return self.outcomes[self.candidate.chosen]


def evidence(episodes: Sequence[PlayedEpisode], played: Sequence[Played]) -> dict[str, Any]:
    """Everything in the replay stage that is computed from outcomes. Episodes that fail exactly count nowhere else."""
    counting = [i for i, episode in enumerate(episodes) if episode.counts]
    exact = [episodes[i].exact for i in counting]
    traces = [trace for trace in exact if isinstance(trace, Trace)]
    articulated = np.array([trace.objects.shape[1] == 0 for trace in traces], dtype=bool)
    tasks = [episodes[i].episode.task for i in counting]
    asked = [episodes[i].episode for i in counting]
    of_codecs = {one.candidate.key: _of_codec(one, counting, traces, asked, articulated) for one in played}
    return {
        "episodes": len(counting),
        "tasks": dict(Counter(tasks)),
        "articulated_tasks": sorted({task for task, part in zip(tasks, articulated, strict=True) if part}),
        "exact": _of_exact(episodes),
        "shortfalls": _shortfalls(len(counting), len(set(tasks))),
        "codecs": of_codecs,
        "contrasts": _contrasts(of_codecs, articulated),
        "predictors": _predictors(played, counting),
        "paths": _paths(played, counting, traces, tasks),
    }


def _of_exact(episodes: Sequence[PlayedEpisode]) -> dict[str, Any]:
    traces = [(e.exact, e.final_state_sha256) for e in episodes if isinstance(e.exact, Trace)]
    said = [(str(trace.final_state_sha256), recorded) for trace, recorded in traces if recorded]
    return {
        "played": len(traces),
        "succeeded": sum(trace.succeeded for trace, _ in traces),
        "final_state_recorded": len(said),
        "final_state_equal": sum(found == recorded for found, recorded in said),
        "left_out": [{"episode": e.episode.place, "why": e.why_not} for e in episodes if not e.counts],
    }


def _shortfalls(episodes: int, tasks: int) -> list[str]:
    wanted = (
        (episodes, targets.EVIDENCE_REPLAY_EPISODES, "episodes that succeed when replayed exactly"),
        (tasks, targets.EVIDENCE_REPLAY_TASKS, "tasks"),
    )
    return [f"{have} of at least {least} {name}" for have, least, name in wanted if have < least]


def _of_codec(
    played: Played,
    counting: Sequence[int],
    exact: Sequence[Trace],
    episodes: Sequence[Episode],
    articulated: NDArray[np.bool_],
) -> dict[str, Any]:
    outcomes = [[seed[i] for i in counting] for seed in played.outcomes]
    success = [_success(seed) for seed in outcomes]
    place = played.candidate.chosen
    known = np.array([each is not None for each in success[place]], dtype=bool)
    won = np.array([each is True for each in success[place]], dtype=bool)
    pairs = [(e, d) for e, d in zip(exact, outcomes[place], strict=True) if isinstance(d, Trace)]
    failed = _failures(episodes, exact, outcomes[place])
    counts = Counter(failure["reason"] for failure in failed)

    def won_among(among: NDArray[np.bool_]) -> list[int]:
        return [int(won[known & among].sum()), int((known & among).sum())]

    return {
        "title": played.candidate.title,
        "family": played.candidate.family,
        "rate": played.candidate.rate,
        "bits": played.bits,
        "entropy": played.entropy,
        "played": int(known.sum()),
        "succeeded": int(won.sum()),
        "success": estimate_proportion(int(won.sum()), int(known.sum())).as_json(),
        "chosen": place,
        "per_episode": success,
        "per_seed": [[seed.count(True), len(seed) - seed.count(None)] for seed in success],
        "by_task": {
            task: won_among(np.array([episode.task == task for episode in episodes], dtype=bool))
            for task in dict.fromkeys(episode.task for episode in episodes)
        },
        "articulated": won_among(articulated),
        "mcnemar_p_against_exact": mcnemar_p(np.ones(int(known.sum()), dtype=bool), won[known]),
        "drift": _drift(pairs),
        "failures": {reason: counts[reason] for reason in REASONS if counts[reason]},
        "failed": failed,
        "not_played": sorted({outcome for seed in outcomes for outcome in seed if isinstance(outcome, str)}),
        "errors": {name: _mean(played.errors[name][list(counting)]) for name in PREDICTORS},
    }


def _failures(episodes: Sequence[Episode], exact: Sequence[Trace], outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Which episodes failed, where and why; 'part' is how much of the episode had been played by then."""
    found = []
    for episode, whole, outcome in zip(episodes, exact, outcomes, strict=True):
        if isinstance(outcome, Trace) and not outcome.succeeded:
            failure = explain(whole, outcome)
            part = min(failure.step / len(whole.goal), 1.0)
            found.append({"task": episode.task, "episode": episode.place, "part": part, **asdict(failure)})
    return found


def _success(outcomes: Sequence[Outcome]) -> list[bool | None]:
    return [None if isinstance(outcome, str) else outcome.succeeded for outcome in outcomes]


def _is_known(success: bool | None) -> bool:
    return success is not None


def _mean(values: Array) -> float | None:
    return float(np.nanmean(values)) if np.isfinite(values).any() else None


def _drift(pairs: Sequence[tuple[Trace, Trace]]) -> dict[str, Any]:
    """How far the hand is from where it was in the exact replay, as episodes go on: medians and 90th percentiles."""
    if not pairs:
        return {"progress": [], "position_mm": [], "position_mm_p90": [], "rotation_deg": [], "rotation_deg_p90": []}
    moved = np.array([_along(1000 * hand_drift(exact, decoded)) for exact, decoded in pairs])
    turned = np.array([_along(_turn_drift(exact, decoded)) for exact, decoded in pairs])
    return {
        "progress": PROGRESS.tolist(),
        "position_mm": np.median(moved, axis=0).tolist(),
        "position_mm_p90": np.quantile(moved, 0.9, axis=0).tolist(),
        "rotation_deg": np.median(turned, axis=0).tolist(),
        "rotation_deg_p90": np.quantile(turned, 0.9, axis=0).tolist(),
    }


def _turn_drift(exact: Trace, decoded: Trace) -> Array:
    steps = min(len(exact.turn), len(decoded.turn))
    return turned_apart(exact.turn[:steps], decoded.turn[:steps])


def _along(values: Array) -> Array:
    return np.interp(PROGRESS * (len(values) - 1), np.arange(len(values)), values)


def _contrasts(codecs: dict[str, Any], articulated: NDArray[np.bool_]) -> dict[str, Any]:
    return {
        key: {"all": _contrast(codecs[first], codecs[second]),
              "articulated": _contrast(codecs[first], codecs[second], articulated)}
        for key, (first, second) in CONTRASTS.items()
    }  # fmt: skip


def _contrast(first: dict[str, Any], second: dict[str, Any], among: NDArray[np.bool_] | None = None) -> dict[str, Any]:
    """Difference in success over the episodes that all of both were played on, of all seeds and of the chosen ones."""
    one, other = (np.array(entry["per_episode"], dtype=np.float64) for entry in (first, second))  # None becomes NaN
    kept = np.isfinite(one).all(axis=0) & np.isfinite(other).all(axis=0) & (True if among is None else among)
    one, other = one[:, kept], other[:, kept]
    chosen = one[first["chosen"]] > 0, other[second["chosen"]] > 0
    return {
        "difference": estimate_gain(one, other).as_json(),
        "episodes": int(kept.sum()),
        "only_first": int((chosen[0] & ~chosen[1]).sum()),
        "only_second": int((chosen[1] & ~chosen[0]).sum()),
        "mcnemar_p": mcnemar_p(*chosen),
    }


def _predictors(played: Sequence[Played], counting: Sequence[int]) -> dict[str, Any]:
    """Over every codec whose tokens decode; those of LayerNorm alone are no actions, and any error tells them."""
    used = [one for one in played if one.candidate.key != "layernorm"]
    ended = [_success([one.chosen[i] for i in counting]) for one in used]
    success, ran = (np.array([list(map(test, codec)) for codec in ended]) for test in (bool, _is_known))
    errors = {
        name: np.where(ran, np.array([one.errors[name][list(counting)] for one in used]), np.nan) for name in PREDICTORS
    }
    return {"codecs": len(used), **held_against_success(errors, success)} if counting else {}


def _paths(
    played: Sequence[Played], counting: Sequence[int], exact: Sequence[Trace], tasks: Sequence[str]
) -> list[dict[str, Any]]:
    """Paths of the hand seen from above, in mm: of each task at most one episode, those that most codecs fail."""
    shown = {one.candidate.key: one for one in played if one.candidate.key in SHOWN}
    failed = [sum(_success(one.chosen)[i] is False for one in shown.values()) for i in counting]
    best = {task: max((n for n, t in enumerate(tasks) if t == task), key=lambda n: failed[n]) for task in set(tasks)}
    chosen = sorted(best.values(), key=lambda n: (-failed[n], tasks[n]))[:EPISODES_SHOWN]
    return [
        {
            "task": tasks[n],
            "exact": _seen_from_above(exact[n]),
            "decoded": {
                key: {"path": _seen_from_above(outcome), "succeeded": outcome.succeeded}
                for key in SHOWN
                if key in shown and isinstance(outcome := shown[key].chosen[counting[n]], Trace)
            },
        }
        for n in chosen
    ]


def _seen_from_above(trace: Trace) -> list[list[float]]:
    return np.round(1000 * trace.hand[:, :2], 1).tolist()
