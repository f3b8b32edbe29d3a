"""The funnel of stored tables: nothing of a filter that was not run, zero of one that found nothing."""

from __future__ import annotations

from pathlib import Path

import dagster as dg

from nift_assets.pages import plots, report
from nift_assets.steps.lineage import Partition
from nift_assets.store import Store
from tests.demo import GRAPH, STUDY
from tests.steps.test_guard import TEXTS, as_it_is, completions_that, materialize, sampled, write

FUNNEL = Partition("funnel", None)


def steps_of(store: Store, teacher: str) -> dict[str, list[int | None]]:
    """Place, what was found, dropped and left, by the step."""
    rows = store.read(*FUNNEL).filter(teacher=teacher).select("step", "place", "flagged", "dropped", "kept")
    return {step: numbers for step, *numbers in rows.rows()}


def test_a_filter_is_in_the_funnel_once_it_was_run_also_where_it_found_nothing(tmp_path: Path) -> None:
    store = Store(root=str(tmp_path), study=STUDY.name)
    write(store, "raw_sample", None, sampled(TEXTS))
    functions = completions_that(as_it_is)
    with dg.DagsterInstance.ephemeral() as instance:
        assert materialize(instance, store, "halves").success
        for teacher in ("echo", "original"):
            assert materialize(instance, store, "completions", partition=teacher, functions=functions).success
        assert materialize(instance, store, "funnel").success
        before = steps_of(store, "echo")
        assert list(before) == ["sampled", "cut", "asked", "answered", "ok"]
        assert GRAPH.is_current(store, FUNNEL)

        assert materialize(instance, store, "prompt_echo_removals", partition="echo").success
        assert store.read("prompt_echo_removals", "echo").is_empty()
        assert not GRAPH.is_current(store, FUNNEL), "what has come since makes it stale"
        assert materialize(instance, store, "funnel").success
    after = steps_of(store, "echo")
    assert after == {**before, "prompt_echo": [6, 0, 0, len(TEXTS)]}
    assert "prompt_echo" not in steps_of(store, "original"), "it was run over one teacher's completions"
    frames = {"funnel": store.read(*FUNNEL), "completions": store.read("completions", "original")}
    shown = report.funnel(STUDY.teacher("original"), frames)
    assert shown.filters == []
    assert plots.funnel(frames["funnel"]).startswith(b"\x89PNG")
