"""Boundary dependency: how much of a map lies along the border of the image."""

import jax.numpy as jnp

from jaxattr.image.maps import heatmap
from jaxattr.image.order import descending
from jaxattr.metrics.arguments import booleans, real
from jaxattr.metrics.reductions import Reduction, finite, magnitude_sum, reduced
from jaxattr.metrics.results import Score, scored
from jaxattr.types import Array


def boundary_dependency(
    attribution: Array,
    *,
    border: int = 16,
    signed: bool = False,
    reduce: Reduction | None = None,
) -> Score:
    """Return how much of the attribution lies along the border of the image (IBD).

        score = sum_{p in border} |a_p| / sum_p |a_p|

    Laws: in [0, 1], unless signed; a uniform map scores the border's share of the image.

    Args:
        attribution: maps `(B, H, W)` or `(B, H, W, C)`.
        border: its width in pixels of the map.
        signed: whether `a_p` stands in both sums instead of `|a_p|`, as in the paper. Where a map
            sums to nearly zero, as TR-GBP's of the top classes may, such a share is any number.
        reduce: how the channels of an attribution become one number, by default `magnitude_sum`,
            or `heatmap` if signed.

    Returns:
        The share; no score for a map that is zero, of signed ones whose sum is, or not finite.

    Raises:
        ValueError: if the border is not positive, or leaves nothing of the map.

    Example:
        >>> import jax.numpy as jnp
        >>> boundary_dependency(jnp.ones((1, 64, 64))).score.item()
        0.75

    Reference:
        Towards predictable feature attribution (TR-GBP), under review at ICLR, eq. 12.

    Differs from the paper in taking magnitudes, so that the score is a share of something;
    `signed=True` is its formula to the letter.
    """
    scores = reduced(attribution, reduce or (heatmap if signed else magnitude_sum))
    scores = scores if signed else jnp.abs(scores)
    height, width = scores.shape[1:]
    if not 0 < border < min(height, width) / 2:
        raise ValueError(f"border is {border}; expected 1 to {(min(height, width) - 1) // 2}")
    total = scores.sum((1, 2))
    along = scores.at[:, border:-border, border:-border].set(0).sum((1, 2))
    valid = (total != 0) & finite(scores)
    return scored(along / jnp.where(valid, total, 1), valid)


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
        Towards predictable feature attribution (TR-GBP), under review at ICLR, section 5.4.
    """
    score = real("score", score)
    valid = booleans("valid", valid, score.shape)
    places = descending(jnp.where(valid, score, -jnp.inf)[None])[0]
    return valid & (places < (valid.sum() + 1) // 2)
