"""What people have to have reviewed before a table is made: no worker waits, the step fails until enough is said.

A publication asks for verdicts on the pairs that it holds or has learnt from, a judge for comparisons of answers that
it has judged. What is counted are the last verdicts on texts as they are stored now. Judgments are stored and paid in
any case: what waits for people is what is made of them, the scores.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import dagster as dg
import polars as pl

from nift_assets import raters, reviews
from nift_assets.rows import Publication
from nift_assets.steps.lineage import Graph, Partition
from nift_assets.steps.partitions import PartitionSet
from nift_assets.store import Store
from nift_assets.study import Study

CHECK = "reviewed_by_people"
SCORES = "benchmark_scores"
PUBLISHED: dict[str, PartitionSet] = {"hub_datasets": "teacher", "hub_adapters": "adapter", "hub_models": "model"}
MESSAGE = "message"
WHERE = "review more on the page /study/look of `nift ui`"
# What the failure of a step carries that waits for people and has nothing else to complain of.
AWAITED = "awaited reviews"


@dataclass(frozen=True, kw_only=True)
class Approval:
    """How many rows people have to have reviewed before something is done, and how many they have."""

    before: str
    rows: str
    needed: int
    reviewed: int

    @property
    def is_given(self) -> bool:
        return self.reviewed >= self.needed

    def __str__(self) -> str:
        """It in one line; what is missing with where it is given."""
        return self.counted if self.is_given else f"{self.counted}; {WHERE}"

    @property
    def counted(self) -> str:
        """How many there are and, if that is too few, how many are missing."""
        said = f"people have reviewed {self.reviewed:,} of the {self.needed:,} {self.rows} that {self.before} needs"
        return said if self.is_given else f"{said}, {self.needed - self.reviewed:,} are missing"


def waiting(approvals: Sequence[Approval]) -> str:
    """The line about those that are not given yet; empty where all are."""
    missing = [approval.counted for approval in approvals if not approval.is_given]
    return "; ".join([*missing, WHERE]) if missing else ""


def of_publication(study: Study, store: Store, row: Publication) -> Approval | None:
    """Whether enough pairs of the teacher have been kept or dropped by somebody; None where the row asks for none."""
    if row.needs_review is None:
        return None
    teacher = study.taught_by(row)
    assert teacher is not None, "a study refuses reviews of pairs that no teacher wrote"
    return Approval(
        before=f"publication {row.name!r}",
        rows=f"pairs of {teacher}",
        needed=row.needs_review,
        reviewed=_pairs(store, teacher),
    )


def of_judges(study: Study, store: Store) -> list[Approval]:
    """Of each judge that asks for them, how many pairs of answers that it has judged people have compared."""
    asking = wanted(study)
    said = _said(store) if asking else pl.DataFrame()
    models = [row.name for row in study.models]
    return [
        Approval(
            before=f"judge {judge!r}",
            rows="pairs of answers",
            needed=needed,
            reviewed=sum(
                raters.answers_today(store, row.name, models, said)["of_row"].n_unique()
                for row in study.benchmarks
                if row.judge == judge
            ),
        )
        for judge, needed in asking
    ]


def today(study: Study, store: Store, said: pl.DataFrame) -> pl.DataFrame:
    """The last verdicts of people on everything as it is stored now."""
    models = [row.name for row in study.models]
    return pl.concat(
        [
            said.clear(),
            *(raters.pairs_today(store, row.name, said) for row in study.teachers),
            *(raters.answers_today(store, row.name, models, said) for row in study.benchmarks),
        ]
    )


def of_study(study: Study, store: Store) -> list[Approval]:
    """All that is asked of people in a study, given or not."""
    of_publications = (of_publication(study, store, row) for row in study.publications)
    return [*of_judges(study, store), *(approval for approval in of_publications if approval)]


def wanted(study: Study) -> list[tuple[str, int]]:
    """What the judges of a study ask of people, for what their scores are made from; nothing where none asks."""
    return [(row.name, row.needs_review) for row in study.judges if row.needs_review is not None]


def awaited(graph: Graph, store: Store, partition: Partition) -> list[Approval]:
    """All that people have to say before a partition is made, whether they have or not."""
    study = graph.study
    if partition.table == SCORES:
        return of_judges(study, store)
    if partition.table not in PUBLISHED:
        return []
    kind = PUBLISHED[partition.table]
    rows = [row for row in study.publications if getattr(row, kind) == partition.key]
    return [approval for row in rows if (approval := of_publication(study, store, row))]


def specs(graph: Graph, tables: Sequence[str], partitions: PartitionSet | None) -> Iterator[dg.AssetCheckSpec]:
    """The check of each table that waits for people in some partition of it; no other has one."""
    study = graph.study
    for table in tables:
        rows = study.judges if table == SCORES else study.publications if table in PUBLISHED else ()
        kind = PUBLISHED.get(table)
        if any(row.needs_review is not None and (kind is None or getattr(row, kind)) for row in rows):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", dg.PreviewWarning)  # as in `graph`
                yield dg.AssetCheckSpec(
                    CHECK,
                    asset=table,
                    description="People have reviewed as many rows as the study's row asks for, as these are now.",
                    blocking=True,
                    metadata={"severity": "error"},
                    partitions_def=graph.partitions.definition(partitions),
                )


def check_result(table: str, approvals: Sequence[Approval]) -> dg.AssetCheckResult:
    """What people have said so far, as the result of the check; a failed one stops the step."""
    return dg.AssetCheckResult(
        asset_key=table,
        check_name=CHECK,
        passed=all(approval.is_given for approval in approvals),
        severity=dg.AssetCheckSeverity.ERROR,
        metadata={
            MESSAGE: "; ".join(map(str, approvals)) or "nothing is asked of people here",
            "missing": sum(max(0, approval.needed - approval.reviewed) for approval in approvals),
        },
    )


def _pairs(store: Store, teacher: str) -> int:
    """How many pairs of a teacher somebody has decided on, as they are stored now."""
    said = raters.pairs_today(store, teacher, _said(store))
    return said.filter(pl.col("verdict") != "unsure")["document_id"].n_unique()


def _said(store: Store) -> pl.DataFrame:
    """All verdicts of people; ValueError where none can be kept, so that nobody waits for ever."""
    reviews.path(store)
    return reviews.frame(reviews.read(store))
