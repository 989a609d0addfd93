"""Find what makes a map wrong from the start: images that see each other, integers on the way."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxattr.programs import dataflow, interpret
from jaxattr.programs.dataflow import Flow
from jaxattr.programs.interpret import Equation
from jaxattr.programs.primitives import Kind
from jaxattr.structures.roles import Role, roles
from jaxattr.tracing.sites import should_inline


class Findings(NamedTuple):
    """What can be told of a function before it is explained.

    Attributes:
        output: shape and dtype of what it returns.
        mixing: a step that goes over the batch, as a sum does, or None.
        integer: a step that goes from integers made of the images back to floats, or None.
        probabilities: the softmax or sigmoid that the output comes from, or None.
    """

    output: Any
    mixing: Equation | None
    integer: Equation | None
    probabilities: Equation | None


def examine(f: Callable[..., Any], x: Any) -> Findings:
    """Read a function of a batch of images `(B, H, W, C)`."""
    program, tree = interpret.read(f, x, inline=should_inline)
    leaves = [program.avals[a] if isinstance(a, int) else a.aval for a in program.outputs]
    flow = dataflow.flow(program, program.inputs)
    carrying = _carrying(flow)
    steps = [e for e in program.equations if not carrying.isdisjoint(e.outputs)]
    sums = [e for e in steps if _may_mix(e, x.shape[0])]
    known = roles(flow) if sums else {}
    return Findings(
        jax.tree.unflatten(tree, leaves),
        next((e for e in sums if _mixes(flow, e, known)), None),
        next((e for e in steps if _leaves_integers(flow, e)), None),
        _head(flow),
    )


def _carrying(flow: Flow) -> set[int]:
    """Return the active values whose change reaches the output otherwise than by a condition."""
    carrying = {a for a in flow.program.outputs if isinstance(a, int)}
    for e in reversed(flow.program.equations):
        if any(v in carrying and v in flow.active for v in e.outputs):
            carrying.update(a for a in e.inputs if isinstance(a, int) and _numeric(flow, a))
    return carrying & flow.active


def _numeric(flow: Flow, v: int) -> bool:
    return flow.program.avals[v].dtype != bool


def _may_mix(e: Equation, batch: int) -> bool:
    return batch > 1 and any(
        aval.shape[axis] == batch
        for axes, aval in zip(_summed(e), e.input_avals, strict=False)
        for axis in axes
    )


def _mixes(flow: Flow, e: Equation, known: Any) -> bool:
    return any(
        a in flow.active and flow.differentiable(a) and known.get(a, ())[axis] is Role.BATCH
        for a, axes in zip(e.inputs, _summed(e), strict=False)
        if isinstance(a, int) and a in known
        for axis in axes
    )


def _summed(e: Equation) -> tuple[tuple[int, ...], ...]:
    """Return for each input the axes over which an equation sums, sorts or transforms."""
    params = e.params
    match e.primitive:
        case "dot_general":
            return params["dimension_numbers"][0]
        case "reduce_sum" | "reduce_max" | "reduce_min" | "reduce_prod":
            return (params["axes"],)
        case "sort":
            return ((params["dimension"],),) * len(e.inputs)
        case "top_k" | "cumsum" | "cumprod" | "cummax" | "cummin":
            return ((params.get("axis", -1),),)
        case "fft":
            return (tuple(range(-len(params["fft_lengths"]), 0)),)
    return ()


def _head(flow: Flow) -> Equation | None:
    """Return the softmax or sigmoid that makes the output, or None."""
    e = _maker(flow, flow.program.outputs[0])
    if e is None or e.primitive == "logistic":
        return e
    if e.primitive != "div":
        return None
    above, below = (_maker(flow, a) for a in e.inputs)
    while below is not None and below.primitive in ("reduce_sum", "add", "add_any"):
        below = next(filter(None, (_maker(flow, a) for a in below.inputs)), None)
    exponentials = above is None or above.primitive == "exp"
    return e if exponentials and below is not None and below.primitive == "exp" else None


def _maker(flow: Flow, a: Any) -> Equation | None:
    """Return what makes an active value, but for moves and conversions."""
    while isinstance(a, int) and a in flow.active and a in flow.made:
        e = flow.program.equations[flow.made[a]]
        moves = e.row.kind is Kind.STRUCTURE or e.primitive in (
            "convert_element_type",
            "stop_gradient",
        )
        if not moves or len(e.inputs) != 1:
            return e
        (a,) = e.inputs
    return None


def _leaves_integers(flow: Flow, e: Equation) -> bool:
    if e.primitive != "convert_element_type" or e.inputs[0] not in flow.active:
        return False
    before, after = e.input_avals[0].dtype, e.output_avals[0].dtype
    return jnp.issubdtype(before, jnp.integer) and jnp.issubdtype(after, jnp.inexact)
