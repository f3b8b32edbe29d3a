"""What is told of answers: of all of a model's in numbers, of chosen ones side by side, of missing ones nothing."""

from __future__ import annotations

import polars as pl
import pytest

from expectations import contract
from expectations.frames import conform, schema
from expectations.runner import check
from nift_assets.benchmarks.scoring import repetition, responses
from nift_assets.rows import Example

STUCK = "The group meets. The facilitator leads it. " * 30
ANSWERS = pl.DataFrame(
    [
        {"model": "before", "question_id": "q1", "answer": STUCK, "tokens": 300, "stopped": "length"},
        {"model": "before", "question_id": "q2", "answer": " ", "tokens": 1, "stopped": "eos"},
        {"model": "after", "question_id": "q1", "answer": "Meet. Talk. Decide.", "tokens": 8, "stopped": "eos"},
        {"model": "after", "question_id": "q2", "answer": "Yes. Yes.", "tokens": 4, "stopped": "stop"},
    ],
    schema=schema(contract.load("arena_hard_answers")),
    orient="row",
)
EXAMPLES = (
    Example(name="one", table="table_14", question_id="q1", before="before", after="after"),
    Example(name="unanswered", question_id="q2", before="before", after="later"),
)
QUESTIONS = {"q1": "How do we agree?", "q2": "May we?"}


def test_endings_tell_a_model_that_never_ends_from_one_that_answers() -> None:
    made = responses.endings({"arena_hard": ANSWERS, "mt_bench": ANSWERS.clear()})
    before, after = made.rows(named=True)
    assert (before["model"], before["answers"], before["ended"], before["empty"]) == ("before", 2, 50.0, 50.0)
    assert (before["looping"], before["tokens_mean"], before["tokens_most"]) == (50.0, 150.5, 300)
    assert before["repeated"] == pytest.approx(50 * 29 / 30)
    assert (after["ended"], after["empty"], after["looping"], after["repeated"]) == (100.0, 0.0, 0.0, 25.0)
    promised = contract.load("response_endings")
    assert all(result.passed for result in check(conform(made, promised), promised, {}))


def test_examples_stand_side_by_side_and_what_was_not_answered_is_blank() -> None:
    made = responses.examples(EXAMPLES, QUESTIONS, ANSWERS)
    one, unanswered = made.rows(named=True)
    assert (one["question"], one["before"], one["after"]) == ("How do we agree?", "before", "after")
    assert repetition.sentences(one["before_loop"]) == ["the facilitator leads it.", "the group meets."]
    assert one["before_loop_times"] == pytest.approx(30, abs=0.5)
    assert (one["before_stopped"], one["after_stopped"], one["after_loop"]) == ("length", "eos", None)
    assert unanswered["before_answer"] == " "
    assert [value for name, value in unanswered.items() if name.startswith("after_")] == [None] * 6
    promised = contract.load("response_examples")
    assert all(result.passed for result in check(conform(made, promised), promised, {}))


def test_examples_of_nobody_and_of_nothing_have_the_shape_of_the_table() -> None:
    assert responses.examples((), {}, ANSWERS).schema == schema(contract.load("response_examples"))
    assert responses.endings({}).schema == schema(contract.load("response_endings"))
    blank = responses.examples(EXAMPLES, {}, ANSWERS.clear())
    assert blank["question"].to_list() == blank["before_answer"].to_list() == [None, None]


def test_an_example_of_a_question_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="example 'unanswered' asks 'q2', which is no question"):
        responses.examples(EXAMPLES, {"q1": "How?"}, ANSWERS)
