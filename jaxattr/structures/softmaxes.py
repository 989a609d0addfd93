"""Find what computes a softmax, however it is spelled."""

from collections.abc import Iterator

from jaxattr.programs import dataflow
from jaxattr.programs.dataflow import Flow, Segment
from jaxattr.programs.interpret import Atom, Equation
from jaxattr.programs.primitives import Form, Kind

_EXPONENTIALS = {"exp", "exp2"}
_MAXIMA = {"reduce_max", "argmax", "reduce_window_max"}


def softmaxes(flow: Flow) -> list[Segment]:
    """Return the softmaxes of a program, each from what it is taken of to its result.

    `exp(z) / sum(exp(z))`, also times the reciprocal of the sum, `exp(z - log(sum(exp(z))))`, and
    each of them with a maximum subtracted from `z` at first.
    """
    found = []
    for i, e in enumerate(flow.program.equations):
        for argument in _arguments(flow, e):
            members = dataflow.between(flow, argument, i)
            if members is not None:
                found.append(Segment(argument, members, e.outputs[0]))
    return found


def _arguments(flow: Flow, e: Equation) -> Iterator[int]:
    """Yield what an equation, if it ends a softmax, takes the softmax of."""
    sides = [a for a in e.inputs if isinstance(a, int) and a in flow.active]
    if e.primitive == "div" and len(sides) == 2:
        pairs = [(sides[0], sides[1])]
    elif e.primitive == "mul" and len(sides) == 2:
        pairs = [(sides[0], sides[1]), (sides[1], sides[0])]
    elif e.primitive in _EXPONENTIALS and sides and (shifted := _maker(flow, sides[0])):
        pairs = [(e.outputs[0], a) for a in shifted.inputs[1:] if isinstance(a, int)]
        pairs = pairs if shifted.primitive == "sub" else []
    else:
        return
    for power, norm in pairs:
        above = _exponent(flow, power)
        sums = [s for s in _back(flow, norm) if s.primitive == "reduce_sum"]
        below = _exponent(flow, sums[0].inputs[0]) if sums else None
        if above is None or below is None:
            continue
        before = _maker(flow, above)
        if above != below and (before is None or before.inputs[0] != below):
            continue
        before = _maker(flow, below)
        start = before.inputs[0] if before is not None and _lowers(flow, before) else below
        if isinstance(start, int):
            yield start


def _maker(flow: Flow, v: Atom) -> Equation | None:
    i = flow.made.get(v) if isinstance(v, int) else None
    return None if i is None else flow.program.equations[i]


def _back(flow: Flow, v: Atom) -> Iterator[Equation]:
    """Yield the equations that lead to a value, as long as each has one input that depends on x."""
    while (e := _maker(flow, v)) is not None:
        yield e
        entries = [a for a in e.inputs if isinstance(a, int) and a in flow.active]
        if len(set(entries)) != 1:
            return
        (v, *_) = entries


def _exponent(flow: Flow, v: Atom) -> Atom | None:
    """Return what a value is the exponential of, perhaps masked, scaled or in another dtype."""
    for e in _back(flow, v):
        if e.primitive in _EXPONENTIALS:
            return e.inputs[0]
        moved = e.row.kind is Kind.STRUCTURE or e.row.form is Form.SELECT
        if not (moved or e.primitive == "convert_element_type"):
            return None
    return None


def _lowers(flow: Flow, e: Equation) -> bool:
    """Whether an equation subtracts a maximum."""
    if e.primitive != "sub" or not isinstance(e.inputs[0], int) or e.inputs[0] not in flow.active:
        return False
    v = e.inputs[1]
    while isinstance(v, int) and (maker := _maker(flow, v)) is not None:
        if maker.primitive in _MAXIMA:
            return True
        given = [a for a in maker.inputs if isinstance(a, int)]
        if len(given) != 1 or dataflow.POWERS & {maker.row.form} - {Form.SHIFT}:
            return False
        (v,) = given
    return False
