"""Single operations: what each does to a signal's moments and to a gradient's second moment.

An `Operation` takes a `Signal` to the next (`forward`) and says by how much a gradient's second
moment changes on the way back (`backward`). Each is exact at any width where no approximation is
named in its docstring.
"""

from propagate.theory.operations.norms import LayerNorm as LayerNorm
from propagate.theory.operations.norms import RMSNorm as RMSNorm
from propagate.theory.operations.rules import Attention as Attention
from propagate.theory.operations.rules import Dropout as Dropout
from propagate.theory.operations.rules import Linear as Linear
from propagate.theory.operations.rules import Nonlinearity as Nonlinearity
from propagate.theory.operations.rules import Softmax as Softmax
from propagate.theory.operations.signal import Operation as Operation
from propagate.theory.operations.signal import Signal as Signal
