"""What a study will cost: the published numbers, the texts there are, the answers there are, and the command."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dagster_project.command_line import plan_table
from nift_assets import studies
from nift_assets.costs import plan, tokens
from nift_assets.costs.plan import Plan, PlanRow
from nift_assets.ledger.book import Book
from nift_assets.prompts import completions
from nift_assets.rows import Price, Teacher
from nift_assets.store import Store
from nift_assets.study import Study
from nift_assets.table_files import version_of
from tests.conftest import PROJECT, nift_here
from tests.ledgers import SPENT, answered, play

TODAY = date(2026, 11, 21)


def put(store: Store, table: str, partition: str | None, frame: pl.DataFrame) -> None:
    store.write(table, partition, frame, version_of(frame, "i"))


SENTENCE = "The village had one bakery, and on most mornings the queue reached the corner before the shutters went up. "

# Documents, dollars per million tokens in and out, and the end: the paper's teachers by the protocol's own figures of
# 560 tokens in and 450 out.
PAPER = {
    "gpt-3.5-turbo-0125": (80_000, 0.5, 1.5, "2026-10-23", "gpt-4o-mini-2024-07-18"),
    "gpt-4-0125-preview": (80_000, 10, 30, "2026-03-26", "gpt-4o-2024-08-06"),
    "gpt-4o-mini-2024-07-18": (300_000, 0.15, 0.6, "2027-01-14", "gpt-5.4-mini-2026-03-17"),
    "claude-3-haiku-20240307": (10_000, 0.25, 1.25, "2026-04-20", "claude-haiku-4-5-20251001"),
    "claude-3-sonnet-20240229": (10_000, 3, 15, "2025-07-21", "claude-sonnet-4-6"),
    "claude-3-opus-20240229": (10_000, 15, 75, "2026-01-05", "claude-opus-4-6"),
}


def environment(folder: Path, **variables: str) -> dict[str, str]:
    hidden = ("NIFT_", "OPENAI_", "ANTHROPIC_", "COLUMNS")
    ours = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    return ours | {"NIFT_WAREHOUSE": str(folder / "warehouse")} | variables


def command(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return nift_here("plan", *arguments, environment=environment(folder, **variables))


def planned(folder: Path, **variables: str) -> dict[str, Any]:
    ran = command(folder, "--json", **variables)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert isinstance(found, dict)
    return found | {"by_name": {line["name"]: line for line in found["lines"]}}


def test_the_papers_teachers_cost_what_the_protocol_says(tmp_path: Path) -> None:
    lines = planned(tmp_path, NIFT_STUDY="paper")["by_name"]
    for name, (documents, into, out, ends, living) in PAPER.items():
        line = lines[name]
        assert line["missing"] == line["requests"] == documents
        dollars = documents * (560 * into + 450 * out) / 1e6
        # Claude's system prompt is a few tokens more for each document.
        assert line["online"]["expected"] == pytest.approx(dollars, rel=0.02), name
        assert line["batch"]["expected"] == pytest.approx(dollars / 2, rel=0.02), name
        assert line["online"]["low"] < dollars < line["online"]["high"]
        assert line["input"]["basis"] == line["output"]["basis"] == "assumed"
        if date.fromisoformat(ends) <= TODAY:
            assert line["status"] == f"retired since {ends}, substitute {living}"
    assert lines["original"]["status"] == "free"
    assert lines["original"]["online"] == {"low": 0, "expected": 0, "high": 0}


def test_the_papers_judges_cost_what_the_protocol_says(tmp_path: Path) -> None:
    """About 6 dollars per model and run of MT-Bench, about 35 per model of Arena-Hard."""
    study = studies.load("paper")
    lines = planned(tmp_path, NIFT_STUDY="paper")["by_name"]
    rated, compared = (
        sum(benchmark in study.measured_on(model) for model in study.models) for benchmark in ("mt_bench", "arena_hard")
    )
    assert (rated, compared) == (68, 14), "what Tables 1 to 3 and 9, Figure 2 and section 6, and Tables 5 to 7 need"
    assert lines["gpt-4-0613"]["requests"] == 160 * 3 * rated
    assert lines["gpt-4-0613"]["online"]["expected"] == pytest.approx(160 * 3 * rated * (840 * 30 + 200 * 60) / 1e6)
    assert lines["gpt-4-1106-preview"]["requests"] == 1000 * compared
    assert lines["gpt-4-1106-preview"]["online"]["expected"] == pytest.approx(35 * compared)


def test_the_papers_audits_are_paid_calls_too(tmp_path: Path) -> None:
    """Two questions about 2,000 documents of each source and about 30 planted ones; 2,000 draws of each control."""
    lines = planned(tmp_path, NIFT_STUDY="paper")["by_name"]
    sources = [audit for audit in studies.load("paper").audits if audit.kind != "planted"]
    auditor = lines["gpt-4o-2024-05-13"]
    assert auditor["role"] == "audit"
    assert auditor["requests"] == 2 * (2_000 * len(sources) + 30)
    per_call = auditor["online"]["expected"] / auditor["requests"]
    # An article of 1,100 tokens and the question with its examples at $5, some sixty tokens of an answer at $15.
    assert per_call == pytest.approx((1_300 * 5 + 60 * 15) / 1e6, rel=0.1)
    for name in ("random_article", "random_dialogue"):
        assert (lines[name]["role"], lines[name]["requests"]) == ("control", 2_000)
        assert lines[name]["online"]["expected"] == pytest.approx(2_000 * (12 * 5 + 700 * 15) / 1e6, rel=0.1)


def test_the_sum_is_that_of_the_lines(tmp_path: Path) -> None:
    found = planned(tmp_path, NIFT_STUDY="paper")
    for way in ("online", "batch"):
        for bound in ("low", "expected", "high"):
            assert found[way][bound] == pytest.approx(sum(line[way][bound] for line in found["lines"]))


def test_the_study_of_today_can_be_asked_within_its_budget(tmp_path: Path) -> None:
    found = planned(tmp_path, NIFT_STUDY="today")
    if date.today() < date(2027, 1, 14):
        assert not any(line["state"] == "retired" for line in found["lines"])
        assert found["by_name"]["gpt-4o-mini-2024-07-18"]["status"] == "needs key OPENAI_API_KEY"
        assert command(tmp_path, "--check", NIFT_STUDY="today").returncode == 0
    assert found["by_name"]["claude-haiku-4-5-20251001"]["status"] == "needs key ANTHROPIC_API_KEY"
    assert found["online"]["high"] <= found["cap"] == 210
    assert not found["over"]


def test_check_ends_with_3_for_a_retired_teacher_and_for_a_cap_too_low(tmp_path: Path) -> None:
    assert command(tmp_path, "--check", NIFT_STUDY="paper").returncode == 3
    low = command(tmp_path, "--check", NIFT_STUDY="today", NIFT_BUDGET_USD="10")
    assert low.returncode == 3
    assert "over the cap: $10.00 are left" in low.stdout
    assert command(tmp_path, NIFT_STUDY="today", NIFT_BUDGET_USD="10").returncode == 0
    assert command(tmp_path, "--check", NIFT_STUDY="demo").returncode == 0


def test_a_cap_that_is_no_amount_is_one_line(tmp_path: Path) -> None:
    refused = command(tmp_path, NIFT_STUDY="today", NIFT_BUDGET_USD="much")
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: NIFT_BUDGET_USD is 'much'")
    assert len(refused.stderr.splitlines()) == 1


def test_a_plan_makes_nothing_and_loads_nothing_heavy(tmp_path: Path) -> None:
    script = """
import sys
from dagster_project.command_line import main
main(["plan"], standalone_mode=False)
print([name for name in ("dagster", "torch", "transformers", "great_expectations", "aiohttp") if name in sys.modules])
"""
    ran = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(tmp_path, NIFT_STUDY="paper"),
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == "[]"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("columns", [80, 110, 140, 200])
def test_the_table_fits_the_terminal(columns: int, tmp_path: Path) -> None:
    ran = command(tmp_path, NIFT_STUDY="paper", COLUMNS=str(columns))
    table = ran.stdout.split("\n\n")[0].splitlines()
    assert max(map(len, table)) <= columns
    assert "retired since 2026-03-26, substitute gpt-4o-2024-08-06" in ran.stdout
    assert ("tokens in" in table[0]) == (columns > 80)


def test_a_key_that_is_there_makes_a_teacher_ready(tmp_path: Path) -> None:
    found = planned(tmp_path, NIFT_STUDY="today", OPENAI_API_KEY="sk-test-of-the-plan")
    if date.today() < date(2027, 1, 14):
        assert found["by_name"]["gpt-4o-mini-2024-07-18"]["status"] == "ready"


# -- with texts and answers --------------------------------------------------------------------------------------------


def study(*teachers: Teacher, **values: Any) -> Study:
    """The demo study with other teachers; its own stay, since its training sets name them."""
    base = studies.load("demo")
    return dataclasses.replace(base, teachers=(*base.teachers, *teachers), **values)


MINI = Teacher(name="mini", provider="openai", model="gpt-4o-mini-2024-07-18", documents=30)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Forty halves: four sentences in, two to be written."""
    store = Store(root=str(tmp_path / "warehouse"), study="demo")
    rows = [(f"d{n}", n, f"{n} " + SENTENCE * 4, SENTENCE * 2) for n in range(40)]
    schema = ["document_id", "sample_rank", "first_half", "second_half"]
    put(store, "halves", None, pl.DataFrame(rows, schema=schema, orient="row"))
    return store


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(f"sqlite:///{tmp_path}/ledger.sqlite")


def line(found: Plan, name: str) -> PlanRow:
    return next(each for each in found.lines if each.name == name)


def make(of: Study, store: Store, book: Book | None = None) -> Plan:
    return plan.plan(of, store=store, book=book, today=TODAY)


def test_real_halves_are_used_where_they_are(store: Store) -> None:
    found = line(make(study(MINI), store), "mini")
    assert (found.requests, found.missing, found.answered) == (30, 30, 0)
    assert found.input is not None
    assert found.output is not None
    halves = store.read("halves", None)
    texts = tokens.estimate(halves["first_half"].head(30))
    assert found.input.expected == texts.expected + 30 * plan.FRAME.expected
    assert found.output.expected == tokens.estimate(halves["second_half"].head(30)).expected
    # cl100k and o200k make 22 tokens of the sentence, o200k 21.
    assert found.input.low < 30 * 4 * 21 < found.input.high
    assert found.input.basis == found.output.basis == "estimated"
    price = Price(input=0.15, output=0.6, max_output=16384)
    assert found.online is not None
    assert found.online.expected == price.cost(found.input.expected, found.output.expected)


def test_what_nobody_knows_is_said_to_be_unknown_and_is_in_no_sum(tmp_path: Path) -> None:
    found = make(study(MINI), Store(root=str(tmp_path), study="demo"))
    assert (line(found, "mini").requests, line(found, "mini").online) == (None, None)
    assert found.unknown == ["mini"]
    assert found.online == plan.NOTHING
    assert "Not known, and in no sum: mini." in plan_table.render(found, 140)
    (row,) = (text for text in plan_table.render(found, 140).splitlines() if text.startswith("mini"))
    assert row.split()[1:] == ["?", "?", "?", "?", "?", "?", "needs", "key", "OPENAI_API_KEY"]


def test_what_is_answered_is_not_planned_again_and_its_size_is_measured(store: Store, book: Book) -> None:
    requests = completions.requests(MINI, store.read("halves", None))
    # Answers that are longer than what they replace, and tokens that are fewer than one would think.
    endings = [(request, answered("text", input_tokens=80, output_tokens=100)) for request in requests[:25]]
    play(book, "demo", "mini", endings)
    found = line(make(study(MINI), store, book), "mini")
    assert (found.requests, found.answered, found.missing) == (30, 25, 5)
    assert found.input is not None
    assert found.output is not None
    assert (found.input.basis, found.output.basis) == ("measured", "measured")
    assert found.input.expected == pytest.approx(5 * 80, rel=0.01)
    assert (found.output.low, found.output.expected, found.output.high) == (500, 500, 500)
    assert found.taken == 25 * SPENT


def test_where_the_limit_was_raised_only_what_was_cut_is_planned_again(store: Store, book: Book) -> None:
    short = dataclasses.replace(MINI, max_tokens=100)
    requests = completions.requests(short, store.read("halves", None))
    endings = [
        (request, answered("text", finish_reason="length" if n < 9 else "stop")) for n, request in enumerate(requests)
    ]
    play(book, "demo", "mini", endings)
    higher = dataclasses.replace(MINI, max_tokens=200)
    found = line(make(study(higher), store, book), "mini")
    assert (found.requests, found.answered, found.missing) == (30, 21, 9)
    again = dataclasses.replace(higher, reuse_below_limit=False)
    assert line(make(study(again), store, book), "mini").missing == 30


def test_answers_of_another_study_are_not_asked_again_either(store: Store, book: Book) -> None:
    requests = completions.requests(MINI, store.read("halves", None))
    play(book, "elsewhere", "other", [(request, answered("text")) for request in requests])
    found = line(make(study(MINI), store, book), "mini")
    assert (found.missing, found.status) == (0, "all answered")
    assert found.online == plan.NOTHING


def test_a_retired_teacher_whose_answers_are_all_there_stops_nobody(store: Store, book: Book) -> None:
    gone = dataclasses.replace(MINI, name="gone", model="gpt-4-0125-preview")
    assert make(study(gone), store, book).stopped()
    requests = completions.requests(gone, store.read("halves", None))
    play(book, "demo", "gone", [(request, answered("text")) for request in requests])
    found = make(study(gone), store, book)
    assert line(found, "gone").status == "all answered"
    assert not found.stopped()


def test_a_wide_range_of_lengths_is_a_wide_range_of_costs_for_few_and_a_narrow_one_for_many() -> None:
    used = plan.report.Usage(
        answers=2_000, input_per_byte=0.25, input_mean=500, output_mean=400, output_low=100, output_high=1_000
    )
    one, many = plan._measured(used, 1), plan._measured(used, 10_000)
    assert (one.low, one.high) == (100, 1_000)
    assert 0.9 * many.expected < many.low < many.expected < many.high < 1.1 * many.expected


def test_no_answer_is_planned_longer_than_the_row_lets_it_be(store: Store) -> None:
    short = dataclasses.replace(MINI, max_tokens=7)
    found = line(make(study(short), store), "mini")
    assert found.output is not None
    assert found.output.high == 30 * 7


def test_the_rows_own_cap_counts_what_is_spent(store: Store, book: Book) -> None:
    requests = completions.requests(MINI, store.read("halves", None))
    play(book, "demo", "mini", [(request, answered("text", output_tokens=100)) for request in requests[:20]])
    enough = dataclasses.replace(MINI, budget_usd=20 * SPENT / 1e9 + 1)
    assert line(make(study(enough), store, book), "mini").state == "needs key"
    spent = dataclasses.replace(MINI, budget_usd=20 * SPENT / 1e9)
    found = make(study(spent), store, book)
    assert line(found, "mini").status == "over the cap: $0.00 are left"
    assert found.stopped()


def test_a_text_dearer_than_its_cap_is_named_before_anybody_is_asked(store: Store) -> None:
    halves = store.read("halves", None)
    huge = halves.head(1).with_columns(
        document_id=pl.lit("huge"), sample_rank=999, first_half=pl.lit("word " * 400_000)
    )
    put(store, "halves", None, pl.concat([halves, huge.cast(dict(halves.schema))]))
    mini = dataclasses.replace(MINI, documents=None, budget_usd=0.1)
    (warning,) = (text for text in make(study(mini), store).warnings if "passed over" in text)
    assert warning.startswith(f"{mini.name}: huge (up to $0.31) may cost more than the $0.10 that are left of the cap")
    roomy = dataclasses.replace(mini, budget_usd=1.0)
    assert not [text for text in make(study(roomy), store).warnings if "passed over" in text]


def test_what_nobody_could_read_or_cut_is_said(store: Store) -> None:
    before = make(study(MINI), store).warnings
    put(store, "completions", MINI.name, pl.DataFrame({"finish_reason": ["stop", "eclipse", "eclipse", None]}))
    put(store, "halves_rejects", None, pl.DataFrame({"reason": ["no spaces", "one word"]}))
    endings, scripts = make(study(MINI), store).warnings[len(before) :]
    assert endings.startswith(f"{MINI.name}: answers ended for a reason that nobody knows, 2 of 'eclipse'")
    assert "1 articles are written without spaces between words" in scripts


def test_a_model_without_a_price_stops_the_plan(store: Store) -> None:
    found = make(study(dataclasses.replace(MINI, model="gpt-17")), store)
    assert line(found, "mini").status == "no price: add the model to the price list, or price= to its row"
    assert found.stopped()


def test_ones_own_server_is_free_and_needs_no_key(store: Store) -> None:
    own = dataclasses.replace(MINI, base_url="http://localhost:8000/v1")
    assert line(make(study(own), store), "mini").status == "free"


def test_a_server_that_wants_a_key_stops_the_plan_without_a_price(store: Store) -> None:
    theirs = dataclasses.replace(MINI, base_url="https://openrouter.ai/api/v1", key_variable="THEIR_API_KEY")
    found = make(study(theirs), store)
    assert line(found, "mini").status.startswith("no price: its server wants a key")
    assert found.stopped()
    assert found.unknown == ["mini"]


def test_a_real_run_of_the_demo_is_answered_in_its_plan(demo: Any) -> None:
    """The demo's own tables and ledger: every request of its teachers and judges is found again."""
    ran = nift_here("plan", "--json", environment=demo.environment() | {"NIFT_STUDY": "demo"})
    assert ran.returncode == 0, ran.stderr
    for found in json.loads(ran.stdout)["lines"]:
        assert found["requests"] > 0, found
        assert found["missing"] == 0, found
