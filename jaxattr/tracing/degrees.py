"""Which elementwise functions scale with their input, as a ReLU does."""

from collections.abc import Sequence

from jaxattr.tracing.interpret import Equation, bodies, walk
from jaxattr.tracing.primitives import Call, Form

_ZERO = float("inf")
"""The degree of zero, which is homogeneous of every degree."""
_Degree = float | None


def homogeneous(equations: Sequence[Equation]) -> bool:
    """Whether an elementwise function surely has `act(c z) = c act(z)` for all `c > 0`.

    A ReLU and a leaky ReLU have it, however spelled; then `act(z) = slope * z`, exactly.
    """
    made = {v for e in equations for v in e.outputs}
    free = {a for e in equations for a in e.inputs if isinstance(a, int) and a not in made}
    return len(free) == 1 and _last(equations, dict.fromkeys(free, 1.0)) == 1


def _last(equations: Sequence[Equation], env: dict[int, _Degree]) -> _Degree:
    """Return the degree of homogeneity of the last equation's output, None if it has none."""
    degrees = walk(equations, env, _through, lambda value: 0.0 if value else _ZERO)
    return degrees[equations[-1].outputs[0]]


def _through(e: Equation, degrees: Sequence[_Degree]) -> list[_Degree]:
    return [None if None in degrees else _degree(e, [d for d in degrees if d is not None])]


def _degree(e: Equation, degrees: Sequence[float]) -> _Degree:
    if e.row.call is Call.DERIVATIVE:
        (body,) = bodies(e, inline=lambda _: True)
        return _last(body.equations, dict(zip(body.inputs, degrees, strict=True)))
    if e.primitive == "broadcast_in_dim":
        return degrees[0]
    match e.row.form:
        case Form.SHIFT | Form.BOUND | Form.CORNER:
            return _common(degrees)
        case Form.SCALE:
            a, b = degrees
            return _ZERO if _ZERO in (a, b) else a + b if e.primitive == "mul" else a - b
        case Form.COMPARE:
            return None if _common(degrees) is None else 0.0
        case Form.SELECT:
            return _common(degrees[1:]) if degrees[0] in (0, _ZERO) else None
    return None


def _common(degrees: Sequence[float]) -> _Degree:
    """Return the degree that several values share; zeros share any."""
    common = {d for d in degrees if d != _ZERO}
    return min(common, default=_ZERO) if len(common) <= 1 else None
