"""A formula of h, as text, to a function that JAX can differentiate; nothing else is run.

The text is parsed by Python's `ast` and walked node by node: numbers, `h`, arithmetic,
comparisons within `where`, and the functions of `FUNCTIONS`. Whatever else is in it is refused.
"""

import ast
import functools
import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp

from propagate.types import Array, UnusableInput

LONGEST = 300  # characters of a formula
DEEPEST = 40  # brackets within brackets, or operations upon operations
ARGUMENT = "h"
CONSTANTS: Mapping[str, float] = MappingProxyType({"pi": math.pi, "e": math.e})
FUNCTIONS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "abs": jnp.abs,
        "arctan": jnp.arctan,
        "arcsinh": jnp.arcsinh,
        "clip": jnp.clip,
        "cos": jnp.cos,
        "cosh": jnp.cosh,
        "exp": jnp.exp,
        "expm1": jnp.expm1,
        "log": jnp.log,
        "log1p": jnp.log1p,
        "maximum": jnp.maximum,
        "minimum": jnp.minimum,
        "sign": jnp.sign,
        "sin": jnp.sin,
        "sinh": jnp.sinh,
        "sqrt": jnp.sqrt,
        "square": jnp.square,
        "tanh": jnp.tanh,
        "where": jnp.where,
        "celu": jax.nn.celu,
        "elu": jax.nn.elu,
        "hard_tanh": jax.nn.hard_tanh,
        "leaky_relu": jax.nn.leaky_relu,
        "log_sigmoid": jax.nn.log_sigmoid,
        "mish": jax.nn.mish,
        "relu": jax.nn.relu,
        "relu6": jax.nn.relu6,
        "selu": jax.nn.selu,
        "sigmoid": jax.nn.sigmoid,
        "silu": jax.nn.silu,
        "soft_sign": jax.nn.soft_sign,
        "softplus": jax.nn.softplus,
        "erf": jax.scipy.special.erf,
        "gelu": functools.partial(jax.nn.gelu, approximate=False),
    }
)
"""Names that a formula may call: elementwise functions of `jax.numpy` and `jax.nn`."""

_OPERATIONS: Mapping[type, Callable[..., Any]] = MappingProxyType(
    {
        ast.Add: operator.add,
        ast.Sub: operator.sub,
        ast.Mult: operator.mul,
        ast.Div: operator.truediv,
        ast.Pow: operator.pow,
        ast.USub: operator.neg,
        ast.UAdd: operator.pos,
        ast.Lt: operator.lt,
        ast.LtE: operator.le,
        ast.Gt: operator.gt,
        ast.GtE: operator.ge,
    }
)


@dataclass(frozen=True)
class Formula:
    """A function of h; formulas of one text are equal, and so are compiled once.

    Attributes:
        text: what it computes, as Python spells it.
    """

    text: str

    @property
    def __name__(self) -> str:
        """What tables, plots and records call it."""
        return self.text

    def __call__(self, h: Array) -> Array:
        """Return the formula's value at h, in its shape and dtype."""
        return jnp.broadcast_to(_value(_tree(self.text), h), h.shape).astype(h.dtype)


def is_formula(text: str) -> bool:
    """Return whether a text is about `h`, and so not the name of an activation."""
    return re.search(r"\bh\b", text) is not None


def formula(text: str) -> Formula:
    """Return the function that a text spells.

    Raises:
        UnusableInput: it has anything but numbers, h, arithmetic and names of `FUNCTIONS`; or it
            has no real value for real h.

    Example:
        >>> float(formula("h * sigmoid(1.7*h)")(jnp.float32(1.0))) == float(jax.nn.sigmoid(1.7))
        True
    """
    made = Formula(ast.unparse(_tree(text)))
    try:
        value = jax.eval_shape(
            lambda h: jnp.asarray(_value(_tree(text), h)), jax.ShapeDtypeStruct((1,), "float32")
        )
    except UnusableInput:
        raise
    except (ArithmeticError, TypeError, ValueError) as error:
        why = str(error).splitlines()[0]
        raise UnusableInput(f"the formula {text!r} cannot be computed: {why}") from None
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise UnusableInput(
            f"a formula must give a real number for each h, {text!r} gives {value.dtype}"
        )
    return made


@functools.lru_cache(maxsize=256)
def _tree(text: str) -> ast.expr:
    """Return the expression that a text is, all of whose nodes are allowed."""
    if len(text) > LONGEST:
        raise UnusableInput(f"a formula has at most {LONGEST} characters, got {len(text)}")
    try:
        tree = ast.parse(text.strip().replace("^", "**"), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise UnusableInput(
            f"a formula must be an expression of h such as 'h * sigmoid(1.7*h)', got {text!r}"
        ) from None
    _check(tree, DEEPEST)
    return tree


def _check(node: ast.AST, left: int) -> None:
    """Refuse a node that is not arithmetic, a number, h or a call of a named function."""
    if not left:
        raise UnusableInput(f"a formula has at most {DEEPEST} operations within each other")
    inside: tuple[ast.AST, ...]
    match node:
        case ast.Constant(value=bool()):
            inside, known = (), False
        case ast.Constant(value=int() | float()):
            inside, known = (), True
        case ast.Name(id=name):
            inside, known = (), name == ARGUMENT or name in CONSTANTS
        case ast.UnaryOp(op=op, operand=operand):
            inside, known = (operand,), type(op) in _OPERATIONS
        case ast.BinOp(left=a, op=op, right=b):
            inside, known = (a, b), type(op) in _OPERATIONS
        case ast.Compare(left=a, ops=[op], comparators=[b]):
            inside, known = (a, b), type(op) in _OPERATIONS
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
            inside, known = tuple(args), name in FUNCTIONS
        case _:
            inside, known = (), False
    if not known:
        raise UnusableInput(
            f"a formula has numbers, h, + - * / **, comparisons, pi, e and {', '.join(FUNCTIONS)}; "
            f"got {ast.unparse(node)!r}"
        )
    for part in inside:
        _check(part, left - 1)


def _value(node: ast.AST, h: Array) -> Any:
    """Return the value of an allowed node."""
    match node:
        case ast.Constant(value=int() | float() as value):
            return float(value)
        case ast.Name(id=name):
            return h if name == ARGUMENT else CONSTANTS[name]
        case ast.UnaryOp(op=op, operand=operand):
            return _OPERATIONS[type(op)](_value(operand, h))
        case ast.BinOp(left=a, op=ast.Pow(), right=ast.Constant(value=int(power))):
            return _value(a, h) ** power  # of negative numbers, too
        case ast.BinOp(left=a, op=op, right=b):
            return _OPERATIONS[type(op)](_value(a, h), _value(b, h))
        case ast.Compare(left=a, ops=[op], comparators=[b]):
            return _OPERATIONS[type(op)](_value(a, h), _value(b, h))
        case ast.Call(func=ast.Name(id=name), args=args):
            return FUNCTIONS[name](*(_value(arg, h) for arg in args))
    raise AssertionError(ast.dump(node))
