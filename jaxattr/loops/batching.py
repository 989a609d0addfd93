"""Batches larger than memory."""

from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from jaxattr.contract import check_positive
from jaxattr.types import Array, Explanation, Key

T = TypeVar("T")


def batched(attribute: Explanation[T], size: int) -> Explanation[T]:
    """Explain a batch a few images at a time, in one loop on the device.

    Law: the same maps as `attribute` gives for the whole batch, with memory for `size` images.

    Args:
        attribute: any attribution, or a function that tells more, such as `dmbp_details`.
        size: how many images at a time; the last few are filled up by copies of the first image.

    Returns:
        An attribution of the same kind.

    Example:
        >>> import jax.numpy as jnp, jaxattr
        >>> f = lambda x: x.sum((1, 2)) ** 2
        >>> a = batched(jaxattr.saliency(f), 2)
        >>> a(jnp.arange(3.0).reshape(3, 1, 1, 1), jnp.zeros(3, int)).ravel()
        Array([0., 2., 4.], dtype=float32)
    """
    check_positive("size", size)

    def attribute_batched(x: Array, target: Array, *, key: Key | None = None) -> T:
        x, target = jnp.asarray(x), jnp.asarray(target)
        n = x.shape[0]
        turns = -(-n // size)
        order = jnp.where(jnp.arange(turns * size) < n, jnp.arange(turns * size), 0)
        chunks = [a[order].reshape(turns, size, *a.shape[1:]) for a in (x, target)]
        maps = lax.map(lambda chunk: attribute(*chunk, key=key), tuple(chunks))
        return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:n], maps)

    return attribute_batched
