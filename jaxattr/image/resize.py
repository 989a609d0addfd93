"""Interpolation: maps and images in another size."""

from collections.abc import Callable, Iterable
from functools import reduce
from operator import add
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxattr.image.linear import separable
from jaxattr.types import Array

Resize: TypeAlias = Callable[[Array, tuple[int, int]], Array]
"""From maps `(B, h, w)` or `(B, h, w, C)` and `(H, W)` to maps of that size."""


def resize(a: Array, size: tuple[int, int]) -> Array:
    """Resize maps `(B, h, w)` or `(B, h, w, C)` bilinearly to `size = (H, W)`.

    Pixel centers are at half-integers (torch's `align_corners=False`), edges are repeated, and
    shrinking does not blur first.
    """
    shape = (a.shape[0], *size, *a.shape[3:])
    return jax.image.resize(a, shape, "bilinear", antialias=False)


def resized_sum(maps: Iterable[Array], size: tuple[int, int], resize: Resize) -> Array:
    """Return the sum of maps in one size: those of a shape are added first and resized once.

    >>> import jax.numpy as jnp
    >>> maps = [jnp.ones((1, 1, 2)), jnp.ones((1, 1, 2)), jnp.ones((1, 2, 4))]
    >>> resized_sum(maps, (2, 4), resize_aligned)[0, 0].tolist()
    [3.0, 3.0, 3.0, 3.0]
    """
    sums: dict[tuple[int, ...], Array] = {}
    for a in maps:
        sums[a.shape] = sums[a.shape] + a if a.shape in sums else a
    return reduce(add, (resize(a, size) for a in sums.values()))


def resize_each(a: Array, size: tuple[int, int], sizes: Array) -> Array:
    """Resize maps `(B, h, w)` as `resize` does, each to a height and width of its own.

    Args:
        a: the maps.
        size: `(H, W)` of the result.
        sizes: int `(B, 2)`, at most `size`. Nothing is compiled anew for other values.

    Returns:
        `(B, H, W)`, each map in the upper left corner; see `inside` for where it ends.
    """

    def one(a: Array, own: Array) -> Array:
        return jax.image.scale_and_translate(
            a, size, (0, 1), own / jnp.array(a.shape), jnp.zeros(2), "bilinear", antialias=False
        )

    return jax.vmap(one)(a, jnp.asarray(sizes))


def inside(size: tuple[int, int], sizes: Array) -> Array:
    """Mark the pixels of images of different sizes in what is padded to one size.

    >>> import jax.numpy as jnp
    >>> inside((2, 3), jnp.array([[1, 2]])).astype(int).tolist()
    [[[1, 1, 0], [0, 0, 0]]]
    """
    ends = jnp.asarray(sizes)[:, :, None]
    rows, columns = (jnp.arange(n) < ends[:, i] for i, n in enumerate(size))
    return rows[:, :, None] & columns[:, None, :]


def resize_aligned(a: Array, size: tuple[int, int]) -> Array:
    """Resize maps `(B, h, w)` or `(B, h, w, C)` bilinearly, with the corners' centers aligned.

    The corner pixels keep their values (torch's `align_corners=True`).

    >>> import jax.numpy as jnp
    >>> resize_aligned(jnp.array([[[0.0, 3.0]]]), (1, 4)).tolist()
    [[[0.0, 1.0, 2.0, 3.0]]]
    """
    rows, columns = (_aligned(m, n) for m, n in zip(a.shape[1:3], size, strict=True))
    return separable(a, rows, columns)


def _aligned(old: int, new: int) -> np.ndarray:
    at = np.linspace(0, old - 1, new)[:, None]
    return np.maximum(0, 1 - np.abs(at - np.arange(old)))


def resize_cubic(a: Array, size: tuple[int, int]) -> Array:
    """Resize maps `(B, h, w)` or `(B, h, w, C)` by cubic convolution.

    Keys' kernel with the parameter -0.75, as in torch and OpenCV (`jax.image.resize` takes -0.5).
    Pixel centers are at half-integers, edges are repeated, and shrinking does not blur first.

    >>> import jax.numpy as jnp
    >>> resize_cubic(jnp.array([[[0.0, 64.0]]]), (1, 4)).tolist()
    [[[-6.75, 14.5, 49.5, 70.75]]]
    """
    rows, columns = (_cubic(m, n) for m, n in zip(a.shape[1:3], size, strict=True))
    return separable(a, rows, columns)


def _cubic(old: int, new: int) -> np.ndarray:
    at = ((np.arange(new) + 0.5) * old / new - 0.5)[:, None]
    taps = np.floor(at) + np.arange(-1, 3)
    matrix, rows = np.zeros((new, old)), np.broadcast_to(np.arange(new)[:, None], taps.shape)
    np.add.at(matrix, (rows, taps.clip(0, old - 1).astype(int)), _keys(np.abs(at - taps)))
    return matrix


def _keys(t: np.ndarray, a: float = -0.75) -> np.ndarray:
    near = ((a + 2) * t - (a + 3)) * t**2 + 1
    return np.where(t <= 1, near, a * (((t - 5) * t + 8) * t - 4))
