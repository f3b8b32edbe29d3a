"""What each row of a file of judgments counts as, beside what its tool counts it as; and the answers that were judged.

Of a row only this is kept, so that files are read whatever their size. What the candidate wrote is known from files of
answers or, where none are given, from what the judge was shown.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from nift_assets.benchmarks import verdicts
from nift_assets.benchmarks.arena_hard import points_of
from nift_assets.benchmarks.published import Answered, Battle, Game, Judged

# One answer to so large a share of the questions is no answer to them.
MOST_ALIKE = 0.1

# How the judges' prompts set off what the candidate wrote. What follows the first mark is the candidate's up to the
# last: an answer can hold such marks itself.
ANSWER = re.compile(r"\[The Start of Assistant's Answer\]\n(.*)\n\[The End of Assistant's Answer\]", re.DOTALL)
CONVERSATION = re.compile(r"<\|The Start of Assistant A's Conversation with User\|>(.*)", re.DOTALL)
LAST_TURN = re.compile(r".*\n### Assistant A:\n(.*?)\s*(?:<\|The End of Assistant A's Conversation.*)?", re.DOTALL)
BOTH = re.compile(
    r"<\|The Start of Assistant A's Answer\|>\n(.*)\n<\|The End of Assistant A's Answer\|>\s*"
    r"<\|The Start of Assistant B's Answer\|>\n(.*)\n<\|The End of Assistant B's Answer\|>",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Mark:
    """What is kept of a text: a digest by which equals are found, and whether it holds what a verdict looks like."""

    digest: bytes
    holds_verdict: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Rating:
    """One rating of MT-Bench: `theirs` is the file's, `rating` what counts. `of_files` if the answer that was shown is
    the one in the files of answers."""

    source: int
    model: str
    judge: str
    question: str
    turn: int
    theirs: float | None
    rating: float | None
    reading: str
    shown: bytes
    of_files: bool

    @property
    def place(self) -> tuple[str, int]:
        return self.question, self.turn

    @property
    def counts(self) -> bool:
        return self.rating is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One game of Arena-Hard, or one battle, whose game is not known: the model's points (1 won, 0.5 tied) and how
    often they count; `theirs` are both as the tool has them, None where it takes the game for nothing."""

    model: str
    judge: str
    baseline: str
    question: str
    game: int | None
    theirs: tuple[float, int] | None
    points: float | None
    weight: int
    reading: str
    shown: bytes = b""
    of_files: bool = False

    @property
    def place(self) -> tuple[str, int] | None:
        return None if self.game is None else (self.question, self.game)

    @property
    def counts(self) -> bool:
        return self.points is not None


class Said:
    """The candidates' answers: those in files and, of models without any there, marks of what the judge was shown."""

    def __init__(self, answers: Iterable[Answered]) -> None:
        self.files = {(answer.model, answer.question): answer for answer in answers}
        self._in_files = {model for model, _ in self.files}
        self._shown: dict[str, dict[tuple[str, int], Mark]] = {}

    def has(self, model: str) -> bool:
        """Whether the files have answers of the model."""
        return model in self._in_files

    def turns(self, model: str, question: str) -> tuple[str, ...]:
        """The answer in the files, none if they lack it."""
        answer = self.files.get((model, question))
        return answer.turns if answer else ()

    def show(self, model: str, question: str, turn: int, text: str) -> None:
        """Notes what a judge was shown as the model's answer."""
        if not self.has(model):
            self._shown.setdefault(model, {})[question, turn] = mark(text)

    def tokens(self, model: str) -> list[int]:
        """How long the model's answers in the files are, where they say so."""
        return [a.tokens for (name, _), a in self.files.items() if name == model and a.tokens is not None]

    def flags(self, model: str) -> dict[str, int]:
        """How many of a model's answers are one text again and again, and how many hold what looks like a verdict."""
        by_turn: dict[int, list[Mark]] = {}
        for turn, one in self._marks(model):
            by_turn.setdefault(turn, []).append(one)
        marks = [one for each in by_turn.values() for one in each]
        return {
            "answers alike": sum(alike(each)["answers alike"] for each in by_turn.values()),
            "answers that hold a verdict": sum(one.holds_verdict for one in marks),
        }

    def _marks(self, model: str) -> Iterator[tuple[int, Mark]]:
        for (_, turn), one in self._shown.get(model, {}).items():
            yield turn, one
        for (name, _), answer in self.files.items():
            if name == model:
                yield from enumerate(map(mark, answer.turns), start=1)


def rating(row: Judged, said: Said) -> Rating:
    """The rating that counts: read from the judge's own words where the file has them, else what the file says."""
    shown = _candidate(row.prompt)
    if shown:
        said.show(row.model, row.question, row.turn, shown[-1])
    turns = said.turns(row.model, row.question)
    value, reading = _told(row, [*turns, *shown])
    return Rating(
        source=row.source,
        model=row.model,
        judge=row.judge,
        question=row.question,
        turn=row.turn,
        theirs=None if row.score is None or math.isnan(row.score) else row.score,
        rating=value,
        reading=reading,
        shown=_digest(row.prompt),
        of_files=len(turns) >= row.turn and turns[row.turn - 1].strip() in row.prompt,
    )


def outcome(row: Game | Battle, said: Said, baseline: str) -> Outcome:
    """The outcome that counts: of a game by the judge's own words where the file has them, else by its score."""
    if isinstance(row, Battle):
        return Outcome(
            model=row.model,
            judge=row.judge,
            baseline=row.baseline,
            question=row.question,
            game=None,
            theirs=(row.points, 1),
            points=row.points,
            weight=1,
            reading="verdict",
        )
    places = BOTH.search(row.prompt)
    ours = places[2 if row.game == 1 else 1] if places else ""
    if places:
        said.show(row.model, row.question, 1, ours)
    against = row.baseline or baseline
    texts = [text for name in (row.model, against) for text in said.turns(name, row.question)]
    label = verdicts.MIRRORED.get(row.score or "", row.score) if row.of_2025 else row.score
    points, weight = points_of(label, row.game)
    theirs = None if points is None or (row.of_2025 and row.alone) else (points, weight)
    reading = "verdict" if weight else "none" if row.score is None else "unknown_label"
    if row.judgment is not None:
        read = (verdicts.ruled_last if row.of_2025 else verdicts.ruled)(
            row.judgment, answers=[*texts, *(places.groups() if places else ())]
        )
        (points, weight), reading = points_of(read.verdict, row.game), read.reading
    answer = said.turns(row.model, row.question)
    return Outcome(
        model=row.model,
        judge=row.judge,
        baseline=against,
        question=row.question,
        game=row.game,
        theirs=theirs,
        points=points,
        weight=weight,
        reading=reading,
        shown=_digest(row.prompt),
        of_files=bool(answer and ours) and answer[0].strip() in ours,
    )


def mark(text: str) -> Mark:
    """What is kept of a text, spaces around it aside."""
    return Mark(_digest(text.strip()), verdicts.holds_label(text))


def alike(marks: Sequence[Mark]) -> dict[str, int]:
    """How many texts are one that is given again and again."""
    number = Counter(one.digest for one in marks)
    most = max(1, MOST_ALIKE * len(marks))
    return {"answers alike": sum(times for times in number.values() if times > most)}


def _told(row: Judged, answers: Sequence[str]) -> tuple[float | None, str]:
    if row.judgment is None:
        usable = row.score is not None and verdicts.LOWEST <= row.score <= verdicts.HIGHEST
        missing = "none" if row.score is None or row.score == -1 or math.isnan(row.score) else "out_of_range"
        return (row.score, "verdict") if usable else (None, missing)
    # The instruction is what stands before the question: what follows are texts of others.
    read = verdicts.rated(row.judgment, answers=answers, prompt=row.prompt.partition("[Question]")[0])
    return read.rating, read.reading


def _candidate(prompt: str) -> tuple[str, ...]:
    """What the candidate wrote in a prompt of MT-Bench: the answer, or the conversation and its last answer."""
    if found := ANSWER.search(prompt):
        return (found[1],)
    if found := CONVERSATION.search(prompt):
        last = LAST_TURN.fullmatch(found[1])
        return (found[1], last[1]) if last else (found[1],)
    return ()


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
