"""DeepLIFT's rules: multipliers between two inputs instead of derivatives at one.

Every operation sends back multipliers `m` for what enters it that account for the whole change of
its output between a reference and the input, however far apart the two are:

    sum_i m_i (x_i - x0_i) = m_out (y - y0)

so that they chain as derivatives do. What is linear has them already: its own derivative.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from jaxattr.programs import interpret
from jaxattr.programs.control_flow import written_out
from jaxattr.programs.interpret import Equation, Program
from jaxattr.programs.primitives import Kind
from jaxattr.programs.slopes import select
from jaxattr.structures.operations import extremum, is_layer
from jaxattr.tracing.freeze import refuse_loops, selection
from jaxattr.tracing.local import Local, Rule, plain, refuse, with_backward
from jaxattr.tracing.sites import Scope, every, should_inline_remat, survey
from jaxattr.tracing.transform import Traced
from jaxattr.types import Array

Operands: TypeAlias = tuple[Any, ...]
Multiply: TypeAlias = Callable[[Local, Operands, Operands, Array], Sequence[Array]]
"""`(operation, operands at the reference, at the input, m_out) -> m` for each active operand."""


def read(f: Callable[..., Any], x: Array) -> Traced:
    """Read a function for DeepLIFT.

    Raises:
        UnsupportedOperation: if `f` has an activation, pool or product in a loop of unknown length.
    """
    program, tree = interpret.read(f, x, inline=should_inline_remat, write_out=written_out)
    traced = Traced(survey(_unstopped(program)), tree)
    refuse_loops(traced.scope)
    return traced


def rules(traced: Traced, start: Array) -> dict[str, Rule]:
    """Return the rules whose cotangents are multipliers from a reference to wherever they run.

    Raises:
        UnsupportedOperation: if an operation is of unknown kind.
    """
    refused: dict[str, Rule] = {Kind.UNKNOWN: refuse}
    seen = traced.observe(dict.fromkeys(_MULTIPLY, plain) | refused, start)
    references = {position: operation.operands for position, operation in seen.items()}
    scales = _scales(traced.scope)

    def multiply(kind: str) -> Multiply:
        if kind != Kind.PRODUCT:
            return _MULTIPLY[kind]
        return lambda local, *given: product(local, *given, scale=scales.get(local.site.position))

    return {k: _rule(multiply(k), references) for k in _MULTIPLY} | refused


def _scales(scope: Scope) -> dict[int, int]:
    """Return which factor of a product, by position, is an inverse power of a statistic."""
    inverse: set[int] = set()
    found = {}
    for place in every(scope):
        o = place.operation
        entering = o.operands[: o.active]
        made = o.kind is Kind.STATISTIC and any(map(_inverts, o.equations))
        carried = o.kind in (Kind.STRUCTURE, Kind.LINEAR, Kind.AFFINE)
        if made or (carried and inverse.issuperset(entering)):
            inverse.update(o.outputs)
        elif place.site is not None and o.leader.primitive == "mul" and len(entering) == 2:
            first, second = (a in inverse for a in entering)
            if first != second:
                found[place.site.position] = int(second)
    return found


def _inverts(e: Equation) -> bool:
    return e.primitive in ("rsqrt", "div", "pow") or e.params.get("y", 0) < 0


def rescaled(f: Callable[..., Any], start: Array) -> Callable[..., Any]:
    """Transform `f` into a function of the same values whose VJP is DeepLIFT's multipliers.

    Law: with `m` the VJP of `c` at `x`, `sum(m * (x - start))` equals `sum(c * (f(x) - f(start)))`.

    Args:
        f: a function of one argument.
        start: the reference, of the shape of that argument.

    Raises:
        UnsupportedOperation: if `f` chooses between values by a condition that depends on its
            argument, or contains an unknown operation, or an activation in a loop of unknown
            length.
    """
    traced = read(f, start)
    return partial(traced.run, rules(traced, start))


def changes(traced: Traced, start: Array, x: Array) -> dict[int, Array]:
    """Return by how much the output of every operation outside loops changes, by position."""
    outside = {p.site.position for p in traced.scope.places if p.site is not None}

    def outputs(x: Array) -> dict[int, Array]:
        seen = traced.observe(dict.fromkeys(Kind, plain), x)
        return {position: seen[position].output for position in seen.keys() & outside}

    return jax.tree.map(jnp.subtract, outputs(x), outputs(start))


def _unstopped(program: Program) -> Program:
    """Return a program without its `stop_gradient`s: what changes is to be accounted for."""
    same: dict[Any, Any] = {}
    equations = []
    for e in program.equations:
        inputs = tuple(same.get(a, a) if isinstance(a, int) else a for a in e.inputs)
        if e.primitive == "stop_gradient":
            same[e.outputs[0]] = inputs[0]
        else:
            equations.append(e._replace(inputs=inputs))
    outputs = tuple(same.get(a, a) if isinstance(a, int) else a for a in program.outputs)
    return program._replace(equations=tuple(equations), outputs=outputs)


def _rule(multiply: Multiply, references: Mapping[int, Operands]) -> Rule:
    def rule(local: Local) -> Callable[..., Array]:
        backward = lambda reference, operands, m: multiply(local, reference, operands, m)
        return with_backward(local, backward, references[local.site.position])

    return rule


def secant(local: Local, reference: Operands, operands: Operands, m: Array) -> Sequence[Array]:
    """Give an elementwise function the slope of its secant: the Rescale rule.

    Where rounding cannot tell the secant from the slope half-way, as for a change of zero, it is
    that slope.
    """
    (z0, z1), rest = (reference[0], operands[0]), operands[1:]
    y0, y1 = local.value(*reference), local.value(*operands)
    slope = local.slope((z0 + z1) / 2, *rest)
    straight = slope * (z1 - z0)
    size = jnp.maximum(jnp.abs(y0), jnp.abs(y1))
    size = jnp.maximum(size, jnp.abs(slope) * jnp.maximum(jnp.abs(z0), jnp.abs(z1)))
    alike = jnp.abs(y1 - y0 - straight) <= 8 * jnp.finfo(m.dtype).eps * size
    alike |= z1 == z0
    return [select(jnp.where(alike, slope, (y1 - y0) / jnp.where(alike, 1, z1 - z0)), m)]


def midpoint(local: Local, reference: Operands, operands: Operands, m: Array) -> Sequence[Array]:
    """Give a quadratic or bilinear function its derivative half-way, where it is exact.

        a b - a0 b0 = (b + b0)/2 (a - a0) + (a + a0)/2 (b - b0)

    Both factors are treated alike.
    """
    n = local.active
    if not all(jnp.issubdtype(o.dtype, jnp.inexact) for o in operands[:n]):
        refuse(local)  # a condition that depends on x
    between = [(a + b) / 2 for a, b in zip(reference[:n], operands[:n], strict=True)]
    _, pull = jax.vjp(lambda *active: local.value(*active, *operands[n:]), *between)
    return pull(m)


def product(
    local: Local,
    reference: Operands,
    operands: Operands,
    m: Array,
    *,
    scale: int | None = None,
) -> Sequence[Array]:
    """Split the change of a product by `midpoint`, that of a quotient by that of `a = y b`.

        a / b - a0 / b0 = (2 (a - a0) - (y + y0) (b - b0)) / (b + b0),    y = a / b

    A norm is a quotient too where it multiplies by `1 / b`, the factor number `scale`. However
    small `b0` is, as for a reference without variance, nothing large cancels here. Where `b`
    changes its sign, it is the product `a * (1 / b)`.
    """
    division = local.equations[-1].primitive == "div"
    if not division and scale is None:
        return midpoint(local, reference, operands, m)
    _, pull = jax.vjp(jnp.broadcast_arrays, *operands[:2])
    if division:
        (a0, b0), (a1, b1) = reference, operands
        same = (b0 > 0) == (b1 > 0)
        total = jnp.where(same, b0 + b1, 1)
        of_a = jnp.where(same, 2 / total, (1 / b0 + 1 / b1) / 2)
        of_b = jnp.where(same, (a0 / b0 + a1 / b1) / total, (a0 + a1) / (2 * b0 * b1))
        return pull([m * of_a, -m * of_b])
    (a0, a1), (b0, b1) = ((reference[i], operands[i]) for i in (not scale, bool(scale)))
    same = b0 * b1 > 0
    w = jnp.where(same, b0 / jnp.where(same, b0 + b1, 1), 0.5)
    back = [m * (w * b1 + (1 - w) * b0), m * (w * a0 + (1 - w) * a1)]
    return pull(back if scale else back[::-1])


def statistic(local: Local, reference: Operands, operands: Operands, m: Array) -> Sequence[Array]:
    """Take the secant of an elementwise statistic, the midpoint of a square."""
    squares = is_layer(local.equations[-1])
    return (midpoint if squares else secant)(local, reference, operands, m)


def cross_maximum(
    local: Local, reference: Operands, operands: Operands, m: Array
) -> Sequence[Array]:
    """Give the change of a maximum to its winner, at the input if it grew, else at the reference.

    That element has changed by at least as much, so the multiplier is in [0, 1]; what overlapping
    windows give to one element adds up. Sorted values are differences of sums of the largest,
    which are maxima over sets of elements.
    """
    n, name = local.active, extremum(local.equations) or local.equations[-1].primitive
    x0, x1 = reference[:n], operands[:n]
    if name == "select_n":
        refuse(local)  # a condition that depends on x
    picks = [selection(local, *x) for x in (x0, x1)]
    summed = lambda y: y
    if name in ("sort", "top_k"):
        params, up = local.equations[-1].params, name == "sort"
        axis = params.get("dimension", params.get("axis", -1)) % m.ndim
        summed = partial(lax.cumsum, axis=axis, reverse=up)
        zeros = jnp.zeros_like(lax.slice_in_dim(m, 0, 1, axis=axis))
        m = jnp.diff(m, axis=axis, prepend=zeros) if up else -jnp.diff(m, axis=axis, append=zeros)
    change = summed(local.value(*x1) - local.value(*x0))
    at_reference = change > 0 if name.endswith("min") else change < 0
    back = [jnp.zeros_like(x) for x in x1]
    for pick, chosen in zip(picks, (at_reference, ~at_reference), strict=True):
        of_winner, pull = jax.vjp(
            lambda *a, pick=pick: summed(pick(*a)), *map(jnp.subtract, x1, x0)
        )
        still = of_winner == 0
        ratio = jnp.where(still, 1, change / jnp.where(still, 1, of_winner))
        back = map(jnp.add, back, pull(m * jnp.where(chosen, ratio, 0)))
    return list(back)


_MULTIPLY: Mapping[str, Multiply] = {
    Kind.ACTIVATION: secant,
    Kind.MAX_POOL: cross_maximum,
    Kind.PRODUCT: product,
    Kind.STATISTIC: statistic,
}
