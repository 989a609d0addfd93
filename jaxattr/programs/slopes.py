"""The derivative of an elementwise function, the same however the function is spelled.

JAX's own derivative at a kink depends on the spelling: at 0 it is 0 for `relu(x)` and
`where(x > 0, x, 0)` but 0.5 for `maximum(x, 0)` and `clip(x, 0)`, and dead units are exactly 0
often. Here both one-sided derivatives are carried through the equations, and the smaller in
magnitude is the slope: 0 for every ReLU at 0 and every ReLU6 at 0 and 6, the small slope for a
leaky ReLU at 0. Where the function is smooth the two agree, and are its derivative.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxattr.programs import interpret, primitives
from jaxattr.programs.dataflow import forms
from jaxattr.programs.interpret import Equation
from jaxattr.programs.primitives import Call, Form

_COMPARISONS = {
    "gt": (jnp.greater, jnp.greater),
    "ge": (jnp.greater, jnp.greater_equal),
    "lt": (jnp.less, jnp.less),
    "le": (jnp.less, jnp.less_equal),
}
_CHOOSING = {Form.BOUND, Form.SELECT, Form.COMPARE}
_CORNERS = {*_CHOOSING, Form.CORNER}
_PIECEWISE_LINEAR = {*_CORNERS, Form.SHIFT, Form.SCALE}


class _Side(NamedTuple):
    """A value just beside the point, and how fast it changes going further away."""

    value: Any
    rate: Any


def slope(equations: Sequence[Equation], z: int, values: dict[int, Any]) -> jax.Array:
    """Return `d(output)/dz` of an elementwise function at every element of `z`.

    Args:
        equations: the function, from `z` to the output of the last equation.
        z: the number of the value it is a function of.
        values: the value of `z` and of everything else that enters.
    """
    if not any(_CORNERS & forms(e) for e in equations):
        return _beside(equations, z, values, 1.0)
    right = _beside(equations, z, values, 1.0)
    left = -_beside(equations, z, values, -1.0)
    return jnp.where(jnp.abs(left) < jnp.abs(right), left, right)


def select(slope: jax.Array, g: jax.Array) -> jax.Array:
    """Return `slope * g`, and 0 where the slope is 0 whatever `g` is: as JAX's derivatives do."""
    return jnp.where(slope == 0, 0, slope * g)


def is_gate(equations: Sequence[Equation]) -> bool:
    """Whether a slope is 0 or 1 everywhere: an elementwise function that only chooses."""
    names = set[str]().union(*map(interpret.inner_primitives, equations))
    names -= {"broadcast_in_dim", "convert_element_type"}
    return {primitives.row(name).form for name in names} <= _CHOOSING


def _beside(
    equations: Sequence[Equation], z: int, values: dict[int, Any], direction: float
) -> jax.Array:
    sides = {k: _Side(v, None) for k, v in values.items()}
    sides[z] = _Side(values[z], jnp.full_like(values[z], direction))
    return _run(equations, sides)[equations[-1].outputs[0]].rate


def _run(equations: Sequence[Equation], sides: dict[int, _Side]) -> dict[int, _Side]:
    through = lambda e, entering: [_through(e, entering)]
    return interpret.walk(equations, sides, through, lambda value: _Side(value, None))


def _through(e: Equation, sides: list[_Side]) -> _Side:
    """Push a side through one equation."""
    name = e.primitive
    if all(s.rate is None for s in sides):
        return _Side(interpret.apply(e, *(s.value for s in sides))[0], None)
    if e.row.call is Call.DERIVATIVE and forms(e) <= _PIECEWISE_LINEAR:
        (body,) = interpret.bodies(e, inline=lambda _: True)
        entering = dict(zip(body.inputs, sides, strict=True))
        entering |= {k: _Side(v, None) for k, v in body.constants.items()}
        return _run(body.equations, entering)[body.outputs[0]]  # type: ignore[index]
    if name == "clamp":
        low, x, high = sides
        return _pick(jnp.less, _pick(jnp.greater, x, low), high)
    if name == "max":
        return _pick(jnp.greater, *sides)
    if name == "min":
        return _pick(jnp.less, *sides)
    if name == "abs":
        (x,) = sides
        sign = jnp.where(x.value == 0, jnp.sign(x.rate), jnp.sign(x.value))
        return _Side(jnp.abs(x.value), sign * x.rate)
    if name in _COMPARISONS:
        a, b = sides
        strictly, tied = _COMPARISONS[name]
        equal = jnp.equal(a.value, b.value)
        beyond = tied(_rate(a), _rate(b))
        return _Side(jnp.where(equal, beyond, strictly(a.value, b.value)), jnp.zeros((), bool))
    if name == "select_n":
        which, *cases = sides
        rates = [jnp.broadcast_to(_rate(c), jnp.shape(c.value)) for c in cases]
        pick = lambda options: interpret.apply(e, which.value, *options)[0]
        return _Side(pick([c.value for c in cases]), pick(_alike(rates)))
    return _smooth(e, sides)


def _smooth(e: Equation, sides: list[_Side]) -> _Side:
    """Push a side through an equation that JAX differentiates, or that has no slope."""
    values = [s.value for s in sides]
    active = [
        i
        for i, s in enumerate(sides)
        if s.rate is not None and jnp.issubdtype(jnp.result_type(s.value), jnp.inexact)
    ]

    out = interpret.apply(e, *values)[0]
    if not active or not jnp.issubdtype(out.dtype, jnp.inexact):
        return _Side(out, _rate(_Side(out, None)))
    along = lambda *values: interpret.apply(e, *values)[0]
    _, pull = jax.vjp(interpret.restrict(along, values, active), *(values[i] for i in active))
    rates = [c * sides[i].rate for i, c in zip(active, pull(jnp.ones_like(out)), strict=True)]
    return _Side(out, sum(rates[1:], rates[0]).astype(out.dtype))


def _pick(beats: Any, a: _Side, b: _Side) -> _Side:
    """Return the larger (or smaller) of two sides; tied values are told apart by their rates."""
    a_wins = jnp.where(a.value == b.value, beats(_rate(a), _rate(b)), beats(a.value, b.value))
    return _Side(
        jnp.where(a_wins, a.value, b.value), jnp.where(a_wins, *_alike([_rate(a), _rate(b)]))
    )


def _rate(side: _Side) -> Any:
    return jnp.zeros((), jnp.result_type(side.value)) if side.rate is None else side.rate


def _alike(rates: list[Any]) -> list[Any]:
    dtype = jnp.result_type(*rates)
    return [r.astype(dtype) for r in rates]
