"""Read the attention weights of a transformer, and what changes with them."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxattr.programs import dataflow
from jaxattr.programs.control_flow import written_out
from jaxattr.programs.interpret import Equation
from jaxattr.structures.factors import Hold, factor_of, what_made
from jaxattr.structures.roles import Role, Roles, roles
from jaxattr.tracing.local import Local, Rule, UnsupportedOperation, plain
from jaxattr.tracing.sites import Scope, should_inline_remat
from jaxattr.tracing.transform import Traced, trace


class Matrix(NamedTuple):
    """Where a product takes attention weights, and what their axes are: batch, query, key.

    Of one image the batch axis may have been squeezed away: None.
    """

    position: int
    operand: int
    axes: tuple[int | None, int, int]
    shape: tuple[int, ...]


class Attention(NamedTuple):
    """A function with its self-attention found, however it is spelled.

    Attributes:
        scope: its program.
        run: `(x, added, rules) -> (output, weights)`: with zeros added to the weights, whose
            cotangents are the gradients of the weights; `weights` has one `(B, heads, N, N)` for
            each block, in the order in which they run.
        zeros: what to add to change nothing.
    """

    scope: Scope
    run: Callable[..., tuple[Any, list[jax.Array]]]
    zeros: list[jax.Array]


def attention(f: Callable[..., Any], x: jax.Array, *, hold: Hold = ()) -> Attention:
    """Find the self-attention of a function: softmaxes that weigh values, of equal numbers of both.

    Loops over layers are written out, and what is computed again in the backward pass is opened.

    Args:
        f: images to logits.
        x: images.
        hold: which other factors are held, as for `jaxattr.freeze`.

    Raises:
        UnsupportedOperation: if there is none.
    """
    traced = trace(f, x, inline=should_inline_remat, write_out=written_out, hold=hold)
    found = _matrices(traced)
    sizes = Counter(m.shape[m.axes[2]] for m in found)
    found = [m for m in found if sizes and m.shape[m.axes[2]] == sizes.most_common(1)[0][0]]
    if not found:
        raise UnsupportedOperation(
            "the function has no self-attention over all tokens of an image, of which this method "
            "is made; jaxattr.lrp and jaxattr.grad_cam take any network"
        )
    at = {m.position: m for m in found}

    def run(x: jax.Array, added: Sequence[jax.Array], rules: Mapping[str, Rule]) -> Any:
        extra = dict(zip(at, added, strict=True))
        seen: dict[int, jax.Array] = {}

        def tap(rule: Rule) -> Rule:
            def tapped(local: Local) -> Callable[..., jax.Array]:
                m, inner = at.get(local.site.position), rule(local)

                def value(*operands: Any) -> jax.Array:
                    assert m is not None
                    moved = list(operands)
                    moved[m.operand] = operands[m.operand] + _laid(extra[m.position], m)
                    seen[m.position] = _heads(moved[m.operand], m)
                    return inner(*moved)

                return inner if m is None else value

            return tapped

        ruled = {"unknown": plain, **rules, "product": tap(rules.get("product", plain))}
        output = traced.run(ruled, x)
        return output, [seen[p] for p in at]

    zeros = [jnp.zeros(_shape(m), x.dtype) for m in found]
    return Attention(traced.scope, run, zeros)


def _matrices(traced: Traced) -> list[Matrix]:
    program, places = traced.scope.program, traced.scope.places
    made = what_made(program, [p.operation for p in places], ())
    maker = {v: p.operation for p in places for v in p.operation.outputs}
    known = roles(dataflow.flow(program, program.inputs))
    single = program.avals[program.inputs[0]].shape[:1] == (1,)
    found = []
    for o, site in ((p.operation, p.site) for p in places):
        e = o.leader
        side, what = factor_of(o, made, maker, ())
        if site is None or side is None or what != "softmax" or e.primitive != "dot_general":
            continue
        value = e.inputs[side]
        assert isinstance(value, int)
        axes = _axes(e, side, known.get(value, ()), single=single)
        shape = program.avals[value].shape
        if axes is not None and shape[axes[1]] == shape[axes[2]]:
            found.append(Matrix(site.position, o.operands.index(value), axes, shape))
    return found


def _axes(
    e: Equation, side: int, known: Roles, *, single: bool
) -> tuple[int | None, int, int] | None:
    summed, batch = (pair[side] for pair in e.params["dimension_numbers"])
    shape = e.input_avals[side].shape
    free = [i for i in range(len(shape)) if i not in (*summed, *batch) and shape[i] > 1]
    known_batch = known.index(Role.BATCH) if Role.BATCH in known else None
    if len(summed) != 1 or len(free) != 1 or (known_batch is None and not single):
        return None
    return known_batch, free[0], int(summed[0])


def _order(m: Matrix) -> list[int]:
    batch, query, key = m.axes
    heads = [i for i in range(len(m.shape)) if i not in m.axes]
    return [*([] if batch is None else [batch]), *heads, query, key]


def _shape(m: Matrix) -> tuple[int, ...]:
    batch, query, key = (1 if i is None else m.shape[i] for i in m.axes)
    return batch, math.prod(m.shape) // (batch * query * key), query, key


def _heads(a: jax.Array, m: Matrix) -> jax.Array:
    return a.transpose(_order(m)).reshape(_shape(m))


def _laid(a: jax.Array, m: Matrix) -> jax.Array:
    """Lay weights `(B, heads, N, N)` as the product takes them."""
    order = _order(m)
    laid = a.reshape([m.shape[i] for i in order])
    return laid.transpose([order.index(i) for i in range(len(order))])
