"""Criteria and words follow from the rows: flip one number, and the word flips."""

from __future__ import annotations

import json
from collections.abc import Callable

import pandas as pd
import pytest
from made_rows import MadeUp, made_evidence, model_rows, passing_scores, rows, training_values, with_rows

from workbook.common import targets
from workbook.common.intervals import Estimate
from workbook.evaluation.score import ENCODER, Scores
from workbook.verdict.criteria import JUDGED, Criterion, cheaper_rounding, evaluate, shortfalls, word_of

GUIDES, DEPLOYABLE = JUDGED
SCORES = passing_scores()
NAIVE_MSE = 0.02  # of these


def decoding_models() -> pd.DataFrame:
    return model_rows().assign(decode_error=0.0)


def passing(**parts: object) -> MadeUp:
    """Every criterion is met, of both codecs."""
    return made_evidence(**{"scores": SCORES, "models": decoding_models()} | parts)


def with_error(codec: str, mse: float, decoding: str = "tokens", spread: float = 0.0) -> MadeUp:
    return passing(scores=with_rows(SCORES, rows(codec, mse, decoding=decoding, spread=spread)))


def with_gain(codec: str, gain: float, decoding: str = "tokens") -> MadeUp:
    return with_error(codec, (1 - gain) * NAIVE_MSE, decoding)


def with_overhead(codec: str, value: float) -> MadeUp:
    return passing(training=training_values(overhead=Estimate(value, value, value, (value,) * 60)))


def with_models(codec: str, column: str, value: object) -> MadeUp:
    """One model of the codec differs, that of the last seed."""
    models = decoding_models()
    models.loc[models[models.codec == codec].index[-1], column] = value
    return passing(models=models)


def left_open(codec: str) -> MadeUp:
    """The gain is 35 %, and its interval reaches below 30 %."""
    wide = rows(codec, 0.65 * 0.01, spread=1.8)
    return passing(scores=with_rows(SCORES, rows("naive", 0.01), wide))


def first_episode(scores: Scores) -> Scores:
    return Scores(scores.rows.groupby(["codec", "setting", "decoding", "seed"], as_index=False).head(1))


def find(run: MadeUp, codec: str, key: str) -> Criterion:
    return next(criterion for criterion in evaluate(run) if (criterion.codec, criterion.key) == (codec, key))


def word(run: MadeUp, codec: str) -> str:
    return word_of(evaluate(run), codec, shortfalls(run))


def other(codec: str) -> str:
    return DEPLOYABLE if codec == GUIDES else GUIDES


class TestCriteria:
    def test_thresholds_are_the_guides(self) -> None:
        assert (targets.MSE_BELOW, targets.IMPROVEMENT_ABOVE, targets.OVERHEAD_UP_TO) == (0.012, 0.30, 0.05)
        for codec in JUDGED:
            by_key = {
                criterion.key: criterion.threshold for criterion in evaluate(passing()) if criterion.codec == codec
            }
            for decoding in ("tokens", "encoder"):
                assert by_key[f"mse_{decoding}"].high == 0.012
                assert not by_key[f"mse_{decoding}"].meets(0.012)
                assert by_key[f"improvement_{decoding}"].low == 0.30
                assert not by_key[f"improvement_{decoding}"].meets(0.30)
            assert by_key["overhead"].meets(0.05)
            assert by_key["decodes"].meets(0.0)

    @pytest.mark.parametrize(
        ("key", "change", "good", "bad"),
        [
            ("mse_tokens", with_error, 0.0119, 0.0121),
            ("mse_encoder", lambda codec, value: with_error(codec, value, ENCODER), 0.0119, 0.0121),
            ("improvement_tokens", with_gain, 0.301, 0.299),
            ("improvement_encoder", lambda codec, value: with_gain(codec, value, ENCODER), 0.301, 0.299),
            ("overhead", with_overhead, 0.05, 0.051),
        ],
    )
    @pytest.mark.parametrize("codec", JUDGED)
    def test_the_status_turns_at_the_threshold(
        self, codec: str, key: str, change: Callable[[str, float], MadeUp], good: float, bad: float
    ) -> None:
        assert find(change(codec, good), codec, key).status == "met"
        assert find(change(codec, bad), codec, key).status == "unmet"

    def test_say_what_was_measured(self) -> None:
        run = with_error(DEPLOYABLE, 0.005, spread=1.0)
        criterion, estimate = find(run, DEPLOYABLE, "mse_tokens"), run.scores.estimate("mse", DEPLOYABLE)
        assert criterion.measured == pytest.approx(0.005)
        assert criterion.interval == (estimate.low, estimate.high)
        assert criterion.interval is not None
        assert criterion.interval[0] < 0.0048 < 0.0052 < criterion.interval[1]
        assert (criterion.n, criterion.of) == (28, "episodes")
        overhead = find(run, DEPLOYABLE, "overhead")
        assert (overhead.n, overhead.of, overhead.measured, overhead.interval) == (60, "rounds", 0.02, (0.01, 0.03))

    def test_overhead_is_that_of_the_codecs_own_conditioning(self) -> None:
        training = training_values()
        training["conditionings"]["scale"]["overhead"] = Estimate(0.5, 0.4, 0.6).as_json()
        run = passing(training=training)
        assert [find(run, codec, "overhead").status for codec in JUDGED] == ["met", "unmet"]

    def test_the_smallest_decode_error_of_one_seed_is_one_too_many(self) -> None:
        criterion = find(with_models(DEPLOYABLE, "decode_error", 1e-7), DEPLOYABLE, "decodes")
        assert (criterion.status, criterion.measured, criterion.n, criterion.of) == ("unmet", 1e-7, 5, "seeds")

    def test_one_checkpoint_that_differs_is_one_too_many(self) -> None:
        criterion = find(with_models(DEPLOYABLE, "loaded_identical", False), DEPLOYABLE, "checkpoints")
        assert (criterion.status, criterion.measured, criterion.n) == ("unmet", 4, 5)

    def test_without_an_interval_nothing_is_shown(self) -> None:
        run = passing(scores=first_episode(SCORES))
        criterion = find(run, DEPLOYABLE, "mse_tokens")
        assert (criterion.status, criterion.interval) == ("not shown", None)

    def test_a_naive_without_error_cannot_be_improved_on(self) -> None:
        criterion = find(passing(scores=passing_scores(naive=0.0)), DEPLOYABLE, "improvement_tokens")
        assert (criterion.status, criterion.measured, criterion.interval) == ("not run", None, None)

    def test_encoder_statistics_and_overhead_do_not_decide(self) -> None:
        required = {criterion.key for criterion in evaluate(passing()) if criterion.required}
        assert required == {"decodes", "mse_tokens", "improvement_tokens", "checkpoints"}

    def test_go_into_json(self) -> None:
        written = [criterion.as_json() for criterion in evaluate(passing())]
        assert len(written) == 14
        read = json.loads(json.dumps(written, allow_nan=False))
        assert {row["codec"] for row in read} == set(JUDGED)
        assert read[1]["threshold"] == {"low": None, "high": 0.012, "inclusive": False}


REQUIRED_FAILURES: dict[str, Callable[[str], MadeUp]] = {
    "decodes": lambda codec: with_models(codec, "decode_error", 0.5),
    "mse_tokens": lambda codec: with_error(codec, 0.5),
    "improvement_tokens": lambda codec: with_gain(codec, 0.1),
    "checkpoints": lambda codec: with_models(codec, "loaded_identical", False),
}
HARMLESS_FAILURES: dict[str, Callable[[str], MadeUp]] = {
    "mse_encoder": lambda codec: with_error(codec, 0.5, ENCODER),
    "improvement_encoder": lambda codec: with_gain(codec, -3.0, ENCODER),
    "overhead": lambda codec: with_overhead(codec, 2.0),
}


@pytest.mark.parametrize("codec", JUDGED)
class TestWord:
    def test_passes_if_all_is_met(self, codec: str) -> None:
        assert word(passing(), codec) == "PASS"

    @pytest.mark.parametrize("key", REQUIRED_FAILURES)
    def test_fails_if_one_required_criterion_is_unmet(self, codec: str, key: str) -> None:
        run = REQUIRED_FAILURES[key](codec)
        assert find(run, codec, key).status == "unmet"
        assert (word(run, codec), word(run, other(codec))) == ("FAIL", "PASS")

    @pytest.mark.parametrize("key", HARMLESS_FAILURES)
    def test_encoder_statistics_and_overhead_never_change_it(self, codec: str, key: str) -> None:
        run = HARMLESS_FAILURES[key](codec)
        assert find(run, codec, key).status == "unmet"
        assert word(run, codec) == "PASS"

    def test_encoder_statistics_and_overhead_cannot_save_it(self, codec: str) -> None:
        run = with_error(codec, 0.5)
        assert {find(run, codec, key).status for key in HARMLESS_FAILURES} == {"met"}
        assert word(run, codec) == "FAIL"

    def test_is_not_shown_if_the_interval_leaves_it_open(self, codec: str) -> None:
        run = left_open(codec)
        assert find(run, codec, "improvement_tokens").status == "not shown"
        assert word(run, codec) == "NOT SHOWN"

    def test_is_not_shown_without_an_interval(self, codec: str) -> None:
        assert word(passing(scores=first_episode(SCORES)), codec) == "NOT SHOWN"

    def test_unmet_outweighs_not_shown(self, codec: str) -> None:
        run = left_open(codec)
        vars(run)["models"] = with_models(codec, "decode_error", 0.1).models
        assert word(run, codec) == "FAIL"

    @pytest.mark.parametrize("mse", [1e-4, 0.5])
    def test_a_rehearsal_shows_nothing_whatever_it_measured(self, codec: str, mse: float) -> None:
        run = with_error(codec, mse)
        vars(run)["training"] = training_values(epochs=2)
        assert word(run, codec) == "NOT SHOWN"


class TestShortfalls:
    def of(self, epochs: int = 100, seeds: int = 5, episodes: int = 10) -> list[tuple[str, int, int]]:
        comparison = {"test_episodes": episodes}
        run = made_evidence(
            scores=SCORES, models=model_rows(seeds), training=training_values(epochs), comparison=comparison
        )
        return [(shortfall.key, shortfall.have, shortfall.least) for shortfall in shortfalls(run)]

    def test_a_full_run_has_none(self) -> None:
        assert self.of() == []

    def test_are_named(self) -> None:
        assert self.of(epochs=99) == [("epochs", 99, 100)]
        assert self.of(seeds=4) == [("seeds", 4, 5)]
        assert self.of(episodes=9) == [("test_episodes", 9, 10)]
        assert [key for key, _, _ in self.of(1, 2, 3)] == ["epochs", "seeds", "test_episodes"]

    def test_one_naive_checkpoint_of_the_users_own_is_enough(self) -> None:
        models = model_rows()
        given = models[(models.codec != "naive") | (models.seed == 0)]
        assert shortfalls(made_evidence(scores=SCORES, models=given)) == []

    def test_the_codec_of_fewest_seeds_counts(self) -> None:
        models = model_rows()
        fewer = models[(models.codec != "learned_scale") | (models.seed < 3)]
        assert [(one.key, one.have) for one in shortfalls(made_evidence(scores=SCORES, models=fewer))] == [("seeds", 3)]


class TestCheaperRounding:
    @pytest.mark.parametrize(
        ("mse", "bits", "setting"),
        [
            (0.02, 2875, "bins=16"),
            (0.005, 2875, "bins=64"),
            (0.0005, 2875, "bins=256"),
            (1e-5, 2875, None),
            (0.02, 100, None),
            (0.005, 300, None),
            (0.01, 225, None),
            (0.02, 224, None),
        ],
    )
    def test_is_the_cheapest_with_less_error_and_fewer_bits(self, mse: float, bits: float, setting: str | None) -> None:
        roundings = [
            rows("bins", error, f"bins={count}", bits=cost, seeds=1)
            for count, error, cost in ((16, 0.01, 224.0), (64, 0.001, 336.0), (256, 1e-4, 448.0))
        ]
        scores = with_rows(SCORES, rows(DEPLOYABLE, mse, bits=bits), *roundings)
        assert cheaper_rounding(scores, DEPLOYABLE) == setting

    def test_is_one_of_the_compared_settings(self) -> None:
        curve_only = rows("bins", 1e-9, "bins=8", bits=168.0, seeds=1).assign(compared=False)
        assert cheaper_rounding(with_rows(SCORES, curve_only), DEPLOYABLE) is None


def test_judging_changes_no_row() -> None:
    run = passing()
    scores, models = run.scores.rows.copy(), run.models.copy()
    evaluate(run)
    pd.testing.assert_frame_equal(run.scores.rows, scores)
    pd.testing.assert_frame_equal(run.models, models)
