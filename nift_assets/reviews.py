"""What people say of rows that they have read: one verdict per line of a file, appended and never changed.

The file is `<study>.reviews.jsonl` beside the folder of the study's tables, so that starting over deletes none of it. A
verdict is on the disk when `append` returns; a process that is killed before leaves no trace or the whole line. A later
verdict of a person on a row supersedes the earlier one, and both stay.
"""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from functools import cache, cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import polars as pl

from nift_assets import crash_points
from nift_assets.store import Store
from nift_assets.table_files import naming_the_disk
from nift_training import artifacts, file_locks, json_objects

OF_PAIRS = ("keep", "drop", "unsure")
OF_ANSWERS = ("a", "b", "tie")
# What a person may say of two answers that are shown side by side, blind.
Preference = Literal["left", "right", "tie"]
PAIRS = "completions"
LONGEST_NAME, LONGEST_REASON = 64, 2_000
_ID = "review"
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


@dataclass(frozen=True, kw_only=True)
class Review:
    """What one person said of one row, on the content and the version of the table that was read.

    `row` is the row's own key: `document_id` and `teacher` of a pair; of two answers `benchmark`, the question's key,
    `model_a` and `model_b`, in alphabetical order. The verdict is keep, drop or unsure of a pair, and of two answers a,
    b or tie, whichever of them stood on the left; `shown` says which did. `content` is the digest of the texts that
    were read, and `at` when, in UTC.
    """

    reviewer: str
    table: str
    partition: str | None
    row: Mapping[str, str | int]
    verdict: str
    reason: str = ""
    content: str
    version: str
    shown: tuple[str, ...] = ()
    at: str = ""

    @cached_property
    def key(self) -> str:
        """The row as one text, by which verdicts on the same row are found."""
        return key(self.table, self.partition, self.row)

    @property
    def of_answers(self) -> bool:
        return "model_a" in self.row

    @cached_property
    def id(self) -> str:
        """A digest over all of it, which stands in its line."""
        return hashlib.sha256(_json(_fields(self)).encode()).hexdigest()[:16]


def of_pair(
    *,
    reviewer: str,
    teacher: str,
    document_id: str,
    first_half: str,
    completion: str,
    version: str,
    verdict: str,
    reason: str = "",
) -> Review:
    """A person's verdict on a teacher's completion of a document, whose two texts she has read."""
    return Review(
        reviewer=reviewer,
        table=PAIRS,
        partition=teacher,
        row={"document_id": document_id, "teacher": teacher},
        verdict=verdict,
        reason=reason,
        content=content(first_half, completion),
        version=version,
    )


def of_answers(
    *,
    reviewer: str,
    table: str,
    benchmark: str,
    question: Mapping[str, str | int],
    answers: Mapping[str, str],
    versions: Mapping[str, str],
    verdict: Preference,
    reason: str = "",
) -> Review:
    """A person's verdict on two models' answers to one question.

    `answers` has the text of each model by its name, that on the left first; `versions` has the version of each
    model's partition of the table; `question` is all that tells the row from others of the model, such as
    `{"question_id": 81, "run": 0, "turn": 1}`.
    """
    shown = tuple(answers)
    if len(shown) != 2:
        raise ValueError(f"a person compares the answers of two models, not of {', '.join(shown) or 'none'}")
    if verdict not in ("left", "right", "tie"):
        raise ValueError(f"the verdict on two answers is {verdict!r}; give left, right or tie")
    models = sorted(shown)
    preferred = {"left": shown[0], "right": shown[1]}.get(verdict)
    return Review(
        reviewer=reviewer,
        table=table,
        partition=None,
        row={"benchmark": benchmark, **question, "model_a": models[0], "model_b": models[1]},
        verdict=OF_ANSWERS[models.index(preferred)] if preferred else "tie",
        reason=reason,
        content=content(*(answers[model] for model in models)),
        version=" ".join(versions[model] for model in models),
        shown=shown,
    )


def key(table: str, partition: str | None, row: Mapping[str, str | int]) -> str:
    """A row as one text, the same in whatever order its columns come."""
    return _json([table, partition, dict(sorted(row.items()))])


def content(*texts: str) -> str:
    """The digest of the texts that somebody reads: of a pair the first half and the completion, of two answers those of
    `model_a` and `model_b`."""
    return hashlib.sha256(_json(texts).encode()).hexdigest()


def order(reviewer: str, question: Mapping[str, str | int], models: Sequence[str]) -> list[str]:
    """Two models in the order in which one person is shown their answers to one question, that on the left first.

    It is as good as random, and the same whenever she comes back, whichever of them is named first.
    """
    drawn = hashlib.sha256(_json([reviewer, dict(sorted(question.items())), sorted(models)]).encode()).digest()
    return sorted(models, reverse=bool(drawn[0] % 2))


def path(store: Store) -> Path:
    """The file of a study's verdicts; ValueError under a remote root, where no line can be appended to a file."""
    if "://" in store.root:
        raise ValueError(
            f"the warehouse is {store.root}, and verdicts of people are kept in a file of a disk alone; set "
            "NIFT_WAREHOUSE to a folder to review there"
        )
    return Path(store.root, f"{store.study}.reviews.jsonl")


def append(store: Store, *reviews: Review) -> list[Review]:
    """Keeps verdicts, with the time at which they came; they are on the disk when this returns.

    ValueError for one that is none; nothing is kept then.
    """
    file = path(store)
    at = datetime.now(UTC).isoformat(timespec="microseconds")
    kept = [replace(checked(review), at=at) for review in reviews]
    lines = "".join(_json({_ID: review.id, **_fields(review)}) + "\n" for review in kept).encode()
    file.parent.mkdir(parents=True, exist_ok=True)
    remedy = "move the warehouse to a larger one; this verdict is not kept, those before it are"
    with naming_the_disk(file.parent, remedy), file_locks.waited_for(file.with_name(f".{file.name}.lock")):
        is_new = not file.exists()
        crash_points.reach("review_before_write")
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            whole = _cut_torn_line(descriptor)
            try:
                _write(descriptor, lines)
            except BaseException:
                os.ftruncate(descriptor, whole)  # half of a line helps nobody
                raise
            crash_points.reach("review_before_flush")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if is_new:
            artifacts.sync(file.parent)
        crash_points.reach("review_after_flush")
    return kept


def checked(review: Review) -> Review:
    """The same with its white space in order; ValueError for what is no verdict of a person on a row."""
    texts = (review.reviewer, review.reason, *(value for value in review.row.values() if isinstance(value, str)))
    if not all(map(json_objects.is_text, texts)):
        raise ValueError("a verdict holds half of a surrogate pair, which is no text; write it again")
    reviewer = " ".join(unicodedata.normalize("NFC", review.reviewer).split())
    if len(reviewer) > LONGEST_NAME or _controls(reviewer) or not any(map(str.isalnum, reviewer)):
        raise ValueError(
            f"the reviewer is called {review.reviewer[:80]!r}; give a name of 1 to {LONGEST_NAME} printable characters"
        )
    allowed = OF_ANSWERS if review.of_answers else OF_PAIRS
    if review.verdict not in allowed:
        raise ValueError(f"the verdict is {review.verdict[:80]!r}; give one of {', '.join(allowed)}")
    reason = "\n".join(review.reason.splitlines()).strip()
    if review.verdict == "drop" and not reason:
        raise ValueError("a pair is dropped for a reason; say it in a few words")
    if _controls(reason.replace("\n", "").replace("\t", "")):
        raise ValueError(f"the reason has control characters ({reason[:40]!r}); leave them out")
    if len(reason) > LONGEST_REASON:
        raise ValueError(f"the reason has {len(reason):,} characters; say it in {LONGEST_REASON:,} at most")
    return replace(review, reviewer=reviewer, reason=reason)


def _controls(text: str) -> bool:
    """Whether a text has characters that steer a terminal; joiners, which names and emoji need, do not."""
    return any(unicodedata.category(character) == "Cc" for character in text)


def read(store: Store) -> Sequence[Review]:
    """All verdicts of a study in the order in which they came; none where nobody has reviewed.

    ValueError names a line that is not what was written. What a killed process had half written is no line yet.
    """
    if "://" in store.root:
        return ()
    return _read(path(store))


def latest(reviews: Sequence[Review]) -> list[Review]:
    """The last verdict of each person on each row, in the order in which these came."""
    last = {(review.reviewer, review.key): place for place, review in enumerate(reviews)}
    return [reviews[place] for place in sorted(last.values())]


def by_row(reviews: Sequence[Review]) -> dict[str, list[Review]]:
    """The last verdict of each person on each row, by the `key` of the row."""
    found: dict[str, list[Review]] = {}
    for review in latest(reviews):
        found.setdefault(review.key, []).append(review)
    return found


def fingerprint(store: Store) -> list[str]:
    """What changes when a verdict comes: nothing where there is none yet."""
    reviews = read(store)
    return [str(len(reviews)), reviews[-1].id] if reviews else []


def frame(reviews: Sequence[Review]) -> pl.DataFrame:
    """One row per verdict in the order in which they came: the columns of `expectations/reviews.yml`."""
    last = {id(review) for review in latest(reviews)}
    question = ("benchmark", "model_a", "model_b", "document_id", "teacher")
    rows = [
        {
            "review": review.id,
            "reviewer": review.reviewer,
            "reviewed_at": datetime.fromisoformat(review.at),
            "of_table": review.table,
            "of_partition": review.partition,
            "of_row": _json(dict(sorted(review.row.items()))),
            **{name: review.row.get(name) for name in ("document_id", "teacher", "benchmark", "model_a", "model_b")},
            "question": _json({name: review.row[name] for name in sorted(review.row) if name not in question})
            if review.of_answers
            else None,
            "verdict": review.verdict,
            "reason": review.reason,
            "content": review.content,
            "of_version": review.version,
            "shown_first": review.shown[0] if review.shown else None,
            "is_latest": id(review) in last,
        }
        for review in reviews
    ]
    return pl.DataFrame(rows, schema=COLUMNS)


COLUMNS = {
    **dict.fromkeys(("review", "reviewer"), pl.String()),
    "reviewed_at": pl.Datetime("us", "UTC"),
    **dict.fromkeys(
        (
            "of_table", "of_partition", "of_row", "document_id", "teacher", "benchmark", "model_a", "model_b",
            "question", "verdict", "reason", "content", "of_version", "shown_first",
        ),
        pl.String(),
    ),
    "is_latest": pl.Boolean(),
}  # fmt: skip


class _ReadSoFar(NamedTuple):
    """What this process has read of a file: up to where, the last line before that, how many, and the verdicts by their
    digests."""

    end: int = 0
    last_line: bytes = b""
    lines: int = 0
    reviews: Mapping[str, Review] = MappingProxyType({})


_read_so_far: dict[Path, _ReadSoFar] = {}


def _read(file: Path) -> Sequence[Review]:
    """The verdicts of a file, of which only what is new is read: a page asks at every click."""
    before = _read_so_far.get(file, _ReadSoFar())
    try:
        with file.open("rb") as lines:
            lines.seek(before.end - len(before.last_line))
            if lines.read(len(before.last_line)) != before.last_line:  # another file has come into its place
                before = _ReadSoFar()
                lines.seek(0)
            added = lines.read()
    except FileNotFoundError:
        return ()
    whole = added[: added.rfind(b"\n") + 1].splitlines(keepends=True)
    if whole:
        found = (_parsed(line, f"{file} line {before.lines + place}") for place, line in enumerate(whole, start=1))
        # Of two copies of a file that somebody has joined each verdict counts once.
        reviews = {**before.reviews, **{review.id: review for review in found}}
        before = _ReadSoFar(before.end + sum(map(len, whole)), whole[-1], before.lines + len(whole), reviews)
    _read_so_far[file] = before
    return tuple(before.reviews.values())


def _parsed(line: bytes, place: str) -> Review:
    try:
        written: dict[str, Any] = json_objects.parse(line)
        written_id = written.pop(_ID)
        review = Review(**{**written, "shown": tuple(written["shown"])})
        if review.id == written_id:
            return review
    except (ValueError, KeyError, TypeError):
        pass
    raise ValueError(
        f"{place} is not what a review has written there; put the file back from a backup, or take that line out"
    )


def _cut_torn_line(descriptor: int) -> int:
    """How long a file is without what a killed process had half written behind its last line, which is cut off."""
    size = os.fstat(descriptor).st_size
    start, end = max(0, size - 2**16), size
    while end:
        tail = os.pread(descriptor, end - start, start)
        if (line_break := tail.rfind(b"\n")) >= 0:
            end = start + line_break + 1
            break
        start, end = max(0, start - 2**16), start
    if end < size:
        os.ftruncate(descriptor, end)
    return end


def _write(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def _fields(review: Review) -> dict[str, object]:
    """As `asdict`, which takes five times as long for copies that nobody needs."""
    return {name: getattr(review, name) for name in _names()}


@cache
def _names() -> tuple[str, ...]:
    return tuple(field.name for field in fields(Review))


def _json(value: object) -> str:
    return _ENCODER.encode(value)
