"""Statistics of a program's sites as a pytree, and the labelled record that they make.

Arrays that may leave a jitted training step, with the names of the sites beside them as static
data.
"""

import functools
import itertools
from collections import Counter
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import xarray as xr

from propagate.record import measures, provenance
from propagate.record.measures import Selection
from propagate.record.sums import finish, kept, needed
from propagate.tracing import weight_laws
from propagate.tracing.sites import EqnPath, Leaf, Site, Unopened
from propagate.tracing.source_labels import is_library

Row = tuple[Site, tuple[int, ...]]  # a site and the iteration of the scans around it


@dataclass(frozen=True)
class Meta:
    """What is known of a trace before any number is.

    Attributes:
        sites: in program order.
        parameters: the dotted path of each.
        shapes: of each parameter.
        slices: of each parameter, how many leading axes number its layers.
        bundles: numbers of the parameters whose sums are taken together.
        selection: the measures of each kind of signal.
        unopened: what was not looked into.
    """

    sites: tuple[Site, ...]
    parameters: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    slices: tuple[int, ...]
    bundles: tuple[tuple[int, ...], ...]
    selection: Selection
    unopened: tuple[Unopened, ...]

    def parameter(self, leaf: Leaf | None, turn: tuple[int, ...]) -> str:
        """Return the path of a parameter, with the number of its layer."""
        if leaf is None:
            return ""
        return self.parameters[leaf[0]] + "".join(f"[{k}]" for k in _index(leaf, turn))

    def rows(self) -> list[Row]:
        """Return the sites, one for each iteration of the scans around it, in program order."""
        rows = [(s, t) for s in self.sites for t in itertools.product(*map(range, s.loops))]
        return sorted(rows, key=_order)

    def names(self, rows: list[Row]) -> list[str]:
        """Return a name for each row: its parameter's, or that of its layer and operation."""
        names, used = [self._name(*row) for row in rows], Counter()
        for k, name in enumerate(names):
            used[name] += 1
            if used[name] > 1:
                names[k] = f"{name}#{used[name]}"
        return names

    def _name(self, site: Site, turn: tuple[int, ...]) -> str:
        if site.leaf:
            return self.parameter(site.leaf, turn)
        if site.kind == "tag":
            return site.label + _brackets(turn)
        layer = self.parameter(site.after, turn)
        owner = layer.rpartition(".")[0] or layer or site.scope
        counted = site.after is not None and any(k < 0 for k in site.after[1])
        index = "" if counted else _brackets(turn)
        return f"{owner}/{site.label}{index}" if owner else site.label + index


def _brackets(turn: tuple[int, ...]) -> str:
    return "".join(f"[{k}]" for k in turn)


def _index(leaf: Leaf, turn: tuple[int, ...]) -> tuple[int, ...]:
    """Return which slice of a stacked parameter an iteration uses."""
    return tuple(k if k >= 0 else turn[-1 - k] for k in leaf[1])


def _order(row: Row) -> tuple[int, ...]:
    """Sort by place, with the number of the iteration after each scan."""
    site, turn = row
    key = list(site.place)
    for at, k in reversed(list(zip(site.turns, turn, strict=True))):
        key.insert(at, k)
    return tuple(key)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("seen", "gradients", "weights"),
    meta_fields=("meta",),
)
@dataclass(frozen=True)
class Trace:
    """Sums over the signals, gradients and parameters of one evaluation; a pytree.

    Attributes:
        seen: of the signal at each site.
        gradients: of the gradient at each site.
        weights: of the parameters of each bundle and of their gradients.
        meta: names and layouts, static.
    """

    seen: dict[EqnPath, dict[str, Any]]
    gradients: dict[EqnPath, Any]
    weights: tuple[dict[str, Any], ...]
    meta: Meta

    def record(self) -> xr.Dataset:
        """Return the statistics as a labelled record, dims (site,) and (weight,).

        Scale-like variables are log10 of second moments, as those of a sweep.
        """
        rows = self.meta.rows()
        variables = dict(self._variables(rows))
        names = np.array(self.meta.names(rows), dtype=object).astype(str)
        coords = {"name": names} | _columns(self.meta, rows)
        coords["taken"] = np.array([self._taken(*row) for row in rows], bool)
        sites = {k: ("site", v) for k, v in (coords | variables).items()}
        weights = weight_laws.table(self.meta, self.weights, rows)
        made = xr.Dataset(sites | weights, {"site": np.arange(len(rows))})
        made = made.set_coords(list(coords))
        if "log10_gradient_q" in made:
            made["log10_weight_gradient_q"] = "site", _of_parameter(made, "log10_gradient_q")
        unopened = [str(one) for one in self.meta.unopened]
        return made.assign_attrs(provenance.provenance(unopened=unopened))

    def _variables(self, rows: list[Row]) -> Any:
        for place, wanted in self.meta.selection:
            for measure in wanted:
                name = measure.variable(place)
                alive = measure.name in ("dead_fraction", "saturated_fraction")
                if place in ("forward", "backward") or alive:
                    yield name, self._measured(measure, place, rows)
        for which in ("skip", "branch"):
            yield f"log10_{which}_q", self._measured(measures.Q, which, rows)

    def _measured(self, measure: Any, place: str, rows: list[Row]) -> np.ndarray:
        """Return a statistic of every row; NaN where it was not taken."""
        sums = needed((measure,))
        finished = {
            site.place: finish(measure, kept(stats, sums, site.layout), site.layout.of(site.shape))
            for site in self.meta.sites
            if (stats := self._stats(site, measure.name, place)) is not None
        }
        known = lambda s, turn: s.place in finished and self._taken(s, turn)  # noqa: E731
        return np.array([finished[s.place][turn] if known(s, turn) else np.nan for s, turn in rows])

    def _taken(self, site: Site, turn: tuple[int, ...]) -> bool:
        """Whether a row was computed: in a branch of a conditional, it may not have been."""
        taken = self.seen[site.place].get("taken")
        if taken is None:
            return True
        count = np.asarray(taken["count"])  # of the conditional, whatever loops are inside it
        return bool(count[turn[: count.ndim]])

    def _stats(self, site: Site, name: str, place: str) -> Any:
        own = self.seen[site.place]
        if place == "backward":
            return self.gradients[site.place] if self.gradients else None
        if place in ("skip", "branch"):
            if site.skip is None:
                return None
            k = site.skip if place == "skip" else 1 - site.skip
            other = site.terms[k]
            return own[f"term{k}"] if other is None else self.seen[other]["forward"]
        if name == "saturated_fraction":
            return own.get("slope")
        if name == "dead_fraction" and site.kind != "activation":
            return None
        return own["forward"]


def _columns(meta: Meta, rows: list[Row]) -> dict[str, np.ndarray]:
    columns = {
        "kind": [s.kind for s, _ in rows],
        "label": [s.label for s, _ in rows],
        "parameter": [meta.parameter(s.leaf, t) for s, t in rows],
        "after": [meta.parameter(s.after, t) for s, t in rows],
        "scope": [s.scope for s, _ in rows],
        "file": [s.frame.file if s.frame else "" for s, _ in rows],
        "function": [s.frame.function if s.frame else "" for s, _ in rows],
        "source": [f"{s.frame.file}:{s.frame.line}" if s.frame else "" for s, _ in rows],
    }
    depth = [s.depth + sum(np.multiply(s.strides, t)) for s, t in rows]
    line = [s.frame.line if s.frame else 0 for s, _ in rows]
    sizes = np.array([s.layout.of(s.shape) for s, _ in rows], int).reshape(-1, 3)
    words = {name: np.array(values, dtype=np.str_) for name, values in columns.items()}
    library = [is_library(s.frame.file) if s.frame else False for s, _ in rows]
    counts = {"rows": sizes[:, 0] * sizes[:, 1], "units": sizes[:, 2]}
    return (
        words
        | counts
        | {
            "depth": np.array(depth, int),
            "line": np.array(line, int),
            "library": np.array(library, bool),
        }
    )


def _of_parameter(made: xr.Dataset, name: str) -> np.ndarray:
    value = dict(zip(made["weight"].values, made[name].values, strict=True))
    return np.array([value.get(p, np.nan) for p in made["parameter"].values])
