"""See how activation and gradient variance travel through deep networks.

    spec ──run──▶ record ──judge──▶ findings
      └──predict─▶ record ┘  └──plot / report / notebooks / CLI

Start with `Network`, `measure` and `sweep`, or with `diagnose` for a model of your own; read a
record with `judge` and `plot`, and see with `predict` what theory expects.
"""

import importlib
from types import ModuleType

from propagate import blocks as blocks
from propagate import operations as operations
from propagate._jax_compat import tag as tag
from propagate.activations import ACTIVATIONS as ACTIVATIONS
from propagate.activations import Activation as Activation
from propagate.batch_norm import batch_norm_rate as batch_norm_rate
from propagate.coordinate_check import CoordinateCheck as CoordinateCheck
from propagate.coordinate_check import coordinate_check as coordinate_check
from propagate.diagnosis import Diagnosis as Diagnosis
from propagate.diagnosis import diagnose as diagnose
from propagate.findings import Finding as Finding
from propagate.findings import Findings as Findings
from propagate.findings import Verdict as Verdict
from propagate.initializers import INITIALIZERS as INITIALIZERS
from propagate.initializers import Initializer as Initializer
from propagate.meanfield import CriticalPoint as CriticalPoint
from propagate.meanfield import FixedPoint as FixedPoint
from propagate.meanfield import Gain as Gain
from propagate.meanfield import critical as critical
from propagate.meanfield import fixed_points as fixed_points
from propagate.meanfield import gain as gain
from propagate.network import Network as Network
from propagate.overlay import departures as departures
from propagate.phase import phase as phase
from propagate.predict import predict as predict
from propagate.probing import value_and_grad as value_and_grad
from propagate.record import load as load
from propagate.record import save as save
from propagate.sweep import Interrupted as Interrupted
from propagate.sweep import measure as measure
from propagate.sweep import sweep as sweep
from propagate.trace import Trace as Trace
from propagate.types import PropagateError as PropagateError
from propagate.types import UnusableInput as UnusableInput
from propagate.verdict import judge as judge


def __getattr__(name: str) -> ModuleType:
    """Import a public module when it is first asked for: matplotlib is slow to load."""
    if name in ("plot", "jacobian", "passage"):
        return importlib.import_module(f"propagate.{name}")
    raise AttributeError(f"module 'propagate' has no attribute {name!r}")
