"""The page of a study: what is data is shown as text, what is missing as a dash, and nothing is loaded."""

import dataclasses
import hashlib
import re
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import polars as pl
import pytest

from dagster_project.resources import LazyLedger
from expectations import contract
from expectations.frames import schema
from expectations.results import LastResult
from expectations.runner import check
from nift_assets import DEMO_FILES, studies
from nift_assets.assets.report import samples
from nift_assets.pages import report, sheets
from nift_assets.pages.overview import Made, StepTime
from nift_assets.pages.report import CheckedTable, DataVersion, PlainTable, Section, Spent
from nift_assets.rows import Cell, Model
from nift_assets.steps.coverage import SCHEMA
from nift_assets.steps.table import TableOutput
from nift_assets.store import Store
from nift_assets.study import Study
from nift_assets.table_files import version_of
from tests.demo import GRAPH, context
from tests.page_reader import PAYLOADS, Reading

DEMO = studies.load("demo")


def frames(**rows: list[dict[str, Any]]) -> dict[str, pl.DataFrame]:
    """The inputs of the page, each of the shape its contract declares, with the given rows."""
    return {
        name: pl.DataFrame(rows.get(name, []), schema=schema(contract.load(name)), orient="row")
        for name in report.INPUTS
    }


def filled(text: str) -> dict[str, pl.DataFrame]:
    """A row in every table, with `text` wherever a column is not the name of a row or a status."""
    names = {
        "teacher": "echo",
        "training_set": "echo",
        "adapter": "pico.local",
        "model": "pico",
        "benchmark": "mt_bench",
        "document_id": "a",
        "status": "ok",
    }
    values: dict[Any, Any] = {pl.String(): text, pl.Int64(): 3, pl.Float64(): 2.5, pl.Boolean(): False}
    values[pl.List(pl.String())] = [text]
    rows = {
        name: [{column: names.get(column, values[dtype]) for column, dtype in schema(contract.load(name)).items()}]
        for name in report.INPUTS
    }
    return frames(**rows)


def page_with_samples(study: Study, tables: dict[str, pl.DataFrame], *args: Any, **more: Any) -> str:
    """The page with the pairs that the tables have."""
    pairs = report.samples(study.teachers, tables["halves"], tables["completions"])
    return report.page(study, tables, *args, samples=pairs, **more)


def planted(text: str) -> Study:
    """The demo study with `text` in every field that may be any text; no field may have a NUL in it."""
    text = text.replace("\0", "")
    corpus = dataclasses.replace(DEMO.corpus, location=text, licence=text, revision=text)
    teachers = tuple(
        dataclasses.replace(teacher, model=text, system_prompt=text)
        for teacher in DEMO.teachers
        if teacher.provider != "local"
    )
    judges = tuple(dataclasses.replace(judge, model=text) for judge in DEMO.judges)
    return dataclasses.replace(
        DEMO,
        title=text,
        warning=text,
        corpus=corpus,
        teachers=teachers,
        training_sets=tuple(s for s in DEMO.training_sets if s.teacher != "local"),
        adapters=tuple(a for a in DEMO.adapters if a.training_set != "local"),
        models=tuple(m for m in DEMO.models if m.adapter != "pico.local"),
        judges=judges,
    )


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_tag_in_the_data_is_a_tag_of_the_page(payload: str) -> None:
    versions = [DataVersion(table="halves", partition=payload, digest=payload)]
    harmless = page_with_samples(planted("harmless"), filled("harmless"), versions)
    page = Reading(page_with_samples(planted(payload), filled(payload), versions))
    assert Counter(tags_of_ours(page)) == Counter(tags_of_ours(Reading(harmless)))
    shown = page.text.count(payload)
    assert shown >= 8, "the text itself is shown, as it is"


def tags_of_ours(page: Reading) -> list[Any]:
    """The tags with their attributes, but for what depends on what is shown: a name may break behind a dot, and an
    address of the viewer holds the name of a question."""
    return [
        (tag, tuple((name, (value or "").partition("/answers/arena_hard/")[0]) for name, value in attributes))
        for tag, attributes in page.tags
        if tag != "wbr"
    ]


def test_the_page_loads_nothing() -> None:
    page = page_with_samples(DEMO, filled("https://example.org/a.png"))
    tags = Reading(page).tags
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in tags}
    attributes = [(name, value or "") for _, found in tags for name, value in found]
    assert all(value.startswith(("#", "/study/look/")) for name, value in attributes if name == "href")
    hidden = [dict(found).get("href") for tag, found in tags if tag == "a" and not dict(found).get("class")]
    assert all(value and value.startswith("#") for value in hidden), "what leads elsewhere is hidden in a file"
    assert not [name for name, _ in attributes if name.startswith("on") or name in {"src", "srcset", "style"}]
    assert not re.search(r"url\(|@import", page)
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in attributes


def test_the_warning_stands_before_everything_else() -> None:
    page = report.page(DEMO, frames())
    assert DEMO.warning
    assert page.index("<h1>") < page.index(DEMO.warning) < page.index("<h2>")


@pytest.mark.parametrize("study", studies.names())
def test_a_study_of_which_nothing_was_made_has_a_page(study: str) -> None:
    text = Reading(report.page(studies.load(study), frames())).text
    assert "not run" in text
    assert "None" not in text
    assert "nan" not in text.split()


def test_the_page_is_the_same_wherever_it_is_made() -> None:
    page = page_with_samples(DEMO, filled("text"))
    assert page == page_with_samples(DEMO, filled("text"))
    assert str(DEMO_FILES.parent.parent) not in page
    assert "nift_assets/demo/articles/*.txt" in page


def test_a_missing_cell_is_a_dash_and_an_incomplete_score_is_marked() -> None:
    measured = {"model": "pico", "backbone": "pico", "template": "llama-3", "module": "none", "mt_bench": -1.5}
    incomplete = {"mt_bench_low": 1.0, "mt_bench_high": 2.0, "mt_bench_complete": False}
    other = {"model": "pico.gpt.lora", "id": 13, "mt_bench_paper": 7.29}
    page = report.page(DEMO, frames(table_1=[measured | incomplete, other]))
    row = re.search(r'<td class="n">–</td>\s*<th scope="row" class="name">pico<.*?</tr>', page, re.DOTALL)
    assert row, "a model without an ID has a dash for it"
    cells = [" ".join(Reading(cell).text.split()) for cell in re.findall(r"<td.*?</td>", row.group(), re.DOTALL)]
    assert cells == ["–", "−1.50↗1.00 to 2.00incomplete", "–", "–", "–", "–", "–"]
    assert '<td class="n">7.29</td>' in page
    assert "incomplete" not in re.sub(r"<p>.*?</p>", "", report.page(DEMO, frames()), flags=re.DOTALL)


def test_a_training_set_says_whether_truncated_answers_are_in_it() -> None:
    text = " ".join(Reading(report.page(DEMO, frames())).text.split())
    assert text.count("truncated answers, too") == sum(row.keep_truncated for row in DEMO.training_sets) > 0


def test_a_score_without_a_verdict_is_a_dash_and_says_what_is_missing() -> None:
    unrated = {"model": "pico", "benchmark": "mt_bench", "expected": 40, "missing": 40, "complete": False}
    text = Reading(report.page(DEMO, frames(benchmark_scores=[unrated]))).text
    assert "incomplete 40 of 40 missing" in " ".join(text.split())


def test_the_funnel_counts_every_stage_of_a_teacher() -> None:
    teacher = DEMO.teacher("echo")
    answered = [
        {"document_id": name, "teacher": "echo", "status": status}
        for name, status in zip("abcde", ["ok", "ok", "ok", "refused", "empty"], strict=True)
    ]
    stages = [("sampled", 7), ("cut", 6)]
    steps = [step(name, left) for name, left in stages]
    tables = {"completions": answered, "funnel": steps}
    funnel = report.funnel(teacher, frames(**tables))
    assert funnel.stages == [*stages, ("asked", None), ("answered", None), ("ok", None)]
    tables["funnel"] += [
        *(step(name, left) for name, left in [("asked", 5), ("answered", 5), ("ok", 3)]),
        step("prompt_echo", 2) | {"is_filter": True},
        step("contamination", 2) | {"is_filter": True, "drops": False},
        step("kept", 2),
    ]
    funnel = report.funnel(teacher, frames(**tables))
    assert funnel.sampled == 7
    assert [count for _, count in funnel.stages] == [7, 6, 5, 5, 3, 2, 2], "what only reports is no stage"
    assert [found["step"] for found in funnel.filters] == ["prompt_echo", "contamination"]
    assert funnel.statuses == {"ok": 3, "refused": 1, "empty": 1}
    assert report.funnel(DEMO.teacher("local"), frames(**tables)).statuses == {}


def step(name: str, kept: int) -> dict[str, Any]:
    return {"teacher": "echo", "step": name, "is_filter": False, "drops": True, "kept": kept}


def test_samples_show_the_same_documents_for_every_teacher_cut_between_words() -> None:
    words = " ".join(f"word{number}" for number in range(200))
    halves = [{"document_id": str(n), "sample_rank": n, "first_half": words} for n in reversed(range(9))]
    answers = [
        {"document_id": str(n), "teacher": name, "status": "ok", "completion": f" {words}"}
        for name in ("echo", "local")
        for n in range(1, 9)
    ]
    tables = frames(halves=halves, completions=answers)
    shown = report.samples(DEMO.teachers, tables["halves"], tables["completions"])
    assert [sample.document_id for sample in shown] == ["1", "2", "3"]
    for sample in shown:
        assert [continuation.teacher for continuation in sample.continuations] == ["local", "echo"]
        assert sample.first_half.startswith("… word")
        assert sample.first_half.endswith(words[-100:])
        for continuation in sample.continuations:
            assert continuation.text.startswith(" word0 word1 ")
            assert re.search(r" word\d\d …\Z", continuation.text)


def test_the_asset_reads_of_large_tables_the_rows_that_it_shows(tmp_path: Path) -> None:
    halves = [{"document_id": str(n), "sample_rank": n, "first_half": f"half {n}"} for n in range(9)]
    answers = {
        # Of one teacher not all are there, of another the first is of an earlier sample, a third has no table.
        "echo": [
            {"document_id": str(n), "teacher": "echo", "status": "ok", "completion": f"e {n}"} for n in range(2, 9)
        ],
        "local": [
            {"document_id": n, "teacher": "local", "status": "ok", "completion": f"l {n}"} for n in ("x", "1", "3", "8")
        ],
    }
    tables = frames(halves=halves, completions=[row for rows in answers.values() for row in rows])
    store = Store(str(tmp_path), DEMO.name)
    store.write("halves", None, tables["halves"], version_of(tables["halves"], ""))
    for teacher in answers:
        rows = tables["completions"].filter(pl.col("teacher") == teacher)
        store.write("completions", teacher, rows, version_of(rows, ""))
    read = samples(context(store, "report"), tables["halves"].select("document_id", "sample_rank"))
    assert [document.document_id for document in read] == ["1", "2", "3"]
    assert read == report.samples(DEMO.teachers, tables["halves"], tables["completions"])


@pytest.mark.parametrize("text", ["", "\n" * 999, "x" * 999, " " + "x" * 999, "x" * 999 + " "])
def test_texts_without_words_to_cut_at_are_shown_too(text: str) -> None:
    tables = filled(text)
    (sample,) = report.samples(DEMO.teachers, tables["halves"], tables["completions"])
    (continuation,) = sample.continuations
    longest = min(len(text), report.SAMPLE_CHARACTERS)
    assert len(sample.first_half.removeprefix("… ")) >= longest - 1
    assert len(continuation.text.removesuffix(" …")) >= longest - 1


def test_numbers_stand_where_the_paper_has_them_with_their_notes_and_whether_the_paper_is_outside() -> None:
    cell = {"table": "table_15", "name": "m", "id": 13, "backbone": "b", "module": "lora", "training_set": "gpt"}
    quoted = {"name": "others", "title": "Others", "benchmark": "ifeval", "paper": 38.56, "quoted_from": "a card"}
    tables = frames(
        table_1=[{"model": "m", "mt_bench": 5.0, "mt_bench_gain": -1.25, "mt_bench_p_corrected": 0.04}],
        table_2=[
            {
                "backbone": "b",
                "module": "lora",
                "teacher": "haiku",
                "name": "one",
                "score": 7.0,
                "low": 6.5,
                "high": 7.5,
            }
            | {"paper": 6.87, "difference": 0.13, "outside": False, "gain": 3.5, "p_corrected": 0.0002},
            {"backbone": "b", "module": "lora", "teacher": "opus", "name": "two", "paper": 6.63},
            {"backbone": "c", "module": "lora", "teacher": "opus", "name": "three", "paper": 5.56},
        ],
        table_7=[quoted],
        text_numbers=[quoted | {"name": "other", "section": "section_5"}],
        table_15=[
            cell
            | {"benchmark": "gsm8k", "score": 30.0, "paper": 36.32, "difference": -6.32, "outside": True}
            | {"note": "another harness"},
            cell | {"benchmark": "mmlu", "paper": 63.21},
            cell | {"benchmark": "open_llm_leaderboard", "paper": 62.0},
        ],
    )
    _, second, seventh, last, in_text = sheets.sheets(tables)
    assert (second.heads, second.stacked) == (["haiku", "opus"], False)
    assert [(line.label, [place is not None for place in line.places]) for line in second.lines] == [
        ("b", [True, True]),
        ("c", [False, True]),
    ]
    assert (last.heads, last.stacked, last.notes) == (["GSM8K", "MMLU", "Average"], True, [("a", "another harness")])
    assert seventh.lines[0].label == "Others"
    assert in_text.lines[0].about == "section 5"
    text = " ".join(Reading(report.page(DEMO, tables)).text.split())
    assert "−1.25, p 0.04" in text
    assert "7.006.50 to 7.50+3.50, p < 0.001" in text
    assert "30.00apaper 36.32−6.32 outside" in text
    assert "38.56a" in text
    assert "a the paper has it from a card" in text


def test_no_number_is_lost_where_two_rows_of_a_table_have_one_name() -> None:
    twice = [
        {"backbone": "b", "module": "lora", "teacher": "t", "name": name, "paper": paper}
        for name, paper in (("one", 1.25), ("two", 2.5))
    ]
    (sheet,) = sheets.sheets(frames(table_2=twice))
    assert [place and place.paper for line in sheet.lines for place in line.places] == [1.25, 2.5]


def test_what_did_not_pass_is_told_once_with_the_partitions_it_is_of() -> None:
    tests = contract.load("completions").tests
    found = {
        tests[1].name: [result("echo", False), result("local", False), result("original", True)],
        tests[2].name: [result("echo", True)],
    }
    table = CheckedTable(table="completions", tests=tests, results=found)
    verdicts = [table.count(verdict) for verdict in ("passed", "warned", "failed", "not run")]
    assert verdicts == [1, int(tests[1].severity == "warn"), int(tests[1].severity == "error"), len(tests) - 2]
    text = " ".join(Reading(report.page(DEMO, frames(), checked=[table])).text.split())
    assert "echo and 1 more2 of 3" in text
    assert text.count("found in echo") == 1


def result(partition: str, passed: bool) -> LastResult:
    return LastResult(partition=partition, passed=passed, message=f"found in {partition}", at=datetime.now(UTC))


def test_what_is_missing_is_told_once_for_all_cells_that_wait_for_it() -> None:
    row: dict[str, object] = {"kind": "model", "name": "m", "state": "missing", "why": "not made"}
    row |= {"command": "nift run x", "usd": 12.5}
    places = [("table_1", "mt_bench"), ("table_1", "open_llm_leaderboard"), ("figure_2", "mt_bench")]
    cells = [row | {"table": table, "benchmark": benchmark} for table, benchmark in places]
    cells.append({"kind": "quoted", "name": "q", "state": "impossible", "why": "quoted", "table": "table_7"} | BLANK)
    cells.append({"kind": "model", "name": "n", "state": "present", "table": "table_1"} | BLANK)
    coverage = pl.DataFrame(cells, schema=SCHEMA, orient="row")
    first, second = report.gaps(coverage)
    waiting = ["table 1: mt_bench, open_llm_leaderboard", "figure 2: mt_bench"]
    assert (first.cells, first.usd, second.command) == (waiting, 12.5, None)
    text = " ".join(Reading(report.page(DEMO, frames(), coverage=coverage)).text.split())
    assert "not madenift run x $12.50" in text
    assert "Every cell is filled." in Reading(report.page(DEMO, frames(), coverage=coverage[-1:])).text


BLANK: dict[str, object] = {"benchmark": "ifeval"}


def text_of(page: str) -> str:
    return " ".join(Reading(page[page.index("<body") :]).text.split())


def test_it_begins_with_the_scores_beside_the_papers_what_differs_and_what_it_took() -> None:
    row = {"benchmark": "mt_bench", "expected": 40, "missing": 0, "complete": True}
    rows = [
        row | {"model": "pico", "score": 5.0, "low": 4.5, "high": 5.5},
        row
        | {"model": "pico.local.lora", "score": 6.5, "low": 6.0, "high": 7.0, "note": "a doubt"}
        | {"against": "pico", "difference": 1.5, "difference_low": 0.5, "difference_high": 2.5, "p_corrected": 0.01},
        row
        | {"model": "pico.original.lora", "score": 4.9, "low": 4.0, "high": 5.8}
        | {"against": "pico", "difference": -0.1, "difference_low": -1, "difference_high": 1, "p_corrected": 0.8},
    ]
    study = dataclasses.replace(DEMO, models=tuple(map(with_paper, DEMO.models)))
    text = text_of(
        report.page(
            study,
            frames(benchmark_scores=rows),
            made=Made(at=datetime(2026, 1, 2, 3, 4, tzinfo=UTC), code="nift 1.2, commit abc"),
            spent=[Spent(who="t", questions={}, sent=1, input_tokens=1, output_tokens=1, usd=12.5, reserved=0.5)],
            times=[StepTime(table="a", group="training", partitions=2, seconds=5000.0)],
        )
    )
    began = text[: text.index("From article to pair How many")]
    for said in (
        "Scores 3 of 25measured",
        "Money spent$12.50and $0.50 reserved",
        "Time spent1 h 23 minall steps added up; most of it: training",
        "Made2026-01-0203:04 UTC, by nift 1.2, commit abc",
        "pico.local.lorapico, trained on local",
        "6.50↗a6.00 to 7.00paper 8.00 (−1.50)▲ +1.50",
        "a a doubt",
        "Training has changed 1 of 2 scores significantly: pico.local.lora is 1.50 higher than pico on MT-Bench "
        "(95% interval +0.50 to +2.50; p 0.010)",
        "The paper prints a number for 1 of these scores. It lies outside of our interval for 1 of them:",
        "pico.local.lora, MT-Bench: ours 6.50 (6.00 to 7.00), the paper’s 8.00",
    ):
        assert said in began, said


def with_paper(model: Model) -> Model:
    cells = (Cell(table="table_1", benchmark="mt_bench", paper=8.0),)
    return dataclasses.replace(model, cells=cells) if model.name == "pico.local.lora" else model


def test_a_study_of_data_alone_begins_with_its_funnel_and_its_pairs() -> None:
    study = dataclasses.replace(DEMO, benchmarks=(), models=(), adapters=(), judges=(), examples=(), publications=())
    tables = filled("text")
    sections = [section.anchor for section in report.shown(study, tables)]
    assert sections[:2] == ["funnel", "samples"]
    assert not {"scores", "training", "missing"} & set(sections)
    text = text_of(report.page(study, frames(funnel=[step("sampled", 9), step("kept", 7)])))
    assert "Pairs to train on7of 0 documents and 3 teachers" in text
    assert "trained on" not in text


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_section_is_a_title_and_a_function_that_gives_rows(payload: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[list[object]] = [[payload, 0.5], [None, 1]]
    given = PlainTable(caption=payload, about=payload, columns=["Who", payload], rows=rows, numbers=[payload])
    more = (
        Section(anchor="agreement", title="Agreement", table=lambda study, frames: given),
        Section(anchor="nothing", title="Nothing to see", table=lambda study, frames: None),
    )
    before = Reading(report.page(DEMO, frames()))
    monkeypatch.setattr(report, "SECTIONS", (*report.SECTIONS, *more))
    page = Reading(report.page(DEMO, frames()))
    added = Counter(tag for tag, _ in page.tags) - Counter(tag for tag, _ in before.tags)
    assert added == Counter(
        {"td": 2, "th": 4, "tr": 3, "a": 1, "p": 1, "h2": 1, "div": 1, "section": 1, "table": 1, "caption": 1}
        | {"thead": 1, "tbody": 1}
    )
    assert page.text.count(payload) == 4
    assert "Nothing to see" not in page.text


def test_every_table_has_a_caption_and_every_head_a_scope() -> None:
    tags = Reading(
        page_with_samples(DEMO, filled("text"), checked=[CheckedTable(table="t", tests=[], results={})])
    ).tags
    names = Counter(tag for tag, _ in tags)
    assert names["caption"] == names["table"] > 20
    assert all("scope" in dict(attributes) for tag, attributes in tags if tag == "th")
    assert all(
        {"aria-label", "aria-hidden"} & dict(attributes).keys() or ("class", "mark-of-paper") in attributes
        for tag, attributes in tags
        if tag == "svg"
    )


def test_what_was_paid_is_summed_and_small_sums_are_no_zero() -> None:
    accounts = [
        Spent(who=who, questions={"ok": 2}, sent=2, input_tokens=10, output_tokens=5, usd=usd, reserved=0.0)
        for who, usd in (("teacher", 12.5), ("judge", 0.0004))
    ]
    text = " ".join(Reading(report.page(DEMO, frames(), spent=accounts)).text.split())
    assert "judge 2 ok 2 10 5 $0.0004 $0.00" in text
    assert "Together 4 20 10 $12.50" in text


def test_the_asset_keeps_its_contract_and_names_the_stored_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIFT_WAREHOUSE", str(tmp_path))
    monkeypatch.delenv("NIFT_LEDGER_URL", raising=False)
    tables = filled("text")
    store = Store(str(tmp_path), DEMO.name)
    for name, rows in tables.items():
        key = "echo" if name == "completions" else GRAPH.keys(name)[0]
        store.write(name, key, rows, version_of(rows, ""))
    with dg.DagsterInstance.ephemeral() as instance:
        here = context(store, "report", book=LazyLedger().book, dagster=SimpleNamespace(instance=instance))
        made = GRAPH.tables["report"].function(here)
    assert isinstance(made, TableOutput)
    assert isinstance(made.rows, pl.DataFrame)
    assert all(result.passed for result in check(made.rows, contract.load("report"), tables))
    content = made.files["report.html"]
    assert made.rows.rows() == [
        ("demo", "report.html", len(content), hashlib.sha256(content).hexdigest(), len(report.INPUTS))
    ]
    text = Reading(content.decode()).text
    assert f"completions echo{version_of(tables['completions'], '').data[:16]}" in text
    assert "completions original–" in text
