"""Statistics of a program's sites as a pytree, and the labelled record that they make.

A `Trace` may leave a jitted training step: it holds arrays, with the names of the sites beside them
as static data.

    sums {(0,): {"forward": {"largest": …, "squares": …}}, …}        Trace, on the device
      └─ record() ─▶ log10_forward_q [-0.3, -0.8] over dim site      xarray, on the host

    >>> from propagate.tracing.value_and_grad import value_and_grad
    >>> loss = lambda params, x: jax.numpy.sum(jax.numpy.tanh(x @ params["w"]))
    >>> _, trace = value_and_grad(loss)({"w": np.eye(3)}, np.ones((2, 3)))
    >>> sorted(trace.seen[(0,)]), trace.names.parameters.paths
    (['forward'], ('w',))
    >>> record = trace.record()
    >>> record["name"].values.tolist(), record["log10_forward_q"].values.round(2).tolist()
    (['w', 'w/tanh'], [0.0, -0.24])
"""

import functools
import itertools
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
import xarray as xr

from propagate.record import measures, provenance
from propagate.record.kept_values import Kept, reduced
from propagate.record.measures import Measure, Selection
from propagate.record.sums import finish, kept, needed
from propagate.tracing import weight_laws
from propagate.tracing.instrument import Seen, Stats, is_softmax
from propagate.tracing.sites import EqnPath, ParameterSlice, Site, Unopened
from propagate.tracing.source_labels import is_library
from propagate.tracing.trees import ParameterTable, brackets

BACKWARD = "backward"
Part = tuple[EqnPath, str]  # a site and which of its signals, or its gradient
Row = tuple[Site, tuple[int, ...]]  # a site and the iteration of the scans around it


@dataclass(frozen=True)
class SiteNames:
    """The sites of a program and what they are called, known before any number is.

    Attributes:
        sites: in program order.
        parameters: of the program.
        selection: the measures of each kind of signal.
        unopened: what was not looked into.
    """

    sites: tuple[Site, ...]
    parameters: ParameterTable
    selection: Selection
    unopened: tuple[Unopened, ...]

    @property
    def first_input(self) -> int:
        """Return the number of the first argument of the batch."""
        return len(self.parameters.paths)

    def parameter(self, used: ParameterSlice | None, turn: tuple[int, ...]) -> str:
        """Return the path of a parameter, with the number of its layer."""
        if used is None:
            return ""
        return self.parameters.paths[used.number] + brackets(used.of_turn(turn))

    def biases(self, site: Site, turn: tuple[int, ...]) -> str:
        """Return the paths of what was added to what comes into an activation."""
        return ", ".join(self.parameter(used, turn) for used in site.biases)

    def rows(self) -> list[Row]:
        """Return the sites, one for each iteration of the scans around it, in program order."""
        rows = [(s, t) for s in self.sites for t in itertools.product(*map(range, s.loops))]
        return sorted(rows, key=site_key)

    def names(self, rows: list[Row]) -> list[str]:
        """Return a name for each row: its parameter's, or that of its layer and operation."""
        names, used = [self._name(*row) for row in rows], Counter()
        for k, name in enumerate(names):
            used[name] += 1
            if used[name] > 1:
                names[k] = f"{name}#{used[name]}"
        return names

    def _name(self, site: Site, turn: tuple[int, ...]) -> str:
        if site.parameter:
            return self.parameter(site.parameter, turn)
        if site.kind == "tag":
            return site.label + brackets(turn)
        layer = self.parameter(site.after, turn)
        owner = layer.rpartition(".")[0] or layer or site.scope
        counted = site.after is not None and any(k < 0 for k in site.after.index)
        index = "" if counted else brackets(turn)
        return f"{owner}/{site.label}{index}" if owner else site.label + index


def site_key(row: Row) -> tuple[int, ...]:
    """Return what rows are sorted by: the path, with the turns that have passed after each scan."""
    site, turn = row
    key = list(site.path)
    for at, k in reversed(list(zip(site.turns, site.passed(turn), strict=True))):
        key.insert(at, k)
    return tuple(key)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("seen", "gradients", "weights", "weight_gradients"),
    meta_fields=("names", "handed_out", "sampled"),
)
@dataclass(frozen=True)
class Trace:
    """Sums over the signals, gradients and parameters of one evaluation; a pytree.

    Attributes:
        seen: of the signal at each site.
        gradients: of the gradient at each site; empty if none was taken.
        weights: of the parameters of each bundle.
        weight_gradients: of their gradients; None if none was taken.
        names: names and layouts, static.
        handed_out: of which parts of a site the values are there instead of sums, and what is
            wanted of them; without the values.
        sampled: paths of the sites of which a sample was taken, and how many numbers it has.
    """

    seen: Seen
    gradients: dict[EqnPath, Stats]
    weights: tuple[Stats, ...]
    weight_gradients: tuple[Stats, ...] | None
    names: SiteNames
    handed_out: tuple[tuple[Part, Kept], ...] = ()
    sampled: tuple[tuple[EqnPath, int], ...] = ()

    def record(self) -> xr.Dataset:
        """Return the statistics as a labelled record, dims (site,) and (weight,).

        Scale-like variables are log10 of second moments, as those of a sweep. The labels of dim
        `weight` are parameters' paths, as are the values of the coordinate `parameter` of a site:
        the dim keeps the name by which records that were saved are selected.
        """
        if self.handed_out:
            return self.summed().record()
        rows = self.names.rows()
        variables = dict(self._variables(rows))
        names = np.array(self.names.names(rows), dtype=object).astype(str)
        coords = {"name": names} | _columns(self.names, rows) | {"values": self._values(rows)}
        coords["taken"] = np.array([was_taken(self.seen[s.path], t) for s, t in rows], bool)
        sites = {k: ("site", v) for k, v in (coords | variables).items()}
        made = xr.Dataset(sites | self._of_weights(rows), {"site": np.arange(len(rows))})
        made = made.set_coords(list(coords))
        if "log10_gradient_q" in made:
            made["log10_weight_gradient_q"] = "site", _of_parameter(made, "log10_gradient_q")
        unopened = [str(one) for one in self.names.unopened]
        backward = None if self.gradients else "not measured"
        for name in ("log10_forward_max", "activation_dead_fraction"):
            if name in made and self.sampled:
                made[name].attrs["of"] = "the sample"
        return made.assign_attrs(provenance.provenance(unopened=unopened, backward=backward))

    def summed(self) -> "Trace":
        """Return the trace on the host, with sums where there were values."""
        asked = [
            one._replace(values=self._at(path, part)["values"])
            for (path, part), one in self.handed_out
        ]
        sums = dict(zip((part for part, _ in self.handed_out), reduced(asked), strict=True))
        seen = {
            path: {part: sums.get((path, part), stats) for part, stats in own.items()}
            for path, own in self.seen.items()
        }
        gradients = {path: sums.get((path, BACKWARD), s) for path, s in self.gradients.items()}
        seen, gradients = jax.device_get((seen, gradients))
        return replace(self, seen=seen, gradients=gradients, handed_out=())

    def _at(self, path: EqnPath, part: str) -> Stats:
        return self.gradients[path] if part == BACKWARD else self.seen[path][part]

    def _values(self, rows: list[Row]) -> np.ndarray:
        """Return how many numbers of each row's value its statistics rest on."""
        sampled = dict(self.sampled)
        return np.array([sampled.get(s.path, math.prod(s.shape)) for s, _ in rows], int)

    def findings(self) -> Any:
        """Return the `Findings`, worst first, as `diagnose` does; they print as sentences."""
        from propagate.verdicts.judge import judge

        return judge(self.record()).worst_first()

    def scalars(self, prefix: str = "") -> dict[str, float]:
        """Return flat numbers for TensorBoard or W&B, under names that start with the prefix."""
        from propagate.report.scalars import scalars

        return scalars(self.record(), prefix)

    def _of_weights(self, rows: list[Row]) -> dict[str, Any]:
        named = ((self.names.parameter(s.parameter, t), s.fans) for s, t in rows)
        fans = {path: fans for path, fans in named if fans}
        return weight_laws.table(self.names.parameters, self.weights, self.weight_gradients, fans)

    def _variables(self, rows: list[Row]) -> Any:
        for place, wanted in self.names.selection:
            for measure in wanted:
                name = measure.variable(place)
                own = ("dead_fraction", "saturated_fraction", *measures.OF_SOFTMAX)
                if place in ("forward", "backward") or measure.name in own:
                    yield name, self._measured(measure, place, rows)
        for which in ("skip", "branch"):
            yield f"log10_{which}_q", self._measured(measures.Q, which, rows)
        if any("incoming" in own for own in self.seen.values()):
            yield "log10_incoming_q", self._measured(measures.Q, "incoming", rows)
            if measures.MEAN in dict(self.names.selection)["forward"]:
                yield "incoming_mean", self._measured(measures.MEAN, "incoming", rows)

    def _measured(self, measure: Measure, place: str, rows: list[Row]) -> np.ndarray:
        stats = {site.path: self._stats(site, measure.name, place) for site in self.names.sites}
        return column(measure, rows, stats, self.seen)

    def _stats(self, site: Site, name: str, place: str) -> Stats | None:
        own = self.seen[site.path]
        if place == "backward":
            return self.gradients.get(site.path)
        if place == "incoming":
            return own.get(place)
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
        if name in measures.OF_SOFTMAX and not is_softmax(site):
            return None
        return own["forward"]


def was_taken(seen: dict[str, Stats], turn: tuple[int, ...]) -> bool:
    """Return whether a row was computed: in a branch of a conditional, it may not have been."""
    taken = seen.get("taken")
    if taken is None:
        return True
    count = np.asarray(taken["count"])  # of the conditional, whatever loops are inside it
    return bool(count[turn[: count.ndim]])


def column(
    measure: Measure, rows: list[Row], stats: Mapping[EqnPath, Stats | None], seen: Seen
) -> np.ndarray:
    """Return a statistic of every row; NaN where it was not taken.

    Args:
        measure: which.
        rows: of `SiteNames.rows`.
        stats: the sums of each site that has them.
        seen: everything that was recorded of each site.
    """
    sums = needed((measure,))
    finished = {
        site.path: finish(measure, kept(own, sums, site.layout), site.layout.of(site.shape))
        for site in {site.path: site for site, _ in rows}.values()
        if (own := stats.get(site.path)) is not None
    }
    known = lambda s, turn: s.path in finished and was_taken(seen[s.path], turn)  # noqa: E731
    return np.array([finished[s.path][turn] if known(s, turn) else np.nan for s, turn in rows])


def _columns(names: SiteNames, rows: list[Row]) -> dict[str, np.ndarray]:
    columns = {
        "kind": [s.kind for s, _ in rows],
        "label": [s.label for s, _ in rows],
        "parameter": [names.parameter(s.parameter, t) for s, t in rows],
        "after": [names.parameter(s.after, t) for s, t in rows],
        "scope": [s.scope for s, _ in rows],
        "inputs": [" ".join(str(k - names.first_input) for k in sorted(s.inputs)) for s, _ in rows],
        "through": [" ".join(s.through) for s, _ in rows],
        "file": [s.frame.file if s.frame else "" for s, _ in rows],
        "function": [s.frame.function if s.frame else "" for s, _ in rows],
        "source": [f"{s.frame.file}:{s.frame.line}" if s.frame else "" for s, _ in rows],
    }
    depth = [s.depth + sum(np.multiply(s.strides, s.passed(t))) for s, t in rows]
    sizes = np.array([s.layout.of(s.shape) for s, _ in rows], int).reshape(-1, 3)
    number = {(site.path, turn): k for k, (site, turn) in enumerate(rows)}
    keeps_at = [np.nan if s.keeps_at is None else s.keeps_at for s, _ in rows]
    return {
        **{name: np.array(values, dtype=np.str_) for name, values in columns.items()},
        "rows": sizes[:, 0] * sizes[:, 1],
        "units": sizes[:, 2],
        "depth": np.array(depth, int),
        "line": np.array([s.frame.line if s.frame else 0 for s, _ in rows], int),
        **_operands(rows, number),
        "terms_summed": np.array([s.terms_summed for s, _ in rows], int),
        "library": np.array([s.frame and is_library(s.frame.file) for s, _ in rows], bool),
        "makers": np.array(_makers(rows, number), np.str_),
        "bias": np.array([names.biases(*row) for row in rows], np.str_),
        "keeps_at": np.array(keeps_at),
        "admits": np.array([s.admits for s, _ in rows], bool),
    }


def _operands(rows: list[Row], number: Mapping[Any, int]) -> dict[str, np.ndarray]:
    """Return the row whose value an activation takes in the same turn, -1 where none is known.

    And by what it is multiplied, and what is added.
    """
    taken = [(site.operand, turn) for site, turn in rows]
    return {
        "operand": np.array([number.get((o.path, t), -1) if o else -1 for o, t in taken], int),
        "operand_scale": np.array([o.scale if o else np.nan for o, _ in taken]),
        "operand_shift": np.array([o.shift if o else np.nan for o, _ in taken]),
    }


def _makers(rows: list[Row], number: Mapping[Any, int]) -> list[str]:
    """Return the rows of the layers whose sum comes into each activation in the same turn."""
    depth = {site.path: len(site.loops) for site, _ in rows}
    made = [[(p, turn[: depth.get(p, 0)]) for p in site.makers] for site, turn in rows]
    return [" ".join(str(number[one]) for one in own if one in number) for own in made]


def _of_parameter(made: xr.Dataset, name: str) -> np.ndarray:
    value = dict(zip(made["weight"].values, made[name].values, strict=True))
    return np.array([value.get(p, np.nan) for p in made["parameter"].values])
