"""Pictures within the page, as vectors."""

import io
import re
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np
import xarray as xr

from propagate.report.html.elements import el
from propagate.verdicts.findings import Findings

ZOOMS = ("1", "2", "4")  # times the width of the page
REFERENCE = re.compile(r"url\(#([^)]+)\)")
TARGET = re.compile(r'href="#([^"]+)"')
DECIMALS = re.compile(r"(\.\d\d)\d+")  # of which two are left, a 50th of a pixel at the largest
FONT = re.compile(r"font-family: [^;]*;? ?")  # long, always the same, and in the page's own sheet
PLACES = ("d", "x", "y", "transform")  # attributes that are lists of numbers
MOST_POINTS = 250  # of a curve of a sweep, more than a panel has pixels


def figures(record: xr.Dataset, findings: Findings) -> list[Element]:
    """Return every picture that suits a record, with its caption and its choice of a size."""
    import matplotlib  # slow to load

    from propagate.plot import kinds

    names = kinds.suitable(record)
    names = [name for name in names if kinds.KINDS[name].still]
    names = [name for name in names if name != "variance" or "curves" not in names]
    made = []
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "propagate"}):
        for name in names:
            own = _thinned(record) if name == "curves" else record
            drawn, file = kinds.drawn(own, name, findings=findings), io.StringIO()
            unsigned = dict.fromkeys(("Creator", "Date", "Format", "Type"))
            drawn.savefig(file, format="svg", metadata=unsigned)
            caption = f"{kinds.KINDS[name].shows}."
            made.append(_figure(name, caption, svg(file.getvalue(), name)))
    return made


def _thinned(record: xr.Dataset) -> xr.Dataset:
    """Return the record with no more layers than can be told apart on a curve."""
    last = record.sizes["layer"] - 1
    kept = np.unique(np.linspace(0, last, min(last + 1, MOST_POINTS)).round().astype(int))
    return record.isel(layer=kept)


def _figure(name: str, caption: str, picture: Element) -> Element:
    picture.set("role", "img")
    picture.set("aria-label", caption)
    sizes = [el("legend", "Size")]
    for times in ZOOMS:
        checked = "checked" if times == ZOOMS[0] else None
        own = {"type": "radio", "class_": f"x{times}", "name": f"zoom-{name}", "checked": checked}
        sizes.append(el("label", el("input", **own), f"{times} ×"))
    pane = el("div", picture, class_="pane", tabindex="0", role="region", aria_label=caption)
    return el("figure", el("figcaption", caption), el("fieldset", sizes), pane)


def svg(text: str, name: str) -> Element:
    """Return a picture of matplotlib as an element whose ids begin with its name.

    So two pictures in one page do not clash. Ids that nothing refers to are left out, and so are
    its metadata and its own style sheet, which would hold for the whole page.

    Example:
        >>> picture = svg('<svg><path id="a" clip-path="url(#b)"/><g id="b"/></svg>', "map")
        >>> [part.attrib for part in picture]
        [{'clip-path': 'url(#map-b)'}, {'id': 'map-b'}]
    """
    root = ElementTree.fromstring(text)
    for parent in root.iter():
        for child in list(parent):
            if _local(child.tag) in ("metadata", "style"):
                parent.remove(child)
    wanted = {*REFERENCE.findall(text), *TARGET.findall(text)}
    for element in root.iter():
        element.tag = _local(element.tag)
        values = {_local(key): value for key, value in element.attrib.items()}
        element.attrib.clear()
        element.attrib.update({key: _own(key, value, name) for key, value in values.items()})
        if "id" in values and values["id"] not in wanted:
            del element.attrib["id"]
        wanted.discard(values.get("id", ""))  # matplotlib defines some of them twice, alike
        if element.tag not in ("text", "tspan"):
            element.text = None
        if element.tag != "tspan":
            element.tail = None
    width, *_ = (root.attrib.pop(key, "") for key in ("width", "height", "version"))
    root.set("style", f"--points:{width.removesuffix('pt') or '600'}")
    return root


def _local(name: str) -> str:
    """Return a name without its namespace, which HTML does not need."""
    return name.rpartition("}")[2]


def _own(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key == "href" and value.startswith("#"):
        return f"#{name}-{value[1:]}"
    if key in PLACES:
        return DECIMALS.sub(r"\1", " ".join(value.split()))
    return REFERENCE.sub(rf"url(#{name}-\1)", FONT.sub("", value))
