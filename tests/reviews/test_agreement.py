"""How far raters agree: the published examples to the digit, intervals that hold, and who is compared with whom."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from expectations import contract
from expectations.frames import conform
from nift_assets import benchmarks, raters, reviews
from nift_assets.benchmarks.scoring import agreement
from nift_assets.pages import agreement as agreement_page
from nift_assets.raters import Rated, Rater
from nift_assets.store import Store
from nift_assets.table_files import version_of
from tests.demo import GRAPH, context
from tests.reviews.test_reviews import pair

# Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), section C: four observers, twelve units.
OBSERVERS = (
    "1 2 3 3 2 1 4 1 2 . . .",
    "1 2 3 3 2 2 4 1 2 5 . 3",
    ". 3 3 3 2 3 4 2 2 5 1 .",
    "1 2 3 3 2 4 4 1 2 5 1 .",
)


def units(*observers: str) -> list[tuple[int, list[str]]]:
    columns = zip(*(line.split() for line in observers), strict=True)
    return [(unit, [label for label in labels if label != "."]) for unit, labels in enumerate(columns)]


def table_of(*counts: tuple[str, str, int]) -> list[tuple[int, str, str]]:
    rows = [(one, other) for one, other, times in counts for _ in range(times)]
    return [(place, one, other) for place, (one, other) in enumerate(rows)]


def test_alpha_is_that_of_krippendorff_s_examples() -> None:
    four = agreement.alpha(units(*OBSERVERS))
    assert four is not None
    assert (four.rows, round(four.value or 0, 3)) == (11, 0.743)
    # Section A, two observers of binary data without gaps.
    two = agreement.alpha(units("0 1 0 0 0 0 0 0 1 0", "1 1 1 0 0 1 0 0 0 0"))
    assert two is not None
    assert (two.rows, two.agreed, round(two.value or 0, 3)) == (10, 6, 0.095)


def test_kappa_is_that_of_cohen_s_formula_worked_by_hand() -> None:
    # Of 50 proposals 20 are taken and 15 refused by both: 0.7 observed, 0.5 by chance.
    found = agreement.kappa(table_of(("yes", "yes", 20), ("yes", "no", 5), ("no", "yes", 10), ("no", "no", 15)))
    assert found is not None
    assert (found.rows, found.agreed, found.share) == (50, 35, pytest.approx(0.7))
    assert found.value == pytest.approx(0.4)
    # Three labels, 100 rows: 0.44 + 0.20 + 0.06 observed, 0.3 + 0.09 + 0.02 by chance (Cohen 1960, table 1).
    three = agreement.kappa(
        table_of(
            ("a", "a", 25), ("a", "b", 13), ("a", "c", 12),
            ("b", "a", 12), ("b", "b", 2), ("b", "c", 16),
            ("c", "a", 3), ("c", "b", 15), ("c", "c", 2),
        )
    )  # fmt: skip
    assert three is not None
    assert three.value == pytest.approx((0.29 - (0.5 * 0.4 + 0.3 * 0.3 + 0.2 * 0.3)) / (1 - 0.35))


def test_where_all_verdicts_are_the_same_there_is_no_value_and_of_one_document_no_interval() -> None:
    same = agreement.kappa([("d1", "keep", "keep"), ("d2", "keep", "keep")])
    assert same is not None
    assert (same.share, same.share_low, same.value, same.low) == (1.0, 1.0, None, None)
    alone = agreement.kappa([("d1", "keep", "keep"), ("d1", "drop", "keep"), ("d1", "drop", "drop")])
    assert alone is not None
    assert (alone.clusters, alone.share_low, alone.low) == (1, None, None)
    assert alone.value == pytest.approx(0.4)
    assert agreement.kappa([]) is None
    assert agreement.alpha([("d1", ["keep"])]) is None


def test_the_interval_covers_the_truth_about_nineteen_times_in_twenty_and_is_the_same_each_time() -> None:
    chance, covered = random.Random(3), 0
    for _ in range(60):
        labels = chance.choices(["keep", "drop"], k=80)
        rated = [(n, label, label if chance.random() < 0.8 else "drop") for n, label in enumerate(labels)]
        found = agreement.kappa(rated)
        assert found is not None
        assert found == agreement.kappa(rated)
        assert found.low is not None
        assert found.high is not None
        # Observed 0.9; by chance 0.5 * 0.4 + 0.5 * 0.6.
        covered += found.low <= (0.9 - 0.5) / 0.5 <= found.high
    assert covered >= 52


def test_ratings_of_one_document_stay_together_in_the_bootstrap() -> None:
    ten = [(n, "keep" if n % 2 else "drop", "keep" if n % 3 else "drop") for n in range(10)]
    copied = [(n, one, other) for n, one, other in ten for _ in range(4)]
    few, many = agreement.kappa(ten), agreement.kappa(copied)
    assert few is not None
    assert many is not None
    assert (many.value, many.low, many.high) == pytest.approx((few.value, few.low, few.high))


# -- who is compared with whom, on the demo's own rows


TEXTS = {"first_half": "The ferry left", "completion": " without its horn."}
DOCUMENTS = [f"d{number}" for number in range(8)]
MODELS = ("pico", "pico-instruct")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(root=str(tmp_path), study="demo")


def stored(store: Store, table: str, key: str | None, rows: Sequence[dict[str, Any]]) -> None:
    """A table with those columns alone that are read of it here."""
    frame = pl.DataFrame(rows)
    store.write(table, key, frame, version_of(frame, "made by a test"))


def agreed(store: Store) -> tuple[dict[tuple[str, str, str], tuple[Any, ...]], dict[str, int]]:
    made = GRAPH.tables["review_agreement"].function(context(store, "review_agreement"))
    promised = contract.load("review_agreement")
    assert conform(made.rows, promised).columns == [column.name for column in promised.columns]
    return {
        (subject, rater, other): tuple(rest)
        for subject, rater, other, *rest in made.rows.select("subject", "rater", "other", "rows", "agreed").iter_rows()
    }, dict(made.metadata)


def test_people_are_compared_with_one_another_the_auditor_and_each_filter(store: Store) -> None:
    completion = {"teacher": "original", "status": "ok", "completion": TEXTS["completion"]}
    stored(store, "completions", "original", [{"document_id": one, **completion} for one in DOCUMENTS])
    stored(store, "halves", None, [{"document_id": one, "first_half": TEXTS["first_half"]} for one in DOCUMENTS])
    stored(store, "prompt_echo_removals", "original", [{"document_id": "d0"}])
    verdicts = {"d0": ("yes", "no"), "d1": ("no", "no"), "d2": ("no", "invalid")}
    asked = [{"document_id": one, "verdict": said} for one, both in verdicts.items() for said in both]
    stored(store, "content_audit", "original", [{**row, "kind": "teacher"} for row in asked])
    for who, said in {"Ann": "dddkkkuk", "Bob": "dkdkkkkk"}.items():
        for document, letter in zip(DOCUMENTS, said, strict=True):
            verdict = {"d": "drop", "k": "keep", "u": "unsure"}[letter]
            reviews.append(store, pair(who, document, verdict, teacher="original", reason="r", **TEXTS))
    older = pair("Eve", "d1", "drop", teacher="original", reason="r", first_half="The ferry", completion=" left")
    reviews.append(store, older)
    found, counted = agreed(store)
    assert found == {
        ("pairs", "all of them", "all of them"): (7, 6),
        ("pairs", "Ann", "Bob"): (7, 6),
        ("pairs", "Ann", "echo-auditor"): (2, 1),
        ("pairs", "Bob", "echo-auditor"): (2, 2),
        ("pairs", "most of them", "echo-auditor"): (1, 1),
        ("pairs", "Ann", "prompt_echo"): (7, 5),
        ("pairs", "Bob", "prompt_echo"): (8, 7),
        ("pairs", "most of them", "prompt_echo"): (7, 6),
    }
    assert counted == {"verdicts": 17, "of_them_counted": 16}


def judged(question: int, turn: int, model: str, rating: float | None) -> dict[str, Any]:
    key = {"question_id": question, "run": 0, "turn": turn, "model": model, "judge": "echo-rater"}
    return {**key, "rating": rating, "published_rating": rating, "reading": "verdict" if rating else "unreadable"}


def test_people_are_compared_with_the_judge_by_the_scores_it_gave_and_questions_are_resampled(store: Store) -> None:
    # What the judge gave to either model, and what Ann prefers; of the last question a rating is missing.
    said = {
        (1, 1): (7.0, 4.0, "pico"), (1, 2): (3.0, 5.0, "pico"), (2, 1): (6.0, 6.0, "tie"),
        (3, 1): (2.0, 9.0, "pico-instruct"), (4, 1): (None, 9.0, "pico"),
    }  # fmt: skip
    for place, model in enumerate(MODELS):
        ratings = [judged(*at, model, scores[place]) for at, scores in said.items()]
        stored(store, "mt_bench_judgments", model, ratings)
        answers = [{**row, "answer": f"{model} says {row['question_id']}.{row['turn']}"} for row in ratings]
        stored(store, "mt_bench_answers", model, answers)
    for (question, turn), (_, _, preferred) in said.items():
        key = {"question_id": question, "run": 0, "turn": turn}
        shown = reviews.order("Ann", key, MODELS)
        verdict: Any = preferred if preferred == "tie" else ("left", "right")[shown.index(preferred)]
        reviews.append(
            store,
            reviews.of_answers(
                reviewer="Ann",
                table=benchmarks.answers_table("mt_bench"),
                benchmark="mt_bench",
                question=key,
                answers={model: f"{model} says {question}.{turn}" for model in shown},
                versions=dict.fromkeys(MODELS, "v"),
                verdict=verdict,
            ),
        )
    found, counted = agreed(store)
    assert found == {("mt_bench", "Ann", "echo-rater"): (4, 3)}
    assert counted == {"verdicts": 5, "of_them_counted": 5}
    made = GRAPH.tables["review_agreement"].function(context(store, "review_agreement")).rows
    assert made["clusters"].to_list() == [3]


def test_the_table_of_the_report_names_raters_and_subjects_in_words_and_leaves_out_what_there_is_not() -> None:
    ratings = {
        "pairs": {
            Rated("d1", "echo d1"): {Rater("person", "Ann"): "keep", Rater("person", "Bob"): "keep"},
            Rated("d2", "echo d2"): {Rater("person", "Ann"): "drop", Rater("filter", "prompt_echo"): "keep"},
        },
        "mt_bench": {Rated("81", "81 a b"): {Rater("person", "Ann"): "a", Rater("judge", "gpt"): "tie"}},
    }
    assert agreement_page.rows(raters.table(ratings)) == [
        ["pairs", "all people", "one another", "1", "1 document", "100%", None],
        ["pairs", "Ann", "Bob", "1", "1 document", "100%", None],
        ["pairs", "Ann", "filter prompt_echo", "1", "1 document", "0%", "0.00"],
        ["pairs", "most of them", "filter prompt_echo", "1", "1 document", "0%", "0.00"],
        ["MT-Bench", "Ann", "judge gpt", "1", "1 question", "0%", "0.00"],
    ]
    assert {len(line) for line in agreement_page.rows(raters.table(ratings))} == {len(agreement_page.COLUMNS)}
    assert agreement_page.rows(raters.table({})) == []


def test_nothing_is_read_where_nobody_has_reviewed(store: Store) -> None:
    store.folder("completions").mkdir(parents=True)
    store.path("completions", "original").write_bytes(b"no table at all")
    assert agreed(store) == ({}, {"verdicts": 0, "of_them_counted": 0})
