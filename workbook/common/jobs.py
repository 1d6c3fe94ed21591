"""What those who hand out jobs and those who do them have in common: the types of both."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

ProgressStep = Callable[[], None]  # called by a job whenever it has done one of its steps
OnProgress = Callable[[int, int], None]  # told the steps done and those in all

Job = TypeVar("Job")
Result = TypeVar("Result")
Shared = TypeVar("Shared")
