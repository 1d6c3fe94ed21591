"""Where things lie: the repository, the sample, and the layout of an output folder."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from workbook.common.errors import InputError

REPOSITORY = Path(__file__).resolve().parents[2]
SAMPLE = REPOSITORY / "sample"
NOTEBOOKS = REPOSITORY / "notebooks"
# Folders of a run in an output folder, in the order in which they are put there; rows and results.json lie beside them.
PARTS = ("stages", "tables", "checkpoints", "notebooks", "reports")


def expand(path: str) -> Path:
    """A path that a user typed, from the root and with ~ replaced; links in it stay, for a file is known by its name.

    Raises:
        InputError: no such user, or a character that no path may hold.
    """
    try:
        return Path(path).expanduser().absolute()
    except (RuntimeError, ValueError, OSError) as error:
        raise InputError(f"{path!r}: is not a path that can be followed ({error})") from None


def whole_path(spec: str) -> str:
    """'file.py:Class' with the whole path of the file, for who reads it in another folder; else as it is."""
    path, colon, name = spec.rpartition(":") if ":" in spec else (spec, "", "")
    return f"{expand(path)}{colon}{name}" if expand(path).exists() else spec


@dataclass(frozen=True)
class OutputFolder:
    """Layout of an output folder, of a run or of notebooks run by hand."""

    root: Path

    @staticmethod
    def at(out: str, option: str = "--out") -> OutputFolder:
        """Make the folder where it does not exist yet. option: that which named it, for the message.

        Raises:
            InputError: the folder cannot be made or written to.
        """
        folder = OutputFolder(expand(out) if out else REPOSITORY / "out")
        try:
            folder.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder.root):
                pass
        except OSError as error:
            raise InputError(
                f"{folder.root}: cannot write results here ({error.strerror}); name another folder with {option}"
            ) from None
        return folder

    @property
    def stages(self) -> Path:
        return self.root / "stages"

    @property
    def tables(self) -> Path:
        """Tidy tables of what pages show, besides the rows of scores, policies and replays."""
        return self.root / "tables"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def seeds(self) -> Path:
        """Checkpoints of every conditioning and seed; `checkpoints` itself holds the three to use."""
        return self.checkpoints / "seeds"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def replays(self) -> Path:
        """Finished replays, kept so that none is played twice."""
        return self.root / "replays"

    @property
    def loop(self) -> Path:
        """What policies in the loop have seen, learned and done, kept for the same reason."""
        return self.root / "loop"

    @property
    def unfinished(self) -> Path:
        """Models in training, so that a run that was cut off goes on; gone once all are trained."""
        return self.root / "unfinished"

    @property
    def results(self) -> Path:
        return self.root / "results.json"


@contextmanager
def locked(lock: Path) -> Iterator[None]:
    """Keep a second process out of what this file stands for.

    Raises:
        InputError: another process is there.
    """
    import fcntl  # which Windows lacks, where notebooks and codecs can do without

    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{lock.parent}: another run is writing here; wait for it or name another folder"
            ) from None
        except OSError:  # a file system without locks, as volumes in the cloud may be
            pass
        yield


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path` and rename it to `path` on success, so that no half file is ever seen."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
