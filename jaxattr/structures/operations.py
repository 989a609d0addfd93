"""Group the equations of a program into operations, and say of which kind each one is.

An elementwise function that is not affine is an *activation*, unless it serves to normalize:
LayerNorm clamps its variance with `max(var, 0)`, which is no ReLU. What tells them apart is what
goes in: a *feature*, which affine maps and activations made from the image, or a *statistic*, such
as a sum of powers (`statistics.py`). Multiplied with a feature, a statistic gives a feature again,
as in a normalization; so does a weighted sum.
"""

from collections.abc import Container, Iterable, Sequence
from typing import NamedTuple

from jaxattr.programs import dataflow
from jaxattr.programs.control_flow import has_bodies
from jaxattr.programs.dataflow import Flow, Segment
from jaxattr.programs.interpret import Equation, Program
from jaxattr.programs.primitives import Form, Kind
from jaxattr.structures.statistics import normalizes


class Operation(NamedTuple):
    """A group of equations that a rule sees as one.

    `operands` are what enters from outside, those that depend on x first (there are `active` of
    them); `outputs` is what leaves, nearly always one value. It is `held` if others are made of x,
    behind a `stop_gradient`.
    """

    kind: Kind
    equations: tuple[Equation, ...]
    operands: tuple[int, ...]
    active: int
    outputs: tuple[int, ...]
    held: bool = False

    @property
    def leader(self) -> Equation:
        """The equation that gives the operation its name and place: its layer, if it has one."""
        return next(filter(is_layer, self.equations), self.equations[-1])

    @property
    def layered(self) -> bool:
        """Whether it is a layer with a weight, or a sum of products like one."""
        return is_layer(self.leader)


KEEPING = {Kind.LINEAR, Kind.STRUCTURE, Kind.MAX_POOL, Kind.SUM, Kind.PRODUCT, Kind.AFFINE}
_GUARDS = {Form.SELECT, Form.LOGIC}
_NORMALIZING = {Form.POWER, Form.SCALE}


def is_layer(e: Equation) -> bool:
    """Whether an equation is a convolution or a dense layer, if one of its operands is a weight."""
    return e.row.kind is Kind.AFFINE


def operations(program: Program, active: Iterable[int]) -> tuple[Operation, ...]:
    """Return the operations of a program, in an order in which they can run.

    Args:
        program: what to group.
        active: the inputs that depend on x.
    """
    flow = dataflow.flow(program, active)
    inside = {i: s for s in dataflow.segments(flow) for i in s.members}
    statistics: set[int] = set()
    found = []
    for i, e in enumerate(program.equations):
        segment = inside.get(i)
        if segment is None or e.outputs[0] == segment.exit:
            kind = _kind(flow, i, segment, statistics)
            members = segment.members if segment else {i}
            values = [v for v in e.outputs if kind is not Kind.MAX_POOL or flow.differentiable(v)]
            if len(values) < len(e.outputs):  # where they were found is a number
                found.append(operation(flow, Kind.INACTIVE, members, e.outputs))
            found.append(operation(flow, kind, members, tuple(values)))
        elif not segment.members.issuperset(flow.used.get(e.outputs[0], ())):
            members = _makers(flow, i, segment.members)
            found.append(operation(flow, Kind.INACTIVE, members, e.outputs))
    return tuple(found)


def _makers(flow: Flow, i: int, members: Container[int]) -> set[int]:
    """Return the members of a segment that make what one of them gives to others."""
    found, stack = set[int](), [i]
    while stack:
        found.add(j := stack.pop())
        made = (flow.made[v] for v in flow.entries(j) if v in flow.made)
        stack += [k for k in made if k in members]
    return found


def _kind(flow: Flow, i: int, segment: Segment | None, statistics: set[int]) -> Kind:
    """Return the kind of an operation, and note its outputs if they are statistics."""
    e = flow.program.equations[i]
    entries = [segment.entry] if segment else flow.entries(i)
    if not any(map(flow.differentiable, entries)) or not any(
        v in flow.active and flow.differentiable(v) for v in e.outputs
    ):
        return Kind.INACTIVE
    if segment:
        kind = _elementwise_kind(flow, segment, statistics)
    else:
        kind = _other_kind(flow, e, entries)
    weighted = kind is Kind.AFFINE and not segment
    if kind is Kind.STATISTIC or (
        kind in KEEPING and not weighted and statistics.issuperset(entries)
    ):
        statistics.update(e.outputs)
    return kind


def _elementwise_kind(flow: Flow, segment: Segment, statistics: set[int]) -> Kind:
    nonlinear = [i for i in segment.members if not dataflow.affine(flow, i)]
    forms = {flow.program.equations[i].row.form for i in nonlinear}
    if forms <= _GUARDS:  # none, or `where(isnan(x), 0, x)`
        return Kind.AFFINE
    if segment.entry in statistics:
        return Kind.STATISTIC
    lone = len(nonlinear) == 1 and forms <= _NORMALIZING
    return Kind.STATISTIC if lone and normalizes(flow, segment.exit) else Kind.ACTIVATION


def _other_kind(flow: Flow, e: Equation, entries: Sequence[int]) -> Kind:
    kind, several = e.row.kind, len(entries) > 1
    if has_bodies(e):
        return Kind.CONTROL
    if not all(map(flow.differentiable, entries)) and e.row.form is not Form.SELECT:
        return Kind.UNKNOWN  # where it reads depends on x
    match kind:
        case Kind.AFFINE if e.inputs[0] == e.inputs[1]:
            return Kind.STATISTIC
        case Kind.AFFINE if several:
            return Kind.PRODUCT
        case Kind.AFFINE if e.resizes:
            return Kind.LINEAR  # its weights are no parameters
        case Kind.LINEAR:
            return Kind.SUM if several else kind
        case Kind.PRODUCT if not several and (e.primitive == "mul" or e.inputs[0] in entries):
            return Kind.LINEAR
        case Kind.STRUCTURE if several and e.primitive != "optimization_barrier":
            return Kind.UNKNOWN
        case Kind.PRODUCT if e.row.form is Form.SELECT and all(a in entries for a in e.inputs[1:]):
            return Kind.MAX_POOL if e.inputs[0] in entries else Kind.SUM
        case Kind.MAX_POOL if sum(map(flow.differentiable, e.outputs)) > 1:
            return Kind.UNKNOWN  # one sorted by another
    return kind


def extremum(equations: Sequence[Equation]) -> str | None:
    """Return which of two values is selected, "max" or "min", however that is spelled."""
    test, e = equations[0], equations[-1]
    if e.primitive in ("max", "min"):
        return e.primitive
    _, *cases = e.inputs
    compares = test.row.form is Form.COMPARE and test.outputs == e.inputs[:1]
    if not compares or list(test.inputs) not in (cases, cases[::-1]):
        return None
    larger = (test.primitive in ("gt", "ge")) == (test.inputs[0] == cases[1])
    return "max" if larger else "min"


def operation(
    flow: Flow, kind: Kind, members: Iterable[int], outputs: tuple[int, ...]
) -> Operation:
    """Return an operation, with the constants of the program that it needs taken in."""
    equations, own = flow.program.equations, set(members)
    if kind is Kind.MAX_POOL:
        (i,) = own
        a, selects = equations[i].inputs[0], equations[i].row.form is Form.SELECT
        if selects and isinstance(a, int) and a in flow.made:
            test = flow.made[a]
            own |= {test} if extremum((equations[test], equations[i])) else set()
    whole = kind not in (Kind.INACTIVE, Kind.CONTROL)
    stack = [a for i in own for a in equations[i].inputs] if whole else []
    while stack:
        a = stack.pop()
        if isinstance(a, int) and a in flow.literal and flow.made[a] not in own:
            own.add(flow.made[a])
            stack.extend(equations[flow.made[a]].inputs)
    found = gathered(kind, [equations[i] for i in sorted(own)], flow.active, outputs)
    given = found.operands[found.active :]
    return found._replace(held=whole and not flow.moving.isdisjoint(given))


def gathered(
    kind: Kind, equations: Sequence[Equation], active: Container[int], outputs: tuple[int, ...]
) -> Operation:
    """Return equations as one operation, what depends on x first among its operands."""
    made = {v for e in equations for v in e.outputs}
    entering = [a for e in equations for a in e.inputs if isinstance(a, int) and a not in made]
    operands = sorted(dict.fromkeys(entering), key=lambda a: a not in active)
    number = sum(a in active for a in operands)
    return Operation(kind, tuple(equations), tuple(operands), number, outputs)
