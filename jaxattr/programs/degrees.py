"""Which functions scale with their input, as a ReLU and a layer without biases do."""

from collections.abc import Container, Mapping, Sequence

import numpy as np

from jaxattr.programs.interpret import Equation, bodies, walk
from jaxattr.programs.primitives import Call, Form, Kind

_ZERO = float("inf")
"""The degree of zero, which is homogeneous of every degree."""
_Degree = float | None


def homogeneous(equations: Sequence[Equation], active: Container[int] | None = None) -> bool:
    """Whether a function surely has `f(c z) = c f(z)` for all `c > 0`.

    A ReLU and a leaky ReLU have it, however spelled; then `act(z) = slope * z`, exactly. Of affine
    operations those have it that add nothing.

    Args:
        equations: the function, to the output of the last equation.
        active: which of the values that enter are `z`; by default the only one, if it is one.
    """
    made = {v for e in equations for v in e.outputs}
    entering = {a for e in equations for a in e.inputs if isinstance(a, int) and a not in made}
    if active is None and len(entering) != 1:
        return False
    degrees = {a: 1.0 if active is None or a in active else 0.0 for a in entering}
    return _last(equations, degrees) == 1


def _last(equations: Sequence[Equation], env: Mapping[int, _Degree]) -> _Degree:
    """Return the degree of homogeneity of the last equation's output, None if it has none."""
    degrees = walk(equations, env, _through, lambda value: 0.0 if np.any(value) else _ZERO)
    return degrees[equations[-1].outputs[0]]


def _through(e: Equation, degrees: Sequence[_Degree]) -> list[_Degree]:
    degree = None if None in degrees else _degree(e, [d for d in degrees if d is not None])
    return [degree] * len(e.outputs)


def _degree(e: Equation, degrees: Sequence[float]) -> _Degree:
    row = e.row
    if row.call is Call.DERIVATIVE:
        (body,) = bodies(e, inline=lambda _: True)
        entering = dict(zip(body.inputs, degrees, strict=True))
        return _last(body.equations, entering | dict.fromkeys(body.constants, 0.0))
    if row.places or e.primitive == "scatter-add":
        return _common(degrees)
    if row.kind is Kind.AFFINE:
        return sum(degrees)
    if row.form is None and row.kind in (Kind.LINEAR, Kind.STRUCTURE, Kind.MAX_POOL):
        return degrees[0]
    match row.form:
        case Form.SHIFT | Form.BOUND | Form.CORNER:
            return _common(degrees)
        case Form.SCALE:
            a, b = degrees
            return _ZERO if _ZERO in (a, b) else a + b if e.primitive == "mul" else a - b
        case Form.COMPARE | Form.LOGIC:
            return None if _common(degrees) is None else 0.0
        case Form.SELECT:
            return _common(degrees[1:]) if degrees[0] in (0, _ZERO) else None
    return 0.0 if all(d in (0, _ZERO) for d in degrees) else None


def _common(degrees: Sequence[float]) -> _Degree:
    """Return the degree that several values share; zeros share any."""
    common = {d for d in degrees if d != _ZERO}
    return min(common, default=_ZERO) if len(common) <= 1 else None
