"""`nift judge`: a judge asked about files of answers is asked what a study's step asks, once, and ends in the score."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nift_assets import benchmarks, judging
from nift_assets.benchmarks.scoring import answer_files, files
from nift_assets.ledger import report
from nift_assets.ledger.book import Book
from tests.conftest import PROJECT, nift, nift_here
from tests.demo import STUDY
from tests.ledger.fault_server import FaultServer

JUDGED = {"mt-bench": "echo-rater", "arena-hard": "echo-comparer"}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("NIFT_")}
    return ours | {"NIFT_WAREHOUSE": str(tmp_path / "warehouse")}


def rows_of(name: str, runs: int = 1) -> list[dict[str, Any]]:
    """Answers to the questions of the demo's benchmark as `nift_training.evaluate` writes them."""
    row = STUDY.benchmark(name)
    return [
        {
            "question_id": asked.id,
            "run": run,
            "turns": [f"Answer {turn} to {asked.id} with {{braces}}, run {run}." for turn in range(asked.turns)],
            "tokens": [7] * asked.turns,
            "stopped": ["eos"] * asked.turns,
        }
        for asked in answer_files.asked(files.path_of(row, benchmarks.load(name).ASKED)).values()
        for run in range(runs)
    ]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def in_layout(layout: str, rows: list[dict[str, Any]], model: str) -> list[dict[str, Any]]:
    """The same answers as other tools write them."""

    def said(texts: list[Any]) -> dict[str, Any]:
        return {"choices": [{"index": 0, "turns": texts}]}

    written: dict[str, Any] = {
        "ours": lambda row: row,
        "fastchat": lambda row: {"question_id": row["question_id"], "model_id": model, **said(row["turns"])},
        "as texts": lambda row: {"question_id": str(row["question_id"]), "model_id": model, **said(row["turns"])},
        "arena-hard-auto": lambda row: {
            "question_id": row["question_id"],
            "model_id": model,
            **said([{"content": text, "token_len": 7} for text in row["turns"]]),
        },
        "of 2025": lambda row: {
            "uid": row["question_id"],
            "model": model,
            "messages": [
                part
                for text in row["turns"]
                for part in ({"role": "user", "content": "?"}, {"role": "assistant", "content": {"answer": text}})
            ],
        },
    }
    return [written[layout](row) for row in rows]


@pytest.mark.parametrize("layout", ["ours", "fastchat", "as texts", "arena-hard-auto", "of 2025"])
@pytest.mark.parametrize("name", ["mt_bench", "arena_hard"])
def test_a_judge_is_asked_what_the_studys_own_step_asks(name: str, layout: str, tmp_path: Path) -> None:
    row = STUDY.benchmark(name)
    judge = STUDY.judge(str(row.judge))
    file = benchmarks.judged(name)
    by_step = file.requests(row, judge, file.answers(row, "m", rows_of(name)).rows)
    path = write(tmp_path / "answers.jsonl", in_layout(layout, rows_of(name), "m"))
    by_hand = judging.benchmark_row(STUDY, name)
    (part,) = judging.to_judge(
        by_hand, judging.judge_row(STUDY, judge.name), answer_files.read([path], judging.questions(by_hand), "m")
    )
    assert [request.key for request in part.requests] == [request.key for request in by_step]
    named = judging.judge_row(STUDY, f"{judge.provider}:{judge.model}")
    (again,) = judging.to_judge(by_hand, named, [part.run])
    assert [request.key for request in again.requests] == [request.key for request in by_step]


@pytest.mark.parametrize("name", ["mt-bench", "arena-hard"])
def test_judgments_are_asked_once_and_read_by_nift_score_as_they_were_scored(
    name: str, environment: dict[str, str], tmp_path: Path
) -> None:
    rows = rows_of(name.replace("-", "_"))
    path = write(tmp_path / "model_answer" / "m.jsonl", in_layout("arena-hard-auto", rows, "m"))
    arguments = ["judge", name, "--answers", str(path), "--judge", JUDGED[name], "--out", str(tmp_path / "out")]
    first = nift_here(*arguments, environment=environment)
    assert first.returncode == 0, first.stderr
    assert re.match(r"\S+, m: 16 questions to \S+, 16 still to ask: nothing to pay\n", first.stderr)
    (written,) = (tmp_path / "out").rglob("*.jsonl")
    content = written.read_bytes()
    second = nift_here(*arguments, environment=environment)
    assert "nothing asked anew" in second.stderr
    assert (second.stdout, written.read_bytes()) == (first.stdout, content)
    questions = files.path_of(STUDY.benchmark(name.replace("-", "_")), "question.jsonl")
    scored = nift_here(
        *("score", name, "--judgments", str(written), "--answers", str(path), "--questions", str(questions)),
        *(["--baseline", "demo-baseline"] if name == "arena-hard" else []),
        environment=environment,
    )
    assert scored.stdout == first.stdout
    assert re.search(r"^m +\d+\.\d\d.* \[\d+\.\d\d, \d+\.\d\d\]", scored.stdout, re.M)


def test_a_files_score_is_that_of_the_studys_own_tables(tmp_path: Path) -> None:
    for name in ("mt_bench", "arena_hard"):
        row = STUDY.benchmark(name)
        judge = STUDY.judge(str(row.judge))
        path = write(tmp_path / f"{name}.jsonl", rows_of(name))
        asked = judging.to_judge(row, judge, answer_files.read([path], judging.questions(row), "m"))
        book = Book(f"sqlite:///{tmp_path}/{name}.sqlite")
        said = judging.ask(book, STUDY, row, judge, asked, lambda counts: None)
        (content,) = judging.published(row, judge, asked, said)
        file = benchmarks.writing(name)
        table = file.judgments(row, judge, asked[0].answers, asked[0].requests, said.judged[0], said.retried[0])
        (by_table,) = file.score("m", table.rows)
        judgments = tmp_path / f"{name}.judgments.jsonl"
        judgments.write_text(content)
        (by_file,) = benchmarks.read(
            name,
            benchmarks.ScoredFiles(
                judgments=[judgments], questions=files.path_of(row, file.ASKED), baseline=row.baseline
            ),
        )
        assert (by_file.score, by_file.low, by_file.high) == (by_table.score, by_table.low, by_table.high)
        assert (by_file.missing, by_file.expected) == (by_table.missing, by_table.expected)


def test_runs_of_a_model_go_into_files_of_their_own(environment: dict[str, str], tmp_path: Path) -> None:
    path = write(tmp_path / "mt_bench.jsonl", rows_of("mt_bench", runs=2))
    how = ["judge", "mt-bench", "--answers", str(path), "--model", "m", "--judge", "echo-rater"]
    judged = nift_here(*how, "--out", str(tmp_path / "out"), environment=environment)
    assert sorted(file.name for file in (tmp_path / "out").rglob("*.jsonl")) == ["m.jsonl", "m.run-2.jsonl"]
    assert "2 runs" in judged.stdout
    refused = nift_here(*how, "--out", str(tmp_path / "one.jsonl"), environment=environment)
    assert "a model answers several times" in refused.stderr


def test_any_answers_can_be_the_baseline(environment: dict[str, str], tmp_path: Path) -> None:
    ours = write(tmp_path / "tuned.jsonl", rows_of("arena_hard"))
    theirs = write(tmp_path / "base.jsonl", [{**row, "turns": ["The base says so."]} for row in rows_of("arena_hard")])
    how = ["judge", "arena-hard", "--answers", str(ours), "--model", "tuned", "--judge", "echo-comparer"]
    out = tmp_path / "out.jsonl"
    judged = nift_here(
        *how, "--baseline-answers", str(theirs), "--baseline", "base", "--out", str(out), environment=environment
    )
    assert judged.returncode == 0, judged.stderr
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert {line["baseline"] for line in lines} == {"base"}
    assert all("The base says so." in game["user_prompt"] for line in lines for game in line["games"])
    assert "demo-baseline" not in judged.stdout


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    with FaultServer(latency=0.02) as running:
        yield running


@pytest.fixture
def paid(server: FaultServer, environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """A study whose judge is asked at the local server, for money."""
    study = tmp_path / "paid.py"
    study.write_text(
        "from dataclasses import replace\n"
        "from nift_assets.studies import Judge, Price, load\n"
        f"judge = Judge(name='paid', provider='openai', model='m', base_url='http://127.0.0.1:{server.port}/v1',\n"
        "    key_variable='PAID_KEY', max_tokens=80, price=Price(input=10, output=1000, max_output=80))\n"
        "study = load('demo')\n"
        "STUDY = replace(study, name='paid', judges=(*study.judges, judge))\n"
    )
    return environment | {"NIFT_STUDY": str(study), "PAID_KEY": "sk-test-0123456789abcdef"}


def test_a_judge_that_costs_money_is_asked_under_a_cap_with_consent_and_never_twice(
    server: FaultServer, paid: dict[str, str], tmp_path: Path
) -> None:
    path = write(tmp_path / "mt_bench.jsonl", rows_of("mt_bench"))
    out = tmp_path / "out.jsonl"
    how = ["judge", "mt-bench", "--answers", str(path), "--model", "m", "--judge", "paid", "--out", str(out)]

    def answered() -> int:
        return sum(bill.status == 200 for bill in server.bills())

    for more, says in (
        ([], "paid costs money and nothing caps it; give --budget"),
        (["--budget", "9"], "nobody is there to agree to the price; give --yes"),
        (["--budget", "0.01", "--yes"], "over the cap: $0.01 are left; raise --budget"),
    ):
        refused = nift_here(*how, *more, environment=paid)
        assert refused.returncode == 1
        assert says in refused.stderr.splitlines()[-1]
    assert server.bills() == [], "nobody was asked"
    server.set(faults=[{"fault": "insufficient_quota", "from": 5}])
    stopped = nift_here(*how, "--budget", "9", "--yes", environment=paid)
    assert stopped.returncode == 5
    assert "what was answered is kept, the same command goes on" in stopped.stderr.splitlines()[-1]
    assert not out.exists()
    assert answered() == 5
    server.set(faults=[])
    whole = nift_here(*how, "--budget", "9", "--yes", environment=paid)
    assert whole.returncode == 0, whole.stderr
    assert "16 questions to paid, 11 still to ask: about $" in whole.stderr
    assert answered() == 16
    again = nift_here(*how, environment=paid)
    assert "all answered already, nothing to pay" in again.stderr
    assert answered() == 16
    spent = report.spent_and_reserved(Book(f"sqlite:///{paid['NIFT_WAREHOUSE']}/ledger.sqlite", look=True), "paid")
    assert 0 < spent["paid"] == spent[""] < 9e9
    # --budget is beside what the judge has cost already.
    more_answers = write(tmp_path / "more.jsonl", [{**row, "turns": ["Else.", "Else."]} for row in rows_of("mt_bench")])
    small = f"{spent['paid'] / 1e9 / 2:.4f}"
    refused = nift_here(*how[:3], str(more_answers), *how[4:], "--budget", small, "--yes", environment=paid)
    assert "over the cap: $" in refused.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["ifeval", "--answers", "{mt}", "--judge", "echo-rater"], "ifeval needs no judge"),
        (["mt-bench", "--answers", "{mt}", "--judge", "echo-rater"], "line 1 does not say whose answer it is"),
        (["mt-bench", "--answers", "nowhere", "--judge", "echo-rater"], "nowhere does not exist"),
        (["mt-bench", "--answers", "{mt}", "--model", "m", "--judge", "gpt-4"], "has no judge 'gpt-4'"),
        (["mt-bench", "--answers", "{mt}", "--model", "m", "--judge", "nobody:x"], "there is no provider 'nobody'"),
        (["mt-bench", "--answers", "{mt}", "--model", "m", "--judge", "local:pico"], "answers from what a study has"),
        (["mt-bench", "--answers", "{mt}", "--model", "m", "--judge", "echo:sing"], "echo has no model 'sing'"),
        (
            ["mt-bench", "--answers", "{mt}", "--model", "m", "--judge", "echo-rater", "--max-tokens", "9"],
            "which says its max_tokens",
        ),
        (["arena-hard", "--answers", "{mt}", "--model", "m", "--judge", "echo-rater"], "which is not among the"),
        (["mt-bench", "--answers", "{twice}", "--model", "m", "--judge", "echo-rater"], "for m again; leave one"),
        (["mt-bench", "--answers", "{long}", "--model", "m", "--judge", "echo-rater"], "has 3 turns, and 2 were asked"),
        (["mt-bench", "--answers", "{empty}", "--model", "m", "--judge", "echo-rater"], "there is no answer in"),
        (["mt-bench", "--answers", "{bad}", "--model", "m", "--judge", "echo-rater"], "neither turns nor choices"),
        (
            ["mt-bench", "--answers", "{mt}", "--model", "m", "--judge", "echo-rater", "--baseline-answers", "{mt}"],
            "MT-Bench compares with nobody's answers",
        ),
        (
            ["mt-bench", "--answers", "{mt}", "--model", "m", "--judge", "echo-rater", "--out", "{mt}"],
            "is what is judged; name another --out",
        ),
        (
            ["mt-bench", "--answers", "{mt}", "--model", "m", "--judge", "echo-rater", "--files", "{folder}/none"],
            "mt_bench has no such file",
        ),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    arguments: list[str], says: str, environment: dict[str, str], tmp_path: Path
) -> None:
    rows = rows_of("mt_bench")
    places = {
        "mt": write(tmp_path / "mt_bench.jsonl", rows),
        "twice": write(tmp_path / "twice.jsonl", [*rows, rows[0]]),
        "long": write(tmp_path / "long.jsonl", [{**rows[0], "turns": ["a", "b", "c"]}]),
        "empty": write(tmp_path / "empty.jsonl", []),
        "bad": write(tmp_path / "bad.jsonl", [{**rows[0], "turns": ["a", 5]}]),
        "folder": tmp_path,
    }
    out = ["--out", str(tmp_path / "out")] if "--out" not in arguments else []
    refused = nift_here("judge", *(argument.format(**places) for argument in arguments), *out, environment=environment)
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert says in refused.stderr.splitlines()[-1]
    assert refused.stderr.splitlines()[-1].startswith("error: ")
    assert not (tmp_path / "out").exists()
    assert places["mt"].read_text().count("\n") == len(rows)


@pytest.mark.slow
def test_the_path_by_hand_ends_in_a_score(environment: dict[str, str], tmp_path: Path) -> None:
    """The commands of the guide to training, with a tiny model, the demo's questions and its fake judge."""
    demo = PROJECT / "nift_assets" / "demo"
    question = demo / "benchmarks" / "mt_bench" / "question.jsonl"
    pairs = write(
        tmp_path / "pairs.jsonl", [{"prompt": f"The bridge {n}", "response": "is closed."} for n in range(16)]
    )

    def verb(name: str, *arguments: object) -> None:
        done = subprocess.run(
            [sys.executable, "-m", f"nift_training.{name}", *map(str, arguments)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    base, adapter, merged, answers = (tmp_path / name for name in ("base", "adapter", "merged", "answers"))
    verb("pico", "--out", base, "--articles", demo / "articles")
    verb("train", "--base", base, "--base-name", "pico", "--data", pairs, "--out", adapter)
    verb("merge", "--base", base, "--adapter", adapter, "--out", merged)
    verb(
        "evaluate", "--model", merged, "--template", "llama-3", "--mt-bench", question, "--mt-bench-tokens", 16,
        "--out", answers,
    )  # fmt: skip
    how = ["--answers", str(answers / "mt_bench.jsonl"), "--model", "mine", "--judge", "echo-rater"]
    judged = nift("judge", "mt-bench", *how, "--out", str(tmp_path / "judgments"), environment=environment)
    assert judged.returncode == 0, judged.stderr
    assert re.search(r"^mine +\d+\.\d\d .*\[\d+\.\d\d, \d+\.\d\d\]", judged.stdout, re.M)
    (judgments,) = (tmp_path / "judgments").rglob("*.jsonl")
    scored = nift(
        "score", "mt-bench", "--judgments", str(judgments), "--questions", str(question), environment=environment
    )
    assert [line.split()[:2] for line in scored.stdout.splitlines()[2:3]] == [
        line.split()[:2] for line in judged.stdout.splitlines()[2:3]
    ]
