"""The viewer in Chromium, behind the gate: every view on a phone and on a desk, its keys, and two ways to a verdict."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import uvicorn

from nift_assets import benchmarks, reviews
from nift_assets.pages.viewer import links
from nift_assets.store import Store
from tests.page_reader import ALIVE, PAYLOADS
from tests.pages.viewer_store import ARABIC, DEMO, MODELS, application, document, filled, texts
from tests.ui.browser import Strangers, chromium, window
from tests.ui.server import free_port

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.skipif(
    not (chromium() or os.environ.get("CI")), reason="there is no Chromium here; `make browser` installs it"
)
TOKEN = "0123456789abcdef0123"
BENCHMARK = next(row.name for row in DEMO.benchmarks if benchmarks.is_judged(row.name))
# What is wider than the page and is not in a box of its own that scrolls.
STICKING_OUT = """() => [...document.querySelectorAll('body *')]
    .filter(node => !node.closest('.scroll, .beside.whole') || node.matches('.scroll, .beside.whole'))
    .filter(node => !node.matches('.skip, .ws'))
    .filter(node => node.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
    .map(node => node.outerHTML.slice(0, 120))"""


@contextmanager
def served(store: Store) -> Iterator[str]:
    """The address at which the viewer of a store is served for the block."""
    port = free_port()
    config = uvicorn.Config(application(store, TOKEN), port=port, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Page, str, Store, list[str]]]:
    """A page that is signed in, the address, the store, and what scripts or dialogs said meanwhile."""
    store, strangers = filled(str(tmp_path_factory.mktemp("warehouse"))), Strangers()
    executable = chromium()
    assert executable is not None
    said: list[str] = []
    with served(store) as address, window(executable, strangers) as page:
        page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        page.goto(f"{address}{links.home()}?token={TOKEN}")
        yield page, address, store, said
    assert strangers.asked == []
    strangers.close()


def views(store: Store) -> list[str]:
    question = str(store.read(benchmarks.answers_table(BENCHMARK), MODELS[0])["question_id"][0])
    return [
        links.home(), links.pairs(), links.pair(document(1)), links.pair(document(1)) + "?space=1",
        links.table("completions") + "?column=words&relation=is&value=1".replace("words", "output_tokens"),
        links.table("halves") + "?place=3", links.rejects(), links.answers(BENCHMARK, *MODELS),
        links.question(BENCHMARK, question, *MODELS), links.question(BENCHMARK, question, *MODELS) + "&blind=1",
        links.failing(), links.failing("completions", "echo", "few_are_refused"),
    ]  # fmt: skip


def test_nothing_sticks_out_of_any_view_and_no_payload_lives(opened: tuple[Page, str, Store, list[str]]) -> None:
    page, address, store, said = opened
    for width in (400, 1000, 1600):
        page.set_viewport_size({"width": width, "height": 900})
        payloads = [f"{links.pairs()}?start={start}" for start in range(0, len(PAYLOADS), 10)] if width == 400 else []
        for path in [*views(store), *payloads]:
            page.goto(address + path)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path
            assert page.evaluate(STICKING_OUT) == [], (width, path)
            assert page.locator(ALIVE).count() == 0
    assert said == []


def test_keys_lead_from_row_to_row_and_show_white_space(opened: tuple[Page, str, Store, list[str]]) -> None:
    page, address, _, said = opened
    page.goto(f"{address}{links.pairs()}?sort=words&order=down")
    page.locator("article h2 a").nth(1).click()
    assert document(58) in page.url
    page.keyboard.press("ArrowRight")
    page.wait_for_url(f"**{document(57)}*")
    page.keyboard.press("ArrowLeft")
    page.wait_for_url(f"**{document(58)}*")
    page.keyboard.press("w")
    page.wait_for_url("**space=1*")
    assert page.locator(".ws").count() > 0
    page.keyboard.press("l")
    page.wait_for_url("**/pairs?*")
    page.keyboard.press("/")
    page.keyboard.type("école")
    page.keyboard.press("Enter")
    page.wait_for_url("**search=*")
    assert page.locator("mark").first.inner_text() == "ÉCOLE"
    assert said == []


def test_arabic_runs_from_right_to_left(opened: tuple[Page, str, Store, list[str]]) -> None:
    page, address, _, _ = opened
    number = next(n for n in range(60) if texts(n)[0].startswith(ARABIC))
    page.goto(address + links.pair(document(number)))
    box = page.locator(".beside .text").first
    assert box.evaluate("node => getComputedStyle(node).direction") == "rtl"
    assert page.locator(".cut").first.is_visible()


def test_a_pair_is_judged_by_keys_and_the_name_is_asked_once(opened: tuple[Page, str, Store, list[str]]) -> None:
    page, address, store, said = opened
    page.goto(address + links.pair(document(1)))
    page.locator("input[name=reviewer]").first.fill("Ada")
    page.locator("h1").click()
    page.keyboard.press("k")
    page.locator("text=You said keep").wait_for()
    page.keyboard.press("2")
    page.keyboard.press("d")
    assert "say it in a few words" in page.locator("form.review.current [role=status]").inner_text()
    page.keyboard.type("begins <b>anew</b>")
    page.keyboard.press("Enter")
    page.locator("text=You said drop: begins <b>anew</b>").wait_for()
    assert page.locator("input[name=reviewer]").count() == 0
    kept = {(each.partition, each.verdict, each.reason, each.reviewer) for each in reviews.read(store)}
    assert kept == {("original", "keep", "", "Ada"), ("echo", "drop", "begins <b>anew</b>", "Ada")}
    assert said == []


def test_answers_are_judged_blind_by_keys(opened: tuple[Page, str, Store, list[str]]) -> None:
    page, address, store, said = opened
    page.goto(address + views(store)[9])
    assert not re.search(rf"[AB]: ({'|'.join(MODELS)})", page.inner_text("main"))
    if page.locator("input[name=reviewer]").count():
        page.locator("input[name=reviewer]").first.fill("Ada")
        page.locator("button[value=name]").first.click()
        page.locator("button[value=left]").first.wait_for()
    page.locator("h1").click()
    page.keyboard.press("b")
    page.locator("text=You said B is better").wait_for()
    assert re.search(rf"[AB]: ({'|'.join(MODELS)})", page.inner_text("main"))
    given = [each for each in reviews.read(store) if each.of_answers]
    assert [each.row["benchmark"] for each in given] == [BENCHMARK]
    assert said == []


def test_a_link_on_a_page_of_no_origin_leads_to_the_rows(opened: tuple[Page, str, Store, list[str]]) -> None:
    """The report is such a page, so that nothing on it can act for who reads it; a browser hides the cookie from it."""
    page, address, _, said = opened
    sandboxed = {"Content-Security-Policy": "sandbox allow-scripts allow-popups"}
    body = f'<a href="{links.pair(document(1))}">a row</a>'
    page.route(
        "**/study/report.html",
        lambda route: route.fulfill(body=body, headers={"Content-Type": "text/html", **sandboxed}),
    )
    page.goto(f"{address}/study/report.html")
    page.locator("a").click()
    page.get_by_role("heading", name=f"Pair {document(1)}").wait_for()
    assert [line for line in said if "401" not in line] == []
    said.clear()
    page.context.clear_cookies()
    page.goto(f"{address}/study/report.html")
    page.locator("a").click()
    page.locator("text=refused: open the address with ?token=").wait_for()
    page.goto(f"{address}{links.home()}?token={TOKEN}")
    said.clear()


def test_everything_is_read_without_javascript(opened: tuple[Page, str, Store, list[str]]) -> None:
    page, address, store, _ = opened
    browser = page.context.browser
    assert browser is not None
    plain = browser.new_page(java_script_enabled=False, extra_http_headers={"Authorization": f"Bearer {TOKEN}"})
    for path in views(store):
        answer = plain.goto(address + path)
        assert answer is not None
        assert answer.status == 200
    plain.goto(address + links.pairs())
    plain.locator("input[type=search]").fill("straße")
    plain.get_by_role("button", name="Show").click()
    assert plain.locator("mark").first.inner_text() == "straße"
    plain.close()
