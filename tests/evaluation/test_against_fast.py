"""Codecs beside FAST-style tokens: fitted to each at equal bits and at equal words, and what follows from the rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from made_codecs import make_fitting
from made_rows import fast_rows
from small_runs import ignore_progress, make_dataset

from workbook.codecs import catalogue as catalogue_module
from workbook.codecs.bins import UniformBins
from workbook.codecs.catalogue import EQUAL_RATES, Entry, Fitting, Setting, at, catalogue, fast_scales
from workbook.codecs.fast import FastScales, quantile_normaliser
from workbook.evaluation.against_fast import (
    CODEC,
    EQUAL,
    EQUAL_WITHIN,
    AgainstFast,
    Fast,
    against_fast,
    against_fast_rows,
    chosen_fast,
    equal,
    words_of,
)
from workbook.evaluation.score import HeldOut, score

DATASET = make_dataset()
FITTING = make_fitting(DATASET)
TEST = HeldOut.of(DATASET)


def bins(count: int) -> UniformBins:
    return UniformBins(count, DATASET.normaliser)


@pytest.fixture(scope="module")
def scales() -> FastScales:
    return fast_scales(FITTING)


class TestEqual:
    @pytest.mark.parametrize("count", [2, 4])
    def test_fast_style_tokens_cost_what_the_codec_does(self, scales: FastScales, count: int) -> None:
        codec, validation = bins(count), scales.validation
        found = dict(equal(codec, scales))
        assert found
        for side, fast in found.items():
            own, other = (EQUAL[side](each, each.encode(validation)) for each in (codec, fast))
            assert other == pytest.approx(own, rel=EQUAL_WITHIN)

    def test_words_are_tokens_of_fast_and_neighbours_of_others(self, scales: FastScales) -> None:
        """56 numbers of 2 values are 5.6 times ten bits; ten of them are a word."""
        chunks = scales.validation
        assert words_of(bins(2), bins(2).encode(chunks)) == 6
        fast = scales.codec(5.0)
        tokens = fast.encode(chunks)
        assert words_of(fast, tokens) == tokens.lengths.mean()

    def test_what_no_scale_costs_is_left_out(self, scales: FastScales) -> None:
        assert "bits" not in dict(equal(bins(2**20), scales))  # 1,120 bits


class TestNormaliser:
    def test_is_that_of_less_error_on_validation(self) -> None:
        """What is clipped to the quantiles of train actions cannot be given back."""
        far = [replace(each, actions=each.actions.copy()) for each in DATASET.episodes]
        validation = set(DATASET.split.validation)
        for place, episode in enumerate(far):
            if place in validation:
                episode.actions[::3, :3] *= 40
        wild = Fitting(replace(DATASET, episodes=tuple(far)), FITTING.rfsq)
        assert chosen_fast(wild)[0] == "fast"

    def test_quantiles_clip(self) -> None:
        _, both = chosen_fast(FITTING)
        train = np.concatenate([episode.actions for episode in DATASET.part("train")])
        quantiles = FITTING.once(catalogue_module.fast_quantile_scales)
        assert quantiles.clips
        assert quantiles.normaliser.low == pytest.approx(quantile_normaliser(train).low)
        assert both.validation.shape[1:] == TEST.chunks.actions.shape[1:]


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    entry = Entry(
        "made_up", "", "#123456", "o-", True, True, lambda f, s: [bins(4), bins(3)], beside_fast=at("rate", 1)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue_module, "ENTRIES", (entry,))
        return against_fast_rows(FITTING, TEST, [5, 6], ignore_progress)


class TestRows:
    def test_hold_the_errors_of_the_codec_by_seed(self, rows: pd.DataFrame) -> None:
        own = rows[rows.side == CODEC]
        for seed, codec in ((5, bins(4)), (6, bins(3))):
            assert own[own.seed == seed].mse.tolist() == score(codec, TEST).mse.tolist()
            assert set(own[own.seed == seed].bits) == {codec.bits(codec.encode(TEST.chunks.actions))}

    def test_hold_one_fast_for_each_side_that_can_be_scored_again(self, rows: pd.DataFrame) -> None:
        for side in set(rows.side) - {CODEC}:
            fast = rows[rows.side == side]
            [scale], [entry] = set(fast.scale), set(fast.fast)
            assert set(fast.seed) == {0}
            [codec] = catalogue()[entry].codecs(make_fitting(DATASET), Setting.of(scale=scale))
            assert fast.mse.tolist() == pytest.approx(score(codec, TEST).mse.tolist())
        assert {"bits", "words"} >= set(rows.side) - {CODEC}

    def test_can_be_read(self, rows: pd.DataFrame) -> None:
        [found] = against_fast(rows)
        assert (found.codec, found.setting) == ("made_up", "rate=1")
        assert set(found.equal) == {"bits", "words"}


class TestAgainstFast:
    def one(self, *args: object, **named: object) -> AgainstFast:
        [found] = against_fast(fast_rows("klt_rfsq_fixed", "codes=36", *args, **named))  # type: ignore[arg-type]
        return found

    def fast(self, found: AgainstFast, side: str) -> Fast:
        return found.equal[side] or pytest.fail(f"nothing of equal {side}")

    def test_less_error_is_a_gain_and_more_a_loss(self) -> None:
        found = self.one([2.0, 4.0], {"bits": [4.0, 8.0], "words": [1.0, 2.0]}, bits=50)
        assert (found.bits, found.words) == (50, 5)
        assert found.mse.mean == pytest.approx((2 + 3 * 4) / 4)
        bits, words = self.fast(found, "bits"), self.fast(found, "words")
        assert bits.mse.mean == pytest.approx((4 + 3 * 8) / 4)
        assert (bits.gain.mean, words.gain.mean) == pytest.approx((0.5, -1.0))
        assert (bits.gain.low, bits.gain.high) == pytest.approx((0.5, 0.5))
        assert (bits.scale, bits.bits) == (5.0, 50)

    def test_one_run_of_fast_is_held_against_every_seed(self) -> None:
        gain = self.fast(self.one([[1.0, 1.0], [3.0, 3.0]], {"bits": 4.0}, seeds=2), "bits").gain
        assert gain.per_seed == pytest.approx((0.75, 0.25))
        assert gain.mean == pytest.approx(0.5)

    def test_where_no_scale_costs_as_much_nothing_is_said(self) -> None:
        found = self.one(3.0, {"words": 4.0})
        assert found.equal["bits"] is None
        assert found.equal["words"] is not None

    def test_lines_stand_in_the_order_of_the_rows_whatever_they_are_mixed_with(self) -> None:
        frames = [fast_rows(name, "rate=40", 3.0, {"bits": 4.0}) for name in ("klt_rfsq_variable", "bins", "naive")]
        rows = pd.concat(frames, ignore_index=True)
        assert [found.codec for found in against_fast(rows)] == ["klt_rfsq_variable", "bins", "naive"]


def test_klt_rfsq_and_every_codec_that_is_predicted_are_held_against_fast_from_8_bits_up() -> None:
    assert min(EQUAL_RATES) == 8
    for entry in catalogue().values():
        held = entry.held_against_fast(FITTING)
        assert set(entry.predicted(FITTING)) <= set(held)
        assert (len(held) >= len(EQUAL_RATES) - 1) == (entry.family == "klt_rfsq")
