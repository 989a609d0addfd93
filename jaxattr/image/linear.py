"""A matrix along an axis of an array: what filters, interpolation and grid masks have in common."""

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxattr.types import Array


def multiply(a: Array, matrix: Array | np.ndarray, axis: int) -> Array:
    """Multiply one axis of an array by a matrix `(new length, length)`, in full precision.

    >>> import jax.numpy as jnp, numpy as np
    >>> multiply(jnp.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1, 1]]), 1).tolist()
    [[3.0], [7.0]]
    """
    matrix = jnp.asarray(matrix, a.dtype)
    product = jnp.tensordot(matrix, a, axes=(1, axis), precision=lax.Precision.HIGHEST)
    return jnp.moveaxis(product, 0, axis)


def separable(
    a: Array,
    rows: Array | np.ndarray,
    columns: Array | np.ndarray,
    axes: tuple[int, int] = (1, 2),
) -> Array:
    """Multiply two axes of an array, by default height and width, by a matrix each.

        result[i, j] = sum_hw rows[i, h] a[h, w] columns[j, w]

    Args:
        a: images or maps `(B, H, W)` or `(B, H, W, C)`, or any array with other `axes`.
        rows: `(new height, H)`.
        columns: `(new width, W)`.
        axes: those of height and width.
    """
    return multiply(multiply(a, rows, axes[0]), columns, axes[1])
