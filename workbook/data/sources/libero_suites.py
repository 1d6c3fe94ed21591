"""LIBERO's suites: which tasks they have, and where on the Hugging Face hub their actions lie."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from workbook.common.errors import InputError
from workbook.common.note import Note, note
from workbook.data.episodes import Episode

REPOSITORY = "lerobot/libero"  # LeRobot v3, the images in separate video files
FILTERED = note("filtered", repository=REPOSITORY)
ALL = "libero"


@cache
def _suites() -> dict[str, frozenset[str]]:
    content = json.loads((Path(__file__).parent / "libero_suites.json").read_text(encoding="utf8"))
    return {name: frozenset(tasks) for name, tasks in content["suites"].items()}


def names() -> tuple[str, ...]:
    """What can be given as --data: each suite, and all of them."""
    return (*_suites(), ALL)


def is_libero_task(task: str) -> bool:
    return any(_plain(task) in tasks for tasks in _suites().values())


def select(episodes: list[Episode], suite: str, place: str) -> tuple[list[Episode], list[Note]]:
    """The episodes of a suite's tasks, and what to know of them.

    Raises:
        InputError: there is none.
    """
    wanted = frozenset().union(*_suites().values()) if suite == ALL else _suites()[suite]
    chosen = [episode for episode in episodes if _plain(episode.task) in wanted]
    found = {_plain(episode.task) for episode in chosen}
    if not chosen:
        raise InputError(f"{place}: holds no task of {suite}; its tasks may be named otherwise: give hf://{REPOSITORY}")
    lacking = len(wanted) - len(found)
    notes = [note("tasks_lacking", lacking=lacking, of=len(wanted), suite=suite, place=place)] if lacking else []
    return chosen, notes


def _plain(task: str) -> str:
    return " ".join(task.lower().split())
