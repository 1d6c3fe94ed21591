"""The one place that encodes, decodes and measures: what a decoder gets, what rows say, what is computed from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from made_codecs import LATENTS, LAYERS, LEVELS, make_fitting, make_model
from made_rows import passing_scores, rows
from measuring import rows_of
from small_runs import make_dataset

from workbook.codecs.bins import UniformBins
from workbook.codecs.catalogue import Entry, Setting, catalogue
from workbook.codecs.fast import FastCodec
from workbook.codecs.protocol import Codec, Tokens
from workbook.codecs.rfsq import RFSQCodec
from workbook.common.array import Array
from workbook.common.errors import InputError
from workbook.common.paths import OutputFolder
from workbook.common.stages import table_path, write_table
from workbook.data.chunks import Normaliser
from workbook.data.layout import LIBERO, ActionLayout
from workbook.evaluation.score import ENCODER, KEYS, HeldOut, Scores, estimate_of, score, score_setting, values_of

TEST = HeldOut.of(make_dataset())
CHUNKS = TEST.chunks.actions
STEPS, WIDTH = CHUNKS.shape[1:]


@dataclass(frozen=True, eq=False)
class Spy:
    """Bins whose decoder remembers what it got."""

    inner: UniformBins
    given: list[tuple[Any, ...]]

    @property
    def name(self) -> str:
        return "spy"

    @property
    def vocabulary(self) -> int:
        return self.inner.vocabulary

    def encode(self, chunks: Array) -> Tokens:
        return self.inner.encode(chunks)

    def decode(self, *given: Any) -> Array:
        self.given.append(given)
        return self.inner.decode(*given)

    def bits(self, tokens: Tokens) -> float:
        return self.inner.bits(tokens)


def made_entry(codecs: Sequence[Codec]) -> Entry:
    return Entry("made_up", "made up", "#000000", "o-", True, False, lambda fitting, setting: codecs)


def scores_of(*codecs: Codec) -> Scores:
    fitting = make_fitting()
    return Scores(score_setting(made_entry(codecs), Setting.of(bins=8), fitting, TEST, range(len(codecs))))


class TestScore:
    def test_a_decoder_gets_the_tokens_and_nothing_else(self) -> None:
        spy = Spy(UniformBins(8, TEST.normaliser), [])
        found = score(spy, TEST)
        (given,) = spy.given
        (tokens,) = given
        assert np.array_equal(tokens.codes, spy.encode(CHUNKS).codes)
        assert tokens.side is None
        assert np.array_equal(found.mse, TEST.rows(spy.inner.decode(tokens)).mse)

    def test_what_a_codec_remembers_of_the_chunks_cannot_be_the_score(self) -> None:
        """A codec that sends nothing, and would know better, is measured by what its tokens decode to."""

        class Silent(Spy):
            def encode(self, chunks: Array) -> Tokens:
                return Tokens(np.zeros(chunks.shape, dtype=np.int64))

        found = score(Silent(UniformBins(8, TEST.normaliser), []), TEST)
        lowest = UniformBins(8, TEST.normaliser).decode(Tokens(np.zeros(CHUNKS.shape, dtype=np.int64)))
        assert np.array_equal(found.mse, TEST.rows(lowest).mse)
        assert (found.entropy_bits == 0.0).all()
        assert (estimate_of(found, "mse").mean or 0.0) > 0.1

    def test_of_the_encoder_it_is_the_forward_pass_and_no_decode(self) -> None:
        codec = RFSQCodec("layernorm", make_model("layernorm"), TEST.normaliser)
        forward, tokens = score(codec, TEST, ENCODER), score(codec, TEST)
        assert np.array_equal(forward.mse, TEST.rows(codec.forward(CHUNKS)).mse)
        assert not np.allclose(forward.mse, tokens.mse)
        assert (set(forward.decoding), set(tokens.decoding)) == ({"encoder"}, {"tokens"})
        assert forward.bits.equals(tokens.bits)

    def test_statistics_that_are_sent_are_paid_for_and_told_apart(self) -> None:
        codec = RFSQCodec("layernorm", make_model("layernorm"), TEST.normaliser)
        assumed, sent = score(codec, TEST), score(replace(codec, statistics="sent"), TEST)
        side = STEPS * LAYERS * 2 * 16  # mean and std of each layer's vector, as float16
        assert sent.side_bits.to_numpy() == pytest.approx(side)
        assert (assumed.side_bits == 0).all()
        assert sent.bits.to_numpy() == pytest.approx(assumed.bits.to_numpy() + side)

    def test_what_varies_in_length_costs_each_episode_its_own(self) -> None:
        train = make_dataset().train_chunks().actions
        codec = FastCodec.fit(train, TEST.normaliser, 10)
        found = score(codec, TEST)
        assert found.bits.nunique() > 1
        tokens = codec.encode(CHUNKS)
        assert np.average(found.bits, weights=found.chunks) == pytest.approx(codec.bits(tokens))
        assert np.average(found.tokens, weights=found.chunks) == pytest.approx(tokens.lengths.mean())
        first = TEST.chunks.episode == 0
        assert found.bits[0] == pytest.approx(codec.bits(codec.encode(CHUNKS[first])))
        assert found.chunks.tolist() == np.bincount(TEST.chunks.episode).tolist()

    def test_the_error_alone_is_that_of_all_metrics(self) -> None:
        decoded = CHUNKS + np.random.default_rng(0).normal(0, 0.2, CHUNKS.shape)
        rows, alone = TEST.rows(decoded), TEST.mse_rows(decoded)
        pd.testing.assert_frame_equal(alone, rows[["part", "task", "episode", "mse", "steps"]])
        assert TEST.mse(decoded) == pytest.approx(np.average(rows.mse, weights=rows.steps))

    def test_a_row_says_what_was_done_and_where_it_was_recorded(self) -> None:
        validation = HeldOut.of(make_dataset(), "validation")
        found = score(UniformBins(8, validation.normaliser), validation)
        episodes = make_dataset().part("validation")
        assert found.task.tolist() == [episode.task for episode in episodes]
        assert found.episode.tolist() == [episode.place for episode in episodes]
        assert set(found.part) == {"validation"}
        assert found.steps.tolist() == [len(episode.actions) for episode in episodes]

    def test_what_the_data_have_nothing_of_is_nan(self) -> None:
        layout = ActionLayout.parse("joint:2")
        unit = Normaliser(-np.ones(2), np.ones(2))
        original = np.full((12, 2), 0.5)
        found = rows_of([original], [[original + 0.1]], layout, unit, np.ones(2))
        for metric in ("position_mm", "gripper_on_time", "switch_drift_mm", "zeros_kept"):
            assert found[metric].isna().all()
            assert estimate_of(found, metric).mean is None
        assert estimate_of(found, "mse").mean == pytest.approx(0.01)


class TestScoreSetting:
    def test_bits_and_errors_are_means_over_seeds(self) -> None:
        codecs = [UniformBins(4, TEST.normaliser), UniformBins(16, TEST.normaliser)]
        found, alone = scores_of(*codecs), [scores_of(codec) for codec in codecs]
        assert found.cost("made_up")["bits"] == pytest.approx(STEPS * WIDTH * 3)
        assert found.cost("made_up")["seeds"] == 2
        for key in ("entropy_bits", "tokens"):
            assert found.cost("made_up")[key] == pytest.approx(np.mean([each.cost("made_up")[key] for each in alone]))
        means = [each.estimate("mse", "made_up").mean for each in alone]
        assert found.estimate("mse", "made_up").per_seed == pytest.approx(means)
        assert found.values("mse", "made_up")[0].shape == (2, len(TEST.episodes))

    def test_first_layers_are_settings_of_their_own(self) -> None:
        entry, fitting = catalogue()["fixed_scale"], make_fitting()
        frames = [score_setting(entry, setting, fitting, TEST, [0]) for setting in entry.measured(fitting)]
        scores = Scores(pd.concat(frames, ignore_index=True))
        for k in range(1, LAYERS + 1):
            cost = scores.cost("fixed_scale", f"layers={k}")
            assert cost["bits"] == pytest.approx(STEPS * LATENTS * k * np.log2(LEVELS))
            assert cost["tokens"] == STEPS * LATENTS * k
        assert scores.listed("compared") == [("fixed_scale", f"layers={LAYERS}")]
        assert len(scores.listed("measured")) == LAYERS

    def test_rows_name_the_seeds_of_the_models_and_count_where_there_are_none(self) -> None:
        fitting = make_fitting(seeds=2)
        naive = score_setting(catalogue()["naive"], Setting.of(layers=LAYERS), fitting, TEST, [3, 7])
        assert naive.seed.unique().tolist() == [3, 7]
        bins = score_setting(catalogue()["bins"], Setting.of(bins=8), fitting, TEST, [3, 7])
        assert bins.seed.unique().tolist() == [0]
        assert list(naive)[: len(KEYS)] == list(KEYS)
        assert not naive.duplicated(list(KEYS)).any()
        assert list(naive) == list(bins)


class TestScores:
    def test_the_largest_number_of_layers_stands_for_a_codec(self) -> None:
        """Not the last of the alphabet, and no setting of a sweep."""
        settings_ = ["layers=9", "layers=10", "layers=2", "latents=4 levels=3 layers=12"]
        scores = Scores(pd.concat([rows("naive", mse, text) for mse, text in enumerate(settings_)]))
        assert scores.setting_of("naive") == "layers=10"
        assert scores.estimate("mse", "naive").mean == pytest.approx(1.0)

    def test_what_was_not_scored_is_named(self) -> None:
        scores = Scores(rows("naive", 0.1))
        assert scores.has("naive")
        for codec, setting, decoding in (
            ("bins", "", "tokens"),
            ("naive", "layers=1", "tokens"),
            ("naive", "", ENCODER),
        ):
            assert not scores.has(codec, setting, decoding)
            with pytest.raises(KeyError, match=f"no rows of {codec}"):
                scores.of(codec, setting, decoding)

    def test_listed_are_in_the_order_of_the_catalogue(self) -> None:
        scores = Scores(pd.concat([rows("bins", 0.1, "bins=8"), rows("fixed_scale", 0.1), rows("naive", 0.1)]))
        assert [codec for codec, _ in scores.listed("compared")] == ["naive", "fixed_scale", "bins"]

    def test_an_improvement_is_of_paired_rows(self) -> None:
        scores = passing_scores(naive=0.02, fixed_scale=0.005)
        found = scores.improvement("fixed_scale")
        assert (found.mean, found.low, found.high) == pytest.approx((0.75, 0.75, 0.75))
        assert scores.improvement("naive").mean == 0.0
        assert scores.improvement("fixed_scale", decoding=ENCODER).mean == pytest.approx(0.75)
        assert scores.improvement("bins", "bins=64", over="bins", over_setting="bins=16").mean == pytest.approx(0.4)
        assert scores.improvement("naive", over="naive", over_setting="layers=1").mean == pytest.approx(7 / 8)

    def test_one_model_is_held_against_every_seed(self) -> None:
        naive = rows("naive", 0.4, seeds=1)
        other = rows("fixed_scale", 0.0, seeds=2).assign(mse=np.repeat([0.1, 0.3], 28))
        found = Scores(pd.concat([naive, other])).improvement("fixed_scale")
        assert found.per_seed == pytest.approx((0.75, 0.25))

    def test_weights_are_steps_or_switches_as_the_metric_wants(self) -> None:
        frame = rows("naive", 0.0, seeds=1, episodes=2).assign(
            mse=[1.0, 2.0], gripper_on_time=[0.0, 1.0], drift_mm=[2.0, 4.0], steps=[1, 3], switches=[3, 1]
        )
        assert estimate_of(frame, "mse").mean == pytest.approx(1.75)
        assert estimate_of(frame, "gripper_on_time").mean == pytest.approx(0.25)
        assert estimate_of(frame, "drift_mm").mean == pytest.approx(3.0)

    @settings(deadline=None, max_examples=40)
    @given(shape=st.tuples(st.integers(1, 3), st.integers(2, 9)), seed=st.integers(0, 1000))
    def test_values_come_seed_by_seed_and_means_are_weighed(self, shape: tuple[int, int], seed: int) -> None:
        rng = np.random.default_rng(seed)
        mse, steps = rng.gamma(2.0, 1.0, shape), rng.integers(5, 50, shape[1])
        frame = rows("naive", 0.0, seeds=shape[0], episodes=shape[1])
        frame = frame.assign(mse=mse.ravel(), steps=np.tile(steps, shape[0]))
        values, weights = values_of(frame, "mse")
        assert np.array_equal(values, mse)
        assert np.array_equal(weights, steps)
        found = Scores(frame).estimate("mse", "naive")
        assert found.mean == pytest.approx(np.average(mse, axis=1, weights=steps).mean())
        assert found.low is not None
        assert found.high is not None
        assert found.mean is not None
        assert found.low - 1e-12 <= found.mean <= found.high + 1e-12

    def test_an_episode_that_has_nothing_of_the_kind_does_not_count(self) -> None:
        frame = rows("naive", 0.0, seeds=2, episodes=3).assign(drift_mm=[2.0, np.nan, 4.0, 6.0, np.nan, 8.0])
        values, weights = values_of(frame, "drift_mm")
        assert weights.tolist() == [1.0, 0.0, 1.0]
        assert estimate_of(frame, "drift_mm").per_seed == pytest.approx((3.0, 7.0))
        assert np.isfinite(values).all()

    def test_an_error_that_no_seed_could_measure_does_not_pass_for_none(self) -> None:
        frame = rows("naive", 0.1, seeds=2, episodes=2, mse_x=np.nan)
        frame.loc[frame.episode == frame.episode[0], "mse"] = np.nan
        assert all(np.isnan(values_of(frame, metric)[0]).any() for metric in ("mse", "mse_x"))

    @pytest.mark.parametrize("broken", [np.nan, np.inf])
    def test_an_error_that_is_no_number_does_not_pass_for_none(self, broken: float) -> None:
        frame = rows("naive", 0.0, seeds=2, episodes=2).assign(mse=[0.1, 0.1, 0.1, broken])
        with np.errstate(invalid="ignore"):
            assert not np.isfinite(estimate_of(frame, "mse").mean or 0.0)

    def test_a_file_gives_the_same_estimates(self, out: OutputFolder) -> None:
        before = scores_of(UniformBins(4, TEST.normaliser), UniformBins(16, TEST.normaliser))
        write_table(out, "scores", before.rows)
        path: Path = table_path(out, "scores")
        after = Scores(pd.read_parquet(path))
        pd.testing.assert_frame_equal(after.rows, before.rows, check_exact=True)
        for metric in ("mse", "max_abs", "switch_drift_mm", *(f"mse_{name}" for name in LIBERO.names)):
            assert after.estimate(metric, "made_up") == before.estimate(metric, "made_up")
        assert after.cost("made_up") == before.cost("made_up")

    def test_the_order_of_rows_does_not_matter(self) -> None:
        made = pd.concat([rows("naive", 0.3, spread=0.9), rows("fixed_scale", 0.1, spread=0.5)], ignore_index=True)
        before, after = Scores(made), Scores(made.sample(frac=1, random_state=0))
        for codec in ("naive", "fixed_scale"):
            assert after.estimate("mse", codec).per_seed == pytest.approx(before.estimate("mse", codec).per_seed)
        gains = [scores.improvement("fixed_scale").mean for scores in (before, after)]
        assert gains[1] == pytest.approx(gains[0])

    def test_rows_that_are_not_one_for_each_seed_and_episode(self) -> None:
        made = rows("naive", 0.3)
        for broken in (made[1:], pd.concat([made, made[:1]]), pd.concat([made[1:], made[-1:]])):
            with pytest.raises(ValueError, match="not one for each seed and episode"):
                Scores(broken).estimate("mse", "naive")

    def test_rows_of_a_codec_that_the_catalogue_lacks(self) -> None:
        with pytest.raises(InputError, match=r"scores.parquet: has rows of of_old, of which this version has none"):
            Scores(rows("of_old", 0.3)).listed("compared")
