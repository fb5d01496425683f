"""Samples: which numbers are taken, that both ways take the same, and what they estimate.

Statistics of a sample are random over draws of the signal. Each is compared with that of the whole
over `DRAWS` draws: the mean difference must be within four standard errors, beyond which it is with
probability 5e-4 for Student's t of 63 degrees of freedom at each of 18 numbers, 3e-3 in all.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from propagate.record import measures
from propagate.record.kept_values import Kept, reduced
from propagate.record.samples import Sample, _gather, _product, sample
from propagate.record.sums import Layout, finish, needed

DRAWS = 64
SEQUENCE, HEADS = Layout(0, 2), Layout(0, 3)
OF_VALUES = tuple(
    m for m in measures.SITE_MEASURES if not m.shaped and m.name != "saturated_fraction"
)
OF_SOFTMAX = tuple(m for m in measures.SITE_MEASURES if m.shaped)
BOUNDS = ("max", "dead_fraction")


def taken(x, one: Sample):
    for axis, index in enumerate(one.index):
        x = x if index is None else np.take(x, index, axis)
    return x


def signals(rng):
    """A part that inputs share, one of each position, and one of its own; a dead channel; zeros."""
    own = rng.normal(0, 1, (16, 48, 8))
    x = own + rng.normal(0, 0.7, (1, 48, 8)) + rng.normal(0.3, 0.5, (16, 1, 8))
    x = np.where(rng.random(x.shape) < 0.2, 0, x)
    x[:, 0] *= 4  # the first position, as that of a class token, is unlike the others
    x[:, :, 3] = 0
    return x.astype(np.float32)


def weights(rng):
    scores = rng.normal(0, [[[1.0]], [[2.0]]], (16, 2, 48, 12))
    p = np.exp(scores)
    return (p / p.sum(-1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize(
    ("draw", "layout", "table", "whole"),
    [(signals, SEQUENCE, OF_VALUES, None), (weights, HEADS, OF_SOFTMAX, 1)],
)
def test_a_sample_estimates_the_statistics_of_the_whole(draw, layout, table, whole):
    rng, apart = np.random.default_rng(0), {m.name: [] for m in table}
    whole_rank = {m.name: [] for m in table}
    for _ in range(DRAWS):
        x = draw(rng)
        one = sample(x.shape, layout, 1, whole)
        sums = needed(table)
        pair = reduced([Kept(x, sums, layout), Kept(taken(x, one), sums, layout, 0, one)])
        for m in table:
            both = [finish(m, own, layout.of(x.shape)) for own in pair]
            whole_rank[m.name].append(float(both[0]))
            apart[m.name].append(float(both[1] - both[0]))
    for name, found in apart.items():
        if name in BOUNDS:
            sign = 1 if name == "dead_fraction" else -1
            assert (sign * np.array(found) >= -1e-6).all(), name
            continue
        error = np.std(found, ddof=1) / DRAWS**0.5
        # what is no mean is off by its variance: ratios by little, ranks by that of few columns
        off = 0.2 * np.mean(whole_rank[name]) if name.endswith("rank") else 0.01
        assert abs(np.mean(found)) <= 4 * error + off, (name, np.mean(found), error)


def test_a_gradient_at_one_end_alone_keeps_its_size():
    """As of a model that reads the first or the last position, of which there is one."""
    for end in (0, -1):
        g = np.zeros((16, 1000, 8), np.float32)
        g[:, end] = 1
        one = sample(g.shape, SEQUENCE, 1)
        (sums,) = reduced([Kept(taken(g, one), ("squares",), SEQUENCE, 0, one)])
        np.testing.assert_allclose(sums["squares"], 16 * 8, rtol=1e-6)


def test_whole_units_and_some_of_each_other_axis_are_taken():
    one = sample((64, 1000, 32), SEQUENCE, 2**12)
    inputs, positions, units = one.index
    assert units is None and len(inputs) == 8 and positions[0] == 0 and positions[-1] == 999
    assert one.numbers <= 2**12 and len(set(positions)) == len(positions)
    assert sum(one.ends.weights) == pytest.approx(len(positions))
    assert sample((64, 8), Layout(0, 1), 2**12) is None
    assert sample((4096, 64), Layout(0, 1), 2**12).taken == (64, 64)
    picture = sample((16, 32, 32, 8), HEADS, 2**10)
    assert picture.ends is None and picture.taken == (8, 4, 4, 8)
    assert sample((8, 64, 16, 16), HEADS, 1, whole=1).taken == (4, 64, 4, 16)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_product_and_a_gather_take_the_same(dtype):
    x = jax.random.normal(jax.random.key(0), (3, 4, 9, 5), dtype)
    for axis in range(4):
        index = (0, 2, x.shape[axis] - 1)
        pair = [np.asarray(way(x, axis, index), np.float32) for way in (_product, _gather)]
        np.testing.assert_array_equal(*pair)
        np.testing.assert_array_equal(pair[0], np.take(np.asarray(x, np.float32), index, axis))
