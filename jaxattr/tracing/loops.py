"""Programs inside programs: scan, while, cond and remat, and how to run them with new bodies."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax
from jax.extend.core import JaxprEqn

from jaxattr.tracing.interpret import (
    REMAT,
    Equation,
    Opens,
    Program,
    Step,
    bodies,
    flatten,
    named,
    opened,
)

LOOPS = {"scan", "while", "cond"}


def is_loop(equation: Equation) -> bool:
    """Whether the equation runs inner programs that `reenter` can run again."""
    return equation.primitive in LOOPS | REMAT


def inner(equation: Equation, opens: Opens) -> list[Program]:
    """Return the programs inside an equation: one of a scan or remat, one of each branch."""
    return [flatten(*opened(b), opens) for b in bodies(equation.eqn)]


def carried(equation: Equation) -> int:
    """Return how many leading outputs of a scan or while are carried from turn to turn."""
    if equation.primitive == "while":
        return len(equation.outputs)
    body, _ = opened(bodies(equation.eqn)[0])
    pairs = zip(body.outvars, equation.eqn.outvars, strict=True)
    return sum(_rank(v) == _rank(o) for v, o in pairs)


def constants(equation: Equation, inputs: int) -> int:
    """Return how many of the `inputs` of a scan's or while's body stay the same in every turn."""
    body, _ = opened(bodies(equation.eqn)[-1])
    outer = equation.eqn.invars[len(equation.eqn.invars) - inputs :]
    pairs = zip(body.invars, outer, strict=True)
    return inputs - carried(equation) - sum(_rank(v) < _rank(x) for v, x in pairs)


def is_remat(eqn: JaxprEqn) -> bool:
    """Whether an equation marks its body to be computed again in the backward pass."""
    return eqn.primitive.name in REMAT


def reenter(equation: Equation, functions: Sequence[Callable[..., Sequence[Any]]]) -> Step:
    """Return the step that runs a loop, branch or remat again with new bodies.

    Args:
        equation: one for which `is_loop` holds.
        functions: a replacement for each program of `inner`, in the same order.
    """
    eqn, params = equation.eqn, equation.eqn.params

    def remat(*values: Any) -> Any:
        policy, prevent_cse = params.get("policy"), params.get("prevent_cse", True)
        return jax.checkpoint(functions[0], policy=policy, prevent_cse=prevent_cse)(*values)

    def cond(index: Any, *values: Any) -> Any:
        return lax.switch(index, functions, *values)

    def scan(*values: Any) -> Any:
        n_consts, n_carry = constants(equation, len(values)), carried(equation)

        def body(carry: Any, xs: Any) -> Any:
            out = tuple(functions[0](*values[:n_consts], *carry, *xs))
            return out[:n_carry], out[n_carry:]

        carry, ys = lax.scan(
            body,
            tuple(values[n_consts : n_consts + n_carry]),
            tuple(values[n_consts + n_carry :]),
            length=params["length"],
            reverse=params["reverse"],
            unroll=params["unroll"],
        )
        return (*carry, *ys)

    def while_(*values: Any) -> Any:
        test, body = functions
        (test_jaxpr, _), (body_jaxpr, _) = map(opened, bodies(eqn))
        n_carry = len(body_jaxpr.outvars)
        n_test = len(test_jaxpr.invars) - n_carry
        free, carry = values[: len(values) - n_carry], tuple(values[len(values) - n_carry :])
        return lax.while_loop(
            lambda c: test(*free[:n_test], *c)[0],
            lambda c: tuple(body(*free[n_test:], *c)),
            carry,
        )

    run = {"cond": cond, "scan": scan, "while": while_}.get(equation.primitive, remat)
    return Step(named(equation, run), equation.inputs, equation.outputs)


def _rank(atom: Any) -> int:
    return len(atom.aval.shape)
