"""Images as they are taken away, level by level, and blends of their levels."""

from collections.abc import Callable
from typing import TypeAlias

import jax.numpy as jnp

from jaxattr.image.filters import ceiling_reach, gaussian_blur, zero
from jaxattr.types import Array

Pyramid: TypeAlias = Callable[[Array], Array]
"""Images `(B, H, W, C)` to `(levels, B, H, W, C)`, from all that is taken away to the image."""


def blur_pyramid(x: Array, *, levels: int = 8, sigma: float = 20.0) -> Array:
    """Blur images ever less: level `l` by `sigma (1 - l / (levels - 1))` pixels, zeros around."""
    _check_levels(levels)
    steps = (1 - i / (levels - 1) for i in range(levels))
    return jnp.stack([gaussian_blur(x, sigma * s, border=zero, reach=ceiling_reach) for s in steps])


def fade_pyramid(x: Array, *, levels: int = 8) -> Array:
    """Fade images in from zero: level `l` is `x l / (levels - 1)`."""
    _check_levels(levels)
    return jnp.stack([x * (i / (levels - 1)) for i in range(levels)])


def _check_levels(levels: int) -> None:
    if levels < 2:
        raise ValueError(f"levels is {levels}; a pyramid needs both ends, at least 2")


def blend(levels: Array, masks: Array) -> Array:
    """Take each pixel from the level that its mask says, linearly in between.

    Args:
        levels: `(L, B, H, W, C)`.
        masks: `(B, n, H, W)`, in [0, 1].

    Returns:
        `(B, n, H, W, C)`. At a level the derivative is that towards the next.
    """
    at = (len(levels) - 1) * masks[..., None]
    images = jnp.broadcast_to(levels[0][:, None], (*masks.shape, levels.shape[-1]))
    for i, step in enumerate(levels[1:] - levels[:-1]):
        # not `clip`, whose derivative at its ends is half of either side's
        rise = jnp.where(at < i, 0, jnp.where(at < i + 1, at - i, 1))
        images += rise * step[:, None]
    return images
