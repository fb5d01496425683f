"""Which activations are gates of a state: written in many ways, told by the program alone."""

import jax
import jax.numpy as jnp
import pytest

from propagate.tracing.gating.gates import gates
from propagate.tracing.gating.terms import Gate, of_value, plus, times

N, TURNS = 3, 5
W = jnp.ones((4, N, N))
X = jnp.ones((TURNS, 2, N))
KEEPS, LETS_IN = (1.0, False), (0.0, True)  # z c, and z n or z n + (1 - z) h
KEEPS_AND_LETS_IN, NONE = (1.0, True), (None, False)  # z h + (1 - z) n


def logistic(x, w):
    return jax.nn.sigmoid(x @ w)


def over_turns(turn):
    zeros = jnp.zeros((2, N))
    return lambda w, x: jax.lax.scan(lambda h, u: (turn(w, h, u), None), zeros, x)[0]


def written_out(turn):
    def model(w, x):
        h = jnp.zeros((2, N))
        for u in x:
            h = turn(w, h, u)
        return h

    return model


def through_layers(turn):
    return lambda w, x: turn(w, turn(w, jnp.tanh(x[0] @ w[0]), x[1]), x[2])


def candidate(w, h, u):
    return jnp.tanh(u @ w[1] + h @ w[2])


def convex(w, h, u):
    z = logistic(u, w[0])
    return (1 - z) * candidate(w, h, u) + z * h


def difference(w, h, u):
    new = candidate(w, h, u)
    return new + logistic(u, w[0]) * (h - new)


def other_way(w, h, u):
    return h - logistic(u, w[0]) * (h - candidate(w, h, u))


def independent(w, h, u):
    return logistic(u, w[0]) * h + logistic(u, w[3]) * candidate(w, h, u)


def masked(w, h, u):
    return jnp.where(u > 0, convex(w, h, u), h)


def lower_bound(w, h, u):
    return (0.5 + 0.5 * logistic(u, w[0])) * h + candidate(w, h, u)


def output(w, h, u):
    return logistic(u, w[0]) * candidate(w, h, u)


def reset(w, h, u):
    return jnp.tanh(u @ w[0] + logistic(u, w[1]) * (h @ w[2]))


def mixture(w, h, u):
    z = logistic(h, w[0])
    return z * jnp.tanh(h @ w[1]) + (1 - z) * jnp.tanh(h @ w[2])


@pytest.mark.parametrize("loop", [over_turns, written_out])
@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        (convex, {KEEPS_AND_LETS_IN}),
        (difference, {KEEPS_AND_LETS_IN}),
        (independent, {KEEPS, LETS_IN}),
        (masked, {KEEPS_AND_LETS_IN}),
        (lower_bound, {KEEPS}),
        (output, {NONE}),
        (reset, {NONE}),
    ],
)
def test_gates_are_told_by_what_they_multiply(loop, turn, expected):
    program = jax.make_jaxpr(loop(turn))(W, X)
    known = [(one.keeps_at, one.admits) for one in gates(program, 1).values()]
    of_gates = {one for one in known if one != NONE} or {NONE}
    assert of_gates == expected


def test_a_state_less_what_a_gate_takes_off_is_kept_where_it_is_0():
    known = gates(jax.make_jaxpr(over_turns(other_way))(W, X), 1).values()
    assert {(one.keeps_at, one.admits) for one in known} == {LETS_IN, NONE}


@pytest.mark.parametrize(("turn", "expected"), [(convex, {KEEPS_AND_LETS_IN}), (mixture, {NONE})])
def test_a_skip_connection_is_a_state_and_a_mixture_has_none(turn, expected):
    program = jax.make_jaxpr(through_layers(turn))(W, X)
    known = {path: (one.keeps_at, one.admits) for path, one in gates(program, 1).items()}
    logistics = [p for p, eqn in paths(program.jaxpr) if eqn.primitive.name == "logistic"]
    assert {known[path] for path in logistics} == expected


def paths(jaxpr, start=()):
    for k, eqn in enumerate(jaxpr.eqns):
        inner = eqn.params.get("jaxpr")
        if inner is None:
            yield (*start, k), eqn
        else:
            yield from paths(getattr(inner, "jaxpr", inner), (*start, k))


def test_a_product_of_gates_is_a_gate_and_one_of_values_is_none():
    a, b = (of_value(k)._replace(gates=frozenset({Gate((k,))})) for k in range(2))
    assert times(a, b).gates == a.gates | b.gates
    assert times(of_value(0), of_value(1)) is None
    assert plus(a, a).gates == a.gates
    assert not plus(a, b).gates
