"""What transformers loads from the folder of a saved `KltTokenizer`, whose code is that of the workbook."""

from __future__ import annotations

import importlib
from typing import Any


class KltTokenizer:
    """Stands for `workbook.klt_tokenizer.KltTokenizer`, which `from_pretrained` gives."""

    @classmethod
    def from_pretrained(cls, folder: str, **settings: Any) -> Any:
        """Load a folder that `KltTokenizer.save_pretrained` wrote, or a repository on the Hub that holds one.

        Raises:
            ImportError: the workbook is not installed.
        """
        try:
            # Not an import statement: for one of a package that is missing, transformers says to take it from PyPI.
            module = importlib.import_module("workbook.klt_tokenizer")
        except ImportError as error:
            raise ImportError(
                f"{folder}: the tokenizer in it needs the workbook, which cannot be imported ({error}); install its "
                "repository, robust-rfsq-workbook, with pip install -e"
            ) from None
        return module.KltTokenizer.from_pretrained(folder, **settings)

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoProcessor") -> None:
        """AutoProcessor calls this on a class that it has loaded; the folder has what it asks for."""
