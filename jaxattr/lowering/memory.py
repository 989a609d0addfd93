"""What the CPU backend should keep in memory, and not compute again wherever it is read.

XLA merges an elementwise operation into each of its readers. In a residual network that makes the
n-th sum of a stage from the n convolutions before it, all of which stay in memory; and in a
backward pass it makes a gate's 0 or 1 from what once entered it, four bytes an element kept for
one.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from jaxattr.lowering.transposes import linear, on_cpu
from jaxattr.lowering.varying import is_laid_out
from jaxattr.types import Array


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
    return _gate(a) if a.size and not is_laid_out(a) else a


def _fenced(a: Array) -> Array:
    # Nothing is merged across a conditional. XLA takes one away whose branches are the same, or
    # whose condition it knows; what is behind a barrier it does not know.
    known = lax.optimization_barrier(jnp.ones((), bool))
    return lax.cond(known, _itself, lax.optimization_barrier, a)


_gate = on_cpu(_fenced, _itself)


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
    activation = jax.custom_jvp(activation)

    def booleans(operands: Sequence[Array], changes: Sequence[Array]) -> tuple[Array, Array]:
        y, push = jax.linearize(value, *operands)
        push = jax.tree.map(lambda a: pack_gate(a) if a.dtype == bool else a, push)
        return y, push(*changes)

    def halves(operands: Sequence[Array], changes: Sequence[Array]) -> tuple[Array, Array]:
        # A bound that is met halves the derivative.
        (z,), (u,) = operands, changes
        y, slope = jax.jvp(value, (z,), (jnp.full_like(z, 2**bounds),))
        slope = pack_gate(slope.astype(jnp.uint8))
        return y, jnp.where(slope == 0, 0, u * (slope.astype(u.dtype) / 2**bounds))

    activation.defjvp(halves if 0 < bounds < 8 else booleans)
    return activation
