"""Maps and masks of one size: the size of the image, which may differ within a batch."""

import jax
import jax.numpy as jnp

from jaxattr.types import Array


def enlarge(scores: Array, shape: tuple[int, ...], sizes: Array | None) -> Array:
    """Resize maps to `shape`, or each to its own size with -inf around it."""
    if sizes is None:
        return jax.image.resize(scores, (len(scores), *shape), "bilinear", antialias=False)

    def one(a: Array, size: Array) -> Array:
        scale = size / jnp.array(a.shape)
        return jax.image.scale_and_translate(
            a, shape, (0, 1), scale, jnp.zeros(2), "bilinear", antialias=False
        )

    enlarged = jax.vmap(one)(scores, jnp.asarray(sizes))
    return jnp.where(inside((len(scores), *shape), sizes), enlarged, -jnp.inf)


def inside(shape: tuple[int, ...], sizes: Array | None) -> Array:
    """Mark the pixels of each image in what is filled up to `shape`."""
    if sizes is None:
        return jnp.ones(shape, bool)
    sizes = jnp.asarray(sizes)[:, :, None]
    rows, columns = (jnp.arange(n) < sizes[:, i] for i, n in enumerate(shape[1:]))
    return rows[:, :, None] & columns[:, None, :]


def check_mask(mask: Array, scores: Array) -> None:
    """Raise `ValueError` unless `mask` has a mask for every map."""
    if mask.ndim != 3 or mask.dtype != bool or len(mask) != len(scores):
        raise ValueError(
            f"mask has shape {mask.shape} and dtype {mask.dtype}; expected bool "
            f"({len(scores)}, height, width)"
        )
