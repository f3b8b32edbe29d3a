"""Chromium on Dagster's UI as a person has it, and a record of whatever asks for another machine meanwhile."""

from __future__ import annotations

import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
LOOPBACK = "127.0.0.1,localhost,::1"
# There for what never comes, not for a machine that is busy.
SECONDS = 90
TRY_MILLISECONDS = 3_000


class Strangers:
    """A proxy that lets nobody out: what a process wanted of another machine is a line in `asked`."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._refuse, daemon=True).start()

    def environment(self) -> dict[str, str]:
        """The variables by which a process sends everything here that is not for this machine."""
        names = ("http_proxy", "https_proxy", "all_proxy")
        proxies = dict.fromkeys(names, self.url) | {name.upper(): self.url for name in names}
        return {**proxies, "no_proxy": LOOPBACK, "NO_PROXY": LOOPBACK}

    def close(self) -> None:
        self._listener.close()

    def _refuse(self) -> None:
        with suppress(OSError):  # closed
            while True:
                connection, _ = self._listener.accept()
                with connection:
                    connection.settimeout(5)
                    with suppress(OSError):
                        self.asked.append(connection.recv(4096).split(b"\r\n")[0].decode(errors="replace"))
                        connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")


def chromium() -> str | None:
    """The path of Chromium on this machine, None where there is none."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


def needed_chromium() -> str:
    """The path of Chromium, or the end of the program with a line that says how to get it."""
    if (found := chromium()) is None:
        sys.exit("error: this needs Chromium; install it with `make browser`, or as your system does")
    return found


@contextmanager
def window(executable: str, strangers: Strangers) -> Iterator[Page]:
    """An empty page of a Chromium that reaches this machine only; what it wants of others goes to `strangers`."""
    from playwright.sync_api import sync_playwright

    flags = [
        "--no-sandbox",  # a container's root has none
        "--hide-scrollbars",
        "--disable-gpu",
        f"--proxy-server={strangers.url}",
        # Without this a name would still be looked up.
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=flags)
        page = browser.new_page(viewport={"width": 1500, "height": 940}, reduced_motion="reduce")
        page.set_default_timeout(SECONDS * 1000)
        yield page
        browser.close()


def until(
    page: Page,
    reached: Callable[[], bool],
    what: str,
    act: Callable[[], object] = lambda: None,
    *,
    again: float = TRY_MILLISECONDS / 1000,
) -> None:
    """Waits until the page has come to what a step is for; until then the step is taken, and `again` after seconds.

    Dagster draws parts of a page anew whenever it hears of something new, and a click on what is just being replaced
    does nothing. So it is not the click that counts but what it was for.
    """
    from playwright.sync_api import Error

    def seen() -> bool:
        with suppress(Error):  # replaced while it was looked at
            return reached()
        return False

    end = time.monotonic() + SECONDS
    while not seen():
        assert time.monotonic() < end, f"{what}: not after {SECONDS} s on {page.url}: {page.inner_text('body')[:2000]}"
        with suppress(Error):
            act()
        soon = time.monotonic() + again
        while not seen() and time.monotonic() < soon:
            page.wait_for_timeout(50)


def click(place: Locator) -> Callable[[], None]:
    """A click for `until`, which is given up soon: what stands in its way may be what was waited for."""
    return lambda: place.click(timeout=TRY_MILLISECONDS)


def choose(page: Page, *partitions: str) -> None:
    """Ticks partitions in the open dialog, and closes the list that they stand in."""
    dialog = page.get_by_role("dialog").last
    opener = dialog.locator("[class*=tagSelectorContainer]").first
    rows = page.get_by_role("menuitem").filter(has=page.locator("[data-tooltip]"))
    until(page, rows.first.is_visible, "the list of partitions", click(opener))
    for key in partitions:
        row = rows.filter(has=page.locator(f'[data-tooltip="{key}"]'))
        ticked = row.locator("input:checked")

        def tick(row: Locator = row) -> None:
            if not row.is_visible():
                opener.click(timeout=TRY_MILLISECONDS)
            row.click(timeout=TRY_MILLISECONDS)

        until(page, lambda ticked=ticked: ticked.count() == 1, f"a tick at {key}", tick)  # type: ignore[misc]
    until(page, lambda: not rows.first.is_visible(), "the end of the list", lambda: page.keyboard.press("Escape"))
    assert dialog.is_visible()
