r"""A value as a sum of multiples: of which values, and by which gates each of them is multiplied.

For the state of a gated unit, h' = (1 - z) n + z h, the terms are

    n    times 1 - z
    h    times z

A gate is a logistic function, times and plus what does not depend on the data. Whether the sum
keeps a state, and which of its terms that is, `gates` finds out.

    >>> h, n = of_value(0), of_value(1)
    >>> z = of_value(2)._replace(gates=frozenset({Gate((7,))}))
    >>> state = plus(times(minus(None, z), n), times(z, h))
    >>> [(t.source, [g.flipped for g in t.gates]) for t in sorted(state.terms)]
    [(0, [False]), (1, [True])]
    >>> same = plus(n, times(z, minus(h, n)))  # n + z (h - n)
    >>> sorted((t.source, t.negative, len(t.gates)) for t in same.terms)
    [(0, False, 1), (1, False, 0), (1, True, 1)]
"""

from typing import NamedTuple

from propagate.tracing.sites import EqnPath, ParameterSlice

Biases = tuple[ParameterSlice, ...]


class Gate(NamedTuple):
    """A logistic function that multiplies values.

    Attributes:
        path: of its equation.
        flipped: whether it is 1 - z that multiplies, and not z.
    """

    path: EqnPath
    flipped: bool = False

    @property
    def complement(self) -> "Gate":
        """Return the gate that is open where this one is shut."""
        return self._replace(flipped=not self.flipped)


class Term(NamedTuple):
    """A multiple of a value.

    Attributes:
        source: the number of the value.
        gates: that multiply it.
        negative: whether it is taken off.
    """

    source: int
    gates: frozenset[Gate] = frozenset()
    negative: bool = False


class Made(NamedTuple):
    """What is known of a value.

    Attributes:
        terms: that it is the sum of; none if it does not depend on the data.
        gates: that it is the product of.
        parameters: that were added to it; that it consists of, if it does not depend on the data.
    """

    terms: frozenset[Term] = frozenset()
    gates: frozenset[Gate] = frozenset()
    parameters: Biases = ()


def of_value(number: int) -> Made:
    """Return what is known of a value of which nothing more is."""
    return Made(frozenset({Term(number)}))


def plus(a: Made, b: Made) -> Made:
    """Return what is known of a sum, or of a value that has elements of both.

    A gate plus what is fixed is a gate, and so is one interleaved with itself.
    """
    gates = a.gates & b.gates if a.terms and b.terms else a.gates | b.gates
    same = a.gates == b.gates or not (a.terms and b.terms)
    return Made(a.terms | b.terms, gates if same else frozenset(), _joined(a, b))


def minus(a: Made | None, b: Made) -> Made:
    """Return what is known of a difference, or of 0 - b."""
    terms = frozenset(t._replace(negative=not t.negative) for t in b.terms)
    complement = {gate.complement for gate in b.gates if len(b.gates) == 1}
    taken = Made(terms, frozenset(complement), b.parameters)
    return taken if a is None else plus(a, taken)


def times(a: Made, b: Made) -> Made | None:
    """Return what is known of a product; None if it is one of values that are no gates."""
    if not (a.terms and b.terms):
        one = a if a.terms else b
        return one if one.terms else Made(parameters=_joined(a, b))
    if not (a.gates or b.gates):
        return None
    terms: frozenset[Term] = frozenset()
    for gates, other in ((a.gates, b), (b.gates, a)):
        if gates:
            terms |= {t._replace(gates=t.gates | gates) for t in other.terms}
    return Made(terms, a.gates | b.gates if a.gates and b.gates else frozenset())


def _joined(a: Made, b: Made) -> Biases:
    return tuple(dict.fromkeys((*a.parameters, *b.parameters)))
