"""See how activation and gradient variance travel through deep networks.

    spec ──run──▶ record ──judge──▶ findings
      └──predict─▶ record ┘  └──plot / report / notebooks / CLI

Start with `Network`, `measure` and `sweep`, or with `diagnose` for a model of your own; read a
record with `judge` and `plot`, and see with `predict` what theory expects.
"""

import importlib
from types import ModuleType

from propagate import _interrupts as _interrupts  # before what takes long to load

# a model of the user's, to a record
from propagate._jax_compat import tag as tag

# what is specified
from propagate.activations import ACTIVATIONS as ACTIVATIONS
from propagate.activations import Activation as Activation
from propagate.batches import Batch as Batch

# findings, to changes
from propagate.cure.advice import advise as advise
from propagate.cure.remedies import Advice as Advice
from propagate.cure.remedies import Change as Change

# a model at fault, to one that is not
from propagate.cure.repair import Repair as Repair
from propagate.cure.repair import repair as repair
from propagate.initializers import INITIALIZERS as INITIALIZERS
from propagate.initializers import Initializer as Initializer
from propagate.models.diagnose import Diagnosis as Diagnosis
from propagate.models.diagnose import diagnose as diagnose
from propagate.models.module_gradients import value_and_grad as value_and_grad
from propagate.network import Network as Network
from propagate.record.storage import load as load
from propagate.record.storage import save as save

# it is run, to a record
from propagate.run.sweep import Interrupted as Interrupted
from propagate.run.sweep import measure as measure
from propagate.run.sweep import sweep as sweep

# theory, to a record
from propagate.theory.batch_norm import batch_norm_rate as batch_norm_rate
from propagate.theory.criticality import CriticalPoint as CriticalPoint
from propagate.theory.criticality import Gain as Gain
from propagate.theory.criticality import critical as critical
from propagate.theory.criticality import gain as gain
from propagate.theory.criticality import half_stable as half_stable
from propagate.theory.fixed_points import FixedPoint as FixedPoint
from propagate.theory.fixed_points import fixed_points as fixed_points
from propagate.theory.fixed_points import saddle_nodes as saddle_nodes
from propagate.theory.phase_diagram import phase as phase
from propagate.theory.predict import predict as predict
from propagate.tracing.trace import Trace as Trace
from propagate.training.coordinate_check import CoordinateCheck as CoordinateCheck
from propagate.training.coordinate_check import coordinate_check as coordinate_check
from propagate.training.train import train as train
from propagate.training.trained import Trained as Trained

# what is raised
from propagate.types import PropagateError as PropagateError
from propagate.types import UnusableInput as UnusableInput

# a record, to verdicts
from propagate.verdicts.departures import departures as departures
from propagate.verdicts.findings import Finding as Finding
from propagate.verdicts.findings import Findings as Findings
from propagate.verdicts.findings import Verdict as Verdict
from propagate.verdicts.judge import judge as judge
from propagate.verdicts.outcomes import Outcome as Outcome

LAZY = {
    "blocks": "propagate.blocks",
    "jacobian": "propagate.run.jacobian",
    "operations": "propagate.theory.operations",
    "passage": "propagate.theory.layer_maps",
    "plot": "propagate.plot",
}
"""Public modules, imported when they are first asked for: some are slow to load."""


def __getattr__(name: str) -> ModuleType:
    if name in LAZY:
        return importlib.import_module(LAZY[name])
    raise AttributeError(f"module 'propagate' has no attribute {name!r}")
