"""`propagate predict` and `propagate phase`: what theory expects of a stack and an activation."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
import xarray as xr
from rich.table import Table

from propagate import cli_chain, cli_diagnose, files, meanfield, record, report
from propagate.measured_phase import measured_phase
from propagate.network import Network
from propagate.overlay import departures
from propagate.phase import phase
from propagate.predict import predict
from propagate.sweep import measure
from propagate.terminal import key, say, show

ROWS = 12  # layers in the table


@dataclass(frozen=True)
class Predict:
    """Say what mean-field theory expects of a stack, layer by layer, and measure it beside.

    Prints the table, the gain and the critical points of the activation.

    With TARGET, as for `propagate diagnose`, it is your own model: it is measured, and theory
    follows its program with the statistics of its weights. "given" is what was measured, where
    theory has no answer.
    """

    target: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="[TARGET]")] = None
    """my_model.py:build, or package.module:build from the current directory."""
    init: str = "he_normal"
    """Initialiser: a name of `propagate list`, such as he_normal, "sigma(1.3,0.3)"."""
    activation: str = "relu"
    """Activation: a name of `propagate list`."""
    family: str = "mlp"
    """Kind of layer: a family of `propagate list`, such as "residual(branch=nf)"."""
    depth: int = 50
    """Number of layers."""
    width: int = 256
    """Units per layer."""
    batch: int = 128
    """Inputs, over which a second moment is averaged."""
    sigma_b2: float = 0.05
    """Variance of the biases for which critical points are listed."""
    seeds: int = 0
    """Networks to measure beside the prediction; 0 measures none."""
    seed: int = 0
    """Of the measurement."""
    vmap: tyro.conf.FlagCreatePairsOff[bool] = False
    """TARGET's model takes a single input: map it over the batch."""
    kwargs: Annotated[str, tyro.conf.arg(metavar="JSON")] = "{}"
    """Keyword arguments of every call of TARGET's model, such as '{"train": true}'."""
    out: Path | None = None
    """Folder for the record of theory and, if there is one, of the measurement; their picture."""
    json: bool = False
    """Print JSON instead of tables."""

    def __call__(self) -> int:
        """Run; return the exit code."""
        if self.out is not None:
            files.writable(self.out)
        if self.target is not None:
            return self._of_model(self.target)
        net = Network(self.depth, self.width, self.family, self.activation, self.init)
        theory = predict(net, batch=self.batch)
        found = None
        if self.seeds:
            found = measure(net, key(self.seed), seeds=self.seeds, batch=self.batch)
        if self.out is not None:
            for path in _write(self.out, theory, found):
                say(f"wrote {path}")
        show(self._summary(net, theory, found) if self.json else self._tables(theory, found))
        if not self.json:
            show(self._advice(net))
            for one in departures(found, theory) if found is not None else ():
                show(str(one))
        return 0

    def _of_model(self, target: str) -> int:
        found = cli_diagnose.diagnosed(target, self.seed, self.vmap, self.kwargs)
        theory = found.theory()
        for path in _write(self.out, theory, found.record) if self.out is not None else ():
            say(f"wrote {path}")
        if self.json:
            show(cli_chain.summary(theory, found.record))
        else:
            cli_chain.shown(found, theory)
        return 0

    def _tables(self, theory: xr.Dataset, found: xr.Dataset | None) -> Table:
        title = f"{self.init} × {self.activation}: log10 of second moments"
        table = Table("layer", title=title)
        columns = {}
        for direction in ("forward", "backward"):
            band = theory[f"log10_{direction}_q_sd"].where(np.isfinite)
            columns[f"{direction}\nexpected"] = theory[f"log10_{direction}_q"].values
            columns[f"{direction}\n± over draws"] = band.values
            if found is not None:
                columns[f"{direction}\nmeasured"] = (
                    found[f"log10_{direction}_q"].mean("seed").values
                )
        for name in columns:
            table.add_column(name, justify="right")
        for k in np.unique(np.linspace(0, self.depth, ROWS).round().astype(int)):
            row = (values[k] for values in columns.values())
            table.add_row(str(k), *("–" if np.isnan(v) else f"{v:.3f}" for v in row))
        return table

    def _advice(self, net: Network) -> str:
        factors = meanfield.gain(net.phi)
        return (
            f"gain of {net.phi.name}: {factors.second_moment:.6g} keeps E phi², "
            f"{factors.variance:.6g} keeps Var phi\n{_points(net.phi.name, self.sigma_b2)}"
        )

    def _summary(
        self, net: Network, theory: xr.Dataset, found: xr.Dataset | None
    ) -> dict[str, Any]:
        points = meanfield.critical(net.phi, self.sigma_b2)
        summary: dict[str, Any] = {
            "gain": meanfield.gain(net.phi)._asdict(),
            "critical": [point._asdict() for point in points],
            "reason": points.reason or None,
            "theory": {
                str(k): report.finite(v.values.tolist()) for k, v in theory.data_vars.items()
            },
        }
        if found is not None:
            summary["departures"] = [
                {k: report.finite(v) for k, v in one._asdict().items()}
                for one in departures(found, theory)
            ]
        return summary


def _write(folder: Path, theory: xr.Dataset, found: xr.Dataset | None) -> list[Path]:
    from propagate import plot  # matplotlib is slow to load

    wrote = [record.save(theory, folder / "theory.nc")]
    if found is not None:
        wrote.append(record.save(found, folder / "record.nc"))
    ax = plot.variance(theory if found is None else found, theory=theory)
    return [*wrote, _picture(ax, folder / "overlay.png")]


def _picture(ax: Any, path: Path) -> Path:
    """Save the figure of an axis whole, or not at all."""
    figure = ax.get_figure(root=True)
    record.whole(path, lambda part: figure.savefig(part, dpi=150))
    return path


@dataclass(frozen=True)
class Phase:
    """Draw the phase diagram of an activation: growth over (sigma_w², sigma_b²), edge of chaos.

    Prints the critical points and writes phase.png and phase.nc.
    """

    activation: str = "tanh"
    """Activation: a name of `propagate list`."""
    sigma_w2: tuple[float, float] = (0.0, 4.0)
    """Ends of the axis of sigma_w², the variance of weights times fan_in."""
    sigma_b2: tuple[float, float] = (0.0, 0.5)
    """Ends of the axis of sigma_b², the variance of biases."""
    points: tuple[int, int] = (300, 250)
    """Grid: values of sigma_w², of sigma_b²."""
    measured: int = 0
    """Networks to measure and draw on top, along each axis; 0 measures none."""
    depth: int = 30
    """Layers of a measured network."""
    width: int = 256
    """Units per layer of a measured network."""
    seed: int = 0
    """Of the measurement."""
    out: Path = Path("propagate-out")
    """Folder for the picture and the numbers."""

    def __call__(self) -> int:
        """Run; return the exit code."""
        from propagate import plot  # matplotlib is slow to load

        files.writable(self.out)
        ends = self.sigma_w2, self.sigma_b2
        axes = [np.linspace(*end, n) for end, n in zip(ends, self.points, strict=True)]
        plane = phase(self.activation, *axes)
        say(f"wrote {record.save(plane, self.out / 'phase.nc')}")
        ax = plot.phase(plane, measured=self._measured() if self.measured else ())
        say(f"wrote {_picture(ax, self.out / 'phase.png')}")
        for sigma_b2 in np.linspace(*self.sigma_b2, 6):
            show(_points(self.activation, float(sigma_b2)))
        return 0

    def _measured(self) -> list[tuple[float, float, float]]:
        """Return the gradient's rate in the settled layers of networks on a coarse grid."""
        inside = [
            np.linspace(*end, self.measured + 2)[1:-1].tolist()
            for end in (self.sigma_w2, self.sigma_b2)
        ]
        size = {"depth": self.depth, "width": self.width}
        return measured_phase(self.activation, *inside, key=key(self.seed), **size)


def _points(name: str, sigma_b2: float) -> str:
    """Return the critical points of an activation in words."""
    points = meanfield.critical(name, sigma_b2)
    kinds = {True: "stable", False: "unstable: signals leave it"}
    lines = [
        f"critical at sigma_b² = {sigma_b2:g}: sigma_w² = {point.sigma_w2:.8g}, "
        f"q = {point.q:.6g} ({kinds[point.stable]})"
        for point in points
    ]
    return "\n".join(lines or [f"no critical point: {points.reason}"])
