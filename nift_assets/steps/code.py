"""What code a result rests on, as one digest: the definitions that a function reaches, without their wording.

A definition is a function, a class or an assignment at the top of a module. Whatever a definition names is looked up
through the module's own names and imports; where that leads to a definition of ours, it is reached too. Nothing is
imported or run: the sources are parsed. Docstrings, comments, annotations and import lines count for nothing, nor does
the module a definition lies in, so what is moved or reworded keeps its digest.

Three things cannot be read off the tree. A module that is named as a value (`process.run(context, train)`) is reached
whole, with what it hands on and the `__main__` of a package. What a step's own function holds in its closure is reached
if it is code of ours. And what is loaded by the name in a study's row is a plug-in: the step says which.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from nift_assets import filters
from nift_assets.steps import syntax
from nift_assets.steps.digest_cache import ABSENT, DigestCache
from nift_assets.steps.syntax import LOCALS, Module, Reference, parse

PACKAGES = ("nift_assets", "nift_training", "expectations", "dagster_project")
FOLDER = Path(__file__).parents[2]

# Rooms that are named and not entered, because nothing in them shapes a row: how steps are declared, run, stored and
# checked; who is asked when, and what that costs; the rows of studies, whose values a step names by itself; the lines
# of progress, and what a tracker is told.
OUTSIDE = (
    "dagster_project",
    "expectations",
    "nift_assets.costs",
    "nift_assets.crash_points",
    "nift_assets.environment",
    "nift_assets.graph",
    "nift_assets.hub.repository",
    "nift_assets.ledger",
    "nift_assets.rows",
    "nift_assets.secrets",
    "nift_assets.steps",
    "nift_assets.store",
    "nift_assets.studies",
    "nift_assets.study",
    "nift_training.progress",
    "nift_training.tracking",
)
# A step is made from what other steps have stored, never from their code.
STEPS = "nift_assets.assets"

# How the modules of files begin that lie beside somebody's study.
OWN = f"{filters.__name__}.{filters.OWN}"

# The number that a plug-in carries says what its code is worth and is none of it.
VERSION = "VERSION"
# What a plug-in says of itself to people.
SAID = (VERSION, "TERMS", "ROW_BY_ROW", "ADDS_UP")


@dataclass(frozen=True, order=True)
class QualifiedName:
    """Where a definition is found: its module and its name there; for a module as a whole the name is empty."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}" if self.name else self.module


Root = Callable[..., Any] | ModuleType | QualifiedName
"""What is begun with: a step's function, a plug-in, or where either is found."""


@dataclass(frozen=True)
class _Linked:
    """A definition as it counts by itself, and the definitions of ours that it names, in its order."""

    local: str
    names: tuple[QualifiedName, ...]


@dataclass
class Sources:
    """The code below a folder, each module parsed when it is first needed."""

    folder: Path
    kept: DigestCache | None = None
    _modules: dict[str, Module | None] = field(default_factory=dict)
    _files: dict[str, str] = field(default_factory=dict)
    _linked: dict[QualifiedName, _Linked] = field(default_factory=dict)
    _digests: dict[str, str] = field(default_factory=dict)

    def digest(self, *roots: Root, without: str | None = None) -> str:
        """The digest of all definitions that the roots reach, `without` those of a room."""
        key = " ".join([*(str(place) for root in roots for place in _qualified_names(root)), f"without {without}"])
        if key not in self._digests:
            self._digests[key] = (self.kept and self.kept.get(key)) or self._work_out(key, roots, without)
        return self._digests[key]

    def _work_out(self, key: str, roots: Sequence[Root], without: str | None) -> str:
        reached = self._reached(roots, without)
        digest = _sha(*sorted(self._full(linked, without) for linked in reached.values()))
        # A file of somebody's own is not loaded in every process, and so cannot be compared in each.
        if self.kept and OWN not in key:
            self.kept.add(key, digest, {name: known for name, known in self._files.items() if OWN not in name})
        return digest

    def definitions(self, *roots: Root, without: str | None = None) -> dict[str, str]:
        """The digest of each definition that the roots reach, by its qualified name and without what it names."""
        reached = self._reached(roots, without)
        return {str(place): reached[place].local for place in sorted(reached) if place.name}

    def module(self, name: str) -> Module | None:
        """The module of that dotted name; None for one that is not ours."""
        if name not in self._modules:
            file = self._file(name)
            source = file.read_bytes() if file else b""
            self._files[name] = hashlib.sha256(source).hexdigest() if file else ABSENT
            is_package = file is not None and file.stem == "__init__"
            self._modules[name] = parse(name, source.decode(), is_package=is_package) if file else None
        return self._modules[name]

    def file_digest(self, name: str) -> str:
        """The digest of a module's file, as it is now."""
        file = self._file(name)
        return hashlib.sha256(file.read_bytes()).hexdigest() if file else ABSENT

    def _file(self, name: str) -> Path | None:
        first, *parts = name.split(".")
        if first not in PACKAGES:
            return None
        path = self.folder.joinpath(first, *parts)
        module, package = path.with_name(f"{path.name}.py"), path / "__init__.py"
        if parts and module.is_file():
            return module
        if package.is_file():
            return package
        # A plug-in may lie in a folder of its own that its package has been told of.
        loaded = sys.modules.get(name) if self.folder == FOLDER else None
        return Path(loaded.__file__) if loaded and loaded.__file__ else None

    def _reached(self, roots: Iterable[Root], without: str | None) -> dict[QualifiedName, _Linked]:
        reached: dict[QualifiedName, _Linked] = {}
        for root in roots:
            first, *waiting = _qualified_names(root)
            reached[first] = self._linking(first, undecorated=True)
            waiting += _named_by(reached[first], without)
            while waiting:
                if (name := waiting.pop()) not in reached:
                    reached[name] = self._link(name)
                    waiting += _named_by(reached[name], without)
        return reached

    def _full(self, linked: _Linked, without: str | None) -> str:
        """The digest of a definition with those it names: two of one name that change places are told apart."""
        return _sha(linked.local, *(self._link(named).local for named in _named_by(linked, without)))

    def _link(self, name: QualifiedName) -> _Linked:
        """A definition with its references looked up."""
        if name not in self._linked:
            self._linked[name] = self._linking(name)
        return self._linked[name]

    def _linking(self, name: QualifiedName, *, undecorated: bool = False) -> _Linked:
        """Of a root the decorators count for nothing: they say how it is declared."""
        if not name.name:
            return self._whole(name)
        module = self.module(name.module)
        assert module is not None, f"{name} is not below {self.folder}"
        bare = module.undecorated.get(name.name) if undecorated else None
        parts, names = [], []
        for statement in [bare] if bare else module.definitions[name.name]:
            parts.append(statement.shape)
            for reference in statement.references:
                text, target = self._look_up(module, reference)
                parts.append(text)
                names += [target] if target and not _is_outside(target.module, name.module) else []
        return _Linked(_sha(*parts), tuple(names))

    def _whole(self, package: QualifiedName) -> _Linked:
        """A module that is named as a value: all its definitions, what it hands on, and for a package what runs as its
        `__main__`."""
        names: list[QualifiedName | None] = []
        for module in filter(None, map(self.module, (package.module, f"{package.module}.__main__"))):
            defined = (name for name in sorted(module.definitions) if name not in SAID and LOCALS not in name)
            names += [QualifiedName(module.name, name) for name in defined]
            names += [self._follow(*module.imports[name], ())[1] for name in module.handed_on]
        return _Linked("module", tuple(name for name in names if name and not _is_outside(name.module, package.module)))

    def _look_up(self, module: Module, reference: Reference) -> tuple[str, QualifiedName | None]:
        """What a reference is called in a digest, and the definition of ours it leads to, if it does."""
        names = reference.names
        if reference.imported:
            return self._follow(*reference.imported, names)
        if names[0] in module.definitions:
            return _named(QualifiedName(module.name, names[0]), names[1:])
        if names[0] in module.imports:
            return self._follow(*module.imports[names[0]], names[1:])
        return ".".join(names), None

    def _follow(self, name: str, wanted: str, attributes: tuple[str, ...]) -> tuple[str, QualifiedName | None]:
        """Where a name of a module leads, through whatever hands it on."""
        module = self.module(name)
        if module is None:
            return ".".join(filter(None, (name, wanted, *attributes))), None
        if not wanted:
            if attributes and not attributes[0].startswith("__"):
                return self._follow(name, attributes[0], attributes[1:])
            return _named(QualifiedName(name, ""), attributes)
        if wanted in module.definitions:
            return _named(QualifiedName(name, wanted), attributes)
        if wanted in module.imports:
            return self._follow(*module.imports[wanted], attributes)
        if self._file(f"{name}.{wanted}"):
            return self._follow(f"{name}.{wanted}", "", attributes)
        return ".".join((wanted, *attributes)), None


@cache
def sources(folder: Path = FOLDER) -> Sources:
    """The code this process runs, or that below another folder."""
    code = Sources(folder)
    if folder == FOLDER:
        parser = Path(__file__).read_bytes() + Path(syntax.__file__).read_bytes()
        code.kept = DigestCache(parser, code.file_digest)
    return code


def digest(*roots: Root, folder: Path = FOLDER) -> str:
    """The digest of the code that the roots reach, in 12 hexadecimal digits."""
    return sources(folder).digest(*roots)[:12]


def _qualified_names(root: Root) -> Iterator[QualifiedName]:
    """A root's own definition, and what of ours its closure holds."""
    if isinstance(root, ModuleType | QualifiedName):
        yield root if isinstance(root, QualifiedName) else QualifiedName(root.__name__, "")
        return
    function = inspect.unwrap(root)
    yield QualifiedName(function.__module__, function.__qualname__)
    for cell in (isinstance(function, FunctionType) and function.__closure__) or ():
        value = cell.cell_contents
        if isinstance(value, ModuleType | FunctionType | type) and _is_ours(value):
            yield from _qualified_names(value)


def _is_ours(value: ModuleType | FunctionType | type) -> bool:
    name = value.__name__ if isinstance(value, ModuleType) else value.__module__
    return name.partition(".")[0] in PACKAGES and not _is_outside(name)


def _is_outside(module: str, seen_from: str = "") -> bool:
    return module != seen_from and any(_is_in(module, room) for room in (*OUTSIDE, STEPS))


def _is_in(module: str, room: str) -> bool:
    return f"{module}.".startswith(f"{room}.")


def _named_by(linked: _Linked, without: str | None) -> list[QualifiedName]:
    return [place for place in linked.names if without is None or not _is_in(place.module, without)]


def _named(place: QualifiedName, attributes: tuple[str, ...]) -> tuple[str, QualifiedName]:
    """A definition by its bare name, since where it lies counts for nothing."""
    return ".".join((place.name or "module", *attributes)), place


def _sha(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
