"""Small classifiers with what networks have today: gates, normalizations, attention.

Each is a function of images `(B, 8, 8, 3)`, with weights of its own and biases; every block is a
`jax.named_scope`.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax, nn

SHAPE = (2, 8, 8, 3)
WIDTH, CLASSES = 8, 5


def weights(seed: int, dtype: str = "float64") -> Callable[..., Array]:
    """Return a function that draws the next weight of a shape, scaled by its inputs."""
    keys: Iterator[Array] = iter(jax.random.split(jax.random.key(seed), 256))
    return lambda *shape: jax.random.normal(next(keys), shape, dtype) / jnp.sqrt(shape[0])


def conv(x: Array, kernel: Array, stride: int = 1, groups: int = 1) -> Array:
    """Convolve `(B, H, W, C)`."""
    return lax.conv_general_dilated(
        x, kernel, (stride,) * 2, "SAME", None, None, ("NHWC", "HWIO", "NHWC"), groups
    )


def layer_norm(x: Array, w: Array) -> Array:
    """Normalize by the mean and variance of the last axis."""
    mean = x.mean(-1, keepdims=True)
    var = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) * lax.rsqrt(var + 1e-5) * (1 + w[0]) + w[1]


def group_norm(x: Array, w: Array) -> Array:
    """Normalize by the mean and variance of two groups of channels."""
    b, h, width, c = x.shape
    y = x.reshape(b, h * width, 2, c // 2)
    mean, var = y.mean((1, 3), keepdims=True), y.var((1, 3), keepdims=True)
    return ((y - mean) / jnp.sqrt(var + 1e-5)).reshape(x.shape) * (1 + w[0]) + w[1]


def attention(q: Array, k: Array, v: Array) -> Array:
    """Attend, `(B, heads, N, d)`."""
    return nn.softmax(q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5) @ v


class Vit(NamedTuple):
    """The weights of a vision transformer; kernel and bias of a layer, a norm's as one."""

    patch: Array
    bias: Array
    token: Array
    places: Array
    blocks: list[dict[str, tuple[Array, Array]]]
    norm: Array
    head: Array


def vit_weights(seed: int = 0, *, token: bool = True, blocks: int = 2) -> Vit:
    """Draw weights for patches of 2 by 2 and two heads."""
    draw, d = weights(seed), WIDTH
    first = (draw(2, 2, 3, d) / 2, draw(d), draw(1, 1, d), draw(1, 16 + token, d))
    shapes = {"n1": (2, d), "qkv": (d, 3 * d), "o": (d, d), "n2": (2, d), "up": (d, 2 * d)}
    shapes |= {"down": (2 * d, d)}
    layers = [{k: (draw(*s), 0.3 * draw(s[-1])) for k, s in shapes.items()} for _ in range(blocks)]
    return Vit(*first, layers, draw(2, d), draw(d, CLASSES))


def vit(
    seed: int = 0,
    *,
    token: bool = True,
    blocks: int = 2,
    attend: Callable[..., Array] = attention,
    act: Callable[[Array], Array] = nn.gelu,
    normalize: Callable[[Array, Array], Array] = layer_norm,
) -> Callable[[Array], Array]:
    """Build a vision transformer, with a class token or a mean over tokens."""
    patch, bias, first, places, layers, norm, head = vit_weights(seed, token=token, blocks=blocks)
    d = WIDTH

    def block(x: Array, w: dict) -> Array:
        dense = lambda x, name: x @ w[name][0].astype(x.dtype) + w[name][1].astype(x.dtype)
        with jax.named_scope("attention"):
            y = dense(normalize(x, w["n1"][0].astype(x.dtype)), "qkv")
            heads = y.reshape(*y.shape[:2], 3, 2, d // 2).transpose(2, 0, 3, 1, 4)
            y = attend(*heads).transpose(0, 2, 1, 3).reshape(x.shape)
            x = x + dense(y, "o")
        with jax.named_scope("mlp"):
            return x + dense(act(dense(normalize(x, w["n2"][0].astype(x.dtype)), "up")), "down")

    def f(x: Array) -> Array:
        to = lambda a: a.astype(x.dtype)
        with jax.named_scope("patch"):
            x = lax.conv_general_dilated(
                x, to(patch), (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            x = (x + to(bias)).reshape(len(x), -1, d)
        if token:
            x = jnp.concatenate([jnp.broadcast_to(to(first), (len(x), 1, d)), x], 1)
        x = x + to(places)
        for i, w in enumerate(layers):
            with jax.named_scope(f"block{i}"):
                x = block(x, w)
        x = normalize(x, to(norm))
        return (x[:, 0] if token else x.mean(1)) @ to(head)

    return f


def mobilenet(
    seed: int = 0, act: Callable[[Array], Array] = nn.hard_swish
) -> Callable[[Array], Array]:
    """Build two inverted residuals with squeeze and excitation, the second one at 1x1."""
    draw, d = weights(seed), WIDTH
    stem, head = draw(3, 3, 3, d) / 3, draw(d, CLASSES)
    blocks = [
        (draw(d, d), draw(3, 3, 1, d), draw(d, 4), draw(4, d), draw(d, d), draw(d))
        for _ in range(2)
    ]

    def f(x: Array) -> Array:
        to = lambda a: a.astype(x.dtype)
        x = act(conv(x, to(stem), 2))
        for i, w in enumerate(blocks):
            expand, depth, squeeze, excite, project, bias = map(to, w)
            with jax.named_scope(f"block{i}"):
                y = act(conv(act(x @ expand + bias), depth, 4 if i else 1, d))
                gate = nn.hard_sigmoid(nn.relu(y.mean((1, 2), keepdims=True) @ squeeze) @ excite)
                y = (y * gate) @ project + bias
                x = x + y if i == 0 else y
        return x.mean((1, 2)) @ to(head)

    return f


def convnext(seed: int = 0) -> Callable[[Array], Array]:
    """Build a ConvNeXt block: depthwise convolution, LayerNorm, GELU, layer scale."""
    draw, d = weights(seed), WIDTH
    stem, depth, norm, up, down, scale, head = (
        *(draw(2, 2, 3, d) / 2, draw(3, 3, 1, d), draw(2, d), draw(d, 2 * d)),
        *(draw(2 * d, d), draw(d), draw(d, CLASSES)),
    )

    def f(x: Array) -> Array:
        to = lambda a: a.astype(x.dtype)
        x = conv(x, to(stem), 2)
        with jax.named_scope("block0"):
            y = layer_norm(conv(x, to(depth), 1, d), to(norm))
            x = x + nn.gelu(y @ to(up)) @ to(down) * to(scale)
        return layer_norm(x.mean((1, 2)), to(norm)) @ to(head)

    return f


def mixer(seed: int = 0) -> Callable[[Array], Array]:
    """Build an MLP-Mixer of one block."""
    draw, d = weights(seed), WIDTH
    patch, norm, places, tokens, channels, head = (
        *(draw(2, 2, 3, d) / 2, draw(2, d), draw(16, 16), draw(16, 16)),
        *(draw(d, d), draw(d, CLASSES)),
    )

    def f(x: Array) -> Array:
        to = lambda a: a.astype(x.dtype)
        x = lax.conv_general_dilated(
            x, to(patch), (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = x.reshape(len(x), -1, d)
        with jax.named_scope("block0"):
            y = layer_norm(x, to(norm)).swapaxes(1, 2)
            x = x + (nn.gelu(y @ to(places)) @ to(tokens)).swapaxes(1, 2)
            x = x + nn.gelu(layer_norm(x, to(norm)) @ to(channels))
        return layer_norm(x, to(norm)).mean(1) @ to(head)

    return f


def grouped(seed: int = 0) -> Callable[[Array], Array]:
    """Build a residual network with GroupNorm, and a GLU before the head."""
    draw, d = weights(seed), WIDTH
    stem, c1, c2, norm, glu, head = (
        *(draw(3, 3, 3, d) / 3, draw(3, 3, d, d) / 3, draw(3, 3, d, d) / 3),
        *(draw(2, d), draw(d, 2 * d), draw(d, CLASSES)),
    )

    def f(x: Array) -> Array:
        to = lambda a: a.astype(x.dtype)
        x = nn.relu(group_norm(conv(x, to(stem), 2), to(norm)))
        with jax.named_scope("block0"):
            y = nn.relu(group_norm(conv(x, to(c1)), to(norm)))
            x = nn.relu(x + group_norm(conv(y, to(c2)), to(norm)))
        a, b = jnp.split(x.mean((1, 2)) @ to(glu), 2, -1)
        return nn.relu(a) * nn.sigmoid(b) @ to(head)

    return f


MODERN: dict[str, Callable[[], Callable[[Array], Array]]] = {
    "vit": vit,
    "vit of means": lambda: vit(token=False, act=nn.silu),
    "mobilenet": mobilenet,
    "convnext": convnext,
    "mixer": mixer,
    "grouped": grouped,
}
"""What builds each of them; call it where float64 is enabled."""


def images(seed: int = 1, dtype: str = "float64") -> Array:
    """Draw two images."""
    return jax.random.normal(jax.random.key(seed), SHAPE, dtype)
