"""Filters, providers and benchmarks of one's own: files in the folders of these names beside a study's file.

Each is found by its name, after those of this package, and written as these are. A name that the package has already
is refused. Two studies may each have a filter of the same name: a row knows by which file it is meant. The contract of
a benchmark's table lies in the folder `expectations` there.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import itertools
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from expectations import contract
from nift_assets import benchmarks, filters, providers
from nift_assets.rows import Filter, OwnFilter
from nift_training.messages import one_line

FILTERS, CONTRACTS = "filters", "expectations"
# The folder of the study file that is being run; the rows in it do not know where they stand.
_beside: ContextVar[Path | None] = ContextVar("beside", default=None)


class UnusableFile(ValueError):
    """A file of one's own that cannot be used: a sentence that names it, and its line where one is at fault."""


@dataclass(frozen=True, kw_only=True)
class OwnFile:
    """A file of one's own, and the name by which a row means it."""

    name: str
    path: Path


@contextmanager
def beside(study_file: Path) -> Iterator[None]:
    """While a study's file is run, what lies beside it is found. ValueError for a name that is taken."""
    folder = study_file.absolute().parent
    _refuse_taken(_files(folder / FILTERS, (".py", ".sql")), filters.names(), "filter")
    # A provider's name is part of what a request is known by in the ledger, a benchmark's that of its tables.
    for package in (providers, benchmarks):
        _add_modules(folder, package)
    try:
        contract.look_beside(folder / CONTRACTS)
    except ValueError as error:
        raise UnusableFile(str(error)) from error
    token = _beside.set(folder)
    try:
        yield
    finally:
        _beside.reset(token)


def found(rows: Sequence[Filter]) -> tuple[Filter, ...]:
    """The rows, each that means a file beside the study's with it; ValueError names a broken file and its line."""
    folder = _beside.get()
    if folder is None:
        return tuple(rows)
    own = {file.name: file for file in _files(folder / FILTERS, (".py", ".sql"))}
    return tuple(row if isinstance(row, OwnFilter) or row.file not in own else _own(row, own[row.file]) for row in rows)


def _own(row: Filter, file: OwnFile) -> OwnFilter:
    if file.path.suffix == ".sql":
        # A path that is whole is taken as it is, wherever the package's own files lie.
        return OwnFilter(name=row.name, rule=row.rule, options=row.options, found_as=str(file.path.with_suffix("")))
    module = _loaded(file)
    if not callable(getattr(module, "removals", None)):
        raise UnusableFile(f"{file.path}: a filter has a function removals(candidates), and this file has none; add it")
    found_as = module.__name__.rpartition(".")[2]
    return OwnFilter(name=row.name, rule=row.rule, options=row.options, found_as=found_as)


def _loaded(file: OwnFile) -> ModuleType:
    """The file as a module below the package's filters, under a name that no other file or content has."""
    source = file.path.read_bytes()
    digest = hashlib.sha256(f"{file.path}\0".encode() + source).hexdigest()[:16]
    name = f"{filters.__name__}.{filters.OWN}{digest}_{file.name}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, file.path)
        assert spec is not None, "a file that ends in .py has a loader"
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            compiled = compile(ast.parse(source, str(file.path)), str(file.path), "exec")
            exec(compiled, vars(module))
        except BaseException as error:
            del sys.modules[name]
            if isinstance(error, Exception | SystemExit):
                raise UnusableFile(f"{_place(file.path, error)}: {_said(error)}; mend it there") from error
            raise
    return sys.modules[name]


def _place(path: Path, error: BaseException) -> str:
    """The file, and the line of it at which it stopped."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f"{path}, line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"{path}, line {lines[-1]}" if lines else str(path)


def _said(error: BaseException) -> str:
    told = error.msg if isinstance(error, SyntaxError) else error
    return f"{type(error).__name__}: {one_line(told)}"


def _files(folder: Path, endings: Sequence[str]) -> list[OwnFile]:
    """The files of a folder that a row may name, by their names; none where there is no such folder."""
    if not folder.is_dir():
        return []
    paths = sorted(path for path in folder.iterdir() if path.suffix in endings and path.is_file())
    own = [OwnFile(name=path.stem, path=path) for path in paths if not path.name.startswith(("_", "."))]
    for one, other in itertools.pairwise(own):
        if one.name == other.name:
            raise UnusableFile(f"{one.path} and {other.path.name} have one name; rename one of them")
    return own


def _refuse_taken(own: Sequence[OwnFile], taken: Sequence[str], kind: str, folder: Path | None = None) -> None:
    where = f"{folder}, beside another study of this process" if folder else "the package"
    for file in own:
        if file.name in taken:
            raise UnusableFile(f"{file.path}: there is a {kind} {file.name!r} in {where}; give yours another name")


def _add_modules(beside: Path, package: ModuleType) -> None:
    """Tells a package of the folder of its name, so that a row's provider or benchmark is found there.

    Of one name there is one in a process.
    """
    kind = package.__name__.rpartition(".")[2]
    folder = beside / kind
    own = _files(folder, (".py",))
    if not own:
        return
    if shared := next(folder.glob("_*.py"), None):
        raise UnusableFile(
            f"{shared}: each file here is one of the {kind}; put what they share into a folder beside them, such as "
            f"{folder / 'shared' / '__init__.py'}"
        )
    if str(folder) not in package.__path__:
        for elsewhere in map(Path, package.__path__[1:]):
            _refuse_taken(own, [file.name for file in _files(elsewhere, (".py",))], kind.removesuffix("s"), elsewhere)
        _refuse_taken(own, package.names(), kind.removesuffix("s"))
        package.__path__.append(str(folder))
        package.module.cache_clear()
    for file in own:
        try:
            package.load(file.name)
        except Exception as error:
            package.__path__.remove(str(folder))
            sys.modules.pop(f"{package.__name__}.{file.name}", None)
            place = "" if isinstance(error, ValueError) and str(file.path) in str(error) else _place(file.path, error)
            said = f"{place}: {_said(error)}; mend it there" if place else str(error)
            raise UnusableFile(said) from error
