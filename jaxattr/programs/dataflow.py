"""Follow the values of a program, and find its elementwise functions, however they are spelled.

Elementwise equations are grouped so that each group has one way in and one way out:
`where(x > 0, x, 0)` and `x * (x > 0)` part at `x` and meet again, so what lies between is one
group. In a chain such as `min(max(x, 0), 6)` the bounds are joined, and so are the parts of
`1 / (1 + exp(-x))`; a BatchNorm between two ReLUs keeps them apart.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp

from jaxattr.programs import primitives
from jaxattr.programs.interpret import Atom, Equation, Program, inner_primitives
from jaxattr.programs.primitives import Call, Form

POWERS = {Form.SHIFT, Form.SCALE, Form.POWER}


class Flow(NamedTuple):
    """Where the values of a program come from and go."""

    program: Program
    made: Mapping[int, int]  # value -> the equation that makes it
    used: Mapping[int, Sequence[int]]  # value -> the equations that use it
    active: frozenset[int]  # values that depend on x, up to a stop_gradient
    moving: frozenset[int]  # values that depend on x, past it too
    literal: frozenset[int]  # values made from constants written into the program

    def entries(self, i: int) -> list[int]:
        """Return the distinct values that depend on x and enter an equation."""
        inputs = self.program.equations[i].inputs
        return list(dict.fromkeys(a for a in inputs if isinstance(a, int) and a in self.active))

    def is_literal(self, a: Atom) -> bool:
        """Whether a value is made from constants that are written into the program alone."""
        return not isinstance(a, int) or a in self.literal

    def differentiable(self, v: int) -> bool:
        """Whether a value can carry a gradient."""
        return jnp.issubdtype(self.program.avals[v].dtype, jnp.inexact)


class Segment(NamedTuple):
    """Elementwise equations with one way in, `entry`, and one way out, `exit`."""

    entry: int
    members: frozenset[int]
    exit: int


def flow(program: Program, active: Iterable[int]) -> Flow:
    """Follow the values of a program.

    Args:
        program: what to follow.
        active: the inputs that depend on x.
    """
    made: dict[int, int] = {}
    used: dict[int, list[int]] = {}
    found, literal = set(active), set[int]()
    moving = set(found)
    for i, e in enumerate(program.equations):
        values = [a for a in e.inputs if isinstance(a, int)]
        for a in values:
            used.setdefault(a, []).append(i)
        made.update(dict.fromkeys(e.outputs, i))
        if found.intersection(values) and e.primitive != "stop_gradient":
            found.update(e.outputs)
        if moving.intersection(values):
            moving.update(e.outputs)
        if literal.issuperset(values):
            literal.update(e.outputs)
    for a in program.outputs:
        if isinstance(a, int):
            used.setdefault(a, []).append(len(program.equations))
    reaching = found & _reaching(program)
    return Flow(program, made, used, frozenset(reaching), frozenset(moving), frozenset(literal))


def _reaching(program: Program) -> set[int]:
    """Return the values through which a change can reach the output."""
    reaching = {a for a in program.outputs if isinstance(a, int)}
    for e in reversed(program.equations):
        if reaching.intersection(e.outputs) and e.primitive != "stop_gradient":
            reaching.update(a for a in e.inputs if isinstance(a, int))
    return reaching


def forms(e: Equation) -> set[Form | None]:
    """Return the forms of what an equation runs; None among them if it is not elementwise.

    A call with its own derivative counts as one equation, of the forms of what it is made of.
    """
    if e.row.call is not Call.DERIVATIVE:
        return {e.row.form}
    made_of = inner_primitives(e) - {"broadcast_in_dim"}
    return {primitives.row(name).form for name in made_of}


def elementwise(e: Equation) -> bool:
    """Whether an equation is elementwise."""
    return None not in forms(e)


def affine(flow: Flow, i: int) -> bool:
    """Whether an elementwise equation is affine in what depends on x."""
    e = flow.program.equations[i]
    active = [isinstance(a, int) and a in flow.active for a in e.inputs]
    match e.row.form:
        case Form.SHIFT:
            return all(map(flow.differentiable, (*e.outputs, *flow.entries(i))))
        case Form.SCALE:
            return sum(active) == 1 and not (e.primitive == "div" and active[1])
        case form:
            return form is Form.SELECT and not active[0]


def segments(flow: Flow) -> list[Segment]:
    """Return the largest groups of elementwise equations with one way in and one way out."""
    return _chained(flow, _meeting(flow))


def _meeting(flow: Flow) -> list[Segment]:
    """Return the groups between a value and the equation where all its paths meet again."""
    above: dict[int, int] = {}  # value -> the nearest value that all its paths pass
    depth: dict[int, int] = {}
    found: dict[int, Segment] = {}  # by the equation that ends them
    avals = flow.program.avals
    for i, e in enumerate(flow.program.equations):
        entries = flow.entries(i)
        out = e.outputs[0] if len(e.outputs) == 1 else -1
        if not entries or out not in flow.active:
            continue
        if {avals[a].shape for a in entries} != {avals[out].shape} or not elementwise(e):
            continue
        top = _parting(entries, above, depth)
        members = None if top is None else between(flow, top, i)
        if top is not None and members is not None:
            for j in members - {i}:
                found.pop(j, None)
            found[i] = Segment(top, members, out)
            above[out], depth[out] = top, depth.get(top, 0) + 1
    return list(found.values())


def _parting(values: Sequence[int], above: dict[int, int], depth: dict[int, int]) -> int | None:
    """Return the nearest value through which all paths to `values` pass."""
    first, *rest = values
    for other in rest:
        while first != other:
            if depth.get(first, 0) < depth.get(other, 0):
                first, other = other, first
            if first not in above:
                return None
            first = above[first]
    return first


def between(flow: Flow, top: int, last: int) -> frozenset[int] | None:
    """Return the equations from a value to the last one; None if others enter, or see inside."""
    members, stack = {last}, flow.entries(last)
    inner: set[int] = set()
    while stack:
        v = stack.pop()
        if v != top and v not in inner:
            if v not in flow.made:
                return None
            inner.add(v)
            members.add(flow.made[v])
            stack.extend(flow.entries(flow.made[v]))
    # A comparison carries no gradient: others may use it too.
    hidden = all(members.issuperset(flow.used[v]) for v in inner if flow.differentiable(v))
    return frozenset(members) if hidden else None


def _chained(flow: Flow, found: list[Segment]) -> list[Segment]:
    """Join bounds that follow each other, and exponentials and quotients with what scales them."""
    ends: dict[int, Segment] = {}
    for s in sorted(found, key=lambda s: max(s.members)):
        link: list[Segment] = []
        before = None if _affine(flow, s) else ends.get(s.entry)
        while before is not None:
            within = s.members.union(*(b.members for b in link))
            if not within.issuperset(flow.used[before.exit]):
                break
            link.append(before)
            if not _affine(flow, before):
                if _join(flow, before, s, adjacent=len(link) == 1):
                    for b in link:
                        del ends[b.exit]
                    s = Segment(before.entry, within | before.members, s.exit)
                break
            before = ends.get(before.entry)
        ends[s.exit] = s
    return list(ends.values())


def _join(flow: Flow, a: Segment, b: Segment, *, adjacent: bool) -> bool:
    equations = flow.program.equations
    found = set[Form | None]().union(*(forms(equations[i]) for i in a.members | b.members))
    return (adjacent and found <= {Form.BOUND}) or found <= POWERS


def _affine(flow: Flow, s: Segment) -> bool:
    return all(affine(flow, i) for i in s.members)


def passed(flow: Flow) -> set[int]:
    """Return the values that all paths from the inputs to the outputs pass."""
    ends = [-1] * (len(flow.program.equations) + 1)  # the last use of what is made before
    for v in flow.active:
        after = flow.made.get(v, -1) + 1
        ends[after] = max((ends[after], *flow.used.get(v, ())))
    alive = list(itertools.accumulate(ends, max))
    return {v for v in flow.active if v in flow.made and alive[flow.made[v]] <= flow.made[v]}
