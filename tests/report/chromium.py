"""Headless Chromium, where it is installed."""

import contextlib
import pathlib

import pytest

CHROMIUM = pathlib.Path("/usr/bin/chromium")
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")


@contextlib.contextmanager
def chromium():
    """Yield the browser; the test is skipped, with the reason, where it is absent."""
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is absent")
    if not CHROMIUM.is_file():
        pytest.skip(f"{CHROMIUM} is absent: apt-get install chromium")
    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=list(ARGUMENTS)
        )
        yield browser
        browser.close()
