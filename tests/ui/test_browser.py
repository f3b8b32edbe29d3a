"""Dagster as a person uses it: the real UI with its webserver, daemon and runs, and Chromium that clicks in it.

The data is made by one click, one teacher by the dialog of its partitions, then two teachers with all that is made from
them, of whom one breaks its contract. The articles are full of markup, and whatever asks for another machine meanwhile,
in the browser or behind it, is written down.
"""

from __future__ import annotations

import json
import os
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl
import pytest

from expectations import contract as contracts
from expectations.frames import schema
from nift_assets.steps.lineage import Partition
from nift_assets.store import Store
from nift_assets.takeover import known_to_dagster
from tests.conftest import instance_at
from tests.counting import Counts
from tests.demo import GRAPH
from tests.ledger.fault_server import FaultServer
from tests.page_reader import ALIVE, PAYLOADS
from tests.steps.test_guard import materialize, write
from tests.ui.browser import Strangers, choose, chromium, click, until, window
from tests.ui.server import UI, ui
from tests.ui.test_backfill import DATA, made

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.skipif(
    not (chromium() or os.environ.get("CI")), reason="there is no Chromium here; `make browser` installs it"
)

SECONDS = 600
LINEAGE = "/asset-groups"
# What Dagster hides cards behind.
CARDS = "Show Markdown"
OF_TEACHERS = (
    "completions",
    "completion_rejects",
    "uppercase_start_removals",
    "prompt_echo_removals",
    "contamination_removals",
    "filtered_completions",
)
SELECTION = (*OF_TEACHERS, "training_sets")
AUDIT = "original"
ANY_TEXT = ("attack", "auditor", "status", "answer", "answered_by", "request_key")
DOCUMENTS = 24
PLANTED = (
    "<img src=x onerror=alert(1)>",
    "<script>alert(2)</script>",
    "![an image](https://example.org/a.png)",
    "[a link](javascript:alert(3))",
    "<iframe src=https://example.org></iframe>",
)
STUDY = """
import dataclasses
from nift_assets import studies
from nift_assets.studies import Limits, Teacher, TrainingSet

DEMO = studies.load("demo")
# Its server refuses every other request for good: more than the contract lets pass.
REFUSED = Teacher(name="refused", provider="openai", model="m", base_url={url!r}, key_variable="FAULT_SERVER_KEY",
                  limits=Limits(backoff_seconds=0.05))
# Without the filter that waits for an audit, which is one look of the daemon less, and without what is trained.
STUDY = dataclasses.replace(
    DEMO,
    teachers=(*DEMO.teachers, REFUSED),
    filters=tuple(row for row in DEMO.filters if row.name != "audited"),
    # Other names than the teachers': of partitions that are the same Dagster has nothing to show beforehand.
    training_sets=tuple(TrainingSet(name=name, teacher=name) for name in ("original", "echo", "refused")),
    adapters=(), models=DEMO.models[:2], examples=(), publications=(),
)
"""
NODES = """
{ assetNodes {
    assetKey { path } groupName description opVersion kinds isMaterializable
    owners { ... on TeamAssetOwner { team } }
    partitionKeys dependencyKeys { path }
    assetChecksOrError { ... on AssetChecks { checks {
        name executionForLatestMaterialization { status }
        partitionStatuses { ... on AssetCheckDefaultPartitionStatuses { succeededPartitions failedPartitions } }
    } } }
} }
"""
BACKFILLS = """
{ partitionBackfillsOrError { ... on PartitionBackfills { results {
    id status runs(limit: 50) { status tags { key value } }
} } } }
"""
CHECK = """
query ($asset: AssetKeyInput!, $check: String!) {
    assetCheckExecutions(assetKey: $asset, checkName: $check, limit: 50) { status evaluation { partition severity } }
}
"""


@dataclass(frozen=True)
class Place:
    """The running UI and a page of Chromium on it, what each wanted of other machines, all that the page asked for, and
    the windows that a script in it opened."""

    folder: Path
    ui: UI
    page: Page
    behind_the_ui: Strangers
    behind_the_page: Strangers
    asked: list[str] = field(default_factory=list)
    alerts: list[str] = field(default_factory=list)

    def open(self, path: str, **query: str) -> None:
        self.page.goto(self.ui.url + path + (f"?{urllib.parse.urlencode(query)}" if query else ""))

    def select(self, *tables: str) -> None:
        """The lineage of these tables only."""
        selection = " or ".join(f'key:"{name}"' for name in tables)
        self.open(f"/asset-groups~{urllib.parse.quote(selection, safe='')}/")

    def made(self) -> dict[str, set[str]]:
        with instance_at(self.folder / ".dagster" / self.study) as instance:
            return dict(made(instance))

    @property
    def study(self) -> str:
        (home,) = (self.folder / ".dagster").iterdir()
        return home.name

    def wait(self, look: Callable[[], bool], what: str) -> None:
        """Waits with the page closed, whose turning wheels cost more than the runs that are waited for."""
        self.page.goto("about:blank")
        end = time.monotonic() + SECONDS
        while not look():
            assert time.monotonic() < end, f"{what}: not after {SECONDS} s"
            time.sleep(1)

    def has_text(self, *texts: str) -> None:
        """Waits until the page shows all of these."""
        for text in texts:
            self.page.get_by_text(text).locator("visible=true").first.wait_for()


def launch(page: Page, button: str, *partitions: str) -> None:
    """Clicks through the dialog of partitions as far as its last button, which is left to the caller."""
    # Asked where something upstream is not there, such as the backbones, which only a local teacher needs.
    confirm = page.get_by_role("button", name="Confirm")
    until(page, confirm.is_visible, "the question", click(page.get_by_role("button", name=button).first))
    until(page, page.get_by_text("Partition selection").is_visible, "the dialog of partitions", click(confirm))
    choose(page, *partitions)


def press(page: Page, button: str, says: str) -> None:
    """Presses a button that starts something, which the page then tells; not again while that may be on its way."""
    place = page.get_by_role("button", name=button)
    until(page, page.get_by_text(says).first.is_visible, says, click(place), again=30)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The UI on articles full of markup, in a folder where nobody has used nift before, and Chromium beside it."""
    folder = tmp_path_factory.mktemp("fresh")
    markup = " ".join(PLANTED)
    articles = [f"In town {number}. {f'{markup} So far part {number}. ' * 4}" for number in range(DOCUMENTS)]
    (folder / "planted.jsonl").write_text("\n".join(json.dumps({"text": article}) for article in articles))
    behind_the_ui, behind_the_page = Strangers(), Strangers()
    with FaultServer(faults=[{"fault": "bad_request", "share": 0.5, "seed": 8}]) as server:
        (folder / "own.py").write_text(STUDY.format(url=f"{server.url}/v1"))
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("NIFT_", "DAGSTER_"))}
        environment |= {
            "HOME": str(folder),
            "NIFT_STUDY": str(folder / "own.py"),
            "NIFT_WAREHOUSE": str(folder / "warehouse"),
            "FAULT_SERVER_KEY": "sk-test-0123456789abcdef",
            **behind_the_ui.environment(),
        }
        found = chromium()
        assert found, "CI has no Chromium; `make browser` installs it"
        with (
            window(found, behind_the_page) as page,
            ui(environment, folder, "--corpus", str(folder / "planted.jsonl")) as running,
        ):
            print(f"the UI was ready in {running.seconds:.1f} s")
            place = Place(folder, running, page, behind_the_ui, behind_the_page)
            page.on("request", lambda request: place.asked.append(request.url))
            page.on("websocket", lambda socket: place.asked.append(socket.url))
            page.on("dialog", lambda dialog: (place.alerts.append(dialog.message), dialog.dismiss()))
            page.goto(running.entrance.replace("/?", f"{LINEAGE}?"))
            yield place
    behind_the_ui.close()
    behind_the_page.close()


@pytest.fixture(scope="module")
def data(place: Place) -> Place:
    """The data after one click on its lineage."""
    place.select(*DATA)
    place.has_text("Never materialized")
    press(place.page, "Materialize all", "Launched run")
    place.wait(lambda: place.made().keys() == set(DATA), "the data")
    return place


@pytest.fixture(scope="module")
def launched(data: Place) -> str:
    """The back-fill of two teachers, launched by clicking; the words of its preview."""
    data.select(*SELECTION)
    launch(data.page, "Materialize all", "original", "refused")
    dialogs = data.page.get_by_role("dialog")
    until(data.page, lambda: dialogs.count() == 2, "the preview", click(data.page.get_by_text("Preview", exact=True)))
    shown = dialogs.last
    # Each table with both partitions; a table comes into the list when its own question to the server is answered.
    until(data.page, lambda: len(told(shown.inner_text())) == 2 * len(SELECTION), "the whole preview")
    preview = shown.inner_text()
    until(
        data.page,
        lambda: dialogs.count() == 1,
        "the end of the preview",
        click(data.page.get_by_role("button", name="OK")),
    )
    press(data.page, "Launch backfill", "Created backfill")
    return preview


@pytest.fixture(scope="module")
def echo(data: Place, launched: str) -> Place:
    """The completions of one teacher, made through the dialog while the back-fill waits for the daemon."""
    data.open("/assets/completions")
    launch(data.page, "Materialize", "echo")
    press(data.page, "Launch 1 run", "Launched run")
    data.wait(lambda: "echo" in data.made().get("completions", ()), "the completions")
    return data


@pytest.fixture(scope="module")
def teachers(echo: Place) -> Place:
    """Both teachers of the back-fill at their end: one with all that is made from it, the other refused."""
    echo.wait(lambda: len(ended(echo)) >= 2, "both teachers")
    return echo


@pytest.fixture(scope="module")
def finished(teachers: Place) -> dict[str, Any]:
    """The back-fill when the daemon has seen its end."""
    teachers.wait(lambda: backfill(teachers)["status"].startswith("COMPLETED_"), "the end of the back-fill")
    return backfill(teachers)


def told(preview: str) -> set[tuple[str, str]]:
    """The tables in the preview of a back-fill, each with its partitions."""
    found, name = set(), ""
    for line in preview.splitlines():
        if line in SELECTION:
            name = line
        elif line in ("original", "local", "echo", "refused"):
            found.add((name, line))
    return found


def backfill(place: Place) -> dict[str, Any]:
    (found,) = place.ui.graphql(BACKFILLS)["partitionBackfillsOrError"]["results"]
    return dict(found)


def ended(place: Place) -> list[dict[str, Any]]:
    return [run for run in backfill(place)["runs"] if run["status"] in ("SUCCESS", "FAILURE")]


def test_the_lineage_shows_every_group(place: Place) -> None:
    groups = {node["groupName"] for node in place.ui.graphql(NODES)["assetNodes"]}
    assert len(groups) >= 8
    if not place.page.url.endswith(LINEAGE):  # which is where it was entered
        place.open(LINEAGE)
    place.has_text(*groups)


def test_a_click_makes_what_is_not_cut_along_anything(data: Place) -> None:
    data.select(*DATA)
    data.has_text("Materialized")
    assert data.page.get_by_text("Never materialized").count() == 0


def test_the_dialog_says_beforehand_what_a_backfill_makes(launched: str) -> None:
    assert told(launched) == {(name, key) for name in SELECTION for key in ("original", "refused")}


def test_the_dialog_of_partitions_makes_one_of_them(echo: Place) -> None:
    assert "echo" not in echo.made().get("completion_rejects", ())
    echo.open("/assets/completions", view="partitions", partition="echo")
    echo.has_text("Latest materialization", "status_ok")


def test_numbers_are_drawn_and_rows_are_shown_with_markup_as_text(echo: Place) -> None:
    echo.open("/assets/completions")
    plots = click(echo.page.locator("button", has_text="Plots"))
    drawn = "() => [...document.querySelectorAll('canvas')].filter(c => c.width && c.height).length"
    until(echo.page, lambda: echo.page.evaluate(drawn) >= 3, "three plots", plots, again=10)
    echo.has_text("cost_usd", "output_tokens", "status_ok")
    echo.open("/assets/raw_sample")
    rows = Store(root=str(echo.folder / "warehouse"), study=echo.study).read("raw_sample", None)
    # The lines of a card are folded, in scripts without spaces between any two letters.
    texts = ["".join(text[:100].split()) for text in rows["text"].head(5)]

    def shown() -> bool:
        body = "".join(echo.page.inner_text("body").split())
        return all(text in body for text in texts)

    until(echo.page, shown, "the first rows", click(echo.page.get_by_text(CARDS).first), again=10)
    # And the markup in them is text.
    page = echo.page
    hostile = ("<img src=x onerror=alert(1)>", "<script>alert(2)</script>")
    assert [text for text in hostile if text not in page.inner_text("body")] == []
    assert page.locator(ALIVE).count() == 0
    assert not [text for text in echo.page.locator("script").all_inner_texts() if "alert(2)" in text]


def test_a_teacher_is_made_with_all_that_is_made_from_it(teachers: Place) -> None:
    found = teachers.made()
    assert found["completions"] == {"echo", "original"}
    assert {name: found[name] for name in OF_TEACHERS[1:]} == {name: {"original"} for name in OF_TEACHERS[1:]}


def test_a_failed_check_is_seen_on_its_partition_and_nothing_was_written(teachers: Place) -> None:
    teachers.open("/assets/completions", view="checks", checkDetail="most_are_answered")
    teachers.has_text("Latest execution")
    page = teachers.page
    # The first is in the box that filters the list, the second in the list.
    refused = page.get_by_text("refused", exact=True).and_(page.locator(":visible")).nth(1)
    until(page, refused.is_visible, "the list", click(page.get_by_text("Partitions", exact=True).last))
    until(page, page.get_by_text("expected at most 20%").first.is_visible, "the check", click(refused))
    teachers.has_text("Failed")
    teachers.open("/assets/completions", view="partitions", partition="refused")
    teachers.has_text("Failed (1)")
    assert not list((teachers.folder / "warehouse").rglob("refused.parquet"))


def test_a_check_that_warns_is_shown_as_one_and_stops_nothing(teachers: Place) -> None:
    variables = {"asset": {"path": ["completions"]}, "check": "few_are_refused"}
    executions = teachers.ui.graphql(CHECK, variables)["assetCheckExecutions"]
    found = {e["evaluation"]["partition"]: (e["status"], e["evaluation"]["severity"]) for e in executions}
    assert found["original"] == ("SUCCEEDED", "WARN")
    assert found["echo"] == ("FAILED", "WARN")


def test_the_ui_shows_what_every_asset_is(place: Place) -> None:
    nodes = {node["assetKey"]["path"][-1]: node for node in place.ui.graphql(NODES)["assetNodes"]}
    made_here = {name for name, node in nodes.items() if node["isMaterializable"]}
    assert made_here == set(GRAPH.tables) - {"audited_removals"}  # of the filter that this study is without
    for name, node in nodes.items():
        assert node["description"], name
        assert node["groupName"] != "default", name
        assert node["kinds"], name
        assert node["owners"] == [{"team": "nift"}], name
    for name in made_here:
        step = GRAPH.tables[name]
        assert nodes[name]["opVersion"] == known_to_dagster(GRAPH.study, step, name)
        assert bool(nodes[name]["partitionKeys"]) == (step.partitions not in (None, "adapter")), name  # none is trained
        assert {key["path"][-1] for key in nodes[name]["dependencyKeys"]} >= set(step.inputs) & made_here
        assert nodes[name]["assetChecksOrError"]["checks"], name
    assert nodes["completions"]["partitionKeys"] == ["original", "local", "echo", "refused"]


def test_a_fresh_folder_gets_an_instance_without_telemetry(place: Place) -> None:
    instance = place.folder / ".dagster" / place.study
    assert "telemetry:\n  enabled: false" in (instance / "dagster.yaml").read_text()
    assert '"telemetryEnabled": false' in place.ui.page()
    # What Dagster writes before it has read its configuration would be here.
    assert not list(place.folder.rglob("telemetry.log"))


@pytest.mark.slow  # half a minute until the daemon looks again, and once more
def test_a_bad_teacher_ends_its_own_branch_only(finished: dict[str, Any], place: Place) -> None:
    assert finished["status"] == "COMPLETED_FAILED"
    runs = [{tag["key"]: tag["value"] for tag in run["tags"]} | {"status": run["status"]} for run in finished["runs"]]
    ends = sorted((run["dagster/partition"], run["status"]) for run in runs)
    assert ends == [("original", "SUCCESS"), ("original", "SUCCESS"), ("refused", "FAILURE")]
    of_teachers = {name: {"original"} for name in OF_TEACHERS} | {"completions": {"original", "echo"}}
    assert place.made() == {**{name: set() for name in DATA}, **of_teachers, "training_sets": {"original"}}


@pytest.mark.slow
@pytest.mark.usefixtures("finished")
def test_every_check_of_a_backfill_knows_its_partition(place: Place) -> None:
    nodes = {node["assetKey"]["path"][-1]: node for node in place.ui.graphql(NODES)["assetNodes"]}
    for name, keys in place.made().items():
        if name not in SELECTION:
            continue
        for check in nodes[name]["assetChecksOrError"]["checks"]:
            variables = {"asset": {"path": [name]}, "check": check["name"]}
            executions = place.ui.graphql(CHECK, variables)["assetCheckExecutions"]
            # What the refused teacher's run no longer came to has no evaluation.
            executions = [execution for execution in executions if execution["evaluation"]]
            found = {execution["evaluation"]["partition"] for execution in executions}
            assert found - {"refused"} == keys, (name, check["name"])
            assert len(executions) == len(found), (name, check["name"])
            # Without this the page of the asset says "Not evaluated" although the check was.
            assert check["executionForLatestMaterialization"], (name, check["name"])
            # And without this each partition's page does: the check counts for the version that was stored with it.
            shown = {key for keys in check["partitionStatuses"].values() for key in keys}
            assert shown - {"refused"} == keys, (name, check["name"])


def plant(place: Place, folder: Path) -> str:
    """Two runs of an audit all of whose texts are payloads: one that is stored, and one that fails; the latter's id."""
    rows = [
        {name: PAYLOADS[(5 * number + column) % len(PAYLOADS)] for column, name in enumerate(ANY_TEXT)}
        | {"document_id": PAYLOADS[number // 2], "question": ("instruction", "dialogue")[number % 2]}
        | {"source": AUDIT, "kind": "planted", "verdict": "invalid"}
        for number in range(6)
    ]
    audited = pl.DataFrame(rows, schema=schema(contracts.load("content_audit")), orient="row")
    store = Store(root=str(folder / "warehouse"), study=GRAPH.study.name)
    for name, key in GRAPH.upstream(Partition("content_audit", AUDIT)):
        write(store, name, key, pl.DataFrame(schema=schema(contracts.load(name))))
    with instance_at(place.folder / ".dagster" / place.study) as instance:

        def run(frame: pl.DataFrame) -> dg.ExecuteInProcessResult:
            functions = {"content_audit": lambda context, **inputs: frame}
            return materialize(instance, store, "content_audit", partition=AUDIT, functions=functions)

        assert run(audited).success
        failed = run(audited.with_columns(verdict="answer"))
        assert not failed.success
    return failed.run_id


@pytest.mark.fault("X11")
def test_whatever_is_data_is_text_in_rows_in_checks_and_in_the_log(
    place: Place, tmp_path: Path, counts: Counts
) -> None:
    failed = plant(place, tmp_path)
    place.open("/assets/content_audit", view="partitions", partition=AUDIT)
    place.has_text("answered_by")
    rows = place.page.inner_text("body")
    assert [text for text in PAYLOADS if text not in rows] == []
    assert place.page.locator(ALIVE).count() == 0
    place.open("/assets/content_audit", view="checks", checkDetail="verdict_accepted_values")
    place.has_text(f": {PAYLOADS[0]}, {PAYLOADS[1]}")
    assert place.page.locator(ALIVE).count() == 0
    place.open(f"/runs/{failed}")
    place.has_text(f": {PAYLOADS[0]}, {PAYLOADS[1]}")
    assert place.page.locator(ALIVE).count() == 0
    assert place.alerts == []
    counts("X11", f"Dagster's UI: {len(PAYLOADS)} payloads in rows, checks and logs are text, 0 tags, 0 scripts run")


@pytest.mark.fault("X12", runs="the UI alone")
def test_nobody_else_was_asked_and_nothing_in_the_data_ran(echo: Place, counts: Counts) -> None:
    ours = (echo.ui.url, "about:", echo.ui.url.replace("http", "ws"), f"blob:{echo.ui.url}", "data:")
    assert [address for address in echo.asked if not address.startswith(ours)] == []
    assert any(address.startswith("ws") for address in echo.asked)
    assert echo.behind_the_ui.asked == []
    assert echo.alerts == []
    counts("X12", f"Dagster's UI in Chromium: {len(echo.asked)} requests, 0 for another machine, 0 behind the browser")
    # And who does ask is seen.
    echo.page.evaluate("() => fetch('http://example.org/a.png', {mode: 'no-cors'}).catch(() => 0)")
    assert echo.asked[-1] == "http://example.org/a.png"
    assert "example.org" in echo.behind_the_page.asked[-1]
