"""The places in a function where a rule can act."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
from jax.extend.core import JaxprEqn

from jaxattr.lowering import LOWERED
from jaxattr.tracing import elementwise, interpret, loops
from jaxattr.tracing.affine import fold
from jaxattr.tracing.interpret import Program
from jaxattr.tracing.kinds import Kind, Operation, operations
from jaxattr.tracing.signs import nonnegative


class Site(NamedTuple):
    """A place where a rule can act.

    Attributes:
        kind: what stands there.
        name: its module path or named scopes, such as `layer3/0/bn1`.
        op: the function or primitive, such as `relu` or `conv_general_dilated`.
        shape: the shape of its output.
        dtype: the dtype of its output.
        position: its place in the list that `sites` returns.
        source: the user's file, line and function.
    """

    kind: Kind
    name: str
    op: str
    shape: tuple[int, ...]
    dtype: Any
    position: int
    source: str


class Place(NamedTuple):
    """An operation, where it stands, and the scopes inside it if it is a loop."""

    operation: Operation
    site: Site | None
    scopes: "tuple[Scope, ...]"


class Scope(NamedTuple):
    """A program with its operations found.

    Attributes:
        program: it.
        places: its operations, in an order in which they can run.
        nonnegative: the values in it that are never negative.
    """

    program: Program
    places: tuple[Place, ...]
    nonnegative: frozenset[int]

    @property
    def layered(self) -> bool:
        """Whether it has layers that are lowered, for which forward mode is not defined."""
        return any(e.primitive in LOWERED for e in self.program.equations)


_UNSEEN = {Kind.FREE, Kind.STRUCTURE, Kind.LOOP}


def sites(f: Callable[..., Any], x: Any) -> list[Site]:
    """List the places in `f` where a rule can act, in the order in which they run.

    Args:
        f: a function of one argument, such as images `(B, H, W, C)` to logits `(B, K)`.
        x: that argument, or its shape and dtype as a `jax.ShapeDtypeStruct`.

    Returns:
        One `Site` for every affine layer, activation, pool, sum, product and statistic that
        depends on `x`; what stands in the body of a loop is listed once.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> w = jnp.ones((4, 3))
        >>> f = lambda x: jnp.clip(x @ w, 0, 6).sum(-1)
        >>> [(s.kind.value, s.op) for s in sites(f, jnp.ones((2, 4)))]
        [('affine', 'dot_general'), ('activation', 'clip'), ('linear', 'reduce_sum')]
    """
    program, _ = interpret.read(f, x, opens=opens_everything)
    return [p.site for p in every(survey(program)) if p.site is not None]


def survey(program: Program, moving: Iterable[int] | None = None) -> Scope:
    """Find the operations of a program and of the programs inside it.

    Args:
        program: what to survey.
        moving: the inputs that depend on x; all of them by default.
    """
    return _survey(program, program.inputs if moving is None else moving, itertools.count())


def _survey(program: Program, moving: Iterable[int], numbers: Iterator[int]) -> Scope:
    places = []
    frames = Counter(c for e in program.equations for c in e.calls)
    for operation in fold(program, operations(program, moving)):
        inner: tuple[Scope, ...] = ()
        site = None
        if operation.kind is Kind.LOOP:
            pairs = _bodies(operation)
            inner = tuple(_survey(body, moved, numbers) for body, moved in pairs)
        elif operation.kind not in _UNSEEN:
            site = _site(program, operation, frames, next(numbers))
        places.append(Place(operation, site, inner))
    return Scope(program, tuple(places), nonnegative(program))


def every(scope: Scope) -> Iterator[Place]:
    """Yield every place of a scope and of those inside it."""
    for place in scope.places:
        yield place
        for inner in place.scopes:
            yield from every(inner)


def opens_everything(eqn: JaxprEqn) -> bool:
    """Look inside a call with its own derivative unless it is one elementwise function.

    What has neither layers nor activations in it is kept whole, with its derivative; unless it is
    idle, as our own `kept`.
    """
    if interpret.idle(eqn):
        return True
    primitives = interpret.primitives(eqn)
    small = elementwise.ELEMENTWISE | {"broadcast_in_dim"}
    return not loops.is_remat(eqn) and not primitives <= small and bool(primitives & _WORTH)


def opens_remat(eqn: JaxprEqn) -> bool:
    """Look inside what is computed again in the backward pass, too."""
    return loops.is_remat(eqn) or opens_everything(eqn)


_WORTH = {"conv_general_dilated", "dot_general", "reduce_window_max", "reduce_window_sum"}
_WORTH |= elementwise.BOUNDS | {"tanh", "logistic", "erf", "select_n"}


def _bodies(operation: Operation) -> list[tuple[Program, set[int]]]:
    """Return the programs inside a loop, each with its inputs that depend on x."""
    (loop,) = operation.equations
    moving = set(operation.operands[: operation.moving])
    moves = [isinstance(a, int) and a in moving for a in loop.inputs]
    programs = loops.inner(loop, opens_everything)
    moves = moves[1:] if loop.primitive == "cond" else moves
    if loop.primitive not in ("scan", "while"):
        return [(p, _chosen(p.inputs, moves)) for p in programs]
    body = programs[-1]
    n = loops.carried(loop)
    first = loops.constants(loop, len(body.inputs))
    if loop.primitive == "while":
        tested = len(programs[0].inputs) - n
        moves = moves[tested:]
    while True:  # until what is carried moves no more than what carried it
        flow = elementwise.flow(body, _chosen(body.inputs, moves))
        carried = [isinstance(a, int) and a in flow.moves for a in body.outputs[:n]]
        grown = [a or b for a, b in zip(moves[first : first + n], carried, strict=True)]
        if grown == moves[first : first + n]:
            break
        moves = [*moves[:first], *grown, *moves[first + n :]]
    return [(p, set[int]()) for p in programs[:-1]] + [(body, _chosen(body.inputs, moves))]


def _chosen(values: Sequence[int], chosen: Sequence[bool]) -> set[int]:
    return {v for v, yes in zip(values, chosen, strict=True) if yes}


def _site(program: Program, operation: Operation, frames: Counter, position: int) -> Site:
    leader, aval = operation.leader, program.avals[operation.outputs[0]]
    return Site(
        operation.kind,
        leader.path,
        _label(operation, frames),
        aval.shape,
        jax.numpy.dtype(aval.dtype),
        position,
        leader.source,
    )


def _label(operation: Operation, frames: Counter) -> str:
    """Return the name of the outermost call that is just this operation, or of its primitive."""
    equations = [e for e in operation.equations if e.calls]
    whole = [c for c, n in Counter(c for e in equations for c in e.calls).items() if n == frames[c]]
    if whole and operation.kind is Kind.ACTIVATION and len(equations) == len(operation.equations):
        return min(whole)[1]
    leader = operation.leader
    custom = leader.primitive.startswith("custom_")
    return interpret.called(leader.eqn) if custom else leader.primitive
