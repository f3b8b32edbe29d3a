"""What a person says of the pairs and answers that she reads: how it stands on the page, and how it is kept.

A verdict is on the texts that were read. Whoever sends one sends their digest along; where the table was made anew
since, nothing is kept and the page says so. What others said is shown after one's own verdict, so that agreement means
something.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nift_assets import reviews
from nift_assets.pages.viewer.answers import TURN, Exchange, ShownAnswer
from nift_assets.pages.viewer.pairs import DocumentPair, TeacherText
from nift_assets.reviews import Review
from nift_assets.store import Store

# Whose answer is the better one on a page.
Place = Literal["left", "right", "tie"]


class MadeAnew(ValueError):
    """The texts that were judged are no longer what is stored."""


@dataclass(frozen=True)
class PairReview:
    """What is known of the verdicts on a document's completions, for one reviewer."""

    reviewer: str
    pair: DocumentPair
    given: Mapping[str, Sequence[Review]]

    def content(self, teacher: str) -> str:
        """The digest of the two texts that are judged."""
        return reviews.content(*_pair_texts(self.pair, self._written(teacher)))

    def own(self, teacher: str) -> Review | None:
        """What this reviewer said last."""
        return next((each for each in self._of(teacher) if self.reviewer and each.reviewer == self.reviewer), None)

    def others(self, teacher: str) -> list[Review]:
        """What all others said last."""
        return [each for each in self._of(teacher) if each.reviewer != self.reviewer]

    def _of(self, teacher: str) -> Sequence[Review]:
        row = {"document_id": self.pair.document_id, "teacher": teacher}
        return self.given.get(reviews.key(reviews.PAIRS, teacher, row), ())

    def _written(self, teacher: str) -> TeacherText:
        return next(each for each in self.pair.continuations if each.teacher == teacher)


@dataclass(frozen=True)
class OwnVerdict:
    """What a reviewer said of two answers, by where they stand on her page."""

    side: Place
    reason: str


@dataclass(frozen=True)
class OtherVerdict:
    """Whose answer somebody else preferred; none for a tie."""

    reviewer: str
    preferred: str | None


@dataclass(frozen=True)
class AnswersReview:
    """What is known of the verdicts on two answers, for one reviewer; `key` is the row as JSON."""

    reviewer: str
    key: str
    content: str
    own: OwnVerdict | None = None
    others: Sequence[OtherVerdict] = ()


@dataclass(frozen=True)
class ShownExchange:
    """Two answers as they stand on a page; `blind` hides who wrote which, and all that would tell."""

    key: Mapping[str, Any]
    asked: str | None
    names: Sequence[str | None]
    replies: Sequence[ShownAnswer | None]
    blind: bool = False
    review: AnswersReview | None = None

    @property
    def beside(self) -> list[tuple[str, ShownAnswer | None]]:
        """The names of the models that are compared, each with its answer."""
        return [(name, reply) for name, reply in zip(self.names, self.replies, strict=True) if name]


def of_pair(store: Store, reviewer: str, pair: DocumentPair) -> PairReview | None:
    """The verdicts on a pair; None where none can be kept."""
    if store.is_remote:
        return None
    return PairReview(reviewer, pair, reviews.by_row(reviews.read(store)))


def keep_pair(
    store: Store, reviewer: str, pair: DocumentPair, teacher: str, verdict: str, reason: str, content: str
) -> None:
    """Keeps a verdict on a completion. MadeAnew if it is not the one that was read, ValueError for no verdict."""
    written = next((each for each in pair.continuations if each.teacher == teacher), None)
    version = store.version(reviews.PAIRS, teacher)
    if written is None or written.row is None or version is None:
        raise ValueError(f"{teacher[:80]!r} has no completion of this document")
    first_half, completion = _pair_texts(pair, written)
    for row in (pair.halves, written.row):
        if any(len(row.values[name] or "") < length for name, length in row.lengths.items() if length):
            raise ValueError("a text of this pair is longer than what the page shows, so nobody has read it whole here")
    _refuse_another(content, reviews.content(first_half, completion))
    reviews.append(
        store,
        reviews.of_pair(
            reviewer=reviewer,
            teacher=teacher,
            document_id=pair.document_id,
            first_half=first_half,
            completion=completion,
            version=version.data,
            verdict=verdict,
            reason=reason,
        ),
    )


def shown(exchange: Exchange, models: Sequence[str | None]) -> ShownExchange:
    """Answers with the names of who wrote them."""
    return ShownExchange(exchange.key, exchange.asked, models, exchange.replies)


def shown_blind(
    store: Store, reviewer: str, table: str, benchmark: str, exchange: Exchange, models: Sequence[str]
) -> ShownExchange:
    """Two answers in the order drawn for a reviewer, who wrote which hidden until she has said which is better."""
    replies = {reply.model: reply for reply in exchange.replies if reply is not None}
    if len(replies) < 2:
        return shown(exchange, models)
    row = next(iter(replies.values())).key
    names = _order(reviewer, row, models)
    content = reviews.content(*(replies[model].text for model in sorted(models)))
    given = _given(store, table, benchmark, row, models)
    own = next((each for each in given if reviewer and each.reviewer == reviewer), None)
    others = [OtherVerdict(each.reviewer, _preferred(each)) for each in given if each is not own] if own else []
    told = OwnVerdict(_side(own, names), own.reason) if own else None
    review = AnswersReview(reviewer, json.dumps(dict(row), ensure_ascii=False), content, told, others)
    return ShownExchange(exchange.key, exchange.asked, names, [replies[name] for name in names], own is None, review)


def keep_answers(
    store: Store,
    reviewer: str,
    table: str,
    benchmark: str,
    exchange: Exchange,
    models: Sequence[str],
    verdict: Place,
    reason: str,
    content: str,
) -> None:
    """Keeps a verdict on two answers. MadeAnew if they are not those that were read, ValueError for no verdict."""
    replies = {reply.model: reply for reply in exchange.replies if reply is not None}
    if set(replies) != set(models) or len(replies) != 2:
        raise ValueError("a person compares two answers, and one of these is not stored")
    row = next(iter(replies.values())).key
    _refuse_another(content, reviews.content(*(replies[model].text for model in sorted(models))))
    versions = {model: store.version(table, model) for model in models}
    reviews.append(
        store,
        reviews.of_answers(
            reviewer=reviewer,
            table=table,
            benchmark=benchmark,
            question=dict(row),
            answers={name: replies[name].text for name in _order(reviewer, row, models)},
            versions={model: version.data for model, version in versions.items() if version},
            verdict=verdict,
            reason=reason,
        ),
    )


def _order(reviewer: str, row: Mapping[str, Any], models: Sequence[str]) -> list[str]:
    """Who stands on the left: the same in all turns of a dialogue, which are read together."""
    return reviews.order(reviewer, {name: value for name, value in row.items() if name != TURN}, models)


def _given(store: Store, table: str, benchmark: str, row: Mapping[str, Any], models: Sequence[str]) -> Sequence[Review]:
    first, second = sorted(models)
    key = reviews.key(table, None, {"benchmark": benchmark, **row, "model_a": first, "model_b": second})
    return reviews.by_row(reviews.read(store)).get(key, ())


def _preferred(review: Review) -> str | None:
    name = {"a": "model_a", "b": "model_b"}.get(review.verdict)
    return str(review.row[name]) if name else None


def _side(review: Review, names: Sequence[str]) -> Place:
    preferred = _preferred(review)
    return "tie" if preferred is None else "left" if preferred == names[0] else "right"


def _pair_texts(pair: DocumentPair, written: TeacherText) -> tuple[str, str]:
    values = written.row.values if written.row else {}
    return str(pair.halves.values.get("first_half") or ""), str(values.get("completion") or "")


def _refuse_another(read: str, stored: str) -> None:
    if read != stored:
        raise MadeAnew("these texts were made anew since the page was opened; nothing is kept, load the page and read")
