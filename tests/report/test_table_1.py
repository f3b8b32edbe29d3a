"""Table 1 of the demo: the study's rows in its order, and no score lost on the way."""

import polars as pl

from expectations import contract
from expectations.frames import conform, schema
from expectations.runner import check
from nift_assets import sql, studies

DEMO = studies.load("demo")
CONTRACT = contract.load("table_1")
SCORES = pl.DataFrame(
    [
        {"model": model.name, "benchmark": benchmark, "score": 5.0, "low": 4.0, "high": 6.0, "complete": True}
        for model in DEMO.models[1:]
        for benchmark in ("mt_bench", "arena_hard", "open_llm_leaderboard")
    ],
    schema=schema(contract.load("benchmark_scores")),
    orient="row",
)

INPUTS = {
    "benchmark_scores": SCORES,
    **sql.named_study_rows(DEMO, (test.arguments.get("sql", "") for test in CONTRACT.tests)),
}


def table_1() -> pl.DataFrame:
    model = sql.compile("table_1")
    rows = {f"{sql.STUDY_PREFIX}{name}": sql.study_rows(DEMO, name) for name in model.studies}
    return conform(sql.run(model, {"benchmark_scores": SCORES, **rows}, None), CONTRACT)


def test_the_models_stand_in_the_order_of_the_study_measured_or_not() -> None:
    made = table_1()
    assert made["model"].to_list() == [model.name for model in DEMO.models]
    assert made["mt_bench"].null_count() == made["oll"].null_count() == 1
    assert all(result.passed for result in check(made, CONTRACT, INPUTS))


def test_a_score_that_is_lost_fails_the_check() -> None:
    for spoilt in (
        table_1().with_columns(pl.lit(None, dtype=pl.Float64).alias("oll")),
        table_1().with_columns(pl.col("mt_bench") + 1),
    ):
        failed = {result.name for result in check(spoilt, CONTRACT, INPUTS) if not result.passed}
        assert failed == {"every_score_is_in_the_table"}


def test_a_model_that_is_lost_fails_the_checks() -> None:
    failed = {result.name for result in check(table_1()[:-1], CONTRACT, INPUTS) if not result.passed}
    assert failed == {"every_score_is_in_the_table", "a_row_for_every_model_of_the_study"}
