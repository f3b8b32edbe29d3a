"""Filters and providers of one's own beside a study's file: found, run, versioned, and refused in one line."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from nift_assets import filters, graph, providers, sql, studies
from nift_assets.assets import sql_models
from nift_assets.rows import digest, without_places
from nift_assets.study import Study
from tests.conftest import nift_here

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
def no_provider_stays() -> Iterator[None]:
    """What a test has added to the package's providers is gone after it."""
    before = list(providers.__path__)
    yield
    providers.__path__[:] = before
    providers.module.cache_clear()


@pytest.mark.usefixtures("no_provider_stays")
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
