"""Elements of a page. Words in them are escaped when they are written: none can become a tag."""

from collections.abc import Iterable, Iterator
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

Child = Element | str | None | Iterable["Child"]


def el(tag: str, *children: Child, **attributes: str | None) -> Element:
    """Return an element with words and elements in it, and attributes that are not None.

    Args:
        tag: its name.
        children: in order; lists of them are opened, and None is left out.
        attributes: `class_` is `class`, and `data_x` is `data-x`.

    Example:
        >>> written(el("p", "a < b ", el("b", "&"), class_="x"))
        '<p class="x">a &lt; b <b>&amp;</b></p>'
    """
    named = ((k.rstrip("_").replace("_", "-"), v) for k, v in attributes.items())
    made = Element(tag, {k: v for k, v in named if v is not None})
    for child in _flat(children):
        if isinstance(child, Element):
            made.append(child)
        elif len(made):
            made[-1].tail = (made[-1].tail or "") + child
        else:
            made.text = (made.text or "") + child
    return made


def _flat(children: Iterable[Child]) -> Iterator[Element | str]:
    for child in children:
        if isinstance(child, str | Element):
            yield child
        elif child is not None:
            yield from _flat(child)


def section(key: str, title: str, *children: Child) -> Element:
    """Return a part of the page with its heading, which links lead to."""
    return el("section", el("h2", title), *children, id=key)


def written(element: Element) -> str:
    """Return an element as HTML."""
    return ElementTree.tostring(element, encoding="unicode", method="html")
