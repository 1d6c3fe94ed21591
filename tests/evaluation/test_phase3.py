"""What tokens cost Phase 3: passes, acceptance without what any draft has, and speculative decoding by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st
from made_policies import LAYERS, TOKENS, made_policies, made_run
from made_rows import made_evidence
from small_runs import make_dataset

from workbook.evaluation.phase3 import (
    DRAFT_COST,
    Acceptance,
    expected_tokens,
    other_moments,
    perplexity,
    phase3,
    speed_up,
)
from workbook.evaluation.score import HeldOut
from workbook.report.tables.token_costs import phase3_table, token_costs_table

SHARES = st.floats(0, 1)
COUNTS = st.integers(0, 12)


class TestSpeculativeDecoding:
    def test_by_hand(self) -> None:
        assert expected_tokens(0.5, 3) == pytest.approx(1 + 0.5 + 0.25 + 0.125)
        assert expected_tokens(0.8, 2) == pytest.approx((1 - 0.8**3) / (1 - 0.8))
        assert speed_up(0.5, 3, 0.5) == pytest.approx(1.875 / 1.5)

    def test_of_the_users_acceptance(self) -> None:
        """.674 of the draft's coarse tokens, of which .654 any moment's draft would have had."""
        assert speed_up(0.674) == pytest.approx((1 - 0.674**4) / (1 - 0.674) / 1.5)
        assert speed_up(Acceptance(0.674, 0.654).left) < 1 < speed_up(0.674)

    def test_at_the_ends(self) -> None:
        assert [expected_tokens(a, 3) for a in (0.0, 1.0)] == [1.0, 4.0]
        assert speed_up(0.0, 3, DRAFT_COST) == pytest.approx(1 / (1 + DRAFT_COST))

    @given(SHARES, SHARES, COUNTS)
    def test_more_that_is_accepted_is_never_slower(self, one: float, other: float, drafted: int) -> None:
        low, high = sorted((one, other))
        assert speed_up(low, drafted) <= speed_up(high, drafted) + 1e-12
        assert 1 <= expected_tokens(high, drafted) <= drafted + 1

    @given(SHARES, SHARES)
    def test_what_is_left_is_no_share_below_nothing(self, own: float, other: float) -> None:
        assert 0 <= Acceptance(own, other).left <= own


class TestLines:
    def test_hold_passes_and_acceptance_of_each_codec(self) -> None:
        found = {one.codec.codec: one for one in phase3(made_policies())}
        assert {name: one.tokens for name, one in found.items()} == TOKENS
        assert {one.layers for one in found.values()} == {LAYERS}
        naive = found["naive"].acceptance
        assert naive is not None
        assert (naive.own, naive.other, naive.left) == pytest.approx((0.7, 0.35, 0.35))
        assert found["bins"].acceptance is None

    def test_perplexity_is_of_a_token(self) -> None:
        policy = made_policies()
        for codec in policy.codecs:
            assert perplexity(policy, codec) == pytest.approx(2 ** (300 / TOKENS[codec.codec]))

    def test_stand_in_a_table(self) -> None:
        found = {row[0]: row[1:] for row in phase3_table(made_run()).rows}
        naive = found["naive, 2 layers"]
        assert naive[:2] == ["2", "256"]
        assert naive[3:6] == ["70.0%", "35.0%", "35.0%"]
        assert naive[6:] == [f"{speed_up(each):.2f}" for each in (0.7, 0.35)]
        assert found["64 bins"][3:] == ["-"] * 5


class TestOtherMoments:
    TEST = HeldOut.of(make_dataset())

    def test_are_each_chunk_once_of_the_same_task_and_another_where_there_is_one(self) -> None:
        others = other_moments(self.TEST)
        tasks = np.array([episode.task for episode in self.TEST.episodes])[self.TEST.chunks.episode]
        assert sorted(others) == list(range(len(tasks)))
        assert (tasks[others] == tasks).all()
        counts = pd.Series(tasks).value_counts()
        assert ((others != np.arange(len(tasks))) | (counts[tasks].to_numpy() == 1)).all()


def test_the_table_of_token_costs_has_means_over_seeds_and_leaves_out_what_there_is_not() -> None:
    row = {
        "codec": "naive", "setting": "layers=4", "tokens": 1024.0, "dead": 768.0, "words": 342.0, "bits": 2875.0,
        "entropy_bits": 303.0, "mse": 0.002, "mse_wrong": 0.004, "overlap": 0.84, "border": 1.02, "border_truth": 0.97,
    }  # fmt: skip
    other = row | {"codec": "bins", "setting": "bins=64", "dead": 0.0, "overlap": np.nan, "border": np.nan}
    run = made_evidence()
    run.tables["token_costs"] = pd.DataFrame([
        row | {"seed": 0}, row | {"seed": 1, "mse_wrong": 0.008}, other | {"seed": 0},
    ])  # fmt: skip
    table = token_costs_table(run)
    assert [list(cells) for cells in table.rows] == [
        ["naive, 4 layers", "1,024 (768)", "342.0", "2,875", "303", "0.002", "0.006", "0.84", "1.02"],
        ["64 bins", "1,024", "342.0", "2,875", "303", "0.002", "0.004", "-", "-"],
    ]
    assert "0.97" in table.note


def test_the_table_of_token_costs_goes_on_where_a_run_has_measured_more() -> None:
    row = {
        "codec": "bins", "setting": "bins=64", "seed": 0, "tokens": 56.0, "dead": 0.0, "words": 56.0, "bits": 336.0,
        "entropy_bits": 225.0, "mse": 0.1, "mse_wrong": 0.2, "overlap": 0.5, "border": 1.0, "border_truth": 1.0,
    }  # fmt: skip
    more = {"mse_first": 0.3, "mse_middle": 0.2, "mse_last": np.nan, "decodes": 0.25, "encode_ms": 0.0123}
    run = made_evidence()
    run.tables["token_costs"] = pd.DataFrame([row])
    before = token_costs_table(run)
    run.tables["token_costs"] = pd.DataFrame([row | more])
    table = token_costs_table(run)
    assert table.rows[0][: len(before.header)] == before.rows[0]
    assert table.rows[0][len(before.header) :] == ["0.3", "0.2", "-", "25.0%", "0.012"]
    assert len(table.header) == len(table.rows[0])
    assert table.note.startswith(before.note)
