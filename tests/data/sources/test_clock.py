"""Timestamps of an episode: jitter is none of a reader's business, and missing steps are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from workbook.data.sources.clock import Clock, read_clock

HYPOTHESIS = settings(deadline=None, max_examples=100)
RATES = st.sampled_from([5.0, 10.0, 20.0, 29.97, 50.0, 200.0])
PRECISIONS = st.sampled_from([np.float32, np.float64])


def read(stamps: object, said: float | None = 20.0) -> Clock:
    clock = read_clock(np.asarray(stamps, dtype=np.float64), said)
    assert clock is not None
    return clock


@HYPOTHESIS
@given(
    st.integers(2, 400),
    RATES,
    st.booleans(),
    PRECISIONS,
    st.integers(0, 2**32 - 1),
    st.floats(0, 0.24),
    st.floats(0, 1000),
)
def test_jitter_below_a_quarter_of_a_step_is_no_jump(
    steps: int, rate: float, is_said: bool, kind: type, seed: int, jitter: float, start: float
) -> None:
    noise = np.random.default_rng(seed).uniform(-jitter, jitter, steps)
    stamps = (start + (np.arange(steps) + noise) / rate).astype(kind)
    found = read_clock(stamps, rate if is_said or steps < 40 else None)
    assert found is not None
    assert (found.jumps, found.stands_still) == ([], False)


def test_what_float32_rounds_off_is_no_jump() -> None:
    """After 1,000 s its steps are 0.06 ms, more than is left of half a step of 5 ms."""
    stamps = np.arange(40) / 200
    stamps[38:] += np.array([-0.2495, 0.2495]) / 200
    for start in 1000 + np.arange(300) * 7e-4:
        found = read_clock((start + stamps).astype(np.float32), 200)
        assert found is not None
        assert found.jumps == []


@HYPOTHESIS
@given(st.integers(40, 300), RATES, st.booleans(), st.integers(0, 2**32 - 1), st.data(), st.integers(1, 100))
def test_dropped_frames_are_found_where_they_are(
    steps: int, rate: float, is_said: bool, seed: int, data: st.DataObject, dropped: int
) -> None:
    at = data.draw(st.integers(1, steps - 1))
    count = np.arange(steps) + dropped * (np.arange(steps) >= at)
    stamps = (count + np.random.default_rng(seed).uniform(-0.1, 0.1, steps)) / rate
    found = read_clock(stamps.astype(np.float32), rate if is_said else None)
    assert found is not None
    assert (found.gaps, found.restarts) == ((at,), ())


@HYPOTHESIS
@given(st.integers(40, 300), RATES, st.data())
def test_a_restart_is_found_where_it_is(steps: int, rate: float, data: st.DataObject) -> None:
    at = data.draw(st.integers(1, steps - 1))
    stamps = np.concatenate([np.arange(at), np.arange(steps - at)]) / rate
    found = read(stamps, rate)
    assert (found.gaps, found.restarts) == ((), (at,) if at > 1 else ()) or at == 1
    assert at == 1 or found.jumps == [at]


def test_a_gap_by_hand() -> None:
    """0, .05, .10 and then 2 s late; the clock's step is .05."""
    stamps = np.arange(80) / 20
    stamps[40:] += 2
    found = read(stamps)
    assert (found.gaps, found.restarts, found.stands_still) == ((40,), (), False)
    assert found.step == pytest.approx(0.05)


def test_several_jumps_are_found_in_order() -> None:
    stamps = np.arange(100) / 20
    stamps[30:] += 1
    stamps[60:] -= stamps[60]
    stamps[80:] += 0.05  # one frame
    found = read(stamps)
    assert (found.gaps, found.restarts, found.jumps) == ((30, 80), (60,), [30, 60, 80])


def test_a_late_step_that_is_made_up_for_is_no_gap() -> None:
    stamps = np.arange(60) / 20
    stamps[30] += 0.04
    stamps[31] += 0.03
    assert read(stamps).jumps == []


@pytest.mark.parametrize("actual", [10, 40])
def test_another_rate_than_the_one_said_is_measured_and_is_no_gap(actual: int) -> None:
    found = read(np.arange(60) / actual)
    assert found.jumps == []
    assert found.step == pytest.approx(1 / actual)


def test_a_clock_that_stands_still_is_told_and_does_not_jump() -> None:
    found = read(np.zeros(60))
    assert found == Clock(None, (), (), True)
    assert read(np.full(60, 1.7e9), None) == Clock(None, (), (), True)


def test_a_clock_that_stands_still_and_jumps_is_both() -> None:
    stamps = np.zeros(60)
    stamps[45:] = 100
    assert read(stamps) == Clock(None, (45,), (), True)
    assert read(-stamps) == Clock(None, (), (45,), True)


@pytest.mark.parametrize(("tick", "still"), [(0.1, False), (0.2, True), (1.0, True)])
def test_a_coarse_clock_does_not_jump_at_every_tick(tick: float, still: bool) -> None:
    """It shows whole ticks, begun in the middle of one."""
    stamps = np.floor((np.arange(200) / 20 + 0.06) / tick + 1e-9) * tick
    found = read(stamps)
    assert (found.jumps, found.stands_still) == ([], still)
    stamps[120:] += 10
    assert read(stamps).gaps == (120,)


@pytest.mark.parametrize(
    "stamps", [[], [0.0], [0.0, np.nan, 0.1], [np.inf, 0.0], [np.nan] * 9, [0.0, 1.7e308, -1.7e308]]
)
def test_what_is_no_clock_tells_nothing(stamps: list[float]) -> None:
    assert read_clock(np.array(stamps), 20.0) is None
