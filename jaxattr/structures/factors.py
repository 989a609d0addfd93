"""Which factors of the products in a function can be held fixed, so that what they multiply stays.

Networks multiply values that both depend on the image: a gate and a signal, the statistics of a
normalization and what they normalize, the softmax of attention and its values. Held at an image,
the first are numbers, and the second stay linear. Which side is which is told by what made it,
followed back through whatever only moves, scales or shifts:

1. a statistic, a softmax, an exponential, or values between 0 and 1, such as a sigmoid however
   spelled, against anything else;
2. what is spread over many places, as the channel weights of squeeze and excitation, against what
   is not;
3. an activation against none: the SiLU of a SwiGLU.

A quotient is linear in its numerator, a selection in what it selects.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from typing import TypeAlias

import jax
from jax import lax

from jaxattr.programs import dataflow
from jaxattr.programs.interpret import Equation, Program
from jaxattr.programs.primitives import Kind
from jaxattr.programs.ranges import ranges
from jaxattr.structures.operations import KEEPING, Operation, operation, operations
from jaxattr.structures.softmaxes import softmaxes

Hold: TypeAlias = Collection[str]
"""Kinds of factors, and names of layers or scopes whose values are factors."""

HELD = ("gate", "norm", "softmax")
"""What is held unless something else is asked for."""
HOLDABLE = (*HELD, "mean", "activation")
"""All kinds of factors."""


class Made(IntEnum):
    """What made a value; from `GATE` on it is a factor for sure."""

    FEATURE = 0
    ACTIVATION = 1
    GATE = 2
    STATISTIC = 3
    SOFTMAX = 4


_CALLED = {Made.STATISTIC: "norm", Made.SOFTMAX: "softmax"}
_MOVING = {Kind.STRUCTURE, Kind.LINEAR, Kind.AFFINE, Kind.MAX_POOL}


def held(
    program: Program, active: Iterable[int], hold: Hold, named: Collection[int] = ()
) -> Program:
    """Return a program with the factors of its products behind a `stop_gradient`.

    Args:
        program: what to hold factors in.
        active: the inputs that depend on x.
        hold: which factors: of `"gate"`, `"norm"`, `"softmax"`, and `"mean"`, which is the mean
            that a normalization subtracts.
        named: values that are factors whatever made them.
    """
    flow = dataflow.flow(program, active)
    found = operations(program, active)
    ends = {s.exit: s for s in softmaxes(flow)}
    inside = {v for s in ends.values() for i in s.members for v in program.equations[i].outputs}
    maker = {v: o for o in found for v in o.outputs}
    made = what_made(program, found, ends)
    reached = {a for a in program.outputs if isinstance(a, int)}
    cuts: dict[int, int] = {}  # by the output of an equation, which of its inputs is held
    for o in reversed(found):
        (out, *_) = o.outputs
        if reached.isdisjoint(o.outputs) or o.kind is Kind.INACTIVE:
            continue
        entering = o.operands[: o.active]
        if out in ends:
            entering = (ends[out].entry,)
        elif out not in inside:
            side, what = factor_of(o, made, maker, named)
            if side is not None and what in (*hold, "named"):
                cuts[o.leader.outputs[0]] = side
                entering = [a for a in entering if a != o.leader.inputs[side]]
        reached.update(entering)
    return _stopped(program, cuts)


def whole_softmaxes(
    program: Program, active: Iterable[int], found: Sequence[Operation]
) -> tuple[Operation, ...]:
    """Return operations with those of each softmax made one."""
    flow = dataflow.flow(program, active)
    members = {s.exit: s.members for s in softmaxes(flow)}
    inner = {v for m in members.values() for i in m for v in program.equations[i].outputs}
    joined = []
    for o in found:
        (out, *_) = o.outputs
        if out in members:
            joined.append(operation(flow, Kind.SOFTMAX, members[out], o.outputs))
        elif o.kind is Kind.INACTIVE or out not in inner:
            joined.append(o)
    return tuple(joined)


def what_made(
    program: Program, found: Iterable[Operation], ends: Collection[int]
) -> dict[int, Made]:
    """Return what made every value that depends on x."""
    bounds, made = ranges(program), dict[int, Made]()
    for o in found:
        if o.kind is Kind.INACTIVE:
            continue
        (out, *_) = o.outputs
        entering = [made.get(a, Made.FEATURE) for a in o.operands[: o.active]]
        low, high = bounds[out]
        if out in ends or o.kind is Kind.SOFTMAX:
            now = Made.SOFTMAX
        elif o.kind is Kind.STATISTIC:
            now = Made.STATISTIC
        elif o.kind is Kind.ACTIVATION:
            exponential = {e.primitive for e in o.equations} <= {"exp", "exp2"}
            now = Made.GATE if exponential or 0 <= low <= high <= 1 else Made.ACTIVATION
        elif _moves(o) or (o.kind in KEEPING and not o.layered and min(entering) >= Made.STATISTIC):
            now = min(entering) if len(set(entering)) == 1 else Made.STATISTIC
            now = Made.GATE if now is Made.ACTIVATION and 0 <= low <= high <= 1 else now
        else:
            now = Made.FEATURE
        made |= dict.fromkeys(o.outputs, now)
    return made


def _moves(o: Operation) -> bool:
    return o.kind in _MOVING and o.active == 1 and not o.layered


def factor_of(
    o: Operation, made: Mapping[int, Made], maker: Mapping[int, Operation], named: Collection[int]
) -> tuple[int | None, str]:
    """Return which input of an operation's equation is its factor, and what the factor is."""
    e, active = o.leader, o.operands[: o.active]
    entering = [(i, a) for i, a in enumerate(e.inputs) if isinstance(a, int) and a in active]
    sides, pair = [i for i, _ in entering], [a for _, a in entering]
    if o.kind is Kind.PRODUCT and e.primitive == "select_n":
        return 0, "gate"
    if len(sides) != 2 or len(active) != 2:
        return None, ""
    if o.kind is Kind.SUM:
        return (
            (1, "mean")
            if e.primitive == "sub" and _is_mean(pair[0], pair[1], maker)
            else (None, "")
        )
    if o.kind is not Kind.PRODUCT:
        return None, ""
    of = [made.get(a, Made.FEATURE) for a in pair]
    tests = [
        [any(v in named for v in (a, *_back(a, maker))) for a in pair],
        [m >= Made.GATE for m in of],
        [_is_spread(e, a, maker) for a in pair],
        [m > Made.FEATURE for m in of],
    ]
    if e.primitive == "div":
        tests[1:] = [[False, True]]
    for test in tests:
        if test[0] != test[1]:
            side = test.index(True)
            return sides[side], "named" if test is tests[0] else _CALLED.get(of[side], "gate")
    return None, ""


def _back(value: int, maker: Mapping[int, Operation]) -> Iterator[int]:
    """Yield the values that a value was moved, scaled or shifted from."""
    while (o := maker.get(value)) is not None and _moves(o):
        (value, *_) = o.operands
        yield value


def _is_spread(e: Equation, value: int, maker: Mapping[int, Operation]) -> bool:
    """Whether an operand of a product is repeated on its way into it."""
    size = lambda aval: math.prod(aval.shape)
    steps = [maker[v].equations[-1] for v in (value, *_back(value, maker)) if v in maker]
    spread = [s for s in steps if s.row.kind is Kind.STRUCTURE]
    own = e.input_avals[e.inputs.index(value)]
    return any(size(s.input_avals[0]) < size(s.output_avals[0]) for s in spread) or (
        e.row.form is not None and size(own) < size(e.output_avals[0])
    )


def _is_mean(value: int, mean: int, maker: Mapping[int, Operation]) -> bool:
    """Whether the second value is a sum of the first, scaled, and spread again."""
    own = {value, *_back(value, maker)}
    for v in (mean, *_back(mean, maker)):
        if v in own:
            return False
        if v in maker and maker[v].kind is Kind.LINEAR and _moves(maker[v]):
            return not own.isdisjoint(_back(v, maker))
    return False


def _stopped(program: Program, cuts: Mapping[int, int]) -> Program:
    """Return a program in which some operands are behind a `stop_gradient`."""
    avals, equations, stopped = dict(program.avals), [], dict[int, int]()
    for e in program.equations:
        if (side := cuts.get(e.outputs[0])) is not None:
            value = e.inputs[side]
            assert isinstance(value, int)
            if value not in stopped:
                stopped[value] = number = max(avals) + 1
                avals[number] = avals[value]
                (stop,) = jax.make_jaxpr(lax.stop_gradient)(avals[value]).eqns
                equations.append(Equation(stop, (value,), (number,), e.path, (), e.stack))
            e = e._replace(inputs=(*e.inputs[:side], stopped[value], *e.inputs[side + 1 :]))
        equations.append(e)
    return program._replace(equations=tuple(equations), avals=avals)
