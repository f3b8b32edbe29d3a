"""The file of a new study: its rows, and as comments what was found of each; short, and a person's own from then on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from nift_assets import providers
from nift_assets.new_study.backbone import BackboneLook
from nift_assets.new_study.corpus import CorpusLook
from nift_assets.rows import Judge, LanguageModel, Teacher
from nift_assets.study import SAFE_NAME
from nift_training.messages import one_line

# A benchmark of the paper is taken with the row that the paper's study has for it.
PAPERS = ("mt_bench", "arena_hard", "ifeval", "open_llm_leaderboard")
JUDGED = ("mt_bench", "arena_hard")
# The paper's batches are of 256 pairs; of fewer documents than this they would be a few dozen steps.
ENOUGH_FOR_PAPERS_BATCHES, SMALL_BATCH = 20_000, 32
# What a local model or a server writes at most, where nobody has said more.
MAX_TOKENS = 1024
# OpenAI's models that take no temperature and call their limit otherwise.
REASONING = re.compile(r"(gpt-5|o\d)")


@dataclass(frozen=True, kw_only=True)
class StudyDraft:
    """All that goes into a study file: what was asked for, and what was found, in words."""

    name: str
    corpus: CorpusLook
    corpus_lines: Sequence[str]
    documents: int
    teacher: Teacher
    teacher_lines: Sequence[str] = ()
    backbone: BackboneLook | None = None
    backbone_lines: Sequence[str] = ()
    benchmarks: Sequence[str] = ()
    judge: Judge | None = None
    budget_usd: float | None = None


def suggestion(name: str) -> str:
    """The nearest name that can be a study's, a folder's and a repository's at once."""
    return re.sub(r"[^a-z0-9_-]+", "_", name.lower()).strip("_-")[:48] or "my_study"


def check_name(name: str) -> None:
    """ValueError, with a suggestion, for a name that is no study's."""
    if not SAFE_NAME.fullmatch(name) or not re.match("[a-z0-9]", name):
        raise ValueError(
            f"the name {name!r} cannot be a study's, a folder's and a repository's at once; use {suggestion(name)!r}"
        )


def row_name(model: str) -> str:
    """What a row is called after its model: the last part of the model's name, in characters that a row may have."""
    return re.sub(r"[^a-z0-9._-]+", "-", model.lower().rstrip("/").rpartition("/")[2]).strip("-._")[:96] or "model"


def asked(
    kind: type[Teacher] | type[Judge],
    provider: str,
    model: str,
    *,
    name: str | None = None,
    base_url: str | None = None,
    engine: str | None = None,
    key_variable: str | None = None,
    max_tokens: int | None = None,
) -> Any:
    """The row of a teacher or a judge with what its provider and model want; ValueError for an unknown provider."""
    answers_here = providers.load(provider).IN_PROCESS and providers.load(provider).ANSWERS_FROM != "backbone"
    options: dict[str, Any] = {}
    if kind is Teacher and not answers_here:
        options["max_tokens"] = max_tokens or MAX_TOKENS
    if provider == "openai" and base_url is None and REASONING.match(model):
        options |= {"supports_temperature": False, "max_tokens_name": "max_completion_tokens"}
    if base_url is not None:
        options |= {"base_url": base_url, "engine": engine, "key_variable": key_variable}
    row: LanguageModel = kind(name=name or row_name(model), provider=provider, model=model, **options)
    providers.load(provider).check(row)
    return row


def text(found: StudyDraft, today: date) -> str:
    """The Python file, formatted as ruff formats it."""
    return "\n".join([*_head(found, today), *_body(found)]) + "\n"


def _head(found: StudyDraft, today: date) -> Iterator[str]:
    yield f'"""The study {found.name}, written by `nift new` on {today}: yours to change.'
    yield ""
    yield "A comment says what was found that day. `nift plan` says what is left to ask and what that costs."
    yield '"""'
    yield ""
    if found.benchmarks:
        yield "import dataclasses"
        yield ""
    kinds = ["Corpus", "Study", "Teacher"]
    if found.backbone:
        kinds += ["Adapter", "Backbone", "Model", "TrainingSet"]
    if found.judge:
        kinds.append("Judge")
    if found.benchmarks:
        yield "from nift_assets import studies"
    one = f"from nift_assets.studies import {', '.join(sorted(kinds))}"
    if len(one) <= 88:
        yield one
    else:
        yield from ["from nift_assets.studies import (", *(f"    {kind}," for kind in sorted(kinds)), ")"]
    if found.backbone:
        yield "from nift_training.recipe import Recipe"
    yield ""
    if found.benchmarks:
        yield 'PAPER = studies.load("paper")'
        yield ""


def _body(found: StudyDraft) -> Iterator[str]:
    yield "STUDY = Study("
    yield f"    name={_literal(found.name)},"
    yield f"    title={_literal(found.name.replace('_', ' ').replace('-', ' ').capitalize())},"
    if found.budget_usd is not None:
        yield "    # No request is sent that could cost more than this in all."
        yield f"    budget_usd={found.budget_usd!r},"
    yield from _comments(found.corpus_lines, 4)
    corpus = found.corpus.row
    fields = {
        "name": corpus.name,
        "location": corpus.location,
        "revision": corpus.revision,
        "text_column": corpus.text_column if corpus.text_column != "text" else None,
        "documents": found.documents,
        "tokens_per_document": corpus.tokens_per_document,
        "cut_at": corpus.cut_at if corpus.cut_at != "spaces" else None,
        "licence": corpus.licence,
    }
    yield from _row("corpus=Corpus", fields, 4)
    yield "    teachers=("
    yield from _comments(found.teacher_lines, 8)
    yield from _row("Teacher", _asked_fields(found.teacher), 8)
    yield "    ),"
    if found.backbone:
        yield from _trained(found, found.backbone)
    if found.judge:
        yield "    judges=("
        yield from _row("Judge", _asked_fields(found.judge), 8)
        yield "    ),"
    if found.benchmarks:
        yield "    # Their files: nift benchmarks benchmarks"
        yield "    benchmarks=("
        for name in found.benchmarks:
            judge = found.judge.name if found.judge and name in JUDGED else None
            one = f"PAPER.benchmark({_literal(name)})"
            if judge is None:
                yield f"        {one},"
            else:
                line = f"        dataclasses.replace({one}, judge={_literal(judge)}),"
                split = ["        dataclasses.replace(", f"            {one}, judge={_literal(judge)}", "        ),"]
                yield from [line] if len(line) <= 88 else split
        yield "    ),"
    yield ")"


def _trained(found: StudyDraft, backbone: BackboneLook) -> Iterator[str]:
    """A training set of all pairs, an adapter trained on it, and the model before and after."""
    name, teacher = row_name(backbone.source), found.teacher.name
    adapter = f"{name}.{teacher}"[:90]
    yield "    training_sets=("
    yield from _row("TrainingSet", {"name": teacher, "teacher": teacher}, 8)
    yield "    ),"
    yield "    backbones=("
    yield from _comments(found.backbone_lines, 8)
    fields = {
        "name": name,
        "source": backbone.source,
        "revision": backbone.revision,
        "template": backbone.template,
    }
    yield from _row("Backbone", fields, 8)
    yield "    ),"
    small = found.documents < ENOUGH_FOR_PAPERS_BATCHES
    yield "    adapters=("
    if small:
        yield from _comments(["the paper's recipe but for its batches of 256, which so few pairs would hardly fill"], 8)
    yield "        Adapter("
    yield f"            name={_literal(adapter)},"
    yield f"            backbone={_literal(name)},"
    yield f"            training_set={_literal(teacher)},"
    yield f"            recipe=Recipe({f'batch_size={SMALL_BATCH}' if small else ''}),"
    yield "        ),"
    yield "    ),"
    yield "    models=("
    yield from _row("Model", {"name": name, "backbone": name}, 8)
    tuned = {"name": f"{adapter}.lora", "backbone": name, "module": "lora", "adapter": adapter}
    yield from _row("Model", tuned, 8)
    yield "    ),"


def _asked_fields(row: LanguageModel) -> dict[str, Any]:
    usual = type(row)(name=row.name, provider=row.provider, model=row.model)
    names = ("max_tokens", "max_tokens_name", "supports_temperature", "base_url", "engine", "key_variable")
    own = {name: getattr(row, name) for name in names if getattr(row, name) != getattr(usual, name)}
    return {"name": row.name, "provider": row.provider, "model": row.model, **own}


def _row(opening: str, fields: dict[str, Any], indent: int) -> Iterator[str]:
    """A row with a field a line, which is how ruff leaves it."""
    space = " " * indent
    yield f"{space}{opening}("
    yield from (f"{space}    {name}={_literal(value)}," for name, value in fields.items() if value is not None)
    yield f"{space}),"


def _literal(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return f"{value:_}" if type(value) is int else repr(value)


def _comments(lines: Sequence[str], indent: int) -> Iterator[str]:
    return (f"{' ' * indent}# {one_line(line, 200)}" for line in lines)
