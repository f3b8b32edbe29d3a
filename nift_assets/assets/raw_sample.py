"""The sampled documents, drawn from the study's corpus, and what of the corpus could not be sampled."""

from __future__ import annotations

from nift_assets import corpus
from nift_assets.rows import without_places
from nift_assets.steps.context import Context
from nift_assets.steps.table import TableOutput, table


@table(
    "raw_sample",
    "raw_sample_rejects",
    group="data",
    kinds={"python", "polars"},
    source=lambda study: study.corpus.name,
    rows=lambda study, key, table: (without_places(study.corpus), corpus.fingerprint(study.corpus)),
)
def raw_sample(context: Context) -> dict[str, TableOutput]:
    sample = corpus.sample(context.study.corpus, report=lambda progress: context.log(str(progress)))
    context.log(str(sample.read))
    for problem in sample.unreadable:
        context.log(f"left out: {problem}")
    read = {
        "files": sample.read.total_files,
        "corpus_rows": sample.read.rows,
        "corpus_bytes": sample.read.bytes,
        "corpus_seconds": round(sample.read.seconds, 1),
    }
    reasons = sample.rejects["reason"].value_counts().sort("reason").rows()
    return {
        "raw_sample": TableOutput(sample.portions(), metadata=read),
        "raw_sample_rejects": TableOutput(
            sample.rejects, metadata={reason.replace(" ", "_"): n for reason, n in reasons}
        ),
    }
