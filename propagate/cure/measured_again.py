"""Stacks measured again: a record's network and draws, and changed networks with the same draws.

Networks that differ in initialiser or activation alone share a program, so they are measured as one
sweep; each other structure takes a compilation of its own.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import xarray as xr

from propagate import batches
from propagate.cure.stack_proposals import Proposal
from propagate.cure.stack_remedies import StackRemedy
from propagate.network import Network
from propagate.run.sweep import sweep
from propagate.types import Array, UnusableInput
from propagate.verdicts.findings import Finding, Findings
from propagate.verdicts.judge import judge

RANDOM = ("gaussian", "pairs")
Candidate = tuple[StackRemedy, Proposal]


def as_it_ran(record: xr.Dataset, key: Array | None, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of the sweep that made a record, with others in their place.

    Raises:
        UnusableInput: it ran on data, which the record does not hold, and none are passed.
    """
    attrs = record.attrs
    if key is None:
        if "key" not in attrs:
            raise UnusableInput("the record does not tell its key: pass key=, a JAX random key")
        key = jax.random.wrap_key_data(jnp.asarray(json.loads(attrs["key"]), jnp.uint32))
    how = {"key": key, "seeds": record.sizes.get("seed", 1), "loss": attrs.get("loss", "gaussian")}
    how |= {"batch": int(attrs["batch"])} if "batch" in attrs else {}
    if options.get("inputs") is not None:
        return how | options
    kind = attrs.get("input", "gaussian")
    if kind in RANDOM:
        how |= {"input": kind, "cosine": float(attrs.get("cosine", 0.5))}
    elif kind == "digits":
        how |= {"inputs": batches.load(kind, how.get("batch", 64))}
    else:
        raise UnusableInput(f"the record is of data ({kind}), which it does not hold: pass inputs=")
    return how | options


def closest(record: xr.Dataset, findings: Findings) -> Iterator[tuple[Network, Findings]]:
    """Yield the network next to being fine of each activation for which none is, and its findings.

    Raises:
        UnusableInput: the record names a function that is in no table.
    """
    from propagate.report import sweep_table

    suited, best = findings.suited(), sweep_table.best(findings)
    for phi, init in best.items():
        if suited[phi]:
            continue
        own = Findings(f for f in findings if (f.init, f.activation) == (init, phi))
        yield _network(record, init, phi), own


def _network(record: xr.Dataset, init: str, phi: str) -> Network:
    spec = json.loads(record.attrs.get("network", "{}")) | {"init": init, "activation": phi}
    try:
        return Network(**spec)
    except (UnusableInput, TypeError) as error:
        raise UnusableInput(
            f"the network of {init} + {phi} cannot be made from its record ({error}): pass the "
            "Network itself, with key="
        ) from None


def in_turns(
    candidates: Iterable[Candidate], how: dict[str, Any]
) -> Iterator[list[tuple[StackRemedy, Proposal, Findings]]]:
    """Yield candidates with the findings on them, those of one sweep at a time, in order."""
    groups: dict[tuple[Any, ...], list[Candidate]] = {}
    for remedy, one in candidates:
        structure = replace(one.net, init="he_normal", activation="relu")
        groups.setdefault((structure, id(one.inputs), one.net.activation), []).append((remedy, one))
    together: dict[tuple[Any, ...], list[Candidate]] = {}
    for (structure, data, _), own in groups.items():
        inits = frozenset(one.net.init.name for _, one in own)
        together.setdefault((structure, data, inits), []).extend(own)
    for own in together.values():
        yield _measured(own, how)


def _measured(
    own: list[Candidate], how: dict[str, Any]
) -> list[tuple[StackRemedy, Proposal, Findings]]:
    """Return candidates of one structure with the findings on them."""
    nets = [one.net for _, one in own]
    inits, phis = (
        {getattr(n, at).name: getattr(n, at) for n in nets} for at in ("init", "activation")
    )
    data = own[0][1].inputs
    options: dict[str, Any] = how | ({} if data is None else {"inputs": data})
    found = judge(sweep(nets[0], init=[*inits.values()], activation=[*phis.values()], **options))
    pairs: dict[tuple[str, str], list[Finding]] = {}
    for f in found:
        pairs.setdefault((f.init, f.activation), []).append(f)
    return [
        (remedy, one, Findings(pairs[one.net.init.name, one.net.activation.name]))
        for remedy, one in own
    ]
