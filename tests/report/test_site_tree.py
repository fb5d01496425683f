"""A custom model in words: rows and columns of the tree, the user's lines, flat numbers."""

import io
import json
import math

import numpy as np
import pytest
from rich.console import Console
from site_records import finding, sites, transformer

from propagate.report import scalars, site_tree, source_lines
from propagate.verdicts.findings import Findings, Verdict

SITE = ("site", "operation")


def printed(renderable, width=120, styles=False) -> str:
    console = Console(record=True, width=width, file=io.StringIO(), color_system="standard")
    console.print(renderable)
    return console.export_text(styles=styles)


def rows_of(record, *found, **options) -> list[str]:
    """The lines below the heading, without the key."""
    lines = [
        line.rstrip()
        for line in printed(site_tree.table(record, Findings(found), **options)).splitlines()
    ]
    first = next(k for k, line in enumerate(lines) if "───" in line) + 1
    return [line[1:] for line in lines[first : lines.index("", first)]]


def heading(record, *found, width=120) -> list[str]:
    line = printed(site_tree.table(record, Findings(found)), width).splitlines()[2]
    return line.replace(" rms", "").split()


def test_the_tree_is_in_model_order_with_the_prefix_in_rows_of_its_own():
    names = [line[:15].rstrip() for line in rows_of(transformer())]
    block = ["    ln.scale", "    attn"]
    block += [f"      {n}" for n in ("q.kernel", "k.kernel", "softmax", "o.kernel")] + ["    add"]
    assert names == ["embed.table", "blocks", "  0", *block, "  1", *block, "head.kernel"]


def test_elementwise_operations_are_shown_on_request():
    plain, every = rows_of(transformer()), rows_of(transformer(), every=True)
    added = [line.split()[0] for line in every if line not in plain]
    assert added == ["fc/exp"] * 2 and len(every) == len(plain) + 2


def test_one_prefix_of_everything_is_one_row():
    net = sites(
        [(f"net.layers.{k}.w", "matmul", "matmul", f"net.layers.{k}.w", "", 0) for k in range(3)]
    )
    assert [line[:10].rstrip() for line in rows_of(net)] == [
        "net.layers",
        "  0.w",
        "  1.w",
        "  2.w",
    ]


@pytest.mark.parametrize(
    "names",
    [
        ["blocks.kernel[0]", "blocks/gelu[0]", "blocks.kernel[1]", "blocks/gelu[1]"],
        ["w", "w/tanh", "w/tanh#2", "w/tanh#3"],
        ["[red]w[/red]", "", "/add", "a..b"],
    ],
)
def test_every_name_has_its_row(names):
    lines = rows_of(sites([(name, "activation", "f", "", "", 0) for name in names]))
    own = [line for line in lines if " f " in f"{line} "]
    last = [name.split(".")[-1].split("/")[-1] for name in names if "[/" not in name]
    assert len(own) == len(names) and all(any(n in line for line in own) for n in last)


def test_cells_say_rms_and_what_is_known_of_the_parameter():
    record = transformer(1)
    assert heading(record) == [*SITE, "→", "←", "σ_w²", "law", "∇/w", "branch/skip"]
    first = rows_of(record)[0].split()
    assert first == ["embed.table", "embedding", "1", "0.1", "2", "he_normal", "0.001"]
    assert rows_of(record)[-2].split() == ["add", "add", "1", "0.1", "0.316"]


@pytest.mark.parametrize(
    ("q", "text"),
    [(0, "1"), (-np.inf, "0"), (np.nan, "–"), (np.inf, "∞"), (0.02, "1.02"), (-7.5, "0.000178")],
)
def test_numbers_have_three_digits(q, text):
    assert rows_of(sites([("w", "matmul", "matmul", "w", "", 0)], [q]))[0].split()[2] == text


@pytest.mark.parametrize(("decades", "text"), [(-20.5, "3.16e-21"), (33, "1e+33"), (400, "∞")])
def test_tiny_and_huge_numbers_are_scientific(decades, text):
    record = sites([("w", "matmul", "matmul", "w", "", 0)])
    record["log10_gradient_to_weight"][:] = decades
    assert rows_of(record)[0].split()[-1] == text


def test_what_was_not_measured_has_no_column():
    few = transformer().drop_vars(["log10_backward_q", "log10_branch_q", "weight_law"])
    assert heading(few) == [*SITE, "→", "σ_w²", "∇/w"]


def test_rows_of_findings_are_red_and_end_with_the_verdict():
    found = (
        finding(site="blocks.1/add"),
        finding(Verdict.VANISHING, "backward", parameter="blocks.0.attn.q.kernel"),
        finding(Verdict.SATURATED, site="blocks.1/add"),
        finding(Verdict.DEAD, site="blocks.1.fc/exp"),
    )
    shown = site_tree.table(transformer(), Findings(found))
    red = [line for line in printed(shown, styles=True).splitlines() if "\x1b[31m" in line]
    verdicts = tuple(v.value for v in Verdict)
    plain = [line for line in printed(shown).splitlines() if any(v in line for v in verdicts)]
    assert len(red) == len(plain) == 3
    assert [line.split()[0] for line in plain] == ["q.kernel", "fc/exp", "add"]
    ends = ["vanishing ←", "dead →", "dead →, saturated →"]
    assert all(line.rstrip().endswith(end) for line, end in zip(plain, ends, strict=True))


def test_the_footer_lists_what_was_not_opened():
    left = ["while at a.py:3 was not opened, 2 matrix products inside: no fixed number of turns"]
    text = printed(site_tree.table(transformer(unopened=json.dumps(left)), Findings()))
    assert text.rstrip().endswith(f"Not opened:\n{left[0]}")
    assert "Not opened" not in printed(site_tree.table(transformer(unopened="[]"), Findings()))


@pytest.mark.parametrize("width", [120, 80, 60])
def test_a_narrow_terminal_loses_columns_and_no_numbers(width):
    record = transformer(12)
    record["name"] = "site", np.char.add("a_long_prefix_to_the_name.", record["name"].values)
    found = finding(site=str(record["name"].values[5]))
    lines = printed(site_tree.table(record, Findings([found])), width).splitlines()
    assert "…" not in "".join(lines) and max(map(len, lines)) <= width
    columns = heading(record, found, width=width)
    assert columns[:1] + columns[-1:] == ["site", "verdict"] and {"→", "←"} < set(columns)
    assert ("law" in columns) == (width == 120)


def test_a_model_that_is_repetitive_has_short_rows():
    lines = rows_of(transformer(12))
    assert len(lines) == 12 * 8 + 3
    assert max(map(len, lines)) < 100


def test_html_escapes_what_names_hold():
    record = sites([("<script>[red]", "matmul", "matmul", "", "", 0)], model="<b>")
    text = site_tree.html(record, Findings([finding(site="<script>[red]")]))
    assert "<script>" not in text and "<b>" not in text
    assert "&lt;script&gt;[red]" in text and "dead" in text
    assert "color: #cc555a" in text  # red on light and on dark


CODE = """import jax
embedded = table[tokens]
x = norm(embedded)
q, k = x @ w_q, x @ w_k
a = jax.nn.softmax(q)
o = a @ w_o
e = jax.numpy.exp(o)
x = x + e
"""


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "model.py"
    path.write_text(CODE + "# nothing\n" * 20 + "\thead = x @ w[0]\n" + "# the end\n")
    return str(path)


def lines_of(record, *found) -> list[str]:
    return [
        line.rstrip() for line in printed(source_lines.source(record, Findings(found))).splitlines()
    ]


def numbered(file, q=None):
    lines = [2, 4, 4, 8, 8, 29]
    kinds = ["embedding", "matmul", "matmul", "add", "elementwise", "matmul"]
    rows = [
        (f"s{k}", kind, kind, "", file, line)
        for k, (kind, line) in enumerate(zip(kinds, lines, strict=True))
    ]
    return sites(rows, q)


def test_lines_carry_their_numbers(written):
    q = [0, -0.1, 0.1, np.nan, 4, -np.inf]
    path, *lines = lines_of(numbered(written, q))
    assert path and written.startswith(path)
    lines = [line for line in lines if line[:2].strip() or "⋮" in line]
    assert [line.split()[0] for line in lines] == [*"2345678", "⋮", "29"]
    notes = [line.partition("  (")[2] for line in lines]
    expected = [
        "→ 1, ← 0.1)",
        "",
        "→ 0.891 to 1.12, ← 0.1)",
        "",
        "",
        "",
        "← 0.1)",
        "",
        "→ 0, ← 0.1)",
    ]
    assert notes == expected
    assert len({line.index("(→") for line in lines if "(→" in line}) == 1


def test_a_line_of_elementwise_operations_alone_has_theirs(written):
    record = sites([("scale", "elementwise", "mul", "", written, 3)], [4])
    assert lines_of(record)[-1].endswith("x = norm(embedded)  (→ 100, ← 0.1)")


def test_the_line_of_a_finding_is_red(written):
    found = finding(Verdict.EXPLODING, site="s2")
    text = printed(source_lines.source(numbered(written), Findings([found])), styles=True)
    (red,) = [line for line in text.splitlines() if "\x1b[31m" in line]
    assert "q, k" in red and "exploding →" in red


def test_a_long_file_is_cut_off(tmp_path):
    path = tmp_path / "long.py"
    path.write_text("x = x @ w\n" * 500)
    rows = [(f"w.{k}", "matmul", "matmul", "", str(path), k + 1) for k in range(500)]
    lines = lines_of(sites(rows))
    assert len(lines[1:]) <= source_lines.MOST_LINES + 2 and "⋮" in lines[-1]
    assert lines[-2].split()[0] == str(source_lines.MOST_LINES)


def test_libraries_are_shown_only_if_nothing_else_can_be(written, tmp_path):
    library = tmp_path / "site-packages" / "nn.py"
    library.parent.mkdir()
    library.write_text("y = w @ x\n")
    both = [
        ("a", "matmul", "matmul", "", str(library), 1),
        ("b", "matmul", "matmul", "", written, 4),
    ]
    assert "y = w @ x" not in "\n".join(lines_of(sites(both)))
    assert "y = w @ x" in "\n".join(lines_of(sites(both[:1])))


@pytest.mark.parametrize("file", ["", "/nowhere/model.py", "<string>", "/"])
def test_source_that_cannot_be_read_is_said(file):
    assert lines_of(numbered(file)) == ["No file of the model's source can be read."]


def test_lines_beyond_the_file_are_left_out(written):
    record = sites(
        [("a", "matmul", "matmul", "", written, 999), ("b", "add", "add", "", written, 0)]
    )
    assert lines_of(record) == ["No file of the model's source can be read."]


def test_scalars_are_finite_and_named():
    record = transformer(1, q=[0, -2, np.nan, np.inf, -np.inf, 1, 0, 0, 0])
    record["log10_gradient_to_weight"][0] = np.inf
    found = scalars.scalars(record, "run/train")
    assert found["run/train/embed.table/forward_rms"] == 1
    assert found["run/train/blocks.0.ln.scale/forward_rms"] == pytest.approx(0.1)
    assert found["run/train/blocks.0.attn/softmax/forward_rms"] == 0
    assert found["run/train/head.kernel/backward_rms"] == pytest.approx(0.1)
    assert found["run/train/head.kernel/gradient_to_weight"] == pytest.approx(1e-3)
    assert len(found) == (9 - 2) + 9 + (6 - 1)
    assert all(type(value) is float and math.isfinite(value) for value in found.values())
    assert set(scalars.scalars(record)) == {name.removeprefix("run/train/") for name in found}


def test_scalars_of_a_record_of_signals_alone():
    names = ["log10_backward_q", "log10_gradient_to_weight"]
    found = scalars.scalars(transformer(1).drop_vars(names))
    assert {name.rpartition("/")[2] for name in found} == {"forward_rms"}
