"""Programs inside programs: scan, while, cond, shard_map and remat, run again with new bodies."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer

from jaxattr.programs import interpret
from jaxattr.programs.interpret import Equation, Program, Step, named
from jaxattr.programs.primitives import Call


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
    run = named(equation, _run(equation, programs, functions))
    return Step(run, equation.inputs, equation.outputs)


def _run(
    equation: Equation,
    programs: Sequence[Program],
    functions: Sequence[Callable[..., Sequence[Any]]],
    *,
    loop: Callable[..., Any] = lax.scan,
    switch: Callable[..., Any] = lax.switch,
) -> Callable[..., Any]:
    """Return a loop, branch or remat as a function, with other ways to run turns or a branch."""
    params = equation.params

    def remat(*values: Any) -> Any:
        policy, prevent_cse = params.get("policy"), params.get("prevent_cse", True)
        return jax.checkpoint(functions[0], policy=policy, prevent_cse=prevent_cse)(*values)

    def cond(index: Any, *values: Any) -> Any:
        return switch(index, functions, *values)

    def scan(*values: Any) -> Any:
        n_constant = constants(equation, programs[0])
        n_carried = carried(equation, programs[0])

        def body(carry: Any, xs: Any) -> Any:
            out = tuple(functions[0](*values[:n_constant], *carry, *xs))
            return out[:n_carried], out[n_carried:]

        carry, ys = loop(
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

    def shard_map(*values: Any) -> Any:
        here = {k: params[k] for k in ("mesh", "in_specs", "out_specs", "check_vma")}
        axes = params.get("newly_manual_axes", params.get("manual_axes"))
        body = lambda *a: tuple(functions[0](*a))
        # outside of `jit` JAX has no symbolic zeros there, which rules ask for
        return jax.jit(jax.shard_map(body, axis_names=axes, **here))(*values)

    runs = {"cond": cond, "scan": scan, "while": while_, "shard_map": shard_map}
    return runs.get(equation.primitive, remat)


def written_out(equation: Equation) -> Callable[..., Sequence[Any]] | None:
    """Return what a loop or branch computes, as a function without one.

    The turns of a scan follow each other; all branches run, and one is selected. A loop of unknown
    length, or one that would be longer than `_LONGEST` equations, is kept: None.
    """
    programs = interpret.bodies(equation, lambda _: False)
    turns = {"scan": equation.params.get("length", 0), "cond": 1}.get(equation.primitive, 0)
    if not 0 < turns * sum(len(p.equations) for p in programs) <= _LONGEST:
        return None
    functions = interpret.functions(equation)
    return _run(equation, programs, functions, loop=_turns, switch=_selected)


_LONGEST = 10_000


def _turns(body: Callable, carry: Any, xs: Any, *, length: int, reverse: bool, unroll: Any) -> Any:
    """Do what `lax.scan` does, turn by turn."""
    ys: list[Any] = [None] * length
    for i in reversed(range(length)) if reverse else range(length):
        carry, ys[i] = body(carry, tuple(lax.index_in_dim(x, i, keepdims=False) for x in xs))
    return carry, tuple(map(jnp.stack, zip(*ys, strict=True)))


def _selected(index: Any, branches: Sequence[Callable[..., Any]], *values: Any) -> Any:
    """Do what `lax.switch` does, by a selection where the index is not known."""
    if not isinstance(index, Tracer):
        return branches[int(index)](*values)
    found = [branch(*values) for branch in branches]
    return [lax.select_n(index, *outputs) for outputs in zip(*found, strict=True)]
