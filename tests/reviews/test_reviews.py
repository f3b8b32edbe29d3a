"""Verdicts of people: appended, whole or not there, superseded and never lost."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nift_assets import reviews
from nift_assets.reviews import Review
from nift_assets.store import Store
from tests.conftest import PROJECT
from tests.reviews import kill_writers

ANSWERS = {"zephyr": "Forty-two.", "alpaca": "I cannot say."}
VERSIONS = {"zephyr": "v-z", "alpaca": "v-a"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(root=str(tmp_path), study="demo")


def pair(reviewer: str = "Ann", document: str = "d1", verdict: str = "keep", **changes: str) -> Review:
    texts = {"first_half": "The ferry left", "completion": " without its horn."}
    return reviews.of_pair(
        **{"teacher": "echo", "version": "v1", **texts, **changes},
        reviewer=reviewer,
        document_id=document,
        verdict=verdict,
    )


def compared(verdict: Any, *shown: str, reviewer: str = "Ann", turn: int = 1) -> Review:
    return reviews.of_answers(
        reviewer=reviewer,
        table="mt_bench_answers",
        benchmark="mt_bench",
        question={"question_id": 81, "run": 0, "turn": turn},
        answers={model: ANSWERS[model] for model in shown},
        versions=VERSIONS,
        verdict=verdict,
    )


def test_a_verdict_comes_back_as_it_was_given_and_when(store: Store) -> None:
    kept = reviews.append(
        store, pair(verdict="drop", reason=' a list of "things" '), compared("tie", "zephyr", "alpaca")
    )
    assert list(reviews.read(store)) == kept
    assert kept[0].reason == 'a list of "things"'
    assert kept[0].at.endswith("+00:00")
    assert kept[0].content == reviews.content("The ferry left", " without its horn.")
    assert kept[0].content != pair(completion=" without it's horn.").content
    assert reviews.read(Store(root=store.root, study="other")) == ()


def test_a_later_verdict_of_the_same_person_on_the_same_row_supersedes_and_both_stay(store: Store) -> None:
    for review in (pair(), pair(document="d2"), pair("Bob"), pair(verdict="unsure"), pair(teacher="local")):
        reviews.append(store, review)
    every = reviews.read(store)
    assert len(every) == 5
    assert [(r.reviewer, r.row["document_id"], r.verdict) for r in reviews.latest(every)] == [
        ("Ann", "d2", "keep"), ("Bob", "d1", "keep"), ("Ann", "d1", "unsure"), ("Ann", "d1", "keep"),
    ]  # fmt: skip
    on_row = reviews.by_row(every)[reviews.key("completions", "echo", {"teacher": "echo", "document_id": "d1"})]
    assert [(r.reviewer, r.verdict) for r in on_row] == [("Bob", "keep"), ("Ann", "unsure")]
    assert reviews.frame(every)["is_latest"].to_list() == [False, True, True, True, True]


def test_whichever_answer_stood_on_the_left_the_verdict_is_on_the_model() -> None:
    left_preferred, right_preferred = compared("left", "zephyr", "alpaca"), compared("right", "alpaca", "zephyr")
    assert left_preferred.verdict == right_preferred.verdict == "b"
    assert left_preferred.key == right_preferred.key
    assert left_preferred.content == right_preferred.content
    assert left_preferred.row["model_a"] == "alpaca"
    assert left_preferred.version == "v-a v-z"
    assert (left_preferred.shown, right_preferred.shown) == (("zephyr", "alpaca"), ("alpaca", "zephyr"))


def test_answers_are_shown_in_an_order_that_is_random_but_stays_for_one_person_and_question() -> None:
    questions = [{"question_id": number, "run": 0} for number in range(400)]
    first = [reviews.order("Ann", question, ["m", "n"]) for question in questions]
    assert first == [reviews.order("Ann", dict(reversed(question.items())), ["n", "m"]) for question in questions]
    assert 160 < sum(shown == ["m", "n"] for shown in first) < 240
    others = [reviews.order("Bob", question, ["m", "n"]) for question in questions]
    assert 160 < sum(mine == theirs for mine, theirs in zip(first, others, strict=True)) < 240


@pytest.mark.parametrize(
    ("review", "said"),
    [
        (pair(reviewer=" \t"), "the reviewer is called ' \\t'; give a name"),
        (pair(reviewer="A\x1b[31m"), "printable characters"),
        (pair(reviewer="x" * 65), "give a name of 1 to 64"),
        (pair(reviewer="\u200b\u200b"), "give a name of 1 to 64"),
        (pair(reason="\x1b]0;title\x07"), "the reason has control characters"),
        (pair(verdict="a"), "the verdict is 'a'; give one of keep, drop, unsure"),
        (replace(compared("tie", "zephyr", "alpaca"), verdict="keep"), "give one of a, b, tie"),
        (pair(verdict="drop", reason=" "), "a pair is dropped for a reason"),
        (pair(reason="x" * 2_001), "the reason has 2,001 characters"),
        (pair(reason="\ud800"), "half of a surrogate pair"),
        (pair(document="\udfff"), "half of a surrogate pair"),
    ],
)  # fmt: skip
def test_what_is_no_verdict_is_refused_with_all_that_came_with_it(store: Store, review: Review, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("\\", "\\\\")) as refused:
        reviews.append(store, pair(), review)
    assert "\n" not in str(refused.value)
    assert reviews.read(store) == ()


def test_a_file_cut_short_anywhere_has_all_verdicts_before_the_cut_and_takes_more(store: Store) -> None:
    reviews.append(store, *(pair(document=f"Ж{number}") for number in range(3)))
    file = reviews.path(store)
    content = file.read_bytes()
    ends = [place for place, byte in enumerate(content) if byte == ord("\n")]
    for size in sorted({*range(0, len(content), 11), *ends, *(end + 1 for end in ends), len(content) - 2}):
        file.write_bytes(content[:size])
        whole = content[:size].count(b"\n")
        assert len(reviews.read(store)) == whole, size
        if size % 121 == 0:
            (more,) = reviews.append(store, pair("Bob"))
            assert [r.id for r in reviews.read(store)][whole:] == [more.id]
            assert file.read_bytes().endswith(b"\n")


def test_a_damaged_line_is_named_and_the_verdicts_of_two_joined_copies_count_once(store: Store) -> None:
    reviews.append(store, pair(), pair("Bob"))
    file = reviews.path(store)
    content = file.read_bytes()
    file.write_bytes(content + content)
    reviews.append(store, pair("Eve"))
    assert [r.reviewer for r in reviews.read(store)] == ["Ann", "Bob", "Eve"]
    file.write_bytes(content.replace(b'"keep"', b'"drop"', 1))
    with pytest.raises(ValueError, match=r"demo\.reviews\.jsonl line 1 is not what a review has written there; put"):
        reviews.read(store)
    file.write_bytes(content.splitlines(keepends=True)[0] + b"[]\n")
    with pytest.raises(ValueError, match="line 2 is not what"):
        reviews.read(store)


def test_a_reader_that_has_read_before_sees_what_came_and_what_was_put_back(store: Store) -> None:
    reviews.append(store, pair())
    assert len(reviews.read(store)) == 1
    backup = reviews.path(store).read_bytes()
    before = reviews.fingerprint(store)
    reviews.append(store, pair("Bob"))
    assert len(reviews.read(store)) == 2
    assert reviews.fingerprint(store) != before
    reviews.path(store).write_bytes(backup)
    assert len(reviews.read(store)) == 1
    assert reviews.fingerprint(store) == before
    reviews.path(store).unlink()
    assert reviews.read(store) == ()
    assert reviews.fingerprint(store) == []


def test_a_disk_that_is_full_in_the_middle_of_a_line_keeps_what_came_before(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    reviews.append(store, pair())
    write: Callable[[int, Any], int] = os.write

    def full(descriptor: int, content: Any) -> int:
        if len(content) > 100:
            return write(descriptor, content[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="this verdict is not kept, those before it are"):
        reviews.append(store, pair("Bob"))
    monkeypatch.undo()
    reviews.append(store, pair("Eve"))
    assert [review.reviewer for review in reviews.read(store)] == ["Ann", "Eve"]


def test_starting_over_deletes_no_verdict_and_a_remote_warehouse_takes_none(store: Store) -> None:
    reviews.append(store, pair())
    store.folder("completions").mkdir(parents=True)
    store.forget()
    assert not store.folder().exists()
    assert len(reviews.read(store)) == 1
    remote = Store(root="s3://bucket/nift", study="demo")
    assert reviews.read(remote) == ()
    assert reviews.fingerprint(remote) == []
    with pytest.raises(ValueError, match=r"the warehouse is s3://bucket/nift, .* set NIFT_WAREHOUSE to a folder"):
        reviews.append(remote, pair())


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Store]:
    """What a process says of its children that append and are killed, and the store of two that did so side by side."""
    folder = tmp_path_factory.mktemp("killed")
    command = [sys.executable, "-m", kill_writers.__name__, str(folder)]
    said = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    return json.loads(said), Store(root=str(folder), study="race")


def test_a_process_killed_anywhere_keeps_the_whole_verdict_or_nothing(killed: tuple[Any, Store]) -> None:
    assert killed[0]["points"] == {
        "review_before_write": [],
        "review_before_flush": ["review_before_flush"],
        "review_after_flush": ["review_before_flush", "review_after_flush"],
    }


def test_two_reviewers_who_are_killed_again_and_again_lose_nothing_that_they_were_told_is_kept(
    killed: tuple[Any, Store],
) -> None:
    told, kept = killed[0]["race"], [review.id for review in reviews.read(killed[1])]
    assert min(map(len, told)) > 0
    for writer in told:
        assert [digest for digest in kept if digest in set(writer)] == writer
    # Besides, one at most of each writer that was on the disk before it could be told.
    assert 0 <= len(kept) - sum(map(len, told)) <= len(told)
