"""Samples parted into chunks, of which a loop takes one after another."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxattr.types import Array


class Chunks(NamedTuple):
    """Numbers of samples, a row for each chunk.

    Attributes:
        numbers: `(chunks, size)`; where samples run out the last one is repeated.
        valid: false where a number is such a repetition, bool `(chunks, size)`.
    """

    numbers: Array
    valid: Array


def chunks(samples: int, size: int) -> Chunks:
    """Part samples into chunks of about equal size, so that few are computed twice.

    Args:
        samples: how many there are.
        size: how many a chunk has, at most.

    Example:
        >>> chunks(225, 16).numbers.shape, chunks(5, 2).numbers.tolist()
        ((15, 15), [[0, 1], [2, 3], [4, 4]])
    """
    count = -(-samples // size)
    numbers = jnp.arange(count * -(-samples // count)).reshape(count, -1)
    return Chunks(jnp.minimum(numbers, samples - 1), numbers < samples)


def joined(parts: Any, samples: int) -> Any:
    """Put the results `(chunks, size, ...)` of a loop over chunks together: `(samples, ...)`."""
    return jax.tree.map(lambda a: a.reshape(a.shape[0] * a.shape[1], *a.shape[2:])[:samples], parts)
