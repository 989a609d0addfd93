"""Many evaluations, one chunk after another, in memory that does not grow with their number."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxattr.loops.progress import Progress, report
from jaxattr.tracing.transform import with_rules
from jaxattr.types import Array, Fun


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


class Turns(NamedTuple):
    """Numbers of samples as a loop takes them, a chunk each turn.

    Attributes:
        numbers: `(turns, size)`; where samples run out the last one is repeated.
        counts: whether a number counts, that is, is no such repetition.
    """

    numbers: Array
    counts: Array


def turns(samples: int, chunk: int) -> Turns:
    """Part samples into chunks of about equal size, so that little is computed in vain.

    >>> turns(225, 16).numbers.shape, turns(5, 2).numbers.tolist()
    ((15, 15), [[0, 1], [2, 3], [4, 4]])
    """
    count = -(-samples // chunk)
    numbers = jnp.arange(count * -(-samples // count)).reshape(count, -1)
    return Turns(jnp.minimum(numbers, samples - 1), numbers < samples)


def answers(
    f: Fun,
    variant: Callable[[Array], Array],
    numbers: Array,
    read: Callable[[Array, Array], Any],
    *,
    chunk: int,
    progress: Progress | None = None,
) -> Any:
    """Evaluate a model on variants of a batch of images, a chunk of them after another.

    `f` is read and lowered by `with_rules`, and is traced once. Chunks are made about equal, so
    that little is computed in vain: for 225 variants and chunks of at most 16, nothing.

    Args:
        f: the model.
        variant: one of `numbers` to the images `(B, H, W, C)` that it stands for.
        numbers: what tells the variants apart, `(n,)`.
        read: logits `(B, K)`, in at least float32, and the variant's number to what is kept of
            them, a pytree of `(B,)`.
        chunk: how many variants of each image are evaluated at once, at most.
        progress: called with the number of variants done, up to a hundred times.

    Returns:
        The pytree with `(B, n)` for each `(B,)`.
    """
    n = numbers.shape[0]
    order = turns(n, chunk).numbers
    count, size = order.shape
    lowered = with_rules(f, {})

    def turn(turn_: tuple[Array, Array]) -> Any:
        i, numbers = turn_
        images = jax.vmap(variant)(numbers)
        wide = widened(lowered(images.reshape(-1, *images.shape[2:])))
        report(progress, i, n, each=size)
        return jax.vmap(read)(wide.reshape(*images.shape[:2], -1), numbers)

    values = lax.map(turn, (jnp.arange(count), numbers[order]))
    return jax.tree.map(lambda a: a.reshape(count * size, -1)[:n].T, values)


def widened(a: Array) -> Array:
    """Return an array in at least float32."""
    return a.astype(jnp.promote_types(a.dtype, jnp.float32))
