"""The page of a study: what is data is shown as text, what is missing as a dash, and nothing is loaded."""

import dataclasses
import hashlib
import re
from collections import Counter
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from dagster_project.resources import LazyLedger
from expectations import contract
from expectations.frames import schema
from expectations.runner import check
from nift_assets import DEMO_FILES, report, studies
from nift_assets.assets import graph
from nift_assets.assets.table import STEPS, Made
from nift_assets.report import DataVersion
from nift_assets.store import Store, Version
from nift_assets.studies.study import Study
from tests.pages import PAYLOADS, Reading

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


def planted(text: str) -> Study:
    """The demo study with `text` in every field that may be any text."""
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
    harmless = report.page(planted("harmless"), filled("harmless"), versions)
    page = Reading(report.page(planted(payload), filled(payload), versions))
    # A name may break behind a dot: that is the one tag that depends on what is shown.
    expected = Counter(tag for tag in Reading(harmless).tags if tag[0] != "wbr")
    assert Counter(tag for tag in page.tags if tag[0] != "wbr") == expected
    shown = page.text.count(payload)
    assert shown >= 8, "the text itself is shown, as it is"


def test_the_page_loads_nothing() -> None:
    page = report.page(DEMO, filled("https://example.org/a.png"))
    tags = Reading(page).tags
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in tags}
    attributes = [(name, value or "") for _, found in tags for name, value in found]
    assert all(value.startswith("#") for name, value in attributes if name == "href")
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
    page = report.page(DEMO, filled("text"))
    assert page == report.page(DEMO, filled("text"))
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
    assert cells == ["–", "−1.501.00 to 2.00incomplete", "–", "–", "–", "–", "–"]
    assert '<td class="n">7.29</td>' in page
    assert "incomplete" not in re.sub(r"<p>.*?</p>", "", report.page(DEMO, frames()), flags=re.DOTALL)


def test_a_score_without_a_verdict_is_a_dash_and_says_what_is_missing() -> None:
    unrated = {"model": "pico", "benchmark": "mt_bench", "expected": 40, "missing": 40, "complete": False}
    text = Reading(report.page(DEMO, frames(benchmark_scores=[unrated]))).text
    assert "40 of 40 missing incomplete" in " ".join(text.split())


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
    samples = report.samples(DEMO.teachers, tables["halves"], tables["completions"])
    assert [sample.document_id for sample in samples] == ["1", "2", "3"]
    for sample in samples:
        assert [continuation.teacher for continuation in sample.continuations] == ["local", "echo"]
        assert sample.first_half.startswith("… word")
        assert sample.first_half.endswith(words[-100:])
        for continuation in sample.continuations:
            assert continuation.text.startswith(" word0 word1 ")
            assert re.search(r" word\d\d …\Z", continuation.text)


@pytest.mark.parametrize("text", ["", "\n" * 999, "x" * 999, " " + "x" * 999, "x" * 999 + " "])
def test_texts_without_words_to_cut_at_are_shown_too(text: str) -> None:
    tables = filled(text)
    (sample,) = report.samples(DEMO.teachers, tables["halves"], tables["completions"])
    (continuation,) = sample.continuations
    longest = min(len(text), report.SAMPLE_CHARACTERS)
    assert len(sample.first_half.removeprefix("… ")) >= longest - 1
    assert len(continuation.text.removesuffix(" …")) >= longest - 1


def test_the_asset_keeps_its_contract_and_names_the_stored_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIFT_WAREHOUSE", str(tmp_path))
    monkeypatch.delenv("NIFT_LEDGER_URL", raising=False)
    assert graph.steps()
    tables = filled("text")
    store = Store(str(tmp_path), DEMO.name)
    store.write("completions", "echo", tables["completions"], Version(data="0123456789abcdef" * 4, inputs=""))
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_asset_context(resources={"store": store, "ledger": LazyLedger()}, instance=instance)
        made = STEPS["report"].function(context, **tables)
    assert isinstance(made, Made)
    assert all(result.passed for result in check(made.frame, contract.load("report"), tables))
    content = made.files["report.html"]
    assert made.frame.rows() == [
        ("demo", "report.html", len(content), hashlib.sha256(content).hexdigest(), len(report.INPUTS))
    ]
    text = Reading(content.decode()).text
    assert "completions echo0123456789abcdef" in text
    assert "completions original–" in text
