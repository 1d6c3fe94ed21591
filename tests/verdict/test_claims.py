"""The guide's claims beside the measurement: turn a number, and the status of its claim turns."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from made_rows import (
    LAYERS,
    MadeContrast,
    MadePolicy,
    MadeReplays,
    MadeUp,
    curve_rows,
    layer_rows,
    made_evidence,
    model_rows,
    passing_scores,
    rows,
    training_values,
    with_rows,
)

from workbook.common import targets
from workbook.common.intervals import Estimate
from workbook.evaluation.layers import Layers
from workbook.evaluation.score import ENCODER, TOKENS
from workbook.verdict.claims import Claim, guide_claims

SCORES = passing_scores()
FINE = (0.3, 0.2, 0.15, 0.005, 0.004)  # std of the residuals of 4 layers and of what is left, as the guide has it
NAIVE_MSE = 0.02  # of these scores


def layers(
    std: Sequence[float] = FINE, dead: Sequence[int] = (2, 3), count: int = LAYERS, run: MadeUp | None = None
) -> Layers:
    made = layer_rows({"naive": dead}, count, std=std)
    return Layers(made, SCORES if run is None else run.scores)


def evidence(*frames: pd.DataFrame, **parts: object) -> MadeUp:
    """Made-up evidence in which these rows differ."""
    run = made_evidence(scores=with_rows(SCORES, *frames) if frames else SCORES)
    vars(run).update({"layers": layers(run=run)} | parts)
    return run


def find(run: MadeUp, key: str, **details: object) -> Claim:
    """The first claim of that key with such details."""
    return next(claim for claim in guide_claims(run) if claim.key == key and details.items() <= claim.details.items())


def error(value: float, wide: bool, decoding: str = "tokens") -> MadeUp:
    return evidence(rows("layernorm", value, decoding=decoding, spread=1.8 * wide))


def gain(value: float, wide: bool, decoding: str = "tokens") -> MadeUp:
    return error((1 - value) * NAIVE_MSE, wide, decoding)


def group(metric: str, decoding: str = TOKENS) -> Callable[[float, bool], MadeUp]:
    def changed(value: float, wide: bool) -> MadeUp:
        frame = rows("layernorm", 1e-4, decoding=decoding)
        episodes = frame.episode.nunique()
        spread = np.linspace(1 - 0.9 * wide, 1 + 0.9 * wide, episodes)
        return evidence(frame.assign(**{metric: np.tile(value * spread, len(frame) // episodes)}))

    return changed


def coarse(value: float, wide: bool) -> MadeUp:
    return evidence(rows("layernorm_sent", value, "layers=3", spread=1.8 * wide))


def overhead(value: float, wide: bool) -> MadeUp:
    estimate = Estimate(value, value - 0.03 * wide, value + 0.03 * wide)
    return evidence(training=training_values(overhead=estimate))


def crossed(value: float, wide: bool) -> MadeUp:
    return evidence(rows("naive_by_layernorm", (1 - value) * NAIVE_MSE, spread=1.8 * wide))


# Claim, what of it differs, its evidence from a value, a value that holds and one that does not.
JUDGED = [
    ("mse", {}, error, 0.0119, 0.0121),
    ("mse_encoder", {}, lambda value, wide: error(value, wide, ENCODER), 0.0119, 0.0121),
    ("improvement", {}, gain, 0.301, 0.299),
    ("improvement_encoder", {}, lambda value, wide: gain(value, wide, ENCODER), 0.301, 0.299),
    ("group_error", {"metric": "position_mm"}, group("position_mm"), 1.19, 1.21),
    ("group_error", {"metric": "rotation_deg"}, group("rotation_deg"), 1.79, 1.81),
    ("group_error", {"metric": "gripper_abs"}, group("gripper_abs"), 0.059, 0.061),
    ("group_error_encoder", {"metric": "position_mm"}, group("position_mm", ENCODER), 1.19, 1.21),
    ("group_error_encoder", {"metric": "rotation_deg"}, group("rotation_deg", ENCODER), 1.79, 1.81),
    ("coarse_mse", {}, coarse, 0.0079, 0.0081),
    ("overhead", {}, overhead, 0.05, 0.051),
    ("option_b", {}, crossed, -0.049, -0.051),
]
Change = Callable[[float, bool], MadeUp]


@pytest.mark.parametrize(("key", "details", "change", "good", "bad"), JUDGED)
class TestStatus:
    def test_turns_with_the_number_and_no_other_does(
        self, key: str, details: dict[str, object], change: Change, good: float, bad: float
    ) -> None:
        first, second = (list(guide_claims(change(value, False))) for value in (good, bad))
        turned = [(a, b) for a, b in zip(first, second, strict=True) if a.status != b.status]
        assert [(a.key, a.status, b.status) for a, b in turned] == [(key, "met", "unmet")]
        assert details.items() <= turned[0][0].details.items()

    def test_is_open_where_the_interval_holds_both(
        self, key: str, details: dict[str, object], change: Change, good: float, bad: float
    ) -> None:
        claim = find(change((good + bad) / 2, True), key, **details)
        assert claim.status == "not shown"
        assert claim.interval is not None
        assert claim.interval[0] < claim.measured[0] < claim.interval[1]


class TestPlainFigures:
    def test_training_time_is_that_of_the_slowest_model(self) -> None:
        models = model_rows()
        slowest = models[models.codec == "layernorm"].index[-1]
        models.loc[slowest, "train_seconds"] = 2 * 3600.0
        claim = find(evidence(models=models), "training_time")
        assert (claim.claimed, claim.measured, claim.details) == ((3.0,), (2.0,), {"device": "cpu"})

    @pytest.mark.parametrize("key", ["training_time", "checkpoint_size", "mse_naive"])
    @pytest.mark.parametrize("factor", [0.001, 1.0, 1000.0])
    def test_what_other_data_and_machines_give_is_shown_and_not_compared(self, key: str, factor: float) -> None:
        models = model_rows()
        models = models.assign(bytes=50_000 * factor, train_seconds=3 * 3600 * factor)
        run = evidence(rows("naive", 0.0182 * factor, spread=1.0), models=models)
        claim = find(run, key)
        assert (claim.status, claim.knife_edge) == ("not comparable", False)
        assert claim.measured[0] == pytest.approx(claim.claimed[0] * factor)

    @pytest.mark.parametrize(
        ("layer", "value", "status"),
        [(0, 0.5, "met"), (0, 0.51, "unmet"), (2, 0.1, "met"), (2, 0.09, "unmet")],
    )
    def test_the_ranges_of_the_naive_residual(self, layer: int, value: float, status: str) -> None:
        std = list(FINE)
        std[layer] = value
        run = evidence(layers=layers(std))
        assert find(run, "residual_std", first=0, last=2).status == status
        assert find(run, "residual_std", first=3, last=7).status == "met"

    def test_what_the_last_layer_leaves_does_not_count(self) -> None:
        claim = find(evidence(layers=layers([*FINE[:-1], 9.0])), "residual_std", first=3)
        assert claim.measured == (0.005, 0.005)

    def test_later_layers_alone_cannot_be_measured(self) -> None:
        [claim] = [claim for claim in guide_claims(evidence()) if claim.status == "not measurable"]
        assert (claim.key, claim.measured, claim.interval) == ("fine_mse", (), None)


class TestCurve:
    def of(self, *curves: Sequence[float]) -> Claim:
        run = evidence()
        run.tables["training"] = pd.concat([curve_rows(*curves), curve_rows([9.0] * 100, codec="naive")])
        return find(run, "curve")

    def test_holds_where_every_seed_is_as_low(self) -> None:
        low, high = [targets.EXPECTED_CURVE[100]] * 100, [targets.EXPECTED_CURVE[100]] * 100
        assert self.of(low, low, high).status == "met"
        high[79] = 0.0101
        assert self.of(low, low, high).status == "unmet"

    def test_epochs_between_do_not_matter(self) -> None:
        curve = [targets.EXPECTED_CURVE[100] if epoch in targets.EXPECTED_CURVE else 9.0 for epoch in range(1, 101)]
        assert self.of(curve).status == "met"

    def test_shows_the_median_of_the_seeds(self) -> None:
        claim = self.of(*([value] * 100 for value in (0.001, 0.002, 0.009)))
        assert (claim.measured, claim.details) == ((0.002,) * 5, {"epochs": [10, 30, 50, 80, 100]})

    def test_of_fewer_epochs_only_those_are_told(self) -> None:
        claim = self.of([0.01] * 49)
        assert (claim.status, claim.measured, claim.details) == ("met", (0.01, 0.01), {"epochs": [10, 30]})
        assert len(claim.claimed) == 5

    def test_of_very_few_none(self) -> None:
        claim = self.of([0.01] * 9)
        assert (claim.status, claim.measured) == ("not run", ())


def replays(low: float, high: float, shortfalls: tuple[str, ...] = ()) -> MadeReplays:
    """The same gain in success among all episodes and among those that turn or pull something."""
    difference = Estimate((low + high) / 2, low, high)
    gains = {"all": MadeContrast(difference, 38), "articulated": MadeContrast(difference, 8)}
    return MadeReplays(gains, shortfalls)


class TestSuccess:
    def of(self, made: MadeReplays) -> list[Claim]:
        return [claim for claim in guide_claims(evidence(replays=made)) if claim.key == "success"]

    def test_without_a_replay_is_not_measured_and_the_policys_gain_stands_beside(self) -> None:
        policy = MadePolicy(gains={"fixed_scale_for_naive": Estimate(-0.15, -0.2, -0.1)})
        claim = find(evidence(policy=policy), "success")
        assert (claim.status, claim.measured, claim.claimed) == ("not run", (), (0.07, 0.10))
        assert claim.details == {"among": "fine", "codec": "layernorm", "policy_gain": -0.15}

    @pytest.mark.parametrize(
        ("low", "high", "status"), [(0.08, 0.3, "met"), (-0.1, 0.3, "not shown"), (-0.1, 0.05, "unmet")]
    )
    def test_is_judged_by_the_whole_interval_of_the_gain(self, low: float, high: float, status: str) -> None:
        claims = self.of(replays(low, high))
        assert [claim.status for claim in claims] == [status] * 6
        assert {claim.unit for claim in claims} == {"points"}

    def test_is_of_the_episodes_in_which_something_is_turned_or_pulled(self) -> None:
        made = replays(0.08, 0.3)
        gains = dict(made.gains) | {"articulated": MadeContrast(Estimate(0.2, -0.1, 0.5), 8)}
        claims = self.of(replace(made, gains=gains))
        assert [claim.status for claim in claims] == ["not shown"] * 3 + ["met"] * 3
        assert [claim.details["episodes"] for claim in claims] == [8] * 3 + [38] * 3
        assert [claim.details["codec"] for claim in claims] == ["layernorm", "layernorm_sent", "fixed_scale"] * 2

    def test_of_too_few_episodes_is_not_shown(self) -> None:
        assert {claim.status for claim in self.of(replays(0.08, 0.3, ("episodes",)))} == {"not shown"}

    def test_of_no_episodes_is_not_measured(self) -> None:
        made = MadeReplays(dict.fromkeys(("all", "articulated"), MadeContrast(Estimate(None), 0)))
        assert {(claim.status, claim.measured) for claim in self.of(made)} == {("not run", ())}


class TestWhatTheDataDoNotHave:
    @pytest.mark.parametrize("metric", ["rotation_deg", "gripper_abs", "position_mm"])
    def test_is_not_measured(self, metric: str) -> None:
        run = evidence(rows("layernorm", 1e-4, **{metric: np.nan}))
        claim = find(run, "group_error", metric=metric)
        assert (claim.status, claim.measured) == ("not run", ())
        assert len(guide_claims(run)) == len(guide_claims(evidence()))

    @pytest.mark.parametrize(("value", "status"), [(0.045, "met"), (0.0451, "unmet")])
    def test_the_largest_error_has_no_interval_and_still_a_status(self, value: float, status: str) -> None:
        claim = find(evidence(rows("layernorm", 1e-4, max_abs=value)), "group_error", metric="max_abs")
        assert (claim.status, claim.measured, claim.interval) == (status, (value,), None)

    @pytest.mark.parametrize("count", [1, 2, 3, 4])
    def test_layers_that_there_are_not(self, count: int) -> None:
        live = min(count, 2)
        policy = MadePolicy((0.6, 0.4)[:live], (0.5, 0.3)[:live])
        run = evidence(policy=policy, layers=layers(FINE[: count + 1], range(2, count), count))
        assert ("coarse_mse" in {claim.key for claim in guide_claims(run)}) == (count >= 3)
        assert find(run, "residual_std", first=3).status == ("met" if count > 3 else "not run")
        assert find(run, "residual_std", first=0).status == "met"
        assert find(run, "token_accuracy").details["layers"] == count


@pytest.mark.parametrize(
    ("layout", "not_measured"),
    [("libero", []), ("position:3 opening:1", ["gripper_abs", "max_abs"]), ("joint:6 gripper:1", ["max_abs"])],
)
def test_the_guides_errors_say_nothing_of_units_of_their_own(layout: str, not_measured: list[str]) -> None:
    run = evidence(comparison={"test_episodes": 10, "test_steps": 5000, "layout": layout})
    claims = [claim for claim in guide_claims(run) if claim.key == "group_error"]
    assert [claim.details["metric"] for claim in claims if claim.status == "not run"] == not_measured


class TestTokenAccuracy:
    def of(self, accuracies: tuple[float, ...], majorities: tuple[float, ...] = (0.5, 0.3)) -> Claim:
        return find(evidence(policy=MadePolicy(accuracies, majorities)), "token_accuracy")

    def test_layers_that_always_say_the_same_are_always_right_and_it_says_nothing(self) -> None:
        claim = self.of((0.6, 0.4))
        assert claim.measured == pytest.approx(((0.6 + 0.4 + 2) / 4,))
        assert claim.status == "not comparable"
        known = {"majority": (0.5 + 0.3 + 2) / 4, "live": 0.5, "live_majority": 0.4}
        assert claim.details == {"counted": 4, "layers": 4, "constant": 2} | {
            name: pytest.approx(value) for name, value in known.items()
        }

    @pytest.mark.parametrize("accuracy", [0.1, 0.999])
    def test_however_high_it_is(self, accuracy: float) -> None:
        assert self.of((accuracy, accuracy)).status == "not comparable"

    def test_constant_layers_that_the_policy_predicts_count_once(self) -> None:
        run = evidence(layers=layers(dead=(1, 2, 3)))
        assert find(run, "token_accuracy").details["counted"] == 4

    @pytest.mark.parametrize(("first", "status"), [(1.0, "met"), (0.99, "unmet")])  # (first + 0.818) / 2
    def test_of_live_layers_alone_it_turns_with_the_number(self, first: float, status: str) -> None:
        run = evidence(policy=MadePolicy((first, 0.818)), layers=layers(FINE[:3], dead=(), count=2))
        claim = find(run, "token_accuracy")
        assert (claim.status, claim.details["constant"]) == (status, 0)


def decoded(relative_mse: float, **metrics: float) -> MadeUp:
    """LayerNorm's tokens at a multiple of the mean action's squared error."""
    return evidence(rows("layernorm", 9.0, relative_mse=relative_mse, **metrics))


class TestWhatCannotBeRead:
    """A decoder that cannot read its tokens gives actions worse than the mean action; clipping them can look well."""

    def test_clipped_garbage_does_not_hold(self) -> None:
        claim = find(decoded(10.0, gripper_abs=0.0), "group_error", metric="gripper_abs")
        assert (claim.status, claim.measured) == ("not comparable", (0.0,))
        assert claim.details["garbage"] == pytest.approx(10.0)

    def test_nor_does_the_largest_error_which_has_no_interval(self) -> None:
        assert find(decoded(10.0, max_abs=0.01), "group_error", metric="max_abs").status == "not comparable"

    def test_what_is_too_large_stays_unmet(self) -> None:
        claim = find(decoded(10.0, gripper_abs=1.0), "group_error", metric="gripper_abs")
        assert (claim.status, claim.details["garbage"]) == ("unmet", pytest.approx(10.0))

    @pytest.mark.parametrize(("relative_mse", "status"), [(0.999, "met"), (1.0, "not comparable")])
    def test_turns_at_the_error_of_the_mean_action(self, relative_mse: float, status: str) -> None:
        assert find(decoded(relative_mse, gripper_abs=0.0), "group_error", metric="gripper_abs").status == status

    def test_what_the_encoder_knows_is_judged_by_itself(self) -> None:
        claim = find(decoded(10.0, gripper_abs=0.0), "group_error_encoder", metric="gripper_abs")
        assert (claim.status, claim.details["garbage"], claim.measured) == ("unmet", None, pytest.approx((0.5,)))


class TestKnifeEdge:
    @pytest.mark.parametrize(
        ("mean", "high", "edge"),
        [(0.0030, 0.0079, False), (0.0030, 0.0112, True), (0.0030, 0.0128, True), (0.0030, 0.0131, False)],
    )
    def test_an_interval_that_ends_within_a_tenth_of_the_way_to_the_threshold(
        self, mean: float, high: float, edge: bool
    ) -> None:
        """The way from 0.003 to the target of 0.012 is 0.009."""
        assert targets.LOW_MSE.on_knife_edge(Estimate(mean, 0.001, high).as_json()) == edge

    def test_is_told_of_the_claim(self) -> None:
        near, far = (evidence(training=training_values(overhead=Estimate(0.02, 0.01, end))) for end in (0.0499, 0.04))
        assert [find(run, "overhead").knife_edge for run in (near, far)] == [True, False]
        assert find(near, "overhead").status == "met"

    def test_without_an_interval_there_is_none(self) -> None:
        assert not targets.LOW_MSE.on_knife_edge(Estimate(0.0119).as_json())
        assert not targets.LOW_MSE.on_knife_edge(Estimate(None).as_json())


class TestOptionB:
    def test_has_naives_own_error_beside_it(self) -> None:
        claim = find(evidence(), "option_b")
        assert claim.measured == pytest.approx((6.0,))
        assert claim.details == {"naive": pytest.approx(NAIVE_MSE)}


def test_claims_go_into_json() -> None:
    for run in (evidence(), evidence(replays=replays(0.08, 0.3))):
        claims = [claim.as_json() for claim in guide_claims(run)]
        written = json.loads(json.dumps(claims, allow_nan=False))
        assert [claim["key"] for claim in written] == [claim["key"] for claim in claims]
        assert all(isinstance(figure, float) for claim in written for figure in claim["measured"])
