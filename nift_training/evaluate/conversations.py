"""Answers of a model to the questions of MT-Bench, Arena-Hard or any other file, one row per question and run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nift_training import artifacts, json_objects, progress, templates
from nift_training.evaluate import generation
from nift_training.evaluate.generation import Generation, Generator

MT_BENCH = "mt-bench"
ARENA_HARD = "arena-hard"

# FastChat's llm_judge/common.py; a category it does not list is asked at 0.7.
TEMPERATURES = {
    "writing": 0.7,
    "roleplay": 0.7,
    "extraction": 0.0,
    "math": 0.0,
    "coding": 0.0,
    "reasoning": 0.0,
    "stem": 0.1,
    "humanities": 0.1,
}
UNLISTED_TEMPERATURE = 0.7


@dataclass(frozen=True, kw_only=True)
class BenchmarkQuestion:
    """One question: the texts of its turns and the temperature it is answered at."""

    id: str | int
    temperature: float
    turns: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Reply:
    """The answer to one turn: its text as the judge reads it, the tokens generated, and why it ended."""

    text: str
    tokens: int
    stopped: str


def read_questions(benchmark: str, path: Path) -> list[BenchmarkQuestion]:
    """The questions of a file in the benchmark's published layout; of any other benchmark see `any_question`."""
    rows = artifacts.read_rows(path)
    read = {MT_BENCH: _mt_bench, ARENA_HARD: _arena_hard}.get(benchmark, any_question)
    questions = [read(row, path) for row in rows]
    check_ids([question.id for question in questions], path)
    return questions


def check_ids(ids: Sequence[object], path: object) -> None:
    """Refuses two questions with one id: an answer could not be told from the other's, nor that of 1 from that of
    "1", which other tools write for each other."""
    seen: set[str] = set()
    for number, own in enumerate(ids, start=1):
        if isinstance(own, bool) or not isinstance(own, str | int) or (isinstance(own, int) and own.bit_length() > 63):
            raise ValueError(f"question {number} in {path} has the id {own!r:.60}: give it a text or a whole number")
        if str(own) in seen:
            raise ValueError(f"{path} has two questions with the id {own!r}: give each its own")
        seen.add(str(own))


def any_question(row: Mapping[str, Any], path: Path) -> BenchmarkQuestion:
    """A question of any file: an id (`question_id`, `uid` or `key`), `turns` of text or of `content`, or one `prompt`,
    and the `temperature` it is answered at, which is 0 where the file has none."""
    named = next((row[name] for name in ("question_id", "uid", "key") if name in row), None)
    turns = row["turns"] if "turns" in row else [row["prompt"]] if "prompt" in row else []
    texts = _texts(turns)
    if named is None or not texts:
        raise ValueError(f"a question in {path} needs question_id, uid or key, and turns or a prompt; it has {[*row]}")
    temperature = row.get("temperature", 0.0)
    if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not 0 <= temperature <= 100:
        raise ValueError(f"question {named!r} in {path} has the temperature {temperature!r}: give a number from 0 on")
    return BenchmarkQuestion(id=named, temperature=float(temperature), turns=texts)


def answers(
    generator: Generator,
    benchmark: str,
    template: str,
    questions: Sequence[BenchmarkQuestion],
    *,
    runs: int,
    max_new_tokens: int,
    seed: int,
    example: templates.OneShotExample | None = None,
    log: artifacts.RowLog | None = None,
) -> list[dict[str, Any]]:
    """One row per question and run, in that order; run `r` samples with the seed `seed + r`.

    FastChat seeds every question with 0, so that running it again samples the same answers: three runs of the
    paper need three seeds. A question at temperature 0 has one answer, which is generated once for all runs.
    What is in the log already is not asked again, and does not change what the rest is answered.
    """
    kept = {(row["question_id"], row["run"]): row for row in log.rows} if log else {}
    for temperature, run, batch in _batches(generator, questions, runs):
        greedy = temperature < generation.GREEDY_BELOW
        its_runs = range(runs) if greedy else [run]
        if all((question.id, run_number) in kept for question in batch for run_number in its_runs):
            continue
        replies = _converse(generator, benchmark, template, batch, temperature, max_new_tokens, seed + run, example)
        rows = [_row(asked, run_number, r) for asked, r in zip(batch, replies, strict=True) for run_number in its_runs]
        kept |= {(row["question_id"], row["run"]): row for row in rows}
        if log:
            log.keep(rows)
        progress.say(f"{benchmark}: {len(kept)} of {len(questions) * runs} answers (temperature {temperature})")
    return [kept[asked.id, run] for asked in questions for run in range(runs)]


def _batches(
    generator: Generator, questions: Sequence[BenchmarkQuestion], runs: int
) -> Iterator[tuple[float, int, list[BenchmarkQuestion]]]:
    """Questions that are answered together: of one temperature and similar length. Sampled answers depend on who
    shares a batch, so the batches are the same however much of them is already answered."""
    lengths = {question.id: len(generator.tokenizer(question.turns[0])["input_ids"]) for question in questions}
    for temperature in sorted({question.temperature for question in questions}):
        group = [question for question in questions if question.temperature == temperature]
        group.sort(key=lambda question: lengths[question.id])
        for run in range(1 if temperature < generation.GREEDY_BELOW else runs):
            for start in range(0, len(group), generation.BATCH):
                yield temperature, run, group[start : start + generation.BATCH]


def clean(generator: Generator, template: templates.Template, generation_: Generation) -> Reply:
    """The answer as MT-Bench shows it to the judge and to the model's next turn.

    FastChat's steps: cut at the first stop token (already done), cut at a stop string unless the answer begins
    with it, remove the strings of special tokens, strip.
    """
    text: str = generation_.marked or generator.tokenizer.decode(generation_.ids, skip_special_tokens=False)
    cuts = [place for stop in template.stop_strings if (place := text.find(stop)) > 0]
    text = text[: min(cuts, default=None)]
    for token in generator.tokenizer.all_special_tokens:
        text = text.replace(token, "")
    return Reply(text=text.strip(), tokens=generation_.tokens, stopped="stop" if cuts else generation_.stopped)


def _converse(
    generator: Generator,
    benchmark: str,
    template: str,
    questions: Sequence[BenchmarkQuestion],
    temperature: float,
    max_new_tokens: int,
    seed: int,
    example: templates.OneShotExample | None,
) -> list[list[Reply]]:
    replies: list[list[Reply]] = [[] for _ in questions]
    for turn in range(max(len(question.turns) for question in questions)):
        asked = [place for place, question in enumerate(questions) if turn < len(question.turns)]
        prompts = [templates.render(template, _turns(questions[place], replies[place]), example) for place in asked]
        if benchmark != MT_BENCH:  # FastChat's own prompts begin with two
            prompts = [generation.with_one_bos(generator, prompt) for prompt in prompts]
        generations = generation.generate(
            generator,
            prompts,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed,
            stop_tokens=templates.named(template).stop_tokens,
        )
        for place, reply in zip(asked, generations, strict=True):
            replies[place].append(clean(generator, templates.named(template), reply))
    return replies


def _turns(question: BenchmarkQuestion, replies: Sequence[Reply]) -> list[str]:
    texts = [text for asked, reply in zip(question.turns, replies, strict=False) for text in (asked, reply.text)]
    return [*texts, question.turns[len(replies)]]


def _mt_bench(row: Mapping[str, Any], path: Path) -> BenchmarkQuestion:
    turns, category = _published(row, path)
    temperature = TEMPERATURES.get(category, UNLISTED_TEMPERATURE)
    return BenchmarkQuestion(id=row["question_id"], temperature=temperature, turns=turns)


def _arena_hard(row: Mapping[str, Any], path: Path) -> BenchmarkQuestion:
    turns, _ = _published(row, path)
    return BenchmarkQuestion(id=row["question_id"], temperature=0.0, turns=turns[:1])


def _published(row: Mapping[str, Any], path: Path) -> tuple[tuple[str, ...], str]:
    """The turns and the category of a question in one of the published layouts."""
    if missing := {"question_id", "category", "turns"} - row.keys():
        raise ValueError(f"a question in {path} lacks {', '.join(sorted(missing))}: use the published layout")
    turns, category = _texts(row["turns"]), row["category"]
    if not turns or not isinstance(category, str):
        raise ValueError(
            f"question {row['question_id']!r} in {path} needs a category and turns, each a text or an object with a "
            "content: use the published layout"
        )
    return turns, category


def _texts(turns: object) -> tuple[str, ...]:
    """The texts of turns, plain or under `content`; none where one of them is no text that could be asked."""
    if not isinstance(turns, list):
        return ()
    texts: list[Any] = [turn.get("content") if isinstance(turn, Mapping) else turn for turn in turns]
    return tuple(texts) if all(map(json_objects.is_text, texts)) else ()


def _row(question: BenchmarkQuestion, run: int, replies: Sequence[Reply]) -> dict[str, Any]:
    return {
        "question_id": question.id,
        "run": run,
        "turns": [reply.text for reply in replies],
        "tokens": [reply.tokens for reply in replies],
        "stopped": [reply.stopped for reply in replies],
    }
