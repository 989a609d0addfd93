"""The places in a function where a rule can act."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxattr.frameworks.entering import unjitted
from jaxattr.lowering import LOWERED
from jaxattr.programs import dataflow, interpret, primitives
from jaxattr.programs.control_flow import active_inputs
from jaxattr.programs.interpret import Equation, Program
from jaxattr.programs.primitives import Call, Form, Kind
from jaxattr.programs.signs import nonnegative
from jaxattr.structures.factors import HOLDABLE, Hold, held, whole_softmaxes
from jaxattr.structures.folding import fold
from jaxattr.structures.operations import Operation, operations


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

    @property
    def where(self) -> str:
        """What an error message says of it."""
        layer = f" in {self.name}" if self.name else ""
        return f"`{self.op}` ({self.kind}, shape {self.shape}){layer}, at {self.source}"


class Place(NamedTuple):
    """An operation, where it stands, and the scopes inside it if it runs programs of its own."""

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
    def lowered(self) -> bool:
        """Whether it has operations that are lowered."""
        return any(e.primitive in LOWERED for e in self.program.equations)

    @property
    def sites(self) -> list[Site]:
        """The places where a rule can act, in the order in which they run."""
        return [place.site for place in every(self) if place.site is not None]


_UNSEEN = {Kind.INACTIVE, Kind.STRUCTURE, Kind.CONTROL}


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
    program, _ = interpret.read(unjitted(f), x, inline=should_inline)
    return survey(program).sites


def survey(
    program: Program, active: Iterable[int] | None = None, hold: Hold | None = None
) -> Scope:
    """Find the operations of a program and of the programs inside it.

    Args:
        program: what to survey.
        active: the inputs that depend on x; all of them by default.
        hold: which factors of products are held, as for `factors.held`, and softmaxes taken as
            one operation; by default none.
    """
    active = program.inputs if active is None else active
    scope = _survey(program, active, itertools.count(), hold)
    paths = [e.path for p in every(scope) for e in p.operation.equations]
    for name in hold or ():
        if name not in HOLDABLE and not any(is_under(path, name) for path in paths):
            raise ValueError(
                f"hold names {name!r}, which is no layer or scope of the function, and none of "
                f"{', '.join(HOLDABLE)}"
            )
    return scope


def _survey(
    program: Program, active: Iterable[int], numbers: Iterator[int], hold: Hold | None
) -> Scope:
    places = []
    if hold is None:
        found = operations(program, active)
    else:
        program = held(program, active, hold, [*_under(program, hold)])
        found = whole_softmaxes(program, active, operations(program, active))
    frames = Counter(c for e in program.equations for c in e.calls)
    for operation in fold(program, found):
        inner: tuple[Scope, ...] = ()
        site = None
        if operation.kind is Kind.CONTROL:
            inner = tuple(_survey(*body, numbers, hold) for body in _bodies(operation))
        elif operation.kind not in _UNSEEN:
            site = _site(program, operation, frames, next(numbers))
        places.append(Place(operation, site, inner))
    return Scope(program, tuple(places), nonnegative(program))


def _under(program: Program, hold: Hold) -> Iterator[int]:
    """Yield the values that are made under the names among what is to be held."""
    names = [name for name in hold if name not in HOLDABLE]
    for e in program.equations:
        if any(is_under(e.path, name) for name in names):
            yield from e.outputs


def every(scope: Scope) -> Iterator[Place]:
    """Yield every place of a scope and of those inside it."""
    for place in scope.places:
        yield place
        for inner in place.scopes:
            yield from every(inner)


def is_under(path: str, layer: str) -> bool:
    """Whether a path, or a scope around it, ends in the name of a layer, `layer4.0` or `layer4/0`.

    >>> is_under("net/layer4/0/conv1", "layer4.0"), is_under("net/layer4/0/conv1", "layer")
    (True, False)
    """
    parts = tuple(filter(None, path.split("/")))
    return any(scope_ends_with(parts[:n], layer) for n in range(1, len(parts) + 1))


def scope_ends_with(scope: tuple[str, ...], layer: str) -> bool:
    """Whether a scope, given by its parts, ends in the name of a layer."""
    names = (tuple(filter(None, layer.split(s))) for s in ("/", "."))
    return any(scope[max(0, len(scope) - len(name)) :] == name for name in names)


def should_inline(e: Equation) -> bool:
    """Whether to look inside a call that carries its own derivative.

    One elementwise function is kept whole, and so is what has neither layers nor activations in it,
    with its derivative.
    """
    if e.row.call is Call.REMAT:
        return False
    names = interpret.inner_primitives(e)
    rows = [primitives.row(name) for name in names - {"broadcast_in_dim"}]
    return not all(row.form for row in rows) and (
        "reduce_window_sum" in names
        or any(row.kind in _WITH_RULES or row.form in _NONLINEAR for row in rows)
    )


def should_inline_remat(e: Equation) -> bool:
    """Whether to look inside a call, and inside what is computed again in the backward pass."""
    return e.row.call is Call.REMAT or should_inline(e)


_WITH_RULES = {Kind.AFFINE, Kind.MAX_POOL}
_NONLINEAR = {Form.BOUND, Form.SELECT, Form.CURVE}


def _bodies(operation: Operation) -> list[tuple[Program, set[int]]]:
    """Return the programs inside an operation, each with its inputs that depend on x."""
    (e,) = operation.equations
    active = set(operation.operands[: operation.active])
    programs = interpret.bodies(e, should_inline)

    def carries(program: Program, active: set[int]) -> list[bool]:
        flow = dataflow.flow(program, active)
        return [isinstance(a, int) and a in flow.active for a in program.outputs]

    entering = [isinstance(a, int) and a in active for a in e.inputs]
    return list(zip(programs, active_inputs(e, programs, entering, carries), strict=True))


def _site(program: Program, operation: Operation, frames: Counter, position: int) -> Site:
    leader, aval = operation.leader, program.avals[operation.outputs[0]]
    return Site(
        operation.kind,
        leader.path,
        _label(operation, frames),
        aval.shape,
        jnp.dtype(aval.dtype),
        position,
        leader.source,
    )


def _label(operation: Operation, frames: Counter) -> str:
    """Return the name of the outermost call that is just this operation, or of its primitive."""
    equations = [e for e in operation.equations if e.calls]
    whole = [c for c, n in Counter(c for e in equations for c in e.calls).items() if n == frames[c]]
    if whole and operation.kind is Kind.ACTIVATION and len(equations) == len(operation.equations):
        return min(whole)[1]
    return operation.leader.called
