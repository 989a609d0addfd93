"""Filters of images: a kernel, a border, and the matrix that applies both along an axis."""

from collections.abc import Callable
from typing import TypeAlias

import jax.numpy as jnp
import numpy as np

from jaxattr.image.linear import separable
from jaxattr.types import Array

Border: TypeAlias = Callable[[np.ndarray, int], np.ndarray]
"""From positions on an axis, inside or outside, and its length to the pixel seen, or -1 for 0."""

Reach: TypeAlias = Callable[[float], int]
"""From the standard deviation of a Gaussian in pixels to the last offset that has a weight."""


def edge(at: np.ndarray, pixels: int) -> np.ndarray:
    """Repeat the pixel at the edge: `aaa|abcd|ddd`."""
    return at.clip(0, pixels - 1)


def reflect(at: np.ndarray, pixels: int) -> np.ndarray:
    """Mirror the image, the pixel at the edge included: `cba|abcd|dcb`."""
    place = at % (2 * pixels)
    return np.minimum(place, 2 * pixels - 1 - place)


def zero(at: np.ndarray, pixels: int) -> np.ndarray:
    """See nothing outside the image: `000|abcd|000`."""
    return np.where((at >= 0) & (at < pixels), at, -1)


def rounded_reach(sigma: float, truncate: float = 4.0) -> int:
    """Cut a Gaussian off at `truncate` standard deviations, rounded as SciPy does."""
    return int(truncate * sigma + 0.5)


def ceiling_reach(sigma: float, truncate: float = 4.0) -> int:
    """Cut a Gaussian off at `truncate` standard deviations, rounded up as TorchRay does."""
    return int(np.ceil(truncate * sigma))


def gaussian(sigma: float, reach: int) -> np.ndarray:
    """Return a Gaussian's weights at the offsets `-reach` to `reach`; they sum to one.

    >>> gaussian(0.3, 1).round(3).tolist(), gaussian(0, 1).tolist()
    ([0.004, 0.992, 0.004], [0.0, 1.0, 0.0])
    """
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2) if sigma > 0 else (offsets == 0).astype(float)
    return weights / weights.sum()


def filter_matrix(kernel: np.ndarray, pixels: int, border: Border) -> np.ndarray:
    """Return the matrix `(pixels, pixels)` that applies a kernel along an axis.

        (M a)_i = sum_k kernel_k a(i + k - len(kernel) // 2)

    where `a` is continued beyond its ends by `border`. Law: its rows sum to what the kernel does,
    unless the border is `zero`.

    >>> import numpy as np
    >>> filter_matrix(np.array([1, 2, 4]), 3, edge).astype(int).tolist()
    [[3, 4, 0], [1, 2, 4], [0, 1, 6]]
    """
    at = np.arange(pixels)[:, None] + np.arange(len(kernel)) - len(kernel) // 2
    seen = border(at, pixels)
    matrix = np.zeros((pixels, pixels))
    rows = np.broadcast_to(np.arange(pixels)[:, None], at.shape)
    np.add.at(matrix, (rows, seen), np.where(seen < 0, 0, kernel))
    return matrix


def inner_matrix(kernel: np.ndarray, pixels: int) -> np.ndarray:
    """Return the matrix `(pixels - len(kernel) + 1, pixels)` that needs no border.

    >>> import numpy as np
    >>> inner_matrix(np.array([1, 2]), 3).astype(int).tolist()
    [[1, 2, 0], [0, 1, 2]]
    """
    first = len(kernel) // 2
    return filter_matrix(kernel, pixels, zero)[first : first + pixels - len(kernel) + 1]


def toeplitz(kernel: Array, pixels: int) -> Array:
    """Return `filter_matrix(kernel, pixels, zero)` for a kernel that may be traced.

    Args:
        kernel: `(2 pixels - 1,)`, weights of the offsets `1 - pixels` to `pixels - 1` at least;
            of a longer one, those in the middle are used.
        pixels: along the axis.
    """
    middle = kernel.shape[0] // 2
    return kernel[middle + np.arange(pixels) - np.arange(pixels)[:, None]]


def gaussian_blur(
    a: Array, sigma: float, *, border: Border = edge, reach: Reach = rounded_reach
) -> Array:
    """Blur images or maps `(B, H, W)` or `(B, H, W, C)` by a Gaussian.

    Laws: with the borders `edge` and `reflect` a constant stays what it is; a `sigma` of 0 changes
    nothing; by default equal to SciPy's `gaussian_filter` with `mode="nearest"`.

    Args:
        a: the images.
        sigma: standard deviation in pixels.
        border: what lies beyond the image: `edge`, `reflect` or `zero`.
        reach: where the Gaussian is cut off: `rounded_reach` or `ceiling_reach`.

    Returns:
        The shape and dtype of `a`.

    Raises:
        ValueError: if `sigma` is negative or not finite.

    Example:
        >>> import jax.numpy as jnp
        >>> (100 * gaussian_blur(jnp.array([[[0.0, 0.0, 1.0, 0.0, 0.0]]]), 0.5)).round().ravel()
        Array([ 0., 11., 79., 11.,  0.], dtype=float32)
    """
    if not 0 <= sigma < np.inf:
        raise ValueError(f"sigma is {sigma}; expected a number of pixels, 0 for no blur")
    a = jnp.asarray(a)
    if sigma == 0:
        return a
    kernel = gaussian(sigma, reach(sigma))
    rows, columns = (filter_matrix(kernel, n, border) for n in a.shape[1:3])
    return separable(a, rows, columns)
