"""How the channels of a map become one number for each pixel."""

from collections.abc import Callable
from typing import TypeAlias

import jax.numpy as jnp

from jaxattr.image.maps import heatmap
from jaxattr.metrics.arguments import real
from jaxattr.types import Array

Reduction: TypeAlias = Callable[[Array], Array]
"""From maps `(B, H, W, C)` to one number for each pixel, `(B, H, W)`."""


def positive_sum(a: Array) -> Array:
    """Sum the channels' evidence for the class: `sum_c max(a_c, 0)`, `(B, H, W)`."""
    return heatmap(jnp.maximum(a, 0))


def magnitude_sum(a: Array) -> Array:
    """Sum the channels' magnitudes: `sum_c |a_c|`, `(B, H, W)`."""
    return heatmap(jnp.abs(a))


def reduced(attribution: Array, reduce: Reduction, shape: tuple[int, ...] | None = None) -> Array:
    """Reduce the channels of maps `(B, H, W)`, `(B, H, W, 1)` or `(B, H, W, C)`.

    Args:
        attribution: the maps, of any real dtype. Maps without channels are given one, so that
            `reduce` applies to them too.
        reduce: the reduction.
        shape: `(B, H, W)` that they must have, or None for any.

    Returns:
        `(B, H, W)`, in at least float32.

    Raises:
        ValueError: if they have another shape, or what `reduce` returns has.
    """
    a = real("the attribution", attribution)
    if a.ndim not in (3, 4) or (shape is not None and a.shape[:3] != shape):
        expected = "(batch, height, width) or (batch, height, width, channels)"
        if shape is not None:
            expected = f"{shape} or {(*shape, 'channels')}, that of the images: see maps.resize"
        raise ValueError(f"the attribution has shape {a.shape}; expected {expected}")
    scores = real("what reduce returns", reduce(a if a.ndim == 4 else a[..., None]))
    if scores.shape != a.shape[:3]:
        raise ValueError(f"reduce returned shape {scores.shape}; expected {a.shape[:3]}")
    return scores


def finite(scores: Array) -> Array:
    """Whether all of a map is finite, `(B,)`."""
    return jnp.isfinite(scores).all(axis=(1, 2))
