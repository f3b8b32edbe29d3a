"""Instruction data that others have published, which the paper trains on for comparison; one partition per set."""

from __future__ import annotations

from nift_assets.pairs import reference_sets as publications
from nift_assets.rows import without_places
from nift_assets.steps.context import Context
from nift_assets.steps.table import TableOutput, table


@table(
    group="data",
    kinds={"python", "huggingface"},
    by="reference_set",
    rows=lambda study, key, table: (
        without_places(study.reference_set(key)),
        publications.fingerprint(study.reference_set(key)),
    ),
    pool="hub",
)
def reference_sets(context: Context) -> TableOutput:
    reference = context.study.reference_set(context.key)
    published = publications.read(reference)
    facts = {
        "location": reference.location,
        "licence": reference.licence,
        "revision": reference.revision,
        "commit": published.commit,
        "files": {file.name: {"bytes": file.bytes, "sha256": file.sha256} for file in published.files},
        "empty_responses": int((published.rows["response"].str.strip_chars() == "").sum()),
        "repeated_rows": published.rows.height - published.rows["document_id"].n_unique(),
    }
    return TableOutput(published.rows, metadata={name: value for name, value in facts.items() if value is not None})
