"""Filters and providers of one's own beside a study's file: found, run, versioned, and refused in one line."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from expectations import contract
from expectations.frames import conform
from expectations.runner import check
from nift_assets import benchmarks, filters, graph, providers, sql, studies
from nift_assets.assets import sql_models
from nift_assets.rows import digest, without_places
from nift_assets.steps import code
from nift_assets.study import Study
from tests.conftest import PROJECT, nift_here

STUDY = """
from nift_assets.studies import Corpus, Filter, Study, Teacher

STUDY = Study(
    name="{name}",
    title="Mine",
    corpus=Corpus(name="mine", location="{folder}/articles", licence="mine"),
    teachers=(Teacher(name="echo", provider="{provider}", model="continue", filters=("shouting", "short")),),
    filters=(Filter(name="shouting", options={{"share": 0.5}}), Filter(name="short"), Filter(name="prompt_echo")),
)
"""
SHOUTING = '''
"""Drops a completion that is mostly in capitals."""

import polars as pl


def removals(candidates: pl.DataFrame, *, share: float = 0.3) -> pl.DataFrame:
    capitals = pl.col("completion").str.count_matches("[A-Z]") / pl.col("completion").str.len_chars()
    return candidates.filter(capitals > share).select("document_id", reason=pl.lit("{says}"))
'''
SHORT = """
{{ config(by='teacher', group='completions') }}

select document_id, teacher, sample_rank, 'short' as filter, '{says}' as reason, completion
from {{ ref('completions') }}
where status in ('ok', 'truncated') and length(completion) < 10
"""
PROVIDER = '''
"""Says the same of everything."""

from nift_assets.providers.echo import *  # noqa: F403
from nift_assets.providers.echo import VERSION, check, connect, read  # noqa: F401
'''
COMPLETIONS = pl.DataFrame(
    {
        "document_id": ["a", "b", "c"],
        "teacher": ["echo"] * 3,
        "sample_rank": [0, 1, 2],
        "status": ["ok"] * 3,
        "completion": ["WHAT A MORNING", "and so it went on.", "no."],
    }
)
HALVES = pl.DataFrame({"document_id": ["a", "b", "c"], "first_half": ["One", "Two", "Three"]})


def write(folder: Path, *, name: str = "mine", says: str = "it shouts", provider: str = "echo") -> Path:
    """A study's file with two filters beside it."""
    (folder / "filters").mkdir(parents=True, exist_ok=True)
    (folder / "filters" / "shouting.py").write_text(SHOUTING.format(says=says))
    (folder / "filters" / "short.sql").write_text(SHORT.replace("{says}", says))
    file = folder / "mine.py"
    file.write_text(STUDY.format(name=name, folder=folder, provider=provider))
    return file


def dropped(study: Study) -> dict[str, list[tuple[str, str]]]:
    """What each own filter of a study drops, with the reason."""
    python = filters.run(study.filter("shouting"), COMPLETIONS, HALVES, ())
    model = sql.compile("short_removals", filters.sql_file(study.filter("short").file))
    in_sql = sql.run(model, {"completions": COMPLETIONS}, "echo")
    return {
        "shouting": python.rows.select("document_id", "reason").rows(),
        "short": in_sql.select("document_id", "reason").rows(),
    }


def test_two_studies_have_filters_of_one_name_each_its_own(tmp_path: Path) -> None:
    mine = studies.load(str(write(tmp_path / "one", says="mine")))
    other = studies.load(str(write(tmp_path / "two", name="other", says="another")))
    for study, says in ((mine, "mine"), (other, "another"), (mine, "mine")):
        assert dropped(study) == {"shouting": [("a", says)], "short": [("c", says)]}
        built = graph.build(study)
        assert {"shouting_removals", "short_removals", "prompt_echo_removals"} <= built.tables.keys()
    # What is made of a study goes on knowing its own.
    scaled = dataclasses.replace(mine, title="Again")
    assert dropped(scaled)["shouting"] == [("a", "mine")]


def test_the_version_is_that_of_the_code_and_not_of_its_place_or_wording(tmp_path: Path) -> None:
    def versions(file: Path) -> list[str]:
        study = studies.load(str(file))
        steps = graph.build(study).tables
        return [
            digest(steps[table].version_of("echo", table), list(steps[table].rows("echo", table)))
            for table in ("shouting_removals", "short_removals")
        ]

    file = write(tmp_path / "one")
    first = versions(file)
    moved = Path(shutil.move(tmp_path / "one", tmp_path / "two")) / "mine.py"
    assert versions(moved) == first
    source = moved.parent / "filters" / "shouting.py"
    source.write_text(source.read_text().replace("mostly in capitals", "all in capitals") + "\n# A comment.\n")
    assert versions(moved) == first
    source.write_text(source.read_text().replace("[A-Z]", "[A-ZÄÖÜ]"))
    assert [new == old for new, old in zip(versions(moved), first, strict=True)] == [False, True]


def test_rows_and_pages_know_nothing_of_where_the_file_lies(tmp_path: Path) -> None:
    study = studies.load(str(write(tmp_path)))
    row = without_places(study.filter("shouting"))
    assert digest(row) == digest(studies.Filter(name="shouting", options={"share": 0.5}))
    assert sql.study_rows(study, "filters")["name"].to_list() == ["shouting", "short", "prompt_echo"]
    assert sql_models.removals(study, {}) == {}


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("shouting.py", "def removals(:\n", r"shouting\.py, line 1: SyntaxError"),
        ("shouting.py", "import os\n\nimport absent_module\n", r"shouting\.py, line 3: ModuleNotFoundError"),
        ("shouting.py", "x = 1\n", "has a function removals"),
        ("shouting.py", SHOUTING.format(says="x").replace("share:", "part:"), "has no option 'share'; it takes part"),
        ("language.py", SHOUTING.format(says="x"), "there is a filter 'language' in the package"),
        ("shouting.sql", SHORT, "shouting.py and shouting.sql have one name"),
    ],
)
def test_a_broken_file_or_a_taken_name_is_refused_in_one_line(name: str, text: str, says: str, tmp_path: Path) -> None:
    file = write(tmp_path)
    (tmp_path / "filters" / name).write_text(text)
    with pytest.raises(ValueError, match=says) as refused:
        studies.load(str(file))
    assert "\n" not in str(refused.value)


def test_a_broken_placeholder_names_the_file_and_the_line(tmp_path: Path) -> None:
    file = write(tmp_path)
    broken = tmp_path / "filters" / "short.sql"
    broken.write_text(SHORT.replace("ref('completions')", "reff('completions')"))
    with pytest.raises(ValueError, match=r"short\.sql, line 5: 'reff' is undefined"):
        graph.build(studies.load(str(file)))


@pytest.fixture
def nothing_stays() -> Iterator[None]:
    """What a test has added to the package's providers, benchmarks and contracts is gone after it."""
    packages = (providers, benchmarks)
    before = [list(package.__path__) for package in packages]
    yield
    for package, paths in zip(packages, before, strict=True):
        package.__path__[:] = paths
        package.module.cache_clear()
    contract._beside.clear()
    sys.modules.pop("nift_assets.benchmarks.capitals", None)


@pytest.mark.usefixtures("nothing_stays")
def test_a_provider_of_ones_own_answers_and_a_broken_one_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path, provider="same_of_all")
    (tmp_path / "providers").mkdir()
    (tmp_path / "providers" / "same_of_all.py").write_text("import absent_module\n")
    with pytest.raises(ValueError, match=r"same_of_all\.py, line 1: ModuleNotFoundError"):
        studies.load(str(file))
    (tmp_path / "providers" / "same_of_all.py").write_text("VERSION = 1\n")
    with pytest.raises(ValueError, match="the provider 'same_of_all' lacks ANSWERS_FROM"):
        studies.load(str(file))
    taken = tmp_path / "providers" / "echo.py"
    taken.write_text("VERSION = 1\n")
    with pytest.raises(ValueError, match="there is a provider 'echo' in the package"):
        studies.load(str(file))
    taken.unlink()
    (tmp_path / "providers" / "same_of_all.py").write_text(PROVIDER)
    study = studies.load(str(file))
    assert study.teachers[0].provider == "same_of_all"
    (tmp_path / "articles").mkdir()
    (tmp_path / "articles" / "a.txt").write_text("An article goes on for some words. " * 20)
    ours = {name: value for name, value in os.environ.items() if not name.startswith("NIFT_")}
    environment = ours | {"NIFT_STUDY": str(file), "NIFT_WAREHOUSE": str(tmp_path / "warehouse")}
    shown = nift_here("preview", environment=environment)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "1 asked now" in shown.stdout


ANSWERED = [
    {"question_id": "fr", "run": 0, "turns": ["It is Paris."], "tokens": [4], "stopped": ["eos"]},
    {"question_id": "no", "run": 0, "turns": ["I could not say."], "tokens": [5], "stopped": ["length"]},
]


def write_benchmark(folder: Path) -> Path:
    """The guide's benchmark and its contract beside a study that has it."""
    guide = (PROJECT / "dagster_project" / "guides" / "own-study.md").read_text()
    benchmark, written = re.findall(r"^```(?:python|yaml)\n(.*?)^```", guide, re.DOTALL | re.MULTILINE)[-2:]
    for name, text in (("benchmarks/capitals.py", benchmark), ("expectations/capitals_answers.yml", written)):
        (folder / name).parent.mkdir()
        (folder / name).write_text(text)
    (folder / "capitals").mkdir()
    asked = [
        {"uid": "fr", "category": "europe", "prompt": "What is the capital of France?", "city": "Paris"},
        {"uid": "no", "category": "europe", "prompt": "What is the capital of Norway?", "city": "Oslo"},
    ]
    (folder / "capitals" / "question.jsonl").write_text("\n".join(map(json.dumps, asked)))
    file = folder / "measured.py"
    file.write_text(
        "from dataclasses import replace\n"
        "from nift_assets import studies\n"
        f"row = studies.Benchmark(name='capitals', location={str(folder / 'capitals')!r})\n"
        "models = [replace(model, cells=(), measured_on=('capitals',)) for model in studies.load('demo').models]\n"
        "STUDY = replace(studies.load('demo'), name='measured', examples=(), benchmarks=(row,), models=tuple(models))\n"
    )
    return file


@pytest.mark.usefixtures("nothing_stays")
def test_the_guides_benchmark_is_a_table_with_a_contract_and_a_score(tmp_path: Path) -> None:
    study = studies.load(str(write_benchmark(tmp_path)))
    row = study.benchmark("capitals")
    assert benchmarks.tables(["capitals"]) == {"capitals_answers": "capitals"}
    built = graph.build(study)
    assert "capitals_answers" in built.tables
    file = benchmarks.load("capitals")
    assert [name for name, _ in file.questions(row)] == ["fr", "no"]
    assert file.options(row)
    table = conform(file.answers(row, "before", ANSWERED).rows, contract.load("capitals_answers"))
    models = table.select("model").unique()
    failed = {
        result.name
        for result in check(table, contract.load("capitals_answers"), {"merged_models": models})
        if not result.passed
    }
    assert failed == {"few_answers_are_cut_off"}
    (measured,) = file.score("before", table)
    assert (measured.score, measured.questions) == (50.0, 2)


@pytest.mark.usefixtures("nothing_stays")
def test_a_benchmarks_version_is_that_of_its_code_and_not_of_its_place(tmp_path: Path) -> None:
    def version(file: Path) -> str:
        for package in (providers, benchmarks):
            package.__path__[:] = package.__path__[:1]
            package.module.cache_clear()
        sys.modules.pop("nift_assets.benchmarks.capitals", None)
        code.sources.cache_clear()  # a process reads its code once
        step = graph.build(studies.load(str(file))).tables["benchmark_scores"]
        return step.version_of("before", "benchmark_scores")

    (tmp_path / "one").mkdir()
    first = version(write_benchmark(tmp_path / "one"))
    moved = Path(shutil.move(tmp_path / "one", tmp_path / "two"))
    study = moved / "measured.py"
    study.write_text(study.read_text().replace("/one/", "/two/"))
    source = moved / "benchmarks" / "capitals.py"
    source.write_text(source.read_text().replace("names the city", "has the city in it") + "\n# A comment.\n")
    assert version(study) == first
    source.write_text(source.read_text().replace("(100.0 * is_right", "(99.0 * is_right"))
    assert version(study) != first


@pytest.mark.usefixtures("nothing_stays")
@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("benchmarks/capitals.py", "VERSION = 1\n", "the benchmark 'capitals' lacks TITLE"),
        ("benchmarks/capitals.py", "import absent_module\n", r"capitals\.py, line 1: ModuleNotFoundError"),
        ("benchmarks/ifeval.py", "VERSION = 1\n", "there is a benchmark 'ifeval' in the package"),
        ("expectations/halves.yml", "table: halves\n", "the package has the contract of halves"),
        ("expectations/capitals_answers.yml", "table: capitals\n", r"capitals_answers\.yml: "),
    ],
)
def test_a_broken_benchmark_or_contract_is_refused_in_one_line(name: str, text: str, says: str, tmp_path: Path) -> None:
    file = write_benchmark(tmp_path)
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=says) as refused:
        graph.build(studies.load(str(file)))
    assert "\n" not in str(refused.value)
    assert "NoneType" not in str(refused.value)


@pytest.mark.usefixtures("nothing_stays")
def test_what_benchmarks_share_lies_in_a_folder_beside_them(tmp_path: Path) -> None:
    file = write_benchmark(tmp_path)
    (tmp_path / "benchmarks" / "_shared.py").write_text("raise RuntimeError('it is imported by who needs it')\n")
    with pytest.raises(ValueError, match=r"_shared\.py: each file here is one of the benchmarks; put what they share"):
        studies.load(str(file))
    (tmp_path / "benchmarks" / "shared").mkdir()
    (tmp_path / "benchmarks" / "_shared.py").rename(tmp_path / "benchmarks" / "shared" / "__init__.py")
    assert studies.load(str(file)).name == "measured"
    assert "shared" not in benchmarks.names()
    assert "capitals" in benchmarks.heads()


@pytest.mark.usefixtures("nothing_stays")
def test_another_study_of_the_process_with_a_file_of_that_name_is_named(tmp_path: Path) -> None:
    first, second = (tmp_path / name for name in ("first", "second"))
    for folder in (first, second):
        folder.mkdir()
    studies.load(str(write_benchmark(first)))
    file = write_benchmark(second)
    with pytest.raises(ValueError, match=f"in {first / 'benchmarks'}, beside another study of this process"):
        studies.load(str(file))
    shutil.rmtree(second / "benchmarks")
    contract_file = second / "expectations" / "capitals_answers.yml"
    file.write_text("from nift_assets import studies\nSTUDY = studies.load('demo')\n")
    assert studies.load(str(file)), "the same contract is no other one"
    contract._beside.pop()
    contract_file.write_text(contract_file.read_text() + "# another\n")
    with pytest.raises(ValueError, match="another study of this process has another contract of capitals_answers"):
        studies.load(str(file))
