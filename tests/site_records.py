"""Records of custom models and findings on them, as they are where nothing is run."""

import math

import numpy as np
import xarray as xr

from propagate.verdicts.findings import Finding, Verdict

COLUMNS = ("name", "kind", "label", "parameter", "file", "line")
BLOCK = [  # name, kind, label, parameter, line
    ("ln.scale", "norm", "mul", "ln.scale", 3),
    ("attn.q.kernel", "matmul", "matmul", "attn.q.kernel", 4),
    ("attn.k.kernel", "matmul", "matmul", "attn.k.kernel", 4),
    ("attn/softmax", "activation", "softmax", "", 5),
    ("attn.o.kernel", "matmul", "matmul", "attn.o.kernel", 6),
    ("fc/exp", "elementwise", "exp", "", 7),
    ("/add", "add", "add", "", 8),
]


def sites(rows, q=None, **attrs) -> xr.Dataset:
    """A record of rows (name, kind, label, parameter, file, line), its weights and q of 1."""
    columns = dict(zip(COLUMNS, zip(*rows, strict=True), strict=True))
    n, paths = len(rows), sorted({p for p in columns["parameter"] if p})
    adds = np.array(columns["kind"]) == "add"
    forward = np.zeros(n) if q is None else np.array(q, float)
    made = {name: ("site", np.array(values)) for name, values in columns.items()}
    made |= {
        "library": ("site", ["site-packages" in file for file in columns["file"]]),
        "log10_forward_q": ("site", forward),
        "log10_backward_q": ("site", np.full(n, -2.0)),
        "log10_branch_q": ("site", np.where(adds, -1.0, np.nan)),
        "log10_skip_q": ("site", np.where(adds, 0.0, np.nan)),
        "log10_weight_sigma2": ("weight", np.full(len(paths), math.log10(2))),
        "weight_law": ("weight", np.full(len(paths), "he_normal")),
        "log10_gradient_to_weight": ("weight", np.full(len(paths), -3.0)),
    }
    made["depth"] = "site", np.arange(n)
    coords = {"site": np.arange(n), "weight": np.array(paths, str)}
    return xr.Dataset(made, coords, attrs).set_coords([*columns, "library", "depth"])


def transformer(blocks=2, file="", **options) -> xr.Dataset:
    rows = [("embed.table", "embedding", "gather", "embed.table", file, 1)]
    for b in range(blocks):
        for name, kind, label, parameter, line in BLOCK:
            own = f"blocks.{b}{name}" if name[0] == "/" else f"blocks.{b}.{name}"
            made_by = f"blocks.{b}.{parameter}" if parameter else ""
            rows.append((own, kind, label, made_by, file, line))
    rows.append(("head.kernel", "matmul", "matmul", "head.kernel", file, 30))
    return sites(rows, **options)


def finding(verdict=Verdict.DEAD, direction="forward", site="", parameter="", layer=None, **other):
    nan, place = math.nan, (layer, "why", site, parameter)
    return Finding("", "", direction, verdict, nan, (nan, nan), nan, nan, *place, **other)
