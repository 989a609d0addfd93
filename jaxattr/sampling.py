"""Averages over many evaluations, in memory that does not grow with their number."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxattr.types import Array


class Moments(NamedTuple):
    """The weighted mean and mean squared deviation of samples."""

    mean: Array
    variance: Array


def moments(
    evaluate: Callable[[Any], Array], samples: Any, weights: Array, *, chunk: int = 1
) -> Moments:
    """Evaluate samples one chunk after another, and return their mean and variance.

    Args:
        evaluate: one sample to an array.
        samples: a pytree of arrays with the samples along the first axis.
        weights: a weight for each sample, not all zero.
        chunk: how many samples are evaluated at once, by `vmap`.

    Returns:
        `sum(w a) / sum(w)`, and the mean of the squared deviations from it with the same weights,
        both by the running update of Chan, Golub and LeVeque, which loses no digits. They are
        accumulated in at least float32.
    """
    n = weights.shape[0]
    turns = -(-n // chunk)
    order = jnp.minimum(jnp.arange(turns * chunk), n - 1).reshape(turns, chunk)
    result = jax.eval_shape(evaluate, jax.tree.map(lambda a: a[0], samples))
    wide = jnp.promote_types(result.dtype, jnp.float32)
    weights = jnp.pad(weights, (0, turns * chunk - n)).reshape(turns, chunk).astype(wide)

    def turn(carry: tuple[Array, Moments], chunk_: tuple[Any, Array]) -> tuple[Any, None]:
        seen, old = carry
        values, w = jax.vmap(evaluate)(chunk_[0]).astype(wide), chunk_[1]
        total = seen + w.sum()
        share = jnp.where(total == 0, 0, w.sum() / jnp.where(total == 0, 1, total))
        new = _mean(values, w)
        spread = _mean((values - new) ** 2, w)
        mean = old.mean + share * (new - old.mean)
        variance = (1 - share) * old.variance + share * spread
        variance += share * (1 - share) * (new - old.mean) ** 2
        return (total, Moments(mean, variance)), None

    zero = jnp.zeros(result.shape, wide)
    start = (jnp.zeros((), wide), Moments(zero, zero))
    (_, found), _ = lax.scan(turn, start, (jax.tree.map(lambda a: a[order], samples), weights))
    return Moments(*(a.astype(result.dtype) for a in found))


def _mean(values: Array, weights: Array) -> Array:
    total = weights.sum()
    shares = jnp.where(total == 0, 0, weights / jnp.where(total == 0, 1, total))
    return jnp.tensordot(shares, values, axes=1)
