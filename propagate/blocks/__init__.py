"""Layer families, one file each: `apply` maps a layer's weights and input to its output."""

from propagate.blocks import mlp as mlp

BLOCKS = {"mlp": mlp.apply}
