"""The lesson runs from top to bottom, as it stands and with the right answers filled in."""

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
WRONG = {"exercise 1": "1e6", "exercise 3": "1e6", "exercise 5": '"torch"'}  # 2 and 6 unanswered


def executed(answers: dict[str, str]) -> tuple[str, int]:
    """Run the lesson; return what it printed and how many pictures it showed."""
    lesson = nbformat.read(LESSON, as_version=4)
    for cell in lesson.cells:
        for name, answer in answers.items():
            if name in cell.source:
                cell.source = cell.source.replace("answer = ...", f"answer = {answer}")
    NotebookClient(lesson, timeout=240, kernel_name="python3").execute()
    return shown(lesson)


def shown(lesson) -> tuple[str, int]:
    outputs = [o for cell in lesson.cells if cell.cell_type == "code" for o in cell.outputs]
    printed = "".join(o.text for o in outputs if o.output_type == "stream")
    return printed, sum("image/png" in o.get("data", {}) for o in outputs)


@pytest.mark.filterwarnings("ignore")  # of Jupyter's own, about its sockets
@pytest.mark.parametrize("answers", [ANSWERS, WRONG], ids=["right", "wrong or none"])
def test_the_lesson_runs_and_checks_its_answers(answers):
    printed, pictures = executed(answers)
    wrong = len(WRONG) if answers is WRONG else 0
    counts = {": right": len(answers) - wrong, ": not yet": wrong}
    counts["replace the dots"] = len(ANSWERS) - len(answers)
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
