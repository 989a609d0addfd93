"""Which elementwise functions scale with their input, as a ReLU does."""

from collections.abc import Sequence
from typing import Any

from jaxattr.tracing import loops
from jaxattr.tracing.interpret import Equation
from jaxattr.tracing.slopes import COMPARISONS

_ZERO = 2
"""The degree of zero, which is homogeneous of every degree."""


def homogeneous(equations: Sequence[Equation]) -> bool:
    """Whether an elementwise function surely has `act(c z) = c act(z)` for all `c > 0`.

    A ReLU and a leaky ReLU have it, however spelled; then `act(z) = slope * z`, exactly.
    """
    made = {v for e in equations for v in e.outputs}
    free = {a for e in equations for a in e.inputs if isinstance(a, int) and a not in made}
    return len(free) == 1 and _degrees(equations, dict.fromkeys(free, 1))[-1] == 1


def _degrees(equations: Sequence[Equation], env: dict[int, int | None]) -> list[int | None]:
    """Return the degree of homogeneity of each equation's output, None if it has none."""
    for e in equations:
        degrees = [env[a] if isinstance(a, int) else 0 if a.val else _ZERO for a in e.inputs]
        env[e.outputs[0]] = None if None in degrees else _degree(e, degrees)
    return [env[e.outputs[0]] for e in equations]


def _degree(e: Equation, degrees: list[Any]) -> int | None:
    name = e.primitive
    if name in ("custom_jvp_call", "custom_vjp_call"):
        (body,) = loops.inner(e, opens=lambda _: True)
        return _degrees(body.equations, dict(zip(body.inputs, degrees, strict=True)))[-1]
    common = {d for d in degrees if d != _ZERO}
    shared = (common.pop() if common else _ZERO) if len(common) <= 1 else None
    if name in ("max", "min", "add", "sub", "neg", "abs", "convert_element_type", "copy"):
        return shared
    if name == "broadcast_in_dim":
        return degrees[0]
    if name in ("mul", "div"):
        signs = [d for d in degrees if d != _ZERO]
        return _ZERO if len(signs) < 2 else signs[0] + (signs[1] if name == "mul" else -signs[1])
    if name in COMPARISONS:
        return None if shared is None else 0
    if name == "select_n":
        cases = {d for d in degrees[1:] if d != _ZERO}
        scale_free = degrees[0] in (0, _ZERO) and len(cases) <= 1
        return (cases.pop() if cases else _ZERO) if scale_free else None
    return None
