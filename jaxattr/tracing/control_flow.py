"""Programs inside programs: scan, while, cond and remat, run again with new bodies."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from jax import lax

from jaxattr.tracing.interpret import Equation, Program, Step, named
from jaxattr.tracing.primitives import Call


def has_bodies(equation: Equation) -> bool:
    """Whether the equation runs inner programs that `rerun` can replace."""
    return equation.row.call in (Call.LOOP, Call.REMAT)


def active_inputs(
    equation: Equation,
    programs: Sequence[Program],
    active: Sequence[bool],
    carries: Callable[[Program, set[int]], Sequence[bool]],
) -> Iterator[set[int]]:
    """Yield for each inner program which of its inputs depend on x.

    Args:
        equation: one for which `has_bodies` holds.
        programs: its inner programs.
        active: which of its inputs depend on x.
        carries: a program and its inputs that depend on x to which of its outputs do.
    """
    if equation.primitive == "cond":
        active = active[1:]  # without the index
    if equation.primitive not in ("scan", "while"):
        yield from (_chosen(p.inputs, active) for p in programs)
        return
    *tests, body = programs
    n = carried(equation, body)
    first = constants(equation, body)
    for test in tests:
        active = active[len(test.inputs) - n :]
        yield set()
    active = list(active)
    while True:  # until no more of what is carried depends on x than what carried it
        found = carries(body, _chosen(body.inputs, active))[:n]
        grown = [a or b for a, b in zip(active[first : first + n], found, strict=True)]
        if grown == active[first : first + n]:
            break
        active[first : first + n] = grown
    yield _chosen(body.inputs, active)


def _chosen(values: Sequence[int], chosen: Sequence[bool]) -> set[int]:
    return {v for v, yes in zip(values, chosen, strict=True) if yes}


def carried(equation: Equation, body: Program) -> int:
    """Return how many leading outputs of a scan or while are carried from turn to turn."""
    if equation.primitive == "while":
        return len(equation.outputs)
    ranks = zip(_ranks(body, body.outputs), equation.output_avals, strict=True)
    return sum(inner == len(outer.shape) for inner, outer in ranks)


def constants(equation: Equation, body: Program) -> int:
    """Return how many inputs of the body of a scan or while stay the same in every turn."""
    n = len(body.inputs)
    ranks = zip(_ranks(body, body.inputs), equation.input_avals[-n:], strict=True)
    return n - carried(equation, body) - sum(inner < len(outer.shape) for inner, outer in ranks)


def _ranks(body: Program, atoms: Sequence[Any]) -> list[int]:
    return [len((body.avals[a] if isinstance(a, int) else a.aval).shape) for a in atoms]


def rerun(
    equation: Equation,
    programs: Sequence[Program],
    functions: Sequence[Callable[..., Sequence[Any]]],
) -> Step:
    """Return the step that runs a loop, branch or remat with new bodies.

    Args:
        equation: one for which `has_bodies` holds.
        programs: its inner programs.
        functions: a replacement for each of them.
    """
    params = equation.params

    def remat(*values: Any) -> Any:
        policy, prevent_cse = params.get("policy"), params.get("prevent_cse", True)
        return jax.checkpoint(functions[0], policy=policy, prevent_cse=prevent_cse)(*values)

    def cond(index: Any, *values: Any) -> Any:
        return lax.switch(index, functions, *values)

    def scan(*values: Any) -> Any:
        n_constant = constants(equation, programs[0])
        n_carried = carried(equation, programs[0])

        def body(carry: Any, xs: Any) -> Any:
            out = tuple(functions[0](*values[:n_constant], *carry, *xs))
            return out[:n_carried], out[n_carried:]

        carry, ys = lax.scan(
            body,
            tuple(values[n_constant : n_constant + n_carried]),
            tuple(values[n_constant + n_carried :]),
            length=params["length"],
            reverse=params["reverse"],
            unroll=params["unroll"],
        )
        return (*carry, *ys)

    def while_(*values: Any) -> Any:
        test, body = functions
        n_carried = len(equation.outputs)
        n_test = len(programs[0].inputs) - n_carried
        fixed = values[: len(values) - n_carried]
        return lax.while_loop(
            lambda c: test(*fixed[:n_test], *c)[0],
            lambda c: tuple(body(*fixed[n_test:], *c)),
            tuple(values[len(values) - n_carried :]),
        )

    run = {"cond": cond, "scan": scan, "while": while_}.get(equation.primitive, remat)
    return Step(named(equation, run), equation.inputs, equation.outputs)
