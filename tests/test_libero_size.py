"""The made-up data set of LIBERO's size: as many steps as asked for, read and taken as robot motion."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import libero_size
from workbook.data.config import DataConfig
from workbook.data.dataset import prepare_dataset


def test_it_is_read_as_motion_of_the_size_asked_for(tmp_path: Path) -> None:
    libero_size.write(tmp_path / "made", episodes=60, steps=6_000, tasks=3)
    prepared = prepare_dataset(str(tmp_path / "made"), DataConfig())
    dataset = prepared.dataset
    episodes = [*dataset.part("train"), *dataset.part("validation"), *dataset.part("test")]
    assert (len(episodes), sum(len(each.actions) for each in episodes)) == (60, 6_000)
    assert len({each.task for each in episodes}) == 3


def test_nothing_is_written_into_a_folder_with_something_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "note").write_text("mine")
    assert libero_size.main([str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["note"]
    assert libero_size.main([]) == 2
