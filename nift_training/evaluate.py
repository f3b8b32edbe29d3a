"""A model's answers and scores on any of the four benchmarks, from one process that loads the weights once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from nift_training import answer, artifacts, generation, ifeval, leaderboard, templates, verbs


def main(argv: Sequence[str]) -> None:
    """Reads the command line and writes `mt_bench.jsonl`, `arena_hard.jsonl`, `ifeval.jsonl`, `leaderboard.jsonl`.

    Each file is written whole as soon as its benchmark is done.
    """
    parser = verbs.parser("evaluate", __doc__, "folder to write the files of the named benchmarks into")
    parser.add_argument("--model", required=True, help="model folder, or Hub repository")
    parser.add_argument("--revision", help="commit of a Hub repository")
    parser.add_argument("--template", required=True, help=f"one of {', '.join(templates.TEMPLATES)}")
    parser.add_argument("--mt-bench", type=Path, help="its question.jsonl")
    parser.add_argument("--mt-bench-runs", type=verbs.positive, default=1, help="answers per question, each its seed")
    parser.add_argument("--mt-bench-tokens", type=verbs.positive, default=1024, help="at most, per turn")
    parser.add_argument("--arena-hard", type=Path, help="its question.jsonl")
    parser.add_argument("--arena-hard-tokens", type=verbs.positive, default=4096, help="at most, per answer")
    parser.add_argument("--ifeval", type=Path, help="its input_data.jsonl")
    parser.add_argument("--ifeval-tokens", type=verbs.positive, default=1280, help="at most, per response")
    parser.add_argument("--tasks-folder", type=Path, help="folder of lm-eval task YAML files")
    parser.add_argument("--tasks", default="", help="name:shots of leaderboard tasks, separated by commas")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first MT-Bench run")
    parser.add_argument("--batch-size", type=verbs.positive, default=8, help="leaderboard requests per forward pass")
    parser.add_argument("--limit", type=verbs.positive, help="only the first so many samples of a leaderboard task")
    options = parser.parse_args(argv)

    # Everything a person may have got wrong is refused before the weights are loaded.
    artifacts.check_free(options.out)
    templates.render(options.template, ["?"])
    asked = {
        name: answer.read_questions(name, path)
        for name, path in ((answer.MT_BENCH, options.mt_bench), (answer.ARENA_HARD, options.arena_hard))
        if path
    }
    prompts = ifeval.read_prompts(options.ifeval) if options.ifeval else []
    tasks = leaderboard.read_tasks(options.tasks_folder, options.tasks) if options.tasks else []
    if not asked and not prompts and not tasks:
        raise ValueError("no benchmark is named: give --mt-bench, --arena-hard, --ifeval or --tasks")
    if tasks:
        leaderboard.stay_offline()
    verbs.use_threads(options.threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # lm-eval forks after the tokenizer has been used

    generator = generation.load(options.model, options.revision)
    for name, questions in asked.items():
        limits = {answer.MT_BENCH: options.mt_bench_tokens, answer.ARENA_HARD: options.arena_hard_tokens}
        rows = answer.answers(
            generator,
            name,
            options.template,
            questions,
            runs=options.mt_bench_runs if name == answer.MT_BENCH else 1,
            max_new_tokens=limits[name],
            seed=options.seed,
        )
        artifacts.write_rows(options.out / f"{name.replace('-', '_')}.jsonl", rows)
    if prompts:
        rows = ifeval.respond(generator, options.template, prompts, options.ifeval_tokens)
        artifacts.write_rows(options.out / "ifeval.jsonl", rows)
    if tasks:
        rows = leaderboard.score(generator, tasks, batch_size=options.batch_size, limit=options.limit)
        artifacts.write_rows(options.out / "leaderboard.jsonl", rows)


if __name__ == "__main__":
    verbs.run(main)
