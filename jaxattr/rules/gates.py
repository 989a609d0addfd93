"""Rules for the gate of a non-linearity: what an activation lets back.

`z` is what enters the activation, `g` the gradient that arrives from above, and `slope` its
derivative at `z`: the gate `1[z > 0]` for a ReLU, `1[0 < z < 6]` for a ReLU6.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from jaxattr.lowering import pack_gate
from jaxattr.programs.slopes import is_gate, select
from jaxattr.tracing.local import Local, Rule, with_backward


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

        packs = is_gate(local.equations)

        def fwd(*operands: Any) -> tuple[jax.Array, Any]:
            values = [operand.value for operand in operands]
            gate = pack_gate(local.slope(*values) != 0) if packs else None
            learned = any(operand.perturbed for operand in operands[1:])
            return local.value(*values), (gate, values, () if learned else None)

        def bwd(residuals: Any, g: Any) -> tuple[Any, ...]:
            gate, (z, *parameters), learned = residuals
            if isinstance(g, SymbolicZero):
                return (None,) * (1 + len(parameters))
            slope = lambda: local.slope(z, *parameters) if gate is None else gate.astype(z.dtype)
            back = backward(g, z, slope).astype(z.dtype)
            if learned is None:  # such as what a function with its own derivative closes over
                return (back, *[None] * len(parameters))
            _, pull = jax.vjp(lambda *p: local.value(z, *p), *parameters)
            return (back, *pull(g))

        activation.defvjp(fwd, bwd, symbolic_zeros=True)
        return activation

    return rule


def masked(masks: Mapping[int, jax.Array]) -> Rule:
    """Make DMBP's rule: `mask * slope * g` (Ruiz et al., ICCV 2021, eq. 5).

    Args:
        masks: a mask for each activation, by its position among `jaxattr.sites`, of the shape of
            its output or broadcasting to it.

    Returns:
        A rule, differentiable with respect to the masks.
    """

    def rule(local: Local) -> Callable[..., jax.Array]:
        backward = lambda mask, operands, g: [mask * select(local.slope(*operands), g)]
        return with_backward(local, backward, masks[local.site.position])

    return rule


def scaled(theta: jax.Array, multiplier: jax.Array | None, g: jax.Array) -> jax.Array:
    """Return what LPR's plugin makes of a gradient."""
    return jnp.tanh(theta * g if multiplier is None else theta * multiplier * g)


def learned(
    theta: Mapping[int, jax.Array],
    multipliers: Mapping[int, jax.Array | None],
    plugin: Callable[..., jax.Array] = scaled,
) -> Rule:
    """Make LPR's rule: `tanh(theta * multiplier * g)` (Yang et al., ECCV 2020, section 3.2).

    Args:
        theta: a parameter for each activation, by its position among `jaxattr.sites`.
        multipliers: likewise what multiplies it; None is 1.
        plugin: `(theta, multiplier, g) -> gradient`, another rule with parameters.

    Returns:
        A rule, differentiable with respect to `theta`.
    """

    def rule(local: Local) -> Callable[..., jax.Array]:
        factor = multipliers[local.site.position]

        def backward(theta: jax.Array, operands: Any, g: jax.Array) -> list[jax.Array]:
            return [plugin(theta, factor, g)]

        return with_backward(local, backward, theta[local.site.position])

    return rule


guided: Rule = gate(lambda g, z, slope: select(slope(), jnp.maximum(g, 0)))
"""Guided backpropagation: `max(g, 0) * slope` (Springenberg et al., ICLR workshop 2015, fig. 1)."""

deconvolution: Rule = gate(lambda g, z, slope: jnp.maximum(g, 0))
"""Deconvnet: `max(g, 0)`, whatever `z` was (Zeiler and Fergus, ECCV 2014, section 2.1)."""

gradient: Rule = gate(lambda g, z, slope: select(slope(), g))
"""The gradient itself, `g * slope`, the same at a kink however the activation is spelled."""
