"""Named activation functions: what each computes, where it has kinks, where it comes from.

`ACTIVATIONS` is the table: add a line to `_FIXED`, which feeds it, to add an activation.
Derivatives are taken automatically, so an entry is one function.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import jax
import jax.numpy as jnp

from propagate import registry
from propagate.formulas import formula, is_formula
from propagate.types import OWN, Array, Elementwise, UnusableInput


@dataclass(frozen=True)
class Activation:
    r"""An elementwise nonlinearity $x = \phi(h)$.

    Attributes:
        name: its spelling in tables, plots and records.
        fn: the function, `array -> array`, differentiable by JAX.
        formula: what it computes, for people.
        source: where it was introduced.
        kinks: the points where it, or one of its derivatives, jumps.
        homogeneous: whether phi(a h) = a phi(h) for every a > 0.
        slope: the largest |phi'|, against which saturation is judged; 1 if it is unbounded, and
            the largest on [-8, 8] for a function of your own.

    Example:
        >>> float(Activation("cube", lambda h: h**3)(jnp.float32(2.0)))
        8.0
    """

    name: str
    fn: Elementwise
    formula: str = ""
    source: str = ""
    kinks: tuple[float, ...] = ()
    homogeneous: bool = False
    slope: float = 1.0

    def __call__(self, h: Array) -> Array:
        """Return phi(h)."""
        return self.fn(h)

    def with_slope(self, h: Array) -> tuple[Array, Array]:
        """Return phi(h) and phi'(h), both in the shape and dtype of `h`."""
        return jax.jvp(self.fn, (h,), (jnp.ones_like(h),))


def leaky_relu(slope: float = 0.01) -> Activation:
    """Return the activation max(h, slope h), where slope is phi' at negative h."""
    return Activation(
        registry.spell("leaky_relu", {"slope": 0.01}, {"slope": slope}),
        _leaky_relu(slope),
        f"max(h, {slope:g} h)",
        "Maas et al. (2013)",
        kinks=(0.0,),
        homogeneous=True,
        slope=max(1.0, abs(slope)),
    )


@functools.cache  # one function object per slope, so that equal activations compare equal
def _leaky_relu(slope: float) -> Elementwise:
    return functools.partial(jax.nn.leaky_relu, negative_slope=slope)


def _identity(h: Array) -> Array:
    return h


def _squared_relu(h: Array) -> Array:
    return jnp.square(jax.nn.relu(h))


_gelu = functools.partial(jax.nn.gelu, approximate=False)
_gelu_tanh = functools.partial(jax.nn.gelu, approximate=True)
_GELU = "Hendrycks & Gimpel (2016), arXiv:1606.08415"
_ELU = "Clevert et al. (2016), arXiv:1511.07289"
_SELU = "Klambauer et al. (2017), arXiv:1706.02515"
_SILU = "Elfwing et al. (2018), arXiv:1702.03118"
_HSWISH = "Howard et al. (2019), arXiv:1905.02244"
_SIN = "Sitzmann et al. (2020), arXiv:2006.09661"
_AT_0 = (0.0,)
_FIXED = (
    Activation("identity", _identity, "h", homogeneous=True),
    Activation("sigmoid", jax.nn.sigmoid, "1/(1 + exp(-h))", "Han & Moraga (1995)", slope=0.25),
    Activation("tanh", jnp.tanh, "tanh(h)", "LeCun et al. (1998)"),
    Activation("relu", jax.nn.relu, "max(h, 0)", "Nair & Hinton (2010)", _AT_0, True),
    Activation("elu", jax.nn.elu, "h if h > 0 else exp(h) - 1", _ELU, _AT_0),
    Activation(
        "selu",
        jax.nn.selu,
        "1.0507 (h if h > 0 else 1.6733 (exp(h) - 1))",
        _SELU,
        _AT_0,
        slope=1.7581,
    ),
    Activation("celu", jax.nn.celu, "h if h > 0 else exp(h) - 1", "arXiv:1704.07483", _AT_0),
    Activation("gelu", _gelu, "h Phi(h)", _GELU, slope=1.1290),
    Activation(
        "gelu_tanh", _gelu_tanh, "h (1 + tanh(0.798 (h + 0.0447 h^3)))/2", _GELU, slope=1.1290
    ),
    Activation("silu", jax.nn.silu, "h sigmoid(h)", _SILU, slope=1.09984),
    Activation(
        "mish", jax.nn.mish, "h tanh(softplus(h))", "Misra (2019), arXiv:1908.08681", slope=1.0885
    ),
    Activation("softplus", jax.nn.softplus, "log(1 + exp(h))", "Dugas et al. (2001)"),
    Activation("softsign", jax.nn.soft_sign, "h/(1 + |h|)", "Bergstra et al. (2009)", _AT_0),
    Activation("hard_tanh", jax.nn.hard_tanh, "clip(h, -1, 1)", "Collobert (2004)", (-1.0, 1.0)),
    Activation("relu6", jax.nn.relu6, "clip(h, 0, 6)", "Krizhevsky (2010)", (0.0, 6.0)),
    Activation(
        "hard_swish", jax.nn.hard_swish, "h clip(h + 3, 0, 6)/6", _HSWISH, (-3.0, 3.0), slope=1.5
    ),
    Activation("squared_relu", _squared_relu, "max(h, 0)^2", "So et al. (2021)", _AT_0),
    Activation("sin", jnp.sin, "sin(h)", _SIN),
    Activation("erf", jax.scipy.special.erf, "erf(h)", "Williams (1997)", slope=1.1284),
    Activation("log_sigmoid", jax.nn.log_sigmoid, "-log(1 + exp(-h))"),
)
ACTIVATIONS: Mapping[str, Callable[..., Activation]] = MappingProxyType(
    {phi.name: functools.partial(lambda phi: phi, phi) for phi in _FIXED}
    | {"leaky_relu": leaky_relu}
)


def activation(spec: str | Activation | Elementwise) -> Activation:
    """Return the activation that `spec` means: a spelling, an `Activation` or any callable.

    Args:
        spec: `"tanh"`, `"leaky_relu_0.2"`, a formula of h such as `"h * sigmoid(1.7*h)"`, an
            `Activation`, or an elementwise function `array -> array` that JAX can differentiate.

    Raises:
        UnusableInput: an unknown name (the nearest is suggested), a formula with more in it than
            arithmetic and functions of `jax.numpy` and `jax.nn`, or not a function.

    Example:
        >>> activation("leaky_relu(slope=0.2)").formula
        'max(h, 0.2 h)'
    """
    if isinstance(spec, Activation):
        return spec
    if isinstance(spec, str):
        if not is_formula(spec):
            return registry.build("activation", ACTIVATIONS, spec)
        spec = formula(spec)
    if not callable(spec):
        raise UnusableInput(
            f"activation must be a name, an Activation or a function array -> array, got {spec!r}"
        )
    name = str(getattr(spec, "__name__", type(spec).__name__))
    return Activation(name, spec, source=OWN, slope=_steepest(spec))


@functools.lru_cache(maxsize=64)
def _steepest(fn: Elementwise) -> float:
    """Return the largest |phi'| on [-8, 8], or 1 if there is none."""
    h = jnp.linspace(-8.0, 8.0, 1601)
    steepest = float(jnp.nanmax(jnp.abs(jax.jvp(fn, (h,), (jnp.ones_like(h),))[1])))
    return steepest if 0 < steepest < float("inf") else 1.0


ActivationLike = str | Activation | Elementwise
"""What `activation` takes."""
