"""Two states of a study beside each other, as text for a terminal and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dagster_project.command_line.text_table import shorten, table
from nift_assets.benchmarks.scoring.scores import Measured
from nift_assets.differences import wording
from nift_assets.differences.changed_words import changed_words
from nift_assets.differences.comparison import FIRST, ChangedText, PartitionDifference
from nift_assets.differences.funnels import FunnelStep
from nift_assets.differences.reasons import OF_ANSWERS
from nift_assets.differences.score_differences import SIGNIFICANT, ScoreDifference
from nift_assets.differences.states import TablePartition

# The tables of which is told how many rows came and went, and why, if none is named: what is read and trained on.
TOLD = ("raw_sample", "halves", *OF_ANSWERS)
SHOWN_ID = 12
# As much of a changed text stands in a pipe; --json and --out have all of it.
TOLD_WIDTH = 200
MOST_NAMED = 8

Dollars = Mapping[str, float] | None


@dataclass(frozen=True, kw_only=True)
class Differences:
    """All that was compared of two states: partitions, some changed texts of each, the funnel's steps, scores, and what
    was spent by who was asked, None where there is no ledger. `named` are the tables that were asked for, none for all,
    and `unknown` those that have no contract and are not compared.
    """

    before: str
    after: str
    rows: Sequence[PartitionDifference]
    texts: Mapping[TablePartition, Sequence[ChangedText]]
    funnel: Sequence[FunnelStep]
    scores: Sequence[ScoreDifference]
    dollars: tuple[Dollars, Dollars]
    named: Sequence[str]
    unknown: Sequence[str] = ()

    @property
    def are_same(self) -> bool:
        """Whether nothing was found to differ; of a state without a ledger nobody knows what it has cost."""
        return all(each.is_same for each in self.rows) and (None in self.dollars or self.dollars[0] == self.dollars[1])


def as_json(found: Differences) -> dict[str, Any]:
    """The same as plain values; the partitions whose rows are the same by their names alone."""
    return {
        "before": found.before,
        "after": found.after,
        "not_compared": list(found.unknown),
        "same": [each.place for each in found.rows if each.is_same],
        "rows": [
            {**asdict(each), "texts": [asdict(text) for text in found.texts.get((each.table, each.partition), ())]}
            for each in found.rows
            if not each.is_same
        ],
        "funnel": [asdict(step) for step in found.funnel],
        "scores": [_score_as_json(score) for score in found.scores],
        "dollars": {"before": found.dollars[0], "after": found.dollars[1]},
    }


def render(found: Differences, width: int | None) -> str:
    """What differs, in paragraphs: rows by table, their reasons and some texts, the funnel, scores and dollars. Of two
    states that are the same one sentence."""
    if found.are_same:
        what = f" in {' and '.join(found.named)}" if found.named else ""
        return "\n".join(
            filter(None, [f"Nothing differs{what} between {found.before} and {found.after}.", _unknown(found)])
        )
    paragraphs = [
        f"before: {found.before}\nafter:  {found.after}",
        _tables(found, width),
        _told(found, width),
        _funnel(found.funnel, width),
        _scores(found.scores, width),
        _dollars(*found.dollars, width),
        _unknown(found),
    ]
    return "\n\n".join(filter(None, paragraphs))


def _unknown(found: Differences) -> str:
    if not found.unknown or found.named:
        return ""
    return f"Not compared, for want of a contract: {', '.join(found.unknown)}; name the study's file with --study."


def _tables(found: Differences, width: int | None) -> str:
    """One line per table with rows that differ, its partitions taken together; numbers that are made of others by name
    alone."""
    tables: dict[str, list[PartitionDifference]] = {}
    for each in found.rows:
        tables.setdefault(each.table, []).append(each)
    lines, numbers, same = [], [], []
    for name, partitions in tables.items():
        differing = [each for each in partitions if not each.is_same]
        if not differing:
            same.append(name)
        elif partitions[0].partition is None and name not in (found.named or FIRST):
            numbers.append(name)
        else:
            counts = [sum(getattr(each, what) or 0 for each in partitions) for what in NUMBERS]
            of = "-" if partitions[0].partition is None else f"{len(differing)} of {len(partitions)}"
            lines.append([name, of, *(f"{count:,}" if count else "-" for count in counts)])
    drawn = [table(["rows of", "partitions", *HEADS], lines, width, left=2)] if lines else []
    drawn += [f"Numbers made of these differ in {', '.join(numbers)}."] if numbers else []
    named = ", ".join(same) if len(same) <= MOST_NAMED else f"{len(same)} tables"
    drawn += [f"The same in both: {named}."] if same else []
    return "\n".join(drawn)


NUMBERS = ("before", "after", "rows_out", "rows_in", "changed")
HEADS = ("before", "after", "out", "in", "changed")


def _told(found: Differences, width: int | None) -> str:
    """A sentence per partition of the tables that are told of, and changed texts: of the completions, and not again of
    the tables that are made from them."""
    lines: list[str] = []
    told_texts_of: set[str] = set()
    for each in found.rows:
        if each.is_same or each.table not in (found.named or TOLD):
            continue
        lines.append(f"{each.place}: {wording.sentence(each)}")
        texts = found.texts.get((each.table, each.partition), ())
        if texts and (found.named or each.table not in OF_ANSWERS or not told_texts_of & {*OF_ANSWERS} - {each.table}):
            told_texts_of.add(each.table)
            lines += [
                shorten(
                    f"  {text.key[:SHOWN_ID]} {text.column}: {changed_words(text.before, text.after)}",
                    width or TOLD_WIDTH,
                )
                for text in texts
            ]
    return "\n".join(lines)


def _funnel(steps: Sequence[FunnelStep], width: int | None) -> str:
    """The funnel of each teacher of whom anything differs, and how many are the same."""
    teachers = list(dict.fromkeys(step.teacher for step in steps if not step.is_same))
    if not teachers:
        return "The funnel is the same." if steps else ""
    lines = [
        [
            step.teacher,
            step.step,
            *map(_count, (step.kept_before, step.kept_after)),
            _change(step.kept_before, step.kept_after),
            *map(_count, (step.found_before, step.found_after)),
        ]
        for step in steps
        if step.teacher in teachers
    ]
    header = ["funnel", "step", "kept before", "after", "change", "found before", "after"]
    same = sorted({step.teacher for step in steps} - set(teachers))
    return "\n".join(
        [table(header, lines, width, left=2), *([f"The same in both: {', '.join(same)}."] if same else [])]
    )


def _scores(scores: Sequence[ScoreDifference], width: int | None) -> str:
    """One line per score whose results differ, and what of it is significant."""
    differing = [score for score in scores if not score.same_results]
    if not differing:
        return "The scores are made of the same results." if scores else ""
    lines = [
        [
            score.model,
            score.measure,
            _score(score.before),
            _score(score.after),
            *(
                [
                    f"{score.difference.value:+.2f}",
                    f"[{score.difference.low:+.2f}, {score.difference.high:+.2f}]",
                    f"{score.difference.p:.4f}",
                    f"{score.p_corrected:.4f}",
                ]
                if score.difference
                else ["-"] * 4
            ),
        ]
        for score in differing
    ]
    header = ["model", "benchmark", "before", "after", "difference", "95% interval", "p", "p corrected"]
    tested = [score for score in differing if score.difference]
    significant = [f"{score.model} on {score.measure}" for score in tested if score.is_significant]
    found = f"{', '.join(significant)} differ" if len(significant) > 1 else f"{''.join(significant) or 'None'} differs"
    tests = f"{len(tested)} {'test' if len(tested) == 1 else 'tests'}"
    how = f"p < {SIGNIFICANT} after Holm's correction over {tests}, on the questions that both have"
    verdict = f"{found} significantly ({how})."
    same = len(scores) - len(differing)
    rest = [f"{same} more {'is' if same == 1 else 'are'} made of the same results."] if same else []
    return "\n".join([table(header, lines, width), *([verdict] if tested else []), *rest])


def _dollars(before: Dollars, after: Dollars, width: int | None) -> str:
    if before is None and after is None:
        return ""
    old, new = before or {}, after or {}
    if not any([*old.values(), *new.values()]):
        return "No dollar was spent in either."
    rows = [
        [who, _usd(before, who), _usd(after, who), f"{new.get(who, 0) - old.get(who, 0):+,.4f}"]
        for who in {**old, **new}
    ]
    total = ["all", *(f"{sum(side.values()):,.4f}" if side is not None else "-" for side in (before, after))]
    total.append(f"{sum(new.values()) - sum(old.values()):+,.4f}")
    return table(["US dollars", "before", "after", "change"], [*rows, total], width, left=1)


def _usd(side: Dollars, who: str) -> str:
    return "-" if side is None or who not in side else f"{side[who]:,.4f}"


def _score(measured: Measured | None) -> str:
    if measured is None or measured.score is None:
        return "-"
    interval = "" if measured.low is None or measured.high is None else f" [{measured.low:.2f}, {measured.high:.2f}]"
    return f"{measured.score:.2f}{interval}{'' if measured.complete else ' *'}{' ?' if measured.doubts else ''}"


def _score_as_json(score: ScoreDifference) -> dict[str, Any]:
    return {
        "model": score.model,
        "benchmark": score.measure,
        "before": _measured_as_json(score.before),
        "after": _measured_as_json(score.after),
        "same_results": score.same_results,
        "difference": asdict(score.difference) if score.difference else None,
        "p_corrected": score.p_corrected,
    }


def _measured_as_json(measured: Measured | None) -> dict[str, Any] | None:
    names = ("score", "low", "high", "questions", "expected", "missing", "complete", "doubts")
    return {name: getattr(measured, name) for name in names} if measured else None


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"


def _change(before: int | None, after: int | None) -> str:
    return "-" if before is None or after is None else f"{after - before:+,}" if after != before else "0"
