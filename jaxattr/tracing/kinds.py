"""Group the equations of a program into operations, and say of which kind each one is.

An elementwise function that is not affine is an *activation*, unless it serves to normalise:
LayerNorm clamps its variance with `max(var, 0)`, which is no ReLU. What tells them apart is what
goes in: a *feature*, which affine maps and activations made from the image, or a *statistic*,
quadratic in features or made by an exponential or a root alone. Multiplied with a feature, a
statistic gives a feature again, as in a normalisation; so does a weighted sum.
"""

from collections.abc import Container, Iterable, Sequence
from enum import StrEnum
from typing import NamedTuple

from jaxattr.tracing import elementwise, loops
from jaxattr.tracing.elementwise import Flow, Segment
from jaxattr.tracing.interpret import Equation, Program


class Kind(StrEnum):
    """What an operation is to a rule."""

    AFFINE = "affine"  # convolution, dense layer, scale and shift, by values free of x
    ACTIVATION = "activation"  # a one-input elementwise non-linearity
    MAX_POOL = "max_pool"
    LINEAR = "linear"  # linear without weights: sums, average pools, padding, resizing
    SUM = "sum"  # of values that all depend on x; concatenation
    PRODUCT = "product"  # of values that all depend on x: gates, attention
    STATISTIC = "statistic"  # what a normalisation or softmax computes to divide by
    STRUCTURE = "structure"  # reshape, transpose, slice, broadcast
    LOOP = "loop"  # scan, while, cond, remat: descend
    UNKNOWN = "unknown"  # depends on x, and nothing above
    FREE = "free"  # does not depend on x, or carries no gradient


class Operation(NamedTuple):
    """A group of equations that a rule sees as one.

    `operands` are what enters from outside, those that depend on x first (there are `moving` of
    them); `outputs` is what leaves, nearly always one value.
    """

    kind: Kind
    equations: tuple[Equation, ...]
    operands: tuple[int, ...]
    moving: int
    outputs: tuple[int, ...]

    @property
    def leader(self) -> Equation:
        """The equation that gives the operation its name and place: its layer, if it has one."""
        layers = (e for e in self.equations if e.primitive in LAYERS)
        return next(layers, self.equations[-1])


_STRUCTURES = {"reshape", "transpose", "slice", "squeeze", "broadcast_in_dim", "rev", "split"}
_STRUCTURES |= {"dynamic_slice", "expand_dims", "gather", "optimization_barrier", "device_put"}
_STRUCTURES |= {"sharding_constraint", "reshard", "mesh_cast", "pvary", "tile", "unstack"}
_LINEAR = {"reduce_sum", "reduce_window_sum", "cumsum", "pad", "scatter-add", "scatter_add"}
_LINEAR |= {"dynamic_update_slice", "scatter"}
_POOLS = {"reduce_window_max", "reduce_max"}
LAYERS = {"conv_general_dilated", "dot_general", "ragged_dot_general"}
_SUMS = {"add", "sub", "add_any", "concatenate", "stack"}
_PRODUCTS = {"mul", "div", "select_n"}
_KEEPING = {Kind.LINEAR, Kind.STRUCTURE, Kind.MAX_POOL, Kind.SUM, Kind.PRODUCT, Kind.AFFINE}


def operations(program: Program, moving: Iterable[int]) -> tuple[Operation, ...]:
    """Return the operations of a program, in an order in which they can run.

    Args:
        program: what to group.
        moving: the inputs that depend on x.
    """
    flow = elementwise.flow(program, moving)
    inside = {i: s for s in elementwise.segments(flow) for i in s.members}
    statistics: set[int] = set()
    found = []
    for i, e in enumerate(program.equations):
        segment = inside.get(i)
        if segment is None or e.outputs[0] == segment.exit:
            kind = _kind(flow, i, segment, statistics)
            members = segment.members if segment else {i}
            found.append(_operation(flow, kind, members, e.outputs))
        elif not segment.members.issuperset(flow.used.get(e.outputs[0], ())):
            found.append(_operation(flow, Kind.FREE, {i}, e.outputs))
    return tuple(found)


def _kind(flow: Flow, i: int, segment: Segment | None, statistics: set[int]) -> Kind:
    """Return the kind of an operation, and note its outputs if they are statistics."""
    e = flow.program.equations[i]
    entries = [segment.entry] if segment else flow.entries(i)
    if not any(map(flow.differentiable, entries)) or not any(
        v in flow.moves and flow.differentiable(v) for v in e.outputs
    ):
        return Kind.FREE
    if segment:
        kind = _elementwise_kind(flow, segment, statistics)
    else:
        kind = _other_kind(flow, e, entries)
    weighted = kind is Kind.AFFINE and not segment
    if kind is Kind.STATISTIC or (
        kind in _KEEPING and not weighted and statistics.issuperset(entries)
    ):
        statistics.update(e.outputs)
    return kind


def _elementwise_kind(flow: Flow, segment: Segment, statistics: set[int]) -> Kind:
    bent = {i for i in segment.members if not elementwise.affine(flow, i)}
    primitives = {flow.program.equations[i].primitive for i in bent}
    if primitives <= elementwise.GUARDS:  # none, or `where(isnan(x), 0, x)`
        return Kind.AFFINE
    alone = len(bent) == 1 and primitives <= elementwise.STATISTICS
    return Kind.STATISTIC if alone or segment.entry in statistics else Kind.ACTIVATION


def _other_kind(flow: Flow, e: Equation, entries: Sequence[int]) -> Kind:
    name, several = e.primitive, len(entries) > 1
    if loops.is_loop(e):
        return Kind.LOOP
    if not all(map(flow.differentiable, entries)) and name != "select_n":
        return Kind.UNKNOWN  # where it reads depends on x
    if name in LAYERS:
        squared = e.inputs[0] == e.inputs[1]
        return Kind.STATISTIC if squared else Kind.PRODUCT if several else Kind.AFFINE
    if name in _POOLS:
        return Kind.MAX_POOL
    if name in _STRUCTURES and (not several or name == "optimization_barrier"):
        return Kind.STRUCTURE
    if name in _LINEAR:
        return Kind.SUM if several else Kind.LINEAR
    if name in _SUMS:
        return Kind.SUM if several else Kind.LINEAR
    return Kind.PRODUCT if name in _PRODUCTS else Kind.UNKNOWN


def _operation(
    flow: Flow, kind: Kind, members: Iterable[int], outputs: tuple[int, ...]
) -> Operation:
    """Return an operation, with the constants of the program that it needs taken in."""
    equations, own = flow.program.equations, set(members)
    stack = [] if kind in (Kind.FREE, Kind.LOOP) else [a for i in own for a in equations[i].inputs]
    while stack:
        a = stack.pop()
        if isinstance(a, int) and a in flow.literal and flow.made[a] not in own:
            own.add(flow.made[a])
            stack.extend(equations[flow.made[a]].inputs)
    return gathered(kind, [equations[i] for i in sorted(own)], flow.moves, outputs)


def gathered(
    kind: Kind, equations: Sequence[Equation], moves: Container[int], outputs: tuple[int, ...]
) -> Operation:
    """Return equations as one operation, what depends on x first among its operands."""
    made = {v for e in equations for v in e.outputs}
    entering = [a for e in equations for a in e.inputs if isinstance(a, int) and a not in made]
    operands = sorted(dict.fromkeys(entering), key=lambda a: a not in moves)
    moving = sum(a in moves for a in operands)
    return Operation(kind, tuple(equations), tuple(operands), moving, outputs)
