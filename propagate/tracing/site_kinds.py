"""What an equation is to the walk: which primitive is a site, and of which kind."""

from dataclasses import replace

from propagate._jax_compat import JaxprEqn
from propagate.tracing import source_labels
from propagate.tracing.dataflow import Facts
from propagate.tracing.primitives import BENDS, SLOPES
from propagate.tracing.sites import Kind, Site


def activation_kind(eqn: JaxprEqn, ins: list[Facts]) -> Kind:
    """Return whether an elementwise operation is an activation by itself."""
    if all(t.moment for t in ins if t.data):
        return "elementwise"
    return "activation" if eqn.primitive.name in BENDS else "elementwise"


def largest_slope(eqn: JaxprEqn, ins: list[Facts]) -> float | None:
    """Return sup|phi'| of an activation of one value; 1 for those with a rule of their own."""
    name = eqn.primitive.name
    if sum(t.data for t in ins) != 1 or name not in BENDS:
        return None
    known = name in (*SLOPES, "custom_jvp_call", "clamp", "min")  # a custom_vjp has no slope
    return SLOPES.get(name, 1.0) if known else None


def activations_joined(sites: list[Site]) -> list[Site]:
    """Make the last operation of a named activation stand for it: `tanh` and `mul` of a gelu."""
    for k, site in enumerate(sites):
        called = site.label in source_labels.NAMED and site.kind in ("activation", "elementwise")
        if not called:
            continue
        later = next((s for s in sites[k + 1 :] if s.kind != "add"), None)
        last = later is None or (later.label, later.frame) != (site.label, site.frame)
        whole = site.shape != () and last
        kind: Kind = "activation" if whole else "elementwise"
        sites[k] = replace(site, kind=kind, slope=site.slope if whole else None)
    return sites
