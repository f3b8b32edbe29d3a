"""Runs one piece of work with its n-th operation on the disk failing, for n = 1, 2, 3 … until none fails.

    LD_PRELOAD=shim.so python -m tests.faults.nth_operation KIND FOLDER STRIDE

Prints what was counted as JSON; whatever is wrong ends it with an AssertionError.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from nift_assets.steps.lineage import Partition
from nift_assets.store import Store
from nift_assets.table_files import version_of, write_portions
from nift_training import artifacts
from tests.faults.shim import Shim

OLD, NEW = pl.DataFrame({"a": [1, 2], "t": ["x", "y"]}), pl.DataFrame({"a": [3] * 500, "t": ["a longer text"] * 500})


@dataclass(frozen=True)
class Work:
    """A piece of work in a folder: what stands there before, what is done, and what has to be true after it `failed` or
    not. `told` is whether our code says where the disk is full."""

    prepare: Callable[[Path], None]
    do: Callable[[Path], None]
    holds: Callable[[Path, bool], None]
    told: bool = True


def store(folder: Path) -> Store:
    return Store(root=str(folder), study="s")


def put(folder: Path, rows: pl.DataFrame) -> None:
    store(folder).write("t", None, rows, version_of(rows, str(rows.height)))


def put_portions(folder: Path, rows: pl.DataFrame) -> None:
    (folder / "tmp").mkdir(exist_ok=True)
    version = write_portions(folder / "tmp" / "draft", [rows[:1], rows[1:]], str(rows.height), "t")
    store(folder).write("t", None, folder / "tmp" / "draft", version)


def put_page(folder: Path, content: bytes) -> None:
    store(folder).write_bytes(content, "page.html")


def old_or_new(folder: Path, failed: bool) -> None:
    """The table is the old or the new one, whole, with its own version; and nothing half is left beside it."""
    read = store(folder).stored("t", None)
    assert read is not None
    assert read.rows.equals(OLD) or read.rows.equals(NEW)
    assert read.version.inputs == str(read.rows.height)
    assert failed or read.rows.equals(NEW)
    assert no_drafts(folder)


def no_drafts(folder: Path) -> bool:
    return not [path for path in folder.rglob("*.partial-*") if path.exists()]


def page_old_or_new(folder: Path, failed: bool) -> None:
    content = (folder / "s" / "page.html").read_bytes()
    assert content in (b"old", b"new" * 1000)
    assert failed or content != b"old"
    assert no_drafts(folder)


def make_folder(folder: Path) -> None:
    if (folder / "weights").exists():
        return
    with artifacts.folder(folder / "weights", "model") as draft:
        for name in ("a", "b"):
            (draft.path / name).write_bytes(name.encode() * 5000)


def make_resumed(folder: Path) -> None:
    if (folder / "weights").exists():
        return
    with artifacts.resumed_folder(folder / "weights", "model", "job") as draft:
        for name in ("a", "b"):
            if name not in draft.hashed_files:
                (draft.path / name).write_bytes(name.encode() * 5000)
                artifacts.sync(draft.path / name)
                whole = artifacts.ManifestFile(name=name, bytes=5000, sha256=artifacts.sha256(draft.path / name))
                artifacts.finish(draft, whole)


def whole_or_not_there(folder: Path, failed: bool) -> None:
    out = folder / "weights"
    if out.exists():
        assert {file.name for file in artifacts.verify(out).files} == {"a", "b"}
    else:
        assert failed
    assert no_drafts(folder)


def log_rows(folder: Path) -> None:
    log = artifacts.RowLog(folder / "rows.jsonl", {"seed": 1})
    for number in range(len(log.rows), 6):
        log.keep([{"n": number}])
    if not log.done:
        log.finish(log.rows)


def rows_as_made(folder: Path, failed: bool) -> None:
    out = folder / "rows.jsonl"
    if out.exists():
        assert artifacts.read_rows(out) == [{"n": number} for number in range(6)]
    else:
        assert failed


def log_event(folder: Path) -> None:
    """An event of Dagster in the database of its run, as every step writes dozens."""
    import dagster as dg

    from tests.conftest import PROJECT, instance_at

    if not (folder / "dagster.yaml").exists():
        configuration = PROJECT / "dagster_project" / "instance" / "dagster.yaml"
        (folder / "dagster.yaml").write_bytes(configuration.read_bytes())
    with instance_at(folder) as instance:
        instance.report_runless_asset_event(dg.AssetMaterialization("t", metadata={"n": 1}))


def events_are_readable(folder: Path, failed: bool) -> None:
    import dagster as dg

    from tests.conftest import instance_at

    with instance_at(folder) as instance:
        seen = instance.fetch_materializations(dg.AssetKey("t"), limit=5).records
    assert failed or len(seen) >= 2


def ignore(*values: object) -> None:
    """Work that is done for what it leaves on the disk."""


QUESTIONS = [str(number) for number in range(6)]


def ask(folder: Path, texts: list[str] = QUESTIONS) -> list[str]:
    """The answers of a provider in this process, through the door; what was asked of it."""
    from nift_assets.ledger.book import Asker, Book
    from nift_assets.ledger.door import ask
    from tests.ledger.asking import question
    from tests.ledger.test_book import Counting

    provider = Counting()
    book = Book(f"sqlite:///{folder}/ledger.sqlite")
    asked = ask(book, Asker(study="s", who="t", writer="s/t"), [question(text) for text in texts], provider)
    assert [answer.text for answer in asked.answers] == texts
    return provider.texts()


def answers_are_kept(folder: Path, failed: bool) -> None:
    """What is stored is an answer to its own question, and none that is stored is asked again."""
    from nift_assets.ledger.book import Book
    from tests.ledger.asking import question

    keys = {question(text).key: text for text in QUESTIONS}
    stored = {keys[key] for key in Book(f"sqlite:///{folder}/ledger.sqlite").answered(list(keys))}
    assert failed or stored == set(QUESTIONS)
    assert {"0", "1"} <= stored, "what had been answered before"
    again = ask(folder)
    assert not stored & set(again)


def write_checkpoint(folder: Path, done: int) -> None:
    import torch

    from nift_training.train import checkpoints
    from nift_training.train.engines import Scale, TrainingState

    tensors = {"a": torch.full((50, 50), float(done))}
    state = TrainingState(masters=tensors, first_moments=tensors, second_moments=tensors, updates=done, scale=Scale())
    checkpoints.write(folder, done, state, [{"step": done}], {"run": "this"})


def latest_is_whole(folder: Path, failed: bool) -> None:
    from nift_training.train import checkpoints

    latest = checkpoints.latest(folder, {"run": "this"}, start_over=False)
    assert latest is not None
    assert latest.done in (2, 3) if failed else latest.done == 3
    assert float(latest.state.masters["a"][0, 0]) == latest.done
    assert no_drafts(folder)


def halve(folder: Path) -> None:
    """A step of the graph that reads and writes a portion at a time, in a run of Dagster's."""
    import dagster as dg

    from tests.steps.test_guard import TEXTS, materialize, reason, sampled

    sample = sampled(TEXTS)
    of_study = Store(root=str(folder), study="demo")
    if not of_study.path("raw_sample", None).exists():
        of_study.write("raw_sample", None, sample, version_of(sample, ""))
        return
    with dg.DagsterInstance.ephemeral() as instance:
        run = materialize(instance, of_study, "halves")
    if not run.success:
        raise OSError(reason(run))


def halves_rejoin(folder: Path, failed: bool) -> None:
    from tests.demo import GRAPH
    from tests.steps.test_guard import TEXTS

    of_study = Store(root=str(folder), study="demo")
    read = of_study.find("halves", None)
    assert failed or read is not None
    assert read is None or (read["first_half"] + read["second_half"]).to_list() == TEXTS
    assert read is None or GRAPH.is_current(of_study, Partition("halves", None))
    assert no_drafts(folder)


@functools.cache
def weights(place: Path) -> tuple[Path, Path, str]:
    """A base and an adapter that lie elsewhere than what fails, and what they are merged into: the digest of it."""
    from nift_training.merge import run
    from nift_training.train import run as training
    from tests.training.conftest import ARTICLES, RECIPE, write_tiny_model

    base, adapter, pairs = write_tiny_model(place / "base", seed=0), place / "adapter", place / "pairs.jsonl"
    rows = [{"prompt": text[:60], "response": text[60:]} for text in ARTICLES * 3]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    training.train(base, "tiny-base", pairs, RECIPE, adapter, threads=1)
    return base, adapter, artifacts.sha256(run.merge(base, adapter, place / "merged") and place / "merged" / run.SINGLE)


def merge(folder: Path) -> None:
    from nift_training.merge import run

    base, adapter, _ = weights(folder.parent / "sources")
    if not (folder / "merged").exists():
        run.merge(base, adapter, folder / "merged")


def merged_or_not_there(folder: Path, failed: bool) -> None:
    from nift_training.merge import run

    out = folder / "merged"
    if out.exists():
        artifacts.verify(out)
        assert artifacts.sha256(out / run.SINGLE) == weights(folder.parent / "sources")[2]
    else:
        assert failed
    assert no_drafts(folder)


HUBS: dict[Path, Any] = {}


def begin_hub(folder: Path) -> None:
    """A Hub for this folder, with a publication of before in it; huggingface_hub is turned to it."""
    from huggingface_hub import constants
    from huggingface_hub.utils import disable_progress_bars

    from nift_assets.hub.huggingface_internals import abort_uploads
    from tests.hub import pushing
    from tests.hub.server import Hub, person

    for other in [*HUBS]:
        HUBS.pop(other).__exit__(None, None, None)
    abort_uploads()
    hub = HUBS[folder] = Hub({pushing.TOKEN: person("me")}).__enter__()
    os.environ |= {"HF_XET_CACHE": str(folder / "xet"), "HF_XET_CLIENT_RETRY_BASE_DELAY": "10ms"}
    constants.HUGGINGFACE_CO_URL_TEMPLATE = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    constants.ENDPOINT, constants.HF_HUB_OFFLINE, constants.HF_HUB_DISABLE_XET = hub.url, False, False
    disable_progress_bars()
    pushing.push(pushing.write(folder.parent / f"before-{folder.name}"), pushing.publication())


NEWS = {"news.md": b"what is new"}


def push(folder: Path) -> None:
    """Makes the folder that is published, and pushes it."""
    from tests.hub import pushing

    out = folder / "publication"
    if not out.exists():
        pushing.write(out, changed=NEWS)
    pushing.push(out, pushing.publication())


def a_whole_commit(folder: Path, failed: bool) -> None:
    """The Hub's head is what was published before or what is published now, with every file of it."""
    from tests.hub import pushing

    hub = HUBS[folder]
    files = set(hub.repos["dataset", "me/nift"].head.files)
    assert files >= {*pushing.SHARDS, "README.md"}
    assert failed or "news.md" in files
    assert no_drafts(folder)


KINDS = {
    "merge": Work(lambda folder: ignore(weights(folder.parent / "sources")), merge, merged_or_not_there, told=False),
    "push": Work(begin_hub, push, a_whole_commit, told=False),
    "step": Work(halve, halve, halves_rejoin),
    "ledger": Work(
        lambda folder: ignore(ask(folder, ["0", "1"])), lambda folder: ignore(ask(folder)), answers_are_kept, told=False
    ),
    "checkpoint": Work(
        lambda folder: ignore(write_checkpoint(folder, 1), write_checkpoint(folder, 2)),
        lambda folder: write_checkpoint(folder, 3),
        latest_is_whole,
        told=False,
    ),
    "table": Work(lambda folder: put(folder, OLD), lambda folder: put(folder, NEW), old_or_new),
    "portions": Work(lambda folder: put(folder, OLD), lambda folder: put_portions(folder, NEW), old_or_new),
    "page": Work(
        lambda folder: put_page(folder, b"old"),
        lambda folder: put_page(folder, b"new" * 1000),
        page_old_or_new,
    ),
    "folder": Work(lambda folder: None, make_folder, whole_or_not_there, told=False),
    "resumed": Work(lambda folder: None, make_resumed, whole_or_not_there, told=False),
    "rows": Work(lambda folder: None, log_rows, rows_as_made, told=False),
    "events": Work(log_event, log_event, events_are_readable, told=False),
}


def sweep(kind: str, base: Path, stride: int) -> dict[str, int]:
    work, shim, counted = KINDS[kind], Shim(), {"operations": 0, "failed": 0}
    for number, stays in ((errno.ENOSPC, True), (errno.EIO, False)):
        at = 1
        while True:
            folder = base / f"{number}-{at}"
            folder.mkdir(parents=True)
            work.prepare(folder)
            error, operations = None, 0
            with shim.failing(at, number, folder, stays=stays):
                try:
                    work.do(folder)
                except Exception as caught:
                    error = caught
                operations = shim.operations()
            work.holds(folder, error is not None)
            if error is not None:
                counted["failed"] += 1
                assert not work.told or str(folder) in str(error), f"{kind} {at}: {error!r} does not name the folder"
                assert not work.told or "NIFT_WAREHOUSE" in str(error) or "TMPDIR" in str(error), repr(error)
            work.do(folder)
            work.holds(folder, False)
            shutil.rmtree(folder)
            if at > operations:
                break
            counted["operations"] += 1
            at += stride
    return counted


if __name__ == "__main__":
    print(json.dumps(sweep(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))))
