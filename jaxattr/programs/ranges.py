"""Between which bounds the values of a program lie, as far as its equations tell."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxattr.programs.interpret import Equation, Program, bodies, walk
from jaxattr.programs.primitives import Call, Form, Kind, Sign


class Range(NamedTuple):
    """The least and the largest that a value can be."""

    low: float = -math.inf
    high: float = math.inf


_ANY = Range()
_KNOWN = {"logistic": Range(0, 1), "tanh": Range(-1, 1), "erf": Range(-1, 1), "erfc": Range(0, 2)}
_KEEPING = {"reduce_max", "reduce_min", "reduce_window_max", "stop_gradient"}


def ranges(program: Program) -> dict[int, Range]:
    """Return the range of every value of a program: `(0, 1)` for what a sigmoid makes.

    >>> import jax
    >>> from jaxattr.programs.interpret import read
    >>> program, _ = read(lambda x: jax.nn.relu6(x + 3) / 6, 0.0, inline=lambda e: True)
    >>> ranges(program)[program.outputs[0]]
    Range(low=0.0, high=1.0)
    """
    return _walk(program, dict.fromkeys(program.inputs, _ANY))


def _walk(program: Program, start: dict[int, Range]) -> dict[int, Range]:
    start |= dict.fromkeys(program.constants, _ANY)
    return walk(program.equations, start, _through, _of_literal)


def _of_literal(value: Any) -> Range:
    a = np.asarray(value)
    if not np.issubdtype(a.dtype, np.number) or np.iscomplexobj(a) or np.isnan(a).any():
        return _ANY
    return Range(float(a.min()), float(a.max()))


def _through(e: Equation, entering: Sequence[Range]) -> list[Range]:
    if e.row.call in (Call.DERIVATIVE, Call.INLINE):
        (body, *_) = bodies(e, inline=lambda _: True)
        found = _walk(body, dict(zip(body.inputs, entering, strict=True)))
        return [found[a] if isinstance(a, int) else _of_literal(a.val) for a in body.outputs]
    return [_one(e, *entering)] * len(e.outputs)


def _one(e: Equation, *entering: Range) -> Range:
    first, *others = entering or (_ANY,)
    match e.primitive:
        case name if name in _KNOWN:
            return _KNOWN[name]
        case "clamp":
            low, x, high = entering
            return Range(max(x.low, low.low), min(x.high, high.high))
        case "max" | "min" as name:
            return Range(*map({"max": max, "min": min}[name], first, others[0]))
        case "add":
            return Range(first.low + others[0].low, first.high + others[0].high)
        case "sub":
            return Range(first.low - others[0].high, first.high - others[0].low)
        case "neg":
            return Range(-first.high, -first.low)
        case "mul":
            return _hull(a * b if a and b else 0.0 for a in first for b in others[0])
        case "div" if others[0].low > 0:
            return _hull(
                a / b for a in first for b in others[0] if math.isfinite(a) or b < math.inf
            )
        case "exp":
            return Range(*(math.exp(a) if a < 700 else math.inf for a in first))
        case "select_n":
            return Range(min(r.low for r in others), max(r.high for r in others))
    if e.row.kind is Kind.STRUCTURE or e.primitive in _KEEPING or e.row.form is Form.SHIFT:
        return first
    all_positive = e.row.sign is Sign.ALL and all(r.low >= 0 for r in entering)
    return Range(0.0) if e.row.sign is Sign.ALWAYS or all_positive else _ANY


def _hull(values: Iterable[float]) -> Range:
    found = list(values)
    return Range(min(found), max(found))
