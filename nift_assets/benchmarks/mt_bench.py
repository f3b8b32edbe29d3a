"""MT-Bench: two turns of 80 questions, each rated by a judge from 1 to 10.

The rules are those of FastChat's `llm_judge`; the judge's prompts are read from the benchmark's own file.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from nift_assets import providers
from nift_assets.benchmarks.scoring import answers as candidates
from nift_assets.benchmarks.scoring import files, json_lines, resampling, scores, verdicts
from nift_assets.benchmarks.scoring.answers import AnswerIndex, ModelAnswer
from nift_assets.benchmarks.scoring.files import PublishedFile
from nift_assets.benchmarks.scoring.interface import BenchmarkTable, Measure, Runner, ScoredFiles, Size
from nift_assets.benchmarks.scoring.scores import Measured
from nift_assets.protocol import Answer, Request
from nift_assets.rows import Benchmark, Judge

VERSION = 1
NAME = "mt_bench"
TITLE = "MT-Bench"
MEASURES = (Measure(name=NAME, title=TITLE, column="MT-Bench (1-10)", unit="mean rating, 1 to 10", limit=10, least=1),)
ASKED = "question.jsonl"
RUNNER: Runner = "conversations"
_FASTCHAT = "https://raw.githubusercontent.com/lm-sys/FastChat/{}/fastchat/llm_judge/data/"
PUBLISHED = (
    PublishedFile(
        path=ASKED,
        url=_FASTCHAT.format("589532dcfa83700f950b9aa3983416c543afabc0") + "mt_bench/question.jsonl",
        sha256="119565adbab82227089cefdb44c8d7e2cf04dc0a0ec233634c82e7d4e2a944f7",
    ),
    PublishedFile(
        path="judge_prompts.jsonl",
        url=_FASTCHAT.format("0e6e7fdc78bf64aceea1508694ce4e6472810b8b") + "judge_prompts.jsonl",
        sha256="fd283293406d024f44c174b094ef48031d0687a4682fd3a56b29b138f80281b6",
    ),
    PublishedFile(
        path="reference_answer/gpt-4.jsonl",
        url=_FASTCHAT.format("ae7cdfd1b823f0a7ed50b843963887a8b460c451") + "mt_bench/reference_answer/gpt-4.jsonl",
        sha256="f957a5bc977badb66885ec970e6cd08527845780313f0995764260e5777b9b3f",
    ),
)
# Measured on real judgments: 660 tokens and a system prompt in, 170 out.
SIZE = Size(questions=80, calls_per_question=2, input=(600, 840, 1_200), output=(140, 200, 300))

# Categories whose answers are judged beside a reference answer.
WITH_REFERENCE = ("math", "reasoning", "coding")
REFERENCES = "gpt-4.jsonl"
# Of the published benchmark, where no file says.
TURNS, QUESTIONS = 2, 80

# How the judge's prompts set off what the candidate wrote. What follows the first mark is the candidate's up to the
# last: an answer can hold such marks itself.
ANSWER = re.compile(r"\[The Start of Assistant's Answer\]\n(.*)\n\[The End of Assistant's Answer\]", re.DOTALL)
CONVERSATION = re.compile(r"<\|The Start of Assistant A's Conversation with User\|>(.*)", re.DOTALL)
LAST_TURN = re.compile(r".*\n### Assistant A:\n(.*?)\s*(?:<\|The End of Assistant A's Conversation.*)?", re.DOTALL)


def check(row: Benchmark) -> None:
    """A row needs its judge and nothing else."""


def options(row: Benchmark) -> Mapping[str, object]:
    """Its questions have the temperatures of their categories, which the runner knows. ValueError before anything is
    answered for questions that could not be judged."""
    files.taken(row, ASKED, take=_question)
    return {
        "mt_bench": files.path_of(row, ASKED),
        "mt_bench_runs": row.runs,
        "mt_bench_tokens": row.max_new_tokens,
    }


def questions(row: Benchmark) -> Iterator[tuple[str, str]]:
    """Every turn of every question, with the question's id; who only reads them needs nothing else of a question."""
    for question, turns in files.taken(row, ASKED, take=lambda q: (str(q["question_id"]), files.texts(q["turns"]))):
        yield from ((question, turn) for turn in turns)


def _question(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A question as it is needed: its id, its category, and its one or two turns."""
    turns = files.texts(row["turns"])
    if len(turns) > TURNS:
        raise TypeError(f"found {len(turns)} turns where {TURNS} are judged")
    return {"question_id": files.number(row["question_id"]), "category": files.text(row["category"]), "turns": turns}


def answers(row: Benchmark, model: str, rows: Sequence[Mapping[str, Any]]) -> BenchmarkTable:
    """One row per question × run × turn."""
    categories = {q["question_id"]: q["category"] for q in files.taken(row, ASKED, take=_question)}
    return BenchmarkTable(
        pl.DataFrame(
            {
                "model": model,
                "question_id": answer["question_id"],
                "category": categories[answer["question_id"]],
                "run": answer["run"],
                "turn": turn,
                "answer": text,
                "tokens": tokens,
                "stopped": stopped,
            }
            for answer in rows
            for turn, (text, tokens, stopped) in enumerate(
                zip(answer["turns"], answer["tokens"], answer["stopped"], strict=True), start=1
            )
        )
    )


# -- the judge ---------------------------------------------------------------------------------------------------------


def requests(row: Benchmark, judge: Judge, answers: pl.DataFrame) -> list[Request]:
    """One request per answer row (question × run × turn); the second turn is judged with the first before it."""
    questions = {q["question_id"]: q for q in files.taken(row, ASKED, take=_question)}
    prompts = dict(
        files.taken(
            row,
            "judge_prompts.jsonl",
            take=lambda p: (files.text(p["name"]), (files.text(p["system_prompt"]), files.text(p["prompt_template"]))),
        )
    )
    references = dict(
        files.taken(
            row,
            "reference_answer",
            REFERENCES,
            take=lambda r: (files.number(r["question_id"]), files.texts(r["choices"][0]["turns"])),
        )
    )
    first_turns = {
        (answer["question_id"], answer["run"]): answer["answer"]
        for answer in answers.filter(pl.col("turn") == 1).iter_rows(named=True)
    }
    return [
        _request(
            judge,
            prompts,
            questions[answer["question_id"]],
            [first_turns[answer["question_id"], answer["run"]], answer["answer"]],
            references.get(answer["question_id"], []),
            turn=answer["turn"],
            run=answer["run"],
        )
        for answer in answers.iter_rows(named=True)
    ]


def retries(requests: Sequence[Request], judged: Sequence[Answer]) -> Mapping[int, Request]:
    """FastChat asks nobody again who gave no rating."""
    return {}


def judgments(
    row: Benchmark,
    judge: Judge,
    answers: pl.DataFrame,
    requests: Sequence[Request],
    judged: Sequence[Answer],
    retried: Mapping[int, Answer],
) -> BenchmarkTable:
    """One row per answer row with the judge's rating, null where it gave none that counts."""
    readings = [
        verdicts.read_rating(a.text, answers=texts, prompt=_told(r))
        for texts, r, a in _judged(answers, requests, judged)
    ]
    frame = answers.select("model", "question_id", "category", "run", "turn").with_columns(
        pl.lit(judge.name).alias("judge"),
        pl.Series("status", [a.status for a in judged], dtype=pl.String),
        pl.Series("judgment", [a.text for a in judged], dtype=pl.String),
        pl.Series("rating", [t.rating for t in readings], dtype=pl.Float64),
        pl.Series("reading", [t.reading for t in readings], dtype=pl.String),
        pl.Series("published_rating", [rating(a.text) for a in judged], dtype=pl.Float64),
        pl.Series("request_key", [a.key for a in judged], dtype=pl.String),
    )
    return BenchmarkTable(frame, {"mean_rating": frame["rating"].mean(), "unrated": frame["rating"].null_count()})


def rating(judgment: str) -> float | None:
    """The rating as FastChat reads it, whoever wrote it: the first number in double brackets, else in single ones.

    FastChat stores -1 where this says None.
    """
    match = verdicts.RATING.search(judgment) or verdicts.BARE_RATING.search(judgment)
    return float(match[1]) if match else None


def _judged(
    answers: pl.DataFrame, requests: Sequence[Request], judged: Sequence[Answer]
) -> Iterator[tuple[tuple[str, ...], Request, Answer]]:
    """With each judgment the texts the candidate wrote in what the judge was shown."""
    turns: dict[tuple[Any, int], tuple[str, ...]] = {}
    for row in answers.sort("turn").iter_rows(named=True):
        place = row["question_id"], row["run"]
        turns[place] = (*turns.get(place, ()), row["answer"])
    for row, request, answer in zip(answers.iter_rows(named=True), requests, judged, strict=True):
        yield turns[row["question_id"], row["run"]], request, answer


def _told(request: Request) -> str:
    return "\n".join(message.content for message in request.messages)


def _request(
    judge: Judge,
    prompts: Mapping[str, tuple[str, str]],
    question: Mapping[str, Any],
    turns: Sequence[str],
    reference: Sequence[str],
    *,
    turn: int,
    run: int,
) -> Request:
    with_reference = question["category"] in WITH_REFERENCE
    name = _prompt_name(question["category"], turn)
    values = {
        "question": question["turns"][0],
        "answer": turns[0],
        **{f"question_{i}": text for i, text in enumerate(question["turns"], start=1)},
        **{f"answer_{i}": text for i, text in enumerate(turns, start=1)},
        **{f"ref_answer_{i}": text for i, text in enumerate(reference if with_reference else (), start=1)},
    }
    if name not in prompts:
        raise ValueError(f"judge_prompts.jsonl has no prompt {name}; use the published file")
    system, template = prompts[name]
    where = f"the judge's prompt {name} of question {question['question_id']}"
    return providers.request(judge, files.filled(template, where, **values), system=system, draw=run)


def _prompt_name(category: str, turn: int) -> str:
    """What FastChat calls the prompt that a judge is asked with."""
    return ("single-math-v1" if category in WITH_REFERENCE else "single-v1") + ("-multi-turn" if turn == 2 else "")


def published_judgments(
    row: Benchmark,
    judge: Judge,
    answers: pl.DataFrame,
    requests: Sequence[Request],
    judged: Sequence[Answer],
    retried: Mapping[int, Answer],
) -> Iterator[dict[str, Any]]:
    """The lines of FastChat's `gpt-4_single.jsonl`: one per answer row."""
    for answer, request, said in zip(answers.iter_rows(named=True), requests, judged, strict=True):
        score = rating(said.text)
        yield {
            "question_id": answer["question_id"],
            "model": answer["model"],
            "judge": [judge.name, _prompt_name(answer["category"], answer["turn"])],
            "user_prompt": request.messages[-1].content,
            "judgment": said.text,
            "score": -1 if score is None else int(score) if score.is_integer() else score,
            "turn": answer["turn"],
        }


def published_answer(model: str, question: Any, turns: Sequence[str], tokens: Sequence[int | None]) -> dict[str, Any]:
    """An answer as FastChat's files have it, which say nothing of tokens."""
    return {"question_id": question, "model_id": model, "choices": [{"index": 0, "turns": [*turns]}]}


# -- the score ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Rating:
    """One rating: `theirs` is what FastChat takes it for, `rating` what counts. `of_files` if the answer that was shown
    is the one in the files of answers. What was rated together is of one `source`: a run, or a file."""

    source: int
    model: str
    judge: str
    question: str
    turn: int
    theirs: float | None
    rating: float | None
    reading: str
    shown: bytes = b""
    of_files: bool = False

    @property
    def place(self) -> tuple[str, int]:
        return self.question, self.turn

    @property
    def counts(self) -> bool:
        return self.rating is not None


def score(model: str, results: pl.DataFrame) -> list[Measured]:
    """The mean rating from 1 to 10 over all turns of all questions, averaged over the runs."""
    columns = ("judge", "question_id", "run", "turn", "published_rating", "rating", "reading")
    ratings = [
        Rating(
            source=run,
            model=model,
            judge=judge,
            question=json_lines.identity(question),
            turn=turn,
            theirs=theirs,
            rating=rating,
            reading=reading,
        )
        for judge, question, run, turn, theirs, rating, reading in results.select(columns).iter_rows()
    ]
    runs = scores.grouped(ratings, lambda row: row.source)
    return [_measured(model, list(runs.values()), expected=results.height)]


def _measured(
    name: str,
    runs: Sequence[Sequence[Rating]],
    *,
    expected: int,
    question_ids: set[str] | None = None,
    index: AnswerIndex | None = None,
) -> Measured:
    """As FastChat's `show_result` averages one run, unrated rows being left out, and the mean of the runs that have any
    rating."""
    rows, model = [row for run in runs for row in run], runs[0][0].model
    once = [scores.once(run) for run in runs]
    counts = Counter(row.reading for row in rows if row.reading != "verdict")
    counts += sum((run.counts for run in once), Counter())
    counts["of no question"] = sum(question_ids is not None and row.question not in question_ids for row in rows)
    kept = [
        {p: rated.rating for p, rated in run.kept.items() if question_ids is None or p[0] in question_ids}
        for run in once
    ]
    theirs = [[row.theirs for row in run if row.theirs is not None and row.theirs != -1] for run in runs]
    together = [_turns_together(run) for run in kept]
    rated = [run for run in together if any(weight for _, weight in run.values())]
    counted = sum(rating is not None for run in kept for rating in run.values())
    sample = resampling.sample(rated or together[:1])
    several = index is not None and counts[scores.ANOTHER] and not index.has(model)
    return scores.resampled(
        name,
        NAME,
        sample,
        published=scores.mean(map(scores.mean, theirs)),
        questions=len(sample.questions),
        expected=max(expected, counted),
        missing=max(expected - counted, 0),
        parts={f"turn {turn}": scores.mean(_of_turn(kept, turn)) for turn in (1, 2)},
        counts={**counts, "runs": len(runs), **(index.flags(model) if index else {})},
        notes=(scores.OTHER_ANSWERS,) if several else (),
    )


def _turns_together(seen: Mapping[tuple[str, int], float | None]) -> dict[str, tuple[float, float]]:
    together: dict[str, tuple[float, float]] = {}
    for (question, _), rating in seen.items():
        points, weight = together.get(question, (0.0, 0.0))
        together[question] = (points, weight) if rating is None else (points + rating, weight + 1)
    return together


def _of_turn(runs: Sequence[Mapping[tuple[str, int], float | None]], turn: int) -> list[float | None]:
    return [scores.mean(rating for (_, t), rating in seen.items() if t == turn) for seen in runs]


# -- other tools' files ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class PublishedJudgment:
    """One rating of MT-Bench: `score` is what the file says, -1 for none; each file is one `source`."""

    source: int
    model: str
    question: str
    turn: int
    judge: str
    score: float | None
    judgment: str | None
    prompt: str


def read(inputs: ScoredFiles) -> list[Measured]:
    """The scores of files of FastChat's `gen_judgment.py`."""
    if not inputs.judgments:
        raise ValueError("no judgments are named; give --judgments, a file or folder of mt-bench judgments")
    question_ids = files.ids_of(inputs.questions) if inputs.questions else None
    return of_files(judged_in(inputs.judgments), candidates.read(inputs.answers), question_ids)


def of_files(
    judgments: Iterable[PublishedJudgment], answers: Iterable[ModelAnswer] = (), questions: Sequence[Any] | None = None
) -> list[Measured]:
    """One score per model, with several judges per model and judge: the mean over its runs. A file is a run; one that
    has nothing another has is part of the same run."""
    index, question_ids = AnswerIndex(answers), scores.identities(questions)
    ratings = [rating_of(row, index) for row in judgments]
    measured = []
    for name, rows in scores.named(ratings).items():
        runs = _runs(rows)
        expected = len(runs) * TURNS * (QUESTIONS if question_ids is None else len(question_ids))
        measured.append(_measured(name, runs, expected=expected, question_ids=question_ids, index=index))
    return measured


def judged_in(paths: Sequence[Path]) -> Iterator[PublishedJudgment]:
    """The ratings in files of FastChat's `gen_judgment.py`, one per line; of a folder without its `_pair.jsonl`."""
    for source, path, number, row in json_lines.lines(_singles(paths)):
        if "g1_winner" in row:
            raise ValueError(f"{path} line {number} compares two models; give a file of single ratings (gpt-4_single)")
        json_lines.require(row, ("question_id", "model", "score", "turn"), path, number)
        if (turn := json_lines.integer_of(row["turn"])) not in (1, 2):
            raise ValueError(f"{path} line {number} has the turn {row['turn']!r}; it is 1 or 2")
        score = json_lines.number_of(row["score"])
        if row["score"] is not None and (score is None or math.isinf(score)):
            raise ValueError(f"{path} line {number} has the score {row['score']!r:.60}; write it as a number, or null")
        yield PublishedJudgment(
            source=source,
            model=str(row["model"]),
            question=json_lines.identity(row["question_id"]),
            turn=turn,
            judge=json_lines.judge_of(row.get("judge")),
            score=score,
            judgment=json_lines.text_of(row.get("judgment")),
            prompt=json_lines.text_of(row.get("user_prompt")) or "",
        )


def rating_of(row: PublishedJudgment, index: AnswerIndex) -> Rating:
    """The rating that counts: read from the judge's own words where the file has them, else what the file says."""
    shown = _candidate(row.prompt)
    if shown:
        index.show(row.model, row.question, row.turn, shown[-1])
    turns = index.turns(row.model, row.question)
    value, reading = _rated(row, [*turns, *shown])
    return Rating(
        source=row.source,
        model=row.model,
        judge=row.judge,
        question=row.question,
        turn=row.turn,
        theirs=None if row.score is None or math.isnan(row.score) else row.score,
        rating=value,
        reading=reading,
        shown=candidates.digest_of(row.prompt),
        of_files=len(turns) >= row.turn and turns[row.turn - 1].strip() in row.prompt,
    )


def _runs(rows: Sequence[Rating]) -> list[list[Rating]]:
    """The rows of each run: those of a file, together with those of files that have other questions or turns."""
    runs: list[tuple[set[tuple[str, int]], list[Rating]]] = []
    for of_file in scores.grouped(rows, lambda row: row.source).values():
        places = {(row.question, row.turn) for row in of_file}
        run = next((run for run in runs if not run[0] & places), None)
        if run is None:
            runs.append((places, of_file))
        else:
            run[0].update(places)
            run[1].extend(of_file)
    return [run for _, run in runs]


def _singles(paths: Sequence[Path]) -> list[Path]:
    """The files of MT-Bench's single ratings: a folder of judgments may also have those that compare two models."""
    single: list[Path] = []
    for path in paths:
        inside = json_lines.files([path])
        single += [p for p in inside if not p.stem.endswith("_pair")] or inside if path.is_dir() else inside
    return single


def _rated(row: PublishedJudgment, answers: Sequence[str]) -> tuple[float | None, str]:
    if row.judgment is None:
        usable = row.score is not None and verdicts.LOWEST <= row.score <= verdicts.HIGHEST
        missing = "none" if row.score is None or row.score == -1 or math.isnan(row.score) else "out_of_range"
        return (row.score, "verdict") if usable else (None, missing)
    # The instruction is what stands before the question: what follows are texts of others.
    read = verdicts.read_rating(row.judgment, answers=answers, prompt=row.prompt.partition("[Question]")[0])
    return read.rating, read.reading


def _candidate(prompt: str) -> tuple[str, ...]:
    """What the candidate wrote in a prompt of MT-Bench: the answer, or the conversation and its last answer."""
    if match := ANSWER.search(prompt):
        return (match[1],)
    if match := CONVERSATION.search(prompt):
        last = LAST_TURN.fullmatch(match[1])
        return (match[1], last[1]) if last else (match[1],)
    return ()
