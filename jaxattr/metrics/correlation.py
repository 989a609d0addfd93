"""Correlations of many pairs of numbers for each image, by value and by rank."""

import jax.numpy as jnp

from jaxattr.types import Array

EXACT = 8
"""Deviations of fewer roundings than this are those of a constant."""


def pearson(a: Array, b: Array) -> Array:
    """Correlate the last axis of two arrays `(..., n)`.

    NaN where either is constant up to rounding.

    >>> import jax.numpy as jnp
    >>> a = jnp.array([1.0, 2.0, 4.0])
    >>> [round(pearson(a, b).item(), 4) for b in (3 * a + 1, -a, jnp.ones(3))]
    [1.0, -1.0, nan]
    """
    x, y = (v - v.mean(-1, keepdims=True) for v in (a, b))
    moves = [
        jnp.abs(d).max(-1) > EXACT * jnp.finfo(v.dtype).eps * jnp.abs(v).max(-1)
        for d, v in ((x, a), (y, b))
    ]
    return jnp.where(moves[0] & moves[1], _cosine(x, y), jnp.nan)


def spearman(a: Array, b: Array) -> Array:
    """Correlate the ranks of the last axis of two arrays `(..., n)`, equal numbers sharing theirs.

    NaN where either is constant.

    >>> import jax.numpy as jnp
    >>> a = jnp.array([1.0, 2.0, 4.0])
    >>> [round(spearman(a, b).item(), 4) for b in (jnp.exp(a), -a, jnp.ones(3))]
    [1.0, -1.0, nan]
    """
    return _cosine(*(jnp.vectorize(_centered_ranks, signature="(n)->(n)")(v) for v in (a, b)))


def _cosine(x: Array, y: Array) -> Array:
    size = jnp.sqrt((x**2).sum(-1)) * jnp.sqrt((y**2).sum(-1))
    return jnp.where(size > 0, (x * y).sum(-1) / jnp.where(size > 0, size, 1), jnp.nan)


def _centered_ranks(s: Array) -> Array:
    """Return ranks less their mean, doubled so that they are whole."""
    ordered = jnp.sort(s)
    below = jnp.searchsorted(ordered, s, side="left")
    return (below + jnp.searchsorted(ordered, s, side="right") - len(s)).astype(s.dtype)
