"""Every command and snippet of the documents, the notebooks' text and the docstrings is executed by some test.

`documented.py` says how. A command without an entry there fails here, and so does an entry that nothing documents.
"""

import json
import os
import re
import runpy
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
import warnings
from collections.abc import Mapping
from pathlib import Path
from unittest import mock

import pytest
import torch
from documented import (
    COMMANDS,
    SNIPPETS,
    calls_something,
    docstrings,
    documented_commands,
    documented_snippets,
    examples,
)
from made_up import walks
from writers import write_libero

from rfsq_robust import ActionRFSQAE, Checkpoint, Conditioning, save_checkpoint
from rfsq_tokenizer import RFSQTokenizer
from workbook.common.paths import NOTEBOOKS, REPOSITORY
from workbook.options import check_before_start, parse_arguments
from workbook.report import documents
from workbook.simulation.scene import missing_packages

DOCUMENTED = documented_commands()
BIN = Path(sys.prefix) / "bin"
INSTALLED = ("test", "integrations", "sim")  # what environment.sh can install
CHECKPOINTS: dict[str, Conditioning] = {
    "rfsq_best.pt": "none",
    "rfsq_robust_best.pt": "layernorm",
    "rfsq_robust_scale_best.pt": "scale",
}


def test_every_documented_command_is_known_and_every_known_one_documented() -> None:
    assert [command for command in DOCUMENTED if command not in COMMANDS] == []
    assert [command for command in COMMANDS if command not in DOCUMENTED] == []


def test_every_documented_snippet_is_known_and_every_known_one_documented() -> None:
    assert sorted(documented_snippets()) == sorted(SNIPPETS)


def test_commands_and_snippets_are_found_where_they_can_stand() -> None:
    """The guard of the two above: they can fail."""
    assert {"./run_all.sh --smoke", "./run_all.sh --help", "python -m workbook.report.documents OUT"} <= set(DOCUMENTED)
    assert "rfsq_tokenizer.py: module" in documented_snippets()
    assert not calls_something("position = layer + step")


@pytest.mark.parametrize("by", sorted({*SNIPPETS.values(), *(each.by for each in COMMANDS.values() if each.by)}))
def test_what_is_executed_elsewhere_is(by: str) -> None:
    file, _, name = by.partition("::")
    if name:
        assert f"\ndef {name}(" in (REPOSITORY / "tests" / file).read_text(encoding="utf8")
    else:
        assert not COMMANDS[by].by


def to_execute(slow: bool) -> list[str]:
    own = [line for line in DOCUMENTED if line in COMMANDS and not COMMANDS[line].by]
    return [line for line in own if COMMANDS[line].slow == slow]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current one, of a person who has activated the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(BIN), prepend=":")
    for name in [name for name in os.environ if name.startswith("WORKBOOK_")]:
        monkeypatch.delenv(name)
    return tmp_path


def prepared(line: str, folder: Path) -> list[str]:
    """The words to execute, after what the command needs was put into its folder."""
    command = COMMANDS[line]
    if command.needs == "simulator":
        if problem := missing_packages():
            pytest.skip(problem)
    elif command.needs:
        pytest.importorskip(command.needs)
    for name in command.files:
        put(folder / name)
    words = [command.replace.get(word, word) for word in shlex.split(line)] + shlex.split(command.more)
    return [str(REPOSITORY / word) if (REPOSITORY / word).is_file() else word for word in words]


def put(path: Path) -> None:
    """A checkpoint, by its name, or else recordings."""
    if path.name in CHECKPOINTS:
        bounds = {"min": -torch.ones(7), "max": torch.ones(7)}
        save_checkpoint(path, Checkpoint(ActionRFSQAE(conditioning=CHECKPOINTS[path.name]), 1, 0.1, bounds))
    else:
        write_libero(path / "task_demo.hdf5", walks(1, 12))


def execute(words: list[str], folder: Path, environment: Mapping[str, str] | None = None) -> str:
    """What the command says; it must end well."""
    given = os.environ | dict(environment or {})
    done = subprocess.run(words, cwd=folder, env=given, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def execute_python(words: list[str]) -> None:
    """As `python WORDS` would, but in this process, where torch is imported already."""
    handlers = {stop: signal.getsignal(stop) for stop in (signal.SIGINT, signal.SIGTERM)}
    arguments = words[1:] if words[0] == "-m" else words
    code: str | int | None = None
    try:
        with mock.patch.dict(os.environ), mock.patch.object(sys, "argv", arguments), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of a module that is imported already
            if words[0] == "-m":
                runpy.run_module(words[1], run_name="__main__", alter_sys=True)
            else:
                runpy.run_path(words[0], run_name="__main__")
    except SystemExit as stop:
        code = stop.code
    finally:
        for stop, handler in handlers.items():
            signal.signal(stop, handler)
    assert code in (0, None)


def check_modal(words: list[str]) -> None:
    """Modal's own command line takes the words; what they ask for needs an account."""
    from modal.cli.entry_point import entrypoint_cli

    command = entrypoint_cli
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    command.make_context("modal", words)


def recording_environment(folder: Path) -> Path:
    """An environment in which all is installed, and whose python only writes down how it is called."""
    python = folder / "environment" / "bin" / "python"
    python.parent.mkdir(parents=True)
    log = f"open({str(folder / 'calls')!r}, 'a').write(json.dumps(sys.argv[1:]) + '\\n')"
    # Through the shell, for the path of an interpreter may hold a space.
    program = shlex.quote(f"import json, sys\n{log}\n")
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c {program} "$@"\n')
    python.chmod(0o755)
    for extra in INSTALLED:
        (folder / "environment" / f".installed-{extra}").write_text(stamp())
    return folder / "environment"


def stamp() -> str:
    """What environment.sh leaves behind where all is installed."""
    return execute(["bash", "-c", f"source {shlex.quote(str(REPOSITORY))}/environment.sh; wanted"], REPOSITORY)


def recorded_calls(words: list[str], folder: Path) -> list[list[str]]:
    """How a script of the shell calls python."""
    execute(words, folder, {"WORKBOOK_VENV": str(recording_environment(folder))})
    return [json.loads(line) for line in (folder / "calls").read_text().splitlines()]


@pytest.mark.parametrize("line", to_execute(slow=False))
def test_a_command_ends_well(line: str, folder: Path) -> None:
    program, *words = prepared(line, folder)
    if program == "python":
        execute_python(words)
    elif program == "modal":
        check_modal(words)
    elif program.endswith("run_tests.sh"):
        assert_tests_are_run(recorded_calls([program, *words], folder))
    else:
        execute([program, *words], folder)
    assert [name for name in COMMANDS[line].leaves if not (folder / name).exists()] == []


@pytest.mark.slow
@pytest.mark.parametrize("line", to_execute(slow=True))
def test_a_slow_command_ends_well(line: str, folder: Path) -> None:
    if line.startswith("./"):
        for extra in ("test", "sim") if "--with-" in line else ("test",):
            found = BIN.parent / f".installed-{extra}"
            if not found.exists() or found.read_text() != stamp():
                pytest.skip(f"would install the extra '{extra}' first, as ./run_tests.sh --with-replay does")
    words = prepared(line, folder)
    execute(words, REPOSITORY if line.startswith("pip") else folder, {"WORKBOOK_VENV": sys.prefix})
    assert [name for name in COMMANDS[line].leaves if not (folder / name).exists()] == []


@pytest.mark.parametrize("line", to_execute(slow=True))
def test_the_arguments_of_a_slow_command_are_taken(line: str, folder: Path) -> None:
    """By what takes them when it is executed: the shell, the parser, and the check before the work."""
    program, *words = prepared(line, folder)
    parse = COMMANDS[line].parse
    if parse:
        parse(words[words.index("-m") + 2 :] if "-m" in words else words[1:])
    elif program == "pip":
        assert_can_be_installed(words)
    else:
        (call,) = recorded_calls([program, *words], folder)
        assert call == ["-m", "workbook.run", *words]
        check_before_start(parse_arguments(call[2:]))


def assert_can_be_installed(words: list[str]) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf8"))["project"]
    assert "-c" not in words or words[words.index("-c") + 1] == str(REPOSITORY / "constraints.txt")
    extras = re.fullmatch(r"\.\[([a-z,]+)\]", words[words.index("-e") + 1])
    assert extras
    assert set(extras[1].split(",")) <= set(project["optional-dependencies"])


def assert_tests_are_run(calls: list[list[str]], marker: str = "not slow") -> None:
    assert [call[1] for call in calls] == ["ruff", "ruff", "mypy", "pytest"]
    assert calls[-1][:2] == ["-m", "pytest"]
    assert calls[-1][calls[-1].index("-m", 2) + 1] == marker


def test_options_of_the_test_command_are_handled(folder: Path) -> None:
    calls = recorded_calls([str(REPOSITORY / "run_tests.sh"), "--slow", "-k", "two words"], folder)
    assert_tests_are_run(calls, marker="")
    assert calls[-1][-2:] == ["-k", "two words"]


@pytest.mark.parametrize("name", ["run_all.sh", "run_tests.sh", "environment.sh"])
def test_the_shell_can_read_its_scripts(name: str, folder: Path) -> None:
    execute(["bash", "-n", str(REPOSITORY / name)], folder)


def test_the_environment_can_be_activated(folder: Path) -> None:
    ask = "import sys; print(sys.prefix)"
    said = execute(["bash", "-c", f"source {shlex.quote(str(BIN))}/activate && python -c '{ask}'"], folder)
    assert said.strip() == sys.prefix


def test_taking_over_results_rewrites_the_documents(folder: Path) -> None:
    """In a copy of the repository with an old README, from the committed results."""
    copy, out = folder / "copy", folder / "OUT"
    for name in ("workbook", "docs", "notebooks", "sample"):
        shutil.copytree(REPOSITORY / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("*.py"), REPOSITORY / "pyproject.toml"]:
        shutil.copy(path, copy)
    shutil.copytree(documents.SAMPLE_RUN, out)
    shutil.rmtree(copy / "docs" / "sample")
    readme = copy / "README.md"
    old = documents.BLOCK.sub(r"<!-- results: \1 -->\nold\n<!-- end -->", readme.read_text(encoding="utf8"))
    readme.write_text(old, encoding="utf8")
    execute(["python", "-m", "workbook.report.documents", str(out)], copy, {"PYTHONPATH": str(copy)})
    for name in (*documents.DOCUMENTS, *(f"notebooks/{path.name}" for path in NOTEBOOKS.glob("*.ipynb"))):
        assert (copy / name).read_bytes() == (REPOSITORY / name).read_bytes()


def test_jupyterlab_shows_the_notebooks(folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = [f"--port={port}", "--IdentityProvider.token=here", "--no-browser", "--allow-root"]
    places = {f"JUPYTER_{name}_DIR": str(folder / name) for name in ("CONFIG", "RUNTIME", "DATA")}
    command = [str(BIN / "jupyter"), "lab", f"{NOTEBOOKS}/", *settings]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=os.environ | places, **quiet) as server:
        try:
            listed = answer(f"http://127.0.0.1:{port}/api/contents/?token=here")
            page = answer(f"http://127.0.0.1:{port}/lab?token=here").decode()
        finally:
            server.terminate()
    names = {entry["name"] for entry in json.loads(listed)["content"]}
    assert names >= {path.name for path in NOTEBOOKS.glob("*.ipynb")}
    assert "<title>JupyterLab</title>" in page


def answer(address: str) -> bytes:
    """Of a server that may still be starting."""
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(address, timeout=30) as response:
                return response.read()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def test_the_snippet_of_the_tokenizers_docstring_runs(folder: Path) -> None:
    put(folder / "rfsq_robust_scale_best.pt")
    (snippet,) = examples(dict(docstrings())["rfsq_tokenizer.py: module"])
    scope = {"RFSQTokenizer": RFSQTokenizer, "actions": torch.rand(4, 8, 7).numpy()}
    exec(snippet, scope)
    assert scope["actions"].shape == (4, 8, 7)
