"""The mean and the variance of many samples, in memory that does not grow with their number."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxattr.loops.chunks import chunks
from jaxattr.loops.precision import at_least_float32
from jaxattr.loops.progress import Progress, report
from jaxattr.loops.samples import sampled
from jaxattr.lowering.varying import laid_out_like
from jaxattr.types import Array


class Moments(NamedTuple):
    """The weighted mean and mean squared deviation of samples."""

    mean: Array
    variance: Array


def moments(
    evaluate: Callable[..., Array],
    samples: Any,
    weights: Array,
    *batch: Array,
    chunk: int = 1,
    progress: Progress | None = None,
) -> Moments:
    """Evaluate samples one chunk after another, and return their mean and variance.

        mean = sum_i w_i a_i / sum_i w_i,    variance = sum_i w_i (a_i - mean)^2 / sum_i w_i

    by the running update of Chan, Golub and LeVeque, which does not subtract large numbers from
    each other, accumulated in at least float32. Law: the same for every `chunk`.

    Args:
        evaluate: one sample, and `batch`, to an array.
        samples: a pytree of arrays with the samples along the first axis.
        weights: a weight for each sample, not all zero.
        *batch: arrays with the images in front, as for `samples.sampled`.
        chunk: how many samples are evaluated at once, at most.
        progress: called with the number of samples done, up to a hundred times.
    """
    n = weights.shape[0]
    numbers, valid = chunks(n, chunk)
    count, size = numbers.shape
    result = jax.eval_shape(evaluate, jax.tree.map(lambda a: a[0], samples), *batch)
    zero = laid_out_like(at_least_float32(jnp.zeros(result.shape, result.dtype)), result)
    weights = jnp.where(valid, weights[numbers], 0).astype(zero.dtype)

    def step(carry: tuple[Array, Moments], chunk_: tuple[Array, Any, Array]) -> tuple[Any, None]:
        seen, old = carry
        i, samples, w = chunk_
        values = sampled(evaluate, samples, *batch).astype(zero.dtype)
        total = seen + w.sum()
        share = jnp.where(total == 0, 0, w.sum() / jnp.where(total == 0, 1, total))
        new = _mean(values, w)
        spread = _mean((values - new[None]) ** 2, w)
        mean = old.mean + share * (new - old.mean)
        variance = (1 - share) * old.variance + share * spread
        variance += share * (1 - share) * (new - old.mean) ** 2
        report(progress, i, n, each=size)
        return (total, Moments(mean, variance)), None

    start = (jnp.zeros((), zero.dtype), Moments(zero, zero))
    parts = jax.tree.map(lambda a: a[numbers], samples)
    (_, found), _ = lax.scan(step, start, (jnp.arange(count), parts, weights))
    return Moments(*(a.astype(result.dtype) for a in found))


def _mean(values: Array, weights: Array) -> Array:
    total = weights.sum()
    shares = jnp.where(total == 0, 0, weights / jnp.where(total == 0, 1, total))
    return jnp.tensordot(shares, values, axes=1)
