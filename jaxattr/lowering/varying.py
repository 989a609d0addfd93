"""Arrays that differ from device to device, inside `jax.shard_map`."""

from typing import Any, TypeVar

import jax
from jax import lax
from jax.core import ShapedArray

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


def _varying(a: Any) -> frozenset:
    """Return the axes of a mesh along which an array varies, by both names that JAX has had."""
    kind = getattr(aval_of(a), "manual_axis_type", None)
    return getattr(kind, "varying", None) or getattr(aval_of(a), "vma", None) or frozenset()


def aval_of(a: Any) -> Any:
    """Return the type of an array, or of what stands for one."""
    return a if isinstance(a, jax.ShapeDtypeStruct | ShapedArray) else jax.typeof(a)
