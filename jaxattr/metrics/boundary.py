"""How much a prediction leans on the border of the image, and what that says of it."""

import jax.numpy as jnp

from jaxattr.image.order import descending
from jaxattr.metrics.ranking import Reduction, finite, magnitude_sum, reduced
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

    >>> import jax.numpy as jnp
    >>> upper_half(jnp.array([0.1, 0.4, 0.3, 0.2, 9.0]), jnp.array([True] * 4 + [False])).tolist()
    [False, True, True, False, False]

    Args:
        score: `(B,)`.
        valid: which of them count, `(B,)`.

    Returns:
        Which of them still count: half of the valid ones, the middle one of an odd number kept;
        of equal scores the first.
    """
    places = descending(jnp.where(valid, score, -jnp.inf)[None])[0]
    return valid & (places < (valid.sum() + 1) // 2)


def roc_auc(score: Array, positive: Array, *, valid: Array | None = None) -> Array:
    """Return the area under the ROC curve, equal scores counting half.

        auc = P(s_p > s_n) + P(s_p = s_n) / 2    for a positive p and a negative n

    Args:
        score: `(N,)`.
        positive: what the score should detect, bool `(N,)`, such as a wrong prediction.
        valid: which of them count, bool `(N,)`; by default all.

    Returns:
        A number, exact to rounding; NaN unless there is a positive and a negative, and where a
        score that counts is NaN.

    Example:
        >>> import jax.numpy as jnp
        >>> roc_auc(jnp.array([0.1, 0.4, 0.4, 0.8]), jnp.array([False, False, True, True])).item()
        0.875
    """
    valid = jnp.ones(score.shape, bool) if valid is None else valid
    wanted, other = positive & valid, ~positive & valid
    negatives = jnp.sort(jnp.where(other, score, jnp.inf))
    number = other.sum()
    below, upto = (
        jnp.minimum(jnp.searchsorted(negatives, score, side=side), number)
        for side in ("left", "right")
    )
    won = jnp.where(wanted, (below + upto) / (2 * number), 0)
    unknown = (jnp.isnan(score) & valid).any()
    return jnp.where(unknown, jnp.nan, won.sum() / wanted.sum())
