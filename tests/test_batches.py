"""Batches: files are read whole or refused with the reason, random ones have their statistics."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from propagate import batches
from propagate.batches import Batch, load
from propagate.types import UnusableInput

ROWS = np.arange(12.0).reshape(4, 3)
LABELS = np.array([0, 1, 2, 1])


def test_npy_files_hold_inputs(tmp_path):
    np.save(tmp_path / "rows.npy", ROWS)
    found = load(str(tmp_path / "rows.npy"), 3)
    np.testing.assert_array_equal(found.inputs, ROWS[:3])
    assert found.labels is None
    assert found.origin == "rows.npy"


@pytest.mark.parametrize(("inputs", "labels"), [("inputs", "labels"), ("x", "y"), ("inputs", "y")])
def test_npz_files_hold_inputs_and_labels(tmp_path, inputs, labels):
    np.savez(tmp_path / "rows.npz", **{inputs: ROWS, labels: LABELS})
    found = load(str(tmp_path / "rows.npz"), 3)
    np.testing.assert_array_equal(found.inputs, ROWS[:3])
    np.testing.assert_array_equal(found.labels, LABELS[:3])


def test_a_large_batch_takes_the_rows_there_are(tmp_path):
    np.save(tmp_path / "rows.npy", ROWS)
    assert len(load(str(tmp_path / "rows.npy"), 100).inputs) == 4


def test_features_are_flattened():
    assert Batch(np.ones((5, 2, 3))).inputs.shape == (5, 6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_first_bad_number_is_named(tmp_path, bad):
    rows = ROWS.copy()
    rows[2, 1] = rows[3, 0] = bad
    np.save(tmp_path / "rows.npy", rows)
    with pytest.raises(UnusableInput, match=r"2 of 12 values .* the first at \(2, 1\)"):
        load(str(tmp_path / "rows.npy"), 4)


def test_a_bad_label_is_named():
    with pytest.raises(UnusableInput, match=r"labels must be finite.*\(1,\)"):
        Batch(ROWS[:2], np.array([0.0, np.nan]))


@pytest.mark.parametrize(
    "source", ["nowhere.npy", "digit", "", "a\0b", "long" * 2000, "."], ids=range(6)
)
def test_a_missing_file_is_named_beside_what_there_is(source):
    with pytest.raises(UnusableInput, match="gaussian, pairs, digits"):
        load(source, 4)


@pytest.mark.parametrize(
    "array",
    [np.ones(4), np.ones(()), np.ones((4, 0)), np.ones((0, 3)), np.ones((2, 2), complex)],
    ids=["1-d", "0-d", "no features", "no rows", "complex"],
)
def test_arrays_that_are_not_batches_of_numbers_are_refused(tmp_path, array):
    np.save(tmp_path / "rows.npy", array)
    with pytest.raises(UnusableInput):
        load(str(tmp_path / "rows.npy"), 4)


@pytest.mark.parametrize("inputs", [[["a", "b"]], [[None]], [[1, 2], [3]], 3.0], ids=str)
def test_values_that_are_not_arrays_of_numbers_are_refused(inputs):
    with pytest.raises(UnusableInput):
        Batch(inputs)


@pytest.mark.parametrize("labels", [[1, 2, 3], [], 3], ids=str)
def test_labels_must_be_as_many_as_inputs(labels):
    with pytest.raises(UnusableInput, match="labels"):
        Batch(ROWS, labels)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.int32, bool])
def test_numbers_of_any_type_are_inputs(dtype):
    assert Batch(jnp.ones((2, 3), dtype)).inputs.shape == (2, 3)


@pytest.mark.parametrize("save", [np.save, lambda path, rows: np.savez(path, x=rows)])
def test_pickled_objects_are_refused(tmp_path, save):
    with open(tmp_path / "rows.npy", "wb") as file:
        save(file, np.array([[{"a": 1}]], dtype=object))
    with pytest.raises(UnusableInput, match="allow_pickle=False"):
        load(str(tmp_path / "rows.npy"), 4)


HEADER = b"\x93NUMPY\x01\x00\x76\x00"
BROKEN = {
    "empty": b"",
    "text": b"1,2,3\n4,5,6\n",
    "half a header": HEADER,
    "unfinished header": HEADER + b"{'descr': '<f8', 'shape': (".ljust(117) + b"\n",
    "zip": b"PK\x03\x04 and no more",
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_files_that_are_not_arrays_are_refused(tmp_path, data):
    (tmp_path / "rows.npy").write_bytes(data)
    with pytest.raises(UnusableInput, match=r"not a .npy or .npz file"):
        load(str(tmp_path / "rows.npy"), 4)


def test_a_damaged_compressed_file_is_refused(tmp_path):
    path = tmp_path / "rows.npz"
    np.savez_compressed(path, x=np.arange(3000.0).reshape(30, 100))
    data = bytearray(path.read_bytes())
    data[200:260] = b"\xff" * 60
    path.write_bytes(data)
    with pytest.raises(UnusableInput, match=r"not a .npy or .npz file"):
        load(str(path), 4)


def test_an_npz_file_without_inputs_lists_what_it_has(tmp_path):
    np.savez(tmp_path / "rows.npz", z=ROWS)
    with pytest.raises(UnusableInput, match=r"'inputs' or 'x', it has \['z'\]"):
        load(str(tmp_path / "rows.npz"), 4)


def test_the_digits_are_standardised_over_all_pixels():
    found = load("digits", 10_000)
    assert found.inputs.shape == (1797, 64)
    assert found.inputs.mean() == pytest.approx(0, abs=1e-12)
    assert found.inputs.std() == pytest.approx(1, rel=1e-12)
    assert set(found.labels) == set(range(10))
    np.testing.assert_array_equal(load("digits", 5).inputs, found.inputs[:5])


def test_gaussian_batches_have_second_moment_one():
    """At 5 standard errors, sqrt(2/n) each: a sound batch fails with probability 5.7e-7."""
    x = np.asarray(batches.random(jax.random.key(0), "gaussian", 100, 500, 0.5), np.float64)
    assert np.mean(x**2) == pytest.approx(1, abs=5 * np.sqrt(2 / x.size))


@partial(jax.jit, static_argnums=1)
def pairs(keys, n, cosine):
    return jax.vmap(lambda key: batches.random(key, "pairs", 2, n, cosine))(keys)


@pytest.mark.parametrize("cosine", [0.0, 0.3, 0.9])
def test_pairs_have_the_expected_cosine(cosine):
    """Two checks at 5 standard errors for each cosine: 6 × 5.7e-7 = 3.4e-6 if all is sound.

    The cosine of two Gaussian vectors of n entries with correlation c has standard error
    (1 - c^2)/sqrt(n) and a bias below 1/n; the product of two entries varies by 1 + c^2.
    """
    n, keys = 1000, jax.random.split(jax.random.key(1), 40)
    one, other = np.moveaxis(np.asarray(pairs(keys, n, cosine), np.float64), 1, 0)
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    error = 1 / np.sqrt(n * len(keys))
    assert np.mean((one * other).sum(1) / lengths) == pytest.approx(
        cosine, abs=5 * (1 - cosine**2) * error + 1 / n
    )
    assert np.mean(one * other) == pytest.approx(cosine, abs=5 * np.sqrt(1 + cosine**2) * error)


def test_pairs_of_cosine_one_are_identical():
    x = np.asarray(batches.random(jax.random.key(0), "pairs", 5, 10, 1.0))
    np.testing.assert_array_equal(x, np.broadcast_to(x[0], x.shape))


@pytest.mark.parametrize(
    ("kind", "cosine"),
    [("digits", 0.5), ("pair", 0.5), ("pairs", -0.1), ("pairs", 1.1), ("pairs", np.nan)],
)
def test_random_batches_of_another_kind_are_refused(kind, cosine):
    with pytest.raises(UnusableInput):
        batches.check_random(kind, cosine)
