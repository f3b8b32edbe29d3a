"""A model's answers and scores on any of the benchmarks, from one process that loads the weights once."""

from __future__ import annotations

import os
import re
from argparse import ArgumentTypeError, Namespace
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nift_training import artifacts, templates, verbs
from nift_training.evaluate import conversations, generation, ifeval, leaderboard, serving

# What else is written beside the files of named questions.
OWN_FILES = ("mt_bench", "arena_hard", "ifeval", "leaderboard")


def main(argv: Sequence[str]) -> None:
    """Reads the command line and writes `mt_bench.jsonl`, `arena_hard.jsonl`, `ifeval.jsonl`, `leaderboard.jsonl`, and
    `NAME.jsonl` for each file of questions that is named.

    Each file is written whole as soon as its benchmark is done, and what a stopped run had answered until then is kept
    beside it: the same command goes on from there.
    """
    parser = verbs.parser("evaluate", __doc__, "folder to write the files of the named benchmarks into")
    parser.add_argument("--model", required=True, help="model folder, or Hub repository")
    parser.add_argument("--revision", help="commit of a Hub repository")
    parser.add_argument("--template", required=True, help=f"one of {', '.join(templates.TEMPLATES)}")
    parser.add_argument("--example", type=Path, help="one_shot's question and answer, a JSON file with two messages")
    parser.add_argument("--mt-bench", type=Path, help="its question.jsonl")
    parser.add_argument("--mt-bench-runs", type=verbs.positive, default=1, help="answers per question, each its seed")
    parser.add_argument("--mt-bench-tokens", type=verbs.positive, default=1024, help="at most, per turn")
    parser.add_argument("--arena-hard", type=Path, help="its question.jsonl")
    parser.add_argument("--arena-hard-tokens", type=verbs.positive, default=4096, help="at most, per answer")
    several: dict[str, Any] = {"action": "append", "default": []}
    parser.add_argument("--questions", type=_file, **several, help="NAME=FILE: any other questions, repeatable")
    parser.add_argument("--runs", type=_number, **several, help="NAME=NUMBER: answers per question of such a file")
    parser.add_argument("--tokens", type=_number, **several, help="NAME=NUMBER: at most per turn, 1024 if not told")
    parser.add_argument("--ifeval", type=Path, help="its input_data.jsonl")
    parser.add_argument("--ifeval-tokens", type=verbs.positive, default=1280, help="at most, per response")
    parser.add_argument(
        "--tasks-folder",
        type=Path,
        help="folder of lm-eval task YAML files, or of data files per task; without it data is from the Hub",
    )
    parser.add_argument("--tasks", default="", help="name:shots of leaderboard tasks, separated by commas")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first MT-Bench run")
    parser.add_argument("--batch-size", type=verbs.positive, default=8, help="leaderboard requests per forward pass")
    parser.add_argument("--limit", type=verbs.positive, help="only the first so many samples of a leaderboard task")
    parser.add_argument("--server", help="OpenAI-compatible server that answers, such as http://localhost:8000/v1")
    parser.add_argument("--server-model", help="what the server calls the model")
    parser.add_argument("--server-key-variable", help="environment variable with the server's key")
    parser.add_argument("--server-adapter", type=Path, help="adapter to load into a server that serves its base")
    options = parser.parse_args(argv)

    # Everything a person may have got wrong is refused before the weights are loaded.
    example = templates.read_example(options.example) if options.example else None
    templates.render(options.template, ["?"], example)
    asked = _asked(options)
    prompts = ifeval.read_prompts(options.ifeval) if options.ifeval else []
    tasks = leaderboard.read_tasks(options.tasks_folder, options.tasks) if options.tasks else []
    if not asked and not prompts and not tasks:
        raise ValueError("no benchmark is named: give --mt-bench, --arena-hard, --questions, --ifeval or --tasks")
    ifeval.check_ready(prompts)
    if tasks and options.tasks_folder:
        leaderboard.stay_offline()
    verbs.use_threads(options.threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # lm-eval forks after the tokenizer has been used

    generator = _generator(options)
    same = {"template": options.template, "example": example, "version": version("nift")}

    def log(name: str, by: generation.Generator, **settings: object) -> artifacts.RowLog:
        return artifacts.RowLog(options.out / f"{name}.jsonl", {"model": _who(options, by), **same, **settings})

    for run in asked:
        kept = log(
            run.name.replace("-", "_"),
            generator,
            questions=artifacts.digest_of([asdict(question) for question in run.questions]),
            runs=run.runs,
            tokens=run.tokens,
            seed=options.seed,
        )
        if not kept.done:
            rows = conversations.answers(
                generator,
                run.name,
                options.template,
                run.questions,
                runs=run.runs,
                max_new_tokens=run.tokens,
                seed=options.seed,
                example=example,
                log=kept,
            )
            kept.finish(rows)
    if prompts:
        kept = log("ifeval", generator, prompts=artifacts.digest_of(prompts), tokens=options.ifeval_tokens)
        if not kept.done:
            kept.finish(
                ifeval.respond(generator, options.template, prompts, options.ifeval_tokens, example=example, log=kept)
            )
    if tasks:
        # It needs probabilities, which a server does not give.
        weights = generation.load(options.model, options.revision) if options.server else generator
        kept = log("leaderboard", weights, tasks=options.tasks, limit=options.limit)
        if not kept.done:
            rows = leaderboard.score(
                weights, tasks, batch_size=options.batch_size, limit=options.limit, cache=options.out
            )
            kept.finish(leaderboard.mean_of_subjects(rows))


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """The questions of a benchmark that is answered in words, and how they are."""

    name: str
    questions: Sequence[conversations.BenchmarkQuestion]
    runs: int
    tokens: int


def _asked(options: Namespace) -> list[_Asked]:
    """What is to be answered in words; ValueError for a limit of questions that are not asked."""
    files, runs, tokens = dict(options.questions), dict(options.runs), dict(options.tokens)
    if unknown := sorted({*runs, *tokens} - {*files}):
        raise ValueError(f"there are no questions {unknown[0]!r}; give --questions {unknown[0]}=FILE")
    chosen = [
        (conversations.MT_BENCH, options.mt_bench, options.mt_bench_runs, options.mt_bench_tokens),
        (conversations.ARENA_HARD, options.arena_hard, 1, options.arena_hard_tokens),
        *((name, path, runs.get(name, 1), tokens.get(name, 1024)) for name, path in files.items()),
    ]
    return [
        _Asked(name=name, questions=conversations.read_questions(name, path), runs=number, tokens=limit)
        for name, path, number, limit in chosen
        if path
    ]


def _file(text: str) -> tuple[str, Path]:
    """NAME=FILE, where what is answered becomes NAME.jsonl."""
    name, _, path = text.partition("=")
    if not re.fullmatch("[a-z0-9_]+", name) or name in OWN_FILES or not path:
        raise ArgumentTypeError(f"{text} is not NAME=FILE with a name of a-z 0-9 _ that is none of {OWN_FILES}")
    return name, Path(path)


def _number(text: str) -> tuple[str, int]:
    """NAME=NUMBER."""
    name, _, number = text.partition("=")
    if not number.isdecimal():
        raise ArgumentTypeError(f"{text} is not NAME=NUMBER")
    return name, verbs.positive(number)


def _who(options: Namespace, by: generation.Generator) -> object:
    """Who answers, so that no file holds the answers of two: a folder without a manifest is known by its path alone."""
    if isinstance(by.model, serving.ModelServer):
        adapter = options.server_adapter and artifacts.verified_digest(options.server_adapter)
        return {"server": by.model.url, "model": by.model.model, "adapter": adapter}
    return by.digest or [str(options.model), options.revision]


def _generator(options: Namespace) -> generation.Generator:
    """Whoever answers: the server that is named, else the weights on this machine."""
    if not options.server:
        return generation.load(options.model, options.revision)
    if not options.server_model:
        raise ValueError(f"what does {options.server} call the model? Give --server-model")
    server = serving.ModelServer(
        url=options.server, model=options.server_model, key_variable=options.server_key_variable
    )
    serving.connect(server, options.server_adapter)
    return generation.served(options.model, server, options.revision)


if __name__ == "__main__":
    verbs.run(main)
