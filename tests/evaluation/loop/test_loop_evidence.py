"""What follows from rows of policies in the loop: counts, pairs, choices, and the three words."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st
from made_loops import (
    ALL,
    NAIVE_ARGMAX,
    NAIVE_RETRAINED,
    NAIVE_SOFT,
    PAIRS,
    PHASE2_NAIVE,
    PHASE2_SCALE,
    REGRESSION,
    SCALE_ARGMAX,
    SCALE_SOFT,
    first,
    made,
)
from scipy.stats import binomtest

from workbook.codecs.catalogue import BROUGHT
from workbook.common.intervals import Estimate, detectable_gain, holm
from workbook.common.stages import NOT_ASKED_FOR
from workbook.evaluation.loop.arms import ARGMAX, SOFT
from workbook.evaluation.loop.evidence import KEYS, Contrast, Loop


def contrast(loop: Loop, key: str) -> Contrast:
    return next(one for one in loop.contrasts if one.key == key)


def test_counts_by_seed_and_task() -> None:
    loop = made({NAIVE_ARGMAX: first(30)})
    assert loop.counts(NAIVE_ARGMAX) == (30, PAIRS)
    assert loop.successes_by(NAIVE_ARGMAX, "seed") == {0: 10, 1: 10, 2: 10}
    assert sum(loop.successes_by(NAIVE_ARGMAX, "task").values()) == 30
    interval = binomtest(30, PAIRS).proportion_ci(method="exact")
    assert (loop.success(NAIVE_ARGMAX).low, loop.success(NAIVE_ARGMAX).high) == pytest.approx(tuple(interval))


def test_an_episode_that_was_not_played_counts_in_no_pair() -> None:
    loop = made({NAIVE_ARGMAX: [None, *first(PAIRS)[1:]]})
    assert loop.counts(NAIVE_ARGMAX) == (PAIRS - 1, PAIRS - 1)
    assert contrast(loop, "rule").pairs == PAIRS - 1
    assert contrast(loop, "retrained_decoder").pairs == PAIRS


def test_rules_and_new_tokens_are_chosen_on_validation_whatever_succeeds() -> None:
    loop = made({NAIVE_ARGMAX: first(PAIRS), SCALE_ARGMAX: first(PAIRS), SCALE_SOFT: first(0)})
    assert (loop.best("naive"), loop.new_tokens) == (NAIVE_SOFT, SCALE_SOFT)
    found = contrast(loop, "new_tokens")
    assert (found.arm, found.over) == (SCALE_SOFT, NAIVE_SOFT)
    assert contrast(loop, "heads").arm == SCALE_ARGMAX


def test_what_was_brought_is_never_the_new_tokens() -> None:
    loop, mine = made({}), SCALE_ARGMAX._replace(codec=f"{BROUGHT}Mine", setting="")
    better = loop.policies[loop.policies.codec == "fixed_scale"].assign(**mine._asdict(), validation_mse=0.001)
    played = pd.concat([loop.rows, loop.of(SCALE_ARGMAX).assign(**mine._asdict())], ignore_index=True)
    loop = replace(loop, rows=played, policies=pd.concat([loop.policies, better], ignore_index=True))
    assert loop.best(mine.codec) == mine
    assert loop.validation_mse(mine) < loop.validation_mse(SCALE_SOFT)
    assert loop.new_tokens == SCALE_SOFT


def test_the_words() -> None:
    won, lost, alike = first(70), first(30), first(PAIRS - 2)
    better = contrast(made({SCALE_SOFT: won, NAIVE_SOFT: lost}), "new_tokens")
    assert (better.word, better.won_alone, better.lost_alone) == ("YES", 40, 0)
    assert better.difference.mean == pytest.approx(40 / PAIRS)
    assert contrast(made({SCALE_SOFT: lost, NAIVE_SOFT: won}), "new_tokens").word == "NO"
    assert contrast(made({PHASE2_SCALE: lost, PHASE2_NAIVE: won}), "pipeline").word == "NO"
    a_little = [*alike[:-8], *[True] * 8]
    assert contrast(made({SCALE_SOFT: a_little, NAIVE_SOFT: alike}), "new_tokens").word == "NOT SHOWN"


def test_equal_arms_of_many_pairs_say_no_and_of_few_pairs_nothing() -> None:
    same = first(PAIRS)
    assert contrast(made({SCALE_SOFT: same, NAIVE_SOFT: same}), "new_tokens").word == "NO"
    loop = made({SCALE_SOFT: same, NAIVE_SOFT: same})
    few = Loop(loop.values, loop.rows[loop.rows.episode == "start 0"], loop.policies)
    assert contrast(few, "new_tokens").word == "NOT SHOWN"


def test_every_second_chunk_broken_is_a_reason_for_new_tokens_and_never_one_against() -> None:
    """Naive tokens that carry an arm to success in a tenth of the episodes, against tokens that mostly do."""
    loop = made({NAIVE_SOFT: first(8), NAIVE_ARGMAX: first(6), SCALE_SOFT: first(76), NAIVE_RETRAINED: first(9)})
    assert contrast(loop, "new_tokens").word == "YES"
    assert contrast(loop, "retrained_decoder").word != "YES"


def test_the_correction_is_holms() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.6]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=8))
def test_corrected_p_values_keep_their_order_and_are_no_smaller(p_values: list[float]) -> None:
    corrected = holm(p_values)
    assert all(after >= before for before, after in zip(p_values, corrected, strict=True))
    assert all(after <= 1 for after in corrected)
    order = np.argsort(p_values, kind="stable")
    assert np.all(np.diff(np.array(corrected)[order]) >= 0)


def test_what_so_many_pairs_could_have_shown() -> None:
    """About 70 to 140 pairs for 15 points where 20 to 40 % of them differ, by hand; none differing is not none."""
    assert detectable_gain(70, 14) == pytest.approx(0.15, abs=0.003)
    assert detectable_gain(140, 56) == pytest.approx(0.15, abs=0.003)
    assert detectable_gain(84, 0) == detectable_gain(84, 1) > 0
    assert detectable_gain(0, 0) == 1.0


def test_the_order_of_rows_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    loop = made({arm: [bool(each) for each in rng.random(PAIRS) < 0.6] for arm in ALL})
    shuffled = Loop(loop.values, loop.rows.sample(frac=1, random_state=1), loop.policies)
    by_key = {one.key: (one.won_alone, one.lost_alone, one.p, one.word) for one in loop.contrasts}
    assert {one.key: (one.won_alone, one.lost_alone, one.p, one.word) for one in shuffled.contrasts} == by_key


def test_a_word_that_hangs_on_an_episode_or_two_is_on_edge() -> None:
    for new in range(30, 55):
        found = contrast(made({SCALE_SOFT: first(new), NAIVE_SOFT: first(42)}), "new_tokens")
        high = found.difference.high
        assert high is not None
        near = abs(high - 0.05) < 2 / PAIRS
        assert found.on_edge == (near and found.word != "YES")
    assert not contrast(made({SCALE_SOFT: first(10), NAIVE_SOFT: first(80)}), "new_tokens").on_edge


def test_what_was_not_played_is_in_no_contrast() -> None:
    loop = made({})
    kept = loop.rows[loop.rows.kind != "phase2"]
    found = Loop(loop.values, kept, loop.policies)
    assert [one.key for one in found.contrasts] == ["new_tokens", "retrained_decoder", "rule", "heads"]


def test_nothing_asked_for_is_nothing_played() -> None:
    assert not Loop({"not_run": NOT_ASKED_FOR}).played
    loop = made({arm: [None] * PAIRS for arm in ALL})
    assert not loop.played
    assert loop.success(REGRESSION) == Estimate(None)


def test_a_contrast_as_values_names_its_arms() -> None:
    values = contrast(made({}), "rule").as_json()
    assert values["arm"]["rule"] == SOFT
    assert values["over"]["rule"] == ARGMAX
    assert values["word"] in ("YES", "NO", "NOT SHOWN")
    assert set(KEYS) == set(values["arm"])
