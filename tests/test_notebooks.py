"""The lesson runs from top to bottom; its exercises know wrong answers from right ones."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import propagate as pp

LESSON = Path(__file__).parent.parent / "notebooks" / "1_vanishing_and_exploding.ipynb"
ANSWERS = {
    "exercise 1": "50 * np.log10(1 / 2)",
    "exercise 2": "2",
    "exercise 3": "1 / 16",
    "exercise 5": '"he_normal"',
    "exercise 6": "2.606 / 0.301",
}
WRONG = {"exercise 1": "1e6", "exercise 3": "1e6", "exercise 5": '"torch"'}


def answered() -> tuple[str, int]:
    """Run the lesson: each exercise as it stands, with a wrong answer, with the right one.

    Returns:
        What it printed, and how many pictures it showed.
    """
    lesson = nbformat.read(LESSON, as_version=4)
    cells = []
    for cell in lesson.cells:
        own = lambda name, text=cell.source: f"{name}:" in text or f'"{name}"' in text  # noqa: E731
        name = next(filter(own, ANSWERS), None)
        tried = [WRONG.get(name), ANSWERS[name]] if name and "answer = ..." in cell.source else []
        cells.append(cell)
        cells += [_filled(cell, answer) for answer in tried if answer]
    lesson.cells = cells
    NotebookClient(lesson, timeout=240, kernel_name="python3").execute()
    return shown(lesson)


def _filled(cell, answer: str):
    source = cell.source.replace("answer = ...", f"answer = {answer}")
    return nbformat.v4.new_code_cell(source)


def shown(lesson) -> tuple[str, int]:
    outputs = [o for cell in lesson.cells if cell.cell_type == "code" for o in cell.outputs]
    printed = "".join(o.text for o in outputs if o.output_type == "stream")
    return printed, sum("image/png" in o.get("data", {}) for o in outputs)


@pytest.mark.filterwarnings("ignore")  # of Jupyter's own, about its sockets
def test_the_lesson_runs_and_checks_its_answers():
    printed, pictures = answered()
    counts = {": right": len(ANSWERS), ": not yet": len(WRONG)}
    counts["replace the dots"] = len(ANSWERS)
    assert {says: printed.count(says) for says in counts} == counts
    assert pictures == 4


def source_of(cell: str) -> str:
    lesson = nbformat.read(LESSON, as_version=4)
    return next(one.source for one in lesson.cells if cell in one.source)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("-15.05", "right"),
        ("-15.49", "right"),  # what the next cell measures
        ('"-15.05"', "right"),
        ("-13.5", "not yet"),
        ('"minus fifteen"', "a number is asked for"),
        ("[2]", "a number is asked for"),
    ],
)
def test_an_answer_is_judged_by_what_a_network_may_measure(answer, says, capsys):
    scope = {"pp": pp}
    asked = source_of('check("exercise 1"').replace("answer = ...", f"answer = {answer}")
    first = source_of("def check(")
    exec(first[first.index("def number(") :] + "\n\n" + asked, scope)
    assert f"exercise 1: {says}" in capsys.readouterr().out


def test_the_lesson_is_committed_with_its_outputs():
    printed, pictures = shown(nbformat.read(LESSON, as_version=4))
    assert pictures == 4
    assert "collapsing" in printed and "symmetric" in printed
    assert printed.count("replace the dots") == len(ANSWERS)
