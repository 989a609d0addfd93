"""What the models share: named calls, torch's pooling, and a classifier in three parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from math import prod
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxattr.types import Array, Key


def _he_normal(key: Key, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
    """Draw a kernel of variance `2 / inputs`.

    It keeps the size of the activations from layer to layer, so that a model with random weights
    gives logits of order one. NumPy draws the numbers from the key's bits: XLA would compile a
    program for every shape, which takes ten times as long.
    """

    def draw(bits: np.ndarray) -> np.ndarray:
        values = np.random.default_rng(np.asarray(bits)).standard_normal(shape, np.float32)
        return (values * (2 / prod(shape[:-1])) ** 0.5).astype(dtype)

    result = jax.ShapeDtypeStruct(tuple(shape), dtype)
    return jax.pure_callback(draw, result, jax.random.key_data(key))


def call(child: Callable[[Array], Array], name: str, x: Array) -> Array:
    """Apply `child` under the layer name `name`."""
    with jax.named_scope(name):
        return child(x)


def through(module: nnx.Module, x: Array, *names: str) -> Array:
    """Apply the children of `module` one after the other, each under its own name."""
    for name in names:
        x = call(getattr(module, name), name, x)
    return x


class Sequential(nnx.List):
    """Layers applied in order, named by their index: `features/28` is `model.features[28]`."""

    def __call__(self, x: Array) -> Array:
        """Apply every layer."""
        for index, child in enumerate(self):
            x = call(child, str(index), x)
        return x


class Named(nnx.Module):
    """Layers applied in order under names of their own: `features/norm0`."""

    def __init__(self, **layers: Callable[[Array], Array]):
        self.order = tuple(layers)
        for name, layer in layers.items():
            setattr(self, name, layer)

    def __call__(self, x: Array) -> Array:
        """Apply every layer."""
        return through(self, x, *self.order)


class Parts(NamedTuple):
    """The names of a classifier's children, in the order in which they are applied."""

    features: Sequence[str]
    pooling: Sequence[str]
    head: Sequence[str]


class TorchLayout(NamedTuple):
    """What a converter must know of a family's torch checkpoints.

    Attributes:
        last: The name of the last dense layer, whose width is the number of classes.
        rename: From a checkpoint's key to the model's, where they differ; empty for a key of what
            the model does without, such as a second classifier that training alone needs.
        flatten: The feature maps `(C, H, W)` that a dense layer takes, by the layer's name.
    """

    last: str
    rename: Callable[[str], str] | None = None
    flatten: Mapping[str, tuple[int, int, int]] | None = None


class Classifier(nnx.Module):
    """Images `(B, H, W, 3)` to logits `(B, classes)`: features, pooling, head.

    A model is built in evaluation mode and its call changes nothing: BatchNorm uses its stored
    statistics, and dropout, which does nothing there, is left out. Pass the model as an argument
    of the function you jit (`jax.jit(lambda model, x: model(x))`), so that its weights are no
    constants of the program.
    """

    parts: ClassVar[Parts]
    torch: ClassVar[TorchLayout]
    multi_label: ClassVar[bool] = False
    """Whether each class has a probability of its own, the sigmoid of its logit."""

    def __call__(self, x: Array) -> Array:
        """Return the logits of a batch of images."""
        if x.ndim != 4 or x.shape[-1] != 3 or not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(
                f"{type(self).__name__} takes normalized images (B, H, W, 3) of a floating type, "
                f"but got {x.dtype} {x.shape}: move the channels last, add the batch dimension, "
                "or apply the model's preprocess"
            )
        return through(self, x, *chain.from_iterable(self.parts))


def features(model: Classifier, x: Array) -> Array:
    """Return the last convolutional feature maps `(B, h, w, C)` of images `(B, H, W, 3)`."""
    return through(model, x, *model.parts.features)


def pooling(model: Classifier, x: Array) -> Array:
    """Pool feature maps `(B, h, w, C)` to the size the head takes."""
    return through(model, x, *model.parts.pooling)


def head(model: Classifier, x: Array) -> Array:
    """Return the logits `(B, classes)` of pooled features."""
    return through(model, x, *model.parts.head)


def conv(
    inputs: int,
    outputs: int,
    size: int | tuple[int, int],
    *,
    rngs: nnx.Rngs,
    stride: int = 1,
    groups: int = 1,
    bias: bool = False,
    padding: int | str | None = None,
) -> nnx.Conv:
    """Build a convolution, padded by half of its sides, `size // 2`, as torch's models are.

    `padding="SAME"` is TensorFlow's: at stride 2 the odd row and column go bottom and right.
    """
    sides = (size, size) if isinstance(size, int) else size
    return nnx.Conv(
        inputs,
        outputs,
        sides,
        strides=(stride, stride),
        padding=[(side // 2, side // 2) for side in sides] if padding is None else padding,
        feature_group_count=groups,
        use_bias=bias,
        kernel_init=_he_normal,
        rngs=rngs,
    )


def batch_norm(channels: int, *, rngs: nnx.Rngs, epsilon: float = 1e-5) -> nnx.BatchNorm:
    """Build a BatchNorm that uses its stored statistics."""
    return nnx.BatchNorm(channels, use_running_average=True, epsilon=epsilon, rngs=rngs)


def conv_norm(
    inputs: int,
    outputs: int,
    size: int,
    *,
    rngs: nnx.Rngs,
    stride: int = 1,
    groups: int = 1,
    epsilon: float = 1e-5,
    activation: Callable[[Array], Array] | None = nnx.relu,
) -> Sequential:
    """Build torchvision's `Conv2dNormActivation`: convolution, BatchNorm, activation if any."""
    layers = [
        conv(inputs, outputs, size, stride=stride, groups=groups, rngs=rngs),
        batch_norm(outputs, epsilon=epsilon, rngs=rngs),
    ]
    return Sequential(layers if activation is None else [*layers, activation])


def layer_norm(channels: int, *, rngs: nnx.Rngs, epsilon: float = 1e-6) -> nnx.LayerNorm:
    """Build a LayerNorm of the last axis."""
    return nnx.LayerNorm(channels, epsilon=epsilon, use_fast_variance=False, rngs=rngs)


def gelu(x: Array) -> Array:
    """Return `x` times the normal distribution's function of it, exactly, as torch's GELU."""
    return jax.nn.gelu(x, approximate=False)


def linear(inputs: int, outputs: int, *, rngs: nnx.Rngs, bias: bool = True) -> nnx.Linear:
    """Build a dense layer."""
    return nnx.Linear(inputs, outputs, use_bias=bias, kernel_init=_he_normal, rngs=rngs)


def identity(x: Array) -> Array:
    """Return `x`: the place of a dropout."""
    return x


def flatten(x: Array) -> Array:
    """Join all dimensions but the first, the channels last."""
    return x.reshape(x.shape[0], -1)


def max_pool(x: Array, *, size: int, stride: int, padding: int = 0, ceil: bool = False) -> Array:
    """Take the maximum over square windows; what is padded never wins.

    With `ceil` a last window may reach beyond the bottom and right edges if it begins within
    them (or within the padding before them), as in Caffe and torch's `ceil_mode`.

    >>> max_pool(jnp.arange(5.0).reshape(1, 5, 1, 1), size=2, stride=2, ceil=True).ravel().tolist()
    [1.0, 3.0, 4.0]
    """
    window = (1, size, size, 1)
    padded = [(0, 0)] * 4
    for axis in (1, 2):
        length = x.shape[axis] + padding
        windows = -(-(length + padding - size) // stride) + 1
        windows -= (windows - 1) * stride >= length
        beyond = (windows - 1) * stride + size - length if ceil else padding
        padded[axis] = (padding, max(beyond, padding))
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, (1, stride, stride, 1), padded)


def average_pool(x: Array, *, size: int, stride: int, padding: int = 0) -> Array:
    """Average over square windows; what is padded counts as zero."""
    around = (padding, padding)
    window, strides = (1, size, size, 1), (1, stride, stride, 1)
    padded = ((0, 0), around, around, (0, 0))
    return jax.lax.reduce_window(x, 0.0, jax.lax.add, window, strides, padded) / size**2


def global_average_pool(x: Array) -> Array:
    """Average `(B, h, w, C)` over its positions to `(B, 1, 1, C)`."""
    return x.mean((1, 2), keepdims=True)


def adaptive_average_pool(x: Array, *, size: int) -> Array:
    """Average `(B, h, w, C)` to `(B, size, size, C)`, as torch's `AdaptiveAvgPool2d` does.

    Cell `i` of an axis of length `n` is the mean of the rows `floor(i n / size)` to
    `ceil((i + 1) n / size) - 1`: neighboring cells share a row where `size` does not divide `n`,
    and a row is repeated where `n < size`.

    >>> rows = jnp.arange(3.0).reshape(1, 3, 1, 1)
    >>> adaptive_average_pool(rows, size=2)[0, :, 0, 0].tolist()
    [0.5, 1.5]
    """
    if 0 in x.shape[1:3]:
        raise ValueError(f"no feature maps are left to pool, {x.shape}: use a larger image")
    return _average_axis(_average_axis(x, 1, size), 2, size)


def _average_axis(x: Array, axis: int, size: int) -> Array:
    length = x.shape[axis]
    if length == size:
        return x
    if length % size == 0:
        cells = x.reshape(*x.shape[:axis], size, length // size, *x.shape[axis + 1 :])
        return cells.mean(axis + 1)
    bounds = [(i * length // size, -(-(i + 1) * length // size)) for i in range(size)]
    cells = [jax.lax.slice_in_dim(x, *bound, axis=axis).mean(axis) for bound in bounds]
    return jnp.stack(cells, axis)
