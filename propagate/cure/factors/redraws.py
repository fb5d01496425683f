"""Weights that no factor mends, all zero or all equal, drawn anew: by the law of their peers.

A zero that is meant, as a ReZero factor or a readout's, has no finding and is left alone.
"""

import math
from collections.abc import Iterator

import jax
import numpy as np
import xarray as xr

from propagate.cure.factors.scaling import changed, rows_by_name
from propagate.tracing.trees import ParameterTable
from propagate.types import Array, Tree
from propagate.verdicts.findings import Findings, Verdict
from propagate.verdicts.grouped import without_numbers

BLAMED = (Verdict.DEAD, Verdict.UNTRAINED, Verdict.SYMMETRIC)
EQUAL = ("zeros", "ones", "constant")


def constants(record: xr.Dataset, findings: Findings) -> list[str]:
    """Return the weights of products that are all zero or all equal, which is called a fault."""
    blamed = {f.parameter for f in findings.faults if f.verdict in BLAMED}
    laws = zip(record["weight"].values, record["weight_law"].values, strict=True)
    equal = [str(name) for name, law in laws if str(law).startswith(EQUAL)]
    fan_in = dict(zip(record["weight"].values, record["weight_fan_in"].values, strict=True))
    own = [name for name in equal if fan_in[name] > 1]
    zeros = {name.rpartition(".")[0] for name in own if name in blamed}
    # beside a weight at fault another of zeros, behind it in a branch, has a gradient of zero, too
    return [name for name in own if name in blamed or name.rpartition(".")[0] in zeros]


def redrawn(
    params: Tree, table: ParameterTable, record: xr.Dataset, names: list[str], key: Array
) -> tuple[Tree, dict[str, float]]:
    """Return the parameters with some drawn anew, and the standard deviation of each of these.

    Gaussian, with the second moment of the peers, whose names differ in numbers only; without any,
    with $\\sigma_w^2 = 1$.

    Args:
        params: of the model.
        table: what is known of them.
        record: of the model.
        names: of what to draw.
        key: to draw with.
    """
    stds = {name: _std(record, name, names) for name in names}

    def draw(leaf: Array, index: tuple[int, ...], name: str) -> Array:
        own = jax.random.fold_in(key, list(stds).index(name))
        drawn = jax.random.normal(own, leaf[index].shape) * stds[name]
        return leaf.at[index].set(drawn.astype(leaf.dtype))

    known = rows_by_name(table)
    return changed(params, table, {n: draw for n in names if n in known}), stds


def _std(record: xr.Dataset, name: str, but: list[str]) -> float:
    peers = [q for other, q in _second_moments(record) if _alike(other, name) and other not in but]
    if peers:
        return 10 ** (float(np.median(peers)) / 2)
    at = list(record["weight"].values).index(name)
    return 1 / math.sqrt(float(record["weight_fan_in"].values[at]))


def _second_moments(record: xr.Dataset) -> Iterator[tuple[str, float]]:
    for name, q in zip(record["weight"].values, record["log10_weight_q"].values, strict=True):
        if np.isfinite(q):
            yield str(name), float(q)


def _alike(one: str, other: str) -> bool:
    return without_numbers(one) == without_numbers(other)
