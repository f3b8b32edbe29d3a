"""Arena-Hard v2.0: two categories, each with its own baseline, its own words to the judge, and its own score."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from expectations import contract
from expectations.frames import conform
from expectations.runner import check
from nift_assets import benchmarks, sql
from nift_assets.benchmarks import arena_hard_v2
from nift_assets.benchmarks.scoring.interface import ScoredFiles
from nift_assets.protocol import Answer
from nift_assets.rows import Benchmark
from nift_assets.studies import demo

JUDGE = demo.STUDY.judge("echo-comparer")
QUESTIONS = [
    {"uid": "h1", "category": "hard_prompt", "subcategory": "math", "prompt": "How many gulls make a flock?"},
    {"uid": "c1", "category": "creative_writing", "subcategory": "creative_writing", "prompt": "A verse on ferries."},
    {"uid": "h2", "category": "hard_prompt", "subcategory": "coding", "prompt": "Sort the gulls {by weight}."},
]
SETTINGS = """
STRICT = "Say which proof holds."
JUDGE_SETTINGS = {
    "hard_prompt": {"baseline": "o3-mini-2025-01-31", "system_prompt": STRICT},
    "creative_writing": {"baseline": "gemini-2.0-flash-001", "system_prompt": "Say which verse sings."},
}
raise SystemExit("the file is read, and never run")
"""


def write(path: Path, *rows: Mapping[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def said(uid: str, model: str, text: str, tokens: int = 3) -> dict[str, Any]:
    style = {"token_len": tokens, "header_count": {"h1": 0}, "list_count": {"ordered": 0}, "bold_count": {"**": 0}}
    return {
        "uid": uid,
        "model": model,
        "messages": [{"role": "assistant", "content": {"answer": text}}],
        "metadata": style,
    }


@pytest.fixture
def row(tmp_path: Path) -> Benchmark:
    """The benchmark with three questions in words of our own, in the published layout."""
    folder = tmp_path / "arena_hard_v2"
    write(folder / "question.jsonl", *QUESTIONS)
    o3, gemini = arena_hard_v2.BASELINES.values()
    write(folder / "model_answer" / f"{o3}.jsonl", *(said(q["uid"], o3, f"o3 on {q['uid']}") for q in QUESTIONS))
    write(folder / "model_answer" / f"{gemini}.jsonl", said("c1", gemini, "gemini on c1"))
    (folder / "judge_utils.py").write_text(SETTINGS)
    (folder / "judge_config.yaml").write_text('prompt_template: "Asked: {QUESTION}\\nA: {ANSWER_A}\\nB: {ANSWER_B}"\n')
    return Benchmark(name="arena_hard_v2", location=str(folder), judge=JUDGE.name, max_new_tokens=4096)


def answered(row: Benchmark) -> pl.DataFrame:
    ran = [
        {"question_id": q["uid"], "run": 0, "turns": [f"ours on {q['uid']}"], "tokens": [4], "stopped": ["eos"]}
        for q in QUESTIONS
    ]
    return arena_hard_v2.answers(row, "m", ran).rows


def test_each_category_is_played_against_its_own_baseline_in_its_own_words(row: Benchmark) -> None:
    benchmarks.check(row)
    requests = arena_hard_v2.requests(row, JUDGE, answered(row))
    assert [[message.content for message in request.messages] for request in requests[2:4]] == [
        ["Say which verse sings.", "Asked: A verse on ferries.\nA: gemini on c1\nB: ours on c1"],
        ["Say which verse sings.", "Asked: A verse on ferries.\nA: ours on c1\nB: gemini on c1"],
    ]
    assert [request.messages[0].content for request in requests] == [
        *["Say which proof holds."] * 2,
        *["Say which verse sings."] * 2,
        *["Say which proof holds."] * 2,
    ]
    assert requests[4].messages[1].content == "Asked: Sort the gulls {by weight}.\nA: o3 on h2\nB: ours on h2"
    assert arena_hard_v2.options(row)["tokens"] == ("arena_hard_v2=4096",)
    assert [text for _, text in arena_hard_v2.questions(row)] == [q["prompt"] for q in QUESTIONS]


def test_each_category_has_a_score_of_its_own_and_the_tool_drops_a_question_without_a_verdict(row: Benchmark) -> None:
    answers = answered(row)
    requests = arena_hard_v2.requests(row, JUDGE, answers)
    texts = ["I first thought [[A>>B]], but it is [[B>>A]]", "[a<b]", "[[A=B]]", "[[B>A]]", "[[A>B]]", "no idea"]
    judged = [Answer(key=r.key, status="ok", text=text) for r, text in zip(requests, texts, strict=True)]
    table = arena_hard_v2.judgments(row, JUDGE, answers, requests, judged, {}).rows
    assert table.select("question_id", "game", "baseline", "verdict", "points", "weight").rows() == [
        ("h1", 1, "o3-mini-2025-01-31", "B>>A", 1.0, 3),
        ("h1", 2, "o3-mini-2025-01-31", "B>A", 0.0, 1),
        ("c1", 1, "gemini-2.0-flash-001", "A=B", 0.5, 1),
        ("c1", 2, "gemini-2.0-flash-001", "B>A", 0.0, 1),
        ("h2", 1, "o3-mini-2025-01-31", "A>B", 0.0, 1),
        ("h2", 2, "o3-mini-2025-01-31", None, None, 0),
    ]
    hard, creative = arena_hard_v2.score("m", table)
    assert (hard.measure, creative.measure) == tuple(measure.name for measure in arena_hard_v2.MEASURES)
    assert (hard.score, hard.published) == (100 * 3 / 5, 100 * 3 / 4)  # of h2 the tool takes no game
    assert (hard.questions, hard.expected, hard.missing, hard.complete) == (2, 4, 1, False)
    assert (creative.score, creative.published, creative.missing) == (25.0, 25.0, 0)
    assert hard.sample is not None
    assert hard.sample.questions == ("h1", "h2")


def test_its_tables_keep_the_contracts_of_their_kinds(row: Benchmark) -> None:
    study = replace(demo.STUDY, benchmarks=(*demo.STUDY.benchmarks, row))
    answers = answered(row)
    requests = arena_hard_v2.requests(row, JUDGE, answers)
    judged = [Answer(key=request.key, status="ok", text="[[A=B]]") for request in requests]
    made = {
        "arena_hard_v2_answers": answers,
        "arena_hard_v2_judgments": arena_hard_v2.judgments(row, JUDGE, answers, requests, judged, {}).rows,
    }
    given = {"merged_models": pl.DataFrame({"model": ["m"]}), "study_benchmarks": sql.study_rows(study, "benchmarks")}
    for table, frame in made.items():
        promised = contract.load(table)
        results = check(conform(frame, promised), promised, {**given, **made})
        assert [result.name for result in results if not result.passed] == []
    lost = {**made, "arena_hard_v2_answers": answers.head(2)}
    promised = contract.load("arena_hard_v2_judgments")
    results = check(conform(made["arena_hard_v2_judgments"], promised), promised, {**given, **lost})
    assert {"every_answer_is_judged", "question_id_relationships"} <= {r.name for r in results if not r.passed}


def test_files_of_its_tool_are_scored_by_category_and_as_our_own_tables_are(row: Benchmark, tmp_path: Path) -> None:
    def judged(uid: str, category: str, *labels: str | None) -> dict[str, Any]:
        games = [{"score": label, "judgment": {"answer": f"[[{label}]]" if label else "?"}} for label in labels]
        baseline = arena_hard_v2.BASELINES[category]
        return {"uid": uid, "category": category, "model": "m", "judge": "j", "baseline": baseline, "games": games}

    file = write(
        tmp_path / "m.jsonl",
        judged("h1", "hard_prompt", "B>>A", "A<B"),
        judged("c1", "creative_writing", "A=B", "B>A"),
        judged("h2", "hard_prompt", "A>B", None),
    )
    without = write(tmp_path / "questions.jsonl", {"category": "hard_prompt", "prompt": "?"})
    with pytest.raises(ValueError, match=r"questions\.jsonl line 1 has no uid and category"):
        arena_hard_v2.read(ScoredFiles(judgments=[file], questions=without))
    found = arena_hard_v2.read(ScoredFiles(judgments=[file], questions=Path(row.location, "question.jsonl")))
    assert [(one.measure, one.score, one.published, one.expected, one.missing) for one in found] == [
        ("arena_hard_v2_hard_prompt", 60.0, 75.0, 4, 1),
        ("arena_hard_v2_creative_writing", 25.0, 25.0, 2, 0),
    ]
    without = arena_hard_v2.read(ScoredFiles(judgments=[file]))
    assert [one.expected for one in without] == [1000, 500]
    # Its files look like those of the version before, which has no categories.
    named_before = benchmarks.read("arena_hard", ScoredFiles(judgments=[file]))
    assert [(one.measure, one.published) for one in named_before] == [(one.measure, one.published) for one in without]


def test_a_model_that_wins_by_length_alone_is_even_when_style_is_controlled() -> None:
    lengths = [(100.0, 100.0 + 3 * place) for place in range(-30, 31)]
    styles = [{"tokens": pair, "headers": (0.0, 0.0), "lists": (1.0, 1.0), "bold": (0.0, 0.0)} for pair in lengths]
    wins = [0.8 if ours > theirs else 0.2 if ours < theirs else 0.5 for theirs, ours in lengths]
    longer = [(style, won) for style, won in zip(styles, wins, strict=True) for _ in range(1 + (won > 0.5))]
    raw = sum(won for _, won in longer) / len(longer)
    # One model writes at all lengths, the other only at greater ones, which win against anybody.
    models = ["all"] * len(styles) + ["long"] * len(longer)
    rates = arena_hard_v2.style_controlled(
        models, [*wins, *(won for _, won in longer)], [*styles, *(s for s, _ in longer)]
    )
    assert raw > 0.55
    assert rates["long"] == pytest.approx(rates["all"], abs=3)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"baseline": "gpt-4-0314"}, "has a baseline for each category; leave 'gpt-4-0314' out"),
        ({"runs": 3}, "is one run; leave runs out"),
        ({"judge": None}, "has no judge"),
    ],
)
def test_a_row_that_says_too_much_or_too_little_is_refused(row: Benchmark, values: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        benchmarks.check(replace(row, **values))


@pytest.mark.parametrize(
    "settings",
    [
        "",
        "(",
        "\0",
        "JUDGE_SETTINGS = 5",
        "JUDGE_SETTINGS = ABSENT",
        "JUDGE_SETTINGS = {[]: 1}",
        "JUDGE_SETTINGS = open('x')",
        "JUDGE_SETTINGS = {'hard_prompt': {'system_prompt': 'a'}}",
        "JUDGE_SETTINGS = {'hard_prompt': {'system_prompt': 5}, 'creative_writing': {'system_prompt': 'a'}}",
        "JUDGE_SETTINGS = {'hard_prompt': {'baseline': 'a'}, 'creative_writing': 'b'}",
    ],
)
def test_settings_that_say_nothing_to_the_judge_are_named(row: Benchmark, settings: str) -> None:
    Path(row.location, "judge_utils.py").write_text(settings)
    with pytest.raises(
        ValueError, match=r"judge_utils\.py does not say in JUDGE_SETTINGS .* published file"
    ) as refused:
        arena_hard_v2.requests(row, JUDGE, answered(row))
    assert "\n" not in str(refused.value)
