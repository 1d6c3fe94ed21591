"""Timing in turn, and the command: which rows it gives and what they are held against."""

import json
from pathlib import Path

import pytest
from made_codecs import LISTED

from benchmarks.__main__ import main
from workbook.common.timing import time_in_turn


def test_calls_are_made_in_turn_and_a_short_one_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that only the calls move: 1 s and 0.5 ms."""
    clock, made = [0.0], []

    def call(name: str, seconds: float) -> None:
        made.append(name)
        clock[0] += seconds

    monkeypatch.setattr("workbook.common.timing.time.process_time", lambda: clock[0])
    timed = time_in_turn({"long": lambda: call("long", 1.0), "short": lambda: call("short", 0.0005)}, repetitions=3)
    assert timed["long"] == pytest.approx(1.0)
    assert timed["short"] == pytest.approx(0.0005)
    short = 4 * ["short"]
    assert made[4:] == ["long", *short, *short, "long", "long", *short]  # another first each time
    made.clear()
    time_in_turn({"long": lambda: call("long", 1.0)}, repetitions=9, most=1.5)
    assert len(made) == 2 + 2  # to count it, and until it has taken more than 1.5 s


def test_the_command_times_every_codec_and_writes_what_it_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.__main__.BATCHES", (1, 2))
    out = tmp_path / "times.json"
    assert main(["--repetitions", "1", "--largest", "1000", "--out", str(out)]) == 0
    rows = json.loads(out.read_text(encoding="utf8"))["rows"]
    assert {row["part"] for row in rows} == {"network", "alike", "codecs", "training", "growth"}
    assert {row["what"].split()[0] for row in rows if row["part"] == "codecs"} == set(LISTED)
    assert all(row["seconds"] > 0 for row in rows)
    own = [row["ratio"] for row in rows if row["part"] == "codecs" and row["what"].startswith("fixed_scale ")]
    assert own == [1.0] * 6
    assert len(capsys.readouterr().out.splitlines()) == len(rows) + 1


def test_training_is_timed_alone_and_in_stacks(tmp_path: Path) -> None:
    out = tmp_path / "times.json"
    parts = ["training", "whole"]
    assert main(["--parts", *parts, "--repetitions", "1", "--epochs", "1", "--device", "cpu", "--out", str(out)]) == 0
    rows = json.loads(out.read_text(encoding="utf8"))["rows"]
    assert [row["part"] for row in rows] == ["training"] * 10 + ["whole"] * 2
    one_by_one, stacked = rows[-2:]
    assert one_by_one["ratio"] == 1
    assert stacked["ratio"] == pytest.approx(stacked["seconds"] / one_by_one["seconds"])
    assert stacked["seconds"] > 0


def test_no_repetition_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--repetitions", "0"]) == 2
    assert "--repetitions is 0" in capsys.readouterr().err
