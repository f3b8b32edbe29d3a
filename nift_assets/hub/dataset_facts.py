"""What a dataset's card says, read from the stored tables of one teacher and from the ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from expectations import contract as contracts
from nift_assets import filters, providers
from nift_assets.hub.data_files import Configuration, ShardSource
from nift_assets.pages.viewer import links
from nift_assets.prompts import completions
from nift_assets.rows import Publication, Teacher, TrainingSet
from nift_assets.sql import REMOVALS
from nift_assets.store import Store
from nift_assets.study import Study

if TYPE_CHECKING:
    from nift_assets.ledger.report import Account

EXAMPLES = 2
REQUESTS = (
    "document_id",
    "sample_rank",
    "status",
    "finish_reason",
    "answered_by",
    "fingerprint",
    "detail",
    "echoes_prompt",
    "system_prompt",
    "temperature",
    "max_tokens",
    "input_tokens",
    "output_tokens",
)
PAIRS = ("document_id", "sample_rank", "prompt", "response")
DROPPED = ("document_id", "sample_rank", "filter", "reason", "completion")
VERDICTS = ("document_id", "question", "auditor", "status", "verdict", "answer", "answered_by")


def sources(study: Study, store: Store, teacher: Teacher) -> list[ShardSource]:
    """The configurations of a teacher: its training sets, what filters find, what auditors say, and every request."""
    sets = [row for row in study.training_sets if row.teacher == teacher.name]
    audits = [row.name for row in study.audits if row.kind == "teacher" and row.name == teacher.name]
    pairs = contracts.load("training_sets")
    return [
        *(
            ShardSource(
                name=row.name,
                title=_title(row, store.rows("training_sets", row.name) or 0),
                paths=(store.checked_path("training_sets", row.name),),
                contract=pairs,
                columns=PAIRS,
                key=("document_id",),
                prefix=True,
            )
            for row in sets
        ),
        ShardSource(
            name="removals",
            title="what each filter of the study finds of this teacher, and why",
            paths=tuple(store.checked_path(filters.table(row), teacher.name) for row in study.filters),
            contract=contracts.load(REMOVALS),
            columns=DROPPED,
            key=("document_id", "filter"),
        ),
        ShardSource(
            name="audits",
            title="what an auditor says of whole documents: instruction data? a dialogue?",
            paths=tuple(store.checked_path("content_audit", name) for name in audits),
            contract=contracts.load("content_audit"),
            columns=VERDICTS,
            key=("document_id", "question"),
        ),
        ShardSource(
            name="requests",
            title="every request and what became of it, without the texts",
            paths=(store.checked_path("completions", teacher.name),),
            contract=contracts.load("completions"),
            columns=REQUESTS,
            key=("document_id",),
        ),
    ]


def facts(
    study: Study, store: Store, publication: Publication, teacher: Teacher, configurations: Sequence[Configuration]
) -> dict[str, Any]:
    """Everything the template of a dataset asks for that is in the tables."""
    asked = store.read("completions", teacher.name, ["status", "answered_by"])
    pairs = _first(store, "training_sets", configurations[0].name, EXAMPLES)
    return {
        "study": study,
        "publication": publication,
        "teacher": teacher,
        "corpus": study.corpus,
        # Where a folder lies on the machine it was read from is nobody's business.
        "location": study.corpus.location if "://" in study.corpus.location else Path(study.corpus.location).name,
        "title": f"{study.title}: what {teacher.name} wrote",
        "configurations": configurations,
        "columns_of": _columns(configurations),
        "sampled": store.rows("raw_sample", None) or 0,
        "answered_by": sorted(set(asked["answered_by"].drop_nulls()) - {teacher.model}),
        "parameters": _parameters(teacher),
        "messages": _sent(store, teacher),
        "funnel": store.read("funnel", None).filter(pl.col("teacher") == teacher.name).to_dicts(),
        "statuses": Counter(asked["status"]).most_common(),
        "asked": asked.height,
        "examples": pairs.to_dicts(),
        "links": links,
        "terms": terms(study, teacher.name),
        **_decontamination(study, store, teacher),
        **_audits(study, store, teacher),
    }


def terms(study: Study, teacher: str | None) -> str:
    """What binds whoever uses what a teacher wrote; of published pairs their own licence."""
    if teacher is None:
        return "the licence of the published pairs"
    return providers.load(study.teacher(teacher).provider).TERMS


def cost(account: Account | None) -> str:
    """What the answers of a teacher cost, in one sentence."""
    if account is None or not account.sent:
        return "Nothing: nobody was paid for an answer."
    tokens = f"{account.input_tokens:,} tokens in and {account.output_tokens:,} out"
    return f"{account.spent / 1e9:,.4f} US dollars for {account.sent:,} requests, {tokens}."


def _title(row: TrainingSet, stored: int) -> str:
    """What a training set is, and how many were wanted of it where there were as many."""
    wanted = row.rows if row.rows is not None and (stored == row.rows or not row.refill) else None
    parts = [f"the first {wanted:,} pairs" if wanted is not None else "all pairs", "in sample order"]
    if row.filters:
        others = "" if row.refill else ", and no others in their place"
        parts.append(f"without what {' and '.join(row.filters)} found{others}")
    return ", ".join(parts) + (", cut off ones too" if row.keep_truncated else "")


def _columns(configurations: Sequence[Configuration]) -> list[tuple[list[Any], str]]:
    """The columns of each kind of configuration, under the names of those that have them."""
    kinds: dict[str, list[Configuration]] = {}
    for configuration in configurations:
        kinds.setdefault(configuration.source.contract.table, []).append(configuration)
    return [
        (
            [column for column in of_kind[0].source.contract.columns if column.name in of_kind[0].source.columns],
            ", ".join(f"`{configuration.name}`" for configuration in of_kind),
        )
        for of_kind in kinds.values()
    ]


def _parameters(teacher: Teacher) -> list[tuple[str, object]]:
    wanted = (
        "system_prompt",
        "temperature",
        "max_tokens",
        "template",
        "api_version",
        "base_url",
        "engine",
        "documents",
    )
    shape = {**teacher.shape(), "documents": teacher.documents}
    return [(name, shape[name]) for name in wanted if shape.get(name) is not None]


def _sent(store: Store, teacher: Teacher) -> list[Any]:
    """The messages of the first request, as they are sent; none where nobody is asked."""
    if providers.load(teacher.provider).ANSWERS_FROM == "document":
        return []
    first = _first(store, "halves", None, 1)
    return list(completions.requests(teacher, first)[0].messages)


def _first(store: Store, table: str, partition: str | None, rows: int) -> pl.DataFrame:
    return pl.read_parquet(store.checked_path(table, partition), n_rows=rows, glob=False)


def _decontamination(study: Study, store: Store, teacher: Teacher) -> dict[str, Any]:
    row = next((row for row in study.filters if filters.reads_benchmarks(row)), None)
    names = ", ".join(sorted(benchmark.name for benchmark in study.benchmarks))
    if row is None:
        return {"contaminated": None, "benchmarks": names, "decontaminated": False}
    drops = row.name in teacher.filters or all(
        row.name in training_set.filters for training_set in study.training_sets if training_set.teacher == teacher.name
    )
    removed = store.rows(filters.table(row), teacher.name)
    return {"contaminated": removed, "benchmarks": names, "decontaminated": drops}


def _audits(study: Study, store: Store, teacher: Teacher) -> dict[str, Any]:
    audit = next((row for row in study.audits if row.kind == "teacher" and row.name == teacher.name), None)
    if audit is None:
        return {"audits": [], "auditor": None}
    verdicts = (
        store.read("content_audit", audit.name)
        .group_by("question", maintain_order=True)
        .agg(*((pl.col("verdict") == verdict).sum().alias(verdict) for verdict in ("yes", "no", "invalid")))
    )
    return {"audits": verdicts.to_dicts(), "auditor": study.auditor(audit.auditor).model}
