"""IFBench: 300 prompts with 344 constraints of 58 kinds, none of them IFEval's, that a program checks.

The paper (arXiv 2507.02833) reports prompt-level loose accuracy of greedy answers. The verdicts are those of the
authors' checker as of August 2026, with the NLTK that is installed, whatever it says; a response at which it ends with
an exception follows nothing. Arguments that a prompt leaves open it draws at random, for each reading anew. Here the
prompt's key seeds them, so that no verdict depends on the rows around it; the published prompts leave none open.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from inspect import signature
from random import Random
from typing import Any, get_type_hints

import polars as pl

from nift_assets.benchmarks.scoring import constraints, files, instructions
from nift_assets.benchmarks.scoring.constraints import CONSTRAINTS, Arguments, Constraint
from nift_assets.benchmarks.scoring.files import PublishedFile
from nift_assets.benchmarks.scoring.interface import BenchmarkTable, Measure, Runner, ScoredFiles
from nift_assets.benchmarks.scoring.scores import Measured
from nift_assets.rows import Benchmark

VERSION = 1
NAME = "ifbench"
TITLE = "IFBench"
MEASURES = (
    Measure(
        name=NAME,
        title=TITLE,
        column="IFBench (%)",
        unit="prompt-level loose accuracy, in percent",
        limit=100,
    ),
)
RULE = instructions.Rule(levels=("prompt",), strictness="loose")
ASKED = "IFBench_test.jsonl"
# No argument is larger: it counts words of a response, or is their share in percent.
MOST = 10**9
RUNNER: Runner = "conversations"
PUBLISHED = (
    PublishedFile(
        path=ASKED,
        url="https://raw.githubusercontent.com/allenai/IFBench/"
        "db69a6f05689830b0068b8f1529ebcfd2f3b164c/data/IFBench_test.jsonl",
        sha256="a2bf7b8e7ed11d39c65b4ec781da8b99663ed0121f97033d70fcecb61f8a9d85",
    ),
)


def check(row: Benchmark) -> None:
    """ValueError for a row with several runs."""
    if row.runs != 1:
        raise ValueError(f"benchmark {row.name!r} is answered greedily, which is one run; leave runs out")


def options(row: Benchmark) -> Mapping[str, object]:
    """What the runner is told; ValueError before anything is answered if the answers could not be checked."""
    check_ready(_prompts(row))
    return files.options(row, ASKED)


def questions(row: Benchmark) -> Iterator[tuple[str, str]]:
    """Every prompt with its key."""
    yield from files.taken(row, ASKED, take=lambda prompt: (str(prompt["key"]), files.text(prompt["prompt"])))


def answers(row: Benchmark, model: str, rows: Sequence[Mapping[str, Any]]) -> BenchmarkTable:
    """One row per prompt, with the verdict on each of its constraints."""
    said = {each["question_id"]: each for each in rows}
    asked = [{**prompt, "response": said[prompt["key"]]["turns"][0]} for prompt in _prompts(row)]
    made = [
        {
            "key": str(prompt["key"]),
            "response": prompt["response"],
            "tokens": said[prompt["key"]]["tokens"][0],
            "stopped": said[prompt["key"]]["stopped"][0],
            "instruction_ids": prompt["instruction_id_list"],
            **verdict,
        }
        for prompt, verdict in zip(asked, verdicts(asked), strict=True)
    ]
    return instructions.table(model, made)


def score(model: str, results: pl.DataFrame) -> list[Measured]:
    """The share of prompts all of whose constraints are followed, loosely taken, in percent."""
    return [instructions.of_table(model, NAME, results, RULE)]


def read(inputs: ScoredFiles) -> list[Measured]:
    """The scores of files of responses; to the published tool a prompt without a response is one not followed."""
    if not inputs.answers or inputs.questions is None:
        raise ValueError(
            f"IFBench is scored from --answers and --questions, the published {ASKED}; or set NIFT_BENCHMARKS to the "
            f"folder that has ifbench/{ASKED}"
        )
    from nift_training.evaluate import ifeval

    prompts = ifeval.read_prompts(inputs.questions)
    # As the published tool has it, white space around a prompt tells nothing apart.
    known = {row["prompt"].strip(): row["prompt"] for row in prompts}
    responses = {
        model: {known.get(prompt.strip(), prompt): text for prompt, text in said.items()}
        for model, said in instructions.responses(inputs.answers).items()
    }
    found = instructions.of_files(NAME, responses, prompts, verdicts, RULE)
    return [replace(one, published=100 * one.counts["prompts followed"] / one.expected) for one in found]


def _prompts(row: Benchmark) -> list[dict[str, Any]]:
    from nift_training.evaluate import ifeval

    return ifeval.read_prompts(files.path_of(row, ASKED))


# -- verdicts ----------------------------------------------------------------------------------------------------------


def verdicts(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, list[bool]]]:
    """For each row with a `response`: `strict` and `loose`, one verdict per constraint."""
    check_ready(rows)
    return [_verdict(row) for row in rows]


def _verdict(row: Mapping[str, Any]) -> dict[str, list[bool]]:
    asked, readings = _asked(row), _readings(row["response"])
    return {
        "strict": [_follows(constraint, row["response"], given) for constraint, given in asked],
        "loose": [any(_follows(constraint, text, given) for text in readings) for constraint, given in asked],
    }


def _follows(constraint: Constraint, response: str, given: Arguments) -> bool:
    return bool(response.strip()) and constraint.follows(response, **given)


def _readings(response: str) -> list[str]:
    """The response without its first line, its last, both or neither, each with its asterisks and without."""
    lines = response.split("\n")
    less = [response, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return list(dict.fromkeys(text for each in less for text in (each, each.replace("*", ""))))


def _asked(row: Mapping[str, Any]) -> list[tuple[Constraint, Arguments]]:
    named = zip(row["instruction_id_list"], row["kwargs"], strict=True)  # as many of both, says who has read the file
    return [(_known(row, name), _arguments(row, place, name, its)) for place, (name, its) in enumerate(named)]


def _known(row: Mapping[str, Any], name: str) -> Constraint:
    if name not in CONSTRAINTS:
        raise ValueError(
            f"prompt {row['key']} has the constraint {name!r}, which IFBench does not know; use one of its "
            f"{len(CONSTRAINTS)}, such as {next(iter(CONSTRAINTS))}"
        )
    return CONSTRAINTS[name]


def _arguments(row: Mapping[str, Any], place: int, name: str, given: Arguments) -> Arguments:
    """What the check takes of a constraint's arguments, with those drawn that are open."""
    constraint, draw, found = _known(row, name), Random(f"{row['key']} {place}"), dict[str, Any]()
    kinds = get_type_hints(constraint.follows)
    for each in list(signature(constraint.follows).parameters)[1:]:
        found[each] = given.get(each)
        if found[each] is not None and not _fits(found[each], kinds[each]):
            kind = {str: "a text", int: "a whole number", float: "a number"}[kinds[each]]
            raise ValueError(
                f"prompt {row['key']} gives {name} the {each} {found[each]!r}, which is not {kind}; use the published "
                "layout"
            )
        if _is_open(each, found[each]):
            if each not in constraint.drawn:
                raise ValueError(f"prompt {row['key']} gives {name} no {each}; use the published layout")
            found[each] = constraint.drawn[each](draw, found)
    return found


def _fits(value: object, kind: type) -> bool:
    if kind is str or isinstance(value, bool) or not isinstance(value, int | float):
        return kind is str and isinstance(value, str)
    return abs(value) < MOST if kind is float else isinstance(value, int) and abs(value) < MOST


def _is_open(name: str, value: object) -> bool:
    """A count below zero is open too, and so is place 0 of a sentence or word."""
    return value in (None, "") or (isinstance(value, int | float) and value < (1 if name in ("n", "m") else 0))


def check_ready(prompts: Sequence[Mapping[str, Any]]) -> None:
    """ValueError for prompts that nobody could check: a constraint that is not known, an argument that is missing, or
    something that a check needs and that is not there."""
    first = {name: row for row in reversed(prompts) for name in row["instruction_id_list"]}
    for name, row in first.items():
        for need in _known(row, name).needs:
            if remedy := _remedy(need):
                raise ValueError(f"prompt {row['key']} has {name}, whose check needs {remedy}")
    for row in prompts:
        _asked(row)


def _remedy(need: str) -> str | None:
    """What to do where something that a check needs is not there."""
    package = constraints.NLTK if "/" in need else need
    if importlib.util.find_spec(package) is None:
        return f"the package {package}: run `pip install -c constraints.txt '.[evaluate]'`"
    if need == package:
        return None
    import nltk

    try:
        nltk.data.find(need)
    except LookupError:
        return REMEDIES[need]
    return None


REMEDIES = {
    constraints.PUNKT: "NLTK's sentence tokenizer: run `python -m nift_training.sentences --out ~/nltk_data` once, or "
    "set NLTK_DATA to the folder that has it",
    constraints.TAGGER: "NLTK's tagger: run `python -m nltk.downloader averaged_perceptron_tagger_eng` once, or set "
    "NLTK_DATA to the folder that has it",
}
