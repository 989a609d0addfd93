"""Relevance rules: backward passes in which the cotangent of a value *is* its relevance.

What carries a value from one place to another (reshapes, slices, padding, concatenation, the
winner of a max-pool) hands relevance back by its own derivative and needs no rule. Activations
pass it. Sums and average pools split it among what they add; layers with weights do as a rule of
theirs says (`lrp.py`). A rule conserves relevance if what it hands down sums to what arrived.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxattr.programs.primitives import Form
from jaxattr.tracing.local import Local, Rule, UnsupportedOperation, plain, refuse, with_backward
from jaxattr.tracing.weights import Weighted
from jaxattr.types import Array


def relevance(backward: Callable[[Array, Local, Sequence[Any]], Sequence[Array]]) -> Rule:
    """Make a rule from what it does to relevance.

    Args:
        backward: `(relevance, local, operands) -> relevances`: from the relevance of the output,
            the operation and the values of all its operands to the relevance of each of those
            that depend on x, `operands[:local.active]`.

    Returns:
        A rule that keeps the operation's value. Weights are given no relevance.
    """
    return lambda local: with_backward(local, lambda _, operands, r: backward(r, local, operands))


def of_layer(backward: Callable[[Array, Array, Weighted], Array]) -> Rule:
    """Make a rule for affine operations.

    Args:
        backward: `(relevance, x, layer) -> relevance of x`, for `layer.apply(x, layer.weight) +
            layer.shift`.
    """
    return relevance(
        lambda r, local, operands: [backward(r, operands[0], local.weighted(*operands))]
    )


ROUNDING = 64
"""How many units of the last place a sum of some thousand summands may be wrong by."""

passing: Rule = relevance(lambda r, local, operands: [r])
"""Pass relevance on: the rule of activations, and of what maps each entry to one entry."""


def settled(a: Array, size: Array) -> Array:
    """Return `a`, 0 where rounding alone may have left it of summands whose magnitudes are `size`.

    What is decided by the sign of a sum, or by whether it is 0, is so the same however it is added.
    """
    return jnp.where(jnp.abs(a) <= ROUNDING * jnp.finfo(a.dtype).eps * size, 0, a)


def divide(r: Array, z: Array, stabilizer: float = 0.0) -> Array:
    """Return `r / (z + sign(z) * stabilizer)`, with `sign(0) = 1`; 0 where that is `r / 0`."""
    z = z + jnp.where(z < 0, -stabilizer, stabilizer).astype(z.dtype)
    limits = jnp.finfo(z.dtype)
    empty = jnp.abs(z) <= limits.tiny / limits.eps
    return jnp.where(empty, 0, r / jnp.where(empty, 1, z))


def proportional(
    part: Callable[[Array], Array] = lambda a: a,
    *,
    stabilizer: float = 1e-6,
    conserve: bool = True,
) -> Rule:
    """Make the rule that splits relevance among summands in proportion to what they contribute.

        R_i = sum_k part(x_i) / (z_k + sign(z_k) stabilizer) R_k,    z_k = sum_i part(x_i)

    for residual sums, and for sums, means and average pools, which are layers of equal weights.

    Args:
        part: what counts of a summand: all of it, `jnp.abs`, its positive part.
        stabilizer: bounds the share where summands cancel.
        conserve: whether what the stabiliser and empty sums keep is spread evenly.
    """

    def backward(r: Array, local: Local, operands: Sequence[Any]) -> Sequence[Array]:
        summands, given = operands[: local.active], operands[local.active :]
        signs = (1, -1) if local.site.op == "sub" and len(summands) == 2 else (1,) * len(summands)

        def add(*parts: Array) -> Array:
            return local.linear(*(s * p for s, p in zip(signs, parts, strict=True)), *given)

        parts = [part(s * x) for s, x in zip(signs, summands, strict=True)]
        z, pull = jax.vjp(add, *parts)
        share = divide(r, z, stabilizer)
        down = [p * c for p, c in zip(parts, pull(share), strict=True)]
        avals = [aval for e in local.equations for aval in e.output_avals]
        if conserve and not any(jnp.issubdtype(a.dtype, jnp.complexfloating) for a in avals):
            kept = settled(r - share * z, jnp.abs(r))
            rest = pull(divide(kept, add(*map(jnp.ones_like, parts))))
            down = [a + b for a, b in zip(down, rest, strict=True)]
        return down

    split = relevance(backward)

    def rule(local: Local) -> Callable[..., Array]:
        row = local.equations[-1].row
        # Where no two entries meet, relevance goes back to where the entry came from.
        return (plain if row.places or row.form is Form.SELECT else split)(local)

    return rule


def gated(local: Local) -> Callable[..., Array]:
    """Pass relevance through a gate to the signal, as if the gate were a constant.

    For gates that the composite does not hold: the factor that is the same at many places. A
    product of two values of one shape is refused, for neither is the gate; a selection is followed
    to what it selects.

    Reference:
        Arras et al., Explaining recurrent neural network predictions in sentiment analysis, WASSA
        2017, section 3.2: the signal takes all.
    """
    if local.site.op == "select_n":
        return plain(local)

    def backward(r: Array, local: Local, operands: Sequence[Any]) -> Sequence[Array]:
        return [r if a.shape == r.shape else jnp.zeros_like(a) for a in operands[: local.active]]

    passed = relevance(backward)(local)

    def product(*operands: Any) -> Array:
        signals = [a.shape == local.site.shape for a in operands[: local.active]]
        return (passed if local.site.op == "mul" and sum(signals) == 1 else refuse(local))(
            *operands
        )

    return product


def halved(stabilizer: float = 1e-6) -> Rule:
    """Make the rule that gives each of two factors half of what their products get.

        R(A)_ji = sum_p A_ji V_ip R_jp / (2 O_jp + eps),   R(V)_ip likewise,   O = A V

    and half of the relevance, exactly, to each factor of an elementwise product. Of a quotient the
    numerator takes all. Law: conserves, up to the stabilizer.

    Reference:
        Achtibat et al., AttnLRP, ICML 2024, eqs. 13 and 15.
    """

    def backward(r: Array, local: Local, operands: Sequence[Any]) -> Sequence[Array]:
        factors, given = operands[: local.active], operands[local.active :]
        if local.site.op == "div":
            return [r, jnp.zeros_like(factors[1])]
        if local.site.op == "mul" and all(a.shape == r.shape for a in factors):
            return [r / 2] * 2
        z, pull = jax.vjp(lambda *a: local.value(*a, *given), *factors)
        share = divide(r, 2 * z, stabilizer)
        return [a * c for a, c in zip(factors, pull(share), strict=True)]

    half = relevance(backward)
    return lambda local: (plain if local.site.op == "select_n" else half)(local)


def _taylor(r: Array, local: Local, operands: Sequence[Any]) -> Sequence[Array]:
    z, *given = operands
    s, pull = jax.vjp(lambda z: local.value(z, *given), z)
    (c,) = pull(divide(r, s))
    return [jnp.where(c == 0, 0, z * c)]


taylor: Rule = relevance(_taylor)
"""The rule of a softmax, `R_i(z) = z_i (R_i - s_i sum_j R_j)` (Achtibat et al., 2024, eq. 11).

Law: it hands on `sum_i R_i (z_i - m)`, `m = sum_j s_j z_j`, and keeps the rest: what raises logits
above their mean counts for it, and where all are equal nothing is handed on.
"""


def normalization(local: Local) -> Callable[..., Array]:
    """Refuse a statistic that is not held, because it is what the function is after."""
    raise UnsupportedOperation(
        f"{local.site.where}, computes a statistic of the image, such as a softmax, that scales "
        "nothing; relevance has no rule for it. Explain logits rather than probabilities"
    )
