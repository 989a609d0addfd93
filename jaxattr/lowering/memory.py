"""What the CPU backend should keep in memory, and not compute again wherever it is read.

XLA merges an elementwise operation into each of its readers. In a residual network that makes the
n-th sum of a stage from the n convolutions before it, all of which stay in memory; and in a
backward pass it makes a gate's 0 or 1 from what once entered it, four bytes an element kept for
one.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import ShapedArray
from jax.sharding import AxisType

from jaxattr.lowering.transposes import linear, on_cpu
from jaxattr.types import Array


def is_laid_out(a: Any) -> bool:
    """Whether an array, or its aval, has axes that are spread over an explicit mesh by its type."""
    aval = a if isinstance(a, jax.ShapeDtypeStruct | ShapedArray) else jax.typeof(a)
    mesh = getattr(aval.sharding, "mesh", None)
    explicit = mesh is not None and AxisType.Explicit in mesh.axis_types
    return explicit and any(part is not None for part in aval.sharding.spec)


def materialize(a: Array) -> Array:
    """Return `a`, computed once for all its readers; and so is the cotangent that comes back."""
    return _materialize(a)


def _itself(a: Array) -> Array:
    return a


def _twice_read(a: Array) -> Array:
    # XLA repeats an operation with one large operand, such as a ReLU, but not one with two.
    return jnp.where(a == a, a, jnp.asarray(jnp.nan, a.dtype))


_materialize = linear(on_cpu(_twice_read, _itself), on_cpu(_twice_read, _itself))


def pack_gate(a: Array) -> Array:
    """Return booleans or bytes, computed where they stand and not where they are read."""
    return on_cpu(_fenced, _itself)(a) if a.size and not is_laid_out(a) else a


@jax.jit  # outside of a program it is then compiled once for each shape, not at every call
def _fenced(a: Array) -> Array:
    # Nothing is merged across a conditional, and that both branches are one is not looked for.
    return lax.cond(a.ravel()[0].astype(bool), _as_byte, _as_byte, a).astype(a.dtype)


def _as_byte(a: Array) -> Array:
    return a.astype(jnp.int8)


def with_packed_gates(
    value: Callable[..., Array], name: str, *, bounds: int
) -> Callable[..., Array]:
    """Return an activation with its own derivative, its gates packed for the backward pass.

    Args:
        value: the activation, of one or more operands.
        name: what it is called.
        bounds: if it is a chain of `max`, `min` and `clamp` of one operand, of how many; else 0.
    """

    def activation(*operands: Array) -> Array:
        return value(*operands)

    activation.__name__ = name
    activation = jax.custom_vjp(activation)

    def booleans(*operands: Array) -> tuple[Array, Any]:
        y, pull = jax.vjp(value, *operands)
        return y, jax.tree.map(lambda a: pack_gate(a) if a.dtype == bool else a, pull)

    def halves(z: Array) -> tuple[Array, Array]:  # a bound that is met halves the derivative
        y, pull = jax.vjp(value, z)
        return y, pack_gate((pull(jnp.full_like(y, 2**bounds))[0]).astype(jnp.uint8))

    def halved(slope: Array, g: Array) -> tuple[Array]:
        return (jnp.where(slope == 0, 0, g * (slope.astype(g.dtype) / 2**bounds)),)

    if 0 < bounds < 8:
        activation.defvjp(halves, halved)
    else:
        activation.defvjp(booleans, lambda pull, g: pull(g))
    return activation
