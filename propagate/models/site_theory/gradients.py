r"""The graph along which theory sends gradients back through a user's model.

A node is a value whose gradient is predicted: a site, or a Gaussian argument. Its consumers are the
next nodes that use it, each with the gradient factor f' of what lies between. With N elements at
the node and N' at a consumer, the second moments of the gradients are

$$N\,E g^2 = \sum f' N' E g'^2.$$

Take `out = h + relu(h) @ V` of width 32 with fan_in E V^2 = 2. The factor of the skip is 1, that of
the branch is 2 E relu'(h)^2 = 1:

>>> graph = GradientGraph()
>>> h = graph.add(Node(size=32, row=0))
>>> out = Node(size=32, gradient=1.0)
>>> graph.connect({h: 1.0}, out)
>>> graph.connect({h: 1.0}, out)
>>> graph.gradients(measured=[math.nan])
[2.0]
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from propagate.models.site_theory.values import GradientFactors


@dataclass
class Node:
    """A value whose gradient is predicted.

    Attributes:
        size: how many elements.
        row: of the record; None if it is no site.
        q: second moment of the value by theory; NaN where theory has no answer.
        gradient: second moment of its gradient; set beforehand at an output.
        consumers: the next nodes that use the value, with the gradient factor between.
    """

    size: int
    row: int | None = None
    q: float = math.nan
    gradient: float = math.nan
    consumers: list[tuple["Node", float]] = field(default_factory=list)


class GradientGraph:
    """Nodes in program order, so that consumers come after what they use."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []

    def __getitem__(self, number: int) -> Node:
        return self.nodes[number]

    def add(self, node: Node) -> int:
        """Add a node; return its number."""
        self.nodes.append(node)
        return len(self.nodes) - 1

    def connect(self, factors: GradientFactors, consumer: Node) -> None:
        """Note that a node uses a value with these gradient factors to earlier nodes."""
        for number, factor in factors.items():
            self.nodes[number].consumers.append((consumer, factor))

    def second_moments(self, rows: int) -> list[float]:
        """Return q of the node of each row of the record; NaN where there is none."""
        found = {node.row: node.q for node in self.nodes}
        return [found.get(row, math.nan) for row in range(rows)]

    def gradients(self, measured: Sequence[float]) -> list[float]:
        """Return the second moment of the gradient at each row, from the last node to the first.

        Args:
            measured: the same by measurement, (rows,). A node that theory has no gradient for
                passes the measured one on; its own row is NaN.
        """
        by_row: dict[int | None, float] = {}
        for node in reversed(self.nodes):
            shares = [after.size / node.size * f * after.gradient for after, f in node.consumers]
            node.gradient = by_row[node.row] = sum(shares) if shares else math.nan
            if math.isnan(node.gradient) and node.row is not None:
                node.gradient = measured[node.row]
        return [by_row.get(row, math.nan) for row in range(len(measured))]
