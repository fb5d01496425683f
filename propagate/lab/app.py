"""The page itself, a marimo app: `propagate lab` serves it, `marimo edit` opens it.

Cells stand in the order of the page; marimo runs each when what it reads has changed.
"""
# pyright: reportUnusedExpression=false

import marimo

app = marimo.App(width="medium", app_title="propagate lab")

with app.setup:
    import sys
    from pathlib import Path
    from typing import Any

    import marimo as mo

    import propagate as pp
    from propagate.lab import look, pictures, words
    from propagate.lab.presets import PRESETS
    from propagate.lab.setting import CHOICES, DEPTHS, MOST, SCALES, WIDTHS, Setting, from_address

    sys.setswitchinterval(0.0005)  # what is drawn goes to the page while the next cell draws


@app.cell
def heading():
    mo.md("# How signals and gradients travel through a deep network")
    return


@app.cell
def said(record, setting, theory):
    point = look.place(setting, record)
    verdict = words.verdict(pp.judge(record, theory))
    mo.md(verdict)
    return point, verdict


@app.cell
def advised(point, setting):
    recipe = words.recipe(setting.network.activation, point)
    mo.md(recipe)
    return (recipe,)


@app.cell
def measured(setting):
    try:
        if setting.program in look.compiled:
            record = look.measure(setting)
        else:
            with mo.status.spinner("compiling for this shape: some seconds, once"):
                record = look.measure(setting)
    except pp.UnusableInput as _error:
        mo.stop(True, mo.callout(mo.plain_text(str(_error)), kind="warn"))
    return (record,)


@app.cell
def foreseen(setting):
    theory = look.predict(setting)
    return (theory,)


@app.cell
def drawn_curves(figures, record, theory):
    curves = mo.Html(figures["curves"].draw(record, theory))
    curves
    return (curves,)


@app.cell
def drawn_phase(point, setting):
    phase = mo.md("*The phase diagram is of plain stacks of independent, centred weights.*")
    if point:
        _drawn = mo.Html(pictures.phase(setting.network.activation, point))
        _key = "*Circle: this network. Solid: edge of chaos. Dashed: to this depth networks train.*"
        phase = mo.vstack([_drawn, mo.md(_key)])
    phase
    return (phase,)


@app.cell
def drawn_histograms(figures, record):
    histograms = mo.Html(figures["histograms"].draw(record))
    histograms
    return (histograms,)


@app.cell
def drawn_record(contents):
    mo.stop(contents is None)
    try:
        _own = look.opened(contents)
    except pp.UnusableInput as _error:
        mo.stop(True, mo.callout(mo.plain_text(str(_error)), kind="warn"))
    shown = [mo.plain_text(str(pp.judge(_own))), mo.Html(pictures.of_record(_own))]
    mo.vstack([mo.md("## Your record"), *shown])
    return (shown,)


@app.cell
def chosen_story():
    address = mo.query_params().to_dict() | {}
    opening = None if address.keys() & Setting.__annotations__ else next(iter(PRESETS))
    story = mo.ui.dropdown(list(PRESETS), opening, label="story", full_width=True)
    return address, story


@app.cell
def made_controls(address, story):
    start = PRESETS[story.value].setting if story.value else from_address(address)
    wide: dict[str, Any] = {"debounce": True, "full_width": True}

    def slider(name, label="", **reach):
        options = {"value": getattr(start, name), "label": label or name, "show_value": True}
        return mo.ui.slider(**reach, **options, **wide)

    def choice(name):
        return mo.ui.dropdown(CHOICES[name], getattr(start, name), label=name, full_width=True)

    controls = mo.ui.dictionary(
        {
            "sigma_w": slider("sigma_w", start=0, stop=MOST["sigma_w"], step=0.01),
            "sigma_b": slider("sigma_b", start=0, stop=MOST["sigma_b"], step=0.01),
            "init": choice("init"),
            "activation": choice("activation"),
            "seed": slider("seed", start=0, stop=MOST["seed"], step=1),
            "formula": mo.ui.text(start.formula, label="formula of h", **wide),
            "depth": slider("depth", steps=DEPTHS),
            "width": slider("width", steps=WIDTHS),
            "family": choice("family"),
            "scale": slider("scale", "scale of residual branches", steps=SCALES),
            "norm": choice("norm"),
            "dtype": choice("dtype"),
        }
    )
    return (controls,)


@app.cell
def chosen_setting(controls):
    setting = Setting(**controls.value)
    _address, _page = setting.address, mo.query_params()
    for _name in Setting.__annotations__:
        if _name not in _address and _name in _page:
            _page.remove(_name)
        elif _address.get(_name) != _page.get(_name):
            _page.set(_name, _address[_name])
    return (setting,)


@app.cell
def chosen_record():
    own = mo.ui.file(filetypes=[".nc"], label="open a record of your own (record.nc)")
    given = mo.cli_args().get("record")
    return given, own


@app.cell
def kept_figures():
    figures: dict[str, Any] = {"curves": pictures.Curves(), "histograms": pictures.Histograms()}
    return (figures,)


@app.cell
def read_record(given, own):
    contents = own.contents() or (Path(given).read_bytes() if given else None)
    return (contents,)


@app.cell
def sidebar(controls, own, story):
    at_once = ("sigma_w", "sigma_b", "init", "activation", "seed")
    compiling = [name for name in controls.elements if name not in at_once]
    mo.sidebar(
        [
            story,
            mo.md(PRESETS[story.value].story if story.value else "A setting of your own."),
            *(controls.elements[name] for name in at_once),
            mo.md("*Each new value of these is compiled once, for some seconds:*"),
            *(controls.elements[name] for name in compiling),
            own,
        ],
        width="24rem",
    )
    return


if __name__ == "__main__":
    app.run()
