"""What all readers share: finding files, and making one sentence of whatever goes wrong while one is read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from workbook.common.errors import InputError

T = TypeVar("T")
LONGEST_DETAIL = 120  # characters of a library's own message, or of a file's own text


def files_below(folder: Path, suffix: str) -> list[Path]:
    """Every file with a suffix below a folder, in alphabetical order; linked folders are followed, each once.

    Hidden files, such as those of a download that is under way, are left out.

    Raises:
        InputError: a folder that cannot be read.
    """
    return sorted(_walk(folder, suffix))


def _walk(folder: Path, suffix: str) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror}); fix its permissions")

    seen: set[str] = set()
    for name, subfolders, files in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(name)
        if real in seen:
            subfolders.clear()  # a link that leads back
            continue
        seen.add(real)
        named_so = (file for file in files if file.lower().endswith(suffix) and not file.startswith("."))
        yield from (Path(name) / file for file in named_so)


def check_is_file(path: Path) -> None:
    """Refuse what is there under a name and is no file: a pipe would be waited for.

    Raises:
        InputError: names the path.
    """
    if not path.is_file():
        raise InputError(f"{path}: is not a file, or a link to nothing; leave it out")


def or_refuse(place: str, read: Callable[[], T], otherwise: str = "leading nowhere") -> T:
    """What `read` gives. A damaged file can raise nearly anything from inside a library.

    otherwise: what it may be if it is neither damaged nor cut short.

    Raises:
        InputError: one sentence, whatever was raised.
    """
    try:
        return read()
    except InputError:
        raise
    except PermissionError:
        raise InputError(f"{place}: no permission to read it; fix its permissions") from None
    except Exception as error:
        raise InputError(
            f"{place}: damaged, cut short or {otherwise} ({one_line(error)}); record or download it again"
        ) from None


def one_line(text: object) -> str:
    """The beginning of a text, on one line."""
    return " ".join(str(text).split())[:LONGEST_DETAIL]
