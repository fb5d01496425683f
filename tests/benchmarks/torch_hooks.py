"""Set what hooks see in PyTorch beside what `diagnose` sees, with weights that are brought over.

    pip install torch && python tests/benchmarks/torch_hooks.py

A stack of 20 linear layers and one of 8 convolutions, with ReLU and PyTorch's default weights. Both
sides have the same weights, inputs and cotangent; a difference is one of log10 of a second moment.
"""

import argparse
import platform
from collections.abc import Callable
from typing import Any

import history
import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import nn

import propagate as pp


def hooked(layers: list[Any], x: torch.Tensor, cotangent: torch.Tensor) -> np.ndarray:
    """Return log10 of the second moments of outputs and of their gradients, (layer, 2)."""
    seen: dict[Any, list[torch.Tensor]] = {}
    for layer in layers:
        layer.register_forward_hook(
            lambda module, into, out: seen.update({module: [out.detach().square().mean()]})
        )
        layer.register_full_backward_hook(
            lambda module, into, out: seen[module].append(out[0].square().mean())
        )
    net = nn.Sequential(*(module for layer in layers for module in (layer, nn.ReLU())))
    net(x).backward(cotangent)
    return np.log10([[float(number) for number in seen[layer]] for layer in layers])


def diagnosed(product: Callable[..., Any], params: Any, x: Any, cotangent: Any) -> np.ndarray:
    """Return the same of the same network in JAX."""

    def model(params: Any, x: Any) -> Any:
        for layer in params:
            x = jax.nn.relu(product(x, layer["w"]) + layer["b"])
        return x

    key, loss = jax.random.key(0), lambda out, labels: jnp.sum(out * labels)
    record = pp.diagnose(model, params, x, key=key, loss=loss, labels=cotangent).record
    record = record.isel(site=np.isin(record.kind, ("matmul", "conv")))
    return np.stack([record.log10_forward_q, record.log10_backward_q], -1)


def convolution(x: Any, w: Any) -> Any:
    """Return a 3 × 3 convolution of images (batch, height, width, channels)."""
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=numbers)


def difference(layers: list[Any], shape: tuple[int, ...], product: Callable[..., Any]) -> float:
    """Return the largest difference between the two, in decades."""
    x, cotangent = torch.randn(shape, requires_grad=True), torch.randn(shape)
    kernel, images = ((1, 0), (0, 1)) if len(shape) == 2 else ((2, 3, 1, 0), (0, 2, 3, 1))
    params = [
        {
            "w": jnp.array(np.transpose(layer.weight.detach().numpy(), kernel)),
            "b": jnp.array(layer.bias.detach().numpy()),
        }
        for layer in layers
    ]
    ours = (jnp.array(np.transpose(value.detach().numpy(), images)) for value in (x, cotangent))
    return float(np.abs(hooked(layers, x, cotangent) - diagnosed(product, params, *ours)).max())


def main() -> None:
    """Print the differences."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    torch.manual_seed(0)
    dense = [nn.Linear(64, 64) for _ in range(20)]
    conv = [nn.Conv2d(16, 16, 3, padding=1) for _ in range(8)]
    numbers = {
        "20 linear layers: decades": difference(dense, (128, 64), jnp.matmul),
        "8 convolutions: decades": difference(conv, (16, 16, 8, 8), convolution),
    }
    print(f"Python {platform.python_version()}, jax {jax.__version__}, torch {torch.__version__}")
    for name, number in numbers.items():
        print(f"{name:28}{number:10.1e}")
    history.append("torch_hooks", numbers)


if __name__ == "__main__":
    main()
