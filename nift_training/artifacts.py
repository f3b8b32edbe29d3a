"""Files and folders that appear under their name whole or not at all."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nift_training import file_locks, json_objects

MANIFEST = "manifest.json"
JOURNAL = ".journal.jsonl"  # what is finished of a draft that can be gone on with


@dataclass(frozen=True, kw_only=True)
class ManifestFile:
    """One file of a folder: its name relative to the folder, its size and the hash of its content."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a folder holds: its kind, its files, one digest over them, and facts about how it was made.

    The digest covers names and contents only, so that timings among the facts do not change it.
    """

    kind: str
    digest: str
    files: tuple[ManifestFile, ...]
    facts: dict[str, Any]


@dataclass(frozen=True)
class Draft:
    """A folder still being written: its temporary path, the facts its manifest will carry, and files it knows.

    Who hashed and flushed a file while writing it puts it among `known`, and it is not read again to be published.
    """

    path: Path
    facts: dict[str, Any] = field(default_factory=dict)
    hashed_files: dict[str, ManifestFile] = field(default_factory=dict)


@contextmanager
def folder(out: Path, kind: str) -> Iterator[Draft]:
    """A draft of the folder `out`; published with its manifest when the block ends, removed when it raises."""
    check_free(out)
    draft = Draft(_partial(out))
    draft.path.mkdir(parents=True)
    try:
        yield draft
        _publish(draft, out, kind)
    except BaseException:
        shutil.rmtree(draft.path, ignore_errors=True)  # a failing removal must not hide the cause
        raise


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path that takes the place of `path` when the block ends well, and is removed when it does not.

    On a disk it has outlived a loss of power before it has its name; an object store makes a file whole by itself. What
    is no file, such as `/dev/stdout`, is written to: root would put a file in the place of a device.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    on_disk = "://" not in str(path)
    if on_disk and path.exists() and not path.is_file() and not path.is_dir():
        yield path
        return
    partial = _partial(path)
    try:
        yield partial
        if on_disk:
            sync(partial)
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)
    if on_disk:
        sync(path.parent)


@contextmanager
def resumed_folder(out: Path, kind: str, job: str) -> Iterator[Draft]:
    """Like `folder`, but what a killed process had `finish`ed of the same job is there again, compared with its hashes.

    An error removes the draft; an interruption leaves what is finished. Two processes never write one draft.
    """
    check_free(out)
    path = out.absolute().parent / f".{out.name}.partial"
    path.mkdir(parents=True, exist_ok=True)
    with _only_writer(out):
        draft = Draft(path)
        try:
            draft.hashed_files.update(_finished(path, job))
            yield draft
            (path / JOURNAL).unlink()
            _publish(draft, out, kind)
        except BaseException as end:
            if isinstance(end, Exception) or not draft.hashed_files:
                shutil.rmtree(path, ignore_errors=True)  # a failing removal must not hide the cause
            raise


def finish(draft: Draft, file: ManifestFile) -> None:
    """Notes in a resumed folder that a file is whole and on the disk."""
    with (draft.path / JOURNAL).open("a", encoding="utf-8") as journal:
        journal.write(line(asdict(file)))
        journal.flush()
        os.fsync(journal.fileno())
    draft.hashed_files[file.name] = file


def write_rows(out: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """The file `out` with one JSON object per line; nothing is left when a row cannot be made."""
    check_free(out)
    with replacing(out) as partial, partial.open("w", encoding="utf-8") as file:
        file.writelines(line(row) for row in rows)


def digest_of(rows: object) -> str:
    """The sha256 of any JSON value."""
    return hashlib.sha256(json.dumps(rows, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


class RowLog:
    """Rows that are kept as they are made, until all are there and the file gets its name: what a killed process had
    made is found again. `settings` says what the rows depend on; a log with others is refused.
    """

    def __init__(self, out: Path, settings: Mapping[str, object]) -> None:
        self.out = out
        self.partial = out.with_name(f"{out.name}.unfinished")
        self.made_with = out.with_name(f"{out.name}.settings")
        self.header = line({"settings": dict(settings)})
        self.done = out.exists()
        self.rows: list[dict[str, Any]] = []
        out.parent.mkdir(parents=True, exist_ok=True)
        if not self.done:
            self._open(self.header)
        elif not self.made_with.exists() or self.made_with.read_text(encoding="utf-8") != self.header:
            raise ValueError(f"{out} already exists, made with other settings: remove it or choose another --out")

    def keep(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """The rows are on the disk when this returns."""
        with self.partial.open("a", encoding="utf-8") as file:
            for row in rows:
                file.write(line(row))
                self.rows.append(dict(row))
            file.flush()
            os.fsync(file.fileno())

    def finish(self, rows: Iterable[Mapping[str, object]]) -> None:
        """The whole file, in the order of `rows`."""
        self.made_with.write_text(self.header, encoding="utf-8")
        write_rows(self.out, rows)
        self.partial.unlink(missing_ok=True)
        self.done = True

    def _open(self, header: str) -> None:
        if not self.partial.exists():
            self.partial.write_text(header, encoding="utf-8")
            return
        content = self.partial.read_bytes()
        # A line that a killed process had half written would swallow the next one.
        whole_lines = content[: content.rfind(b"\n") + 1]
        if whole_lines != content:
            self.partial.write_bytes(whole_lines)
        texts = whole_lines.decode("utf-8").split("\n")
        if texts[0] + "\n" != header and texts != [""]:
            raise ValueError(f"{self.partial} was begun with other settings: remove it or choose another --out")
        if texts == [""]:
            self.partial.write_text(header, encoding="utf-8")
        self.rows = [json.loads(text) for text in texts[1:] if text]


def line(row: Mapping[str, object]) -> str:
    """One row as a line of JSON; NaN and infinity are refused because other readers refuse them."""
    return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file, one per line; a line that is none is named in the ValueError."""
    with path.open("rb") as file:
        rows = [row for _, row in json_objects.read(file, path)]
    if not rows:
        raise ValueError(f"{path} has no rows: write one JSON object per line")
    return rows


def check_free(out: Path) -> None:
    """Refuses a name that is taken: what stands there may be somebody's result."""
    if out.exists():
        raise ValueError(f"{out} already exists: remove it or choose another --out")


# What is not there is made by the next run, and what lies there is not looked through for it.
_AGAIN = "delete {} and make it again"


def read_manifest(path: Path) -> Manifest:
    """The manifest of a folder, believed as it is; `verify` compares it with the files."""
    if not (path / MANIFEST).is_file():
        raise ValueError(f"{path} has no {MANIFEST}: it is incomplete or was not made by nift_training")
    try:
        content = json_objects.parse((path / MANIFEST).read_bytes())
        files = tuple(ManifestFile(**file) for file in content["files"])
        known = all(isinstance(f.name, str) and isinstance(f.bytes, int) and isinstance(f.sha256, str) for f in files)
        if known and isinstance(content["facts"], dict):
            return Manifest(kind=content["kind"], digest=content["digest"], files=files, facts=content["facts"])
        raise TypeError
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path / MANIFEST} is damaged: {_AGAIN.format(path)}") from None


def lacking(path: Path) -> str | None:
    """What of a folder is not there as its manifest says, as far as names and sizes tell; None if all is."""
    if not path.is_dir():
        return f"{path} is missing"
    try:
        manifest = read_manifest(path)
    except ValueError as error:
        return str(error)
    for file in manifest.files:
        there = path / file.name
        if not there.is_file():
            return f"{there} is missing"
        if there.stat().st_size != file.bytes:
            return f"{there} has {there.stat().st_size:,} bytes and not {file.bytes:,}"
    return None


def verify(path: Path) -> Manifest:
    """The manifest of a folder whose files all match it; the first that does not is named."""
    manifest = read_manifest(path)
    for file in manifest.files:
        if not (path / file.name).is_file():
            raise ValueError(f"{path / file.name} is missing though the manifest lists it: {_AGAIN.format(path)}")
        if _describe(path, file.name) != file:
            raise differs(path, file.name)
    check_digest(path, manifest)
    return manifest


def check_digest(path: Path, manifest: Manifest) -> None:
    """Refuses a manifest whose digest is not that of the files it lists."""
    if _digest(manifest.files) != manifest.digest:
        raise ValueError(f"{path / MANIFEST} has a digest that is not its files': {_AGAIN.format(path)}")


def differs(path: Path, name: str) -> ValueError:
    """The error about a file that is not what its folder's manifest says."""
    return ValueError(f"{path / name} differs from the manifest: {_AGAIN.format(path)}")


def verified_digest(path: Path) -> str | None:
    """The digest of a folder of ours after checking its files; none for a download, which has no manifest."""
    return verify(path).digest if (path / MANIFEST).is_file() else None


def remove_partials(out: Path) -> None:
    """Removes drafts of `out` that a killed process has left; nobody may be writing to it."""
    for draft in out.absolute().parent.glob(f".{glob.escape(out.name)}.partial-*"):
        shutil.rmtree(draft) if draft.is_dir() else draft.unlink()


def sha256(path: Path) -> str:
    """The hash of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions(*packages: str) -> dict[str, str]:
    """The installed version of each package, for the facts of a manifest."""
    return {package: version(package) for package in packages}


def _partial(out: Path) -> Path:
    # A sibling, so that the final rename stays on one file system and is atomic.
    return out.with_name(f".{out.name}.partial-{os.getpid()}-{os.urandom(4).hex()}")


def _publish(draft: Draft, out: Path, kind: str) -> None:
    names = sorted(file.relative_to(draft.path).as_posix() for file in draft.path.rglob("*") if file.is_file())
    files = tuple(draft.hashed_files.get(name) or _describe(draft.path, name) for name in names)
    manifest = Manifest(kind=kind, digest=_digest(files), files=files, facts=draft.facts)
    text = json.dumps(asdict(manifest), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    for path in draft.path.rglob("*"):
        sync(path)
    (draft.path / MANIFEST).write_text(text, encoding="utf-8")
    sync(draft.path / MANIFEST)
    sync(draft.path)
    draft.path.rename(out)
    sync(out.absolute().parent)


@contextmanager
def _only_writer(out: Path) -> Iterator[None]:
    path = out.absolute().parent / f".{out.name}.lock"
    with file_locks.locked(path, f"another process is writing {out} right now: wait until it ends"):
        try:
            yield
        finally:
            path.unlink()  # it lies beside somebody's results; who waits for it is refused, and not let in


def _finished(path: Path, job: str) -> dict[str, ManifestFile]:
    """The files a killed process finished of this job and that are still as it left them; all else is removed."""
    files: dict[str, ManifestFile] = {}
    if (path / JOURNAL).is_file():
        # The last line may be torn: only what ends in a line break was flushed.
        first, *lines = (path / JOURNAL).read_text(encoding="utf-8").split("\n")[:-1] or [""]
        if first == json.dumps({"job": job}):
            files = {file.name: file for file in (ManifestFile(**json.loads(text)) for text in lines)}
    files = {name: file for name, file in files.items() if (path / name).is_file() and _describe(path, name) == file}
    for old in path.iterdir():
        if old.is_dir():
            shutil.rmtree(old)
        elif old.name not in files:
            old.unlink()
    journal = "".join([json.dumps({"job": job}) + "\n", *(line(asdict(file)) for file in files.values())])
    (path / JOURNAL).write_text(journal, encoding="utf-8")
    sync(path / JOURNAL)
    return files


def _describe(root: Path, name: str) -> ManifestFile:
    return ManifestFile(name=name, bytes=(root / name).stat().st_size, sha256=sha256(root / name))


def _digest(files: Iterable[ManifestFile]) -> str:
    listing = "".join(f"{name}\0{sha256}\n" for name, sha256 in sorted((file.name, file.sha256) for file in files))
    return hashlib.sha256(listing.encode()).hexdigest()


def sync(path: Path) -> None:
    """Puts a file, or the names in a folder, on the disk, so that it outlives a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
