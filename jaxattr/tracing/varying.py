"""Arrays that differ from device to device, inside `jax.shard_map` or on an explicit mesh."""

from typing import Any

import jax

from jaxattr.lowering import is_laid_out
from jaxattr.lowering.varying import aval_of
from jaxattr.lowering.varying import vary_like as vary_like


def laid_out_like(a: jax.Array, like: Any) -> jax.Array:
    """Lay an array out over an explicit mesh as another one of its shape is, inside `jit` too.

    There the layout is part of a type, and has to fit where arrays are carried or given back.

    Args:
        a: an array.
        like: an array, or its shape and dtype.
    """
    a = vary_like(a, like)
    fits = is_laid_out(like) and a.shape == like.shape
    return jax.sharding.reshard(a, aval_of(like).sharding) if fits else a
