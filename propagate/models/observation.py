"""Run a probed model, the first time soon: one program whose results are the sites' values.

    Probe ──with values for statistics──▶ one program ──compiled, run──▶ values of all sites
                                                       └─▶ `record.kept_values` sums them ─▶ Trace

A model that is diagnosed runs once, so its first call is all there is, and most of that is
compilation. Statistics inside the program would multiply it; values as results add little, and sums
of values of few elements need no program at all. A program that was compiled is kept, and serves
the same model again.
"""

import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import jax

from propagate import _jax_compat as compat
from propagate.tracing.instrument import Probe
from propagate.tracing.probe import keeping_values, uncollected
from propagate.tracing.trace import SiteNames
from propagate.tracing.value_and_grad import Observed, Pulled, pulled, with_trace
from propagate.types import Array, Tree

OPTIMISED = 2**19
"""Elements of a site, on average, from which the program is compiled with optimisation. Without it
an element takes 37 ns more (ResNet18, forward and backward), and a site 13 to 50 ms less to compile
(ResNet18, MobileNetV3Small); seconds of one core."""
PROGRAMS = 8  # that are kept

Head = Callable[[Any, Array], tuple[Array, Any]]


def observer(
    tapped: Probe,
    names: SiteNames,
    params: Tree,
    data: Tree,
    head: Head,
    key: Array,
    kept_bytes: int | None = None,
    sample: int | None = None,
    *,
    backward: bool = True,
) -> Callable[[Tree], Observed]:
    """Compile a program that was probed; return what runs it on parameters and records its sites.

    Args:
        tapped: of `probe`.
        names: likewise.
        params: what to differentiate by; their shapes and dtypes are what counts.
        data: the batch and whatever else the program takes.
        head: from the program's result and `key` to a scalar and anything else.
        key: for the head.
        kept_bytes: of values that may be held at once; a share of the memory by default.
        sample: how many numbers of each site to look at; None for all.
        backward: whether to record gradients too.

    Raises:
        UnusableInput: a negative number of bytes, or a sample of none.
    """
    keeping = keeping_values(tapped, sample, kept_bytes)

    def run(consts: list[Any], params: Tree, data: Tree, key: Array) -> Pulled:
        own = lambda out: head(out, key)  # noqa: E731
        return pulled(keeping, params, data, own, consts=consts, backward=backward)

    elements = [math.prod((*s.loops, *s.shape)) for s in keeping.sites.values()]
    quick = sum(elements) < OPTIMISED * len(elements)
    program = _compiled(run, (keeping.consts, params, data, key), quick=quick)

    def observe(params: Tree) -> Observed:
        got = jax.block_until_ready(program(keeping.consts, params, data, key))
        done = with_trace(keeping, names, params, got)
        return done._replace(trace=done.trace.summed())

    return observe


_programs: OrderedDict[Any, Any] = OrderedDict()


def _compiled(run: Callable[..., Pulled], args: Any, *, quick: bool) -> Any:
    """Return the program, compiled, or the one that was compiled of the same model before."""
    with uncollected():
        lowered = jax.jit(run).lower(*args)
    options = compat.quick_compilation(jax.default_backend()) if quick else {}
    devices = frozenset(
        device for x in jax.tree.leaves(args) if isinstance(x, jax.Array) for device in x.devices()
    )
    text = hashlib.sha256(lowered.as_text().encode()).digest()
    known = text, lowered.in_tree, lowered.out_tree, devices, tuple(options)
    if known not in _programs:
        _programs[known] = lowered.compile(options or None)
    _programs.move_to_end(known)
    while len(_programs) > PROGRAMS:
        _programs.popitem(last=False)
    return _programs[known]
