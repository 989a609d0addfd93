"""Boundary dependency: how much of a map lies along the border of the image."""

import jax.numpy as jnp

from jaxattr.image.order import descending
from jaxattr.metrics.arguments import booleans, real
from jaxattr.metrics.reductions import Reduction, finite, magnitude_sum, reduced
from jaxattr.metrics.results import Score, scored
from jaxattr.types import Array


def boundary_dependency(
    attribution: Array, *, border: int = 16, reduce: Reduction = magnitude_sum
) -> Score:
    """Return how much of the attribution lies along the border of the image (IBD).

        score = sum_{p in border} |a_p| / sum_p |a_p|

    Laws: in [0, 1]; a uniform map scores the border's share of the image.

    Args:
        attribution: maps `(B, H, W)` or `(B, H, W, C)`.
        border: its width in pixels of the map.
        reduce: how the channels of an attribution become one number.

    Returns:
        The share; no score for a map that is zero or not finite.

    Raises:
        ValueError: if the border is not positive, or leaves nothing of the map.

    Example:
        >>> import jax.numpy as jnp
        >>> boundary_dependency(jnp.ones((1, 64, 64))).score.item()
        0.75

    Reference:
        TR-GBP, under review.
    """
    scores = jnp.abs(reduced(attribution, reduce))
    height, width = scores.shape[1:]
    if not 0 < border < min(height, width) / 2:
        raise ValueError(f"border is {border}; expected 1 to {(min(height, width) - 1) // 2}")
    total = scores.sum((1, 2))
    inner = scores.at[:, border:-border, border:-border].set(0)
    valid = (total > 0) & finite(scores)
    return scored(inner.sum((1, 2)) / jnp.where(total > 0, total, 1), valid)


def upper_half(score: Array, valid: Array) -> Array:
    """Keep the half of the images that have the larger scores.

    Args:
        score: `(B,)`.
        valid: which of them count, `(B,)`.

    Returns:
        Which of them still count: half of the valid ones, the middle one of an odd number kept;
        of equal scores the first.

    Example:
        >>> import jax.numpy as jnp
        >>> score, valid = jnp.array([0.1, 0.4, 0.3, 0.2, 9.0]), jnp.arange(5) < 4
        >>> upper_half(score, valid).tolist()
        [False, True, True, False, False]

    Reference:
        TR-GBP, under review.
    """
    score = real("score", score)
    valid = booleans("valid", valid, score.shape)
    places = descending(jnp.where(valid, score, -jnp.inf)[None])[0]
    return valid & (places < (valid.sum() + 1) // 2)
