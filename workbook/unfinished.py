"""A run that is cut off leaves what it has done in its hidden folder, and the next of the same goes on from there."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from workbook.common.parallel import KEPT_VARIABLE
from workbook.common.paths import NOTEBOOKS, REPOSITORY, OutputFolder, replacing
from workbook.common.provenance import PAUSED_VARIABLE, package_versions
from workbook.options import Settings

RECORD, JOBS = "done.json", "jobs"
WORTH_KEEPING = 2  # notebooks; the first reads the data, in seconds


@dataclass
class Unfinished:
    """What has been done in the work folder of a run.

    done: notebook -> its settings, in order; code: a hash of what did it; paused: seconds in which nobody went on.
    """

    work: OutputFolder
    code: str
    done: dict[str, Settings] = field(default_factory=dict)
    paused: float = 0.0

    @property
    def jobs(self) -> Path:
        """Where jobs of the notebook that is in work leave their results."""
        return self.work.root / JOBS

    def has(self, notebook: str) -> bool:
        return notebook in self.done

    def add(self, notebook: str, settings: Settings) -> None:
        self.done[notebook] = settings
        shutil.rmtree(self.jobs, ignore_errors=True)
        self.jobs.mkdir()
        self.write()

    def write(self) -> None:
        said = {name: value for name, value in asdict(self).items() if name != "work"}
        with replacing(self.work.root / RECORD) as temporary:
            temporary.write_text(json.dumps(said), encoding="utf8")

    def end(self) -> None:
        """Nothing is to be gone on with: the results are published."""
        self.done = {}

    @staticmethod
    def left_in(root: Path, plan: Mapping[str, Settings], code: str) -> Unfinished | None:
        """What can be gone on from: at least so much of the plan's beginning that it is worth it, by the same code."""
        try:
            said = json.loads((root / RECORD).read_text(encoding="utf8"))
        except (OSError, ValueError):
            return None
        done = {}
        for wanted, name in zip(plan.items(), said["done"], strict=False):
            if wanted != (name, said["done"][name]):
                break
            done[name] = said["done"][name]
        work = OutputFolder(root)
        if said["code"] != code or len(done) < WORTH_KEEPING or not work.stages.exists():  # which moves when published
            return None
        last_sign = max(path.stat().st_mtime for path in (root, *root.glob("*.json")))
        return Unfinished(work, code, done, said["paused"] + max(time.time() - last_sign, 0.0))


@contextmanager
def going_on(target: OutputFolder, plan: Mapping[str, Settings]) -> Iterator[Unfinished]:
    """The work folder of a run: one in which the beginning of the plan is done, or a new one; all others go.

    plan: notebook -> its settings, in order. At the end it goes, too, unless it is cut off with what is worth keeping.
    """
    code, plan = code_sha256(), json.loads(json.dumps(plan))
    found = [(path, Unfinished.left_in(path, plan, code)) for path in target.root.glob(".run-*")]
    unfinished = max((each for _, each in found if each), key=lambda each: len(each.done), default=None)
    for path, each in found:
        if each is None or each is not unfinished:
            shutil.rmtree(path, ignore_errors=True)
    if unfinished is None:
        root = Path(tempfile.mkdtemp(prefix=".run-", dir=target.root))
        unfinished = Unfinished(OutputFolder.at(str(root)), code)
        unfinished.jobs.mkdir()
    unfinished.write()
    os.environ[KEPT_VARIABLE], os.environ[PAUSED_VARIABLE] = str(unfinished.jobs), str(round(unfinished.paused))
    try:
        yield unfinished
    finally:
        del os.environ[KEPT_VARIABLE], os.environ[PAUSED_VARIABLE]
        if len(unfinished.done) < WORTH_KEEPING:
            shutil.rmtree(unfinished.work.root, ignore_errors=True)
        else:
            print(f"\nthe same command goes on after {list(unfinished.done)[-1]}", file=sys.stderr)  # noqa: T201


def code_sha256() -> str:
    """Of all that decides what a notebook makes of its settings: its source, the modules, the packages."""
    files = [REPOSITORY / "rfsq_robust.py", *NOTEBOOKS.glob("*.ipynb"), *(REPOSITORY / "workbook").rglob("*.py")]
    told = hashlib.sha256(json.dumps(package_versions()).encode())
    for path in sorted(files):
        told.update(f"{path}".encode() + path.read_bytes())
    return told.hexdigest()
