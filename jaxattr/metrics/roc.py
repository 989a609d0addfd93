"""The area under the ROC curve: how well a score detects something."""

import jax.numpy as jnp

from jaxattr.metrics.arguments import booleans, real
from jaxattr.types import Array


def roc_auc(score: Array, positive: Array, *, valid: Array | None = None) -> Array:
    """Return the area under the ROC curve, equal scores counting half.

        auc = P(s_p > s_n) + P(s_p = s_n) / 2    for a positive p and a negative n

    Args:
        score: `(N,)`.
        positive: what the score should detect, `(N,)`, such as a wrong prediction: bools, or whole
            numbers of which those above 0 are positive (0 and 1, or -1 and 1).
        valid: which of them count, bool `(N,)`; by default all.

    Returns:
        A number, exact to rounding; NaN unless there is a positive and a negative, and where a
        score that counts is NaN.

    Raises:
        ValueError: if shapes differ, or a dtype is another.

    Example:
        >>> import jax.numpy as jnp
        >>> roc_auc(jnp.array([0.1, 0.4, 0.4, 0.8]), jnp.array([False, False, True, True])).item()
        0.875

    Reference:
        Fawcett, An introduction to ROC analysis, Pattern Recognition Letters 27(8), 2006.
    """
    score, positive = real("score", score), jnp.asarray(positive)
    if score.ndim != 1:
        raise ValueError(f"score has shape {score.shape}; expected one number for each, (N,)")
    if jnp.issubdtype(positive.dtype, jnp.integer):
        positive = positive > 0
    positive = booleans("positive", positive, score.shape)
    valid = jnp.ones_like(positive) if valid is None else booleans("valid", valid, score.shape)
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
