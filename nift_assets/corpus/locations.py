"""Where the files of a corpus lie: a local path, the Hugging Face Hub, an object store; and which version of them."""

from __future__ import annotations

import glob
import hashlib
import itertools
import os
import re
import urllib.parse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from nift_assets.corpus import folders
from nift_assets.rows import Corpus
from nift_training.messages import one_line

MOST_READ_BYTES = 64 * 2**20
COMMIT = re.compile(r"[0-9a-f]{40}")
# How Hub datasets number their files: this one, of so many.
SHARD = re.compile(r"(?P<before>.*-)(?P<number>\d{5})-of-(?P<all>\d{5})(?P<after>\D*)")


def files(corpus: Corpus) -> list[str]:
    """The files of the corpus in order: one file, the readable files of a folder, what a pattern matches, or a URL.

    ValueError for a place without files, for files of a revision that is not the corpus's, and for a set of numbered
    shards that lacks some.
    """
    return listed(corpus)[0]


def listed(corpus: Corpus) -> tuple[list[str], list[str]]:
    """The files of the corpus, as `files` gives them, and those of its folder that are about it, a README."""
    location = corpus.location
    paths, about = (
        _remote_files(location, corpus.revision) if "://" in location else _local_files(location, corpus.revision)
    )
    # Who names a file or a pattern wants these; a folder is wanted whole.
    is_pattern = glob.has_magic(location) and not os.path.exists(location)
    if not is_pattern and os.path.basename(location) != os.path.basename(paths[0]):
        _refuse_missing_shards(location, paths)
    return paths, about


def fingerprint(corpus: Corpus) -> str:
    """A digest that changes when a local file of the corpus does, wherever all of them lie: by what is in it, and in a
    large corpus, which nobody would read to see whether it has changed, by its size and time of change."""
    if "://" in corpus.location:
        return hashlib.sha256(b"").hexdigest()
    paths = files(corpus)
    folder = os.path.commonpath([os.path.dirname(file) for file in paths])
    is_small = sum(size_and_mtime(file)[0] for file in paths) <= MOST_READ_BYTES
    described = [
        (
            os.path.relpath(file, folder),
            *((hashlib.sha256(Path(file).read_bytes()).hexdigest(),) if is_small else size_and_mtime(file)),
        )
        for file in paths
    ]
    return hashlib.sha256(repr(described).encode()).hexdigest()


def size_and_mtime(file: str) -> tuple[int, int]:
    """The size of a local file and the time of its last change; of a remote one nothing."""
    if "://" in file:
        return (0, 0)
    status = os.stat(file)
    return (status.st_size, status.st_mtime_ns)


@contextmanager
def opened(file: str) -> Iterator[IO[bytes]]:
    """A file of the corpus, wherever it lies, to be read as bytes."""
    if "://" not in file:
        with open(file, "rb") as local:
            yield local
        return
    filesystem, path = _filesystem(file)
    with filesystem.open(path, "rb") as remote:
        yield remote


def _inside(folder: Path) -> list[str]:
    """The paths of all files in a folder. ValueError for a link that hides some: to nothing, or to another folder."""
    names = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        hidden = any(part.startswith(".") for part in name.split("/"))
        if not hidden:
            refuse_other_encoding(str(path))
        if path.is_symlink() and not path.is_file() and not hidden:
            raise ValueError(
                f"{path}: it is a link to {os.readlink(path)}, "
                + (
                    "another folder; name that one as the corpus, or copy it here"
                    if path.exists()
                    else "which is not there; fetch that file, or remove the link"
                )
            )
        names += [name] if path.is_file() else []
    return names


def refuse_other_encoding(path: str) -> None:
    """ValueError for a name in Latin-1, say, which no table could hold."""
    try:
        path.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(path).decode(errors="backslashreplace")
        raise ValueError(f"{shown}: its name is not UTF-8; rename it") from None


def _local_files(location: str, revision: str | None) -> tuple[list[str], list[str]]:
    refuse_other_encoding(location)
    about: list[str] = []
    if os.path.isdir(location):
        inside = _inside(Path(location))
        matches, about = (
            [os.path.join(location, name) for name in some] for some in folders.articles(location, inside)
        )
    else:
        matches = [location] if os.path.exists(location) else glob.glob(_pattern(location), recursive=True)
    matches = [match for match in matches if not os.path.isdir(match)]
    if not matches:
        raise ValueError(
            f"{location}: no such file, and no folder or pattern with files in it of the kinds {folders.READABLE}; "
            "give an existing one"
        )
    for file in matches:
        refuse_other_encoding(file)
        known = _revision_of_copy(Path(file))
        if revision and known and known != revision:
            raise ValueError(
                f"{file}: it is of the revision {known}, and the study's corpus is pinned to {revision}; fetch that one"
            )
    return sorted(matches), about


def _pattern(location: str) -> str:
    """A pattern whose folders that are there stand for themselves: `[` and `?` may be part of their names."""
    parts = location.split(os.sep)
    there = next(n for n in range(len(parts), -1, -1) if os.path.isdir(os.sep.join(parts[:n]) or os.sep))
    return os.sep.join([*map(glob.escape, parts[:there]), *parts[there:]])


def _revision_of_copy(file: Path) -> str | None:
    """The commit a file was fetched at, where huggingface_hub has left it: in its cache's folder, or beside a copy."""
    parts = file.absolute().parts
    for folder, name in itertools.pairwise(parts):
        if folder == "snapshots" and COMMIT.fullmatch(name):
            return name
    for parent in file.absolute().parents:
        notes = parent / ".cache" / "huggingface" / "download"
        note = notes / f"{file.absolute().relative_to(parent)}.metadata"
        if note.exists():
            return note.read_text().splitlines()[0].strip()
    return None


def _remote_files(location: str, revision: str | None) -> tuple[list[str], list[str]]:
    protocol = location.split("://")[0]
    at = _pinned(location, revision) if protocol == "hf" else location
    about: list[str] = []
    try:
        filesystem, path = _filesystem(at)
        if filesystem.isdir(path):
            folder = path.rstrip("/")
            inside = sorted(str(name)[len(folder) + 1 :] for name in filesystem.find(folder))
        else:
            inside = None
            matches = filesystem.glob(path) if glob.has_magic(path) else [path] if filesystem.exists(path) else []
    except Exception as error:
        raise ValueError(
            f"{location}: cannot be listed ({one_line(error)}); check the address and the network"
        ) from None
    if inside is not None:
        matches, about = ([f"{folder}/{name}" for name in some] for some in folders.articles(location, inside))
    if not matches:
        raise ValueError(
            f"{at}: nothing can be found there; check the address, its revision and the network, or give files of the "
            f"kinds {folders.READABLE}"
        )
    return sorted(f"{protocol}://{match}" for match in matches), [f"{protocol}://{name}" for name in about]


# The revisions of the Hub that have slashes in their names, and the short name DuckDB has for one of them.
SLASHED = re.compile(r"refs/(?:convert|pr)/[^/]+")
SHORT = {"~parquet": "refs/convert/parquet"}


def _pinned(location: str, revision: str | None) -> str:
    """The address with the commit in it, so that every file is of the same one whatever is pushed meanwhile.

    A revision may stand in the address as others write it there: `@refs/convert/parquet`, `@refs%2Fconvert%2Fparquet`,
    `@~parquet`.
    """
    kind, _, path = location.removeprefix("hf://").partition("/")
    before, at, behind = path.partition("@")
    asked, rest = "", ""
    if at:
        slashed = SLASHED.match(behind)
        asked = slashed[0] if slashed else behind.partition("/")[0]
        rest = behind[len(asked) :]
        asked = SHORT.get(asked, urllib.parse.unquote(asked))
    owner, name, *inside = [*before.split("/"), ""][: 2 if at else None]
    if kind != "datasets" or not owner or not name:
        raise ValueError(
            f"{location}: is no address of a dataset; give hf://datasets/<owner>/<name>, with a path behind"
        )
    revision = revision or asked or None
    try:
        from huggingface_hub import HfApi

        commit = HfApi().repo_info(f"{owner}/{name}", repo_type="dataset", revision=revision).sha
    except Exception as error:
        wanted = f" at the revision {revision}" if revision else ""
        raise ValueError(
            f"{location}: cannot be found{wanted} ({one_line(error)}); check the address, its revision and the network"
        ) from None
    if revision and COMMIT.fullmatch(revision) and commit != revision:
        raise ValueError(f"{location}: pinned to the revision {revision}, but the Hub serves {commit}; fetch that one")
    parts = [part for part in [*inside, *rest.split("/")] if part]
    return "/".join([f"hf://datasets/{owner}/{name}@{commit}", *parts])


def _filesystem(location: str) -> tuple[Any, str]:
    """What opens and lists an address, and the path in it. S3 goes through Arrow's own client, the rest by fsspec."""
    import fsspec

    if location.startswith("s3://"):
        from fsspec.implementations.arrow import ArrowFSWrapper
        from pyarrow.fs import S3FileSystem

        # Keys and the region are found as AWS's own tools find them; so is another store that speaks S3.
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        return ArrowFSWrapper(S3FileSystem(endpoint_override=endpoint)), location.removeprefix("s3://")
    filesystem, path = fsspec.core.url_to_fs(location)
    return filesystem, path


def _refuse_missing_shards(location: str, paths: Sequence[str]) -> None:
    """ValueError if files are numbered `…-00003-of-00080` and not all of the eighty are there."""
    matches = [match for file in paths if (match := SHARD.fullmatch(os.path.basename(file)))]
    for match in matches:
        present = {m["number"] for m in matches if (m["before"], m["all"]) == (match["before"], match["all"])}
        absent = [n for n in (f"{number:05}" for number in range(int(match["all"]))) if n not in present]
        if absent:
            name = f"{match['before']}{absent[0]}-of-{match['all']}{match['after']}"
            raise ValueError(
                f"{location}: {len(absent)} of {int(match['all'])} shards are not there, the first is {name}; fetch "
                "them, or name the files you want by a pattern"
            )
