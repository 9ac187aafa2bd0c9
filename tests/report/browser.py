"""A page in Debian's Chromium: what it asks for, what it complains of, how wide it is, how it looks."""

import base64
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selenium.webdriver import Chrome, ChromeOptions, ChromeService

INSTALL = "run launch/packages.sh .venv, or: apt-get install chromium chromium-driver"


@dataclass
class Browser:
    """One window."""

    driver: Chrome

    def open(self, page: Path, *, width: int, height: int, dark: bool = False, medium: str = "screen") -> list[str]:
        """Show a page at this size; returns the URL of every request it made."""
        command = self.driver.execute_cdp_cmd
        self.driver.get("about:blank")
        self.driver.get_log("performance")
        self.driver.get_log("browser")
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        command("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        command("Emulation.setEmulatedMedia", {"media": medium, "features": [scheme]})
        self.driver.get(page.resolve().as_uri())
        return self._requests()

    def _requests(self) -> list[str]:
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]

    def complaints(self) -> list[dict[str, Any]]:
        """What the console says."""
        return self.driver.get_log("browser")

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        return self.driver.execute_script(f"return {script}")

    def picture(self, path: Path) -> None:
        """The whole page as PNG."""
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "format": "png"})
        path.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def chromium() -> Iterator[Browser]:
    """Chromium without a window. A machine without it fails, and is told how to get it."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    assert program, f"no chromium on PATH; {INSTALL}"
    assert driver, f"no chromedriver on PATH; {INSTALL}"
    options = ChromeOptions()
    options.binary_location = program
    # As root, and where /dev/shm is small, Chromium starts with these two only.
    for flag in ("no-sandbox", "disable-dev-shm-usage"):
        options.add_argument(f"--{flag}")
    for flag in ("headless=new", "disable-gpu", "hide-scrollbars", "no-first-run", "disable-background-networking"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    window = Chrome(options=options, service=ChromeService(driver))
    try:
        yield Browser(window)
    finally:
        window.quit()
