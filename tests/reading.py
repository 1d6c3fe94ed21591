"""What is read of recordings and what is said of them, as many tests ask for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import ArrayLike
from writers import Demos, write_libero

from workbook.common.errors import InputError
from workbook.data.card import describe
from workbook.data.config import DataConfig
from workbook.data.dataset import Dataset, Prepared, prepare_dataset
from workbook.data.episodes import Episode, Recordings
from workbook.data.sources.read import read_recordings
from workbook.evaluation.evidence import Evidence
from workbook.report.text import words
from workbook.report.text.data import remarks


def read(data: Path | str) -> list[Episode]:
    return read_recordings(data).episodes


def notes(data: Path | str) -> str:
    """What is said of how recordings were read."""
    return " ".join(map(words("data").of_note, read_recordings(data).origin.notes))


def rate_of(data: Path) -> float | None:
    """The control rate that all episodes have."""
    [rate] = {episode.control_rate_hz for episode in read(data)}
    return rate


def assert_same(episodes: Sequence[Episode], demos: Demos) -> None:
    """The actions of these demos and no others, to the last bit."""
    assert len(episodes) == len(demos)
    for episode, (task, actions) in zip(episodes, demos, strict=True):
        assert episode.task == task
        assert episode.actions.dtype == np.float64
        np.testing.assert_array_equal(episode.actions, actions)


def assert_same_episodes(left: Recordings | Dataset, right: Recordings | Dataset) -> None:
    """To the last bit, and in everything else that is known of them."""
    assert len(left.episodes) == len(right.episodes) > 0
    for one, other in zip(left.episodes, right.episodes, strict=True):
        assert one.actions.dtype == other.actions.dtype
        assert one.actions.shape == other.actions.shape
        assert one.actions.tobytes() == other.actions.tobytes()
        for name in ("task", "source", "key", "session", "control_rate_hz"):
            assert getattr(one, name) == getattr(other, name)


def card_of(prepared: Prepared) -> Evidence:
    """A run of which nothing but the data card is there, in memory."""
    run, (values, tables) = Evidence("made_up"), describe(prepared)
    vars(run).update(data=values, table=tables.__getitem__)
    return run


def said(data: Path | str, **parameters: object) -> list[str]:
    """The remarks of 01_data."""
    return remarks(card_of(prepare_dataset(data, DataConfig(**parameters))))  # type: ignore[arg-type]


def said_of(folder: Path, demos: Mapping[str, ArrayLike], **parameters: object) -> list[str]:
    return said(write_libero(folder / "a.hdf5", demos), **parameters)


def about(word: str, sentences: Sequence[str]) -> list[str]:
    return [sentence for sentence in sentences if word in sentence]


def assert_plain(sentences: Sequence[str]) -> None:
    for sentence in sentences:
        assert sentence[0].isupper() or sentence[0].isdigit()
        assert sentence.endswith(".")
        assert "nan" not in sentence
        assert "None" not in sentence


def refused(read: Callable[[], object]) -> str:
    """The message with which something is refused, checked to be a sentence on one line."""
    with pytest.raises(InputError) as raised:
        read()
    message = str(raised.value)
    assert "\n" not in message
    assert "Traceback" not in message
    assert len(message) < 600
    return message
