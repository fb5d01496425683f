"""The lab in headless Chromium: a slider moves, curves and verdict change, nothing else is asked.

    python tests/benchmarks/lab_in_browser.py --pictures folder

Needs `pip install playwright` and a Chromium; it starts `propagate lab` by itself. It checks that
the verdict flips at the critical gain, that the address keeps the setting, that the console has no
error and that no request leaves this machine; and it prints how long a slider's release takes until
the verdict, the curves with theory on them, and the histograms have changed. A page that is not as
it should be ends it with an `AssertionError`.
"""

import argparse
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import history
from playwright.sync_api import Page, sync_playwright

from propagate.lab.presets import PRESETS

REPEATS = 6
PATIENCE = 300_000  # ms, in which a shape is compiled on a busy machine
LOCAL = ("http://localhost", "http://127.0.0.1", "ws://localhost", "ws://127.0.0.1", "data:")
HARMLESS = "was preloaded using link preload"  # of marimo's own page
WORKING = """() => !document.querySelector('.marimo-output-stale')
  && !document.body.innerText.includes('compiling for this shape')"""
PARTS = ("verdict", "curves", "histograms")
WATCH = """() => {
  const drawn = label => document.querySelector(`svg[aria-label^="${label}"] clipPath`)?.id;
  const seen = () => ({
    verdict: [...document.querySelectorAll('strong')].map(e => e.parentElement.textContent).join(),
    curves: drawn('second'),
    histograms: drawn('distributions'),
  });
  let before = seen();
  window.changes = {};
  window.watching?.disconnect();
  window.watching = new MutationObserver(() => {
    const now = seen();
    for (const part in now)
      if (now[part] !== before[part]) window.changes[part] = performance.now();
    before = now;
  });
  const all = {childList: true, subtree: true, characterData: true, attributes: true};
  window.watching.observe(document.body, all);
  window.addEventListener('pointerup', () => { window.released = performance.now(); }, true);
}"""


def main() -> None:
    """Open the page, move sliders, check and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    parser.add_argument("--pictures", type=Path, help="folder for screenshots")
    args = parser.parse_args()
    if not args.chromium:
        sys.exit("this needs Chromium: give its path with --chromium")
    server, address = served()
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=args.chromium)
            refused_without_token(browser, address)
            page = browser.new_page(viewport={"width": 1500, "height": 1500})
            wrong = watched(page)
            page.goto(address)
            page.wait_for_selector("circle.here", timeout=PATIENCE)
            flips(page, args.pictures)
            numbers = timed(page)
            for name, ms in numbers.items():
                print(f"{name:<44}{ms:8.0f}", flush=True)
            presets(page, args.pictures)
            assert not wrong, wrong
            browser.close()
    finally:
        os.killpg(server.pid, signal.SIGINT)
        server.wait(30)
    history.append("lab_in_browser", numbers)


def served() -> tuple[subprocess.Popen, str]:
    """Return the running lab and the address that it prints."""
    command = [sys.executable, "-u", "-m", "propagate", "lab", "--headless"]
    server = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True, bufsize=1
    )
    assert server.stdout is not None
    for line in server.stdout:
        if found := re.search(r"http://\S+", line):
            assert "access_token=" in found[0], "the page asks for no token"
            return server, found[0]
    raise AssertionError("the lab ended without an address")


def refused_without_token(browser, address: str) -> None:
    """Assert that somebody without the token gets the login page."""
    stranger = browser.new_context().new_page()
    stranger.goto(address.partition("?")[0])
    assert "/auth/login" in stranger.url, stranger.url
    stranger.context.close()


def watched(page: Page) -> list[str]:
    """Return a list that errors of the console and requests to elsewhere will be added to."""
    wrong: list[str] = []

    def console(message) -> None:
        if message.type in ("error", "warning") and HARMLESS not in message.text:
            wrong.append(f"console: {message.text}")

    def request(sent) -> None:
        if not sent.url.startswith(LOCAL):
            wrong.append(f"request: {sent.url}")

    page.on("console", console)
    page.on("pageerror", lambda error: wrong.append(f"page: {error}"))
    page.on("request", request)
    page.on("websocket", request)
    return wrong


def flips(page: Page, pictures: Path | None) -> None:
    """Assert that the verdict flips at sigma_w = sqrt(2), where ReLU's signal keeps its size."""
    seen = {}
    for presses, key in ((0, "ArrowLeft"), (21, "ArrowLeft"), (45, "ArrowRight")):
        before = curve(page)
        for _ in range(presses):
            slider(page, 0).press(key)
        if presses:
            page.wait_for_function(
                "old => document.querySelector('svg[aria-label^=\"second\"]').outerHTML !== old",
                arg=before,
                timeout=PATIENCE,
            )
        settled(page)
        verdict = re.findall(r"(?:Signal|Gradient): ([\w-]+)", page.inner_text("body"))
        seen[value(page, 0)] = verdict
        snapshot(page, pictures, f"sigma_w_{value(page, 0)}")
        kept = parse_qs(urlsplit(page.url).query).get("sigma_w", ["1.41"])
        assert kept == [value(page, 0)], page.url
    expected = {"1.41": "stable", "1.2": "vanishing", "1.65": "exploding"}
    assert seen == {k: [v, v] for k, v in expected.items()}, seen
    page.reload()
    page.wait_for_selector("circle.here", timeout=PATIENCE)
    assert value(page, 0) == "1.65", "the address does not keep the setting"


def timed(page: Page) -> dict[str, float]:
    """Return how long after a slider's release each part of the page is new, in ms."""
    numbers = {}
    moves = ("sigma_w", 0, -22, "relu"), ("seed", 2, 22, "relu"), ("sigma_w, gelu", 0, 22, "gelu")
    for name, index, by, activation in moves:  # each time a new value
        page.get_by_role("combobox", name="activation").select_option(label=activation)
        rows: dict[str, list[float]] = {part: [] for part in PARTS}
        for _ in range(REPEATS):
            settled(page)
            page.evaluate(WATCH)
            dragged(page, index, by)
            page.wait_for_function("window.changes.histograms", timeout=60_000)
            settled(page)
            changed, released = page.evaluate("[window.changes, window.released]")
            for part, times in rows.items():
                times.append(changed[part] - released)
        for part, times in rows.items():
            numbers[f"{name}: {part}, ms after release"] = statistics.median(times)
    return numbers


def presets(page: Page, pictures: Path | None) -> None:
    """Open every story once."""
    stories = page.locator("select").first
    for k, name in enumerate(PRESETS):
        stories.select_option(label=name)
        words = re.sub(r"[*`]", "", PRESETS[name].story)[:40]
        page.wait_for_function(
            "w => document.body.innerText.includes(w)", arg=words, timeout=PATIENCE
        )
        settled(page)
        text = page.inner_text("body")
        assert "Signal: " in text and "Traceback" not in text, name
        snapshot(page, pictures, f"story_{k}")


def slider(page: Page, index: int):
    """Return a slider's thumb, counted from the top."""
    return page.get_by_role("slider").nth(index)


def dragged(page: Page, index: int, by: int) -> None:
    """Drag a slider's thumb by so many pixels, and let go."""
    box = slider(page, index).bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + by, y, steps=3)
    page.mouse.up()


def value(page: Page, index: int) -> str:
    """Return the number of a slider."""
    return f"{float(slider(page, index).get_attribute('aria-valuenow') or 'nan'):g}"


def curve(page: Page) -> str:
    """Return the picture of the curves."""
    return page.locator('svg[aria-label^="second"]').first.evaluate("e => e.outerHTML")


def settled(page: Page) -> None:
    """Wait until nothing has changed for a second."""
    before = ""
    while (now := page.content()) != before:
        before = now
        page.wait_for_timeout(1000)
        page.wait_for_function(WORKING, timeout=PATIENCE)


def snapshot(page: Page, folder: Path | None, name: str) -> None:
    """Save what is seen."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=folder / f"{name}.png", full_page=True)


if __name__ == "__main__":
    main()
