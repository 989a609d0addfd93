"""Which values of a program are never negative, as far as its equations tell.

What a ReLU makes, and pools, sums and rearrangements of that. A relevance rule that treats positive
and negative inputs apart then has nothing to do for the negative ones. What is not recognized is
treated as a value of either sign: slower, and the same.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from jaxattr.programs.interpret import Equation, Program, bodies, walk
from jaxattr.programs.primitives import Call, Sign


def nonnegative(program: Program) -> frozenset[int]:
    """Return the values of a program that are at least 0 whatever its inputs."""
    made = {v: e for e in program.equations for v in e.outputs}

    def through(e: Equation, signs: Sequence[bool]) -> list[bool]:
        return [_sign(e, signs, made)] * len(e.outputs)

    unknown = dict.fromkeys((*program.inputs, *program.constants), False)
    signs = walk(program.equations, unknown, through, lambda a: bool(np.all(np.asarray(a) >= 0)))
    return frozenset(v for v, yes in signs.items() if yes)


def _sign(e: Equation, signs: Sequence[bool], made: Mapping[int, Equation]) -> bool:
    if e.row.call in (Call.DERIVATIVE, Call.INLINE):
        (body, *_) = bodies(e, inline=lambda _: True)
        return nonnegative(body).issuperset(body.outputs)
    match e.primitive:
        case "clamp":  # lower bound, value, upper bound
            return signs[0] and signs[2]
        case "select_n":
            return all(signs[1:]) or (signs[1] and _is_rectified(e, made))
    match e.row.sign:
        case Sign.ALWAYS:
            return True
        case Sign.ALL:
            return all(signs)
        case Sign.ANY:
            return any(signs)
    return False


def _is_rectified(e: Equation, made: Mapping[int, Equation]) -> bool:
    """Whether a selection takes its second case only where that is larger than something >= 0."""
    test = made.get(e.inputs[0]) if isinstance(e.inputs[0], int) else None
    if test is None or test.primitive not in ("gt", "ge"):
        return False
    value, bound = test.inputs
    return value == e.inputs[2] and not isinstance(bound, int) and bool(np.all(bound.val >= 0))
