"""Three small classifiers, each described once, with weights that torch and JAX share.

A network is a tuple of layers; names are torch module names and JAX name scopes alike. `plain`
turns one into a function of images; `frameworks.py` builds the same ones in Flax, Equinox and
Haiku; `reference/make_peers.py` builds them in torch and writes the weights, the images and what
other libraries make of them.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import DTypeLike
from peers import peer

Padding: TypeAlias = tuple[tuple[int, int], tuple[int, int]]  # ((top, bottom), (left, right))
Params: TypeAlias = dict[str, Array]
"""Weights by torch's name (`layer1.conv1.weight`), convolutions OIHW, dense layers OI."""


class Conv(NamedTuple):
    name: str
    inputs: int
    features: int
    kernel: int = 3
    stride: int = 1
    padding: Padding = ((1, 1), (1, 1))
    groups: int = 1
    bias: bool = False


class BatchNorm(NamedTuple):
    """Inference only, epsilon 1e-5."""

    name: str
    features: int


class Dense(NamedTuple):
    name: str
    inputs: int
    features: int


class Relu(NamedTuple):
    name: str


class Relu6(NamedTuple):
    name: str


class MaxPool(NamedTuple):
    name: str
    size: int = 2
    stride: int = 2
    padding: int = 0


class AvgPool(NamedTuple):
    name: str
    size: int = 2


class Mean(NamedTuple):
    """Global average pool."""

    name: str


class Flatten(NamedTuple):
    """In torch's order: channels, rows, columns."""

    name: str


class Residual(NamedTuple):
    """`after(main(x) + shortcut(x))`."""

    name: str
    main: "Net"
    shortcut: "Net" = ()
    after: "Net" = ()


Layer: TypeAlias = (
    Conv | BatchNorm | Dense | Relu | Relu6 | MaxPool | AvgPool | Mean | Flatten | Residual
)
Net: TypeAlias = tuple[Layer, ...]

NETS: dict[str, Net] = {
    "vgg": (
        Conv("conv1", 3, 8, bias=True),
        Relu("relu1"),
        Conv("conv2", 8, 12, bias=True),
        Relu("relu2"),
        MaxPool("pool1"),
        Conv("conv3", 12, 16, stride=2, bias=True),
        Relu("relu3"),
        Flatten("flatten"),
        Dense("fc1", 16 * 4 * 5, 20),
        Relu("relu4"),
        Dense("fc2", 20, 6),
    ),
    "resnet": (
        Conv("conv1", 3, 8),
        BatchNorm("bn1", 8),
        Relu("relu"),
        MaxPool("maxpool", 3, 2, 1),
        Residual(
            "layer1",
            main=(
                Conv("conv1", 8, 8),
                BatchNorm("bn1", 8),
                Relu("relu1"),
                Conv("conv2", 8, 8),
                BatchNorm("bn2", 8),
            ),
            after=(Relu("relu2"),),
        ),
        Residual(
            "layer2",
            main=(
                Conv("conv1", 8, 12, stride=2),
                BatchNorm("bn1", 12),
                Relu("relu1"),
                Conv("conv2", 12, 12),
                BatchNorm("bn2", 12),
            ),
            shortcut=(
                Conv("downsample_conv", 8, 12, kernel=1, stride=2, padding=((0, 0), (0, 0))),
                BatchNorm("downsample_bn", 12),
            ),
            after=(Relu("relu2"),),
        ),
        Mean("avgpool"),
        Dense("fc", 12, 7),
    ),
    "lite": (
        Conv("stem", 3, 8, stride=2, padding=((0, 1), (0, 1))),
        BatchNorm("bn0", 8),
        Relu6("act0"),
        Residual(
            "block1",
            main=(
                Conv("depthwise", 8, 8, groups=8),
                BatchNorm("bn1", 8),
                Relu6("act1"),
                Conv("project", 8, 8, kernel=1, padding=((0, 0), (0, 0))),
                BatchNorm("bn2", 8),
            ),
        ),
        Conv("expand", 8, 16, kernel=1, padding=((0, 0), (0, 0))),
        BatchNorm("bn1", 16),
        Relu6("act1"),
        Conv("depthwise", 16, 16, stride=2, padding=((0, 1), (1, 1)), groups=16),
        BatchNorm("bn2", 16),
        Relu6("act2"),
        Conv("head", 16, 20, kernel=1, padding=((0, 0), (0, 0))),
        BatchNorm("bn3", 20),
        Relu6("act3"),
        AvgPool("avgpool"),
        Flatten("flatten"),
        Dense("fc", 20 * 2 * 2, 5),
    ),
}
STACK: Net = (
    Conv("conv1", 3, 6, bias=True),
    Relu("relu1"),
    Conv("conv2", 6, 8, kernel=1, padding=((0, 0), (0, 0)), bias=True),
    Relu("relu2"),
    MaxPool("pool1"),
    Conv("conv3", 8, 8, bias=True),
    Relu("relu3"),
    Conv("conv4", 8, 10, bias=True),
    Relu("relu4"),
    MaxPool("pool2"),
    Flatten("flatten"),
    Dense("fc1", 10 * 4 * 3, 16),
    Relu("relu5"),
    Dense("fc2", 16, 6),
)
"""A VGG with a 1x1 convolution, for images of 16 by 12; `reference/make_relative.py` draws it."""
TINY: Net = (
    Conv("conv1", 3, 4, bias=True),
    Relu("relu1"),
    MaxPool("pool1"),
    Conv("conv2", 4, 5, bias=True),
    Relu("relu2"),
    Flatten("flatten"),
    Dense("fc1", 5 * 4 * 5, 8),
    Relu("relu3"),
    Dense("fc2", 8, 6),
)
"""A VGG for images of 8 by 10, for what is asked of every method; `drawn` draws it."""
SHAPES = {"vgg": (3, 16, 18, 3), "resnet": (3, 20, 18, 3), "lite": (3, 16, 18, 3)}

Activation: TypeAlias = Callable[[Array], Array]
RELUS: dict[str, Activation] = {
    "jax.nn.relu": jax.nn.relu,
    "jit(relu)": lambda z: jax.jit(jax.nn.relu)(z),
    "maximum(z, 0)": lambda z: jnp.maximum(z, 0),
    "maximum(0, z)": lambda z: jnp.maximum(0, z),
    "clip(z, 0)": lambda z: jnp.clip(z, 0),
    "where(z > 0, z, 0)": lambda z: jnp.where(z > 0, z, 0),
    "z * (z > 0)": lambda z: z * (z > 0),
    "lax.max": lambda z: lax.max(z, jnp.zeros_like(z)),
}
RELU6S: dict[str, Activation] = {
    "jax.nn.relu6": jax.nn.relu6,
    "clip(z, 0, 6)": lambda z: jnp.clip(z, 0, 6),
    "minimum(maximum(z, 0), 6)": lambda z: jnp.minimum(jnp.maximum(z, 0), 6),
}


class Case(NamedTuple):
    """A network of `NETS` with its weights, a batch of images and a class for each."""

    net: Net
    params: Params
    x: Array  # (3, H, W, 3), both signs
    target: Array  # (3,)


def drawn() -> dict[str, np.ndarray]:
    """Draw weights, images and classes for `TINY`, as `peer` reads those of the others."""
    rng = np.random.default_rng(1)
    draw = lambda *shape: rng.normal(size=shape) * (2 / np.prod(shape[1:])) ** 0.5
    arrays = {"x": rng.normal(size=(3, 8, 10, 3)), "target": np.array([0, 2, 4])}
    for layer in TINY:
        if isinstance(layer, Conv | Dense):
            window = (3, 3) if isinstance(layer, Conv) else ()
            arrays[f"net.{layer.name}.weight"] = draw(layer.features, layer.inputs, *window)
            arrays[f"net.{layer.name}.bias"] = draw(layer.features) / 2
    return arrays


def load(name: str, dtype: DTypeLike = jnp.float32) -> Case:
    """Read the network `name`; its weights are exact in float32 and in float64."""
    arrays = drawn() if name == "tiny" else peer(name)
    params = {
        key.removeprefix("net."): jnp.asarray(value, dtype)
        for key, value in arrays.items()
        if key.startswith("net.")
    }
    return Case(
        {**NETS, "tiny": TINY}[name],
        params,
        jnp.asarray(arrays["x"], dtype),
        jnp.asarray(arrays["target"]),
    )


def plain(
    net: Net,
    params: Params,
    *,
    relu: Activation = jax.nn.relu,
    relu6: Activation = jax.nn.relu6,
) -> Callable[[Array], Array]:
    """Write the network as a plain function of images `(B, H, W, C)`."""

    def call(layer: Layer, x: Array, path: str = "") -> Array:
        with jax.named_scope(layer.name):
            here = path + layer.name + "."
            match layer:
                case Conv(padding=padding, stride=stride, groups=groups):
                    x = lax.conv_general_dilated(
                        x,
                        params[here + "weight"].transpose(2, 3, 1, 0),
                        (stride, stride),
                        padding,
                        dimension_numbers=("NHWC", "HWIO", "NHWC"),
                        feature_group_count=groups,
                    )
                    return x + params[here + "bias"] if layer.bias else x
                case BatchNorm():
                    mean, var = params[here + "running_mean"], params[here + "running_var"]
                    scale = params[here + "weight"] * lax.rsqrt(var + 1e-5)
                    return (x - mean) * scale + params[here + "bias"]
                case Dense():
                    return x @ params[here + "weight"].T + params[here + "bias"]
                case Residual():
                    return residual(layer, x, partial(call, path=here))
                case _:
                    return parameter_free(layer, x, relu, relu6)

    return partial(run, net, call=call)


def run(net: Sequence[Layer], x: Array, call: Callable[[Layer, Array], Array]) -> Array:
    """Call the layers one after the other."""
    for layer in net:
        x = call(layer, x)
    return x


def residual(layer: Residual, x: Array, call: Callable[[Layer, Array], Array]) -> Array:
    """Run a residual block."""
    return run(layer.after, run(layer.main, x, call) + run(layer.shortcut, x, call), call)


def parameter_free(
    layer: Layer, x: Array, relu: Activation = jax.nn.relu, relu6: Activation = jax.nn.relu6
) -> Array:
    """Run a layer that has no weights, on `(B, H, W, C)`."""
    match layer:
        case Relu():
            return relu(x)
        case Relu6():
            return relu6(x)
        case MaxPool(size=size, stride=stride, padding=pad):
            window, strides = (1, size, size, 1), (1, stride, stride, 1)
            padding = ((0, 0), (pad, pad), (pad, pad), (0, 0))
            return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, padding)
        case AvgPool(size=size):
            window = (1, size, size, 1)
            return lax.reduce_window(x, 0.0, lax.add, window, window, "VALID") / size**2
        case Mean():
            return x.mean((1, 2))
        case Flatten():
            return x.transpose(0, 3, 1, 2).reshape(len(x), -1)
        case _:
            raise TypeError(f"{type(layer).__name__} {layer.name!r} has weights")
