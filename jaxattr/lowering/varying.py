"""Arrays that differ from device to device, inside `jax.shard_map` or on an explicit mesh."""

from typing import Any, TypeVar

import jax
from jax import lax
from jax.core import ShapedArray
from jax.sharding import AxisType

T = TypeVar("T")


def vary_like(tree: T, like: Any) -> T:
    """Let arrays vary from device to device as another one does, inside `jax.shard_map`.

    A parameter that starts with the same value on every device counts as one parameter of them all
    there, and its derivative is summed over the devices: each image would be explained by the
    others as well.

    Args:
        tree: arrays.
        like: an array, or its shape and dtype, that varies as the batch does.
    """
    axes = _varying(like)

    def vary(a: Any) -> Any:
        missing = tuple(axes - _varying(a))
        if not missing:
            return a
        if hasattr(lax, "pcast"):
            return lax.pcast(a, missing, to="varying")
        return lax.pvary(a, missing)  # pyright: ignore[reportAttributeAccessIssue]

    return jax.tree.map(vary, tree)


def is_laid_out(a: Any) -> bool:
    """Whether an array, or its aval, has axes that are spread over an explicit mesh by its type."""
    aval = _aval(a)
    mesh = getattr(aval.sharding, "mesh", None)
    explicit = mesh is not None and AxisType.Explicit in mesh.axis_types
    return explicit and any(part is not None for part in aval.sharding.spec)


def laid_out_like(a: jax.Array, like: Any) -> jax.Array:
    """Lay an array out over an explicit mesh as another one of its shape is, inside `jit` too.

    There the layout is part of a type, and has to fit where arrays are carried or given back.

    Args:
        a: an array.
        like: an array, or its shape and dtype.
    """
    a = vary_like(a, like)
    fits = is_laid_out(like) and a.shape == like.shape
    return jax.sharding.reshard(a, _aval(like).sharding) if fits else a


def _varying(a: Any) -> frozenset:
    """Return the axes of a mesh along which an array varies, by both names that JAX has had."""
    kind = getattr(_aval(a), "manual_axis_type", None)
    return getattr(kind, "varying", None) or getattr(_aval(a), "vma", None) or frozenset()


def _aval(a: Any) -> Any:
    return a if isinstance(a, jax.ShapeDtypeStruct | ShapedArray) else jax.typeof(a)
