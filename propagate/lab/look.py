"""A setting, measured and predicted, and what is said of it."""

import functools
import gc
import json
import math
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import jax
import xarray as xr

import propagate as pp
from propagate.lab.setting import OWN_FORMULA, Setting

SEEDS, BATCH = 4, 32
TOKENS_BATCH = 4  # inputs of a transformer, each of many tokens
MEASURES = (
    *("q", "variance", "correlation", "max", "zero_fraction", "saturated_fraction"),
    *("symmetric_fraction", "histogram"),
)
OF_TOKENS = ("forward_token_correlation", "attention_entropy", "weight_gradient_q")
compiled: set[tuple] = set()
"""Programs of settings that this process has measured, which it will not compile again."""


class Point(NamedTuple):
    """A plain stack on the phase diagram."""

    sigma_w2: float
    sigma_b2: float


def measure(setting: Setting) -> xr.Dataset:
    """Return the record of a setting.

    Programs are compiled for all named activations, so that none of them is compiled again.

    Raises:
        UnusableInput: there is no such network.
    """
    net = setting.network
    known = () if setting.activation == OWN_FORMULA else tuple(pp.ACTIVATIONS)
    found = pp.measure(
        net,
        jax.random.key(setting.seed),
        seeds=SEEDS,
        batch=batch(setting),
        measures=(*MEASURES, *(OF_TOKENS if _has_tokens(net) else ())),
        compile_for=known,
    )
    if setting.program not in compiled:
        gc.collect()
        gc.freeze()  # what is compiled stays; the collector would take 0.2 s to walk it again
    compiled.add(setting.program)
    return found


def batch(setting: Setting) -> int:
    """Return how many inputs are measured."""
    return TOKENS_BATCH if _has_tokens(setting.network) else BATCH


def _has_tokens(net: pp.Network) -> bool:
    return net.family.name == pp.blocks.Transformer.name


def predict(setting: Setting) -> xr.Dataset | None:
    """Return what theory expects of a setting, of any seed, or None if it does not cover it."""
    return _predict(replace(setting, seed=0))


@functools.lru_cache(maxsize=256)
def _predict(setting: Setting) -> xr.Dataset | None:
    try:
        return pp.predict(setting.network, batch=batch(setting))
    except pp.UnusableInput:
        return None


def opened(contents: bytes) -> xr.Dataset:
    """Return a record of one's own, from the contents of its file.

    Raises:
        UnusableInput: it is no record.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "record.nc"
        path.write_bytes(contents)
        try:
            found = pp.load(path).load()
        except (OSError, TypeError, ValueError) as error:
            raise pp.UnusableInput(f"a record that propagate wrote is required: {error}") from None
    pp.judge(found)
    return found


def place(setting: Setting, record: xr.Dataset) -> Point | None:
    """Return where a setting lies on the phase diagram; None if it is no plain stack of its kind.

    Args:
        setting: what was measured.
        record: its record, which knows what `critical` draws.
    """
    net, n = setting.network, setting.width
    if str(net.family) != "mlp" or net.init.data_scaled:
        return None
    if net.init.tuned:
        point = json.loads(record.attrs["critical"])[net.activation.name]
        return Point(point["sigma_w2"], point["sigma_b2"])
    mean, variance = net.init.moments(n, n)
    if mean or not math.isfinite(variance):
        return None
    return Point(n * variance, net.init.bias(n, n) ** 2)
