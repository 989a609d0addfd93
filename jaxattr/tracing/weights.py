"""The weights of an affine operation, and its map with others in their place.

What a relevance rule needs of a convolution, with a bias and a BatchNorm folded in, is the same map
with positive weights only, squared ones, or ones. All are elementwise functions of the effective
weight: that of the convolution, times the scales that follow. No Jacobian is built for it.
"""

import math
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxattr.lowering import by_taps
from jaxattr.lowering.varying import vary_like
from jaxattr.programs import interpret
from jaxattr.programs.dataflow import elementwise
from jaxattr.programs.interpret import Equation, Step, depending
from jaxattr.structures.folding import followed, weight_axes
from jaxattr.structures.operations import Operation
from jaxattr.types import Array


class Weighted(NamedTuple):
    """An affine operation as a layer: `y = apply(x, weight) + shift`.

    Attributes:
        linear: `x -> apply(x, weight)`, computed as the operation itself is.
        weight: the effective weight, every scale that follows folded in, whatever its sign.
        apply: `(x, weight) -> y`, bilinear, with any weight of that shape.
        apply_own: the same, for a weight that each image of a `vmap` has for itself.
        shift: what is added, by biases and BatchNorms; it broadcasts to `y`.
        channels: the axes of `y` that are axes of the weight; none of a scale and shift alone.
        window: how many positions of `x` an output sees, 1 for a dense layer.
        nonnegative: whether `x` is known to have no negative entries.
    """

    linear: Callable[[Array], Array]
    weight: Array
    apply: Callable[[Array, Array], Array]
    apply_own: Callable[[Array, Array], Array]
    shift: Array
    channels: tuple[int, ...] = ()
    window: int = 1
    nonnegative: bool = False


Runs = Callable[[Equation], Step]
"""How an equation is run: as it stands, or lowered."""


def weighted(
    operation: Operation,
    runs: Runs,
    linear: Callable[..., Array],
    nonnegative: Container[int],
    *operands: Any,
) -> Weighted:
    """Return an affine operation as a layer.

    Args:
        operation: one of kind `affine`. A scale and shift that stands alone is a layer too, whose
            weight has the shape of its input.
        runs: how to run an equation.
        linear: the operation without its shift, of all its operands.
        nonnegative: the values known to be at least 0.
        *operands: values of its operands, the one that depends on x first.
    """
    leader, active, others = operation.leader, operation.operands[0], operands[1:]
    layered = operation.layered
    start = leader.outputs[0] if layered else active
    after_layer = depending(operation.equations, {start}) - {start}
    chain = [e for e in operation.equations if not after_layer.isdisjoint(e.outputs)]
    done = {v for e in (*chain, *([leader] if layered else [])) for v in e.outputs}
    free = [e for e in operation.equations if done.isdisjoint(e.outputs)]
    given = _run(free, dict(zip(operation.operands[1:], others, strict=True)), runs)

    def after(y: Array) -> Array:
        return _run(chain, {**given, start: y}, runs)[operation.outputs[0]]

    if not layered:
        shift, pull = jax.vjp(after, jnp.zeros_like(operands[0]))
        (scale,) = pull(jnp.ones_like(shift))
        apply = lambda x, w: (x * w).astype(shift.dtype)
        return Weighted(lambda x: linear(x, *others), scale, apply, apply, shift)

    side = leader.inputs.index(active)
    values: list[Any] = [given.get(a) if isinstance(a, int) else a.val for a in leader.inputs]
    weight, run = values[1 - side], runs(leader).run

    def apply(x: Array, w: Array) -> Array:
        (y,) = run(*(x if i == side else w if i == 1 - side else v for i, v in enumerate(values)))
        return _rearranged(chain, start, y)

    def apply_own(x: Array, w: Array) -> Array:
        convolves = leader.primitive == "conv_general_dilated" and side == 0
        taps = by_taps(leader.params, x, w) if convolves else None
        return apply(x, w) if taps is None else _rearranged(chain, start, taps(x, w))

    (made,) = leader.output_avals
    shift, pull = jax.vjp(after, vary_like(jnp.zeros(made.shape, made.dtype), made))
    (scale,) = pull(jnp.ones_like(shift))
    effective = weight * _along_weight(leader, active, scale, weight)
    channels = set(weight_axes(leader, active))
    for e in chain:
        channels = channels if elementwise(e) else followed(e, channels)
    return Weighted(
        lambda x: linear(x, *others),
        effective,
        apply,
        apply_own,
        shift,
        tuple(sorted(channels)),
        _window(leader, weight),
        active in nonnegative,
    )


def _window(leader: Equation, weight: Array) -> int:
    """Return the number of positions that the kernel of a convolution covers."""
    if leader.primitive != "conv_general_dilated":
        return 1
    _, _, *positions = leader.params["dimension_numbers"].rhs_spec
    return math.prod(weight.shape[axis] for axis in positions)


def _run(equations: Iterable[Equation], env: Mapping[int, Any], runs: Runs) -> dict[int, Any]:
    return interpret.walk(equations, env, lambda e, values: runs(e).run(*values))


def _rearranged(chain: Iterable[Equation], start: int, y: Array) -> Array:
    """Run what follows a layer with scales of one and without shifts."""
    values = {start: y}
    out = start
    for e in chain:
        moved = [values[a] for a in e.inputs if isinstance(a, int) and a in values]
        if not jnp.issubdtype(e.output_avals[0].dtype, jnp.inexact) or not moved:
            continue  # a guard's comparison
        (out,) = e.outputs
        if elementwise(e):
            values[out] = moved[0].astype(e.output_avals[0].dtype)
        else:
            (values[out],) = interpret.apply(e, *moved)
    return values[out]


def _along_weight(leader: Equation, active: int, scale: Array, weight: Array) -> Array:
    """Return the scale of a layer's output in the axes of its weight; it varies along no other."""
    axes = weight_axes(leader, active)
    scale = scale[tuple(slice(None) if a in axes else 0 for a in range(scale.ndim))]
    order = sorted(axes.values())
    of_weight = [w for _, w in sorted(axes.items())]
    scale = scale.transpose([of_weight.index(w) for w in order])
    return scale.reshape([n if i in order else 1 for i, n in enumerate(weight.shape)])
