"""Rules for the gate of a non-linearity: what an activation lets back.

`z` is what enters the activation, `g` the gradient that arrives from above, and `slope` its
derivative at `z`: the gate `1[z > 0]` for a ReLU, `1[0 < z < 6]` for a ReLU6.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxattr.tracing.rewrite import Local, Rule


def gate(backward: Callable[[jax.Array, jax.Array, Callable[[], jax.Array]], jax.Array]) -> Rule:
    """Make a rule for activations from what it does to the gradient.

    Args:
        backward: `(g, z, slope) -> gradient for z`, all of one shape; `slope()` computes it.

    Returns:
        A rule that keeps the activation's value, and the true gradient of its parameters if it
        has any (a PReLU's slope).
    """

    def rule(local: Local) -> Callable[..., jax.Array]:
        @jax.custom_vjp
        def activation(*operands: Any) -> jax.Array:
            return local.value(*operands)

        def forward(*operands: Any) -> tuple[jax.Array, tuple[Any, ...]]:
            return local.value(*operands), operands

        def reverse(operands: tuple[Any, ...], g: jax.Array) -> tuple[Any, ...]:
            z, *parameters = operands
            back = backward(g, z, lambda: local.slope(*operands)).astype(z.dtype)
            if not parameters:
                return (back,)
            _, pull = jax.vjp(lambda *p: local.value(z, *p), *parameters)
            return (back, *pull(g))

        activation.defvjp(forward, reverse)
        return activation

    return rule


guided: Rule = gate(lambda g, z, slope: jnp.maximum(g, 0) * slope())
"""Guided backpropagation: `max(g, 0) * slope` (Springenberg et al., ICLR workshop 2015, fig. 1)."""

deconvolution: Rule = gate(lambda g, z, slope: jnp.maximum(g, 0))
"""Deconvnet: `max(g, 0)`, whatever `z` was (Zeiler and Fergus, ECCV 2014, section 2.1)."""
