"""Two actors on one study, one of them stopped at each call of the store while the other runs whole.

Whatever they are and wherever the first is stopped: nothing that is being made is deleted, no table of an older input
counts as fresh, a folder that a row names is whole, and who is refused is told so in a line.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from expectations import contract as contracts
from expectations.frames import conform
from nift_assets.steps.lineage import Partition
from nift_assets.store import Store
from nift_assets.table_files import version_of
from nift_training import artifacts
from tests.counting import Counts
from tests.demo import GRAPH, STUDY
from tests.steps.test_guard import TEXTS, as_it_is, completions_that, materialize, reason, sampled

SETS = [row.name for row in STUDY.training_sets][:2]
OTHER_TEXTS = [f"Altogether other article {i} goes on\n\nfor several words – and then some more." for i in range(3)]
# What an actor may be told who is refused.
REFUSALS = ("is making", "has not been made yet", "nothing was written")
SECONDS = 30

Actor = Callable[[Store], None]


def put(store: Store, table: str, key: str | None, rows: pl.DataFrame) -> None:
    """Stores rows as if their step had just made them."""
    with store.writing(GRAPH.tables[table].tables[0], key):
        store.write(table, key, rows, version_of(rows, GRAPH.inputs_version(store, Partition(table, key))))


def pairs(name: str, of: str) -> pl.DataFrame:
    row = {"prompt": of, "response": of, "document_id": "0", "sample_rank": 0, "training_set": name, "teacher": "echo"}
    return conform(pl.DataFrame([row]), contracts.load("training_sets"))


def prepare(root: Path) -> Store:
    store = Store(root=str(root), study=STUDY.name)
    put(store, "raw_sample", None, sampled(TEXTS))
    for name in SETS:
        put(store, "training_sets", name, pairs(name, "old"))
    return store


def made(store: Store, *tables: str, key: str | None = None, functions: dict[str, Any] | None = None) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        run = materialize(instance, store, *tables, partition=key, functions=functions)
    if not run.success:
        failures = [event.step_failure_data for event in run.all_events if event.is_step_failure]
        raise ValueError(f"{reason(run)} {[failure.user_failure_data for failure in failures]}")


def run(store: Store) -> None:
    """Of `nift run`: the halves, what a teacher says of them, and what is removed at its end."""
    made(store, "halves")
    made(store, "completions", key="echo", functions=completions_that(as_it_is))
    store.remove_unnamed_folders()


def run_of_the_ui(store: Store) -> None:
    """A folder that is made and named by its row, as weights are."""
    made(store, "training_files", key=SETS[0])


def back_fill(store: Store) -> None:
    for name in SETS:
        made(store, "training_files", key=name)


def new_inputs(store: Store) -> None:
    """Another sample and other training sets, as a run of an edited study makes them."""
    put(store, "raw_sample", None, sampled(OTHER_TEXTS))
    for name in SETS:
        put(store, "training_sets", name, pairs(name, "new"))


def fresh(store: Store) -> None:
    store.forget()


def checked(store: Store) -> None:
    """A command that only looks, and puts aside what is damaged."""
    for table, key in (("halves", None), ("completions", "echo"), ("training_files", SETS[0])):
        assert store.set_aside(table, key) is None, "nothing is damaged"


ACTORS = (run, run_of_the_ui, back_fill, new_inputs, fresh, checked)
CALLS = ("version", "stored", "read", "write", "folder", "path", "check", "writing", "forget", "remove_unnamed_folders")


class Stops:
    """Has an actor stop before its `at`-th call of the store, and another run whole there."""

    def __init__(self, patch: pytest.MonkeyPatch, at: int, other: Callable[[], None]) -> None:
        self.calls, self._at, self._other = 0, at, other
        self._first = threading.current_thread()
        self.second: threading.Thread | None = None
        for name in CALLS:
            patch.setattr(Store, name, self._stopping(getattr(Store, name)))

    def _stopping(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def stopping(*arguments: Any, **options: Any) -> Any:
            if threading.current_thread() is self._first:
                self.calls += 1
                if self.calls == self._at:
                    self.second = threading.Thread(target=self._other)
                    self.second.start()
                    # Where the first holds what the second waits for, both go on.
                    self.second.join(0.5)
            return call(*arguments, **options)

        return stopping


def refusal_of(actor: Actor, store: Store) -> str | None:
    """What the actor was told if it was refused; any other error is one."""
    try:
        actor(store)
    except (ValueError, OSError) as error:
        return str(error)
    return None


def holds(store: Store) -> None:
    for table in ("halves", "completions", "training_files", "raw_sample", "training_sets"):
        for key in GRAPH.keys(table):
            store.check(table, key)
    halves, sample = store.find("halves", None), store.find("raw_sample", None)
    if halves is not None and sample is not None and GRAPH.is_current(store, Partition("halves", None)):
        assert (halves["first_half"] + halves["second_half"]).to_list() == sample["text"].to_list()
    completions = store.find("completions", "echo")
    if completions is not None and halves is not None and GRAPH.is_current(store, Partition("completions", "echo")):
        assert completions["document_id"].to_list() == halves["document_id"].to_list()
    for name in SETS:
        row, pairs_of_set = store.find("training_files", name), store.find("training_sets", name)
        if row is not None:
            folder = Path(str(store.folder(row["folder"][0])))
            artifacts.verify(folder)
            if pairs_of_set is not None and GRAPH.is_current(store, Partition("training_files", name)):
                assert pairs_of_set["prompt"][0] in (folder / "alpaca.jsonl").read_text()


def meet(first: Actor, second: Actor, at: int, root: Path) -> bool:
    """Whether the first was stopped at its `at`-th call; all that has to hold afterwards does."""
    store, told = prepare(root), []
    with pytest.MonkeyPatch.context() as patch:
        stops = Stops(patch, at, lambda: told.append(refusal_of(second, store)))
        told.append(refusal_of(first, store))
        if stops.second is not None:
            stops.second.join(SECONDS)
            assert not stops.second.is_alive(), "the two wait for each other"
    for refusal in filter(None, told):
        assert any(known in refusal for known in REFUSALS), refusal
    holds(store)
    # Whoever was refused gets its way now, and all is whole.
    for actor in (new_inputs, run, back_fill):
        assert refusal_of(actor, store) is None
    holds(store)
    assert GRAPH.is_current(store, Partition("training_files", SETS[1]))
    return stops.second is not None


QUICK = {(run_of_the_ui, fresh): 7, (run_of_the_ui, run): 8, (run, new_inputs): 11, (fresh, run_of_the_ui): 1}
PAIRS = [(first, second) for first in ACTORS for second in ACTORS]


@pytest.mark.fault("S14")
@pytest.mark.parametrize(("first", "second", "at"), [(*pair, at) for pair, at in QUICK.items()])
def test_one_stopped_once_while_the_other_runs_whole(first: Actor, second: Actor, at: int, tmp_path: Path) -> None:
    assert meet(first, second, at, tmp_path)


@pytest.mark.slow
@pytest.mark.fault("S14")
@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_one_stopped_at_each_call_while_the_other_runs_whole(
    first: Actor, second: Actor, tmp_path: Path, counts: Counts
) -> None:
    at = 1
    while meet(first, second, at, tmp_path / str(at)):
        at += 1
    counts("S14", f"{first.__name__} stopped at each of {at - 1} calls, {second.__name__} run whole there: 0 lost")
