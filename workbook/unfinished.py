"""A run that is cut off leaves what it has done in its hidden folder, and the same command goes on from there."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import torch

from workbook.common.digest import digest
from workbook.common.errors import InputError
from workbook.common.parallel import KEPT_VARIABLE, available_cores
from workbook.common.paths import NOTEBOOKS, REPOSITORY, OutputFolder, replacing
from workbook.common.provenance import PAUSED_VARIABLE
from workbook.common.stages import STAGES, read_document, stage_path

RECORD, JOBS = "done.json", "jobs"
WORTH_KEEPING = 2  # notebooks; the first reads the data, in seconds


@dataclass
class Unfinished:
    """A run in work, in its hidden folder.

    identity: a hash of all that decides what it comes to; "" of a run that is not to be gone on with. done: notebooks,
    in order; paused: seconds in which nobody went on.
    """

    work: OutputFolder
    identity: str
    done: list[str] = field(default_factory=list)
    paused: float = 0.0

    @property
    def jobs(self) -> Path:
        """Where jobs of the notebook that is in work leave their results."""
        return self.work.root / JOBS

    @property
    def is_worth_keeping(self) -> bool:
        """Whether enough is done; and nothing is published yet, for that begins with the stages."""
        return bool(self.identity) and len(self.done) >= WORTH_KEEPING and self.work.stages.exists()

    def add(self, notebook: str) -> None:
        self.done.append(notebook)
        self.write()
        for path in self.jobs.iterdir():
            path.unlink()

    def write(self) -> None:
        said = {name: value for name, value in asdict(self).items() if name != "work"}
        with replacing(self.work.root / RECORD) as temporary:
            temporary.write_text(json.dumps(said), encoding="utf8")

    def forget(self) -> None:
        """It is not to be gone on with from here: the next begins anew."""
        self.done = []
        self.write()


@contextmanager
def going_on(target: OutputFolder, identity: str) -> Iterator[Unfinished]:
    """The run that was cut off, where there is one of the same identity, or a new one; others go, which is said.

    At the end the folder goes, too, unless the run is cut off again.
    """
    found = [_left_in(root) for root in target.root.glob(".run-*")]
    same = [each for each in found if identity and each.identity == identity and _is_whole(each)]
    run = max(same, key=lambda each: len(each.done), default=None)
    for other in found:
        if other is not run:
            if other.is_worth_keeping:
                print(f"{target.root}: what another run had done up to {other.done[-1]} goes", flush=True)  # noqa: T201
            _remove(other.work.root)
    run = run or Unfinished(OutputFolder.at(tempfile.mkdtemp(prefix=".run-", dir=target.root)), identity)
    run.jobs.mkdir(exist_ok=True)
    run.write()
    os.environ[KEPT_VARIABLE], os.environ[PAUSED_VARIABLE] = str(run.jobs), str(round(run.paused))
    try:
        yield run
    finally:
        del os.environ[KEPT_VARIABLE], os.environ[PAUSED_VARIABLE]
        if run.is_worth_keeping:
            said = f"the same command goes on after {run.done[-1]}; without {run.work.root} it begins anew"
            print(f"\n{said}", file=sys.stderr)  # noqa: T201
        else:
            _remove(run.work.root)


def _left_in(root: Path) -> Unfinished:
    """What the folder says of itself; one that says nothing, or is somebody else's, has done nothing."""
    work = OutputFolder(root)
    try:
        said = json.loads((root / RECORD).read_text(encoding="utf8"))
        last_sign = max(path.stat().st_mtime for path in (root, *root.glob("*.json")))
        if root.stat().st_uid == os.getuid():  # its results are unpickled
            paused = float(said["paused"]) + max(time.time() - last_sign, 0.0)
            return Unfinished(work, str(said["identity"]), [str(name) for name in said["done"]], paused)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return Unfinished(work, "")


def _is_whole(run: Unfinished) -> bool:
    """Whether the stages that it has done are as their notebooks wrote them."""
    try:
        for stage, notebook in STAGES.items():
            if notebook in run.done and stage_path(run.work, stage).exists():
                read_document(run.work, stage)
    except (InputError, OSError):
        return False
    return run.is_worth_keeping


def _remove(root: Path) -> None:
    """The record first, so that no half of a folder is taken for a whole one."""
    (root / RECORD).unlink(missing_ok=True)
    shutil.rmtree(root, ignore_errors=True)


def identity_of(decided: Sequence[Any]) -> str:
    """A hash of what was decided and read, and of all else that notebooks hang on: code, packages, machine."""
    files = [REPOSITORY / "rfsq_robust.py", *NOTEBOOKS.glob("*.ipynb"), *(REPOSITORY / "workbook").rglob("[!.]*.*")]
    code = [
        (str(path), path.read_bytes())
        for path in sorted(files)
        if path.is_file() and not {"__pycache__", ".ipynb_checkpoints"} & set(path.parts)
    ]
    packages = sorted({f"{each.name} {each.version}" for each in distributions()})
    threads = os.environ.get("OMP_NUM_THREADS", "")
    machine = [sys.version, platform.node(), available_cores(), threads, torch.cuda.is_available()]
    return digest([list(decided), code, packages, machine])
