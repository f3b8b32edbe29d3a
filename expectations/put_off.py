"""The import of a library without what it imports for work that is not asked of it here."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


class _PutOff(ModuleType):
    """A module that is imported when something of it is first asked for."""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


@contextmanager
def put_off(*modules: str) -> Iterator[None]:
    """Whoever imports one of `modules` meanwhile has it when it first uses it; afterwards all imports are real ones.

    `importlib.util.LazyLoader` is of no use here: Python 3.11 and 3.12 load its modules when they are imported again.
    """
    standing_in = {name: _PutOff(name) for name in modules if name not in sys.modules}
    sys.modules.update(standing_in)
    try:
        yield
    finally:
        for name, module in standing_in.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
