"""What a tracker is told of steps: scores and costs, by study, row and version; no result depends on it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import polars as pl
import pytest

from expectations import contract as contracts
from expectations.frames import schema
from nift_assets import environment
from nift_assets.steps import tracking
from nift_assets.steps.lineage import Partition
from nift_assets.steps.table import TableOutput
from nift_assets.store import Store
from nift_training.tracking import follower
from tests.conftest import nift_here
from tests.demo import GRAPH, STUDY, context
from tests.steps.test_guard import TEXTS, completions_that, materialize, sampled, write
from tests.training.tracking.test_tracking import listening, needs, scalars

ADAPTER, MODEL = STUDY.adapters[0].name, STUDY.models[0].name


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(root=str(tmp_path / "warehouse"), study=STUDY.name)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that TensorBoard is told of, and time for it on a busy machine."""
    monkeypatch.setenv(environment.TRACKER, f"tensorboard:{tmp_path / 'runs'}")
    monkeypatch.setattr(follower, "END_SECONDS", 60.0)
    return tmp_path / "runs"


def a_score(store: Store, weights: str) -> None:
    """One judged turn of a model with these weights."""
    judged = {"model": MODEL, "question_id": "1", "turn": 1, "category": "math", "status": "ok", "rating": 7.0}
    answers = {"run": 1, "judge": "j", "judgment": "[[7]]", "reading": "verdict", "published_rating": 7.0}
    columns = schema(contracts.load("mt_bench_judgments"))
    frame = pl.DataFrame([{**judged, **answers, "request_key": "0" * 64}], schema=columns)
    write(store, "mt_bench_judgments", MODEL, frame)
    merged = schema(contracts.load("merged_models"))
    write(store, "merged_models", MODEL, pl.DataFrame([dict.fromkeys(merged) | {"digest": weights}], schema=merged))


@needs("tensorboard")
def test_scores_are_told_by_model_and_version_of_its_weights(store: Store, runs: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        for weights in ("a" * 64, "b" * 64):
            a_score(store, weights)
            assert materialize(instance, store, "benchmark_scores").success
    told = runs / "demo" / "benchmark_scores" / MODEL
    assert sorted(path.name for path in told.iterdir()) == ["aaaaaaaa", "bbbbbbbb"]
    (score,) = store.read("benchmark_scores", None).iter_rows(named=True)
    found = scalars(told / "bbbbbbbb")
    assert found["scores/mt_bench"] == [(0, 7.0)]
    assert found.keys() == {f"scores/mt_bench{end}" for end in ("", "_low", "_high") if score[end[1:] or "score"]}


@needs("tensorboard")
def test_what_was_paid_for_a_partition_is_told_under_its_row_and_version(store: Store, runs: Path) -> None:
    found = {"cost_usd": 0.25, "input_tokens": 12, "output_tokens": 7, "requests_sent": 4, "status_ok": 4}
    functions = completions_that(lambda frame: TableOutput(frame, metadata=found))
    write(store, "raw_sample", None, sampled(TEXTS))
    with dg.DagsterInstance.ephemeral() as instance:
        assert materialize(instance, store, "halves").success
        assert materialize(instance, store, "completions", partition="echo", functions=functions).success
    (version,) = (runs / "demo" / "completions" / "echo").iterdir()
    assert scalars(version) == {
        "cost/usd": [(0, 0.25)],
        "cost/input_tokens": [(0, 12.0)],
        "cost/output_tokens": [(0, 7.0)],
        "cost/requests": [(0, 4.0)],
    }


@needs("mlflow")
def test_a_tracker_that_is_down_fails_no_step_and_is_warned_of(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "END_SECONDS", 60.0)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    a_score(store, "a" * 64)
    with listening(answers=False) as (address, _), dg.DagsterInstance.ephemeral() as instance:
        monkeypatch.setenv(environment.TRACKER, f"mlflow:{address}")
        run = materialize(instance, store, "benchmark_scores")
        lines = [entry.user_message for entry in instance.all_logs(run.run_id) if "tracker:" in entry.user_message]
    assert run.success
    (line,) = lines
    assert line.startswith("tracker: mlflow cannot be told")
    assert store.version("benchmark_scores", None)


def test_nothing_is_stale_because_somebody_is_told(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def versions() -> dict[Partition, str]:
        places = [Partition(table, key) for table in GRAPH.tables for key in GRAPH.keys(table)]
        return {place: GRAPH.inputs_version(store, place) for place in places}

    monkeypatch.delenv(environment.TRACKER, raising=False)
    here = context(store, "lora_adapters", ADAPTER)
    before = versions()
    assert tracking.options(here) == {}
    monkeypatch.setattr(tracking.trackers, "find_spec", lambda name: SimpleNamespace())
    for setting in (f"tensorboard:{tmp_path}", "wandb:mine", "mlflow"):
        monkeypatch.setenv(environment.TRACKER, setting)
        assert versions() == before
        version = before[here.partition][:8]
        assert tracking.options(here) == {
            "tracker": setting,
            "tracked_as": f"demo/lora_adapters/{ADAPTER}/{version}",
        }


def test_a_misspelt_tracker_is_refused_in_one_line_with_those_like_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(environment.TRACKER, "tensorbord:runs")
    with pytest.raises(ValueError, match=r"NIFT_TRACKER names the tracker 'tensorbord' .*did you mean 'tensorboard'\?"):
        tracking.setting()


def test_a_run_with_a_misspelt_tracker_begins_nothing(tmp_path: Path) -> None:
    warehouse = {"NIFT_WAREHOUSE": str(tmp_path / "warehouse"), "DAGSTER_HOME": str(tmp_path / "home")}
    refused = nift_here("run", "halves", environment={**warehouse, environment.TRACKER: "wandbb"})
    assert refused.returncode != 0
    assert refused.stderr.strip().splitlines()[-1].endswith("did you mean 'wandb'?")
    assert not (tmp_path / "warehouse").exists()
