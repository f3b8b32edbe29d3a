"""A module that is put off is imported when something of it is used, and not before."""

import importlib
import sys
from pathlib import Path

import pytest

from expectations.put_off import put_off


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that says when it is imported, in a package, and one that imports it."""
    package = tmp_path / "library"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "slow.py").write_text("import sys\nsys.imported_slow = True\nVALUE = 7\n")
    (package / "quick.py").write_text("from library import slow\ndef value(): return slow.VALUE\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "imported_slow", False, raising=False)
    for name in ("library", "library.slow", "library.quick"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return "library.slow"


def is_imported() -> bool:
    return bool(getattr(sys, "imported_slow"))  # noqa: B009  no attribute that sys has


def test_who_imports_it_has_it_at_its_first_use(modules: str) -> None:
    with put_off(modules):
        quick = importlib.import_module("library.quick")
    assert not is_imported()
    assert quick.value() == 7
    assert is_imported()


def test_it_is_there_at_once_for_who_uses_it_meanwhile(modules: str) -> None:
    with put_off(modules):
        assert importlib.import_module("library.quick").value() == 7
    assert sys.modules[modules].VALUE == 7


def test_whoever_imports_it_afterwards_has_the_module_itself(modules: str) -> None:
    with put_off(modules):
        importlib.import_module("library.quick")
    assert modules not in sys.modules
    module = importlib.import_module(modules)
    assert module.__file__
    assert is_imported()


def test_what_is_imported_already_stays(modules: str) -> None:
    module = importlib.import_module(modules)
    with put_off(modules):
        assert importlib.import_module(modules) is module
    assert sys.modules[modules] is module


def test_what_is_not_installed_is_still_missing_at_its_first_use() -> None:
    with put_off("no_such_module"):
        module = importlib.import_module("no_such_module")
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        _ = module.VALUE
