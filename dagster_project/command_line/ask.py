"""The command that asks a teacher without making its table: some portions, or all, beside others that do the same."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from dagster_project.command_line import teachers
from dagster_project.command_line.terminal import main, printable, refuse
from dagster_project.settings import open_book, warehouse
from nift_assets import studies
from nift_assets.store import Store

if TYPE_CHECKING:
    import polars as pl

    from expectations.frames import Rows
    from nift_assets.ledger.door import Outcome
    from nift_assets.ledger.progress import Counts
    from nift_assets.rows import Teacher
    from nift_assets.steps.lineage import Graph
    from nift_assets.study import Study

SAY_EVERY_SECONDS = 10.0


@main.command()
@click.argument("teacher", required=False)
@click.option("--portions", "chosen", help="Which, as 3 or 2-5; all without it.")
def ask(teacher: str | None, chosen: str | None) -> None:
    """Ask TEACHER what nobody has answered yet, without making a table.

    What is answered is kept in the ledger, from which `nift run completions` makes the table. Documents are asked by
    portions of 5,000: several of these commands, and a run, each take portions that nobody else has, on one machine or
    on several that share the warehouse and a ledger in PostgreSQL. Where one is killed the others do what is left of
    it.
    """
    from nift_assets import graph

    try:
        study = studies.active()
        row = teachers.chosen(study, teacher)
        outcome = _asked(graph.build(study), row, chosen)
    except (ValueError, OSError) as error:
        refuse(str(error))
    except KeyboardInterrupt:
        refuse("stopped; what was answered is kept, the same command goes on from there")
    click.echo(f"{outcome.sent:,} asked here for ${outcome.spent / 1e9:,.2f}, {outcome.written:,} tokens written")
    if outcome.stopped:
        refuse(str(outcome.stopped), teachers.exit_status(outcome.stopped))
    if chosen is None:
        click.echo(f"Nothing is left to ask. The table: nift run completions --partition {row.name}")


def _asked(graph: Graph, teacher: Teacher, chosen: str | None) -> Outcome:
    from expectations.frames import Rows
    from nift_assets.steps.lineage import Partition

    store, halves = Store(root=warehouse(), study=graph.study.name), Partition("halves", None)
    if not graph.is_current(store, halves):
        raise ValueError("the documents are cut from halves, which are not made or out of date: nift run halves")
    with store.held(*halves) as stored:
        assert stored is not None, "it is up to date"
        with Rows(stored[0]) as rows:
            return _bring_in(graph.study, teacher, store, rows, chosen)


def _bring_in(study: Study, teacher: Teacher, store: Store, halves: Rows, chosen: str | None) -> Outcome:
    """As the table of completions asks them, so that it finds every answer."""
    from nift_assets.ledger import door
    from nift_assets.prompts import completions
    from nift_assets.steps import asking
    from nift_assets.steps.lineage import Partition

    place, book = Partition("completions", teacher.name), open_book()
    weights = teachers.weights(study, teacher, store)
    asked = completions.Requests(teacher, halves, local_model=weights["digest"] if weights else None)
    inputs = teachers.provider_inputs(study, teacher, store, weights, asked.second_half)

    def rows(number: int) -> pl.DataFrame:
        requests = asked[number]
        return completions.rows(teacher, asked.documents(number), requests, door.stored(book, requests))

    with ExitStack() as stack:
        return door.bring_in(
            book,
            asking.asker(study, teacher, place, shared=True),
            asked,
            lambda: teachers.connected(stack, study, teacher, inputs),
            numbers=_numbers(chosen, len(asked)),
            limits=teacher.limits,
            price=lambda: asking.price(study, teacher),
            report=_told(),
            look=asking.looker(teacher, place, asked, rows),
            release=stack.close,
        )


def _numbers(chosen: str | None, portions: int) -> list[int] | None:
    """The portions that are meant by `3` or `2-5`, which are counted from one."""
    if chosen is None:
        return None
    named = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", chosen.strip())
    first, last = (int(named[1]), int(named[2] or named[1])) if named else (0, 0)
    if not 1 <= first <= last <= portions:
        which = f"give one, as 1, or several, as 1-{portions}" if portions > 1 else "leave it out"
        raise ValueError(f"--portions is {chosen!r}; there are {portions}: {which}")
    return list(range(first - 1, last))


def _told() -> Callable[[Counts], None]:
    """Prints how far it is, at most every so often."""
    from nift_assets.steps import asking

    said = -SAY_EVERY_SECONDS

    def report(counts: Counts) -> None:
        nonlocal said
        if counts.news:
            click.echo(printable(counts.news), err=True)
        if time.monotonic() - said >= SAY_EVERY_SECONDS:
            said = time.monotonic()
            click.echo(asking.progress(counts), err=True)

    return report
