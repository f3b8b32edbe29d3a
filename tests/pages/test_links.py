"""Every link that leads to the viewer from elsewhere is answered: from the report, and from the cards of a run."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from html.parser import HTMLParser

import polars as pl
import pytest
from starlette.testclient import TestClient

from expectations import contract
from expectations.frames import schema
from expectations.results import LastResult
from nift_assets.hub import weights_facts
from nift_assets.pages import report
from nift_assets.pages.report import CheckedTable
from nift_assets.pages.viewer import files, links
from nift_assets.steps import failing_rows
from nift_assets.steps import samples as sample_cards
from nift_assets.steps.lineage import Partition
from nift_assets.store import Store
from tests.pages.viewer_store import DEMO, MODELS, application, document, filled, frame, write

SCORE = {"score": 5.0, "low": 4.5, "high": 5.5, "paper": 6.0, "complete": True}
# A benchmark whose answers are read in words, one that is counted in tasks, and a model of somebody else.
OTHERS = ({"name": "gpt-4", "benchmark": "arena_hard"}, {"name": "pico", "benchmark": "open_llm_leaderboard"})


class Served(HTMLParser):
    """The addresses of the links that a page has for who reads it on the server."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        if tag == "a" and "served" in (told.get("class") or "").split():
            self.found.append(told["href"] or "")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return filled(str(tmp_path_factory.mktemp("warehouse")), documents=8)


def test_every_link_of_the_report_leads_to_what_it_says(store: Store) -> None:
    of_model = {"name": "pico", "backbone": "b", "module": "lora", "teacher": "echo", **SCORE}
    rows = {
        "benchmark_scores": [{"benchmark": "mt_bench", "model": model, "expected": 3, **SCORE} for model in MODELS],
        "table_1": [{"model": "pico", "mt_bench": 5.0, "oll": 4.0}],
        "table_2": [of_model],
        "table_5": [of_model | {"title": "t"}],
        "table_7": [of_model | {"benchmark": "arena_hard"}, *({**of_model, **other} for other in OTHERS)],
    }
    frames = {
        name: pl.DataFrame(
            [{key: value for key, value in row.items() if key in schema(contract.load(name))} for row in rows[name]]
            if name in rows
            else [],
            schema=schema(contract.load(name)),
            orient="row",
        )
        for name in report.INPUTS
    }
    frames |= {"halves": store.read("halves", None), "completions": store.read("completions", "echo")}
    kept = [(file.partition, test) for file, test in files.failing(store)]
    test = contract.load("completions").tests[0]
    rows_of_test = pl.DataFrame({"document_id": [document(1)]})
    failing_rows.keep(store, Partition("completions", "echo"), {test.name: rows_of_test}, [])
    result = LastResult(partition="echo", passed=False, message="1 row", at=datetime.now(UTC))
    checked = CheckedTable(
        table="completions", tests=[test], results={test.name: [result]}, kept=[*kept, ("echo", test.name)]
    )
    samples = report.samples(DEMO.teachers, frames["halves"], frames["completions"])
    found = Served(report.page(DEMO, frames, checked=[checked], samples=samples)).found
    client = TestClient(application(store))
    assert [(path, client.get(path).status_code) for path in found if client.get(path).status_code != 200] == []
    assert links.failing("completions", "echo", test.name) in found
    assert links.pair(document(1)) in found
    # Once in the table of scores, and in tables 1 and 2.
    assert found.count(links.answers("mt_bench", "pico")) == 3
    # In tables 5 and 7.
    assert found.count(links.answers("arena_hard", "pico")) == 2
    assert not [path for path in found if "gpt-4" in path or "leaderboard" in path]


def test_a_test_whose_rows_are_not_kept_has_no_link() -> None:
    test = contract.load("completions").tests[0]
    result = LastResult(partition="echo", passed=False, message="1 row", at=datetime.now(UTC))
    checked = CheckedTable(table="completions", tests=[test], results={test.name: [result]}, kept=[(None, test.name)])
    frames = {name: pl.DataFrame(schema=schema(contract.load(name))) for name in report.INPUTS}
    assert Served(report.page(DEMO, frames, checked=[checked])).found == []


def test_a_card_of_a_run_leads_to_its_row(store: Store) -> None:
    texts = [f"completion {number} " + "word " * 40 for number in range(3)]
    rows = frame("completions", [{"document_id": document(n), "completion": text} for n, text in enumerate(texts)])
    write(store, "completions", "local", rows)
    card = str(sample_cards.of(rows, Partition("completions", "local")).value)
    found = re.findall(r"\[the whole row\]\((\S+)\)", card)
    assert len(found) == 3
    client = TestClient(application(store))
    for path, text in zip(found, texts, strict=True):
        answer = client.get(path)
        assert answer.status_code == 200
        assert text.strip() in answer.text
    assert "the whole row" not in str(sample_cards.of(pl.DataFrame({"t": texts}), Partition("t", None)).value)


def test_what_a_card_on_the_hub_names_is_a_page(store: Store) -> None:
    client = TestClient(application(store))
    for model in (DEMO.model("pico"), None):
        named = weights_facts.answers(DEMO, model)
        assert named
        assert {client.get(path).status_code for path in named} == {200}
