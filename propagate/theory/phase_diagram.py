r"""The phase diagram of an activation: where in $(\sigma_w^2, \sigma_b^2)$ signals live.

All points share one table of expectations over q: a point is then a search for the second moment
at which its q-map crosses the diagonal, the first on the way from the input's, and Newton's steps
to it. Second moments move without overshoot where $E\phi^2$ grows with q; elsewhere the point
found is still a fixed one, and `chi_par` says whether signals come to it.
"""

import math

import numpy as np
import xarray as xr

from propagate.activations import Activation, ActivationLike
from propagate.record import provenance
from propagate.theory import gauss
from propagate.theory.mean_field import integrable
from propagate.types import UnusableInput

GRID = np.geomspace(1e-12, 1e12, 961)
NEWTON = 4
STILL = 1e-9  # relative distance from the diagonal that is rounding: every q stays


def phase(
    phi: ActivationLike, sigma_w2: np.ndarray, sigma_b2: np.ndarray, *, q: float = 1.0
) -> xr.Dataset:
    r"""Return where signals settle, and what becomes of gradients there.

    Args:
        phi: an activation.
        sigma_w2: variances of the weights times fan_in, increasing.
        sigma_b2: variances of the biases, increasing.
        q: second moment of the input.

    Returns:
        A dataset with dims (sigma_b2, sigma_w2): `q`, where the second moment settles (0 or inf if
        it does not), `chi_1`, `chi_par` there, `one_minus_c`, of the correlation to which two
        inputs tend (NaN where q does not settle), and `log10_growth`, log10 chi_1, the decades by
        which the gradient's second moment grows in a layer. Depth scales in layers: `xi_q`,
        `xi_c`, to 1 %, and `xi_grad`, negative where the gradient explodes; networks train to
        6 xi_c. In the limits q → 0 and q → ∞, chi_1 is that of the nearest second moment of the
        table, 1e-12 or 1e12.

    Raises:
        UnusableInput: variances that are negative, not finite, or not increasing.

    Example:
        >>> plane = phase("tanh", np.array([1.0, 1.7609546396]), np.array([0.05]))
        >>> np.round(plane.chi_1.values, 6).tolist()
        [[0.759032, 1.0]]
    """
    own = integrable(phi)
    w2, b2 = (_increasing(name, v) for name, v in (("sigma_w2", sigma_w2), ("sigma_b2", sigma_b2)))
    if not GRID[0] < q < GRID[-1]:
        raise UnusableInput(f"q must be within {GRID[0]:g} and {GRID[-1]:g}, got {q}")
    at = gauss.moments(own, GRID)
    rows = [_row(w2, float(b), at, math.log(q)) for b in b2]
    found = np.array(rows)  # (sigma_b2, 4, sigma_w2)
    names = "q", "chi_1", "chi_par"
    made = xr.Dataset(
        {name: (("sigma_b2", "sigma_w2"), found[:, k]) for k, name in enumerate(names)},
        {"sigma_b2": b2, "sigma_w2": w2},
    )
    weights = np.broadcast_to(w2, made["q"].shape)
    apart, slope = settled(own, weights, made["q"].values, made["chi_1"].values)
    made["one_minus_c"] = made["q"].dims, apart
    with np.errstate(divide="ignore"):
        made["log10_growth"] = np.log10(made["chi_1"])
        made["xi_q"] = -1 / np.log(np.abs(made["chi_par"]))
        made["xi_c"] = made["q"].dims, -1 / np.log(slope)
        made["xi_grad"] = -1 / np.log(made["chi_1"])
    return made.assign_attrs(provenance.provenance(activation=own.name, theory="mean field"))


def _increasing(name: str, values: np.ndarray) -> np.ndarray:
    found = np.atleast_1d(np.asarray(values, float))
    if not (
        found.size
        and np.isfinite(found).all()
        and (found >= 0).all()
        and (np.diff(found) > 0).all()
    ):
        ends = f"{found[0]:g} … {found[-1]:g}" if found.size else "none"
        raise UnusableInput(f"{name} must be variances in increasing order, got {ends}")
    return found


def _row(
    w2: np.ndarray, b2: float, at: dict[str, np.ndarray], log_start: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return q, chi_1 and chi_par of every sigma_w2 at one sigma_b2."""
    start = int(np.argmin(np.abs(np.log(GRID) - log_start)))
    excess = (w2[:, None] * at["second"] + b2) / GRID - 1  # above zero: q grows
    excess[np.abs(excess) < STILL] = 0.0
    up = excess[:, start] > 0
    k = np.where(up, _first(excess[:, start:] <= 0, start), _last(excess[:, : start + 1] >= 0))
    marginal = ~up & (k < (excess != 0).argmax(axis=1))  # next to zero the map is q itself
    still, away = excess[:, start] == 0, (k < 0) | (k >= len(GRID)) | marginal
    k = np.clip(np.where(up, k - 1, k), 0, len(GRID) - 2)
    log_q = _crossing(w2, b2, at, k)
    log_q = np.where(still, log_start, log_q)
    log_q = np.where(away & ~still, np.log(np.where(up, GRID[-1], GRID[0])), log_q)
    table = lambda name: _between(at[name], log_q)  # noqa: E731
    q = np.where(away & ~still, np.where(up, np.inf, 0.0), np.exp(log_q))
    return q, w2 * table("slope2"), w2 * table("growth")


def _first(true: np.ndarray, offset: int) -> np.ndarray:
    """Return the index of the first that is true in each row, or the length of the grid."""
    return np.where(true.any(axis=1), true.argmax(axis=1) + offset, len(GRID))


def _last(true: np.ndarray) -> np.ndarray:
    """Return the index of the last that is true in each row, or -1."""
    return np.where(true.any(axis=1), true.shape[1] - 1 - true[:, ::-1].argmax(axis=1), -1)


def _crossing(w2: np.ndarray, b2: float, at: dict[str, np.ndarray], k: np.ndarray) -> np.ndarray:
    """Return ln of the fixed point between grid points k and k + 1."""
    low, high = np.log(GRID[k]), np.log(GRID[k + 1])
    log_q = (low + high) / 2
    for _ in range(NEWTON):
        q = np.exp(log_q)
        after = w2 * _between(at["second"], log_q) + b2
        slope = w2 * _between(at["growth"], log_q) - 1
        steep = np.abs(slope) > 1e-12
        step = np.where(steep, (after - q) / np.where(steep, slope * q, 1.0), 0.0)
        log_q = np.clip(log_q - step, low, high)
    return log_q


def _between(values: np.ndarray, log_q: np.ndarray) -> np.ndarray:
    """Interpolate a table over the grid, by the cubic through four points in ln q."""
    at = (log_q - math.log(GRID[0])) / math.log(GRID[1] / GRID[0])
    k = np.clip(np.floor(at).astype(int), 1, len(GRID) - 3)
    t = at - k
    a, b, c, d = (values[k + j] for j in (-1, 0, 1, 2))
    left = -t * (t - 1) * (t - 2) / 6 * a + (t + 1) * (t - 1) * (t - 2) / 2 * b
    return left - (t + 1) * t * (t - 2) / 2 * c + (t + 1) * t * (t - 1) / 6 * d


ORDER, TAIL = 160, 240  # Hermite coefficients; the order that stands for all beyond
SECONDS = 200  # second moments of the table
APART = np.geomspace(1e-8, 1.0, 361)  # 1 - c of the table


def settled(
    phi: Activation, sigma_w2: np.ndarray, q: np.ndarray, chi_1: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    r"""Return 1 - c and the slope of the c-map where it settles, at each point.

    Args:
        phi: an activation.
        sigma_w2: variances of the weights times fan_in.
        q: second moments at which the q-map stays; 0, inf or NaN: nowhere.
        chi_1: the slope of the c-map at c = 1, above 1 where it leaves that.
    """
    apart, slope = np.zeros(q.shape), chi_1.copy()
    lives = np.isfinite(q) & (q > 0)
    apart[~lives], slope[~lives] = np.nan, np.nan
    leaves = lives & (chi_1 > 1)
    if leaves.any():
        apart[leaves], slope[leaves] = _chaotic(phi, sigma_w2[leaves], q[leaves], chi_1[leaves])
    return apart, slope


def _chaotic(
    phi: Activation, sigma_w2: np.ndarray, q: np.ndarray, chi_1: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    log_q = np.log(q)
    grid = np.linspace(log_q.min(), log_q.max(), SECONDS)
    ratio, slope = _tables(phi, np.exp(grid))
    at = np.clip((log_q - grid[0]) / max(grid[1] - grid[0], 1e-300), 0, SECONDS - 1)
    found = np.empty((2, q.size))
    for block in np.array_split(np.arange(q.size), -(-q.size // 8192)):  # the cache's size
        rows, slopes = (_rows(table, at[block]) for table in (ratio, slope))
        target = q[block] / sigma_w2[block]
        # D/(1 - c) falls as 1 - c grows, from q chi_1/sigma_w^2
        k = np.clip((rows > target[:, None]).sum(axis=1) - 1, 0, len(APART) - 2)
        each = np.arange(len(block))
        high, low = rows[each, k], rows[each, k + 1]
        t = np.clip((high - target) / np.where(high > low, high - low, 1.0), 0, 1)
        found[0, block] = np.exp((1 - t) * np.log(APART[k]) + t * np.log(APART[k + 1]))
        found[1, block] = sigma_w2[block] * ((1 - t) * slopes[each, k] + t * slopes[each, k + 1])
    return found[0], np.minimum(found[1], chi_1)


def _rows(table: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Interpolate the rows of a table."""
    k = np.minimum(at.astype(int), len(table) - 2)
    t = (at - k)[:, None]
    return (1 - t) * table[k] + t * table[k + 1]


def _tables(phi: Activation, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""Return D(q, 1 - c)/(1 - c) and $E\phi'(h)\phi'(h')$, (q, 1 - c)."""
    squares, slope2 = _coefficients(phi, q)
    order = np.append(np.arange(1.0, ORDER + 1), TAIL)
    log_c = np.log1p(-np.minimum(APART, 1 - 1e-16))
    lost = -np.expm1(order[:, None] * log_c) / APART
    bent = order[:, None] * np.exp((order[:, None] - 1) * log_c)
    ratio = squares @ lost
    slopes = squares @ bent / q[:, None]
    return ratio, np.minimum(slopes, slope2[:, None])


def _coefficients(phi: Activation, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a_k^2, those of 1 to `ORDER` and one for all beyond, (q, ORDER + 1), and E phi'^2."""
    root = np.sqrt(q)[:, None]
    z, weight = gauss.nodes(root, np.array(gauss.kinks(phi) or (0.0,)) + 0 * root)
    value = gauss.evaluate(phi, root * z).phi * weight
    before, now = np.zeros(z.shape), np.ones(z.shape)
    squares = [np.sum(value, axis=1) ** 2]
    for k in range(1, ORDER + 1):
        before, now = now, (z * now - math.sqrt(k - 1) * before) / math.sqrt(k)
        squares.append(np.sum(value * now, axis=1) ** 2)
    found = np.stack(squares, axis=1)
    at = gauss.moments(phi, q)
    beyond = np.maximum(at["second"] - found.sum(axis=1), 0.0)
    return np.concatenate([found[:, 1:], beyond[:, None]], axis=1), at["slope2"]
