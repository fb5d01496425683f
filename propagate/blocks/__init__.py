"""Layer families: one file each, an `apply` that maps a layer's parameters and input to its output."""

from propagate.blocks import mlp as mlp

BLOCKS = {"mlp": mlp.apply}
