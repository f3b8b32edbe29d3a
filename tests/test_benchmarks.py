"""What the judge is asked, what is read from its words, and the scores that follow."""

from __future__ import annotations

import polars as pl
import pytest

from nift_assets import arena_hard, mt_bench, scores
from nift_assets.studies.demo import STUDY

MT_BENCH = STUDY.benchmark("mt_bench")
ARENA_HARD = STUDY.benchmark("arena_hard")
RATER, COMPARER = STUDY.judge("echo-rater"), STUDY.judge("echo-comparer")


@pytest.mark.parametrize(
    ("judgment", "rating"),
    [
        ("Rating: [[7]]", 7.0),
        ("Rating: [[6.5]] or so", 6.5),
        ("[[3]] at first, but then [[9]]", 3.0),
        ("Rating: [8]", 8.0),
        ("[1] is a footnote, [[5]] the rating", 5.0),
        ("[[08]]", 8.0),
        ("Rating: 7", None),
        ("[[seven]]", None),
        ("$ERROR$", None),
        ("", None),
    ],
)
def test_the_rating_is_the_first_number_in_double_brackets_or_else_in_single_ones(
    judgment: str, rating: float | None
) -> None:
    assert mt_bench.rating(judgment) == rating


@pytest.mark.parametrize(
    ("judgment", "verdict"),
    [
        ("My verdict is [[A>B]].", "A>B"),
        ("[[B>>A]] and once more [[B>>A]]", "B>>A"),
        ("[[A>B]], no, [[B>A]]", None),
        ("A>B", None),
        ("", None),
    ],
)
def test_the_verdict_is_the_one_label_there_is(judgment: str, verdict: str | None) -> None:
    assert arena_hard.verdict(judgment) == verdict


def answers(turns: list[str]) -> pl.DataFrame:
    rows = [("m", 4, "math", 0, turn, text) for turn, text in enumerate(turns, start=1)]
    return pl.DataFrame(rows, schema=["model", "question_id", "category", "run", "turn", "answer"], orient="row")


def test_the_second_turn_is_judged_with_the_first_and_both_references() -> None:
    first, second = mt_bench.requests(MT_BENCH, RATER, answers(["answer one", "answer two"]))
    assert "answer one" in first.messages[1].content
    assert "answer two" not in first.messages[1].content
    assert "answer one" in second.messages[1].content
    assert "answer two" in second.messages[1].content
    assert first.messages[0].content
    assert first.key != second.key


def test_an_answer_that_looks_like_a_placeholder_stays_an_answer() -> None:
    request = mt_bench.requests(MT_BENCH, RATER, answers(["{question} {0} {", "}}"]))[0]
    assert "{question} {0} {" in request.messages[1].content


def test_each_run_is_judged_for_itself() -> None:
    one, two = (mt_bench.requests(MT_BENCH, RATER, answers(["a", "b"]).with_columns(run=pl.lit(r))) for r in (0, 1))
    assert not {r.key for r in one} & {r.key for r in two}


def test_the_answers_change_places_in_the_second_game() -> None:
    question = arena_hard.benchmark_files.rows(ARENA_HARD, "question.jsonl")[0]["question_id"]
    frame = pl.DataFrame({"model": ["m"], "question_id": [question], "answer": ["ours"]})
    games = arena_hard.games(ARENA_HARD, frame)
    assert games["game"].to_list() == [1, 2]
    assert games["b"][0] == games["a"][1] == "ours"
    assert games["a"][0] == games["b"][1] != "ours"


@pytest.mark.parametrize(
    ("verdict", "game", "points", "weight"),
    [
        ("A>>B", 1, 0.0, 3),
        ("A>>B", 2, 1.0, 3),
        ("B>A", 1, 1.0, 1),
        ("B>A", 2, 0.0, 1),
        ("A=B", 2, 0.5, 1),
        ("B=A", 1, None, 0),
        (None, 1, None, 0),
    ],
)
def test_a_verdict_counts_for_the_place_the_model_stands_in(
    verdict: str | None, game: int, points: float | None, weight: int
) -> None:
    assert arena_hard._points(verdict, game) == (points, weight)


def test_mt_bench_is_the_mean_of_the_runs_means_over_rated_rows() -> None:
    ratings = [(0, 1, 8.0), (0, 2, 6.0), (0, 3, None), (1, 1, 4.0), (1, 2, 4.0), (1, 3, 4.0)]
    frame = pl.DataFrame(ratings, schema={"run": pl.Int64, "question_id": pl.Int64, "rating": pl.Float64}, orient="row")
    score = scores.mt_bench("m", frame)
    assert score.score == (7.0 + 4.0) / 2
    assert (score.questions, score.expected, score.missing, score.complete) == (3, 6, 1, False)


def test_arena_hard_is_the_weighted_share_of_battles_won() -> None:
    frame = pl.DataFrame(
        {"question_id": ["a", "a", "b", "b"], "points": [1.0, 0.5, 0.0, None], "weight": [3, 1, 1, 0]},
    )
    score = scores.arena_hard("m", frame)
    assert score.score == pytest.approx(100 * 3.5 / 5)
    assert score.missing == 1
    assert score.low is not None
    assert score.high is not None
    assert score.low <= score.score <= score.high


def test_a_model_without_any_verdict_has_no_score_and_is_incomplete() -> None:
    frame = pl.DataFrame(
        {"question_id": ["a"], "points": [None], "weight": [0]}, schema_overrides={"points": pl.Float64}
    )
    score = scores.arena_hard("m", frame)
    assert (score.score, score.low, score.high, score.complete) == (None, None, None, False)


def test_ifeval_is_the_mean_of_prompt_and_instruction_accuracy() -> None:
    frame = pl.DataFrame(
        {"prompt_strict": [True, False], "instructions_followed_strict": [2, 1], "instructions": [2, 3]},
    )
    assert scores.instructions("m", frame).score == pytest.approx(100 * (1 / 2 + 3 / 5) / 2)


def test_the_interval_is_the_same_every_time_and_narrows_with_more_questions() -> None:
    def width(questions: int) -> float:
        points = pl.DataFrame({"question_id": range(questions), "points": [0.0, 1.0] * (questions // 2), "weight": 1})
        score = scores.arena_hard("m", points)
        assert score == scores.arena_hard("m", points)
        assert score.low is not None
        assert score.high is not None
        return score.high - score.low

    assert width(400) < width(40) / 2
    # A share of one half of n questions has the standard error 50 / sqrt(n).
    assert width(400) == pytest.approx(2 * 1.96 * 50 / 400**0.5, rel=0.1)
