"""The pages in Chromium: on a phone, on a desk and on paper nothing sticks out, and nothing is asked of anybody."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from expectations import contract
from tests.counting import Counts
from tests.page_reader import ALIVE, PAYLOADS
from tests.pages.test_docs import hostile, table
from tests.pages.test_docs import page as contracts
from tests.pages.test_page import DEMO, filled, page_with_samples, planted
from tests.ui.browser import Strangers, chromium, window

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.skipif(
    not (chromium() or os.environ.get("CI")), reason="there is no Chromium here; `make browser` installs it"
)
# What is wider than the page and is not in a box of its own that scrolls.
STICKING_OUT = """() => [...document.querySelectorAll('body *')]
    .filter(node => !node.closest('.scroll') || node.matches('.scroll'))
    .filter(node => node.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
    .map(node => node.outerHTML.slice(0, 120))"""
# What stands above a table and ends behind the edge of the box that the table is scrolled in.
CUT_CAPTIONS = """() => [...document.querySelectorAll('.scroll caption')].filter(node => {
    const text = document.createRange();
    text.selectNodeContents(node);
    return text.getBoundingClientRect().right > node.closest('.scroll').getBoundingClientRect().right + 1;
}).map(node => node.textContent)"""
# Letters of a chart that lie on one another, or outside of it.
OVERLAPS = """() => [...document.querySelectorAll('svg.chart')].flatMap(svg => {
    const frame = svg.getBoundingClientRect();
    const boxes = [...svg.querySelectorAll('text')].map(node => [node.textContent, node.getBoundingClientRect()]);
    const over = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 4 && b.top < a.bottom - 4;
    return [
        ...boxes.filter(([, box]) => box.left < frame.left - 1 || box.right > frame.right + 1).map(([text]) => text),
        ...boxes.flatMap(([text, box], n) => boxes.slice(n + 1).filter(([, b]) => over(box, b)).map(([t]) => [text, t]))
    ];
})"""


@pytest.fixture(scope="module")
def strangers() -> Iterator[Strangers]:
    found = Strangers()
    yield found
    found.close()


@pytest.fixture(scope="module")
def page(strangers: Strangers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The page with long names and long texts in every table, opened from the disk."""
    file = tmp_path_factory.mktemp("page") / "report.html"
    long = "mistral-7b-v0.1.gpt-4-0125-preview-80k.lora " * 9
    losses = {adapter.name: [(step, 7 / step) for step in range(1, 400)] for adapter in DEMO.adapters}
    file.write_text(page_with_samples(DEMO, filled(long), losses=losses), encoding="utf-8")
    executable = chromium()
    assert executable is not None
    with window(executable, strangers) as opened:
        asked: list[str] = []
        opened.on("request", lambda request: asked.append(request.url))
        opened.goto(file.as_uri())
        yield opened
        assert [address for address in asked if not address.startswith(file.parent.as_uri())] == []
        assert strangers.asked == []


@pytest.mark.parametrize("width", [400, 1000, 1600])
def test_nothing_sticks_out_of_the_page(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(STICKING_OUT) == []
    assert page.evaluate(CUT_CAPTIONS) == []


@pytest.mark.parametrize("width", [400, 1000, 1600])
def test_no_label_of_a_chart_is_cut_or_lies_on_another(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    assert page.locator("svg.chart").count() >= 3
    assert page.evaluate(OVERLAPS) == []


def test_it_can_be_printed(page: Page, tmp_path: Path) -> None:
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 690, "height": 1000})  # A4 between its margins
    assert not page.locator("nav").filter(visible=True).count()
    folded = "[...document.querySelectorAll('details table')].map(table => table.checkVisibility())"
    assert set(page.evaluate(folded)) == {True}, "on paper nothing can be unfolded"
    page.pdf(path=tmp_path / "report.pdf", format="A4")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    page.emulate_media(media="screen")


@pytest.mark.parametrize("width", [400, 1000, 1600])
def test_no_contract_sticks_out_of_its_page(page: Page, width: int) -> None:
    file = Path(page.url.removeprefix("file://")).with_name("docs.html")
    if not file.exists():
        file.write_text(contracts(*(table(contract.load(name)) for name in contract.tables())), encoding="utf-8")
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(file.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(STICKING_OUT) == []
    page.go_back()


@pytest.mark.fault("X11")
def test_markup_in_the_data_is_text_in_the_report_and_in_the_contracts(page: Page, counts: Counts) -> None:
    folder, text = Path(page.url.removeprefix("file://")).parent, "\n".join(PAYLOADS)
    alerts: list[str] = []
    page.on("dialog", lambda dialog: (alerts.append(dialog.message), dialog.dismiss()))
    for name, written in {
        "report": page_with_samples(planted(text), filled(text)),
        "docs": contracts(hostile(text)),
    }.items():
        file = folder / f"{name}-of-payloads.html"
        file.write_text(written, encoding="utf-8")
        page.goto(file.as_uri())
        shown = page.locator("body").text_content() or ""
        assert [payload for payload in PAYLOADS if payload.replace("\0", "") not in shown] == []
        assert page.locator(ALIVE).count() == 0
    assert alerts == []
    counts("X11", f"report and contracts in Chromium: {len(PAYLOADS)} payloads are text, 0 tags, 0 scripts run")
