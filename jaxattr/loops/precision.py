"""The dtype in which a loop accumulates."""

import jax
import numpy as np

from jaxattr.types import Array


def at_least_float32(a: Array) -> Array:
    """Return real numbers in float32, or in float64 where their dtype needs it and JAX has it.

    >>> import jax.numpy as jnp
    >>> at_least_float32(jnp.ones(1, "bfloat16")).dtype
    dtype('float32')
    """
    return a.astype(jax.dtypes.canonicalize_dtype(np.promote_types(a.dtype, np.float32)))
