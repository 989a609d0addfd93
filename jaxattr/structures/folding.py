"""Fold what follows a convolution or dense layer, bias and BatchNorm, into one affine layer.

Along the data flow, whatever the order of declaration: a scale or shift by values free of x joins
the layer that feeds it, if nobody else sees what is between them; a reshape on the way does not
part them. A scale that differs from place to place is no part of a layer's weights and stays alone,
and so does one that comes before a layer, whose shift stops where the padding begins. Scales by
what is held of the image are no layer's either; with what follows them they are one. What spreads
the gate of a product over the places of its signal joins the product. Fourier transforms join what
stands between them: a rule sees real values alone.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import jax.numpy as jnp

from jaxattr.programs.dataflow import elementwise
from jaxattr.programs.interpret import Atom, Equation, Program, depending
from jaxattr.programs.primitives import Form, Kind
from jaxattr.structures.operations import Operation, gathered


def fold(program: Program, operations: Sequence[Operation]) -> tuple[Operation, ...]:
    """Return the operations with each layer and its scales and shifts made one.

    Args:
        program: the program that they are of.
        operations: all of its operations, in order.
    """
    operations = _through_complex(program, operations)
    follower = _followers(program, operations)
    groups = {}  # what becomes one, by its last operation
    for i, o in enumerate(operations):
        if _is_scale(o) and o.held and all(i not in group for group in groups.values()):
            group = _scales(operations, follower, i)
            groups[group[-1]] = group
        elif o.kind is Kind.AFFINE and o.layered and not o.held:
            group = _chain(program, operations, follower, i)
            groups[group[-1]] = group
        elif o.kind is Kind.PRODUCT and o.leader.primitive == "mul":
            spread = [j for j in range(i) if follower.get(j) == i and _spreads(operations[j])]
            groups[i] = [*spread, i]
    inside = {i for group in groups.values() for i in group}
    return tuple(
        _joined([operations[j] for j in groups.get(i, [i])])
        for i in range(len(operations))
        if i in groups or i not in inside
    )


def _through_complex(program: Program, operations: Sequence[Operation]) -> Sequence[Operation]:
    """Return the operations with complex values inside them: each is a map of real ones."""
    is_complex = lambda a: jnp.issubdtype(program.avals[a].dtype, jnp.complexfloating)
    if not any(map(is_complex, program.avals)):
        return operations
    maker = {v: i for i, o in enumerate(operations) for v in o.outputs if o.active}
    found: list[Operation] = []
    for i, o in enumerate(operations):
        parts, stack = {i}, list(filter(is_complex, o.operands[: o.active]))
        while stack and not any(map(is_complex, o.outputs)):
            if (j := maker.get(stack.pop(), i)) not in parts:
                parts.add(j)
                stack += filter(is_complex, operations[j].operands[: operations[j].active])
        joined = _joined([operations[j] for j in sorted(parts)])
        linear = {operations[j].kind for j in parts} <= _LINEAR
        kind = (Kind.SUM if joined.active > 1 else Kind.LINEAR) if linear else Kind.UNKNOWN
        found.append(joined._replace(kind=kind) if len(parts) > 1 else o)
    needed = {a for a in program.outputs if isinstance(a, int)}
    kept = []
    for o in reversed(found):
        if not all(map(is_complex, o.outputs)) or not needed.isdisjoint(o.outputs):
            needed.update(o.operands)
            kept.append(o)
    return kept[::-1]


_LINEAR = {Kind.AFFINE, Kind.LINEAR, Kind.STRUCTURE, Kind.SUM}


def _followers(program: Program, operations: Sequence[Operation]) -> dict[int, int]:
    """Return for each operation the only one that sees its output, if there is one."""
    users: dict[int, list[int]] = {}
    for i, o in enumerate(operations):
        for a in o.operands:
            users.setdefault(a, []).append(i)
    ends = {a for a in program.outputs if isinstance(a, int)}
    single = {i: o.outputs[0] for i, o in enumerate(operations) if len(o.outputs) == 1}
    seen = {i: users.get(a, []) for i, a in single.items() if a not in ends}
    return {i: after[0] for i, after in seen.items() if len(after) == 1}


def _chain(
    program: Program, operations: Sequence[Operation], follower: Mapping[int, int], i: int
) -> list[int]:
    """Return a layer and the scales and shifts that join it."""
    layer = operations[i]
    made = {v: e for e in program.equations for v in e.outputs}
    channels = set(weight_axes(layer.leader, layer.operands[0]))
    chain, between = [i], []
    while (j := follower.get([*chain, *between][-1])) is not None and operations[j].active == 1:
        o = operations[j]
        if o.kind is Kind.STRUCTURE and _keeps_all(o.equations[-1]):
            channels = followed(o.equations[-1], channels)
            between.append(j)
        elif _is_scale(o) and not o.held and _scaled_axes(o, made, program.avals) <= channels:
            chain, between = [*chain, *between, j], []
        else:
            break
    return chain


def _scales(operations: Sequence[Operation], follower: Mapping[int, int], i: int) -> list[int]:
    """Return a scale or shift by held values, and those that follow it."""
    chain = [i]
    while (j := follower.get(chain[-1])) is not None and _is_scale(operations[j]):
        chain.append(j)
    return chain


def _is_scale(o: Operation) -> bool:
    return o.kind is Kind.AFFINE and not o.layered and o.active == 1


def weight_axes(layer: Equation, active: int) -> dict[int, int]:
    """Return which axes of a layer's output are axes of its weight: output axis to weight axis.

    Args:
        layer: a convolution or a `dot_general`.
        active: the operand that depends on x; the other is the weight.
    """
    side = layer.inputs.index(active)
    params = layer.params
    if layer.primitive == "conv_general_dilated":
        _, rhs, out = params["dimension_numbers"]
        return {out[1]: rhs[0]} if side == 0 else {}
    if layer.primitive != "dot_general":
        return {}
    contracted, batch = params["dimension_numbers"]
    ranks = [len(aval.shape) for aval in layer.input_avals]
    free = [
        [a for a in range(n) if a not in (*c, *b)]
        for n, c, b in zip(ranks, contracted, batch, strict=True)
    ]
    first = len(batch[0]) + (len(free[0]) if side == 0 else 0)
    return dict(enumerate(batch[1 - side])) | dict(enumerate(free[1 - side], first))


def _scaled_axes(o: Operation, made: Mapping[int, Equation], avals: Mapping) -> set[int]:
    """Return the axes along which the scales of a scale and shift vary."""
    active = depending(o.equations, {o.operands[0]})
    scales = [e for e in o.equations if e.row.form is Form.SCALE and e.outputs[0] in active]
    fixed = (a for e in scales for a in e.inputs if isinstance(a, int) and a not in active)
    return set().union(*(_varying(a, made, avals) for a in fixed))


def _varying(a: Atom, made: Mapping[int, Equation], avals: Mapping) -> set[int]:
    """Return the axes along which a value varies, as far as its shape and making tell."""
    if not isinstance(a, int):
        return set()
    e = made.get(a)
    if e is not None and e.primitive == "broadcast_in_dim":
        axes = e.params["broadcast_dimensions"]
        return {axes[i] for i in _varying(e.inputs[0], made, avals)}
    if e is not None and elementwise(e):
        return set().union(*(_varying(b, made, avals) for b in e.inputs))
    return {i for i, n in enumerate(avals[a].shape) if n > 1}


def _keeps_all(e: Equation) -> bool:
    """Whether a rearrangement keeps every element, and each once."""
    before, after = _shapes(e)
    return len(e.inputs) == 1 and math.prod(before) == math.prod(after)


def followed(e: Equation, axes: Iterable[int]) -> set[int]:
    """Return where axes are after a rearrangement; those that it merges or splits are left out."""
    before, after = _shapes(e)
    match e.primitive:
        case "transpose":
            return {e.params["permutation"].index(a) for a in axes}
        case "broadcast_in_dim":
            return {e.params["broadcast_dimensions"][a] for a in axes}
        case "reshape" | "squeeze" | "expand_dims":
            kept = {_extent(after, i): i for i, n in enumerate(after) if n > 1}
            return {kept[n] for n in (_extent(before, a) for a in axes) if n in kept}
    return set(axes) if before == after else set()


def _shapes(e: Equation) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return e.input_avals[0].shape, e.output_avals[0].shape


def _extent(shape: tuple[int, ...], axis: int) -> tuple[int, int]:
    """Return the length and the stride of an axis in memory: equal ones are the same axis."""
    return shape[axis], math.prod(shape[axis + 1 :])


def _spreads(o: Operation) -> bool:
    """Whether an operation spreads a value over more places, as the gate of a product."""
    return o.kind is Kind.STRUCTURE and o.equations[-1].primitive == "broadcast_in_dim"


def _joined(parts: Sequence[Operation]) -> Operation:
    *_, last = parts
    if len(parts) == 1:
        return last
    active = {a for o in parts for a in o.operands[: o.active]}
    equations = {e.outputs: e for o in parts for e in o.equations}  # a constant may be in several
    joined = gathered(last.kind, list(equations.values()), active, last.outputs)
    return joined._replace(held=any(o.held for o in parts))
