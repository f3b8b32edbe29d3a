"""What somebody may have meant by a name that there is not."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MOST = 3


def near(name: str, names: Iterable[str]) -> str:
    """The end of a sentence that asks for the names like this one: "; did you mean 'echo'?". Nothing if none is."""
    by_lower = {known.lower(): known for known in names}
    found = difflib.get_close_matches(name.lower(), by_lower, n=MOST, cutoff=0.6)
    # What somebody began to type, or remembers a part of: score -> benchmark_scores.
    found += [lower for lower in by_lower if len(name) > 2 and name.lower() in lower and lower not in found]
    quoted = [repr(by_lower[lower]) for lower in found[:MOST]]
    return f"; did you mean {' or '.join(quoted)}?" if quoted else ""
