"""Pictures of a record and of findings: growth curves, maps of verdicts, histograms, spectra.

Every function draws on the axis that is passed in, or on a figure of its own that no global
state knows of: keep it with `ax.figure.savefig(…)`. Scales are in decades (log10).
"""

from propagate.plot.by_layer.exponents import exponents as exponents
from propagate.plot.by_layer.residual_stream import signal_propagation as signal_propagation
from propagate.plot.by_layer.ridges import ridge as ridge
from propagate.plot.growth_curves import curves as curves
from propagate.plot.growth_curves import variance as variance
from propagate.plot.heat_map import heatmap as heatmap
from propagate.plot.heat_map import heatmaps as heatmaps
from propagate.plot.histogram import histograms as histograms
from propagate.plot.jacobian_spectrum import spectrum as spectrum
from propagate.plot.marks import mark_findings as mark_findings
from propagate.plot.phase_diagram import phase as phase
from propagate.plot.repair_curves import before_after as before_after
from propagate.plot.style import COLOURS as COLOURS
from propagate.plot.while_training.film import training_film as training_film
from propagate.plot.while_training.learning import learning_curves as learning_curves
from propagate.plot.width_curves import coordinate_check as coordinate_check
