"""The commands at the top of the repository as modules; they are no part of the installed package."""

import importlib.util
import sys
from types import ModuleType

from workbook.common.paths import REPOSITORY


def load_script(name: str) -> ModuleType:
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, REPOSITORY / f"{name}.py")
        assert spec
        assert spec.loader
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]
