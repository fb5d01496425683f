"""The benchmark that verdicts are judged by: its corpus, its counting, and a sample of it."""

import dataclasses
import re
from pathlib import Path

import pytest

from propagate.verdicts.findings import Finding, Verdict
from propagate.verdicts.findings import verdicts as named

pytestmark = pytest.mark.lenient  # frameworks promote implicitly

FOLDER = Path(__file__).parent / "benchmarks"


@pytest.fixture(scope="module")
def verdicts():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        import verdicts

        yield verdicts


def test_the_corpus_is_as_large_as_it_claims(verdicts):
    models, faults = verdicts.healthy(), verdicts.planted()
    assert len(models) >= 60 and len(faults) >= 40
    assert len({fault.kind for fault in faults.values()}) >= 12
    assert len({name.split(", ")[-1] for name in faults}) >= 5
    assert not set(models) & set(faults)
    assert set(verdicts.ARGUED) <= set(models) and verdicts.heavy() <= set(models)


def test_no_model_hides_another(verdicts):
    """Registers are dicts: a name that is used twice would drop a model."""
    from corpus import equinox_and_functions, flax_examples, functions, keras_and_haiku

    rooms = (functions, equinox_and_functions, flax_examples, keras_and_haiku)
    assert sum(len(room.MODELS) for room in rooms) == len(verdicts.healthy())
    for path in (FOLDER / "corpus").glob("*.py"):
        names = re.findall(r'^@(?:example|plant)\("([^"]+)"', path.read_text(), re.MULTILINE)
        assert len(names) == len(set(names)), path


def test_every_fault_says_what_is_right(verdicts):
    for name, fault in verdicts.planted().items():
        assert {v.value for v in named(fault.verdicts)} == set(fault.verdicts), name
        re.compile(fault.place)
        strengths = fault.strengths([0.0, 0.5, 1.0, 2.0, 4.0])
        assert 0.0 in strengths and 2.0 in strengths


def test_a_finding_is_right_by_word_and_place(verdicts):
    fault = verdicts.planted()["one layer too small, linen"]
    growth = {"rate": -1.6, "interval": (-1.7, -1.5), "total": -1.6, "fine_depth": 2.0}
    words = {"init": "", "activation": "", "direction": "forward", "reason": "", "layer": 5}
    found = Finding(**words, **growth, verdict=Verdict.DEPARTING, parameter="layer_5.kernel")
    assert verdicts.right(fault, found)
    assert verdicts.right(fault, dataclasses.replace(found, parameter="", site="layer_5"))
    assert not verdicts.right(fault, dataclasses.replace(found, verdict=Verdict.DEAD))
    for other in ("layer_4.kernel", "layer_51.kernel", "layer_15.kernel", ""):
        assert not verdicts.right(fault, dataclasses.replace(found, parameter=other))


def test_a_sample_of_the_corpus_runs(verdicts):
    sample = [("function GCN", None)]
    sample += [("one layer too large, function", k) for k in (0.0, 4.0)]
    found = [verdicts.examine(verdicts.Case(*case)) for case in sample]
    assert [one.error for one in found] == [""] * len(sample)
    assert [one.outcome for one in found[-2:]] == ["silent", "named"]
    assert all(one.sites > 0 and one.seconds > 0 for one in found)


def test_an_exception_is_a_result(verdicts):
    found = verdicts.examine(verdicts.Case("no such model", None))
    assert found.outcome == "failed" and "KeyError" in found.error


def test_tables_count_by_outcome(verdicts, monkeypatch):
    reason = "its authors could not train it from scratch"
    monkeypatch.setitem(verdicts.ARGUED, "keras VGG16", reason)
    case, found = verdicts.Case, verdicts.Found
    name = "one layer too large, function"
    models = [
        found(case("linen A", None), "silent", notes=2, seconds=1.0),
        found(case("linen B", None), "alarm", ("one", "two"), seconds=3.0),
        found(case("keras VGG16", None), "alarm", ("argued",)),
    ]
    table = verdicts.healthy_table(models).splitlines()
    assert table[2] == "| linen | 2 | 1 | 0 | 2 | 0 | 2.0 |"
    assert table[-1] == "| all | 3 | 1 | 1 | 2 | 0 | 1.3 |"
    said = {"named": ("a", "b"), "elsewhere": ("c",), "silent": ()}
    words = ("named", "elsewhere", "silent", "named")
    faults = [found(case(name, 2.0), word, said[word]) for word in words]
    table = verdicts.planted_table(faults, kinds=True).splitlines()
    assert table[-2:] == [
        "| all | 2 | 4 | 2 | 1 | 0 | 1 | 0 | 5 |",
        "| one layer too large | 2 | 4 | 2 | 1 | 0 | 1 | 0 | 5 |",
    ]
    numbers = verdicts.numbers(models, faults)
    assert numbers["healthy: with a fault"] == 1 and numbers["healthy: faults"] == 2
    assert numbers["planted × 2: named"] == 2
    text = "\n".join(verdicts.details([*models, *faults]))
    assert "- linen B: alarm\n    - one\n    - two" in text and text.count("elsewhere") == 1
    assert "linen A" not in text and "not train it from scratch" in text
