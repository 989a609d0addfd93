"""Python called from a compiled program."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from jaxattr.lowering import is_laid_out
from jaxattr.lowering.varying import laid_out_like
from jaxattr.types import Array

AT_ONCE = 2**16
"""Bytes that JAX copies at once; from 100 KiB on it leaves the copy to its pool of threads."""


def call(
    function: Callable[..., np.ndarray], result: jax.ShapeDtypeStruct, *arrays: Array
) -> Array:
    """Call a pure function of NumPy arrays on the host, under `jit` and `vmap` too.

    As `jax.pure_callback`, but it does not wait for itself. There, arguments are copied by the pool
    of threads that runs programs as well. On a machine of one core, a program that runs on the
    pool's only thread waits forever for the copy of its own large argument. So arrays go over in
    pieces that are small enough to be copied at once.

    Args:
        function: of the arrays, to one of the shape and dtype of `result`.
        result: what it returns.
        arrays: its arguments. It may write to them.
    """
    shapes = [a.shape for a in arrays]

    def join(*pieces: list[Array]) -> np.ndarray:
        whole = (np.concatenate([np.asarray(p) for p in parts]) for parts in pieces)
        return function(*(a.reshape(shape) for a, shape in zip(whole, shapes, strict=True)))

    return jax.pure_callback(join, result, *map(_pieces, arrays), vmap_method="sequential")


def call_each(
    function: Callable[..., np.ndarray], result: jax.ShapeDtypeStruct, *arrays: Array
) -> Array:
    """Do what `call` does for each image of a batch; `result` is that of one.

    The host sees one image after another, so that a batch laid out over an explicit mesh is brought
    together before, and laid out again after.
    """
    laid_out = any(map(is_laid_out, arrays))
    whole = jax.sharding.reshard(arrays, PartitionSpec()) if laid_out else arrays
    found = jax.vmap(partial(call, function, result))(*whole)
    return laid_out_like(found, arrays[-1])


def _pieces(a: Array) -> list[Array]:
    flat, length = jnp.ravel(a), AT_ONCE // a.dtype.itemsize
    return [flat[i : i + length] for i in range(0, max(flat.size, 1), length)]
