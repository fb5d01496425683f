"""The pytest plugin: healthy models pass, sick ones fail with sentences, and it stays light."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from propagate.types import PropagateError, UnusableInput
from propagate.verdicts.findings import Verdict
from pytest_propagate import assert_healthy

pytest_plugins = "pytester"

DEPTH, WIDTH = 8, 16
INPUTS = jax.ShapeDtypeStruct((32, WIDTH), jnp.float32)


def net(weights, x):
    for w in weights:
        x = jax.nn.relu(x) @ w
    return x


def stack(variance):
    keys = jax.random.split(jax.random.key(0), DEPTH)
    return [jax.random.normal(key, (WIDTH, WIDTH)) * (variance / WIDTH) ** 0.5 for key in keys]


HEALTHY, SHRINKING = stack(2.0), stack(0.2)


def test_a_healthy_model_passes_and_its_diagnosis_comes_back():
    found = assert_healthy(net, HEALTHY, INPUTS, forward=0.2, backward=0.2)
    assert not found.findings and found.record.sizes["site"]


def test_a_sick_model_fails_with_one_sentence_for_each_finding():
    with pytest.raises(AssertionError) as failed:
        assert_healthy(net, SHRINKING, INPUTS)
    head, *sentences = str(failed.value).split("\n  ")
    assert head == "the model is not healthy:"
    assert len(sentences) == 2 and all(": vanishing (" in s for s in sentences)
    assert failed.traceback.filter(failed)[-1].name == failed.traceback[0].name


@pytest.mark.parametrize("allow", ["vanishing", ["dead,vanishing"], {Verdict.VANISHING}])
def test_what_is_allowed_passes(allow):
    found = assert_healthy(net, SHRINKING, INPUTS, allow=allow)
    assert {f.verdict for f in found.findings} == {Verdict.VANISHING}


def test_growth_beyond_a_limit_fails_and_names_the_steps():
    allow = ("vanishing",)
    with pytest.raises(AssertionError) as failed:
        assert_healthy(net, SHRINKING, INPUTS, allow=allow, forward=0.5, backward=2)
    (sentence,) = str(failed.value).split("\n  ")[1:]
    assert sentence.startswith("the signal changes by -") and "over ±0.5: -" in sentence
    assert_healthy(net, SHRINKING, INPUTS, allow=allow, forward=2, backward=2)


def test_growth_that_cannot_be_told_fails():
    with pytest.raises(AssertionError, match="growth of the gradient cannot be told"):
        assert_healthy(net, HEALTHY[:1], INPUTS, backward=1)


def test_a_key_is_as_good_as_another_but_repeats():
    first, again = (assert_healthy(net, HEALTHY, INPUTS).record for _ in range(2))
    other = assert_healthy(net, HEALTHY, INPUTS, key=jax.random.key(1)).record
    assert (first["log10_forward_q"] == again["log10_forward_q"]).all()
    assert (first["log10_forward_q"] != other["log10_forward_q"]).all()


def test_a_wrong_argument_is_told():
    with pytest.raises(UnusableInput, match="did you mean 'dead'"):
        assert_healthy(net, HEALTHY, INPUTS, allow=["deaf"])
    with pytest.raises(UnusableInput, match="forward must be decades per layer"):
        assert_healthy(net, HEALTHY, INPUTS, forward=-1)


@pytest.mark.parametrize(
    ("model", "inputs"),
    [(net, jnp.ones((0, WIDTH))), (lambda weights, x: weights[0], INPUTS)],
    ids=["an empty batch", "no site"],
)
def test_a_model_of_which_nothing_is_seen_does_not_pass(model, inputs, tmp_path):
    kept = tmp_path / "kept.json"
    with pytest.raises(PropagateError, match=r"at least one input|got none"):
        assert_healthy(model, HEALTHY, inputs, allow="dead", baseline=kept)
    assert not kept.exists()


def test_a_baseline_is_written_then_compared_with(tmp_path):
    kept = tmp_path / "kept.json"
    assert_healthy(net, HEALTHY, INPUTS, baseline=kept)
    before = kept.read_text()
    assert_healthy(net, HEALTHY, INPUTS, baseline=kept, tolerance=1e-3)
    with pytest.raises(AssertionError, match="slope at 1 went from"):
        assert_healthy(net, SHRINKING, INPUTS, allow="vanishing", baseline=str(kept))
    assert_healthy(net, SHRINKING, INPUTS, allow="vanishing", baseline=kept, tolerance=9)
    assert kept.read_text() == before


def test_the_fixture_in_a_users_tests_and_the_option(pytester):
    pytester.makepyfile("""
        import jax, jax.numpy as jnp
        from pytest_propagate import assert_healthy as same

        def net(weights, x):
            for w in weights:
                x = x @ w
            return x

        def test_model(assert_healthy):
            assert assert_healthy is same
            weights = [jnp.eye(4) * 0.5] * 3
            assert_healthy(net, weights, jnp.eye(2, 4), baseline="kept.json")
    """)
    kept = pytester.path / "kept.json"
    slopes = {"a": {"forward": 0, "backward": 0}}
    old = json.dumps({"format": "propagate baseline", "version": 1, "slopes": slopes})
    kept.write_text(old)
    compared = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    compared.assert_outcomes(failed=1)
    compared.stdout.fnmatch_lines(["E*a is gone: the baseline has a slope there*"])
    compared.stdout.no_fnmatch_line("*raise AssertionError*")
    assert kept.read_text() == old
    updated = pytester.runpytest_inprocess("--propagate-update", "-p", "no:cacheprovider")
    updated.assert_outcomes(passed=1)
    assert kept.read_text() != old


def test_the_plugin_is_installed_under_its_name(pytestconfig):
    assert pytestconfig.pluginmanager.get_plugin("propagate").assert_healthy is assert_healthy


def test_the_plugin_imports_neither_jax_nor_propagate():
    code = "import sys, pytest_propagate; print({'jax', 'numpy', 'propagate'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr
