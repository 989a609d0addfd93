"""Batches larger than memory."""

from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from jaxattr.contract import check_positive
from jaxattr.loops.chunks import chunks, joined
from jaxattr.loops.progress import Progress, report
from jaxattr.types import Array, Explanation, Key

T = TypeVar("T")


def batched(
    attribute: Explanation[T], size: int, *, progress: Progress | None = None
) -> Explanation[T]:
    """Explain a batch a few images at a time, in one loop on the device.

    Law: the same maps as `attribute` gives for the whole batch, with memory for `size` images.

    Args:
        attribute: any attribution, or a function that tells more, such as `dmbp_details`.
        size: how many images at a time, at most; the parts are of about equal size, and the last
            one is filled up by copies of the last image.
        progress: called with the number of images done, up to a hundred times.

    Returns:
        An attribution of the same kind.

    Raises:
        ValueError: if `size` is not positive.

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
        count, each = chunks(n, size).numbers.shape

        def step(part: tuple[Array, Array, Array]) -> T:
            i, x, target = part
            maps = attribute(x, target, key=key)
            report(progress, i, n, each=each)
            return maps

        def parted(a: Array) -> Array:  # every `count`th image, so that all devices have some
            last = jnp.repeat(a[-1:], count * each - n, 0) if count * each > n else a[:0]
            return jnp.concatenate([a, last]).reshape(each, count, *a.shape[1:]).swapaxes(0, 1)

        found = lax.map(step, (jnp.arange(count), parted(x), parted(target)))
        return joined(jax.tree.map(lambda a: a.swapaxes(0, 1), found), n)

    return attribute_batched
