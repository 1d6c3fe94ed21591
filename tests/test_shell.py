"""The two commands in an environment that is set up for other Python programs, as ROS does for its own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from workbook.common.paths import REPOSITORY

# Of an environment in which everything is installed, and the checks before the tests have passed.
PYTHON = """#!/bin/sh
case "$2" in ruff|mypy) exit 0;; esac
exec '{python}' "$@"
"""
TESTS = """
import os
import sys
from importlib.util import find_spec

def test_inside(request):
    assert "sitecustomize_of_others" not in sys.modules
    for name in ("torch", "rfsq_robust"):
        assert not find_spec(name).origin.startswith({foreign!r})
    manager = request.config.pluginmanager
    assert manager.has_plugin("hypothesispytest") and "PYTEST_XDIST_WORKER" in os.environ
    assert not manager.has_plugin("anyio") and not manager.has_plugin("of_others")
"""
RUN = """
import json, os, sys
print(json.dumps([sys.path, {name: value for name, value in os.environ.items() if name.startswith("PY")}]))
"""


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A folder of another project: modules of our names, a plugin of pytest, and one that no Python starts with."""
    folder = tmp_path / "of others"
    for name in ("torch", "rfsq_robust", "plugin_of_others", "sitecustomize", "startup"):
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.py").write_text("raise SystemExit('of others')")
    (folder / "others-1.0.dist-info").mkdir()
    (folder / "others-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: others\nVersion: 1.0\n")
    (folder / "others-1.0.dist-info" / "entry_points.txt").write_text("[pytest11]\nof_others = plugin_of_others\n")
    return folder


@pytest.fixture
def environment(foreign: Path, tmp_path: Path) -> dict[str, str]:
    of_others = {
        "PYTHONPATH": str(foreign),
        "PYTHONHOME": str(foreign),
        "PYTHONSTARTUP": str(foreign / "startup.py"),
        "PYTEST_ADDOPTS": "-k nothing",
        "PYTEST_PLUGINS": "plugin_of_others",
    }
    return os.environ | of_others | {"WORKBOOK_VENV": str(tmp_path / "venv")}


@pytest.fixture
def repository(tmp_path: Path, foreign: Path) -> Path:
    """The commands, with a test and a runner that say what they were started with."""
    folder, tools = tmp_path / "repository", tmp_path / "venv" / "bin"
    for made in (folder / "tests", folder / "workbook", tools):
        made.mkdir(parents=True)
    for name in ("run_all.sh", "run_tests.sh", "environment.sh", "constraints.txt", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, folder)
    (folder / "tests" / "test_inside.py").write_text(TESTS.format(foreign=str(foreign)))
    (folder / "workbook" / "run.py").write_text(RUN)
    (tools / "python").write_text(PYTHON.format(python=sys.executable))
    (tools / "python").chmod(0o755)
    stamp = 'source ./environment.sh; for extra in test integrations; do wanted >"$venv/.installed-$extra"; done'
    subprocess.run(["bash", "-c", stamp], cwd=folder, env={"WORKBOOK_VENV": str(tools.parent)}, check=True)
    return folder


def test_what_is_set_for_other_programs_does_not_reach_the_tests(repository: Path, environment: dict[str, str]) -> None:
    command = [str(repository / "run_tests.sh"), "--numprocesses", "1", "-p", "no:cacheprovider"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_what_is_set_for_other_programs_does_not_reach_a_run(
    repository: Path, environment: dict[str, str], foreign: Path, arguments: list[str]
) -> None:
    """Nor its kernels, which inherit what the run has."""
    command = [str(repository / "run_all.sh"), *arguments]
    done = subprocess.run(
        command, cwd=repository, capture_output=True, text=True, env=environment, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    path, variables = json.loads(done.stdout)
    assert str(foreign) not in path
    assert not [name for name, value in variables.items() if str(foreign) in value]
    assert "PYTEST_PLUGINS" not in variables
