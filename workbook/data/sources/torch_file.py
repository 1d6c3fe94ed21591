"""Loads .pt files of tensors and plain values, of which nothing is ever executed, and says what prevents it."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from rfsq_robust import load_plain, refused_object
from workbook.common.errors import InputError
from workbook.data.sources.files import check_is_file


def loaded(path: Path, fix: str) -> Any:
    """The content. fix: what to do where it is no such file, or half of one.

    Raises:
        InputError: not such a file, cut short, not to be read, or with Python objects in it.
    """
    check_is_file(path)
    try:
        return load_plain(path)
    except PermissionError:
        raise InputError(f"{path}: no permission to read it; fix its permissions") from None
    except pickle.UnpicklingError as error:
        if name := refused_object(error):
            raise InputError(
                f"{path}: holds Python objects other than tensors and plain values ({name}), which are never loaded "
                "here; save it again with tensors only"
            ) from None
        raise InputError(f"{path}: not a PyTorch file; {fix}") from None
    except Exception:  # torch.load has no error class of its own for files it cannot read
        raise InputError(f"{path}: not a PyTorch file, or cut short; {fix}") from None
