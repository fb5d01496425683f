"""See how activation and gradient variance travel through deep networks.

    spec ──run──▶ record ──judge──▶ findings
                    └──plot / report / notebooks / CLI

Start with `Network`, `measure` and `sweep`; read a record with `judge` and `plot`.
"""

from propagate.activations import ACTIVATIONS as ACTIVATIONS
from propagate.activations import Activation as Activation
from propagate.initializers import INITIALIZERS as INITIALIZERS
from propagate.initializers import Initializer as Initializer
from propagate.network import Network as Network
from propagate.record import load as load
from propagate.record import save as save
from propagate.sweep import measure as measure
from propagate.sweep import sweep as sweep
