"""Running a verb of `nift_training` as a process of its own, and keeping the folder it makes under its digest."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from nift_assets.steps.context import Context
from nift_assets.store import Store
from nift_training.artifacts import Manifest, read_manifest, replacing, sync, verify

NOTE = ".inputs"


@dataclass(frozen=True)
class Folder:
    """A finished folder of weights: where it lies in the study's folder, and its manifest."""

    name: str
    manifest: Manifest

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.manifest.files)


def run(context: Context, verb: ModuleType, **options: object) -> None:
    """`python -m <verb> --option value …` to its end, with its progress in the event log.

    An option that is None is left out, and one that is a tuple is told once for each of its values. The launcher is the
    context's `pipes`, so that another machine is another one of these and no change here.
    """
    flags = [
        text
        for name, argument in options.items()
        for value in (argument if isinstance(argument, tuple) else (argument,))
        if value is not None
        for text in (f"--{name.replace('_', '-')}", str(value))
    ]
    context.pipes.run(command=[sys.executable, "-m", verb.__name__, *flags], context=context.dagster)


def make_folder(context: Context, table: str, verb: ModuleType, **options: object) -> Folder:
    """The folder a verb makes for one partition of a table, kept as `<table>/<partition>/<digest>`.

    It is named after its content, so what another process is reading is never replaced under its hands. Until it has
    content its name is the same in every run, so that a verb finds what a killed run has left. What is finished is not
    made again, though the run was stopped before its row was stored, or the row was lost: beside each folder lies which
    version of its inputs it was made from.
    """
    draft, job = _draft(context, table), context.graph.inputs_version(context.store, context.partition)
    name = f"{table}/{context.key}"
    with _alone(context, table):
        # Who asks for what is there and up to date wants it made once more.
        is_asked_again = context.graph.is_current(context.store, context.partition)
        if made := _made_from(draft.parent, job, only=draft if is_asked_again else None):
            return keep(draft.parent, made, name=name)
        draft_of(context, table)
        with replacing(_note(draft)) as temporary:
            temporary.write_text(job)
        run(context, verb, out=draft, **options)
        return keep(draft.parent, draft, name=name)


def _note(folder: Path) -> Path:
    """Where it stands which version of its inputs a folder was made from."""
    return folder.with_name(f".{folder.name}{NOTE}")


def _made_from(place: Path, job: str, *, only: Path | None) -> Path | None:
    """A whole folder that was made from these inputs, or only this one if it was."""
    made = [place / note.name[1 : -len(NOTE)] for note in place.glob(f".*{NOTE}") if note.read_text() == job]
    return next((folder for folder in made if only in (None, folder) and _is_whole(folder)), None)


@contextmanager
def _alone(context: Context, table: str) -> Iterator[None]:
    """Holds the lock of the partition whose folder is made, which a step that makes its own table holds already."""
    if context.graph.tables[context.partition.table].tables[0] == table:
        yield
        return
    with context.store.writing(table, context.key):
        yield


def draft_of(context: Context, table: str) -> Path:
    """Where the folder of one partition of a table is to be written; what a broken run has left there is gone."""
    draft = _draft(context, table)
    shutil.rmtree(draft, ignore_errors=True)
    return draft


def _draft(context: Context, table: str) -> Path:
    store = context.store
    if store.is_remote:
        raise ValueError(f"the warehouse is {store.root}, and {table} need a local folder; set NIFT_WAREHOUSE to one")
    return store.folder(table, context.key) / "making"


def keep(place: Path, draft: Path, *, name: str) -> Folder:
    """Give a finished draft the name of its digest; a folder of that name is the same folder made before."""
    manifest = read_manifest(draft)
    final = place / manifest.digest[:16]
    if draft == final:
        return Folder(f"{name}/{final.name}", manifest)
    if final.exists() and _is_whole(final):
        shutil.rmtree(draft)
    else:
        shutil.rmtree(final, ignore_errors=True)
        draft.rename(final)
        sync(place)
    if _note(draft).exists():
        _note(draft).rename(_note(final))
    return Folder(f"{name}/{final.name}", manifest)


@contextmanager
def scratch() -> Iterator[Path]:
    """A temporary folder for what a process reads and writes on its way into a table."""
    with tempfile.TemporaryDirectory(prefix="nift-") as folder:
        yield Path(folder)


@contextmanager
def unfinished(store: Store, name: str, shape: str) -> Iterator[Path]:
    """A folder of the study that outlives a process that is killed in it, and is removed when the block ends well.

    `shape` is a digest of all that shapes what will lie there: what a killed run had made is found again, nothing else
    is, and what was begun of another shape is removed.
    """
    if store.is_remote:
        raise ValueError(f"the warehouse is {store.root}, and weights need a local folder; set NIFT_WAREHOUSE to one")
    folder = store.folder(".unfinished", f"{name}-{shape[:16]}")
    folder.mkdir(parents=True, exist_ok=True)
    for other in folder.parent.iterdir():
        if other != folder and re.fullmatch(rf"{re.escape(name)}-[0-9a-f]{{16}}", other.name):
            shutil.rmtree(other)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def _is_whole(folder: Path) -> bool:
    try:
        verify(folder)
    except ValueError:
        return False
    return True


def facts(folder: Folder) -> dict[str, object]:
    """What a person wants to see of a folder: where it is, how large, and the facts of its manifest."""
    plain = {name: value for name, value in folder.manifest.facts.items() if isinstance(value, (int, float, str))}
    return {"bytes": folder.bytes, "folder": folder.name, "digest": folder.manifest.digest, **plain}
