"""A headless Chromium that is signed in at a Ray dashboard."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM, CHROMEDRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--window-size=1500,860",
)  # fmt: skip
ASKED_IN_VAIN = ("grafana", "favicon", "/api/prometheus_health", "/api/v0/platform_events")
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and CHROMEDRIVER), reason="no chromium and chromedriver on this machine"
)


def until(found: Callable[[], Any], seconds: float = 60) -> Any:
    """Waits for a value that counts as true, and gives it."""
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.2)
    return value


class Browser:
    """The browser, as a person reads it."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def text(self) -> str:
        """What the page says."""
        return str(self.driver.find_element("tag name", "body").text)

    def open(self, url: str) -> None:
        """Loads a page; a change of what follows the # alone would load nothing."""
        self.driver.get("about:blank")
        self.driver.get(url)

    def fill(self, label: str, value: str) -> None:
        """Types into the last field with this label."""
        field = self.driver.find_elements("xpath", f"//label[text()='{label}']/following::input[1]")[-1]
        field.send_keys(value, "\ue00c")  # and Escape: the list of what would fit covers the table

    def click(self, text: str) -> None:
        """Clicks what has this text."""
        self.driver.find_element("xpath", f"//*[normalize-space(text())='{text}']").click()

    def show(self, text: str) -> None:
        """Scrolls so that what has this text is at the top of the window."""
        found = self.driver.find_element("xpath", f"//*[normalize-space(text())='{text}']")
        self.driver.execute_script("arguments[0].scrollIntoView()", found)

    def complaints(self) -> list[str]:
        """What pages wrote to the console as errors, without what Ray asks for in vain where Prometheus and Grafana are
        not there."""
        found = [str(entry["message"]) for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
        return [entry for entry in found if not any(name in entry for name in ASKED_IN_VAIN)]

    def requests(self) -> list[str]:
        """The addresses that pages have asked for since the last call."""
        told = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [one["params"]["request"]["url"] for one in told if one["method"] == "Network.requestWillBeSent"]

    def prefer(self, scheme: str) -> None:
        """Has pages look as on a desktop that is "light" or "dark"."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def picture(self, to: Path) -> None:
        """Saves what the window shows."""
        assert self.driver.save_screenshot(str(to)) and to.stat().st_size > 10_000


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A browser with a profile of its own."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(CHROMEDRIVER))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
