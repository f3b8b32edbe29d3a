"""The pictures of the README and the guides, taken from the demo study in Dagster's UI: `python -m tests.ui.pictures`.

Uses the warehouse and the instance of `NIFT_WAREHOUSE` and `DAGSTER_HOME`, and makes the demo there if there is none.
Needs the `dev` extra and Chromium. Names choose which are taken: `python -m tests.ui.pictures checks report`.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tests.conftest import PROJECT, nift
from tests.ui.browser import Strangers, choose, needed_chromium, window
from tests.ui.server import ui

if TYPE_CHECKING:
    from playwright.sync_api import FloatRect, Page

PICTURES = PROJECT / "dagster_project" / "pictures"
MOST_BYTES = 250_000
USUAL, BROAD, WIDE = ({"width": width, "height": height} for width, height in ((1240, 900), (1500, 940), (2000, 1300)))
MARGIN = 24
# The groups of a graph, and its nodes where they are open.
NODES = "svg foreignObject"
LOADED = """within => ![...document.querySelectorAll(within)].some(
    part => part.querySelector('[class*=spinner i], [aria-label=Loading]'))"""
DIALOG = "[role=dialog]"
TEACHERS = ("completions", "uppercase_start_removals", "filtered_completions", "training_sets")


def main() -> None:
    chromium = needed_chromium()
    environment = {
        **os.environ,
        "NIFT_WAREHOUSE": str(Path(os.environ.get("NIFT_WAREHOUSE") or PROJECT / "warehouse").absolute()),
        "DAGSTER_HOME": str(Path(os.environ.get("DAGSTER_HOME") or PROJECT / ".dagster" / "demo").absolute()),
    }
    report = Path(environment["NIFT_WAREHOUSE"], "demo", "report.html")
    if not report.exists():
        print("There is no demo yet: making it (a minute or two) …")
        ran = nift("demo", environment=environment)
        if ran.returncode != 0:
            sys.exit(ran.stderr)
    PICTURES.mkdir(exist_ok=True)
    strangers = Strangers()
    with (
        tempfile.TemporaryDirectory() as folder,
        ui(environment | strangers.environment(), Path(folder)) as running,
        window(chromium, strangers) as page,
    ):
        page.goto(running.entrance)
        for take in TAKEN:
            if not sys.argv[1:] or take.__name__ in sys.argv[1:]:
                page.set_viewport_size(USUAL)  # type: ignore[arg-type]
                take(page, running.url)
        if not sys.argv[1:] or "report" in sys.argv[1:]:
            page.set_viewport_size({"width": 1240, "height": 1180})
            page.goto(report.as_uri())
            write(page, "report.png")
    assert not strangers.asked, f"others were asked: {strangers.asked}"


def lineage(page: Page, url: str) -> None:
    """The groups of the whole graph and what follows from what."""
    page.set_viewport_size(WIDE)  # type: ignore[arg-type]
    page.goto(f"{url}/asset-groups?expanded=")
    page.get_by_text("benchmarks").last.wait_for()
    write(page, "lineage.png", around(page, NODES))


def dialog(page: Page, url: str) -> None:
    """What the dialog of partitions asks for one table."""
    page.goto(f"{url}/assets/completions")
    page.get_by_role("button", name="Materialize").first.click()
    choose(page, "echo")
    page.get_by_role("button", name="Launch 1 run").wait_for()
    write(page, "dialog.png", around(page, DIALOG), DIALOG)


def preview(page: Page, url: str) -> None:
    """What a back-fill of two teachers is going to make."""
    selection = " or ".join(f'key:"{name}"' for name in TEACHERS)
    page.goto(f"{url}/asset-groups~{urllib.parse.quote(selection, safe='')}/")
    page.get_by_role("button", name="Materialize all").click()
    choose(page, "original", "echo")
    page.get_by_text("Preview", exact=True).click()
    page.get_by_text("echo-filtered").last.wait_for()
    write(page, "preview.png", around(page, f"{DIALOG} >> nth=-1"), DIALOG)


def partitions(page: Page, url: str) -> None:
    """The completions of each teacher, with what is known of the echo teacher's."""
    page.goto(f"{url}/assets/completions?view=partitions&partition=echo")
    page.get_by_text("status_truncated").first.wait_for()
    write(page, "partitions.png")


def checks(page: Page, url: str) -> None:
    """The checks of the completions; the one that is open warns for the echo teacher."""
    page.set_viewport_size(BROAD)  # type: ignore[arg-type]
    page.goto(f"{url}/assets/completions?view=checks&checkDetail=few_are_truncated")
    page.get_by_text("Latest execution").wait_for()
    page.get_by_text("Partitions", exact=True).last.click()
    # The first is in the box that filters the list, the second in the list.
    page.get_by_text("echo", exact=True).and_(page.locator(":visible")).nth(1).click()
    page.get_by_text("expected at most").wait_for()
    write(page, "checks.png")


def plots(page: Page, url: str) -> None:
    """Numbers of the completions, teacher beside teacher."""
    page.goto(f"{url}/assets/completions")
    page.locator("button", has_text="Plots").click()
    page.locator("canvas").nth(5).scroll_into_view_if_needed()
    write(page, "plots.png", within="canvas")


TAKEN: tuple[Callable[[Page, str], None], ...] = (lineage, dialog, preview, partitions, checks, plots)


def around(page: Page, selector: str) -> FloatRect:
    """The box around all that matches, with a margin, once it has stopped moving."""
    page.wait_for_timeout(3000)
    boxes = [box for found in page.locator(selector).all() if (box := found.bounding_box())]
    left, top = min(box["x"] for box in boxes) - MARGIN, min(box["y"] for box in boxes) - MARGIN
    right = max(box["x"] + box["width"] for box in boxes) + MARGIN
    bottom = max(box["y"] + box["height"] for box in boxes) + MARGIN
    return {"x": left, "y": top, "width": right - left, "height": bottom - top}


def write(page: Page, name: str, clip: FloatRect | None = None, within: str = "body") -> None:
    """Stores what the page shows with 256 colours, which is all the UI uses and a quarter of the bytes.

    Waits until nothing is loading in the part that matters: elsewhere on a page wheels may turn for ever.
    """
    from PIL import Image

    page.wait_for_timeout(2000)
    page.wait_for_function(LOADED, arg=within)
    page.wait_for_timeout(1500)
    shot = Image.open(io.BytesIO(page.screenshot(clip=clip, animations="disabled")))
    path = PICTURES / name
    shot.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    assert path.stat().st_size < MOST_BYTES, f"{path.name} has {path.stat().st_size:,} bytes"
    print(f"{path.relative_to(PROJECT)}: {shot.width}x{shot.height}, {path.stat().st_size:,} bytes", flush=True)


if __name__ == "__main__":
    main()
