"""A value of a program that is looked at, and an operation that is not looked into.

A site stands at a path: in a program whose third equation is a scan, the product that is the first
equation of its body has path (2, 0). A parameter that is scanned over is a slice of a stack, whose
index is known only in a turn:

    >>> w = ParameterSlice(number=0, index=(), size=4 * 64).at(-1)  # by the outermost scan's turn
    >>> [w.of_turn((turn,)) for turn in range(4)]
    [(0,), (1,), (2,), (3,)]
    >>> print(Unopened(LOOP, 1, "its number of turns is not fixed", None))
    while was not opened, 1 matrix product inside: its number of turns is not fixed
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from propagate import _jax_compat as compat
from propagate.record.sums import Layout

Kind = Literal[
    "matmul", "conv", "embedding", "activation", "elementwise", "norm", "add", "tag", "custom", "op"
]
LOOP = "while"  # the primitive without a reverse-mode derivative
EqnPath = tuple[int, ...]  # numbers of equations, from the outermost jaxpr inwards


@dataclass(frozen=True)
class ParameterSlice:
    """A parameter, or the slice of a stacked one, before it has its name.

    Attributes:
        number: of the parameter, in the order of the flat arguments.
        index: of the slice; -1 - k stands for the turn of the k-th scan around it.
        size: how many elements the whole parameter has.
    """

    number: int
    index: tuple[int, ...]
    size: int

    def at(self, k: int) -> "ParameterSlice":
        """Return the k-th slice along the next axis."""
        return replace(self, index=(*self.index, k))

    def of_turn(self, turn: tuple[int, ...]) -> tuple[int, ...]:
        """Return the index in one iteration of the scans around it."""
        return tuple(k if k >= 0 else turn[-1 - k] for k in self.index)


class RawInput(NamedTuple):
    """An input of the program times a number, plus another.

    Attributes:
        number: of the argument, in the order of the flat arguments.
        scale: by which it was multiplied.
        shift: what was added.
        alone: whether nothing was joined to it.
    """

    number: int
    scale: float = 1.0
    shift: float = 0.0
    alone: bool = True


class Rescaled(NamedTuple):
    """The value of a site times a number, plus another, in whatever shape.

    Attributes:
        path: of the site.
        scale: by which it was multiplied.
        shift: what was added.
    """

    path: EqnPath
    scale: float = 1.0
    shift: float = 0.0


@dataclass(frozen=True)
class Site:
    """A value of the program whose signal and gradient are recorded.

    Attributes:
        path: of its equation.
        kind: what makes it.
        label: the operation's name: `"dot_general"`, `"relu"`, `"softmax"`, …
        parameter: the one that makes it, if any.
        after: the parameter of the last layer on the way to it.
        depth: how many layers with parameters lie on the longest way to it, itself included.
        strides: by how much `depth` grows per iteration of the scans around it.
        loops: the lengths of those scans, outermost first.
        reversed: whether each of them begins with its last iteration.
        turns: how much of `path` leads to each of them.
        shape: of the value, in one iteration.
        layout: which axes of `shape` are those of inputs and of units.
        scope: the cleaned name stack.
        frame: the user's line.
        slope: the largest slope of the activation, if it is a function of one value.
        skip: which term of an addition has passed fewer layers.
        terms: of an addition, the sites whose values they are; None where they are no site's.
        operand: of an activation or a product, the site whose value it takes, as it is or rescaled.
        result: which result of the equation it is.
        dtype: of the value.
        fans: fan_in and fan_out of the parameter of a product.
        terms_summed: how many products each element of a matrix product is a sum of, else 0.
        through: operations between it and the site before it that may change the signal's size.
        reads: the inputs that a layer with a parameter takes as they are.
        inputs: numbers of the arguments of the batch that it depends on.
        product: the equation of the product, or of the norm, whose bias or gain this one adds.
        biases: of an activation, what was added to what comes in.
        makers: of an activation, the layers whose sum comes in, gated or not.
        keeps_at: of a gate, the value at which it keeps a state as it is.
        admits: of a gate, whether it scales what a state is added.
    """

    path: EqnPath
    kind: Kind
    label: str
    parameter: ParameterSlice | None
    after: ParameterSlice | None
    depth: int
    strides: tuple[int, ...]
    loops: tuple[int, ...]
    reversed: tuple[bool, ...]
    turns: tuple[int, ...]
    shape: tuple[int, ...]
    layout: Layout
    scope: str
    frame: compat.Frame | None
    slope: float | None
    skip: int | None
    terms: tuple[EqnPath | None, ...]
    result: int
    dtype: Any
    fans: tuple[int, int] | None
    terms_summed: int = 0
    reads: tuple[RawInput, ...] = ()
    inputs: frozenset[int] = frozenset()
    through: tuple[str, ...] = ()
    product: EqnPath | None = None
    operand: Rescaled | None = None
    biases: tuple[ParameterSlice, ...] = ()
    makers: tuple[EqnPath, ...] = ()
    keeps_at: float | None = None
    admits: bool = False

    def passed(self, turn: tuple[int, ...]) -> tuple[int, ...]:
        """Return how many iterations of each scan have been run before this one."""
        each = zip(self.loops, self.reversed, turn, strict=True)
        return tuple(length - 1 - k if back else k for length, back, k in each)


@dataclass(frozen=True)
class Unopened:
    """An operation on the signal into which no look was taken.

    Attributes:
        name: of the operation.
        products: how many matrix products and convolutions are inside.
        reason: why.
        frame: the user's line.
    """

    name: str
    products: int
    reason: str
    frame: compat.Frame | None

    @property
    def ends_gradient(self) -> bool:
        """Whether no gradient can flow back through it."""
        return self.name == LOOP

    def __str__(self) -> str:
        """Return it as a sentence."""
        where = f" at {Path(self.frame.file).name}:{self.frame.line}" if self.frame else ""
        many = f"{self.products} matrix product{'s' * (self.products > 1)}"
        inside = f", {many} inside" if self.products else ""
        return f"{self.name}{where} was not opened{inside}: {self.reason}"
