"""What all readers share: finding files, and making one sentence of whatever goes wrong while one is read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from workbook.common.errors import InputError

T = TypeVar("T")
LONGEST_DETAIL = 120  # characters of a library's own message, or of a file's own text


class UnreadableError(InputError):
    """A file or a part of one that is damaged or no recording: of several, it can be left out."""


def files_below(folder: Path, *suffixes: str) -> list[Path]:
    """Every file with one of these suffixes below a folder, in alphabetical order; linked folders are followed once.

    Hidden files, such as those of a download that is under way, are left out.

    Raises:
        InputError: a folder that cannot be read.
    """
    return sorted(_walk(folder, suffixes))


def _walk(folder: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror}); fix its permissions")

    seen: set[str] = set()
    for name, subfolders, files in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(name)
        if real in seen:
            subfolders.clear()  # a link that leads back
            continue
        seen.add(real)
        named_so = (file for file in files if file.lower().endswith(suffixes) and not file.startswith("."))
        yield from (Path(name) / file for file in named_so)


def check_is_file(path: Path) -> None:
    """Refuse what is there under a name and is no file: a pipe would be waited for.

    Raises:
        UnreadableError: names the path.
    """
    if not path.is_file():
        raise UnreadableError(f"{path}: is not a file, or a link to nothing; leave it out")


def or_refuse(place: str, read: Callable[[], T], otherwise: str = "leading nowhere") -> T:
    """What `read` gives. A damaged file can raise nearly anything from inside a library.

    otherwise: what it may be if it is neither damaged nor cut short.

    Raises:
        UnreadableError: one sentence, whatever was raised.
        InputError: no permission, which is not the file's fault.
    """
    try:
        return read()
    except InputError:
        raise
    except PermissionError:
        raise InputError(f"{place}: no permission to read it; fix its permissions") from None
    except Exception as error:
        raise UnreadableError(
            f"{place}: damaged, cut short or {otherwise} ({one_line(error)}); record or download it again"
        ) from None


def one_line(text: object) -> str:
    """The beginning of a text, on one line."""
    return " ".join(str(text).split())[:LONGEST_DETAIL]
