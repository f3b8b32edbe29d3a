"""Every view of `nift look` in Chromium, on 80,000 documents of 5 kB and a teacher's completions; how long each takes.

python -m pytest -m slow -s tests/pages/test_viewer_at_scale.py
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest

from expectations import contract
from expectations.frames import schema
from nift_assets import benchmarks, reviews, table_files
from nift_assets.pages.viewer import links
from nift_assets.store import Store
from tests.pages.bench_look import portions
from tests.pages.look_process import LookProcess, looking
from tests.pages.viewer_store import DEFAULTS, DEMO, MODELS, document, filled
from tests.ui.browser import SECONDS, Strangers, chromium, window

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (chromium() or os.environ.get("CI")), reason="there is no Chromium here; `make browser` installs it"
    ),
]
ROWS = 80_000
NEEDLE, PLACE = "Kettlewhistle 今天天气", 61_234
REFUSED = range(0, ROWS, 100)
BENCHMARK = next(row.name for row in DEMO.benchmarks if benchmarks.is_judged(row.name))


def large(root: Path) -> Store:
    """A store with something in every view, its documents and one teacher's completions as many as the paper's."""
    store = filled(str(root))
    for table, partition, change in (("halves", None, _halves), ("completions", "echo", _completions)):
        place = f"{table}/{partition}" if partition else table
        rows = (change(portion).select(schema(contract.load(table)).keys()) for portion in portions(ROWS))
        table_files.write_portions(store.path(table, partition), rows, "made for a test", place)
    return store


def _halves(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(document_id=_documents(rows))


def _completions(rows: pl.DataFrame) -> pl.DataFrame:
    is_refused = pl.col("sample_rank").is_in(REFUSED)
    told = rows.select(
        "sample_rank",
        document_id=_documents(rows),
        teacher=pl.lit("echo"),
        status=pl.when(is_refused).then(pl.lit("refused")).otherwise(pl.lit("ok")),
        finish_reason=pl.lit("stop"),
        completion=pl.when(is_refused)
        .then(pl.lit(""))
        .when(pl.col("sample_rank") == PLACE)
        .then("first_half" + pl.lit(f" {NEEDLE} <b>bold</b>"))
        .otherwise("first_half"),
    )
    missing = {name: kind for name, kind in schema(contract.load("completions")).items() if name not in told.columns}
    return told.with_columns(pl.lit(DEFAULTS.get(kind, [])).cast(kind).alias(name) for name, kind in missing.items())


def _documents(rows: pl.DataFrame) -> pl.Series:
    return pl.Series("document_id", [document(rank) for rank in rows["sample_rank"]])


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Page, LookProcess, Store, list[str]]]:
    """A page that is signed in to a viewer of its own process, the store, and what scripts or dialogs said."""
    executable, strangers = chromium(), Strangers()
    assert executable is not None
    root = tmp_path_factory.mktemp("warehouse")
    store, said = large(root), list[str]()
    with looking(root) as server, window(executable, strangers) as page:
        page.set_default_timeout(SECONDS * 1000)
        page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(server.entrance)
        yield page, server, store, said
    assert strangers.asked == []
    strangers.close()


def test_every_view_of_80000_rows_is_driven_as_a_person_does(
    opened: tuple[Page, LookProcess, Store, list[str]],
) -> None:
    page, server, store, said = opened
    main = page.locator("body")

    def timed(what: str, act: Callable[[], object], shows: str) -> None:
        """Does something, waits until the page shows a text, and prints how long that took."""
        began = time.monotonic()
        act()
        main.get_by_text(re.compile(shows)).first.wait_for()
        print(f"{time.monotonic() - began:6.2f} s  {what}", flush=True)

    def opening(path: str) -> Callable[[], object]:
        return lambda: page.goto(server.url + path)

    def pressing(key: str) -> Callable[[], object]:
        return lambda: page.keyboard.press(key)

    def finding(text: str) -> Callable[[], object]:
        return lambda: (page.keyboard.press("/"), page.keyboard.type(text), page.keyboard.press("Enter"))

    def filtering(column: str, relation: str, value: str) -> Callable[[], object]:
        def act() -> None:
            page.locator("summary").first.click()
            page.get_by_label("Column", exact=True).last.select_option(column)
            page.get_by_label("Relation").last.select_option(relation)
            page.get_by_label("Value").last.fill(value)
            page.get_by_role("button", name="Show").click()

        return act

    def sorting(column: str) -> Callable[[], object]:
        def act() -> None:
            page.locator("summary").first.click()
            page.get_by_label("Sort by").select_option(column)
            page.get_by_label("largest first").check()
            page.get_by_role("button", name="Show").click()

        return act

    def sampling(count: int, seed: int) -> Callable[[], object]:
        def act() -> None:
            page.locator("summary").first.click()
            page.get_by_label("Random sample of").fill(str(count))
            page.get_by_label("seed").fill(str(seed))
            page.get_by_role("button", name="Show").click()

        return act

    timed("what there is", opening(links.home()), "halves")
    timed("pairs", opening(links.pairs()), "1–10 of 80,000 documents")
    timed("pairs, the page after", pressing("ArrowRight"), "11–20 of 80,000 documents")
    timed("pairs, a text that one completion has", finding(NEEDLE), r"1–1 of 1 documents\s*$")
    assert page.locator("mark").first.inner_text() == NEEDLE
    timed("the pair that was found", lambda: page.locator("article h2 a").first.click(), "1 of 1")
    assert "<b>bold</b>" in main.inner_text()
    timed("its white space, by a key", pressing("w"), "hide white space")
    timed("its permalink, by a key", pressing("p"), "of 80,000")
    assert page.url.endswith(links.pair(document(PLACE)))
    timed("the pair after it, by a key", pressing("ArrowRight"), f"{PLACE + 2:,} of 80,000")
    assert document(PLACE + 1) in page.url
    timed("the list, by a key", pressing("l"), "of 80,000 documents")
    timed("pairs, filtered", opening(links.pairs()), "of 80,000 documents")
    timed("… by what a teacher says", filtering("echo:status", "is", "refused"), f"of {len(REFUSED):,} documents")
    timed("pairs, sorted", opening(links.pairs()), "of 80,000 documents")
    timed("… by a number of the teacher's", sorting("echo:output_tokens"), "1–10 of 80,000 documents")
    timed("a sample of pairs", opening(links.pairs()), "of 80,000 documents")
    timed("… of 50", sampling(50, 7), "1–10 of 50 documents")
    drawn = page.locator("article h2 a").all_inner_texts()
    page.reload()
    assert page.locator("article h2 a").all_inner_texts() == drawn
    timed("a table", opening(links.table("completions", "echo")), "1–25 of 80,000 rows")
    timed("… a text that is nowhere in it", finding("zzzqq nowhere"), r"No rows\s*$")
    timed("a table, sorted", opening(links.table("halves")), "1–25 of 80,000 rows")
    timed("… the largest first", sorting("sample_rank"), "79,999|79999")
    timed("… one of its rows", lambda: page.locator("td.open a").first.click(), "1 of 80,000")
    timed("what was left out", opening(links.rejects()), "begins a new thought")
    timed("tests that refused rows", opening(links.failing()), "few_are_refused")
    timed("the rows of one", opening(links.failing("completions", "echo", "few_are_refused")), "of 1 rows")
    timed("the questions of a benchmark", opening(links.answers(BENCHMARK, *MODELS)), "of 3 questions")
    timed("one question", lambda: page.locator("table.questions a").first.click(), "judge blind")
    timed("a pair to judge", opening(links.pair(document(PLACE))), "of 80,000")
    page.locator("input[name=reviewer]").first.fill("Ada")
    page.locator("h1").click()
    page.keyboard.press("2")
    timed("a verdict, by a key", pressing("k"), "You said")
    (kept,) = reviews.read(store)
    assert (kept.reviewer, kept.verdict, kept.row["document_id"]) == ("Ada", "keep", document(PLACE))
    assert said == []
