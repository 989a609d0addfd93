"""Attribution maps as pictures: their channels, scale, size and smoothness.

`resize`, `resize_aligned`, `resize_cubic` and `gaussian_blur` are part of it, so that
`jaxattr.maps` is all that one needs for a map.
"""

import jax.numpy as jnp

from jaxattr.image.filters import gaussian_blur as gaussian_blur
from jaxattr.image.resize import Resize as Resize
from jaxattr.image.resize import resize as resize
from jaxattr.image.resize import resize_aligned as resize_aligned
from jaxattr.image.resize import resize_cubic as resize_cubic
from jaxattr.types import Array


def heatmap(a: Array) -> Array:
    """Sum the channels: `(B, H, W, C)` to `(B, H, W)`.

    The sum keeps what a signed attribution promises: its total. Compose with `positive` or `abs`
    to count only evidence for the class, or evidence of either sign.

    >>> import jax.numpy as jnp
    >>> heatmap(jnp.array([[[[1.0, -3.0, 1.0]]]])), heatmap(abs(jnp.array([[[[1.0, -3.0, 1.0]]]])))
    (Array([[[-1.]]], dtype=float32), Array([[[5.]]], dtype=float32))
    """
    if a.ndim != 4:
        raise ValueError(f"the map has shape {a.shape}; expected (batch, height, width, channels)")
    return a.sum(-1)


def positive(a: Array) -> Array:
    """Return the evidence for the class: `max(a, 0)`."""
    return jnp.maximum(a, 0)


def abs(a: Array) -> Array:
    """Return evidence of either sign: `|a|`."""
    return jnp.abs(a)


def normalize(a: Array) -> Array:
    """Divide each map by its largest magnitude: signs and zero stay, values lie in [-1, 1].

    A map of zeros stays one.

    >>> import jax.numpy as jnp
    >>> normalize(jnp.array([[[-4.0, 2.0]], [[0.0, 0.0]]])).tolist()
    [[[-1.0, 0.5]], [[0.0, 0.0]]]
    """
    axes = tuple(range(1, a.ndim))
    largest = jnp.abs(a).max(axes, keepdims=True)
    return a / jnp.where(largest == 0, 1, largest)


def unit_range(a: Array) -> Array:
    """Shift and scale each map so that its smallest value is 0 and its largest 1.

    A constant map becomes zero.

    >>> import jax.numpy as jnp
    >>> unit_range(jnp.array([[[-1.0, 0.0, 3.0]]])).tolist()
    [[[0.0, 0.25, 1.0]]]
    """
    axes = tuple(range(1, a.ndim))
    low, high = a.min(axes, keepdims=True), a.max(axes, keepdims=True)
    return (a - low) / jnp.where(high == low, 1, high - low)
