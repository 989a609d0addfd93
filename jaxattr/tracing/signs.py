"""Which values of a program are never negative, as far as its equations tell.

What a ReLU makes, and pools, sums and rearrangements of that. A relevance rule that treats positive
and negative inputs apart then has nothing to do for the negative ones. What is not recognised is
treated as a value of either sign: slower, and the same.
"""

from collections.abc import Mapping

import numpy as np

from jaxattr.tracing import interpret
from jaxattr.tracing.interpret import Atom, Equation, Program

_IF_ALL = {"add", "add_any", "mul", "div", "min", "concatenate", "stack", "pad", "cumsum", "sqrt"}
_IF_ALL |= {"reduce_sum", "reduce_max", "reduce_window_sum", "reduce_window_max", "reshape", "rev"}
_IF_ALL |= {"transpose", "slice", "squeeze", "expand_dims", "broadcast_in_dim", "split", "copy"}
_IF_ALL |= {"convert_element_type", "name", "optimization_barrier", "reduce_precision", "tile"}
_ALWAYS = {"abs", "exp", "logistic", "square"}
_CALLS = {"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr", "jit", "pjit"}


def nonnegative(program: Program) -> frozenset[int]:
    """Return the values of a program that are at least 0 whatever its inputs."""
    made = {v: e for e in program.equations for v in e.outputs}
    found: set[int] = set()

    def positive(a: Atom) -> bool:
        return a in found if isinstance(a, int) else bool(np.all(np.asarray(a.val) >= 0))

    for e in program.equations:
        signs = [positive(a) for a in e.inputs]
        match e.primitive:
            case "max":
                yes = any(signs)
            case "clamp":  # lower bound, value, upper bound
                yes = signs[0] and signs[2]
            case "select_n":
                yes = all(signs[1:]) or (signs[1] and _is_rectified(e, made))
            case name if name in _CALLS:
                yes = _called(e)
            case name:
                yes = name in _ALWAYS or (name in _IF_ALL and all(signs))
        if yes:
            found.update(e.outputs)
    return frozenset(found)


def _is_rectified(e: Equation, made: Mapping[int, Equation]) -> bool:
    """Whether a selection takes its second case only where that is larger than something >= 0."""
    test = made.get(e.inputs[0]) if isinstance(e.inputs[0], int) else None
    if test is None or test.primitive not in ("gt", "ge"):
        return False
    value, bound = test.inputs
    return value == e.inputs[2] and not isinstance(bound, int) and bool(np.all(bound.val >= 0))


def _called(e: Equation) -> bool:
    """Whether a call that is kept whole, such as `jax.nn.relu`, returns nothing negative."""
    body, *_ = interpret.bodies(e.eqn)
    inner = interpret.flatten(*interpret.opened(body), lambda eqn: True)
    return nonnegative(inner).issuperset(inner.outputs)
