"""The first cell of every notebook: on Colab it installs this repository and nothing in the place of what is there.

A real kernel runs it, with stand-ins for `git` and `pip` on its PATH that write down how they were called.
"""

import shlex
import shutil
import sys
import tomllib
from ast import literal_eval
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager
from packaging.requirements import Requirement

from workbook.common.paths import NOTEBOOKS, REPOSITORY
from workbook.report.documents import repository_address

NAME = "robust-rfsq-workbook"
PUBLISHED = ("workbook", "rfsq_robust.py", "pyproject.toml")  # as much of the repository as the tests need
# What Colab's kernel is made of, by the requirements of google-colab 1.0.0; another version can break the runtime.
KERNEL_OF_COLAB = {
    "ipykernel": "6.17.1",
    "ipython": "7.34.0",
    "notebook": "6.5.7",
    "pandas": "2.2.2",
    "tornado": "6.4.2",
}
GIT = """#!/bin/sh
echo "git $*" >> {log}
[ -e {offline} ] && exit 128
for target; do :; done
mkdir "$target" && cd {repository} && cp -r {published} "$target"
"""
PIP = """#!/bin/sh
echo "pip $* in $PWD" >> {log}
[ "$1" = list ] && {{ [ -e {listed} ] || {python} -m pip "$@" > {listed}; }} && exec cat {listed}
[ -e pyproject.toml ] && [ ! -e {offline} ]
"""


def first_cell(stem: str) -> str:
    """The source of a notebook's first code cell."""
    notebook = nbformat.read(NOTEBOOKS / f"{stem}.ipynb", as_version=4)
    return next(cell.source for cell in notebook.cells if cell.cell_type == "code")


STEMS = [path.stem for path in sorted(NOTEBOOKS.glob("*.ipynb"))]
CELL = first_cell(STEMS[0])


@dataclass(frozen=True)
class Machine:
    """A folder in the place of /content, and a kernel that begins there."""

    content: Path
    tools: Path
    client: BlockingKernelClient

    @property
    def clone(self) -> Path:
        return self.content / NAME

    @property
    def calls(self) -> list[str]:
        """How git and pip were called, in turn."""
        log = self.tools / "log"
        return log.read_text().splitlines() if log.exists() else []

    def run(self, source: str) -> dict[str, Any]:
        """The kernel's reply to a cell: its 'status', and 'ename' and 'evalue' of an error."""
        cell = source.replace("/content", str(self.content))
        return self.client.execute_interactive(cell, timeout=60, output_hook=lambda message: None)["content"]

    def value(self, expression: str) -> Any:
        reply = self.client.execute_interactive("", timeout=60, user_expressions={"value": expression})
        return literal_eval(reply["content"]["user_expressions"]["value"]["data"]["text/plain"])

    def go_offline(self) -> None:
        (self.tools / "offline").touch()


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tools")
    paths = {name: folder / name for name in ("log", "offline", "listed")}
    paths |= {"python": sys.executable, "repository": REPOSITORY}
    for name, script in (("git", GIT), ("pip", PIP)):
        quoted = {key: shlex.quote(str(value)) for key, value in paths.items()}
        (folder / name).write_text(script.format(**quoted, published=" ".join(PUBLISHED)))
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def client(tools: Path) -> Iterator[BlockingKernelClient]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(tools), prepend=":")
        manager = KernelManager()
        manager.start_kernel(cwd=str(tools), extra_arguments=["--log-level=50"])
    client = manager.blocking_client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


@pytest.fixture
def machine(tmp_path: Path, tools: Path, client: BlockingKernelClient) -> Machine:
    """One on which nothing was done yet, and that is not Colab's."""
    for name in ("log", "offline"):
        (tools / name).unlink(missing_ok=True)
    machine = Machine(tmp_path, tools, client)
    machine.run("import os, sys\nos.chdir('/content')\nsys.modules.pop('google.colab', None)")
    machine.run("for name in [name for name in sys.modules if name.startswith('workbook')]: del sys.modules[name]")
    return machine


@pytest.fixture
def colab(machine: Machine) -> Machine:
    machine.run("import types\nsys.modules['google.colab'] = types.ModuleType('google.colab')")
    return machine


def test_every_notebook_begins_with_the_same_cell() -> None:
    """The last one, which plays in the simulator, also asks for that."""
    *others, replay = STEMS
    assert {first_cell(stem) for stem in others} == {CELL}
    assert first_cell(replay) == CELL.replace('"."', '".[sim]"') != CELL


def test_elsewhere_the_cell_does_nothing(machine: Machine) -> None:
    assert machine.run(CELL)["status"] == "ok"
    assert machine.calls == []
    assert machine.value("os.getcwd()") == str(machine.content)
    assert list(machine.content.iterdir()) == []


def test_on_colab_the_repository_is_installed_from_where_it_is_published(colab: Machine) -> None:
    assert colab.run(CELL)["status"] == "ok"
    assert colab.calls == [
        f"git clone -q --depth 1 {repository_address()} {colab.clone}",
        f"pip list --format=freeze --exclude-editable in {colab.clone}",
        f"pip install -e . -c {colab.content}/installed.txt in {colab.clone}",
    ]
    assert (colab.clone / "pyproject.toml").read_bytes() == (REPOSITORY / "pyproject.toml").read_bytes()


def test_what_colab_has_is_pinned_to_the_version_that_it_has(colab: Machine) -> None:
    colab.run(CELL)
    pins = dict(line.split("==") for line in (colab.content / "installed.txt").read_text().splitlines())
    assert NAME not in pins
    for name in ("torch", "numpy", "ipykernel", "tornado"):
        assert pins[name] == version(name)


def test_the_kernel_goes_on_with_the_repository_that_it_fetched(colab: Machine) -> None:
    """Without being started anew, though an editable install reaches only kernels that begin after it."""
    colab.run(CELL)
    colab.run("import workbook.common.paths")
    assert colab.value("str(workbook.common.paths.REPOSITORY)") == str(colab.clone)
    assert colab.value("os.getcwd()") == str(colab.clone)


def test_the_cell_can_be_run_again_and_in_every_notebook_of_a_machine(colab: Machine) -> None:
    colab.run(CELL)
    (colab.clone / "out").mkdir()
    first = colab.calls
    for stem in STEMS:
        assert colab.run(first_cell(stem))["status"] == "ok"
    again = first[1:] * len(STEMS)
    again[-1] = again[-1].replace(" . ", " .[sim] ")
    assert colab.calls == first + again
    assert (colab.clone / "out").is_dir()
    assert colab.value("os.getcwd()") == str(colab.clone)


@pytest.mark.parametrize("fetched", [False, True], ids=["git fails", "pip fails"])
def test_where_the_repository_cannot_be_installed_the_cell_fails(colab: Machine, fetched: bool) -> None:
    if fetched:
        colab.run(CELL)
    colab.go_offline()
    reply = colab.run(CELL)
    assert (reply["status"], reply["ename"]) == ("error", "RuntimeError")
    assert "could not be installed" in reply["evalue"]
    shutil.rmtree(colab.clone, ignore_errors=True)
    (colab.tools / "offline").unlink()
    assert colab.run(CELL)["status"] == "ok"


def test_the_project_takes_colabs_kernel_as_it_is() -> None:
    """A bound above what is pinned would leave pip without a solution."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf8"))["project"]
    for requirement in map(Requirement, project["dependencies"]):
        if requirement.name in KERNEL_OF_COLAB:
            assert requirement.specifier.contains(KERNEL_OF_COLAB[requirement.name]), str(requirement)
