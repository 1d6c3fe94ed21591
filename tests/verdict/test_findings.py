"""What is found follows from the numbers: what speaks against, and discrepancies; and each finding has its sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from made_loops import NAIVE_SOFT, REGRESSION, SCALE_SOFT, first, made
from made_rows import LAYERS, MadeUp, layer_rows, made_evidence, model_rows, passing_scores
from traces import failed, made_replays, trace

from workbook.common.intervals import Estimate
from workbook.evaluation.evidence import Evidence
from workbook.evaluation.layers import Layers
from workbook.evaluation.loop.evidence import Loop
from workbook.evaluation.score import Scores
from workbook.report.text.findings import against_text, discrepancies_text
from workbook.verdict.findings import Finding, against, discrepancies, reconciliation

PLAIN = made_evidence()


def values(found: Sequence[Finding], key: str) -> dict[str, Any] | None:
    """Of the only finding of a kind; None where there is none."""
    matching = [finding.values for finding in found if finding.key == key]
    assert len(matching) <= 1
    return matching[0] if matching else None


def with_dead(dead: Mapping[str, Sequence[int]]) -> Evidence:
    scores = passing_scores()
    return made_evidence(scores=scores, layers=Layers(layer_rows(dead), scores))


def replayed(auc: float, within: float | None) -> MadeUp:
    """With replays of which an MSE tells the failed ones so well."""
    mse = SimpleNamespace(auc=Estimate(auc), within=Estimate(within))
    return made_evidence(replays=SimpleNamespace(played=True, predictors=SimpleNamespace(each={"mse": mse})))


class TestAgainst:
    def test_a_rounding_that_is_better(self) -> None:
        assert values(against(PLAIN), "cheaper_rounding") is None
        scores = passing_scores(fixed_scale=0.028)
        found = values(against(made_evidence(scores=scores)), "cheaper_rounding")
        assert found == {
            "codec": "fixed_scale", "bins": 256, "mse": pytest.approx(0.025), "codec_mse": pytest.approx(0.028),
            "bits": 448.0, "codec_bits": 2875.0,
        }  # fmt: skip

    def test_a_target_that_naive_meets_too(self) -> None:
        assert values(against(PLAIN), "naive_meets_the_target") is None
        found = values(against(made_evidence(scores=passing_scores(naive=0.004))), "naive_meets_the_target")
        assert found == {"target": 0.012, "mse": pytest.approx(0.004)}

    def test_statistics_that_would_have_to_be_sent(self) -> None:
        found = values(against(PLAIN), "needs_statistics")
        assert found is not None
        assert (found["side_bits"], found["code_bits"]) == (2048.0, 2875.0)
        exact = made_evidence(models=model_rows().assign(decode_error=0.0))
        assert values(against(exact), "needs_statistics") is None

    def test_dead_layers_only_if_there_are_some(self) -> None:
        assert values(against(PLAIN), "dead_layers") is None
        found = values(against(with_dead({"naive": [1, 2, 3]})), "dead_layers")
        assert found == {"dead": 3, "layers": LAYERS, "bits": 2875.0, "entropy_bits": 2875.0}

    def test_layers_to_spare_only_if_there_are_some(self) -> None:
        assert values(against(PLAIN), "layers_to_spare") is None
        frame = passing_scores().rows
        first = (frame.codec == "fixed_scale") & (frame.setting == "layers=1")
        frame.loc[first, "mse"] = 1.04e-4
        found = values(against(made_evidence(scores=Scores(frame))), "layers_to_spare")
        assert found == {"codec": "fixed_scale", "enough": 1, "layers": LAYERS, "bits": 718.75}

    def test_zeros_that_are_not_kept(self) -> None:
        frame = passing_scores().rows
        frame.loc[frame.codec == "fixed_scale", "zeros_kept"] = 0.123
        found = values(against(made_evidence(scores=Scores(frame))), "zeros")
        assert found == {"codec": "fixed_scale", "kept": pytest.approx(0.123), "naive_kept": 0.5, "turns": True}
        without = made_evidence(scores=Scores(frame.assign(zeros_kept=np.nan)))
        assert values(against(without), "zeros") is None

    def test_says_what_replays_say_of_mse_and_else_that_there_were_none(self) -> None:
        blind = {"drifts": True, "pairs": None, "within_codec": None}
        assert values(against(PLAIN), "blind_mse") == blind
        played = {"drifts": True, "pairs": 0.82, "within_codec": 0.7}
        assert values(against(replayed(0.82, 0.7)), "blind_mse") == played
        still = made_evidence(scores=Scores(passing_scores().rows.assign(drift_mm=np.nan)))
        assert values(against(still), "blind_mse") == blind | {"drifts": False}


class TestDiscrepancies:
    def ranges(self, std: Sequence[float]) -> list[dict[str, Any]]:
        """Of a naive residual that has these values; the last is what the last layer leaves."""
        scores, rows = passing_scores(), layer_rows(layers=len(std) - 1)
        rows.loc[rows.codec == "naive", "residual_std"] = np.tile(std, rows.seed.nunique())
        # Prefixes are of the scores' layers, and nothing here is said of them.
        found = discrepancies(made_evidence(scores=scores, layers=Fewer(rows, scores)))
        return [finding.values for finding in found if finding.key == "residual_range"]

    @pytest.mark.parametrize(
        ("std", "agreements"),
        [
            ([0.4, 0.3, 0.2, 0.005, 0.004, 0.003], ["all", "all"]),
            ([0.9, 0.8, 0.7, 0.1, 0.09, 0.08], ["none", "none"]),
            ([0.4, 0.3, 0.05, 0.005, 0.004], ["some", "all"]),
            ([0.4, 0.3, 0.2, 0.005, 9.0], ["all", "all"]),  # what the last layer leaves enters none
            ([0.4, 0.3, 0.2, 0.005], ["all", None]),  # the model has no such layers
        ],
    )
    def test_the_guides_ranges(self, std: Sequence[float], agreements: list[str | None]) -> None:
        assert [found["agreement"] for found in self.ranges(std)] == agreements

    def test_ranges_that_were_measured(self) -> None:
        assert self.ranges([0.9, 0.8, 0.7, 0.1])[0]["measured"] == pytest.approx([0.7, 0.9])

    def test_the_stop_of_naive_only_if_it_stops(self) -> None:
        assert values(discrepancies(PLAIN), "naive_stops") is None
        found = discrepancies(with_dead({"naive": [1, 2, 3]}))
        assert values(found, "naive_stops") == {"dead": [1, 2, 3], "layers": LAYERS, "std": pytest.approx(0.1)}
        assert values(found, "majority") == {"naive": pytest.approx(0.825), "fixed": pytest.approx(0.3)}

    def test_the_guides_mse_stands_beside_the_measured_one(self) -> None:
        frame = passing_scores().rows
        frame.loc[(frame.codec == "layernorm") & (frame.decoding == "tokens"), "mse"] = 0.77
        frame.loc[(frame.codec == "layernorm") & (frame.decoding == "encoder"), "mse"] = 0.002
        found = values(discrepancies(made_evidence(scores=Scores(frame))), "errors")
        assert found is not None
        measured = [found[key] for key in ("naive", "encoder", "gain", "tokens")]
        assert measured == pytest.approx([0.02, 0.002, 0.9, 0.77])

    def test_layers_that_are_alive_and_needed(self) -> None:
        found = discrepancies(with_dead({"fixed_scale": [3]}))
        alive = {f.values["codec"]: f.values["live"] for f in found if f.key == "layers_alive"}
        assert alive == {"layernorm": 4, "fixed_scale": 3}


class Fewer(Layers):
    """Layers of which nothing is asked but what enters them."""

    def enough(self, codec: str) -> int:
        return self.count


class TestWords:
    """Each finding has its sentence, with the figures that it rests on."""

    def test_against(self) -> None:
        scores = passing_scores(naive=0.011, fixed_scale=0.028)
        run = made_evidence(scores=scores, layers=Layers(layer_rows({"naive": [1, 2, 3]}), scores))
        found = against_text(run)
        assert len(found) == len(against(run))
        for figure in ("2,048 bits", "below 0.012", "256 equal bins", "3 of 4 naive layers", "50.0%", "not measured"):
            assert [sentence for sentence in found if figure in sentence], figure

    def test_of_replays(self) -> None:
        assert against_text(replayed(0.82, 0.7))[-1].endswith("in 82% of pairs, within a codec in 70%.")
        assert against_text(replayed(0.82, None))[-1].endswith("in 82% of pairs.")

    @pytest.mark.parametrize(("dead", "span"), [([1, 2, 3], "(L1-L3)"), ([1, 3], "(L1, L3)"), ([2], "(L2)")])
    def test_discrepancies(self, dead: list[int], span: str) -> None:
        run = with_dead({"naive": dead})
        found = discrepancies_text(run)
        assert len(found) == len(discrepancies(run))
        for figure in ("0.0182", f"{len(dead)} of {LAYERS} layers {span}", "30.0%", "L3-L7", "within 5%"):
            assert [sentence for sentence in found if figure in sentence], figure


class TestReplayAndLoop:
    """24 episodes are replayed, of which naive tokens lose the first ones; policies play 84."""

    @staticmethod
    def said(naive_lost: int, scale: int, naive: int) -> dict[str, Any]:
        replays = made_replays(
            ["task"] * 24,
            naive=[*[failed()] * naive_lost, *[trace()] * (24 - naive_lost)],
            layernorm=[trace(), *[failed()] * 23],
        )
        loop = made({SCALE_SOFT: first(scale), NAIVE_SOFT: first(naive), REGRESSION: first(80)})
        found = reconciliation(made_evidence(replays=replays, loop=loop))
        assert found is not None
        return found.values

    @pytest.mark.parametrize(
        ("naive_lost", "scale", "naive", "in_replay", "in_loop"),
        [
            (12, 70, 70, "more", "none"),
            (12, 70, 30, "more", "more"),
            (12, 30, 70, "more", "less"),
            (0, 70, 70, "none", "none"),
        ],
    )
    def test_what_each_shows(self, naive_lost: int, scale: int, naive: int, in_replay: str, in_loop: str) -> None:
        found = self.said(naive_lost, scale, naive)
        assert (found["in_replay"], found["in_loop"]) == (in_replay, in_loop)
        assert found["replayed"] == {"fixed_scale": [24, 24], "naive": [24 - naive_lost, 24]}
        assert found["acted"] == {"fixed_scale": [scale, 84], "naive": [naive, 84]}
        assert (found["direct"], found["through"]) == ([80, 84], None)

    def test_a_codec_is_destroyed_only_where_that_is_shown(self) -> None:
        """1 of 24 ends below a half, 12 of 24 does not."""
        assert [(one["codec"], one["succeeded"]) for one in self.said(12, 70, 70)["destroyed"]] == [("layernorm", 1)]

    def test_without_one_of_both_there_is_nothing_to_reconcile(self) -> None:
        replays = made_replays(["task"] * 24)
        assert reconciliation(made_evidence(replays=replays, loop=Loop({"not_run": "died"}))) is None
        assert reconciliation(made_evidence(loop=made({}))) is None
