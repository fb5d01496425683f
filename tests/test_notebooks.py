"""The lessons run from top to bottom; their exercises know wrong answers from right ones."""

import os
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

import propagate as pp

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
FIRST = "1_vanishing_and_exploding"
ANSWERS = {  # of each exercise, in order: right ones, and wrong ones with what is said to them
    FIRST: [
        (["50 * np.log10(1 / 2)", '"-15 decades"'], {"15": "only the sign", "-13.5": "50 times"}),
        (["2"], {"1": "sigma_w^2 / 2 = 1"}),
        (["1 / 16", '"1/16"'], {"1 / 4": "it is squared"}),
        (['"he_normal"', '"He_normal "'], {'"torch"': "exercise 2"}),
        (["2.606 / 0.301", "8", "measured"], {"50": "2.606 decades"}),
    ],
    "2_diagnose_your_own_architecture": [
        (["int(culprits[0])", "str(culprits[0])"], {"int(culprits[1])": "first row"}),
        (["(2 / is_now) ** 0.5", "ideal"], {"2 / is_now": "** 0.5"}),
        (["loud"], {"loud + 1": "branch/skip"}),
        (['"no"', '"No"'], {'"yes"': "or a bias"}),
        (["np.log10(1 / 2)", "rate"], {"0.301": "only the sign", "-0.5": "log10"}),
        (["(1 - np.exp(-2)) / 2", "best"], {"0": "np.exp(-2)"}),
    ],
    "3_order_chaos_and_criticality": [
        (["1 / 2", '"1/2"'], {"1": "half of the bell"}),
        (["2"], {"1 / 2": "(exercise 1) = 1"}),
        (["1 / 0.4252"], {"2": "first number"}),
        (["3.56"], {"1": "cross"}),
        (["edge(3.56)[0]", "1.98"], {"2.35": "edge(q)"}),
        (['"smaller"'], {'"larger"': "chi_1"}),
        (["1"], {"1.76": "phi'(0)"}),
        (["-1 / np.log(settled[0].chi_1)", "3.56"], {"-3.6": "only the sign", "22": "np.log"}),
        (["-6 / np.log(0.99)", "600"], {"100": "-6 /"}),
    ],
    "4_initialisers_in_training": [
        (['"he_normal"'], {'"normal_0.05"': "next to 0"}),
        (["0.1", '"1/10"', '"10%"', '"10 %"'], {"0": "one in ten", '"20%"': "one in ten"}),
        (["1797 / 5", "359"], {"180": "1797 / 5"}),
        (['"yes"'], {'"no"': "learns later"}),
        (["1.8"], {"2 / 0.9": "sigma_w^2 /"}),
        (["2 * np.log10(np.exp(-0.05 * 0.03 * 352))"], {"0.459": "only the sign", "-1": "np.exp"}),
        (["0.7", "left"], {"2": "exercise 6"}),
    ],
}  # fmt: skip
PICTURES = dict(zip(ANSWERS, (4, 2, 5, 2), strict=True))
STORED = {  # what the stored outputs say
    FIRST: ["collapsing", "symmetric"],
    "2_diagnose_your_own_architecture": ["exploding →", "parameters changed", "nothing changed"],
    "3_order_chaos_and_criticality": ["1.98305825", "measured: xi_c"],
    "4_initialisers_in_training": ["Outcome of training", "alone"],
}
LONGEST = 600_000  # bytes of a notebook with its pictures
SUITE = ("JAX_NUM", "XLA_FLAGS")  # the suite's settings, without which users' programs run
ASKS = "replace the dots"


def read(name: str):
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def exercises(lesson) -> list:
    code = [cell for cell in lesson.cells if cell.cell_type == "code"]
    return [cell for cell in code if "answer = ..." in cell.source]


def answered(cell, answer: str) -> str:
    return cell.source.replace("answer = ...", f"answer = {answer}")


def printed(*cells) -> str:
    outputs = [o for cell in cells if cell.cell_type == "code" for o in cell.outputs]
    return "".join(o.text for o in outputs if o.output_type == "stream")


def pictures(lesson) -> int:
    outputs = [o for cell in lesson.cells if cell.cell_type == "code" for o in cell.outputs]
    return sum("image/png" in o.get("data", {}) for o in outputs)


@pytest.mark.filterwarnings("ignore")  # of Jupyter's own, about its sockets
@pytest.mark.parametrize("name", ANSWERS)
def test_a_lesson_runs_and_checks_its_answers(name):
    """Each exercise is run as it stands, then with wrong answers and with right ones."""
    lesson, tried = read(name), []
    for cell, (right, wrong) in zip(exercises(lesson), ANSWERS[name], strict=True):
        says = [*((a, hint) for a, hint in wrong.items()), *((a, ": right") for a in right)]
        cells = [nbformat.v4.new_code_cell(answered(cell, answer)) for answer, _ in says]
        at = lesson.cells.index(cell) + 1
        lesson.cells[at:at] = cells
        tried += [(made, hint) for made, (_, hint) in zip(cells, says, strict=True)]
    env = {key: value for key, value in os.environ.items() if not key.startswith(SUITE)}
    NotebookClient(lesson, timeout=400, kernel_name="python3").execute(env=env, cwd=NOTEBOOKS)
    for cell, says in tried:
        kind = ": right" if says == ": right" else ": not yet"
        assert kind in printed(cell) and says in printed(cell), cell.source
    assert printed(*lesson.cells).count(ASKS) == len(ANSWERS[name])
    assert pictures(lesson) == PICTURES[name]


@pytest.mark.parametrize("name", ANSWERS)
def test_a_lesson_is_committed_with_its_outputs(name):
    lesson, path = read(name), NOTEBOOKS / f"{name}.ipynb"
    stored = printed(*lesson.cells)
    assert pictures(lesson) == PICTURES[name]
    assert all(words in stored for words in STORED[name])
    assert stored.count(ASKS) == len(exercises(lesson)) == len(ANSWERS[name])
    assert path.stat().st_size < LONGEST


def source_of(words: str, name: str = FIRST) -> str:
    return next(one.source for one in read(name).cells if words in one.source)


def test_all_lessons_check_and_install_in_the_same_way():
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == set(ANSWERS)
    assert len({source_of("def check(", name) for name in ANSWERS}) == 1
    installs = [source_of("%pip", name) for name in ANSWERS]
    lines = {re.sub(r'^if .*:$|(?<="{SOURCE}").*', "", text, flags=re.M) for text in installs}
    assert len(lines) == 1


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("-15.05", "right"),
        ("-15.49", "right"),  # what the next cell measures
        ('"-15.05"', "right"),
        ('"−15 decades"', "right"),
        ("np.array(-15.05)", "right"),
        ("15.05", "not yet, 15.05 has the right size. Hint: only the sign is wrong"),
        ("-13.5", "not yet, got -13.5. Hint: log10(1/2)"),
        ("np.nan", "not yet"),
        ('"minus fifteen"', "a number is asked for"),
        ('"1/0"', "a number is asked for"),
        ("[2, 3]", "a number is asked for"),
        ("None", "a number is asked for"),
        ("...", "replace the dots"),
    ],
)
def test_an_answer_is_judged_by_what_a_network_may_measure(answer, says, capsys):
    net = pp.Network(depth=50, width=256, activation="relu", init="xavier_normal")
    _first_exercise(net, answer)
    assert f"exercise 1: {says}" in capsys.readouterr().out


@pytest.mark.parametrize(("depth", "width"), [(50, 16), (20, 64), (10, 2000)])
def test_marks_follow_the_network_that_the_learner_chose(depth, width, capsys):
    net = pp.Network(depth=depth, width=width, activation="relu", init="xavier_normal")
    theory = float(pp.predict(net).log10_forward_q[-1])
    _first_exercise(net, f"{depth} * np.log10(1 / 2)")
    _first_exercise(net, repr(theory))
    assert capsys.readouterr().out.count("right") == 2
    _first_exercise(net, repr(depth * np.log10(2)))
    _first_exercise(net, repr(3 * theory))
    said = capsys.readouterr().out
    assert "only the sign is wrong" in said and f"{depth} times" in said


def _first_exercise(net: pp.Network, answer: str) -> None:
    scope = {"pp": pp, "np": np, "net": net}
    exec(source_of("def check("), scope)
    exec(source_of('check("exercise 1"').replace("answer = ...", f"answer = {answer}"), scope)
