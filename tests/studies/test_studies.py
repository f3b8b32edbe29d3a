"""Studies: what loads, what is refused, and with which one line."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nift_assets import sql, studies
from nift_assets.rows import Cell, Example, Quoted, digest
from nift_assets.studies import demo
from nift_assets.study import Study

STUDY = demo.STUDY


@pytest.mark.parametrize("name", studies.names())
def test_every_study_loads_under_its_file_name(name: str) -> None:
    assert studies.load(name).name == name


def test_an_unknown_study_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="there is no study 'papr'; NIFT_STUDY can be one of: demo, paper, today"):
        studies.load("papr")


def test_an_unknown_study_stops_the_code_location_with_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIFT_STUDY", "papr")
    loaded = subprocess.run(
        [sys.executable, "-c", "import dagster_project.definitions"], capture_output=True, text=True, check=False
    )
    assert loaded.returncode != 0
    assert loaded.stderr.strip().splitlines()[-1].startswith("ValueError: there is no study 'papr'")


def changed(kind: str, index: int, **values: Any) -> Study:
    rows = list(getattr(STUDY, kind))
    rows[index] = dataclasses.replace(rows[index], **values)
    return dataclasses.replace(STUDY, **{kind: tuple(rows)})


OWN = """
import dataclasses
from nift_assets import studies

STUDY = dataclasses.replace(studies.load("demo"), name="mine")
"""


def test_a_study_can_be_a_file_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.py").write_text(OWN)
    mine = dataclasses.replace(STUDY, name="mine")
    assert studies.load(str(tmp_path / "own.py")) == mine
    monkeypatch.chdir(tmp_path)
    for path in ("own.py", "./own.py"):
        monkeypatch.setenv("NIFT_STUDY", path)
        assert studies.active() == mine


def test_a_study_file_may_define_classes_of_its_own(tmp_path: Path) -> None:
    header = "from __future__ import annotations\nfrom dataclasses import dataclass\n"
    (tmp_path / "own.py").write_text(header + "@dataclass\nclass Size:\n    rows: int\n" + OWN)
    assert studies.load(str(tmp_path / "own.py")).name == "mine"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "no such file"),
        ("", "defines no STUDY"),
        ("STUDY = 'demo'", "defines a STUDY that is a str"),
        ("STUDY = Study()", "stops with NameError: name 'Study' is not defined"),
        ("STUDY = (", "stops with SyntaxError: .*line 1"),
        ("import absent_module", "stops with ModuleNotFoundError: No module named 'absent_module'"),
        (OWN.replace("mine", "Mine"), "stops with ValueError: .*'Mine' cannot be a partition key"),
        ("raise SystemExit('over')", "stops with SystemExit: over"),
    ],
)
def test_a_file_that_is_no_study_is_refused_with_one_line(text: str | None, problem: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "own.py").write_text(text)
    with pytest.raises(ValueError, match=problem) as refused:
        studies.load(str(tmp_path / "own.py"))
    assert str(tmp_path / "own.py") in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.fault("X7")
@pytest.mark.parametrize("name", ["../etc", "A", "a/b", "", ".hidden", "a b", "ü", "x" * 97, "a..b", "a\n"])
def test_an_unsafe_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be a partition key"):
        changed("teachers", 2, name=name)


def test_a_doubled_name_is_refused() -> None:
    with pytest.raises(ValueError, match="teachers: the name 'original' is used 2 times"):
        changed("teachers", 2, name="original")


@pytest.mark.parametrize(
    ("kind", "index", "values"),
    [
        ("training_sets", 0, {"teacher": "absent"}),
        ("adapters", 0, {"training_set": "absent"}),
        ("adapters", 0, {"backbone": "absent"}),
        ("models", 0, {"backbone": "absent"}),
        ("models", 2, {"adapter": "absent"}),
        ("backbones", 1, {"instruct_of": "absent"}),
        ("benchmarks", 0, {"judge": "absent"}),
        ("teachers", 1, {"model": "absent"}),
        ("teachers", 1, {"filters": ("absent",)}),
        ("training_sets", 0, {"filters": ("absent",)}),
        ("audits", 0, {"auditor": "absent"}),
        ("audits", 0, {"name": "absent"}),
        ("audits", 1, {"name": "absent"}),
        ("audits", 2, {"of": "absent"}),
        ("models", 0, {"measured_on": ("absent",)}),
    ],
)
def test_a_row_that_names_something_absent_is_refused(kind: str, index: int, values: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="names 'absent', which is none of the"):
        changed(kind, index, **values)


@pytest.mark.parametrize(
    ("index", "values", "problem"),
    [
        (0, {"module": "lora"}, "has module 'lora' and adapter None"),
        (2, {"backbone": "pico-instruct"}, "must be trained on 'pico-instruct'"),
        (5, {"backbone": "pico"}, "nobody's Instruct sibling"),
    ],
)
def test_an_adapter_that_does_not_fit_its_model_is_refused(index: int, values: dict[str, str], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        changed("models", index, **values)


def test_own_documents_make_a_study_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NIFT_STUDY", raising=False)
    monkeypatch.setenv("NIFT_CORPUS", "/data/Web Articles (2).parquet")
    monkeypatch.setenv("NIFT_DOCUMENTS", "12")
    own = studies.active()
    assert own.name.startswith("web-articles-2-")
    assert own.corpus.documents == 12
    assert own.corpus.location == "/data/Web Articles (2).parquet"
    assert own.teachers == STUDY.teachers
    over_the_papers = studies.on_own_documents(studies.load("paper"), "a.parquet", text_column="text", documents=12)
    assert (over_the_papers.corpus.revision, over_the_papers.corpus.tokens_per_document) == (None, None)
    monkeypatch.setenv("NIFT_CORPUS", "/other/Web Articles (2).parquet")
    assert studies.active().name != own.name


@pytest.mark.parametrize("documents", ["0", "-1", "many", "1.5"])
def test_an_impossible_number_of_documents_is_refused(documents: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIFT_CORPUS", "somewhere.parquet")
    monkeypatch.setenv("NIFT_DOCUMENTS", documents)
    with pytest.raises(ValueError, match="give the number of documents"):
        studies.active()


def test_a_digest_changes_with_every_field() -> None:
    teacher = STUDY.teachers[2]
    changes: list[dict[str, Any]] = [{"model": "rate"}, {"system_prompt": "x"}, {"temperature": 1.0}, {"max_tokens": 9}]
    digests = {digest(teacher), *(digest(dataclasses.replace(teacher, **change)) for change in changes)}
    assert len(digests) == 1 + len(changes)


def test_the_cells_of_models_audits_and_quoted_models_are_one_relation_in_the_studys_order() -> None:
    blank, score = Cell(table="table_2", benchmark="mt_bench"), Cell(table="table_1", benchmark="mt_bench", paper=3.88)
    quoted = Cell(table="table_7", benchmark="ifeval", paper=38.56, quoted_from="a card")
    bare = {
        kind: tuple(dataclasses.replace(row, cells=()) for row in getattr(STUDY, kind)) for kind in ("models", "audits")
    }
    study = dataclasses.replace(
        STUDY,
        models=(dataclasses.replace(STUDY.models[0], cells=(score, blank)), *bare["models"][1:]),
        audits=(*bare["audits"][:2], dataclasses.replace(STUDY.audits[2], cells=(blank,))),
        quoted=(Quoted(name="others", title="Others", cells=(quoted,)),),
    )
    assert sql.study_rows(study, "cells").rows() == [
        ("model", "pico", "table_1", "mt_bench", 3.88, None, 1),
        ("model", "pico", "table_2", "mt_bench", None, None, 2),
        ("audit", "planted", "table_2", "mt_bench", None, None, 3),
        ("quoted", "others", "table_7", "ifeval", 38.56, "a card", 4),
    ]


def test_a_cell_whose_benchmark_is_not_run_is_refused() -> None:
    cell = Cell(table="table_1", benchmark="mt_bench")
    with pytest.raises(ValueError, match="fills mt_bench of table_1, but is not measured on it, only on ifeval"):
        changed("models", 0, cells=(cell,), measured_on=("ifeval",))
    with pytest.raises(ValueError, match="fills arc_challenge of table_4, but is not measured on it"):
        changed("models", 0, cells=(Cell(table="table_4", benchmark="arc_challenge"),))


def test_an_example_is_of_models_that_answer_its_questions() -> None:
    example = Example(name="one", question_id="q", before="pico", after="pico.local.lora")
    shown = dataclasses.replace(STUDY, examples=(example,))
    assert sql.study_rows(shown, "examples").rows() == [("one", None, "q", "pico", "pico.local.lora")]
    unasked = dataclasses.replace(STUDY.models[0], cells=(), measured_on=("mt_bench",))
    with pytest.raises(ValueError, match="'pico' is in an example, but is not measured on arena_hard"):
        dataclasses.replace(shown, models=(unasked, *STUDY.models[1:]))
    with pytest.raises(ValueError, match="example 'one' names 'absent', which is none of the models"):
        dataclasses.replace(STUDY, examples=(dataclasses.replace(example, after="absent"),))


def test_a_cell_that_is_filled_twice_by_one_row_is_refused() -> None:
    cell = Cell(table="table_1", benchmark="mt_bench")
    with pytest.raises(ValueError, match="model 'pico' fills mt_bench of table_1 twice"):
        changed("models", 0, cells=(cell, cell))


@pytest.mark.parametrize(
    ("kind", "index", "values", "problem"),
    [
        ("backbones", 0, {"template": "zepyhr"}, "the template 'zepyhr'; use one of one_shot, zephyr"),
        ("teachers", 1, {"max_tokens": None}, "set max_tokens"),
        ("teachers", 1, {"system_prompt": "Go on."}, "no system_prompt"),
        ("training_sets", 1, {"refill": False}, "not refilled up to any number; set rows"),
        ("filters", 2, {"name": "decontami-nation"}, "names a table; use the characters a-z 0-9 _"),
        (
            "filters",
            2,
            {"rule": "contaminated"},
            "has no file 'contaminated'; use one of audited, contamination, exact",
        ),
        ("filters", 2, {"options": {"grams": 8}}, "has no option 'grams'; it takes words"),
        ("filters", 1, {"options": {"words": 8}}, "takes no options"),
        ("filters", 2, {"options": {"words": "8"}}, "has words='8'; give something like 13"),
        ("filters", 2, {"options": {"words": 0}}, "has words=0; give something like 13"),
        ("filters", 2, {"rule": "near_duplicates", "options": {"threshold": float("nan")}}, "has threshold=nan; give"),
        (
            "filters",
            2,
            {"rule": "language", "options": {"languages": "de"}},
            r"has languages='de'; give something like \('en",
        ),
        ("audits", 0, {"of": "echo"}, "only attacks are planted"),
        ("audits", 2, {"of": None}, "only attacks are planted"),
        ("audits", 2, {"of": "echo"}, "compares with 'echo', which is not audited"),
        ("controls", 0, {"temperature": 0.0}, "its draws would be one text"),
        ("teachers", 0, {"documents": 0}, "teacher 'original': documents is 0; give a whole number of at least 1"),
        ("training_sets", 0, {"rows": -1}, "training set 'original': rows is -1; give a whole number of at least 1"),
        ("teachers", 1, {"documents": "2"}, "documents is '2'; give a whole number"),
        ("benchmarks", 0, {"judge": None}, "has no judge"),
        ("benchmarks", 1, {"baseline": None}, "has no baseline"),
        ("judges", 0, {"provider": "local"}, "answers from a backbone and so can only be a teacher's"),
        ("auditors", 0, {"provider": "original"}, "answers from a document and so can only be a teacher's"),
    ],
)
def test_a_row_that_cannot_be_run_is_refused_at_load(
    kind: str, index: int, values: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        changed(kind, index, **values)


def test_a_study_has_the_benchmarks_it_names_and_no_others() -> None:
    models = tuple(dataclasses.replace(model, cells=()) for model in STUDY.models)
    study = dataclasses.replace(STUDY, models=models, benchmarks=STUDY.benchmarks[:2])
    assert study.measured_on(study.models[0]) == ("mt_bench", "arena_hard")
    free = tuple(dataclasses.replace(model, measured_on=None) for model in models)
    named = (*STUDY.benchmarks, dataclasses.replace(STUDY.benchmarks[0], name="mt_bench_2"))
    with pytest.raises(ValueError, match="there is no benchmark 'mt_bench_2'; use one of arena_hard, "):
        dataclasses.replace(STUDY, models=free, benchmarks=named)
    with pytest.raises(ValueError, match="nobody judges it; leave it out"):
        changed("benchmarks", 2, judge="echo-rater")


def test_documents_without_a_corpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIFT_DOCUMENTS", "5")
    with pytest.raises(ValueError, match="without a corpus"):
        studies.active()


def test_own_documents_under_two_studies_are_two_studies() -> None:
    names = {
        studies.on_own_documents(studies.load(name), "a.parquet", text_column="text", documents=None).name
        for name in studies.names()
    }
    assert len(names) == len(studies.names())


def test_a_template_that_opens_with_an_example_has_one_and_no_other_has() -> None:
    with pytest.raises(ValueError, match="'one_shot' and the example None: one_shot alone has one"):
        changed("backbones", 0, template="one_shot")
    with pytest.raises(ValueError, match=r"'llama-3' and the example 'one\.json': one_shot alone"):
        changed("backbones", 0, example="one.json")
    assert changed("backbones", 0, template="one_shot", example="one.json").backbone("pico").example == "one.json"
