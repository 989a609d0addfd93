"""Attribution maps as pictures: channels, scale and size. Arrays to arrays, no model."""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxattr.types import Array

Resize: TypeAlias = Callable[[Array, tuple[int, int]], Array]
"""From maps `(B, h, w)` or `(B, h, w, C)` and `(H, W)` to maps of that size."""


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


def gaussian_blur(a: Array, sigma: float) -> Array:
    """Blur maps `(B, H, W, C)` by a Gaussian of `sigma` pixels; edges are repeated."""
    if sigma <= 0:
        raise ValueError(f"sigma is {sigma}; expected a positive number of pixels")
    reach = int(4 * sigma + 0.5)
    weights = jnp.exp(-0.5 * (jnp.arange(-reach, reach + 1, dtype=a.dtype) / sigma) ** 2)
    weights /= weights.sum()

    def along(a: Array, axis: int) -> Array:
        padding = [(reach, reach) if i == axis else (0, 0) for i in range(a.ndim)]
        padded = jnp.moveaxis(jnp.pad(a, padding, mode="edge"), axis, -1)
        smooth = lambda row: jnp.convolve(row, weights, mode="valid")
        flat = jax.vmap(smooth)(padded.reshape(-1, padded.shape[-1]))
        return jnp.moveaxis(flat.reshape(*padded.shape[:-1], -1), -1, axis)

    return along(along(a, 1), 2)


def resize(a: Array, size: tuple[int, int]) -> Array:
    """Resize maps `(B, h, w)` or `(B, h, w, C)` bilinearly to `size = (H, W)`.

    Pixel centres are at half-integers (torch's `align_corners=False`), edges are repeated, and
    shrinking does not blur first.
    """
    shape = (a.shape[0], *size, *a.shape[3:])
    return jax.image.resize(a, shape, "bilinear", antialias=False)


def resize_aligned(a: Array, size: tuple[int, int]) -> Array:
    """Resize maps `(B, h, w)` or `(B, h, w, C)` bilinearly, with the corners' centres aligned.

    The corner pixels keep their values (torch's `align_corners=True`).

    >>> import jax.numpy as jnp
    >>> resize_aligned(jnp.array([[[0.0, 3.0]]]), (1, 4)).tolist()
    [[[0.0, 1.0, 2.0, 3.0]]]
    """
    for axis, n in ((1, size[0]), (2, size[1])):
        m = a.shape[axis]
        at = np.linspace(0, m - 1, n)[:, None]
        a = _interpolate(a, axis, np.maximum(0, 1 - np.abs(at - np.arange(m))))
    return a


def resize_cubic(a: Array, size: tuple[int, int]) -> Array:
    """Resize maps `(B, h, w)` or `(B, h, w, C)` by cubic convolution.

    Keys' kernel with the parameter -0.75, as in torch and OpenCV (`jax.image.resize` takes -0.5).
    Pixel centres are at half-integers, edges are repeated, and shrinking does not blur first.

    >>> import jax.numpy as jnp
    >>> resize_cubic(jnp.array([[[0.0, 64.0]]]), (1, 4)).tolist()
    [[[-6.75, 14.5, 49.5, 70.75]]]
    """
    for axis, n in ((1, size[0]), (2, size[1])):
        m = a.shape[axis]
        at = (np.arange(n) + 0.5) * m / n - 0.5
        weights = np.zeros((n, m))
        for tap in range(-1, 3):
            place = np.floor(at) + tap
            into = np.clip(place, 0, m - 1).astype(int)
            np.add.at(weights, (np.arange(n), into), _cubic(np.abs(at - place)))
        a = _interpolate(a, axis, weights)
    return a


def _cubic(t: np.ndarray, a: float = -0.75) -> np.ndarray:
    near = ((a + 2) * t - (a + 3)) * t**2 + 1
    return np.where(t <= 1, near, a * (((t - 5) * t + 8) * t - 4))


def _interpolate(a: Array, axis: int, weights: np.ndarray) -> Array:
    """Multiply an axis of `a` by a matrix `(new size, old size)`."""
    rows = jnp.tensordot(jnp.asarray(weights, a.dtype), a, axes=(1, axis))
    return jnp.moveaxis(rows, 0, axis)
