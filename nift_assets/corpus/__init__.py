"""Reading web articles from where they lie, and drawing a sample of them that never depends on their order."""

from __future__ import annotations

from nift_assets.corpus.locations import files, fingerprint
from nift_assets.corpus.reading import Document, read
from nift_assets.corpus.sampling import Progress, Sample, document_id, sample

__all__ = ["Document", "Progress", "Sample", "document_id", "files", "fingerprint", "read", "sample"]
