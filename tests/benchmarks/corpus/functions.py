"""Healthy models in plain functions: networks of papers that no framework has ready.

Every builder returns `(model, inputs, options)`, as in `keras_and_haiku`.
"""

import jax
import jax.numpy as jnp

from corpus import data
from corpus.equinox_and_functions import GLOROT, HE, LECUN, mlp, rms_norm, stacked

MODELS = {}


def example(build):
    """Register a builder under its name; it takes an endless stream of keys."""
    name = f"function {build.__name__.replace('_', ' ')}"
    MODELS[name] = lambda: build(iter(jax.random.split(data.KEY, 200)))
    return build


@example
def He_classifier(keys):
    params = stacked(keys, [64, *[256] * 6, 10], HE)
    return mlp, (params, data.vectors(64, 128)), data.classified(128)


@example
def deep_He_net(keys):
    params = stacked(keys, [128] * 31, HE)
    return mlp, (params, data.vectors(128)), {}


@example
def PINN(keys):
    """Raissi et al., 2019: Glorot, tanh, Poisson's equation inside and zero on the boundary."""
    params = stacked(keys, [2, *[50] * 6, 1], GLOROT)

    def model(params, x):
        u = lambda x: mlp(params, x, jnp.tanh)[0]  # noqa: E731
        inside = jax.vmap(lambda x: jnp.trace(jax.hessian(u)(x)) + jnp.sin(3.14 * x[0]))(x)
        return inside, jax.vmap(u)(x.at[:, 0].set(jnp.sign(x[:, 0])))

    loss = lambda out, _: jnp.mean(out[0] ** 2) + jnp.mean(out[1] ** 2)  # noqa: E731
    return model, (params, data.points(2)), {"loss": loss}


@example
def SIREN(keys):
    """Sitzmann et al., 2020 (arXiv:2006.09661): sin(30 W x)."""
    sizes = [2, 128, 128, 128, 128, 3]
    params = stacked(keys, sizes, LECUN)
    for k, (n, p) in enumerate(zip(sizes, params, strict=False)):
        bound = 1 / n if k == 0 else (6 / n) ** 0.5 / 30
        p["w"] = jax.random.uniform(next(keys), p["w"].shape, minval=-bound, maxval=bound)
        p["b"] = jax.random.uniform(next(keys), p["b"].shape, minval=-1, maxval=1) / n**0.5
    return lambda p, x: mlp(p, x, lambda h: jnp.sin(30.0 * h)), (params, data.points(2)), {}


@example
def NeRF(keys):
    """Mildenhall et al., 2020: encoding of positions, 8 layers, a skip in the middle."""
    params = stacked(keys, [63, *[128] * 4], GLOROT), stacked(keys, [191, *[128] * 4, 4], GLOROT)

    def model(params, x):
        angle = x[..., None] * 2.0 ** jnp.arange(10)
        angle = angle.reshape(len(x), -1)
        x = jnp.concatenate([x, jnp.sin(angle), jnp.cos(angle)], -1)
        h = jax.nn.relu(mlp(params[0], x))
        out = mlp(params[1], jnp.concatenate([x, h], -1))
        return jax.nn.sigmoid(out[:, :3]), jax.nn.relu(out[:, 3])

    return model, (params, data.points(3)), {}


@example
def DeepONet(keys):
    """Lu et al., 2021: branch and trunk, whose outputs are multiplied."""
    params = stacked(keys, [100, 40, 40], GLOROT), stacked(keys, [1, 40, 40], GLOROT)

    def model(params, u, y):
        return jnp.sum(mlp(params[0], u) * jax.nn.relu(mlp(params[1], y)), -1)

    return model, (params, data.sequences(100, 1, 64)[..., 0], data.points(1)), {}


@example
def self_normalising_net(keys):
    """Klambauer et al., 2017: LeCun and SELU."""
    params = stacked(keys, [64, *[128] * 16, 10], LECUN)
    return lambda p, x: mlp(p, x, jax.nn.selu), (params, data.vectors(64)), data.classified(64)


@example
def denoising_autoencoder(keys):
    params = stacked(keys, [784, 256, 64, 16, 64, 256, 784], HE)
    x = data.digits(batch=64).reshape(64, -1)
    return mlp, (params, x), {"loss": data.binary_cross_entropy, "labels": x}


@example
def ReZero(keys):
    """Bachlechner et al., 2020 (arXiv:2003.04887): branches start at zero."""
    params = [{"a": jnp.zeros(()), "w": HE(next(keys), (64, 64))} for _ in range(12)]

    def model(params, x):
        for p in params:
            x = x + p["a"] * jax.nn.relu(x @ p["w"])
        return x

    return model, (params, data.vectors(64)), {}


@example
def LoRA(keys):
    """Hu et al., 2021 (arXiv:2106.09685): B is zero; the weights that it is added to are frozen."""
    frozen = [HE(next(keys), (64, 64)) for _ in range(6)]
    params = [{"A": HE(next(keys), (64, 4)), "B": jnp.zeros((4, 64))} for _ in frozen]

    def model(params, x):
        for w, p in zip(frozen, params, strict=True):
            x = jax.nn.relu(x @ w + x @ p["A"] @ p["B"])
        return x

    return model, (params, data.vectors(64)), {}


def graph(layer, name, width=32, depth=2):
    def build(keys):
        params = [
            layer[0](keys, *sizes) for sizes in [(16, width), *[(width, width)] * (depth - 1)]
        ]
        out, a = GLOROT(next(keys), (width, 7)), data.ring_graph()

        def model(params, x):
            layers, out = params
            for p in layers:
                x = jax.nn.relu(layer[1](p, a, x))
            return x @ out

        return model, ((params, out), data.vectors(16, 32)), data.classified(32, 7)

    build.__name__ = name
    return example(build)


def _gcn(p, a, x):
    """Kipf & Welling, 2017 (arXiv:1609.02907)."""
    own = a + jnp.eye(len(a))
    norm = jax.lax.rsqrt(own.sum(1))
    return (norm[:, None] * own * norm) @ (x @ p["w"]) + p["b"]


def _gat(p, a, x):
    """Veličković et al., 2018 (arXiv:1710.10903): four heads."""
    h = (x @ p["w"]).reshape(len(x), 4, -1)
    left, right = (h * p["left"]).sum(-1), (h * p["right"]).sum(-1)
    scores = jax.nn.leaky_relu(left[:, None] + right[None], 0.2)
    scores = jnp.where((a + jnp.eye(len(a)))[..., None] > 0, scores, -1e9)
    return jnp.einsum("ijh,jhf->ihf", jax.nn.softmax(scores, 1), h).reshape(len(x), -1)


def _gin(p, a, x):
    """Xu et al., 2019 (arXiv:1810.00826)."""
    return mlp(p["mlp"], (1 + p["eps"]) * x + a @ x)


def _one(keys, n, m):
    return stacked(keys, [n, m], GLOROT)[0]


def _heads(keys, n, m):
    pair = {side: GLOROT(next(keys), (4, m // 4)) for side in ("left", "right")}
    return {"w": GLOROT(next(keys), (n, m)), **pair}


def _two(keys, n, m):
    return {"mlp": stacked(keys, [n, m, m], GLOROT), "eps": jnp.zeros(())}


graph((_one, _gcn), "GCN")
graph((_one, _gcn), "GCN_of_3_layers", depth=3)
graph((_heads, _gat), "GAT")
graph((_two, _gin), "GIN", depth=3)


@example
def RealNVP(keys):
    """Dinh et al., 2017 (arXiv:1605.08803): 8 affine couplings, log-likelihood."""
    params = [stacked(keys, [8, 64, 64, 16], GLOROT) for _ in range(8)]

    def model(params, x):
        log_det = 0.0
        for p in params:
            u, v = jnp.split(x, 2, -1)
            s, t = jnp.split(mlp(p, u), 2, -1)
            s = jnp.tanh(s)
            x, log_det = jnp.concatenate([v * jnp.exp(s) + t, u], -1), log_det + s.sum(-1)
        return log_det - 0.5 * jnp.sum(x**2, -1)

    return model, (params, data.vectors(16)), {"loss": lambda out, _: -out.mean()}


def selective_scan(p, x):
    """Mamba's state-space layer (Gu & Dao, 2023, arXiv:2312.00752, algorithm 2)."""
    rank, a = p["dt"].shape[0], -jnp.exp(p["a_log"])
    low, b, c = jnp.split(x @ p["x"], [rank, rank + a.shape[1]], -1)
    dt = jax.nn.softplus(low @ p["dt"] + p["dt_bias"])

    def step(h, at):
        x, dt, b, c = at
        h = jnp.exp(dt[..., None] * a) * h + (dt * x)[..., None] * b[:, None]
        return h, jnp.sum(h * c[:, None], -1)

    start = jnp.zeros((len(x), *a.shape))
    _, y = jax.lax.scan(step, start, tuple(v.swapaxes(0, 1) for v in (x, dt, b, c)))
    return y.swapaxes(0, 1) + x * p["d"]


@example
def Mamba(keys):
    def block():
        dt = jnp.exp(jax.random.uniform(next(keys), (128,), minval=-6.9, maxval=-2.3))
        return {
            "in": LECUN(next(keys), (64, 256)),
            "conv": jax.random.uniform(next(keys), (4, 1, 128), minval=-0.5, maxval=0.5),
            "x": LECUN(next(keys), (128, 4 + 32)),
            "dt": jax.random.uniform(next(keys), (4, 128), minval=-0.5, maxval=0.5),
            "dt_bias": jnp.log(jnp.expm1(dt)),
            "a_log": jnp.log(jnp.broadcast_to(jnp.arange(1.0, 17.0), (128, 16))),
            "d": jnp.ones(128),
            "out": LECUN(next(keys), (128, 64)) / 2**0.5,
        }

    def model(params, words):
        x = params["embed"][words]
        for p in params["blocks"]:
            h, gate = jnp.split(rms_norm(x) @ p["in"], 2, -1)
            dims = ("NHC", "HIO", "NHC")
            h = jax.lax.conv_general_dilated(
                h, p["conv"], (1,), [(3, 0)], dimension_numbers=dims, feature_group_count=128
            )
            x = x + (selective_scan(p, jax.nn.silu(h)) * jax.nn.silu(gate)) @ p["out"]
        return rms_norm(x) @ params["embed"].T

    embed = 0.02 * jax.random.normal(next(keys), (64, 64))
    params = {"embed": embed, "blocks": [block() for _ in range(2)]}
    return model, (params, data.tokens()), data.next_token()


@example
def mixture_of_experts(keys):
    """Switch Transformer's layer, top 1 of 4 (Fedus et al., 2021, arXiv:2101.03961)."""

    def block():
        up = [LECUN(next(keys), (64, 128)) for _ in range(4)]
        experts = [{"up": w, "down": LECUN(next(keys), (128, 64))} for w in up]
        return {"router": LECUN(next(keys), (64, 4)), "experts": experts}

    def model(params, x):
        for p in params:
            h = rms_norm(x)
            gates = jax.nn.softmax(h @ p["router"])
            gates = gates * jax.nn.one_hot(gates.argmax(-1), 4)
            each = [jax.nn.relu(h @ e["up"]) @ e["down"] for e in p["experts"]]
            x = x + sum(gates[..., i, None] * y for i, y in enumerate(each))
        return x

    return model, ([block() for _ in range(3)], data.vectors(64)), {}


@example
def temporal_convolutions(keys):
    """WaveNet's gated dilated stack (van den Oord et al., 2016, arXiv:1609.03499)."""
    shapes = {"f": (2, 32, 64), "o": (32, 32)}
    params = [{n: GLOROT(next(keys), shape) for n, shape in shapes.items()} for _ in range(6)]

    def model(params, x):
        total = 0.0
        for k, p in enumerate(params):
            h = jax.lax.conv_general_dilated(
                x, p["f"], (1,), [(2**k, 0)], rhs_dilation=(2**k,),
                dimension_numbers=("NHC", "HIO", "NHC"),
            )  # fmt: skip
            a, b = jnp.split(h, 2, -1)
            h = jnp.tanh(a) * jax.nn.sigmoid(b) @ p["o"]
            x, total = x + h, total + h
        return jax.nn.relu(total)

    return model, (params, data.sequences(64, 32)), {}


@example
def PointNet(keys):
    """Qi et al., 2017, without its transforms: shared layers, maximum over points."""
    params = stacked(keys, [3, 64, 64, 128, 256], HE), stacked(keys, [256, 128, 10], HE)
    points = data.points(3, 8 * 32).reshape(8, 32, 3)
    model = lambda p, x: mlp(p[1], jax.nn.relu(mlp(p[0], x)).max(1))  # noqa: E731
    return model, (params, points), data.classified()


@example
def diagonal_state_space(keys):
    """A linear recurrent unit (Orvieto et al., 2023), real part: h' = a h + b x, GLU, residual."""

    def block():
        a = jax.random.uniform(next(keys), (64,), minval=0.9, maxval=0.999)
        return {"a": jnp.log(a), **{n: LECUN(next(keys), (64, 64)) for n in ("b", "c", "g")}}

    def model(params, x):
        for p in params:
            a = jnp.exp(p["a"])
            u = jnp.sqrt(1 - a**2) * (rms_norm(x) @ p["b"])
            step = lambda h, u, a=a: (a * h + u,) * 2  # noqa: E731
            _, y = jax.lax.scan(step, jnp.zeros_like(u[:, 0]), u.swapaxes(0, 1))
            y = jax.nn.gelu(y.swapaxes(0, 1) @ p["c"])
            x = x + y * jax.nn.sigmoid(y @ p["g"])
        return x

    return model, ([block() for _ in range(3)], data.sequences(32, 64)), {}


@example
def Gaussian_policy(keys):
    """PPO's continuous actor (Huang et al., 2022): orthogonal, tanh, last layer times 0.01."""
    init = jax.nn.initializers.orthogonal
    params = stacked(keys, [17, 64, 64, 6], init(2**0.5))
    params[-1]["w"] = init(0.01)(next(keys), (64, 6))
    return lambda p, x: mlp(p, x, jnp.tanh), (params, data.vectors(17)), {}
