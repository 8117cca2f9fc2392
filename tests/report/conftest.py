"""A real browser: Debian's Chromium, driven by playwright; without either, the tests that need it are skipped.

``GRAPHSPARSE_BROWSERS=chromium,firefox,webkit`` opens the pages in others, too: those that ``playwright install firefox
webkit`` brings (it needs the network). One that is not there is skipped, and says so.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

WANTED = os.environ.get("GRAPHSPARSE_BROWSERS", "chromium").split(",")


@pytest.fixture(scope="session", params=WANTED)
def browser(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A headless browser; ``GRAPHSPARSE_CHROMIUM`` names another program than the Chromium on the path."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: no page is opened")
    name, options = request.param.strip(), {}
    if name == "chromium":
        program = os.environ.get("GRAPHSPARSE_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
        if program is None:
            pytest.skip("there is no Chromium here (apt-get install chromium): no page is opened")
        options = {"executable_path": program}
    with playwright.sync_playwright() as driver:
        try:
            opened = getattr(driver, name).launch(**options)
        except playwright.Error as error:
            pytest.skip(f"{name} cannot be started here (playwright install {name}): {str(error).splitlines()[0]}")
        yield opened
        opened.close()
