"""Networks that the tests of excitation backprop, RAP and RSP share."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from nets import NETS, STACK, load, plain
from peers import peer

KEYS = jax.random.split(jax.random.key(7), 12)


def authors(name: str) -> tuple[Callable[[Array], Array], Array, Array]:
    """Return a network that the authors' code was run on, with its images and classes."""
    if name == "vgg":
        net, params, x, target = load("vgg", "float64")
        return plain(net, params), x[:2], target[:2]
    arrays = peer("relative")
    params = {
        key.removeprefix("net.stack."): jnp.asarray(a, "float64")
        for key, a in arrays.items()
        if key.startswith("net.stack.")
    }
    x = jnp.asarray(arrays["stack.x"], "float64")
    return plain(STACK, params), x, jnp.asarray(arrays["stack.target"])


def dense_net(x: Array) -> Array:
    """Run a small DenseNet: concatenation, BatchNorm before the ReLU, an average pool between."""

    def conv(i: int, x: Array, features: int, size: int = 3) -> Array:
        w = jax.random.normal(KEYS[i], (size, size, x.shape[-1], features), x.dtype)
        w = w * np.sqrt(2 / (size * size * x.shape[-1]))
        return lax.conv_general_dilated(
            x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def norm(i: int, x: Array) -> Array:
        scale, shift, mean = jax.random.normal(KEYS[i], (3, x.shape[-1]), x.dtype)
        return (x - 0.2 * mean) * (1 + 0.3 * scale) + 0.2 * shift

    x = jax.nn.relu(conv(0, x, 6))
    x = jnp.concatenate([x, conv(2, jax.nn.relu(norm(1, x)), 4)], -1)
    x = conv(4, jax.nn.relu(norm(3, x)), 6, size=1)
    x = lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") / 4
    x = jnp.concatenate([x, conv(6, jax.nn.relu(norm(5, x)), 4)], -1)
    x = jax.nn.relu(norm(7, x))
    return x.mean((1, 2)) @ jax.random.normal(KEYS[8], (10, 5), x.dtype) + 0.1


EVERY = (*NETS, "dense")


def case(name: str) -> tuple[Callable[..., Array], Array, Array]:
    """Return a network of `EVERY` in float64, with its images and classes."""
    if name == "dense":
        return dense_net, load("vgg", "float64").x, jnp.array([0, 3, 4])
    net, params, x, target = load(name, "float64")
    return plain(net, params), x, target
