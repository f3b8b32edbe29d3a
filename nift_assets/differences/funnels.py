"""How many documents reach each step for each teacher, in two states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nift_assets.differences.states import StudyState

FUNNEL = ("funnel", None)


@dataclass(frozen=True, kw_only=True)
class FunnelStep:
    """A step of a teacher's funnel: what is left behind it and, of a filter, what it finds; None where it is not."""

    teacher: str
    step: str
    kept_before: int | None
    kept_after: int | None
    found_before: int | None
    found_after: int | None

    @property
    def is_same(self) -> bool:
        return (self.kept_before, self.found_before) == (self.kept_after, self.found_after)


def compare(before: StudyState, after: StudyState) -> list[FunnelStep]:
    """The steps of every teacher of either state, in the order of the later, those that are gone behind the others."""
    old, new = _steps(before), _steps(after)
    teachers = dict.fromkeys(teacher for teacher, _ in [*new, *old])
    return [
        FunnelStep(
            teacher=teacher,
            step=step,
            kept_before=old.get((teacher, step), (None, None))[0],
            kept_after=new.get((teacher, step), (None, None))[0],
            found_before=old.get((teacher, step), (None, None))[1],
            found_after=new.get((teacher, step), (None, None))[1],
        )
        for teacher in teachers
        for step in dict.fromkeys(step for of, step in [*new, *old] if of == teacher)
    ]


def _steps(state: StudyState) -> Mapping[tuple[str, str], tuple[int | None, int | None]]:
    rows = state.read(FUNNEL)
    if rows is None:
        return {}
    if absent := [name for name in ("teacher", "step") if name not in rows]:
        raise state.lacks(FUNNEL, absent[0])
    return {(row["teacher"], row["step"]): (row.get("kept"), row.get("flagged")) for row in rows.to_dicts()}
