"""What is needed to make a result again: code, data, versions, machine, command."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import rfsq_robust
from workbook.common.paths import REPOSITORY

PACKAGES = (
    "torch",
    "numpy",
    "h5py",
    "pyarrow",
    "huggingface_hub",
    "matplotlib",
    "seaborn",
    "papermill",
    "nbconvert",
    "jupyterlab",
)
# Set by the runner; notebooks run by hand have neither.
COMMAND_VARIABLE = "WORKBOOK_COMMAND"
PREFIX_VARIABLE = "WORKBOOK_PREFIX"
PAUSED_VARIABLE = "WORKBOOK_PAUSED"  # seconds, of a run that was cut off and went on


def collect() -> dict[str, Any]:
    """Code, versions, machine and command of this process.

    Raises:
        RuntimeError: the notebook runs in another environment than the runner that started it.
    """
    expected = os.environ.get(PREFIX_VARIABLE, sys.prefix)
    if expected != sys.prefix:
        raise RuntimeError(f"the kernel runs in {sys.prefix}, not in {expected}, where the workbook is installed")
    return {
        "code": git_describe(),
        "rfsq_robust_sha256": sha256_of(Path(rfsq_robust.__file__)),
        "python": platform.python_version(),
        "packages": _versions(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "command": os.environ.get(COMMAND_VARIABLE, ""),
        "paused_seconds": int(os.environ.get(PAUSED_VARIABLE, "0")),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _versions() -> dict[str, str]:
    """Of the packages that are there; Colab has no papermill."""
    found = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def git_describe() -> str:
    """`git describe` of the repository, with -dirty where files differ; 'not a git checkout' where it is none."""
    try:
        command = ["git", "describe", "--always", "--tags", "--dirty"]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return "not a git checkout"
    return done.stdout.strip()


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
