"""The commands and Python snippets that documents, notebooks and docstrings show, and how each command is executed."""

from __future__ import annotations

import ast
import re
import shlex
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import nbformat
from scripts import load_script

from workbook.common.paths import NOTEBOOKS, REPOSITORY
from workbook.report import documents
from workbook.simulation.recorder import record
from workbook.training.sweep import parse_sweep, runs_of

COMMAND = re.compile(r"\./\S+\.sh(?= |$)|(?:python3?|pip|modal|source|papermill|tensorboard|\.venv/bin/\S+) ")
CODE_FILES = sorted([*REPOSITORY.glob("*.py"), *REPOSITORY.glob("workbook/**/*.py")])


@dataclass(frozen=True)
class Command:
    """How a documented command is executed, in a folder of its own.

    files: what lies there; checkpoints by their names, and recordings.
    replace: words of the command that stand for something else.
    more: options added behind it, so that it takes seconds and writes nowhere else.
    leaves: what is there afterwards.
    parse: of a slow one in Python, what takes its arguments without the work.
    needs: a package that not every environment has, or "simulator".
    by: what executes it instead: a test, as file::name, or another command that says the same.
    """

    files: tuple[str, ...] = ()
    replace: Mapping[str, str] = field(default_factory=dict)
    more: str = ""
    leaves: tuple[str, ...] = ()
    slow: bool = False
    parse: Callable[[Sequence[str]], None] | None = None
    needs: str = ""
    by: str = ""


def parse_sweep_command(words: Sequence[str]) -> None:
    script = load_script("train_rfsq_robust")
    options = script.parse_arguments(words)
    run = script.run_of(options)
    assert len(runs_of(parse_sweep(options.sweep, run.job), run)) == 25


def parse_record_command(words: Sequence[str]) -> None:
    assert record.jobs_of(record.parse_arguments(words))


SMOKE = "--smoke --num-episodes 12"
RUN: dict[str, Any] = {
    "more": f"{SMOKE} --out out",
    "leaves": ("out/results.json", "out/reports/index.html"),
    "slow": True,
}
DRY: dict[str, Any] = {"more": "--dry-run", "slow": True}
GUIDE = "--num-episodes 50 --epochs 100 --batch-size 64"
IN_CLOUD = "training/test_cloud.py::test_the_guides_command_trains_what_it_trains_here"
SWEPT_IN_CLOUD = "training/test_cloud.py::test_a_sweep_is_mapped_over_containers_and_gathered_here"
SWEPT_BY_JOBS = "training/test_sweep_by_jobs.py::test_a_sweep_by_jobs_has_the_rows_of_one_here"
EXPORTED = "export/test_export_onnx.py::test_the_command_says_what_it_wrote_and_how_far_it_agrees_with_torch"

# To document a command, add a line here.
COMMANDS: dict[str, Command] = {
    "./run_all.sh": Command(**RUN),
    "./run_all.sh --data path/to/recordings --out results": Command(
        ("path/to/recordings",), more=SMOKE, leaves=("results/results.json",), slow=True
    ),
    "./run_all.sh --data path/to/recordings --naive-checkpoint rfsq_best.pt": Command(
        ("path/to/recordings", "rfsq_best.pt"), **RUN
    ),
    "./run_all.sh --predictions predictions.pt": Command(
        by="test_run.py::test_what_the_users_own_phase_2_predicts_is_judged"
    ),
    "./run_all.sh --with-replay": Command(**RUN),
    "./run_all.sh --with-simulator": Command(**RUN),
    "./run_all.sh --full": Command(**RUN),
    "./run_all.sh --codec my_tokenizer.py:MyTokenizer": Command(
        by="evaluation/test_brought_codec.py::test_it_has_rows_like_any_other"
    ),
    "./run_all.sh --smoke": Command(**RUN),
    "./run_all.sh --help": Command(),
    "./run_all.sh --data ...": Command(by="./run_all.sh --data path/to/recordings --out results"),
    "./run_tests.sh": Command(),
    "./run_tests.sh --with-replay": Command(),
    "python -m benchmarks": Command(
        by="test_benchmarks.py::test_the_command_times_every_codec_and_writes_what_it_shows"
    ),
    "python -m benchmarks.libero_size FOLDER": Command(
        by="test_libero_size.py::test_it_is_read_as_motion_of_the_size_asked_for"
    ),
    "python -m workbook.training.look_inside": Command(by="test_look_inside.py::test_the_script_makes_them_anew"),
    "python -m benchmarks --parts whole --device cuda": Command(
        by="test_benchmarks.py::test_training_is_timed_alone_and_in_stacks"
    ),
    f"python train_rfsq_robust.py --use-layernorm False {GUIDE}": Command(more="--epochs 2", leaves=("rfsq_best.pt",)),
    f"python train_rfsq_robust.py --use-layernorm True {GUIDE}": Command(
        more="--epochs 2", leaves=("rfsq_robust_best.pt",)
    ),
    "python train_rfsq_robust.py --conditioning scale --epochs 200 --resume": Command(
        more="--epochs 2 --num-episodes 12", leaves=("rfsq_robust_scale_best.pt",)
    ),
    "python train_rfsq_robust.py --sweep seeds=5,conditioning=all --models-dir models": Command(
        more="--epochs 1 --num-episodes 12", leaves=("models/sweep_results.json",), slow=True, parse=parse_sweep_command
    ),
    "python train_rfsq_robust.py --sweep seeds=5,conditioning=all --models-dir models --on slurm "
    "--slurm-config slurm.toml": Command(by=SWEPT_BY_JOBS),
    "python test_layernorm_improvement.py --naive-model rfsq_best.pt --robust-model rfsq_robust_best.pt "
    "--num-samples 1000 --chunk-len 8": Command(("rfsq_best.pt", "rfsq_robust_best.pt")),
    "python -m workbook.export.tokens --checkpoint rfsq_robust_scale_best.pt --data sample --out tokens": Command(
        ("rfsq_robust_scale_best.pt",),
        more="--num-episodes 12",
        leaves=("tokens/tokens.h5", "tokens/tokens.parquet"),
    ),
    "python train_rfsq_robust.py --help": Command(),
    "python -m workbook.export.tokens --help": Command(),
    "python -m workbook.export.onnx --checkpoint rfsq_robust_scale_best.pt --out onnx": Command(by=EXPORTED),
    "python -m workbook.export.onnx --help": Command(),
    "python -m workbook.simulation.recorder.record --out FOLDER": Command(
        more="--task libero_goal:7 --episodes 1",
        leaves=("FOLDER/libero_goal",),
        slow=True,
        parse=parse_record_command,
        needs="simulator",
    ),
    "python -m workbook.report.budgets OUT --to FOLDER": Command(
        by="report/test_budgets.py::test_every_contrast_stands_at_every_budget"
    ),
    "python -m workbook.report OUT": Command(
        by="report/test_pages.py::test_a_changed_template_changes_the_pages_and_nothing_else"
    ),
    "python -m workbook.report.speed OUT": Command(
        by="report/test_speed.py::test_a_run_is_told_without_the_paths_of_its_machine"
    ),
    "python -m workbook.report.documents OUT": Command(
        by="test_commands.py::test_taking_over_results_rewrites_the_documents"
    ),
    "pip install -c constraints.txt -e '.[sim]'": Command(needs="simulator", **DRY),
    "pip install -c constraints.txt -e '.[lab]'": Command(needs="jupyterlab", **DRY),
    "pip install -c constraints.txt -e '.[modal]'": Command(needs="modal", **DRY),
    "pip install -c constraints.txt -e '.[slurm]'": Command(needs="submitit", **DRY),
    "pip install -e '.[onnx]'": Command(needs="onnx", **DRY),
    f"modal run train_rfsq_robust.py --use-layernorm True {GUIDE}": Command(by=IN_CLOUD),
    "modal run train_rfsq_robust.py --sweep seeds=5,conditioning=all --gpu A10G": Command(by=SWEPT_IN_CLOUD),
    "modal volume get rfsq-models rfsq_robust_best.pt": Command(needs="modal"),
    "modal volume put rfsq-data recordings": Command(needs="modal"),
    "source .venv/bin/activate": Command(by="test_commands.py::test_the_environment_can_be_activated"),
    ".venv/bin/jupyter lab notebooks/": Command(by="test_commands.py::test_jupyterlab_shows_the_notebooks"),
}

# The test that executes each Python snippet, by the heading that it stands under, or the docstring that it is of; a
# second one in the same place has (2) behind it.
PHASE_2_AND_3 = "report/test_documents.py::test_the_snippets_for_phase_2_and_3_run"
SNIPPETS: dict[str, str] = {
    "INTEGRATION_TO_PHASE2.md: Labels for Phase 2": PHASE_2_AND_3,
    "INTEGRATION_TO_PHASE2.md: Actions in Phase 3": PHASE_2_AND_3,
    "INTEGRATION_TO_PHASE2.md: The expected value instead of the most likely code": PHASE_2_AND_3,
    "INTEGRATION_TO_PHASE2.md: The options in code": PHASE_2_AND_3,
    "INTEGRATION_TO_PHASE2.md: The options in code (2)": PHASE_2_AND_3,
    "INTEGRATION_TO_PHASE2.md: Your own predictions, judged": (
        "evaluation/test_predictions_file.py::test_the_snippet_writes_such_a_file"
    ),
    "docs/tokenizers.md: RFSQ": PHASE_2_AND_3,
    "docs/tokenizers.md: A saved folder": PHASE_2_AND_3,
    "docs/tokenizers.md: KLT-RFSQ": PHASE_2_AND_3,
    "docs/tokenizers.md: The tokenizer of KLT-RFSQ": PHASE_2_AND_3,
    "docs/exports.md: Read an episode": PHASE_2_AND_3,
    "docs/exports.md: Read rows": PHASE_2_AND_3,
    "docs/exports.md: ONNX": "export/test_export_onnx.py::test_the_snippet_under_the_heading_onnx_runs",
    "docs/lerobot.md: The steps": "export/test_lerobot_adapter.py::test_tokens_and_mask_are_added_to_a_batch",
    "docs/method.md: LayerNorm with its statistics": PHASE_2_AND_3,
    "docs/codecs.md: A tokenizer of your own": "evaluation/test_brought_codec.py::test_it_has_rows_like_any_other",
    "workbook/export/klt_tokenizer.py: module": "export/test_klt_tokenizer.py::test_the_snippet_of_the_docstring_runs",
    "rfsq_tokenizer.py: module": "test_commands.py::test_the_snippet_of_the_tokenizers_docstring_runs",
}


def docstrings() -> Iterator[tuple[str, str]]:
    """(file: name, text) of every docstring; the name of a file's own is 'module'."""
    for path in CODE_FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and (text := ast.get_docstring(node)):
                yield f"{path.relative_to(REPOSITORY)}: {getattr(node, 'name', 'module')}", text


def prose() -> Iterator[str]:
    """Text that may name a command between backticks."""
    for name in documents.DOCUMENTS:
        yield re.sub(r"(?ms)^```.*?^```", "", (REPOSITORY / name).read_text(encoding="utf8"))
    for path in NOTEBOOKS.glob("*.ipynb"):
        yield from (c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown")
    yield from (text for _, text in docstrings())


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """(document: heading, text) of every fenced block of that language."""
    for name in documents.DOCUMENTS:
        heading = ""
        text = (REPOSITORY / name).read_text(encoding="utf8")
        for part in re.finditer(r"(?ms)^#+ ([^\n]+)|^```(\w*)\n(.*?)^```", text):
            heading = part[1] or heading
            if part[2] == language:
                yield f"{name}: {heading}", part[3]


def documented_commands() -> list[str]:
    """Every one once, without comments: between backticks, as a line of a docstring, and every line of bash."""
    lines = [" ".join(code.split()) for text in prose() for code in re.findall(r"`([^`]+)`", text)]
    lines += [line.strip() for _, text in docstrings() for line in text.replace("\\\n", " ").splitlines()]
    lines = [line for line in lines if COMMAND.match(line)]
    lines += [line for _, block in blocks("bash") for line in block.replace("\\\n", " ").splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    return sorted({shlex.join(each) for each in words if each})


def documented_snippets() -> list[str]:
    """Python blocks of the documents, and indented lines of docstrings that call something."""
    found = [key for key, _ in blocks("python")]
    for key, text in docstrings():
        found += [key for _ in examples(text)]
    return [key if key not in found[:i] else f"{key} ({found[:i].count(key) + 1})" for i, key in enumerate(found)]


def examples(docstring: str) -> list[str]:
    indented = map(textwrap.dedent, re.findall(r"(?m)(?:^    .*\n?)+", docstring))
    return [code for code in indented if calls_something(code)]


def calls_something(code: str) -> bool:
    try:
        return any(isinstance(node, ast.Call) for node in ast.walk(ast.parse(code)))
    except SyntaxError:
        return False
