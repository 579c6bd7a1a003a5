"""Start the demo and look at it in headless Chromium; by hand it makes the picture of the README:

python -m tests.space.browser MODEL NAME docs/space.png
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from playwright.sync_api import Page, sync_playwright

from tests.running import ROOT, free_port

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


@contextmanager
def serve(model: str) -> Iterator[str]:
    """Run the demo with a model on a free port of loopback; give its address."""
    port = free_port()
    address, environment = f"http://127.0.0.1:{port}", {**os.environ, "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryFile() as log:
        command = [sys.executable, str(ROOT / "space" / "app.py"), model, "--port", str(port)]
        with subprocess.Popen(command, cwd=tempfile.gettempdir(), env=environment, stdout=log, stderr=log) as server:
            try:
                deadline = time.monotonic() + 120
                while time.monotonic() < deadline and server.poll() is None:
                    try:
                        httpx.get(address, trust_env=False).raise_for_status()
                        break
                    except httpx.HTTPError:
                        time.sleep(0.5)
                else:
                    log.seek(0)
                    raise RuntimeError(log.read().decode())
                yield address
            finally:
                server.terminate()


@contextmanager
def open_page(address: str, width: int = 1000, height: int = 1000) -> Iterator[Page]:
    """Open the page of an address in a window of a width and height in pixels."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS.split())
        try:
            page = browser.new_page(viewport={"width": width, "height": height})
            page.goto(address)
            yield page
        finally:
            browser.close()


def ask(page: Page, name: str) -> str:
    """Ask about a name; return the answer as it is read."""
    page.get_by_label("Name or question").fill(name)
    page.get_by_role("button", name="Ask", exact=True).click()
    page.wait_for_timeout(1000)  # until the question has been taken
    page.wait_for_function("() => !document.querySelector('.progress-text, .eta-bar, .generating')", timeout=30_000)
    page.wait_for_timeout(300)
    return page.locator("#answer").inner_text().strip()


def fonts_of(page: Page, selector: str) -> set[str]:
    """Return the fonts that the letters of an element are drawn with."""
    session = page.context.new_cdp_session(page)
    for domain in ("DOM", "CSS"):
        session.send(f"{domain}.enable")
    root = session.send("DOM.getDocument")["root"]["nodeId"]
    node = session.send("DOM.querySelector", {"nodeId": root, "selector": selector})["nodeId"]
    return {font["familyName"] for font in session.send("CSS.getPlatformFontsForNode", {"nodeId": node})["fonts"]}


def main() -> None:
    model, name, picture = sys.argv[1:]
    model = str(Path(model).resolve())
    with serve(model) as address, open_page(address, 1280) as page:
        print(ask(page, name))
        page.locator("#attention img").wait_for()
        page.wait_for_timeout(1000)  # for what moves to come to rest
        page.screenshot(path=picture, full_page=True)


if __name__ == "__main__":
    main()
