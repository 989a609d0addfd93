"""An operation as a rule sees it, and the rules that change nothing or refuse."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from jaxattr.lowering import gated, lower
from jaxattr.tracing import elementwise, interpret, slopes
from jaxattr.tracing.interpret import Equation, Program, Step
from jaxattr.tracing.kinds import Operation
from jaxattr.tracing.sites import Place, Scope, Site
from jaxattr.tracing.weights import Weighted, weighted


class UnsupportedOperation(NotImplementedError):
    """An operation that depends on the image and that a rule set cannot handle."""


class Local(NamedTuple):
    """An operation as a rule sees it.

    Attributes:
        site: where it stands.
        value: its function: operands to output.
        slope: of an activation, `d output / d operands[0]` from the same operands, elementwise,
            the same at a kink however the function is spelled.
        linear: of an affine operation, its function without the shift: what it does to changes.
        weighted: of an affine operation, its effective weight, and its map with any other.
        moving: how many of the operands depend on x; they come first.
        equations: what it consists of.
    """

    site: Site
    value: Callable[..., jax.Array]
    slope: Callable[..., jax.Array]
    linear: Callable[..., jax.Array]
    weighted: Callable[..., Weighted]
    moving: int
    equations: tuple[Equation, ...]


Rule: TypeAlias = Callable[[Local], Callable[..., jax.Array]]
"""From an operation to what stands in for it: same operands, same value, another VJP."""


def refuse(local: Local) -> Callable[..., jax.Array]:
    """Raise `UnsupportedOperation`: the rule of a kind that a rule set cannot handle."""
    site = local.site
    where = f" in {site.name}" if site.name else ""
    raise UnsupportedOperation(
        f"no rule for `{site.op}` ({site.kind}, shape {site.shape}){where}, at {site.source}: it "
        "depends on the image, and its plain derivative would silently stand in for a rule. Write "
        f"it with other operations, or give `with_rules` a rule for {site.kind.value!r}"
    )


def plain(local: Local) -> Callable[..., jax.Array]:
    """Keep an operation's own derivative: the rule of a kind that a rule set passes over."""
    return local.value


def noting(local: Local) -> Callable[..., jax.Array]:
    """Keep an activation's own derivative, its gates noted as bytes: the rule of no rule."""
    made = {v for e in local.equations for v in e.outputs}
    entering = {a for e in local.equations for a in e.inputs if isinstance(a, int)} - made
    primitives = [e.primitive for e in local.equations]
    chain = {*primitives} <= elementwise.BOUNDS | {"convert_element_type"} and len(entering) == 1
    bounds = sum(p in elementwise.BOUNDS for p in primitives) if chain else 0
    return gated(local.value, local.site.op, bounds=bounds)


def local(scope: Scope, place: Place) -> Local:
    """Return an operation as a rule sees it."""
    operation, avals = place.operation, scope.program.avals
    assert place.site is not None
    return Local(
        place.site,
        partial(_value, avals, operation),
        partial(_slope, operation),
        linear := partial(_linear, avals, operation),
        partial(weighted, operation, partial(lowered, avals), linear, scope.nonnegative),
        operation.moving,
        operation.equations,
    )


def _value(avals: Mapping[int, Any], operation: Operation, *operands: Any) -> Any:
    program = Program(operation.equations, operation.operands, operation.outputs, {}, avals)
    steps = [lowered(avals, e) for e in operation.equations]
    outputs = interpret.evaluate(program, steps, *operands)
    return outputs[0] if len(outputs) == 1 else tuple(outputs)


_WITH_CONSTANTS = {"concatenate", "stack", "pad", "dynamic_update_slice", "scatter"}
_WITH_CONSTANTS |= {"scatter-add", "scatter_add"}


def _linear(avals: Mapping[int, Any], operation: Operation, *operands: Any) -> Any:
    """Run an affine operation on changes of what moves: every shift drops out."""
    env = dict(zip(operation.operands, operands, strict=True))
    moves = set(operation.operands[: operation.moving])
    for e in operation.equations:
        values = [env[a] if isinstance(a, int) else a.val for a in e.inputs]
        moving = [i for i, a in enumerate(e.inputs) if isinstance(a, int) and a in moves]
        if moving and (elementwise.elementwise(e) or e.primitive in _WITH_CONSTANTS):
            outputs = _changed(e, values, moving)
        else:
            outputs = lowered(avals, e).run(*values)
        env.update(zip(e.outputs, outputs, strict=True))
        moves.update(e.outputs if moving else ())
    return env[operation.outputs[0]]


def _changed(e: Equation, values: list[Any], moving: list[int]) -> Sequence[Any]:
    """Differentiate an equation along its moving inputs."""

    def along(*moved: Any) -> Sequence[Any]:
        full = dict(enumerate(values)) | dict(zip(moving, moved, strict=True))
        return tuple(interpret.apply(e, *full.values()))

    changes = tuple(values[i] for i in moving)
    return jax.jvp(along, tuple(map(jnp.zeros_like, changes)), changes)[1]


def _slope(operation: Operation, *operands: Any) -> jax.Array:
    values = dict(zip(operation.operands, operands, strict=True))
    return slopes.slope(operation.equations, operation.operands[0], values)


def lowered(avals: Mapping[int, Any], e: Equation) -> Step:
    """Return the step that runs one equation, fast on the CPU."""
    fast = lowering(avals, e)
    if fast is None:
        return interpret.step(e)
    run = interpret.named(e, fast)
    return Step(lambda *operands: [run(*operands)], e.inputs, e.outputs)


def lowering(avals: Mapping[int, Any], e: Equation) -> Callable[..., jax.Array] | None:
    """Return the other spelling of an equation, if it has one."""
    operands = [avals[a] if isinstance(a, int) else a.aval for a in e.inputs]
    return lower(e.primitive, e.eqn.params, *operands)
