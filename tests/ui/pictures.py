"""The README's pictures of Dagster's UI, taken from the demo study: `python -m tests.ui.pictures`.

Uses the warehouse and the instance of `NIFT_WAREHOUSE` and `DAGSTER_HOME`, and makes the demo there if there is none.
Needs the `dev` extra and Chromium.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import tempfile
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING

from tests.conftest import PROJECT, nift
from tests.ui.server import ui

if TYPE_CHECKING:
    from playwright.sync_api import Page

PICTURES = PROJECT / "dagster_project" / "pictures"
MOST_BYTES = 500_000
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# Nothing but the UI itself can be reached; a container's root has no sandbox.
FLAGS = ("--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--hide-scrollbars")
GROUPS = "{ assetNodes { groupName } }"
BOXES = """() => [...document.querySelectorAll('#app-root svg foreignObject, svg foreignObject')]
    .map(node => node.getBoundingClientRect()).map(box => [box.left, box.top, box.right, box.bottom])"""


def main() -> None:
    chromium = browser()
    environment = {
        **os.environ,
        "NIFT_WAREHOUSE": str(Path(os.environ.get("NIFT_WAREHOUSE") or PROJECT / "warehouse").absolute()),
        "DAGSTER_HOME": str(Path(os.environ.get("DAGSTER_HOME") or PROJECT / ".dagster" / "demo").absolute()),
    }
    if not Path(environment["NIFT_WAREHOUSE"], "demo", "report.html").exists():
        print("There is no demo yet: making it (a minute or two) …")
        ran = nift("demo", environment=environment)
        if ran.returncode != 0:
            sys.exit(ran.stderr)
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, ui(environment, Path(folder)) as running:
        groups = {node["groupName"] for node in running.graphql(GROUPS)["assetNodes"]}
        take(chromium, running.url, sorted(groups))


def browser() -> str:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        sys.exit("error: the pictures need Chromium; install it, e.g. with `apt-get install chromium`")
    try:
        import playwright  # noqa: F401
    except ImportError:
        sys.exit("error: the pictures need playwright; install it with `pip install -e '.[dev]'`")
    return found


def take(chromium: str, url: str, groups: list[str]) -> None:
    """Writes the three pictures; fails if a page asked anything of another machine."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        window = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        page = window.new_page(viewport={"width": 3200, "height": 3600})
        # From top to bottom the graph is about as wide as it is high, so that a README can show it.
        page.add_init_script("localStorage.setItem('asset-graph-direction', JSON.stringify('vertical'))")
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        lineage(page, url, groups)
        page.set_viewport_size({"width": 1500, "height": 940})
        partitions(page, url)
        checks(page, url)
        window.close()
    strangers = [address for address in asked if not address.startswith((url, f"blob:{url}", "data:"))]
    assert not strangers, f"the UI asked others: {strangers}"


def lineage(page: Page, url: str, groups: list[str]) -> None:
    """The whole graph with its groups open, cropped to the nodes."""
    expanded = ",".join(f"global@global:{group}" for group in groups)
    page.goto(f"{url}/asset-groups?expanded={urllib.parse.quote(expanded, safe='')}")
    page.get_by_text("benchmark_scores").first.wait_for()
    settle(page)
    boxes = page.evaluate(BOXES)
    left, top = (min(box[side] for box in boxes) - 24 for side in (0, 1))
    right, bottom = (max(box[side] for box in boxes) + 24 for side in (2, 3))
    write(page, "lineage.png", {"x": left, "y": top, "width": right - left, "height": bottom - top})


def partitions(page: Page, url: str) -> None:
    """The completions of each teacher, with what is known of the echo teacher's."""
    page.goto(f"{url}/assets/completions?view=partitions&partition=echo")
    page.get_by_text("status_truncated").first.wait_for()
    settle(page)
    write(page, "partitions.png")


def checks(page: Page, url: str) -> None:
    """The checks of the completions; the one that is open warns for the echo teacher."""
    page.goto(f"{url}/assets/completions?view=checks&checkDetail=few_are_truncated")
    page.get_by_text("Latest execution").wait_for()
    page.get_by_text("Partitions", exact=True).last.click()
    # The first is in the box that filters the list, the second in the list.
    page.get_by_text("echo", exact=True).and_(page.locator(":visible")).nth(1).click()
    page.get_by_text("expected at most").wait_for()
    settle(page)
    write(page, "checks.png")


def settle(page: Page) -> None:
    """Waits until nothing is loading and nothing moves any more."""
    page.wait_for_timeout(2000)
    page.wait_for_function("() => !document.querySelector('[class*=spinner i], [aria-label=Loading]')")
    page.wait_for_timeout(1500)


def write(page: Page, name: str, clip: dict[str, float] | None = None) -> None:
    """Stores what the page shows with 256 colours, which is all the UI uses and a quarter of the bytes."""
    from PIL import Image

    shot = Image.open(io.BytesIO(page.screenshot(clip=clip, animations="disabled")))
    path = PICTURES / name
    shot.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    assert path.stat().st_size < MOST_BYTES, f"{path.name} has {path.stat().st_size:,} bytes"
    print(f"{path.relative_to(PROJECT)}: {shot.width}x{shot.height}, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
