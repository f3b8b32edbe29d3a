"""Reading a benchmark's files where they lie, in the layouts their authors published."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from nift_assets import environment
from nift_assets.benchmarks.scoring import json_lines
from nift_assets.rows import Benchmark
from nift_assets.store import replacing
from nift_training import http_client, json_objects
from nift_training.messages import one_line

T = TypeVar("T")

# The location of a benchmark whose data is the Hub's.
HUB = "hub"


@dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """One file of a benchmark at its home: a commit of a public repository, and what is there by its sha256, or by the
    id that git has of it."""

    path: str
    url: str
    sha256: str = ""
    git_blob: str = ""

    def digest_of(self, content: bytes) -> str:
        """The digest of a content, of the kind by which the file is known."""
        if self.sha256:
            return hashlib.sha256(content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    @property
    def digest(self) -> str:
        return self.sha256 or self.git_blob


def fetch(folder: Path, published: Sequence[PublishedFile]) -> list[Path]:
    """The files of a benchmark in a folder, fetched from their home unless they are there; each whole or not at all.

    ValueError for one whose digest is another, whether it was there or came so: the texts decide the score.
    """
    paths = []
    for file in published:
        path = folder / file.path
        if not path.exists():
            content = _expected(http_client.get(file.url, seconds=60), file, file.url)
            with replacing(path) as temporary:  # not before there is something for the folder that it makes
                temporary.write_bytes(content)
        _expected(path.read_bytes(), file, str(path))
        paths.append(path)
    return paths


def _expected(content: bytes, file: PublishedFile, place: str) -> bytes:
    digest, kind = file.digest_of(content), "sha256" if file.sha256 else "git id"
    if digest != file.digest:
        raise ValueError(
            f"{place} is not the published {file.path}: its {kind} is {digest[:16]}…, not {file.digest[:16]}…; "
            "remove it"
        )
    return content


def rows(benchmark: Benchmark, *parts: str) -> list[dict[str, Any]]:
    """The JSON objects of one file of the benchmark, one per line; ValueError names a file that is not there."""
    path = path_of(benchmark, *parts)
    with path.open("rb") as file:
        return [row for _, row in json_objects.read(file, path)]


def taken(benchmark: Benchmark, *parts: str, take: Callable[[dict[str, Any]], T]) -> list[T]:
    """What is needed of each object of a file of the benchmark; ValueError names the file and the line of one that has
    another layout."""
    path, found = path_of(benchmark, *parts), []
    with path.open("rb") as file:
        for number, row in json_objects.read(file, path):
            try:
                found.append(take(row))
            except (KeyError, IndexError, TypeError, AttributeError) as mistake:
                reason = f"lacks {mistake}" if isinstance(mistake, KeyError) else one_line(mistake)
                raise ValueError(
                    f"{path} line {number} is not as {benchmark.name} is published: {reason}; use the published file"
                ) from None
    return found


def number(value: Any) -> int:
    """A whole number that a table can hold; TypeError for anything else."""
    if type(value) is not int or json_lines.integer_of(value) is None:
        raise TypeError(f"found {value!s:.60} where a whole number is wanted")
    return value


def text(value: Any) -> str:
    """A text; TypeError for anything else."""
    if not json_objects.is_text(value):
        raise TypeError(f"found {value!r:.60} where a text is wanted")
    return str(value)


def texts(value: Any) -> list[str]:
    """A list of texts that is not empty; TypeError for anything else."""
    if not isinstance(value, list) or not value:
        raise TypeError(f"found {value!r:.60} where a list of texts is wanted")
    return [text(each) for each in value]


def settings(benchmark: Benchmark, file: str, take: Callable[[dict[str, Any]], T]) -> T:
    """What is needed of a file of settings; ValueError for one of another layout, or that is no YAML."""
    import yaml

    path = path_of(benchmark, file)
    try:
        return take(yaml.safe_load(path.read_text(encoding="utf-8-sig")))
    except (KeyError, IndexError, TypeError, AttributeError, UnicodeDecodeError, yaml.YAMLError) as mistake:
        raise ValueError(
            f"{path} is not as {benchmark.name} is published ({type(mistake).__name__}: {one_line(mistake)}); use the "
            "published file"
        ) from None


def filled(template: str, where: str, **values: str) -> str:
    """A judge's prompt with its texts in their places; ValueError for one that wants what there is not."""
    try:
        return template.format(**values)
    except (KeyError, IndexError, ValueError, AttributeError) as mistake:
        raise ValueError(
            f"{where} cannot be filled in ({type(mistake).__name__}: {mistake}); use the published file"
        ) from None


def path_of(benchmark: Benchmark, *parts: str) -> Path:
    """The path of one file or folder of the benchmark; ValueError for one that is not there."""
    path = Path(benchmark.location, *parts)
    if not path.exists():
        raise ValueError(
            f"{path}: {benchmark.name} has no such file; put the benchmark's published files into {benchmark.location} "
            "(`nift benchmarks` fetches them), or set NIFT_BENCHMARKS to the folder that has them"
        )
    return path


def own_file(name: str, file: str) -> Path | None:
    """A file of a benchmark in the folder NIFT_BENCHMARKS, if it is there."""
    folder = environment.benchmarks()
    path = Path(folder, name, file) if folder else None
    return path if path and path.is_file() else None


def ids_of(path: Path) -> list[str]:
    """The questions of a benchmark's file, by their ids; ValueError for one without its own."""
    found: dict[str, int] = {}
    for _, _, number, row in json_lines.lines([path]):
        own = row.get("question_id", row.get("uid"))
        if isinstance(own, bool) or not isinstance(own, str | int | float):
            raise ValueError(f"{path} line {number} has no question_id (or uid); give a file of questions")
        if (first := found.setdefault(json_lines.identity(own), number)) != number:
            raise ValueError(f"{path} has the id {own!r} in line {first} and in line {number}; give each its own")
    if not found:
        raise ValueError(f"{path} has no questions; give the file that was asked")
    return [*found]


def options(benchmark: Benchmark, file: str) -> Mapping[str, object]:
    """What the runner is told to have any file of questions answered: whose they are, and how."""
    return {
        "questions": (f"{benchmark.name}={path_of(benchmark, file)}",),
        "runs": (f"{benchmark.name}={benchmark.runs}",),
        "tokens": (f"{benchmark.name}={benchmark.max_new_tokens}",),
    }


def source(benchmark: Benchmark) -> str:
    """What the files of a benchmark are called in the graph."""
    return f"{benchmark.name}_files"


def described(benchmark: Benchmark, published: Sequence[PublishedFile]) -> list[dict[str, str]]:
    """One row per file of the published layout that lies in the benchmark's folder: its digest, and its home if it is
    the published one."""
    rows = []
    for file in published:
        path = Path(benchmark.location, file.path)
        if path.is_file():
            content = path.read_bytes()
            home = file.url if file.digest_of(content) == file.digest else "its own"
            rows.append({"file": file.path, "sha256": hashlib.sha256(content).hexdigest(), "home": home})
    return rows


def fingerprint(benchmark: Benchmark, *parts: str) -> str:
    """The digest of a file or folder of the benchmark, so that what was made from other files is known to be stale."""
    hashed = hashlib.sha256()
    place = path_of(benchmark, *parts)
    for path in sorted(p for p in [place, *place.rglob("*")] if p.is_file()):
        hashed.update(path.name.encode())
        hashed.update(path.read_bytes())
    return hashed.hexdigest()
