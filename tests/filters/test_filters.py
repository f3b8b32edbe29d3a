"""Filters: what each drops and keeps, with the reason, and that one is a file and a row."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from dagster_project.definitions import definitions
from nift_assets import DEMO_FILES, filters, graph, studies
from nift_assets.benchmarks import open_llm_leaderboard
from nift_assets.filters import contamination, exact_duplicates, language, near_duplicates
from nift_assets.rows import Benchmark, Filter, Task
from nift_assets.studies import demo
from tests.conftest import PROJECT
from tests.hub.server import Hub
from tests.shared_data import shared

BENCHMARKS = demo.STUDY.benchmarks
ARTICLES = [path.read_text(encoding="utf-8") for path in sorted((DEMO_FILES / "articles").glob("*.txt"))]


def candidates(*texts: str) -> pl.DataFrame:
    """Completions named after their place, each behind an empty first half."""
    rows = [(f"d{place:04}", place, "", text) for place, text in enumerate(texts)]
    return pl.DataFrame(rows, schema=["document_id", "sample_rank", "first_half", "completion"], orient="row")


def dropped(removals: pl.DataFrame) -> list[int]:
    return [int(document_id[1:]) for document_id in removals["document_id"]]


@pytest.mark.parametrize("name", filters.names())
def test_a_filter_says_what_it_drops_and_gives_an_example(name: str) -> None:
    row = Filter(name=name)
    filters.check(row)
    says = filters.sql_file(name).read_text() if filters.is_sql(row) else str(filters.module(row).__doc__)
    assert "Drops " in says
    assert "Example: " in says


def test_what_is_dropped_is_kept_whole_in_sample_order_with_the_reason() -> None:
    statuses = ["ok", "truncated", "refused", "ok", "other"]
    documents = pl.DataFrame({"document_id": list("abcde"), "sample_rank": [4, 3, 2, 1, 0], "first_half": "Once."})
    completions = documents.drop("first_half").with_columns(
        teacher=pl.lit("echo"), status=pl.Series(statuses), completion=pl.lit(" I cannot help with that.")
    )
    made = filters.run(Filter(name="exact_duplicates"), completions, documents, ()).rows
    reason = "the completion of d too"
    assert made.rows() == [
        ("b", "echo", 3, "exact_duplicates", reason, " I cannot help with that."),
        ("a", "echo", 4, "exact_duplicates", reason, " I cannot help with that."),
    ]


def test_a_completion_that_an_earlier_document_has_is_dropped_whatever_its_case_and_white_space() -> None:
    said = candidates(" I am sorry.", "and so on", "I am\n sorry.", "i AM sorry. ", "and so  on!", "AND SO ON")
    assert dropped(pl.concat(exact_duplicates.removals([said]))) == [2, 3, 5]


def test_changed_copies_are_dropped_and_what_they_were_copied_from_is_kept() -> None:
    copies = [changed(text, every) for text in ARTICLES for every in (60, 8)]
    made = pl.concat(near_duplicates.removals([candidates(*ARTICLES, *copies)]))
    alike = [len(ARTICLES) + place for place, copy in enumerate(copies) if jaccard(copy, ARTICLES[place // 2]) >= 0.8]
    assert dropped(made) == alike
    assert len(alike) == len(ARTICLES), "one word in 60 changed is alike, one in 8 is not"
    assert made["reason"].str.contains(r"^shares (8|9)\d% of its phrases with d\d{4}$").all()


def test_what_is_dropped_of_a_smaller_sample_is_the_beginning_of_what_is_dropped_of_a_larger_one() -> None:
    texts = [text for article in ARTICLES[:20] for text in (article, changed(article, 60), changed(article, 30))]
    whole = dropped(pl.concat(near_duplicates.removals([candidates(*texts)])))
    for size in (7, 20, 41):
        assert dropped(pl.concat(near_duplicates.removals([candidates(*texts[:size])]))) == [
            n for n in whole if n < size
        ]


def changed(text: str, every: int) -> str:
    """The text with one word in so many replaced."""
    return " ".join("otherwise" if n % every == every // 2 else word for n, word in enumerate(text.split()))


def jaccard(one: str, other: str) -> float:
    left, right = near_duplicates.phrases(one), near_duplicates.phrases(other)
    return len(left & right) / len(left | right)


SPANISH = "El transbordador llegó tarde otra vez, y nadie en el muelle supo decir por qué la sirena ya no sonaba."
GERMAN = "Die Fähre kam wieder zu spät, und niemand am Kai konnte sagen, warum das Horn nicht mehr zu hören war."


def test_a_completion_in_another_language_is_dropped_and_one_without_letters_is_kept() -> None:
    said = candidates(ARTICLES[0], SPANISH, GERMAN, "1 | 2 | 3\n4 | 5 | 6", "", *ARTICLES[1:])
    assert dropped(language.removals(said)) == [1, 2]
    assert language.removals(said)["reason"].to_list() == ["in es, not in en", "in de, not in en"]
    assert dropped(language.removals(said, languages=("en", "es"))) == [2]


def test_a_document_that_quotes_thirteen_words_of_a_question_is_dropped_with_the_question() -> None:
    asked = [(f"{b.name} {name}", text) for b in BENCHMARKS for name, text in contamination.questions(b)]
    long = [(name, text) for name, text in asked if len(contamination._words(text)) >= 13]
    assert {name.split()[0] for name, _ in asked} == {benchmark.name for benchmark in BENCHMARKS}
    quoting = candidates(*(f"{ARTICLES[0]} {quote(text, 13)} and so on." for _, text in long))
    made = contamination.removals(quoting, benchmarks=BENCHMARKS).rows
    assert dropped(made) == list(range(len(long)))
    assert made["reason"].to_list() == [f"repeats {name}" for name, _ in long]


def test_twelve_words_of_a_question_and_our_own_articles_are_clean() -> None:
    texts = [text for benchmark in BENCHMARKS for _, text in contamination.questions(benchmark)]
    long = [text for text in texts if len(contamination._words(text)) >= 20]
    quoting = candidates(*ARTICLES, *(f"{ARTICLES[0]} {quote(text, 12)} otherwise." for text in long))
    assert contamination.removals(quoting, benchmarks=BENCHMARKS).rows.is_empty()


ACROSS = "Describe how a lighthouse keeper should wind the great clock when the winter storm has broken the window."
CHINESE = "请描述一下守塔人在冬天的暴风雨已经打破北面窗户的时候应该怎样给大钟上发条，并且说明为什么不能等到第二天。"


def test_a_question_across_the_cut_is_found_whether_or_not_the_completion_begins_with_a_space(tmp_path: Path) -> None:
    asked = [{"question_id": place, "turns": [text]} for place, text in enumerate((ACROSS, CHINESE))]
    (tmp_path / "question.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    words = ACROSS.split()
    halves = [("It was so. " + " ".join(words[:9]), space + " ".join(words[9:])) for space in (" ", "")]
    halves += [("守塔人的故事。" + CHINESE[:20], CHINESE[20:]), ("守塔人的故事。", "后来大家都睡了。")]
    rows = [(f"d{place:04}", place, *pair) for place, pair in enumerate(halves)]
    said = pl.DataFrame(rows, schema=["document_id", "sample_rank", "first_half", "completion"], orient="row")
    benchmark = Benchmark(name="mt_bench", location=str(tmp_path), judge="j")
    assert dropped(contamination.removals(said, benchmarks=[benchmark]).rows) == [0, 1, 2]


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("mt_bench", {"question_id": "a", "turns": [ACROSS, "And then?", "And then?"]}),
        ("arena_hard", {"question_id": 5, "turns": [{"content": ACROSS}]}),
        ("arena_hard_v2", {"uid": "a", "prompt": ACROSS}),
        ("ifeval", {"key": "a", "prompt": ACROSS}),
    ],
)
def test_a_question_is_looked_for_that_nobody_could_judge(name: str, row: dict[str, Any], tmp_path: Path) -> None:
    benchmark = Benchmark(name=name, location=str(tmp_path), judge="j")
    (tmp_path / ("input_data.jsonl" if name == "ifeval" else "question.jsonl")).write_text(json.dumps(row))
    assert {text for _, text in contamination.questions(benchmark)} >= {ACROSS}


def test_changed_copies_of_a_script_without_spaces_are_dropped() -> None:
    parts = [f"第{day}天渔夫数清了两本账簿也借出了一箱油灯，" for day in range(60)]
    changed = [f"{part[:-1]}呢，" if day % 5 == 0 else part for day, part in enumerate(parts)]
    other = CHINESE * 3
    assert dropped(pl.concat(near_duplicates.removals([candidates("".join(parts), "".join(changed), other)]))) == [1]


def test_a_question_of_eight_words_is_looked_for_as_a_whole_and_a_shorter_one_is_not() -> None:
    facts = demo.STUDY.benchmark("open_llm_leaderboard")
    made = contamination.grams(contamination.read([facts])[0], 13)
    assert min(map(len, made)) == contamination.FEWEST
    assert "which planet is closest to the sun" not in {" ".join(gram) for gram in made}


def quote(text: str, words: int) -> str:
    """The first words of a question as a careless writer quotes them: in capitals, with other signs between them."""
    return " -- ".join(contamination._words(text)[:words]).upper()


ON_THE_HUB = Benchmark(
    name="open_llm_leaderboard",
    location="hub",
    tasks=(Task(name="gsm8k", metric="exact_match", shots=5), Task(name="hellaswag", metric="acc_norm", shots=10)),
)
SUM = "Nine gulls sat on the rail, four flew off and two came back: how many sit there now?"
LOOKED_FOR = """
import json, sys
import polars as pl
from nift_assets.filters import contamination
from nift_assets.studies import Benchmark, Task

tasks = tuple(Task(name=name, metric="acc", shots=5) for name in ("gsm8k", "hellaswag"))
benchmark = Benchmark(name="open_llm_leaderboard", location="hub", tasks=tasks)
documents = pl.DataFrame({"document_id": ["clean", "quoting"], "first_half": "He wrote: ", "completion": sys.argv[1:]})
made = contamination.removals(documents, benchmarks=[benchmark])
print(json.dumps({"rows": made.rows.rows(), **made.metadata}))
"""


def test_the_other_benchmarks_are_looked_for_where_the_hub_cannot_be_reached() -> None:
    absent = Benchmark(name="ifeval", location="no/such/folder")
    local = next(benchmark for benchmark in BENCHMARKS if benchmark.name == "mt_bench")
    _, text = next(iter(contamination.questions(local)))
    made = contamination.removals(candidates(text), benchmarks=[ON_THE_HUB, absent, local])
    assert made.rows["reason"].str.starts_with("repeats mt_bench ").to_list() == [True]
    assert (made.metadata["benchmarks_looked_for"], made.metadata["benchmarks_missing"]) == (1, 3)
    for name in ("open_llm_leaderboard gsm8k", "open_llm_leaderboard hellaswag", "ifeval"):
        assert made.metadata[f"missing {name}"].endswith("; materialize again when it is there")


def test_the_questions_of_the_hubs_tasks_are_looked_for() -> None:
    stored = io.BytesIO()
    pl.DataFrame({"question": [SUM], "choices": [["seven", "nine"]]}).write_parquet(stored)
    gsm8k = open_llm_leaderboard.TASKS["gsm8k"]
    online = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    with Hub() as hub:
        hub.hold(gsm8k.dataset, {gsm8k.file: stored.getvalue()}, commit=gsm8k.revision)
        ran = subprocess.run(
            [sys.executable, "-c", LOOKED_FOR, "Nothing of it.", SUM],
            env={**online, "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_TELEMETRY": "1"},
            cwd=PROJECT,
            capture_output=True,
            text=True,
        )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["rows"] == [["quoting", "repeats open_llm_leaderboard gsm8k 1"]]
    assert (found["benchmarks_looked_for"], found["benchmarks_missing"]) == (1, 1)
    assert "Rowan/hellaswag" in found["missing open_llm_leaderboard hellaswag"]


def test_every_question_of_the_published_benchmarks_is_found_in_real_articles() -> None:
    published = [
        Benchmark(name="mt_bench", location=str(shared("mt_bench"))),
        Benchmark(name="arena_hard", location=str(shared("arena_hard"))),
        Benchmark(name="ifeval", location=str(shared("ifeval"))),
    ]
    articles = pl.read_parquet(shared("documents", "web_articles.parquet"))["text"].to_list()
    texts = [text for benchmark in published for _, text in contamination.questions(benchmark)]
    planted = [f"{article} {text}" for article, text in zip(articles, texts, strict=False)]
    began = time.process_time()
    clean = contamination.removals(candidates(*articles), benchmarks=published).rows
    print(
        f"{len(articles):,} web articles in {time.process_time() - began:.1f} CPU s, {clean.height} repeat a question"
    )
    found = dropped(contamination.removals(candidates(*planted), benchmarks=published).rows)
    askable = [n for n, text in enumerate(texts) if len(contamination._words(text)) >= contamination.FEWEST]
    print(f"{len(askable):,} of {len(texts):,} questions have 8 words or more; {len(found):,} planted ones are found")
    assert set(askable) <= set(found) | set(range(len(planted), len(texts)))


OWN = """
import dataclasses
from nift_assets import studies
from nift_assets.studies import Filter

DEMO = studies.load("demo")
ROWS = (
    *DEMO.filters,
    Filter(name="near_duplicates", options={"threshold": 0.7}),
    Filter(name="spanish", rule="language", options={"languages": ("es",)}),
)
STUDY = dataclasses.replace(
    DEMO,
    name="mine",
    filters=ROWS,
    training_sets=tuple(
        dataclasses.replace(row, filters=("near_duplicates",)) if row.name == "echo-filtered" else row
        for row in DEMO.training_sets
    ),
)
"""


def test_a_row_is_all_that_switches_a_filter_on(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    own = graph.build(studies.load(str(tmp_path / "own.py")))
    dg.Definitions.validate_loadable(definitions(own))
    read = {
        name: sorted(table for table in own.tables[name].inputs if table.endswith("_removals"))
        for name in ("filtered_completions", "training_sets", "funnel")
    }
    names = ["audited", "contamination", "near_duplicates", "prompt_echo", "spanish", "uppercase_start"]
    tables = [f"{name}_removals" for name in names]
    assert sorted(name for name in own.tables if name.endswith("_removals")) == tables
    assert read == {"filtered_completions": tables, "training_sets": tables, "funnel": tables}


def test_a_filter_without_a_row_is_no_table() -> None:
    off = {"exact_duplicates", "near_duplicates", "language"}
    assert off <= set(filters.names())
    assert not off & {row.name for row in demo.STUDY.filters}


def test_the_73k_are_what_the_papers_rule_leaves_of_everything_else() -> None:
    from nift_assets.studies import paper

    main = paper.STUDY.teacher("gpt-4-0125-preview")
    assert main.filters == ("uppercase_start",)
    assert paper.STUDY.training_set("gpt-4-0125-preview-73k").filters == main.filters
    before = paper.STUDY.training_set("gpt-4-0125-preview-1k")
    after = paper.STUDY.training_set("gpt-4-0125-preview-1k-audited")
    assert dataclasses.replace(before, name=after.name, filters=("audited",), refill=False) == after
