"""Kernels of the linear algebra library: they are told, and with those that recorded the sample its last bits hold."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest
from kernels import RECORDED, can_run_recorded_kernels, on_recorded_kernels

from workbook.common.paths import REPOSITORY
from workbook.simulation.kernels import UNKNOWN, kernels

TO_THE_LAST_BIT = (
    "tests/simulation/test_scene.py::test_an_episode_plays_as_it_was_recorded",
    "tests/simulation/test_recorder.py::test_an_episode_of_the_sample_is_recorded_again",
)


def with_kernels(name: str, *command: str) -> str:
    """What a command of Python says with other kernels, which are chosen as a process begins."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OPENBLAS_CORETYPE": name}
    ended = subprocess.run(
        [sys.executable, *command], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.mark.skipif(kernels() == UNKNOWN, reason="scipy computes with another library than OpenBLAS here")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="OpenBLAS has other kernels to choose from here")
def test_kernels_that_are_chosen_are_told() -> None:
    code = "from workbook.simulation.kernels import kernels; print(kernels())"
    assert with_kernels("Nehalem", "-c", code).strip() == "Nehalem"


def test_with_the_recorded_kernels_the_sample_plays_and_is_recorded_again_to_the_last_bit(simulator: None) -> None:
    """On processors that have them but were told, or choose, to use others: there no other test looks at bits."""
    if on_recorded_kernels():
        pytest.skip(f"the tests themselves run on {RECORDED}")
    if not can_run_recorded_kernels():
        pytest.skip(f"this processor has no AVX-512, which {RECORDED} needs")
    said = with_kernels(RECORDED, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *TO_THE_LAST_BIT)
    assert "3 passed" in said or "other versions" in said
