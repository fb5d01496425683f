"""From a network and a block of pairings to what is compiled, and the numbers it is fed.

    >>> from propagate.record.measures import select
    >>> from propagate.run.pairings import Grouping, blocks_of
    >>> net = Network(depth=3, width=8, init="he_normal", activation="relu")
    >>> (block,) = blocks_of(net, [net.init], 1, Grouping())
    >>> made = program(net, [net.activation], block, select(("q",)), "gaussian", 16)
    >>> [(part.spec.size.fan_in, part.layers) for part in made.stretches]
    [(8, 3)]
    >>> configurations(net, [net.init], [net.activation], block, 16).scale["weight"].tolist()
    [[0.5], [0.5], [0.5]]

Three equal layers are one stretch, which is scanned; He's scale is sqrt(2/8). Numbers go in, static
descriptions and small arrays come out; nothing runs on a device.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from propagate.activations import Activation, activation
from propagate.blocks.parameters import LayerSpec
from propagate.distributions import ONES
from propagate.initializers import Initializer
from propagate.network import Network, distinct, layer_table
from propagate.record.measures import Selection
from propagate.run.memory import ITEMSIZE, Limits, limits, signal_bytes, weight_bytes
from propagate.run.pairings import Pairings
from propagate.run.program import StackProgram, Stretch
from propagate.theory.criticality import gain, tuned
from propagate.types import OWN, LossKind, UnusableInput


def program(
    net: Network,
    activations: Sequence[Activation],
    pairings: Pairings,
    selection: Selection,
    loss: LossKind,
    batch: int,
    kept: Limits | None = None,
) -> StackProgram:
    """Return what is compiled for a block; `kept` is what it may keep, that of a CPU by default."""
    kept = limits() if kept is None else kept
    stored = weight_bytes(net, batch) <= kept.weights
    row = arrays(net, selection) * pairings.configs * batch * ITEMSIZE
    stretches = [
        part
        for spec, group in itertools.groupby(layer_table(net, batch))
        for part in cut(
            spec,
            len(list(group)),
            row * math.prod(net.family.signal(spec.size.fan_in)),
            kept.signals,
        )
    ]
    every = (*activations, activation("identity"))
    return StackProgram(
        family=net.family,
        activations=every,
        columns=() if pairings.alone else pairings.columns,
        gains=tuple(gain(phi).variance for phi in every) if net.family.wants_gain else (),
        stretches=tuple(stretches),
        selection=selection,
        loss=loss,
        base=None if stored else pairings.base,
        data_scaled=pairings.data_scaled,
        batch=batch,
        dtype=net.dtype,
        precision=net.precision,
    )


def arrays(net: Network, selection: Selection) -> int:
    """Return how many arrays of a signal's size a layer keeps for the way back."""
    return net.family.arrays + bool(dict(selection).get("weight_gradient"))


def cut(spec: LayerSpec, layers: int, bytes_per_layer: int, most: int) -> list[Stretch]:
    """Cut equal layers into stretches, in about √layers chunks if keeping all costs too much."""
    if layers * bytes_per_layer <= most:
        return [Stretch(spec, 1, layers)]
    length = math.isqrt(layers)
    chunks, rest = divmod(layers, length)
    return [Stretch(spec, chunks, length)] + ([Stretch(spec, 1, rest)] if rest else [])


def side_by_side(net: Network, block: Pairings, selection: Selection, batch: int, kept: Limits):
    """Return how many blocks can keep their signals and weights at once; at least one."""
    signals = block.configs * signal_bytes(net, batch, arrays(net, selection))
    return max(1, min(kept.signals // signals, kept.weights // max(weight_bytes(net, batch), 1)))


class Configurations(NamedTuple):
    """What tells the configurations of a block from those of another; L layers, C of them."""

    scale: dict[str, np.ndarray]  # (L, C) factors on the draws of each parameter
    phi: np.ndarray  # (L,) index of the activation; (L, C) where they differ
    homogeneous: np.ndarray  # (C,) whether scaling the input scales every signal alike


def configurations(
    net: Network,
    inits: Sequence[Initializer],
    activations: Sequence[Activation],
    pairings: Pairings,
    batch: int,
    branches: Sequence[Activation] = (),
) -> Configurations:
    """Return the numbers of a block's configurations.

    `branches` are the activations that its program was compiled for, if not the grid's own.
    """
    columns = pairings.columns
    own = [
        tuned(init, activations[column])
        for init, column in zip(pairings.filled(inits), columns, strict=True)
    ]
    table = layer_table(net, batch)
    of_spec = {id(n): np.array([n.scales(init) for init in own]) for n in distinct(table)}
    scale = np.stack([of_spec[id(spec)] for spec in table])  # (L, C, parameters)
    scale = scale.astype(np.float32)
    alone = (branches or activations).index(activations[columns[0]])
    phi = np.asarray(alone if pairings.alone else columns, np.int32)
    alike = [
        activations[column].homogeneous and not init.bias.gain and not init.data_scaled
        for column, init in zip(columns, own, strict=True)
    ]
    return Configurations(
        {name: scale[..., k] for k, (name, _) in enumerate(table[0].parameters)},
        np.broadcast_to(phi, (net.depth, *phi.shape)),
        np.asarray(alike) & net.family.homogeneous,
    )


def facts(
    net: Network, inits: Sequence[Initializer], activations: Sequence[Activation]
) -> dict[str, Any]:
    """Return what a record says of the parameters of its networks, for those who judge it.

    Raises:
        UnusableInput: two draws of an initialiser with one key differ.
    """
    return {
        "biased": [one.name for one in inits if biased(net, one)],
        "fixed": [one.name for one in inits if not drawn(net, one)],
        "alike": [one.name for one in inits if alike(net, one)],
        "named": [phi.name for phi in activations if phi.source != OWN],
        "shared": shared(net),
        "depth_scaled": net.family.depth_scaled,
        "bypassed": net.family.bypassed,
        "zero_scaled": net.family.zero_scaled,
        "normed_end": net.family.normed_end,
    }


def biased(net: Network, init: Initializer) -> bool:
    """Return whether a network has biases under an initialiser that are not all zero."""
    every = [p for spec in distinct(layer_table(net)) for _, p in spec.parameters]
    own = [p for p in every if p.kind == "bias"]
    return any(p.factor if (p.init or init).tuned else p.scale(init) for p in own)


def alike(net: Network, init: Initializer) -> bool:
    """Return whether all units within a branch have the same weights into them, and no bias.

    They then have the same values and gradients, and stay one unit, although the stream, which goes
    past them, differs from unit to unit. Masks of dropout would tell them apart.
    """
    if not net.family.inner_units or net.family.dropout or biased(net, init):
        return False
    if init.source != OWN:
        return init.base is ONES or init.scale.gain == 0
    shape = next(iter(layer_table(net)[0].weights.values())).shape
    weight = np.asarray(init.base.sample(jax.random.key(0), shape, jnp.float32))
    return bool((weight == weight[..., :1]).all())


def shared(net: Network) -> bool:
    """Return whether all layers have the same weights."""
    return any(p.shared for spec in distinct(layer_table(net)) for p in spec.weights.values())


def drawn(net: Network, init: Initializer) -> bool:
    """Return whether weights of an initialiser follow from their key; that of a table always does.

    Raises:
        UnusableInput: two draws with one key differ. Compiled, such a function is called once, and
            gives every layer and every seed the same weights.
    """
    if init.source != OWN:
        return True
    weight = next(iter(layer_table(net)[0].weights.values()))
    keys = jax.random.split(jax.random.key(0))
    draws = [
        np.asarray(init.base.sample(key, weight.shape, jnp.float32))
        for key in (keys[0], keys[0], keys[1])
    ]
    if not np.array_equal(draws[0], draws[1], equal_nan=True):
        raise UnusableInput(
            f"{init.name} gave different weights for one key: it draws from a generator of its "
            "own, such as NumPy's. Once compiled it gives every layer and seed the same weights. "
            "Draw from the key that it is given, as jax.random.normal(key, shape, dtype) does"
        )
    return not np.array_equal(draws[0], draws[2], equal_nan=True)
