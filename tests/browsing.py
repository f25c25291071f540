"""A real browser for pages that are files: Chromium, headless, without a way to any network.

`tests/browser.sh` installs it where it can; MDP_TEST_CHROMIUM names another than the one in the PATH.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import pytest

from tests.patience import LONG

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
APPLICATIONS = ("Chromium.app/Contents/MacOS/Chromium", "Google Chrome.app/Contents/MacOS/Google Chrome")
AUDIT = (Path(__file__).parent / "page_audit.js").read_text(encoding="utf-8")
SILENT = (  # a browser that asks nobody anything by itself, and finds nobody
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run",
    "--disable-quic", "--disable-default-apps", "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip
# The windows of a browser in which nothing is open any more: the process that draws ends with its last window, and a
# new one costs more than most pages.
_IDLE: WeakKeyDictionary[Any, list[Any]] = WeakKeyDictionary()


def find_chromium() -> str | None:
    """An installed Chromium or Chrome that answers: Ubuntu has a script of that name which only tells to install it."""
    named = os.environ.get("MDP_TEST_CHROMIUM")
    found = [named] if named else [*map(shutil.which, NAMES), *(f"/Applications/{name}" for name in APPLICATIONS)]
    for path in filter(None, found):
        with suppress(OSError, subprocess.TimeoutExpired):
            told = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=LONG, check=False)
            if told.returncode == 0 and "Chrom" in told.stdout:
                return path
    return None


@contextmanager
def chromium() -> Iterator[Any]:
    """The browser, or a skip that says how to get it."""
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is missing: pip install -e '.[test]'")
    path = find_chromium()
    if path is None:
        pytest.skip("no Chromium: sh tests/browser.sh installs it, or MDP_TEST_CHROMIUM=/path/to/chrome names one")
    with api.sync_playwright() as playwright:
        # without its sandbox, which many containers forbid: what it opens was made by the tests
        browser = playwright.chromium.launch(
            executable_path=path, args=list(SILENT), chromium_sandbox=False, timeout=1000 * LONG
        )
        context = browser.new_context()
        context.set_default_timeout(1000 * LONG)
        yield context
        browser.close()


def eventually(page: Any, happened: Callable[[], object], what: str) -> None:
    """Lets the page go on until it has happened; fails, naming it, when it does not."""
    deadline = time.monotonic() + LONG
    while not happened():
        assert time.monotonic() < deadline, f"{what}: not in {LONG:.0f} seconds"
        page.wait_for_timeout(20)


class Visit(NamedTuple):
    """A page that is open, and what it did that a page must not do."""

    page: Any
    faults: list[str]

    def audit(self) -> list[str]:
        """Faults of the page as it stands now, and of what it did so far."""
        return [*self.faults, *self.page.evaluate(AUDIT)]


@contextmanager
def visit(browser: Any, file: Path, width: int = 1280, scheme: str = "light") -> Iterator[Visit]:
    """Opens a file, in a window that an earlier visit left, if there is one."""
    idle = _IDLE.setdefault(browser, [])
    page = idle.pop() if idle else browser.new_page()
    page.mouse.move(1, 1)
    opened = Visit(page, [])
    stand(opened, width, scheme)
    faults = opened.faults
    own = file.resolve().as_uri()

    def requested(request: Any) -> None:
        if request.url != own and not request.url.startswith("data:"):
            faults.append(f"asks for {request.url[:200]}")

    def told(message: Any) -> None:
        if message.type in ("error", "warning"):
            faults.append(f"console: {message.text}")

    listeners = {
        "request": requested, "console": told, "pageerror": lambda error: faults.append(f"script: {error}")
    }  # fmt: skip
    for event, listener in listeners.items():
        page.on(event, listener)
    page.goto(own)
    yield opened
    for event, listener in listeners.items():
        page.remove_listener(event, listener)
    idle.append(page)


def stand(opened: Visit, width: int, scheme: str, media: str = "screen") -> None:
    """Gives the window another width, and the page other colours."""
    opened.page.set_viewport_size({"width": width, "height": 900})
    opened.page.emulate_media(media=media, color_scheme=scheme)
