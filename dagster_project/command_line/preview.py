"""The command that asks a teacher a few documents, to be read before all of them are paid for."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from dagster_project.command_line import teachers
from dagster_project.command_line.terminal import as_text, main, printable, refuse
from dagster_project.settings import open_book, warehouse
from nift_assets import studies
from nift_assets.rows import Price
from nift_assets.store import Store

if TYPE_CHECKING:
    import polars as pl

    from nift_assets.ledger.door import AskResult
    from nift_assets.protocol import Answer
    from nift_assets.rows import Teacher
    from nift_assets.study import Study

# Documents that cannot be cut are passed over, and so a few more are drawn than are shown.
SPARE = 50
RULE = "─" * 78


@dataclass(frozen=True, kw_only=True)
class PreviewRow:
    """One document: what was sent of it, what came back, and what that cost; None where nobody knows."""

    document_id: str
    prompt: str
    answer: str
    thoughts: str | None
    status: str
    finish_reason: str | None
    input_tokens: int | None
    output_tokens: int | None
    usd: float | None
    detail: str | None


@main.command()
@click.argument("teacher", required=False)
@click.option("--documents", default=3, show_default=True, type=click.IntRange(1, 100), help="How many are asked.")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
def preview(teacher: str | None, documents: int, as_json: bool) -> None:
    """Ask TEACHER the study's first documents and show whole answers with their price, and what all would cost.

    They are asked through the ledger, under its caps, as the study asks them: nothing is paid twice, and nothing else
    is written.
    """
    try:
        study = studies.active()
        row = teachers.chosen(study, teacher)
        halves = _first_halves(study, min(documents, row.documents or documents))
        asked, price = _ask(study, row, halves)
        wanted = _wanted(study, row)
    except (ValueError, OSError) as error:
        refuse(str(error))
    except KeyboardInterrupt:
        refuse("stopped; what was answered is kept, the same command goes on from there")
    rows = [_row(half, answer, price) for half, answer in zip(halves.iter_rows(named=True), asked.answers, strict=True)]
    total = _extrapolated(rows, wanted)
    if as_json:
        content = {"teacher": row.name, "rows": [asdict(each) for each in rows], "documents": wanted, "usd": total}
        click.echo(as_text(content | {"sent": asked.sent}))
    else:
        click.echo(_rendered(row, rows, asked.sent, wanted, total))
    if asked.stopped:
        refuse(str(asked.stopped), teachers.exit_status(asked.stopped))


def _first_halves(study: Study, number: int) -> pl.DataFrame:
    """The first documents of the study's sample, cut as the study cuts them; from its table where that is up to date,
    else from the corpus, of which a smaller sample is the beginning of a larger one."""
    from nift_assets import corpus as corpora
    from nift_assets import graph
    from nift_assets.corpus import halves
    from nift_assets.steps import revisions
    from nift_assets.steps.lineage import Partition

    store = Store(root=warehouse(), study=study.name)
    place = Partition("halves", None)
    if store.path(*place).exists() and graph.build(study).is_current(store, place):
        return store.read(*place).head(number)
    row = revisions.pinned(study, store, place).corpus
    drawn = min(row.documents or number + SPARE, number + SPARE)
    sample = corpora.sample(
        replace(row, documents=drawn), report=lambda progress: click.echo(f"reading the corpus: {progress}", err=True)
    )
    cut = halves.halve(sample.documents, seed=row.seed, cut_at=row.cut_at).head(number)
    if cut.is_empty():
        raise ValueError(f"{row.location}: none of the first {drawn} documents can be cut in two; see `cut_at`")
    return cut


def _ask(study: Study, teacher: Teacher, halves: pl.DataFrame) -> tuple[AskResult, Price | None]:
    """One answer per document, through the door by which the table of completions asks."""
    from nift_assets.costs import price_list
    from nift_assets.ledger import door
    from nift_assets.prompts import completions
    from nift_assets.steps import asking
    from nift_assets.steps.lineage import Partition

    store = Store(root=warehouse(), study=study.name)
    weights = teachers.weights(study, teacher, store)
    second_halves = dict(halves.select("document_id", "second_half").iter_rows())
    inputs = teachers.provider_inputs(study, teacher, store, weights, second_halves.__getitem__)
    requests = completions.requests(teacher, halves, local_model=weights["digest"] if weights else None)
    asker = asking.asker(study, teacher, Partition("completions", teacher.name))
    with ExitStack() as stack:
        asked = door.ask(
            open_book(),
            replace(asker, writer=f"{asker.writer}, looked at"),  # which a run that asks all of it does not keep out
            requests,
            lambda: teachers.connected(stack, study, teacher, inputs),
            limits=teacher.limits,
            price=lambda: asking.price(study, teacher),
            report=lambda counts: click.echo(printable(counts.news), err=True) if counts.news else None,
        )
    return asked, price_list.last_price(teacher)


def _wanted(study: Study, teacher: Teacher) -> int | None:
    """How many documents the teacher is asked in all; None while nobody knows how many there are."""
    stored = Store(root=warehouse(), study=study.name).rows("halves", None)
    there = stored if stored is not None else study.corpus.documents
    return there if teacher.documents is None else min(teacher.documents, there or teacher.documents)


def _row(half: Mapping[str, Any], answer: Answer, price: Price | None) -> PreviewRow:
    counted = answer.input_tokens is not None and answer.output_tokens is not None
    cost = price.cost(answer.input_tokens or 0, answer.output_tokens or 0) / 1e9 if price and counted else None
    return PreviewRow(
        document_id=half["document_id"],
        prompt=half["first_half"],
        answer=answer.text,
        thoughts=answer.thoughts,
        status=answer.status,
        finish_reason=answer.finish_reason,
        input_tokens=answer.input_tokens,
        output_tokens=answer.output_tokens,
        usd=0.0 if price is None else cost,
        detail=answer.detail,
    )


def _extrapolated(rows: Sequence[PreviewRow], documents: int | None) -> float | None:
    """What all documents would cost at the mean of these."""
    known = [row.usd for row in rows if row.usd is not None and row.status != "pending"]
    return statistics.fmean(known) * documents if known and documents else None


def _rendered(
    teacher: Teacher, rows: Sequence[PreviewRow], sent: int, documents: int | None, total: float | None
) -> str:
    lines: list[str] = []
    for number, row in enumerate(rows, start=1):
        tokens = f"{_number(row.input_tokens)} tokens in, {_number(row.output_tokens)} out"
        price = "free" if row.usd == 0 else "of unknown price" if row.usd is None else f"${row.usd:,.6f}"
        ended = f", ended by {row.finish_reason!r}" if row.finish_reason else ""
        lines += [RULE, f"{number} of {len(rows)}  document {row.document_id}", RULE, printable(row.prompt), ""]
        if row.thoughts:
            lines += [f"── {teacher.name} thought ──", printable(row.thoughts), ""]
        lines += [f"── {teacher.name} goes on ──", printable(row.answer) or "(no text)", ""]
        lines.append(f"{row.status}{ended}; {tokens}; {price}" + (f"; {printable(row.detail)}" if row.detail else ""))
    asked = f"{sent} asked now, {len(rows) - sent} answered before" if sent < len(rows) else f"{sent} asked now"
    lines += [RULE, f"{asked}; nothing of it is paid again."]
    if total == 0:
        lines.append("Asking this teacher costs nothing.")
    elif total is not None and documents:
        lines.append(f"At this size all {documents:,} documents cost about ${total:,.2f}; `nift plan` has the range.")
    else:
        lines.append("`nift plan` says what all documents cost.")
    return "\n".join(lines)


def _number(count: int | None) -> str:
    return "?" if count is None else f"{count:,}"
