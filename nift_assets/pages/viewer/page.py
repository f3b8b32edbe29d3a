"""The viewer's pages as HTML, each whole without JavaScript and without any other file."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import jinja2
from markupsafe import Markup

from nift_assets import benchmarks, filters
from nift_assets.pages import html_templates
from nift_assets.pages.viewer import answers, files, links, pairs, reviewing, texts
from nift_assets.pages.viewer.conditions import RELATIONS, Condition, Query, pattern
from nift_assets.pages.viewer.files import Checks, TableFile
from nift_assets.pages.viewer.keys import key_of
from nift_assets.pages.viewer.pairs import DocumentPair, PairFiles
from nift_assets.pages.viewer.reading import FILE_BITS, Listing, Reader, ReadRow
from nift_assets.rows import Benchmark
from nift_assets.store import Store
from nift_assets.study import Study
from nift_assets.table_files import DamagedTable

FOLDER = Path(__file__).parent
ROWS_PER_PAGE, PAIRS_PER_PAGE, QUESTIONS_PER_PAGE = 25, 10, 25
# In a list a text is read so far, to find in it what was searched; on its own page so far, which is a book's length.
CHARACTERS_IN_LIST, CHARACTERS_SHOWN = 20_000, 1_000_000
# A page waits so long for a search and then says how far it has come: 1.5 GB of texts are searched by then.
SEARCH_SECONDS = 1.8
REASONS_SHOWN = 8
REJECTS = ("_rejects", "_removals")
EVERYTHING = Query()


class NotStored(LookupError):
    """What was asked for is not there; the message is a sentence for a person."""


@dataclass(frozen=True)
class PageAddress:
    """What an address says besides its path: which rows, where the page begins, and how texts are shown."""

    query: Query = EVERYTHING
    start: int = 0
    place: int | None = None
    space: bool = False
    teachers: tuple[str, ...] = ()
    models: tuple[str | None, ...] = (None, None)
    blind: bool = False
    reviewer: str = ""

    def parameters(self, **changed: Any) -> str:
        """The same as it stands in an address, some of it otherwise."""
        told = replace(self, **changed)._told()
        return "?" + urlencode(told) if told else "?"

    def hidden(self, but: Sequence[str]) -> list[tuple[str, str]]:
        """What a form carries along besides its own fields."""
        return [(name, value) for name, value in self._told() if name not in but]

    def _told(self) -> list[tuple[str, str]]:
        told = self.query.parameters()
        told += [("start", str(self.start))] if self.start else []
        told += [("place", str(self.place))] if self.place is not None else []
        told += [("teacher", teacher) for teacher in self.teachers]
        told += [(name, model) for name, model in zip("ab", self.models, strict=True) if model]
        told += [("blind", "1")] if self.blind else []
        told += [("space", "1")] if self.space else []
        return told

    @property
    def pattern(self) -> re.Pattern[str] | None:
        return re.compile(pattern(self.query.search), re.IGNORECASE) if self.query.search else None


@dataclass(frozen=True)
class ListedTable:
    """A table or one of its partitions in the list of what is stored."""

    name: str
    partition: str | None
    rows: int | None
    bytes: int
    damage: str | None


class Viewer:
    """The pages of one study; what it reads of the store, and what it knows of the files' checks."""

    def __init__(self, study: Study, store: Store) -> None:
        self.study = study
        self.store = store
        self._reader = Reader(store)
        self._checks = Checks(self._reader.index.add)

    # -- what there is -------------------------------------------------------------------------------------------------

    def home(self) -> str:
        """What there is to read, table by table."""
        stored = files.stored(self.store)
        return _render(
            "home",
            self,
            title=f"What there is to read of {self.study.name}",
            tables={name: [self._listed(file) for file in found] for name, found in stored.items()},
            benchmarks=[(row, self._models(row)) for row in answers.read_in_words(self.study)],
            rejects=[name for name in stored if name.endswith(REJECTS)],
            failing=len(files.failing(self.store)),
            has_pairs=pairs.DOCUMENTS in stored,
        )

    def rejects(self) -> str:
        """What was left out: every table of such rows, how many it has of each partition, and the commonest reasons."""
        stored = {name: found for name, found in files.stored(self.store).items() if name.endswith(REJECTS)}
        named = {filters.table(row): row.name for row in self.study.filters}
        tables = []
        for name, found in stored.items():
            parts = [(self._listed(file), self._reasons(file)) for file in found]
            tables.append((name, named.get(name), parts))
        return _render("rejects", self, title="What was left out", tables=tables)

    def failing(self) -> str:
        """The tests that refused rows which were kept."""
        found = [(file, test, self._height(file)) for file, test in files.failing(self.store)]
        return _render("failing", self, title="Rows that failed a test", found=found)

    # -- any table -----------------------------------------------------------------------------------------------------

    def table(self, name: str, partition: str | None, asked: PageAddress) -> str:
        """The rows of a table that a query chooses, a page of them."""
        found = files.of_table(self.store, name, partition)
        if not found:
            raise NotStored(_not_made(name, partition))
        sound, damages = self._sound(found)
        every = files.of_table(self.store, name) if partition else found
        return self._rows_page(
            asked,
            sound,
            damages,
            title=name + (f" of {partition}" if partition else ""),
            address=links.table(name, partition),
            partitions=[(file.partition, links.table(name, file.partition)) for file in every if file.partition],
            partition=partition,
            table=name,
        )

    def failing_rows(self, name: str, partition: str | None, test: str, asked: PageAddress) -> str:
        """The kept rows that one test refused."""
        file = files.failing_rows(self.store, name, partition, test)
        if file is None:
            raise NotStored(f"no rows of {name} are kept that {test} refused; it passed when it was last run")
        return self._rows_page(
            asked,
            [file],
            [],
            title=f"{test}: rows of {file.place} that it refused",
            address=links.failing(name, partition, test),
            partitions=[],
            partition=partition,
            table=name,
            test=test,
        )

    def row(self, name: str, partition: str | None, asked: PageAddress, number: int | None, version: str) -> str:
        """One row whole, by its key or, of a table without one, by its number."""
        found = files.of_table(self.store, name, partition)
        sound, damages = self._sound(found)
        if damages and not sound:
            return self._sentences(name, damages, 500)
        if not found:
            raise NotStored(_not_made(name, partition))
        (file,) = sound[:1]
        note = ""
        if number is None:
            key = {condition.column: condition.value for condition in asked.query.conditions}
            numbers = self._reader.numbers(file, key)
            if not key or not numbers:
                raise NotStored(f"{file.place} has no row {_told(key)}; it may have been made anew since")
            number = numbers[0]
            note = f"{len(numbers)} rows have this key; this is the first" if len(numbers) > 1 else ""
        elif version and version != self._version(file):
            note = "the table was made anew since this address was given, so this may be another row"
        return self._row_page(file, number, asked, note, address=links.table(name, partition))

    def listed_row(self, name: str, partition: str | None, test: str | None, asked: PageAddress, place: int) -> str:
        """The row at a place of a list, with those before and after it."""
        found = files.of_table(self.store, name, partition)
        if test is not None:
            kept = files.failing_rows(self.store, name, partition, test)
            found = [kept] if kept else []
        sound, damages = self._sound(found)
        if not sound:
            raise NotStored(damages[0] if damages else _not_made(name, partition))
        listing = self._reader.listing(sound, asked.query, wanted=place + 2, seconds=SEARCH_SECONDS)
        if not 0 <= place < len(listing):
            raise NotStored(_no_place(place, listing))
        (at,) = listing.page(place, 1)
        address = links.failing(name, partition, test) if test else links.table(name, partition)
        file, number = sound[at >> FILE_BITS], at & (1 << FILE_BITS) - 1
        return self._row_page(file, number, asked, "", address=address, place=place, listing=listing)

    # -- pairs ---------------------------------------------------------------------------------------------------------

    def pairs(self, asked: PageAddress) -> str:
        """Documents at their cut, with what each teacher went on with, a page of them."""
        sources = self._pair_files()
        listing = pairs.listing(
            sources, self._reader, asked.query, wanted=asked.start + PAIRS_PER_PAGE + 1, seconds=SEARCH_SECONDS
        )
        places = listing.page(asked.start, PAIRS_PER_PAGE)
        rows = self._reader.rows([sources.documents], places, CHARACTERS_IN_LIST)
        return _render(
            "pairs",
            self,
            title="Pairs",
            asked=asked,
            address=links.pairs(),
            pairs=pairs.read(self.study, sources, self._reader, rows, CHARACTERS_IN_LIST),
            teachers=list(sources.completions),
            columns=pairs.columns(sources, self._reader),
            damages=sources.damages,
            check=self._check_of([sources.documents, *sources.completions.values()]),
            **_paging(listing, asked, PAIRS_PER_PAGE),
        )

    def pair(self, document_id: str, asked: PageAddress) -> str:
        """One document whole, with what each teacher went on with."""
        sources = self._pair_files()
        row, pair = self._pair(sources, document_id)
        listing, place = self._around(sources, asked, row.number)
        near = self._reader.rows(
            [sources.documents],
            [at for step in (-1, 1) for at in listing.page(place + step, 1) if place + step >= 0],
            1000,
        )
        by_number = {row.number: row for row in near}
        neighbours = {}
        for name, step in (("previous", -1), ("next", 1)):
            at = listing.page(place + step, 1) if place + step >= 0 else []
            if at and at[0] in by_number:
                document = str(by_number[at[0]].values[pairs.KEY])
                turned = place + step if asked.place is not None else None
                neighbours[name] = links.pair(document) + asked.parameters(place=turned)
        return _render(
            "pair",
            self,
            title=f"Pair {document_id}",
            asked=asked,
            pair=pair,
            teachers=list(sources.completions),
            permalink=links.pair(document_id),
            back=links.pairs() + asked.parameters(place=None, start=place - place % PAIRS_PER_PAGE),
            place=place,
            listing=listing,
            damages=pair.damages,
            reviewing=reviewing.of_pair(self.store, asked.reviewer, pair),
            check=self._check_of([sources.documents, *sources.completions.values()]),
            **neighbours,
        )

    def _pair_files(self) -> PairFiles:
        sources = pairs.sources(self.study, self._reader, self._checks)
        if isinstance(sources, str):
            raise NotStored(sources)
        return sources

    def _pair(self, sources: PairFiles, document_id: str) -> tuple[ReadRow, DocumentPair]:
        numbers = self._reader.numbers(sources.documents, {pairs.KEY: document_id})
        if not numbers:
            raise NotStored(f"{pairs.DOCUMENTS} has no document {document_id[:80]!r}; it may have been made anew since")
        (row,) = self._reader.rows([sources.documents], numbers[:1], CHARACTERS_SHOWN)
        (pair,) = pairs.read(self.study, sources, self._reader, [row], CHARACTERS_SHOWN)
        return row, pair

    def _around(self, sources: PairFiles, asked: PageAddress, number: int) -> tuple[Listing, int]:
        """The list that a document is read in, and its place there; of a permalink that of all documents."""
        if asked.place is not None:
            listing = pairs.listing(sources, self._reader, asked.query, wanted=asked.place + 2, seconds=SEARCH_SECONDS)
            if listing.page(asked.place, 1) == [number]:
                return listing, asked.place
        every = self._reader.listing([sources.documents], Query(), wanted=0, seconds=0)
        return every, number

    # -- answers -------------------------------------------------------------------------------------------------------

    def answers(self, name: str, asked: PageAddress) -> str:
        """The questions of a benchmark with what the compared models get for each, a page of them."""
        row, compared, found, damages = self._compared(name, asked)
        asked_texts, why = self._texts(row)
        questions = answers.questions(row, self._reader, found, asked_texts)
        if asked.query.search:
            matching = answers.containing(row, self._reader, found, pattern(asked.query.search))
            told = asked.pattern
            assert told is not None, "there is a text to find"
            questions = [q for q in questions if q.name in matching or any(told.search(turn) for turn in q.turns)]
        questions = _sorted_questions(questions, asked.query)
        if asked.query.sample is not None:
            import random

            questions = random.Random(asked.query.seed).sample(questions, min(asked.query.sample, len(questions)))
        listing = Listing(range(len(questions)), 0, len(questions), True)
        scores, damage = answers.scores(self._reader, row, [model for model in compared if model])
        return _render(
            "answers",
            self,
            title=benchmarks.load(name).TITLE,
            benchmark=name,
            asked=asked,
            models=self._models(row),
            compared=compared,
            questions=questions[asked.start : asked.start + QUESTIONS_PER_PAGE],
            scores=scores,
            damages=[*damages, *filter(None, [why, damage])],
            check=self._check_of([file for file in found if file]),
            address=links.answers(name),
            **_paging(listing, asked, QUESTIONS_PER_PAGE),
        )

    def question(self, name: str, question: str, asked: PageAddress) -> str:
        """One question of a benchmark, with what the compared models answer and what the judge said."""
        row, compared, found, damages = self._compared(name, asked)
        asked_texts, why = self._texts(row)
        exchanges = answers.exchanges(row, self._reader, found, question, asked_texts.get(question, ()))
        if not exchanges:
            raise NotStored(f"{' and '.join(filter(None, compared))} has no answer to {question[:80]!r} of {name}")
        both = [model for model in compared if model]
        blind = asked.blind and len(set(both)) == 2 and not self.store.is_remote
        table = benchmarks.answers_table(name)
        shown = [
            reviewing.shown_blind(self.store, asked.reviewer, table, name, exchange, both)
            if blind
            else reviewing.shown(exchange, compared)
            for exchange in exchanges
        ]
        names = [each.name for each in answers.questions(row, self._reader, found, {})]
        place = names.index(question) if question in names else 0
        neighbours = {
            word: links.question(name, names[place + step]) + asked.parameters(models=tuple(compared))
            for word, step in (("previous", -1), ("next", 1))
            if 0 <= place + step < len(names)
        }
        return _render(
            "question",
            self,
            title=f"{benchmarks.load(name).TITLE}: {question}",
            benchmark=name,
            asked=asked,
            models=self._models(row),
            compared=compared,
            question=question,
            exchanges=shown,
            # In one order for everybody, which tells nothing of who stands on the left.
            names=sorted(filter(None, compared)),
            place=place,
            count=len(names),
            permalink=links.question(name, question, *compared),
            back=links.answers(name, *compared),
            damages=[*damages, *filter(None, [why])],
            check=self._check_of([file for file in found if file]),
            **neighbours,
        )

    def _compared(
        self, name: str, asked: PageAddress
    ) -> tuple[Benchmark, list[str | None], list[TableFile | None], list[str]]:
        """The benchmark, the models that are compared on it, their files as far as they are sound, and what is not."""
        rows = {row.name: row for row in answers.read_in_words(self.study)}
        if name not in rows:
            raise NotStored(
                f"{self.study.name} has no benchmark {name[:80]!r} that is answered in words"
                + (f"; it has {', '.join(rows)}" if rows else "")
            )
        row = rows[name]
        models = self._models(row)
        if not models:
            raise NotStored(_not_made(benchmarks.answers_table(name), None))
        if unknown := [model for model in asked.models if model and model not in models]:
            raise NotStored(f"{unknown[0][:80]!r} has no answers to {name}; {', '.join(models)} have")
        compared = [asked.models[0] or models[0], asked.models[1]]
        found: list[TableFile | None] = []
        damages: list[str] = []
        for model in compared:
            stored = files.of_table(self.store, benchmarks.answers_table(name), model) if model else []
            sound, broken = self._sound(stored)
            damages += broken
            found.append(sound[0] if sound else None)
        return row, compared, found, damages

    def _models(self, row: Benchmark) -> list[str]:
        return answers.models(self.study, self._reader, row)

    @staticmethod
    def _texts(row: Benchmark) -> tuple[dict[str, list[str]], str | None]:
        try:
            return answers.texts(row), None
        except (ValueError, OSError) as error:
            return {}, f"the questions cannot be shown: {error}"

    # -- what people say -----------------------------------------------------------------------------------------------

    def review_pair(
        self, reviewer: str, document_id: str, teacher: str, verdict: str, reason: str, content: str
    ) -> None:
        """Keeps a person's verdict on a completion; ValueError where it is none or the texts are others by now."""
        _, pair = self._pair(self._pair_files(), document_id)
        reviewing.keep_pair(self.store, reviewer, pair, teacher, verdict, reason, content)

    def review_answers(
        self,
        reviewer: str,
        benchmark: str,
        key: Mapping[str, Any],
        models: tuple[str, str],
        verdict: Any,
        reason: str,
        content: str,
    ) -> None:
        """Keeps a person's verdict on two answers; ValueError where it is none or the texts are others by now."""
        row, _, found, _ = self._compared(benchmark, PageAddress(models=models))
        question = str(key.get(answers.question_column(row), ""))
        for exchange in answers.exchanges(row, self._reader, found, question, ()):
            if any(reply and dict(reply.key) == dict(key) for reply in exchange.replies):
                table = benchmarks.answers_table(benchmark)
                reviewing.keep_answers(
                    self.store, reviewer, table, benchmark, exchange, models, verdict, reason, content
                )
                return
        raise NotStored(f"{benchmark} has no answer of this key; it may have been made anew since")

    def read_in_words(self) -> list[Benchmark]:
        """The benchmarks that have a view of their own."""
        return answers.read_in_words(self.study)

    @staticmethod
    def title_of(row: Benchmark) -> str:
        return benchmarks.load(row.name).TITLE

    @staticmethod
    def with_reason(reason: str) -> Query:
        """The rows that were left out for a reason."""
        return Query(conditions=(Condition("reason", "is", reason),))

    # -- what pages share ----------------------------------------------------------------------------------------------

    def sentence(self, title: str, text: str) -> str:
        """A page that says one thing."""
        return _render("sentence", self, title=title, sentence=text)

    def _sentences(self, name: str, damages: Sequence[str], status: int) -> str:
        return self.sentence(name, damages[0])

    def _rows_page(
        self,
        asked: PageAddress,
        sound: Sequence[TableFile],
        damages: Sequence[str],
        *,
        title: str,
        address: str,
        partitions: Sequence[tuple[str | None, str]],
        partition: str | None,
        table: str,
        test: str | None = None,
    ) -> str:
        if not sound:
            return _render("sentence", self, title=title, sentence=damages[0])
        listing = self._reader.listing(
            sound, asked.query, wanted=asked.start + ROWS_PER_PAGE + 1, seconds=SEARCH_SECONDS
        )
        rows = self._reader.rows(sound, listing.page(asked.start, ROWS_PER_PAGE), CHARACTERS_IN_LIST)
        types = self._reader.types(sound)
        return _render(
            "table",
            self,
            title=title,
            asked=asked,
            address=address,
            table=table,
            partition=partition,
            partitions=partitions,
            test=test,
            description=_description(table),
            types=types,
            columns={table: list(types)},
            rows=rows,
            damages=damages,
            check=self._check_of(sound),
            **_paging(listing, asked, ROWS_PER_PAGE),
        )

    def _row_page(
        self,
        file: TableFile,
        number: int,
        asked: PageAddress,
        note: str,
        *,
        address: str,
        place: int | None = None,
        listing: Listing | None = None,
    ) -> str:
        rows = self._reader.rows([file], [number], CHARACTERS_SHOWN)
        if not rows:
            raise NotStored(f"{file.place} has no row {number}; it has {self._reader.height(file):,}, counted from 0")
        row = rows[0]
        neighbours: dict[str, str] = {}
        if place is not None and listing is not None:
            for name, step in (("previous", -1), ("next", 1)):
                if 0 <= place + step < len(listing):
                    neighbours[name] = address + asked.parameters(place=place + step)
        else:
            for name, step in (("previous", -1), ("next", 1)):
                if beside := self._reader.rows([file], [number + step], 1000) if number + step >= 0 else []:
                    neighbours[name] = self.permalink(beside[0]) + ("&space=1" if asked.space else "")
        document = row.values.get(pairs.KEY)
        return _render(
            "row",
            self,
            title=f"{file.place}, row {number:,}",
            asked=asked,
            file=file,
            row=row,
            types=self._reader.types([file]),
            described=_columns_described(file.table),
            note=note,
            permalink=self.permalink(row) if file.sealed else None,
            back=address
            + (asked.parameters(place=None, start=place - place % ROWS_PER_PAGE) if place is not None else ""),
            place=place,
            listing=listing,
            pair=links.pair(document) if isinstance(document, str) and self._has_document(document) else None,
            damages=[],
            check=self._check_of([file]),
            **neighbours,
        )

    def permalink(self, row: ReadRow) -> str:
        """The address of a row: by its key where its table has one, else by its number in this version of the file."""
        key = key_of(row.file.table, row.values, row.values)
        if key is not None and row.file.sealed:
            return links.row(row.file.table, row.file.partition, key)
        return links.numbered_row(row.file.table, row.file.partition, row.number, self._version(row.file))

    def _has_document(self, document: str) -> bool:
        try:
            return any(
                self._reader.numbers(file, {pairs.KEY: document})
                for file in files.of_table(self.store, pairs.DOCUMENTS)
            )
        except DamagedTable:
            return False

    def _version(self, file: TableFile) -> str:
        version = self.store.version(file.table, file.partition) if file.sealed else None
        return version.data[:12] if version else ""

    def _sound(self, found: Sequence[TableFile]) -> tuple[list[TableFile], list[str]]:
        """The files that can be read, as far as is known yet, and a sentence about each of the others."""
        sound, damages = [], []
        for file in found:
            try:
                self._checks.state(file)
                self._reader.types([file])
            except DamagedTable as damage:
                damages.append(str(damage))
            else:
                sound.append(file)
        return sound, damages

    def _check_of(self, found: Sequence[TableFile]) -> str:
        """What is known of the rows of the files of a page, in a few words."""
        states = [self._checks.state(file) for file in found]
        if "under way" in states:
            return "these rows are being held against their digests, behind this page; damage would be said here"
        if "not checked" in states:
            return "these rows are shown as they are found, without a check of their digests"
        return "these rows are what was written: they were held against their digests"

    def _listed(self, file: TableFile) -> ListedTable:
        damage, rows = None, None
        try:
            self._checks.refuse_known(file)
            rows = self._reader.height(file)
        except DamagedTable as found:
            damage = str(found)
        return ListedTable(file.table, file.partition, rows, file.bytes, damage)

    def _height(self, file: TableFile) -> int | None:
        try:
            return self._reader.height(file)
        except DamagedTable:
            return None

    def _reasons(self, file: TableFile) -> list[tuple[str, int]]:
        """The commonest reasons in a table of what was left out; none where it says none, or is damaged."""
        try:
            if "reason" not in self._reader.types([file]):
                return []
            # A reason that names what was found is as good as one of its own for every row.
            sql = f"select reason, count(*) from this group by reason order by 2 desc, 1 limit {REASONS_SHOWN}"
            return [(str(reason), count) for reason, count in self._reader.select(file, sql)]
        except DamagedTable:
            return []


def headers() -> dict[str, str]:
    """What a browser is told with each page: that it may run our one script, and ask nobody but this server."""
    policy = (
        f"default-src 'none'; style-src '{_source('look.css')}'; script-src '{_source('look.js')}'; "
        "connect-src 'self'; form-action 'self'; img-src data:; base-uri 'none'; frame-ancestors 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "Cache-Control": "no-store",
        "Referrer-Policy": "same-origin",
        "X-Content-Type-Options": "nosniff",
    }


@cache
def _content(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


@cache
def _source(name: str) -> str:
    digest = hashlib.sha256(_content(name).encode()).digest()
    return "sha256-" + base64.b64encode(digest).decode()


@cache
def _environment() -> jinja2.Environment:
    environment = html_templates.environment(
        FOLDER,
        shown=texts.shown,
        excerpt=texts.excerpt,
        ending=texts.ending,
        as_text=texts.as_text,
        usd=texts.usd,
        number=texts.number,
    )
    environment.tests["digest"] = texts.is_digest
    environment.globals.update(
        links=links,
        relations=RELATIONS,
        Condition=Condition,
        style=Markup(_content("look.css")),
        script=Markup(_content("look.js")),
    )
    return environment


def _render(name: str, viewer: Viewer, **values: Any) -> str:
    told = {"previous": None, "next": None, "damages": (), "check": "", "asked": PageAddress(), **values}
    return _environment().get_template(f"{name}.html.j2").render(study=viewer.study, viewer=viewer, **told)


def _paging(listing: Listing, asked: PageAddress, most: int) -> dict[str, Any]:
    """Which rows of a list a page shows, and the addresses of the pages beside it."""
    start = asked.start
    return {
        "listing": listing,
        "previous": asked.parameters(start=max(start - most, 0)) if start > 0 else None,
        "next": asked.parameters(start=start + most) if start + most < len(listing) else None,
        "last": min(start + most, len(listing)),
        # The page asks again by itself as long as it has room for more.
        "waiting": not listing.ended and start + most > len(listing),
    }


def _sorted_questions(questions: Sequence[answers.ListedQuestion], query: Query) -> list[answers.ListedQuestion]:
    """By the difference of what two models get, or by what one gets; as the table has them where nothing is said."""
    if not query.sort:
        return list(questions)
    if query.sort not in ("difference", "a", "b"):
        raise ValueError(f"questions are not sorted by {query.sort!r:.60}; use difference, a or b")

    def key(question: answers.ListedQuestion) -> tuple[bool, float]:
        a, b = question.points
        value = (
            (None if a is None or b is None else a - b) if query.sort == "difference" else a if query.sort == "a" else b
        )
        return value is None, 0.0 if value is None else -value if query.descending else value

    return sorted(questions, key=key)


def _description(table: str) -> str:
    from expectations import contract

    try:
        return contract.load(table).description
    except ValueError:
        return ""


def _columns_described(table: str) -> Mapping[str, str]:
    from expectations import contract

    try:
        return {column.name: column.description for column in contract.load(table).columns}
    except ValueError:
        return {}


def _not_made(table: str, partition: str | None) -> str:
    command = f"nift run {table}" + (f" --partition {partition}" if partition else "")
    of = f" of {partition}" if partition else ""
    return f"no table {table}{of} is stored; if it is one of the study's, `{command}` makes it"


def _no_place(place: int, listing: Listing) -> str:
    return f"there is no row at place {place:,}; {len(listing):,} were found" + ("" if listing.ended else " so far")


def _told(key: Mapping[str, str]) -> str:
    return " and ".join(f"with {name} {value[:80]!r}" for name, value in key.items()) or "without a key"
