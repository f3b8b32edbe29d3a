"""What became of a table's rows, as a person says it: in the terminal, and in a commit on the Hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nift_assets.differences.comparison import PartitionDifference
from nift_assets.differences.reasons import says_its_own_reason

MOST_REASONS = 6


def sentence(found: PartitionDifference) -> str:
    """What became of the rows of a partition, each kind of change with its reasons, without a full stop."""
    if found.after is None:
        return f"is gone with its {_rows(found.rows_out)}"
    if found.before is None:
        return f"is new, with {_rows(found.rows_in)}"
    parts = [
        _part(found.rows_out, "out", found.why.get("out", {})),
        _part(found.rows_in, "in", found.why.get("in", {}), "" if says_its_own_reason(found.table) else "before: "),
        _part(found.changed, "changed", found.why.get("changed", {}) or found.columns),
    ]
    parts += [f"without the column {column}" for column in found.columns_out]
    parts += [f"with the column {column}" for column in found.columns_in]
    return ", ".join(filter(None, parts)) or "the same rows"


def paragraph(found: Sequence[tuple[str, PartitionDifference]]) -> str:
    """A line for each partition whose rows differ, under the name that its reader knows it by."""
    return "\n".join(f"{name}: {sentence(each)}." for name, each in found if not each.is_same)


def _part(number: int, what: str, why: Mapping[str, int], begins: str = "") -> str:
    if not number:
        return ""
    reasons = _reasons(number, why)
    return f"{_rows(number)} {what}" + (f" ({begins}{reasons})" if reasons else "")


def _reasons(number: int, why: Mapping[str, int]) -> str:
    """The reasons with the most rows first; one that all rows share stands without a number."""
    if len(why) == 1 and number in why.values():
        return next(iter(why))
    named = [f"{rows:,} {reason}" for reason, rows in list(why.items())[:MOST_REASONS]]
    rest = number - sum(list(why.values())[:MOST_REASONS])
    return ", ".join([*named, *([f"{rest:,} for other reasons"] if why and rest > 0 else [])])


def _rows(number: int) -> str:
    return f"{number:,} {'row' if number == 1 else 'rows'}"
