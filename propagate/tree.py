"""A custom model's sites for people: a tree in model order, the user's own lines, flat numbers."""

import io
import json
import linecache
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from propagate.findings import Findings

FOLDED = ("elementwise", "op")
GAP = 8  # lines without a site that `source` leaves out
HEADINGS = ("site", "kind", "→ rms", "← rms", "σ_w²", "law", "∇/w", "branch/skip", "finding")


def table(record: xr.Dataset, findings: Findings, *, every: bool = False) -> RenderableType:
    """Return the sites as an indented table, one row each; those of a finding are red.

    `→ rms` and `← rms` are of the signal and of its gradient, σ_w² is fan_in·Var(W), `∇/w` the rms
    of a parameter's gradient over its own.

    Args:
        record: of `diagnose`.
        findings: on it.
        every: whether to show the parts of activations and normalisations too.
    """
    made = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in HEADINGS:
        made.add_column(heading, justify="left" if heading in ("site", "kind", "law") else "right")
    above: list[str] = []
    for k in _shown(record, every):
        *parents, own = _parts(str(record["name"].values[k]))
        common = next((i for i, p in enumerate(parents) if above[i : i + 1] != [p]), len(parents))
        for level in range(common, len(parents)):
            made.add_row(Text("  " * level + parents[level], style="dim"))
        above = parents
        word = _word(record, findings, k)
        label = Text("  " * len(parents) + own)
        made.add_row(label, *_cells(record, k), word, style="red" if word else None)
    return Group(made, *map(Text, json.loads(record.attrs.get("unopened", "[]"))))


def _shown(record: xr.Dataset, every: bool) -> Iterator[int]:
    kinds = record["kind"].values
    yield from (k for k in range(len(kinds)) if every or kinds[k] not in FOLDED)


def _parts(name: str) -> list[str]:
    return [part for part in name.replace("/", ".").split(".") if part] or [name]


def _cells(record: xr.Dataset, k: int) -> list[str]:
    kind, label = str(record["kind"].values[k]), str(record["label"].values[k])
    what = label if kind in ("activation", "custom", "tag", "op", "elementwise") else kind
    values = [_rms(record, f"log10_{name}_q", k) for name in ("forward", "backward")]
    return [what, *map(number, values), *_weight_cells(record, k), _share(record, k)]


def _rms(record: xr.Dataset, name: str, k: int) -> float:
    return 10 ** (float(record[name].values[k]) / 2) if name in record else math.nan


def _weight_cells(record: xr.Dataset, k: int) -> list[str]:
    at = np.flatnonzero(record["weight"].values == record["parameter"].values[k])
    if not len(at):
        return ["", "", ""]
    own = record.isel(weight=int(at[0]))
    sigma2 = 10 ** float(own["log10_weight_sigma2"])
    ratio = 10 ** float(own["log10_gradient_to_weight"])
    law = str(own["weight_law"].values)
    return ["" if math.isnan(sigma2) else number(sigma2), law, number(ratio)]


def _share(record: xr.Dataset, k: int) -> str:
    if record["kind"].values[k] != "add" or "log10_branch_q" not in record:
        return ""
    return number(_rms(record, "log10_branch_q", k) / max(_rms(record, "log10_skip_q", k), 1e-300))


def number(value: float) -> str:
    """Return three digits; `0` for an exact zero and `–` for what was not measured."""
    if math.isnan(value):
        return "–"
    return "0" if value == 0 else f"{value:.3g}"


def _word(record: xr.Dataset, findings: Findings, k: int) -> str:
    name, parameter = (str(record[c].values[k]) for c in ("name", "parameter"))
    words = [f.verdict.value for f in findings if f.site == name or f.parameter == parameter != ""]
    return ", ".join(dict.fromkeys(words))


def html(record: xr.Dataset, findings: Findings) -> str:
    """Return the table and the findings for a notebook."""
    console = Console(record=True, width=130, file=io.StringIO())
    console.print(Text(str(findings) or "no findings"), table(record, findings))
    return console.export_html(inline_styles=True, code_format="<pre>{code}</pre>")


def source(record: xr.Dataset, findings: Findings) -> RenderableType:
    """Return the user's own lines, with (→ forward rms, ← backward rms) at the end of each.

    Where several sites share a line, loops among them, the range is given.
    """
    lines: dict[str, dict[int, list[int]]] = {}
    for k, (file, line) in enumerate(
        zip(record["file"].values, record["line"].values, strict=True)
    ):
        if Path(str(file)).is_file():
            lines.setdefault(str(file), {}).setdefault(int(line), []).append(k)
    if not lines:
        return Text("No source file of this model can be read.")
    return Group(*(Text.assemble(*_file(record, findings, f, own)) for f, own in lines.items()))


def _file(
    record: xr.Dataset, findings: Findings, file: str, sites: dict[int, list[int]]
) -> Iterator[tuple[str, str]]:
    yield f"{Path(file).name}\n", "bold"
    last = None
    for line in range(min(sites), max(sites) + 1):
        ahead = next(n for n in sorted(sites) if n >= line)
        if line not in sites and ahead - (last or line) > GAP:
            if line == (last or 0) + 1:
                yield "   ⋮\n", "dim"
            continue
        text = f"{line:4} {linecache.getline(file, line).rstrip()}"
        if line in sites:
            last = line
            bad = any(_word(record, findings, k) for k in sites[line])
            yield text, "red" if bad else ""
            yield f"   ({_range(record, 'forward', sites[line], '→')}", "cyan"
            yield f", {_range(record, 'backward', sites[line], '←')})\n", "cyan"
        else:
            yield text + "\n", "dim"


def _range(record: xr.Dataset, direction: str, sites: list[int], arrow: str) -> str:
    values = [_rms(record, f"log10_{direction}_q", k) for k in sites]
    known = [v for v in values if not math.isnan(v)] or [math.nan]
    ends = dict.fromkeys(map(number, (min(known), max(known))))
    return f"{arrow} {'…'.join(ends)}"


def scalars(record: xr.Dataset, prefix: str = "") -> dict[str, float]:
    """Return `{prefix/name/forward_rms: …}` and the like: the finite numbers, for a logger."""
    start = f"{prefix}/" if prefix else ""
    found: dict[str, float] = {}
    for k, name in enumerate(record["name"].values):
        for direction in ("forward", "backward"):
            value = _rms(record, f"log10_{direction}_q", k)
            found[f"{start}{name}/{direction}_rms"] = value
    for name, log in zip(
        record["weight"].values, record["log10_gradient_to_weight"].values, strict=True
    ):
        found[f"{start}{name}/gradient_to_weight"] = float(10.0**log)
    return {name: value for name, value in found.items() if math.isfinite(value)}
