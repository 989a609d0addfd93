"""Order: the ranks of pixels, and the n-th smallest of many numbers without sorting them."""

import math

import jax
import jax.numpy as jnp
from jax import lax

from jaxattr.types import Array


def descending(scores: Array) -> Array:
    """Rank the pixels of each map, 0 for the largest score.

    Pixels of the same score are ranked in reading order (left to right, then top to bottom), as
    `argmax` would take them; -0 and 0 are the same score. For the smallest first, negate.

    Args:
        scores: `(B, ...)`, as `(B, H, W)`.

    Returns:
        Ranks of the same shape, int.

    Example:
        >>> import jax.numpy as jnp
        >>> descending(jnp.array([[[1.0, 3.0], [1.0, 2.0]]])).tolist()
        [[[2, 0], [3, 1]]]
    """
    flat = scores.reshape(scores.shape[0], math.prod(scores.shape[1:]))

    def rank(row: Array) -> Array:
        order = jnp.argsort(-row, stable=True)
        return jnp.zeros_like(order).at[order].set(jnp.arange(len(row), dtype=order.dtype))

    # One scatter for them all would gather a batch that is split over devices.
    return jax.vmap(rank)(flat).reshape(scores.shape)


def largest(scores: Array, n: int) -> Array:
    """Return where the `n` largest of each row are, the largest first; of equal ones the first.

    As `jax.lax.top_k`, for which XLA gathers a batch that is split over devices.

    >>> import jax.numpy as jnp
    >>> largest(jnp.array([[1.0, 3.0, 3.0, 2.0]]), 3).tolist()
    [[1, 2, 3]]
    """
    order = jnp.argsort(lax.stop_gradient(scores), axis=-1, descending=True)
    return order[..., :n]


def nth_smallest(a: Array, n: Array | int, *, where: Array | bool = True) -> Array:
    """Return the number with `n` smaller ones before it, or infinity if there are not so many.

    By bisection: floats that are not negative are in the order of their bits, and counting is much
    faster than sorting.

    Args:
        a: numbers that are not negative, `(..., N)`.
        n: counted from 0, `(...)`.
        where: which of the numbers count.

    Returns:
        `(...)`.

    Example:
        >>> import jax.numpy as jnp
        >>> a = jnp.array([3.0, 1.0, 0.0, 2.0])
        >>> [nth_smallest(a, n, where=a > 0).item() for n in range(4)]
        [1.0, 2.0, 3.0, inf]
    """
    bits = 8 * a.dtype.itemsize
    numbers = lax.bitcast_convert_type(a, f"int{bits}")
    infinity = lax.bitcast_convert_type(jnp.asarray(jnp.inf, a.dtype), numbers.dtype)

    def halve(_: Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = low + (high - low) // 2
        enough = (where & (numbers <= middle[..., None])).sum(-1) > n
        return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

    low = jnp.zeros_like(numbers[..., 0])
    n = jnp.broadcast_to(n, low.shape)
    _, found = lax.fori_loop(0, bits - 1, halve, (low, jnp.full_like(low, infinity)))
    return lax.bitcast_convert_type(found, a.dtype)
