"""A model's responses to the IFEval prompts and the verdict on every instruction, one row per prompt."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from nift_training import artifacts, json_objects, progress, templates
from nift_training.evaluate import conversations, generation
from nift_training.evaluate.generation import Generator

PROMPT_COLUMNS = {"key", "prompt", "instruction_id_list", "kwargs"}


PUNKT = "run `python -m nift_training.sentences --out ~/nltk_data` once, or set NLTK_DATA to the folder that has it"
# Whose checks cut a response into sentences or words with it.
NEED_SENTENCES = {"length_constraints:number_sentences", "change_case:capital_word_frequency"}


def read_prompts(path: Path) -> list[dict[str, Any]]:
    """The prompts of a file in the layout of the published `input_data.jsonl`."""
    prompts = artifacts.read_rows(path)
    for row in prompts:
        if missing := PROMPT_COLUMNS - row.keys():
            raise ValueError(f"a prompt in {path} lacks {', '.join(sorted(missing))}: use the published layout")
        _check_layout(row, path)
    conversations.check_ids([row["key"] for row in prompts], path)
    return prompts


def _check_layout(row: Mapping[str, Any], path: Path) -> None:
    """Refuses a prompt that is no text, or whose instructions have no arguments of their own each."""
    names, arguments = row["instruction_id_list"], row["kwargs"]
    lists = isinstance(names, list) and isinstance(arguments, list) and len(names) == len(arguments)
    if (
        not (lists and names)
        or not json_objects.is_text(row["prompt"])
        or not all(isinstance(name, str) for name in names)
        or not all(isinstance(each, Mapping) for each in arguments)
    ):
        raise ValueError(
            f"prompt {row['key']!r} in {path} needs a text, a list of instructions and the kwargs of each: use the "
            "published layout"
        )


def respond(
    generator: Generator,
    template: str,
    prompts: Sequence[Mapping[str, Any]],
    max_new_tokens: int,
    *,
    example: templates.OneShotExample | None = None,
    log: artifacts.RowLog | None = None,
) -> list[dict[str, Any]]:
    """One checked row per prompt: its greedy response, how it ended, and the verdict on each instruction.

    A response that is in the log already is not asked for again.
    """
    conversations.check_ids([row["key"] for row in prompts], "the file of prompts")
    kept = {row["key"]: row for row in log.rows} if log else {}
    texts = {
        row["key"]: generation.with_one_bos(generator, templates.render(template, [row["prompt"]], example))
        for row in prompts
    }
    waiting = sorted((key for key in texts if key not in kept), key=lambda key: len(texts[key]))
    stop_tokens = templates.named(template).stop_tokens
    for start in range(0, len(waiting), generation.BATCH):
        batch = waiting[start : start + generation.BATCH]
        generations = generation.generate(
            generator, [texts[key] for key in batch], max_new_tokens=max_new_tokens, stop_tokens=stop_tokens
        )
        rows = [
            {"key": key, "response": reply.text, "tokens": reply.tokens, "stopped": reply.stopped}
            for key, reply in zip(batch, generations, strict=True)
        ]
        kept |= {row["key"]: row for row in rows}
        if log:
            log.keep(rows)
        progress.say(f"ifeval: {len(kept)} of {len(prompts)} responses")
    verdicts = check([{**row, "response": kept[row["key"]]["response"]} for row in prompts])
    return [
        {**kept[row["key"]], "instruction_ids": row["instruction_id_list"], **verdict}
        for row, verdict in zip(prompts, verdicts, strict=True)
    ]


def check_ready(prompts: Sequence[Mapping[str, Any]]) -> None:
    """ValueError if prompts need NLTK's sentence tokenizer and it is not there: said before hours of answering."""
    if any(name.removeprefix("en:") in NEED_SENTENCES for row in prompts for name in row["instruction_id_list"]):
        import nltk

        try:
            nltk.data.find("tokenizers/punkt_tab/english/")
        except LookupError:
            raise ValueError(f"IFEval needs NLTK's sentence tokenizer: {PUNKT}") from None


def check(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, list[bool]]]:
    """For each row with a `response`: `strict` and `loose`, one verdict per instruction, by lm-eval's own checker.

    The checker draws at random (language detection, arguments a prompt leaves open, a letter where one asks for `#`),
    so it is seeded before each reading of a row: a verdict does not depend on the rows before it. Loose takes the best
    of eight readings, without first or last line or asterisks.
    """
    with _sentence_tokenizer():
        from langdetect import DetectorFactory
        from lm_eval.tasks.ifeval import instructions_registry
        from lm_eval.tasks.ifeval import utils as checker

        DetectorFactory.seed = 0
        return [_check_one(checker, instructions_registry.INSTRUCTION_DICT, row) for row in rows]


def _check_one(checker: Any, instructions: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, list[bool]]:
    # One published edition of the prompts writes the language in front of every instruction.
    instruction_ids = [name.removeprefix("en:") for name in row["instruction_id_list"]]
    for name in instruction_ids:
        if name not in instructions:
            raise ValueError(f"prompt {row['key']} has the instruction {name!r}, which lm-eval does not know")
    asked = checker.InputExample(row["key"], instruction_ids, row["prompt"], row["kwargs"])
    try:
        random.seed(0)
        strict = checker.test_instruction_following_strict(asked, row["response"])
        random.seed(0)
        loose = checker.test_instruction_following_loose(asked, row["response"])
    except Exception as mistake:  # whatever a checker makes of arguments it does not expect
        if isinstance(mistake, LookupError) and "punkt" in str(mistake):
            raise ValueError(f"prompt {row['key']} needs NLTK's sentence tokenizer: {PUNKT}") from None
        raise ValueError(
            f"prompt {row['key']} cannot be checked with its kwargs ({type(mistake).__name__}: {mistake}): use the "
            "published file"
        ) from None
    return {"strict": strict.follow_instruction_list, "loose": loose.follow_instruction_list}


@contextmanager
def _sentence_tokenizer() -> Iterator[None]:
    """Lets lm-eval's checker be imported without punkt_tab, which it would otherwise download."""
    import nltk

    with TemporaryDirectory() as placeholder:
        (Path(placeholder) / "tokenizers" / "punkt_tab").mkdir(parents=True)
        # Last, so that a real punkt_tab is found first; and gone afterwards.
        nltk.data.path.append(placeholder)
        try:
            yield
        finally:
            nltk.data.path.remove(placeholder)
