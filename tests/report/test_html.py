"""The page of a record by its structure: what it says, that words stay words, and what it asks for.

`tests/report/test_page_in_browser.py` opens it.
"""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import xarray as xr
from site_records import finding, sites, transformer

from propagate.network import Network
from propagate.report.html import page, pictures
from propagate.theory.predict import predict
from propagate.types import UnusableInput
from propagate.verdicts.findings import Findings, Verdict

VOID = {"meta", "link", "input", "br", "img", "path", "use"}
BAD = """<script>alert('1')</script>"'&amp;<b onclick=x>"""
MANY = 143  # blocks of a model with a thousand sites


class Parsed(HTMLParser):
    """Tags with their attributes, ids, the text of each tag, and whether tags are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.open, self.said, self.rows = [], [], {}, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.said.setdefault(self.open[-1], []).append(data)
        if self.open and {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    def all(self, attribute):
        return [attrs[attribute] for _, attrs in self.tags if attribute in attrs]


def named(name: str, file: str = "") -> xr.Dataset:
    rows = [
        (name, "matmul", "matmul", name, file, 1),
        ("head", "matmul", "matmul", "head", file, 2),
    ]
    return sites(rows, model=name, unopened=json.dumps([name]), command=f"propagate {name}")


def sweep(layers=8, seeds=3, **attrs) -> xr.Dataset:
    """Two initialisers and two activations; the first makes signals vanish, fastest with tanh."""
    rate = np.array([[-1.0, -1.5], [0.0, 0.01]])[..., None, None] * np.arange(layers + 1.0)
    noise = 0.001 * np.arange(seeds)[:, None]
    dims = ("init", "activation", "seed", "layer")
    coords = {"init": ["normal", "he"], "activation": ["relu", "tanh"]}
    back = (rate + noise)[..., ::-1]
    q = {"log10_forward_q": (dims, rate + noise), "log10_backward_q": (dims, back)}
    axes = {"seed": np.arange(seeds), "layer": np.arange(layers + 1)}
    network = json.dumps({"depth": layers, "width": 4})
    return xr.Dataset(q, coords | axes, {"network": network, **attrs})


@pytest.fixture
def undrawn(monkeypatch):
    """Pages without pictures, which take most of the time."""
    monkeypatch.setattr(pictures, "figures", lambda *_: [])


@pytest.fixture(scope="module")
def large():
    record = transformer(MANY, model="gpt", mode="training", date="2026-01-01T00:00:00+00:00")
    k = record["name"].values.tolist().index("blocks.3.attn.q.kernel")
    at = "blocks.3.attn.q.kernel"
    found = Findings([finding(site=at, parameter=at, layer=k)])
    return record, found, page.page(record, found)


def test_a_thousand_sites_are_less_than_two_megabytes(large):
    record, _, text = large
    assert record.sizes["site"] > 1000
    assert len(text.encode()) < 2e6 / 2  # with half of it to spare
    everything = Findings(
        finding(site=name, layer=k) for k, name in enumerate(record["name"].values)
    )
    assert len(page.page(record, everything).encode()) < 2e6


def test_the_verdict_comes_first_and_leads_to_its_row(large):
    text = large[2]
    parsed = Parsed(text)
    assert parsed.said["h1"] == ["1 fault at 1003 sites"]
    assert not parsed.open
    titles = ["What to do", "Pictures", "Sites", "Your lines", "Not opened", "Where it comes from"]
    assert parsed.said["h2"] == titles
    assert set(parsed.all("href")) - {"data:,"} >= {"#recipe", "#pictures", "#sites", "#provenance"}
    (key,) = {href for href in parsed.all("href") if href.startswith("#site-")}
    assert key[1:] in parsed.all("id")
    row = text[text.index(f'id="{key[1:]}"') :].partition("</tr>")[0]
    assert "attn.q.kernel" in row and "dead →" in row
    assert "training mode" in text


def test_every_link_within_the_page_leads_somewhere_and_no_id_is_used_twice(large):
    for text in (large[2], page.page(sweep())):
        parsed = Parsed(text)
        ids = parsed.all("id")
        assert len(ids) == len(set(ids))
        inner = [href[1:] for href in parsed.all("href") if href.startswith("#")]
        used = re.findall(r"url\(#([^)]+)\)", " ".join(parsed.all("clip-path")))
        assert used and not set(inner + used) - set(ids)


def test_the_table_is_a_tree_that_stands_without_the_script(large):
    rows = Parsed(large[2]).rows
    heading = next(row for row in rows if row[0] == "site")
    assert heading[1:4] == ["operation", "→ rms", "← rms"] and heading[-1] == "verdict"
    below = rows[rows.index(heading) + 1 :]
    assert below[0][:4] == ["embed.table", "embedding", "1", "0.1"]
    assert [row[0] for row in below[1:5]] == ["blocks", "0", "ln.scale", "attn"]
    assert below[1] == ["blocks"]  # a group


@pytest.mark.parametrize("record", [transformer(2), sweep()], ids=["sites", "sweep"])
def test_nothing_is_asked_of_a_network(record):
    text = page.page(record, Findings() if "site" in record.dims else None)
    parsed = Parsed(text)
    asked = [v for name in ("src", "href", "action", "data", "poster") for v in parsed.all(name)]
    assert all(v.startswith(("#", "data:")) for v in asked)
    assert not re.search(r"@import|url\((?!#)", text)
    assert "://" not in text
    (policy,) = (a["content"] for t, a in parsed.tags if t == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'")
    (script,) = parsed.said["script"]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy


def test_words_of_the_user_stay_words(tmp_path, undrawn):
    (tmp_path / "net.py").write_text(f"y = x @ w  # {BAD}\nz = y @ v\n")
    record = named(BAD, str(tmp_path / "net.py"))
    found = Findings([finding(site=BAD, parameter=BAD, layer=0)])
    text = page.page(record, found, more={f"Advice {BAD}": f"{BAD}: {BAD}"})
    plain = Parsed(text)
    expected = Parsed(page.page(named("w"), Findings([finding(site="w", parameter="w", layer=0)])))
    assert plain.said["h3"] == [str(tmp_path / "net.py"), "To run it again"]
    assert [t for t, _ in plain.tags].count("script") == 1
    assert [t for t, _ in plain.tags].count("b") == [t for t, _ in expected.tags].count("b") == 0
    assert not any(name.startswith("on") for _, attrs in plain.tags for name in attrs)
    for tag in ("code", "th", "li"):
        assert any(BAD in said for said in plain.said[tag]), tag
    assert f"# {BAD}" in "".join(plain.said["code"])
    assert f"Advice {BAD}" in plain.said["h2"]


def test_names_within_pictures_are_words_too():
    text = page.page(named(BAD), Findings([finding(site=BAD, layer=0)]))
    assert any(BAD in said for said in Parsed(text).said["text"])


def test_an_unescaped_word_would_be_found(undrawn):
    planted = "<code><script>alert(1)</script></code>"
    bad = page.page(named("w"), Findings()).replace("<code>w</code>", planted)
    assert [t for t, _ in Parsed(bad).tags].count("script") > 1


def test_lines_of_the_user_are_beside_their_scales(tmp_path, undrawn):
    (tmp_path / "net.py").write_text("y = x @ w\nz = y @ v\n")
    record = named("w", str(tmp_path / "net.py"))
    rows = Parsed(page.page(record, Findings([finding(site="w", layer=0)]))).rows
    assert ["1", "y = x @ w", "(→ 1, ← 0.1) dead →"] in rows
    assert ["2", "z = y @ v", "(→ 1, ← 0.1)"] in rows
    said = "This file was changed after the measurement."
    assert said not in page.page(record, Findings())
    old = record.assign_attrs(date="2001-01-01T00:00:00+00:00")
    assert said in page.page(old, Findings())
    assert said not in page.page(record.assign_attrs(date="2999-01-01T00:00:00+00:00"), Findings())


def test_what_was_not_opened_and_where_it_comes_from_are_said(undrawn):
    record = named("w").assign_attrs(propagate="0.1.0", network='{"depth": 3}', long="x" * 200)
    text = page.page(record, Findings())
    assert "<li>w</li>" in text and "<code>propagate w</code>" in text
    assert "<dt>propagate</dt>" in text and "<summary>xxx" in text
    without = record.assign_attrs(unopened="[]")
    del without.attrs["command"]
    text = page.page(without, Findings())
    assert "Every call within the model was looked into." in text
    assert "It was recorded from Python." in text


def test_a_sweep_says_which_pairings_are_in_range():
    record = sweep()
    parsed = Parsed(page.page(record))
    assert parsed.said["h1"] == ["2 of 4 pairings keep signals and gradients in range"]
    assert parsed.said["strong"] == ["relu", "tanh"]  # in the order of the sweep
    pictured = [word for word in parsed.said["text"] if word in ("normal", "he", "relu", "tanh")]
    assert pictured[-4:] == ["relu", "tanh", "normal", "he"]
    rows = {tuple(row[:2]): row for row in parsed.rows if len(row) == 7}
    assert rows["normal", "relu"][2:4] == ["vanishing", "-1.000"]
    assert rows["he", "relu"][2:4] == ["stable", "+0.000"]
    layers = [row for row in parsed.rows if row[0] == "8"]
    assert [row[1] for row in layers] == ["-8.00", "-12.00", "0.00", "0.08"]
    assert sum(t == "svg" for t, _ in parsed.tags) == 2


def test_one_network_is_said_in_sentences(undrawn):
    record = sweep().isel(init=[0], activation=[0])
    parsed = Parsed(page.page(record))
    assert parsed.said["h1"] == ["normal + relu: vanishing forward, vanishing backward"]
    assert "Pairings" not in parsed.said["h2"] and "What to do" in parsed.said["h2"]


def test_theory_is_told_from_a_measurement():
    theory = predict(Network(depth=4, width=8, activation="tanh", init=(1.0, 0.1)))
    parsed = Parsed(page.page(theory))
    assert parsed.said["h1"] == ["sigma(1,0.1) + tanh: stable forward, stable backward"]
    (how,) = [words for words in parsed.said["p"] if "depth 4, width 8" in words]
    assert "nothing was measured" in how and "None" not in how
    assert "nothing was measured" not in page.page(sweep())


def test_layers_of_deep_sweeps_are_thinned():
    record = sweep(layers=2000, seeds=1)
    text = page.page(record)
    assert len(text.encode()) < 2e6
    assert "250 of 2001 layers" in text
    rows = [row for row in Parsed(text).rows if row[0] == "2000"]
    assert len(rows) == 4


def test_other_records_are_refused(undrawn):
    with pytest.raises(UnusableInput, match="a report needs a record of sweep"):
        page.page(xr.Dataset({"x": ("width", [1.0])}))


def test_two_pictures_do_not_share_ids():
    text = '<svg xmlns:xlink="x" width="9pt"><style/><path id="a" d="M 0.12345 1 &#10; L 2 3"/>'
    text += '<use xlink:href="#a" style="clip-path: url(#a); font-family: A, B; fill: none"/></svg>'
    one, other = pictures.svg(text, "one"), pictures.svg(text, "other")
    assert [e.tag for e in one] == ["path", "use"]
    assert one[0].attrib == {"id": "one-a", "d": "M 0.12 1 L 2 3"}
    assert one[1].attrib == {"href": "#one-a", "style": "clip-path: url(#one-a); fill: none"}
    assert other[0].get("id") == "other-a"


def test_a_page_is_written_whole(tmp_path):
    path = page.write(named("w"), tmp_path / "deeper" / "page.html", Findings())
    assert path.read_text("utf-8").startswith("<!doctype html>")
    assert [p.name for p in path.parent.iterdir()] == ["page.html"]


def test_notes_are_marked_as_such_and_what_is_healthy_needs_nothing(undrawn):
    note = finding(Verdict.DEPARTING, site="w", layer=0, severity="note")
    text = page.page(named("w"), Findings([note]))
    assert "Healthy: no faults at 2 sites" in text and " (note) " in text
    assert '<tr data-in="0" class="note"' in text and "What to do" not in text
