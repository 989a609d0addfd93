"""The dtype in which a loop accumulates."""

import jax.numpy as jnp

from jaxattr.types import Array


def at_least_float32(a: Array) -> Array:
    """Return an array in float32, or in its own dtype where that is wider.

    >>> import jax.numpy as jnp
    >>> at_least_float32(jnp.ones(1, "bfloat16")).dtype
    dtype('float32')
    """
    return a.astype(jnp.promote_types(a.dtype, jnp.float32))
