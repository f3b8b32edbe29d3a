"""The version of the code that makes a result: the digest of what it reaches, or the number a person has decided on.

What is cheap is made again whenever its code changes. What takes a GPU, money or hours carries a number, and so does
each plug-in it is made with: `version=1` where a step is declared, `VERSION = 1` in the plug-in's file. `versions.json`
holds the digest each number was decided for. As long as the code has that digest the number alone is the version; once
the code has changed, nobody knows whether results come out otherwise, and what was made counts as stale until a person
has decided: the number is raised if they do, and recorded either way (`make versions`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from nift_assets.steps import code
from nift_assets.steps.code import Root, Sources
from nift_assets.store import replacing

FILE = Path(__file__).with_name("versions.json")
# A picture in the event log, a page: of what is expensive they show the rows and make none.
SHOWING = "nift_assets.pages"
RECORD = "make versions"
SHORT = 12


@dataclass(frozen=True)
class DecidedVersion:
    """A number somebody has decided on, and the digest of the code it was decided for."""

    version: int
    digest: str


@dataclass(frozen=True)
class Record:
    """What has been decided, by name, and each definition's own digest, by which a change is told."""

    versions: Mapping[str, DecidedVersion]
    definitions: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class NumberedCode:
    """Code that carries a number: a step, or a plug-in; `raised` says where it stands."""

    name: str
    version: int
    roots: tuple[Root, ...]
    raised: str


def of_step(name: str, version: int, function: Callable[..., Any], *besides: Root) -> NumberedCode:
    """A step that takes a GPU, money or hours: its function, and what it rests on besides."""
    return NumberedCode(
        name=name, version=version, roots=(function, *besides), raised=f"`version` in {_file(function)}"
    )


def of_plugin(plugin: Callable[..., Any] | ModuleType) -> NumberedCode:
    """A plug-in of such a step, a file or a function of it; ValueError for a file without a number."""
    module = plugin if isinstance(plugin, ModuleType) else sys.modules[plugin.__module__]
    where = _file(plugin)
    number = getattr(module, code.VERSION, None)
    if not isinstance(number, int):
        raise ValueError(f"{where} makes what is expensive and has no {code.VERSION}; give it a line VERSION = 1")
    name = module.__name__ if module is plugin else f"{module.__name__}.{plugin.__qualname__}"
    return NumberedCode(
        name=name.partition(".")[2], version=number, roots=(plugin,), raised=f"`{code.VERSION}` in {where}"
    )


def version(numbered: NumberedCode, sources: Sources | None = None, record: Record | None = None) -> str:
    """The number where it was decided for the code as it is, else with the digest of that code."""
    digest = _digest(numbered, sources or code.sources())
    decided = (record or recorded()).versions.get(numbered.name)
    return (
        str(numbered.version) if decided == DecidedVersion(numbered.version, digest) else f"{numbered.version}+{digest}"
    )


def undecided(numbered: NumberedCode, sources: Sources | None = None, record: Record | None = None) -> str | None:
    """The line that tells a person what to decide, None where all is decided."""
    sources, record = sources or code.sources(), record or recorded()
    decided = record.versions.get(numbered.name)
    if decided == DecidedVersion(numbered.version, _digest(numbered, sources)):
        return None
    if decided is None or decided.version != numbered.version:
        before = f"was {decided.version}" if decided else "is not recorded"
        return f"{numbered.name}: its version {before}, and is {numbered.version} now: run `{RECORD}` to record it"
    changed = _changed(numbered, sources, record)
    return (
        f"{numbered.name}: {changed} changed and its version is still {numbered.version}: raise {numbered.raised} if "
        f"what it makes comes out otherwise, then run `{RECORD}` to record it"
    )


def decide(every: Sequence[NumberedCode], file: Path = FILE) -> list[str]:
    """Records all numbers for the code as it is now; one line for each that was not recorded so."""
    sources = code.sources()
    before = read(file) if file.exists() else Record({}, {})
    lines = [
        line.partition(": run `")[0].partition(": raise ")[0] for n in every if (line := undecided(n, sources, before))
    ]
    after = {
        "versions": {n.name: asdict(DecidedVersion(n.version, _digest(n, sources))) for n in every},
        "definitions": {
            name: digest[:SHORT]
            for n in every
            for name, digest in sources.definitions(*n.roots, without=SHOWING).items()
        },
    }
    with replacing(file) as temporary:
        temporary.write_text(json.dumps(after, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    recorded.cache_clear()
    return lines


@cache
def recorded() -> Record:
    """What has been decided for the code this process runs."""
    return read(FILE)


def read(file: Path) -> Record:
    """What a file has of decisions."""
    content = json.loads(file.read_text(encoding="utf-8"))
    return Record({name: DecidedVersion(**kept) for name, kept in content["versions"].items()}, content["definitions"])


def _digest(numbered: NumberedCode, sources: Sources) -> str:
    return sources.digest(*numbered.roots, without=SHOWING)[:SHORT]


def _changed(numbered: NumberedCode, sources: Sources, record: Record) -> str:
    """The definitions that are not as they were decided for: the first by name, and how many more."""
    now = sources.definitions(*numbered.roots, without=SHOWING)
    others = [name for name, digest in now.items() if record.definitions.get(name) != digest[:SHORT]]
    if not others:
        return "what it reaches"
    return others[0] + (f" and {len(others) - 1} more" if len(others) > 1 else "")


def _file(root: Callable[..., Any] | ModuleType) -> str:
    """Where code lies, as a person names it in a checkout."""
    name = root.__name__ if isinstance(root, ModuleType) else root.__module__
    return f"{name.replace('.', '/')}.py"
