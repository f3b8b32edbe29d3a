"""What a study's paid calls will cost, before any is made: per model that is asked, from what is on this machine.

Nothing here reaches the network. Where the articles have been cut their texts are used, where the ledger has answers of
the same row those are; else the sizes are assumed, and said to be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import polars as pl

from expectations import contract, frames
from expectations.frames import Rows
from nift_assets import benchmarks, providers
from nift_assets.benchmarks.scoring import files
from nift_assets.benchmarks.scoring.interface import Range, Size
from nift_assets.costs import price_list, tokens
from nift_assets.costs.tokens import TokenCount
from nift_assets.ledger import report
from nift_assets.prompts import audits, completions, controls
from nift_assets.protocol import Request
from nift_assets.rows import Audit, Auditor, Benchmark, Control, Judge, LanguageModel, Price, Teacher
from nift_assets.secrets import keys
from nift_assets.store import Store, TolerantStore
from nift_assets.study import Study
from nift_training import endings

if TYPE_CHECKING:
    from nift_assets.ledger.book import Book

Role = Literal["teacher", "judge", "audit", "control"]
AskingState = Literal["ready", "done", "free", "retired", "no price", "over the cap", "needs key"]
# Those that no run can get past without a person.
STOPPED: tuple[AskingState, ...] = ("retired", "no price", "over the cap")

# Of an article's tokens the paper's cut sends about half, and a teacher writes somewhat less than the other half. How
# long a model goes on is its own affair: half as much or twice as much are both ordinary.
INTO, OUT = 560 / 1_100, 450 / 1_100
SHORTER, LONGER = 0.5, 2.0
# A corpus's average is known from elsewhere, to a tenth or so.
OFF = 0.15
# What a chat format puts around a message.
FRAME = TokenCount(low=3, expected=6, high=12, basis="assumed")


# Of halves, what requests are made of.
HALVES = ("document_id", "first_half", "second_half")
# What is read of the documents that are audited.
AUDITED = {
    "control_texts": ("document_id", "draw", "status", "text"),
    "reference_sets": ("row_id", "prompt", "response"),
    "halves": ("document_id", "first_half"),
    "completions": ("document_id", "sample_rank", "status", "completion"),
}

# A text written to order, and what an auditor says of a document: the verdict comes first, the reason may be long.
CONTROL = TokenCount(low=300, expected=700, high=1_200, basis="assumed")
VERDICT = TokenCount(low=2, expected=60, high=250, basis="assumed")


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Billionths of a dollar: the least, the most likely and the most."""

    low: int
    expected: int
    high: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(low=self.low + other.low, expected=self.expected + other.expected, high=self.high + other.high)


ROLES: Mapping[type[LanguageModel], Role] = {
    Teacher: "teacher",
    Judge: "judge",
    Auditor: "audit",
    Control: "control",
}
NOTHING = Cost(low=0, expected=0, high=0)


@dataclass(frozen=True, kw_only=True)
class PlanRow:
    """What one teacher, judge, auditor or control has still to be asked and what that costs; None is what nobody knows.

    `requests` are all that are wanted, `missing` those without an answer; tokens and costs are of the missing ones.
    `cap` and `taken` (spent and reserved) are the row's own, in billionths of a dollar.
    """

    name: str
    role: Role
    provider: str
    model: str
    requests: int | None
    answered: int
    missing: int | None
    input: TokenCount | None
    output: TokenCount | None
    online: Cost | None
    batch: Cost | None
    cap: int | None
    taken: int
    state: AskingState
    status: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All lines of a study with their sum, and the study's cap and what is taken of it, in billionths of a dollar.

    `unknown` names the rows that are in no sum, since what they cost is not known.
    """

    study: str
    lines: Sequence[PlanRow]
    online: Cost
    batch: Cost | None
    unknown: Sequence[str]
    cap: int | None
    taken: int
    over: bool
    warnings: Sequence[str]

    def stopped(self) -> bool:
        """Whether a person has to do something before all can be asked: a model has ended, or a cap is too low."""
        return self.over or any(line.state in STOPPED for line in self.lines)


@dataclass(frozen=True, kw_only=True)
class _Need:
    """What a row wants asked, and the tokens of what has no answer yet; `open` reads a teacher's requests of that, each
    with its document, where the texts are there."""

    requests: int | None
    answered: int
    missing: int | None
    input: TokenCount | None = None
    output: TokenCount | None = None
    open: Callable[[], Iterable[tuple[str, Request]]] = tuple


def plan(study: Study, *, store: Store, book: Book | None, today: date) -> Plan:
    """What is still to be asked for a study, and what it will cost on that day; what is damaged counts as not there."""
    store = TolerantStore(root=store.root, study=store.study)
    taken = report.spent_and_reserved(book, study.name) if book else {}
    budget = price_list.budget(study)
    cap = _billionths(budget)
    room = None if cap is None else cap - taken.get("", 0)
    answered = report.answered(book, study.name) if book else {}
    asked: list[tuple[LanguageModel, _Need]] = [
        *((row, _teacher(study, row, store, book, answered.get(row.name, 0))) for row in study.teachers),
        *((row, _judge(study, row, store, book, answered.get(row.name, 0))) for row in study.judges),
        *((row, _control(row, store, book, answered.get(row.name, 0))) for row in study.controls),
        *((row, _auditor(study, row, store, book, answered.get(row.name, 0))) for row in study.auditors),
    ]
    lines = [_line(row, need, taken.get(row.name, 0), room, today) for row, need in asked]
    paid = [line for line in lines if line.state != "free"]
    online = sum((line.online for line in paid if line.online), start=NOTHING)
    # A model that is not sold by batch is asked online beside the others.
    batch = sum((line.batch or line.online or NOTHING for line in paid), start=NOTHING)
    return Plan(
        study=study.name,
        lines=lines,
        online=online,
        batch=batch if any(line.batch for line in paid) else None,
        unknown=[line.name for line in paid if line.online is None],
        cap=cap,
        taken=taken.get("", 0),
        over=room is not None and online.expected > room,
        warnings=[
            *(said for row, _ in asked if (said := price_list.ending_soon(row, today))),
            *(said for row, need in asked if (said := _too_dear(row, need, taken.get(row.name, 0), room))),
            *(said for row in study.teachers if (said := _of_unknown_endings(row, store))),
            *_of_scripts_without_spaces(study, store),
            *store.damaged.values(),
        ],
    )


def _too_dear(row: LanguageModel, need: _Need, taken: int, room: int | None) -> str | None:
    """Which documents may each cost more than is left of the cap, and will be passed over."""
    price, cap = price_list.last_price(row), _billionths(row.budget_usd)
    left = _least(room, None if cap is None else cap - taken)
    if price is None or left is None or price_list.is_free(row):
        return None
    # With its addresses and names the request is a little longer than what is sent.
    sizes = [
        (document, len(request.body().encode("utf-8", "surrogatepass")), request) for document, request in need.open()
    ]
    most = [(price.most(size, request.output_limit), document) for document, size, request in sizes]
    dear = sorted(((cost, document) for cost, document in most if cost > left), reverse=True)
    if not dear:
        return None
    named = ", ".join(f"{document} (up to ${cost / 1e9:,.2f})" for cost, document in dear[:3])
    more = f" and {len(dear) - 3:,} more" if len(dear) > 3 else ""
    return (
        f"{row.name}: {named}{more} may cost more than the ${max(0, left) / 1e9:,.2f} that are left of the cap, and "
        "will be passed over; raise the cap, or leave so long a document out"
    )


def _of_unknown_endings(teacher: Teacher, store: Store) -> str | None:
    """How many stored answers ended for a reason that nobody knows."""
    stored = store.find("completions", teacher.name, ["finish_reason"])
    if stored is None:
        return None
    reasons = stored["finish_reason"].drop_nulls().value_counts().sort("finish_reason")
    named = [f"{number:,} of {reason!r}" for reason, number in reasons.rows() if endings.ending(reason) is None]
    if not named:
        return None
    return (
        f"{teacher.name}: answers ended for a reason that nobody knows, {' and '.join(named)}, and are not trained on; "
        "say in nift_training/endings.py what it means, and they are read again without being asked again"
    )


def _of_scripts_without_spaces(study: Study, store: Store) -> list[str]:
    """How many articles cannot be cut for want of spaces."""
    rejects = store.find("halves_rejects", None, ["reason"]) if study.corpus.cut_at == "spaces" else None
    if rejects is None:
        return []
    number = int((rejects["reason"] == "no spaces").sum())
    if not number:
        return []
    return [
        f"{study.corpus.name}: {number:,} articles are written without spaces between words and cannot be cut there; "
        "cut_at='words' in the corpus's row (NIFT_CUT_AT=words), or 'sentences', makes them usable"
    ]


@dataclass(frozen=True, kw_only=True)
class PlannedPartition:
    """What of a row's questions one partition of a table needs: those about a model's answers on a benchmark, those of
    an audit, or all of them."""

    row: LanguageModel
    benchmark: str | None = None
    model: str | None = None
    audit: str | None = None


def planned_partition(study: Study, table: str, partition: str | None) -> PlannedPartition | None:
    """What is asked for one partition of a table, None of a table that nobody is asked for."""
    key = str(partition)
    if table == "completions":
        return PlannedPartition(row=study.teacher(key))
    if table == "control_texts":
        return PlannedPartition(row=study.control(key))
    if table == "content_audit":
        return PlannedPartition(row=study.auditor(study.audit(key).auditor), audit=key)
    for benchmark in _judged(study):
        if table == benchmarks.results_table(benchmark.name):
            return PlannedPartition(row=study.judge(str(benchmark.judge)), benchmark=benchmark.name, model=key)
    return None


def plan_row(study: Study, asked: PlannedPartition, *, store: Store, book: Book | None, today: date) -> PlanRow:
    """The line of a part of a row's questions, which is what one partition costs on that day."""
    row = asked.row
    answered = report.answered(book, study.name).get(row.name, 0) if book else 0
    # Of a part only what is answered of itself counts, and that is found by its texts.
    if isinstance(row, Teacher):
        need = _teacher(study, row, store, book, answered)
    elif isinstance(row, Judge):
        need = _judge(study, row, store, book, 0, asked)
    elif isinstance(row, Auditor):
        need = _auditor(study, row, store, book, 0, asked)
    else:
        assert isinstance(row, Control)
        need = _control(row, store, book, answered)
    return _line_of_part(study, row, need, book, today)


def plan_requests(
    study: Study, judge: Judge, size: Size, requests: Sequence[Request], *, store: Store, book: Book | None, today: date
) -> PlanRow:
    """The line of some requests of a judge, which are about answers of a benchmark of that size."""
    calls = _Calls(typical=_assumed(size.output), known=[*requests])
    return _line_of_part(study, judge, _called(judge, calls, store, book, 0), book, today)


def _line_of_part(study: Study, row: LanguageModel, need: _Need, book: Book | None, today: date) -> PlanRow:
    taken = report.spent_and_reserved(book, study.name) if book else {}
    cap, own_cap = _billionths(price_list.budget(study)), _billionths(row.budget_usd)
    room = _least(
        None if cap is None else cap - taken.get("", 0), None if own_cap is None else own_cap - taken.get(row.name, 0)
    )
    return _line(row, need, taken.get(row.name, 0), room, today)


def _line(row: LanguageModel, need: _Need, taken: int, room: int | None, today: date) -> PlanRow:
    price = price_list.last_price(row)
    cap = _billionths(row.budget_usd)
    online = _cost(price, need, batch=False)
    state, status = _state(row, need, online, _least(room, None if cap is None else cap - taken), today)
    return PlanRow(
        name=row.name,
        role=ROLES[type(row)],
        provider=row.provider,
        model=row.model,
        requests=need.requests,
        answered=need.answered,
        missing=need.missing,
        input=need.input,
        output=need.output,
        online=NOTHING if state == "free" else online,
        batch=NOTHING if state == "free" else _cost(price, need, batch=True),
        cap=cap,
        taken=taken,
        state=state,
        status=status,
    )


def _state(
    row: LanguageModel, need: _Need, online: Cost | None, room: int | None, today: date
) -> tuple[AskingState, str]:
    """Whether a row can be asked now, and if not, why and what to do."""
    if price_list.is_free(row):
        return "free", "free"
    if need.missing == 0 and need.requests:
        return "done", "all answered"
    listed = price_list.listed(row.provider, row.model) if row.base_url is None else None
    if listed and listed.retired(today):
        living = price_list.substitute(listed, today)
        return "retired", f"retired since {listed.ends}" + (f", substitute {living}" if living else "")
    if price_list.last_price(row) is None:
        if row.base_url is not None:
            return "no price", "no price: its server wants a key; add price= to its row, with 0 if it costs nothing"
        return "no price", "no price: add the model to the price list, or price= to its row"
    if online is not None and room is not None and online.expected > room:
        return "over the cap", f"over the cap: ${max(0, room) / 1e9:,.2f} are left"
    variable = key_variable(row)
    if variable and keys.read(variable) is None:
        return "needs key", f"needs key {variable}"
    return "ready", "ready" if online is None or room is None or online.high <= room else "ready, may reach the cap"


def key_variable(row: LanguageModel) -> str | None:
    """The environment variable with a row's key: its own server's, else the provider's usual one; None without."""
    if row.base_url is not None:
        return row.key_variable
    return providers.load(row.provider).KEY


# -- teachers ----------------------------------------------------------------------------------------------------------


def _teacher(study: Study, teacher: Teacher, store: Store, book: Book | None, answered: int) -> _Need:
    counter = _counter(teacher, store)
    used = report.usage(book, teacher.provider, teacher.model, teacher.name) if book else None
    with store.held("halves", None, HALVES) as stored:
        if stored is None:
            return _assumed_teacher(study, teacher, answered, used)
        with Rows(stored[0]) as halves:
            if providers.load(teacher.provider).IN_PROCESS:
                # Its requests cost nothing, and what shapes them may not be there yet (the digest of local weights).
                wanted = min(teacher.documents or halves.height, halves.height)
                answered = min(answered, wanted)
                texts = _OpenTexts(teacher, halves, skipped=answered)
            else:
                wanted, places = _open_places(teacher, halves, book)
                answered = wanted - sum(map(len, places))
                texts = _OpenTexts(teacher, halves, places)
            missing = wanted - answered
            return _Need(
                requests=wanted,
                answered=answered,
                missing=missing,
                input=_input(texts.sent, missing, counter, used),
                output=_limited(_output(texts.replaced, missing, counter, used), teacher, missing),
                open=lambda: _open_requests(store, teacher, texts.places),
            )


def _open_places(teacher: Teacher, halves: Rows, book: Book | None) -> tuple[int, list[list[int]]]:
    """How many requests there are, and of each portion of them the places of those that have no answer."""
    wanted, places = 0, []
    for requests in completions.Requests(teacher, halves):
        done = book.settled(requests, reuse_below_limit=teacher.reuse_below_limit) if book else set()
        places.append([place for place, request in enumerate(requests) if request.key not in done])
        wanted += len(requests)
    return wanted, places


def _open_requests(store: Store, teacher: Teacher, places: Sequence[Sequence[int]]) -> Iterator[tuple[str, Request]]:
    """The requests at these places of the portions, each with its document."""
    with store.held("halves", None, HALVES) as stored:
        if stored is None or not any(places):
            return
        with Rows(stored[0]) as halves:
            asked = completions.Requests(teacher, halves)
            for number, of_portion in enumerate(places[: len(asked)]):
                requests, names = asked[number], asked.documents(number)["document_id"]
                yield from ((names[place], requests[place]) for place in of_portion if place < len(requests))


class _OpenTexts:
    """The texts of what has no answer yet, read a portion at a time: all that is sent, and what it replaces."""

    def __init__(
        self, teacher: Teacher, halves: Rows, places: Sequence[Sequence[int]] = (), *, skipped: int = 0
    ) -> None:
        self._asked, self.places, self._skipped = completions.Requests(teacher, halves), places, skipped

    def sent(self) -> Iterator[pl.Series]:
        """Of what is answered in this process the first halves alone: what shapes a request may not be there yet."""
        if not self.places:
            yield from (documents["first_half"] for documents in self._left())
            return
        for number, places in enumerate(self.places):
            if places:
                requests = self._asked[number]
                yield _sent([requests[place] for place in places])

    def replaced(self) -> Iterator[pl.Series]:
        if not self.places:
            yield from (documents["second_half"] for documents in self._left())
            return
        for number, places in enumerate(self.places):
            if places:
                yield self._asked.documents(number)["second_half"].gather(list(places))

    def _left(self) -> Iterator[pl.DataFrame]:
        seen = 0
        for number in range(len(self._asked)):
            documents = self._asked.documents(number)
            yield documents.slice(min(documents.height, max(0, self._skipped - seen)))
            seen += documents.height


def _assumed_teacher(study: Study, teacher: Teacher, answered: int, used: report.Usage | None) -> _Need:
    """A teacher of articles nobody has read yet: by the corpus's average, or not known at all."""
    sizes = [size for size in (teacher.documents, study.corpus.documents) if size is not None]
    # How many articles a corpus has is not known before it is read, unless the study takes a number of them.
    if study.corpus.documents is None:
        return _Need(requests=None, answered=answered, missing=None)
    wanted = min(sizes)
    answered = min(answered, wanted)
    missing = wanted - answered
    document_tokens = study.corpus.tokens_per_document
    if used:
        into = _around(used.input_mean * missing, 0.05, 0.05)
        return _need(wanted, answered, into, _limited(_measured(used, missing), teacher, missing))
    if document_tokens is None:
        return _Need(requests=wanted, answered=answered, missing=missing)
    system = tokens.estimate(pl.Series([teacher.system_prompt or ""])) if teacher.system_prompt else tokens.NONE
    average = document_tokens * INTO
    into = TokenCount(
        low=round(average * (1 - OFF)), expected=round(average), high=math.ceil(average * (1 + OFF)), basis="assumed"
    )
    out = _range(document_tokens * OUT * missing)
    return _need(wanted, answered, (into + system).times(missing), _limited(out, teacher, missing))


# -- judges ------------------------------------------------------------------------------------------------------------


def _judge(
    study: Study, judge: Judge, store: Store, book: Book | None, answered: int, asked: PlannedPartition | None = None
) -> _Need:
    """The calls of a judge: those about answers there are by their texts, those about answers to come by experience."""
    judged = [b for b in _judged(study) if b.judge == judge.name and (asked is None or b.name == asked.benchmark)]
    sizes = [benchmarks.judged(benchmark.name).SIZE for benchmark in judged]
    calls = _Calls(typical=_assumed(sizes[0].output) if sizes else tokens.NONE)
    for benchmark, size in zip(judged, sizes, strict=True):
        number = _questions(benchmark, size) * size.calls_per_question * benchmark.runs
        answers = benchmarks.answers_table(benchmark.name)
        for model in (model for model in study.models if benchmark.name in study.measured_on(model)):
            if asked and model.name != asked.model:
                continue
            columns = list(frames.schema(contract.load(answers)))
            stored = store.find(answers, model.name, columns) if Path(benchmark.location).exists() else None
            if stored is None:
                calls.expect(number, _assumed(size.input), _assumed(size.output))
            else:
                calls.known += benchmarks.judged(benchmark.name).requests(benchmark, judge, stored)
    return _called(judge, calls, store, book, answered)


@dataclass(kw_only=True)
class _Calls:
    """What a row is to be asked: requests whose texts are there, and as many more of an assumed size.

    `typical` is the size of an answer to what is there, as long as none has been measured.
    """

    typical: TokenCount
    known: list[Request] = field(default_factory=list)
    to_come: int = 0
    input: TokenCount = tokens.NONE
    output: TokenCount = tokens.NONE

    def expect(self, number: int, into: TokenCount, out: TokenCount) -> None:
        self.to_come += number
        self.input, self.output = self.input + into.times(number), self.output + out.times(number)


def _called(row: LanguageModel, calls: _Calls, store: Store, book: Book | None, answered: int) -> _Need:
    requests, to_come, out = calls.known, calls.to_come, calls.output
    done = book.settled(requests, reuse_below_limit=row.reuse_below_limit) if book else set()
    open_ones = [request for request in requests if request.key not in done]
    wanted = len(requests) + to_come
    # Answers in the ledger about models whose own answers are gone from the store.
    elsewhere = min(to_come, max(0, answered - len(done)))
    left = (to_come - elsewhere) / to_come if to_come else 0.0
    used = report.usage(book, row.provider, row.model, row.name) if book else None
    missing = len(open_ones) + to_come - elsewhere
    into = calls.input.times(left) if to_come else tokens.NONE
    into += _input(lambda: [_sent(open_ones)], len(open_ones), _counter(row, store), used)
    out = _measured(used, missing) if used else out.times(left) + calls.typical.times(len(open_ones))
    return _need(wanted, wanted - missing, into, _limited(out, row, missing))


# -- audits ------------------------------------------------------------------------------------------------------------


def _control(control: Control, store: Store, book: Book | None, answered: int) -> _Need:
    """All draws of a control: what is sent is known, what comes back is assumed until some has."""
    return _called(control, _Calls(typical=CONTROL, known=controls.requests(control)), store, book, answered)


def _auditor(
    study: Study,
    auditor: Auditor,
    store: Store,
    book: Book | None,
    answered: int,
    asked: PlannedPartition | None = None,
) -> _Need:
    """The calls of an auditor: those about documents there are by their texts, the others by the corpus's average."""
    calls = _Calls(typical=VERDICT)
    blank = pl.Series([request.messages[-1].content for request in _about(study, auditor, [""])], dtype=pl.String)
    for audit in (audit for audit in study.audits if audit.auditor == auditor.name):
        if asked and audit.name != asked.audit:
            continue
        frames = _audited_frames(audit, store)
        if frames is not None:
            calls.known += audits.requests(auditor, study.questions, audits.documents(audit, frames))
            continue
        document = _assumed_document(study, audit)
        if document is None:
            return _Need(requests=None, answered=answered, missing=None)
        number = min(audit.documents, study.corpus.documents or audit.documents)
        for question in blank:
            calls.expect(number, document + tokens.estimate(pl.Series([question])), VERDICT)
    return _called(auditor, calls, store, book, answered)


def _about(study: Study, auditor: Auditor, texts: Sequence[str]) -> list[Request]:
    documents = pl.DataFrame(
        {"document_id": texts, "text": texts}, schema={"document_id": pl.String, "text": pl.String}
    )
    return audits.requests(auditor, study.questions, documents)


def _audited_frames(audit: Audit, store: Store) -> Mapping[str, pl.DataFrame] | None:
    """The tables an audit's documents are read from; None while one of them is missing."""
    needed: dict[str, dict[str, str | None]] = {
        "control": {"control_texts": audit.name},
        "reference": {"reference_sets": audit.name},
    }
    places = needed.get(audit.kind, {"halves": None, "completions": audit.of or audit.name})
    found = {table: store.find(table, partition, AUDITED[table]) for table, partition in places.items()}
    stored = {table: frame for table, frame in found.items() if frame is not None}
    return stored if stored.keys() == found.keys() else None


def _assumed_document(study: Study, audit: Audit) -> TokenCount | None:
    """How long a document is that nobody has seen; None if nothing is known of the corpus."""
    if audit.kind in ("control", "reference"):
        return CONTROL
    document_tokens = study.corpus.tokens_per_document
    return _range(document_tokens) if document_tokens is not None else None


def _judged(study: Study) -> list[Benchmark]:
    """The benchmarks whose answers a judge reads."""
    return [benchmark for benchmark in study.benchmarks if benchmarks.is_judged(benchmark.name)]


def _assumed(size: Range) -> TokenCount:
    low, expected, high = size
    return TokenCount(low=low, expected=expected, high=high, basis="assumed")


def _questions(benchmark: Benchmark, size: Size) -> int:
    """How many questions the benchmark's file has, or the published one if it is not there yet."""
    asked = benchmarks.load(benchmark.name).ASKED
    return len(files.rows(benchmark, asked)) if Path(benchmark.location, asked).is_file() else size.questions


# -- sizes -------------------------------------------------------------------------------------------------------------


def _sent(requests: Sequence[Request]) -> pl.Series:
    """All the text of each request."""
    return pl.Series(["\n".join(m.content for m in request.messages) for request in requests], dtype=pl.String)


Texts = Callable[[], Iterable[pl.Series]]
"""Texts that are read by portions, each time anew."""


def _input(texts: Texts, number: int, counter: Callable[[str], int] | None, used: report.Usage | None) -> TokenCount:
    """The input tokens of so many texts: counted before measured, measured before estimated."""
    if counter is None and used:
        size = sum(int(portion.str.len_bytes().sum()) for portion in texts())
        return _around(used.input_per_byte * size, 0.05, 0.05)
    return tokens.count_portions(texts(), number, counter) + TokenCount(
        low=FRAME.low * number, expected=FRAME.expected * number, high=FRAME.high * number, basis="counted"
    )


def _output(
    replaced: Texts, number: int, counter: Callable[[str], int] | None, used: report.Usage | None
) -> TokenCount:
    """The output tokens of a teacher: as its answers so far, or as long as what it replaces, give or take."""
    if used:
        return _measured(used, number)
    size = tokens.count_portions(replaced(), number, counter)
    return TokenCount(
        low=round(size.low * SHORTER), expected=size.expected, high=math.ceil(size.high * LONGER), basis="estimated"
    )


def _measured(used: report.Usage, answers: int) -> TokenCount:
    """The output of so many answers more: the wider the fewer they are, or the fewer have been measured."""
    if answers == 0:
        return tokens.NONE
    share = min(1.0, math.sqrt(1 / answers + 1 / used.answers))
    low = used.output_mean - (used.output_mean - used.output_low) * share
    high = used.output_mean + (used.output_high - used.output_mean) * share
    return TokenCount(
        low=round(low * answers),
        expected=round(used.output_mean * answers),
        high=math.ceil(high * answers),
        basis="measured",
    )


def _around(expected: float, below: float, above: float) -> TokenCount:
    return TokenCount(
        low=round(expected * (1 - below)),
        expected=round(expected),
        high=math.ceil(expected * (1 + above)),
        basis="measured",
    )


def _range(expected: float) -> TokenCount:
    return TokenCount(
        low=round(expected * SHORTER), expected=round(expected), high=math.ceil(expected * LONGER), basis="assumed"
    )


def _limited(size: TokenCount, row: LanguageModel, answers: int) -> TokenCount:
    """No answer is longer than the row or the model lets it be."""
    price = price_list.last_price(row)
    limits = [limit for limit in (row.max_tokens, price.max_output if price else None) if limit is not None]
    if not limits:
        return size
    most = min(limits) * answers
    return TokenCount(
        low=min(size.low, most), expected=min(size.expected, most), high=min(size.high, most), basis=size.basis
    )


def _counter(row: LanguageModel, store: Store) -> Callable[[str], int] | None:
    """The row's own tokenizer, if it is on this machine."""
    if providers.runs_backbone(row):
        stored = store.find("backbones", row.model, ["folder"])
        return None if stored is None else tokens.folder_counter(store.folder(stored["folder"][0]))
    listed = price_list.listed(row.provider, row.model)
    return tokens.openai_counter(listed.encoding) if listed and listed.encoding else None


def _need(wanted: int, answered: int, into: TokenCount, out: TokenCount) -> _Need:
    return _Need(requests=wanted, answered=answered, missing=wanted - answered, input=into, output=out)


def _cost(price: Price | None, need: _Need, *, batch: bool) -> Cost | None:
    if price is None or need.input is None or need.output is None or (batch and price.batch_input is None):
        return None
    return Cost(
        low=price.cost(need.input.low, need.output.low, batch=batch),
        expected=price.cost(need.input.expected, need.output.expected, batch=batch),
        high=price.cost(need.input.high, need.output.high, batch=batch),
    )


def _billionths(dollars: float | None) -> int | None:
    return None if dollars is None else round(dollars * 1e9)


def _least(*amounts: int | None) -> int | None:
    known_amounts = [amount for amount in amounts if amount is not None]
    return min(known_amounts) if known_amounts else None
