"""The lines of code that change parameters as a repair did, in the framework's own way.

    layers.5.kernel × 0.0316     ─▶  params["layers"][5]["kernel"] = 0.0316 * params[…]
    layers.5.weight, Equinox     ─▶  model = eqx.tree_at(lambda m: m.layers[5].weight, model, …)

Beside each factor stands fan_in·Var(W) of the law that would draw such weights at once.
"""

import json
from collections.abc import Mapping
from typing import Any

import jax

from propagate.cure.factors.scaling import rows_by_name
from propagate.tracing.trees import ParameterTable
from propagate.types import Tree

HOLDERS = {"linen": 'variables["params"]', "nnx": "model", "equinox": "model", "keras": "weights"}
KERAS = "weights = {variable.path: variable for variable in model.trainable_variables}"


def lines(
    framework: str,
    params: Tree,
    table: ParameterTable,
    factors: Mapping[str, float],
    stds: Mapping[str, float],
    sigma2: Mapping[str, float],
) -> str:
    """Return the code.

    Args:
        framework: of `adapters.framework`.
        params: of the model.
        table: what is known of them.
        factors: by which each parameter is multiplied.
        stds: of those that are drawn anew.
        sigma2: fan_in·Var(W) of each weight, after it.
    """
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
    rows, holder = rows_by_name(table), HOLDERS.get(framework, "params")
    made = [KERAS] if framework == "keras" else []
    for name in dict.fromkeys((*stds, *factors)):
        number, index = rows[name]
        at = f".at[{', '.join(map(str, index))}]" if index else ""
        factor = f"{factors.get(name, 1.0):.4g}"
        change = f"{{}}{at}.multiply({factor})" if at else f"{factor} * {{}}"
        if name in stds:
            std = f"{stds[name] * factors.get(name, 1.0):.4g}"
            drawn = f"{std} * jax.random.normal(key, {table.shapes[number][len(index) :]})"
            change = f"{{}}{at}.set({drawn})" if at else drawn
        law = f"  # fan_in Var(W) = {sigma2[name]:.3g}" if name in sigma2 else ""
        made.append(_line(framework, holder, _place(paths[number], framework), change) + law)
    return "\n".join(made)


def _line(framework: str, holder: str, place: str, change: str) -> str:
    own = holder + place
    if framework == "keras":
        return f"{own}.assign({change.format(own + '.value')})"
    if framework == "nnx" or not (framework == "equinox" or place.startswith(".")):
        return f"{own} = {change.format(own)}"
    new = change.format("w")
    return f"{holder} = eqx.tree_at(lambda m: m{place}, {holder}, replace_fn=lambda w: {new})"


def _place(path: tuple[Any, ...], framework: str) -> str:
    """Return what is written behind the holder of the parameters: `["layers"][5]["kernel"]`."""
    if framework == "nnx":
        words = [entry.key for entry in path]
        return "".join(f"[{w}]" if isinstance(w, int) else f".{w}" for w in words) + "[...]"
    return "".join(_entry(entry) for entry in path)


def _entry(entry: Any) -> str:
    if isinstance(entry, jax.tree_util.DictKey) and isinstance(entry.key, str):
        return f"[{json.dumps(entry.key)}]"
    return str(entry)
