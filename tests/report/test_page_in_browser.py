"""The page in a browser, opened from disk: it sorts, filters, folds, and asks for nothing.

It runs where `PROPAGATE_CHROMIUM` names a Chromium or Chrome, as in
`PROPAGATE_CHROMIUM=$(command -v chromium) pytest tests/report/test_page_in_browser.py`; the gate
sets it where there is one. A page beside the report, in whose frame it lies, uses it as a reader
would and writes down what it sees.
"""

import json
import os
import re
import subprocess
from html import unescape

import pytest
from site_records import finding, transformer

from propagate.report.html import page
from propagate.verdicts.findings import Findings

CHROMIUM = os.environ.get("PROPAGATE_CHROMIUM")
pytestmark = pytest.mark.skipif(
    not CHROMIUM, reason="PROPAGATE_CHROMIUM does not name a browser: see CONTRIBUTING"
)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--dump-dom"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--allow-file-access-from-files", "--virtual-time-budget=20000", "--enable-logging=stderr"),
)
DRIVER = """<!doctype html><meta charset="utf-8"><pre id="out"></pre>
<iframe id="frame" src="report.html" width="1200" height="800" SANDBOX></iframe>
<script>
frame.onload = () => {
  const page = frame.contentDocument, seen = {};
  const rows = () => [...page.querySelector("table").tBodies[0].rows].filter((row) => !row.hidden);
  const column = (k) => rows().map((row) => row.cells[k] && row.cells[k].textContent);
  const head = (text) => [...page.querySelectorAll("th button")].find(
    (one) => one.textContent === text);
  try { ACTIONS } catch (error) { seen.error = String(error); }
  seen.asked = frame.contentWindow.performance.getEntriesByType("resource").map((one) => one.name);
  out.textContent = JSON.stringify(seen);
};
</script>"""
USE = """
  seen.all = rows().length;
  head("→ rms").focus();
  seen.focused = page.activeElement.textContent;
  head("→ rms").click();
  seen.ascending = column(2);
  head("→ rms").click();
  seen.descending = column(2);
  seen.name = column(0)[0];
  [...page.querySelectorAll(".tools button")][0].click();
  seen.restored = column(0).slice(0, 4);
  const filter = page.querySelector("input[type=search]");
  filter.value = "DEAD";
  filter.dispatchEvent(new Event("input"));
  seen.filtered = column(0);
  seen.status = page.querySelector("[role=status]").textContent;
  filter.value = "";
  filter.dispatchEvent(new Event("input"));
  [...page.querySelectorAll("tr.group button")][0].click();
  seen.folded = rows().length;
  page.querySelector("#verdict a").click();
  frame.contentWindow.dispatchEvent(new Event("hashchange"));
  seen.revealed = rows().length;
  const wide = () => page.querySelector("svg").getBoundingClientRect().width;
  seen.wide = [wide()];
  page.querySelector(".x4").click();
  seen.wide.push(wide());
  seen.beyond = page.documentElement.scrollWidth - page.documentElement.clientWidth;
"""


def opened(folder, actions: str, sandbox: str = "") -> tuple[dict, list[str]]:
    """What the actions saw, and what the browser's console says."""
    driver = DRIVER.replace("ACTIONS", actions).replace("SANDBOX", sandbox)
    (folder / "driver.html").write_text(driver)
    where = ["--user-data-dir=" + str(folder / "profile"), (folder / "driver.html").as_uri()]
    assert CHROMIUM
    done = subprocess.run([CHROMIUM, *FLAGS, *where], capture_output=True, text=True, timeout=120)
    (text,) = re.findall(r'<pre id="out">(.*?)</pre>', done.stdout, re.DOTALL)
    return json.loads(unescape(text)), re.findall(r".*CONSOLE.*", done.stderr)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A folder with the report of a small model, the fourth site of which is dead."""
    folder = tmp_path_factory.mktemp("report")
    record = transformer(2, q=[-0.5 * k for k in range(16)])
    names = record["name"].values.tolist()
    found = Findings([finding(site=names[3], parameter=names[3], layer=3)])
    page.write(record, folder / "report.html", found)
    return folder


def test_a_reader_sorts_filters_folds_and_follows_links(report):
    seen, console = opened(report, USE)
    assert "error" not in seen and not console
    assert seen["focused"].startswith("→ rms")
    numbers = [float(text) for text in seen["ascending"]]
    assert numbers == sorted(numbers) and len(numbers) == 14
    assert seen["descending"] == seen["ascending"][::-1]
    assert seen["name"] == "embed.table"
    assert seen["restored"][0] == "embed.table" and seen["restored"][1].endswith("blocks")
    assert seen["filtered"][-1] == "k.kernel" and seen["status"] == "1 of 14 rows"
    assert seen["folded"] < seen["all"] == seen["revealed"]
    assert seen["wide"][1] == pytest.approx(4 * seen["wide"][0], rel=0.01)
    assert seen["beyond"] <= 0
    assert not [name for name in seen["asked"] if not name.startswith("data:")]


def test_without_scripts_all_rows_stand_there(report):
    seen, _ = opened(
        report,
        'seen.all = rows().length; seen.tools = page.querySelectorAll(".tools").length;',
        'sandbox="allow-same-origin"',
    )
    with_scripts, _ = opened(report, "seen.all = rows().length;")
    assert seen["all"] == with_scripts["all"] and seen["tools"] == 0


PICTURE = '<img src="http://127.0.0.1:1/picture.png">'


@pytest.mark.parametrize("policy", [True, False])
def test_what_a_page_asks_for_would_be_seen(report, tmp_path, policy):
    """And the page's own policy refuses it."""
    text = (report / "report.html").read_text("utf-8").replace("</main>", f"{PICTURE}</main>")
    bad = text if policy else re.sub(r'content="default-src[^"]*"', 'content=""', text)
    (tmp_path / "report.html").write_text(bad, "utf-8")
    seen, console = opened(tmp_path, "")
    assert any("picture.png" in name for name in seen["asked"])
    assert any("Content Security Policy" in line for line in console) == policy


def test_an_error_of_a_script_would_be_seen(report, tmp_path):
    text = (report / "report.html").read_text("utf-8").replace("</main>", "<table></table></main>")
    (tmp_path / "report.html").write_text(text, "utf-8")
    assert opened(tmp_path, "")[1]  # a table without rows, of which the script makes none
