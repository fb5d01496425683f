"""`propagate phase`."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from propagate import checks
from propagate.cli import output_folder
from propagate.cli.output_folder import save_picture
from propagate.cli.terminal import key, refuse_idle, say, show
from propagate.record import storage
from propagate.report.theory_table import critical_points
from propagate.run.measured_plane import measured_phase
from propagate.theory.phase_diagram import check_size, phase

MOST_MEASURED = 64  # along each axis: 4096 networks


@dataclass(frozen=True)
class Phase:
    """Draw the phase diagram of an activation over (sigma_w², sigma_b²).

    The picture shows the growth of gradients and the edge of chaos. The command prints the critical
    points and writes phase.png and phase.nc.
    """

    activation: str = "tanh"
    """Activation: a name of `propagate list`."""
    sigma_w2: tuple[float, float] = (0.0, 4.0)
    """Ends of the axis of sigma_w², the variance of weights times fan_in."""
    sigma_b2: tuple[float, float] = (0.0, 0.5)
    """Ends of the axis of sigma_b², the variance of biases."""
    points: tuple[int, int] = (300, 250)
    """Number of values of sigma_w² and of sigma_b²."""
    measured: int = 0
    """Number of networks, along each axis, to measure and draw on top."""
    depth: int = 30
    """Layers of a measured network."""
    width: int = 256
    """Units per layer of a measured network."""
    seed: int = 0
    """Seed of the measurement."""
    out: Path = Path("propagate-out")
    """Folder for the picture and the numbers."""

    def __call__(self) -> int:
        """Run; return the exit code."""
        from propagate import plot  # matplotlib is slow to load

        self._check()
        output_folder.writable(self.out)
        ends = self.sigma_w2, self.sigma_b2
        axes = [np.linspace(*end, n) for end, n in zip(ends, self.points, strict=True)]
        plane = phase(self.activation, *axes)
        ax = plot.phase(plane, measured=self._measured() if self.measured else ())
        say(f"wrote {storage.save(plane, self.out / 'phase.nc')}")
        say(f"wrote {save_picture(ax, self.out / 'phase.png')}")
        for sigma_b2 in np.linspace(*self.sigma_b2, 6):
            show(critical_points(self.activation, float(sigma_b2)))
        return 0

    def _check(self) -> None:
        """Refuse what cannot be drawn, or would be ignored, before anything is written."""
        for count in self.points:
            checks.check_count("each number of --points", count, least=2)
        check_size(*self.points)
        checks.check_count("--measured", self.measured, least=0)
        checks.check_at_most(
            "--measured, of which the square is the number of networks,",
            self.measured,
            MOST_MEASURED,
        )
        if not self.measured:
            refuse_idle(self, ["depth", "width", "seed"], "without --measured")

    def _measured(self) -> list[tuple[float, float, float]]:
        """Return the gradient's rate in the settled layers of networks on a coarse grid."""
        inside = [
            np.linspace(*end, self.measured + 2)[1:-1].tolist()
            for end in (self.sigma_w2, self.sigma_b2)
        ]
        size = {"depth": self.depth, "width": self.width}
        return measured_phase(self.activation, *inside, key=key(self.seed), **size)
